//! A store in memory that is as strict with multipart uploads as S3: parts have a least size, a part that was replaced
//! cannot be completed by its old tag, and what was completed or given up is gone. It also signs addresses.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use fluyt_registry::storage::{Memory, Port};
use futures_util::stream::BoxStream;
use object_store::list::{PaginatedListOptions, PaginatedListResult, PaginatedListStore};
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::signer::Url;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartId, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

pub(crate) const LEAST_PART_BYTES: usize = 5 * 1024 * 1024;

type Parts = BTreeMap<usize, (String, Bytes)>;

#[derive(Clone, Debug)]
pub(crate) struct Strict {
    pub(crate) store: Memory,
    uploads: Arc<Mutex<HashMap<String, Parts>>>,
    count: Arc<std::sync::atomic::AtomicU64>,
    pub(crate) public: bool,
    /// How often it was asked to sign, where it refuses.
    pub(crate) refused: Option<Arc<std::sync::atomic::AtomicU64>>,
}

impl Strict {
    pub(crate) fn new(store: Memory) -> Self {
        Self { store, uploads: Arc::default(), count: Arc::default(), public: false, refused: None }
    }

    /// Ids of uploads that were begun and not ended.
    pub(crate) fn unfinished(&self) -> usize {
        self.uploads.lock().unwrap().len()
    }

    fn next(&self) -> u64 {
        self.count.fetch_add(1, std::sync::atomic::Ordering::SeqCst)
    }
}

fn no_such_upload(path: &Path) -> Error {
    Error::NotFound { path: path.to_string(), source: "NoSuchUpload".into() }
}

fn refused(why: String) -> Error {
    Error::Generic { store: "strict", source: why.into() }
}

impl fmt::Display for Strict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("strict")
    }
}

#[async_trait]
impl ObjectStore for Strict {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.store.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(&self, at: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.store.put_multipart_opts(at, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.store.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.store.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.store.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.store.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.store.copy_opts(from, to, options).await
    }
}

#[async_trait]
impl MultipartStore for Strict {
    async fn create_multipart(&self, _: &Path) -> Result<MultipartId> {
        let id = format!("upload-{}", self.next());
        self.uploads.lock().unwrap().insert(id.clone(), Parts::new());
        Ok(id)
    }

    async fn put_part(&self, path: &Path, id: &MultipartId, index: usize, data: PutPayload) -> Result<PartId> {
        let tag = format!("tag-{}", self.next());
        let mut uploads = self.uploads.lock().unwrap();
        let parts = uploads.get_mut(id).ok_or_else(|| no_such_upload(path))?;
        parts.insert(index, (tag.clone(), data.into()));
        Ok(PartId { content_id: tag })
    }

    async fn complete_multipart(&self, path: &Path, id: &MultipartId, parts: Vec<PartId>) -> Result<PutResult> {
        let mut whole = Vec::new();
        {
            let mut uploads = self.uploads.lock().unwrap();
            let stored = uploads.get(id).ok_or_else(|| no_such_upload(path))?;
            for (index, part) in parts.iter().enumerate() {
                match stored.get(&index) {
                    Some((tag, bytes)) if *tag == part.content_id => {
                        if bytes.len() < LEAST_PART_BYTES && index + 1 < parts.len() {
                            return Err(refused(format!("EntityTooSmall: part {index} has {} bytes", bytes.len())));
                        }
                        whole.extend_from_slice(bytes);
                    }
                    _ => return Err(refused(format!("InvalidPart: {index}"))),
                }
            }
            uploads.remove(id);
        }
        self.store.put(path, whole.into()).await
    }

    async fn abort_multipart(&self, path: &Path, id: &MultipartId) -> Result<()> {
        self.uploads.lock().unwrap().remove(id).map(drop).ok_or_else(|| no_such_upload(path))
    }
}

#[async_trait]
impl PaginatedListStore for Strict {
    async fn list_paginated(&self, prefix: Option<&str>, opts: PaginatedListOptions) -> Result<PaginatedListResult> {
        self.store.list_paginated(prefix, opts).await
    }
}

#[async_trait]
impl Port for Strict {
    fn least_part_bytes(&self) -> u64 {
        LEAST_PART_BYTES as u64
    }

    fn endpoint_is_public(&self) -> bool {
        self.public
    }

    async fn presign(&self, path: &Path, expires: Duration) -> Result<Option<Url>> {
        if let Some(count) = &self.refused {
            count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            return Err(refused("SASforSASNotSupported".to_owned()));
        }
        let text = format!("https://store.example.net/{path}?expires={}", expires.as_secs());
        Ok(Some(Url::parse(&text).unwrap()))
    }
}
