//! Sparse images and indexes: manifests that name what is not in the repository.
//!
//! The specification lets a registry take them, and mirrors that hold some platforms or layers rely on it. What must not
//! happen is that a client which was told that a blob is there comes to acknowledge an image without it. So an image is
//! sparse only when its config and one layer are here and its repository has never heard of the others: a blob that was
//! deleted or collected leaves a trace for longer than any push lasts. The same goes for what an index lists as a blob.

use futures_util::{StreamExt, TryStreamExt, stream};

use super::Registry;
use super::error::RegistryError;
use crate::protocol::FindCopies;
use crate::spec::{Digest, Manifest, RepoName};
use crate::storage::Attachments;

/// How many lists are asked for at once.
const SIDE_BY_SIDE: usize = 16;

/// Which manifests may name what is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SparsePolicy {
    /// Images without some of their layers, and indexes without some of their manifests.
    #[default]
    Images,
    /// Indexes only.
    Indexes,
    /// None.
    Refuse,
}

impl Registry {
    /// Whether an image may be put although these blobs, of which the repository has no link, are absent.
    pub(super) async fn may_lack(
        &self,
        repo: &RepoName,
        manifest: &Manifest,
        absent: &[Digest],
    ) -> Result<bool, RegistryError> {
        let has = |digest: &&Digest| !absent.contains(digest);
        let enough = manifest.config.as_ref().filter(has).is_some() && manifest.layers.iter().any(|layer| has(&layer));
        let is_index = manifest.config.is_none();
        let allowed = match self.sparse {
            SparsePolicy::Images => is_index || enough,
            SparsePolicy::Indexes => is_index,
            SparsePolicy::Refuse => false,
        };
        if !allowed {
            return Ok(false);
        }
        let traces: Vec<bool> = stream::iter(absent.iter().cloned())
            .map(|digest| async move { self.storage.has_trace(repo, &digest).await })
            .buffered(SIDE_BY_SIDE)
            .try_collect()
            .await?;
        Ok(!traces.contains(&true))
    }

    /// Refuses an index whose manifests are not all here, where sparse indexes are not taken.
    pub(super) async fn check_children(&self, repo: &RepoName, manifest: &Manifest) -> Result<(), RegistryError> {
        if self.sparse != SparsePolicy::Refuse {
            return Ok(());
        }
        // What it lists as blobs is looked for with the blobs.
        let children = manifest.children.iter().filter(|child| !manifest.listed.contains(child));
        let children: Vec<Digest> = children.cloned().collect();
        let absent: Vec<Digest> = stream::iter(children)
            .map(|child| async move {
                let find = FindCopies::new(repo.clone(), child.clone());
                let copies = self.storage.run(find, &Attachments::default()).await?;
                Ok::<_, RegistryError>(copies.is_empty().then_some(child))
            })
            .buffered(SIDE_BY_SIDE)
            .try_filter_map(async |absent| Ok(absent))
            .try_collect()
            .await?;
        if absent.is_empty() {
            return Ok(());
        }
        Err(RegistryError::ManifestBlobUnknown { repo: repo.clone(), digests: absent })
    }
}
