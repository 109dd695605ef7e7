//! The root file system that an image shows, entry by entry.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read};

use oci_spec::image::{Descriptor, Digest};

use super::{ExportError, contents};
use crate::blob::Store;
use crate::image::manifest;
use crate::layer::{Entry, IndexEntry, Kind, LayerError, LayerIndex, LayerPath, Limits, Times, Tree, read_layer};

/// What takes the entries. A hard link's target has come before.
pub(super) type Visit<'a> = dyn FnMut(&Entry, &mut dyn Read) -> Result<(), ExportError> + 'a;

/// An image's layers and the view that they give together.
pub(super) struct Root {
    store: Store,
    layers: Vec<Descriptor>,
    tree: Tree,
}

impl Root {
    /// Reads the headers of all layers.
    ///
    /// They are read from the layers and not from the indexes that the store keeps: an index has the times that a build
    /// saw, and what is written out has the times that the image carries.
    pub(super) fn open(store: &Store, image: &Descriptor, what: &'static str) -> Result<Self, ExportError> {
        let one = contents::one_image(store, image, what)?;
        let mut tree = Tree::new();
        let mut layers = Vec::new();
        for (number, (layer, diff_id)) in manifest::layers(&one.manifest, &one.config)?.into_iter().enumerate() {
            let mut index = LayerIndex::default();
            let blob = store.open_verified(layer.digest())?;
            let scan =
                read_layer::<LayerError>(blob, layer.media_type().as_ref(), &Limits::DEFAULT, &mut |entry, _| {
                    index.entries.push(IndexEntry { entry: entry.clone(), content: None });
                    Ok(())
                })?;
            if scan.diff_id.as_ref() != diff_id {
                return Err(mismatch(layer.digest(), diff_id, scan.diff_id));
            }
            tree.push(&index, number);
            layers.push(layer.clone());
        }
        Ok(Self { store: store.clone(), layers, tree })
    }

    /// Shows every entry once: folders, then files in the order of the layers, then all else; each of them sorted.
    ///
    /// Layers are streams, so that content comes in their order; a folder is always before what is in it.
    pub(super) fn visit(&self, times: Times, visit: &mut Visit<'_>) -> Result<(), ExportError> {
        let timed = |entry: &Entry| Entry { modified: times.apply(entry.modified), ..entry.clone() };
        // Which entry of which layer has the content of which files: several when they are hard links.
        let mut wanted: HashMap<(usize, usize), Vec<&Entry>> = HashMap::new();
        for (_, node) in self.tree.iter() {
            if node.entry.kind == Kind::Directory {
                visit(&timed(&node.entry), &mut io::empty())?;
            }
            if let Some(origin) = &node.origin {
                wanted.entry((origin.layer, origin.number)).or_default().push(&node.entry);
            }
        }
        let mut links: BTreeMap<LayerPath, Entry> = BTreeMap::new();
        for (number, layer) in self.layers.iter().enumerate() {
            if !wanted.keys().any(|(layer, _)| *layer == number) {
                continue;
            }
            let blob = self.store.open_verified(layer.digest())?;
            let mut position = 0;
            read_layer::<ExportError>(blob, layer.media_type().as_ref(), &Limits::DEFAULT, &mut |_, content| {
                let names = wanted.get(&(number, position));
                position += 1;
                let Some((first, others)) = names.and_then(|names| names.split_first()) else { return Ok(()) };
                visit(&timed(first), content)?;
                for other in others {
                    let kind = Kind::Hardlink(first.path.clone());
                    links.insert(other.path.clone(), Entry { kind, ..timed(other) });
                }
                Ok(())
            })?;
        }
        for (path, node) in self.tree.iter() {
            match &node.entry.kind {
                Kind::Directory => {}
                Kind::File { .. } => {
                    if let Some(link) = links.get(path) {
                        visit(link, &mut io::empty())?;
                    }
                }
                // No layer has what it is a name of: no tool can unpack this image.
                Kind::Hardlink(target) => {
                    let (path, target) = (path.clone(), target.clone());
                    return Err(LayerError::DanglingHardlink { path, target }.into());
                }
                _ => visit(&timed(&node.entry), &mut io::empty())?,
            }
        }
        Ok(())
    }
}

fn mismatch(layer: &Digest, diff_id: &str, actual: Digest) -> ExportError {
    match diff_id.parse() {
        Ok(expected) => crate::blob::StoreError::DigestMismatch { expected, actual }.into(),
        Err(_) => crate::image::ImageError::Unreadable {
            what: "configuration",
            reason: format!("the diff id {diff_id:?} of layer {layer} is no digest"),
        }
        .into(),
    }
}
