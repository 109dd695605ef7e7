//! A writable root file system, until it is kept or dropped.

use std::fs::File;
use std::path::PathBuf;
use std::sync::OnceLock;

use oci_spec::image::Digest;

use crate::blob::remove_tree;
use crate::layer::{Change, ChangesError, Manifest, Tree, overlay_changes};
use crate::sandbox::{InMemory, RootMount};

/// A writable view on a chain of layers. Dropping it discards what was written.
#[derive(Debug)]
pub struct Workspace {
    pub(super) root: RootMount,
    pub(super) chain: Vec<Digest>,
    pub(super) keep: Keep,
}

/// What makes the workspace of its snapshotter.
#[derive(Debug)]
pub(super) enum Keep {
    Overlay {
        /// Holds `upper` and `work`.
        folder: PathBuf,
        /// What is mounted there, where the store's file system takes no changes.
        memory: Option<InMemory>,
    },
    MutableRoot {
        /// The tree as it was prepared.
        before: Manifest,
        /// What was found to have changed; it is asked for twice.
        told: OnceLock<Vec<Change>>,
        /// The exclusive lock on the root.
        _lock: File,
    },
}

impl Workspace {
    /// What a sandbox makes its root of.
    #[must_use]
    pub fn root(&self) -> &RootMount {
        &self.root
    }

    /// Lays the files in `folder` over the layers below: a command sees them in place of the layers' own. They must be
    /// files that are there, with all that they have but their times. The folder must outlive the workspace.
    pub fn cover(&mut self, folder: PathBuf) {
        if let RootMount::Overlay { lowers, .. } = &mut self.root {
            lowers.insert(0, folder);
        }
    }

    /// The unpacked layers below, topmost first; none where the root is one folder.
    #[must_use]
    pub fn lowers(&self) -> &[PathBuf] {
        match &self.root {
            RootMount::Overlay { lowers, .. } => lowers,
            RootMount::Directory(_) => &[],
        }
    }

    /// What was changed, as the entries of a layer: sorted, a folder before what is in it, content named by its place in
    /// this workspace.
    ///
    /// # Errors
    /// When something cannot be read, or cannot be in a layer.
    pub fn changes(&self) -> Result<Vec<Change>, ChangesError> {
        self.changes_over(&Tree::new())
    }

    /// The same, where it is known what was there before. A root that is written in place has nothing else to tell a file
    /// that was written again as it was.
    ///
    /// # Errors
    /// As [`Workspace::changes`].
    pub fn changes_over(&self, tree: &Tree) -> Result<Vec<Change>, ChangesError> {
        match (&self.keep, &self.root) {
            (Keep::MutableRoot { before, told, .. }, RootMount::Directory(root)) => {
                if let Some(told) = told.get() {
                    return Ok(told.clone());
                }
                let changes = before.changes_over(root, tree)?;
                Ok(told.get_or_init(|| changes).clone())
            }
            (_, RootMount::Overlay { lowers, upper, .. }) => overlay_changes(upper, lowers),
            // Snapshotters make no other pairs.
            (Keep::Overlay { .. }, RootMount::Directory(_)) => Ok(Vec::new()),
        }
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        // The mutable root is brought back when it is prepared again.
        if let Keep::Overlay { folder, memory } = &mut self.keep {
            drop(memory.take());
            remove_tree(folder);
        }
    }
}
