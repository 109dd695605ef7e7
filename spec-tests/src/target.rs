//! A registry to ask over HTTP: naive requests on purpose, not the builder's client.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::stream;
use http::{Method, Version};
use reqwest::Client;
use tokio::runtime::{Builder, Runtime};

/// What a client accepts that takes any manifest. Some registries hide from a client what it does not name.
const MANIFEST_TYPES: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json";

/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How many redirects are followed: a registry may send a client elsewhere for any content.
const REDIRECTS_MAX: usize = 5;

/// How a registry is reached.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// User and password.
    pub credentials: Option<(String, String)>,
    /// Takes any certificate.
    pub skip_tls_verify: bool,
    /// Speaks HTTP/2 from the first byte, without asking.
    pub http2: bool,
}

/// A registry at a URL, with a connection pool of its own.
#[derive(Debug)]
pub struct Target {
    url: String,
    access: Access,
    client: Client,
    runtime: Runtime,
    run: String,
    repositories: AtomicU64,
    unsupported: Mutex<Vec<String>>,
}

impl Target {
    /// The registry at `url` (`http://host:port`).
    ///
    /// # Panics
    /// When no HTTP client can be set up.
    #[must_use]
    pub fn new(url: &str, access: Access) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let mut client = Client::builder()
            .timeout(PATIENCE)
            // A new connection for each request: what one request does to its connection is never another's failure.
            .pool_max_idle_per_host(0)
            .tls_danger_accept_invalid_certs(access.skip_tls_verify)
            .redirect(reqwest::redirect::Policy::limited(REDIRECTS_MAX));
        if access.http2 {
            client = client.http2_prior_knowledge();
        } else if url.starts_with("http://") {
            client = client.http1_only();
        }
        // Repositories of one run never meet those of another run on the same registry.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            url: url.trim_end_matches('/').to_owned(),
            access,
            client: client.build().expect("an HTTP client"),
            runtime,
            run: format!("{:x}", now.as_nanos()),
            repositories: AtomicU64::new(0),
            unsupported: Mutex::default(),
        }
    }

    /// The same registry, asked over HTTP/2.
    #[must_use]
    pub fn over_http2(&self) -> Self {
        Self::new(&self.url, Access { http2: true, ..self.access.clone() })
    }

    /// Notes that the registry does not do what it need not do: the case that says so has not failed.
    pub fn unsupported(&self, what: impl Into<String>) {
        self.unsupported.lock().unwrap_or_else(PoisonError::into_inner).push(what.into());
    }

    /// What was noted as unsupported.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        self.unsupported.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Its URL, without a slash at the end.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A repository name that nobody used before.
    #[must_use]
    pub fn repository(&self) -> String {
        let number = self.repositories.fetch_add(1, Ordering::Relaxed);
        format!("spec-tests/{}/n{number}", self.run)
    }

    /// A request to `path` (from `/v2/` on), or to a whole URL as a `Location` may hold; for a manifest one that accepts
    /// every type.
    #[must_use]
    pub fn request(&self, method: Method, path: &str) -> Request<'_> {
        let any_type = path.contains("/manifests/") && method != Method::PUT;
        let request = self.request_as_is(method, path);
        if any_type { request.header("accept", MANIFEST_TYPES) } else { request }
    }

    /// A request without a header of ours.
    #[must_use]
    pub fn request_as_is(&self, method: Method, path: &str) -> Request<'_> {
        let url = if path.starts_with("http://") || path.starts_with("https://") {
            path.to_owned()
        } else {
            format!("{}{path}", self.url)
        };
        Request { target: self, method, url, headers: Vec::new(), body: Body::Whole(Vec::new()) }
    }

    /// `GET path`.
    #[must_use]
    pub fn get(&self, path: &str) -> Answer {
        self.request(Method::GET, path).send()
    }

    /// `HEAD path`.
    #[must_use]
    pub fn head(&self, path: &str) -> Answer {
        self.request(Method::HEAD, path).send()
    }

    /// `DELETE path`.
    #[must_use]
    pub fn delete(&self, path: &str) -> Answer {
        self.request(Method::DELETE, path).send()
    }
}

/// A request being put together.
#[derive(Debug)]
pub struct Request<'a> {
    target: &'a Target,
    method: Method,
    url: String,
    headers: Vec<(String, String)>,
    body: Body,
}

#[derive(Debug)]
enum Body {
    Whole(Vec<u8>),
    /// Of unknown length, in pieces; after the last one the connection breaks, or the body ends.
    Pieces(Vec<Vec<u8>>, bool),
}

impl Request<'_> {
    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Body::Whole(body.into());
        self
    }

    /// Sets a body whose length is not said before.
    #[must_use]
    pub fn stream(mut self, pieces: Vec<Vec<u8>>) -> Self {
        self.body = Body::Pieces(pieces, false);
        self
    }

    /// Sets a body after which the connection breaks before the request is whole.
    #[must_use]
    pub fn broken_stream(mut self, pieces: Vec<Vec<u8>>) -> Self {
        self.body = Body::Pieces(pieces, true);
        self
    }

    /// Sends it and reads the whole answer.
    ///
    /// # Panics
    /// When no answer comes.
    #[must_use]
    pub fn send(self) -> Answer {
        let typed = format!("{} {}", self.method, self.url);
        self.try_send().unwrap_or_else(|error| panic!("`{typed}` got no answer: {error:?}"))
    }

    /// Sends it and reads the whole answer.
    ///
    /// # Errors
    /// When no answer comes.
    pub fn try_send(self) -> Result<Answer, reqwest::Error> {
        let typed = format!("{} {}", self.method, self.url);
        let mut request = self.target.client.request(self.method, &self.url);
        for (name, value) in self.headers {
            request = request.header(name, value);
        }
        if let Some((user, password)) = &self.target.access.credentials {
            request = request.basic_auth(user, Some(password));
        }
        let request = match self.body {
            Body::Whole(bytes) => request.body(bytes),
            Body::Pieces(pieces, breaks) => {
                let end = breaks.then(|| Err(io::Error::other("the connection is cut on purpose")));
                request.body(reqwest::Body::wrap_stream(stream::iter(pieces.into_iter().map(Ok).chain(end))))
            }
        };
        self.target.runtime.block_on(async {
            let response = request.send().await?;
            let status = response.status().as_u16();
            let version = response.version();
            let redirected = response.url().as_str() != self.url && response.url().path() != path_of(&self.url);
            let headers = response
                .headers()
                .iter()
                .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
                .collect();
            let body = response.bytes().await?.to_vec();
            Ok(Answer { request: typed, status, version, redirected, headers, body })
        })
    }
}

/// The path of a URL, without its parameters.
fn path_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let path = rest.find('/').map_or("/", |at| &rest[at..]);
    path.split('?').next().unwrap_or(path)
}

/// An answer, read whole.
#[derive(Debug)]
pub struct Answer {
    /// Method and URL it answers.
    pub request: String,
    /// Its status code.
    pub status: u16,
    /// The version of HTTP that it came in.
    pub version: Version,
    /// Whether another address answered, which does not know the registry's own headers.
    pub redirected: bool,
    headers: Vec<(String, String)>,
    /// Its body.
    pub body: Vec<u8>,
}

impl Answer {
    /// A header by its name in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// All values of a header.
    pub fn headers<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.headers.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The target of the `Link` to the next page.
    ///
    /// # Panics
    /// When the header has another form than RFC 5988 gives it, or another relation.
    #[must_use]
    pub fn next_page(&self) -> Option<String> {
        let link = self.header("link")?;
        let (target, rest) = link
            .strip_prefix('<')
            .and_then(|rest| rest.split_once('>'))
            .unwrap_or_else(|| panic!("`{}`: `Link: {link}` has no target in <>", self.request));
        assert!(
            rest.replace(' ', "") == ";rel=\"next\"",
            "`{}`: expected rel=\"next\" in `Link: {link}`",
            self.request
        );
        Some(target.to_owned())
    }

    /// The same answer, when it says that its content has this digest; one that came from elsewhere need not say it.
    ///
    /// # Panics
    /// When the header is absent or has another value.
    #[must_use]
    pub fn expect_digest(self, digest: &str) -> Self {
        if self.redirected { self } else { self.expect_header("docker-content-digest", digest) }
    }

    /// The same answer, when it has one of those statuses.
    ///
    /// # Panics
    /// When it has another.
    #[must_use]
    pub fn expect_one_of(self, statuses: &[u16]) -> Self {
        assert!(
            statuses.contains(&self.status),
            "`{}`: expected one of {statuses:?}, got {}: {}",
            self.request,
            self.status,
            String::from_utf8_lossy(&self.body)
        );
        self
    }

    /// The same answer, when it has that status.
    ///
    /// # Panics
    /// When it has another.
    #[must_use]
    pub fn expect_status(self, status: u16) -> Self {
        assert!(
            self.status == status,
            "`{}`: expected {status}, got {}: {}",
            self.request,
            self.status,
            String::from_utf8_lossy(&self.body)
        );
        self
    }

    /// The same answer, when a header has that value.
    ///
    /// # Panics
    /// When the header is absent or has another value.
    #[must_use]
    pub fn expect_header(self, name: &str, value: &str) -> Self {
        assert!(
            self.header(name) == Some(value),
            "`{}`: expected `{name}: {value}`, got {:?}",
            self.request,
            self.header(name)
        );
        self
    }

    /// The same answer, when it has that status and an error body with that code.
    ///
    /// # Panics
    /// When status or code differ, or the body is no error body of the distribution specification.
    #[must_use]
    pub fn expect_error(self, status: u16, code: &str) -> Self {
        let answer = self.expect_status(status);
        let json = answer.json();
        let found = json["errors"][0]["code"].as_str().unwrap_or("none");
        assert!(found == code, "`{}`: expected the code {code}, got {json}", answer.request);
        answer
    }

    /// Whether the body says that it is JSON.
    #[must_use]
    pub fn is_json(&self) -> bool {
        self.header("content-type").is_some_and(|media_type| media_type.starts_with("application/json"))
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| {
            panic!("`{}`: the body is no JSON ({error}): {}", self.request, String::from_utf8_lossy(&self.body))
        })
    }

    /// The `Location` header.
    ///
    /// # Panics
    /// When it is absent.
    #[must_use]
    pub fn location(&self) -> &str {
        self.header("location").unwrap_or_else(|| panic!("`{}`: no Location in the answer", self.request))
    }
}
