//! Keys that an address hands to a container (EKS Pod Identity, ECS on one's own machines, Greengrass).
//!
//! object_store knows this form only with a file of a token, and panics where that ends in a line break.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::Request;
use http::header::AUTHORIZATION;
use object_store::aws::AwsCredential;
use object_store::client::{HttpClient, HttpConnector, HttpRequestBody};
use object_store::signer::Url;
use object_store::{ClientOptions, CredentialProvider, Error};
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::settings::is_loopback;
use super::{CloudError, CloudSettings, connector::Connector};

pub(super) const ADDRESS: &str = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
const TOKEN: &str = "AWS_CONTAINER_AUTHORIZATION_TOKEN";
const TOKEN_FILE: &str = "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE";
/// Where Amazon answers inside its own machines, without TLS.
const LINK_LOCAL: [&str; 3] = ["169.254.170.2", "169.254.170.23", "[fd00:ec2::23]"];
/// So long before they end, keys are asked for again.
const BEFORE_THE_END: Duration = Duration::from_secs(5 * 60);
/// After a request for new keys failed, the old ones serve so long before the next.
const PAUSE: Duration = Duration::from_secs(10);

/// Keys that are fetched when they are needed, and again before they end.
#[derive(Debug)]
pub(super) struct ContainerCredentials {
    http: HttpClient,
    address: String,
    token: Option<Token>,
    last: Mutex<Option<Keys>>,
}

/// What lets us ask.
#[derive(Clone)]
enum Token {
    Given(String),
    /// Read each time: it is replaced there.
    In(PathBuf),
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

#[derive(Debug)]
struct Keys {
    credential: Arc<AwsCredential>,
    /// `None`: they have no end.
    end: Option<Instant>,
    ask_again: Option<Instant>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    access_key_id: String,
    secret_access_key: String,
    token: Option<String>,
    expiration: Option<String>,
}

impl ContainerCredentials {
    /// As the variables name them; `None` when they do not.
    pub(super) fn of(settings: &CloudSettings, options: &ClientOptions) -> Result<Option<Self>, CloudError> {
        let Some(address) = settings.variable(ADDRESS) else { return Ok(None) };
        let url = Url::parse(address).ok().filter(|url| {
            let is_near = is_loopback(url) || url.host_str().is_some_and(|host| LINK_LOCAL.contains(&host));
            url.scheme() == "https" || url.scheme() == "http" && is_near
        });
        let url = url.ok_or_else(|| {
            settings.error(format!(
                "{ADDRESS} is `{address}`: expected https, or http at an address of this machine or of Amazon's for containers"
            ))
        })?;
        let token = settings.variable(TOKEN_FILE).map(|file| Token::In(file.into()));
        let token = token.or_else(|| settings.variable(TOKEN).map(|token| Token::Given(token.to_owned())));
        let options = options.clone().with_allow_http(url.scheme() == "http");
        let http = Connector::default().connect(&options).map_err(|error| settings.error(super::chain(&error)))?;
        Ok(Some(Self { http, address: address.to_owned(), token, last: Mutex::new(None) }))
    }

    async fn fetch(&self) -> Result<Keys, String> {
        let mut request = Request::get(&self.address);
        let token = match &self.token {
            None => None,
            Some(Token::Given(token)) => Some(token.clone()),
            Some(Token::In(file)) => {
                let read = tokio::fs::read_to_string(file).await;
                Some(read.map_err(|error| format!("cannot read `{}` ({TOKEN_FILE}): {error}", file.display()))?)
            }
        };
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, token.trim());
        }
        let request = request
            .body(HttpRequestBody::empty())
            .map_err(|_| "the token holds what no header can: expected one line of printable characters".to_owned())?;
        let response = self.http.execute(request).await.map_err(|error| super::chain(&error))?;
        let status = response.status();
        let body = response.into_body().bytes().await.map_err(|error| super::chain(&error))?;
        if !status.is_success() {
            return Err(format!("it answers {status}: {}", String::from_utf8_lossy(body.get(..200).unwrap_or(&body))));
        }
        // The answer holds keys: what is wrong with it is said without it.
        let answer: Answer = serde_json::from_slice(&body)
            .map_err(|_| "its answer is none: expected JSON with AccessKeyId and SecretAccessKey".to_owned())?;
        let lasts = answer.expiration.and_then(|end| end.parse::<jiff::Timestamp>().ok()).map(|end| {
            let seconds = end.as_second() - jiff::Timestamp::now().as_second();
            Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
        });
        let now = Instant::now();
        Ok(Keys {
            credential: Arc::new(AwsCredential {
                key_id: answer.access_key_id,
                secret_key: answer.secret_access_key,
                token: answer.token,
            }),
            end: lasts.map(|lasts| now + lasts),
            ask_again: lasts.map(|lasts| now + lasts.saturating_sub(BEFORE_THE_END).max(PAUSE)),
        })
    }
}

#[async_trait]
impl CredentialProvider for ContainerCredentials {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let mut last = self.last.lock().await;
        let now = Instant::now();
        if let Some(keys) = &*last
            && keys.ask_again.is_none_or(|at| now < at)
        {
            return Ok(keys.credential.clone());
        }
        match self.fetch().await {
            Ok(keys) => Ok(last.insert(keys).credential.clone()),
            Err(why) => match &mut *last {
                Some(keys) if keys.end.is_none_or(|end| now < end) => {
                    keys.ask_again = Some(now + PAUSE);
                    Ok(keys.credential.clone())
                }
                _ => Err(Error::Generic {
                    store: "S3",
                    source: format!("no keys come from {} ({ADDRESS}): {why}", self.address).into(),
                }),
            },
        }
    }
}
