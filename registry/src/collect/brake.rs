//! The brake: a pass that would remove more data than is likely stops, and waits for an operator.
//!
//! A pass over the whole store goes slice by slice, on whichever replica: the records of the slices say what went, so the
//! count goes on from one replica to the next.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{CollectError, CollectSettings};
use crate::storage::{AuditCounts, AuditRecord, Dated, Storage, StoreTime};

/// As many data objects may go in any case.
const ALWAYS: u64 = 1000;
/// How long a round over all slices takes at most, and a confirmation holds.
const ROUND: Duration = Duration::from_secs(8 * 24 * 60 * 60);

/// How much of the data a pass may remove.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Brake {
    percent: u64,
    seen: u64,
    removed: u64,
    held: u64,
    held_elsewhere: u64,
    confirmed: Option<bool>,
}

impl Brake {
    /// For a pass that looks at everything itself.
    pub(super) fn whole(settings: CollectSettings) -> Self {
        let percent = u64::from(settings.brake_percent);
        Self { percent, seen: 0, removed: 0, held: 0, held_elsewhere: 0, confirmed: None }
    }

    /// For one slice of a round: counts what the last look at each of the others found.
    pub(super) fn of_round(
        settings: CollectSettings,
        records: &[Dated<AuditRecord>],
        slice: u8,
        now: StoreTime,
    ) -> Self {
        let mut last: BTreeMap<u8, (StoreTime, AuditCounts)> = BTreeMap::new();
        for record in records.iter().filter(|record| record.item.slice != slice) {
            let Some(counts) = record.item.counts else { continue };
            let latest = last.entry(record.item.slice).or_insert((record.written, counts));
            if record.written >= latest.0 {
                *latest = (record.written, counts);
            }
        }
        let mut brake = Self::whole(settings);
        for (written, counts) in last.into_values() {
            brake.seen += counts.seen;
            brake.held_elsewhere += counts.held;
            if now.since(written) < ROUND {
                brake.removed += counts.removed;
            }
        }
        brake
    }

    /// Notes data that was looked at.
    pub(super) fn see(&mut self, data: u64) {
        self.seen += data;
    }

    /// Of all data seen, how much may go.
    pub(super) fn limit(&self) -> u64 {
        ALWAYS.max(self.seen.saturating_mul(self.percent) / 100)
    }

    /// Data objects that the brake holds in what this pass looked at.
    pub(super) fn held(&self) -> u64 {
        self.held
    }

    /// Whether it holds anything, here or in a slice that was looked at before.
    pub(super) fn is_on(&self) -> bool {
        self.held + self.held_elsewhere > 0
    }

    /// Whether so many more data objects may go. Where they may not, they are counted as held.
    pub(super) async fn allows(&mut self, more: u64, storage: &Storage, now: StoreTime) -> Result<bool, CollectError> {
        if self.removed + more > self.limit() && !self.is_confirmed(storage, now).await? {
            self.held += more;
            return Ok(false);
        }
        self.removed += more;
        Ok(true)
    }

    async fn is_confirmed(&mut self, storage: &Storage, now: StoreTime) -> Result<bool, CollectError> {
        if let Some(confirmed) = self.confirmed {
            return Ok(confirmed);
        }
        let confirmations = storage.confirmations().await?;
        let confirmed = confirmations.iter().any(|confirmation| now.since(confirmation.written) < ROUND);
        self.confirmed = Some(confirmed);
        Ok(confirmed)
    }

    /// Whether a confirmation has had its time.
    pub(super) fn is_over(written: StoreTime, now: StoreTime) -> bool {
        now.since(written) >= ROUND
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Nonce;

    fn record(slice: u8, written: i64, seen: u64, removed: u64) -> Dated<AuditRecord> {
        let counts = Some(AuditCounts { seen, removed, held: 0 });
        let item = AuditRecord { slice, id: Nonce::from_bits([slice; 12]), counts };
        Dated { item, written: StoreTime(written), size_bytes: 0 }
    }

    #[test]
    fn a_round_counts_on_from_slice_to_slice() {
        let day = 24 * 60 * 60 * 1000;
        let records = [record(1, 0, 100_000, 400), record(2, 9 * day, 100_000, 500), record(3, 9 * day, 100_000, 300)];
        let brake = Brake::of_round(CollectSettings::default(), &records, 3, StoreTime(10 * day));
        // Of the slice itself the last look does not count; what went ten days ago was another round.
        assert_eq!((brake.seen, brake.removed, brake.limit()), (200_000, 500, 2000));
    }

    #[test]
    fn a_thousand_may_always_go() {
        assert_eq!(Brake::whole(CollectSettings::default()).limit(), 1000);
    }
}
