//! Replicas of the real service on one store, which die and are started again, and what clients were told.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::admin::{Admin, AdminError, Undone};
use crate::auth::Authorizer;
use crate::collect::{self, CollectSettings, Collector, Mode};
use crate::http::{App, router};
use crate::metrics::Metrics;
use crate::service::{Registry, Surroundings};
use crate::storage::Storage;
use axum::Router;
use axum::body::Body;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use tower::ServiceExt;

use super::chance::Chance;
use super::client::IMMUTABLE;
use super::facts::Facts;
use super::store::{Counts, Life, SimPort, Store};

/// How long clients wait for an answer.
const PATIENCE: Duration = Duration::from_secs(24 * 3600);

/// One replica, from its start to its death.
pub(crate) struct Replica {
    router: Router,
    admin: Admin,
    pub(crate) collector: Collector,
    pub(crate) life: Arc<Life>,
}

impl Replica {
    /// What it answers, if it does.
    async fn while_it_lives<T>(&self, answer: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.life.over() => None,
            answer = answer => Some(answer),
            () = tokio::time::sleep(PATIENCE) => None,
        }
    }
}

/// A header that a request has.
pub(crate) type Header<'h> = Option<(&'static str, &'h str)>;

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// How many bytes an upload has by this answer; one byte and none look the same.
    pub(crate) fn offset(&self) -> Option<usize> {
        let range = self.headers.get("range")?.to_str().ok()?;
        let last: usize = range.strip_prefix("0-")?.parse().ok()?;
        Some(if last == 0 { 0 } else { last + 1 })
    }

    pub(crate) fn location(&self) -> String {
        self.headers.get("location").map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
    }
}

pub(crate) struct World {
    pub(crate) store: Arc<Store>,
    pub(crate) facts: Facts,
    pub(crate) counts: Arc<Counts>,
    replicas: Vec<Mutex<Option<Arc<Replica>>>>,
    chance: Mutex<Chance>,
    pub(crate) kind: Kind,
    ids: Arc<AtomicU64>,
}

/// What a world is like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    pub(crate) grace: Duration,
    /// Whether something goes wrong now and then.
    pub(crate) trouble: bool,
    /// Whether clients delete.
    pub(crate) deletes: bool,
    /// Whether values of the past go, and what no tag names.
    pub(crate) expires: bool,
    /// The one tag of the first repository that all are about: what is rare elsewhere meets there.
    pub(crate) about: Option<&'static str>,
}

impl Kind {
    /// Whether what a client does alone has to succeed.
    pub(crate) fn is_calm(&self) -> bool {
        !self.trouble && !self.deletes
    }

    fn collects(&self) -> CollectSettings {
        let usual = CollectSettings { grace: self.grace, ..Default::default() };
        if self.expires { CollectSettings { history: self.grace, untagged: Some(self.grace), ..usual } } else { usual }
    }
}

impl World {
    pub(crate) fn new(store: Arc<Store>, mut chance: Chance, counts: Arc<Counts>, replicas: u64, kind: Kind) -> Self {
        let ids = Arc::new(AtomicU64::new(chance.next() >> 32));
        let replicas = (0..replicas).map(|_| Mutex::default()).collect();
        Self { store, facts: Facts::default(), counts, replicas, chance: Mutex::new(chance), kind, ids }
    }

    pub(crate) fn replicas(&self) -> usize {
        self.replicas.len()
    }

    /// The replica of this number, started if it is dead.
    pub(crate) async fn replica(&self, number: usize) -> Arc<Replica> {
        loop {
            let there = self.replicas[number].lock().unwrap().clone();
            if let Some(replica) = there.filter(|replica| !replica.life.is_over()) {
                return replica;
            }
            let life = Life::new();
            let port = SimPort { store: self.store.clone(), life: life.clone() };
            let random = {
                let mut chance = self.chance.lock().unwrap();
                let mut bytes = [0; 32];
                bytes.chunks_mut(8).for_each(|eight| eight.copy_from_slice(&chance.next().to_le_bytes()));
                bytes
            };
            let opened = tokio::select! {
                biased;
                opened = Storage::open(port, random) => opened.ok(),
                () = life.over() => None,
            };
            let Some(storage) = opened else { continue };
            let storage = Arc::new(storage);
            let registry = Registry::new(storage.clone(), self.surroundings());
            let registry = Arc::new(registry.with_immutable_tags(vec![IMMUTABLE.parse().unwrap()]));
            let Surroundings { now, random, .. } = self.surroundings();
            let surroundings = collect::Surroundings { now, random };
            let collector = Collector::new(storage, self.kind.collects(), surroundings, Arc::new(Metrics::new()));
            let admin = Admin::new(registry.clone());
            let router = router(App::new(registry, Authorizer::Everyone));
            *self.replicas[number].lock().unwrap() = Some(Arc::new(Replica { router, admin, collector, life }));
        }
    }

    /// Ids that are never given twice, in any life of any replica.
    fn surroundings(&self) -> Surroundings {
        let ids = self.ids.clone();
        Surroundings {
            now: Arc::new(|| "2026-11-25T12:00:00Z".into()),
            random: Arc::new(move || {
                let number = u128::from(ids.fetch_add(1, Ordering::Relaxed));
                // Spread, so that the order of ids is not that of time.
                (number.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)).to_be_bytes()
            }),
        }
    }

    /// One request to a replica. `None`: no answer came, and what became of it is not known.
    pub(crate) async fn ask(&self, replica: usize, line: &str, header: Header<'_>, body: Body) -> Option<Answer> {
        let replica = self.replica(replica).await;
        let (method, target) = line.split_once(' ').unwrap();
        let mut request = Request::builder().method(method).uri(target);
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        let request = request.body(body).unwrap();
        let router = replica.router.clone();
        let answer = async {
            let (head, body) = router.oneshot(request).await.unwrap().into_parts();
            let body = body.collect().await.ok()?.to_bytes().to_vec();
            Some(Answer { status: head.status, headers: head.headers, body })
        };
        replica.while_it_lives(answer).await.flatten()
    }

    /// An operator's order to a replica, answered as a request is.
    pub(crate) async fn undo(
        &self,
        replica: usize,
        (repo, tag): (&str, &str),
        to: Option<&str>,
    ) -> Option<Result<Undone, AdminError>> {
        let replica = self.replica(replica).await;
        let (repo, tag) = (repo.parse().unwrap(), tag.parse().unwrap());
        replica.while_it_lives(replica.admin.undo(&repo, &tag, to)).await
    }

    /// One run of a replica's collector; how many objects went of each kind is counted as `what`.
    pub(crate) async fn collect(&self, replica: usize, what: &str) -> bool {
        let replica = self.replica(replica).await;
        let report = tokio::select! {
            biased;
            () = replica.life.over() => return false,
            report = replica.collector.run_once(Mode::Whole) => report,
        };
        match report {
            Ok(report) => {
                for removal in &report.removed {
                    self.counts.add(format!("{what}: removed {}", kind_of(&removal.key)), 1);
                    self.store.say(|| format!("{what}: removed {} ({:?})", removal.key, removal.why));
                }
                report.failures.is_empty()
            }
            Err(error) => {
                self.store.say(|| format!("{what}: {error}"));
                false
            }
        }
    }
}

fn kind_of(key: &str) -> &'static str {
    match key {
        _ if key.starts_with("data/") => "data",
        _ if key.starts_with("links/") => "link",
        _ if key.contains("/_manifests/") => "copy",
        _ if key.contains("/_tags/") => "tag entry",
        _ => "other",
    }
}
