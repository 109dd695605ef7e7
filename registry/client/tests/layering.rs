//! Every room of the crate names only the rooms below it, and the pure ones touch neither files nor clocks nor sockets.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use syn::visit::Visit;

/// The rooms, lowest first, and the rooms that each may name.
const MAY_USE: &[(&str, &[&str])] = &[
    ("quote", &[]),
    ("reference", &[]),
    ("retry", &[]),
    ("challenge", &[]),
    ("environment", &[]),
    ("credential", &["quote", "reference", "environment"]),
    ("error", &["quote", "retry", "credential"]),
    ("hash", &["error"]),
    ("settings", &["environment", "retry"]),
    ("trust", &["reference", "error", "settings"]),
    ("transport", &["quote", "reference", "retry", "environment", "error", "settings", "trust"]),
    ("auth", &["challenge", "reference", "retry", "credential", "error", "transport"]),
    (
        "client",
        &["reference", "retry", "challenge", "credential", "error", "hash", "settings", "trust", "transport", "auth"],
    ),
];

/// Files that only compute. `retry` and the others take the clock and randomness as arguments.
const PURE: &[&str] =
    &["quote.rs", "reference", "retry.rs", "challenge.rs", "hash.rs", "error/body.rs", "credential/file.rs"];
const IMPURE: &[&[&str]] = &[
    &["std", "fs"],
    &["std", "env"],
    &["std", "process"],
    &["std", "thread"],
    &["std", "time", "SystemTime"],
    &["std", "time", "Instant"],
    &["std", "net", "TcpStream"],
    &["tokio"],
    &["reqwest"],
    &["getrandom"],
];
/// The only file that reads the process's environment.
const READS_ENVIRONMENT: &str = "environment.rs";

/// Every path that a file names, grouped imports taken apart.
#[derive(Default)]
struct Paths(BTreeSet<Vec<String>>);

impl<'ast> Visit<'ast> for Paths {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        // Tests may use anything.
        let is_test = module.attrs.iter().any(|attribute| attribute.path().is_ident("cfg"));
        if !is_test {
            syn::visit::visit_item_mod(self, module);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.0.insert(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        syn::visit::visit_path(self, path);
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.add(&mut Vec::new(), &item.tree);
    }
}

impl Paths {
    fn add(&mut self, before: &mut Vec<String>, tree: &syn::UseTree) {
        match tree {
            syn::UseTree::Path(path) => {
                before.push(path.ident.to_string());
                self.add(before, &path.tree);
                before.pop();
            }
            syn::UseTree::Name(name) => self.leaf(before, &name.ident),
            syn::UseTree::Rename(rename) => self.leaf(before, &rename.ident),
            syn::UseTree::Group(group) => group.items.iter().for_each(|item| self.add(before, item)),
            _ => {
                self.0.insert(before.clone());
            }
        }
    }

    fn leaf(&mut self, before: &[String], name: &syn::Ident) {
        let last = if name == "self" { None } else { Some(name.to_string()) };
        self.0.insert(before.iter().cloned().chain(last).collect());
    }
}

fn sources(folder: &Path, into: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => sources(&path, into),
            false => into.push(path),
        }
    }
}

fn all_paths() -> Vec<(String, Paths)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    files.sort();
    let read = |path: &std::path::PathBuf| {
        let mut paths = Paths::default();
        paths.visit_file(&syn::parse_file(&fs::read_to_string(path).unwrap()).unwrap());
        (path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned(), paths)
    };
    files.iter().filter(|path| path.extension().is_some_and(|extension| extension == "rs")).map(read).collect()
}

#[test]
fn rooms_use_only_the_rooms_below_them() {
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for (file, paths) in all_paths() {
        let room = file.split(['/', '.']).next().unwrap().to_owned();
        if room == "lib" {
            continue;
        }
        let allowed = MAY_USE.iter().find(|(name, _)| *name == room).map(|(_, allowed)| *allowed);
        let Some(allowed) = allowed else {
            wrong.push(format!("{file} is in no known room"));
            continue;
        };
        let named = paths
            .0
            .iter()
            .filter(|path| path.first().is_some_and(|first| first == "crate"))
            .filter_map(|path| path.get(1));
        for other in named.filter(|other| **other != room && !allowed.contains(&other.as_str())) {
            wrong.push(format!("{file} uses {other}"));
        }
        seen.insert(room);
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert_eq!(seen.len(), MAY_USE.len(), "a room is listed that is not there: {seen:?}");
    for (at, (room, allowed)) in MAY_USE.iter().enumerate() {
        let below = |other: &&str| MAY_USE[..at].iter().any(|(name, _)| name == other);
        assert!(allowed.iter().all(below), "{room} may use a room that is not below it");
    }
}

#[test]
fn pure_files_stay_pure() {
    let mut wrong = Vec::new();
    let starts =
        |path: &[String], prefix: &[&str]| path.len() >= prefix.len() && path.iter().zip(prefix).all(|(a, b)| a == b);
    for (file, paths) in all_paths() {
        let is_pure = PURE.iter().any(|pure| file == *pure || file.starts_with(&format!("{pure}/")));
        for path in &paths.0 {
            let impure = is_pure && IMPURE.iter().any(|prefix| starts(path, prefix));
            // Splitting a search path is computing; reading a variable is not.
            let reads = file != READS_ENVIRONMENT
                && ["var", "var_os", "vars", "vars_os", "home_dir"]
                    .iter()
                    .any(|name| starts(path, &["std", "env", name]));
            if impure || reads {
                wrong.push(format!("{file} uses {}", path.join("::")));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}
