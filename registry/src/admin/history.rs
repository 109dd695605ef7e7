//! What a tag was: each value, when and by whom, whether it is there still, and what ended it.

use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Admin;
use super::error::AdminError;
use super::near::near;
use crate::spec::{PastTag, RepoName, Tag};
use crate::storage::{PastValue, StorageError, TagPast, Written};

/// How many requests are under way at once.
const SIDE_BY_SIDE: usize = 16;
/// How many names are looked through for one like a name that is not there: one page of a list.
const NAMES: usize = 1000;

/// The past of a tag.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// The repository.
    pub repo: String,
    /// The tag.
    pub tag: String,
    /// Its values, newest first.
    pub values: Vec<Value>,
}

/// A value that the tag had, or was about to get.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Value {
    /// Names it for `undo --to`.
    pub id: String,
    /// When it was written, in UTC: the earlier of the writer's clock and the store's.
    pub time: String,
    /// By whom, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// The manifest.
    pub digest: String,
    /// Whether its content is there still.
    pub there: bool,
    /// What became of it.
    pub state: State,
    /// What ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Ended>,
    /// The tag that pulls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// What became of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// The tag has it.
    Current,
    /// The tag had it. When it ended is told beside it, as long as that is known.
    Past,
    /// It was written down, and its push did not come to its end: the tag never had it.
    Unpublished,
    /// It was refused: the tag is immutable and had another value.
    Refused,
}

/// What ended a value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// The value that came after it; none when the tag was deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_value: Option<String>,
    /// When, in UTC.
    pub time: String,
    /// By whom, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// A value of a tag, weighed against the others.
#[derive(Clone, Debug)]
pub(super) struct Weighed {
    pub(super) value: Written<PastValue>,
    pub(super) id: String,
    pub(super) there: bool,
    pub(super) state: State,
    ender: Ender,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ender {
    Nothing,
    /// Index into the values.
    Value(usize),
    /// Index into the ends.
    End(usize),
}

impl Admin {
    /// The past of a tag. Costs two lists, and two reads for each value.
    pub async fn history(&self, repo: &RepoName, tag: &Tag) -> Result<History, AdminError> {
        let (past, weighed) = self.weighed(repo, tag).await?;
        let (past, all) = (Arc::new(past), Arc::new(weighed));
        let stamps: Vec<(Timestamp, Option<String>)> = stream::iter(0..all.len())
            .map(|index| {
                let all = all.clone();
                async move {
                    match all.get(index) {
                        Some(weighed) => self.storage().value_stamp(&weighed.value).await,
                        None => Ok((Timestamp::MIN, None)),
                    }
                }
            })
            .buffered(SIDE_BY_SIDE)
            .try_collect()
            .await?;
        let mut values = Vec::new();
        for (index, (weighed, (time, by))) in all.iter().zip(&stamps).enumerate() {
            let ended = match weighed.ender {
                Ender::Nothing => None,
                Ender::Value(by_value) => all.get(by_value).zip(stamps.get(by_value)).map(|(value, (time, by))| {
                    Ended { by_value: Some(value.id.clone()), time: time.to_string(), by: by.clone() }
                }),
                Ender::End(end) => match past.ends.get(end) {
                    Some(end) => {
                        let (time, by) = self.storage().end_stamp(end).await?;
                        Some(Ended { by_value: None, time: time.to_string(), by })
                    }
                    None => None,
                },
            };
            // Of several values of one second the name means the last.
            let is_named = weighed.there
                && matches!(weighed.state, State::Current | State::Past)
                && stamps.iter().zip(all.iter()).skip(index + 1).all(|((later, _), weighed)| {
                    later != time || matches!(weighed.state, State::Refused | State::Unpublished)
                })
                && ended.as_ref().is_none_or(|ended| ended.time != time.to_string());
            let name = if is_named { PastTag::name(tag, *time) } else { None };
            values.push(Value {
                id: weighed.id.clone(),
                time: time.to_string(),
                by: by.clone(),
                digest: weighed.value.item.entry.digest.to_string(),
                there: weighed.there,
                state: weighed.state,
                ended,
                name: name.map(|name| name.to_string()),
            });
        }
        values.reverse();
        Ok(History { repo: repo.to_string(), tag: tag.to_string(), values })
    }

    /// The values of a tag, oldest first, and what became of each.
    pub(super) async fn weighed(&self, repo: &RepoName, tag: &Tag) -> Result<(TagPast, Vec<Weighed>), AdminError> {
        let past = self.storage().past(repo, tag).await?;
        if past.values.is_empty() {
            return Err(self.unknown_tag(repo, tag).await?);
        }
        let copies: Vec<_> = past.values.iter().map(|value| value.item.entry.named()).collect();
        let there: Vec<bool> = stream::iter(copies)
            .map(|copy| async move { self.storage().has_copy(&copy).await })
            .buffered(SIDE_BY_SIDE)
            .try_collect()
            .await?;
        let weighed = weigh(&past, &there);
        Ok((past, weighed))
    }

    async fn unknown_tag(&self, repo: &RepoName, tag: &Tag) -> Result<AdminError, StorageError> {
        if !self.storage().exists(repo).await? {
            return self.unknown_repository(repo).await;
        }
        let names = self.storage().tag_names(repo, None, NAMES).await?.items;
        let near = near(tag.as_str(), names.iter().map(|name| name.as_str()));
        Ok(AdminError::NoTag { repo: repo.clone(), tag: tag.clone(), near })
    }

    /// One page of the catalog is looked through for names like it.
    pub(super) async fn unknown_repository(&self, repo: &RepoName) -> Result<AdminError, StorageError> {
        let names = self.storage().catalog_page(NAMES).await?;
        let near = near(repo.as_str(), names.iter().map(|name| name.as_str()));
        Ok(AdminError::NoRepository { repo: repo.clone(), near })
    }
}

/// `there`: for each value, whether its copy is there.
fn weigh(past: &TagPast, there: &[bool]) -> Vec<Weighed> {
    let items = past.items();
    let standing: Vec<_> = items.standing().into_iter().cloned().collect();
    let is_there = |index: usize| there.get(index).copied().unwrap_or_default();
    let current = standing.iter().find_map(|entry| {
        past.values.iter().enumerate().position(|(index, value)| value.item.entry == *entry && is_there(index))
    });
    let last_place = current.and_then(|current| past.values.get(current)).map(|value| {
        let entry = &value.item.entry;
        (entry.order, entry.nonce.clone())
    });
    let weighed = past.values.iter().enumerate().map(|(index, value)| {
        let entry = &value.item.entry;
        let place = (entry.order, entry.nonce.clone());
        let beyond = last_place.as_ref().is_some_and(|last| place > *last);
        let next = past.values.iter().enumerate().skip(index + 1).find(|(next, value)| {
            // What came to nothing ended nothing.
            !value.item.void && current.is_none_or(|current| *next <= current)
        });
        // The first end that reaches it, if nothing came in between.
        let end = past.ends.iter().enumerate().map(|(end, written)| (place_of(&written.item), end));
        let end = end.filter(|(end, _)| *end >= place).min();
        let (state, ender) = if value.item.void {
            (State::Refused, Ender::Nothing)
        } else if current == Some(index) {
            (State::Current, Ender::Nothing)
        } else if beyond && !value.item.published {
            (State::Unpublished, Ender::Nothing)
        } else {
            let ender = match (next, end) {
                (Some((_, next)), Some((end_place, end))) if place_of_entry(next) > end_place => Ender::End(end),
                (Some((next, _)), _) => Ender::Value(next),
                (None, Some((_, end))) => Ender::End(end),
                (None, None) => Ender::Nothing,
            };
            (State::Past, ender)
        };
        let alone = past.values.iter().filter(|other| other.item.entry.order == entry.order).count() == 1;
        let id = if alone { entry.order.to_string() } else { format!("{}.{}", entry.order, entry.nonce) };
        Weighed { value: value.clone(), id, there: is_there(index), state, ender }
    });
    weighed.collect()
}

fn place_of(end: &crate::protocol::TagEnd) -> (u64, crate::protocol::Nonce) {
    (end.order, end.nonce.clone())
}

fn place_of_entry(value: &Written<PastValue>) -> (u64, crate::protocol::Nonce) {
    (value.item.entry.order, value.item.entry.nonce.clone())
}
