//! Owners that are recorded: commands in a user namespace with one id, as an ordinary user has without subordinate ids.
//!
//! Each test starts itself again as such a user, in such a namespace. Needs root (to become the user), `setpriv`,
//! `unshare` and a static busybox, and says `skipped` without them.
#![expect(clippy::print_stderr, reason = "a skipped test says so")]
#![expect(clippy::print_stdout, reason = "what it would have said in its own process")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use fluyt::layer::{Change, overlay_changes, tidy_upper};
use fluyt::owners::{self, Owner, Paths};
use fluyt::sandbox::{self, CapabilityChange, Exit, Network, Resources, RootMount, RunSpec, Stream};
use fluyt::stop::Cancel;

const BUSYBOX: &str = "/usr/bin/busybox";

/// Says that this is the process that the test is for.
const INSIDE: &str = "FLUYT_TEST_INSIDE";

/// Runs `test`, which is called `name`, with one id.
fn with_one_id(name: &str, test: impl FnOnce(&Machine)) {
    if let Some(folder) = std::env::var_os(INSIDE) {
        return test(&Machine::new(PathBuf::from(folder)));
    }
    let has = |program: &str| Path::new("/usr/bin").join(program).exists();
    if !rustix::process::geteuid().is_root() || !["busybox", "setpriv", "unshare"].iter().all(|program| has(program)) {
        eprintln!("skipped: this test needs root, {BUSYBOX}, setpriv and unshare");
        return;
    }
    // The folders of the build need not be open to others.
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    // A program that another test's child has open for writing, for the moment until it is another, cannot be executed.
    static ALONE: Mutex<()> = Mutex::new(());
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let copy = |from: &Path, name: &str| {
        let to = folder.path().join(name);
        fs::copy(from, &to).unwrap();
        to
    };
    copy(Path::new(env!("CARGO_BIN_EXE_fluyt")), "fluyt");
    let this = copy(&std::env::current_exe().unwrap(), "test");
    let child = Command::new("setpriv")
        .args(["--reuid=4711", "--regid=4712", "--clear-groups", "unshare", "--user", "--map-root-user"])
        .arg(this)
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(INSIDE, folder.path())
        .current_dir(folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(alone);
    let output = child.wait_with_output().unwrap();
    println!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    // The tree belongs to the user, who may have closed folders of it.
    assert!(output.status.success(), "{}", output.status);
}

/// A root of busybox alone, with owners, and the overlay over it.
struct Machine {
    folder: PathBuf,
}

impl Machine {
    fn new(folder: PathBuf) -> Self {
        sandbox::set_program(folder.join("fluyt"));
        let machine = Self { folder: folder.join("machine") };
        for name in ["fs/bin", "fs/etc", "fs/tmp", "fs/mail", "upper/fs", "upper/work"] {
            fs::create_dir_all(machine.path(name)).unwrap();
        }
        fs::copy(BUSYBOX, machine.path("fs/bin/busybox")).unwrap();
        let tools =
            "cat chgrp chown chroot cp echo id ln ls mkdir mkfifo mv rm sh stat su tar touch chmod sleep seq grep";
        for tool in tools.split(' ').chain(["setpriv", "cpio", "find", "test", "true", "false", "wc", "env"]) {
            symlink("busybox", machine.path("fs/bin").join(tool)).unwrap();
        }
        fs::write(machine.path("fs/etc/passwd"), "root:x:0:0:root:/:/bin/sh\nmail:x:8:8:mail:/mail:/bin/sh\n").unwrap();
        fs::write(machine.path("fs/etc/group"), "root:x:0:\nmail:x:8:\nstaff:x:50:mail\nshadow:x:42:\n").unwrap();
        fs::write(machine.path("fs/etc/shadow"), "root:*:::::::\nmail::::::::\n").unwrap();
        let give = |path: &str, uid, gid| owners::give(&machine.path(path), Owner { uid, gid }).unwrap();
        give("fs/etc/shadow", 0, 42);
        give("fs/mail", 8, 8);
        symlink("nowhere", machine.path("fs/etc/link")).unwrap();
        let mut table = Paths::default();
        table.insert(b"etc/link", Owner { uid: 33, gid: 34 });
        table.write_for(&machine.path("fs")).unwrap();
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn spec(&self, script: &str) -> RunSpec {
        RunSpec {
            root: RootMount::Overlay {
                lowers: vec![self.path("fs")],
                upper: self.path("upper/fs"),
                work: self.path("upper/work"),
            },
            argv: ["/bin/sh", "-e", "-c", script].map(str::to_owned).to_vec(),
            env: vec![("PATH".to_owned(), "/bin".to_owned())],
            cwd: "/".to_owned(),
            uid: 0,
            gid: 0,
            groups: vec![0],
            hostname: "buildkitsandbox".to_owned(),
            hosts: b"127.0.0.1 localhost\n".to_vec(),
            resolv_conf: Vec::new(),
            network: Network::Host,
            insecure: false,
            capabilities: CapabilityChange::default(),
            shm_size_bytes: 0,
            limits: Vec::new(),
            mounts: Vec::new(),
            resources: Resources::default(),
            recorded: true,
        }
    }

    /// What was changed, one line each.
    fn outline(&self) -> String {
        let (upper, lowers) = (self.path("upper/fs"), [self.path("fs")]);
        let line =
            |Change { entry, .. }: &Change| format!("{} {:o} {}:{}\n", entry.path, entry.mode, entry.uid, entry.gid);
        let found = overlay_changes(&upper, &lowers).unwrap().iter().map(line).collect();
        // As the next step will have it.
        tidy_upper(&upper, &lowers).unwrap();
        assert!(!owners::run_table(&upper).exists());
        found
    }
}

/// What a command that succeeds writes.
fn run(spec: &RunSpec) -> String {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let mut output = |stream, bytes: &[u8]| match stream {
        Stream::Stdout => stdout.extend_from_slice(bytes),
        Stream::Stderr => stderr.extend_from_slice(bytes),
    };
    let exit = sandbox::run(spec, &mut output, &Cancel::new());
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert_eq!(exit.unwrap(), Exit::Code(0), "{stdout}{stderr}");
    stdout.into_owned()
}

/// For a user without a name, and so without subordinate ids.
#[test]
fn the_trial_agrees_that_a_run_works_here() {
    if !rustix::process::geteuid().is_root() || !Path::new("/usr/bin/setpriv").exists() {
        eprintln!("skipped: this test needs root and setpriv");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let program = folder.path().join("fluyt");
    fs::copy(env!("CARGO_BIN_EXE_fluyt"), &program).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--reuid=4711", "--regid=4712", "--clear-groups"]).arg(program);
    command.arg("--store").arg(folder.path().join("store")).args(["doctor", "--json"]).current_dir(folder.path());
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains(r#""rung":"r3","fidelity":"recorded""#), "{said}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn owners_are_given_shown_and_kept() {
    with_one_id("owners_are_given_shown_and_kept", |machine| {
        let script = "
            stat -c '%n %u:%g' etc/shadow mail etc/passwd etc/link
            touch a b c && chown 1:2 a && chgrp 42 b && chown mail:staff c
            chmod 4755 a && chown 5 a
            mkdir -p d/e && chown -R mail d && chown 65534:65534 d/e
            ln -s nowhere l.new && chown -h 3:4 l.new && mv l.new l
            mkfifo p && chown 6:7 p
            stat -c '%n %a %u:%g' a b c d d/e l p
            cp -a etc/shadow etc/shadow- && cp -a etc/link link2
            echo x >> etc/shadow
            chown 0:0 b
            rm c
        ";
        let stdout = run(&machine.spec(script));
        let expected = "etc/shadow 0:42\nmail 8:8\netc/passwd 0:0\netc/link 33:34\n\
            a 755 5:2\nb 644 0:42\nc 644 8:50\nd 755 8:0\nd/e 755 65534:65534\nl 777 3:4\np 644 6:7\n";
        assert_eq!(stdout, expected);
        let expected = "/a 755 5:2\n/b 644 0:0\n/d 755 8:0\n/d/e 755 65534:65534\n/dev 755 0:0\n/etc 755 0:0\n\
            /etc/shadow 644 0:42\n/etc/shadow- 644 0:42\n/l 777 3:4\n/link2 777 33:34\n/p 644 6:7\n/proc 755 0:0\n/sys 755 0:0\n";
        assert_eq!(machine.outline(), expected);
        let table = Paths::of_tree(&machine.path("upper/fs")).unwrap();
        let known: Vec<_> = table.iter().map(|(path, owner)| (String::from_utf8_lossy(path), owner.uid)).collect();
        assert_eq!(known, [("l".into(), 3), ("link2".into(), 33), ("p".into(), 6)]);
    });
}

#[test]
fn a_command_is_taken_for_whom_it_becomes() {
    with_one_id("a_command_is_taken_for_whom_it_becomes", |machine| {
        let script = "
            id
            mkdir shared && chown 0:50 shared && chmod 2775 shared
            touch shared/of-root && mkdir shared/folder && ln -s x shared/link
            su mail -c 'id; touch mail/one; mkdir mail/two; echo > mail/two/three; ln -s x mail/four; mkfifo mail/five
                touch shared/of-mail; chown 0 mail/one 2>/dev/null || echo refused; chgrp staff mail/one'
            stat -c '%u' mail/one
            (cd mail && touch six)
        ";
        let stdout = run(&machine.spec(script));
        let expected =
            "uid=0(root) gid=0(root) groups=0(root)\nuid=8(mail) gid=8(mail) groups=8(mail),50(staff)\nrefused\n8\n";
        assert_eq!(stdout, expected);
        let expected = "/dev 755 0:0\n/mail 755 8:8\n/mail/five 644 8:8\n/mail/four 777 8:8\n/mail/one 644 8:50\n\
            /mail/six 644 0:0\n/mail/two 755 8:8\n/mail/two/three 644 8:8\n/proc 755 0:0\n/shared 2775 0:50\n\
            /shared/folder 2755 0:50\n/shared/link 777 0:50\n/shared/of-mail 644 8:50\n/shared/of-root 644 0:50\n/sys 755 0:0\n";
        assert_eq!(machine.outline(), expected);
    });
}

#[test]
fn another_user_may_be_the_command() {
    with_one_id("another_user_may_be_the_command", |machine| {
        let spec = RunSpec {
            uid: 8,
            gid: 8,
            groups: vec![8, 50],
            cwd: "/mail/work".to_owned(),
            ..machine.spec("id; touch x")
        };
        assert_eq!(run(&spec), "uid=8(mail) gid=8(mail) groups=8(mail),50(staff)\n");
        let expected =
            "/dev 755 0:0\n/mail 755 8:8\n/mail/work 755 8:8\n/mail/work/x 644 8:8\n/proc 755 0:0\n/sys 755 0:0\n";
        assert_eq!(machine.outline(), expected);
    });
}

#[test]
fn roots_within_the_root_are_followed() {
    with_one_id("roots_within_the_root_are_followed", |machine| {
        let script = "
            mkdir -p inner/bin inner/tmp && cp bin/busybox inner/bin && ln -s /bin/busybox inner/bin/sh
            ln -s /target inner/to && ln -s x target
            chroot inner /bin/sh -c '
                busybox touch /target /tmp/x
                busybox chown 5:6 /to
                busybox chown 7:8 /tmp/../tmp/x
                busybox ln -s x /link && busybox chown -h 9:9 /link
                busybox stat -c %u /target /link'
            chown 1:1 inner/tmp/x
        ";
        assert_eq!(run(&machine.spec(script)), "5\n9\n");
        let outline = machine.outline();
        for line in ["/inner/link 777 9:9", "/inner/target 644 5:6", "/inner/tmp/x 644 1:1", "/target 777 0:0"] {
            assert!(outline.lines().any(|found| found == line), "{line}\n{outline}");
        }
    });
}

#[test]
fn what_is_not_of_the_image_is_given_without_a_trace() {
    with_one_id("what_is_not_of_the_image_is_given_without_a_trace", |machine| {
        let script = "
            chown 1:1 /dev/null /dev/stdout /dev/shm /proc/self/fd/1
            touch /dev/shm/x && chown 2:2 /dev/shm/x && stat -c %u /dev/shm/x
            touch f && exec 3<f && chown 3:3 /proc/self/fd/3 && stat -c %u f && stat -L -c %u /proc/self/fd/3
            ! chown 1 missing 2>&1 && ! stat missing 2>/dev/null
        ";
        assert_eq!(run(&machine.spec(script)), "2\n3\n3\nchown: missing: No such file or directory\n");
        assert_eq!(machine.outline(), "/dev 755 0:0\n/f 644 3:3\n/proc 755 0:0\n/sys 755 0:0\n");
    });
}
