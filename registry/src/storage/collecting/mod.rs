//! What collectors ask of the store: lists that say when each object was written, what a copy names, the moment by the
//! store's own clock, and the papers of collection below `gc/`.
//!
//! No decision takes another clock than the store's: a run writes an object of its own, and what is older than the grace
//! time is so by comparing with when the store says that one was written.

mod room;
mod slices;
mod window;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::list::PaginatedListOptions;
use object_store::{GetOptions, ObjectMeta, PutPayload};

use super::keys::{self, UploadItem};
use super::perform::{PAGE_KEYS, SIDE_BY_SIDE};
use super::port::{Room, Unfinished};
use super::{Stamp, Storage, StorageError, StorageErrorKind, layout};
use crate::protocol::{DataId, Link, Nonce, Object};
use crate::spec::{Digest, RepoName, UploadId};

pub use slices::Slices;
pub use window::{TagDates, end_place, place};

/// A moment by the store's own clock, in milliseconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreTime(pub i64);

impl StoreTime {
    /// So much earlier.
    pub fn minus(self, time: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(time.as_millis()).unwrap_or(i64::MAX)))
    }

    /// How long after `earlier` it is; zero when it is before.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl From<SystemTime> for StoreTime {
    fn from(time: SystemTime) -> Self {
        let millis = |length: Duration| i64::try_from(length.as_millis()).unwrap_or(i64::MAX);
        Self(time.duration_since(SystemTime::UNIX_EPOCH).map_or_else(|before| -millis(before.duration()), millis))
    }
}

impl From<StoreTime> for SystemTime {
    fn from(time: StoreTime) -> Self {
        let length = Duration::from_millis(time.0.unsigned_abs());
        let moved =
            if time.0 < 0 { Self::UNIX_EPOCH.checked_sub(length) } else { Self::UNIX_EPOCH.checked_add(length) };
        moved.unwrap_or(Self::UNIX_EPOCH)
    }
}

/// What a sweep of unfinished uploads came to.
#[derive(Debug, Default)]
pub struct Swept {
    /// What was given up and removed, for the report.
    pub removed: Vec<String>,
    /// What the store did not let us do.
    pub failures: Vec<StorageError>,
}

/// Something stored, and when the store says that it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dated<T> {
    /// What.
    pub item: T,
    /// When.
    pub written: StoreTime,
    /// How long it is.
    pub size_bytes: u64,
}

impl<T> Dated<T> {
    /// The same, seen otherwise.
    pub fn map<U>(self, see: impl FnOnce(T) -> U) -> Dated<U> {
        Dated { item: see(self.item), written: self.written, size_bytes: self.size_bytes }
    }
}

/// A slice of all keys that is being, or was, looked at. There are 256.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRecord {
    /// Which slice.
    pub slice: u8,
    /// Makes it unique.
    pub id: Nonce,
    /// What was found; none while it is being looked at.
    pub counts: Option<AuditCounts>,
}

/// How many data objects there were in a slice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AuditCounts {
    /// All.
    pub seen: u64,
    /// Removed for want of a link.
    pub removed: u64,
    /// That the brake kept.
    pub held: u64,
}

/// The data of one slice, and the links to blobs of the same slice.
#[derive(Clone, Debug, Default)]
pub struct DataSlice {
    /// The links, of all repositories.
    pub links: Vec<Dated<Link>>,
    /// The data objects, in the order of their keys.
    pub data: BTreeMap<DataId, Dated<()>>,
    /// What says which digests some data has; also of data that is gone.
    pub digests: Vec<Dated<(DataId, Digest)>>,
    /// Adopted data, where that was asked for.
    pub adopted: Vec<Dated<DataId>>,
}

/// Everything below `uploads/` of one upload.
#[derive(Clone, Debug, Default)]
pub struct StoredUpload {
    /// When it was last written to.
    pub written: StoreTime,
    /// Its states.
    pub sessions: Vec<super::SessionName>,
    keys: Vec<String>,
}

impl Storage {
    /// Writes an object of the run's own and sees when the store says that it was written.
    pub async fn begin_run(&self, run: &Nonce) -> Result<StoreTime, StorageError> {
        self.moment_of(&format!("{}{run}", keys::CLOCK), Vec::new()).await
    }

    /// Takes away what [`Storage::begin_run`] wrote.
    pub async fn end_run(&self, run: &Nonce) -> Result<(), StorageError> {
        self.remove_keys(vec![format!("{}{run}", keys::CLOCK)]).await
    }

    async fn moment_of(&self, key: &str, content: Vec<u8>) -> Result<StoreTime, StorageError> {
        let during = "asking the store for the time";
        self.put_freeing(key, content, during).await?;
        let path = keys::path(key).map_err(|source| StorageError::new(during, source))?;
        let options = GetOptions { head: true, ..Default::default() };
        let found = self.port.0.get_opts(&path, options).await.map_err(|source| StorageError::new(during, source))?;
        Ok(moment(&found.meta))
    }

    /// Begins to look at a slice; the store's time of that.
    pub async fn begin_audit(&self, record: &AuditRecord) -> Result<StoreTime, StorageError> {
        self.moment_of(&keys::audit(record), Vec::new()).await
    }

    /// Says what was found in slices. On a full disk it goes unsaid, and the slices are looked at again sooner.
    pub async fn end_audits(&self, records: &[AuditRecord]) -> Result<(), StorageError> {
        // Records stay: where inodes are short they would use up those that marks need.
        let short = |room: Room| room.total_objects > 0 && room.free_objects < 2 * RESERVE_OBJECTS as u64;
        if self.room().is_some_and(short) {
            return Ok(());
        }
        let keys: Vec<String> = records.iter().map(keys::audit).collect();
        let writes = stream::iter(keys).map(|key| async move { self.put(&key, Vec::new(), "noting an audit").await });
        match writes.buffered(SIDE_BY_SIDE).try_collect().await {
            Err(error) if error.kind() == StorageErrorKind::Full => Ok(()),
            done => done,
        }
    }

    /// The records of audits.
    pub async fn audits(&self) -> Result<Vec<Dated<AuditRecord>>, StorageError> {
        self.dated(keys::AUDIT, keys::parse_audit).await
    }

    /// Removes records of audits.
    pub async fn remove_audits(&self, records: &[AuditRecord]) -> Result<(), StorageError> {
        self.remove_keys(records.iter().map(keys::audit).collect()).await
    }

    /// The hints that somebody left.
    ///
    /// What each names stands in its content: see [`Storage::named_in`].
    pub async fn hints(&self) -> Result<Vec<Dated<Object>>, StorageError> {
        self.dated(keys::HINTS, keys::parse_hint).await
    }

    /// What a hint names; `None` when it is gone. What this version does not understand is left out.
    pub async fn named_in(&self, hint: &Object) -> Result<Option<Vec<Object>>, StorageError> {
        self.named_keys(&keys::object(hint), "reading a hint").await
    }

    /// When and by whom the deletion was that a hint tells of; empty where it does not say.
    pub async fn stamp_of(&self, hint: &Object) -> Result<Stamp, StorageError> {
        let content = self.read_small(&keys::object(hint), "reading a hint").await?;
        Ok(content.map(|content| Stamp::before(&content)).unwrap_or_default())
    }

    /// The mark objects of all runs.
    pub async fn mark_objects(&self) -> Result<Vec<Dated<Nonce>>, StorageError> {
        self.dated(keys::MARKS, keys::parse_mark).await
    }

    async fn named_keys(&self, key: &str, during: &'static str) -> Result<Option<Vec<Object>>, StorageError> {
        let Some(content) = self.read_small(key, during).await? else { return Ok(None) };
        let mut objects = Vec::new();
        for line in String::from_utf8_lossy(&content).lines() {
            if let Some(link) = keys::parse_link(line) {
                // Whose it is stands in the link itself. One that is gone needs nobody's care.
                objects.extend(self.owner_of(&link).await?.map(|repo| Object::Link(link, repo)));
            } else {
                objects.extend(keys::parse_object(line));
            }
        }
        Ok(Some(objects))
    }

    /// All links of a blob, of all repositories.
    pub async fn links_of_all(&self, digest: &Digest) -> Result<Vec<Link>, StorageError> {
        self.links(digest, None, super::perform::Age::Now).await
    }

    /// The layout that a collector has to understand here, where this version does not.
    pub async fn collecting_needs(&self) -> Result<Option<u32>, StorageError> {
        layout::collecting_needs(&self.port).await
    }

    /// The repository that a link belongs to; `None` when the link is gone, or does not say a name.
    pub async fn owner_of(&self, link: &Link) -> Result<Option<RepoName>, StorageError> {
        let content = self.read_small(&keys::link(link), "reading a link").await?;
        Ok(content.and_then(|name| String::from_utf8_lossy(&name).parse().ok()))
    }

    /// Whether an object is there.
    pub async fn has_object(&self, object: &Object) -> Result<bool, StorageError> {
        self.is_there(&keys::object(object)).await
    }

    /// When an object was written, and how long it is; `None` when it is not there.
    pub async fn seen(&self, object: &Object) -> Result<Option<Dated<()>>, StorageError> {
        let during = "looking for an object";
        let path = keys::path(&keys::object(object)).map_err(|source| StorageError::new(during, source))?;
        match self.port.0.get_opts(&path, GetOptions { head: true, ..Default::default() }).await {
            Ok(found) => Ok(Some(dated((), &found.meta))),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(source) => Err(StorageError::new(during, source)),
        }
    }

    /// When each of a repository's links of a blob was written.
    pub async fn dated_links(&self, repo: &RepoName, digest: &Digest) -> Result<Vec<Dated<Link>>, StorageError> {
        self.dated(&keys::links_of(digest, repo), keys::parse_link).await
    }

    /// Every repository that ever had a manifest.
    pub async fn catalog(&self) -> Result<Vec<RepoName>, StorageError> {
        Ok(self.list_all(keys::CATALOG).await?.iter().filter_map(|key| keys::parse_catalog(key)).collect())
    }

    /// Every object of a repository, in the order of keys: index, history, copies, referrers, tags.
    pub async fn each_of(&self, repo: &RepoName, mut each: impl FnMut(Dated<Object>)) -> Result<(), StorageError> {
        self.each(&keys::repo(repo), |key, meta| {
            if let Some(object) = keys::parse_object(key) {
                each(dated(object, meta));
            }
        })
        .await
    }

    /// The entries of a blob in its repository's own index.
    pub async fn index_entries(&self, repo: &RepoName, digest: &Digest) -> Result<Vec<Object>, StorageError> {
        Ok(self
            .list_all(&keys::blob_index(repo, digest))
            .await?
            .iter()
            .filter_map(|key| keys::parse_object(key))
            .collect())
    }

    /// What is stored of uploads under way, by upload.
    pub async fn uploads(&self) -> Result<BTreeMap<UploadId, StoredUpload>, StorageError> {
        let mut uploads: BTreeMap<UploadId, StoredUpload> = BTreeMap::new();
        self.each(keys::UPLOADS, |key, meta| {
            let Some(id) = keys::parse_upload(key) else { return };
            let upload = uploads.entry(id).or_default();
            upload.written = upload.written.max(moment(meta));
            upload.keys.push(key.to_owned());
            if let Some(UploadItem::Session { seq, nonce }) = keys::parse_upload_item(key) {
                upload.sessions.push(super::SessionName { seq, nonce });
            }
        })
        .await?;
        Ok(uploads)
    }

    /// Removes everything that is stored of an upload under way.
    pub async fn remove_upload(&self, upload: &StoredUpload) -> Result<(), StorageError> {
        self.remove_keys(upload.keys.clone()).await
    }

    /// The store's id of the multipart upload that a state goes on with.
    pub async fn multipart_of(&self, id: &UploadId, name: &super::SessionName) -> Result<Option<String>, StorageError> {
        Ok(self.read_session(id, name).await?.map(|(session, _)| session.writer.multipart().to_owned()))
    }

    /// Gives up multipart uploads of ours that were begun before, except these, and removes what died while it was
    /// written. A multipart upload of anything but our data is foreign, and left alone. Where the store does not let us
    /// list or give up, which is a right of its own in some, the rest is done all the same.
    pub async fn sweep_unfinished(&self, before: StoreTime, going_on: &BTreeSet<String>, dry_run: bool) -> Swept {
        let error = |source| StorageError::new("sweeping unfinished uploads", source);
        let before: SystemTime = before.into();
        let mut swept = Swept::default();
        let mut after: Option<Unfinished> = None;
        loop {
            let page = match self.port.0.unfinished_multiparts(keys::DATA, after.as_ref()).await {
                Ok(Some(page)) => page,
                Ok(None) => break,
                Err(source) => {
                    swept.failures.push(error(source));
                    break;
                }
            };
            for unfinished in &page {
                let key = unfinished.path.as_ref();
                let ours = keys::parse_data(key).is_some() || key == "data/unknown";
                if ours && unfinished.since < before && !going_on.contains(&unfinished.id) {
                    if !dry_run && let Err(source) = self.port.0.abort_multipart(&unfinished.path, &unfinished.id).await
                    {
                        // One of them tells why.
                        if swept.failures.is_empty() {
                            swept.failures.push(error(source));
                        }
                        continue;
                    }
                    swept.removed.push(format!("multipart/{}", unfinished.id));
                }
            }
            match page.into_iter().last() {
                Some(last) => after = Some(last),
                None => break,
            }
        }
        if !dry_run {
            match self.port.0.sweep_temporary(before).await {
                Ok(removed) => {
                    swept.removed.extend(removed.into_iter().map(|name| format!("temporary/{name}")));
                }
                Err(source) => swept.failures.push(error(source)),
            }
        }
        swept
    }

    /// Writes what a batch removed.
    pub async fn write_log(&self, id: &Nonce, content: Vec<u8>) -> Result<(), StorageError> {
        self.put(&format!("{}{id}", keys::LOG), content, "writing the log of removals").await
    }

    /// The logs of removals.
    pub async fn logs(&self) -> Result<Vec<Dated<Nonce>>, StorageError> {
        self.dated(keys::LOG, |key| key.strip_prefix(keys::LOG)?.parse().ok()).await
    }

    /// One log of removals; `None` when it is gone.
    pub async fn log(&self, id: &Nonce) -> Result<Option<bytes::Bytes>, StorageError> {
        self.read_small(&format!("{}{id}", keys::LOG), "reading the log of removals").await
    }

    /// Removes logs of removals.
    pub async fn remove_logs(&self, ids: &[Nonce]) -> Result<(), StorageError> {
        self.remove_keys(ids.iter().map(|id| format!("{}{id}", keys::LOG)).collect()).await
    }

    /// Lets the brake go: whichever replica comes to it honours this.
    pub async fn confirm_collection(&self, id: &Nonce) -> Result<(), StorageError> {
        self.put(&format!("{}{id}", keys::CONFIRM), Vec::new(), "confirming the collection").await
    }

    /// When operators let the brake go.
    pub async fn confirmations(&self) -> Result<Vec<Dated<Nonce>>, StorageError> {
        self.dated(keys::CONFIRM, |key| key.strip_prefix(keys::CONFIRM)?.parse().ok()).await
    }

    /// Removes confirmations that have had their time.
    pub async fn remove_confirmations(&self, ids: &[Nonce]) -> Result<(), StorageError> {
        self.remove_keys(ids.iter().map(|id| format!("{}{id}", keys::CONFIRM)).collect()).await
    }

    /// What dead runs wrote to see the time.
    pub async fn run_clocks(&self) -> Result<Vec<Dated<Nonce>>, StorageError> {
        self.dated(keys::CLOCK, |key| key.strip_prefix(keys::CLOCK)?.parse().ok()).await
    }

    /// Keeps space, and inodes, that can be freed on a full disk.
    pub async fn write_reserve(&self) -> Result<(), StorageError> {
        let there: BTreeSet<String> = self.list_all(keys::RESERVE).await?.into_iter().collect();
        for (number, key) in reserve().enumerate().filter(|(_, key)| !there.contains(key)) {
            let bytes = if number == 0 { RESERVE_BYTES } else { 0 };
            self.put(&key, vec![0; bytes], "keeping a reserve").await?;
        }
        Ok(())
    }

    /// Frees them.
    async fn free_reserve(&self) -> Result<(), StorageError> {
        self.remove_keys(reserve().collect()).await
    }

    /// Writes what has to be written before space can be freed: on a full disk the reserve makes room for it.
    pub(super) async fn put_freeing(
        &self,
        key: &str,
        content: impl Into<PutPayload>,
        during: &'static str,
    ) -> Result<(), StorageError> {
        let content = content.into();
        match self.put(key, content.clone(), during).await {
            Err(error) if error.kind() == StorageErrorKind::Full => {
                self.free_reserve().await?;
                self.put(key, content, during).await
            }
            done => done,
        }
    }

    /// Items of a list, each with the store's time of it.
    async fn dated<T>(&self, prefix: &str, parse: impl Fn(&str) -> Option<T>) -> Result<Vec<Dated<T>>, StorageError> {
        let mut found = Vec::new();
        self.each(prefix, |key, meta| found.extend(parse(key).map(|item| dated(item, meta)))).await?;
        Ok(found)
    }

    async fn each(&self, prefix: &str, mut each: impl FnMut(&str, &ObjectMeta)) -> Result<(), StorageError> {
        let mut after = None;
        loop {
            let options = PaginatedListOptions { offset: after, max_keys: Some(PAGE_KEYS), ..Default::default() };
            let page = self.port.0.list_paginated(Some(prefix), options).await;
            let page = page.map_err(|source| StorageError::new("listing objects", source))?;
            for meta in &page.result.objects {
                each(meta.location.as_ref(), meta);
            }
            // The port's contract leaves the order within a page open.
            let last = page.result.objects.into_iter().map(|object| String::from(object.location)).max();
            if page.page_token.is_none() || last.is_none() {
                return Ok(());
            }
            after = last;
        }
    }
}

/// What `gc/reserve` holds free.
const RESERVE_BYTES: usize = 1024 * 1024;
/// And how many empty objects beside it hold an inode each: a run writes a mark, a hint, a log, what it sees the time by, and
/// notes of a slice, each of which may need a folder too.
const RESERVE_OBJECTS: usize = 16;

/// The keys of the reserve.
fn reserve() -> impl Iterator<Item = String> {
    (0..=RESERVE_OBJECTS).map(|number| match number {
        0 => keys::RESERVE.to_owned(),
        number => format!("{}.{number:02}", keys::RESERVE),
    })
}

fn moment(meta: &ObjectMeta) -> StoreTime {
    StoreTime(meta.last_modified.timestamp_millis())
}

fn dated<T>(item: T, meta: &ObjectMeta) -> Dated<T> {
    Dated { item, written: moment(meta), size_bytes: meta.size }
}

/// An object's key, to be shown to people.
pub fn spelled(object: &Object) -> String {
    keys::object(object)
}
