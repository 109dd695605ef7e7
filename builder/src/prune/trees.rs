//! What trees take on the disk, and taking them away.

use std::collections::HashSet;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What a file takes on the disk; a sparse one may take less than it is long.
pub(super) fn on_disk(metadata: &Metadata) -> u64 {
    metadata.blocks() * 512
}

/// What all below `tree` takes, files with several names once. What cannot be read, or goes away meanwhile, counts nothing.
pub(super) fn size_of(tree: &Path) -> u64 {
    let mut total = fs::symlink_metadata(tree).map_or(0, |metadata| on_disk(&metadata));
    let mut several = HashSet::new();
    let mut ahead = vec![tree.to_owned()];
    while let Some(folder) = ahead.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                ahead.push(entry.path());
            } else if metadata.nlink() > 1 && !several.insert((metadata.dev(), metadata.ino())) {
                continue;
            }
            total += on_disk(&metadata);
        }
    }
    total
}
