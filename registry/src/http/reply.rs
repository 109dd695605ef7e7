//! Every header that is sent, and every successful reply.

use axum::body::Body;
use axum::response::Response;
use futures_util::TryStreamExt;
use http::header::{
    ACCEPT_RANGES, ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderName, LINK, LOCATION,
    RANGE, WARNING,
};
use http::{HeaderValue, StatusCode};
use serde::Serialize;

use crate::service::{BlobInfo, BlobRead, StoredReference};
use crate::spec::{Digest, RepoName};
use crate::storage::StoredManifest;

const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
const CHUNK_MIN_LENGTH: HeaderName = HeaderName::from_static("oci-chunk-min-length");
const UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");
const FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");
const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
const TAG: HeaderName = HeaderName::from_static("oci-tag");

const BYTES: &str = "application/octet-stream";

/// A reply being put together. Values that no header can hold (there are none among ours) are left out.
pub(super) struct Reply(Response);

impl Reply {
    pub(super) fn new(status: StatusCode) -> Self {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = status;
        Self(response)
    }

    pub(super) fn header(mut self, name: HeaderName, value: impl ToString) -> Self {
        if let Ok(value) = HeaderValue::from_str(&value.to_string()) {
            self.0.headers_mut().append(name, value);
        }
        self
    }

    pub(super) fn digest(self, digest: &Digest) -> Self {
        self.header(CONTENT_DIGEST, digest)
    }

    pub(super) fn body(mut self, body: Body) -> Response {
        *self.0.body_mut() = body;
        self.0
    }

    pub(super) fn json(self, value: &impl Serialize) -> Response {
        // What is sent as JSON are strings, numbers and maps of them.
        let text = serde_json::to_vec(value).unwrap_or_default();
        self.header(CONTENT_LENGTH, text.len()).body(Body::from(text))
    }

    pub(super) fn empty(self) -> Response {
        self.header(CONTENT_LENGTH, 0).0
    }
}

pub(super) fn mark_api(response: &mut Response) {
    response.headers_mut().insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
}

pub(super) fn text(text: &'static str) -> Response {
    Reply::new(StatusCode::OK)
        .header(CONTENT_TYPE, "text/plain; charset=utf-8")
        .header(CONTENT_LENGTH, text.len())
        .body(Body::from(text))
}

/// Metrics, as OpenMetrics has them.
pub(super) fn metrics(text: String) -> Response {
    Reply::new(StatusCode::OK)
        .header(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")
        .header(CONTENT_LENGTH, text.len())
        .body(Body::from(text))
}

/// A token: not for a cache.
pub(super) fn token(value: &impl Serialize) -> Response {
    Reply::new(StatusCode::OK).header(CONTENT_TYPE, "application/json").header(CACHE_CONTROL, "no-store").json(value)
}

/// `end-1`
pub(super) fn base() -> Response {
    Reply::new(StatusCode::OK).header(CONTENT_TYPE, "application/json").json(&serde_json::json!({}))
}

/// What may be done with a path.
pub(super) fn options(allowed: &'static str) -> Response {
    Reply::new(StatusCode::NO_CONTENT).header(ALLOW, allowed).body(Body::empty())
}

pub(super) fn blob_head(blob: &BlobInfo) -> Response {
    Reply::new(StatusCode::OK)
        .header(CONTENT_TYPE, BYTES)
        .header(CONTENT_LENGTH, blob.size_bytes)
        .header(ACCEPT_RANGES, "bytes")
        .header(ETAG, entity_tag(&blob.digest))
        .digest(&blob.digest)
        .body(Body::empty())
}

pub(super) fn blob(digest: &Digest, read: BlobRead) -> Response {
    let BlobRead { size_bytes, part, pieces } = read;
    let (status, length) = match &part {
        Some(part) => (StatusCode::PARTIAL_CONTENT, part.end - part.start),
        None => (StatusCode::OK, size_bytes),
    };
    let mut reply = Reply::new(status)
        .header(CONTENT_TYPE, BYTES)
        .header(CONTENT_LENGTH, length)
        .header(ACCEPT_RANGES, "bytes")
        .header(ETAG, entity_tag(digest))
        .digest(digest);
    if let Some(part) = part {
        // The part is never empty.
        reply = reply.header(CONTENT_RANGE, format!("bytes {}-{}/{size_bytes}", part.start, part.end - 1));
    }
    // The head is gone by then: all that can be done is to break off, and to say why in the log.
    let digest = digest.clone();
    reply.body(Body::from_stream(pieces.inspect_err(move |error| {
        tracing::error!(blob.digest = %digest, error = %error, "a blob broke off while it was sent");
    })))
}

/// What never changes is its own version.
pub(super) fn entity_tag(digest: &Digest) -> String {
    format!("\"{digest}\"")
}

pub(super) fn blob_unchanged(digest: &Digest) -> Response {
    Reply::new(StatusCode::NOT_MODIFIED).header(ETAG, entity_tag(digest)).digest(digest).body(Body::empty())
}

/// The address is a key to the blob, and the blob may be deleted by the next request: nobody is to keep it.
pub(super) fn blob_elsewhere(digest: &Digest, address: &str) -> Response {
    Reply::new(StatusCode::TEMPORARY_REDIRECT)
        .header(LOCATION, address)
        .header(CACHE_CONTROL, "no-store")
        .digest(digest)
        .empty()
}

pub(super) fn blob_created(repo: &RepoName, digest: &Digest) -> Response {
    Reply::new(StatusCode::CREATED).header(LOCATION, format!("/v2/{repo}/blobs/{digest}")).digest(digest).empty()
}

pub(super) fn deleted() -> Response {
    Reply::new(StatusCode::ACCEPTED).empty()
}

/// Where an upload is: 202 after a chunk, 204 for a question.
pub(super) fn upload(
    status: StatusCode,
    location: &str,
    id: &str,
    offset_bytes: u64,
    least_chunk_bytes: Option<u64>,
) -> Response {
    let mut reply = Reply::new(status)
        .header(LOCATION, location)
        .header(UPLOAD_UUID, id)
        // Both ends belong to it, so that nothing and one byte look the same; clients know it so.
        .header(RANGE, format!("0-{}", offset_bytes.saturating_sub(1)));
    if let Some(bytes) = least_chunk_bytes {
        reply = reply.header(CHUNK_MIN_LENGTH, bytes);
    }
    if status == StatusCode::NO_CONTENT { reply.body(Body::empty()) } else { reply.empty() }
}

pub(super) fn upload_cancelled() -> Response {
    Reply::new(StatusCode::NO_CONTENT).body(Body::empty())
}

pub(super) fn manifest(digest: &Digest, stored: StoredManifest, head_only: bool) -> Response {
    let StoredManifest { media_type, bytes, .. } = stored;
    Reply::new(StatusCode::OK)
        .header(CONTENT_TYPE, media_type)
        .header(CONTENT_LENGTH, bytes.len())
        .digest(digest)
        .body(if head_only { Body::empty() } else { Body::from(bytes) })
}

pub(super) fn manifest_created(repo: &RepoName, stored: &StoredReference, by_digest: bool) -> Response {
    let mut reply = Reply::new(StatusCode::CREATED)
        .header(LOCATION, format!("/v2/{repo}/manifests/{}", stored.digest))
        .digest(&stored.digest);
    if let Some(subject) = &stored.subject {
        reply = reply.header(SUBJECT, subject);
    }
    if !stored.absent.is_empty() {
        reply = reply.header(WARNING, absent_warning(&stored.absent));
    }
    if by_digest {
        reply = stored.tags.iter().fold(reply, |reply, tag| reply.header(TAG, tag));
    }
    reply.empty()
}

/// At most 4096 bytes, as the specification bounds warnings.
fn absent_warning(absent: &[Digest]) -> String {
    const SHOWN: usize = 10;
    let shown: Vec<String> = absent.iter().take(SHOWN).map(Digest::to_string).collect();
    let more = match absent.len() {
        0..=SHOWN => String::new(),
        all => format!(" and {} more", all - SHOWN),
    };
    format!("299 - \"sparse image: the repository does not have {}{more}\"", shown.join(", "))
}

/// A page of a list; `next` is the target of the next one.
pub(super) fn page(content_type: &str, value: &impl Serialize, next: Option<String>, filtered: bool) -> Response {
    let mut reply = Reply::new(StatusCode::OK).header(CONTENT_TYPE, content_type);
    if let Some(next) = next {
        reply = reply.header(LINK, format!("<{next}>; rel=\"next\""));
    }
    if filtered {
        reply = reply.header(FILTERS_APPLIED, "artifactType");
    }
    reply.json(value)
}
