//! Four hundred commands by eight threads, in a user namespace: none gets another's streams or code. A program of its own, as
//! only a process with one thread can go into a user namespace; `sandbox.rs` has the same for root.
//!
//! Needs root and a static busybox, and says `skipped` without them.
#![expect(clippy::print_stdout, reason = "what a test harness would say")]
#![expect(clippy::print_stderr, reason = "a skipped test says so")]

mod common;

use std::process::ExitCode;

use fluyt::sandbox::{self, Rung, Wish};

use common::{is_possible, many_runs};

const NAME: &str = "many_runs_at_once_do_not_mix_in_a_user_namespace";

fn main() -> ExitCode {
    // As cargo calls a harness: names to run, names to skip, and a list.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|word| word == "--list") {
        println!("{NAME}: test");
        return ExitCode::SUCCESS;
    }
    let is_name = |at: &usize| {
        let before = at.checked_sub(1).map_or("", |before| arguments[before].as_str());
        !arguments[*at].starts_with('-') && !["--skip", "--test-threads"].contains(&before)
    };
    let names: Vec<&str> = (0..arguments.len()).filter(is_name).map(|at| arguments[at].as_str()).collect();
    let is_wanted = names.is_empty() || names.iter().any(|name| NAME.contains(name));
    if is_wanted && is_possible() {
        sandbox::enter(Wish { only: Some(Rung::Rootless), least: None }, None, false);
        match sandbox::entered() {
            Some(Rung::Rootless) => many_runs(Rung::Rootless),
            _ => eprintln!("skipped: {NAME}: there is no user namespace here"),
        }
    }
    let (passed, filtered) = if is_wanted { (1, 0) } else { (0, 1) };
    println!("test result: ok. {passed} passed; 0 failed; 0 ignored; 0 measured; {filtered} filtered out");
    ExitCode::SUCCESS
}
