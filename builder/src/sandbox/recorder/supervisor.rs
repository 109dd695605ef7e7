//! Answers the calls of a command that a single id could not.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{CWD, FileType, Mode, OFlags, mkdirat, mknodat, openat, symlinkat};
use rustix::io::Errno;
use rustix::process::umask;

use super::calls::{Call, Get, Set, Told, told};
use super::files::{Files, From, Place, place};
use super::ids::{SAME, Threads};
use super::process::{Processes, read_numbers, read_text};
use super::system::{self, Notice};
use crate::owners::Owner;

/// What is done with a call.
enum Answer {
    /// The kernel makes it as it is.
    Through,
    /// This is its result.
    Result(i64),
    /// It has been answered.
    Given,
}

/// Answers until all processes of the command are gone.
pub(super) struct Supervisor {
    pub(super) listener: OwnedFd,
    pub(super) processes: Processes,
    pub(super) threads: Threads,
    pub(super) files: Files,
}

impl Supervisor {
    pub(super) fn run(&mut self) -> Result<(), Errno> {
        system::take_turns(self.listener.as_fd());
        loop {
            let mut polled = [PollFd::new(&self.listener, PollFlags::IN)];
            match poll(&mut polled, None) {
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno),
            }
            let [polled] = polled.map(|fd| fd.revents());
            if !polled.contains(PollFlags::IN) {
                return Ok(());
            }
            let notice = match system::receive(self.listener.as_fd()) {
                Ok(notice) => notice,
                // The caller is gone before it was heard.
                Err(Errno::NOENT | Errno::INTR) => continue,
                Err(errno) => return Err(errno),
            };
            let answered = match self.answer(&notice) {
                Ok(Answer::Through) => system::let_through(self.listener.as_fd(), notice.id),
                Ok(Answer::Result(value)) => system::answer(self.listener.as_fd(), notice.id, Ok(value)),
                Ok(Answer::Given) => Ok(()),
                Err(errno) => system::answer(self.listener.as_fd(), notice.id, Err(errno)),
            };
            match answered {
                // The caller is gone, or the command's filter with it.
                Ok(()) | Err(Errno::NOENT | Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    fn answer(&mut self, notice: &Notice) -> Result<Answer, Errno> {
        let Some(told) = told(notice.data.architecture, notice.data.number) else { return Ok(Answer::Through) };
        let call = Caller { notice, told };
        match told.call {
            Call::Get(get) => self.get(&call, get),
            Call::Set(set) => self.set(&call, set),
            Call::Stat { .. } | Call::StatOpen | Call::StatAt | Call::StatX => self.stat(&call),
            Call::Chown { .. } | Call::ChownOpen | Call::ChownAt => self.chown(&call),
            Call::Open | Call::OpenAt | Call::Create => self.open(&call),
            Call::MakeFolder | Call::MakeFolderAt | Call::MakeNode | Call::MakeNodeAt | Call::Link | Call::LinkAt => {
                self.make(&call)
            }
            Call::Execute | Call::ExecuteAt => self.execute(&call),
            Call::KeepRights => {
                let mut ids = (*self.threads.of(&self.processes, call.thread())).clone();
                ids.keep_rights(call.argument(1) != 0);
                self.threads.set(&self.processes, call.thread(), ids);
                Ok(Answer::Through)
            }
            Call::ChangeRoot => {
                self.files.has_roots = true;
                Ok(Answer::Through)
            }
        }
    }

    /// The file that a call names.
    fn place(&mut self, call: &Caller<'_>, from: From, path: Option<&CStr>, follow: bool) -> Result<Place, Errno> {
        self.files.enter_root(&self.processes, call.thread())?;
        let place = place(call.thread(), from, path.unwrap_or_default(), follow)?;
        // What was read was the caller's, if it is still there.
        if system::still_waits(self.listener.as_fd(), call.notice.id) { Ok(place) } else { Err(Errno::NOENT) }
    }

    /// Writes to the caller's memory.
    fn write(&self, call: &Caller<'_>, address: u64, bytes: &[u8]) -> Result<(), Errno> {
        let memory = self.processes.memory(call.thread())?;
        if !system::still_waits(self.listener.as_fd(), call.notice.id) {
            return Err(Errno::NOENT);
        }
        match rustix::io::pwrite(&memory, bytes, address) {
            Ok(count) if count == bytes.len() => Ok(()),
            _ => Err(Errno::FAULT),
        }
    }

    fn get(&mut self, call: &Caller<'_>, get: Get) -> Result<Answer, Errno> {
        let ids = self.threads.of(&self.processes, call.thread());
        let numbers = ids.get(get);
        let form =
            |id: u32| if call.told.short { (id as u16).to_ne_bytes().to_vec() } else { id.to_ne_bytes().to_vec() };
        match get {
            Get::Real(_) | Get::Effective(_) => {
                let id = numbers.first().copied().unwrap_or_default();
                Ok(Answer::Result(if call.told.short { i64::from(id as u16) } else { i64::from(id) }))
            }
            Get::All(_) => {
                for (at, id) in numbers.into_iter().enumerate() {
                    self.write(call, call.argument(at), &form(id))?;
                }
                Ok(Answer::Result(0))
            }
            Get::Groups => {
                let room = call.small(0) as i32;
                let count = i32::try_from(numbers.len()).unwrap_or(i32::MAX);
                if room != 0 {
                    if room < count {
                        return Err(Errno::INVAL);
                    }
                    self.write(call, call.argument(1), &numbers.into_iter().flat_map(form).collect::<Vec<u8>>())?;
                }
                Ok(Answer::Result(count.into()))
            }
        }
    }

    fn set(&mut self, call: &Caller<'_>, set: Set) -> Result<Answer, Errno> {
        let groups = match set {
            Set::Groups => {
                let count = usize::try_from(call.small(0) as i32).ok().filter(|count| *count <= 65536);
                let bytes = if call.told.short { 2 } else { 4 };
                Some(read_numbers(call.thread(), call.argument(1), count.ok_or(Errno::INVAL)?, bytes)?)
            }
            _ => None,
        };
        let mut ids = (*self.threads.of(&self.processes, call.thread())).clone();
        let before = ids.clone();
        let result = ids.set(set, [call.id(0), call.id(1), call.id(2)], groups)?;
        if ids != before {
            self.threads.set(&self.processes, call.thread(), ids);
        }
        Ok(Answer::Result(result))
    }

    fn stat(&mut self, call: &Caller<'_>) -> Result<Answer, Errno> {
        let no_follow = |flags: u32| flags & libc::AT_SYMLINK_NOFOLLOW.cast_unsigned() != 0;
        let (from, path, follow, flags) = match call.told.call {
            Call::Stat { follow } => (From::Own, Some(0), follow, 0),
            Call::StatOpen => (From::argument(call.argument(0)), None, true, 0),
            Call::StatAt => (From::argument(call.argument(0)), Some(1), !no_follow(call.small(3)), call.small(3)),
            _ => (From::argument(call.argument(0)), Some(1), !no_follow(call.small(2)), call.small(2)),
        };
        let Ok(path) = call.path(path, flags) else { return Ok(Answer::Through) };
        let Ok(place) = self.place(call, from, path.as_deref(), follow) else { return Ok(Answer::Through) };
        let Some(owner) = self.files.recorded(&self.processes, &place).filter(|owner| *owner != Owner::ROOT) else {
            return Ok(Answer::Through);
        };
        let nofollow = libc::AT_SYMLINK_NOFOLLOW.cast_unsigned();
        let flags = flags & !(libc::AT_EMPTY_PATH.cast_unsigned() | nofollow) | if place.follow { 0 } else { nofollow };
        let (told, to) = match call.told.call {
            Call::StatX => (system::statx(&place.path, flags, call.small(3), owner.uid, owner.gid), 4),
            Call::StatAt => (system::stat(&place.path, flags, owner.uid, owner.gid), 2),
            _ => (system::stat(&place.path, flags, owner.uid, owner.gid), 1),
        };
        let Ok(told) = told else { return Ok(Answer::Through) };
        self.write(call, call.argument(to), &told)?;
        Ok(Answer::Result(0))
    }

    fn chown(&mut self, call: &Caller<'_>) -> Result<Answer, Errno> {
        let (from, path, follow, ids, flags) = match call.told.call {
            Call::Chown { follow } => (From::Own, Some(0), follow, 1, 0),
            Call::ChownOpen => (From::argument(call.argument(0)), None, true, 1, 0),
            _ => {
                let flags = call.small(4);
                let follow = flags & libc::AT_SYMLINK_NOFOLLOW.cast_unsigned() == 0;
                (From::argument(call.argument(0)), Some(1), follow, 2, flags)
            }
        };
        let path = call.path(path, flags)?;
        let place = self.place(call, from, path.as_deref(), follow)?;
        let (uid, gid) = (call.id(ids), call.id(ids + 1));
        let who = self.threads.of(&self.processes, call.thread());
        let old = self.files.recorded(&self.processes, &place).unwrap_or(Owner::ROOT);
        if !who.may_give(old, uid, gid) {
            return Err(Errno::PERM);
        }
        let or = |id: u32, old: u32| if id == SAME { old } else { id };
        let owner = Owner { uid: or(uid, old.uid), gid: or(gid, old.gid) };
        match self.files.give(&self.processes, &place, owner) {
            Ok(()) => Ok(Answer::Result(0)),
            // A device or pipe of the machine's: no layer has it.
            Err(Errno::PERM) => Ok(Answer::Result(0)),
            // A path that we cannot follow is the kernel's to refuse.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG) => Ok(Answer::Through),
            Err(errno) => Err(errno),
        }
    }

    /// Whether what the caller makes may be another's than root's.
    fn watches_making(&self) -> bool {
        self.files.hands_on || !self.threads.are_all_root()
    }

    /// Whose what a thread makes in the folder of `place` is; none for root's.
    fn maker(&mut self, call: &Caller<'_>, place: &Place) -> Option<Owner> {
        let bytes = place.path.to_bytes();
        let bytes = bytes.strip_suffix(b"/").unwrap_or(bytes);
        let end = bytes.iter().rposition(|byte| *byte == b'/')?;
        let folder = if end == 0 { b"/" } else { bytes.get(..end)? };
        let folder = Place { path: CString::new(folder).ok()?, follow: true };
        let mut owner = self.threads.of(&self.processes, call.thread()).makes();
        if let Some(group) = self.files.handed_on(&self.processes, &folder) {
            owner.gid = group;
        }
        (owner != Owner::ROOT).then_some(owner)
    }

    /// Does something with the mask of a thread.
    fn masked<T>(&self, call: &Caller<'_>, work: impl FnOnce() -> Result<T, Errno>) -> Result<T, Errno> {
        umask(Mode::from_raw_mode(self.processes.umask(call.thread()).ok_or(Errno::NOENT)?));
        let done = work();
        umask(Mode::empty());
        done
    }

    fn open(&mut self, call: &Caller<'_>) -> Result<Answer, Errno> {
        if !self.watches_making() {
            return Ok(Answer::Through);
        }
        let (from, path, flags, mode) = match call.told.call {
            Call::Open => (From::Own, 0, call.small(1), call.small(2)),
            Call::OpenAt => (From::argument(call.argument(0)), 1, call.small(2), call.small(3)),
            _ => (From::Own, 0, (libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC).cast_unsigned(), call.small(1)),
        };
        let flags = OFlags::from_bits_retain(flags);
        // A file without a name gets none that a layer would have, or nobody's.
        if flags.contains(OFlags::TMPFILE) {
            return Ok(Answer::Through);
        }
        let Ok(text) = read_text(call.thread(), call.argument(path)) else { return Ok(Answer::Through) };
        let Ok(place) = self.place(call, from, Some(&text), false) else { return Ok(Answer::Through) };
        let Some(owner) = self.maker(call, &place) else { return Ok(Answer::Through) };
        // Only a new file is made: one that is there is opened by the caller, however long that takes.
        let made = self.masked(call, || {
            openat(CWD, &place.path, flags | OFlags::EXCL | OFlags::CLOEXEC, Mode::from_raw_mode(mode & 0o7777))
        });
        let Ok(file) = made else { return Ok(Answer::Through) };
        self.files.record(&self.processes, &place, owner)?;
        system::answer_with(self.listener.as_fd(), call.notice.id, file.as_fd(), flags.contains(OFlags::CLOEXEC))?;
        Ok(Answer::Given)
    }

    fn make(&mut self, call: &Caller<'_>) -> Result<Answer, Errno> {
        if !self.watches_making() {
            return Ok(Answer::Through);
        }
        let is_link = matches!(call.told.call, Call::Link | Call::LinkAt);
        let (from, path) = match call.told.call {
            Call::MakeFolder | Call::MakeNode => (From::Own, 0),
            Call::Link => (From::Own, 1),
            Call::LinkAt => (From::argument(call.argument(1)), 2),
            _ => (From::argument(call.argument(0)), 1),
        };
        let Ok(text) = read_text(call.thread(), call.argument(path)) else { return Ok(Answer::Through) };
        let target = if is_link { read_text(call.thread(), call.argument(0))? } else { CString::default() };
        let Ok(place) = self.place(call, from, Some(&text), false) else { return Ok(Answer::Through) };
        let Some(owner) = self.maker(call, &place) else { return Ok(Answer::Through) };
        let mode = call.small(path + 1);
        let bits = Mode::from_raw_mode(mode & 0o7777);
        match call.told.call {
            _ if is_link => symlinkat(&target, CWD, &place.path)?,
            Call::MakeFolder | Call::MakeFolderAt => self.masked(call, || mkdirat(CWD, &place.path, bits))?,
            _ => {
                let kind = match FileType::from_raw_mode(mode) {
                    FileType::Unknown => FileType::RegularFile,
                    kind => kind,
                };
                // Devices are not to be had.
                if !matches!(kind, FileType::RegularFile | FileType::Fifo | FileType::Socket) {
                    return Ok(Answer::Through);
                }
                self.masked(call, || mknodat(CWD, &place.path, kind, bits, 0))?;
            }
        }
        self.files.record(&self.processes, &place, owner)?;
        Ok(Answer::Result(0))
    }

    /// A program that is set-user-id makes its owner of who executes it.
    fn execute(&mut self, call: &Caller<'_>) -> Result<Answer, Errno> {
        if self.threads.are_all_root() {
            return Ok(Answer::Through);
        }
        let (from, path, flags) = match call.told.call {
            Call::Execute => (From::Own, 0, 0),
            _ => (From::argument(call.argument(0)), 1, call.small(4)),
        };
        let Ok(path) = call.path(Some(path), flags) else { return Ok(Answer::Through) };
        let Ok(place) = self.place(call, from, path.as_deref(), true) else { return Ok(Answer::Through) };
        let Ok(stat) = rustix::fs::statat(CWD, &place.path, place.flags()) else { return Ok(Answer::Through) };
        let is_program = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_mode & 0o111 != 0;
        let ids = self.threads.of(&self.processes, call.thread());
        let sets_ids = stat.st_mode & (libc::S_ISUID | libc::S_ISGID) != 0;
        if !is_program || !sets_ids && !ids.loses_by_execution() {
            return Ok(Answer::Through);
        }
        let owner = self.files.recorded(&self.processes, &place).unwrap_or(Owner::ROOT);
        self.threads.set(&self.processes, call.thread(), ids.after_execution(owner, stat.st_mode));
        Ok(Answer::Through)
    }
}

/// A call that waits for its answer.
struct Caller<'a> {
    notice: &'a Notice,
    told: Told,
}

impl Caller<'_> {
    fn thread(&self) -> u32 {
        self.notice.pid
    }

    fn argument(&self, at: usize) -> u64 {
        let argument = self.notice.data.arguments.get(at).copied().unwrap_or_default();
        if self.told.narrow { argument & 0xffff_ffff } else { argument }
    }

    /// An argument of 32 bits: the kernel reads no more of it.
    fn small(&self, at: usize) -> u32 {
        self.argument(at) as u32
    }

    /// An id; [`SAME`] where it is left out.
    fn id(&self, at: usize) -> u32 {
        let id = self.small(at);
        if !self.told.short {
            return id;
        }
        if id as u16 == u16::MAX { SAME } else { u32::from(id as u16) }
    }

    /// The path at an argument; none where the call means the open file itself.
    fn path(&self, at: Option<usize>, flags: u32) -> Result<Option<CString>, Errno> {
        let Some(at) = at else { return Ok(None) };
        let may_be_empty = flags & libc::AT_EMPTY_PATH.cast_unsigned() != 0;
        let address = self.argument(at);
        if address == 0 && may_be_empty {
            return Ok(None);
        }
        let text = read_text(self.thread(), address)?;
        if text.is_empty() && !may_be_empty { Err(Errno::NOENT) } else { Ok(Some(text)) }
    }
}
