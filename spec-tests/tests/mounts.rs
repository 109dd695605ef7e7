//! `RUN --mount`: what a command sees, what is gone after it, and who waits for whom.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use spec_tests::client::Fluyt;
use spec_tests::folder::TestDir;
use spec_tests::program::{self, Outcome};

use crate::sample::shell_context;

/// busybox as every usual command, and a stage to bind from.
const START: &str = "RUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\nWORKDIR /w\n";

fn context(rest: &str) -> TestDir {
    let context = shell_context(&format!("{START}{rest}"));
    let text = fs::read_to_string(context.join("Dockerfile")).unwrap();
    context.write("Dockerfile", text.replacen("FROM scratch", "FROM scratch AS base", 1));
    context
}

/// Builds, and gives the entries of the result's tar, in order: path, mode, time.
fn listing(fluyt: &Fluyt, context: &TestDir, arguments: &[&str]) -> Vec<(String, u32, u64)> {
    let folder = TestDir::new();
    let tar = folder.join("image.tar");
    let output = format!("type=tar,dest={}", tar.display());
    let _ = fluyt.build(context.path(), &[&["-o", &output], arguments].concat()).expect_success();
    let mut archive = tar::Archive::new(fs::File::open(&tar).unwrap());
    let entries = archive.entries().unwrap().map(|entry| {
        let entry = entry.unwrap();
        let path = entry.path().unwrap().display().to_string();
        (path, entry.header().mode().unwrap(), entry.header().mtime().unwrap())
    });
    entries.filter(|(path, ..)| !path.trim_start_matches('/').starts_with("bin")).collect()
}

fn built(fluyt: &Fluyt, context: &TestDir, arguments: &[&str]) -> Outcome {
    fluyt.build(context.path(), &[&["--progress=plain"], arguments].concat()).expect_success()
}

#[test]
fn nothing_of_a_mount_is_in_the_image() {
    if !program::is_root("nothing_of_a_mount_is_in_the_image") {
        return;
    }
    let fluyt = Fluyt::new();
    let plain =
        context("RUN mkdir -p /srv/old && echo x > /srv/old/file && touch -d 2001-01-01 /srv/old /srv\nRUN true\n");
    let mounted = context(
        "RUN mkdir -p /srv/old && echo x > /srv/old/file && touch -d 2001-01-01 /srv/old /srv\n\
         RUN --mount=type=cache,target=/srv/old/cache --mount=type=tmpfs,target=/srv/new/deep/memory \
         --mount=target=/srv/old/file,source=busybox --mount=type=secret,id=s,target=/etc/secret \
         touch /srv/old/cache/a /srv/new/deep/memory/b && cat /etc/secret && test -s /srv/old/file\n",
    );
    let secret = mounted.write("secret", "a secret");
    let secret = format!("id=s,src={}", secret.display());
    let times = |list: Vec<(String, u32, u64)>| -> Vec<(String, u32, Option<u64>)> {
        // The root's own time is that of whatever is made in it first.
        let old = |path: &str, time| path.contains("srv").then_some(time);
        list.into_iter().map(|(path, mode, time)| (path.clone(), mode, old(&path, time))).collect()
    };
    assert_eq!(times(listing(&fluyt, &mounted, &["--secret", &secret])), times(listing(&fluyt, &plain, &[])));
}

#[test]
fn binds_show_what_they_name_and_writes_to_them_are_gone() {
    if !program::is_root("binds_show_what_they_name_and_writes_to_them_are_gone") {
        return;
    }
    let context = context(
        "FROM scratch AS files\nCOPY tree /tree\nFROM base\n\
         RUN --mount=target=/all find /all -type f | sort; touch /all/new 2>/dev/null || echo read-only\n\
         RUN --mount=target=/all,rw touch /all/new /all/tree/new && rm /all/tree/one && ls /all/tree\n\
         RUN --mount=source=tree,target=/t cat /t/one; stat -c '%u:%g %a' /t/one\n\
         RUN --mount=source=link,target=/t cat /t/one\n\
         RUN --mount=from=files,source=tree/one,target=/file --mount=from=files,target=/f cat /file /f/tree/one; ls /f\n\
         RUN --mount=target=/all --mount=type=cache,target=/all/cache touch /all/cache/x && ls /all/cache\n",
    );
    context.write("tree/one", "first\n");
    let hidden = context.write("tree/hidden", "");
    fs::set_permissions(context.join("tree/one"), fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::chown(context.join("tree/one"), Some(7), Some(7)).unwrap();
    std::os::unix::fs::symlink("tree", context.join("link")).unwrap();
    context.write(".dockerignore", "tree/hidden\nbusybox*\n!busybox\n");
    let fluyt = Fluyt::new();
    let said = built(&fluyt, &context, &[]).stderr;
    let lines: Vec<&str> = said
        .lines()
        .filter_map(|line| line.split_once(' ').and_then(|(_, rest)| rest.split_once(' ')))
        .map(|(_, text)| text)
        .collect();
    for expected in ["/all/tree/one", "read-only", "new", "0:0 640", "first", "tree", "x"] {
        assert!(lines.contains(&expected), "no `{expected}` in {said}");
    }
    assert!(!said.contains("hidden"), "{said}");
    assert_eq!(lines.iter().filter(|line| **line == "first").count(), 4, "{said}");
    assert!(context.join("tree/one").exists() && !context.join("new").exists() && hidden.exists());
    // By content: the same again is found, another file is not, and what no rule lets through does not count.
    fs::write(context.join("tree/hidden"), "other").unwrap();
    context.write("tree/one", "first\n");
    assert!(!built(&fluyt, &context, &[]).stderr.contains("first"));
    context.write("tree/one", "other\n");
    assert!(built(&fluyt, &context, &[]).stderr.contains("other"));
}

#[test]
fn a_missing_source_is_said() {
    let fluyt = Fluyt::new();
    if !program::is_root("a_missing_source_is_said") {
        return;
    }
    for (mount, message) in [
        ("target=/t,source=absent", "`absent` is not in the build context"),
        ("target=/t,from=files,source=absent", "`absent` is not in the stage or image it is mounted from"),
        ("type=secret,id=s,required", "the command needs the secret `s`"),
        ("type=cache,target=/c,from=files,source=f", "a cache mount is a folder"),
    ] {
        let context =
            context(&format!("FROM scratch AS files\nCOPY Dockerfile /f\nFROM base\nRUN --mount={mount} true\n"));
        let _ = fluyt.build(context.path(), &[]).expect_code(1).expect_message(&[message]);
    }
}

#[test]
fn a_cache_mount_keeps_what_a_failed_command_put_in_and_nothing_else_is_left() {
    if !program::is_root("a_cache_mount_keeps_what_a_failed_command_put_in_and_nothing_else_is_left") {
        return;
    }
    let fluyt = Fluyt::new();
    let failing = context(
        "RUN --mount=type=cache,target=/c,sharing=locked --mount=target=/src,rw echo kept > /c/file; touch /src/x; exit 3\n",
    );
    let _ = fluyt.build(failing.path(), &[]).expect_code(1).expect_message(&["status 3"]);
    nothing_is_left(&fluyt);
    let after = context("RUN --mount=type=cache,target=/c,sharing=locked cat /c/file\n");
    assert!(built(&fluyt, &after, &[]).stderr.contains("kept"));
    nothing_is_left(&fluyt);
}

#[test]
fn an_interrupted_command_leaves_no_mount_and_no_lock() {
    if !program::is_root("an_interrupted_command_leaves_no_mount_and_no_lock") {
        return;
    }
    let fluyt = Fluyt::new();
    for signal in ["INT", "KILL"] {
        let waiting =
            context("RUN --mount=type=cache,target=/c,sharing=locked --mount=target=/src touch /c/here; sleep 1000\n");
        let mut command = fluyt.command();
        command.arg("build").arg(waiting.path()).stdin(Stdio::null()).stderr(Stdio::null()).stdout(Stdio::null());
        let mut child = command.spawn().unwrap();
        wait_until("the command runs", || find(&fluyt.store().join("cache-mounts"), "here"));
        let _ = program::run("kill", [format!("-{signal}"), child.id().to_string()]).expect_success();
        let _ = child.wait().unwrap();
        let after = context("RUN --mount=type=cache,target=/c,sharing=locked rm /c/here; echo done\n");
        let _ = built(&fluyt, &after, &["--no-cache"]);
        nothing_is_left(&fluyt);
    }
}

#[test]
fn locked_mounts_are_used_one_after_the_other_and_shared_ones_at_once() {
    if !program::is_root("locked_mounts_are_used_one_after_the_other_and_shared_ones_at_once") {
        return;
    }
    let fluyt = Fluyt::new();
    // Each adds 1, with time enough to be disturbed.
    let add = "test -e /c/n || echo 0 > /c/n; n=$(cat /c/n); sleep 1; echo $((n + 1)) > /c/n";
    let count = context(&format!("ARG WHO\nRUN --mount=type=cache,id=count,target=/c,sharing=locked {add}\n"));
    at_once(&fluyt, &count, 3);
    let read = context("RUN --mount=type=cache,id=count,target=/c cat /c/n | sed s/^/counted/\n");
    assert!(built(&fluyt, &read, &[]).stderr.contains("counted3"));
    // Each waits for the others in the same mount.
    let meet = context(
        "ARG WHO\nRUN --mount=type=cache,id=meet,target=/c touch /c/$WHO; \
         i=0; until [ $(ls /c | wc -l) = 3 ]; do i=$((i + 1)); [ $i -lt 600 ] || exit 1; sleep 0.1; done\n",
    );
    at_once(&fluyt, &meet, 3);
    // Each has one of its own.
    let alone = context(
        "ARG WHO\nRUN --mount=type=cache,id=alone,target=/c,sharing=private touch /c/$WHO; sleep 2; [ $(ls /c | wc -l) = 1 ]\n",
    );
    at_once(&fluyt, &alone, 3);
}

#[test]
fn a_cache_mount_starts_with_what_it_is_told() {
    if !program::is_root("a_cache_mount_starts_with_what_it_is_told") {
        return;
    }
    let context = context(
        "FROM base AS first\nRUN mkdir -p /d/sub && echo first > /d/sub/file && chown 5:6 /d/sub/file && ln -s sub/file /d/link\nFROM base\n\
         RUN --mount=type=cache,from=first,source=/d,target=/c,uid=8,mode=0700 cat /c/link; stat -c '%u %a' /c; \
         stat -c '%u:%g' /c/sub/file; echo second > /c/sub/file\n\
         RUN --mount=type=cache,from=first,source=/d,target=/c,uid=8,mode=0700,readonly cat /c/link; touch /c/x || echo refused\n",
    );
    let said = built(&Fluyt::new(), &context, &[]).stderr;
    for expected in ["first", "8 700", "5:6", "second", "refused"] {
        assert!(said.lines().any(|line| line.ends_with(&format!(" {expected}"))), "no `{expected}` in {said}");
    }
}

#[test]
fn a_secret_is_seen_by_its_command_and_by_nobody_else() {
    const VALUE: &str = "correct-horse-battery-staple";
    if !program::is_root("a_secret_is_seen_by_its_command_and_by_nobody_else") {
        return;
    }
    let context = context(
        "RUN --mount=type=secret,id=s,uid=3,gid=4,mode=0440 --mount=type=secret,id=e,env=TOKEN \
         sha256sum < /run/secrets/s > /sum && printf %s \"$TOKEN\" | sha256sum >> /sum; stat -c '%u:%g %a' /run/secrets/s\n\
         RUN test ! -e /run/secrets && test -z \"$TOKEN\" && cat /sum\n",
    );
    let secrets = TestDir::new();
    let file = secrets.write("file", VALUE);
    let fluyt = Fluyt::new();
    let build = |arguments: &[&str]| {
        let mut command = fluyt.command();
        command.args(["build", "--progress=plain", "--secret", &format!("id=s,src={}", file.display())]);
        command.args(["--secret", "id=e,env=SECRET_FOR_TEST"]).args(arguments).arg(context.path());
        command.env("SECRET_FOR_TEST", VALUE);
        program::finish(command).expect_success()
    };
    let said = build(&[]).stderr;
    let sum = program::run("sh", ["-c", &format!("printf %s {VALUE} | sha256sum")]).text().to_owned();
    assert_eq!(said.matches(&sum).count(), 2, "{said}");
    assert!(said.contains("3:4 440"), "{said}");
    // Another value is no other build.
    fs::write(&file, "another value").unwrap();
    assert!(build(&[]).stderr.contains("CACHED"));
    let found = program::run("grep", ["-rla", VALUE, fluyt.store().to_str().unwrap()]);
    assert_eq!(found.text(), "", "{}", found.describe());
}

#[test]
fn a_script_of_its_own_is_run_by_its_interpreter_and_is_gone() {
    if !program::is_root("a_script_of_its_own_is_run_by_its_interpreter_and_is_gone") {
        return;
    }
    let context = context("RUN <<EOF\n#!/bin/awk -f\nBEGIN { print 6 * 7 }\nEOF\nRUN test ! -e /dev/pipes\n");
    let said = built(&Fluyt::new(), &context, &[]).stderr;
    assert!(said.lines().any(|line| line.ends_with(" 42")), "{said}");
}

/// Builds for several at once, all of which must succeed.
fn at_once(fluyt: &Fluyt, context: &TestDir, count: usize) {
    let start = |number: usize| -> Command {
        let mut command = fluyt.command();
        command.args(["build", "--build-arg", &format!("WHO={number}")]).arg(context.path());
        command
    };
    std::thread::scope(|scope| {
        for number in 0..count {
            scope.spawn(move || program::finish(start(number)).expect_success());
        }
    });
}

/// No mount of the store, and nothing in its folder for half-made things but what the next start removes.
fn nothing_is_left(fluyt: &Fluyt) {
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    assert!(!mounts.contains(fluyt.store().to_str().unwrap()), "{mounts}");
    // The start of a program removes what dead ones left.
    let _ = fluyt.run(["images"]).expect_success();
    for entry in fs::read_dir(fluyt.store().join("tmp")).unwrap() {
        let path = entry.unwrap().path();
        let empty = !path.is_dir() || fs::read_dir(&path).unwrap().next().is_none();
        assert!(empty, "{} is left", path.display());
    }
}

fn find(folder: &Path, name: &str) -> bool {
    fs::read_dir(folder).into_iter().flatten().flatten().any(|entry| {
        entry.file_name() == name || (entry.path().is_dir() && !entry.path().is_symlink() && find(&entry.path(), name))
    })
}

fn wait_until(what: &str, mut check: impl FnMut() -> bool) {
    for _ in 0..600 {
        if check() {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("{what}: not within a minute");
}

/// A process of the test, ended with it.
struct Child(std::process::Child);

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn an_agent_answers_the_user_that_it_is_mounted_for() {
    let test = "an_agent_answers_the_user_that_it_is_mounted_for";
    if !program::is_root(test) || !program::all_installed(test, &["ssh-agent", "ssh-add", "ssh-keygen"]) {
        return;
    }
    let keys = TestDir::new();
    let (socket, key) = (keys.join("agent"), keys.join("key"));
    let mut agent = Command::new("ssh-agent");
    agent.arg("-D").arg("-a").arg(&socket).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _agent = Child(agent.spawn().unwrap());
    wait_until("the agent listens", || socket.exists());
    let path = key.to_str().unwrap();
    let _ = program::run("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-f", path]).expect_success();
    let mut add = Command::new("ssh-add");
    add.arg(&key).env("SSH_AUTH_SOCK", &socket);
    let _ = program::finish(add).expect_success();
    let shown = program::run("ssh-keygen", ["-lf", path]).expect_success().text().to_owned();
    let fingerprint = shown.split(' ').nth(1).unwrap();

    let context = context(
        "COPY root /\nUSER 5\nENV PATH=/usr/bin:/bin\n\
         RUN --mount=type=ssh,uid=5,required ssh-add -l; stat -c '%u %a' $SSH_AUTH_SOCK\n\
         RUN test -z \"$SSH_AUTH_SOCK\" && test ! -e /run/buildkit\n",
    );
    context.write("root/etc/passwd", "five:x:5:5::/:/bin/sh\n");
    let libraries = program::run("ldd", ["/usr/bin/ssh-add"]).expect_success().stdout;
    let libraries = libraries.split_whitespace().filter(|word| word.starts_with('/'));
    for path in libraries.chain(["/usr/bin/ssh-add"]) {
        let content = fs::read(path).unwrap();
        let copy = context.write(&format!("root{path}"), content);
        fs::set_permissions(copy, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let fluyt = Fluyt::new();
    let _ = fluyt.build(context.path(), &[]).expect_code(1).expect_message(&["the agent `default`", "--ssh default"]);
    let mut build = fluyt.command();
    build.args(["build", "--progress=plain", "--ssh", "default"]).arg(context.path()).env("SSH_AUTH_SOCK", &socket);
    let said = program::finish(build).expect_success().stderr;
    assert!(said.contains(fingerprint) && said.contains(" 5 600"), "{said}");
}
