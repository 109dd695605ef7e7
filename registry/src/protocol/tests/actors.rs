//! Actors that drive machines over the store one request at a time, collectors, requests of the past, and schedules.

use super::world::{Fact, Fault, World, digest, named_by, nonce, repo, tag};
use crate::protocol::*;
use crate::spec::RepoName;

/// What a client waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum When {
    Deleted(&'static str),
    /// These two were acknowledged.
    Tagged(&'static str, &'static str),
    /// They were, and the tag has this value.
    Sees(&'static str, &'static str, &'static str),
}

impl When {
    fn holds(self, world: &World) -> bool {
        let tagged = |who: &str| world.facts.iter().any(|f| matches!(f, Fact::Tagged { by, .. } if *by == who));
        match self {
            Self::Deleted(manifest) => world.facts.contains(&Fact::Deleted(digest(manifest))),
            Self::Tagged(one, two) => tagged(one) && tagged(two),
            Self::Sees(one, two, value) => tagged(one) && tagged(two) && world.value() == Some(digest(value)),
        }
    }
}

/// What a collector looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kinds {
    Data,
    Links,
    LinksOf(&'static str),
    LinksAndData,
    Copies,
    /// The link with this nonce.
    Link(&'static str),
}

impl Kinds {
    fn include(self, object: &Object) -> bool {
        match (self, object) {
            (Self::Data | Self::LinksAndData, Object::Data(_))
            | (Self::Links | Self::LinksAndData, Object::Link(..))
            | (Self::Copies, Object::Copy(_)) => true,
            (Self::LinksOf(name), Object::Link(_, of)) => of.as_str() == name,
            (Self::Link(name), Object::Link(link, _)) => link.nonce.as_str() == name,
            _ => false,
        }
    }
}

/// One operation of a client.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Op {
    /// Upload the blob, unless the repository has it.
    Upload(RepoName),
    /// Upload the blob without asking.
    UploadAnyway(RepoName),
    Mount {
        from: RepoName,
        to: RepoName,
    },
    Put {
        to: RepoName,
        manifest: &'static str,
        tag: bool,
    },
    DeleteTag,
    DeleteManifest(&'static str),
    DeleteBlob,
    /// Not before this is so.
    After(When),
    /// Remember that it came to this.
    Note,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Running {
    Find(FindBlob),
    Finish(FinishUpload),
    Mount(Mount),
    Put(PutManifest),
    DeleteTag(DeleteTag),
    FindCopies(FindCopies),
    DeleteManifest(DeleteManifest),
    DeleteBlob(DeleteBlob),
    /// One request without a machine: what follows it.
    Just(Option<Request>, Then),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
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
            Self::Just(request, then) => match request.take() {
                Some(request) => Next::Ask(vec![request]),
                None => Next::Done(Came::Just(*then)),
            },
        }
    }
}

/// A client that does one thing after the other, or a collector's run, or a request of the past.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) enum Actor {
    Client(Box<Client>),
    Collector(Collector),
    /// Writes an entry of the tag again, once, at any time after it was removed: the first that there is of this order.
    Zombie(u64, Option<TagEntry>, bool),
}

#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Client {
    name: &'static str,
    ops: Vec<Op>,
    at: usize,
    /// Begins again when refused, as docker does.
    tries: u8,
    nonces: Nonces,
    upload: Option<(RepoName, DataId)>,
    running: Option<Running>,
    pending: Vec<(usize, Request)>,
    replies: Vec<Option<Reply>>,
}

pub(super) fn client(name: &'static str, tries: u8, ops: Vec<Op>) -> Actor {
    Actor::Client(Box::new(Client {
        name,
        ops,
        at: 0,
        tries,
        nonces: Nonces::new(nonce(name)),
        upload: None,
        running: None,
        pending: Vec::new(),
        replies: Vec::new(),
    }))
}

impl Client {
    /// Makes requests to choose from, if there is anything left to do.
    fn prepare(&mut self, world: &mut World) {
        while self.pending.is_empty() {
            if self.running.is_none() && !self.begin(world) {
                return;
            }
            let replies: Vec<Reply> = self.replies.drain(..).flatten().collect();
            let Some(running) = &mut self.running else { return };
            match running.step(replies.into()) {
                Next::Ask(requests) => {
                    assert!(!requests.is_empty());
                    self.replies = vec![None; requests.len()];
                    self.pending = requests.into_iter().enumerate().collect();
                }
                Next::Done(came) => {
                    self.running = None;
                    self.finish(came, world);
                }
            }
        }
    }

    fn begin(&mut self, world: &mut World) -> bool {
        let a = repo("a");
        let Some(op) = self.ops.get(self.at).cloned() else { return false };
        let mut nonces = self.nonces.split();
        self.running = Some(match op {
            Op::Upload(to) => {
                self.upload = Some((to.clone(), DataId::Unknown(nonces.take())));
                Running::Find(FindBlob::new(to, digest("blob")))
            }
            Op::UploadAnyway(to) => {
                let data = DataId::Unknown(nonces.take());
                self.upload = Some((to, data.clone()));
                Running::Just(Some(Request::Write(Object::Data(data))), Then::Finish)
            }
            Op::Mount { from, to } => Running::Mount(Mount::new(from, to, digest("blob"), nonces)),
            Op::Put { to, manifest, tag: tagged } => {
                let (blobs, children) = named_by(&digest(manifest)).clone();
                let tags = if tagged { vec![tag()] } else { vec![] };
                let digest = digest(manifest);
                let plan = PutPlan {
                    repo: to,
                    digest,
                    blobs,
                    children,
                    subject: None,
                    tags,
                    in_catalog: false,
                    immutable: Default::default(),
                    fresh: false,
                };
                Running::Put(PutManifest::new(plan, nonces))
            }
            Op::DeleteTag => Running::DeleteTag(DeleteTag::new(a, tag())),
            Op::DeleteManifest(manifest) => {
                world.facts.insert(Fact::Deleting(digest(manifest)));
                Running::FindCopies(FindCopies::new(a, digest(manifest)))
            }
            Op::DeleteBlob => {
                world.facts.insert(Fact::DeletingBlob);
                Running::DeleteBlob(DeleteBlob::new(a, digest("blob")))
            }
            Op::After(condition) => {
                if !condition.holds(world) {
                    return false;
                }
                self.at += 1;
                return self.begin(world);
            }
            Op::Note => {
                world.facts.insert(Fact::Saw);
                self.at += 1;
                return self.begin(world);
            }
        });
        true
    }

    fn finish(&mut self, came: Came, world: &mut World) {
        match (came, self.ops[self.at].clone()) {
            (Came::Found(false), _) => {
                let (_, data) = self.upload.clone().unwrap();
                self.running = Some(Running::Just(Some(Request::Write(Object::Data(data))), Then::Finish));
            }
            (Came::Just(Then::Finish), _) => {
                let (to, data) = self.upload.clone().unwrap();
                let machine = FinishUpload::new(to, digest("blob"), data, 1, self.nonces.split());
                self.running = Some(Running::Finish(machine));
            }
            (Came::Linked(false) | Came::Deleted(false), _) => self.refused(),
            (Came::Linked(true), Op::Mount { .. }) => {
                world.facts.insert(Fact::Mounted);
                self.at += 1;
            }
            (Came::Found(true) | Came::Linked(true) | Came::Just(Then::NextOp), _) => self.at += 1,
            (Came::Put(PutOutcome::Stored { superseded }), Op::Put { to, manifest, tag }) => {
                let digest = digest(manifest);
                world.facts.insert(match tag {
                    true => Fact::Tagged { by: self.name, digest },
                    false => Fact::Manifest { repo: to, digest },
                });
                if superseded.is_empty() {
                    self.at += 1;
                } else {
                    self.running = Some(Running::Just(Some(Request::Remove(superseded)), Then::NextOp));
                }
            }
            (Came::Copies(copies), _) => {
                let machine = DeleteManifest::new(repo("a"), copies, None, self.nonces.split());
                self.running = Some(Running::DeleteManifest(machine));
            }
            (Came::Put(_), _) => self.refused(),
            (Came::Deleted(true), op) => {
                world.facts.insert(match op {
                    Op::DeleteTag => Fact::Untagged,
                    Op::DeleteManifest(manifest) => Fact::Deleted(digest(manifest)),
                    _ => Fact::DeletedBlob,
                });
                self.at += 1;
            }
        }
    }

    fn refused(&mut self) {
        self.tries = self.tries.saturating_sub(1);
        self.at = if self.tries == 0 { self.ops.len() } else { 0 };
    }
}

/// One run over the objects of some kinds: mark, look, delete, remove the mark. Each is one request.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Collector {
    name: &'static str,
    kinds: Kinds,
    targets: Vec<Object>,
    looked: usize,
    unused: Vec<Object>,
    stage: u8,
    /// Deletes once more at any later time.
    zombie: bool,
}

pub(super) fn collector(name: &'static str, kinds: Kinds, zombie: bool) -> Actor {
    Actor::Collector(Collector { name, kinds, targets: vec![], looked: 0, unused: vec![], stage: 0, zombie })
}

impl Collector {
    fn ready(&self) -> bool {
        self.stage < 5 || self.stage == 5 && self.zombie
    }

    fn act(&mut self, world: &mut World) -> String {
        let early = world.fault == Fault::LooksBeforeMarking;
        match self.stage {
            0 => {
                self.targets = world.objects.iter().filter(|object| self.kinds.include(object)).cloned().collect();
                self.stage = if self.targets.is_empty() {
                    9
                } else if early {
                    2
                } else {
                    1
                };
                format!("lists {:?}", self.targets)
            }
            1 => {
                world.marks.insert(self.name, self.targets.clone());
                self.stage = if early { 3 } else { 2 };
                "marks".into()
            }
            2 => {
                let target = self.targets[self.looked].clone();
                let used = world.used(&target);
                self.looked += 1;
                if self.looked == self.targets.len() {
                    self.stage = if early { 1 } else { 3 };
                }
                let seen = format!("{target:?}: used {used}");
                if !used {
                    self.unused.push(target);
                }
                seen
            }
            4 => {
                world.marks.remove(self.name);
                self.stage = 5;
                "removes its mark".into()
            }
            stage => {
                self.unused.iter().for_each(|object| _ = world.objects.remove(object));
                self.stage = stage + 1;
                format!("deletes {:?}", self.unused)
            }
        }
    }
}

impl Actor {
    pub(super) fn choices(&mut self, world: &mut World) -> usize {
        match self {
            Self::Client(client) => {
                client.prepare(world);
                client.pending.len()
            }
            Self::Collector(collector) => usize::from(collector.ready()),
            Self::Zombie(order, entry, done) => {
                if entry.is_none() && !*done {
                    *entry = world.objects.iter().find_map(|object| match object {
                        Object::Tag(entry) if entry.order == *order => Some(entry.clone()),
                        _ => None,
                    });
                }
                let gone = entry.as_ref().is_some_and(|entry| !world.objects.contains(&Object::Tag(entry.clone())));
                usize::from(!*done && gone)
            }
        }
    }

    pub(super) fn act(&mut self, choice: usize, world: &mut World) -> String {
        match self {
            Self::Client(client) => {
                let (index, request) = client.pending.remove(choice);
                let reply = world.perform(&request);
                let text = format!("{}: {request:?} -> {reply:?}", client.name);
                if matches!((&request, &reply), (Request::Copies(_, of), Reply::Copies(seen)) if *of == digest("kid") && !seen.is_empty())
                {
                    world.facts.insert(Fact::ChildSeen);
                }
                client.replies[index] = Some(reply);
                // What the reply leads to is told to the client before anything else happens.
                client.prepare(world);
                text
            }
            Self::Collector(collector) => {
                let done = collector.act(world);
                format!("{}: {done}", collector.name)
            }
            Self::Zombie(_, entry, done) => {
                *done = true;
                let entry = entry.take().unwrap();
                let text = format!("zombie: {entry:?}");
                world.objects.insert(Object::Tag(entry));
                text
            }
        }
    }
}

/// A schedule made of a seed: actors run in bursts of random length, so that long gaps come up as well as short ones.
pub(super) struct Run {
    state: u64,
    burst: (usize, u64),
    history: Vec<String>,
}

impl Run {
    pub(super) fn new(seed: u64) -> Self {
        Self { state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678_9abc_def1, burst: (0, 0), history: vec![] }
    }

    fn random(&mut self, below: usize) -> usize {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        usize::try_from((self.state >> 16) % below as u64).unwrap()
    }

    /// Performs one request of somebody; `None` when nobody has any left.
    pub(super) fn one(&mut self, actors: &mut [Actor], world: &mut World) -> Option<String> {
        let ready: Vec<usize> = (0..actors.len()).filter(|i| actors[*i].choices(world) > 0).collect();
        if ready.is_empty() {
            return None;
        }
        if self.burst.1 == 0 || !ready.contains(&self.burst.0) {
            let actor = ready[self.random(ready.len())];
            self.burst = (actor, 1 + self.random(8) as u64);
        }
        self.burst.1 -= 1;
        let actor = &mut actors[self.burst.0];
        let choices = actor.choices(world);
        let choice = self.random(choices);
        let done = actor.act(choice, world);
        self.history.push(done.clone());
        Some(done)
    }

    pub(super) fn history(&self) -> String {
        self.history.join("\n")
    }
}
