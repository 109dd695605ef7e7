//! The store: one port (object_store's traits), the keys, and what the protocol's requests mean on it.
//!
//! The bucket is the only state; no key is ever written twice, so nothing needs conditional writes, and any strongly
//! consistent object store will do. `folder` is our own driver of the port for a local disk, `cloud` the one for
//! S3, GCS and Azure, `memory` the one for tests; `conformance` is the suite that all have to pass. Keys are spelled in
//! `keys` and nowhere else.

mod adopted;
mod cache;
mod check;
mod cloud;
mod collecting;
#[cfg(test)]
mod conformance;
mod content;
mod counted;
mod error;
mod flight;
mod folder;
mod inspect;
mod keys;
mod layout;
mod listing;
mod memory;
mod naming;
mod parts;
mod past;
mod perform;
mod port;
mod sessions;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use object_store::PutPayload;
use tokio::time::Instant;

pub use adopted::{AdoptedBlobs, AdoptedLink, AdoptedTag, Adoption, AdoptionRecord};
pub use check::{Check, Outcome, StoreReport, check_cloud, check_folder, check_memory};
pub use cloud::{Cloud, CloudAddress, CloudError, CloudSettings, Provider};
pub use collecting::{
    AuditCounts, AuditRecord, DataSlice, Dated, Slices, StoreTime, StoredUpload, TagDates, end_place, place, spelled,
};
pub use content::{ByteStream, Completed, DataWriter, StoredManifest};
pub use error::{StorageError, StorageErrorKind};
pub use folder::{ControlSocket, FileSystem, Folder, FolderError, connect_control};
pub use inspect::{DataItem, Part, Place, Removed};
pub use layout::LayoutError;
pub use listing::{Page, ReferrerName};
pub use memory::Memory;
pub use parts::PartPlan;
pub use past::{PastValue, Stamp, TagPast, Written};
pub use perform::{Attachments, Witness};
pub use port::{Port, Room, Unfinished};
pub use sessions::{Session, SessionName, Tail, UploadListing};

use crate::metrics::StoreRequests;
use crate::protocol::Marks;
use crate::spec::RepoName;
use counted::Counted;
pub(crate) use counted::as_collector;

/// How long an answer about marks counts as recent.
const RECENT: Duration = Duration::from_secs(10);

/// The registry's store.
#[derive(Debug)]
pub struct Storage {
    port: Handle,
    upload_keys: Mutex<Arc<[Vec<u8>]>>,
    recent_marks: Mutex<Option<(Instant, Marks)>>,
    /// Repositories known to be in the catalog. They never leave it, so this never lies; it is bounded because the
    /// worst that forgetting costs is one more write.
    catalogued: Mutex<HashSet<RepoName>>,
    history_since: Mutex<Option<SystemTime>>,
    /// What the copies name of the repository that was looked at last. A run looks at it several times.
    looked_at: Mutex<Option<naming::Contents>>,
    kept: cache::Kept,
}

#[derive(Clone)]
struct Handle(Arc<dyn Port>);

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

const CATALOGUED_MAX: usize = 100_000;

impl Storage {
    /// Opens a store: sees that its layout is one that this version may serve, and sets it up when it is empty.
    pub async fn open(port: impl Port, random: [u8; 32]) -> Result<Self, LayoutError> {
        let port = Handle(Arc::new(port));
        let upload_keys = Mutex::new(layout::open(&port, random).await?.into());
        let (recent_marks, catalogued, history_since, looked_at, kept) = Default::default();
        Ok(Self { port, upload_keys, recent_marks, catalogued, history_since, looked_at, kept })
    }

    /// Lets clients that read hear an answer that is up to this old: which copies a tag or a digest names, and which links a
    /// blob has. Zero, the default, asks the store each time. Pushes never hear an older answer.
    #[must_use]
    pub fn with_older_answers(mut self, older: Duration) -> Self {
        self.kept.set_older(older);
        self
    }

    /// The same store, whose requests are counted from now on.
    #[must_use]
    pub fn counting(mut self, requests: StoreRequests) -> Self {
        self.port = Handle(Arc::new(Counted::new(self.port.0, requests)));
        self
    }

    /// The keys that seal an upload's Location, as far as this replica knows them: the first seals, any opens.
    pub fn upload_keys(&self) -> Arc<[Vec<u8>]> {
        self.upload_keys.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks for keys of replicas that set the store up while this one did.
    pub async fn read_upload_keys_again(&self) -> Result<(), StorageError> {
        let keys = layout::upload_keys(&self.port).await.map_err(|error| match error {
            LayoutError::Storage(error) => error,
            damaged => StorageError::damaged("reading the upload keys", damaged),
        })?;
        *self.upload_keys.lock().unwrap_or_else(PoisonError::into_inner) = keys.into();
        Ok(())
    }

    /// How the store takes the parts of a long blob.
    pub fn part_plan(&self) -> PartPlan {
        if self.port.0.takes_any_parts() {
            PartPlan::Any
        } else {
            PartPlan::Fixed { least_bytes: self.port.0.least_part_bytes() }
        }
    }

    /// The size that every part has to have, the last one excepted; `None` where there is no such rule.
    pub fn least_part_bytes(&self) -> Option<u64> {
        Some(self.port.0.least_part_bytes()).filter(|least| *least > 0)
    }

    /// Whether a collector may delete here: not on NFS, SMB and FUSE.
    pub fn may_collect(&self) -> bool {
        self.port.0.may_collect()
    }

    /// Whether the store answers, by a request that costs next to nothing.
    pub async fn ready(&self) -> Result<(), StorageError> {
        self.list_page("store.json.", None, 1).await.map(drop)
    }

    /// Whether the repository is known to be in the catalog (it may be without this replica knowing).
    pub fn is_catalogued(&self, repo: &RepoName) -> bool {
        self.catalogued.lock().is_ok_and(|known| known.contains(repo))
    }

    fn remember_catalogued(&self, repo: &RepoName) {
        if let Ok(mut known) = self.catalogued.lock() {
            if known.len() >= CATALOGUED_MAX {
                known.clear();
            }
            known.insert(repo.clone());
        }
    }

    async fn put(&self, key: &str, payload: impl Into<PutPayload>, during: &'static str) -> Result<(), StorageError> {
        put(&self.port, key, payload.into(), during).await
    }
}

async fn put(port: &Handle, key: &str, payload: PutPayload, during: &'static str) -> Result<(), StorageError> {
    let path = keys::path(key).map_err(|source| StorageError::new(during, source))?;
    port.0.put_opts(&path, payload, Default::default()).await.map_err(|source| StorageError::new(during, source))?;
    Ok(())
}
