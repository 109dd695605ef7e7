//! The registry's operations, in the specification's words. Each takes a proof of permission; none knows HTTP.
//!
//! An operation gathers what it needs, hands a machine of `protocol` to the store, and says what came of it.

mod blobs;
mod error;
mod hashing;
mod manifests;
mod memory;
mod names;
mod pace;
mod past;
mod receive;
mod referrers;
mod rope;
mod sparse;
mod ticket;
mod uploads;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use blobs::{BlobAnswer, BlobInfo, BlobRead, RedirectMode, Redirects};
pub use error::RegistryError;
pub use manifests::{PutManifestRequest, StoredReference};
pub use referrers::{REFERRERS_PAGE, REFERRERS_PAGE_BYTES, Referrers};
pub use sparse::SparsePolicy;
pub use ticket::Ticket;
pub use uploads::{ChunkPlace, Finished};

use tokio::time::Instant;

use crate::protocol::{Nonce, Nonces};
use crate::spec::{RepoName, Tag, TagPattern, UploadId};
use crate::storage::{PartPlan, Storage};
use hashing::Processors;
use memory::BodyMemory;

/// What the registry takes from its surroundings. Tests give fixed ones.
#[derive(Clone)]
pub struct Surroundings {
    /// The time, for people: RFC 3339 in UTC. Nothing is decided by it.
    pub now: Arc<dyn Fn() -> String + Send + Sync>,
    /// Random bits.
    pub random: Arc<dyn Fn() -> [u8; 16] + Send + Sync>,
}

impl fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Surroundings")
    }
}

/// The registry.
#[derive(Debug)]
pub struct Registry {
    storage: Arc<Storage>,
    surroundings: Surroundings,
    body_memory: BodyMemory,
    processors: Processors,
    redirects: Redirects,
    sparse: SparsePolicy,
    immutable: Vec<TagPattern>,
    /// When the keys that seal Locations and tokens were last read again.
    keys_read_at: tokio::sync::Mutex<Option<Instant>>,
    /// When the store last refused to sign an address.
    unsigned_at: std::sync::Mutex<Option<Instant>>,
}

/// How long keys that were read again are believed to be all, whoever shows what they do not open.
const KEYS_BELIEVED: Duration = Duration::from_secs(10);

impl Registry {
    /// A registry on an opened store.
    pub fn new(storage: impl Into<Arc<Storage>>, surroundings: Surroundings) -> Self {
        let storage = storage.into();
        let pool_bytes = match storage.part_plan() {
            PartPlan::Any => memory::SMALL_POOL_BYTES,
            PartPlan::Fixed { .. } => memory::POOL_BYTES,
        };
        let body_memory = BodyMemory::new(pool_bytes);
        let (redirects, sparse) = (Redirects::default(), SparsePolicy::default());
        let processors = Processors::new(1);
        Self {
            storage,
            surroundings,
            body_memory,
            processors,
            redirects,
            sparse,
            immutable: Vec::new(),
            keys_read_at: Default::default(),
            unsigned_at: Default::default(),
        }
    }

    /// The keys that seal Locations and tokens, read again unless that was done just now: for who is shown a token that no
    /// known key opens, as anybody can.
    pub async fn newest_keys(&self) -> Arc<[Vec<u8>]> {
        let mut read_at = self.keys_read_at.lock().await;
        if read_at.is_none_or(|at| at.elapsed() >= KEYS_BELIEVED) {
            *read_at = Some(Instant::now());
            if let Err(error) = self.storage.read_upload_keys_again().await {
                tracing::warn!(error = &error as &dyn std::error::Error, "the keys of tokens cannot be read again");
            }
        }
        self.storage.upload_keys()
    }

    /// The same registry on so many processors: as long as some have nothing to do, long uploads are hashed by threads of
    /// their own. Without this word it is one.
    pub fn with_processors(self, count: usize) -> Self {
        Self { processors: Processors::new(count), ..self }
    }

    /// How many bytes of memory are lent to bodies under way, and how many can be.
    pub fn body_memory_bytes(&self) -> (u64, u64) {
        self.body_memory.lent_bytes()
    }

    /// The same registry with another word on manifests that name what is absent.
    pub fn with_sparse(self, sparse: SparsePolicy) -> Self {
        Self { sparse, ..self }
    }

    /// The same registry with another word on which blobs clients fetch from the store itself.
    pub fn with_redirects(self, redirects: Redirects) -> Self {
        Self { redirects, ..self }
    }

    /// How long a chunk of an upload has to be that is not the last, where there is such a rule.
    pub fn least_chunk_bytes(&self) -> Option<u64> {
        self.storage.least_part_bytes()
    }

    /// The same registry with tags that keep the value they get first.
    pub fn with_immutable_tags(self, immutable: Vec<TagPattern>) -> Self {
        Self { immutable, ..self }
    }

    fn is_immutable(&self, repo: &RepoName, tag: &Tag) -> bool {
        self.immutable.iter().any(|pattern| pattern.fits(repo, tag))
    }

    /// Whether the store answers.
    pub async fn ready(&self) -> Result<(), RegistryError> {
        Ok(self.storage.ready().await?)
    }

    /// The store, for operators' orders and collection.
    pub fn storage(&self) -> &Arc<Storage> {
        &self.storage
    }

    /// The time, for stamps.
    pub(crate) fn now(&self) -> String {
        (self.surroundings.now)()
    }

    fn nonce(&self) -> Nonce {
        let mut bits = [0; 12];
        bits.copy_from_slice(&(self.surroundings.random)()[..12]);
        Nonce::from_bits(bits)
    }

    pub(crate) fn nonces(&self) -> Nonces {
        Nonces::new(self.nonce())
    }

    fn upload_id(&self) -> UploadId {
        UploadId::from_bits(u128::from_be_bytes((self.surroundings.random)()))
    }
}
