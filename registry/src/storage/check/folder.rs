//! What a folder can be asked: what it lies on, and how much room there is.

use super::super::Folder;
use super::{Outcome, StoreReport};

const MIB: u64 = 1024 * 1024;

pub(super) fn check(folder: &Folder, report: &mut StoreReport) {
    match folder.file_system() {
        Ok(system) if system.is_shared() => report.add(
            "file system",
            Outcome::Warning,
            format!("{system}: others may write to it, and a lock there is not one everywhere: collection stays off; only one server may use it"),
        ),
        Ok(system) => report.add("file system", Outcome::Passed, system.to_string()),
        Err(error) => report.add("file system", Outcome::Unknown, error.to_string()),
    }
    match rustix::fs::statvfs(folder.root()) {
        Ok(room) => {
            let (free, all) = (room.f_bavail * room.f_frsize, room.f_blocks * room.f_frsize);
            // As the registry itself stops at (`storage.md`, "Collecting").
            let least = (all / 100).max(256 * MIB);
            let few_inodes = room.f_files > 0 && room.f_favail < room.f_files / 100;
            let detail = format!("{} MiB of {} MiB are free", free / MIB, all / MIB);
            match free < least || few_inodes {
                true if few_inodes => {
                    report.add("room", Outcome::Finding, format!("{detail}, but few inodes: pushes are refused"))
                }
                true => report.add(
                    "room",
                    Outcome::Finding,
                    format!("{detail}: pushes are refused below {} MiB", least / MIB),
                ),
                false => report.add("room", Outcome::Passed, detail),
            }
        }
        Err(error) => report.add("room", Outcome::Unknown, error.to_string()),
    }
}
