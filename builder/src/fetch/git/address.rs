//! The address of a git repository, with what of it is wanted.
//!
//! ```text
//! https://host/path.git[#ref[:folder]]       https and http: only where the path ends in .git
//! ssh://[user@]host[:port]/path, git://...   always
//! user@host:path                             the short form of ssh
//! github.com/owner/name                      as a build's context only
//! ...?ref=|branch=|tag=|subdir=|checksum=|commit=|keep-git-dir=|submodules=|mtime=checkout|commit|fetch-by-commit=
//! ...##ref=REF,commit=HASH,subdir=FOLDER
//! ```

use fluyt_client::without_password;

use crate::notation;

/// Why an address of a git repository cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{address}`: {problem}")]
pub struct AddressError {
    /// As written, without a password.
    pub address: String,
    /// What is wrong.
    pub problem: String,
}

/// What is wanted of a git repository.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GitAddress {
    /// What git is told.
    pub remote: String,
    /// Branch, tag or commit; none is the default branch.
    pub reference: Option<String>,
    /// The folder in it; none is all.
    pub folder: Option<String>,
    /// The commit that it must be, or how that begins.
    pub commit: Option<String>,
    /// Whether `.git` stays, where the address says.
    pub keep_git_dir: Option<bool>,
    /// Whether submodules are fetched too.
    pub submodules: Option<bool>,
    /// Whether files get the time of the commit.
    pub commit_times: bool,
    /// Whether the commit is asked for by its hash, rather than by the name that leads to it.
    pub by_commit: bool,
}

/// Whether a text is the address of a git repository.
#[must_use]
pub(crate) fn is_repository(text: &str) -> bool {
    let (before, _) = cut(text, '#');
    match before.split_once("://") {
        Some((scheme, rest)) => match scheme.to_ascii_lowercase().as_str() {
            "ssh" | "git" => true,
            "http" | "https" => {
                let (path, _) = cut(rest, '?');
                path.contains('/') && path.ends_with(".git")
            }
            _ => false,
        },
        None => short_form(before).is_some(),
    }
}

impl GitAddress {
    /// Reads an address; none where it is that of no repository.
    ///
    /// # Errors
    /// When what is wanted of the repository cannot be read.
    pub fn parse(text: &str) -> Option<Result<Self, AddressError>> {
        is_repository(text).then(|| {
            let mut address = Self::default();
            address.read(text).map_err(|problem| AddressError { address: without_password(text), problem })?;
            Ok(address)
        })
    }

    /// The same for a build's context, where `github.com/owner/name` is one too.
    ///
    /// # Errors
    /// When what is wanted of the repository cannot be read.
    pub fn parse_context(text: &str) -> Option<Result<Self, AddressError>> {
        match text.strip_prefix("github.com/") {
            Some(path) => {
                let mut address = Self::default();
                let read = address.read(&format!("https://github.com/{path}"));
                Some(
                    read.map(|()| address).map_err(|problem| AddressError { address: without_password(text), problem }),
                )
            }
            None => Self::parse(text),
        }
    }

    fn read(&mut self, text: &str) -> Result<(), String> {
        let (before, fragment) = cut(text, '#');
        let (remote, query) = match before.contains("://") {
            true => cut(before, '?'),
            false => (before, None),
        };
        // Git would take it for one of its own flags.
        if remote.starts_with('-') {
            return Err("a repository's address does not begin with `-`".to_owned());
        }
        remote.clone_into(&mut self.remote);
        if let Some(fragment) = fragment {
            self.fragment(fragment)?;
        }
        if let Some(query) = query {
            self.query(query)?;
        }
        for (what, value) in [("reference", &self.reference), ("commit", &self.commit)] {
            if let Some(value) = value.as_ref().filter(|value| value.starts_with('-') || value.contains(['\0', '\n'])) {
                return Err(format!("the {what} `{value}` cannot be one"));
            }
        }
        if let Some(commit) = self.commit.as_ref().filter(|commit| !is_commit_prefix(commit)) {
            return Err(format!("the checksum `{commit}` is no commit: expected at least 7 hexadecimal digits"));
        }
        if self.reference.is_none() && self.commit.as_ref().is_some_and(|commit| is_commit(commit)) {
            self.reference.clone_from(&self.commit);
        }
        Ok(())
    }

    /// What follows `#`: `ref:folder`, or after another `#` a list of pairs.
    fn fragment(&mut self, fragment: &str) -> Result<(), String> {
        let Some(pairs) = fragment.strip_prefix('#') else {
            let fragment = unescaped(fragment)?;
            let (reference, folder) = cut(&fragment, ':');
            self.reference = some(reference);
            self.folder = folder.and_then(some);
            return Ok(());
        };
        for field in pairs.split(',').filter(|field| !field.is_empty()) {
            let (key, value) =
                field.split_once('=').ok_or_else(|| format!("`{field}` after `##` is no `key=value`"))?;
            match key.to_ascii_lowercase().as_str() {
                "ref" => self.reference = some(value),
                "commit" => self.commit = some(value),
                "subdir" => self.folder = some(value),
                _ => return Err(format!("unexpected key `{key}` after `##`: expected `ref`, `commit` or `subdir`")),
            }
        }
        Ok(())
    }

    fn query(&mut self, query: &str) -> Result<(), String> {
        let mut seen: Vec<String> = Vec::new();
        let (mut tag, mut branch) = (None, None);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = cut(pair, '=');
            let (key, value) = (unescaped(key)?, value.map(unescaped).transpose()?.filter(|value| !value.is_empty()));
            if seen.contains(&key) {
                return Err(format!("`{key}` stands twice after `?`"));
            }
            let flag = |value: Option<String>| notation::switch(&key, value.as_deref());
            let needed = |value: Option<String>| value.ok_or_else(|| format!("`{key}` after `?` has no value"));
            match key.as_str() {
                "ref" => same(&mut self.reference, needed(value)?, "ref")?,
                "subdir" => same(&mut self.folder, needed(value)?, "subdir")?,
                "tag" => tag = Some(needed(value)?),
                "branch" => branch = Some(needed(value)?),
                "checksum" | "commit" => same(&mut self.commit, needed(value)?, "commit")?,
                "keep-git-dir" => self.keep_git_dir = Some(flag(value)?),
                "submodules" => self.submodules = Some(flag(value)?),
                "fetch-by-commit" => self.by_commit = flag(value)?,
                "mtime" => match needed(value)?.as_str() {
                    "checkout" => self.commit_times = false,
                    "commit" => self.commit_times = true,
                    other => return Err(format!("invalid mtime `{other}`: expected `checkout` or `commit`")),
                },
                _ => {
                    return Err(format!(
                        "unexpected key `{key}` after `?`: expected `ref`, `branch`, `tag`, `subdir`, `checksum`, \
                         `commit`, `keep-git-dir`, `submodules`, `mtime` or `fetch-by-commit`"
                    ));
                }
            }
            seen.push(key);
        }
        if tag.is_some() && branch.is_some() {
            return Err("`tag` and `branch` after `?` are different things".to_owned());
        }
        for (name, prefix) in [(tag, "refs/tags/"), (branch, "refs/heads/")] {
            let Some(name) = name else { continue };
            let whole = if name.starts_with(prefix) { name } else { format!("{prefix}{name}") };
            same(&mut self.reference, whole, "ref")?;
        }
        Ok(())
    }

    /// Host and port, for secrets that are for one host.
    #[must_use]
    pub fn host(&self) -> &str {
        match self.remote.split_once("://") {
            Some((_, rest)) => {
                let authority = rest.split(['/', '?']).next().unwrap_or_default();
                authority.rsplit_once('@').map_or(authority, |(_, host)| host)
            }
            None => short_form(&self.remote).unwrap_or_default(),
        }
    }

    /// Whether ssh is spoken.
    #[must_use]
    pub fn is_ssh(&self) -> bool {
        match self.remote.split_once("://") {
            Some((scheme, _)) => scheme.eq_ignore_ascii_case("ssh"),
            None => true,
        }
    }
}

/// Whether a text is a whole commit hash, of either of git's formats.
#[must_use]
pub(super) fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_commit_prefix(text: &str) -> bool {
    (7..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The host of `user@host:path`.
fn short_form(text: &str) -> Option<&str> {
    let (user, rest) = text.split_once('@')?;
    let (host, path) = rest.split_once(':')?;
    let is_name = |text: &str, more: &[char]| {
        !text.is_empty() && text.chars().all(|letter| letter.is_ascii_alphanumeric() || more.contains(&letter))
    };
    let good = is_name(user, &['-', '_', '.']) && is_name(host, &['-', '.', '_']) && !path.is_empty();
    (good && !user.starts_with('-')).then_some(host)
}

fn cut(text: &str, at: char) -> (&str, Option<&str>) {
    text.split_once(at).map_or((text, None), |(before, after)| (before, Some(after)))
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned()).filter(|text| !text.is_empty())
}

fn same(there: &mut Option<String>, new: String, key: &str) -> Result<(), String> {
    match there {
        Some(old) if *old != new => Err(format!("two values of `{key}`: `{old}` and `{new}`")),
        _ => {
            *there = Some(new);
            Ok(())
        }
    }
}

/// `%2F` and the like undone.
pub(super) fn unescaped(text: &str) -> Result<String, String> {
    let wrong = || format!("`{text}` holds a `%` that no two hexadecimal digits follow");
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = rest.get(..2).and_then(|digits| std::str::from_utf8(digits).ok()).ok_or_else(wrong)?;
        bytes.push(u8::from_str_radix(digits, 16).map_err(|_| wrong())?);
        rest = rest.get(2..).unwrap_or_default();
    }
    String::from_utf8(bytes).map_err(|_| format!("`{text}` is no UTF-8 text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        match GitAddress::parse_context(text) {
            None => "no repository".to_owned(),
            Some(Err(error)) => format!("error: {}", error.problem),
            Some(Ok(address)) => {
                let mut text = address.remote.clone();
                for (name, value) in
                    [("ref", &address.reference), ("folder", &address.folder), ("commit", &address.commit)]
                {
                    if let Some(value) = value {
                        text.push_str(&format!(" {name}={value}"));
                    }
                }
                for (name, value) in [("keep", address.keep_git_dir), ("submodules", address.submodules)] {
                    if let Some(value) = value {
                        text.push_str(&format!(" {name}={value}"));
                    }
                }
                for (name, set) in [
                    ("commit-times", address.commit_times),
                    ("by-commit", address.by_commit),
                    ("ssh", address.is_ssh()),
                ] {
                    if set {
                        text.push_str(&format!(" {name}"));
                    }
                }
                text
            }
        }
    }

    #[test]
    fn each_form_of_an_address() {
        const HASH: &str = "0123456789abcdef0123456789abcdef01234567";
        for (text, expected) in [
            ("https://h/x.git", "https://h/x.git"),
            ("https://h/x.git#v1", "https://h/x.git ref=v1"),
            ("https://h/x.git#v1:sub/dir", "https://h/x.git ref=v1 folder=sub/dir"),
            ("https://h/x.git#:sub", "https://h/x.git folder=sub"),
            ("https://h/x.git#", "https://h/x.git"),
            ("https://h/x", "no repository"),
            ("https://h/x.git/y", "no repository"),
            ("https://x.git", "no repository"),
            ("http://h:8/x.git", "http://h:8/x.git"),
            ("ftp://h/x.git", "no repository"),
            ("git://h/x", "git://h/x"),
            ("ssh://git@h:22/x#main", "ssh://git@h:22/x ref=main ssh"),
            ("git@h:x/y.git#main:d", "git@h:x/y.git ref=main folder=d ssh"),
            ("other@h:x", "other@h:x ssh"),
            ("-oProxyCommand=x@h:y", "no repository"),
            ("./git@h:x", "no repository"),
            ("github.com/a/b", "https://github.com/a/b"),
            ("github.com/a/b#v1:c", "https://github.com/a/b ref=v1 folder=c"),
            ("https://h/x.git?ref=v1&subdir=d", "https://h/x.git ref=v1 folder=d"),
            ("https://h/x.git?tag=v1", "https://h/x.git ref=refs/tags/v1"),
            ("https://h/x.git?branch=refs/heads/b", "https://h/x.git ref=refs/heads/b"),
            ("https://h/x.git?branch=a&tag=b", "error: `tag` and `branch` after `?` are different things"),
            ("https://h/x.git?tag=v1#v2", "error: two values of `ref`: `v2` and `refs/tags/v1`"),
            ("https://h/x.git?keep-git-dir&submodules=false", "https://h/x.git keep=true submodules=false"),
            (
                "https://h/x.git?submodules=maybe",
                "error: invalid value `maybe` of `submodules`: expected `true` or `false`",
            ),
            ("https://h/x.git?mtime=commit&fetch-by-commit=1", "https://h/x.git commit-times by-commit"),
            ("https://h/x.git?mtime=now", "error: invalid mtime `now`: expected `checkout` or `commit`"),
            ("https://h/x.git?ref=a&ref=b", "error: `ref` stands twice after `?`"),
            ("https://h/x.git?ref=", "error: `ref` after `?` has no value"),
            ("https://h/x.git?ref=a%2Fb", "https://h/x.git ref=a/b"),
            ("https://h/x.git?ref=%zz", "error: `%zz` holds a `%` that no two hexadecimal digits follow"),
            ("https://h/x.git##ref=v1,subdir=d", "https://h/x.git ref=v1 folder=d"),
            (
                "https://h/x.git##what=v1",
                "error: unexpected key `what` after `##`: expected `ref`, `commit` or `subdir`",
            ),
            ("https://h/x.git#--upload-pack=x", "error: the reference `--upload-pack=x` cannot be one"),
            ("https://h/x.git?checksum=01234567&ref=v1", "https://h/x.git ref=v1 commit=01234567"),
            (
                "https://h/x.git?checksum=xyz",
                "error: the checksum `xyz` is no commit: expected at least 7 hexadecimal digits",
            ),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
        assert_eq!(
            shown(&format!("https://h/x.git?commit={HASH}")),
            format!("https://h/x.git ref={HASH} commit={HASH}")
        );
    }

    #[test]
    fn a_host_is_told() {
        for (text, host) in [
            ("https://user:pass@h:8443/x.git", "h:8443"),
            ("git@example.org:x", "example.org"),
            ("ssh://git@h:22/x", "h:22"),
        ] {
            assert_eq!(GitAddress::parse(text).unwrap().unwrap().host(), host, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_gives_an_answer(text in "(https://h/x.git|git@h:x|ssh://)\\PC{0,60}") {
            let _ = GitAddress::parse(&text);
        }
    }
}
