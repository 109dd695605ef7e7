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
            .expect_digest(&sample.digest());
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
        .expect_digest(&samples::digest(&blob));
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
        .expect_digest(&sample.digest())
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

/// The digest of a HEAD is what a client compares before it pulls.
pub(super) fn the_digest_of_a_blob_is_said(target: &Target) {
    let (repository, blob) = (target.repository(), samples::bytes(7, 700));
    samples::push_blob(target, &repository, &blob);
    let (path, digest) = (format!("/v2/{repository}/blobs/{}", samples::digest(&blob)), samples::digest(&blob));
    let _ = target.head(&path).expect_status(200).expect_header("content-length", "700").expect_digest(&digest);
    let _ = target.get(&path).expect_status(200).expect_digest(&digest);
}

/// "If the manifest is not found in the repository": another one's content is nobody else's.
pub(super) fn content_of_another_repository_is_not_found(target: &Target) {
    let (repository, other, sample) = (target.repository(), target.repository(), Sample::new(8));
    sample.push(target, &repository, "one");
    Sample::new(9).push(target, &other, "other");
    for reference in ["one", &sample.digest()] {
        let _ = target.get(&format!("/v2/{other}/manifests/{reference}")).expect_status(404);
        let _ = target.head(&format!("/v2/{other}/manifests/{reference}")).expect_status(404);
    }
    let _ = target.get(&format!("/v2/{other}/blobs/{}", samples::digest(&sample.layer))).expect_status(404);
}

/// "An attempt to pull a nonexistent repository MUST return response code 404".
pub(super) fn a_repository_that_is_not_there_is_not_found(target: &Target) {
    let repository = target.repository();
    let digest = samples::digest(b"absent");
    for path in
        [format!("manifests/{digest}"), "manifests/one".to_owned(), format!("blobs/{digest}"), "tags/list".to_owned()]
    {
        let _ = target.get(&format!("/v2/{repository}/{path}")).expect_status(404);
    }
}

/// Names may hold all that their grammar admits.
pub(super) fn names_may_hold_what_their_grammar_admits(target: &Target) {
    let sample = Sample::new(10);
    for tail in ["a.b", "a_b", "a__b", "a---b", "0/1", "tags/list/blobs"] {
        let repository = format!("{}/{tail}", target.repository());
        sample.push(target, &repository, "One_2.3-4");
        let _ = target.get(&format!("/v2/{repository}/manifests/One_2.3-4")).expect_status(200);
    }
    let (repository, longest) = (target.repository(), "t".repeat(128));
    sample.push(target, &repository, &longest);
    let _ = target.get(&format!("/v2/{repository}/manifests/{longest}")).expect_status(200);
}

/// A client that names other types may get what is stored, or be refused; never a manifest that nobody pushed.
pub(super) fn a_manifest_is_never_converted(target: &Target) {
    let (repository, sample) = (target.repository(), Sample::new(61));
    sample.push(target, &repository, "one");
    for accept in [
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
        "text/html",
        "*/*",
        "application/vnd.oci.image.index.v1+json;q=0.5, application/vnd.oci.image.manifest.v1+json;q=0.1",
    ] {
        let request = target.request_as_is(Method::GET, &format!("/v2/{repository}/manifests/one"));
        let answer = request.header("accept", accept).send().expect_one_of(&[200, 404, 406]);
        if answer.status == 200 {
            let answer = answer.expect_header("content-type", MANIFEST).expect_digest(&sample.digest());
            assert_eq!(answer.body, sample.manifest, "with `Accept: {accept}`");
        }
    }
}

/// A part that ends before it begins is no part.
pub(super) fn a_range_that_ends_before_it_begins_is_refused(target: &Target) {
    let (repository, blob) = (target.repository(), samples::bytes(62, 1000));
    samples::push_blob(target, &repository, &blob);
    let path = format!("/v2/{repository}/blobs/{}", samples::digest(&blob));
    // RFC 9110 calls such a header invalid, and one that is invalid may be ignored.
    let answer = target.request(Method::GET, &path).header("range", "bytes=500-0").send().expect_one_of(&[200, 416]);
    assert!(answer.status == 416 || answer.body == blob, "a part came that nobody asked for");
}

/// Many clients pull one image at once.
pub(super) fn many_pull_at_once(target: &Target) {
    let (repository, sample, blob) = (target.repository(), Sample::new(63), samples::bytes(63, 200_000));
    sample.push(target, &repository, "one");
    samples::push_blob(target, &repository, &blob);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let manifest = target.get(&format!("/v2/{repository}/manifests/one")).expect_status(200);
                assert_eq!(manifest.body, sample.manifest);
                let path = format!("/v2/{repository}/blobs/{}", samples::digest(&blob));
                assert!(target.get(&path).expect_status(200).body == blob, "the blob came back changed");
            });
        }
    });
}

/// A client behind a proxy names the registry that it means; whoever does not need it ignores it.
pub(super) fn the_parameter_of_proxies_is_no_error(target: &Target) {
    let (repository, sample) = (target.repository(), Sample::new(64));
    sample.push(target, &repository, "one");
    let answer = target.get(&format!("/v2/{repository}/manifests/one?ns=registry.example")).expect_status(200);
    assert_eq!(answer.body, sample.manifest);
    let digest = samples::digest(&sample.layer);
    let answer = target.get(&format!("/v2/{repository}/blobs/{digest}?ns=registry.example")).expect_status(200);
    assert_eq!(answer.body, sample.layer);
}

/// The specification is silent on the version of HTTP; clients that speak HTTP/2 without asking are met.
pub(super) fn images_come_and_go_over_http2(target: &Target) {
    let fast = target.over_http2();
    let Ok(answer) = fast.request(Method::GET, "/v2/").try_send() else {
        target.unsupported("HTTP/2 without an upgrade");
        return;
    };
    assert_eq!(answer.version, http::Version::HTTP_2);
    let (repository, sample, blob) = (fast.repository(), Sample::new(65), samples::bytes(65, 500_000));
    sample.push(&fast, &repository, "one");
    samples::push_blob(&fast, &repository, &blob);
    assert_eq!(fast.get(&format!("/v2/{repository}/manifests/one")).expect_status(200).body, sample.manifest);
    let answer = fast.get(&format!("/v2/{repository}/blobs/{}", samples::digest(&blob))).expect_status(200);
    assert!(answer.body == blob, "the blob came back changed");
    let head = fast.head(&format!("/v2/{repository}/manifests/one")).expect_status(200);
    assert!(head.body.is_empty());
    let _ = fast.get(&format!("/v2/{repository}/manifests/absent")).expect_error(404, "MANIFEST_UNKNOWN");
}
