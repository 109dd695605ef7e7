//! Large blobs that clients fetch from the store itself.

use fluyt_registry::service::{RedirectMode, Redirects};
use fluyt_registry::storage::Memory;
use insta::assert_snapshot;

use crate::app::{TestApp, digest, image};
use crate::object_store::Strict;
use crate::watched::Watched;

const LARGE: usize = 1024 * 1024;

/// A registry that has a small and a large blob; and what counts its requests to the store.
async fn app(public: bool, redirects: Redirects) -> (TestApp, Watched) {
    let store = Memory::default();
    let mut strict = Strict::new(store.clone());
    strict.public = public;
    let port = Watched::new(strict);
    let app = TestApp::with_redirects(port.clone(), store, redirects).await;
    app.blob("a", b"small").await;
    app.blob("a", &vec![b'x'; LARGE]).await;
    port.requests();
    (app, port)
}

fn large() -> String {
    format!("/v2/a/blobs/{}", digest(vec![b'x'; LARGE]))
}

#[tokio::test]
async fn a_large_blob_is_one_request_and_the_rest_comes_from_us() {
    let (app, port) = app(true, Redirects::default()).await;
    let answer = app.get(&format!("GET {}", large())).await;
    assert_eq!(port.requests().len(), 1);
    assert_snapshot!(answer.shown(), @r#"
    307 Temporary Redirect
    cache-control: no-store
    content-length: 0
    docker-content-digest: sha256:8f990ba0b577b51cf009ea049368c16bbda1b21e1b93be07a824758bb253c39b
    location: https://store.example.net/data/8f/sha256-8f990ba0b577b51cf009ea049368c16bbda1b21e1b93be07a824758bb253c39b-000000090000000000000000?expires=1200
    "#);
    // A part of it is fetched there as well: the client asks the address for it.
    assert_eq!(app.send(&format!("GET {}", large()), &[("range", "bytes=0-1")], "").await.status, 307);
    assert_eq!(app.get(&format!("HEAD {}", large())).await.status, 200);
    let small = format!("/v2/a/blobs/{}", digest("small"));
    assert_eq!(app.get(&format!("GET {small}")).await.body, b"small");
    app.blob("a", b"{}").await;
    let manifest = image(&[b"{}", b"small"], "");
    app.put("a", "t", crate::app::MANIFEST, &manifest).await;
    assert_eq!(app.get("GET /v2/a/manifests/t").await.status, 200);
    // Where there is no link there is no address.
    assert_eq!(app.get(&format!("GET {}", large().replace("/a/", "/b/"))).await.status, 404);
}

#[tokio::test]
async fn who_is_sent_elsewhere() {
    use RedirectMode::{Always, Auto, Never};
    for (public, mode, min_bytes, status) in [
        (true, Auto, Redirects::MIN_BYTES, 307),
        (false, Auto, Redirects::MIN_BYTES, 200),
        (false, Always, Redirects::MIN_BYTES, 307),
        (true, Never, 0, 200),
        (true, Always, LARGE as u64 + 1, 200),
    ] {
        let (app, _) = app(public, Redirects { mode, min_bytes }).await;
        assert_eq!(app.get(&format!("GET {}", large())).await.status, status, "{public} {mode:?} {min_bytes}");
    }
    let (app, _) = app(false, Redirects { mode: Always, min_bytes: 0 }).await;
    assert_eq!(app.get(&format!("GET /v2/a/blobs/{}", digest("small"))).await.status, 307);
}

#[tokio::test]
async fn a_store_that_cannot_sign_gives_the_bytes_itself() {
    let store = Memory::default();
    let redirects = Redirects { mode: RedirectMode::Always, min_bytes: 0 };
    let app = TestApp::with_redirects(store.clone(), store, redirects).await;
    let digest = app.blob("a", b"small").await;
    assert_eq!(app.get(&format!("GET /v2/a/blobs/{digest}")).await.body, b"small");
}

#[tokio::test]
async fn a_store_that_is_not_allowed_to_sign_gives_the_bytes_itself() {
    let store = Memory::default();
    let mut strict = Strict::new(store.clone());
    let asked = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    (strict.public, strict.refused) = (true, Some(asked.clone()));
    let app = TestApp::with_redirects(strict, store, Redirects::default()).await;
    app.blob("a", &vec![b'x'; LARGE]).await;
    for _ in 0..3 {
        let answer = app.get(&format!("GET {}", large())).await;
        assert_eq!((answer.status.as_u16(), answer.body.len()), (200, LARGE));
    }
    // It costs a request, on some, and is said in the log.
    assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 1);
}
