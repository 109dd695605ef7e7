//! The memory of a traced process, through `/proc/<pid>/mem`.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::os::unix::fs::FileExt;

use rustix::io::Errno;

use super::system::Tid;

/// The longest path that the kernel takes, with its end.
pub(super) const PATH_BYTES: usize = 4096;

const PAGE_BYTES: u64 = 4096;

/// Room for one translated path in a traced process: a name in a descriptor of the tracer's, or a socket's address.
pub(super) const SLOT_BYTES: u64 = 512;
/// How many calls of one process can be under way with a translated path: as many threads may wait for the other end of a
/// FIFO. All of them end below the lowest address that programs are linked for.
const SLOTS: usize = 2048;
const WORD: usize = u64::BITS as usize;
/// The number of none.
pub(super) const NO_SLOT: u32 = u32::MAX;
/// What the tracer maps into each program for itself, with room for two whole paths that it keeps there.
pub(super) const SCRATCH_BYTES: u64 = SLOT_BYTES * SLOTS as u64 + 2 * PATH_BYTES as u64;
/// Where it maps that: as low as the kernel lets anything be, so that a filter can tell calls that would change it by
/// their first address alone. The program may only read it.
pub(super) const SCRATCH_AT: u64 = 0x1_0000;
pub(super) const SCRATCH_END: u64 = SCRATCH_AT + SCRATCH_BYTES;

/// One address space.
#[derive(Debug)]
pub(super) struct Memory {
    file: File,
    /// Where the scratch space is; 0 when there is none yet.
    scratch: Cell<u64>,
    used: RefCell<[u64; SLOTS / WORD]>,
}

impl Memory {
    pub(super) fn of(tid: Tid, scratch: u64) -> Result<Self, Errno> {
        let file = File::options().read(true).write(true).open(format!("/proc/{tid}/mem"));
        let file = file.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        Ok(Self { file, scratch: Cell::new(scratch), used: RefCell::new([0; SLOTS / WORD]) })
    }

    pub(super) fn scratch(&self) -> u64 {
        self.scratch.get()
    }

    pub(super) fn set_scratch(&self, address: u64) {
        self.scratch.set(address);
    }

    /// A free slot's number and address.
    pub(super) fn take_slot(&self) -> Option<(u32, u64)> {
        let mut used = self.used.borrow_mut();
        let (at, word) = used.iter_mut().enumerate().find(|(_, word)| **word != u64::MAX)?;
        let free = word.trailing_ones();
        *word |= 1 << free;
        let slot = u32::try_from(at * WORD).ok()? + free;
        Some((slot, self.scratch.get() + SLOT_BYTES * u64::from(slot)))
    }

    pub(super) fn free_slot(&self, slot: u32) {
        // None has a number beyond them.
        if let Some(word) = self.used.borrow_mut().get_mut((slot / u64::BITS) as usize) {
            *word &= !(1 << (slot % u64::BITS));
        }
    }

    pub(super) fn read(&self, address: u64, buffer: &mut [u8]) -> Result<(), Errno> {
        self.file.read_exact_at(buffer, address).map_err(|_| Errno::FAULT)
    }

    pub(super) fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Errno> {
        self.file.write_all_at(bytes, address).map_err(|_| Errno::FAULT)
    }

    pub(super) fn word(&self, address: u64) -> Result<u64, Errno> {
        let mut bytes = [0; 8];
        self.read(address, &mut bytes)?;
        Ok(u64::from_ne_bytes(bytes))
    }

    /// The string at an address, without its end.
    pub(super) fn string(&self, address: u64, most: usize) -> Result<Vec<u8>, Errno> {
        if address == 0 {
            return Err(Errno::FAULT);
        }
        let mut string = Vec::new();
        let mut at = address;
        let mut buffer = [0; 256];
        while string.len() < most {
            // Never into the next page, which may not be there.
            let left = PAGE_BYTES - at % PAGE_BYTES;
            let count = usize::try_from(left).unwrap_or(buffer.len()).min(buffer.len());
            self.read(at, &mut buffer[..count])?;
            if let Some(end) = buffer[..count].iter().position(|byte| *byte == 0) {
                string.extend_from_slice(&buffer[..end]);
                return Ok(string);
            }
            string.extend_from_slice(&buffer[..count]);
            at += count as u64;
        }
        Err(Errno::NAMETOOLONG)
    }

    /// The addresses of a list that ends with a null pointer.
    pub(super) fn list(&self, address: u64) -> Result<Vec<u64>, Errno> {
        let mut list = Vec::new();
        if address == 0 {
            return Ok(list);
        }
        loop {
            let word = self.word(address + 8 * list.len() as u64)?;
            if word == 0 {
                return Ok(list);
            }
            list.push(word);
            // As many as the kernel would take pointers of in its limit of a quarter of the stack.
            if list.len() > 1 << 20 {
                return Err(Errno::TOOBIG);
            }
        }
    }
}
