//! Keys of operations (pure) and records on disk: what a step made, found again by content.

mod explain;
pub mod key;
mod plan;
mod record;

pub use explain::{Preimage, Preimages};
pub use key::{Content, Key, LayerContent, LayerContentHasher, Mode};
pub use plan::{PlanKey, SelectionHasher, SourceKey};
pub use record::{BaseRecord, ConvertedRecord, LayerRecord, PlanRecord, PlannedLayer, REAL_TIMES, Records, Stamps};
