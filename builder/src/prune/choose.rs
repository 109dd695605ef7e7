//! What is to go: pure.

use std::time::SystemTime;

use super::entry::{Entry, Kind};

/// What [`super::prune`] removes. The default removes all that no name needs.
///
/// As in `BuildKit`, entries go least recently used first until the store takes no more than [`Policy::limit`] says.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// Also what names need, and then the names.
    pub all: bool,
    /// Only what was last used before.
    pub until: Option<SystemTime>,
    /// Only these; empty is any.
    pub kinds: Vec<Kind>,
    /// What the store may always take.
    pub reserved_bytes: u64,
    /// What the store may take at most.
    pub max_used_bytes: Option<u64>,
    /// What must stay free on the disk.
    pub min_free_bytes: Option<u64>,
    /// Whether cache mounts go only when all else has gone: no build gives the content of one again.
    pub cache_mounts_last: bool,
    /// Remove nothing, and say what would be.
    pub dry_run: bool,
}

impl Policy {
    /// What the store may take now, given what it takes and what is free.
    #[must_use]
    pub fn limit(&self, used_bytes: u64, free_bytes: u64) -> u64 {
        let mut limit = match (self.max_used_bytes, self.min_free_bytes) {
            (None, None) => 0,
            (Some(max), _) => max.min(used_bytes),
            (None, Some(_)) => used_bytes,
        };
        if let Some(min_free) = self.min_free_bytes {
            limit = limit.min(used_bytes.saturating_sub(min_free.saturating_sub(free_bytes)));
        }
        limit.max(self.reserved_bytes)
    }

    /// Whether there is a bound to be kept, rather than all to be removed that nothing needs.
    pub(super) fn is_bound(&self) -> bool {
        self.max_used_bytes.is_some() || self.min_free_bytes.is_some()
    }

    /// Whether an entry may go at all, names aside.
    pub(super) fn covers(&self, entry: &Entry) -> bool {
        (self.kinds.is_empty() || self.kinds.contains(&entry.kind)) && self.until.is_none_or(|until| entry.used < until)
    }

    /// What may go, in order: the least recently used first, of those of one time what can be had again most easily. Logs go
    /// before all: no build is quicker for one.
    pub(super) fn order<'e>(&self, entries: &'e [Entry]) -> Vec<&'e Entry> {
        let mut chosen: Vec<&Entry> =
            entries.iter().filter(|entry| entry.reclaimable() && self.covers(entry)).collect();
        let key = |entry: &&'e Entry| {
            let turn = match entry.kind {
                Kind::Log => 0,
                Kind::CacheMount if self.cache_mounts_last => 2,
                _ => 1,
            };
            (turn, entry.used, entry.kind, entry.name.as_str())
        };
        chosen.sort_by(|a, b| key(a).cmp(&key(b)));
        chosen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_those_of_buildkit() {
        let policy = |reserved_bytes, max_used_bytes, min_free_bytes| Policy {
            reserved_bytes,
            max_used_bytes,
            min_free_bytes,
            ..Policy::default()
        };
        for (policy, used, free, expected) in [
            (policy(0, None, None), 100, 10, 0),
            (policy(30, None, None), 100, 10, 30),
            (policy(0, Some(60), None), 100, 10, 60),
            (policy(0, Some(160), None), 100, 10, 100),
            (policy(80, Some(60), None), 100, 10, 80),
            (policy(0, None, Some(50)), 100, 10, 60),
            (policy(0, None, Some(5)), 100, 10, 100),
            (policy(70, None, Some(50)), 100, 10, 70),
            (policy(0, Some(40), Some(50)), 100, 10, 40),
            (policy(0, Some(90), Some(500)), 100, 10, 0),
        ] {
            assert_eq!(policy.limit(used, free), expected, "{policy:?}");
        }
    }
}
