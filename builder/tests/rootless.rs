//! Commands in a user namespace with many ids, as an ordinary user with subordinate ids has it: the same layers as root
//! makes, the same exit codes, and nothing left behind.
//!
//! Needs root (to make the user), `useradd`, `setpriv`, `newuidmap` and a static busybox, and says `skipped` without them.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

#[path = "common/user.rs"]
mod user;

use user::{User, text};

fn done(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", text(&output));
}

/// The digest that a build printed.
fn digest(output: &Output) -> String {
    assert!(output.status.success(), "{}", text(output));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// What is written to loses its setuid bit in a user namespace, whoever writes: there the test sets it again.
///
/// Owners, removals, replaced folders, links, sockets and pipes, another user.
const TRICKY: &str = r#"
RUN mkdir -p /etc /var/a /var/b /old/deep && echo root:x:0:0::/root:/bin/sh > /etc/passwd && touch /old/1 /old/deep/2 && \
    chown 33:44 /var/a && chown 65535:65535 /var/b && ln -s nowhere /link && chown -h 5:6 /link && mkfifo /pipe && \
    echo one > /a && ln /a /b && chmod 6755 /a && mkdir -m 1777 /tmp
RUN rm -r /old && mkdir /old && touch /old/3 && rm /bin/vi && mv /var/b /var/c && echo two >> /b && chmod 6755 /b && chown 7 /etc/passwd
USER 1000:1001
WORKDIR /work
RUN touch /tmp/mine /work/x; id > /tmp/id
USER 0
RUN find /old /var /etc /tmp /link /pipe /a /b | sort | xargs stat -c "%n %a %u:%g %F" > /listing; cat /tmp/id >> /listing; ls /bin/vi >> /listing 2>&1; \
    test -d /proc/self && test -c /dev/null && echo x > /dev/null
RUN --mount=type=cache,target=/c --mount=type=tmpfs,target=/t --mount=type=bind,target=/context,rw \
    cp /context/Dockerfile /c/ && touch /context/new /t/x && chown 9:9 /c/Dockerfile && rm /context/busybox
RUN --network=none ifconfig lo | grep -q 127.0.0.1
"#;

#[test]
fn layers_are_those_that_root_makes() {
    let Some(user) = User::new() else { return };
    let context = user.context(TRICKY);
    let as_root = |rung: &str| {
        let store = user.path(&format!("store-{rung}"));
        let mut command = Command::new(user.path("fluyt"));
        command.arg("--store").arg(store).args(["build", "--reproducible", "--progress=plain", "--isolation", rung]);
        digest(&command.arg(&context).output().unwrap())
    };
    let rootless = user.build(&context);
    let expected = as_root("r1");
    assert_eq!(digest(&rootless), expected, "{}", text(&rootless));
    assert_eq!(as_root("r2"), expected, "root in a user namespace with all ids");
    // From the cache, and with unpacked layers that are there.
    assert_eq!(digest(&user.build(&context)), expected);
    let doctor = user.fluyt().args(["doctor", "--json"]).output().unwrap();
    assert!(text(&doctor).contains("\"rung\":\"r2\",\"fidelity\":\"exact\""), "{}", text(&doctor));
}

/// Files of ids that the user's namespace alone gives, with modes that keep their owner out.
#[test]
fn what_root_mends_a_user_mends() {
    let Some(user) = User::new() else { return };
    let context = user.context(
        "COPY --chown=33:65534 --chmod=400 log /var/log/dpkg.log\nCOPY --chown=5:6 log /var/log/yum.log\n\
         RUN mkdir -p /etc /var/lib/dbus && chown 7:8 /var/lib/dbus && chmod 500 /var/lib/dbus && \
         for file in /etc/machine-id /var/lib/dbus/machine-id /var/log/dpkg.log /etc/passwd-; do \
         head -c 9 /dev/urandom >> $file; chown 44:55 $file; chmod 0 $file; done\n\
         RUN find /etc /var | sort | xargs stat -c '%n %a %u:%g %s' > /listing; cat /var/log/dpkg.log >> /listing\n",
    );
    fs::write(context.join("log"), "base\n").unwrap();
    let build = |mut fluyt: Command| {
        let flags = ["build", "--reproducible", "--normalize", "--no-cache", "--progress=plain"];
        fluyt.args(flags).arg(&context).output().unwrap()
    };
    let mut as_root = Command::new(user.path("fluyt"));
    as_root.arg("--store").arg(user.path("store-root"));
    let (rootless, expected) = (build(user.fluyt()), build(as_root));
    assert_eq!(digest(&rootless), digest(&expected), "{}{}", text(&rootless), text(&expected));
    let note = "normalized 4 files: /etc/machine-id, /etc/passwd-, /var/lib/dbus/machine-id and 1 more\n";
    assert!(text(&rootless).contains(note), "{}", text(&rootless));
}

#[test]
fn owners_above_the_map_and_devices_of_an_image_stay_in_its_layers() {
    let Some(user) = User::new() else { return };
    let tree = user.path("tree");
    fs::create_dir(&tree).unwrap();
    for (name, id) in [("high", 2_000_000), ("low", 1000)] {
        fs::write(tree.join(name), name).unwrap();
        std::os::unix::fs::chown(tree.join(name), Some(id), Some(id)).unwrap();
        std::os::unix::fs::symlink(name, tree.join(format!("{name}-link"))).unwrap();
        std::os::unix::fs::lchown(tree.join(format!("{name}-link")), Some(id), Some(id)).unwrap();
    }
    done(Command::new("mknod").arg(tree.join("null")).args(["c", "1", "3"]));
    let context = user.context("ADD tree.tar /t/\nRUN chmod 600 /t/*h /t/*w; touch /t/new\n");
    done(Command::new("tar").arg("-C").arg(&tree).arg("-cf").arg(context.join("tree.tar")).arg("."));
    let rootless = user.build(&context);
    let mut root = Command::new(user.path("fluyt"));
    root.arg("--store").arg(user.path("roots")).args(["build", "--reproducible", "--progress=plain"]).arg(&context);
    assert_eq!(digest(&rootless), digest(&root.output().unwrap()), "{}", text(&rootless));
}

#[test]
fn root_without_rights_to_networks_cuts_commands_off_all_the_same() {
    let Some(user) = User::new() else { return };
    // As in a container that was given `CAP_SYS_ADMIN` alone.
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-net_admin", "--inh-caps=-net_admin"]).arg(user.path("fluyt"));
    command.arg("--store").arg(user.path("roots")).args(["build", "--isolation=r1", "--progress=plain"]);
    let context = user.context("RUN --network=none ifconfig lo | grep -q 127.0.0.1 && ! ifconfig eth0\n");
    digest(&command.arg(&context).output().unwrap());
}

#[test]
fn exported_files_are_the_users_own() {
    let Some(user) = User::new() else { return };
    let context = user.context("RUN mkdir /d && touch /d/f && chown -R 33:44 /d");
    let out = user.path("store/out");
    let output = user.fluyt().args(["build", "-o"]).arg(&out).arg(&context).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let owner = fs::metadata(user.path("store")).unwrap().uid();
    assert_eq!(fs::metadata(out.join("d/f")).unwrap().uid(), owner);
}

#[test]
fn rights_over_the_machines_network_are_said_to_be_none() {
    let Some(user) = User::new() else { return };
    let context = user.context("RUN true\nRUN echo once\n");
    let said = |arguments: &[&str]| {
        let output = user.fluyt().args(["build", "--progress=plain"]).args(arguments).arg(&context).output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        text(&output).matches("has no effect on the network of this machine").count()
    };
    assert_eq!(said(&["--cap-add", "cap_net_raw"]), 1);
    assert_eq!(said(&["--cap-add", "NET_ADMIN", "--network=none"]), 0);
    assert_eq!(said(&["--cap-add", "SYS_PTRACE"]), 0);
}

#[test]
fn exit_codes_are_those_of_the_command() {
    let Some(user) = User::new() else { return };
    for (command, expected) in [
        ("RUN exit 3", "exited with status 3"),
        ("RUN [\"/bin/nothing\"]", "the image has no /bin/nothing"),
        ("RUN [\"/etc\"]", "exited with status 126"),
        ("RUN sh -c 'kill -9 $$'; exit $?", "exited with status 137"),
        ("RUN kill -TERM 1; exit 4", "exited with status 4"),
    ] {
        let context = user.context(&format!("RUN mkdir -p /etc\n{command}\n"));
        let output = user.build(&context);
        assert_eq!(output.status.code(), Some(1), "{command}: {}", text(&output));
        assert!(text(&output).contains(expected), "{command}: {}", text(&output));
    }
}

/// The processes whose arguments hold this.
fn processes(argument: &str) -> usize {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter(|entry| {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).split('\0').any(|word| word == argument)
        })
        .count()
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(30), "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn nothing_is_left_of_a_killed_build_nor_of_a_pruned_store() {
    let Some(user) = User::new() else { return };
    for (number, signal) in [Signal::KILL, Signal::INT].into_iter().enumerate() {
        let nap = format!("{}.{}", 1_000_000 + std::process::id(), 7 + number);
        let script =
            format!("mkdir /d && chown 33:44 /d && touch /d/x && chmod 0 /d; setsid sleep {nap} & sleep {nap}");
        let context = user.context(&format!("RUN {script}\n"));
        let mut child = user.fluyt().arg("build").arg(&context).stderr(Stdio::null()).spawn().unwrap();
        // The one in the background, the one in front, and no shell between.
        wait_until("two sleeping commands", || processes(&nap) == 2);
        // `setpriv` became the builder, and that is still the same process.
        kill_process(Pid::from_child(&child), signal).unwrap();
        let status = child.wait().unwrap();
        if signal == Signal::INT {
            assert_eq!(status.code(), Some(130));
        }
        wait_until("their end", || processes(&nap) == 0);
        assert!(number > 0 || !user.left("tmp").is_empty(), "a killed build leaves what it was at");
    }
    // Owned by a subordinate id and closed: only the next builder in the same namespace can remove it.
    let pruned = user.fluyt().args(["prune", "--all"]).output().unwrap();
    assert!(pruned.status.success(), "{}", text(&pruned));
    for folder in ["tmp", "layers", "cache-mounts"] {
        assert_eq!(user.left(folder), Vec::<PathBuf>::new());
    }
}

#[test]
fn many_commands_run_at_once() {
    let Some(user) = User::new() else { return };
    let mut stages = String::from("FROM scratch AS base\nCOPY busybox /bin/busybox\n");
    stages.push_str("RUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n");
    let mut last = String::from("FROM base\n");
    for stage in 0..16 {
        let _ = writeln!(stages, "FROM base AS s{stage}");
        for step in 0..5 {
            let _ = writeln!(stages, "RUN echo {stage}-{step} >> /out; chown {stage}:{step} /out; rm -f /bin/a*");
        }
        let _ = writeln!(last, "COPY --from=s{stage} /out /out-{stage}");
    }
    let _ = writeln!(last, "RUN cat /out-* | sort | uniq | wc -l | grep -qx 80");
    let context = user.context("");
    fs::write(context.join("Dockerfile"), stages + &last).unwrap();
    digest(&user.build(&context));
}

#[test]
fn an_image_may_have_as_many_layers_as_the_kernel_takes() {
    let Some(user) = User::new() else { return };
    let image = |layers: usize| {
        let mut text = String::new();
        // Two are there before these.
        for number in 2..layers {
            let _ = writeln!(text, "COPY Dockerfile /files/{number}");
        }
        let _ = writeln!(text, "RUN ls /files | wc -l | grep -qx {}", layers - 2);
        user.build(&user.context(&text))
    };
    digest(&image(500));
    let output = image(501);
    let said = text(&output);
    assert!(said.contains("501 layers") && said.contains("500"), "{said}");
}

/// Root of the user's namespace becomes one of the user's other ids.
#[test]
fn verify_builds_as_another_of_the_users_ids() {
    let Some(user) = User::new() else { return };
    let verify = |text: &str| {
        let context = user.context(text);
        user.fluyt().args(["verify", "--progress=plain"]).arg(context).output().unwrap()
    };
    let same = verify(
        "RUN echo a > /a; chown 65534:65535 /a; mkdir -p /etc; id > /id\nRUN rm /a; stat -c '%u %g' / /id > /b\n",
    );
    let told = text(&same);
    assert_eq!(same.status.code(), Some(0), "{told}");
    assert!(told.contains(" (user 1 here, on r2)") && !told.contains("warning"), "{told}");
    let other = verify("RUN cat /proc/self/uid_map > /map\n");
    let told = text(&other);
    assert_eq!(other.status.code(), Some(1), "{told}");
    assert!(told.contains("error: the two builds differ: /map (content)"), "{told}");
    assert_eq!(user.left("tmp"), [] as [PathBuf; 0]);
}

/// In a mount namespace of its own, an overlay as containers have it; the store lies in it.
fn on_an_overlay(user: &User, context: &Path, command: &Command) -> Output {
    let base = user.path("base");
    for folder in ["lower", "upper", "work", "root"] {
        fs::create_dir_all(base.join(folder)).unwrap();
    }
    let owner = fs::metadata(user.path("store")).unwrap();
    fs::create_dir_all(base.join("upper/store")).unwrap();
    let is_user = command.get_program() == "setpriv";
    if is_user {
        std::os::unix::fs::chown(base.join("upper/store"), Some(owner.uid()), Some(owner.gid())).unwrap();
    }
    let options = "lowerdir=base/lower,upperdir=base/upper,workdir=base/work";
    let script = format!(
        "mount -t tmpfs none {base} && mkdir {base}/lower {base}/upper {base}/work {base}/root && \
         chmod 755 {base} && cd {folder} && mount -t overlay -o {options} none {base}/root && mkdir {base}/root/store && \
         {give} && cd / && exec \"$@\"",
        base = base.display(),
        folder = user.folder.path().display(),
        give = if is_user { format!("chown {} {}/root/store", user.name, base.display()) } else { "true".to_owned() },
    );
    let mut outer = Command::new("unshare");
    outer.args(["--mount", "sh", "-c", &script, "sh"]).arg(command.get_program());
    let store = user.path("store");
    outer.args(
        command
            .get_args()
            .map(|word| if word == store { base.join("root/store").into_os_string() } else { word.to_owned() }),
    );
    outer.args(["build", "--reproducible", "--progress=plain"]).arg(context);
    outer.output().unwrap()
}

#[test]
fn a_store_on_an_overlay_gives_the_same_layers() {
    let Some(user) = User::new() else { return };
    let context = user.context(TRICKY);
    let expected = digest(&user.build(&context));
    let rootless = on_an_overlay(&user, &context, &user.fluyt());
    assert_eq!(digest(&rootless), expected, "{}", text(&rootless));
    let mut root = Command::new(user.path("fluyt"));
    root.arg("--store").arg(user.path("store"));
    let root = on_an_overlay(&user, &context, &root);
    assert_eq!(digest(&root), expected, "{}", text(&root));
}
