//! The two kinds of ranges: what part of a blob is read, and where a chunk of an upload belongs.

use std::ops::Range;

/// A `Range` header that asks for one part of a blob (RFC 9110, 14.2). A part that ends before it begins is refused (416);
/// anything else in that header (several parts, another unit, nonsense) is as if the header were not there. The RFC
/// allows both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadRange {
    /// `bytes=5-9`: both ends belong to it.
    Between(u64, u64),
    /// `bytes=5-`
    From(u64),
    /// `bytes=-5`: the last five.
    Last(u64),
}

impl ReadRange {
    /// Reads the header's value; `None` when the whole blob is to be sent.
    pub fn parse(header: &str) -> Option<Self> {
        let set = header.trim().strip_prefix("bytes=")?;
        let (first, last) = set.split_once('-')?;
        let (first, last) = (first.trim(), last.trim());
        if first.is_empty() {
            return Some(Self::Last(number(last)?));
        }
        let first = number(first)?;
        if last.is_empty() {
            return Some(Self::From(first));
        }
        Some(Self::Between(first, number(last)?))
    }

    /// Which bytes of a blob of `size_bytes` are meant, cut to what there is; `None` is a 416.
    pub fn within(self, size_bytes: u64) -> Option<Range<u64>> {
        let range = match self {
            Self::Between(first, last) => first..last.saturating_add(1).min(size_bytes),
            Self::From(first) => first..size_bytes,
            Self::Last(count) => size_bytes.saturating_sub(count)..size_bytes,
        };
        (range.start < range.end).then_some(range)
    }
}

/// The `Content-Range` of an upload's chunk: `<start>-<end>`, both ends belong to it (distribution-spec, "Pushing a blob
/// in chunks"). `bytes <start>-<end>/<any>` is read as the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkRange {
    /// Where the chunk begins.
    pub start: u64,
    /// How many bytes it has; never 0.
    pub size_bytes: u64,
}

impl ChunkRange {
    /// Reads the header's value.
    pub fn parse(header: &str) -> Option<Self> {
        let text = header.trim();
        let text = text.strip_prefix("bytes ").or_else(|| text.strip_prefix("bytes=")).unwrap_or(text);
        let text = text.split_once('/').map_or(text, |(range, _)| range);
        let (start, end) = text.split_once('-')?;
        let (start, end) = (number(start)?, number(end)?);
        Some(Self { start, size_bytes: end.checked_sub(start)?.checked_add(1)? })
    }
}

fn number(text: &str) -> Option<u64> {
    // `u64::from_str` also takes a sign, which a range does not have.
    if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn headers_that_ask_for_the_whole() {
        for header in ["", "bytes", "bytes=", "bytes=-", "bytes=a-b", "bytes=0-1,3-4", "items=0-1", "bytes=+1-2"] {
            assert_eq!(ReadRange::parse(header), None, "{header}");
        }
    }

    #[test]
    fn parts_are_cut_to_the_blob() {
        let of = |header: &str| ReadRange::parse(header).unwrap().within(10);
        assert_eq!(of("bytes=2-3"), Some(2..4));
        assert_eq!(of("bytes=2-99"), Some(2..10));
        assert_eq!(of("bytes=9-"), Some(9..10));
        assert_eq!(of("bytes=-3"), Some(7..10));
        assert_eq!(of("bytes=-99"), Some(0..10));
        assert_eq!(of("bytes=0-18446744073709551615"), Some(0..10));
        assert_eq!(of("bytes=10-"), None);
        assert_eq!(of("bytes=5-4"), None);
        assert_eq!(of("bytes=-0"), None);
    }

    #[test]
    fn chunks() {
        assert_eq!(ChunkRange::parse("5-9"), Some(ChunkRange { start: 5, size_bytes: 5 }));
        assert_eq!(ChunkRange::parse("bytes 5-9/*"), Some(ChunkRange { start: 5, size_bytes: 5 }));
        for bad in ["", "-", "5", "9-5", "0-18446744073709551615", "a-b", "-1-2"] {
            assert_eq!(ChunkRange::parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_part_lies_within_the_blob(header in "bytes=[0-9]{0,20}-[0-9]{0,20}", size: u64) {
            if let Some(range) = ReadRange::parse(&header).and_then(|r| r.within(size)) {
                prop_assert!(range.start < range.end && range.end <= size);
            }
        }

        #[test]
        fn nothing_panics(header: String) {
            let _ = ReadRange::parse(&header);
            let _ = ChunkRange::parse(&header);
        }
    }
}
