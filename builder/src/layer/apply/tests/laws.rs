//! Laws that hold for any layer.

use proptest::prelude::*;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::*;
use crate::blob::Store;
use crate::layer::{Change, LayerBuilder, LayerOptions, Source, overlay_changes, sample};

/// The blob of a layer of these changes.
fn blob(store: &Store, changes: &[Change]) -> fs::File {
    let mut builder = LayerBuilder::new(store, LayerOptions::default()).unwrap();
    for change in changes {
        builder.add(change).unwrap();
    }
    store.open_blob(&builder.finish().unwrap().digest).unwrap()
}

struct Trees {
    folder: tempfile::TempDir,
    store: Option<Store>,
}

impl Trees {
    fn new() -> Self {
        let folder = Bench::new().folder;
        let store = Store::open(&folder.path().join("store")).unwrap();
        Self { folder, store: Some(store) }
    }

    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    fn apply(&self, name: &str, changes: &[Change], form: Form<'_>) -> PathBuf {
        let tree = self.folder.path().join(name);
        fs::create_dir_all(&tree).unwrap();
        apply_layer(blob(self.store(), changes), "", &Limits::DEFAULT, &tree, form).unwrap();
        tree
    }

    fn mounted(&self, top: &Path, base: &Path) -> String {
        let at = self.folder.path().join("mnt");
        fs::create_dir_all(&at).unwrap();
        let options = format!("lowerdir={}:{}", top.display(), base.display());
        let options = std::ffi::CString::new(options).unwrap();
        mount("overlay", &at, "overlay", MountFlags::empty(), Some(options.as_c_str())).unwrap();
        let lines = std::panic::catch_unwind(|| outline(&at));
        unmount(&at, UnmountFlags::DETACH).unwrap();
        lines.unwrap()
    }
}

/// Without the numbers of links: a mount tells how many names a file has in its own layer, removed ones too.
fn without_links(lines: &str) -> String {
    (2..10).fold(lines.to_owned(), |lines, count| lines.replace(&format!("\" x{count} "), "\" "))
}

/// The first lines that are not the same.
fn difference(found: &str, expected: &str) -> Option<String> {
    let mut pairs = found.lines().zip(expected.lines());
    match pairs.find(|(found, expected)| found != expected) {
        Some((found, expected)) => Some(format!("found {found:.200}\nexpected {expected:.200}")),
        None if found != expected => Some(format!("{} bytes and {} bytes", found.len(), expected.len())),
        None => None,
    }
}

/// What a tree should be, by the entries of the one layer in it.
fn expected(changes: &[Change]) -> String {
    let mut lines: BTreeMap<LayerPath, String> = BTreeMap::new();
    let mut links: BTreeMap<&LayerPath, u64> = BTreeMap::new();
    let mut by_path: BTreeMap<&LayerPath, &Change> = BTreeMap::new();
    for change in changes {
        by_path.insert(&change.entry.path, change);
        if let Kind::Hardlink(first) = &change.entry.kind {
            *links.entry(first).or_insert(1) += 1;
        }
    }
    for change in changes {
        let path = &change.entry.path;
        let mut parent = path.parent();
        while let Some(folder) = parent.filter(|folder| !folder.is_root()) {
            lines.entry(folder.clone()).or_insert_with(|| format!("{folder} dir 755 0 @0"));
            parent = folder.parent();
        }
        let first = match &change.entry.kind {
            Kind::Hardlink(first) => by_path[first],
            _ => change,
        };
        let mut mode = first.entry.mode;
        let kind = match &first.entry.kind {
            Kind::Directory => "dir".to_owned(),
            Kind::Symlink(target) => {
                mode = 0o777;
                format!("-> {}", String::from_utf8_lossy(target))
            }
            Kind::File { .. } => {
                let Source::Bytes(content) = &first.source else { unreachable!() };
                let links = links.get(&first.entry.path).map(|links| format!(" x{links}")).unwrap_or_default();
                format!("{:?}{links}", String::from_utf8_lossy(content))
            }
            Kind::Fifo => "Fifo 0:0".to_owned(),
            Kind::CharDevice { major: 0, minor: 0 } => continue,
            Kind::CharDevice { major, minor } => format!("CharacterDevice {major}:{minor}"),
            Kind::BlockDevice { major, minor } => format!("BlockDevice {major}:{minor}"),
            other => unreachable!("{other:?}"),
        };
        let entry = &first.entry;
        let uid = if entry.uid == u32::MAX { 65534 } else { entry.uid };
        lines.insert(path.clone(), format!("{path} {kind} {mode:o} {uid} @{}", entry.modified.seconds));
    }
    lines.values().map(|line| format!("{line}\n")).collect()
}

/// An entry of a layer that nobody sane would write.
#[derive(Clone, Debug)]
enum Odd {
    File(String),
    Folder(String, u32),
    Symlink(String, String),
    Hardlink(String, String),
    Fifo(String),
    Whiteout(String),
    Opaque(String),
}

fn odd_path() -> impl Strategy<Value = String> {
    proptest::collection::vec("[abc]", 1..4).prop_map(|names| names.join("/"))
}

fn odd() -> impl Strategy<Value = Odd> {
    let target = prop_oneof![
        odd_path(),
        odd_path().prop_map(|path| format!("/{path}")),
        odd_path().prop_map(|path| format!("../{path}")),
        Just("..".to_owned()),
        Just("/".to_owned()),
    ];
    prop_oneof![
        4 => odd_path().prop_map(Odd::File),
        4 => (odd_path(), 0..0o10000_u32).prop_map(|(path, mode)| Odd::Folder(path, mode)),
        3 => (odd_path(), target).prop_map(|(path, target)| Odd::Symlink(path, target)),
        2 => (odd_path(), odd_path()).prop_map(|(path, target)| Odd::Hardlink(path, target)),
        1 => odd_path().prop_map(Odd::Fifo),
        2 => odd_path().prop_map(Odd::Whiteout),
        1 => odd_path().prop_map(Odd::Opaque),
    ]
}

/// In any order, the same path many times.
fn odd_tar(entries: &[Odd]) -> Tar {
    entries.iter().enumerate().fold(Tar::default(), |tar, (number, entry)| match entry {
        Odd::File(path) => tar.mtime(number as u64).file(path, &number.to_string()),
        Odd::Folder(path, mode) => tar.mode(*mode).mtime(number as u64).folder(path),
        Odd::Symlink(path, target) => tar.symlink(path, target),
        Odd::Hardlink(path, target) => tar.hardlink(path, target),
        Odd::Fifo(path) => tar.raw(path, b'6', "", b""),
        Odd::Whiteout(path) => {
            let (folder, name) = path.rsplit_once('/').map_or(("", &path[..]), |(folder, name)| (folder, name));
            tar.file(&format!("{folder}/.wh.{name}"), "")
        }
        Odd::Opaque(path) => tar.file(&format!("{path}/.wh..wh..opq"), ""),
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn odd_layers_stay_inside_and_mean_the_same_in_both_forms(
        base in proptest::collection::vec(odd(), 0..8), top in proptest::collection::vec(odd(), 0..8),
    ) {
        if !as_root() {
            return Ok(());
        }
        let bench = Bench::new();
        let lowers = [bench.tree("base")];
        if bench.apply("base", odd_tar(&base), Form::Overlay { lowers: &[] }).is_err() {
            return Ok(());
        }
        bench.apply("flat", odd_tar(&base), Form::Flat).unwrap();
        prop_assert_eq!(difference(&outline(&bench.tree("base")), &outline(&bench.tree("flat"))), None);
        let overlay = bench.apply("top", odd_tar(&top), Form::Overlay { lowers: &lowers });
        let flat = bench.apply("flat", odd_tar(&top), Form::Flat);
        match (overlay, flat) {
            (Ok(_), Ok(_)) => {}
            // Of what is below, only files can get another name in the form for overlayfs.
            (Err(_), Err(_)) | (Err(ApplyError::HardlinkTarget { .. }), Ok(_)) => return Ok(()),
            (overlay, flat) => panic!("{overlay:?} but {flat:?}"),
        }
        let trees = Trees { folder: tempfile::tempdir().unwrap(), store: None };
        let mounted = trees.mounted(&bench.tree("top"), &lowers[0]);
        prop_assert_eq!(difference(&without_links(&mounted), &without_links(&outline(&bench.tree("flat")))), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_layer_unpacks_to_what_was_written(changes in sample::changes(false)) {
        if !as_root() {
            return Ok(());
        }
        let trees = Trees::new();
        let overlay = trees.apply("overlay", &changes, Form::Overlay { lowers: &[] });
        let flat = trees.apply("flat", &changes, Form::Flat);
        prop_assert_eq!(difference(&outline(&flat), &expected(&changes)), None);
        prop_assert_eq!(difference(&outline(&overlay), &expected(&changes)), None);
    }

    #[test]
    fn a_mount_shows_what_unpacking_one_over_the_other_gives(
        base in sample::changes(false), top in sample::changes(true),
    ) {
        if !as_root() {
            return Ok(());
        }
        let trees = Trees::new();
        let lower = trees.apply("base", &base, Form::Overlay { lowers: &[] });
        let upper = trees.folder.path().join("top");
        fs::create_dir(&upper).unwrap();
        let lowers = [lower.clone()];
        let applied =
            apply_layer(blob(trees.store(), &top), "", &Limits::DEFAULT, &upper, Form::Overlay { lowers: &lowers });
        let flat = trees.apply("flat", &base, Form::Flat);
        let flat_applied = apply_layer(blob(trees.store(), &top), "", &Limits::DEFAULT, &flat, Form::Flat);
        match (applied, flat_applied) {
            (Ok(_), Ok(_)) => {}
            // A file below is in the place of a folder, or the like: both refuse it.
            (Err(overlay), Err(flat)) => {
                prop_assert_eq!(overlay.to_string(), flat.to_string());
                return Ok(());
            }
            (overlay, flat) => panic!("{overlay:?} but {flat:?}"),
        }
        let shown = without_links(&outline(&flat));
        prop_assert_eq!(difference(&without_links(&trees.mounted(&upper, &lower)), &shown), None);

        // And what the upper tree has changed is a layer that gives the same again.
        let again = trees.apply("again", &base, Form::Flat);
        let changes = overlay_changes(&upper, &lowers).unwrap();
        apply_layer(blob(trees.store(), &changes), "", &Limits::DEFAULT, &again, Form::Flat).unwrap();
        prop_assert_eq!(difference(&without_links(&outline(&again)), &shown), None);
    }
}
