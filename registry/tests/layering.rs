//! Every room uses only the rooms below it, and the pure ones do no I/O. Read from paths in the code, not from lines.

use std::collections::BTreeSet;
use std::path::Path;

use syn::visit::Visit;

/// Lowest first. A new arrow is a decision: it is made here and nowhere else.
const MAY_USE: &[(&str, &[&str])] = &[
    ("metrics", &[]),
    ("spec", &[]),
    ("protocol", &["spec"]),
    ("storage", &["metrics", "spec", "protocol"]),
    ("auth", &["metrics", "spec"]),
    ("service", &["metrics", "spec", "protocol", "storage", "auth"]),
    ("collect", &["metrics", "spec", "protocol", "storage"]),
    ("admin", &["metrics", "spec", "protocol", "storage", "collect", "auth", "service"]),
    ("adopt", &["spec", "protocol", "storage"]),
    ("http", &["metrics", "spec", "storage", "auth", "service"]),
];

/// Who alone may name a crate (or a part of std).
const ONLY_IN: &[(&str, &[&str])] = &[
    ("object_store", &["storage"]),
    ("axum", &["http"]),
    ("hyper", &["http"]),
    ("hyper_util", &["http"]),
    ("prometheus_client", &["metrics"]),
    ("rustix", &["storage"]),
    ("getrandom", &["storage"]),
    ("bcrypt", &["auth"]),
    ("tokio_rustls", &["http"]),
    ("tokio", &["storage", "collect", "auth", "service", "admin", "http"]),
    // metrics reads /proc.
    ("std::fs", &["storage", "metrics"]),
    ("std::time", &["storage", "collect", "adopt", "auth", "service", "admin", "http"]),
    ("std::net", &["auth", "http"]),
    ("std::env", &[]),
    ("tracing", &["collect", "service", "admin", "http"]),
];

#[derive(Default)]
struct Paths {
    found: BTreeSet<String>,
    skip_tests: bool,
}

impl Paths {
    fn tree(&mut self, prefix: &str, tree: &syn::UseTree) {
        let join = |name: &syn::Ident| if prefix.is_empty() { name.to_string() } else { format!("{prefix}::{name}") };
        match tree {
            syn::UseTree::Path(path) => self.tree(&join(&path.ident), &path.tree),
            syn::UseTree::Name(name) => drop(self.found.insert(join(&name.ident))),
            syn::UseTree::Rename(rename) => drop(self.found.insert(join(&rename.ident))),
            syn::UseTree::Glob(_) => drop(self.found.insert(prefix.to_owned())),
            syn::UseTree::Group(group) => group.items.iter().for_each(|item| self.tree(prefix, item)),
        }
    }
}

fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        syn::Meta::List(list) => attribute.path().is_ident("cfg") && list.tokens.to_string() == "test",
        _ => false,
    })
}

impl<'ast> Visit<'ast> for Paths {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        if !(self.skip_tests && is_test(&module.attrs)) {
            syn::visit::visit_item_mod(self, module);
        }
    }
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.tree("", &item.tree);
    }
    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.found.insert(segments.join("::"));
        syn::visit::visit_path(self, path);
    }
}

/// Every path that a room's files name, tests left out.
fn paths_in(room: &str) -> BTreeSet<String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut open = vec![source.join(room)];
    let mut paths = Paths { skip_tests: true, ..Default::default() };
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "rs")
            && !path.ends_with("storage/conformance.rs")
            && !path.to_string_lossy().contains("/storage/conformance/")
            && !path.to_string_lossy().contains("/protocol/tests/")
        {
            let file = syn::parse_file(&std::fs::read_to_string(path).unwrap()).unwrap();
            paths.visit_file(&file);
        }
    }
    paths.found
}

#[test]
fn rooms_use_only_the_rooms_below_them() {
    let mut upward = Vec::new();
    for (room, may_use) in MAY_USE {
        for path in paths_in(room) {
            let Some(used) = path.strip_prefix("crate::") else { continue };
            let used = used.split("::").next().unwrap();
            if used != *room && !may_use.contains(&used) {
                upward.push(format!("{room} uses {path}"));
            }
        }
    }
    assert_eq!(upward, Vec::<String>::new());
}

#[test]
fn crates_stay_in_their_rooms() {
    let mut strays = Vec::new();
    for (room, _) in MAY_USE {
        for path in paths_in(room) {
            for (name, rooms) in ONLY_IN {
                let named = path == *name || path.strip_prefix(name).is_some_and(|rest| rest.starts_with("::"));
                if named && !rooms.contains(room) {
                    strays.push(format!("{room} uses {path}"));
                }
            }
        }
    }
    assert_eq!(strays, Vec::<String>::new());
}

#[test]
fn every_room_is_listed() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for entry in std::fs::read_dir(source).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let room = name.trim_end_matches(".rs");
        let known = MAY_USE.iter().any(|(listed, _)| *listed == room);
        assert!(known || ["lib", "main", "settings", "commands"].contains(&room), "{name} is in no room");
    }
}

#[test]
fn files_stay_short() {
    let mut open =
        vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            let text = std::fs::read_to_string(&path).unwrap();
            let lines = text.lines().count();
            let excused = text.starts_with("// long because");
            assert!(lines <= 800 || excused, "{} has {lines} lines", path.display());
        }
    }
}
