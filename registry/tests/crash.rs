//! Every request of a push fails in turn, before or after it was applied, and the client begins again. What was
//! acknowledged reads back; what is visible is whole; and beginning again always comes to an end.

use fluyt_registry::storage::Memory;

use crate::app::{Answer, MANIFEST, TestApp, digest, image};
use crate::object_store::Strict;
use crate::watched::{Failing, Watched};

/// What docker does: HEAD, POST, PATCH, PUT for each blob, then the manifest. Ends at the first answer that is no success.
async fn push(app: &TestApp, blobs: &[&[u8]], tag: &str) -> Result<(), Answer> {
    for blob in blobs {
        let digest = digest(blob);
        match app.get(&format!("HEAD /v2/a/blobs/{digest}")).await {
            there if there.status == 200 => continue,
            absent if absent.status == 404 => {}
            failed => return Err(failed),
        }
        let begun = app.get("POST /v2/a/blobs/uploads/").await;
        let patched = app.send(&format!("PATCH {}", begun.header("location")), &[], blob.to_vec()).await;
        if patched.status != 202 {
            return Err(patched);
        }
        let finished = app.get(&format!("PUT {}&digest={digest}", patched.header("location"))).await;
        if finished.status != 201 {
            return Err(finished);
        }
        assert_eq!(app.store_read(&digest).await, *blob, "an acknowledged blob does not read back");
    }
    let answer = app.put("a", tag, MANIFEST, &image(blobs, "")).await;
    if answer.status == 201 { Ok(()) } else { Err(answer) }
}

impl TestApp {
    /// A blob as a replica without faults reads it.
    async fn store_read(&self, digest: &fluyt_registry::spec::Digest) -> Vec<u8> {
        self.replica().await.get(&format!("GET /v2/a/blobs/{digest}")).await.body
    }
}

/// If the tag is visible, everything that it names is.
async fn check_visible(app: &TestApp, blobs: &[&[u8]], tag: &str) -> bool {
    let replica = app.replica().await;
    let manifest = replica.get(&format!("GET /v2/a/manifests/{tag}")).await;
    if manifest.status == 404 {
        return false;
    }
    assert_eq!(String::from_utf8(manifest.body).unwrap(), image(blobs, ""));
    for blob in blobs {
        assert_eq!(app.store_read(&digest(blob)).await, *blob);
    }
    true
}

async fn every_request_fails_in_turn(blobs: &[&[u8]], behind: impl Fn(&Memory) -> Watched) {
    for failing in [Failing::Before, Failing::After] {
        for nth in 0.. {
            let store = Memory::default();
            let port = behind(&store);
            let app = TestApp::on(port.clone(), store).await;
            port.fail(Some((nth, failing)));
            let first = push(&app, blobs, "t").await;
            let visible = check_visible(&app, blobs, "t").await;
            match &first {
                Ok(()) => assert!(visible, "request {nth} {failing:?}: acknowledged, and not there"),
                Err(answer) => {
                    assert_eq!(answer.status, 500, "request {nth} {failing:?}: {}", answer.shown());
                    // The answer to a HEAD has no body.
                    let says = String::from_utf8_lossy(&answer.body);
                    assert!(says.is_empty() || says.contains("the registry's store failed"), "{says}");
                }
            }
            port.fail(None);
            if let Err(answer) = push(&app, blobs, "t").await {
                panic!("request {nth} {failing:?}: the client cannot begin again: {}", answer.shown());
            }
            assert!(check_visible(&app, blobs, "t").await);
            if first.is_ok() {
                assert!(nth > 10, "only {nth} requests were made to fail");
                break;
            }
        }
    }
}

#[tokio::test]
async fn small_blobs() {
    every_request_fails_in_turn(&[b"{}", b"layer"], |store| Watched::new(store.clone())).await;
}

#[tokio::test]
async fn a_blob_of_several_parts() {
    let long = vec![b'x'; 5 * 1024 * 1024];
    every_request_fails_in_turn(&[b"{}", &long], |store| Watched::new(store.clone())).await;
}

#[tokio::test]
async fn a_blob_of_several_parts_on_an_object_store() {
    let long = vec![b'x'; 11 * 1024 * 1024];
    every_request_fails_in_turn(&[b"{}", &long], |store| Watched::new(Strict::new(store.clone()))).await;
}

#[tokio::test]
async fn a_delete_that_fails_can_be_done_again() {
    for failing in [Failing::Before, Failing::After] {
        for nth in 0.. {
            let store = Memory::default();
            let port = Watched::new(store.clone());
            let app = TestApp::on(port.clone(), store).await;
            push(&app, &[b"{}", b"layer"], "t").await.map_err(|answer| answer.shown()).unwrap();
            let manifest = digest(image(&[b"{}", b"layer"], ""));
            port.fail(Some((nth, failing)));
            let line = format!("DELETE /v2/a/manifests/{manifest}");
            let first = app.get(&line).await.status;
            port.fail(None);
            if first != 202 {
                assert_eq!(first, 500, "request {nth}");
                // Done before the answer was lost, or done now.
                assert!([202, 404].contains(&app.get(&line).await.status.as_u16()));
            }
            for gone in ["t", &manifest.to_string()] {
                assert_eq!(app.get(&format!("GET /v2/a/manifests/{gone}")).await.status, 404);
            }
            if first == 202 {
                break;
            }
        }
    }
}
