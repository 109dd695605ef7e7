//! No layer leaves that holds a secret of the build.
//!
//! A layer is searched in the pass that writes it. Of a layer that an earlier build made, the store remembers which secrets
//! it was searched for, by id and by a byte that tells a new value from the old one (but for one in 256); for others it is
//! searched once more before it is taken.
//!
//! Layers of stages that are no part of the image stay here: what they hold is told, and fails nothing.

use std::sync::Arc;

use super::plan::StepPlan;
use super::{BuiltLayer, Executor, StepError};
use crate::event::Event;
use crate::graph::{MountKind, Op};
use crate::layer::{LayerBuilder, LayerSearch};

/// What decides how a step's layer is searched.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leaving {
    /// Whether the layer is one of the image's.
    pub(super) leaves: bool,
    /// Whether the command saw secrets, and so may have packed one.
    pub(super) saw_secrets: bool,
}

impl Leaving {
    pub(super) fn of(op: &Op, leaves: bool) -> Self {
        let is_secret = |kind: &MountKind| matches!(kind, MountKind::Secret { .. });
        let saw_secrets = matches!(op, Op::Run(run) if run.mounts.iter().any(|mount| is_secret(&mount.kind)));
        Self { leaves, saw_secrets }
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
    pub(super) fn keep_clean(&self, diff_id: &str) -> Result<(), StepError> {
        if self.mounts.search.is_empty() {
            return Ok(());
        }
        let mut marks = self.records.searched(diff_id);
        marks.extend(self.mounts.search.ids().iter().cloned());
        Ok(self.records.keep_searched(diff_id, &marks)?)
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
        let known = self.records.searched(layer.diff_id.as_ref());
        if search.ids().iter().all(|(id, mark)| known.get(id) == Some(mark)) {
            return Ok(());
        }
        let mut search = LayerSearch::new(Arc::clone(search), leaving.saw_secrets, true);
        search.layer(self.store.open_verified(&layer.digest)?, &layer.media_type)?;
        self.tell_what_was_not_searched(&search);
        self.keep_clean(layer.diff_id.as_ref())
    }
}
