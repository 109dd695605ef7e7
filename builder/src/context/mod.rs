//! The files the user sends: ignore rules (pure) and the sorted walk.

mod listing;
mod placement;

pub use listing::{FileKind, Selection, Source, SourceEntry};
pub use placement::{DestinationState, Placement, PlacementError, PlannedSource, SourceShape, plan_copy};
