//! An independent reader of OCI layouts, image manifests and layers.
//!
//! It shares no code with the products, so that a mistake of theirs cannot hide itself here.

mod files;
mod layout;
mod rules;

pub use files::{Difference, FileState, Files, differences, files_of_tar};
pub use layout::{Image, LayerBlob, Layout};
pub use rules::violations;
