//! Lists: tags (`end-8`), referrers (`end-12`), the catalog, and the paths that are about the registry itself.

use insta::assert_snapshot;

use crate::app::{INDEX, MANIFEST, TestApp, digest, image};

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
async fn referrers() {
    let app = TestApp::new().await;
    let (_, subject) = app.pushed_image("r", "t").await;
    let refers = |kind: &str| {
        let subject = format!(r#"{{"mediaType":"{MANIFEST}","digest":"{subject}","size":1}}"#);
        let more = format!(r#","artifactType":"{kind}","subject":{subject},"annotations":{{"k":"{kind}"}}"#);
        image(&[b"{}"], &more)
    };
    let first = refers("application/sig");
    assert_snapshot!(app.put("r", &digest(&first).to_string(), MANIFEST, &first).await.shown(), @r#"
    201 Created
    content-length: 0
    docker-content-digest: sha256:63e190b1581bb01dad031cfb06f0ee2b6a3a1e3ca0473dccc698a44962d34f7c
    location: /v2/r/manifests/sha256:63e190b1581bb01dad031cfb06f0ee2b6a3a1e3ca0473dccc698a44962d34f7c
    oci-subject: sha256:bfc62cb8d7ab22f975e3aec3f1d15ef6336f06b789f58b748d3cdfecdbca5f54
    "#);
    // Twice the same is listed once.
    app.put("r", &digest(&first).to_string(), MANIFEST, &first).await;
    app.put("r", "sbom", MANIFEST, &refers("application/sbom+json")).await;
    assert_snapshot!(app.get(&format!("GET /v2/r/referrers/{subject}")).await.shown(), @r#"
    200 OK
    content-length: 547
    content-type: application/vnd.oci.image.index.v1+json

    {"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:17259f872b478f3d515b649df3874e7468424f417c6cabea7220dfd9e83bfa64","size":463,"artifactType":"application/sbom+json","annotations":{"k":"application/sbom+json"}},{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:63e190b1581bb01dad031cfb06f0ee2b6a3a1e3ca0473dccc698a44962d34f7c","size":451,"artifactType":"application/sig","annotations":{"k":"application/sig"}}]}
    "#);
    let line = format!("GET /v2/r/referrers/{subject}?artifactType=application/sbom%2Bjson");
    assert_snapshot!(app.get(&line).await.shown(), @r#"
    200 OK
    content-length: 323
    content-type: application/vnd.oci.image.index.v1+json
    oci-filters-applied: artifactType

    {"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:17259f872b478f3d515b649df3874e7468424f417c6cabea7220dfd9e83bfa64","size":463,"artifactType":"application/sbom+json","annotations":{"k":"application/sbom+json"}}]}
    "#);
    assert_eq!(app.get(&format!("DELETE /v2/r/manifests/{}", digest(&first))).await.status, 202);
    let left = app.get(&format!("GET /v2/r/referrers/{subject}")).await;
    assert!(!String::from_utf8(left.body).unwrap().contains("application/sig"));
}

#[tokio::test]
async fn an_index_refers_by_its_own_artifact_type_only() {
    let app = TestApp::new().await;
    let subject = digest("absent");
    let index = format!(
        r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[],"subject":{{"mediaType":"{MANIFEST}","digest":"{subject}","size":1}}}}"#
    );
    assert_eq!(app.put("r", "t", INDEX, &index).await.header("oci-subject"), subject.to_string());
    assert_snapshot!(app.get(&format!("GET /v2/r/referrers/{subject}")).await.shown(), @r#"
    200 OK
    content-length: 237
    content-type: application/vnd.oci.image.index.v1+json

    {"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"sha256:76307ebb89623430cab5cb5640f7aaed0b08ea5d24d696cbc26d9682e5eb78f9","size":249}]}
    "#);
}

#[tokio::test]
async fn nothing_refers() {
    let app = TestApp::new().await;
    assert_snapshot!(app.get(&format!("GET /v2/none/referrers/{}", digest("x"))).await.shown(), @r#"
    200 OK
    content-length: 88
    content-type: application/vnd.oci.image.index.v1+json

    {"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}
    "#);
    assert_eq!(app.get("GET /v2/none/referrers/latest").await.status, 400);
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
