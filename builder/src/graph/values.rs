//! Values that an instruction must get right: ports, modes, signals, paths.

use super::mode::SymbolicMode;
use super::op::Chmod;
use crate::dockerfile::{Problem, Rule, Span};

/// What an `EXPOSE` word names.
#[derive(Debug)]
pub(super) struct Exposed {
    /// `port/protocol` each.
    pub(super) ports: Vec<String>,
    has_capitals: bool,
    has_host: bool,
}

impl Exposed {
    /// The checks that the word does not pass.
    pub(super) fn checks(&self, word: &str, span: Span) -> impl Iterator<Item = Problem> {
        let casing = self.has_capitals.then(|| {
            let message = format!("Defined protocol '{word}' in EXPOSE instruction should be lowercase");
            Problem::warning(span, Rule::ExposeProtoCasing, message)
        });
        let format = self.has_host.then(|| {
            let message =
                format!("EXPOSE instruction should not define an IP address or host-port mapping, found '{word}'");
            Problem::warning(span, Rule::ExposeInvalidFormat, message)
        });
        casing.into_iter().chain(format)
    }
}

/// Reads an `EXPOSE` word. The form is `[address:][host-port:]port[-port][/protocol]`; what stands before the port is
/// accepted and means nothing.
pub(super) fn ports(word: &str) -> Result<Exposed, String> {
    let (host, port) = word.rsplit_once(':').map_or(("", word), |(host, port)| (host, port));
    let (port, protocol) = port.split_once('/').unwrap_or((port, ""));
    let has_capitals = protocol.chars().any(char::is_uppercase);
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "" => "tcp",
        "tcp" => "tcp",
        "udp" => "udp",
        "sctp" => "sctp",
        other => return Err(format!("invalid protocol `{other}` in `{word}`: expected `tcp`, `udp` or `sctp`")),
    };
    let (first, last) = range(port).ok_or_else(|| format!("invalid port `{port}` in `{word}`: {PORT}"))?;
    if !host.is_empty() {
        let (address, host_port) = host.rsplit_once(':').unwrap_or(("", host));
        let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
        if !bare.is_empty() && bare.parse::<core::net::IpAddr>().is_err() {
            return Err(format!("invalid address `{address}` in `{word}`"));
        }
        if !host_port.is_empty() {
            let (host_first, host_last) =
                range(host_port).ok_or_else(|| format!("invalid host port `{host_port}` in `{word}`: {PORT}"))?;
            if host_last - host_first != last - first && first != last {
                return Err(format!("the ranges of `{word}` differ in length"));
            }
        }
    }
    let ports = (first..=last).map(|port| format!("{port}/{protocol}")).collect();
    let has_host = !host.trim_matches(':').is_empty();
    Ok(Exposed { ports, has_capitals, has_host })
}

/// What a port may be.
const PORT: &str = "expected a number up to 65535, or a range such as `8000-8010`";

/// `8000` or `8000-8010`.
fn range(text: &str) -> Option<(u16, u16)> {
    let number = |text: &str| text.parse::<u16>().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
    match text.split_once('-') {
        None => number(text).map(|port| (port, port)),
        Some((first, last)) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then_some((first, last))
        }
    }
}

/// A `--chmod` value.
pub(super) fn chmod(text: &str) -> Result<Chmod, String> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return match u32::from_str_radix(text, 8) {
            Ok(bits) if bits <= 0o7777 => Ok(Chmod::Bits(bits)),
            _ => Err(format!("invalid `--chmod={text}`: an octal number must be between 0 and 07777")),
        };
    }
    SymbolicMode::parse(text).map(Chmod::Symbolic).ok_or_else(|| {
        format!("invalid `--chmod={text}`: expected an octal number such as `755` or a form such as `u=rwX,go=rX`")
    })
}

/// Whether a `STOPSIGNAL` is one: a number other than 0, or a name that Linux has, with or without `SIG`.
pub(super) fn is_signal(text: &str) -> bool {
    if let Ok(number) = text.parse::<i32>() {
        return number != 0;
    }
    const NAMES: [&str; 35] = [
        "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL", "PIPE", "POLL",
        "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP", "TTIN", "TTOU", "URG", "USR1",
        "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ", "RTMIN",
    ];
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let offset = |rest: &str, limit: u8| rest.parse::<u8>().is_ok_and(|offset| (1..=limit).contains(&offset));
    NAMES.contains(&name)
        || name == "RTMAX"
        || name.strip_prefix("RTMIN+").is_some_and(|rest| offset(rest, 15))
        || name.strip_prefix("RTMAX-").is_some_and(|rest| offset(rest, 14))
}

/// `path` as an absolute, cleaned path: relative ones start in `folder`; `..` stops at the root.
pub(super) fn absolute(folder: &str, path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let base = if path.starts_with('/') { "" } else { folder };
    for component in base.split('/').chain(path.split('/')) {
        match component {
            "" | "." => {}
            ".." => {
                kept.pop();
            }
            name => kept.push(name),
        }
    }
    format!("/{}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_of_each_form() {
        for (word, expected) in [
            ("80", "80/tcp"),
            ("80/UDP", "80/udp"),
            ("53/sctp", "53/sctp"),
            ("8000-8002/tcp", "8000/tcp 8001/tcp 8002/tcp"),
            ("8080:80", "80/tcp"),
            ("127.0.0.1:8080:80", "80/tcp"),
            ("[::1]:8080:80/udp", "80/udp"),
            ("127.0.0.1::80", "80/tcp"),
            ("9000-9005:80", "80/tcp"),
            ("9000-9001:80-81", "80/tcp 81/tcp"),
        ] {
            assert_eq!(ports(word).unwrap().ports.join(" "), expected, "{word}");
        }
        for word in ["", "x", "80/xyz", "70000", "90-80", "80-", "1:2:80", "9000-9005:80-81", "+80", "80/tcp/udp", ":"]
        {
            assert!(ports(word).is_err(), "{word}: {:?}", ports(word));
        }
    }

    #[test]
    fn modes() {
        assert_eq!(chmod("755"), Ok(Chmod::Bits(0o755)));
        assert_eq!(chmod("07777"), Ok(Chmod::Bits(0o7777)));
        for text in ["u=rwX,go=rX", "+x", "g=u", "a-w", "u+x-w", "go=", "=rwx", "+t"] {
            assert!(matches!(chmod(text), Ok(Chmod::Symbolic(mode)) if mode.text() == text), "{text}");
        }
        for text in ["", "888", "17777", "u", "u=rwz", "x+y", "u=rwX,", "rwx", "0o755"] {
            assert!(chmod(text).is_err(), "{text}");
        }
    }

    #[test]
    fn signals() {
        for text in ["SIGTERM", "term", "9", "SIGRTMIN", "SIGRTMIN+3", "RTMAX-1", "-1"] {
            assert!(is_signal(text), "{text}");
        }
        for text in ["", "0", "SIGFOO", "SIGRTMIN+16", "RTMAX-15", "SIG"] {
            assert!(!is_signal(text), "{text}");
        }
    }

    #[test]
    fn paths_are_cleaned_and_stop_at_the_root() {
        for (folder, path, expected) in [
            ("/a", "b", "/a/b"),
            ("/a", "/b", "/b"),
            ("/a", "../../b", "/b"),
            ("", "b/./c//d/", "/b/c/d"),
            ("/", "", "/"),
            ("/a/b", ".", "/a/b"),
        ] {
            assert_eq!(absolute(folder, path), expected);
        }
    }
}
