//! What can be wrong with a layer.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use oci_spec::image::Digest;

use super::LayerPath;
use crate::blob::{ContentHash, StoreError};
use crate::secrets::Found;

/// Why a layer could not be written or read. Every refusal of foreign bytes has its own variant.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayerError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),

    // Reading.
    /// The layer's tar is another one than its image says.
    #[error("the layer's tar has the digest {found}, and its image says {expected}")]
    DiffId {
        /// The diff id that it should have.
        expected: Digest,
        /// The one that it has.
        found: Digest,
    },
    /// The layer's bytes could not be had.
    #[error("reading the layer")]
    Read(#[source] io::Error),
    /// The compressed stream is damaged or ends early.
    #[error("the layer's {format} stream is damaged or ends early")]
    Compressed {
        /// `gzip` or `zstd`.
        format: &'static str,
        /// The decoder's words.
        #[source]
        source: io::Error,
    },
    /// By its media type the layer holds no files, or none that we can read.
    #[error("a layer of type {media_type:?} cannot be read; expected a tar that is not encrypted")]
    NotFiles {
        /// The media type.
        media_type: String,
    },
    /// The layer is compressed in a way that we do not read.
    #[error("the layer is compressed with {found}; expected gzip, zstd or none")]
    UnknownCompression {
        /// What its first bytes say it is.
        found: &'static str,
    },
    /// The tar ends in the middle of something.
    #[error("the layer's tar ends inside {inside}")]
    Truncated {
        /// A header, or the content of an entry.
        inside: String,
    },
    /// A header is no tar header.
    #[error("the layer's tar has no valid header at byte {offset}: {reason}")]
    BadHeader {
        /// Where it starts in the uncompressed tar.
        offset: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// A PAX record cannot be read or contradicts its header.
    #[error("the layer's tar has a bad PAX record before byte {offset}: {reason}")]
    BadPax {
        /// Where the header that it describes starts, in the uncompressed tar.
        offset: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// A path leaves the root of the image.
    #[error("the layer's entry {path:?} has `..` in its path, and could leave the image")]
    Escapes {
        /// The path as it stands in the layer.
        path: String,
    },
    /// A path or link target holds a NUL byte.
    #[error("the layer's entry {path:?} has a NUL byte in its path or link")]
    Nul {
        /// The path as it stands in the layer.
        path: String,
    },
    /// A `.wh.` name that means nothing.
    #[error("the layer's entry {path:?} is no valid whiteout: {reason}")]
    BadWhiteout {
        /// The path as it stands in the layer.
        path: String,
        /// Why not.
        reason: &'static str,
    },
    /// A kind of entry that an image cannot have.
    #[error("the layer's entry {path:?} is of a kind that we do not read: {kind}")]
    UnknownKind {
        /// The path as it stands in the layer.
        path: String,
        /// Which kind.
        kind: String,
    },
    /// The layer is larger than allowed.
    #[error("the layer has more than {limit} {what}")]
    TooMuch {
        /// What was counted.
        what: &'static str,
        /// How many are allowed.
        limit: u64,
    },

    // Writing.
    /// The place that takes the tar failed.
    #[error("writing the tar")]
    Write(#[source] io::Error),
    /// The file that an entry's content comes from could not be read.
    #[error("reading {} for the layer", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// The system's words.
        #[source]
        source: io::Error,
    },
    /// A file is not what it was when its cache key was made.
    #[error("{} changed while the image was built: expected {}, found {found}; run the build again", path.display(), told(.expected.as_ref()))]
    Changed {
        /// The file.
        path: PathBuf,
        /// The content that was expected, when that was known.
        expected: Option<ContentHash>,
        /// What is there now.
        found: String,
    },
    /// Content was shorter or longer than its entry says.
    #[error("the content of {path} has {found} bytes, and its entry says {expected}")]
    Size {
        /// The entry.
        path: LayerPath,
        /// By its entry.
        expected: u64,
        /// What came; one more than expected when there was more.
        found: u64,
    },
    /// Entries came out of order, which would make the bytes depend on chance.
    #[error("the layer's entry {path} came after {after}; entries must be sorted by path, each once")]
    Unsorted {
        /// The entry.
        path: LayerPath,
        /// What came before.
        after: LayerPath,
    },
    /// A hard link whose first name is not in this layer, or stands after it.
    #[error("the layer's entry {path} links to {target}, which is no file before it in the same layer")]
    DanglingHardlink {
        /// The entry.
        path: LayerPath,
        /// What it links to.
        target: LayerPath,
    },
    /// A name that a layer cannot hold, as every reader would take it for a whiteout.
    #[error("{path} cannot be in an image: names that start with `.wh.` mean a removed file in a layer")]
    ReservedName {
        /// The entry.
        path: LayerPath,
    },
    /// Something in an entry cannot be written.
    #[error("{path} cannot be written to a layer: {reason}")]
    Unwritable {
        /// The entry.
        path: LayerPath,
        /// Why not.
        reason: String,
    },
    /// An entry holds a secret of the build.
    #[error("{part}{path}{} holds the secret `{}`{}", inside.as_ref().map(|inside| format!(" ({inside})")).unwrap_or_default(), found.id, found.spelling)]
    Secret {
        /// The entry.
        path: LayerPath,
        /// What of it, as the message begins; empty for a file's content.
        part: &'static str,
        /// Where in an archive it is.
        inside: Option<String>,
        /// Which secret.
        found: Found,
    },
    /// One entry failed, and the tar ends in the middle of it.
    #[error("the layer cannot be finished, as one of its entries failed")]
    Unfinished,
    /// A stored index is not what this version writes.
    #[error("the index of layer {diff_id} is damaged: {reason}")]
    BadIndex {
        /// The layer.
        diff_id: Digest,
        /// What is wrong with it.
        reason: String,
    },
}

impl LayerError {
    /// The change that is the reason why a file cannot be opened which was there when its key was made; none where it is
    /// another reason.
    #[must_use]
    pub fn change_by(path: &Path, expected: Option<ContentHash>, error: &io::Error) -> Option<Self> {
        let found = match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => "no file",
            _ if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => "a symbolic link",
            _ => return None,
        };
        Some(Self::Changed { path: path.to_owned(), expected, found: found.to_owned() })
    }
}

/// What is wrong with an archive that is no layer, and is read as one.
#[derive(Debug)]
pub struct ArchiveError(pub LayerError);

impl fmt::Display for ArchiveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_string().replace("the layer", "the archive"))
    }
}

impl std::error::Error for ArchiveError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

fn told(expected: Option<&ContentHash>) -> String {
    expected.map_or_else(|| "the file that the build saw first".to_owned(), ToString::to_string)
}
