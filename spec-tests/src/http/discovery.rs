//! "Content discovery" of the distribution specification: end-8, end-12.

use serde_json::{Value, json};

use crate::samples::{self, INDEX, MANIFEST, Sample};
use crate::target::Target;

fn names(list: &Value) -> Vec<String> {
    let tags = list["tags"].as_array().cloned().unwrap_or_default();
    tags.iter().filter_map(|tag| tag.as_str().map(str::to_owned)).collect()
}

/// `end-8a`: "in lexical order (i.e. case-insensitive alphanumeric order)"; digits and lower case are alike in any reading.
pub(super) fn tags_are_listed_in_order(target: &Target) {
    let (repository, sample) = (target.repository(), Sample::new(31));
    for tag in ["zebra", "apple", "v10", "1.0", "mango"] {
        sample.push(target, &repository, tag);
    }
    let list = target.get(&format!("/v2/{repository}/tags/list")).expect_status(200).json();
    assert_eq!(list["name"], repository.as_str());
    assert_eq!(names(&list), ["1.0", "apple", "mango", "v10", "zebra"]);
}

/// `end-8b`: every tag once, by following `Link`.
pub(super) fn tags_are_listed_in_pages(target: &Target) {
    let (repository, sample) = (target.repository(), Sample::new(32));
    let all: Vec<String> = (0..7).map(|number| format!("tag{number}")).collect();
    for tag in &all {
        sample.push(target, &repository, tag);
    }
    let (mut found, mut pages) = (Vec::new(), 0);
    let mut next = Some(format!("/v2/{repository}/tags/list?n=3"));
    while let Some(path) = next {
        let answer = target.get(&path).expect_status(200);
        let page = names(&answer.json());
        assert!(page.len() <= 3, "a page of n=3 holds {page:?}");
        assert!(
            page.len() == 3 || answer.header("link").is_some() || found.len() + page.len() == all.len(),
            "{page:?}"
        );
        found.extend(page);
        pages += 1;
        assert!(pages < 10, "the pages do not end");
        next = answer.next_page();
    }
    assert_eq!(found, all);
    let after = target.get(&format!("/v2/{repository}/tags/list?n=2&last=tag4")).expect_status(200).json();
    assert_eq!(names(&after), ["tag5", "tag6"]);
    let none = target.get(&format!("/v2/{repository}/tags/list?n=0")).expect_status(200);
    assert_eq!(names(&none.json()), Vec::<String>::new());
    assert_eq!(none.header("link"), None, "a page of nothing has a next one");
}

fn push_referrers(target: &Target, repository: &str, subject: &Sample) -> Vec<String> {
    subject.push(target, repository, "subject");
    samples::push_blob(target, repository, b"{}");
    ["application/example.sbom", "application/example.signature"]
        .iter()
        .map(|kind| {
            let manifest = samples::referrer(kind, subject);
            let digest = samples::digest(&manifest);
            let answer = samples::put_manifest(target, repository, &digest, MANIFEST, &manifest).expect_status(201);
            assert!(
                answer.header("oci-subject").is_none_or(|found| found == subject.digest()),
                "OCI-Subject is {:?}",
                answer.header("oci-subject")
            );
            digest
        })
        .collect()
}

/// `end-12a`
pub(super) fn referrers_are_listed(target: &Target) {
    let (repository, subject) = (target.repository(), Sample::new(33));
    let pushed = push_referrers(target, &repository, &subject);
    let path = format!("/v2/{repository}/referrers/{}", subject.digest());
    if !samples::has_referrers(target, &path) {
        return;
    }
    let list = target.get(&path).expect_status(200).expect_header("content-type", INDEX).json();
    assert_eq!(list["schemaVersion"], 2);
    let manifests = list["manifests"].as_array().cloned().unwrap_or_default();
    assert_eq!(manifests.len(), 2, "{list}");
    for digest in pushed {
        let found = manifests.iter().find(|one| one["digest"] == digest.as_str());
        let found = found.unwrap_or_else(|| panic!("{digest} is not in {list}"));
        assert_eq!(found["mediaType"], MANIFEST);
        assert_eq!(found["annotations"]["org.example.kind"], found["artifactType"]);
    }
}

/// `end-12b`
pub(super) fn referrers_are_filtered_by_type(target: &Target) {
    let (repository, subject) = (target.repository(), Sample::new(34));
    let pushed = push_referrers(target, &repository, &subject);
    let path = format!("/v2/{repository}/referrers/{}?artifactType=application/example.sbom", subject.digest());
    if !samples::has_referrers(target, &path) {
        return;
    }
    let answer = target.get(&path).expect_status(200);
    if answer.header("oci-filters-applied").is_none() {
        // Whoever does not filter lists all, and does not say that it filtered.
        target.unsupported("filters of referrers");
        assert_eq!(answer.json()["manifests"].as_array().map(Vec::len), Some(2));
        return;
    }
    let list = answer.expect_header("oci-filters-applied", "artifactType").json();
    assert_eq!(list["manifests"].as_array().map(Vec::len), Some(1), "{list}");
    assert_eq!(list["manifests"][0]["digest"], pushed[0].as_str());
}

/// "If the query results in no matching referrers, an empty manifest list MUST be returned."
pub(super) fn referrers_of_what_is_unknown_are_an_empty_list(target: &Target) {
    let (repository, sample) = (target.repository(), Sample::new(35));
    sample.push(target, &repository, "one");
    let path = format!("/v2/{repository}/referrers/{}", samples::digest(b"unknown"));
    if !samples::has_referrers(target, &path) {
        return;
    }
    let list = target.get(&path).expect_status(200).expect_header("content-type", INDEX).json();
    assert_eq!(list["manifests"].as_array().map(Vec::len), Some(0), "{list}");
}

/// `end-8b` without `n`: all that follow, whether or not the tag named is there.
pub(super) fn tags_after_one_are_listed(target: &Target) {
    let (repository, sample) = (target.repository(), Sample::new(36));
    for tag in ["a", "b", "c", "d"] {
        sample.push(target, &repository, tag);
    }
    for (last, expected) in [("b", &["c", "d"][..]), ("bb", &["c", "d"]), ("d", &[]), ("0", &["a", "b", "c", "d"])] {
        let list = target.get(&format!("/v2/{repository}/tags/list?last={last}")).expect_status(200).json();
        assert_eq!(names(&list), expected, "after {last}");
    }
}

/// "Lexical (i.e. case-insensitive alphanumeric order) or ASCIIbetical": one of both, in pages too.
pub(super) fn tags_of_both_cases_have_one_order(target: &Target) {
    let (repository, sample) = (target.repository(), Sample::new(37));
    let mut ascii: Vec<String> = ["b", "A", "a-1", "a.1", "B2", "_x", "a", "C"].map(str::to_owned).to_vec();
    for tag in &ascii {
        sample.push(target, &repository, tag);
    }
    ascii.sort();
    let mut folded = ascii.clone();
    folded.sort_by_key(|tag| tag.to_lowercase());
    let list = names(&target.get(&format!("/v2/{repository}/tags/list")).expect_status(200).json());
    assert!(list == ascii || list == folded, "{list:?} is in neither order");
    let mut paged = Vec::new();
    let mut next = Some(format!("/v2/{repository}/tags/list?n=3"));
    while let Some(path) = next {
        let answer = target.get(&path).expect_status(200);
        paged.extend(names(&answer.json()));
        next = answer.next_page();
        assert!(paged.len() <= list.len(), "the pages do not end: {paged:?}");
    }
    assert_eq!(paged, list);
}

/// The tags of a repository that has none may be an empty list; one that is not there is not found.
pub(super) fn tags_of_an_unknown_repository_are_not_found(target: &Target) {
    let _ = target.get(&format!("/v2/{}/tags/list", target.repository())).expect_error(404, "NAME_UNKNOWN");
}

/// Not of the specification any more, but what clients of old and user interfaces ask.
pub(super) fn the_catalog_lists_repositories_in_pages(target: &Target) {
    let (first, second) = (target.repository(), target.repository());
    Sample::new(38).push(target, &first, "one");
    Sample::new(38).push(target, &second, "one");
    let answer = target.get("/v2/_catalog?n=1");
    if answer.status != 200 {
        target.unsupported("a catalog");
        return;
    }
    // Others may push meanwhile, and there may be many: only what lies about ours is looked at.
    let before = first.strip_suffix(|_: char| true).unwrap_or(&first).to_owned();
    let (mut found, mut pages) = (Vec::new(), 0);
    let mut next = Some(format!("/v2/_catalog?n=1&last={before}"));
    while let Some(path) = next.filter(|_| pages < 20 && found.len() < 2) {
        let answer = target.get(&path).expect_status(200);
        let page: Vec<String> = answer.json()["repositories"]
            .as_array()
            .map(|page| page.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect())
            .unwrap_or_default();
        assert!(page.len() <= 1, "a page of n=1 holds {page:?}");
        found.extend(page.into_iter().filter(|name| *name == first || *name == second));
        next = answer.next_page();
        pages += 1;
    }
    assert_eq!(found, [first, second]);
}

/// "If the request is invalid, such as a digest with an invalid syntax, a 400 Bad Request MUST be returned."
pub(super) fn referrers_of_no_digest_are_refused(target: &Target) {
    let (repository, sample) = (target.repository(), Sample::new(39));
    sample.push(target, &repository, "one");
    if !samples::has_referrers(target, &format!("/v2/{repository}/referrers/{}", sample.digest())) {
        return;
    }
    for no_digest in ["one", "sha256:short", "sha256:zzzz"] {
        let _ = target.get(&format!("/v2/{repository}/referrers/{no_digest}")).expect_status(400);
    }
}

/// What the entry of a referrer says: its type, or its config's, or (an index) none; and its annotations.
pub(super) fn a_referrer_is_described_by_its_own_fields(target: &Target) {
    let (repository, subject) = (target.repository(), Sample::new(131));
    subject.push(target, &repository, "subject");
    samples::push_blob(target, &repository, b"{}");
    let path = format!("/v2/{repository}/referrers/{}", subject.digest());
    if !samples::has_referrers(target, &path) {
        return;
    }
    let refers = json!({"mediaType": MANIFEST, "digest": subject.digest(), "size": subject.manifest.len()});
    let config = json!({"mediaType": "application/example.config", "digest": samples::digest(b"{}"), "size": 2});
    let annotations = json!({"org.example.key": "value"});
    for (media_type, manifest, artifact_type) in [
        (MANIFEST, json!({"artifactType": "application/a", "config": config, "layers": []}), json!("application/a")),
        (MANIFEST, json!({"config": config, "layers": []}), json!("application/example.config")),
        (
            MANIFEST,
            json!({"artifactType": "", "config": config, "layers": [], "x": 1}),
            json!("application/example.config"),
        ),
        (INDEX, json!({"artifactType": "application/i", "manifests": []}), json!("application/i")),
        (INDEX, json!({"manifests": []}), Value::Null),
    ] {
        let mut manifest = manifest;
        manifest["schemaVersion"] = json!(2);
        manifest["mediaType"] = json!(media_type);
        manifest["subject"] = refers.clone();
        manifest["annotations"] = annotations.clone();
        let bytes = manifest.to_string().into_bytes();
        let digest = samples::digest(&bytes);
        let _ = samples::put_manifest(target, &repository, &digest, media_type, &bytes)
            .expect_status(201)
            .expect_header("oci-subject", &subject.digest());
        let list = target.get(&path).expect_status(200).json();
        let entries = list["manifests"].as_array().cloned().unwrap_or_default();
        let entry = entries.iter().find(|entry| entry["digest"] == digest.as_str());
        let entry = entry.unwrap_or_else(|| panic!("{digest} is not in {list}"));
        assert_eq!(entry["artifactType"], artifact_type, "{manifest}");
        assert_eq!(entry["mediaType"], media_type);
        assert_eq!(entry["size"], bytes.len());
        assert_eq!(entry["annotations"]["org.example.key"], "value");
    }
}

/// Every referrer once, however many pages there are.
pub(super) fn many_referrers_are_listed_once(target: &Target) {
    let (repository, subject) = (target.repository(), Sample::new(132));
    subject.push(target, &repository, "subject");
    samples::push_blob(target, &repository, b"{}");
    let first = format!("/v2/{repository}/referrers/{}", subject.digest());
    if !samples::has_referrers(target, &first) {
        return;
    }
    let mut pushed: Vec<String> = (0..12)
        .map(|number| {
            let manifest = samples::referrer(&format!("application/n{number}"), &subject);
            let digest = samples::digest(&manifest);
            let _ = samples::put_manifest(target, &repository, &digest, MANIFEST, &manifest).expect_status(201);
            digest
        })
        .collect();
    let (mut found, mut pages, mut next) = (Vec::new(), 0, Some(first));
    while let Some(path) = next {
        let answer = target.get(&path).expect_status(200).expect_header("content-type", INDEX);
        let list = answer.json();
        let page = list["manifests"].as_array().cloned().unwrap_or_default();
        found.extend(page.iter().filter_map(|one| one["digest"].as_str().map(str::to_owned)));
        next = answer.next_page();
        pages += 1;
        assert!(pages < 20, "the pages do not end");
    }
    pushed.sort();
    found.sort();
    assert_eq!(found, pushed);
}

/// The index that a client without referrers keeps under a tag of its own neither hides nor doubles what refers.
pub(super) fn the_fallback_tag_and_the_list_agree(target: &Target) {
    let (repository, subject) = (target.repository(), Sample::new(133));
    let mut pushed = push_referrers(target, &repository, &subject);
    let path = format!("/v2/{repository}/referrers/{}", subject.digest());
    if !samples::has_referrers(target, &path) {
        return;
    }
    let entries: Vec<Value> =
        pushed[..1].iter().map(|digest| json!({"mediaType": MANIFEST, "digest": digest, "size": 1})).collect();
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).to_string().into_bytes();
    let tag = subject.digest().replace(':', "-");
    let _ = samples::put_manifest(target, &repository, &tag, INDEX, &index).expect_status(201);
    // The tag stays what the client made it.
    let answer = target.get(&format!("/v2/{repository}/manifests/{tag}")).expect_status(200);
    assert_eq!(answer.body, index);
    let list = target.get(&path).expect_status(200).json();
    let mut found: Vec<String> = list["manifests"]
        .as_array()
        .map(|list| list.iter().filter_map(|one| one["digest"].as_str().map(str::to_owned)).collect())
        .unwrap_or_default();
    found.sort();
    pushed.sort();
    assert_eq!(found, pushed);
}
