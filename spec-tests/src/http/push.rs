//! "Push" of the distribution specification: end-4 to end-7, end-11, end-13, end-14.

use http::Method;
use serde_json::json;

use crate::samples::{self, INDEX, MANIFEST, Sample};
use crate::target::Target;

fn blob_comes_back(target: &Target, repository: &str, blob: &[u8]) {
    let answer = target.get(&format!("/v2/{repository}/blobs/{}", samples::digest(blob))).expect_status(200);
    assert!(answer.body == blob, "the blob came back changed");
}

/// Ends an upload with all of `blob`.
fn finish(target: &Target, location: &str, blob: &[u8]) {
    let path = samples::with_digest(location, &samples::digest(blob));
    let _ = target.request(Method::PUT, &path).body(blob).send().expect_status(201);
}

/// `end-4a`, `end-6`
pub(super) fn a_blob_is_pushed_by_post_and_put(target: &Target) {
    let (repository, blob) = (target.repository(), samples::bytes(11, 5000));
    let location = samples::open_upload(target, &repository);
    let answer = target
        .request(Method::PUT, &samples::with_digest(&location, &samples::digest(&blob)))
        .body(&blob[..])
        .send()
        .expect_status(201)
        .expect_header("docker-content-digest", &samples::digest(&blob));
    let found = target.get(answer.location()).expect_status(200);
    assert!(found.body == blob, "the location of the blob serves something else");
}

/// `end-4b`
pub(super) fn a_blob_is_pushed_by_a_single_post(target: &Target) {
    let (repository, blob) = (target.repository(), samples::bytes(12, 5000));
    let path = samples::with_digest(&format!("/v2/{repository}/blobs/uploads/"), &samples::digest(&blob));
    let answer = target
        .request(Method::POST, &path)
        .header("content-type", "application/octet-stream")
        .body(&blob[..])
        .send()
        .expect_one_of(&[201, 202]);
    if answer.status == 202 {
        target.unsupported("a blob in a single POST");
        finish(target, answer.location(), &blob);
    }
    blob_comes_back(target, &repository, &blob);
}

/// `end-5` without `Content-Range`, as Docker pushes.
pub(super) fn a_blob_is_pushed_as_a_stream(target: &Target) {
    let (repository, blob) = (target.repository(), samples::bytes(13, 100_000));
    let location = samples::open_upload(target, &repository);
    let answer = target
        .request(Method::PATCH, &location)
        .header("content-type", "application/octet-stream")
        .body(&blob[..])
        .send()
        .expect_status(202)
        .expect_header("range", "0-99999");
    let _ = target
        .request(Method::PUT, &samples::with_digest(answer.location(), &samples::digest(&blob)))
        .send()
        .expect_status(201);
    blob_comes_back(target, &repository, &blob);
}

/// `end-5`, the last chunk with `end-6`
pub(super) fn a_blob_is_pushed_in_chunks(target: &Target) {
    let (repository, blob) = (target.repository(), samples::bytes(14, 3000));
    let mut location = samples::open_upload(target, &repository);
    for (start, end) in [(0, 1000), (1000, 2000)] {
        let answer = target
            .request(Method::PATCH, &location)
            .header("content-type", "application/octet-stream")
            .header("content-range", format!("{start}-{}", end - 1))
            .body(&blob[start..end])
            .send()
            .expect_status(202)
            .expect_header("range", &format!("0-{}", end - 1));
        location = answer.location().to_owned();
    }
    let _ = target
        .request(Method::PUT, &samples::with_digest(&location, &samples::digest(&blob)))
        .header("content-range", "2000-2999")
        .body(&blob[2000..])
        .send()
        .expect_status(201);
    blob_comes_back(target, &repository, &blob);
}

/// "Chunks MUST be uploaded in order": 416, and the session goes on from where it is.
pub(super) fn a_chunk_out_of_order_is_refused(target: &Target) {
    let (repository, blob) = (target.repository(), samples::bytes(15, 2000));
    let location = samples::open_upload(target, &repository);
    let _ = target
        .request(Method::PATCH, &location)
        .header("content-range", "1000-1999")
        .body(&blob[1000..])
        .send()
        .expect_status(416);
    let answer = target
        .request(Method::PATCH, &location)
        .header("content-range", "0-1999")
        .body(&blob[..])
        .send()
        .expect_status(202);
    let _ = target
        .request(Method::PUT, &samples::with_digest(answer.location(), &samples::digest(&blob)))
        .send()
        .expect_status(201);
    blob_comes_back(target, &repository, &blob);
}

/// `end-13`
pub(super) fn an_upload_tells_how_far_it_is(target: &Target) {
    let repository = target.repository();
    let location = samples::open_upload(target, &repository);
    let location = target
        .request(Method::PATCH, &location)
        .body(samples::bytes(16, 700))
        .send()
        .expect_status(202)
        .location()
        .to_owned();
    let _ = target.get(&location).expect_status(204).expect_header("range", "0-699");
}

/// `end-14`
pub(super) fn a_cancelled_upload_is_gone(target: &Target) {
    let repository = target.repository();
    let location = samples::open_upload(target, &repository);
    let answer = target.delete(&location).expect_one_of(&[204, 400, 404, 405]);
    if answer.status != 204 {
        target.unsupported("cancelling an upload");
        return;
    }
    let _ = target.get(&location).expect_error(404, "BLOB_UPLOAD_UNKNOWN");
    // A first chunk that comes late may be taken; no blob comes of it.
    let late = target.request(Method::PATCH, &location).body("late").send().expect_one_of(&[202, 404]);
    let location = if late.status == 202 { late.location().to_owned() } else { location };
    let finish = samples::with_digest(&location, &samples::digest(b"late"));
    let body = if late.status == 202 { "" } else { "late" };
    let _ = target.request(Method::PUT, &finish).body(body).send().expect_error(404, "BLOB_UPLOAD_UNKNOWN");
    let _ = target.get(&format!("/v2/{repository}/blobs/{}", samples::digest(b"late"))).expect_status(404);
}

/// `end-11`
pub(super) fn a_blob_is_mounted_from_another_repository(target: &Target) {
    let (from, to, blob) = (target.repository(), target.repository(), samples::bytes(17, 4000));
    samples::push_blob(target, &from, &blob);
    let path = format!("/v2/{to}/blobs/uploads/?mount={}&from={from}", samples::digest(&blob));
    let answer = target.request(Method::POST, &path).send().expect_one_of(&[201, 202]);
    if answer.status == 202 {
        target.unsupported("mounts");
        finish(target, answer.location(), &blob);
    }
    blob_comes_back(target, &to, &blob);
}

/// `end-11`: "the registry MUST respond with 202 and an upload URL" when it cannot mount.
pub(super) fn a_mount_of_what_is_absent_opens_an_upload(target: &Target) {
    let (from, to) = (target.repository(), target.repository());
    let path = format!("/v2/{to}/blobs/uploads/?mount={}&from={from}", samples::digest(b"absent"));
    let answer = target.request(Method::POST, &path).send().expect_status(202);
    assert!(!answer.location().is_empty());
}

/// `end-7`
pub(super) fn a_manifest_is_pushed_and_its_digest_returned(target: &Target) {
    let (repository, sample) = (target.repository(), Sample::new(18));
    samples::push_blob(target, &repository, &sample.config);
    samples::push_blob(target, &repository, &sample.layer);
    let answer = samples::put_manifest(target, &repository, "one", MANIFEST, &sample.manifest)
        .expect_status(201)
        .expect_header("docker-content-digest", &sample.digest());
    let found = target.get(answer.location()).expect_status(200);
    assert_eq!(found.body, sample.manifest);
}

/// `end-7` with an index
pub(super) fn an_index_is_pushed_and_pulled(target: &Target) {
    let (repository, sample) = (target.repository(), Sample::new(19));
    sample.push(target, &repository, &sample.digest());
    let index = json!({
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": [{
            "mediaType": MANIFEST, "digest": sample.digest(), "size": sample.manifest.len(),
            "platform": {"architecture": "amd64", "os": "linux"},
        }],
    })
    .to_string()
    .into_bytes();
    let _ = samples::put_manifest(target, &repository, "all", INDEX, &index).expect_status(201);
    let answer =
        target.get(&format!("/v2/{repository}/manifests/all")).expect_status(200).expect_header("content-type", INDEX);
    assert_eq!(answer.body, index);
}

/// Docker's own types are older than OCI's and still what older clients push.
pub(super) fn a_docker_manifest_keeps_its_type(target: &Target) {
    const DOCKER: &str = "application/vnd.docker.distribution.manifest.v2+json";
    let (repository, sample) = (target.repository(), Sample::new(20));
    samples::push_blob(target, &repository, &sample.config);
    samples::push_blob(target, &repository, &sample.layer);
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": DOCKER,
        "config": {
            "mediaType": "application/vnd.docker.container.image.v1+json",
            "digest": samples::digest(&sample.config), "size": sample.config.len(),
        },
        "layers": [{
            "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip",
            "digest": samples::digest(&sample.layer), "size": sample.layer.len(),
        }],
    })
    .to_string()
    .into_bytes();
    let _ = samples::put_manifest(target, &repository, "docker", DOCKER, &manifest).expect_status(201);
    let answer = target
        .get(&format!("/v2/{repository}/manifests/docker"))
        .expect_status(200)
        .expect_header("content-type", DOCKER);
    assert_eq!(answer.body, manifest);
}
