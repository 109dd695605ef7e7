//! What something refers to stays, however old it is.

use fluyt_registry::collect::CollectSettings;
use object_store::ObjectStoreExt;
use object_store::path::Path;

use super::{DAY, HOUR, Place};
use crate::app::{INDEX, MANIFEST, digest, image};

impl Place {
    /// Puts an image by its digest alone.
    async fn image_by_digest(&self, blobs: &[&[u8]]) -> String {
        for blob in blobs {
            self.app.blob("a", blob).await;
        }
        let manifest = image(blobs, "");
        let answer = self.app.put("a", &digest(&manifest).to_string(), MANIFEST, &manifest).await;
        assert_eq!(answer.status, 201, "{}", answer.shown());
        manifest
    }

    /// Years of collecting take nothing away.
    async fn stays(&self) {
        let before = self.keys().await;
        self.store.pass_time(1000 * DAY);
        self.collect_all().await;
        let mut after = self.keys().await;
        after.retain(|key| !key.starts_with("gc/"));
        let before: Vec<_> = before.into_iter().filter(|key| !key.starts_with("gc/")).collect();
        assert_eq!(after, before);
    }
}

#[tokio::test]
async fn a_tagged_image_stays() {
    let place = Place::new().await;
    place.app.pushed_image("a", "t").await;
    place.stays().await;
}

#[tokio::test]
async fn an_image_pushed_by_digest_alone_stays() {
    let place = Place::new().await;
    place.image_by_digest(&[b"{}", b"layer"]).await;
    place.stays().await;
}

#[tokio::test]
async fn a_blob_of_two_repositories_stays_for_the_second() {
    let place = Place::new().await;
    let (manifest, first) = place.app.pushed_image("a", "t").await;
    place.app.pushed_image("b", "t").await;
    assert_eq!(place.app.get(&format!("DELETE /v2/a/manifests/{first}")).await.status, 202);
    place.collect_all().await;
    assert_eq!(place.keys_with("links/").await.len(), 2);
    // The second repository shares the data of the first; its own upload's went by a hint.
    assert_eq!(place.keys_with("data/").await.len(), 2);
    assert_eq!(place.app.get("GET /v2/b/manifests/t").await.body, manifest.as_bytes());
    assert_eq!(place.app.get(&format!("GET /v2/b/blobs/{}", digest("layer"))).await.body, b"layer");
}

#[tokio::test]
async fn what_a_tag_was_stays_by_default() {
    let place = Place::new().await;
    place.app.pushed_image("a", "t").await;
    place.app.blob("a", b"new").await;
    assert_eq!(place.app.put("a", "t", MANIFEST, &image(&[b"{}", b"new"], "")).await.status, 201);
    place.stays().await;
}

#[tokio::test]
async fn the_children_of_an_index_stay() {
    let untagged = Some(DAY);
    let place = Place::with(CollectSettings { untagged, ..CollectSettings::default() }).await;
    let child = place.image_by_digest(&[b"{}", b"layer"]).await;
    let index = format!(
        r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{{"mediaType":"{MANIFEST}","digest":"{}","size":1}}]}}"#,
        digest(&child)
    );
    assert_eq!(place.app.put("a", "t", INDEX, &index).await.status, 201);
    place.stays().await;
}

#[tokio::test]
async fn blobs_that_an_index_lists_as_if_they_were_manifests_stay() {
    let place = Place::new().await;
    place.app.blob("a", b"cache").await;
    let index = format!(
        r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{{"mediaType":"application/x","digest":"{}","size":5}}]}}"#,
        digest("cache")
    );
    assert_eq!(place.app.put("a", "t", INDEX, &index).await.status, 201);
    place.stays().await;
}

/// By digest alone, and with nothing of what it lists: an index is not broken by that.
#[tokio::test]
async fn a_sparse_index_of_blobs_stays() {
    let place = Place::new().await;
    let index = format!(
        r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{{"mediaType":"application/x","digest":"{}","size":5}}]}}"#,
        digest("never")
    );
    assert_eq!(place.app.put("a", &digest(&index).to_string(), INDEX, &index).await.status, 201);
    place.stays().await;
}

#[tokio::test]
async fn a_layer_that_lives_elsewhere_and_was_pushed_all_the_same_stays() {
    let place = Place::new().await;
    for blob in [&b"{}"[..], b"foreign"] {
        place.app.blob("a", blob).await;
    }
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{{"mediaType":"application/x","digest":"{}","size":2}},"layers":[{{"mediaType":"application/x","digest":"{}","size":7,"urls":["https://elsewhere.example/"]}}]}}"#,
        digest("{}"),
        digest("foreign")
    );
    assert_eq!(place.app.put("a", "t", MANIFEST, &manifest).await.status, 201);
    place.stays().await;
}

#[tokio::test]
async fn a_referrer_stays_with_its_subject() {
    let untagged = Some(DAY);
    let place = Place::with(CollectSettings { untagged, ..CollectSettings::default() }).await;
    let (_, subject) = place.app.pushed_image("a", "t").await;
    let more = format!(r#","subject":{{"mediaType":"{MANIFEST}","digest":"{subject}","size":1}}"#);
    let signature = image(&[b"{}", b"layer"], &more);
    assert_eq!(place.app.put("a", &digest(&signature).to_string(), MANIFEST, &signature).await.status, 201);
    place.stays().await;
}

#[tokio::test]
async fn the_history_in_its_window_stays() {
    let untagged = Some(DAY);
    let place = Place::with(CollectSettings { untagged, ..CollectSettings::default() }).await;
    let (_, old) = place.app.pushed_image("a", "t").await;
    place.store.pass_time(100 * DAY);
    place.app.blob("a", b"new").await;
    assert_eq!(place.app.put("a", "t", MANIFEST, &image(&[b"{}", b"new"], "")).await.status, 201);
    place.store.pass_time(29 * DAY);
    place.collect().await;
    assert_eq!(place.app.get(&format!("GET /v2/a/manifests/{old}")).await.status, 200);
    place.store.pass_time(2 * DAY);
    place.collect().await;
    assert_eq!(place.app.get(&format!("GET /v2/a/manifests/{old}")).await.status, 404);
}

#[tokio::test]
async fn data_under_two_digests_stays_for_the_second() {
    let place = Place::new().await;
    let begun = place.app.get("POST /v2/a/blobs/uploads/").await;
    let patched = place.app.send(&format!("PATCH {}", begun.header("location")), &[], b"layer".to_vec()).await;
    let sha512 = fluyt_registry::spec::Digest::of(fluyt_registry::spec::Algorithm::Sha512, b"layer");
    for digest in [digest("layer"), sha512.clone()] {
        let finished = place.app.get(&format!("PUT {}&digest={digest}", patched.header("location"))).await;
        assert_eq!(finished.status, 201, "{}", finished.shown());
    }
    assert_eq!(place.keys_with("data/").await.len(), 2);
    place.app.blob("a", b"{}").await;
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{{"mediaType":"application/x","digest":"{}","size":2}},"layers":[{{"mediaType":"application/x","digest":"{sha512}","size":5}}]}}"#,
        digest("{}"),
    );
    assert_eq!(place.app.put("a", "t", MANIFEST, &manifest).await.status, 201);
    place.collect_all().await;
    assert_eq!(place.app.get(&format!("GET /v2/a/blobs/{}", digest("layer"))).await.status, 404);
    assert_eq!(place.app.get(&format!("GET /v2/a/blobs/{sha512}")).await.body, b"layer");
}

#[tokio::test]
async fn what_is_not_ours_stays() {
    let place = Place::new().await;
    let foreign = ["data/aa/readme", "links/x", "repos/a/_tags/t!/nonsense", "other/file", "gc/unknown/1", "uploads/x"];
    for key in foreign {
        place.store.put(&Path::parse(key).unwrap(), "x".into()).await.unwrap();
    }
    place.collect_all().await;
    for key in foreign {
        assert!(place.app.keys().await.contains(&key.to_owned()), "{key}");
    }
}

#[tokio::test]
async fn a_repository_with_a_manifest_that_cannot_be_read_is_left_alone() {
    let place = Place::new().await;
    place.app.pushed_image("a", "t").await;
    place.app.blob("a", b"unnamed").await;
    let damaged = format!("repos/a/_manifests/sha256/{}/0a", digest("x").hex());
    place.store.put(&Path::parse(&damaged).unwrap(), "nonsense".into()).await.unwrap();
    place.store.pass_time(DAY + HOUR);
    let report = place.collector().await.run_once(fluyt_registry::collect::Mode::Whole).await.unwrap();
    assert!(report.failures[0].contains("damaged"), "{:?}", report.failures);
    assert_eq!(place.keys_with("links/").await.len(), 3);
}
