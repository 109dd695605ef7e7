//! A writable root file system, until it is kept or dropped.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use oci_spec::image::Digest;
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, Timespec, Timestamps, open, openat2, statat, utimensat,
};
use rustix::io::Errno;

use crate::blob::Temporary;
use crate::layer::{Change, ChangesError, FileTime, Manifest, Tree, overlay_changes};
use crate::sandbox::{InMemory, RootMount};

/// A writable view on a chain of layers. Dropping it discards what was written; a mutable root is brought back when it is
/// prepared again.
#[derive(Debug)]
pub struct Workspace {
    pub(super) root: RootMount,
    pub(super) chain: Vec<Digest>,
    pub(super) keep: Keep,
}

/// What makes the workspace of its snapshotter.
#[derive(Debug)]
pub(super) enum Keep {
    Overlay {
        /// What is mounted in the folder, where the store's file system takes no changes. It goes before it.
        memory: Option<InMemory>,
        /// Holds `upper` and `work`.
        folder: Temporary,
    },
    MutableRoot {
        /// The tree as it was prepared.
        before: Manifest,
        /// What was found to have changed; it is asked for twice.
        told: OnceLock<Vec<Change>>,
        /// Files that are shown with other times than their own.
        covered: Vec<Covered>,
        /// The exclusive lock on the root.
        _lock: File,
    },
}

/// A file of the mutable root while it has another time.
#[derive(Debug)]
pub(super) struct Covered {
    path: PathBuf,
    own: FileTime,
    shown: FileTime,
}

impl Workspace {
    /// What a sandbox makes its root of.
    #[must_use]
    pub fn root(&self) -> &RootMount {
        &self.root
    }

    /// Lays the files in `folder` over the layers below: a command sees them in place of the layers' own. They must be
    /// files that are there, with all that they have but their times. The folder must outlive the workspace.
    ///
    /// # Errors
    /// Where the root is written in place, files get these times until the changes are told; that may fail.
    pub fn cover(&mut self, folder: PathBuf) -> io::Result<()> {
        match (&mut self.root, &mut self.keep) {
            (RootMount::Overlay { lowers, .. }, _) => lowers.insert(0, folder),
            (RootMount::Directory(root), Keep::MutableRoot { covered, .. }) => {
                let mut ahead = vec![PathBuf::new()];
                while let Some(inside) = ahead.pop() {
                    for entry in fs::read_dir(folder.join(&inside))? {
                        let entry = entry?;
                        let path = inside.join(entry.file_name());
                        let metadata = entry.metadata()?;
                        if metadata.is_dir() {
                            ahead.push(path);
                        } else if metadata.is_file() {
                            let shown = time_of(&metadata);
                            if let Some(own) = set_time(root, &path, None, shown)? {
                                covered.push(Covered { path, own, shown });
                            }
                        }
                    }
                }
            }
            (RootMount::Directory(_), Keep::Overlay { .. }) => {}
        }
        Ok(())
    }

    /// The unpacked layers below, topmost first; the root itself where it is one folder.
    #[must_use]
    pub fn lowers(&self) -> &[PathBuf] {
        match &self.root {
            RootMount::Overlay { lowers, .. } => lowers,
            RootMount::Directory(root) => std::slice::from_ref(root),
        }
    }

    /// What was changed, as the entries of a layer: sorted, a folder before what is in it, content named by its place in
    /// this workspace.
    ///
    /// # Errors
    /// When something cannot be read, or cannot be in a layer.
    pub fn changes(&self) -> Result<Vec<Change>, ChangesError> {
        self.changes_over(&Tree::new())
    }

    /// The same, where it is known what was there before. A root that is written in place has nothing else to tell a file
    /// that was written again as it was.
    ///
    /// # Errors
    /// As [`Workspace::changes`].
    pub fn changes_over(&self, tree: &Tree) -> Result<Vec<Change>, ChangesError> {
        match (&self.keep, &self.root) {
            (Keep::MutableRoot { before, told, covered, .. }, RootMount::Directory(root)) => {
                if let Some(told) = told.get() {
                    return Ok(told.clone());
                }
                for Covered { path, own, shown } in covered {
                    set_time(root, path, Some(*shown), *own).map_err(|source| ChangesError::Io {
                        during: "setting the time of",
                        path: root.join(path),
                        source,
                    })?;
                }
                let changes = before.changes_over(root, tree)?;
                Ok(told.get_or_init(|| changes).clone())
            }
            (_, RootMount::Overlay { lowers, upper, .. }) => overlay_changes(upper, lowers),
            // Snapshotters make no other pairs.
            (Keep::Overlay { .. }, RootMount::Directory(_)) => Ok(Vec::new()),
        }
    }

    /// The time of a file that the command saw, in seconds since 1970, where its changes are told and it has this time now.
    #[must_use]
    pub fn seconds_shown(&self, path: &Path, now: &fs::Metadata) -> i64 {
        let own = time_of(now);
        let covered = match &self.keep {
            Keep::MutableRoot { covered, .. } => {
                covered.iter().find(|covered| covered.path == path && covered.own == own)
            }
            Keep::Overlay { .. } => None,
        };
        covered.map_or(own, |covered| covered.shown).seconds
    }

    /// Forgets what was found to have changed: after the command, its files were changed once more.
    pub fn look_again(&mut self) {
        if let Keep::MutableRoot { told, .. } = &mut self.keep {
            told.take();
        }
    }
}

fn time_of(metadata: &fs::Metadata) -> FileTime {
    FileTime { seconds: metadata.mtime(), nanoseconds: metadata.mtime_nsec().try_into().unwrap_or(0) }
}

/// Sets the time of a regular file in a root, and says which it had; only where it has `expected`, if that is given. No link
/// is followed: a command may have made them.
fn set_time(root: &Path, path: &Path, expected: Option<FileTime>, time: FileTime) -> io::Result<Option<FileTime>> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(None) };
    let root = open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let folder =
        match openat2(&root, parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            opened => opened?,
        };
    let stat = match statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(None),
        found => found?,
    };
    let had = FileTime { seconds: stat.st_mtime, nanoseconds: stat.st_mtime_nsec.try_into().unwrap_or(0) };
    let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    if !is_file || expected.is_some_and(|expected| expected != had) {
        return Ok(None);
    }
    let time = Timespec { tv_sec: time.seconds, tv_nsec: time.nanoseconds.into() };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(&folder, name, &times, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(Some(had))
}
