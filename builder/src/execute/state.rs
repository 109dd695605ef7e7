//! What an operation leaves: a chain of layers, and the merged view of their indexes.

use std::collections::VecDeque;
use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};

use fluyt_client::Reference;
use oci_spec::image::Digest;

use super::{Executor, StepError};
use crate::blob::{Arriving, StoreError};
use crate::cache::{Content, LayerRecord, PlannedLayer};
use crate::event::StepId;
use crate::layer::{LayerIndex, Limits, Tree, index_layer};

/// One layer of a root file system.
#[derive(Clone, Debug, PartialEq)]
pub struct BuiltLayer {
    /// Hash of the uncompressed tar.
    pub diff_id: Digest,
    /// Hash of the blob.
    pub digest: Digest,
    /// Length of the blob.
    pub size_bytes: u64,
    /// Media type of the blob.
    pub media_type: String,
    /// Where the blob can be had when the store does not have it: a base image's layer.
    pub origin: Option<Reference>,
    /// When a step made it, in seconds since 1970; none for a base image's.
    pub made_at: Option<i64>,
    /// What the cache has of it; none for a base image's.
    pub planned: Option<Arc<PlannedLayer>>,
}

impl BuiltLayer {
    /// What the cache has of it; none for a base image's.
    pub(super) fn record(&self) -> Option<&LayerRecord> {
        self.planned.as_deref().map(|planned| &planned.record)
    }

    /// That the blob has the times which a command sees; its index can be made again then.
    ///
    /// # Errors
    /// When it has others. The index was there, and held, when the layer was found: nobody but a user removes it.
    pub(super) fn tells_times(&self) -> Result<(), StepError> {
        match self.record() {
            Some(record) if !record.has_real_times() => Err(StepError::NoTimes { diff_id: self.diff_id.to_string() }),
            _ => Ok(()),
        }
    }
}

/// A root file system as a chain of layers, bottom first.
#[derive(Clone, Debug)]
pub struct RootState {
    /// The layers.
    pub layers: Vec<BuiltLayer>,
    /// What is in it, for keys.
    pub content: Content,
}

impl RootState {
    /// Nothing.
    #[must_use]
    pub fn scratch() -> Self {
        Self { layers: Vec::new(), content: Content::empty() }
    }

    /// The layers' diff ids, bottom first.
    #[must_use]
    pub fn diff_ids(&self) -> Vec<Digest> {
        self.layers.iter().map(|layer| layer.diff_id.clone()).collect()
    }
}

impl Executor {
    /// Sees that the store has a layer's blob, from its base image's registry where it must.
    pub(super) fn ensure_blob(&self, step: StepId, layer: &BuiltLayer) -> Result<(), StepError> {
        if self.store.contains(&layer.digest) {
            return Ok(());
        }
        let fetch = self.fetch(step, layer, None)?;
        self.wait_for(fetch)
    }

    /// Begins to fetch a layer's blob, which may be read meanwhile; another step that wants it too waits for the same.
    pub(super) fn fetch(
        &self,
        step: StepId,
        layer: &BuiltLayer,
        arriving: Option<Arriving>,
    ) -> Result<impl Future<Output = Result<(), StepError>> + Send + use<>, StepError> {
        let Some(origin) = layer.origin.clone() else {
            // A record is taken only when its blob is there; it was removed since.
            return Err(StepError::Store(StoreError::Missing { digest: layer.digest.clone() }));
        };
        let (remote, flight) = (self.remote.clone(), self.flights.blob(&layer.digest));
        let (digest, size_bytes) = (layer.digest.clone(), layer.size_bytes);
        Ok(async move {
            let _one_at_a_time = flight.lock().await;
            remote.fetch_blob(&origin, &digest, size_bytes, step, arriving.as_ref()).await?;
            // The store may have had it by now.
            if let Some(arriving) = &arriving {
                arriving.whole();
            }
            Ok(())
        })
    }

    /// Waits for a transfer, and no longer than the build goes on.
    pub(super) fn wait_for<T>(&self, transfer: impl Future<Output = Result<T, StepError>>) -> Result<T, StepError> {
        self.runtime.block_on(self.cancel.until(transfer))
    }

    /// The index that is kept of a layer, with the times that a command sees: where the layer's blob has others, as its record
    /// says, none but its step's will do.
    pub(super) fn kept_index(&self, diff_id: &Digest, record: Option<&LayerRecord>) -> Option<LayerIndex> {
        let kept = match record {
            Some(record) if !record.has_real_times() => LayerIndex::load_of_step(&self.store, diff_id),
            _ => LayerIndex::load(&self.store, diff_id),
        };
        // A damaged index is made again like one that is not there.
        kept.ok().flatten()
    }

    /// The index of a layer: kept beside it, or made by reading it once.
    pub(super) fn index(&self, step: StepId, layer: &BuiltLayer) -> Result<LayerIndex, StepError> {
        if let Some(index) = self.kept_index(&layer.diff_id, layer.record()) {
            return Ok(index);
        }
        self.ensure_blob(step, layer)?;
        self.make_index(step, self.store.open_verified(&layer.digest)?, layer)
    }

    /// Makes a layer's index of its blob, and keeps it.
    ///
    /// # Errors
    /// Also where the blob does not tell the times.
    pub(super) fn make_index(
        &self,
        step: StepId,
        blob: impl Read,
        layer: &BuiltLayer,
    ) -> Result<LayerIndex, StepError> {
        layer.tells_times()?;
        let blob = self.told(step, "reading", layer, blob);
        let (scan, index) = index_layer(blob, &layer.media_type, &Limits::DEFAULT)?;
        if scan.diff_id != layer.diff_id {
            return Err(StepError::DiffId {
                digest: layer.digest.to_string(),
                expected: layer.diff_id.to_string(),
                found: scan.diff_id.to_string(),
            });
        }
        index.save_unsynced(&self.store, &layer.diff_id)?;
        Ok(index)
    }

    /// The merged view of a root file system.
    pub(super) fn tree(&self, step: StepId, state: &RootState) -> Result<Arc<Tree>, StepError> {
        let chain = state.diff_ids();
        let of_base = state.layers.iter().take_while(|layer| layer.planned.is_none()).count();
        let (known, mut tree) = self.trees.longest(&chain, of_base);
        if known == chain.len() {
            return Ok(tree);
        }
        self.index_all(step, &state.layers[known..])?;
        for (number, layer) in state.layers.iter().enumerate().skip(known) {
            Arc::make_mut(&mut tree).push(&self.index(step, layer)?, number);
            if number + 1 == of_base && number + 1 < chain.len() {
                self.trees.keep(chain[..of_base].to_vec(), tree.clone());
            }
        }
        self.trees.keep(chain, tree.clone());
        Ok(tree)
    }
}

/// Views that were made lately. A step's view is the one below it and a layer more, so most views need one index.
#[derive(Debug, Default)]
pub struct Trees(Mutex<VecDeque<(Vec<Digest>, Arc<Tree>)>>);

impl Trees {
    /// How many are kept: enough for the stages that a build goes back and forth between. A view of a whole
    /// distribution takes some MB.
    const KEPT: usize = 8;

    /// The view of the longest part of `chain` that is known, and how many layers that is.
    ///
    /// One that ends above the base, in a step's layer, is given away when more is to be put on it: the next step grows
    /// it in place, where a copy for each step would cost as much as the base is large. Other stages begin at the base.
    fn longest(&self, chain: &[Digest], of_base: usize) -> (usize, Arc<Tree>) {
        let mut trees = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let parts = trees.iter().enumerate().filter(|(_, (known, _))| chain.starts_with(known));
        let Some((place, known)) = parts.map(|(place, (known, _))| (place, known.len())).max_by_key(|part| part.1)
        else {
            return (0, Arc::new(Tree::new()));
        };
        let given_away = known > of_base && known < chain.len();
        let tree = if given_away { trees.remove(place) } else { trees.get(place).cloned() };
        tree.map_or_else(|| (0, Arc::new(Tree::new())), |(_, tree)| (known, tree))
    }

    fn keep(&self, chain: Vec<Digest>, tree: Arc<Tree>) {
        let mut trees = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        trees.push_front((chain, tree));
        trees.truncate(Self::KEPT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_grows_the_view_below_it_and_the_base_stays() {
        let chain: Vec<Digest> = (0..3_u8).map(|number| crate::blob::sha256(&[number])).collect();
        let trees = Trees::default();
        trees.keep(chain[..1].to_vec(), Arc::default());
        trees.keep(chain[..2].to_vec(), Arc::default());
        let (known, tree) = trees.longest(&chain[..2], 1);
        assert_eq!((known, Arc::strong_count(&tree)), (2, 2), "whole, and so shared");
        drop(tree);
        let (known, tree) = trees.longest(&chain, 1);
        assert_eq!((known, Arc::strong_count(&tree)), (2, 1), "nobody else has it, so nothing is copied");
        let (known, tree) = trees.longest(&chain, 1);
        assert_eq!((known, Arc::strong_count(&tree)), (1, 2), "the base's is shared");
    }
}
