//! Room on a full disk: what nobody uses and no image's name needs goes.

use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};

use super::BuildError;
use crate::blob::{Room, Store, is_disk_full};
use crate::event::{Event, Events, size};
use crate::execute::{Amount, Relief};
use crate::prune::{MIN_FREE_PERCENT, Policy, prune};

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

    /// Does `work`, and does it again after pruning as long as the disk was full and there is more to prune. What it had
    /// written half must be gone when it fails. `what` is it in words.
    pub(super) async fn with_room<T, E: Error + 'static>(
        self: &Arc<Self>,
        what: &str,
        work: impl AsyncFn() -> Result<T, E>,
    ) -> Result<T, E> {
        for amount in Amount::EACH {
            let free_before = self.free_bytes();
            match work().await {
                Err(error) if is_disk_full(&error) && self.made_room(what, free_before, amount).await => {}
                outcome => return outcome,
            }
        }
        work().await
    }

    /// Makes room; says whether there is more than there was.
    pub(super) async fn made_room(self: &Arc<Self>, what: &str, free_before: u64, amount: Amount) -> bool {
        let (pruner, what) = (self.clone(), what.to_owned());
        match tokio::task::spawn_blocking(move || pruner.make_room(&what, free_before, amount)).await {
            Ok(pruned_bytes) => pruned_bytes.is_some(),
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    pub(super) fn free_bytes(&self) -> u64 {
        Room::free_in(self.store.root())
    }

    /// Gives how many bytes that were.
    fn prune(&self, free_before: u64, amount: Amount) -> u64 {
        let disk_bytes = Room::of(self.store.root()).map_or(0, |room| room.disk_bytes);
        // What is free now, before another step that waits for the same has made room.
        let again = free_before.saturating_add(self.free_bytes()).max(disk_bytes / 100 * MIN_FREE_PERCENT);
        let _one_at_a_time = self.one_at_a_time.lock().unwrap_or_else(PoisonError::into_inner);
        let min_free_bytes = Some(if amount == Amount::Again { again } else { u64::MAX });
        match prune(&self.store, &Policy { min_free_bytes, cache_mounts_last: true, ..Policy::default() }) {
            Ok(outcome) => outcome.freed_bytes,
            Err(error) => {
                let text = format!("the disk is full, and the store cannot be pruned: {error}");
                self.events.hear(Event::Warning { text });
                0
            }
        }
    }
}

impl Relief for Pruner {
    fn make_room(&self, what: &str, free_before: u64, amount: Amount) -> Option<u64> {
        let pruned_bytes = self.prune(free_before, amount);
        let free = self.free_bytes();
        // Somebody else may have made room meanwhile: another build that ended, or a step that ran beside this one.
        if pruned_bytes == 0 && (amount == Amount::All || free <= free_before) {
            return None;
        }
        let text = format!(
            "the disk of the store {} is full; {} of what can be made again was removed, and {what} is tried once more with \
             {} free",
            self.store.root().display(),
            size(pruned_bytes),
            size(free)
        );
        self.events.hear(Event::Warning { text });
        Some(pruned_bytes)
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
