//! Keys of operations (pure) and records on disk: what a step made, found again by content.

pub mod key;
mod record;

pub use key::{Content, Key, LayerContent, LayerContentHasher, Mode};
pub use record::{BaseRecord, ConvertedRecord, Fidelity, LayerRecord, Records, Stamps};
