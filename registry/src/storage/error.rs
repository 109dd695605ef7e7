//! One error for everything the store refuses: what was being done, and the store's own words.

use std::error::Error;
use std::io::ErrorKind;
use std::sync::Arc;

use object_store::client::{HttpError, HttpErrorKind};

use super::cloud::{Trouble, cause, chain, is_refusal};

/// The store's name in an error that tells of an object of ours.
const DAMAGED: &str = "fluyt";

/// A request to the store failed. Clones tell of the same failure.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{during} failed: {}", chain(&**.source))]
pub struct StorageError {
    during: &'static str,
    source: Arc<object_store::Error>,
}

/// What somebody can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StorageErrorKind {
    /// No space, no inode or no quota left.
    Full,
    /// The store does not let us.
    Denied,
    /// The store does not answer, or says that it cannot now. It was asked several times.
    Busy,
    /// Anything else.
    Other,
}

impl StorageError {
    pub(crate) fn new(during: &'static str, source: object_store::Error) -> Self {
        Self { during, source: Arc::new(source) }
    }

    pub(crate) fn damaged(during: &'static str, what: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(during, object_store::Error::Generic { store: DAMAGED, source: what.into() })
    }

    /// Whether an object of ours is not what it should be, rather than that the store failed.
    pub fn is_damage(&self) -> bool {
        matches!(*self.source, object_store::Error::Generic { store: DAMAGED, .. })
    }

    /// Nothing is pushed any more, so that what frees space can still be done.
    pub(crate) fn full(during: &'static str, what: String) -> Self {
        Self::damaged(during, std::io::Error::new(ErrorKind::StorageFull, what))
    }

    /// Whether what was asked for is not there.
    pub fn is_absent(&self) -> bool {
        matches!(*self.source, object_store::Error::NotFound { .. })
    }

    /// What somebody can do about it.
    pub fn kind(&self) -> StorageErrorKind {
        if matches!(
            *self.source,
            object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. }
        ) || is_refusal(&*self.source)
        {
            return StorageErrorKind::Denied;
        }
        // All of what a store says of itself with a type of its own, a redirect excepted.
        let trouble = cause::<Trouble>(&*self.source);
        let unreachable = cause::<HttpError>(&*self.source).is_some_and(|error| {
            use HttpErrorKind::{Connect, Interrupted, Request, Timeout};
            matches!(error.kind(), Connect | Request | Timeout | Interrupted)
        });
        if trouble.map_or(unreachable, |trouble| !matches!(trouble, Trouble::Moved { .. })) {
            return StorageErrorKind::Busy;
        }
        let mut cause: Option<&(dyn Error + 'static)> = Some(&*self.source);
        while let Some(error) = cause {
            match error.downcast_ref::<std::io::Error>().map(std::io::Error::kind) {
                Some(ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => return StorageErrorKind::Full,
                Some(ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem) => return StorageErrorKind::Denied,
                _ => cause = error.source(),
            }
        }
        StorageErrorKind::Other
    }
}
