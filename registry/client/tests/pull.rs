//! Manifests, blobs and tags, from a registry that does well and one that does not.

use std::sync::Mutex;

use fluyt_client::{Blob, Client, ClientError, Settings};

use crate::fixture::{Options, Registry, Trouble, blob_of, client, sample, settings};

const MANIFEST: &str = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","layers":[]}"#;
const TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

async fn fetch(client: &Client, registry: &Registry, blob: &Blob) -> Result<Vec<u8>, ClientError> {
    let mut sink = Vec::new();
    client.blob(&registry.reference("a/b"), blob, &mut sink, &|_| ()).await.map(|()| sink)
}

#[tokio::test]
async fn a_manifest_is_fetched_and_checked() {
    let registry = Registry::start(Options::default()).await;
    let digest = registry.add_manifest("a/b", "1", TYPE, MANIFEST);
    let client = client();
    let manifest = client.manifest(&registry.reference("a/b:1"), &[]).await.unwrap();
    assert_eq!((manifest.bytes.as_ref(), manifest.media_type.as_str()), (MANIFEST.as_bytes(), TYPE));
    assert_eq!(manifest.digest.to_string(), digest);
    let by_digest = client.manifest(&registry.reference(&format!("a/b@{digest}")), &[]).await.unwrap();
    assert_eq!(by_digest, manifest);
    let resolved = client.resolve(&registry.reference("a/b:1")).await.unwrap();
    assert_eq!((resolved.digest.to_string(), resolved.size_bytes), (digest, MANIFEST.len() as u64));
    assert!(client.has_manifest(&registry.reference("a/b:1")).await.unwrap());
    assert!(!client.has_manifest(&registry.reference("a/b:2")).await.unwrap());
}

#[tokio::test]
async fn a_blob_is_fetched() {
    let registry = Registry::start(Options::default()).await;
    let content = sample(3_000_000, 1);
    let blob = registry.add_blob("a/b", &content);
    let told = Mutex::new(Vec::new());
    let mut sink = Vec::new();
    client()
        .blob(&registry.reference("a/b"), &blob, &mut sink, &|bytes| told.lock().unwrap().push(bytes))
        .await
        .unwrap();
    assert!(sink == content);
    let told = told.into_inner().unwrap();
    assert!(told.is_sorted() && told.last() == Some(&3_000_000), "{told:?}");
    assert!(fetch(&client(), &registry, &registry.add_blob("a/b", b"")).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_cut_download_goes_on_where_it_broke() {
    let registry = Registry::start(Options::default()).await;
    let content = sample(2_000_000, 2);
    let blob = registry.add_blob("a/b", &content);
    registry.trouble("GET", "/blobs/", 1, Trouble::CutAnswer(700_000));
    registry.trouble("GET", "/blobs/", 1, Trouble::EndEarly(600_000));
    assert!(fetch(&client(), &registry, &blob).await.unwrap() == content);
    insta::assert_snapshot!(registry.log(), @r"
    GET /v2/a/b/blobs/DIGEST
    GET /v2/a/b/blobs/DIGEST range=bytes=700000-
    GET /v2/a/b/blobs/DIGEST range=bytes=1300000-
    ");
}

#[tokio::test]
async fn a_connection_that_breaks_after_the_last_byte_has_brought_all() {
    let registry = Registry::start(Options { chunked: true, ..Options::default() }).await;
    for content in [sample(500_000, 30), Vec::new()] {
        let blob = registry.add_blob("a/b", &content);
        registry.trouble("GET", "/blobs/", 1, Trouble::CutAnswer(content.len()));
        assert!(fetch(&client(), &registry, &blob).await.unwrap() == content);
        assert_eq!(registry.log(), "GET /v2/a/b/blobs/DIGEST");
    }
    // What came is checked all the same.
    let blob = Blob { size_bytes: 400_000, ..registry.add_blob("a/b", &sample(500_000, 30)) };
    registry.trouble("GET", "/blobs/", 1, Trouble::CutAnswer(400_000));
    let error = fetch(&client(), &registry, &blob).await.unwrap_err();
    assert!(matches!(error, ClientError::DigestMismatch { .. }), "{error}");
}

fn text(registry: &Registry, error: &ClientError) -> String {
    error.to_string().replace(&registry.host(), "127.0.0.1:PORT")
}

#[tokio::test]
async fn a_registry_without_ranges_is_read_again_from_the_start() {
    for chunked in [false, true] {
        let registry = Registry::start(Options { no_ranges: true, chunked, ..Options::default() }).await;
        let content = sample(1_000_000, 3);
        let blob = registry.add_blob("a/b", &content);
        registry.trouble("GET", "/blobs/", 2, Trouble::CutAnswer(500_000));
        assert!(fetch(&client(), &registry, &blob).await.unwrap() == content);
        assert_eq!(registry.log().lines().count(), 3);
    }
}

#[tokio::test]
async fn a_registry_that_never_gets_further_is_given_up() {
    let registry = Registry::start(Options::default()).await;
    let blob = registry.add_blob("a/b", &sample(1_000_000, 4));
    registry.trouble("GET", "/blobs/", 100, Trouble::CutAnswer(10));
    let error = fetch(&client(), &registry, &blob).await.unwrap_err();
    assert!(matches!(error, ClientError::Cut { .. }), "{error}");
    assert!(error.is_transient());
    assert_eq!(registry.log().lines().count(), 4);
    // Slow, but it gets there: each connection brings enough to count.
    let registry = Registry::start(Options::default()).await;
    let content = sample(3_000_000, 5);
    let blob = registry.add_blob("a/b", &content);
    registry.trouble("GET", "/blobs/", 9, Trouble::CutAnswer(300_000));
    assert!(fetch(&client(), &registry, &blob).await.unwrap() == content);
}

#[tokio::test]
async fn wrong_content_is_found_out() {
    let registry = Registry::start(Options::default()).await;
    let blob = registry.add_blob("a/b", &sample(100_000, 6));
    registry.trouble("GET", "/blobs/", 1, Trouble::OtherBytes);
    let error = fetch(&client(), &registry, &blob).await.unwrap_err();
    let found = match &error {
        ClientError::DigestMismatch { found, .. } => found.to_string(),
        other => panic!("{other}"),
    };
    let shown = text(&registry, &error).replace(&found, "FOUND").replace(blob.digest.as_ref(), "DIGEST");
    insta::assert_snapshot!(shown, @"registry `127.0.0.1:PORT` sends other content for blob DIGEST of 127.0.0.1:PORT/a/b: expected digest DIGEST, found FOUND");

    for size_bytes in [99_999, 100_001] {
        for chunked in [false, true] {
            let registry = Registry::start(Options { chunked, ..Options::default() }).await;
            registry.add_blob("a/b", &sample(100_000, 6));
            let error = fetch(&client(), &registry, &Blob { size_bytes, ..blob.clone() }).await.unwrap_err();
            assert!(
                matches!(error, ClientError::Truncated { expected_bytes, .. } if expected_bytes == size_bytes),
                "{error}"
            );
        }
    }

    registry.add_manifest("a/b", "1", TYPE, MANIFEST);
    registry.trouble("GET", "/manifests/", 1, Trouble::OtherBytes);
    let error = client().manifest(&registry.reference("a/b:1"), &[]).await.unwrap_err();
    assert!(matches!(error, ClientError::DigestMismatch { .. }), "{error}");
    let absent = blob_of(b"absent");
    let by_digest = registry.reference("a/b").with_digest(&absent.digest);
    registry.add_manifest("a/b", absent.digest.as_ref(), TYPE, MANIFEST);
    for error in [client().manifest(&by_digest, &[]).await.map(|_| ()), client().resolve(&by_digest).await.map(|_| ())]
    {
        assert!(matches!(error, Err(ClientError::DigestMismatch { .. })), "{error:?}");
    }
}

#[tokio::test]
async fn what_may_pass_is_tried_again() {
    let registry = Registry::start(Options::default()).await;
    let content = sample(1000, 7);
    let blob = registry.add_blob("a/b", &content);
    registry.add_manifest("a/b", "1", TYPE, MANIFEST);
    registry.trouble("GET", "/blobs/", 3, Trouble::Answer(503, vec![], ""));
    assert!(fetch(&client(), &registry, &blob).await.unwrap() == content);
    registry.trouble("GET", "/manifests/", 1, Trouble::LoseAnswer);
    registry.trouble("GET", "/manifests/", 1, Trouble::CutAnswer(5));
    registry.trouble("GET", "/manifests/", 1, Trouble::Answer(500, vec![], "oops"));
    client().manifest(&registry.reference("a/b:1"), &[]).await.unwrap();
    assert_eq!(registry.log().lines().count(), 4 + 4);

    registry.trouble("HEAD", "/manifests/", 1, Trouble::Answer(429, vec![("retry-after", "1".to_owned())], ""));
    let start = std::time::Instant::now();
    client().resolve(&registry.reference("a/b:1")).await.unwrap();
    assert!(start.elapsed() >= std::time::Duration::from_secs(1));
}

#[tokio::test]
async fn what_will_not_pass_is_told_at_once() {
    let registry = Registry::start(Options::default()).await;
    let told = async |status, body| {
        registry.trouble(
            "GET",
            "/manifests/",
            1,
            Trouble::Answer(status, vec![("retry-after", "4000".to_owned())], body),
        );
        let error = client().manifest(&registry.reference("a/b:1"), &[]).await.unwrap_err();
        text(&registry, &error)
    };
    let denied = r#"{"errors":[{"code":"DENIED","message":"requested access is denied"}]}"#;
    let unsupported = r#"{"errors":[{"code":"UNSUPPORTED","message":"no"}]}"#;
    let texts = [
        told(404, "").await,
        told(403, denied).await,
        told(429, "").await,
        told(400, unsupported).await,
        told(418, "tea").await,
        told(501, "").await,
    ];
    insta::assert_snapshot!(texts.join("\n"), @r"
    registry `127.0.0.1:PORT` does not have manifest 127.0.0.1:PORT/a/b:1
    registry `127.0.0.1:PORT` denies access to manifest 127.0.0.1:PORT/a/b:1 (it says: DENIED: requested access is denied)
    registry `127.0.0.1:PORT` limits the number of requests for manifest 127.0.0.1:PORT/a/b:1, and asks to wait 4000 s
    registry `127.0.0.1:PORT` does not support this for manifest 127.0.0.1:PORT/a/b:1 (it says: UNSUPPORTED: no)
    registry `127.0.0.1:PORT` answers with status 418 to the request for manifest 127.0.0.1:PORT/a/b:1 (it says: tea)
    registry `127.0.0.1:PORT` does not support this for manifest 127.0.0.1:PORT/a/b:1; it does not answer as a registry does: is its name right?
    ");
    assert_eq!(registry.log().lines().count(), 6);
    let error = fetch(&client(), &registry, &blob_of(b"absent")).await.unwrap_err();
    assert!(matches!(error, ClientError::NotFound { .. }) && error.to_string().contains("sha256:"), "{error}");
    assert!(!client().has_blob(&registry.reference("a/b"), &blob_of(b"absent").digest).await.unwrap());
}

#[tokio::test]
async fn silence_and_closed_doors_end() {
    let registry = Registry::start(Options::default()).await;
    registry.trouble("GET", "/v2/", 9, Trouble::Silence);
    let retry = fluyt_client::RetryPolicy { attempts: 1, ..settings().retry };
    let quick = Settings { idle_timeout: std::time::Duration::from_millis(60), retry, ..settings() };
    let quick = Client::new(quick).unwrap();
    let told = std::sync::Arc::new(Mutex::new(Vec::new()));
    let hears = told.clone();
    quick.tell_of_silence(move |silence| hears.lock().unwrap().push(silence.clone()));
    let error = quick.manifest(&registry.reference("a/b:1"), &[]).await.unwrap_err();
    assert!(matches!(error, ClientError::Timeout { .. }), "{error}");
    let told = std::mem::take(&mut *told.lock().unwrap());
    assert_eq!((told.len(), told[0].host.as_str(), told[0].limit.as_millis()), (1, registry.host().as_str(), 60));
    assert!(told[0].what.contains("a/b") && told[0].lasted.as_millis() == 10, "{told:?}");
    let host = registry.host();
    drop(registry);
    tokio::task::yield_now().await;
    let reference = fluyt_client::Reference::parse(&format!("{host}/a/b:1")).unwrap();
    let error = client().manifest(&reference, &[]).await.unwrap_err();
    assert!(matches!(error, ClientError::Connect { .. }), "{error}");
    assert!(error.to_string().contains("refused"), "{error}");
    let nowhere = fluyt_client::Reference::parse("registry.example.invalid/a:1").unwrap();
    let error = client().manifest(&nowhere, &[]).await.unwrap_err();
    assert!(error.to_string().contains("the name cannot be resolved"), "{error}");
}

#[tokio::test]
async fn a_manifest_that_is_too_large_is_refused() {
    let registry = Registry::start(Options::default()).await;
    registry.add_manifest("a/b", "1", TYPE, &" ".repeat(9 * 1024 * 1024));
    let error = client().manifest(&registry.reference("a/b:1"), &[]).await.unwrap_err();
    assert!(matches!(error, ClientError::TooLarge { limit_bytes: 8_388_608, .. }), "{error}");
    registry.trouble("GET", "/manifests/", 1, Trouble::EndEarly(usize::MAX));
    let error = client().manifest(&registry.reference("a/b:1"), &[]).await.unwrap_err();
    assert!(matches!(error, ClientError::TooLarge { .. }), "{error}");
}

#[tokio::test]
async fn registries_that_say_little_are_understood() {
    let registry = Registry::start(Options { no_head: true, no_digest_header: true, ..Options::default() }).await;
    let digest = registry.add_manifest("a/b", "1", "application/json", MANIFEST);
    let resolved = client().resolve(&registry.reference("a/b:1")).await.unwrap();
    assert_eq!((resolved.digest.to_string(), resolved.media_type.as_str()), (digest, TYPE));
    let bare = r#"{"schemaVersion":2}"#;
    registry.add_manifest("a/b", "2", "application/vnd.oci.image.index.v1+json; charset=utf-8", bare);
    let manifest = client().manifest(&registry.reference("a/b:2"), &[]).await.unwrap();
    assert_eq!(manifest.media_type, "application/vnd.oci.image.index.v1+json");
}

#[tokio::test]
async fn other_algorithms_are_checked_or_refused() {
    let registry = Registry::start(Options::default()).await;
    use sha2::Digest as _;
    let sha512 = format!("sha512:{}", hex::encode(sha2::Sha512::digest(MANIFEST)));
    registry.add_manifest("a/b", &sha512, TYPE, MANIFEST);
    let manifest = client().manifest(&registry.reference(&format!("a/b@{sha512}")), &[]).await.unwrap();
    assert_eq!(manifest.digest.to_string(), sha512);
    let odd: oci_spec::image::Digest = "blake3:abcdef".parse().unwrap();
    let error = fetch(&client(), &registry, &Blob { digest: odd, size_bytes: 1 }).await.unwrap_err();
    assert!(matches!(error, ClientError::Algorithm { .. }), "{error}");
}

#[tokio::test]
async fn redirects_are_followed_without_the_authorization() {
    let storage = Registry::start(Options::default()).await;
    let elsewhere = Some(format!("http://{}", storage.host()));
    let guard = crate::fixture::Guard::Token { login: None, refresh: None, seconds: 300 };
    let registry = Registry::start(Options { blobs_elsewhere: elsewhere, guard, ..Options::default() }).await;
    let content = sample(500_000, 8);
    let blob = registry.add_blob("a/b", &content);
    storage.add_blob("a/b", &content);
    storage.trouble("GET", "/blobs/", 1, Trouble::CutAnswer(100_000));
    assert!(fetch(&client(), &registry, &blob).await.unwrap() == content);
    assert_eq!(storage.log(), "GET /v2/a/b/blobs/DIGEST\nGET /v2/a/b/blobs/DIGEST range=bytes=100000-");
    // Each attempt starts at the registry: a signed address may have run out.
    assert_eq!(registry.log().lines().filter(|line| line.contains("[Bearer]")).count(), 2);

    // That it is stored elsewhere is answer enough to whether it is there.
    assert!(client().has_blob(&registry.reference("a/b"), &blob.digest).await.unwrap());
    assert_eq!(storage.log(), "");
    // A question of the other host is not answered with what is the registry's.
    let question = vec![("www-authenticate", format!("Bearer realm=\"http://{}/token\"", storage.host()))];
    storage.trouble("GET", "/blobs/", 1, Trouble::Answer(401, question, ""));
    let error = fetch(&client(), &registry, &blob).await.unwrap_err();
    assert!(matches!(error, ClientError::Protocol { status: 401, .. }), "{error}");
    assert_eq!(storage.log(), "GET /v2/a/b/blobs/DIGEST");

    let circle = Registry::start(Options::default()).await;
    let location = vec![("location", format!("http://{}/v2/a/b/manifests/1", circle.host()))];
    circle.trouble("GET", "/manifests/", 100, Trouble::Answer(302, location, ""));
    let error = client().manifest(&circle.reference("a/b:1"), &[]).await.unwrap_err();
    assert!(error.to_string().contains("redirects more than 8 times"), "{error}");
    for wrong in ["file:///etc/passwd", "http://user:secret@127.0.0.1/x", "http://["] {
        circle.trouble("GET", "/manifests/2", 1, Trouble::Answer(302, vec![("location", wrong.to_owned())], ""));
        let error = client().manifest(&circle.reference("a/b:2"), &[]).await.unwrap_err();
        assert!(!error.is_transient() && !error.to_string().contains("secret"), "{error}");
    }
}

#[tokio::test]
async fn tags_come_in_pages() {
    let registry = Registry::start(Options { page: Some(2), ..Options::default() }).await;
    for tag in ["a", "b", "c", "d", "e"] {
        registry.add_manifest("a/b", tag, TYPE, MANIFEST);
    }
    assert_eq!(client().tags(&registry.reference("a/b")).unwrap().all().await.unwrap(), ["a", "b", "c", "d", "e"]);
    assert_eq!(registry.log().lines().count(), 3);
    registry.trouble(
        "GET",
        "/tags/",
        1,
        Trouble::Answer(200, vec![("link", "<http://evil.example.org/>; rel=next".to_owned())], r#"{"tags":null}"#),
    );
    let error = client().tags(&registry.reference("a/b")).unwrap().all().await.unwrap_err();
    assert!(error.to_string().contains("another host, `evil.example.org`"), "{error}");
}

#[tokio::test]
async fn transfers_are_bounded_and_streams_can_be_read_by_pieces() {
    let registry = Registry::start(Options::default()).await;
    let content = sample(300_000, 9);
    let blob = registry.add_blob("a/b", &content);
    let client = Client::new(Settings { transfers: 1, ..settings() }).unwrap();
    let reference = registry.reference("a/b");
    let mut stream = client.blob_stream(&reference, &blob).await.unwrap();
    let waiting =
        tokio::time::timeout(std::time::Duration::from_millis(50), client.blob_stream(&reference, &blob)).await;
    assert!(waiting.is_err());
    let mut read = Vec::new();
    while let Some(chunk) = stream.chunk().await.unwrap() {
        assert!(chunk.len() <= 1024 * 1024, "{}", chunk.len());
        read.extend_from_slice(&chunk);
    }
    assert!(read == content && stream.position() == 300_000);
    assert!(stream.chunk().await.unwrap().is_none());
    drop(stream);
    client.blob_stream(&reference, &blob).await.unwrap();
}

/// A full disk.
struct Full;

impl std::io::Write for Full {
    fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
        Err(std::io::ErrorKind::StorageFull.into())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_full_disk_is_told_as_such() {
    let registry = Registry::start(Options::default()).await;
    let blob = registry.add_blob("a/b", &sample(1000, 1));
    let error = client().blob(&registry.reference("a/b"), &blob, &mut Full, &|_| ()).await.unwrap_err();
    assert!(
        matches!(&error, ClientError::Sink { source, .. } if source.kind() == std::io::ErrorKind::StorageFull),
        "{error}"
    );
    assert_eq!(registry.log().lines().count(), 1);
}

#[test]
fn operations_can_be_spawned() {
    fn sendable<T: Send>(_: T) {}
    let client = client();
    let reference = fluyt_client::Reference::parse("x").unwrap();
    let blob = blob_of(b"");
    let mut sink = Vec::new();
    sendable(client.manifest(&reference, &[]));
    sendable(client.resolve(&reference));
    sendable(client.blob(&reference, &blob, &mut sink, &|_| ()));
    sendable(client.blob_stream(&reference, &blob));
    sendable(client.mount(&reference, &blob.digest, "y"));
    sendable(client.push_blob(&reference, &blob, &[], |_| Ok(std::io::empty()), &|_| ()));
    sendable(client.push_manifest(&reference, TYPE, bytes::Bytes::new()));
    sendable(client.ping("x"));
}
