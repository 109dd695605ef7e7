//! Which call is what, and those that open, make, move and remove files.

use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, RenameFlags};
use rustix::io::Errno;

use super::filter::FCHMODAT2;
use super::memory::NO_SLOT;
use super::paths::{Found, Spot, Target};
use super::program;
use super::system;
use super::task::{MAY_EXECUTE, MAY_READ, MAY_WRITE, Then};
use super::world::{Caller, Outcome, Place as Argument, set_argument};
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
            libc::SYS_fchmod => self.chmod(&self.whole(number(0))?, unsigned(1)),
            libc::SYS_fchmodat => self.chmod(&self.object(number(0), 1, 0, true)?, unsigned(2)),
            FCHMODAT2 => {
                let flags = number(3);
                self.chmod(&self.object(number(0), 1, flags, follows(flags))?, unsigned(2))
            }
            libc::SYS_chown => self.chown(&object(0, true)?, unsigned(1), unsigned(2)),
            libc::SYS_lchown => self.chown(&object(0, false)?, unsigned(1), unsigned(2)),
            libc::SYS_fchown => self.chown(&self.whole(number(0))?, unsigned(1), unsigned(2)),
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
            libc::SYS_fsetxattr => self.set_attribute(&self.whole(number(0))?),
            libc::SYS_getxattr => self.get_attribute(&object(0, true)?),
            libc::SYS_lgetxattr => self.get_attribute(&object(0, false)?),
            libc::SYS_fgetxattr => self.get_attribute(&self.whole(number(0))?),
            libc::SYS_listxattr => self.list_attributes(&object(0, true)?),
            libc::SYS_llistxattr => self.list_attributes(&object(0, false)?),
            libc::SYS_flistxattr => self.list_attributes(&self.whole(number(0))?),
            libc::SYS_removexattr => self.remove_attribute(&object(0, true)?),
            libc::SYS_lremovexattr => self.remove_attribute(&object(0, false)?),
            libc::SYS_fremovexattr => self.remove_attribute(&self.whole(number(0))?),
            libc::SYS_truncate => self.truncate(),
            libc::SYS_statfs => {
                let found = object(0, true)?;
                self.write(1, &system::statfs(&found.name())?)
            }
            libc::SYS_inotify_add_watch => {
                let found = object(1, unsigned(2) & libc::IN_DONT_FOLLOW == 0)?;
                let through = found.shared_name();
                let Outcome::Changed(mut changed) = self.through(1, &through, found)? else { return Err(Errno::INVAL) };
                set_argument(&mut changed.0, 2, (unsigned(2) & !libc::IN_DONT_FOLLOW).into());
                Ok(Outcome::Changed(changed))
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
            libc::SYS_getsockname | libc::SYS_getpeername | libc::SYS_accept | libc::SYS_accept4 => Ok(self.named(1)),
            libc::SYS_recvfrom => Ok(self.named(4)),
            libc::SYS_sendto => self.send_to(),
            libc::SYS_sendmsg => self.send_message(Then::Nothing),
            libc::SYS_sendmmsg => self.send_first_message(),
            libc::SYS_getsockopt => Ok(self.peer()),
            libc::SYS_kill => self.kill(),
            libc::SYS_pidfd_send_signal => self.kill_held(),
            libc::SYS_setpriority | libc::SYS_ioprio_set => {
                // Of a process; not of a group, which is harmless but for that of a user, who is the builder.
                const IOPRIO_WHO_PROCESS: i32 = 1;
                let process = if call == libc::SYS_setpriority { 0 } else { IOPRIO_WHO_PROCESS };
                if number(0) == process { self.of_ours(number(1)) } else { Err(Errno::PERM) }
            }
            libc::SYS_fcntl => {
                let to = number(2);
                if to < 0 { Err(Errno::PERM) } else { self.of_ours(to) }
            }
            libc::SYS_tkill
            | libc::SYS_tgkill
            | libc::SYS_rt_sigqueueinfo
            | libc::SYS_rt_tgsigqueueinfo
            | libc::SYS_pidfd_open
            | libc::SYS_prlimit64
            | libc::SYS_sched_setaffinity
            | libc::SYS_sched_setscheduler
            | libc::SYS_sched_setparam
            | libc::SYS_sched_setattr => self.of_ours(number(0)),
            _ => Ok(Outcome::Run),
        }
    }

    fn masked(&self, mode: u32) -> u32 {
        mode & 0o7777 & !self.task.process.borrow().umask
    }

    /// The task opens what its path leads to, by the tracer's descriptor for that.
    fn open(&self, at: i32, path: Argument, flags: i32, mode: Option<Argument>) -> Result<Outcome, Errno> {
        const NEW: i32 = libc::O_CREAT | libc::O_EXCL;
        let follow = flags & libc::O_NOFOLLOW == 0 && flags & NEW != NEW;
        let path = self.string(path)?;
        let mode = mode.map_or(0, |place| self.unsigned(place));
        let writes = flags & libc::O_ACCMODE != libc::O_RDONLY || flags & (libc::O_CREAT | libc::O_TRUNC) != 0;
        match self.world.root.target(self, &self.absolute(at, &path)?, follow)? {
            Target::There(found) => {
                if flags & NEW == NEW {
                    return Err(Errno::EXIST);
                }
                if writes {
                    self.may_change(&found)?;
                }
                if !self.credentials.is_root() && flags & libc::O_PATH == 0 {
                    self.may_open(&found, flags)?;
                }
                if found.outside {
                    self.may_reach(&found, writes)?;
                }
                let through = found.shared_name();
                self.opened(&through, flags & !libc::O_NOFOLLOW, mode, Then::Nothing, found)
            }
            Target::Absent(_) if flags & libc::O_CREAT == 0 => Err(Errno::NOENT),
            Target::Absent(_) if path.ends_with(b"/") => Err(Errno::ISDIR),
            Target::Absent(Spot { folder, name, .. }) => {
                self.may_change(&folder)?;
                let (_, seen) = self.world.owners.stat(&folder)?;
                self.credentials.may(seen, MAY_WRITE | MAY_EXECUTE)?;
                let owner = self.credentials.maker(seen);
                let wanted = self.masked(mode);
                let kept = least_mode(false, wanted);
                let recorded = (wanted & kept != kept).then_some(wanted);
                let then = if owner != (0, 0) || recorded.is_some() {
                    Then::Made { owner, mode: recorded }
                } else {
                    Then::Nothing
                };
                let through = super::paths::joined(&folder.shared_name(), name.to_bytes());
                self.opened(&through, flags | libc::O_NOFOLLOW, recorded.map_or(mode, |mode| mode | kept), then, folder)
            }
        }
    }

    fn may_open(&self, found: &Found, flags: i32) -> Result<(), Errno> {
        let (_, seen) = self.world.owners.stat(found)?;
        if !seen.ours || !matches!(seen.kind(), FileType::RegularFile | FileType::Directory) {
            return Ok(());
        }
        let wanted = match flags & libc::O_ACCMODE {
            libc::O_RDONLY => MAY_READ,
            libc::O_WRONLY => MAY_WRITE,
            _ => MAY_READ | MAY_WRITE,
        };
        self.credentials.may(seen, wanted | if flags & libc::O_TRUNC != 0 { MAY_WRITE } else { 0 })
    }

    /// Memory of processes is closed to writing, as it has the paths that the tracer puts there.
    fn may_reach(&self, found: &Found, writes: bool) -> Result<(), Errno> {
        let path = found.path()?;
        if writes && path.starts_with(b"/proc/") && path.ends_with(b"/mem") { Err(Errno::ACCESS) } else { Ok(()) }
    }

    /// `openat` of another path, whatever call it was.
    fn opened(&self, path: &[u8], flags: i32, mode: u32, then: Then, held: Found) -> Result<Outcome, Errno> {
        let (slot, address) = self.slot(&[path, b"\0"].concat())?;
        let mut registers = self.registers;
        registers.orig_rax = libc::SYS_openat.cast_unsigned();
        for (place, value) in
            [libc::AT_FDCWD.cast_unsigned().into(), address, flags.cast_unsigned().into(), mode.into()]
                .into_iter()
                .enumerate()
        {
            set_argument(&mut registers, place, value);
        }
        Ok(self.changed(registers, slot, then, vec![held]))
    }

    fn read_link(&self, at: i32, path: Argument) -> Result<Outcome, Errno> {
        let (to, room) = (path + 1, self.number(path + 2));
        let room = usize::try_from(room).ok().filter(|room| *room > 0).ok_or(Errno::INVAL)?;
        let text = self.string(path)?;
        let found = if text.is_empty() && at != HERE {
            self.held(at)?
        } else {
            self.world.root.find(self, &self.absolute(at, &text)?, false)?
        };
        let target = match if found.outside { self.process_link(&found.path()?) } else { None } {
            Some(target) => target?,
            None => rustix::fs::readlinkat(found.fd(), c"", Vec::new())
                .map_err(|errno| if errno == Errno::NOENT { Errno::INVAL } else { errno })?
                .into_bytes(),
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
        let (task, process) = (super::paths::Namer::tid(self), super::paths::Namer::tgid(self));
        match names[..] {
            [b"self"] => Some(Ok(process.to_string().into_bytes())),
            [b"thread-self"] => Some(Ok(format!("{process}/task/{task}").into_bytes())),
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
        let through = found.shared_name();
        self.through(0, &through, found)
    }

    /// The call with another path, which leads to what is held.
    fn through(&self, place: Argument, path: &[u8], held: Found) -> Result<Outcome, Errno> {
        let (slot, address) = self.slot(&[path, b"\0"].concat())?;
        let mut registers = self.registers;
        set_argument(&mut registers, place, address);
        Ok(self.changed(registers, slot, Then::Nothing, vec![held]))
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

    fn make_folder(&self, at: i32, path: Argument, mode: u32) -> Result<Outcome, Errno> {
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

    fn remove(&self, at: i32, path: Argument, flags: i32) -> Result<Outcome, Errno> {
        let spot = self.spot(at, path)?;
        self.may_empty(&spot)?;
        if spot.is_place {
            return Err(Errno::BUSY);
        }
        if spot.wants_folder && flags & libc::AT_REMOVEDIR == 0 {
            return Err(if self.is_folder(&spot)? { Errno::ISDIR } else { Errno::NOTDIR });
        }
        let flags = AtFlags::from_bits_truncate(flags.cast_unsigned());
        rustix::fs::unlinkat(spot.folder.fd(), &spot.name, flags).map(|()| Outcome::DONE)
    }

    fn rename(&self, from: (i32, Argument), to: (i32, Argument), flags: u32) -> Result<Outcome, Errno> {
        let (from, to) = (self.spot(from.0, from.1)?, self.spot(to.0, to.1)?);
        self.may_empty(&from)?;
        if from.is_place || to.is_place {
            return Err(Errno::BUSY);
        }
        if self.world.root.are_apart(&from.folder, &to.folder)? {
            return Err(Errno::XDEV);
        }
        if (from.wants_folder || to.wants_folder) && !self.is_folder(&from)? {
            return Err(Errno::NOTDIR);
        }
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

    fn link(&self, from: (i32, Argument), to: (i32, Argument), flags: i32) -> Result<Outcome, Errno> {
        let to = self.new_spot(to.0, to.1)?;
        self.may_fill(&to.folder)?;
        let path = self.string(from.1)?;
        let found = if path.is_empty() && flags & libc::AT_EMPTY_PATH != 0 {
            self.held(from.0)?
        } else {
            let follow = flags & libc::AT_SYMLINK_FOLLOW != 0;
            self.world.root.find(self, &self.absolute(from.0, &path)?, follow)?
        };
        // A file that was opened without a name lies in no folder.
        if !found.path()?.ends_with(b" (deleted)") && self.world.root.are_apart(&found, &to.folder)? {
            return Err(Errno::XDEV);
        }
        let (name, flags) = (found.name(), AtFlags::SYMLINK_FOLLOW);
        rustix::fs::linkat(CWD, name, to.folder.fd(), &to.name, flags).map(|()| Outcome::DONE)
    }

    fn symlink(&self, target: Argument, at: i32, path: Argument) -> Result<Outcome, Errno> {
        let target = self.string(target)?;
        let spot = self.new_spot(at, path)?;
        let folder = self.may_fill(&spot.folder)?;
        rustix::fs::symlinkat(target, spot.folder.fd(), &spot.name)?;
        self.give(&spot, folder).map(|()| Outcome::DONE)
    }

    fn make_node(&self, at: i32, path: Argument, mode: u32) -> Result<Outcome, Errno> {
        let kind = match mode & libc::S_IFMT {
            0 => FileType::RegularFile,
            kind => FileType::from_raw_mode(kind),
        };
        if !matches!(kind, FileType::RegularFile | FileType::Fifo | FileType::Socket) {
            return Err(Errno::PERM);
        }
        let spot = self.new_spot(at, path)?;
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

    /// A signal reaches processes of the sandbox only: the others are the builder's.
    fn kill(&self) -> Result<Outcome, Errno> {
        let (target, signal) = (self.number(0), self.number(1));
        let processes = self.world.all();
        match target {
            0 => Ok(Outcome::Run),
            -1 => {
                let spared = [self.task.process.borrow().tgid, self.world.first];
                for process in processes.into_iter().filter(|process| !spared.contains(process)) {
                    let _ = system::kill(process, signal);
                }
                Ok(Outcome::DONE)
            }
            1.. => self.of_ours(target),
            _ => {
                let in_group = |process: &i32| system::group(*process) == Ok(-target);
                if processes.iter().any(in_group) { Ok(Outcome::Run) } else { Err(Errno::SRCH) }
            }
        }
    }

    /// A signal by a descriptor of a process. It becomes one by the number, as the descriptor could be exchanged for another,
    /// such as one that a process of the machine has sent over a socket.
    fn kill_held(&self) -> Result<Outcome, Errno> {
        let process = self.about_descriptor(self.number(0), "Pid:")?.ok_or(Errno::BADF)?;
        let process: i32 = process.parse().map_err(|_| Errno::BADF)?;
        if process <= 0 || self.world.process(process).is_none() {
            return Err(Errno::SRCH);
        }
        if self.argument(3) != 0 {
            return Err(Errno::INVAL);
        }
        let mut registers = self.registers;
        let call = if self.argument(2) == 0 { libc::SYS_kill } else { libc::SYS_rt_sigqueueinfo };
        registers.orig_rax = call.cast_unsigned();
        set_argument(&mut registers, 0, process.cast_unsigned().into());
        Ok(self.changed(registers, NO_SLOT, Then::Nothing, Vec::new()))
    }

    /// A call on a process or a thread, which must be one of the sandbox; 0 is the caller.
    fn of_ours(&self, target: i32) -> Result<Outcome, Errno> {
        let own = target == 0 || self.world.process(target).is_some();
        let is_thread = || {
            let of = |process: i32| Path::new(&format!("/proc/{process}/task/{target}")).exists();
            of(self.task.process.borrow().tgid) || self.world.all().into_iter().any(of)
        };
        if own || target > 0 && is_thread() { Ok(Outcome::Run) } else { Err(Errno::SRCH) }
    }

    fn execute(&self, at: i32, path: Argument, flags: i32) -> Result<Outcome, Errno> {
        let shown = self.string(path)?;
        let (path, shown) = if shown.is_empty() && flags & libc::AT_EMPTY_PATH != 0 {
            (format!("/proc/self/fd/{at}").into_bytes(), format!("/dev/fd/{at}").into_bytes())
        } else {
            (self.absolute(at, &shown)?, shown)
        };
        let mut registers = self.registers;
        let place = if registers.orig_rax.cast_signed() == libc::SYS_execve { 0 } else { 1 };
        let world = self.world;
        let prepared = program::prepare(&world.root, &world.owners, self, &self.credentials, &path, &shown)?;
        if let Some(arguments) = &prepared.arguments {
            // The strings of new arguments, then the list of all.
            let (mut bytes, mut list) = (Vec::new(), Vec::new());
            for argument in arguments {
                list.push(bytes.len() as u64);
                bytes.extend_from_slice(argument);
                bytes.push(0);
            }
            bytes.resize(bytes.len().next_multiple_of(8), 0);
            let (given, new) = (self.memory.list(self.argument(place + 1))?, list.len());
            list.extend(given.iter().skip(1));
            let address = self.under_the_stack(bytes.len() + 8 * (list.len() + 1))?;
            let words = list.iter().enumerate().map(|(at, word)| if at < new { address + word } else { *word });
            let words: Vec<u8> = words.chain([0]).flat_map(u64::to_ne_bytes).collect();
            self.memory.write(address, &[bytes.as_slice(), &words].concat())?;
            set_argument(&mut registers, place + 1, address + bytes.len() as u64);
        }
        let (slot, address) = self.slot(&[&prepared.started.shared_name(), b"\0".as_slice()].concat())?;
        set_argument(&mut registers, place, address);
        if place == 1 {
            set_argument(&mut registers, 4, 0);
        }
        Ok(self.changed(registers, slot, Then::Program(Box::new(prepared)), Vec::new()))
    }
}
