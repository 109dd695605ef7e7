//! One run of a collector over what it suspects to be unused: mark it, look again, delete what is unused, remove the mark.
//!
//! Why nothing that is relied on goes: a reference that the look misses is written after it, so after the mark. Its
//! writer reads the marks afterwards: it sees the mark, or the mark is gone, which happens only after the deletion, and
//! then the check that follows finds its target gone. A run that dies leaves its mark; it is never undone by others, and
//! goes when none of its targets exists any more ([`RemoveMark`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::machine::{Machine, Marks, Next, Replies, Request};
use super::mutation::{Mutation, mutated};
use super::object::{Copy, DataId, HistoryItem, Link, Named, Nonce, Object, TagEntry, TagItems};
use crate::spec::{Digest, RepoName};

/// What a run is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CollectPlan {
    /// Names the run's mark.
    pub run: Nonce,
    /// Data, links and copies that may be unused. Anything else is kept.
    pub targets: Vec<Object>,
    /// Copies that may go although they are whole: retention allows it, or a user deleted them.
    pub expired: BTreeSet<Copy>,
    /// Entries of histories that a DELETE of their manifest found: they refer to nothing, even when a late request brings
    /// the copy that they name back.
    pub disregarded: BTreeSet<TagEntry>,
}

/// What came of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Collected {
    /// What went: targets that were there, or may have been.
    pub removed: Vec<Object>,
    /// Targets that stay, and what keeps each.
    pub kept: Vec<(Object, Keeper)>,
}

/// What keeps a target.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Keeper {
    /// Data: a link to it.
    Link(Link),
    /// A link: a copy that names its blob. A copy: an index that lists it.
    Copy(Copy),
    /// A copy: the manifest that it refers to is there.
    Subject(Copy),
    /// A copy: a tag's entry names its digest.
    Tag(TagEntry),
    /// A copy: an entry of a tag's history names its digest.
    History(TagEntry),
    /// A copy: nothing names it, but it is whole, and nothing acknowledged expires by itself.
    Whole,
    /// Not the business of collectors, or nothing is known about it.
    Unclear,
}

/// The run.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Collect {
    plan: CollectPlan,
    looks: Vec<Look>,
    done: Collected,
    stage: Stage,
}

/// What is still open about a target.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Look {
    Data(DataId, Vec<Digest>),
    /// A copy that nothing names: it stays when it is whole. For each blob that it needs, where its data may be.
    Copy(Copy, Arc<Named>, Vec<(Digest, BTreeSet<DataId>)>),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Stage {
    Start,
    Marked,
    NamesSeen(Vec<Request>),
    LinksSeen(Vec<Request>),
    DataSeen(Vec<DataId>),
    Decided,
    Deleted,
    Unmarked,
}

/// What one repository refers to.
#[derive(Default)]
struct Repo {
    contents: Option<Vec<(Copy, Arc<Named>)>>,
    tags: Option<Vec<TagItems>>,
    history: Option<Vec<HistoryItem>>,
}

impl Collect {
    /// A run over these targets.
    pub fn new(plan: CollectPlan) -> Self {
        Self { plan, looks: Vec::new(), done: Collected::default(), stage: Stage::Start }
    }

    fn mark(&self) -> Request {
        Request::Write(Object::Mark(self.plan.run.clone(), self.plan.targets.clone()))
    }

    fn delete(&self) -> Vec<Request> {
        let removed = &self.done.removed;
        if removed.is_empty() { Vec::new() } else { vec![Request::Remove(removed.clone())] }
    }

    fn unmark(&self) -> Vec<Request> {
        vec![Request::Remove(vec![Object::Mark(self.plan.run.clone(), self.plan.targets.clone())])]
    }

    /// The requests that say what is named: by repositories, and which digests data has.
    fn names(&self) -> Vec<Request> {
        let mut requests = Vec::new();
        let (mut with_copies, mut repos) = (BTreeSet::new(), BTreeSet::new());
        for target in &self.plan.targets {
            match target {
                Object::Data(id) => requests.push(Request::DigestsOf(id.clone())),
                Object::Link(_, repo) => _ = repos.insert(repo),
                Object::Copy(copy) => {
                    repos.insert(&copy.repo);
                    with_copies.insert(&copy.repo);
                }
                _ => {}
            }
        }
        for repo in with_copies {
            requests.push(Request::Tags(repo.clone()));
            requests.push(Request::History(repo.clone(), None));
        }
        requests.extend(repos.into_iter().cloned().map(Request::Contents));
        requests
    }

    /// Decides what names decide; the rest becomes `looks`.
    fn weigh_names(&mut self, asked: Vec<Request>, mut replies: Replies) {
        let mut repos: BTreeMap<RepoName, Repo> = BTreeMap::new();
        let mut digests: BTreeMap<DataId, Option<Vec<Digest>>> = BTreeMap::new();
        for request in asked {
            match request {
                Request::DigestsOf(id) => _ = digests.insert(id, replies.digests()),
                Request::Tags(repo) => repos.entry(repo).or_default().tags = replies.listed_tags(),
                Request::History(repo, _) => repos.entry(repo).or_default().history = replies.history(),
                Request::Contents(repo) => repos.entry(repo).or_default().contents = replies.contents(),
                _ => {}
            }
        }
        for target in self.plan.targets.clone() {
            let verdict = match &target {
                Object::Data(id) => match digests.get(id).cloned().flatten() {
                    Some(digests) => Verdict::Look(Look::Data(id.clone(), digests)),
                    None => Verdict::Kept(Keeper::Unclear),
                },
                Object::Link(link, repo) => repos.get(repo).map_or(Verdict::Kept(Keeper::Unclear), |r| r.link(link)),
                Object::Copy(copy) => {
                    repos.get(&copy.repo).map_or(Verdict::Kept(Keeper::Unclear), |r| r.copy(copy, &self.plan))
                }
                _ => Verdict::Kept(Keeper::Unclear),
            };
            match verdict {
                Verdict::Kept(keeper) => self.done.kept.push((target, keeper)),
                Verdict::Unused(with) => {
                    self.done.removed.push(target);
                    self.done.removed.extend(with);
                }
                Verdict::Look(look) => self.looks.push(look),
                Verdict::Gone => {}
            }
        }
    }

    /// The links that say whether data is used, and whether a copy is whole.
    fn links(&self) -> Vec<Request> {
        let mut requests = Vec::new();
        for look in &self.looks {
            match look {
                Look::Data(_, digests) => requests.extend(digests.iter().cloned().map(|d| Request::Links(d, None))),
                Look::Copy(copy, named, _) => {
                    let needed = named.blobs.difference(&named.absent).cloned();
                    requests.extend(needed.map(|blob| Request::Links(blob, Some(copy.repo.clone()))));
                }
            }
        }
        requests
    }

    fn weigh_links(&mut self, asked: Vec<Request>, mut replies: Replies) -> Vec<DataId> {
        let mut asked = asked.into_iter();
        let mut data = BTreeSet::new();
        for look in std::mem::take(&mut self.looks) {
            match look {
                Look::Data(id, digests) => {
                    let listed: Vec<_> = asked.by_ref().take(digests.len()).map(|_| replies.listed_links()).collect();
                    let target = Object::Data(id.clone());
                    let link = listed.iter().flatten().flatten().find(|link| link.data == id);
                    match link {
                        Some(link) => self.done.kept.push((target, Keeper::Link(link.clone()))),
                        None if listed.iter().any(Option::is_none) => self.done.kept.push((target, Keeper::Unclear)),
                        None => {
                            self.done.removed.push(target);
                            let beside = digests.into_iter().filter(|digest| beside(&id, digest));
                            self.done.removed.extend(beside.map(|digest| Object::DataOf(id.clone(), digest)));
                        }
                    }
                }
                Look::Copy(copy, named, _) => {
                    let needed: Vec<Digest> = named.blobs.difference(&named.absent).cloned().collect();
                    let mut places = Vec::new();
                    let mut clear = true;
                    for blob in needed {
                        asked.next();
                        let links = replies.listed_links();
                        clear &= links.is_some();
                        let ids: BTreeSet<DataId> = links.into_iter().flatten().map(|link| link.data).collect();
                        data.extend(ids.iter().cloned());
                        places.push((blob, ids));
                    }
                    if clear {
                        self.looks.push(Look::Copy(copy, named, places));
                    } else {
                        self.done.kept.push((Object::Copy(copy), Keeper::Unclear));
                    }
                }
            }
        }
        data.into_iter().collect()
    }

    fn weigh_data(&mut self, asked: Vec<DataId>, mut replies: Replies) {
        // Data of which nothing is known counts as there.
        let there: BTreeSet<DataId> = asked.into_iter().filter(|_| replies.presence() != Some(false)).collect();
        for look in std::mem::take(&mut self.looks) {
            let Look::Copy(copy, named, places) = look else { continue };
            let mut usable = places.iter().map(|(_, ids)| ids.iter().any(|id| there.contains(id)));
            // A sparse image has value as long as any of what it came with is there.
            let whole = if named.absent.is_empty() { usable.all(|usable| usable) } else { usable.any(|usable| usable) };
            let target = Object::Copy(copy.clone());
            if whole {
                self.done.kept.push((target, Keeper::Whole));
            } else {
                self.done.removed.push(target);
                self.done.removed.extend(referrer(&copy, &named));
            }
        }
    }
}

/// Whether an object beside the data says that it has this digest.
fn beside(id: &DataId, digest: &Digest) -> bool {
    !matches!(id, DataId::Known(known, _) | DataId::Adopted(known) if known == digest)
}

/// The entry that makes the copy a referrer.
fn referrer(copy: &Copy, named: &Named) -> Option<Object> {
    named.subject.clone().map(|subject| Object::Referrer { subject, copy: copy.clone() })
}

enum Verdict {
    Kept(Keeper),
    /// It goes, with what belongs to it.
    Unused(Option<Object>),
    Look(Look),
    /// It is not there any more.
    Gone,
}

impl Repo {
    fn link(&self, link: &Link) -> Verdict {
        let Some(contents) = &self.contents else { return Verdict::Kept(Keeper::Unclear) };
        // Cache exports of build tools are indexes that list blobs as if they were manifests.
        let names = |named: &Named| named.blobs.contains(&link.digest) || named.children.contains(&link.digest);
        match contents.iter().find(|(_, named)| names(named)) {
            Some((copy, _)) => Verdict::Kept(Keeper::Copy(copy.clone())),
            None => Verdict::Unused(None),
        }
    }

    fn copy(&self, copy: &Copy, plan: &CollectPlan) -> Verdict {
        let (Some(contents), Some(tags), Some(history)) = (&self.contents, &self.tags, &self.history) else {
            return Verdict::Kept(Keeper::Unclear);
        };
        let Some((_, named)) = contents.iter().find(|(there, _)| there == copy) else { return Verdict::Gone };
        // By digest, not by copy: extra copies go only with the last reference to the manifest.
        let names = |entry: &TagEntry| entry.digest == copy.digest && !plan.disregarded.contains(entry);
        if let Some(entry) = tags.iter().flat_map(|items| &items.entries).find(|entry| names(entry)) {
            return Verdict::Kept(Keeper::Tag(entry.clone()));
        }
        if let Some(item) = history.iter().find(|item| item.in_window && names(&item.entry)) {
            return Verdict::Kept(Keeper::History(item.entry.clone()));
        }
        let parent = contents.iter().find(|(_, named)| named.children.contains(&copy.digest));
        if let Some((parent, _)) = parent.filter(|_| !mutated(Mutation::ParentsIgnored)) {
            return Verdict::Kept(Keeper::Copy(parent.clone()));
        }
        let subject = named.subject.as_ref().and_then(|s| contents.iter().find(|(there, _)| there.digest == *s));
        if let Some((subject, _)) = subject {
            return Verdict::Kept(Keeper::Subject(subject.clone()));
        }
        if plan.expired.contains(copy) {
            return Verdict::Unused(referrer(copy, named));
        }
        Verdict::Look(Look::Copy(copy.clone(), named.clone(), Vec::new()))
    }
}

impl Machine for Collect {
    type Output = Collected;

    fn step(&mut self, mut replies: Replies) -> Next<Collected> {
        loop {
            let replies = std::mem::take(&mut replies);
            match std::mem::replace(&mut self.stage, Stage::Unmarked) {
                Stage::Start if self.plan.targets.is_empty() => return Next::Done(Collected::default()),
                Stage::Start => {
                    self.stage = Stage::Marked;
                    if !mutated(Mutation::NoMark) && !mutated(Mutation::LookBeforeMark) {
                        return Next::Ask(vec![self.mark()]);
                    }
                }
                Stage::Marked => {
                    let requests = self.names();
                    self.stage = Stage::NamesSeen(requests.clone());
                    if !requests.is_empty() {
                        return Next::Ask(requests);
                    }
                }
                Stage::NamesSeen(asked) => {
                    self.weigh_names(asked, replies);
                    let requests = self.links();
                    self.stage = Stage::LinksSeen(requests.clone());
                    if !requests.is_empty() {
                        return Next::Ask(requests);
                    }
                }
                Stage::LinksSeen(asked) => {
                    let data = self.weigh_links(asked, replies);
                    let requests: Vec<_> = data.iter().cloned().map(Request::HasData).collect();
                    self.stage = Stage::DataSeen(data);
                    if !requests.is_empty() {
                        return Next::Ask(requests);
                    }
                }
                Stage::DataSeen(asked) => {
                    self.weigh_data(asked, replies);
                    self.stage = Stage::Decided;
                    if mutated(Mutation::LookBeforeMark) {
                        return Next::Ask(vec![self.mark()]);
                    }
                }
                Stage::Decided => {
                    self.stage = Stage::Deleted;
                    let requests = if mutated(Mutation::UnmarkBeforeDelete) { self.unmark() } else { self.delete() };
                    if !requests.is_empty() {
                        return Next::Ask(requests);
                    }
                }
                Stage::Deleted => {
                    let requests = if mutated(Mutation::UnmarkBeforeDelete) { self.delete() } else { self.unmark() };
                    if !requests.is_empty() {
                        return Next::Ask(requests);
                    }
                }
                Stage::Unmarked => return Next::Done(std::mem::take(&mut self.done)),
            }
        }
    }
}

/// Removes the mark of a run that seems to have died, unless one of its targets exists: then somebody may still be about
/// to delete it. Output: whether the mark went.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RemoveMark {
    run: Nonce,
    targets: Marks,
    stage: RemoveStage,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum RemoveStage {
    Start,
    Looked(usize),
    Removed,
}

impl RemoveMark {
    /// Removes the mark of `run`, which names these targets.
    pub fn new(run: Nonce, targets: Marks) -> Self {
        Self { run, targets, stage: RemoveStage::Start }
    }
}

impl Machine for RemoveMark {
    type Output = bool;

    fn step(&mut self, mut replies: Replies) -> Next<bool> {
        match self.stage {
            RemoveStage::Start => {
                let data = self.targets.data.iter().cloned().map(Request::HasData);
                let links = self.targets.links.iter().cloned().map(Request::HasLink);
                let copies = self.targets.copies.iter().cloned().map(Request::HasCopy);
                let requests: Vec<_> = data.chain(links).chain(copies).collect();
                self.stage = RemoveStage::Looked(requests.len());
                if requests.is_empty() { self.step(Replies::default()) } else { Next::Ask(requests) }
            }
            RemoveStage::Looked(asked) => {
                let alive = (0..asked).any(|_| replies.presence() != Some(false));
                if alive && !mutated(Mutation::MarkGoesEarly) {
                    return Next::Done(false);
                }
                self.stage = RemoveStage::Removed;
                Next::Ask(vec![Request::Remove(vec![Object::Mark(self.run.clone(), Vec::new())])])
            }
            RemoveStage::Removed => Next::Done(true),
        }
    }
}
