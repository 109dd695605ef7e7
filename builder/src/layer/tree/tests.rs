use std::cell::RefCell;
use std::rc::Rc;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::layer::apply::{Form, apply_layer};
use crate::layer::sample::{changes, file, path, plain};
use crate::layer::{Change, Source};

fn index(changes: &[Change]) -> LayerIndex {
    let mut index = LayerIndex::default();
    for Change { entry, source } in changes {
        let content = match source {
            Source::Bytes(bytes) => Some(crate::blob::ContentHash::of(bytes)),
            _ => None,
        };
        if let (true, Source::Bytes(bytes)) = (crate::layer::is_account_file(&entry.path), source) {
            index.accounts.insert(entry.path.clone(), String::from_utf8(bytes.clone()).unwrap());
        }
        index.entries.push(IndexEntry { entry: entry.clone(), content });
    }
    index
}

fn tree(layers: &[&[Change]]) -> Tree {
    let mut tree = Tree::new();
    for (number, changes) in layers.iter().enumerate() {
        tree.push(&index(changes), number);
    }
    tree
}

/// One line an entry: path, kind, layer.
fn outline(tree: &Tree) -> String {
    tree.iter()
        .map(|(path, node)| {
            assert_eq!(*path, node.entry.path);
            let kind = match &node.entry.kind {
                Kind::Directory => "/".to_owned(),
                Kind::File { size_bytes } => format!(" {size_bytes}"),
                Kind::Symlink(target) => format!(" -> {}", String::from_utf8_lossy(target)),
                kind => format!(" {kind:?}"),
            };
            format!("{path}{kind} ({})\n", node.layer)
        })
        .collect()
}

fn folder(at: &str) -> Change {
    plain(at, Kind::Directory)
}

fn link(at: &str, to: &str) -> Change {
    plain(at, Kind::Symlink(to.as_bytes().to_vec()))
}

#[test]
fn layers_are_merged() {
    let base = [folder("a"), file("a/x", b"1"), file("a/y", b"1"), folder("b"), file("b/z", b"1"), file("c", b"1")];
    let next = [
        folder("a"),
        file("a/x", b"22"),
        plain("a/y", Kind::Whiteout),
        file("b", b"22"),
        folder("c"),
        file("c/d", b"22"),
    ];
    insta::assert_snapshot!(outline(&tree(&[&base, &next])), @r"
    /a/ (1)
    /a/x 2 (1)
    /b 2 (1)
    /c/ (1)
    /c/d 2 (1)
    ");
}

#[test]
fn a_whiteout_hides_a_folder_with_all_in_it_and_nothing_beside_it() {
    let base = [folder("a"), file("a/x", b""), file("a.b", b""), file("a/y/z", b"")];
    assert_eq!(outline(&tree(&[&base, &[plain("a", Kind::Whiteout)]])), "/a.b 0 (0)\n");
}

#[test]
fn an_opaque_folder_hides_what_lower_layers_have_in_it_wherever_it_stands() {
    let base = [folder("a"), file("a/old", b"")];
    let next = [folder("a"), file("a/new", b""), plain("a", Kind::Opaque)];
    assert_eq!(outline(&tree(&[&base, &next])), "/a/ (1)\n/a/new 0 (1)\n");
    let same = [plain("a/new", Kind::Whiteout), file("a/new", b"")];
    assert_eq!(outline(&tree(&[&base, &same])), "/a/ (0)\n/a/new 0 (1)\n/a/old 0 (0)\n");
}

#[test]
fn folders_that_no_layer_has_are_made() {
    let tree = tree(&[&[file("a/b/c", b"")]]);
    assert_eq!(outline(&tree), "/a/ (0)\n/a/b/ (0)\n/a/b/c 0 (0)\n");
    assert_eq!(tree.get(&path("a/b")).unwrap().entry.mode, 0o755);
}

#[test]
fn an_entry_below_a_link_goes_where_the_link_leads() {
    let base =
        [link("bin", "usr/bin"), link("lib", "/usr/lib"), folder("usr"), folder("usr/bin"), file("usr/bin/old", b"")];
    let next = [file("bin/new", b"12"), plain("bin/old", Kind::Whiteout), file("lib/so", b"")];
    insta::assert_snapshot!(outline(&tree(&[&base, &next])), @r"
    /bin -> usr/bin (0)
    /lib -> /usr/lib (0)
    /usr/ (0)
    /usr/bin/ (0)
    /usr/bin/new 2 (1)
    /usr/lib/ (1)
    /usr/lib/so 0 (1)
    ");
    let tree = tree(&[&base, &next]);
    let node = tree.get(&path("usr/bin/new")).unwrap();
    assert_eq!(node.origin, Some(Origin { layer: 1, number: 0, path: path("bin/new") }));
}

#[test]
fn a_folder_takes_the_place_of_a_link() {
    let base = [link("bin", "usr/bin"), file("usr/bin/x", b"")];
    let next = [folder("bin"), file("bin/y", b"")];
    insta::assert_snapshot!(outline(&tree(&[&base, &next])), @r"
    /bin/ (1)
    /bin/y 0 (1)
    /usr/ (0)
    /usr/bin/ (0)
    /usr/bin/x 0 (0)
    ");
}

#[test]
fn a_hard_link_keeps_the_file_when_its_first_name_goes() {
    let base = [file("a", b"123"), plain("b", Kind::Hardlink(path("a")))];
    let tree = tree(&[&base, &[file("a", b"4")]]);
    assert_eq!(outline(&tree), "/a 1 (1)\n/b 3 (0)\n");
    let node = tree.get(&path("b")).unwrap();
    assert_eq!(node.content, Some(crate::blob::ContentHash::of(b"123")));
    assert_eq!(node.origin, Some(Origin { layer: 0, number: 0, path: path("a") }));
}

#[test]
fn paths_are_resolved_inside_the_root() {
    let base = [
        folder("a"),
        link("a/abs", "/b/c"),
        link("a/up", "../../../b"),
        link("b/here", "./"),
        file("file", b""),
        link("loop", "loop2"),
        link("loop2", "loop"),
        link("missing", "nowhere/at/all"),
    ];
    let tree = tree(&[&base]);
    let resolve = |at: &str, last| tree.resolve(&path(at), last).map(|path| path.to_string());
    assert_eq!(resolve("a/abs/d", true).unwrap(), "/b/c/d");
    assert_eq!(resolve("a/up/x", true).unwrap(), "/b/x");
    assert_eq!(resolve("a/up/here/here/x", true).unwrap(), "/b/x");
    assert_eq!(resolve("a/up", false).unwrap(), "/a/up");
    assert_eq!(resolve("a/up", true).unwrap(), "/b");
    assert_eq!(resolve("missing/x", true).unwrap(), "/nowhere/at/all/x");
    assert_eq!(resolve("", true).unwrap(), "/");
    assert_eq!(resolve("loop", true).unwrap_err().to_string(), "/loop leads through more than 40 symbolic links");
    assert_eq!(resolve("loop", false).unwrap(), "/loop");
    assert_eq!(resolve("file/x", true).unwrap_err().to_string(), "/file/x leads through /file, which is no folder");
}

#[test]
fn children_come_by_name_and_without_what_is_below_them() {
    let tree = tree(&[&[folder("a"), file("a/b/deep/er", b""), file("a/b.c", b""), file("a/c", b""), file("b", b"")]]);
    let names = |at: &str| -> Vec<String> {
        tree.children(&path(at)).map(|(name, _)| String::from_utf8_lossy(name).into_owned()).collect()
    };
    assert_eq!(names("a"), ["b", "b.c", "c"]);
    assert_eq!(names(""), ["a", "b"]);
    assert!(names("a/c").is_empty() && names("none").is_empty());
}

#[test]
fn account_files_are_found_through_links_and_follow_the_layers() {
    let base = [link("etc/passwd", "../usr/lib/passwd"), file("usr/lib/passwd", b"app:x:1:1\n")];
    let one = tree(&[&base]);
    assert_eq!(one.passwd().as_deref(), Some("app:x:1:1\n"));
    assert_eq!(one.group(), None);
    let two = tree(&[&base, &[file("etc/passwd", b"new:x:2:2\n")]]);
    assert_eq!(two.passwd().as_deref(), Some("new:x:2:2\n"));
    let gone = tree(&[&base, &[plain("etc/passwd", Kind::Whiteout)]]);
    assert_eq!(gone.passwd(), None);
}

/// A file system in memory, as nested folders: what unpacking layer by layer would leave.
#[derive(Clone)]
enum Disk {
    Folder(u32, Names),
    Other(Kind, Option<crate::blob::ContentHash>),
}
type Names = Rc<RefCell<BTreeMap<Vec<u8>, Disk>>>;

fn walk(names: &Names, path: &LayerPath) -> Option<Names> {
    let mut here = Rc::clone(names);
    for component in path.components() {
        let there = here.borrow().get(component).cloned();
        let Some(Disk::Folder(_, next)) = there else { return None };
        here = next;
    }
    Some(here)
}

fn make(names: &Names, path: &LayerPath) -> Names {
    let mut here = Rc::clone(names);
    for component in path.components() {
        let there = here.borrow().get(component).cloned();
        let next = match there {
            Some(Disk::Folder(_, next)) => next,
            _ => Names::default(),
        };
        let mode = if let Some(Disk::Folder(mode, _)) = here.borrow().get(component) { *mode } else { 0o755 };
        here.borrow_mut().insert(component.to_vec(), Disk::Folder(mode, Rc::clone(&next)));
        here = next;
    }
    here
}

fn unpack(root: &Names, changes: &[Change]) {
    for Change { entry, .. } in changes {
        if entry.kind == Kind::Whiteout
            && let Some(folder) = walk(root, &entry.path.parent().unwrap())
        {
            folder.borrow_mut().remove(entry.path.name().unwrap());
        }
    }
    for Change { entry, source } in changes {
        if entry.kind == Kind::Whiteout {
            continue;
        }
        let folder = make(root, &entry.path.parent().unwrap());
        let name = entry.path.name().unwrap().to_vec();
        let there = folder.borrow().get(&name).cloned();
        let new = match (&entry.kind, there) {
            (Kind::Directory, Some(Disk::Folder(_, below))) => Disk::Folder(entry.mode, below),
            (Kind::Directory, _) => Disk::Folder(entry.mode, Names::default()),
            (Kind::Hardlink(target), _) => {
                let folder = walk(root, &target.parent().unwrap()).unwrap();
                folder.borrow()[target.name().unwrap()].clone()
            }
            (kind, _) => {
                let content =
                    if let Source::Bytes(bytes) = source { Some(crate::blob::ContentHash::of(bytes)) } else { None };
                Disk::Other(kind.clone(), content)
            }
        };
        folder.borrow_mut().insert(name, new);
    }
}

fn listing(names: &Names, at: &LayerPath, lines: &mut Vec<String>) {
    for (name, disk) in names.borrow().iter() {
        let path = at.join(name);
        match disk {
            Disk::Folder(mode, below) => {
                lines.push(format!("{path:?} {mode:o}/"));
                listing(below, &path, lines);
            }
            Disk::Other(kind, content) => lines.push(format!("{path:?} {kind:?} {content:?}")),
        }
    }
}

/// Links on the way are the other tests' matter: the model does not follow them.
fn without_links(changes: Vec<Change>) -> Vec<Change> {
    let turn = |mut change: Change| {
        if let Kind::Symlink(_) = change.entry.kind {
            change.entry.kind = Kind::Fifo;
        }
        change
    };
    changes.into_iter().map(turn).collect()
}

/// Links that lead somewhere, as the names of samples are few; and owners that every system has.
fn with_near_links(changes: Vec<Change>) -> Vec<Change> {
    let turn = |mut change: Change| {
        if let Kind::Symlink(target) = &change.entry.kind {
            let near: [&[u8]; 8] = [b"a", b"b/c", b"/c", b"../a", b".", b"/", b"../../b/./a", b"c/"];
            change.entry.kind = Kind::Symlink(near[usize::from(target[0]) % near.len()].to_vec());
        }
        (change.entry.uid, change.entry.gid) = (0, 0);
        change.entry.xattrs.clear();
        change
    };
    changes.into_iter().map(turn).collect()
}

/// Kind, mode and content of everything below a real folder, with the words of [`shown`].
fn on_disk(root: &std::path::Path, at: &LayerPath, lines: &mut Vec<String>) {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let folder = root.join(at.as_path());
    let mut names: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap()).collect();
    names.sort_by_key(std::fs::DirEntry::file_name);
    for entry in names {
        let path = at.join(entry.file_name().as_bytes());
        let metadata = entry.metadata().unwrap();
        let kind = entry.file_type().unwrap();
        let what = if kind.is_dir() {
            "folder".to_owned()
        } else if kind.is_symlink() {
            format!("link {:?}", std::fs::read_link(entry.path()).unwrap().as_os_str().as_bytes())
        } else if kind.is_file() {
            format!("file {}", crate::blob::ContentHash::of(&std::fs::read(entry.path()).unwrap()))
        } else if kind.is_fifo() {
            "pipe".to_owned()
        } else {
            "device".to_owned()
        };
        let mode = if kind.is_symlink() { 0o777 } else { metadata.mode() & 0o777 };
        lines.push(format!("{path:?} {mode:o} {what}"));
        if kind.is_dir() {
            on_disk(root, &path, lines);
        }
    }
}

fn shown(tree: &Tree) -> Vec<String> {
    let line = |(path, node): (&LayerPath, &Node)| {
        let (what, mode) = match &node.entry.kind {
            Kind::Directory => ("folder".to_owned(), node.entry.mode),
            Kind::Symlink(target) => (format!("link {target:?}"), 0o777),
            Kind::File { .. } => (format!("file {}", node.content.as_ref().unwrap()), node.entry.mode),
            Kind::Fifo => ("pipe".to_owned(), node.entry.mode),
            _ => ("device".to_owned(), node.entry.mode),
        };
        format!("{path:?} {:o} {what}", mode & 0o777)
    };
    tree.iter().map(line).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Needs root for devices and for folders without permissions; elsewhere it says so.
    #[test]
    fn the_view_is_what_our_own_unpacking_leaves(layers in vec(changes(true).prop_map(with_near_links), 1..4)) {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: devices cannot be made here");
            return Ok(());
        }
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let mut tree = Tree::new();
        for (number, changes) in layers.iter().enumerate() {
            let mut tar = crate::layer::TarWriter::new(Vec::new());
            for Change { entry, source } in changes {
                let content = if let Source::Bytes(bytes) = source { &bytes[..] } else { &[] };
                tar.append(entry, &mut &*content).unwrap();
            }
            let tar = tar.finish().unwrap();
            let applied = apply_layer(&tar[..], "", &crate::layer::Limits::DEFAULT, root, Form::Flat);
            // What cannot be unpacked is refused there; the view shows something all the same.
            prop_assume!(applied.is_ok_and(|applied| applied.left_out.is_empty()));
            tree.push(&index(changes), number);
        }
        let mut disk = Vec::new();
        on_disk(root, &LayerPath::root(), &mut disk);
        prop_assert_eq!(shown(&tree), disk);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_view_is_what_unpacking_leaves(layers in vec(changes(true).prop_map(without_links), 1..4)) {
        let root = Names::default();
        let mut tree = Tree::new();
        for (number, changes) in layers.iter().enumerate() {
            unpack(&root, changes);
            tree.push(&index(changes), number);
        }
        let mut expected = Vec::new();
        listing(&root, &LayerPath::root(), &mut expected);
        let found: Vec<_> = tree.iter().map(|(path, node)| match &node.entry.kind {
            Kind::Directory => format!("{path:?} {:o}/", node.entry.mode),
            kind => format!("{path:?} {kind:?} {:?}", node.content),
        }).collect();
        prop_assert_eq!(found, expected);
        for (path, _) in tree.iter() {
            prop_assert!(path.parent().is_none_or(|parent| parent.is_root() || tree.get(&parent).is_some()));
        }
    }

    #[test]
    fn any_link_resolves_or_is_an_error(layers in vec(changes(true), 1..4)) {
        let mut tree = Tree::new();
        for (number, changes) in layers.iter().enumerate() {
            tree.push(&index(changes), number);
        }
        for (path, _) in tree.iter() {
            if let Ok(target) = tree.resolve(path, true) {
                prop_assert!(!target.components().any(|component| component == b".."));
            }
        }
    }
}
