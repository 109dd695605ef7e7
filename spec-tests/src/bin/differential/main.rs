//! Each case through `fluyt` and through `BuildKit`: `differential --tools FOLDER [--part K/N] [CASE...]`.
//!
//! Exit code 1 when a difference is not listed or a listed one is not there, 3 when `BuildKit` cannot run.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this program is for the terminal")]
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use clap::Parser;
use spec_tests::dockerfiles::{Buildkit, Case, Difference, Listed, Rig, compare, fluyt};

/// Compares what fluyt and BuildKit make of the cases.
#[derive(Debug, Parser)]
struct Arguments {
    /// Folder that holds buildkitd and buildctl
    #[arg(long, value_name = "FOLDER")]
    tools: PathBuf,
    /// The Kth of N parts of the cases
    #[arg(long, value_name = "K/N", value_parser = part)]
    part: Option<(usize, usize)>,
    /// Parts of names of cases [default: all]
    #[arg(value_name = "CASE")]
    cases: Vec<String>,
}

fn part(text: &str) -> Result<(usize, usize), String> {
    let parsed = text.split_once('/').and_then(|(part, of)| Some((part.parse().ok()?, of.parse().ok()?)));
    parsed
        .filter(|(part, of)| part < of)
        .ok_or_else(|| format!("expected K/N with K from 0 and below N, found `{text}`"))
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let (mut cases, listed) = match (Case::all(&arguments.cases), Listed::all()) {
        (Ok(cases), Ok(listed)) => (cases, listed),
        (cases, listed) => {
            [cases.err(), listed.err()].into_iter().flatten().for_each(|problem| eprintln!("error: {problem}"));
            return ExitCode::from(1);
        }
    };
    if cases.is_empty() {
        eprintln!("error: no case has a name with `{}` in it", arguments.cases.join("` or `"));
        return ExitCode::from(1);
    }
    cases.retain(|case| case.fluyt_only.is_none() && !case.is_report() && !case.has_output());
    if let Some((part, of)) = arguments.part {
        let mut number = 0;
        cases.retain(|_| {
            number += 1;
            number % of == part
        });
    }
    let rig = Rig::start();
    let buildkit = match Buildkit::start(&arguments.tools, &rig) {
        Ok(buildkit) => buildkit,
        Err(reason) => {
            eprintln!("error: {reason}");
            return ExitCode::from(3);
        }
    };

    let (next, found) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            let result = match buildkit.build(case, &rig) {
                Ok(theirs) => {
                    let ours = fluyt(case, &rig);
                    let differences = compare(&case.name, &ours, &theirs);
                    // Of a build that only one of them refuses the reason is worth reading.
                    let said = differences.iter().any(|difference| difference.field == "outcome");
                    let said = said.then(|| if ours.image.is_none() { ours.stderr } else { theirs.stderr });
                    (differences, said)
                }
                Err(reason) => {
                    let field = "outcome".to_owned();
                    let hint = "not comparable: give it `# fluyt-only: REASON`".to_owned();
                    (vec![Difference { case: case.name.clone(), field, fluyt: hint, buildkit: reason }], None)
                }
            };
            found.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((case.name.clone(), result));
        }
    };
    thread::scope(|scope| (0..2).for_each(|_| drop(scope.spawn(work))));
    let mut found = found.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    found.sort_by(|one, other| one.0.cmp(&other.0));

    let (mut agree, mut known, mut unexplained) = (0, 0, 0);
    for (_, (differences, said)) in &found {
        agree += usize::from(differences.is_empty());
        for difference in differences {
            if listed.iter().any(|listed| listed.difference == *difference) {
                known += 1;
                continue;
            }
            unexplained += 1;
            let Difference { case, field, fluyt, buildkit } = difference;
            eprintln!("{case}: {field}\n  fluyt:    {fluyt}\n  buildkit: {buildkit}");
        }
        if let Some(said) = said {
            said.lines()
                .rev()
                .take(12)
                .collect::<Vec<_>>()
                .into_iter()
                .rev()
                .for_each(|line| eprintln!("    | {line}"));
        }
    }
    // An entry that no longer holds would hide the next difference.
    for listed in &listed {
        let built = found.iter().find(|(name, _)| *name == listed.difference.case);
        let unknown_case = arguments.cases.is_empty() && arguments.part.is_none() && built.is_none();
        let stale = built.is_some_and(|(_, (differences, _))| !differences.contains(&listed.difference));
        if stale || unknown_case {
            unexplained += 1;
            eprintln!("stale entry: {}: {}", listed.difference.case, listed.difference.field);
        }
    }
    println!("{agree} agree, {known} listed, {unexplained} unexplained");
    ExitCode::from(u8::from(unexplained > 0))
}
