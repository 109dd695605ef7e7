//! Contexts that are no folder of the build's own: what `--build-context` names, and a context that is fetched.
//!
//! A tree that is fetched as an archive becomes a root file system of its own, as if a stage had added it to nothing. So it
//! is copied from, mounted and built upon as any stage is, and its files keep the owners that the archive gives them.

use std::collections::BTreeMap;

use fluyt_client::{Reference, without_password};

use super::lower::GraphBuilder;
use super::op::{About, CopyFrom, CopyOp, FetchOp, ImageRequest, MountFrom, Op, OpId, Root};
use super::stages::Origin;
use crate::dockerfile::Lines;
use crate::image::Platform;

/// What the steps of the build's own context are called.
const MAIN: &str = "context";

/// What the steps that bring the sources of an `ADD` are called.
pub(super) const ADDRESS: &str = "address";

/// Names a folder among those of the named contexts, in the caller's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FolderId(pub usize);

/// What stands for the context, and for images and stages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contexts {
    /// The build's own context, where it is no folder on this machine.
    pub main: Option<FetchedTree>,
    /// `--build-context`, by name: that of an image without `docker.io/library/` and `:latest`, or that of a stage; with
    /// `::platform` at its end it is for that platform alone.
    pub named: BTreeMap<String, NamedContext>,
}

/// What a `--build-context` stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamedContext {
    /// Nothing (`docker-image://scratch`).
    Scratch,
    /// An image: a reference, or the address of an OCI layout.
    Image(String),
    /// A folder on this machine.
    Folder(FolderId),
    /// Something fetched.
    Tree(FetchedTree),
}

/// Files that are fetched.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FetchedTree {
    /// What is fetched.
    pub fetch: FetchOp,
    /// Whether that is an archive of the files, rather than the only one.
    pub unpack: bool,
}

/// Where an instruction finds files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Files {
    Folder(FolderId),
    Root(Root),
}

impl From<Files> for CopyFrom {
    fn from(files: Files) -> Self {
        match files {
            Files::Folder(folder) => Self::Folder(folder),
            Files::Root(root) => Self::Root(root),
        }
    }
}

impl From<Files> for MountFrom {
    fn from(files: Files) -> Self {
        match files {
            Files::Folder(folder) => Self::Folder(folder),
            Files::Root(root) => Self::Root(root),
        }
    }
}

impl Contexts {
    /// What the name of an image or a stage stands for; none when it is what it says.
    pub(super) fn origin(&self, name: &str, platform: &Platform) -> Option<Origin> {
        // Reserved: neither can be given another meaning.
        if self.named.is_empty() || name == "scratch" || name == "context" {
            return None;
        }
        let name = normal_name(name);
        let for_platform = format!("{name}::{platform}");
        let key = [for_platform, name].into_iter().find(|key| self.named.contains_key(key))?;
        Some(match self.named.get(&key)? {
            NamedContext::Scratch => Origin::Scratch,
            NamedContext::Image(reference) => {
                Origin::Image(ImageRequest { reference: reference.clone(), platform: platform.clone() })
            }
            NamedContext::Folder(_) | NamedContext::Tree(_) => Origin::Context(key),
        })
    }
}

/// An image's name as contexts are named: `docker.io/library/alpine:latest` is `alpine`. What is no image's name stays.
#[must_use]
pub fn normal_name(name: &str) -> String {
    let (name, platform) = name.split_once("::").map_or((name, None), |(name, platform)| (name, Some(platform)));
    let familiar = Reference::parse(name).map_or_else(|_| name.to_owned(), |reference| reference.familiar());
    let short = familiar.strip_suffix(":latest").unwrap_or(&familiar);
    match platform {
        None => short.to_owned(),
        Some(platform) => {
            let platform = platform.parse().map_or_else(|_| platform.to_owned(), |known: Platform| known.to_string());
            format!("{short}::{platform}")
        }
    }
}

impl GraphBuilder<'_> {
    /// The files of a named context.
    pub(super) fn context_files(&mut self, key: &str, lines: Lines) -> Option<Files> {
        match self.input.contexts.named.get(key)? {
            NamedContext::Folder(folder) => Some(Files::Folder(*folder)),
            NamedContext::Tree(tree) => Some(Files::Root(self.tree(tree, key, lines))),
            NamedContext::Scratch | NamedContext::Image(_) => None,
        }
    }

    /// The build's own context, where it is fetched.
    pub(super) fn main_context(&mut self, lines: Lines) -> Option<Root> {
        let tree = self.input.contexts.main.as_ref()?;
        Some(self.tree(tree, MAIN, lines))
    }

    /// The root file system that fetched files make.
    pub(super) fn tree(&mut self, tree: &FetchedTree, name: &str, lines: Lines) -> Root {
        if let Some(root) = self.trees.get(tree) {
            return *root;
        }
        let fetch = self.fetch(&tree.fetch, name, lines);
        let op = everything(CopyFrom::Fetch(fetch), tree.unpack);
        let root = Root::Of(self.push(Op::Copy(op), about(name, "unpack", lines)));
        self.trees.insert(tree.clone(), root);
        root
    }

    /// The root file system that holds nothing but a named folder.
    pub(super) fn folder_root(&mut self, folder: FolderId, name: &str, lines: Lines) -> Root {
        if let Some(root) = self.folders.get(&folder) {
            return *root;
        }
        let op = CopyOp { sources: vec![String::new()], ..everything(CopyFrom::Folder(folder), false) };
        let root = Root::Of(self.push(Op::Copy(op), about(name, "copy", lines)));
        self.folders.insert(folder, root);
        root
    }

    /// The operation that fetches; one for each thing, however many instructions name it.
    pub(super) fn fetch(&mut self, fetch: &FetchOp, name: &str, lines: Lines) -> OpId {
        if let Some(id) = self.fetches.get(fetch) {
            return *id;
        }
        let id = self.push(Op::Fetch(fetch.clone()), about(name, &format!("fetch {}", fetch.what()), lines));
        self.fetches.insert(fetch.clone(), id);
        id
    }
}

impl FetchOp {
    /// What it is, for messages: without a password or token that the address may hold.
    #[must_use]
    pub fn what(&self) -> String {
        match self {
            Self::Url { url, .. } => without_password(url),
            Self::Git { remote, .. } => without_password(remote),
            Self::Given { what, .. } => what.clone(),
        }
    }

    /// Whether its address holds a password or token, so that the line which spells it must not be shown.
    #[must_use]
    pub fn has_password(&self) -> bool {
        match self {
            Self::Url { url: address, .. } | Self::Git { remote: address, .. } => self.what() != *address,
            Self::Given { .. } => false,
        }
    }
}

/// All of what is copied, onto nothing.
pub(super) fn everything(from: CopyFrom, unpack: bool) -> CopyOp {
    CopyOp {
        input: Root::Scratch,
        from,
        sources: Vec::new(),
        inline: Vec::new(),
        destination: "/".to_owned(),
        destination_is_directory: true,
        chown: None,
        chmod: None,
        link: false,
        parents: false,
        exclude: Vec::new(),
        unpack,
    }
}

fn about(name: &str, instruction: &str, lines: Lines) -> About {
    let stage = match name {
        MAIN | ADDRESS => name.to_owned(),
        name => format!("context {name}"),
    };
    About { instruction: instruction.to_owned(), stage: Some(stage), lines, step: 1, steps: 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_reference() {
        for (name, expected) in [
            ("alpine", "alpine"),
            ("alpine:latest", "alpine"),
            ("docker.io/library/alpine:3", "alpine:3"),
            ("ghcr.io/a/b:latest", "ghcr.io/a/b"),
            ("src", "src"),
            ("base::linux/arm64", "base::linux/arm64"),
            ("UPPER", "UPPER"),
        ] {
            assert_eq!(normal_name(name), expected, "{name}");
        }
    }
}
