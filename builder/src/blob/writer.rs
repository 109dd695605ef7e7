//! A blob on its way into the store.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use oci_spec::image::Digest;

use super::{Hasher, Store, StoreError};

/// What a blob turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobInfo {
    /// The digest of its bytes.
    pub digest: Digest,
    /// How many bytes it has.
    pub size_bytes: u64,
}

/// Takes the bytes of one blob and hashes them on the way. Dropping it without [`BlobWriter::commit`] leaves nothing.
#[derive(Debug)]
pub struct BlobWriter {
    store: Store,
    file: File,
    path: Unfinished,
    hasher: Hasher,
    size_bytes: u64,
}

/// A path that is removed when dropped.
#[derive(Debug)]
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        // After a commit there is nothing at the path, and a leftover is removed with the process's folder.
        let _ = fs::remove_file(&self.0);
    }
}

impl BlobWriter {
    pub(super) fn create(store: Store, path: PathBuf, hasher: Hasher) -> Result<Self, StoreError> {
        let file = File::create_new(&path).map_err(StoreError::at("creating", &path))?;
        Ok(Self { store, file, path: Unfinished(path), hasher, size_bytes: 0 })
    }

    /// The temporary file, for the message of a failed write.
    pub fn path(&self) -> &Path {
        &self.path.0
    }

    /// Bytes taken so far.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Names the place in a failure that [`Write`] gave for this blob.
    pub fn failure(&self, source: io::Error) -> StoreError {
        StoreError::io("writing a blob into", self.store.root(), source)
    }

    /// Syncs the bytes and makes them visible under their digest.
    ///
    /// # Errors
    /// [`StoreError::DigestMismatch`] when they are not `expected`; nothing becomes visible then.
    pub fn commit(self, expected: Option<&Digest>) -> Result<BlobInfo, StoreError> {
        let digest = self.hasher.finish();
        if let Some(expected) = expected
            && *expected != digest
        {
            return Err(StoreError::DigestMismatch { expected: expected.clone(), actual: digest });
        }
        let info = BlobInfo { digest, size_bytes: self.size_bytes };
        // A blob that is there was synced before it became visible. One of another size was damaged, and is replaced.
        if self.store.size(&info.digest)? == Some(info.size_bytes) {
            return Ok(info);
        }
        self.file.sync_all().map_err(StoreError::at("syncing", &self.path.0))?;
        self.store.reveal_blob(&self.path.0, &info.digest)?;
        Ok(info)
    }
}

impl Write for BlobWriter {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.store.go_on()?;
        let count = self.file.write(buffer)?;
        self.hasher.update(&buffer[..count]);
        self.size_bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
