//! What a tag was: its values and ends, and when and by whom they were written.
//!
//! Two clocks tell when. Each entry holds a stamp, the time by the clock of the replica that wrote it; and the store
//! says when it got the entry. The earlier of the two counts: a replica whose clock runs ahead cannot date a value into
//! the future, and a store that was copied elsewhere, where every object is new, keeps its history. Times are for people
//! and for names of old values; what a tag is *now* is decided by the order of its entries alone.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::keys::{self, TagItem};
use super::{Storage, StorageError};
use crate::protocol::{Copy, Nonce, Object, TagEnd, TagEntry, TagItems};
use crate::spec::{RepoName, Tag};

/// When something was written, and by whom: the content of entries of tags and of their history.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// RFC 3339 in UTC, by the clock of whoever wrote it.
    #[serde(default)]
    pub time: String,
    /// The user's name, where users have names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

impl Stamp {
    /// As it is stored.
    pub fn encode(&self) -> bytes::Bytes {
        // Strings always become JSON.
        serde_json::to_vec(self).unwrap_or_default().into()
    }

    /// The one in the first line of a hint; empty where there is none.
    pub(super) fn before(content: &[u8]) -> Self {
        let line = content.split(|byte| *byte == b'\n').next().unwrap_or_default();
        serde_json::from_slice(line).unwrap_or_default()
    }

    fn time(&self) -> Option<Timestamp> {
        self.time.parse().ok()
    }
}

/// An entry, or an end, and when the store got it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written<T> {
    /// What.
    pub item: T,
    /// When, to the second.
    pub at: Timestamp,
}

/// A value that a tag had, or was about to get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PastValue {
    /// The value.
    pub entry: TagEntry,
    /// Whether it was refused after all: the tag is immutable.
    pub void: bool,
    /// Whether it stands among the tag's own entries: it was published, and nothing has replaced it yet.
    pub published: bool,
    /// Whether there is an entry in the history.
    pub in_history: bool,
}

impl PastValue {
    fn stamped(&self) -> Object {
        if self.in_history { Object::History(self.entry.clone()) } else { Object::Tag(self.entry.clone()) }
    }
}

/// Everything that the store knows of one tag.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TagPast {
    /// Its values, oldest first.
    pub values: Vec<Written<PastValue>>,
    /// Its ends, in any order. One that is older than the grace time may have been cleaned away.
    pub ends: Vec<Written<TagEnd>>,
}

impl TagPast {
    /// The entries and ends of today.
    pub fn items(&self) -> TagItems {
        let published = self.values.iter().filter(|value| value.item.published);
        TagItems {
            entries: published.map(|value| value.item.entry.clone()).collect(),
            ends: self.ends.iter().map(|end| end.item.clone()).collect(),
        }
    }
}

impl Storage {
    /// Everything that is known of a tag: two lists.
    pub async fn past(&self, repo: &RepoName, tag: &Tag) -> Result<TagPast, StorageError> {
        let (history, tag) = (keys::history(repo, Some(tag)), keys::tag(repo, tag));
        let (history, now) = futures_util::try_join!(self.list_dated(&history), self.list_dated(&tag))?;
        let mut past = TagPast::default();
        let mut values: BTreeMap<(u64, Nonce), Written<PastValue>> = BTreeMap::new();
        for (key, written) in history {
            let Some((entry, void)) = keys::parse_history(&key) else { continue };
            let place = (entry.order, entry.nonce.clone());
            let item = PastValue { entry, void: false, published: false, in_history: true };
            let value = values.entry(place).or_insert(Written { item, at: seconds(written) });
            value.item.void |= void;
        }
        for (key, written) in now {
            match keys::parse_tag_item(&key) {
                Some(TagItem::Entry(entry)) => {
                    let place = (entry.order, entry.nonce.clone());
                    let item = PastValue { entry, void: false, published: true, in_history: false };
                    let value = values.entry(place).or_insert(Written { item, at: seconds(written) });
                    value.item.published = true;
                }
                Some(TagItem::End(end)) => past.ends.push(Written { item: end, at: seconds(written) }),
                None => {}
            }
        }
        past.values = values.into_values().collect();
        Ok(past)
    }

    /// When a value was written (the earlier of both clocks), and by whom.
    pub async fn value_stamp(&self, value: &Written<PastValue>) -> Result<(Timestamp, Option<String>), StorageError> {
        self.stamp(&value.item.stamped(), value.at).await
    }

    /// When a tag was ended (the earlier of both clocks), and by whom.
    pub async fn end_stamp(&self, end: &Written<TagEnd>) -> Result<(Timestamp, Option<String>), StorageError> {
        self.stamp(&Object::End(end.item.clone()), end.at).await
    }

    /// Whether a copy is there.
    pub async fn has_copy(&self, copy: &Copy) -> Result<bool, StorageError> {
        self.is_there(&keys::copy(copy)).await
    }

    /// One page of the names of all repositories that ever had a manifest.
    pub async fn catalog_page(&self, max: usize) -> Result<Vec<RepoName>, StorageError> {
        let (page, _) = self.list_page(keys::CATALOG, None, max).await?;
        Ok(page.iter().filter_map(|key| keys::parse_catalog(key)).collect())
    }

    async fn stamp(&self, object: &Object, at: Timestamp) -> Result<(Timestamp, Option<String>), StorageError> {
        let content = self.read_small(&keys::object(object), "reading when a tag was written").await?;
        // What goes meanwhile, or holds no stamp, has the store's time.
        let stamp: Stamp = content.and_then(|content| serde_json::from_slice(&content).ok()).unwrap_or_default();
        Ok((stamp.time().map_or(at, |time| time.min(at)), stamp.by))
    }
}

pub(super) fn seconds(time: std::time::SystemTime) -> Timestamp {
    let since = time.duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Timestamp::from_second(i64::try_from(since).unwrap_or(i64::MAX)).unwrap_or(Timestamp::MAX)
}
