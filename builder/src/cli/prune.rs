//! `fluyt prune` and `fluyt cache du`.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::args::{CacheArguments, CacheCommand, DuArguments, PruneArguments};
use super::build::open_store;
use super::failure::{Blame, Failure};
use super::interrupt::Interrupt;
use super::output;
use super::progress::size;
use crate::blob::Store;
use crate::prune::{self, Kind, Outcome, Policy, PruneError, Removed, Survey};
use crate::stop::Stopped;
use crate::task::blocking;

pub(super) async fn cache(store: Option<&Path>, typed: &CacheArguments) -> Result<(), Failure> {
    match &typed.command {
        CacheCommand::Du(typed) => du(store, typed),
        CacheCommand::Prune(typed) => run(store, typed).await,
    }
}

pub(super) async fn run(store: Option<&Path>, typed: &PruneArguments) -> Result<(), Failure> {
    let policy = policy(typed, SystemTime::now())?;
    let store = open_store(store)?;
    let interrupt = Interrupt::listen(|_| {});
    let work = {
        let (store, policy) = (store.clone(), policy.clone());
        blocking(move || prune::prune(&store, &policy))
    };
    let outcome = tokio::select! {
        outcome = work => outcome,
        // Each entry goes whole or not at all: so it may end anywhere.
        () = interrupt.heard() => return Err(Stopped.into()),
    };
    let outcome = outcome.map_err(|error| failed(&error))?;
    let text = match typed.json {
        true => as_json(&outcome, typed.dry_run).to_string() + "\n",
        false => words(&outcome, typed),
    };
    super::print(text.as_bytes())?;
    if let Some(text) = why_so_much(&store, &policy, &outcome)? {
        output::message(&text);
    }
    match outcome.failed.first() {
        None => Ok(()),
        Some((name, reason)) => Err(Failure::new(
            Blame::Environment,
            format!(
                "{} of the store's entries could not be removed, the first of them {name}: {reason}",
                outcome.failed.len()
            ),
        )
        .hint("run it again as the store's owner; everything else that was to go is gone")),
    }
}

/// Why the store takes more than it was to take.
fn why_so_much(store: &Store, policy: &Policy, outcome: &Outcome) -> Result<Option<String>, Failure> {
    let Some(most) = policy.max_used_bytes.map(|most| most.max(policy.reserved_bytes)) else { return Ok(None) };
    if outcome.left_bytes <= most {
        return Ok(None);
    }
    let survey = prune::survey(store).map_err(|error| failed(&error))?;
    let sum = |wanted: fn(&prune::Entry) -> bool| -> u64 {
        survey.entries.iter().filter(|entry| wanted(entry)).map(|entry| entry.size_bytes).sum()
    };
    let (named, used) = (sum(|entry| entry.needed && !entry.held && entry.kind != Kind::Log), sum(|entry| entry.held));
    let mut reasons = Vec::new();
    if named > 0 && !policy.all {
        reasons.push(format!("images that have a name need {}, and `--all` removes them too", size(named)));
    }
    if used > 0 {
        reasons.push(format!("{} is in use", size(used)));
    }
    if !policy.kinds.is_empty() || policy.until.is_some() {
        reasons.push("`--filter` spares the rest".to_owned());
    }
    let reasons = if reasons.is_empty() { String::new() } else { format!(": {}", reasons.join("; ")) };
    Ok(Some(format!("the store takes more than {}{reasons}\n", size(most))))
}

/// Logs that take less are not worth a word.
const LARGE_LOGS_BYTES: u64 = 100_000_000;

fn failed(error: &PruneError) -> Failure {
    Failure::from_error(Blame::Environment, error)
}

fn policy(typed: &PruneArguments, now: SystemTime) -> Result<Policy, Failure> {
    let mut policy = Policy {
        all: typed.all,
        reserved_bytes: typed.reserved_space.unwrap_or(0),
        max_used_bytes: typed.max_used_space,
        min_free_bytes: typed.min_free_space,
        dry_run: typed.dry_run,
        ..Policy::default()
    };
    for filter in &typed.filters {
        let (name, value) = filter.split_once('=').unwrap_or((filter, ""));
        match name {
            "until" | "unused-for" => policy.until = Some(until(value, now)?),
            "type" => policy.kinds.extend(Kind::of_filter(value).ok_or_else(|| {
                let kinds = Kind::ALL.map(Kind::name).join(", ");
                Failure::usage(format!("`--filter {filter}`: there is no such type"))
                    .hint(format!("types are {kinds}; and buildx's regular, exec.cachemount and internal"))
            })?),
            _ => {
                return Err(Failure::usage(format!("`--filter {filter}`: there is no filter `{name}`"))
                    .hint("filters are `until=24h` (not used since) and `type=KIND`"));
            }
        }
    }
    Ok(policy)
}

/// `24h`, `7d`, `1h30m`, seconds since 1970, or a date.
fn until(text: &str, now: SystemTime) -> Result<SystemTime, Failure> {
    let refused = || {
        Failure::usage(format!("`--filter until={text}`: expected a duration or a time"))
            .hint("write `until=24h`, `until=7d` or `until=2026-01-31T12:00:00Z`")
    };
    if let Ok(seconds) = text.parse::<u64>() {
        return SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).ok_or_else(refused);
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        let seconds = u64::try_from(time.as_second()).map_err(|_| refused())?;
        return Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
    }
    // Neither Go's durations nor ours have days of other than 24 hours.
    let duration = match text.strip_suffix('d').and_then(|days| days.parse::<i64>().ok()) {
        Some(days) => SignedDuration::try_from_hours(days.saturating_mul(24)).ok_or_else(refused)?,
        None => text.parse::<SignedDuration>().map_err(|_| refused())?,
    };
    let duration = Duration::try_from(duration).map_err(|_| refused())?;
    now.checked_sub(duration).ok_or_else(refused)
}

fn words(outcome: &Outcome, typed: &PruneArguments) -> String {
    let mut text = String::new();
    for removed in &outcome.removed {
        let _ = match removed {
            Removed::Name(name) => writeln!(text, "untagged  {name}"),
            Removed::Entry { kind, name, size_bytes } if typed.verbose => {
                writeln!(text, "{:12}  {:>9}  {name}", kind.name(), size(*size_bytes))
            }
            Removed::Entry { .. } => Ok(()),
        };
    }
    for kind in Kind::ALL {
        let (mut count, mut bytes) = (0_u64, 0);
        for removed in &outcome.removed {
            if let Removed::Entry { kind: found, size_bytes, .. } = removed
                && *found == kind
            {
                count += 1;
                bytes += size_bytes;
            }
        }
        if count > 0 {
            let _ = writeln!(text, "{:16} {count:>7}  {:>9}", kind.words(), size(bytes));
        }
    }
    let verb = if typed.dry_run { "would free" } else { "freed" };
    let _ = writeln!(text, "{verb} {}; {} left", size(outcome.freed_bytes), size(outcome.left_bytes));
    text
}

fn as_json(outcome: &Outcome, dry_run: bool) -> Value {
    let removed: Vec<Value> = outcome
        .removed
        .iter()
        .map(|removed| match removed {
            Removed::Name(name) => json!({"type": "name", "name": name}),
            Removed::Entry { kind, name, size_bytes } => {
                json!({"type": kind.name(), "name": name, "size_bytes": size_bytes})
            }
        })
        .collect();
    json!({
        "dry_run": dry_run,
        "freed_bytes": outcome.freed_bytes,
        "left_bytes": outcome.left_bytes,
        "removed": removed,
        "failed": outcome.failed.iter().map(|(name, reason)| json!({"name": name, "reason": reason})).collect::<Vec<_>>(),
    })
}

fn du(store: Option<&Path>, typed: &DuArguments) -> Result<(), Failure> {
    let store = open_store(store)?;
    let survey = prune::survey(&store).map_err(|error| failed(&error))?;
    if typed.json {
        return super::print((du_json(&survey, typed.verbose).to_string() + "\n").as_bytes());
    }
    let mut text = String::new();
    if typed.verbose {
        let _ = writeln!(text, "{:12}  {:>9}  {:20}  {:11}  ENTRY", "TYPE", "SIZE", "LAST USED", "STATE");
        let mut entries: Vec<_> = survey.entries.iter().collect();
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.size_bytes));
        for entry in entries {
            let used = Timestamp::try_from(entry.used).map_or_else(|_| "-".to_owned(), |time| format!("{time:.0}"));
            let kind = entry.kind.name();
            let _ = writeln!(
                text,
                "{kind:12}  {:>9}  {used:20}  {:11}  {}",
                size(entry.size_bytes),
                state(entry),
                entry.name
            );
        }
        text.push('\n');
    }
    let _ = writeln!(text, "{:16} {:>7}  {:>9}  {:>11}", "TYPE", "ENTRIES", "SIZE", "RECLAIMABLE");
    for (words, row) in Kind::ALL.into_iter().map(|kind| (kind.words(), Row::of(&survey, Some(kind)))) {
        if row.entries > 0 {
            let _ = writeln!(
                text,
                "{words:16} {:>7}  {:>9}  {:>11}",
                row.entries,
                size(row.size_bytes),
                size(row.reclaimable_bytes)
            );
        }
    }
    let all = Row::of(&survey, None);
    let _ = writeln!(
        text,
        "{:16} {:>7}  {:>9}  {:>11}",
        "total",
        all.entries,
        size(all.size_bytes),
        size(all.reclaimable_bytes)
    );
    let _ = writeln!(
        text,
        "{} of {} free on the disk of {}",
        size(survey.free_bytes),
        size(survey.disk_bytes),
        store.root().display()
    );
    super::print(text.as_bytes())?;
    if all.reclaimable_bytes > 0 && !typed.verbose {
        output::message("`fluyt prune` frees what is reclaimable; `fluyt cache du --verbose` lists each entry\n");
    }
    let logs = Row::of(&survey, Some(Kind::Log));
    if logs.size_bytes >= LARGE_LOGS_BYTES {
        let text = format!(
            "the logs of builds take {}; `fluyt prune --filter type=log` removes them\n",
            size(logs.size_bytes)
        );
        output::message(&text);
    }
    Ok(())
}

fn state(entry: &prune::Entry) -> &'static str {
    match (entry.held, entry.needed) {
        (true, _) => "in use",
        (_, true) => "named",
        _ => "reclaimable",
    }
}

#[derive(Default)]
struct Row {
    entries: u64,
    size_bytes: u64,
    reclaimable_bytes: u64,
}

impl Row {
    fn of(survey: &Survey, kind: Option<Kind>) -> Self {
        let mut row = Self::default();
        for entry in survey.entries.iter().filter(|entry| kind.is_none_or(|kind| entry.kind == kind)) {
            row.entries += 1;
            row.size_bytes += entry.size_bytes;
            row.reclaimable_bytes += if entry.reclaimable() { entry.size_bytes } else { 0 };
        }
        row
    }
}

fn du_json(survey: &Survey, verbose: bool) -> Value {
    let row = |kind| {
        let row = Row::of(survey, kind);
        json!({"entries": row.entries, "size_bytes": row.size_bytes, "reclaimable_bytes": row.reclaimable_bytes})
    };
    let types: serde_json::Map<String, Value> =
        Kind::ALL.into_iter().map(|kind| (kind.name().to_owned(), row(Some(kind)))).collect();
    let mut shown = json!({
        "total": row(None),
        "types": types,
        "disk": {"free_bytes": survey.free_bytes, "size_bytes": survey.disk_bytes},
    });
    if verbose {
        let entries: Vec<Value> = survey
            .entries
            .iter()
            .map(|entry| {
                let used = Timestamp::try_from(entry.used).ok().map(|time| time.to_string());
                json!({"type": entry.kind.name(), "name": entry.name, "size_bytes": entry.size_bytes, "last_used": used, "state": state(entry)})
            })
            .collect();
        shown["entries"] = Value::Array(entries);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn until_is_a_duration_or_a_time() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let ago = |text: &str| until(text, now).ok().map(|time| now.duration_since(time).unwrap().as_secs());
        for (text, expected) in [
            ("24h", Some(86_400)),
            ("1h30m", Some(5_400)),
            ("7d", Some(7 * 86_400)),
            ("1799999000", Some(1_000)),
            ("2027-01-15T07:59:59Z", Some(1)),
            ("", None),
            ("soon", None),
            ("-1h", None),
            ("9999999999999999d", None),
        ] {
            assert_eq!(ago(text), expected, "{text}");
        }
    }
}
