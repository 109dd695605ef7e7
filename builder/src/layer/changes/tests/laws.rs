//! Whatever a step does, its layer gives the tree that the step saw.

use proptest::prelude::*;

use super::*;
use crate::blob::Store;
use crate::layer::{Compression, Form, LayerBuilder, LayerOptions, Limits, apply_layer};

/// Something that a step does. What cannot be done is not.
#[derive(Clone, Debug)]
enum Act {
    Write(String, u8),
    Append(String),
    Folder(String),
    Remove(String),
    Rename(String, String),
    Link(String, String),
    Symlink(String, String),
    Mode(String, u32),
    Owner(String, u32),
    Time(String),
}

fn path() -> impl Strategy<Value = String> {
    proptest::collection::vec("[abc]", 1..4).prop_map(|names| names.join("/"))
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (path(), any::<u8>()).prop_map(|(path, byte)| Act::Write(path, byte)),
        1 => path().prop_map(Act::Append),
        4 => path().prop_map(Act::Folder),
        4 => path().prop_map(Act::Remove),
        3 => (path(), path()).prop_map(|(from, to)| Act::Rename(from, to)),
        2 => (path(), path()).prop_map(|(from, to)| Act::Link(from, to)),
        1 => (path(), path()).prop_map(|(target, path)| Act::Symlink(target, path)),
        1 => (path(), 0..0o10000_u32).prop_map(|(path, mode)| Act::Mode(path, mode)),
        1 => (path(), 0..3_u32).prop_map(|(path, owner)| Act::Owner(path, owner)),
        1 => path().prop_map(Act::Time),
    ]
}

fn perform(root: &Path, act: &Act) {
    let at = |path: &str| root.join(path);
    // Links could lead out of the root.
    let follows = |path: &str| {
        Path::new(path).ancestors().any(|above| root.join(above).is_symlink() && !above.as_os_str().is_empty())
    };
    let _ = match act {
        Act::Write(path, _) | Act::Append(path) | Act::Mode(path, _) | Act::Folder(path) if follows(path) => Ok(()),
        Act::Remove(path) | Act::Owner(path, _) | Act::Time(path) if follows(path) => fs::remove_file(at(path)),
        Act::Rename(from, to) | Act::Link(from, to) if follows(from) || follows(to) => Ok(()),
        Act::Symlink(_, path) if follows(path) => Ok(()),
        // One of two times, so that the content alone can tell.
        Act::Write(path, byte) => {
            fs::write(at(path), [*byte]).and_then(|()| fs::File::options().write(true).open(at(path))).and_then(
                |file| file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(u64::from(byte % 2))),
            )
        }
        Act::Append(path) => fs::File::options().append(true).open(at(path)).map(drop),
        Act::Folder(path) => fs::create_dir_all(at(path)),
        Act::Remove(path) if at(path).is_dir() => fs::remove_dir_all(at(path)),
        Act::Remove(path) => fs::remove_file(at(path)),
        Act::Rename(from, to) => fs::rename(at(from), at(to)),
        Act::Link(from, to) => fs::hard_link(at(from), at(to)),
        Act::Symlink(target, path) => symlink(target, at(path)),
        Act::Mode(path, mode) => fs::set_permissions(at(path), fs::Permissions::from_mode(*mode)),
        Act::Owner(path, owner) => chown(at(path), Some(*owner), None),
        Act::Time(path) => fs::File::open(at(path)).and_then(|file| file.set_modified(std::time::UNIX_EPOCH)),
    };
}

/// All but the numbers of links, and the times of folders, which do not count as changes.
fn tree(root: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut ahead = vec![root.to_owned()];
    while let Some(folder) = ahead.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let at = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&at).unwrap();
            let what = if metadata.is_dir() {
                ahead.push(at.clone());
                "folder".to_owned()
            } else if metadata.is_symlink() {
                format!("-> {:?}", fs::read_link(&at).unwrap())
            } else {
                format!("{:?} @{}", fs::read(&at).unwrap(), metadata.mtime())
            };
            let path = at.strip_prefix(root).unwrap();
            lines.push(format!("{} {what} {:o} {}", path.display(), metadata.mode() & 0o7777, metadata.uid()));
        }
    }
    lines.sort();
    lines
}

/// What a layer of these changes makes of a tree of those acts.
fn applied(bench: &Bench, base: &[Act], changes: &[Change], name: &str) -> Vec<String> {
    let folder = bench.path(name);
    fs::create_dir(&folder).unwrap();
    let store = Store::open(&folder.join("store")).unwrap();
    let options = LayerOptions { compression: Compression::Uncompressed, ..LayerOptions::default() };
    let mut builder = LayerBuilder::new(&store, options).unwrap();
    for change in changes {
        builder.add(change).unwrap();
    }
    let blob = store.open_blob(&builder.finish().unwrap().digest).unwrap();
    let root = folder.join("root");
    fs::create_dir(&root).unwrap();
    base.iter().for_each(|act| perform(&root, act));
    apply_layer(blob, "", &Limits::DEFAULT, &root, Form::Flat).unwrap();
    tree(&root)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_layer_of_a_step_gives_the_tree_that_the_step_left(
        base in proptest::collection::vec(act(), 0..12), acts in proptest::collection::vec(act(), 0..16),
    ) {
        let Some(bench) = Bench::empty() else { return Ok(()) };
        base.iter().for_each(|act| perform(&bench.path("lower"), act));
        let mut seen = Vec::new();
        bench.step(|root| {
            acts.iter().for_each(|act| perform(root, act));
            seen = tree(root);
        });
        let changes = bench.changes().unwrap();
        prop_assert_eq!(&applied(&bench, &base, &changes, "overlay"), &seen);

        // The upper folder itself, once it is tidy, shows the same, and has the same changes.
        tidy_upper(&bench.path("upper"), &bench.lowers()).unwrap();
        prop_assert_eq!(bench.changes().unwrap(), changes);
        bench.step(|root| assert_eq!(tree(root), seen));

        // The same step in a tree of its own.
        let root = bench.path("lower");
        let before = Manifest::of(&root).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(10));
        acts.iter().for_each(|act| perform(&root, act));
        let left = tree(&root);
        prop_assert_eq!(&applied(&bench, &base, &before.changes(&root).unwrap(), "manifest"), &left);
    }
}
