//! Lists of names: tags, repositories, referrers.

use futures_util::{StreamExt, TryStreamExt, stream};

use super::Registry;
use super::error::RegistryError;
use crate::auth::{MayList, MayPull};
use crate::spec::{Descriptor, Digest, RepoName, Tag};
use crate::storage::{Page, StorageError};

/// Most entries of one page of referrers.
pub const REFERRERS_PAGE: usize = 1000;

/// A page of referrers.
#[derive(Clone, Debug, PartialEq)]
pub struct Referrers {
    /// The descriptors that were asked for.
    pub descriptors: Vec<Descriptor>,
    /// The last manifest looked at, when more follow.
    pub next: Option<Digest>,
}

impl Registry {
    /// Tags of a repository, in order.
    pub async fn tags(&self, pull: &MayPull, last: Option<&str>, max: usize) -> Result<Page<Tag>, RegistryError> {
        let page = self.storage.tag_names(pull.repo(), last, max).await?;
        if page.items.is_empty() && !self.storage.exists(pull.repo()).await? {
            return Err(RegistryError::NameUnknown { repo: pull.repo().clone() });
        }
        Ok(page)
    }

    /// Repositories, in order.
    pub async fn repositories(
        &self,
        list: &MayList,
        last: Option<&str>,
        max: usize,
    ) -> Result<Page<RepoName>, RegistryError> {
        Ok(self.storage.repo_names(last, max, |repo| list.shows(repo)).await?)
    }

    /// Manifests that refer to `subject`, which itself need not be there.
    pub async fn referrers(
        &self,
        pull: &MayPull,
        subject: &Digest,
        artifact_type: Option<&str>,
        last: Option<&Digest>,
    ) -> Result<Referrers, RegistryError> {
        let repo = pull.repo();
        let page = self.storage.referrer_names(repo, subject, last, REFERRERS_PAGE).await?;
        let next = page.items.last().filter(|_| page.more).map(|name| name.digest.clone());
        let entries: Vec<Option<bytes::Bytes>> = stream::iter(page.items)
            .map(|name| async move { self.storage.referrer(repo, subject, &name).await })
            .buffered(16)
            .try_collect()
            .await?;
        let mut descriptors = Vec::new();
        for entry in entries.into_iter().flatten() {
            let descriptor: Descriptor =
                serde_json::from_slice(&entry).map_err(|error| StorageError::damaged("reading a referrer", error))?;
            if artifact_type.is_none_or(|wanted| descriptor.artifact_type.as_deref() == Some(wanted)) {
                descriptors.push(descriptor);
            }
        }
        Ok(Referrers { descriptors, next })
    }
}
