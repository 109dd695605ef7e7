//! The port on S3, GCS and Azure: object_store's drivers, with a prefix before every key.
//!
//! - `address`, `settings`, `profile`, `container`: where the store is and whose keys are used; `s3`, `gcs`, `azure`: each
//!   provider's own.
//! - `connector`: what a request may cost in time, and a type for what the store says of itself.
//! - `ask`: what object_store has no call for. `order`: stores that sort in their own way. `diagnose`: why a store cannot
//!   be used.
//!
//! Questions, and writes too (a key is written by one request only, so a repeated one changes nothing), are repeated inside
//! a few times; what outlasts that is [`StorageErrorKind::Busy`](super::StorageErrorKind::Busy). A body that breaks off is
//! gone on with where it broke; if it cannot be, its reader gets an error and never a short body that looks whole.

mod address;
mod ask;
mod azure;
mod connector;
mod container;
mod diagnose;
mod gcs;
mod order;
mod profile;
mod s3;
mod settings;

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::{BoxStream, StreamExt};
use http::Method;
use object_store::client::{HttpClient, HttpConnector};
use object_store::list::{PaginatedListOptions, PaginatedListResult, PaginatedListStore};
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::signer::Url;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartId, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

pub use address::{CloudAddress, Provider};
pub use settings::CloudSettings;

pub(super) use ask::Answer;
pub(super) use connector::Trouble;
pub(super) use diagnose::{cause, chain, is_refusal};
pub(super) use order::Order;

use super::{Port, Unfinished, keys};
use connector::Connector;
use settings::Built;

/// Why a store in the cloud cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use {place}: {reason}")]
pub struct CloudError {
    place: String,
    reason: String,
}

/// A store on S3, GCS or Azure. Clones are the same store.
#[derive(Clone)]
pub struct Cloud(Arc<Inner>);

struct Inner {
    settings: CloudSettings,
    built: Built,
    /// Signs addresses for clients, where they reach the store at another one than we.
    for_clients: Option<Built>,
    http: HttpClient,
    /// Set once it is known; what is not yet known is listed as the store does it.
    order: OnceLock<Order>,
}

impl Cloud {
    /// Opens a store, and sees that it is there and lets itself be listed.
    pub async fn open(settings: &CloudSettings) -> Result<Self, CloudError> {
        let cloud = Self::connect(settings).await?;
        match cloud.0.built.public {
            true => {
                cloud.reach().await?;
                cloud.assume(Order::Bytes);
            }
            false => cloud.assume(cloud.find_order().await.map_err(|error| cloud.diagnose(&error))?),
        }
        Ok(cloud)
    }

    /// Sees that the store is there and lets itself be listed.
    pub(super) async fn reach(&self) -> Result<(), CloudError> {
        let options = PaginatedListOptions { max_keys: Some(1), ..Default::default() };
        self.list_paginated(Some(keys::STORE), options).await.map(drop).map_err(|error| self.diagnose(&error))
    }

    /// Takes an order of lists for known; the first word counts.
    pub(super) fn assume(&self, order: Order) {
        let _ = self.0.order.set(order);
    }

    /// Reads the settings, and asks the store nothing yet.
    pub async fn connect(settings: &CloudSettings) -> Result<Self, CloudError> {
        let options = settings.client_options()?;
        let built = match settings.address.provider {
            Provider::S3 => s3::build(settings, options.clone()).await?,
            Provider::Gcs => gcs::build(settings, options.clone())?,
            Provider::Azure => azure::build(settings, options.clone())?,
        };
        let for_clients = match settings.for_clients()? {
            Some(settings) => Some(s3::build(&settings, options.clone()).await?),
            None => None,
        };
        let options = options.with_allow_http(built.endpoint.starts_with("http:"));
        let http = Connector::default().connect(&options).map_err(|error| settings.error(chain(&error)))?;
        Ok(Self(Arc::new(Inner { settings: settings.clone(), built, for_clients, http, order: OnceLock::new() })))
    }

    /// Where it is.
    pub fn address(&self) -> &CloudAddress {
        &self.0.settings.address
    }

    /// Which server answers for it.
    pub fn endpoint(&self) -> &str {
        &self.0.built.endpoint
    }

    /// What an error of this store means for whoever runs it.
    pub(super) fn diagnose(&self, error: &Error) -> CloudError {
        diagnose::diagnose(&self.0.settings, &self.0.built, error)
    }

    /// What the identity has to be allowed.
    pub(super) fn permissions(&self) -> &'static str {
        diagnose::permissions(self.address().provider)
    }

    /// Asks for a sub-resource of the bucket (`versioning`); `None` where there is nothing of the kind, or nothing is signed.
    pub(super) async fn ask(&self, about: &str) -> Result<Option<Answer>> {
        match self.address().provider {
            Provider::S3 | Provider::Gcs if self.0.built.signs => {
                ask::ask(&*self.0.built.driver, &self.0.http, &[(about, "")]).await.map(Some)
            }
            _ => Ok(None),
        }
    }

    /// The client that requests go through, for looking at a signed address as others see it.
    pub(super) fn http(&self) -> &HttpClient {
        &self.0.http
    }

    fn driver(&self) -> &dyn settings::Driver {
        &*self.0.built.driver
    }

    fn full(&self, key: &str) -> String {
        match self.address().prefix.as_str() {
            "" => key.to_owned(),
            prefix => format!("{prefix}/{key}"),
        }
    }

    fn inside(&self, key: &Path) -> Result<Path> {
        Ok(Path::parse(self.full(key.as_ref()))?)
    }

    /// The key that an object has for us.
    fn outside(&self, key: &Path) -> Result<Path> {
        let prefix = &self.address().prefix;
        if prefix.is_empty() {
            return Ok(key.clone());
        }
        let ours = key.as_ref().strip_prefix(prefix.as_str()).and_then(|rest| rest.strip_prefix('/'));
        let ours = ours.ok_or_else(|| Error::Generic {
            store: "cloud",
            source: format!("asked for keys below `{prefix}/`, the store lists `{key}`").into(),
        })?;
        Ok(Path::parse(ours)?)
    }

    fn page_outside(&self, mut page: PaginatedListResult) -> Result<PaginatedListResult> {
        let objects = page.result.objects.into_iter().map(|object| self.object_outside(object));
        page.result.objects = objects.collect::<Result<_>>()?;
        Ok(page)
    }

    fn object_outside(&self, object: ObjectMeta) -> Result<ObjectMeta> {
        Ok(ObjectMeta { location: self.outside(&object.location)?, ..object })
    }
}

impl fmt::Display for Cloud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address().fmt(f)
    }
}

impl fmt::Debug for Cloud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cloud").field(self.address()).finish()
    }
}

fn not_offered(operation: &str) -> Error {
    Error::NotImplemented { operation: operation.to_owned(), implementer: "cloud".to_owned() }
}

#[async_trait]
impl ObjectStore for Cloud {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.driver().put_opts(&self.inside(location)?, payload, opts).await
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(not_offered("put_multipart (use MultipartStore)"))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let mut result = self.driver().get_opts(&self.inside(location)?, options).await?;
        result.meta.location = location.clone();
        Ok(result)
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let (going, coming) = (self.clone(), self.clone());
        let locations = locations.map(move |location| going.inside(&location?)).boxed();
        self.driver().delete_stream(locations).map(move |location| coming.outside(&location?)).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (cloud, key) = (self.clone(), prefix.map(AsRef::as_ref).unwrap_or_default());
        // An empty path lists everything.
        let prefix = Path::parse(self.full(key).trim_end_matches('/'));
        let prefix = match prefix {
            Ok(prefix) => prefix,
            Err(error) => return futures_util::stream::iter([Err(error.into())]).boxed(),
        };
        self.driver().list(Some(&prefix)).map(move |object| cloud.object_outside(object?)).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let key = prefix.map(AsRef::as_ref).unwrap_or_default();
        let prefix = Path::parse(self.full(key).trim_end_matches('/'))?;
        let mut result = self.driver().list_with_delimiter(Some(&prefix)).await?;
        result.objects = result.objects.into_iter().map(|object| self.object_outside(object)).collect::<Result<_>>()?;
        result.common_prefixes = result.common_prefixes.iter().map(|path| self.outside(path)).collect::<Result<_>>()?;
        Ok(result)
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(not_offered("copying: no object is ever copied"))
    }
}

#[async_trait]
impl MultipartStore for Cloud {
    async fn create_multipart(&self, path: &Path) -> Result<MultipartId> {
        self.driver().create_multipart(&self.inside(path)?).await
    }

    async fn put_part(&self, path: &Path, id: &MultipartId, index: usize, data: PutPayload) -> Result<PartId> {
        self.driver().put_part(&self.inside(path)?, id, index, data).await
    }

    async fn complete_multipart(&self, path: &Path, id: &MultipartId, parts: Vec<PartId>) -> Result<PutResult> {
        self.driver().complete_multipart(&self.inside(path)?, id, parts).await
    }

    async fn abort_multipart(&self, path: &Path, id: &MultipartId) -> Result<()> {
        match self.driver().abort_multipart(&self.inside(path)?, id).await {
            // Repeated, or completed.
            Err(Error::NotFound { .. }) => Ok(()),
            result => result,
        }
    }
}

#[async_trait]
impl PaginatedListStore for Cloud {
    /// Pages are never empty while more follow, and keys at or before the offset are left out even where the store knows no
    /// offsets (older versions of Azure's API, and azurite, pass over them without a word).
    async fn list_paginated(&self, prefix: Option<&str>, opts: PaginatedListOptions) -> Result<PaginatedListResult> {
        if opts.delimiter.is_some() {
            return Err(not_offered("paged lists with a delimiter"));
        }
        let prefix = self.full(prefix.unwrap_or_default());
        let after = opts.offset.as_deref().map(|offset| self.full(offset));
        let mut token = opts.page_token;
        if self.0.order.get() == Some(&Order::Other) {
            let page = self.sorted_page(&prefix, token.or(after), opts.max_keys.unwrap_or(1000)).await?;
            return self.page_outside(page);
        }
        loop {
            let options = PaginatedListOptions {
                // A token goes on where its page ended.
                offset: after.clone().filter(|_| token.is_none()),
                max_keys: opts.max_keys,
                page_token: token,
                ..Default::default()
            };
            let mut page = self.driver().list_paginated(Some(&prefix), options).await?;
            if let Some(after) = &after {
                page.result.objects.retain(|object| object.location.as_ref() > after.as_str());
            }
            if page.result.objects.is_empty() && page.page_token.is_some() {
                token = page.page_token;
                continue;
            }
            return self.page_outside(page);
        }
    }
}

#[async_trait]
impl Port for Cloud {
    fn least_part_bytes(&self) -> u64 {
        self.0.built.least_part_bytes
    }

    async fn presign(&self, path: &Path, expires: Duration) -> Result<Option<Url>> {
        if !self.0.built.signs {
            return Ok(None);
        }
        let driver = &self.0.for_clients.as_ref().unwrap_or(&self.0.built).driver;
        driver.signed_url(Method::GET, &self.inside(path)?, expires).await.map(Some)
    }

    fn endpoint_is_public(&self) -> bool {
        self.0.built.public || self.0.for_clients.is_some()
    }

    /// Azure does not list them, and drops what was not completed after a week by itself.
    async fn unfinished_multiparts(&self, prefix: &str, after: Option<&Unfinished>) -> Result<Option<Vec<Unfinished>>> {
        if self.address().provider == Provider::Azure || !self.0.built.signs {
            return Ok(None);
        }
        let marker = after.map(|after| (self.full(after.path.as_ref()), &after.id));
        let marker = marker.as_ref().map(|(key, id)| (key.as_str(), id.as_str()));
        let found = ask::uploads(self.driver(), &self.0.http, &self.full(prefix), marker).await?;
        let found = found.into_iter().map(|found| Ok(Unfinished { path: self.outside(&found.path)?, ..found }));
        found.collect::<Result<_>>().map(Some)
    }
}
