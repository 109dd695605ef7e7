//! Calls on sockets: addresses that are paths, and who is at the other end.

use rustix::io::Errno;

use super::memory::{Memory, NO_SLOT};
use super::paths::{Found, Spot};
use super::task::{EFFECTIVE, Then};
use super::world::{Caller, Outcome, World, set_argument};

/// Bytes of the longest address that the kernel takes.
const ADDRESS_MAX_BYTES: usize = 128;
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
        const PATH_MAX_BYTES: usize = 107;
        let unix = u16::try_from(libc::AF_UNIX).unwrap_or(0).to_ne_bytes();
        let Some(path) = address.strip_prefix(&unix).filter(|path| path.first().is_some_and(|byte| *byte != 0)) else {
            return Ok((address, Then::Nothing, Vec::new()));
        };
        let path = path.split(|byte| *byte == 0).next().unwrap_or_default();
        let path = self.absolute(libc::AT_FDCWD, path)?;
        let (real, then, held) = if binds {
            let Spot { folder, name, .. } = self.world.root.spot(self, &path)?;
            self.may_change(&folder)?;
            let owner = self.credentials.maker(self.may_fill(&folder)?);
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

    /// Who is at the other end of a socket: the kernel tells, in ids of the machine.
    pub(super) fn peer(&self) -> Outcome {
        let then = Then::Peer { at: self.argument(3) };
        self.changed(self.registers, NO_SLOT, then, Vec::new())
    }
}

impl World {
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
