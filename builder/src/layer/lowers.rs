//! What the layers below show at a path: unpacked layers, seen as overlayfs sees them merged.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::LayerPath;
use crate::owners;

/// What the names of overlayfs's attributes begin with (kernel, `Documentation/filesystems/overlayfs.rst`): in a user
/// namespace it is mounted with `userxattr`.
pub(super) fn marks() -> &'static str {
    if owners::in_first_namespace() { "trusted.overlay." } else { "user.overlay." }
}

/// The attribute of an empty file that marks a removed name where no device can (Linux 6.7).
pub(super) fn whiteout() -> &'static str {
    if owners::in_first_namespace() { "trusted.overlay.whiteout" } else { "user.overlay.whiteout" }
}

/// The attribute of a folder that hides what the layers below have in it.
pub(super) fn opaque() -> &'static str {
    if owners::in_first_namespace() { "trusted.overlay.opaque" } else { "user.overlay.opaque" }
}

/// One folder of the merged layers: the real folders that it is made of, topmost first.
#[derive(Clone, Debug)]
pub(super) struct MergedFolder {
    folders: Vec<PathBuf>,
}

/// What stands under a name in the merged layers. It is never a whiteout.
#[derive(Debug)]
pub(super) struct Found {
    /// Where it is on this machine; of a folder, the topmost of those that it is merged from.
    pub(super) path: PathBuf,
    pub(super) metadata: Metadata,
    /// Set when it is a folder.
    pub(super) folder: Option<MergedFolder>,
}

impl MergedFolder {
    /// The root of the unpacked layers in `roots`, topmost first.
    pub(super) fn root(roots: &[PathBuf]) -> Self {
        Self { folders: roots.to_vec() }
    }

    /// What has that name in this folder.
    pub(super) fn child(&self, name: &[u8]) -> io::Result<Option<Found>> {
        let mut found: Option<Found> = None;
        for folder in &self.folders {
            let path = folder.join(OsStr::from_bytes(name));
            let metadata = match fs::symlink_metadata(&path) {
                Ok(metadata) => metadata,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            if !metadata.is_dir() {
                // Under a folder of a higher layer, it is hidden.
                if found.is_none() && !is_whiteout(&path, &metadata) {
                    found = Some(Found { path, metadata, folder: None });
                }
                break;
            }
            let opaque = is_opaque(&path)?;
            match &mut found {
                Some(Found { folder: Some(merged), .. }) => merged.folders.push(path),
                _ => {
                    let folder = Some(Self { folders: vec![path.clone()] });
                    found = Some(Found { path, metadata, folder });
                }
            }
            if opaque {
                break;
            }
        }
        Ok(found)
    }

    /// What is at that path below this folder. Symbolic links on the way are not followed: there is nothing below them.
    pub(super) fn find(&self, path: &LayerPath) -> io::Result<Option<Found>> {
        let mut folder = self.clone();
        let mut components = path.components().peekable();
        while let Some(name) = components.next() {
            let Some(found) = folder.child(name)? else { return Ok(None) };
            if components.peek().is_none() {
                return Ok(Some(found));
            }
            let Some(next) = found.folder else { return Ok(None) };
            folder = next;
        }
        Ok(None)
    }

    /// Whether no layer has it.
    pub(super) fn is_empty(&self) -> bool {
        self.folders.is_empty()
    }

    /// The names in this folder, sorted.
    pub(super) fn names(&self) -> io::Result<BTreeSet<Vec<u8>>> {
        let mut candidates = BTreeSet::new();
        for folder in &self.folders {
            for entry in fs::read_dir(folder)? {
                candidates.insert(entry?.file_name().as_bytes().to_vec());
            }
        }
        let mut names = BTreeSet::new();
        for name in candidates {
            if self.child(&name)?.is_some() {
                names.insert(name);
            }
        }
        Ok(names)
    }
}

/// Whether it is overlayfs's mark of a removed name: a character device 0:0, or an empty file with an attribute.
pub(super) fn is_whiteout(path: &Path, metadata: &Metadata) -> bool {
    if metadata.is_file() {
        return metadata.len() == 0 && rustix::fs::lgetxattr(path, whiteout(), &mut [0u8; 1][..]).is_ok();
    }
    metadata.file_type().is_char_device() && metadata.rdev() == 0
}

/// Whether the folder hides what the layers below have in it.
pub(super) fn is_opaque(path: &Path) -> io::Result<bool> {
    let mut value = [0; 1];
    match rustix::fs::lgetxattr(path, opaque(), &mut value[..]) {
        Ok(1) => Ok(value == *b"y"),
        Ok(_) | Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE | Errno::PERM) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
