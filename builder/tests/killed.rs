//! Eight builds with RUNs in one store, of which one after the other is killed (SIGKILL) at a random moment: what comes to
//! its end is what a store of its own gives, and nothing is left of the dead.
//!
//! `FLUYT_KILLS` says how often (12 times without it), `FLUYT_KILL_SEED` repeats the choices of a run that failed.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use fluyt::blob::sha256;

const BUILDS: usize = 8;

/// A command that no other program runs: what is left of a killed build is told by it.
fn nap(marker: u32) -> String {
    format!("sleep 0.{marker}")
}

/// Steps that all builds share, steps of each one's own, and a cache mount of them all.
fn project(folder: &Path, number: usize, marker: u32) -> PathBuf {
    let context = folder.join(format!("context-{number}"));
    fs::create_dir_all(context.join("data")).unwrap();
    fs::copy("/bin/busybox", context.join("busybox")).unwrap();
    for file in 0..30 {
        fs::write(context.join(format!("data/{file}")), format!("{file}").repeat(30_000)).unwrap();
    }
    fs::write(context.join("own"), format!("{number}").repeat(200_000)).unwrap();
    let nap = nap(marker);
    let text = format!(
        "FROM scratch AS base\n\
         COPY busybox /bin/busybox\n\
         RUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n\
         COPY data /data\n\
         RUN {nap}; cp -r /data /copy && rm /data/1\n\
         FROM base AS other\n\
         RUN --mount=type=cache,target=/cache echo x >> /cache/seen; {nap}; cat /data/* > /joined\n\
         FROM base\n\
         COPY own /own\n\
         RUN {nap}; md5sum /own > /own.sum && rm -r /copy\n\
         COPY --from=other /joined /joined\n"
    );
    fs::write(context.join("Dockerfile"), text).unwrap();
    context
}

fn start(store: &Path, context: &Path) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fluyt"));
    command.env_clear().env("HOME", store).arg("--store").arg(store).stdin(Stdio::null());
    command.args(["build", "--reproducible", "--progress=plain"]).arg(context);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// The digest of the image that a build leaves; `None` when it was killed.
fn end(child: Child) -> Option<String> {
    let output = child.wait_with_output().unwrap();
    if output.status.signal() == Some(9) {
        return None;
    }
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{:?}: {told}", output.status);
    Some(String::from_utf8(output.stdout).unwrap().trim().to_owned())
}

fn built(store: &Path, context: &Path) -> String {
    end(start(store, context)).unwrap()
}

/// The processes that run the marked command.
fn naps(marker: u32) -> Vec<String> {
    let wanted = nap(marker).replace(' ', "\0");
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let read = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    read.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).filter(|line| line.contains(&wanted)).collect()
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }
}

#[test]
fn builds_that_are_killed_beside_others_leave_nothing_and_spoil_nothing() {
    if !rustix::process::geteuid().is_root() || !Path::new("/bin/busybox").exists() {
        println!("skipped: RUN needs root and /bin/busybox here");
        return;
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let seed = setting("FLUYT_KILL_SEED").unwrap_or(u64::from(now.subsec_nanos()) | 1);
    let kills = usize::try_from(setting("FLUYT_KILLS").unwrap_or(12)).unwrap();
    println!("FLUYT_KILL_SEED={seed} FLUYT_KILLS={kills}");
    let marker = 100_000 + std::process::id() % 100_000;

    let folder = tempfile::tempdir().unwrap();
    let contexts: Vec<PathBuf> = (0..BUILDS).map(|number| project(folder.path(), number, marker)).collect();
    let alone = folder.path().join("alone");
    let right: Vec<String> = contexts.iter().map(|context| built(&alone, context)).collect();
    let store = folder.path().join("store");

    // The process of each build that runs; who kills takes it from here, so that a number is never another's by then.
    let running: Vec<Mutex<Option<rustix::process::Pid>>> = (0..BUILDS).map(|_| Mutex::default()).collect();
    let (killed, finished, stop) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let builds: Vec<_> = (0..BUILDS)
            .map(|number| {
                let (store, context, right, running) = (&store, &contexts[number], &right[number], &running[number]);
                let (finished, killed, stop) = (&finished, &killed, &stop);
                scope.spawn(move || {
                    let mut round = 0;
                    while !stop.load(Ordering::Relaxed) {
                        round += 1;
                        // Something to do in every round: otherwise all is found after the first.
                        fs::write(context.join("own"), format!("{number} {round}").repeat(100_000)).unwrap();
                        if round % 3 == 0 {
                            fs::write(context.join("own"), format!("{number}").repeat(200_000)).unwrap();
                        }
                        let mut child = start(store, context);
                        *running.lock().unwrap() = rustix::process::Pid::from_raw(child.id().cast_signed());
                        // Read beside it: a pipe that nobody reads would stop it.
                        let streams = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
                        let read = scope.spawn(move || std::io::read_to_string(streams.1).unwrap());
                        let told = std::io::read_to_string(streams.0).unwrap();
                        let said = read.join().unwrap();
                        let mut slot = running.lock().unwrap();
                        let status = child.wait().unwrap();
                        *slot = None;
                        drop(slot);
                        if status.signal() == Some(9) {
                            killed.fetch_add(1, Ordering::Relaxed);
                            continue;
                        }
                        assert!(status.success(), "build {number}, round {round}: {status}: {said}");
                        finished.fetch_add(1, Ordering::Relaxed);
                        if round % 3 == 0 {
                            assert_eq!(told.trim(), right, "build {number}, round {round}: {said}");
                        }
                    }
                })
            })
            .collect();
        let mut random = Random(seed);
        while killed.load(Ordering::Relaxed) < kills && !builds.iter().any(|build| build.is_finished()) {
            std::thread::sleep(Duration::from_millis(20 + random.below(400)));
            let slot = running[usize::try_from(random.below(BUILDS as u64)).unwrap()].lock().unwrap();
            if let Some(process) = *slot {
                let _ = rustix::process::kill_process(process, rustix::process::Signal::KILL);
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    println!("{} killed, {} came to their end", killed.into_inner(), finished.load(Ordering::Relaxed));
    assert!(finished.into_inner() > 0);

    for (context, number) in contexts.iter().zip(0..) {
        fs::write(context.join("own"), format!("{number}").repeat(200_000)).unwrap();
    }
    for (context, right) in contexts.iter().zip(&right) {
        assert_eq!(built(&store, context), *right);
    }
    assert_eq!(naps(marker), [""; 0], "commands of killed builds still run");
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(store.to_str().unwrap()), "{mounts}");
    assert_eq!(fs::read_dir(store.join("tmp")).unwrap().count(), 0);
    for blob in fs::read_dir(store.join("blobs/sha256")).unwrap() {
        let blob = blob.unwrap();
        assert_eq!(sha256(&fs::read(blob.path()).unwrap()).digest(), blob.file_name().to_str().unwrap());
    }
    // What is unpacked is whole too: a command that reads every file finds in both stores the same.
    let look = "RUN sums=$(find / -xdev -type f -exec md5sum {} + | sort) && echo \"$sums\" > /sums\n";
    for context in &contexts[..2] {
        let text = fs::read_to_string(context.join("Dockerfile")).unwrap();
        fs::write(context.join("Dockerfile"), text + look).unwrap();
        assert_eq!(built(&store, context), built(&alone, context));
    }
}
