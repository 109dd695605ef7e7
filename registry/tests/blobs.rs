//! Blobs: `end-2`, `end-10`.

use insta::assert_snapshot;

use crate::app::{TestApp, digest};

#[tokio::test]
async fn a_blob_comes_back_as_it_was_pushed() {
    let app = TestApp::new().await;
    let digest = app.blob("a/b", b"0123456789").await;
    assert_snapshot!(app.get(&format!("HEAD /v2/a/b/blobs/{digest}")).await.shown(), @r#"
    200 OK
    accept-ranges: bytes
    content-length: 10
    content-type: application/octet-stream
    docker-content-digest: sha256:84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882
    etag: "sha256:84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882"
    "#);
    assert_snapshot!(app.get(&format!("GET /v2/a/b/blobs/{digest}")).await.shown(), @r#"
    200 OK
    accept-ranges: bytes
    content-length: 10
    content-type: application/octet-stream
    docker-content-digest: sha256:84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882
    etag: "sha256:84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882"

    0123456789
    "#);
}

#[tokio::test]
async fn a_part_of_a_blob() {
    let app = TestApp::new().await;
    let digest = app.blob("a/b", b"0123456789").await;
    let line = format!("GET /v2/a/b/blobs/{digest}");
    let part = async |range| app.send(&line, &[("range", range)], "").await.shown();
    assert_snapshot!(part("bytes=2-4").await, @r#"
    206 Partial Content
    accept-ranges: bytes
    content-length: 3
    content-range: bytes 2-4/10
    content-type: application/octet-stream
    docker-content-digest: sha256:84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882
    etag: "sha256:84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882"

    234
    "#);
    assert_snapshot!(part("bytes=-3").await, @r#"
    206 Partial Content
    accept-ranges: bytes
    content-length: 3
    content-range: bytes 7-9/10
    content-type: application/octet-stream
    docker-content-digest: sha256:84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882
    etag: "sha256:84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882"

    789
    "#);
    assert_snapshot!(part("bytes=8-99").await, @r#"
    206 Partial Content
    accept-ranges: bytes
    content-length: 2
    content-range: bytes 8-9/10
    content-type: application/octet-stream
    docker-content-digest: sha256:84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882
    etag: "sha256:84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882"

    89
    "#);
    assert_snapshot!(part("bytes=10-").await, @r#"
    416 Range Not Satisfiable
    content-length: 92
    content-range: bytes */10
    content-type: application/json

    {"errors":[{"code":"SIZE_INVALID","message":"the range is not within the blob's 10 bytes"}]}
    "#);
    // Several parts are answered with the whole.
    assert_eq!(app.send(&line, &[("range", "bytes=0-1,3-4")], "").await.body, b"0123456789");
}

#[tokio::test]
async fn a_repository_has_only_what_was_pushed_to_it() {
    let app = TestApp::new().await;
    let digest = app.blob("a/b", b"0123456789").await;
    assert_snapshot!(app.get(&format!("GET /v2/c/blobs/{digest}")).await.shown(), @r#"
    404 Not Found
    content-length: 145
    content-type: application/json

    {"errors":[{"code":"BLOB_UNKNOWN","message":"repository c has no blob sha256:84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882"}]}
    "#);
}

#[tokio::test]
async fn a_deleted_blob_is_gone_here_and_nowhere_else() {
    let app = TestApp::new().await;
    let digest = app.blob("a/b", b"x").await;
    app.blob("c", b"x").await;
    let line = format!("DELETE /v2/a/b/blobs/{digest}");
    assert_snapshot!(app.get(&line).await.shown(), @r#"
    202 Accepted
    content-length: 0
    "#);
    assert_snapshot!(app.get(&line).await.shown(), @r#"
    404 Not Found
    content-length: 147
    content-type: application/json

    {"errors":[{"code":"BLOB_UNKNOWN","message":"repository a/b has no blob sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"}]}
    "#);
    assert_eq!(app.get(&format!("HEAD /v2/a/b/blobs/{digest}")).await.status, 404);
    assert_eq!(app.get(&format!("HEAD /v2/c/blobs/{digest}")).await.status, 200);
}

#[tokio::test]
async fn what_is_no_digest() {
    let app = TestApp::new().await;
    assert_snapshot!(app.get("GET /v2/a/blobs/sha256:abc").await.shown(), @r#"
    400 Bad Request
    content-length: 137
    content-type: application/json

    {"errors":[{"code":"DIGEST_INVALID","message":"`sha256:abc` is not a sha256 digest: expected 64 lower-case hex digits after the colon"}]}
    "#);
    assert_snapshot!(app.get("GET /v2/a/blobs/md5:abc").await.shown(), @r#"
    400 Bad Request
    content-length: 112
    content-type: application/json

    {"errors":[{"code":"DIGEST_INVALID","message":"digest algorithm `md5` is not supported: use sha256 or sha512"}]}
    "#);
    assert_snapshot!(app.get(&format!("POST /v2/a/blobs/{}", digest(""))).await.shown(), @r#"
    405 Method Not Allowed
    allow: GET, HEAD, DELETE
    content-length: 101
    content-type: application/json

    {"errors":[{"code":"UNSUPPORTED","message":"POST is not possible here: expected GET, HEAD, DELETE"}]}
    "#);
}

#[tokio::test]
async fn what_a_client_has_already_is_not_sent_again() {
    let app = TestApp::new().await;
    let digest = app.blob("a", b"0123456789").await;
    let tag = format!("\"{digest}\"");
    let get = format!("GET /v2/a/blobs/{digest}");
    for known in [tag.clone(), format!("\"x\", W/{tag}"), "*".to_owned()] {
        for line in [get.clone(), format!("HEAD /v2/a/blobs/{digest}")] {
            let answer = app.send(&line, &[("if-none-match", &known)], "").await;
            assert_eq!((answer.status.as_u16(), answer.header("etag"), answer.body.len()), (304, &*tag, 0), "{known}");
        }
    }
    assert_eq!(app.send(&get, &[("if-none-match", "\"x\"")], "").await.status, 200);
    // A blob that is not there is not there, whatever the client has.
    let absent = format!("GET /v2/b/blobs/{digest}");
    assert_eq!(app.send(&absent, &[("if-none-match", "*")], "").await.status, 404);
    for (tag, part) in [(&*tag, "23"), ("\"x\"", "0123456789")] {
        let answer = app.send(&get, &[("range", "bytes=2-3"), ("if-range", tag)], "").await;
        assert_eq!(String::from_utf8(answer.body).unwrap(), part);
    }
}
