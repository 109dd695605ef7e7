//! Uploads: `end-4`, `end-5`, `end-6`, `end-11`, `end-13`, `end-14`.

use axum::body::{Body, Bytes};
use fluyt_registry::spec::{Algorithm, Digest};
use fluyt_registry::storage::Folder;
use futures_util::stream;
use insta::assert_snapshot;

use crate::app::{TestApp, digest, router_with, send};

async fn begun(app: &TestApp) -> String {
    app.get("POST /v2/a/blobs/uploads/").await.header("location").to_owned()
}

fn with_digest(location: &str, digest: &Digest) -> String {
    format!("PUT {location}&digest={digest}")
}

#[tokio::test]
async fn in_one_piece() {
    let app = TestApp::new().await;
    assert_snapshot!(app.get("POST /v2/a/blobs/uploads/").await.shown(), @r#"
    202 Accepted
    content-length: 0
    docker-upload-uuid: 00000001000000000000000000000000
    location: /v2/a/blobs/uploads/00000001000000000000000000000000?state=[sealed]
    range: 0-0
    "#);
    let location = begun(&app).await;
    let line = with_digest(&location, &digest("hello"));
    assert_snapshot!(app.send(&line, &[], "hello").await.shown(), @r#"
    201 Created
    content-length: 0
    docker-content-digest: sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824
    location: /v2/a/blobs/sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824
    "#);
    assert_eq!(app.get(&format!("GET /v2/a/blobs/{}", digest("hello"))).await.body, b"hello");
}

#[tokio::test]
async fn beginning_an_upload_writes_nothing() {
    let app = TestApp::new().await;
    let before = app.keys().await;
    begun(&app).await;
    assert_eq!(app.keys().await, before);
}

#[tokio::test]
async fn one_small_blob_is_three_objects() {
    let app = TestApp::new().await;
    let before = app.keys().await;
    app.blob("a", b"hello").await;
    let new: Vec<String> = app.keys().await.into_iter().filter(|key| !before.contains(key)).collect();
    assert_snapshot!(new.join("\n"), @r#"
    data/2c/sha256-2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824-000000040000000000000000
    links/sha256/2c/2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824/ca978112ca1bbdcafac231b39a23dc4d.sha256-2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824-000000040000000000000000.5.000000050000000000000000
    repos/a/_blobs/sha256/2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824/000000050000000000000000g1
    "#);
}

#[tokio::test]
async fn in_chunks_through_several_replicas() {
    let app = TestApp::new().await;
    let other = app.replica().await;
    let first = app.send(&format!("PATCH {}", begun(&app).await), &[("content-range", "0-4")], "hello").await;
    assert_snapshot!(first.shown(), @r#"
    202 Accepted
    content-length: 0
    docker-upload-uuid: 00000001000000000000000000000000
    location: /v2/a/blobs/uploads/00000001000000000000000000000000?state=[sealed]
    range: 0-4
    "#);
    let location = first.header("location");
    assert_snapshot!(other.get(&format!("GET {location}")).await.shown(), @r#"
    204 No Content
    content-length: 0
    docker-upload-uuid: 00000001000000000000000000000000
    location: /v2/a/blobs/uploads/00000001000000000000000000000000?state=[sealed]
    range: 0-4
    "#);
    let second = other.send(&format!("PATCH {location}"), &[("content-range", "5-5")], " ").await;
    assert_eq!(second.header("range"), "0-5");
    let whole = digest("hello world");
    let line = with_digest(second.header("location"), &whole);
    assert_eq!(app.send(&line, &[("content-range", "6-10")], "world").await.status, 201);
    assert_eq!(app.get(&format!("GET /v2/a/blobs/{whole}")).await.body, b"hello world");
}

#[tokio::test]
async fn a_chunk_at_the_wrong_place() {
    let app = TestApp::new().await;
    let location = begun(&app).await;
    let line = format!("PATCH {location}");
    assert_snapshot!(app.send(&line, &[("content-range", "5-9")], "hello").await.shown(), @r#"
    416 Range Not Satisfiable
    content-length: 138
    content-type: application/json

    {"errors":[{"code":"BLOB_UPLOAD_INVALID","message":"the chunk begins at byte 5, but the upload has 0 bytes: expected it to begin there"}]}
    "#);
    assert_snapshot!(app.send(&line, &[("content-range", "0-9")], "hello").await.shown(), @r#"
    400 Bad Request
    content-length: 114
    content-type: application/json

    {"errors":[{"code":"BLOB_UPLOAD_INVALID","message":"the upload failed: Content-Range says 10 bytes, but 5 came"}]}
    "#);
    assert_snapshot!(app.send(&line, &[("content-range", "x")], "hello").await.shown(), @r#"
    400 Bad Request
    content-length: 132
    content-type: application/json

    {"errors":[{"code":"BLOB_UPLOAD_INVALID","message":"the upload failed: Content-Range is `x`, expected `<first byte>-<last byte>`"}]}
    "#);
    // None of it counted.
    assert_eq!(app.send(&line, &[("content-range", "0-4")], "hello").await.status, 202);
}

/// Longer than a part: a multipart upload with its state in the store.
fn long(size_bytes: usize) -> Vec<u8> {
    (0..size_bytes).map(|i| (i / 7 % 251) as u8).collect()
}

#[tokio::test]
async fn a_long_blob_in_chunks_of_any_size() {
    let app = TestApp::new().await;
    let content = long(11 * 1024 * 1024);
    let mut location = begun(&app).await;
    let mut at = 0;
    for size in [6 * 1024 * 1024, 1, 100_000, 4 * 1024 * 1024] {
        let answer = app.send(&format!("PATCH {location}"), &[], content[at..at + size].to_vec()).await;
        assert_eq!(answer.status, 202, "{}", answer.shown());
        at += size;
        assert_eq!(answer.header("range"), format!("0-{}", at - 1));
        location = answer.header("location").to_owned();
    }
    let line = with_digest(&location, &digest(&content));
    let replica = app.replica().await;
    assert_eq!(replica.send(&line, &[], content[at..].to_vec()).await.status, 201);
    assert_eq!(app.get(&format!("GET /v2/a/blobs/{}", digest(&content))).await.body, content);
}

#[tokio::test]
async fn finishing_again_says_the_same_again() {
    let app = TestApp::new().await;
    let small = app.send(&format!("PATCH {}", begun(&app).await), &[], "hello").await;
    let content = long(5 * 1024 * 1024);
    let large = app.send(&format!("PATCH {}", begun(&app).await), &[], content.clone()).await;
    for (answer, digest) in [(small, digest("hello")), (large, digest(&content))] {
        let line = with_digest(answer.header("location"), &digest);
        for _ in 0..2 {
            let finished = app.get(&line).await;
            assert_eq!(
                (finished.status.as_u16(), finished.header("docker-content-digest")),
                (201, &*digest.to_string())
            );
        }
    }
}

#[tokio::test]
async fn an_old_location_of_a_long_upload_is_refused_and_its_status_says_where_to_go_on() {
    let app = TestApp::new().await;
    let content = long(5 * 1024 * 1024);
    let first = app.send(&format!("PATCH {}", begun(&app).await), &[], content.clone()).await;
    let location = first.header("location").to_owned();
    assert_eq!(app.send(&format!("PATCH {location}"), &[], "more").await.status, 202);
    assert_snapshot!(app.send(&format!("PATCH {location}"), &[], "again").await.shown(), @r#"
    416 Range Not Satisfiable
    content-length: 230
    content-type: application/json

    {"errors":[{"code":"BLOB_UPLOAD_INVALID","message":"another request is writing to this upload, or was when its replica stopped: ask for the upload's status and go on from there; if the status stays the same, begin a new upload"}]}
    "#);
    let status = app.get(&format!("GET {location}")).await;
    assert_eq!(status.header("range"), format!("0-{}", content.len() + 3));
    let finished = [&content[..], b"more"].concat();
    assert_eq!(app.get(&with_digest(status.header("location"), &digest(&finished))).await.status, 201);
}

#[tokio::test]
async fn a_cancelled_upload_stays_unknown() {
    let app = TestApp::new().await;
    let location = app.send(&format!("PATCH {}", begun(&app).await), &[], "hello").await.header("location").to_owned();
    assert_snapshot!(app.get(&format!("DELETE {location}")).await.shown(), @r#"
    204 No Content
    content-length: 0
    "#);
    let replica = app.replica().await;
    for line in [format!("GET {location}"), format!("PATCH {location}"), format!("DELETE {location}")] {
        assert_eq!(replica.get(&line).await.status, 404, "{line}");
    }
    assert_snapshot!(replica.get(&with_digest(&location, &digest("hello"))).await.shown(), @r#"
    404 Not Found
    content-length: 148
    content-type: application/json

    {"errors":[{"code":"BLOB_UPLOAD_UNKNOWN","message":"there is no such upload: it was never begun here, was cancelled, or its Location was altered"}]}
    "#);
}

#[tokio::test]
async fn a_location_that_was_altered_is_unknown() {
    let app = TestApp::new().await;
    let location = begun(&app).await;
    let moved = location.replace("/v2/a/", "/v2/b/");
    let bare = location.split('?').next().unwrap().to_owned();
    for target in [moved, bare, location.replace("state=e", "state=f")] {
        assert_eq!(app.send(&format!("PATCH {target}"), &[], "x").await.status, 404, "{target}");
    }
    assert_eq!(app.get("GET /v2/a/blobs/uploads/nonsense").await.status, 404);
}

#[tokio::test]
async fn the_wrong_digest() {
    let app = TestApp::new().await;
    let line = with_digest(&begun(&app).await, &digest("other"));
    let before = app.keys().await;
    assert_snapshot!(app.send(&line, &[], "hello").await.shown(), @r#"
    400 Bad Request
    content-length: 237
    content-type: application/json

    {"errors":[{"code":"DIGEST_INVALID","message":"the content hashes to sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824, not to the declared sha256:d9298a10d1b0735837dc4bd85dac641b0f3cef27a47e5d53a54f2f3f5b2fcffa"}]}
    "#);
    assert_eq!(app.keys().await, before);
    assert_snapshot!(app.get(&format!("PUT {}", begun(&app).await)).await.shown(), @r#"
    400 Bad Request
    content-length: 120
    content-type: application/json

    {"errors":[{"code":"DIGEST_INVALID","message":"the request has no digest: expected the parameter `digest=sha256:...`"}]}
    "#);
    let line = with_digest(&begun(&app).await, &digest("other"));
    assert_eq!(app.send(&line, &[], long(5 * 1024 * 1024)).await.status, 400);
    assert_eq!(app.keys().await, before);
}

#[tokio::test]
async fn sha512_announced_late_and_not_at_all() {
    let app = TestApp::new().await;
    let content = long(5 * 1024 * 1024);
    let wide = Digest::of(Algorithm::Sha512, &content);
    let announced = app.get("POST /v2/a/blobs/uploads/?digest-algorithm=sha512").await.header("location").to_owned();
    for (repo, location) in [("a", announced), ("a", begun(&app).await)] {
        let answer = app.send(&format!("PATCH {location}"), &[], content.clone()).await;
        let finished = app.get(&with_digest(answer.header("location"), &wide)).await;
        assert_eq!(finished.status, 201, "{}", finished.shown());
        assert_eq!(app.get(&format!("GET /v2/{repo}/blobs/{wide}")).await.body, content);
    }
    assert_snapshot!(app.get("POST /v2/a/blobs/uploads/?digest-algorithm=md5").await.shown(), @r#"
    400 Bad Request
    content-length: 112
    content-type: application/json

    {"errors":[{"code":"DIGEST_INVALID","message":"digest algorithm `md5` is not supported: use sha256 or sha512"}]}
    "#);
}

#[tokio::test]
async fn mounts() {
    let app = TestApp::new().await;
    let digest = app.blob("a", b"hello").await;
    let line = format!("POST /v2/b/blobs/uploads/?mount={digest}&from=a");
    assert_snapshot!(app.get(&line).await.shown(), @r#"
    201 Created
    content-length: 0
    docker-content-digest: sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824
    location: /v2/b/blobs/sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824
    "#);
    assert_eq!(app.get(&format!("GET /v2/b/blobs/{digest}")).await.body, b"hello");
    // From anywhere.
    assert_eq!(app.get(&format!("POST /v2/c/blobs/uploads/?mount={digest}")).await.status, 201);
    // Not there: an upload begins.
    let absent = crate::app::digest("absent");
    let line = format!("POST /v2/b/blobs/uploads/?mount={absent}&from=a");
    assert_snapshot!(app.get(&line).await.shown(), @r#"
    202 Accepted
    content-length: 0
    docker-upload-uuid: 00000009000000000000000000000000
    location: /v2/b/blobs/uploads/00000009000000000000000000000000?state=[sealed]
    range: 0-0
    "#);
    // What is no name holds nothing: the client uploads instead.
    let nameless = app.get(&format!("POST /v2/c/blobs/uploads/?mount={digest}&from=NO")).await;
    assert_eq!((nameless.status.as_u16(), nameless.header("location").is_empty()), (202, false));
}

#[tokio::test]
async fn the_same_blob_pushed_twice_is_stored_once() {
    let app = TestApp::new().await;
    app.blob("a", b"hello").await;
    app.blob("b", b"hello").await;
    let keys = app.keys().await;
    let links: Vec<&String> = keys.iter().filter(|key| key.starts_with("links/")).collect();
    let named: Vec<&str> = links.iter().map(|key| key.rsplit('.').nth(2).unwrap()).collect();
    assert_eq!((named.len(), named[0]), (2, named[1]));
    // The second one's own data is left to the collector, with a hint.
    assert_eq!(keys.iter().filter(|key| key.starts_with("gc/hints/")).count(), 1);
}

#[tokio::test]
async fn an_empty_blob() {
    let app = TestApp::new().await;
    let digest = app.blob("a", b"").await;
    let answer = app.get(&format!("GET /v2/a/blobs/{digest}")).await;
    assert_eq!((answer.status.as_u16(), answer.header("content-length"), answer.body.len()), (200, "0", 0));
}

#[tokio::test]
async fn of_two_that_go_on_with_a_long_upload_at_once_one_is_refused() {
    for _ in 0..20 {
        let app = TestApp::new().await;
        let begun = app.send(&format!("PATCH {}", begun(&app).await), &[], long(5 * 1024 * 1024)).await;
        let line = format!("PATCH {}", begun.header("location"));
        let other = app.replica().await;
        let (one, two) = tokio::join!(app.send(&line, &[], "one"), other.send(&line, &[], "two"));
        let accepted = [&one, &two].into_iter().filter(|answer| answer.status == 202).count();
        assert!(accepted <= 1, "{}\n{}", one.shown(), two.shown());
    }
}

#[tokio::test]
async fn after_a_wrong_digest_a_long_upload_is_unknown() {
    let app = TestApp::new().await;
    let patched = app.send(&format!("PATCH {}", begun(&app).await), &[], long(5 * 1024 * 1024)).await;
    let location = patched.header("location");
    assert_eq!(app.get(&with_digest(location, &digest("other"))).await.status, 400);
    let answer = app.get(&with_digest(location, &digest(long(5 * 1024 * 1024)))).await;
    assert!([404, 500].contains(&answer.status.as_u16()), "{}", answer.shown());
}

#[tokio::test]
async fn a_long_body_that_breaks_off_is_gone_on_with_where_several_processors_hash_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = Folder::open(folder.path(), false).unwrap();
    let router = router_with(store, |registry| registry.with_processors(2)).await;
    let content = Bytes::from(long(50_000_000));
    let half = content.len() / 2 + 7;
    let frames = |part: Bytes| {
        let sizes = [100_000, 1, 64 * 1024, 700_000, 30, 30, 30].into_iter().cycle();
        let cut = sizes.scan(part, |left, size| {
            (!left.is_empty()).then(|| Ok::<_, std::io::Error>(left.split_to(left.len().min(size))))
        });
        cut.collect::<Vec<_>>()
    };
    // The first PATCH is whole, so that its Location is known; the second breaks off.
    let location = send(&router, "POST /v2/a/blobs/uploads/", &[], "").await.header("location").to_owned();
    let first = Body::from_stream(stream::iter(frames(content.slice(..half))));
    let location = send(&router, &format!("PATCH {location}"), &[], first).await.header("location").to_owned();
    let broken = frames(content.slice(half..half + 20_000_000)).into_iter().chain([Err(std::io::Error::other("cut"))]);
    let answer = send(&router, &format!("PATCH {location}"), &[], Body::from_stream(stream::iter(broken))).await;
    assert_eq!(answer.status, 400, "{}", answer.shown());
    let status = send(&router, &format!("GET {location}"), &[], "").await;
    let there: usize = status.header("range").trim_start_matches("0-").parse::<usize>().unwrap() + 1;
    assert_eq!(there, half + 20_000_000);
    let rest = Body::from_stream(stream::iter(frames(content.slice(there..))));
    let line = with_digest(status.header("location"), &digest(&content));
    let finished = send(&router, &line, &[], rest).await;
    assert_eq!(finished.status, 201, "{}", finished.shown());
    let back = send(&router, &format!("GET /v2/a/blobs/{}", digest(&content)), &[], "").await;
    assert!(back.body == content, "{} bytes", back.body.len());
}
