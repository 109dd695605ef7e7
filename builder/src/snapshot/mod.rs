//! Root file systems for RUN: chains of unpacked layers with a writable top, or one mutable root.
//!
//! ```text
//! <store>/layers/<hex>/fs/               a layer, unpacked; <hex> is that of its diff id
//!                     /meta.json         which folder `fs` was when it was written
//!         layers/<hex>-<chain>/          the same for a layer whose unpacked form depends on what is below it
//!         layers/<either>.timed/         the same with the times of the layer's step, beside one with those of its blob
//!         mutable/                       of `MutableRoot`
//! ```
//!
//! An entry is made under the store's `tmp/` and renamed into place when it is whole. It need not be on the disk then:
//! writing hundreds of megabytes back would hold up the step that waits for the layer. Until it is, `meta.json` names
//! the run of the machine that made it, and whoever finds it in another run (the power failed meanwhile) takes it for
//! damaged. A later build of the same run has it written and says so. Where the kernel does not tell its runs apart, an
//! entry is on the disk before it is renamed.

mod boot;
mod chosen;
#[cfg(test)]
mod conformance;
mod entries;
mod error;
mod mutable_root;
mod overlay;
mod workspace;

use std::io::Read;

use oci_spec::image::Digest;

use crate::layer::{Layer, LayerIndex, Limits};

pub use chosen::Chosen;
pub use error::SnapshotError;
pub use mutable_root::MutableRoot;
pub use overlay::Overlay;
pub use workspace::Workspace;

/// Root file systems for build steps. `Overlay` and `MutableRoot` implement it, and run the same tests.
pub trait Snapshotter: Send + Sync {
    /// Whether the layer is there unpacked, whatever is below it.
    ///
    /// `false` may also mean that it is there for some chains of layers only (folders without an entry of their own take
    /// their owner from below): [`Snapshotter::unpack`] tells, and returns at once when there is nothing to do.
    fn has(&self, diff_id: &Digest) -> bool;

    /// Whether a layer that is [there](Snapshotter::has) shows the times of `index`: somebody who did not know them may have
    /// unpacked it, as a part of a base image, with those of its blob.
    fn has_times(&self, diff_id: &Digest, index: &LayerIndex) -> bool {
        let _ = (diff_id, index);
        true
    }

    /// Unpacks a layer's blob, in any compression, as the layer above `below` (bottom first, all unpacked), with the
    /// times of `index` where it is given: those in the blob may be cut or clamped.
    ///
    /// Atomic: after a crash or an error it is there whole or not at all. Does nothing when it is there, with the times of
    /// `index`.
    ///
    /// # Errors
    /// When a layer below is not unpacked, the blob cannot be read or is not the layer with that diff id, or the file
    /// system fails.
    fn unpack(
        &self,
        diff_id: &Digest,
        below: &[Digest],
        blob: Box<dyn Read + Send>,
        media_type: &str,
        limits: &Limits,
        index: Option<&LayerIndex>,
    ) -> Result<(), SnapshotError>;

    /// Whether a layer that takes nothing from those below it may be unpacked as above nothing, beside them, and then
    /// serves every chain.
    fn unpacks_apart(&self) -> bool {
        false
    }

    /// Unpacks a layer that nobody has an index of as above nothing, and makes the index in the same pass. `None`, and
    /// nothing is there, when the layer takes something from those below it, or these snapshots do not
    /// [unpack apart](Snapshotter::unpacks_apart).
    ///
    /// # Errors
    /// As [`Snapshotter::unpack`].
    fn unpack_and_index(
        &self,
        diff_id: &Digest,
        blob: Box<dyn Read + Send>,
        media_type: &str,
        limits: &Limits,
    ) -> Result<Option<LayerIndex>, SnapshotError> {
        let _ = (diff_id, blob, media_type, limits);
        Ok(None)
    }

    /// A writable view on a chain of layers (bottom first, all unpacked; an empty one is an empty root).
    ///
    /// # Errors
    /// [`SnapshotError::NotUnpacked`] when a layer is not unpacked over those before it.
    fn prepare(&self, chain: &[Digest]) -> Result<Workspace, SnapshotError>;

    /// Keeps what the workspace holds as the unpacked form of `layer`, whose blob is in the builder's store, above the chain
    /// that it was prepared on.
    ///
    /// Atomic. Nothing may be mounted on the workspace any more. Files that its [`Workspace::changes`] name are gone
    /// afterwards. Does nothing when the layer is there, or where a workspace is in memory: then it must be unpacked.
    fn commit(&self, workspace: Workspace, layer: &Layer) -> Result<(), SnapshotError>;
}
