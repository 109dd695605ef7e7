//! A full disk: what can be made again goes, and the step is tried once more.
//!
//! What a step wrote half is gone when its attempt is over: every writer removes what it did not finish. So the next
//! attempt has that much room again, and what was pruned: at first as much as there was, and where that will not do, all.
//! A step that fails for want of room then has failed.

use std::path::Path;

use super::plan::StepPlan;
use super::{Executor, RootState, States, StepError};
use crate::blob::{Room, is_disk_full, is_quota_exceeded};
use crate::event::StepId;
use crate::graph::Node;

/// A command that left less than this found the disk full, whatever it says: no file system gives its last blocks away
/// one by one to everyone.
const FULL_BYTES: u64 = 1024 * 1024;

/// A command that says that the disk is full is believed while less than this share of the disk is free. With more, it
/// most likely filled something else, such as a small `tmpfs`.
const NEARLY_FULL_PERCENT: u64 = 10;

/// What programs print when a write failed for want of room: the C library's words.
const COMPLAINTS: &[&[u8]] = &[b"No space left on device", b"Disk quota exceeded"];

/// How much room is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// As much as there was before, at least.
    Again,
    /// All that can be had.
    All,
}

impl Amount {
    /// What is tried, one after the other.
    pub const EACH: [Self; 2] = [Self::Again, Self::All];
}

/// Makes room on the store's disk.
pub trait Relief: Send + Sync {
    /// Removes what nobody uses and what can be had again, the least recently used first and cache mounts last; then says
    /// that `what`, which began when `free_before` bytes were free, is tried once more. Gives how many bytes were removed;
    /// `None` when there is nothing to hope for.
    fn make_room(&self, what: &str, free_before: u64, amount: Amount) -> Option<u64>;
}

impl Executor {
    /// Runs an operation; when the disk is full, makes room and runs it again.
    pub(super) fn attempt(
        &self,
        step: StepId,
        node: &Node,
        plan: &StepPlan,
        states: &States,
    ) -> Result<RootState, StepError> {
        if is_nearly_full(self.store.root()) {
            self.store.trash().empty();
        }
        let (mut had_bytes, mut pruned_bytes) = (Room::free_in(self.store.root()), 0);
        let mut amounts = Amount::EACH.into_iter();
        loop {
            let error = match self.operation(step, node, plan, states) {
                // Whatever a copy says that was broken off.
                Err(error) if !error.is_of_the_command() && self.cancel.is_cancelled() => {
                    return Err(StepError::Cancelled);
                }
                Err(error) if self.lacks_room(&error) => error,
                outcome => return outcome,
            };
            // What the attempt left is among the trash.
            self.store.trash().empty();
            let made = amounts.next().and_then(|amount| self.relief.make_room("the step", had_bytes, amount));
            let Some(made) = made else { return Err(self.no_room(had_bytes, pruned_bytes, error)) };
            (had_bytes, pruned_bytes) = (Room::free_in(self.store.root()), pruned_bytes + made);
        }
    }

    fn lacks_room(&self, error: &StepError) -> bool {
        match error {
            StepError::FoundDiskFull { .. } => true,
            // The sandbox tells numbers, and the kernel uses that of a full disk for used up namespaces too.
            StepError::Sandbox(_) => is_full(self.store.root()),
            error => is_disk_full(error),
        }
    }

    fn no_room(&self, had_bytes: u64, pruned_bytes: u64, error: StepError) -> StepError {
        let quota = is_quota_exceeded(&error);
        let source = match error {
            StepError::FoundDiskFull { source } => source,
            error => Box::new(error),
        };
        let room = Room::of(self.store.root()).ok();
        StepError::DiskFull {
            store: self.store.root().to_owned(),
            had_bytes,
            free_bytes: room.map_or(0, |room| room.free_bytes),
            limit: match (quota, room.is_some_and(Room::lacks_files)) {
                (true, _) => "this user's quota on the disk of",
                (_, true) => "the number of files that can be made on the disk of",
                _ => "the disk of",
            },
            pruned_bytes,
            source,
        }
    }

    /// What a command's failure is when its root file system has no room left. To be asked while what it wrote is there.
    pub(super) fn with_room(&self, failed: StepError, complained: bool) -> StepError {
        let full = match complained {
            true => is_nearly_full(self.store.root()),
            false => is_full(self.store.root()),
        };
        if full { StepError::FoundDiskFull { source: Box::new(failed) } } else { failed }
    }
}

/// Whether a command's output tells of a full disk.
pub(super) fn complains(output: &[u8]) -> bool {
    COMPLAINTS.iter().any(|words| output.windows(words.len()).any(|window| window == *words))
}

fn is_full(folder: &Path) -> bool {
    Room::of(folder).is_ok_and(|room| room.free_bytes < FULL_BYTES.min(room.disk_bytes / 100) || room.lacks_files())
}

fn is_nearly_full(folder: &Path) -> bool {
    Room::of(folder)
        .is_ok_and(|room| room.free_bytes < room.disk_bytes / 100 * NEARLY_FULL_PERCENT || room.lacks_files())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_are_those_of_the_c_library() {
        assert!(complains(b"dd: error writing '/big': No space left on device\n"));
        assert!(complains(b"cp: /x: Disk quota exceeded"));
        assert!(!complains(b"no space"));
        assert!(!complains(b""));
    }
}
