//! What can go wrong with a cache mount.

use std::io;
use std::path::{Path, PathBuf};

use crate::blob::StoreError;

/// Why a cache mount could not be had or kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheMountError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file system refused something.
    #[error("{during} {} of a cache mount", path.display())]
    Io {
        /// What was being done.
        during: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's words.
        #[source]
        source: io::Error,
    },
}

impl CacheMountError {
    pub(super) fn at(during: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { during, path, source }
    }
}
