//! What every step is about to do, found out before anything is fetched or run: what it takes of the context, and its plan
//! key (see `cache::plan`).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::cache_order::cache_order;
use super::engine::chain;
use super::item::Content;
use super::leaving::Leaving;
use super::select::{self, Selected, SelectedEntry};
use super::unpack::Archive;
use super::{Executor, StepError, copy};
use crate::blob::ContentHash;
use crate::cache::{Key, PlanKey, SelectionHasher, SourceKey};
use crate::context::Context;
use crate::event::Event;
use crate::graph::{CopyFrom, CopyOp, FolderId, Graph, Mount, MountFrom, MountKind, Op, OpId, Root, RunOp};
use crate::layer::Source;

/// What is known of a step before it runs.
#[derive(Debug)]
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

/// The plans of a graph's steps.
#[derive(Debug)]
pub(super) struct Plans(Vec<StepPlan>);

impl Plans {
    pub(super) fn of(&self, id: OpId) -> &StepPlan {
        &self.0[id.index()]
    }
}

impl Executor {
    /// Plans every step. Files of the context are read once here, for their digests; when they are written into a layer
    /// they are hashed again, and one that changed in between fails its step.
    ///
    /// # Errors
    /// The step that cannot be planned: a source that is not in the context, a file that cannot be read.
    pub(super) fn plan(&self, graph: &Graph) -> Result<Plans, (OpId, StepError)> {
        let mut plans = Plans(Vec::with_capacity(graph.ops().len()));
        // The last step that may have written to a cache mount; its plan holds those before it.
        let mut writers: BTreeMap<&str, PlanKey> = BTreeMap::new();
        let mut order = cache_order(&self.store);
        let mut known = Known::new();
        let leaves: HashSet<OpId> = graph.result.root.op().into_iter().flat_map(|top| chain(graph, top)).collect();
        for (id, node) in graph.ops() {
            if self.cancel.is_cancelled() {
                return Err((id, StepError::Cancelled));
            }
            let root = |root: Root| match root {
                Root::Scratch => Some(PlanKey::scratch()),
                Root::Of(id) => plans.of(id).key,
            };
            let reads_cache = self.options.no_cache.allows(&node.about);
            let reads_chain = reads_cache && node.op.inputs().iter().all(|input| plans.of(*input).reads_chain);
            let (key, before, after, taken) = (None, Vec::new(), Vec::new(), None);
            let leaving = Leaving::of(&node.op, leaves.contains(&id));
            let mut plan = StepPlan { id, key, before, after, taken, leaving, reads_cache, reads_chain };
            match &node.op {
                Op::Base(op) => plan.key = Some(PlanKey::base(&op.diff_ids)),
                Op::Fetch(_) => {}
                Op::Copy(op) => {
                    let source =
                        self.copy_source(graph, op, &root, &mut plan, &mut known).map_err(|error| (id, error))?;
                    plan.key = source.zip(root(op.input)).map(|(source, below)| PlanKey::copy(op, below, &source));
                }
                Op::Run(op) => {
                    let mounted = self.run_sources(op, &root).map_err(|error| (id, error))?;
                    let caches = || op.mounts.iter().filter_map(cache_id);
                    plan.before = caches().filter_map(|(cache, _)| writers.get(cache).copied()).collect();
                    plan.after = order.next(id, op);
                    plan.key = mounted
                        .zip(root(op.input))
                        .map(|(mounted, below)| PlanKey::run(op, below, &mounted, &plan.before, self.options.mode));
                    if let Some(key) = plan.key {
                        writers.extend(caches().filter(|(_, read_only)| !read_only).map(|(cache, _)| (cache, key)));
                    }
                }
            }
            plans.0.push(plan);
        }
        self.stats.save(&self.store);
        Ok(plans)
    }

    fn copy_source<'g>(
        &self,
        graph: &Graph,
        op: &'g CopyOp,
        plan_of: &dyn Fn(Root) -> Option<PlanKey>,
        plan: &mut StepPlan,
        known: &mut Known<'g>,
    ) -> Result<Option<SourceKey>, StepError> {
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
        let selected = match (&op.from, context) {
            (CopyFrom::MakeDirectory, _) => return Ok(Some(SourceKey::Nothing)),
            (CopyFrom::Root(root), _) => return Ok(plan_of(*root).map(SourceKey::Root)),
            (CopyFrom::Fetch(id), _) => match &graph.node(*id).op {
                Op::Fetch(fetch) => vec![self.fetched_file(fetch)?],
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
        for mount in &op.mounts {
            match mount.from {
                MountFrom::Nothing => {}
                MountFrom::Root(root) => match plan_of(root) {
                    Some(key) => sources.push(SourceKey::Root(key)),
                    None => return Ok(None),
                },
                MountFrom::Context => sources.push(SourceKey::Content(self.context_tree(None, &mount.source)?.key())),
                MountFrom::Folder(folder) => {
                    sources.push(SourceKey::Content(self.context_tree(Some(folder), &mount.source)?.key()));
                }
            }
        }
        Ok(Some(sources))
    }

    /// Hashes the files whose content is not known yet, on all cores.
    fn hash(&self, selected: &mut [Selected]) -> Result<(), StepError> {
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
                if self.cancel.is_cancelled() {
                    return Err(StepError::Cancelled);
                }
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
