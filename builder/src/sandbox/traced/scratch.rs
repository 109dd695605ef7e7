//! Folders for what a run shows in the root without being in it. They go with the run; those of a run that was killed go with
//! the next one.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::super::error::{During, Failure};

const NAME: &str = "fluyt-traced-";

/// A new folder that is the builder's alone. All that it starts holds it, so that it is free only when none of them is left.
#[derive(Debug)]
pub(super) struct Scratch {
    path: PathBuf,
    _lock: OwnedFd,
}

impl Scratch {
    pub(super) fn make(parent: &Path) -> Result<Self, Failure> {
        sweep(parent);
        loop {
            let what = || format!("making a folder in {}", parent.display());
            let mut random = [0; 8];
            getrandom::fill(&mut random).map_err(std::io::Error::other).during(what)?;
            let path = parent.join(format!("{NAME}{:016x}", u64::from_ne_bytes(random)));
            rustix::fs::mkdir(&path, Mode::RWXU).during(what)?;
            // Another run may have come first, and takes it for a dead one's.
            match lock(&path) {
                Ok(Some(lock)) if is_at(&lock, &path) => return Ok(Self { path, _lock: lock }),
                Ok(_) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno).during(|| format!("locking {}", path.display())),
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Its folders have modes that let us take them away.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// Removes what runs have left that were killed: there may be secrets in it.
fn sweep(parent: &Path) {
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(NAME))
            && let Ok(Some(_lock)) = lock(&entry.path())
        {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// The folder, if it is the builder's own and nobody holds it.
fn lock(path: &Path) -> Result<Option<OwnedFd>, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = rustix::fs::open(path, flags, Mode::empty())?;
    if rustix::fs::fstat(&folder)?.st_uid != geteuid().as_raw() {
        return Ok(None);
    }
    match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(folder)),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn is_at(folder: &OwnedFd, path: &Path) -> bool {
    let identity = |stat: rustix::fs::Stat| (stat.st_dev, stat.st_ino);
    let held = rustix::fs::fstat(folder).map(identity);
    held.is_ok() && held == rustix::fs::stat(path).map(identity)
}
