//! How clients say who they are: `Authorization` in, `WWW-Authenticate` out, and tokens at `/v2/token`.

use std::net::IpAddr;
use std::sync::Once;

use axum::response::Response;
use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Method};
use serde_json::json;

use super::client::Client;
use super::{Asked, reply};
use crate::auth::{AuthError, Credentials, Proof, Scheme};
use crate::service::RegistryError;
use crate::spec::Endpoint;

/// Where tokens are had: below `/v2/`, which is all that many a proxy hands on. No repository's path is that: each goes on
/// behind the name.
const TOKEN_PATH: &str = "/v2/token";
/// Where they were had first, and are still.
const FIRST_TOKEN_PATH: &str = "/token";
const BASIC: &str = "Basic realm=\"fluyt-registry\", charset=\"UTF-8\"";
/// Clients differ in whether they pad.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What a request shows of its sender.
pub(super) fn credentials(headers: &HeaderMap, from: Option<IpAddr>) -> Option<Credentials> {
    let value = headers.get(AUTHORIZATION)?;
    let proof = value.to_str().ok().and_then(proof).unwrap_or(Proof::Unreadable);
    Some(Credentials { proof, from })
}

fn proof(value: &str) -> Option<Proof> {
    let (scheme, rest) = value.split_once(' ')?;
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(Proof::Token(rest.to_owned()));
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = String::from_utf8(BASE64.decode(rest).ok()?).ok()?;
    let (user, password) = pair.split_once(':')?;
    Some(Proof::Password { user: user.to_owned(), password: password.to_owned() })
}

/// What a 401 asks for; `None` where nobody can log in.
pub(super) fn challenge(asked: &Asked, method: &Method, endpoint: Option<&Endpoint>) -> Option<HeaderValue> {
    let basic = HeaderValue::from_static(BASIC);
    let text = match asked.app.authorizer.scheme()? {
        Scheme::Basic => return Some(basic),
        // A password is asked for where a token is given, and where there is none.
        Scheme::Bearer if endpoint.is_none() => return Some(basic),
        Scheme::Bearer => {
            let Some(origin) = origin(asked) else { return Some(basic) };
            let service = origin.split_once("://").map_or(origin.as_str(), |(_, host)| host);
            let scope = endpoint.and_then(|endpoint| scope(method, endpoint));
            let scope = scope.map(|scope| format!(",scope=\"{scope}\"")).unwrap_or_default();
            format!("Bearer realm=\"{origin}{TOKEN_PATH}\",service=\"{service}\"{scope}")
        }
    };
    HeaderValue::from_str(&text).ok()
}

/// Whether tokens are had there.
pub(super) fn is_token_path(path: &str) -> bool {
    path == TOKEN_PATH || path == FIRST_TOKEN_PATH
}

/// The address under which the client knows the registry: what it is to ask for tokens has to be absolute. Whoever says that
/// it came by HTTPS is believed that much: over HTTP it would send its password in clear.
fn origin(asked: &Asked) -> Option<String> {
    if let Some(url) = &asked.app.settings.public_url {
        return Some(url.trim_end_matches('/').to_owned());
    }
    let Client { https, claims_https, host, .. } = &asked.client;
    if *claims_https && !https {
        static WARNED: Once = Once::new();
        WARNED.call_once(|| {
            tracing::warn!(
                client.address = asked.client.address.map(tracing::field::display),
                "a request over HTTP says that its client came by HTTPS: clients are told so; a proxy that is named with \
                 --trusted-proxy is believed as to host and address too, and --public-url says the address of all"
            );
        });
    }
    Some(format!("{}://{}", if *https || *claims_https { "https" } else { "http" }, host.as_ref()?))
}

/// What a request would do, in the words that clients ask for tokens with. Names and references hold no quotes.
fn scope(method: &Method, endpoint: &Endpoint) -> Option<String> {
    let actions = match *method {
        Method::GET | Method::HEAD => "pull",
        Method::DELETE => "delete",
        _ => "pull,push",
    };
    match endpoint {
        Endpoint::Base => None,
        Endpoint::Catalog => Some("registry:catalog:*".to_owned()),
        endpoint => Some(format!("repository:{}:{actions}", endpoint.repo()?)),
    }
}

/// `GET /v2/token`: a token for whoever asks. What is asked for in `scope` is not looked at: a token only says who it is.
pub(super) async fn token(asked: &Asked) -> Result<Response, RegistryError> {
    let token = asked.app.authorizer.issue(&asked.caller).ok_or_else(|| match asked.app.authorizer.scheme() {
        None => RegistryError::NoSuchPath,
        Some(_) => RegistryError::Unauthorized(AuthError::Missing),
    })?;
    Ok(reply::token(&json!({
        // Both names are in use.
        "token": token.text,
        "access_token": token.text,
        "expires_in": token.expires_in_seconds,
    })))
}
