//! What every step is about to do, found out before it is run: what it takes of the context, and its plan key (see
//! `cache::plan`).
//!
//! A key is made of content, so what needs something that is still on its way is planned when that is there; what needs
//! nothing of it is planned at once, and keeps its plan. The context is read at once and as a whole: a late step takes of it
//! what was there when the build began.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::agree::taken_from;
use super::cache_order::{cache_order, hold_caches};
use super::engine::chain;
use super::item::Content;
use super::leaving::{Leaving, Seen};
use super::select::{self, Selected, SelectedEntry};
use super::unpack::Archive;
use super::{Executor, StepError, copy, fetched};
use crate::blob::ContentHash;
use crate::cache::{Key, PlanKey, SelectionHasher, SourceKey};
use crate::context::Context;
use crate::event::Event;
use crate::fetch::FetchedFile;
use crate::graph::{CopyFrom, CopyOp, FetchOp, FolderId, Graph, Mount, MountFrom, MountKind, Op, OpId, Root, RunOp};
use crate::layer::Source;

/// What is known of a step before it runs.
#[derive(Clone, Debug)]
pub(super) struct StepPlan {
    /// Which step.
    pub(super) id: OpId,
    /// Its plan key; none for what cannot be told beforehand, and for all that stands on it.
    pub(super) key: Option<PlanKey>,
    /// Plans of the last earlier steps that may have written to the cache mounts that it sees.
    pub(super) before: Vec<PlanKey>,
    /// Steps that have to be over before it begins, where they run at all: they may write to a cache mount in which it could
    /// find what they left in an earlier build.
    pub(super) after: Vec<OpId>,
    /// What it takes of the context or holds itself.
    pub(super) taken: Option<Arc<Taken>>,
    /// Other steps whose roots it takes files of or mounts.
    pub(super) takes: Vec<OpId>,
    /// How its layer is searched for secrets.
    pub(super) leaving: Leaving,
    /// Whether records of earlier builds may stand for it.
    pub(super) reads_cache: bool,
    /// Whether they may stand for all below it too: no step that has to run again is among them.
    pub(super) reads_chain: bool,
}

/// What a copy takes of the context or holds itself, every file hashed.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) selected: Vec<Selected>,
    /// Sources that are archives, to be unpacked.
    pub(super) archives: Vec<Archive>,
    /// What it comes to.
    pub(super) key: Key,
}

/// What steps of this build took of the context, by what they asked for: several stages often copy the same.
type Known<'g> = HashMap<(Option<FolderId>, &'g [String], &'g [String], bool, bool), Arc<Taken>>;

/// What is there to plan with.
#[derive(Debug)]
pub(super) struct Sight {
    /// The steps that need something that is not there.
    pub(super) late: BTreeSet<OpId>,
    /// What was fetched.
    pub(super) fetched: HashMap<FetchOp, FetchedFile>,
}

/// The plans of a graph's steps, as far as they can be told.
#[derive(Clone, Debug)]
pub(super) struct Plans<'g> {
    steps: Vec<Arc<StepPlan>>,
    /// Which of them are whole.
    planned: Vec<bool>,
    known: Known<'g>,
    /// What steps take of files that were fetched, which are read once too. A file is the same one if its time is too.
    of_files: HashMap<(OpId, PathBuf, i64), Arc<Taken>>,
}

impl<'g> Plans<'g> {
    pub(super) fn of(&self, id: OpId) -> &Arc<StepPlan> {
        &self.steps[id.index()]
    }

    /// Takes over which files were read, of plans that were made of what may not be so.
    pub(super) fn learn(&mut self, guess: Self) {
        self.known = guess.known;
        self.of_files = guess.of_files;
    }
}

impl Executor {
    /// What can be told of every step by its graph alone.
    ///
    /// Who waits for whom because of a cache mount depends on what earlier builds left in it: it is asked here, before a step
    /// of this build can have put anything there.
    pub(super) fn begin_plans<'g>(&self, graph: &'g Graph) -> Plans<'g> {
        let mut order = cache_order(&self.store);
        hold_caches(&self.store, graph);
        let leaves: HashSet<OpId> = graph.result.root.op().into_iter().flat_map(|top| chain(graph, top)).collect();
        let mut seen = Seen::default();
        let mut steps: Vec<Arc<StepPlan>> = Vec::with_capacity(graph.ops().len());
        // Cache mounts that are written anew because the user wants it so: who sees one runs again too, as the step's outputs
        // may lie there.
        let mut anew: BTreeSet<&str> = BTreeSet::new();
        for (id, node) in graph.ops() {
            let caches = match &node.op {
                Op::Run(op) => op.mounts.iter().filter_map(cache_id).collect(),
                _ => Vec::new(),
            };
            let reads_cache =
                self.options.no_cache.allows(&node.about) && !caches.iter().any(|(cache, _)| anew.contains(cache));
            if !reads_cache {
                anew.extend(caches.iter().filter(|(_, read_only)| !read_only).map(|(cache, _)| *cache));
            }
            let reads_chain = reads_cache && node.op.inputs().iter().all(|input| steps[input.index()].reads_chain);
            let after = match &node.op {
                Op::Run(op) => order.next(id, op),
                _ => Vec::new(),
            };
            let (key, before, taken) = (None, Vec::new(), None);
            let leaving = Leaving { leaves: leaves.contains(&id), saw_secrets: seen.saw_secrets(id, &node.op) };
            let takes = taken_from(graph, &node.op);
            steps.push(Arc::new(StepPlan { id, key, before, after, taken, takes, leaving, reads_cache, reads_chain }));
        }
        let planned = vec![false; steps.len()];
        Plans { steps, planned, known: Known::new(), of_files: HashMap::new() }
    }

    /// Plans every step that is not planned yet and not late. Files of the context are read once here, for their digests, also
    /// those that late steps take; when they are written into a layer they are hashed again, and one that changed in between
    /// fails its step.
    ///
    /// # Errors
    /// The step that cannot be planned: a source that is not in the context, a file that cannot be read. Those before it are
    /// planned by then.
    pub(super) fn plan<'g>(
        &self,
        graph: &'g Graph,
        plans: &mut Plans<'g>,
        sight: &Sight,
    ) -> Result<(), (OpId, StepError)> {
        // The last step that may have written to a cache mount; its plan holds those before it.
        let mut writers: BTreeMap<&str, PlanKey> = BTreeMap::new();
        for (id, node) in graph.ops() {
            self.cancel.check().map_err(|stopped| (id, stopped.into()))?;
            if !plans.planned[id.index()] {
                let plan = self.step_plan(graph, id, plans, &writers, sight).map_err(|error| (id, error))?;
                plans.steps[id.index()] = Arc::new(plan);
                plans.planned[id.index()] = !sight.late.contains(&id);
            }
            if let (Op::Run(op), Some(key)) = (&node.op, plans.of(id).key) {
                let caches = op.mounts.iter().filter_map(cache_id);
                writers.extend(caches.filter(|(_, read_only)| !read_only).map(|(cache, _)| (cache, key)));
            }
        }
        Ok(())
    }

    /// The plan of a step; of a late one what can be told by now, without a key.
    fn step_plan<'g>(
        &self,
        graph: &'g Graph,
        id: OpId,
        plans: &mut Plans<'g>,
        writers: &BTreeMap<&str, PlanKey>,
        sight: &Sight,
    ) -> Result<StepPlan, StepError> {
        let mut plan = StepPlan::clone(plans.of(id));
        let steps = std::mem::take(&mut plans.steps);
        let root = |root: Root| match root {
            Root::Scratch => Some(PlanKey::scratch()),
            Root::Of(id) => steps[id.index()].key,
        };
        let done = match &graph.node(id).op {
            Op::Base(op) => {
                plan.key = Some(PlanKey::base(&op.diff_ids));
                Ok(())
            }
            Op::Fetch(_) => Ok(()),
            Op::Copy(op) => self.copy_source(graph, op, &root, &mut plan, plans, sight).map(|source| {
                plan.key = source.zip(root(op.input)).map(|(source, below)| PlanKey::copy(op, below, &source));
            }),
            Op::Run(op) => self.run_sources(op, &root).map(|mounted| {
                // A late one may be so for the sake of a mount alone, and then all but its place in the mount's order is known.
                if sight.late.contains(&id) {
                    return;
                }
                let caches = op.mounts.iter().filter_map(cache_id);
                plan.before = caches.filter_map(|(cache, _)| writers.get(cache).copied()).collect();
                plan.key = mounted
                    .zip(root(op.input))
                    .map(|(mounted, below)| PlanKey::run(op, below, &mounted, &plan.before, self.options.mode));
            }),
        };
        plans.steps = steps;
        done.map(|()| plan)
    }

    fn copy_source<'g>(
        &self,
        graph: &Graph,
        op: &'g CopyOp,
        plan_of: &dyn Fn(Root) -> Option<PlanKey>,
        plan: &mut StepPlan,
        plans: &mut Plans<'g>,
        sight: &Sight,
    ) -> Result<Option<SourceKey>, StepError> {
        if let Some(taken) = &plan.taken {
            // While it was late.
            return Ok(Some(SourceKey::Content(taken.key)));
        }
        let Plans { known, of_files, .. } = plans;
        let (folder, context) = match &op.from {
            CopyFrom::Context => (None, Some(&self.context)),
            CopyFrom::Folder(id) => (Some(*id), Some(self.folder(*id)?)),
            _ => (None, None),
        };
        let wanted = (folder, &op.sources[..], &op.exclude[..], op.unpack, op.parents);
        if context.is_some()
            && op.inline.is_empty()
            && let Some(taken) = known.get(&wanted)
        {
            plan.taken = Some(taken.clone());
            return Ok(Some(SourceKey::Content(taken.key)));
        }
        let mut of_file = None;
        let selected = match (&op.from, context) {
            (CopyFrom::MakeDirectory, _) => return Ok(Some(SourceKey::Nothing)),
            (CopyFrom::Root(root), _) => return Ok(plan_of(*root).map(SourceKey::Root)),
            (CopyFrom::Fetch(id), _) => match &graph.node(*id).op {
                Op::Fetch(_) if sight.late.contains(id) => return Ok(None),
                Op::Fetch(fetch) => {
                    let missing = || StepError::NotFetched { what: fetch.what() };
                    let file = sight.fetched.get(fetch).ok_or_else(missing)?;
                    let wanted = (plan.id, file.path.clone(), file.modified_seconds);
                    if let Some(taken) = of_files.get(&wanted) {
                        plan.taken = Some(taken.clone());
                        return Ok(Some(SourceKey::Content(taken.key)));
                    }
                    of_file = Some(wanted);
                    vec![fetched::selected_file(fetch, file)]
                }
                _ => return Ok(None),
            },
            (_, Some(context)) => self.selected(context, op)?,
            (CopyFrom::Context | CopyFrom::Folder(_), None) => return Ok(None),
        };
        let mut archives = Vec::new();
        let mut selected = self.take_archives(op, selected, &mut archives)?;
        // These are never unpacked.
        selected.extend(self.inline(op));
        self.hash(&mut selected)?;
        let key = key_of(&selected, &archives);
        let taken = Arc::new(Taken { selected, archives, key });
        if context.is_some() && op.inline.is_empty() {
            known.insert(wanted, taken.clone());
        }
        if let Some(file) = of_file {
            of_files.insert(file, taken.clone());
        }
        plan.taken = Some(taken);
        Ok(Some(SourceKey::Content(key)))
    }

    /// What the step selects of a context.
    fn selected(&self, context: &Context, op: &CopyOp) -> Result<Vec<Selected>, StepError> {
        let mut selected = Vec::new();
        for (base, filter) in copy::filters(op)? {
            let selection = context.select_of(base, &filter)?;
            for socket in &selection.skipped_sockets {
                let text = format!("left out the socket {}", String::from_utf8_lossy(socket));
                self.events.hear(Event::Warning { text });
            }
            selected.extend(selection.sources.into_iter().map(select::from_context));
        }
        Ok(selected)
    }

    fn run_sources(
        &self,
        op: &RunOp,
        plan_of: &dyn Fn(Root) -> Option<PlanKey>,
    ) -> Result<Option<Vec<SourceKey>>, StepError> {
        let mut sources = Vec::new();
        let mut is_whole = true;
        for mount in &op.mounts {
            match mount.from {
                // Which of the mounts has a source counts too.
                MountFrom::Nothing => sources.push(SourceKey::Nothing),
                MountFrom::Root(root) => match plan_of(root) {
                    Some(key) => sources.push(SourceKey::Root(key)),
                    // What it shows of the context is read all the same.
                    None => is_whole = false,
                },
                MountFrom::Context => sources.push(SourceKey::Content(self.context_tree(None, &mount.source)?.key())),
                MountFrom::Folder(folder) => {
                    sources.push(SourceKey::Content(self.context_tree(Some(folder), &mount.source)?.key()));
                }
            }
        }
        Ok(is_whole.then_some(sources))
    }

    /// Hashes the files whose content is not known yet, on all cores.
    pub(super) fn hash(&self, selected: &mut [Selected]) -> Result<(), StepError> {
        let mut files: Vec<&mut SelectedEntry> = Vec::new();
        for entry in selected.iter_mut().flat_map(|source| &mut source.entries) {
            match &entry.content {
                Content::Source(Source::File { .. }) if entry.digest.is_none() => files.push(entry),
                Content::Source(Source::Bytes(bytes)) => entry.digest = Some(ContentHash::of(bytes)),
                _ => {}
            }
        }
        let threads = std::thread::available_parallelism().map_or(1, NonZeroUsize::get).min(files.len().div_ceil(64));
        let next = AtomicUsize::new(0);
        let work = || {
            let mut digests = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some(Content::Source(Source::File { path, .. })) = files.get(number).map(|entry| &entry.content)
                else {
                    return Ok(digests);
                };
                self.cancel.check()?;
                digests.push((number, self.stats.hash_of(path)?));
            }
        };
        let found: Vec<Result<Vec<(usize, ContentHash)>, StepError>> = match threads {
            0 | 1 => vec![work()],
            _ => std::thread::scope(|scope| {
                let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
                workers
                    .into_iter()
                    .map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                    .collect()
            }),
        };
        for digests in found {
            for (number, digest) in digests? {
                files[number].digest = Some(digest);
            }
        }
        Ok(())
    }
}

/// The cache that a mount shows, and whether it is shown read-only.
fn cache_id(mount: &Mount) -> Option<(&str, bool)> {
    match &mount.kind {
        MountKind::Cache { id, .. } => Some((id, mount.read_only)),
        _ => None,
    }
}

fn key_of(selected: &[Selected], archives: &[Archive]) -> Key {
    let mut hasher = SelectionHasher::default();
    // Devices and inodes are this machine's; which names are one file is not.
    let mut files = BTreeMap::new();
    for source in selected {
        hasher.source(&source.name, source.entries.len());
        for entry in &source.entries {
            let next = files.len() as u64;
            let same_file = entry.same_file.map(|file| *files.entry(file).or_insert(next));
            let content = entry.digest;
            let capability = entry.capability.as_deref();
            hasher.entry(&entry.relative, &entry.kind, entry.mode, capability, content, same_file);
        }
    }
    for archive in archives {
        hasher.archive(archive.hash, archive.after);
    }
    hasher.finish()
}
