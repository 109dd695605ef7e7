//! Splits a reference into its parts and says what is wrong with one.

use std::str::FromStr;

use oci_spec::image::{Digest, DigestAlgorithm};

use super::DEFAULT_HOST;

/// Longest `host/repository`, in bytes: Docker's bound, which registries share.
const NAME_MAX_BYTES: usize = 255;
/// Longest tag, in bytes (distribution-spec, "Pulling manifests").
const TAG_MAX_BYTES: usize = 128;

/// Why a text is no reference.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{shown}` is not an image reference: {problem}")]
pub struct ReferenceError {
    shown: String,
    problem: String,
}

impl ReferenceError {
    fn new(text: &str, problem: impl Into<String>) -> Self {
        // The text may hold anything, also what would steer a terminal.
        let mut shown: String = text.chars().take(200).flat_map(char::escape_debug).collect();
        if text.chars().nth(200).is_some() {
            shown.push('…');
        }
        Self { shown, problem: problem.into() }
    }
}

pub(super) struct Parts<'a> {
    pub(super) host: String,
    pub(super) repository: String,
    pub(super) tag: Option<&'a str>,
    pub(super) digest: Option<Digest>,
}

pub(super) fn split(text: &str) -> Result<Parts<'_>, ReferenceError> {
    let wrong = |problem: String| ReferenceError::new(text, problem);
    if text.is_empty() {
        return Err(wrong("it is empty".to_owned()));
    }
    if let Some((scheme, _)) = text.split_once("://") {
        return Err(wrong(format!(
            "leave out `{}://`; a reference starts with the registry's host or the repository",
            scheme.escape_debug()
        )));
    }
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(parse_digest(digest).map_err(wrong)?)),
        None => (text, None),
    };
    // A colon after the last slash starts the tag; one before it belongs to the host's port.
    let slash = rest.rfind('/');
    let (name, tag) = match rest[slash.unwrap_or(0)..].find(':') {
        Some(colon) => {
            let colon = slash.unwrap_or(0) + colon;
            (&rest[..colon], Some(&rest[colon + 1..]))
        }
        None => (rest, None),
    };
    if let Some(tag) = tag {
        tag_problem(tag).map_or(Ok(()), |problem| Err(wrong(problem)))?;
    }
    let (host, path) = match name.split_once('/') {
        Some((first, path)) if names_a_host(first) => (first, path),
        _ => (DEFAULT_HOST, name),
    };
    host_problem(host).map_or(Ok(()), |problem| Err(wrong(problem)))?;
    let host = super::normal_host(host).to_owned();
    path_problem(path).map_or(Ok(()), |problem| Err(wrong(problem)))?;
    if name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f')) {
        return Err(wrong(
            "64 hexadecimal digits are an image ID, not a name; a digest is written `NAME@sha256:...`".to_owned(),
        ));
    }
    let repository =
        if host == DEFAULT_HOST && !path.contains('/') { format!("library/{path}") } else { path.to_owned() };
    if host.len() + 1 + repository.len() > NAME_MAX_BYTES {
        return Err(wrong(format!("host and repository are longer than {NAME_MAX_BYTES} bytes")));
    }
    Ok(Parts { host, repository, tag, digest })
}

pub(super) fn check_tag(tag: &str) -> Result<(), ReferenceError> {
    tag_problem(tag).map_or(Ok(()), |problem| Err(ReferenceError::new(tag, problem)))
}

/// Docker's rule: what could be a repository's first part is one, unless it looks like a host.
fn names_a_host(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost" || first.bytes().any(|byte| byte.is_ascii_uppercase())
}

fn host_problem(host: &str) -> Option<String> {
    let shown = host.escape_debug();
    let (bare, port) = match host.strip_prefix('[') {
        Some(rest) => {
            let Some((address, after)) = rest.split_once(']') else {
                return Some(format!("the host `{shown}` opens `[` and does not close it"));
            };
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return Some(format!("the host `{shown}` holds no IPv6 address between `[` and `]`"));
            }
            match after.strip_prefix(':') {
                Some(port) => (None, Some(port)),
                None if after.is_empty() => (None, None),
                None => return Some(format!("after `]` in the host `{shown}` only `:PORT` may stand")),
            }
        }
        None => match host.split_once(':') {
            Some((bare, port)) => (Some(bare), Some(port)),
            None => (Some(host), None),
        },
    };
    if let Some(port) = port {
        let valid = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok();
        if !valid {
            return Some(format!("`{}` is not a port, which is a number up to 65535", port.escape_debug()));
        }
    }
    for name in bare.into_iter().flat_map(|bare| bare.split('.')) {
        let inside = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if name.is_empty() || !inside || name.starts_with('-') || name.ends_with('-') {
            return Some(format!("`{shown}` is not a host: between its dots stand letters, digits and inner `-`"));
        }
    }
    None
}

fn path_problem(path: &str) -> Option<String> {
    if path.is_empty() {
        return Some("the repository is missing".to_owned());
    }
    for part in path.split('/') {
        let shown = part.escape_debug();
        if part.is_empty() {
            return Some("the repository has an empty part: look for a `/` too many".to_owned());
        }
        if let Some(letter) = part.chars().find(char::is_ascii_uppercase) {
            return Some(format!("a repository is written in lower case, and `{shown}` has `{letter}`"));
        }
        if let Some(other) = part.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '.' | '_' | '-')) {
            return Some(format!(
                "a repository may not hold `{}`: only `a-z`, `0-9`, `.`, `_`, `-` and `/`",
                other.escape_debug()
            ));
        }
        let separators = part.split(|c: char| c.is_ascii_alphanumeric()).filter(|run| !run.is_empty());
        let edges = part.starts_with(['.', '_', '-']) || part.ends_with(['.', '_', '-']);
        if edges {
            return Some(format!("`{shown}` may not start or end with `.`, `_` or `-`"));
        }
        for run in separators {
            let valid = matches!(run, "." | "_" | "__") || run.bytes().all(|byte| byte == b'-');
            if !valid {
                return Some(format!(
                    "`{run}` in `{shown}` is not allowed: parts are joined by `.`, `_`, `__` or any number of `-`"
                ));
            }
        }
    }
    None
}

fn tag_problem(tag: &str) -> Option<String> {
    if tag.is_empty() {
        return Some("the tag after `:` is empty".to_owned());
    }
    if tag.len() > TAG_MAX_BYTES {
        return Some(format!("the tag has {} bytes, and {TAG_MAX_BYTES} is the most", tag.len()));
    }
    if let Some(other) = tag.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))) {
        return Some(format!(
            "the tag may not hold `{}`: only letters, digits, `_`, `.` and `-`",
            other.escape_debug()
        ));
    }
    tag.starts_with(['.', '-']).then(|| "the tag may not start with `.` or `-`".to_owned())
}

fn parse_digest(text: &str) -> Result<Digest, String> {
    let Some((algorithm, hex)) = text.split_once(':') else {
        return Err("after `@` stands a digest, `sha256:` and 64 hexadecimal digits".to_owned());
    };
    let length = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        other => {
            return Err(format!(
                "digests of the algorithm `{}` are not known; sha256, sha384 and sha512 are",
                other.escape_debug()
            ));
        }
    };
    if hex.len() != length || !hex.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f')) {
        return Err(format!(
            "a {algorithm} digest has {length} hexadecimal digits in lower case, and this one has `{}`",
            hex.escape_debug()
        ));
    }
    let digest = Digest::from_str(text).map_err(|error| error.to_string())?;
    debug_assert!(!matches!(digest.algorithm(), DigestAlgorithm::Other(_)));
    Ok(digest)
}
