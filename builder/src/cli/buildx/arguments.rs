//! The flags of `docker buildx build` that say how commands run, or that have little or no effect here.

use clap::Args;

use super::switch;

/// See the table of the module for what each does.
#[derive(Debug, Default, Args)]
pub struct BuildxArguments {
    /// A name for the `/etc/hosts` of commands
    #[arg(long, value_name = "NAME:ADDRESS", value_delimiter = ',', help_heading = "Commands of the Dockerfile")]
    pub add_host: Vec<String>,
    /// The network of commands: `default`, `none`, `host`, or `isolated`: one of their own that leads to other machines and not to
    /// this one
    #[arg(long, value_name = "MODE", help_heading = "Commands of the Dockerfile")]
    pub network: Option<String>,
    /// Size of the `/dev/shm` of commands (`128m`) [default: 64m]
    #[arg(long, value_name = "SIZE", value_parser = crate::notation::amount, help_heading = "Commands of the Dockerfile")]
    pub shm_size: Option<u64>,
    /// A resource limit of commands (`nofile=1024:2048`; -1 is none)
    #[arg(long, value_name = "NAME=SOFT[:HARD]", help_heading = "Commands of the Dockerfile")]
    pub ulimit: Vec<String>,
    /// A capability that commands have besides the usual (`CAP_NET_ADMIN`, `ALL`)
    #[arg(long, value_name = "CAPABILITY", value_delimiter = ',', help_heading = "Commands of the Dockerfile")]
    pub cap_add: Vec<String>,
    /// A capability that commands do not have
    #[arg(long, value_name = "CAPABILITY", value_delimiter = ',', help_heading = "Commands of the Dockerfile")]
    pub cap_drop: Vec<String>,
    /// What commands may ask for: `network.host`, `security.insecure`; `user.recorded` lets them be another user than root
    /// where there is only one id, and that user is only played
    #[arg(long, value_name = "ENTITLEMENT", help_heading = "Commands of the Dockerfile")]
    pub allow: Vec<String>,
    /// Not there yet
    #[arg(long, value_name = "NAME", help_heading = "Commands of the Dockerfile")]
    pub cgroup_parent: Option<String>,
    /// Not there yet
    #[arg(long, value_name = "KEY=VALUE", help_heading = "Commands of the Dockerfile")]
    pub resource: Vec<String>,
    /// Not there yet
    #[arg(long, value_name = "BOOL|SPEC", help_heading = "Attestations and caches")]
    pub provenance: Option<String>,
    /// Not there yet
    #[arg(long, value_name = "BOOL|SPEC", help_heading = "Attestations and caches")]
    pub sbom: Option<String>,
    /// Not there yet
    #[arg(long, value_name = "type=KIND", help_heading = "Attestations and caches")]
    pub attest: Vec<String>,
    /// Not there yet
    #[arg(long, value_name = "SPEC", help_heading = "Attestations and caches")]
    pub cache_from: Vec<String>,
    /// Not there yet
    #[arg(long, value_name = "SPEC", help_heading = "Attestations and caches")]
    pub cache_to: Vec<String>,
    /// Not there yet
    #[arg(long, value_name = "SPEC", help_heading = "Attestations and caches")]
    pub policy: Vec<String>,
    /// Taken for the sake of scripts: this process is the builder
    #[arg(long, value_name = "NAME", hide = true)]
    pub builder: Option<String>,
    /// Trace what happens on standard error; `FLUYT_LOG` says it in more detail
    #[arg(short = 'D', long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", value_parser = switch, action = clap::ArgAction::Set, value_name = "BOOL", hide_default_value = true)]
    pub debug: bool,

    /// The most memory that a command may use (`1g`)
    #[arg(
        long,
        short = 'm',
        value_name = "SIZE",
        allow_hyphen_values = true,
        help_heading = "Commands of the Dockerfile"
    )]
    pub memory: Option<String>,
    /// That and swap together (`2g`; -1 is no limit) [default: twice the memory]
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true, help_heading = "Commands of the Dockerfile")]
    pub memory_swap: Option<String>,
    /// The period of `--cpu-quota` in microseconds [default: 100000]
    #[arg(long, value_name = "MICROSECONDS", help_heading = "Commands of the Dockerfile")]
    pub cpu_period: Option<String>,
    /// Processor time of a command in each period, in microseconds
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true, help_heading = "Commands of the Dockerfile")]
    pub cpu_quota: Option<String>,
    /// Weight of a command when processors are scarce [default: 1024]
    #[arg(long, short = 'c', value_name = "WEIGHT", help_heading = "Commands of the Dockerfile")]
    pub cpu_shares: Option<String>,
    /// The processors of commands (`0-3`, `0,1`)
    #[arg(long, value_name = "LIST", help_heading = "Commands of the Dockerfile")]
    pub cpuset_cpus: Option<String>,
    /// The memory nodes of commands (`0-3`, `0,1`)
    #[arg(long, value_name = "LIST", help_heading = "Commands of the Dockerfile")]
    pub cpuset_mems: Option<String>,
    /// As with the classic builder, which had no other.
    #[arg(long, hide = true)]
    pub security_opt: Vec<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", value_parser = switch, action = clap::ArgAction::Set)]
    #[allow(missing_docs, reason = "see the first")]
    pub squash: bool,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", value_parser = switch, action = clap::ArgAction::Set)]
    #[allow(missing_docs, reason = "see the first")]
    pub compress: bool,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", value_parser = switch, action = clap::ArgAction::Set)]
    #[allow(missing_docs, reason = "see the first")]
    pub force_rm: bool,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true", value_parser = switch, action = clap::ArgAction::Set)]
    #[allow(missing_docs, reason = "see the first")]
    pub rm: bool,
}
