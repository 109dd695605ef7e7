//! Uploads, to a registry that takes them and one that does not at once.

use std::io::{self, Cursor};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use fluyt_client::{Blob, Client, ClientError, Pushed, Settings};

use crate::fixture::{Guard, Options, Registry, Trouble, blob_of, client, sample, settings};

const TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

/// Opens content at an offset.
fn source(content: &[u8]) -> impl Fn(u64) -> io::Result<Cursor<Vec<u8>>> + Send + Sync {
    let content = content.to_vec();
    move |offset| Ok(Cursor::new(content[usize::try_from(offset).unwrap()..].to_vec()))
}

async fn push(
    client: &Client,
    registry: &Registry,
    content: &[u8],
    mount_from: &[String],
) -> Result<Pushed, ClientError> {
    client.push_blob(&registry.reference("a/b"), &blob_of(content), mount_from, source(content), &|_| ()).await
}

#[tokio::test]
async fn a_small_blob_goes_with_the_closing_request() {
    let registry = Registry::start(Options::default()).await;
    let content = sample(1000, 1);
    assert_eq!(push(&client(), &registry, &content, &[]).await.unwrap(), Pushed::Uploaded);
    insta::assert_snapshot!(registry.log(), @r"
    HEAD /v2/a/b/blobs/DIGEST
    POST /v2/a/b/blobs/uploads/
    PUT /v2/a/b/blobs/uploads/u1?state=opaque&digest=DIGEST
    ");
    assert_eq!(registry.blob("a/b", &blob_of(&content)).unwrap(), content);
    assert_eq!(push(&client(), &registry, &content, &[]).await.unwrap(), Pushed::Present);
    assert_eq!(registry.log(), "HEAD /v2/a/b/blobs/DIGEST");
}

#[tokio::test]
async fn a_large_blob_is_streamed() {
    for absolute_locations in [false, true] {
        let registry = Registry::start(Options { absolute_locations, ..Options::default() }).await;
        let content = sample(5_000_000, 2);
        let told = AtomicU64::new(0);
        let pushed = client()
            .push_blob(&registry.reference("a/b"), &blob_of(&content), &[], source(&content), &|bytes| {
                told.store(bytes, Ordering::Relaxed)
            })
            .await
            .unwrap();
        assert_eq!((pushed, told.into_inner()), (Pushed::Uploaded, 5_000_000));
        insta::allow_duplicates! {
            insta::assert_snapshot!(registry.log(), @r"
            HEAD /v2/a/b/blobs/DIGEST
            POST /v2/a/b/blobs/uploads/
            PATCH /v2/a/b/blobs/uploads/u1?state=opaque
            PUT /v2/a/b/blobs/uploads/u1?state=opaque&digest=DIGEST
            ");
        }
        assert!(registry.blob("a/b", &blob_of(&content)).unwrap() == content);
    }
}

#[tokio::test]
async fn a_cut_upload_goes_on_where_it_broke() {
    let registry = Registry::start(Options::default()).await;
    let content = sample(4_000_000, 3);
    registry.trouble("PATCH", "uploads", 1, Trouble::CutRequest(1_500_000));
    assert_eq!(push(&client(), &registry, &content, &[]).await.unwrap(), Pushed::Uploaded);
    insta::assert_snapshot!(registry.log(), @r"
    HEAD /v2/a/b/blobs/DIGEST
    POST /v2/a/b/blobs/uploads/
    PATCH /v2/a/b/blobs/uploads/u1?state=opaque
    HEAD /v2/a/b/blobs/DIGEST
    GET /v2/a/b/blobs/uploads/u1?state=opaque
    PATCH /v2/a/b/blobs/uploads/u1?state=opaque content-range=1500000-3999999
    PUT /v2/a/b/blobs/uploads/u1?state=opaque&digest=DIGEST
    ");
    assert!(registry.blob("a/b", &blob_of(&content)).unwrap() == content);
}

#[tokio::test]
async fn a_manifest_is_put() {
    let registry = Registry::start(Options::default()).await;
    let bytes = Bytes::from_static(b"{\"schemaVersion\":2}");
    let digest = client().push_manifest(&registry.reference("a/b:1"), TYPE, bytes.clone()).await.unwrap();
    assert_eq!(digest, blob_of(&bytes).digest);
    assert_eq!(registry.manifest("a/b", "1"), Some((TYPE.to_owned(), bytes.clone())));
    let by_digest = registry.reference("a/c").with_digest(&digest);
    client().push_manifest(&by_digest, TYPE, bytes.clone()).await.unwrap();
    assert!(registry.manifest("a/c", digest.as_ref()).is_some());
    let error = client().push_manifest(&by_digest, TYPE, Bytes::from_static(b"{}")).await.unwrap_err();
    assert!(matches!(error, ClientError::Damaged { .. }), "{error}");
}

#[tokio::test]
async fn an_upload_that_cannot_be_asked_is_begun_again() {
    let registry = Registry::start(Options { no_status: true, ..Options::default() }).await;
    let content = sample(3_000_000, 4);
    registry.trouble("PATCH", "uploads", 1, Trouble::CutRequest(1_500_000));
    assert_eq!(push(&client(), &registry, &content, &[]).await.unwrap(), Pushed::Uploaded);
    insta::assert_snapshot!(registry.log(), @r"
    HEAD /v2/a/b/blobs/DIGEST
    POST /v2/a/b/blobs/uploads/
    PATCH /v2/a/b/blobs/uploads/u1?state=opaque
    HEAD /v2/a/b/blobs/DIGEST
    GET /v2/a/b/blobs/uploads/u1?state=opaque
    POST /v2/a/b/blobs/uploads/
    PATCH /v2/a/b/blobs/uploads/u2?state=opaque
    PUT /v2/a/b/blobs/uploads/u2?state=opaque&digest=DIGEST
    ");
    assert!(registry.blob("a/b", &blob_of(&content)).unwrap() == content);
}

#[tokio::test]
async fn a_session_that_is_refused_after_it_was_gone_on_with_is_begun_again() {
    let registry = Registry::start(Options::default()).await;
    let content = sample(3_000_000, 4);
    registry.trouble("PATCH", "uploads/u1", 1, Trouble::CutRequest(1_500_000));
    let invalid = r#"{"errors":[{"code":"BLOB_UPLOAD_INVALID","message":"blob upload invalid"}]}"#;
    registry.trouble("PATCH", "uploads/u1", 1, Trouble::Answer(400, vec![], invalid));
    assert_eq!(push(&client(), &registry, &content, &[]).await.unwrap(), Pushed::Uploaded);
    assert!(registry.blob("a/b", &blob_of(&content)).unwrap() == content);
    assert!(registry.log().contains("PUT /v2/a/b/blobs/uploads/u2"));
    // In a fresh session it is the answer.
    registry.trouble("PATCH", "uploads/u3", 1, Trouble::Answer(400, vec![], invalid));
    let error = push(&client(), &registry, &sample(3_000_000, 5), &[]).await.unwrap_err();
    assert!(matches!(error, ClientError::Protocol { status: 400, .. }), "{error}");
}

#[tokio::test]
async fn a_lost_answer_is_looked_after_and_nothing_is_sent_twice() {
    let registry = Registry::start(Options::default()).await;
    let content = sample(3_000_000, 5);
    registry.trouble("PUT", "uploads", 1, Trouble::LoseAnswer);
    assert_eq!(push(&client(), &registry, &content, &[]).await.unwrap(), Pushed::Uploaded);
    assert_eq!(registry.log().lines().last(), Some("HEAD /v2/a/b/blobs/DIGEST"));
    // The stream arrived, its answer did not: only the end is missing.
    let content = sample(3_000_000, 6);
    registry.trouble("PATCH", "uploads", 1, Trouble::LoseAnswer);
    assert_eq!(push(&client(), &registry, &content, &[]).await.unwrap(), Pushed::Uploaded);
    assert_eq!(registry.log().lines().filter(|line| line.starts_with("PATCH")).count(), 1);
    assert!(registry.blob("a/b", &blob_of(&content)).unwrap() == content);
}

#[tokio::test]
async fn passing_refusals_are_tried_again() {
    let registry = Registry::start(Options::default()).await;
    let content = sample(2_000_000, 7);
    registry.trouble("POST", "uploads", 1, Trouble::Answer(503, vec![], ""));
    registry.trouble("PATCH", "uploads", 1, Trouble::Answer(429, vec![("retry-after", "0".to_owned())], ""));
    registry.trouble("PUT", "uploads", 1, Trouble::Answer(500, vec![], ""));
    assert_eq!(push(&client(), &registry, &content, &[]).await.unwrap(), Pushed::Uploaded);
    assert!(registry.blob("a/b", &blob_of(&content)).unwrap() == content);
    registry.trouble("PATCH", "uploads", 99, Trouble::CutRequest(1000));
    let error = push(&client(), &registry, &sample(2_000_000, 8), &[]).await.unwrap_err();
    assert!(matches!(error, ClientError::Cut { .. }), "{error}");
}

#[tokio::test]
async fn a_refusal_is_told_with_the_registrys_words() {
    let registry = Registry::start(Options::default()).await;
    let denied = r#"{"errors":[{"code":"DENIED","message":"no pushing here"}]}"#;
    registry.trouble("POST", "uploads", 1, Trouble::Answer(403, vec![], denied));
    let error = push(&client(), &registry, &sample(2_000_000, 9), &[]).await.unwrap_err();
    assert!(matches!(&error, ClientError::Denied { .. }) && error.to_string().contains("no pushing here"), "{error}");
    registry.trouble("PATCH", "uploads", 1, Trouble::Answer(413, vec![], "too big"));
    let error = push(&client(), &registry, &sample(2_000_000, 9), &[]).await.unwrap_err();
    assert!(matches!(&error, ClientError::Protocol { status: 413, .. }), "{error}");
    registry.trouble(
        "PUT",
        "manifests",
        1,
        Trouble::Answer(400, vec![], r#"{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","message":"m"}]}"#),
    );
    let error =
        client().push_manifest(&registry.reference("a/b:1"), TYPE, Bytes::from_static(b"{}")).await.unwrap_err();
    assert!(matches!(&error, ClientError::Protocol { said, .. } if said.has_code("MANIFEST_BLOB_UNKNOWN")), "{error}");
}

#[tokio::test]
async fn mounting_is_tried_and_an_unused_session_given_back() {
    let content = sample(1000, 10);
    let registry = Registry::start(Options { mounts: true, ..Options::default() }).await;
    let blob = registry.add_blob("base/x", &content);
    let from = ["absent/y".to_owned(), "base/x".to_owned()];
    assert_eq!(
        push(&client(), &registry, &content, &from).await.unwrap(),
        Pushed::Mounted { from: "base/x".to_owned() }
    );
    assert_eq!(registry.open_uploads(), 0);
    assert!(client().mount(&registry.reference("c/d"), &blob.digest, "base/x").await.unwrap());

    let registry = Registry::start(Options::default()).await;
    registry.add_blob("base/x", &content);
    assert!(!client().mount(&registry.reference("c/d"), &blob.digest, "base/x").await.unwrap());
    assert_eq!(registry.open_uploads(), 0);
    registry.log();
    // The session that the mount opened serves for the upload.
    assert_eq!(push(&client(), &registry, &content, &["base/x".to_owned()]).await.unwrap(), Pushed::Uploaded);
    insta::assert_snapshot!(registry.log(), @r"
    HEAD /v2/a/b/blobs/DIGEST
    POST /v2/a/b/blobs/uploads/?mount=DIGEST&from=base/x
    PUT /v2/a/b/blobs/uploads/u2?state=opaque&digest=DIGEST
    ");
    for (status, seed) in [(403, 11), (429, 20), (500, 21), (503, 22)] {
        let later = vec![("retry-after", "4000".to_owned())];
        registry.trouble("POST", "mount", 1, Trouble::Answer(status, later, ""));
        let other = sample(1000, seed);
        assert_eq!(push(&client(), &registry, &other, &["base/x".to_owned()]).await.unwrap(), Pushed::Uploaded);
    }
}

/// A reader that fails on the way.
struct Broken;

impl io::Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other("the disk is gone"))
    }
}

#[tokio::test]
async fn a_source_that_is_not_what_it_should_be_is_told_as_such() {
    for length in [1000, 3_000_000] {
        let registry = Registry::start(Options::default()).await;
        let reference = registry.reference("a/b");
        let content = sample(length, 12);
        let blob = blob_of(&content);
        let changed = sample(length, 13);
        let error = client().push_blob(&reference, &blob, &[], source(&changed), &|_| ()).await.unwrap_err();
        assert!(
            matches!(error, ClientError::Damaged { .. }) && error.to_string().contains("expected digest"),
            "{error}"
        );
        let error = client().push_blob(&reference, &blob, &[], source(&content[1..]), &|_| ()).await.unwrap_err();
        assert!(
            matches!(error, ClientError::Damaged { .. }) && error.to_string().contains("1 bytes too early"),
            "{error}"
        );
        let longer = sample(length + 1, 12);
        let error = client().push_blob(&reference, &blob, &[], source(&longer), &|_| ()).await.unwrap_err();
        assert!(matches!(error, ClientError::Damaged { .. }) && error.to_string().contains("longer"), "{error}");
        let error = client().push_blob(&reference, &blob, &[], |_| Ok(Broken), &|_| ()).await.unwrap_err();
        assert!(
            matches!(error, ClientError::Source { .. }) && error.to_string().contains("the disk is gone"),
            "{error}"
        );
        let absent = |_| -> io::Result<Broken> { Err(io::ErrorKind::NotFound.into()) };
        let error = client().push_blob(&reference, &blob, &[], absent, &|_| ()).await.unwrap_err();
        assert!(matches!(error, ClientError::Source { .. }), "{error}");
        assert_eq!(registry.blob("a/b", &blob), None);
        let empty = Blob { size_bytes: 0, ..blob_of(b"") };
        client().push_blob(&reference, &empty, &[], source(b""), &|_| ()).await.unwrap();
        assert!(registry.blob("a/b", &empty).is_some());
    }
}

/// Counts what is read of it.
struct Counted<'a>(&'a AtomicU64, io::Repeat);

impl io::Read for Counted<'static> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.1.read(buffer)?;
        self.0.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

#[tokio::test]
async fn a_registry_that_stops_reading_is_left_and_little_is_read_ahead() {
    static READ: AtomicU64 = AtomicU64::new(0);
    let registry = Registry::start(Options::default()).await;
    registry.trouble("PATCH", "uploads", 99, Trouble::Silence);
    let retry = fluyt_client::RetryPolicy { attempts: 1, ..settings().retry };
    let quick = Settings { idle_timeout: Duration::from_millis(200), retry, ..settings() };
    let blob = Blob { size_bytes: 1 << 30, ..blob_of(b"") };
    let source = |_| Ok(Counted(&READ, io::repeat(7)));
    let quick = Client::new(quick).unwrap();
    static TOLD: AtomicU64 = AtomicU64::new(0);
    quick.tell_of_silence(|_| {
        TOLD.fetch_add(1, Ordering::Relaxed);
    });
    let error = quick.push_blob(&registry.reference("a/b"), &blob, &[], source, &|_| ()).await.unwrap_err();
    assert!(matches!(error, ClientError::Timeout { .. }), "{error}");
    assert_eq!(TOLD.load(Ordering::Relaxed), 1);
    // The queue, and what the two ends of the socket hold.
    let read = READ.load(Ordering::Relaxed);
    assert!(read < 16 << 20, "{read} bytes were read of the source");
}

/// A registry on a store of objects copies the blob to its place when it is closed.
#[tokio::test]
async fn a_registry_may_take_longer_to_close_an_upload_than_to_take_its_bytes() {
    let retry = fluyt_client::RetryPolicy { attempts: 1, ..settings().retry };
    let quick = Settings { idle_timeout: Duration::from_millis(200), retry, ..settings() };
    let quick = Client::new(quick).unwrap();
    let registry = Registry::start(Options::default()).await;
    for length in [1000, 3_000_000] {
        registry.trouble("PUT", "uploads", 1, Trouble::Late(Duration::from_millis(500)));
        let content = sample(length, 15);
        assert_eq!(push(&quick, &registry, &content, &[]).await.unwrap(), Pushed::Uploaded);
        assert!(registry.blob("a/b", &blob_of(&content)).unwrap() == content);
    }
    // It is told how long was waited.
    registry.trouble("PUT", "uploads", 1, Trouble::Silence);
    let error = push(&quick, &registry, &sample(3_000_000, 16), &[]).await.unwrap_err();
    assert!(matches!(error, ClientError::Timeout { after, .. } if after == Duration::from_secs(1)), "{error}");
}

/// Layers that go to a registry early are nothing to wait for.
#[tokio::test]
async fn what_is_sent_does_not_hold_up_what_is_fetched() {
    let registry = Registry::start(Options::default()).await;
    let client = Client::new(Settings { transfers: 1, ..settings() }).unwrap();
    registry.trouble("PATCH", "uploads", 1, Trouble::Silence);
    let (content, wanted) = (sample(3_000_000, 17), registry.add_blob("base", &sample(1000, 18)));
    let upload = push(&client, &registry, &content, &[]);
    let fetch = async {
        while !registry.log().contains("PATCH") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let mut sink = Vec::new();
        client.blob(&registry.reference("base"), &wanted, &mut sink, &|_| ()).await.unwrap();
        // A second upload has to wait, though.
        let second = sample(10, 19);
        let waiting = tokio::time::timeout(Duration::from_millis(50), push(&client, &registry, &second, &[]));
        assert!(waiting.await.is_err());
    };
    tokio::select! {
        outcome = upload => panic!("the upload has ended: {outcome:?}"),
        () = fetch => {}
    }
}

#[tokio::test]
async fn many_blobs_go_at_once() {
    let registry = Registry::start(Options::default()).await;
    let client = client();
    let contents: Vec<_> = (0..12).map(|seed| sample(1_500_000, 100 + seed)).collect();
    let pushes = contents.iter().map(|content| push(&client, &registry, content, &[]));
    for outcome in futures_util::future::join_all(pushes).await {
        assert_eq!(outcome.unwrap(), Pushed::Uploaded);
    }
    for content in &contents {
        assert!(registry.blob("a/b", &blob_of(content)).unwrap() == *content);
    }
}

#[tokio::test]
async fn whether_a_push_will_be_taken_is_asked_without_sending_anything() {
    let registry = Registry::start(Options::default()).await;
    client().check_push(&registry.reference("a/b")).await.unwrap();
    insta::assert_snapshot!(registry.log(), @r"
    POST /v2/a/b/blobs/uploads/
    DELETE /v2/a/b/blobs/uploads/u1?state=opaque
    ");
    registry.trouble("POST", "/v2/a/b/blobs/uploads/", 1, Trouble::Answer(403, Vec::new(), "{}"));
    let error = client().check_push(&registry.reference("a/b")).await.unwrap_err().to_string();
    assert!(error.contains(&format!("denies access to an upload to {}/a/b", registry.host())), "{error}");
}

/// Answers as a server of TLS does to plain HTTP: its words are the body, which the answer to a `HEAD` does not have.
fn server_of_tls(words: &'static str) -> String {
    use std::io::{BufRead as _, BufReader, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            let head = lines.next().unwrap_or_default().starts_with("HEAD");
            lines.find(String::is_empty);
            let body = if head { "" } else { words };
            let answer = format!("HTTP/1.0 400 Bad Request\r\nConnection: close\r\n\r\n{body}");
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    host
}

#[tokio::test]
async fn a_registry_that_wants_tls_is_told_of_at_every_request() {
    let page = "<html><center>The plain HTTP request was sent to HTTPS port</center></html>";
    for words in ["Client sent an HTTP request to an HTTPS server.", page] {
        let reference = format!("{}/a/b:1", server_of_tls(words)).parse().unwrap();
        let content = sample(10, 1);
        let errors = [
            client().push_blob(&reference, &blob_of(&content), &[], source(&content), &|_| ()).await.unwrap_err(),
            client().manifest(&reference, &[]).await.unwrap_err(),
        ];
        for error in errors.map(|error| error.to_string()) {
            assert!(error.contains("; it wants TLS: give its certificate with --registry-certificate"), "{error}");
        }
    }
}

#[tokio::test]
async fn an_upload_is_opened_where_the_registry_leads() {
    let other = Registry::start(Options::default()).await;
    let registry = Registry::start(Options { guard: Guard::Basic("me", "secret"), ..Options::default() }).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("auth.json");
    std::fs::write(&file, format!(r#"{{"auths":{{"{}":{{"auth":"bWU6c2VjcmV0"}}}}}}"#, registry.host())).unwrap();
    let client = Client::new(Settings { authfile: Some(file), ..settings() }).unwrap();
    let content = sample(100, 1);
    let source = |_| Ok(std::io::Cursor::new(content.clone()));
    let lead = |method, path, to: &str| {
        registry.trouble(method, path, 1, Trouble::Answer(307, vec![("location", to.to_owned())], ""));
    };
    // The first request tells how to be asked.
    client.has_blob(&registry.reference("a/b"), &blob_of(&content).digest).await.unwrap();
    registry.log();
    lead("POST", "/uploads/", &format!("http://{}/v2/x/y/blobs/uploads/", other.host()));
    client.push_blob(&registry.reference("a/b"), &blob_of(&content), &[], source, &|_| ()).await.unwrap();
    assert!(other.blob("x/y", &blob_of(&content)).is_some());
    insta::assert_snapshot!(other.log(), @r"
    POST /v2/x/y/blobs/uploads/
    PUT /v2/x/y/blobs/uploads/u1?state=opaque&digest=DIGEST
    ");
    insta::assert_snapshot!(registry.log(), @r"
    HEAD /v2/a/b/blobs/DIGEST [Basic]
    POST /v2/a/b/blobs/uploads/ [Basic]
    ");
    // Bytes that are streamed are gone.
    lead("PUT", "/uploads/", "http://storage.example.org/x?signature=hidden");
    let error = client.push_blob(&registry.reference("a/c"), &blob_of(&content), &[], source, &|_| ()).await;
    let text = error.unwrap_err().to_string();
    assert!(text.contains("`http://storage.example.org`: a 307 is not followed") && !text.contains("hidden"), "{text}");
}
