//! The distribution API over HTTP: a request's path and method -> one operation of the service -> a reply.
//!
//! There are no routes: names hold slashes, so `Endpoint::parse` reads the path from its tail and one table below says
//! which handler it is for. Handlers ask the authorizer for a proof, call the service, and shape the reply.

mod access_log;
mod blobs;
mod client;
mod idle;
mod limit;
mod login;
mod manifests;
mod names;
mod patient;
mod query;
mod rejection;
mod reply;
mod rest;
mod serve;
mod tls;
mod uploads;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, Method, StatusCode, header};
use tracing::Instrument;

pub use client::{Network, Peer};
pub use serve::{Ended, ROOMY_CONNECTIONS, ServeSettings, serve};
pub use tls::{Tls, TlsError};

use crate::auth::{AuthError, Authorizer, Caller, Denied, MayDelete, MayList, MayPull, MayPush};
use crate::metrics::{LoginLabels, Metrics};
use crate::service::{Registry, RegistryError};
use crate::spec::{Endpoint, EndpointError, NameError, RepoName};
use access_log::Record;
use client::Client;
use limit::{Limiter, Whose};
use query::Query;
use rejection::Rejection;

/// Everything that a request needs.
#[derive(Clone, Debug)]
pub struct App {
    /// The operations.
    pub registry: Arc<Registry>,
    /// Who may do them.
    pub authorizer: Authorizer,
    /// What is counted meanwhile.
    pub metrics: Arc<Metrics>,
    settings: Arc<AppSettings>,
    limiter: Option<Arc<Limiter>>,
    stopping: Arc<AtomicBool>,
}

/// How to see clients and what to allow them.
#[derive(Clone, Debug, Default)]
pub struct AppSettings {
    /// Proxies whose word counts about who the client is and what it asked for.
    pub trusted_proxies: Vec<Network>,
    /// The address under which clients know the registry, where their requests do not say it.
    pub public_url: Option<String>,
    /// Requests a second of one user, or of one address; `None`: as many as they like.
    pub requests_per_second: Option<NonZeroU32>,
    /// Whether DELETE of manifests, tags and blobs is taken from nobody.
    pub no_delete: bool,
}

impl App {
    /// An app that counts for itself alone.
    pub fn new(registry: Arc<Registry>, authorizer: Authorizer) -> Self {
        let (metrics, settings, stopping) = Default::default();
        Self { registry, authorizer, metrics, settings, limiter: None, stopping }
    }

    /// The same, with other settings.
    #[must_use]
    pub fn with_settings(mut self, settings: AppSettings) -> Self {
        self.limiter = settings.requests_per_second.map(|rate| Arc::new(Limiter::new(rate)));
        self.settings = Arc::new(settings);
        self
    }

    /// From now on it is not ready: no more requests are to be sent here.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    async fn ready(&self) -> Result<Response, RegistryError> {
        if self.stopping.load(Ordering::Relaxed) {
            return Err(RegistryError::Stopping);
        }
        self.registry.ready().await?;
        Ok(reply::text("ready\n"))
    }

    /// The same, counting here.
    #[must_use]
    pub fn with_metrics(mut self, metrics: Arc<Metrics>) -> Self {
        self.metrics = metrics;
        self
    }
}

/// The whole service, without a socket.
pub fn router(app: App) -> Router {
    Router::new().fallback(answer).with_state(app)
}

/// What of a request a handler may look at; the body comes beside it.
struct Asked {
    app: App,
    caller: Caller,
    client: Client,
    query: Query,
    headers: HeaderMap,
}

impl Asked {
    fn header(&self, name: impl header::AsHeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    fn may_pull(&self, repo: &RepoName) -> Result<MayPull, Denied> {
        self.app.authorizer.pull(&self.caller, repo)
    }

    fn may_push(&self, repo: &RepoName) -> Result<MayPush, Denied> {
        self.app.authorizer.push(&self.caller, repo)
    }

    fn may_delete(&self, repo: &RepoName) -> Result<MayDelete, Denied> {
        self.app.authorizer.delete(&self.caller, repo)
    }

    fn may_list(&self) -> Result<MayList, Denied> {
        self.app.authorizer.list(&self.caller)
    }
}

async fn answer(State(app): State<App>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let path = head.uri.path();
    let client = Client::of(&head, &app.settings.trusted_proxies);
    let parsed = Endpoint::parse(path);
    let mut record = Record::begin(app.metrics.clone(), &head, client.clone(), parsed.as_ref().ok().cloned());
    let span = tracing::error_span!("request", id = record.id().to_str().unwrap_or_default());
    let body = record.receiving(rest::drained(body));
    let query = Query::parse(head.uri.query().unwrap_or_default());
    let mut asked = Asked { app, caller: Caller::anonymous(), client, query, headers: head.headers };
    let challenged = parsed.as_ref().ok().cloned();
    let result = async {
        match path {
            "/healthz" => return Ok(reply::text("alive\n")),
            "/readyz" => return asked.app.ready().await,
            "/" => return Ok(reply::text(FRONT)),
            _ => {}
        }
        admit(&mut asked).await?;
        record.user = asked.caller.name().map(str::to_owned);
        match (path, &head.method) {
            (path, &Method::GET) if login::is_token_path(path) => login::token(&asked).await,
            (path, method) if login::is_token_path(path) && asked.app.authorizer.scheme().is_some() => {
                not_allowed(method, "GET")
            }
            ("/metrics", _) => metrics(&asked),
            (_, method) => respond(&asked, method, parsed, body).await,
        }
    }
    .instrument(span.clone())
    .await;
    let mut response = span.in_scope(|| result.unwrap_or_else(|error| Rejection { error, path }.into_response()));
    if response.status() == StatusCode::UNAUTHORIZED
        && let Some(challenge) = login::challenge(&asked, &head.method, challenged.as_ref())
    {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    if path.starts_with("/v2") {
        reply::mark_api(&mut response);
    }
    record.sending(response)
}

/// Sees who it is, and whether there were not too many requests of theirs.
async fn admit(asked: &mut Asked) -> Result<(), RegistryError> {
    let address = asked.client.address;
    let given = login::credentials(&asked.headers, address);
    let shown = given.is_some() && asked.app.authorizer.scheme().is_some();
    let mut identified = asked.app.authorizer.identify(given.clone()).await;
    if identified == Err(AuthError::TokenInvalid) {
        // Where replicas set a store up at the same time, one may seal with a key that another has not seen.
        asked.app.authorizer.seal_by(asked.app.registry.newest_keys().await);
        identified = asked.app.authorizer.identify(given).await;
    }
    if shown {
        let result = match &identified {
            Ok(_) => "ok",
            Err(AuthError::Wrong | AuthError::Missing) => "wrong",
            Err(AuthError::TokenInvalid) => "token_invalid",
            Err(AuthError::TooMany { .. }) => "too_many",
            Err(AuthError::Busy) => "busy",
        };
        asked.app.metrics.requests.logins.get_or_create(&LoginLabels { result }).inc();
    }
    // What is refused counts too.
    if let Some(limiter) = &asked.app.limiter {
        let user = identified.as_ref().ok().and_then(Caller::name);
        limiter
            .take(Whose::of(user, address), Instant::now())
            .map_err(|retry_after_seconds| RegistryError::TooManyRequests { retry_after_seconds })?;
    }
    asked.caller = identified?;
    Ok(())
}

fn metrics(asked: &Asked) -> Result<Response, RegistryError> {
    asked.app.authorizer.watch(&asked.caller)?;
    Ok(measured(&asked.app))
}

/// The metrics, with what is only looked at when it is asked for.
fn measured(app: &App) -> Response {
    let (lent, limit) = app.registry.body_memory_bytes();
    let requests = &app.metrics.requests;
    requests.body_memory_bytes.set(i64::try_from(lent).unwrap_or(i64::MAX));
    requests.body_memory_limit_bytes.set(i64::try_from(limit).unwrap_or(i64::MAX));
    reply::metrics(app.metrics.encode())
}

/// What only those need who watch over the registry: for a port of its own, where nobody is asked who they are.
pub fn watch_router(app: App) -> Router {
    Router::new().fallback(watch).with_state(app)
}

async fn watch(State(app): State<App>, request: Request) -> Response {
    let path = request.uri().path();
    let result = match path {
        "/metrics" => Ok(measured(&app)),
        "/healthz" => Ok(reply::text("alive\n")),
        "/readyz" => app.ready().await,
        _ => Err(RegistryError::NoSuchPath),
    };
    result.unwrap_or_else(|error| Rejection { error, path }.into_response())
}

const FRONT: &str = "fluyt-registry: an OCI registry. Its API is below /v2/ (OCI distribution specification).\n";

async fn respond(
    asked: &Asked,
    method: &Method,
    parsed: Result<Endpoint, EndpointError>,
    body: Body,
) -> Result<Response, RegistryError> {
    let endpoint = match parsed {
        // A tag that cannot be is one that is not there; to give something such a name is a mistake.
        Err(EndpointError::Name(NameError::Tag { .. })) if !matches!(*method, Method::PUT) => {
            return Err(RegistryError::TagImpossible);
        }
        parsed => parsed?,
    };
    use Endpoint as E;
    let no_delete = asked.app.settings.no_delete;
    match (endpoint, method.as_str()) {
        (E::Base, "GET" | "HEAD") => {
            asked.app.authorizer.enter(&asked.caller)?;
            Ok(reply::base())
        }
        (E::Base, _) => not_allowed(method, "GET, HEAD"),
        (E::Catalog, "GET" | "HEAD") => names::catalog(asked).await,
        (E::Catalog, _) => not_allowed(method, "GET, HEAD"),
        (E::Tags(repo), "GET" | "HEAD") => names::tags(asked, repo).await,
        (E::Tags(_), _) => not_allowed(method, "GET, HEAD"),
        (E::Referrers(repo, subject), "GET" | "HEAD") => names::referrers(asked, repo, subject).await,
        (E::Referrers(..), _) => not_allowed(method, "GET, HEAD"),
        (E::Blob(repo, digest), "HEAD") => blobs::head(asked, repo, digest).await,
        (E::Blob(repo, digest), "GET") => blobs::get(asked, repo, digest).await,
        (E::Blob(repo, digest), "DELETE") if !no_delete => blobs::delete(asked, repo, digest).await,
        (E::Blob(..), _) => not_allowed(method, if no_delete { "GET, HEAD" } else { "GET, HEAD, DELETE" }),
        (E::Uploads(repo), "POST") => uploads::begin(asked, repo, body).await,
        (E::Uploads(_), _) => not_allowed(method, "POST"),
        (E::Upload(repo, id), "GET" | "HEAD") => uploads::status(asked, repo, id).await,
        (E::Upload(repo, id), "PATCH") => uploads::add(asked, repo, id, body).await,
        (E::Upload(repo, id), "PUT") => uploads::finish(asked, repo, id, body).await,
        (E::Upload(repo, id), "DELETE") => uploads::cancel(asked, repo, id).await,
        (E::Upload(..), _) => not_allowed(method, "GET, HEAD, PATCH, PUT, DELETE"),
        (E::Manifest(repo, reference), "HEAD" | "GET") => {
            manifests::get(asked, repo, reference, *method == Method::HEAD).await
        }
        (E::Manifest(repo, reference), "PUT") => manifests::put(asked, repo, reference, body).await,
        (E::Manifest(repo, reference), "DELETE") if !no_delete => manifests::delete(asked, repo, reference).await,
        (E::Manifest(..), _) => {
            not_allowed(method, if no_delete { "GET, HEAD, PUT" } else { "GET, HEAD, PUT, DELETE" })
        }
    }
}

/// Whoever asks what may be done is told; whoever does something else is told too.
fn not_allowed(method: &Method, allowed: &'static str) -> Result<Response, RegistryError> {
    if method == Method::OPTIONS {
        return Ok(reply::options(allowed));
    }
    Err(RegistryError::Method { method: method.to_string(), allowed })
}
