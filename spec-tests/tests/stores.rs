//! The object stores that other tests use start, and make buckets.

use spec_tests::stores::{Azurite, FakeGcs, Seaweed, skipped};

#[test]
fn seaweedfs_makes_buckets() {
    let Some(server) = Seaweed::shared() else { return skipped("seaweedfs_makes_buckets", "SeaweedFS") };
    assert_ne!(server.bucket(), server.bucket());
}

#[test]
fn fake_gcs_server_makes_buckets() {
    let Some(server) = FakeGcs::shared() else { return skipped("fake_gcs_server_makes_buckets", "fake-gcs-server") };
    assert_ne!(server.bucket(), server.bucket());
}

#[test]
fn azurite_makes_containers() {
    let Some(server) = Azurite::shared() else { return skipped("azurite_makes_containers", "azurite") };
    assert_ne!(server.container(), server.container());
}
