//! What binds show, and what cache mounts start with: a part of the context, or of a root file system.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use super::super::item::{Item, Items};
use super::super::moving::Moving;
use super::super::placing::kept_attributes;
use super::super::select::{self, SelectError, Selected, SelectedEntry};
use super::super::{Executor, RootState, States, StepError};
use super::folder;
use crate::blob::{Store, Temporary};
use crate::cache::key::MountContent;
use crate::cache::{Key, LayerContent};
use crate::event::StepId;
use crate::graph::{FolderId, Mount, MountFrom, MountKind, RunOp};
use crate::layer::{Entry, Kind, LayerPath, Tree};
use crate::stop::Cancel;

/// What one mount shows.
#[derive(Clone, Debug)]
pub(in super::super) enum Shown {
    /// Nothing that counts: an empty folder, memory, a secret.
    Nothing,
    /// Files of the user's.
    Context(Arc<ContextTree>),
    /// Files of a stage or an image.
    Root(RootTree),
}

impl Shown {
    pub(super) fn key(&self) -> MountContent {
        match self {
            Self::Nothing => MountContent::Nothing,
            Self::Context(context) => MountContent::Files(context.content),
            Self::Root(root) => root.content,
        }
    }
}

/// A file or folder of the context. A folder on this machine shows it, made when a command needs it: without what rules
/// hide, owned by root, and with the content that the key was made of.
#[derive(Debug)]
pub(in super::super) struct ContextTree {
    pub(super) items: Items,
    pub(super) is_folder: bool,
    content: LayerContent,
    folder: Mutex<Option<Temporary>>,
}

impl ContextTree {
    /// The name of a bound file in its folder.
    pub(super) const FILE: &'static str = "file";

    /// Where in its folder what is shown is.
    pub(super) fn within(is_folder: bool) -> PathBuf {
        if is_folder { PathBuf::new() } else { PathBuf::from(Self::FILE) }
    }

    /// What is in it, for plans.
    pub(in super::super) fn key(&self) -> Key {
        self.content.key()
    }

    fn new(source: Selected) -> Self {
        let is_folder = source.is_directory();
        let mut items = Items::default();
        for entry in source.entries {
            let path = if is_folder { entry.relative.clone() } else { Self::FILE.as_bytes().to_vec() };
            items.put(item(LayerPath::clean(&path).unwrap_or_default(), entry, (0, 0)));
        }
        items.link_names_of_one_file();
        let content = items.layer_content();
        Self { items, is_folder, content, folder: Mutex::default() }
    }

    /// Where it is on this machine.
    pub(super) fn folder(
        &self,
        store: &Store,
        cancel: &Cancel,
        moving: impl FnOnce(u64) -> Moving,
    ) -> Result<PathBuf, StepError> {
        let mut made = self.folder.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(folder) = &*made {
            return Ok(folder.path().to_owned());
        }
        let folder = store.temporary_folder()?;
        folder::open_up(folder.path())?;
        folder::write(&self.items, None, folder.path(), cancel, moving)?;
        let path = folder.path().to_owned();
        *made = Some(folder);
        Ok(path)
    }
}

/// A file or folder of a stage or an image.
#[derive(Clone, Debug)]
pub(in super::super) struct RootTree {
    pub(super) state: Arc<RootState>,
    pub(super) tree: Arc<Tree>,
    /// Where in it, without links.
    pub(super) path: LayerPath,
    pub(super) is_folder: bool,
    /// What of it counts: what is shown. A link in it that leads out leads into the command's own root.
    pub(super) content: MountContent,
}

impl RootTree {
    fn find(state: Arc<RootState>, tree: Arc<Tree>, source: &str) -> Result<Self, StepError> {
        let missing = || select::missing(&tree, source, "the stage or image it is mounted from");
        let path = LayerPath::clean(source.as_bytes()).ok_or_else(missing)?;
        let path = tree.resolve(&path, true)?;
        let is_folder = match tree.get(&path) {
            Some(node) => node.entry.kind == Kind::Directory,
            None if path.is_root() => true,
            None => return Err(missing().into()),
        };
        let content = MountContent::Root(state.content);
        let mut found = Self { state, tree, path, is_folder, content };
        if !found.path.is_root() {
            found.content = MountContent::Files(found.items()?.layer_content());
        }
        Ok(found)
    }

    /// All of it, by paths below it; a file by the name that a bound file has.
    pub(super) fn items(&self) -> Result<Items, StepError> {
        let mut items = Items::default();
        for entry in select::all_below(&self.tree, &self.state.diff_ids(), &self.path) {
            let owner = entry.owner;
            let path = if self.is_folder { entry.relative.clone() } else { ContextTree::FILE.as_bytes().to_vec() };
            items.put(item(LayerPath::clean(&path).unwrap_or_default(), entry, owner));
        }
        items.link_names_of_one_file();
        Ok(items)
    }
}

fn item(path: LayerPath, entry: SelectedEntry, owner: (u32, u32)) -> Item {
    let xattrs = kept_attributes(entry.capability.as_ref());
    let SelectedEntry { kind, mode, modified, content, digest, same_file, .. } = entry;
    // One source alone.
    let same_file = same_file.map(|(device, inode)| (0, device, inode));
    let entry = Entry { path, kind, mode: mode & 0o7777, uid: owner.0, gid: owner.1, modified, xattrs };
    Item { entry, content, digest, same_file, timeless: false }
}

impl Executor {
    /// What the mounts of a command show, in their order.
    pub(in super::super) fn mount_contents(
        &self,
        step: StepId,
        op: &RunOp,
        states: &States,
    ) -> Result<Vec<Shown>, StepError> {
        op.mounts.iter().map(|mount| self.mount_content(step, mount, states)).collect()
    }

    fn mount_content(&self, step: StepId, mount: &Mount, states: &States) -> Result<Shown, StepError> {
        if !matches!(mount.kind, MountKind::Bind | MountKind::Cache { .. }) {
            return Ok(Shown::Nothing);
        }
        match mount.from {
            MountFrom::Nothing => Ok(Shown::Nothing),
            MountFrom::Context => Ok(Shown::Context(self.context_tree(None, &mount.source)?)),
            MountFrom::Folder(folder) => Ok(Shown::Context(self.context_tree(Some(folder), &mount.source)?)),
            MountFrom::Root(root) => {
                let state = states.of(root);
                let tree = self.tree(step, &state)?;
                Ok(Shown::Root(RootTree::find(state, tree, &mount.source)?))
            }
        }
    }

    /// A part of the context, or of a named one, looked at once in a build.
    pub(in super::super) fn context_tree(
        &self,
        folder: Option<FolderId>,
        source: &str,
    ) -> Result<Arc<ContextTree>, StepError> {
        let mut known = self.mounts.context.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = (folder, source.to_owned());
        if let Some(found) = known.get(&wanted) {
            return Ok(found.clone());
        }
        // As in a path of the context: `..` stops at its root.
        let mut names: Vec<&str> = Vec::new();
        for name in source.split('/') {
            match name {
                "" | "." => {}
                ".." => drop(names.pop()),
                name => names.push(name),
            }
        }
        // A bind has no wildcards.
        let literal: String = names.join("/").chars().fold(String::new(), |mut text, character| {
            if matches!(character, '*' | '?' | '[' | '\\') {
                text.push('\\');
            }
            text.push(character);
            text
        });
        let context = match folder {
            None => &self.context,
            Some(folder) => self.folder(folder)?,
        };
        let selection = context.select(&literal)?;
        let Some(source) = selection.sources.into_iter().next() else {
            let (pattern, place) = (source.to_owned(), "the build context".to_owned());
            return Err(SelectError::Missing { pattern, place, nearest: None }.into());
        };
        let mut selected = select::from_context(source);
        self.hash(std::slice::from_mut(&mut selected))?;
        let tree = Arc::new(ContextTree::new(selected));
        known.insert(wanted, tree.clone());
        Ok(tree)
    }
}
