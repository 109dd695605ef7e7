//! The table of requirements against the tests there are.

use std::collections::BTreeSet;
use std::fs;

use spec_tests::program;
use spec_tests::requirement::requirements;

#[test]
fn every_requirement_has_a_test_that_exists() {
    let mut names = BTreeSet::new();
    // What cannot be asked of any registry from outside is tested inside the registry's crate.
    let folders =
        ["spec-tests/src/http", "spec-tests/src/image", "spec-tests/tests", "registry/tests", "registry/src/spec"];
    for folder in folders {
        for file in fs::read_dir(program::repository().join(folder)).expect("a folder of tests") {
            let path = file.expect("a file").path();
            if path.extension().is_none_or(|extension| extension != "rs") {
                continue;
            }
            let text = fs::read_to_string(path).expect("a source file");
            names.extend(text.lines().filter_map(|line| {
                let name =
                    line.trim().trim_start_matches("pub(super) ").trim_start_matches("async ").strip_prefix("fn ")?;
                Some(name.split(['(', '<']).next()?.to_owned())
            }));
        }
    }
    for requirement in requirements() {
        assert!(!requirement.tests.is_empty(), "{} has no test", requirement.id);
        for test in requirement.tests {
            assert!(names.contains(*test), "{} names the test `{test}`, which does not exist", requirement.id);
        }
    }
}

#[test]
fn no_requirement_is_listed_twice() {
    let mut seen = BTreeSet::new();
    for requirement in requirements() {
        assert!(seen.insert(requirement.id), "{} is listed twice", requirement.id);
    }
}

/// A case that no requirement names would be nobody's.
#[test]
fn every_case_is_for_a_requirement() {
    let named: BTreeSet<&str> = requirements().flat_map(|requirement| requirement.tests).copied().collect();
    for case in spec_tests::http::CASES {
        assert!(named.contains(case.name), "no requirement names the case `{}`", case.name);
    }
}
