//! The log of removals: one small object for each batch, kept for 90 days. `explain` reads it.

use serde::{Deserialize, Serialize};

use super::report::Why;
use crate::protocol::{DataId, Object};
use crate::spec::{Digest, RepoName};
use crate::storage::{Stamp, Storage, StorageError, spelled};

/// Something that a collector removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removal {
    /// The object's key.
    pub key: String,
    /// Of which blob or manifest, where the key says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// In which repository; none for data, which belongs to all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repo: Option<String>,
    /// Why.
    pub why: Why,
    /// Who deleted it, where a user did and users have names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// When a user deleted it; a collector's own removals have the time of their batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// How long it was.
    #[serde(default)]
    pub size_bytes: u64,
    /// Which run removed it. The same for a batch, so it stands beside it in the store.
    #[serde(skip)]
    pub run: String,
    /// When, by the clock of whoever did. For people.
    #[serde(skip)]
    pub time: String,
}

impl Removal {
    pub(super) fn of(object: &Object, why: Why, size_bytes: u64) -> Self {
        let (digest, repo) = about(object);
        Self {
            key: spelled(object),
            digest: digest.map(Digest::to_string),
            repo: repo.map(RepoName::to_string),
            why,
            by: None,
            at: None,
            size_bytes,
            run: String::new(),
            time: String::new(),
        }
    }

    /// Something that a user deleted.
    pub(super) fn deleted(object: &Object, stamp: &Stamp) -> Self {
        Self { by: stamp.by.clone(), at: Some(stamp.time.clone()), ..Self::of(object, Why::Deleted, 0) }
    }

    /// Something that is no object of the protocol.
    pub(super) fn paper(key: String, why: Why, size_bytes: u64) -> Self {
        Self {
            key,
            digest: None,
            repo: None,
            why,
            by: None,
            at: None,
            size_bytes,
            run: String::new(),
            time: String::new(),
        }
    }

    /// The first part of its key, for the metrics.
    pub(super) fn kind(&self) -> &'static str {
        const KINDS: [(&str, &str); 11] = [
            ("data/", "data"),
            ("links/", "link"),
            ("uploads/", "upload"),
            ("gc/", "paper"),
            ("/_manifests/", "copy"),
            ("/_tags/", "tag"),
            ("/_history/", "history"),
            ("/_referrers/", "referrer"),
            ("/_blobs/", "index"),
            ("multipart/", "multipart"),
            ("temporary/", "temporary"),
        ];
        let kind = KINDS.iter().find(|(part, _)| match part.strip_prefix('/') {
            None => self.key.starts_with(part),
            Some(_) => self.key.contains(part),
        });
        kind.map_or("other", |(_, kind)| kind)
    }
}

fn about(object: &Object) -> (Option<&Digest>, Option<&RepoName>) {
    match object {
        Object::Data(DataId::Known(digest, _) | DataId::Adopted(digest)) => (Some(digest), None),
        Object::DataOf(_, digest) => (Some(digest), None),
        Object::Link(link, repo) => (Some(&link.digest), Some(repo)),
        Object::BlobIndex(repo, digest, _) => (Some(digest), Some(repo)),
        Object::Copy(copy) => (Some(&copy.digest), Some(&copy.repo)),
        Object::Referrer { copy, .. } => (Some(&copy.digest), Some(&copy.repo)),
        Object::Tag(entry) | Object::History(entry) | Object::Void(entry) => (Some(&entry.digest), Some(&entry.repo)),
        Object::End(end) => (None, Some(&end.repo)),
        Object::Catalog(repo) => (None, Some(repo)),
        Object::UploadClaim(..) => (None, None),
        Object::Data(DataId::Unknown(_))
        | Object::Hint(..)
        | Object::DeletedHint(..)
        | Object::TraceHint(..)
        | Object::Mark(..) => (None, None),
    }
}

/// The content of `gc/log/<id>`.
#[derive(Serialize, Deserialize)]
pub(super) struct Written {
    pub(super) run: String,
    pub(super) time: String,
    pub(super) removed: Vec<Removal>,
}

/// Everything of a blob or manifest that collectors removed in the last 90 days, oldest first. A log that cannot be read is
/// passed over: it explains less, and nothing depends on it.
pub async fn removals(storage: &Storage, digest: &Digest) -> Result<Vec<Removal>, StorageError> {
    let wanted = digest.to_string();
    let mut logs = storage.logs().await?;
    logs.sort_by_key(|log| log.written);
    let mut found = Vec::new();
    for log in logs {
        let Some(content) = storage.log(&log.item).await? else { continue };
        let Ok(written) = serde_json::from_slice::<Written>(&content) else { continue };
        let (run, time) = (written.run, written.time);
        let about = written.removed.into_iter().filter(|removal| removal.digest.as_ref() == Some(&wanted));
        found.extend(about.map(|removal| Removal { run: run.clone(), time: time.clone(), ..removal }));
    }
    Ok(found)
}
