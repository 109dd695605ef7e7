//! What the folders hold, in memory: a folder that was listed once is known from then on, because every change goes through
//! this process, which has the lock.
//!
//! - Exact: a change of a folder and the note of it here happen under that folder's lock (a stripe of them), and so does
//!   reading the folder from the disk. A folder that is not known is read; one that is not there counts as known and empty.
//! - Bounded: when the known folders take more than [`MAX_BYTES`], those of a stripe that were not used lately are
//!   forgotten. Forgetting is always right; it costs one reading of that folder.
//!
//! The bound is on an estimate of what names and their keeping take; a store of any size is served with it.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// For all that is known, names and what it takes to keep them.
const MAX_BYTES: usize = 32 * 1024 * 1024;
/// Folders are spread over as many locks.
const STRIPES: usize = 64;
/// What keeping one name costs besides its letters, and keeping one folder besides its children.
const CHILD_BYTES: usize = 16 + size_of::<Child>();
const FOLDER_BYTES: usize = 64 + size_of::<Known>();

/// What lists say of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) size: u64,
    pub(super) modified: SystemTime,
}

impl Stat {
    /// Of a folder, where it means nothing.
    pub(super) const FOLDER: Self = Self { size: 0, modified: SystemTime::UNIX_EPOCH };
}

/// Something in a folder: an object, or a folder, whose name then ends in `/`, so that names sort as keys do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Child {
    pub(super) name: Box<str>,
    /// Of no meaning for a folder.
    pub(super) stat: Stat,
}

#[derive(Debug, Default)]
struct Known {
    /// In the order of names.
    children: Vec<Child>,
    /// When it was last used, by the stripe's own count.
    used: u64,
}

impl Known {
    fn place(&self, name: &str) -> Result<usize, usize> {
        self.children.binary_search_by(|child| (*child.name).cmp(name))
    }
}

#[derive(Debug, Default)]
struct Stripe {
    /// Held while a folder of this stripe is changed or read.
    disk: Mutex<()>,
    known: Mutex<Folders>,
}

#[derive(Debug, Default)]
struct Folders {
    by_start: HashMap<Box<str>, Known>,
    bytes: usize,
    uses: u64,
}

/// The known folders. A folder is named by what its keys begin with: empty, or ending in `/`.
#[derive(Debug)]
pub(super) struct Index {
    stripes: Vec<Stripe>,
    hasher: RandomState,
    max_bytes: usize,
}

impl Default for Index {
    fn default() -> Self {
        Self::bounded(MAX_BYTES)
    }
}

/// A poisoned lock only says that a thread panicked; what it guards is changed in single steps.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Index {
    pub(super) fn bounded(max_bytes: usize) -> Self {
        let stripes = (0..STRIPES).map(|_| Stripe::default()).collect();
        Self { stripes, hasher: RandomState::new(), max_bytes }
    }

    fn stripe(&self, start: &str) -> &Stripe {
        let number = self.hasher.hash_one(start) as usize % STRIPES;
        // There are as many as that.
        #[expect(clippy::indexing_slicing, reason = "the remainder is below the number of stripes")]
        &self.stripes[number]
    }

    /// Shows a folder's children, when it is known.
    pub(super) fn with<T>(&self, start: &str, show: impl FnOnce(&[Child]) -> T) -> Option<T> {
        let mut folders = lock(&self.stripe(start).known);
        folders.uses += 1;
        let now = folders.uses;
        let known = folders.by_start.get_mut(start)?;
        known.used = now;
        Some(show(&known.children))
    }

    /// Keeps everyone else from changing or reading the folder.
    pub(super) fn hold<'a>(&'a self, start: &'a str) -> Held<'a> {
        let stripe = self.stripe(start);
        Held { index: self, start, stripe, _disk: lock(&stripe.disk) }
    }
}

/// One folder, held. Whoever holds it holds no other.
pub(super) struct Held<'a> {
    index: &'a Index,
    start: &'a str,
    stripe: &'a Stripe,
    _disk: MutexGuard<'a, ()>,
}

impl Held<'_> {
    /// Notes all that is in the folder, as just read.
    pub(super) fn learn(&self, mut children: Vec<Child>) {
        children.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        let bytes = FOLDER_BYTES + self.start.len();
        let bytes = children.iter().fold(bytes, |sum, child| sum + CHILD_BYTES + child.name.len());
        let folders = &mut *lock(&self.stripe.known);
        folders.uses += 1;
        let known = Known { children, used: folders.uses };
        if let Some(before) = folders.by_start.insert(self.start.into(), known) {
            folders.bytes -= bytes_of(self.start, &before);
        }
        folders.bytes += bytes;
        self.index.forget(folders);
    }

    /// Notes that something is in the folder now.
    pub(super) fn added(&self, name: &str, stat: Stat) {
        let folders = &mut *lock(&self.stripe.known);
        let Some(known) = folders.by_start.get_mut(self.start) else { return };
        match known.place(name) {
            Ok(at) => {
                if let Some(child) = known.children.get_mut(at) {
                    child.stat = stat;
                }
            }
            Err(at) => {
                known.children.insert(at, Child { name: name.into(), stat });
                folders.bytes += CHILD_BYTES + name.len();
                self.index.forget(folders);
            }
        }
    }

    /// Notes that something is in the folder no more.
    pub(super) fn removed(&self, name: &str) {
        let folders = &mut *lock(&self.stripe.known);
        if let Some(known) = folders.by_start.get_mut(self.start)
            && let Ok(at) = known.place(name)
        {
            known.children.remove(at);
            folders.bytes -= CHILD_BYTES + name.len();
        }
    }
}

fn bytes_of(start: &str, known: &Known) -> usize {
    known.children.iter().fold(FOLDER_BYTES + start.len(), |sum, child| sum + CHILD_BYTES + child.name.len())
}

impl Index {
    /// Forgets the less used half of a stripe when it has outgrown its share.
    fn forget(&self, folders: &mut Folders) {
        let share = self.max_bytes / STRIPES;
        if folders.bytes <= share {
            return;
        }
        let mut uses: Vec<u64> = folders.by_start.values().map(|known| known.used).collect();
        let middle = uses.len() / 2;
        let (_, limit, _) = uses.select_nth_unstable(middle);
        let limit = *limit;
        folders.by_start.retain(|_, known| known.used > limit);
        folders.by_start.shrink_to_fit();
        folders.bytes = folders.by_start.iter().map(|(start, known)| bytes_of(start, known)).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(size: u64) -> Stat {
        Stat { size, modified: SystemTime::UNIX_EPOCH }
    }

    fn child(name: &str, size: u64) -> Child {
        Child { name: name.into(), stat: stat(size) }
    }

    fn names(index: &Index, start: &str) -> Option<Vec<String>> {
        index.with(start, |children| children.iter().map(|child| child.name.to_string()).collect())
    }

    #[test]
    fn a_change_of_an_unknown_folder_does_not_make_it_known() {
        let index = Index::default();
        index.hold("a/").added("x", stat(1));
        assert_eq!(names(&index, "a/"), None);
        index.hold("a/").learn(vec![child("y", 2), child("x", 1)]);
        index.hold("a/").added("w/", stat(0));
        index.hold("a/").removed("y");
        assert_eq!(names(&index, "a/"), Some(vec!["w/".into(), "x".into()]));
    }

    #[test]
    fn what_is_known_stays_within_its_bound() {
        const MAX: usize = 256 * 1024;
        let index = Index::bounded(MAX);
        for number in 0..20_000 {
            let start = format!("links/sha256/ab/{number:064}/");
            index.hold(&start).learn(Vec::new());
            index.hold(&start).added(&"n".repeat(160), stat(1));
            // Used all the time, so kept.
            assert!(number == 0 || index.with("links/", |_| ()).is_some(), "forgotten at {number}");
            if number == 0 {
                index.hold("links/").learn(vec![child("sha256/", 0)]);
            }
        }
        let bytes: usize = index.stripes.iter().map(|stripe| lock(&stripe.known).bytes).sum();
        let counted: usize = index
            .stripes
            .iter()
            .map(|stripe| {
                lock(&stripe.known).by_start.iter().map(|(start, known)| bytes_of(start, known)).sum::<usize>()
            })
            .sum();
        assert_eq!(bytes, counted);
        assert!(bytes <= MAX && bytes > MAX / 4, "{bytes}");
    }
}
