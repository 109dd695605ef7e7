//! What a build leaves to be removed: no step waits for it, a killed process may leave it, and the next builds remove it.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const BUSYBOX: &str = "FROM scratch\nCOPY busybox /bin/busybox\n\
    RUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n";

fn build(folder: &Path, dockerfile: &str) -> Command {
    fs::write(folder.join("context/Dockerfile"), format!("{BUSYBOX}{dockerfile}")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_fluyt"));
    command.env("FLUYT_STORE", folder.join("store")).args(["build", "--progress", "plain"]).arg(folder.join("context"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Files below a folder; what goes away meanwhile does not count.
fn files(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| if entry.path().is_dir() { files(&entry.path()) } else { 1 }).sum()
}

#[test]
fn what_killed_builds_leave_goes_with_the_next_ones() {
    if !rustix::process::geteuid().is_root() || !Path::new("/bin/busybox").exists() {
        println!("skipped: RUN needs root and /bin/busybox here");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("context")).unwrap();
    fs::copy("/bin/busybox", folder.path().join("context/busybox")).unwrap();
    let tmp = folder.path().join("store/tmp");
    let many = "RUN for d in $(seq 16); do mkdir -p /tree/$d && cd /tree/$d && seq 500 | xargs touch; done; touch /all";
    let begun = Instant::now();
    let mut killed = build(folder.path(), &format!("{many}; sleep 1000\n")).spawn().unwrap();
    while files(&tmp) < 8_000 {
        assert!(begun.elapsed() < Duration::from_secs(120), "the command did not make its files");
        assert!(killed.try_wait().unwrap().is_none(), "the build ended");
        std::thread::sleep(Duration::from_millis(50));
    }
    killed.kill().unwrap();
    let _ = killed.wait().unwrap();
    assert!(files(&tmp) >= 8_000);
    // One that is killed while it removes that leaves the rest to the next.
    let mut again = build(folder.path(), "RUN sleep 1000\n").spawn().unwrap();
    while files(&tmp) >= 8_000 {
        assert!(begun.elapsed() < Duration::from_secs(240), "nobody removes what is left");
        std::thread::sleep(Duration::from_millis(5));
    }
    again.kill().unwrap();
    let _ = again.wait().unwrap();
    let builds = (1..).take(100).take_while(|number| {
        assert!(build(folder.path(), &format!("RUN echo {number}\n")).status().unwrap().success());
        fs::read_dir(&tmp).unwrap().count() > 0
    });
    let builds = builds.count();
    assert!(builds < 100, "{} files are left", files(&tmp));
    // Whoever asks for room gets all of it at once.
    let dead = tmp.join("1-dead");
    for number in 0..8_000 {
        let below = dead.join((number / 500).to_string());
        if number % 500 == 0 {
            fs::create_dir_all(&below).unwrap();
        }
        fs::write(below.join(number.to_string()), "").unwrap();
    }
    let mut prune = Command::new(env!("CARGO_BIN_EXE_fluyt"));
    let pruned = prune.env("FLUYT_STORE", folder.path().join("store")).arg("prune").output().unwrap();
    assert!(pruned.status.success(), "{}", String::from_utf8_lossy(&pruned.stderr));
    assert_eq!(fs::read_dir(&tmp).unwrap().count(), 0);
}
