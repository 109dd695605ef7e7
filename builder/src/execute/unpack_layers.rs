//! Unpacks the layers that a command needs: fetched all at once, unpacked beside each other as far as they let it.

use std::collections::{HashMap, HashSet};
use std::io;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use oci_spec::image::Digest;
use tokio::task::JoinHandle;

use super::{BuiltLayer, Executor, RootState, StepError};
use crate::event::StepId;
use crate::layer::{Kind, LayerIndex, LayerPath, Limits};

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
                self.arrived(step, layer, fetches)?;
                let index = self.index(step, layer)?;
                if stands_alone(&index) {
                    self.unpack_one(layer, &[], &index)?;
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

    /// Waits until a layer's blob is here.
    fn arrived(&self, step: StepId, layer: &BuiltLayer, fetches: &Fetches) -> Result<(), StepError> {
        let fetch = fetches.lock().unwrap_or_else(PoisonError::into_inner).remove(&layer.digest);
        match fetch {
            Some(fetch) => self
                .wait_for(async { fetch.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic())) }),
            // Of two layers that are one blob, the other's turn may have taken the transfer, and still wait for it.
            None => self.ensure_blob(step, layer),
        }
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

/// Whether a layer unpacks to the same whatever is below it: it says itself, before it puts something there, that each
/// folder is a folder and what it is like, and links to no file of another layer.
fn stands_alone(index: &LayerIndex) -> bool {
    let mut folders: HashSet<&LayerPath> = HashSet::new();
    let mut others: HashSet<&LayerPath> = HashSet::new();
    for row in &index.entries {
        let path = &row.entry.path;
        if path.parent().is_some_and(|parent| !parent.is_root() && !folders.contains(&parent)) {
            return false;
        }
        match &row.entry.kind {
            Kind::Directory => {
                folders.insert(path);
            }
            Kind::Whiteout | Kind::Opaque => {}
            Kind::Hardlink(target) if !others.contains(target) => return false,
            // A folder that gives way to something else is none from here on.
            _ if folders.contains(path) => return false,
            _ => {
                others.insert(path);
            }
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::{Entry, FileTime, IndexEntry};

    fn index(entries: &[(&str, Kind)]) -> LayerIndex {
        let entries = entries
            .iter()
            .map(|(path, kind)| {
                let path = LayerPath::clean(path.as_bytes()).unwrap();
                let (modified, xattrs) = (FileTime::default(), std::collections::BTreeMap::new());
                let entry = Entry { path, kind: kind.clone(), mode: 0o755, uid: 0, gid: 0, modified, xattrs };
                IndexEntry { entry, content: None }
            })
            .collect();
        LayerIndex { entries, ..LayerIndex::default() }
    }

    #[test]
    fn a_layer_that_takes_something_from_below_does_not_stand_alone() {
        let file = Kind::File { size_bytes: 1 };
        let link = |target: &str| Kind::Hardlink(LayerPath::clean(target.as_bytes()).unwrap());
        let folder = ("usr", Kind::Directory);
        let alone = |entries: &[(&str, Kind)]| stands_alone(&index(entries));
        assert!(alone(&[]));
        assert!(alone(&[("file", file.clone()), ("gone", Kind::Whiteout)]));
        assert!(alone(&[folder.clone(), ("usr/a", file.clone()), ("usr/b", link("usr/a")), ("usr", Kind::Opaque)]));
        assert!(!alone(&[("usr/a", file.clone())]), "what is the folder like?");
        assert!(!alone(&[("usr/a", file.clone()), folder.clone()]), "it is said too late");
        assert!(!alone(&[("usr", Kind::Symlink(b"other".to_vec())), ("usr/a", file.clone())]), "a link is followed");
        assert!(!alone(&[folder.clone(), ("usr", file.clone())]));
        assert!(!alone(&[("b", link("a"))]), "the file is in another layer");
        assert!(!alone(&[("usr/a", Kind::Whiteout)]), "what is the folder like?");
    }
}
