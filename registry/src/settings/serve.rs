//! The flags of `serve`.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use fluyt_registry::http::Network;
use fluyt_registry::service::{RedirectMode, Redirects, SparsePolicy};
use fluyt_registry::spec::TagPattern;

use super::{Retention, StoreSettings};

/// How to serve.
#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Address and port to listen on; port 0 takes a free one, which is printed.
    #[arg(long, env = "FLUYT_REGISTRY_LISTEN", value_name = "ADDRESS:PORT", default_value = "127.0.0.1:5000", value_parser = listen_address)]
    pub(crate) listen: SocketAddr,

    #[command(flatten)]
    pub(crate) store: StoreSettings,

    #[command(flatten)]
    pub(crate) access: AccessSettings,

    /// Collect nothing: for a restore, or while a store is moved.
    #[arg(long, env = "FLUYT_REGISTRY_NO_COLLECT")]
    pub(crate) no_collect: bool,

    #[command(flatten)]
    pub(crate) retention: Retention,

    /// How old an answer may be that a client reads by: what a tag names, and what a repository has. 0 asks the store for
    /// each request, so that a push or a delete through any replica is seen by the next. A folder is always asked.
    #[arg(long, env = "FLUYT_REGISTRY_CACHE_SECONDS", value_name = "SECONDS", default_value_t = 0)]
    pub(crate) cache_seconds: u64,

    /// Which manifests may name what the repository does not have: images (without some layers, and indexes without some
    /// manifests), indexes only, or none. What was deleted here is missed in any case.
    #[arg(long, env = "FLUYT_REGISTRY_SPARSE", value_name = "KIND", default_value = "images")]
    pub(crate) sparse: Sparse,

    /// Tags that keep the value they get first, such as `v*`, or `team/*:v*` in some repositories only; `*` stands for any
    /// characters, `?` for one. Another value is refused with 409; the same again is fine. Deleted, such a tag is free;
    /// `undo` may move it. May be given several times.
    #[arg(long, env = "FLUYT_REGISTRY_IMMUTABLE_TAGS", value_name = "PATTERN", value_delimiter = ',')]
    pub(crate) immutable_tags: Vec<TagPattern>,

    /// Take no DELETE of manifests, tags and blobs (405). Operators' commands and collection go on.
    #[arg(long, env = "FLUYT_REGISTRY_NO_DELETE")]
    pub(crate) no_delete: bool,

    /// How long requests that run may take to finish after SIGTERM or SIGINT; then they are cut off. A second signal does not
    /// wait for them. `/readyz` of `--metrics-listen` says 503 from the first one on.
    #[arg(long, env = "FLUYT_REGISTRY_DRAIN_SECONDS", value_name = "SECONDS", default_value_t = 30)]
    pub(crate) drain_seconds: u64,

    /// Print the settings and where each comes from, and end.
    #[arg(long)]
    pub(crate) print_config: bool,

    #[command(flatten)]
    pub(crate) redirects: RedirectSettings,
}

/// Which blobs clients fetch from the store itself.
#[derive(Debug, Args)]
pub(crate) struct RedirectSettings {
    /// Whether clients fetch large blobs from the store itself, by an address signed for 20 minutes (S3, GCS, Azure): `auto`
    /// where the store is at its provider's own address, or at the one that --redirect-endpoint names.
    #[arg(long, env = "FLUYT_REGISTRY_REDIRECT", value_name = "WHEN", default_value = "auto")]
    pub(crate) redirect: Redirect,

    /// Blobs of fewer bytes come from the registry.
    #[arg(long, env = "FLUYT_REGISTRY_REDIRECT_MIN_BYTES", value_name = "N", default_value_t = Redirects::MIN_BYTES)]
    pub(crate) redirect_min_bytes: u64,

    /// The address at which clients reach the store, where it is not the one that the registry uses (S3).
    #[arg(long, env = "FLUYT_REGISTRY_REDIRECT_ENDPOINT", value_name = "URL")]
    pub(crate) redirect_endpoint: Option<String>,
}

/// Whether clients are sent to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Redirect {
    /// Where they can reach it.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl From<&RedirectSettings> for Redirects {
    fn from(settings: &RedirectSettings) -> Self {
        let mode = match settings.redirect {
            Redirect::Auto => RedirectMode::Auto,
            Redirect::Always => RedirectMode::Always,
            Redirect::Never => RedirectMode::Never,
        };
        Self { mode, min_bytes: settings.redirect_min_bytes }
    }
}

/// Which manifests may name what is absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sparse {
    /// Images and indexes.
    Images,
    /// Indexes.
    Indexes,
    /// None.
    Refuse,
}

impl From<Sparse> for SparsePolicy {
    fn from(sparse: Sparse) -> Self {
        match sparse {
            Sparse::Images => Self::Images,
            Sparse::Indexes => Self::Indexes,
            Sparse::Refuse => Self::Refuse,
        }
    }
}

/// Who may do what, and how they get here.
#[derive(Debug, Args)]
#[command(next_help_heading = "Access")]
pub(crate) struct AccessSettings {
    /// Only users of this file may use the registry: lines of USER:HASH as `htpasswd -B` makes them. Read again when it
    /// changes.
    #[arg(long, env = "FLUYT_REGISTRY_HTPASSWD", value_name = "FILE")]
    pub(crate) htpasswd: Option<PathBuf>,

    /// With --htpasswd: everybody may pull, and users may do the rest.
    #[arg(long, env = "FLUYT_REGISTRY_ANONYMOUS_PULL")]
    pub(crate) anonymous_pull: bool,

    /// Speak HTTPS with this certificate: PEM, the server's own first, then its issuers'. Read again when it changes.
    #[arg(long, env = "FLUYT_REGISTRY_TLS_CERT", value_name = "FILE")]
    pub(crate) tls_cert: Option<PathBuf>,

    /// The private key of the certificate: PEM, without a password. Read again when it changes.
    #[arg(long, env = "FLUYT_REGISTRY_TLS_KEY", value_name = "FILE")]
    pub(crate) tls_key: Option<PathBuf>,

    /// A proxy whose X-Forwarded-* headers are believed, or its Forwarded where it sends none; may be given several times.
    #[arg(long, env = "FLUYT_REGISTRY_TRUSTED_PROXY", value_name = "NETWORK", value_delimiter = ',')]
    pub(crate) trusted_proxy: Vec<Network>,

    /// The address under which clients know the registry, where their requests do not say it: https://HOST[:PORT].
    #[arg(long, env = "FLUYT_REGISTRY_PUBLIC_URL", value_name = "URL", value_parser = public_url)]
    pub(crate) public_url: Option<String>,

    /// Most requests a second of one user, or of one address without a user; ten times as many may come at once.
    #[arg(long, env = "FLUYT_REGISTRY_REQUESTS_PER_SECOND", value_name = "N")]
    pub(crate) requests_per_second: Option<NonZeroU32>,

    /// Most connections at a time; more wait until one ends.
    #[arg(long, env = "FLUYT_REGISTRY_MAX_CONNECTIONS", value_name = "N", default_value = "10000")]
    pub(crate) max_connections: NonZeroU32,

    /// Also answer /metrics, /healthz and /readyz here, to everybody and in plain HTTP.
    #[arg(long, env = "FLUYT_REGISTRY_METRICS_LISTEN", value_name = "ADDRESS:PORT", value_parser = listen_address)]
    pub(crate) metrics_listen: Option<SocketAddr>,

    /// How lines of the log look.
    #[arg(long, env = "FLUYT_REGISTRY_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    pub(crate) log_format: LogFormat,
}

/// How lines of the log look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// `ADDRESS:PORT`; a port alone (`:5000`) listens on every address, as other registries take it.
fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let whole = match text.strip_prefix(':') {
        Some(port) => format!("0.0.0.0:{port}"),
        None => text.replacen("localhost:", "127.0.0.1:", 1),
    };
    whole.parse().map_err(|_| "expected an address and a port, such as 127.0.0.1:5000, [::1]:5000 or :5000".to_owned())
}

/// A scheme and a host: what clients ask for is put behind it.
fn public_url(text: &str) -> Result<String, String> {
    let wrong = || "expected http:// or https:// and a host, such as https://registry.example.net".to_owned();
    let url = text.trim_end_matches('/');
    let host = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://")).ok_or_else(wrong)?;
    let fits = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
    if host.is_empty() || !host.chars().all(fits) { Err(wrong()) } else { Ok(url.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let port = |text: &str| listen_address(text).map(|address| address.to_string());
        assert_eq!(port("localhost:1").as_deref(), Ok("127.0.0.1:1"));
        assert_eq!(port(":5000").as_deref(), Ok("0.0.0.0:5000"));
        assert_eq!(port("[::1]:0").as_deref(), Ok("[::1]:0"));
        assert!(port("127.0.0.1").unwrap_err().contains("such as 127.0.0.1:5000"));
    }

    #[test]
    fn public_urls() {
        assert_eq!(public_url("https://r.example:8443/").as_deref(), Ok("https://r.example:8443"));
        for wrong in ["", "r.example", "ftp://r.example", "https://", "https://r.example/path", "https://r\"x"] {
            assert!(public_url(wrong).is_err(), "{wrong}");
        }
    }
}
