//! Whiteouts and opaque folders: marks for overlayfs, or removals.
//!
//! They are about the layers below: what their own layer brings stays, whether it comes before or after (image
//! specification, layer.md, "Whiteouts").

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;

use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, XattrFlags};
use rustix::io::Errno;

use super::place::Folder;
use super::{Applier, ApplyError};
use crate::layer::LayerPath;
use crate::layer::lowers::{MergedFolder, is_whiteout, opaque, whiteout};

impl Applier {
    /// The folder in which something is to be removed; `None` when there is no such folder, and so nothing to remove.
    pub(super) fn folder_of_removal(
        &mut self,
        path: &LayerPath,
        entry: &LayerPath,
    ) -> Result<Option<Rc<Folder>>, ApplyError> {
        if self.existing_folder(path, entry)?.is_none() {
            let real = self.resolve(path, entry)?;
            // When this layer has something there, it is a mark, and all below it is gone already.
            match fs::symlink_metadata(self.path(&real)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                _ => return Ok(None),
            }
            if self.below(&real)?.is_none_or(|found| found.folder.is_none()) {
                self.depends_on_lowers = true;
                return Ok(None);
            }
        }
        self.folder(path, entry).map(Some)
    }

    /// Removes a name of the layers below.
    pub(super) fn whiteout(&mut self, folder: &Folder, name: &[u8]) -> Result<(), ApplyError> {
        let at = folder.path.join(name);
        self.last = None;
        let kind = match rustix::fs::statat(&folder.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Some(FileType::from_raw_mode(stat.st_mode)),
            Err(Errno::NOENT) => None,
            Err(error) => return Err(ApplyError::at("looking at", &at, error)),
        };
        match kind {
            None if self.lowers.is_none() => Ok(()),
            None => self.mark_removed(folder, name),
            Some(_) if self.lowers.is_none() && !self.brought_below(&at) => self.remove(&at),
            Some(FileType::Directory) => {
                self.hide_below(&at)?;
                if self.remove_unbrought(&at)? { self.mark_removed(folder, name) } else { Ok(()) }
            }
            Some(_) => Ok(()),
        }
    }

    fn mark_removed(&mut self, folder: &Folder, name: &[u8]) -> Result<(), ApplyError> {
        let at = folder.path.join(name);
        if self.below(&at)?.is_none() {
            // A mount lists a mark in a folder that is merged with no other, though nothing can be done with it.
            self.depends_on_lowers = true;
            return Ok(());
        }
        put_mark(folder.fd.as_fd(), name).map_err(|error| ApplyError::at("marking as removed", &at, error))
    }

    /// Whether this layer has a mark there.
    pub(super) fn is_removed(&self, at: &LayerPath) -> bool {
        let path = self.path(at);
        fs::symlink_metadata(&path).is_ok_and(|metadata| is_whiteout(&path, &metadata))
    }

    /// Hides, or removes, what the layers below have in a real folder.
    pub(super) fn hide_below(&mut self, at: &LayerPath) -> Result<(), ApplyError> {
        self.last = None;
        let inside = self.list(at)?;
        if self.lowers.is_some() {
            // Marks in it would be listed, and folders that are there only to hold them would be seen.
            for (path, is_folder) in inside.iter().rev() {
                if *is_folder {
                    self.remove_unbrought(path)?;
                } else if self.is_removed(path) {
                    self.remove(path)?;
                }
            }
            return self.mark_opaque(at);
        }
        self.keep_attributes(at)?;
        let mut removed: Option<&LayerPath> = None;
        for (path, is_folder) in &inside {
            if removed.is_some_and(|removed| path.starts_with(removed)) {
                continue;
            }
            if !self.brought_below(path) {
                self.remove(path)?;
                removed = Some(path);
            } else if *is_folder {
                self.keep_attributes(path)?;
            }
        }
        Ok(())
    }

    /// All that is in a real folder, a folder before what is in it; whether each is a folder.
    fn list(&self, at: &LayerPath) -> Result<Vec<(LayerPath, bool)>, ApplyError> {
        let failed = |error| ApplyError::at("listing", at, error);
        let mut found = Vec::new();
        let mut ahead = vec![at.clone()];
        while let Some(folder) = ahead.pop() {
            for entry in fs::read_dir(self.path(&folder)).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                let path = folder.join(entry.file_name().as_bytes());
                let is_folder = entry.file_type().map_err(failed)?.is_dir();
                if is_folder {
                    ahead.push(path.clone());
                }
                found.push((path, is_folder));
            }
        }
        found.sort();
        Ok(found)
    }

    /// Removes a real folder that the layer has no entry for, when nothing is in it. Returns whether it is gone.
    fn remove_unbrought(&mut self, at: &LayerPath) -> Result<bool, ApplyError> {
        if self.lowers.is_none() || !self.is_implied(at) {
            return Ok(false);
        }
        match fs::remove_dir(self.path(at)) {
            Ok(()) => {
                self.forget(at);
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(false),
            Err(error) => Err(ApplyError::at("removing", at, error)),
        }
    }

    pub(super) fn mark_opaque(&mut self, at: &LayerPath) -> Result<(), ApplyError> {
        self.opaque.insert(at.clone());
        if self.lowers.as_ref().is_some_and(MergedFolder::is_empty) {
            self.depends_on_lowers = true;
            return Ok(());
        }
        rustix::fs::lsetxattr(self.path(at), opaque(), b"y", XattrFlags::empty())
            .map_err(|error| ApplyError::at("marking as opaque", at, error))
    }

    /// overlayfs looks at no mark on a layer's root, so that what the layers below have there is removed name by name.
    pub(super) fn hide_below_root(&mut self) -> Result<(), ApplyError> {
        let root = LayerPath::root();
        let Some(lowers) = self.lowers.clone().filter(|_| self.opaque.contains(&root)) else { return Ok(()) };
        self.depends_on_lowers = true;
        for name in lowers.names().map_err(|error| ApplyError::at("listing", &root, error))? {
            let at = root.join(&name);
            match fs::symlink_metadata(self.path(&at)) {
                Ok(metadata) if metadata.is_dir() => self.mark_opaque(&at)?,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    put_mark(self.root_fd.as_fd(), &name)
                        .map_err(|error| ApplyError::at("marking as removed", &at, error))?;
                }
                Err(error) => return Err(ApplyError::at("looking at", &at, error)),
            }
        }
        Ok(())
    }
}

/// Marks a name as removed for overlayfs: by a device, or where the folder lies on an overlay itself, which lets nobody make
/// that one, by an attribute of an empty file; the folder says then that it has such files.
fn put_mark(folder: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    match rustix::fs::mknodat(folder, name, FileType::CharacterDevice, Mode::empty(), 0) {
        Err(Errno::PERM) => {}
        done => return done,
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(folder, name, flags, Mode::RUSR | Mode::WUSR)?;
    rustix::fs::fsetxattr(&file, whiteout(), b"y", XattrFlags::empty())?;
    match rustix::fs::fsetxattr(folder, opaque(), b"x", XattrFlags::CREATE) {
        // Another mark came before, or the folder hides all that is below.
        Err(Errno::EXIST) => Ok(()),
        done => done,
    }
}
