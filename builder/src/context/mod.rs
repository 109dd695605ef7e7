//! The files the user sends: ignore rules (pure) and the sorted walk.

mod filter;
mod ignore;
mod inputs;
mod listing;
mod modes;
mod nearest;
mod pattern;
mod placement;
mod walk;

pub use filter::{Filter, FilterState, split_at_pivot};
pub use ignore::{Ignore, IgnoreError, Rule, Verdict};
pub use inputs::{DockerfileText, InputError, read_dockerfile, read_dockerfile_from, read_ignore, usual_name};
pub use listing::{FileKind, Selection, Source, SourceEntry};
pub use modes::{Git, Modes};
pub use nearest::nearest_file_name;
pub use pattern::{BadPattern, Pattern, has_wildcards, split_at_wildcard};
pub use placement::{DestinationState, Placement, PlacementError, PlannedSource, SourceShape, plan_copy};
pub use walk::{Context, ContextError};
