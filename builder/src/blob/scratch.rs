//! `tmp/`: one folder a process, locked while it lives, so that anyone can tell a dead process's leftovers. They become the
//! trash of who finds them.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use super::StoreError;
use super::removal::{Removed, remove};
use super::trash::Trash;

/// How long a process takes at its end to remove what is left of its own: the next goes on with it.
const END_MAX: Duration = Duration::from_millis(300);

/// This process's folder below `tmp/`; removed when dropped.
#[derive(Debug)]
pub(super) struct Scratch {
    path: PathBuf,
    trash: Trash,
    end_max: Duration,
    /// Holds the lock. The kernel drops it with the process, however that ends.
    _lock: File,
}

impl Scratch {
    /// Makes a folder for this process, and takes what dead ones left below `tmp` for its trash.
    pub(super) fn open(tmp: &Path) -> Result<Self, StoreError> {
        fs::create_dir_all(tmp).map_err(StoreError::at("creating", tmp))?;
        let scratch = Self::create(tmp)?;
        take_leftovers(tmp, &scratch.trash)?;
        Ok(scratch)
    }

    fn create(tmp: &Path) -> Result<Self, StoreError> {
        loop {
            let path = tmp.join(format!("{}-{}", std::process::id(), unique()));
            fs::create_dir(&path).map_err(StoreError::at("creating", &path))?;
            // Another process may take the new folder for a leftover before we have locked it. Then it is gone, or it is
            // no longer what stands at the path, and we make another.
            match lock_folder(&path, FlockOperation::LockExclusive) {
                Ok(Some(lock)) => {
                    let trash = path.join("trash");
                    let trash = Trash::create(&trash).map_err(StoreError::at("creating", &trash))?;
                    return Ok(Self { path, trash, end_max: END_MAX, _lock: lock });
                }
                Ok(None) => {}
                Err(error) => return Err(StoreError::io("locking", &path, error)),
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn trash(&self) -> &Trash {
        &self.trash
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.trash.stop();
        let end = Instant::now() + self.end_max;
        match remove(&self.path, &|| Instant::now() >= end) {
            Ok(Removed::Whole) => {}
            Ok(Removed::Stopped(_)) => {
                tracing::debug!(path = %self.path.display(), "trash is left for the next process")
            }
            Err(error) => tracing::debug!(path = %self.path.display(), %error, "trash could not be removed"),
        }
    }
}

/// 64 random bits in hexadecimal.
pub(super) fn unique() -> String {
    let mut bytes = [0; 8];
    if getrandom::fill(&mut bytes).is_err() {
        // Only uniqueness matters here, and names are created exclusively: a clash is an error, never an overwrite.
        use std::sync::atomic::{AtomicU64, Ordering};
        static NEXT: AtomicU64 = AtomicU64::new(0);
        bytes = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    }
    hex::encode(bytes)
}

/// Takes the lock on a folder; `None` when the folder is gone or is no longer the one at `path`.
fn lock_folder(path: &Path, operation: FlockOperation) -> io::Result<Option<File>> {
    let folder = match File::open(path) {
        Ok(folder) => folder,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    flock(&folder, operation)?;
    let locked = folder.metadata()?;
    match fs::symlink_metadata(path) {
        Ok(there) if (there.dev(), there.ino()) == (locked.dev(), locked.ino()) => Ok(Some(folder)),
        Ok(_) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn take_leftovers(tmp: &Path, trash: &Trash) -> Result<(), StoreError> {
    for entry in fs::read_dir(tmp).map_err(StoreError::at("listing", tmp))? {
        let path = entry.map_err(StoreError::at("listing", tmp))?.path();
        if let Some(_lock) = lock_leftover(&path) {
            trash.take(&path);
        }
    }
    Ok(())
}

/// The lock on what a process has below `tmp/`, when that process is dead.
///
/// A lock that is held means a living owner. Whatever else goes wrong with a leftover is not worth failing a build for: it
/// stays for the next process.
pub fn lock_leftover(path: &Path) -> Option<File> {
    lock_folder(path, FlockOperation::NonBlockingLockExclusive).ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leftovers_of_the_dead_go_and_those_of_the_living_stay() {
        let folder = tempfile::tempdir().unwrap();
        let dead = folder.path().join("123-dead");
        fs::create_dir(&dead).unwrap();
        fs::write(dead.join("half"), "written").unwrap();
        fs::write(folder.path().join("stray"), "file").unwrap();
        let first = Scratch::open(folder.path()).unwrap();
        assert!(!dead.exists());
        assert!(!folder.path().join("stray").exists());
        fs::write(first.path().join("mine"), "x").unwrap();
        let second = Scratch::open(folder.path()).unwrap();
        assert!(first.path().join("mine").exists(), "a living process's folder stays");
        let gone = first.path().to_owned();
        drop(first);
        assert!(!gone.exists());
        assert!(second.path().exists());
    }

    #[test]
    fn what_one_process_has_no_time_for_the_next_removes() {
        let folder = tempfile::tempdir().unwrap();
        let dead = folder.path().join("123-dead");
        for number in 0..2000 {
            fs::create_dir_all(dead.join(format!("{number}/deep/below"))).unwrap();
        }
        for _ in 0..3 {
            let mut scratch = Scratch::open(folder.path()).unwrap();
            scratch.end_max = Duration::ZERO;
            assert!(!dead.exists());
        }
        assert!(fs::read_dir(folder.path()).unwrap().count() > 0, "no time was given to remove anything");
        let mut scratch = Scratch::open(folder.path()).unwrap();
        scratch.end_max = Duration::from_secs(60);
        drop(scratch);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn many_at_once_each_get_a_folder_that_stays() {
        let folder = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        let scratch = Scratch::open(folder.path()).unwrap();
                        fs::write(scratch.path().join("x"), "x").unwrap();
                    }
                });
            }
        });
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
