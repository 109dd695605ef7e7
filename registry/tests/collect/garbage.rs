//! What nothing refers to goes.

use std::time::Duration;

use axum::body::Body;
use fluyt_registry::collect::CollectSettings;
use object_store::ObjectStoreExt;
use object_store::path::Path;

use super::{DAY, HOUR, Place};
use crate::app::{INDEX, MANIFEST, digest, image};

#[tokio::test]
async fn a_blob_that_no_manifest_names_goes_with_its_data() {
    let place = Place::new().await;
    place.app.blob("a", b"layer").await;
    // Young.
    place.store.pass_time(23 * HOUR);
    place.collect().await;
    assert_eq!(place.keys_with("links/").await.len(), 1);
    place.store.pass_time(2 * HOUR);
    // The repository has no manifest, so it is not in the catalog: the link is found by its slice.
    place.collect().await;
    place.collect().await;
    assert_eq!(place.keys_with("links/").await, Vec::<String>::new());
    assert_eq!(place.keys_with("data/").await, Vec::<String>::new());
    // The index entry follows a grace time later.
    assert_eq!(place.keys_with("_blobs/").await.len(), 1);
    place.store.pass_time(DAY + HOUR);
    place.collect().await;
    assert_eq!(place.keys().await, Vec::<String>::new());
}

/// Found by the simulation: a push that takes several grace times was taken for that of a sparse image.
#[tokio::test]
async fn a_slow_push_is_told_that_its_blob_was_collected() {
    let place = Place::with_traces(CollectSettings::default()).await;
    for blob in [&b"{}"[..], b"kept", b"lost"] {
        place.app.blob("a", blob).await;
    }
    let manifest = image(&[b"{}", b"kept", b"lost"], "");
    for _ in 0..20 {
        place.store.pass_time(2 * DAY);
        place.collect().await;
    }
    assert_eq!(place.keys_with("links/").await, Vec::<String>::new());
    for blob in [&b"{}"[..], b"kept"] {
        place.app.blob("a", blob).await;
    }
    let refused = place.app.put("a", "t", MANIFEST, &manifest).await;
    assert_eq!(refused.status, 400, "{}", refused.shown());
    assert!(refused.shown().contains("MANIFEST_BLOB_UNKNOWN"), "{}", refused.shown());
    place.store.pass_time(91 * DAY);
    place.collect().await;
    assert_eq!(place.keys_with(digest("lost").hex()).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_blob_goes_from_a_repository_that_has_other_manifests() {
    let place = Place::new().await;
    place.app.pushed_image("a", "t").await;
    place.app.blob("a", b"other").await;
    place.collect_all().await;
    let other = digest("other");
    assert_eq!(place.keys_with(other.hex()).await, Vec::<String>::new());
    assert_eq!(place.app.get("GET /v2/a/manifests/t").await.status, 200);
    assert_eq!(place.app.get(&format!("GET /v2/a/blobs/{}", digest("layer"))).await.body, b"layer");
}

#[tokio::test]
async fn data_of_an_upload_that_was_never_finished_goes() {
    let place = Place::new().await;
    let begun = place.app.get("POST /v2/a/blobs/uploads/").await;
    let patched = place.app.send(&format!("PATCH {}", begun.header("location")), &[], b"abc".to_vec()).await;
    assert_eq!(patched.status, 202);
    assert_eq!(place.keys_with("data/").await.len(), 1);
    place.collect_all().await;
    assert_eq!(place.keys().await, Vec::<String>::new());
}

#[tokio::test]
async fn data_and_what_says_its_digest_go_together() {
    let place = Place::new().await;
    let long = vec![b'x'; 5 * 1024 * 1024];
    let digest = place.app.blob("a", &long).await;
    assert_eq!(place.keys_with(".of/").await.len(), 1);
    place.collect_all().await;
    assert_eq!(place.keys().await, Vec::<String>::new());
    // The log of removals tells it by its digest.
    let storage = fluyt_registry::storage::Storage::open(place.store.clone(), [7; 32]).await.unwrap();
    let removals = fluyt_registry::collect::log::removals(&storage, &digest).await.unwrap();
    let told: Vec<_> = removals.iter().map(|removal| (removal.why.words(), removal.size_bytes)).collect();
    assert!(told.contains(&("data that no repository has", 5 * 1024 * 1024)), "{told:?}");
    assert!(told.contains(&("a blob that no manifest of the repository names", 12)) || told.len() >= 3, "{told:?}");
    assert!(removals.iter().all(|removal| !removal.run.is_empty() && removal.time.starts_with("2026")));
}

#[tokio::test]
async fn a_deleted_image_goes_whole() {
    let place = Place::new().await;
    let (_, digest) = place.app.pushed_image("a", "t").await;
    assert_eq!(place.app.get(&format!("DELETE /v2/a/manifests/{digest}")).await.status, 202);
    // Its tag's history ends with the window.
    place.store.pass_time(31 * DAY);
    place.collect_all().await;
    assert_eq!(place.keys().await, ["catalog/a!"]);
}

#[tokio::test]
async fn a_manifest_without_its_blob_goes_when_nothing_names_it() {
    let place = Place::new().await;
    for blob in [&b"{}"[..], b"layer"] {
        place.app.blob("a", blob).await;
    }
    let manifest = image(&[b"{}", b"layer"], "");
    let by_digest = digest(&manifest).to_string();
    assert_eq!(place.app.put("a", &by_digest, MANIFEST, &manifest).await.status, 201);
    assert_eq!(place.app.get(&format!("DELETE /v2/a/blobs/{}", digest("layer"))).await.status, 202);
    place.collect_all().await;
    assert_eq!(place.keys().await, ["catalog/a!"]);
}

#[tokio::test]
async fn what_moving_a_tag_left_over_goes() {
    let place = Place::new().await;
    for content in [&b"one"[..], b"two", b"three"] {
        place.app.blob("a", b"{}").await;
        place.app.blob("a", content).await;
        assert_eq!(place.app.put("a", "t", MANIFEST, &image(&[b"{}", content], "")).await.status, 201);
    }
    // A late request brings back the first value.
    let history = place.keys_with("/_history/t/").await;
    assert_eq!(history.len(), 3);
    let old = history[0].replace("_history/t/", "_tags/t!/");
    place.store.put(&Path::parse(&old).unwrap(), "{}".into()).await.unwrap();
    place.collect_all().await;
    assert_eq!(place.keys_with("/_tags/").await.len(), 1);
    // Nothing acknowledged expires by itself.
    assert_eq!(place.keys_with("/_manifests/").await.len(), 3);
    assert_eq!(place.keys_with("data/").await.len(), 4);
}

#[tokio::test]
async fn a_deleted_tag_leaves_nothing_but_its_manifest() {
    let place = Place::new().await;
    let (_, digest) = place.app.pushed_image("a", "t").await;
    assert_eq!(place.app.get("DELETE /v2/a/manifests/t").await.status, 202);
    place.collect_all().await;
    // The value and its end: since when it is untagged.
    assert_eq!(place.keys_with("/_tags/").await.len(), 1);
    assert_eq!(place.app.get(&format!("GET /v2/a/manifests/{digest}")).await.status, 200);
    assert_eq!(place.app.get("GET /v2/a/manifests/t").await.status, 404);
    assert_eq!(place.app.get(&format!("DELETE /v2/a/manifests/{digest}")).await.status, 202);
    place.store.pass_time(31 * DAY);
    place.collect_all().await;
    assert_eq!(place.keys().await, ["catalog/a!"]);
}

#[tokio::test]
async fn a_copy_that_a_late_request_brings_back_after_a_delete_goes_again() {
    let place = Place::new().await;
    let (_, digest) = place.app.pushed_image("a", "t").await;
    let copy = Path::parse(&place.keys_with("/_manifests/").await[0]).unwrap();
    let bytes = place.store.get(&copy).await.unwrap().bytes().await.unwrap();
    assert_eq!(place.app.get(&format!("DELETE /v2/a/manifests/{digest}")).await.status, 202);
    place.store.put(&copy, bytes.into()).await.unwrap();
    assert_eq!(place.app.get(&format!("GET /v2/a/manifests/{digest}")).await.status, 200);
    place.store.pass_time(DAY + HOUR);
    place.collect().await;
    // Although it is whole, and its tag's history names it within the window.
    assert_eq!(place.app.get(&format!("GET /v2/a/manifests/{digest}")).await.status, 404);
}

#[tokio::test]
async fn an_image_that_was_pushed_again_after_a_delete_stays() {
    let place = Place::new().await;
    let (manifest, digest) = place.app.pushed_image("a", "t").await;
    let copy = Path::parse(&place.keys_with("/_manifests/").await[0]).unwrap();
    let bytes = place.store.get(&copy).await.unwrap().bytes().await.unwrap();
    assert_eq!(place.app.get(&format!("DELETE /v2/a/manifests/{digest}")).await.status, 202);
    place.store.put(&copy, bytes.into()).await.unwrap();
    // The new push finds the copy that came back, and takes it.
    assert_eq!(place.app.put("a", "t", MANIFEST, &manifest).await.status, 201);
    assert_eq!(place.keys_with("/_manifests/").await.len(), 1);
    place.collect_all().await;
    assert_eq!(place.app.get("GET /v2/a/manifests/t").await.body, manifest.as_bytes());
}

#[tokio::test]
async fn referrers_go_with_what_they_are() {
    let place = Place::new().await;
    let (_, subject) = place.app.pushed_image("a", "t").await;
    let more = format!(r#","subject":{{"mediaType":"{MANIFEST}","digest":"{subject}","size":1}}"#);
    let signature = image(&[b"{}", b"layer"], &more);
    let name = digest(&signature).to_string();
    assert_eq!(place.app.put("a", &name, MANIFEST, &signature).await.status, 201);
    assert_eq!(place.app.get(&format!("DELETE /v2/a/manifests/{name}")).await.status, 202);
    // A crash may have left the entry.
    let entry = format!("repos/a/_referrers/sha256/{}/sha256.{}.{}", subject.hex(), digest(&signature).hex(), "0a");
    place.store.put(&Path::parse(&entry).unwrap(), "{}".into()).await.unwrap();
    place.collect_all().await;
    assert_eq!(place.keys_with("/_referrers/").await, Vec::<String>::new());
}

#[tokio::test]
async fn untagged_images_go_when_they_are_let_and_long_untagged() {
    let untagged = Some(10 * DAY);
    let place = Place::with(CollectSettings { untagged, history: Duration::ZERO, ..CollectSettings::default() }).await;
    place.app.pushed_image("a", "t").await;
    // Tagged for long: its age counts from when it was replaced.
    place.store.pass_time(100 * DAY);
    place.app.blob("a", b"new").await;
    assert_eq!(place.app.put("a", "t", MANIFEST, &image(&[b"{}", b"new"], "")).await.status, 201);
    place.store.pass_time(9 * DAY);
    place.collect().await;
    assert_eq!(place.keys_with("/_manifests/").await.len(), 2);
    place.store.pass_time(2 * DAY);
    place.collect_all().await;
    assert_eq!(place.keys_with("/_manifests/").await.len(), 1);
    assert_eq!(place.keys_with(digest("layer").hex()).await, Vec::<String>::new());
    assert_eq!(place.app.get("GET /v2/a/manifests/t").await.status, 200);
}

#[tokio::test]
async fn children_and_referrers_go_after_what_they_belong_to() {
    let untagged = Some(10 * DAY);
    let place = Place::with(CollectSettings { untagged, ..CollectSettings::default() }).await;
    for blob in [&b"{}"[..], b"layer"] {
        place.app.blob("a", blob).await;
    }
    let child = image(&[b"{}", b"layer"], "");
    let child_digest = digest(&child);
    assert_eq!(place.app.put("a", &child_digest.to_string(), MANIFEST, &child).await.status, 201);
    let index = format!(
        r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{{"mediaType":"{MANIFEST}","digest":"{child_digest}","size":{}}}]}}"#,
        child.len()
    );
    assert_eq!(place.app.put("a", "t", INDEX, &index).await.status, 201);
    let more = format!(r#","subject":{{"mediaType":"{INDEX}","digest":"{}","size":1}}"#, digest(&index));
    let signature = image(&[b"{}", b"layer"], &more);
    assert_eq!(place.app.put("a", &digest(&signature).to_string(), MANIFEST, &signature).await.status, 201);
    place.store.pass_time(100 * DAY);
    place.collect_all().await;
    assert_eq!(place.keys_with("/_manifests/").await.len(), 3);
    assert_eq!(place.app.get("DELETE /v2/a/manifests/t").await.status, 202);
    // In the history window for 30 days, and untagged for 10.
    place.store.pass_time(20 * DAY);
    place.collect().await;
    assert_eq!(place.keys_with("/_manifests/").await.len(), 3);
    place.store.pass_time(20 * DAY);
    place.collect_all().await;
    place.store.pass_time(40 * DAY);
    place.collect_all().await;
    assert_eq!(place.keys().await, ["catalog/a!"]);
}

#[tokio::test]
async fn uploads_that_nobody_goes_on_with_go_after_a_day() {
    let place = Place::new().await;
    let begun = place.app.get("POST /v2/a/blobs/uploads/").await;
    let long = vec![b'x'; 5 * 1024 * 1024];
    let patched = place.app.send(&format!("PATCH {}", begun.header("location")), &[], long).await;
    assert_eq!(patched.status, 202);
    let cancelled = place.app.get("POST /v2/a/blobs/uploads/").await;
    let line = format!("DELETE {}", cancelled.header("location"));
    assert_eq!(place.app.send(&line, &[], Body::empty()).await.status, 204);
    place.store.pass_time(23 * HOUR);
    let report = place.collect().await;
    assert_eq!(place.keys_with("uploads/").await.len(), 2, "{report:?}");
    place.store.pass_time(2 * HOUR);
    let report = place.collect().await;
    assert_eq!(place.keys().await, Vec::<String>::new());
    assert_eq!(report.removed.iter().filter(|removal| removal.key.starts_with("multipart/")).count(), 1);
}

#[tokio::test]
async fn an_upload_that_goes_on_slowly_stays() {
    let place = Place::new().await;
    let begun = place.app.get("POST /v2/a/blobs/uploads/").await;
    let mut location = begun.header("location").to_owned();
    for _ in 0..3 {
        let long = vec![b'x'; 5 * 1024 * 1024];
        let patched = place.app.send(&format!("PATCH {location}"), &[], long).await;
        assert_eq!(patched.status, 202);
        location = patched.header("location").to_owned();
        place.store.pass_time(23 * HOUR);
        place.collect().await;
    }
    let whole = vec![b'x'; 15 * 1024 * 1024];
    let digest = digest(&whole);
    let finished = place.app.get(&format!("PUT {location}&digest={digest}")).await;
    assert_eq!(finished.status, 201, "{}", finished.shown());
}

#[tokio::test]
async fn marks_of_dead_runs_go_when_what_they_name_is_gone() {
    let place = Place::new().await;
    place.app.pushed_image("a", "t").await;
    let there = place.keys_with("data/").await;
    let gone = there[0].replace("sha256-", "sha256-0").replacen("sha256-0", "sha256-", 1);
    let gone = format!("{}9", &gone[..gone.len() - 1]);
    let mark = |name: &str| Path::parse(format!("gc/marks/{name}")).unwrap();
    place.store.put(&mark("1"), there[0].clone().into()).await.unwrap();
    place.store.put(&mark("2"), gone.into()).await.unwrap();
    place.collect().await;
    assert_eq!(place.keys_with("gc/marks/").await.len(), 2);
    place.collect_all().await;
    assert_eq!(place.keys_with("gc/").await, ["gc/marks/1"]);
}

/// What a user deleted is in the log of removals when the hint that knew of it is gone.
#[tokio::test]
async fn the_log_keeps_what_a_user_deleted() {
    let place = Place::new().await;
    let (_, manifest) = place.app.pushed_image("a", "t").await;
    assert_eq!(place.app.get(&format!("DELETE /v2/a/manifests/{manifest}")).await.status, 202);
    place.collect_all().await;
    assert_eq!(place.keys_with("gc/hints/").await, Vec::<String>::new());
    let storage = fluyt_registry::storage::Storage::open(place.store.clone(), [7; 32]).await.unwrap();
    let removed = storage.removals_of(&manifest).await.unwrap();
    let deleted: Vec<_> = removed.iter().filter(|removed| removed.why == "deleted").collect();
    assert_eq!(deleted.len(), 1, "{removed:?}");
    assert!(deleted[0].key.starts_with("repos/a/_manifests/"), "{deleted:?}");
}

#[tokio::test]
async fn a_manifest_is_read_once_however_often_its_repository_is_looked_at() {
    let place = Place::new().await;
    place.app.pushed_image("a", "t").await;
    // More than fit one batch.
    for n in 0..1001 {
        place.app.blob("a", format!("unnamed {n}").as_bytes()).await;
    }
    place.store.pass_time(DAY + HOUR);
    place.watched.requests();
    let report = place.collect().await;
    assert_eq!(report.removed.iter().filter(|removal| removal.key.starts_with("links/")).count(), 1001);
    let reads = place.watched.requests();
    let reads = reads.iter().filter(|request| request.starts_with("get ") && request.contains("/_manifests/")).count();
    assert_eq!(reads, 1);
}

#[tokio::test]
async fn marks_of_dead_runs_are_counted_until_they_go() {
    let place = Place::new().await;
    place.app.pushed_image("a", "t").await;
    let marks = || place.metrics.collector.marks.get();
    let copies = place.keys_with("/_manifests/").await;
    let links = place.keys_with("links/").await;
    for (run, targets) in [("one", &copies), ("two", &links)] {
        place.store.put(&Path::parse(format!("gc/marks/{run}")).unwrap(), targets.join("\n").into()).await.unwrap();
    }
    // It may still be at work.
    place.collect().await;
    assert_eq!(marks(), 0);
    place.store.pass_time(DAY + HOUR);
    for _ in 0..2 {
        place.collect().await;
        assert_eq!(marks(), (copies.len() + links.len()) as i64);
    }
    let digest = copies[0].split('/').rev().nth(1).unwrap();
    assert_eq!(place.app.get(&format!("DELETE /v2/a/manifests/sha256:{digest}")).await.status, 202);
    place.collect_all().await;
    assert_eq!(marks(), 0);
    assert_eq!(place.keys_with("gc/marks/").await, Vec::<String>::new());
}
