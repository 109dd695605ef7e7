//! Runs the operations of a graph: base, copy, run, fetch.
//!
//! An operation leaves a [`RootState`]: a chain of layers, each with its blob in the store (or still at its base image's
//! registry) and its index. No base layer is fetched before a path in it must be looked up or a `RUN` must mount it; then
//! all of its root come at once, and are read while they arrive. Only what a `RUN` stands on is unpacked.
//!
//! A build is planned first (`plan`): every step gets its plan key. Then it is looked for from the target backwards
//! (`schedule`): what an earlier build made for the same plan stands for a step and all below it. What is left is looked
//! for by result keys once its inputs are there, or run; independent steps at the same time, each in a thread of its own,
//! which asks the runtime only for transfers.
//!
//! What the Dockerfile fetches may still be on its way then (`arrivals`). The keys of the steps that need it are made of its
//! content, so they are late: they are planned, looked for and run when it is there, and all others do not wait for it.
//! - Whatever comes when, every step has the plan and the keys that it has when all is there from the start. For that, a
//!   command which shares a cache mount with an earlier late one is late too, and what is decided by the graph, the context
//!   and the store alone is decided once, at the start.
//! - What was fetched last time stands for what is on its way as a guess: of the steps that are not late, only those begin
//!   that would have to run if it had not changed. So a build whose files are as they were runs nothing that it would not have
//!   run after its downloads, however slow the server is to say so. What was found for late steps by a guess is
//!   forgotten; no record, no layer and no event comes of it.
//! - What was never fetched before has nothing to be guessed by: all that is not late and not known begins.
//! - A step that cannot be planned is told when all has come: that something did not come goes before it.

mod agree;
mod arrange;
mod arrivals;
mod base;
mod budget;
mod cache_order;
mod copy;
mod engine;
mod error;
mod explain;
mod extract;
mod fetched;
mod flights;
mod fresh;
mod item;
mod leaving;
mod machine;
mod mounts;
mod moving;
mod normalize;
mod owner;
mod placing;
mod plan;
mod recorded;
mod relief;
mod rewrite;
mod run;
mod schedule;
mod select;
mod state;
mod stats;
mod unpack;
mod unpack_layers;
mod watch;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use oci_spec::image::Digest;
use tokio::runtime::Handle;

pub use arrivals::{Arrivals, Coming, OnTheWay};
pub use base::{BaseImage, layers_run_on};
pub use budget::memory_limit_bytes;
pub use error::{ExecuteError, StepError, StepFailure, ways_to_run};
pub use explain::Explain;
pub use flights::Flights;
pub use machine::Lacks;
pub use mounts::MountSources;
pub use owner::{Accounts, Identity, OwnerError};
pub use placing::PlacingError;
pub use relief::{Amount, Relief};
pub use run::EARLIEST_ZIP_TIME;
pub use select::SelectError;
pub use state::{BuiltLayer, RootState, Trees};
pub use stats::StatCache;
pub use unpack::{is_archive, open_archive};
pub use watch::Watcher;

use crate::blob::Store;
use crate::cache::{Mode, Records};
use crate::context::Context;
use crate::event::{Event, Events, Origin, StepId};
use crate::fetch::FetchedFile;
use crate::graph::{About, FetchOp, ImageRequest, OpId, Root};
use crate::layer::{FileTime, LayerOptions};
use crate::remote::Remote;
use crate::sandbox::{Isolation, Resources};
use crate::snapshot::Snapshotter;
use crate::stop::Cancel;

/// Which steps run again although an earlier build ran them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NoCache {
    /// None.
    #[default]
    Never,
    /// Those of these stages, by name; in small letters, as names of stages are.
    Stages(BTreeSet<String>),
    /// All.
    Always,
}

impl NoCache {
    /// Whether records may stand for a step.
    fn allows(&self, about: &About) -> bool {
        match self {
            Self::Never => true,
            Self::Stages(stages) => !about.stage.as_ref().is_some_and(|stage| stages.contains(stage)),
            Self::Always => false,
        }
    }
}

/// What decides how operations run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Steps for which no records are read; new ones replace the old.
    pub no_cache: NoCache,
    /// Whether the result may depend on inputs alone.
    pub mode: Mode,
    /// How layers are written.
    pub layers: LayerOptions,
    /// Now: the time of what the builder itself makes, before an epoch takes its place in what is written.
    pub made_at: FileTime,
    /// How much of the machine each command may use.
    pub resources: Resources,
}

/// Runs a graph's operations.
pub struct Executor {
    /// Where layers go.
    pub store: Store,
    /// What earlier builds made.
    pub records: Records,
    /// Registries.
    pub remote: Remote,
    /// The runtime for transfers.
    pub runtime: Handle,
    /// The user's files.
    pub context: Arc<Context>,
    /// The folders of named contexts, as the graph numbers them.
    pub folders: Vec<Arc<Context>>,
    /// What was fetched for the graph before its steps begin.
    pub fetched: HashMap<FetchOp, FetchedFile>,
    /// Root file systems for `RUN`.
    pub snapshots: Arc<dyn Snapshotter>,
    /// Who hears what happens.
    pub events: Events,
    /// Numbers for steps.
    pub steps: Arc<StepCounter>,
    /// The images that the graph starts from.
    pub bases: HashMap<ImageRequest, BaseImage>,
    /// Diff ids of base images' layers that commands run on.
    pub run_on: HashSet<Digest>,
    /// How operations run.
    pub options: Options,
    /// What the mounts of `RUN` are made of.
    pub mounts: MountSources,
    /// Stops the steps: a child of `interrupt`, which the first failure trips too.
    pub cancel: Cancel,
    /// The user's wish to stop.
    pub interrupt: Cancel,
    /// How commands run.
    pub isolation: Isolation,
    /// `--allow user.recorded`: whether a command may be another user than root where that is only played.
    pub allows_recorded_user: bool,
    /// Says why steps were missed.
    pub explain: Explain,
    /// What is being fetched and unpacked.
    pub flights: Flights,
    /// Views that were made lately.
    pub trees: Trees,
    /// Who makes room when the disk is full.
    pub relief: Arc<dyn Relief>,
    /// Digests of the context's files that are known without reading them.
    pub stats: StatCache,
    /// Who hears of finished layers.
    pub watcher: Option<Arc<dyn Watcher>>,
}

impl std::fmt::Debug for Executor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Executor").field("options", &self.options).finish_non_exhaustive()
    }
}

/// Gives steps their numbers.
#[derive(Debug, Default)]
pub struct StepCounter(AtomicU32);

impl StepCounter {
    /// The next number, from 1.
    pub fn next(&self) -> StepId {
        StepId(self.0.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Begins a step that is none of the graph's.
    pub fn begin(&self, events: &Events, name: String) -> StepId {
        let step = self.next();
        events.hear(Event::Started { step, name });
        step
    }
}

/// What the operations of a graph left.
#[derive(Clone, Debug, Default)]
pub struct States(HashMap<OpId, Arc<RootState>>);

impl States {
    /// What a root file system of the graph holds.
    #[must_use]
    pub fn of(&self, root: Root) -> Arc<RootState> {
        match root {
            Root::Scratch => Arc::new(RootState::scratch()),
            Root::Of(id) => self.0.get(&id).cloned().unwrap_or_else(|| Arc::new(RootState::scratch())),
        }
    }

    /// What these operations left, and nothing else.
    fn only(&self, ids: &[OpId]) -> Self {
        Self(ids.iter().filter_map(|id| Some((*id, self.0.get(id)?.clone()))).collect())
    }

    fn insert(&mut self, id: OpId, state: Arc<RootState>) {
        self.0.insert(id, state);
    }

    /// What an operation left, if it is part of what the result needs.
    #[must_use]
    pub fn get(&self, id: OpId) -> Option<&Arc<RootState>> {
        self.0.get(&id)
    }
}

/// What views know a step by.
fn described(about: &About) -> (String, Origin) {
    let origin = Origin {
        instruction: about.instruction.clone(),
        stage: about.stage.clone(),
        first_line: about.lines.first,
        last_line: about.lines.last,
    };
    (about.title(), origin)
}
