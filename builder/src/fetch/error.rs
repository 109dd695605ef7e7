//! Why something was not fetched.

use std::io;

use crate::blob::StoreError;

/// Why something was not fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The stream broke.
    #[error("cannot read {what}")]
    Read {
        /// What it is.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
