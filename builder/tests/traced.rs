//! A traced command of an ordinary user: without a static busybox, and on other processors, it says `skipped`.
#![cfg(target_arch = "x86_64")]
#![expect(clippy::print_stderr, reason = "a skipped test says so")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::fs::{Gid, Uid};

use fluyt::sandbox::{
    self, CapabilityChange, Exit, Isolation, MountSource, Network, Resources, RootMount, RunMount, RunSpec, Rung,
    Stream, Wish,
};
use fluyt::stop::Cancel;

const BUSYBOX: &str = "/usr/bin/busybox";

/// A root of busybox alone, which belongs to an ordinary user.
struct Machine {
    folder: tempfile::TempDir,
}

/// Does something as an ordinary user, in a thread of its own: ids belong to threads.
fn as_ordinary_user(work: impl FnOnce(Machine) + Send + 'static) {
    if !Path::new(BUSYBOX).exists() {
        eprintln!("skipped: this test needs {BUSYBOX}");
        return;
    }
    sandbox::set_program(env!("CARGO_BIN_EXE_fluyt").into());
    let thread = std::thread::spawn(move || {
        if rustix::process::geteuid().is_root() {
            let (uid, gid) = (Uid::from_raw(4711), Gid::from_raw(4712));
            rustix::thread::set_thread_groups(&[]).unwrap();
            rustix::thread::set_thread_res_gid(gid, gid, gid).unwrap();
            rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
        }
        let folder = tempfile::tempdir().unwrap();
        for name in ["root/bin", "root/etc", "root/tmp", "root/dev", "root/proc", "root/sys"] {
            fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        fs::copy(BUSYBOX, folder.path().join("root/bin/busybox")).unwrap();
        let tools = "cat chmod chown echo env grep hostname id kill ln ls mkdir mknod mkfifo mv ps pwd readlink rm rmdir \
                     setsid sh sleep sort stat su touch tr uname wc head nc";
        for tool in tools.split_whitespace() {
            symlink("busybox", folder.path().join("root/bin").join(tool)).unwrap();
        }
        fs::write(folder.path().join("root/etc/passwd"), "root:x:0:0::/root:/bin/sh\nweb:x:33:33::/srv:/bin/sh\n")
            .unwrap();
        work(Machine { folder });
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

impl Machine {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn spec(&self, script: &str) -> RunSpec {
        RunSpec {
            root: RootMount::Directory(self.path("root")),
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
            shm_size_bytes: 0,
            limits: Vec::new(),
            resources: Resources::default(),
            mounts: Vec::new(),
            capabilities: CapabilityChange::default(),
            recorded: false,
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
    let exit = sandbox::run_on(Rung::Traced, spec, &mut output, &Cancel::new()).unwrap();
    (exit, String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

/// Runs a script that must succeed in silence on stderr; its stdout.
fn stdout_of(spec: &RunSpec) -> String {
    let (exit, stdout, stderr) = run(spec);
    assert_eq!((exit, stderr.as_str()), (Exit::Code(0), ""), "{stdout}");
    stdout
}

#[test]
fn both_streams_and_the_exit_code_come_back() {
    as_ordinary_user(|machine| {
        let ended = run(&machine.spec("echo hi; echo oh >&2; echo x > /made; exit 3"));
        assert_eq!(ended, (Exit::Code(3), "hi\n".to_owned(), "oh\n".to_owned()));
        assert_eq!(fs::read_to_string(machine.path("root/made")).unwrap(), "x\n");
        let (exit, ..) = run(&machine.spec("kill -9 $$"));
        assert_eq!(exit, Exit::Signal { signal: 9, out_of_memory: false });
        assert_eq!(run(&machine.spec("echo oh > /dev/stderr; echo hi > /dev/fd/1")).1, "hi\n");
        assert_eq!(stdout_of(&machine.spec("echo hi | cat /dev/stdin; echo hi > /dev/stdout")), "hi\nhi\n");
        let mut spec = machine.spec("");
        spec.argv = vec!["nothing".to_owned()];
        let (exit, _, stderr) = run(&spec);
        assert_eq!((exit, stderr.as_str()), (Exit::Code(127), "fluyt: nothing: not found\n"));
    });
}

#[test]
fn the_trial_agrees_that_a_run_works_here() {
    as_ordinary_user(|machine| {
        let wish = Wish { only: Some(Rung::Traced), least: None };
        let isolation = Isolation::new(wish).at(machine.folder.path());
        assert_eq!(isolation.choice().rung, Rung::Traced, "{:?}", isolation.choice().refused);
        assert_eq!(run(&machine.spec("exit 3")).0, Exit::Code(3));
    });
}

#[test]
fn paths_stay_in_the_root() {
    as_ordinary_user(|machine| {
        fs::write(machine.path("outside"), "secret").unwrap();
        symlink("/outside", machine.path("root/absolute")).unwrap();
        symlink("../../../../../outside", machine.path("root/tmp/relative")).unwrap();
        symlink(machine.path("outside"), machine.path("root/real")).unwrap();
        let script = "cat /../outside /absolute /tmp/relative /real /proc/self/root/outside /proc/1/root/outside \
                      /proc/self/cwd/../outside 2>/dev/null; cd /..; pwd; cd tmp; pwd; cat ../../../outside 2>/dev/null; \
                      readlink /proc/self/cwd; ls / | tr '\\n' ' '";
        let (exit, stdout, stderr) = run(&machine.spec(script));
        assert_eq!((exit, stderr.as_str()), (Exit::Code(0), ""));
        assert_eq!(stdout, "/\n/tmp\n/tmp\nabsolute bin dev etc proc real sys tmp ");
        // `..` above what the machine shows there, and behind links of it.
        let host = machine.path("outside");
        let host = host.to_str().unwrap();
        let above =
            ["/proc/self/..", "/proc/self/../..", "/proc/net/../../..", "/proc/self/fd/../../..", "/dev/fd/../../.."];
        let above: Vec<String> = above.iter().map(|path| format!("{path}{host}")).collect();
        let script = format!(
            "cat {} 2>/dev/null; cd /proc/self/task; cat ../../..{host} 2>/dev/null; cat /proc/self/../{}/environ 2>/dev/null; \
             cat /no/../etc/passwd 2>/dev/null; readlink /proc/self | grep -q $$ || echo another; [ $(readlink /proc/self) -gt 0 ]",
            above.join(" "),
            std::process::id(),
        );
        let (exit, stdout, stderr) = run(&machine.spec(&script));
        assert_eq!((exit, stderr.as_str(), stdout.as_str()), (Exit::Code(0), "", "another\n"));
        // A file that is made through a link is made in the root.
        stdout_of(&machine.spec("echo new > /absolute; mkdir -p /a/b; mv /outside /a/b/moved; cat /a/b/moved"));
        assert_eq!(fs::read_to_string(machine.path("root/a/b/moved")).unwrap(), "new\n");
        assert_eq!(fs::read_to_string(machine.path("outside")).unwrap(), "secret");
    });
}

/// Puts a program with the libraries that it names into the root.
fn has_program(machine: &Machine, program: &Path) {
    let Ok(listed) = Command::new("ldd").arg(program).output() else { return };
    let listed = String::from_utf8(listed.stdout).unwrap();
    let libraries = listed.split_whitespace().filter(|word| word.starts_with('/')).map(Path::new);
    for file in libraries.chain([program]).filter(|file| file.exists()) {
        let inside = machine.path("root").join(file.strip_prefix("/").unwrap());
        fs::create_dir_all(inside.parent().unwrap()).unwrap();
        fs::copy(file, inside).unwrap();
    }
}

/// Puts perl, which makes any call, into the root; says so where there is none.
fn has_perl(machine: &Machine) -> bool {
    let perl = Path::new("/usr/bin/perl");
    has_program(machine, perl);
    if !perl.exists() {
        eprintln!("skipped: this test needs {}", perl.display());
    }
    perl.exists()
}

#[test]
fn who_is_at_the_other_end_of_a_socket_has_the_ids_that_it_believes_to_have() {
    as_ordinary_user(|machine| {
        if has_perl(&machine) {
            let ask = r#"socketpair(A, B, 1, 1, 0); print join(":", (unpack "iII", getsockopt(A, 1, 17))[1, 2]), "\n""#;
            fs::write(machine.path("root/ask"), ask).unwrap();
            let script = "/usr/bin/perl /ask; su web -c '/usr/bin/perl /ask'";
            assert_eq!(stdout_of(&machine.spec(script)), "0:0\n33:33\n");
        }
    });
}

/// The caller is told how many went, and sends the others again.
#[test]
fn of_many_messages_at_once_the_first_goes() {
    as_ordinary_user(|machine| {
        if has_perl(&machine) {
            let send = format!(
                r#"my $a = pack("Sa108", 1, "/tmp/socket"); socket(A, 1, 2, 0); bind(A, $a); socket(B, 1, 2, 0);
                   my ($one, $two) = ("one", "second"); my @v = map {{ pack("PQ", $_, length $_) }} $one, $two;
                   my $m = join "", map {{ pack("PLx4PQQQLx4Lx4", $a, length $a, $_, 1, 0, 0, 0, 0) }} @v;
                   my $sent = syscall({number}, fileno(B), $m, 2, 0);
                   my $rest = substr($m, 64 * $sent); my $more = syscall({number}, fileno(B), $rest, 2 - $sent, 0);
                   my $none = syscall({number}, fileno(B), $m, 0, 0);
                   recv(A, my $first, 9, 0); recv(A, my $second, 9, 0);
                   print join(" ", $sent, $more, $none, unpack("L", substr($m, 56)), unpack("L", substr($rest, 56)), $first, $second)"#,
                number = libc::SYS_sendmmsg,
            );
            fs::write(machine.path("root/send"), send).unwrap();
            assert_eq!(stdout_of(&machine.spec("/usr/bin/perl /send")), "1 1 0 3 6 one second");
        }
    });
}

#[test]
fn the_command_is_root_and_owners_and_modes_are_kept() {
    as_ordinary_user(|machine| {
        let script = "id -u; touch /f; chown 33:44 /f; chmod 4000 /f; cat /f; stat -c '%u:%g %a' /f; ln -s f /l; \
                      chown -h 7:8 /l; stat -c '%u:%g' /l; mkdir -m 0500 /d; touch /d/x; stat -c %a /d; \
                      su web -c 'id -u; touch /tmp/mine; touch /theirs' 2>/dev/null; stat -c '%u:%g' /tmp/mine; ls /theirs 2>/dev/null";
        fs::set_permissions(machine.path("root/tmp"), std::os::unix::fs::PermissionsExt::from_mode(0o1777)).unwrap();
        let (_, stdout, stderr) = run(&machine.spec(script));
        assert_eq!(stderr, "");
        assert_eq!(stdout, "0\n33:44 4000\n7:8\n500\n33\n33:33\n");
        // A socket is its maker's too.
        let socket = "ln -s /tmp/socket /dev/log; su web -c 'busybox syslogd -n -O /tmp/said & while [ ! -S /tmp/socket ]; \
                      do sleep 0.1; done; sleep 0.2; chmod 600 /tmp/socket; stat -c %u:%g /tmp/socket; kill $!'";
        assert_eq!(stdout_of(&machine.spec(socket)), "33:33\n");
        // They are there for the next command too.
        let next = "stat -c '%u:%g %a' /f; stat -c '%u:%g' /l /tmp/mine";
        assert_eq!(stdout_of(&machine.spec(next)), "33:44 4000\n7:8\n33:33\n");
    });
}

#[test]
fn what_is_mounted_is_seen_and_leaves_no_trace() {
    as_ordinary_user(|machine| {
        fs::create_dir_all(machine.path("tree/in")).unwrap();
        fs::write(machine.path("tree/in/file"), "tree").unwrap();
        symlink("/etc/passwd", machine.path("tree/in/link")).unwrap();
        let mut spec = machine.spec(
            "cat /run/secrets/s /mnt/t/file; head -c 4 /mnt/t/link; echo x 2>/dev/null > /mnt/t/new; echo y > /cache/new; \
             echo z > /dev/shm/z; cat /etc/resolv.conf",
        );
        spec.mounts = vec![
            RunMount {
                target: "/run/secrets/s".to_owned(),
                source: MountSource::File { content: b"secret".to_vec(), mode: 0o400, uid: 0, gid: 0 },
                read_only: true,
            },
            RunMount {
                target: "/mnt/t".to_owned(),
                source: MountSource::Tree {
                    root: RootMount::Directory(machine.path("tree")),
                    path: "in".into(),
                    is_folder: true,
                },
                read_only: true,
            },
            RunMount {
                target: "/cache".to_owned(),
                source: MountSource::Memory { size_bytes: 0, mode: 0o1777 },
                read_only: false,
            },
        ];
        // Of a tree in layers the upper ones are seen first, and what is written is lost.
        fs::create_dir(machine.path("below")).unwrap();
        fs::write(machine.path("below/other"), "below").unwrap();
        fs::write(machine.path("below/file"), "hidden").unwrap();
        let lowers = vec![machine.path("tree/in"), machine.path("below")];
        let root = RootMount::Overlay { lowers, upper: machine.path("none"), work: machine.path("none") };
        let source = MountSource::Tree { root, path: PathBuf::new(), is_folder: true };
        let mut layered = machine.spec("cat /m/file /m/other; echo x > /m/file; cat /m/file");
        layered.mounts = vec![RunMount { target: "/m".to_owned(), source, read_only: false }];
        assert_eq!(stdout_of(&layered), "treebelowx\n");
        assert_eq!(fs::read_to_string(machine.path("tree/in/file")).unwrap(), "tree");
        let (exit, stdout, _) = run(&spec);
        assert_eq!((exit, stdout.as_str()), (Exit::Code(0), "secrettreerootnameserver 192.0.2.1\n"));
        assert!(!machine.path("tree/in/new").exists());
        let mut left: Vec<_> =
            fs::read_dir(machine.path("root")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["bin", "dev", "etc", "proc", "sys", "tmp"]);
        assert!(!machine.path("root/etc/resolv.conf").exists());
    });
}

#[test]
fn mount_points_stay_and_are_apart() {
    as_ordinary_user(|machine| {
        fs::create_dir(machine.path("tree")).unwrap();
        fs::write(machine.path("tree/file"), "tree").unwrap();
        let mut spec = machine.spec(
            "rmdir /cache; mv /cache /moved; rm -f /etc/hosts; ln /t/file /linked; mv /cache/made /here; echo y >> /t/file; \
             echo z > /proc/self/fd/3; cat /t/file /proc/keys; ls /sys/firmware; ls /dev | tr '\\n' ' '",
        );
        spec.argv[2].insert_str(0, "exec 2>/dev/null 3</t/file; touch /cache/made; ");
        let tree = |path: &str, read_only| RunMount {
            target: path.to_owned(),
            source: MountSource::Tree {
                root: RootMount::Directory(machine.path("tree")),
                path: PathBuf::new(),
                is_folder: true,
            },
            read_only,
        };
        let memory = MountSource::Memory { size_bytes: 0, mode: 0o1777 };
        spec.mounts =
            vec![tree("/t", true), RunMount { target: "/cache".to_owned(), source: memory, read_only: false }];
        let names = "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero ";
        assert_eq!(run(&spec).1, format!("tree{names}"));
        assert_eq!(fs::read_to_string(machine.path("tree/file")).unwrap(), "tree");
        // It was copied, as between two file systems.
        assert!(machine.path("root/here").exists() && !machine.path("root/moved").exists());
        assert!(!machine.path("root/linked").exists());
    });
}

/// It has the mode of the folder that it covers.
#[test]
fn root_writes_to_a_folder_in_memory_whose_mode_forbids_it() {
    as_ordinary_user(|machine| {
        let mut spec =
            machine.spec("touch /root/x && stat -c %a /root; ls /root; chmod 0500 /root; mkdir /root/d; ls /root");
        let source = MountSource::Memory { size_bytes: 0, mode: 0o550 };
        spec.mounts = vec![RunMount { target: "/root".to_owned(), source, read_only: false }];
        assert_eq!(stdout_of(&spec), "550\nx\nd\nx\n");
    });
}

/// A signal finds each process either before or after its program has started, or while it is started.
#[test]
fn signals_that_come_while_a_program_starts_arrive() {
    as_ordinary_user(|machine| {
        if has_perl(&machine) {
            let kill = r#"my $lost = 0; for my $round (1 .. 150) {
                my $p = fork; if (!$p) { exec "/bin/sleep", "0.3"; exit 99 }
                select undef, undef, undef, ($round % 30) / 5000; kill "TERM", $p; waitpid $p, 0; $lost++ if ($? & 127) != 15;
            } print "$lost lost\n""#;
            fs::write(machine.path("root/kill"), kill).unwrap();
            assert_eq!(stdout_of(&machine.spec("/usr/bin/perl /kill")), "0 lost\n");
        }
    });
}

#[test]
fn a_killed_runs_secrets_go_with_the_next_run() {
    as_ordinary_user(|machine| {
        let here = machine.path("");
        let base = [Path::new("/dev/shm"), &here];
        let folders = base
            .map(|base| ["left", "held"].map(|name| base.join(format!("fluyt-traced-{name}-{}", std::process::id()))));
        for folder in folders.as_flattened() {
            fs::create_dir(folder).unwrap();
            fs::write(folder.join("file0"), "secret").unwrap();
        }
        let held = folders.clone().map(|[_, held]| fs::File::open(held).unwrap());
        for held in &held {
            held.try_lock().unwrap();
        }
        assert_eq!(stdout_of(&machine.spec("echo hi")), "hi\n");
        for [left, held] in folders {
            assert!(!left.exists() && held.exists(), "{}", left.display());
            fs::remove_dir_all(held).unwrap();
        }
        let left = fs::read_dir(machine.path("")).unwrap().map(|entry| entry.unwrap().file_name());
        assert_eq!(left.collect::<Vec<_>>(), ["root"]);
    });
}

/// The machine's memory may hold little and no programs, as in a container.
#[test]
fn what_commands_fill_lies_beside_their_root() {
    as_ordinary_user(|machine| {
        fs::create_dir(machine.path("tree")).unwrap();
        let mut spec = machine
            .spec("touch /memory/made /dev/shm/made /tree/made; echo ready; while [ ! -e /go ]; do sleep 0.1; done");
        let lowers = vec![machine.path("tree")];
        let root = RootMount::Overlay { lowers, upper: machine.path("none"), work: machine.path("none") };
        let tree = MountSource::Tree { root, path: PathBuf::new(), is_folder: true };
        let mount = |target: &str, source| RunMount { target: target.to_owned(), source, read_only: false };
        spec.mounts = vec![mount("/memory", MountSource::Memory { size_bytes: 0, mode: 0o1777 }), mount("/tree", tree)];
        let mut found = Vec::new();
        let mut output = |_, _: &[u8]| {
            for folder in fs::read_dir(machine.path("")).unwrap().map(|entry| entry.unwrap().path()) {
                let made = ["memory0", "tree1", "shm"].map(|name| folder.join(name).join("made"));
                found.extend(made.into_iter().filter(|made| made.exists()));
            }
            fs::write(machine.path("root/go"), "").unwrap();
        };
        let exit = sandbox::run_on(Rung::Traced, &spec, &mut output, &Cancel::new()).unwrap();
        assert_eq!((exit, found.len()), (Exit::Code(0), 3), "{found:?}");
        assert!(found.iter().all(|made| !made.exists()));
    });
}

#[test]
fn sockets_tell_their_names_as_the_command_writes_them() {
    as_ordinary_user(|machine| {
        if has_perl(&machine) {
            let names = r#"sub sockaddr_un { pack "Sa108", 1, $_[0] } sub unpack_sockaddr_un { unpack "x2Z*", $_[0] }
                sub AF_UNIX() { 1 } sub SOCK_STREAM() { 1 } sub SOCK_DGRAM() { 2 } my $a = sockaddr_un("/tmp/a"); my $b = sockaddr_un("/tmp/b");
                socket(A, AF_UNIX, SOCK_STREAM, 0); bind(A, $a) or die $!; listen(A, 5);
                my $name = unpack_sockaddr_un(getsockname A); socket(B, AF_UNIX, SOCK_STREAM, 0); bind(B, $b) or die $!;
                connect(B, sockaddr_un($name)) or die $!; my $from = accept(C, A);
                my @names = map { unpack_sockaddr_un($_) } getpeername B, $from, getpeername C, getsockname C;
                socket(D, AF_UNIX, SOCK_DGRAM, 0); chdir "/tmp"; bind(D, sockaddr_un("d")); send(D, "hi", 0, getsockname D);
                push @names, unpack_sockaddr_un(recv(D, my $text, 9, 0));
                socketpair(E, F, AF_UNIX, SOCK_STREAM, 0); print join(" ", $name, @names, $text, length getsockname E), "\n""#;
            fs::write(machine.path("root/names"), names).unwrap();
            let expected = "/tmp/a /tmp/a /tmp/b /tmp/b /tmp/a /tmp/d hi 2\n";
            assert_eq!(stdout_of(&machine.spec("/usr/bin/perl /names")), expected);
        }
    });
}

/// Each has a path of the tracer's in the memory that the threads share.
#[test]
fn hundreds_of_calls_may_be_under_way_at_once() {
    let python = ["/usr/bin/python3", "/usr/local/bin/python3"].map(Path::new).into_iter().find(|path| path.exists());
    let Some(python) = python.map(|path| path.canonicalize().unwrap()) else {
        eprintln!("skipped: this test needs python3, which has threads");
        return;
    };
    as_ordinary_user(move |machine| {
        has_program(&machine, &python);
        let library =
            Command::new(&python).args(["-c", "import os; print(os.path.dirname(os.__file__))"]).output().unwrap();
        let library = PathBuf::from(String::from_utf8(library.stdout).unwrap().trim());
        let inside = machine.path("root").join(library.strip_prefix("/").unwrap());
        fs::create_dir_all(inside.parent().unwrap()).unwrap();
        let copied = Command::new("cp").arg("-r").args([&library, &inside]).status().unwrap();
        assert!(copied.success());
        let wait = "import os, threading, time\nthreading.stack_size(65536)\nos.mkfifo('/fifo')\nfailed = []\n\
            def wait():\n try: os.open('/fifo', os.O_RDONLY)\n except OSError as error: failed.append(error)\n\
            threads = [threading.Thread(target=wait) for _ in range(300)]\n\
            for thread in threads: thread.start()\n\
            time.sleep(1)\nos.open('/fifo', os.O_RDWR)\n\
            for thread in threads: thread.join()\nprint(len(failed), failed[:1])\n";
        fs::write(machine.path("root/wait"), wait).unwrap();
        let script = format!("{} -S -E /wait", python.display());
        assert_eq!(stdout_of(&machine.spec(&script)), "0 []\n");
    });
}

#[test]
fn small_things_are_refused_as_the_kernel_refuses_them() {
    as_ordinary_user(|machine| {
        if has_perl(&machine) {
            fs::write(machine.path("root/crlf"), "#!/bin/sh\r\necho ran\n").unwrap();
            fs::write(machine.path("root/blanks"), "#! \t/bin/sh -u \t\necho ran\n").unwrap();
            let numbers = [
                ("setxattr", libc::SYS_setxattr),
                ("fchmod", libc::SYS_fchmod),
                ("prctl", libc::SYS_prctl),
                ("pidfd_open", libc::SYS_pidfd_open),
                ("pidfd_send_signal", libc::SYS_pidfd_send_signal),
            ];
            let numbers: String = numbers.map(|(name, number)| format!("sub {name}() {{ {number} }} ")).concat();
            let calls = numbers
                + r#"sub said { print $_[0] < 0 || !defined $_[0] ? $! + 0 : "done:" . ($_[0] + 0), " " }
                open F, ">", "/tmp/file"; mkdir "/tmp/folder"; symlink "folder", "/tmp/link"; my $v = "v";
                said(unlink("/tmp/file/") || -1); said(unlink("/tmp/folder/") || -1); said(unlink("/tmp/none/") || -1);
                said(rename("/tmp/file/", "/tmp/other") || -1); said(rename("/tmp/file", "/tmp/other/") || -1);
                said(symlink("x", "/tmp/none/") || -1); said(rename("/tmp/folder/", "/tmp/moved/") || -1);
                for my $name ("trusted.a", "security.foo", "security.capability") {
                    my ($file, $name) = ("/tmp/file", $name); said(syscall(setxattr, $file, $name, $v, 1, 0)) }
                sysopen(P, "/tmp/file", 010000000); said(syscall(fchmod, fileno(P), 0600)); said(syscall(fchmod, fileno(F), 0600));
                said(syscall(prctl, 23, 0)); said(syscall(prctl, 23, 63));
                my $p = fork; if (!$p) { sleep 100; exit } my $d = syscall(pidfd_open, $p, 0);
                said(syscall(pidfd_send_signal, fileno(F), 9, 0, 0)); said(syscall(pidfd_send_signal, $d, 9, 0, 0));
                waitpid $p, 0; said($? & 127); said(syscall(pidfd_send_signal, $d, 0, 0, 0));
                socketpair(A, B, 1, 1, 0); said(getsockopt(A, 1, 77) ? 1 : -1)"#;
            fs::write(machine.path("root/calls"), calls).unwrap();
            let script = "chmod 755 /crlf /blanks; /blanks; /crlf 2>/dev/null; echo $?; /usr/bin/perl /calls";
            let expected = "ran\n127\n20 21 2 20 20 2 done:1 1 1 done:0 9 done:0 done:1 22 9 done:0 done:9 3 92 ";
            assert_eq!(stdout_of(&machine.spec(script)), expected);
        }
    });
}

/// A program that makes one call by its number of 32 bits, `open("/etc/passwd")`, and ends with the error's number.
#[rustfmt::skip]
const OLD_CALL: [u8; 25] = [
    0xb8, 5, 0, 0, 0, 0xbb, 0x98, 0, 0x40, 0, 0x31, 0xc9, 0xcd, 0x80, 0xf7, 0xd8, 0x89, 0xc7, 0xb8, 60, 0, 0, 0, 0x0f, 5,
];

#[test]
fn calls_of_32_bits_do_not_pass() {
    as_ordinary_user(|machine| {
        let mut program = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 62, 0, 1, 0, 0, 0];
        for word in [0x40_0078_u64, 64, 0] {
            program.extend(word.to_le_bytes());
        }
        program.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 5, 0, 0, 0]);
        for word in [0, 0x40_0000_u64, 0x40_0000, 0xa8, 0xa8, 0x1000] {
            program.extend(word.to_le_bytes());
        }
        program.extend(OLD_CALL);
        program.resize(0x98, 0);
        program.extend(b"/etc/passwd\0");
        program.resize(0xa8, 0);
        let file = machine.path("root/bin/old");
        fs::write(&file, program).unwrap();
        fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        assert_eq!(run(&machine.spec("old")).0, Exit::Code(38));
    });
}

#[test]
fn nothing_is_left_running() {
    as_ordinary_user(|machine| {
        let mark = format!("{}.5", 2_000_000 + std::process::id());
        let survivors = || {
            let processes = fs::read_dir("/proc").unwrap();
            let lines = processes.filter_map(|entry| fs::read_to_string(entry.ok()?.path().join("cmdline")).ok());
            lines.filter(|line| line.contains(&mark) && !line.contains("sh\0-c")).count()
        };
        let script = format!(
            "setsid sleep {mark} & (setsid sleep {mark} &) ; sleep 0.2; kill -9 -1; kill -0 {}",
            std::process::id()
        );
        let (exit, ..) = run(&machine.spec(&script));
        assert_eq!((exit, survivors()), (Exit::Code(1), 0));

        let cancel = Cancel::new();
        let (from, spec) = (Instant::now(), machine.spec(&format!("setsid sleep {mark} & sleep {mark}")));
        let exit = std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(300));
                cancel.cancel();
            });
            sandbox::run_on(Rung::Traced, &spec, &mut |_, _| {}, &cancel).unwrap()
        });
        assert_eq!((exit, survivors()), (Exit::Cancelled, 0));
        assert!(from.elapsed() < Duration::from_secs(20));
    });
}
