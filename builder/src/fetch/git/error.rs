//! Why a git repository was not fetched.

use std::io;
use std::path::PathBuf;

use super::AddressError;
use crate::stop::Stopped;

/// Why a git repository was not fetched.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// The address cannot be read.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// There is no git.
    #[error("git cannot be run: it is needed to fetch repositories")]
    NoProgram {
        /// What the system said.
        source: io::Error,
    },
    /// Git failed.
    #[error("`git {what}` failed: {said}")]
    Failed {
        /// Its command.
        what: String,
        /// What it said.
        said: String,
    },
    /// Git found the disk full.
    #[error("`git {what}` found the disk full: {said}")]
    DiskFull {
        /// Its command.
        what: String,
        /// What it said.
        said: String,
        /// The same, as the system says it.
        source: io::Error,
    },
    /// The repository has no such branch, tag or commit.
    #[error("the repository has no branch, tag or commit `{reference}`{}", nearest.as_ref().map_or_else(String::new, |near| format!("; did you mean `{near}`?")))]
    NoReference {
        /// What was asked for.
        reference: String,
        /// The closest that there is.
        nearest: Option<String>,
    },
    /// The commit is another one.
    #[error("`{reference}` is the commit {found}, and {expected} was expected")]
    Commit {
        /// What was asked for.
        reference: String,
        /// What it must be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// The repository has no such folder.
    #[error("the repository has no folder `{folder}` at {commit}")]
    NoFolder {
        /// What was asked for.
        folder: String,
        /// The commit.
        commit: String,
    },
    /// A Dockerfile may not use the user's keys unless the user says so.
    #[error("the repository is reached by ssh, and the build was given no agent")]
    NoAgent,
    /// Nor may what a Dockerfile's repository names.
    #[error("its submodule {submodule} is reached by ssh ({address}), and the build was given no agent")]
    NoAgentForSubmodule {
        /// Its folder in the repository.
        submodule: String,
        /// Where it comes from.
        address: String,
    },
    /// A file of the check-out cannot be read.
    #[error("cannot read the check-out at {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The build was stopped.
    #[error("interrupted")]
    Stopped,
}

impl From<Stopped> for GitError {
    fn from(_: Stopped) -> Self {
        Self::Stopped
    }
}

/// What git says when it could not reach a server, rather than was refused by one.
const UNREACHABLE: [&str; 15] = [
    "could not resolve",
    "couldn't resolve",
    "failed to connect",
    "couldn't connect",
    "could not connect",
    "unable to connect to",
    "unable to look up",
    "connection refused",
    "connection timed out",
    "connection reset",
    "timed out",
    "network is unreachable",
    "no route to host",
    "the requested url returned error: 5",
    "temporary failure",
];

impl GitError {
    /// Whether the repository could not be asked, so that a copy is the best there is.
    pub(crate) fn is_unreachable(&self) -> bool {
        let Self::Failed { said, .. } = self else { return false };
        let said = said.to_lowercase();
        UNREACHABLE.iter().any(|words| said.contains(words))
    }

    /// Whether git failed for a reason that is none of its server's: another way to ask would fail as well.
    pub(super) fn is_ours(&self) -> bool {
        matches!(self, Self::Stopped | Self::DiskFull { .. } | Self::NoAgentForSubmodule { .. })
    }

    /// Whether the user can mend it.
    pub(crate) fn is_the_users(&self) -> bool {
        match self {
            Self::Failed { .. } => !self.is_unreachable(),
            Self::Read { .. } | Self::DiskFull { .. } | Self::Stopped => false,
            _ => true,
        }
    }
}
