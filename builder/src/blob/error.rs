//! What can be wrong with the store.

use std::io;
use std::path::{Path, PathBuf};

use oci_spec::image::Digest;

/// Why the store, or one entry of it, could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The disk or the user's quota is full.
    #[error("the disk is full while {during} {}; free space there, or choose another store with `--store`", path.display())]
    DiskFull {
        /// What was being done.
        during: &'static str,
        /// Which file or folder.
        path: PathBuf,
        /// The system's words.
        #[source]
        source: io::Error,
    },
    /// Any other failure of the file system.
    #[error("{during} {}", path.display())]
    Io {
        /// What was being done.
        during: &'static str,
        /// Which file or folder.
        path: PathBuf,
        /// The system's words.
        #[source]
        source: io::Error,
    },
    /// A later version of this program made the store.
    #[error(
        "the store {} has layout {found}, and this version knows layouts up to {supported}; \
         use the version that made it, or choose another store with `--store`",
        path.display()
    )]
    NewerLayout {
        /// The store.
        path: PathBuf,
        /// Its layout.
        found: u64,
        /// The newest layout that we know.
        supported: u64,
    },
    /// A file that describes the store does not hold what it should.
    #[error("{} is damaged: {reason}; remove the file, or choose another store with `--store`", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        reason: String,
    },
    /// The folder has content, and none of it says that it is a store.
    #[error("{} holds other files and is no store; choose an empty or new folder with `--store`", path.display())]
    NotAStore {
        /// The folder.
        path: PathBuf,
    },
    /// The folder belongs to another user.
    #[error(
        "the store {} belongs to user {owner}, and we run as user {user}; run as that user, or choose another store with `--store`",
        path.display()
    )]
    AnotherUsers {
        /// The store.
        path: PathBuf,
        /// Who owns it.
        owner: u32,
        /// Who we are.
        user: u32,
    },
    /// The folder is on a file system whose locks, renames or owners do not hold what the store needs.
    #[error(
        "the store {} is on {kind}, where locks and owners cannot be relied on; choose a folder on a local disk with `--store`",
        path.display()
    )]
    RemoteFileSystem {
        /// The store.
        path: PathBuf,
        /// Which kind.
        kind: &'static str,
    },
    /// The content is not what it was declared to be.
    #[error("expected content with digest {expected}, found {actual}")]
    DigestMismatch {
        /// What was declared.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// The digest is made in a way that we cannot check.
    #[error("cannot check the digest {digest}: expected a sha256 or sha512 digest")]
    UnknownAlgorithm {
        /// The digest.
        digest: Digest,
    },
    /// There is no such blob.
    #[error("the store has no blob {digest}")]
    Missing {
        /// Its digest.
        digest: Digest,
    },
    /// A blob was changed on disk after it was written. It has been removed, so that it is fetched or made again.
    #[error(
        "the blob {digest} was damaged on disk (its bytes hash to {actual}) and has been removed; run the command again"
    )]
    Corrupt {
        /// Its digest, by its name.
        digest: Digest,
        /// What its bytes hash to.
        actual: Digest,
    },
    /// A blob that is read into memory is larger than the caller expects.
    #[error("the blob {digest} has {size_bytes} bytes, and at most {limit_bytes} are expected here")]
    TooLarge {
        /// Its digest.
        digest: Digest,
        /// How large it is.
        size_bytes: u64,
        /// How large it may be.
        limit_bytes: u64,
    },
}

impl StoreError {
    /// Maps a failure of the file system, with its place; a full disk or quota becomes [`StoreError::DiskFull`].
    pub fn io(during: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { during, path, source },
            _ => Self::Io { during, path, source },
        }
    }

    pub(super) fn at(during: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::io(during, &path, source)
    }

    pub(super) fn errno(during: &'static str, path: &Path) -> impl FnOnce(rustix::io::Errno) -> Self {
        let path = path.to_owned();
        move |source| Self::io(during, &path, source.into())
    }
}
