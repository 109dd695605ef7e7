//! Adapts the registry client to a build: pull of a base, push of an image, events and budget.

mod places;
mod pull;
mod push;

use fluyt_client::{Client, ClientError, Silence};

use crate::blob::{Store, StoreError};
use crate::event::{Event, Events};

pub use pull::RemoteImage;
pub use push::{Origins, Uploads};

/// Indexes that stand in each other before it is one too many.
const DEPTH_MAX: usize = 4;

/// Registries, as the builder uses them.
#[derive(Clone)]
pub struct Remote {
    client: Client,
    store: Store,
    events: Events,
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remote").field("client", &self.client).finish_non_exhaustive()
    }
}

impl Remote {
    /// Registries through `client`; what is fetched goes to `store`.
    #[must_use]
    pub fn new(client: Client, store: Store, events: Events) -> Self {
        let hears = events.clone();
        client.tell_of_silence(move |silence| {
            let Silence { host, what, lasted, limit } = silence;
            let (lasted, limit) = (lasted.as_secs(), limit.as_secs());
            let text = format!("waiting for {host}, silent for {lasted} s, about {what}; given up after {limit} s");
            hears.hear(Event::Note { text });
        });
        let hears = events.clone();
        client.tell_of_warnings(move |text| hears.hear(Event::Warning { text: text.to_owned() }));
        Self { client, store, events }
    }
}

/// Why something could not be had from a registry, or given to it.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// The registry, or the way to it.
    #[error(transparent)]
    Client(Box<ClientError>),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The image is there, but not for the platform.
    #[error("image {reference} has no variant for {wanted}; it has {}", if available.is_empty() { "none that says its platform".to_owned() } else { available.join(", ") })]
    NoPlatform {
        /// The image.
        reference: String,
        /// The platform asked for.
        wanted: String,
        /// The platforms that there are.
        available: Vec<String>,
    },
    /// A manifest or configuration that cannot be used.
    #[error("image {reference} cannot be used: {problem}")]
    Malformed {
        /// The image.
        reference: String,
        /// What is wrong.
        problem: String,
    },
    /// The image that is to be pushed is not whole in the store.
    #[error("the store does not have {what} of the image, which {reference} needs")]
    Incomplete {
        /// Where it is pushed.
        reference: String,
        /// What is missing.
        what: String,
    },
}

impl From<ClientError> for RemoteError {
    fn from(error: ClientError) -> Self {
        Self::Client(Box::new(error))
    }
}

impl RemoteError {
    /// Whether the registry could not be asked at all, or did not answer usefully, so that a copy in the store is the
    /// best there is. A registry that answers "not found" or "denied" has been asked.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Client(error) if error.is_transient())
    }

    /// Whether what came was not the blob that was asked for.
    fn is_of_the_content(&self) -> bool {
        let Self::Client(error) = self else { return false };
        matches!(**error, ClientError::DigestMismatch { .. } | ClientError::Truncated { .. })
    }
}
