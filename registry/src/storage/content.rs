//! Bytes: the data of blobs, written as it arrives and read in pieces, and the copies of manifests.

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
}

impl DataWriter {
    /// The data object that it becomes.
    pub fn id(&self) -> Option<DataId> {
        self.data.parse().ok().map(DataId::Unknown)
    }
}

impl Storage {
    /// Stores data that is all at hand.
    pub async fn put_data(&self, id: &DataId, pieces: Vec<Bytes>) -> Result<(), StorageError> {
        self.put(&keys::data(id), PutPayload::from_iter(pieces), "storing data").await
    }

    /// Begins data of unknown size and digest.
    pub async fn begin_data(&self, nonce: crate::protocol::Nonce) -> Result<DataWriter, StorageError> {
        let error = |source| StorageError::new("beginning to store data", source);
        let path = keys::path(&keys::data(&DataId::Unknown(nonce.clone()))).map_err(error)?;
        let multipart = self.port.0.create_multipart(&path).await.map_err(error)?;
        Ok(DataWriter { data: nonce.to_string(), multipart, parts: Vec::new() })
    }

    /// Adds a part.
    pub async fn add_part(&self, writer: &mut DataWriter, pieces: Vec<Bytes>) -> Result<(), StorageError> {
        let error = |source| StorageError::new("storing data", source);
        let path = keys::path(&writer_key(writer)?).map_err(error)?;
        let payload = PutPayload::from_iter(pieces);
        let part = self.port.0.put_part(&path, &writer.multipart, writer.parts.len(), payload).await.map_err(error)?;
        writer.parts.push(part.content_id);
        Ok(())
    }

    /// Makes the data visible. Done already counts as done; `None` when the parts are not there any more.
    pub async fn complete_data(&self, writer: &DataWriter) -> Result<Option<DataId>, StorageError> {
        let error = |source| StorageError::new("completing data", source);
        let key = writer_key(writer)?;
        let path = keys::path(&key).map_err(error)?;
        let parts = writer.parts.iter().map(|part| PartId { content_id: part.clone() }).collect();
        match self.port.0.complete_multipart(&path, &writer.multipart, parts).await {
            Ok(_) => Ok(writer.id()),
            Err(_) if self.is_there(&key).await? => Ok(writer.id()),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(source) => Err(error(source)),
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
        let error = |source| StorageError::new("reading data", source);
        let path = keys::path(&keys::data(id)).map_err(error)?;
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
        let Some(content) = self.read_small(&keys::copy(copy), during).await? else { return Ok(None) };
        let manifest = StoredManifest::decode(&content);
        manifest.map(Some).ok_or_else(|| {
            StorageError::damaged(during, format!("the copy of {} in {} is damaged", copy.digest, copy.repo))
        })
    }
}

fn writer_key(writer: &DataWriter) -> Result<String, StorageError> {
    let id = writer.id().ok_or_else(|| StorageError::damaged("storing data", "the upload's state names no data"))?;
    Ok(keys::data(&id))
}
