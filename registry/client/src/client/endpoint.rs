//! Where a repository may be asked: mirrors first, then the registry itself.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::Url;

use crate::error::ClientError;
use crate::reference::{Reference, normal_host};
use crate::transport::{Transport, host_of};
use crate::trust::same_host;

/// How long a mirror that could not be reached is left alone.
const MIRROR_PAUSE: Duration = Duration::from_secs(60);

/// A place that answers the distribution API for a repository.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    /// Ends with a slash; `v2/` comes after it.
    pub(super) base: Url,
    /// The name under which its credentials are kept.
    pub(super) host: String,
    pub(super) is_mirror: bool,
}

impl Endpoint {
    /// `/v2/` followed by `path`.
    pub(super) fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("{}v2/{path}", self.base.path()));
        url
    }
}

pub(super) struct Endpoints {
    mirrors: Vec<(String, Url)>,
    /// Mirrors that could not be reached, and when they may be asked again.
    resting: Mutex<HashMap<String, Instant>>,
}

impl Endpoints {
    pub(super) fn new(mirrors: &[(String, String)]) -> Result<Self, ClientError> {
        let parsed: Result<Vec<_>, ClientError> =
            mirrors.iter().map(|(host, address)| Ok((host.clone(), mirror(address)?))).collect();
        Ok(Self { mirrors: parsed?, resting: Mutex::new(HashMap::new()) })
    }

    /// The registry itself, which alone takes what is pushed.
    pub(super) fn origin(&self, reference: &Reference, transport: &Transport) -> Result<Endpoint, ClientError> {
        Ok(Endpoint {
            base: transport.base(reference.wire_host())?,
            host: reference.host().to_owned(),
            is_mirror: false,
        })
    }

    /// All places to read from, in the order to ask them; the registry itself is last.
    pub(super) fn readers(&self, reference: &Reference, transport: &Transport) -> Result<Vec<Endpoint>, ClientError> {
        let now = Instant::now();
        let resting = self.resting.lock().unwrap_or_else(PoisonError::into_inner);
        let mirrors = self.mirrors.iter().filter(|(host, _)| same_host(host, reference.host()));
        let mut endpoints: Vec<Endpoint> = mirrors
            .map(|(_, base)| Endpoint {
                base: base.clone(),
                host: normal_host(&host_of(base)).to_owned(),
                is_mirror: true,
            })
            .filter(|endpoint| resting.get(&endpoint.host).is_none_or(|until| *until <= now))
            .collect();
        endpoints.push(self.origin(reference, transport)?);
        Ok(endpoints)
    }

    /// Leaves a mirror alone for a while.
    pub(super) fn rest(&self, endpoint: &Endpoint) {
        let mut resting = self.resting.lock().unwrap_or_else(PoisonError::into_inner);
        resting.insert(endpoint.host.clone(), Instant::now() + MIRROR_PAUSE);
    }
}

fn mirror(address: &str) -> Result<Url, ClientError> {
    let wrong = |problem: &str| ClientError::Setting {
        name: "the mirror",
        value: address.to_owned(),
        problem: format!("{problem}; expected https://HOST[:PORT][/PATH]"),
    };
    let mut url = Url::parse(address).map_err(|error| wrong(&error.to_string()))?;
    if !url.username().is_empty() || url.password().is_some() {
        // The value is left out: it holds a secret.
        return Err(ClientError::Setting {
            name: "the mirror",
            value: host_of(&url),
            problem: "its address holds a user name; use `fluyt login` for credentials".to_owned(),
        });
    }
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(wrong("not an address of HTTP"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("it holds `?` or `#`"));
    }
    let path = format!("{}/", url.path().trim_end_matches('/'));
    url.set_path(&path);
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_may_have_a_path_and_no_secret() {
        let endpoint =
            |address: &str| Endpoint { base: mirror(address).unwrap(), host: String::new(), is_mirror: true };
        assert_eq!(
            endpoint("https://m.example.org").url("a/b/tags/list").as_str(),
            "https://m.example.org/v2/a/b/tags/list"
        );
        assert_eq!(endpoint("http://m.example.org:81/hub/").url("").as_str(), "http://m.example.org:81/hub/v2/");
        for wrong in ["m.example.org", "ftp://m.example.org", "https://", "https://m.example.org/?x"] {
            assert!(mirror(wrong).is_err(), "{wrong}");
        }
        let error = mirror("https://me:secret@m.example.org").unwrap_err().to_string();
        assert!(!error.contains("secret") && error.contains("fluyt login"), "{error}");
    }
}
