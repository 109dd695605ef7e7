//! A store whose clock the test sets: everything that was written says when that was by this clock.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use fluyt_registry::storage::{Port, Room, Unfinished};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use object_store::list::{PaginatedListOptions, PaginatedListResult, PaginatedListStore};
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartId, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// The port of any store, with another clock.
#[derive(Clone, Debug)]
pub(crate) struct Clocked<P> {
    port: P,
    clock: Arc<Mutex<Clock>>,
}

#[derive(Debug)]
struct Clock {
    now: SystemTime,
    written: HashMap<Path, SystemTime>,
    multiparts: Vec<Unfinished>,
    room: Option<Room>,
    /// Whether what others began is nobody's business.
    is_discreet: bool,
}

impl<P> Clocked<P> {
    pub(crate) fn new(port: P) -> Self {
        Self::at(port, SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000))
    }

    /// One whose clock begins then.
    pub(crate) fn at(port: P, now: SystemTime) -> Self {
        let clock = Clock { now, written: HashMap::new(), multiparts: Vec::new(), room: None, is_discreet: false };
        Self { port, clock: Arc::new(Mutex::new(clock)) }
    }

    /// So much later.
    pub(crate) fn pass_time(&self, time: Duration) {
        self.clock.lock().unwrap().now += time;
    }

    pub(crate) fn set_room(&self, room: Option<Room>) {
        self.clock.lock().unwrap().room = room;
    }

    /// From now on unfinished uploads can be neither listed nor swept, as without the right to it.
    pub(crate) fn be_discreet(&self) {
        self.clock.lock().unwrap().is_discreet = true;
    }

    fn note(&self, location: &Path) {
        let mut clock = self.clock.lock().unwrap();
        // A tick, so that no two things are written at the same time.
        clock.now += Duration::from_millis(1);
        let now = clock.now;
        clock.written.insert(location.clone(), now);
    }

    fn date(&self, meta: &mut ObjectMeta) {
        if let Some(written) = self.clock.lock().unwrap().written.get(&meta.location) {
            meta.last_modified = (*written).into();
        }
    }
}

impl<P> fmt::Display for Clocked<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("clocked")
    }
}

#[async_trait]
impl<P: Port + fmt::Debug> ObjectStore for Clocked<P> {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        // Also where it fails: the answer may be what was lost.
        self.note(location);
        self.port.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(&self, at: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.port.put_multipart_opts(at, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let mut result = self.port.get_opts(location, options).await?;
        self.date(&mut result.meta);
        Ok(result)
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.port.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (clock, listed) = (self.clock.clone(), self.port.list(prefix));
        listed
            .map(move |meta| {
                meta.map(|mut meta| {
                    if let Some(written) = clock.lock().unwrap().written.get(&meta.location) {
                        meta.last_modified = (*written).into();
                    }
                    meta
                })
            })
            .boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.port.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.port.copy_opts(from, to, options).await
    }
}

#[async_trait]
impl<P: Port + fmt::Debug> MultipartStore for Clocked<P> {
    async fn create_multipart(&self, path: &Path) -> Result<MultipartId> {
        let id = self.port.create_multipart(path).await?;
        let mut clock = self.clock.lock().unwrap();
        let since = clock.now;
        clock.multiparts.push(Unfinished { path: path.clone(), id: id.clone(), since });
        Ok(id)
    }

    async fn put_part(&self, path: &Path, id: &MultipartId, index: usize, data: PutPayload) -> Result<PartId> {
        self.port.put_part(path, id, index, data).await
    }

    async fn complete_multipart(&self, path: &Path, id: &MultipartId, parts: Vec<PartId>) -> Result<PutResult> {
        self.note(path);
        let result = self.port.complete_multipart(path, id, parts).await?;
        self.clock.lock().unwrap().multiparts.retain(|unfinished| unfinished.id != *id);
        Ok(result)
    }

    async fn abort_multipart(&self, path: &Path, id: &MultipartId) -> Result<()> {
        self.port.abort_multipart(path, id).await?;
        self.clock.lock().unwrap().multiparts.retain(|unfinished| unfinished.id != *id);
        Ok(())
    }
}

#[async_trait]
impl<P: Port + fmt::Debug> PaginatedListStore for Clocked<P> {
    async fn list_paginated(&self, prefix: Option<&str>, opts: PaginatedListOptions) -> Result<PaginatedListResult> {
        let mut page = self.port.list_paginated(prefix, opts).await?;
        page.result.objects.iter_mut().for_each(|meta| self.date(meta));
        Ok(page)
    }
}

#[async_trait]
impl<P: Port + fmt::Debug> Port for Clocked<P> {
    async fn unfinished_multiparts(&self, prefix: &str, after: Option<&Unfinished>) -> Result<Option<Vec<Unfinished>>> {
        if after.is_some() {
            return Ok(Some(Vec::new()));
        }
        let clock = self.clock.lock().unwrap();
        if clock.is_discreet {
            return Err(Error::Generic { store: "clocked", source: "AccessDenied".into() });
        }
        let ours = clock.multiparts.iter().filter(|unfinished| unfinished.path.as_ref().starts_with(prefix));
        Ok(Some(ours.cloned().collect()))
    }

    async fn sweep_temporary(&self, before: SystemTime) -> Result<Vec<String>> {
        if self.clock.lock().unwrap().is_discreet {
            return Err(Error::Generic { store: "clocked", source: "EACCES".into() });
        }
        self.port.sweep_temporary(before).await
    }

    fn least_part_bytes(&self) -> u64 {
        self.port.least_part_bytes()
    }

    fn takes_any_parts(&self) -> bool {
        self.port.takes_any_parts()
    }

    fn join_parts(&self, first: &str, second: &str) -> Option<String> {
        self.port.join_parts(first, second)
    }

    fn room(&self) -> Option<Room> {
        self.clock.lock().unwrap().room
    }
}
