//! `fluyt verify`: two builds that agree, and two that do not.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::path::Path;
use std::process::{Command, Output};

fn verify(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fluyt"));
    command.env("FLUYT_STORE", folder.join("store")).env_remove("SOURCE_DATE_EPOCH").current_dir(folder);
    command.arg("verify").args(arguments).arg("context").output().unwrap()
}

fn place(dockerfile: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let context = folder.path().join("context");
    std::fs::create_dir_all(context.join("tree/below")).unwrap();
    std::fs::write(context.join("Dockerfile"), dockerfile).unwrap();
    for name in ["tree/a", "tree/b", "tree/below/c"] {
        std::fs::write(context.join(name), name).unwrap();
    }
    std::fs::hard_link(context.join("tree/a"), context.join("tree/again")).unwrap();
    std::os::unix::fs::symlink("b", context.join("tree/link")).unwrap();
    folder
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn what_depends_on_its_input_alone_is_the_same() {
    let folder = place("FROM scratch\nWORKDIR /made\nCOPY tree /tree\nCOPY --chmod=700 tree/b /x/\n");
    let output = verify(folder.path(), &[]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).starts_with("same: sha256:"), "{}", text(&output.stdout));
    let left: Vec<_> = std::fs::read_dir(folder.path().join("store/tmp")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn what_a_command_draws_at_random_is_named() {
    let busybox = Path::new("/bin/busybox");
    if !rustix::process::geteuid().is_root() || !busybox.is_file() {
        eprintln!("skipped: needs root and busybox-static");
        return;
    }
    let folder = place(
        "FROM scratch\nCOPY busybox /bin/sh\nCOPY busybox /bin/busybox\nRUN busybox mkdir -p /etc && busybox head -c 9 /dev/urandom > /etc/machine-id\nRUN echo same > /same\n",
    );
    std::fs::copy(busybox, folder.path().join("context/busybox")).unwrap();
    let output = verify(folder.path(), &["-q"]);
    let (told, listed) = (text(&output.stderr), text(&output.stdout));
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.starts_with("error: the two builds differ: /etc/machine-id (content)\n"), "{told}");
    assert!(told.contains("hint: /etc/machine-id is the machine's id"), "{told}");
    assert!(told.contains("; or build with `--normalize`, which mends it\n"), "{told}");
    assert!(listed.contains("layer 3 of 4, made by `RUN") && listed.contains("  first:  byte "), "{listed}");
    let output = verify(folder.path(), &["-q", "--normalize"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

#[test]
fn what_a_command_sees_does_not_depend_on_the_umask() {
    if !rustix::process::geteuid().is_root() || !Path::new("/bin/busybox").exists() {
        println!("skipped: RUN needs root and /bin/busybox here");
        return;
    }
    let folder = place(
        "FROM scratch\nCOPY busybox /bin/busybox\nRUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n\
         WORKDIR /made/here\nCOPY tree /new/tree\nRUN mkdir /d && echo x > /d/f\n\
         RUN --mount=type=tmpfs,target=/t --mount=type=cache,target=/c --mount=type=bind,source=tree,target=/b \
         stat -c '%a %n' / /tmp /etc /etc/* /dev /dev/* /proc /sys /t /c /b /b/* /made /made/here /new /d /d/f > /modes; true\n",
    );
    std::fs::copy("/bin/busybox", folder.path().join("context/busybox")).unwrap();
    let output = verify(folder.path(), &["--progress=plain"]);
    assert_eq!(output.status.code(), Some(0), "{}{}", text(&output.stdout), text(&output.stderr));
    assert!(text(&output.stderr).contains("umask"), "{}", text(&output.stderr));
}

#[test]
fn what_depends_on_the_order_of_files_is_named() {
    if !rustix::process::geteuid().is_root() || !Path::new("/bin/busybox").exists() {
        println!("skipped: RUN needs root and /bin/busybox here");
        return;
    }
    let folder = place(
        "FROM scratch\nCOPY busybox /bin/busybox\nRUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\nCOPY many /many\n\
         RUN find /many -type f | sort > /sorted\nRUN find /many -type f > /order\n",
    );
    std::fs::copy("/bin/busybox", folder.path().join("context/busybox")).unwrap();
    std::fs::create_dir(folder.path().join("context/many")).unwrap();
    for number in 0..40 {
        std::fs::write(folder.path().join(format!("context/many/{number}")), "x").unwrap();
    }
    let output = verify(folder.path(), &["--json", "--progress=plain"]);
    let (told, listed) = (text(&output.stderr), text(&output.stdout));
    if listed.contains("\"same_conditions\":[\"order of files in folders\"") {
        println!("skipped: the store's file system lists files as memory does, or no memory can be mounted");
        return;
    }
    assert!(listed.contains("order of files in folders"), "{listed}");
    assert_eq!(output.status.code(), Some(1), "{told}{listed}");
    assert!(told.contains("error: the two builds differ: /order (content)\n"), "{told}");
    assert!(told.contains("hint: /order is the same lines in another order"), "{told}");
    let left: Vec<_> = std::fs::read_dir(folder.path().join("store/tmp")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

/// Whether the second build can be another user's here.
fn has_another_user(told: &str) -> bool {
    let line = told.lines().find(|line| line.starts_with("second build: ")).unwrap_or_else(|| panic!("{told}"));
    line.split("; the same").next().unwrap().contains(", user")
}

#[test]
fn what_depends_on_the_user_is_named() {
    if !rustix::process::geteuid().is_root() || !Path::new("/bin/busybox").exists() {
        println!("skipped: RUN needs root and /bin/busybox here");
        return;
    }
    let tools = "FROM scratch\nCOPY busybox /bin/busybox\nRUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n";
    // What a build should show the same to whoever builds.
    let plain = format!(
        "{tools}RUN mkdir -p /etc && echo 'a:x:1000:1000::/:/bin/sh' > /etc/passwd && id > /id && id -u > /uid\n\
         COPY --chown=7:8 tree /owned\nRUN --mount=type=bind,target=/c --mount=type=cache,target=/k touch /k/x && \
         stat -c '%a %u %g %n' / /c /c/tree /c/tree/* /c/secret /k /k/x /owned/* /etc/passwd > /seen; cat /c/secret > /s\n\
         USER a\nRUN id > /tmp/id 2>&1 || id > /dev/null\nUSER 0\nRUN chown 65534:12345 /owned/a && chmod 4711 /owned/b\n"
    );
    let folder = place(&plain);
    let context = folder.path().join("context");
    std::fs::copy("/bin/busybox", context.join("busybox")).unwrap();
    std::fs::write(context.join("secret"), "for its owner").unwrap();
    std::fs::set_permissions(context.join("secret"), std::os::unix::fs::PermissionsExt::from_mode(0o4600)).unwrap();
    let same = verify(folder.path(), &["--progress=plain"]);
    let told = text(&same.stderr);
    assert_eq!(same.status.code(), Some(0), "{told}{}", text(&same.stdout));
    assert!(!told.contains("warning"), "{told}");
    let left = || -> usize {
        let ours = std::fs::read_dir(std::env::temp_dir()).unwrap().filter_map(|entry| entry.ok());
        ours.filter(|entry| entry.file_name().to_string_lossy().starts_with("fluyt-verify-")).count()
    };
    if !has_another_user(&told) {
        println!("skipped: the second build is not another user's here: {told}");
        return;
    }

    std::fs::write(context.join("Dockerfile"), format!("{tools}RUN cat /proc/self/uid_map > /map\n")).unwrap();
    let output = verify(folder.path(), &["--progress=plain"]);
    let (told, listed) = (text(&output.stderr), text(&output.stdout));
    assert_eq!(output.status.code(), Some(1), "{told}{listed}");
    assert!(told.contains("error: the two builds differ: /map (content)\n"), "{told}");

    assert!(told.contains("hint: the second build was another user's; with `--isolation r"), "{told}");

    // What only one user can build is said, and is built again by the same.
    let only = format!("{tools}RUN grep -q ' 0 *0 *4294967295' /proc/self/uid_map\n");
    std::fs::write(context.join("Dockerfile"), only).unwrap();
    let output = verify(folder.path(), &["--progress=plain"]);
    let told = text(&output.stderr);
    assert!(told.contains("warning: the build as another user failed"), "{told}");
    // The other's log goes with its store.
    assert!(!told.contains("the whole log is in"), "{told}");
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert!(told.contains("the same user"), "{told}");
    assert_eq!(left(), 0);
    let left: Vec<_> = std::fs::read_dir(folder.path().join("store/tmp")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");

    // Whoever wants one rung alone gets no other user.
    let output = verify(folder.path(), &["--progress=plain", "--isolation=r2"]);
    let told = text(&output.stderr);
    assert!(told.contains("the same user") && !told.contains("warning"), "{told}");
}

/// A base image that only this store has, by its name, is the second build's too.
#[test]
fn a_base_of_the_store_is_there_for_both_builds() {
    let folder = place("FROM mine\nCOPY tree/b /b\n");
    std::fs::create_dir(folder.path().join("base")).unwrap();
    std::fs::write(folder.path().join("base/Dockerfile"), "FROM scratch\nCOPY Dockerfile /base\n").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_fluyt"));
    command.env("FLUYT_STORE", folder.path().join("store")).current_dir(folder.path());
    assert!(command.args(["build", "-t", "mine", "base"]).output().unwrap().status.success());
    let output = verify(folder.path(), &["--progress=plain"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(!text(&output.stderr).contains("warning"), "{}", text(&output.stderr));
}

#[test]
fn nothing_is_written_anywhere_by_mistake() {
    let folder = place("FROM scratch\nCOPY tree /\n");
    for arguments in [&["--push", "-t", "x"][..], &["-o", "out"], &["--iidfile", "id"]] {
        let output = verify(folder.path(), arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", text(&output.stderr));
    }
    assert!(!folder.path().join("out").exists());
}
