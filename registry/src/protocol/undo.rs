//! Undo: a tag gets a value again that it had, by a new entry that names the copy of then.
//!
//! Confirmed like any push, but no copy is ever written: what a user deleted does not come back by this way.

use std::collections::BTreeSet;

use super::confirm::{ConfirmBlobs, ConfirmCopies};
use super::machine::{Machine, Next, Replies, Request, Together};
use super::manifest::Confirm;
use super::mutation::{Mutation, mutated};
use super::object::{Link, Named, Nonces, Object, TagEntry};
use super::tag::{SetOutcome, SetTag};
use crate::spec::{Digest, RepoName, Tag};

/// Gives `tag` the value of an entry of a history.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Undo {
    repo: RepoName,
    tag: Tag,
    entry: TagEntry,
    named: Named,
    nonces: Nonces,
    stage: Stage,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum UndoOutcome {
    /// The tag has the value again.
    Done {
        /// Older entries of the tag, to be removed once the user has the answer.
        superseded: Vec<Object>,
    },
    /// The copy was deleted or collected, or is about to be.
    CopyGone,
    /// The copy is there, but these blobs and manifests that it names are not.
    Broken(Vec<Digest>),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Stage {
    Start,
    Listed,
    Confirming(Together<Confirm>),
    Setting(Box<SetTag>),
}

impl Undo {
    /// Gives `tag` of `repo` the copy that `entry` names; `named` is what that copy names.
    pub fn new(repo: RepoName, tag: Tag, entry: TagEntry, named: Named, nonces: Nonces) -> Self {
        Self { repo, tag, entry, named, nonces, stage: Stage::Start }
    }

    fn needed(&self) -> impl Iterator<Item = &Digest> {
        self.named.blobs.difference(&self.named.absent)
    }

    fn after_confirming(&mut self, next: Next<Vec<Vec<Digest>>>) -> Next<UndoOutcome> {
        let missing: Vec<Digest> = match next {
            Next::Ask(requests) => return Next::Ask(requests),
            Next::Done(missing) => missing.into_iter().flatten().collect(),
        };
        if !missing.is_empty() {
            return Next::Done(UndoOutcome::Broken(missing));
        }
        // Whoever may undo may do so to an immutable tag as well: it is how a wrong value leaves it.
        let set = SetTag::new(self.tag.clone(), self.entry.named(), false, self.nonces.take());
        let mut set = set.confirming(!mutated(Mutation::UndoNotConfirmed));
        let next = set.step(Replies::default());
        self.stage = Stage::Setting(Box::new(set));
        Self::after_setting(next)
    }

    fn after_setting(next: Next<SetOutcome>) -> Next<UndoOutcome> {
        match next {
            Next::Ask(requests) => Next::Ask(requests),
            Next::Done(SetOutcome::Set(superseded)) => Next::Done(UndoOutcome::Done { superseded }),
            Next::Done(SetOutcome::CopyGone | SetOutcome::Taken) => Next::Done(UndoOutcome::CopyGone),
        }
    }
}

impl Machine for Undo {
    type Output = UndoOutcome;

    fn step(&mut self, mut replies: Replies) -> Next<UndoOutcome> {
        match &mut self.stage {
            Stage::Start => {
                let links = self.needed().map(|blob| Request::Links(blob.clone(), Some(self.repo.clone())));
                let requests: Vec<_> = links.collect();
                self.stage = Stage::Listed;
                if requests.is_empty() { self.step(Replies::default()) } else { Next::Ask(requests) }
            }
            Stage::Listed => {
                let known: Vec<(Digest, BTreeSet<Link>)> =
                    self.needed().map(|blob| (blob.clone(), replies.links().into_iter().collect())).collect();
                let children = self.named.children.iter().chain(&self.named.subject).cloned().collect();
                let blobs = ConfirmBlobs::new(self.repo.clone(), known, self.nonces.split());
                let copies = ConfirmCopies::new(self.repo.clone(), children, self.nonces.split());
                let mut both = Together::new([Confirm::Blobs(blobs), Confirm::Copies(copies)]);
                let next = both.step(Replies::default());
                self.stage = Stage::Confirming(both);
                self.after_confirming(next)
            }
            Stage::Confirming(both) => {
                let next = both.step(replies);
                self.after_confirming(next)
            }
            Stage::Setting(set) => Self::after_setting(set.step(replies)),
        }
    }
}
