//! Names of old values of a tag: `TAG.at.20261101T100000Z` is what `TAG` named at that time.
//!
//! They are read like tags and never pushed.

use std::fmt;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::name::Tag;

const AT: &str = ".at.";
const STAMP: &str = "%Y%m%dT%H%M%SZ";
const STAMP_CHARACTERS: usize = "20261101T100000Z".len();

/// A tag, and a time of its past.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PastTag {
    /// The tag.
    pub tag: Tag,
    /// The time, in whole seconds; `None` when the digits are no time, so that the tag had no value then.
    pub at: Option<Timestamp>,
}

impl PastTag {
    /// Reads a tag's name as that of an old value; `None` for every name that has another shape.
    pub fn of(name: &Tag) -> Option<Self> {
        let name = name.as_str();
        let (before, stamp) = name.split_at_checked(name.len().checked_sub(STAMP_CHARACTERS)?)?;
        let tag = before.strip_suffix(AT)?.parse().ok()?;
        let shape = stamp.bytes().enumerate().all(|(place, byte)| match place {
            8 => byte == b'T',
            15 => byte == b'Z',
            _ => byte.is_ascii_digit(),
        });
        shape.then(|| Self { tag, at: time(stamp) })
    }

    /// The name of the value that `tag` had at a time; `None` when a tag's name cannot be that long.
    pub fn name(tag: &Tag, at: Timestamp) -> Option<Tag> {
        format!("{tag}{AT}{}", at.strftime(STAMP)).parse().ok()
    }
}

fn time(stamp: &str) -> Option<Timestamp> {
    let civil = DateTime::strptime(STAMP, stamp).ok()?;
    // jiff reads a leap second as the second before it; that is no time that `name` writes.
    let time = TimeZone::UTC.to_timestamp(civil).ok()?;
    (time.strftime(STAMP).to_string() == stamp).then_some(time)
}

impl fmt::Display for PastTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at {
            Some(at) => write!(f, "{} at {at}", self.tag),
            None => write!(f, "{} at a time that is none", self.tag),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn past(name: &str) -> Option<(String, Option<String>)> {
        let past = PastTag::of(&name.parse().unwrap())?;
        Some((past.tag.to_string(), past.at.map(|at| at.to_string())))
    }

    #[test]
    fn names_of_old_values() {
        let is = |tag: &str, at: Option<&str>| Some((tag.to_owned(), at.map(str::to_owned)));
        assert_eq!(past("v1.at.20261101T100000Z"), is("v1", Some("2026-11-01T10:00:00Z")));
        assert_eq!(past("a.at.b.at.20261101T100000Z"), is("a.at.b", Some("2026-11-01T10:00:00Z")));
        assert_eq!(past("v1.at.20261301T100000Z"), is("v1", None));
        assert_eq!(past("v1.at.20161231T235960Z"), is("v1", None));
        for other in ["v1", "v1.at.20261101", "v1.at.20261101T100000z", "v1.at.2026110aT100000Z", "v120261101T100000Z"]
        {
            assert_eq!(past(other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn a_name_reads_back(tag in "[a-zA-Z0-9_][a-zA-Z0-9._-]{0,100}", seconds in 0i64..4_000_000_000) {
            let (tag, at): (Tag, _) = (tag.parse().unwrap(), Timestamp::from_second(seconds).unwrap());
            let name = PastTag::name(&tag, at).unwrap();
            prop_assert_eq!(PastTag::of(&name), Some(PastTag { tag, at: Some(at) }));
        }

        #[test]
        fn reading_never_panics(name in "[a-zA-Z0-9_][a-zA-Z0-9._-]{0,10}(\\.at\\.[0-9]{8}T[0-9]{6}Z)?") {
            let _ = PastTag::of(&name.parse().unwrap());
        }
    }
}
