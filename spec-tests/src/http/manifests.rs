//! Manifests beyond the straight path: what they may name, how large they may be, and several tags at once.

use std::thread;

use http::Method;
use serde_json::{Value, json};

use crate::samples::{self, CONFIG, EMPTY, INDEX, LAYER, MANIFEST, Sample};
use crate::target::{Answer, Target};

fn image(config: &[u8], layers: &Value) -> Vec<u8> {
    json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "digest": samples::digest(config), "size": config.len()},
        "layers": layers,
    })
    .to_string()
    .into_bytes()
}

fn get(target: &Target, repository: &str, reference: &str) -> Answer {
    target.get(&format!("/v2/{repository}/manifests/{reference}"))
}

/// "MUST store the manifest in the exact byte representation": fields that nobody here knows are kept too.
pub(super) fn unknown_fields_are_kept(target: &Target) {
    let (repository, sample) = (target.repository(), Sample::new(91));
    sample.push(target, &repository, "plain");
    let mut manifest: Value = serde_json::from_slice(&sample.manifest).expect("a manifest of ours");
    manifest["org.example.unknown"] = json!({"deep": [1, null, "x"]});
    manifest["layers"][0]["data"] = json!("aGVsbG8=");
    manifest["config"]["org.example.unknown"] = json!(true);
    let bytes = serde_json::to_vec_pretty(&manifest).expect("JSON");
    let _ = samples::put_manifest(target, &repository, "odd", MANIFEST, &bytes).expect_status(201);
    assert_eq!(get(target, &repository, "odd").expect_status(200).body, bytes);
}

/// "The registry SHOULD ignore parameters on the Content-Type header", and not send any.
pub(super) fn parameters_of_a_content_type_are_ignored(target: &Target) {
    let (repository, sample) = (target.repository(), Sample::new(92));
    sample.push(target, &repository, "plain");
    let media_type = format!("{MANIFEST}; charset=utf-8");
    let _ = samples::put_manifest(target, &repository, "odd", &media_type, &sample.manifest).expect_status(201);
    let _ = get(target, &repository, "odd").expect_status(200).expect_header("content-type", MANIFEST);
}

/// "The list of blobs MAY be empty."
pub(super) fn an_image_without_layers_is_pushed(target: &Target) {
    let repository = target.repository();
    samples::push_blob(target, &repository, b"{}");
    let manifest = image(b"{}", &json!([]));
    let _ = samples::put_manifest(target, &repository, "one", MANIFEST, &manifest).expect_status(201);
    assert_eq!(get(target, &repository, "one").expect_status(200).body, manifest);
}

/// An index of an index, and one of nothing.
pub(super) fn indexes_hold_indexes_or_nothing(target: &Target) {
    let repository = target.repository();
    let empty = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": []}).to_string().into_bytes();
    let digest = samples::digest(&empty);
    let _ = samples::put_manifest(target, &repository, &digest, INDEX, &empty).expect_status(201);
    let outer = json!({
        "schemaVersion": 2, "mediaType": INDEX,
        "manifests": [{"mediaType": INDEX, "digest": digest, "size": empty.len()}],
    })
    .to_string()
    .into_bytes();
    let _ = samples::put_manifest(target, &repository, "outer", INDEX, &outer).expect_status(201);
    assert_eq!(get(target, &repository, "outer").expect_status(200).body, outer);
    assert_eq!(get(target, &repository, &digest).expect_status(200).body, empty);
}

/// Layers that may not be distributed are fetched from elsewhere: nobody pushes them.
pub(super) fn layers_of_elsewhere_need_not_be_there(target: &Target) {
    let (repository, sample) = (target.repository(), Sample::new(93));
    samples::push_blob(target, &repository, &sample.config);
    samples::push_blob(target, &repository, &sample.layer);
    let manifest = image(
        &sample.config,
        &json!([
            {"mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
             "digest": samples::digest(b"elsewhere"), "size": 9, "urls": ["https://registry.example/layer"]},
            {"mediaType": LAYER, "digest": samples::digest(&sample.layer), "size": sample.layer.len()},
        ]),
    );
    let _ = samples::put_manifest(target, &repository, "one", MANIFEST, &manifest).expect_status(201);
    assert_eq!(get(target, &repository, "one").expect_status(200).body, manifest);
}

/// A registry "MAY reject" what names content that it does not have; then with one code, and nothing is stored.
fn taken_or_refused(target: &Target, what: &str, repository: &str, media_type: &str, manifest: &[u8]) {
    let answer = samples::put_manifest(target, repository, "sparse", media_type, manifest);
    if answer.status == 201 {
        check_warnings(&answer);
        assert_eq!(get(target, repository, "sparse").expect_status(200).body, manifest);
        return;
    }
    target.unsupported(what);
    let status = answer.status;
    assert!((400..500).contains(&status), "got {status}");
    let _ = answer.expect_error(status, "MANIFEST_BLOB_UNKNOWN");
    let _ = get(target, repository, "sparse").expect_status(404);
}

/// "Warnings": code 299, agent `-`, no date, at most 4096 bytes.
fn check_warnings(answer: &Answer) {
    let warnings: Vec<&str> = answer.headers("warning").collect();
    for warning in &warnings {
        let text = warning.strip_prefix("299 - \"").and_then(|text| text.strip_suffix('"'));
        assert!(text.is_some(), "expected `299 - \"...\"`, got `Warning: {warning}`");
    }
    assert!(warnings.iter().map(|warning| warning.len()).sum::<usize>() <= 4096, "more than 4096 bytes of warnings");
}

/// An index whose other platform somebody else has.
pub(super) fn a_sparse_index_is_taken_or_refused(target: &Target) {
    let (repository, sample) = (target.repository(), Sample::new(94));
    sample.push(target, &repository, &sample.digest());
    let entry = |digest: String, architecture: &str| {
        json!({"mediaType": MANIFEST, "digest": digest, "size": sample.manifest.len(),
               "platform": {"os": "linux", "architecture": architecture}})
    };
    let manifests = [entry(sample.digest(), "amd64"), entry(samples::digest(b"absent"), "arm64")];
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}).to_string().into_bytes();
    taken_or_refused(target, "sparse indexes", &repository, INDEX, &index);
}

/// An image that misses a layer which its repository never had.
pub(super) fn a_sparse_image_is_taken_or_refused(target: &Target) {
    let (repository, sample) = (target.repository(), Sample::new(95));
    samples::push_blob(target, &repository, &sample.config);
    samples::push_blob(target, &repository, &sample.layer);
    let manifest = image(
        &sample.config,
        &json!([
            {"mediaType": LAYER, "digest": samples::digest(b"absent"), "size": 6},
            {"mediaType": LAYER, "digest": samples::digest(&sample.layer), "size": sample.layer.len()},
        ]),
    );
    taken_or_refused(target, "sparse images", &repository, MANIFEST, &manifest);
}

/// What a client was told of is there, or the image is not: a deleted blob is missed.
pub(super) fn an_image_of_a_deleted_blob_is_not_acknowledged_silently(target: &Target) {
    let (repository, sample) = (target.repository(), Sample::new(96));
    samples::push_blob(target, &repository, &sample.config);
    samples::push_blob(target, &repository, &sample.layer);
    samples::push_blob(target, &repository, b"gone soon");
    if !samples::is_deleted(target, &format!("/v2/{repository}/blobs/{}", samples::digest(b"gone soon"))) {
        return;
    }
    let manifest = image(
        &sample.config,
        &json!([
            {"mediaType": LAYER, "digest": samples::digest(b"gone soon"), "size": 9},
            {"mediaType": LAYER, "digest": samples::digest(&sample.layer), "size": sample.layer.len()},
        ]),
    );
    let answer = samples::put_manifest(target, &repository, "one", MANIFEST, &manifest);
    if answer.status == 201 {
        target.unsupported("missing a blob that was deleted");
        return;
    }
    let status = answer.status;
    let _ = answer.expect_error(status, "MANIFEST_BLOB_UNKNOWN");
}

/// "Implementations SHOULD expect to be able to support manifest pushes of at least 4 megabytes."
pub(super) fn a_manifest_of_four_megabytes_is_taken(target: &Target) {
    let repository = target.repository();
    samples::push_blob(target, &repository, b"{}");
    let manifest = samples::padded(4_000_000);
    let _ = samples::put_manifest(target, &repository, "large", MANIFEST, &manifest).expect_status(201);
    assert!(get(target, &repository, "large").expect_status(200).body == manifest, "the manifest came back changed");
}

/// "A registry SHOULD enforce some limit", and say 413.
pub(super) fn a_manifest_beyond_any_limit_is_refused(target: &Target) {
    let repository = target.repository();
    samples::push_blob(target, &repository, b"{}");
    let manifest = samples::padded(33 << 20);
    let request = target.request(Method::PUT, &format!("/v2/{repository}/manifests/huge"));
    // A registry that does not read on closes the connection, perhaps before the client has read why.
    if let Ok(answer) = request.header("content-type", MANIFEST).body(manifest).try_send() {
        let answer = answer.expect_one_of(&[201, 400, 413]);
        match answer.status {
            201 => return target.unsupported("a limit to manifests below 33 MiB"),
            400 => target.unsupported("the status 413 for a manifest that is too large"),
            _ => {}
        }
    }
    let _ = get(target, &repository, "huge").expect_status(404);
}

/// `end-7b`: a push by digest may set tags, and says which it set.
pub(super) fn tags_are_set_by_a_push_by_digest(target: &Target) {
    const TAGS: usize = 12;
    let (repository, sample) = (target.repository(), Sample::new(97));
    samples::push_blob(target, &repository, &sample.config);
    samples::push_blob(target, &repository, &sample.layer);
    let tags: Vec<String> = (0..TAGS).map(|number| format!("v{number}")).collect();
    let parameters: Vec<String> = tags.iter().map(|tag| format!("tag={tag}")).collect();
    let reference = format!("{}?{}", sample.digest(), parameters.join("&"));
    let answer = samples::put_manifest(target, &repository, &reference, MANIFEST, &sample.manifest).expect_status(201);
    let set: Vec<&str> = answer.headers("oci-tag").flat_map(|value| value.split(',')).map(str::trim).collect();
    if set.is_empty() {
        target.unsupported("tags of a push by digest");
        return;
    }
    for tag in &tags {
        assert!(set.contains(&tag.as_str()), "{tag} is not in OCI-Tag: {set:?}");
        let _ = get(target, &repository, tag).expect_status(200).expect_digest(&sample.digest());
    }
}

/// The hash of a digest decides where the manifest is found.
pub(super) fn a_manifest_of_another_algorithm_is_pushed(target: &Target) {
    let (repository, sample) = (target.repository(), Sample::new(98));
    sample.push(target, &repository, "one");
    let digest = samples::sha512(&sample.manifest);
    let answer =
        samples::put_manifest(target, &repository, &digest, MANIFEST, &sample.manifest).expect_one_of(&[201, 400]);
    if answer.status == 400 {
        target.unsupported("sha512");
        return;
    }
    let _ = answer.expect_header("docker-content-digest", &digest);
    let answer = get(target, &repository, &digest).expect_status(200).expect_digest(&digest);
    assert_eq!(answer.body, sample.manifest);
}

/// "MUST initially accept an otherwise valid manifest with a `subject`" that is not there.
pub(super) fn a_manifest_may_come_before_its_subject(target: &Target) {
    let (repository, subject) = (target.repository(), Sample::new(99));
    samples::push_blob(target, &repository, b"{}");
    let manifest = samples::referrer("application/example.sbom", &subject);
    let answer = samples::put_manifest(target, &repository, "early", MANIFEST, &manifest).expect_status(201);
    if answer.header("oci-subject").is_none() {
        target.unsupported("referrers");
        return;
    }
    let _ = answer.expect_header("oci-subject", &subject.digest());
    let path = format!("/v2/{repository}/referrers/{}", subject.digest());
    let list = target.get(&path).expect_status(200).json();
    assert_eq!(list["manifests"][0]["digest"], samples::digest(&manifest), "{list}");
}

/// A tag always has one of the values that were written to it, whole.
pub(super) fn many_writers_of_one_tag_leave_one_value(target: &Target) {
    let repository = target.repository();
    samples::push_blob(target, &repository, b"{}");
    let manifests: Vec<Vec<u8>> = (0..6).map(|number| samples::artifact(&format!("application/n{number}"))).collect();
    let statuses: Vec<u16> = thread::scope(|scope| {
        let writers: Vec<_> = manifests
            .iter()
            .map(|manifest| {
                let repository = &repository;
                scope.spawn(move || samples::put_manifest(target, repository, "moving", MANIFEST, manifest).status)
            })
            .collect();
        writers.into_iter().map(|writer| writer.join().expect("a writer")).collect()
    });
    assert!(statuses.iter().all(|status| matches!(status, 201 | 409 | 429)), "got {statuses:?}");
    assert!(statuses.contains(&201), "no writer succeeded: {statuses:?}");
    let value = get(target, &repository, "moving").expect_status(200).body;
    assert!(manifests.contains(&value), "the tag has a value that nobody wrote");
    // Whoever was told yes finds the manifest, whatever became of the tag.
    for (manifest, status) in manifests.iter().zip(statuses) {
        if status == 201 {
            let _ = get(target, &repository, &samples::digest(manifest)).expect_status(200);
        }
    }
    let list = target.get(&format!("/v2/{repository}/tags/list")).expect_status(200).json();
    assert_eq!(list["tags"], json!(["moving"]));
}

/// A tag moves at once, and its old value stays reachable by digest.
pub(super) fn a_tag_moves_to_its_last_value(target: &Target) {
    let repository = target.repository();
    samples::push_blob(target, &repository, b"{}");
    let manifests: Vec<Vec<u8>> = (0..4).map(|number| samples::artifact(&format!("application/m{number}"))).collect();
    for manifest in &manifests {
        let _ = samples::put_manifest(target, &repository, "moving", MANIFEST, manifest).expect_status(201);
        assert_eq!(get(target, &repository, "moving").expect_status(200).body, *manifest);
    }
    for manifest in &manifests {
        let _ = get(target, &repository, &samples::digest(manifest)).expect_status(200);
    }
}

/// An artifact's config is the empty one.
pub(super) fn an_artifact_is_pushed(target: &Target) {
    let repository = target.repository();
    samples::push_blob(target, &repository, b"{}");
    let manifest = samples::artifact("application/example");
    assert!(String::from_utf8_lossy(&manifest).contains(EMPTY));
    let _ = samples::put_manifest(target, &repository, "one", MANIFEST, &manifest).expect_status(201);
    assert_eq!(get(target, &repository, "one").expect_status(200).body, manifest);
}
