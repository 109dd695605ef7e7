//! Registries that are away for a moment while something is under way, as when they start again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fluyt_client::{Client, ClientError, Pushed, RetryPolicy, Settings};

use crate::fixture::{Options, Registry, Trouble, blob_of, sample, settings};

/// Much longer than all attempts take.
const ABSENCE: Duration = Duration::from_millis(400);

/// A client that gives transfers so long.
fn patient(transfer_patience: Duration) -> Client {
    let retry = RetryPolicy { transfer_patience, ..settings().retry };
    Client::new(Settings { retry, ..settings() }).unwrap()
}

/// Fetches a blob whose connection breaks on the way, and calls `on_the_way` before it does.
async fn fetch(client: &Client, registry: &Registry, on_the_way: impl Fn()) -> Result<Vec<u8>, ClientError> {
    let blob = registry.add_blob("a/b", &sample(2_000_000, 1));
    registry.trouble("GET", "/blobs/", 1, Trouble::CutAnswer(700_000));
    let mut stream = client.blob_stream(&registry.reference("a/b"), &blob).await?;
    on_the_way();
    let mut read = Vec::new();
    while let Some(piece) = stream.chunk().await? {
        read.extend_from_slice(&piece);
    }
    Ok(read)
}

/// The same for a push.
async fn push(
    client: &Client,
    registry: &Registry,
    on_the_way: impl Fn() + Send + Sync,
) -> Result<Pushed, ClientError> {
    let content = sample(2_000_000, 2);
    registry.trouble("PATCH", "uploads", 1, Trouble::CutRequest(700_000));
    let begun = AtomicBool::new(false);
    let source = |offset: u64| {
        if !begun.swap(true, Ordering::Relaxed) {
            on_the_way();
        }
        Ok(std::io::Cursor::new(content[usize::try_from(offset).unwrap()..].to_vec()))
    };
    let pushed = client.push_blob(&registry.reference("a/b"), &blob_of(&content), &[], source, &|_| ()).await?;
    assert!(registry.blob("a/b", &blob_of(&content)).unwrap() == content);
    Ok(pushed)
}

#[tokio::test]
async fn a_transfer_goes_on_when_its_registry_is_back() {
    let client = patient(Duration::from_secs(20));
    let registry = Registry::start(Options::default()).await;
    let begun = Instant::now();
    assert!(fetch(&client, &registry, || registry.leave(ABSENCE)).await.unwrap() == sample(2_000_000, 1));
    assert!(begun.elapsed() >= ABSENCE);
    assert!(registry.log().ends_with("range=bytes=700000-"));
    let begun = Instant::now();
    assert_eq!(push(&client, &registry, || registry.leave(ABSENCE)).await.unwrap(), Pushed::Uploaded);
    assert!(begun.elapsed() >= ABSENCE);
    assert!(registry.log().contains(" content-range=700000-1999999"));
}

#[tokio::test]
async fn a_transfer_goes_on_when_what_stands_before_the_registry_finds_it_again() {
    let client = patient(Duration::from_secs(20));
    let registry = Registry::start(Options::default()).await;
    let away = |method| registry.trouble(method, "/blobs/", 20, Trouble::Answer(503, vec![], ""));
    assert!(fetch(&client, &registry, || away("GET")).await.unwrap() == sample(2_000_000, 1));
    assert_eq!(registry.log().lines().count(), 22);
    assert_eq!(push(&client, &registry, || away("HEAD")).await.unwrap(), Pushed::Uploaded);
}

#[tokio::test]
async fn what_follows_a_transfer_is_given_as_much_time() {
    let client = patient(Duration::from_secs(20));
    let registry = Registry::start(Options::default()).await;
    let reference = registry.reference("a/b:1");
    let away = |method, path| registry.trouble(method, path, 20, Trouble::Answer(503, vec![], ""));
    let content = sample(100, 3);
    let push = |seed| {
        let content = sample(100, seed);
        let source = move |_| Ok(std::io::Cursor::new(content.clone()));
        let (client, reference) = (&client, &reference);
        async move { client.push_blob(reference, &blob_of(&sample(100, seed)), &[], source, &|_| ()).await }
    };
    push(1).await.unwrap();
    away("HEAD", "/blobs/");
    push(2).await.unwrap();
    away("POST", "/blobs/");
    push(3).await.unwrap();
    away("PUT", "/manifests/");
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    client.push_manifest(&reference, media_type, "{}".into()).await.unwrap();
    away("GET", "/blobs/");
    client.blob(&reference, &blob_of(&content), &mut Vec::new(), &|_| ()).await.unwrap();
}

#[tokio::test]
async fn patience_has_an_end_and_a_registry_that_never_answered_gets_none() {
    let client = patient(Duration::from_millis(100));
    let registry = Registry::start(Options::default()).await;
    let long = Duration::from_secs(3600);
    let begun = Instant::now();
    let error = push(&client, &registry, || registry.leave(long)).await.unwrap_err();
    assert!(matches!(error, ClientError::Connect { .. }), "{error}");
    let registry = Registry::start(Options::default()).await;
    let error = fetch(&client, &registry, || registry.leave(long)).await.unwrap_err();
    assert!(matches!(error, ClientError::Connect { .. }), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(10));

    let client = patient(long);
    let absent = registry.reference("a/b");
    let error = client.blob_stream(&absent, &blob_of(b"x")).await.unwrap_err();
    assert!(matches!(error, ClientError::Connect { .. }), "{error}");
    let source = |_| Ok(std::io::empty());
    let error = client.push_blob(&absent, &blob_of(b"x"), &[], source, &|_| ()).await.unwrap_err();
    assert!(matches!(error, ClientError::Connect { .. }), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(20));
}
