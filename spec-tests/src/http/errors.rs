//! "Error codes" of the distribution specification, each by the request that earns it; nothing of a refused push is visible.

use http::Method;

use crate::samples::{self, MANIFEST, Sample};
use crate::target::Target;

/// `code-7`
pub(super) fn an_unknown_manifest_is_not_found(target: &Target) {
    let (repository, sample) = (target.repository(), Sample::new(51));
    sample.push(target, &repository, "one");
    for reference in ["absent", &samples::digest(b"absent")] {
        let _ = target.get(&format!("/v2/{repository}/manifests/{reference}")).expect_error(404, "MANIFEST_UNKNOWN");
    }
}

/// `code-1`
pub(super) fn an_unknown_blob_is_not_found(target: &Target) {
    let (repository, sample) = (target.repository(), Sample::new(52));
    sample.push(target, &repository, "one");
    let _ =
        target.get(&format!("/v2/{repository}/blobs/{}", samples::digest(b"absent"))).expect_error(404, "BLOB_UNKNOWN");
}

/// `code-8`
pub(super) fn an_invalid_name_is_refused(target: &Target) {
    for name in ["UPPER", "a//b", "-a", "a..b", "a/-b", "a%20b", &"a/".repeat(200)] {
        let answer = target.request(Method::POST, &format!("/v2/{name}/blobs/uploads/")).send();
        if answer.redirected {
            continue; // to a path without the empty part, which is another name
        }
        assert!(
            answer.status == 400 || answer.status == 404,
            "the name {name:?} got {}: {}",
            answer.status,
            String::from_utf8_lossy(&answer.body)
        );
        // A body may have any format, and a path that no name can stand in may be no path at all.
        if answer.is_json() {
            let code = answer.json()["errors"][0]["code"].as_str().unwrap_or("none").to_owned();
            assert!(code == "NAME_INVALID" || code == "NAME_UNKNOWN", "the name {name:?} got the code {code}");
        }
    }
}

/// A tag that the specification's grammar does not admit is never stored.
pub(super) fn an_invalid_tag_is_refused(target: &Target) {
    let (repository, sample) = (target.repository(), Sample::new(53));
    samples::push_blob(target, &repository, &sample.config);
    samples::push_blob(target, &repository, &sample.layer);
    for tag in [".hidden", "-dash", &"t".repeat(129)] {
        let answer = samples::put_manifest(target, &repository, tag, MANIFEST, &sample.manifest);
        assert!(
            (400..500).contains(&answer.status),
            "the tag {tag:?} got {}: {}",
            answer.status,
            String::from_utf8_lossy(&answer.body)
        );
    }
    let list = target.get(&format!("/v2/{repository}/tags/list"));
    assert!(
        list.status == 404 || list.json()["tags"].as_array().is_none_or(Vec::is_empty),
        "a refused tag is listed: {}",
        String::from_utf8_lossy(&list.body)
    );
}

/// `code-4`
pub(super) fn an_invalid_digest_is_refused(target: &Target) {
    let repository = target.repository();
    let location = samples::open_upload(target, &repository);
    for digest in ["sha256:short", "md5:d41d8cd98f00b204e9800998ecf8427e", "nothing"] {
        let _ = target
            .request(Method::PUT, &samples::with_digest(&location, digest))
            .body("content")
            .send()
            .expect_error(400, "DIGEST_INVALID");
    }
}

/// `code-4`: the bytes decide, and nothing is visible under either digest.
pub(super) fn a_blob_of_another_digest_is_refused(target: &Target) {
    let (repository, blob) = (target.repository(), samples::bytes(54, 2000));
    let wrong = samples::digest(b"something else");
    let location = samples::open_upload(target, &repository);
    let _ = target
        .request(Method::PUT, &samples::with_digest(&location, &wrong))
        .body(&blob[..])
        .send()
        .expect_error(400, "DIGEST_INVALID");
    for digest in [wrong, samples::digest(&blob)] {
        let _ = target.head(&format!("/v2/{repository}/blobs/{digest}")).expect_status(404);
    }
}

/// `code-4` for manifests
pub(super) fn a_manifest_of_another_digest_is_refused(target: &Target) {
    let (repository, sample) = (target.repository(), Sample::new(55));
    samples::push_blob(target, &repository, &sample.config);
    samples::push_blob(target, &repository, &sample.layer);
    let wrong = samples::digest(b"something else");
    let answer = samples::put_manifest(target, &repository, &wrong, MANIFEST, &sample.manifest);
    let _ = answer.expect_error(400, "DIGEST_INVALID");
    for digest in [wrong, sample.digest()] {
        let _ = target.head(&format!("/v2/{repository}/manifests/{digest}")).expect_status(404);
    }
}

/// `code-6`
pub(super) fn a_manifest_that_is_no_json_is_refused(target: &Target) {
    let repository = target.repository();
    for manifest in ["", "no json", "[]", "{\"schemaVersion\":2", "{}"] {
        let answer = samples::put_manifest(target, &repository, "bad", MANIFEST, manifest.as_bytes());
        let _ = answer.expect_error(400, "MANIFEST_INVALID");
    }
    let _ = target.get(&format!("/v2/{repository}/manifests/bad")).expect_status(404);
}

/// `code-5`: an image none of whose layers is there could not be pulled.
pub(super) fn a_manifest_naming_an_absent_blob_is_refused(target: &Target) {
    let (repository, sample) = (target.repository(), Sample::new(56));
    samples::push_blob(target, &repository, &sample.config);
    let answer = samples::put_manifest(target, &repository, "bad", MANIFEST, &sample.manifest);
    if answer.status == 201 {
        target.unsupported("refusing an image without any of its layers");
        return;
    }
    // The specification fixes the code; of the status it says only that it is one of the client's errors.
    let status = answer.status;
    assert!((400..500).contains(&status), "got {status}");
    let answer = answer.expect_error(status, "MANIFEST_BLOB_UNKNOWN");
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    assert!(text.contains(&samples::digest(&sample.layer)), "which blob is absent is not said: {text}");
    let _ = target.get(&format!("/v2/{repository}/manifests/bad")).expect_status(404);
    let _ = target.get(&format!("/v2/{repository}/manifests/{}", sample.digest())).expect_status(404);
}

/// `code-3`: the place of a session with another name, and the session of another repository.
pub(super) fn an_unknown_upload_is_not_found(target: &Target) {
    let repository = target.repository();
    let path = format!("/v2/{repository}/blobs/uploads/00000000-0000-4000-8000-000000000000");
    for answer in [target.get(&path), target.request(Method::PATCH, &path).body("content").send()] {
        let answer = answer.expect_status(404);
        let code = answer.json()["errors"][0]["code"].clone();
        // Where a Location carries what the registry knows, one without it is both.
        assert!(code == "BLOB_UPLOAD_UNKNOWN" || code == "BLOB_UPLOAD_INVALID", "got {code}");
    }
}

/// `code-3`: a `Location` that was changed on the way is no session.
pub(super) fn a_forged_upload_is_not_found(target: &Target) {
    let (repository, other) = (target.repository(), target.repository());
    let location = samples::open_upload(target, &repository);
    let elsewhere = location.replacen(&repository, &other, 1);
    assert_ne!(elsewhere, location, "the location does not name its repository");
    let answer = target.request(Method::PATCH, &elsewhere).body("content").send();
    let (status, code) = (answer.status, answer.json()["errors"][0]["code"].clone());
    assert!(
        matches!(status, 400 | 404) && (code == "BLOB_UPLOAD_UNKNOWN" || code == "BLOB_UPLOAD_INVALID"),
        "got {status} {code}"
    );
}

/// All codes that the specification has.
const CODES: &[&str] = &[
    "BLOB_UNKNOWN",
    "BLOB_UPLOAD_INVALID",
    "BLOB_UPLOAD_UNKNOWN",
    "DIGEST_INVALID",
    "MANIFEST_BLOB_UNKNOWN",
    "MANIFEST_INVALID",
    "MANIFEST_UNKNOWN",
    "NAME_INVALID",
    "NAME_UNKNOWN",
    "SIZE_INVALID",
    "UNAUTHORIZED",
    "DENIED",
    "UNSUPPORTED",
    "TOOMANYREQUESTS",
];

/// "If the response body is in JSON format, it MUST have the following format".
pub(super) fn errors_have_the_form_of_the_specification(target: &Target) {
    let (repository, digest) = (target.repository(), samples::digest(b"absent"));
    Sample::new(57).push(target, &repository, "one");
    let location = samples::open_upload(target, &repository);
    for (method, path) in [
        (Method::GET, format!("/v2/{repository}/manifests/absent")),
        (Method::GET, format!("/v2/{repository}/blobs/{digest}")),
        (Method::GET, format!("/v2/{}/tags/list", target.repository())),
        (Method::GET, format!("/v2/{repository}/tags/list?n=many")),
        (Method::PUT, format!("/v2/{repository}/manifests/{digest}")),
        (Method::PUT, samples::with_digest(&location, "sha256:short")),
        (Method::PUT, samples::with_digest(&location, &digest)),
        (Method::PUT, location.clone()),
        (Method::POST, "/v2/UPPER/blobs/uploads/".to_owned()),
        (Method::DELETE, format!("/v2/{repository}/blobs/{digest}")),
        (Method::POST, format!("/v2/{repository}/manifests/one")),
        (Method::PATCH, format!("/v2/{repository}/blobs/{digest}")),
    ] {
        let answer = target.request(method, &path).send();
        assert!((400..500).contains(&answer.status), "`{}` got {}", answer.request, answer.status);
        if !answer.is_json() {
            continue; // "MAY return a body in any format"
        }
        let json = answer.json();
        let errors = json["errors"].as_array().cloned().unwrap_or_default();
        assert!(!errors.is_empty(), "`{}`: no errors in {json}", answer.request);
        for error in errors {
            let code = error["code"].as_str().unwrap_or_default();
            // A registry of old has codes of its own; the form of a code is the same.
            let well_formed = !code.is_empty() && code.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
            assert!(well_formed, "`{}`: the code `{code}`", answer.request);
            if !CODES.contains(&code) {
                target.unsupported(format!("codes of the specification only: {code}"));
            }
            assert!(error["message"].is_null() || error["message"].is_string(), "{json}");
        }
    }
}

/// "If the client provided digest is invalid or uses an unsupported algorithm": said before any byte of the blob comes.
pub(super) fn an_unknown_algorithm_is_refused(target: &Target) {
    let repository = target.repository();
    let path = format!("/v2/{repository}/blobs/uploads/?digest-algorithm=md5");
    let answer = target.request(Method::POST, &path).send().expect_one_of(&[400, 202]);
    if answer.status == 202 {
        target.unsupported("refusing an unknown digest-algorithm");
    }
    let sample = Sample::new(59);
    sample.push(target, &repository, "one");
    for reference in ["md5:d41d8cd98f00b204e9800998ecf8427e", "sha256:short"] {
        let answer = samples::put_manifest(target, &repository, reference, MANIFEST, &sample.manifest);
        let _ = answer.expect_status(400);
        let _ = target.get(&format!("/v2/{repository}/manifests/{reference}")).expect_one_of(&[400, 404]);
    }
}

/// A session is closed with the digest of the whole blob.
pub(super) fn a_session_is_not_closed_without_a_digest(target: &Target) {
    let repository = target.repository();
    let location = samples::open_upload(target, &repository);
    let answer = target.request(Method::PUT, &location).body("content").send();
    assert!((400..500).contains(&answer.status), "got {}", answer.status);
    let _ = target.head(&format!("/v2/{repository}/blobs/{}", samples::digest(b"content"))).expect_status(404);
}

/// What is at a path does not take every method.
pub(super) fn a_method_that_is_not_possible_is_refused(target: &Target) {
    let (repository, sample) = (target.repository(), Sample::new(58));
    sample.push(target, &repository, "one");
    for (method, path) in [
        (Method::POST, format!("/v2/{repository}/tags/list")),
        (Method::PUT, format!("/v2/{repository}/blobs/{}", samples::digest(&sample.layer))),
        (Method::DELETE, format!("/v2/{repository}/tags/list")),
    ] {
        let answer = target.request(method, &path).send();
        assert!(matches!(answer.status, 400 | 404 | 405), "`{}` got {}", answer.request, answer.status);
    }
    let _ = target.get(&format!("/v2/{repository}/manifests/one")).expect_status(200);
}
