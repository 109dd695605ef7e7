//! What can be wrong with an image's documents.

/// Why a manifest, index or configuration cannot be read or made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The bytes are not the JSON that they should be.
    #[error("the image's {what} cannot be read: {reason}")]
    Unreadable {
        /// Which document.
        what: &'static str,
        /// What is wrong, and where.
        reason: String,
    },
    /// A document of a kind that holds no image for us.
    #[error("expected an image manifest or an image index, found {found}")]
    UnknownKind {
        /// What it says it is.
        found: String,
    },
    /// The media type and the content of a manifest contradict each other, or both kinds' fields are there.
    #[error("the manifest is ambiguous: {reason}")]
    Ambiguous {
        /// In which way.
        reason: String,
    },
    /// Docker's own manifests have no place for annotations.
    #[error("annotations need OCI media types, and Docker's were asked for; leave out either")]
    AnnotationsNeedOci,
    /// The configuration and the manifest disagree about the layers.
    #[error("the image's manifest has {layers} layers, and its configuration {diff_ids}")]
    LayerCount {
        /// By the manifest.
        layers: usize,
        /// By the configuration.
        diff_ids: usize,
    },
}
