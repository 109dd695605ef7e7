//! A store whose time is the simulation's, behind a network that delays, loses answers, repeats writes and breaks off.
//!
//! A request lives on when whoever made it is gone, as one on a wire does: it arrives later, or has arrived.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use crate::storage::Port;
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use object_store::list::{PaginatedListOptions, PaginatedListResult, PaginatedListStore};
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetRange, GetResult, GetResultPayload, ListResult, MultipartId, MultipartUpload,
    ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::chance::Chance;

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Put,
    Get,
    Head,
    List,
    Delete,
    Part,
}

/// How often what goes wrong, of 10,000 requests.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rates {
    /// An error, and nothing was done.
    pub(crate) refused: u64,
    /// It was done, and the answer was lost.
    pub(crate) lost: u64,
    /// A write that is applied once more, later.
    pub(crate) repeated: u64,
    /// Whoever asked dies, before or after it is done.
    pub(crate) crash: u64,
    /// It takes as long as may be.
    pub(crate) slow: u64,
}

/// What went wrong, over all simulations.
#[derive(Debug, Default)]
pub(crate) struct Counts(Mutex<BTreeMap<String, u64>>);

impl Counts {
    pub(crate) fn add(&self, what: impl Into<String>, many: u64) {
        *self.0.lock().unwrap().entry(what.into()).or_default() += many;
    }

    pub(crate) fn get(&self, what: &str) -> u64 {
        self.0.lock().unwrap().get(what).copied().unwrap_or(0)
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().iter().map(|(what, count)| format!("{count:10}  {what}")).collect()
    }
}

/// Tags and bytes, by place.
type Parts = BTreeMap<usize, (String, Bytes)>;

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<String, (Bytes, SystemTime)>,
    uploads: HashMap<String, Parts>,
    next: u64,
}

/// The bucket.
#[derive(Debug)]
pub(crate) struct Store {
    state: Mutex<State>,
    rates: Mutex<Rates>,
    chance: Mutex<Chance>,
    counts: Arc<Counts>,
    began: Instant,
    longest: Duration,
    /// What most requests take at most.
    usual: Duration,
    /// As a folder does; object stores want parts of some size.
    takes_any_parts: bool,
    /// Where somebody wants to read it.
    history: Option<Mutex<Vec<String>>>,
    asked: AtomicU64,
}

/// A replica's life.
#[derive(Debug)]
pub(crate) struct Life(watch::Sender<bool>);

impl Life {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(watch::Sender::new(true)))
    }

    pub(crate) fn is_over(&self) -> bool {
        !*self.0.borrow()
    }

    fn end(&self) {
        self.0.send_replace(false);
    }

    /// Until it is over.
    pub(crate) async fn over(&self) {
        let mut watched = self.0.subscribe();
        let _ = watched.wait_for(|alive| !alive).await;
    }
}

struct Plan {
    before: Duration,
    after: Duration,
    refused: bool,
    lost: bool,
    again: Option<Duration>,
    /// Whether the asker dies, and whether before the request is made.
    crash: Option<bool>,
}

impl Store {
    /// An empty one. `usual`: what most requests take at most, `longest`: what the slowest and repetitions take; `history`:
    /// whether it is kept.
    pub(crate) fn new(
        mut chance: Chance,
        counts: Arc<Counts>,
        usual: Duration,
        longest: Duration,
        history: bool,
    ) -> Arc<Self> {
        let takes_any_parts = chance.below(2) == 0;
        Arc::new(Self {
            takes_any_parts,
            state: Mutex::default(),
            rates: Mutex::default(),
            chance: Mutex::new(chance),
            counts,
            began: Instant::now(),
            longest,
            usual,
            history: history.then(Mutex::default),
            asked: AtomicU64::new(0),
        })
    }

    pub(crate) fn set_rates(&self, rates: Rates) {
        *self.rates.lock().unwrap() = rates;
    }

    pub(crate) fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_750_000_000) + self.began.elapsed()
    }

    pub(crate) fn keys(&self) -> Vec<String> {
        self.state.lock().unwrap().objects.keys().cloned().collect()
    }

    /// Notes something for whoever reads what led to a failure.
    pub(crate) fn say(&self, line: impl FnOnce() -> String) {
        if let Some(history) = &self.history {
            let at = self.began.elapsed().as_millis();
            history.lock().unwrap().push(format!("{at:>10} ms  {}", line()));
        }
    }

    pub(crate) fn history(&self) -> String {
        self.history.as_ref().map(|history| history.lock().unwrap().join("\n")).unwrap_or_default()
    }

    pub(crate) fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    fn plan(&self, kind: Kind) -> Plan {
        let rates = *self.rates.lock().unwrap();
        let mut chance = self.chance.lock().unwrap();
        let writes = matches!(kind, Kind::Put | Kind::Delete);
        let mut of = |rate: u64, what: &str| {
            let fired = chance.below(10_000) < rate;
            if fired {
                self.counts.add(format!("{what} {kind:?}"), 1);
            }
            fired
        };
        let (refused, slow) = (of(rates.refused, "refused"), of(rates.slow, "slow"));
        let lost = !refused && of(rates.lost, "answer lost");
        let repeated = writes && !refused && of(rates.repeated, "repeated later");
        let crashes = of(rates.crash, "crash at");
        let most = u64::try_from(self.longest.as_millis()).unwrap_or(u64::MAX);
        let usual = u64::try_from(self.usual.as_millis()).unwrap_or(u64::MAX);
        // Some take several times as long as others, so that whole operations fit between two requests of another.
        let before = match chance.below(8) {
            _ if slow => chance.below(most),
            0 => chance.below(usual * 8),
            _ => chance.below(usual),
        };
        let before = Duration::from_millis(before);
        let after = Duration::from_millis(chance.below(usual / 2));
        let again = repeated.then(|| Duration::from_millis(chance.below(most)));
        let crash = crashes.then(|| chance.below(2) == 0);
        Plan { before, after, refused, lost, again, crash }
    }
}

/// The store as one replica reaches it.
#[derive(Clone, Debug)]
pub(crate) struct SimPort {
    pub(crate) store: Arc<Store>,
    pub(crate) life: Arc<Life>,
}

impl fmt::Display for SimPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("simulated")
    }
}

fn broken() -> Error {
    Error::Generic { store: "simulated", source: "the network broke".into() }
}

fn absent(key: &str) -> Error {
    Error::NotFound { path: key.to_owned(), source: "it is not there".into() }
}

impl SimPort {
    async fn request<T: Send + 'static>(
        &self,
        kind: Kind,
        what: impl FnOnce() -> String,
        apply: impl Fn(&mut State, SystemTime) -> Result<T> + Send + Sync + 'static,
    ) -> Result<T> {
        let plan = self.store.plan(kind);
        let number = self.store.asked.fetch_add(1, Ordering::Relaxed);
        if plan.refused || plan.lost || plan.again.is_some() || plan.crash.is_some() {
            let Plan { refused, lost, again, crash, .. } = &plan;
            self.store.say(|| format!("    request {number}: {kind:?} {}: refused {refused}, answer lost {lost}, again {again:?}, crash {crash:?}", what()));
        }
        if plan.crash == Some(true) {
            self.life.end();
        }
        if self.life.is_over() {
            // The dead ask nothing.
            return std::future::pending().await;
        }
        let store = self.store.clone();
        let wire = tokio::spawn(async move {
            sleep(plan.before).await;
            if plan.refused {
                return Err(broken());
            }
            let now = store.now();
            let result = apply(&mut store.state.lock().unwrap(), now);
            if let Some(later) = plan.again {
                tokio::spawn(async move {
                    sleep(later).await;
                    let now = store.now();
                    let _ = apply(&mut store.state.lock().unwrap(), now);
                });
            }
            sleep(plan.after).await;
            if plan.lost { Err(broken()) } else { result }
        });
        let result = wire.await.unwrap();
        if plan.crash == Some(false) {
            self.life.end();
        }
        if self.life.is_over() {
            return std::future::pending().await;
        }
        result
    }
}

fn whole(payload: PutPayload) -> Bytes {
    let mut whole = Vec::with_capacity(payload.content_length());
    payload.iter().for_each(|piece| whole.extend_from_slice(piece));
    whole.into()
}

fn meta(key: &str, size: usize, modified: SystemTime) -> ObjectMeta {
    let location = Path::parse(key).unwrap();
    ObjectMeta { location, last_modified: modified.into(), size: size as u64, e_tag: None, version: None }
}

fn written() -> PutResult {
    PutResult { e_tag: None, version: None, extensions: Default::default() }
}

#[async_trait]
impl ObjectStore for SimPort {
    async fn put_opts(&self, location: &Path, payload: PutPayload, _: PutOptions) -> Result<PutResult> {
        let (key, content) = (location.to_string(), whole(payload));
        let named = key.clone();
        self.request(
            Kind::Put,
            || named,
            move |state, now| {
                state.objects.insert(key.clone(), (content.clone(), now));
                Ok(())
            },
        )
        .await?;
        Ok(written())
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(broken())
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let key = location.to_string();
        let kind = if options.head { Kind::Head } else { Kind::Get };
        let named = key.clone();
        let (content, modified) = self
            .request(kind, || named, move |state, _| state.objects.get(&key).cloned().ok_or_else(|| absent(&key)))
            .await?;
        let meta = meta(location.as_ref(), content.len(), modified);
        let size = content.len() as u64;
        let range = match options.range {
            None => 0..size,
            Some(GetRange::Bounded(range)) => range.start..range.end.min(size),
            Some(GetRange::Offset(start)) => start..size,
            Some(GetRange::Suffix(count)) => size.saturating_sub(count)..size,
        };
        let part = content.slice(range.start as usize..range.end as usize);
        let pieces: Vec<Result<Bytes>> = if options.head { Vec::new() } else { vec![Ok(part)] };
        let payload = GetResultPayload::Stream(stream::iter(pieces).boxed());
        Ok(GetResult { payload, meta, range, attributes: Default::default(), extensions: Default::default() })
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        // A thousand keys a request, as S3 has it.
        let port = self.clone();
        locations
            .chunks(1000)
            .then(move |batch| {
                let port = port.clone();
                async move {
                    let paths: Result<Vec<Path>> = batch.into_iter().collect();
                    let paths = match paths {
                        Ok(paths) => paths,
                        Err(error) => return stream::iter(vec![Err(error)]),
                    };
                    let keys: Vec<String> = paths.iter().map(Path::to_string).collect();
                    let named = keys.join(" ");
                    let removed = port.request(
                        Kind::Delete,
                        || named,
                        move |state, _| {
                            keys.iter().for_each(|key| _ = state.objects.remove(key));
                            Ok(())
                        },
                    );
                    match removed.await {
                        Ok(()) => stream::iter(paths.into_iter().map(Ok).collect::<Vec<_>>()),
                        Err(error) => stream::iter(vec![Err(error)]),
                    }
                }
            })
            .flatten()
            .boxed()
    }

    fn list(&self, _: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        stream::iter([Err(broken())]).boxed()
    }

    async fn list_with_delimiter(&self, _: Option<&Path>) -> Result<ListResult> {
        Err(broken())
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(broken())
    }
}

#[async_trait]
impl MultipartStore for SimPort {
    async fn create_multipart(&self, path: &Path) -> Result<MultipartId> {
        self.request(
            Kind::Part,
            || format!("begin {path}"),
            move |state, _| {
                state.next += 1;
                let id = state.next.to_string();
                state.uploads.insert(id.clone(), Parts::new());
                Ok(id)
            },
        )
        .await
    }

    async fn put_part(&self, path: &Path, id: &MultipartId, index: usize, data: PutPayload) -> Result<PartId> {
        let (key, id, data) = (path.to_string(), id.clone(), whole(data));
        self.request(
            Kind::Part,
            || format!("{index}"),
            move |state, _| {
                state.next += 1;
                let tag = state.next.to_string();
                let parts = state.uploads.get_mut(&id).ok_or_else(|| absent(&key))?;
                parts.insert(index, (tag.clone(), data.clone()));
                Ok(PartId { content_id: tag })
            },
        )
        .await
    }

    async fn complete_multipart(&self, path: &Path, id: &MultipartId, parts: Vec<PartId>) -> Result<PutResult> {
        let (key, id) = (path.to_string(), id.clone());
        self.request(
            Kind::Part,
            || "complete".into(),
            move |state, now| {
                let stored = state.uploads.get(&id).ok_or_else(|| absent(&key))?;
                let mut whole = Vec::new();
                for (index, part) in parts.iter().enumerate() {
                    let (tag, data) = stored.get(&index).ok_or_else(|| absent(&key))?;
                    if *tag != part.content_id {
                        return Err(Error::Generic { store: "simulated", source: "InvalidPart".into() });
                    }
                    whole.extend_from_slice(data);
                }
                state.uploads.remove(&id);
                state.objects.insert(key.clone(), (whole.into(), now));
                Ok(())
            },
        )
        .await?;
        Ok(written())
    }

    async fn abort_multipart(&self, _: &Path, id: &MultipartId) -> Result<()> {
        let id = id.clone();
        self.request(
            Kind::Part,
            || "abort".into(),
            move |state, _| {
                state.uploads.remove(&id);
                Ok(())
            },
        )
        .await
    }
}

#[async_trait]
impl PaginatedListStore for SimPort {
    async fn list_paginated(&self, prefix: Option<&str>, options: PaginatedListOptions) -> Result<PaginatedListResult> {
        let prefix = prefix.unwrap_or_default().to_owned();
        let named = prefix.clone();
        self.request(
            Kind::List,
            || named,
            move |state, _| {
                let after = options.page_token.clone().or_else(|| options.offset.clone()).unwrap_or_default();
                let from = prefix.clone().max(after.clone());
                let max = options.max_keys.unwrap_or(1000);
                let mut objects: Vec<ObjectMeta> = state
                    .objects
                    .range(from..)
                    .skip_while(|(key, _)| **key <= after)
                    .take_while(|(key, _)| key.starts_with(&prefix))
                    .take(max + 1)
                    .map(|(key, (content, modified))| meta(key, content.len(), *modified))
                    .collect();
                let more = objects.len() > max;
                objects.truncate(max);
                let page_token = objects.last().filter(|_| more).map(|last| last.location.to_string());
                let result = ListResult { common_prefixes: Vec::new(), objects, extensions: Default::default() };
                Ok(PaginatedListResult { result, page_token })
            },
        )
        .await
    }
}

impl Port for SimPort {
    fn takes_any_parts(&self) -> bool {
        self.store.takes_any_parts
    }
}
