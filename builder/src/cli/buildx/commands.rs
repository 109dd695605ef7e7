//! The flags that say how the commands of a Dockerfile run: `--network`, `--add-host`, `--shm-size`, `--ulimit`,
//! `--cap-add`, `--cap-drop`, `--allow`.

use std::net::IpAddr;

use super::BuildxArguments;
use crate::cli::failure::{Blame, Failure};
use crate::pipeline::{Allowed, Conditions, Limit, Network};
use crate::sandbox::{self, Resources};

/// How the commands of a build run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::cli) struct Commands {
    pub(in crate::cli) network: Network,
    pub(in crate::cli) conditions: Conditions,
    pub(in crate::cli) allowed: Allowed,
    pub(in crate::cli) resources: Resources,
}

impl Commands {
    /// What was typed, understood.
    ///
    /// # Errors
    /// When a value makes no sense.
    pub(in crate::cli) fn read(typed: &BuildxArguments) -> Result<Self, Failure> {
        let mut commands = Self::default();
        for text in typed.allow.iter().filter(|text| !text.is_empty()) {
            allow(text, &mut commands.allowed)?;
        }
        commands.network = match typed.network.as_deref() {
            None | Some("" | "default") => Network::Default,
            Some("none") => Network::None,
            Some("host") => {
                // Whoever says so of the whole build allows it to each command as well.
                commands.allowed.host_network = true;
                Network::Host
            }
            Some("isolated") => {
                if sandbox::isolating_program().is_none() {
                    let problem = format!("`--network isolated` needs {}", sandbox::ISOLATING_PROGRAMS);
                    return Err(Failure::new(Blame::Environment, problem)
                        .hint("install one of them, or use `--network none` for commands that need no network"));
                }
                Network::Isolated
            }
            Some(other) => {
                return Err(Failure::usage(format!("`--network {other}`: there is no such network for commands"))
                    .hint("expected `default`, `none`, `host` or `isolated`"));
            }
        };
        commands.conditions.hosts = typed.add_host.iter().map(|text| host(text)).collect::<Result<_, _>>()?;
        commands.conditions.limits = typed.ulimit.iter().map(|text| limit(text)).collect::<Result<_, _>>()?;
        capabilities(typed)?;
        commands.conditions.added_capabilities = normal(&typed.cap_add);
        commands.conditions.dropped_capabilities = normal(&typed.cap_drop);
        // Docker takes 0 for its own default too.
        commands.conditions.shm_size_bytes = typed.shm_size.filter(|size| *size > 0);
        commands.resources = resources(typed)?;
        Ok(commands)
    }
}

/// How much of the machine a command may use.
fn resources(typed: &BuildxArguments) -> Result<Resources, Failure> {
    let wrong = |problem: &str| Failure::usage(problem.to_owned());
    let list = |flag: &str, text: &Option<String>| -> Result<Option<String>, Failure> {
        let text = text.as_ref().map(|text| text.trim()).filter(|text| !text.is_empty());
        match text {
            Some(text) if !text.chars().all(|letter| letter.is_ascii_digit() || letter == ',' || letter == '-') => {
                Err(wrong(&format!("`--{flag} {text}`: it is no list of numbers")).hint("write `0-3`, or `0,2`"))
            }
            text => Ok(text.map(str::to_owned)),
        }
    };
    // Docker takes 0 and -1 for no limit.
    let given = |text: &Option<String>| -> Option<String> {
        text.as_ref().map(|text| text.trim().to_owned()).filter(|text| !matches!(text.as_str(), "" | "0" | "-1"))
    };
    let number = |flag: &str, text: &Option<String>, least: u64, most: u64| -> Result<Option<u64>, Failure> {
        let Some(text) = given(text) else { return Ok(None) };
        let value = text.parse().ok().filter(|value| (least..=most).contains(value));
        value.map(Some).ok_or_else(|| {
            let hint = format!("expected a number from {least} to {most}, or 0 for none");
            wrong(&format!("`--{flag} {text}`: the kernel takes no such value")).hint(hint)
        })
    };
    let memory_bytes = given(&typed.memory)
        .map(|text| crate::notation::amount(&text).map_err(|problem| wrong(&format!("`--memory {text}`: {problem}"))))
        .transpose()?;
    let memory_and_swap_bytes = match typed.memory_swap.as_deref() {
        None | Some("" | "0") => None,
        Some("-1") => Some(u64::MAX),
        Some(text) => {
            let refused = |problem: String| wrong(&format!("`--memory-swap {text}`: {problem}"));
            Some(crate::notation::amount(text).map_err(refused)?)
        }
    };
    match (memory_bytes, memory_and_swap_bytes) {
        (None, Some(both)) if both != u64::MAX => {
            return Err(wrong("`--memory-swap` is memory and swap together: it needs `--memory`"));
        }
        (Some(memory), Some(both)) if both < memory => {
            return Err(wrong("`--memory-swap` is memory and swap together: it cannot be less than `--memory`"));
        }
        _ => {}
    }
    Ok(Resources {
        memory_bytes,
        memory_and_swap_bytes,
        cpu_shares: number("cpu-shares", &typed.cpu_shares, 2, 262_144)?,
        cpu_quota_us: number("cpu-quota", &typed.cpu_quota, 1_000, u64::MAX >> 1)?,
        cpu_period_us: number("cpu-period", &typed.cpu_period, 1_000, 1_000_000)?,
        processors: list("cpuset-cpus", &typed.cpuset_cpus)?,
        memory_nodes: list("cpuset-mems", &typed.cpuset_mems)?,
    })
}

/// The flags that limit how much of the machine a command may use, as far as they were given.
pub(in crate::cli) fn limits(typed: &BuildxArguments) -> Vec<String> {
    let given = [
        ("memory", typed.memory.is_some()),
        ("memory-swap", typed.memory_swap.is_some()),
        ("cpu-period", typed.cpu_period.is_some()),
        ("cpu-quota", typed.cpu_quota.is_some()),
        ("cpu-shares", typed.cpu_shares.is_some()),
        ("cpuset-cpus", typed.cpuset_cpus.is_some()),
        ("cpuset-mems", typed.cpuset_mems.is_some()),
    ];
    given.into_iter().filter(|(_, given)| *given).map(|(name, _)| format!("`--{name}`")).collect()
}

/// Whether podman's two lists make sense.
fn capabilities(typed: &BuildxArguments) -> Result<(), Failure> {
    let given = typed.cap_add.iter().map(|name| format!("--cap-add {name}"));
    let given: Vec<String> = given.chain(typed.cap_drop.iter().map(|name| format!("--cap-drop {name}"))).collect();
    match sandbox::CapabilityChange::read(&typed.cap_add, &typed.cap_drop) {
        Ok(_) => Ok(()),
        Err(problem) => Err(Failure::usage(format!("`{}`: {problem}", given.join(" ")))),
    }
}

/// One spelling for each name, so that keys do not depend on how it was typed.
fn normal(names: &[String]) -> Vec<String> {
    let upper = names.iter().map(|name| name.trim().to_ascii_uppercase());
    let bare = upper.map(|name| name.strip_prefix("CAP_").unwrap_or(&name).to_owned());
    bare.collect::<std::collections::BTreeSet<_>>().into_iter().collect()
}

fn allow(text: &str, allowed: &mut Allowed) -> Result<(), Failure> {
    match text.split_once('=').map_or(text, |(name, _)| name) {
        "network.host" => allowed.host_network = true,
        "security.insecure" => allowed.insecure = true,
        "user.recorded" => allowed.recorded_user = true,
        // This process reads and writes what its user may; and a `RUN --device` is refused by itself.
        "buildx.local.delete" | "device" | "fs" | "fs.read" | "fs.write" | "ssh" => {}
        _ => {
            return Err(Failure::usage(format!("`--allow {text}`: there is no such entitlement"))
                .hint("expected `network.host`, `security.insecure` or `user.recorded`"));
        }
    }
    Ok(())
}

/// `name:address` or `name=address`; an IPv6 address may stand in brackets.
fn host(text: &str) -> Result<(String, String), Failure> {
    let wrong = |problem: String| {
        Failure::usage(format!("`--add-host {text}`: {problem}")).hint("write `--add-host NAME:ADDRESS`")
    };
    let apart = text.split_once('=').or_else(|| text.split_once(':'));
    let (name, address) =
        apart.filter(|(name, _)| !name.is_empty()).ok_or_else(|| wrong("it has no name".to_owned()))?;
    if name.chars().any(|character| character.is_whitespace() || character.is_control()) {
        return Err(wrong(format!("`{}` is no host name", name.escape_default())));
    }
    // Commands are on this machine's own network.
    if address == "host-gateway" {
        return Ok((name.to_owned(), "127.0.0.1".to_owned()));
    }
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    match bare.parse::<IpAddr>() {
        Ok(address) => Ok((name.to_owned(), address.to_string())),
        Err(_) => Err(wrong(format!("`{address}` is no IP address"))),
    }
}

/// `name=soft[:hard]`; -1 is no limit.
fn limit(text: &str) -> Result<Limit, Failure> {
    let wrong = |problem: String| {
        Failure::usage(format!("`--ulimit {text}`: {problem}"))
            .hint(format!("write `NAME=SOFT[:HARD]`, with one of {}", sandbox::Limit::NAMES.join(", ")))
    };
    let (name, values) = text.split_once('=').ok_or_else(|| wrong("it has no value".to_owned()))?;
    if !sandbox::Limit::NAMES.contains(&name) {
        return Err(wrong(format!("there is no limit `{name}`")));
    }
    let value = |text: &str| match text.trim().parse::<i64>() {
        Ok(-1) => Ok(None),
        Ok(value) => u64::try_from(value).map(Some).map_err(|_| wrong(format!("`{text}` is below -1"))),
        Err(_) => Err(wrong(format!("`{text}` is no number"))),
    };
    let (soft, hard) = match values.split_once(':') {
        Some((soft, hard)) => (value(soft)?, value(hard)?),
        None => (value(values)?, value(values)?),
    };
    let most = |limit: Option<u64>| limit.unwrap_or(u64::MAX);
    if most(soft) > most(hard) {
        return Err(wrong("the soft limit is above the hard one".to_owned()));
    }
    Ok(Limit { name: name.to_owned(), soft, hard })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_as_docker_reads_them() {
        for (text, expected) in [
            ("a:1.2.3.4", Some(("a", "1.2.3.4"))),
            ("a=1.2.3.4", Some(("a", "1.2.3.4"))),
            ("a:::1", Some(("a", "::1"))),
            ("a=[fe80::1]", Some(("a", "fe80::1"))),
            ("a:host-gateway", Some(("a", "127.0.0.1"))),
            ("a", None),
            (":1.2.3.4", None),
            ("a:b", None),
            ("a b:1.2.3.4", None),
            ("a\nb:1.2.3.4", None),
        ] {
            let read = host(text).ok();
            let shown = read.as_ref().map(|(name, address)| (name.as_str(), address.as_str()));
            assert_eq!(shown, expected, "{text}");
        }
    }

    #[test]
    fn limits_are_read_as_docker_reads_them() {
        for (text, expected) in [
            ("nofile=1024", Some((Some(1024), Some(1024)))),
            ("nofile=1024:2048", Some((Some(1024), Some(2048)))),
            ("core=0:-1", Some((Some(0), None))),
            ("core=-1", Some((None, None))),
            ("core=-1:5", None),
            ("nofile=2048:1024", None),
            ("nofile=-2", None),
            ("nofile=x", None),
            ("nofile", None),
            ("as=5", None),
            ("files=5", None),
        ] {
            assert_eq!(limit(text).ok().map(|limit| (limit.soft, limit.hard)), expected, "{text}");
        }
    }

    #[test]
    fn limits_of_memory_and_processors_are_read_as_docker_reads_them() {
        let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let read = |memory: &str, both: &str| {
            let typed = BuildxArguments { memory: some(memory), memory_swap: some(both), ..BuildxArguments::default() };
            resources(&typed).ok().map(|found| (found.memory_bytes, found.memory_and_swap_bytes))
        };
        assert_eq!(read("1g", ""), Some((Some(1 << 30), None)));
        assert_eq!(read("512M", "1g"), Some((Some(512 << 20), Some(1 << 30))));
        assert_eq!(read("1g", "-1"), Some((Some(1 << 30), Some(u64::MAX))));
        assert_eq!(read("0", "0"), Some((None, None)));
        assert_eq!(read("1g", "1m"), None);
        assert_eq!(read("", "1g"), None);
        assert_eq!(read("much", ""), None);
        let cpu = |quota: &str, shares: &str, processors: &str| {
            let (cpu_quota, cpu_shares, cpuset_cpus) = (some(quota), some(shares), some(processors));
            resources(&BuildxArguments { cpu_quota, cpu_shares, cpuset_cpus, ..BuildxArguments::default() }).ok()
        };
        assert_eq!(cpu("-1", "0", ""), Some(Resources::default()));
        let expected = Resources {
            cpu_quota_us: Some(50_000),
            cpu_shares: Some(512),
            processors: Some("0-3,5".to_owned()),
            ..Resources::default()
        };
        assert_eq!(cpu("50000", "512", "0-3,5"), Some(expected));
        assert_eq!(cpu("10", "", ""), None);
        assert_eq!(cpu("", "1", ""), None);
        assert_eq!(cpu("", "", "all"), None);
    }

    #[test]
    fn the_hosts_network_of_a_build_is_allowed_to_its_commands() {
        let read = |network: &str, allow: &[&str]| {
            let allow = allow.iter().map(|text| (*text).to_owned()).collect();
            Commands::read(&BuildxArguments { network: Some(network.to_owned()), allow, ..BuildxArguments::default() })
        };
        assert!(read("host", &[]).unwrap().allowed.host_network);
        assert!(!read("none", &[]).unwrap().allowed.host_network);
        assert!(read("none", &["network.host"]).unwrap().allowed.host_network);
        assert!(read("default", &["security.insecure", "device=a/b=c"]).unwrap().allowed.insecure);
        assert!(read("bridge", &[]).is_err());
        assert!(read("none", &["everything"]).is_err());
    }
}
