//! What a build takes from elsewhere than folders of this machine, kept in the store as one file each.

mod error;
mod file;
mod git;

pub use error::FetchError;
pub use file::{FetchedFile, keep};
pub use git::{AddressError, GitAddress};

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
