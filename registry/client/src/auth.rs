//! Answers a registry's challenge: which credentials, which token, and what to remember of it.
//!
//! Per registry it is remembered how it wants to be answered, and each token with its scopes and its end, so that only
//! the first request of a kind is refused first. A token for more scopes serves for fewer. While one request fetches a
//! token, the others for the same registry wait for it instead of fetching their own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use http::{HeaderMap, Method, StatusCode};
use reqwest::{Response, Url};
use serde::Deserialize;

use crate::challenge::{self, Challenge, ScopeSet};
use crate::credential::{Credential, Found, Keyring, Lookup, cloud};
use crate::error::{ClientError, Said, Subject};
use crate::reference::is_loopback;
use crate::transport::{Request, SharedTransport, host_of};

/// Largest answer of a token service, in bytes.
const TOKEN_ANSWER_MAX_BYTES: u64 = 1024 * 1024;
/// How long a token is good when the service does not say (Token Authentication Specification).
const TOKEN_DEFAULT_LIFE: Duration = Duration::from_secs(60);
/// How long before its end a token is not used any more: a request may be under way for a while.
const TOKEN_MARGIN: Duration = Duration::from_secs(15);
/// Most tokens that are remembered for one registry.
const TOKENS_MAX: usize = 256;

/// Who asks whom for what.
#[derive(Clone, Debug)]
pub(crate) struct Claim<'a> {
    /// The registry by the name under which credentials are stored.
    pub(crate) host: &'a str,
    pub(crate) repository: &'a str,
    pub(crate) scopes: &'a ScopeSet,
    pub(crate) subject: &'a Subject,
}

/// The memory of all registries.
pub(crate) struct Authenticator {
    transport: SharedTransport,
    keyring: Keyring,
    registries: Mutex<HashMap<String, Arc<tokio::sync::Mutex<Registry>>>>,
}

#[derive(Default)]
struct Registry {
    scheme: Option<Scheme>,
    tokens: Vec<Token>,
    /// By repository, because a credentials file may tell them apart.
    lookups: HashMap<String, Lookup>,
}

#[derive(Clone)]
enum Scheme {
    Basic,
    Bearer { realm: Url, service: Option<String> },
}

struct Token {
    scopes: ScopeSet,
    header: HeaderValue,
    good_until: Instant,
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    /// Seconds; some services write them as text or with a fraction.
    #[serde(default)]
    expires_in: serde_json::Value,
}

impl Authenticator {
    pub(crate) fn new(transport: SharedTransport, keyring: Keyring) -> Self {
        Self { transport, keyring, registries: Mutex::new(HashMap::new()) }
    }

    pub(crate) fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    /// Forgets what is known of a registry, after its credentials have changed.
    pub(crate) fn forget(&self, host: &str) {
        self.registries.lock().unwrap_or_else(PoisonError::into_inner).remove(host);
    }

    /// The `Authorization` for a request, as far as the registry is known already.
    pub(crate) async fn header(&self, claim: &Claim<'_>) -> Result<Option<HeaderValue>, ClientError> {
        let registry = self.registry(claim.host);
        let mut registry = registry.lock().await;
        match registry.scheme.clone() {
            None => Ok(None),
            Some(Scheme::Basic) => {
                let lookup = self.lookup(&mut registry, claim).await;
                Ok(lookup.found.as_ref().and_then(|found| basic(&found.credential)))
            }
            Some(Scheme::Bearer { realm, service }) => {
                self.token(&mut registry, claim, &realm, service.as_deref()).await.map(Some)
            }
        }
    }

    /// The `Authorization` that answers a refusal (401). `sent` is what was refused.
    ///
    /// To be asked once for a request: when that is refused as well, [`Self::refused`] is the error.
    ///
    /// # Errors
    ///
    /// [`ClientError::Unauthorized`] when there is nothing else to try; the token service's errors.
    pub(crate) async fn answer(
        &self,
        claim: &Claim<'_>,
        refused: Response,
        sent: Option<&HeaderValue>,
    ) -> Result<HeaderValue, ClientError> {
        let challenges = challenges(refused.headers());
        let base = refused.url().clone();
        let said = self.transport.said(refused, claim.subject).await;
        let registry = self.registry(claim.host);
        let mut registry = registry.lock().await;
        let Some((scheme, asked)) = self.choose(&base, challenges, claim)? else {
            return Err(unauthorized(
                claim,
                "it does not say how (no challenge of `Basic` or `Bearer`)".to_owned(),
                said,
            ));
        };
        registry.scheme = Some(scheme.clone());
        match scheme {
            Scheme::Basic => {
                let mut lookup = self.lookup(&mut registry, claim).await;
                let header = |lookup: &Lookup| lookup.found.as_ref().and_then(|found| basic(&found.credential));
                if sent.is_some() && sent == header(lookup).as_ref() {
                    lookup = self.lookup_again(&mut registry, claim).await;
                }
                match header(lookup) {
                    Some(header) if sent != Some(&header) => Ok(header),
                    _ => Err(self.rejected(&mut registry, claim, said).await),
                }
            }
            Scheme::Bearer { realm, service } => {
                registry.tokens.retain(|token| sent != Some(&token.header));
                let found = registry.lookups.get(claim.repository).and_then(|lookup| lookup.found.as_ref());
                if sent.is_some() && found.is_some_and(|found| sent == given_token(&found.credential).as_ref()) {
                    self.lookup_again(&mut registry, claim).await;
                }
                let mut scopes = claim.scopes.clone();
                if let Some(asked) = asked {
                    scopes.join(&asked);
                }
                let claim = Claim { scopes: &scopes, ..claim.clone() };
                self.token(&mut registry, &claim, &realm, service.as_deref()).await
            }
        }
    }

    /// The error of a request that was refused (401) although it had all that could be given.
    pub(crate) async fn refused(&self, claim: &Claim<'_>, refused: Response) -> ClientError {
        let said = self.transport.said(refused, claim.subject).await;
        let registry = self.registry(claim.host);
        let mut registry = registry.lock().await;
        self.rejected(&mut registry, claim, said).await
    }

    /// The error of credentials that are not accepted. They are looked for again next time: the user may have others by
    /// then.
    async fn rejected(&self, registry: &mut Registry, claim: &Claim<'_>, said: Said) -> ClientError {
        let error = unauthorized(claim, tried(self.lookup(registry, claim).await), said);
        registry.lookups.remove(claim.repository);
        error
    }

    /// Whether these credentials are good for a registry: the check of a login. `refused` is its answer without any.
    pub(crate) async fn check(
        &self,
        claim: &Claim<'_>,
        refused: Response,
        credential: &Credential,
    ) -> Result<HeaderValue, ClientError> {
        let challenges = challenges(refused.headers());
        let base = refused.url().clone();
        let said = self.transport.said(refused, claim.subject).await;
        match self.choose(&base, challenges, claim)? {
            None => {
                Err(unauthorized(claim, "it does not say how (no challenge of `Basic` or `Bearer`)".to_owned(), said))
            }
            Some((Scheme::Basic, _)) => basic(credential)
                .ok_or_else(|| unauthorized(claim, "it takes user name and password only".to_owned(), said)),
            Some((Scheme::Bearer { realm, service }, _)) => {
                let found = Found { credential: credential.clone(), origin: "given now".to_owned() };
                let lookup = Lookup { found: Some(found), notes: Vec::new() };
                Ok(self.fetch(claim, &realm, service.as_deref(), &lookup).await?.header)
            }
        }
    }

    fn registry(&self, host: &str) -> Arc<tokio::sync::Mutex<Registry>> {
        let mut registries = self.registries.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(registries.entry(host.to_owned()).or_default())
    }

    /// The challenge to answer, and the scope that it names: a token if there is a choice, which shows the password to
    /// fewer.
    fn choose(
        &self,
        base: &Url,
        challenges: Vec<Challenge>,
        claim: &Claim<'_>,
    ) -> Result<Option<(Scheme, Option<String>)>, ClientError> {
        let mut basic = None;
        for challenge in challenges {
            match challenge {
                Challenge::Bearer { realm, service, scope, .. } => {
                    let realm = base
                        .join(&realm)
                        .map_err(|error| claim.subject.answer(format!("its `realm` is not a URL: {error}")))?;
                    let secure = realm.scheme() == "https";
                    let plain = realm.scheme() == "http"
                        && (base.scheme() == "http" || self.transport.is_plain(&host_of(&realm)));
                    if !secure && !plain {
                        return Err(claim.subject.answer(format!(
                            "its token service `{}://{}` is not reached by TLS, and would see the credentials",
                            realm.scheme(),
                            host_of(&realm)
                        )));
                    }
                    return Ok(Some((Scheme::Bearer { realm, service }, scope)));
                }
                Challenge::Basic => basic = Some((Scheme::Basic, None)),
                Challenge::Other(_) => {}
            }
        }
        Ok(basic)
    }

    async fn lookup<'r>(&self, registry: &'r mut Registry, claim: &Claim<'_>) -> &'r Lookup {
        let repository = claim.repository.to_owned();
        if !registry.lookups.contains_key(&repository) {
            let (keyring, host, name) = (self.keyring.clone(), claim.host.to_owned(), repository.clone());
            let found = tokio::task::spawn_blocking(move || keyring.find(&host, &name)).await;
            let lookup = found.unwrap_or_else(|error| Lookup {
                found: None,
                notes: vec![format!("the search for credentials failed: {error}")],
            });
            for note in &lookup.notes {
                tracing::warn!(registry = claim.host, "{note}");
            }
            registry.lookups.insert(repository.clone(), lookup);
        }
        registry.lookups.entry(repository).or_default()
    }

    /// What a helper program gives may be good for a while only, and a file be written anew.
    async fn lookup_again<'r>(&self, registry: &'r mut Registry, claim: &Claim<'_>) -> &'r Lookup {
        registry.lookups.remove(claim.repository);
        self.lookup(registry, claim).await
    }

    async fn token(
        &self,
        registry: &mut Registry,
        claim: &Claim<'_>,
        realm: &Url,
        service: Option<&str>,
    ) -> Result<HeaderValue, ClientError> {
        let now = Instant::now();
        registry.tokens.retain(|token| token.good_until > now);
        if let Some(token) = registry.tokens.iter().find(|token| token.scopes.covers(claim.scopes)) {
            return Ok(token.header.clone());
        }
        let may_be_old = registry.lookups.contains_key(claim.repository);
        let lookup = self.lookup(registry, claim).await.clone();
        let mut outcome = self.fetch(claim, realm, service, &lookup).await;
        if may_be_old && matches!(outcome, Err(ClientError::Unauthorized { .. })) {
            let fresh = self.lookup_again(registry, claim).await.clone();
            let credential = |lookup: &Lookup| lookup.found.as_ref().map(|found| found.credential.clone());
            if credential(&fresh) != credential(&lookup) {
                outcome = self.fetch(claim, realm, service, &fresh).await;
            }
        }
        if matches!(outcome, Err(ClientError::Unauthorized { .. })) {
            registry.lookups.remove(claim.repository);
        }
        let token = outcome?;
        let header = token.header.clone();
        if registry.tokens.len() >= TOKENS_MAX {
            registry.tokens.remove(0);
        }
        registry.tokens.push(token);
        Ok(header)
    }

    async fn fetch(
        &self,
        claim: &Claim<'_>,
        realm: &Url,
        service: Option<&str>,
        lookup: &Lookup,
    ) -> Result<Token, ClientError> {
        let subject = Subject { registry: claim.host.to_owned(), what: format!("a token for {}", claim.subject.what) };
        let request = match lookup.found.as_ref().map(|found| &found.credential) {
            Some(credential @ Credential::RegistryToken(_)) => {
                let header =
                    given_token(credential).ok_or_else(|| unauthorized(claim, tried(lookup), Said::default()))?;
                // Nobody says how long it is good; a refusal will tell.
                return Ok(Token {
                    scopes: claim.scopes.clone(),
                    header,
                    good_until: Instant::now() + Duration::from_secs(3600),
                });
            }
            Some(Credential::IdentityToken(refresh)) => exchange(realm, service, claim.scopes, refresh),
            Some(credential @ Credential::Password { .. }) => ask(realm, service, claim.scopes, basic(credential)),
            None => ask(realm, service, claim.scopes, None),
        };
        // Whoever sends the request that needs the token tries again, and this with it.
        let bytes = match self.attempt(&request, &subject).await? {
            Ok(bytes) => bytes,
            Err(said) => return Err(unauthorized(claim, tried(lookup), said)),
        };
        let answer: TokenAnswer = serde_json::from_slice(&bytes).map_err(|error| {
            subject.answer(format!("it is not the JSON of a token (line {}, column {})", error.line(), error.column()))
        })?;
        let token = [answer.token, answer.access_token].into_iter().flatten().find(|token| !token.is_empty());
        let header = token.as_deref().and_then(bearer).ok_or_else(|| subject.answer("it holds no token"))?;
        let life = life(&answer.expires_in);
        // A short life is used for the most part, or each request would fetch its own token.
        let margin = TOKEN_MARGIN.min(life / 4);
        Ok(Token { scopes: claim.scopes.clone(), header, good_until: Instant::now() + life - margin })
    }

    /// The token, or what the service said when it refused the credentials.
    async fn attempt(&self, request: &Request, subject: &Subject) -> Result<Result<Bytes, Said>, ClientError> {
        let response = self.transport.send(request, subject).await?;
        match response.status() {
            status if status.is_success() => {
                self.transport.bytes(response, TOKEN_ANSWER_MAX_BYTES, subject).await.map(Ok)
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST => {
                Ok(Err(self.transport.said(response, subject).await))
            }
            // A service that exchanges no refresh tokens.
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED if request.method == Method::POST => {
                Ok(Err(self.transport.said(response, subject).await))
            }
            _ => Err(self.transport.refusal(response, subject).await),
        }
    }
}

/// `GET realm`: the Token Authentication Specification.
fn ask(realm: &Url, service: Option<&str>, scopes: &ScopeSet, authorization: Option<HeaderValue>) -> Request {
    let mut url = realm.clone();
    {
        let mut query = url.query_pairs_mut();
        if let Some(service) = service {
            query.append_pair("service", service);
        }
        for scope in scopes.texts() {
            query.append_pair("scope", &scope);
        }
    }
    if url.query() == Some("") {
        url.set_query(None);
    }
    let mut request = Request::new(Method::GET, url);
    request.headers.extend(authorization.map(|value| (AUTHORIZATION, value)));
    request
}

/// `POST realm`: the refresh token's way ("OAuth2 Token Authentication").
fn exchange(realm: &Url, service: Option<&str>, scopes: &ScopeSet, refresh: &str) -> Request {
    let mut form = realm.clone();
    form.set_query(None);
    form.query_pairs_mut()
        .append_pair("grant_type", "refresh_token")
        .append_pair("service", service.unwrap_or_default())
        .append_pair("client_id", "fluyt")
        .append_pair("scope", &scopes.to_string())
        .append_pair("refresh_token", refresh);
    // The body is the secret, which is for nobody else.
    let mut request = Request { follow: false, ..Request::new(Method::POST, realm.clone()) };
    request.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
    request.body = Some(Bytes::from(form.query().unwrap_or_default().to_owned()));
    request
}

/// How long a token is good; at most a day, so that no number of a service's overflows.
fn life(expires_in: &serde_json::Value) -> Duration {
    let seconds = match expires_in {
        serde_json::Value::Number(number) => number.as_f64(),
        serde_json::Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    match seconds {
        Some(seconds) if seconds > 0.0 => Duration::from_secs_f64(seconds.min(86_400.0)),
        _ => TOKEN_DEFAULT_LIFE,
    }
}

fn challenges(headers: &HeaderMap) -> Vec<Challenge> {
    headers
        .get_all(WWW_AUTHENTICATE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(challenge::parse)
        .collect()
}

fn basic(credential: &Credential) -> Option<HeaderValue> {
    let Credential::Password { username, password } = credential else { return None };
    sensitive(format!("Basic {}", STANDARD.encode(format!("{username}:{password}"))))
}

fn given_token(credential: &Credential) -> Option<HeaderValue> {
    let Credential::RegistryToken(token) = credential else { return None };
    bearer(token)
}

fn bearer(token: &str) -> Option<HeaderValue> {
    sensitive(format!("Bearer {token}"))
}

fn sensitive(text: String) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Which credentials were used, in words without a secret.
fn tried(lookup: &Lookup) -> String {
    let mut text = match &lookup.found {
        Some(Found { credential, origin }) => format!("those of {} ({origin}) are not accepted", credential.shown()),
        None => "none are known".to_owned(),
    };
    for note in &lookup.notes {
        text.push_str("; ");
        text.push_str(note);
    }
    text
}

fn unauthorized(claim: &Claim<'_>, tried: String, said: Said) -> ClientError {
    let hint = if let Some(advice) = cloud::advice(claim.host) {
        advice
    } else if is_loopback(claim.host) || claim.repository.is_empty() {
        format!("log in with `fluyt login {}`", claim.host)
    } else {
        // Many registries answer so for what does not exist, so that nobody can guess names.
        format!("log in with `fluyt login {}`, and check the name, for the repository may not exist", claim.host)
    };
    ClientError::Unauthorized { registry: claim.host.to_owned(), what: claim.subject.what.clone(), tried, said, hint }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_life_of_a_token_is_read_in_all_its_forms() {
        let seconds = |text: &str| life(&serde_json::from_str(text).unwrap()).as_secs_f64();
        let table = [
            ("300", 300.0),
            ("\"300\"", 300.0),
            ("1.5", 1.5),
            ("1e300", 86_400.0),
            ("\"inf\"", 86_400.0),
            ("0", 60.0),
            ("-5", 60.0),
            ("null", 60.0),
            ("\"NaN\"", 60.0),
            ("[]", 60.0),
        ];
        for (text, expected) in table {
            assert_eq!(seconds(text), expected, "{text}");
        }
    }
}
