//! One file for each subcommand. A command takes its settings, prints what it found, and says its exit code.

mod adopt;
mod control;
mod delete_repository;
mod history;
mod open;
mod order;
mod print;
mod serve;

use std::error::Error;
use std::fmt;
use std::process::ExitCode;

use fluyt_registry::admin::{AdminError, Mend, Refusal};

use crate::settings::Command;

/// Why a command could not be done, and whose it is to mend.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Whoever called it can mend it: exit code 1.
    User(Box<dyn Error>),
    /// Ours or the environment's: exit code 3.
    Environment(Box<dyn Error>),
}

impl Failure {
    /// The exit code that says so.
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::User(_) => ExitCode::from(1),
            Self::Environment(_) => ExitCode::from(3),
        }
    }
}

impl From<AdminError> for Failure {
    fn from(error: AdminError) -> Self {
        Refusal::from(error).into()
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        match refusal.mend {
            Mend::User => Self::User(refusal.into()),
            Mend::Environment => Self::Environment(refusal.into()),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(error) | Self::Environment(error) => error.fmt(f),
        }
    }
}

/// Runs a command to its end.
pub(crate) fn run(command: Command) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Environment(error.into()))?;
    let result = runtime.block_on(async {
        match command {
            Command::Serve(settings) => serve::run(settings).await,
            Command::Adopt(settings) => adopt::run(settings).await,
            Command::History(settings) => history::run(settings).await,
            Command::DeleteRepository(settings) => delete_repository::run(settings).await,
        }
    });
    // What is left of a request must not hold up the end.
    runtime.shutdown_background();
    result
}
