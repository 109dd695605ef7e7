//! Room on a full disk: what nobody uses and no image's name needs goes.

use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};

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

    /// Does `work`, and does it again after pruning when the disk was full. What it had written half must be gone when it
    /// fails. `what` is it in words.
    pub(super) async fn with_room<T, E: Error + 'static>(
        self: &Arc<Self>,
        what: &str,
        work: impl AsyncFn() -> Result<T, E>,
    ) -> Result<T, E> {
        let free_before = self.free_bytes();
        match work().await {
            Err(error) if is_disk_full(&error) && self.made_room(what, free_before).await => work().await,
            outcome => outcome,
        }
    }

    /// Makes room; says whether there is more than there was.
    pub(super) async fn made_room(self: &Arc<Self>, what: &str, free_before: u64) -> bool {
        let pruner = self.clone();
        let pruned_bytes = match tokio::task::spawn_blocking(move || pruner.make_room()).await {
            Ok(pruned_bytes) => pruned_bytes,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        let free = self.free_bytes();
        if pruned_bytes == 0 && free <= free_before {
            return false;
        }
        let text = format!(
            "the disk of the store {} is full; {} of what can be made again was removed, and {what} is tried once more with \
             {} free",
            self.store.root().display(),
            size(pruned_bytes),
            size(free)
        );
        self.events.hear(Event::Warning { text });
        true
    }

    pub(super) fn free_bytes(&self) -> u64 {
        Room::of(self.store.root()).map_or(0, |room| room.free_bytes)
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
