//! Runs the operations of a graph: base, copy, run, fetch.
//!
//! An operation leaves a [`RootState`]: a chain of layers, each with its blob in the store (or still at its base image's
//! registry) and its index. Nothing is unpacked before a `RUN` needs it, and no base layer is fetched before a path in it
//! must be looked up or a `RUN` must mount it. Operations run one after the other here; each is blocking code that
//! asks the runtime only for transfers.

mod base;
mod copy;
mod error;
mod extract;
mod item;
mod mounts;
mod owner;
mod placing;
mod rewrite;
mod run;
mod select;
mod state;
mod unpack;
mod watch;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::runtime::Handle;

pub use base::BaseImage;
pub use error::{ExecuteError, StepError};
pub use mounts::{MountSources, Secret, SecretValue};
pub use owner::{Accounts, Identity, OwnerError};
pub use placing::PlacingError;
pub use run::EARLIEST_ZIP_TIME;
pub use select::SelectError;
pub use state::{BuiltLayer, RootState, Trees};
pub use watch::Watcher;

use crate::blob::Store;
use crate::cache::{Mode, Records};
use crate::context::Context;
use crate::event::{Event, Events, Origin, StepId};
use crate::graph::{About, Graph, ImageRequest, Node, Op, OpId, Root};
use crate::layer::{FileTime, LayerOptions};
use crate::remote::Remote;
use crate::sandbox::Cancel;
use crate::snapshot::Snapshotter;

/// What decides how operations run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Read no records; new ones replace the old.
    pub no_cache: bool,
    /// Whether the result may depend on inputs alone.
    pub mode: Mode,
    /// How layers are written.
    pub layers: LayerOptions,
    /// Now: the time of what the builder itself makes, before an epoch takes its place in what is written.
    pub made_at: FileTime,
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
    /// Root file systems for `RUN`.
    pub snapshots: Arc<dyn Snapshotter>,
    /// Who hears what happens.
    pub events: Events,
    /// Numbers for steps.
    pub steps: Arc<StepCounter>,
    /// The images that the graph starts from.
    pub bases: HashMap<ImageRequest, BaseImage>,
    /// How operations run.
    pub options: Options,
    /// What the mounts of `RUN` are made of.
    pub mounts: MountSources,
    /// Stops everything.
    pub cancel: Cancel,
    /// Views that were made lately.
    pub trees: Trees,
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

    /// What an operation left, if it ran.
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

impl Executor {
    /// Runs all operations. Blocks; call it from a thread that may.
    ///
    /// # Errors
    /// The first operation that failed, with its instruction and lines.
    pub fn run(&self, graph: &Graph) -> Result<States, ExecuteError> {
        let mut states = States::default();
        for (id, node) in graph.ops() {
            if self.cancel.is_cancelled() {
                return Err(ExecuteError::Cancelled);
            }
            let step = self.steps.next();
            let (name, origin) = described(&node.about);
            // Nothing waits where one operation runs after the other, and inputs stand before their users.
            self.events.hear(Event::Planned { step, name: name.clone(), origin, needs: Vec::new() });
            self.events.hear(Event::Started { step, name });
            match self.operation(step, node, &states) {
                Ok(state) => {
                    self.events.hear(Event::Finished { step });
                    let state = Arc::new(state);
                    if let Some(watcher) = &self.watcher {
                        watcher.finished(id, &state);
                    }
                    states.0.insert(id, state);
                }
                Err(StepError::Cancelled) => {
                    self.events.hear(Event::Stopped { step });
                    return Err(ExecuteError::Cancelled);
                }
                Err(source) => {
                    self.events.hear(Event::Failed { step, error: source.to_string() });
                    return Err(ExecuteError::Step { about: Box::new(node.about.clone()), source: Box::new(source) });
                }
            }
        }
        Ok(states)
    }

    fn operation(&self, step: StepId, node: &Node, states: &States) -> Result<RootState, StepError> {
        match &node.op {
            Op::Base(op) => self.base(op),
            Op::Copy(op) => self.copy(step, op, states),
            Op::Run(op) => self.run_command(step, op, states),
            Op::Fetch(_) => Err(StepError::NotThereYet { what: "fetching a URL or a git repository" }),
        }
    }
}
