//! Collection as an order: where a server holds the folder, its collector does it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::control::{Command, Progress, Refusal};
use super::orders::{Orderable, given, taken};
use crate::collect::{CollectError, CollectSettings, Collector, Mode, Report};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Collect now, or let the brake go.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Gc {
    /// Lets the brake go, and collects nothing itself.
    pub confirm: bool,
    /// Another grace time than that of the collector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_seconds: Option<u64>,
    /// Another window of history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history_days: Option<u32>,
    /// Another age of untagged manifests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub untagged_days: Option<u32>,
    /// Another brake.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub brake_percent: Option<u8>,
}

impl Orderable for Gc {
    const NAME: &'static str = "gc";
    type Answer = Report;
}

impl Gc {
    /// Does it.
    pub async fn run(&self, collector: &Collector) -> Result<Report, CollectError> {
        if self.confirm {
            collector.confirm().await?;
            return Ok(Report::default());
        }
        let settings = self.over(collector.settings());
        collector.with_settings(settings).run_once(Mode::Whole).await
    }

    /// What the order says, over what the collector has.
    fn over(&self, settings: CollectSettings) -> CollectSettings {
        let days = |days: u32| DAY * days;
        CollectSettings {
            grace: self.grace_seconds.map_or(settings.grace, Duration::from_secs),
            history: self.history_days.map_or(settings.history, days),
            untagged: self.untagged_days.map(days).or(settings.untagged),
            brake_percent: self.brake_percent.map_or(settings.brake_percent, |percent| percent.min(100)),
            ..settings
        }
    }
}

impl From<CollectError> for Refusal {
    fn from(error: CollectError) -> Self {
        match error {
            CollectError::Newer { .. } | CollectError::Uncollectable => Self::user(error),
            CollectError::Storage(_) => Self::environment(error),
        }
    }
}

/// The order `gc`, done by this collector.
#[derive(Debug)]
pub struct Collecting(pub Arc<Collector>);

#[async_trait]
impl Command for Collecting {
    fn name(&self) -> &'static str {
        Gc::NAME
    }

    async fn run(&self, arguments: Value, progress: &Progress) -> Result<Value, Refusal> {
        let order: Gc = taken(arguments)?;
        progress.say("looking at the whole store");
        given(order.run(&self.0).await?)
    }
}
