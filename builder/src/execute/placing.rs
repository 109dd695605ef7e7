//! Puts selected entries at their places in a root file system: links in the destination followed inside the root,
//! folders above them added, and what cannot stand where it should refused.

use std::collections::BTreeMap;

use oci_spec::image::Digest;

use super::item::{Content, Item, Items, made_directory};
use crate::graph::Chmod;
use crate::layer::{Entry, FileTime, Kind, LayerPath, Tree};

/// An entry that cannot be put where it should go.
#[derive(Debug, thiserror::Error)]
pub enum PlacingError {
    /// A folder over something else, or the reverse.
    #[error("cannot put {new} at {path}: there is {old}")]
    Clash {
        /// Where.
        path: LayerPath,
        /// What was to be put there.
        new: &'static str,
        /// What is there.
        old: &'static str,
    },
    /// A path component that is no folder.
    #[error("cannot put anything below {path}: it is {what}, no folder")]
    NoFolder {
        /// The component.
        path: LayerPath,
        /// What it is.
        what: &'static str,
    },
    /// Links that lead round in a circle.
    #[error("too many symbolic links on the way to {path}")]
    TooManyLinks {
        /// The path as given.
        path: LayerPath,
    },
}

/// Most links followed for one path; Linux has the same bound.
const LINKS_MAX: usize = 40;

/// What a path is, for messages.
pub(super) fn what(kind: &Kind) -> &'static str {
    match kind {
        Kind::Directory => "a folder",
        Kind::File { .. } | Kind::Hardlink(_) => "a file",
        Kind::Symlink(_) => "a symbolic link",
        Kind::CharDevice { .. } | Kind::BlockDevice { .. } => "a device",
        Kind::Fifo => "a named pipe",
        Kind::Whiteout | Kind::Opaque => "a whiteout",
    }
}

/// Owner and mode of folders that a step has to make.
#[derive(Clone, Copy, Debug)]
pub(super) struct Made {
    pub(super) owner: (u32, u32),
    pub(super) mode: u32,
}

/// A root file system with the entries that are about to be added to it.
pub(super) struct Placing<'a> {
    tree: &'a Tree,
    pub(super) items: Items,
    /// What folders get that have to be made.
    pub(super) made: Made,
    /// Time of what the builder makes itself.
    now: FileTime,
    /// How many files of archives have several names.
    named: u64,
}

impl<'a> Placing<'a> {
    pub(super) fn new(tree: &'a Tree, made: Made, now: FileTime) -> Self {
        Self { tree, items: Items::default(), made, now, named: 0 }
    }

    fn made(&self, path: LayerPath) -> Item {
        let mut item = made_directory(path, self.made.owner, self.now);
        item.entry.mode = self.made.mode;
        item
    }

    fn kind(&self, path: &LayerPath) -> Option<&Kind> {
        match self.items.get(path) {
            Some(item) => Some(&item.entry.kind),
            None => self.tree.get(path).map(|node| &node.entry.kind),
        }
    }

    /// Follows links inside the root, in what is there and in what was added. What is missing stays as it is written.
    pub(super) fn resolve(&self, path: &LayerPath, follow_last: bool) -> Result<LayerPath, PlacingError> {
        self.resolve_in(&LayerPath::root(), path, follow_last)
    }

    /// The same for a path below `top`, which has no links, and with that as the root.
    pub(super) fn resolve_in(
        &self,
        top: &LayerPath,
        path: &LayerPath,
        follow_last: bool,
    ) -> Result<LayerPath, PlacingError> {
        let mut todo: Vec<Vec<u8>> = path.components().rev().map(<[u8]>::to_vec).collect();
        let mut done = top.clone();
        let mut links = 0;
        while let Some(name) = todo.pop() {
            match &name[..] {
                b"" | b"." => continue,
                b".." => {
                    if done != *top {
                        done = done.parent().unwrap_or_default();
                    }
                    continue;
                }
                _ => {}
            }
            let next = done.join(&name);
            match self.kind(&next) {
                Some(Kind::Symlink(target)) if follow_last || !todo.is_empty() => {
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(PlacingError::TooManyLinks { path: path.clone() });
                    }
                    if target.starts_with(b"/") {
                        done = top.clone();
                    }
                    todo.extend(target.rsplit(|byte| *byte == b'/').map(<[u8]>::to_vec));
                }
                _ => done = next,
            }
        }
        Ok(done)
    }

    /// Adds the folders above `path`: those that are there as they are, those that are missing with mode 0755.
    ///
    /// A layer names them all, because some readers make missing ones with a mode of their own choice.
    fn add_parents(&mut self, path: &LayerPath) -> Result<(), PlacingError> {
        let mut missing = path.parent();
        while let Some(folder) = missing {
            if folder.is_root() {
                break;
            }
            if let Some(item) = self.items.get(&folder) {
                if item.entry.kind == Kind::Directory {
                    break;
                }
                return Err(PlacingError::NoFolder { what: what(&item.entry.kind), path: folder });
            }
            let item = match self.tree.get(&folder) {
                None => self.made(folder.clone()),
                Some(node) if node.entry.kind == Kind::Directory => {
                    Item { entry: node.entry.clone(), ..self.made(folder.clone()) }
                }
                Some(node) => return Err(PlacingError::NoFolder { what: what(&node.entry.kind), path: folder }),
            };
            self.items.put(item);
            missing = folder.parent();
        }
        Ok(())
    }

    /// Adds an entry at its path, whose folders must be resolved already.
    pub(super) fn put(&mut self, item: Item) -> Result<(), PlacingError> {
        let path = item.entry.path.clone();
        if path.is_root() {
            return Ok(());
        }
        let is_folder = item.entry.kind == Kind::Directory;
        if let Some(there) = self.kind(&path)
            && (*there == Kind::Directory) != is_folder
        {
            return Err(PlacingError::Clash { new: what(&item.entry.kind), old: what(there), path });
        }
        self.add_parents(&path)?;
        self.items.put(item);
        Ok(())
    }

    /// A folder that is only on the way to what is copied: one that is there keeps its owner, and takes the `mode` of the source.
    pub(super) fn way(&self, item: Item, mode: u32) -> Item {
        let path = &item.entry.path;
        let there = match self.items.get(path) {
            Some(item) => Some(&item.entry),
            None => self.tree.get(path).map(|node| &node.entry),
        };
        match there {
            Some(there) if there.kind == Kind::Directory => {
                Item { entry: Entry { mode: mode & 0o7777, ..there.clone() }, ..item }
            }
            _ => item,
        }
    }

    /// Adds an entry of an archive, whose folders must be resolved already: unless both are folders, what is there goes,
    /// with all that is in it, as `tar` does it.
    pub(super) fn put_over(&mut self, item: Item) -> Result<(), PlacingError> {
        let path = item.entry.path.clone();
        let is_folder = item.entry.kind == Kind::Directory;
        let was_folder = self.tree.get(&path).is_some_and(|node| node.entry.kind == Kind::Directory);
        match self.items.get(&path).map(|there| &there.entry.kind) {
            // What the folder held must not come back, and no layer of ours says so of a folder.
            Some(there) if is_folder && was_folder && *there != Kind::Directory => {
                return Err(PlacingError::Clash { new: what(&item.entry.kind), old: what(there), path });
            }
            Some(Kind::Directory) if !is_folder => self.items.remove_below(&path),
            _ => {}
        }
        self.add_parents(&path)?;
        self.items.put(item);
        Ok(())
    }

    /// Adds one more name for the file at `target`; says whether there is one. `diff_ids` are the root's layers', bottom
    /// first.
    pub(super) fn put_name(
        &mut self,
        path: &LayerPath,
        target: &LayerPath,
        diff_ids: &[Digest],
    ) -> Result<bool, PlacingError> {
        let Some(mut file) = self.items.get(target).cloned().or_else(|| self.file_below(target, diff_ids)) else {
            return Ok(false);
        };
        if file.entry.kind == Kind::Directory {
            return Ok(false);
        }
        if file.same_file.is_none() && matches!(file.entry.kind, Kind::File { .. }) {
            self.named += 1;
            file.same_file = Some((usize::MAX, 0, self.named));
            self.add_parents(target)?;
            self.items.put(file.clone());
        }
        file.entry.path = path.clone();
        self.put_over(file)?;
        Ok(true)
    }

    fn file_below(&self, path: &LayerPath, diff_ids: &[Digest]) -> Option<Item> {
        let node = self.tree.get(path)?;
        let origin = node.origin.as_ref()?;
        let content = Content::Layer { diff_id: diff_ids.get(origin.layer)?.clone(), path: origin.path.clone() };
        let (entry, digest) = (node.entry.clone(), node.content);
        Some(Item { entry, content, digest, same_file: None, timeless: false })
    }

    /// What is at a path whose links are resolved; the root is always a folder.
    pub(super) fn state(&self, path: &LayerPath) -> Option<&Kind> {
        if path.is_root() { Some(&Kind::Directory) } else { self.kind(path) }
    }

    /// Makes `path` a folder, and those above it; what is there stays as it is. Links must be resolved already.
    pub(super) fn make_directory(&mut self, path: &LayerPath) -> Result<(), PlacingError> {
        if path.is_root() {
            return Ok(());
        }
        match self.kind(path) {
            Some(Kind::Directory) => {}
            Some(other) => return Err(PlacingError::NoFolder { what: what(other), path: path.clone() }),
            None => {
                self.add_parents(path)?;
                self.items.put_if_absent(self.made(path.clone()));
            }
        }
        Ok(())
    }
}

/// The mode that `--chmod` gives to an entry.
pub(super) fn changed_mode(chmod: &Chmod, mode: u32, is_folder: bool) -> u32 {
    match chmod {
        Chmod::Bits(bits) => *bits & 0o7777,
        Chmod::Symbolic(symbolic) => symbolic.apply(mode, is_folder),
    }
}

/// The mode of folders that a step has to make: the reference gives them an octal `--chmod` too, less the bits above 0777.
pub(super) fn made_mode(chmod: Option<&Chmod>) -> u32 {
    match chmod {
        Some(Chmod::Bits(bits)) => *bits & 0o777,
        Some(Chmod::Symbolic(_)) | None => 0o755,
    }
}

/// The one extended attribute that a copy keeps.
pub(super) const CAPABILITY: &[u8] = b"security.capability";

/// The attributes of a copied file that a layer keeps.
pub(super) fn kept_attributes(capability: Option<&Vec<u8>>) -> BTreeMap<Vec<u8>, Vec<u8>> {
    capability.map(|value| (CAPABILITY.to_vec(), value.clone())).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::{Entry, IndexEntry, LayerIndex};

    const ROOT: Made = Made { owner: (0, 0), mode: 0o755 };

    fn path(text: &str) -> LayerPath {
        LayerPath::clean(text.as_bytes()).unwrap()
    }

    fn item(text: &str, kind: Kind) -> Item {
        let mut item = made_directory(path(text), (0, 0), FileTime::default());
        item.entry.kind = kind;
        item
    }

    fn tree(entries: &[(&str, Kind)]) -> Tree {
        let entries: Vec<IndexEntry> = entries
            .iter()
            .map(|(text, kind)| {
                let entry: Entry = item(text, kind.clone()).entry;
                IndexEntry { entry, content: None }
            })
            .collect();
        let mut tree = Tree::new();
        tree.push(&LayerIndex { entries, ..LayerIndex::default() }, 0);
        tree
    }

    fn names(placing: &Placing<'_>) -> Vec<String> {
        placing.items.iter().map(|item| item.entry.path.to_string()).collect()
    }

    #[test]
    fn links_in_the_destination_are_followed_inside_the_root() {
        let tree = tree(&[
            ("usr", Kind::Directory),
            ("usr/lib", Kind::Directory),
            ("lib", Kind::Symlink(b"usr/lib".to_vec())),
            ("up", Kind::Symlink(b"../../usr".to_vec())),
            ("abs", Kind::Symlink(b"/up/lib".to_vec())),
            ("loop", Kind::Symlink(b"loop".to_vec())),
        ]);
        let placing = Placing::new(&tree, ROOT, FileTime::default());
        for (from, to) in
            [("lib/x", "/usr/lib/x"), ("abs/x", "/usr/lib/x"), ("up/new/y", "/usr/new/y"), ("lib", "/usr/lib")]
        {
            assert_eq!(placing.resolve(&path(from), true).unwrap().to_string(), to, "{from}");
        }
        assert_eq!(placing.resolve(&path("lib"), false).unwrap().to_string(), "/lib");
        assert!(matches!(placing.resolve(&path("loop/x"), true), Err(PlacingError::TooManyLinks { .. })));
    }

    #[test]
    fn folders_above_are_named_and_clashes_refused() {
        let tree = tree(&[("usr", Kind::Directory), ("file", Kind::File { size_bytes: 1 })]);
        let mut placing = Placing::new(&tree, Made { owner: (7, 8), mode: 0o755 }, FileTime::default());
        placing.put(item("usr/a/b", Kind::File { size_bytes: 1 })).unwrap();
        assert_eq!(names(&placing), ["/usr", "/usr/a", "/usr/a/b"]);
        let made = placing.items.get(&path("usr/a")).unwrap();
        assert_eq!((made.entry.uid, made.entry.gid, made.entry.mode), (7, 8, 0o755));
        let below = placing.put(item("file/x", Kind::File { size_bytes: 1 })).unwrap_err();
        assert_eq!(below.to_string(), "cannot put anything below /file: it is a file, no folder");
        let over = placing.put(item("file", Kind::Directory)).unwrap_err();
        assert_eq!(over.to_string(), "cannot put a folder at /file: there is a file");
    }

    #[test]
    fn an_archive_takes_its_destination_for_the_root_and_replaces_what_is_there() {
        let tree = tree(&[
            ("d", Kind::Directory),
            ("d/real", Kind::Directory),
            ("d/abs", Kind::Symlink(b"/real".to_vec())),
            ("d/up", Kind::Symlink(b"../../real".to_vec())),
            ("d/full", Kind::Directory),
            ("d/full/old", Kind::File { size_bytes: 1 }),
        ]);
        let mut placing = Placing::new(&tree, ROOT, FileTime::default());
        for from in ["abs/x", "up/x", "real/x"] {
            assert_eq!(placing.resolve_in(&path("d"), &path(from), false).unwrap().to_string(), "/d/real/x", "{from}");
        }
        placing.put_over(item("d/new", Kind::Directory)).unwrap();
        placing.put_over(item("d/new/inside", Kind::File { size_bytes: 1 })).unwrap();
        placing.put_over(item("d/new", Kind::File { size_bytes: 1 })).unwrap();
        placing.put_over(item("d/abs", Kind::Directory)).unwrap();
        placing.put_over(item("d/full", Kind::File { size_bytes: 1 })).unwrap();
        assert_eq!(names(&placing), ["/d", "/d/abs", "/d/full", "/d/new"]);
        assert!(matches!(placing.put_over(item("d/full", Kind::Directory)), Err(PlacingError::Clash { .. })));
    }
}
