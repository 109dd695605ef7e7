//! The memory that bodies under way may use, all together.
//!
//! Every body has 64 KiB of its own. What it holds beyond that is lent from one pool, and given back with each part
//! stored; whoever waits for memory is served in turn.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// What every body may hold without asking.
pub(super) const OWN_BYTES: usize = 64 * 1024;
/// The pool where a part has to be whole before it is stored: six of the usual size. What connections and the allocator
/// take besides leaves no room for more below 96 MiB.
pub(super) const POOL_BYTES: u64 = 30 * 1024 * 1024;
/// The pool where it does not: bodies only use more to become one object, or for larger writes.
pub(super) const SMALL_POOL_BYTES: u64 = 8 * 1024 * 1024;

const UNIT_BYTES: u64 = 64 * 1024;
/// How many bodies put bytes aside at once: each takes a connection to the store, which holds about as much as a body.
const ASIDE_AT_ONCE: usize = 32;

/// The pool. Clones are the same one.
#[derive(Clone, Debug)]
pub(super) struct BodyMemory {
    units: Arc<Semaphore>,
    all: u32,
    aside: Arc<Semaphore>,
}

/// Leave to hold so many bytes, until dropped.
#[derive(Debug)]
pub(super) struct Leave {
    units: u32,
    since: Instant,
    permit: Option<OwnedSemaphorePermit>,
}

impl BodyMemory {
    pub(super) fn new(bytes: u64) -> Self {
        let all = u32::try_from(bytes / UNIT_BYTES).unwrap_or(u32::MAX);
        let [units, aside] = [all as usize, ASIDE_AT_ONCE].map(|count| Arc::new(Semaphore::new(count)));
        Self { units, all, aside }
    }

    fn units(&self, bytes: u64) -> u32 {
        u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX).min(self.all)
    }

    /// Waits until it is this body's turn.
    pub(super) async fn take(&self, bytes: u64) -> Leave {
        let units = self.units(bytes);
        // It fails for a closed pool only, and this one is never closed.
        let permit = self.units.clone().acquire_many_owned(units).await.ok();
        Leave { units, since: Instant::now(), permit }
    }

    /// Waits until it is this body's turn to put something aside. Who has it waits for the store only.
    pub(super) async fn turn_aside(&self) -> Option<OwnedSemaphorePermit> {
        // As for `take`.
        self.aside.clone().acquire_owned().await.ok()
    }

    /// Takes what is free now.
    pub(super) fn try_take(&self, bytes: u64) -> Option<Leave> {
        let units = self.units(bytes);
        let permit = self.units.clone().try_acquire_many_owned(units).ok()?;
        Some(Leave { units, since: Instant::now(), permit: Some(permit) })
    }

    /// Takes what nobody will miss: half of the pool stays.
    pub(super) fn try_take_spare(&self, bytes: u64) -> Option<Leave> {
        let left = self.units.available_permits().saturating_sub(self.units(bytes) as usize);
        if left >= self.all as usize / 2 { self.try_take(bytes) } else { None }
    }

    /// Takes some of what is free now, up to `bytes`: a third of what is left when `free` bytes stay free.
    pub(super) fn try_take_some(&self, bytes: u64, free: u64) -> Option<Leave> {
        let (lent, all) = self.lent_bytes();
        let bytes = bytes.min((all - lent).saturating_sub(free) / 3);
        if bytes > OWN_BYTES as u64 { self.try_take(bytes) } else { None }
    }

    /// How much is lent, and how much there is to lend.
    pub(super) fn lent_bytes(&self) -> (u64, u64) {
        let free = u64::try_from(self.units.available_permits()).unwrap_or(u64::MAX);
        (u64::from(self.all).saturating_sub(free) * UNIT_BYTES, u64::from(self.all) * UNIT_BYTES)
    }

    /// Whether somebody who wants so much would have to wait.
    pub(super) fn is_short_of(&self, bytes: u64) -> bool {
        self.units.available_permits() < self.units(bytes) as usize
    }
}

impl Leave {
    pub(super) fn bytes(&self) -> u64 {
        u64::from(self.units) * UNIT_BYTES
    }

    /// Since when it is held.
    pub(super) fn since(&self) -> Instant {
        self.since
    }

    /// Both in one.
    pub(super) fn and(mut self, other: Self) -> Self {
        self.units += other.units;
        match (&mut self.permit, other.permit) {
            (Some(permit), Some(other)) => permit.merge(other),
            (none, other) => *none = other,
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    #[tokio::test]
    async fn what_is_lent_comes_back_and_whoever_waits_is_served_in_turn() {
        let memory = BodyMemory::new(10 * MIB);
        let first = memory.take(5 * MIB).await;
        assert!(memory.try_take_spare(MIB).is_none());
        let second = memory.try_take(5 * MIB).unwrap();
        assert!(memory.try_take(1).is_none() && memory.is_short_of(1));
        let waiting = [5, 1].map(|mib| {
            let memory = memory.clone();
            tokio::spawn(async move { memory.take(mib * MIB).await })
        });
        tokio::task::yield_now().await;
        drop(first);
        // The second in the queue asks for less than is free now, and has to wait all the same.
        let [one, two] = waiting;
        let one = one.await.unwrap();
        assert!(!two.is_finished());
        drop(second);
        assert_eq!(one.bytes() + two.await.unwrap().bytes(), 6 * MIB);
    }

    #[tokio::test]
    async fn more_than_there_is_takes_all() {
        let memory = BodyMemory::new(MIB);
        assert_eq!(memory.take(50 * MIB).await.and(memory.take(0).await).bytes(), MIB);
        assert!(memory.try_take_spare(MIB / 4).is_some());
    }

    #[tokio::test]
    async fn some_of_what_is_left_is_always_less_than_all() {
        let memory = BodyMemory::new(30 * MIB);
        let mut taken = Vec::new();
        while let Some(leave) = memory.try_take_some(5 * MIB, 5 * MIB) {
            taken.push(leave);
        }
        assert!(taken.len() > 6, "{taken:?}");
        assert!(taken.windows(2).all(|two| two[0].bytes() >= two[1].bytes()), "{taken:?}");
        assert!(!memory.is_short_of(5 * MIB));
    }
}
