//! Whose what was changed is, where owners are recorded.

use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::ChangesError;
use crate::layer::{Change, Kind};
use crate::owners::{self, Inode, Inodes, Owner, Paths};

/// The bit of a mode by which a folder hands its group on (`S_ISGID`).
const SET_GROUP_ID: u32 = 0o2000;

/// The tables around a tree that a run changed.
#[derive(Debug, Default)]
pub(super) struct Owned {
    /// Whether there are any.
    recorded: bool,
    /// What the run left.
    run: Inodes,
    /// What was known before, by the root of the tree that it is about.
    before: Vec<(PathBuf, Paths)>,
}

impl Owned {
    /// Those of a tree, and of others that it lies over; of one that is changed in place, it is among them.
    pub(super) fn around(tree: &Path, before: &[PathBuf]) -> Result<Self, ChangesError> {
        if !owners::are_recorded() {
            return Ok(Self::default());
        }
        let run = Inodes::of_run(tree).map_err(ChangesError::at("reading the owners beside", tree))?;
        let mut tables = Vec::new();
        for tree in before {
            let table = Paths::of_tree(tree).map_err(ChangesError::at("reading the owners beside", tree))?;
            if !table.is_empty() {
                tables.push((tree.clone(), table));
            }
        }
        Ok(Self { recorded: true, run, before: tables })
    }

    pub(super) fn are_recorded(&self) -> bool {
        self.recorded
    }

    /// The owner of what is at `at`; `before` is what was there, or is below.
    pub(super) fn now(&self, at: &Path, metadata: &Metadata, before: Option<(&Path, &Metadata)>) -> Owner {
        if !self.recorded || metadata.is_file() || metadata.is_dir() {
            return owners::of(at, metadata);
        }
        if let Some(owner) = self.run.get(&Inode::of(metadata)) {
            return owner;
        }
        // An owner that it really has is another than before when it was given to somebody, which leaves the time alone.
        let shape = |one: &Metadata| (one.file_type(), one.mtime(), one.mtime_nsec(), one.uid(), one.gid());
        match before {
            // The same, as it was copied up for a new name or time.
            Some((path, older)) if shape(older) == shape(metadata) => self.before(path, older),
            _ => Owner::standing(metadata.uid(), metadata.gid()),
        }
    }

    /// The owner of what is at `at` in one of the trees from before.
    pub(super) fn before(&self, at: &Path, metadata: &Metadata) -> Owner {
        if !self.recorded || metadata.is_file() || metadata.is_dir() {
            return owners::of(at, metadata);
        }
        let mut known = self.before.iter().filter_map(|(tree, table)| {
            let path = at.strip_prefix(tree).ok()?;
            table.get(path.as_os_str().as_bytes())
        });
        known.next().unwrap_or_else(|| Owner::standing(metadata.uid(), metadata.gid()))
    }
}

/// Brings the table of a tree to what these changes of it say.
pub fn note_owners(table: &mut Paths, changes: &[Change]) {
    if !owners::are_recorded() {
        return;
    }
    for Change { entry, .. } in changes {
        let path = entry.path.as_bytes();
        let owner = Owner { uid: entry.uid, gid: entry.gid };
        match &entry.kind {
            Kind::Whiteout | Kind::Opaque => table.forget(path),
            // By which name the file is known says its first one.
            Kind::Hardlink(first) => match table.get(first.as_bytes()) {
                Some(owner) => table.insert(path, owner),
                None => table.forget(path),
            },
            Kind::Directory => {
                if entry.mode & SET_GROUP_ID != 0 && owner.gid != 0 {
                    table.insert(path, owner);
                } else {
                    table.remove(path);
                }
            }
            Kind::File { .. } => table.forget(path),
            Kind::Symlink(_) | Kind::CharDevice { .. } | Kind::BlockDevice { .. } | Kind::Fifo => {
                table.forget(path);
                if owner != Owner::ROOT {
                    table.insert(path, owner);
                }
            }
        }
    }
}
