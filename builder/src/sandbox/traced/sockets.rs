//! Calls on sockets: addresses that are paths, and who is at the other end.

use std::rc::Rc;

use rustix::io::Errno;

use super::memory::{Memory, NO_SLOT};
use super::paths::{Found, Spot};
use super::task::{EFFECTIVE, Then};
use super::world::{Caller, Outcome, Place, World, set_argument};

/// Bytes of the longest address that the kernel takes.
const ADDRESS_MAX_BYTES: usize = 128;
/// The longest path in one.
const PATH_MAX_BYTES: usize = 107;
/// The family of addresses that are paths, as it stands in them.
const UNIX: u16 = libc::AF_UNIX as u16;
/// Folders with sockets that are held.
const FOLDERS_MAX: usize = 256;
/// Bytes of `struct msghdr`, which `struct mmsghdr` begins with.
const HEADER_BYTES: usize = 56;

impl Caller<'_> {
    /// A socket's address: one that is a path becomes one by way of a descriptor of the tracer. Others are copied too, as
    /// a copy cannot become a path while the kernel looks.
    pub(super) fn address(&self, binds: bool) -> Result<Outcome, Errno> {
        let length = usize::try_from(self.number(2)).unwrap_or(0);
        if length > ADDRESS_MAX_BYTES {
            return Err(Errno::INVAL);
        }
        let mut address = vec![0; length];
        self.memory.read(self.argument(1), &mut address)?;
        let (address, then, held) = self.real_address(address, binds)?;
        let (slot, at) = self.slot(&address)?;
        let mut registers = self.registers;
        set_argument(&mut registers, 1, at);
        set_argument(&mut registers, 2, address.len() as u64);
        Ok(self.changed(registers, slot, then, held))
    }

    /// The address, what follows, and what must stay open until then.
    fn real_address(&self, address: Vec<u8>, binds: bool) -> Result<(Vec<u8>, Then, Vec<Found>), Errno> {
        let unix = UNIX.to_ne_bytes();
        let Some(path) = address.strip_prefix(&unix).filter(|path| path.first().is_some_and(|byte| *byte != 0)) else {
            return Ok((address, Then::Nothing, Vec::new()));
        };
        let path = path.split(|byte| *byte == 0).next().unwrap_or_default();
        let path = self.absolute(libc::AT_FDCWD, path)?;
        let (real, then, held) = if binds {
            let Spot { folder, name, .. } = self.world.root.spot(self, &path)?;
            self.may_change(&folder)?;
            let owner = self.credentials.maker(self.may_fill(&folder)?);
            let folder = self.world.with_socket(folder)?;
            let through = super::paths::joined(&folder.shared_name(), name.to_bytes());
            (through, Then::Bound { folder, name, owner }, Vec::new())
        } else {
            let found = self.world.root.find(self, &path, true)?;
            (found.shared_name(), Then::Nothing, vec![found])
        };
        if real.len() > PATH_MAX_BYTES {
            return Err(Errno::NAMETOOLONG);
        }
        Ok(([unix.as_slice(), &real, b"\0"].concat(), then, held))
    }

    pub(super) fn send_to(&self) -> Result<Outcome, Errno> {
        let mut address = vec![0; usize::try_from(self.number(5)).unwrap_or(0).min(ADDRESS_MAX_BYTES)];
        self.memory.read(self.argument(4), &mut address)?;
        let (address, _, held) = self.real_address(address, false)?;
        let (slot, at) = self.slot(&address)?;
        let mut registers = self.registers;
        set_argument(&mut registers, 4, at);
        set_argument(&mut registers, 5, address.len() as u64);
        Ok(self.changed(registers, slot, Then::Nothing, held))
    }

    /// A message to an address. Where the address lies in memory, so does what says where: both are copied.
    pub(super) fn send_message(&self, then: Then) -> Result<Outcome, Errno> {
        let word = |bytes: &[u8], at: usize| {
            bytes.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_ne_bytes)
        };
        let mut header = vec![0; HEADER_BYTES];
        self.memory.read(self.argument(1), &mut header)?;
        let (name, length) = (word(&header, 0), word(&header, 8) as u32);
        let length = if name == 0 { 0 } else { usize::try_from(length).unwrap_or(0).min(ADDRESS_MAX_BYTES) };
        let mut address = vec![0; length];
        self.memory.read(name, &mut address)?;
        let (address, _, held) = self.real_address(address, false)?;
        let (slot, at) = self.slot(&[header.as_slice(), &address].concat())?;
        let name = if address.is_empty() { 0 } else { at + HEADER_BYTES as u64 };
        self.memory.write(at, &[name.to_ne_bytes(), (address.len() as u64).to_ne_bytes()].concat())?;
        let mut registers = self.registers;
        set_argument(&mut registers, 1, at);
        Ok(self.changed(registers, slot, then, held))
    }

    /// Of many messages the first, by the call for one: who sends many is told how many went, and sends the others again.
    pub(super) fn send_first_message(&self) -> Result<Outcome, Errno> {
        if self.unsigned(2) == 0 {
            return Ok(Outcome::DONE);
        }
        let length_at = self.argument(1) + HEADER_BYTES as u64;
        let Outcome::Changed(mut changed) = self.send_message(Then::Sent { length_at })? else {
            return Err(Errno::INVAL);
        };
        let registers = &mut changed.0;
        registers.orig_rax = libc::SYS_sendmsg.cast_unsigned();
        set_argument(registers, 2, self.argument(3));
        Ok(Outcome::Changed(changed))
    }

    /// A call that tells an address at this place, and its length at the next.
    pub(super) fn named(&self, place: Place) -> Outcome {
        let (at, length_at) = (self.argument(place), self.argument(place + 1));
        let mut room = [0; 4];
        if at == 0 || self.memory.read(length_at, &mut room).is_err() {
            return Outcome::Run;
        }
        let then = Then::Named { at, length_at, room: u32::from_ne_bytes(room) };
        self.changed(self.registers, NO_SLOT, then, Vec::new())
    }

    /// Who is at the other end of a socket: the kernel tells, in ids of the machine.
    pub(super) fn peer(&self) -> Outcome {
        let then = Then::Peer { at: self.argument(3) };
        self.changed(self.registers, NO_SLOT, then, Vec::new())
    }
}

impl World {
    /// The folder, held as long as a socket in it may tell its name.
    fn with_socket(&self, folder: Found) -> Result<Rc<Found>, Errno> {
        let identity = |folder: &Found| rustix::fs::fstat(folder.fd()).map(|stat| (stat.st_dev, stat.st_ino));
        let (mut held, new) = (self.with_sockets.borrow_mut(), identity(&folder)?);
        if let Some(folder) = held.iter().find(|folder| identity(folder) == Ok(new)) {
            return Ok(Rc::clone(folder));
        }
        let folder = Rc::new(folder);
        // Each takes a descriptor.
        if held.len() < FOLDERS_MAX {
            held.push(Rc::clone(&folder));
        }
        Ok(folder)
    }

    /// Puts a socket's name as the command would write it in place of that by way of a descriptor of the tracer.
    pub(super) fn tell_name(&self, memory: &Memory, at: u64, length_at: u64, room: u32) -> Result<(), Errno> {
        let mut length = [0; 4];
        memory.read(length_at, &mut length)?;
        let told = usize::try_from(u32::from_ne_bytes(length).min(room)).unwrap_or(0).min(ADDRESS_MAX_BYTES);
        let mut address = vec![0; told];
        memory.read(at, &mut address)?;
        let family = UNIX.to_ne_bytes();
        let Some(path) = address.strip_prefix(&family) else { return Ok(()) };
        let path = path.split(|byte| *byte == 0).next().unwrap_or_default();
        for folder in self.with_sockets.borrow().iter() {
            let Some(name) = path.strip_prefix(folder.shared_name().as_slice()).filter(|rest| rest.starts_with(b"/"))
            else {
                continue;
            };
            let seen = super::paths::joined(&self.root.seen(&folder.path()?), &name[1..]);
            if seen.len() > PATH_MAX_BYTES {
                break;
            }
            let address = [family.as_slice(), &seen, b"\0"].concat();
            let room = usize::try_from(room).unwrap_or(0).min(address.len());
            memory.write(at, &address[..room])?;
            memory.write(length_at, &(address.len() as u32).to_ne_bytes())?;
        }
        Ok(())
    }

    /// Puts the ids that a process believes to have in place of those that it has, in what tells about a peer. They are
    /// those of now: the kernel tells those of when it connected.
    pub(super) fn tell_peer(&self, memory: &Memory, at: u64) -> Result<(), Errno> {
        let mut process = [0; 4];
        memory.read(at, &mut process)?;
        let Some(process) = self.process(i32::from_ne_bytes(process)) else { return Ok(()) };
        let credentials = &process.borrow().credentials;
        let ids = [credentials.uids[EFFECTIVE], credentials.gids[EFFECTIVE]];
        memory.write(at + 4, &ids.map(u32::to_ne_bytes).concat())
    }
}
