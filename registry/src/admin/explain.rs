//! Why something is there, or is not: what keeps a manifest or blob of a repository, and what is known of its end.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::Admin;
use super::error::AdminError;
use crate::protocol::{Object, TagItems};
use crate::spec::{Digest, RepoName, Tag};
use crate::storage::{Part, Place, Removed};

/// Most repositories that are named as having a blob as well.
const HOLDERS_MAX: usize = 100;

/// What is known of a manifest or blob.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The repository.
    pub repo: String,
    /// The manifest or blob.
    pub digest: String,
    /// When the store got each copy of the manifest; none when the repository has no such manifest.
    pub manifest_since: Vec<String>,
    /// When the store got each link to the blob; none when the repository has no such blob.
    pub blob_since: Vec<String>,
    /// What keeps it.
    pub kept_by: Vec<Reason>,
    /// What collectors removed of it, as far as their log reaches back.
    pub removed: Vec<Removed>,
    /// When a DELETE, or a push that was refused, left word of it, and for which object.
    pub hints: Vec<Removed>,
}

/// Something that keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// What kind of thing.
    pub kind: ReasonKind,
    /// Which: a tag, a digest, a repository.
    pub name: String,
    /// Since when, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Until when, where it ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

/// Kinds of reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReasonKind {
    /// A tag whose value it is.
    Tag,
    /// A tag whose value it was, as long as the history window reaches.
    History,
    /// An index that lists it.
    Index,
    /// The manifest that it refers to.
    Subject,
    /// A manifest that names the blob.
    Manifest,
    /// Another repository that has the blob: its data stays, whatever happens here.
    Repository,
}

impl Admin {
    /// What keeps a manifest or blob, or what ended it. `window`: how long a value that was replaced is kept. Costs a read
    /// for each manifest of the repository, and one for each log and hint of the collectors.
    pub async fn explain(
        &self,
        repo: &RepoName,
        digest: &Digest,
        window: SignedDuration,
    ) -> Result<Explanation, AdminError> {
        let storage = self.storage();
        if !storage.exists(repo).await? {
            return Err(self.unknown_repository(repo).await?);
        }
        let mut found = Explanation { repo: repo.to_string(), digest: digest.to_string(), ..Default::default() };
        for link in storage.links_in(repo, digest).await? {
            found.blob_since.extend(shown(storage.written_at(&Object::Link(link, repo.clone())).await?));
        }
        let mut subjects = Vec::new();
        for (copy, named) in storage.contents(repo).await? {
            let reason = |kind| Reason { kind, name: copy.digest.to_string(), since: None, until: None };
            if copy.digest == *digest {
                found.manifest_since.extend(shown(storage.written_at(&Object::Copy(copy.clone())).await?));
                subjects.extend(named.subject.clone());
            }
            if named.children.contains(digest) {
                found.kept_by.push(reason(ReasonKind::Index));
            }
            if named.blobs.contains(digest) && !found.blob_since.is_empty() {
                found.kept_by.push(reason(ReasonKind::Manifest));
            }
        }
        for subject in subjects {
            if storage.has_manifest(repo, &subject).await? {
                let name = subject.to_string();
                found.kept_by.push(Reason { kind: ReasonKind::Subject, name, since: None, until: None });
            }
        }
        if !found.manifest_since.is_empty() {
            self.explain_tags(repo, digest, window, &mut found).await?;
        }
        for holder in storage.holders(digest, HOLDERS_MAX).await? {
            if holder != *repo {
                let name = holder.to_string();
                found.kept_by.push(Reason { kind: ReasonKind::Repository, name, since: None, until: None });
            }
        }
        found.kept_by.sort_by(|a, b| (a.kind, &a.name).cmp(&(b.kind, &b.name)));
        found.kept_by.dedup();
        found.removed = storage.removals_of(digest).await?;
        found.hints = storage.hints_of(repo, digest).await?;
        let is_there = !found.manifest_since.is_empty() || !found.blob_since.is_empty();
        if !is_there && found.removed.is_empty() && found.hints.is_empty() && found.kept_by.is_empty() {
            return Err(AdminError::NothingKnown { repo: repo.clone(), digest: digest.clone() });
        }
        Ok(found)
    }

    async fn explain_tags(
        &self,
        repo: &RepoName,
        digest: &Digest,
        window: SignedDuration,
        found: &mut Explanation,
    ) -> Result<(), AdminError> {
        let storage = self.storage();
        let mut tags: std::collections::BTreeSet<Tag> = Default::default();
        for item in storage.history(repo, None).await? {
            if item.entry.digest == *digest && !item.void {
                tags.insert(item.entry.tag);
            }
        }
        let mut place = Place::default();
        while let Some(page) = storage.repository_page(repo, Part::Tags, &mut place).await? {
            for (object, _) in page {
                if let Object::Tag(entry) = object
                    && entry.digest == *digest
                {
                    tags.insert(entry.tag);
                }
            }
        }
        for tag in tags {
            let past = storage.past(repo, &tag).await?;
            let items: TagItems = past.items();
            let current = items.standing().first().map(|entry| (*entry).clone());
            let is_current = current.is_some_and(|entry| entry.digest == *digest);
            let values: Vec<_> = past.values.iter().filter(|value| !value.item.void).collect();
            // The last time that it was the value tells until when it is kept.
            let Some(last) = values.iter().rposition(|value| value.item.entry.digest == *digest) else { continue };
            let Some(value) = values.get(last) else { continue };
            let place = (value.item.entry.order, &value.item.entry.nonce);
            let replaced = values.get(last + 1).map(|next| next.at);
            let ended = past.ends.iter().filter(|end| (end.item.order, &end.item.nonce) >= place).map(|end| end.at);
            let until = ended.chain(replaced).min().and_then(|ended| ended.checked_add(window).ok());
            let kind = if is_current { ReasonKind::Tag } else { ReasonKind::History };
            let until = until.filter(|_| !is_current).map(|until| until.to_string());
            found.kept_by.push(Reason { kind, name: tag.to_string(), since: Some(value.at.to_string()), until });
        }
        Ok(())
    }
}

fn shown(time: Option<std::time::SystemTime>) -> Option<String> {
    let seconds = time?.duration_since(std::time::UNIX_EPOCH).ok()?.as_secs();
    Some(Timestamp::from_second(i64::try_from(seconds).ok()?).ok()?.to_string())
}
