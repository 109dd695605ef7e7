//! Emptying a repository: its tags end, then its manifests go, then its links. Data that nobody else has is a
//! collector's then.
//!
//! Each step is the DELETE that a client could send, or several of them at once, so a push that comes meanwhile is as safe
//! as beside any DELETE: it is refused, or it is acknowledged and stays.

use futures_util::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};

use super::Admin;
use super::control::Progress;
use super::error::AdminError;
use crate::auth::{Authorizer, Caller};
use crate::protocol::DeleteTag;
use crate::service::RegistryError;
use crate::spec::RepoName;
use crate::storage::{Attachments, Stamp};

/// How many deletes are under way at once.
const SIDE_BY_SIDE: usize = 8;
/// How many names are taken at once.
const PAGE: usize = 1000;

/// What went.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deleted {
    /// The repository.
    pub repo: String,
    /// How many tags ended.
    pub tags: u64,
    /// How many manifests went.
    pub manifests: u64,
    /// How many blobs it has no more.
    pub blobs: u64,
    /// Whether it holds manifests that were pushed meanwhile.
    pub pushed_meanwhile: bool,
}

impl Admin {
    /// Takes everything out of a repository. Cannot be undone.
    pub async fn delete_repository(&self, repo: &RepoName, progress: &Progress) -> Result<Deleted, AdminError> {
        let storage = self.storage();
        if !storage.exists(repo).await? {
            return Err(self.unknown_repository(repo).await?);
        }
        let may = Authorizer::Everyone.delete(&Caller::operator(), repo).map_err(RegistryError::from)?;
        let stamp = Stamp { time: self.registry().now(), by: Caller::operator().name().map(str::to_owned) };
        let attachments = Attachments { stamp: stamp.encode(), ..Default::default() };
        let mut deleted = Deleted { repo: repo.to_string(), ..Default::default() };

        let mut last = None;
        loop {
            let page = storage.tag_names(repo, last.as_deref(), PAGE).await?;
            last = page.items.last().map(|tag| tag.to_string());
            let ends = stream::iter(page.items)
                .map(|tag| storage.run(DeleteTag::new(repo.clone(), tag), &attachments))
                .buffer_unordered(SIDE_BY_SIDE);
            deleted.tags += count(ends).await?;
            if !page.more {
                break;
            }
        }
        progress.say(format!("{} tags ended", deleted.tags));

        let mut last = None;
        loop {
            let page = storage.manifest_digests(repo, last.as_ref(), PAGE).await?;
            last = page.items.last().cloned();
            deleted.manifests += self.registry().delete_manifests(&may, page.items).await?;
            progress.say(format!("{} manifests removed", deleted.manifests));
            if !page.more {
                break;
            }
        }

        let mut last = None;
        loop {
            let page = storage.indexed_blobs(repo, last.as_ref(), PAGE).await?;
            last = page.items.last().cloned();
            let gone = stream::iter(page.items)
                .map(|digest| {
                    let may = &may;
                    async move {
                        match self.registry().delete_blob(may, &digest).await {
                            Ok(()) => Ok(true),
                            Err(RegistryError::BlobUnknown { .. }) => Ok(false),
                            Err(error) => Err(error),
                        }
                    }
                })
                .buffer_unordered(SIDE_BY_SIDE);
            deleted.blobs += count(gone).await?;
            progress.say(format!("{} blobs unlinked", deleted.blobs));
            if !page.more {
                break;
            }
        }
        deleted.pushed_meanwhile = !storage.manifest_digests(repo, None, 1).await?.items.is_empty();
        Ok(deleted)
    }
}

/// How many of them were there.
async fn count<E>(results: impl futures_util::Stream<Item = Result<bool, E>>) -> Result<u64, E> {
    results.try_fold(0, |count, was_there| async move { Ok(count + u64::from(was_there)) }).await
}
