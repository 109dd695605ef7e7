//! `serve`: store, router, sockets, and an end that loses nothing.

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use fluyt_registry::admin::Admin;
use fluyt_registry::auth::Authorizer;
use fluyt_registry::http::{App, Ended, router, serve};
use fluyt_registry::service::Registry;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use super::open::{open_storage, surroundings};
use super::{Failure, control};
use crate::settings::Serve;

pub(crate) async fn run(settings: Serve) -> Result<ExitCode, Failure> {
    let (storage, place) = open_storage(&settings.store).await?;
    let registry = Registry::new(storage, surroundings()).with_sparse(settings.sparse.into());
    let registry = Arc::new(registry);
    let _control = control::listen(&settings.store, Admin::new(registry.clone()).commands())?;
    let app = App::new(registry, Authorizer::Everyone);

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
    Ok(match serve(listener, router(app), stop, stop_at_once).await {
        Ended::Finished => ExitCode::SUCCESS,
        Ended::TimedOut => {
            tracing::warn!("some requests did not finish in time and were cut off");
            ExitCode::SUCCESS
        }
        Ended::AtOnce => ExitCode::from(130),
    })
}
