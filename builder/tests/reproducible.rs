//! The same bytes from check-outs that differ in what git does not keep: umask, times, folder.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![expect(clippy::print_stdout, reason = "a test that is skipped says so")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

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
    // `empty` is checked out nowhere, `inner` lies two submodules deep.
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
                 cd $1; git submodule --quiet update --init --recursive below/sub";
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
