//! A store in which folders list their files in another order.
//!
//! Which order that is depends on the file system: by a hash of the names on ext4, the last one made first in memory. What
//! commands find is unpacked in the store, so the second build has a store in memory, where that may be mounted. Whether its
//! order is another one is looked up, not believed.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::Path;

use crate::blob::{Store, Temporary};
use crate::pipeline::{self, BuildError, Built, memory_limit_bytes};
use crate::sandbox::InMemory;

/// Files of the folder that is listed twice. That so many stand in one order by chance does not happen.
const LISTED: usize = 32;

/// Less memory than this is left alone, in bytes.
const LEAST_BYTES: u64 = 256 * 1024 * 1024;

/// A store of its own in memory; gone with this.
#[derive(Debug)]
pub(super) struct OtherOrder {
    // Dropped in this order.
    pub(super) store: Store,
    _memory: InMemory,
    _folder: Temporary,
}

impl OtherOrder {
    /// `None` where memory cannot be mounted, where there is little of it, and where its order is the same.
    pub(super) fn beside(store: &Store) -> Option<Self> {
        let size_bytes = usable_bytes()?;
        let folder = store.temporary_folder().ok()?;
        let before = listed(folder.path()).ok()?;
        let memory = InMemory::of(folder.path(), size_bytes).ok()??;
        if listed(folder.path()).ok()? == before {
            return None;
        }
        let store = Store::open(&folder.path().join("store")).ok()?;
        Some(Self { store, _memory: memory, _folder: folder })
    }

    /// Brings what the first build had of its base images: none of it is asked for twice.
    pub(super) fn take_bases(&self, from: &Store, built: &Built) -> Result<(), BuildError> {
        pipeline::lend_bases(built, from, &self.store)
    }

    /// Gives an image that was built here to the other store, where it is compared.
    pub(super) fn give(&self, built: &Built, to: &Store) -> Result<(), BuildError> {
        pipeline::lend_image(built.manifest.digest(), &self.store, to)
    }
}

/// The order in which a folder lists new files.
pub(super) fn listed(folder: &Path) -> io::Result<Vec<OsString>> {
    let names: BTreeSet<String> = (0..LISTED).map(|number| format!("file-{number}")).collect();
    for name in &names {
        fs::write(folder.join(name), "")?;
    }
    let found = fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<_>>()?;
    for name in &names {
        fs::remove_file(folder.join(name))?;
    }
    Ok(found)
}

/// Half of what is free: commands need some too. `None` where that is little.
pub(super) fn usable_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let available = line.split_whitespace().next()?.parse::<u64>().ok()?.saturating_mul(1024);
    let usable = memory_limit_bytes().map_or(available, |limit| limit.min(available)) / 2;
    (usable >= LEAST_BYTES).then_some(usable)
}
