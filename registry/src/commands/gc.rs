//! `gc`: collects now, says what it would, or lets the brake go.

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fluyt_registry::admin::{self, Orderable, Refusal, call};
use fluyt_registry::collect::{self, CollectError, CollectSettings, Collector, GRACE, Mode, Report};
use fluyt_registry::metrics::Metrics;
use fluyt_registry::storage::{Storage, StoreTime};

use super::open::{NO_MEMORY, open_storage, open_storage_to_read, surroundings};
use super::order::{is_held, on_stderr};
use super::{Failure, print};
use crate::settings::{Gc, Store};

pub(crate) async fn run(settings: Gc) -> Result<ExitCode, Failure> {
    if settings.grace.is_some_and(|grace| grace < GRACE) {
        let _ = writeln!(
            std::io::stderr(),
            "warning: a push that takes longer than the grace time has to send something again: the usual one is 24h"
        );
    }
    let report = if settings.what.dry_run { look(&settings).await? } else { collect(&settings).await? };
    if settings.json {
        print::json(&report)?;
    } else if settings.what.confirm {
        print::lines(["confirmed: for a week the brake lets collection go on, on whichever replica"]);
    } else {
        print::lines([report.to_string().trim_end()]);
    }
    // What the brake holds, and what could not be looked at, wants somebody.
    let wants_somebody = report.held > 0 || !report.failures.is_empty();
    Ok(if wants_somebody { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

/// Says what would go.
async fn look(settings: &Gc) -> Result<Report, Failure> {
    let storage = open_storage_to_read(&settings.store).await?;
    // Nothing is written, so the store cannot be asked for the time.
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let now = StoreTime(i64::try_from(since.as_millis()).unwrap_or(i64::MAX));
    let collector = collector(Arc::new(storage), settings_of(settings), Arc::default());
    collector.run_once(Mode::DryRun { now }).await.map_err(failure)
}

async fn collect(settings: &Gc) -> Result<Report, Failure> {
    let order = admin::Gc {
        confirm: settings.what.confirm,
        grace_seconds: settings.grace.map(|grace| grace.as_secs()),
        history_days: settings.retention.history_days,
        untagged_days: settings.retention.untagged_days,
        brake_percent: settings.retention.brake_percent,
    };
    let held = match &settings.store.store {
        Store::Memory => return Err(Failure::User(NO_MEMORY.into())),
        Store::Folder(path) => is_held(path)?.then_some(path),
        // Nobody can hold it: this collects beside the servers, as each of them does.
        Store::Cloud(_) => None,
    };
    if let Some(path) = held {
        return Ok(admin::Gc::answer(call(path, &order.order()?, &on_stderr()).await?)?);
    }
    let (storage, _) = open_storage(&settings.store).await?;
    let collector = collector(Arc::new(storage), settings_of(settings), Arc::default());
    order.run(&collector).await.map_err(failure)
}

fn settings_of(settings: &Gc) -> CollectSettings {
    let retention = CollectSettings::from(settings.retention);
    CollectSettings { grace: settings.grace.unwrap_or(retention.grace), ..retention }
}

fn failure(error: CollectError) -> Failure {
    Refusal::from(error).into()
}

/// A collector with the real clock and the system's randomness.
pub(crate) fn collector(storage: Arc<Storage>, settings: CollectSettings, metrics: Arc<Metrics>) -> Collector {
    let surroundings = surroundings();
    let surroundings = collect::Surroundings { now: surroundings.now, random: surroundings.random };
    Collector::new(storage, settings, surroundings, metrics)
}
