//! `fluyt verify`: two builds that agree, and two that do not.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::path::Path;
use std::process::{Command, Output};

fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fluyt"));
    command.env("FLUYT_STORE", folder.join("store")).env_remove("SOURCE_DATE_EPOCH").current_dir(folder);
    command.arg("verify").args(arguments);
    command
}

fn verify(folder: &Path, arguments: &[&str]) -> Output {
    command(folder, arguments).arg("context").output().unwrap()
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

/// Each is seen by a command, or on the process that builds; but for the folder's name, which no build shows.
#[test]
fn what_is_otherwise_in_the_second_build_is_really_so() {
    if !rustix::process::geteuid().is_root() || !Path::new("/bin/busybox").exists() {
        println!("skipped: RUN needs root and /bin/busybox here");
        return;
    }
    let folder = place(
        "FROM scratch\nCOPY busybox /bin/busybox\nRUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n\
         RUN --mount=target=/c stat -c %Y /c/tree/a > /times && date +%s > /date && nproc > /processors && umask > /umask; sleep 1\n",
    );
    std::fs::copy("/bin/busybox", folder.path().join("context/busybox")).unwrap();
    let mut child = command(folder.path(), &["--json", "-q", "context"]);
    let mut child = child.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null()).spawn().unwrap();
    let mut umasks = Vec::new();
    while child.try_wait().unwrap().is_none() {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let umask = status.lines().find_map(|line| line.strip_prefix("Umask:")).map(|umask| umask.trim().to_owned());
        umasks.extend(umask.filter(|umask| umasks.last() != Some(umask)));
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let listed = text(&child.wait_with_output().unwrap().stdout);
    let report: serde_json::Value = serde_json::from_str(&listed).unwrap();
    let paths: Vec<_> =
        report["differences"].as_array().unwrap().iter().map(|row| row["path"].as_str().unwrap()).collect();
    let several = std::thread::available_parallelism().unwrap().get() > 1;
    let expected: &[&str] = if several { &["/date", "/processors", "/times"] } else { &["/date", "/times"] };
    assert_eq!(paths, expected, "{listed}");
    let changed: Vec<_> = report["changed"].as_array().unwrap().iter().map(|row| row.as_str().unwrap()).collect();
    assert!(
        ["folder", "file times", "time of the build", "umask"].iter().all(|name| changed.contains(name)),
        "{listed}"
    );
    assert_eq!(changed.contains(&"number of processors"), several, "{listed}");
    assert!(umasks.len() > 1 && umasks[1] == if umasks[0] == "0077" { "0022" } else { "0077" }, "{umasks:?}");
}

#[test]
fn a_store_in_the_context_is_no_part_of_it() {
    // A named folder is not copied: the second build, whose store is another, meets the first one's in it.
    let folder = place("FROM scratch\nCOPY . /\nCOPY --from=named . /named\n");
    // Where the second build is another user's, it reads that folder itself.
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let arguments = ["--store", "context/.fluyt", "--build-context", "named=context", "--progress=plain", "context"];
    let output = command(folder.path(), &arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}{}", text(&output.stdout), text(&output.stderr));
    assert!(!text(&output.stderr).contains("warning"), "{}", text(&output.stderr));
    assert!(folder.path().join("context/.fluyt/blobs").is_dir());
}

/// The copy has what the build sees of the context and what it reads first, wherever rules and links are.
#[test]
fn rules_hold_in_the_second_build_too() {
    let folder = place("FROM scratch\nCOPY nothing-of-this /\n");
    let context = folder.path().join("context");
    std::fs::create_dir_all(context.join("hidden/inside")).unwrap();
    std::fs::write(context.join("hidden/inside/real"), "FROM scratch\nCOPY . /\n").unwrap();
    std::os::unix::fs::symlink("hidden/inside/real", context.join("named")).unwrap();
    // This file goes before the other one.
    std::fs::write(context.join(".dockerignore"), "*\n").unwrap();
    let fifo = std::process::Command::new("mkfifo").arg(context.join("tree/pipe")).status().unwrap();
    assert!(fifo.success());
    for rules in ["hidden\n*named*\n.dockerignore\nDockerfile\n", "hidden\n", "*\n!tree\n!tree/below/c\n"] {
        std::fs::write(context.join("named.dockerignore"), rules).unwrap();
        let output = verify(folder.path(), &["-q", "-f", "context/named"]);
        assert_eq!(output.status.code(), Some(0), "{rules}: {}{}", text(&output.stdout), text(&output.stderr));
    }
}

#[test]
fn what_is_no_folder_is_told_before_anybody_is_asked() {
    let folder = place("FROM scratch\n");
    let told = |arguments: &[&str], code: i32| {
        // Where nobody answers, so that whoever is asked shows.
        let mut command = command(folder.path(), arguments);
        command.env("HTTPS_PROXY", "http://127.0.0.1:9").env("HTTP_PROXY", "http://127.0.0.1:9");
        let output = command.args(["--retry", "0"]).stdin(std::process::Stdio::null()).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", text(&output.stderr));
        text(&output.stderr)
    };
    for (name, near) in [("contxt", "context"), ("./contxt", "./context"), ("context/tere", "context/tree")] {
        let said = told(&[name], 1 + 2 * i32::from(name.starts_with("context/")));
        let expected = format!("there is no folder {name} to be the build context; did you mean `{near}`?");
        assert!(said.contains(&expected), "{said}");
        assert_eq!(said.contains("cannot pull"), name.starts_with("context/"), "{said}");
    }
    let said = told(&["absent"], 1);
    assert!(said.starts_with("error: there is no folder absent to be the build context\n"), "{said}");
    assert!(
        said.contains("hint: nor has the store an image of that name")
            && said.contains("`docker.io/library/absent:latest`"),
        "{said}"
    );
    let said = told(&["./absent"], 1);
    assert!(!said.contains("image of that name"), "{said}");
    // With a tag it is an image.
    let said = told(&["contxt:1"], 3);
    assert!(said.contains("cannot pull docker.io/library/contxt:1") && !said.contains("folder"), "{said}");
    assert!(told(&["-"], 2).contains("hint: unpack it, and name the folder"));
    assert!(told(&["-f", "-", "context"], 2).contains("hint: write the Dockerfile into a file"));
}
