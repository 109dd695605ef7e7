//! The suite on servers, and what only they can show: signatures, prefixes, errors.
//!
//! What the emulators cannot judge, and only the real services do:
//! - fake-gcs-server: writes and uploads in parts, for it has no XML API for them (objects are put there by its JSON API,
//!   and then listed, read and deleted); pages of lists, credentials, permissions and signatures; the least size of a part; lists of
//!   unfinished uploads; lifecycle rules and versioning. The whole suite for the driver of GCS runs on SeaweedFS, whose S3
//!   is the same as the XML API of GCS but for the signatures.
//! - azurite: lists that begin at a key (it passes over `startFrom`; the driver pages up to the key instead), identities
//!   other than a key; what a retention policy does.
//! - SeaweedFS: session tokens, regions and their redirects, Object Lock; it is one server, so nothing can be stale.

use std::collections::BTreeMap;

use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::{GetRange, ObjectStore};

use super::suite::{all, keys, page, path, read};
use crate::storage::{Cloud, CloudAddress, CloudSettings};

#[path = "../../../../spec-tests/src/stores.rs"]
#[expect(unreachable_pub, reason = "other tests use the rest of it")]
mod stores;

use stores::{Azurite, FakeGcs, Seaweed, skipped};

pub(super) fn settings(url: &str, variables: Vec<(&'static str, String)>) -> CloudSettings {
    CloudSettings {
        address: CloudAddress::parse(url).unwrap().unwrap(),
        variables: variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<BTreeMap<_, _>>(),
        authorities: None,
        redirect_endpoint: None,
    }
}

async fn two_clients(url: &str, variables: Vec<(&'static str, String)>) -> (Cloud, Cloud) {
    let settings = settings(url, variables);
    (Cloud::open(&settings).await.unwrap(), Cloud::open(&settings).await.unwrap())
}

#[tokio::test]
async fn seaweedfs_conforms() {
    let Some(server) = Seaweed::shared() else { return skipped("seaweedfs_conforms", "SeaweedFS") };
    let (bucket, variables) = (server.bucket(), server.variables());
    let (one, two) = two_clients(&format!("s3://{bucket}"), variables.clone()).await;
    all(&one, &two).await;
    let (one, two) = two_clients(&format!("s3://{bucket}/a/prefix"), variables.clone()).await;
    all(&one, &two).await;
}

#[tokio::test]
async fn the_driver_of_gcs_conforms() {
    let Some(server) = Seaweed::shared() else { return skipped("the_driver_of_gcs_conforms", "SeaweedFS") };
    let variables = vec![("STORAGE_EMULATOR_HOST", server.endpoint())];
    let url = format!("gs://{}/gcs/{}", Seaweed::OPEN_BUCKET, server.bucket());
    let (one, two) = two_clients(&url, variables).await;
    all(&one, &two).await;
}

#[tokio::test]
async fn fake_gcs_lists_reads_and_deletes() {
    let Some(server) = FakeGcs::shared() else { return skipped("fake_gcs_lists_reads_and_deletes", "fake-gcs-server") };
    let bucket = server.bucket();
    let mut expected = ["a!", "a", "a/b!", "a-b!", "a0", "ab/c", "b/d/e", "Z", "a/b/c", "b"].map(str::to_owned);
    for key in &expected {
        server.put(&bucket, &format!("a/prefix/{key}"), &format!("content of {key}"));
    }
    server.put(&bucket, "a/prefixed", "not ours");
    expected.sort();
    let (port, _) = two_clients(&format!("gs://{bucket}/a/prefix"), server.variables()).await;
    // It gives no pages.
    assert_eq!(keys(&port, "", 1000).await, expected);
    assert_eq!(page(&port, "a/", None, 10).await.0, ["a/b!", "a/b/c"]);
    assert_eq!(page(&port, "", Some("a/b"), 10).await.0, ["a/b!", "a/b/c", "a0", "ab/c", "b", "b/d/e"]);
    assert_eq!(read(&port, "a/b!", None).await.unwrap(), "content of a/b!");
    assert_eq!(read(&port, "a/b!", Some(GetRange::Bounded(3..8))).await.unwrap(), "tent ");
    assert!(matches!(read(&port, "a/b", None).await, Err(object_store::Error::NotFound { .. })));
    let gone = expected.iter().skip(1).map(|key| Ok(path(key))).collect::<Vec<_>>();
    let gone: Vec<_> = port.delete_stream(stream::iter(gone).boxed()).try_collect().await.unwrap();
    assert_eq!(gone.len(), expected.len() - 1);
    assert_eq!(keys(&port, "", 1000).await, expected[..1]);
}

#[tokio::test]
async fn azurite_conforms() {
    let Some(server) = Azurite::shared() else { return skipped("azurite_conforms", "azurite") };
    let container = server.container();
    let (one, two) = two_clients(&format!("az://{container}/a/prefix"), server.variables()).await;
    all(&one, &two).await;
}
