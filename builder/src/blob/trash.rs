//! Trash: what steps made and nobody needs. It is gone from its place at once, and taken apart beside the build.
//!
//! ```text
//! <store>/tmp/<process>/trash/<random>     a file or tree
//! ```
//!
//! A thread of low priority empties it, which begins with the first tree. When the process ends, it takes apart what it
//! can in a moment; the rest lies in its folder below `tmp/`, like all that a killed process leaves, and that is the trash
//! of the next process that opens the store.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::removal::{Removed, remove, remove_tree};
use super::scratch::unique;

/// Priority of the thread that empties the trash: the lowest, and with it that of what it asks of disks.
const NICE: i32 = 19;

/// A process's trash. Clones are the same.
#[derive(Clone, Debug)]
pub struct Trash(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    folder: PathBuf,
    state: Mutex<State>,
    /// Something came, went, or is to end.
    changed: Condvar,
    stopped: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<PathBuf>,
    /// Trees that are being taken apart.
    running: usize,
    thread: Option<JoinHandle<()>>,
}

impl Trash {
    /// In a folder that is made.
    pub(super) fn create(folder: &Path) -> io::Result<Self> {
        fs::create_dir(folder)?;
        let shared = Shared {
            folder: folder.to_owned(),
            state: Mutex::default(),
            changed: Condvar::new(),
            stopped: AtomicBool::new(false),
        };
        Ok(Self(Arc::new(shared)))
    }

    /// A place to which something may be renamed, to be [added](Trash::add) then. What is not added goes with the process.
    #[must_use]
    pub fn place(&self) -> PathBuf {
        self.0.folder.join(unique())
    }

    /// Takes what was renamed to a place of the trash.
    pub fn add(&self, place: PathBuf) {
        let mut state = self.0.state();
        state.waiting.push_back(place);
        if state.thread.is_none() && !self.0.stopped.load(Ordering::SeqCst) {
            let shared = self.0.clone();
            let thread = std::thread::Builder::new().name("trash".to_owned());
            // Without a thread it is for the end.
            state.thread = thread.spawn(move || shared.work()).ok();
        }
        drop(state);
        self.0.changed.notify_all();
    }

    /// Takes a file or tree of the store's `tmp/` away at once. Nothing may be mounted in it.
    pub fn take(&self, tree: &Path) {
        let place = self.place();
        match fs::rename(tree, &place) {
            Ok(()) => self.add(place),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(_) => remove_tree(tree),
        }
    }

    /// Waits until all of it is gone that was there, and helps; says whether there was any.
    pub fn empty(&self) -> bool {
        let mut state = self.0.state();
        let any = !state.waiting.is_empty() || state.running > 0;
        loop {
            if let Some(tree) = state.waiting.pop_front() {
                state.running += 1;
                drop(state);
                remove_tree(&tree);
                state = self.0.state();
                state.running -= 1;
                self.0.changed.notify_all();
            } else if state.running > 0 {
                state = self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            } else {
                return any;
            }
        }
    }

    /// Ends the thread, whatever is left.
    pub(super) fn stop(&self) {
        self.0.stopped.store(true, Ordering::SeqCst);
        let thread = self.0.state().thread.take();
        self.0.changed.notify_all();
        if let Some(thread) = thread {
            // It does nothing that panics.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        // Of this thread alone: Linux counts each for itself.
        let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE);
        let stop = || self.stopped.load(Ordering::SeqCst);
        let mut state = self.state();
        while !stop() {
            let Some(tree) = state.waiting.pop_front() else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            state.running += 1;
            drop(state);
            match remove(&tree, &stop) {
                Ok(Removed::Whole | Removed::Stopped(_)) => {}
                Err(error) => tracing::debug!(path = %tree.display(), %error, "trash could not be removed"),
            }
            state = self.state();
            state.running -= 1;
            self.changed.notify_all();
        }
    }
}

/// A folder below the store's `tmp/` that goes when this is dropped.
#[derive(Debug)]
pub struct Temporary {
    path: PathBuf,
    trash: Trash,
}

impl Temporary {
    pub(super) fn new(path: PathBuf, trash: Trash) -> Self {
        Self { path, trash }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        self.trash.take(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn tree(folder: &Path, files: usize) -> PathBuf {
        let tree = folder.join("tree");
        for number in 0..files / 100 {
            let inside = tree.join(number.to_string());
            fs::create_dir_all(&inside).unwrap();
            for number in 0..100 {
                fs::write(inside.join(number.to_string()), "").unwrap();
            }
        }
        tree
    }

    fn count(folder: &Path) -> usize {
        fs::read_dir(folder).unwrap().count()
    }

    #[test]
    fn what_is_taken_is_gone_from_its_place_and_later_from_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        let trash = Trash::create(&folder.path().join("trash")).unwrap();
        assert!(!trash.empty());
        for _ in 0..20 {
            let tree = tree(folder.path(), 300);
            trash.take(&tree);
            assert!(!tree.exists());
        }
        trash.empty();
        assert_eq!(count(&folder.path().join("trash")), 0);
        // By itself as well, and nobody waits for that.
        trash.take(&tree(folder.path(), 5_000));
        assert_eq!(count(&folder.path().join("trash")), 1);
        let begun = Instant::now();
        while count(&folder.path().join("trash")) > 0 {
            assert!(begun.elapsed() < Duration::from_secs(60));
            std::thread::sleep(Duration::from_millis(5));
        }
        trash.take(&folder.path().join("absent"));
        trash.stop();
        trash.take(&tree(folder.path(), 300));
        assert_eq!(count(&folder.path().join("trash")), 1, "nobody empties it any more");
        assert!(trash.empty());
        assert_eq!(count(&folder.path().join("trash")), 0);
    }
}
