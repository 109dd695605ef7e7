//! The distribution specification's own values, as types that cannot hold a wrong one.
//!
//! Everything here is pure: text or bytes in, a value or a named refusal out; no I/O, no clock, no HTTP. What comes from
//! outside is parsed here once, at the edge; code further in takes the type and checks nothing twice.

mod digest;
mod endpoint;
mod manifest;
mod name;
mod past;
mod pattern;
mod range;

pub use digest::{Algorithm, Digest, DigestError, Hasher};
pub use endpoint::{Endpoint, EndpointError, UploadId};
pub use manifest::{
    Descriptor, EMPTY_INDEX_MEDIA_TYPE, MANIFEST_REFERENCES_MAX, MANIFEST_SIZE_MAX_BYTES, Manifest, ManifestError,
};
pub use name::{NAME_COMPONENT_MAX_CHARACTERS, NAME_MAX_CHARACTERS, NameError, Reference, RepoName, Tag};
pub use past::PastTag;
pub use pattern::{PatternError, TagPattern};
pub use range::{ChunkRange, ReadRange};
