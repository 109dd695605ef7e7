//! What a run looked at, removed and kept, and why.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::log::Removal;
use crate::storage::StoreTime;

/// Why something is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// Data that no link names.
    Unlinked,
    /// A link to a blob that no manifest of its repository names.
    Unnamed,
    /// An untagged manifest with a blob that is not there.
    Broken,
    /// A manifest that has been untagged for longer than it is to be kept.
    Expired,
    /// It was deleted by a user, and a late write brought it back.
    DeletedBefore,
    /// A value of a tag that a greater one replaced, or an end that ends nothing any more.
    Superseded,
    /// A value of a tag that was deleted.
    Ended,
    /// It speaks of a manifest or data that is gone.
    Orphaned,
    /// A value of a tag's history that is out of the window and cannot be got back.
    OutOfWindow,
    /// A value that a tag never got.
    NeverPublished,
    /// An index entry of a blob that the repository has not had for long.
    Unindexed,
    /// An upload, or a part of one, that nobody has gone on with for a day.
    Stale,
    /// A user deleted it, and its place in the hints has run out. Nothing is removed by this: it is how the log knows.
    Deleted,
    /// A paper of collection itself that has had its time.
    Done,
}

impl Why {
    /// In words, after "removed: ".
    pub fn words(self) -> &'static str {
        match self {
            Self::Unlinked => "data that no repository has",
            Self::Unnamed => "a blob that no manifest of the repository names",
            Self::Broken => "an untagged manifest with a blob that is not there",
            Self::Expired => "a manifest that was untagged for longer than --untagged-days",
            Self::DeletedBefore => "deleted by a user, and brought back by a late write",
            Self::Superseded => "a value of a tag that another replaced",
            Self::Ended => "a value of a tag that was deleted",
            Self::Orphaned => "belongs to something that is gone",
            Self::OutOfWindow => "history that is out of the window and names nothing any more",
            Self::NeverPublished => "a value that the tag never got",
            Self::Unindexed => "an index entry of a blob that the repository no longer has",
            Self::Stale => "an upload that nobody has gone on with for a day",
            Self::Deleted => "deleted by a user",
            Self::Done => "a paper of collection that has had its time",
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words())
    }
}

/// A candidate that the second look found to be needed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Its key.
    pub key: String,
    /// What keeps it.
    pub by: String,
}

/// What a run came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// How many things were looked at, by kind.
    pub looked_at: BTreeMap<String, u64>,
    /// What was removed; in a dry run, what the first look would remove.
    pub removed: Vec<Removal>,
    /// Candidates that turned out to be needed.
    pub kept: Vec<Kept>,
    /// Data objects that the brake holds.
    pub held: u64,
    /// How many data objects one pass may remove.
    pub brake_limit: u64,
    /// What could not be looked at, and why. It is kept.
    pub failures: Vec<String>,
    /// Age of the oldest candidate that is still there.
    #[serde(skip)]
    pub oldest_candidate: Option<Duration>,
    /// When it began, by the store's clock, where that was asked.
    #[serde(skip)]
    pub began: Option<StoreTime>,
    /// Whether nothing was removed because nothing was to be.
    pub dry_run: bool,
}

impl Report {
    pub(super) fn looked_at(&mut self, kind: &'static str, count: usize) {
        *self.looked_at.entry(kind.to_owned()).or_default() += count as u64;
    }

    /// How many objects were removed.
    pub fn removed_objects(&self) -> usize {
        self.removed.len()
    }

    /// How many bytes of data were removed.
    pub fn removed_bytes(&self) -> u64 {
        self.removed.iter().map(|removal| removal.size_bytes).sum()
    }
}

/// `1.5 GiB`: sizes for people.
pub fn human_size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let mut scale = 0;
    let mut rest = bytes;
    while rest >= 1024 && scale + 1 < UNITS.len() {
        rest /= 1024;
        scale += 1;
    }
    let unit = UNITS.get(scale).copied().unwrap_or_default();
    if scale == 0 {
        return format!("{bytes} {unit}");
    }
    let tenths = (u128::from(bytes) * 10) >> (10 * scale);
    format!("{}.{} {unit}", tenths / 10, tenths % 10)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let looked: Vec<String> = self.looked_at.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        let looked = if looked.is_empty() { "nothing".to_owned() } else { looked.join(", ") };
        writeln!(f, "looked at {looked}")?;
        let mut by_reason: BTreeMap<Why, (u64, u64)> = BTreeMap::new();
        for removal in &self.removed {
            let (count, bytes) = by_reason.entry(removal.why).or_default();
            *count += 1;
            *bytes += removal.size_bytes;
        }
        let verb = if self.dry_run { "would remove" } else { "removed" };
        writeln!(f, "{verb} {} objects, {}", self.removed_objects(), human_size(self.removed_bytes()))?;
        for (why, (count, bytes)) in by_reason {
            writeln!(f, "  {count:>6}  {:>10}  {why}", human_size(bytes))?;
        }
        let mut keepers: BTreeMap<&str, u64> = BTreeMap::new();
        for kept in &self.kept {
            *keepers.entry(&kept.by).or_default() += 1;
        }
        if !self.kept.is_empty() {
            writeln!(f, "kept {} candidates that turned out to be needed", self.kept.len())?;
            for (by, count) in keepers {
                writeln!(f, "  {count:>6}  {by}")?;
            }
        }
        if self.held > 0 {
            writeln!(
                f,
                "the brake holds {} data objects: one pass may remove {}. See `gc --dry-run`; if that is what you want, `gc --confirm`",
                self.held, self.brake_limit
            )?;
        }
        for failure in &self.failures {
            writeln!(f, "not looked at: {failure}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::human_size;

    #[test]
    fn sizes_read_well() {
        let sizes = [0, 1023, 1024, 1536, 1024 * 1024 * 5 / 2, u64::MAX].map(human_size);
        assert_eq!(sizes, ["0 bytes", "1023 bytes", "1.0 KiB", "1.5 KiB", "2.5 MiB", "16777215.9 TiB"]);
    }
}
