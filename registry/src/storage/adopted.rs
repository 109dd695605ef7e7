//! What a CNCF distribution registry (v2 and v3 lay it out alike) keeps in the same store, read in place.
//!
//! ```text
//! docker/registry/v2/blobs/<alg>/<ab>/<hex>/data
//! docker/registry/v2/repositories/<name>/_layers/<alg>/<hex>/link
//! docker/registry/v2/repositories/<name>/_manifests/revisions/<alg>/<hex>/link
//! docker/registry/v2/repositories/<name>/_manifests/tags/<tag>/current/link
//! ```
//! A link holds the digest of the data, which is the one in its key, except where the key's is not sha256. Nothing here
//! is ever written; what is remembered about it are objects of our own below `adopt/`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::SystemTime;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::list::PaginatedListOptions;
use object_store::{ObjectMeta, ObjectStore};
use serde::{Deserialize, Serialize};

use super::perform::{Age, PAGE_KEYS, SIDE_BY_SIDE};
use super::{Storage, StorageError, StoreTime, keys};
use crate::protocol::{DataId, Nonce, TagItems};
use crate::spec::{Algorithm, Digest, RepoName, Tag};

/// Where a CNCF distribution registry keeps everything.
const ROOT: &str = "docker/registry/v2/";
const REPOSITORIES: &str = "docker/registry/v2/repositories/";
/// GitLab's registry leaves it where a database, and not the store, says what there is.
const DATABASE_LOCK: &str = "docker/registry/lockfiles/database-in-use";

/// A link of the other registry: what it is the link of, and whose data it names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AdoptedLink {
    /// What clients ask for.
    pub digest: Digest,
    /// Where its bytes are.
    pub data: Digest,
    /// When it was written, by the store.
    pub since: SystemTime,
}

/// A tag of the other registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdoptedTag {
    /// Its name, as it stands in the key.
    pub name: String,
    /// Its value.
    pub digest: Digest,
    /// When it got it, by the store.
    pub since: SystemTime,
}

/// The other registry's data, and how much each is.
#[derive(Debug, Default)]
pub struct AdoptedBlobs(HashMap<Box<[u8]>, u64>);

impl AdoptedBlobs {
    /// Size in bytes; `None` when there is no such data.
    pub fn size_bytes(&self, digest: &Digest) -> Option<u64> {
        self.0.get(&compact(digest)).copied()
    }
}

/// A digest in a third of its size: there may be millions.
fn compact(digest: &Digest) -> Box<[u8]> {
    let mut bytes = hex::decode(digest.hex()).unwrap_or_default();
    bytes.push(u8::from(digest.algorithm() == Algorithm::Sha512));
    bytes.into()
}

/// What earlier runs took over from one repository.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdoptionRecord {
    /// Blobs.
    pub layers: BTreeSet<String>,
    /// Manifests.
    pub manifests: BTreeSet<String>,
    /// Tags, and the value that each had there.
    pub tags: BTreeMap<String, String>,
    /// Manifests that it has and that could not be taken over. What they name is only there.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub left_behind: BTreeSet<String>,
}

/// How far adoption is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adoption {
    /// There was none.
    None,
    /// The other registry may still write.
    Begun,
    /// It does not any more.
    Finished,
}

impl Storage {
    /// Whether a CNCF distribution registry keeps something here.
    pub async fn holds_distribution(&self) -> Result<bool, StorageError> {
        Ok(!self.list_page(ROOT, None, 1).await?.0.is_empty())
    }

    /// Whether it is one whose database, and not the store, says what there is (GitLab).
    pub async fn holds_database_lock(&self) -> Result<bool, StorageError> {
        self.is_there(DATABASE_LOCK).await
    }

    /// Names of its repositories, as they stand in keys, in order.
    pub async fn adopted_repositories(&self) -> Result<BTreeSet<String>, StorageError> {
        let mut names = BTreeSet::new();
        let mut after: Option<String> = None;
        loop {
            let (page, next) = self.list_page(REPOSITORIES, after, PAGE_KEYS).await?;
            let mut skip = None;
            for key in &page {
                let Some((name, kind)) = key.strip_prefix(REPOSITORIES).and_then(|rest| rest.split_once("/_")) else {
                    continue;
                };
                names.insert(name.to_owned());
                // What stands below this part of the repository says nothing new. `0` follows `/`.
                skip = kind.split('/').next().map(|kind| format!("{REPOSITORIES}{name}/_{kind}0"));
            }
            if next.is_none() {
                return Ok(names);
            }
            after = skip.or(next);
        }
    }

    /// Sizes of all its data. A list of everything below `blobs/`.
    pub async fn adopted_blobs(&self) -> Result<AdoptedBlobs, StorageError> {
        let mut blobs = AdoptedBlobs::default();
        self.each_below(keys::ADOPTED_BLOBS, |object| {
            if let Some(DataId::Adopted(digest)) = keys::parse_data(object.location.as_ref()) {
                blobs.0.insert(compact(&digest), object.size);
            }
        })
        .await?;
        Ok(blobs)
    }

    /// The blobs that one of its repositories has.
    pub async fn adopted_layers(&self, repo: &RepoName) -> Result<Vec<AdoptedLink>, StorageError> {
        self.adopted_links(&format!("{REPOSITORIES}{repo}/_layers/")).await
    }

    /// The manifests that one of its repositories has.
    pub async fn adopted_manifests(&self, repo: &RepoName) -> Result<Vec<AdoptedLink>, StorageError> {
        self.adopted_links(&format!("{REPOSITORIES}{repo}/_manifests/revisions/")).await
    }

    async fn adopted_links(&self, prefix: &str) -> Result<Vec<AdoptedLink>, StorageError> {
        let mut digests = Vec::new();
        self.each_below(prefix, |object| {
            let key = object.location.as_ref();
            // Schema 1 kept signatures below its revisions: their keys are longer.
            let mut parts = key.strip_prefix(prefix).unwrap_or_default().split('/');
            if let (Some(algorithm), Some(hex), Some("link"), None) =
                (parts.next(), parts.next(), parts.next(), parts.next())
                && let Ok(digest) = format!("{algorithm}:{hex}").parse::<Digest>()
            {
                digests.push((key.to_owned(), digest, object.last_modified.into()));
            }
        })
        .await?;
        stream::iter(digests)
            .map(|(key, digest, since)| async move {
                if digest.algorithm() == Algorithm::Sha256 {
                    return Ok(Some(AdoptedLink { data: digest.clone(), digest, since }));
                }
                let data = self.adopted_link(&key).await?;
                Ok(data.map(|data| AdoptedLink { digest, data, since }))
            })
            .buffered(SIDE_BY_SIDE)
            .try_filter_map(async |link| Ok(link))
            .try_collect()
            .await
    }

    /// The tags of one of its repositories.
    pub async fn adopted_tags(&self, repo: &RepoName) -> Result<Vec<AdoptedTag>, StorageError> {
        let prefix = format!("{REPOSITORIES}{repo}/_manifests/tags/");
        let mut found = Vec::new();
        self.each_below(&prefix, |object| {
            let key = object.location.as_ref();
            if let Some((name, "current/link")) = key.strip_prefix(&prefix).and_then(|rest| rest.split_once('/')) {
                found.push((key.to_owned(), name.to_owned(), object.last_modified.into()));
            }
        })
        .await?;
        stream::iter(found)
            .map(|(key, name, since)| async move {
                let digest = self.adopted_link(&key).await?;
                Ok(digest.map(|digest| AdoptedTag { name, digest, since }))
            })
            .buffered(SIDE_BY_SIDE)
            .try_filter_map(async |tag| Ok(tag))
            .try_collect()
            .await
    }

    /// What a link holds; `None` when it went, or holds no digest.
    async fn adopted_link(&self, key: &str) -> Result<Option<Digest>, StorageError> {
        let content = self.read_small(key, "reading a link of the other registry").await?;
        Ok(content.and_then(|content| std::str::from_utf8(&content).ok()?.trim().parse().ok()))
    }

    /// The bytes of one of its manifests; `None` when they are not there.
    pub async fn adopted_manifest(&self, data: &Digest) -> Result<Option<Bytes>, StorageError> {
        let key = keys::data(&DataId::Adopted(data.clone()));
        self.read_small(&key, "reading a manifest of the other registry").await
    }

    async fn each_below(&self, prefix: &str, mut each: impl FnMut(&ObjectMeta)) -> Result<(), StorageError> {
        let mut after = None;
        loop {
            let options = PaginatedListOptions { offset: after, max_keys: Some(PAGE_KEYS), ..Default::default() };
            let page = self.port.0.list_paginated(Some(prefix), options).await;
            let page = page.map_err(|source| StorageError::new("listing what the other registry has", source))?;
            page.result.objects.iter().for_each(&mut each);
            // The port's contract leaves the order within a page open.
            let last = page.result.objects.iter().map(|object| object.location.as_ref()).max();
            match (page.page_token, last) {
                (Some(_), Some(last)) => after = Some(last.to_owned()),
                _ => return Ok(()),
            }
        }
    }

    /// Everything listed of one tag of ours.
    pub async fn tag_of(&self, repo: &RepoName, tag: &Tag) -> Result<TagItems, StorageError> {
        Ok(self.tag_items(&keys::tag(repo, tag), Age::Now).await?.pop().unwrap_or_default())
    }

    /// How far adoption is.
    pub async fn adoption(&self) -> Result<Adoption, StorageError> {
        let found = self.list_all(keys::ADOPTION).await?;
        Ok(match found.iter().any(|key| key.starts_with(keys::ADOPTION_FINISHED)) {
            true => Adoption::Finished,
            false if found.is_empty() => Adoption::None,
            false => Adoption::Begun,
        })
    }

    /// Notes that adoption has begun, or that the other registry is off for good.
    pub async fn note_adoption(&self, finished: bool, nonce: &Nonce) -> Result<(), StorageError> {
        self.put(&keys::adoption(finished, nonce), Bytes::new(), "noting the adoption").await
    }

    /// Notes that the adopted data is ours alone.
    pub async fn release_adopted(&self, nonce: &Nonce) -> Result<(), StorageError> {
        self.put(&keys::adoption_released(nonce), Bytes::new(), "noting the adoption").await
    }

    /// Since when the adopted data is ours alone; `None` while it is not.
    pub async fn adopted_released(&self) -> Result<Option<StoreTime>, StorageError> {
        let written = self.list_dated(keys::ADOPTION_RELEASED).await?.into_iter().map(|(_, written)| written).min();
        Ok(written.map(StoreTime::from))
    }

    /// Which of these digests are of blobs that were taken over, and that nothing which was left behind may name.
    pub async fn taken_over(&self, digests: &BTreeSet<String>) -> Result<BTreeSet<String>, StorageError> {
        let (mut taken, mut needed) = (BTreeSet::new(), BTreeSet::new());
        let keys = self.list_all(keys::ADOPTION_RECORDS).await?;
        let repos: BTreeSet<RepoName> = keys.iter().filter_map(|key| keys::parse_adopted_repository(key)).collect();
        for repo in repos {
            let (record, _) = self.adoption_record(&repo).await?;
            let into = if record.left_behind.is_empty() { &mut taken } else { &mut needed };
            into.extend(digests.intersection(&record.layers).cloned());
        }
        taken.retain(|digest| !needed.contains(digest));
        Ok(taken)
    }

    /// What earlier runs took over from a repository, and the number of the last of them.
    pub async fn adoption_record(&self, repo: &RepoName) -> Result<(AdoptionRecord, u32), StorageError> {
        let during = "reading what was adopted before";
        let records = self.list_all(&keys::adoption_records(repo)).await?;
        let Some(last) = records.last() else { return Ok(Default::default()) };
        let content = self.read_small(last, during).await?.unwrap_or_default();
        let record = serde_json::from_slice(&content)
            .map_err(|error| StorageError::damaged(during, format!("`{last}` is damaged: {error}")))?;
        Ok((record, keys::parse_adoption_record(last).unwrap_or(0)))
    }

    /// Writes record number `number`, and removes the older ones.
    pub async fn record_adoption(
        &self,
        repo: &RepoName,
        record: &AdoptionRecord,
        number: u32,
        nonce: &Nonce,
    ) -> Result<(), StorageError> {
        let during = "recording what was adopted";
        let older = self.list_all(&keys::adoption_records(repo)).await?;
        let content = serde_json::to_vec(record).map_err(|error| StorageError::damaged(during, error))?;
        self.put(&keys::adoption_record(repo, number, nonce), content, during).await?;
        let older = older.into_iter().filter(|key| keys::parse_adoption_record(key).is_some_and(|n| n < number));
        let during = "removing older records of what was adopted";
        let paths: Vec<_> = older.map(|key| keys::path(&key)).collect();
        let mut removed = self.port.0.delete_stream(stream::iter(paths).boxed());
        while let Some(result) = removed.next().await {
            match result {
                Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                Err(source) => return Err(StorageError::new(during, source)),
            }
        }
        Ok(())
    }
}
