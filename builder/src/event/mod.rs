//! What happened during a build (step started, bytes moved, a line of output), and the sink that hears it.
//!
//! Rooms say what happened and never how it looks; `cli::progress` turns events into a terminal view, plain text or
//! JSON lines. A sink must be quick: it is called from the threads that do the work.

use std::fmt;
use std::sync::Arc;

/// Names one step of a build in its events. Steps are numbered from 1 in the order in which they are first heard of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StepId(pub u32);

impl fmt::Display for StepId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// Which of a command's two outputs some bytes came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Work on a step began.
    Started {
        /// The step.
        step: StepId,
        /// What people know it by: `[build 2/5] RUN make`.
        name: String,
    },
    /// The step's result was found in the cache; `Finished` follows.
    Cached {
        /// The step.
        step: StepId,
    },
    /// The step is done.
    Finished {
        /// The step.
        step: StepId,
    },
    /// The step failed.
    Failed {
        /// The step.
        step: StepId,
        /// Why, in one line.
        error: String,
    },
    /// A command wrote something; it need not end at a line's end.
    Output {
        /// The step.
        step: StepId,
        /// Where it came from.
        stream: Stream,
        /// The bytes as they came.
        bytes: Vec<u8>,
    },
    /// Bytes were moved for the step: so many of so many by now.
    Moved {
        /// The step.
        step: StepId,
        /// What is moved: a digest, a file.
        what: String,
        /// Bytes moved by now.
        done_bytes: u64,
        /// Bytes in all, where that is known.
        total_bytes: Option<u64>,
    },
    /// Something that the user should know and that stops nothing.
    Warning {
        /// What, in one line.
        text: String,
    },
    /// Something that was done as asked.
    Note {
        /// What, in one line.
        text: String,
    },
}

/// Hears events. Called from many threads at once.
pub trait Sink: Send + Sync {
    /// Takes one event. Must not block for long and cannot fail.
    fn hear(&self, event: Event);
}

/// A shared sink.
pub type Events = Arc<dyn Sink>;

/// Hears everything and does nothing with it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Deaf;

impl Sink for Deaf {
    fn hear(&self, _event: Event) {}
}
