//! Unpacks the layers that a command needs, and indexes those that a copy must look into: fetched all at once, read while
//! they arrive, and beside each other as far as they let it.
//!
//! A layer that a copy reads first and a command needs afterwards is unpacked the first time: inflating is most of the work.

use std::collections::HashMap;
use std::io;
use std::num::NonZeroUsize;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::ScopedJoinHandle;

use oci_spec::image::Digest;
use tokio::task::JoinHandle;

use super::{BuiltLayer, Executor, RootState, StepError};
use crate::blob::{Arriving, ArrivingBlob};
use crate::event::StepId;
use crate::layer::{Apart, LayerIndex, Limits};
use crate::snapshot::SnapshotError;
use crate::task::joined;

/// How much is read at once of a blob that arrives.
const READ_BYTES: usize = 64 * 1024;

/// What is done to a layer, as views say it.
const UNPACKING: &str = "unpacking";

/// The transfers of a root's layers, each taken by who unpacks its layer.
type Fetches = Mutex<HashMap<Digest, Transfer>>;

/// A blob on its way into the store.
struct Transfer {
    end: JoinHandle<Result<(), StepError>>,
    /// Its bytes, as they come.
    blob: ArrivingBlob,
}

impl Executor {
    /// Unpacks the layers of a root file system that are not unpacked yet. All that is not here is fetched at once.
    pub(super) fn unpack_all(&self, step: StepId, state: &RootState) -> Result<(), StepError> {
        let absent = |layer: &&BuiltLayer| !self.is_unpacked(layer);
        let layers: Vec<&BuiltLayer> = state.layers.iter().filter(absent).collect();
        let fetches = self.begin_fetches(step, &layers)?;
        if self.snapshots.unpacks_apart() {
            self.unpack_beside(step, &layers, &fetches)?;
        }
        // What is left needs to know what is below it.
        for (number, layer) in state.layers.iter().enumerate().filter(|(_, layer)| absent(layer)) {
            self.arrived(step, layer, &fetches)?;
            // A command sees the real times, whatever the blob was given.
            let index = self.index(step, layer)?;
            self.unpack_one(step, layer, &state.diff_ids()[..number], &index)?;
        }
        Ok(())
    }

    /// Whether a layer is there as a command should see it.
    fn is_unpacked(&self, layer: &BuiltLayer) -> bool {
        if !self.snapshots.has(&layer.diff_id) {
            return false;
        }
        if layer.tells_times().is_ok() || self.flights.is_timed(&layer.diff_id) {
            return true;
        }
        let index = self.kept_index(&layer.diff_id, layer.record());
        let has_times = index.is_none_or(|index| self.snapshots.has_times(&layer.diff_id, &index));
        if has_times {
            self.flights.timed(&layer.diff_id);
        }
        has_times
    }

    /// Sees that layers which are about to be looked into have indexes, as far as they can be made beside each other.
    pub(super) fn index_all(&self, step: StepId, layers: &[BuiltLayer]) -> Result<(), StepError> {
        let unknown: Vec<_> = layers.iter().filter(|layer| !LayerIndex::is_kept(&self.store, &layer.diff_id)).collect();
        let fetches = self.begin_fetches(step, &unknown)?;
        let unpacks = self.snapshots.unpacks_apart();
        beside(&unknown, |layer| {
            if !unpacks || !self.run_on.contains(&layer.diff_id) {
                return self.index_unknown(step, layer, &fetches);
            }
            match self.unpack_unknown(step, layer, &fetches) {
                // What stands in the way is told by the command that cannot do without, if it is to run.
                Err(StepError::Snapshot(SnapshotError::Apply { .. } | SnapshotError::Io { .. })) => Ok(()),
                end => end,
            }
        })
    }

    /// Begins to fetch all of these layers that are not here.
    fn begin_fetches(&self, step: StepId, layers: &[&BuiltLayer]) -> Result<Fetches, StepError> {
        let mut fetches = HashMap::new();
        for layer in layers.iter().filter(|layer| !self.store.contains(&layer.digest)) {
            if !fetches.contains_key(&layer.digest) {
                let (arriving, blob) = Arriving::new(&self.store, &layer.digest);
                let end = self.runtime.spawn(self.fetch(step, layer, Some(arriving))?);
                fetches.insert(layer.digest.clone(), Transfer { end, blob });
            }
        }
        Ok(Mutex::new(fetches))
    }

    /// Unpacks what takes nothing from the layers below it.
    fn unpack_beside(&self, step: StepId, layers: &[&BuiltLayer], fetches: &Fetches) -> Result<(), StepError> {
        beside(layers, |layer| match self.kept_index(&layer.diff_id, layer.record()) {
            Some(index) if stands_alone(&index) => {
                self.arrived(step, layer, fetches)?;
                self.unpack_one(step, layer, &[], &index)
            }
            Some(_) => Ok(()),
            None => self.unpack_unknown(step, layer, fetches),
        })
    }

    /// Waits until a layer's blob is here.
    fn arrived(&self, step: StepId, layer: &BuiltLayer, fetches: &Fetches) -> Result<(), StepError> {
        match take(fetches, layer) {
            Some(transfer) => self.ended(transfer.end),
            // Of two layers that are one blob, the other's turn may have taken the transfer, and still wait for it.
            None => self.ensure_blob(step, layer),
        }
    }

    fn ended(&self, end: JoinHandle<Result<(), StepError>>) -> Result<(), StepError> {
        self.wait_for(joined(end))
    }

    /// Unpacks a layer that has no index yet, and makes it, in one pass and while its blob arrives: inflating is most of
    /// the work of either, and a registry far away takes longer than both.
    fn unpack_unknown(&self, step: StepId, layer: &BuiltLayer, fetches: &Fetches) -> Result<(), StepError> {
        let Some(Transfer { end, blob }) = take(fetches, layer) else {
            self.ensure_blob(step, layer)?;
            return self.unpack_and_index(step, layer, || self.open_stored(layer));
        };
        let arrival = blob.arrival();
        // What becomes visible has the diff id that the image's configuration names, whatever becomes of the blob.
        let unpacked =
            self.unpack_and_index(step, layer, || Ok(Box::new(io::BufReader::with_capacity(READ_BYTES, blob))));
        // A blob that does not arrive cannot be unpacked; why it did not is what to tell.
        self.ended(end)?;
        match unpacked {
            // What was read came from a mirror that is wrong; the store has what is right.
            Err(_) if arrival.is_broken() => self.unpack_and_index(step, layer, || self.open_stored(layer)),
            unpacked => unpacked,
        }
    }

    fn open_stored(&self, layer: &BuiltLayer) -> Result<Box<dyn io::Read + Send>, StepError> {
        Ok(Box::new(self.store.open_verified(&layer.digest)?))
    }

    /// Makes a layer's index while its blob arrives.
    fn index_unknown(&self, step: StepId, layer: &BuiltLayer, fetches: &Fetches) -> Result<(), StepError> {
        let Some(Transfer { end, blob }) = take(fetches, layer) else { return self.index(step, layer).map(drop) };
        let arrival = blob.arrival();
        let made = self.make_index(step, io::BufReader::with_capacity(READ_BYTES, blob), layer);
        self.ended(end)?;
        match made {
            // As above.
            Err(_) if arrival.is_broken() => self.index(step, layer).map(drop),
            made => made.map(drop),
        }
    }

    /// A layer that takes something from below is left for later.
    ///
    /// # Errors
    /// Also where the blob does not tell the times.
    fn unpack_and_index(
        &self,
        step: StepId,
        layer: &BuiltLayer,
        open: impl FnOnce() -> Result<Box<dyn io::Read + Send>, StepError>,
    ) -> Result<(), StepError> {
        self.cancel.check()?;
        layer.tells_times()?;
        let flight = self.flights.layer(&layer.diff_id);
        let _one_at_a_time = flight.lock().unwrap_or_else(PoisonError::into_inner);
        if self.snapshots.has(&layer.diff_id) {
            return Ok(());
        }
        let limits = &Limits::DEFAULT;
        let blob = Box::new(self.told(step, UNPACKING, layer, open()?));
        if let Some(index) = self.snapshots.unpack_and_index(&layer.diff_id, blob, &layer.media_type, limits)? {
            index.save_unsynced(&self.store, &layer.diff_id)?;
        }
        Ok(())
    }

    fn unpack_one(
        &self,
        step: StepId,
        layer: &BuiltLayer,
        below: &[Digest],
        index: &LayerIndex,
    ) -> Result<(), StepError> {
        self.cancel.check()?;
        let flight = self.flights.layer(&layer.diff_id);
        let _one_at_a_time = flight.lock().unwrap_or_else(PoisonError::into_inner);
        let blob = self.cancel.reader(self.store.open_blob(&layer.digest)?);
        let blob = self.told(step, UNPACKING, layer, blob);
        let unpacked = self.snapshots.unpack(
            &layer.diff_id,
            below,
            Box::new(io::BufReader::new(blob)),
            &layer.media_type,
            &Limits::DEFAULT,
            Some(index),
        );
        // Not checked on the way, which is work for nothing nearly always.
        if let Err(SnapshotError::Apply { .. } | SnapshotError::WrongDiffId { .. }) = unpacked {
            self.store.check(&layer.digest)?;
        }
        Ok(unpacked?)
    }
}

/// Does this to each layer, to one on each core.
fn beside(layers: &[&BuiltLayer], work: impl Fn(&BuiltLayer) -> Result<(), StepError> + Sync) -> Result<(), StepError> {
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(layer) = layers.get(next.fetch_add(1, Ordering::Relaxed)) {
            work(layer)?;
        }
        Ok(())
    };
    let threads = std::thread::available_parallelism().map_or(1, NonZeroUsize::get).min(layers.len());
    if threads <= 1 {
        return work();
    }
    let ends: Vec<Result<(), StepError>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let join = |worker: ScopedJoinHandle<'_, _>| worker.join().unwrap_or_else(|panic| resume_unwind(panic));
        workers.into_iter().map(join).collect()
    });
    ends.into_iter().collect()
}

fn take(fetches: &Fetches, layer: &BuiltLayer) -> Option<Transfer> {
    fetches.lock().unwrap_or_else(PoisonError::into_inner).remove(&layer.digest)
}

/// Whether a layer unpacks to the same whatever is below it.
fn stands_alone(index: &LayerIndex) -> bool {
    let mut apart = Apart::default();
    index.entries.iter().all(|row| apart.admits(&row.entry))
}
