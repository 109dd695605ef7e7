//! A client of the OCI distribution API that both `fluyt` and `fluyt-registry` use: manifests, blobs and tags, read and
//! written; credentials; the trust of each registry.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use fluyt_client::{Client, Environment, Reference, Settings};
//!
//! let client = Client::new(Settings { environment: Environment::from_process(), ..Settings::default() })?;
//! let reference = Reference::parse("alpine:3.20")?;
//! let manifest = client.manifest(&reference, &[]).await?;
//! println!("{} {}", manifest.digest, manifest.media_type);
//! # Ok(())
//! # }
//! ```
//!
//! # What decided for a client of our own
//!
//! `oci-client` 0.18, the one crate of the kind, does not try again, does not go on with a broken upload, knows no
//! identity tokens and one mirror only, and holds whole layers in memory on its simple paths. What is missing is the
//! part that is hard, so the protocol is spoken here, on `reqwest` 0.13 with `rustls` and `aws-lc-rs`, the same as the
//! registry's object stores use: one HTTP stack and one cryptography in both programs, and nothing of the system's in a
//! static binary. `docker_credential` only reads, and does not know podman's files, so credentials are read here too.
//!
//! # What holds
//!
//! - Nothing that has no bound is held in memory: a blob passes by in pieces, a manifest has its limit, so has every
//!   other answer. A source is read a few pieces ahead of the network, a sink is written as pieces come.
//! - What is returned as `Ok` had its digest and size checked, except for what a tag stands for, which is the
//!   registry's word. The registry checks what is sent, and when it refuses, the source is read again to tell who is
//!   wrong.
//! - What is tried again is what can be: requests that do the same when they come twice, downloads from where they broke
//!   with the hash carried on, uploads from where the registry says they are. Waits double, with chance in them, and
//!   `Retry-After` is kept. What got no further is given up after a few attempts, a transfer that was under way after half
//!   a minute.
//! - `Authorization` goes to the registry it is for and to the token service that this registry names by TLS; not to
//!   where it redirects, and not to a mirror. Neither errors nor `Debug` nor logs hold a secret or a signed address.
//! - TLS is not left for plain HTTP, except to this machine and to registries that the user names insecure.
//! - The process's environment is read by [`Environment::from_process`] and nowhere else.
//!
//! # Rooms
//!
//! Lowest first; each uses only rooms named before it, which a test checks:
//! `quote`, `reference`, `retry`, `challenge` (pure), `environment`, `credential`, `error`, `hash`, `settings`, `trust`,
//! `transport` (one request), `auth` (who we are), `client` (what is asked for).

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
    Blob, BlobStream, Client, FileAbout, FileAnswer, FileError, FileRequest, LoginCheck, MANIFEST_MAX_BYTES,
    MANIFEST_TYPES, Manifest, Pushed, Resolved, Tags,
};
pub use credential::{Credential, CredentialError, Erased, Found, Keyring, Lookup, Stored};
pub use environment::Environment;
pub use error::{ClientError, RegistryMessage, Said};
pub use quote::without_password;
pub use reference::{Reference, ReferenceError, is_loopback, normal_host};
pub use retry::RetryPolicy;
pub use settings::Settings;
pub use transport::Silence;
