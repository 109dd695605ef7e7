//! Owners, modes, extended attributes and times. The order matters: a change of owner clears setuid and capabilities.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{AtFlags, FileType, Mode, Timespec, Timestamps, UTIME_OMIT, XattrFlags};
use rustix::io::Errno;

use super::place::Folder;
use super::{Applier, ApplyError};
use crate::layer::lowers::Found;
use crate::layer::{Entry, FileTime, LayerPath};
use crate::owners::{self, Given, Owner};

/// The kernel's limits for a list of names and for one value (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX`).
const XATTR_MAX_BYTES: usize = 65536;

/// The bit of a mode by which a folder hands its group on (`S_ISGID`).
const SET_GROUP_ID: u32 = 0o2000;

/// What a folder gets once all is in it.
#[derive(Clone, Debug)]
pub(super) struct Attributes {
    mode: u32,
    uid: u32,
    gid: u32,
    modified: FileTime,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The layer has no entry for it.
    implied: bool,
}

impl Attributes {
    pub(super) fn of(entry: &Entry) -> Self {
        let Entry { mode, uid, gid, modified, .. } = *entry;
        Self { mode, uid, gid, modified, xattrs: entry.xattrs.clone(), implied: false }
    }

    /// For a folder that no layer says anything about. The time is fixed, so that unpacking again gives the same tree.
    pub(super) fn unknown_folder() -> Self {
        let modified = FileTime { seconds: 0, nanoseconds: 0 };
        Self { mode: 0o755, uid: 0, gid: 0, modified, xattrs: BTreeMap::new(), implied: true }
    }

    /// Those of a folder that is there: in the layers below, or in the tree.
    pub(super) fn of_place(path: &Path, metadata: &fs::Metadata) -> Self {
        let Owner { uid, gid } = owners::of(path, metadata);
        Self {
            mode: owners::mode_of(path, metadata),
            uid,
            gid,
            modified: FileTime {
                seconds: metadata.mtime(),
                nanoseconds: u32::try_from(metadata.mtime_nsec()).unwrap_or(0),
            },
            xattrs: BTreeMap::new(),
            implied: true,
        }
    }
}

/// Sets one extended attribute, by name and value.
type SetXattr<'a> = dyn Fn(&[u8], &[u8]) -> Result<(), Errno> + 'a;

impl Applier {
    /// In the flat form, has a folder of the layers below keep what it has, before something in it changes.
    pub(super) fn keep_attributes(&mut self, at: &LayerPath) -> Result<(), ApplyError> {
        if self.lowers.is_some() || self.folders.contains_key(at) {
            return Ok(());
        }
        let path = self.path(at);
        let metadata = fs::symlink_metadata(&path).map_err(|error| ApplyError::at("looking at", at, error))?;
        self.folders.insert(at.clone(), Attributes::of_place(&path, &metadata));
        Ok(())
    }

    /// Whether the layer has no entry for a folder that it made.
    pub(super) fn is_implied(&self, at: &LayerPath) -> bool {
        self.folders.get(at).is_some_and(|attributes| attributes.implied)
    }

    /// Gives a file that was copied from the layers below what it has there.
    pub(super) fn copy_attributes(&mut self, at: &LayerPath, found: &Found) -> Result<(), ApplyError> {
        let failed = |error: Errno| ApplyError::at("reading the attributes of", at, error);
        let mut attributes = Attributes::of_place(&found.path, &found.metadata);
        let mut list = vec![0; XATTR_MAX_BYTES];
        let length = match rustix::fs::llistxattr(&found.path, &mut list[..]) {
            Err(Errno::OPNOTSUPP) => 0,
            outcome => outcome.map_err(failed)?,
        };
        for name in list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
            let mut value = vec![0; XATTR_MAX_BYTES];
            let length = rustix::fs::lgetxattr(&found.path, name, &mut value[..]).map_err(failed)?;
            value.truncate(length);
            attributes.xattrs.insert(name.to_vec(), value);
        }
        let file = fs::File::options().write(true).open(self.path(at));
        let file = file.map_err(|error| ApplyError::at("opening", at, error))?;
        self.set_attributes(at, at, file.as_fd(), &attributes)
    }

    /// `at` is where the entry really is.
    pub(super) fn set_attributes_of_file(
        &mut self,
        entry: &Entry,
        at: &LayerPath,
        fd: BorrowedFd<'_>,
    ) -> Result<(), ApplyError> {
        self.set_attributes(&entry.path, at, fd, &Attributes::of(entry))
    }

    /// Innermost first, as a folder may forbid to reach what is in it.
    pub(super) fn set_attributes_of_folders(&mut self) -> Result<(), ApplyError> {
        let folders = std::mem::take(&mut self.folders);
        for (at, attributes) in folders.iter().rev() {
            let fd = match self.open(at) {
                Ok(fd) => fd,
                // Something else replaced it.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                Err(error) => return Err(ApplyError::at("opening", at, error)),
            };
            if attributes.implied && !at.is_root() {
                self.depends_on_lowers = true;
            }
            self.set_attributes(at, at, fd.as_fd(), attributes)?;
            // What is made in it inherits its group: a run has to know of such folders without looking at them all.
            if attributes.mode & SET_GROUP_ID != 0 && attributes.gid != 0 && owners::are_recorded() {
                self.owners.insert(at.as_bytes(), Owner { uid: attributes.uid, gid: attributes.gid });
            }
        }
        Ok(())
    }

    fn set_attributes(
        &mut self,
        path: &LayerPath,
        at: &LayerPath,
        fd: BorrowedFd<'_>,
        attributes: &Attributes,
    ) -> Result<(), ApplyError> {
        let owner = Owner { uid: attributes.uid, gid: attributes.gid };
        self.own(path, at, owner, owners::give_open(fd, owner))?;
        let is_folder = rustix::fs::fstat(fd).map(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory);
        is_folder
            .and_then(|is_folder| owners::set_mode_open(fd, is_folder, attributes.mode))
            .map_err(|error| ApplyError::at("setting the mode of", path, error))?;
        let xattr = |name: &[u8], value: &[u8]| rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty());
        self.set_xattrs(path, &attributes.xattrs, &xattr)?;
        rustix::fs::futimens(fd, &times(attributes.modified))
            .map_err(|error| ApplyError::at("setting the time of", path, error))
    }

    /// For what cannot be opened: links, devices and pipes. The name was made just now.
    pub(super) fn set_attributes_of_name(
        &mut self,
        entry: &Entry,
        folder: &Folder,
        name: &[u8],
    ) -> Result<(), ApplyError> {
        let path = &entry.path;
        let nofollow = AtFlags::SYMLINK_NOFOLLOW;
        let (at, owner) = (folder.path.join(name), Owner { uid: entry.uid, gid: entry.gid });
        let here = self.path(&at);
        self.own(path, &at, owner, owners::give(&here, owner))?;
        // A link has no mode of its own, and setting one would go through it.
        if !matches!(entry.kind, crate::layer::Kind::Symlink(_)) {
            rustix::fs::chmodat(&folder.fd, name, Mode::from_raw_mode(entry.mode), AtFlags::empty())
                .map_err(|error| ApplyError::at("setting the mode of", path, error))?;
        }
        let xattr = |name: &[u8], value: &[u8]| rustix::fs::lsetxattr(&here, name, value, XattrFlags::empty());
        self.set_xattrs(path, &entry.xattrs, &xattr)?;
        rustix::fs::utimensat(&folder.fd, name, &times(entry.modified), nofollow)
            .map_err(|error| ApplyError::at("setting the time of", path, error))
    }

    /// An owner that cannot be set here (outside of the user namespace's map, or we are not root) is no error: it is
    /// recorded, and the layer's blob has it, which is what is pushed.
    fn own(
        &mut self,
        path: &LayerPath,
        at: &LayerPath,
        owner: Owner,
        outcome: Result<Given, Errno>,
    ) -> Result<(), ApplyError> {
        let Owner { uid, gid } = owner;
        match outcome {
            Ok(Given::Really) if uid == u32::MAX || gid == u32::MAX => {
                self.note(path, format!("its owner {uid}:{gid}, which no file can have"));
            }
            Ok(Given::Really | Given::Recorded) => {}
            Ok(Given::Not) if owners::are_recorded() => self.owners.insert(at.as_bytes(), owner),
            Ok(Given::Not) => self.note(path, format!("its owner {uid}:{gid}, which cannot be set here")),
            Err(error) => return Err(ApplyError::at("setting the owner of", path, error)),
        }
        Ok(())
    }

    fn set_xattrs(
        &mut self,
        path: &LayerPath,
        xattrs: &BTreeMap<Vec<u8>, Vec<u8>>,
        set: &SetXattr<'_>,
    ) -> Result<(), ApplyError> {
        for (name, value) in xattrs {
            let text = String::from_utf8_lossy(name);
            if name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.") {
                self.note(path, format!("its attribute {text}, which would direct overlayfs"));
                continue;
            }
            if name.starts_with(owners::OURS.as_bytes()) {
                self.note(path, format!("its attribute {text}, in which we record owners"));
                continue;
            }
            // The kernel takes an empty value, and fails to read it later.
            if name == b"security.capability" && ![12, 20, 24].contains(&value.len()) {
                self.note(path, format!("its attribute {text}, which holds no capabilities"));
                continue;
            }
            let done = match set(name, value) {
                Err(Errno::PERM) if name == b"security.capability" && owners::are_modes_recorded() => {
                    set(owners::CAPABILITY.as_bytes(), value)
                }
                done => done,
            };
            match done {
                Ok(()) => {}
                Err(Errno::PERM | Errno::OPNOTSUPP | Errno::INVAL | Errno::ACCESS | Errno::RANGE | Errno::TOOBIG) => {
                    self.note(path, format!("its attribute {text}, which cannot be set here"))
                }
                Err(error) => return Err(ApplyError::at("setting an attribute of", path, error)),
            }
        }
        Ok(())
    }
}

fn times(modified: FileTime) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: modified.seconds, tv_nsec: modified.nanoseconds.into() },
    }
}
