//! Every room uses only the rooms below it, and pure rooms do no I/O.
//!
//! A new arrow is its own commit with a reason, and this table is edited there and nowhere else.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::Visit;

/// Each room with the rooms that it may name; lowest first. `cli` stands for the binary too.
const MAY_USE: &[(&str, &[&str])] = &[
    ("event", &[]),
    // Docker's small notations stand in Dockerfiles, addresses and flags, and mean the same everywhere.
    ("notation", &[]),
    ("stop", &[]),
    ("task", &[]),
    ("blob", &["stop"]),
    ("dockerfile", &["notation"]),
    ("owners", &[]),
    ("sandbox", &["owners", "stop"]),
    ("ssh_agent", &[]),
    // What `verify` names, and what commands leave that `--normalize` mends: one table.
    ("suspects", &[]),
    ("context", &[]),
    ("image", &[]),
    ("secrets", &[]),
    ("layer", &["blob", "owners", "secrets", "stop"]),
    ("snapshot", &["blob", "layer", "owners", "sandbox", "stop"]),
    ("graph", &["dockerfile", "image", "notation"]),
    ("remote", &["blob", "image", "event", "task"]),
    ("fetch", &["blob", "event", "notation", "stop", "task"]),
    ("cache", &["graph", "layer", "image", "blob", "sandbox", "secrets"]),
    ("cache_mount", &["blob", "owners"]),
    (
        "execute",
        &[
            "event",
            "blob",
            "secrets",
            "sandbox",
            "snapshot",
            "context",
            "image",
            "layer",
            "graph",
            "remote",
            "fetch",
            "cache",
            "cache_mount",
            "owners",
            "stop",
            "suspects",
            "task",
        ],
    ),
    ("export", &["event", "blob", "image", "layer"]),
    ("prune", &["blob", "image", "notation"]),
    (
        "pipeline",
        &[
            "event",
            "notation",
            "blob",
            "dockerfile",
            "secrets",
            "sandbox",
            "snapshot",
            "context",
            "image",
            "layer",
            "graph",
            "remote",
            "fetch",
            "cache",
            "execute",
            "export",
            "prune",
            "stop",
            "task",
        ],
    ),
    (
        "cli",
        &[
            "event",
            "notation",
            "blob",
            "image",
            "layer",
            "remote",
            "export",
            "prune",
            "pipeline",
            "sandbox",
            "secrets",
            "ssh_agent",
            "stop",
            "suspects",
            "task",
        ],
    ),
];

/// Rooms that turn values into values: no files, environment, clocks or threads of a runtime.
const PURE: &[&str] = &["event", "notation", "dockerfile", "image", "graph", "suspects"];

/// What a pure room may not name.
const IMPURE: &[&[&str]] = &[
    &["std", "fs"],
    &["std", "env"],
    &["std", "net"],
    &["std", "process"],
    &["std", "time", "SystemTime"],
    &["tokio"],
    &["rustix"],
];

#[test]
fn rooms_use_only_the_rooms_below_them() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    let mut rooms_seen = BTreeSet::new();
    for file in rust_files(&source) {
        let relative = file.strip_prefix(&source).unwrap();
        let first = relative.iter().next().unwrap().to_str().unwrap();
        let room = first.trim_end_matches(".rs");
        if room == "lib" || room == "main" {
            continue;
        }
        let Some((_, allowed)) = MAY_USE.iter().find(|(name, _)| *name == room) else {
            wrong.push(format!("{}: room `{room}` is not in the table", relative.display()));
            continue;
        };
        rooms_seen.insert(room.to_owned());
        for path in paths_named(&file) {
            let target = match path.first().map(String::as_str) {
                Some("crate" | "fluyt") => path.get(1),
                _ => None,
            };
            if let Some(target) = target
                && target != room
                && MAY_USE.iter().any(|(name, _)| name == target)
                && !allowed.contains(&target.as_str())
            {
                wrong.push(format!("{}: `{room}` uses `{target}`", relative.display()));
            }
            if PURE.contains(&room) && IMPURE.iter().any(|banned| starts_with(&path, banned)) {
                wrong.push(format!("{}: pure room `{room}` names `{}`", relative.display(), path.join("::")));
            }
        }
    }
    wrong.sort();
    wrong.dedup();
    assert!(wrong.is_empty(), "arrows that the table does not allow:\n{}", wrong.join("\n"));
    assert_eq!(rooms_seen.len(), MAY_USE.len(), "the table names a room that is not there");
}

#[test]
fn the_table_itself_points_downwards() {
    for (index, (room, allowed)) in MAY_USE.iter().enumerate() {
        for target in *allowed {
            let place = MAY_USE.iter().position(|(name, _)| name == target);
            assert!(place.is_some_and(|place| place < index), "`{room}` may not stand below `{target}`");
        }
    }
}

fn starts_with(path: &[String], banned: &[&str]) -> bool {
    path.len() >= banned.len() && path.iter().zip(banned).all(|(a, b)| a == b)
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// Every path that a file names, grouped imports taken apart; tests inside the file count too.
fn paths_named(file: &Path) -> Vec<Vec<String>> {
    let text = fs::read_to_string(file).unwrap();
    let tree = syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let mut paths = Paths(Vec::new());
    paths.visit_file(&tree);
    paths.0
}

struct Paths(Vec<Vec<String>>);

impl Paths {
    fn use_tree(&mut self, prefix: &[String], tree: &syn::UseTree) {
        let with = |name: &syn::Ident| {
            let mut path = prefix.to_vec();
            path.push(name.to_string());
            path
        };
        match tree {
            syn::UseTree::Path(node) => self.use_tree(&with(&node.ident), &node.tree),
            syn::UseTree::Name(node) => self.0.push(with(&node.ident)),
            syn::UseTree::Rename(node) => self.0.push(with(&node.ident)),
            syn::UseTree::Glob(_) => self.0.push(prefix.to_vec()),
            syn::UseTree::Group(node) => node.items.iter().for_each(|item| self.use_tree(prefix, item)),
        }
    }
}

impl<'ast> Visit<'ast> for Paths {
    fn visit_item_use(&mut self, node: &'ast syn::ItemUse) {
        self.use_tree(&[], &node.tree);
    }

    fn visit_path(&mut self, node: &'ast syn::Path) {
        self.0.push(node.segments.iter().map(|segment| segment.ident.to_string()).collect());
        syn::visit::visit_path(self, node);
    }
}
