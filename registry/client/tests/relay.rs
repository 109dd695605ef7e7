//! Blobs from one registry to another.

use std::sync::atomic::{AtomicU64, Ordering};

use fluyt_client::{Client, ClientError, Pushed, Settings};

use crate::fixture::{Options, Registry, Trouble, blob_of, client, sample, settings};

#[tokio::test]
async fn a_blob_passes_without_a_stop() {
    let (from, to) = (Registry::start(Options::default()).await, Registry::start(Options::default()).await);
    let content = sample(5_000_000, 1);
    let blob = from.add_blob("base", &content);
    let told = AtomicU64::new(0);
    let progress = |bytes| told.store(bytes, Ordering::Relaxed);
    let target = to.reference("app");
    let pushed = client().copy_blob(&from.reference("base"), &target, &blob, &[], &progress).await.unwrap();
    assert_eq!((pushed, told.load(Ordering::Relaxed)), (Pushed::Uploaded, 5_000_000));
    assert!(to.blob("app", &blob).unwrap() == content);
    // What is there is not asked for.
    let _ = from.log();
    let again = client().copy_blob(&from.reference("base"), &target, &blob, &[], &progress).await.unwrap();
    assert_eq!((again, from.log().as_str()), (Pushed::Present, ""));
}

#[tokio::test]
async fn both_sides_may_break_on_the_way() {
    let (from, to) = (Registry::start(Options::default()).await, Registry::start(Options::default()).await);
    let content = sample(4_000_000, 2);
    let blob = from.add_blob("base", &content);
    from.trouble("GET", "blobs", 1, Trouble::CutAnswer(2_000_000));
    to.trouble("PATCH", "uploads", 1, Trouble::CutRequest(1_500_000));
    let (source, target) = (from.reference("base"), to.reference("app"));
    assert_eq!(client().copy_blob(&source, &target, &blob, &[], &|_| ()).await.unwrap(), Pushed::Uploaded);
    assert!(to.blob("app", &blob).unwrap() == content);
}

#[tokio::test]
async fn other_bytes_than_the_digests_are_told_as_the_sources_fault() {
    let (from, to) = (Registry::start(Options::default()).await, Registry::start(Options::default()).await);
    let content = sample(3_000_000, 3);
    let blob = from.add_blob("base", &content);
    from.trouble("GET", "blobs", 100, Trouble::OtherBytes);
    let outcome = client().copy_blob(&from.reference("base"), &to.reference("app"), &blob, &[], &|_| ()).await;
    let error = outcome.unwrap_err();
    assert!(matches!(&error, ClientError::DigestMismatch { registry, .. } if *registry == from.host()), "{error}");
    assert_eq!(to.blob("app", &blob), None);
    // And one that is not there at all.
    let absent = blob_of(b"absent");
    let outcome = client().copy_blob(&from.reference("base"), &to.reference("app"), &absent, &[], &|_| ()).await;
    assert!(matches!(outcome.unwrap_err(), ClientError::NotFound { .. }));
}

/// As many at once as there are transfers: each holds one, and needs no second.
#[tokio::test]
async fn many_at_once_do_not_wait_for_each_other() {
    let (from, to) = (Registry::start(Options::default()).await, Registry::start(Options::default()).await);
    let client = Client::new(Settings { transfers: 2, ..settings() }).unwrap();
    let mut running = tokio::task::JoinSet::new();
    for seed in 0..6 {
        let blob = from.add_blob("base", &sample(1_500_000, seed));
        let (client, source, target) = (client.clone(), from.reference("base"), to.reference("app"));
        running.spawn(async move { client.copy_blob(&source, &target, &blob, &[], &|_| ()).await });
    }
    while let Some(outcome) = running.join_next().await {
        assert_eq!(outcome.unwrap().unwrap(), Pushed::Uploaded);
    }
}
