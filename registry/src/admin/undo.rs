//! Going back to a value that a tag had: a new entry that names its copy, confirmed like a push.

use serde::{Deserialize, Serialize};

use super::Admin;
use super::error::AdminError;
use super::history::{State, Weighed};
use crate::auth::Caller;
use crate::protocol::{Named, Undo, UndoOutcome};
use crate::spec::{RepoName, Tag};
use crate::storage::{Attachments, Stamp};

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undone {
    /// The repository.
    pub repo: String,
    /// The tag.
    pub tag: String,
    /// What the tag was; none when it was deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// What it is now.
    pub digest: String,
    /// The id of the value that it went back to.
    pub to: String,
}

impl Admin {
    /// Gives a tag the value that it had before the one that it has, or the value `to` (an id or a digest). A tag that
    /// was deleted gets the value that it had last.
    pub async fn undo(&self, repo: &RepoName, tag: &Tag, to: Option<&str>) -> Result<Undone, AdminError> {
        let (_, values) = self.weighed(repo, tag).await?;
        let current = values.iter().find(|value| value.state == State::Current);
        let target = match to {
            Some(wanted) => chosen(repo, tag, &values, wanted)?,
            None => before(repo, tag, &values, current)?,
        };
        let (repo, tag) = (repo.clone(), tag.clone());
        let digest = target.value.item.entry.digest.clone();
        if current.is_some_and(|current| current.value.item.entry.digest == digest) {
            return Err(AdminError::AlreadySo { repo, tag, digest });
        }
        let gone = || {
            let there = values.iter().filter(|value| value.there && value.state == State::Past);
            AdminError::ValueGone {
                repo: repo.clone(),
                tag: tag.clone(),
                id: target.id.clone(),
                digest: digest.clone(),
                there: there.map(|value| value.id.clone()).collect(),
            }
        };
        if !target.there {
            return Err(gone());
        }
        let copy = target.value.item.entry.named();
        let Some(named) = self.storage().named_by(&copy).await? else { return Err(gone()) };
        let stamp = Stamp { time: self.registry().now(), by: Caller::operator().name().map(str::to_owned) };
        let attachments = Attachments { stamp: stamp.encode(), ..Default::default() };
        let entry = target.value.item.entry.clone();
        let operation = Undo::new(repo.clone(), tag.clone(), entry, Named::clone(&named), self.nonces());
        match self.storage().run(operation, &attachments).await? {
            UndoOutcome::Done { superseded } => {
                self.registry().forget(&repo, &superseded).await;
                Ok(Undone {
                    repo: repo.to_string(),
                    tag: tag.to_string(),
                    before: current.map(|current| current.value.item.entry.digest.to_string()),
                    digest: digest.to_string(),
                    to: target.id.clone(),
                })
            }
            UndoOutcome::CopyGone => Err(gone()),
            UndoOutcome::Broken(missing) => {
                Err(AdminError::ValueBroken { repo, tag, id: target.id.clone(), digest, missing })
            }
        }
    }
}

/// The newest value before the current one that is another; of a deleted tag the last.
fn before<'v>(
    repo: &RepoName,
    tag: &Tag,
    values: &'v [Weighed],
    current: Option<&'v Weighed>,
) -> Result<&'v Weighed, AdminError> {
    let mut past = values.iter().rev().filter(|value| value.state == State::Past);
    let Some(current) = current else {
        return past.next().ok_or_else(|| AdminError::NoTag { repo: repo.clone(), tag: tag.clone(), near: Vec::new() });
    };
    let digest = &current.value.item.entry.digest;
    past.find(|value| value.value.item.entry.digest != *digest).ok_or_else(|| AdminError::NothingBefore {
        repo: repo.clone(),
        tag: tag.clone(),
        digest: digest.clone(),
    })
}

/// The value with this id, or the newest one with this digest or the beginning of it.
fn chosen<'v>(repo: &RepoName, tag: &Tag, values: &'v [Weighed], wanted: &str) -> Result<&'v Weighed, AdminError> {
    if let Some(value) = values.iter().find(|value| value.id == wanted) {
        return Ok(value);
    }
    let no_value =
        || AdminError::NoValue { repo: repo.clone(), tag: tag.clone(), wanted: wanted.chars().take(150).collect() };
    let several = |found: &[&Weighed]| AdminError::SeveralValues {
        repo: repo.clone(),
        tag: tag.clone(),
        wanted: wanted.to_owned(),
        ids: found.iter().map(|value| value.id.clone()).collect(),
    };
    // `3` where there are `3.abc` and `3.def`.
    let alike: Vec<_> = values.iter().filter(|value| value.id.split('.').next() == Some(wanted)).collect();
    if !alike.is_empty() {
        return Err(several(&alike));
    }
    let hex = wanted.split_once(':').map_or(wanted, |(_, hex)| hex);
    if hex.len() < 6 {
        return Err(no_value());
    }
    let digest = |value: &Weighed| value.value.item.entry.digest.clone();
    let by_digest = values.iter().rev().filter(|value| {
        let digest = digest(value);
        matches!(value.state, State::Current | State::Past)
            && (digest.to_string().starts_with(wanted) || digest.hex().starts_with(wanted))
    });
    let by_digest: Vec<_> = by_digest.collect();
    match by_digest.split_first() {
        Some((first, rest)) if rest.iter().all(|value| digest(value) == digest(first)) => {
            // Any copy of it will do, and one that is there is better than the newest.
            Ok(by_digest.iter().find(|value| value.there).unwrap_or(first))
        }
        Some(_) => Err(several(&by_digest)),
        None => Err(no_value()),
    }
}
