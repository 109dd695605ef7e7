//! A copy of the keys, made beside a registry that goes on, in the order that the README tells.

use std::sync::atomic::{AtomicUsize, Ordering};

use fluyt_registry::storage::Memory;
use object_store::ObjectStoreExt;
use object_store::path::Path;

use crate::app::{MANIFEST, TestApp, digest, image};
use crate::collect::{HOUR, Place};

/// What one pass copies: the keys that hold one of these. The tags twice: one that moves between the list and the copy is
/// missed by the first.
const README: [&[&str]; 5] =
    [&["/_tags/"], &["/_tags/"], &["repos/", "catalog/", "store.json", "upload-key"], &["links/"], &["data/"]];

/// Lists, as `aws s3 sync` does, and copies what is still there and not yet in the copy.
async fn copy(from: &TestApp, to: &Memory, passes: &[&[&str]], between: impl AsyncFn()) {
    for parts in passes {
        let keys = from.keys().await;
        between().await;
        for (n, key) in keys.iter().filter(|key| parts.iter().any(|part| key.contains(part))).enumerate() {
            if n % 8 == 0 {
                between().await;
            }
            let path = Path::parse(key).unwrap();
            if to.head(&path).await.is_err()
                && let Ok(found) = from.store().get(&path).await
            {
                to.put(&path, found.bytes().await.unwrap().into()).await.unwrap();
            }
        }
    }
}

/// An image of a layer of its own.
async fn push(app: &TestApp, tag: &str, layer: &str) -> String {
    app.blob("a", b"{}").await;
    app.blob("a", layer.as_bytes()).await;
    let manifest = image(&[b"{}", layer.as_bytes()], "");
    assert_eq!(app.put("a", tag, MANIFEST, &manifest).await.status, 201);
    manifest
}

/// Tags of the copy, and which of them cannot be pulled whole.
async fn pulled(copy: &Memory) -> (Vec<String>, Vec<String>) {
    let app = TestApp::on(copy.clone(), copy.clone()).await;
    let tags: serde_json::Value = serde_json::from_slice(&app.get("GET /v2/a/tags/list").await.body).unwrap();
    let tags: Vec<String> = tags["tags"].as_array().unwrap().iter().map(|tag| tag.as_str().unwrap().into()).collect();
    let mut broken = Vec::new();
    for tag in &tags {
        let answer = app.get(&format!("GET /v2/a/manifests/{tag}")).await;
        let manifest: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        let layer = manifest["layers"][0]["digest"].as_str().unwrap_or_default().to_owned();
        if answer.status != 200 || app.get(&format!("GET /v2/a/blobs/{layer}")).await.status != 200 {
            broken.push(tag.clone());
        }
    }
    (tags, broken)
}

/// Copies while tags move, images come and go, and the collector runs.
async fn backed_up(passes: &[&[&str]]) -> (Vec<String>, Vec<String>) {
    let place = Place::new().await;
    for n in 0..10 {
        push(&place.app, &format!("stays-{n}"), &format!("layer {n}")).await;
    }
    push(&place.app, "moves", "first").await;
    let (backup, step) = (Memory::default(), AtomicUsize::new(0));
    let go_on = async || {
        let n = step.fetch_add(1, Ordering::Relaxed);
        push(&place.app, &format!("new-{n}"), &format!("new layer {n}")).await;
        if n.is_multiple_of(10) {
            push(&place.app, "moves", &format!("moved {n}")).await;
        }
        if n % 3 == 2 {
            let gone = digest(image(&[b"{}", format!("new layer {}", n - 1).as_bytes()], ""));
            assert_eq!(place.app.get(&format!("DELETE /v2/a/manifests/{gone}")).await.status, 202);
        }
        place.store.pass_time(HOUR);
        if n % 24 == 23 {
            place.collect().await;
        }
    };
    copy(&place.app, &backup, passes, go_on).await;
    let steps = step.into_inner();
    assert!(steps > 25, "{steps} steps");
    pulled(&backup).await
}

#[tokio::test]
async fn a_copy_in_the_order_of_the_readme_is_whole() {
    let (tags, broken) = backed_up(&README).await;
    let kept = tags.iter().filter(|tag| tag.starts_with("stays-")).count();
    assert_eq!((kept, tags.iter().any(|tag| tag == "moves")), (10, true), "{tags:?}");
    // What was deleted while it was copied may be listed without its manifest, and nothing else.
    let broken: Vec<_> = broken.iter().filter(|tag| !tag.starts_with("new-")).collect();
    assert!(broken.is_empty(), "{broken:?}");
}

/// The order is what does it.
#[tokio::test]
async fn a_copy_in_another_order_is_not() {
    let mut reversed = README;
    reversed.reverse();
    let (_, broken) = backed_up(&reversed).await;
    assert!(!broken.is_empty());
}
