//! What the client takes from the process's environment, as values: [`Environment::from_process`] alone reads it.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

/// Values of the environment variables that matter to the client.
///
/// An empty variable counts as one that is not set. `Debug` leaves out the credentials, and the proxies' values, which may
/// hold passwords.
#[derive(Clone, Default)]
pub struct Environment {
    /// `HOME`: where `.docker/config.json` and `.config/containers/auth.json` are.
    pub home: Option<PathBuf>,
    /// `DOCKER_CONFIG`: the folder of `config.json`.
    pub docker_config: Option<PathBuf>,
    /// `DOCKER_AUTH_CONFIG`: credentials in the form of a `config.json`.
    pub docker_auth_config: Option<String>,
    /// `REGISTRY_AUTH_FILE`: the one file with credentials.
    pub registry_auth_file: Option<PathBuf>,
    /// Where podman keeps the credentials of this session: `$XDG_RUNTIME_DIR/containers`, without it `/run/containers/UID`.
    pub runtime_folder: Option<PathBuf>,
    /// `XDG_CONFIG_HOME`.
    pub xdg_config_home: Option<PathBuf>,
    /// `PATH`, for credential helpers.
    pub path: Option<OsString>,
    /// `SSL_CERT_FILE`: the CA certificates, in place of the system's file.
    pub ssl_cert_file: Option<PathBuf>,
    /// `SSL_CERT_DIR`: folders with CA certificates, apart by colons.
    pub ssl_cert_dir: Option<OsString>,
    /// `http_proxy` or `HTTP_PROXY` (the latter not where `REQUEST_METHOD` says that a web server set it).
    pub http_proxy: Option<String>,
    /// `https_proxy` or `HTTPS_PROXY`.
    pub https_proxy: Option<String>,
    /// `all_proxy` or `ALL_PROXY`.
    pub all_proxy: Option<String>,
    /// `no_proxy` or `NO_PROXY`.
    pub no_proxy: Option<String>,
}

impl Environment {
    /// Reads the variables of this process.
    #[must_use]
    pub fn from_process() -> Self {
        let os = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let path = |name: &str| os(name).map(PathBuf::from);
        let either = |low: &str, high: &str| [low, high].iter().find_map(|name| os(name)?.into_string().ok());
        let from_a_web_server = os("REQUEST_METHOD").is_some();
        Self {
            home: path("HOME"),
            docker_config: path("DOCKER_CONFIG"),
            docker_auth_config: os("DOCKER_AUTH_CONFIG").map(|text| text.to_string_lossy().into_owned()),
            registry_auth_file: path("REGISTRY_AUTH_FILE"),
            runtime_folder: path("XDG_RUNTIME_DIR").map(|folder| folder.join("containers")).or_else(own_runtime_folder),
            xdg_config_home: path("XDG_CONFIG_HOME"),
            path: os("PATH"),
            ssl_cert_file: path("SSL_CERT_FILE"),
            ssl_cert_dir: os("SSL_CERT_DIR"),
            http_proxy: if from_a_web_server {
                os("http_proxy").and_then(|value| value.into_string().ok())
            } else {
                either("http_proxy", "HTTP_PROXY")
            },
            https_proxy: either("https_proxy", "HTTPS_PROXY"),
            all_proxy: either("all_proxy", "ALL_PROXY"),
            no_proxy: either("no_proxy", "NO_PROXY"),
        }
    }
}

/// Podman's place where there is no `XDG_RUNTIME_DIR`, as for root.
fn own_runtime_folder() -> Option<PathBuf> {
    use std::os::unix::fs::MetadataExt as _;
    let user = std::fs::metadata("/proc/self").ok()?.uid();
    Some(PathBuf::from(format!("/run/containers/{user}")))
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = |value: &Option<String>| value.as_ref().map(|_| "(set)");
        f.debug_struct("Environment")
            .field("home", &self.home)
            .field("docker_config", &self.docker_config)
            .field("docker_auth_config", &set(&self.docker_auth_config))
            .field("registry_auth_file", &self.registry_auth_file)
            .field("runtime_folder", &self.runtime_folder)
            .field("xdg_config_home", &self.xdg_config_home)
            .field("path", &self.path)
            .field("ssl_cert_file", &self.ssl_cert_file)
            .field("ssl_cert_dir", &self.ssl_cert_dir)
            .field("http_proxy", &set(&self.http_proxy))
            .field("https_proxy", &set(&self.https_proxy))
            .field("all_proxy", &set(&self.all_proxy))
            .field("no_proxy", &self.no_proxy)
            .finish()
    }
}
