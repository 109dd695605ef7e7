//! The store's size when nobody looks after it: a share of its disk, kept at the end of every build.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::PruneError;
use super::choose::Policy;
use super::remove::{Outcome, prune};
use crate::blob::{Room, Store};
use crate::notation;

/// Shares of the disk in percent, as `BuildKit` has them, but for the part that is to stay free: many disks are fuller than
/// its 20 all their life.
const RESERVED_PERCENT: u64 = 10;
const MAX_USED_PERCENT: u64 = 60;
/// What is to stay free of the disk in any case.
pub const MIN_FREE_PERCENT: u64 = 10;

/// The file whose time tells when the store was last looked at.
const STAMP: &str = "last-looked-at";

/// How often a store is looked at whose disk has room.
const INTERVAL: Duration = Duration::from_secs(600);

/// How much the store may take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ceiling {
    /// A share of the disk.
    #[default]
    Share,
    /// So many bytes.
    Bytes(u64),
    /// So many hundredths of the disk.
    Percent(u8),
    /// As much as there is.
    None,
}

impl Ceiling {
    /// Reads `10GB`, `60%` or `none`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "none" => return Ok(Self::None),
            // An empty variable is none.
            "" => return Ok(Self::default()),
            _ => {}
        }
        if let Some(number) = text.strip_suffix('%') {
            return match number.parse() {
                Ok(percent @ 0..=100) => Ok(Self::Percent(percent)),
                _ => Err(format!("expected a share from 0% to 100%, found `{text}`")),
            };
        }
        notation::amount(text).map(Self::Bytes)
    }

    /// Prunes the store where it is larger; `None` when it was looked at not long ago and its disk has room.
    ///
    /// # Errors
    /// When the store cannot be looked at.
    pub fn keep(self, store: &Store) -> Result<Option<Outcome>, PruneError> {
        if self == Self::None {
            return Ok(None);
        }
        let root = store.root();
        let Room { free_bytes: free, disk_bytes: disk, .. } =
            Room::of(root).map_err(PruneError::at("asking for the free space of", root))?;
        let share = |percent: u64| disk / 100 * percent;
        let policy = match self {
            Self::Bytes(bytes) => Policy { max_used_bytes: Some(bytes), ..Policy::default() },
            Self::Percent(percent) => Policy { max_used_bytes: Some(share(percent.into())), ..Policy::default() },
            Self::Share | Self::None => Policy {
                reserved_bytes: share(RESERVED_PERCENT),
                max_used_bytes: Some(share(MAX_USED_PERCENT)),
                min_free_bytes: Some(share(MIN_FREE_PERCENT)),
                ..Policy::default()
            },
        };
        if self == Self::Share && free >= share(MIN_FREE_PERCENT) && looked_at_lately(root) {
            return Ok(None);
        }
        let outcome = prune(store, &policy)?;
        let _ = store.write_hint(Path::new(STAMP), b"");
        Ok(Some(outcome))
    }
}

fn looked_at_lately(root: &Path) -> bool {
    let last = fs::metadata(root.join(STAMP)).and_then(|metadata| metadata.modified());
    last.is_ok_and(|last| SystemTime::now().duration_since(last).is_ok_and(|ago| ago < INTERVAL))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ceilings_are_shares_and_amounts() {
        assert_eq!(Ceiling::parse("60%"), Ok(Ceiling::Percent(60)));
        assert_eq!(Ceiling::parse("1k"), Ok(Ceiling::Bytes(1024)));
        assert_eq!(Ceiling::parse("none"), Ok(Ceiling::None));
        assert!(Ceiling::parse("101%").is_err());
    }
}
