//! The rungs that the list is tried on, and where one of them differs from the list.

use super::attempts::{ALONE, Attempt, Outcome};
use Outcome::{Harmless, Open, Refused};

/// The columns of the table.
pub(crate) const COLUMNS: &[&str] = &["r1", "r2", "r3", "r4", "r6"];

const NO_PROC: Outcome = Harmless(&["", "none", "empty", "E2"], "there is no `/proc`");
const NOT_THERE: Outcome = Refused(&["E2"]);
const PERM: Outcome = Refused(&["E1"]);
const ACCESS: Outcome = Refused(&["E13"]);
const ACCESS_IF_THERE: Outcome = Refused(&["E13", "E2", "E30"]);
/// As on a kernel without this call.
const UNKNOWN: Outcome = Refused(&["E38"]);
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
    ("signal one by the number of a thread", Open(&["done"], SHARED)),
    ("have the signals of a descriptor go to one", Open(&["done"], SHARED)),
    ("write to the memory of a process of the host", PERM),
    ("kill all that it may", Open(&["with the host"], SHARED)),
    ("kill the process group of the builder", Harmless(&["apart"], "it is in a session of its own")),
    ("trace a process of the host", PERM),
    ("read the memory of a process of the host", PERM),
    ("hold a process of the host by a descriptor", Open(&["done"], SHARED)),
    ("signal one by what a socket tells of its other end", Open(&["done"], SHARED)),
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

/// Under a tracer, for an ordinary user.
const TRACED: &[(&str, Outcome)] = &[
    ("leave by `chroot` into a folder, with the old root held open", PERM),
    ("open a file by the number of its handle, as an old escape from Docker did", UNKNOWN),
    ("change a tracer's copy of a path, in its own memory", PERM),
    ("open the disk of the host by a node of its own", PERM),
    ("open the machine's memory by a node of its own", PERM),
    ("open `/dev/fuse` by a node of its own", PERM),
    ("make that node in `/dev`", PERM),
    ("make that node in `/dev/shm`", PERM),
    ("make that node in a cache mount", PERM),
    ("make that node in a memory mount", PERM),
    ("open a node that the image brought", NOT_THERE),
    ("see the host's terminals in `/dev/pts`", Harmless(&["*"], "their names are seen, and none can be opened")),
    ("take a mount as a descriptor", UNKNOWN),
    ("enter the namespaces of another process", NOT_THERE),
    ("pass a mount on to the host", Harmless(&["*"], "it may not mount")),
    ("find a mount that admits devices", Harmless(&["*"], "they are the machine's, and it may make no node")),
    ("name a program that the kernel starts at the next crash (`core_pattern`)", ACCESS),
    ("name a program that the kernel loads modules with", ACCESS_IF_THERE),
    ("register an interpreter for the whole machine", ACCESS_IF_THERE),
    ("press the kernel's emergency keys (`sysrq-trigger`)", ACCESS_IF_THERE),
    ("move an interrupt to another processor", ACCESS_IF_THERE),
    ("drop the machine's caches", ACCESS),
    ("change the machine through `/sys`", ACCESS),
    ("name a program for device events", ACCESS_IF_THERE),
    ("find a writable file system in `/sys`", Harmless(&["*"], "it is root's there, and the builder is not")),
    ("leave its control group", ACCESS_IF_THERE),
    ("see processes of the host in `/proc`", Harmless(&["none"], "their numbers are seen, and nothing of them")),
    ("kill the process group of the builder", Harmless(&["apart"], "it is in a session of its own")),
    ("trace a process of the host", PERM),
    ("read the memory of a process of the host", PERM),
    ("write to the memory of a process of the host", PERM),
    ("signal one by what a socket tells of its other end", Refused(&["E92"])),
    ("start a process that no tracer sees", PERM),
    (
        "outlive the step with a process in the background",
        Harmless(&["left"], "the kernel kills it with its tracer; the test looks for it"),
    ),
    ("read the keys of the user's keyring", UNKNOWN),
    ("add a key for others to find", UNKNOWN),
    ("ask the host to make a key, by its helper program", UNKNOWN),
    ("attach the host's shared memory", Open(&["done"], "shared memory is that of the machine or container around")),
    ("fill the machine's memory by `/dev/shm`", Harmless(&["done"], "it is a folder of the disk, gone with the step")),
    ("find any other descriptor", Harmless(&["none"], "process 1 is not shown")),
    ("talk to the builder over the standard input", Harmless(&[""], "process 1 is not shown")),
    ("change the builder's program, by `/proc/self/exe` of process 1", Harmless(&[""], "process 1 is not shown")),
    ("use io_uring, past the filter", UNKNOWN),
    (
        "load a filter of its own, to lie to programs with more rights",
        Harmless(&["done"], "there are none: nobody gets rights by a program"),
    ),
    ("load one that has a process of its own answer its calls, before any other", PERM),
    ("get back a capability", Harmless(&["done"], "the tracer says so; the kernel gives none")),
    (
        "get back capabilities by a file that grants them",
        Harmless(&["E127"], "it starts, and has none; they are recorded for the image"),
    ),
    ("answer on a low port of the host", ACCESS),
];

/// What an attempt comes to on a rung.
pub(crate) fn outcome(rung: &str, attempt: &Attempt) -> Outcome {
    if rung == "r6" && ALONE.iter().any(|alone| std::ptr::eq(alone, attempt)) {
        return Refused(&["build"]);
    }
    let differences = match rung {
        "r2" | "r3" => INSIDE,
        "r4" => CHROOT,
        "r6" => TRACED,
        _ => &[],
    };
    let other = differences.iter().find(|(what, _)| *what == attempt.what);
    other.map_or(attempt.outcome, |(_, outcome)| *outcome)
}
