//! What operators' orders walk through, page by page.

use std::time::SystemTime;

use object_store::list::PaginatedListOptions;
use object_store::{GetOptions, ObjectMeta, ObjectStore};
use serde::{Deserialize, Serialize};

use super::keys::{self, TagItem};
use super::listing::Page;
use super::perform::PAGE_KEYS;
use super::{Stamp, Storage, StorageError};
use crate::protocol::{Copy, DataId, Link, Object};
use crate::spec::{Algorithm, Digest, RepoName};

/// How far a walk over keys has come. A walk begins with the default, and takes pages until one is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    after: Option<String>,
    ended: bool,
}

/// A key below `data/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DataItem {
    /// Bytes, and how many.
    Data(DataId, u64),
    /// Says which digest data has.
    Of(DataId, Digest),
    /// No key of this layout.
    Foreign(String),
}

/// Something that went, or was to go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// Its key.
    pub key: String,
    /// What that is, in words.
    #[serde(default)]
    pub what: String,
    /// Of which repository; none for data, which belongs to all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repo: Option<String>,
    /// Why.
    pub why: String,
    /// By whom, where a user did it and users have names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// When.
    pub time: String,
}

/// What is read of a collector's log.
#[derive(Deserialize)]
struct Log {
    time: String,
    removed: Vec<LogEntry>,
}

#[derive(Deserialize)]
struct LogEntry {
    key: String,
    digest: Option<String>,
    repo: Option<String>,
    why: serde_json::Value,
    by: Option<String>,
    at: Option<String>,
}

/// The parts of a repository's keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The index of its blobs.
    Blobs,
    /// The copies of manifests.
    Manifests,
    /// The referrers lists.
    Referrers,
    /// The tags.
    Tags,
}

impl Storage {
    /// The manifests of a repository, in the order of keys, after `last`.
    pub async fn manifest_digests(
        &self,
        repo: &RepoName,
        last: Option<&Digest>,
        max: usize,
    ) -> Result<Page<Digest>, StorageError> {
        let after = last.map(|last| past_all(&keys::copies(repo, last)));
        let digest = |key: &str| keys::parse_copy(key).map(|copy| copy.digest);
        self.digests_page(&keys::manifests(repo), after, max, digest).await
    }

    /// The blobs in a repository's own index, in the order of keys, after `last`. Each that it has is among them.
    pub async fn indexed_blobs(
        &self,
        repo: &RepoName,
        last: Option<&Digest>,
        max: usize,
    ) -> Result<Page<Digest>, StorageError> {
        let after = last.map(|last| past_all(&keys::blob_index(repo, last)));
        let digest = |key: &str| keys::parse_blob_index(key).map(|(_, digest, _)| digest);
        self.digests_page(&keys::blob_indexes(repo), after, max, digest).await
    }

    /// One page of the data in one of 256 slices: by the first two digits of its digest, or of its nonce.
    pub async fn data_page(&self, slice: u8, place: &mut Place) -> Result<Option<Vec<DataItem>>, StorageError> {
        let prefix = format!("data/{slice:02x}/");
        let page = self.objects_page(&prefix, place).await?;
        Ok(page.map(|page| page.iter().map(data_item).collect()))
    }

    /// One page of the data that was adopted, wherever it is.
    pub async fn adopted_page(&self, place: &mut Place) -> Result<Option<Vec<DataItem>>, StorageError> {
        let page = self.objects_page(keys::ADOPTED_BLOBS, place).await?;
        Ok(page.map(|page| page.iter().map(data_item).collect()))
    }

    /// One page of the links to blobs whose digests begin with these two digits.
    pub async fn links_page(
        &self,
        algorithm: Algorithm,
        slice: u8,
        place: &mut Place,
    ) -> Result<Option<Vec<Link>>, StorageError> {
        let prefix = format!("links/{algorithm}/{slice:02x}/");
        let page = self.objects_page(&prefix, place).await?;
        Ok(page.map(|page| page.iter().filter_map(|meta| keys::parse_link(meta.location.as_ref())).collect()))
    }

    /// The first repository, in the order of keys, that has any key and comes after `last`. One request each.
    pub async fn next_repository(&self, last: Option<&RepoName>) -> Result<Option<RepoName>, StorageError> {
        // All parts begin with a small letter, which `~` sorts after, and no component of a name begins with `_`.
        let mut after = last.map(|last| format!("repos/{last}/_~"));
        loop {
            let (page, next) = self.list_page("repos/", after, 1).await?;
            let Some(key) = page.into_iter().next() else { return Ok(None) };
            let name = key.strip_prefix("repos/").and_then(|rest| rest.split_once("/_")).map(|(name, _)| name);
            match name.and_then(|name| name.parse().ok()) {
                Some(repo) => return Ok(Some(repo)),
                // No key of ours.
                None if next.is_some() => after = Some(key),
                None => return Ok(None),
            }
        }
    }

    /// One page of a part of a repository, each with when the store got it.
    pub async fn repository_page(
        &self,
        repo: &RepoName,
        part: Part,
        place: &mut Place,
    ) -> Result<Option<Vec<(Object, SystemTime)>>, StorageError> {
        let prefix = match part {
            Part::Blobs => keys::blob_indexes(repo),
            Part::Manifests => keys::manifests(repo),
            Part::Referrers => keys::all_referrers(repo),
            Part::Tags => keys::tags(repo),
        };
        let parse = |key: &str| match part {
            Part::Blobs => {
                keys::parse_blob_index(key).map(|(repo, digest, nonce)| Object::BlobIndex(repo, digest, nonce))
            }
            Part::Manifests => keys::parse_copy(key).map(Object::Copy),
            Part::Referrers => {
                let (digest, nonce) = keys::parse_referrer(key)?;
                let subject = keys::parse_subject(key)?;
                Some(Object::Referrer { subject, copy: Copy { repo: repo.clone(), digest, nonce } })
            }
            Part::Tags => keys::parse_tag_item(key).map(|item| match item {
                TagItem::Entry(entry) => Object::Tag(entry),
                TagItem::End(end) => Object::End(end),
            }),
        };
        let page = self.objects_page(&prefix, place).await?;
        Ok(page.map(|page| {
            let objects = page.into_iter();
            let dated = objects.filter_map(|meta| Some((parse(meta.location.as_ref())?, meta.last_modified.into())));
            dated.collect()
        }))
    }

    /// How long data is; `None` when it is not there.
    pub async fn data_size(&self, id: &DataId) -> Result<Option<u64>, StorageError> {
        Ok(self.meta(&keys::data(id)).await?.map(|meta| meta.size))
    }

    /// When the store got an object; `None` when it is not there.
    pub async fn written_at(&self, object: &Object) -> Result<Option<SystemTime>, StorageError> {
        Ok(self.meta(&keys::object(object)).await?.map(|meta| meta.last_modified.into()))
    }

    /// Whether an object is there.
    pub async fn is_object_there(&self, object: &Object) -> Result<bool, StorageError> {
        Ok(self.meta(&keys::object(object)).await?.is_some())
    }

    /// Where an object is in the store, for people.
    pub fn key_of(object: &Object) -> String {
        keys::object(object)
    }

    /// Whether a repository has a manifest: one list.
    pub async fn has_manifest(&self, repo: &RepoName, digest: &Digest) -> Result<bool, StorageError> {
        Ok(!self.list_page(&keys::copies(repo, digest), None, 1).await?.0.is_empty())
    }

    /// Whether a repository's index has an entry of a blob: one list.
    pub async fn has_index_entry(&self, repo: &RepoName, digest: &Digest) -> Result<bool, StorageError> {
        self.has_trace(repo, digest).await
    }

    /// All links of a blob, whoever has them.
    pub async fn all_links(&self, digest: &Digest) -> Result<Vec<Link>, StorageError> {
        self.links(digest, None, super::perform::Age::Now).await
    }

    /// Whose a link is; `None` when it is gone, or does not say a name.
    pub async fn link_owner(&self, link: &Link) -> Result<Option<RepoName>, StorageError> {
        let content = self.read_small(&keys::link(link), "reading a link").await?;
        Ok(content.and_then(|name| String::from_utf8_lossy(&name).parse().ok()))
    }

    /// What collectors' logs tell of a blob or manifest. A log that cannot be read is passed over: it explains less.
    pub async fn removals_of(&self, digest: &Digest) -> Result<Vec<Removed>, StorageError> {
        let wanted = digest.to_string();
        let mut found = Vec::new();
        for key in self.list_all("gc/log/").await? {
            let Some(content) = self.read_small(&key, "reading the log of removals").await? else { continue };
            let Ok(log) = serde_json::from_slice::<Log>(&content) else { continue };
            for entry in log.removed.into_iter().filter(|entry| entry.digest.as_ref() == Some(&wanted)) {
                let why = entry.why.as_str().map_or_else(|| entry.why.to_string(), str::to_owned);
                let time = entry.at.unwrap_or_else(|| log.time.clone());
                let what = what_is(&entry.key);
                found.push(Removed { key: entry.key, what, repo: entry.repo, why, by: entry.by, time });
            }
        }
        found.sort_by(|a, b| (&a.time, &a.key).cmp(&(&b.time, &b.key)));
        Ok(found)
    }

    /// What hints tell of a manifest of a repository, or of a blob.
    pub async fn hints_of(&self, repo: &RepoName, digest: &Digest) -> Result<Vec<Removed>, StorageError> {
        let (copies, links) = (keys::copies(repo, digest), keys::links_of(digest, repo));
        let mut found = Vec::new();
        for (key, written) in self.list_dated("gc/hints/").await? {
            let Some(content) = self.read_small(&key, "reading a hint").await? else { continue };
            let is_deletion = key.ends_with(".deleted");
            let stamp = Stamp::before(&content);
            for line in String::from_utf8_lossy(&content).lines() {
                if line.starts_with(&copies) || line.starts_with(&links) {
                    let time = super::past::seconds(written).to_string();
                    let why =
                        if is_deletion { "deleted" } else { "a push that was refused left word of it" }.to_owned();
                    let (key, repo, by) = (line.to_owned(), Some(repo.to_string()), stamp.by.clone());
                    found.push(Removed { what: what_is(&key), key, repo, why, by, time });
                }
            }
        }
        Ok(found)
    }

    async fn meta(&self, key: &str) -> Result<Option<ObjectMeta>, StorageError> {
        let during = "looking for an object";
        let path = keys::path(key).map_err(|source| StorageError::new(during, source))?;
        match self.port.0.get_opts(&path, GetOptions { head: true, ..Default::default() }).await {
            Ok(found) => Ok(Some(found.meta)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(source) => Err(StorageError::new(during, source)),
        }
    }

    async fn objects_page(&self, prefix: &str, place: &mut Place) -> Result<Option<Vec<ObjectMeta>>, StorageError> {
        if place.ended {
            return Ok(None);
        }
        let options =
            PaginatedListOptions { offset: place.after.take(), max_keys: Some(PAGE_KEYS), ..Default::default() };
        let page = self.port.0.list_paginated(Some(prefix), options).await;
        let page = page.map_err(|source| StorageError::new("listing objects", source))?;
        let mut objects = page.result.objects;
        // The port's contract leaves the order within a page open.
        objects.sort_by(|a, b| a.location.cmp(&b.location));
        place.after = objects.last().map(|last| last.location.to_string());
        place.ended = page.page_token.is_none() || place.after.is_none();
        Ok(Some(objects))
    }

    async fn digests_page(
        &self,
        prefix: &str,
        mut after: Option<String>,
        max: usize,
        digest: impl Fn(&str) -> Option<Digest>,
    ) -> Result<Page<Digest>, StorageError> {
        let mut items: Vec<Digest> = Vec::new();
        loop {
            let (page, next) = self.list_page(prefix, after, PAGE_KEYS).await?;
            for digest in page.iter().filter_map(|key| digest(key)) {
                if items.last() != Some(&digest) {
                    items.push(digest);
                }
            }
            if items.len() > max || next.is_none() {
                break;
            }
            after = next;
        }
        let more = items.len() > max;
        items.truncate(max);
        Ok(Page { items, more })
    }
}

/// What sorts after every key below a prefix that ends in `/`, and before every other: `0` follows `/`.
fn past_all(prefix: &str) -> String {
    format!("{}0", prefix.trim_end_matches('/'))
}

/// What a key of the protocol is to people.
fn what_is(key: &str) -> String {
    match keys::parse_object(key) {
        Some(Object::Data(_)) => "the bytes".to_owned(),
        Some(Object::DataOf(..)) => "the note that the bytes have this digest".to_owned(),
        Some(Object::Copy(_)) => "the manifest".to_owned(),
        Some(Object::Tag(entry)) => format!("the value of tag {}", entry.tag),
        Some(Object::History(entry)) => format!("the entry in the history of tag {}", entry.tag),
        Some(Object::Void(entry)) => format!("the note that tag {} never got this value", entry.tag),
        Some(Object::End(end)) => format!("the end of tag {}", end.tag),
        Some(Object::BlobIndex(..)) => "the entry in the list of blobs".to_owned(),
        Some(Object::Referrer { subject, .. }) => format!("the entry in the referrers of {subject}"),
        Some(Object::Catalog(_)) => "the entry in the catalog".to_owned(),
        _ if keys::parse_link(key).is_some() => "the link to the blob".to_owned(),
        _ if keys::parse_data(key).is_some() => "the adopted bytes".to_owned(),
        _ => format!("`{key}`"),
    }
}

fn data_item(meta: &ObjectMeta) -> DataItem {
    let key = meta.location.as_ref();
    if let Some(id) = keys::parse_data(key) {
        DataItem::Data(id, meta.size)
    } else if let Some((id, digest)) = keys::parse_data_of(key) {
        DataItem::Of(id, digest)
    } else {
        DataItem::Foreign(key.to_owned())
    }
}
