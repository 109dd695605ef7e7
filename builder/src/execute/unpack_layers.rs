//! Unpacks the layers that a command needs: fetched all at once, unpacked beside each other as far as they let it.

use std::collections::HashMap;
use std::io;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use oci_spec::image::Digest;
use tokio::task::JoinHandle;

use super::{BuiltLayer, Executor, RootState, StepError};
use crate::event::StepId;
use crate::layer::{Apart, LayerIndex, Limits};

/// The transfers of a root's layers, each taken by who unpacks its layer.
type Fetches = Mutex<HashMap<Digest, JoinHandle<Result<(), StepError>>>>;

impl Executor {
    /// Unpacks the layers of a root file system that are not unpacked yet. All that is not here is fetched at once.
    pub(super) fn unpack_all(&self, step: StepId, state: &RootState) -> Result<(), StepError> {
        let absent = |layer: &&BuiltLayer| !self.snapshots.has(&layer.diff_id);
        let layers: Vec<&BuiltLayer> = state.layers.iter().filter(absent).collect();
        let mut fetches = HashMap::new();
        for layer in layers.iter().filter(|layer| !self.store.contains(&layer.digest)) {
            if !fetches.contains_key(&layer.digest) {
                fetches.insert(layer.digest.clone(), self.runtime.spawn(self.fetch(step, layer)?));
            }
        }
        let fetches = Mutex::new(fetches);
        if self.snapshots.unpacks_apart() {
            self.unpack_beside(step, &layers, &fetches)?;
        }
        // What is left needs to know what is below it.
        for (number, layer) in state.layers.iter().enumerate().filter(|(_, layer)| absent(layer)) {
            self.arrived(step, layer, &fetches)?;
            // A command sees the real times, whatever the blob was given.
            let index = self.index(step, layer)?;
            self.unpack_one(layer, &state.diff_ids()[..number], &index)?;
        }
        Ok(())
    }

    /// Unpacks what takes nothing from the layers below it, one on each core.
    fn unpack_beside(&self, step: StepId, layers: &[&BuiltLayer], fetches: &Fetches) -> Result<(), StepError> {
        let next = AtomicUsize::new(0);
        let work = || {
            while let Some(layer) = layers.get(next.fetch_add(1, Ordering::Relaxed)) {
                let checked = self.arrived(step, layer, fetches)?;
                match LayerIndex::load(&self.store, &layer.diff_id) {
                    Ok(Some(index)) if stands_alone(&index) => self.unpack_one(layer, &[], &index)?,
                    Ok(Some(_)) => {}
                    // A damaged index is made again like one that is not there.
                    Ok(None) | Err(_) => self.unpack_unknown(layer, checked)?,
                }
            }
            Ok(())
        };
        let threads = std::thread::available_parallelism().map_or(1, NonZeroUsize::get).min(layers.len());
        if threads <= 1 {
            return work();
        }
        let ends: Vec<Result<(), StepError>> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            workers
                .into_iter()
                .map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        });
        ends.into_iter().collect()
    }

    /// Waits until a layer's blob is here. Says whether its bytes were checked right now.
    fn arrived(&self, step: StepId, layer: &BuiltLayer, fetches: &Fetches) -> Result<bool, StepError> {
        let fetch = fetches.lock().unwrap_or_else(PoisonError::into_inner).remove(&layer.digest);
        match fetch {
            Some(fetch) => self
                .wait_for(async { fetch.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic())) })
                .map(|()| true),
            // Of two layers that are one blob, the other's turn may have taken the transfer, and still wait for it.
            None => self.ensure_blob(step, layer).map(|()| false),
        }
    }

    /// Unpacks a layer that has no index yet, and makes it, in one pass: inflating is most of the work of either. A layer
    /// that takes something from below is left for later.
    fn unpack_unknown(&self, layer: &BuiltLayer, checked: bool) -> Result<(), StepError> {
        if self.cancel.is_cancelled() {
            return Err(StepError::Cancelled);
        }
        let flight = self.flights.layer(&layer.diff_id);
        let _one_at_a_time = flight.lock().unwrap_or_else(PoisonError::into_inner);
        if self.snapshots.has(&layer.diff_id) {
            return Ok(());
        }
        let blob: Box<dyn io::Read + Send> = match checked {
            true => Box::new(io::BufReader::new(self.store.open_blob(&layer.digest)?)),
            false => Box::new(self.store.open_verified(&layer.digest)?),
        };
        let limits = &Limits::DEFAULT;
        if let Some(index) = self.snapshots.unpack_and_index(&layer.diff_id, blob, &layer.media_type, limits)? {
            index.save_unsynced(&self.store, &layer.diff_id)?;
        }
        Ok(())
    }

    fn unpack_one(&self, layer: &BuiltLayer, below: &[Digest], index: &LayerIndex) -> Result<(), StepError> {
        if self.cancel.is_cancelled() {
            return Err(StepError::Cancelled);
        }
        let flight = self.flights.layer(&layer.diff_id);
        let _one_at_a_time = flight.lock().unwrap_or_else(PoisonError::into_inner);
        let blob = self.store.open_blob(&layer.digest)?;
        self.snapshots.unpack(
            &layer.diff_id,
            below,
            Box::new(io::BufReader::new(blob)),
            &layer.media_type,
            &Limits::DEFAULT,
            Some(index),
        )?;
        Ok(())
    }
}

/// Whether a layer unpacks to the same whatever is below it.
fn stands_alone(index: &LayerIndex) -> bool {
    let mut apart = Apart::default();
    index.entries.iter().all(|row| apart.admits(&row.entry))
}
