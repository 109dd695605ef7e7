//! "Content discovery" of the distribution specification: end-8, end-12.

use serde_json::Value;

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
        found.extend(page);
        pages += 1;
        assert!(pages < 10, "the pages do not end");
        next = answer
            .header("link")
            .and_then(|link| link.split_once('<'))
            .and_then(|(_, rest)| rest.split_once('>'))
            .map(|(path, _)| path.to_owned());
    }
    assert_eq!(found, all);
    let after = target.get(&format!("/v2/{repository}/tags/list?n=2&last=tag4")).expect_status(200).json();
    assert_eq!(names(&after), ["tag5", "tag6"]);
    let none = target.get(&format!("/v2/{repository}/tags/list?n=0")).expect_status(200).json();
    assert_eq!(names(&none), Vec::<String>::new());
}

fn push_referrers(target: &Target, repository: &str, subject: &Sample) -> Vec<String> {
    subject.push(target, repository, "subject");
    samples::push_blob(target, repository, b"{}");
    ["application/example.sbom", "application/example.signature"]
        .iter()
        .map(|kind| {
            let manifest = samples::referrer(kind, subject);
            let digest = samples::digest(&manifest);
            let _ = samples::put_manifest(target, repository, &digest, MANIFEST, &manifest)
                .expect_status(201)
                .expect_header("oci-subject", &subject.digest());
            digest
        })
        .collect()
}

/// `end-12a`
pub(super) fn referrers_are_listed(target: &Target) {
    let (repository, subject) = (target.repository(), Sample::new(33));
    let pushed = push_referrers(target, &repository, &subject);
    let list = target
        .get(&format!("/v2/{repository}/referrers/{}", subject.digest()))
        .expect_status(200)
        .expect_header("content-type", INDEX)
        .json();
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
    let list = target
        .get(&format!("/v2/{repository}/referrers/{}?artifactType=application/example.sbom", subject.digest()))
        .expect_status(200)
        .expect_header("oci-filters-applied", "artifactType")
        .json();
    assert_eq!(list["manifests"].as_array().map(Vec::len), Some(1), "{list}");
    assert_eq!(list["manifests"][0]["digest"], pushed[0].as_str());
}

/// "If the query results in no matching referrers, an empty manifest list MUST be returned."
pub(super) fn referrers_of_what_is_unknown_are_an_empty_list(target: &Target) {
    let (repository, sample) = (target.repository(), Sample::new(35));
    sample.push(target, &repository, "one");
    let list = target
        .get(&format!("/v2/{repository}/referrers/{}", samples::digest(b"unknown")))
        .expect_status(200)
        .expect_header("content-type", INDEX)
        .json();
    assert_eq!(list["manifests"].as_array().map(Vec::len), Some(0), "{list}");
}
