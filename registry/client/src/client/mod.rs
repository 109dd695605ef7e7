//! The operations of the distribution API, each with its own file.

mod download;
mod endpoint;
mod exchange;
mod file;
mod login;
mod manifest;
mod relay;
mod tags;
mod upload;

use std::fmt;
use std::sync::Arc;

use oci_spec::image::Digest;
use tokio::sync::Semaphore;

use crate::auth::Authenticator;
use crate::credential::Keyring;
use crate::error::{ClientError, Subject};
use crate::reference::Reference;
use crate::retry::RetryPolicy;
use crate::settings::Settings;
use crate::transport::{SharedTransport, Silence, Transport};
use endpoint::Endpoints;

pub use download::BlobStream;
pub use file::{FileAbout, FileAnswer, FileError, FileRequest};
pub use login::LoginCheck;
pub use manifest::{MANIFEST_MAX_BYTES, MANIFEST_TYPES, Manifest};
pub use tags::Tags;
pub use upload::Pushed;

/// A client of any number of registries. Clones share connections, tokens and the bound on transfers.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    transport: SharedTransport,
    auth: Authenticator,
    endpoints: Endpoints,
    retry: RetryPolicy,
    downloads: Arc<Semaphore>,
    /// Apart, so that what a build waits for does not wait for what it sends meanwhile.
    uploads: Arc<Semaphore>,
}

/// Some content by its digest: what a manifest says of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Blob {
    /// The digest of its bytes.
    pub digest: Digest,
    /// Its length, in bytes.
    pub size_bytes: u64,
}

/// A manifest as a registry names it, before it is fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The digest of its bytes.
    pub digest: Digest,
    /// Its media type; empty when the registry says none.
    pub media_type: String,
    /// Its length, in bytes.
    pub size_bytes: u64,
}

impl Client {
    /// A client with these settings. No connection is made, and no CA store read, before it is used.
    ///
    /// # Errors
    ///
    /// [`ClientError::Setting`] for an address of a mirror or proxy that is none.
    pub fn new(settings: Settings) -> Result<Self, ClientError> {
        let transport = Arc::new(Transport::new(&settings)?);
        let keyring = Keyring::new(settings.authfile.as_deref(), &settings.environment);
        Ok(Self {
            shared: Arc::new(Shared {
                auth: Authenticator::new(Arc::clone(&transport), keyring),
                endpoints: Endpoints::new(&settings.mirrors)?,
                retry: settings.retry,
                downloads: Arc::new(Semaphore::new(settings.transfers.max(1))),
                uploads: Arc::new(Semaphore::new(settings.transfers.max(1))),
                transport,
            }),
        })
    }

    /// Tells of every server that has not answered for some seconds, from now on, and in all clones of this client; instead of
    /// whom was told before. `told` is called from the threads that do the work and must be quick.
    pub fn tell_of_silence(&self, told: impl Fn(&Silence) + Send + Sync + 'static) {
        self.shared.transport.tell(Arc::new(told));
    }

    /// Gives what a user should know of the environment and stops nothing, from now on, and in all clones of this client;
    /// instead of to whom was told before.
    pub fn tell_of_warnings(&self, told: impl Fn(&str) + Send + Sync + 'static) {
        self.shared.transport.warn(Arc::new(told));
    }

    /// The credentials that this client uses.
    #[must_use]
    pub fn keyring(&self) -> &Keyring {
        self.shared.auth.keyring()
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

fn blob_subject(reference: &Reference, digest: &Digest) -> Subject {
    Subject { registry: reference.host().to_owned(), what: format!("blob {digest} of {}", reference.name()) }
}
