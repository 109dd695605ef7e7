//! The task that collects all the time. It alone waits.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{CollectError, Collector, Mode, Report, pass};
use crate::storage::{StoreTime, as_collector};

/// How often things are looked at. Each wait is between half and one and a half times as long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rhythm {
    /// Between two looks at the hints.
    pub hints: Duration,
    /// Between two slices. There are 256: with 40 minutes the whole store is looked at in a week.
    pub slices: Duration,
}

impl Default for Rhythm {
    fn default() -> Self {
        Self { hints: Duration::from_secs(15 * 60), slices: Duration::from_secs(40 * 60) }
    }
}

/// What is known of the store's clock: it ran on at least since then.
#[derive(Clone, Copy, Debug)]
struct Known {
    store: StoreTime,
    at: Instant,
}

impl Collector {
    /// Collects until it is dropped.
    pub async fn background(self: Arc<Self>, rhythm: Rhythm) {
        if !self.storage.may_collect() {
            tracing::warn!("collection is off: {}", CollectError::Uncollectable);
            return;
        }
        if let Err(error) = self.keep_reserve().await {
            tracing::warn!(error = %error, "no reserve for a full disk could be kept");
        }
        let mut hints_at = Instant::now() + self.jittered(rhythm.hints);
        let mut slice_at = Instant::now() + self.jittered(rhythm.slices);
        let mut known: Option<Known> = None;
        loop {
            if hints_at <= slice_at {
                tokio::time::sleep_until(hints_at).await;
                let estimate = known.map(|known| StoreTime(known.store.0.saturating_add(elapsed(known.at))));
                let done = as_collector(pass::hints_only(&self, estimate)).await;
                self.storage.forget_contents();
                self.tell("hints", &done, &mut known);
                hints_at = Instant::now() + self.jittered(rhythm.hints);
            } else {
                tokio::time::sleep_until(slice_at).await;
                self.tell("slice", &self.run_once(Mode::Slice).await, &mut known);
                // It may have been freed, and there may be room again.
                let _ = self.keep_reserve().await;
                slice_at = Instant::now() + self.jittered(rhythm.slices);
            }
        }
    }

    /// Where there is an end to the room, some of it is kept to be freed first: collection has to write before it frees.
    async fn keep_reserve(&self) -> Result<(), CollectError> {
        if self.storage.room().is_some() {
            self.storage.write_reserve().await?;
        }
        Ok(())
    }

    /// Between half and one and a half times as long, so that replicas that started together do not stay together.
    fn jittered(&self, wait: Duration) -> Duration {
        let [byte, ..] = (self.surroundings.random)();
        wait / 2 + wait * u32::from(byte) / 255
    }

    fn tell(&self, what: &str, result: &Result<Report, CollectError>, known: &mut Option<Known>) {
        match result {
            Ok(report) => {
                if let Some(store) = report.began {
                    *known = Some(Known { store, at: Instant::now() });
                }
                for failure in &report.failures {
                    tracing::warn!(failure, "a part of the store could not be looked at, and is kept");
                }
                if report.held > 0 {
                    tracing::error!(
                        held = report.held,
                        limit = report.brake_limit,
                        "collection stopped: more data would go than one pass may remove; see `fluyt-registry gc --dry-run`, and `gc --confirm` if that is right"
                    );
                }
                if report.removed_objects() > 0 {
                    let (objects, bytes) = (report.removed_objects(), report.removed_bytes());
                    tracing::info!(what, objects, bytes, "collected");
                }
            }
            Err(error @ CollectError::Newer { .. }) => tracing::warn!("{error}"),
            Err(error) => tracing::warn!(what, error = %error, "collection failed, and is tried again later"),
        }
    }
}

fn elapsed(since: Instant) -> i64 {
    i64::try_from(since.elapsed().as_millis()).unwrap_or(i64::MAX)
}
