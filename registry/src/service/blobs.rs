//! Blobs: is it there, give it, take it away.

use std::ops::Range;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::time::Instant;

use super::Registry;
use super::error::RegistryError;
use crate::auth::{MayDelete, MayPull};
use crate::protocol::{DataId, DeleteBlob, FindBlob};
use crate::spec::{Digest, ReadRange};
use crate::storage::{Attachments, ByteStream};

/// How long an address is good for: a client may have to wait before it comes to fetch from it.
const REDIRECT_EXPIRES: Duration = Duration::from_secs(20 * 60);

/// How long a store that signed no address is not asked for another.
const UNSIGNED_FOR: Duration = Duration::from_secs(60);

/// A blob that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobInfo {
    /// Its digest.
    pub digest: Digest,
    /// Its size.
    pub size_bytes: u64,
}

/// A blob being read.
#[expect(missing_debug_implementations, reason = "a stream of bytes has nothing to show")]
pub struct BlobRead {
    /// The size of the whole blob.
    pub size_bytes: u64,
    /// The part that is read, when a part was asked for.
    pub part: Option<Range<u64>>,
    /// Its bytes.
    pub pieces: ByteStream,
}

/// How a blob is given.
#[expect(missing_debug_implementations, reason = "a stream of bytes has nothing to show")]
pub enum BlobAnswer {
    /// By us.
    Here(BlobRead),
    /// By the store, at this address.
    Elsewhere(String),
}

/// Which blobs clients fetch from the store itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Redirects {
    /// Whether they do at all.
    pub mode: RedirectMode,
    /// Smaller blobs come from us.
    pub min_bytes: u64,
}

/// Whether clients fetch blobs from the store itself, where that can sign addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RedirectMode {
    /// Where every client can be expected to reach it.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl Redirects {
    /// Below this a request to another host costs more than it saves.
    pub const MIN_BYTES: u64 = 1024 * 1024;

    fn apply_to(self, size_bytes: u64, public: bool) -> bool {
        let wanted = match self.mode {
            RedirectMode::Auto => public,
            RedirectMode::Always => true,
            RedirectMode::Never => false,
        };
        wanted && size_bytes >= self.min_bytes
    }
}

impl Default for Redirects {
    fn default() -> Self {
        Self { mode: RedirectMode::default(), min_bytes: Self::MIN_BYTES }
    }
}

impl Registry {
    /// Whether the repository has the blob, in such a way that it can be relied on.
    pub async fn blob(&self, pull: &MayPull, digest: &Digest) -> Result<BlobInfo, RegistryError> {
        let operation = FindBlob::new(pull.repo().clone(), digest.clone());
        match self.storage.run(operation, &Attachments::default()).await? {
            Some(link) => Ok(BlobInfo { digest: link.digest, size_bytes: link.size_bytes }),
            None => Err(unknown(pull, digest)),
        }
    }

    /// The blob's bytes, or where they are. What is about to be collected is served as long as it is there.
    pub async fn read_blob(
        &self,
        pull: &MayPull,
        digest: &Digest,
        range: Option<ReadRange>,
    ) -> Result<BlobAnswer, RegistryError> {
        let links = self.storage.links_in(pull.repo(), digest).await?;
        // The greatest, as for HEAD. That its data is there is not asked for: a link says so, and the list has to do.
        if let Some(link) = links.iter().max()
            && self.redirects.apply_to(link.size_bytes, self.storage.data_address_is_public())
            && let Some(address) = self.address(&link.data).await
        {
            return Ok(BlobAnswer::Elsewhere(address));
        }
        for link in links {
            let part = match range.map(|range| range.within(link.size_bytes)) {
                Some(None) => return Err(RegistryError::RangeOutside { size_bytes: link.size_bytes }),
                part => part.flatten(),
            };
            if let Some(pieces) = self.storage.read_data(&link.data, part.clone()).await? {
                return Ok(BlobAnswer::Here(BlobRead { size_bytes: link.size_bytes, part, pieces }));
            }
        }
        Err(unknown(pull, digest))
    }

    /// An address for clients; none where the store cannot sign one, or does not let us. Then we serve the bytes, and ask
    /// again in a while: some identities of clouds may read and write, and not sign.
    async fn address(&self, data: &DataId) -> Option<String> {
        let refused_at = || self.unsigned_at.lock().unwrap_or_else(PoisonError::into_inner);
        if refused_at().is_some_and(|at| at.elapsed() < UNSIGNED_FOR) {
            return None;
        }
        match self.storage.data_address(data, REDIRECT_EXPIRES).await {
            Ok(address) => address,
            Err(error) => {
                *refused_at() = Some(Instant::now());
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the store signs no address: large blobs are served by this registry; `--redirect never` asks for none"
                );
                None
            }
        }
    }

    /// Takes the blob from the repository.
    pub async fn delete_blob(&self, delete: &MayDelete, digest: &Digest) -> Result<(), RegistryError> {
        let operation = DeleteBlob::new(delete.repo().clone(), digest.clone());
        if self.storage.run(operation, &Attachments::default()).await? {
            Ok(())
        } else {
            Err(RegistryError::BlobUnknown { repo: delete.repo().clone(), digest: digest.clone() })
        }
    }
}

fn unknown(pull: &MayPull, digest: &Digest) -> RegistryError {
    RegistryError::BlobUnknown { repo: pull.repo().clone(), digest: digest.clone() }
}
