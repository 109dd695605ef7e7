//! What can go wrong with snapshots.

use std::io;
use std::path::{Path, PathBuf};

use oci_spec::image::Digest;

use crate::blob::StoreError;
use crate::layer::{ApplyError, ChangesError, LayerError};
use crate::sandbox::SandboxError;
use crate::stop::Stopped;

/// Why a root file system could not be made or kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The user stopped the build, while another had the root.
    #[error("interrupted")]
    Cancelled,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A layer could not be unpacked.
    #[error("unpacking layer {diff_id}")]
    Apply {
        /// The layer.
        diff_id: Digest,
        /// Why not.
        #[source]
        source: Box<ApplyError>,
    },
    /// The blob is another layer.
    #[error(
        "the layer's tar hashes to {actual}, and the image's configuration says {expected}; pull the image again, and if that does not help, it was built wrong"
    )]
    WrongDiffId {
        /// The diff id that was asked for.
        expected: Digest,
        /// That of the blob.
        actual: Digest,
    },
    /// A layer that must be unpacked is not.
    #[error("layer {diff_id} is not unpacked above the layers below it; run the build again to unpack it")]
    NotUnpacked {
        /// The layer.
        diff_id: Digest,
    },
    /// An unpacked layer was changed from outside while another build uses it.
    #[error(
        "the unpacked layer {} is damaged, and another build still uses it; run the build again when that one has ended",
        path.display()
    )]
    DamagedInUse {
        /// Its folder.
        path: PathBuf,
    },
    /// What a step changed could not be told.
    #[error(transparent)]
    Changes(#[from] ChangesError),
    /// A layer for the mutable root could not be written or read.
    #[error("keeping layer {diff_id} for the mutable root")]
    Layer {
        /// The layer.
        diff_id: Digest,
        /// Why not.
        #[source]
        source: Box<LayerError>,
    },
    /// A workspace was given to another snapshotter than the one that made it.
    #[error("the workspace was prepared by another snapshotter; expected one of {expected}")]
    AnothersWorkspace {
        /// Who was asked.
        expected: &'static str,
    },
    /// There is no place for what a command changes.
    #[error(
        "the store lies on an overlay, as in a container without a volume, and no memory could be had for a command's changes; put the store on a volume with `--store`"
    )]
    Memory {
        /// Why not.
        #[source]
        source: SandboxError,
    },
    /// The file system refused something.
    #[error("{during} {}", path.display())]
    Io {
        /// What was being done.
        during: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's words.
        #[source]
        source: io::Error,
    },
}

impl From<Stopped> for SnapshotError {
    fn from(_: Stopped) -> Self {
        Self::Cancelled
    }
}

impl SnapshotError {
    /// A full disk is told as everywhere else in the store.
    pub(super) fn at(during: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::Store(StoreError::io(during, &path, source))
            }
            _ => Self::Io { during, path, source },
        }
    }

    pub(super) fn errno(during: &'static str, path: &Path) -> impl FnOnce(rustix::io::Errno) -> Self {
        let at = Self::at(during, path);
        move |error| at(error.into())
    }
}
