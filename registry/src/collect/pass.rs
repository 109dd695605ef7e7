//! One run: what it holds, and in which order it looks at things.

use std::collections::BTreeMap;

use super::brake::Brake;
use super::{CollectError, CollectSettings, Collector, Mode, Report, data, hints, repository, sweep};
use crate::protocol::{Nonce, Object, RepoHash};
use crate::spec::RepoName;
use crate::storage::{AuditCounts, AuditRecord, Dated, Slices, Storage, StoreTime};

/// How many slices there are.
const SLICES: u8 = u8::MAX;
/// With every so many slices the sweeps are done: every few hours.
const SWEEP_EVERY: u8 = 8;

/// What a run holds.
#[derive(Debug)]
pub(super) struct Pass<'a> {
    pub(super) collector: &'a Collector,
    pub(super) storage: &'a Storage,
    pub(super) settings: CollectSettings,
    /// When the run began, by the store's clock.
    pub(super) now: StoreTime,
    /// Names the run in the log of removals.
    pub(super) run: Nonce,
    pub(super) dry_run: bool,
    /// Whether adopted data is ours alone, and has been for as long as anything has to be before it goes.
    pub(super) adopted: bool,
    pub(super) report: Report,
    pub(super) brake: Brake,
}

impl<'a> Pass<'a> {
    fn new(collector: &'a Collector, run: Nonce, now: StoreTime, dry_run: bool, brake: Brake) -> Self {
        let report = Report { dry_run, began: Some(now), ..Default::default() };
        let (storage, settings) = (&*collector.storage, collector.settings);
        Self { collector, storage, settings, now, run, dry_run, adopted: false, report, brake }
    }

    /// Asked for now and then until it is so; it stays so.
    async fn look_for_adopted(&mut self, ask: bool) -> Result<(), CollectError> {
        let released = &self.collector.released;
        if ask
            && released.get().is_none()
            && let Some(since) = self.storage.adopted_released().await?
        {
            let _ = released.set(since);
        }
        let old = self.now.minus(self.settings.grace);
        self.adopted = released.get().is_some_and(|since| *since < old);
        Ok(())
    }

    /// Notes what could not be looked at. It is kept, and looked at again next time.
    pub(super) fn failed(&mut self, what: String) {
        self.report.failures.push(what);
    }

    fn end(mut self) -> Report {
        self.report.held = self.brake.held();
        self.report.brake_limit = self.brake.limit();
        self.report
    }
}

/// Repositories by slice: the first byte of the hash of their names.
fn by_slice(repos: Vec<RepoName>) -> BTreeMap<u8, Vec<RepoName>> {
    let mut slices: BTreeMap<u8, Vec<RepoName>> = BTreeMap::new();
    for repo in repos {
        let hash = RepoHash::of(&repo);
        let slice = hash.as_str().get(..2).and_then(|byte| u8::from_str_radix(byte, 16).ok()).unwrap_or(0);
        slices.entry(slice).or_default().push(repo);
    }
    slices
}

pub(super) async fn run(collector: &Collector, mode: Mode) -> Result<Report, CollectError> {
    match mode {
        Mode::Whole => whole(collector).await,
        Mode::Hints => hints_only(collector, None).await,
        Mode::Slice => slice(collector).await,
        Mode::DryRun { now } => {
            let mut pass = Pass::new(collector, collector.nonce(), now, true, Brake::whole(collector.settings));
            everything(&mut pass, &mut Vec::new()).await?;
            Ok(pass.end())
        }
    }
}

async fn whole(collector: &Collector) -> Result<Report, CollectError> {
    collector.may_collect().await?;
    let run = collector.nonce();
    let now = collector.storage.begin_run(&run).await?;
    let mut pass = Pass::new(collector, run.clone(), now, false, Brake::whole(collector.settings));
    let before = collector.storage.audits().await?;
    let mut records = Vec::new();
    let done = everything(&mut pass, &mut records).await;
    // What was looked at is noted even where the rest failed.
    collector.storage.end_audits(&records).await?;
    let replaced: Vec<_> = before.into_iter().map(|old| old.item).collect();
    if done.is_ok() {
        collector.storage.remove_audits(&replaced).await?;
    }
    collector.storage.end_run(&run).await?;
    done?;
    pass.tell_metrics(Some(now));
    Ok(pass.end())
}

/// Manifests before links before data: what one removes, the next finds unneeded.
async fn everything(pass: &mut Pass<'_>, records: &mut Vec<AuditRecord>) -> Result<(), CollectError> {
    let hints = pass.storage.hints().await?;
    hints::pass(pass, hints).await?;
    let catalog = pass.storage.catalog().await?;
    for repo in &catalog {
        repository::pass(pass, repo).await?;
    }
    pass.look_for_adopted(true).await?;
    // Made once, not for each slice.
    let known = catalog.iter().map(RepoHash::of).collect();
    let mut slices = Slices::all(pass.adopted);
    while let Some((slice, data)) = slices.next(pass.storage).await? {
        let counts = data::pass(pass, data, &known).await?;
        // A slice without data may as well be looked at next.
        if counts.seen > 0 {
            records.push(AuditRecord { slice, id: pass.collector.nonce(), counts: Some(counts) });
        }
    }
    pass.report.looked_at("slices", usize::from(SLICES) + 1);
    sweep::pass(pass).await
}

/// Looks at the hints, if any can be old enough: `estimate` is no earlier than now, by the store's clock.
pub(super) async fn hints_only(collector: &Collector, estimate: Option<StoreTime>) -> Result<Report, CollectError> {
    let hints = collector.storage.hints().await?;
    let patience = |hint: &Dated<Object>| collector.settings.patience(&hint.item);
    let ripe = |hint: &Dated<Object>| estimate.is_none_or(|now| hint.written <= now.minus(patience(hint)));
    let run = collector.nonce();
    if !hints.iter().any(ripe) {
        let mut report = Report::default();
        report.looked_at("hints", hints.len());
        return Ok(report);
    }
    let now = collector.storage.begin_run(&run).await?;
    let mut pass = Pass::new(collector, run.clone(), now, false, Brake::whole(collector.settings));
    let done = hints::pass(&mut pass, hints).await;
    collector.storage.end_run(&run).await?;
    done?;
    Ok(pass.end())
}

/// Looks at the slice that was looked at longest ago.
async fn slice(collector: &Collector) -> Result<Report, CollectError> {
    let records = collector.storage.audits().await?;
    let slice = next_slice(&records, (collector.surroundings.random)());
    let since = looked_at_since(&records, slice);
    let run = collector.nonce();
    let begun = AuditRecord { slice, id: run.clone(), counts: None };
    let now = collector.storage.begin_audit(&begun).await?;
    let brake = Brake::of_round(collector.settings, &records, slice, now);
    let mut pass = Pass::new(collector, run, now, false, brake);
    let counts = look_at(&mut pass, slice).await;
    let mut old: Vec<_> = records.into_iter().map(|record| record.item).filter(|old| old.slice == slice).collect();
    if let Ok(counts) = &counts {
        collector.storage.end_audits(&[AuditRecord { counts: Some(*counts), ..begun.clone() }]).await?;
    } else {
        // Still the one that was looked at longest ago.
        old.clear();
    }
    old.push(begun);
    collector.storage.remove_audits(&old).await?;
    counts?;
    pass.tell_metrics(since.map(|since| since.min(now)));
    Ok(pass.end())
}

async fn look_at(pass: &mut Pass<'_>, slice: u8) -> Result<AuditCounts, CollectError> {
    let catalog = pass.storage.catalog().await?;
    for repo in by_slice(catalog.clone()).remove(&slice).unwrap_or_default() {
        repository::pass(pass, &repo).await?;
    }
    pass.look_for_adopted(slice.is_multiple_of(SWEEP_EVERY)).await?;
    let data = Slices::one(slice, pass.adopted).take(pass.storage, slice).await?;
    let counts = data::pass(pass, data, &catalog.iter().map(RepoHash::of).collect()).await?;
    pass.report.looked_at("slices", 1);
    if slice.is_multiple_of(SWEEP_EVERY) {
        sweep::pass(pass).await?;
    }
    Ok(counts)
}

/// When that slice was looked at last of which this is longest ago, `now` not counted; `None` while there is one that
/// never was.
fn looked_at_since(records: &[Dated<AuditRecord>], now: u8) -> Option<StoreTime> {
    let others = last_looks(records).into_iter().filter(|(slice, _)| *slice != now);
    let others: Vec<StoreTime> = others.map(|(_, written)| written).collect();
    others.iter().min().copied().filter(|_| others.len() == usize::from(SLICES))
}

fn last_looks(records: &[Dated<AuditRecord>]) -> BTreeMap<u8, StoreTime> {
    let mut last: BTreeMap<u8, StoreTime> = BTreeMap::new();
    for record in records.iter().filter(|record| record.item.counts.is_some()) {
        let latest = last.entry(record.item.slice).or_default();
        *latest = record.written.max(*latest);
    }
    last
}

/// The slice whose last record is oldest. Among those never looked at any will do, so that replicas take different ones.
fn next_slice(records: &[Dated<AuditRecord>], random: [u8; 16]) -> u8 {
    let last = last_looks(records);
    let never: Vec<u8> = (0..=SLICES).filter(|slice| !last.contains_key(slice)).collect();
    let [one, two, ..] = random;
    let pick = usize::from(u16::from_le_bytes([one, two]));
    match never.get(pick % never.len().max(1)) {
        Some(slice) => *slice,
        None => last.into_iter().min_by_key(|(_, written)| *written).map_or(0, |(slice, _)| slice),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(slice: u8, written: i64, finished: bool) -> Dated<AuditRecord> {
        let counts = finished.then(AuditCounts::default);
        let item = AuditRecord { slice, id: Nonce::from_bits([slice; 12]), counts };
        Dated { item, written: StoreTime(written), size_bytes: 0 }
    }

    #[test]
    fn the_slice_looked_at_longest_ago_is_next() {
        let mut records: Vec<_> = (0..=255).map(|slice| record(slice, 1000 + i64::from(slice), true)).collect();
        assert_eq!(next_slice(&records, [9; 16]), 0);
        records.push(record(0, 5000, true));
        // One that is under way, or whose replica died, does not count.
        records.push(record(1, 6000, false));
        assert_eq!(next_slice(&records, [9; 16]), 1);
    }

    #[test]
    fn everything_was_looked_at_since_the_oldest_look() {
        let mut records: Vec<_> = (1..=255).map(|slice| record(slice, 1000 + i64::from(slice), true)).collect();
        assert_eq!(looked_at_since(&records, 0), Some(StoreTime(1001)));
        // Of slice 3 nothing is known once 0 is the one before.
        assert_eq!(looked_at_since(&records, 3), None);
        records.push(record(1, 9000, true));
        assert_eq!(looked_at_since(&records, 0), Some(StoreTime(1002)));
    }

    #[test]
    fn slices_never_looked_at_come_first() {
        let records: Vec<_> = (0..=250).map(|slice| record(slice, 1, true)).collect();
        for random in 0..=255 {
            assert!(next_slice(&records, [random; 16]) > 250);
        }
    }

    #[test]
    fn every_repository_is_in_one_slice() {
        let repos: Vec<RepoName> = (0..1000).map(|n| format!("r{n}").parse().unwrap()).collect();
        let slices = by_slice(repos.clone());
        assert!(slices.len() > 200);
        let mut all: Vec<_> = slices.into_values().flatten().collect();
        all.sort();
        let mut expected = repos;
        expected.sort();
        assert_eq!(all, expected);
    }
}
