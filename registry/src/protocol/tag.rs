//! Giving a tag a value: reference (history entry), confirm, and only then publish (tag entry).

use super::machine::{Machine, Next, Replies, Request};
use super::mutation::{Mutation, mutated};
use super::object::{Copy, HistoryItem, Nonce, Object, TagEntry, TagItems};
use super::see::See;
use crate::spec::{RepoName, Tag};

/// Sets `tag` to a copy.
///
/// The history entry is also the claim to an immutable tag: whoever sees, after writing it, a claim or value of another
/// digest that may still count, takes its own back. Of two that claim at once at least one sees the other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct SetTag {
    repo: RepoName,
    tag: Tag,
    copy: Copy,
    nonce: Nonce,
    immutable: bool,
    /// Whether the copy has to be confirmed; not so only where a test leaves it out.
    confirms: bool,
    stage: SetStage,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum SetOutcome {
    /// Done. The older entries are to be removed once the client has its answer.
    Set(Vec<Object>),
    /// The copy went meanwhile, or is about to: the tag has to be set again, to a fresh one.
    CopyGone,
    /// The tag is immutable and has another value, or somebody else is giving it one.
    Taken,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum SetStage {
    Start,
    Listed,
    /// The history entry is written.
    Referenced(TagEntry, TagItems),
    Seeing(TagEntry, TagItems, See),
    Confirmed(TagEntry, TagItems),
    RivalsListed(TagEntry, TagItems),
    Publishing(TagEntry, TagItems),
    Published(TagItems),
    LookedAgain(TagItems),
    Voided,
}

impl SetTag {
    pub(super) fn new(tag: Tag, copy: Copy, immutable: bool, nonce: Nonce) -> Self {
        let (repo, confirms) = (copy.repo.clone(), !mutated(Mutation::TagNotConfirmed));
        Self { repo, tag, copy, nonce, immutable, confirms, stage: SetStage::Start }
    }

    /// For a test that leaves the confirmation out.
    pub(super) fn confirming(self, confirms: bool) -> Self {
        Self { confirms: self.confirms && confirms, ..self }
    }

    fn entry(&self, old: &TagItems) -> TagEntry {
        TagEntry {
            order: old.next_order(),
            nonce: self.nonce.clone(),
            repo: self.repo.clone(),
            tag: self.tag.clone(),
            digest: self.copy.digest.clone(),
            copy: self.copy.nonce.clone(),
        }
    }

    fn list_rivals(&self) -> Vec<Request> {
        let (repo, tag) = (self.repo.clone(), self.tag.clone());
        vec![Request::Tag(repo.clone(), tag.clone()), Request::History(repo, Some(tag))]
    }
}

/// Whether an entry or claim of another value may still count: it is not void, not ended, and not below what is published.
fn has_rival(entry: &TagEntry, items: &TagItems, history: &[HistoryItem]) -> bool {
    let end = items.ends.iter().map(|end| (end.order, &end.nonce)).max();
    let published = items.entries.iter().filter(|other| *other != entry).map(|other| other.order);
    let top = published.chain(items.ends.iter().map(|end| end.order)).max().unwrap_or(0);
    let claims = history.iter().filter(|item| !item.void).map(|item| &item.entry);
    items.entries.iter().chain(claims).any(|other| {
        other.digest != entry.digest && end.is_none_or(|end| (other.order, &other.nonce) > end) && other.order >= top
    })
}

impl Machine for SetTag {
    type Output = SetOutcome;

    fn step(&mut self, mut replies: Replies) -> Next<SetOutcome> {
        let has_copy = || Request::HasCopy(self.copy.clone());
        let rivals_first = self.immutable && mutated(Mutation::RivalsBeforeClaim);
        let publish_first = mutated(Mutation::PublishFirst);
        loop {
            let (stage, requests) = match std::mem::replace(&mut self.stage, SetStage::Start) {
                SetStage::Start if rivals_first => (SetStage::Listed, self.list_rivals()),
                SetStage::Start => (SetStage::Listed, vec![Request::Tag(self.repo.clone(), self.tag.clone())]),
                SetStage::Listed => {
                    let old = replies.tags().pop().unwrap_or_default();
                    let history = if rivals_first { replies.history().unwrap_or_default() } else { Vec::new() };
                    let entry = self.entry(&old);
                    if self.immutable && has_rival(&entry, &old, &history) {
                        return Next::Done(SetOutcome::Taken);
                    }
                    let first = if publish_first { Object::Tag(entry.clone()) } else { Object::History(entry.clone()) };
                    (SetStage::Referenced(entry, old), vec![Request::Write(first)])
                }
                SetStage::Referenced(entry, old) => {
                    self.stage = match self.confirms {
                        true => SetStage::Seeing(entry, old, See::copy(self.copy.clone())),
                        false => SetStage::Confirmed(entry, old),
                    };
                    replies = Replies::default();
                    continue;
                }
                SetStage::Seeing(entry, old, mut see) => match see.step(std::mem::take(&mut replies)) {
                    Next::Ask(requests) => (SetStage::Seeing(entry, old, see), requests),
                    Next::Done(false) => return Next::Done(SetOutcome::CopyGone),
                    Next::Done(true) => {
                        self.stage = SetStage::Confirmed(entry, old);
                        continue;
                    }
                },
                SetStage::Confirmed(entry, old) if self.immutable && !rivals_first => {
                    (SetStage::RivalsListed(entry, old), self.list_rivals())
                }
                SetStage::RivalsListed(entry, old) => {
                    let items = replies.tags().pop().unwrap_or_default();
                    let taken = replies.history().is_none_or(|history| has_rival(&entry, &items, &history));
                    if !taken {
                        self.stage = SetStage::Publishing(entry, old);
                        continue;
                    }
                    if mutated(Mutation::ClaimNotVoided) {
                        return Next::Done(SetOutcome::Taken);
                    }
                    (SetStage::Voided, vec![Request::Write(Object::Void(entry))])
                }
                SetStage::Confirmed(_, old) | SetStage::Publishing(_, old) if publish_first => {
                    (SetStage::LookedAgain(old), vec![has_copy()])
                }
                SetStage::Confirmed(entry, old) | SetStage::Publishing(entry, old) => {
                    (SetStage::Published(old), vec![Request::Write(Object::Tag(entry))])
                }
                SetStage::Published(old) if mutated(Mutation::NoLookAfterPublishing) => {
                    return Next::Done(SetOutcome::Set(older(old)));
                }
                // A DELETE of the manifest that began before may not have seen the entry.
                SetStage::Published(old) => (SetStage::LookedAgain(old), vec![has_copy()]),
                SetStage::LookedAgain(old) if replies.there() => return Next::Done(SetOutcome::Set(older(old))),
                SetStage::LookedAgain(_) => return Next::Done(SetOutcome::CopyGone),
                SetStage::Voided => return Next::Done(SetOutcome::Taken),
            };
            self.stage = stage;
            return Next::Ask(requests);
        }
    }
}

fn older(old: TagItems) -> Vec<Object> {
    old.entries.into_iter().map(Object::Tag).collect()
}
