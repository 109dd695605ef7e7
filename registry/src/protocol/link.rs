//! Giving a repository a blob: the end of an upload, and a mount. Write the link, then confirm its data.

use super::machine::{Machine, Next, Replies, Request};
use super::mutation::{Mutation, mutated};
use super::object::{DataId, Link, Nonces, Object, RepoHash};
use super::see::See;
use crate::spec::{Digest, RepoName};

/// Writes a link, and before it the entry in the repository's own index, so that every link that can be seen has one;
/// then sees its data. `None`: not confirmed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LinkTo {
    repo: RepoName,
    link: Link,
    nonces: Nonces,
    stage: LinkStage,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum LinkStage {
    Start,
    Noted,
    Written,
    Seeing(See),
}

impl LinkTo {
    /// Gives `repo` the blob `digest`, whose bytes are in `data`.
    pub fn new(repo: &RepoName, digest: &Digest, data: DataId, size_bytes: u64, nonces: &mut Nonces) -> Self {
        let link = Link { digest: digest.clone(), repo: RepoHash::of(repo), data, size_bytes, nonce: nonces.take() };
        Self { repo: repo.clone(), link, nonces: nonces.split(), stage: LinkStage::Start }
    }
}

impl Machine for LinkTo {
    type Output = Option<Link>;

    fn step(&mut self, replies: Replies) -> Next<Option<Link>> {
        let next = match &mut self.stage {
            LinkStage::Start => {
                self.stage = LinkStage::Noted;
                let index = Object::BlobIndex(self.repo.clone(), self.link.digest.clone(), self.nonces.take());
                return Next::Ask(vec![Request::Write(index)]);
            }
            LinkStage::Noted => {
                self.stage = LinkStage::Written;
                return Next::Ask(vec![Request::Write(Object::Link(self.link.clone(), self.repo.clone()))]);
            }
            LinkStage::Written => {
                let mut see = See::data(self.link.data.clone());
                let next = see.step(Replies::default());
                self.stage = LinkStage::Seeing(see);
                next
            }
            LinkStage::Seeing(see) => see.step(replies),
        };
        match next {
            Next::Ask(requests) => Next::Ask(requests),
            Next::Done(there) => Next::Done(there.then(|| self.link.clone())),
        }
    }
}

/// The end of an upload: its data is stored, its digest known. Output: the link; `None` when the upload's own data is
/// about to be collected (the client has to send it again).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FinishUpload {
    repo: RepoName,
    digest: Digest,
    own: DataId,
    size_bytes: u64,
    nonces: Nonces,
    stage: FinishStage,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum FinishStage {
    Start,
    Listed,
    MarksRead(Vec<Link>),
    Sharing(LinkTo),
    Hinted(Link),
    Named(LinkTo),
    Own(LinkTo),
}

impl FinishUpload {
    /// Gives `repo` the blob `digest`, whose bytes are in `own` unless the store has them already.
    pub fn new(repo: RepoName, digest: Digest, own: DataId, size_bytes: u64, nonces: Nonces) -> Self {
        Self { repo, digest, own, size_bytes, nonces, stage: FinishStage::Start }
    }

    /// Links the upload's own data. Data that does not tell its digest gets told before a link can name it.
    fn link_own(&mut self) -> Next<Option<Link>> {
        let mut link = LinkTo::new(&self.repo, &self.digest, self.own.clone(), self.size_bytes, &mut self.nonces);
        match &self.own {
            DataId::Known(digest, _) if *digest == self.digest => {
                let next = link.step(Replies::default());
                self.stage = FinishStage::Own(link);
                next
            }
            _ => {
                self.stage = FinishStage::Named(link);
                Next::Ask(vec![Request::Write(Object::DataOf(self.own.clone(), self.digest.clone()))])
            }
        }
    }
}

impl Machine for FinishUpload {
    type Output = Option<Link>;

    fn step(&mut self, mut replies: Replies) -> Next<Option<Link>> {
        match &mut self.stage {
            FinishStage::Start => {
                self.stage = FinishStage::Listed;
                Next::Ask(vec![Request::Links(self.digest.clone(), None)])
            }
            FinishStage::Listed => {
                // Adopted data is the old registry's as well, which may delete it.
                let mut listed = replies.links();
                listed.retain(|link| {
                    link.data != self.own
                        && link.size_bytes == self.size_bytes
                        && !matches!(link.data, DataId::Adopted(_))
                });
                if listed.is_empty() {
                    return self.link_own();
                }
                self.stage = FinishStage::MarksRead(listed);
                Next::Ask(vec![Request::Marks { recent: true }])
            }
            FinishStage::MarksRead(listed) => {
                // The greatest, so that many uploads of one blob settle on one data object.
                let marks = replies.marks();
                let free = |link: &Link| {
                    mutated(Mutation::LinkMarkedData)
                        || marks.as_ref().is_some_and(|m| !m.data.contains(&link.data) && !m.links.contains(link))
                };
                let Some(shared) = listed.iter().filter(|link| free(link)).max().map(|link| link.data.clone()) else {
                    return self.link_own();
                };
                let mut link = LinkTo::new(&self.repo, &self.digest, shared, self.size_bytes, &mut self.nonces);
                let next = link.step(Replies::default());
                self.stage = FinishStage::Sharing(link);
                next
            }
            FinishStage::Sharing(link) => match link.step(replies) {
                Next::Ask(requests) => Next::Ask(requests),
                Next::Done(None) => self.link_own(),
                Next::Done(Some(link)) => {
                    self.stage = FinishStage::Hinted(link);
                    let unused = vec![Object::Data(self.own.clone())];
                    Next::Ask(vec![Request::Write(Object::Hint(self.nonces.take(), unused))])
                }
            },
            FinishStage::Hinted(link) => Next::Done(Some(link.clone())),
            FinishStage::Named(link) => {
                let mut link = link.clone();
                let next = link.step(Replies::default());
                self.stage = FinishStage::Own(link);
                next
            }
            FinishStage::Own(link) => link.step(replies),
        }
    }
}

/// A blob of one repository for another, without its bytes. Output: the link; `None` when there is none to take, or it
/// is about to be collected (the client uploads instead).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Mount {
    from: RepoName,
    repo: RepoName,
    digest: Digest,
    nonces: Nonces,
    stage: MountStage,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum MountStage {
    Start,
    Listed,
    MarksRead(Vec<Link>),
    Linking(Box<LinkTo>),
}

impl Mount {
    /// Gives `repo` the blob `digest` of `from`.
    pub fn new(from: RepoName, repo: RepoName, digest: Digest, nonces: Nonces) -> Self {
        Self { from, repo, digest, nonces, stage: MountStage::Start }
    }
}

impl Machine for Mount {
    type Output = Option<Link>;

    fn step(&mut self, mut replies: Replies) -> Next<Option<Link>> {
        match &mut self.stage {
            MountStage::Start => {
                self.stage = MountStage::Listed;
                Next::Ask(vec![Request::Links(self.digest.clone(), Some(self.from.clone()))])
            }
            MountStage::Listed => {
                let links = replies.links();
                if links.is_empty() {
                    return Next::Done(None);
                }
                self.stage = MountStage::MarksRead(links);
                Next::Ask(vec![Request::Marks { recent: true }])
            }
            MountStage::MarksRead(links) => {
                let (links, marks) = (std::mem::take(links).into_iter(), replies.marks());
                let free = |link: &Link| marks.as_ref().is_some_and(|marks| !marks.data.contains(&link.data));
                let Some(source) = links.filter(free).max() else { return Next::Done(None) };
                let mut link = LinkTo::new(&self.repo, &self.digest, source.data, source.size_bytes, &mut self.nonces);
                let next = link.step(Replies::default());
                self.stage = MountStage::Linking(Box::new(link));
                next
            }
            MountStage::Linking(link) => link.step(replies),
        }
    }
}
