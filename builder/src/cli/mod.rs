//! The command line: arguments, settings, one file a command, progress, failures and exit codes.

pub mod args;
mod build;
pub mod buildx;
mod call;
mod destination;
mod doctor;
pub mod failure;
mod form;
mod image;
mod image_file;
mod interrupt;
mod kaniko;
mod login;
mod metadata;
pub mod output;
mod place;
pub mod progress;
mod prune;
pub mod settings;
mod transfer;
mod verify;

use std::ffi::OsString;
use std::io::IsTerminal;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory as _, Parser as _};

use args::{Arguments, Command};
use failure::{Blame, Failure};

use crate::blob::Store;
use crate::sandbox::{self, Wish};

/// Runs the command that the process was started with and gives its exit code.
#[must_use]
pub fn run() -> ExitCode {
    let words = kaniko::own_words(std::env::args_os());
    let arguments = match Arguments::try_parse_from(&words) {
        Ok(arguments) => arguments,
        Err(error) => {
            let error = with_usage(error, words.into_iter());
            // Help and version are data; a wrong line is for people. clap picks the colours and the stream.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { Blame::Usage.exit_code() } else { 0 });
        }
    };
    start_logging(matches!(&arguments.command, Command::Build(build) if build.buildx.debug));
    if arguments.as_another_user.is_some() {
        if let Err(failure) = verify::become_another() {
            output::message(&failure.render());
            return ExitCode::from(failure.blame.exit_code());
        }
    } else if let Some(wish) = wish_of(&arguments.command) {
        // A store that cannot be found is complained of later.
        let mounts = matches!(arguments.command, Command::Verify(_));
        let store = settings::store_folder(arguments.store.as_deref()).ok();
        // So is one that is another user's, in whose namespace users have other numbers.
        if !store.as_deref().is_some_and(Store::is_another_users) {
            sandbox::enter(wish, store.as_deref(), mounts);
        }
    }
    let result = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Blame::Environment, "cannot start threads").caused_by(&error))
        .and_then(|runtime| {
            let result = runtime.block_on(dispatch(arguments));
            // A blocking read that nobody waits for any more must not hold up the exit.
            runtime.shutdown_background();
            result
        });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::message(&failure.render());
            ExitCode::from(failure.blame.exit_code())
        }
    }
}

/// What is missing, with the usage of the command: clap's own line would ask for each flag that the environment gives. And for
/// a flag of kaniko's what stands for it, where clap guesses by its letters.
fn with_usage(mut error: clap::Error, typed: impl Iterator<Item = OsString>) -> clap::Error {
    if !matches!(error.kind(), ErrorKind::MissingRequiredArgument | ErrorKind::UnknownArgument) {
        return error;
    }
    let mut all = Arguments::command();
    all.build();
    let named = typed.skip(1).find(|word| all.find_subcommand(word).is_some());
    if error.kind() == ErrorKind::UnknownArgument {
        let Some(ContextValue::String(flag)) = error.get(ContextKind::InvalidArg) else { return error };
        let builds = named.as_ref().is_none_or(|name| name == "build" || name == "verify");
        let Some(hint) = kaniko::hint(flag).filter(|_| builds) else { return error };
        error.remove(ContextKind::SuggestedArg);
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![hint.into()]));
    }
    if let Some(command) = named.and_then(|name| all.find_subcommand_mut(name)) {
        error.insert(ContextKind::Usage, ContextValue::StyledStr(command.render_usage()));
    }
    error
}

/// How commands are to run; none for a command that meets no files of other users.
fn wish_of(command: &Command) -> Option<Wish> {
    let of = |build: &args::BuildArguments| Wish {
        only: build.isolation.and_then(|wanted| wanted.0),
        least: build.isolation_min.and_then(|wanted| wanted.0),
    };
    match command {
        Command::Build(build) => Some(of(build)),
        Command::Verify(verify) => Some(of(&verify.build)),
        // It tells what a build would meet.
        Command::Doctor(doctor) => Some(Wish {
            only: doctor.isolation.and_then(|wanted| wanted.0),
            least: doctor.isolation_min.and_then(|wanted| wanted.0),
        }),
        // What they remove may be of many ids; and all of them remove what a killed build has left.
        Command::Prune(_) | Command::Cache(_) | Command::Rmi(_) | Command::Pull(_) => Some(Wish::default()),
        Command::Push(_)
        | Command::Inspect(_)
        | Command::Images(_)
        | Command::Tag(_)
        | Command::Login(_)
        | Command::Logout(_)
        | Command::Version(_)
        | Command::Completion(_)
        | Command::Man => None,
    }
}

async fn dispatch(arguments: Arguments) -> Result<(), Failure> {
    let store = arguments.store.as_deref();
    match arguments.command {
        Command::Build(typed) => build::run(store, *typed).await,
        Command::Verify(typed) => verify::run(store, *typed, arguments.as_another_user.as_deref()).await,
        Command::Push(typed) => transfer::push(store, typed).await,
        Command::Pull(typed) => transfer::pull(store, typed).await,
        Command::Inspect(typed) => image::inspect(store, typed).await,
        Command::Images(typed) => image::list(store, &typed),
        Command::Tag(typed) => image::tag(store, &typed),
        Command::Rmi(typed) => image::untag(store, &typed),
        Command::Prune(typed) => prune::run(store, &typed).await,
        Command::Cache(typed) => prune::cache(store, &typed).await,
        Command::Doctor(typed) => doctor::run(store, &typed),
        Command::Login(typed) => login::login(typed).await,
        Command::Logout(typed) => login::logout(&typed),
        Command::Version(typed) => version(typed.json),
        Command::Completion(typed) => {
            let mut script = Vec::new();
            clap_complete::generate(typed.shell, &mut Arguments::command(), "fluyt", &mut script);
            print(&script)
        }
        Command::Man => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Arguments::command())
                .render(&mut page)
                .map_err(|error| Failure::new(Blame::Environment, "cannot write the manual page").caused_by(&error))?;
            print(&page)
        }
    }
}

fn version(json: bool) -> Result<(), Failure> {
    let version = env!("CARGO_PKG_VERSION");
    let text = match json {
        true => {
            serde_json::json!({"version": version, "os": "linux", "architecture": std::env::consts::ARCH}).to_string()
        }
        false => format!("fluyt {version}"),
    };
    print(format!("{text}\n").as_bytes())
}

/// Data for standard output.
fn print(bytes: &[u8]) -> Result<(), Failure> {
    output::data(bytes)
        .map_err(|error| Failure::new(Blame::Environment, "cannot write to standard output").caused_by(&error))
}

/// What libraries and our own rooms trace goes to standard error, and only when `FLUYT_LOG` or `--debug` asks for it.
fn start_logging(debug: bool) {
    let said = tracing_subscriber::EnvFilter::try_from_env("FLUYT_LOG").ok();
    let Some(filter) = said.or_else(|| debug.then(|| tracing_subscriber::EnvFilter::new("debug"))) else { return };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}
