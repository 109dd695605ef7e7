//! Giving a tag a value: reference (history entry), confirm, and only then publish (tag entry).

use super::machine::{Machine, Next, Replies, Request};
use super::object::{Copy, Nonce, Object, TagEntry, TagItems};
use crate::spec::{RepoName, Tag};

/// Sets `tag` to a copy. Output: the older entries, to be removed once the client has its answer; `None` when the copy
/// went meanwhile, and the tag has to be set again to a fresh one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct SetTag {
    repo: RepoName,
    tag: Tag,
    copy: Copy,
    nonce: Nonce,
    stage: SetStage,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum SetStage {
    Start,
    Listed,
    Referenced(TagEntry, TagItems),
    MarksRead(TagEntry, TagItems),
    Confirmed(TagEntry, TagItems),
    Published(TagItems),
    LookedAgain(TagItems),
}

impl SetTag {
    pub(super) fn new(tag: Tag, copy: Copy, nonce: Nonce) -> Self {
        Self { repo: copy.repo.clone(), tag, copy, nonce, stage: SetStage::Start }
    }
}

impl Machine for SetTag {
    type Output = Option<Vec<Object>>;

    fn step(&mut self, mut replies: Replies) -> Next<Self::Output> {
        let has_copy = Request::HasCopy(self.copy.clone());
        let (stage, request) = match std::mem::replace(&mut self.stage, SetStage::Start) {
            SetStage::Start => (SetStage::Listed, Request::Tag(self.repo.clone(), self.tag.clone())),
            SetStage::Listed => {
                let old = replies.tags().pop().unwrap_or_default();
                let entry = TagEntry {
                    order: old.next_order(),
                    nonce: self.nonce.clone(),
                    repo: self.repo.clone(),
                    tag: self.tag.clone(),
                    digest: self.copy.digest.clone(),
                    copy: self.copy.nonce.clone(),
                };
                (SetStage::Referenced(entry.clone(), old), Request::Write(Object::History(entry)))
            }
            SetStage::Referenced(entry, old) => (SetStage::MarksRead(entry, old), Request::Marks { recent: false }),
            SetStage::MarksRead(entry, old) => match replies.marks() {
                Some(marks) if !marks.copies.contains(&self.copy) => (SetStage::Confirmed(entry, old), has_copy),
                _ => return Next::Done(None),
            },
            SetStage::Confirmed(entry, old) => {
                if !replies.there() {
                    return Next::Done(None);
                }
                (SetStage::Published(old), Request::Write(Object::Tag(entry)))
            }
            // A DELETE of the manifest that began before may not have seen the entry.
            SetStage::Published(old) => (SetStage::LookedAgain(old), has_copy),
            SetStage::LookedAgain(old) => {
                let older = replies.there().then(|| old.entries.into_iter().map(Object::Tag).collect());
                return Next::Done(older);
            }
        };
        self.stage = stage;
        Next::Ask(vec![request])
    }
}
