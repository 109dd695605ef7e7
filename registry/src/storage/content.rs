//! Bytes: the data of blobs, written as it arrives and read in pieces, and the copies of manifests.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use object_store::multipart::PartId;
use object_store::{GetOptions, GetRange, ObjectStore, PutPayload};
use serde::{Deserialize, Serialize};

use super::{Storage, StorageError, keys};
use crate::protocol::{Copy, DataId};
use crate::spec::Digest;

/// Pieces of a blob, as the store hands them out.
pub type ByteStream = BoxStream<'static, Result<Bytes, StorageError>>;

/// A manifest as stored: the bytes as they were received, and what the request said about them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredManifest {
    /// Served as `Content-Type`.
    pub media_type: String,
    /// As received.
    pub bytes: Bytes,
    /// Blobs that it names and that were absent when it was put.
    pub absent: Vec<Digest>,
}

#[derive(Serialize, Deserialize)]
struct Header {
    media_type: String,
    time: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pusher: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    absent: Vec<String>,
}

impl Header {
    fn split(content: &Bytes) -> Option<(Self, Bytes)> {
        let end = content.iter().position(|byte| *byte == b'\n')?;
        Some((serde_json::from_slice(content.get(..end)?).ok()?, content.slice(end + 1..)))
    }

    fn before(&self, bytes: &[u8]) -> Bytes {
        // Strings always become JSON.
        let mut content = serde_json::to_vec(self).unwrap_or_default();
        content.push(b'\n');
        content.extend_from_slice(bytes);
        content.into()
    }
}

impl StoredManifest {
    /// What a copy holds: one line of JSON (media type, time, pusher, what is absent), then the exact bytes.
    pub fn encode(&self, time: &str, pusher: Option<&str>) -> Bytes {
        let header = Header {
            media_type: self.media_type.clone(),
            time: time.to_owned(),
            pusher: pusher.map(str::to_owned),
            absent: self.absent.iter().map(Digest::to_string).collect(),
        };
        header.before(&self.bytes)
    }

    pub(super) fn decode(content: &Bytes) -> Option<Self> {
        let (header, bytes) = Header::split(content)?;
        let absent = header.absent.iter().map(|digest| digest.parse().ok()).collect::<Option<_>>()?;
        Some(Self { media_type: header.media_type, bytes, absent })
    }
}

/// A multipart upload under way: what is needed to go on with it, here or elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataWriter {
    /// The data object it becomes: an unknown id's nonce.
    data: String,
    multipart: String,
    parts: Vec<String>,
    end_bytes: u64,
}

impl DataWriter {
    /// How many bytes its parts have.
    pub fn end_bytes(&self) -> u64 {
        self.end_bytes
    }

    /// The store's id of the multipart upload.
    pub(super) fn multipart(&self) -> &str {
        &self.multipart
    }

    /// The data object that it becomes.
    pub fn id(&self) -> Option<DataId> {
        self.data.parse().ok().map(DataId::Unknown)
    }
}

/// What came of completing a multipart upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Completed {
    /// The data is there, of these parts.
    Now(DataId),
    /// It was completed before, by this or by another request, whose last parts may have been others.
    Before(DataId),
    /// The parts are not there any more.
    Gone,
}

impl Storage {
    /// Stores data that is all at hand.
    pub async fn put_data(&self, id: &DataId, pieces: Vec<Bytes>) -> Result<(), StorageError> {
        self.check_room("storing data")?;
        self.put(&keys::data(id), PutPayload::from_iter(pieces), "storing data").await
    }

    /// Begins data of unknown size and digest.
    pub async fn begin_data(&self, nonce: crate::protocol::Nonce) -> Result<DataWriter, StorageError> {
        let error = |source| StorageError::new("beginning to store data", source);
        let path = keys::path(&keys::data(&DataId::Unknown(nonce.clone()))).map_err(error)?;
        let multipart = self.port.0.create_multipart(&path).await.map_err(error)?;
        Ok(DataWriter { data: nonce.to_string(), multipart, parts: Vec::new(), end_bytes: 0 })
    }

    /// Adds a part.
    pub async fn add_part(&self, writer: &mut DataWriter, pieces: Vec<Bytes>) -> Result<(), StorageError> {
        self.check_room("storing data")?;
        let error = |source| StorageError::new("storing data", source);
        let path = keys::path(&writer_key(writer)?).map_err(error)?;
        let payload = PutPayload::from_iter(pieces);
        let size_bytes = payload.content_length() as u64;
        let part = self.port.0.put_part(&path, &writer.multipart, writer.parts.len(), payload).await.map_err(error)?;
        writer.end_bytes += size_bytes;
        match writer.parts.last_mut() {
            Some(last) => match self.port.0.join_parts(last, &part.content_id) {
                Some(joined) => *last = joined,
                None => writer.parts.push(part.content_id),
            },
            None => writer.parts.push(part.content_id),
        }
        Ok(())
    }

    /// Adds the last part, if there is one, and makes the data visible.
    pub async fn finish_data(&self, writer: &mut DataWriter, pieces: Vec<Bytes>) -> Result<Completed, StorageError> {
        if pieces.iter().any(|piece| !piece.is_empty())
            && let Err(refused) = self.add_part(writer, pieces).await
        {
            return self.completed_before(writer, refused).await;
        }
        let error = |source| StorageError::new("completing data", source);
        let path = keys::path(&writer_key(writer)?).map_err(error)?;
        let parts = writer.parts.iter().map(|part| PartId { content_id: part.clone() }).collect();
        match (self.port.0.complete_multipart(&path, &writer.multipart, parts).await, writer.id()) {
            (Ok(_), Some(id)) => Ok(Completed::Now(id)),
            (Ok(_), None) => Ok(Completed::Gone),
            (Err(source), _) => self.completed_before(writer, error(source)).await,
        }
    }

    async fn completed_before(&self, writer: &DataWriter, refused: StorageError) -> Result<Completed, StorageError> {
        match (self.is_there(&writer_key(writer)?).await, writer.id()) {
            (Ok(true), Some(id)) => Ok(Completed::Before(id)),
            (Ok(_), _) if refused.is_absent() => Ok(Completed::Gone),
            _ => Err(refused),
        }
    }

    /// Gives up data that nothing names yet.
    pub async fn abort_data(&self, writer: &DataWriter) -> Result<(), StorageError> {
        let error = |source| StorageError::new("giving up data", source);
        let path = keys::path(&writer_key(writer)?).map_err(error)?;
        self.port.0.abort_multipart(&path, &writer.multipart).await.map_err(error)
    }

    /// Reads data, or a part of it; `None` when it is not there.
    pub async fn read_data(
        &self,
        id: &DataId,
        range: Option<std::ops::Range<u64>>,
    ) -> Result<Option<ByteStream>, StorageError> {
        self.read_part(&keys::data(id), range, "reading data").await
    }

    /// An address from which anyone can read the data until `expires` is over; `None` where the store gives none. Costs no
    /// request: whether the data is there is not looked at.
    pub async fn data_address(&self, id: &DataId, expires: Duration) -> Result<Option<String>, StorageError> {
        let error = |source| StorageError::new("signing an address of data", source);
        let path = keys::path(&keys::data(id)).map_err(error)?;
        Ok(self.port.0.presign(&path, expires).await.map_err(error)?.map(String::from))
    }

    /// Whether every client can be expected to reach [`Storage::data_address`].
    pub fn data_address_is_public(&self) -> bool {
        self.port.0.endpoint_is_public()
    }

    /// Reads any object as a stream; `None` when it is not there.
    pub(super) async fn read_stream(
        &self,
        key: &str,
        during: &'static str,
    ) -> Result<Option<ByteStream>, StorageError> {
        self.read_part(key, None, during).await
    }

    async fn read_part(
        &self,
        key: &str,
        range: Option<std::ops::Range<u64>>,
        during: &'static str,
    ) -> Result<Option<ByteStream>, StorageError> {
        let error = move |source| StorageError::new(during, source);
        let path = keys::path(key).map_err(error)?;
        let options = GetOptions { range: range.map(GetRange::Bounded), ..Default::default() };
        match self.port.0.get_opts(&path, options).await {
            Ok(result) => Ok(Some(result.into_stream().map(move |piece| piece.map_err(error)).boxed())),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(source) => Err(error(source)),
        }
    }

    /// Reads a copy of a manifest; `None` when it is not there.
    pub async fn read_copy(&self, copy: &Copy) -> Result<Option<StoredManifest>, StorageError> {
        let during = "reading a manifest";
        if let Some(manifest) = self.kept.copy(copy) {
            // Where it costs nothing, it is seen that the copy was not removed meanwhile.
            if self.port.0.answers_from_memory() && !self.is_there(&keys::copy(copy)).await? {
                self.kept.forget_copy(copy);
                return Ok(None);
            }
            return Ok(Some(manifest));
        }
        let Some(content) = self.read_small(&keys::copy(copy), during).await? else { return Ok(None) };
        let manifest = StoredManifest::decode(&content).ok_or_else(|| {
            StorageError::damaged(during, format!("the copy of {} in {} is damaged", copy.digest, copy.repo))
        })?;
        self.kept.keep_copy(copy, &manifest);
        Ok(Some(manifest))
    }
}

fn writer_key(writer: &DataWriter) -> Result<String, StorageError> {
    let id = writer.id().ok_or_else(|| StorageError::damaged("storing data", "the upload's state names no data"))?;
    Ok(keys::data(&id))
}
