//! Blobs: `end-2`, `end-10`.

use axum::response::Response;
use http::header::{IF_NONE_MATCH, IF_RANGE, RANGE};

use super::{Asked, reply};
use crate::service::{BlobAnswer, RegistryError};
use crate::spec::{Digest, ReadRange, RepoName};

/// `end-2`, HEAD
pub(super) async fn head(asked: &Asked, repo: RepoName, digest: Digest) -> Result<Response, RegistryError> {
    let pull = asked.may_pull(&repo)?;
    let blob = asked.app.registry.blob(&pull, &digest).await?;
    Ok(if is_known(asked, &digest) { reply::blob_unchanged(&digest) } else { reply::blob_head(&blob) })
}

/// `end-2`, GET; also a part of it.
pub(super) async fn get(asked: &Asked, repo: RepoName, digest: Digest) -> Result<Response, RegistryError> {
    let pull = asked.may_pull(&repo)?;
    if is_known(asked, &digest) {
        asked.app.registry.blob(&pull, &digest).await?;
        return Ok(reply::blob_unchanged(&digest));
    }
    // A part of something else is not wanted.
    let same = asked.header(IF_RANGE).is_none_or(|tag| tag.trim() == reply::entity_tag(&digest));
    let range = asked.header(RANGE).filter(|_| same).and_then(ReadRange::parse);
    Ok(match asked.app.registry.read_blob(&pull, &digest, range).await? {
        BlobAnswer::Here(read) => reply::blob(&digest, read),
        BlobAnswer::Elsewhere(address) => reply::blob_elsewhere(&digest, &address),
    })
}

/// Whether the client has the blob already (RFC 9110, 13.1.2).
fn is_known(asked: &Asked, digest: &Digest) -> bool {
    let own = reply::entity_tag(digest);
    asked.header(IF_NONE_MATCH).is_some_and(|tags| {
        tags.split(',').map(str::trim).any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == own)
    })
}

/// `end-10`
pub(super) async fn delete(asked: &Asked, repo: RepoName, digest: Digest) -> Result<Response, RegistryError> {
    let delete = asked.may_delete(&repo)?;
    asked.app.registry.delete_blob(&delete, &digest).await?;
    Ok(reply::deleted())
}
