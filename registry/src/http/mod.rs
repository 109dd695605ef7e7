//! The distribution API over HTTP: a request's path and method -> one operation of the service -> a reply.
//!
//! There are no routes: names hold slashes, so `Endpoint::parse` reads the path from its tail and one table below says
//! which handler it is for. Handlers ask the authorizer for a proof, call the service, and shape the reply.

mod access_log;
mod blobs;
mod manifests;
mod names;
mod query;
mod rejection;
mod reply;
mod serve;
mod uploads;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::{Router, middleware};
use http::{HeaderMap, Method, header};

pub use access_log::Peer;
pub use serve::{Ended, serve};

use crate::auth::{Authorizer, Caller, Denied, MayDelete, MayList, MayPull, MayPush};
use crate::metrics::Metrics;
use crate::service::{Registry, RegistryError};
use crate::spec::{Endpoint, EndpointError, NameError, RepoName};
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
}

impl App {
    /// An app that counts for itself alone.
    pub fn new(registry: Arc<Registry>, authorizer: Authorizer) -> Self {
        Self { registry, authorizer, metrics: Arc::default() }
    }
}

/// The whole service, without a socket.
pub fn router(app: App) -> Router {
    Router::new().fallback(answer).layer(middleware::from_fn(access_log::log)).with_state(app)
}

/// What of a request a handler may look at; the body comes beside it.
struct Asked {
    app: App,
    caller: Caller,
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
    let query = Query::parse(head.uri.query().unwrap_or_default());
    let asked = Asked { app, caller: Caller::anonymous(), query, headers: head.headers };
    let path = head.uri.path();
    let result = match path {
        "/healthz" => Ok(reply::text("alive\n")),
        "/readyz" => ready(&asked).await,
        "/" => Ok(reply::text(FRONT)),
        _ => respond(&asked, &head.method, path, body).await,
    };
    let mut response = result.unwrap_or_else(|error| Rejection { error, path }.into_response());
    if path.starts_with("/v2") {
        reply::mark_api(&mut response);
    }
    response
}

const FRONT: &str = "fluyt-registry: an OCI registry. Its API is below /v2/ (OCI distribution specification).\n";

async fn ready(asked: &Asked) -> Result<Response, RegistryError> {
    asked.app.registry.ready().await?;
    Ok(reply::text("ready\n"))
}

async fn respond(asked: &Asked, method: &Method, path: &str, body: Body) -> Result<Response, RegistryError> {
    let endpoint = match Endpoint::parse(path) {
        // A tag that cannot be is one that is not there; to give something such a name is a mistake.
        Err(EndpointError::Name(NameError::Tag { .. })) if !matches!(*method, Method::PUT) => {
            return Err(RegistryError::TagImpossible);
        }
        parsed => parsed?,
    };
    use Endpoint as E;
    match (endpoint, method.as_str()) {
        (E::Base, "GET" | "HEAD") => Ok(reply::base()),
        (E::Base, _) => not_allowed(method, "GET, HEAD"),
        (E::Catalog, "GET" | "HEAD") => names::catalog(asked).await,
        (E::Catalog, _) => not_allowed(method, "GET, HEAD"),
        (E::Tags(repo), "GET" | "HEAD") => names::tags(asked, repo).await,
        (E::Tags(_), _) => not_allowed(method, "GET, HEAD"),
        (E::Referrers(repo, subject), "GET" | "HEAD") => names::referrers(asked, repo, subject).await,
        (E::Referrers(..), _) => not_allowed(method, "GET, HEAD"),
        (E::Blob(repo, digest), "HEAD") => blobs::head(asked, repo, digest).await,
        (E::Blob(repo, digest), "GET") => blobs::get(asked, repo, digest).await,
        (E::Blob(repo, digest), "DELETE") => blobs::delete(asked, repo, digest).await,
        (E::Blob(..), _) => not_allowed(method, "GET, HEAD, DELETE"),
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
        (E::Manifest(repo, reference), "DELETE") => manifests::delete(asked, repo, reference).await,
        (E::Manifest(..), _) => not_allowed(method, "GET, HEAD, PUT, DELETE"),
    }
}

/// Whoever asks what may be done is told; whoever does something else is told too.
fn not_allowed(method: &Method, allowed: &'static str) -> Result<Response, RegistryError> {
    if method == Method::OPTIONS {
        return Ok(reply::options(allowed));
    }
    Err(RegistryError::Method { method: method.to_string(), allowed })
}
