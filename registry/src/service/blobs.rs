//! Blobs: is it there, give it, take it away.

use std::ops::Range;

use super::Registry;
use super::error::RegistryError;
use crate::auth::{MayDelete, MayPull};
use crate::protocol::{DeleteBlob, FindBlob};
use crate::spec::{Digest, ReadRange};
use crate::storage::{Attachments, ByteStream};

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

impl Registry {
    /// Whether the repository has the blob, in such a way that it can be relied on.
    pub async fn blob(&self, pull: &MayPull, digest: &Digest) -> Result<BlobInfo, RegistryError> {
        let operation = FindBlob::new(pull.repo().clone(), digest.clone());
        match self.storage.run(operation, &Attachments::default()).await? {
            Some(link) => Ok(BlobInfo { digest: link.digest, size_bytes: link.size_bytes }),
            None => Err(unknown(pull, digest)),
        }
    }

    /// The blob's bytes. What is about to be collected is served as long as it is there.
    pub async fn read_blob(
        &self,
        pull: &MayPull,
        digest: &Digest,
        range: Option<ReadRange>,
    ) -> Result<BlobRead, RegistryError> {
        for link in self.storage.links_in(pull.repo(), digest).await? {
            let part = match range.map(|range| range.within(link.size_bytes)) {
                Some(None) => return Err(RegistryError::RangeOutside { size_bytes: link.size_bytes }),
                part => part.flatten(),
            };
            if let Some(pieces) = self.storage.read_data(&link.data, part.clone()).await? {
                return Ok(BlobRead { size_bytes: link.size_bytes, part, pieces });
            }
        }
        Err(unknown(pull, digest))
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
