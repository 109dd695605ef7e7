//! A store that counts requests to the one behind it, and fails one of them: before it was applied, or after.

use std::fmt;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use fluyt_registry::storage::Port;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use object_store::list::{PaginatedListOptions, PaginatedListResult, PaginatedListStore};
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartId, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// When a request fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failing {
    /// Nothing was done.
    Before,
    /// It was done, and the answer was lost.
    After,
}

#[derive(Clone, Debug)]
pub(crate) struct Watched {
    store: Arc<dyn Port>,
    seen: Arc<Mutex<Vec<String>>>,
    count: Arc<AtomicU64>,
    fail: Arc<Mutex<Option<(u64, Failing)>>>,
}

impl Watched {
    pub(crate) fn new(store: impl Port) -> Self {
        Self { store: Arc::new(store), seen: Arc::default(), count: Arc::default(), fail: Arc::default() }
    }

    /// The requests since this was asked last.
    pub(crate) fn requests(&self) -> Vec<String> {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }

    /// The `n`th request from now on (from 0) fails; `None`: none does.
    pub(crate) fn fail(&self, which: Option<(u64, Failing)>) {
        self.count.store(0, Ordering::SeqCst);
        *self.fail.lock().unwrap() = which;
    }

    /// Notes a request; an error when it is to fail before it is applied; else whether it fails afterwards.
    fn note(&self, what: &str, key: &str) -> Result<bool> {
        self.seen.lock().unwrap().push(format!("{what} {key}"));
        let number = self.count.fetch_add(1, Ordering::SeqCst);
        match *self.fail.lock().unwrap() {
            Some((n, Failing::Before)) if n == number => Err(failure()),
            Some((n, Failing::After)) if n == number => Ok(true),
            _ => Ok(false),
        }
    }

    fn after<T>(lost: bool, result: Result<T>) -> Result<T> {
        if lost { Err(failure()) } else { result }
    }
}

fn failure() -> Error {
    Error::Generic { store: "watched", source: "this request was to fail".into() }
}

impl fmt::Display for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("watched")
    }
}

#[async_trait]
impl ObjectStore for Watched {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let lost = self.note("put", location.as_ref())?;
        Self::after(lost, self.store.put_opts(location, payload, opts).await)
    }

    async fn put_multipart_opts(&self, at: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.store.put_multipart_opts(at, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let lost = self.note(if options.head { "head" } else { "get" }, location.as_ref())?;
        Self::after(lost, self.store.get_opts(location, options).await)
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        match self.note("delete", "") {
            Err(error) => stream::iter([Err(error)]).boxed(),
            Ok(false) => self.store.delete_stream(locations),
            Ok(true) => self.store.delete_stream(locations).chain(stream::iter([Err(failure())])).boxed(),
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.store.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.store.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let lost = self.note("copy", from.as_ref())?;
        Self::after(lost, self.store.copy_opts(from, to, options).await)
    }
}

#[async_trait]
impl MultipartStore for Watched {
    async fn create_multipart(&self, path: &Path) -> Result<MultipartId> {
        let lost = self.note("create", path.as_ref())?;
        Self::after(lost, self.store.create_multipart(path).await)
    }

    async fn put_part(&self, path: &Path, id: &MultipartId, index: usize, data: PutPayload) -> Result<PartId> {
        let lost = self.note("part", path.as_ref())?;
        Self::after(lost, self.store.put_part(path, id, index, data).await)
    }

    async fn complete_multipart(&self, path: &Path, id: &MultipartId, parts: Vec<PartId>) -> Result<PutResult> {
        let lost = self.note("complete", path.as_ref())?;
        Self::after(lost, self.store.complete_multipart(path, id, parts).await)
    }

    async fn abort_multipart(&self, path: &Path, id: &MultipartId) -> Result<()> {
        let lost = self.note("abort", path.as_ref())?;
        Self::after(lost, self.store.abort_multipart(path, id).await)
    }
}

#[async_trait]
impl PaginatedListStore for Watched {
    async fn list_paginated(&self, prefix: Option<&str>, opts: PaginatedListOptions) -> Result<PaginatedListResult> {
        let lost = self.note("list", prefix.unwrap_or_default())?;
        Self::after(lost, self.store.list_paginated(prefix, opts).await)
    }
}

#[async_trait]
impl Port for Watched {
    fn least_part_bytes(&self) -> u64 {
        self.store.least_part_bytes()
    }

    fn takes_any_parts(&self) -> bool {
        self.store.takes_any_parts()
    }

    fn endpoint_is_public(&self) -> bool {
        self.store.endpoint_is_public()
    }

    async fn presign(&self, path: &Path, expires: std::time::Duration) -> Result<Option<object_store::signer::Url>> {
        self.store.presign(path, expires).await
    }
}
