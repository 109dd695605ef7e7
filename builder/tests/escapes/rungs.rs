//! The rungs that the list is tried on, and where one of them differs from the list.

use super::attempts::{Attempt, Outcome};
use Outcome::{Harmless, Open, Refused};

/// The columns of the table.
pub(crate) const COLUMNS: &[&str] = &["r1", "r2", "r3", "r4"];

const NO_PROC: Outcome = Harmless(&["", "none", "empty", "E2"], "there is no `/proc`");
const NOT_THERE: Outcome = Refused(&["E2"]);
const PERM: Outcome = Refused(&["E1"]);
const SHARED: &str =
    "processes are shared with the machine or container around; there a container of its own for each build helps";

/// In a user namespace nobody may make a node, and no node of a layer is made.
const INSIDE: &[(&str, Outcome)] = &[
    ("open the disk of the host by a node of its own", PERM),
    ("open the machine's memory by a node of its own", PERM),
    ("open `/dev/fuse` by a node of its own", PERM),
    ("make that node in `/dev`", PERM),
    ("make that node in `/dev/shm`", PERM),
    ("make that node in a cache mount", PERM),
    ("make that node in a memory mount", PERM),
    ("open a node that the image brought", NOT_THERE),
    ("answer on a low port of the host", Refused(&["E13"])),
];

/// In a chroot.
const CHROOT: &[(&str, Outcome)] = &[
    ("leave by `chroot` into a folder, with the old root held open", PERM),
    ("open the disk of the host by a node of its own", PERM),
    ("open the machine's memory by a node of its own", PERM),
    ("open `/dev/fuse` by a node of its own", PERM),
    ("make that node in `/dev`", PERM),
    ("make that node in `/dev/shm`", PERM),
    ("make that node in a cache mount", PERM),
    ("make that node in a memory mount", PERM),
    ("open a node that the image brought", NOT_THERE),
    ("enter the namespaces of another process", NOT_THERE),
    ("name a program that the kernel starts at the next crash (`core_pattern`)", NOT_THERE),
    ("drop the machine's caches", NOT_THERE),
    ("read the list of keys", NO_PROC),
    ("count interrupts, to guess keystrokes", NO_PROC),
    ("change the ids of its user namespace", NOT_THERE),
    ("make itself the last to be killed for want of memory", NOT_THERE),
    ("change the machine through `/sys`", NOT_THERE),
    ("pass a mount on to the host", NO_PROC),
    ("find a mount that admits devices", NO_PROC),
    ("find a writable file system in `/sys`", NO_PROC),
    ("see processes of the host in `/proc`", NO_PROC),
    ("kill a process of the host by its number", Open(&["done"], SHARED)),
    ("kill all that it may", Open(&["with the host"], SHARED)),
    ("kill the process group of the builder", Harmless(&["apart"], "it is in a session of its own")),
    ("trace a process of the host", PERM),
    ("read the memory of a process of the host", PERM),
    ("hold a process of the host by a descriptor", Open(&["done"], SHARED)),
    ("change the limits of a process of the host", Open(&["done"], SHARED)),
    ("move a process of the host to another processor", PERM),
    (
        "outlive the step with a process in the background",
        Harmless(&["left"], "the sandbox kills all that came of the command; the test looks for it"),
    ),
    ("attach the host's shared memory", Open(&["done"], "shared memory is that of the machine or container around")),
    ("fill the machine's memory by `/dev/shm`", Harmless(&["done"], "it is a folder of the disk, gone with the step")),
    ("find any other descriptor", NO_PROC),
    ("talk to the builder over the standard input", NO_PROC),
    ("read variables of the builder", NO_PROC),
    ("find a secret of another step in a command line", NO_PROC),
    ("change the builder's program, by `/proc/self/exe` of process 1", NO_PROC),
    ("find the host's network devices", NO_PROC),
];

/// What an attempt comes to on a rung.
pub(crate) fn outcome(rung: &str, attempt: &Attempt) -> Outcome {
    let differences = match rung {
        "r2" | "r3" => INSIDE,
        "r4" => CHROOT,
        _ => &[],
    };
    let other = differences.iter().find(|(what, _)| *what == attempt.what);
    other.map_or(attempt.outcome, |(_, outcome)| *outcome)
}
