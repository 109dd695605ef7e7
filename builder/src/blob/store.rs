//! Content by digest, and small entries of other rooms.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use oci_spec::image::Digest;

use super::holds::Holds;
use super::scratch::{Scratch, unique};
use super::{BlobInfo, BlobWriter, Hasher, StoreError, Temporary, Trash, names, place};
use crate::stop::{Cancel, Stopped};

/// The builder's folder on disk. Clones share it; any number of processes may have it open.
///
/// Every blob that this store answered for (it is there, it was opened, it was written) is held until the last clone is
/// dropped: nobody prunes it meanwhile.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<Inner>,
    stop: Option<Cancel>,
}

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    scratch: Scratch,
    holds: Holds,
}

/// How long after its last use an entry is marked as used again: the order of removal needs no finer times.
const USE_GRAIN: Duration = Duration::from_secs(60);

impl Store {
    /// Opens the store at `root`, creates it when the folder is absent or empty, and begins to remove what dead processes left.
    ///
    /// # Errors
    /// Refuses a newer layout, another user's folder, a folder with other content and a network file system, each with
    /// its own variant.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        let root = std::path::absolute(root).map_err(StoreError::at("finding", root))?;
        place::prepare(&root)?;
        let blobs = root.join("blobs/sha256");
        fs::create_dir_all(&blobs).map_err(StoreError::at("creating", &blobs))?;
        let scratch = Scratch::open(&root.join("tmp"))?;
        let holds = Holds::open(&root)?;
        let store = Self { inner: Arc::new(Inner { root, scratch, holds }), stop: None };
        names::prepare(&store)?;
        Ok(store)
    }

    /// Whether the folder is there and belongs to another user, so that [`Store::open`] will refuse it.
    #[must_use]
    pub fn is_another_users(root: &Path) -> bool {
        place::owner(root).is_ok_and(|owner| owner != rustix::process::geteuid().as_raw())
    }

    /// The same store, but that its verified blobs cannot be read, and no blob be written, once this trips. Small entries of
    /// other rooms still can: what was done is noted also then.
    #[must_use]
    pub fn until(&self, cancel: &Cancel) -> Self {
        Self { stop: Some(cancel.clone()), ..self.clone() }
    }

    /// An error as soon as reading and writing are to break off.
    pub(super) fn go_on(&self) -> Result<(), Stopped> {
        self.stop.as_ref().map_or(Ok(()), Cancel::check)
    }

    /// The folder, absolute.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.inner.root
    }

    /// A fresh folder below `tmp/`, on the same file system as the store. It lives as long as the store is open, at most.
    pub fn temporary(&self) -> Result<PathBuf, StoreError> {
        let path = self.scratch_path();
        fs::create_dir(&path).map_err(StoreError::at("creating", &path))?;
        Ok(path)
    }

    /// The same as a value that takes the folder with it.
    pub fn temporary_folder(&self) -> Result<Temporary, StoreError> {
        Ok(Temporary::new(self.temporary()?, self.trash()))
    }

    /// Where what nobody needs goes.
    #[must_use]
    pub fn trash(&self) -> Trash {
        self.inner.scratch.trash().clone()
    }

    /// This process's own folder below `tmp/`.
    #[must_use]
    pub fn scratch(&self) -> &Path {
        self.inner.scratch.path()
    }

    fn scratch_path(&self) -> PathBuf {
        self.inner.scratch.path().join(unique())
    }

    /// A writer for a blob that will be named by SHA-256.
    pub fn writer(&self) -> Result<BlobWriter, StoreError> {
        BlobWriter::create(self.clone(), self.scratch_path(), Hasher::sha256())
    }

    /// A writer for a blob that is to have `digest`, with that digest's algorithm.
    ///
    /// # Errors
    /// [`StoreError::UnknownAlgorithm`] when it cannot be checked.
    pub fn writer_for(&self, digest: &Digest) -> Result<BlobWriter, StoreError> {
        let hasher = hasher_for(digest)?;
        BlobWriter::create(self.clone(), self.scratch_path(), hasher)
    }

    /// Where the blob is, or would be.
    #[must_use]
    pub fn path(&self, digest: &Digest) -> PathBuf {
        // The grammar of a digest leaves no room for `/` or `..`.
        self.root().join("blobs").join(digest.algorithm().as_ref()).join(digest.digest())
    }

    /// Whether the blob is there; then it is held.
    #[must_use]
    pub fn contains(&self, digest: &Digest) -> bool {
        matches!(self.size(digest), Ok(Some(_)))
    }

    /// The blob's size in bytes, and then it is held; `None` when it is not there.
    pub fn size(&self, digest: &Digest) -> Result<Option<u64>, StoreError> {
        let path = self.path(digest);
        self.inner.holds.hold(&blob_name(digest), |new| match fs::metadata(&path) {
            Ok(metadata) if !metadata.is_file() => Ok(None),
            Ok(metadata) => {
                if new {
                    mark_used(&path, metadata.accessed());
                }
                Ok(Some(metadata.len()))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::io("looking at", &path, error)),
        })
    }

    /// Holds an entry of another room, named by its path below the store: taken first, and then `look` tells whether
    /// it is there. What is not is not held.
    ///
    /// # Errors
    /// Those of `look`, and a file system that cannot lock.
    pub fn hold<T>(
        &self,
        entry: &str,
        look: impl FnOnce() -> Result<Option<T>, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        self.inner.holds.hold(entry, |_| look())
    }

    /// Holds an entry no more: what was found there has been damaged since.
    pub fn let_go(&self, entry: &str) {
        self.inner.holds.let_go(entry);
    }

    /// Does `remove` while nobody holds that entry, this process included; `None` when somebody does.
    ///
    /// # Errors
    /// When the file system cannot lock.
    pub fn alone<T>(&self, entry: &str, remove: impl FnOnce() -> T) -> Result<Option<T>, StoreError> {
        self.inner.holds.alone(entry, remove)
    }

    /// Opens the blob as it is on disk, unchecked. Use [`Store::open_verified`] where the bytes are used in one pass.
    pub fn open_blob(&self, digest: &Digest) -> Result<File, StoreError> {
        let path = self.path(digest);
        let missing = || StoreError::Missing { digest: digest.clone() };
        self.size(digest)?.ok_or_else(missing)?;
        File::open(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => missing(),
            _ => StoreError::io("opening", &path, error),
        })
    }

    /// Opens the blob as a stream that fails at its end, and removes the blob, when the bytes were not its digest's.
    pub fn open_verified(&self, digest: &Digest) -> Result<VerifiedBlob, StoreError> {
        let hasher = hasher_for(digest)?;
        let file = self.open_blob(digest)?;
        Ok(VerifiedBlob { store: self.clone(), digest: digest.clone(), file, hasher: Some(hasher) })
    }

    /// Reads a blob that something was wrong with once more: when it was damaged on disk, that is the reason, and it is removed.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] then; also when it cannot be read.
    pub fn check(&self, digest: &Digest) -> Result<(), StoreError> {
        let read = io::copy(&mut self.open_verified(digest)?, &mut io::sink());
        read.map(drop).map_err(|error| match error.downcast::<StoreError>() {
            Ok(error) => error,
            Err(error) => StoreError::io("reading", &self.path(digest), error),
        })
    }

    /// Reads a small blob whole, and checks it.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`] above `limit_bytes`; [`StoreError::Corrupt`] when the bytes are not the digest's (the
    /// blob is gone then).
    pub fn read(&self, digest: &Digest, limit_bytes: u64) -> Result<Vec<u8>, StoreError> {
        let mut hasher = hasher_for(digest)?;
        let file = self.open_blob(digest)?;
        let path = self.path(digest);
        let size_bytes = file.metadata().map_err(StoreError::at("looking at", &path))?.len();
        if size_bytes > limit_bytes {
            return Err(StoreError::TooLarge { digest: digest.clone(), size_bytes, limit_bytes });
        }
        let mut bytes = Vec::new();
        file.take(limit_bytes).read_to_end(&mut bytes).map_err(StoreError::at("reading", &path))?;
        hasher.update(&bytes);
        let actual = hasher.finish();
        if actual != *digest {
            return Err(self.discard_corrupt(digest, actual));
        }
        Ok(bytes)
    }

    fn discard_corrupt(&self, digest: &Digest, actual: Digest) -> StoreError {
        let path = self.path(digest);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                StoreError::io("removing a damaged blob", &path, error)
            }
            _ => StoreError::Corrupt { digest: digest.clone(), actual },
        }
    }

    /// Stores `bytes` as a blob.
    pub fn put(&self, bytes: &[u8]) -> Result<BlobInfo, StoreError> {
        let info = BlobInfo { digest: super::sha256(bytes), size_bytes: bytes.len() as u64 };
        if self.size(&info.digest)? == Some(info.size_bytes) {
            return Ok(info);
        }
        let mut writer = self.writer()?;
        writer.write_all(bytes).map_err(|error| writer.failure(error))?;
        writer.commit(Some(&info.digest))
    }

    /// Writes a small file of another room at `relative` below the store: whole or not at all, synced before it is
    /// visible, replacing what was there.
    ///
    /// `relative` must be plain names joined by `/`.
    pub fn write_entry(&self, relative: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        debug_assert!(relative.components().all(|part| matches!(part, std::path::Component::Normal(_))));
        let target = self.root().join(relative);
        let temporary = self.scratch_path();
        let write = || -> io::Result<()> {
            let mut file = File::create_new(&temporary)?;
            file.write_all(bytes)?;
            file.sync_all()
        };
        let written =
            write().map_err(StoreError::at("writing", &target)).and_then(|()| self.reveal(&temporary, &target));
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written
    }

    /// Reads what [`Store::write_entry`] wrote; `None` when it is not there.
    pub fn read_entry(&self, relative: &Path) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.root().join(relative);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::io("reading", &path, error)),
        }
    }

    /// As [`Store::write_entry`], without a sync: for what is worth nothing but time when a machine that lost its power
    /// has it not, or has it empty.
    pub fn write_hint(&self, relative: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        debug_assert!(relative.components().all(|part| matches!(part, std::path::Component::Normal(_))));
        let target = self.root().join(relative);
        let temporary = self.scratch_path();
        let written = fs::write(&temporary, bytes)
            .map_err(StoreError::at("writing", &target))
            .and_then(|()| self.move_to(&temporary, &target));
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written
    }

    /// Keeps an entry of another room from being the next to be pruned.
    pub fn entry_used(&self, relative: &Path) {
        let path = self.root().join(relative);
        let now = SystemTime::now();
        let last = fs::metadata(&path).and_then(|metadata| metadata.modified());
        if last.is_ok_and(|last| now.duration_since(last).is_ok_and(|ago| ago >= USE_GRAIN)) {
            let _ = File::open(&path).and_then(|file| file.set_times(fs::FileTimes::new().set_modified(now)));
        }
    }

    /// Renames a synced file to its blob's place, and holds it. That it stands there is not synced: what names a blob looks
    /// whether it does, but for `index.json`, which is written after [`Store::settle`].
    pub(super) fn reveal_blob(&self, temporary: &Path, digest: &Digest) -> Result<(), StoreError> {
        let revealed =
            self.inner.holds.hold(&blob_name(digest), |_| self.move_to(temporary, &self.path(digest)).map(Some))?;
        debug_assert!(revealed.is_some());
        Ok(())
    }

    /// Sees to it that every blob that is there, whoever wrote it, still is after the machine has lost its power.
    pub fn settle(&self) -> Result<(), StoreError> {
        let blobs = self.root().join("blobs");
        for folder in fs::read_dir(&blobs).map_err(StoreError::at("listing", &blobs))? {
            sync_folder(&folder.map_err(StoreError::at("listing", &blobs))?.path())?;
        }
        sync_folder(&blobs)
    }

    /// Renames a synced file into place and syncs the folder, so that what is written later cannot outlive it.
    pub(super) fn reveal(&self, temporary: &Path, target: &Path) -> Result<(), StoreError> {
        self.move_to(temporary, target)?;
        sync_folder(target.parent().unwrap_or(self.root()))
    }

    fn move_to(&self, temporary: &Path, target: &Path) -> Result<(), StoreError> {
        let parent = target.parent().unwrap_or(self.root());
        let rename = || fs::rename(temporary, target);
        match rename() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(parent).map_err(StoreError::at("creating", parent))?;
                rename()
            }
            other => other,
        }
        .map_err(StoreError::at("renaming a finished file to", target))
    }
}

fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(StoreError::at("syncing", folder))
}

/// The name under which a blob is held: its path below the store.
fn blob_name(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().as_ref(), digest.digest())
}

/// Sets the time of a blob's last use, which is its access time (what changed it stays as it is, for backups). A
/// file system that refuses only loses the order in which blobs are pruned.
fn mark_used(path: &Path, last: io::Result<SystemTime>) {
    let now = SystemTime::now();
    let lately = last.is_ok_and(|last| now.duration_since(last).is_ok_and(|ago| ago < USE_GRAIN));
    if !lately {
        let times = fs::FileTimes::new().set_accessed(now);
        let _ = File::open(path).and_then(|file| file.set_times(times));
    }
}

fn hasher_for(digest: &Digest) -> Result<Hasher, StoreError> {
    Hasher::for_digest(digest).ok_or_else(|| StoreError::UnknownAlgorithm { digest: digest.clone() })
}

/// A blob that is checked while it is read; see [`Store::open_verified`].
#[derive(Debug)]
pub struct VerifiedBlob {
    store: Store,
    digest: Digest,
    file: File,
    /// `None` once the end was reached and checked.
    hasher: Option<Hasher>,
}

impl Read for VerifiedBlob {
    /// At the end, an error of kind [`io::ErrorKind::InvalidData`] that holds a [`StoreError::Corrupt`] when the bytes
    /// were not the digest's.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        self.store.go_on()?;
        let count = self.file.read(buffer)?;
        if count > 0 {
            if let Some(hasher) = &mut self.hasher {
                hasher.update(&buffer[..count]);
            }
            return Ok(count);
        }
        if let Some(hasher) = self.hasher.take() {
            let actual = hasher.finish();
            if actual != self.digest {
                let error = self.store.discard_corrupt(&self.digest, actual);
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        (folder, store)
    }

    fn entries(folder: &Path) -> usize {
        fs::read_dir(folder).unwrap().count()
    }

    #[test]
    fn a_blob_is_found_by_its_digest() {
        let (_folder, store) = open();
        let info = store.put(b"hello").unwrap();
        assert_eq!(info.digest.as_ref(), "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824");
        assert_eq!(info.size_bytes, 5);
        assert!(store.contains(&info.digest));
        assert_eq!(store.size(&info.digest).unwrap(), Some(5));
        assert_eq!(store.read(&info.digest, 5).unwrap(), b"hello");
        assert_eq!(fs::read(store.root().join("blobs/sha256").join(info.digest.digest())).unwrap(), b"hello");
    }

    #[test]
    fn nothing_is_visible_before_the_commit_or_after_a_drop() {
        let (_folder, store) = open();
        let mut writer = store.writer().unwrap();
        writer.write_all(b"half").unwrap();
        assert_eq!(entries(&store.root().join("blobs/sha256")), 0);
        let temporary = writer.path().to_owned();
        drop(writer);
        assert!(!temporary.exists());
        assert_eq!(entries(&store.root().join("blobs/sha256")), 0);
    }

    #[test]
    fn other_content_than_declared_is_refused() {
        let (_folder, store) = open();
        let declared = crate::blob::sha256(b"other");
        let mut writer = store.writer().unwrap();
        writer.write_all(b"hello").unwrap();
        let error = writer.commit(Some(&declared)).unwrap_err();
        assert!(matches!(error, StoreError::DigestMismatch { .. }), "{error}");
        assert!(!store.contains(&declared));
        assert_eq!(entries(&store.root().join("blobs/sha256")), 0);
    }

    #[test]
    fn sha512_names_work_and_unknown_algorithms_are_refused() {
        let (_folder, store) = open();
        let mut hasher = Hasher::for_digest(&format!("sha512:{}", "0".repeat(128)).parse().unwrap()).unwrap();
        hasher.update(b"hello");
        let digest = hasher.finish();
        let mut writer = store.writer_for(&digest).unwrap();
        writer.write_all(b"hello").unwrap();
        writer.commit(Some(&digest)).unwrap();
        assert_eq!(store.read(&digest, 10).unwrap(), b"hello");
        let unknown = "md5:abc".parse().unwrap();
        assert!(matches!(store.writer_for(&unknown), Err(StoreError::UnknownAlgorithm { .. })));
        assert!(matches!(store.read(&unknown, 1), Err(StoreError::UnknownAlgorithm { .. })));
    }

    #[test]
    fn a_damaged_blob_is_reported_and_removed_and_can_be_put_again() {
        let (_folder, store) = open();
        for damage in [&b"hallo"[..], b"hel"] {
            let digest = store.put(b"hello").unwrap().digest;
            fs::write(store.path(&digest), damage).unwrap();
            let error = store.read(&digest, 100).unwrap_err();
            assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
            assert!(!store.contains(&digest));

            store.put(b"hello").unwrap();
            fs::write(store.path(&digest), damage).unwrap();
            let mut bytes = Vec::new();
            let error = store.open_verified(&digest).unwrap().read_to_end(&mut bytes).unwrap_err();
            assert!(error.to_string().contains("was damaged on disk"), "{error}");
            assert!(!store.contains(&digest));
        }
    }

    #[test]
    fn a_truncated_blob_is_replaced_by_a_writer() {
        let (_folder, store) = open();
        let digest = store.put(b"hello").unwrap().digest;
        fs::write(store.path(&digest), b"hel").unwrap();
        store.put(b"hello").unwrap();
        assert_eq!(store.read(&digest, 5).unwrap(), b"hello");
    }

    #[test]
    fn a_missing_blob_and_a_large_one_are_told_apart() {
        let (_folder, store) = open();
        let digest = crate::blob::sha256(b"nothing");
        assert!(matches!(store.open_blob(&digest), Err(StoreError::Missing { .. })));
        assert_eq!(store.size(&digest).unwrap(), None);
        let digest = store.put(b"hello").unwrap().digest;
        let error = store.read(&digest, 4).unwrap_err();
        assert!(error.to_string().contains("has 5 bytes, and at most 4 are expected here"), "{error}");
    }

    #[test]
    fn writers_of_one_digest_at_once_are_fine() {
        let (_folder, store) = open();
        let content = vec![7; 100_000];
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let mut writer = store.writer().unwrap();
                    writer.write_all(&content).unwrap();
                    writer.commit(None).unwrap();
                });
            }
        });
        assert_eq!(entries(&store.root().join("blobs/sha256")), 1);
        assert_eq!(store.read(&crate::blob::sha256(&content), 100_000).unwrap(), content);
    }

    #[test]
    fn entries_of_other_rooms_are_replaced_whole() {
        let (_folder, store) = open();
        let path = Path::new("records/ab/cd.json");
        assert_eq!(store.read_entry(path).unwrap(), None);
        store.write_entry(path, b"one").unwrap();
        store.write_entry(path, b"two").unwrap();
        assert_eq!(store.read_entry(path).unwrap().unwrap(), b"two");
        assert_eq!(entries(&store.root().join("records/ab")), 1);
    }

    #[test]
    fn temporary_folders_go_with_the_store() {
        let (folder, store) = open();
        let temporary = store.temporary().unwrap();
        fs::write(temporary.join("x"), "x").unwrap();
        assert_ne!(temporary, store.temporary().unwrap());
        drop(store);
        assert_eq!(entries(&folder.path().join("store/tmp")), 0);
    }

    /// Needs root, for the mount; where that is missing it says so.
    #[test]
    fn a_full_disk_is_its_own_error_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let flags = rustix::mount::MountFlags::empty();
        if let Err(error) = rustix::mount::mount(c"tmpfs", root, c"tmpfs", flags, c"size=256k") {
            println!("skipped: a small file system cannot be mounted here ({error})");
            return;
        }
        let outcome = std::panic::catch_unwind(|| {
            let store = Store::open(root).unwrap();
            let error = store.put(&vec![1; 1024 * 1024]).unwrap_err();
            assert!(matches!(error, StoreError::DiskFull { .. }), "{error:?}");
            assert!(error.to_string().contains("the disk is full while writing a blob into"), "{error}");
            let error = store.write_entry(Path::new("records/x"), &vec![1; 1024 * 1024]).unwrap_err();
            assert!(matches!(error, StoreError::DiskFull { .. }), "{error:?}");
            assert_eq!(entries(&root.join("blobs/sha256")), 0);
            assert!(!root.join("records/x").exists());
            store.put(b"there is room again").unwrap();
        });
        rustix::mount::unmount(root, rustix::mount::UnmountFlags::DETACH).unwrap();
        outcome.unwrap();
    }
}
