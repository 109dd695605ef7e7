//! Layers as the files they leave behind.

use std::collections::BTreeMap;
use std::io::Read as _;

use tar::{Archive, EntryType};

use crate::samples;

/// A file as a container sees it. Times are in whole seconds, as the layers of most tools have them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileState {
    /// `file`, `folder`, `symlink`, `device`, `fifo`.
    pub kind: &'static str,
    /// The permission bits.
    pub mode: u32,
    /// The owner's number.
    pub uid: u64,
    /// The group's number.
    pub gid: u64,
    /// Digest of the content of a file, target of a link.
    pub content: String,
    /// Modification time in seconds since 1970.
    pub modified: u64,
}

/// Path without a leading slash, to its state.
pub type Files = BTreeMap<String, FileState>;

/// Puts a layer's changes on top of `files`.
pub(super) fn apply(tar: &[u8], files: &mut Files) {
    let mut archive = Archive::new(tar);
    // What a layer adds is not touched by its own whiteouts, wherever these stand in it: they go first.
    let mut added = Vec::new();
    for entry in archive.entries().expect("a layer is a tar") {
        let mut entry = entry.expect("an entry of a layer");
        let path = clean(&String::from_utf8_lossy(&entry.path_bytes()));
        let (folder, name) = path.rsplit_once('/').map_or(("", path.as_str()), |(folder, name)| (folder, name));
        if name == ".wh..wh..opq" {
            let below = if folder.is_empty() { String::new() } else { format!("{folder}/") };
            files.retain(|known, _| !known.starts_with(&below));
        } else if let Some(hidden) = name.strip_prefix(".wh.") {
            let hidden = if folder.is_empty() { hidden.to_owned() } else { format!("{folder}/{hidden}") };
            remove(files, &hidden);
        } else {
            let target = entry.link_name_bytes().map(|name| String::from_utf8_lossy(&name).into_owned());
            let header = entry.header().clone();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).expect("the content of an entry");
            added.push((path, header, content, target.unwrap_or_default()));
        }
    }
    for (path, header, content, target) in added {
        if path.is_empty() {
            continue; // the root: clients disagree about whether it has a state
        }
        let (kind, content) = match header.entry_type() {
            EntryType::Directory => ("folder", String::new()),
            EntryType::Symlink => ("symlink", target),
            EntryType::Char | EntryType::Block => (
                "device",
                format!("{:?}:{:?}", header.device_major().ok().flatten(), header.device_minor().ok().flatten()),
            ),
            EntryType::Fifo => ("fifo", String::new()),
            EntryType::Link => {
                let original = files.get(&clean(&target));
                let original =
                    original.unwrap_or_else(|| panic!("{path} is a hard link to {target}, which is not there"));
                let original = original.clone();
                files.insert(path, original);
                continue;
            }
            _ => ("file", samples::digest(&content)),
        };
        if kind != "folder" {
            remove(files, &path);
        }
        let state = FileState {
            kind,
            mode: header.mode().expect("a mode") & 0o7777,
            uid: header.uid().expect("a uid"),
            gid: header.gid().expect("a gid"),
            content,
            modified: header.mtime().expect("a time"),
        };
        files.insert(path, state);
    }
}

fn clean(path: &str) -> String {
    let path = path.trim_start_matches("./").trim_matches('/');
    if path == "." { String::new() } else { path.to_owned() }
}

fn remove(files: &mut Files, path: &str) {
    let below = format!("{path}/");
    files.retain(|known, _| known != path && !known.starts_with(&below));
}

/// One path that two images do not agree about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The path.
    pub path: String,
    /// Its state on the left, if it is there.
    pub left: Option<FileState>,
    /// Its state on the right, if it is there.
    pub right: Option<FileState>,
}

/// The paths that differ, leaving out those for which `ignored` says so.
#[must_use]
pub fn differences(left: &Files, right: &Files, ignored: impl Fn(&str) -> bool) -> Vec<Difference> {
    let mut paths: Vec<&String> = left.keys().chain(right.keys()).collect();
    paths.sort();
    paths.dedup();
    paths
        .into_iter()
        .filter(|path| !ignored(path) && left.get(*path) != right.get(*path))
        .map(|path| Difference { path: path.clone(), left: left.get(path).cloned(), right: right.get(path).cloned() })
        .collect()
}

/// The files of one tar, such as `docker export` writes.
#[must_use]
pub fn files_of_tar(tar: &[u8]) -> Files {
    let mut files = BTreeMap::new();
    apply(tar, &mut files);
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tar_of(entries: &[(&str, &str)]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, content) in entries {
            let mut header = tar::Header::new_ustar();
            header.set_size(content.len() as u64);
            header.set_mode(0o600);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            header.set_cksum();
            tar.append_data(&mut header, path, content.as_bytes()).unwrap();
        }
        tar.into_inner().unwrap()
    }

    #[test]
    fn whiteouts_hide_what_is_below_and_not_what_their_layer_adds() {
        let mut files = Files::new();
        apply(&tar_of(&[("a/one", "1"), ("a/two", "2"), ("b", "3"), (".hidden", "4")]), &mut files);
        apply(&tar_of(&[("a/new", "5"), ("a/.wh..wh..opq", ""), (".wh.b", "")]), &mut files);
        assert_eq!(files.keys().collect::<Vec<_>>(), [".hidden", "a/new"]);
    }
}
