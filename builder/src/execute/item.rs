//! What a step is about to put into a layer: entries, and where each one's content is.

use std::collections::BTreeMap;

use oci_spec::image::Digest;

use crate::blob::ContentHash;
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
    /// Of the content, where it is known already. A file that has another one when it is written has changed.
    pub(super) digest: Option<ContentHash>,
    /// Files that share this are one file with several names: source, device and inode.
    pub(super) same_file: Option<(usize, u64, u64)>,
    /// Its time says nothing of its content: it is that of a check-out, or of a folder that is named only for what is in it.
    pub(super) timeless: bool,
}

/// The entries of a layer to be, each path once. What comes in order leaves half of each node of a tree empty, and an item is
/// large: so it lies outside.
#[derive(Clone, Debug, Default)]
pub(super) struct Items(BTreeMap<LayerPath, Box<Item>>);

impl Items {
    pub(super) fn get(&self, path: &LayerPath) -> Option<&Item> {
        self.0.get(path).map(|item| &**item)
    }

    /// Takes an entry; what was at its path before is replaced.
    pub(super) fn put(&mut self, item: Item) {
        self.0.insert(item.entry.path.clone(), Box::new(item));
    }

    /// Drops all that lies below a path.
    pub(super) fn remove_below(&mut self, path: &LayerPath) {
        let inside = [path.as_bytes(), b"/"].concat();
        self.0.retain(|path, _| !path.as_bytes().starts_with(&inside));
    }

    /// Takes an entry unless its path is taken.
    pub(super) fn put_if_absent(&mut self, item: Item) {
        self.0.entry(item.entry.path.clone()).or_insert_with(|| Box::new(item));
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Item> {
        self.0.values().map(|item| &**item)
    }

    /// The entries, each gone once it is used.
    pub(super) fn into_each(self) -> impl Iterator<Item = Item> {
        self.0.into_values().map(|item| *item)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Item> {
        self.0.values_mut().map(|item| &mut **item)
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

    /// The entries whose times say nothing, as records name them.
    pub(super) fn timeless(&self) -> Vec<String> {
        self.iter().filter(|item| item.timeless).map(|item| item.entry.path.to_string()).collect()
    }

    /// What the layer will hold, for the step's key.
    pub(super) fn layer_content(&self) -> LayerContent {
        let mut hasher = LayerContentHasher::default();
        for item in self.iter() {
            hasher.entry(&item.entry, item.digest);
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

    #[test]
    fn the_first_name_of_a_file_carries_it() {
        let mut items = Items::default();
        for (name, same_file) in [("z/file", 1), ("a/link", 1), ("m/other", 2)] {
            let mut item = made_directory(path(name), (1, 2), FileTime::default());
            item.entry.kind = Kind::File { size_bytes: 3 };
            item.content = Content::Spooled { offset_bytes: 7 };
            item.same_file = Some((usize::MAX, 0, same_file));
            items.put(item);
        }
        items.link_names_of_one_file();
        let shown = |name: &str| {
            let item = items.get(&path(name)).unwrap();
            (item.entry.kind.clone(), item.content != Content::None)
        };
        assert_eq!(shown("a/link"), (Kind::File { size_bytes: 3 }, true));
        assert_eq!(shown("m/other"), (Kind::File { size_bytes: 3 }, true));
        assert_eq!(shown("z/file"), (Kind::Hardlink(path("a/link")), false));
    }
}
