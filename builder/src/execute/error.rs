//! What can go wrong in a step.

use std::io;
use std::path::PathBuf;

use super::machine::Lacks;
use super::owner::OwnerError;
use super::placing::PlacingError;
use super::select::SelectError;
use crate::blob::StoreError;
use crate::cache_mount::CacheMountError;
use crate::context::{ContextError, IgnoreError, PlacementError};
use crate::event::{Ending, size};
use crate::graph::About;
use crate::layer::{ApplyError, ArchiveError, ChangesError, LayerError, LayerPath, TreeError};
use crate::remote::RemoteError;
use crate::sandbox::{Refused, Rung, SandboxError};
use crate::snapshot::SnapshotError;
use crate::stop::Stopped;

/// Why a graph was not run to its end.
#[derive(Debug, thiserror::Error)]
pub enum ExecuteError {
    /// The user stopped the build.
    #[error("interrupted")]
    Cancelled,
    /// Steps failed, in this order.
    #[error("{}", failures.iter().map(|failure| format!("step `{}` failed", failure.about.instruction)).collect::<Vec<_>>().join("; "))]
    Steps {
        /// At least one.
        failures: Vec<StepFailure>,
    },
}

/// A step that failed.
#[derive(Debug)]
pub struct StepFailure {
    /// Which one.
    pub about: Box<About>,
    /// Why.
    pub source: Box<StepError>,
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The user stopped the build.
    #[error("interrupted")]
    Cancelled,
    /// A fault of this program: what the graph names was not brought.
    #[error("{what} was not made ready before the step; this is a fault of this program")]
    NotFetched {
        /// What.
        what: String,
    },
    /// The command ended with another status than 0.
    #[error("the command exited with status {status}{}", status_meaning(*.status))]
    ExitStatus {
        /// The status.
        status: u8,
        /// Whether the command could not have the capability NET_RAW, on the host's network.
        without_raw: bool,
    },
    /// The image lacks the program that runs the command.
    #[error("the image has no {program}")]
    NoProgram {
        /// Its path.
        program: String,
    },
    /// A signal ended the command.
    #[error("the command was ended by signal {signal}{}", if *.out_of_memory { ": out of memory" } else { signal_meaning(*.signal) })]
    Signal {
        /// The signal's number.
        signal: i32,
        /// Whether the kernel ended it for want of memory.
        out_of_memory: bool,
    },
    /// A command failed, and the disk was full. The step is tried again; nobody outside sees this.
    #[error("the disk was full when the command ended")]
    FoundDiskFull {
        /// How it ended.
        source: Box<StepError>,
    },
    /// The disk is full, also after what could be pruned was.
    #[error(
        "{limit} the store {} is full: the step needs more than the {} that were free when it began{}, and {} are free now",
        store.display(), size(*.had_bytes), pruned(*.pruned_bytes), size(*.free_bytes)
    )]
    DiskFull {
        /// The store.
        store: PathBuf,
        /// What is used up, as the message begins.
        limit: &'static str,
        /// What was free when the step began for the last time.
        had_bytes: u64,
        /// What of that is from pruning.
        pruned_bytes: u64,
        /// What is free without the step's own files.
        free_bytes: u64,
        /// What failed for want of room.
        source: Box<StepError>,
    },
    /// RUN is impossible here.
    #[error("RUN is not possible here: {}", reason(refused))]
    NoSandbox {
        /// Each way to run a command, and what stands in its way.
        refused: Vec<Refused>,
    },
    /// A command of another user than root, where one is only played.
    #[error("the command is to run as `{user}`, and here ({rung}, {}) no user but root is kept from anything", rung.title())]
    RecordedUser {
        /// The user.
        user: String,
        /// How commands run.
        rung: Rung,
    },
    /// The sandbox could not be set up.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// The root file system could not be made or kept.
    #[error(transparent)]
    Snapshot(SnapshotError),
    /// What a command left could not be read.
    #[error(transparent)]
    Changes(#[from] ChangesError),
    /// What `--normalize` mends could not be mended.
    #[error("mending {path}, which the command left; without `--normalize` it stays as it is")]
    Normalize {
        /// The file.
        path: LayerPath,
        /// The system's words.
        source: io::Error,
    },
    /// A layer could not be unpacked.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The context has no such source.
    #[error(transparent)]
    Context(#[from] ContextError),
    /// A rule of `--exclude` is malformed.
    #[error(transparent)]
    Exclude(#[from] IgnoreError),
    /// A stage or image has no such source.
    #[error(transparent)]
    Select(#[from] SelectError),
    /// The sources do not fit the destination.
    #[error(transparent)]
    Placement(#[from] PlacementError),
    /// An entry cannot stand where it should.
    #[error(transparent)]
    Placing(#[from] PlacingError),
    /// An unknown user or group.
    #[error(transparent)]
    Owner(#[from] OwnerError),
    /// Links in a root file system lead nowhere.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// A layer could not be written or read.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A registry failed.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// A file could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A temporary file could not be written.
    #[error("cannot write a temporary file at {}", path.display())]
    Temporary {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An archive that `ADD` should unpack is damaged.
    #[error("cannot unpack the archive `{name}`")]
    Archive {
        /// The source's name.
        name: String,
        /// Why.
        source: Box<ArchiveError>,
    },
    /// A layer of an image holds no such file although its index says so.
    #[error(
        "layer {diff_id} has no file {path}, which its index names; remove the store's `indexes` folder and build again"
    )]
    IndexMismatch {
        /// The layer.
        diff_id: String,
        /// The file.
        path: String,
    },
    /// The times of a layer's files are gone, which its blob does not have.
    #[error(
        "the index of layer {diff_id} is gone or damaged, which alone had the times of its files; run the build again"
    )]
    NoTimes {
        /// The layer.
        diff_id: String,
    },
    /// A layer does not unpack to what the image's configuration says.
    #[error("layer {digest} unpacks to {found}, and the image's configuration says {expected}")]
    DiffId {
        /// The blob.
        digest: String,
        /// What the configuration says.
        expected: String,
        /// What it is.
        found: String,
    },
    /// A cache mount could not be had or kept.
    #[error(transparent)]
    CacheMount(#[from] CacheMountError),
    /// A cache mount should start with a file.
    #[error("a cache mount is a folder, and its source /{path} is none")]
    CacheFromFile {
        /// The source.
        path: String,
    },
    /// A secret that the command needs was not given.
    #[error("the command needs the secret `{id}`, and the build was given none of that name")]
    NoSecret {
        /// Which.
        id: String,
    },
    /// A secret that the command needs is that of a variable that is not set.
    #[error("the command needs the secret `{id}`, and the variable {variable} that it is in is not set")]
    SecretUnset {
        /// Which.
        id: String,
        /// The variable.
        variable: String,
    },
    /// An agent that the command needs was not given.
    #[error("the command needs the agent `{id}`, and the build was given none of that name")]
    NoAgent {
        /// Which.
        id: String,
    },
    /// An agent that does not answer.
    #[error("cannot connect to the agent at {}", path.display())]
    Agent {
        /// Its socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A secret for a variable that is no text.
    #[error("the secret `{id}` is to be a variable, and is not UTF-8 text")]
    SecretNotText {
        /// Which.
        id: String,
    },
    /// A secret that is too large.
    #[error("the secret `{id}` is larger than the {limit_bytes} bytes that a secret may have")]
    SecretTooLarge {
        /// Which.
        id: String,
        /// The most, in bytes.
        limit_bytes: u64,
    },
    /// The base image's platform is not what RUN can run here.
    #[error("this machine runs {machine}, and the step needs {wanted}{lacks}")]
    Platform {
        /// What the machine runs.
        machine: String,
        /// What the step is for.
        wanted: String,
        /// What is missing for that.
        lacks: Lacks,
    },
}

impl From<Stopped> for StepError {
    fn from(_: Stopped) -> Self {
        Self::Cancelled
    }
}

impl From<SnapshotError> for StepError {
    fn from(error: SnapshotError) -> Self {
        match error {
            SnapshotError::Cancelled => Self::Cancelled,
            error => Self::Snapshot(error),
        }
    }
}

impl Ending for StepError {
    fn why(&self) -> Option<String> {
        if matches!(self, Self::Cancelled) { None } else { Some(self.to_string()) }
    }
}

impl StepError {
    /// Whether it is what a command ended with, which says more than that the build was stopped meanwhile.
    pub(super) fn is_of_the_command(&self) -> bool {
        matches!(self, Self::ExitStatus { .. } | Self::Signal { .. } | Self::NoProgram { .. })
    }
}

fn pruned(bytes: u64) -> String {
    match bytes {
        0 => " (nothing could be pruned)".to_owned(),
        bytes => format!(" ({} of them by pruning)", size(bytes)),
    }
}

/// What the shell's conventions say about a status.
fn status_meaning(status: u8) -> &'static str {
    match status {
        126 => " (found, but it cannot be executed)",
        127 => " (not found)",
        137 => " (killed)",
        139 => " (crashed)",
        _ => "",
    }
}

/// Why no command runs here, in a line: what stands in the way of the best rung that may be taken.
fn reason(refused: &[Refused]) -> String {
    let possible = refused.iter().filter(|refused| refused.rung != Rung::Nothing);
    let first = possible.clone().find(|refused| !refused.is_wish()).or_else(|| possible.clone().next());
    first.map_or_else(String::new, |refused| refused.reason.clone())
}

/// What would let commands run here, one line for each way that the user left open; the shortest to a better rung first.
#[must_use]
pub fn ways_to_run(refused: &[Refused]) -> Vec<String> {
    let mut ways: Vec<String> = Vec::new();
    let mut said: Vec<&str> = Vec::new();
    for refused in refused.iter().filter(|refused| refused.rung != Rung::Nothing && !refused.is_wish()) {
        let Refused { rung, reason, fix } = refused;
        // What helps one rung most often helps the next.
        if !said.contains(&&**fix) {
            said.push(fix);
            ways.push(format!("to run commands on {rung} ({}): {fix}; now, {reason}", rung.title()));
        }
    }
    let wishes = refused.iter().filter(|refused| refused.is_wish()).map(|refused| &*refused.fix);
    let mut wishes: Vec<&str> = wishes.collect();
    wishes.dedup();
    ways.extend(wishes.into_iter().map(|fix| format!("to let another way be taken: {fix}")));
    ways.push("`fluyt doctor` tells all about it; all but RUN builds here as it is".to_owned());
    ways
}

/// What a signal says, where a user may not know its number.
fn signal_meaning(signal: i32) -> &'static str {
    match signal {
        libc::SIGILL => " (illegal instruction)",
        libc::SIGTRAP => " (trap)",
        libc::SIGABRT => " (aborted)",
        libc::SIGBUS => " (bus error)",
        libc::SIGFPE => " (arithmetic error)",
        libc::SIGKILL => " (killed)",
        libc::SIGSEGV => " (segmentation fault)",
        libc::SIGPIPE => " (broken pipe)",
        libc::SIGTERM => " (terminated)",
        libc::SIGXCPU => " (limit of processor time)",
        libc::SIGXFSZ => " (limit of file size)",
        libc::SIGSYS => " (system call that is not allowed)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::{Isolation, Wish};

    #[test]
    fn a_signal_is_told_by_what_it_says() {
        let told = |signal, out_of_memory| StepError::Signal { signal, out_of_memory }.to_string();
        assert_eq!(told(11, false), "the command was ended by signal 11 (segmentation fault)");
        assert_eq!(told(9, true), "the command was ended by signal 9: out of memory");
        assert_eq!(told(34, false), "the command was ended by signal 34");
    }

    #[test]
    fn no_sandbox_tells_each_way_once_and_wishes_last() {
        let refused = |rung, reason: &str, fix: &str| Refused { rung, reason: reason.to_owned(), fix: fix.to_owned() };
        let all = [
            refused(Rung::Root, "this is user 1000", "run as root"),
            refused(Rung::Rootless, "no subordinate ids", "add them"),
            refused(Rung::Chroot, "this is user 1000", "run as root"),
        ];
        assert_eq!(reason(&all), "this is user 1000");
        let ways = ways_to_run(&all);
        assert_eq!(ways.len(), 3);
        assert!(
            ways[0].ends_with("run as root; now, this is user 1000") && ways[1].starts_with("to run commands on r2")
        );
        let wish = Wish { only: Some(Rung::Nothing), least: None };
        let refused = Isolation::new(wish).choice().refused.clone();
        assert_eq!(reason(&refused), "`--isolation r5` was asked for");
        assert_eq!(ways_to_run(&refused)[0], "to let another way be taken: leave `--isolation` out");
    }
}
