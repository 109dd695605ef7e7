//! The same bytes from check-outs that differ in what git does not keep, and by builds that differ in what is no input: user,
//! folder, time, processors, umask.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![expect(clippy::print_stdout, reason = "a test that is skipped says so")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::thread::{CpuSet, sched_setaffinity};

#[path = "common/user.rs"]
mod user;

use user::{BUSYBOX, User, text};

/// A check-out as this umask leaves it, in a folder of its own; `None`, with the reason told, where git is missing.
fn checkout(folder: &Path, umask: &str) -> Option<()> {
    fs::create_dir_all(folder.join("src/deep")).unwrap();
    fs::write(folder.join("src/deep/file"), "file").unwrap();
    fs::write(folder.join("src/run.sh"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(folder.join("src/run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(folder.join("Dockerfile"), "FROM scratch\nCOPY src /src\n").unwrap();
    let script = "set -e; git init -q; git add .; git -c user.name=n -c user.email=e commit -q -m one; \
                  rm -rf src; umask \"$1\"; git checkout -q -- .";
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh", umask]).current_dir(folder);
    for name in ["GIT_COMMITTER_DATE", "GIT_AUTHOR_DATE"] {
        command.env(name, "1700000000 +0000");
    }
    if Command::new("git").arg("--version").output().is_err() {
        println!("skipped: there is no git");
        return None;
    }
    assert!(command.env("GIT_CONFIG_GLOBAL", "/dev/null").status().unwrap().success());
    Some(())
}

#[test]
fn umasks_and_times_of_checkouts_do_not_count() {
    let folder = tempfile::tempdir().unwrap();
    let digest = |name: &str, umask: &str, flag: &[&str]| {
        let context = folder.path().join(name);
        if !context.exists() {
            checkout(&context, umask)?;
        }
        let mut command = Command::new(env!("CARGO_BIN_EXE_fluyt"));
        command.env("FLUYT_STORE", folder.path().join(format!("{name}-store"))).env_remove("SOURCE_DATE_EPOCH");
        let built = command.arg("build").args(flag).arg(&context).output().unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        Some(String::from_utf8(built.stdout).unwrap())
    };
    let Some(open) = digest("open", "000", &["--reproducible"]) else { return };
    let mode = |name: &str| fs::metadata(folder.path().join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("open/src/deep"), mode("open/src/deep/file")), (0o777, 0o666), "the umask had no effect");
    assert_eq!(Some(&open), digest("closed", "077", &["--reproducible"]).as_ref());
    assert_eq!((mode("closed/src/deep"), mode("closed/src/run.sh")), (0o700, 0o700));
    // Without the flag, modes are those of the files, as Docker has them.
    assert_ne!(digest("open", "000", &[]), digest("closed", "077", &[]));
}

#[test]
fn umasks_of_checkouts_of_submodules_do_not_count() {
    if Command::new("git").arg("--version").output().is_err() {
        println!("skipped: there is no git");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let shell = |script: &str, umask: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh", umask]).current_dir(folder.path()).env("GIT_CONFIG_GLOBAL", "/dev/null");
        for (name, value) in [("NAME", "n"), ("EMAIL", "e"), ("DATE", "1700000000 +0000")] {
            command.env(format!("GIT_COMMITTER_{name}"), value).env(format!("GIT_AUTHOR_{name}"), value);
        }
        assert!(command.status().unwrap().success(), "{script}");
    };
    // `empty` is known and checked out nowhere, `inner` lies two submodules deep.
    shell(
        "set -e; git() { command git -c protocol.file.allow=always \"$@\"; }; \
         new() { git init -q $1; echo $1 > $1/file; echo $1 > $1/run; chmod 755 $1/run; git -C $1 add .; }; \
         new inner; git -C inner commit -q -m one; git init -q sub; git -C sub submodule --quiet add ../inner deep; \
         git -C sub commit -q -m one; new top; for name in sub empty; do \
         git -C top submodule --quiet add \"$PWD/sub\" below/$name; done; \
         printf 'FROM scratch\\nCOPY below /below\\n' > top/Dockerfile; git -C top add .; git -C top commit -q -m one",
        "",
    );
    let clone = "set -e; git() { command git -c protocol.file.allow=always \"$@\"; }; umask $1; git clone -q top $1; \
                 cd $1; git submodule --quiet init; git submodule --quiet update --init --recursive below/sub";
    let digest = |umask: &str| {
        shell(clone, umask);
        let mode =
            |name: &str| fs::metadata(folder.path().join(umask).join(name)).unwrap().permissions().mode() & 0o777;
        let mask = !u32::from_str_radix(umask, 8).unwrap();
        for (name, mode_of) in [("below/sub/deep/file", 0o666), ("below/sub/.git", 0o666), ("below/empty", 0o777)] {
            assert_eq!(mode(name), mode_of & mask, "{name}: the umask had no effect");
        }
        let mut command = Command::new(env!("CARGO_BIN_EXE_fluyt"));
        command.env("FLUYT_STORE", folder.path().join("store")).env_remove("SOURCE_DATE_EPOCH");
        let built = command.args(["build", "--reproducible"]).arg(folder.path().join(umask)).output().unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        String::from_utf8(built.stdout).unwrap()
    };
    let usual = digest("022");
    for umask in ["027", "077", "000"] {
        assert_eq!(digest(umask), usual, "umask {umask}");
    }
}

#[test]
fn an_image_of_a_checkout_is_as_old_as_its_commit() {
    let folder = tempfile::tempdir().unwrap();
    let context = folder.path().join("context");
    let Some(()) = checkout(&context, "022") else { return };
    let fluyt = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fluyt"));
        command.env("FLUYT_STORE", folder.path().join("store")).env_remove("SOURCE_DATE_EPOCH");
        let output = command.args(arguments).current_dir(&context).output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        output.stdout
    };
    fs::write(context.join("src/Dockerfile"), "FROM scratch\nCOPY deep /\n").unwrap();
    // A folder of a check-out is part of it.
    for part in [".", "src"] {
        fluyt(&["build", "--reproducible", "-t", "app", part]);
        let seen: serde_json::Value = serde_json::from_slice(&fluyt(&["inspect", "--json", "app"])).unwrap();
        assert_eq!(seen["config"]["created"], "2023-11-14T22:13:20Z", "{part}");
        // The files have the constant time, by which the rows of the history go.
        assert_eq!(seen["config"]["history"][0]["created"], "1980-01-01T00:00:00Z", "{part}");
        assert!(fluyt(&["verify", "-q", part]).starts_with(b"same: "), "{part}");
    }
}

/// Bytes that compress a little, for several blocks of the compressor.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        b'a' + u8::try_from(state >> 28).unwrap()
    };
    (0..length).map(|_| next()).collect()
}

#[test]
fn what_is_no_input_does_not_count_all_at_once() {
    let Some(user) = User::new() else { return };
    if Command::new("git").arg("--version").output().is_err() {
        println!("skipped: there is no git");
        return;
    }
    let shell = |script: &str, arguments: &[&str]| {
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh"]).args(arguments).current_dir(user.folder.path());
        command.env("GIT_CONFIG_GLOBAL", "/dev/null");
        for name in ["GIT_COMMITTER", "GIT_AUTHOR"] {
            command.env(format!("{name}_NAME"), "n").env(format!("{name}_EMAIL"), "e");
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{script}: {}", text(&output));
    };
    let origin = user.path("origin");
    fs::create_dir_all(origin.join("src/deep")).unwrap();
    fs::copy(BUSYBOX, origin.join("busybox")).unwrap();
    fs::write(origin.join("src/large"), noise(5_000_000)).unwrap();
    fs::write(origin.join("src/deep/file"), "file").unwrap();
    fs::write(origin.join("src/run"), "#!/bin/sh\necho made > $1\n").unwrap();
    fs::set_permissions(origin.join("src/run"), fs::Permissions::from_mode(0o755)).unwrap();
    let dockerfile = "FROM scratch\nCOPY busybox /bin/busybox\nRUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n\
        COPY src /src\nWORKDIR /work/here\n\
        RUN --mount=target=/c --mount=type=cache,target=/k --mount=type=tmpfs,target=/t cp -a /c/src /copied && \
        /c/src/run /k/made && cp /k/made . && chown -R 7:8 /copied/deep && \
        (id; umask; hostname; env; stat -c '%n %a %u:%g %s' / /c /c/src /c/src/* /src/* /k /k/* /t . /work /etc) > /seen 2>&1; \
        gzip -k /src/large\n\
        RUN ln /src/run /src/again && rm -r /copied/deep && touch /copied/deep\n";
    fs::write(origin.join("Dockerfile"), dockerfile).unwrap();
    shell("cd origin && git init -q && git add . && git commit -q -m one", &[]);
    let digest = |by: &Command, checkout: &str, umask: &str, processors: Option<CpuSet>| {
        let mut command = Command::new("sh");
        command.args(["-c", "umask $0; exec \"$@\"", umask]).arg(by.get_program()).args(by.get_args());
        command.args(["build", "--reproducible", "--progress=plain", checkout]).current_dir(user.folder.path());
        command.env_clear().env("HOME", "/nonexistent").env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        // A process has the processors of the thread that starts it.
        let build = move || {
            processors.inspect(|one| sched_setaffinity(None, one).unwrap());
            command.output().unwrap()
        };
        let output = std::thread::spawn(build).join().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    shell("umask 022; git clone -q origin one", &[]);
    let mut root = Command::new(user.path("fluyt"));
    root.arg("--store").arg(user.path("store of root"));
    let expected = digest(&root, "one", "022", None);

    let other = "another folder/two";
    let script = "umask 077; mkdir \"${1%/*}\"; git clone -q origin \"$1\" && chown -R $2 \"${1%/*}\" && \
                  find \"$1\" -exec touch -h -d 2001-02-03 {} +";
    shell(script, &[other, &user.name]);
    let seen = fs::metadata(user.path(other).join("src/deep/file")).unwrap();
    assert_eq!(seen.permissions().mode() & 0o777, 0o600, "the umask had no effect");
    assert!(seen.modified().unwrap().elapsed().unwrap() > Duration::from_secs(1_000_000), "it is not old");
    // Another second for what tells the time.
    std::thread::sleep(Duration::from_millis(1_100));
    let mut one = CpuSet::new();
    one.set((0..CpuSet::MAX_CPU).find(|cpu| rustix::thread::sched_getaffinity(None).unwrap().is_set(*cpu)).unwrap());
    assert_eq!(digest(&user.fluyt(), other, "077", Some(one)), expected);
}
