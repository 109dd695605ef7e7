//! What clients did and were told, and what must therefore hold. Times are the order in which things were begun and answered.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Never: the answer did not come, so what was asked for may yet happen.
pub(crate) const OPEN: u64 = u64::MAX;

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Put {
        repo: &'static str,
        image: usize,
        tag: Option<&'static str>,
    },
    /// Going back with a tag; to which image is not known where it was left to the registry and no answer came.
    Undo {
        repo: &'static str,
        tag: &'static str,
        image: Option<usize>,
    },
    /// A tag's value, which was told; `None`: it has none.
    Read {
        repo: &'static str,
        tag: &'static str,
        image: Option<usize>,
    },
    DeleteTag {
        repo: &'static str,
        tag: &'static str,
    },
    DeleteManifest {
        repo: &'static str,
        image: usize,
    },
    DeleteBlob {
        repo: &'static str,
        blob: usize,
    },
}

/// That it was asked for, and when it was answered with yes.
#[derive(Clone, Debug)]
pub(crate) struct Fact {
    pub(crate) asked: Asked,
    pub(crate) begun: u64,
    pub(crate) done: u64,
    /// Whether it was answered, yes or no.
    pub(crate) answered: bool,
}

impl Fact {
    /// Which value it gave, or may have given, a tag.
    pub(crate) fn sets(&self, of: &str, name: &str) -> Option<Set<'_>> {
        match self.asked {
            Asked::Put { repo, tag: Some(tag), image } if repo == of && tag == name => {
                Some(Set { fact: self, image: Some(image) })
            }
            Asked::Undo { repo, tag, image } if repo == of && tag == name => Some(Set { fact: self, image }),
            _ => None,
        }
    }

    /// Whether it ends a tag whose value is `image`; an unknown value is any.
    pub(crate) fn ends(&self, of: &str, name: &str, image: Option<usize>) -> bool {
        match self.asked {
            Asked::DeleteTag { repo, tag } => repo == of && tag == name,
            Asked::DeleteManifest { repo, image: deleted } => repo == of && image.is_none_or(|image| image == deleted),
            _ => false,
        }
    }

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

/// A value that a tag was given, or may have been; none where it is not known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Set<'f> {
    pub(crate) fact: &'f Fact,
    pub(crate) image: Option<usize>,
}

impl Set<'_> {
    pub(crate) fn may_be(&self, image: usize) -> bool {
        self.image.is_none_or(|own| own == image)
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
        facts.push(Fact { asked, begun, done: OPEN, answered: false });
        facts.len() - 1
    }

    /// It was answered with yes, and this is what it was.
    pub(crate) fn turned_out(&self, fact: usize, asked: Asked) {
        self.facts.lock().unwrap()[fact].asked = asked;
        self.done(fact);
    }

    /// It was answered with no, for good; what it began may still show.
    pub(crate) fn answered(&self, fact: usize) {
        self.facts.lock().unwrap()[fact].answered = true;
    }

    /// It was answered with yes.
    pub(crate) fn done(&self, fact: usize) {
        let done = self.tick();
        let fact = &mut self.facts.lock().unwrap()[fact];
        (fact.done, fact.answered) = (done, true);
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
