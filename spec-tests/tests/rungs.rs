//! The rungs of the ladder on real grounds: which one is chosen, what is said of the others, and what builds make there.

use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use spec_tests::dockerfiles::{Case, Exceptions, Rig, check, fluyt_on};
use spec_tests::grounds::{ALL, Ground, Network, Plan};
use spec_tests::program::{self, Outcome};

/// Those of `FLUYT_GROUNDS=name,name`, or all.
fn grounds() -> Vec<Plan> {
    let chosen = std::env::var("FLUYT_GROUNDS").unwrap_or_default();
    let chosen: Vec<&str> = chosen.split(',').filter(|name| !name.is_empty()).collect();
    ALL.iter().copied().filter(|plan| chosen.is_empty() || chosen.contains(&plan.name)).collect()
}

/// Builds a Dockerfile without a base image that is fetched, with busybox in its context.
fn build(ground: &Ground, dockerfile: &str, arguments: &[&str]) -> Outcome {
    let folder = ground.new_folder();
    let context = folder.folder("context");
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| std::path::Path::new(path).is_file());
    let _ = std::fs::copy(busybox.unwrap(), context.join("busybox")).unwrap();
    std::fs::write(context.join("Dockerfile"), dockerfile).unwrap();
    ground.give(folder.path());
    let store = ground.store("smoke");
    let mut command = Command::new(ground.fluyt());
    command.args(["build", "--progress", "plain"]).args(arguments).arg(&context).current_dir(folder.path());
    command.env("FLUYT_STORE", &store).env("HOME", folder.path()).env("NO_COLOR", "1");
    let outcome = program::finish(ground.command(command));
    ground.remove(&store);
    outcome
}

const RUN: &str = "FROM scratch\nCOPY busybox /bin/\nRUN [\"/bin/busybox\", \"sh\", \"-c\", \"busybox id -u; busybox mkdir /made; \
                   busybox rm /made/.. 2>/dev/null; echo all-is-well > /made/file; busybox cat /made/file\"]\n";

#[test]
fn each_ground_gets_its_rung() {
    let mut wrong = Vec::new();
    for plan in grounds() {
        let start = Instant::now();
        let Some(ground) = plan.enter("each_ground_gets_its_rung", Network::Own) else { continue };
        let (report, words) = ground.doctor();
        let rung = report["rung"].as_str().unwrap_or_default();
        if rung != plan.rung {
            wrong.push(format!("{}: expected {}, found {rung}:\n{words}", plan.name, plan.rung));
            continue;
        }
        for (refused, part) in plan.fixes {
            let list = report["refused"].as_array().cloned().unwrap_or_default();
            let fix = list.iter().find(|entry| entry["rung"] == *refused).map(|entry| entry["fix"].to_string());
            if !fix.as_ref().is_some_and(|fix| fix.contains(part)) {
                wrong.push(format!("{}: the fix of {refused} lacks `{part}`: {fix:?}", plan.name));
            }
        }
        // What it says is what happens.
        let outcome = build(&ground, RUN, &[]);
        match rung {
            "r5" => {
                let _ = outcome.expect_code(3).expect_message(&["RUN is not possible here"]);
                let _ = build(&ground, "FROM scratch\nCOPY busybox /bin/\nENV A=b\n", &[]).expect_success();
            }
            _ if outcome.code == Some(0) && outcome.stderr.contains("all-is-well") => {}
            _ => wrong.push(format!("{}: {}", plan.name, outcome.describe())),
        }
        println!("rung: {} {rung} ({} ms)", plan.name, start.elapsed().as_millis());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The rungs with the ground that the corpus runs on for each. That of root has a block of its own: `dockerfiles`.
const CORPUS: &[(&str, &str)] = &[("r2", "user-subids"), ("r3", "user"), ("r4", "docker"), ("r6", "docker-user")];

/// What a command does not matter to is the same on every rung: a few of those are enough.
fn chosen_cases() -> Vec<Case> {
    let named = std::env::var("FLUYT_CASES").unwrap_or_default();
    let named: Vec<String> = named.split(',').filter(|part| !part.is_empty()).map(str::to_owned).collect();
    let full = std::env::var("FLUYT_RUNGS_FULL").is_ok_and(|full| full == "yes");
    let mut cases = Case::all(&named).unwrap_or_else(|problems| panic!("{problems}"));
    let runs = |case: &Case| {
        let files = std::fs::read_dir(&case.folder).into_iter().flatten().flatten();
        let mut texts = files.filter_map(|entry| std::fs::read_to_string(entry.path()).ok());
        texts.any(|text| text.lines().any(|line| line.trim_start().to_ascii_uppercase().starts_with("RUN ")))
    };
    if named.is_empty() && !full {
        let mut others = 0;
        cases.retain(|case| {
            others += usize::from(!runs(case));
            runs(case) && !case.is_report() || !runs(case) && others % 16 == 0
        });
        let mut place = 0;
        cases.retain(|case| {
            place += 1;
            case.name.starts_with("run-") || place % 3 == 0
        });
    }
    cases
}

#[test]
fn the_corpus_comes_to_the_same_on_each_rung() {
    let test = "the_corpus_comes_to_the_same_on_each_rung";
    if !program::is_root(test) || !program::all_installed(test, &["busybox"]) {
        return;
    }
    let exceptions = Exceptions::load().unwrap();
    let cases = chosen_cases();
    let names: Vec<String> = cases.iter().map(|case| case.name.clone()).collect();
    let only = std::env::var("FLUYT_RUNGS").unwrap_or_default();
    let rig = Rig::start();
    let (wrong, mut tried) = (Mutex::new(Vec::new()), Vec::new());
    for (rung, name) in CORPUS.iter().filter(|(rung, _)| only.is_empty() || only.split(',').any(|one| one == *rung)) {
        let Some(ground) = Plan::named(name).unwrap().enter(test, Network::Host) else { continue };
        tried.push(*rung);
        let start = Instant::now();
        let (next, listed) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let work = || {
            while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                let mut case = case.clone();
                if *rung == "r3" && !case.is_report() {
                    // Users that are only recorded have to be allowed.
                    case.flags.insert(0, "--allow=user.recorded".to_owned());
                }
                let case = &case;
                let Some(problem) = check(case, &fluyt_on(case, &rig, &ground)) else { continue };
                if exceptions.explain(rung, &case.name, &problem).is_some() {
                    let _ = listed.fetch_add(1, Ordering::Relaxed);
                } else {
                    wrong.lock().unwrap().push(format!("== {rung} {}\n{problem}", case.name));
                }
            }
        };
        // A panic is one case's problem, and says which test it is: the thread's.
        thread::scope(|scope| (0..2).for_each(|_| drop(scope.spawn(work))));
        let (listed, seconds) = (listed.into_inner(), start.elapsed().as_secs());
        println!("rung: {rung} on {name}: {} cases, {listed} listed ({seconds} s)", cases.len());
    }
    let mut wrong = wrong.into_inner().unwrap();
    wrong.sort();
    wrong.extend(exceptions.unused(&tried, &names).into_iter().map(|entry| format!("== listed in vain: {entry}")));
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// What a command ends with, in the words of the build.
const ENDS: &[(&str, &str, &str)] = &[
    ("exit 3", "exited with status 3", ""),
    ("/folder", "exited with status 126", ""),
    ("/nothing", "exited with status 127", "not found"),
    ("busybox sh -c 'busybox kill -9 $$'; exit $?", "137", ""),
    // A program in Rust ignores this one, and who is started by it would too.
    ("busybox sh -c 'busybox kill -13 $$'; exit $?", "exited with status 141", ""),
    ("echo out; echo err >&2; exit 4", "exited with status 4", "err"),
];

#[test]
fn commands_end_with_the_same_codes_on_each_rung() {
    let mut wrong = Vec::new();
    for (rung, name) in [("r1", "root")].iter().chain(CORPUS) {
        let Some(ground) = Plan::named(name).unwrap().enter("commands_end_with_the_same_codes", Network::Own) else {
            continue;
        };
        for (script, end, said) in ENDS {
            let text = format!(
                "FROM scratch\nCOPY busybox /bin/\nSHELL [\"/bin/busybox\", \"sh\", \"-c\"]\n\
                                RUN busybox mkdir /folder\nRUN {script}\n"
            );
            let outcome = build(&ground, &text, &[]);
            if outcome.code != Some(1) || !outcome.stderr.contains(end) || !outcome.stderr.contains(said) {
                wrong.push(format!("{rung} on {name}: {script}: expected {end}: {}", outcome.describe()));
            }
        }
        // What a command leaves running ends with it, and process 1 of a sandbox is not ended from inside.
        let text = "FROM scratch\nCOPY busybox /bin/\nSHELL [\"/bin/busybox\", \"sh\", \"-c\"]\n\
                    RUN busybox setsid busybox sleep 1000 & trap '' TERM; kill $$; echo went-on\n";
        let outcome = build(&ground, text, &[]);
        if outcome.code != Some(0) || !outcome.stderr.contains("went-on") {
            wrong.push(format!("{rung} on {name}: {}", outcome.describe()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_command_that_runs_out_of_a_containers_memory_is_told_so() {
    let test = "a_command_that_runs_out_of_a_containers_memory_is_told_so";
    for name in ["docker-small", "docker-small-sysadmin"] {
        let Some(ground) = Plan::named(name).unwrap().enter(test, Network::Own) else { continue };
        // A line without an end, which has to be held whole.
        let hungry = "FROM scratch\nCOPY busybox /bin/\nRUN [\"/bin/busybox\", \"sh\", \"-c\", \
                      \"exec busybox tail /dev/zero\"]\n";
        let outcome = build(&ground, hungry, &[]).expect_code(1);
        println!(
            "rung: {name}: {}",
            outcome.stderr.lines().find(|line| line.starts_with("caused by")).unwrap_or_default()
        );
        let _ = outcome.expect_message(&["out of memory"]);
    }
}
