//! What a process that died left behind, and how much room there is.

use std::fs;
use std::io;
use std::path::{Path as FilePath, PathBuf};
use std::time::SystemTime;

use super::{Inner, Room, names};

impl Inner {
    /// Removes files that were being written and that nobody has written to since `before`. One that is still being
    /// written is younger: a write takes no longer than its request.
    pub(super) fn sweep_temporary(&self, before: SystemTime) -> io::Result<Vec<String>> {
        let mut removed = Vec::new();
        let mut open: Vec<PathBuf> = vec![self.root.clone()];
        while let Some(folder) = open.pop() {
            let entries = match fs::read_dir(&folder) {
                Ok(entries) => entries,
                // Taken away since it was seen; or not ours, as `lost+found` at the root of a volume.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied && folder != self.root => continue,
                Err(error) => return Err(error),
            };
            for entry in entries {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    open.push(entry.path());
                } else if entry.file_name().to_string_lossy().starts_with(names::TEMPORARY) {
                    removed.extend(self.sweep_one(&entry.path(), before)?);
                }
            }
        }
        Ok(removed)
    }

    fn sweep_one(&self, path: &FilePath, before: SystemTime) -> io::Result<Option<String>> {
        let gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
        match fs::metadata(path).and_then(|metadata| metadata.modified()) {
            Ok(written) if written < before => {}
            Ok(_) => return Ok(None),
            Err(error) if gone(&error) => return Ok(None),
            Err(error) => return Err(error),
        }
        match fs::remove_file(path) {
            Ok(()) => Ok(Some(path.strip_prefix(&self.root).unwrap_or(path).display().to_string())),
            Err(error) if gone(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// `None` where it cannot be told: then the writes themselves will say.
    pub(super) fn room(&self) -> Option<Room> {
        let found = rustix::fs::statvfs(&self.root).ok()?;
        Some(Room {
            free_bytes: found.f_bavail.saturating_mul(found.f_frsize),
            total_bytes: found.f_blocks.saturating_mul(found.f_frsize),
            free_objects: found.f_favail,
            total_objects: found.f_files,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Folder;
    use super::*;
    use crate::storage::Port;

    #[tokio::test]
    async fn what_a_dead_process_was_writing_goes_and_nothing_else() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::open(place.path(), false).unwrap();
        let below = place.path().join("data/ab");
        fs::create_dir_all(&below).unwrap();
        let write = |name: &str, age: u64| {
            let path = below.join(name);
            fs::write(&path, "x").unwrap();
            let file = fs::File::options().write(true).open(path).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
        };
        write("@new-1-1", 100);
        write("@new-1-2", 10);
        write("new-1@", 100);
        let removed = folder.sweep_temporary(SystemTime::now() - Duration::from_secs(50)).await.unwrap();
        assert_eq!(removed, ["data/ab/@new-1-1"]);
        let mut left: Vec<_> =
            fs::read_dir(&below).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        left.sort();
        assert_eq!(left, ["@new-1-2", "new-1@"]);
    }

    #[test]
    fn a_folder_knows_its_room() {
        let place = tempfile::tempdir().unwrap();
        let room = Folder::open(place.path(), false).unwrap().room().unwrap();
        assert!(room.total_bytes >= room.free_bytes && room.free_bytes > 0, "{room:?}");
    }
}
