//! Layers as streams with taps: entries, tar, compression, index, merged tree, safe unpack, diff of a snapshot.

pub mod entry;

pub use entry::{Entry, FileTime, Kind, LayerPath};
