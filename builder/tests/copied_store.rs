//! A store that was copied to another place, by `cp -a` and by `cp -r`: every build in it gives what it gave before.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![expect(clippy::print_stdout, reason = "a test that is skipped says so")]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

const DOCKERFILE: &str = "FROM scratch AS base\n\
    COPY busybox /bin/busybox\n\
    RUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n\
    COPY data /data\n\
    RUN chown -R 12:34 /data && chmod 4711 /data/a && ln /data/a /data/hard && ln -s a /data/soft\n\
    RUN rm -r /data/gone && mkdir /data/gone && echo new > /data/gone/new && rm /data/b\n";

/// A step more: it reads all that the steps below left, as it is unpacked. Not how many links a folder has: an overlay says
/// something else where it shows one of two layers.
const LOOK: &str = "RUN seen=$(find / -xdev -exec stat -c '%n %f %u %g' {} + | sort; \
    find / -xdev -type f -exec stat -c '%n %s %h' {} + | sort; cat /data/a) && echo \"$seen\" > /seen\n";

/// Builds; gives the digest and what was said.
fn build(store: &Path, context: &Path, dockerfile: &str) -> (String, String) {
    fs::write(context.join("Dockerfile"), dockerfile).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_fluyt"));
    command.env_clear().env("HOME", store).arg("--store").arg(store).stdin(Stdio::null());
    let output = command.args(["build", "--reproducible", "--progress=plain"]).arg(context).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{told}");
    (String::from_utf8(output.stdout).unwrap().trim().to_owned(), told)
}

fn copied(how: &str) {
    if !rustix::process::geteuid().is_root() || !Path::new("/bin/busybox").exists() {
        println!("skipped: RUN needs root and /bin/busybox here");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (context, store, copy) =
        (folder.path().join("context"), folder.path().join("store"), folder.path().join("copy"));
    fs::create_dir_all(context.join("data/gone")).unwrap();
    fs::copy("/bin/busybox", context.join("busybox")).unwrap();
    for name in ["a", "b", "gone/c"] {
        fs::write(context.join("data").join(name), name.repeat(10_000)).unwrap();
    }
    let (digest, _) = build(&store, &context, DOCKERFILE);
    let cp = Command::new("cp").arg(how).arg(&store).arg(&copy).status().unwrap();
    assert!(cp.success());

    let (again, told) = build(&copy, &context, DOCKERFILE);
    assert_eq!(again, digest);
    assert_eq!(told.matches(" CACHED").count(), 5, "{told}");
    let (more, _) = build(&store, &context, &format!("{DOCKERFILE}{LOOK}"));
    let (of_copy, told) = build(&copy, &context, &format!("{DOCKERFILE}{LOOK}"));
    assert_eq!(of_copy, more, "{told}");
    assert_eq!(told.matches(" CACHED").count(), 5, "only the new step runs: {told}");
    // And both go on beside each other.
    fs::remove_dir_all(&store).unwrap();
    let (digest, _) = build(&copy, &context, &format!("{DOCKERFILE}{LOOK}RUN cat /seen > /again\n"));
    let fresh = folder.path().join("fresh");
    assert_eq!(build(&fresh, &context, &format!("{DOCKERFILE}{LOOK}RUN cat /seen > /again\n")).0, digest);
}

#[test]
fn a_store_copied_with_all_attributes_works() {
    copied("-a");
}

#[test]
fn a_store_copied_without_attributes_works() {
    copied("-r");
}
