//! What the tracer knows of a task and its process.

use std::cell::RefCell;
use std::ffi::CString;
use std::rc::Rc;

use rustix::io::Errno;

use super::memory::Memory;
use super::owners::Seen;
use super::paths::Found;
use super::system::{Registers, Tid};

/// The ids that a process believes to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Credentials {
    /// Real, effective, saved, and that for files.
    pub(super) uids: [u32; 4],
    pub(super) gids: [u32; 4],
    pub(super) groups: Vec<u32>,
    /// Whether it wants to keep its capabilities when it is root no more, and whether it has kept them.
    pub(super) keeps: bool,
    pub(super) kept: bool,
}

pub(super) const REAL: usize = 0;
pub(super) const EFFECTIVE: usize = 1;
pub(super) const SAVED: usize = 2;
pub(super) const FILES: usize = 3;

/// What may be done with a file, as `access` counts it.
pub(super) const MAY_READ: u32 = 4;
pub(super) const MAY_WRITE: u32 = 2;
pub(super) const MAY_EXECUTE: u32 = 1;

impl Credentials {
    pub(super) fn new(uid: u32, gid: u32, groups: Vec<u32>) -> Self {
        Self { uids: [uid; 4], gids: [gid; 4], groups, keeps: false, kept: false }
    }

    pub(super) fn is_root(&self) -> bool {
        self.uids[EFFECTIVE] == 0
    }

    /// Whether it may take any id.
    pub(super) fn may_be_anybody(&self) -> bool {
        self.is_root() || self.kept
    }

    fn has_group(&self, gid: u32) -> bool {
        self.gids[FILES] == gid || self.groups.contains(&gid)
    }

    /// Whether these ids are let do all of `wanted` with such a file.
    pub(super) fn may(&self, seen: Seen, wanted: u32) -> Result<(), Errno> {
        let bits = if self.uids[FILES] == 0 {
            let executable = seen.mode & 0o111 != 0 || seen.kind() == rustix::fs::FileType::Directory;
            MAY_READ | MAY_WRITE | if executable { MAY_EXECUTE } else { 0 }
        } else if self.uids[FILES] == seen.uid {
            seen.mode >> 6
        } else if self.has_group(seen.gid) {
            seen.mode >> 3
        } else {
            seen.mode
        };
        if bits & wanted == wanted { Ok(()) } else { Err(Errno::ACCESS) }
    }

    /// Whether they may change owner, mode and times of such a file.
    pub(super) fn owns(&self, seen: Seen) -> Result<(), Errno> {
        if self.uids[FILES] == 0 || self.uids[FILES] == seen.uid { Ok(()) } else { Err(Errno::PERM) }
    }

    /// The owner of what they make in a folder.
    pub(super) fn maker(&self, folder: Seen) -> (u32, u32) {
        let gid = if folder.mode & libc::S_ISGID != 0 { folder.gid } else { self.gids[FILES] };
        (self.uids[FILES], gid)
    }
}

/// A process: what its threads share.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) tgid: Tid,
    pub(super) credentials: Credentials,
    pub(super) umask: u32,
    /// Its program, as the command sees it.
    pub(super) program: Vec<u8>,
    pub(super) memory: Rc<Memory>,
}

/// A task that the kernel stops for us.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) tid: Tid,
    pub(super) process: Rc<RefCell<Process>>,
    pub(super) pending: Option<Pending>,
}

/// A call that runs with changed arguments, and what is to be done when it has ended.
#[derive(Debug)]
pub(super) struct Pending {
    /// The registers before the change.
    pub(super) before: Registers,
    /// What was borrowed for the change.
    pub(super) slot: u32,
    pub(super) then: Then,
    /// What must stay open until then.
    #[expect(dead_code, reason = "it is held, not read")]
    pub(super) held: Vec<Found>,
}

/// What follows a call.
#[derive(Debug)]
pub(super) enum Then {
    Nothing,
    /// A file may have been made, and opened: with this owner and these permission bits.
    Made {
        owner: (u32, u32),
        mode: Option<u32>,
    },
    /// A socket may have been made at a name in a folder.
    Bound {
        folder: Rc<Found>,
        name: CString,
        owner: (u32, u32),
    },
    /// One message of many may have been sent: how much of it is told at this address.
    Sent {
        length_at: u64,
    },
    /// Who is at the other end of a socket may have been told at this address.
    Peer {
        at: u64,
    },
    /// A socket's name may have been told at this address, which has so many bytes, and its length at that one.
    Named {
        at: u64,
        length_at: u64,
        room: u32,
    },
    /// Another program may have been started.
    Program(Box<super::program::Prepared>),
}
