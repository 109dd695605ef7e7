//! An error -> status, code and JSON, as the specification has them ("Error Codes"). What is the client's to mend is told
//! to the client; what is ours goes to the log, once, here.

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{ALLOW, CONTENT_RANGE, CONTENT_TYPE, RETRY_AFTER};
use serde_json::json;

use super::reply::Reply;
use crate::auth::AuthError;
use crate::service::RegistryError;
use crate::storage::{StorageError, StorageErrorKind};

/// An error on its way out.
pub(super) struct Rejection<'a> {
    pub(super) error: RegistryError,
    pub(super) path: &'a str,
}

fn status_and_code(error: &RegistryError) -> (StatusCode, &'static str) {
    use RegistryError as E;
    use StatusCode as S;
    match error {
        E::BlobUnknown { .. } => (S::NOT_FOUND, "BLOB_UNKNOWN"),
        E::UploadInvalid { .. } | E::BodyCut { .. } => (S::BAD_REQUEST, "BLOB_UPLOAD_INVALID"),
        E::ChunkOutOfOrder { .. } | E::UploadContended => (S::RANGE_NOT_SATISFIABLE, "BLOB_UPLOAD_INVALID"),
        E::UploadUnknown => (S::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN"),
        E::DigestMismatch { .. } | E::DigestInvalid(_) | E::DigestMissing => (S::BAD_REQUEST, "DIGEST_INVALID"),
        E::ManifestBlobUnknown { .. } => (S::BAD_REQUEST, "MANIFEST_BLOB_UNKNOWN"),
        E::BlobTooLarge { .. } => (S::PAYLOAD_TOO_LARGE, "SIZE_INVALID"),
        E::ManifestInvalid(_) => (S::BAD_REQUEST, "MANIFEST_INVALID"),
        E::ManifestTooLarge { .. } => (S::PAYLOAD_TOO_LARGE, "MANIFEST_INVALID"),
        E::ManifestUnknown { .. } | E::TagImpossible => (S::NOT_FOUND, "MANIFEST_UNKNOWN"),
        E::NameInvalid(_) | E::TagOfThePast { .. } => (S::BAD_REQUEST, "NAME_INVALID"),
        E::NameUnknown { .. } => (S::NOT_FOUND, "NAME_UNKNOWN"),
        E::RangeOutside { .. } => (S::RANGE_NOT_SATISFIABLE, "SIZE_INVALID"),
        E::Unauthorized(AuthError::TooMany { .. }) | E::TooManyRequests { .. } => {
            (S::TOO_MANY_REQUESTS, "TOOMANYREQUESTS")
        }
        E::Unauthorized(AuthError::Busy) => (S::SERVICE_UNAVAILABLE, "UNAVAILABLE"),
        E::Unauthorized(AuthError::Wrong | AuthError::Missing | AuthError::TokenInvalid) => {
            (S::UNAUTHORIZED, "UNAUTHORIZED")
        }
        E::Denied(denied) if denied.login_helps => (S::UNAUTHORIZED, "UNAUTHORIZED"),
        E::Denied(_) => (S::FORBIDDEN, "DENIED"),
        E::Parameter { .. } => (S::BAD_REQUEST, "UNSUPPORTED"),
        E::TooManyTags { .. } => (S::URI_TOO_LONG, "UNSUPPORTED"),
        E::NoSuchPath => (S::NOT_FOUND, "UNSUPPORTED"),
        E::Method { .. } => (S::METHOD_NOT_ALLOWED, "UNSUPPORTED"),
        E::TagImmutable { .. } => (S::CONFLICT, "DENIED"),
        E::Contended | E::Stopping => (S::SERVICE_UNAVAILABLE, "UNAVAILABLE"),
        E::Storage(error) => match error.kind() {
            StorageErrorKind::Full => (S::INSUFFICIENT_STORAGE, "UNAVAILABLE"),
            StorageErrorKind::Busy => (S::SERVICE_UNAVAILABLE, "UNAVAILABLE"),
            StorageErrorKind::Denied | StorageErrorKind::Other => (S::INTERNAL_SERVER_ERROR, "UNKNOWN"),
        },
    }
}

/// What a client hears of an error that is ours.
fn ours(error: &StorageError) -> &'static str {
    match error.kind() {
        StorageErrorKind::Full => "the registry's store is full: nothing was stored; its operator has to make space",
        StorageErrorKind::Denied => {
            "the registry is not allowed to use its store: its operator finds the cause in the log"
        }
        StorageErrorKind::Busy => "the registry's store does not answer, or is overloaded: try again in a moment",
        StorageErrorKind::Other => "the registry's store failed: its operator finds the cause in the log",
    }
}

impl IntoResponse for Rejection<'_> {
    fn into_response(self) -> Response {
        let Self { error, path } = self;
        let (status, code) = status_and_code(&error);
        let message = match &error {
            RegistryError::Storage(cause) => {
                tracing::error!(url.path = path, http.status = status.as_u16(), error = %cause, "request failed");
                ours(cause).to_owned()
            }
            error => error.to_string(),
        };
        let mut reply = Reply::new(status).header(CONTENT_TYPE, "application/json");
        match &error {
            RegistryError::RangeOutside { size_bytes } => {
                reply = reply.header(CONTENT_RANGE, format!("bytes */{size_bytes}"));
            }
            RegistryError::Method { allowed, .. } => reply = reply.header(ALLOW, allowed),
            RegistryError::Contended | RegistryError::Unauthorized(AuthError::Busy) => {
                reply = reply.header(RETRY_AFTER, 1);
            }
            RegistryError::TooManyRequests { retry_after_seconds }
            | RegistryError::Unauthorized(AuthError::TooMany { retry_after_seconds }) => {
                reply = reply.header(RETRY_AFTER, retry_after_seconds);
            }
            // It was asked several times before this was said.
            RegistryError::Storage(cause) if cause.kind() == StorageErrorKind::Busy => {
                reply = reply.header(RETRY_AFTER, 5);
            }
            _ => {}
        }
        reply.json(&json!({ "errors": [{ "code": code, "message": message }] }))
    }
}
