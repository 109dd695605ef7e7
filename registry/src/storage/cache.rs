//! What is kept in memory of the store, whichever it is.
//!
//! - Copies of manifests, by their key: a key is never written twice, so its content never changes. That a copy is *named*,
//!   by a tag or a list, is asked of the store each time; a port that answers such questions from memory is also asked
//!   whether the copy is still there. Elsewhere a copy that another replica removed between the list and the read may be
//!   served once more.
//! - Lists that many ask for at once are asked of the store once (`flight`).
//! - Links that were seen: whoever puts a manifest begins with them and sees afterwards, at the store, what became of them.
//! - With `--cache-seconds`, and only for reading, an older list will do.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::flight::Flights;
use super::{StorageError, StoredManifest};
use crate::protocol::{Copy, Link, RepoHash};
use crate::spec::{Digest, RepoName};

/// For the manifests, the lists, and the links that are kept.
const COPIES_MAX_BYTES: u64 = 16 * 1024 * 1024;
const LISTS_MAX_BYTES: u64 = 4 * 1024 * 1024;
const LINKS_MAX_BYTES: u64 = 2 * 1024 * 1024;
/// What keeping something costs besides its own bytes.
const ENTRY_BYTES: u64 = 400;
/// How many things of that kind there are about; sets the size of the tables, which grow.
const COPIES: usize = 1000;

#[derive(Clone, Debug)]
struct CopyWeight;

impl Weighter<Copy, StoredManifest> for CopyWeight {
    fn weight(&self, _: &Copy, manifest: &StoredManifest) -> u64 {
        manifest.bytes.len() as u64 + ENTRY_BYTES
    }
}

/// The keys below a prefix.
pub(super) type Keys = Arc<[String]>;

#[derive(Clone, Debug)]
struct ListWeight;

impl Weighter<String, (Instant, Keys)> for ListWeight {
    fn weight(&self, prefix: &String, (_, keys): &(Instant, Keys)) -> u64 {
        ENTRY_BYTES + prefix.len() as u64 + keys.iter().map(|key| key.len() as u64 + 24).sum::<u64>()
    }
}

/// A blob of a repository.
type BlobOf = (Digest, RepoHash);

#[derive(Clone, Debug)]
struct LinksWeight;

impl Weighter<BlobOf, Arc<[Link]>> for LinksWeight {
    fn weight(&self, _: &BlobOf, links: &Arc<[Link]>) -> u64 {
        ENTRY_BYTES * (1 + links.len() as u64)
    }
}

#[derive(Debug)]
pub(super) struct Kept {
    copies: Cache<Copy, StoredManifest, CopyWeight>,
    lists: Cache<String, (Instant, Keys), ListWeight>,
    links: Cache<BlobOf, Arc<[Link]>, LinksWeight>,
    flights: Flights<Keys, StorageError>,
    /// How old a list may be that a client reads from.
    older: Duration,
}

impl Default for Kept {
    fn default() -> Self {
        Self {
            copies: Cache::with_weighter(COPIES, COPIES_MAX_BYTES, CopyWeight),
            lists: Cache::with_weighter(COPIES, LISTS_MAX_BYTES, ListWeight),
            links: Cache::with_weighter(COPIES, LINKS_MAX_BYTES, LinksWeight),
            flights: Flights::default(),
            older: Duration::ZERO,
        }
    }
}

impl Kept {
    pub(super) fn set_older(&mut self, older: Duration) {
        self.older = older;
    }

    pub(super) fn copy(&self, copy: &Copy) -> Option<StoredManifest> {
        self.copies.get(copy)
    }

    pub(super) fn keep_copy(&self, copy: &Copy, manifest: &StoredManifest) {
        self.copies.insert(copy.clone(), manifest.clone());
    }

    pub(super) fn forget_copy(&self, copy: &Copy) {
        self.copies.remove(copy);
    }

    /// Links of a blob that were seen, if any were.
    pub(super) fn known_links(&self, digest: &Digest, repo: &RepoName) -> Option<Vec<Link>> {
        self.links.get(&(digest.clone(), RepoHash::of(repo))).map(|links| links.to_vec())
    }

    /// These were seen. That there are none is not kept: the next may come from any replica.
    pub(super) fn know_links(&self, digest: &Digest, repo: &RepoName, links: &[Link]) {
        let blob = (digest.clone(), RepoHash::of(repo));
        if links.is_empty() {
            self.links.remove(&blob);
        } else {
            self.links.insert(blob, links.into());
        }
    }

    /// A list that is asked for once, however many ask at the same time.
    pub(super) async fn list<F: Future<Output = Result<Vec<String>, StorageError>>>(
        &self,
        prefix: &str,
        ask: impl FnOnce() -> F,
    ) -> Result<Keys, StorageError> {
        self.flights.ask(prefix, || async { Ok(ask().await?.into()) }).await
    }

    /// A list that may be as old as the settings allow.
    pub(super) async fn older_list<F: Future<Output = Result<Keys, StorageError>>>(
        &self,
        prefix: &str,
        ask: impl FnOnce() -> F,
    ) -> Result<Keys, StorageError> {
        if self.older.is_zero() {
            return ask().await;
        }
        if let Some((at, keys)) = self.lists.get(prefix)
            && at.elapsed() < self.older
        {
            return Ok(keys);
        }
        let asked = Instant::now();
        let keys = ask().await?;
        self.lists.insert(prefix.to_owned(), (asked, keys.clone()));
        Ok(keys)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn an_older_list_serves_only_where_it_may() {
        let asked = Cell::new(0);
        let ask = || async {
            asked.set(asked.get() + 1);
            Ok::<Keys, StorageError>(vec![asked.get().to_string()].into())
        };
        let mut kept = Kept::default();
        for expected in ["1", "2"] {
            assert_eq!(*kept.older_list("p", ask).await.unwrap(), [expected]);
        }
        kept.set_older(Duration::from_secs(3600));
        for _ in 0..2 {
            assert_eq!(*kept.older_list("p", ask).await.unwrap(), ["3"]);
        }
        assert_eq!(*kept.older_list("q", ask).await.unwrap(), ["4"]);
        // What is older than that is asked again.
        kept.set_older(Duration::from_nanos(1));
        assert_eq!(*kept.older_list("p", ask).await.unwrap(), ["5"]);
    }
}
