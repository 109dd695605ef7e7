//! What the steps of this build are made of, kept for the next one, and compared with the last one when a step is missed.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::plan::{Plans, StepPlan};
use super::{Executor, States};
use crate::blob::{ContentHash, StoreError};
use crate::cache::{Content, Key, PlanKey, Preimage, Preimages};
use crate::event::{Event, StepId};
use crate::graph::{CopyFrom, Graph, MountFrom, Op, OpId, Root};
use crate::layer::Kind;

/// What it meets counts for a copy's result, and is told only where nothing else explains a miss.
const MET: &str = "what it meets at its destination";

/// Says why steps were missed.
#[derive(Debug, Default)]
pub struct Explain {
    /// Which Dockerfile, context and platform: what was built there before is what is compared with.
    place: String,
    /// Whether it is said at all.
    say: bool,
    session: Mutex<Session>,
}

#[derive(Debug, Default)]
struct Session {
    earlier: Preimages,
    now: Vec<Preimage>,
    /// What each step stands on, by what it is called.
    stands_on: Vec<Vec<(String, Root)>>,
    /// The steps that are not planned yet: of them it is not known what they are made of.
    open: BTreeSet<OpId>,
    /// The steps that ran, and bases, which are what they are called.
    ran: BTreeSet<OpId>,
}

impl Explain {
    /// For builds of this Dockerfile in this context.
    #[must_use]
    pub fn new(context: &Path, dockerfile: &str, platform: &str, say: bool) -> Self {
        let place = format!("{}\n{dockerfile}\n{platform}", context.display());
        Self { place, say, session: Mutex::default() }
    }

    fn session(&self) -> std::sync::MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Executor {
    /// Begins a build that has something to do, or goes on with one of which fewer steps are late.
    pub(super) fn begin_to_explain(&self, graph: &Graph, plans: &Plans<'_>, late: &BTreeSet<OpId>) {
        let mut session = self.explain.session();
        let is_first = session.now.is_empty();
        if is_first {
            session.earlier = self.records.preimages(&self.explain.place);
        }
        for (id, node) in graph.ops() {
            if !is_first && !session.open.contains(&id) {
                continue;
            }
            let mut preimage = Preimage::of(&node.op, &node.about);
            if matches!(node.op, Op::Run(_)) {
                preimage.mode(self.options.mode);
            }
            plans.of(id).describe(&mut preimage);
            if is_first {
                session.now.push(preimage);
                session.stands_on.push(stands_on(graph, &node.op));
                if matches!(node.op, Op::Base(_)) {
                    session.ran.insert(id);
                }
            } else if let Some(known) = session.now.get_mut(id.index()) {
                *known = preimage;
            }
        }
        session.open.clone_from(late);
    }

    /// A build that had nothing to do: it is what the next one is compared with, as any other. One like the last is not looked at.
    pub(super) fn explain_found(&self, graph: &Graph, plans: &Plans<'_>) {
        let plan = of_result(graph, plans);
        if plan.is_none() || self.records.last_plan(&self.explain.place) != plan {
            self.begin_to_explain(graph, plans, &BTreeSet::new());
        }
    }

    /// A step has to run; `writes` is what a copy is about to write, and `reason` why what was found for it is not taken.
    pub(super) fn missed(
        &self,
        step: StepId,
        plan: &StepPlan,
        states: &States,
        writes: Option<Key>,
        reason: Option<&str>,
    ) {
        let mut session = self.explain.session();
        let Session { earlier, now, stands_on, ran, .. } = &mut *session;
        ran.insert(plan.id);
        let number = plan.id.index();
        let (Some(preimage), Some(stands_on)) = (now.get_mut(number), stands_on.get(number)) else { return };
        for (name, root) in stands_on {
            preimage.result(name.clone(), states.of(*root).content.key().to_string());
            if root.op().is_some_and(|id| !ran.contains(&id)) {
                preimage.was_found(name);
            }
        }
        let met = writes.map(|key| key.to_string());
        preimage.last_result = met.map(|met| (MET.to_owned(), met));
        if !self.explain.say {
            return;
        }
        let before = earlier.nearest(preimage);
        let reasons = match before {
            _ if !plan.reads_cache => vec!["it was told to run again (--no-cache)".to_owned()],
            _ if let Some(reason) = reason => vec![reason.to_owned()],
            None => vec!["no earlier build of this Dockerfile here had such a step".to_owned()],
            Some(before) => preimage.since(before),
        };
        let why = match reasons.is_empty() {
            true => "all that it is made of is as it was; its layer is gone from the store, or was never finished"
                .to_owned(),
            false => reasons.join("; "),
        };
        let text = format!("{step} runs again: `{}`: {why}", preimage.instruction);
        drop(session);
        self.events.hear(Event::Note { text });
    }

    /// Keeps what this build's steps were made of. That it cannot be kept fails no build.
    pub(super) fn end_explaining(&self, graph: &Graph, plans: &Plans<'_>, content: impl Fn(OpId) -> Option<Content>) {
        let mut session = self.explain.session();
        let Session { earlier, now, stands_on, open, .. } = &mut *session;
        if now.is_empty() {
            return;
        }
        for (preimage, stands_on) in now.iter_mut().zip(&*stands_on) {
            for (name, root) in stands_on {
                if let Some(content) = root.op().and_then(&content) {
                    preimage.result(name.clone(), content.key().to_string());
                }
            }
            if let Some(before) = earlier.nearest(preimage) {
                preimage.complete_from(before);
            }
        }
        // Of a step that was never planned, what an earlier build was made of is all there is to say.
        let said = std::mem::take(now).into_iter().enumerate().filter_map(|(number, preimage)| {
            match open.contains(&OpId::at(number)) {
                true => earlier.nearest(&preimage).cloned(),
                false => Some(preimage),
            }
        });
        let now = Preimages(said.collect());
        let (place, plan) = (&self.explain.place, of_result(graph, plans).filter(|_| open.is_empty()));
        let keep = || {
            if now != *earlier {
                self.records.keep_preimages(place, &now)?;
            }
            match self.records.last_plan(place) == plan {
                true => Ok(()),
                false => self.records.keep_last_plan(place, plan),
            }
        };
        let kept: Result<(), StoreError> = keep();
        if let Err(error) = kept {
            tracing::debug!(%error, "what the steps were made of cannot be kept");
        }
    }
}

/// The plan of the whole build, where it is known.
fn of_result(graph: &Graph, plans: &Plans<'_>) -> Option<PlanKey> {
    graph.result.root.op().and_then(|id| plans.of(id).key)
}

/// The results that an operation stands on, by what they are called.
fn stands_on(graph: &Graph, op: &Op) -> Vec<(String, Root)> {
    let called = |root: Root| {
        let node = graph.node(root.op()?);
        let name = match &node.op {
            Op::Base(base) => format!("base image {}", base.request.reference),
            _ => format!("the result of `{}` (line {})", node.about.instruction, node.about.lines.first),
        };
        Some((name, root))
    };
    let mut roots: Vec<Root> = op.below().into_iter().collect();
    match op {
        Op::Copy(op) => roots.extend(if let CopyFrom::Root(root) = op.from { Some(root) } else { None }),
        Op::Run(op) => roots.extend(op.mounts.iter().filter_map(|mount| match mount.from {
            MountFrom::Root(root) => Some(root),
            MountFrom::Context | MountFrom::Folder(_) | MountFrom::Nothing => None,
        })),
        Op::Base(_) | Op::Fetch(_) => {}
    }
    roots.into_iter().filter_map(called).collect()
}

impl StepPlan {
    /// What it takes of the context, and what may have been left in its cache mounts.
    fn describe(&self, preimage: &mut Preimage) {
        for source in self.taken.iter().flat_map(|taken| &taken.selected) {
            for entry in &source.entries {
                let mut path = source.name.clone();
                if !entry.relative.is_empty() {
                    path.push(b'/');
                    path.extend(&entry.relative);
                }
                let (kind, content) = match &entry.kind {
                    Kind::File { .. } => ("file", entry.digest.map(short).unwrap_or_default()),
                    Kind::Directory => ("folder", String::new()),
                    Kind::Symlink(target) => ("link", String::from_utf8_lossy(target).into_owned()),
                    _ => ("other", String::new()),
                };
                let path = String::from_utf8_lossy(&path).into_owned();
                preimage.file(path, format!("{kind} {content} {:o}", entry.mode));
            }
        }
        for archive in self.taken.iter().flat_map(|taken| &taken.archives) {
            preimage.file(archive.name.clone(), format!("archive {} 0", short(archive.hash)));
        }
        if let Some(taken) = &self.taken {
            preimage.all_files(taken.key);
        }
        for (number, earlier) in self.before.iter().enumerate() {
            let name = format!("what earlier steps may have left in its cache mount {}", number + 1);
            preimage.result(name, earlier.key().to_string());
        }
    }
}

/// Enough of a hash to tell two contents of one file apart.
fn short(content: ContentHash) -> String {
    hex::encode(&content.as_bytes()[..8])
}
