//! Unpacked layers on disk: found, made visible, thrown away.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use oci_spec::image::Digest;
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::SnapshotError;
use crate::blob::{Store, sha256};

/// The file that tells whether an entry is what was written.
const META: &str = "meta.json";

/// Hex digits of a chain's hash in a name: 64 bits, among the few chains that one layer is used in.
const CHAIN_HEX: usize = 16;

/// How often, and after which pause, a damaged entry that someone else has is tried again.
const LOCK_TRIES: u32 = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// What stands beside an unpacked layer.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Meta {
    /// The inode of `fs`, and of its device: in a store that was copied, owners and times may be lost.
    inode: u64,
    device: u64,
    /// Whether the layer has an entry for the root itself.
    pub(super) has_root: bool,
}

/// An unpacked layer that nobody removes while this lives.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) fs: PathBuf,
    pub(super) meta: Meta,
    pub(super) lock: File,
}

/// The folder of unpacked layers.
#[derive(Clone, Debug)]
pub(super) struct Entries {
    store: Store,
}

impl Entries {
    pub(super) fn new(store: Store) -> Self {
        Self { store }
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    /// Where a layer is; with `below` (bottom first), the form that it has above those layers only.
    fn place(&self, diff_id: &Digest, below: Option<&[Digest]>) -> PathBuf {
        let layers = self.store.root().join("layers");
        match below {
            None => layers.join(diff_id.digest()),
            Some(below) => {
                let chain: Vec<&str> = below.iter().map(AsRef::as_ref).collect();
                let hash = sha256(chain.join("\n").as_bytes());
                layers.join(format!("{}-{}", diff_id.digest(), &hash.digest()[..CHAIN_HEX]))
            }
        }
    }

    /// The form of a layer that is the same whatever is below it.
    pub(super) fn find_independent(&self, diff_id: &Digest) -> Option<Entry> {
        open_entry(&self.place(diff_id, None))
    }

    /// The layer above those layers.
    pub(super) fn find(&self, diff_id: &Digest, below: &[Digest]) -> Option<Entry> {
        self.find_independent(diff_id).or_else(|| open_entry(&self.place(diff_id, Some(below))))
    }

    /// All layers of a chain, bottom first.
    pub(super) fn chain(&self, chain: &[Digest]) -> Result<Vec<Entry>, SnapshotError> {
        let mut entries = Vec::new();
        for (index, diff_id) in chain.iter().enumerate() {
            let entry = self.find(diff_id, &chain[..index]);
            entries.push(entry.ok_or_else(|| SnapshotError::NotUnpacked { diff_id: diff_id.clone() })?);
        }
        Ok(entries)
    }

    /// Makes `folder`, in which `fs` is finished, the entry of a layer. When there is one already, `folder` goes.
    ///
    /// All files must reach the disk before the name does. One `syncfs` does that for all of them: a layer has thousands
    /// of small files, and an `fsync` each is slower than the unpacking. What others write to the same file system
    /// meanwhile is waited for too.
    pub(super) fn reveal(
        &self,
        folder: &Path,
        diff_id: &Digest,
        below: Option<&[Digest]>,
        has_root: bool,
    ) -> Result<(), SnapshotError> {
        let fs = folder.join("fs");
        let metadata = fs::symlink_metadata(&fs).map_err(SnapshotError::at("looking at", &fs))?;
        let meta = Meta { inode: metadata.ino(), device: metadata.dev(), has_root };
        let path = folder.join(META);
        // A struct of numbers always serialises.
        let json = serde_json::to_vec(&meta).unwrap_or_default();
        fs::write(&path, json).map_err(SnapshotError::at("writing", &path))?;
        let opened = File::open(folder).map_err(SnapshotError::at("opening", folder))?;
        rustix::fs::syncfs(&opened).map_err(SnapshotError::errno("syncing", folder))?;

        let target = self.place(diff_id, below);
        let layers = self.store.root().join("layers");
        fs::create_dir_all(&layers).map_err(SnapshotError::at("creating", &layers))?;
        loop {
            match fs::rename(folder, &target) {
                Ok(()) => break,
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists) =>
                {
                    if open_entry(&target).is_some() {
                        remove_tree(folder);
                        return Ok(());
                    }
                    self.throw_away(&target)?;
                }
                Err(error) => return Err(SnapshotError::at("renaming a finished layer to", &target)(error)),
            }
        }
        let synced = File::open(&layers).and_then(|folder| folder.sync_all());
        synced.map_err(SnapshotError::at("syncing", &layers))
    }

    /// Takes away an entry that is not what was written. Another process may do the same at the same time.
    fn throw_away(&self, entry: &Path) -> Result<(), SnapshotError> {
        let failed = |error| SnapshotError::at("replacing the damaged", entry)(error);
        let lock = match File::open(entry) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            opened => opened.map_err(failed)?,
        };
        // Whoever has it found it in order, or is removing it.
        let mut tries = LOCK_TRIES;
        loop {
            match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(Errno::INTR) => {}
                Err(Errno::WOULDBLOCK) if tries > 0 => {
                    tries -= 1;
                    std::thread::sleep(LOCK_PAUSE);
                }
                Err(error) => return Err(failed(error.into())),
            }
        }
        if !is_at(&lock, entry) || read_meta(entry).is_some() {
            return Ok(());
        }
        let trash = self.store.temporary()?;
        match fs::rename(entry, trash.join("entry")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        remove_tree(&trash);
        Ok(())
    }
}

/// Opens and locks an entry; `None` when it is not there, or not what was written.
fn open_entry(place: &Path) -> Option<Entry> {
    loop {
        let lock = File::open(place).ok()?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockShared) {
            Ok(()) => {}
            Err(Errno::INTR) => continue,
            // Someone is removing it.
            Err(_) => return None,
        }
        // It may have been replaced between the two.
        if is_at(&lock, place) {
            let meta = read_meta(place)?;
            return Some(Entry { fs: place.join("fs"), meta, lock });
        }
    }
}

/// Whether the open folder is the one at that place.
fn is_at(folder: &File, place: &Path) -> bool {
    let id = |metadata: &fs::Metadata| (metadata.dev(), metadata.ino());
    matches!((folder.metadata(), fs::symlink_metadata(place)), (Ok(held), Ok(there)) if id(&held) == id(&there))
}

/// What stands in an entry's file, when the entry is what was written.
fn read_meta(place: &Path) -> Option<Meta> {
    let meta: Meta = serde_json::from_slice(&fs::read(place.join(META)).ok()?).ok()?;
    let found = fs::symlink_metadata(place.join("fs")).ok()?;
    (found.is_dir() && (meta.inode, meta.device) == (found.ino(), found.dev())).then_some(meta)
}

/// Folders in folders that are removed without taking them apart: the removal holds each of them open.
const DEPTH: usize = 100;

/// Length of a path to which one more name can be joined (`PATH_MAX` is 4,096, and a name has 255 bytes at most).
const PATH_BYTES: usize = 3800;

/// Removes a tree below the store's `tmp/`. What cannot be removed stays there, and goes with the next start's cleaning.
pub(super) fn remove_tree(tree: &Path) {
    let removed = match fs::remove_dir_all(tree) {
        Ok(()) => return,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return,
        Err(_) => remove_deep_tree(tree),
    };
    if let Err(error) = removed {
        tracing::debug!(path = %tree.display(), %error, "a temporary tree could not be removed");
    }
}

/// Moves what is deep in the tree up, beside it, and removes it piece by piece: a step can make folders deeper than
/// files can be open, and than a path can be long.
fn remove_deep_tree(tree: &Path) -> io::Result<()> {
    let mut pieces = vec![tree.to_owned()];
    let mut count = 0;
    while let Some(piece) = pieces.pop() {
        let mut ahead = vec![(piece.clone(), 0)];
        while let Some((folder, depth)) = ahead.pop() {
            if depth == DEPTH || folder.as_os_str().len() > PATH_BYTES {
                count += 1;
                let up = tree.with_extension(format!("deep-{count}"));
                fs::rename(&folder, &up)?;
                pieces.push(up);
                continue;
            }
            for entry in fs::read_dir(&folder)? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    ahead.push((entry.path(), depth + 1));
                }
            }
        }
        fs::remove_dir_all(&piece)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_that_is_deeper_than_a_path_is_long_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let tree = folder.path().join("tree");
        fs::create_dir(&tree).unwrap();
        // Built from the inside: each time, what is there moves one folder of long names down.
        let long = ["n".repeat(200), "m".repeat(200), "o".repeat(200)].join("/");
        for number in 0..12 {
            let above = folder.path().join(format!("above-{number}"));
            fs::create_dir_all(above.join(&long)).unwrap();
            fs::write(above.join("file"), "").unwrap();
            fs::rename(&tree, above.join(&long).join("tree")).unwrap();
            fs::rename(&above, &tree).unwrap();
        }
        let deep = vec!["d"; 300].join("/");
        fs::create_dir_all(tree.join(&deep)).unwrap();
        remove_deep_tree(&tree).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        remove_tree(&tree);
    }
}
