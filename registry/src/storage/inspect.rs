//! What operators' orders walk through, page by page.

use super::keys;
use super::listing::Page;
use super::perform::PAGE_KEYS;
use super::{Storage, StorageError};
use crate::spec::{Digest, RepoName};

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
