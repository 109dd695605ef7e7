//! What is still on its way when the steps begin, and how they hear that it came.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::mpsc::{self, Receiver, Sender};

use super::{RootState, StepError};
use crate::event::StepId;
use crate::fetch::FetchedFile;
use crate::graph::{FetchOp, OpId};

/// What a thread says when its step is over.
pub(super) type Outcome = Result<Result<RootState, StepError>, Box<dyn Any + Send>>;

/// What the loop that runs a graph is told.
pub(super) enum Told {
    /// A step is over.
    Step(OpId, Outcome),
    /// Something that was on its way is there.
    Arrived(FetchOp, FetchedFile),
    /// Nothing more comes.
    Over,
}

/// One thing that is on its way.
#[derive(Debug)]
pub struct Coming {
    /// The step that brings it, of which whoever brings it tells.
    pub step: StepId,
    /// What was had from there last, where that is still there: it says what a build of today would do if nothing had changed.
    pub last: Option<FetchedFile>,
}

/// What the graph names and is still on its way.
pub struct OnTheWay {
    pub(super) pending: BTreeMap<FetchOp, Coming>,
    pub(super) sender: Sender<Told>,
    pub(super) receiver: Receiver<Told>,
}

impl OnTheWay {
    /// These things, and who is to tell of them.
    #[must_use]
    pub fn new(pending: impl IntoIterator<Item = (FetchOp, Coming)>) -> (Self, Arrivals) {
        let (sender, receiver) = mpsc::channel();
        let arrivals = Arrivals(sender.clone());
        (Self { pending: pending.into_iter().collect(), sender, receiver }, arrivals)
    }
}

impl std::fmt::Debug for OnTheWay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OnTheWay").field("pending", &self.pending).finish_non_exhaustive()
    }
}

/// Tells the steps what came. When it goes, what has not come by then never will, and the build cannot end well.
pub struct Arrivals(Sender<Told>);

impl Arrivals {
    /// This is there.
    pub fn tell(&self, op: FetchOp, file: FetchedFile) {
        // Nobody listens any more where a step failed.
        let _ = self.0.send(Told::Arrived(op, file));
    }
}

impl Drop for Arrivals {
    fn drop(&mut self) {
        let _ = self.0.send(Told::Over);
    }
}

impl std::fmt::Debug for Arrivals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Arrivals(..)")
    }
}
