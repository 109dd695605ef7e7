//! Manifest PUT: a confirmed copy, the referrer entry, then the tags.

use std::collections::BTreeSet;

use super::confirm::{ConfirmBlobs, ConfirmCopies};
use super::machine::{Machine, Next, Replies, Request, Together};
use super::mutation::{Mutation, mutated};
use super::object::{Copy, Link, Nonces, Object};
use super::see::See;
use super::tag::{SetOutcome, SetTag};
use crate::spec::{Digest, RepoName, Tag};

/// What is put, and where.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PutPlan {
    /// The repository.
    pub repo: RepoName,
    /// The manifest's digest.
    pub digest: Digest,
    /// Blobs that have to be there.
    pub blobs: Vec<Digest>,
    /// Manifests that are confirmed where they are there.
    pub children: Vec<Digest>,
    /// The manifest that it refers to.
    pub subject: Option<Digest>,
    /// Tags that it gets; none for a push by digest alone.
    pub tags: Vec<Tag>,
    /// Whether the repository is known to be in the catalog.
    pub in_catalog: bool,
    /// Whether a copy is written even where one is there: a sparse image's says what was absent.
    pub fresh: bool,
    /// Which of its tags, once set, keep their value.
    pub immutable: BTreeSet<Tag>,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PutOutcome {
    /// Acknowledged. What is returned is to be removed once the client has its answer.
    Stored {
        /// Older entries of the tags.
        superseded: Vec<Object>,
    },
    /// These blobs are not in the repository.
    BlobsUnknown(Vec<Digest>),
    /// These manifests were there and went while it was put.
    ManifestsUnknown(Vec<Digest>),
    /// The tag is immutable and has another value, or somebody else is giving it one.
    Immutable {
        /// Which.
        tag: Tag,
    },
    /// Deletions kept getting in the way, twice.
    Contended,
}

/// The whole operation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PutManifest {
    plan: PutPlan,
    nonces: Nonces,
    known: Vec<(Digest, BTreeSet<Link>)>,
    copy: Option<Copy>,
    wrote: bool,
    attempt: u8,
    /// Tags still to be set.
    tags: Vec<Tag>,
    superseded: Vec<Object>,
    /// An immutable tag that has another value.
    taken: Option<Tag>,
    stage: Stage,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Stage {
    Start,
    Listed,
    Written,
    Confirming(Together<Confirm>),
    Refused(PutOutcome),
    Seeing(See),
    Referred,
    Tagging(Vec<Tag>, Together<SetTag>),
}

/// Blobs and manifests side by side.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Confirm {
    Blobs(ConfirmBlobs),
    Copies(ConfirmCopies),
}

impl Machine for Confirm {
    type Output = Vec<Digest>;

    fn step(&mut self, replies: Replies) -> Next<Vec<Digest>> {
        match self {
            Self::Blobs(blobs) => blobs.step(replies),
            Self::Copies(copies) => copies.step(replies),
        }
    }
}

impl PutManifest {
    /// Puts a manifest whose bytes whoever drives this has at hand.
    pub fn new(plan: PutPlan, nonces: Nonces) -> Self {
        Self {
            tags: plan.tags.clone(),
            plan,
            nonces,
            known: Vec::new(),
            copy: None,
            wrote: false,
            attempt: 0,
            superseded: Vec::new(),
            taken: None,
            stage: Stage::Start,
        }
    }

    /// Whether an existing copy will do. A push by digest alone always writes one: its age is its own.
    fn takes_copy(&self) -> bool {
        !self.tags.is_empty() && !self.plan.fresh || mutated(Mutation::DigestTakesCopy)
    }

    /// Takes an existing copy, or writes one.
    fn settle_copy(&mut self, existing: Option<Copy>) -> Next<PutOutcome> {
        self.attempt += 1;
        let mut requests = Vec::new();
        self.wrote = existing.is_none();
        let (repo, digest) = (self.plan.repo.clone(), self.plan.digest.clone());
        let copy = existing.unwrap_or_else(|| Copy { repo, digest, nonce: self.nonces.take() });
        if self.wrote {
            requests.push(Request::Write(Object::Copy(copy.clone())));
        }
        if !self.plan.in_catalog {
            requests.push(Request::Write(Object::Catalog(self.plan.repo.clone())));
            self.plan.in_catalog = true;
        }
        self.copy = Some(copy);
        self.stage = Stage::Written;
        if requests.is_empty() { self.step(Replies::default()) } else { Next::Ask(requests) }
    }

    fn confirm(&mut self) -> Next<PutOutcome> {
        let children = self.plan.children.iter().chain(&self.plan.subject);
        let copies = ConfirmCopies::new(self.plan.repo.clone(), children.cloned().collect(), self.nonces.split());
        let blobs = ConfirmBlobs::new(self.plan.repo.clone(), self.known.clone(), self.nonces.split());
        let mut both = Together::new([Confirm::Blobs(blobs), Confirm::Copies(copies)]);
        let next = both.step(Replies::default());
        self.stage = Stage::Confirming(both);
        self.after_confirming(next)
    }

    fn after_confirming(&mut self, next: Next<Vec<Vec<Digest>>>) -> Next<PutOutcome> {
        let missing = match next {
            Next::Ask(requests) => return Next::Ask(requests),
            Next::Done(missing) => missing,
        };
        let mut missing = missing.into_iter();
        let blobs = missing.next().unwrap_or_default();
        let manifests = missing.next().unwrap_or_default();
        if !blobs.is_empty() {
            return self.refuse(PutOutcome::BlobsUnknown(blobs));
        }
        if !manifests.is_empty() {
            return self.refuse(PutOutcome::ManifestsUnknown(manifests));
        }
        // A tag's own look at the copy comes later, and after its own reference: it will do for both.
        let Some(copy) = self.copy.clone().filter(|_| self.tags.is_empty() && !mutated(Mutation::CopyNotConfirmed))
        else {
            return self.refer();
        };
        let mut see = See::copy(copy);
        let next = see.step(Replies::default());
        self.stage = Stage::Seeing(see);
        self.after_seeing(next)
    }

    fn after_seeing(&mut self, next: Next<bool>) -> Next<PutOutcome> {
        match next {
            Next::Ask(requests) => Next::Ask(requests),
            Next::Done(true) => self.refer(),
            Next::Done(false) => self.again(),
        }
    }

    /// Answers no. The copy that was written stays as garbage that a collector hears of.
    fn refuse(&mut self, outcome: PutOutcome) -> Next<PutOutcome> {
        let Some(copy) = self.copy.clone().filter(|_| self.wrote) else { return Next::Done(outcome) };
        self.stage = Stage::Refused(outcome);
        Next::Ask(vec![Request::Write(Object::Hint(self.nonces.take(), vec![Object::Copy(copy)]))])
    }

    /// The copy went, or is about to: once more with a fresh one.
    fn again(&mut self) -> Next<PutOutcome> {
        if self.attempt < 2 { self.settle_copy(None) } else { self.refuse(PutOutcome::Contended) }
    }

    fn refer(&mut self) -> Next<PutOutcome> {
        self.stage = Stage::Referred;
        match (self.plan.subject.clone(), self.copy.clone()) {
            (Some(subject), Some(copy)) => Next::Ask(vec![Request::Write(Object::Referrer { subject, copy })]),
            _ => self.step(Replies::default()),
        }
    }

    fn set_tags(&mut self) -> Next<PutOutcome> {
        let Some(copy) = self.copy.clone() else { return Next::Done(PutOutcome::Contended) };
        let tags = std::mem::take(&mut self.tags);
        let machines: Vec<_> = tags
            .iter()
            .map(|tag| SetTag::new(tag.clone(), copy.clone(), self.plan.immutable.contains(tag), self.nonces.take()))
            .collect();
        let mut setting = Together::new(machines);
        let next = setting.step(Replies::default());
        self.stage = Stage::Tagging(tags, setting);
        self.after_tagging(next)
    }

    fn after_tagging(&mut self, next: Next<Vec<SetOutcome>>) -> Next<PutOutcome> {
        let results = match next {
            Next::Ask(requests) => return Next::Ask(requests),
            Next::Done(results) => results,
        };
        if let Stage::Tagging(tags, _) = &mut self.stage {
            for (tag, result) in std::mem::take(tags).into_iter().zip(results) {
                match result {
                    SetOutcome::Set(superseded) => self.superseded.extend(superseded),
                    SetOutcome::CopyGone => self.tags.push(tag),
                    SetOutcome::Taken => self.taken = Some(tag),
                }
            }
        }
        if let Some(tag) = self.taken.take() {
            return self.refuse(PutOutcome::Immutable { tag });
        }
        if self.tags.is_empty() {
            return Next::Done(PutOutcome::Stored { superseded: std::mem::take(&mut self.superseded) });
        }
        self.again()
    }
}

impl Machine for PutManifest {
    type Output = PutOutcome;

    fn step(&mut self, mut replies: Replies) -> Next<PutOutcome> {
        match &mut self.stage {
            Stage::Start => {
                let repo = &self.plan.repo;
                let links = self.plan.blobs.iter().map(|blob| Request::KnownLinks(blob.clone(), repo.clone()));
                let mut requests: Vec<_> = links.collect();
                if self.takes_copy() {
                    requests.push(Request::Copies(repo.clone(), self.plan.digest.clone()));
                }
                self.stage = Stage::Listed;
                if requests.is_empty() { self.step(Replies::default()) } else { Next::Ask(requests) }
            }
            Stage::Listed => {
                let blobs = self.plan.blobs.iter();
                self.known = blobs.map(|b| (b.clone(), replies.links().into_iter().collect())).collect();
                let unknown = self.known.iter().filter(|(_, links)| links.is_empty());
                let unknown: Vec<_> = unknown.map(|(digest, _)| digest.clone()).collect();
                if !unknown.is_empty() {
                    return Next::Done(PutOutcome::BlobsUnknown(unknown));
                }
                let existing = if self.takes_copy() { replies.copies().into_iter().max() } else { None };
                self.settle_copy(existing)
            }
            Stage::Written => self.confirm(),
            Stage::Confirming(both) => {
                let next = both.step(replies);
                self.after_confirming(next)
            }
            Stage::Refused(outcome) => Next::Done(outcome.clone()),
            Stage::Seeing(see) => {
                let next = see.step(replies);
                self.after_seeing(next)
            }
            Stage::Referred if self.plan.tags.is_empty() => Next::Done(PutOutcome::Stored { superseded: Vec::new() }),
            Stage::Referred => self.set_tags(),
            Stage::Tagging(_, setting) => {
                let next = setting.step(replies);
                self.after_tagging(next)
            }
        }
    }
}
