//! What a collector has marked counts as absent wherever something new would rely on it, and is served as long as it is
//! there.

use object_store::ObjectStoreExt;
use object_store::path::Path;

use crate::app::{MANIFEST, TestApp, digest};

impl TestApp {
    async fn keys_with(&self, part: &str) -> Vec<String> {
        self.keys().await.into_iter().filter(|key| key.contains(part)).collect()
    }

    /// Marks these keys, as a collector's run does, and asks a replica that has no recent answer about marks.
    async fn marked(&self, keys: &[String]) -> Self {
        let mark = Path::parse("gc/marks/run").unwrap();
        self.store().put(&mark, keys.join("\n").into()).await.unwrap();
        self.replica().await
    }
}

#[tokio::test]
async fn marked_data_is_uploaded_again_and_still_served() {
    let app = TestApp::new().await;
    let digest = app.blob("a", b"layer").await;
    let old = app.keys_with("data/").await;
    let app = app.marked(&old).await;
    assert_eq!(app.get(&format!("HEAD /v2/a/blobs/{digest}")).await.status, 404);
    assert_eq!(app.get(&format!("POST /v2/b/blobs/uploads/?mount={digest}&from=a")).await.status, 202);
    assert_eq!(app.get(&format!("GET /v2/a/blobs/{digest}")).await.body, b"layer");
    // The new upload does not share it.
    app.blob("a", b"layer").await;
    assert_eq!(app.get(&format!("HEAD /v2/a/blobs/{digest}")).await.status, 200);
    assert_eq!(app.keys_with("data/").await.len(), 2);
}

#[tokio::test]
async fn a_manifest_does_not_rely_on_marked_data() {
    let app = TestApp::new().await;
    let (manifest, _) = app.pushed_image("a", "t").await;
    let layer = app.keys_with(&format!("data/{}", &digest("layer").hex()[..2])).await;
    let app = app.marked(&layer).await;
    let answer = app.put("a", "u", MANIFEST, &manifest).await;
    assert_eq!(answer.status, 400);
    assert!(answer.shown().contains("MANIFEST_BLOB_UNKNOWN"), "{}", answer.shown());
    assert_eq!(app.get("GET /v2/a/manifests/u").await.status, 404);
}

#[tokio::test]
async fn a_marked_link_is_written_afresh() {
    let app = TestApp::new().await;
    let (manifest, _) = app.pushed_image("a", "t").await;
    let links = app.keys_with("links/").await;
    let app = app.marked(&links).await;
    assert_eq!(app.put("a", "u", MANIFEST, &manifest).await.status, 201);
    assert_eq!(app.keys_with("links/").await.len(), 2 * links.len());
}

#[tokio::test]
async fn a_marked_link_is_written_afresh_beside_one_whose_data_is_gone() {
    let app = TestApp::new().await;
    let (manifest, _) = app.pushed_image("a", "t").await;
    let layer = digest("layer").hex().to_owned();
    let data = app.keys_with(&format!("data/{}", &layer[..2])).await;
    let link = app.keys_with(&format!("/{layer}/")).await;
    // Pushed again, to data of its own, while a run marks the first.
    let app = app.marked(&data).await;
    app.blob("a", b"layer").await;
    app.store().delete(&Path::from(data[0].as_str())).await.unwrap();
    // The second link is what another run marked before it died.
    let mut left = app.keys_with(&format!("/{layer}/")).await;
    left.retain(|key| key.starts_with("links/") && !link.contains(key));
    assert_eq!(left.len(), 1);
    let app = app.marked(&left).await;
    assert_eq!(app.get(&format!("HEAD /v2/a/blobs/{}", digest("layer"))).await.status, 200);
    let answer = app.put("a", "u", MANIFEST, &manifest).await;
    assert_eq!(answer.status, 201, "{}", answer.shown());
}

#[tokio::test]
async fn a_marked_copy_is_written_afresh() {
    let app = TestApp::new().await;
    let (manifest, digest) = app.pushed_image("a", "t").await;
    let copies = app.keys_with("/_manifests/").await;
    let app = app.marked(&copies).await;
    assert_eq!(app.put("a", "u", MANIFEST, &manifest).await.status, 201);
    let all = app.keys_with("/_manifests/").await;
    assert_eq!(all.len(), 2);
    // The tag names the fresh one.
    let fresh = all.iter().find(|key| !copies.contains(key)).unwrap().rsplit('/').next().unwrap();
    assert!(app.keys_with("/_tags/u!/").await[0].ends_with(&format!("{}.{fresh}", digest.hex())));
}

#[tokio::test]
async fn a_mark_that_cannot_be_read_stops_pushes_and_not_pulls() {
    let app = TestApp::new().await;
    let (manifest, _) = app.pushed_image("a", "t").await;
    let app = app.marked(&["what/is/this".to_owned()]).await;
    assert_eq!(app.put("a", "u", MANIFEST, &manifest).await.status, 500);
    assert_eq!(app.get("GET /v2/a/manifests/t").await.status, 200);
}
