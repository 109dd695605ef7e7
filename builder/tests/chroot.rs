//! Commands in a chroot, on this machine: needs root and a static busybox, and says `skipped` without them.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};

mod common;

use common::{BUSYBOX, busybox_root, is_possible, mark, marked, stage_of, wait_until};
use fluyt::sandbox::{self, Exit, Isolation, MountSource, RootMount, RunMount, RunSpec, Rung, Stream, Wish};
use fluyt::stop::Cancel;

/// A root of busybox alone.
struct Machine {
    folder: tempfile::TempDir,
}

impl Machine {
    /// `None`, said aloud, where nothing can be run.
    fn new() -> Option<Self> {
        is_possible().then(|| {
            let folder = tempfile::tempdir().unwrap();
            let tools =
                "cat chmod chroot cp echo head id kill ln ls mkdir mknod mv rm setsid sh sleep stat su touch wc";
            busybox_root(&folder.path().join("root"), &["etc", "tmp"], tools);
            Self { folder }
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn spec(&self, script: &str) -> RunSpec {
        common::spec(RootMount::Directory(self.path("root")), script)
    }

    fn has_its_cache(&self) {
        assert_eq!(fs::read_to_string(self.path("cache/old")).unwrap(), "old");
        assert_eq!(fs::read_to_string(self.path("cache/new")).unwrap(), "new\n");
        assert_eq!(
            fs::metadata(self.path("cache/new")).unwrap().nlink(),
            1,
            "what is written to one must not change the other"
        );
        assert!(!self.path("root.lent").exists() && !self.path("root.aside").exists());
    }

    /// All below the root: kind and mode, owner, time, and content.
    fn listing(&self) -> BTreeMap<PathBuf, (u32, u32, i64, i64, Vec<u8>)> {
        let mut found = BTreeMap::new();
        let mut ahead = vec![self.path("root")];
        while let Some(path) = ahead.pop() {
            let metadata = fs::symlink_metadata(&path).unwrap();
            let content = match metadata.file_type() {
                kind if kind.is_dir() => {
                    ahead.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
                    Vec::new()
                }
                kind if kind.is_file() && metadata.len() < 1 << 16 => fs::read(&path).unwrap(),
                _ => Vec::new(),
            };
            let (mode, uid, time) = (metadata.mode(), metadata.uid(), (metadata.mtime(), metadata.mtime_nsec()));
            found.insert(path, (mode, uid, time.0, time.1, content));
        }
        found
    }
}

/// How a run ended, and both of its streams.
fn run(spec: &RunSpec) -> (Result<Exit, String>, String) {
    let mut said = Vec::new();
    let mut output = |_: Stream, bytes: &[u8]| said.extend_from_slice(bytes);
    let exit = sandbox::run_on(Rung::Chroot, spec, &mut output, &Cancel::new());
    (exit.map_err(|error| error.to_string()), String::from_utf8_lossy(&said).into_owned())
}

fn mount(target: &str, source: MountSource) -> RunMount {
    RunMount { target: target.to_owned(), source, read_only: false }
}

fn tree(root: RootMount) -> MountSource {
    MountSource::Tree { root, path: PathBuf::new(), is_folder: true }
}

fn secret(content: &[u8]) -> MountSource {
    MountSource::File { content: content.to_vec(), mode: 0o400, uid: 0, gid: 0 }
}

#[test]
fn the_trial_agrees_that_a_run_works_here() {
    let Some(machine) = Machine::new() else { return };
    let wish = Wish { only: Some(Rung::Chroot), least: None };
    let isolation = Isolation::new(wish).at(machine.folder.path());
    assert_eq!(isolation.choice().rung, Rung::Chroot, "{:?}", isolation.choice().refused);
    assert_eq!(run(&machine.spec("exit 3")).0, Ok(Exit::Code(3)));
}

#[test]
fn what_is_put_in_for_a_command_comes_out_after_it() {
    let Some(machine) = Machine::new() else { return };
    fs::write(machine.path("root/etc/hosts"), "the image's own").unwrap();
    symlink("/run/deep/resolv", machine.path("root/etc/resolv.conf")).unwrap();
    for name in ["root/t", "root/src", "cache", "context"] {
        fs::create_dir(machine.path(name)).unwrap();
    }
    fs::write(machine.path("root/t/own"), "own").unwrap();
    fs::write(machine.path("cache/old"), "old").unwrap();
    fs::set_permissions(machine.path("cache"), fs::Permissions::from_mode(0o711)).unwrap();
    fs::write(machine.path("context/file"), "file").unwrap();
    for name in ["dev", "proc", "sys"] {
        // They stay where an image lacks them.
        fs::create_dir(machine.path("root").join(name)).unwrap();
    }
    let before = machine.listing();
    let context = RootMount::Overlay {
        lowers: vec![machine.path("context")],
        upper: machine.path("unused"),
        work: machine.path("unused"),
    };
    let mut spec = machine.spec(
        "cat /etc/hosts /etc/resolv.conf /run/secrets/s /c/old /src/file; ls /t; echo new > /c/new; echo x > /t/x; \
         echo y > /src/y; echo z > /etc/hosts; echo z > /dev/null; head -c 3 /dev/zero | wc -c; echo '#!/bin/sh' > /c/run; \
         chmod 755 /c/run; /c/run && /script",
    );
    let script = MountSource::File { content: b"#!/bin/sh\necho ran\n".to_vec(), mode: 0o755, uid: 0, gid: 0 };
    spec.mounts = vec![
        mount("/c", tree(RootMount::Directory(machine.path("cache")))),
        mount("/run/secrets/s", secret(b"secret\n")),
        mount("/script", script),
        mount("/src", tree(context)),
        mount("/t", MountSource::Memory { size_bytes: 0, mode: 0o1777 }),
    ];
    let (exit, said) = run(&spec);
    // The name is the machine's, and is known.
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let hosts = format!("127.0.0.1 localhost\n127.0.0.1\t{name}");
    assert_eq!(said, format!("{hosts}nameserver 192.0.2.1\nsecret\noldfile3\nran\n"));
    assert_eq!(exit, Ok(Exit::Code(0)));
    assert_eq!(machine.listing(), before);
    assert_eq!(fs::read_to_string(machine.path("cache/new")).unwrap(), "new\n");
    assert_eq!(fs::metadata(machine.path("cache")).unwrap().mode() & 0o7777, 0o711);
    assert_eq!(fs::read_dir(machine.path("context")).unwrap().count(), 1);
    assert!(!machine.path("root.aside").exists());
}

#[test]
fn what_a_command_leaves_running_is_killed() {
    let Some(machine) = Machine::new() else { return };
    let mark = mark();
    let (exit, said) = run(&machine.spec(&format!(
        "for n in 1 2 3; do (setsid sh -c 'sleep {mark} & sleep {mark}' &); setsid sleep {mark} & done; exit 7"
    )));
    assert_eq!((exit, said.as_str()), (Ok(Exit::Code(7)), ""));
    assert_eq!(marked(&mark), [0; 0]);
}

#[test]
fn a_cancelled_command_leaves_nothing() {
    let Some(machine) = Machine::new() else { return };
    fs::create_dir(machine.path("cache")).unwrap();
    let mark = mark();
    let mut spec =
        machine.spec(&format!("f() {{ setsid sh -c 'sleep {mark}' & }}; echo on; while :; do f; sleep 0.01; done"));
    spec.mounts = vec![mount("/c", tree(RootMount::Directory(machine.path("cache"))))];
    let cancel = Cancel::new();
    let start = Instant::now();
    let mut output = {
        let cancel = cancel.clone();
        move |_: Stream, _: &[u8]| {
            let cancel = cancel.clone();
            drop(std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(300));
                cancel.cancel();
            }));
        }
    };
    let exit = sandbox::run_on(Rung::Chroot, &spec, &mut output, &cancel).unwrap();
    assert_eq!(exit, Exit::Cancelled);
    assert!(start.elapsed() < Duration::from_secs(4), "it was waited for: {:?}", start.elapsed());
    assert_eq!(marked(&mark), [0; 0]);
    assert!(machine.path("cache").is_dir() && !machine.path("root.aside").exists());
    assert!(!machine.path("root/c").exists() && !machine.path("root/etc/hosts").exists());
}

/// A command that holds a cache mount, and processes that are no children of it: one of another user.
fn lasting(machine: &Machine, mark: &str) -> RunSpec {
    fs::create_dir_all(machine.path("cache")).unwrap();
    fs::write(machine.path("cache/old"), "old").unwrap();
    fs::create_dir_all(machine.path("root/etc")).unwrap();
    fs::write(machine.path("root/etc/passwd"), "root:x:0:0::/:/bin/sh\nbob:x:1000:1000::/:/bin/sh\n").unwrap();
    let mut spec = machine.spec(&format!(
        "echo new > /c/new; ln /c/new /linked; setsid sh -c 'sleep {mark} & sleep {mark}' & \
         setsid su bob -c 'sleep {mark}' & sleep {mark}"
    ));
    spec.mounts = vec![
        mount("/c", tree(RootMount::Directory(machine.path("cache")))),
        mount("/run/secrets/s", secret(b"a secret of somebody")),
    ];
    spec
}

#[test]
fn a_killed_stage_leaves_no_process_and_no_secret_and_takes_no_cache_along() {
    let Some(machine) = Machine::new() else { return };
    let mark = mark();
    let spec = lasting(&machine, &mark);
    let running = std::thread::spawn(move || {
        // As in a container: no process of another user may be looked into.
        let mut sets = rustix::thread::capabilities(None).unwrap();
        sets.effective.remove(rustix::thread::CapabilitySet::SYS_PTRACE);
        sets.permitted.remove(rustix::thread::CapabilitySet::SYS_PTRACE);
        rustix::thread::set_capabilities(None, sets).unwrap();
        run(&spec)
    });
    wait_until(|| marked(&mark).len() == 4);
    kill_process(stage_of(marked(&mark)[0]), Signal::KILL).unwrap();
    let said = running.join().unwrap().0.unwrap_err();
    assert!(said.contains("the sandbox's stage ended (signal: 9 (SIGKILL))"), "{said}");
    assert_eq!(marked(&mark), [0; 0]);
    machine.has_its_cache();
    assert!(machine.listing().values().all(|(.., content)| !content.starts_with(b"a secret")));
}

#[test]
fn what_a_stage_and_its_builder_left_when_both_were_killed_is_ended_by_the_next() {
    let Some(machine) = Machine::new() else { return };
    let mark = mark();
    let context = machine.path("context");
    fs::create_dir(&context).unwrap();
    fs::copy(BUSYBOX, context.join("busybox")).unwrap();
    let text = |command: &str| {
        format!(
            "FROM scratch\nCOPY busybox /bin/busybox\nRUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n\
             RUN --mount=type=cache,target=/c {command}\n"
        )
    };
    let build = |command: &str| {
        fs::write(context.join("Dockerfile"), text(command)).unwrap();
        let mut fluyt = Command::new(env!("CARGO_BIN_EXE_fluyt"));
        fluyt.arg("--store").arg(machine.path("store")).args(["build", "--isolation", "r4", "--progress", "plain"]);
        fluyt.arg(&context).stdout(Stdio::null()).stderr(Stdio::piped());
        fluyt
    };
    let mut builder = build(&format!(
        "echo new > /c/new; setsid sh -c 'sleep {mark} & sleep {mark}' & setsid sleep {mark} & sleep {mark}"
    ))
    .spawn()
    .unwrap();
    wait_until(|| marked(&mark).len() == 4);
    let stage = stage_of(marked(&mark)[0]);
    // It must not see its builder's end.
    kill_process(stage, Signal::STOP).unwrap();
    builder.kill().unwrap();
    builder.wait().unwrap();
    kill_process(stage, Signal::KILL).unwrap();
    wait_until(|| marked(&mark).len() == 3);
    let output = build("cat /c/new; echo more >> /c/new").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains(" new\n"), "{said}");
    assert_eq!(said.matches("nothing bounds the sizes of").count(), 1, "{said}");
    assert_eq!(marked(&mark), [0; 0]);
    let output = build("cat /c/new").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains(" more\n"), "{said}");
}

#[test]
fn a_command_can_do_what_it_may_and_not_leave() {
    let Some(machine) = Machine::new() else { return };
    let (exit, said) = run(&machine.spec(
        "mknod /tmp/n c 1 3 2>/dev/null || echo no node; mkdir /tmp/d; chroot /tmp/d /bin/true 2>/dev/null || echo no chroot; \
         cd ..; cd ../..; ls -d etc; touch /tmp/f; cat /etc/hosts >/dev/null; id -u; kill -TERM $$",
    ));
    assert_eq!(said, "no node\nno chroot\netc\n0\n");
    assert_eq!(exit, Ok(Exit::Signal { signal: 15, out_of_memory: false }));
    assert_eq!(run(&machine.spec("nothing-of-that-name")).0, Ok(Exit::Code(127)));
    let mut spec = machine.spec("id -u; id -g; cat /run/secrets/s");
    (spec.uid, spec.gid) = (1000, 1001);
    spec.mounts = vec![mount("/run/secrets/s", secret(b"for root"))];
    let (exit, said) = run(&spec);
    assert!(said.starts_with("1000\n1001\n") && said.contains("ermission denied"), "{said}");
    assert_eq!(exit, Ok(Exit::Code(1)));
}

#[test]
fn a_secret_that_a_command_moves_is_gone_wherever_it_is() {
    let Some(machine) = Machine::new() else { return };
    for (script, verb) in [("mv /run/secrets/s /kept", "moved"), ("ln /run/secrets/s /kept", "made another name for")] {
        let mut spec = machine.spec(script);
        spec.mounts = vec![mount("/run/secrets/s", secret(b"secret"))];
        let (exit, _) = run(&spec);
        let said = exit.unwrap_err();
        assert!(said.contains(verb) && said.contains("/run/secrets/s") && said.contains("r4"), "{said}");
        assert_eq!(fs::read(machine.path("root/kept")).unwrap(), b"");
        assert!(!machine.path("root/run").exists());
        fs::remove_file(machine.path("root/kept")).unwrap();
    }
}

#[test]
fn links_that_a_command_makes_lead_nobody_out() {
    let Some(machine) = Machine::new() else { return };
    for name in ["host/m", "cache", "root/d"] {
        fs::create_dir_all(machine.path(name)).unwrap();
    }
    fs::write(machine.path("host/m/precious"), "").unwrap();
    let host = machine.path("host");
    let mut spec = machine.spec(&format!("mv /d /e && ln -s {} /d && touch /e/m/new", host.display()));
    spec.mounts = vec![mount("/d/m", tree(RootMount::Directory(machine.path("cache"))))];
    assert_eq!(run(&spec).0, Ok(Exit::Code(0)));
    assert!(host.join("m/precious").exists() && machine.path("cache/new").exists());
    assert_eq!(fs::read_dir(machine.path("root/e")).unwrap().count(), 0);
}

#[test]
fn a_cache_mount_is_a_folder_of_its_own_again_after_the_command() {
    let Some(machine) = Machine::new() else { return };
    fs::create_dir(machine.path("cache")).unwrap();
    let cached = || vec![mount("/c", tree(RootMount::Directory(machine.path("cache"))))];
    let mut spec = machine.spec("echo one > /c/f; ln /c/f /linked; ln /c/f /c/g");
    spec.mounts = cached();
    assert_eq!(run(&spec).0, Ok(Exit::Code(0)));
    let inode = |name: &str| fs::metadata(machine.path(name)).unwrap().ino();
    assert_ne!(inode("cache/f"), inode("root/linked"), "what is written to one must not change the other");
    assert_eq!(inode("cache/f"), inode("cache/g"));
    // A command that removes it has emptied it.
    let mut spec = machine.spec("rm -r /c");
    spec.mounts = cached();
    assert_eq!(run(&spec).0, Ok(Exit::Code(0)));
    assert_eq!(fs::read_dir(machine.path("cache")).unwrap().count(), 0);
    let mut spec = machine.spec("true");
    spec.mounts = cached();
    spec.mounts.push(mount("/other", tree(RootMount::Directory(machine.path("cache")))));
    let said = run(&spec).0.unwrap_err();
    assert!(said.contains("/c and at /other") && machine.path("cache").is_dir(), "{said}");
}
