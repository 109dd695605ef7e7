//! A registry on a store in memory, with a clock that stands still and ids that count.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::body::Body;
use fluyt_registry::auth::Authorizer;
use fluyt_registry::http::{App, router};
use fluyt_registry::service::{Redirects, Registry, SparsePolicy, Surroundings};
use fluyt_registry::spec::{Algorithm, Digest};
use fluyt_registry::storage::{Memory, Port, Storage};
use futures_util::TryStreamExt;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use object_store::ObjectStore;
use tower::ServiceExt;

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A registry to talk to.
pub(crate) struct TestApp {
    router: Router,
    store: Memory,
}

/// What came back.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

pub(crate) fn surroundings() -> Surroundings {
    let count = AtomicU64::new(0);
    Surroundings {
        now: Arc::new(|| "2026-11-25T12:00:00Z".into()),
        random: Arc::new(move || {
            let number = count.fetch_add(1, Ordering::Relaxed) + 1;
            (u128::from(number) << 96).to_be_bytes()
        }),
    }
}

/// A router on any store.
pub(crate) async fn router_on(store: impl Port) -> Router {
    router_with(store, |registry| registry).await
}

pub(crate) async fn router_with(store: impl Port, set: impl FnOnce(Registry) -> Registry) -> Router {
    let storage = Storage::open(store, [7; 32]).await.unwrap();
    let registry = set(Registry::new(storage, surroundings()));
    router(App::new(Arc::new(registry), Authorizer::Everyone))
}

pub(crate) fn digest(bytes: impl AsRef<[u8]>) -> Digest {
    Digest::of(Algorithm::Sha256, bytes.as_ref())
}

/// An image manifest of blobs; the first is the config.
pub(crate) fn image(blobs: &[&[u8]], more: &str) -> String {
    let content = |bytes: &[u8]| {
        format!(r#"{{"mediaType":"application/x","digest":"{}","size":{}}}"#, digest(bytes), bytes.len())
    };
    let layers: Vec<String> = blobs[1..].iter().map(|bytes| content(bytes)).collect();
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{},"layers":[{}]{more}}}"#,
        content(blobs[0]),
        layers.join(",")
    )
}

impl TestApp {
    pub(crate) async fn new() -> Self {
        let store = Memory::default();
        Self { router: router_on(store.clone()).await, store }
    }

    /// A registry with another word on what manifests may lack.
    pub(crate) async fn with_sparse(sparse: SparsePolicy) -> Self {
        let store = Memory::default();
        Self { router: router_with(store.clone(), |registry| registry.with_sparse(sparse)).await, store }
    }

    /// A registry whose requests go through this port; `store` is what is behind it.
    pub(crate) async fn on(port: impl Port, store: Memory) -> Self {
        Self { router: router_on(port).await, store }
    }

    pub(crate) async fn with_redirects(port: impl Port, store: Memory, redirects: Redirects) -> Self {
        Self { router: router_with(port, |registry| registry.with_redirects(redirects)).await, store }
    }

    /// The store, for what only a collector would do.
    pub(crate) fn store(&self) -> &Memory {
        &self.store
    }

    /// Another replica on the same store.
    pub(crate) async fn replica(&self) -> Self {
        Self { router: router_on(self.store.clone()).await, store: self.store.clone() }
    }

    /// Sends one request: `METHOD target`, lines of headers, and a body.
    pub(crate) async fn send(&self, line: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
        send(&self.router, line, headers, body).await
    }

    pub(crate) async fn get(&self, line: &str) -> Answer {
        self.send(line, &[], Body::empty()).await
    }

    /// Uploads a blob with one POST.
    pub(crate) async fn blob(&self, repo: &str, bytes: &[u8]) -> Digest {
        let digest = digest(bytes);
        let line = format!("POST /v2/{repo}/blobs/uploads/?digest={digest}");
        let answer = self.send(&line, &[], bytes.to_vec()).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.shown());
        digest
    }

    pub(crate) async fn put(&self, repo: &str, reference: &str, media_type: &str, manifest: &str) -> Answer {
        let line = format!("PUT /v2/{repo}/manifests/{reference}");
        self.send(&line, &[("content-type", media_type)], manifest.to_owned()).await
    }

    /// An image of one layer under a tag.
    pub(crate) async fn pushed_image(&self, repo: &str, tag: &str) -> (String, Digest) {
        self.blob(repo, b"{}").await;
        self.blob(repo, b"layer").await;
        let manifest = image(&[b"{}", b"layer"], "");
        let answer = self.put(repo, tag, MANIFEST, &manifest).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.shown());
        let digest = digest(&manifest);
        (manifest, digest)
    }

    /// Every key of the store, sorted.
    pub(crate) async fn keys(&self) -> Vec<String> {
        let mut keys: Vec<String> =
            self.store.list(None).map_ok(|object| object.location.to_string()).try_collect().await.unwrap();
        keys.sort();
        keys
    }
}

pub(crate) async fn send(router: &Router, line: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
    let (method, target) = line.split_once(' ').unwrap();
    let mut request = Request::builder().method(method).uri(target);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = router.clone().oneshot(request.body(body.into()).unwrap()).await.unwrap();
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes().to_vec();
    Answer { status: head.status, headers: head.headers, body }
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }

    /// Status, headers in order, body. What is sealed changes with its content and is not shown.
    pub(crate) fn shown(&self) -> String {
        let mut headers: Vec<String> = self
            .headers
            .iter()
            .filter(|(name, _)| *name != "docker-distribution-api-version" && *name != "x-request-id")
            .map(|(name, value)| format!("{name}: {}", unsealed(value.to_str().unwrap())))
            .collect();
        headers.sort();
        let body = String::from_utf8_lossy(&self.body);
        let text = format!("{}\n{}\n\n{body}", self.status, headers.join("\n"));
        text.trim_end().to_owned()
    }
}

fn unsealed(value: &str) -> String {
    match value.split_once("?state=") {
        Some((before, _)) => format!("{before}?state=[sealed]"),
        None => value.to_owned(),
    }
}
