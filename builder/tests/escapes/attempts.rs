//! The list itself: what a command of a hostile Dockerfile tries, in perl, and what comes of it.
//!
//! An attempt's code gives a word: `E` and an error number where the kernel refused, or what it found. `$H{..}` holds what the
//! host prepared, `$N{..}` the numbers of calls.

/// What becomes of an attempt.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Outcome {
    /// The kernel or the sandbox refuses it: one of these error numbers.
    Refused(&'static [&'static str]),
    /// It works, and reaches nothing outside: the words that the code may give (`*`: any), and why that is harmless.
    Harmless(&'static [&'static str], &'static str),
    /// It reaches something outside the sandbox; the words, and what it is.
    Open(&'static [&'static str], &'static str),
}

/// One attempt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attempt {
    pub(crate) what: &'static str,
    pub(crate) code: &'static str,
    pub(crate) outcome: Outcome,
}

const fn attempt(what: &'static str, outcome: Outcome, code: &'static str) -> Attempt {
    Attempt { what, code, outcome }
}

use Outcome::{Harmless, Open, Refused};

const PERM: Outcome = Refused(&["E1"]);
const NOT_THERE: Outcome = Refused(&["E2"]);
const NO_PROCESS: Outcome = Refused(&["E3"]);
const READ_ONLY: Outcome = Refused(&["E30"]);
/// Read-only, and on some kernels not there.
const IF_THERE: Outcome = Refused(&["E30", "E2"]);
const NO_DEVICES: Outcome = Refused(&["E13"]);

/// On the network that a build has when nothing is said: the host's.
pub(crate) const ATTEMPTS: &[(&str, &[Attempt])] = &[
    ("Paths and links", PATHS),
    ("Devices", DEVICES),
    ("Mounts and namespaces", MOUNTS),
    ("/proc and /sys", PROC),
    ("Other processes", PROCESSES),
    ("Keys, memory and messages", KEYS),
    ("Inherited things", INHERITED),
    ("The kernel itself", KERNEL),
    ("The network, on the host's", NETWORK),
];

const PATHS: &[Attempt] = &[
    attempt("read a file of the host by its path", NOT_THERE, r#"opened($H{canary})"#),
    attempt("climb above the root with `..`", NOT_THERE, r#"opened(("../" x 40) . $H{canary})"#),
    attempt(
        "follow a link of the image to a file of the host",
        NOT_THERE,
        r#"symlink $H{canary}, "/link"; opened("/link")"#,
    ),
    attempt(
        "leave by `chroot` into a folder, with the old root held open",
        Harmless(&["E2"], "it arrives at the sandbox's own root"),
        r#"mkdir "/cell"; opendir(my $d, "/"); chroot "/cell" or return refused(); chdir $d; chdir ".." for 1..40; chroot "."; my $r = opened($H{canary}); $r"#,
    ),
    attempt(
        "open a file by the number of its handle, as an old escape from Docker did",
        PERM,
        r#"done(call($N{open_by_handle_at}, -100, pack("IiQ", 8, 1, 2), 0))"#,
    ),
    attempt("reach the host's root by `/proc/1/root`", NOT_THERE, r#"opened("/proc/1/root/../..$H{canary}")"#),
    attempt(
        "climb out by `..` above `/proc/self`, where paths of a tracer would lead to the host",
        NOT_THERE,
        r#"opened("/proc/self/../..$H{canary}")"#,
    ),
    attempt("climb out by `..` behind a link of `/proc`", NOT_THERE, r#"opened("/proc/net/../../..$H{canary}")"#),
    attempt(
        "climb out of a process's folder that it holds open",
        NOT_THERE,
        r#"my $d = call($N{openat}, -100, "/proc/self/task", 0200000); $d < 0 ? refused() : done(call($N{openat}, $d, "../../..$H{canary}", 0))"#,
    ),
    attempt(
        "change a path in shared memory while it is looked at",
        Harmless(&["own"], "whatever path is taken, it is one below the root"),
        r#"raced()"#,
    ),
    attempt(
        "exchange a folder for a link to the host while it is looked at",
        Harmless(&["own"], "a link leads to where it leads below the root"),
        r#"exchanged()"#,
    ),
    attempt(
        "change a tracer's copy of a path, in its own memory",
        Harmless(&["none"], "there is no tracer"),
        r#"copy_changed()"#,
    ),
    attempt("make a hard link to a file of the host", NOT_THERE, r#"done(link($H{canary}, "/hard") || -1)"#),
    attempt(
        "write to the layer below, which other builds share",
        Harmless(&["own"], "the write is copied into the step's own layer; the test looks at the layer below"),
        r#"open(my $f, ">>", "/shared") or return refused(); print $f "changed"; close $f; "own""#,
    ),
    attempt(
        "reach a file of the host through a mount's target that is a link",
        Harmless(&["inside"], "the mount lands in the image; the test looks at the host"),
        r#"-d "/way-out/of/here" ? "inside" : "lost""#,
    ),
];

const DEVICES: &[Attempt] = &[
    attempt(
        "open the disk of the host by a node of its own",
        NO_DEVICES,
        r#"my ($a, $b) = split /:/, $H{disk}; node("/disk", 0060600, $a, $b)"#,
    ),
    attempt("open the machine's memory by a node of its own", NO_DEVICES, r#"node("/mem", 0020600, 1, 1)"#),
    attempt("open `/dev/fuse` by a node of its own", NO_DEVICES, r#"node("/fuse", 0020600, 10, 229)"#),
    attempt("make that node in `/dev`", NO_DEVICES, r#"node("/dev/mem", 0020600, 1, 1)"#),
    attempt("make that node in `/dev/shm`", NO_DEVICES, r#"node("/dev/shm/mem", 0020600, 1, 1)"#),
    attempt("make that node in a cache mount", NO_DEVICES, r#"node("/cache/mem", 0020600, 1, 1)"#),
    attempt("make that node in a memory mount", NO_DEVICES, r#"node("/memory/mem", 0020600, 1, 1)"#),
    attempt("open a node that the image brought", NO_DEVICES, r#"opened("/brought")"#),
    attempt(
        "find other devices in `/dev`",
        Harmless(&["none"], "there are the six usual ones"),
        r#"my @o; find("/dev", sub { push @o, $_[0] if (-b $_[0] || -c $_[0]) && $_[0] !~ m{^/dev/(null|zero|full|random|urandom|tty|pts/ptmx|mem|shm/mem|ptmx)$} }); @o ? "@o" : "none""#,
    ),
    attempt("open the terminal of who started the build", Refused(&["E6", "E2"]), r#"opened("/dev/tty")"#),
    attempt(
        "see the host's terminals in `/dev/pts`",
        Harmless(&["none"], "it is a new one"),
        r#"my @t = grep { /^\d+$/ } names("/dev/pts"); @t ? "@t" : "none""#,
    ),
];

const MOUNTS: &[Attempt] = &[
    attempt("mount a memory file system", PERM, r#"done(call($N{mount}, "none", "/mnt", "tmpfs", 0, 0))"#),
    attempt("mount the disk of the host", PERM, r#"done(call($N{mount}, "/disk", "/mnt", "ext4", 0, 0))"#),
    attempt("mount a new `/proc` without the masks", PERM, r#"done(call($N{mount}, "proc", "/mnt", "proc", 0, 0))"#),
    attempt(
        "mount control groups, for a release agent",
        PERM,
        r#"done(call($N{mount}, "cgroup", "/mnt", "cgroup", 0, "memory"))"#,
    ),
    attempt("mount by the newer calls", PERM, r#"done(call($N{fsopen}, "tmpfs", 0))"#),
    attempt("take a mount as a descriptor", PERM, r#"done(call($N{open_tree}, -100, "/", 1))"#),
    attempt("remount the root with devices", PERM, r#"done(call($N{mount}, "none", "/", "", 32, 0))"#),
    attempt(
        "remount a read-only folder of `/proc` writable",
        PERM,
        r#"done(call($N{mount}, "none", "/proc/sys", "", 32 | 4096, 0))"#,
    ),
    attempt("take a mask off `/proc/kcore`", PERM, r#"done(call($N{umount2}, "/proc/kcore", 2))"#),
    attempt("take the root away under a new one", PERM, r#"done(call($N{pivot_root}, ".", "."))"#),
    attempt(
        "change attributes of a mount",
        PERM,
        r#"done(call($N{mount_setattr}, -100, "/", 0, pack("Q4", 0, 4, 0, 0), 32))"#,
    ),
    attempt("make a user namespace, to be root in it", PERM, r#"done(call($N{unshare}, 0x10000000))"#),
    attempt("make a mount namespace", PERM, r#"done(call($N{unshare}, 0x20000))"#),
    attempt(
        "make a user namespace by `clone`",
        PERM,
        r#"my $p = call($N{clone}, 0x10000000 | 17, 0, 0, 0, 0); exit 0 if $p == 0; done($p)"#,
    ),
    attempt(
        "make one by `clone3`, whose flags no filter can see",
        Refused(&["E38"]),
        r#"done(call($N{clone3}, pack("Q11", 0x10000000, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0), 88))"#,
    ),
    attempt(
        "enter the namespaces of another process",
        PERM,
        r#"open(my $n, "<", "/proc/1/ns/mnt") or return refused(); done(call($N{setns}, fileno($n), 0))"#,
    ),
    attempt(
        "pass a mount on to the host",
        Harmless(&["none"], "no mount of the sandbox is shared with others"),
        r#"my @s = grep { / (shared|master|propagate_from):/ } lines("/proc/self/mountinfo"); @s ? "@s" : "none""#,
    ),
    attempt(
        "find a mount that admits devices",
        Harmless(&["none"], "there are the single nodes of `/dev`, `/dev/pts`, and the null device over hidden files"),
        r#"my @s = map { (split / /)[4] } grep { (split / /)[5] !~ /nodev/ } lines("/proc/self/mountinfo"); @s = grep { !m{^/dev/(null|zero|full|random|urandom|tty|pts)$} && !m{^/proc/} } @s; @s ? "@s" : "none""#,
    ),
];

const PROC: &[Attempt] = &[
    attempt(
        "name a program that the kernel starts at the next crash (`core_pattern`)",
        READ_ONLY,
        r#"written("/proc/sys/kernel/core_pattern", "|/evil")"#,
    ),
    attempt(
        "name a program that the kernel loads modules with",
        IF_THERE,
        r#"written("/proc/sys/kernel/modprobe", "/evil")"#,
    ),
    attempt(
        "register an interpreter for the whole machine",
        Refused(&["E30", "E2", "E1"]),
        r#"written("/proc/sys/fs/binfmt_misc/register", ":evil:M::MZ::/evil:")"#,
    ),
    attempt("press the kernel's emergency keys (`sysrq-trigger`)", IF_THERE, r#"written("/proc/sysrq-trigger", "h")"#),
    attempt("move an interrupt to another processor", IF_THERE, r#"written("/proc/irq/default_smp_affinity", "1")"#),
    attempt("drop the machine's caches", READ_ONLY, r#"written("/proc/sys/vm/drop_caches", "1")"#),
    attempt(
        "read the kernel's memory in `/proc/kcore`",
        Harmless(&["empty", "E2"], "it is empty, or not there"),
        r#"content("/proc/kcore")"#,
    ),
    attempt("read the list of keys", Harmless(&["empty"], "it is empty"), r#"content("/proc/keys")"#),
    attempt(
        "read the timers of other processes",
        Harmless(&["empty", "E2"], "it is empty, or not there"),
        r#"content("/proc/timer_list")"#,
    ),
    attempt(
        "count interrupts, to guess keystrokes",
        Harmless(&["empty"], "it is empty"),
        r#"content("/proc/interrupts")"#,
    ),
    attempt("change the ids of its user namespace", PERM, r#"written("/proc/self/uid_map", "0 0 4294967295\n")"#),
    attempt(
        "make itself the last to be killed for want of memory",
        NO_DEVICES,
        r#"written("/proc/self/oom_score_adj", "-1000")"#,
    ),
    attempt(
        "change the machine through `/sys`",
        READ_ONLY,
        r#"my $p = "/sys/kernel/mm/transparent_hugepage/enabled"; my ($now) = content($p) =~ /\[(\w+)\]/; written($p, $now)"#,
    ),
    attempt("name a program for device events", IF_THERE, r#"written("/sys/kernel/uevent_helper", "/evil")"#),
    attempt(
        "find a writable file system in `/sys`",
        Harmless(&["none"], "each is read-only"),
        r#"my @s = map { (split / /)[4] } grep { my @f = split / /; $f[4] =~ m{^/sys} && $f[5] !~ /^ro/ } lines("/proc/self/mountinfo"); @s ? "@s" : "none""#,
    ),
    attempt(
        "read the machine's firmware tables",
        Harmless(&["empty", "E2"], "the folder is empty"),
        r#"my @n = names("/sys/firmware"); @n ? "@n" : "empty""#,
    ),
    attempt(
        "measure the machine's power",
        Harmless(&["empty", "E2"], "the folder is empty"),
        r#"my @n = names("/sys/devices/virtual/powercap"); @n ? "@n" : "empty""#,
    ),
    attempt(
        "trace the kernel by debugfs",
        Harmless(&["empty"], "the folder is empty"),
        r#"my @n = names("/sys/kernel/debug"); @n ? "@n" : "empty""#,
    ),
    attempt("leave its control group", IF_THERE, r#"written("/sys/fs/cgroup/cgroup.procs", $$)"#),
];

const PROCESSES: &[Attempt] = &[
    attempt(
        "see processes of the host in `/proc`",
        Harmless(&["none"], "there are its own only"),
        r#"my @p = grep { /^\d+$/ && content("/proc/$_/cmdline") =~ /$H{mark}/ } names("/proc"); @p ? "@p" : "none""#,
    ),
    attempt("kill a process of the host by its number", NO_PROCESS, r#"done(kill(0, $H{pid}) || -1)"#),
    attempt(
        "signal one by the number of a thread",
        NO_PROCESS,
        r#"done(call($N{tgkill}, $H{pid} + 0, $H{pid} + 0, 0))"#,
    ),
    attempt("have the signals of a descriptor go to one", NO_PROCESS, r#"done(call($N{fcntl}, 0, 8, $H{pid} + 0))"#),
    attempt(
        "start a process that no tracer sees",
        Harmless(&["done"], "there is no tracer"),
        r#"my $p = call($N{clone}, 0x800000 | 17, 0, 0, 0, 0); call($N{exit_group}, 0) if $p == 0; done($p)"#,
    ),
    attempt(
        "write to the memory of a process of the host",
        NO_PROCESS,
        r#"my $b = "x" x 8; done(call($N{process_vm_writev}, $H{pid} + 0, pack("PQ", $b, 8), 1, pack("QQ", 4194304, 8), 1, 0))"#,
    ),
    attempt(
        "kill all that it may",
        Harmless(&["alive"], "that is what it started itself; the test looks at the host's process"),
        r#"getppid() == 1 || $H{rung} eq "r6" or return "with the host"; my $c = fork; if (!$c) { sleep 100; exit } $SIG{TERM} = "IGNORE"; kill "TERM", -1; waitpid $c, 0; "alive""#,
    ),
    attempt(
        "kill the process group of the builder",
        Harmless(&["own"], "it is in a session of its own"),
        r#"getppid() == 1 && getpgrp() == 1 ? "own" : getpgrp() == getppid() ? "apart" : "of " . getpgrp()"#,
    ),
    attempt("trace a process of the host", NO_PROCESS, r#"done(call($N{ptrace}, 16, $H{pid} + 0, 0, 0))"#),
    attempt(
        "read the memory of a process of the host",
        NO_PROCESS,
        r#"my $b = "x" x 8; done(call($N{process_vm_readv}, $H{pid} + 0, pack("PQ", $b, 8), 1, pack("QQ", 4194304, 8), 1, 0))"#,
    ),
    attempt("hold a process of the host by a descriptor", NO_PROCESS, r#"done(call($N{pidfd_open}, $H{pid} + 0, 0))"#),
    attempt(
        "signal one by what a socket tells of its other end",
        // Kernels before 6.5 tell nothing.
        Refused(&["E22", "E92"]),
        r#"socket(my $s, 1, 1, 0); connect($s, pack("S", 1) . "\0" . $H{mark}) or return "no socket"; my $p = getsockopt($s, 1, 77) or return refused(); done(call($N{pidfd_send_signal}, unpack("i", $p), 0, 0, 0))"#,
    ),
    attempt(
        "change the limits of a process of the host",
        NO_PROCESS,
        r#"done(call($N{prlimit64}, $H{pid} + 0, 7, pack("QQ", 1, 1), 0))"#,
    ),
    attempt(
        "move a process of the host to another processor",
        NO_PROCESS,
        r#"done(call($N{sched_setaffinity}, $H{pid} + 0, 8, pack("Q", 1)))"#,
    ),
    attempt("copy a descriptor of process 1", PERM, r#"done(call($N{pidfd_getfd}, 0, 0, 0))"#),
    attempt(
        "raise its own resource limits",
        PERM,
        r#"my $l = pack("QQ", 0, 0); syscall($N{prlimit64}, 0, 7, 0, $l); my (undef, $hard) = unpack("QQ", $l); done(call($N{prlimit64}, 0, 7, pack("QQ", $hard + 1, $hard + 1), 0))"#,
    ),
    attempt(
        "outlive the step with a process in the background",
        Harmless(&["left"], "the kernel kills it with process 1; the test looks for it"),
        r#"my $c = fork; if (!$c) { setpgrp; call($N{setsid}); exec "sleep", $H{survivor}; } "left""#,
    ),
];

const KEYS: &[Attempt] = &[
    attempt("read the keys of the user's keyring", PERM, r#"done(call($N{keyctl}, 11, -4, 0, 0))"#),
    attempt("add a key for others to find", PERM, r#"done(call($N{add_key}, "user", "evil", "x", 1, -4))"#),
    attempt(
        "ask the host to make a key, by its helper program",
        PERM,
        r#"done(call($N{request_key}, "user", "evil", "x", -4))"#,
    ),
    attempt("attach the host's shared memory", NOT_THERE, r#"done(call($N{shmget}, $H{shm} + 0, 0, 0))"#),
    attempt("find the host's files in `/dev/shm`", NOT_THERE, r#"opened("/dev/shm/$H{mark}")"#),
    attempt(
        "find the host's message queues",
        Harmless(&["none"], "it is a new one"),
        r#"my @q = names("/dev/mqueue"); @q ? "@q" : "none""#,
    ),
    attempt(
        "fill the machine's memory by `/dev/shm`",
        Refused(&["E28"]),
        r#"open(my $f, ">", "/dev/shm/big") or return refused(); my $ok = 1; for (1..80) { $ok &&= syswrite($f, "x" x 1048576); last unless $ok } my $r = $ok ? "done" : refused(); close $f; unlink "/dev/shm/big"; $r"#,
    ),
];

const INHERITED: &[Attempt] = &[
    attempt(
        "use a descriptor that the builder was started with",
        Refused(&["E9"]),
        r#"done(call($N{openat}, $H{descriptor} + 0, ".", 0))"#,
    ),
    attempt(
        "find any other descriptor",
        Harmless(&["none"], "there are the three streams"),
        r#"my @f = grep { !/^[012]$/ && readlink("/proc/1/fd/$_") !~ m{^(/proc|/results|/attempts|pipe:)} } names("/proc/1/fd"); @f ? "@f" : "none""#,
    ),
    attempt(
        "talk to the builder over the standard input",
        Harmless(&["/dev/null"], "it is `/dev/null`"),
        r#"readlink "/proc/1/fd/0""#,
    ),
    attempt(
        "read variables of the builder",
        Harmless(&["none"], "it has its own only"),
        r#"my @e = grep { /$H{mark}/ } map { content("/proc/$_/environ") } grep { /^\d+$/ } names("/proc"); @e ? "found" : "none""#,
    ),
    attempt(
        "read variables of the builder by `..` above `/proc/self`",
        Harmless(&["none"], "it has its own only"),
        r#"my @e = grep { /$H{mark}/ } map { content("/proc/self/../$_/environ") } grep { /^\d+$/ } names("/proc"); @e ? "found" : "none""#,
    ),
    attempt(
        "find a secret of another step in a command line",
        Harmless(&["none"], "secrets travel over a socket; the command line of the sandbox holds nothing"),
        r#"my @e = grep { /$H{secret}/ } map { content("/proc/$_/cmdline") } grep { /^\d+$/ } names("/proc"); @e ? "found" : "none""#,
    ),
    attempt("find a secret of another step where it was mounted", NOT_THERE, r#"opened("/run/secrets/token")"#),
    attempt(
        "change the builder's program, by `/proc/self/exe` of process 1",
        Harmless(&["own"], "it is the command's own program; before that, the builder's, on a read-only mount"),
        r#"my $e = readlink("/proc/1/exe"); $e =~ m{^/(usr/)?bin/} ? "own" : $e"#,
    ),
];

const KERNEL: &[Attempt] = &[
    attempt("load a kernel module", PERM, r#"done(call($N{init_module}, "x", 1, ""))"#),
    attempt("load a kernel module from a file", PERM, r#"done(call($N{finit_module}, 0, "", 0))"#),
    attempt("load another kernel", PERM, r#"done(call($N{kexec_load}, 0, 0, 0, 0))"#),
    attempt("reboot the machine", PERM, r#"done(call($N{reboot}, 0, 0, 0, 0))"#),
    attempt("load a BPF program", PERM, r#"done(call($N{bpf}, 0, 0, 0))"#),
    attempt("count events of the processor", PERM, r#"done(call($N{perf_event_open}, 0, 0, -1, -1, 0))"#),
    attempt("use io_uring, past the filter", PERM, r#"done(call($N{io_uring_setup}, 1, 0))"#),
    attempt("handle page faults in user space", PERM, r#"done(call($N{userfaultfd}, 0))"#),
    attempt("read the kernel's log", PERM, r#"done(call($N{syslog}, 3, 0, 0))"#),
    attempt(
        "set the machine's clock",
        PERM,
        r#"my $t = pack("QQ", 0, 0); syscall($N{gettimeofday}, $t, 0); $! = 0; done(call($N{settimeofday}, $t, 0))"#,
    ),
    attempt("slew the machine's clock", PERM, r#"done(call($N{adjtimex}, pack("I2Q25", 1, 0, (0) x 25)))"#),
    attempt(
        "set the host name",
        PERM,
        r#"my $n = content("/proc/sys/kernel/hostname"); chomp $n; $! = 0; done(call($N{sethostname}, $n, length $n))"#,
    ),
    attempt("use a swap file", PERM, r#"done(call($N{swapon}, "/results", 0))"#),
    attempt("write accounts of processes", PERM, r#"done(call($N{acct}, "/results"))"#),
    attempt("change quotas", PERM, r#"done(call($N{quotactl}, 0, 0, 0, 0))"#),
    attempt("reach ports of the machine", Refused(&["E1", "E38"]), r#"done(call($N{iopl}, 3))"#),
    attempt("switch address randomisation off", PERM, r#"done(call($N{personality}, 0x40000))"#),
    attempt("use a call that the filter does not know yet", Refused(&["E38"]), r#"done(call(600))"#),
    attempt(
        "use a call by its number of x32",
        Refused(&["E1", "E38"]),
        r#"done(call(0x40000000 | $N{mount}, "none", "/mnt", "tmpfs", 0, 0))"#,
    ),
    attempt(
        "load a filter of its own, to lie to programs with more rights",
        Refused(&["E13"]),
        r#"my $i = pack("SCCI", 6, 0, 0, 0x7fff0000); done(call($N{seccomp}, 1, 0, pack("Sx6P", 1, $i)))"#,
    ),
    attempt(
        "load one that has a process of its own answer its calls, before any other",
        Refused(&["E13"]),
        r#"my $i = pack("SCCI", 6, 0, 0, 0x7fff0000); done(call($N{seccomp}, 1, 8, pack("Sx6P", 1, $i)))"#,
    ),
    attempt(
        "get back a capability",
        PERM,
        r#"my $d = pack("I6", 0xffffffff, 0xffffffff, 0, 0x1ff, 0x1ff, 0); done(call($N{capset}, pack("II", 0x20080522, 0), $d))"#,
    ),
    attempt(
        "get back capabilities by a file that grants them",
        Refused(&["E1"]),
        r#"open(my $f, ">", "/granting") or return refused(); print $f content("/bin/true", 5000000); close $f; chmod 0755, "/granting"; call($N{setxattr}, "/granting", "security.capability", pack("I5", 0x02000001, 0x200000, 0, 0, 0), 20, 0) == 0 or return "not set: " . refused(); my $p = fork; if (!$p) { exec "/granting" or exit($! + 0) } waitpid $p, 0; "E" . ($? >> 8)"#,
    ),
];

/// On the host's network.
const NETWORK: &[Attempt] = &[
    attempt("see all packets of the machine", PERM, r#"done(call($N{socket}, 17, 3, 0x300))"#),
    attempt("send packets of its own making", PERM, r#"done(call($N{socket}, 2, 3, 1))"#),
    attempt("talk to the host of a virtual machine (`AF_VSOCK`)", PERM, r#"done(call($N{socket}, 40, 1, 0))"#),
    attempt("use the kernel's cryptography (`AF_ALG`)", PERM, r#"done(call($N{socket}, 38, 5, 0))"#),
    attempt("change the host's network devices", PERM, r#"device_changed()"#),
    attempt(
        "talk to the container engine's socket",
        NOT_THERE,
        r#"connected(pack("Sa108", 1, "/run/docker.sock"), 1)"#,
    ),
    attempt(
        "send a message to a socket of the host by its path",
        NOT_THERE,
        r#"my $s = call($N{socket}, 1, 2, 0); my $a = pack("Sa108", 1, $H{datagram}); call($N{sendto}, $s, "x", 1, 0, $a, length $a) < 0 or return "done"; my $b = "x"; my $v = pack("PQ", $b, 1); done(call($N{sendmsg}, $s, pack("PLx4PQQQLx4", $a, length $a, $v, 1, 0, 0, 0), 0))"#,
    ),
    attempt(
        "send many messages at once to a socket of the host by its path",
        NOT_THERE,
        r#"my $s = call($N{socket}, 1, 2, 0); my $a = pack("Sa108", 1, $H{datagram}); my $b = "x"; my $v = pack("PQ", $b, 1); my $m = pack("PLx4PQQQLx4Lx4", $a, length $a, $v, 1, 0, 0, 0, 0); done(call($N{sendmmsg}, $s, $m, 1, 0))"#,
    ),
    attempt(
        "talk to a service on the host's loopback device",
        Open(&["done"], "the host's network is the command's; `--network none` or `isolated` closes it"),
        r#"connected(pack("SnNx8", 2, $H{port}, 0x7f000001), 2)"#,
    ),
    attempt(
        "talk to an abstract socket of the host",
        Open(&["done"], "they belong to the network; `--network none` or `isolated` closes it"),
        r#"connected(pack("S", 1) . "\0" . $H{mark}, 1)"#,
    ),
    attempt(
        "answer on a low port of the host",
        Open(&["done"], "as with `docker build --network host`; `--network none` or `isolated` closes it"),
        r#"listening(pack("SnNx8", 2, $H{low}, 0x7f000001))"#,
    ),
];

/// The same with `--network=none`.
pub(crate) static ALONE: &[Attempt] = &[
    attempt(
        "talk to a service on the host's loopback device",
        Refused(&["E111"]),
        r#"connected(pack("SnNx8", 2, $H{port}, 0x7f000001), 2)"#,
    ),
    attempt(
        "talk to an abstract socket of the host",
        Refused(&["E111"]),
        r#"connected(pack("S", 1) . "\0" . $H{mark}, 1)"#,
    ),
    attempt(
        "answer on a low port",
        Harmless(&["done"], "it is a port of its own loopback device"),
        r#"listening(pack("SnNx8", 2, $H{low}, 0x7f000001))"#,
    ),
    attempt("see packets", Harmless(&["done"], "there are its own only"), r#"done(call($N{socket}, 17, 3, 0x300))"#),
    attempt("talk to the world", Refused(&["E101"]), r#"connected(pack("SnNx8", 2, 53, 0x01010101), 2)"#),
    attempt(
        "find the host's network devices",
        Harmless(&["lo"], "there is its own loopback device"),
        r#"join " ", sort(names("/sys/class/net"))"#,
    ),
    attempt("change network devices", PERM, r#"device_changed()"#),
];

/// What both lists need: perl.
pub(crate) const TOOLS: &str = r#"

sub call { my ($n, @a) = @_; $! = 0; syscall($n, @a) }
sub refused { "E" . ($! + 0) }
sub done { my $r = shift; defined $r && $r ne "" && $r != -1 ? "done" : refused() }
sub opened { open(my $f, "<", $_[0]) ? "done" : refused() }
sub written { my ($p, $t) = @_; $! = 0; sysopen(my $f, $p, 1) or return refused(); defined syswrite($f, $t) ? "done" : refused() }
sub content { open(my $f, "<", $_[0]) or return refused(); my $n = sysread($f, my $b, $_[1] || 65536); defined $n ? ($n ? $b : "empty") : refused() }
sub lines { open(my $f, "<", $_[0]) or return (); my @l = <$f>; chomp @l; @l }
sub names { opendir(my $d, $_[0]) or return (); grep { !/^\.\.?$/ } readdir $d }
sub find { my ($p, $f) = @_; for (names($p)) { my $q = "$p/$_"; next if -l $q; $f->($q); find($q, $f) if -d $q } }
sub node { my ($p, $m, $a, $b) = @_; $! = 0; call($N{mknodat}, -100, $p, $m, ($a << 8) | $b) == 0 or return refused(); opened($p) }
sub connected { my ($a, $f) = @_; my $s = call($N{socket}, $f, 1, 0); return refused() if $s < 0; $! = 0; call($N{connect}, $s, $a, length $a) == 0 ? "done" : refused() }
sub listening { my ($a) = @_; my $s = call($N{socket}, 2, 1, 0); return refused() if $s < 0; $! = 0; call($N{bind}, $s, $a, length $a) == 0 ? "done" : refused() }
sub device_changed { my $s = call($N{socket}, 2, 2, 0); $! = 0; my $q = pack("a16Sx22", "lo", 0x49); call($N{ioctl}, $s, 0x8914, $q) == 0 ? "done" : refused() }
sub at { unpack("J", pack("P", $_[0])) }
sub raced {
    my $m = call($N{mmap}, 0, 4096, 3, 0x21, -1, 0);
    my @p = map { pack("a4000", $_) } "/shared", $H{canary};
    my $w = fork;
    if (!$w) { open(my $z, "+>", "/racing") or call($N{exit_group}, 1); syswrite($z, join "", @p); while (1) { for (0, 1) { sysseek($z, $_ * 4000, 0); syscall($N{read}, fileno($z), $m, 4000) } } }
    my ($r, $end) = ("own", time + 2);
    while (time < $end && $r eq "own") {
        my $d = syscall($N{openat}, -100, $m, 0);
        next if $d < 0;
        my $b = "x" x 10; my $n = syscall($N{read}, $d, $b, 10); syscall($N{close}, $d);
        $r = "escaped" if $b =~ /the host/;
    }
    kill "KILL", $w; waitpid $w, 0; $r
}
sub exchanged {
    my ($f, $name) = $H{canary} =~ m{(.*)/(.*)}; my $own = "/exchange"; mkdir $own; mkdir "$own/a"; symlink $f, "$own/b"; open(my $h, ">", "$own/a/$name"); close $h;
    my $w = fork;
    if (!$w) { while (1) { syscall($N{renameat2}, -100, "$own/a", -100, "$own/b", 2) } }
    my ($r, $end) = ("own", time + 2);
    while (time < $end && $r eq "own") {
        for my $p ("$own/a/$name", "$own/./a/../a/$name") {
            open(my $h, "<", $p) or next; my $b = ""; sysread($h, $b, 10); $r = "escaped" if $b =~ /the host/;
        }
    }
    kill "KILL", $w; waitpid $w, 0; $r
}
sub copy_changed {
    my $m = 0x10000; grep { /^0*10000-/ } lines("/proc/self/maps") or return "none";
    my @done;
    my $try = sub { my ($what, $r) = @_; push @done, $what if defined $r && $r >= 0 };
    $try->("mprotect", call($N{mprotect}, $m, 4096, 3));
    $try->("mprotect from below", call($N{mprotect}, 0, 0x11000, 3));
    $try->("mmap", call($N{mmap}, $m, 4096, 3, 0x32, -1, 0));
    $try->("munmap", call($N{munmap}, $m, 4096));
    $try->("munmap from below", call($N{munmap}, 0, 0x11000));
    $try->("mremap", call($N{mremap}, $m, 4096, 4096, 1, 0));
    my $own = call($N{mmap}, 0, 4096, 3, 0x22, -1, 0);
    $try->("mremap over it", call($N{mremap}, $own, 4096, 4096, 3, $m));
    $try->("madvise", call($N{madvise}, $m, 4096, 10));
    open(my $f, "<", "/shared"); $try->("read", syscall($N{read}, fileno($f), $m, 4));
    $try->("mem", sysopen(my $h, "/proc/self/mem", 2) ? 0 : -1);
    $try->("mem of a thread", sysopen(my $h, "/proc/thread-self/mem", 1) ? 0 : -1);
    @done ? "done by @done" : "E1"
}
mkdir "/mnt";
open(my $results, ">", $ARGV[0]) or die "results: $!";
for my $try (@tries) {
    my ($what, $code) = @$try;
    pipe(my $from, my $to);
    my $child = fork;
    if (!$child) {
        close $from; close $results;
        $! = 0;
        my $word = eval { $code->() };
        $word = "failed: $@" if $@;
        $word =~ s/\s+/ /g;
        syswrite($to, $word);
        call($N{exit_group}, 0);
    }
    close $to;
    my $word = join "", <$from>;
    waitpid $child, 0;
    print $results "$what\t$word\n";
}
close $results;
"#;
