//! `FROM`: a base image's layers, as references.

use std::collections::{HashMap, HashSet};

use fluyt_client::Reference;
use oci_spec::image::Digest;

use super::{BuiltLayer, Executor, RootState};
use crate::cache::Content;
use crate::graph::{BaseOp, Graph, ImageRequest, Op, Root};
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

/// The diff ids of all layers that lie below a command of the graph.
#[must_use]
pub fn layers_run_on(graph: &Graph, bases: &HashMap<ImageRequest, BaseImage>) -> HashSet<Digest> {
    let below = |id| std::iter::successors(Some(id), |id| graph.node(*id).op.below().and_then(Root::op));
    let commands = graph.ops().filter(|(_, node)| matches!(node.op, Op::Run(_)));
    let bases = commands.flat_map(|(id, _)| below(id)).filter_map(|id| match &graph.node(id).op {
        Op::Base(op) => bases.get(&op.request),
        _ => None,
    });
    bases.flat_map(|base| &base.layers).map(|layer| layer.diff_id.clone()).collect()
}

impl Executor {
    pub(super) fn base(&self, op: &BaseOp) -> RootState {
        // The caller resolved every image that it lowered the graph with.
        let layers = self.bases.get(&op.request).map(|base| base.layers.clone()).unwrap_or_default();
        RootState { content: Content::of_base(&op.diff_ids), layers }
    }
}
