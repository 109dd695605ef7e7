//! Collection as an order: where a server holds the folder, its collector does it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::control::{Command, Progress, Refusal};
use super::orders::{Orderable, given, taken};
use crate::collect::{CollectError, CollectSettings, Collector, Mode, Report};

/// Collect now, or let the brake go.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Gc {
    /// Lets the brake go, and collects nothing itself.
    pub confirm: bool,
    /// Another grace time than that of the collector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_seconds: Option<u64>,
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
        let settings = collector.settings();
        let grace = self.grace_seconds.map_or(settings.grace, Duration::from_secs);
        collector.with_settings(CollectSettings { grace, ..settings }).run_once(Mode::Whole).await
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
