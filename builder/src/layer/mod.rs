//! Layers as streams with taps: entries, tar, compression, index, merged tree, safe unpack, diff of a snapshot.

mod apart;
mod apply;
mod builder;
mod change;
mod changes;
mod compress;
mod decode;
pub mod entry;
mod error;
mod index;
mod lowers;
mod options;
mod part;
mod pax;
pub mod read;
mod rewrite;
#[cfg(test)]
mod sample;
mod search;
mod sparse;
mod tap;
mod tar_reader;
mod tar_writer;
mod tree;

pub use apart::Apart;
pub use apply::{Applied, ApplyError, Form, LeftOut, apply_layer, apply_layer_apart, apply_layer_with_times};
pub use builder::{LayerBuilder, write_layer};
pub use change::{Change, Layer, Source};
pub use changes::{ChangesError, Manifest, note_owners, overlay_changes, tidy_upper};
pub use entry::{Entry, FileTime, Kind, LayerPath};
pub use error::{ArchiveError, LayerError};
pub use index::{ACCOUNTS_SIZE_MAX_BYTES, IndexEntry, LayerIndex, is_account_file};
pub use options::{Compression, LayerOptions, Limits, Times};
pub use part::Part;
pub use read::{Scan, read_layer};
pub use rewrite::{Rewritten, recompress, restamp};
pub use search::LayerSearch;
pub use tap::{IndexTap, index_layer};
pub use tar_writer::TarWriter;
pub use tree::{Node, Origin, Tree, TreeError};
