//! The `fluyt-registry` binary: settings, store, router, and an end that loses nothing.

mod settings;

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use fluyt_registry::auth::Authorizer;
use fluyt_registry::http::{App, Ended, router, serve};
use fluyt_registry::service::{Registry, Surroundings};
use fluyt_registry::storage::{Folder, Memory, Storage};
use settings::{Command, CommandLine, Serve, Store};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Why the registry does not run, and whose it is to mend.
enum Failure {
    User(Box<dyn Error>),
    Environment(Box<dyn Error>),
}

fn main() -> ExitCode {
    let command_line = match CommandLine::try_parse() {
        Ok(command_line) => command_line,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
        }
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr).init();

    let Command::Serve(settings) = command_line.command;
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(Failure::Environment(error.into())),
    };
    let ended = match runtime.block_on(run(settings)) {
        Ok(ended) => ended,
        Err(failure) => return failed(failure),
    };
    // What is left of a request must not hold up the end.
    runtime.shutdown_background();
    match ended {
        Ended::Finished => ExitCode::SUCCESS,
        Ended::TimedOut => {
            tracing::warn!("some requests did not finish in time and were cut off");
            ExitCode::SUCCESS
        }
        Ended::AtOnce => ExitCode::from(130),
    }
}

fn failed(failure: Failure) -> ExitCode {
    let (error, code) = match failure {
        Failure::User(error) => (error, 1),
        Failure::Environment(error) => (error, 3),
    };
    let _ = writeln!(std::io::stderr(), "error: {error}");
    ExitCode::from(code)
}

async fn run(settings: Serve) -> Result<Ended, Failure> {
    let (storage, place) = open(&settings).await?;
    let registry = Registry::new(storage, surroundings());
    let app = App { registry: Arc::new(registry), authorizer: Authorizer::Everyone };

    let listener = TcpListener::bind(settings.listen).await.map_err(|error| {
        let hint = match error.kind() {
            std::io::ErrorKind::AddrInUse => ": another program has it, choose another with --listen",
            _ => "",
        };
        Failure::User(format!("cannot listen on {}: {error}{hint}", settings.listen).into())
    })?;
    let address = listener.local_addr().map_err(|error| Failure::Environment(error.into()))?;
    let environment = |error: std::io::Error| Failure::Environment(error.into());
    let mut terminate = signal(SignalKind::terminate()).map_err(environment)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(environment)?;
    let mut terminate_again = signal(SignalKind::terminate()).map_err(environment)?;
    let mut interrupt_again = signal(SignalKind::interrupt()).map_err(environment)?;

    let mut stdout = std::io::stdout();
    // Whoever closed stdout does not want the line.
    let _ = writeln!(stdout, "fluyt-registry listening on http://{address}, storing in {place}");
    let _ = stdout.flush();

    let (stopping, stopped) = tokio::sync::oneshot::channel();
    let stop = async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        tracing::info!("stopping: no new connections, finishing what runs");
        let _ = stopping.send(());
    };
    let stop_at_once = async move {
        // The signal that begins the end is seen here too.
        let _ = stopped.await;
        tokio::select! { _ = terminate_again.recv() => {}, _ = interrupt_again.recv() => {} }
        tokio::select! { _ = terminate_again.recv() => {}, _ = interrupt_again.recv() => {} }
    };
    Ok(serve(listener, router(app), stop, stop_at_once).await)
}

async fn open(settings: &Serve) -> Result<(Storage, String), Failure> {
    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(|error| Failure::Environment(error.into()))?;
    let user = |error: Box<dyn Error>| Failure::User(error);
    match &settings.store {
        Store::Memory => {
            let storage = Storage::open(Memory::default(), random).await.map_err(|error| user(error.into()))?;
            Ok((storage, "memory:".into()))
        }
        Store::Folder(path) => {
            let folder = Folder::open(path, !settings.no_sync).map_err(|error| user(error.into()))?;
            let place = format!("file://{}", folder.root().display());
            let storage = Storage::open(folder, random).await.map_err(|error| user(error.into()))?;
            Ok((storage, place))
        }
    }
}

/// The real clock and the system's randomness.
fn surroundings() -> Surroundings {
    Surroundings {
        now: Arc::new(|| jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
        random: Arc::new(|| {
            let mut bits = [0; 16];
            // Linux has randomness once it has started; without it no name could be trusted to be unique.
            #[expect(clippy::expect_used, reason = "going on would overwrite what others stored")]
            getrandom::fill(&mut bits).expect("the system gives no random bits");
            bits
        }),
    }
}
