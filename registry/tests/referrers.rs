//! Referrers (`end-12`), and what a client without that list kept under the fallback tag.

use fluyt_registry::spec::Digest;
use insta::assert_snapshot;
use object_store::ObjectStoreExt;

use crate::app::{Answer, INDEX, MANIFEST, TestApp, digest, image};

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

fn referring_to(subject: &Digest, kind: &str) -> String {
    let subject = format!(r#"{{"mediaType":"{MANIFEST}","digest":"{subject}","size":1}}"#);
    image(&[b"{}"], &format!(r#","artifactType":"{kind}","subject":{subject}"#))
}

/// Puts a manifest and takes away what the push noted about its subject, as content is that came by another way.
async fn put_unnoted(app: &TestApp, manifest: &str) -> Digest {
    let digest = digest(manifest);
    assert_eq!(app.put("r", &digest.to_string(), MANIFEST, manifest).await.status, 201);
    for key in app.keys().await.iter().filter(|key| key.contains("/_referrers/") && key.contains(digest.hex())) {
        app.store().delete(&object_store::path::Path::from(key.as_str())).await.unwrap();
    }
    digest
}

fn index_of(digests: &[&Digest]) -> String {
    let entries: Vec<String> =
        digests.iter().map(|d| format!(r#"{{"mediaType":"{MANIFEST}","digest":"{d}","size":1}}"#)).collect();
    format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{}]}}"#, entries.join(","))
}

fn listed(answer: &Answer) -> Vec<String> {
    let list: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    let digest = |one: &serde_json::Value| one["digest"].as_str().unwrap().to_owned();
    list["manifests"].as_array().unwrap().iter().map(digest).collect()
}

#[tokio::test]
async fn what_is_listed_under_the_fallback_tag_is_listed() {
    let app = TestApp::new().await;
    let (_, subject) = app.pushed_image("r", "t").await;
    let (old, new) = (referring_to(&subject, "application/old"), referring_to(&subject, "application/new"));
    let old_digest = put_unnoted(&app, &old).await;
    assert_eq!(app.put("r", "new", MANIFEST, &new).await.status, 201);
    let line = format!("GET /v2/r/referrers/{subject}");
    assert_eq!(listed(&app.get(&line).await), [digest(&new).to_string()]);

    // One that refers to something else, one that is not here, one that is known already, and the old one.
    let (other, absent) = (referring_to(&digest("other"), "application/other"), digest("absent"));
    let other = put_unnoted(&app, &other).await;
    let tag = format!("sha256-{}", subject.hex());
    let index = index_of(&[&other, &absent, &digest(&new), &old_digest]);
    assert_eq!(app.put("r", &tag, INDEX, &index).await.status, 201);
    let mut both = [digest(&new).to_string(), old_digest.to_string()];
    both.sort();
    let answer = app.get(&line).await;
    assert_eq!(listed(&answer), both);
    assert!(String::from_utf8(answer.body).unwrap().contains(r#""artifactType":"application/old""#));
    let filtered = app.get(&format!("{line}?artifactType=application/old")).await;
    assert_eq!(listed(&filtered), [old_digest.to_string()]);

    // Gone is gone, whatever the client's index still says.
    assert_eq!(app.get(&format!("DELETE /v2/r/manifests/{old_digest}")).await.status, 202);
    assert_eq!(listed(&app.get(&line).await), [digest(&new).to_string()]);
    // And an index without entries takes nothing from what was pushed with a subject.
    assert_eq!(app.put("r", &tag, INDEX, &index_of(&[])).await.status, 201);
    assert_eq!(listed(&app.get(&line).await), [digest(&new).to_string()]);
}

#[tokio::test]
async fn something_else_under_the_fallback_tag_lists_nothing() {
    let app = TestApp::new().await;
    let (manifest, subject) = app.pushed_image("r", "t").await;
    assert_eq!(app.put("r", &format!("sha256-{}", subject.hex()), MANIFEST, &manifest).await.status, 201);
    let answer = app.get(&format!("GET /v2/r/referrers/{subject}")).await;
    assert_eq!((answer.status.as_u16(), listed(&answer).len()), (200, 0));
}

/// Clients read no more than a manifest's worth of a list.
#[tokio::test]
async fn many_bytes_of_referrers_come_in_pages() {
    let app = TestApp::new().await;
    let (_, subject) = app.pushed_image("r", "t").await;
    let mut pushed = Vec::new();
    for number in 0..4 {
        let text = "x".repeat(1024 * 1024);
        let subject = format!(r#"{{"mediaType":"{MANIFEST}","digest":"{subject}","size":1}}"#);
        let more = format!(r#","subject":{subject},"annotations":{{"{number}":"{text}"}}"#);
        let manifest = image(&[b"{}"], &more);
        assert_eq!(app.put("r", &format!("n{number}"), MANIFEST, &manifest).await.status, 201);
        pushed.push(digest(&manifest).to_string());
    }
    pushed.sort();
    let (mut found, mut pages) = (Vec::new(), 0);
    let mut target = format!("/v2/r/referrers/{subject}?artifactType=application/x");
    while !target.is_empty() {
        let page = app.get(&format!("GET {target}")).await;
        assert_eq!(page.header("oci-filters-applied"), "artifactType");
        assert!(page.body.len() < 4 * 1024 * 1024, "{}", page.body.len());
        found.extend(listed(&page));
        pages += 1;
        let link = page.header("link");
        target = link.strip_prefix('<').and_then(|link| link.split('>').next()).unwrap_or_default().to_owned();
    }
    assert_eq!((found, pages), (pushed, 2));
}
