//! State of uploads that are longer than one part, and the word that one was cancelled.

use serde::{Deserialize, Serialize};

use super::keys::UploadItem;
use super::{DataWriter, Storage, StorageError, keys};
use crate::protocol::Nonce;
use crate::spec::{Algorithm, Hasher, UploadId};

/// Raised when the form of [`Session`] or of the hash's saved state changes; a state of another version is not taken up.
const VERSION: u32 = 1;

/// Names one state of an upload.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SessionName {
    /// The number of the PATCH after which it was.
    pub seq: u32,
    /// Makes it unique.
    pub nonce: Nonce,
}

/// What is known of an upload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UploadListing {
    /// Whether it was cancelled.
    pub cancelled: bool,
    /// Its states.
    pub sessions: Vec<SessionName>,
    /// Who is writing, or wrote, which state.
    pub claims: Vec<SessionName>,
}

/// The state of an upload after a PATCH.
#[derive(Clone, Debug)]
pub struct Session {
    /// How many bytes it has.
    pub offset_bytes: u64,
    /// Their hash so far.
    pub hasher: Hasher,
    /// Where they are.
    pub writer: DataWriter,
}

#[derive(Serialize, Deserialize)]
struct Written {
    version: u32,
    offset_bytes: u64,
    algorithm: String,
    hash_state: String,
    writer: DataWriter,
}

impl Storage {
    /// Lists what is known of an upload. One that never wrote a state has nothing.
    pub async fn upload_listing(&self, id: &UploadId) -> Result<UploadListing, StorageError> {
        let mut listing = UploadListing::default();
        for item in self.list_all(&keys::upload(id)).await?.iter().filter_map(|key| keys::parse_upload_item(key)) {
            match item {
                UploadItem::Cancelled => listing.cancelled = true,
                UploadItem::Session { seq, nonce } => listing.sessions.push(SessionName { seq, nonce }),
                UploadItem::Claim { seq, nonce } => listing.claims.push(SessionName { seq, nonce }),
            }
        }
        Ok(listing)
    }

    /// Cancels an upload for good.
    pub async fn cancel_upload(&self, id: &UploadId, nonce: &Nonce) -> Result<(), StorageError> {
        self.put(&keys::cancelled(id, nonce), bytes::Bytes::new(), "cancelling an upload").await
    }

    /// Says that the state `name` is about to be written. Whoever then lists another claim of that number has lost.
    pub async fn claim_upload(&self, id: &UploadId, name: &SessionName) -> Result<(), StorageError> {
        self.put(&keys::claim(id, name.seq, &name.nonce), bytes::Bytes::new(), "claiming an upload").await
    }

    /// Writes a state.
    pub async fn write_session(
        &self,
        id: &UploadId,
        name: &SessionName,
        session: &Session,
    ) -> Result<(), StorageError> {
        let during = "writing an upload's state";
        let written = Written {
            version: VERSION,
            offset_bytes: session.offset_bytes,
            algorithm: session.hasher.algorithm().name().to_owned(),
            hash_state: hex::encode(session.hasher.save()),
            writer: session.writer.clone(),
        };
        let content = serde_json::to_vec(&written).map_err(|error| StorageError::damaged(during, error))?;
        self.put(&keys::session(id, name.seq, &name.nonce), content, during).await
    }

    /// Reads a state; `None` when it is not there or not one that can be taken up.
    pub async fn read_session(&self, id: &UploadId, name: &SessionName) -> Result<Option<Session>, StorageError> {
        let key = keys::session(id, name.seq, &name.nonce);
        let content = self.read_small(&key, "reading an upload's state").await?;
        Ok(content.and_then(|content| {
            let written: Written = serde_json::from_slice(&content).ok().filter(|w: &Written| w.version == VERSION)?;
            let algorithm: Algorithm = written.algorithm.parse().ok()?;
            let hasher = Hasher::restore(algorithm, &hex::decode(written.hash_state).ok()?)?;
            Some(Session { offset_bytes: written.offset_bytes, hasher, writer: written.writer })
        }))
    }
}
