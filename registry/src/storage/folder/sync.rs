//! Syncing: requests that wait for the disk share one round of it.
//!
//! A round syncs the content of all new files that wait, makes the changes (names that come or go), syncs each folder that was
//! touched once, and only then tells them. Heads and lists that tell of what no round has synced yet, or could not, wait for one
//! that does: nobody acknowledges something because of what may be lost. A few rounds run side by side, because the file system merges what is synced at the
//! same time; who comes when all run is in the next one. Content that takes long (a long upload) is synced before.

use std::fs::File;
use std::io;
use std::sync::{Arc, PoisonError};

use tokio::sync::oneshot;

use super::Inner;
use super::write::Touched;

/// Changes names, and says which folders that touched.
type Change = Box<dyn FnOnce(&Inner, &mut Touched) -> io::Result<()> + Send>;

struct Waiting {
    content: Option<File>,
    change: Change,
    done: oneshot::Sender<io::Result<()>>,
}

/// How many rounds run side by side. Fewer share more, but one that waits for a disk that others use keeps all waiting.
const ROUNDS: usize = 8;

/// Who waits for the next round, and how many are under way.
#[derive(Default)]
pub(super) struct Rounds {
    waiting: Vec<Waiting>,
    running: usize,
}

impl std::fmt::Debug for Rounds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} waiting", self.waiting.len())
    }
}

/// One that runs rounds. Should it break off, another may run in its place.
struct Running<'a>(&'a Inner);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.rounds.lock().unwrap_or_else(PoisonError::into_inner).running -= 1;
        }
    }
}

impl Inner {
    /// Makes a change, and has it on the disk, unless syncing is off. `content`: has to be on the disk before.
    ///
    /// Dropped while it waits, the change is made all the same, or not at all.
    pub(super) async fn commit(
        self: &Arc<Self>,
        content: Option<File>,
        change: impl FnOnce(&Self, &mut Touched) -> io::Result<()> + Send + 'static,
    ) -> io::Result<()> {
        if !self.sync {
            return change(self, &mut Touched::new());
        }
        let (done, told) = oneshot::channel();
        let begin = {
            let mut rounds = self.rounds.lock().unwrap_or_else(PoisonError::into_inner);
            rounds.waiting.push(Waiting { content, change: Box::new(change), done });
            let begin = rounds.running < ROUNDS;
            rounds.running += usize::from(begin);
            begin
        };
        if begin {
            let inner = self.clone();
            tokio::task::spawn_blocking(move || inner.run_rounds());
        }
        told.await.map_err(|_| io::Error::other("the round that was to sync it broke off"))?
    }

    /// Waits until all that begins with `prefix` and was seen is on the disk: what made it may wait for that still, or has
    /// failed to.
    pub(super) async fn settle(self: &Arc<Self>, prefix: &str) -> io::Result<()> {
        let unsynced = self.unsynced_of(prefix);
        if unsynced.is_empty() {
            return Ok(());
        }
        let join = move |_: &Self, touched: &mut Touched| {
            touched.extend(unsynced);
            Ok(())
        };
        self.commit(None, join).await
    }

    /// Has a file or a folder on the disk.
    pub(super) fn sync_all(&self, file: &File, what: &str) -> io::Result<()> {
        #[cfg(test)]
        self.faults.before(what)?;
        file.sync_all().map_err(|error| io::Error::new(error.kind(), format!("syncing `{what}`: {error}")))
    }

    /// Rounds until nobody waits.
    fn run_rounds(self: Arc<Self>) {
        let mut told = Vec::new();
        while let Some(waiting) = self.next_round() {
            told.drain(..).for_each(tell);
            let _running = Running(&self);
            told = self.round(waiting);
        }
        // Whoever hears that the last change is made may close the folder and open it again.
        drop(self);
        told.into_iter().for_each(tell);
    }

    fn next_round(&self) -> Option<Vec<Waiting>> {
        let mut rounds = self.rounds.lock().unwrap_or_else(PoisonError::into_inner);
        if rounds.waiting.is_empty() {
            rounds.running -= 1;
            return None;
        }
        Some(std::mem::take(&mut rounds.waiting))
    }

    fn round(&self, waiting: Vec<Waiting>) -> Vec<Told> {
        let mut touched = Touched::new();
        // All content first, so that changing names does not come between the file system and merging it.
        let sync = |one: &Waiting| one.content.as_ref().map_or(Ok(()), |file| self.sync_all(file, "content"));
        let content: Vec<_> = waiting.iter().map(sync).collect();
        let changed: Vec<Told> = waiting
            .into_iter()
            .zip(content)
            .map(|(one, content)| (content.and_then(|()| (one.change)(self, &mut touched)), one.done))
            .collect();
        match self.sync_folders(touched) {
            Ok(()) => changed,
            Err(error) => {
                let failed = || io::Error::new(error.kind(), error.to_string());
                changed.into_iter().map(|(result, done)| (result.and_then(|()| Err(failed())), done)).collect()
            }
        }
    }
}

type Told = (io::Result<()>, oneshot::Sender<io::Result<()>>);

fn tell((result, done): Told) {
    // Who does not wait any more does not need to know.
    let _ = done.send(result);
}

/// What tests make of syncing.
#[cfg(test)]
#[derive(Default)]
pub(super) struct Faults(std::sync::RwLock<Option<Fault>>);

#[cfg(test)]
type Fault = Box<dyn Fn(&str) -> io::Result<()> + Send + Sync>;

#[cfg(test)]
impl Faults {
    pub(super) fn set(&self, fault: impl Fn(&str) -> io::Result<()> + Send + Sync + 'static) {
        *self.0.write().unwrap() = Some(Box::new(fault));
    }

    fn before(&self, what: &str) -> io::Result<()> {
        self.0.read().unwrap().as_ref().map_or(Ok(()), |fault| fault(what))
    }
}

#[cfg(test)]
impl std::fmt::Debug for Faults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Faults")
    }
}
