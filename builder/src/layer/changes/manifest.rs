//! What a tree was like, to tell later what changed in it: for sandboxes that cannot mount an overlay.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::owned::Owned;
use super::{CAPABILITY, Changes, ChangesError, attribute_names, capability, check_name, refuse_redirects};
use crate::blob::ContentHash;
use crate::layer::{Change, Kind, LayerPath, Node, Tree};
use crate::owners;

/// Each file and folder of a tree by what `lstat` says about it.
///
/// The time of the last status change is among it, which no program can set: a file that was written to is always seen,
/// whatever was done to its other times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    entries: BTreeMap<LayerPath, Stat>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Stat {
    mode: u32,
    owner: (u32, u32),
    rdev: u64,
    size_bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    inode: (u64, u64),
    links: u64,
}

impl Stat {
    fn of(metadata: &Metadata) -> Self {
        let is_folder = metadata.is_dir();
        Self {
            mode: metadata.mode(),
            owner: (metadata.uid(), metadata.gid()),
            rdev: metadata.rdev(),
            // What is in a folder is told by its own entries.
            size_bytes: if is_folder { 0 } else { metadata.len() },
            modified: if is_folder { (0, 0) } else { (metadata.mtime(), metadata.mtime_nsec()) },
            changed: if is_folder { (0, 0) } else { (metadata.ctime(), metadata.ctime_nsec()) },
            inode: if is_folder { (0, 0) } else { (metadata.dev(), metadata.ino()) },
            links: if is_folder { 0 } else { metadata.nlink() },
        }
    }
}

impl Manifest {
    /// Looks at all below `root`.
    ///
    /// Times have a grain of some milliseconds: what is written sooner than 10 ms after this may look the same.
    pub fn of(root: &Path) -> Result<Self, ChangesError> {
        let mut entries = BTreeMap::new();
        scan(root, &mut |path, _, metadata| {
            // No layer has sockets, so that one that goes is no change.
            if !metadata.file_type().is_socket() {
                entries.insert(path, Stat::of(metadata));
            }
        })?;
        Ok(Self { entries })
    }

    /// What changed below `root` since, without knowing what was there; see [`Manifest::changes_over`].
    ///
    /// # Errors
    /// When something cannot be read, or cannot be in a layer.
    pub fn changes(&self, root: &Path) -> Result<Vec<Change>, ChangesError> {
        self.changes_over(root, &Tree::new())
    }

    /// What changed below `root` since; in the order and by the rules of [`overlay_changes`](super::overlay_changes).
    ///
    /// There is no other tree to compare with, so that a file that was written again as it was counts as changed, unless
    /// `tree` tells what was there.
    pub fn changes_over(&self, root: &Path, tree: &Tree) -> Result<Vec<Change>, ChangesError> {
        let mut now: BTreeMap<LayerPath, (PathBuf, Metadata)> = BTreeMap::new();
        scan(root, &mut |path, at, metadata| {
            now.insert(path, (at.to_owned(), metadata.clone()));
        })?;
        let mut gone = BTreeSet::new();
        for path in self.entries.keys() {
            // What is below a removed name, or below what is no folder any more, is gone with it.
            let parent_stays = path.parent().is_some_and(|parent| {
                parent.is_root() || now.get(&parent).is_some_and(|(_, metadata)| metadata.is_dir())
            });
            let stays = now.get(path).is_some_and(|(_, metadata)| !metadata.file_type().is_socket());
            if parent_stays && !stays {
                gone.insert(path.clone());
            }
        }
        let owned = Owned::around(root, &[root.to_owned()])?;
        let mut changed_files = BTreeSet::new();
        for (path, (at, metadata)) in &now {
            let before = self.entries.get(path);
            let node = tree.get(path);
            let same = before.is_some_and(|stat| stat.inode == (metadata.dev(), metadata.ino()));
            let owner = owned.now(at, metadata, same.then_some((&**at, metadata)));
            let has_owner = node.is_none_or(|node| (node.entry.uid, node.entry.gid) == (owner.uid, owner.gid));
            let is_known = match (before, node) {
                // The recorded owner of a folder or a link is in none of what is told about it.
                _ if before == Some(&Stat::of(metadata)) => has_owner || metadata.is_file() || !owned.are_recorded(),
                (Some(before), Some(node)) if has_owner => is_as_known(at, metadata, before, node)?,
                _ => false,
            };
            if !is_known {
                changed_files.insert(path.clone());
            }
        }
        let mut changes = Changes::new(owned);
        let mut open: Vec<(LayerPath, usize)> = Vec::new();
        let paths: BTreeSet<&LayerPath> = now.keys().chain(&gone).collect();
        for path in paths {
            while let Some((folder, waiting)) = open.last() {
                if path.starts_with(folder) {
                    break;
                }
                changes.leave(*waiting);
                open.pop();
            }
            if gone.contains(path) {
                changes.push_whiteout(path.clone());
                continue;
            }
            let Some((at, metadata)) = now.get(path) else { continue };
            let changed = changed_files.contains(path);
            if !changed && !metadata.is_dir() {
                continue;
            }
            if changed {
                check_name(path)?;
                refuse_redirects(path, &attribute_names(at)?)?;
            }
            // Its table knows it by its path, unless something else has that path now.
            let same = self.entries.get(path).is_some_and(|stat| stat.inode == (metadata.dev(), metadata.ino()));
            let before = same.then_some((&**at, metadata));
            let Some(change) = changes.describe(path.clone(), at, metadata, before)? else { continue };
            if metadata.is_dir() {
                let waiting = changes.enter(change, changed);
                if !changed {
                    open.push((path.clone(), waiting));
                }
            } else {
                changes.push(change);
            }
        }
        Ok(changes.finished)
    }
}

/// Whether a file, whose state was changed somehow, is what it was and what the layers say of it.
fn is_as_known(at: &Path, metadata: &Metadata, before: &Stat, node: &Node) -> Result<bool, ChangesError> {
    let now = Stat::of(metadata);
    let looks = |stat: &Stat| (stat.mode, stat.owner, stat.rdev, stat.size_bytes, stat.modified);
    if metadata.is_dir() || looks(&now) != looks(before) {
        return Ok(false);
    }
    // Bits that would keep us out are not among its looks.
    if owners::mode_of(at, metadata) != node.entry.mode & 0o7777 && owners::are_modes_recorded() && metadata.is_file() {
        return Ok(false);
    }
    if capability(at)?.as_ref() != node.entry.xattrs.get(CAPABILITY.as_bytes()) {
        return Ok(false);
    }
    match &node.entry.kind {
        Kind::Symlink(target) if metadata.is_symlink() => {
            let found = fs::read_link(at).map_err(ChangesError::at("reading the link", at))?;
            Ok(found.as_os_str().as_bytes() == target)
        }
        Kind::File { size_bytes } if metadata.is_file() && *size_bytes == metadata.len() => {
            if *size_bytes == 0 {
                return Ok(true);
            }
            let Some(expected) = &node.content else { return Ok(false) };
            let found = fs::File::open(at).and_then(ContentHash::read).map_err(ChangesError::at("reading", at))?;
            Ok(found == *expected)
        }
        // What else there is has no content; its looks say all.
        Kind::Fifo | Kind::CharDevice { .. } | Kind::BlockDevice { .. } => Ok(true),
        _ => Ok(false),
    }
}

/// Shows all below `root`, without recursion: a step can make folders as deep as paths can be long.
fn scan(root: &Path, visit: &mut dyn FnMut(LayerPath, &Path, &Metadata)) -> Result<(), ChangesError> {
    let mut ahead = vec![LayerPath::root()];
    while let Some(folder) = ahead.pop() {
        let here = root.join(folder.as_path());
        for entry in fs::read_dir(&here).map_err(ChangesError::at("listing", &here))? {
            let entry = entry.map_err(ChangesError::at("listing", &here))?;
            let at = entry.path();
            let metadata = fs::symlink_metadata(&at).map_err(ChangesError::at("looking at", &at))?;
            let path = folder.join(entry.file_name().as_bytes());
            visit(path.clone(), &at, &metadata);
            if metadata.is_dir() {
                ahead.push(path);
            }
        }
    }
    Ok(())
}
