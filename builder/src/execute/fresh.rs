//! Whether a copy of an earlier build may stand on what lies below it now.
//!
//! The layer of a `COPY` is found by its content alone, and has the times that its files had when it was written. What lies below
//! may have been made since: programs that were compiled of other sources, which `make` and cargo would hold for newer than
//! the copied ones. So a copy is written again, with the times of today, where what lies below is not what it was first
//! written on, and where that can be seen: its files are newer than they were then, and older then than what a command, a base
//! image or another stage brought below it. `COPY --link` does not look below, here as in every other way.

use std::collections::HashMap;

use super::item::Items;
use super::{BuiltLayer, Executor, RootState, StepError};
use crate::blob::sha256;
use crate::cache::Stamps;
use crate::event::StepId;
use crate::layer::{FileTime, Kind, LayerPath, Tree};

/// What of a root may have been made of sources: all but what was copied from the user's files.
fn is_made(layer: &BuiltLayer) -> bool {
    layer.record().is_none_or(|record| record.stamps == Stamps::Made)
}

/// Names what of a root may have been made of sources, each run of a command by another name.
pub(super) fn made_below(below: &RootState) -> String {
    let made = below.layers.iter().filter(|layer| is_made(layer));
    // A step's layer is one thing in whatever form it is written.
    let rows = made.map(|layer| match layer.record() {
        Some(record) => format!("{} {}\n", record.content.key(), record.made_at),
        None => format!("{}\n", layer.diff_id),
    });
    sha256(rows.collect::<String>().as_bytes()).to_string()
}

impl Executor {
    /// Whether the layer that was found for a copy would show sources as older than what lies below and was made since.
    pub(super) fn shows_older(
        &self,
        step: StepId,
        found: &BuiltLayer,
        items: &Items,
        below: &RootState,
        tree: &Tree,
    ) -> Result<bool, StepError> {
        if found.record().is_none_or(|record| record.on.as_ref() == Some(&made_below(below))) {
            return Ok(false);
        }
        let is_file = |kind: &Kind| matches!(kind, Kind::File { .. });
        let made: Vec<bool> = below.layers.iter().map(is_made).collect();
        let made = |number: usize| made.get(number).copied().unwrap_or(true);
        let files = tree.iter().filter(|(_, node)| is_file(&node.entry.kind) && made(node.layer));
        let Some(newest) = files.map(|(_, node)| node.entry.modified).max() else { return Ok(false) };
        let index = self.index(step, found)?;
        let then: HashMap<&LayerPath, FileTime> =
            index.entries.iter().map(|row| (&row.entry.path, row.entry.modified)).collect();
        let mut files = items.iter().map(|item| &item.entry).filter(|entry| is_file(&entry.kind));
        Ok(files.any(|now| then.get(&now.path).is_some_and(|then| *then <= newest && *then < now.modified)))
    }
}
