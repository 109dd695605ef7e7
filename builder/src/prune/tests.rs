use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use oci_spec::image::{Descriptor, Digest, MediaType};
use serde_json::json;

use super::*;
use crate::blob::{Store, sha256};

/// A store that somebody else filled, and let go of: it is opened for pruning.
struct Sample {
    folder: tempfile::TempDir,
}

impl Sample {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn open(&self) -> Store {
        Store::open(&self.folder.path().join("store")).unwrap()
    }

    fn blob(&self, text: &str, hours_ago: u64) -> Digest {
        let store = self.open();
        let digest = store.put(text.as_bytes()).unwrap().digest;
        aged(&store.path(&digest), hours_ago);
        digest
    }

    fn layer(&self, name: &str, hours_ago: u64) {
        let layer = self.open().root().join("layers").join(name);
        fs::create_dir_all(layer.join("fs/deep")).unwrap();
        fs::write(layer.join("fs/deep/file"), vec![1; 100_000]).unwrap();
        fs::write(layer.join("meta.json"), "{}").unwrap();
        aged(&layer.join("meta.json"), hours_ago);
    }

    fn record(&self, name: &str, digest: &Digest) {
        let record = json!({"digest": digest.as_ref(), "more": ["x"]}).to_string();
        self.open().write_entry(Path::new(&format!("records/1/{name}.json")), record.as_bytes()).unwrap();
    }

    /// An image of one layer with that name.
    fn image(&self, name: &str, hours_ago: u64) -> Digest {
        let layer = self.blob(&format!("layer of {name}"), hours_ago);
        let config = json!({"rootfs": {"diff_ids": [sha256(name.as_bytes()).as_ref()]}}).to_string();
        let config = self.blob(&config, hours_ago);
        let manifest =
            json!({"config": {"digest": config.as_ref()}, "layers": [{"digest": layer.as_ref()}]}).to_string();
        let digest = self.blob(&manifest, hours_ago);
        let descriptor = Descriptor::new(MediaType::ImageManifest, manifest.len() as u64, digest);
        self.open().tag(name, descriptor).unwrap();
        layer
    }
}

fn aged(path: &Path, hours: u64) {
    let then = SystemTime::now() - Duration::from_secs(hours * 3600);
    let times = fs::FileTimes::new().set_accessed(then).set_modified(then);
    fs::File::open(path).unwrap().set_times(times).unwrap();
}

fn there(store: &Store, digest: &Digest) -> bool {
    store.path(digest).exists()
}

#[test]
fn what_no_name_needs_goes_with_its_records_and_the_rest_stays() {
    let sample = Sample::new();
    let named = sample.image("app", 100);
    let lost = sample.blob("nobody's", 1);
    sample.layer("abc", 1);
    sample.record("kept", &named);
    sample.record("goes", &lost);
    let mount = sample.open().root().join("cache-mounts/m/1");
    fs::create_dir_all(mount.join("data")).unwrap();
    fs::write(mount.join("lock"), "").unwrap();

    let store = sample.open();
    let looked = prune(&store, &Policy { dry_run: true, ..Policy::default() }).unwrap();
    assert!(there(&store, &lost) && mount.exists());
    let outcome = prune(&store, &Policy::default()).unwrap();
    assert_eq!(outcome.removed.len(), looked.removed.len());
    assert_eq!(outcome.freed_bytes, looked.freed_bytes);
    assert!(outcome.freed_bytes > 100_000, "{outcome:?}");
    assert!(!there(&store, &lost) && !mount.exists() && !store.root().join("layers/abc").exists());
    assert!(there(&store, &named));
    assert!(store.root().join("records/1/kept.json").exists());
    assert!(!store.root().join("records/1/goes.json").exists());
    assert_eq!(store.tags().unwrap().len(), 1);
    assert_eq!(survey(&store).unwrap().size_bytes(), outcome.left_bytes);
    assert_eq!(prune(&store, &Policy::default()).unwrap().removed, []);
}

#[test]
fn what_a_build_holds_stays_until_it_is_done() {
    let sample = Sample::new();
    let (found, written) = (sample.blob("found", 50), sha256(b"written"));
    sample.layer("abc", 50);
    let build = sample.open();
    assert!(build.contains(&found));
    let mut writer = build.writer().unwrap();
    writer.write_all(b"written").unwrap();
    writer.commit(None).unwrap();
    build.hold("layers/abc", || Ok(Some(()))).unwrap();

    let store = sample.open();
    for all in [false, true] {
        let outcome = prune(&store, &Policy { all, ..Policy::default() }).unwrap();
        assert_eq!(outcome.removed, [], "all: {all}");
    }
    assert!(there(&store, &found) && there(&store, &written));
    drop(build);
    assert_eq!(prune(&store, &Policy::default()).unwrap().removed.len(), 3);
    assert!(!there(&store, &found) && !there(&store, &written));
}

#[test]
fn an_index_stays_with_a_build_that_holds_it_or_its_blob() {
    let sample = Sample::new();
    let (blob, diff_id) = (sample.blob("a layer", 50), sha256(b"its tar"));
    let index = format!("indexes/{}.json", diff_id.digest());
    let record = json!({"layer": {"diff_id": diff_id.as_ref(), "digest": blob.as_ref()}}).to_string();
    sample.open().write_entry(Path::new("records/1/layer.json"), record.as_bytes()).unwrap();
    sample.open().write_entry(Path::new(&index), b"{}").unwrap();
    let asked_for = Policy { kinds: vec![Kind::Index], ..Policy::default() };
    let build = sample.open();
    build.hold(&index, || Ok(Some(()))).unwrap();
    let store = sample.open();
    assert_eq!(prune(&store, &asked_for).unwrap().removed, []);
    // It was taken by a build that had found it before it was looked at.
    let mut before = survey(&store).unwrap();
    before.entries.iter_mut().for_each(|entry| entry.held = false);
    assert_eq!(remove::prune_surveyed(&store, &asked_for, before, None).unwrap().removed, []);
    drop(build);
    let build = sample.open();
    assert!(build.contains(&blob));
    assert_eq!(prune(&store, &asked_for).unwrap().removed, []);
    drop(build);
    assert_eq!(prune(&store, &asked_for).unwrap().removed.len(), 1);
    assert!(!store.root().join(&index).exists() && there(&store, &blob));
}

#[test]
fn a_name_that_was_given_after_the_look_is_seen() {
    let sample = Sample::new();
    let layer = sample.image("late", 10);
    let store = sample.open();
    let late = store.tags().unwrap();
    store.untag("late").unwrap();
    let before = survey(&store).unwrap();
    assert!(before.entries.iter().all(Entry::reclaimable));
    // What `prune` does after its look, when a build ends in between.
    store.tag("late", late[0].1.clone()).unwrap();
    let outcome = remove::prune_surveyed(&store, &Policy::default(), before, None).unwrap();
    assert_eq!(outcome.removed, []);
    assert!(there(&store, &layer));
}

#[test]
fn the_least_recently_used_goes_first_and_limits_hold() {
    let sample = Sample::new();
    let blobs: Vec<Digest> = (1..=6).map(|hours| sample.blob(&"x".repeat(10_000 + hours), hours as u64)).collect();
    let store = sample.open();
    let all = survey(&store).unwrap().size_bytes();
    let one = all / 6;
    let policy = Policy { max_used_bytes: Some(all - one - 1), ..Policy::default() };
    assert_eq!(prune(&store, &policy).unwrap().removed.len(), 2);
    let left: Vec<bool> = blobs.iter().map(|blob| there(&store, blob)).collect();
    assert_eq!(left, [true, true, true, true, false, false]);

    let until = Some(SystemTime::now() - Duration::from_secs(7 * 1800));
    let policy = Policy { until, ..Policy::default() };
    assert_eq!(prune(&store, &policy).unwrap().removed.len(), 1, "only that of four hours ago");
    let policy = Policy { kinds: vec![Kind::Layer], ..Policy::default() };
    assert_eq!(prune(&store, &policy).unwrap().removed.len(), 0);
    let policy = Policy { reserved_bytes: 2 * one, ..Policy::default() };
    assert_eq!(prune(&store, &policy).unwrap().removed.len(), 1);
    // A use makes it the last to go.
    let user = sample.open();
    assert!(user.contains(&blobs[1]));
    drop(user);
    let policy = Policy { max_used_bytes: Some(one), ..Policy::default() };
    prune(&store, &policy).unwrap();
    assert!(there(&store, &blobs[1]) && !there(&store, &blobs[0]));
}

#[test]
fn all_takes_names_too_the_oldest_first() {
    let sample = Sample::new();
    let (old, new) = (sample.image("old", 100), sample.image("new", 1));
    let store = sample.open();
    let until = Some(SystemTime::now() - Duration::from_secs(24 * 3600));
    prune(&store, &Policy { all: true, until, ..Policy::default() }).unwrap();
    assert!(!there(&store, &old) && there(&store, &new));
    let names: Vec<String> = store.tags().unwrap().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["new"]);
    let outcome = prune(&store, &Policy { all: true, ..Policy::default() }).unwrap();
    assert_eq!(outcome.left_bytes, 0);
    assert_eq!(store.tags().unwrap(), []);
    assert_eq!(survey(&store).unwrap().entries, []);
}

#[test]
fn no_more_names_go_than_a_limit_asks_for() {
    let sample = Sample::new();
    for (name, hours) in [("oldest", 90), ("older", 80), ("old", 70), ("new", 1)] {
        sample.image(name, hours);
    }
    // Another name of the same image, and one of an image with the same layer.
    let store = sample.open();
    let tags = store.tags().unwrap();
    let of = |name: &str| tags.iter().find(|(tag, _)| tag == name).unwrap().1.clone();
    store.tag("oldest-too", of("oldest")).unwrap();
    drop(store);
    let store = sample.open();
    let all = survey(&store).unwrap().size_bytes();
    let policy = |max_used_bytes| Policy { all: true, max_used_bytes: Some(max_used_bytes), ..Policy::default() };
    // Three blobs each: the first image goes with both its names, and the second too.
    let limit = all - all / 4 - 1;
    let looked = prune(&store, &Policy { dry_run: true, ..policy(limit) }).unwrap();
    assert_eq!(store.tags().unwrap().len(), 5);
    let outcome = prune(&store, &policy(limit)).unwrap();
    let mut told = [looked, outcome].map(|outcome| outcome.removed);
    told.iter_mut().for_each(|removed| removed.sort_by_key(|removed| format!("{removed:?}")));
    assert_eq!(told[0], told[1]);
    let names: Vec<String> = store.tags().unwrap().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["new", "old"]);
    assert_eq!(prune(&store, &policy(0)).unwrap().left_bytes, 0);
}

#[test]
fn records_of_nothing_that_is_here_go_as_they_are_said_to() {
    let sample = Sample::new();
    sample.record("gone", &sha256(b"not here"));
    let store = sample.open();
    let reclaimable = survey(&store).unwrap().entries.iter().filter(|entry| entry.reclaimable()).count();
    assert_eq!(reclaimable, 1);
    assert_eq!(prune(&store, &Policy::default()).unwrap().removed.len(), reclaimable);
    assert_eq!(survey(&store).unwrap().entries, []);
}

#[test]
fn a_mount_that_a_run_uses_stays() {
    let sample = Sample::new();
    let store = sample.open();
    let copy = store.root().join("cache-mounts/m/1");
    fs::create_dir_all(copy.join("data")).unwrap();
    let lock = fs::File::create(copy.join("lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockShared).unwrap();
    assert_eq!(prune(&store, &Policy::default()).unwrap().removed, []);
    drop(lock);
    // No command uses it, and one of the same build is going to: it may make another copy at any moment.
    let build = sample.open();
    build.hold("cache-mounts/m", || Ok(Some(()))).unwrap();
    assert_eq!(prune(&store, &Policy::default()).unwrap().removed, []);
    let mut before = survey(&store).unwrap();
    before.entries.iter_mut().for_each(|entry| entry.held = false);
    assert_eq!(remove::prune_surveyed(&store, &Policy::default(), before, None).unwrap().removed, []);
    drop(build);
    assert_eq!(prune(&store, &Policy::default()).unwrap().removed.len(), 1);
    assert!(!copy.exists());
}

#[test]
fn a_ceiling_is_kept() {
    let sample = Sample::new();
    let blobs: Vec<Digest> = (1..=3).map(|hours| sample.blob(&"x".repeat(10_000 + hours), hours as u64)).collect();
    let store = sample.open();
    assert!(Ceiling::None.keep(&store).unwrap().is_none());
    Ceiling::Bytes(20_000).keep(&store).unwrap().unwrap();
    assert_eq!(blobs.iter().filter(|blob| there(&store, blob)).count(), 1);
    Ceiling::Share.keep(&store).unwrap();
    assert!(there(&store, &blobs[0]), "a disk's tenth is always left to the store");
}

#[test]
fn logs_and_what_explain_compares_with_go_only_when_they_are_asked_for() {
    let sample = Sample::new();
    let store = sample.open();
    for (name, hours) in [("records/1/preimages-new.json", 1), ("records/1/preimages-old.json", 800), ("logs/a.log", 1)]
    {
        store.write_entry(Path::new(name), b"{}").unwrap();
        aged(&store.root().join(name), hours);
    }
    let there = |name: &str| store.root().join(name).exists();
    let log = survey(&store).unwrap().entries.into_iter().find(|entry| entry.kind == Kind::Log).unwrap();
    assert!(log.size_bytes > 0 && !log.reclaimable());
    prune(&store, &Policy::default()).unwrap();
    assert!(there("records/1/preimages-new.json") && there("logs/a.log"));
    assert!(!there("records/1/preimages-old.json"), "nobody built that for a month");
    let writer = fs::File::open(store.root().join("logs/a.log")).unwrap();
    rustix::fs::flock(&writer, rustix::fs::FlockOperation::LockShared).unwrap();
    prune(&store, &Policy { kinds: vec![Kind::Log], ..Policy::default() }).unwrap();
    assert!(there("logs/a.log"), "a build still writes it");
    drop(writer);
    prune(&store, &Policy { kinds: vec![Kind::Log], ..Policy::default() }).unwrap();
    assert!(!there("logs/a.log") && there("records/1/preimages-new.json"));
    prune(&store, &Policy { all: true, ..Policy::default() }).unwrap();
    assert!(!there("records/1/preimages-new.json"));
}

#[test]
fn where_room_is_wanted_logs_go_before_all_else_and_the_oldest_first() {
    let sample = Sample::new();
    let blob = sample.blob(&"x".repeat(50_000), 50);
    let store = sample.open();
    for (name, hours) in [("logs/old.log", 3), ("logs/new.log", 2), ("logs/running.log", 1)] {
        store.write_entry(Path::new(name), &[b'x'; 100_000]).unwrap();
        aged(&store.root().join(name), hours);
    }
    let log = |name: &str| store.root().join("logs").join(name);
    let running = fs::File::open(log("running.log")).unwrap();
    rustix::fs::flock(&running, rustix::fs::FlockOperation::LockShared).unwrap();
    let used = survey(&store).unwrap().size_bytes();
    Ceiling::Bytes(used - 1).keep(&store).unwrap();
    assert!(!log("old.log").exists() && log("new.log").exists());
    prune(&store, &Policy { min_free_bytes: Some(u64::MAX), kinds: vec![Kind::Layer], ..Policy::default() }).unwrap();
    assert!(log("new.log").exists(), "another kind was asked for");
    Ceiling::Bytes(used - 150_000).keep(&store).unwrap();
    assert!(!log("new.log").exists() && log("running.log").exists() && there(&store, &blob));
}

#[test]
fn a_layers_index_is_kept_as_long_as_its_blob() {
    let sample = Sample::new();
    let (old, new) = (sample.blob("an old layer", 50), sample.blob("a new layer", 2));
    let store = sample.open();
    for (name, blob) in [("old", &old), ("new", &new)] {
        let diff_id = sha256(name.as_bytes());
        let record = json!({"layer": {"diff_id": diff_id.as_ref(), "digest": blob.as_ref()}}).to_string();
        store.write_entry(Path::new(&format!("records/1/{name}.json")), record.as_bytes()).unwrap();
        let index = format!("indexes/{}.json", diff_id.digest());
        store.write_entry(Path::new(&index), b"{}").unwrap();
        // Written when the layer was made; nobody looked at it since.
        aged(&store.root().join(index), 90);
    }
    drop(store);
    let store = sample.open();
    let has_index =
        |name: &str| store.root().join(format!("indexes/{}.json", sha256(name.as_bytes()).digest())).exists();
    let used: u64 = survey(&store).unwrap().size_bytes();
    // One blob too many: the old one and its index go, not the old indexes of both.
    prune(&store, &Policy { max_used_bytes: Some(used - 1), ..Policy::default() }).unwrap();
    assert!(!there(&store, &old) && there(&store, &new) && has_index("new"));
}
