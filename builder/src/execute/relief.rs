//! A full disk: what can be made again goes, and the step is tried once more.
//!
//! What a step wrote half is gone when its attempt is over: every writer removes what it did not finish. So the second
//! attempt has that much room again, and what was pruned. A step that fails for want of room twice has failed.

use std::path::Path;

use super::plan::StepPlan;
use super::{Executor, RootState, States, StepError};
use crate::blob::{Room, Store, is_disk_full, is_quota_exceeded};
use crate::event::{Event, StepId, size};
use crate::graph::Node;

/// A command that left less than this found the disk full, whatever it says: no file system gives its last blocks away
/// one by one to everyone.
const FULL_BYTES: u64 = 1024 * 1024;

/// A command that says that the disk is full is believed while less than this share of the disk is free. With more, it
/// most likely filled something else, such as a small `tmpfs`.
const NEARLY_FULL_PERCENT: u64 = 10;

/// What programs print when a write failed for want of room: the C library's words.
const COMPLAINTS: &[&[u8]] = &[b"No space left on device", b"Disk quota exceeded"];

/// Makes room on the store's disk.
pub trait Relief: Send + Sync {
    /// Removes what nobody uses and what can be had again; gives how many bytes that was.
    fn make_room(&self) -> u64;
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
        let free_before = free_bytes(&self.store);
        let first = match self.operation(step, node, plan, states) {
            Err(error) if self.lacks_room(&error) => error,
            outcome => return outcome,
        };
        // What the attempt left is among the trash.
        self.store.trash().empty();
        let pruned_bytes = self.relief.as_ref().map_or(0, |relief| relief.make_room());
        let had_bytes = free_bytes(&self.store);
        // Somebody else may have made room meanwhile: another build that ended, or a step that ran beside this one.
        if pruned_bytes == 0 && had_bytes <= free_before {
            return Err(self.no_room(free_before, 0, first));
        }
        let root = self.store.root().display();
        self.events.hear(Event::Warning {
            text: format!(
                "the disk of the store {root} is full; {} of what can be made again was removed, and the step is tried once more with {} free",
                size(pruned_bytes),
                size(had_bytes)
            ),
        });
        match self.operation(step, node, plan, states) {
            Err(error) if self.lacks_room(&error) => Err(self.no_room(had_bytes, pruned_bytes, error)),
            outcome => outcome,
        }
    }

    fn lacks_room(&self, error: &StepError) -> bool {
        let full = match error {
            StepError::FoundDiskFull { .. } => true,
            // The sandbox tells numbers, and the kernel uses that of a full disk for used up namespaces too.
            StepError::Sandbox(_) => is_full(self.store.root()),
            error => is_disk_full(error),
        };
        full && !self.cancel.is_cancelled()
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

fn free_bytes(store: &Store) -> u64 {
    Room::of(store.root()).map_or(0, |room| room.free_bytes)
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
