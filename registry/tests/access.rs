//! Users, tokens, limits, proxies and metrics, through the router.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, LazyLock};

use axum::body::Body;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fluyt_registry::auth::{Accounts, Authorizer, Passwords, TokenKeys, Users};
use fluyt_registry::http::{App, AppSettings, Peer, router};
use fluyt_registry::service::Registry;
use fluyt_registry::storage::{Memory, Port, Storage};
use http::{Request, StatusCode};
use object_store::ObjectStoreExt as _;
use object_store::path::Path;
use tower::ServiceExt;

use crate::app::{Answer, send, surroundings};

struct Guarded {
    router: axum::Router,
}

/// One file for all: a token holds as long as the hash of its user's password stays.
static USERS: LazyLock<String> = LazyLock::new(|| format!("ann:{}", bcrypt::hash("secret", 4).unwrap()));

async fn guarded(anonymous_pull: bool, settings: AppSettings) -> Guarded {
    guarded_on(Memory::default(), anonymous_pull, settings).await
}

async fn guarded_on(port: impl Port, anonymous_pull: bool, settings: AppSettings) -> Guarded {
    let users = Users::parse(&USERS).unwrap();
    let storage = Storage::open(port, [7; 32]).await.unwrap();
    let token_keys = TokenKeys::new(storage.upload_keys());
    let accounts = Accounts { passwords: Passwords::new(users, [8; 32], 1), anonymous_pull, token_keys };
    let registry = Arc::new(Registry::new(storage, surroundings()));
    let app = App::new(registry, Authorizer::Accounts(Arc::new(accounts))).with_settings(settings);
    Guarded { router: router(app) }
}

/// Replicas that set a store up at the same time may each know another key; a token of one is good at the other all the same.
#[tokio::test]
async fn a_token_of_a_replica_that_began_at_the_same_time_is_good() {
    let store = Memory::default();
    let one = guarded_on(store.clone(), false, AppSettings::default()).await;
    // Of several keys the first seals.
    let key = Path::from("upload-key.1.00000000000000000000000000");
    store.put(&key, "12".repeat(32).into()).await.unwrap();
    let other = guarded_on(store.clone(), false, AppSettings::default()).await;
    let answer = other.get("GET /token", Some(&basic("ann", "secret"))).await;
    let answer: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    let token = format!("Bearer {}", answer["token"].as_str().unwrap());
    assert_eq!(one.get("GET /v2/", Some(&token)).await.status, StatusCode::OK);
    assert_eq!(one.get("GET /v2/", Some("Bearer x.y")).await.status, StatusCode::UNAUTHORIZED);
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

impl Guarded {
    async fn get(&self, line: &str, authorization: Option<&str>) -> Answer {
        let headers: Vec<(&str, &str)> = [("host", "r.example:5000")]
            .into_iter()
            .chain(authorization.map(|value| ("authorization", value)))
            .collect();
        send(&self.router, line, &headers, Body::empty()).await
    }

    /// The challenge of what is refused.
    async fn challenge(&self, line: &str) -> String {
        let answer = self.get(line, None).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{line}: {}", answer.shown());
        let told = String::from_utf8_lossy(&answer.body).contains("\"code\":\"UNAUTHORIZED\"");
        assert!(told || line.starts_with("HEAD"), "{}", answer.shown());
        answer.header("www-authenticate").to_owned()
    }

    /// One from this address, with these headers more.
    async fn from(&self, peer: &str, line: &str, headers: &[(&str, &str)]) -> Answer {
        let (method, target) = line.split_once(' ').unwrap();
        let mut request = Request::builder().method(method).uri(target).header("host", "inner:5000");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let address: SocketAddr = format!("{peer}:4711").parse().unwrap();
        let mut request = request.body(Body::empty()).unwrap();
        request.extensions_mut().insert(Peer { address, tls: false });
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap().to_vec();
        Answer { status: head.status, headers: head.headers, body }
    }
}

#[tokio::test]
async fn without_a_login_nothing_is_to_be_had() {
    let registry = guarded(false, AppSettings::default()).await;
    for line in [
        "GET /v2/",
        "HEAD /v2/a/manifests/latest",
        "GET /v2/a/tags/list",
        "POST /v2/a/blobs/uploads/",
        "GET /v2/_catalog",
        "DELETE /v2/a/manifests/latest",
        "GET /metrics",
        "GET /token",
    ] {
        assert_eq!(registry.challenge(line).await, "Basic realm=\"fluyt-registry\", charset=\"UTF-8\"", "{line}");
    }
    for open in ["GET /healthz", "GET /readyz", "GET /"] {
        assert_eq!(registry.get(open, None).await.status, StatusCode::OK, "{open}");
    }
    for wrong in
        ["Basic !", "Basic", "Digest x", "Bearer x", "Basic YW5u", &basic("ann", "wrong"), &basic("bob", "secret")]
    {
        assert_eq!(registry.get("GET /v2/", Some(wrong)).await.status, StatusCode::UNAUTHORIZED, "{wrong}");
    }
    let ann = basic("ann", "secret");
    for (line, expected) in [
        ("GET /v2/", StatusCode::OK),
        ("GET /v2/_catalog", StatusCode::OK),
        ("POST /v2/a/blobs/uploads/", StatusCode::ACCEPTED),
        ("GET /v2/a/manifests/latest", StatusCode::NOT_FOUND),
        ("GET /metrics", StatusCode::OK),
        ("GET /token", StatusCode::OK),
    ] {
        assert_eq!(registry.get(line, Some(&ann)).await.status, expected, "{line}");
        let unpadded = ann.trim_end_matches('=');
        assert_eq!(registry.get(line, Some(unpadded)).await.status, expected, "{line}");
    }
}

#[tokio::test]
async fn where_everybody_may_pull_docker_is_sent_to_fetch_a_token() {
    let registry = guarded(true, AppSettings::default()).await;
    let realm = "Bearer realm=\"http://r.example:5000/v2/token\",service=\"r.example:5000\"";
    assert_eq!(registry.challenge("GET /v2/").await, realm);
    assert_eq!(
        registry.challenge("POST /v2/a/b/blobs/uploads/").await,
        format!("{realm},scope=\"repository:a/b:pull,push\"")
    );
    assert_eq!(registry.challenge("DELETE /v2/a/manifests/x").await, format!("{realm},scope=\"repository:a:delete\""));
    assert_eq!(registry.challenge("GET /v2/_catalog").await, format!("{realm},scope=\"registry:catalog:*\""));
    assert!(registry.challenge("GET /metrics").await.starts_with("Basic "));
    // Whoever asks straight away is answered straight away.
    assert_eq!(registry.get("GET /v2/a/manifests/x", None).await.status, StatusCode::NOT_FOUND);

    let token = async |authorization: Option<&str>| {
        let line = "GET /v2/token?service=r.example:5000&scope=repository:a:pull,push&account=ann";
        let answer = registry.get(line, authorization).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.shown());
        assert_eq!(answer.header("cache-control"), "no-store");
        let value: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(value["token"], value["access_token"]);
        assert_eq!(value["expires_in"], 3600);
        format!("Bearer {}", value["token"].as_str().unwrap())
    };
    let anybody = token(None).await;
    let ann = token(Some(&basic("ann", "secret"))).await;
    for (line, of_anybody, of_ann) in [
        ("GET /v2/", StatusCode::OK, StatusCode::OK),
        ("GET /v2/a/manifests/x", StatusCode::NOT_FOUND, StatusCode::NOT_FOUND),
        ("POST /v2/a/blobs/uploads/", StatusCode::UNAUTHORIZED, StatusCode::ACCEPTED),
        ("DELETE /v2/a/manifests/x", StatusCode::UNAUTHORIZED, StatusCode::NOT_FOUND),
        ("GET /v2/_catalog", StatusCode::UNAUTHORIZED, StatusCode::OK),
        ("GET /metrics", StatusCode::UNAUTHORIZED, StatusCode::OK),
    ] {
        assert_eq!(registry.get(line, Some(&anybody)).await.status, of_anybody, "anybody: {line}");
        assert_eq!(registry.get(line, Some(&ann)).await.status, of_ann, "ann: {line}");
    }
    // A wrong password is told, and not taken for nobody's.
    let wrong = registry.get("GET /token", Some(&basic("ann", "wrong"))).await;
    assert_eq!(wrong.status, StatusCode::UNAUTHORIZED, "{}", wrong.shown());
    let post = registry.get("POST /token", None).await;
    assert_eq!((post.status, post.header("allow")), (StatusCode::METHOD_NOT_ALLOWED, "GET"));
}

#[tokio::test]
async fn the_address_of_tokens_is_the_one_that_clients_know() {
    let trusting = AppSettings { trusted_proxies: vec!["10.0.0.0/8".parse().unwrap()], ..AppSettings::default() };
    let registry = guarded(true, trusting).await;
    let forwarded = [("x-forwarded-proto", "https"), ("x-forwarded-host", "r.example")];
    let realm = async |peer: &str| {
        let answer = registry.from(peer, "GET /v2/", &forwarded).await;
        answer.header("www-authenticate").split('"').nth(1).unwrap().to_owned()
    };
    assert_eq!(realm("10.0.0.1").await, "https://r.example/v2/token");
    // A proxy that was not named: no password goes over HTTP, and nothing else of what it says is believed.
    assert_eq!(realm("192.0.2.1").await, "https://inner:5000/v2/token");
    let plain = registry.from("192.0.2.1", "GET /v2/", &[("x-forwarded-proto", "http")]).await;
    assert!(plain.header("www-authenticate").contains("\"http://inner:5000/v2/token\""), "{}", plain.shown());

    let public = AppSettings { public_url: Some("https://r.example".into()), ..AppSettings::default() };
    let registry = guarded(true, public).await;
    let answer = registry.from("192.0.2.1", "GET /v2/", &[]).await;
    let expected = "Bearer realm=\"https://r.example/v2/token\",service=\"r.example\"";
    assert_eq!(answer.header("www-authenticate"), expected);
}

#[tokio::test]
async fn too_many_requests_are_told_when_to_come_again() {
    let settings = AppSettings {
        requests_per_second: NonZeroU32::new(1),
        trusted_proxies: vec!["10.0.0.1".parse().unwrap()],
        ..AppSettings::default()
    };
    let registry = guarded(true, settings).await;
    for _ in 0..10 {
        assert_eq!(registry.from("192.0.2.1", "GET /v2/a/tags/list", &[]).await.status, StatusCode::NOT_FOUND);
    }
    let refused = registry.from("192.0.2.1", "GET /v2/a/tags/list", &[]).await;
    assert_eq!(
        refused.shown(),
        "429 Too Many Requests\ncontent-length: 87\ncontent-type: application/json\nretry-after: 1\n\n{\"errors\":[{\"code\":\"TOOMANYREQUESTS\",\"message\":\"too many requests: try again in 1 s\"}]}"
    );
    // Others are not held up: another address, one behind a proxy, a user, and whoever asks how it does.
    let found = StatusCode::NOT_FOUND;
    assert_eq!(registry.from("192.0.2.2", "GET /v2/a/tags/list", &[]).await.status, found);
    let proxied = [("x-forwarded-for", "192.0.2.3")];
    assert_eq!(registry.from("10.0.0.1", "GET /v2/a/tags/list", &proxied).await.status, found);
    let refused = [("x-forwarded-for", "192.0.2.1")];
    assert_eq!(registry.from("10.0.0.1", "GET /v2/a/tags/list", &refused).await.status, StatusCode::TOO_MANY_REQUESTS);
    let ann = [("authorization", basic("ann", "secret"))].map(|(name, value)| (name, value));
    let ann: Vec<(&str, &str)> = ann.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(registry.from("192.0.2.1", "GET /v2/a/tags/list", &ann).await.status, found);
    assert_eq!(registry.from("192.0.2.1", "GET /healthz", &[]).await.status, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn guessing_passwords_is_told_when_to_come_again() {
    let registry = guarded(false, AppSettings::default()).await;
    let from = async |peer: &str, password: &str| {
        registry.from(peer, "GET /v2/", &[("authorization", &basic("ann", password))]).await
    };
    for guess in 0..10 {
        assert_eq!(from("192.0.2.1", &format!("wrong {guess}")).await.status, StatusCode::UNAUTHORIZED);
        // A client with an old password takes nothing from anyone.
        assert_eq!(from("192.0.2.1", "wrong 0").await.status, StatusCode::UNAUTHORIZED);
    }
    // One at a time is looked at all the same.
    let (right, guess) = tokio::join!(from("192.0.2.1", "secret"), from("192.0.2.1", "wrong 10"));
    assert_eq!(right.status, StatusCode::OK, "{}", right.shown());
    assert_eq!(guess.status, StatusCode::TOO_MANY_REQUESTS, "{}", guess.shown());
    assert_eq!(guess.header("retry-after"), "6");
    assert_eq!(from("192.0.2.2", "secret").await.status, StatusCode::OK);
}

#[tokio::test]
async fn what_happens_is_counted_and_has_an_id() {
    let trusting = AppSettings { trusted_proxies: vec!["10.0.0.0/8".parse().unwrap()], ..AppSettings::default() };
    let registry = guarded(true, trusting).await;
    let first = registry.get("GET /v2/a/tags/list", None).await;
    let second = registry.get("MAKEUP /v2/a/tags/list", None).await;
    let ids = [first.header("x-request-id"), second.header("x-request-id")];
    assert!(ids.iter().all(|id| id.len() == 16) && ids[0] != ids[1], "{ids:?}");
    let given = [("x-request-id", "abc-1")];
    assert_eq!(registry.from("10.0.0.1", "GET /v2/", &given).await.header("x-request-id"), "abc-1");
    assert_ne!(registry.from("192.0.2.1", "GET /v2/", &given).await.header("x-request-id"), "abc-1");
    registry.get("GET /v2/", Some(&basic("ann", "wrong"))).await;

    let answer = registry.get("GET /metrics", Some(&basic("ann", "secret"))).await;
    assert!(answer.header("content-type").starts_with("application/openmetrics-text; version=1.0.0"));
    let text = String::from_utf8(answer.body).unwrap();
    for line in [
        r#"fluyt_registry_requests_total{method="GET",endpoint="tags",status="404"} 1"#,
        r#"fluyt_registry_requests_total{method="other",endpoint="tags",status="405"} 1"#,
        r#"fluyt_registry_requests_total{method="GET",endpoint="base",status="401"} 3"#,
        r#"fluyt_registry_request_duration_seconds_count{method="GET",endpoint="tags"} 1"#,
        r#"fluyt_registry_requests_in_flight{endpoint="tags"} 0"#,
        r#"fluyt_registry_requests_in_flight{endpoint="other"} 1"#,
        r#"fluyt_registry_logins_total{result="wrong"} 1"#,
        r#"fluyt_registry_logins_total{result="ok"} 1"#,
        "fluyt_registry_body_memory_bytes 0",
        "# EOF",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    assert!(text.contains("\nprocess_resident_memory_bytes "), "{text}");
}

#[tokio::test]
async fn nobody_may_delete_where_nothing_is_deleted() {
    let registry = guarded(false, AppSettings { no_delete: true, ..AppSettings::default() }).await;
    let ann = basic("ann", "secret");
    let digest = crate::app::digest("x");
    for (line, allowed) in [
        ("DELETE /v2/a/manifests/v1".to_owned(), "GET, HEAD, PUT"),
        (format!("DELETE /v2/a/blobs/{digest}"), "GET, HEAD"),
    ] {
        let answer = registry.get(&line, Some(&ann)).await;
        assert_eq!((answer.status, answer.header("allow")), (StatusCode::METHOD_NOT_ALLOWED, allowed), "{line}");
        assert!(answer.shown().contains("UNSUPPORTED"), "{}", answer.shown());
    }
    // Giving up an upload takes nothing that was there.
    let begun = registry.get("POST /v2/a/blobs/uploads/", Some(&ann)).await;
    let cancelled = registry.get(&format!("DELETE {}", begun.header("location")), Some(&ann)).await;
    assert_eq!(cancelled.status, StatusCode::NO_CONTENT);
}
