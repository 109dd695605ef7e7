//! What is collected, and when: flags of `serve` and `gc`.

use std::time::Duration;

use clap::{Args, value_parser};
use fluyt_registry::collect::CollectSettings;

use super::StoreSettings;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// What goes, and when.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Retention {
    /// How many days a replaced or deleted value of a tag can be got back: 30 if nothing is said.
    #[arg(long, env = "FLUYT_REGISTRY_HISTORY_DAYS", value_name = "N", value_parser = value_parser!(u32).range(..=36_500))]
    pub(crate) history_days: Option<u32>,

    /// Remove manifests that no tag has named for so many days, and what only they need. Without it nothing that was
    /// acknowledged expires. Parts of an index, and what refers to another manifest, stay as long as that does.
    #[arg(long, env = "FLUYT_REGISTRY_UNTAGGED_DAYS", value_name = "N", value_parser = value_parser!(u32).range(1..=36_500))]
    pub(crate) untagged_days: Option<u32>,

    /// Of a hundred blobs, how many one pass may remove: 1 if nothing is said; 1,000 blobs may go in any case. More waits
    /// for `gc --confirm`.
    #[arg(long, env = "FLUYT_REGISTRY_BRAKE_PERCENT", value_name = "N", value_parser = value_parser!(u8).range(0..=100))]
    pub(crate) brake_percent: Option<u8>,
}

impl From<Retention> for CollectSettings {
    fn from(retention: Retention) -> Self {
        let usual = Self::default();
        Self {
            history: retention.history_days.map_or(usual.history, |days| DAY * days),
            untagged: retention.untagged_days.map(|days| DAY * days),
            brake_percent: retention.brake_percent.unwrap_or(usual.brake_percent),
            ..usual
        }
    }
}

/// What `gc` is to do. What goes, and when, is what is said here; where a running server holds the folder and does it,
/// what is not said here is as that server has it.
#[derive(Debug, Args)]
pub(crate) struct Gc {
    #[command(flatten)]
    pub(crate) what: GcWhat,

    /// How long what nothing refers to is left alone, such as 24h, 30m or 10s. A push that takes longer than this has to
    /// send something again.
    #[arg(long, value_name = "DURATION", value_parser = duration, conflicts_with = "confirm")]
    pub(crate) grace: Option<Duration>,

    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) retention: Retention,

    #[command(flatten)]
    pub(crate) store: StoreSettings,
}

/// One of these.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct GcWhat {
    /// Look at the whole store now, and remove what nothing refers to. A running server does it when it holds the folder.
    #[arg(long)]
    pub(crate) once: bool,

    /// Print what that would remove, with the flags that are given here. Writes nothing, and works beside a running server.
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// Let the brake go for a week: collection goes on by itself, on whichever replica.
    #[arg(long)]
    pub(crate) confirm: bool,
}

fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no duration: expected a number and d, h, m or s, such as 24h");
    let unit = text.chars().last().ok_or_else(wrong)?;
    let seconds: u64 = match unit {
        'd' => 24 * 60 * 60,
        'h' => 60 * 60,
        'm' => 60,
        's' => 1,
        _ => return Err(wrong()),
    };
    let number: u64 = text.trim_end_matches(unit).parse().map_err(|_| wrong())?;
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(duration("24h"), Ok(Duration::from_secs(86_400)));
        assert_eq!(duration("0s"), Ok(Duration::ZERO));
        assert_eq!(duration("2d"), Ok(2 * DAY));
        for wrong in ["", "h", "24", "1.5h", "-1h", "99999999999999999999h", "9999999999999999999d", "1é"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
