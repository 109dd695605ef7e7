//! What can be typed: clap's types, and nothing but what was typed. Names, meanings and defaults of `build` are those
//! of `docker buildx build` wherever both have a flag.

use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};

use super::buildx::{BuildxArguments, switch};
use crate::sandbox::Rung;

/// Builds OCI images from Dockerfiles: no daemon, no privileged helper, never a stale layer.
#[derive(Debug, Parser)]
#[command(name = "fluyt", version, about, max_term_width = 100, disable_help_subcommand = true)]
#[command(
    after_help = "Exit codes: 0 done, 1 something you can mend, 2 wrong usage, 3 ours or the environment's, 130 interrupted"
)]
pub struct Arguments {
    /// Folder that holds images and cached steps [env: FLUYT_STORE] [default: $XDG_CACHE_HOME/fluyt or ~/.cache/fluyt]
    #[arg(long, global = true, value_name = "DIR")]
    pub store: Option<PathBuf>,
    /// For `verify` alone, which starts itself with it: what another user is to build
    #[arg(long, hide = true, value_name = "ORDER")]
    pub as_another_user: Option<String>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Build an image from a Dockerfile
    Build(Box<BuildArguments>),
    /// Build twice under different conditions, or an image again from the commit that it names, and tell what differs
    Verify(Box<VerifyArguments>),
    /// Push an image from the store to a registry
    Push(PushArguments),
    /// Pull an image from a registry into the store, or into an OCI layout
    Pull(PullArguments),
    /// Show an image's manifest, configuration and layers
    Inspect(InspectArguments),
    /// List the images in the store
    Images(ImagesArguments),
    /// Give an image in the store one more name
    Tag(TagArguments),
    /// Take a name from an image in the store
    Rmi(RmiArguments),
    /// Remove cached steps, layers and cache mounts that nothing needs, least recently used first
    Prune(PruneArguments),
    /// See what the cache takes
    Cache(CacheArguments),
    /// Tell how RUN runs its commands here, what that protects, and what would be needed for a better way
    Doctor(DoctorArguments),
    /// Keep a registry's credentials for later commands
    Login(LoginArguments),
    /// Forget a registry's credentials
    Logout(LogoutArguments),
    /// Print the version
    Version(VersionArguments),
    /// Print a completion script for a shell
    Completion(CompletionArguments),
    /// Print the manual page
    Man,
}

/// How registries are reached; every command that talks to one takes these.
#[derive(Debug, Args, Clone)]
#[command(next_help_heading = "Registries")]
pub struct RegistryArguments {
    /// File with registry credentials [default: what Docker and podman use]
    #[arg(long, value_name = "FILE")]
    pub authfile: Option<PathBuf>,
    /// Speak plain HTTP to this registry (loopback needs no flag)
    #[arg(long, value_name = "HOST")]
    pub insecure_registry: Vec<String>,
    /// Do not verify this registry's certificate
    #[arg(long, value_name = "HOST")]
    pub skip_tls_verify_registry: Vec<String>,
    /// Trust the certificates in FILE for this registry
    #[arg(long, value_name = "HOST=FILE", value_parser = pair)]
    pub registry_certificate: Vec<(String, String)>,
    /// Ask this mirror first for what the registry has
    #[arg(long, value_name = "HOST=URL", value_parser = pair)]
    pub registry_mirror: Vec<(String, String)>,
    /// Try a request that failed so often again [default: 4, and a transfer that broke on the way for 30 s]
    #[arg(long, value_name = "N")]
    pub retry: Option<u32>,
}

/// What `--isolation` takes: a rung, or none for the best.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Isolation(pub Option<Rung>);

impl Isolation {
    /// Understands a value; `default` is Docker's word for `auto`.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "" | "auto" | "default" => Ok(Self(None)),
            rung => rung.parse().map(|rung| Self(Some(rung))),
        }
    }
}

/// `fluyt build`.
#[derive(Debug, Args)]
#[command(after_long_help = super::buildx::help(), args_override_self = true)]
pub struct BuildArguments {
    /// Folder with the files that the Dockerfile copies; `-` for an archive or a Dockerfile on standard input; the URL of an
    /// archive or a Dockerfile; or a git repository (`https://host/path.git#ref:folder`, `user@host:path`)
    #[arg(value_name = "CONTEXT")]
    pub context: PathBuf,
    /// Name of the image (`name[:tag]`); may be given several times
    #[arg(short = 't', long = "tag", value_name = "REF", allow_hyphen_values = true)]
    pub tags: Vec<String>,
    /// The Dockerfile, `-` for standard input, or a URL [default: CONTEXT/Dockerfile]
    #[arg(short, long, value_name = "FILE", value_parser = path())]
    pub file: Option<PathBuf>,
    /// Value of an ARG; without `=V` the environment's
    #[arg(long = "build-arg", value_name = "K[=V]")]
    pub build_args: Vec<String>,
    /// What an image's or a stage's name stands for: a folder, `docker-image://REF`, `oci-layout://FOLDER[:TAG][@DIGEST]`, the
    /// URL of a file or a git repository; also for COPY --from and RUN --mount=from
    #[arg(long = "build-context", value_name = "NAME=VALUE", value_parser = pair)]
    pub build_contexts: Vec<(String, String)>,
    /// A secret for `RUN --mount=type=secret`: `id=NAME,src=FILE` or `id=NAME,env=VARIABLE`. No layer may hold it, plain or
    /// encoded, unless `,scan=off` stands behind
    #[arg(long = "secret", value_name = "SPEC")]
    pub secrets: Vec<String>,
    /// An agent for `RUN --mount=type=ssh`: `default`, which is that of `SSH_AUTH_SOCK`, or `NAME=SOCKET`, or keys in files:
    /// `NAME=KEYFILE,KEYFILE`
    #[arg(long = "ssh", value_name = "NAME[=SOCKET|KEYFILE]")]
    pub agents: Vec<String>,
    /// Stage to build [default: the last]
    #[arg(long, value_name = "STAGE")]
    pub target: Option<String>,
    /// Platform of the result (`linux/amd64`) [default: this machine's]
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Option<String>,
    /// Label of the image
    #[arg(long = "label", value_name = "K=V", value_parser = label)]
    pub labels: Vec<(String, String)>,
    /// Push the image to its names' registries
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", value_parser = switch, action = clap::ArgAction::Set, value_name = "BOOL", hide_default_value = true)]
    pub push: bool,
    /// Hand the image to Docker, or to podman where there is no Docker
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", value_parser = switch, action = clap::ArgAction::Set, value_name = "BOOL", hide_default_value = true)]
    pub load: bool,
    /// Where the result goes: `type=oci|docker|tar|local,dest=PATH`, `type=registry`, or a folder; `dest=-` is stdout
    #[arg(short, long = "output", value_name = "SPEC")]
    pub outputs: Vec<String>,
    /// How layers are compressed: `gzip`, `gzip-members`, `zstd` or `uncompressed` [default: gzip]
    #[arg(long, value_name = "KIND")]
    pub compression: Option<String>,
    /// Level of the compression: 0 to 9 for gzip, 0 to 22 for zstd
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub compression_level: Option<i32>,
    /// Compress the layers of base images in the same way, rather than take them as they are
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", value_parser = switch, action = clap::ArgAction::Set, value_name = "BOOL", hide_default_value = true)]
    pub force_compression: bool,
    /// Annotation of the manifest; `manifest-descriptor:K=V` annotates its descriptor
    #[arg(long = "annotation", value_name = "K=V")]
    pub annotations: Vec<String>,
    /// Fail where a server of base images or of what `ADD` takes cannot be asked, and use no base image from the store unasked
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", value_parser = switch, action = clap::ArgAction::Set, value_name = "BOOL", hide_default_value = true)]
    pub pull: bool,
    /// Run every step again
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", value_parser = switch, action = clap::ArgAction::Set, value_name = "BOOL", hide_default_value = true)]
    pub no_cache: bool,
    /// Make the build checks, and nothing else; the same as --call=check
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", value_parser = switch, action = clap::ArgAction::Set, value_name = "BOOL", hide_default_value = true)]
    pub check: bool,
    /// What to do with the Dockerfile: `build` it, `check` it, or show its `outline` or its `targets`; with `,format=json` as
    /// JSON
    #[arg(long, value_name = "METHOD", default_value = "build", value_parser = super::call::Call::parse)]
    pub call: super::call::Call,
    /// Say of every step that runs why it was not found in the cache
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", value_parser = switch, action = clap::ArgAction::Set, value_name = "BOOL", hide_default_value = true)]
    pub explain: bool,
    /// Run every step of these stages again (`a,b`; may be given several times)
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    pub no_cache_filter: Vec<String>,
    /// How much the store may take: at the end of the build what was used longest ago goes, and never what this build or an
    /// image with a name needs. An amount (`20GB`), a share of the disk (`50%`) or `none` [default: 60%, and so that a tenth
    /// of the disk stays free]
    #[arg(long, value_name = "SIZE", env = "FLUYT_STORE_LIMIT", hide_env_values = true, value_parser = crate::prune::Ceiling::parse)]
    pub store_limit: Option<crate::prune::Ceiling>,
    /// How commands run: `auto` is the best way that this machine allows, `r1` to `r6` that one alone (`fluyt doctor` tells)
    #[arg(long, value_name = "RUNG", value_parser = Isolation::parse)]
    pub isolation: Option<Isolation>,
    /// Run no command in a way that is less exact than this one; `auto` sets no bound
    #[arg(long, value_name = "RUNG", value_parser = Isolation::parse)]
    pub isolation_min: Option<Isolation>,
    /// How progress is shown
    #[arg(long, value_enum, default_value_t = Progress::Auto, env = "BUILDKIT_PROGRESS", hide_env = true)]
    pub progress: Progress,
    /// The same as --progress quiet
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", value_parser = switch, action = clap::ArgAction::Set, value_name = "BOOL", hide_default_value = true)]
    pub quiet: bool,
    /// The same bytes from the same input: times that do not depend on the clock, and, for a context from git, modes that do
    /// not depend on the check-out (a folder's files keep the modes that its umask left, and a RUN sees their times).
    /// Implied by `SOURCE_DATE_EPOCH`
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", value_parser = switch, action = clap::ArgAction::Set, value_name = "BOOL", hide_default_value = true)]
    pub reproducible: bool,
    /// Mend what commands leave that differs from build to build and that an image does without: package managers' logs, backups
    /// and caches, the machine's id, random seeds, days of password changes, times in Python's byte code
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", value_parser = switch, action = clap::ArgAction::Set, value_name = "BOOL", hide_default_value = true)]
    pub normalize: bool,
    /// Write the digest of the image's configuration to FILE
    #[arg(long, value_name = "FILE", value_parser = path())]
    pub iidfile: Option<PathBuf>,
    /// Write the digest of the image's manifest to FILE
    #[arg(long, value_name = "FILE", value_parser = path())]
    pub digest_file: Option<PathBuf>,
    /// Write what was built to FILE, as buildx does
    #[arg(long, value_name = "FILE", value_parser = path())]
    pub metadata_file: Option<PathBuf>,
    /// Write when each step waited, ran and moved bytes to FILE, as trace events that browsers' trace viewers draw
    #[arg(long, value_name = "FILE", value_parser = path())]
    pub timeline: Option<PathBuf>,
    /// How commands run, and what has little or no effect.
    #[command(flatten)]
    pub buildx: BuildxArguments,
    /// Registries.
    #[command(flatten)]
    pub registries: RegistryArguments,
}

impl BuildArguments {
    /// A flag with an empty value is one that was not given: CI files write `--target=$TARGET`.
    #[must_use]
    pub fn without_empty(mut self) -> Self {
        for path in
            [&mut self.file, &mut self.iidfile, &mut self.digest_file, &mut self.metadata_file, &mut self.timeline]
        {
            path.take_if(|path| path.as_os_str().is_empty());
        }
        for text in [&mut self.target, &mut self.platform] {
            text.take_if(|text| text.is_empty());
        }
        self
    }
}

/// `fluyt verify`.
#[derive(Debug, Args)]
pub struct VerifyArguments {
    /// Print all differences as JSON
    #[arg(long)]
    pub json: bool,
    /// What is built; what `build` writes, `verify` does not.
    #[command(flatten)]
    pub build: BuildArguments,
}

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Progress {
    /// `tty` on a terminal, `plain` elsewhere.
    // An empty variable is none.
    #[value(alias = "")]
    Auto,
    /// A line for each thing that happens.
    Plain,
    /// A view that is redrawn; `plain` where there is no terminal.
    Tty,
    /// Nothing but errors, and what led to them.
    #[value(alias = "none")]
    Quiet,
    /// One JSON object a line, as `BuildKit` prints.
    Rawjson,
}

/// `fluyt push`.
#[derive(Debug, Args)]
pub struct PushArguments {
    /// Name of the image
    #[arg(value_name = "REF")]
    pub reference: String,
    /// Write the digest of what was pushed to FILE
    #[arg(long, value_name = "FILE")]
    pub digest_file: Option<PathBuf>,
    /// Print nothing but the digest
    #[arg(short, long)]
    pub quiet: bool,
    /// Registries.
    #[command(flatten)]
    pub registries: RegistryArguments,
}

/// `fluyt pull`.
#[derive(Debug, Args)]
pub struct PullArguments {
    /// Name of the image
    #[arg(value_name = "REF")]
    pub reference: String,
    /// Write an OCI layout here: a folder, or a tar where the name ends in `.tar` [default: keep it in the store]
    #[arg(short, long, value_name = "PATH")]
    pub output: Option<PathBuf>,
    /// Platform of the image (`linux/amd64`) [default: this machine's]
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Option<String>,
    /// Print nothing but the digest
    #[arg(short, long)]
    pub quiet: bool,
    /// Registries.
    #[command(flatten)]
    pub registries: RegistryArguments,
}

/// `fluyt inspect`.
#[derive(Debug, Args)]
pub struct InspectArguments {
    /// Name of the image, looked for in the store first, then in its registry; or an OCI layout or an archive with one image
    #[arg(value_name = "REF")]
    pub reference: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Platform of the image, where it has several [default: this machine's]
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Option<String>,
    /// Registries.
    #[command(flatten)]
    pub registries: RegistryArguments,
}

/// `fluyt images`.
#[derive(Debug, Args)]
pub struct ImagesArguments {
    /// Print JSON, one object a line
    #[arg(long, conflicts_with = "quiet")]
    pub json: bool,
    /// Print nothing but digests
    #[arg(short, long)]
    pub quiet: bool,
}

/// `fluyt tag`.
#[derive(Debug, Args)]
pub struct TagArguments {
    /// Name of an image in the store
    #[arg(value_name = "SOURCE")]
    pub source: String,
    /// The new name
    #[arg(value_name = "TARGET")]
    pub target: String,
}

/// `fluyt rmi`.
#[derive(Debug, Args)]
pub struct RmiArguments {
    /// Names to take away
    #[arg(value_name = "REF", required = true)]
    pub references: Vec<String>,
}

/// `fluyt prune`: flags are those of `docker buildx prune`.
#[derive(Debug, Args)]
#[command(
    after_help = "Without limits all that is reclaimable goes. What a running build uses stays, and so does what an image needs \
                  that has a name (`fluyt images`), unless --all is given. Nothing is asked.\n\n\
                  To remove a store whole: `fluyt prune --all`, then the folder. What commands of an ordinary user left may \
                  belong to his subordinate ids, and `rm -rf` alone cannot remove it."
)]
pub struct PruneArguments {
    /// Remove images that have a name too, and their names
    #[arg(short, long)]
    pub all: bool,
    /// Only what was not used for a time (`until=24h`), or of a kind (`type=layer`)
    #[arg(long = "filter", value_name = "FILTER")]
    pub filters: Vec<String>,
    /// Remove until the store takes at most this much (`20GB`)
    #[arg(long, value_name = "SIZE", value_parser = crate::notation::amount)]
    pub max_used_space: Option<u64>,
    /// Always leave the store this much
    #[arg(long, alias = "keep-storage", value_name = "SIZE", value_parser = crate::notation::amount)]
    pub reserved_space: Option<u64>,
    /// Remove until this much is free on the disk
    #[arg(long, value_name = "SIZE", value_parser = crate::notation::amount)]
    pub min_free_space: Option<u64>,
    /// Say what would be removed, and remove nothing
    #[arg(long)]
    pub dry_run: bool,
    /// List each entry
    #[arg(long, conflicts_with = "json")]
    pub verbose: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Taken for the sake of scripts: nothing is asked in any case
    #[arg(short, long, hide = true)]
    pub force: bool,
}

/// `fluyt cache`.
#[derive(Debug, Args)]
pub struct CacheArguments {
    /// What to do.
    #[command(subcommand)]
    pub command: CacheCommand,
}

/// The commands of `fluyt cache`.
#[derive(Debug, Subcommand)]
pub enum CacheCommand {
    /// Show what takes how much of the disk, and what of it can go
    Du(DuArguments),
    /// The same as `fluyt prune`
    Prune(PruneArguments),
}

/// `fluyt cache du`.
#[derive(Debug, Args)]
pub struct DuArguments {
    /// List each entry with its last use
    #[arg(long)]
    pub verbose: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `fluyt doctor`.
#[derive(Debug, Args)]
pub struct DoctorArguments {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Look at this way alone, and fail where it does not work
    #[arg(long, value_name = "RUNG", value_parser = Isolation::parse)]
    pub isolation: Option<Isolation>,
    /// Fail where commands can only run in a way that is less exact than this one
    #[arg(long, value_name = "RUNG", value_parser = Isolation::parse)]
    pub isolation_min: Option<Isolation>,
}

/// `fluyt login`.
#[derive(Debug, Args)]
pub struct LoginArguments {
    /// The registry
    #[arg(value_name = "REGISTRY", default_value = "docker.io")]
    pub registry: String,
    /// Name of the user
    #[arg(short, long, value_name = "NAME")]
    pub username: Option<String>,
    /// The password; others on this machine can see it while the command runs
    #[arg(short, long, value_name = "PASSWORD", conflicts_with = "password_stdin")]
    pub password: Option<String>,
    /// Read the password from standard input
    #[arg(long)]
    pub password_stdin: bool,
    /// Registries.
    #[command(flatten)]
    pub registries: RegistryArguments,
}

/// `fluyt logout`.
#[derive(Debug, Args)]
pub struct LogoutArguments {
    /// The registry
    #[arg(value_name = "REGISTRY", default_value = "docker.io")]
    pub registry: String,
    /// File with registry credentials [default: what Docker uses]
    #[arg(long, value_name = "FILE")]
    pub authfile: Option<PathBuf>,
}

/// `fluyt version`.
#[derive(Debug, Args)]
pub struct VersionArguments {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `fluyt completion`.
#[derive(Debug, Args)]
pub struct CompletionArguments {
    /// The shell
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

/// As buildx takes it: a name alone is a label without a value.
fn label(text: &str) -> Result<(String, String), String> {
    if text.contains('=') { pair(text) } else { pair(&format!("{text}=")) }
}

/// A path that may be empty, which clap's own may not.
fn path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("expected NAME=VALUE, found `{text}`")),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn build_takes_what_buildx_takes() {
        let line = "fluyt build -t a:1 -t b -f D --build-arg A=1 --target x --push --pull --no-cache -o type=oci,dest=x.tar \
                    --load --progress=plain --iidfile i --metadata-file m --label k=v .";
        let Command::Build(build) = Arguments::try_parse_from(line.split_whitespace()).unwrap().command else {
            panic!()
        };
        assert_eq!(build.tags, ["a:1", "b"]);
        assert_eq!(build.labels, [("k".to_owned(), "v".to_owned())]);
        assert_eq!(build.progress, Progress::Plain);
        assert_eq!(build.context, PathBuf::from("."));
    }

    #[test]
    fn an_empty_value_is_none() {
        let line = "fluyt build --target= --platform= --file= --iidfile= --metadata-file= --digest-file= .";
        let Command::Build(build) = Arguments::try_parse_from(line.split_whitespace()).unwrap().command else {
            panic!()
        };
        let build = build.without_empty();
        assert_eq!((build.target, build.platform), (None, None));
        assert_eq!((build.file, build.iidfile, build.metadata_file, build.digest_file), (None, None, None, None));
    }
}
