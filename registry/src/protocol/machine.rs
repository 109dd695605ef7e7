//! What an operation may ask of a store, what it hears, and how several go on side by side.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

use super::object::{Copy, DataId, HistoryItem, Link, Named, Nonce, Object, TagItems};
use crate::spec::{Digest, RepoName, Tag, UploadId};

/// One question or order to the store. Each is one request to it, or a few that nothing can come between.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Request {
    /// Everything that collectors have marked. `recent`: an answer of the last 10 seconds will do.
    Marks {
        /// Whether an older answer will do.
        recent: bool,
    },
    /// The links of a blob, of one repository or of all.
    Links(Digest, Option<RepoName>),
    /// Links of a blob that this replica has seen in a repository, however long ago; where it knows of none, those that are
    /// there. For whoever sees afterwards, at the store, that one of them can be relied on.
    KnownLinks(Digest, RepoName),
    /// Whether a blob's data is there.
    HasData(DataId),
    /// Whether a copy is there.
    HasCopy(Copy),
    /// Whether a link is there.
    HasLink(Link),
    /// The copies of a manifest.
    Copies(RepoName, Digest),
    /// The entries and ends of one tag.
    Tag(RepoName, Tag),
    /// The entries and ends of all tags.
    Tags(RepoName),
    /// The history of one tag, or of all.
    History(RepoName, Option<Tag>),
    /// Every copy of a manifest that a repository has, and what it names.
    Contents(RepoName),
    /// The digests that links may know data by.
    DigestsOf(DataId),
    /// Who claimed, or wrote, which state of an upload.
    UploadClaims(UploadId),
    /// Write an object under its own key.
    Write(Object),
    /// Write `to` with the bytes of `from`; the reply says whether `from` was there.
    Duplicate {
        /// Where the bytes are.
        from: Copy,
        /// Where they go.
        to: Copy,
    },
    /// Remove objects that were listed. One that is gone already is no error.
    Remove(Vec<Object>),
}

/// The store's answer to one [`Request`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reply {
    /// To `Write` and `Remove`.
    Done,
    /// To `HasData`, `HasCopy`, `HasLink` and `Duplicate`.
    There(bool),
    /// To `Marks`.
    Marks(Marks),
    /// To `Links`.
    Links(Vec<Link>),
    /// To `Copies`.
    Copies(Vec<Copy>),
    /// To `Tag` (one) and `Tags` (one for each tag).
    Tags(Vec<TagItems>),
    /// To `History`.
    History(Vec<HistoryItem>),
    /// To `Contents`.
    Contents(Vec<(Copy, Arc<Named>)>),
    /// To `DigestsOf`.
    Digests(Vec<Digest>),
    /// To `UploadClaims`: numbers of states, and the nonces.
    UploadClaims(Vec<(u32, Nonce)>),
}

/// What collectors may be about to delete.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Marks {
    /// Marked data.
    pub data: BTreeSet<DataId>,
    /// Marked links.
    pub links: BTreeSet<Link>,
    /// Marked copies.
    pub copies: BTreeSet<Copy>,
}

/// What an operation does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next<T> {
    /// Asks these, in any order, at the same time. Never empty.
    Ask(Vec<Request>),
    /// Is finished.
    Done(T),
}

/// An operation.
pub trait Machine: Clone + Debug + Eq + Hash {
    /// What it comes to.
    type Output;

    /// Goes on with the replies to what was asked last, in the order of the requests; with none at first.
    fn step(&mut self, replies: Replies) -> Next<Self::Output>;
}

/// The replies to one step, taken in the order of its requests.
///
/// A reply of another kind than asked for is a bug of whoever drives the machine; it counts as the answer after which
/// nothing is acknowledged.
#[derive(Debug, Default)]
pub struct Replies(std::collections::VecDeque<Reply>);

impl From<Vec<Reply>> for Replies {
    fn from(replies: Vec<Reply>) -> Self {
        Self(replies.into())
    }
}

impl Replies {
    /// The next `count`, for a machine that runs inside another.
    pub fn split(&mut self, count: usize) -> Self {
        let count = count.min(self.0.len());
        Self(self.0.drain(..count).collect())
    }

    fn next(&mut self) -> Option<Reply> {
        let reply = self.0.pop_front();
        debug_assert!(reply.is_some(), "a reply is missing");
        reply
    }

    pub(super) fn there(&mut self) -> bool {
        matches!(self.next(), Some(Reply::There(true)))
    }

    /// `None` has to be taken as "everything is marked".
    pub(super) fn marks(&mut self) -> Option<Marks> {
        match self.next() {
            Some(Reply::Marks(marks)) => Some(marks),
            _ => None,
        }
    }

    pub(super) fn links(&mut self) -> Vec<Link> {
        match self.next() {
            Some(Reply::Links(links)) => links,
            _ => Vec::new(),
        }
    }

    pub(super) fn copies(&mut self) -> Vec<Copy> {
        match self.next() {
            Some(Reply::Copies(copies)) => copies,
            _ => Vec::new(),
        }
    }

    pub(super) fn tags(&mut self) -> Vec<TagItems> {
        match self.next() {
            Some(Reply::Tags(tags)) => tags,
            _ => Vec::new(),
        }
    }
}

impl Replies {
    // `None` has to be taken as "everything is named".

    pub(super) fn listed_links(&mut self) -> Option<Vec<Link>> {
        match self.next() {
            Some(Reply::Links(links)) => Some(links),
            _ => None,
        }
    }

    pub(super) fn listed_tags(&mut self) -> Option<Vec<TagItems>> {
        match self.next() {
            Some(Reply::Tags(tags)) => Some(tags),
            _ => None,
        }
    }

    pub(super) fn history(&mut self) -> Option<Vec<HistoryItem>> {
        match self.next() {
            Some(Reply::History(items)) => Some(items),
            _ => None,
        }
    }

    pub(super) fn contents(&mut self) -> Option<Vec<(Copy, Arc<Named>)>> {
        match self.next() {
            Some(Reply::Contents(contents)) => Some(contents),
            _ => None,
        }
    }

    pub(super) fn digests(&mut self) -> Option<Vec<Digest>> {
        match self.next() {
            Some(Reply::Digests(digests)) => Some(digests),
            _ => None,
        }
    }

    pub(super) fn upload_claims(&mut self) -> Option<Vec<(u32, Nonce)>> {
        match self.next() {
            Some(Reply::UploadClaims(claims)) => Some(claims),
            _ => None,
        }
    }

    /// `None` has to be taken as "it is there".
    pub(super) fn presence(&mut self) -> Option<bool> {
        match self.next() {
            Some(Reply::There(there)) => Some(there),
            _ => None,
        }
    }
}

/// Several machines side by side: what they ask goes out together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Together<M: Machine>
where
    M::Output: Clone + Debug + Eq + Hash,
{
    running: Vec<(M, usize, Option<M::Output>)>,
}

impl<M: Machine> Together<M>
where
    M::Output: Clone + Debug + Eq + Hash,
{
    pub(super) fn new(machines: impl IntoIterator<Item = M>) -> Self {
        Self { running: machines.into_iter().map(|machine| (machine, 0, None)).collect() }
    }
}

impl<M: Machine> Machine for Together<M>
where
    M::Output: Clone + Debug + Eq + Hash,
{
    type Output = Vec<M::Output>;

    fn step(&mut self, mut replies: Replies) -> Next<Self::Output> {
        let mut requests = Vec::new();
        for (machine, asked, output) in &mut self.running {
            if output.is_some() {
                continue;
            }
            match machine.step(replies.split(*asked)) {
                Next::Ask(more) => {
                    *asked = more.len();
                    requests.extend(more);
                }
                Next::Done(done) => *output = Some(done),
            }
        }
        if requests.is_empty() {
            Next::Done(self.running.drain(..).filter_map(|(_, _, output)| output).collect())
        } else {
            Next::Ask(requests)
        }
    }
}
