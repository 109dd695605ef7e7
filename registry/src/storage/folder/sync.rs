//! Syncing: requests that wait for the disk share one round of it.
//!
//! A round makes the changes of all who wait (names that come or go), syncs each folder that was touched once, and only then
//! tells them. Who comes meanwhile is in the next round. The content of a new file is synced before, on a thread of its own:
//! the file system merges those by itself, and a large file keeps nobody waiting.

use std::fs::File;
use std::io;
use std::sync::{Arc, PoisonError};

use tokio::sync::oneshot;

use super::Inner;
use super::write::Touched;

/// Changes names, and says which folders that touched.
type Change = Box<dyn FnOnce(&Inner, &mut Touched) -> io::Result<()> + Send>;

struct Waiting {
    change: Change,
    done: oneshot::Sender<io::Result<()>>,
}

/// Who waits for the next round, and whether one is under way.
#[derive(Default)]
pub(super) struct Rounds {
    waiting: Vec<Waiting>,
    running: bool,
}

impl std::fmt::Debug for Rounds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} waiting", self.waiting.len())
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
        if let Some(content) = content {
            tokio::task::spawn_blocking(move || content.sync_all()).await.map_err(io::Error::other)??;
        }
        let (done, told) = oneshot::channel();
        let begin = {
            let mut rounds = self.rounds.lock().unwrap_or_else(PoisonError::into_inner);
            rounds.waiting.push(Waiting { change: Box::new(change), done });
            !std::mem::replace(&mut rounds.running, true)
        };
        if begin {
            let inner = self.clone();
            tokio::task::spawn_blocking(move || inner.run_rounds());
        }
        told.await.map_err(|_| io::Error::other("the round that was to sync it broke off"))?
    }

    /// Rounds until nobody waits.
    fn run_rounds(&self) {
        loop {
            let waiting = {
                let mut rounds = self.rounds.lock().unwrap_or_else(PoisonError::into_inner);
                if rounds.waiting.is_empty() {
                    rounds.running = false;
                    return;
                }
                std::mem::take(&mut rounds.waiting)
            };
            let mut touched = Touched::new();
            let changed: Vec<_> = waiting.into_iter().map(|one| ((one.change)(self, &mut touched), one.done)).collect();
            let synced = self.sync_folders(&touched);
            for (result, done) in changed {
                let result = result.and_then(|()| match &synced {
                    Ok(()) => Ok(()),
                    Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
                });
                // Who does not wait any more does not need to know.
                let _ = done.send(result);
            }
        }
    }
}
