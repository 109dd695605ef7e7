//! A store whose time is the simulation's, behind a network that delays, loses answers, repeats writes and breaks off.
//!
//! A request lives on when whoever made it is gone, as one on a wire does: it arrives later, or has arrived. That takes no
//! task: what is on its way is applied, in the order of its times, before anybody looks at the store again.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
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
use tokio::sync::Notify;
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

/// An object, and its key as lists and heads give it, parsed once.
#[derive(Clone, Debug)]
struct Object {
    path: Path,
    content: Bytes,
    modified: SystemTime,
}

impl Object {
    fn meta(&self) -> ObjectMeta {
        ObjectMeta {
            location: self.path.clone(),
            last_modified: self.modified.into(),
            size: self.content.len() as u64,
            e_tag: None,
            version: None,
        }
    }
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<String, Object>,
    uploads: HashMap<String, Parts>,
    next: u64,
}

impl State {
    fn put(&mut self, path: &Path, content: Bytes, modified: SystemTime) {
        self.objects.insert(path.to_string(), Object { path: path.clone(), content, modified });
    }
}

/// What a request does when it arrives.
type Arrival = Box<dyn FnOnce(&mut State, SystemTime) + Send>;

/// What the store holds, and what is on its way to it.
#[derive(Default)]
struct Wire {
    state: State,
    /// By the time of their arrival, and the order in which they were sent.
    coming: BTreeMap<(Duration, u64), Arrival>,
    sent: u64,
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { state, coming, sent } = self;
        f.debug_struct("Wire").field("state", state).field("coming", &coming.keys()).field("sent", sent).finish()
    }
}

impl Wire {
    fn send(&mut self, at: Duration, arrival: Arrival) {
        self.sent += 1;
        self.coming.insert((at, self.sent), arrival);
    }

    /// What the store holds so long after its beginning.
    fn at(&mut self, now: Duration) -> &mut State {
        while let Some(next) = self.coming.first_entry().filter(|next| next.key().0 <= now) {
            let ((at, _), arrival) = next.remove_entry();
            arrival(&mut self.state, time(at));
        }
        &mut self.state
    }
}

/// The store's clock, so long after its beginning.
fn time(since: Duration) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_750_000_000) + since
}

/// The bucket.
#[derive(Debug)]
pub(crate) struct Store {
    wire: Mutex<Wire>,
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

/// A replica's life. Who waits for its end is woken in the order of waiting, so that a seed is the same history each time:
/// `tokio::sync::watch` shares its waiters out by chance.
#[derive(Debug, Default)]
pub(crate) struct Life {
    is_over: AtomicBool,
    ended: Notify,
}

impl Life {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(crate) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.ended.notify_waiters();
    }

    /// Until it is over.
    pub(crate) async fn over(&self) {
        let ended = self.ended.notified();
        if !self.is_over() {
            ended.await;
        }
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
            wire: Mutex::default(),
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

    pub(crate) fn keys(&self) -> Vec<String> {
        let now = self.began.elapsed();
        self.wire.lock().unwrap().at(now).objects.keys().cloned().collect()
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
        let arrives = self.store.began.elapsed() + plan.before;
        let reply = Arc::new(Mutex::new(None));
        if !plan.refused {
            let mut wire = self.store.wire.lock().unwrap();
            let apply = Arc::new(apply);
            if let Some(later) = plan.again {
                let apply = apply.clone();
                wire.send(arrives + later, Box::new(move |state, now| _ = apply(state, now)));
            }
            let reply = reply.clone();
            wire.send(arrives, Box::new(move |state, now| *reply.lock().unwrap() = Some(apply(state, now))));
        }
        sleep(if plan.refused { plan.before } else { plan.before + plan.after }).await;
        self.store.wire.lock().unwrap().at(self.store.began.elapsed());
        if plan.crash == Some(false) {
            self.life.end();
        }
        if self.life.is_over() {
            return std::future::pending().await;
        }
        if plan.refused || plan.lost {
            return Err(broken());
        }
        reply.lock().unwrap().take().unwrap()
    }
}

fn whole(payload: PutPayload) -> Bytes {
    payload.into()
}

fn written() -> PutResult {
    PutResult { e_tag: None, version: None, extensions: Default::default() }
}

#[async_trait]
impl ObjectStore for SimPort {
    async fn put_opts(&self, location: &Path, payload: PutPayload, _: PutOptions) -> Result<PutResult> {
        let (path, content) = (location.clone(), whole(payload));
        self.request(
            Kind::Put,
            || location.to_string(),
            move |state, now| {
                state.put(&path, content.clone(), now);
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
        let path = location.clone();
        let kind = if options.head { Kind::Head } else { Kind::Get };
        let object = self
            .request(
                kind,
                || location.to_string(),
                move |state, _| state.objects.get(path.as_ref()).cloned().ok_or_else(|| absent(path.as_ref())),
            )
            .await?;
        let (meta, content) = (object.meta(), object.content);
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
                    let going = paths.clone();
                    let removed = port.request(
                        Kind::Delete,
                        || paths.iter().map(Path::to_string).collect::<Vec<_>>().join(" "),
                        move |state, _| {
                            going.iter().for_each(|path| _ = state.objects.remove(path.as_ref()));
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
        let (path, id) = (path.clone(), id.clone());
        self.request(
            Kind::Part,
            || "complete".into(),
            move |state, now| {
                let stored = state.uploads.get(&id).ok_or_else(|| absent(path.as_ref()))?;
                let mut whole = Vec::new();
                for (index, part) in parts.iter().enumerate() {
                    let (tag, data) = stored.get(&index).ok_or_else(|| absent(path.as_ref()))?;
                    if *tag != part.content_id {
                        return Err(Error::Generic { store: "simulated", source: "InvalidPart".into() });
                    }
                    whole.extend_from_slice(data);
                }
                state.uploads.remove(&id);
                state.put(&path, whole.into(), now);
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
        let below = prefix.unwrap_or_default().to_owned();
        self.request(
            Kind::List,
            || prefix.unwrap_or_default().to_owned(),
            move |state, _| {
                let after = options.page_token.as_deref().or(options.offset.as_deref()).unwrap_or_default();
                let from = (Bound::Included(below.as_str().max(after)), Bound::Unbounded);
                let max = options.max_keys.unwrap_or(1000);
                let mut objects: Vec<ObjectMeta> = state
                    .objects
                    .range::<str, _>(from)
                    .skip_while(|(key, _)| key.as_str() <= after)
                    .take_while(|(key, _)| key.starts_with(&below))
                    .take(max + 1)
                    .map(|(_, object)| object.meta())
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
