//! What a build takes from elsewhere than folders of this machine, kept in the store as one file each.

mod error;
mod file;
mod git;
mod http;
mod record;

pub use error::FetchError;
pub use file::{FetchedFile, keep};
pub use git::{AddressError, GitAddress, GitError, GitRequest, git};
pub use http::{Secret, UrlRequest, url};

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
