//! The corpus of Dockerfiles. `FLUYT_CASES=part,part` chooses by name, `FLUYT_BLESS=1` writes what comes of the chosen ones
//! as what is expected.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{fs, thread};

use spec_tests::dockerfiles::{Case, Checklist, Rig, bless, check, fluyt};
use spec_tests::program;

fn chosen() -> Vec<String> {
    let text = std::env::var("FLUYT_CASES").unwrap_or_default();
    text.split(',').filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

#[test]
fn every_case_comes_to_what_is_expected() {
    if !program::is_root("dockerfiles") || !program::all_installed("dockerfiles", &["busybox"]) {
        return;
    }
    let cases = Case::all(&chosen()).unwrap_or_else(|problems| panic!("{problems}"));
    assert!(!cases.is_empty(), "no case is named so");
    let blessing = std::env::var_os("FLUYT_BLESS").is_some();
    let rig = Rig::start();
    let (next, wrong) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            let built = fluyt(case, &rig);
            if blessing {
                bless(case, &built);
            } else if let Some(problem) = check(case, &built) {
                wrong.lock().unwrap().push(format!("== {}\n{problem}", case.name));
            }
        }
    };
    // A panic is one case's problem, and says which test it is: the thread's.
    thread::scope(|scope| (0..2).for_each(|_| drop(scope.spawn(work))));
    let mut wrong = wrong.into_inner().unwrap();
    wrong.sort();
    assert!(wrong.is_empty(), "{} of {} cases are wrong:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    println!("{} cases", cases.len());
}

/// Whether a test of that name is anywhere in the sources.
fn has_test(name: &str) -> bool {
    fn search(folder: &Path, needle: &str) -> bool {
        fs::read_dir(folder).into_iter().flatten().flatten().any(|entry| {
            let path = entry.path();
            match path.is_dir() {
                true => search(&path, needle),
                false => {
                    path.extension().is_some_and(|extension| extension == "rs")
                        && fs::read_to_string(&path).is_ok_and(|text| text.contains(needle))
                }
            }
        })
    }
    let needle = format!("fn {name}(");
    ["builder/src", "builder/tests", "spec-tests/tests", "spec-tests/src"]
        .iter()
        .any(|folder| search(&program::repository().join(folder), &needle))
}

#[test]
fn every_claim_of_the_checklist_is_shown() {
    let cases = Case::all(&[]).unwrap_or_else(|problems| panic!("{problems}"));
    let list = Checklist::load().unwrap();
    let problems = list.problems(&cases, has_test);
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}
