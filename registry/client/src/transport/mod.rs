//! One HTTP request and its answer: connections per registry, timeouts, proxies, redirects.
//!
//! Redirects are followed here and not by reqwest, because each hop has to be looked at: the next host has its own
//! trust and proxy, `Authorization` goes to no other host, and TLS is not left for plain HTTP.

mod broken;
mod proxy;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use http::header::{AUTHORIZATION, LOCATION, RETRY_AFTER};
use http::{HeaderMap, Method, StatusCode};
use reqwest::{Response, Url};

use crate::error::{ClientError, Said, Subject};
use crate::reference::is_loopback;
use crate::retry::retry_after;
use crate::settings::Settings;
use crate::trust::{Trust, same_host};
use proxy::Proxies;

/// Which part of the longest silence that is borne goes by before somebody is told: 10 s of 60.
pub(crate) const TOLD_AFTER_A: u32 = 6;
/// Most redirects that are followed for one request.
const REDIRECTS_MAX: usize = 8;
/// Most bytes of an error's body that are read.
const ERROR_BODY_MAX_BYTES: usize = 64 * 1024;

/// The connections of a client.
pub(crate) struct Transport {
    trust: Trust,
    proxies: Proxies,
    insecure: Vec<String>,
    user_agent: String,
    connect_timeout: Duration,
    idle_timeout: Duration,
    clients: Mutex<HashMap<Profile, reqwest::Client>>,
    /// The hosts that have answered something.
    answered: Mutex<HashSet<String>>,
    told: Mutex<Option<Told>>,
    warned: Mutex<Option<Warned>>,
}

/// Who is told of a silence.
type Told = Arc<dyn Fn(&Silence) + Send + Sync>;
/// Who is told what a user should know.
type Warned = Arc<dyn Fn(&str) + Send + Sync>;

/// A server that has not answered for a while, and is still waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Silence {
    /// The server.
    pub host: String,
    /// What was asked for, or sent.
    pub what: String,
    /// For how long.
    pub lasted: Duration,
    /// How long it may last in all; then this try is given up.
    pub limit: Duration,
}

/// What connections can be shared by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Profile {
    /// The registry with a trust of its own.
    host: Option<String>,
    tls: bool,
    proxied: bool,
}

/// A request without a body, or with one that can be sent again.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Option<Bytes>,
    /// Whether redirects are followed: all of a `GET` or `HEAD`, and of another request those that leave it as it is.
    pub(crate) follow: bool,
}

impl Request {
    pub(crate) fn new(method: Method, url: Url) -> Self {
        Self { method, url, headers: HeaderMap::new(), body: None, follow: true }
    }
}

impl Transport {
    pub(crate) fn new(settings: &Settings) -> Result<Self, ClientError> {
        Ok(Self {
            trust: Trust::new(settings),
            proxies: Proxies::new(&settings.environment)?,
            insecure: settings.insecure.clone(),
            user_agent: settings.user_agent.clone(),
            connect_timeout: settings.connect_timeout,
            idle_timeout: settings.idle_timeout,
            clients: Mutex::new(HashMap::new()),
            answered: Mutex::default(),
            told: Mutex::default(),
            warned: Mutex::default(),
        })
    }

    /// Tells of silences from now on, instead of whom was told before.
    pub(crate) fn tell(&self, told: Told) {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = Some(told);
    }

    /// Gives warnings from now on, instead of to whom was told before.
    pub(crate) fn warn(&self, warned: Warned) {
        *self.warned.lock().unwrap_or_else(PoisonError::into_inner) = Some(warned);
    }

    /// Whether a host has answered something before.
    pub(crate) fn has_answered(&self, host: &str) -> bool {
        self.answered.lock().unwrap_or_else(PoisonError::into_inner).contains(host)
    }

    fn note_answer(&self, url: &Url) {
        let host = host_of(url);
        if !self.has_answered(&host) {
            self.answered.lock().unwrap_or_else(PoisonError::into_inner).insert(host);
        }
    }

    /// Waits for a server as long as a silence is borne, and says so when it is long; `None` when that was in vain.
    async fn patiently<T>(&self, url: &Url, subject: &Subject, awaited: impl Future<Output = T>) -> Option<T> {
        let mut awaited = std::pin::pin!(awaited);
        if let Ok(came) = tokio::time::timeout(self.told_after(), &mut awaited).await {
            return Some(came);
        }
        self.tell_of(url, subject, self.idle_timeout);
        tokio::time::timeout(self.rest(), awaited).await.ok()
    }

    fn told_after(&self) -> Duration {
        self.idle_timeout / TOLD_AFTER_A
    }

    /// How much longer a silence may last that somebody was told of.
    fn rest(&self) -> Duration {
        self.idle_timeout.saturating_sub(self.told_after())
    }

    /// Tells of a silence, and how long it may last.
    pub(crate) fn tell_of(&self, url: &Url, subject: &Subject, limit: Duration) {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(told) = told {
            told(&Silence { host: host_of(url), what: subject.what.clone(), lasted: self.told_after(), limit });
        }
    }

    /// The longest silence that is borne.
    pub(crate) fn idle_timeout(&self) -> Duration {
        self.idle_timeout
    }

    /// Whether that registry is spoken to in plain HTTP.
    pub(crate) fn is_plain(&self, host: &str) -> bool {
        if self.insecure.iter().any(|name| same_host(name, host)) {
            return true;
        }
        is_loopback(host) && !self.trust.knows(host)
    }

    /// The start of all URLs of a registry, by the host that is connected to.
    pub(crate) fn base(&self, host: &str) -> Result<Url, ClientError> {
        let scheme = if self.is_plain(host) { "http" } else { "https" };
        Url::parse(&format!("{scheme}://{host}/")).map_err(|error| ClientError::Setting {
            name: "the registry",
            value: host.to_owned(),
            problem: error.to_string(),
        })
    }

    /// Sends a request, follows redirects, and gives the first other answer, whatever its status.
    pub(crate) async fn send(&self, request: &Request, subject: &Subject) -> Result<Response, ClientError> {
        let mut url = request.url.clone();
        let mut headers = request.headers.clone();
        for _ in 0..=REDIRECTS_MAX {
            let mut builder = self.client(&url)?.request(request.method.clone(), url.clone()).headers(headers.clone());
            if let Some(body) = &request.body {
                builder = builder.body(body.clone());
            }
            let response = match self.patiently(&url, subject, builder.send()).await {
                None => return Err(silent(&url, subject, self.idle_timeout)),
                Some(Err(error)) => return Err(self.broken(&url, &error, subject)),
                Some(Ok(response)) => response,
            };
            self.note_answer(&url);
            let follows = request.follow
                && match request.method {
                    Method::GET | Method::HEAD => is_redirect(response.status()),
                    _ => keeps_the_request(response.status()),
                };
            if !follows {
                return Ok(response);
            }
            let next = self.next_location(&url, response.headers(), subject)?;
            if authority(&next) != authority(&url) {
                headers.remove(AUTHORIZATION);
            }
            url = next;
        }
        Err(subject.answer(format!("it redirects more than {REDIRECTS_MAX} times")))
    }

    /// Sends a request whose body is a stream, which is gone afterwards. `stalled` ends when nothing has moved for too long,
    /// with how long that was.
    pub(crate) async fn send_stream(
        &self,
        request: &Request,
        body: reqwest::Body,
        stalled: impl Future<Output = Duration>,
        subject: &Subject,
    ) -> Result<Response, ClientError> {
        let url = &request.url;
        let sending = self
            .client(url)?
            .request(request.method.clone(), url.clone())
            .headers(request.headers.clone())
            .body(body)
            .send();
        tokio::select! {
            outcome = sending => {
                let response = outcome.map_err(|error| self.broken(url, &error, subject))?;
                self.note_answer(url);
                Ok(response)
            }
            after = stalled => Err(silent(url, subject, after)),
        }
    }

    /// The next piece of an answer's body.
    pub(crate) async fn chunk(&self, response: &mut Response, subject: &Subject) -> Result<Option<Bytes>, ClientError> {
        // Not `patiently`, which would have to have the address beside what is read from the answer that knows it.
        let mut came = tokio::time::timeout(self.told_after(), response.chunk()).await;
        if came.is_err() {
            self.tell_of(response.url(), subject, self.idle_timeout);
            came = tokio::time::timeout(self.rest(), response.chunk()).await;
        }
        match came {
            Err(_) => Err(silent(response.url(), subject, self.idle_timeout)),
            Ok(Err(error)) => Err(broken::cut(&host_of(response.url()), &error, subject)),
            Ok(Ok(chunk)) => Ok(chunk),
        }
    }

    /// A whole body, up to a limit.
    pub(crate) async fn bytes(
        &self,
        mut response: Response,
        limit_bytes: u64,
        subject: &Subject,
    ) -> Result<Bytes, ClientError> {
        let too_large =
            || ClientError::TooLarge { registry: subject.registry.clone(), what: subject.what.clone(), limit_bytes };
        if response.content_length().is_some_and(|length| length > limit_bytes) {
            return Err(too_large());
        }
        let mut bytes = BytesMut::new();
        while let Some(chunk) = self.chunk(&mut response, subject).await? {
            if bytes.len() as u64 + chunk.len() as u64 > limit_bytes {
                return Err(too_large());
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes.freeze())
    }

    /// The error that a refusing answer stands for.
    pub(crate) async fn refusal(&self, response: Response, subject: &Subject) -> ClientError {
        if is_redirect(response.status()) {
            return self.not_followed(&response, subject);
        }
        let status = response.status().as_u16();
        let plain = response.url().scheme() == "http" && status == 400;
        let (url, wait) = (response.url().clone(), asked_wait(response.headers()));
        let mut body = self.error_body(response, subject).await;
        // The answer to a `HEAD` does not say what a server that wants TLS would say to another request.
        if plain
            && body.is_empty()
            && let (Ok(client), Ok(start)) = (self.client(&url), url.join("/v2/"))
            && let Ok(Ok(response)) = tokio::time::timeout(self.idle_timeout, client.get(start).send()).await
            && response.status().as_u16() == status
        {
            body = self.error_body(response, subject).await;
        }
        // Some say it in a page, which is not shown.
        let wants_tls = plain && body.windows(5).any(|word| word == b"HTTPS");
        subject.refused(status, wait, Said::read(&body), wants_tls)
    }

    fn not_followed(&self, response: &Response, subject: &Subject) -> ClientError {
        match self.next_location(response.url(), response.headers(), subject) {
            Ok(next) => ClientError::Redirect {
                registry: subject.registry.clone(),
                what: subject.what.clone(),
                host: format!("{}://{}", next.scheme(), host_of(&next)),
                problem: format!("a {} is not followed for a request of this kind", response.status().as_u16()),
            },
            Err(error) => error,
        }
    }

    /// What a refusing answer says.
    pub(crate) async fn said(&self, response: Response, subject: &Subject) -> Said {
        Said::read(&self.error_body(response, subject).await)
    }

    async fn error_body(&self, mut response: Response, subject: &Subject) -> Vec<u8> {
        let mut body = Vec::new();
        let reading = async {
            // An answer that breaks off still has its status.
            while let Ok(Some(chunk)) = self.chunk(&mut response, subject).await {
                body.extend_from_slice(&chunk);
                if body.len() > ERROR_BODY_MAX_BYTES {
                    break;
                }
            }
        };
        // One that trickles is not worth more time than one that does not come.
        let _ = tokio::time::timeout(self.idle_timeout, reading).await;
        body.truncate(ERROR_BODY_MAX_BYTES);
        body
    }

    /// The `Location` of an answer, resolved against the URL that was asked.
    pub(crate) fn next_location(&self, url: &Url, headers: &HeaderMap, subject: &Subject) -> Result<Url, ClientError> {
        let text = headers.get(LOCATION).and_then(|value| value.to_str().ok());
        let text = text.ok_or_else(|| subject.answer("it has no header `Location`"))?;
        let mut next =
            url.join(text).map_err(|error| subject.answer(format!("its `Location` is not a URL: {error}")))?;
        // A registry behind a proxy that ends TLS may not know that it is spoken to securely.
        let leaves_tls = next.scheme() == "http" && url.scheme() == "https" && !self.is_plain(&host_of(&next));
        if leaves_tls && next.host_str() == url.host_str() && (next.port().is_none() || next.port() == url.port()) {
            // Neither can fail: both schemes are ones with a host.
            let _ = next.set_scheme("https");
            let _ = next.set_port(url.port());
        }
        let problem = match next.scheme() {
            "http" if url.scheme() == "https" && !self.is_plain(&host_of(&next)) => {
                "that is plain HTTP, and the registry speaks TLS"
            }
            "http" | "https" if !next.username().is_empty() || next.password().is_some() => {
                "the address holds a user name"
            }
            "http" | "https" => return Ok(next),
            _ => "only http and https are followed",
        };
        Err(ClientError::Redirect {
            registry: subject.registry.clone(),
            what: subject.what.clone(),
            host: format!("{}://{}", next.scheme(), host_of(&next)),
            problem: problem.to_owned(),
        })
    }

    fn client(&self, url: &Url) -> Result<reqwest::Client, ClientError> {
        let host = host_of(url);
        if let Some(text) = self.proxies.warning(&host, url) {
            tracing::warn!("{text}");
            let warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if let Some(warned) = warned {
                warned(&text);
            }
        }
        let tls = url.scheme() == "https";
        let knows = tls && self.trust.knows(&host);
        let profile = Profile { host: knows.then(|| host.clone()), tls, proxied: self.proxies.apply_to(&host, url) };
        if let Some(client) = self.clients().get(&profile) {
            return Ok(client.clone());
        }
        let client = self.build(&host, &profile)?;
        Ok(self.clients().entry(profile).or_insert(client).clone())
    }

    fn clients(&self) -> std::sync::MutexGuard<'_, HashMap<Profile, reqwest::Client>> {
        // The map is whole between any two of its operations.
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn build(&self, host: &str, profile: &Profile) -> Result<reqwest::Client, ClientError> {
        let config =
            if profile.tls { self.trust.config(host, profile.host.is_some())? } else { self.trust.unused()? };
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(config)
            .user_agent(self.user_agent.clone())
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(self.connect_timeout)
            .tcp_keepalive(Duration::from_secs(30))
            .referer(false)
            .no_proxy();
        if profile.proxied {
            builder = self.proxies.add_to(builder)?;
        }
        builder.build().map_err(|error| ClientError::Tls {
            host: host.to_owned(),
            problem: broken::innermost(&error),
            hint: "this is a fault of this program".to_owned(),
        })
    }

    fn broken(&self, url: &Url, error: &reqwest::Error, subject: &Subject) -> ClientError {
        broken::classify(&host_of(url), error, url.scheme() == "http", self.connect_timeout, subject)
    }
}

fn silent(url: &Url, subject: &Subject, after: Duration) -> ClientError {
    ClientError::Timeout { host: host_of(url), what: subject.what.clone(), after }
}

/// Host and port as references write them: without the port that the scheme has anyway.
pub(crate) fn host_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// What `Authorization` may be sent to.
pub(crate) fn authority(url: &Url) -> (&str, Option<&str>, Option<u16>) {
    (url.scheme(), url.host_str(), url.port_or_known_default())
}

pub(crate) fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// The redirects after which the same request is to be sent, with its body.
fn keeps_the_request(status: StatusCode) -> bool {
    matches!(status.as_u16(), 307 | 308)
}

/// `Retry-After` as a wait from now.
pub(crate) fn asked_wait(headers: &HeaderMap) -> Option<Duration> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    retry_after(headers.get(RETRY_AFTER)?.to_str().ok()?, now)
}

/// A number from 0 to 1 for the spread of waits; without a source of randomness there is no spread.
pub(crate) fn random() -> f64 {
    getrandom::u32().map_or(0.5, |number| f64::from(number) / f64::from(u32::MAX))
}

/// Shared by all parts of a client.
pub(crate) type SharedTransport = Arc<Transport>;
