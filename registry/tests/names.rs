//! Lists: tags (`end-8`), the catalog, and the paths that are about the registry itself.

use insta::assert_snapshot;

use crate::app::TestApp;

#[tokio::test]
async fn tags_in_pages() {
    let app = TestApp::new().await;
    for tag in ["b", "a", "a-1", "a.2", "B", "c"] {
        app.pushed_image("r", tag).await;
    }
    assert_snapshot!(app.get("GET /v2/r/tags/list").await.shown(), @r#"
    200 OK
    content-length: 49
    content-type: application/json

    {"name":"r","tags":["B","a","a-1","a.2","b","c"]}
    "#);
    assert_snapshot!(app.get("GET /v2/r/tags/list?n=2").await.shown(), @r#"
    200 OK
    content-length: 29
    content-type: application/json
    link: </v2/r/tags/list?n=2&last=a>; rel="next"

    {"name":"r","tags":["B","a"]}
    "#);
    let mut target = "/v2/r/tags/list?n=4".to_owned();
    let mut pages = Vec::new();
    while !target.is_empty() {
        let page = app.get(&format!("GET {target}")).await;
        let link = page.header("link");
        target = link.strip_prefix('<').and_then(|link| link.split('>').next()).unwrap_or_default().to_owned();
        pages.push(String::from_utf8(page.body).unwrap());
    }
    assert_snapshot!(pages.join("\n"), @r#"
    {"name":"r","tags":["B","a","a-1","a.2"]}
    {"name":"r","tags":["b","c"]}
    "#);
    assert_snapshot!(app.get("GET /v2/r/tags/list?n=0").await.shown(), @r#"
    200 OK
    content-length: 22
    content-type: application/json

    {"name":"r","tags":[]}
    "#);
    assert_snapshot!(app.get("GET /v2/r/tags/list?n=-1").await.shown(), @r#"
    400 Bad Request
    content-length: 109
    content-type: application/json

    {"errors":[{"code":"UNSUPPORTED","message":"the parameter `n` is `-1`: expected a whole number, 0 or more"}]}
    "#);
    // What `last` names need not be there.
    assert_eq!(app.get("GET /v2/r/tags/list?last=a-0").await.body, br#"{"name":"r","tags":["a-1","a.2","b","c"]}"#);
}

#[tokio::test]
async fn tags_of_a_repository_that_is_not_there() {
    let app = TestApp::new().await;
    assert_snapshot!(app.get("GET /v2/none/tags/list").await.shown(), @r#"
    404 Not Found
    content-length: 76
    content-type: application/json

    {"errors":[{"code":"NAME_UNKNOWN","message":"there is no repository none"}]}
    "#);
}

#[tokio::test]
async fn the_catalog_in_pages() {
    let app = TestApp::new().await;
    for repo in ["b", "a/b", "a", "a-b"] {
        app.pushed_image(repo, "t").await;
    }
    app.blob("blobs/only", b"x").await;
    assert_snapshot!(app.get("GET /v2/_catalog").await.shown(), @r#"
    200 OK
    content-length: 38
    content-type: application/json

    {"repositories":["a","a-b","a/b","b"]}
    "#);
    assert_snapshot!(app.get("GET /v2/_catalog?n=2").await.shown(), @r#"
    200 OK
    content-length: 28
    content-type: application/json
    link: </v2/_catalog?n=2&last=a-b>; rel="next"

    {"repositories":["a","a-b"]}
    "#);
    assert_eq!(app.get("GET /v2/_catalog?n=2&last=a-b").await.body, br#"{"repositories":["a/b","b"]}"#);
    // One whose last manifest went is left out.
    let (_, digest) = app.pushed_image("b", "t").await;
    app.get(&format!("DELETE /v2/b/manifests/{digest}")).await;
    assert_eq!(app.get("GET /v2/_catalog?last=a").await.body, br#"{"repositories":["a-b","a/b"]}"#);
}

#[tokio::test]
async fn about_the_registry_itself() {
    let app = TestApp::new().await;
    let base = app.get("GET /v2/").await;
    assert_eq!(base.header("docker-distribution-api-version"), "registry/2.0");
    assert_snapshot!(base.shown(), @r#"
    200 OK
    content-length: 2
    content-type: application/json

    {}
    "#);
    assert_snapshot!(app.get("GET /").await.shown(), @r#"
    200 OK
    content-length: 89
    content-type: text/plain; charset=utf-8

    fluyt-registry: an OCI registry. Its API is below /v2/ (OCI distribution specification).
    "#);
    assert_snapshot!(app.get("GET /healthz").await.shown(), @r#"
    200 OK
    content-length: 6
    content-type: text/plain; charset=utf-8

    alive
    "#);
    assert_snapshot!(app.get("GET /readyz").await.shown(), @r#"
    200 OK
    content-length: 6
    content-type: text/plain; charset=utf-8

    ready
    "#);
    assert_snapshot!(app.get("GET /favicon.ico").await.shown(), @r#"
    404 Not Found
    content-length: 151
    content-type: application/json

    {"errors":[{"code":"UNSUPPORTED","message":"there is no such path here: a registry's are /v2/ and what the distribution specification puts below it"}]}
    "#);
}

#[tokio::test]
async fn the_head_of_a_list_and_what_may_be_asked() {
    let app = TestApp::new().await;
    app.pushed_image("r", "t").await;
    let listed = app.get("GET /v2/r/tags/list").await;
    let head = app.get("HEAD /v2/r/tags/list").await;
    assert_eq!((head.status, head.header("content-length")), (listed.status, listed.header("content-length")));
    assert!(head.body.is_empty());
    assert_eq!(app.get("HEAD /v2/_catalog").await.status, 200);
    assert_snapshot!(app.get("OPTIONS /v2/r/manifests/t").await.shown(), @r#"
    204 No Content
    allow: GET, HEAD, PUT, DELETE
    content-length: 0
    "#);
}

/// A client that goes through a proxy names the registry that it means.
#[tokio::test]
async fn the_parameter_of_proxies_changes_nothing() {
    let app = TestApp::new().await;
    let (manifest, _) = app.pushed_image("r", "t").await;
    assert_eq!(app.get("GET /v2/r/manifests/t?ns=docker.io").await.body, manifest.as_bytes());
    let layer = crate::app::digest("layer");
    assert_eq!(app.get(&format!("GET /v2/r/blobs/{layer}?ns=docker.io")).await.body, b"layer");
    assert_eq!(app.get("GET /v2/r/tags/list?ns=docker.io").await.status, 200);
}
