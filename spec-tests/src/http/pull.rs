//! "Pull" of the distribution specification: end-1, end-2, end-3.

use http::Method;

use crate::samples::{self, MANIFEST, Sample};
use crate::target::Target;

/// `end-1`
pub(super) fn the_base_answers_ok(target: &Target) {
    let _ = target.get("/v2/").expect_status(200);
}

/// `end-3`
pub(super) fn a_manifest_is_pulled_by_tag_and_by_digest(target: &Target) {
    let (repository, sample) = (target.repository(), Sample::new(1));
    sample.push(target, &repository, "one");
    for reference in ["one", &sample.digest()] {
        let answer = target
            .get(&format!("/v2/{repository}/manifests/{reference}"))
            .expect_status(200)
            .expect_header("content-type", MANIFEST)
            .expect_header("docker-content-digest", &sample.digest());
        assert_eq!(answer.body, sample.manifest);
    }
}

/// The digest is over the bytes, so white space and the order of keys have to survive.
pub(super) fn a_manifest_comes_back_byte_for_byte(target: &Target) {
    let (repository, sample) = (target.repository(), Sample::new(2));
    sample.push(target, &repository, "plain");
    let mut odd = sample.manifest.clone();
    odd.splice(1..1, *b"\n\t \"x-unknown\" : [1, 2.50, \"\\u0041\"] ,\r\n");
    odd.extend_from_slice(b"\n\n");
    let _ = samples::put_manifest(target, &repository, "odd", MANIFEST, &odd).expect_status(201);
    let answer = target.get(&format!("/v2/{repository}/manifests/odd")).expect_status(200);
    assert_eq!(answer.body, odd);
}

/// `end-2`
pub(super) fn a_blob_is_pulled_whole(target: &Target) {
    let (repository, blob) = (target.repository(), samples::bytes(3, 300_000));
    samples::push_blob(target, &repository, &blob);
    let answer = target
        .get(&format!("/v2/{repository}/blobs/{}", samples::digest(&blob)))
        .expect_status(200)
        .expect_header("content-length", "300000")
        .expect_header("docker-content-digest", &samples::digest(&blob));
    assert!(answer.body == blob, "the blob came back changed");
}

/// `end-2` with `Range`, as a client asks that resumes a download.
pub(super) fn a_blob_is_pulled_by_range(target: &Target) {
    let (repository, blob) = (target.repository(), samples::bytes(4, 1000));
    samples::push_blob(target, &repository, &blob);
    let path = format!("/v2/{repository}/blobs/{}", samples::digest(&blob));
    for (range, content_range, expected) in [
        ("bytes=0-0", "bytes 0-0/1000", &blob[..1]),
        ("bytes=10-19", "bytes 10-19/1000", &blob[10..20]),
        ("bytes=990-", "bytes 990-999/1000", &blob[990..]),
        ("bytes=-5", "bytes 995-999/1000", &blob[995..]),
        ("bytes=900-5000", "bytes 900-999/1000", &blob[900..]),
    ] {
        let answer = target
            .request(Method::GET, &path)
            .header("range", range)
            .send()
            .expect_status(206)
            .expect_header("content-range", content_range);
        assert_eq!(answer.body, expected, "{range}");
    }
}

/// RFC 9110, 14.4: the answer says how long the blob is.
pub(super) fn a_range_past_the_end_is_refused(target: &Target) {
    let (repository, blob) = (target.repository(), samples::bytes(5, 1000));
    samples::push_blob(target, &repository, &blob);
    let _ = target
        .request(Method::GET, &format!("/v2/{repository}/blobs/{}", samples::digest(&blob)))
        .header("range", "bytes=1000-")
        .send()
        .expect_status(416)
        .expect_header("content-range", "bytes */1000");
}

/// `end-2`, `end-3` with HEAD
pub(super) fn existence_is_checked_without_a_body(target: &Target) {
    let (repository, sample) = (target.repository(), Sample::new(6));
    sample.push(target, &repository, "one");
    let answer = target
        .head(&format!("/v2/{repository}/manifests/one"))
        .expect_status(200)
        .expect_header("docker-content-digest", &sample.digest())
        .expect_header("content-length", &sample.manifest.len().to_string());
    assert!(answer.body.is_empty());
    let answer = target
        .head(&format!("/v2/{repository}/blobs/{}", samples::digest(&sample.layer)))
        .expect_status(200)
        .expect_header("content-length", &sample.layer.len().to_string());
    assert!(answer.body.is_empty());
    let _ = target.head(&format!("/v2/{repository}/manifests/absent")).expect_status(404);
    let _ = target.head(&format!("/v2/{repository}/blobs/{}", samples::digest(b"absent"))).expect_status(404);
}
