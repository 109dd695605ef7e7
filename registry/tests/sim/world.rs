//! Replicas of the real service on one store, which die and are started again, and what clients were told.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

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
use super::facts::Facts;
use super::store::{Counts, Life, SimPort, Store};

/// How long clients wait for an answer.
const PATIENCE: Duration = Duration::from_secs(24 * 3600);

/// One replica, from its start to its death.
pub(crate) struct Replica {
    router: Router,
    pub(crate) collector: Collector,
    pub(crate) life: Arc<Life>,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
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
    grace: Duration,
    ids: Arc<AtomicU64>,
}

impl World {
    pub(crate) fn new(
        store: Arc<Store>,
        mut chance: Chance,
        counts: Arc<Counts>,
        replicas: u64,
        grace: Duration,
    ) -> Self {
        let ids = Arc::new(AtomicU64::new(chance.next() >> 32));
        let replicas = (0..replicas).map(|_| Mutex::default()).collect();
        Self { store, facts: Facts::default(), counts, replicas, chance: Mutex::new(chance), grace, ids }
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
            let Surroundings { now, random, .. } = self.surroundings();
            let settings = CollectSettings { grace: self.grace, ..Default::default() };
            let collector =
                Collector::new(storage, settings, collect::Surroundings { now, random }, Arc::new(Metrics::new()));
            let router = router(App::new(Arc::new(registry), Authorizer::Everyone));
            *self.replicas[number].lock().unwrap() = Some(Arc::new(Replica { router, collector, life }));
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
    pub(crate) async fn ask(&self, replica: usize, line: &str, media_type: Option<&str>, body: Body) -> Option<Answer> {
        let replica = self.replica(replica).await;
        let (method, target) = line.split_once(' ').unwrap();
        let mut request = Request::builder().method(method).uri(target);
        if let Some(media_type) = media_type {
            request = request.header("content-type", media_type);
        }
        let request = request.body(body).unwrap();
        let answer = async {
            let (head, body) = replica.router.clone().oneshot(request).await.unwrap().into_parts();
            let body = body.collect().await.ok()?.to_bytes().to_vec();
            Some(Answer { status: head.status, headers: head.headers, body })
        };
        tokio::select! {
            biased;
            () = replica.life.over() => None,
            answer = answer => answer,
            () = tokio::time::sleep(PATIENCE) => None,
        }
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
                    self.counts.add(format!("{what}: removed {}", kind(&removal.key)), 1);
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

fn kind(key: &str) -> &'static str {
    match key {
        _ if key.starts_with("data/") => "data",
        _ if key.starts_with("links/") => "link",
        _ if key.contains("/_manifests/") => "copy",
        _ if key.contains("/_tags/") => "tag entry",
        _ => "other",
    }
}
