//! Manifests and tags: `end-3`, `end-7`, `end-9`.

use fluyt_registry::spec::{Algorithm, Digest};
use insta::assert_snapshot;

use crate::app::{INDEX, MANIFEST, TestApp, digest, image};

#[tokio::test]
async fn an_image_comes_back_as_it_was_pushed() {
    let app = TestApp::new().await;
    let (manifest, digest) = app.pushed_image("a/b", "latest").await;
    for reference in ["latest".to_owned(), digest.to_string()] {
        let got = app.get(&format!("GET /v2/a/b/manifests/{reference}")).await;
        assert_eq!(String::from_utf8(got.body).unwrap(), manifest);
        assert_eq!(got.headers["docker-content-digest"], digest.to_string());
    }
    assert_snapshot!(app.get("HEAD /v2/a/b/manifests/latest").await.shown(), @r#"
    200 OK
    content-length: 340
    content-type: application/vnd.oci.image.manifest.v1+json
    docker-content-digest: sha256:bfc62cb8d7ab22f975e3aec3f1d15ef6336f06b789f58b748d3cdfecdbca5f54
    "#);
    let again = app.put("a/b", "latest", MANIFEST, &manifest).await;
    assert_snapshot!(again.shown(), @r#"
    201 Created
    content-length: 0
    docker-content-digest: sha256:bfc62cb8d7ab22f975e3aec3f1d15ef6336f06b789f58b748d3cdfecdbca5f54
    location: /v2/a/b/manifests/sha256:bfc62cb8d7ab22f975e3aec3f1d15ef6336f06b789f58b748d3cdfecdbca5f54
    "#);
}

#[tokio::test]
async fn what_a_push_leaves_in_the_store() {
    let app = TestApp::new().await;
    app.pushed_image("a/b", "v1").await;
    assert_snapshot!(app.keys().await.join("\n"), @r#"
    catalog/a/b!
    data/44/sha256-44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a-000000040000000000000000
    data/da/sha256-dac1d7cfa95021764849fd102524e141488c5e3a90f861dbb5a12d9ac8584f85-000000090000000000000000
    links/sha256/44/44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a/c14cddc033f64b9dea80ea675cf280a0.sha256-44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a-000000040000000000000000.2.000000050000000000000000
    links/sha256/da/dac1d7cfa95021764849fd102524e141488c5e3a90f861dbb5a12d9ac8584f85/c14cddc033f64b9dea80ea675cf280a0.sha256-dac1d7cfa95021764849fd102524e141488c5e3a90f861dbb5a12d9ac8584f85-000000090000000000000000.5.0000000a0000000000000000
    repos/a/b/_blobs/sha256/44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a/000000050000000000000000g1
    repos/a/b/_blobs/sha256/dac1d7cfa95021764849fd102524e141488c5e3a90f861dbb5a12d9ac8584f85/0000000a0000000000000000g1
    repos/a/b/_history/v1/0000000000000001.0000000b0000000000000000g3.sha256.bfc62cb8d7ab22f975e3aec3f1d15ef6336f06b789f58b748d3cdfecdbca5f54.0000000b0000000000000000
    repos/a/b/_manifests/sha256/bfc62cb8d7ab22f975e3aec3f1d15ef6336f06b789f58b748d3cdfecdbca5f54/0000000b0000000000000000
    repos/a/b/_tags/v1!/0000000000000001.0000000b0000000000000000g3.sha256.bfc62cb8d7ab22f975e3aec3f1d15ef6336f06b789f58b748d3cdfecdbca5f54.0000000b0000000000000000
    store.json.1.73c60ea1f53929ed92251291
    upload-key.1.73c60ea1f53929ed92251291
    "#);
}

#[tokio::test]
async fn a_tag_moves_and_its_history_stays() {
    let app = TestApp::new().await;
    app.pushed_image("a", "t").await;
    let second = image(&[b"{}", b"layer"], r#","annotations":{"n":"2"}"#);
    assert_eq!(app.put("a", "t", MANIFEST, &second).await.status, 201);
    assert_eq!(app.get("GET /v2/a/manifests/t").await.body, second.as_bytes());
    let keys = app.keys().await;
    let count = |part: &str| keys.iter().filter(|key| key.contains(part)).count();
    assert_eq!((count("/_tags/"), count("/_history/")), (1, 2));
}

#[tokio::test]
async fn a_manifest_that_names_an_absent_blob() {
    let app = TestApp::new().await;
    app.blob("a", b"{}").await;
    let before = app.keys().await;
    assert_snapshot!(app.put("a", "t", MANIFEST, &image(&[b"{}", b"absent"], "")).await.shown(), @r#"
    400 Bad Request
    content-length: 204
    content-type: application/json

    {"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","message":"the manifest names content that repository a does not have: sha256:5ad38304b535c2987dbd24657c1a11b884984ff600d9f389deb0d4e634fee792: push it first"}]}
    "#);
    assert_eq!(app.keys().await, before);
    assert_eq!(app.get("GET /v2/a/manifests/t").await.status, 404);
}

#[tokio::test]
async fn an_index_may_come_before_its_manifests() {
    let app = TestApp::new().await;
    let absent = digest("absent");
    let index = format!(
        r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{{"mediaType":"{MANIFEST}","digest":"{absent}","size":1}}]}}"#
    );
    assert_eq!(app.put("a", "t", INDEX, &index).await.status, 201);
    assert_eq!(app.get("GET /v2/a/manifests/t").await.body, index.as_bytes());
}

#[tokio::test]
async fn by_digest_with_tags_of_its_own() {
    let app = TestApp::new().await;
    let (manifest, digest) = app.pushed_image("a", "t").await;
    let tags: Vec<String> = (0..12).map(|n| format!("tag=v{n}")).collect();
    let answer = app.put("a", &format!("{digest}?{}", tags.join("&")), MANIFEST, &manifest).await;
    assert_snapshot!(answer.shown(), @r#"
    201 Created
    content-length: 0
    docker-content-digest: sha256:bfc62cb8d7ab22f975e3aec3f1d15ef6336f06b789f58b748d3cdfecdbca5f54
    location: /v2/a/manifests/sha256:bfc62cb8d7ab22f975e3aec3f1d15ef6336f06b789f58b748d3cdfecdbca5f54
    oci-tag: v0
    oci-tag: v1
    oci-tag: v10
    oci-tag: v11
    oci-tag: v2
    oci-tag: v3
    oci-tag: v4
    oci-tag: v5
    oci-tag: v6
    oci-tag: v7
    oci-tag: v8
    oci-tag: v9
    "#);
    assert_eq!(app.get("GET /v2/a/manifests/v11").await.body, manifest.as_bytes());
    let many: Vec<String> = (0..101).map(|n| format!("tag=v{n}")).collect();
    let answer = app.put("a", &format!("{digest}?{}", many.join("&")), MANIFEST, &manifest).await;
    assert_snapshot!(answer.shown(), @r#"
    414 URI Too Long
    content-length: 104
    content-type: application/json

    {"errors":[{"code":"UNSUPPORTED","message":"the request names 101 tags: expected at most 100 at once"}]}
    "#);
}

#[tokio::test]
async fn sha512() {
    let app = TestApp::new().await;
    let (manifest, _) = app.pushed_image("a", "t").await;
    let wide = Digest::of(Algorithm::Sha512, manifest.as_bytes());
    assert_eq!(app.put("a", &wide.to_string(), MANIFEST, &manifest).await.status, 201);
    assert_eq!(app.get(&format!("GET /v2/a/manifests/{wide}")).await.header("docker-content-digest"), wide.to_string());
    let answer = app.put("a", "u?digest-algorithm=sha512", MANIFEST, &manifest).await;
    assert_eq!(answer.header("docker-content-digest"), wide.to_string());
}

#[tokio::test]
async fn a_deleted_tag_leaves_the_manifest() {
    let app = TestApp::new().await;
    let (_, digest) = app.pushed_image("a", "t").await;
    assert_snapshot!(app.get("DELETE /v2/a/manifests/t").await.shown(), @r#"
    202 Accepted
    content-length: 0
    "#);
    assert_snapshot!(app.get("DELETE /v2/a/manifests/t").await.shown(), @r#"
    404 Not Found
    content-length: 83
    content-type: application/json

    {"errors":[{"code":"MANIFEST_UNKNOWN","message":"repository a has no manifest t"}]}
    "#);
    assert_eq!(app.get("GET /v2/a/manifests/t").await.status, 404);
    assert_eq!(app.get(&format!("GET /v2/a/manifests/{digest}")).await.status, 200);
    app.pushed_image("a", "t").await;
    assert_eq!(app.get("GET /v2/a/manifests/t").await.status, 200);
}

#[tokio::test]
async fn a_deleted_manifest_takes_its_tags_along() {
    let app = TestApp::new().await;
    let (_, first) = app.pushed_image("a", "t").await;
    app.pushed_image("a", "u").await;
    let second = image(&[b"{}", b"layer"], r#","annotations":{"n":"2"}"#);
    app.put("a", "u", MANIFEST, &second).await;
    assert_eq!(app.get(&format!("DELETE /v2/a/manifests/{first}")).await.status, 202);
    assert_snapshot!(app.get(&format!("DELETE /v2/a/manifests/{first}")).await.shown(), @r#"
    404 Not Found
    content-length: 153
    content-type: application/json

    {"errors":[{"code":"MANIFEST_UNKNOWN","message":"repository a has no manifest sha256:bfc62cb8d7ab22f975e3aec3f1d15ef6336f06b789f58b748d3cdfecdbca5f54"}]}
    "#);
    assert_eq!(app.get("GET /v2/a/manifests/t").await.status, 404);
    assert_eq!(app.get("GET /v2/a/manifests/u").await.body, second.as_bytes());
    assert_eq!(app.get("GET /v2/a/tags/list").await.body, br#"{"name":"a","tags":["u"]}"#);
}

#[tokio::test]
async fn what_is_no_manifest() {
    let app = TestApp::new().await;
    let refused = async |reference: &str, media_type: &str, body: &str| {
        let answer = app.put("a", reference, media_type, body).await;
        format!("{} {}", answer.status.as_u16(), String::from_utf8(answer.body).unwrap())
    };
    assert_snapshot!(refused("t", MANIFEST, "{not json").await, @r#"400 {"errors":[{"code":"MANIFEST_INVALID","message":"the manifest is not valid: key must be a string at line 1 column 2"}]}"#);
    assert_snapshot!(refused("t", MANIFEST, r#"{"schemaVersion":2}"#).await, @r#"400 {"errors":[{"code":"MANIFEST_INVALID","message":"a manifest of type `application/vnd.oci.image.manifest.v1+json` must have `config`"}]}"#);
    assert_snapshot!(refused("t", "text/html", r#"{"schemaVersion":2}"#).await, @r#"400 {"errors":[{"code":"MANIFEST_INVALID","message":"manifests of type `text/html` are not accepted: expected an OCI image manifest or index, or a Docker schema 2 manifest or list"}]}"#);
    assert_snapshot!(refused("t", "application/vnd.docker.distribution.manifest.v1+json", "{}").await, @r#"400 {"errors":[{"code":"MANIFEST_INVALID","message":"Docker schema 1 manifests are not accepted: push it again with a client of this decade"}]}"#);
    assert_snapshot!(refused(&digest("other").to_string(), MANIFEST, "{}").await, @r#"400 {"errors":[{"code":"DIGEST_INVALID","message":"the content hashes to sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a, not to the declared sha256:d9298a10d1b0735837dc4bd85dac641b0f3cef27a47e5d53a54f2f3f5b2fcffa"}]}"#);
    assert_snapshot!(refused("sha256:abc", MANIFEST, "{}").await, @r#"400 {"errors":[{"code":"DIGEST_INVALID","message":"`sha256:abc` is not a sha256 digest: expected 64 lower-case hex digits after the colon"}]}"#);
    assert_snapshot!(refused("-t", MANIFEST, "{}").await, @r#"400 {"errors":[{"code":"NAME_INVALID","message":"`-t` is not a tag: expected a letter, digit or `_`, then at most 127 letters, digits, `.`, `_` or `-`"}]}"#);
    assert_eq!(app.get("GET /v2/a/manifests/-t").await.status, 404);
}

#[tokio::test]
async fn a_manifest_that_is_too_large() {
    let app = TestApp::new().await;
    let large = " ".repeat(8 * 1024 * 1024 + 1);
    assert_snapshot!(app.put("a", "t", MANIFEST, &large).await.shown(), @r#"
    413 Payload Too Large
    content-length: 127
    content-type: application/json

    {"errors":[{"code":"MANIFEST_INVALID","message":"the manifest is too large: 8388609 bytes or more, expected at most 8388608"}]}
    "#);
    // Just large enough is read, and refused for what it says.
    assert_eq!(app.put("a", "t", MANIFEST, &large[1..]).await.status, 400);
    // Announced: refused before it comes.
    let answer = app.send("PUT /v2/a/manifests/t", &[("content-length", "99999999999")], "").await;
    assert_eq!(answer.status, 413);
}

#[tokio::test]
async fn names_that_are_none() {
    let app = TestApp::new().await;
    let long = format!("GET /v2/{}/tags/list", "a/".repeat(130) + "a");
    assert_snapshot!(app.get("GET /v2/UPPER/tags/list").await.shown(), @r#"
    400 Bad Request
    content-length: 179
    content-type: application/json

    {"errors":[{"code":"NAME_INVALID","message":"`UPPER` is not a repository name: expected lower-case letters and digits, joined by `.`, `_`, `__` or `-`, in parts divided by `/`"}]}
    "#);
    assert_snapshot!(app.get(&long).await.shown(), @r#"
    400 Bad Request
    content-length: 147
    content-type: application/json

    {"errors":[{"code":"NAME_INVALID","message":"the repository name is too long: 261 characters, expected at most 255, and 200 between two slashes"}]}
    "#);
    assert_snapshot!(app.get("GET /v2/a/nothing/here").await.shown(), @r#"
    404 Not Found
    content-length: 151
    content-type: application/json

    {"errors":[{"code":"UNSUPPORTED","message":"there is no such path here: a registry's are /v2/ and what the distribution specification puts below it"}]}
    "#);
    assert_snapshot!(app.get("DELETE /v2/").await.shown(), @r#"
    405 Method Not Allowed
    allow: GET, HEAD
    content-length: 95
    content-type: application/json

    {"errors":[{"code":"UNSUPPORTED","message":"DELETE is not possible here: expected GET, HEAD"}]}
    "#);
}
