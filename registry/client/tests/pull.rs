//! Manifests, blobs and tags, from a registry that does well and one that does not.

use std::sync::Mutex;

use fluyt_client::{Blob, Client, ClientError};

use crate::fixture::{Options, Registry, Trouble, client, sample};

const MANIFEST: &str = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","layers":[]}"#;
const TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

async fn fetch(client: &Client, registry: &Registry, blob: &Blob) -> Result<Vec<u8>, ClientError> {
    let mut sink = Vec::new();
    client.blob(&registry.reference("a/b"), blob, &mut sink, &|_| ()).await.map(|()| sink)
}

#[tokio::test]
async fn a_manifest_is_fetched_and_checked() {
    let registry = Registry::start(Options::default()).await;
    let digest = registry.add_manifest("a/b", "1", TYPE, MANIFEST);
    let client = client();
    let manifest = client.manifest(&registry.reference("a/b:1"), &[]).await.unwrap();
    assert_eq!((manifest.bytes.as_ref(), manifest.media_type.as_str()), (MANIFEST.as_bytes(), TYPE));
    assert_eq!(manifest.digest.to_string(), digest);
    let by_digest = client.manifest(&registry.reference(&format!("a/b@{digest}")), &[]).await.unwrap();
    assert_eq!(by_digest, manifest);
    let resolved = client.resolve(&registry.reference("a/b:1")).await.unwrap();
    assert_eq!((resolved.digest.to_string(), resolved.size_bytes), (digest, MANIFEST.len() as u64));
    assert!(client.has_manifest(&registry.reference("a/b:1")).await.unwrap());
    assert!(!client.has_manifest(&registry.reference("a/b:2")).await.unwrap());
}

#[tokio::test]
async fn a_blob_is_fetched() {
    let registry = Registry::start(Options::default()).await;
    let content = sample(3_000_000, 1);
    let blob = registry.add_blob("a/b", &content);
    let told = Mutex::new(Vec::new());
    let mut sink = Vec::new();
    client()
        .blob(&registry.reference("a/b"), &blob, &mut sink, &|bytes| told.lock().unwrap().push(bytes))
        .await
        .unwrap();
    assert!(sink == content);
    let told = told.into_inner().unwrap();
    assert!(told.is_sorted() && told.last() == Some(&3_000_000), "{told:?}");
    assert!(fetch(&client(), &registry, &registry.add_blob("a/b", b"")).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_cut_download_goes_on_where_it_broke() {
    let registry = Registry::start(Options::default()).await;
    let content = sample(2_000_000, 2);
    let blob = registry.add_blob("a/b", &content);
    registry.trouble("GET", "/blobs/", 1, Trouble::CutAnswer(700_000));
    registry.trouble("GET", "/blobs/", 1, Trouble::EndEarly(600_000));
    assert!(fetch(&client(), &registry, &blob).await.unwrap() == content);
    insta::assert_snapshot!(registry.log(), @r"
    GET /v2/a/b/blobs/DIGEST
    GET /v2/a/b/blobs/DIGEST range=bytes=700000-
    GET /v2/a/b/blobs/DIGEST range=bytes=1300000-
    ");
}
