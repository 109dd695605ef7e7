//! Proxies by the usual variables. This machine's own addresses are never reached through one.

use std::sync::{Mutex, PoisonError};

use reqwest::{ClientBuilder, NoProxy, Proxy, Url};

use crate::environment::Environment;
use crate::error::ClientError;
use crate::reference::is_loopback;

/// The proxies of the environment.
pub(super) struct Proxies {
    http: Option<Named>,
    https: Option<Named>,
    no_proxy: String,
    /// `ALL_PROXY` of a kind that other programs know, until it has been told that it is not used.
    ignored: Mutex<Option<String>>,
}

/// A proxy by its variable.
struct Named {
    name: &'static str,
    address: String,
}

impl Proxies {
    pub(super) fn new(environment: &Environment) -> Result<Self, ClientError> {
        let named = |name, value: &Option<String>| Some(Named { name, address: with_scheme(value.as_deref()?) });
        // Desktops set it for all programs, and some of those know SOCKS; whoever names a registry's proxy means us.
        let all = || named("ALL_PROXY", &environment.all_proxy).filter(Named::is_http);
        let ignored = environment.all_proxy.as_deref().map(with_scheme).filter(|_| all().is_none());
        let proxies = Self {
            http: named("HTTP_PROXY", &environment.http_proxy).or_else(all),
            https: named("HTTPS_PROXY", &environment.https_proxy).or_else(all),
            no_proxy: environment.no_proxy.clone().unwrap_or_default(),
            ignored: Mutex::new(ignored),
        };
        // A mistake is told at the start, not at the first request.
        let _ = proxies.add_to(reqwest::Client::builder())?;
        Ok(proxies)
    }

    /// Whether requests to that host may go through a proxy at all. reqwest looks at `NO_PROXY` again, but knows no
    /// entries with a port.
    pub(super) fn apply_to(&self, host: &str, url: &Url) -> bool {
        (self.http.is_some() || self.https.is_some()) && !is_loopback(host) && !self.is_excepted_with_port(url)
    }

    fn is_excepted_with_port(&self, url: &Url) -> bool {
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
        self.no_proxy.split(',').map(str::trim).any(named_with_port)
    }

    /// Whether an entry of `NO_PROXY` names the host: by its name or one above it, or as everything.
    fn is_excepted(&self, url: &Url) -> bool {
        let name = url.host_str().unwrap_or_default().to_ascii_lowercase();
        let names_it = |entry: &str| {
            let entry = entry.trim_start_matches('.').to_ascii_lowercase();
            entry == "*" || name == entry || !entry.is_empty() && name.ends_with(&format!(".{entry}"))
        };
        self.is_excepted_with_port(url) || self.no_proxy.split(',').map(str::trim).any(names_it)
    }

    /// What is to be told, once, before the first request that a proxy was meant for and that goes without one.
    pub(super) fn warning(&self, host: &str, url: &Url) -> Option<String> {
        let (own, name) =
            if url.scheme() == "https" { (&self.https, "HTTPS_PROXY") } else { (&self.http, "HTTP_PROXY") };
        if own.is_some() || is_loopback(host) || self.is_excepted(url) {
            return None;
        }
        let address = self.ignored.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        Some(format!(
            "the proxy of ALL_PROXY, `{}`, is of a kind that is not supported, and {host} is reached without it; \
             one that speaks HTTP is named by {name}=http://HOST:PORT",
            shown(&address)
        ))
    }

    pub(super) fn add_to(&self, mut builder: ClientBuilder) -> Result<ClientBuilder, ClientError> {
        let not = || NoProxy::from_string(&self.no_proxy);
        // reqwest takes any scheme here, and fails with the first request.
        if let Some(proxy) = [&self.http, &self.https].into_iter().flatten().find(|proxy| !proxy.is_http()) {
            return Err(proxy.wrong());
        }
        if let Some(proxy) = &self.http {
            builder = builder.proxy(Proxy::http(&proxy.address).map_err(|_| proxy.wrong())?.no_proxy(not()));
        }
        if let Some(proxy) = &self.https {
            builder = builder.proxy(Proxy::https(&proxy.address).map_err(|_| proxy.wrong())?.no_proxy(not()));
        }
        Ok(builder)
    }
}

impl Named {
    fn is_http(&self) -> bool {
        ["http://", "https://"].iter().any(|scheme| self.address.to_ascii_lowercase().starts_with(scheme))
    }

    fn wrong(&self) -> ClientError {
        ClientError::Setting {
            name: self.name,
            value: shown(&self.address),
            problem: "not the address of a proxy; expected http://HOST:PORT or https://HOST:PORT".to_owned(),
        }
    }
}

fn with_scheme(address: &str) -> String {
    if address.contains("://") { address.to_owned() } else { format!("http://{address}") }
}

/// An address without what may be a password, between the scheme and the last `@`.
fn shown(address: &str) -> String {
    match (address.split_once("://"), address.rfind('@')) {
        (Some((scheme, _)), Some(at)) => format!("{scheme}://...{}", &address[at..]),
        _ => address.to_owned(),
    }
}
