//! What a stack of layers shows, worked out from their indexes alone.
//!
//! The rules are those of unpacking the layers one over the other (image specification, layer.md, "Applying Changesets"):
//! a folder over a folder keeps what is in it, anything else takes the place of what was there with all below it,
//! a whiteout hides what lower layers have, and a path leads through the symbolic links that stand on its way.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::{Entry, FileTime, IndexEntry, Kind, LayerIndex, LayerPath};
use crate::blob::ContentHash;

/// How many symbolic links a path may lead through, as in Linux (path_resolution(7)).
const LINKS_MAX: usize = 40;

/// The merged view of layers, pushed bottom first.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    /// Every entry's folder is here too, as a folder; the root is not.
    nodes: BTreeMap<LayerPath, Node>,
}

/// One entry of the merged view.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The entry, with its path in the merged view. A hard link shows as the file that it is.
    pub entry: Entry,
    /// The layer that set it last.
    pub layer: usize,
    /// Of regular files only.
    pub content: Option<ContentHash>,
    /// Which layer's tar has the content, and at which path there; of regular files only.
    pub origin: Option<Origin>,
    text: Option<String>,
    /// A folder that no layer names, made for what is in it.
    made: bool,
}

/// A place in a layer's tar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The layer.
    pub layer: usize,
    /// Which of the entries of the layer's index it is, from 0. A path may come more than once, and the last one counts.
    pub number: usize,
    /// The path of the entry there.
    pub path: LayerPath,
}

/// Why a path leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TreeError {
    /// Links lead in a circle, or too many follow on each other.
    #[error("{path} leads through more than {LINKS_MAX} symbolic links")]
    TooManyLinks {
        /// The path.
        path: LayerPath,
    },
    /// Something on the way is no folder.
    #[error("{path} leads through {file}, which is no folder")]
    NotAFolder {
        /// The path.
        path: LayerPath,
        /// What is no folder.
        file: LayerPath,
    },
}

impl Tree {
    /// The view of no layer: an empty root.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a layer over all that were pushed before, whose numbers must be lower.
    pub fn push(&mut self, index: &LayerIndex, layer: usize) {
        for (number, row) in index.entries.iter().enumerate() {
            match row.entry.kind {
                // In a folder that nobody has, there is nothing to remove, and the folder is not made for it.
                Kind::Whiteout => self.remove_lower(&self.place(&row.entry.path), true, layer),
                Kind::Opaque => {
                    let place = self.resolve(&row.entry.path, true).unwrap_or_else(|_| row.entry.path.clone());
                    self.remove_lower(&place, false, layer);
                }
                _ if row.entry.path.is_root() => {}
                _ => self.insert(number, row, index.accounts.get(&row.entry.path), layer),
            }
        }
    }

    fn insert(&mut self, number: usize, row: &IndexEntry, text: Option<&String>, layer: usize) {
        let place = self.place(&row.entry.path);
        self.make_folders(&place, layer);
        let file = matches!(row.entry.kind, Kind::File { .. });
        let origin = file.then(|| Origin { layer, number, path: row.entry.path.clone() });
        let mut entry = row.entry.clone();
        entry.path = place.clone();
        let mut node = Node { entry, layer, content: row.content, origin, text: text.cloned(), made: false };
        if let Kind::Hardlink(target) = &row.entry.kind
            && let Some(first) = self.nodes.get(&self.place(target))
            && first.entry.kind != Kind::Directory
        {
            // It is the same file: owner, mode and time are those of its first name.
            node = Node { layer, ..first.clone() };
            node.entry.path.clone_from(&place);
        }
        let over_folder = self.nodes.get(&place).is_some_and(|there| there.entry.kind == Kind::Directory);
        if over_folder && node.entry.kind != Kind::Directory {
            self.remove_below(&place);
        }
        self.nodes.insert(place, node);
    }

    /// Where an entry of this path goes: its folder may be a link to another.
    fn place(&self, path: &LayerPath) -> LayerPath {
        let (Some(parent), Some(name)) = (path.parent(), path.name()) else { return path.clone() };
        // A folder in the view has only folders above it, so there is no link to follow.
        if parent.is_root() || self.nodes.get(&parent).is_some_and(|node| node.entry.kind == Kind::Directory) {
            return path.clone();
        }
        match self.resolve(&parent, true) {
            Ok(parent) => parent.join(name),
            // A file or a circle on the way gives way to folders.
            Err(_) => path.clone(),
        }
    }

    /// Makes the folders above `path` that no layer has, as unpacking does: root's, with mode 755.
    fn make_folders(&mut self, path: &LayerPath, layer: usize) {
        let Some(parent) = path.parent() else { return };
        if parent.is_root() || self.nodes.get(&parent).is_some_and(|node| node.entry.kind == Kind::Directory) {
            return;
        }
        self.make_folders(&parent, layer);
        let entry = Entry {
            path: parent.clone(),
            kind: Kind::Directory,
            mode: 0o755,
            uid: 0,
            gid: 0,
            modified: FileTime::default(),
            xattrs: BTreeMap::new(),
        };
        self.nodes.insert(parent, Node { entry, layer, content: None, origin: None, text: None, made: true });
    }

    /// Takes away what lower layers have below `path`, and at it if `with_itself`. A removal is about those alone, so that
    /// what its own layer has brought stays, with the folders above it.
    fn remove_lower(&mut self, path: &LayerPath, with_itself: bool, layer: usize) {
        let mut gone = Vec::new();
        let mut kept: Option<&LayerPath> = None;
        // From the end, what is in a folder comes before the folder.
        let below: Vec<_> = self.below(path, with_itself).collect();
        for (other, node) in below.into_iter().rev() {
            if (node.layer >= layer && !node.made) || kept.is_some_and(|kept| kept.starts_with(other)) {
                kept = Some(other);
            } else {
                gone.push(other.clone());
            }
        }
        for path in gone {
            self.nodes.remove(&path);
        }
    }

    fn remove_below(&mut self, path: &LayerPath) {
        let gone: Vec<_> = self.below(path, false).map(|(other, _)| other.clone()).collect();
        for path in gone {
            self.nodes.remove(&path);
        }
    }

    fn below(&self, path: &LayerPath, with_itself: bool) -> impl Iterator<Item = (&LayerPath, &Node)> {
        let from = if with_itself { Bound::Included(path.clone()) } else { Bound::Excluded(path.clone()) };
        let path = path.clone();
        self.nodes.range((from, Bound::Unbounded)).take_while(move |(other, _)| other.starts_with(&path))
    }

    /// The entry at exactly this path; no link is followed, and the root has none.
    #[must_use]
    pub fn get(&self, path: &LayerPath) -> Option<&Node> {
        self.nodes.get(path)
    }

    /// Where `path` leads when the links on its way, and the last one if `follow_last`, are followed inside the root.
    ///
    /// What does not exist is kept as it is: the result need not exist either.
    pub fn resolve(&self, path: &LayerPath, follow_last: bool) -> Result<LayerPath, TreeError> {
        let mut reached = LayerPath::root();
        let mut ahead: Vec<Vec<u8>> = path.components().rev().map(<[u8]>::to_vec).collect();
        let mut links = 0;
        while let Some(component) = ahead.pop() {
            match &component[..] {
                b"" | b"." => continue,
                b".." => {
                    // Above the root is the root.
                    reached = reached.parent().unwrap_or_default();
                    continue;
                }
                _ => {}
            }
            let next = reached.join(&component);
            match self.nodes.get(&next).map(|node| &node.entry.kind) {
                Some(Kind::Symlink(target)) if follow_last || !ahead.is_empty() => {
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(TreeError::TooManyLinks { path: path.clone() });
                    }
                    if target.starts_with(b"/") {
                        reached = LayerPath::root();
                    }
                    ahead.extend(target.split(|byte| *byte == b'/').rev().map(<[u8]>::to_vec));
                }
                None | Some(Kind::Directory | Kind::Symlink(_)) => reached = next,
                Some(_) if ahead.is_empty() => reached = next,
                Some(_) => return Err(TreeError::NotAFolder { path: path.clone(), file: next }),
            }
        }
        Ok(reached)
    }

    /// What is directly in the folder at `path`, by name; nothing when it is no folder. No link is followed.
    pub fn children(&self, path: &LayerPath) -> impl Iterator<Item = (&[u8], &Node)> {
        let folder = path.clone();
        let mut from = Bound::Excluded(path.clone());
        std::iter::from_fn(move || {
            let (child, node) = self.nodes.range((from.clone(), Bound::Unbounded)).next()?;
            if !child.starts_with(&folder) {
                return None;
            }
            let name = child.name()?;
            // Nothing stands between all that is below `name` and the name with a NUL, which no entry has.
            from = Bound::Included(folder.join(&[name, b"\0"].concat()));
            Some((name, node))
        })
    }

    /// All entries, sorted by path.
    pub fn iter(&self) -> impl Iterator<Item = (&LayerPath, &Node)> {
        self.nodes.iter()
    }

    /// Text of `/etc/passwd`.
    #[must_use]
    pub fn passwd(&self) -> Option<String> {
        self.account_file(b"etc/passwd")
    }

    /// Text of `/etc/group`.
    #[must_use]
    pub fn group(&self) -> Option<String> {
        self.account_file(b"etc/group")
    }

    fn account_file(&self, path: &[u8]) -> Option<String> {
        let path = self.resolve(&LayerPath::clean(path)?, true).ok()?;
        self.nodes.get(&path)?.text.clone()
    }
}

#[cfg(test)]
mod tests;
