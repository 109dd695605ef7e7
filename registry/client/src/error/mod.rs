//! What can go wrong between the client and a registry: one variant per cause that a caller may decide on.
//!
//! Messages name the registry, the repository and the digest, and never hold a password, a token or a signed URL.

mod body;

use std::fmt;
use std::io;
use std::time::Duration;

use oci_spec::image::Digest;

use crate::credential::cloud;

pub use body::{RegistryMessage, Said};

/// Why a request to a registry did not give what was asked for.
///
/// `what` is the thing asked for, such as `manifest docker.io/library/alpine:latest`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// A setting cannot be used.
    #[error("{name} `{value}`: {problem}")]
    Setting {
        /// The setting's name, as a user knows it.
        name: &'static str,
        /// Its value, without passwords.
        value: String,
        /// What is wrong, and what is expected.
        problem: String,
    },
    /// The registry does not have it (404).
    #[error("registry `{registry}` does not have {what}{said}")]
    NotFound {
        /// The registry, as the user names it.
        registry: String,
        /// What was asked for.
        what: String,
        /// The registry's own words.
        said: Said,
    },
    /// The registry wants other credentials, or any (401).
    #[error("registry `{registry}` asks for credentials for {what}: {tried}{said}; {hint}")]
    Unauthorized {
        /// The registry, as the user names it.
        registry: String,
        /// What was asked for.
        what: String,
        /// Which credentials were tried, or why there were none.
        tried: String,
        /// The registry's own words.
        said: Said,
        /// What the user can do.
        hint: String,
    },
    /// The credentials are good, but not for this (403).
    #[error("registry `{registry}` denies access to {what}{said}{hint}")]
    Denied {
        /// What the user can do, where the clouds answer so to whom they do not know.
        hint: String,
        /// The registry, as the user names it.
        registry: String,
        /// What was asked for.
        what: String,
        /// The registry's own words.
        said: Said,
    },
    /// The registry does not offer the operation (405, 501, `UNSUPPORTED`).
    #[error("registry `{registry}` does not support this for {what}{said}{}", no_registry(.said))]
    Unsupported {
        /// The registry, as the user names it.
        registry: String,
        /// What was asked for.
        what: String,
        /// The registry's own words.
        said: Said,
    },
    /// The registry's rate limit was hit (429), and waiting did not help.
    #[error("registry `{registry}` limits the number of requests for {what}{}{said}", wait_text(*.wait))]
    TooManyRequests {
        /// The registry, as the user names it.
        registry: String,
        /// What was asked for.
        what: String,
        /// How long the registry asks to wait, when it says so.
        wait: Option<Duration>,
        /// The registry's own words.
        said: Said,
    },
    /// The registry refused what was sent, or answered with a status that is not expected here.
    #[error("registry `{registry}` answers with status {status} to the request for {what}{said}{hint}")]
    Protocol {
        /// The registry, as the user names it.
        registry: String,
        /// What was asked for.
        what: String,
        /// The HTTP status.
        status: u16,
        /// The wait that the registry asked for, if it did.
        wait: Option<Duration>,
        /// The registry's own words.
        said: Said,
        /// What the user can do, if it can be told; starts with `; `.
        hint: String,
    },
    /// An answer of the registry cannot be understood.
    #[error("registry `{registry}` gives an answer about {what} that cannot be used: {problem}")]
    Answer {
        /// The registry, as the user names it.
        registry: String,
        /// What was asked for.
        what: String,
        /// What is wrong, what was expected.
        problem: String,
    },
    /// The content is not what its digest says.
    #[error("registry `{registry}` sends other content for {what}: expected digest {expected}, found {found}")]
    DigestMismatch {
        /// The registry, as the user names it.
        registry: String,
        /// What was asked for.
        what: String,
        /// The digest asked for, or promised by the registry.
        expected: Box<Digest>,
        /// The digest of what came.
        found: Box<Digest>,
    },
    /// The content has another length than its descriptor says.
    #[error("registry `{registry}` sends {found_bytes} bytes for {what}, and {expected_bytes} were expected")]
    Truncated {
        /// The registry, as the user names it.
        registry: String,
        /// What was asked for.
        what: String,
        /// The descriptor's size, in bytes.
        expected_bytes: u64,
        /// What came, in bytes.
        found_bytes: u64,
    },
    /// The content is larger than what may be held in memory.
    #[error("registry `{registry}` sends more than {limit_bytes} bytes for {what}, which is the most accepted")]
    TooLarge {
        /// The registry, as the user names it.
        registry: String,
        /// What was asked for.
        what: String,
        /// The limit, in bytes.
        limit_bytes: u64,
    },
    /// No TLS connection: the certificate is not trusted, or the other side does not speak TLS.
    #[error("no secure connection to `{host}`: {problem}; {hint}")]
    Tls {
        /// Host and port.
        host: String,
        /// What is wrong.
        problem: String,
        /// What the user can do.
        hint: String,
    },
    /// No connection.
    #[error("cannot connect to `{host}`: {problem}")]
    Connect {
        /// Host and port.
        host: String,
        /// What is wrong.
        problem: String,
    },
    /// The connection broke while something was under way, and trying again did not help.
    #[error("the connection to `{host}` broke at {what}: {problem}")]
    Cut {
        /// Host and port.
        host: String,
        /// What was asked for.
        what: String,
        /// What is known of the cause.
        problem: String,
    },
    /// Nothing came, or nothing could be sent, for too long.
    #[error("`{host}` has been silent for {} s at {what}", .after.as_secs())]
    Timeout {
        /// Host and port.
        host: String,
        /// What was asked for.
        what: String,
        /// The silence that is borne.
        after: Duration,
    },
    /// The registry leads to a place where the client does not go.
    #[error("registry `{registry}` redirects the request for {what} to `{host}`: {problem}")]
    Redirect {
        /// The registry, as the user names it.
        registry: String,
        /// What was asked for.
        what: String,
        /// Scheme and host of the target.
        host: String,
        /// Why it is not followed.
        problem: String,
    },
    /// What was received cannot be written.
    #[error("cannot write {what}: {source}")]
    Sink {
        /// What was asked for.
        what: String,
        /// The writer's error.
        source: io::Error,
    },
    /// What is to be sent cannot be read.
    #[error("cannot read {what} to send it: {source}")]
    Source {
        /// What was to be sent.
        what: String,
        /// The reader's error.
        source: io::Error,
    },
    /// What was to be sent is not what its digest or size says: the local copy is damaged.
    #[error("the local copy of {what} is damaged: {problem}")]
    Damaged {
        /// What was to be sent.
        what: String,
        /// Expected and found.
        problem: String,
    },
    /// A digest of an algorithm that the client cannot compute.
    #[error("{what} has a digest of the algorithm `{algorithm}`; sha256, sha384 and sha512 can be checked")]
    Algorithm {
        /// What was asked for.
        what: String,
        /// The algorithm's name.
        algorithm: String,
    },
    /// Credentials cannot be stored or removed.
    #[error(transparent)]
    Credential(#[from] crate::credential::CredentialError),
}

fn wait_text(wait: Option<Duration>) -> String {
    wait.map_or_else(String::new, |wait| format!(", and asks to wait {} s", wait.as_secs()))
}

/// Doubt about a server that refuses a method and does not say so as a registry would: most such servers are none.
fn no_registry(said: &Said) -> &'static str {
    let as_registry = said.messages().iter().any(|message| !message.code.is_empty());
    if as_registry { "" } else { "; it does not answer as a registry does: is its name right?" }
}

impl ClientError {
    /// Whether it is the moment or the network, and not the request, that failed; the client has tried again already.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.failure().is_some()
    }

    /// What a retry policy decides on; `None`: another attempt cannot help.
    pub(crate) fn failure(&self) -> Option<crate::retry::Failure> {
        use crate::retry::Failure;
        match self {
            Self::Connect { .. } => Some(Failure::Connect),
            Self::Cut { .. } | Self::Timeout { .. } => Some(Failure::Cut),
            Self::TooManyRequests { wait, .. } => Some(Failure::Status { code: 429, asked: *wait }),
            Self::Protocol { status, wait, .. } if crate::retry::may_be_tried_again(*status) => {
                Some(Failure::Status { code: *status, asked: *wait })
            }
            _ => None,
        }
    }
}

/// Where a request goes and what for: the words of its errors.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    pub(crate) registry: String,
    pub(crate) what: String,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl Subject {
    pub(crate) fn answer(&self, problem: impl Into<String>) -> ClientError {
        ClientError::Answer {
            registry: self.registry.clone(),
            what: self.what.clone(),
            problem: crate::quote::clean(&problem.into()),
        }
    }

    /// The error for a status that is no success here. 401 is the authenticator's.
    pub(crate) fn refused(&self, status: u16, wait: Option<Duration>, said: Said, wants_tls: bool) -> ClientError {
        let (registry, what) = (self.registry.clone(), self.what.clone());
        match status {
            404 => ClientError::NotFound { registry, what, said },
            403 => {
                let hint = cloud::advice(&registry).map(|advice| format!("; if nobody is logged in there, {advice}"));
                ClientError::Denied { hint: hint.unwrap_or_default(), registry, what, said }
            }
            405 | 501 => ClientError::Unsupported { registry, what, said },
            429 => ClientError::TooManyRequests { registry, what, wait, said },
            _ if said.has_code("UNSUPPORTED") => ClientError::Unsupported { registry, what, said },
            _ => {
                let hint = if wants_tls {
                    "; it wants TLS: give its certificate with --registry-certificate, or use --skip-tls-verify-registry".to_owned()
                } else {
                    String::new()
                };
                ClientError::Protocol { registry, what, status, wait, said, hint }
            }
        }
    }
}
