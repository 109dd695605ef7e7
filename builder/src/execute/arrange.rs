//! The selected sources of a `COPY` or `ADD`, each put at its place.
//!
//! The files, owners, modes and links are those of the reference builder, with these differences:
//! - a socket of the context is left out with a warning, where the reference makes an empty file of it;
//! - a block device stays one, where the reference makes a character device of it;
//! - a name that begins with `.wh.` is refused: readers of layers take it for the removal of another file, and that is what
//!   the reference's image comes to;
//! - `--parents` takes `.` and a pivot at the end (`dir/./`) for all that is in there, and follows a link before the pivot,
//!   where the reference finds nothing;
//! - `--chown` by name may stand beside `--link`: the names are looked up, though no file below is part of the layer;
//! - a link of an archive may lead to a folder that is not there yet: it is made;
//! - of several files that go to one place, and of names that the image does not know, the reference says nothing; here a
//!   warning does.

use super::item::Item;
use super::placing::{Placing, changed_mode, kept_attributes};
use super::select::{Selected, SelectedEntry};
use super::{Executor, StepError};
use crate::context::{DestinationState, Placement, PlannedSource, SourceShape, plan_copy};
use crate::event::Event;
use crate::graph::{CopyFrom, CopyOp};
use crate::layer::{Kind, LayerPath};

/// How many of the planned sources go where a later one goes too, and that place.
fn overwritten(plan: &[PlannedSource]) -> Option<(usize, &[u8])> {
    let last = plan.last()?;
    let is_lost = |one: &&PlannedSource| one.placement == Placement::Itself && one.target == last.target;
    let lost = plan.iter().filter(is_lost).count();
    (lost > 1).then_some((lost, &last.target))
}

impl Executor {
    /// Puts the selected sources at their places; `first` is the number of the first one among the step's.
    pub(super) fn place(
        &self,
        placing: &mut Placing<'_>,
        op: &CopyOp,
        owner: Option<(u32, u32)>,
        destination: &LayerPath,
        selected: &[Selected],
        first: usize,
    ) -> Result<(), StepError> {
        let state = match placing.state(destination) {
            None => DestinationState::Missing,
            Some(Kind::Directory) => DestinationState::Directory,
            Some(_) => DestinationState::NotADirectory,
        };
        let shapes: Vec<SourceShape<'_>> = selected
            .iter()
            .map(|source| SourceShape { name: &source.name, is_directory: source.is_directory() })
            .collect();
        let plan = plan_copy(&shapes, destination.as_bytes(), op.destination_is_directory || op.parents, state)?;
        if let Some((lost, target)) = overwritten(&plan) {
            let target = String::from_utf8_lossy(target);
            let text =
                format!("of {lost} sources only the last stays at /{target}: write `/{target}/` to keep them all");
            self.events.hear(Event::Warning { text });
        }
        for planned in plan {
            let target = LayerPath::clean(&planned.target).unwrap_or_default();
            let source = &selected[planned.source];
            for entry in &source.entries {
                if entry.relative.is_empty() && planned.placement == Placement::Contents {
                    placing.make_directory(&target)?;
                    continue;
                }
                let path = match entry.relative.is_empty() {
                    true => target.clone(),
                    false => LayerPath::clean(&[target.as_bytes(), b"/", &entry.relative].concat()).unwrap_or_default(),
                };
                let item = item_at(path, entry, op, owner, first + planned.source);
                placing.put(if entry.is_way { placing.way(item, entry.mode) } else { item })?;
            }
        }
        Ok(())
    }
}

fn item_at(path: LayerPath, entry: &SelectedEntry, op: &CopyOp, owner: Option<(u32, u32)>, source: usize) -> Item {
    let (uid, gid) = owner.unwrap_or(entry.owner);
    let is_link = matches!(entry.kind, Kind::Symlink(_));
    let mode = match &op.chmod {
        Some(chmod) if !is_link => changed_mode(chmod, entry.mode, entry.kind == Kind::Directory),
        _ => entry.mode,
    };
    Item {
        entry: crate::layer::Entry {
            path,
            kind: entry.kind.clone(),
            mode: mode & 0o7777,
            uid,
            gid,
            modified: entry.modified,
            xattrs: kept_attributes(entry.capability.as_ref()),
        },
        content: entry.content.clone(),
        digest: entry.digest,
        // Each source is a copy of its own: a name that another source gives is another file.
        same_file: entry.same_file.map(|(device, inode)| (source, device, inode)),
        timeless: !matches!(op.from, CopyFrom::Root(_) | CopyFrom::Fetch(_)),
    }
}
