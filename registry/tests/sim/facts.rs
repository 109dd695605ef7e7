//! What clients did and were told, and what must therefore hold. Times are the order in which things were begun and answered.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Never: the answer did not come, so what was asked for may yet happen.
pub(crate) const OPEN: u64 = u64::MAX;

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Put { repo: &'static str, image: usize, tag: Option<&'static str> },
    DeleteTag { repo: &'static str, tag: &'static str },
    DeleteManifest { repo: &'static str, image: usize },
    DeleteBlob { repo: &'static str, blob: usize },
}

/// That it was asked for, and when it was answered with yes.
#[derive(Clone, Debug)]
pub(crate) struct Fact {
    pub(crate) asked: Asked,
    pub(crate) begun: u64,
    pub(crate) done: u64,
}

impl Fact {
    pub(crate) fn is_acknowledged(&self) -> bool {
        self.done != OPEN
    }

    /// Whether it may have taken effect after `other` did.
    pub(crate) fn may_follow(&self, other: &Self) -> bool {
        self.done > other.begun
    }

    /// Whether it took effect after `other` did, beyond doubt.
    pub(crate) fn follows(&self, other: &Self) -> bool {
        self.begun > other.done
    }
}

#[derive(Debug, Default)]
pub(crate) struct Facts {
    clock: AtomicU64,
    facts: Mutex<Vec<Fact>>,
}

impl Facts {
    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::Relaxed)
    }

    /// It is about to be asked for.
    pub(crate) fn begin(&self, asked: Asked) -> usize {
        let begun = self.tick();
        let mut facts = self.facts.lock().unwrap();
        facts.push(Fact { asked, begun, done: OPEN });
        facts.len() - 1
    }

    /// It was answered with yes.
    pub(crate) fn done(&self, fact: usize) {
        let done = self.tick();
        self.facts.lock().unwrap()[fact].done = done;
    }

    /// It was answered with no, and nothing can come of it any more.
    pub(crate) fn refused(&self, fact: usize) {
        // Before everything: it neither follows nor precedes anything.
        let mut facts = self.facts.lock().unwrap();
        facts[fact].begun = OPEN;
    }

    /// All that may have had an effect.
    pub(crate) fn all(&self) -> Vec<Fact> {
        self.facts.lock().unwrap().iter().filter(|fact| fact.begun != OPEN).cloned().collect()
    }
}
