//! Collection: what nothing refers to any more goes. Always on, in every replica, safe however many run.
//!
//! ```text
//! Collector::run_once -> a Pass: hints, repositories, data, sweeps
//!                          each finds candidates (what nothing seems to need, older than the grace time)
//!                          -> batch: protocol::Collect marks them, looks again, deletes, removes the mark
//! ```
//! - What may have content (data, links, copies) goes only through `batch`. The first look, here, may be wrong in any way
//!   and only costs work; the second, in `protocol`, is what makes it safe.
//! - Everything else (superseded values of tags, index entries, what refers to a copy that is gone) goes by its age: the
//!   key is never used again, and what it spoke of was gone before the run began.
//! - Ages are differences of the store's own times. No clock of ours decides anything, all randomness is injected, and
//!   waiting is the background task's business alone: `run_once` can be driven by a simulation.
//! - `repository` judges purely, over what was listed; `data`, `hints` and `sweep` are short enough to ask and judge at
//!   once. `brake` holds back a pass that would remove too much; `log` keeps what went and why.

mod background;
mod batch;
mod brake;
mod data;
mod hints;
pub mod log;
mod pass;
mod report;
mod repository;
mod sweep;

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

pub use background::Rhythm;
pub use brake::Brake;
pub use log::Removal;
pub use report::{Kept, Report, Why, human_size};

use crate::metrics::Metrics;
use crate::protocol::{Nonce, Object};
use crate::storage::{Storage, StorageError, StoreTime, as_collector};

/// How long what nothing refers to is left alone, by the store's own times. It decides only how often a slow client has to
/// send something again.
pub const GRACE: Duration = Duration::from_secs(24 * 60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Most candidates of one batch: one mark object names them all.
const BATCH_MAX: usize = 1000;
/// How long an upload may rest.
const UPLOAD_KEPT: Duration = DAY;
/// How long the log of removals is kept.
const LOG_KEPT: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// What goes, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CollectSettings {
    /// What is younger is left alone.
    pub grace: Duration,
    /// How long a replaced value of a tag can be got back.
    pub history: Duration,
    /// How long it is remembered that a repository had a blob which was collected: a push that relied on it and comes to its
    /// manifest within this time is refused, and not taken for that of a sparse image.
    pub traces: Duration,
    /// How long a manifest stays that no tag names any more; for ever without.
    pub untagged: Option<Duration>,
    /// Of a hundred data objects, how many may go in one pass; 1,000 may in any case.
    pub brake_percent: u8,
}

impl Default for CollectSettings {
    fn default() -> Self {
        Self { grace: GRACE, history: 30 * DAY, traces: 90 * DAY, untagged: None, brake_percent: 1 }
    }
}

impl CollectSettings {
    /// How long a replaced value is a root. Never shorter than the grace time: the value may have been replaced while
    /// it was pushed.
    fn window(&self) -> Duration {
        self.history.max(self.grace)
    }

    /// How old a hint has to be before it is looked at.
    fn patience(&self, hint: &Object) -> Duration {
        if matches!(hint, Object::TraceHint(..)) { self.traces.max(self.grace) } else { self.grace }
    }
}

/// How much of a collector's work to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The hints, the whole store, and the sweeps.
    Whole,
    /// The hints only.
    Hints,
    /// One slice of the store: the one that was looked at longest ago.
    Slice,
    /// What `Whole` would find at its first look. Writes nothing, so it has to be told the time.
    DryRun {
        /// Now, by the store's clock or one that is close to it.
        now: StoreTime,
    },
}

/// What a collector takes from its surroundings. Tests give fixed ones.
#[derive(Clone)]
pub struct Surroundings {
    /// The time, for people: goes into the log of removals. Nothing is decided by it.
    pub now: Arc<dyn Fn() -> String + Send + Sync>,
    /// Random bits.
    pub random: Arc<dyn Fn() -> [u8; 16] + Send + Sync>,
}

impl fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Surroundings")
    }
}

/// Why a run did not come to its end. What it did until then is done; the next run goes on.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// The store was written by a version whose collection this one does not understand.
    #[error(
        "this store needs a collector that understands layout {needed}: collection waits for a newer fluyt-registry, everything else goes on"
    )]
    Newer {
        /// The least layout that a collector has to understand.
        needed: u32,
    },
    /// A file system on which one machine need not see at once what another does.
    #[error(
        "nothing is collected on NFS, SMB, FUSE and the like: what one machine writes there need not show at once on another; keep the store on a local file system, or in an object store"
    )]
    Uncollectable,
    /// The store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Collects on one store. Any number may, at the same time.
#[derive(Clone, Debug)]
pub struct Collector {
    storage: Arc<Storage>,
    settings: CollectSettings,
    surroundings: Surroundings,
    metrics: Arc<Metrics>,
    /// Since when adopted data is ours alone, once that is known.
    released: Arc<OnceLock<StoreTime>>,
}

impl Collector {
    /// A collector on an opened store. Does nothing by itself: see [`Collector::run_once`] and [`Collector::background`].
    pub fn new(
        storage: Arc<Storage>,
        settings: CollectSettings,
        surroundings: Surroundings,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { storage, settings, surroundings, metrics, released: Arc::default() }
    }

    /// One run. What it could not do is in the report; an error ends it.
    pub async fn run_once(&self, mode: Mode) -> Result<Report, CollectError> {
        let result = as_collector(pass::run(self, mode)).await;
        self.storage.forget_contents();
        self.metrics.collector.runs.inc();
        if result.is_err() {
            self.metrics.collector.failed_runs.inc();
        }
        result
    }

    /// The same collector with another word on what goes and when.
    pub fn with_settings(&self, settings: CollectSettings) -> Self {
        Self { settings, ..self.clone() }
    }

    /// What goes, and when.
    pub fn settings(&self) -> CollectSettings {
        self.settings
    }

    /// Lets the brake go for a week: whichever replica comes to it honours this.
    pub async fn confirm(&self) -> Result<(), CollectError> {
        Ok(self.storage.confirm_collection(&self.nonce()).await?)
    }

    fn nonce(&self) -> Nonce {
        let mut bits = [0; 12];
        bits.copy_from_slice(&(self.surroundings.random)()[..12]);
        Nonce::from_bits(bits)
    }
}
