//! Actors that drive machines over the store one request at a time: clients, collectors, and requests of the past.

use std::sync::Arc;

use super::world::{Fact, World, digest, is_silent, named_by, nonce, repo, tag, upload_id};
use crate::protocol::*;
use crate::spec::RepoName;

/// What an actor waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum When {
    Deleted(&'static str),
    BlobDeleted,
    /// It was acknowledged.
    Tagged(&'static str),
    /// Both were.
    BothTagged(&'static str, &'static str),
    /// They were, and the tag has this value.
    Sees(&'static str, &'static str, &'static str),
    BothRefused(&'static str, &'static str),
}

pub(super) fn tagged(world: &World, who: &str) -> bool {
    world.facts.iter().any(|fact| matches!(fact, Fact::Tagged { by, .. } if *by == who))
}

fn refused(world: &World, who: &str) -> bool {
    world.facts.iter().any(|fact| matches!(fact, Fact::Refused { by } if *by == who))
}

impl When {
    fn holds(self, world: &World) -> bool {
        match self {
            Self::Deleted(manifest) => world.facts.contains(&Fact::Deleted(digest(manifest))),
            Self::BlobDeleted => world.facts.contains(&Fact::BlobDeleted),
            Self::Tagged(who) => tagged(world, who),
            Self::BothTagged(one, two) => tagged(world, one) && tagged(world, two),
            Self::Sees(one, two, value) => {
                tagged(world, one) && tagged(world, two) && world.value("t") == Some(digest(value))
            }
            Self::BothRefused(one, two) => refused(world, one) && refused(world, two),
        }
    }
}

/// What a collector looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Data,
    Links,
    LinksOf(&'static str),
    Copies,
    /// The link with this nonce.
    Link(&'static str),
    /// The copy with this nonce.
    Copy(&'static str),
}

impl Kind {
    fn includes(self, object: &Object) -> bool {
        match (self, object) {
            (Self::Data, Object::Data(_)) | (Self::Links, Object::Link(..)) | (Self::Copies, Object::Copy(_)) => true,
            (Self::LinksOf(name), Object::Link(_, of)) => of.as_str() == name,
            (Self::Link(name), Object::Link(link, _)) => link.nonce.as_str() == name,
            (Self::Copy(name), Object::Copy(copy)) => copy.nonce.as_str() == name,
            _ => false,
        }
    }
}

/// One operation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Op {
    /// Upload the blob, unless the repository has it.
    Upload(&'static str),
    /// Upload the blob without asking; `known` when its digest is before the first byte.
    UploadAnyway {
        to: &'static str,
        known: bool,
    },
    Mount {
        from: &'static str,
        to: &'static str,
    },
    Put(Put),
    DeleteTag,
    DeleteManifest(&'static str),
    DeleteBlob,
    Undo(TagEntry),
    Patch,
    /// Not before this is so.
    After(When),
    /// Remember that it came to this.
    Note,
    /// One run over objects of these kinds. `again`: its DELETE arrives a second time, whenever.
    Collect {
        run: &'static str,
        kinds: &'static [Kind],
        again: bool,
    },
    /// Removes a mark object, of whatever run, whose targets have all gone.
    Janitor,
    /// A PUT of an entry of the tag arrives a second time, whenever.
    LateTag(&'static str),
    /// A PUT of a link arrives a second time, whenever.
    LateLink,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Put {
    pub(super) to: &'static str,
    pub(super) manifest: &'static str,
    pub(super) tag: Option<&'static str>,
    pub(super) immutable: bool,
    /// Links that the replica remembers from before.
    pub(super) cached: Option<Vec<Link>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Running {
    Find(FindBlob),
    Finish(FinishUpload),
    Mount(Mount),
    Put(PutManifest),
    DeleteTag(DeleteTag),
    FindCopies(FindCopies),
    DeleteManifest(DeleteManifest),
    DeleteBlob(DeleteBlob),
    Undo(Undo),
    Claim(ClaimUpload),
    Collect(Collect),
    RemoveMark(RemoveMark),
    /// One request without a machine, and what follows it.
    Just(Option<Request>, Then),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Then {
    Finish,
    NextOp,
}

enum Came {
    Found(bool),
    Linked(bool),
    Put(PutOutcome),
    Copies(Vec<Copy>),
    Deleted(bool),
    Undone(UndoOutcome),
    Claimed(bool),
    Collected(Vec<Object>),
    Just(Then),
}

impl Running {
    fn step(&mut self, replies: Replies) -> Next<Came> {
        fn map<T>(next: Next<T>, f: impl FnOnce(T) -> Came) -> Next<Came> {
            match next {
                Next::Ask(requests) => Next::Ask(requests),
                Next::Done(done) => Next::Done(f(done)),
            }
        }
        match self {
            Self::Find(machine) => map(machine.step(replies), |link| Came::Found(link.is_some())),
            Self::Finish(machine) => map(machine.step(replies), |link| Came::Linked(link.is_some())),
            Self::Mount(machine) => map(machine.step(replies), |link| Came::Linked(link.is_some())),
            Self::Put(machine) => map(machine.step(replies), Came::Put),
            Self::DeleteTag(machine) => map(machine.step(replies), Came::Deleted),
            Self::FindCopies(machine) => map(machine.step(replies), Came::Copies),
            Self::DeleteManifest(machine) => map(machine.step(replies), Came::Deleted),
            Self::DeleteBlob(machine) => map(machine.step(replies), Came::Deleted),
            Self::Undo(machine) => map(machine.step(replies), Came::Undone),
            Self::Claim(machine) => map(machine.step(replies), Came::Claimed),
            Self::Collect(machine) => map(machine.step(replies), |done| Came::Collected(done.removed)),
            Self::RemoveMark(machine) => map(machine.step(replies), |_| Came::Just(Then::NextOp)),
            Self::Just(request, then) => match request.take() {
                Some(request) => Next::Ask(vec![request]),
                None => Next::Done(Came::Just(*then)),
            },
        }
    }
}

/// What an actor is at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum At {
    /// Goes on by itself.
    Begin,
    /// Waits, or chooses something of what is in the store.
    Standing,
    Running(Box<Running>),
    /// Has chosen an object whose PUT arrives again once it is gone.
    Late(Object),
    /// A collector's DELETE that may arrive again.
    Again(Vec<Object>),
    Ended,
}

/// Somebody who does one thing after the other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Actor {
    pub(super) name: &'static str,
    ops: Arc<[Op]>,
    next: usize,
    /// Begins again when refused, as docker does.
    tries: u8,
    /// Whether giving up is a fact.
    must_succeed: bool,
    nonces: Nonces,
    upload: Option<(RepoName, DataId)>,
    cached: Option<Vec<Link>>,
    at: At,
    pending: Vec<(usize, Request)>,
    replies: Vec<Option<Reply>>,
}

pub(super) fn client(name: &'static str, tries: u8, ops: Vec<Op>) -> Actor {
    Actor {
        name,
        ops: ops.into(),
        next: 0,
        tries,
        must_succeed: false,
        nonces: Nonces::new(nonce(name)),
        upload: None,
        cached: None,
        at: At::Begin,
        pending: Vec::new(),
        replies: Vec::new(),
    }
}

pub(super) fn collector(run: &'static str, kinds: &'static [Kind], again: bool) -> Actor {
    client(run, 1, vec![Op::Collect { run, kinds, again }])
}

impl Actor {
    pub(super) fn that_must_succeed(self) -> Self {
        Self { must_succeed: true, ..self }
    }

    /// Whether it did all that it was to do.
    pub(super) fn succeeded(&self) -> bool {
        self.at == At::Ended && self.next == self.ops.len()
    }

    /// How many ways there are to go on.
    pub(super) fn choices(&self, world: &World) -> usize {
        match &self.at {
            At::Begin | At::Ended => 0,
            At::Running(_) => self.pending.len(),
            At::Late(object) => usize::from(!world.contains(object)),
            At::Again(_) => 1,
            At::Standing => match &self.ops[self.next] {
                Op::After(when) => usize::from(when.holds(world)),
                Op::Collect { .. } => 1,
                op => options(op, world).len(),
            },
        }
    }

    /// Goes on; says what was done.
    pub(super) fn act(&mut self, choice: usize, world: &mut World) -> String {
        let text = match std::mem::replace(&mut self.at, At::Ended) {
            At::Running(running) => {
                let (index, request) = self.pending.remove(choice);
                let reply = world.perform(&request);
                let text = format!("{request:?} -> {reply:?}");
                if matches!((&request, &reply), (Request::Copies(_, of), Reply::Copies(seen)) if *of == digest("kid") && !seen.is_empty())
                {
                    world.facts.insert(Fact::ChildSeen);
                }
                self.replies[index] = Some(reply);
                self.at = At::Running(running);
                text
            }
            At::Late(object) => {
                let text = format!("late PUT of {object:?}");
                world.insert(object);
                self.next += 1;
                text
            }
            At::Again(objects) => {
                let text = format!("late DELETE of {objects:?}");
                world.perform(&Request::Remove(objects));
                self.next += 1;
                text
            }
            At::Standing => self.choose(choice, world),
            At::Begin | At::Ended => unreachable!("it has no choices"),
        };
        // What the reply leads to is told to the client before anything else happens.
        self.prepare(world);
        format!("{}: {text}", self.name)
    }

    fn choose(&mut self, choice: usize, world: &World) -> String {
        match self.ops[self.next].clone() {
            Op::Collect { run, kinds, .. } => {
                let mut targets: Vec<Object> =
                    world.objects().filter(|object| kinds.iter().any(|kind| kind.includes(object))).cloned().collect();
                targets.sort();
                let text = format!("lists {targets:?}");
                let copies = targets.iter().filter_map(|target| match target {
                    Object::Copy(copy) if copy.nonce.as_str().starts_with("ret") => Some(copy.clone()),
                    _ => None,
                });
                let expired = copies.collect();
                let plan = CollectPlan { run: nonce(run), targets, expired, disregarded: [].into() };
                self.run(Running::Collect(Collect::new(plan)));
                text
            }
            Op::After(_) => {
                self.next += 1;
                self.at = At::Begin;
                "starts".into()
            }
            op => {
                let object = options(&op, world).swap_remove(choice);
                let text = format!("chooses {object:?}");
                match object {
                    Object::Mark(run, targets) => {
                        let mut only = World::default();
                        only.insert(Object::Mark(run.clone(), targets));
                        self.run(Running::RemoveMark(RemoveMark::new(run, only.marks())));
                    }
                    object => self.at = At::Late(object),
                }
                text
            }
        }
    }

    fn run(&mut self, running: Running) {
        self.at = At::Running(Box::new(running));
        self.replies.clear();
    }

    /// Goes on until there is a request to choose from, or nothing left to do.
    pub(super) fn prepare(&mut self, world: &mut World) {
        loop {
            match &mut self.at {
                At::Begin => self.begin(world),
                At::Running(running) => {
                    if !self.pending.is_empty() {
                        return;
                    }
                    let replies: Vec<Reply> = self.replies.drain(..).flatten().collect();
                    match running.step(replies.into()) {
                        Next::Ask(requests) => {
                            assert!(!requests.is_empty(), "asks nothing");
                            self.replies = vec![None; requests.len()];
                            self.pending = requests.into_iter().enumerate().collect();
                            self.answer_at_once(world);
                        }
                        Next::Done(came) => {
                            self.at = At::Begin;
                            self.finish(came, world);
                        }
                    }
                }
                _ => return,
            }
        }
    }

    /// Requests whose moment does not matter are no steps; nor are ones that a replica answers from memory.
    fn answer_at_once(&mut self, world: &mut World) {
        let mut open = Vec::new();
        for (index, request) in std::mem::take(&mut self.pending) {
            let cached = self.cached.take_if(|_| matches!(request, Request::KnownLinks(..)));
            if let Some(links) = cached {
                self.replies[index] = Some(Reply::Links(links));
            } else if is_silent(&request) {
                self.replies[index] = Some(world.perform(&request));
            } else {
                open.push((index, request));
            }
        }
        self.pending = open;
    }

    fn begin(&mut self, world: &mut World) {
        let a = repo("a");
        let Some(op) = self.ops.get(self.next).cloned() else {
            self.at = At::Ended;
            return;
        };
        let mut nonces = self.nonces.split();
        let running = match op {
            Op::Upload(to) => {
                self.upload = Some((repo(to), DataId::Known(digest("blob"), nonces.take())));
                Running::Find(FindBlob::new(repo(to), digest("blob")))
            }
            Op::UploadAnyway { to, known } => {
                let data = nonces.take();
                let data = if known { DataId::Known(digest("blob"), data) } else { DataId::Unknown(data) };
                self.upload = Some((repo(to), data.clone()));
                Running::Just(Some(Request::Write(Object::Data(data))), Then::Finish)
            }
            Op::Mount { from, to } => Running::Mount(Mount::new(repo(from), repo(to), digest("blob"), nonces)),
            Op::Put(put) => {
                let digest = digest(put.manifest);
                let named = named_by(&digest);
                self.cached = put.cached;
                let plan = PutPlan {
                    repo: repo(put.to),
                    blobs: named.blobs.iter().cloned().collect(),
                    children: named.children.iter().cloned().collect(),
                    digest,
                    subject: None,
                    tags: put.tag.map(tag).into_iter().collect(),
                    in_catalog: true,
                    immutable: put.tag.filter(|_| put.immutable).map(tag).into_iter().collect(),
                    fresh: false,
                };
                Running::Put(PutManifest::new(plan, nonces))
            }
            Op::DeleteTag => Running::DeleteTag(DeleteTag::new(a, tag("t"))),
            Op::DeleteManifest(manifest) => {
                world.facts.insert(Fact::Deleting(digest(manifest)));
                Running::FindCopies(FindCopies::new(a, digest(manifest)))
            }
            Op::DeleteBlob => Running::DeleteBlob(DeleteBlob::new(a, digest("blob"))),
            Op::Undo(entry) => {
                let named = (*named_by(&entry.digest)).clone();
                Running::Undo(Undo::new(a, entry.tag.clone(), entry, named, nonces))
            }
            Op::Patch => Running::Claim(ClaimUpload::new(upload_id(), 1, nonces.take())),
            Op::Note => {
                world.facts.insert(Fact::Saw);
                self.next += 1;
                self.at = At::Begin;
                return;
            }
            Op::After(_) | Op::Collect { .. } | Op::Janitor | Op::LateTag(_) | Op::LateLink => {
                self.at = At::Standing;
                return;
            }
        };
        self.run(running);
    }

    fn finish(&mut self, came: Came, world: &mut World) {
        let by = self.name;
        match (came, self.ops[self.next].clone()) {
            (Came::Found(false), _) => {
                let (_, data) = self.upload.clone().unwrap();
                self.run(Running::Just(Some(Request::Write(Object::Data(data))), Then::Finish));
            }
            (Came::Just(Then::Finish), _) => {
                let (to, data) = self.upload.clone().unwrap();
                let machine = FinishUpload::new(to, digest("blob"), data, 1, self.nonces.split());
                self.run(Running::Finish(machine));
            }
            (Came::Copies(copies), _) => {
                let machine = DeleteManifest::new(repo("a"), copies, None, self.nonces.split());
                self.run(Running::DeleteManifest(machine));
            }
            (Came::Linked(true), _) => {
                world.facts.insert(Fact::Blob { by });
                self.next += 1;
            }
            (Came::Claimed(true), _) => {
                world.facts.insert(Fact::GoesOn { by });
                self.next += 1;
            }
            (Came::Found(true) | Came::Just(Then::NextOp), _) => self.next += 1,
            (Came::Put(PutOutcome::Stored { superseded }), Op::Put(put)) => {
                let digest = digest(put.manifest);
                world.facts.insert(match put.tag {
                    Some(_) => Fact::Tagged { by, digest },
                    None => Fact::Manifest { repo: repo(put.to), digest },
                });
                self.forget(superseded);
            }
            (Came::Undone(UndoOutcome::Done { superseded }), Op::Undo(entry)) => {
                world.facts.insert(Fact::Tagged { by, digest: entry.digest });
                self.forget(superseded);
            }
            (Came::Put(PutOutcome::Immutable { .. }), _) => {
                world.facts.insert(Fact::Refused { by });
                self.refused(world);
            }
            (Came::Deleted(true), op) => {
                world.facts.insert(match op {
                    Op::DeleteTag => Fact::Untagged,
                    Op::DeleteManifest(manifest) => Fact::Deleted(digest(manifest)),
                    _ => Fact::BlobDeleted,
                });
                self.next += 1;
            }
            (Came::Collected(removed), Op::Collect { again: true, .. }) if !removed.is_empty() => {
                self.at = At::Again(removed);
            }
            (Came::Collected(_), _) => self.next += 1,
            (Came::Linked(false) | Came::Deleted(false) | Came::Claimed(false) | Came::Put(_) | Came::Undone(_), _) => {
                self.refused(world);
            }
        }
    }

    fn forget(&mut self, superseded: Vec<Object>) {
        if superseded.is_empty() {
            self.next += 1;
        } else {
            self.run(Running::Just(Some(Request::Remove(superseded)), Then::NextOp));
        }
    }

    fn refused(&mut self, world: &mut World) {
        self.tries = self.tries.saturating_sub(1);
        if self.tries > 0 {
            self.next = 0;
            return;
        }
        self.at = At::Ended;
        if self.must_succeed {
            world.facts.insert(Fact::Failed { by: self.name });
        }
    }
}

/// What there is to choose from.
fn options(op: &Op, world: &World) -> Vec<Object> {
    let fits = |object: &&Object| match (op, object) {
        (Op::Janitor, Object::Mark(..)) | (Op::LateLink, Object::Link(..)) => true,
        (Op::LateTag(name), Object::Tag(entry)) => entry.tag.as_str() == *name,
        _ => false,
    };
    world.objects().filter(fits).cloned().collect()
}
