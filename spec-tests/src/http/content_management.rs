//! "Content management" of the distribution specification: end-9, end-10.

use crate::samples::{self, MANIFEST, Sample};
use crate::target::Target;

/// `end-9` by tag
pub(super) fn a_tag_is_deleted_and_its_manifest_stays(target: &Target) {
    let (repository, sample) = (target.repository(), Sample::new(41));
    sample.push(target, &repository, "one");
    sample.push(target, &repository, "two");
    if !samples::is_deleted(target, &format!("/v2/{repository}/manifests/one")) {
        return;
    }
    let _ = target.get(&format!("/v2/{repository}/manifests/one")).expect_error(404, "MANIFEST_UNKNOWN");
    let _ = target.get(&format!("/v2/{repository}/manifests/two")).expect_status(200);
    let _ = target.get(&format!("/v2/{repository}/manifests/{}", sample.digest())).expect_status(200);
}

/// `end-9` by digest
pub(super) fn a_manifest_is_deleted_by_digest_with_its_tags(target: &Target) {
    let (repository, sample) = (target.repository(), Sample::new(42));
    sample.push(target, &repository, "one");
    if !samples::is_deleted(target, &format!("/v2/{repository}/manifests/{}", sample.digest())) {
        return;
    }
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
    if !samples::is_deleted(target, &path) {
        return;
    }
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
    let path = format!("/v2/{repository}/referrers/{}", subject.digest());
    if !samples::has_referrers(target, &path)
        || !samples::is_deleted(target, &format!("/v2/{repository}/manifests/{digest}"))
    {
        return;
    }
    let list = target.get(&path).expect_status(200).json();
    assert_eq!(list["manifests"].as_array().map(Vec::len), Some(0), "{list}");
}

/// What is not there cannot be deleted, and what was deleted is not there.
pub(super) fn what_is_not_there_cannot_be_deleted(target: &Target) {
    let (repository, sample) = (target.repository(), Sample::new(45));
    sample.push(target, &repository, "one");
    let absent = samples::digest(b"absent");
    let paths = [
        format!("/v2/{repository}/manifests/{absent}"),
        format!("/v2/{repository}/manifests/absent"),
        format!("/v2/{repository}/blobs/{absent}"),
        format!("/v2/{}/manifests/{absent}", target.repository()),
        format!("/v2/{}/blobs/{absent}", target.repository()),
    ];
    for path in paths {
        let answer = target.delete(&path).expect_one_of(&[404, 400, 405]);
        if answer.status != 404 {
            target.unsupported("deletion");
            return;
        }
    }
}

/// A blob is deleted from one repository.
pub(super) fn a_deleted_blob_stays_in_other_repositories(target: &Target) {
    let (repository, other, blob) = (target.repository(), target.repository(), samples::bytes(46, 500));
    samples::push_blob(target, &repository, &blob);
    samples::push_blob(target, &other, &blob);
    let digest = samples::digest(&blob);
    if !samples::is_deleted(target, &format!("/v2/{repository}/blobs/{digest}")) {
        return;
    }
    let _ = target.head(&format!("/v2/{repository}/blobs/{digest}")).expect_status(404);
    assert_eq!(target.get(&format!("/v2/{other}/blobs/{digest}")).expect_status(200).body, blob);
    // Pushed again it is there again.
    samples::push_blob(target, &repository, &blob);
    let _ = target.head(&format!("/v2/{repository}/blobs/{digest}")).expect_status(200);
}

/// A tag that was deleted is in no list, and one that was pushed again is.
pub(super) fn a_deleted_tag_is_no_longer_listed(target: &Target) {
    let (repository, sample) = (target.repository(), Sample::new(47));
    sample.push(target, &repository, "one");
    sample.push(target, &repository, "two");
    if !samples::is_deleted(target, &format!("/v2/{repository}/manifests/one")) {
        return;
    }
    let tags = || target.get(&format!("/v2/{repository}/tags/list")).expect_status(200).json()["tags"].clone();
    assert_eq!(tags(), serde_json::json!(["two"]));
    sample.push(target, &repository, "one");
    assert_eq!(tags(), serde_json::json!(["one", "two"]));
}
