//! Sources of an `ADD` that are fetched: URLs and git repositories.
//!
//! One URL is copied as the file that it is. A repository, and whatever comes from several places, is gathered in a root file
//! system of its own first, and copied from there at once: an instruction makes one layer.

use super::contexts::{ADDRESS, everything};
use super::lower::about;
use super::op::{CopyFrom, CopyOp, FetchOp, Op, Root};
use super::stage::StageLowering;
use super::steps::source_path;
use crate::dockerfile::{Instruction, Problem, Span, Transfer};

/// The name of a file whose address has none, as the reference gives it.
const UNNAMED: &str = "__unnamed__";

impl StageLowering<'_, '_> {
    /// Where an instruction copies from when its sources are addresses, and which paths there; none when it has none, and
    /// after a problem was reported.
    pub(super) fn remote_sources(
        &mut self,
        transfer: &Transfer,
        is_add: bool,
        sources: &[(String, Span)],
        checksum: Option<&(String, Span)>,
        instruction: &Instruction,
    ) -> Option<(CopyFrom, Vec<String>)> {
        let remote: Vec<&(String, Span)> = sources.iter().filter(|(source, _)| is_remote(source)).collect();
        if let Some((source, span)) = remote.first().filter(|_| !is_add) {
            let problem = Problem::error(*span, format!("`COPY` cannot take the URL `{source}`"));
            self.problems.push(problem.hint("`ADD` fetches URLs and git repositories"));
            return None;
        }
        if let Some((_, span)) = checksum {
            let problem = match remote.len() {
                0 => Some("`--checksum` is for a URL or a git repository"),
                _ if sources.len() > 1 => Some("`--checksum` is for a single source"),
                _ => None,
            };
            if let Some(problem) = problem {
                self.problems.push(Problem::error(*span, problem));
                return None;
            }
        }
        remote.first()?;
        let mut taken: Vec<Taken> = Vec::new();
        for (source, span) in sources {
            if !is_remote(source) {
                match taken.last_mut() {
                    Some(Taken::Paths(paths)) => paths.push(source_path(source, false)),
                    _ => taken.push(Taken::Paths(vec![source_path(source, false)])),
                }
                continue;
            }
            match fetch_of(source, transfer, checksum.map(|(text, _)| text.as_str())) {
                Ok(fetch) => taken.push(Taken::Fetched(fetch)),
                Err(problem) => {
                    self.problems.push(Problem::error(*span, problem));
                    return None;
                }
            }
        }
        if let [Taken::Fetched(fetch @ FetchOp::Url { .. })] = &taken[..] {
            let id = self.builder.fetch(fetch, ADDRESS, instruction.lines());
            return Some((CopyFrom::Fetch(id), Vec::new()));
        }
        let stage = self.name.clone();
        let mut gathered = Root::Scratch;
        for one in taken {
            let (op, text) = match one {
                Taken::Fetched(fetch) => {
                    let id = self.builder.fetch(&fetch, ADDRESS, instruction.lines());
                    let unpack = matches!(fetch, FetchOp::Git { .. }) || transfer.unpack == Some(true);
                    (everything(CopyFrom::Fetch(id), unpack), format!("gather {}", fetch.what()))
                }
                Taken::Paths(sources) => {
                    let context = self.builder.main_context(instruction.lines());
                    let text = format!("gather {}", sources.join(" "));
                    let exclude = transfer.exclude.iter().map(|word| word.text.clone()).collect();
                    let from = context.map_or(CopyFrom::Context, CopyFrom::Root);
                    let op = everything(from, transfer.unpack.unwrap_or(true));
                    (CopyOp { sources, exclude, ..op }, text)
                }
            };
            let op = Op::Copy(CopyOp { input: gathered, ..op });
            let id = self.builder.push(op, about(instruction, text, stage.as_deref()));
            self.own_steps.push(id);
            gathered = Root::Of(id);
        }
        Some((CopyFrom::Root(gathered), vec![String::new()]))
    }
}

/// Sources of one instruction that come from one place.
enum Taken {
    Fetched(FetchOp),
    /// Paths in the context.
    Paths(Vec<String>),
}

/// Whether an `ADD` source is fetched: a URL, or a git repository by its URL or in the short form of ssh.
pub(super) fn is_remote(source: &str) -> bool {
    let is_url = ["http://", "https://", "git://", "ssh://"].iter().any(|scheme| source.starts_with(scheme));
    is_url || is_short_form(source)
}

/// `user@host:path`.
fn is_short_form(source: &str) -> bool {
    let name = |text: &str| {
        !text.is_empty() && text.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(letter))
    };
    let parts = source.split_once('@').and_then(|(user, rest)| Some((user, rest.split_once(':')?)));
    parts.is_some_and(|(user, (host, path))| name(user) && name(host) && !path.is_empty())
}

/// Whether an address is a repository's: over HTTP it is told by the end of its path.
fn is_git(source: &str) -> bool {
    let before = source.split(['#', '?']).next().unwrap_or_default();
    match before.split_once("://") {
        Some(("http" | "https", rest)) => rest.contains('/') && rest.ends_with(".git"),
        _ => true,
    }
}

fn fetch_of(source: &str, transfer: &Transfer, checksum: Option<&str>) -> Result<FetchOp, String> {
    let checksum = checksum.filter(|text| !text.is_empty());
    if is_git(source) {
        if transfer.unpack.is_some() {
            return Err("`--unpack` is not for a git repository".to_owned());
        }
        if let Some(text) = checksum.filter(|text| !is_hex(text) || !(7..=64).contains(&text.len())) {
            return Err(format!("`--checksum={text}` is no commit: expected at least 7 hexadecimal digits"));
        }
        let keep_git_dir = transfer.keep_git_dir.unwrap_or(false);
        return Ok(FetchOp::Git {
            remote: source.to_owned(),
            checksum: checksum.map(str::to_owned),
            keep_git_dir,
            by_user: false,
        });
    }
    if transfer.keep_git_dir.is_some() {
        return Err("`--keep-git-dir` is for a git repository, whose address ends in `.git`".to_owned());
    }
    if let Some(text) = checksum {
        let length = |algorithm: &str| match algorithm {
            "sha256" => Some(64),
            "sha384" => Some(96),
            "sha512" => Some(128),
            _ => None,
        };
        let parts = text.split_once(':');
        if !parts.is_some_and(|(algorithm, hash)| length(algorithm) == Some(hash.len()) && is_hex(hash)) {
            return Err(format!("`--checksum={text}` is no digest: expected `sha256:` and 64 hexadecimal digits"));
        }
    }
    let file_name = file_name(source);
    Ok(FetchOp::Url { url: source.to_owned(), file_name, checksum: checksum.map(str::to_owned) })
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The last part of an address's path; `%20` and the like undone.
fn file_name(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = rest.split(['#', '?']).next().unwrap_or_default();
    let path = rest.split_once('/').map_or("", |(_, path)| path);
    let mut bytes = Vec::new();
    let mut left = path.as_bytes();
    while let Some((first, after)) = left.split_first() {
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let escaped = digits.filter(|_| *first == b'%').and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(escaped.unwrap_or(*first));
        left = if escaped.is_some() { after.get(2..).unwrap_or_default() } else { after };
    }
    let path = String::from_utf8_lossy(&bytes).into_owned();
    let name = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    match name {
        "" | "." | ".." => UNNAMED.to_owned(),
        name if name.contains('\0') => UNNAMED.to_owned(),
        name => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_by_their_address() {
        for (url, name) in [
            ("http://h/a/b.tar?x=/y#z", "b.tar"),
            ("http://h/", UNNAMED),
            ("http://h", UNNAMED),
            ("http://h?a=b/c", UNNAMED),
            ("http://h/d/", "d"),
            ("http://h/a%20b", "a b"),
            ("http://h/a%2Fb", "b"),
            ("http://h/%2e%2e", UNNAMED),
            ("http://h/%zz", "%zz"),
        ] {
            assert_eq!(file_name(url), name, "{url}");
        }
    }

    #[test]
    fn addresses_are_told_from_paths() {
        for (source, remote) in [
            ("http://h/x", true),
            ("git@h:x", true),
            ("me.too@h.org:x/y#z", true),
            ("a@b", false),
            ("a/b@c:d", false),
            ("file", false),
            ("ftp://h/x", false),
        ] {
            assert_eq!(is_remote(source), remote, "{source}");
        }
        assert!(is_git("https://h/x.git#a:b") && is_git("ssh://h/x") && !is_git("https://h/x.gitignore"));
    }
}
