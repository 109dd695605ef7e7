use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::*;
use crate::context::FileKind;

/// A folder with a context in `in/` and something that no build may see in `out/`.
struct Tree(tempfile::TempDir);

impl Tree {
    /// `a/b` is a file whose content is its path; `a/` a folder; `a -> b` a link.
    fn new(entries: &[&str]) -> Self {
        let tree = Self(tempfile::tempdir().unwrap());
        fs::create_dir(tree.0.path().join("in")).unwrap();
        fs::create_dir(tree.0.path().join("out")).unwrap();
        fs::write(tree.0.path().join("out/secret"), "secret").unwrap();
        for entry in entries {
            let (name, target) = entry.split_once(" -> ").map_or((*entry, None), |(name, to)| (name, Some(to)));
            let path = tree.path(name);
            let folder = if name.ends_with('/') { path.as_path() } else { path.parent().unwrap() };
            fs::create_dir_all(folder).unwrap();
            match target {
                Some(target) => symlink(target, &path).unwrap(),
                None if name.ends_with('/') => {}
                None => fs::write(&path, name).unwrap(),
            }
        }
        tree
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join("in").join(name)
    }

    fn open(&self, rules: &str) -> Context {
        Context::open(&self.path(""), Ignore::parse(rules, ".dockerignore").unwrap()).unwrap()
    }

    fn select(&self, rules: &str, pattern: &str) -> String {
        show(self.open(rules).select(pattern))
    }
}

fn show(selected: Result<Selection, ContextError>) -> String {
    let selection = match selected {
        Ok(selection) => selection,
        Err(error) => return format!("error: {error}"),
    };
    let mut lines = Vec::new();
    for source in &selection.sources {
        let names: Vec<String> = source
            .entries
            .iter()
            .map(|entry| {
                let relative = String::from_utf8_lossy(&entry.relative).into_owned();
                match &entry.kind {
                    FileKind::File => relative,
                    FileKind::Directory => format!("{relative}/"),
                    FileKind::Symlink(to) => format!("{relative}->{}", String::from_utf8_lossy(to)),
                    other => format!("{relative} {other:?}"),
                }
            })
            .collect();
        lines.push(format!("{}: {}", String::from_utf8_lossy(&source.name), names.join(" ")));
    }
    lines.extend(selection.skipped_sockets.iter().map(|name| format!("socket {}", String::from_utf8_lossy(name))));
    lines.join("\n")
}

#[test]
fn a_listing_is_sorted_by_component() {
    let tree = Tree::new(&["a/b", "a.b", "a/a/x", "z", "a/link -> b", "empty/"]);
    assert_eq!(tree.select("", ""), ": / a/ a/a/ a/a/x a/b a/link->b a.b empty/ z");
    assert_eq!(tree.select("", "a"), "a: / a/ a/x b link->b");
    assert_eq!(tree.select("", "z"), "z: ");
    assert_eq!(tree.select("", "a/"), "a: / a/ a/x b link->b");
}

#[test]
fn wildcards_select_names_in_order_and_nothing_is_no_error() {
    let tree = Tree::new(&["b.txt", "a.txt", "c.rs", "d/x.txt", "d/e/y.txt", "f -> d"]);
    assert_eq!(tree.select("", "*.txt"), "a.txt: \nb.txt: ");
    assert_eq!(tree.select("", "*/*.txt"), "d/x.txt: ");
    assert_eq!(tree.select("", "d/*"), "d/e: / y.txt\nd/x.txt: ");
    assert_eq!(tree.select("", "*.none"), "");
    assert_eq!(tree.select("", "none/*"), "");
    assert_eq!(tree.select("", "[a"), "error: malformed pattern `[a`: a `[` without its `]`");
    // Links before the first wildcard are followed, and a matched link is too.
    assert_eq!(tree.select("", "f/*.txt"), "f/x.txt: ");
    assert_eq!(tree.select("", "f*"), "f: / e/ e/y.txt x.txt");
    assert_eq!(tree.select("b.txt\n", "*.txt"), "a.txt: ");
    let tree = Tree::new(&["d1", "dang -> nowhere"]);
    assert_eq!(
        tree.select("", "d*"),
        "error: `dang` leads through a symbolic link: `nowhere` is not in the build context"
    );
    assert_eq!(tree.select("dang\n", "d*"), "d1: ");
}

#[test]
fn links_never_lead_out_of_the_context() {
    let tree = Tree::new(&[
        "in_dir/file",
        "absolute -> /in_dir",
        "up -> ../../../in_dir",
        "escape -> ../out",
        "out_file -> ../out/secret",
        "passwd -> /etc/passwd",
        "chain -> absolute/file",
        "loop -> loop",
        "sub/back -> ..",
    ]);
    assert_eq!(tree.select("", "absolute"), "absolute: / file");
    assert_eq!(tree.select("", "up"), "up: / file");
    assert_eq!(tree.select("", "chain"), "chain: ");
    assert_eq!(tree.select("", "sub/back/in_dir"), "sub/back/in_dir: / file");
    assert_eq!(
        tree.select("", "escape/secret"),
        "error: `escape/secret` leads through a symbolic link: `out` is not in the build context"
    );
    assert_eq!(
        tree.select("", "out_file"),
        "error: `out_file` leads through a symbolic link: `out` is not in the build context"
    );
    assert_eq!(
        tree.select("", "passwd"),
        "error: `passwd` leads through a symbolic link: `etc` is not in the build context"
    );
    assert_eq!(tree.select("", "loop"), "error: `loop` leads through more than 40 symbolic links");
    assert_eq!(tree.select("", "../../in_dir"), "../../in_dir: / file");
}

#[test]
fn a_miss_says_what_hid_it_or_what_is_close() {
    let tree = Tree::new(&["src/main.rs", "debug.log", "logs/x", "link -> debug.log"]);
    let rules = "# nothing\n*.log\nlogs\n";
    assert_eq!(tree.select(rules, "debug.log"), "error: `debug.log` is hidden by rule `*.log` at .dockerignore:2");
    assert_eq!(tree.select(rules, "logs"), "error: `logs` is hidden by rule `logs` at .dockerignore:3");
    assert_eq!(tree.select(rules, "logs/x"), "error: `logs/x` is hidden by rule `logs` at .dockerignore:3");
    assert_eq!(tree.select(rules, "link"), "error: `link` is hidden by rule `*.log` at .dockerignore:2");
    assert_eq!(tree.select(rules, "scr"), "error: `scr` is not in the build context; did you mean `src`?");
    assert_eq!(
        tree.select(rules, "src/mian.rs"),
        "error: `src/mian.rs` is not in the build context; did you mean `src/main.rs`?"
    );
    assert_eq!(tree.select(rules, "src/main.rs/x"), "error: `src/main.rs/x` is not in the build context");
    assert_eq!(tree.select(rules, "debug.lgo"), "error: `debug.lgo` is not in the build context");
}

#[test]
fn what_is_taken_back_brings_its_folders() {
    let tree = Tree::new(&["a/b/keep", "a/b/drop", "a/c/drop", "d/keep"]);
    assert_eq!(tree.select("*\n!a/b/keep\n", ""), ": / a/ a/b/ a/b/keep");
    assert_eq!(tree.select("*\n!**/keep\n", ""), ": / a/ a/b/ a/b/keep d/ d/keep");
    assert_eq!(tree.select("*\n!a/b/keep\n", "a"), "a: / b/ b/keep");
    assert_eq!(tree.select("*\n!a/b/keep\n", "d"), "error: `d` is hidden by rule `*` at .dockerignore:1");
    assert_eq!(tree.select("a/b\n!a/b/keep\na/c\n", "a/b"), "a/b: / keep");
}

#[test]
fn exclusions_are_relative_to_the_source() {
    let tree = Tree::new(&["a/b/x.log", "a/b/y", "a/x.log", "x.log"]);
    let exclude = |patterns: &[&str]| Filter::without(patterns.iter().copied()).unwrap();
    let context = tree.open("");
    assert_eq!(show(context.select_of("a", &exclude(&["*.log"]))), "a: / b/ b/x.log b/y");
    assert_eq!(show(context.select_of("a", &exclude(&["**/*.log"]))), "a: / b/ b/y");
    assert_eq!(show(context.select_of("a", &exclude(&["b", "!b/y"]))), "a: / b/ b/y x.log");
    assert_eq!(show(context.select_of("x.log", &exclude(&["*.log"]))), "x.log: ");
}

#[test]
fn metadata_is_as_on_disk() {
    let tree = Tree::new(&["f"]);
    fs::set_permissions(tree.path("f"), fs::Permissions::from_mode(0o4751)).unwrap();
    fs::hard_link(tree.path("f"), tree.path("g")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(tree.path("s")).unwrap();
    let selection = tree.open("").select("").unwrap();
    let entries = &selection.sources[0].entries;
    assert_eq!(entries.len(), 3);
    let (f, g) = (&entries[1], &entries[2]);
    assert_eq!((f.mode, f.size_bytes, f.links), (0o4751, 1, 2));
    assert_eq!((f.device, f.inode), (g.device, g.inode));
    assert!(f.modified_seconds > 1_600_000_000);
    assert_eq!(selection.skipped_sockets, [b"s"]);
}

#[test]
fn names_need_not_be_text() {
    let tree = Tree::new(&[]);
    fs::write(tree.path("").join(OsStr::from_bytes(b"a\xff")), "").unwrap();
    let selection = tree.open("").select("a?").unwrap();
    assert_eq!(selection.sources[0].name, b"a\xff");
}

#[test]
fn a_deep_tree_is_listed() {
    let tree = Tree::new(&[]);
    let deep = "d/".repeat(1500);
    fs::create_dir_all(tree.path(&deep)).unwrap();
    assert_eq!(tree.open("").select("").unwrap().sources[0].entries.len(), 1501);
    assert_eq!(tree.open("").select("*").unwrap().sources[0].entries.len(), 1500);
    assert_eq!(tree.open("").select(&"*/".repeat(50)).unwrap().sources[0].entries.len(), 1451);
}

#[test]
fn what_is_no_folder_is_no_context() {
    let tree = Tree::new(&["f"]);
    for name in ["f", "none"] {
        let error = Context::open(&tree.path(name), Ignore::default()).unwrap_err();
        assert!(matches!(error, ContextError::NotADirectory(_) | ContextError::NotThere { .. }), "{error}");
    }
}

#[test]
fn a_pattern_below_a_source_brings_the_folders_above_what_it_matches() {
    let tree = Tree::new(&["a/b/f", "a/b/g", "a/c/f", "a/empty/", "f", "ld -> a", "hidden/f"]);
    let context = tree.open("hidden\n");
    let only = |base: &str, pattern: &str| show(context.select_of(base, &Filter::default().only(pattern).unwrap()));
    assert_eq!(only("", "a/b/f"), ": / a/ a/b/ a/b/f");
    assert_eq!(only("", "**/f"), ": / a/ a/b/ a/b/f a/c/ a/c/f f");
    assert_eq!(only("", "a/b"), ": / a/ a/b/ a/b/f a/b/g");
    assert_eq!(only("", "a/e*"), ": / a/ a/empty/");
    assert_eq!(only("", "ld"), ": / ld->a");
    assert_eq!(only("", "*.none"), ": /");
    assert_eq!(only("a", "b/f"), "a: / b/ b/f");
    assert_eq!(only("a/*", "f"), "a/b: / f\na/c: / f\na/empty: /");
    assert_eq!(only("a", "b/none"), "error: `a/b/none` is not in the build context");
    assert_eq!(only("", "hidden/f"), "error: `hidden/f` is hidden by rule `hidden` at .dockerignore:1");
    let behind = "is left out by `--exclude`, or is behind a symbolic link, which `--parents` does not follow";
    assert_eq!(only("", "ld/b/f"), format!("error: `ld/b/f` {behind}"));
}

#[test]
fn the_store_is_left_out_under_any_name() {
    let tree = Tree::new(&["a/file", "a/kept/blobs/x.rs", "a/link -> kept", "b"]);
    let without = |rules: &str, store: &Path| tree.open(rules).without_store(store);
    let store = tree.path("a/kept");
    let all = without("", &store);
    assert_eq!(show(all.select("b")), "b: ");
    assert_eq!(all.store_left_out(), None, "nobody has asked for it");
    assert_eq!(show(all.select("")), ": / a/ a/file a/link->kept b");
    assert_eq!(all.store_left_out().as_deref(), Some("a/kept"));
    // By what it is: here by another path to it.
    assert_eq!(show(without("", &tree.path("a/link")).select("a")), "a: / file link->kept");
    let wild = without("", &store);
    assert_eq!(show(wild.select("a/k*")), "");
    assert_eq!(show(wild.select("a/*/blobs")), "");
    assert_eq!(wild.store_left_out().as_deref(), Some("a/kept"));
    for path in ["a/kept", "a/kept/blobs", "a/link", "a/link/blobs/x.rs"] {
        let told = show(wild.select(path));
        assert!(told.starts_with(&format!("error: `{path}` is in the folder where images and ")), "{told}");
    }
    // What rules take back is not taken either, and that they hide the store is enough.
    let hidden = without("**\n!**/*.rs\n!b", &store);
    assert_eq!(show(hidden.select("")), ": / b");
    assert_eq!(hidden.store_left_out(), None);
    assert_eq!(show(without("", &tree.path("nowhere")).select("b")), "b: ");
}
