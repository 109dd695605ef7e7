use proptest::prelude::*;

use super::*;

fn open() -> (tempfile::TempDir, CacheMounts) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("store")).unwrap();
    (folder, CacheMounts::new(store))
}

fn wanted(id: &str) -> Wanted {
    Wanted { id: id.to_owned(), initial: None, mode: 0o750, uid: 0, gid: 0 }
}

fn take(mounts: &CacheMounts, id: &str, share: Share) -> Option<HeldMount> {
    let taken: Result<_, CacheMountError> = mounts.take(&wanted(id), share, &mut |_| Ok(()), &mut || false);
    taken.unwrap()
}

#[test]
fn what_is_put_in_is_there_again_whatever_the_id() {
    let (_folder, mounts) = open();
    for id in ["/root/.cache", "../../etc", "a\0b", "", &"x".repeat(5000)] {
        let held = take(&mounts, id, Share::Shared).unwrap();
        assert!(held.data().starts_with(mounts.store.root().join("cache-mounts")));
        assert_eq!(fs::metadata(held.data()).unwrap().permissions().mode() & 0o7777, 0o750);
        fs::write(held.data().join("file"), id).unwrap();
        drop(held);
        assert_eq!(fs::read_to_string(take(&mounts, id, Share::Locked).unwrap().data().join("file")).unwrap(), id);
    }
    let other = Wanted { uid: 5, ..wanted("/root/.cache") };
    assert_ne!(other.name(), wanted("/root/.cache").name());
}

#[test]
fn locked_is_one_at_a_time_shared_is_everyone_and_private_is_a_copy() {
    let (_folder, mounts) = open();
    let first = take(&mounts, "l", Share::Locked).unwrap();
    assert!(take(&mounts, "l", Share::Locked).is_none());
    assert!(take(&mounts, "l", Share::Shared).is_none());
    assert!(take(&mounts, "other", Share::Locked).is_some());
    let copy = take(&mounts, "l", Share::Private).unwrap();
    assert_ne!(copy.data(), first.data());
    let place = first.data();
    drop(first);
    assert_eq!(take(&mounts, "l", Share::Private).unwrap().data(), place);
    let (one, two) = (take(&mounts, "l", Share::Shared).unwrap(), take(&mounts, "l", Share::Shared).unwrap());
    assert_eq!(one.data(), two.data());
    assert!(take(&mounts, "l", Share::Locked).is_none());
}

#[test]
fn a_build_holds_the_mounts_that_it_used_or_names() {
    let (_folder, mounts) = open();
    let is_held = |id: &str| {
        let pruning = Store::open(mounts.store.root()).unwrap();
        pruning.alone(&format!("cache-mounts/{}", wanted(id).name()), || ()).unwrap().is_none()
    };
    {
        let earlier = CacheMounts::new(Store::open(mounts.store.root()).unwrap());
        drop(["used", "named", "other"].map(|id| take(&earlier, id, Share::Shared)));
        assert!(is_held("used") && is_held("named") && is_held("other"));
    }
    assert!(!is_held("used") && !is_held("named"));
    drop(take(&mounts, "used", Share::Shared));
    mounts.hold(&BTreeSet::from(["named", "not there"])).unwrap();
    assert!(is_held("used") && is_held("named") && !is_held("other"));
}

#[test]
fn a_mount_whose_filling_fails_is_not_there() {
    let (_folder, mounts) = open();
    let fail = || CacheMountError::at("filling", Path::new("x"))(std::io::ErrorKind::Other.into());
    let failed = mounts.take(&wanted("f"), Share::Shared, &mut |_| Err(fail()), &mut || false);
    assert!(failed.is_err());
    let filled: Result<_, CacheMountError> = mounts.take(
        &wanted("f"),
        Share::Shared,
        &mut |data| fs::write(data.join("first"), "").map_err(CacheMountError::at("writing", data)),
        &mut || false,
    );
    assert!(filled.unwrap().unwrap().data().join("first").is_file());
}

fn seen(content: u8, seconds: i64) -> Seen {
    Seen { content: Fingerprint([content; 16]), shown: Moment { seconds, nanoseconds: 5 }, by: 1 }
}

fn now(seconds: i64) -> Moment {
    Moment { seconds, nanoseconds: 0 }
}

#[test]
fn the_end_of_a_run_is_remembered_and_a_killed_one_is_never_over() {
    let (_folder, mounts) = open();
    let mut held = take(&mounts, "m", Share::Shared).unwrap();
    let turn = held.turn().unwrap();
    assert_eq!(turn.memory, Memory::default());
    held.begin(turn, vec![(b"a".to_vec(), seen(1, 1))], None).unwrap();
    held.end(now(9)).unwrap();
    let mut held = take(&mounts, "m", Share::Shared).unwrap();
    let turn = held.turn().unwrap();
    assert_eq!((turn.memory.last_use, turn.memory.seen.len()), (LastUse::At(now(9)), 1));
    held.begin(turn, Vec::new(), None).unwrap();
    // As a killed process leaves it.
    drop(held);
    let held = take(&mounts, "m", Share::Shared).unwrap();
    assert_eq!(held.turn().unwrap().memory.last_use, LastUse::Running);
    fs::write(held.place().join("memory"), "damaged").unwrap();
    let memory = held.turn().unwrap().memory;
    assert_eq!((memory.last_use, memory.seen.len()), (LastUse::Running, 0));
}

/// What a mount remembers of the files `a` and `b`.
fn remembered(mounts: &CacheMounts) -> (Option<Seen>, Option<Seen>) {
    let memory = take(mounts, "m", Share::Shared).unwrap().turn().unwrap().memory;
    (memory.seen.get(&b"a"[..]).copied(), memory.seen.get(&b"b"[..]).copied())
}

/// A run that sees `a` with this content, and `b` as all do.
fn begun(mounts: &CacheMounts, content: u8) -> HeldMount {
    let mut held = take(mounts, "m", Share::Shared).unwrap();
    let turn = held.turn().unwrap();
    held.begin(turn, vec![(b"a".to_vec(), seen(content, 1)), (b"b".to_vec(), seen(9, 1))], None).unwrap();
    held
}

#[test]
fn two_runs_at_once_forget_what_they_saw_differently() {
    let (_folder, mounts) = open();
    let (one, two) = (begun(&mounts, 1), begun(&mounts, 2));
    assert_eq!(two.turn().unwrap().memory.last_use, LastUse::Running);
    two.end(now(3)).unwrap();
    one.end(now(4)).unwrap();
    assert_eq!(take(&mounts, "m", Share::Shared).unwrap().turn().unwrap().memory.last_use, LastUse::At(now(4)));
    assert_eq!(remembered(&mounts), (Some(Seen::IN_DOUBT), Some(seen(9, 1))));
    // Whoever is alone knows again.
    begun(&mounts, 2).end(now(5)).unwrap();
    assert_eq!(remembered(&mounts).0, Some(seen(2, 1)));
    assert!(mounts.is_used("m") && !mounts.is_used("other"));
    take(&mounts, "other", Share::Shared).unwrap().end(now(6)).unwrap();
    assert!(!mounts.is_used("other"), "it could not write");
}

#[test]
fn what_is_gone_from_a_folder_that_is_seen_is_forgotten() {
    let (_folder, mounts) = open();
    let run_by = |by: u64, paths: &[&str]| {
        let mut held = take(&mounts, "m", Share::Shared).unwrap();
        let turn = held.turn().unwrap();
        let known: Vec<String> =
            turn.memory.seen.keys().map(|path| String::from_utf8_lossy(path).into_owned()).collect();
        let seen = |path: &&str| (path.as_bytes().to_vec(), Seen { by, ..seen(1, 1) });
        held.begin(turn, paths.iter().map(seen).collect(), None).unwrap();
        held.end(now(2)).unwrap();
        known.join(" ")
    };
    let run = |paths: &[&str]| run_by(1, paths);
    run(&["top", "src/a", "src/b", "src/deep/c", "usr/bin/cc", "usr/src/d", "usr/src/e"]);
    run(&["src/b", "usr/bin/ls", "usr/src/e"]);
    assert_eq!(run(&[]), "src/b src/deep/c top usr/bin/cc usr/bin/ls usr/src/e");
    // A command that is shown less than the next one takes nothing from it.
    run_by(2, &["src/deep/d"]);
    run(&["src/b", "src/f"]);
    assert_eq!(run(&[]), "src/b src/deep/c src/deep/d src/f top usr/bin/cc usr/bin/ls usr/src/e");
    run_by(2, &["src/f"]);
    run(&["src/b", "top"]);
    assert!(run(&[]).contains("src/f"));
}

#[test]
fn what_a_killed_run_saw_differently_stays_in_doubt() {
    for killed_first in [true, false] {
        let (_folder, mounts) = open();
        let (one, two) = (begun(&mounts, 1), begun(&mounts, 2));
        let (killed, other) = if killed_first { (one, two) } else { (two, one) };
        drop(killed);
        // A third begins while the other goes on, and a fourth when it is done.
        let third = begun(&mounts, 2);
        other.end(now(3)).unwrap();
        begun(&mounts, 2).end(now(4)).unwrap();
        third.end(now(5)).unwrap();
        assert_eq!(remembered(&mounts), (Some(Seen::IN_DOUBT), Some(seen(9, 1))), "{killed_first}");
    }
}

proptest! {
    #[test]
    fn a_memory_reads_back_as_written(
        paths in prop::collection::btree_map(prop::collection::vec(1_u8.., 0..20), (any::<[u8; 16]>(), any::<i64>(), 0..1_000_000_000_u32), 0..20),
        generation: u64,
        last in prop::option::of(any::<i64>()),
    ) {
        let seen = paths.into_iter().map(|(path, (content, seconds, nanoseconds))| {
            (path, Seen { content: Fingerprint(content), shown: Moment { seconds, nanoseconds }, by: u64::from(nanoseconds) })
        });
        let last_use = last.map_or(LastUse::Running, |seconds| LastUse::At(now(seconds)));
        let memory = Memory { last_use, generation, cover: last.map(|_| "cover-1".to_owned()), seen: seen.collect() };
        prop_assert_eq!(Memory::from_bytes(&memory.to_bytes()), Some(memory));
    }

    #[test]
    fn any_bytes_are_a_memory_or_none(bytes: Vec<u8>) {
        let _ = Memory::from_bytes(&bytes);
        let _ = Memory::from_bytes(&[HEAD_FOR_TESTS, &bytes[..]].concat());
    }
}

const HEAD_FOR_TESTS: &[u8] = b"fluyt-cache-mount-memory/1\nnever 1 -\n";
