//! On a full disk pushes stop first, so that pulls, deletes and collection can go on and free space.

use crate::storage::port::Room;
use crate::storage::{Storage, StorageError};

/// So much stays free in any case.
const KEPT_BYTES: u64 = 256 * 1024 * 1024;
/// And this part of it all.
const KEPT_PART: u64 = 100;

impl Storage {
    /// Whether there is room for what a push stores.
    pub(in crate::storage) fn check_room(&self, during: &'static str) -> Result<(), StorageError> {
        self.shortage().map_or(Ok(()), |what| Err(StorageError::full(during, what)))
    }

    /// Why pushes are refused now, if it is for want of room.
    pub fn shortage(&self) -> Option<String> {
        self.room().and_then(too_little)
    }

    /// How much room is left; `None` where there is no end to it.
    pub fn room(&self) -> Option<Room> {
        self.port.0.room()
    }
}

/// Of what there is too little.
fn too_little(room: Room) -> Option<String> {
    let kept_bytes = KEPT_BYTES.max(room.total_bytes / KEPT_PART);
    if room.free_bytes < kept_bytes {
        return Some(format!(
            "the store's disk has {} MiB free, and pushes stop below {} MiB so that pulls, deletes and collection go on: delete images, or make room",
            room.free_bytes >> 20,
            kept_bytes >> 20
        ));
    }
    let kept_objects = room.total_objects / KEPT_PART;
    if room.free_objects < kept_objects {
        return Some(format!(
            "the store's file system has {} inodes free, and pushes stop below {kept_objects} so that pulls, deletes and collection go on: delete images, or make room",
            room.free_objects
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn room(free_bytes: u64, total_bytes: u64, free_objects: u64, total_objects: u64) -> Room {
        Room { free_bytes, total_bytes, free_objects, total_objects }
    }

    #[test]
    fn the_larger_of_a_hundredth_and_256_mib_stays_free() {
        assert_eq!(too_little(room(257 << 20, GIB, 50, 100)), None);
        assert!(too_little(room(255 << 20, GIB, 50, 100)).is_some_and(|what| what.contains("255 MiB free")));
        assert_eq!(too_little(room(11 * GIB, 1000 * GIB, 50, 100)), None);
        assert!(too_little(room(9 * GIB, 1000 * GIB, 50, 100)).is_some_and(|what| what.contains("below 10240 MiB")));
    }

    #[test]
    fn a_hundredth_of_the_inodes_stays_free() {
        assert!(too_little(room(GIB, GIB, 9, 1000)).is_some_and(|what| what.contains("9 inodes free")));
        // Some file systems do not count them.
        assert_eq!(too_little(room(GIB, GIB, 0, 0)), None);
    }
}
