//! Arbitrary layers for property tests.

use std::collections::BTreeMap;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::{Change, Entry, FileTime, Kind, LayerPath, Source};

/// The path, which must be clean.
pub(super) fn path(text: &str) -> LayerPath {
    LayerPath::clean(text.as_bytes()).unwrap()
}

/// An entry of root's, of the time 1,000.
pub(super) fn entry(at: &str, kind: Kind) -> Entry {
    Entry {
        path: path(at),
        kind,
        mode: 0o644,
        uid: 0,
        gid: 0,
        modified: FileTime { seconds: 1_000, nanoseconds: 0 },
        xattrs: BTreeMap::new(),
    }
}

/// A file with that content.
pub(super) fn file(at: &str, content: &[u8]) -> Change {
    let kind = Kind::File { size_bytes: content.len() as u64 };
    Change { entry: entry(at, kind), source: Source::Bytes(content.to_vec()) }
}

/// An entry without content.
pub(super) fn plain(at: &str, kind: Kind) -> Change {
    Change { entry: entry(at, kind), source: Source::None }
}

/// Few names, so that paths meet; with some that archives find hard.
fn name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        20 => "[abc]".prop_map(String::into_bytes),
        2 => "[a-c]\\.[a-c]".prop_map(String::into_bytes),
        1 => Just("\u{fc}n\u{ef}".as_bytes().to_vec()),
        1 => Just(b"\xFF not text \n\\".to_vec()),
        1 => (90_usize..130).prop_map(|length| vec![b'n'; length]),
    ]
}

#[derive(Clone, Debug)]
enum What {
    Kind(Kind),
    File(Vec<u8>),
    Link(usize),
}

fn what(whiteouts: bool) -> impl Strategy<Value = What> {
    prop_oneof![
        6 => Just(What::Kind(Kind::Directory)),
        5 => vec(any::<u8>(), 0..1200).prop_map(What::File),
        2 => vec(1..=255_u8, 1..150).prop_map(|target| What::Kind(Kind::Symlink(target))),
        2 => any::<usize>().prop_map(What::Link),
        1 => (0..4096_u32, 0..1_048_576_u32).prop_map(|(major, minor)| What::Kind(Kind::CharDevice { major, minor })),
        1 => (0..4096_u32, 0..1_048_576_u32).prop_map(|(major, minor)| What::Kind(Kind::BlockDevice { major, minor })),
        1 => Just(What::Kind(Kind::Fifo)),
        if whiteouts { 3 } else { 0 } => Just(What::Kind(Kind::Whiteout)),
    ]
}

/// Some numbers with the borders of their fields.
fn id() -> impl Strategy<Value = u32> {
    prop_oneof![3 => Just(0), 2 => 0..2000_u32, 1 => 2_097_150..2_097_154_u32, 1 => Just(u32::MAX)]
}

prop_compose! {
    fn row(whiteouts: bool)(
        components in vec(name(), 1..5), what in what(whiteouts), mode in 0..0o10000_u32, uid in id(), gid in id(),
        seconds in prop_oneof![0..2_000_000_000_i64, -10..10_i64, 0o77777777770..0o100000000010_i64],
        xattrs in btree_map(Just(b"security.capability".to_vec()), vec(any::<u8>(), 0..40), 0..2),
    ) -> (LayerPath, What, Entry) {
        let path = LayerPath::clean(&components.join(&b'/')).unwrap();
        let modified = FileTime { seconds, nanoseconds: 0 };
        let entry = Entry { path: path.clone(), kind: Kind::Directory, mode, uid, gid, modified, xattrs };
        (path, what, entry)
    }
}

/// Sorted changes that make a layer: what is in a folder may come without it, as layers on top of others do.
pub(super) fn changes(whiteouts: bool) -> impl Strategy<Value = Vec<Change>> {
    vec(row(whiteouts), 0..24).prop_map(|rows| {
        let mut tree: BTreeMap<LayerPath, (What, Entry)> = BTreeMap::new();
        for (path, what, entry) in rows {
            let folder = matches!(what, What::Kind(Kind::Directory));
            let below_file = tree.iter().any(|(other, (kind, _))| {
                path.starts_with(other) && *other != path && !matches!(kind, What::Kind(Kind::Directory))
            });
            let above = tree.keys().any(|other| other.starts_with(&path) && *other != path);
            if !below_file && (folder || !above) {
                tree.insert(path, (what, entry));
            }
        }
        let mut files: Vec<LayerPath> = Vec::new();
        let mut changes = Vec::new();
        for (path, (what, mut entry)) in tree {
            let (kind, source) = match what {
                What::Kind(kind) => (kind, Source::None),
                What::File(content) => {
                    files.push(path);
                    (Kind::File { size_bytes: content.len() as u64 }, Source::Bytes(content))
                }
                What::Link(number) if !files.is_empty() => {
                    (Kind::Hardlink(files[number % files.len()].clone()), Source::None)
                }
                What::Link(_) => (Kind::Fifo, Source::None),
            };
            if kind == Kind::Whiteout {
                // All that a whiteout says is its path.
                (entry.mode, entry.uid, entry.gid) = (0, 0, 0);
                entry.modified = FileTime::default();
                entry.xattrs.clear();
            }
            entry.kind = kind;
            changes.push(Change { entry, source });
        }
        changes
    })
}
