// long because every test here needs the same machine around it
//! The sandbox on this machine: needs root and a static busybox, and says `skipped` without them.
#![expect(clippy::print_stderr, reason = "a skipped test says so")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

mod common;

use common::{BUSYBOX, Machine, is_possible, many_runs, mark, marked, run_on, stage_of, stdout_of, wait_until};
use fluyt::sandbox::{
    self, CapabilityChange, Choice, Exit, Isolation, Limit, MountSource, Network, Resources, RootMount, RunMount,
    RunSpec, Rung,
};
use fluyt::stop::Cancel;

fn run(spec: &RunSpec) -> (Exit, String, String) {
    run_on(Rung::Root, spec)
}

#[test]
fn both_streams_and_the_exit_code_come_back() {
    let Some(machine) = Machine::new() else { return };
    let ended = run(&machine.spec("echo hi; echo oh >&2; echo x > /made; exit 3"));
    assert_eq!(ended, (Exit::Code(3), "hi\n".to_owned(), "oh\n".to_owned()));
    assert_eq!(fs::read_to_string(machine.path("upper/made")).unwrap(), "x\n");
    assert!(!machine.path("lower/made").exists());
}

/// As a process holds it that another step forks while this one's program is unpacked.
#[test]
fn a_program_that_is_still_open_for_writing_is_waited_for() {
    let Some(machine) = Machine::new() else { return };
    let held = fs::OpenOptions::new().write(true).open(machine.path("lower/bin/busybox")).unwrap();
    let spec = machine.spec("echo hi");
    let ended = std::thread::scope(|scope| {
        let command = scope.spawn(|| run(&spec));
        std::thread::sleep(Duration::from_millis(500));
        drop(held);
        command.join().unwrap()
    });
    assert_eq!(ended, (Exit::Code(0), "hi\n".to_owned(), String::new()));
}

#[test]
fn the_trial_agrees_that_a_run_works_here() {
    let Some(_machine) = Machine::new() else { return };
    assert_eq!(Isolation::default().choice(), &Choice { rung: Rung::Root, refused: Vec::new() });
}

#[test]
fn the_trial_says_what_stands_in_the_way() {
    let Some(_machine) = Machine::new() else { return };
    // Ids and capabilities are a thread's own.
    let refusal = |lose: fn()| {
        let refused = std::thread::spawn(move || {
            lose();
            Isolation::default().choice().refused[0].clone()
        });
        let refused = refused.join().unwrap();
        format!("{}; {}", refused.reason, refused.fix)
    };
    let user = refusal(|| rustix::thread::set_thread_uid(rustix::fs::Uid::from_raw(65534)).unwrap());
    assert_eq!(user, "RUN needs root, and this is user 65534; run as root or with sudo");
    let container = refusal(|| {
        let mut sets = capabilities(None).unwrap();
        sets.effective.remove(CapabilitySet::SYS_ADMIN);
        set_capabilities(None, sets).unwrap();
    });
    assert!(container.contains("CAP_SYS_ADMIN") && container.contains("docker run --privileged"), "{container}");
}

#[test]
fn a_command_that_cannot_be_executed_gets_the_codes_of_a_shell() {
    let Some(machine) = Machine::new() else { return };
    fs::write(machine.path("lower/bin/plain"), "no program").unwrap();
    fs::write(machine.path("lower/bin/empty"), "").unwrap();
    fs::write(machine.path("lower/bin/orphan"), "#!/bin/missing\n").unwrap();
    for (name, mode) in [("plain", 0o644), ("empty", 0o755), ("orphan", 0o755)] {
        fs::set_permissions(machine.path("lower/bin").join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    for (name, code, said) in [
        ("/bin/foo", 127, "fluyt: /bin/foo: not found\n"),
        ("foo", 127, "fluyt: foo: not found\n"),
        ("", 127, "fluyt: : not found\n"),
        ("/bin/plain", 126, "fluyt: /bin/plain: Permission denied (os error 13)\n"),
        ("plain", 126, "fluyt: /bin/plain: Permission denied (os error 13)\n"),
        ("/bin/empty", 126, "fluyt: /bin/empty: Exec format error (os error 8)\n"),
        ("/bin", 126, "fluyt: /bin: Permission denied (os error 13)\n"),
        ("/bin/orphan", 127, "fluyt: /bin/orphan: the interpreter or loader that it asks for is not in the image\n"),
    ] {
        let mut spec = machine.spec("");
        spec.argv = vec![name.to_owned()];
        assert_eq!(run(&spec), (Exit::Code(code), String::new(), said.to_owned()), "{name}");
        machine.wipe();
    }
    let mut spec = machine.spec("");
    spec.argv = vec!["echo".to_owned(), "by path".to_owned()];
    assert_eq!(stdout_of(&spec), "by path\n");
}

#[test]
fn signals_and_codes_are_told_apart() {
    let Some(machine) = Machine::new() else { return };
    assert_eq!(run(&machine.spec("sh -c 'kill -9 $$'; exit $?")).0, Exit::Code(137));
    machine.wipe();
    let mark = mark();
    let mut spec = machine.spec("");
    spec.argv = vec!["sleep".to_owned(), mark.clone()];
    let running = std::thread::spawn(move || run(&spec).0);
    wait_until(|| marked(&mark).len() == 1);
    rustix::process::kill_process(pid(marked(&mark)[0]), Signal::KILL).unwrap();
    assert_eq!(running.join().unwrap(), Exit::Signal { signal: 9, out_of_memory: false });
    machine.wipe();
    // Process 1 cannot be killed from inside, in our sandbox as in others: the shell goes on.
    assert_eq!(run(&machine.spec("kill -9 1; exit 4")).0, Exit::Code(4));
}

#[test]
fn user_groups_home_and_names_are_those_of_the_specification() {
    let Some(machine) = Machine::new() else { return };
    fs::write(machine.path("lower/etc/passwd"), "root:x:0:0::/root:/bin/sh\nbob:x:1000:1000::/home/bob:/bin/sh\n")
        .unwrap();
    let mut spec = machine.spec(
        "id -u; id -g; id -G; hostname; echo $HOME $A $0 $$; umask; echo out > /dev/stdout; echo err > /dev/stderr; \
         ls -ld /a/b | tr -s ' ' | head -c 30; pwd",
    );
    (spec.uid, spec.gid, spec.groups) = (1000, 1001, vec![1001, 2000]);
    spec.cwd = "/a/b".to_owned();
    spec.env.extend([("A", "first"), ("A", "last")].map(|(name, value)| (name.to_owned(), value.to_owned())));
    let (exit, stdout, stderr) = run(&spec);
    assert_eq!((exit, stderr.as_str()), (Exit::Code(0), "err\n"));
    let expected =
        "1000\n1001\n1001 2000\nbuildkitsandbox\n/home/bob last /bin/sh 1\n0022\nout\ndrwxr-xr-x 2 bob 1001 ";
    assert!(stdout.starts_with(expected), "{stdout}");
    assert!(stdout.ends_with("/a/b\n"), "{stdout}");
    assert_eq!(owner(&machine.path("upper/a")), (1000, 1001));
    machine.wipe();
    assert_eq!(stdout_of(&machine.spec("echo $HOME")), "/root\n");
}

#[test]
fn dev_holds_the_usual_nodes_and_no_others() {
    let Some(machine) = Machine::new() else { return };
    let script = "ls /dev; echo x > /dev/null; head -c 4 /dev/zero | wc -c; echo y > /dev/full; \
                  mknod /dev/mine c 1 3 && echo z > /dev/mine; mknod /tmp/mine c 1 3 && echo z > /tmp/mine; echo done";
    let (_, stdout, stderr) = run(&machine.spec(script));
    let mut expected: Vec<&str> =
        "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero 4 done".split(' ').collect();
    let listed: Vec<&str> = stdout.split_whitespace().filter(|name| *name != "mqueue" && *name != "tty").collect();
    expected.retain(|name| *name != "mqueue" && *name != "tty");
    assert_eq!(listed, expected);
    // Node making is allowed, as in other builders; using what was made is not.
    assert_eq!(stderr.matches("Permission denied").count(), 2, "{stderr}");
    assert!(stderr.contains("No space left"), "{stderr}");
}

#[test]
fn no_mount_but_those_of_single_devices_admits_device_nodes() {
    let Some(machine) = Machine::new() else { return };
    let mounts = stdout_of(&machine.spec("cat /proc/self/mountinfo"));
    let fields = |line: &str| -> (String, String) {
        let words: Vec<&str> = line.split(' ').collect();
        (words[4].to_owned(), words[5].to_owned())
    };
    let mounts: BTreeMap<String, String> = mounts.lines().map(fields).collect();
    for (place, options) in &mounts {
        let device = ["null", "zero", "full", "random", "urandom", "tty", "pts"]
            .iter()
            .any(|name| place == &format!("/dev/{name}"));
        let masked = place.starts_with("/proc/");
        assert!(device || masked || options.contains("nodev"), "{place} {options}");
    }
    for place in ["/sys", "/proc/sys", "/proc/irq"] {
        assert!(mounts[place].starts_with("ro,"), "{place}");
    }
    assert!(mounts.keys().all(|place| !place.contains("lower") && !place.contains("upper")), "{mounts:?}");
    machine.wipe();
    let script =
        "cat /proc/kcore | wc -c; cat /proc/keys | wc -c; ls /sys/firmware | wc -l; echo 1 > /proc/sys/vm/drop_caches";
    let (_, stdout, stderr) = run(&machine.spec(script));
    assert_eq!(stdout, "0\n0\n0\n");
    assert!(stderr.contains("Read-only file system"), "{stderr}");
}

#[test]
fn privileges_are_dockers() {
    let Some(machine) = Machine::new() else { return };
    let script = "grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status";
    let expected = |effective: &str| {
        format!(
            "CapInh:\t0000000000000000\nCapPrm:\t{effective}\nCapEff:\t{effective}\nCapBnd:\t{effective}\n\
             CapAmb:\t0000000000000000\nNoNewPrivs:\t0\nSeccomp:\t2\n"
        )
    };
    assert_eq!(stdout_of(&machine.spec(script)), expected("00000000a80405fb"));
    machine.wipe();
    let isolated = RunSpec { network: Network::None, ..machine.spec(script) };
    assert_eq!(stdout_of(&isolated), expected("00000000a80425fb"));
    machine.wipe();
    let change = |add: &[&str], drop: &[&str]| {
        let owned = |names: &[&str]| -> Vec<String> { names.iter().map(|name| (*name).to_owned()).collect() };
        CapabilityChange::read(&owned(add), &owned(drop)).unwrap()
    };
    // Raw packets on the host's network for who asks for them, and no more than is left.
    let changed = RunSpec { capabilities: change(&["NET_RAW"], &["CHOWN", "SYS_CHROOT"]), ..machine.spec(script) };
    assert_eq!(stdout_of(&changed), expected("00000000a80025fa"));
    machine.wipe();
    let none = RunSpec { capabilities: change(&[], &["ALL"]), ..machine.spec(script) };
    assert_eq!(stdout_of(&none), expected("0000000000000000"));
    machine.wipe();
    let admin = RunSpec {
        capabilities: change(&["SYS_ADMIN"], &[]),
        ..machine.spec("unshare -m mount -t tmpfs none /tmp && echo mounted")
    };
    assert_eq!(stdout_of(&admin), "mounted\n");
    machine.wipe();
    let beyond = RunSpec {
        limits: vec![Limit { name: "nofile".to_owned(), soft: Some(1 << 40), hard: Some(1 << 40) }],
        ..machine.spec("true")
    };
    let said = sandbox::run(&beyond, &mut |_, _| {}, &Cancel::new()).unwrap_err().to_string();
    assert!(said.contains("setting the limit nofile"), "{said}");
    machine.wipe();
    let locked = RunSpec { capabilities: change(&[], &["SYS_CHROOT"]), ..machine.spec("busybox chroot / true") };
    assert!(run(&locked).2.contains("not permitted"));
    machine.wipe();
    let user = RunSpec { uid: 1000, ..machine.spec("grep CapEff /proc/self/status") };
    assert_eq!(stdout_of(&user), "CapEff:\t0000000000000000\n");
    machine.wipe();
    for script in
        ["unshare -m true", "unshare -U true", "mount -t tmpfs none /tmp", "hostname other", "mount -o remount,dev /"]
    {
        let (exit, _, stderr) = run(&machine.spec(script));
        assert_ne!(exit, Exit::Code(0), "{script}");
        assert!(stderr.contains("not permitted") || stderr.contains("denied"), "{script}: {stderr}");
        machine.wipe();
    }
}

/// Calls that busybox does not make, by the host's perl over the same layers.
#[test]
#[cfg(target_arch = "x86_64")]
fn the_filter_answers_as_dockers() {
    let Some(machine) = Machine::new() else { return };
    if !Path::new("/usr/bin/perl").exists() {
        eprintln!("skipped: this test needs /usr/bin/perl");
        return;
    }
    let script = "for (@ARGV) { my ($number, @rest) = map { $_ + 0 } split /,/; $! = 0; syscall($number, @rest); print $! + 0, ' ' }";
    let mut spec = machine.spec("");
    spec.root = RootMount::Overlay {
        lowers: vec![machine.path("lower"), "/usr".into()],
        upper: machine.path("upper"),
        work: machine.path("work"),
    };
    // clone3; unshare of a user namespace; add_key; personality without randomisation; socket of AF_VSOCK; bpf; a call
    // of the future; and getpid.
    let calls = ["435,0,0", "272,268435456", "248,0,0,0,0,0", "135,262144", "41,40,1,0", "321,0,0,0", "600", "39"];
    spec.argv = ["/bin/perl", "-e", script].into_iter().chain(calls).map(str::to_owned).collect();
    assert_eq!(stdout_of(&spec), "38 1 1 1 1 1 38 0 ");
}

/// A program for i386 of our own: exits with `errno of add_key * 16 + pid`.
#[test]
#[cfg(target_arch = "x86_64")]
fn a_32_bit_program_runs_under_the_same_filter() {
    let Some(machine) = Machine::new() else { return };
    let code: &[u8] = b"\xb8\x1e\x01\x00\x00\x31\xdb\x31\xc9\x31\xd2\xcd\x80\xf7\xd8\xc1\xe0\x04\x89\xc6\
        \xb8\x14\x00\x00\x00\xcd\x80\x01\xf0\x89\xc3\xb8\x01\x00\x00\x00\xcd\x80";
    let mut program = b"\x7fELF\x01\x01\x01".to_vec();
    program.resize(16, 0);
    let words = |program: &mut Vec<u8>, words: &[u32]| words.iter().for_each(|word| program.extend(word.to_le_bytes()));
    // ET_EXEC for EM_386, entry behind the headers; one program header that maps the whole file.
    words(&mut program, &[0x0003_0002, 1, 0x0804_8054, 52, 0, 0, 0x0020_0034, 1, 0]);
    let size = 84 + u32::try_from(code.len()).unwrap();
    words(&mut program, &[1, 0, 0x0804_8000, 0x0804_8000, size, size, 5, 0x1000]);
    program.extend_from_slice(code);
    let path = machine.path("lower/bin/program");
    fs::write(&path, program).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let mut spec = machine.spec("");
    spec.argv = vec!["program".to_owned()];
    match run(&spec) {
        (Exit::Code(126), ..) => eprintln!("skipped: this kernel runs no 32-bit programs"),
        (exit, ..) => assert_eq!(exit, Exit::Code(16 + 1)),
    }
}

#[test]
fn generated_files_are_there_and_leave_nothing() {
    let Some(machine) = Machine::new() else { return };
    let before = [times(&machine.path("lower/etc")), times(&machine.path("upper"))];
    let script =
        "cat /etc/resolv.conf /etc/hosts; echo more >> /etc/resolv.conf; rm /etc/hosts; stat -c %a%F /etc/hosts";
    let (exit, stdout, stderr) = run(&machine.spec(script));
    assert_eq!(exit, Exit::Code(0));
    assert_eq!(stdout, "nameserver 192.0.2.1\n127.0.0.1 localhost\n644regular file\n");
    assert!(stderr.contains("busy"), "{stderr}");
    // Only the copied-up folder is left, and it looks as it did.
    assert_eq!(listing(&machine.path("upper")), ["etc"]);
    assert_eq!([times(&machine.path("upper/etc")), times(&machine.path("upper"))], before);
}

#[test]
fn what_a_run_puts_beside_the_stubs_stays() {
    let Some(machine) = Machine::new() else { return };
    fs::remove_dir(machine.path("lower/etc")).unwrap();
    stdout_of(&machine.spec("echo hi > /etc/motd; mkdir /srv"));
    assert_eq!(listing(&machine.path("upper")), ["etc", "etc/motd", "srv"]);
}

#[test]
fn links_of_an_image_lead_nowhere_but_into_the_image() {
    let Some(machine) = Machine::new() else { return };
    let outside = machine.path("outside");
    fs::create_dir(&outside).unwrap();
    symlink("/run/resolve/stub.conf", machine.path("lower/etc/resolv.conf")).unwrap();
    symlink(
        "../../../../../../../..".to_owned() + outside.to_str().unwrap() + "-hosts",
        machine.path("lower/etc/hosts"),
    )
    .unwrap();
    fs::remove_dir(machine.path("lower/dev")).unwrap();
    symlink(&outside, machine.path("lower/dev")).unwrap();
    let stdout = stdout_of(&machine.spec("cat /etc/resolv.conf /run/resolve/stub.conf /etc/hosts; echo x > /dev/null"));
    assert_eq!(stdout, "nameserver 192.0.2.1\nnameserver 192.0.2.1\n127.0.0.1 localhost\n");
    assert_eq!(listing(&outside), [""; 0]);
    let mut dev: Vec<String> =
        outside.ancestors().filter_map(|path| path.strip_prefix("/").ok()?.to_str().map(str::to_owned)).collect();
    dev.retain(|path| !path.is_empty());
    dev.reverse();
    assert_eq!(listing(&machine.path("upper")), dev, "the place of /dev, in the image");
    machine.wipe();
    fs::remove_file(machine.path("lower/etc/hosts")).unwrap();
    symlink("hosts", machine.path("lower/etc/hosts")).unwrap();
    let refused = sandbox::run(&machine.spec("true"), &mut |_, _| {}, &Cancel::new()).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the sandbox could not be set up: finding or making a place for /etc/hosts in the image: its symbolic links go in a circle"
    );
    assert_eq!(listing(&machine.path("upper")), dev);
}

#[test]
fn without_a_network_there_is_only_loopback() {
    let Some(machine) = Machine::new() else { return };
    let spec =
        RunSpec { network: Network::None, ..machine.spec("ls /sys/class/net; ifconfig lo | grep -o 'UP LOOPBACK'") };
    assert_eq!(stdout_of(&spec), "lo\nUP LOOPBACK\n");
}

#[test]
fn an_isolated_network_leads_out_and_not_to_the_hosts_loopback_device() {
    let Some(machine) = Machine::new() else { return };
    let Some(program) = sandbox::isolating_program() else {
        eprintln!("skipped: this test needs {}", sandbox::ISOLATING_PROGRAMS);
        return;
    };
    if !Path::new("/dev/net/tun").exists() {
        eprintln!("skipped: this test needs /dev/net/tun");
        return;
    }
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let script = format!(
        "for a in 127.0.0.1 10.0.2.2; do busybox nc -w 2 $a {port} < /dev/null && echo reached $a; done; \
         busybox awk '$2 == \"00000000\" {{ n++ }} END {{ print n }}' /proc/net/route; ls /sys/class/net | wc -l; grep CapEff /proc/self/status"
    );
    let spec = RunSpec { network: Network::Isolated, ..machine.spec(&script) };
    let (exit, stdout, stderr) = run(&spec);
    assert_eq!((exit, stdout.as_str()), (Exit::Code(0), "1\n2\nCapEff:\t00000000a80425fb\n"), "{stderr}");
    let name = program.file_name().unwrap().to_str().unwrap().to_owned();
    let stays = |line: &[u8]| line.windows(9).any(|word| word == b"namespace") && line.starts_with(name.as_bytes());
    wait_until(|| {
        let mut processes = fs::read_dir("/proc").unwrap().flatten();
        !processes.any(|process| fs::read(process.path().join("cmdline")).is_ok_and(|line| stays(&line)))
    });
}

#[test]
fn a_cancelled_run_leaves_no_process() {
    let Some(machine) = Machine::new() else { return };
    let cancel = Cancel::new();
    let mut said = String::new();
    let mut told = None;
    let mut output = |_, bytes: &[u8]| {
        said.push_str(std::str::from_utf8(bytes).unwrap());
        if said.contains("ready") {
            told.get_or_insert_with(Instant::now);
            cancel.cancel();
        }
    };
    let mark = mark();
    let script = format!(
        "setsid sleep {mark} & setsid sh -c 'setsid sleep {mark} & sleep {mark}' & sleep 0.1; echo ready; sleep {mark}"
    );
    let exit = sandbox::run(&machine.spec(&script), &mut output, &cancel).unwrap();
    assert_eq!(exit, Exit::Cancelled);
    // Well before the stage would be killed for being slow.
    let took = told.unwrap().elapsed();
    assert!(took < Duration::from_secs(4), "{took:?}");
    assert_eq!(marked(&mark), [0; 0]);
    assert_eq!(sandbox::run(&machine.spec("true"), &mut |_, _| {}, &cancel).unwrap(), Exit::Cancelled);
}

/// What a script said that was cancelled once it had said `ready`.
fn cancelled(machine: &Machine, script: &str) -> String {
    let cancel = Cancel::new();
    let mut said = String::new();
    let mut output = |_, bytes: &[u8]| {
        said.push_str(std::str::from_utf8(bytes).unwrap());
        if said.contains("ready") {
            cancel.cancel();
        }
    };
    assert_eq!(sandbox::run(&machine.spec(script), &mut output, &cancel).unwrap(), Exit::Cancelled);
    machine.wipe();
    said
}

#[test]
fn a_cancelled_command_is_asked_to_end_before_it_is_killed() {
    let Some(machine) = Machine::new() else { return };
    let mark = mark();
    // The command itself removes what it has half made, also where it takes a moment for it.
    let script = format!("trap 'sleep 0.3; echo removed; exit' TERM; echo ready; sleep {mark} & wait");
    assert_eq!(cancelled(&machine, &script), "ready\nremoved\n");
    // A program of a shell does, and the shell does not go on with its next line.
    let make = format!("trap \"sleep 0.3; echo removed; exit\" TERM; echo ready; sleep {mark} & wait");
    assert_eq!(cancelled(&machine, &format!("sh -c '{make}'; echo went on")), "ready\nremoved\n");
    // Who does not want to is killed.
    let deaf = format!("trap '' TERM; echo ready; sleep {mark}; echo went on");
    assert_eq!(cancelled(&machine, &deaf), "ready\n");
    let slow = format!("trap 'sleep {mark}; echo removed' TERM; echo ready; sleep {mark} & wait");
    assert_eq!(cancelled(&machine, &slow), "ready\n");
    assert_eq!(marked(&mark), [0; 0]);
}

#[test]
fn a_daemon_does_not_outlive_its_run_or_hold_it_up() {
    let Some(machine) = Machine::new() else { return };
    let started = Instant::now();
    let mark = mark();
    assert_eq!(stdout_of(&machine.spec(&format!("setsid sleep {mark} & echo started"))), "started\n");
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
    assert_eq!(marked(&mark), [0; 0]);
}

/// What an image could keep open of the builder, to write to it later.
#[test]
fn the_program_that_sets_a_sandbox_up_cannot_be_written_to() {
    let Some(machine) = Machine::new() else { return };
    let mark = mark();
    let mut spec = machine.spec("");
    spec.argv = vec!["sleep".to_owned(), mark.clone()];
    let running = std::thread::spawn(move || run(&spec).0);
    wait_until(|| marked(&mark).len() == 1);
    let stage = stage_of(marked(&mark)[0]).as_raw_nonzero();
    let writable = rustix::fs::access(format!("/proc/{stage}/exe"), rustix::fs::Access::WRITE_OK);
    assert_eq!(writable, Err(rustix::io::Errno::ROFS));
    rustix::process::kill_process(pid(marked(&mark)[0]), Signal::KILL).unwrap();
    running.join().unwrap();
}

/// The builder of the next test: started again from there, and killed.
#[test]
#[ignore = "runs for ever; the next test starts it"]
fn a_builder_that_waits_for_its_run() {
    let Some(machine) = Machine::new() else { return };
    let mark = std::env::var("MARK").unwrap();
    run(&machine.spec(&format!("setsid sleep {mark} & sleep {mark}")));
}

#[test]
fn a_killed_builder_leaves_no_process() {
    let Some(machine) = Machine::new() else { return };
    let mark = mark();
    let mut builder = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--ignored", "a_builder_that_waits_for_its_run"])
        .env("MARK", &mark)
        .env("TMPDIR", machine.folder.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    wait_until(|| marked(&mark).len() == 2);
    builder.kill().unwrap();
    builder.wait().unwrap();
    wait_until(|| marked(&mark).is_empty());
}

#[test]
fn a_killed_stage_takes_its_command_along_and_is_reported() {
    let Some(machine) = Machine::new() else { return };
    let mark = mark();
    let mut spec = machine.spec("");
    spec.argv = vec!["sleep".to_owned(), mark.clone()];
    let running = std::thread::spawn(move || sandbox::run(&spec, &mut |_, _| {}, &Cancel::new()));
    wait_until(|| marked(&mark).len() == 1);
    rustix::process::kill_process(stage_of(marked(&mark)[0]), Signal::KILL).unwrap();
    let said = running.join().unwrap().unwrap_err().to_string();
    assert!(said.starts_with("the sandbox's stage ended (signal: 9 (SIGKILL)) without a result"), "{said}");
    wait_until(|| marked(&mark).is_empty());
}

/// The builder of the next test: started again from there, with little memory.
#[test]
#[ignore = "uses all memory that it gets; the next test starts it"]
fn a_builder_with_little_memory() {
    let Some(machine) = Machine::new() else { return };
    fs::write(std::env::var("GROUP").unwrap(), std::process::id().to_string()).unwrap();
    let ended = run(&machine.spec("x=$(head -c 300000000 /dev/zero | tr '\\0' x); echo survived"));
    assert_eq!(ended.0, Exit::Signal { signal: 9, out_of_memory: true }, "{ended:?}");
}

#[test]
fn a_command_that_runs_out_of_memory_is_said_to() {
    let Some(machine) = Machine::new() else { return };
    let own = format!("fluyt-test-{}", std::process::id());
    let hierarchies = [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")];
    let made = hierarchies.iter().find_map(|(hierarchy, limit)| {
        let group = Path::new(hierarchy).join(&own);
        fs::create_dir(&group).ok()?;
        let file = fs::OpenOptions::new().write(true).open(group.join(limit));
        let limited = file.and_then(|mut file| file.write_all(b"64000000"));
        limited.map_err(|_| fs::remove_dir(&group)).ok().map(|()| group)
    });
    let Some(group) = made else {
        eprintln!("skipped: this test needs to make a control group for memory");
        return;
    };
    let ended = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--ignored", "a_builder_with_little_memory"])
        .env("GROUP", group.join("cgroup.procs"))
        .env("TMPDIR", machine.folder.path())
        .output()
        .unwrap();
    wait_until(|| fs::remove_dir(&group).is_ok());
    let said = String::from_utf8_lossy(&ended.stdout);
    assert!(ended.status.success() && said.contains("1 passed"), "{said}");
}

/// Limits that a control group of the command's own holds. `None`, said aloud, where none can be made.
fn limited(resources: Resources) -> Option<Resources> {
    match resources.check() {
        Ok(()) => Some(resources),
        Err(reason) => {
            eprintln!("skipped: this test needs to make a control group: {reason}");
            None
        }
    }
}

#[test]
fn a_command_gets_no_more_memory_than_it_may() {
    let Some(machine) = Machine::new() else { return };
    let memory_bytes = Some(48 << 20);
    let Some(resources) =
        limited(Resources { memory_bytes, memory_and_swap_bytes: memory_bytes, ..Resources::default() })
    else {
        return;
    };
    let eat = "x=$(head -c 300000000 /dev/zero | tr '\\0' x); echo survived";
    let mut spec = RunSpec { resources, ..machine.spec("") };
    spec.argv = ["/bin/sh", "-c", eat].map(str::to_owned).to_vec();
    assert_eq!(run(&spec).0, Exit::Signal { signal: 9, out_of_memory: true });
    machine.wipe();
    // One process of many, and a tool that says something else of it.
    spec.argv[2] = format!("sh -c \"{}\" || {{ echo failed >&2; exit 2; }}", eat.replace('$', "\\$"));
    let (exit, _, stderr) = run(&spec);
    assert_eq!(exit, Exit::Code(2));
    assert!(stderr.contains("failed\n"), "{stderr}");
    assert!(stderr.ends_with("fluyt: the kernel ended a process of this command for want of memory\n"), "{stderr}");
    let left = fs::read_dir("/sys/fs/cgroup/memory").into_iter().flatten().flatten();
    let ours = format!("fluyt-{}-", std::process::id());
    assert!(left.map(|entry| entry.file_name()).all(|name| !name.to_str().unwrap().starts_with(&ours)));
}

#[test]
fn a_command_gets_the_processors_and_the_time_that_it_may() {
    let Some(machine) = Machine::new() else { return };
    let one = Resources { processors: Some("0".to_owned()), cpu_shares: Some(512), ..Resources::default() };
    if let Some(resources) = limited(one) {
        let spec = RunSpec { resources, ..machine.spec("grep Cpus_allowed_list /proc/self/status") };
        assert_eq!(stdout_of(&spec), "Cpus_allowed_list:\t0\n");
        machine.wipe();
    }
    // A tenth of one processor: 0.2 seconds of work take two.
    let tenth = Resources { cpu_quota_us: Some(10_000), cpu_period_us: Some(100_000), ..Resources::default() };
    if let Some(resources) = limited(tenth) {
        let work =
            "i=0; while [ $(busybox awk '{print $14 + $15}' /proc/$$/stat) -lt 20 ]; do i=$((i+1)); done; echo $i";
        let started = Instant::now();
        stdout_of(&RunSpec { resources, ..machine.spec(work) });
        assert!(started.elapsed() > Duration::from_millis(1200), "{:?}", started.elapsed());
    }
}

#[test]
fn a_root_without_layers_is_the_upper_folder_alone() {
    let Some(machine) = Machine::new() else { return };
    fs::copy(BUSYBOX, machine.path("upper/busybox")).unwrap();
    let mut spec = machine.spec("");
    spec.root = RootMount::Overlay { lowers: Vec::new(), upper: machine.path("upper"), work: machine.path("work") };
    spec.argv = ["/busybox", "echo", "alone"].map(str::to_owned).to_vec();
    assert_eq!(stdout_of(&spec), "alone\n");
    // What has to be there to run anything stays.
    assert_eq!(listing(&machine.path("upper")), ["busybox", "dev", "proc", "sys"]);
    spec.root = RootMount::Directory(machine.path("upper"));
    spec.mounts = vec![RunMount {
        target: "/dev/pipes/script".to_owned(),
        source: MountSource::File { content: Vec::new(), mode: 0o755, uid: 0, gid: 0 },
        read_only: true,
    }];
    fs::remove_dir(machine.path("upper/dev")).unwrap();
    fs::remove_dir(machine.path("upper/sys")).unwrap();
    assert_eq!(stdout_of(&spec), "alone\n");
    assert_eq!(listing(&machine.path("upper")), ["busybox", "proc", "sys"]);
}

#[test]
fn a_hundred_and_twenty_layers_with_long_names_work() {
    let Some(machine) = Machine::new() else { return };
    let long = "layer".repeat(40);
    let layers: Vec<PathBuf> = (0..120).map(|number| machine.path(&long).join(format!("{long}-{number}"))).collect();
    for (number, layer) in layers.iter().enumerate() {
        fs::create_dir_all(layer).unwrap();
        fs::write(layer.join("top"), number.to_string()).unwrap();
        fs::write(layer.join(format!("file-{number}")), "").unwrap();
    }
    let lowers = layers.into_iter().chain([machine.path("lower")]).collect();
    let mut spec = machine.spec("cat top; echo; ls | grep -c file-");
    spec.root = RootMount::Overlay { lowers, upper: machine.path("upper"), work: machine.path("work") };
    assert_eq!(stdout_of(&spec), "0\n120\n");
}

#[test]
fn much_output_arrives_whole() {
    let Some(machine) = Machine::new() else { return };
    let spec = machine.spec("head -c 5000000 /dev/zero | tr '\\0' o; head -c 3000000 /dev/zero | tr '\\0' e >&2");
    let (exit, stdout, stderr) = run(&spec);
    assert_eq!((exit, stdout.len(), stderr.len()), (Exit::Code(0), 5_000_000, 3_000_000));
}

#[test]
fn many_runs_at_once_do_not_mix() {
    if is_possible() {
        many_runs(Rung::Root);
    }
}

#[test]
fn a_specification_that_cannot_work_is_refused_in_words() {
    let Some(machine) = Machine::new() else { return };
    let refusal = |spec: RunSpec| sandbox::run(&spec, &mut |_, _| {}, &Cancel::new()).unwrap_err().to_string();
    let spec = machine.spec("true");
    assert_eq!(refusal(RunSpec { argv: Vec::new(), ..spec.clone() }), "the step cannot be run: it has no command");
    let nobody = RunSpec { uid: u32::MAX, ..spec.clone() };
    assert_eq!(refusal(nobody), "the step cannot be run: 4294967295 is no user or group id");
    let relative = RunSpec { cwd: "here".to_owned(), ..spec.clone() };
    assert_eq!(refusal(relative), "the step cannot be run: the working folder is not an absolute path");
    let root = RootMount::Overlay {
        lowers: vec![machine.path("gone")],
        upper: machine.path("upper"),
        work: machine.path("work"),
    };
    let said = refusal(RunSpec { root, ..spec });
    assert!(said.contains("adding the layer") && said.contains("No such file"), "{said}");
}

fn pid(number: u32) -> Pid {
    Pid::from_raw(number.try_into().unwrap()).unwrap()
}

fn owner(path: &Path) -> (u32, u32) {
    let metadata = fs::symlink_metadata(path).unwrap();
    (metadata.uid(), metadata.gid())
}

fn times(path: &Path) -> (i64, i64) {
    let metadata = fs::symlink_metadata(path).unwrap();
    (metadata.mtime(), metadata.mtime_nsec())
}

/// Every path below a folder, sorted.
fn listing(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut waiting = vec![folder.to_owned()];
    while let Some(next) = waiting.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            found.push(path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned());
            if path.symlink_metadata().unwrap().is_dir() {
                waiting.push(path);
            }
        }
    }
    found.sort();
    found
}

#[test]
fn an_insecure_command_keeps_what_the_builder_has() {
    let Some(machine) = Machine::new() else { return };
    let script = "grep -e CapEff -e Seccomp: /proc/self/status; grep -c ' /proc/[a-z]' /proc/mounts; \
                  grep -o ' /sys sysfs r.' /proc/mounts; busybox test -e /dev/kmsg; echo $?";
    let held = fs::read_to_string("/proc/self/status").unwrap();
    let held = held.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap().trim();
    let kmsg = i32::from(!Path::new("/dev/kmsg").exists());
    let stdout = stdout_of(&RunSpec { insecure: true, ..machine.spec(script) });
    assert_eq!(stdout, format!("CapEff:\t{held}\nSeccomp:\t0\n0\n /sys sysfs rw\n{kmsg}\n"));

    let Some(machine) = Machine::new() else { return };
    let user = RunSpec { insecure: true, uid: 1000, gid: 1000, ..machine.spec("id -u; grep CapEff /proc/self/status") };
    assert_eq!(stdout_of(&user), format!("1000\nCapEff:\t{held}\n"));

    let Some(machine) = Machine::new() else { return };
    let stdout = stdout_of(&machine.spec(script));
    assert!(stdout.contains("Seccomp:\t2\n") && stdout.contains(" /sys sysfs ro\n1\n"), "{stdout}");
    assert!(!stdout.contains(held), "{stdout}");
}

#[test]
fn resource_limits_and_shared_memory_are_as_asked() {
    let Some(machine) = Machine::new() else { return };
    let limit = |name: &str, soft, hard| Limit { name: name.to_owned(), soft, hard };
    let shm = "busybox df -k /dev/shm | busybox tail -n 1 | busybox awk '{print $2}'";
    let limits = "grep -e 'open files' -e 'core file' /proc/self/limits | busybox sed 's/  */ /g'";
    let spec = RunSpec {
        limits: vec![
            limit("nofile", Some(64), Some(128)),
            limit("core", None, None),
            limit("nofile", Some(32), Some(96)),
        ],
        shm_size_bytes: 1024 * 1024,
        ..machine.spec(&format!("{limits}; {shm}"))
    };
    let expected = "Max core file size unlimited unlimited bytes \nMax open files 32 96 files \n1024\n";
    assert_eq!(stdout_of(&spec), expected);

    let Some(machine) = Machine::new() else { return };
    assert_eq!(stdout_of(&machine.spec(shm)), "65536\n");
    let unknown = RunSpec { limits: vec![limit("files", Some(1), Some(1))], ..machine.spec("true") };
    let error = sandbox::run(&unknown, &mut |_, _| {}, &Cancel::new()).unwrap_err();
    assert_eq!(error.to_string(), "the step cannot be run: `files` is no resource that can be limited");
}
