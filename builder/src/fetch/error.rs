//! Why something was not fetched.

use std::io;

use fluyt_client::FileError;

use super::GitError;
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
    /// The file did not come.
    #[error(transparent)]
    Http(Box<FileError>),
    /// A server that says that nothing has changed to someone who has nothing.
    #[error("{url}: the server says that the file is the same as before, and there is none from before")]
    Unasked {
        /// What was asked for.
        url: String,
    },
    /// An encoding that nobody asked for.
    #[error("{url}: the server sends the file as `{encoding}`, which was not asked for and cannot be undone")]
    Encoding {
        /// What was asked for.
        url: String,
        /// What it came in.
        encoding: String,
    },
    /// The file is another one.
    #[error("{url} is not what `--checksum` says: expected {expected}, found {found}")]
    Checksum {
        /// What was asked for.
        url: String,
        /// What it must be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// The repository did not come.
    #[error(transparent)]
    Git(#[from] GitError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl FetchError {
    /// Whether the user can mend it: something else must be asked for, or with other credentials.
    #[must_use]
    pub fn is_the_users(&self) -> bool {
        match self {
            Self::Http(error) => match &**error {
                FileError::Status { .. } => !error.is_unreachable(),
                FileError::Address { .. } | FileError::Answer { .. } => true,
                FileError::Way(_) | FileError::Sink { .. } => false,
            },
            Self::Git(error) => error.is_the_users(),
            Self::Checksum { .. } | Self::Encoding { .. } => true,
            Self::Read { .. } | Self::Unasked { .. } | Self::Store(_) => false,
        }
    }
}
