//! The flags that say how the commands of a Dockerfile run: `--network`, `--add-host`, `--shm-size`, `--ulimit`,
//! `--cap-add`, `--cap-drop`, `--allow`.

use std::net::IpAddr;

use super::BuildxArguments;
use crate::cli::failure::Failure;
use crate::pipeline::{Allowed, Conditions, Limit, Network};
use crate::sandbox;

/// How the commands of a build run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::cli) struct Commands {
    pub(in crate::cli) network: Network,
    pub(in crate::cli) conditions: Conditions,
    pub(in crate::cli) allowed: Allowed,
}

impl Commands {
    /// What was typed, understood.
    ///
    /// # Errors
    /// When a value makes no sense.
    pub(in crate::cli) fn read(typed: &BuildxArguments) -> Result<Self, Failure> {
        let mut commands = Self::default();
        for text in &typed.allow {
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
            Some(other) => {
                return Err(Failure::usage(format!("`--network {other}`: there is no such network for commands"))
                    .hint("expected `default`, `none` or `host`"));
            }
        };
        commands.conditions.hosts = typed.add_host.iter().map(|text| host(text)).collect::<Result<_, _>>()?;
        commands.conditions.limits = typed.ulimit.iter().map(|text| limit(text)).collect::<Result<_, _>>()?;
        capabilities(typed)?;
        commands.conditions.added_capabilities = normal(&typed.cap_add);
        commands.conditions.dropped_capabilities = normal(&typed.cap_drop);
        // Docker takes 0 for its own default too.
        commands.conditions.shm_size_bytes = typed.shm_size.filter(|size| *size > 0);
        Ok(commands)
    }
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
        // This process reads and writes what its user may; and a `RUN --device` is refused by itself.
        "device" | "fs" | "fs.read" | "fs.write" | "ssh" => {}
        _ => {
            return Err(Failure::usage(format!("`--allow {text}`: there is no such entitlement"))
                .hint("expected `network.host` or `security.insecure`"));
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
