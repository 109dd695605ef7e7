//! Variables that look like settings and are none. One that is spelled wrong says nothing, and a registry that was meant to
//! have users would be open to everybody.

use clap::Command;

/// What the names of all our variables begin with.
const OURS: &str = "FLUYT_REGISTRY_";
/// How many letters may differ between a name and the one that was meant.
const DIFFERENT_MAX: usize = 4;

/// What is wrong with one of these variables, if anything is.
pub(super) fn wrong(command: &Command, names: impl Iterator<Item = String>) -> Option<String> {
    let mut known = Vec::new();
    collect(command, &mut known);
    let mut unknown: Vec<String> =
        names.filter(|name| name.starts_with(OURS) && !known.contains(name) && !is_of_kubernetes(name)).collect();
    unknown.sort_unstable();
    let name = unknown.into_iter().next()?;
    let meant = known.iter().map(|known| (distance(&name, known), known)).min();
    let hint = match meant {
        Some((different, meant)) if different <= DIFFERENT_MAX => format!("did you mean {meant}?"),
        _ => format!("expected {OURS} and a flag of `serve` in capitals, such as {OURS}HTPASSWD"),
    };
    Some(format!("the variable {name} is no setting: {hint}"))
}

fn collect(command: &Command, known: &mut Vec<String>) {
    known.extend(command.get_arguments().filter_map(|argument| Some(argument.get_env()?.to_str()?.to_owned())));
    command.get_subcommands().for_each(|command| collect(command, known));
}

/// Kubernetes tells each container of the services beside it, of one named `fluyt-registry` too:
/// `FLUYT_REGISTRY_SERVICE_HOST`, `FLUYT_REGISTRY_PORT_5000_TCP_ADDR`.
fn is_of_kubernetes(name: &str) -> bool {
    let name = format!("{name}_");
    ["_SERVICE_HOST_", "_SERVICE_PORT_", "_PORT_"].into_iter().any(|part| name.contains(part))
}

/// How many letters have to be put in, left out or changed.
fn distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (at, letter) in one.bytes().enumerate() {
        let mut before = at;
        let mut last = at + 1;
        let mut next = vec![last];
        for (above, wanted) in row.iter().skip(1).zip(other.bytes()) {
            last = (before + usize::from(letter != wanted)).min(above + 1).min(last + 1);
            before = *above;
            next.push(last);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn told(names: &[&str]) -> Option<String> {
        wrong(&super::super::CommandLine::command(), names.iter().map(|name| (*name).to_owned()))
    }

    #[test]
    fn a_setting_that_is_spelled_wrong_is_told_with_what_was_meant() {
        let expected = "the variable FLUYT_REGISTRY_HTPASWD is no setting: did you mean FLUYT_REGISTRY_HTPASSWD?";
        assert_eq!(told(&["PATH", "FLUYT_REGISTRY_LISTEN", "FLUYT_REGISTRY_HTPASWD"]).as_deref(), Some(expected));
        let meant = |name: &str| told(&[name]).unwrap().rsplit(' ').next().unwrap().to_owned();
        assert_eq!(meant("FLUYT_REGISTRY_STROE"), "FLUYT_REGISTRY_STORE?");
        assert_eq!(meant("FLUYT_REGISTRY_TLS_CERTS"), "FLUYT_REGISTRY_TLS_CERT?");
        assert_eq!(meant("FLUYT_REGISTRY_WHATEVER_ELSE"), "FLUYT_REGISTRY_HTPASSWD");
    }

    #[test]
    fn what_kubernetes_tells_of_a_service_is_none_of_ours() {
        let of_kubernetes = [
            "FLUYT_REGISTRY_SERVICE_HOST",
            "FLUYT_REGISTRY_SERVICE_PORT",
            "FLUYT_REGISTRY_SERVICE_PORT_HTTP",
            "FLUYT_REGISTRY_PORT",
            "FLUYT_REGISTRY_PORT_5000_TCP",
            "FLUYT_REGISTRY_PORT_5000_TCP_ADDR",
            "FLUYT_REGISTRY_HEADLESS_SERVICE_HOST",
            "FLUYT_BUILD",
        ];
        assert_eq!(told(&of_kubernetes), None);
    }
}
