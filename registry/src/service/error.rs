//! Everything that the registry refuses, in words for whoever asked.

use crate::auth::{AuthError, Denied};
use crate::spec::{
    Digest, DigestError, EndpointError, MANIFEST_SIZE_MAX_BYTES, ManifestError, NameError, Reference, RepoName, Tag,
};
use crate::storage::StorageError;

/// Why an operation was not done.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// code-1
    #[error("repository {repo} has no blob {digest}")]
    BlobUnknown {
        /// Where.
        repo: RepoName,
        /// Which.
        digest: Digest,
    },
    /// code-2
    #[error("the upload failed: {reason}")]
    UploadInvalid {
        /// What is wrong with it.
        reason: String,
    },
    /// code-3
    #[error("there is no such upload: it was never begun here, was cancelled, or its Location was altered")]
    UploadUnknown,
    /// code-4
    #[error("the content hashes to {actual}, not to the declared {declared}")]
    DigestMismatch {
        /// What the client said.
        declared: Digest,
        /// What it is.
        actual: Digest,
    },
    /// code-4
    #[error(transparent)]
    DigestInvalid(#[from] DigestError),
    /// code-4
    #[error("the request has no digest: expected the parameter `digest=sha256:...`")]
    DigestMissing,
    /// code-5
    #[error("{}", missing(.repo, .digests))]
    ManifestBlobUnknown {
        /// Where.
        repo: RepoName,
        /// Which are not there.
        digests: Vec<Digest>,
    },
    /// code-6
    #[error(transparent)]
    ManifestInvalid(#[from] ManifestError),
    /// code-6
    #[error("the manifest is too large: {found_bytes} bytes or more, expected at most {MANIFEST_SIZE_MAX_BYTES}")]
    ManifestTooLarge {
        /// How much was read of it, or announced.
        found_bytes: u64,
    },
    /// code-7
    #[error("repository {repo} has no manifest {reference}")]
    ManifestUnknown {
        /// Where.
        repo: RepoName,
        /// Which.
        reference: Reference,
    },
    /// code-7: asked for by a name that no tag can have.
    #[error("there is no such manifest: its tag is not one that a tag can have")]
    TagImpossible,
    /// code-8
    #[error(transparent)]
    NameInvalid(#[from] NameError),
    /// code-9
    #[error("there is no repository {repo}")]
    NameUnknown {
        /// Which.
        repo: RepoName,
    },
    /// code-10, 416: the chunk does not follow what is there.
    #[error("the chunk begins at byte {found}, but the upload has {expected_bytes} bytes: expected it to begin there")]
    ChunkOutOfOrder {
        /// Where the chunk begins.
        found: u64,
        /// How many bytes there are.
        expected_bytes: u64,
    },
    /// 413
    #[error("the blob is too large: this store takes at most {max_bytes} bytes")]
    BlobTooLarge {
        /// The most that the store takes.
        max_bytes: u64,
    },
    /// 416: somebody else goes on with the same upload.
    #[error(
        "another request is writing to this upload, or was when its replica stopped: ask for the upload's status and go on from there; if the status stays the same, begin a new upload"
    )]
    UploadContended,
    /// 416
    #[error("the range is not within the blob's {size_bytes} bytes")]
    RangeOutside {
        /// The blob's size.
        size_bytes: u64,
    },
    /// code-12
    #[error(transparent)]
    Denied(#[from] Denied),
    /// code-11, or 429 and 503 where it is only too early to say.
    #[error(transparent)]
    Unauthorized(#[from] AuthError),
    /// code-14
    #[error("too many requests: try again in {retry_after_seconds} s")]
    TooManyRequests {
        /// When it makes sense to try again.
        retry_after_seconds: u64,
    },
    /// A parameter that cannot be read.
    #[error("the parameter `{name}` is `{found}`: expected {expected}")]
    Parameter {
        /// Its name.
        name: &'static str,
        /// What it is.
        found: String,
        /// What it should be.
        expected: &'static str,
    },
    /// The client's body stopped before its end.
    #[error("the request's body ended before it was whole: {reason}")]
    BodyCut {
        /// What the connection said.
        reason: String,
    },
    /// 414
    #[error("the request names {found} tags: expected at most {max} at once")]
    TooManyTags {
        /// How many.
        found: usize,
        /// How many may be.
        max: usize,
    },
    /// A name of an old value.
    #[error(
        "names that end in `.at.` and a time are those of old values: they are pulled, never pushed: push {tag}, or choose another tag"
    )]
    TagOfThePast {
        /// Whose old value it would be.
        tag: Tag,
    },
    /// No such path.
    #[error("there is no such path here: a registry's are /v2/ and what the distribution specification puts below it")]
    NoSuchPath,
    /// The path exists, but not for this method.
    #[error("{method} is not possible here: expected {allowed}")]
    Method {
        /// What was tried.
        method: String,
        /// What may be.
        allowed: &'static str,
    },
    /// 409: the tag keeps its value.
    #[error(
        "tag {tag} of repository {repo} is immutable, and has another value or is just getting one: push under another tag"
    )]
    TagImmutable {
        /// Where.
        repo: RepoName,
        /// Which.
        tag: Tag,
    },
    /// 503: deletions of the same content kept getting in the way.
    #[error("the content was being deleted while it was pushed: push it again")]
    Contended,
    /// 503: no more requests are to be sent here.
    #[error("the registry is stopping")]
    Stopping,
    /// 5xx: the cause is for the log.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl From<EndpointError> for RegistryError {
    fn from(error: EndpointError) -> Self {
        match error {
            EndpointError::Path => Self::NoSuchPath,
            EndpointError::Name(NameError::Digest(error)) | EndpointError::Digest(error) => Self::DigestInvalid(error),
            EndpointError::Name(error) => Self::NameInvalid(error),
            EndpointError::Upload => Self::UploadUnknown,
        }
    }
}

fn missing(repo: &RepoName, digests: &[Digest]) -> String {
    const SHOWN: usize = 10;
    let shown: Vec<String> = digests.iter().take(SHOWN).map(Digest::to_string).collect();
    let more = match digests.len() {
        0..=SHOWN => String::new(),
        all => format!(" and {} more", all - SHOWN),
    };
    let shown = shown.join(", ");
    format!("the manifest names content that repository {repo} does not have: {shown}{more}: push it first")
}
