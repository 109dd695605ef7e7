//! Proxies by the usual variables. This machine's own addresses are never reached through one.

use reqwest::{ClientBuilder, NoProxy, Proxy, Url};

use crate::environment::Environment;
use crate::error::ClientError;
use crate::reference::is_loopback;

/// The proxies of the environment.
pub(super) struct Proxies {
    http: Option<String>,
    https: Option<String>,
    no_proxy: String,
}

impl Proxies {
    pub(super) fn new(environment: &Environment) -> Result<Self, ClientError> {
        let all = environment.all_proxy.as_deref();
        let proxies = Self {
            http: environment.http_proxy.as_deref().or(all).map(with_scheme),
            https: environment.https_proxy.as_deref().or(all).map(with_scheme),
            no_proxy: environment.no_proxy.clone().unwrap_or_default(),
        };
        // A mistake is told at the start, not at the first request.
        let _ = proxies.add_to(reqwest::Client::builder())?;
        Ok(proxies)
    }

    /// Whether requests to that host may go through a proxy at all. reqwest looks at `NO_PROXY` again, but knows no
    /// entries with a port.
    pub(super) fn apply_to(&self, host: &str, url: &Url) -> bool {
        if self.http.is_none() && self.https.is_none() || is_loopback(host) {
            return false;
        }
        let port = url.port_or_known_default().map(|port| format!(":{port}"));
        let named_with_port = |entry: &str| {
            let bare = port.as_deref().and_then(|port| entry.strip_suffix(port));
            let name = url.host_str().unwrap_or_default();
            bare.map(|bare| bare.trim_start_matches('.')).is_some_and(|bare| {
                name.eq_ignore_ascii_case(bare)
                    || name
                        .to_ascii_lowercase()
                        .strip_suffix(&bare.to_ascii_lowercase())
                        .is_some_and(|rest| rest.ends_with('.'))
            })
        };
        !self.no_proxy.split(',').map(str::trim).any(named_with_port)
    }

    pub(super) fn add_to(&self, mut builder: ClientBuilder) -> Result<ClientBuilder, ClientError> {
        let not = || NoProxy::from_string(&self.no_proxy);
        for (name, address) in [("HTTP_PROXY", &self.http), ("HTTPS_PROXY", &self.https)] {
            // reqwest takes any scheme here, and fails with the first request.
            if let Some(address) = address.as_ref().filter(|address| {
                !["http://", "https://"].iter().any(|scheme| address.to_ascii_lowercase().starts_with(scheme))
            }) {
                return Err(wrong(name, address));
            }
        }
        if let Some(address) = &self.http {
            builder = builder.proxy(Proxy::http(address).map_err(|_| wrong("HTTP_PROXY", address))?.no_proxy(not()));
        }
        if let Some(address) = &self.https {
            builder = builder.proxy(Proxy::https(address).map_err(|_| wrong("HTTPS_PROXY", address))?.no_proxy(not()));
        }
        Ok(builder)
    }
}

fn with_scheme(address: &str) -> String {
    if address.contains("://") { address.to_owned() } else { format!("http://{address}") }
}

fn wrong(name: &'static str, address: &str) -> ClientError {
    // Between the scheme and the last `@` there may be a password.
    let value = match (address.split_once("://"), address.rfind('@')) {
        (Some((scheme, _)), Some(at)) => format!("{scheme}://...{}", &address[at..]),
        _ => address.to_owned(),
    };
    ClientError::Setting {
        name,
        value,
        problem: "not the address of a proxy; expected http://HOST:PORT or https://HOST:PORT".to_owned(),
    }
}
