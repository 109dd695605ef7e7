//! The port in memory: object_store's own, with uploads in parts and paged lists over it. For tests, and for `--store memory:`.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;

use async_trait::async_trait;
use futures_util::TryStreamExt;
use futures_util::stream::BoxStream;
use object_store::list::{PaginatedListOptions, PaginatedListResult, PaginatedListStore};
use object_store::memory::InMemory;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartId, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use super::{Port, Unfinished};

/// A store that is gone when the process is. Clones are the same store.
#[derive(Clone, Debug, Default)]
pub struct Memory(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    objects: InMemory,
    /// object_store's own uploads know parts by their place only: a part that somebody else put there would be taken.
    uploads: Mutex<Uploads>,
}

#[derive(Debug, Default)]
struct Uploads {
    last: u64,
    unfinished: BTreeMap<MultipartId, Upload>,
}

#[derive(Debug)]
struct Upload {
    path: Path,
    since: SystemTime,
    parts: HashMap<String, PutPayload>,
}

impl Memory {
    fn uploads(&self) -> Result<MutexGuard<'_, Uploads>> {
        let broken = |_| Error::Generic { store: STORE, source: "an operation panicked".into() };
        self.0.uploads.lock().map_err(broken)
    }
}

const STORE: &str = "memory";

fn no_upload(path: &Path, what: &str) -> Error {
    Error::NotFound { path: path.to_string(), source: what.to_owned().into() }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("memory")
    }
}

#[async_trait]
impl ObjectStore for Memory {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.0.objects.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.0.objects.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.0.objects.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.0.objects.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.objects.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.0.objects.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.0.objects.copy_opts(from, to, options).await
    }
}

#[async_trait]
impl MultipartStore for Memory {
    async fn create_multipart(&self, path: &Path) -> Result<MultipartId> {
        let mut uploads = self.uploads()?;
        uploads.last += 1;
        let id = format!("upload-{}", uploads.last);
        let upload = Upload { path: path.clone(), since: SystemTime::now(), parts: HashMap::new() };
        uploads.unfinished.insert(id.clone(), upload);
        Ok(id)
    }

    async fn put_part(&self, path: &Path, id: &MultipartId, index: usize, data: PutPayload) -> Result<PartId> {
        let mut uploads = self.uploads()?;
        uploads.last += 1;
        let content_id = format!("part-{index}-{}", uploads.last);
        let upload = uploads.unfinished.get_mut(id).filter(|upload| upload.path == *path);
        let upload = upload.ok_or_else(|| no_upload(path, "there is no such upload"))?;
        upload.parts.insert(content_id.clone(), data);
        Ok(PartId { content_id })
    }

    async fn complete_multipart(&self, path: &Path, id: &MultipartId, parts: Vec<PartId>) -> Result<PutResult> {
        let whole: PutPayload = {
            let mut uploads = self.uploads()?;
            let upload = uploads.unfinished.get(id).filter(|upload| upload.path == *path);
            let upload = upload.ok_or_else(|| no_upload(path, "there is no such upload"))?;
            let parts = parts.iter().map(|part| upload.parts.get(&part.content_id));
            let parts: Option<Vec<&PutPayload>> = parts.collect();
            let parts = parts.ok_or_else(|| Error::Generic { store: STORE, source: "there is no such part".into() })?;
            let whole = parts.into_iter().flat_map(|part| part.iter().cloned()).collect();
            uploads.unfinished.remove(id);
            whole
        };
        self.0.objects.put_opts(path, whole, PutOptions::default()).await
    }

    async fn abort_multipart(&self, _: &Path, id: &MultipartId) -> Result<()> {
        self.uploads()?.unfinished.remove(id);
        Ok(())
    }
}

#[async_trait]
impl PaginatedListStore for Memory {
    async fn list_paginated(&self, prefix: Option<&str>, opts: PaginatedListOptions) -> Result<PaginatedListResult> {
        if opts.delimiter.is_some() {
            return Err(object_store::Error::NotImplemented {
                operation: "paged lists with a delimiter".into(),
                implementer: "memory".into(),
            });
        }
        let offset = opts.page_token.or(opts.offset);
        let mut objects: Vec<ObjectMeta> = self.0.objects.list(None).try_collect().await?;
        objects.retain(|object| {
            let key = object.location.as_ref();
            prefix.is_none_or(|prefix| key.starts_with(prefix)) && offset.as_deref().is_none_or(|offset| key > offset)
        });
        objects.sort_by(|a, b| a.location.cmp(&b.location));
        let max = opts.max_keys.unwrap_or(1000);
        let more = objects.len() > max;
        objects.truncate(max);
        let page_token = objects.last().filter(|_| more).map(|last| last.location.to_string());
        let result = ListResult { common_prefixes: Vec::new(), objects, extensions: Default::default() };
        Ok(PaginatedListResult { result, page_token })
    }
}

#[async_trait]
impl Port for Memory {
    fn answers_from_memory(&self) -> bool {
        true
    }

    fn takes_any_parts(&self) -> bool {
        true
    }

    async fn unfinished_multiparts(&self, prefix: &str, after: Option<&Unfinished>) -> Result<Option<Vec<Unfinished>>> {
        if after.is_some() {
            return Ok(Some(Vec::new()));
        }
        let uploads = self.uploads()?;
        let found = uploads.unfinished.iter().filter(|(_, upload)| upload.path.as_ref().starts_with(prefix));
        let found =
            found.map(|(id, upload)| Unfinished { path: upload.path.clone(), id: id.clone(), since: upload.since });
        Ok(Some(found.collect()))
    }
}
