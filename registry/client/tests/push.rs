//! Uploads, to a registry that takes them and one that does not at once.

use std::io::{self, Cursor};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use fluyt_client::{Client, ClientError, Pushed};

use crate::fixture::{Options, Registry, Trouble, blob_of, client, sample};

const TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

/// Opens content at an offset.
fn source(content: &[u8]) -> impl Fn(u64) -> io::Result<Cursor<Vec<u8>>> + Send + Sync {
    let content = content.to_vec();
    move |offset| Ok(Cursor::new(content[usize::try_from(offset).unwrap()..].to_vec()))
}

async fn push(
    client: &Client,
    registry: &Registry,
    content: &[u8],
    mount_from: &[String],
) -> Result<Pushed, ClientError> {
    client.push_blob(&registry.reference("a/b"), &blob_of(content), mount_from, source(content), &|_| ()).await
}

#[tokio::test]
async fn a_small_blob_goes_with_the_closing_request() {
    let registry = Registry::start(Options::default()).await;
    let content = sample(1000, 1);
    assert_eq!(push(&client(), &registry, &content, &[]).await.unwrap(), Pushed::Uploaded);
    insta::assert_snapshot!(registry.log(), @r"
    HEAD /v2/a/b/blobs/DIGEST
    POST /v2/a/b/blobs/uploads/
    PUT /v2/a/b/blobs/uploads/u1?state=opaque&digest=DIGEST
    ");
    assert_eq!(registry.blob("a/b", &blob_of(&content)).unwrap(), content);
    assert_eq!(push(&client(), &registry, &content, &[]).await.unwrap(), Pushed::Present);
    assert_eq!(registry.log(), "HEAD /v2/a/b/blobs/DIGEST");
}

#[tokio::test]
async fn a_large_blob_is_streamed() {
    for absolute_locations in [false, true] {
        let registry = Registry::start(Options { absolute_locations, ..Options::default() }).await;
        let content = sample(5_000_000, 2);
        let told = AtomicU64::new(0);
        let pushed = client()
            .push_blob(&registry.reference("a/b"), &blob_of(&content), &[], source(&content), &|bytes| {
                told.store(bytes, Ordering::Relaxed)
            })
            .await
            .unwrap();
        assert_eq!((pushed, told.into_inner()), (Pushed::Uploaded, 5_000_000));
        insta::allow_duplicates! {
            insta::assert_snapshot!(registry.log(), @r"
            HEAD /v2/a/b/blobs/DIGEST
            POST /v2/a/b/blobs/uploads/
            PATCH /v2/a/b/blobs/uploads/u1?state=opaque
            PUT /v2/a/b/blobs/uploads/u1?state=opaque&digest=DIGEST
            ");
        }
        assert!(registry.blob("a/b", &blob_of(&content)).unwrap() == content);
    }
}

#[tokio::test]
async fn a_cut_upload_goes_on_where_it_broke() {
    let registry = Registry::start(Options::default()).await;
    let content = sample(4_000_000, 3);
    registry.trouble("PATCH", "uploads", 1, Trouble::CutRequest(1_500_000));
    assert_eq!(push(&client(), &registry, &content, &[]).await.unwrap(), Pushed::Uploaded);
    insta::assert_snapshot!(registry.log(), @r"
    HEAD /v2/a/b/blobs/DIGEST
    POST /v2/a/b/blobs/uploads/
    PATCH /v2/a/b/blobs/uploads/u1?state=opaque
    HEAD /v2/a/b/blobs/DIGEST
    GET /v2/a/b/blobs/uploads/u1?state=opaque
    PATCH /v2/a/b/blobs/uploads/u1?state=opaque content-range=1500000-3999999
    PUT /v2/a/b/blobs/uploads/u1?state=opaque&digest=DIGEST
    ");
    assert!(registry.blob("a/b", &blob_of(&content)).unwrap() == content);
}

#[tokio::test]
async fn a_manifest_is_put() {
    let registry = Registry::start(Options::default()).await;
    let bytes = Bytes::from_static(b"{\"schemaVersion\":2}");
    let digest = client().push_manifest(&registry.reference("a/b:1"), TYPE, bytes.clone()).await.unwrap();
    assert_eq!(digest, blob_of(&bytes).digest);
    assert_eq!(registry.manifest("a/b", "1"), Some((TYPE.to_owned(), bytes.clone())));
    let by_digest = registry.reference("a/c").with_digest(&digest);
    client().push_manifest(&by_digest, TYPE, bytes.clone()).await.unwrap();
    assert!(registry.manifest("a/c", digest.as_ref()).is_some());
    let error = client().push_manifest(&by_digest, TYPE, Bytes::from_static(b"{}")).await.unwrap_err();
    assert!(matches!(error, ClientError::Damaged { .. }), "{error}");
}
