//! Confirming what a manifest names, once a copy of it is written: marks first, then that it is there.

use std::collections::BTreeSet;

use super::machine::{Machine, Marks, Next, Replies, Request};
use super::mutation::{Mutation, mutated};
use super::object::{Copy, DataId, Link, Nonces, Object, RepoHash};
use crate::spec::{Digest, RepoName};

/// How often the links are looked at again before a blob counts as gone.
const ROUNDS: u8 = 3;

/// Confirms blobs. Output: the ones that are not there (any more).
///
/// What is relied on is a link that was known *before* the marks were read: one that appeared in between may name data
/// whose collection the marks did not show yet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct ConfirmBlobs {
    repo: RepoName,
    blobs: Vec<Blob>,
    nonces: Nonces,
    round: u8,
    marks: Option<Marks>,
    stage: BlobsStage,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Blob {
    digest: Digest,
    known: BTreeSet<Link>,
    verdict: Option<bool>,
    /// Data to look for in this round.
    looked_for: Vec<DataId>,
    /// A link that is marked while its data is not: a fresh one may name that data.
    spare: Option<Link>,
    new: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum BlobsStage {
    Start,
    MarksRead,
    LinksListed,
    DataLookedAt,
}

impl ConfirmBlobs {
    pub(super) fn new(repo: RepoName, known: Vec<(Digest, BTreeSet<Link>)>, nonces: Nonces) -> Self {
        let blob =
            |(digest, known)| Blob { digest, known, verdict: None, looked_for: Vec::new(), spare: None, new: false };
        let blobs = known.into_iter().map(blob).collect();
        Self { repo, blobs, nonces, round: 0, marks: None, stage: BlobsStage::Start }
    }

    fn open(&mut self) -> impl Iterator<Item = &mut Blob> {
        self.blobs.iter_mut().filter(|blob| blob.verdict.is_none())
    }

    /// What each blob's listing says, given the marks.
    fn weigh(&mut self, mut replies: Replies) -> Vec<Request> {
        let marks = self.marks.take();
        let mut requests = Vec::new();
        for blob in self.open() {
            let listed: BTreeSet<Link> = replies.links().into_iter().collect();
            blob.new = !listed.is_subset(&blob.known);
            let use_new = mutated(Mutation::RelyOnNewLink);
            let usable: Vec<&Link> = listed
                .iter()
                .filter(|link| use_new || blob.known.contains(*link))
                .filter(|link| marks.as_ref().is_some_and(|marks| !marks.data.contains(&link.data)))
                .collect();
            let good = usable.iter().filter(|link| marks.as_ref().is_some_and(|m| !m.links.contains(**link)));
            let data: BTreeSet<&DataId> = good.map(|link| &link.data).collect();
            blob.spare = usable.iter().find(|link| !data.contains(&link.data)).map(|link| (*link).clone());
            blob.looked_for = data.into_iter().cloned().collect();
            requests.extend(blob.looked_for.iter().cloned().map(Request::HasData));
            blob.known.extend(listed);
        }
        requests
    }

    /// Verdicts of a round; fresh links where all whose data is there, or may be, are marked.
    fn decide(&mut self, mut replies: Replies) -> Vec<Request> {
        let (repo, mut nonces) = (self.repo.clone(), self.nonces.clone());
        let mut requests = Vec::new();
        for blob in self.open() {
            let looked_for = std::mem::take(&mut blob.looked_for);
            let found = looked_for.iter().map(|_| replies.there()).fold(false, |any, there| any | there);
            if found {
                blob.verdict = Some(true);
            } else if blob.new {
                // Read the marks again, now that these links are known.
            } else if let Some(spare) = blob.spare.take() {
                let fresh = Link { nonce: nonces.take(), repo: RepoHash::of(&repo), ..spare };
                requests.push(Request::Write(Object::Link(fresh.clone(), repo.clone())));
                requests.push(Request::Write(Object::BlobIndex(repo.clone(), blob.digest.clone(), nonces.take())));
                blob.known.insert(fresh);
            } else {
                blob.verdict = Some(false);
            }
        }
        self.nonces = nonces;
        requests
    }

    fn missing(&self) -> Vec<Digest> {
        self.blobs.iter().filter(|b| b.verdict != Some(true)).map(|b| b.digest.clone()).collect()
    }
}

impl Machine for ConfirmBlobs {
    type Output = Vec<Digest>;

    fn step(&mut self, mut replies: Replies) -> Next<Vec<Digest>> {
        loop {
            match self.stage {
                BlobsStage::Start if mutated(Mutation::BlobsNotSeen) => return Next::Done(Vec::new()),
                BlobsStage::Start => {
                    self.round += 1;
                    if self.round > ROUNDS || self.open().next().is_none() {
                        return Next::Done(self.missing());
                    }
                    self.stage = BlobsStage::MarksRead;
                    return Next::Ask(vec![Request::Marks { recent: false }]);
                }
                BlobsStage::MarksRead => {
                    self.marks = replies.marks();
                    self.stage = BlobsStage::LinksListed;
                    let repo = self.repo.clone();
                    let requests =
                        self.open().map(|blob| Request::Links(blob.digest.clone(), Some(repo.clone()))).collect();
                    return Next::Ask(requests);
                }
                BlobsStage::LinksListed => {
                    let requests = self.weigh(std::mem::take(&mut replies));
                    self.stage = BlobsStage::DataLookedAt;
                    if !requests.is_empty() {
                        return Next::Ask(requests);
                    }
                }
                BlobsStage::DataLookedAt => {
                    let requests = self.decide(std::mem::take(&mut replies));
                    self.stage = BlobsStage::Start;
                    if !requests.is_empty() {
                        return Next::Ask(requests);
                    }
                }
            }
        }
    }
}

/// Confirms manifests that are there: the children of an index, and a subject. Ones that are not there are nobody's
/// promise (an index may come before its children). Output: the ones that were there and went meanwhile.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct ConfirmCopies {
    repo: RepoName,
    digests: Vec<Digest>,
    nonces: Nonces,
    marks: Option<Marks>,
    replaced: Vec<Digest>,
    gone: Vec<Digest>,
    stage: CopiesStage,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum CopiesStage {
    Start,
    Listed,
    MarksRead,
    ListedAgain,
    Replaced,
}

impl ConfirmCopies {
    pub(super) fn new(repo: RepoName, digests: Vec<Digest>, nonces: Nonces) -> Self {
        let (replaced, gone) = (Vec::new(), Vec::new());
        Self { repo, digests, nonces, marks: None, replaced, gone, stage: CopiesStage::Start }
    }

    fn listings(&self) -> Vec<Request> {
        self.digests.iter().map(|digest| Request::Copies(self.repo.clone(), digest.clone())).collect()
    }
}

impl Machine for ConfirmCopies {
    type Output = Vec<Digest>;

    fn step(&mut self, mut replies: Replies) -> Next<Vec<Digest>> {
        match self.stage {
            CopiesStage::Start => {
                if self.digests.is_empty() {
                    return Next::Done(Vec::new());
                }
                self.stage = CopiesStage::Listed;
                Next::Ask(self.listings())
            }
            CopiesStage::Listed => {
                self.digests.retain(|_| !replies.copies().is_empty());
                if self.digests.is_empty() || mutated(Mutation::ChildrenNotConfirmed) {
                    return Next::Done(Vec::new());
                }
                self.stage = CopiesStage::MarksRead;
                Next::Ask(vec![Request::Marks { recent: false }])
            }
            CopiesStage::MarksRead => {
                self.marks = replies.marks();
                self.stage = CopiesStage::ListedAgain;
                Next::Ask(self.listings())
            }
            CopiesStage::ListedAgain => {
                let mut requests = Vec::new();
                for digest in std::mem::take(&mut self.digests) {
                    let copies = replies.copies();
                    let marked = |copy: &Copy| self.marks.as_ref().is_none_or(|marks| marks.copies.contains(copy));
                    match copies.first() {
                        None => self.gone.push(digest),
                        Some(first) if copies.iter().all(marked) => {
                            let to = Copy { nonce: self.nonces.take(), ..first.clone() };
                            requests.push(Request::Duplicate { from: first.clone(), to });
                            self.replaced.push(digest);
                        }
                        Some(_) => {}
                    }
                }
                self.stage = CopiesStage::Replaced;
                if requests.is_empty() { Next::Done(std::mem::take(&mut self.gone)) } else { Next::Ask(requests) }
            }
            CopiesStage::Replaced => {
                for digest in std::mem::take(&mut self.replaced) {
                    if !replies.there() {
                        self.gone.push(digest);
                    }
                }
                Next::Done(std::mem::take(&mut self.gone))
            }
        }
    }
}
