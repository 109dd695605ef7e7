//! The rungs of the ladder on real grounds: which one is chosen, what is said of the others, and what builds make there.

use std::process::Command;
use std::time::Instant;

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
        match (rung, plan.fault) {
            ("r5", _) => {
                let _ = outcome.expect_code(3).expect_message(&["RUN is not possible here"]);
                let _ = build(&ground, "FROM scratch\nCOPY busybox /bin/\nENV A=b\n", &[]).expect_success();
            }
            (_, Some(fault)) if outcome.code != Some(0) && outcome.stderr.contains(fault) => {}
            (_, Some(fault)) => {
                wrong.push(format!("{}: no more fails with `{fault}`: {}", plan.name, outcome.describe()))
            }
            (_, None) if outcome.code == Some(0) && outcome.stderr.contains("all-is-well") => {}
            (_, None) => wrong.push(format!("{}: {}", plan.name, outcome.describe())),
        }
        println!("rung: {} {rung} ({} ms)", plan.name, start.elapsed().as_millis());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
