//! A layer before it is bytes: entries, and where each one's content comes from.

use std::path::PathBuf;

use oci_spec::image::Digest;

use super::{Entry, LayerIndex};
use crate::blob::ContentHash;

/// Where the content of an entry comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// There is none: anything but a regular file, or an empty file.
    None,
    /// These bytes.
    Bytes(Vec<u8>),
    /// A regular file on this machine. Its last component is not followed when it is a symbolic link.
    File {
        /// Where it is.
        path: PathBuf,
        /// The content as the cache key saw it. Other content at the time of writing is an error.
        expected: Option<ContentHash>,
    },
}

/// One entry of a layer to be, and its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The entry.
    pub entry: Entry,
    /// Its content.
    pub source: Source,
}

/// A finished layer: its blob is in the store.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// SHA-256 of the uncompressed tar.
    pub diff_id: Digest,
    /// SHA-256 of the blob.
    pub digest: Digest,
    /// Size of the blob.
    pub size_bytes: u64,
    /// The OCI media type of the blob.
    pub media_type: String,
    /// What is in it.
    pub index: LayerIndex,
}
