//! The snapshots that go with how commands run here.

use std::io::Read;
use std::sync::OnceLock;

use oci_spec::image::Digest;

use super::{MutableRoot, Overlay, SnapshotError, Snapshotter, Workspace};
use crate::blob::Store;
use crate::layer::{Layer, LayerIndex, Limits};
use crate::sandbox::{Isolation, Rung};
use crate::stop::Cancel;

/// Overlays where commands run with mounts, one mutable root elsewhere. Which it is comes out when a root is wanted for the
/// first time, by a command that must run.
pub struct Chosen {
    store: Store,
    isolation: Isolation,
    cancel: Cancel,
    snapshots: OnceLock<Box<dyn Snapshotter>>,
}

impl std::fmt::Debug for Chosen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chosen").field("isolation", &self.isolation).finish_non_exhaustive()
    }
}

impl Chosen {
    /// Those in this store, for that isolation, and for a build that ends by that switch.
    #[must_use]
    pub fn new(store: Store, isolation: Isolation, cancel: Cancel) -> Self {
        Self { store, isolation, cancel, snapshots: OnceLock::new() }
    }

    fn get(&self) -> Result<&dyn Snapshotter, SnapshotError> {
        if let Some(snapshots) = self.snapshots.get() {
            return Ok(&**snapshots);
        }
        let snapshots: Box<dyn Snapshotter> = match self.isolation.choice().rung {
            Rung::Chroot | Rung::Traced => Box::new(MutableRoot::open(self.store.clone())?.until(self.cancel.clone())),
            Rung::Root | Rung::Rootless | Rung::SingleId | Rung::Nothing => {
                // An earlier build may have run in a chroot.
                MutableRoot::bring_home(&self.store)?;
                Box::new(Overlay::open(self.store.clone())?)
            }
        };
        Ok(&**self.snapshots.get_or_init(|| snapshots))
    }
}

impl Snapshotter for Chosen {
    fn has(&self, diff_id: &Digest) -> bool {
        // What stands in the way is told by who unpacks then.
        self.get().is_ok_and(|snapshots| snapshots.has(diff_id))
    }

    fn has_times(&self, diff_id: &Digest, index: &LayerIndex) -> bool {
        self.get().is_ok_and(|snapshots| snapshots.has_times(diff_id, index))
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
        self.get()?.unpack(diff_id, below, blob, media_type, limits, index)
    }

    fn unpacks_apart(&self) -> bool {
        self.get().is_ok_and(|snapshots| snapshots.unpacks_apart())
    }

    fn unpack_and_index(
        &self,
        diff_id: &Digest,
        blob: Box<dyn Read + Send>,
        media_type: &str,
        limits: &Limits,
    ) -> Result<Option<LayerIndex>, SnapshotError> {
        self.get()?.unpack_and_index(diff_id, blob, media_type, limits)
    }

    fn prepare(&self, chain: &[Digest]) -> Result<Workspace, SnapshotError> {
        self.get()?.prepare(chain)
    }

    fn commit(&self, workspace: Workspace, layer: &Layer) -> Result<(), SnapshotError> {
        self.get()?.commit(workspace, layer)
    }
}
