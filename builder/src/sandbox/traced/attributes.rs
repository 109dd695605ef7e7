//! Calls that read and change what is known about a file.

use std::ffi::{CStr, CString};

use rustix::fs::{AtFlags, FileType, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;

use super::owners::Owners;
use super::paths::Found;
use super::system;
use super::task::{MAY_EXECUTE, MAY_READ, MAY_WRITE, REAL};
use super::world::{Caller, Outcome, Place};
use crate::owners::OURS;

/// "Leave it as it is", for an owner.
const SAME: u32 = u32::MAX;

/// The longest value that the kernel takes, in bytes, and the longest list.
const VALUE_MAX_BYTES: usize = 65_536;

impl Caller<'_> {
    pub(super) fn stat(&self, found: &Found, to: Place) -> Result<Outcome, Errno> {
        self.write(to, &self.world.owners.stat(found)?.0)
    }

    pub(super) fn fstat(&self) -> Result<Outcome, Errno> {
        let name = self.descriptor(self.number(0))?;
        self.write(1, &self.stat_of_descriptor(&name)?)
    }

    fn stat_of_descriptor(&self, name: &CStr) -> Result<[u8; system::STAT_BYTES], Errno> {
        let missing = |errno| if errno == Errno::NOENT { Errno::BADF } else { errno };
        let mut stat = system::stat(rustix::fs::CWD, name, 0).map_err(missing)?;
        let seen = self.world.owners.seen(&stat, name);
        Owners::show(&mut stat, seen);
        Ok(stat)
    }

    pub(super) fn fstatat(&self) -> Result<Outcome, Errno> {
        let flags = self.number(3);
        if flags & libc::AT_EMPTY_PATH != 0
            && self.number(0) != libc::AT_FDCWD
            && (self.argument(1) == 0 || self.string(1)?.is_empty())
        {
            return self.write(2, &self.stat_of_descriptor(&self.descriptor(self.number(0))?)?);
        }
        let found = self.object(self.number(0), 1, flags, flags & libc::AT_SYMLINK_NOFOLLOW == 0)?;
        self.stat(&found, 2)
    }

    pub(super) fn statx(&self) -> Result<Outcome, Errno> {
        let (flags, mask) = (self.number(2), self.unsigned(3));
        let found = self.object(self.number(0), 1, flags, flags & libc::AT_SYMLINK_NOFOLLOW == 0)?;
        let kept = flags & !(libc::AT_SYMLINK_NOFOLLOW) | libc::AT_EMPTY_PATH;
        let mut bytes = system::statx(found.fd(), c"", kept, mask)?;
        let (_, seen) = self.world.owners.stat(&found)?;
        bytes[20..24].copy_from_slice(&seen.uid.to_ne_bytes());
        bytes[24..28].copy_from_slice(&seen.gid.to_ne_bytes());
        bytes[28..30].copy_from_slice(&(seen.mode as u16).to_ne_bytes());
        self.write(4, &bytes)
    }

    pub(super) fn access(&self, at: i32, path: Place, wanted: i32, flags: i32) -> Result<Outcome, Errno> {
        let found = self.object(at, path, flags, flags & libc::AT_SYMLINK_NOFOLLOW == 0)?;
        let wanted = wanted.cast_unsigned();
        if wanted & !(MAY_READ | MAY_WRITE | MAY_EXECUTE) != 0 {
            return Err(Errno::INVAL);
        }
        if wanted == 0 {
            return Ok(Outcome::DONE);
        }
        let (_, seen) = self.world.owners.stat(&found)?;
        if wanted & MAY_WRITE != 0 {
            self.may_change(&found)?;
        }
        if !seen.ours {
            let access = rustix::fs::Access::from_bits_truncate(wanted);
            return rustix::fs::access(found.name(), access).map(|()| Outcome::DONE);
        }
        let mut credentials = self.credentials.clone();
        if flags & libc::AT_EACCESS == 0 {
            credentials.uids[super::task::FILES] = credentials.uids[REAL];
            credentials.gids[super::task::FILES] = credentials.gids[REAL];
        }
        credentials.may(seen, wanted).map(|()| Outcome::DONE)
    }

    pub(super) fn chmod(&self, found: &Found, mode: u32) -> Result<Outcome, Errno> {
        let (_, seen) = self.world.owners.stat(found)?;
        self.credentials.owns(seen)?;
        self.may_change(found)?;
        if seen.kind() == FileType::Symlink {
            return Err(Errno::OPNOTSUPP);
        }
        self.world.owners.set_mode(&found.name(), seen.kind(), mode).map(|()| Outcome::DONE)
    }

    pub(super) fn chown(&self, found: &Found, uid: u32, gid: u32) -> Result<Outcome, Errno> {
        let (_, seen) = self.world.owners.stat(found)?;
        let (uid, gid) = (if uid == SAME { seen.uid } else { uid }, if gid == SAME { seen.gid } else { gid });
        if !self.credentials.is_root() {
            self.credentials.owns(seen)?;
            let credentials = &self.credentials;
            let member = gid == seen.gid || credentials.gids.contains(&gid) || credentials.groups.contains(&gid);
            if uid != seen.uid || !member {
                return Err(Errno::PERM);
            }
        }
        self.may_change(found)?;
        if !seen.ours {
            // A device of the machine: what a command says about it is nobody's concern.
            return Ok(Outcome::DONE);
        }
        let name = found.name();
        if (uid, gid) != (seen.uid, seen.gid) {
            self.world.owners.set_owner(&name, uid, gid)?;
        }
        // As the kernel does it: a program must not become another's with its rights.
        let special = libc::S_ISUID | if seen.mode & 0o010 != 0 { libc::S_ISGID } else { 0 };
        if seen.kind() == FileType::RegularFile && seen.mode & special != 0 {
            self.world.owners.set_mode(&name, seen.kind(), seen.mode & !special)?;
        }
        Ok(Outcome::DONE)
    }

    /// `struct timespec[2]`.
    pub(super) fn times(&self, address: u64) -> Result<Timestamps, Errno> {
        if address == 0 {
            let now = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
            return Ok(Timestamps { last_access: now, last_modification: now });
        }
        let word = |at: u64| Ok(self.memory.word(address + 8 * at)?.cast_signed());
        let time = |at| Ok::<_, Errno>(Timespec { tv_sec: word(at)?, tv_nsec: word(at + 1)? });
        Ok(Timestamps { last_access: time(0)?, last_modification: time(2)? })
    }

    /// `struct timeval[2]`, or `struct utimbuf` where there are no microseconds.
    pub(super) fn old_times(&self, address: u64, microseconds: bool) -> Result<Timestamps, Errno> {
        if address == 0 {
            return self.times(0);
        }
        let word = |at: u64| Ok::<_, Errno>(self.memory.word(address + 8 * at)?.cast_signed());
        let time = |at: u64| {
            if !microseconds {
                return Ok(Timespec { tv_sec: word(at)?, tv_nsec: 0 });
            }
            Ok::<_, Errno>(Timespec { tv_sec: word(2 * at)?, tv_nsec: word(2 * at + 1)?.saturating_mul(1000) })
        };
        Ok(Timestamps { last_access: time(0)?, last_modification: time(1)? })
    }

    pub(super) fn set_times(&self, found: &Found, times: &Timestamps) -> Result<Outcome, Errno> {
        let (_, seen) = self.world.owners.stat(found)?;
        let now = |time: &Timespec| time.tv_nsec == rustix::fs::UTIME_NOW;
        if self.credentials.owns(seen).is_err() {
            if !now(&times.last_access) || !now(&times.last_modification) {
                return Err(Errno::PERM);
            }
            self.credentials.may(seen, MAY_WRITE)?;
        }
        self.may_change(found)?;
        rustix::fs::utimensat(rustix::fs::CWD, found.name(), times, AtFlags::empty()).map(|()| Outcome::DONE)
    }

    /// The name under which an attribute is kept: those that only root may set are ours.
    fn attribute(&self, place: Place) -> Result<CString, Errno> {
        const NAME_MAX_BYTES: usize = 255;
        let name = self
            .memory
            .string(self.argument(place), NAME_MAX_BYTES + 1)
            .map_err(|errno| if errno == Errno::NAMETOOLONG { Errno::RANGE } else { errno })?;
        if name.starts_with(OURS.as_bytes()) {
            return Err(Errno::NODATA);
        }
        let kept = if name.starts_with(b"security.") || name.starts_with(b"trusted.") {
            [OURS.as_bytes(), &name].concat()
        } else {
            name
        };
        CString::new(kept).map_err(|_| Errno::INVAL)
    }

    pub(super) fn set_attribute(&self, found: &Found) -> Result<Outcome, Errno> {
        let name = self.attribute(1)?;
        let length = usize::try_from(self.argument(3)).ok().filter(|length| *length <= VALUE_MAX_BYTES);
        let mut value = vec![0; length.ok_or(Errno::TOOBIG)?];
        self.memory.read(self.argument(2), &mut value)?;
        self.may_mark(found, &name)?;
        let flags = XattrFlags::from_bits_truncate(self.unsigned(4));
        rustix::fs::setxattr(found.name(), name, &value, flags).map(|()| Outcome::DONE)
    }

    pub(super) fn remove_attribute(&self, found: &Found) -> Result<Outcome, Errno> {
        let name = self.attribute(1)?;
        self.may_mark(found, &name)?;
        rustix::fs::removexattr(found.name(), name).map(|()| Outcome::DONE)
    }

    fn may_mark(&self, found: &Found, name: &CStr) -> Result<(), Errno> {
        self.may_change(found)?;
        let bytes = name.to_bytes();
        if bytes.starts_with(b"system.") {
            // Lists of who may do what hold ids, which would be real ones.
            return Err(Errno::OPNOTSUPP);
        }
        let (_, seen) = self.world.owners.stat(found)?;
        if let Some(name) = bytes.strip_prefix(OURS.as_bytes()) {
            // Of those that only root may set, Docker's capabilities let it set this one.
            let may = self.credentials.is_root() && name == b"security.capability";
            return if may { Ok(()) } else { Err(Errno::PERM) };
        }
        self.credentials.may(seen, MAY_WRITE)
    }

    pub(super) fn get_attribute(&self, found: &Found) -> Result<Outcome, Errno> {
        let name = self.attribute(1)?;
        let mut value = vec![0; VALUE_MAX_BYTES];
        let length = rustix::fs::getxattr(found.name(), name, &mut value).map_err(|errno| match errno {
            // A link, which can have none of the user's; of the others it has none.
            Errno::PERM => Errno::NODATA,
            errno => errno,
        })?;
        self.answer_sized(2, 3, &value[..length])
    }

    pub(super) fn list_attributes(&self, found: &Found) -> Result<Outcome, Errno> {
        let mut list = vec![0; VALUE_MAX_BYTES];
        let length = rustix::fs::listxattr(found.name(), &mut list)?;
        let mut shown = Vec::new();
        for name in list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
            let name = match name.strip_prefix(OURS.as_bytes()) {
                Some(rest) if rest.contains(&b'.') => rest,
                Some(_) => continue,
                None => name,
            };
            shown.extend_from_slice(name);
            shown.push(0);
        }
        self.answer_sized(1, 2, &shown)
    }

    /// Writes a value into a buffer of a given size; with a size of 0 only its length is told.
    fn answer_sized(&self, to: Place, size: Place, value: &[u8]) -> Result<Outcome, Errno> {
        let room = self.argument(size);
        if room != 0 {
            if (value.len() as u64) > room {
                return Err(Errno::RANGE);
            }
            self.write(to, value)?;
        }
        Ok(Outcome::Return(value.len() as u64))
    }
}
