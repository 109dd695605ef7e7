//! Lists: whole ones for operations, pages of names for clients.

use std::collections::BTreeMap;
use std::time::SystemTime;

use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::list::PaginatedListOptions;

use super::keys::{self, TagItem};
use super::perform::PAGE_KEYS;
use super::{Storage, StorageError};
use crate::protocol::{Nonce, TagItems};
use crate::spec::{Digest, RepoName, Tag};

/// A page of names in order, and whether more follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// The names.
    pub items: Vec<T>,
    /// Whether there are more after the last.
    pub more: bool,
}

/// One manifest that refers to another, and its copies' nonces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReferrerName {
    /// The manifest.
    pub digest: Digest,
    nonces: Vec<Nonce>,
}

impl Storage {
    /// Keys below a raw prefix, in order; at most `max`, greater than `after`.
    pub(super) async fn list_page(
        &self,
        prefix: &str,
        after: Option<String>,
        max: usize,
    ) -> Result<(Vec<String>, Option<String>), StorageError> {
        list_page(&self.port, prefix, after, max).await
    }

    pub(super) async fn list_all(&self, prefix: &str) -> Result<Vec<String>, StorageError> {
        list_all(&self.port, prefix).await
    }

    /// Every key below a raw prefix, in order, and when the store says it was written.
    pub(super) async fn list_dated(&self, prefix: &str) -> Result<Vec<(String, SystemTime)>, StorageError> {
        let mut all = Vec::new();
        let mut after = None;
        loop {
            let (page, next) = dated_page(&self.port, prefix, after, PAGE_KEYS).await?;
            all.extend(page);
            if next.is_none() {
                return Ok(all);
            }
            after = next;
        }
    }

    /// Tags of a repository that have a value, in order, after `last`.
    pub async fn tag_names(&self, repo: &RepoName, last: Option<&str>, max: usize) -> Result<Page<Tag>, StorageError> {
        let mut after = last.map(|last| keys::after_tag(repo, last));
        let mut found = Vec::new();
        let mut current: Option<(Tag, TagItems)> = None;
        let settle = |found: &mut Vec<Tag>, current: Option<(Tag, TagItems)>| {
            if let Some((tag, items)) = current
                && !items.standing().is_empty()
            {
                found.push(tag);
            }
        };
        loop {
            let (page, next) = self.list_page(&keys::tags(repo), after, PAGE_KEYS).await?;
            for item in page.iter().filter_map(|key| keys::parse_tag_item(key)) {
                if current.as_ref().is_none_or(|(tag, _)| tag != item.tag()) {
                    settle(&mut found, current.take());
                    if found.len() > max {
                        break;
                    }
                }
                let (_, items) = current.get_or_insert_with(|| (item.tag().clone(), TagItems::default()));
                match item {
                    TagItem::Entry(entry) => items.entries.push(entry),
                    TagItem::End(end) => items.ends.push(end),
                }
            }
            if found.len() > max || next.is_none() {
                break;
            }
            after = next;
        }
        settle(&mut found, current);
        let more = found.len() > max;
        found.truncate(max);
        Ok(Page { items: found, more })
    }

    /// Repositories that hold a manifest and may be shown, in order, after `last`.
    pub async fn repo_names(
        &self,
        last: Option<&str>,
        max: usize,
        may_show: impl Fn(&RepoName) -> bool,
    ) -> Result<Page<RepoName>, StorageError> {
        let mut after = last.map(keys::after_repo);
        let mut found = Vec::new();
        loop {
            let (page, next) = self.list_page(keys::CATALOG, after, PAGE_KEYS).await?;
            let repos: Vec<RepoName> =
                page.iter().filter_map(|key| keys::parse_catalog(key)).filter(&may_show).collect();
            let mut filled = stream::iter(repos)
                .map(|repo| async move { Ok::<_, StorageError>((self.holds_manifest(&repo).await?, repo)) })
                .buffered(8);
            while let Some((holds, repo)) = filled.try_next().await? {
                if holds {
                    found.push(repo);
                }
                if found.len() > max {
                    found.truncate(max);
                    return Ok(Page { items: found, more: true });
                }
            }
            if next.is_none() {
                return Ok(Page { items: found, more: false });
            }
            after = next;
        }
    }

    async fn holds_manifest(&self, repo: &RepoName) -> Result<bool, StorageError> {
        Ok(!self.list_page(&keys::manifests(repo), None, 1).await?.0.is_empty())
    }

    /// Whether anything was ever pushed to the repository.
    pub async fn exists(&self, repo: &RepoName) -> Result<bool, StorageError> {
        if self.is_catalogued(repo) {
            return Ok(true);
        }
        let exists = self.is_there(&keys::object(&crate::protocol::Object::Catalog(repo.clone()))).await?;
        if exists {
            self.remember_catalogued(repo);
        }
        Ok(exists)
    }

    /// Manifests that refer to `subject`, in order, after `last`.
    pub async fn referrer_names(
        &self,
        repo: &RepoName,
        subject: &Digest,
        last: Option<&Digest>,
        max: usize,
    ) -> Result<Page<ReferrerName>, StorageError> {
        let mut after = last.map(|last| keys::after_referrer(repo, subject, last));
        let mut found: BTreeMap<Digest, Vec<Nonce>> = BTreeMap::new();
        loop {
            let (page, next) = self.list_page(&keys::referrers(repo, subject), after, PAGE_KEYS).await?;
            for (digest, nonce) in page.iter().filter_map(|key| keys::parse_referrer(key)) {
                found.entry(digest).or_default().push(nonce);
            }
            if found.len() > max || next.is_none() {
                break;
            }
            after = next;
        }
        let more = found.len() > max;
        let items = found.into_iter().take(max).map(|(digest, nonces)| ReferrerName { digest, nonces });
        Ok(Page { items: items.collect(), more })
    }

    /// The descriptor that a referrer's entry holds, as it was written; `None` when the entry went meanwhile.
    pub async fn referrer(
        &self,
        repo: &RepoName,
        subject: &Digest,
        name: &ReferrerName,
    ) -> Result<Option<bytes::Bytes>, StorageError> {
        for nonce in &name.nonces {
            let copy = crate::protocol::Copy { repo: repo.clone(), digest: name.digest.clone(), nonce: nonce.clone() };
            let key = keys::object(&crate::protocol::Object::Referrer { subject: subject.clone(), copy });
            if let Some(content) = self.read_small(&key, "reading a referrer").await? {
                return Ok(Some(content));
            }
        }
        Ok(None)
    }
}

pub(super) async fn list_page(
    port: &super::Handle,
    prefix: &str,
    after: Option<String>,
    max: usize,
) -> Result<(Vec<String>, Option<String>), StorageError> {
    let (page, next) = dated_page(port, prefix, after, max).await?;
    Ok((page.into_iter().map(|(key, _)| key).collect(), next))
}

async fn dated_page(
    port: &super::Handle,
    prefix: &str,
    after: Option<String>,
    max: usize,
) -> Result<(Vec<(String, SystemTime)>, Option<String>), StorageError> {
    let options = PaginatedListOptions { offset: after, max_keys: Some(max), ..Default::default() };
    let page = port.0.list_paginated(Some(prefix), options).await;
    let page = page.map_err(|source| StorageError::new("listing objects", source))?;
    let objects = page.result.objects.into_iter();
    let mut keys: Vec<_> = objects.map(|object| (object.location.into(), object.last_modified.into())).collect();
    // The port's contract leaves the order within a page open.
    keys.sort();
    let next = page.page_token.is_some().then(|| keys.last().map(|(key, _): &(String, _)| key.clone())).flatten();
    Ok((keys, next))
}

pub(super) async fn list_all(port: &super::Handle, prefix: &str) -> Result<Vec<String>, StorageError> {
    let mut all = Vec::new();
    let mut after = None;
    loop {
        let (keys, next) = list_page(port, prefix, after, PAGE_KEYS).await?;
        all.extend(keys);
        if next.is_none() {
            return Ok(all);
        }
        after = next;
    }
}
