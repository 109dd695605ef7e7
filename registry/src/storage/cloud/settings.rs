//! What a store in the cloud is opened with, and what all three providers share of it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use object_store::list::PaginatedListStore;
use object_store::multipart::MultipartStore;
use object_store::signer::{Signer, Url};
use object_store::{BackoffConfig, Certificate, ClientOptions, ObjectStore, RetryConfig};

use super::{CloudAddress, CloudError};

/// How to reach a store in the cloud.
#[derive(Clone)]
pub struct CloudSettings {
    /// Where it is.
    pub address: CloudAddress,
    /// The environment: `AWS_*`, `GOOGLE_*`, `AZURE_*` and what else the providers' own tools go by. Nothing in this
    /// room reads it by itself, `GOOGLE_APPLICATION_CREDENTIALS`' default place in the home directory excepted.
    pub variables: BTreeMap<String, String>,
    /// Certificates of authorities that are trusted besides the system's, as PEM.
    pub authorities: Option<PathBuf>,
    /// The address at which clients reach the store, where it is another than ours.
    pub redirect_endpoint: Option<String>,
}

impl fmt::Debug for CloudSettings {
    /// The variables hold keys: they are not shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CloudSettings").field("address", &self.address).finish_non_exhaustive()
    }
}

/// All that object_store's drivers have in common.
pub(super) trait Driver: ObjectStore + MultipartStore + PaginatedListStore + Signer {}
impl<T: ObjectStore + MultipartStore + PaginatedListStore + Signer> Driver for T {}

/// A driver, and what is known of the store behind it.
pub(super) struct Built {
    pub(super) driver: Arc<dyn Driver>,
    /// As shown to people.
    pub(super) endpoint: String,
    /// Whether that is the provider's own, which every client can reach.
    pub(super) public: bool,
    pub(super) least_part_bytes: u64,
    /// Whether addresses can be signed.
    pub(super) signs: bool,
    /// Where the keys come from, for messages.
    pub(super) identity: String,
}

impl CloudSettings {
    /// The same store as clients reach it; `None` where they reach it as we do.
    pub(super) fn for_clients(&self) -> Result<Option<Self>, CloudError> {
        const FLAG: &str = "--redirect-endpoint";
        let Some(endpoint) = &self.redirect_endpoint else { return Ok(None) };
        if self.address.provider != super::Provider::S3 {
            return Err(self.error(format!("{FLAG} is for s3:// stores: leave it out")));
        }
        let mut settings = self.clone();
        // Nothing is sent there by us.
        settings.variables.insert("AWS_ALLOW_HTTP".into(), "true".into());
        settings.endpoint(FLAG, endpoint, "AWS_ALLOW_HTTP")?;
        settings.variables.remove("AWS_ENDPOINT_URL_S3");
        settings.variables.insert("AWS_ENDPOINT_URL".into(), endpoint.clone());
        Ok(Some(settings))
    }

    pub(super) fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    pub(super) fn is_on(&self, name: &str) -> bool {
        self.variable(name)
            .is_some_and(|value| matches!(value.to_ascii_lowercase().as_str(), "1" | "true" | "yes" | "on"))
    }

    pub(super) fn error(&self, reason: impl Into<String>) -> CloudError {
        CloudError { place: self.address.to_string(), reason: reason.into() }
    }

    pub(super) fn client_options(&self) -> Result<ClientOptions, CloudError> {
        // How long an answer may take is bounded in `connector`, by the size of what is sent: a bound on the whole exchange,
        // as object_store sets one, would cut large bodies.
        let mut options = ClientOptions::new()
            .with_timeout_disabled()
            .with_read_timeout_disabled()
            .with_connect_timeout(Duration::from_secs(5))
            .with_pool_idle_timeout(Duration::from_secs(50));
        let bundle = self.variable("AWS_CA_BUNDLE").map(PathBuf::from);
        for file in self.authorities.iter().chain(&bundle) {
            let pem = std::fs::read(file).map_err(|error| {
                self.error(format!("cannot read the certificates in `{}`: {error}", file.display()))
            })?;
            let certificates = Certificate::from_pem_bundle(&pem).ok().filter(|found| !found.is_empty());
            let certificates = certificates
                .ok_or_else(|| self.error(format!("`{}` holds no certificate: expected PEM", file.display())))?;
            options = certificates.into_iter().fold(options, ClientOptions::with_root_certificate);
        }
        Ok(options)
    }

    /// Checks an endpoint that somebody gave, and whether it may be spoken to in the clear.
    pub(super) fn endpoint(&self, variable: &str, endpoint: &str, allow: &str) -> Result<Url, CloudError> {
        let url = Url::parse(endpoint).ok().filter(|url| url.has_host() && matches!(url.scheme(), "http" | "https"));
        let url = url.ok_or_else(|| {
            self.error(format!("{variable} is `{endpoint}`: expected a URL such as https://storage.example.com:9000"))
        })?;
        if url.scheme() == "http" && !is_loopback(&url) && !self.is_on(allow) {
            return Err(self.error(format!(
                "{variable} is `{endpoint}`, which would send everything in the clear: use https, or allow it with {allow}=true"
            )));
        }
        Ok(url)
    }
}

/// Few and short: who waits for us gives up too, and can ask again.
pub(super) fn retries() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(2),
            base: 2.0,
        },
        max_retries: 4,
        retry_timeout: Duration::from_secs(20),
    }
}

pub(super) fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<core::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether an endpoint is that of a provider on the Internet. What is in nobody's list is somebody's own, and may be out of
/// the clients' reach.
pub(super) fn is_public(url: &Url) -> bool {
    const PUBLIC: &[&str] = &[
        ".amazonaws.com",
        ".amazonaws.com.cn",
        ".r2.cloudflarestorage.com",
        ".googleapis.com",
        ".blob.core.windows.net",
        ".backblazeb2.com",
        ".wasabisys.com",
        ".digitaloceanspaces.com",
    ];
    let host = url.host_str().unwrap_or_default();
    // An endpoint inside a virtual network of Amazon's has a name below theirs.
    url.scheme() == "https" && !host.contains(".vpce.") && PUBLIC.iter().any(|suffix| host.ends_with(suffix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> CloudSettings {
        CloudSettings {
            address: CloudAddress::parse("s3://bucket").unwrap().unwrap(),
            variables: variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            authorities: None,
            redirect_endpoint: None,
        }
    }

    #[test]
    fn what_is_sent_in_the_clear_is_asked_for() {
        let check = |endpoint: &str, allowed: bool| {
            let settings = settings(if allowed { &[("AWS_ALLOW_HTTP", "true")] } else { &[] });
            settings.endpoint("AWS_ENDPOINT_URL", endpoint, "AWS_ALLOW_HTTP").map(drop).map_err(|e| e.to_string())
        };
        for fine in ["https://s3.example.com", "http://127.0.0.1:9000", "http://localhost:1", "http://[::1]:1/x"] {
            assert_eq!(check(fine, false), Ok(()), "{fine}");
        }
        let error = check("http://minio:9000", false).unwrap_err();
        assert!(error.contains("AWS_ALLOW_HTTP=true") && error.contains("http://minio:9000"), "{error}");
        assert_eq!(check("http://minio:9000", true), Ok(()));
        for wrong in ["minio:9000", "ftp://x", "", "https://"] {
            assert!(check(wrong, true).unwrap_err().contains("expected a URL"), "{wrong}");
        }
    }

    #[test]
    fn providers_own_endpoints() {
        let public = |url: &str| is_public(&Url::parse(url).unwrap());
        assert!(public("https://s3.eu-west-1.amazonaws.com"));
        assert!(public("https://x.r2.cloudflarestorage.com"));
        assert!(!public("https://bucket.vpce-1-2.s3.us-east-1.vpce.amazonaws.com"));
        assert!(!public("https://evil-amazonaws.com"));
        assert!(!public("http://s3.eu-west-1.amazonaws.com"));
        assert!(!public("https://minio.example.com"));
    }

    #[test]
    fn secrets_are_not_shown() {
        let shown = format!("{:?}", settings(&[("AWS_SECRET_ACCESS_KEY", "hidden")]));
        assert!(!shown.contains("hidden"), "{shown}");
    }
}
