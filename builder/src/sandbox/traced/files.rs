//! Which call is what, and those that open, make, move and remove files.

use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, FileType, Mode, RenameFlags};
use rustix::io::Errno;

use super::filter::FCHMODAT2;
use super::paths::Spot;
use super::program;
use super::system;
use super::task::{MAY_EXECUTE, MAY_READ, MAY_WRITE, Then};
use super::world::{Caller, Outcome, Place, set_argument};
use crate::owners::least_mode;

const HERE: i32 = libc::AT_FDCWD;
const NOFOLLOW: i32 = libc::AT_SYMLINK_NOFOLLOW;

impl Caller<'_> {
    /// What becomes of the call that the task has stopped in.
    pub(super) fn answer(&self) -> Result<Outcome, Errno> {
        let call = self.registers.orig_rax.cast_signed();
        if let Some(answer) = self.ids(call) {
            return answer;
        }
        let (number, unsigned) = (|place| self.number(place), |place| self.unsigned(place));
        let follows = |flags: i32| flags & NOFOLLOW == 0;
        let object = |path, follow| self.object(HERE, path, 0, follow);
        match call {
            libc::SYS_fstat => self.fstat(),
            libc::SYS_newfstatat => self.fstatat(),
            libc::SYS_stat => self.stat(&object(0, true)?, 1),
            libc::SYS_lstat => self.stat(&object(0, false)?, 1),
            libc::SYS_statx => self.statx(),
            libc::SYS_openat => self.open(number(0), 1, number(2), Some(3)),
            libc::SYS_open => self.open(HERE, 0, number(1), Some(2)),
            libc::SYS_creat => self.open(HERE, 0, libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC, Some(1)),
            libc::SYS_access => self.access(HERE, 0, number(1), 0),
            libc::SYS_faccessat => self.access(number(0), 1, number(2), 0),
            libc::SYS_faccessat2 => self.access(number(0), 1, number(2), number(3)),
            libc::SYS_readlink => self.read_link(HERE, 0),
            libc::SYS_readlinkat => self.read_link(number(0), 1),
            libc::SYS_execve => self.execute(HERE, 0, 0),
            libc::SYS_execveat => self.execute(number(0), 1, number(4)),
            libc::SYS_chdir => self.change_folder(),
            libc::SYS_getcwd => self.current_folder(),
            libc::SYS_mkdir => self.make_folder(HERE, 0, unsigned(1)),
            libc::SYS_mkdirat => self.make_folder(number(0), 1, unsigned(2)),
            libc::SYS_rmdir => self.remove(HERE, 0, libc::AT_REMOVEDIR),
            libc::SYS_unlink => self.remove(HERE, 0, 0),
            libc::SYS_unlinkat => self.remove(number(0), 1, number(2)),
            libc::SYS_rename => self.rename((HERE, 0), (HERE, 1), 0),
            libc::SYS_renameat => self.rename((number(0), 1), (number(2), 3), 0),
            libc::SYS_renameat2 => self.rename((number(0), 1), (number(2), 3), unsigned(4)),
            libc::SYS_link => self.link((HERE, 0), (HERE, 1), 0),
            libc::SYS_linkat => self.link((number(0), 1), (number(2), 3), number(4)),
            libc::SYS_symlink => self.symlink(0, HERE, 1),
            libc::SYS_symlinkat => self.symlink(0, number(1), 2),
            libc::SYS_mknod => self.make_node(HERE, 0, unsigned(1)),
            libc::SYS_mknodat => self.make_node(number(0), 1, unsigned(2)),
            libc::SYS_chmod => self.chmod(&object(0, true)?, unsigned(1)),
            libc::SYS_fchmod => self.chmod(&self.held(number(0))?, unsigned(1)),
            libc::SYS_fchmodat => self.chmod(&self.object(number(0), 1, 0, true)?, unsigned(2)),
            FCHMODAT2 => {
                let flags = number(3);
                self.chmod(&self.object(number(0), 1, flags, follows(flags))?, unsigned(2))
            }
            libc::SYS_chown => self.chown(&object(0, true)?, unsigned(1), unsigned(2)),
            libc::SYS_lchown => self.chown(&object(0, false)?, unsigned(1), unsigned(2)),
            libc::SYS_fchown => self.chown(&self.held(number(0))?, unsigned(1), unsigned(2)),
            libc::SYS_fchownat => {
                let flags = number(4);
                self.chown(&self.object(number(0), 1, flags, follows(flags))?, unsigned(2), unsigned(3))
            }
            libc::SYS_utimensat => {
                let (times, flags) = (self.times(self.argument(2))?, number(3));
                let found = if self.argument(1) == 0 {
                    self.held(number(0))?
                } else {
                    self.object(number(0), 1, flags, follows(flags))?
                };
                self.set_times(&found, &times)
            }
            libc::SYS_utime => self.set_times(&object(0, true)?, &self.old_times(self.argument(1), false)?),
            libc::SYS_utimes => self.set_times(&object(0, true)?, &self.old_times(self.argument(1), true)?),
            libc::SYS_futimesat => {
                let times = self.old_times(self.argument(2), true)?;
                let found =
                    if self.argument(1) == 0 { self.held(number(0))? } else { self.object(number(0), 1, 0, true)? };
                self.set_times(&found, &times)
            }
            libc::SYS_setxattr => self.set_attribute(&object(0, true)?),
            libc::SYS_lsetxattr => self.set_attribute(&object(0, false)?),
            libc::SYS_fsetxattr => self.set_attribute(&self.held(number(0))?),
            libc::SYS_getxattr => self.get_attribute(&object(0, true)?),
            libc::SYS_lgetxattr => self.get_attribute(&object(0, false)?),
            libc::SYS_fgetxattr => self.get_attribute(&self.held(number(0))?),
            libc::SYS_listxattr => self.list_attributes(&object(0, true)?),
            libc::SYS_llistxattr => self.list_attributes(&object(0, false)?),
            libc::SYS_flistxattr => self.list_attributes(&self.held(number(0))?),
            libc::SYS_removexattr => self.remove_attribute(&object(0, true)?),
            libc::SYS_lremovexattr => self.remove_attribute(&object(0, false)?),
            libc::SYS_fremovexattr => self.remove_attribute(&self.held(number(0))?),
            libc::SYS_truncate => self.truncate(),
            libc::SYS_statfs => {
                let found = object(0, true)?;
                self.write(1, &system::statfs(&found.name())?)
            }
            libc::SYS_inotify_add_watch => {
                let path = self.real(HERE, 1, true)?;
                self.changed(&[(1, &path)], Then::Nothing)
            }
            libc::SYS_connect | libc::SYS_bind => self.address(call == libc::SYS_bind),
            libc::SYS_chroot => {
                let root = self.world.root.seen(&object(0, true)?.path()?);
                if root == b"/" { Ok(Outcome::DONE) } else { Err(Errno::PERM) }
            }
            libc::SYS_umask => {
                self.task.process.borrow_mut().umask = unsigned(0) & 0o777;
                Ok(Outcome::Run)
            }
            libc::SYS_uname => {
                let mut names = system::uname()?;
                const NAME_BYTES: usize = 65;
                let name = self.world.hostname.as_bytes();
                let name = &name[..name.len().min(NAME_BYTES - 1)];
                names[NAME_BYTES..2 * NAME_BYTES].fill(0);
                names[NAME_BYTES..NAME_BYTES + name.len()].copy_from_slice(name);
                self.write(0, &names)
            }
            libc::SYS_kill => self.kill(),
            _ => Ok(Outcome::Run),
        }
    }

    fn real(&self, at: i32, path: Place, follow: bool) -> Result<Vec<u8>, Errno> {
        let path = self.string(path)?;
        self.world.root.real_path(self, &self.absolute(at, &path)?, follow)
    }

    fn masked(&self, mode: u32) -> u32 {
        mode & 0o7777 & !self.task.process.borrow().umask
    }

    fn open(&self, at: i32, path: Place, flags: i32, mode: Option<Place>) -> Result<Outcome, Errno> {
        let follow =
            flags & libc::O_NOFOLLOW == 0 && flags & (libc::O_CREAT | libc::O_EXCL) != libc::O_CREAT | libc::O_EXCL;
        let real = self.real(at, path, follow)?;
        let writes = flags & libc::O_ACCMODE != libc::O_RDONLY || flags & (libc::O_CREAT | libc::O_TRUNC) != 0;
        if writes && self.world.root.is_read_only(&real) {
            return Err(Errno::ROFS);
        }
        let creates = flags & libc::O_CREAT != 0 && flags & libc::O_TMPFILE != libc::O_TMPFILE;
        let mut then = Then::Nothing;
        let mut real_mode = None;
        if creates || !self.credentials.is_root() {
            let name = CString::new(real.clone()).map_err(|_| Errno::INVAL)?;
            match system::stat(CWD, &name, NOFOLLOW) {
                Err(Errno::NOENT) if creates => {
                    let end = real.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
                    let folder = CString::new(&real[..end.max(1)]).map_err(|_| Errno::INVAL)?;
                    let seen = self.world.owners.seen(&system::stat(CWD, &folder, 0)?, &folder);
                    self.credentials.may(seen, MAY_WRITE | MAY_EXECUTE)?;
                    let owner = self.credentials.maker(seen);
                    let wanted = self.masked(mode.map_or(0, |place| self.unsigned(place)));
                    let kept = least_mode(false, wanted);
                    let recorded = (wanted & kept != kept).then_some(wanted);
                    real_mode = recorded.map(|mode| mode | kept);
                    if owner != (0, 0) || recorded.is_some() {
                        then = Then::Made { path: real.clone(), owner, mode: recorded };
                    }
                }
                Ok(stat) if !self.credentials.is_root() => {
                    let seen = self.world.owners.seen(&stat, &name);
                    if seen.ours
                        && matches!(seen.kind(), FileType::RegularFile | FileType::Directory)
                        && flags & libc::O_PATH == 0
                    {
                        let wanted = match flags & libc::O_ACCMODE {
                            libc::O_RDONLY => MAY_READ,
                            libc::O_WRONLY => MAY_WRITE,
                            _ => MAY_READ | MAY_WRITE,
                        };
                        let cuts = if flags & libc::O_TRUNC != 0 { MAY_WRITE } else { 0 };
                        self.credentials.may(seen, wanted | cuts)?;
                    }
                }
                _ => {}
            }
        }
        let mut outcome = self.changed(&[(path, &real)], then)?;
        if let (Outcome::Changed(changed), Some(mode), Some(place)) = (&mut outcome, real_mode, mode) {
            set_argument(&mut changed.0, place, mode.into());
        }
        Ok(outcome)
    }

    fn read_link(&self, at: i32, path: Place) -> Result<Outcome, Errno> {
        let (to, room) = (path + 1, self.number(path + 2));
        let room = usize::try_from(room).ok().filter(|room| *room > 0).ok_or(Errno::INVAL)?;
        let text = self.string(path)?;
        let target = if text.is_empty() && at != HERE {
            rustix::fs::readlinkat(self.held(at)?.fd(), c"", Vec::new())?.into_bytes()
        } else {
            let real = self.world.root.real_path(self, &self.absolute(at, &text)?, false)?;
            match self.process_link(&real) {
                Some(target) => target?,
                None => rustix::fs::readlink(real, Vec::new())?.into_bytes(),
            }
        };
        let target = &target[..target.len().min(room)];
        self.memory.write(self.argument(to), target)?;
        Ok(Outcome::Return(target.len() as u64))
    }

    /// Links in `/proc` that hold real paths.
    fn process_link(&self, real: &[u8]) -> Option<Result<Vec<u8>, Errno>> {
        let rest = real.strip_prefix(b"/proc/")?;
        let names: Vec<&[u8]> = rest.split(|byte| *byte == b'/').collect();
        let names =
            if names.get(1) == Some(&b"task".as_slice()) { [&names[..1], names.get(3..)?].concat() } else { names };
        let read = || Ok(self.world.root.seen(rustix::fs::readlink(real, Vec::new())?.to_bytes()));
        match names[..] {
            [_, b"root"] => Some(Ok(b"/".to_vec())),
            [_, b"cwd"] | [_, b"fd", _] | [_, b"map_files", _] => Some(read()),
            [process, b"exe"] => {
                let tgid = std::str::from_utf8(process).ok()?.parse().ok()?;
                Some(super::paths::Namer::program(self, tgid).ok_or(Errno::NOENT))
            }
            _ => None,
        }
    }

    fn change_folder(&self) -> Result<Outcome, Errno> {
        let found = self.object(HERE, 0, 0, true)?;
        if !self.credentials.is_root() {
            let (_, seen) = self.world.owners.stat(&found)?;
            self.credentials.may(seen, MAY_EXECUTE)?;
        }
        self.changed(&[(0, &found.path()?)], Then::Nothing)
    }

    fn current_folder(&self) -> Result<Outcome, Errno> {
        let folder = rustix::fs::readlink(format!("/proc/{}/cwd", self.task.tid), Vec::new())?;
        let folder = folder.to_bytes();
        if folder.ends_with(b" (deleted)") {
            return Err(Errno::NOENT);
        }
        let seen = [&self.world.root.seen(folder), b"\0".as_slice()].concat();
        if (seen.len() as u64) > self.argument(1) {
            return Err(Errno::RANGE);
        }
        self.memory.write(self.argument(0), &seen)?;
        Ok(Outcome::Return(seen.len() as u64))
    }

    fn make_folder(&self, at: i32, path: Place, mode: u32) -> Result<Outcome, Errno> {
        let spot = self.spot(at, path)?;
        let folder = self.may_fill(&spot.folder)?;
        // Of the special bits `mkdir` takes the sticky one alone.
        let mode = self.masked(mode & 0o1777);
        let real = mode | least_mode(true, mode);
        rustix::fs::mkdirat(spot.folder.fd(), &spot.name, Mode::from_raw_mode(real))?;
        self.give(&spot, folder)?;
        if real != mode || folder.mode & libc::S_ISGID != 0 {
            let mode = mode | folder.mode & libc::S_ISGID;
            self.world.owners.set_mode(&self.at(&spot)?.name(), FileType::Directory, mode)?;
        }
        Ok(Outcome::DONE)
    }

    fn remove(&self, at: i32, path: Place, flags: i32) -> Result<Outcome, Errno> {
        let spot = self.spot(at, path)?;
        self.may_empty(&spot)?;
        let flags = AtFlags::from_bits_truncate(flags.cast_unsigned());
        rustix::fs::unlinkat(spot.folder.fd(), &spot.name, flags).map(|()| Outcome::DONE)
    }

    fn rename(&self, from: (i32, Place), to: (i32, Place), flags: u32) -> Result<Outcome, Errno> {
        let (from, to) = (self.spot(from.0, from.1)?, self.spot(to.0, to.1)?);
        self.may_empty(&from)?;
        if !self.credentials.is_root() {
            self.may_fill(&to.folder)?;
            match self.may_empty(&to) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno),
            }
        }
        let flags = RenameFlags::from_bits_retain(flags);
        let done = if flags.is_empty() {
            rustix::fs::renameat(from.folder.fd(), &from.name, to.folder.fd(), &to.name)
        } else {
            rustix::fs::renameat_with(from.folder.fd(), &from.name, to.folder.fd(), &to.name, flags)
        };
        done.map(|()| Outcome::DONE)
    }

    fn link(&self, from: (i32, Place), to: (i32, Place), flags: i32) -> Result<Outcome, Errno> {
        let to = self.spot(to.0, to.1)?;
        self.may_fill(&to.folder)?;
        let done = if flags & (libc::AT_SYMLINK_FOLLOW | libc::AT_EMPTY_PATH) != 0 {
            // The kernel follows a descriptor's link in the name of its holder.
            let path = self.string(from.1)?;
            let name = if path.is_empty() {
                self.descriptor(from.0)?
            } else {
                CString::new(self.real(from.0, from.1, true)?).map_err(|_| Errno::INVAL)?
            };
            rustix::fs::linkat(CWD, name, to.folder.fd(), &to.name, AtFlags::SYMLINK_FOLLOW)
        } else {
            let from = self.spot(from.0, from.1)?;
            rustix::fs::linkat(from.folder.fd(), &from.name, to.folder.fd(), &to.name, AtFlags::empty())
        };
        done.map(|()| Outcome::DONE)
    }

    fn symlink(&self, target: Place, at: i32, path: Place) -> Result<Outcome, Errno> {
        let target = self.string(target)?;
        let spot = self.spot(at, path)?;
        let folder = self.may_fill(&spot.folder)?;
        rustix::fs::symlinkat(target, spot.folder.fd(), &spot.name)?;
        self.give(&spot, folder).map(|()| Outcome::DONE)
    }

    fn make_node(&self, at: i32, path: Place, mode: u32) -> Result<Outcome, Errno> {
        let kind = match mode & libc::S_IFMT {
            0 => FileType::RegularFile,
            kind => FileType::from_raw_mode(kind),
        };
        if !matches!(kind, FileType::RegularFile | FileType::Fifo | FileType::Socket) {
            return Err(Errno::PERM);
        }
        let spot = self.spot(at, path)?;
        let folder = self.may_fill(&spot.folder)?;
        let wanted = self.masked(mode);
        let real = if kind == FileType::RegularFile { wanted | least_mode(false, wanted) } else { wanted };
        rustix::fs::mknodat(spot.folder.fd(), &spot.name, kind, Mode::from_raw_mode(real), 0)?;
        self.give(&spot, folder)?;
        if real != wanted {
            self.world.owners.set_mode(&self.at(&spot)?.name(), kind, wanted)?;
        }
        Ok(Outcome::DONE)
    }

    fn truncate(&self) -> Result<Outcome, Errno> {
        use rustix::fs::OFlags;
        let found = self.object(HERE, 0, 0, true)?;
        let (_, seen) = self.world.owners.stat(&found)?;
        self.credentials.may(seen, MAY_WRITE)?;
        self.may_change(&found)?;
        if seen.kind() != FileType::RegularFile {
            return Err(if seen.kind() == FileType::Directory { Errno::ISDIR } else { Errno::INVAL });
        }
        let file = rustix::fs::open(found.name(), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
        rustix::fs::ftruncate(file, self.argument(1)).map(|()| Outcome::DONE)
    }

    /// A socket's address that is a path: the real one, or where that is too long for an address, one through a
    /// descriptor of the tracer.
    fn address(&self, binds: bool) -> Result<Outcome, Errno> {
        const FAMILY_BYTES: usize = 2;
        const PATH_MAX_BYTES: usize = 107;
        let length = usize::try_from(self.argument(2)).unwrap_or(0);
        if !(FAMILY_BYTES + 1..=PATH_MAX_BYTES + FAMILY_BYTES + 1).contains(&length) {
            return Ok(Outcome::Run);
        }
        let mut address = vec![0; length];
        self.memory.read(self.argument(1), &mut address)?;
        let unix = u16::try_from(libc::AF_UNIX).unwrap_or(0).to_ne_bytes();
        if address[..FAMILY_BYTES] != unix || address[FAMILY_BYTES] == 0 {
            return Ok(Outcome::Run);
        }
        let path = address[FAMILY_BYTES..].split(|byte| *byte == 0).next().unwrap_or_default();
        let path = self.absolute(HERE, path)?;
        let process = std::process::id();
        let through = |fd: &OwnedFd| format!("/proc/{process}/fd/{}", fd.as_raw_fd()).into_bytes();
        let (real, held): (Vec<u8>, OwnedFd) = if binds {
            let Spot { folder, name } = self.world.root.spot(self, &path)?;
            self.may_fill(&folder)?;
            let real = super::paths::joined(&folder.path()?, name.to_bytes());
            let short = super::paths::joined(&through(&folder.0), name.to_bytes());
            (if real.len() > PATH_MAX_BYTES { short } else { real }, folder.0)
        } else {
            let found = self.world.root.find(self, &path, true)?;
            let real = found.path()?;
            (if real.len() > PATH_MAX_BYTES { through(&found.0) } else { real }, found.0)
        };
        if real.len() > PATH_MAX_BYTES {
            return Err(Errno::NAMETOOLONG);
        }
        let bytes = [unix.as_slice(), &real, b"\0"].concat();
        let (slot, at) = self.room(bytes.len())?;
        if let Err(errno) = self.memory.write(at, &bytes) {
            self.free(slot);
            return Err(errno);
        }
        let mut registers = self.registers;
        set_argument(&mut registers, 1, at);
        set_argument(&mut registers, 2, bytes.len() as u64);
        Ok(self.changed_holding(registers, slot, held))
    }

    /// A signal reaches processes of the sandbox only: the others are the builder's.
    fn kill(&self) -> Result<Outcome, Errno> {
        let (target, signal) = (self.number(0), self.number(1));
        let processes: Vec<i32> = self
            .world
            .processes
            .borrow()
            .iter()
            .filter(|(_, process)| process.strong_count() > 0)
            .map(|(tgid, _)| *tgid)
            .collect();
        match target {
            0 => Ok(Outcome::Run),
            -1 => {
                for process in processes.into_iter().filter(|process| *process != self.task.process.borrow().tgid) {
                    let _ = system::kill(process, signal);
                }
                Ok(Outcome::DONE)
            }
            1.. if processes.contains(&target) => Ok(Outcome::Run),
            1.. => Err(Errno::SRCH),
            _ => {
                let in_group = |process: &i32| system::group(*process) == Ok(-target);
                if processes.iter().any(in_group) { Ok(Outcome::Run) } else { Err(Errno::SRCH) }
            }
        }
    }

    fn execute(&self, at: i32, path: Place, flags: i32) -> Result<Outcome, Errno> {
        let shown = self.string(path)?;
        let (path, shown) = if shown.is_empty() && flags & libc::AT_EMPTY_PATH != 0 {
            (format!("/proc/self/fd/{at}").into_bytes(), format!("/dev/fd/{at}").into_bytes())
        } else {
            (self.absolute(at, &shown)?, shown)
        };
        let place = if self.registers.orig_rax.cast_signed() == libc::SYS_execve { 0 } else { 1 };
        let world = self.world;
        let prepared = program::prepare(&world.root, &world.owners, self, &self.credentials, &path, &shown)?;
        let mut registers = self.registers;
        // The path, then the strings of new arguments, then the list of all.
        let mut bytes = [&prepared.real, b"\0".as_slice()].concat();
        let mut list = Vec::new();
        if let Some(arguments) = &prepared.arguments {
            let given = self.memory.list(self.argument(place + 1))?;
            for argument in arguments {
                list.push(bytes.len() as u64);
                bytes.extend_from_slice(argument);
                bytes.push(0);
            }
            bytes.resize(bytes.len().next_multiple_of(8), 0);
            let new = list.len();
            list.extend(given.iter().skip(1));
            let (slot, address) = self.room(bytes.len() + 8 * (list.len() + 1))?;
            let written: Vec<u8> = list
                .iter()
                .enumerate()
                .map(|(at, word)| if at < new { address + word } else { *word })
                .chain([0])
                .flat_map(u64::to_ne_bytes)
                .collect();
            if let Err(errno) = self.memory.write(address, &[bytes.as_slice(), &written].concat()) {
                self.free(slot);
                return Err(errno);
            }
            set_argument(&mut registers, place, address);
            set_argument(&mut registers, place + 1, address + bytes.len() as u64);
            return Ok(self.changed_registers(without_flags(registers), slot, Then::Program(Box::new(prepared))));
        }
        let (slot, address) = self.room(bytes.len())?;
        if let Err(errno) = self.memory.write(address, &bytes) {
            self.free(slot);
            return Err(errno);
        }
        set_argument(&mut registers, place, address);
        Ok(self.changed_registers(without_flags(registers), slot, Then::Program(Box::new(prepared))))
    }
}

/// `execveat` of an absolute path.
fn without_flags(mut registers: system::Registers) -> system::Registers {
    if registers.orig_rax.cast_signed() == libc::SYS_execveat {
        set_argument(&mut registers, 4, 0);
    }
    registers
}
