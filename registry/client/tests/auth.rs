//! Challenges, tokens and what is remembered of them.

use std::fs;

use fluyt_client::{Client, ClientError, Credential, LoginCheck, Settings, Stored};

use crate::fixture::{Guard, Options, Registry, blob_of, sample, settings};

const MANIFEST: &str = "{}";
const TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

fn tokens(login: Option<(&'static str, &'static str)>, seconds: u64) -> Options {
    Options { guard: Guard::Token { login, refresh: None, seconds }, ..Options::default() }
}

/// A client whose credentials file holds this entry for the registry.
fn client_with(registry: &Registry, entry: &str) -> (Client, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("auth.json");
    fs::write(&file, format!(r#"{{"auths":{{"{}":{entry}}}}}"#, registry.host())).unwrap();
    let client = Client::new(Settings { authfile: Some(file), ..settings() }).unwrap();
    (client, folder)
}

/// `me:secret` and `me:wrong`.
const GOOD: &str = r#"{"auth":"bWU6c2VjcmV0"}"#;
const BAD: &str = r#"{"auth":"bWU6d3Jvbmc="}"#;

#[tokio::test]
async fn a_token_is_fetched_once_and_used_again() {
    let registry = Registry::start(tokens(None, 300)).await;
    registry.add_manifest("a/b", "1", TYPE, MANIFEST);
    let blob = registry.add_blob("a/b", b"content");
    let client = crate::fixture::client();
    let reference = registry.reference("a/b:1");
    client.manifest(&reference, &[]).await.unwrap();
    client.blob(&reference, &blob, &mut Vec::new(), &|_| ()).await.unwrap();
    insta::assert_snapshot!(registry.log(), @r"
    GET /v2/a/b/manifests/1
    GET /token?service=fixture&scope=repository:a/b:pull
    GET /v2/a/b/manifests/1 [Bearer]
    GET /v2/a/b/blobs/DIGEST [Bearer]
    ");
}

#[tokio::test]
async fn a_token_to_push_serves_to_pull_and_a_mount_needs_two_scopes() {
    let registry = Registry::start(Options { mounts: true, ..tokens(Some(("me", "secret")), 300) }).await;
    let (client, _folder) = client_with(&registry, GOOD);
    let content = sample(100, 1);
    let blob = registry.add_blob("base/image", &content);
    let reference = registry.reference("a/b:1");
    let source = |_| Ok(std::io::Cursor::new(Vec::new()));
    let pushed = client.push_blob(&reference, &blob, &["base/image".to_owned()], source, &|_| ()).await.unwrap();
    assert_eq!(pushed, fluyt_client::Pushed::Mounted { from: "base/image".to_owned() });
    assert!(client.has_blob(&reference, &blob.digest).await.unwrap());
    insta::assert_snapshot!(registry.log(), @r"
    HEAD /v2/a/b/blobs/DIGEST
    GET /token?service=fixture&scope=repository:a/b:pull,push [Basic]
    HEAD /v2/a/b/blobs/DIGEST [Bearer]
    GET /token?service=fixture&scope=repository:a/b:pull,push&scope=repository:base/image:pull [Basic]
    POST /v2/a/b/blobs/uploads/?mount=DIGEST&from=base/image [Bearer]
    HEAD /v2/a/b/blobs/DIGEST [Bearer]
    ");
}

#[tokio::test]
async fn a_token_that_is_not_accepted_any_more_is_replaced() {
    let registry = Registry::start(tokens(None, 300)).await;
    registry.add_manifest("a/b", "1", TYPE, MANIFEST);
    let client = crate::fixture::client();
    let reference = registry.reference("a/b:1");
    client.resolve(&reference).await.unwrap();
    registry.revoke_tokens();
    registry.log();
    client.resolve(&reference).await.unwrap();
    insta::assert_snapshot!(registry.log(), @r"
    HEAD /v2/a/b/manifests/1 [Bearer]
    GET /token?service=fixture&scope=repository:a/b:pull
    HEAD /v2/a/b/manifests/1 [Bearer]
    ");
}

#[tokio::test]
async fn a_token_is_replaced_before_it_ends() {
    let registry = Registry::start(tokens(None, 1)).await;
    registry.add_manifest("a/b", "1", TYPE, MANIFEST);
    let client = crate::fixture::client();
    client.resolve(&registry.reference("a/b:1")).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(800)).await;
    registry.log();
    client.resolve(&registry.reference("a/b:1")).await.unwrap();
    insta::assert_snapshot!(registry.log(), @r"
    GET /token?service=fixture&scope=repository:a/b:pull
    HEAD /v2/a/b/manifests/1 [Bearer]
    ");
}

#[tokio::test]
async fn many_requests_at_once_fetch_one_token() {
    let registry = Registry::start(tokens(None, 300)).await;
    let blobs: Vec<_> = (0..8).map(|seed| registry.add_blob("a/b", &sample(1000, seed))).collect();
    let client = crate::fixture::client();
    let reference = registry.reference("a/b");
    let fetches = blobs.iter().map(|blob| async {
        let mut sink = Vec::new();
        client.blob(&reference, blob, &mut sink, &|_| ()).await.map(|()| blob_of(&sink) == *blob)
    });
    let outcomes = futures_util::future::join_all(fetches).await;
    assert!(outcomes.into_iter().all(|outcome| outcome.unwrap()));
    assert_eq!(registry.log().lines().filter(|line| line.contains("/token")).count(), 1);
}

#[tokio::test]
async fn a_token_that_runs_out_during_an_upload_is_replaced() {
    let registry = Registry::start(tokens(Some(("me", "secret")), 300)).await;
    let (client, _folder) = client_with(&registry, GOOD);
    let content = sample(2_000_000, 3);
    registry.trouble("PATCH", "uploads", 1, crate::fixture::Trouble::Answer(401, challenge(&registry), ""));
    let source = |offset: u64| Ok(std::io::Cursor::new(content[usize::try_from(offset).unwrap()..].to_vec()));
    client.push_blob(&registry.reference("a/b"), &blob_of(&content), &[], source, &|_| ()).await.unwrap();
    assert!(registry.blob("a/b", &blob_of(&content)).unwrap() == content);
    assert_eq!(registry.log().lines().filter(|line| line.contains("/token")).count(), 2);
}

fn challenge(registry: &Registry) -> Vec<(&'static str, String)> {
    vec![("www-authenticate", format!("Bearer realm=\"http://{}/token\",service=\"fixture\"", registry.host()))]
}

#[tokio::test]
async fn basic_is_answered_and_then_sent_at_once() {
    let registry = Registry::start(Options { guard: Guard::Basic("me", "secret"), ..Options::default() }).await;
    registry.add_manifest("a/b", "1", TYPE, MANIFEST);
    let (client, _folder) = client_with(&registry, GOOD);
    for _ in 0..2 {
        client.resolve(&registry.reference("a/b:1")).await.unwrap();
    }
    insta::assert_snapshot!(registry.log(), @r"
    HEAD /v2/a/b/manifests/1
    HEAD /v2/a/b/manifests/1 [Basic]
    HEAD /v2/a/b/manifests/1 [Basic]
    ");
}

#[tokio::test]
async fn an_identity_token_is_exchanged() {
    let guard = Guard::Token { login: None, refresh: Some("refresh-me"), seconds: 300 };
    let registry = Registry::start(Options { guard, ..Options::default() }).await;
    registry.add_manifest("a/b", "1", TYPE, MANIFEST);
    let (client, _folder) = client_with(&registry, r#"{"auth":"PHRva2VuPjo=","identitytoken":"refresh-me"}"#);
    client.resolve(&registry.reference("a/b:1")).await.unwrap();
    insta::assert_snapshot!(registry.log(), @r"
    HEAD /v2/a/b/manifests/1
    POST /token
    HEAD /v2/a/b/manifests/1 [Bearer]
    ");
}

/// The error's text with the port made constant.
fn text(registry: &Registry, error: &ClientError) -> String {
    error.to_string().replace(&registry.host(), "127.0.0.1:PORT")
}

#[tokio::test]
async fn refusals_tell_what_was_tried() {
    let registry = Registry::start(tokens(Some(("me", "secret")), 300)).await;
    let error = crate::fixture::client().resolve(&registry.reference("a/b:1")).await.unwrap_err();
    assert!(matches!(error, ClientError::Unauthorized { .. }));
    insta::assert_snapshot!(text(&registry, &error), @"registry `127.0.0.1:PORT` asks for credentials for manifest 127.0.0.1:PORT/a/b:1: none are known (it says: UNAUTHORIZED: incorrect username or password); log in with `fluyt login 127.0.0.1:PORT`");
    let (client, folder) = client_with(&registry, BAD);
    let error = client.resolve(&registry.reference("a/b:1")).await.unwrap_err();
    let shown = text(&registry, &error).replace(folder.path().to_str().unwrap(), "FOLDER");
    insta::assert_snapshot!(shown, @"registry `127.0.0.1:PORT` asks for credentials for manifest 127.0.0.1:PORT/a/b:1: those of user `me` (FOLDER/auth.json) are not accepted (it says: UNAUTHORIZED: incorrect username or password); log in with `fluyt login 127.0.0.1:PORT`");
    let all = format!("{error:?} {error} {client:?}");
    assert!(!all.contains("wrong") && !all.contains("bWU6"), "{all}");

    for guard in [Guard::Basic("me", "secret"), tokens(Some(("me", "secret")), 300).guard] {
        let registry = Registry::start(Options { guard, ..Options::default() }).await;
        registry.add_manifest("a/b", "1", TYPE, MANIFEST);
        let (client, folder) = client_with(&registry, BAD);
        let error = client.resolve(&registry.reference("a/b:1")).await.unwrap_err();
        assert!(matches!(error, ClientError::Unauthorized { .. }), "{error}");
        assert_eq!(registry.log().lines().count(), 2);
        // Whoever mends the file need not start again.
        let text = format!(r#"{{"auths":{{"{}":{GOOD}}}}}"#, registry.host());
        fs::write(folder.path().join("auth.json"), text).unwrap();
        client.resolve(&registry.reference("a/b:1")).await.unwrap();
    }
}

#[tokio::test]
async fn credentials_that_ran_out_are_looked_for_again() {
    let guards = [
        (Guard::Basic("me", "secret"), Guard::Basic("me", "next")),
        (tokens(Some(("me", "secret")), 300).guard, tokens(Some(("me", "next")), 300).guard),
    ];
    for (before, after) in guards {
        let registry = Registry::start(Options { guard: before, ..Options::default() }).await;
        let (client, folder) = client_with(&registry, GOOD);
        let reference = registry.reference("a/b:1");
        client.push_manifest(&reference, TYPE, MANIFEST.into()).await.unwrap();
        registry.guard(after);
        registry.revoke_tokens();
        // What a helper gives next.
        let text = format!(r#"{{"auths":{{"{}":{{"auth":"bWU6bmV4dA=="}}}}}}"#, registry.host());
        fs::write(folder.path().join("auth.json"), text).unwrap();
        client.push_manifest(&reference, TYPE, MANIFEST.into()).await.unwrap();
        registry.guard(Guard::Basic("me", "other"));
        registry.log();
        let error = client.resolve(&reference).await.unwrap_err();
        assert!(matches!(error, ClientError::Unauthorized { .. }), "{error}");
        assert!(registry.log().lines().count() <= 2, "the same is not tried again");
    }
}

#[tokio::test]
async fn a_login_is_checked_stored_and_removed() {
    for guard in [Guard::Basic("me", "secret"), tokens(Some(("me", "secret")), 300).guard] {
        let registry = Registry::start(Options { guard, ..Options::default() }).await;
        registry.add_manifest("a/b", "1", TYPE, MANIFEST);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("new").join("auth.json");
        let client = Client::new(Settings { authfile: Some(file.clone()), ..settings() }).unwrap();
        let reference = registry.reference("a/b:1");
        assert!(matches!(client.resolve(&reference).await, Err(ClientError::Unauthorized { .. })));

        let password =
            |password: &str| Credential::Password { username: "me".to_owned(), password: password.to_owned() };
        let error = client.login(&registry.host(), &password("wrong")).await.unwrap_err();
        assert!(matches!(error, ClientError::Unauthorized { .. }) && !file.exists(), "{error}");

        let outcome = client.login(&registry.host(), &password("secret")).await.unwrap();
        assert_eq!(outcome, (LoginCheck::Accepted, Stored::File(file.clone())));
        client.resolve(&reference).await.unwrap();

        assert_eq!(client.logout(&registry.host()).await.unwrap().files, [file]);
        assert!(matches!(client.resolve(&reference).await, Err(ClientError::Unauthorized { .. })));
    }
    let open = Registry::start(Options::default()).await;
    let credential = Credential::Password { username: "any".to_owned(), password: "thing".to_owned() };
    assert_eq!(crate::fixture::client().check_login(&open.host(), &credential).await.unwrap(), LoginCheck::NotNeeded);
    crate::fixture::client().ping(&open.host()).await.unwrap();
}

#[tokio::test]
async fn a_token_service_without_tls_gets_no_credentials_of_a_registry_with_tls() {
    let certificate = crate::fixture::certificate(&["127.0.0.1"]);
    let registry = Registry::start_tls(Options::default(), &certificate).await;
    let header = ("www-authenticate", "Bearer realm=\"http://tokens.example.org/token\"".to_owned());
    registry.trouble("GET", "/v2/", 9, crate::fixture::Trouble::Answer(401, vec![header], ""));
    let client = Client::new(Settings { skip_tls_verify: vec![registry.host()], ..settings() }).unwrap();
    let error = client.manifest(&registry.reference("a/b:1"), &[]).await.unwrap_err().to_string();
    assert!(error.contains("its token service `http://tokens.example.org` is not reached by TLS"), "{error}");
}
