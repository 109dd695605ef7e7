//! The sandbox on this machine: needs root and a static busybox, and says `skipped` without them.
#![expect(clippy::print_stderr, reason = "a skipped test says so")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use fluyt::sandbox::{self, Cancel, Exit, Network, RootMount, RunSpec, Stream};

const BUSYBOX: &str = "/usr/bin/busybox";

/// A root file system of busybox alone, and the overlay over it.
struct Machine {
    folder: tempfile::TempDir,
}

impl Machine {
    /// `None`, said aloud, where the sandbox cannot run.
    fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() || !Path::new(BUSYBOX).exists() {
            eprintln!("skipped: this test needs root and {BUSYBOX}");
            return None;
        }
        sandbox::set_program(env!("CARGO_BIN_EXE_fluyt").into());
        let folder = tempfile::tempdir().unwrap();
        for name in ["lower/bin", "lower/etc", "lower/tmp", "upper", "work"] {
            fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        fs::copy(BUSYBOX, folder.path().join("lower/bin/busybox")).unwrap();
        for tool in [
            "sh", "echo", "cat", "id", "ls", "mount", "unshare", "sleep", "kill", "grep", "setsid", "touch", "stat",
            "hostname",
        ] {
            symlink("busybox", folder.path().join("lower/bin").join(tool)).unwrap();
        }
        Some(Self { folder })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn spec(&self, script: &str) -> RunSpec {
        RunSpec {
            root: RootMount::Overlay {
                lowers: vec![self.path("lower")],
                upper: self.path("upper"),
                work: self.path("work"),
            },
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
        }
    }
}

/// How a run ended, its stdout and its stderr.
fn run(spec: &RunSpec) -> (Exit, String, String) {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let mut output = |stream, bytes: &[u8]| match stream {
        Stream::Stdout => stdout.extend_from_slice(bytes),
        Stream::Stderr => stderr.extend_from_slice(bytes),
    };
    let exit = sandbox::run(spec, &mut output, &Cancel::new()).unwrap();
    (exit, String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

#[test]
fn both_streams_and_the_exit_code_come_back() {
    let Some(machine) = Machine::new() else { return };
    let ended = run(&machine.spec("echo hi; echo oh >&2; echo x > /made; exit 3"));
    assert_eq!(ended, (Exit::Code(3), "hi\n".to_owned(), "oh\n".to_owned()));
    assert_eq!(fs::read_to_string(machine.path("upper/made")).unwrap(), "x\n");
    assert!(!machine.path("lower/made").exists());
}

#[test]
fn the_trial_agrees_that_a_run_works_here() {
    let Some(_machine) = Machine::new() else { return };
    assert_eq!(sandbox::available(), Ok(()));
}
