//! `serve`: store, router, sockets, and an end that loses nothing.

use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use fluyt_registry::admin::{Admin, Collecting};
use fluyt_registry::collect::Rhythm;
use fluyt_registry::http::{App, AppSettings, Ended, ROOMY_CONNECTIONS, ServeSettings, router, serve, watch_router};
use fluyt_registry::metrics::Metrics;
use fluyt_registry::service::Registry;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use super::access::{authorizer, tls};
use super::gc::collector;
use super::open::{open_storage, surroundings};
use super::{Failure, control};
use crate::settings::Serve;

pub(crate) async fn run(mut settings: Serve) -> Result<ExitCode, Failure> {
    settings.store.reach.redirect_endpoint = settings.redirects.redirect_endpoint.clone();
    let access = settings.access;
    let metrics = Arc::new(Metrics::new());
    let tls = tls(&access)?;
    let (storage, place) = open_storage(&settings.store).await?;
    let on_folder = place.to_string().starts_with("file:");
    let storage = storage
        .counting(metrics.store_requests.clone())
        .with_older_answers(std::time::Duration::from_secs(settings.cache_seconds));
    let authorizer = authorizer(&access, &storage)?;
    let access_is_open = access.htpasswd.is_none();
    let registry = Registry::new(storage, surroundings())
        .with_sparse(settings.sparse.into())
        .with_immutable_tags(settings.immutable_tags)
        .with_redirects((&settings.redirects).into())
        .with_processors(std::thread::available_parallelism().map_or(1, std::num::NonZero::get));
    let registry = Arc::new(registry);
    if let Some(shortage) = registry.storage().shortage() {
        tracing::warn!("pushes are refused: {shortage}");
    }
    let collector = Arc::new(collector(registry.storage().clone(), settings.retention.into(), metrics.clone()));
    let commands = Admin::new(registry.clone()).commands().with(Collecting(collector.clone()));
    let _control = control::listen(&settings.store, commands)?;
    let app = App::new(registry, authorizer).with_metrics(metrics.clone()).with_settings(AppSettings {
        trusted_proxies: access.trusted_proxy,
        public_url: access.public_url,
        requests_per_second: access.requests_per_second,
        no_delete: settings.no_delete,
    });
    if settings.no_collect {
        tracing::info!("collection is off, as --no-collect says");
    } else {
        tokio::spawn(collector.background(Rhythm::default()));
    }

    let (listener, address) = listen(settings.listen, "--listen").await?;
    if access_is_open && !address.ip().is_loopback() {
        tracing::warn!("whoever reaches {address} may pull, push and delete: --htpasswd lets in users alone");
    }
    let watch_listener = match access.metrics_listen {
        Some(address) => Some(listen(address, "--metrics-listen").await?.0),
        None => None,
    };
    let environment = |error: std::io::Error| Failure::Environment(error.into());
    let mut terminate = signal(SignalKind::terminate()).map_err(environment)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(environment)?;
    let mut terminate_again = signal(SignalKind::terminate()).map_err(environment)?;
    let mut interrupt_again = signal(SignalKind::interrupt()).map_err(environment)?;

    let scheme = if tls.is_some() { "https" } else { "http" };
    let mut stdout = std::io::stdout();
    // Whoever closed stdout does not want the line.
    let _ = writeln!(stdout, "fluyt-registry listening on {scheme}://{address}, storing in {place}");
    let _ = stdout.flush();

    let serve_settings = ServeSettings {
        tls,
        connections_max: connections_max(access.max_connections.get()),
        roomy_connections: if on_folder { ROOMY_CONNECTIONS } else { 0 },
        drain: std::time::Duration::from_secs(settings.drain_seconds),
        metrics,
    };
    if let Some(listener) = watch_listener {
        let settings = ServeSettings { tls: None, connections_max: WATCHERS_MAX, ..serve_settings.clone() };
        // It ends with the process: whoever watches wants to see the end too.
        tokio::spawn(serve(
            listener,
            watch_router(app.clone()),
            settings,
            std::future::pending(),
            std::future::pending(),
        ));
    }
    let (stopping, stopped) = tokio::sync::oneshot::channel();
    let stopping_app = app.clone();
    let stop = async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        tracing::info!("stopping: no new connections, finishing what runs");
        stopping_app.stop();
        let _ = stopping.send(());
    };
    let stop_at_once = async move {
        // The signal that begins the end is seen here too.
        let _ = stopped.await;
        tokio::select! { _ = terminate_again.recv() => {}, _ = interrupt_again.recv() => {} }
        tokio::select! { _ = terminate_again.recv() => {}, _ = interrupt_again.recv() => {} }
    };
    Ok(match serve(listener, router(app), serve_settings, stop, stop_at_once).await {
        Ended::Finished => ExitCode::SUCCESS,
        Ended::TimedOut => {
            tracing::warn!("some requests did not finish in time and were cut off");
            ExitCode::SUCCESS
        }
        Ended::AtOnce => ExitCode::from(130),
    })
}

/// Most connections of those that watch.
const WATCHERS_MAX: usize = 64;

async fn listen(address: SocketAddr, flag: &str) -> Result<(TcpListener, SocketAddr), Failure> {
    let listener = TcpListener::bind(address).await.map_err(|error| {
        let hint = match error.kind() {
            std::io::ErrorKind::AddrInUse => format!(": another program has it, choose another with {flag}"),
            _ => String::new(),
        };
        Failure::User(format!("cannot listen on {address}: {error}{hint}").into())
    })?;
    let address = listener.local_addr().map_err(|error| Failure::Environment(error.into()))?;
    Ok((listener, address))
}

/// As many connections as asked for, or as the system has files for: a request needs another one.
fn connections_max(wanted: u32) -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // What the system allows has to be asked for: shells give a program far less.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let most = usize::try_from(files / 2).unwrap_or(usize::MAX).max(1);
    let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
    if wanted > most {
        tracing::info!(
            connections = most,
            files,
            "fewer connections than asked for: the limit of open files is too low"
        );
    }
    wanted.min(most)
}
