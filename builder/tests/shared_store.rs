//! One store, many processes: builds at once, pruning beside them, and processes that are killed.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fluyt::blob::sha256;

/// Related Dockerfiles: all begin with the same two steps.
fn project(folder: &Path, number: usize) -> PathBuf {
    let context = folder.join(format!("context-{number}"));
    fs::create_dir_all(&context).unwrap();
    for file in 0..40 {
        fs::write(context.join(format!("shared-{file}")), format!("{file}").repeat(20_000)).unwrap();
    }
    fs::write(context.join("own"), format!("{}", number % 4).repeat(300_000)).unwrap();
    let text = "FROM scratch\nCOPY shared-* /shared/\nWORKDIR /work\nCOPY own /own\nFROM scratch\nCOPY --from=0 /shared /s\nCOPY --from=0 /own /o\n";
    fs::write(context.join("Dockerfile"), text).unwrap();
    context
}

fn fluyt(store: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fluyt"));
    command.env_clear().env("HOME", store).arg("--store").arg(store).stdin(Stdio::null());
    command
}

fn build(store: &Path, context: &Path) -> Command {
    let mut command = fluyt(store);
    command.args(["build", "--reproducible", "--progress=quiet"]).arg(context);
    command
}

/// The digest of the image that a build leaves.
fn built(store: &Path, context: &Path) -> String {
    let output = build(store, context).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Every blob is what its name says, and every record can be read.
fn assert_whole(store: &Path) {
    for blob in fs::read_dir(store.join("blobs/sha256")).unwrap() {
        let blob = blob.unwrap();
        let digest = sha256(&fs::read(blob.path()).unwrap());
        assert_eq!(digest.digest(), blob.file_name().to_str().unwrap());
    }
    for folder in ["records/1", "indexes"] {
        let Ok(files) = fs::read_dir(store.join(folder)) else { continue };
        for file in files {
            let path = file.unwrap().path();
            // A stat cache holds the hash of itself, and one that was cut is nothing to its reader.
            if path.file_name().unwrap().to_string_lossy().starts_with("context-") {
                continue;
            }
            let read: Result<serde_json::Value, _> = serde_json::from_slice(&fs::read(&path).unwrap());
            assert!(read.is_ok(), "{} is no JSON", path.display());
        }
    }
}

#[test]
fn eight_builds_in_one_store_are_as_in_stores_of_their_own_while_it_is_pruned() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("shared");
    let contexts: Vec<PathBuf> = (0..8).map(|number| project(folder.path(), number)).collect();
    let done = AtomicBool::new(false);
    let prunes = std::thread::scope(|scope| {
        let pruning = scope.spawn(|| {
            let mut prunes = 0;
            while !done.load(Ordering::Relaxed) {
                let output = fluyt(&store).arg("prune").output().unwrap();
                assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
                prunes += 1;
            }
            prunes
        });
        let builds: Vec<_> = contexts
            .iter()
            .map(|context| {
                let store = &store;
                scope.spawn(move || (0..3).map(|_| built(store, context)).collect::<Vec<_>>())
            })
            .collect();
        // All joined before any is looked at: the pruning must end also when a build failed.
        let joined: Vec<_> = builds.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        done.store(true, Ordering::Relaxed);
        let shared: Vec<Vec<String>> = joined.into_iter().map(Result::unwrap).collect();
        for (number, digests) in shared.iter().enumerate() {
            let alone = built(&folder.path().join(format!("own-{number}")), &contexts[number]);
            assert!(digests.iter().all(|digest| *digest == alone), "build {number}: {digests:?}, alone {alone}");
        }
        pruning.join().unwrap()
    });
    assert!(prunes > 0);
    assert_whole(&store);
}

#[test]
fn a_build_that_is_killed_leaves_only_rubbish_below_tmp() {
    let folder = tempfile::tempdir().unwrap();
    let context = project(folder.path(), 0);
    let right = built(&folder.path().join("fresh"), &context);
    let store = folder.path().join("killed");
    let mut seed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64 | 1;
    println!("seed {seed}");
    for round in 0..20 {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        let mut child = build(&store, &context).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(seed % 120));
        let _ = child.kill();
        child.wait().unwrap();
        if store.join("blobs/sha256").exists() {
            assert_whole(&store);
        }
        if round % 5 == 4 {
            assert_eq!(built(&store, &context), right, "round {round}");
            let left = fs::read_dir(store.join("tmp")).unwrap().count();
            assert_eq!(left, 0, "the next build cleans up");
            // So that the next rounds have something to write.
            assert!(fluyt(&store).arg("prune").status().unwrap().success());
        }
    }
}

#[test]
fn a_build_keeps_the_store_below_its_limit_and_its_own_result_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    let blobs = || fs::read_dir(store.join("blobs/sha256")).unwrap().count();
    let (old, new) = (project(folder.path(), 0), project(folder.path(), 1));
    fs::write(new.join("shared-0"), "other").unwrap();
    built(&store, &old);
    let of_old = blobs();
    built(&store, &new);
    assert!(blobs() > of_old, "without a limit nothing goes from a disk that has room");
    let mut command = fluyt(&store);
    command.args(["build", "--reproducible", "--progress=plain", "--store-limit", "1k"]).arg(&new);
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && told.contains("the store was above its limit"), "{told}");
    // All of the old build's is gone, and nothing of this one's: it is found whole.
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("CACHED"), "{told}");
    for line in told.lines().filter(|line| line.contains("COPY")) {
        let number = line.split(' ').next().unwrap();
        assert!(told.contains(&format!("{number} CACHED")), "{line} ran again: {told}");
    }
    assert_eq!(
        blobs(),
        4,
        "two layers, a configuration and a manifest: what the last build, which found all, has used"
    );
    let refused = fluyt(&store).args(["build", "--store-limit", "120%"]).arg(&new).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert_whole(&store);
}
