//! An image as text: what its layers add to their base, and its configuration. Times are left out.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Read as _;

use serde_json::{Value, json};
use tar::{Archive, EntryType};

use crate::image::Image;
use crate::samples;

/// A path's state.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    kind: char,
    mode: u32,
    uid: u64,
    gid: u64,
    /// Size of a file, target of a link, numbers of a device.
    detail: String,
    digest: Option<String>,
    xattrs: BTreeMap<String, String>,
    /// Which file it is: hard links share it.
    inode: u64,
}

/// Paths of a merged file system, with their states.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    entries: BTreeMap<String, Entry>,
    inodes: u64,
}

/// The file system that `tars` leave, bottom first.
///
/// # Panics
/// When one is no tar.
#[must_use]
pub fn tree(tars: &[Vec<u8>]) -> Tree {
    let mut tree = Tree::default();
    tars.iter().for_each(|tar| tree.apply(tar));
    tree
}

impl Tree {
    fn remove(&mut self, path: &str) {
        let below = format!("{path}/");
        self.entries.retain(|known, _| known != path && !known.starts_with(&below));
    }

    fn apply(&mut self, tar: &[u8]) {
        // What a layer adds is not touched by its own whiteouts, wherever these stand in it: they go first.
        let mut added = Vec::new();
        for entry in Archive::new(tar).entries().expect("a layer is a tar") {
            let mut entry = entry.expect("an entry of a layer");
            let path = clean(&entry.path_bytes());
            let (folder, name) = path.rsplit_once('/').unwrap_or(("", &path));
            if name == ".wh..wh..opq" {
                let below = if folder.is_empty() { String::new() } else { format!("{folder}/") };
                self.entries.retain(|known, _| !known.starts_with(&below));
            } else if let Some(hidden) = name.strip_prefix(".wh.") {
                self.remove(&if folder.is_empty() { hidden.to_owned() } else { format!("{folder}/{hidden}") });
            } else if !path.is_empty() {
                added.push((path.clone(), self.state(&mut entry), clean(&entry.link_name_bytes().unwrap_or_default())));
            }
        }
        for (path, state, target) in added {
            let state = match state {
                Some(state) => state,
                None => self.entries.get(&target).unwrap_or_else(|| panic!("{path} is a link to {target}")).clone(),
            };
            if state.kind != 'd' || self.entries.get(&path).is_some_and(|known| known.kind != 'd') {
                self.remove(&path);
            }
            self.entries.insert(path, state);
        }
    }

    /// The state that an entry gives; none for a hard link, which has its target's.
    fn state(&mut self, entry: &mut tar::Entry<'_, &[u8]>) -> Option<Entry> {
        let header = entry.header().clone();
        let mut xattrs = BTreeMap::new();
        for extension in entry.pax_extensions().ok().flatten().into_iter().flatten().flatten() {
            if let Some(name) = extension.key().ok().and_then(|key| key.strip_prefix("SCHILY.xattr.")) {
                xattrs.insert(name.to_owned(), extension.value_bytes().escape_ascii().to_string());
            }
        }
        let mut content = Vec::new();
        entry.read_to_end(&mut content).expect("the content of an entry");
        let device = || {
            let number = |value: std::io::Result<Option<u32>>| value.ok().flatten().unwrap_or_default();
            format!("{}:{}", number(header.device_major()), number(header.device_minor()))
        };
        let (kind, detail, digest) = match header.entry_type() {
            EntryType::Directory => ('d', "-".to_owned(), None),
            EntryType::Symlink => {
                let target = entry.link_name_bytes().unwrap_or_default();
                ('l', format!("->{}", target.escape_ascii()), None)
            }
            EntryType::Char => ('c', device(), None),
            EntryType::Block => ('b', device(), None),
            EntryType::Fifo => ('p', "-".to_owned(), None),
            EntryType::Link => return None,
            _ => ('f', content.len().to_string(), Some(samples::digest(&content))),
        };
        self.inodes += 1;
        Some(Entry {
            kind,
            mode: header.mode().expect("a mode") & 0o7777,
            uid: header.uid().expect("a uid"),
            gid: header.gid().expect("a gid"),
            detail,
            digest,
            xattrs,
            inode: self.inodes,
        })
    }
}

/// A path of a tar, in characters that a line of text can hold.
fn clean(path: &[u8]) -> String {
    let text = match std::str::from_utf8(path) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => path.escape_ascii().to_string(),
    };
    let path = text.trim_start_matches("./").trim_matches('/');
    if path == "." { String::new() } else { path.to_owned() }
}

/// An image as text, in parts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Description {
    /// What each path has become that the base does not have in the same state.
    pub paths: BTreeMap<String, String>,
    /// The configuration without times, its keys in order.
    pub config: Value,
}

impl Description {
    /// All of it: a line a path, then the configuration.
    ///
    /// # Panics
    /// Never: JSON can be printed.
    #[must_use]
    pub fn text(&self) -> String {
        let lines: String = self.paths.values().map(|line| format!("{line}\n")).collect();
        format!("{lines}--- config\n{}\n", serde_json::to_string_pretty(&self.config).expect("JSON"))
    }

    /// What can differ between two descriptions, each with its value: paths, fields of the configuration, rows of history.
    #[must_use]
    pub fn fields(&self) -> BTreeMap<String, String> {
        let mut fields: BTreeMap<String, String> =
            self.paths.iter().map(|(path, line)| (format!("/{path}"), line.clone())).collect();
        for (name, value) in self.config.as_object().into_iter().flatten() {
            match value {
                Value::Object(inner) => {
                    fields.extend(inner.iter().map(|(key, value)| (format!("{name}.{key}"), value.to_string())));
                }
                Value::Array(rows) => {
                    fields.extend(
                        rows.iter().enumerate().map(|(row, value)| (format!("{name}[{row}]"), value.to_string())),
                    );
                }
                other => drop(fields.insert(name.clone(), other.to_string())),
            }
        }
        fields
    }
}

/// Describes an image by what its layers add to one of `bases`.
///
/// # Panics
/// When a layer is no tar.
#[must_use]
pub fn describe(image: &Image, bases: &[Image]) -> Description {
    let digests =
        |image: &Image| image.layers.iter().map(|layer| layer.descriptor["digest"].clone()).collect::<Vec<_>>();
    let all = digests(image);
    // The base with most layers of which the image's begin: one base may stand on another.
    let rows = |config: &Value| config["history"].as_array().cloned().unwrap_or_default();
    let stands_on =
        |base: &&Image| all.starts_with(&digests(base)) && rows(&image.config).starts_with(&rows(&base.config));
    let base = bases.iter().filter(stands_on).max_by_key(|base| rows(&base.config).len());
    let (base_layers, base_rows) = base.map_or((0, 0), |base| (base.layers.len(), rows(&base.config).len()));
    let tars: Vec<Vec<u8>> = image.layers.iter().map(crate::image::LayerBlob::tar).collect();
    let (below, whole) = (tree(&tars[..base_layers]), tree(&tars));

    let mut paths = BTreeMap::new();
    let same = |path: &str, entry: &Entry| {
        below
            .entries
            .get(path)
            .is_some_and(|other| Entry { inode: 0, ..entry.clone() } == Entry { inode: 0, ..other.clone() })
    };
    let mut first_of = BTreeMap::new();
    for (path, entry) in &whole.entries {
        let first = first_of.entry(entry.inode).or_insert(path);
        if same(path, entry) {
            continue;
        }
        let Entry { kind, mode, uid, gid, detail, .. } = entry;
        let mut line = format!("{kind} {mode:04o} {uid}:{gid} {detail} {path}");
        if *first != path {
            let _ = write!(line, " same-as={first}");
        }
        for (name, value) in &entry.xattrs {
            let _ = write!(line, " {name}={value}");
        }
        if let Some(digest) = &entry.digest {
            let _ = write!(line, " {}", &digest[7..19]);
        }
        let _ = paths.insert(path.clone(), line);
    }
    for path in below.entries.keys().filter(|path| !whole.entries.contains_key(*path)) {
        let _ = paths.insert(path.clone(), format!("gone {path}"));
    }
    Description { paths, config: sorted(&configuration(&image.config, base_layers, base_rows)) }
}

/// What of the configuration does not change from build to build, without the base's rows.
fn configuration(config: &Value, base_layers: usize, base_rows: usize) -> Value {
    let mut history = config["history"].as_array().cloned().unwrap_or_default().split_off(base_rows);
    for row in history.iter_mut().filter_map(Value::as_object_mut) {
        let _ = row.remove("created");
    }
    let mut shown = json!({
        "platform": format!("{}/{}", config["os"].as_str().unwrap_or("?"), config["architecture"].as_str().unwrap_or("?")),
        "config": config["config"],
        "history": history,
        "layers": config["rootfs"]["diff_ids"].as_array().map_or(0, Vec::len) - base_layers,
    });
    if let Some(author) = config["author"].as_str().filter(|author| !author.is_empty()) {
        shown["author"] = json!(author);
    }
    shown
}

/// The same JSON with its keys in order, which two builders need not agree about.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let ordered: BTreeMap<&String, Value> = fields.iter().map(|(key, value)| (key, sorted(value))).collect();
            json!(ordered)
        }
        Value::Array(values) => Value::Array(values.iter().map(sorted).collect()),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tar(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, kind, content) in entries {
            let mut header = tar::Header::new_ustar();
            header.set_mode(0o644);
            header.set_entry_type(*kind);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            if matches!(kind, EntryType::Link | EntryType::Symlink) {
                header.set_size(0);
                tar.append_link(&mut header, path, content).unwrap();
            } else {
                header.set_size(content.len() as u64);
                tar.append_data(&mut header, path, content.as_bytes()).unwrap();
            }
        }
        tar.into_inner().unwrap()
    }

    #[test]
    fn links_share_and_folders_stay() {
        let tree = tree(&[
            tar(&[("a/", EntryType::Directory, ""), ("a/x", EntryType::Regular, "1"), ("a/y", EntryType::Link, "a/x")]),
            tar(&[("a/", EntryType::Directory, ""), ("a/.wh.x", EntryType::Regular, "")]),
        ]);
        assert_eq!(tree.entries.keys().collect::<Vec<_>>(), ["a", "a/y"]);
        assert_eq!(tree.entries["a/y"].detail, "1");
    }
}
