//! The table of requirements against the tests there are.

use std::collections::BTreeSet;
use std::fs;

use spec_tests::program;
use spec_tests::requirement::REQUIREMENTS;

#[test]
fn every_requirement_has_a_test_that_exists() {
    let mut names = BTreeSet::new();
    for folder in ["spec-tests/src/http", "spec-tests/src/image", "spec-tests/tests"] {
        for file in fs::read_dir(program::repository().join(folder)).expect("a folder of tests") {
            let text = fs::read_to_string(file.expect("a file").path()).expect("a source file");
            names.extend(text.lines().filter_map(|line| {
                let name = line.trim().trim_start_matches("pub(super) ").strip_prefix("fn ")?;
                Some(name.split(['(', '<']).next()?.to_owned())
            }));
        }
    }
    for requirement in REQUIREMENTS {
        assert!(!requirement.tests.is_empty(), "{} has no test", requirement.id);
        for test in requirement.tests {
            assert!(names.contains(*test), "{} names the test `{test}`, which does not exist", requirement.id);
        }
    }
}

#[test]
fn no_requirement_is_listed_twice() {
    let mut seen = BTreeSet::new();
    for requirement in REQUIREMENTS {
        assert!(seen.insert(requirement.id), "{} is listed twice", requirement.id);
    }
}
