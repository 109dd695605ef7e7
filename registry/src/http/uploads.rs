//! Uploads: `end-4a`, `end-4b`, `end-5`, `end-6`, `end-11`, `end-13`, `end-14`.

use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use http::header::CONTENT_RANGE;
use http_body::Body as _;

use super::{Asked, reply};
use crate::auth::MayPush;
use crate::service::{ChunkPlace, RegistryError, Ticket};
use crate::spec::{ChunkRange, RepoName, UploadId};

/// `end-4a`; with `digest` and a body the whole upload (`end-4b`); with `mount` a blob of another repository (`end-11`).
pub(super) async fn begin(asked: &Asked, repo: RepoName, body: Body) -> Result<Response, RegistryError> {
    let push = asked.may_push(&repo)?;
    let registry = &asked.app.registry;
    if let Some(digest) = asked.query.get("mount") {
        let digest = digest.parse()?;
        // Without `from` any repository will do that the client may read. One that is no name, or that the client may not
        // read, is one that nothing can be mounted from: the client uploads instead.
        let sources = match asked.query.get("from") {
            Some(from) => from.parse().into_iter().collect(),
            None => registry.holders(&push, &digest).await?,
        };
        for from in sources {
            let Ok(pull) = asked.may_pull(&from) else { continue };
            if let Some(blob) = registry.mount(&push, &pull, &digest).await? {
                return Ok(reply::blob_created(&repo, &blob.digest));
            }
        }
        let ticket = registry.begin_upload(&push, Some(digest.algorithm()));
        return Ok(located(asked, &push, StatusCode::ACCEPTED, &ticket));
    }
    if let Some(digest) = asked.query.digest()? {
        let place = ChunkPlace { range: None, announced_bytes: body.size_hint().exact() };
        let finished = registry.upload(&push, digest, place, body.into_data_stream()).await?;
        return Ok(reply::blob_created(&repo, &finished.digest));
    }
    let ticket = registry.begin_upload(&push, asked.query.algorithm()?);
    Ok(located(asked, &push, StatusCode::ACCEPTED, &ticket))
}

/// `end-13`
pub(super) async fn status(asked: &Asked, repo: RepoName, id: UploadId) -> Result<Response, RegistryError> {
    let (push, ticket) = resumed(asked, &repo, &id).await?;
    let ticket = asked.app.registry.upload_status(&push, ticket).await?;
    Ok(located(asked, &push, StatusCode::NO_CONTENT, &ticket))
}

/// `end-5`
pub(super) async fn add(asked: &Asked, repo: RepoName, id: UploadId, body: Body) -> Result<Response, RegistryError> {
    let (push, ticket) = resumed(asked, &repo, &id).await?;
    let place = place(asked, &body)?;
    let ticket = asked.app.registry.add_chunk(&push, ticket, place, body.into_data_stream()).await?;
    Ok(located(asked, &push, StatusCode::ACCEPTED, &ticket))
}

/// `end-6`: the last chunk of an upload, then the digest check.
pub(super) async fn finish(asked: &Asked, repo: RepoName, id: UploadId, body: Body) -> Result<Response, RegistryError> {
    let (push, ticket) = resumed(asked, &repo, &id).await?;
    let digest = asked.query.digest()?.ok_or(RegistryError::DigestMissing)?;
    let (place, body) = (place(asked, &body)?, body.into_data_stream());
    let finished = asked.app.registry.finish_upload(&push, ticket, digest, place, body).await?;
    Ok(reply::blob_created(&repo, &finished.digest))
}

/// `end-14`
pub(super) async fn cancel(asked: &Asked, repo: RepoName, id: UploadId) -> Result<Response, RegistryError> {
    let (push, ticket) = resumed(asked, &repo, &id).await?;
    asked.app.registry.cancel_upload(&push, ticket).await?;
    Ok(reply::upload_cancelled())
}

async fn resumed(asked: &Asked, repo: &RepoName, id: &UploadId) -> Result<(MayPush, Ticket), RegistryError> {
    let push = asked.may_push(repo)?;
    let ticket = asked.app.registry.open_ticket(&push, id, asked.query.get("state")).await?;
    Ok((push, ticket))
}

fn place(asked: &Asked, body: &Body) -> Result<ChunkPlace, RegistryError> {
    let announced_bytes = body.size_hint().exact();
    let Some(text) = asked.header(CONTENT_RANGE) else { return Ok(ChunkPlace { range: None, announced_bytes }) };
    let range = ChunkRange::parse(text).ok_or_else(|| RegistryError::UploadInvalid {
        reason: format!("Content-Range is `{text}`, expected `<first byte>-<last byte>`"),
    })?;
    Ok(ChunkPlace { range: Some(range), announced_bytes })
}

/// Relative, so that it is right behind any proxy.
fn located(asked: &Asked, push: &MayPush, status: StatusCode, ticket: &Ticket) -> Response {
    let sealed = asked.app.registry.seal(push, ticket);
    let location = format!("/v2/{}/blobs/uploads/{}?state={sealed}", push.repo(), ticket.id());
    // For whoever begins: shorter chunks are taken too, but cost more.
    let begun = status == StatusCode::ACCEPTED && ticket.offset_bytes() == 0;
    let least = asked.app.registry.least_chunk_bytes().filter(|_| begun);
    reply::upload(status, &location, ticket.id().as_str(), ticket.offset_bytes(), least)
}
