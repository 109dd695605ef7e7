//! What users delete: a tag, a manifest, a blob. They remove exactly the keys that they listed.

use super::machine::{Machine, Next, Replies, Request};
use super::mutation::{Mutation, mutated};
use super::object::{Copy, Nonces, Object, TagEntry, TagItems};
use crate::spec::{Digest, RepoName, Tag};

/// Ends a tag. Output: whether it was there. A push that overlaps takes a greater place and survives.
///
/// A tag without a value may still be claimed, by a push that died: as long as the tag is immutable, that claim keeps
/// everybody else out. It ends too, and counts as something that was there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DeleteTag {
    repo: RepoName,
    tag: Tag,
    stage: TagStage,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum TagStage {
    Start,
    Listed,
    /// Nothing stands: is there a claim that nobody came back to?
    ClaimsListed(TagItems),
    Ended,
}

impl DeleteTag {
    /// Ends `tag` in `repo`.
    pub fn new(repo: RepoName, tag: Tag) -> Self {
        Self { repo, tag, stage: TagStage::Start }
    }
}

impl Machine for DeleteTag {
    type Output = bool;

    fn step(&mut self, mut replies: Replies) -> Next<bool> {
        let top = match &self.stage {
            TagStage::Start => {
                self.stage = TagStage::Listed;
                return Next::Ask(vec![Request::Tag(self.repo.clone(), self.tag.clone())]);
            }
            TagStage::Listed => {
                let items = replies.tags().pop().unwrap_or_default();
                let Some(top) = items.standing().first().map(|entry| entry.end()) else {
                    self.stage = TagStage::ClaimsListed(items);
                    return Next::Ask(vec![Request::History(self.repo.clone(), Some(self.tag.clone()))]);
                };
                top
            }
            TagStage::ClaimsListed(items) => {
                let history = replies.history().unwrap_or_default();
                let claims = history.into_iter().filter(|item| !item.void).map(|item| item.entry).collect();
                let items = TagItems { entries: claims, ends: items.ends.clone() };
                let Some(top) = items.standing().first().map(|claim| claim.end()) else { return Next::Done(false) };
                top
            }
            TagStage::Ended => return Next::Done(true),
        };
        self.stage = TagStage::Ended;
        Next::Ask(vec![Request::Write(Object::End(top))])
    }
}

/// Removes a manifest, or several of one repository, and every tag whose value one of them is. Output: whether any was there.
///
/// The tags end first, so that nothing older shows when the copies go, and once more afterwards, for what was published
/// in between.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DeleteManifest {
    repo: RepoName,
    /// What copies refer to.
    subjects: Vec<(Digest, Copy)>,
    nonces: Nonces,
    copies: Vec<Copy>,
    /// What the histories said of it when its copies had gone.
    history: Vec<TagEntry>,
    stage: ManifestStage,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum ManifestStage {
    Start,
    TagsListed,
    TagsEnded,
    CopiesRemoved,
    TagsListedAgain,
    TagsEndedAgain,
    Cleaned,
}

impl DeleteManifest {
    /// Removes these copies, which were listed just now and are all of a manifest in `repo`; `subject` is what it refers to.
    pub fn new(repo: RepoName, copies: Vec<Copy>, subject: Option<Digest>, nonces: Nonces) -> Self {
        let subjects = subject.iter().flat_map(|subject| copies.iter().map(|copy| (subject.clone(), copy.clone())));
        let subjects = subjects.collect();
        Self { repo, subjects, nonces, copies, history: Vec::new(), stage: ManifestStage::Start }
    }

    /// Removes these copies of any manifests in `repo`, each with what it refers to: the tags of a repository are listed
    /// as often for all of them as for one.
    pub fn several(repo: RepoName, copies: Vec<(Copy, Option<Digest>)>, nonces: Nonces) -> Self {
        let subjects = copies.iter().filter_map(|(copy, subject)| Some((subject.clone()?, copy.clone()))).collect();
        let copies = copies.into_iter().map(|(copy, _)| copy).collect();
        Self { repo, subjects, nonces, copies, history: Vec::new(), stage: ManifestStage::Start }
    }

    fn ends(&self, tags: &[TagItems]) -> Vec<Request> {
        let tops = tags.iter().filter_map(|items| items.standing().first().copied());
        tops.filter(|top| self.copies.contains(&top.named()))
            .map(|top| Request::Write(Object::End(top.end())))
            .collect()
    }

    /// What a collector has to remove again should a request of the past bring it back; and the entries of histories that
    /// are not to keep it then.
    fn removed(&self) -> Vec<Object> {
        let copies = self.copies.iter().cloned().map(Object::Copy);
        let referrers = self.subjects.iter().cloned().map(|(subject, copy)| Object::Referrer { subject, copy });
        copies.chain(referrers).chain(self.history.iter().cloned().map(Object::History)).collect()
    }
}

impl Machine for DeleteManifest {
    type Output = bool;

    fn step(&mut self, mut replies: Replies) -> Next<bool> {
        loop {
            match self.stage {
                ManifestStage::Start if self.copies.is_empty() => return Next::Done(false),
                ManifestStage::Start if mutated(Mutation::CopiesBeforeEnds) => self.stage = ManifestStage::TagsEnded,
                ManifestStage::Start => {
                    self.stage = ManifestStage::TagsListed;
                    return Next::Ask(vec![Request::Tags(self.repo.clone())]);
                }
                ManifestStage::TagsListed => {
                    let ends = self.ends(&replies.tags());
                    self.stage = ManifestStage::TagsEnded;
                    if !ends.is_empty() {
                        return Next::Ask(ends);
                    }
                }
                ManifestStage::TagsEnded => {
                    self.stage = ManifestStage::CopiesRemoved;
                    let copies = self.copies.iter().cloned().map(Object::Copy).collect();
                    return Next::Ask(vec![Request::Remove(copies)]);
                }
                ManifestStage::CopiesRemoved if mutated(Mutation::TagsOnce) => return Next::Done(true),
                ManifestStage::CopiesRemoved => {
                    self.stage = ManifestStage::TagsListedAgain;
                    let repo = &self.repo;
                    return Next::Ask(vec![Request::Tags(repo.clone()), Request::History(repo.clone(), None)]);
                }
                ManifestStage::TagsListedAgain => {
                    let ends = self.ends(&replies.tags());
                    let named = replies.history().into_iter().flatten().map(|item| item.entry);
                    self.history = named.filter(|entry| self.copies.contains(&entry.named())).collect();
                    self.stage = ManifestStage::TagsEndedAgain;
                    if !ends.is_empty() {
                        return Next::Ask(ends);
                    }
                }
                ManifestStage::TagsEndedAgain => {
                    self.stage = ManifestStage::Cleaned;
                    let removed = self.removed();
                    let mut requests = Vec::new();
                    if !self.subjects.is_empty() {
                        let referrers = removed.iter().filter(|o| matches!(o, Object::Referrer { .. }));
                        requests.push(Request::Remove(referrers.cloned().collect()));
                    }
                    // A request of the past may bring one of them back; a collector removes it then.
                    requests.push(Request::Write(Object::DeletedHint(self.nonces.take(), removed)));
                    return Next::Ask(requests);
                }
                ManifestStage::Cleaned => return Next::Done(true),
            }
        }
    }
}

/// Takes a blob from a repository: its links go, its data stays for a collector. Output: whether it was there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DeleteBlob {
    repo: RepoName,
    digest: Digest,
    stage: TagStage,
}

impl DeleteBlob {
    /// Takes `digest` from `repo`.
    pub fn new(repo: RepoName, digest: Digest) -> Self {
        Self { repo, digest, stage: TagStage::Start }
    }
}

impl Machine for DeleteBlob {
    type Output = bool;

    fn step(&mut self, mut replies: Replies) -> Next<bool> {
        match self.stage {
            TagStage::Start => {
                self.stage = TagStage::Listed;
                Next::Ask(vec![Request::Links(self.digest.clone(), Some(self.repo.clone()))])
            }
            TagStage::Listed => {
                let links = replies.links();
                if links.is_empty() {
                    return Next::Done(false);
                }
                self.stage = TagStage::Ended;
                let links = links.into_iter().map(|link| Object::Link(link, self.repo.clone())).collect();
                Next::Ask(vec![Request::Remove(links)])
            }
            TagStage::ClaimsListed(_) | TagStage::Ended => Next::Done(true),
        }
    }
}
