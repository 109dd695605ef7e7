//! A collector that breaks off at any request, two at once, and pushes in between.

use std::time::Duration;

use fluyt_registry::collect::{CollectSettings, Mode};
use fluyt_registry::storage::Room;
use object_store::ObjectStoreExt;
use object_store::path::Path;

use super::{DAY, HOUR, Place};
use crate::app::{MANIFEST, digest, image};
use crate::watched::Failing;

/// One of each: a tagged image, a blob that nobody names, an upload not finished, a deleted image, a broken one.
async fn littered() -> Place {
    let place = Place::with(CollectSettings { history: Duration::ZERO, ..CollectSettings::default() }).await;
    place.app.pushed_image("a", "t").await;
    place.app.blob("a", b"unnamed").await;
    place.app.blob("b", b"of a repository without manifests").await;
    let begun = place.app.get("POST /v2/a/blobs/uploads/").await;
    let patched = place.app.send(&format!("PATCH {}", begun.header("location")), &[], b"unfinished".to_vec()).await;
    assert_eq!(patched.status, 202);
    place.app.blob("a", b"deleted").await;
    let deleted = image(&[b"{}", b"deleted"], "");
    assert_eq!(place.app.put("a", "d", MANIFEST, &deleted).await.status, 201);
    let line = format!("DELETE /v2/a/manifests/{}", digest(&deleted));
    assert_eq!(place.app.get(&line).await.status, 202);
    place.app.blob("a", b"gone").await;
    let broken = image(&[b"{}", b"gone"], "");
    assert_eq!(place.app.put("a", &digest(&broken).to_string(), MANIFEST, &broken).await.status, 201);
    assert_eq!(place.app.get(&format!("DELETE /v2/a/blobs/{}", digest("gone"))).await.status, 202);
    place.store.pass_time(DAY + HOUR);
    place
}

impl Place {
    /// Nothing but the tagged image is left.
    async fn is_clean(&self, when: &str) {
        let keys = self.keys().await;
        let blobs = ["{}", "layer"].map(digest);
        let manifest = digest(image(&[b"{}", b"layer"], ""));
        let left = |key: &&String| {
            !key.starts_with("catalog/")
                && !blobs.iter().any(|blob| key.contains(blob.hex()))
                && !key.contains(manifest.hex())
        };
        assert_eq!(keys.iter().filter(left).collect::<Vec<_>>(), Vec::<&String>::new(), "{when}");
        let replica = self.app.replica().await;
        assert_eq!(replica.get("GET /v2/a/manifests/t").await.status, 200, "{when}");
        for blob in ["{}", "layer"] {
            let found = replica.get(&format!("GET /v2/a/blobs/{}", digest(blob))).await;
            assert_eq!(found.body, blob.as_bytes(), "{when}");
        }
    }
}

#[tokio::test]
async fn a_run_that_breaks_off_at_any_request_is_finished_by_the_next() {
    for failing in [Failing::Before, Failing::After] {
        let mut broke = 0;
        for nth in 0.. {
            let place = littered().await;
            let collector = place.collector().await;
            place.watched.fail(Some((nth, failing)));
            let first = collector.run_once(Mode::Hints).await;
            let second = match first {
                Ok(_) => collector.run_once(Mode::Whole).await,
                Err(error) => Err(error),
            };
            let did_fail = second.is_err() || second.is_ok_and(|report| !report.failures.is_empty());
            broke += u64::from(did_fail);
            place.watched.fail(None);
            place.collect_all().await;
            place.is_clean(&format!("request {nth} {failing:?}")).await;
            // The lists of slices where there is nothing are all alike.
            if nth > 60 && !did_fail || nth > 160 {
                break;
            }
        }
        assert!(broke > 50, "only {broke} requests were made to fail");
    }
}

#[tokio::test]
async fn a_store_that_lists_no_unfinished_uploads_is_collected_all_the_same() {
    let place = littered().await;
    place.store.be_discreet();
    let collector = place.collector().await;
    let mut failures = 0;
    for _ in 0..3 {
        // Each slice once.
        for _ in 0..257 {
            failures += collector.run_once(Mode::Slice).await.unwrap().failures.len();
        }
        place.store.pass_time(DAY + HOUR);
    }
    assert!(failures > 0, "nothing is said of it");
    let left = place.keys_with(digest("unnamed").hex()).await;
    // That the repository had it is forgotten later, by its hint.
    assert!(left.iter().all(|key| key.starts_with("repos/a/_blobs/")), "{left:?}");
    let report = collector.run_once(Mode::Whole).await.unwrap();
    assert_eq!(report.failures.len(), 2, "{:?}", report.failures);
    assert!(report.failures[0].contains("AccessDenied"), "{:?}", report.failures);
}

#[tokio::test]
async fn two_collectors_at_once_do_no_harm() {
    let place = littered().await;
    for _ in 0..4 {
        let (one, other) = (place.collector().await, place.collector().await);
        let (one, other) = tokio::join!(one.run_once(Mode::Whole), other.run_once(Mode::Whole));
        one.unwrap();
        other.unwrap();
        place.store.pass_time(DAY + HOUR);
    }
    place.is_clean("two at once").await;
}

/// The image is pushed again and again while its blobs are garbage and collectors are at them.
#[tokio::test]
async fn what_is_acknowledged_while_a_collector_runs_is_whole() {
    let (mut acknowledged, mut refused) = (0, 0);
    for round in 0..40u32 {
        let place = Place::new().await;
        for blob in [&b"{}"[..], b"layer"] {
            place.app.blob("a", blob).await;
        }
        place.store.pass_time(DAY + HOUR);
        let collector = place.collector().await;
        let manifest = image(&[b"{}", b"layer"], "");
        let push = async {
            // Begins at another moment in each round.
            for _ in 0..round * 4 {
                tokio::task::yield_now().await;
            }
            let answer = place.app.put("a", "t", MANIFEST, &manifest).await;
            answer.status.as_u16()
        };
        let (status, collected) = tokio::join!(push, collector.run_once(Mode::Whole));
        collected.unwrap();
        if status == 201 {
            acknowledged += 1;
            place.collect_all().await;
            let replica = place.app.replica().await;
            for blob in ["{}", "layer"] {
                let found = replica.get(&format!("GET /v2/a/blobs/{}", digest(blob))).await;
                assert_eq!(found.body, blob.as_bytes(), "round {round}");
            }
        } else {
            refused += 1;
            assert_eq!(status, 400, "round {round}");
            // The client uploads what is missing, and is served.
            place.app.replica().await.pushed_image("a", "t").await;
        }
    }
    assert!(acknowledged > 0 && refused > 0, "{acknowledged} acknowledged, {refused} refused");
}

#[tokio::test]
async fn a_store_of_a_later_version_is_not_collected() {
    let place = littered().await;
    let before = place.keys().await;
    let content = r#"{"layout":2,"read":1,"write":1,"collect":2}"#;
    place.store.put(&Path::parse("store.json.2.0a").unwrap(), content.into()).await.unwrap();
    let error = place.collector().await.run_once(Mode::Whole).await.unwrap_err();
    assert!(error.to_string().contains("understands layout 2"), "{error}");
    assert_eq!(place.keys().await, before);
}

#[tokio::test]
async fn on_a_full_disk_pushes_stop_and_collection_goes_on() {
    let place = littered().await;
    let full = Room { free_bytes: 1 << 20, total_bytes: 1 << 30, free_objects: 1 << 20, total_objects: 1 << 20 };
    place.store.set_room(Some(full));
    let refused =
        place.app.send(&format!("POST /v2/a/blobs/uploads/?digest={}", digest("x")), &[], b"x".to_vec()).await;
    assert_eq!(refused.status, 507, "{}", refused.shown());
    let answer = place.app.put("a", "u", MANIFEST, &image(&[b"{}", b"layer"], " ")).await;
    assert_eq!(answer.status, 507, "{}", answer.shown());
    assert_eq!(place.app.get("GET /v2/a/manifests/t").await.status, 200);
    place.collect_all().await;
    place.is_clean("on a full disk").await;
    place.store.set_room(None);
    place.app.pushed_image("c", "t").await;
}
