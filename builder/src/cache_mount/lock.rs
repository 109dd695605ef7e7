//! Advisory locks on files that may be removed at any moment.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::CacheMountError;

/// A lock that is held until this is dropped.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// With others; `None` when somebody has it alone, or it is being removed.
    pub(super) fn try_shared(path: &Path) -> Result<Option<Self>, CacheMountError> {
        Self::attempt(path, FlockOperation::NonBlockingLockShared)
    }

    /// Alone; `None` when somebody has it, or it is being removed.
    pub(super) fn try_alone(path: &Path) -> Result<Option<Self>, CacheMountError> {
        Self::attempt(path, FlockOperation::NonBlockingLockExclusive)
    }

    /// Alone, for moments; the file is made when it is missing.
    pub(super) fn alone(path: &Path) -> Result<Self, CacheMountError> {
        let failed = |error: io::Error| CacheMountError::at("locking", path)(error);
        let file = File::options().create(true).append(true).open(path).map_err(failed)?;
        loop {
            match rustix::fs::flock(&file, FlockOperation::LockExclusive) {
                Ok(()) => return Ok(Self { _file: file }),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(failed(errno.into())),
            }
        }
    }

    fn attempt(path: &Path, how: FlockOperation) -> Result<Option<Self>, CacheMountError> {
        let failed = |error: io::Error| CacheMountError::at("locking", path)(error);
        loop {
            // Where the whole mount is gone, there is no folder to make it in.
            let file = match File::options().create(true).append(true).open(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                opened => opened.map_err(failed)?,
            };
            match rustix::fs::flock(&file, how) {
                Ok(()) => {}
                Err(Errno::INTR) => continue,
                Err(Errno::WOULDBLOCK) => return Ok(None),
                Err(errno) => return Err(failed(errno.into())),
            }
            // It may have been removed, and made again, between the two.
            let id = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
            let held = file.metadata().map(id).ok();
            if held.is_some() && held == fs::symlink_metadata(path).map(id).ok() {
                return Ok(Some(Self { _file: file }));
            }
        }
    }
}
