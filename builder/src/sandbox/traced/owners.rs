//! The owners and modes that the command sees: recorded, for an ordinary user can set hardly any of them.
//!
//! Owners are where [`owners`](crate::owners) has them: in an attribute of a file, and in a table for links, which can have
//! none. Modes are real but for the bits that would keep the builder itself out: those are recorded too.

use std::cell::RefCell;
use std::ffi::{CStr, CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{FileType, Mode, XattrFlags};
use rustix::io::Errno;

use super::super::error::{During, Failure};
use super::paths::Found;
use super::system::{self, STAT_BYTES};
use crate::owners::{ATTRIBUTE, Inode, Inodes, MODE, Owner, Paths, TEXT_MAX_BYTES, least_mode};

/// Where the fields are in the kernel's `struct stat` on x86_64.
const MODE_AT: usize = 24;
const UID_AT: usize = 28;
const GID_AT: usize = 32;

/// What the command sees of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// With the file's type.
    pub(super) mode: u32,
    /// It is the builder's, so that something can be recorded of it.
    pub(super) ours: bool,
}

impl Seen {
    pub(super) fn kind(self) -> FileType {
        FileType::from_raw_mode(self.mode)
    }
}

/// The owners of one run.
#[derive(Debug)]
pub(super) struct Owners {
    /// Who the builder is: what belongs to it belongs to root.
    uid: u32,
    gid: u32,
    /// Owners of links and the like.
    links: RefCell<Inodes>,
    attribute: CString,
    mode: CString,
}

fn field<const N: usize>(stat: &[u8; STAT_BYTES], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&stat[at..at + N]);
    bytes
}

impl Owners {
    /// Those of a root, as layers and earlier runs left them.
    pub(super) fn of(root: &Path) -> Result<Self, Failure> {
        let what = || format!("reading the owners beside {}", root.display());
        let mut links = Inodes::of_run(root).during(what)?;
        for (path, owner) in Paths::of_tree(root).during(what)?.iter() {
            if let Ok(metadata) = root.join(OsStr::from_bytes(path)).symlink_metadata()
                && !metadata.is_dir()
            {
                links.insert(Inode::of(&metadata), owner);
            }
        }
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let name = |text: &str| CString::new(text).unwrap_or_default();
        Ok(Self { uid, gid, links: RefCell::new(links), attribute: name(ATTRIBUTE), mode: name(MODE) })
    }

    /// Leaves beside the root what was recorded of links.
    pub(super) fn keep(&self, root: &Path) -> Result<(), Failure> {
        let what = || format!("writing the owners beside {}", root.display());
        self.links.borrow().write_for_run(root).during(what)
    }

    /// The real `struct stat` of an object, and what the command sees of it.
    pub(super) fn stat(&self, found: &Found) -> Result<([u8; STAT_BYTES], Seen), Errno> {
        let mut stat = system::stat(found.fd(), c"", libc::AT_EMPTY_PATH)?;
        let seen = self.seen(&stat, &found.name());
        Self::show(&mut stat, seen);
        Ok((stat, seen))
    }

    /// What the command sees of a file, by its real `struct stat` and a path to it.
    pub(super) fn seen(&self, stat: &[u8; STAT_BYTES], name: &CStr) -> Seen {
        let mode = u32::from_ne_bytes(field(stat, MODE_AT));
        let (uid, gid) = (u32::from_ne_bytes(field(stat, UID_AT)), u32::from_ne_bytes(field(stat, GID_AT)));
        let mut seen = Seen {
            uid: if uid == self.uid { 0 } else { uid },
            gid: if gid == self.gid { 0 } else { gid },
            mode,
            ours: uid == self.uid,
        };
        if !seen.ours {
            return seen;
        }
        match seen.kind() {
            FileType::RegularFile | FileType::Directory => {
                let mut value = [0; TEXT_MAX_BYTES];
                if let Some(owner) = text(name, &self.attribute, &mut value).and_then(Owner::parse) {
                    (seen.uid, seen.gid) = (owner.uid, owner.gid);
                }
                // Only where the real mode is one that would be recorded.
                let least = least_mode(seen.kind() == FileType::Directory, 0);
                if mode & least == least
                    && let Some(recorded) = text(name, &self.mode, &mut value).and_then(crate::owners::parse_mode)
                {
                    seen.mode = mode & libc::S_IFMT | recorded;
                }
            }
            _ => {
                if !self.links.borrow().is_empty()
                    && let Some(owner) = inode(name).and_then(|inode| self.links.borrow().get(&inode))
                {
                    (seen.uid, seen.gid) = (owner.uid, owner.gid);
                }
            }
        }
        seen
    }

    pub(super) fn show(stat: &mut [u8; STAT_BYTES], seen: Seen) {
        stat[MODE_AT..MODE_AT + 4].copy_from_slice(&seen.mode.to_ne_bytes());
        stat[UID_AT..UID_AT + 4].copy_from_slice(&seen.uid.to_ne_bytes());
        stat[GID_AT..GID_AT + 4].copy_from_slice(&seen.gid.to_ne_bytes());
    }

    /// Records an owner.
    pub(super) fn set_owner(&self, name: &CStr, uid: u32, gid: u32) -> Result<(), Errno> {
        let stat = system::stat(rustix::fs::CWD, name, 0)?;
        let mode = u32::from_ne_bytes(field(&stat, MODE_AT));
        if u32::from_ne_bytes(field(&stat, UID_AT)) != self.uid {
            // Not ours: a device of the machine.
            return Err(Errno::PERM);
        }
        if matches!(FileType::from_raw_mode(mode), FileType::RegularFile | FileType::Directory) {
            let owner = Owner { uid, gid };
            let recorded = if owner == Owner::ROOT {
                rustix::fs::removexattr(name, &*self.attribute)
            } else {
                rustix::fs::setxattr(name, &*self.attribute, owner.text().as_bytes(), XattrFlags::empty())
            };
            return match recorded {
                Err(Errno::NODATA | Errno::OPNOTSUPP) if owner == Owner::ROOT => Ok(()),
                other => other,
            };
        }
        if let Some(inode) = inode(name) {
            self.links.borrow_mut().insert(inode, Owner { uid, gid });
        }
        Ok(())
    }

    /// Sets permission bits: those that the builder can do with, and a record of the others.
    pub(super) fn set_mode(&self, name: &CStr, kind: FileType, mode: u32) -> Result<(), Errno> {
        let mode = mode & 0o7777;
        let real = match kind {
            FileType::RegularFile | FileType::Directory => mode | least_mode(kind == FileType::Directory, mode),
            _ => mode,
        };
        rustix::fs::chmod(name, Mode::from_raw_mode(real))?;
        if real == mode {
            return match rustix::fs::removexattr(name, &*self.mode) {
                Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::PERM) | Ok(()) => Ok(()),
                Err(errno) => Err(errno),
            };
        }
        rustix::fs::setxattr(name, &*self.mode, format!("{mode:o}").as_bytes(), XattrFlags::empty())
    }
}

/// Which file a path that names it in `/proc` leads to.
fn inode(name: &CStr) -> Option<Inode> {
    Some(Inode::of(&Path::new(OsStr::from_bytes(name.to_bytes())).metadata().ok()?))
}

fn text<'a>(name: &CStr, attribute: &CStr, value: &'a mut [u8]) -> Option<&'a [u8]> {
    let length = rustix::fs::getxattr(name, attribute, &mut *value).ok()?;
    value.get(..length)
}
