//! One run as the tracer sees it, and what it answers to a call.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::CString;
use std::rc::{Rc, Weak};

use rustix::io::Errno;

use super::memory::{Memory, PATH_BYTES};
use super::owners::{Owners, Seen};
use super::paths::{Found, Namer, Root, Spot, joined};
use super::system::{Registers, Tid};
use super::task::{Credentials, MAY_EXECUTE, MAY_WRITE, Pending, Process, Task, Then};

/// What all tasks share.
#[derive(Debug)]
pub(super) struct World {
    pub(super) root: Root,
    pub(super) owners: Owners,
    pub(super) hostname: String,
    /// The command itself, which elsewhere is process 1.
    pub(super) first: Tid,
    pub(super) processes: RefCell<HashMap<Tid, Weak<RefCell<Process>>>>,
    /// The folders that sockets were made in by way of the tracer's descriptors, which are a part of their names.
    pub(super) with_sockets: RefCell<Vec<Rc<Found>>>,
}

impl World {
    pub(super) fn process(&self, tgid: Tid) -> Option<Rc<RefCell<Process>>> {
        self.processes.borrow().get(&tgid)?.upgrade()
    }

    /// The processes of the sandbox.
    pub(super) fn all(&self) -> Vec<Tid> {
        let processes = self.processes.borrow();
        processes.iter().filter(|(_, process)| process.strong_count() > 0).map(|(tgid, _)| *tgid).collect()
    }
}

/// What becomes of a call.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It is not made: this is its result.
    Return(u64),
    /// It is made as it is.
    Run,
    /// It is made with changed registers, and something follows.
    Changed(Box<(Registers, Pending)>),
}

impl Outcome {
    /// A result of zero.
    pub(super) const DONE: Self = Self::Return(0);
}

/// A task in a call.
pub(super) struct Caller<'a> {
    pub(super) world: &'a World,
    pub(super) task: &'a Task,
    pub(super) registers: Registers,
    pub(super) memory: Rc<Memory>,
    pub(super) credentials: Credentials,
    tgid: Tid,
}

impl Namer for Caller<'_> {
    fn tid(&self) -> Tid {
        self.task.tid
    }

    fn tgid(&self) -> Tid {
        self.tgid
    }

    fn knows(&self, tid: Tid) -> bool {
        tid == self.task.tid || self.world.process(tid).is_some()
    }

    fn program(&self, tgid: Tid) -> Option<Vec<u8>> {
        Some(self.world.process(tgid)?.borrow().program.clone())
    }
}

/// Which argument of a call, by its place.
pub(super) type Place = usize;

impl<'a> Caller<'a> {
    pub(super) fn new(world: &'a World, task: &'a Task, registers: Registers) -> Self {
        let process = task.process.borrow();
        let (memory, credentials) = (Rc::clone(&process.memory), process.credentials.clone());
        Self { world, task, registers, memory, credentials, tgid: process.tgid }
    }

    pub(super) fn argument(&self, place: Place) -> u64 {
        let registers = &self.registers;
        [registers.rdi, registers.rsi, registers.rdx, registers.r10, registers.r8, registers.r9]
            .get(place)
            .copied()
            .unwrap_or(0)
    }

    /// An argument that is an `int`.
    pub(super) fn number(&self, place: Place) -> i32 {
        // The kernel looks at the lower half only.
        (self.argument(place) as u32).cast_signed()
    }

    pub(super) fn unsigned(&self, place: Place) -> u32 {
        self.argument(place) as u32
    }

    pub(super) fn string(&self, place: Place) -> Result<Vec<u8>, Errno> {
        self.memory.string(self.argument(place), PATH_BYTES)
    }

    /// A path to what a descriptor of the task names.
    pub(super) fn descriptor(&self, fd: i32) -> Result<CString, Errno> {
        if fd < 0 {
            return Err(Errno::BADF);
        }
        Ok(CString::new(format!("/proc/{}/fd/{fd}", self.task.tid)).unwrap_or_default())
    }

    /// What a descriptor of the task names.
    pub(super) fn held(&self, fd: i32) -> Result<Found, Errno> {
        use rustix::fs::{Mode, OFlags};
        let name = self.descriptor(fd)?;
        let found = rustix::fs::open(name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        found.map(Found::somewhere).map_err(|errno| if errno == Errno::NOENT { Errno::BADF } else { errno })
    }

    /// What the kernel tells about a descriptor of the task by that word.
    pub(super) fn about_descriptor(&self, fd: i32, word: &str) -> Result<Option<String>, Errno> {
        if fd < 0 {
            return Err(Errno::BADF);
        }
        let told = std::fs::read_to_string(format!("/proc/{}/fdinfo/{fd}", self.task.tid)).map_err(|_| Errno::BADF)?;
        Ok(told.lines().find_map(|line| line.strip_prefix(word)).map(|value| value.trim().to_owned()))
    }

    /// What a descriptor of the task names, which must be open and not a mere name.
    pub(super) fn whole(&self, fd: i32) -> Result<Found, Errno> {
        let flags = self.about_descriptor(fd, "flags:")?;
        let flags = flags.and_then(|flags| i32::from_str_radix(&flags, 8).ok()).unwrap_or(0);
        if flags & libc::O_PATH != 0 { Err(Errno::BADF) } else { self.held(fd) }
    }

    /// A path of the task as an absolute one. `at` is a folder's descriptor.
    pub(super) fn absolute(&self, at: i32, path: &[u8]) -> Result<Vec<u8>, Errno> {
        if path.is_empty() {
            return Err(Errno::NOENT);
        }
        if path.starts_with(b"/") {
            return Ok(path.to_vec());
        }
        let folder = if at == libc::AT_FDCWD {
            rustix::fs::readlink(format!("/proc/{}/cwd", self.task.tid), Vec::new())?
        } else {
            let folder = rustix::fs::readlink(self.descriptor(at)?, Vec::new());
            folder.map_err(|errno| if errno == Errno::NOENT { Errno::BADF } else { errno })?
        };
        if !folder.to_bytes().starts_with(b"/") {
            return Err(Errno::NOTDIR);
        }
        Ok(joined(&self.world.root.seen(folder.to_bytes()), path))
    }

    /// What a path argument leads to. With `flags` that allow it, an empty path is the descriptor itself.
    pub(super) fn object(&self, at: i32, path: Place, flags: i32, follow: bool) -> Result<Found, Errno> {
        if flags & libc::AT_EMPTY_PATH != 0 && self.argument(path) == 0 {
            return self.empty(at);
        }
        let path = self.string(path)?;
        if path.is_empty() && flags & libc::AT_EMPTY_PATH != 0 {
            return self.empty(at);
        }
        self.world.root.find(self, &self.absolute(at, &path)?, follow)
    }

    fn empty(&self, at: i32) -> Result<Found, Errno> {
        if at == libc::AT_FDCWD {
            let path = self.absolute(at, b".")?;
            return self.world.root.find(self, &path, true);
        }
        self.held(at)
    }

    /// The folder and name of a path argument, where something may be made or taken away.
    pub(super) fn spot(&self, at: i32, path: Place) -> Result<Spot, Errno> {
        let path = self.string(path)?;
        let spot = self.world.root.spot(self, &self.absolute(at, &path)?)?;
        self.may_change(&spot.folder)?;
        Ok(spot)
    }

    /// Refuses to one who may not write into the folder; tells what the folder is.
    pub(super) fn may_fill(&self, folder: &Found) -> Result<Seen, Errno> {
        let (_, seen) = self.world.owners.stat(folder)?;
        self.credentials.may(seen, MAY_WRITE | MAY_EXECUTE)?;
        Ok(seen)
    }

    /// As [`Self::may_fill`], for a name that is there: in a folder such as `/tmp` only its owner may take it away.
    pub(super) fn may_empty(&self, spot: &Spot) -> Result<(), Errno> {
        if self.credentials.is_root() {
            return Ok(());
        }
        let folder = self.may_fill(&spot.folder)?;
        if folder.mode & libc::S_ISVTX != 0 && self.credentials.owns(folder).is_err() {
            let (_, seen) = self.world.owners.stat(&self.at(spot)?)?;
            self.credentials.owns(seen)?;
        }
        Ok(())
    }

    /// What is at a spot; a link itself.
    pub(super) fn at(&self, spot: &Spot) -> Result<Found, Errno> {
        spot.folder.within(&spot.name)
    }

    /// Whether a folder is there; a link is none.
    pub(super) fn is_folder(&self, spot: &Spot) -> Result<bool, Errno> {
        let (_, seen) = self.world.owners.stat(&self.at(spot)?)?;
        Ok(seen.kind() == rustix::fs::FileType::Directory)
    }

    /// As [`Self::spot`], for something that is to be made and is no folder.
    pub(super) fn new_spot(&self, at: i32, path: Place) -> Result<Spot, Errno> {
        let spot = self.spot(at, path)?;
        if spot.wants_folder {
            return Err(self.at(&spot).map_or_else(|errno| errno, |_| Errno::EXIST));
        }
        Ok(spot)
    }

    /// Gives what was made at a spot to who made it.
    pub(super) fn give(&self, spot: &Spot, folder: Seen) -> Result<(), Errno> {
        let (uid, gid) = self.credentials.maker(folder);
        if (uid, gid) != (0, 0) {
            self.world.owners.set_owner(&self.at(spot)?.name(), uid, gid)?;
        }
        Ok(())
    }

    /// Refuses to change what may only be read.
    pub(super) fn may_change(&self, found: &Found) -> Result<(), Errno> {
        if self.world.root.is_read_only(found)? { Err(Errno::ROFS) } else { Ok(()) }
    }

    /// The call with other arguments; what it takes from the tracer stays open until it has ended.
    pub(super) fn changed(&self, registers: Registers, slot: u32, then: Then, held: Vec<Found>) -> Outcome {
        Outcome::Changed(Box::new((registers, Pending { before: self.registers, slot, then, held })))
    }

    /// A slot in the task's memory with these bytes: its number and address.
    pub(super) fn slot(&self, bytes: &[u8]) -> Result<(u32, u64), Errno> {
        if bytes.len() as u64 > super::memory::SLOT_BYTES {
            return Err(Errno::NAMETOOLONG);
        }
        // Never elsewhere, as other threads of the program could change it there while the kernel looks. Before the first
        // program there is only our own code.
        let (slot, address) = if self.memory.scratch() == 0 {
            (super::memory::NO_SLOT, self.under_the_stack(bytes.len())?)
        } else {
            self.memory.take_slot().ok_or(Errno::AGAIN)?
        };
        match self.memory.write(address, bytes) {
            Ok(()) => Ok((slot, address)),
            Err(errno) => {
                self.memory.free_slot(slot);
                Err(errno)
            }
        }
    }

    /// Room in the task's memory for what only it depends on.
    pub(super) fn under_the_stack(&self, length: usize) -> Result<u64, Errno> {
        // Below the red zone, which functions use without moving the stack.
        const RED_ZONE: u64 = 128;
        let address = self.registers.rsp.checked_sub(RED_ZONE + length as u64).ok_or(Errno::FAULT)?;
        Ok(address & !15)
    }

    pub(super) fn write(&self, place: Place, bytes: &[u8]) -> Result<Outcome, Errno> {
        self.memory.write(self.argument(place), bytes)?;
        Ok(Outcome::DONE)
    }
}

pub(super) fn set_argument(registers: &mut Registers, place: Place, value: u64) {
    match place {
        0 => registers.rdi = value,
        1 => registers.rsi = value,
        2 => registers.rdx = value,
        3 => registers.r10 = value,
        4 => registers.r8 = value,
        _ => registers.r9 = value,
    }
}
