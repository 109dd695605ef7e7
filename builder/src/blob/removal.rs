//! Taking a tree apart, however deep, and stopping in the middle.

use std::ffi::{CStr, CString, OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, chmodat, fchmod, openat, renameat, unlinkat};
use rustix::io::Errno;

/// Folders in folders that are removed without taking them apart: the removal holds each of them open.
const DEPTH: usize = 100;

/// Entries that are read of a folder before they are removed, so that a huge one is not in memory whole.
const ENTRIES: usize = 1000;

/// Whether a tree is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Removed {
    /// All of it.
    Whole,
    /// It was told to stop: the rest is where it was, and in these folders beside it.
    Stopped(Vec<PathBuf>),
}

/// Removes a file or tree; `stop` is asked before every entry.
///
/// What is deep is moved up, beside the tree, and removed piece by piece: a step can make folders deeper than files can be
/// open, and than a path can be long. Folders that their owner may not change are made so that he may.
///
/// # Errors
/// The first one. All the rest is removed as far as it can be.
pub(super) fn remove(tree: &Path, stop: &dyn Fn() -> bool) -> io::Result<Removed> {
    let mut removal = Removal { tree, stop, pieces: vec![tree.to_owned()], moved: 0, failed: None };
    while let Some(piece) = removal.pieces.pop() {
        let name = CString::new(piece.as_os_str().as_bytes())?;
        match removal.entry(CWD, &name, FileType::Unknown, 0) {
            Ok(()) => {}
            Err(Halt::Stop) => {
                removal.pieces.retain(|piece| piece != tree);
                if piece != tree {
                    removal.pieces.push(piece);
                }
                return Ok(Removed::Stopped(removal.pieces));
            }
            Err(Halt::Failed(errno)) => removal.failed = removal.failed.or(Some(errno)),
        }
    }
    match removal.failed {
        None => Ok(Removed::Whole),
        Some(errno) => Err(errno.into()),
    }
}

/// Why an entry is still there.
enum Halt {
    Stop,
    Failed(Errno),
}

impl From<Errno> for Halt {
    fn from(errno: Errno) -> Self {
        Self::Failed(errno)
    }
}

struct Removal<'a> {
    tree: &'a Path,
    stop: &'a dyn Fn() -> bool,
    pieces: Vec<PathBuf>,
    moved: usize,
    failed: Option<Errno>,
}

impl Removal<'_> {
    fn entry(&mut self, folder: BorrowedFd<'_>, name: &CStr, kind: FileType, depth: usize) -> Result<(), Halt> {
        if (self.stop)() {
            return Err(Halt::Stop);
        }
        if kind != FileType::Directory {
            match unlinkat(folder, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => return Ok(()),
                // What POSIX and Linux say of a folder.
                Err(Errno::ISDIR | Errno::PERM) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        if depth == DEPTH {
            return Ok(self.move_up(folder, name)?);
        }
        match self.contents(folder, name, depth) {
            Err(Halt::Failed(Errno::NOENT)) => return Ok(()),
            emptied => emptied?,
        }
        match unlinkat(folder, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn contents(&mut self, folder: BorrowedFd<'_>, name: &CStr, depth: usize) -> Result<(), Halt> {
        let open = || {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            openat(folder, name, flags, Mode::empty())
        };
        let opened = match open() {
            Err(Errno::ACCESS) => {
                chmodat(folder, name, Mode::RWXU, AtFlags::empty())?;
                open()?
            }
            opened => opened?,
        };
        let (mut skipped, mut opened_up) = (0, false);
        loop {
            let mut entries = Vec::new();
            for entry in Dir::read_from(&opened)?.skip(skipped) {
                let entry = entry?;
                if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                    entries.push((entry.file_name().to_owned(), entry.file_type()));
                }
                if entries.len() == ENTRIES {
                    break;
                }
            }
            if entries.is_empty() {
                return Ok(());
            }
            for (name, kind) in entries {
                let mut removed = self.entry(opened.as_fd(), &name, kind, depth + 1);
                if matches!(removed, Err(Halt::Failed(Errno::ACCESS))) && !opened_up {
                    opened_up = true;
                    fchmod(&opened, Mode::RWXU)?;
                    removed = self.entry(opened.as_fd(), &name, kind, depth + 1);
                }
                match removed {
                    Ok(()) => {}
                    Err(Halt::Stop) => return Err(Halt::Stop),
                    Err(Halt::Failed(errno)) => {
                        skipped += 1;
                        self.failed = self.failed.or(Some(errno));
                    }
                }
            }
        }
    }

    /// Moves a folder beside the tree, for later.
    fn move_up(&mut self, folder: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
        self.moved += 1;
        let mut place: OsString = self.tree.as_os_str().to_owned();
        place.push(OsStr::new(&format!(".deep-{}", self.moved)));
        let place = PathBuf::from(place);
        let moved = renameat(folder, name, CWD, &place);
        if moved == Err(Errno::ACCESS) {
            // A folder that moves is written to: it has a name for the one above.
            chmodat(folder, name, Mode::RWXU, AtFlags::empty())?;
            renameat(folder, name, CWD, &place)?;
        } else {
            moved?;
        }
        self.pieces.push(place);
        Ok(())
    }
}

/// Removes a tree, and waits for it. What cannot be removed stays, and goes with a later start's cleaning.
pub fn remove_tree(tree: &Path) {
    let removed = match remove(tree, &|| false) {
        Err(_) if fs::symlink_metadata(tree).is_err() => return,
        removed => removed,
    };
    if let Err(error) = removed {
        tracing::debug!(path = %tree.display(), %error, "a temporary tree could not be removed");
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::os::unix::fs::PermissionsExt;

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
        assert_eq!(remove(&tree, &|| false).unwrap(), Removed::Whole);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        remove_tree(&tree);
    }

    #[test]
    fn what_is_stopped_at_any_entry_is_removed_by_the_next() {
        for entries in 0..10_usize {
            let folder = tempfile::tempdir().unwrap();
            let tree = folder.path().join("tree");
            fs::create_dir_all(tree.join(vec!["d"; 250].join("/"))).unwrap();
            for number in 0..20 {
                fs::write(tree.join(format!("file-{number}")), "").unwrap();
            }
            let left = Cell::new(entries * 40);
            let stop = || left.replace(left.get().saturating_sub(1)) == 0;
            let Removed::Stopped(beside) = remove(&tree, &stop).unwrap() else { continue };
            for rest in beside.iter().chain([&tree]) {
                assert_eq!(remove(rest, &|| false).unwrap(), Removed::Whole);
            }
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "{entries}");
        }
    }

    #[test]
    fn many_entries_and_folders_that_cannot_be_written_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let tree = folder.path().join("tree");
        fs::create_dir_all(tree.join("a/b")).unwrap();
        for number in 0..2500 {
            fs::write(tree.join(format!("a/{number}")), "").unwrap();
        }
        std::os::unix::fs::symlink("/", tree.join("a/link")).unwrap();
        fs::write(tree.join("a/b/file"), "").unwrap();
        for (place, mode) in [("a/b", 0o000), ("a", 0o555), ("", 0o500)] {
            fs::set_permissions(tree.join(place), fs::Permissions::from_mode(mode)).unwrap();
        }
        remove_tree(&tree);
        assert!(!tree.exists());
    }
}
