//! What a step is about to put into a layer: entries, and where each one's content is.

use std::collections::BTreeMap;

use oci_spec::image::Digest;

use crate::cache::{LayerContent, LayerContentHasher};
use crate::layer::{Entry, FileTime, Kind, LayerPath, Source};

/// Where the bytes of a file are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// Not a file.
    None,
    /// In memory or on this machine's disk.
    Source(Source),
    /// In a layer, under this path there.
    Layer {
        /// Diff id of the layer.
        diff_id: Digest,
        /// Path in the layer.
        path: LayerPath,
    },
    /// A part of the step's own temporary file.
    Spooled {
        /// Where it starts.
        offset_bytes: u64,
    },
}

/// One entry to write.
#[derive(Clone, Debug)]
pub(super) struct Item {
    /// The entry.
    pub(super) entry: Entry,
    /// Its content.
    pub(super) content: Content,
    /// SHA-256 of the content, where it is known already.
    pub(super) digest: Option<Digest>,
    /// Files that share this are one file with several names: source, device and inode.
    pub(super) same_file: Option<(usize, u64, u64)>,
    /// Its time says nothing of its content: it is that of a check-out, or of a folder that is named only for what is in it.
    pub(super) timeless: bool,
}

/// The entries of a layer to be, each path once.
#[derive(Clone, Debug, Default)]
pub(super) struct Items(BTreeMap<LayerPath, Item>);

impl Items {
    pub(super) fn get(&self, path: &LayerPath) -> Option<&Item> {
        self.0.get(path)
    }

    /// Takes an entry; what was at its path before is replaced.
    pub(super) fn put(&mut self, item: Item) {
        self.0.insert(item.entry.path.clone(), item);
    }

    /// Takes an entry unless its path is taken.
    pub(super) fn put_if_absent(&mut self, item: Item) {
        self.0.entry(item.entry.path.clone()).or_insert(item);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Item> {
        self.0.values()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Item> {
        self.0.values_mut()
    }

    /// Turns all but the first name of a file that was selected under several into hard links, as the reference does.
    pub(super) fn link_names_of_one_file(&mut self) {
        let mut first: BTreeMap<(usize, u64, u64), LayerPath> = BTreeMap::new();
        for item in self.0.values_mut() {
            let Some(file) = item.same_file else { continue };
            match first.get(&file) {
                None => {
                    first.insert(file, item.entry.path.clone());
                }
                Some(path) => {
                    item.entry.kind = Kind::Hardlink(path.clone());
                    item.content = Content::None;
                    item.digest = None;
                }
            }
        }
    }

    /// Lets the first name of each file of an archive carry its content, and the others link to that one: a link must come
    /// after what it links to, and a layer is sorted where an archive need not be.
    pub(super) fn order_links(&mut self) {
        let mut names: BTreeMap<LayerPath, Vec<LayerPath>> = BTreeMap::new();
        for item in self.0.values() {
            if matches!(item.entry.kind, Kind::Hardlink(_)) {
                let file = self.linked_file(&item.entry.path);
                names.entry(file).or_default().push(item.entry.path.clone());
            }
        }
        for (file, links) in names {
            let Some(item) = self.0.get(&file).filter(|item| matches!(item.entry.kind, Kind::File { .. })) else {
                continue;
            };
            let (item, first) = (item.clone(), links.iter().min().min(Some(&file)).unwrap_or(&file).clone());
            for name in links.iter().chain([&file]) {
                let mut named = item.clone();
                named.entry.path = name.clone();
                if *name != first {
                    named.entry.kind = Kind::Hardlink(first.clone());
                    (named.content, named.digest) = (Content::None, None);
                }
                self.put(named);
            }
        }
    }

    /// What a link leads to in the end: links of an archive may link to links.
    fn linked_file(&self, path: &LayerPath) -> LayerPath {
        let mut path = path.clone();
        // An archive may link in a circle; no chain is longer than there are entries.
        for _ in 0..=self.0.len() {
            match self.0.get(&path).map(|item| &item.entry.kind) {
                Some(Kind::Hardlink(target)) => path = target.clone(),
                _ => break,
            }
        }
        path
    }

    /// The entries whose times say nothing, as records name them.
    pub(super) fn timeless(&self) -> Vec<String> {
        self.iter().filter(|item| item.timeless).map(|item| item.entry.path.to_string()).collect()
    }

    /// What the layer will hold, for the step's key.
    pub(super) fn layer_content(&self) -> LayerContent {
        let mut hasher = LayerContentHasher::default();
        for item in self.iter() {
            hasher.entry(&item.entry, item.digest.as_ref().map(Digest::digest));
        }
        hasher.finish()
    }
}

/// A folder that the builder makes itself.
pub(super) fn made_directory(path: LayerPath, owner: (u32, u32), modified: FileTime) -> Item {
    let entry = Entry {
        path,
        kind: Kind::Directory,
        mode: 0o755,
        uid: owner.0,
        gid: owner.1,
        modified,
        xattrs: BTreeMap::new(),
    };
    Item { entry, content: Content::None, digest: None, same_file: None, timeless: true }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> LayerPath {
        LayerPath::clean(text.as_bytes()).unwrap()
    }

    fn item(name: &str, kind: Kind, mode: u32) -> Item {
        let mut item = made_directory(path(name), (1, 2), FileTime::default());
        (item.entry.kind, item.entry.mode) = (kind, mode);
        if matches!(item.entry.kind, Kind::File { .. }) {
            item.content = Content::Spooled { offset_bytes: 7 };
        }
        item
    }

    #[test]
    fn the_first_name_of_an_archives_file_carries_it() {
        let mut items = Items::default();
        items.put(item("z/file", Kind::File { size_bytes: 3 }, 0o600));
        items.put(item("a/link", Kind::Hardlink(path("z/file")), 0));
        items.put(item("m/link", Kind::Hardlink(path("a/link")), 0));
        items.put(item("x/ring", Kind::Hardlink(path("y/ring")), 0));
        items.put(item("y/ring", Kind::Hardlink(path("x/ring")), 0));
        items.order_links();
        let shown = |name: &str| {
            let item = items.get(&path(name)).unwrap();
            (item.entry.kind.clone(), item.entry.mode, item.content != Content::None)
        };
        assert_eq!(shown("a/link"), (Kind::File { size_bytes: 3 }, 0o600, true));
        assert_eq!(shown("m/link"), (Kind::Hardlink(path("a/link")), 0o600, false));
        assert_eq!(shown("z/file"), (Kind::Hardlink(path("a/link")), 0o600, false));
    }
}
