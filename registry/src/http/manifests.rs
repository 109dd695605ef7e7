//! Manifests: `end-3`, `end-7`, `end-9`.

use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};

use super::{Asked, reply};
use crate::service::{PutManifestRequest, RegistryError};
use crate::spec::{MANIFEST_SIZE_MAX_BYTES, Reference, RepoName, Tag};

/// Most tags of one push by digest. The specification wants at least 10; each costs requests to the store.
const TAGS_MAX: usize = 100;
/// How long a manifest may take to come.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// `end-3`
pub(super) async fn get(
    asked: &Asked,
    repo: RepoName,
    reference: Reference,
    head_only: bool,
) -> Result<Response, RegistryError> {
    let pull = asked.may_pull(&repo)?;
    let (digest, stored) = asked.app.registry.manifest(&pull, &reference).await?;
    Ok(reply::manifest(&digest, stored, head_only))
}

/// `end-7`; by digest also with tags of its own (`?tag=`).
pub(super) async fn put(
    asked: &Asked,
    repo: RepoName,
    reference: Reference,
    body: Body,
) -> Result<Response, RegistryError> {
    let push = asked.may_push(&repo)?;
    let by_digest = matches!(reference, Reference::Digest(_));
    let tags: Vec<Tag> = asked.query.all("tag").map(str::parse).collect::<Result<_, _>>()?;
    if tags.len() > TAGS_MAX {
        return Err(RegistryError::TooManyTags { found: tags.len(), max: TAGS_MAX });
    }
    let request = PutManifestRequest {
        reference,
        tags: if by_digest { tags } else { Vec::new() },
        algorithm: asked.query.algorithm()?,
        content_type: asked.header(CONTENT_TYPE).map(str::to_owned),
        bytes: whole(asked, body).await?,
    };
    let stored = asked.app.registry.put_manifest(&push, request).await?;
    Ok(reply::manifest_created(&repo, &stored, by_digest))
}

/// `end-9`
pub(super) async fn delete(asked: &Asked, repo: RepoName, reference: Reference) -> Result<Response, RegistryError> {
    let delete = asked.may_delete(&repo)?;
    asked.app.registry.delete_manifest(&delete, &reference).await?;
    Ok(reply::deleted())
}

/// The whole body, unless it is more than a manifest may be.
async fn whole(asked: &Asked, body: Body) -> Result<Bytes, RegistryError> {
    let announced = asked.header(CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
    if let Some(found_bytes) = announced.filter(|length| *length > MANIFEST_SIZE_MAX_BYTES as u64) {
        return Err(RegistryError::ManifestTooLarge { found_bytes });
    }
    let reading = async {
        let mut whole = BytesMut::new();
        let mut frames = body.into_data_stream();
        while let Some(frame) = frames.try_next().await.map_err(cut)? {
            if whole.len() + frame.len() > MANIFEST_SIZE_MAX_BYTES {
                let found_bytes = (whole.len() + frame.len()) as u64;
                return Err(RegistryError::ManifestTooLarge { found_bytes });
            }
            whole.extend_from_slice(&frame);
        }
        Ok(whole.freeze())
    };
    let late = |_| cut(format!("it was not whole after {} seconds", BODY_TIMEOUT.as_secs()));
    tokio::time::timeout(BODY_TIMEOUT, reading).await.map_err(late)?
}

fn cut(reason: impl std::fmt::Display) -> RegistryError {
    RegistryError::BodyCut { reason: reason.to_string() }
}
