//! What the folders hold, in memory: a folder that was listed once is known from then on, because every change goes through
//! this process, which has the lock.
//!
//! - Exact: a change of a folder and the note of it here happen under that folder's lock (a stripe of them), and so does
//!   reading the folder from the disk. A folder that is not known is read; one that is not there counts as known and empty.
//! - Bounded: when the known folders of all stripes take more than [`MAX_BYTES`], those that were not used lately are
//!   forgotten, one stripe after the other. Forgetting is always right; it costs one reading of that folder.
//! - One large folder may take half of it: were it bounded by what a stripe may take, each page of its list would read it again.
//!
//! The bound is on what names and their keeping take at most; a store of any size is served with it.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// For all that is known, names and what it takes to keep them.
const MAX_BYTES: usize = 32 * 1024 * 1024;
/// Folders are spread over as many locks.
const STRIPES: usize = 64;
/// What an allocation costs besides what was asked for.
const ALLOCATION_BYTES: usize = 16;
/// A folder's place in the table, of which 7 of 16 are taken at least.
const PLACE_BYTES: usize = (size_of::<(Box<str>, Known)>() + 1) * 16 / 7;

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
    /// What all stripes take.
    bytes: AtomicUsize,
    /// Which stripe forgets next.
    next: AtomicUsize,
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
        let (bytes, next) = Default::default();
        Self { stripes, hasher: RandomState::new(), max_bytes, bytes, next }
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
        // Most folders hold one name, for which a list that grew has four places.
        children.shrink_to_fit();
        let mut known = Known { children, used: 0 };
        let bytes = bytes_of(self.start, &known);
        self.change(|folders| {
            if let Some(before) = folders.by_start.remove(self.start) {
                folders.bytes -= bytes_of(self.start, &before);
            }
            if bytes <= self.index.max_bytes / 2 {
                folders.uses += 1;
                known.used = folders.uses;
                folders.by_start.insert(self.start.into(), known);
                folders.bytes += bytes;
            }
        });
    }

    /// Notes that something is in the folder now.
    pub(super) fn added(&self, name: &str, stat: Stat) {
        self.change(|folders| {
            let Some(known) = folders.by_start.get_mut(self.start) else { return };
            match known.place(name) {
                Ok(at) => {
                    if let Some(child) = known.children.get_mut(at) {
                        child.stat = stat;
                    }
                }
                Err(at) => {
                    let places = known.children.capacity();
                    if known.children.len() == places {
                        known.children.reserve_exact(1 + places / 4);
                    }
                    folders.bytes += (known.children.capacity() - places) * size_of::<Child>();
                    known.children.insert(at, Child { name: name.into(), stat });
                    folders.bytes += ALLOCATION_BYTES + name.len();
                }
            }
        });
    }

    /// Notes that something is in the folder no more.
    pub(super) fn removed(&self, name: &str) {
        self.change(|folders| {
            if let Some(known) = folders.by_start.get_mut(self.start)
                && let Ok(at) = known.place(name)
            {
                known.children.remove(at);
                folders.bytes -= ALLOCATION_BYTES + name.len();
            }
        });
    }

    fn change(&self, change: impl FnOnce(&mut Folders)) {
        self.index.change(self.stripe, change);
        self.index.forget();
    }
}

/// What it takes to know a folder.
fn bytes_of(start: &str, known: &Known) -> usize {
    let children = ALLOCATION_BYTES + known.children.capacity() * size_of::<Child>();
    let bytes = PLACE_BYTES + ALLOCATION_BYTES + start.len() + children;
    known.children.iter().fold(bytes, |sum, child| sum + ALLOCATION_BYTES + child.name.len())
}

impl Index {
    fn change(&self, stripe: &Stripe, change: impl FnOnce(&mut Folders)) {
        let folders = &mut *lock(&stripe.known);
        let before = folders.bytes;
        change(folders);
        // Wraps where it has become less.
        self.bytes.fetch_add(folders.bytes.wrapping_sub(before), Ordering::Relaxed);
    }

    /// Forgets the less used half of one stripe after the other, as long as there is too much; all of it, once every stripe
    /// was halved.
    fn forget(&self) {
        for turn in 0..2 * STRIPES {
            if self.bytes.load(Ordering::Relaxed) <= self.max_bytes {
                return;
            }
            let next = self.next.fetch_add(1, Ordering::Relaxed) % STRIPES;
            let Some(stripe) = self.stripes.get(next) else { return };
            self.change(stripe, |folders| folders.forget(turn >= STRIPES));
        }
    }
}

impl Folders {
    fn forget(&mut self, all: bool) {
        let mut uses: Vec<u64> = self.by_start.values().map(|known| known.used).collect();
        let limit = match uses.len() {
            _ if all => u64::MAX,
            0 => return,
            count => *uses.select_nth_unstable(count / 2).1,
        };
        self.by_start.retain(|_, known| known.used >= limit);
        self.by_start.shrink_to_fit();
        self.bytes = self.by_start.iter().map(|(start, known)| bytes_of(start, known)).sum();
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
        let bytes = index.bytes.load(Ordering::Relaxed);
        let counted: usize = index.stripes.iter().map(|stripe| taken(&lock(&stripe.known).by_start)).sum();
        assert!(bytes <= MAX && bytes > MAX / 2, "{bytes}");
        // Not less than it takes, and not much more.
        assert!((bytes / 4 * 3..=bytes).contains(&counted), "{counted} of {bytes}");
    }

    /// What it takes, by what was allocated for it.
    fn taken(by_start: &HashMap<Box<str>, Known>) -> usize {
        let places = (by_start.capacity() * 8 / 7).next_power_of_two();
        by_start.iter().fold(places * (size_of::<(Box<str>, Known)>() + 1), |sum, (start, known)| {
            let list = known.children.capacity() * size_of::<Child>();
            let names: usize = known.children.iter().map(|child| child.name.len() + ALLOCATION_BYTES).sum();
            sum + start.len() + list + names + 2 * ALLOCATION_BYTES
        })
    }

    #[test]
    fn a_large_folder_stays_known() {
        let index = Index::default();
        let children = |count: u32| (0..count).map(|number| child(&format!("{number:064}/"), 0)).collect();
        // As many names as a repository has blobs, while what is in each of them is read.
        index.hold("large/").learn(children(100_000));
        for page in 0..20 {
            assert!(index.with("large/", |_| ()).is_some(), "forgotten at page {page}");
            for number in 0..1000 {
                let start = format!("large/{page}/{number:064}/");
                index.hold(&start).learn(vec![child(&"n".repeat(160), 1)]);
            }
        }
        // One that would leave nothing for others does not.
        index.hold("large/").learn(children(300_000));
        assert!(index.with("large/", |_| ()).is_none());
        assert!(index.bytes.load(Ordering::Relaxed) <= MAX_BYTES);
    }

    #[test]
    fn a_list_that_grew_for_one_name_is_not_kept_so() {
        let index = Index::default();
        let mut grown = Vec::with_capacity(4);
        grown.push(child("x", 1));
        index.hold("a/").learn(grown);
        index.hold("b/").learn(Vec::new());
        index.hold("b/").added("x", stat(1));
        for start in ["a/", "b/"] {
            assert_eq!(lock(&index.stripe(start).known).by_start[start].children.capacity(), 1, "{start}");
        }
    }

    #[test]
    fn what_was_removed_is_counted_no_more() {
        let index = Index::default();
        index.hold("a/").learn(vec![child("x", 1), child("y", 1)]);
        let before = index.bytes.load(Ordering::Relaxed);
        index.hold("a/").removed("x");
        assert_eq!(index.bytes.load(Ordering::Relaxed), before - ALLOCATION_BYTES - 1);
        index.hold("a/").learn(Vec::new());
        assert_eq!(index.bytes.load(Ordering::Relaxed), bytes_of("a/", &Known::default()));
    }
}
