//! A client of the OCI distribution API that both `fluyt` and `fluyt-registry` use.
mod auth;
mod challenge;
mod client;
mod credential;
mod environment;
mod error;
mod hash;
mod quote;
mod reference;
mod retry;
mod settings;
mod transport;
mod trust;

pub use client::{
    Blob, BlobStream, Client, LoginCheck, MANIFEST_MAX_BYTES, MANIFEST_TYPES, Manifest, Pushed, Resolved, Tags,
};
pub use credential::{Credential, CredentialError, Erased, Found, Keyring, Lookup, Stored};
pub use environment::Environment;
pub use error::{ClientError, RegistryMessage, Said};
pub use reference::{Reference, ReferenceError, is_loopback, normal_host};
pub use retry::RetryPolicy;
pub use settings::Settings;
