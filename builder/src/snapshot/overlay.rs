//! Unpacked layers under an overlay mount: the way where overlayfs can be mounted.

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use oci_spec::image::Digest;

use super::entries::{Entries, Entry};
use super::workspace::Keep;
use super::{SnapshotError, Snapshotter, Workspace};
use crate::blob::{Store, Temporary};
use crate::layer::{
    Applied, ApplyError, Form, Layer, LayerIndex, Limits, apply_layer_apart, apply_layer_with_times, tidy_upper,
};
use crate::owners;
use crate::sandbox::{InMemory, RootMount};

/// Each layer in a folder of its own, merged by the kernel when a step runs.
#[derive(Clone, Debug)]
pub struct Overlay {
    entries: Entries,
}

impl Overlay {
    /// Uses the unpacked layers in that store. Nothing is tried here: whether the kernel mounts is told by the sandbox.
    pub fn open(store: Store) -> Result<Self, SnapshotError> {
        Ok(Self { entries: Entries::new(store) })
    }

    fn temporary(&self) -> Result<Temporary, SnapshotError> {
        Ok(self.entries.store().temporary_folder()?)
    }
}

impl Snapshotter for Overlay {
    fn has(&self, diff_id: &Digest) -> bool {
        self.entries.find_independent(diff_id).is_some()
    }

    fn has_times(&self, diff_id: &Digest, index: &LayerIndex) -> bool {
        self.entries.find_independent(diff_id).is_none_or(|entry| entry.has_times(index))
    }

    fn unpack(
        &self,
        diff_id: &Digest,
        below: &[Digest],
        blob: Box<dyn Read + Send>,
        media_type: &str,
        limits: &Limits,
        index: Option<&LayerIndex>,
    ) -> Result<(), SnapshotError> {
        let found = self.entries.find(diff_id, below);
        if found.is_some_and(|entry| index.is_none_or(|index| entry.has_times(index))) {
            return Ok(());
        }
        let chain = self.entries.chain(below)?;
        let lowers = topmost_first(&chain);
        let folder = self.temporary()?;
        let fs = folder.path().join("fs");
        create(&fs)?;
        let applied = apply_layer_with_times(blob, media_type, limits, &fs, Form::Overlay { lowers: &lowers }, index)
            .map_err(|source| SnapshotError::Apply { diff_id: diff_id.clone(), source: source.into() })?;
        check(&applied, diff_id)?;
        applied.owners.write_for(&fs).map_err(SnapshotError::at("writing the owners beside", &fs))?;
        let below = applied.depends_on_lowers.then_some(below);
        self.entries.reveal(folder.path(), diff_id, below, applied.has_root, index)
    }

    fn unpack_and_index(
        &self,
        diff_id: &Digest,
        blob: Box<dyn Read + Send>,
        media_type: &str,
        limits: &Limits,
    ) -> Result<Option<LayerIndex>, SnapshotError> {
        let folder = self.temporary()?;
        let fs = folder.path().join("fs");
        create(&fs)?;
        let (applied, index) = match apply_layer_apart(blob, media_type, limits, &fs) {
            Ok(applied) => applied,
            Err(ApplyError::ReachesBelow { .. }) => return Ok(None),
            Err(source) => return Err(SnapshotError::Apply { diff_id: diff_id.clone(), source: source.into() }),
        };
        check(&applied, diff_id)?;
        if applied.depends_on_lowers {
            return Ok(None);
        }
        applied.owners.write_for(&fs).map_err(SnapshotError::at("writing the owners beside", &fs))?;
        self.entries.reveal(folder.path(), diff_id, None, applied.has_root, None)?;
        Ok(Some(index))
    }

    fn unpacks_apart(&self) -> bool {
        true
    }

    fn prepare(&self, chain: &[Digest]) -> Result<Workspace, SnapshotError> {
        let entries = self.entries.chain(chain)?;
        let folder = self.temporary()?;
        let memory = InMemory::over(folder.path()).map_err(|source| SnapshotError::Memory { source })?;
        let (upper, work) = (folder.path().join("fs"), folder.path().join("work"));
        create(&upper)?;
        create(&work)?;
        copy_root_attributes(&entries, &upper)?;
        let lowers = topmost_first(&entries);
        let root = RootMount::Overlay { lowers, upper, work };
        Ok(Workspace { root, chain: chain.to_vec(), keep: Keep::Overlay { memory, folder } })
    }

    fn commit(&self, workspace: Workspace, layer: &Layer) -> Result<(), SnapshotError> {
        let (Keep::Overlay { memory, folder }, RootMount::Overlay { lowers, upper, work }) =
            (&workspace.keep, &workspace.root)
        else {
            return Err(SnapshotError::AnothersWorkspace { expected: "the overlay" });
        };
        if self.entries.find(&layer.diff_id, &workspace.chain).is_some() {
            return Ok(());
        }
        if memory.is_some() {
            // Its marks of removal cannot be in the store: who needs the layer unpacks it again, with others.
            return Ok(());
        }
        let depends_on_lowers = tidy_upper(upper, lowers)?;
        self.entries.store().trash().take(work);
        let below = depends_on_lowers.then_some(&workspace.chain[..]);
        // The workspace's drop finds nothing left to remove.
        self.entries.reveal(folder.path(), &layer.diff_id, below, false, None)
    }
}

/// Whether what was unpacked is the layer that it should be.
fn check(applied: &Applied, diff_id: &Digest) -> Result<(), SnapshotError> {
    if applied.scan.diff_id != *diff_id {
        return Err(SnapshotError::WrongDiffId { expected: diff_id.clone(), actual: applied.scan.diff_id.clone() });
    }
    for left_out in &applied.left_out {
        tracing::debug!(layer.diff_id = %diff_id, path = %left_out.path, what = left_out.what, "not unpacked");
    }
    Ok(())
}

fn create(folder: &Path) -> Result<(), SnapshotError> {
    fs::create_dir(folder).map_err(SnapshotError::at("creating", folder))?;
    // Whatever our umask is, a root must be open to the users in it.
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).map_err(SnapshotError::at("opening up", folder))
}

/// The folders of a chain. A layer may stand in it twice (two steps that left the same), and overlayfs refuses a folder
/// that does; whatever its lower place shows or hides, its upper one shows or hides again, so the upper one is enough.
fn topmost_first(chain: &[Entry]) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = Vec::new();
    for entry in chain.iter().rev() {
        if !folders.contains(&entry.fs) {
            folders.push(entry.fs.clone());
        }
    }
    folders
}

/// The attributes of a mount's root are those of the upper folder.
fn copy_root_attributes(chain: &[Entry], upper: &Path) -> Result<(), SnapshotError> {
    let Some(entry) = chain.iter().rev().find(|entry| entry.meta.has_root) else { return Ok(()) };
    let metadata = fs::symlink_metadata(&entry.fs).map_err(SnapshotError::at("looking at", &entry.fs))?;
    owners::give(upper, owners::of(&entry.fs, &metadata))
        .map_err(SnapshotError::errno("setting the owner of", upper))?;
    fs::set_permissions(upper, metadata.permissions()).map_err(SnapshotError::at("setting the mode of", upper))?;
    let times = fs::FileTimes::new();
    let times = metadata.modified().map(|modified| times.set_modified(modified)).unwrap_or(times);
    let opened = fs::File::open(upper).map_err(SnapshotError::at("opening", upper))?;
    opened.set_times(times).map_err(SnapshotError::at("setting the time of", upper))
}

#[cfg(test)]
mod tests;
