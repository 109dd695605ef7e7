//! What a caller decides about the client.

use std::path::PathBuf;
use std::time::Duration;

use crate::environment::Environment;
use crate::retry::RetryPolicy;

/// Settings of a [`Client`](crate::Client). Registries are named as in references: `host` or `host:port`.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Registries that are spoken to in plain HTTP. This machine's own (`localhost`, `127.0.0.0/8`, `::1`) need not be
    /// named; one of them that speaks TLS is told by its certificate or by `skip_tls_verify`.
    pub insecure: Vec<String>,
    /// Registries whose certificate is not checked.
    pub skip_tls_verify: Vec<String>,
    /// Further CA certificates for a registry: PEM files, in addition to the system's.
    pub certificates: Vec<(String, PathBuf)>,
    /// Folders with a folder per registry that holds `*.crt` (CA certificates), `*.cert` and `*.key` (our own).
    pub certificate_folders: Vec<PathBuf>,
    /// Mirrors that are asked before a registry, by the registry's name, in this order; for reading only.
    pub mirrors: Vec<(String, String)>,
    /// The one file with credentials, instead of all the usual ones.
    pub authfile: Option<PathBuf>,
    /// The process's environment, as values.
    pub environment: Environment,
    /// What is tried again, and when.
    pub retry: RetryPolicy,
    /// The `User-Agent` header.
    pub user_agent: String,
    /// Most blobs that one client and its clones fetch at once; as many more are sent at once, or passed on.
    pub transfers: usize,
    /// The longest wait for a connection.
    pub connect_timeout: Duration,
    /// The longest silence of a registry while something is under way.
    pub idle_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            insecure: Vec::new(),
            skip_tls_verify: Vec::new(),
            certificates: Vec::new(),
            certificate_folders: vec![PathBuf::from("/etc/docker/certs.d")],
            mirrors: Vec::new(),
            authfile: None,
            environment: Environment::default(),
            retry: RetryPolicy::default(),
            user_agent: concat!("fluyt/", env!("CARGO_PKG_VERSION")).to_owned(),
            transfers: 4,
            connect_timeout: Duration::from_secs(20),
            idle_timeout: Duration::from_secs(60),
        }
    }
}
