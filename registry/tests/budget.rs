//! How many requests to the store an operation costs. A number that rises is a decision, not an accident.

use fluyt_registry::storage::Memory;

use crate::app::{MANIFEST, TestApp, digest, image};
use crate::watched::Watched;

async fn watched() -> (TestApp, Watched) {
    let store = Memory::default();
    let port = Watched::new(store.clone());
    let app = TestApp::on(port.clone(), store).await;
    port.requests();
    (app, port)
}

#[tokio::test]
async fn pushing_one_layer_of_one_part() {
    let (app, port) = watched().await;
    let digest = digest("layer");
    assert_eq!(app.get(&format!("HEAD /v2/a/blobs/{digest}")).await.status, 404);
    // Its links, and the marks, which are asked for once in 10 seconds.
    assert_eq!(port.requests().len(), 2);
    let begun = app.get("POST /v2/a/blobs/uploads/").await;
    assert_eq!(port.requests().len(), 0);
    let patched = app.send(&format!("PATCH {}", begun.header("location")), &[], "layer").await;
    assert_eq!(port.requests().len(), 1);
    assert_eq!(app.get(&format!("PUT {}&digest={digest}", patched.header("location"))).await.status, 201);
    // Session list, links of anybody, link, index, marks, data.
    assert_eq!(port.requests().len(), 6);
    let other = crate::app::digest("other");
    app.send(&format!("POST /v2/a/blobs/uploads/?digest={other}"), &[], "other").await;
    // The data, and the same without a session.
    assert_eq!(port.requests().len(), 6);
}

#[tokio::test]
async fn pushing_a_manifest_of_three_blobs() {
    let (app, port) = watched().await;
    for blob in ["{}", "one", "two"] {
        app.blob("a", blob.as_bytes()).await;
    }
    let manifest = image(&[b"{}", b"one", b"two"], "");
    app.put("a", "first", MANIFEST, &manifest).await;
    port.requests();
    let second = image(&[b"{}", b"one", b"two"], r#","annotations":{"n":"2"}"#);
    assert_eq!(app.put("a", "second", MANIFEST, &second).await.status, 201);
    // Links 3, copies 1; copy 1; marks 1, links 3, data 3; tag list, history, marks, copy, tag, copy 6.
    assert_eq!(port.requests().len(), 18);
    assert_eq!(app.put("a", "first", MANIFEST, &second).await.status, 201);
    // No copy to write, and the old entry to remove.
    assert_eq!(port.requests().len(), 18);
}

#[tokio::test]
async fn reading() {
    let (app, port) = watched().await;
    let (_, manifest) = app.pushed_image("a", "t").await;
    let layer = digest("layer");
    port.requests();
    for (line, requests) in [
        ("GET /v2/a/manifests/t".to_owned(), 2),
        (format!("GET /v2/a/manifests/{manifest}"), 2),
        // The marks are recent from the second time on.
        (format!("HEAD /v2/a/blobs/{layer}"), 2),
        (format!("HEAD /v2/a/blobs/{layer}"), 2),
        (format!("GET /v2/a/blobs/{layer}"), 2),
        ("GET /v2/a/tags/list".to_owned(), 1),
        (format!("POST /v2/b/blobs/uploads/?mount={layer}&from=a"), 5),
        ("GET /v2/".to_owned(), 0),
        ("GET /healthz".to_owned(), 0),
        ("GET /readyz".to_owned(), 1),
    ] {
        app.get(&line).await;
        let seen = port.requests();
        assert_eq!(seen.len(), requests, "{line}: {seen:#?}");
    }
}

#[tokio::test]
async fn deleting_a_manifest_with_31_tags() {
    let (app, port) = watched().await;
    let (manifest, digest) = app.pushed_image("a", "t").await;
    for n in 1..31 {
        app.put("a", &format!("t{n}"), MANIFEST, &manifest).await;
    }
    port.requests();
    assert_eq!(app.get(&format!("DELETE /v2/a/manifests/{digest}")).await.status, 202);
    // Copies and one of them (for its subject) 2; tags 1, 31 ends, copies 1, tags and history 2, hint 1.
    assert_eq!(port.requests().len(), 38);
}
