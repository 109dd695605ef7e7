//! The store's size when nobody looks after it: a share of its disk, kept at the end of every build.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::PruneError;
use super::choose::Policy;
use super::remove::{Outcome, prune};
use crate::blob::{Room, Store};

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
        bytes(text).map(Self::Bytes)
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

/// Reads an amount as Docker does: `512MB` and `512m` are powers of 1024 there, and so they are here.
///
/// # Errors
/// What is wrong with it.
pub fn bytes(text: &str) -> Result<u64, String> {
    let refused = || format!("expected an amount like `10GB`, `512MB` or a number of bytes, found `{text}`");
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.find(|character: char| !character.is_ascii_digit() && character != '.').unwrap_or(lower.len());
    let (number, unit) = lower.split_at(digits);
    let shift = match unit.trim().trim_end_matches('b').trim_end_matches('i') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return Err(refused()),
    };
    let number: f64 = number.parse().map_err(|_| refused())?;
    let amount = number * f64::from(2_u32).powi(shift);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be in range")]
    if (0.0..9e18).contains(&amount) { Ok(amount as u64) } else { Err(refused()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_as_docker_reads_them() {
        for (text, expected) in [
            ("0", Some(0)),
            ("1000", Some(1000)),
            ("512m", Some(512 << 20)),
            ("10GB", Some(10 << 30)),
            ("1.5gib", Some(3 << 29)),
            ("2 TB", Some(2 << 40)),
            ("", None),
            ("-1", None),
            ("10XB", None),
            ("GB", None),
            ("99999999PB", None),
        ] {
            assert_eq!(bytes(text).ok(), expected, "{text}");
        }
        assert_eq!(Ceiling::parse("60%"), Ok(Ceiling::Percent(60)));
        assert_eq!(Ceiling::parse("1k"), Ok(Ceiling::Bytes(1024)));
        assert_eq!(Ceiling::parse("none"), Ok(Ceiling::None));
        assert!(Ceiling::parse("101%").is_err());
    }
}
