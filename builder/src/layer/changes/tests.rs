//! What steps do to a root, on real overlay mounts; and the same by comparing a tree with what it was.

mod laws;

use std::ffi::CString;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;

use rustix::fs::{FileType, Mode, Timespec, Timestamps, XattrFlags};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::*;

/// A lower folder, and what a step wrote over it.
struct Bench {
    folder: tempfile::TempDir,
}

struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        unmount(&self.0, UnmountFlags::DETACH).unwrap();
    }
}

impl Bench {
    /// `None` where overlayfs cannot be mounted.
    fn empty() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: needs root, to mount overlayfs");
            return None;
        }
        let shm = Path::new("/dev/shm");
        let folder = if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() }.unwrap();
        for name in ["lower", "upper", "work", "root"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        Some(Self { folder })
    }

    /// With something in the lower folder.
    fn new() -> Option<Self> {
        let bench = Self::empty()?;
        let lower = bench.path("lower");
        for name in ["d", "d/sub", "e"] {
            fs::create_dir(lower.join(name)).unwrap();
        }
        for name in ["a", "b", "d/1", "d/2", "d/sub/deep", "e/x"] {
            fs::write(lower.join(name), name).unwrap();
            set_time(&lower.join(name), 1_000, 5);
        }
        symlink("a", lower.join("link")).unwrap();
        fs::hard_link(lower.join("b"), lower.join("b2")).unwrap();
        Some(bench)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn lowers(&self) -> [PathBuf; 1] {
        [self.path("lower")]
    }

    /// Runs a step on the mount.
    fn step(&self, work: impl FnOnce(&Path)) {
        let at = self.path("root");
        let path = |name: &str| self.path(name).display().to_string();
        let options = format!(
            "lowerdir={},upperdir={},workdir={},redirect_dir=off,index=off,metacopy=off",
            path("lower"),
            path("upper"),
            path("work")
        );
        let options = CString::new(options).unwrap();
        mount("overlay", &at, "overlay", MountFlags::empty(), Some(options.as_c_str())).unwrap();
        let mounted = Mounted(at);
        work(&mounted.0);
    }

    fn changes(&self) -> Result<Vec<Change>, ChangesError> {
        let changes = overlay_changes(&self.path("upper"), &self.lowers())?;
        assert!(changes.is_sorted_by(|a, b| a.entry.path < b.entry.path), "{changes:?}");
        Ok(changes)
    }

    /// The changes of a step, one line each; the same after what they leave out is taken away.
    fn outline(&self, work: impl FnOnce(&Path)) -> String {
        self.step(work);
        let before = outline(&self.changes().unwrap());
        tidy_upper(&self.path("upper"), &self.lowers()).unwrap();
        assert_eq!(outline(&self.changes().unwrap()), before);
        before
    }
}

fn outline(changes: &[Change]) -> String {
    let line = |change: &Change| {
        let entry = &change.entry;
        let kind = match &entry.kind {
            Kind::Symlink(target) => format!("Symlink {}", String::from_utf8_lossy(target)),
            kind => format!("{kind:?}"),
        };
        let content = match &change.source {
            Source::File { path, .. } => format!(" {:?}", fs::read_to_string(path).unwrap()),
            _ => String::new(),
        };
        format!("{} {kind} {:o} {}:{}{content}\n", entry.path, entry.mode, entry.uid, entry.gid)
    };
    changes.iter().map(line).collect()
}

fn set_time(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(rustix::fs::CWD, path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn removed_names_are_whiteouts_when_something_was_there() {
    let Some(bench) = Bench::new() else { return };
    let lines = bench.outline(|root| {
        fs::remove_file(root.join("a")).unwrap();
        fs::remove_dir_all(root.join("d")).unwrap();
        fs::write(root.join("e/new"), "").unwrap();
        fs::remove_file(root.join("e/new")).unwrap();
    });
    insta::assert_snapshot!(lines, @"
    /a Whiteout 0 0:0
    /d Whiteout 0 0:0
    ");
    // A mark of removal over nothing: of a file that was made and removed, by other kernels, or over another lower.
    rustix::fs::mknodat(rustix::fs::CWD, bench.path("upper/never"), FileType::CharacterDevice, Mode::empty(), 0)
        .unwrap();
    assert_eq!(outline(&bench.changes().unwrap()), lines);
    assert!(!tidy_upper(&bench.path("upper"), &bench.lowers()).unwrap());
    assert!(!bench.path("upper/never").exists());
}

#[test]
fn a_folder_that_was_made_again_is_a_whiteout_for_each_name() {
    let Some(bench) = Bench::new() else { return };
    let lines = bench.outline(|root| {
        fs::remove_dir_all(root.join("d")).unwrap();
        fs::create_dir(root.join("d")).unwrap();
        set_mode(&root.join("d"), 0o700);
        fs::write(root.join("d/1"), "new").unwrap();
        fs::create_dir(root.join("d/sub")).unwrap();
        fs::write(root.join("d/z"), "z").unwrap();
    });
    insta::assert_snapshot!(lines, @r#"
    /d Directory 700 0:0
    /d/1 File { size_bytes: 3 } 644 0:0 "new"
    /d/2 Whiteout 0 0:0
    /d/sub Directory 755 0:0
    /d/sub/deep Whiteout 0 0:0
    /d/z File { size_bytes: 1 } 644 0:0 "z"
    "#);
    assert!(tidy_upper(&bench.path("upper"), &bench.lowers()).unwrap(), "it hides what other lowers may have");
}

#[test]
fn a_new_folder_hides_nothing() {
    let Some(bench) = Bench::new() else { return };
    bench.step(|root| fs::create_dir_all(root.join("new/er")).unwrap());
    insta::assert_snapshot!(outline(&bench.changes().unwrap()), @"
    /new Directory 755 0:0
    /new/er Directory 755 0:0
    ");
    assert!(!tidy_upper(&bench.path("upper"), &bench.lowers()).unwrap());
    assert!(!is_opaque(&bench.path("upper/new")).unwrap());
}

#[test]
fn what_was_copied_up_and_not_changed_is_left_out() {
    let Some(bench) = Bench::new() else { return };
    let lines = bench.outline(|root| {
        // Opened to append, and nothing written.
        fs::File::options().append(true).open(root.join("a")).unwrap();
        set_mode(&root.join("d/1"), 0o600);
        set_mode(&root.join("d/1"), 0o644);
        set_time(&root.join("e"), 5, 5);
        chown(root.join("e/x"), Some(0), Some(0)).unwrap();
        // `cp -a` back.
        fs::copy(root.join("d/2"), root.join("copy")).unwrap();
        set_time(&root.join("copy"), 1_000, 5);
        fs::rename(root.join("copy"), root.join("d/2")).unwrap();
    });
    assert_eq!(lines, "");
    // All of that was in the upper folder, and is not any more.
    assert_eq!(fs::read_dir(bench.path("upper")).unwrap().count(), 0);
}

#[test]
fn what_was_copied_back_into_a_folder_that_was_made_again_is_left_out_and_stays() {
    let Some(bench) = Bench::new() else { return };
    bench.step(|root| {
        fs::rename(root.join("d/1"), root.join("saved")).unwrap();
        fs::remove_dir_all(root.join("d")).unwrap();
        fs::create_dir(root.join("d")).unwrap();
        fs::rename(root.join("saved"), root.join("d/1")).unwrap();
    });
    let lines = "/d Directory 755 0:0\n/d/2 Whiteout 0 0:0\n/d/sub Whiteout 0 0:0\n";
    assert_eq!(outline(&bench.changes().unwrap()), lines);
    assert!(tidy_upper(&bench.path("upper"), &bench.lowers()).unwrap());
    assert_eq!(fs::read_to_string(bench.path("upper/d/1")).unwrap(), "d/1");
}

#[test]
fn the_folders_on_the_way_come_with_a_change() {
    let Some(bench) = Bench::new() else { return };
    let lines = bench.outline(|root| {
        chown(root.join("d"), Some(7), Some(8)).unwrap();
        set_mode(&root.join("d"), 0o2750);
        fs::write(root.join("d/sub/deep"), "changed").unwrap();
        fs::remove_file(root.join("e/x")).unwrap();
    });
    insta::assert_snapshot!(lines, @r#"
    /d Directory 2750 7:8
    /d/sub Directory 755 0:0
    /d/sub/deep File { size_bytes: 7 } 644 0:0 "changed"
    /e Directory 755 0:0
    /e/x Whiteout 0 0:0
    "#);
}

#[test]
fn other_content_of_the_same_size_and_time_is_a_change() {
    let Some(bench) = Bench::new() else { return };
    let lines = bench.outline(|root| {
        fs::write(root.join("d/1"), "D/!").unwrap();
        set_time(&root.join("d/1"), 1_000, 5);
        fs::remove_file(root.join("link")).unwrap();
        symlink("b", root.join("link")).unwrap();
    });
    insta::assert_snapshot!(lines, @r#"
    /d Directory 755 0:0
    /d/1 File { size_bytes: 3 } 644 0:0 "D/!"
    /link Symlink b 777 0:0
    "#);
}

#[test]
fn kinds_can_change_into_each_other() {
    let Some(bench) = Bench::new() else { return };
    let lines = bench.outline(|root| {
        fs::remove_file(root.join("a")).unwrap();
        fs::create_dir(root.join("a")).unwrap();
        fs::write(root.join("a/in"), "").unwrap();
        fs::remove_dir_all(root.join("d")).unwrap();
        fs::write(root.join("d"), "file").unwrap();
        fs::remove_dir_all(root.join("e")).unwrap();
        symlink("d", root.join("e")).unwrap();
        fs::remove_file(root.join("link")).unwrap();
        let mode = Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, root.join("link"), FileType::Fifo, mode, 0).unwrap();
        let device = rustix::fs::makedev(1, 3);
        rustix::fs::mknodat(rustix::fs::CWD, root.join("null"), FileType::CharacterDevice, mode, device).unwrap();
    });
    insta::assert_snapshot!(lines, @r#"
    /a Directory 755 0:0
    /a/in File { size_bytes: 0 } 644 0:0
    /d File { size_bytes: 4 } 644 0:0 "file"
    /e Symlink d 777 0:0
    /link Fifo 600 0:0
    /null CharDevice { major: 1, minor: 3 } 600 0:0
    "#);
}

#[test]
fn hard_links_are_to_the_first_name_and_not_to_what_lies_below() {
    let Some(bench) = Bench::new() else { return };
    let lines = bench.outline(|root| {
        fs::write(root.join("n2"), "new").unwrap();
        fs::hard_link(root.join("n2"), root.join("n1")).unwrap();
        fs::hard_link(root.join("n2"), root.join("d/n3")).unwrap();
        // New names of files below.
        fs::hard_link(root.join("a"), root.join("a-again")).unwrap();
        fs::hard_link(root.join("e/x"), root.join("0x")).unwrap();
        // One of two names below is written to: the other one keeps what it has, as overlayfs without an index has it.
        fs::write(root.join("b"), "changed").unwrap();
        fs::remove_file(root.join("d/1")).unwrap();
        fs::remove_file(root.join("d/2")).unwrap();
    });
    insta::assert_snapshot!(lines, @r#"
    /0x File { size_bytes: 3 } 644 0:0 "e/x"
    /a-again File { size_bytes: 1 } 644 0:0 "a"
    /b File { size_bytes: 7 } 644 0:0 "changed"
    /d Directory 755 0:0
    /d/1 Whiteout 0 0:0
    /d/2 Whiteout 0 0:0
    /d/n3 File { size_bytes: 3 } 644 0:0 "new"
    /n1 Hardlink("d/n3") 644 0:0
    /n2 Hardlink("d/n3") 644 0:0
    "#);
}

#[test]
fn sockets_are_dropped() {
    let Some(bench) = Bench::new() else { return };
    bench.step(|root| {
        drop(UnixListener::bind(root.join("s")).unwrap());
        fs::remove_file(root.join("a")).unwrap();
        drop(UnixListener::bind(root.join("a")).unwrap());
    });
    assert_eq!(outline(&bench.changes().unwrap()), "/a Whiteout 0 0:0\n");
    assert!(tidy_upper(&bench.path("upper"), &bench.lowers()).unwrap());
    assert_eq!(outline(&bench.changes().unwrap()), "/a Whiteout 0 0:0\n");
    assert!(!bench.path("upper/s").exists());
}

#[test]
fn only_capabilities_are_kept_of_the_attributes() {
    let Some(bench) = Bench::new() else { return };
    let capability: &[u8] = &[1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let set = |path: &Path, name: &str, value: &[u8]| {
        rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()).unwrap();
    };
    bench.step(|root| {
        set(&root.join("a"), "security.capability", capability);
        set(&root.join("d/1"), "trusted.mine", b"x");
        fs::write(root.join("new"), "").unwrap();
        set(&root.join("new"), "trusted.mine", b"x");
        // overlayfs keeps what is set through it apart from its own.
        set(&root.join("e"), "trusted.overlay.redirect", b"/d");
    });
    let changes = bench.changes().unwrap();
    assert_eq!(outline(&changes).lines().count(), 2, "{changes:?}");
    let expected = BTreeMap::from([(b"security.capability".to_vec(), capability.to_vec())]);
    assert_eq!(changes[0].entry.xattrs, expected);
    assert_eq!(changes[1].entry.xattrs, BTreeMap::new());
}

#[test]
fn what_a_layer_cannot_hold_is_an_error() {
    let Some(bench) = Bench::new() else { return };
    bench.step(|root| fs::write(root.join("d/.wh.1"), "").unwrap());
    insta::assert_snapshot!(
        bench.changes().unwrap_err(),
        @"the step made /d/.wh.1, and a layer cannot hold it: names that start with `.wh.` mean a removed file; remove it in the same step"
    );
    fs::remove_file(bench.path("upper/d/.wh.1")).unwrap();
    let flags = XattrFlags::empty();
    rustix::fs::lsetxattr(bench.path("upper/d"), "trusted.overlay.redirect", b"/e", flags).unwrap();
    insta::assert_snapshot!(
        bench.changes().unwrap_err(),
        @"/d has the attribute trusted.overlay.redirect, which sends overlayfs to another file; expected none, as we mount without"
    );
}

#[test]
fn a_deep_tree_is_walked() {
    let Some(bench) = Bench::new() else { return };
    let deep = vec!["d"; 600].join("/");
    bench.step(|root| fs::create_dir_all(root.join(&deep)).unwrap());
    // On top of `d`, which is below.
    assert_eq!(bench.changes().unwrap().len(), 600);
    let before = Manifest::of(&bench.path("lower")).unwrap();
    fs::create_dir_all(bench.path("lower").join(&deep)).unwrap();
    assert_eq!(before.changes(&bench.path("lower")).unwrap().len(), 600);
}

/// The changes of a step in a tree of its own.
fn by_manifest(bench: &Bench, work: impl FnOnce(&Path)) -> String {
    let tree = bench.path("lower");
    let before = Manifest::of(&tree).unwrap();
    // The grain of a file's times.
    std::thread::sleep(std::time::Duration::from_millis(10));
    work(&tree);
    let changes = before.changes(&tree).unwrap();
    assert!(changes.is_sorted_by(|a, b| a.entry.path < b.entry.path), "{changes:?}");
    outline(&changes)
}

#[test]
fn a_manifest_leaves_out_what_is_as_the_layers_say() {
    use crate::layer::{IndexEntry, LayerIndex, Tree};
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    fs::create_dir(&root).unwrap();
    let nothing = Manifest::of(&root).unwrap();
    for (name, content) in [("same", "same"), ("other", "other"), ("mode", ""), ("linked", "linked")] {
        fs::write(root.join(name), content).unwrap();
        set_time(&root.join(name), 1_000, 5);
    }
    symlink("same", root.join("link")).unwrap();
    let entries = nothing.changes(&root).unwrap().into_iter().map(|change| {
        let content = match &change.source {
            Source::File { path, .. } => Some(crate::blob::ContentHash::of(&fs::read(path).unwrap())),
            _ => None,
        };
        IndexEntry { entry: change.entry, content }
    });
    let mut tree = Tree::new();
    tree.push(&LayerIndex { entries: entries.collect(), ..LayerIndex::default() }, 0);
    let before = Manifest::of(&root).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(10));
    let mode = |name: &str, mode| fs::set_permissions(root.join(name), fs::Permissions::from_mode(mode)).unwrap();
    mode("same", fs::metadata(root.join("same")).unwrap().mode() & 0o7777);
    // Another file with all that the first had; and one that only looks so.
    fs::write(root.join("new"), "same").unwrap();
    set_time(&root.join("new"), 1_000, 5);
    fs::rename(root.join("new"), root.join("same")).unwrap();
    fs::write(root.join("other"), "OTHER").unwrap();
    set_time(&root.join("other"), 1_000, 5);
    mode("mode", 0o600);
    fs::hard_link(root.join("linked"), root.join("more")).unwrap();
    let times = fs::symlink_metadata(root.join("link")).unwrap();
    chown_link(&root.join("link"));
    assert_eq!(fs::symlink_metadata(root.join("link")).unwrap().mtime_nsec(), times.mtime_nsec());
    let paths = |changes: Vec<Change>| -> Vec<String> {
        changes.into_iter().map(|change| change.entry.path.to_string()).collect()
    };
    assert_eq!(paths(before.changes_over(&root, &tree).unwrap()), ["/mode", "/more", "/other"]);
    assert_eq!(before.changes(&root).unwrap().len(), 6, "without knowing, all that was touched");
}

/// Gives a link to whom it belongs.
fn chown_link(path: &Path) {
    let metadata = fs::symlink_metadata(path).unwrap();
    std::os::unix::fs::lchown(path, Some(metadata.uid()), Some(metadata.gid())).unwrap();
}

#[test]
fn a_manifest_finds_what_changed() {
    let Some(bench) = Bench::new() else { return };
    let lines = by_manifest(&bench, |root| {
        fs::remove_file(root.join("a")).unwrap();
        fs::write(root.join("d/1"), "D/!").unwrap();
        // As if nothing had been.
        set_time(&root.join("d/1"), 1_000, 5);
        fs::remove_dir_all(root.join("e")).unwrap();
        symlink("d", root.join("e")).unwrap();
        fs::remove_file(root.join("link")).unwrap();
        drop(UnixListener::bind(root.join("link")).unwrap());
        drop(UnixListener::bind(root.join("socket")).unwrap());
        fs::create_dir(root.join("new")).unwrap();
        fs::write(root.join("new/x"), "x").unwrap();
        fs::hard_link(root.join("new/x"), root.join("new/y")).unwrap();
        fs::remove_dir_all(root.join("d/sub")).unwrap();
    });
    insta::assert_snapshot!(lines, @r#"
    /a Whiteout 0 0:0
    /d Directory 755 0:0
    /d/1 File { size_bytes: 3 } 644 0:0 "D/!"
    /d/sub Whiteout 0 0:0
    /e Symlink d 777 0:0
    /link Whiteout 0 0:0
    /new Directory 755 0:0
    /new/x File { size_bytes: 1 } 644 0:0 "x"
    /new/y Hardlink("new/x") 644 0:0
    "#);
    assert_eq!(by_manifest(&bench, |root| drop(fs::read(root.join("b")).unwrap())), "");
    let tree = bench.path("lower");
    let before = Manifest::of(&tree).unwrap();
    fs::write(tree.join("d/.wh.x"), "").unwrap();
    assert!(matches!(before.changes(&tree), Err(ChangesError::ReservedName { .. })));
}
