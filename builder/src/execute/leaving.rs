//! No layer leaves that holds a secret of the build.
//!
//! A layer is searched in the pass that writes it. Of a layer that an earlier build made, the store remembers which secrets
//! it was searched for, by id and by a byte that tells a new value from the old one (but for one in 256); for others it is
//! searched once more before it is taken.
//!
//! Layers of stages that are no part of the image stay here: what they hold is told, and fails nothing.

use std::collections::HashSet;
use std::sync::Arc;

use super::plan::StepPlan;
use super::{BuiltLayer, Executor, StepError};
use crate::event::Event;
use crate::graph::{CopyFrom, MountKind, Op, OpId, Root};
use crate::layer::{LayerBuilder, LayerSearch};

/// What decides how a step's layer is searched.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leaving {
    /// Whether the layer is one of the image's.
    pub(super) leaves: bool,
    /// Whether a command that saw secrets may have packed one into what the layer holds: the step's own, or one that made
    /// what the step copies, mounts or runs on.
    pub(super) saw_secrets: bool,
}

/// The steps in whose roots a command may have packed a secret, and the cache mounts.
#[derive(Debug, Default)]
pub(super) struct Seen {
    roots: HashSet<OpId>,
    caches: HashSet<String>,
}

impl Seen {
    /// Whether the layer of the next step may hold a packed secret. Steps come after what they need.
    ///
    /// What comes of the context or from elsewhere was packed by nobody who saw one, whatever it is laid on.
    pub(super) fn saw_secrets(&mut self, id: OpId, op: &Op) -> bool {
        let may_show = |kind: &MountKind| match kind {
            MountKind::Secret { .. } => true,
            MountKind::Cache { id, .. } => self.caches.contains(id),
            _ => false,
        };
        let is_seen = |root: Root| root.op().is_some_and(|id| self.roots.contains(&id));
        let saw_secrets = match op {
            Op::Run(run) => {
                run.mounts.iter().any(|mount| may_show(&mount.kind))
                    || op.inputs().iter().any(|input| self.roots.contains(input))
            }
            Op::Copy(copy) => matches!(copy.from, CopyFrom::Root(root) if is_seen(root)),
            Op::Base(_) | Op::Fetch(_) => false,
        };
        if saw_secrets || op.below().is_some_and(is_seen) {
            self.roots.insert(id);
        }
        if let (Op::Run(run), true) = (op, saw_secrets) {
            let written = run.mounts.iter().filter(|mount| !mount.read_only);
            self.caches.extend(written.filter_map(|mount| match &mount.kind {
                MountKind::Cache { id, .. } => Some(id.clone()),
                _ => None,
            }));
        }
        saw_secrets
    }
}

impl Executor {
    /// Begins the search in a layer that is about to be written.
    pub(super) fn search_in(&self, builder: &mut LayerBuilder, plan: &StepPlan) {
        let search = &self.mounts.search;
        if !search.is_empty() {
            builder.set_search(LayerSearch::new(search.clone(), plan.leaving.saw_secrets, plan.leaving.leaves));
        }
    }

    /// Ends the search in a layer that is written; `true` when it is clean.
    pub(super) fn searched(&self, builder: &mut LayerBuilder) -> bool {
        let Some(search) = builder.take_search() else { return false };
        self.tell_what_was_not_searched(&search);
        if let Some(held) = search.held() {
            let text = format!("{held}; its stage is no part of the image, and what is copied from it is searched");
            self.events.hear(Event::Warning { text });
        }
        search.held().is_none()
    }

    fn tell_what_was_not_searched(&self, search: &LayerSearch) {
        for text in search.not_searched() {
            self.events.hear(Event::Warning { text: text.clone() });
        }
    }

    /// Remembers that a layer holds none of this build's secrets.
    pub(super) fn keep_clean(&self, diff_id: &str, leaving: Leaving) -> Result<(), StepError> {
        if self.mounts.search.is_empty() {
            return Ok(());
        }
        Ok(self.records.keep_searched(diff_id, self.mounts.search.ids(), leaving.saw_secrets)?)
    }

    /// Looks for this build's secrets in a layer of an earlier one, where nobody has.
    ///
    /// # Errors
    /// When it holds one, and is to leave.
    pub(super) fn search_earlier(&self, layer: &BuiltLayer, leaving: Leaving) -> Result<(), StepError> {
        let search = &self.mounts.search;
        if search.is_empty() || !leaving.leaves {
            return Ok(());
        }
        let known = self.records.searched(layer.diff_id.as_ref(), leaving.saw_secrets);
        if search.ids().iter().all(|(id, mark)| known.get(id) == Some(mark)) {
            return Ok(());
        }
        let mut search = LayerSearch::new(Arc::clone(search), leaving.saw_secrets, true);
        let blob = self.store.open_verified(&layer.digest)?;
        search.layer(blob, &layer.media_type)?;
        self.tell_what_was_not_searched(&search);
        self.keep_clean(layer.diff_id.as_ref(), leaving)
    }
}
