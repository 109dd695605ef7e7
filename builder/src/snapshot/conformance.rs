//! What every snapshotter does; run by each of them, on real mounts where it is about mounts.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use oci_spec::image::Digest;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::{SnapshotError, Snapshotter, Workspace};
use crate::blob::Store;
use crate::layer::{
    Change, Entry, FileTime, Kind, Layer, LayerBuilder, LayerOptions, LayerPath, Limits, Source, Times, write_layer,
};
use crate::sandbox::RootMount;

/// A root that a test writes to, as a sandbox does.
struct Mounted {
    at: PathBuf,
    is_mount: bool,
}

impl Mounted {
    fn of(workspace: &Workspace, folder: &Path) -> Self {
        match workspace.root() {
            RootMount::Directory(root) => Self { at: root.clone(), is_mount: false },
            RootMount::Overlay { lowers, upper, work } => {
                let at = folder.join("mnt");
                fs::create_dir_all(&at).unwrap();
                let empty = folder.join("empty");
                fs::create_dir_all(&empty).unwrap();
                let mut lowers: Vec<_> = lowers.iter().map(|lower| lower.to_str().unwrap()).collect();
                if lowers.is_empty() {
                    lowers.push(empty.to_str().unwrap());
                }
                let (upper, work) = (upper.display(), work.display());
                let options = format!("lowerdir={},upperdir={upper},workdir={work}", lowers.join(":"));
                let options = std::ffi::CString::new(options).unwrap();
                mount("overlay", &at, "overlay", MountFlags::empty(), Some(options.as_c_str())).unwrap();
                Self { at, is_mount: true }
            }
        }
    }

    fn join(&self, path: &str) -> PathBuf {
        self.at.join(path)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.is_mount {
            unmount(&self.at, UnmountFlags::DETACH).unwrap();
        }
    }
}

/// A snapshotter on a store of its own, and the layers made for it.
struct Bench<S> {
    snapshotter: S,
    store: Store,
    folder: tempfile::TempDir,
}

impl<S: Snapshotter> Bench<S> {
    /// `None` where we are not root, as overlayfs and owners need it.
    fn new(open: fn(Store) -> Result<S, SnapshotError>) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: needs root, to mount overlayfs and to set owners");
            return None;
        }
        let shm = Path::new("/dev/shm");
        let folder = if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() }.unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        Some(Self { snapshotter: open(store.clone()).unwrap(), store, folder })
    }

    fn layer(&self, changes: &[Change]) -> Layer {
        let mut builder = LayerBuilder::new(&self.store, LayerOptions::default()).unwrap();
        for change in changes {
            builder.add(change).unwrap();
        }
        builder.finish().unwrap()
    }

    fn unpack(&self, layer: &Layer, diff_id: &Digest, below: &[Digest]) -> Result<(), SnapshotError> {
        let blob = Box::new(self.store.open_blob(&layer.digest).unwrap());
        self.snapshotter.unpack(diff_id, below, blob, &layer.media_type, &Limits::DEFAULT, None)
    }

    /// Writes and unpacks a layer.
    fn add(&self, changes: &[Change], below: &[Digest]) -> Digest {
        let layer = self.layer(changes);
        self.unpack(&layer, &layer.diff_id, below).unwrap();
        layer.diff_id
    }

    /// Runs `work` on a root of that chain, keeps the outcome as the layer that it is, and lists its changes.
    fn step(&self, chain: &[Digest], work: impl FnOnce(&Mounted)) -> (Digest, Vec<String>) {
        let workspace = self.snapshotter.prepare(chain).unwrap();
        work(&Mounted::of(&workspace, self.folder.path()));
        let changes = workspace.changes().unwrap();
        let layer = self.layer(&changes);
        self.snapshotter.commit(workspace, &layer).unwrap();
        (layer.diff_id, changes.iter().map(line).collect())
    }

    /// What a root of that chain shows.
    fn tree(&self, chain: &[Digest]) -> BTreeMap<String, String> {
        let workspace = self.snapshotter.prepare(chain).unwrap();
        let mounted = Mounted::of(&workspace, self.folder.path());
        let mut tree = BTreeMap::new();
        look(&mounted.at, &mounted.at, &mut tree);
        tree
    }
}

fn look(root: &Path, at: &Path, tree: &mut BTreeMap<String, String>) {
    let metadata = fs::symlink_metadata(at).unwrap();
    let kind = if metadata.is_dir() {
        "dir".to_owned()
    } else if metadata.is_symlink() {
        format!("-> {}", fs::read_link(at).unwrap().display())
    } else if metadata.is_file() {
        format!("file {:?}", fs::read_to_string(at).unwrap())
    } else {
        format!("{:?} {}", metadata.file_type(), metadata.rdev())
    };
    let text = format!("{kind} {:o} {}:{}", metadata.mode() & 0o7777, metadata.uid(), metadata.gid());
    tree.insert(format!("/{}", at.strip_prefix(root).unwrap().display()), text);
    if metadata.is_dir() {
        for entry in fs::read_dir(at).unwrap() {
            look(root, &entry.unwrap().path(), tree);
        }
    }
}

fn line(change: &Change) -> String {
    let entry = &change.entry;
    let kind = match &entry.kind {
        Kind::Symlink(target) => format!("Symlink {}", String::from_utf8_lossy(target)),
        kind => format!("{kind:?}"),
    };
    format!("{} {kind} {:o} {}:{}", entry.path, entry.mode, entry.uid, entry.gid)
}

fn change(path: &str, kind: Kind, mode: u32, owner: u32, source: Source) -> Change {
    let entry = Entry {
        path: LayerPath::clean(path.as_bytes()).unwrap(),
        kind,
        mode,
        uid: owner,
        gid: owner,
        modified: FileTime { seconds: 1_000, nanoseconds: 0 },
        xattrs: BTreeMap::new(),
    };
    Change { entry, source }
}

fn folder(path: &str, mode: u32, owner: u32) -> Change {
    change(path, Kind::Directory, mode, owner, Source::None)
}

fn file(path: &str, content: &str) -> Change {
    let kind = Kind::File { size_bytes: content.len() as u64 };
    change(path, kind, 0o644, 0, Source::Bytes(content.as_bytes().to_vec()))
}

fn base() -> Vec<Change> {
    vec![
        file("a", "a"),
        folder("d", 0o755, 0),
        file("d/one", "1"),
        file("d/two", "2"),
        folder("private", 0o700, 33),
        folder("tmp", 0o1777, 0),
        folder("usr", 0o755, 0),
        folder("usr/lib", 0o755, 0),
    ]
}

fn a_chain_shows_its_layers_merged<S: Snapshotter>(bench: &Bench<S>) {
    let base = bench.add(&base(), &[]);
    let whiteout = change("a", Kind::Whiteout, 0, 0, Source::None);
    let top = bench.add(&[whiteout, folder("d", 0o750, 7), file("d/two", "zwei")], std::slice::from_ref(&base));
    let tree = bench.tree(&[base.clone(), top]);
    assert_eq!(tree.get("/a"), None);
    assert_eq!(tree["/d"], "dir 750 7:7");
    assert_eq!(tree["/d/one"], r#"file "1" 644 0:0"#);
    assert_eq!(tree["/d/two"], r#"file "zwei" 644 0:0"#);
    assert_eq!(tree["/tmp"], "dir 1777 0:0");
    assert_eq!(bench.tree(&[base])["/a"], r#"file "a" 644 0:0"#);
    assert_eq!(bench.tree(&[]).keys().collect::<Vec<_>>(), ["/"]);
}

fn a_layer_may_stand_in_a_chain_twice<S: Snapshotter>(bench: &Bench<S>) {
    let base = bench.add(&base(), &[]);
    let twice = bench.add(&[file("same", "same\n")], std::slice::from_ref(&base));
    let between = bench.add(&[file("between", "x\n")], &[base.clone(), twice.clone()]);
    let once = bench.tree(&[base.clone(), between.clone(), twice.clone()]);
    let chain = [base, twice.clone(), between, twice];
    assert_eq!(bench.tree(&chain), once);
    let (_, changes) = bench.step(&chain, |mounted| fs::remove_file(mounted.join("same")).unwrap());
    assert_eq!(changes.len(), 1, "{changes:?}");
}

fn folders_without_an_entry_keep_what_they_have_below<S: Snapshotter>(bench: &Bench<S>) {
    let other = bench.add(&[folder("private", 0o711, 44)], &[]);
    let mut layers = base();
    layers.insert(4, change("lib", Kind::Symlink(b"usr/lib".to_vec()), 0o777, 0, Source::None));
    let base = bench.add(&layers, &[]);
    let thin = [file("lib/x", "x"), file("private/new", "n"), file("tmp/t", "t")];
    let top = bench.add(&thin, std::slice::from_ref(&base));
    let tree = bench.tree(&[base, top]);
    assert_eq!(tree["/private"], "dir 700 33:33");
    assert_eq!(tree["/tmp"], "dir 1777 0:0");
    assert_eq!(tree["/lib"], "-> usr/lib 777 0:0");
    assert_eq!(tree["/usr/lib/x"], r#"file "x" 644 0:0"#);

    // The same layer above another one.
    let top = bench.add(&thin, std::slice::from_ref(&other));
    let tree = bench.tree(&[other, top]);
    assert_eq!(tree["/private"], "dir 711 44:44");
    assert_eq!(tree["/tmp"], "dir 755 0:0");
    assert_eq!(tree["/lib/x"], r#"file "x" 644 0:0"#);
}

fn a_step_becomes_a_layer_and_the_layer_the_same_tree<S: Snapshotter>(bench: &Bench<S>) {
    let base = bench.add(&base(), &[]);
    let (top, lines) = bench.step(std::slice::from_ref(&base), |root| {
        fs::remove_file(root.join("a")).unwrap();
        fs::remove_dir_all(root.join("d")).unwrap();
        fs::create_dir(root.join("d")).unwrap();
        fs::write(root.join("d/two"), "zwei").unwrap();
        fs::write(root.join("d/three"), "3").unwrap();
        fs::write(root.join("private/new"), "n").unwrap();
        fs::set_permissions(root.join("private/new"), fs::Permissions::from_mode(0o4755)).unwrap();
        fs::hard_link(root.join("private/new"), root.join("tmp/again")).unwrap();
        symlink("d/two", root.join("link")).unwrap();
    });
    // The folder that was made again had other attributes in no way that counts.
    insta::allow_duplicates! {
        insta::assert_snapshot!(lines.join("\n"), @r#"
        /a Whiteout 0 0:0
        /d Directory 755 0:0
        /d/one Whiteout 0 0:0
        /d/three File { size_bytes: 1 } 644 0:0
        /d/two File { size_bytes: 4 } 644 0:0
        /link Symlink d/two 777 0:0
        /private Directory 700 33:33
        /private/new File { size_bytes: 1 } 4755 0:0
        /tmp Directory 1777 0:0
        /tmp/again Hardlink("private/new") 4755 0:0
        "#);
    }
    let chain = [base.clone(), top];
    let tree = bench.tree(&chain);
    assert_eq!(tree.keys().filter(|path| path.starts_with("/d")).collect::<Vec<_>>(), ["/d", "/d/three", "/d/two"]);
    assert_eq!(tree["/private/new"], r#"file "n" 4755 0:0"#);
    assert_eq!(tree["/private"], "dir 700 33:33");
    assert!(!tree.contains_key("/a"));
    // The next step sees it, and the one before is as it was.
    let (next, lines) = bench.step(&chain, |root| fs::write(root.join("a"), "again").unwrap());
    assert_eq!(lines, ["/a File { size_bytes: 5 } 644 0:0"]);
    assert_eq!(bench.tree(&[chain[0].clone(), chain[1].clone(), next])["/a"], r#"file "again" 644 0:0"#);
    assert_eq!(bench.tree(&[base])["/d/one"], r#"file "1" 644 0:0"#);
}

fn a_dropped_workspace_leaves_nothing<S: Snapshotter>(bench: &Bench<S>) {
    let base = bench.add(&base(), &[]);
    let before = bench.tree(std::slice::from_ref(&base));
    {
        let workspace = bench.snapshotter.prepare(std::slice::from_ref(&base)).unwrap();
        let root = Mounted::of(&workspace, bench.folder.path());
        fs::write(root.join("a"), "changed").unwrap();
        fs::remove_dir_all(root.join("d")).unwrap();
    }
    assert_eq!(bench.tree(&[base]), before);
}

fn a_wrong_or_damaged_blob_leaves_nothing<S: Snapshotter>(bench: &Bench<S>) {
    let layer = bench.layer(&base());
    let other = crate::blob::sha256(b"other");
    let error = bench.unpack(&layer, &other, &[]).unwrap_err();
    assert!(matches!(&error, SnapshotError::WrongDiffId { actual, .. } if *actual == layer.diff_id), "{error}");
    let blob = fs::read(bench.store.path(&layer.digest)).unwrap();
    let cut = std::io::Cursor::new(blob[..blob.len() / 2].to_vec());
    let cut = bench.snapshotter.unpack(&layer.diff_id, &[], Box::new(cut), "", &Limits::DEFAULT, None);
    assert!(matches!(cut, Err(SnapshotError::Apply { .. })), "{cut:?}");
    for diff_id in [&other, &layer.diff_id] {
        assert!(!bench.snapshotter.has(diff_id));
        let error = bench.snapshotter.prepare(std::slice::from_ref(diff_id)).unwrap_err();
        assert!(matches!(&error, SnapshotError::NotUnpacked { diff_id: missing } if missing == diff_id), "{error}");
    }
    bench.unpack(&layer, &layer.diff_id, &[]).unwrap();
    assert!(bench.snapshotter.has(&layer.diff_id));
    // It is not even read again.
    let nothing = Box::new(std::io::empty());
    bench.snapshotter.unpack(&layer.diff_id, &[], nothing, "", &Limits::DEFAULT, None).unwrap();
}

fn a_layer_above_a_missing_one_is_refused<S: Snapshotter>(bench: &Bench<S>) {
    let layer = bench.layer(&base());
    let missing = crate::blob::sha256(b"missing");
    let error = bench.unpack(&layer, &layer.diff_id, std::slice::from_ref(&missing)).unwrap_err();
    assert!(matches!(&error, SnapshotError::NotUnpacked { diff_id } if *diff_id == missing), "{error}");
}

fn a_step_that_changes_nothing_has_no_changes<S: Snapshotter>(bench: &Bench<S>) {
    let base = bench.add(&base(), &[]);
    let (_, lines) = bench.step(&[base], |root| {
        fs::write(root.join("d/new"), "x").unwrap();
        fs::remove_file(root.join("d/new")).unwrap();
        fs::create_dir(root.join("e")).unwrap();
        fs::remove_dir(root.join("e")).unwrap();
    });
    assert_eq!(lines, [""; 0]);
}

fn the_root_is_as_the_topmost_layer_with_an_entry_for_it_says<S: Snapshotter>(bench: &Bench<S>) {
    let base = bench.add(&[folder("", 0o711, 5), file("a", "a")], &[]);
    let top = bench.add(&[file("b", "b")], std::slice::from_ref(&base));
    let chain = [base.clone(), top];
    assert_eq!(bench.tree(&chain)["/"], "dir 711 5:5");
    let (step, lines) = bench.step(&chain, |root| fs::write(root.join("c"), "c").unwrap());
    assert_eq!(lines, ["/c File { size_bytes: 1 } 644 0:0"]);
    let [base, top] = chain;
    assert_eq!(bench.tree(&[base, top, step])["/"], "dir 711 5:5");
}

fn times_are_those_of_the_index<S: Snapshotter>(bench: &Bench<S>) {
    let file = |path: &str, seconds| {
        let mut change = file(path, "same");
        change.entry.modified = FileTime { seconds, nanoseconds: 7 };
        change
    };
    let options = LayerOptions { times: Times::Clamp(100), ..LayerOptions::default() };
    let changes = [file("later", 1_000), file("sooner", 50)];
    let layer = write_layer(&bench.store, options, &changes).unwrap();
    let blob = Box::new(bench.store.open_blob(&layer.digest).unwrap());
    let (limits, index) = (&Limits::DEFAULT, Some(&layer.index));
    bench.snapshotter.unpack(&layer.diff_id, &[], blob, &layer.media_type, limits, index).unwrap();
    let workspace = bench.snapshotter.prepare(&[layer.diff_id]).unwrap();
    let mounted = Mounted::of(&workspace, bench.folder.path());
    let time = |name: &str| {
        let metadata = fs::metadata(mounted.at.join(name)).unwrap();
        (metadata.mtime(), metadata.mtime_nsec())
    };
    assert_eq!((time("later"), time("sooner")), ((1_000, 7), (50, 7)));
}

fn a_workspace_of_another_is_refused<S: Snapshotter>(bench: &Bench<S>) {
    let others: [Box<dyn Snapshotter>; 2] = [
        Box::new(crate::snapshot::Overlay::open(bench.store.clone()).unwrap()),
        Box::new(crate::snapshot::MutableRoot::open(bench.store.clone()).unwrap()),
    ];
    let layer = bench.layer(&[]);
    let refused = others.iter().filter(|other| {
        let workspace = other.prepare(&[]).unwrap();
        matches!(bench.snapshotter.commit(workspace, &layer), Err(SnapshotError::AnothersWorkspace { .. }))
    });
    assert_eq!(refused.count(), 1);
}

macro_rules! conformance {
    ($name:ident, $open:expr, [$($test:ident),* $(,)?]) => {
        mod $name {
            $(
                #[test]
                fn $test() {
                    if let Some(bench) = super::Bench::new($open) {
                        super::$test(&bench);
                    }
                }
            )*
        }
    };
    ($($name:ident: $open:expr),*) => {
        $(
            conformance!($name, $open, [
                a_chain_shows_its_layers_merged,
                a_layer_may_stand_in_a_chain_twice,
                folders_without_an_entry_keep_what_they_have_below,
                a_step_becomes_a_layer_and_the_layer_the_same_tree,
                a_dropped_workspace_leaves_nothing,
                a_wrong_or_damaged_blob_leaves_nothing,
                a_layer_above_a_missing_one_is_refused,
                a_step_that_changes_nothing_has_no_changes,
                the_root_is_as_the_topmost_layer_with_an_entry_for_it_says,
                times_are_those_of_the_index,
                a_workspace_of_another_is_refused,
            ]);
        )*
    };
}

conformance!(overlay: crate::snapshot::Overlay::open, mutable_root: crate::snapshot::MutableRoot::open);
