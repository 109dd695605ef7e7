//! `FROM`: a base image's layers, as references.

use fluyt_client::Reference;
use oci_spec::image::Digest;

use super::{BuiltLayer, Executor, RootState};
use crate::cache::Content;
use crate::graph::BaseOp;
use crate::image::ImageConfig;

/// A base image as its manifest and configuration say; none of its layers need be here.
#[derive(Clone, Debug)]
pub struct BaseImage {
    /// Where its layers can be had; none for an image that the store has whole.
    pub reference: Option<Reference>,
    /// Digest of the manifest.
    pub manifest_digest: Digest,
    /// Its configuration.
    pub config: ImageConfig,
    /// Its layers, bottom first.
    pub layers: Vec<BuiltLayer>,
}

impl Executor {
    pub(super) fn base(&self, op: &BaseOp) -> RootState {
        // The caller resolved every image that it lowered the graph with.
        let layers = self.bases.get(&op.request).map(|base| base.layers.clone()).unwrap_or_default();
        RootState { content: Content::of_base(&op.diff_ids), layers }
    }
}
