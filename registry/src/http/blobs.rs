//! Blobs: `end-2`, `end-10`.

use axum::response::Response;
use http::header::RANGE;

use super::{Asked, reply};
use crate::service::RegistryError;
use crate::spec::{Digest, ReadRange, RepoName};

/// `end-2`, HEAD
pub(super) async fn head(asked: &Asked, repo: RepoName, digest: Digest) -> Result<Response, RegistryError> {
    let pull = asked.may_pull(&repo)?;
    let blob = asked.app.registry.blob(&pull, &digest).await?;
    Ok(reply::blob_head(&blob))
}

/// `end-2`, GET; also a part of it.
pub(super) async fn get(asked: &Asked, repo: RepoName, digest: Digest) -> Result<Response, RegistryError> {
    let pull = asked.may_pull(&repo)?;
    let range = asked.header(RANGE).and_then(ReadRange::parse);
    let read = asked.app.registry.read_blob(&pull, &digest, range).await?;
    Ok(reply::blob(&digest, read))
}

/// `end-10`
pub(super) async fn delete(asked: &Asked, repo: RepoName, digest: Digest) -> Result<Response, RegistryError> {
    let delete = asked.may_delete(&repo)?;
    asked.app.registry.delete_blob(&delete, &digest).await?;
    Ok(reply::deleted())
}
