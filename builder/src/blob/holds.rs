//! What this process holds, so that nobody removes it meanwhile.
//!
//! Every entry of the store (`blobs/sha256/<hex>`, `layers/<hex>` ...) has an advisory lock: the byte of the file `locks`
//! that the hash of its name points to. One descriptor holds any number of them, they belong to the open file, and the
//! kernel drops them with the process, however that ends. Who uses an entry takes its lock shared *and then* looks whether
//! the entry is there; who removes one takes it alone. Two names with the same byte only wait for each other.
//!
//! Where the kernel has no such locks (some sandboxes), the whole file is locked instead: nothing is removed while
//! anybody holds anything.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use super::StoreError;
use super::range_lock::{Range, set};

/// The locks of one open store.
#[derive(Debug)]
pub(super) struct Holds {
    path: PathBuf,
    file: File,
    /// Names that are held until the store is closed, with their bytes.
    held: Mutex<HashMap<String, i64>>,
}

impl Holds {
    pub(super) fn open(root: &Path) -> Result<Self, StoreError> {
        let path = root.join("locks");
        let options = File::options().create(true).truncate(false).read(true).write(true).open(&path);
        let file = options.map_err(StoreError::at("opening", &path))?;
        Ok(Self { path, file, held: Mutex::default() })
    }

    fn names(&self) -> MutexGuard<'_, HashMap<String, i64>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Holds the entry from before `look` finds it until the store is closed. What `look` does not find is not held.
    ///
    /// `look` is told whether the entry is new to this process.
    pub(super) fn hold<T>(
        &self,
        name: &str,
        look: impl FnOnce(bool) -> Result<Option<T>, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        let mut names = self.names();
        if names.contains_key(name) {
            return look(false);
        }
        self.lock(name, Range::Shared)?;
        let found = look(true);
        match found {
            Ok(Some(_)) => {
                names.insert(name.to_owned(), byte_of(name));
            }
            _ => self.unlock(name, &names),
        }
        found
    }

    /// Holds an entry no more: what was found there is no longer what it was.
    pub(super) fn let_go(&self, name: &str) {
        let mut names = self.names();
        if names.remove(name).is_some() {
            self.unlock(name, &names);
        }
    }

    /// Does `remove` while nobody else holds the entry; `None` when somebody does, this process included.
    pub(super) fn alone<T>(&self, name: &str, remove: impl FnOnce() -> T) -> Result<Option<T>, StoreError> {
        let (names, byte) = (self.names(), byte_of(name));
        if names.values().any(|held| *held == byte) {
            return Ok(None);
        }
        if !self.try_alone(name, &names)? {
            return Ok(None);
        }
        let done = remove();
        self.unlock(name, &names);
        Ok(Some(done))
    }

    fn lock(&self, name: &str, range: Range) -> Result<(), StoreError> {
        loop {
            match set(&self.file, range, byte_of(name), true) {
                Ok(()) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(Errno::INVAL) => return self.lock_whole(FlockOperation::LockShared).map(|_| ()),
                Err(error) => return Err(StoreError::io("locking", &self.path, error.into())),
            }
        }
    }

    fn try_alone(&self, name: &str, names: &HashMap<String, i64>) -> Result<bool, StoreError> {
        match set(&self.file, Range::Alone, byte_of(name), false) {
            Ok(()) => Ok(true),
            Err(Errno::AGAIN | Errno::ACCESS) => Ok(false),
            Err(Errno::INVAL) if !names.is_empty() => Ok(false),
            Err(Errno::INVAL) => self.lock_whole(FlockOperation::NonBlockingLockExclusive),
            Err(error) => Err(StoreError::io("locking", &self.path, error.into())),
        }
    }

    fn lock_whole(&self, operation: FlockOperation) -> Result<bool, StoreError> {
        loop {
            match rustix::fs::flock(&self.file, operation) {
                Ok(()) => return Ok(true),
                Err(Errno::INTR) => {}
                Err(Errno::WOULDBLOCK) => return Ok(false),
                Err(error) => return Err(StoreError::io("locking", &self.path, error.into())),
            }
        }
    }

    fn unlock(&self, name: &str, names: &HashMap<String, i64>) {
        let byte = byte_of(name);
        // The byte may stand for another name that is held.
        if names.values().any(|held| *held == byte) {
            return;
        }
        if set(&self.file, Range::Free, byte, false) == Err(Errno::INVAL) && names.is_empty() {
            let _ = rustix::fs::flock(&self.file, FlockOperation::Unlock);
        }
    }
}

/// The byte of `locks` that stands for a name: 62 bits of its hash, as offsets are signed.
fn byte_of(name: &str) -> i64 {
    let hash = Sha256::digest(name);
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&hash[..8]);
    i64::from_be_bytes(bytes) & (i64::MAX >> 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_holds_the_other_cannot_have_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (Holds::open(folder.path()).unwrap(), Holds::open(folder.path()).unwrap());
        let hold = |holds: &Holds, name| holds.hold(name, |_| Ok(Some(()))).unwrap();
        assert_eq!(two.alone("a", || 1).unwrap(), Some(1));
        hold(&one, "a");
        hold(&two, "a");
        hold(&one, "b");
        for (holds, name) in [(&one, "a"), (&two, "a"), (&one, "b"), (&two, "b")] {
            assert_eq!(holds.alone(name, || ()).unwrap(), None, "{name}");
        }
        drop(one);
        assert_eq!(two.alone("b", || ()).unwrap(), Some(()));
        assert_eq!(two.alone("a", || ()).unwrap(), None);
        let three = Holds::open(folder.path()).unwrap();
        drop(two);
        assert_eq!(three.alone("a", || ()).unwrap(), Some(()));
    }

    #[test]
    fn what_is_not_found_is_not_held() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (Holds::open(folder.path()).unwrap(), Holds::open(folder.path()).unwrap());
        assert_eq!(one.hold::<()>("a", |_| Ok(None)).unwrap(), None);
        assert!(one.hold::<()>("a", |_| Err(StoreError::Missing { digest: crate::blob::sha256(b"") })).is_err());
        assert_eq!(two.alone("a", || ()).unwrap(), Some(()));
    }
}
