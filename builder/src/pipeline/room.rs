//! Room on a full disk: what nobody uses and no image's name needs goes.

use std::sync::{Mutex, PoisonError};

use super::BuildError;
use crate::blob::{Room, Store, is_disk_full};
use crate::event::{Event, Events, size};
use crate::execute::Relief;
use crate::prune::{Policy, prune};

/// Prunes the store of a build.
pub(super) struct Pruner {
    store: Store,
    events: Events,
    /// Steps that find the disk full at the same time prune one after the other: the second finds what the first left.
    one_at_a_time: Mutex<()>,
}

impl Pruner {
    pub(super) fn new(store: &Store, events: &Events) -> Self {
        Self { store: store.clone(), events: events.clone(), one_at_a_time: Mutex::default() }
    }

    /// Does `work`, and does it again after pruning when the disk was full.
    pub(super) fn with_room<T>(&self, work: impl Fn() -> Result<T, BuildError>) -> Result<T, BuildError> {
        match work() {
            Err(error) if is_disk_full(&error) && self.make_room() > 0 => work(),
            outcome => outcome,
        }
    }
}

impl Relief for Pruner {
    fn make_room(&self) -> u64 {
        let _one_at_a_time = self.one_at_a_time.lock().unwrap_or_else(PoisonError::into_inner);
        match prune(&self.store, &Policy::default()) {
            Ok(outcome) => outcome.freed_bytes,
            Err(error) => {
                let text = format!("the disk is full, and the store cannot be pruned: {error}");
                self.events.hear(Event::Warning { text });
                0
            }
        }
    }
}

/// What to do about the store's full disk; `None` when that is not what an error is about.
#[must_use]
pub fn room_hint(store: &Store, error: &BuildError) -> Option<String> {
    let elsewhere = matches!(error, BuildError::Export { .. });
    if elsewhere || !(is_disk_full(error) || error.is_about_room()) {
        return None;
    }
    let root = store.root().display();
    let free = Room::of(store.root()).map_or_else(|_| "?".to_owned(), |room| size(room.free_bytes));
    Some(format!(
        "{free} are free on the disk of {root}: free some there, remove images that are no longer needed with \
         `fluyt prune --all`, or choose a store on a larger disk with `--store DIR`"
    ))
}
