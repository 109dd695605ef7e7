//! Old values of tags: what a tag named at a time.

use jiff::Timestamp;

use super::Registry;
use super::error::RegistryError;
use crate::protocol::TagEntry;
use crate::spec::{PastTag, RepoName};
use crate::storage::{PastValue, StorageError, TagPast, Written};

impl Registry {
    /// The value that a tag had at a time; `None` when it had none then, or its history does not reach back so far.
    ///
    /// Costs two lists, and a read for each entry that the store got after that time and that may be older all the same:
    /// few, unless the store was copied since.
    pub(super) async fn value_at(&self, repo: &RepoName, past: &PastTag) -> Result<Option<TagEntry>, RegistryError> {
        let Some(at) = past.at else { return Ok(None) };
        let known = self.storage.past(repo, &past.tag).await?;
        // Beyond what the tag is now stands only what came to nothing.
        let now = known.items().standing().first().map(|entry| (entry.order, entry.nonce.clone()));
        let values = known.values.iter().filter(|value| {
            let entry = &value.item.entry;
            !value.item.void && now.as_ref().is_none_or(|now| (entry.order, &entry.nonce) <= (now.0, &now.1))
        });
        let values: Vec<_> = values.collect();
        let Some(value) = self.last_until(&values, at).await? else { return Ok(None) };
        let ended = self.ended_until(&known, value, at).await?;
        Ok((!ended).then(|| value.item.entry.clone()))
    }

    /// The last value, in the order of the tag's entries, that was written until then.
    async fn last_until<'v>(
        &self,
        values: &[&'v Written<PastValue>],
        at: Timestamp,
    ) -> Result<Option<&'v Written<PastValue>>, StorageError> {
        // Nothing is later than the store says.
        let mut from = values.iter().rposition(|value| value.at <= at).map_or(0, |last| last + 1);
        let mut to = values.len();
        while from < to {
            let middle = from + (to - from) / 2;
            let Some(value) = values.get(middle) else { break };
            if self.storage.value_stamp(value).await?.0 <= at { from = middle + 1 } else { to = middle }
        }
        Ok(from.checked_sub(1).and_then(|last| values.get(last)).copied())
    }

    async fn ended_until(
        &self,
        known: &TagPast,
        value: &Written<PastValue>,
        at: Timestamp,
    ) -> Result<bool, StorageError> {
        let entry = &value.item.entry;
        for end in &known.ends {
            if (end.item.order, &end.item.nonce) < (entry.order, &entry.nonce) {
                continue;
            }
            if end.at <= at || self.storage.end_stamp(end).await?.0 <= at {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
