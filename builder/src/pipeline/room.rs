//! Room on a full disk: what nobody uses and no image's name needs goes.

use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};

use super::BuildError;
use crate::blob::{Room, Store, is_disk_full};
use crate::event::{Event, Events, size};
use crate::execute::{Amount, Relief};
use crate::prune::{MIN_FREE_PERCENT, Policy, prune};
use crate::task::blocking;

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
        let mut tries = self.tries(what);
        loop {
            let outcome = work().await;
            if !tries.again(outcome.as_ref().is_err_and(|error| is_disk_full(error))).await {
                return outcome;
            }
        }
    }

    /// Begins what may find the disk full; `what` is it in words.
    pub(super) fn tries<'a>(self: &'a Arc<Self>, what: &'a str) -> Tries<'a> {
        Tries { pruner: self, what, amounts: Amount::EACH.into_iter(), free_before: self.free_bytes() }
    }

    fn free_bytes(&self) -> u64 {
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

/// How often something was tried that found the disk full.
pub(super) struct Tries<'a> {
    pruner: &'a Arc<Pruner>,
    what: &'a str,
    amounts: std::array::IntoIter<Amount, 2>,
    free_before: u64,
}

impl Tries<'_> {
    /// Makes room for what found the disk full; says whether there is more than there was, so that it is tried again.
    pub(super) async fn again(&mut self, is_full: bool) -> bool {
        let Some(amount) = is_full.then(|| self.amounts.next()).flatten() else { return false };
        let (pruner, what, free_before) = (self.pruner.clone(), self.what.to_owned(), self.free_before);
        let made = blocking(move || pruner.make_room(&what, free_before, amount)).await;
        self.free_before = self.pruner.free_bytes();
        made.is_some()
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
