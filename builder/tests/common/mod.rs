//! What tests of sandboxes share: a small machine of busybox, and a look at the processes around it.
#![allow(dead_code, reason = "each test uses its part")]
#![allow(unreachable_pub, reason = "a module of each test, and of no crate")]
#![expect(clippy::print_stderr, reason = "a skipped test says so")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Pid;

use fluyt::sandbox::{self, CapabilityChange, Exit, Network, Resources, RootMount, RunSpec, Rung, Stream};
use fluyt::stop::Cancel;

pub const BUSYBOX: &str = "/usr/bin/busybox";

/// Whether commands can be run; says so where not.
pub fn is_possible() -> bool {
    let possible = rustix::process::geteuid().is_root() && Path::new(BUSYBOX).exists();
    if !possible {
        eprintln!("skipped: this test needs root and {BUSYBOX}");
    }
    sandbox::set_program(env!("CARGO_BIN_EXE_fluyt").into());
    possible
}

/// Makes a root of busybox alone, with these names for it.
pub fn busybox_root(root: &Path, folders: &[&str], tools: &str) {
    for folder in folders.iter().chain(&["bin"]) {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    fs::copy(BUSYBOX, root.join("bin/busybox")).unwrap();
    for tool in tools.split_whitespace() {
        symlink("busybox", root.join("bin").join(tool)).unwrap();
    }
}

/// A script by the root's shell.
pub fn spec(root: RootMount, script: &str) -> RunSpec {
    RunSpec {
        root,
        argv: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        env: vec![("PATH".to_owned(), "/bin".to_owned())],
        cwd: "/".to_owned(),
        uid: 0,
        gid: 0,
        groups: Vec::new(),
        hostname: "buildkitsandbox".to_owned(),
        hosts: b"127.0.0.1 localhost\n".to_vec(),
        resolv_conf: b"nameserver 192.0.2.1\n".to_vec(),
        network: Network::Host,
        insecure: false,
        capabilities: CapabilityChange::default(),
        shm_size_bytes: 0,
        limits: Vec::new(),
        resources: Resources::default(),
        mounts: Vec::new(),
        recorded: false,
    }
}

/// How a run ended, its stdout and its stderr.
pub fn run_on(rung: Rung, spec: &RunSpec) -> (Exit, String, String) {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let mut output = |stream, bytes: &[u8]| match stream {
        Stream::Stdout => stdout.extend_from_slice(bytes),
        Stream::Stderr => stderr.extend_from_slice(bytes),
    };
    let exit = sandbox::run_on(rung, spec, &mut output, &Cancel::new()).unwrap();
    (exit, String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

/// Runs a script that must succeed in silence on stderr; its stdout.
pub fn stdout_of(spec: &RunSpec) -> String {
    let (exit, stdout, stderr) = run_on(Rung::Root, spec);
    assert_eq!((exit, stderr.as_str()), (Exit::Code(0), ""), "{stdout}");
    stdout
}

/// A root file system of busybox alone, and the overlay over it.
pub struct Machine {
    pub folder: tempfile::TempDir,
}

impl Machine {
    /// `None`, said aloud, where the sandbox cannot run.
    pub fn new() -> Option<Self> {
        is_possible().then(|| {
            let folder = tempfile::tempdir().unwrap();
            let tools = "cat echo grep hostname id kill ls mount mkdir rm setsid sleep sort stat touch tr unshare sh ifconfig \
                         wc mv ln mknod head su";
            busybox_root(&folder.path().join("lower"), &["etc", "tmp", "dev", "proc", "sys"], tools);
            let machine = Self { folder };
            for name in ["upper", "work"] {
                fs::create_dir(machine.path(name)).unwrap();
            }
            machine
        })
    }

    /// An empty upper folder again.
    pub fn wipe(&self) {
        for name in ["upper", "work"] {
            fs::remove_dir_all(self.path(name)).unwrap();
            fs::create_dir(self.path(name)).unwrap();
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn spec(&self, script: &str) -> RunSpec {
        let (upper, work) = (self.path("upper"), self.path("work"));
        spec(RootMount::Overlay { lowers: vec![self.path("lower")], upper, work }, script)
    }
}

/// Four hundred runs by eight threads: each gets its own code and streams.
pub fn many_runs(rung: Rung) {
    std::thread::scope(|scope| {
        for thread in 0..8 {
            scope.spawn(move || {
                let machine = Machine::new().unwrap();
                for turn in 0..50 {
                    let text = format!("{thread}-{turn}");
                    let ended = run_on(rung, &machine.spec(&format!("echo {text}; echo {text} >&2; exit {turn}")));
                    assert_eq!(ended, (Exit::Code(turn), format!("{text}\n"), format!("{text}\n")));
                    machine.wipe();
                }
            });
        }
    });
}

/// A number of seconds that no other process waits for.
pub fn mark() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{}.{}", 1_000_000 + std::process::id(), 100 + COUNT.fetch_add(1, Ordering::Relaxed))
}

/// The processes of this machine with this word in their command line.
pub fn marked(mark: &str) -> Vec<u32> {
    let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let named = |pid: &u32| {
        fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| line.split(|byte| *byte == 0).any(|word| word == mark.as_bytes()))
    };
    processes.filter(named).collect()
}

/// The stage that a process is below.
pub fn stage_of(process: u32) -> Pid {
    let mut pid = process.to_string();
    while !fs::read(format!("/proc/{pid}/cmdline")).unwrap().starts_with(b"fluyt-stage") {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        pid = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().to_owned();
    }
    Pid::from_raw(pid.parse().unwrap()).unwrap()
}

pub fn wait_until(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "it did not come about in 20 seconds");
        std::thread::sleep(Duration::from_millis(20));
    }
}
