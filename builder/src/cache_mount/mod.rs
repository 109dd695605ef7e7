//! Cache mounts: folders that outlive a build, who may use one at the same time, and what its last runs saw.
//!
//! ```text
//! <store>/cache-mounts/<hash>/about.json    which mount this is, in words
//!                            /1/data/       its content; with `sharing=private` there may be a 2, 3 ...
//!                              /lock        held while a RUN uses it: shared, or alone
//!                              /memory      what the RUNs that could write to it saw; see `memory`
//!                              /memory.lock held for moments
//!                              /cover-*     files with the times that they were last shown with; see `execute`
//! ```
//!
//! The locks are advisory ones of the kernel's, so they are gone with the process that had them, however it ended. A build
//! holds the whole mount in its store until it ends, so that what its steps share stays. Who removes a mount takes `lock`
//! alone first; who takes it looks again whether what it has is still there.

mod error;
mod held;
mod lock;
mod memory;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

pub use error::CacheMountError;
pub use held::{HeldMount, Turn, is_of_system};
pub use memory::{Fingerprint, LastUse, Memory, Moment, Seen};

use self::lock::Lock;
use crate::blob::Store;
use crate::owners::{self, Owner};

/// Hex digits of a mount's name: 128 bits.
const NAME_HEX: usize = 32;

/// How many private copies of one mount there may be.
const COPIES_MAX: usize = 1000;

/// The cache mounts of a store.
#[derive(Clone, Debug)]
pub struct CacheMounts {
    store: Store,
}

/// Which mount is wanted. Another initial content, owner or mode is another mount, as with `BuildKit`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Wanted {
    /// Its id.
    pub id: String,
    /// What it starts with, as a hash; none is an empty folder.
    pub initial: Option<String>,
    /// Permission bits of a fresh one.
    pub mode: u32,
    /// Owner of a fresh one.
    pub uid: u32,
    /// Group of a fresh one.
    pub gid: u32,
}

impl Wanted {
    /// The name of its folder: ids are users' texts and may hold anything.
    #[must_use]
    pub fn name(&self) -> String {
        let about = serde_json::to_vec(self).unwrap_or_default();
        hex::encode(Sha256::digest(about))[..NAME_HEX].to_owned()
    }
}

/// Who may use a mount at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// Everyone.
    Shared,
    /// Everyone, each with a copy of its own.
    Private,
    /// One after the other.
    Locked,
}

impl CacheMounts {
    /// The mounts of that store.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// Whether a command that could write has used a mount of that id, whatever it started with. What cannot be read counts
    /// as used.
    #[must_use]
    pub fn is_used(&self, id: &str) -> bool {
        self.all().any(|(mount, about)| {
            let copies = fs::read_dir(&mount).into_iter().flatten().flatten();
            about.is_none_or(|about| about.id == id)
                && copies.map(|copy| copy.path()).any(|copy| copy.join("memory").exists())
        })
    }

    /// Sees that nobody removes what there is of the mounts of these ids, until the store is closed.
    ///
    /// # Errors
    /// When the file system cannot lock.
    pub fn hold(&self, ids: &BTreeSet<&str>) -> Result<(), CacheMountError> {
        if ids.is_empty() {
            return Ok(());
        }
        for (_, about) in self.all() {
            if let Some(wanted) = about.filter(|about| ids.contains(&*about.id)) {
                self.hold_one(&wanted)?;
            }
        }
        Ok(())
    }

    fn hold_one(&self, wanted: &Wanted) -> Result<(), CacheMountError> {
        let held = self.store.hold(&format!("cache-mounts/{}", wanted.name()), || Ok(Some(())));
        held.map(drop).map_err(CacheMountError::Store)
    }

    /// The folders of all mounts, each with what it is as far as that can be read.
    fn all(&self) -> impl Iterator<Item = (PathBuf, Option<Wanted>)> + use<> {
        let mounts = fs::read_dir(self.store.root().join("cache-mounts")).into_iter().flatten().flatten();
        mounts.map(|mount| {
            let about = fs::read(mount.path().join("about.json")).ok();
            (mount.path(), about.and_then(|json| serde_json::from_slice(&json).ok()))
        })
    }

    /// Takes a mount, and makes it when it is not there: `fill` puts its initial content into an empty folder. Where
    /// others have it, `wait` is asked again and again; when it says no, the answer is `None`.
    ///
    /// # Errors
    /// When the file system refuses something, or `fill` fails.
    pub fn take<E: From<CacheMountError>>(
        &self,
        wanted: &Wanted,
        share: Share,
        fill: &mut dyn FnMut(&Path) -> Result<(), E>,
        wait: &mut dyn FnMut() -> bool,
    ) -> Result<Option<HeldMount>, E> {
        let folder = self.store.root().join("cache-mounts").join(wanted.name());
        // Before there is any copy: who removes the mount holds it alone then, and sees all copies that there are.
        self.hold_one(wanted)?;
        let mut number = 1;
        loop {
            let place = folder.join(number.to_string());
            if !place.is_dir() {
                self.make(&folder, &place, wanted, fill)?;
            }
            let taken = match share {
                Share::Shared => Lock::try_shared(&place.join("lock")),
                Share::Private | Share::Locked => Lock::try_alone(&place.join("lock")),
            }?;
            match taken {
                // A build was killed while a command had the content in its root, where nothing can be mounted.
                Some(lock) if !place.join("data").is_dir() => {
                    drop(lock);
                    match Lock::try_alone(&place.join("lock"))? {
                        Some(_alone) => self.store.trash().take(&place),
                        // A command has it there now.
                        None if !wait() => return Ok(None),
                        None => {}
                    }
                }
                Some(lock) => return Ok(Some(HeldMount::new(place, lock))),
                None if share == Share::Private && number < COPIES_MAX => number += 1,
                None if !place.is_dir() => {}
                None if !wait() => return Ok(None),
                None => {}
            }
        }
    }

    /// Makes a mount under `tmp/` and reveals it whole; somebody else may be first.
    fn make<E: From<CacheMountError>>(
        &self,
        folder: &Path,
        place: &Path,
        wanted: &Wanted,
        fill: &mut dyn FnMut(&Path) -> Result<(), E>,
    ) -> Result<(), E> {
        let fresh = self.store.temporary_folder().map_err(CacheMountError::Store)?;
        let one = fresh.path().join("one");
        let data = one.join("data");
        fs::create_dir_all(&data).map_err(CacheMountError::at("making", &data))?;
        fill(&data)?;
        let set = |path: &Path| {
            owners::give_if_possible(path, Owner { uid: wanted.uid, gid: wanted.gid })?;
            fs::set_permissions(path, fs::Permissions::from_mode(wanted.mode))
        };
        set(&data).map_err(CacheMountError::at("setting owner and mode of", &data))?;
        let lock = one.join("lock");
        fs::write(&lock, b"").map_err(CacheMountError::at("making", &lock))?;
        let about = PathBuf::from("cache-mounts").join(wanted.name()).join("about.json");
        if !self.store.root().join(&about).is_file() {
            let json = serde_json::to_vec(wanted).unwrap_or_default();
            self.store.write_entry(&about, &json).map_err(CacheMountError::Store)?;
        }
        fs::create_dir_all(folder).map_err(CacheMountError::at("making", folder))?;
        match fs::rename(&one, place) {
            // Another build made it meanwhile: that one it is.
            Err(_) if place.is_dir() => Ok(()),
            renamed => Ok(renamed.map_err(CacheMountError::at("revealing", place))?),
        }
    }
}

#[cfg(test)]
mod tests;
