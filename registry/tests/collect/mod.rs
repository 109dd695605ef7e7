//! Collection: each kind of garbage goes, each kind of root stays, whoever else is at work and wherever it breaks off.

mod brake;
mod breaks;
mod full;
mod garbage;
mod roots;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fluyt_registry::collect::{CollectSettings, Collector, Mode, Report, Surroundings};
use fluyt_registry::metrics::Metrics;
use fluyt_registry::storage::{Memory, Storage};

use crate::app::{TestApp, digest};
use crate::clocked::Clocked;
use crate::watched::Watched;

pub(crate) const HOUR: Duration = Duration::from_secs(60 * 60);
pub(crate) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The store of a test of collection: watched, and with a clock of its own.
pub(crate) type Store = Clocked<Watched>;

/// A registry and a collector on one store.
pub(crate) struct Place {
    pub(crate) app: TestApp,
    pub(crate) store: Store,
    pub(crate) watched: Watched,
    pub(crate) settings: CollectSettings,
    pub(crate) metrics: Arc<Metrics>,
    seed: AtomicU64,
}

impl Place {
    pub(crate) async fn new() -> Self {
        Self::with(CollectSettings::default()).await
    }

    /// A place where it is soon forgotten that a blob was here, so that tests see everything go.
    pub(crate) async fn with(settings: CollectSettings) -> Self {
        Self::with_traces(CollectSettings { traces: settings.grace, ..settings }).await
    }

    pub(crate) async fn with_traces(settings: CollectSettings) -> Self {
        let memory = Memory::default();
        let watched = Watched::new(memory.clone());
        let store = Clocked::new(watched.clone());
        let app = TestApp::on(store.clone(), memory).await;
        Self { app, store, watched, settings, metrics: Arc::default(), seed: AtomicU64::new(0xc0) }
    }

    /// A collector with ids of its own.
    pub(crate) async fn collector(&self) -> Collector {
        let storage = Storage::open(self.store.clone(), [7; 32]).await.unwrap();
        let seed = self.seed.fetch_add(1, Ordering::Relaxed);
        let count = AtomicU64::new(0);
        let surroundings = Surroundings {
            now: Arc::new(|| "2026-11-25T12:00:00Z".into()),
            random: Arc::new(move || {
                let number = count.fetch_add(1, Ordering::Relaxed);
                let hash = digest(format!("{seed} {number}"));
                u128::from_str_radix(&hash.hex()[..32], 16).unwrap().to_be_bytes()
            }),
        };
        Collector::new(Arc::new(storage), self.settings, surroundings, self.metrics.clone())
    }

    pub(crate) async fn collect(&self) -> Report {
        let report = self.collector().await.run_once(Mode::Whole).await.unwrap();
        assert_eq!(report.failures, Vec::<String>::new());
        report
    }

    /// Collects so often, a day apart, that whatever is garbage is gone.
    pub(crate) async fn collect_all(&self) {
        for _ in 0..5 {
            self.store.pass_time(DAY + HOUR);
            self.collect().await;
        }
    }

    /// Keys of the store that are no papers.
    pub(crate) async fn keys(&self) -> Vec<String> {
        let papers = ["gc/log/", "gc/audit/", "store.json", "upload-key"];
        let keys = self.app.keys().await.into_iter();
        keys.filter(|key| !papers.iter().any(|paper| key.starts_with(paper))).collect()
    }

    pub(crate) async fn keys_with(&self, part: &str) -> Vec<String> {
        self.keys().await.into_iter().filter(|key| key.contains(part)).collect()
    }
}
