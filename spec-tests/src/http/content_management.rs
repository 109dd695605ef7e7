//! "Content management" of the distribution specification: end-9, end-10.

use crate::samples::{self, MANIFEST, Sample};
use crate::target::Target;

/// `end-9` by tag
pub(super) fn a_tag_is_deleted_and_its_manifest_stays(target: &Target) {
    let (repository, sample) = (target.repository(), Sample::new(41));
    sample.push(target, &repository, "one");
    sample.push(target, &repository, "two");
    let _ = target.delete(&format!("/v2/{repository}/manifests/one")).expect_status(202);
    let _ = target.get(&format!("/v2/{repository}/manifests/one")).expect_error(404, "MANIFEST_UNKNOWN");
    let _ = target.get(&format!("/v2/{repository}/manifests/two")).expect_status(200);
    let _ = target.get(&format!("/v2/{repository}/manifests/{}", sample.digest())).expect_status(200);
}

/// `end-9` by digest
pub(super) fn a_manifest_is_deleted_by_digest_with_its_tags(target: &Target) {
    let (repository, sample) = (target.repository(), Sample::new(42));
    sample.push(target, &repository, "one");
    let _ = target.delete(&format!("/v2/{repository}/manifests/{}", sample.digest())).expect_status(202);
    for reference in ["one", &sample.digest()] {
        let _ = target.get(&format!("/v2/{repository}/manifests/{reference}")).expect_error(404, "MANIFEST_UNKNOWN");
    }
    // What was deleted can be pushed again.
    sample.push(target, &repository, "one");
    let _ = target.get(&format!("/v2/{repository}/manifests/one")).expect_status(200);
}

/// `end-10`
pub(super) fn a_blob_is_deleted(target: &Target) {
    let (repository, blob) = (target.repository(), samples::bytes(43, 500));
    samples::push_blob(target, &repository, &blob);
    let path = format!("/v2/{repository}/blobs/{}", samples::digest(&blob));
    let _ = target.delete(&path).expect_status(202);
    let _ = target.get(&path).expect_error(404, "BLOB_UNKNOWN");
    let _ = target.delete(&path).expect_error(404, "BLOB_UNKNOWN");
}

/// `end-12` after `end-9`
pub(super) fn a_deleted_referrer_is_no_longer_listed(target: &Target) {
    let (repository, subject) = (target.repository(), Sample::new(44));
    subject.push(target, &repository, "subject");
    samples::push_blob(target, &repository, b"{}");
    let manifest = samples::referrer("application/example.sbom", &subject);
    let digest = samples::digest(&manifest);
    let _ = samples::put_manifest(target, &repository, &digest, MANIFEST, &manifest).expect_status(201);
    let _ = target.delete(&format!("/v2/{repository}/manifests/{digest}")).expect_status(202);
    let list = target.get(&format!("/v2/{repository}/referrers/{}", subject.digest())).expect_status(200).json();
    assert_eq!(list["manifests"].as_array().map(Vec::len), Some(0), "{list}");
}
