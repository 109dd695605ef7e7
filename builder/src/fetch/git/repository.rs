//! A commit of a repository as a tar in the store.
//!
//! Which commit a name leads to is asked in every build; the tar of a commit is made once. It holds what git tracks, with
//! git's modes and root as the owner, and `.git` only where that was asked for.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use fluyt_client::without_password;

use super::address::{is_commit, unescaped};
use super::program::{Access, Git, TELL_USER};
use super::{GitAddress, GitError};
use crate::blob::Store;
use crate::event::{Event, Events, StepId};
use crate::fetch::http::Secret;
use crate::fetch::record::Record;
use crate::fetch::{FetchError, FetchedFile};
use crate::stop::Cancel;

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub struct GitRequest {
    /// The repository, and what of it.
    pub address: GitAddress,
    /// The header `Authorization`, for HTTP.
    pub authorization: Option<Secret>,
    /// The agent's socket, for ssh.
    pub agent: Option<PathBuf>,
    /// Whether ssh may use what the user has: the user named the repository.
    pub users_own: bool,
    /// The user's folder, where this process is root of a user namespace: the system would name ssh root's.
    pub home: Option<PathBuf>,
    /// CA certificates, in place of the system's.
    pub certificates: Option<PathBuf>,
    /// Whether an unreachable server is an error although there is a copy.
    pub must_ask: bool,
}

/// A name and the commit it leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Resolved {
    /// The whole name (`refs/heads/main`); none where a commit was named.
    name: Option<String>,
    commit: String,
}

/// Fetches a commit. Blocks, until `cancel` trips at most.
///
/// # Errors
/// When git fails, when the repository has not what was asked for, and when the store fails.
pub fn git(
    store: &Store,
    request: &GitRequest,
    events: &Events,
    step: StepId,
    cancel: &Cancel,
) -> Result<FetchedFile, FetchError> {
    let store = &store.until(cancel);
    let folder = store.temporary_folder()?;
    let access = access(request, folder.path())?;
    let git = Git { folder: folder.path(), access: &access, cancel };
    let remote = remote(&request.address);
    let by_name = by_name(request);
    let resolved = match resolve(&git, &remote, &request.address) {
        Ok(resolved) => resolved,
        Err(error) if error.is_unreachable() && !request.must_ask => {
            let known = Record::read(store, &by_name).filter(|known| known.is_there(store));
            let Some(known) = known else { return Err(error.into()) };
            check_commit(&request.address, known.etag.as_deref().unwrap_or_default())?;
            let commit = known.etag.clone().unwrap_or_default();
            let text = format!(
                "{error}; {} is taken as it last was, commit {commit}",
                without_password(&request.address.remote)
            );
            events.hear(Event::Warning { text });
            return known.file(store);
        }
        Err(error) => return Err(error.into()),
    };
    check_commit(&request.address, &resolved.commit)?;
    let by_commit = format!("git commit {} {} {}", resolved.commit, named(request), without_password(&remote));
    if let Some(known) = Record::read(store, &by_commit).filter(|known| known.is_there(store)) {
        events.hear(Event::Cached { step });
        known.keep(store, &by_commit)?;
        known.keep(store, &by_name)?;
        return known.file(store);
    }
    let tree = folder.path().join("tree");
    std::fs::create_dir(&tree).map_err(|source| GitError::Read { path: tree.clone(), source })?;
    let git = Git { folder: &tree, ..git };
    check_out(&git, &remote, request, &resolved)?;
    let committed_at = git.run(&["log", "-1", "--no-show-signature", "--format=%ct"])?;
    let committed_at: i64 = committed_at.trim().parse().unwrap_or(0);
    let time = if request.address.commit_times { committed_at } else { now() };
    let top = inside(&tree, request.address.folder.as_deref(), &resolved.commit)?;
    let keep_git_dir = request.address.keep_git_dir == Some(true) && top == tree;
    let info = pack(store, &top, keep_git_dir, u64::try_from(time).unwrap_or(0))?;
    let record = Record {
        etag: Some(resolved.commit),
        digest: info.digest.to_string(),
        size_bytes: info.size_bytes,
        modified_seconds: committed_at,
        ..Record::default()
    };
    record.keep(store, &by_commit)?;
    record.keep(store, &by_name)?;
    record.file(store)
}

/// What was fetched for a request last, where it is still there: nobody knows whether its name leads to that commit now.
#[must_use]
pub fn last_of_git(store: &Store, request: &GitRequest) -> Option<FetchedFile> {
    Record::read(store, &by_name(request)).filter(|known| known.is_there(store))?.file(store).ok()
}

/// Under which address it is kept what a request led to.
fn by_name(request: &GitRequest) -> String {
    format!("git name {} {}", named(request), without_password(&remote(&request.address)))
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(0)
}

/// All that decides over the tar, beside the commit.
fn named(request: &GitRequest) -> String {
    let address = &request.address;
    format!(
        "{:?} {:?} {:?} {:?} {}",
        address.reference, address.folder, address.keep_git_dir, address.submodules, address.commit_times
    )
}

/// What git is told: who asks goes another way, and so into no argument and no `.git/config`.
fn remote(address: &GitAddress) -> String {
    match user_and_password(&address.remote) {
        Some((_, without)) => without,
        None => address.remote.clone(),
    }
}

/// What stands before the host of an HTTP address, and the address without.
fn user_and_password(remote: &str) -> Option<(&str, String)> {
    let is_http = |scheme: &str| ["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
    let (scheme, rest) = remote.split_once("://").filter(|(scheme, _)| is_http(scheme))?;
    let end = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let (user, host) = authority.rsplit_once('@')?;
    Some((user, format!("{scheme}://{host}{path}")))
}

fn access(request: &GitRequest, folder: &Path) -> Result<Access, GitError> {
    let address = &request.address;
    if address.is_ssh() && request.agent.is_none() && !request.users_own {
        return Err(GitError::NoAgent);
    }
    let mut settings = Vec::new();
    let basic = |text: &str| format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(text));
    // As in any address, `%40` stands for what would end the name; a line's end would end it for git.
    let plain = |text: &str| {
        unescaped(text).ok().filter(|text| !text.contains(char::is_control)).unwrap_or_else(|| text.to_owned())
    };
    let (header, user) = match (&request.authorization, user_and_password(&address.remote)) {
        (Some(secret), _) => (Some(secret.0.clone()), None),
        (None, Some((user, _))) => match user.split_once(':') {
            Some((user, password)) => (Some(basic(&format!("{}:{}", plain(user), plain(password)))), None),
            None => (None, Some(plain(user)).filter(|user| !user.is_empty())),
        },
        (None, None) => (None, None),
    };
    // For this host alone, whatever submodules and redirects name.
    let scope = remote(address);
    let (scheme, rest) = scope.split_once("://").unwrap_or(("https", &scope));
    let host = format!("{scheme}://{}", rest.split('/').next().unwrap_or_default());
    if let Some(header) = header {
        settings.push((format!("http.{host}/.extraheader"), format!("Authorization: {header}")));
    }
    if user.is_some() {
        settings.push((format!("credential.{host}.helper"), TELL_USER.to_owned()));
    }
    Ok(Access {
        settings,
        user,
        agent: request.agent.clone(),
        users_own: request.users_own,
        home: request.home.clone(),
        known_hosts: folder.join("known_hosts"),
        certificates: request.certificates.clone(),
    })
}

fn resolve(git: &Git<'_>, remote: &str, address: &GitAddress) -> Result<Resolved, GitError> {
    if let Some(reference) = address.reference.as_ref().filter(|reference| is_commit(reference)) {
        return Ok(Resolved { name: None, commit: reference.clone() });
    }
    let printed = git.run(&["ls-remote", "--", remote])?;
    let rows: Vec<(&str, &str)> =
        printed.lines().filter_map(|line| line.split_once('\t')).map(|(hash, name)| (name, hash)).collect();
    chosen(&rows, address.reference.as_deref())
}

/// What a name leads to: a branch before a tag, as `git checkout` has it; of a tag with a text of its own, its commit.
fn chosen(rows: &[(&str, &str)], reference: Option<&str>) -> Result<Resolved, GitError> {
    let hash_of = |name: &str| rows.iter().find(|(known, _)| *known == name).map(|(_, hash)| (*hash).to_owned());
    let names = match reference {
        None => vec!["HEAD".to_owned()],
        Some(name) if name.starts_with("refs/") => vec![name.to_owned()],
        Some(name) => {
            vec![format!("refs/heads/{name}"), format!("refs/tags/{name}"), format!("refs/{name}"), name.to_owned()]
        }
    };
    for name in names {
        if let Some(commit) = hash_of(&format!("{name}^{{}}")).or_else(|| hash_of(&name)) {
            return Ok(Resolved { name: Some(name), commit });
        }
    }
    let wanted = reference.unwrap_or("HEAD");
    let short = |name: &str| {
        let bare = name.strip_prefix("refs/heads/").or_else(|| name.strip_prefix("refs/tags/"))?;
        (!bare.ends_with("^{}")).then(|| bare.to_owned())
    };
    let nearest = rows
        .iter()
        .filter_map(|(name, _)| short(name))
        .map(|name| (strsim::damerau_levenshtein(&name, wanted), name))
        .filter(|(distance, _)| *distance <= wanted.len().div_ceil(3).min(3))
        .min();
    Err(GitError::NoReference { reference: wanted.to_owned(), nearest: nearest.map(|(_, name)| name) })
}

fn check_commit(address: &GitAddress, commit: &str) -> Result<(), GitError> {
    match &address.commit {
        Some(expected) if !commit.starts_with(&expected.to_lowercase()) => Err(GitError::Commit {
            reference: address.reference.clone().unwrap_or_else(|| "HEAD".to_owned()),
            expected: expected.clone(),
            found: commit.to_owned(),
        }),
        _ => Ok(()),
    }
}

/// Brings one commit, and checks it out in the folder of `git`.
fn check_out(git: &Git<'_>, remote: &str, request: &GitRequest, resolved: &Resolved) -> Result<(), GitError> {
    git.run(&["init", "-q", "--template="])?;
    git.run(&["remote", "add", "origin", remote])?;
    let by_name = resolved.name.as_ref().filter(|_| !request.address.by_commit);
    let wanted = by_name.map_or(resolved.commit.as_str(), String::as_str);
    let local = match by_name.map(String::as_str) {
        None | Some("HEAD") => wanted.to_owned(),
        Some(name) => format!("+{name}:{name}"),
    };
    let shallow = git.run(&["fetch", "-q", "-u", "--depth=1", "--no-tags", "origin", &local]);
    if let Err(error) = shallow {
        if error.is_unreachable() || error.is_ours() {
            return Err(error);
        }
        // Some servers give neither a part of the history nor a commit by its hash.
        git.run(&["fetch", "-q", "-u", "--tags", "origin", "+refs/heads/*:refs/remotes/origin/*"])?;
    }
    let there = git.run(&["cat-file", "-e", &format!("{}^{{commit}}", resolved.commit)]);
    if there.is_err() && by_name.is_some() {
        // The name moved since it was asked for: the commit itself is what this build takes.
        git.run(&["fetch", "-q", "-u", "--depth=1", "--no-tags", "origin", &resolved.commit])?;
    } else if there.is_err() {
        return Err(GitError::NoReference { reference: resolved.commit.clone(), nearest: None });
    }
    git.run(&["checkout", "-q", "--detach", "--force", &resolved.commit])?;
    if request.address.submodules != Some(false) && git.folder.join(".gitmodules").exists() {
        let update = |more: &[&str]| {
            let done = git.run(&[&["submodule", "update", "-q", "--init", "--recursive"], more].concat());
            done.map_err(|error| submodule_without_agent(&error, git.folder).unwrap_or(error))
        };
        if let Err(error) = update(&["--depth=1"]) {
            if error.is_unreachable() || error.is_ours() {
                return Err(error);
            }
            // A commit that no branch ends at is not everywhere to be had without its history.
            update(&[])?;
        }
    }
    if request.address.keep_git_dir == Some(true) {
        git.run(&["reflog", "expire", "--all", "--expire=now"])?;
        for file in ["FETCH_HEAD", "ORIG_HEAD"] {
            let _ = std::fs::remove_file(git.folder.join(".git").join(file));
        }
    }
    Ok(())
}

/// What git says of a submodule that only ssh reaches, where it may not use ssh.
fn submodule_without_agent(error: &GitError, tree: &Path) -> Option<GitError> {
    let GitError::Failed { said, .. } = error else { return None };
    let (_, said) = said.split_once("transport 'ssh' not allowed")?;
    let (address, said) = said.split_once("clone of '")?.1.split_once("' into submodule path '")?;
    let path = Path::new(said.split_once("' failed")?.0);
    let tree = tree.canonicalize().ok()?;
    let submodule = path.strip_prefix(tree).unwrap_or(path).display().to_string();
    Some(GitError::NoAgentForSubmodule { submodule, address: address.to_owned() })
}

/// A folder of the check-out, without leaving it: a link may be anything.
fn inside(tree: &Path, folder: Option<&str>, commit: &str) -> Result<PathBuf, GitError> {
    let Some(folder) = folder else { return Ok(tree.to_owned()) };
    let missing = || GitError::NoFolder { folder: folder.to_owned(), commit: commit.to_owned() };
    let mut names: Vec<&str> = Vec::new();
    for name in folder.split('/') {
        match name {
            "" | "." => {}
            ".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    let top = tree.canonicalize().map_err(|source| GitError::Read { path: tree.to_owned(), source })?;
    if names.is_empty() {
        return Ok(tree.to_owned());
    }
    let found = top.join(names.join("/")).canonicalize().map_err(|_| missing())?;
    let is_git_dir =
        found.strip_prefix(&top).is_ok_and(|below| below.components().any(|part| part.as_os_str() == ".git"));
    if found.starts_with(&top) && found.is_dir() && !is_git_dir { Ok(found) } else { Err(missing()) }
}

/// Writes a folder as a tar: names sorted, root as the owner, git's modes.
fn pack(store: &Store, top: &Path, keep_git_dir: bool, time: u64) -> Result<crate::blob::BlobInfo, FetchError> {
    let failed = |path: &Path, source| GitError::Read { path: path.to_owned(), source };
    let mut builder = tar::Builder::new(store.writer()?);
    builder.mode(tar::HeaderMode::Deterministic);
    // The next folder or file to write is the last.
    let mut open = vec![(top.to_owned(), PathBuf::new())];
    while let Some((path, name)) = open.pop() {
        let about = std::fs::symlink_metadata(&path).map_err(|source| failed(&path, source))?;
        let mut header = tar::Header::new_gnu();
        header.set_mtime(time);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(0);
        let kind = about.file_type();
        let written = if kind.is_symlink() {
            let target = std::fs::read_link(&path).map_err(|source| failed(&path, source))?;
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_mode(0o777);
            builder.append_link(&mut header, &name, target)
        } else if kind.is_dir() {
            let entries = std::fs::read_dir(&path).map_err(|source| failed(&path, source))?;
            let mut names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
            names.sort_unstable();
            // No file that git tracks has this name: it is the repository's own, or a submodule's.
            names.retain(|child| keep_git_dir || child != ".git");
            open.extend(names.into_iter().rev().map(|child| (path.join(&child), name.join(&child))));
            if name.as_os_str().is_empty() {
                continue;
            }
            header.set_entry_type(tar::EntryType::Directory);
            header.set_mode(0o755);
            builder.append_data(&mut header, &name, io::empty())
        } else if kind.is_file() {
            let file = File::open(&path).map_err(|source| failed(&path, source))?;
            header.set_mode(git_mode(about.permissions().mode()));
            header.set_size(about.size());
            builder.append_data(&mut header, &name, file.take(about.size()))
        } else {
            continue;
        };
        written.map_err(|source| failed(&path, source))?;
    }
    let writer = builder.into_inner().map_err(|source| failed(top, source))?;
    Ok(writer.commit(None)?)
}

/// What git keeps of a mode, whatever the umask; its own objects are read-only.
fn git_mode(mode: u32) -> u32 {
    match (mode & 0o100 != 0, mode & 0o200 != 0) {
        (true, _) => 0o755,
        (false, true) => 0o644,
        (false, false) => 0o444,
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[test]
    fn a_branch_goes_before_a_tag_and_a_tags_text_is_not_its_commit() {
        let rows = [
            ("HEAD", "h"),
            ("refs/heads/main", "m"),
            ("refs/heads/both", "b"),
            ("refs/tags/both", "t"),
            ("refs/tags/v1", "text"),
            ("refs/tags/v1^{}", "v"),
            ("refs/pull/1/head", "p"),
        ];
        let commit = |name| chosen(&rows, name).map(|found| found.commit).map_err(|error| error.to_string());
        for (name, expected) in [
            (None, "h"),
            (Some("main"), "m"),
            (Some("both"), "b"),
            (Some("refs/tags/both"), "t"),
            (Some("v1"), "v"),
            (Some("pull/1/head"), "p"),
        ] {
            assert_eq!(commit(name).unwrap(), expected, "{name:?}");
        }
        let text = commit(Some("mian")).unwrap_err();
        assert_eq!(text, "the repository has no branch, tag or commit `mian`; did you mean `main`?");
    }

    #[test]
    fn who_asks_goes_into_no_argument() {
        let (header, helper) = ("http.https://h:1/.extraheader", "credential.https://h:1.helper");
        for (user, setting, told) in [
            ("u:p", (header, "Authorization: Basic dTpw"), None),
            ("u:%70", (header, "Authorization: Basic dTpw"), None),
            ("token", (helper, TELL_USER), Some("token")),
            ("a%40b", (helper, TELL_USER), Some("a@b")),
            ("a%0Ab", (helper, TELL_USER), Some("a%0Ab")),
        ] {
            let address = GitAddress::parse(&format!("https://{user}@h:1/x.git")).unwrap().unwrap();
            assert_eq!(remote(&address), "https://h:1/x.git");
            let request = GitRequest { address, ..GitRequest::default() };
            let access = access(&request, Path::new("/f")).unwrap();
            assert_eq!(access.settings, [(setting.0.to_owned(), setting.1.to_owned())], "{user}");
            assert_eq!(access.user.as_deref(), told, "{user}");
        }
        let address = GitAddress::parse("ssh://git@h/x").unwrap().unwrap();
        assert_eq!(remote(&address), "ssh://git@h/x");
    }

    #[test]
    fn a_large_file_is_packed_no_further_once_the_build_is_stopped() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        let top = folder.path().join("tree");
        std::fs::create_dir(&top).unwrap();
        std::fs::write(top.join("large"), vec![7; 4 << 20]).unwrap();
        let cancel = Cancel::new();
        pack(&store.until(&cancel), &top, false, 0).unwrap();
        cancel.cancel();
        let error = pack(&store.until(&cancel), &top, false, 0).unwrap_err();
        assert_eq!(error.source().unwrap().to_string(), "the build was stopped");
    }

    #[test]
    fn a_folder_stays_in_the_repository() {
        let folder = tempfile::tempdir().unwrap();
        let tree = folder.path().join("tree");
        std::fs::create_dir_all(tree.join("a/b")).unwrap();
        std::fs::create_dir_all(tree.join(".git/refs")).unwrap();
        std::os::unix::fs::symlink("/etc", tree.join("out")).unwrap();
        std::os::unix::fs::symlink("a", tree.join("in")).unwrap();
        for (name, found) in [
            ("a/b", true),
            ("/a/../a/b/", true),
            ("../../a", true),
            ("in/b", true),
            ("out", false),
            (".git/refs", false),
            ("absent", false),
        ] {
            assert_eq!(inside(&tree, Some(name), "c").is_ok(), found, "{name}");
        }
    }
}
