//! Reading: what a repository has, and what a tag names. Asked of the store each time.

use super::machine::{Machine, Marks, Next, Replies, Request};
use super::object::{Copy, DataId, Link, TagEntry};
use crate::spec::{Digest, RepoName, Tag};

/// Whether a repository has a blob that may be relied on: a link whose data is there and not marked. For a client that
/// asks before it uploads.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FindBlob {
    repo: RepoName,
    digest: Digest,
    stage: FindStage,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum FindStage {
    Start,
    Listed,
    MarksRead(Vec<Link>),
    Looking(Vec<Link>),
}

impl FindBlob {
    /// Looks for `digest` in `repo`.
    pub fn new(repo: RepoName, digest: Digest) -> Self {
        Self { repo, digest, stage: FindStage::Start }
    }
}

impl Machine for FindBlob {
    type Output = Option<Link>;

    fn step(&mut self, mut replies: Replies) -> Next<Option<Link>> {
        let mut candidates = match &mut self.stage {
            FindStage::Start => {
                self.stage = FindStage::Listed;
                return Next::Ask(vec![Request::Links(self.digest.clone(), Some(self.repo.clone()))]);
            }
            // Marks matter only where there is something to be marked: most questions are about what is not there yet.
            FindStage::Listed => {
                let links = replies.links();
                if links.is_empty() {
                    return Next::Done(None);
                }
                self.stage = FindStage::MarksRead(links);
                return Next::Ask(vec![Request::Marks { recent: true }]);
            }
            FindStage::MarksRead(links) => unmarked(std::mem::take(links), replies.marks().as_ref()),
            FindStage::Looking(candidates) => {
                let link = candidates.pop();
                if replies.there() {
                    return Next::Done(link);
                }
                std::mem::take(candidates)
            }
        };
        // One at a time, the greatest first: nearly always there is only one.
        candidates.sort();
        let Some(link) = candidates.last() else { return Next::Done(None) };
        let request = Request::HasData(link.data.clone());
        self.stage = FindStage::Looking(candidates);
        Next::Ask(vec![request])
    }
}

/// One link to each data that is not marked.
fn unmarked(links: Vec<Link>, marks: Option<&Marks>) -> Vec<Link> {
    let mut seen: std::collections::BTreeSet<DataId> = std::collections::BTreeSet::new();
    let Some(marks) = marks else { return Vec::new() };
    links.into_iter().filter(|l| !marks.data.contains(&l.data) && seen.insert(l.data.clone())).collect()
}

/// The copies of a manifest, in the order in which to try them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FindCopies {
    repo: RepoName,
    digest: Digest,
    asked: bool,
}

impl FindCopies {
    /// Lists the copies of `digest` in `repo`.
    pub fn new(repo: RepoName, digest: Digest) -> Self {
        Self { repo, digest, asked: false }
    }
}

impl Machine for FindCopies {
    type Output = Vec<Copy>;

    fn step(&mut self, mut replies: Replies) -> Next<Vec<Copy>> {
        if !self.asked {
            self.asked = true;
            return Next::Ask(vec![Request::Copies(self.repo.clone(), self.digest.clone())]);
        }
        Next::Done(replies.copies())
    }
}

/// The entries of a tag that stand, greatest first. The first whose copy is there is the value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FindTag {
    repo: RepoName,
    tag: Tag,
    asked: bool,
}

impl FindTag {
    /// Lists `tag` in `repo`.
    pub fn new(repo: RepoName, tag: Tag) -> Self {
        Self { repo, tag, asked: false }
    }
}

impl Machine for FindTag {
    type Output = Vec<TagEntry>;

    fn step(&mut self, mut replies: Replies) -> Next<Vec<TagEntry>> {
        if !self.asked {
            self.asked = true;
            return Next::Ask(vec![Request::Tag(self.repo.clone(), self.tag.clone())]);
        }
        let items = replies.tags().pop().unwrap_or_default();
        Next::Done(items.standing().into_iter().cloned().collect())
    }
}
