//! One line for each request, on the log, when its reply's last byte was handed on, and the same for the metrics.
//!
//! A record is kept by whatever of the request lives longest: the handler, then the reply's body. Dropping it writes the
//! line, so a client that goes away gets one too.

use std::hash::{BuildHasher, RandomState};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::response::Response;
use http::header::{CONTENT_LENGTH, USER_AGENT};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Version};
use http_body::{Body as _, Frame, SizeHint};

use super::client::Client;
use crate::metrics::{EndpointKind, EndpointLabels, KindLabels, Metrics, RequestLabels};
use crate::spec::{Endpoint, Reference};

pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longest id that a proxy may give.
const REQUEST_ID_MAX_CHARS: usize = 128;

/// What is known of a request so far.
#[derive(Debug)]
pub(super) struct Record {
    metrics: Arc<Metrics>,
    began: Instant,
    method: Method,
    version: Version,
    path: String,
    client: Client,
    agent: Option<HeaderValue>,
    id: HeaderValue,
    kind: EndpointKind,
    received_bytes: Arc<AtomicU64>,
    pub(super) user: Option<String>,
    endpoint: Option<Endpoint>,
    status: Option<u16>,
    to_first_byte: Duration,
    sent_bytes: u64,
    /// How many bytes the reply's head promises.
    expected_bytes: Option<u64>,
    whole: bool,
}

impl Record {
    /// A request whose head has come.
    pub(super) fn begin(metrics: Arc<Metrics>, head: &Parts, client: Client, endpoint: Option<Endpoint>) -> Self {
        // Another's id joins its lines to ours; only a proxy that is trusted may write into our log.
        let given = head.headers.get(&REQUEST_ID).filter(|id| client.through_proxy && is_request_id(id));
        let kind = kind(head.uri.path(), endpoint.as_ref());
        metrics.requests.in_flight.get_or_create(&EndpointLabels { endpoint: kind }).inc();
        Self {
            metrics,
            began: Instant::now(),
            method: head.method.clone(),
            version: head.version,
            path: head.uri.path().to_owned(),
            client,
            agent: head.headers.get(USER_AGENT).cloned(),
            id: given.cloned().unwrap_or_else(new_request_id),
            kind,
            received_bytes: Arc::default(),
            user: None,
            endpoint,
            status: None,
            to_first_byte: Duration::ZERO,
            sent_bytes: 0,
            expected_bytes: None,
            whole: false,
        }
    }

    /// The request's id.
    pub(super) fn id(&self) -> &HeaderValue {
        &self.id
    }

    /// The request's body, counted while it is read.
    pub(super) fn receiving(&self, body: Body) -> Body {
        if body.is_end_stream() {
            return body;
        }
        Body::new(Received { body, bytes: self.received_bytes.clone() })
    }

    /// The reply, with this record in its body.
    pub(super) fn sending(mut self, response: Response) -> Response {
        self.status = Some(response.status().as_u16());
        self.to_first_byte = self.began.elapsed();
        let (mut head, body) = response.into_parts();
        head.headers.insert(REQUEST_ID, self.id.clone());
        let length = head.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        self.expected_bytes = length;
        // Nothing is sent of these, whatever the body says.
        self.whole = self.method == Method::HEAD || body.is_end_stream();
        if self.whole {
            // Now rather than when the connection gets to it.
            drop(self);
            return Response::from_parts(head, body);
        }
        Response::from_parts(head, Body::new(Sent { body, record: self }))
    }

    fn method(&self) -> &'static str {
        match self.method {
            Method::GET => "GET",
            Method::HEAD => "HEAD",
            Method::PUT => "PUT",
            Method::POST => "POST",
            Method::PATCH => "PATCH",
            Method::DELETE => "DELETE",
            Method::OPTIONS => "OPTIONS",
            // Everybody may make up methods, and a label must not have as many values.
            _ => "other",
        }
    }

    fn count(&self, took: Duration, received_bytes: u64) {
        let requests = &self.metrics.requests;
        let (method, endpoint) = (self.method(), self.kind);
        requests.in_flight.get_or_create(&EndpointLabels { endpoint }).dec();
        let labels = RequestLabels { method, endpoint, status: self.status.unwrap_or(0) };
        requests.ended.get_or_create(&labels).inc();
        requests.duration_seconds.get_or_create(&KindLabels { method, endpoint }).observe(took.as_secs_f64());
        requests.received_bytes.inc_by(received_bytes);
        requests.sent_bytes.inc_by(self.sent_bytes);
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let took = self.began.elapsed();
        let received_bytes = self.received_bytes.load(Ordering::Relaxed);
        self.count(took, received_bytes);
        let repo = self.endpoint.as_ref().and_then(Endpoint::repo);
        let (tag, digest, upload) = match &self.endpoint {
            Some(Endpoint::Manifest(_, Reference::Tag(tag))) => (Some(tag), None, None),
            Some(Endpoint::Manifest(_, Reference::Digest(digest))) => (None, Some(digest), None),
            Some(Endpoint::Blob(_, digest) | Endpoint::Referrers(_, digest)) => (None, Some(digest), None),
            Some(Endpoint::Upload(_, id)) => (None, None, Some(id)),
            _ => (None, None, None),
        };
        let ms = |duration: Duration| (duration.as_secs_f64() * 10_000.0).round() / 10.0;
        tracing::info!(
            http.method = %self.method,
            url.path = self.path.as_str(),
            http.status = self.status.unwrap_or(0),
            http.sent_bytes = self.sent_bytes,
            http.received_bytes = received_bytes,
            duration_ms = ms(took),
            first_byte_ms = ms(self.to_first_byte),
            user.name = self.user.as_deref(),
            repo.name = repo.map(tracing::field::display),
            tag = tag.map(tracing::field::display),
            digest = digest.map(tracing::field::display),
            upload.id = upload.map(|id| tracing::field::display(id.as_str())),
            client.address = self.client.address.map(tracing::field::display),
            client.agent = self.agent.as_ref().map(|agent| String::from_utf8_lossy(agent.as_bytes())).as_deref(),
            http.version = ?self.version,
            request.id = self.id.to_str().unwrap_or_default(),
            cut = (!self.whole).then_some(true),
            "request"
        );
    }
}

fn kind(path: &str, endpoint: Option<&Endpoint>) -> EndpointKind {
    match endpoint {
        Some(Endpoint::Base) => EndpointKind::base,
        Some(Endpoint::Catalog) => EndpointKind::catalog,
        Some(Endpoint::Tags(_)) => EndpointKind::tags,
        Some(Endpoint::Referrers(..)) => EndpointKind::referrers,
        Some(Endpoint::Blob(..)) => EndpointKind::blob,
        Some(Endpoint::Uploads(_) | Endpoint::Upload(..)) => EndpointKind::upload,
        Some(Endpoint::Manifest(..)) => EndpointKind::manifest,
        None if super::login::is_token_path(path) => EndpointKind::token,
        None => EndpointKind::other,
    }
}

fn is_request_id(id: &HeaderValue) -> bool {
    let fits = |c: u8| c.is_ascii_alphanumeric() || b"-_.:/=+".contains(&c);
    !id.is_empty() && id.len() <= REQUEST_ID_MAX_CHARS && id.as_bytes().iter().copied().all(fits)
}

/// Never the same twice in one process, and hardly ever in two.
fn new_request_id() -> HeaderValue {
    static START: OnceLock<u64> = OnceLock::new();
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let start = *START.get_or_init(|| RandomState::new().hash_one("request id"));
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    // Hexadecimal digits are always a header's value.
    HeaderValue::from_str(&format!("{:016x}", start.wrapping_add(number))).unwrap_or(HeaderValue::from_static("0"))
}

struct Received {
    body: Body,
    bytes: Arc<AtomicU64>,
}

impl http_body::Body for Received {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame {
            self.bytes.fetch_add(frame.data_ref().map_or(0, Bytes::len) as u64, Ordering::Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

struct Sent {
    body: Body,
    record: Record,
}

impl http_body::Body for Sent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                self.record.sent_bytes += frame.data_ref().map_or(0, Bytes::len) as u64;
                // Of a body whose length is known, nothing more is asked once it came.
                self.record.whole = self.record.expected_bytes == Some(self.record.sent_bytes);
            }
            Some(Err(_)) => {}
            None => self.record.whole = true,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
