//! State of uploads that are longer than one part, and the word that one was cancelled.

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::{ObjectStoreExt, PutPayload};
use serde::{Deserialize, Serialize};

use super::keys::UploadItem;
use super::{ByteStream, DataWriter, Storage, StorageError, keys};
use crate::protocol::Nonce;
use crate::spec::{Algorithm, Hasher, UploadId};

/// Raised when the form of [`Session`] or of the hash's saved state changes; a state of another version is not taken up.
const VERSION: u32 = 2;
/// A state's first line is shorter than this: 10,000 parts' tags, and 400 names of tails.
const HEAD_MAX_BYTES: usize = 4 * 1024 * 1024;

/// Names one state of an upload.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SessionName {
    /// The number of the PATCH after which it was.
    pub seq: u32,
    /// Makes it unique.
    pub nonce: Nonce,
}

/// Bytes of an upload that are no whole part yet, in an object of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tail {
    /// Makes its key unique.
    pub nonce: Nonce,
    /// How many bytes there are.
    pub size_bytes: u64,
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
    /// Where the first of them are.
    pub writer: DataWriter,
    /// Where those behind them are.
    pub tails: Vec<Tail>,
    /// How many are in the state itself: the last.
    pub rest_bytes: u64,
}

/// The first line of a state; what follows it are bytes of the upload.
#[derive(Serialize, Deserialize)]
struct Head {
    version: u32,
    offset_bytes: u64,
    algorithm: String,
    hash_state: String,
    writer: DataWriter,
    tails: Vec<(String, u64)>,
    rest_bytes: u64,
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
        self.put(&keys::cancelled(id, nonce), Bytes::new(), "cancelling an upload").await
    }

    /// Takes a claim back after which nothing was written.
    pub async fn unclaim_upload(&self, id: &UploadId, name: &SessionName) -> Result<(), StorageError> {
        let during = "giving up an upload's claim";
        let error = |source| StorageError::new(during, source);
        let path = keys::path(&keys::claim(id, name.seq, &name.nonce)).map_err(error)?;
        match self.port.0.delete(&path).await {
            Err(object_store::Error::NotFound { .. }) => Ok(()),
            result => result.map_err(error),
        }
    }

    /// Puts bytes aside that are no whole part yet.
    pub async fn put_tail(&self, id: &UploadId, tail: &Tail, pieces: Vec<Bytes>) -> Result<(), StorageError> {
        self.put(&keys::tail(id, &tail.nonce), PutPayload::from_iter(pieces), "putting a part's bytes aside").await
    }

    /// Reads what was put aside; `None` when it is not there.
    pub async fn read_tail(&self, id: &UploadId, tail: &Tail) -> Result<Option<ByteStream>, StorageError> {
        self.read_stream(&keys::tail(id, &tail.nonce), "reading a part's bytes").await
    }

    /// Writes a state; `rest` are the bytes that it holds itself.
    pub async fn write_session(
        &self,
        id: &UploadId,
        name: &SessionName,
        session: &Session,
        rest: Vec<Bytes>,
    ) -> Result<(), StorageError> {
        let during = "writing an upload's state";
        let head = Head {
            version: VERSION,
            offset_bytes: session.offset_bytes,
            algorithm: session.hasher.algorithm().name().to_owned(),
            hash_state: hex::encode(session.hasher.save()),
            writer: session.writer.clone(),
            tails: session.tails.iter().map(|tail| (tail.nonce.to_string(), tail.size_bytes)).collect(),
            rest_bytes: session.rest_bytes,
        };
        let mut line = serde_json::to_vec(&head).map_err(|error| StorageError::damaged(during, error))?;
        line.push(b'\n');
        let content = PutPayload::from_iter(std::iter::once(Bytes::from(line)).chain(rest));
        self.put(&keys::session(id, name.seq, &name.nonce), content, during).await
    }

    /// Reads a state, and the bytes that it holds itself; `None` when it is not there or not one that can be taken up.
    pub async fn read_session(
        &self,
        id: &UploadId,
        name: &SessionName,
    ) -> Result<Option<(Session, ByteStream)>, StorageError> {
        let key = keys::session(id, name.seq, &name.nonce);
        let Some(mut content) = self.read_stream(&key, "reading an upload's state").await? else { return Ok(None) };
        let mut line = BytesMut::new();
        let rest = loop {
            let Some(piece) = content.try_next().await? else { return Ok(None) };
            if let Some(end) = piece.iter().position(|byte| *byte == b'\n') {
                line.extend_from_slice(piece.get(..end).unwrap_or_default());
                break piece.slice(end + 1..);
            }
            line.extend_from_slice(&piece);
            if line.len() > HEAD_MAX_BYTES {
                return Ok(None);
            }
        };
        let session = Session::read(&line);
        Ok(session.map(|session| (session, stream::iter([Ok(rest)]).chain(content).boxed())))
    }
}

impl Session {
    fn read(line: &[u8]) -> Option<Self> {
        let head: Head = serde_json::from_slice(line).ok().filter(|head: &Head| head.version == VERSION)?;
        let algorithm: Algorithm = head.algorithm.parse().ok()?;
        let hasher = Hasher::restore(algorithm, &hex::decode(head.hash_state).ok()?)?;
        let tail = |(nonce, size_bytes): (String, u64)| Some(Tail { nonce: nonce.parse().ok()?, size_bytes });
        let tails: Vec<Tail> = head.tails.into_iter().map(tail).collect::<Option<_>>()?;
        let aside = tails.iter().try_fold(head.rest_bytes, |sum, tail| sum.checked_add(tail.size_bytes))?;
        let whole = head.writer.end_bytes().checked_add(aside) == Some(head.offset_bytes);
        let Head { offset_bytes, writer, rest_bytes, .. } = head;
        whole.then_some(Self { offset_bytes, hasher, writer, tails, rest_bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Memory;
    use proptest::prelude::*;

    #[tokio::test]
    async fn a_state_comes_back_with_its_bytes() {
        let storage = Storage::open(Memory::default(), [7; 32]).await.unwrap();
        let id = UploadId::from_bits(7);
        let name = SessionName { seq: 3, nonce: "aa".parse().unwrap() };
        let mut writer = storage.begin_data("ab".parse().unwrap()).await.unwrap();
        storage.add_part(&mut writer, vec!["12345".into()]).await.unwrap();
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(b"12345678\n0");
        let tails = vec![Tail { nonce: "ac".parse().unwrap(), size_bytes: 2 }];
        let session = Session { offset_bytes: 10, hasher, writer, tails: tails.clone(), rest_bytes: 3 };
        storage.write_session(&id, &name, &session, vec!["8\n".into(), "0".into()]).await.unwrap();
        let (back, rest) = storage.read_session(&id, &name).await.unwrap().unwrap();
        assert_eq!((back.offset_bytes, back.rest_bytes, back.tails), (10, 3, tails));
        assert_eq!((back.hasher.finish(), back.writer), (session.hasher.finish(), session.writer));
        assert_eq!(rest.try_collect::<Vec<_>>().await.unwrap().concat(), b"8\n0");
        let other = SessionName { seq: 4, nonce: name.nonce };
        assert!(storage.read_session(&id, &other).await.unwrap().is_none());
    }

    proptest! {
        #[test]
        fn a_damaged_state_is_none(line: Vec<u8>, text in r#"\{"version":2,"offset_bytes":[0-9]{1,3},.{0,60}\}"#) {
            prop_assert!(Session::read(&line).is_none());
            prop_assert!(Session::read(text.as_bytes()).is_none());
        }
    }
}
