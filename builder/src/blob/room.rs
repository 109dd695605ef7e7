//! What is left of a disk, and telling a full one, and a path that will not do, from other failures.

use std::error::Error;
use std::io;
use std::path::Path;

/// So few files can be made that a step cannot be expected to do with them.
const FEW_FILES: u64 = 16;

/// What a user can still put on the file system of a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes that this user can write.
    pub free_bytes: u64,
    /// Bytes that there are in all.
    pub disk_bytes: u64,
    /// Files that this user can make, where the file system counts them.
    pub free_files: Option<u64>,
}

impl Room {
    /// Asks the file system of `folder`.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn of(folder: &Path) -> io::Result<Self> {
        let found = rustix::fs::statvfs(folder)?;
        Ok(Self {
            free_bytes: found.f_bavail.saturating_mul(found.f_frsize),
            disk_bytes: found.f_blocks.saturating_mul(found.f_frsize),
            free_files: (found.f_files > 0).then_some(found.f_favail),
        })
    }

    /// What is free on the file system of `folder`; nothing where it does not answer.
    #[must_use]
    pub fn free_in(folder: &Path) -> u64 {
        Self::of(folder).map_or(0, |room| room.free_bytes)
    }

    /// Whether there is room for bytes, and none for the files that would hold them.
    #[must_use]
    pub fn lacks_files(self) -> bool {
        self.free_files.is_some_and(|files| files < FEW_FILES)
    }
}

/// Whether a full disk, or a quota that is used up, is behind an error.
#[must_use]
pub fn is_disk_full(error: &(dyn Error + 'static)) -> bool {
    behind(error, |kind| matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
}

/// Whether a quota that is used up is behind an error: then what is free says nothing.
#[must_use]
pub fn is_quota_exceeded(error: &(dyn Error + 'static)) -> bool {
    behind(error, |kind| kind == io::ErrorKind::QuotaExceeded)
}

/// Whether another path, or other rights to this one, would mend an error: whoever named the path can.
#[must_use]
pub fn is_about_the_path(error: &(dyn Error + 'static)) -> bool {
    use io::ErrorKind as Kind;
    behind(error, |kind| {
        matches!(
            kind,
            Kind::AlreadyExists
                | Kind::DirectoryNotEmpty
                | Kind::InvalidFilename
                | Kind::IsADirectory
                | Kind::NotADirectory
                | Kind::NotFound
                | Kind::PermissionDenied
                | Kind::ReadOnlyFilesystem
        )
    })
}

fn behind(error: &(dyn Error + 'static), is: impl Fn(io::ErrorKind) -> bool) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.downcast_ref::<io::Error>().is_some_and(|error| is(error.kind())) {
            return true;
        }
        next = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blob::StoreError;

    #[test]
    fn a_full_disk_is_found_behind_what_it_caused() {
        let full = || io::Error::from(rustix::io::Errno::NOSPC);
        let store = StoreError::io("writing", Path::new("/x"), full());
        assert!(is_disk_full(&store) && !is_quota_exceeded(&store));
        // As it comes through a writer that only knows errors of input and output.
        assert!(is_disk_full(&io::Error::other(store)));
        let quota = StoreError::io("writing", Path::new("/x"), rustix::io::Errno::DQUOT.into());
        assert!(is_disk_full(&quota) && is_quota_exceeded(&quota));
        let other = StoreError::io("writing", Path::new("/x"), rustix::io::Errno::IO.into());
        assert!(!is_disk_full(&other) && !is_quota_exceeded(&other));
    }

    #[test]
    fn a_disk_has_room_at_most_for_what_it_is() {
        let room = Room::of(Path::new("/")).unwrap();
        assert!(room.disk_bytes > 0 && room.free_bytes <= room.disk_bytes, "{room:?}");
        let few = |free_files| Room { free_files, ..room };
        assert!(few(Some(3)).lacks_files() && !few(Some(1_000)).lacks_files() && !few(None).lacks_files());
    }
}
