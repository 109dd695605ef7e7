//! What happened during a build (step started, bytes moved, a line of output), and the sink that hears it.
//!
//! Rooms say what happened and never how it looks; `cli::progress` turns events into a terminal view, plain text or
//! JSON lines. A sink must be quick: it is called from the threads that do the work.

mod size;

use std::fmt;
use std::sync::Arc;

pub use size::size;

/// Names one step of a build in its events. Steps are numbered from 1 in the order in which they are first heard of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StepId(pub u32);

impl fmt::Display for StepId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// How the name of a step begins that brings something from elsewhere; its address follows.
pub const DOWNLOAD: &str = "[internal] fetch ";

/// How the name of what is moved begins where it comes from a registry; its digest follows.
pub const PULLING: &str = "pulling ";

/// Which of a command's two outputs some bytes came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Where a step comes from in the Dockerfile: what a failure shows, and what a step stands on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The instruction as typed, continuation lines joined.
    pub instruction: String,
    /// The stage's name, where the file has stages that need one.
    pub stage: Option<String>,
    /// First line of the instruction, from 1.
    pub first_line: usize,
    /// Last line of it.
    pub last_line: usize,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The Dockerfile that is built; said before the first thing that has a line in it.
    Dockerfile {
        /// Its name for messages.
        name: String,
        /// Where it is, as seen from where the build was started; empty where it is in no file there.
        path: String,
        /// What it says.
        text: String,
    },
    /// A step of the Dockerfile is part of the build. Said once, before anything else of the step, so that views can name
    /// steps that still wait, and can show where in the Dockerfile one failed.
    Planned {
        /// The step.
        step: StepId,
        /// What people know it by, as in `Started`.
        name: String,
        /// Where it comes from.
        origin: Origin,
        /// The steps whose results it needs.
        needs: Vec<StepId>,
    },
    /// A planned step cannot start yet. Said again when what it waits for changes; `Started`, or the end of the build,
    /// ends the wait.
    Waiting {
        /// The step.
        step: StepId,
        /// The steps that it waits for; none when it waits for its turn (memory, a core).
        on: Vec<StepId>,
    },
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
    /// The step was stopped before its end, by the user or because another one failed.
    Stopped {
        /// The step.
        step: StepId,
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
    /// Something in the Dockerfile that the user should know and that stops nothing.
    Check {
        /// The reference's name of the rule (`UndefinedVar`), when it has one.
        rule: Option<&'static str>,
        /// What, in one line.
        text: String,
        /// What to do about it.
        hint: Option<String>,
        /// What the rule is about.
        detail: &'static str,
        /// Where the rule is explained; empty where nothing explains it.
        url: String,
        /// The Dockerfile's name for messages.
        file: String,
        /// First line that it is about, from 1; 0 when it is about no line (a flag of the command line).
        first_line: usize,
        /// Last line that it is about.
        last_line: usize,
    },
    /// The Dockerfile cannot be built for what stands on these lines. The failure says so too.
    Refused {
        /// What is wrong, in one line.
        text: String,
        /// First line that it is about, from 1.
        first_line: usize,
        /// Last line that it is about.
        last_line: usize,
    },
    /// Something that was done as asked.
    Note {
        /// What, in one line.
        text: String,
    },
}

/// A warning of the Dockerfile in one line: `UndefinedVar: usage of ... (Dockerfile:3)`.
#[must_use]
pub fn check_text(rule: Option<&str>, text: &str, file: &str, first_line: usize) -> String {
    let rule = rule.map(|rule| format!("{rule}: ")).unwrap_or_default();
    let place = if first_line == 0 { String::new() } else { format!(" ({file}:{first_line})") };
    format!("{rule}{text}{place}")
}

/// The same as the reference's machine-readable forms say it: `UndefinedVar: usage of ... (line 3)`.
#[must_use]
pub fn short_text(rule: Option<&str>, text: &str, first_line: usize) -> String {
    match (rule, first_line) {
        (Some(rule), 1..) => format!("{rule}: {text} (line {first_line})"),
        (Some(rule), 0) => format!("{rule}: {text}"),
        (None, _) => text.to_owned(),
    }
}

/// Hears events. Called from many threads at once.
pub trait Sink: Send + Sync {
    /// Takes one event. Must not block for long and cannot fail.
    fn hear(&self, event: Event);
}

/// An error that may end a step.
pub trait Ending {
    /// Why the step failed, in one line; none where it was stopped.
    fn why(&self) -> Option<String>;
}

impl dyn Sink {
    /// Tells how a step ended.
    pub fn ended<T, E: Ending>(&self, step: StepId, result: &Result<T, E>) {
        self.hear(match result.as_ref().map_err(Ending::why) {
            Ok(_) => Event::Finished { step },
            Err(None) => Event::Stopped { step },
            Err(Some(error)) => Event::Failed { step, error },
        });
    }
}

/// A shared sink.
pub type Events = Arc<dyn Sink>;

/// Hears everything and does nothing with it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Deaf;

impl Sink for Deaf {
    fn hear(&self, _event: Event) {}
}
