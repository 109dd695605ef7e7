//! Sparse images and indexes: what may be absent, and what may not.

use fluyt_registry::service::SparsePolicy;
use insta::assert_snapshot;

use crate::app::{INDEX, MANIFEST, TestApp, digest, image};

#[tokio::test]
async fn an_image_without_a_layer_that_was_never_here() {
    let app = TestApp::new().await;
    app.blob("a", b"{}").await;
    app.blob("a", b"layer").await;
    let manifest = image(&[b"{}", b"layer", b"absent"], "");
    assert_snapshot!(app.put("a", "t", MANIFEST, &manifest).await.shown(), @r#"
    201 Created
    content-length: 0
    docker-content-digest: sha256:2970522eb7be57188c2bee296161f1245ef3b3d3c3bc2168f1755e10599fd343
    location: /v2/a/manifests/sha256:2970522eb7be57188c2bee296161f1245ef3b3d3c3bc2168f1755e10599fd343
    warning: 299 - "sparse image: the repository does not have sha256:5ad38304b535c2987dbd24657c1a11b884984ff600d9f389deb0d4e634fee792"
    "#);
    assert_eq!(app.get("GET /v2/a/manifests/t").await.body, manifest.as_bytes());
    assert_eq!(app.get(&format!("GET /v2/a/blobs/{}", digest("absent"))).await.status, 404);

    // Whole by now: a push says nothing any more.
    app.blob("a", b"absent").await;
    let answer = app.put("a", "t", MANIFEST, &manifest).await;
    assert_eq!((answer.status.as_u16(), answer.header("warning")), (201, ""));
}

/// A client that was told that a blob is there relies on it.
#[tokio::test]
async fn an_image_without_a_layer_that_was_here() {
    let app = TestApp::new().await;
    for blob in ["{}", "layer", "gone"] {
        app.blob("a", blob.as_bytes()).await;
    }
    assert_eq!(app.get(&format!("DELETE /v2/a/blobs/{}", digest("gone"))).await.status, 202);
    let before = app.keys().await;
    let manifest = image(&[b"{}", b"layer", b"gone"], "");
    let answer = app.put("a", "t", MANIFEST, &manifest).await;
    assert_eq!(answer.status, 400);
    let body = String::from_utf8(answer.body).unwrap();
    assert!(body.contains("MANIFEST_BLOB_UNKNOWN") && body.contains(digest("gone").hex()), "{body}");
    assert_eq!(app.keys().await, before);
    // Nobody was told so of the same blob in another repository.
    app.blob("b", b"{}").await;
    app.blob("b", b"layer").await;
    assert_eq!(app.put("b", "t", MANIFEST, &manifest).await.status, 201);
}

#[tokio::test]
async fn an_image_without_its_config_or_any_layer() {
    let app = TestApp::new().await;
    app.blob("a", b"layer").await;
    let without_config = image(&[b"{}", b"layer"], "");
    assert_eq!(app.put("a", "t", MANIFEST, &without_config).await.status, 400);
    app.blob("b", b"{}").await;
    assert_eq!(app.put("b", "t", MANIFEST, &image(&[b"{}", b"absent"], "")).await.status, 400);
    assert_eq!(app.put("b", "t", MANIFEST, &image(&[b"{}", b"absent", b"absent too"], "")).await.status, 400);
    // The config may be a layer as well, as artifacts have it.
    assert_eq!(app.put("b", "t", MANIFEST, &image(&[b"{}", b"{}", b"absent"], "")).await.status, 201);
}

#[tokio::test]
async fn what_other_policies_take() {
    let absent_child = format!(
        r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{{"mediaType":"{MANIFEST}","digest":"{}","size":1}}]}}"#,
        digest("absent")
    );
    let sparse_image = image(&[b"{}", b"layer", b"absent"], "");
    for (policy, of_image, of_index) in
        [(SparsePolicy::Images, 201, 201), (SparsePolicy::Indexes, 400, 201), (SparsePolicy::Refuse, 400, 400)]
    {
        let app = TestApp::with_sparse(policy).await;
        let (_, whole) = app.pushed_image("a", "whole").await;
        assert_eq!(app.put("a", "t", MANIFEST, &sparse_image).await.status, of_image, "{policy:?}");
        let answer = app.put("a", "i", INDEX, &absent_child).await;
        assert_eq!(answer.status, of_index, "{policy:?}");
        if of_index == 400 {
            let body = String::from_utf8(answer.body).unwrap();
            assert!(body.contains("MANIFEST_BLOB_UNKNOWN") && body.contains(digest("absent").hex()), "{body}");
        }
        let index = absent_child.replace(digest("absent").hex(), whole.hex());
        assert_eq!(app.put("a", "i", INDEX, &index).await.status, 201, "{policy:?}");
    }
}

/// Caches of build tools are indexes that list their layers: whoever was told that one is there relies on it.
#[tokio::test]
async fn an_index_that_lists_a_blob_that_was_here() {
    let index = |blobs: &[&str]| {
        let listed = blobs.iter().map(|blob| {
            let (digest, size) = (digest(blob), blob.len());
            format!(
                r#"{{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"{digest}","size":{size}}}"#
            )
        });
        let listed: Vec<String> = listed.collect();
        format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{}]}}"#, listed.join(","))
    };
    for policy in [SparsePolicy::Images, SparsePolicy::Indexes] {
        let app = TestApp::with_sparse(policy).await;
        for blob in ["kept", "gone"] {
            app.blob("a", blob.as_bytes()).await;
        }
        assert_eq!(app.put("a", "whole", INDEX, &index(&["kept", "gone"])).await.status, 201);
        // One that was never here is as any manifest that is not.
        let answer = app.put("a", "sparse", INDEX, &index(&["kept", "never"])).await;
        assert_eq!(answer.status, 201, "{}", answer.shown());
        assert!(answer.header("warning").contains(digest("never").hex()), "{}", answer.shown());
        assert_eq!(app.get(&format!("DELETE /v2/a/blobs/{}", digest("gone"))).await.status, 202);
        let answer = app.put("a", "again", INDEX, &index(&["kept", "gone"])).await;
        assert_eq!(answer.status, 400, "{}", answer.shown());
        assert!(answer.shown().contains("MANIFEST_BLOB_UNKNOWN"), "{}", answer.shown());
    }
    let app = TestApp::with_sparse(SparsePolicy::Refuse).await;
    app.blob("a", b"kept").await;
    assert_eq!(app.put("a", "whole", INDEX, &index(&["kept"])).await.status, 201);
    assert_eq!(app.put("a", "sparse", INDEX, &index(&["kept", "never"])).await.status, 400);
}
