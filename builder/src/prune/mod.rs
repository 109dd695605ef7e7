//! What the store holds, what of it may go, and removing it beside running builds.
//!
//! An entry is a blob, an unpacked layer, a record, a layer's index, a cache mount ... [`survey()`] lists them with their
//! size and the time of their last use; [`prune()`] removes the least recently used first, until a [`Policy`] is met.
//! Never what a running build holds (the store's locks tell), and never what the image of a name needs, unless
//! [`Policy::all`] says so. A record goes with the blobs that it names.

mod ceiling;
mod choose;
mod entry;
mod needed;
mod remove;
mod survey;
mod trees;

pub use ceiling::{Ceiling, MIN_FREE_PERCENT};
pub use choose::Policy;
pub use entry::{Entry, Kind};
pub use remove::{Outcome, Removed, prune};
pub use survey::{Survey, survey};

use std::io;
use std::path::{Path, PathBuf};

use crate::blob::StoreError;

/// Why nothing, or not all, could be looked at or removed.
#[derive(Debug, thiserror::Error)]
pub enum PruneError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file system refused something.
    #[error("{during} {}", path.display())]
    Io {
        /// What was being done.
        during: &'static str,
        /// Which file or folder.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
}

impl PruneError {
    fn at(during: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { during, path, source }
    }
}
#[cfg(test)]
mod tests;
