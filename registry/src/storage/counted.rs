//! A port whose requests are counted, by kind, by whether the store answered, and for whom it was asked.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use object_store::list::{PaginatedListOptions, PaginatedListResult, PaginatedListStore};
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::signer::Url;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartId, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use super::{Port, Room, Unfinished};
use crate::metrics::{AskedBy, Failed, StoreRequest, StoreRequestKind as Kind, StoreRequests};

tokio::task_local! {
    static COLLECTING: ();
}

/// Does something whose requests count as the collector's.
pub(crate) async fn as_collector<F: Future>(work: F) -> F::Output {
    COLLECTING.scope((), work).await
}

/// Passes everything on to `port`.
#[derive(Debug)]
pub(super) struct Counted {
    port: Arc<dyn Port>,
    requests: StoreRequests,
}

impl Counted {
    /// Counts in `requests`.
    pub(super) fn new(port: Arc<dyn Port>, requests: StoreRequests) -> Self {
        Self { port, requests }
    }

    fn count<T>(&self, kind: Kind, result: Result<T>) -> Result<T> {
        count(&self.requests, kind, &result);
        result
    }
}

fn count<T>(requests: &StoreRequests, kind: Kind, result: &Result<T>) {
    // That nothing is there, or that something is, are answers.
    let answered = match result {
        Ok(_) => true,
        Err(error) => {
            matches!(
                error,
                Error::NotFound { .. }
                    | Error::AlreadyExists { .. }
                    | Error::Precondition { .. }
                    | Error::NotModified { .. }
            )
        }
    };
    let failed = if answered { Failed::no } else { Failed::yes };
    let by = if COLLECTING.try_with(|()| ()).is_ok() { AskedBy::collector } else { AskedBy::clients };
    requests.get_or_create(&StoreRequest { kind, failed, by }).inc();
}

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.port.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for Counted {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.count(Kind::put, self.port.put_opts(location, payload, opts).await)
    }

    async fn put_multipart_opts(&self, at: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.count(Kind::create_multipart, self.port.put_multipart_opts(at, opts).await)
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let kind = if options.head { Kind::head } else { Kind::get };
        self.count(kind, self.port.get_opts(location, options).await)
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        // What the provider bills or bounds is a request, but how many keys go into one is the driver's matter: keys are
        // counted here.
        let requests = self.requests.clone();
        let removed = self.port.delete_stream(locations);
        removed.inspect(move |result| count(&requests, Kind::delete, result)).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.port.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.count(Kind::list, self.port.list_with_delimiter(prefix).await)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.count(Kind::copy, self.port.copy_opts(from, to, options).await)
    }
}

#[async_trait]
impl MultipartStore for Counted {
    async fn create_multipart(&self, path: &Path) -> Result<MultipartId> {
        self.count(Kind::create_multipart, self.port.create_multipart(path).await)
    }

    async fn put_part(&self, path: &Path, id: &MultipartId, index: usize, data: PutPayload) -> Result<PartId> {
        self.count(Kind::put_part, self.port.put_part(path, id, index, data).await)
    }

    async fn complete_multipart(&self, path: &Path, id: &MultipartId, parts: Vec<PartId>) -> Result<PutResult> {
        self.count(Kind::complete_multipart, self.port.complete_multipart(path, id, parts).await)
    }

    async fn abort_multipart(&self, path: &Path, id: &MultipartId) -> Result<()> {
        self.count(Kind::abort_multipart, self.port.abort_multipart(path, id).await)
    }
}

#[async_trait]
impl PaginatedListStore for Counted {
    async fn list_paginated(&self, prefix: Option<&str>, opts: PaginatedListOptions) -> Result<PaginatedListResult> {
        self.count(Kind::list, self.port.list_paginated(prefix, opts).await)
    }
}

#[async_trait]
impl Port for Counted {
    fn least_part_bytes(&self) -> u64 {
        self.port.least_part_bytes()
    }

    fn may_collect(&self) -> bool {
        self.port.may_collect()
    }

    fn takes_any_parts(&self) -> bool {
        self.port.takes_any_parts()
    }

    fn join_parts(&self, first: &str, second: &str) -> Option<String> {
        self.port.join_parts(first, second)
    }

    fn answers_from_memory(&self) -> bool {
        self.port.answers_from_memory()
    }

    async fn presign(&self, path: &Path, expires: Duration) -> Result<Option<Url>> {
        // Done by computing: no request.
        self.port.presign(path, expires).await
    }

    fn endpoint_is_public(&self) -> bool {
        self.port.endpoint_is_public()
    }

    async fn sweep_temporary(&self, before: SystemTime) -> Result<Vec<String>> {
        self.port.sweep_temporary(before).await
    }

    fn room(&self) -> Option<Room> {
        self.port.room()
    }

    async fn unfinished_multiparts(&self, prefix: &str, after: Option<&Unfinished>) -> Result<Option<Vec<Unfinished>>> {
        self.count(Kind::list, self.port.unfinished_multiparts(prefix, after).await)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{TryStreamExt, stream};
    use object_store::ObjectStoreExt;

    use super::*;
    use crate::metrics::Metrics;
    use crate::storage::Memory;

    #[test]
    fn what_the_store_says_of_itself_is_passed_on() {
        let folder = tempfile::tempdir().unwrap();
        let port = crate::storage::Folder::open(folder.path(), false).unwrap();
        let part = |from: u64| format!("{from}-5-{}", port.boot());
        let counted = Counted::new(Arc::new(port.clone()), Metrics::new().store_requests.clone());
        assert!(counted.takes_any_parts() && counted.answers_from_memory());
        assert!(counted.join_parts(&part(0), &part(5)).is_some());
        assert_eq!(counted.join_parts(&part(0), &part(5)), port.join_parts(&part(0), &part(5)));
    }

    #[tokio::test]
    async fn it_counts_by_kind() {
        let metrics = Metrics::new();
        let counted = Counted::new(Arc::new(Memory::default()), metrics.store_requests.clone());
        let path = Path::from("data/x");
        counted.put(&path, "12345".into()).await.unwrap();
        assert_eq!(counted.get(&path).await.unwrap().bytes().await.unwrap(), "12345");
        assert!(counted.head(&Path::from("data/none")).await.is_err());
        counted.list_paginated(Some("data/"), PaginatedListOptions::default()).await.unwrap();
        let removed = counted.delete_stream(stream::iter([Ok(path)]).boxed());
        assert_eq!(as_collector(removed.try_collect::<Vec<_>>()).await.unwrap().len(), 1);
        let text = metrics.encode();
        let mut lines: Vec<&str> = text.lines().filter(|line| line.contains("store_requests_total{")).collect();
        lines.sort_unstable();
        let line = |(kind, by): (&str, &str)| {
            format!(r#"fluyt_registry_store_requests_total{{kind="{kind}",failed="no",by="{by}"}} 1"#)
        };
        let asked = ["get", "head", "list", "put"].map(|kind| (kind, "clients"));
        assert_eq!(
            lines,
            [vec![("delete", "collector")], asked.to_vec()].concat().into_iter().map(line).collect::<Vec<_>>()
        );
    }
}
