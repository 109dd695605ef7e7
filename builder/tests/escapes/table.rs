//! `ESCAPES.md`: the list as a table, for people.

use std::fmt::Write as _;

use super::attempts::{ALONE, ATTEMPTS, Attempt, Outcome};
use super::rungs::{COLUMNS, outcome};

const HEAD: &str = "\
# What a RUN may do, and what it may not

A Dockerfile is a program of somebody. This is what its commands can try, and what comes of it, on each way to run them that
`fluyt` has (`fluyt doctor` says which one a machine gets). The list is a test, `tests/escapes`, that makes each attempt in a real build, and this
file is made from it. The columns were tried on a Debian machine with `--isolation`: r6 by an ordinary user without any right, the others by root.

Three answers are possible. *refused*: the kernel or the sandbox says no, with this error. *harmless*: it works and reaches nothing
outside. **open**: it reaches something outside, and the row says what closes it.

## What holds the commands

| | what it is | what it protects |
|---|---|---|
| r1 | root, in mount, process, IPC, name and control group namespaces of its own | files, processes and memory of the host; the kernel by a filter of system calls (Docker's) and by capabilities (Docker's, without raw packets on the host's network). Root inside is root outside: a hole in the kernel is a hole in the machine |
| r2 | the same in a user namespace with many ids | the same, and root inside is an ordinary user outside: what a hole in the kernel gives is that user's, not root's |
| r3 | the same in a user namespace with one id | as r2; all that the command makes is that one user's |
| r4 | root with nothing but `chroot`, as in a container of Docker's defaults | files of the machine or container around, from a command that keeps to the rules of root; what protects the machine is the container. One build a container, please |
| r5 | no command runs | everything |
| r6 | an ordinary user's process, whose calls a tracer answers | what that user may not do, by the kernel. What that user *may* do, by the tracer alone: files outside of the root, processes, memory and variables of the builder. It copies what a call names before it looks, to where the program cannot write, and hands the kernel objects that it has opened, so that nothing can be exchanged in between; calls that it cannot judge are refused. But it is a program that takes decisions, and no wall of the kernel's: a mistake in it is a way out, to all that the builder's user has. Not protected: what processes of one user share without a name in the file system (**open** below), and the machine's processors, memory and disk. For strangers' Dockerfiles use r1 or r2 |

What no rung protects from: a command uses the machine's processors, memory, disk and (if the build has no other) network like any program that
the builder's user starts; `--memory`, `--cpu-quota` and `--ulimit` bound it, `--network none` and `--network isolated` cut it off. What it
writes goes into the image: whoever runs the image runs it.
";

/// The whole file.
pub(crate) fn page() -> String {
    let mut text = HEAD.to_owned();
    let count: usize = ATTEMPTS.iter().map(|(_, attempts)| attempts.len()).sum::<usize>() + ALONE.len();
    writeln!(text, "\n## The {count} attempts").unwrap();
    for (title, attempts) in ATTEMPTS.iter().copied().chain([("The network, with `--network none`", ALONE)]) {
        group(&mut text, title, attempts);
    }
    text
}

fn group(text: &mut String, title: &str, attempts: &[Attempt]) {
    writeln!(text, "\n### {title}\n\n| a command tries to | {} |", COLUMNS.join(" | ")).unwrap();
    writeln!(text, "|---|{}", "---|".repeat(COLUMNS.len())).unwrap();
    for attempt in attempts {
        let cells: Vec<String> = COLUMNS.iter().map(|rung| cell(outcome(rung, attempt))).collect();
        // What is the same everywhere is said once.
        let shown = |at: usize| {
            if at > 0 && cells[at] == cells[at - 1] { "the same".to_owned() } else { cells[at].clone() }
        };
        let cells: Vec<String> = (0..cells.len()).map(shown).collect();
        writeln!(text, "| {} | {} |", attempt.what, cells.join(" | ")).unwrap();
    }
}

fn cell(outcome: Outcome) -> String {
    match outcome {
        Outcome::Refused(errors) => {
            let names: Vec<&str> = errors.iter().map(|error| name(error)).collect();
            format!("refused: {}", names.join(" or "))
        }
        Outcome::Harmless(_, why) => format!("harmless: {why}"),
        Outcome::Open(_, what) => format!("**open**: {what}"),
    }
}

fn name(error: &str) -> &'static str {
    match error {
        "E1" => "EPERM",
        "E2" => "ENOENT",
        "E3" => "ESRCH",
        "E6" => "ENXIO",
        "E9" => "EBADF",
        "E13" => "EACCES",
        "E22" => "EINVAL",
        "E28" => "ENOSPC",
        "E30" => "EROFS",
        "E38" => "ENOSYS",
        "E92" => "ENOPROTOOPT",
        "E101" => "ENETUNREACH",
        "E111" => "ECONNREFUSED",
        "build" => "by the build, which says that no network can be made here",
        other => panic!("{other}: give it a name here"),
    }
}

#[test]
fn the_page_is_made_of_the_list() {
    let place = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("ESCAPES.md");
    let expected = page();
    if std::env::var_os("FLUYT_BLESS").is_some() {
        std::fs::write(&place, &expected).unwrap();
    }
    let found = std::fs::read_to_string(&place).unwrap_or_default();
    assert!(found == expected, "{} is not what the list says; FLUYT_BLESS=1 writes it", place.display());
}
