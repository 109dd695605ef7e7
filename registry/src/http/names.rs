//! Lists: tags (`end-8`), referrers (`end-12`), and the catalog, which clients of old ask for.

use axum::response::Response;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;

use super::{Asked, reply};
use crate::service::RegistryError;
use crate::spec::{Digest, EMPTY_INDEX_MEDIA_TYPE, RepoName};

/// Most names of one page, and how many there are without `n`. A client that asks for no pages gets a `Link` too.
const PAGE_NAMES: usize = 1000;
const JSON: &str = "application/json";
/// What may stand unencoded in a parameter of a `Link`.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// `end-8`
pub(super) async fn tags(asked: &Asked, repo: RepoName) -> Result<Response, RegistryError> {
    let pull = asked.may_pull(&repo)?;
    let count = asked.query.count(PAGE_NAMES)?;
    let page = asked.app.registry.tags(&pull, asked.query.get("last"), count).await?;
    let tags: Vec<&str> = page.items.iter().map(|tag| tag.as_str()).collect();
    let next = tags.last().filter(|_| page.more).map(|last| next(&format!("/v2/{repo}/tags/list"), count, last));
    Ok(reply::page(JSON, &json!({ "name": repo.as_str(), "tags": tags }), next, false))
}

/// Repositories in order; `n` and `last` as for tags.
pub(super) async fn catalog(asked: &Asked) -> Result<Response, RegistryError> {
    let list = asked.may_list()?;
    let count = asked.query.count(PAGE_NAMES)?;
    let page = asked.app.registry.repositories(&list, asked.query.get("last"), count).await?;
    let repos: Vec<&str> = page.items.iter().map(|repo| repo.as_str()).collect();
    let next = repos.last().filter(|_| page.more).map(|last| next("/v2/_catalog", count, last));
    Ok(reply::page(JSON, &json!({ "repositories": repos }), next, false))
}

/// `end-12a`, `end-12b`
pub(super) async fn referrers(asked: &Asked, repo: RepoName, subject: Digest) -> Result<Response, RegistryError> {
    let pull = asked.may_pull(&repo)?;
    let artifact_type = asked.query.get("artifactType").filter(|wanted| !wanted.is_empty());
    let last: Option<Digest> = asked.query.get("last").map(str::parse).transpose()?;
    let found = asked.app.registry.referrers(&pull, &subject, artifact_type, last.as_ref()).await?;
    let index = json!({
        "schemaVersion": 2,
        "mediaType": EMPTY_INDEX_MEDIA_TYPE,
        "manifests": found.descriptors,
    });
    let next = found.next.map(|last| {
        let filter = artifact_type.map(|wanted| format!("artifactType={}&", encoded(wanted))).unwrap_or_default();
        format!("/v2/{repo}/referrers/{subject}?{filter}last={}", encoded(&last.to_string()))
    });
    Ok(reply::page(EMPTY_INDEX_MEDIA_TYPE, &index, next, artifact_type.is_some()))
}

fn next(path: &str, count: usize, last: &str) -> String {
    format!("{path}?n={count}&last={}", encoded(last))
}

fn encoded(value: &str) -> String {
    utf8_percent_encode(value, PLAIN).to_string()
}
