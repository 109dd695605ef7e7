//! What can be wrong with a sandbox itself; a command that fails is an [`Exit`](super::Exit), not an error.

use std::io;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// Why a RUN could not be started, or its result is not known.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SandboxError {
    /// The specification cannot be run as it is.
    #[error("the step cannot be run: {reason}")]
    Specification {
        /// What is wrong in it.
        reason: String,
    },
    /// The builder could not start, feed or watch the stage.
    #[error("the sandbox could not be started: {during} failed")]
    Start {
        /// What was being done.
        during: &'static str,
        /// The system's words.
        #[source]
        source: io::Error,
    },
    /// The kernel refused a part of the sandbox.
    #[error("the sandbox could not be set up: {0}")]
    Setup(Failure),
    /// The stage ended without saying how the command ended.
    #[error(
        "the sandbox's stage ended ({status}) without a result; it may have been killed from outside, for example for want of memory"
    )]
    Lost {
        /// How the stage ended.
        status: String,
    },
}

/// One refused operation inside the stage.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Failure {
    /// What was being done, and on what.
    pub what: String,
    /// The system's error number; 0 when the refusal is our own.
    pub errno: i32,
    /// What the kernel logged about it, if anything.
    pub log: String,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.what)?;
        if self.errno != 0 {
            write!(f, ": {}", io::Error::from_raw_os_error(self.errno))?;
        }
        if !self.log.is_empty() {
            write!(f, "; the kernel says: {}", self.log)?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

impl Failure {
    /// A refusal of our own.
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), errno: 0, log: String::new() }
    }
}

/// Names what was being done when the system refused it.
pub(super) trait During<T> {
    fn during(self, what: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T> During<T> for Result<T, Errno> {
    fn during(self, what: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|errno| Failure { what: what(), errno: errno.raw_os_error(), log: String::new() })
    }
}

impl<T> During<T> for io::Result<T> {
    fn during(self, what: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|error| match error.raw_os_error() {
            Some(errno) => Failure { what: what(), errno, log: String::new() },
            None => Failure::new(format!("{}: {error}", what())),
        })
    }
}
