//! Since when a value of a tag is history, by the times that the store gave its entries.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Dated, StoreTime};
use crate::protocol::{Nonce, TagEnd, TagEntry};

/// Everything that is stored of one tag, with the store's times.
#[derive(Clone, Debug, Default)]
pub struct TagDates {
    /// Its published values.
    pub entries: Vec<Dated<TagEntry>>,
    /// The ends of values.
    pub ends: Vec<Dated<TagEnd>>,
    /// The values that it was about to get.
    pub history: Vec<Dated<TagEntry>>,
    /// The ones that it was refused, and when that was.
    pub voids: BTreeMap<TagEntry, StoreTime>,
}

/// Where an entry stands among a tag's.
pub fn place(entry: &TagEntry) -> (u64, &Nonce, bool) {
    (entry.order, &entry.nonce, false)
}

/// Where an end stands: just after the entry that it names.
pub fn end_place(end: &TagEnd) -> (u64, &Nonce, bool) {
    (end.order, &end.nonce, true)
}

impl TagDates {
    /// The place up to and including which values are ended.
    pub fn ended_up_to(&self) -> Option<(u64, &Nonce, bool)> {
        self.ends.iter().map(|end| end_place(&end.item)).max()
    }

    /// The published value that counts, as far as the copies say that are there.
    pub fn current(&self, is_there: impl Fn(&TagEntry) -> bool) -> Option<&TagEntry> {
        let end = self.ended_up_to();
        let standing = self.entries.iter().map(|entry| &entry.item);
        let standing = standing.filter(|entry| end.is_none_or(|end| place(entry) > end) && is_there(entry));
        standing.max_by_key(|entry| place(entry))
    }

    /// When the value stopped being the tag's: when the next greater value or end was written. `None`: it has not.
    ///
    /// Nothing tells whether a value with nothing above it was published and then removed, or never published; the
    /// first does not happen, because values are removed only for what is above them, so it counts as never having been.
    pub fn replaced_at(&self, value: &Dated<TagEntry>) -> Option<StoreTime> {
        let own = place(&value.item);
        let published = self.entries.iter().map(|entry| (place(&entry.item), entry.written));
        let ends = self.ends.iter().map(|end| (end_place(&end.item), end.written));
        let counting: Vec<_> = published.chain(ends).filter(|(place, _)| *place > own).collect();
        let is_published = self.entries.iter().any(|entry| entry.item == value.item);
        if is_published && counting.is_empty() {
            return None;
        }
        // Published values are removed once they are replaced; what they replaced is told by their history.
        let about = self.history.iter().filter(|entry| !self.voids.contains_key(&entry.item));
        let about = about.map(|entry| (place(&entry.item), entry.written)).filter(|(place, _)| *place > own);
        let next = counting.into_iter().chain(about).min();
        Some(next.map_or(value.written, |(_, written)| written.max(value.written)))
    }

    /// Whether a value still counts as a reference: it is the tag's, or was less than `window` ago.
    pub fn in_window(&self, value: &Dated<TagEntry>, now: StoreTime, window: Duration) -> bool {
        !self.voids.contains_key(&value.item)
            && self.replaced_at(value).is_none_or(|replaced| now.since(replaced) <= window)
    }

    /// Values that are about to be published, or that nobody came to publish: above what counts, neither published nor
    /// void.
    pub fn unpublished(&self) -> impl Iterator<Item = &Dated<TagEntry>> {
        let published: BTreeSet<&TagEntry> = self.entries.iter().map(|entry| &entry.item).collect();
        let top = self.entries.iter().map(|entry| place(&entry.item)).max().max(self.ended_up_to());
        self.history.iter().filter(move |entry| {
            let above = top.is_none_or(|top| place(&entry.item) > top);
            above && !published.contains(&entry.item) && !self.voids.contains_key(&entry.item)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Algorithm, Digest};

    fn value(order: u64, written: i64) -> Dated<TagEntry> {
        let nonce: Nonce = format!("n{order}").parse().unwrap();
        let digest = Digest::of(Algorithm::Sha256, order.to_string().as_bytes());
        let (repo, tag) = ("a".parse().unwrap(), "t".parse().unwrap());
        let item = TagEntry { order, nonce: nonce.clone(), repo, tag, digest, copy: nonce };
        Dated { item, written: StoreTime(written), size_bytes: 0 }
    }

    #[test]
    fn a_value_is_history_from_when_the_next_was_written() {
        let history = vec![value(1, 10), value(2, 20), value(3, 30)];
        let dates = TagDates { entries: vec![value(3, 31)], history, ..Default::default() };
        let replaced = |order, written| dates.replaced_at(&value(order, written)).map(|time| time.0);
        assert_eq!(replaced(1, 10), Some(20));
        assert_eq!(replaced(2, 20), Some(30));
        assert_eq!(replaced(3, 30), None);
    }

    #[test]
    fn a_deleted_value_is_history_from_when_it_was_deleted() {
        let end = value(1, 50).map(|entry| entry.end());
        let dates = TagDates { ends: vec![end], history: vec![value(1, 10)], ..Default::default() };
        assert_eq!(dates.replaced_at(&value(1, 10)), Some(StoreTime(50)));
    }

    #[test]
    fn what_was_never_published_does_not_end_the_value_before_it() {
        let history = vec![value(1, 10), value(2, 20)];
        let dates = TagDates { entries: vec![value(1, 11)], history, ..Default::default() };
        assert_eq!(dates.replaced_at(&value(1, 10)), None);
        assert_eq!(dates.replaced_at(&value(2, 20)), Some(StoreTime(20)));
        assert_eq!(dates.unpublished().map(|entry| entry.item.order).collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn a_refused_value_ends_nothing() {
        let (history, voids) = (vec![value(1, 10), value(2, 20), value(3, 30)], [(value(2, 20).item, StoreTime(21))]);
        let dates = TagDates { entries: vec![value(3, 31)], history, voids: voids.into(), ..Default::default() };
        assert_eq!(dates.replaced_at(&value(1, 10)), Some(StoreTime(30)));
    }
}
