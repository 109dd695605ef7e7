//! A registry to ask over HTTP: naive requests on purpose, not the builder's client.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::Method;
use reqwest::Client;
use tokio::runtime::{Builder, Runtime};

/// What a client accepts that takes any manifest. Some registries hide from a client what it does not name.
const MANIFEST_TYPES: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json";

/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A registry at a URL, with a connection pool of its own.
#[derive(Debug)]
pub struct Target {
    url: String,
    credentials: Option<(String, String)>,
    client: Client,
    runtime: Runtime,
    run: String,
    repositories: AtomicU64,
}

impl Target {
    /// The registry at `url` (`http://host:port`), asked as `credentials` (user, password) when there are some.
    ///
    /// # Panics
    /// When no HTTP client can be set up.
    #[must_use]
    pub fn new(url: &str, credentials: Option<(String, String)>) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let client = Client::builder()
            .timeout(PATIENCE)
            // A new connection for each request: what one request does to its connection is never another's failure.
            .pool_max_idle_per_host(0)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .expect("an HTTP client");
        // Repositories of one run never meet those of another run on the same registry.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            url: url.trim_end_matches('/').to_owned(),
            credentials,
            client,
            runtime,
            run: format!("{:x}", now.as_nanos()),
            repositories: AtomicU64::new(0),
        }
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

    /// A request to `path` (from `/v2/` on), or to a whole URL as a `Location` may hold.
    #[must_use]
    pub fn request(&self, method: Method, path: &str) -> Request<'_> {
        let url = if path.starts_with("http://") || path.starts_with("https://") {
            path.to_owned()
        } else {
            format!("{}{path}", self.url)
        };
        let mut headers = Vec::new();
        if path.contains("/manifests/") && method != Method::PUT {
            headers.push(("accept".to_owned(), MANIFEST_TYPES.to_owned()));
        }
        Request { target: self, method, url, headers, body: Vec::new() }
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
    body: Vec<u8>,
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
        self.body = body.into();
        self
    }

    /// Sends it and reads the whole answer.
    ///
    /// # Panics
    /// When no answer comes.
    #[must_use]
    pub fn send(self) -> Answer {
        let typed = format!("{} {}", self.method, self.url);
        let mut request = self.target.client.request(self.method, &self.url);
        for (name, value) in self.headers {
            request = request.header(name, value);
        }
        if let Some((user, password)) = &self.target.credentials {
            request = request.basic_auth(user, Some(password));
        }
        let request = request.body(self.body);
        self.target
            .runtime
            .block_on(async {
                let response = request.send().await?;
                let status = response.status().as_u16();
                let headers = response
                    .headers()
                    .iter()
                    .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
                    .collect();
                let body = response.bytes().await?.to_vec();
                Ok::<_, reqwest::Error>(Answer { request: typed.clone(), status, headers, body })
            })
            .unwrap_or_else(|error| panic!("`{typed}` got no answer: {error:?}"))
    }
}

/// An answer, read whole.
#[derive(Debug)]
pub struct Answer {
    /// Method and URL it answers.
    pub request: String,
    /// Its status code.
    pub status: u16,
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
