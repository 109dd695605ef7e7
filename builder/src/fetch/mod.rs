//! What a build takes from elsewhere than folders of this machine, kept in the store as one file each: files over HTTP, commits
//! of git repositories, archives on standard input.
//!
//! Everything with an address is asked for in every build, once for all instructions that name it, and brought only when it is
//! another one. When it cannot be reached, what was fetched last is used with a warning; under `--pull`, and for what the user
//! named (the context, the Dockerfile), that is an error.
//! Whatever decided that nothing had changed, the keys of steps are made of content. Steps that need nothing of it do not wait
//! for it (see `execute`).
//!
//! # What differs from the reference
//!
//! - A redirect from TLS to plain HTTP is refused, and of secrets none goes to where a redirect leads.
//! - `--checksum` takes `sha384` and `sha512` beside `sha256`.
//! - A Dockerfile's repositories reached by ssh, and their submodules, get the agent of `--ssh default` and nothing else: no key
//!   of a file and none of the user's configuration. One that the user names (a context) may use the user's own agent and keys,
//!   as this process is the user's. Host keys are checked against the user's known hosts; one that nobody knew is taken for
//!   this build, as the reference always takes them. In a user namespace ssh reads no configuration of the system.
//! - Submodules are fetched by http, https, ssh and git only: not from files of the machine that builds.
//! - A private repository's user and password, or token, in an address work, and are in no argument, image or record.
//! - An image built `FROM` a named folder or a fetched tree has a history row for it, first; the reference adds one at the end,
//!   with the words of the last step.

mod error;
mod file;
mod git;
mod http;
mod record;

pub use error::FetchError;
pub use file::{FetchedFile, keep};
pub use git::{AddressError, GitAddress, GitError, GitRequest, git, last_of_git};
pub use http::{Secret, UrlRequest, last_of_url, url};

/// Whether a text is the address of a file over HTTP.
#[must_use]
pub fn is_url(text: &str) -> bool {
    ["http://", "https://"].iter().any(|scheme| text.starts_with(scheme))
}

/// Whether a text is the address of something to fetch, rather than a path: a URL, or a git repository, also in the short
/// form of ssh (`user@host:path`).
#[must_use]
pub fn is_address(text: &str) -> bool {
    is_url(text) || text.starts_with("github.com/") || git::is_repository(text)
}

/// The host in an address, without its port.
#[must_use]
pub fn host_name(address: &str) -> &str {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.split(':').next().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_without_port_and_user() {
        for (address, host) in
            [("https://h/x", "h"), ("http://u:p@h:80/x?y@z", "h"), ("http://[::1]:80/x", "::1"), ("https://h?x", "h")]
        {
            assert_eq!(host_name(address), host, "{address}");
        }
    }
}
