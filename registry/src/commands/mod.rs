//! One file for each subcommand. A command takes its settings, prints what it found, and says its exit code.

mod access;
mod adopt;
mod check_store;
mod control;
mod delete_repository;
mod explain;
mod fsck;
mod gc;
mod harbor;
mod history;
mod open;
mod order;
mod print;
mod reload;
mod serve;
mod undo;

use std::error::Error;
use std::fmt;
use std::io::Write;
use std::process::ExitCode;

use clap::CommandFactory;
use fluyt_registry::admin::{AdminError, Mend, Refusal};
use fluyt_registry::storage::{FolderError, LayoutError, StorageErrorKind};

use crate::settings::{Command, CommandLine};

/// Why a command could not be done, and whose it is to mend.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Whoever called it can mend it: exit code 1.
    User(Box<dyn Error>),
    /// The command line lacks something: exit code 2.
    Usage(Box<dyn Error>),
    /// Ours or the environment's: exit code 3.
    Environment(Box<dyn Error>),
}

impl Failure {
    /// The exit code that says so.
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::User(_) => ExitCode::from(1),
            Self::Usage(_) => ExitCode::from(2),
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

/// A folder that may not be used, or is something else, was named by whoever called; a disk that is full or broken was not.
impl From<FolderError> for Failure {
    fn from(error: FolderError) -> Self {
        match error.is_about_the_path() {
            true => Self::User(error.into()),
            false => Self::Environment(error.into()),
        }
    }
}

/// Likewise. A store elsewhere that does not answer was most likely given a wrong address.
impl From<LayoutError> for Failure {
    fn from(error: LayoutError) -> Self {
        match &error {
            LayoutError::Storage(cause) if cause.kind() == StorageErrorKind::Full => Self::Environment(error.into()),
            _ => Self::User(error.into()),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(error) | Self::Usage(error) | Self::Environment(error) => error.fmt(f),
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
            Command::Serve(settings) => serve::run(*settings).await,
            Command::Version { json } => data(&version(json)),
            Command::Completion { shell } => {
                let mut script = Vec::new();
                clap_complete::generate(shell, &mut CommandLine::command(), "fluyt-registry", &mut script);
                data(&script)
            }
            Command::Man => {
                let mut page = Vec::new();
                clap_mangen::Man::new(CommandLine::command())
                    .render(&mut page)
                    .map_err(|error| Failure::Environment(error.into()))?;
                data(&page)
            }
            Command::Adopt(settings) => adopt::run(settings).await,
            Command::CheckStore(settings) => check_store::run(settings).await,
            Command::Gc(settings) => gc::run(settings).await,
            Command::History(settings) => history::run(settings).await,
            Command::Undo(settings) => undo::run(settings).await,
            Command::Fsck(settings) => fsck::run(settings).await,
            Command::Explain(settings) => explain::run(settings).await,
            Command::DeleteRepository(settings) => delete_repository::run(settings).await,
        }
    });
    // What is left of a request must not hold up the end.
    runtime.shutdown_background();
    result
}

fn version(json: bool) -> Vec<u8> {
    let version = env!("CARGO_PKG_VERSION");
    let text = match json {
        true => {
            serde_json::json!({"version": version, "os": "linux", "architecture": std::env::consts::ARCH}).to_string()
        }
        false => format!("fluyt-registry {version}"),
    };
    format!("{text}\n").into_bytes()
}

/// Data for standard output. Whoever closed it does not want it.
fn data(bytes: &[u8]) -> Result<ExitCode, Failure> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::Environment(error.into())),
        _ => Ok(ExitCode::SUCCESS),
    }
}
