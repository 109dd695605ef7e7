//! Calls on the ids of a process: answered from what it believes to be.

use rustix::io::Errno;

use super::task::{Credentials, EFFECTIVE, FILES, REAL, SAVED};
use super::world::{Caller, Outcome};

/// "Leave it as it is", in calls that set several ids.
const SAME: u32 = u32::MAX;

/// Docker's capabilities.
const CAPABILITIES: u64 = 0xa804_25fb;

/// Sets ids as `setresuid` does: root any, others those that they have.
fn set(ids: &mut [u32; 4], privileged: bool, wanted: [u32; 3]) -> Result<(), Errno> {
    let before = *ids;
    for id in wanted {
        if id != SAME && !privileged && !before[..FILES].contains(&id) {
            return Err(Errno::PERM);
        }
    }
    for (place, id) in wanted.into_iter().enumerate() {
        if id != SAME {
            ids[place] = id;
        }
    }
    ids[FILES] = ids[EFFECTIVE];
    Ok(())
}

/// The last capability that the kernel knows.
fn last_capability() -> u64 {
    let told = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap");
    told.ok().and_then(|number| number.trim().parse().ok()).unwrap_or(63)
}

impl Caller<'_> {
    fn change(&self, change: impl FnOnce(&mut Credentials) -> Result<(), Errno>) -> Result<Outcome, Errno> {
        let credentials = &mut self.task.process.borrow_mut().credentials;
        let was_root = credentials.uids[..FILES].contains(&0);
        change(credentials)?;
        if was_root && !credentials.uids[..FILES].contains(&0) {
            credentials.kept = credentials.keeps;
        }
        Ok(Outcome::DONE)
    }

    /// Answers a call on ids; `None` when it is none.
    pub(super) fn ids(&self, call: i64) -> Option<Result<Outcome, Errno>> {
        let ids = &self.credentials;
        let (privileged, user) =
            (ids.may_be_anybody(), matches!(call, libc::SYS_setuid | libc::SYS_setreuid | libc::SYS_setresuid));
        let one = |id: u32| Some(Ok(Outcome::Return(id.into())));
        let wanted = match call {
            libc::SYS_getuid => return one(ids.uids[REAL]),
            libc::SYS_geteuid => return one(ids.uids[EFFECTIVE]),
            libc::SYS_getgid => return one(ids.gids[REAL]),
            libc::SYS_getegid => return one(ids.gids[EFFECTIVE]),
            libc::SYS_getresuid => return Some(self.write_three(&ids.uids)),
            libc::SYS_getresgid => return Some(self.write_three(&ids.gids)),
            libc::SYS_getgroups => return Some(self.get_groups()),
            libc::SYS_setgroups => return Some(self.set_groups()),
            libc::SYS_capget => return Some(self.get_capabilities()),
            libc::SYS_prctl => return self.process_control(),
            libc::SYS_capset => return Some(Ok(Outcome::DONE)),
            libc::SYS_setfsuid | libc::SYS_setfsgid => {
                let id = self.unsigned(0);
                let mut before = 0;
                let changed = self.change(|credentials| {
                    let ids = if call == libc::SYS_setfsuid { &mut credentials.uids } else { &mut credentials.gids };
                    before = ids[FILES];
                    if privileged || ids.contains(&id) {
                        ids[FILES] = id;
                    }
                    Ok(())
                });
                return Some(changed.map(|_| Outcome::Return(before.into())));
            }
            libc::SYS_setuid | libc::SYS_setgid => {
                let id = self.unsigned(0);
                if id == SAME {
                    return Some(Err(Errno::INVAL));
                }
                if privileged { [id; 3] } else { [SAME, id, SAME] }
            }
            libc::SYS_setreuid | libc::SYS_setregid => {
                let (real, effective) = (self.unsigned(0), self.unsigned(1));
                let current = if user { ids.uids[REAL] } else { ids.gids[REAL] };
                let saves = real != SAME || effective != SAME && effective != current;
                [real, effective, if saves && effective != SAME { effective } else { SAME }]
            }
            libc::SYS_setresuid | libc::SYS_setresgid => [self.unsigned(0), self.unsigned(1), self.unsigned(2)],
            _ => return None,
        };
        Some(self.change(|credentials| {
            set(if user { &mut credentials.uids } else { &mut credentials.gids }, privileged, wanted)
        }))
    }

    /// What `prctl` says of capabilities; `None` for all else.
    fn process_control(&self) -> Option<Result<Outcome, Errno>> {
        let held = |capability: u64| capability < 64 && CAPABILITIES >> capability & 1 == 1;
        match self.number(0) {
            libc::PR_SET_KEEPCAPS => Some(self.change(|credentials| {
                credentials.keeps = self.argument(1) != 0;
                Ok(())
            })),
            libc::PR_GET_KEEPCAPS => Some(Ok(Outcome::Return(self.credentials.keeps.into()))),
            // Its descriptors and memory would be closed to the tracer.
            libc::PR_SET_DUMPABLE => Some(Ok(Outcome::DONE)),
            // The kernel says of those that it does not know that they are none.
            libc::PR_CAPBSET_READ if self.argument(1) <= last_capability() => {
                Some(Ok(Outcome::Return(held(self.argument(1)).into())))
            }
            libc::PR_CAPBSET_DROP if self.credentials.may_be_anybody() => Some(Ok(Outcome::DONE)),
            _ => None,
        }
    }

    fn write_three(&self, ids: &[u32; 4]) -> Result<Outcome, Errno> {
        for (place, id) in [ids[REAL], ids[EFFECTIVE], ids[SAVED]].into_iter().enumerate() {
            self.write(place, &id.to_ne_bytes())?;
        }
        Ok(Outcome::DONE)
    }

    fn get_groups(&self) -> Result<Outcome, Errno> {
        let (groups, room) = (&self.credentials.groups, self.number(0));
        if room != 0 {
            if usize::try_from(room).map_err(|_| Errno::INVAL)? < groups.len() {
                return Err(Errno::INVAL);
            }
            let bytes: Vec<u8> = groups.iter().flat_map(|group| group.to_ne_bytes()).collect();
            self.write(1, &bytes)?;
        }
        Ok(Outcome::Return(groups.len() as u64))
    }

    fn set_groups(&self) -> Result<Outcome, Errno> {
        const GROUPS_MAX: usize = 65_536;
        let count = usize::try_from(self.number(0)).ok().filter(|count| *count <= GROUPS_MAX).ok_or(Errno::INVAL)?;
        if !self.credentials.may_be_anybody() {
            return Err(Errno::PERM);
        }
        let mut bytes = vec![0; count * 4];
        self.memory.read(self.argument(1), &mut bytes)?;
        let group = |bytes: &[u8]| bytes.try_into().map_or(0, u32::from_ne_bytes);
        let groups = bytes.chunks_exact(4).map(group).collect();
        self.change(|credentials| {
            credentials.groups = groups;
            Ok(())
        })
    }

    /// Effective, permitted and inheritable sets; in version 3 of the call the upper halves follow.
    fn get_capabilities(&self) -> Result<Outcome, Errno> {
        const VERSION_3: u32 = 0x2008_0522;
        let mut version = [0; 4];
        self.memory.read(self.argument(0), &mut version)?;
        if u32::from_ne_bytes(version) != VERSION_3 {
            self.write(0, &VERSION_3.to_ne_bytes())?;
            return if self.argument(1) == 0 { Ok(Outcome::DONE) } else { Err(Errno::INVAL) };
        }
        if self.argument(1) == 0 {
            return Ok(Outcome::DONE);
        }
        let has = if self.credentials.may_be_anybody() { CAPABILITIES } else { 0 };
        let (low, high) = (has as u32, (has >> 32) as u32);
        let bytes: Vec<u8> = [low, low, 0, high, high, 0].iter().flat_map(|word| word.to_ne_bytes()).collect();
        self.write(1, &bytes)
    }
}
