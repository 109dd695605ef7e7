//! Whether a layer takes something from the layers below it, told while its entries pass by.

use std::collections::HashSet;

use super::{Entry, Kind, LayerPath};

/// The entries of a layer so far, as long as it stands alone: it unpacks to the same whatever is below it, as it says
/// itself, before it puts something there, that each folder is a folder and what it is like, and links to no file of
/// another layer.
#[derive(Debug, Default)]
pub struct Apart {
    folders: HashSet<LayerPath>,
    others: HashSet<LayerPath>,
}

impl Apart {
    /// Takes the layer's next entry; `false` when with it the layer does not stand alone.
    pub fn admits(&mut self, entry: &Entry) -> bool {
        let path = &entry.path;
        if path.parent().is_some_and(|parent| !parent.is_root() && !self.folders.contains(&parent)) {
            return false;
        }
        match &entry.kind {
            Kind::Directory => {
                self.folders.insert(path.clone());
            }
            Kind::Whiteout | Kind::Opaque => {}
            Kind::Hardlink(target) if !self.others.contains(target) => return false,
            // A folder that gives way to something else is none from here on.
            _ if self.folders.contains(path) => return false,
            _ => {
                self.others.insert(path.clone());
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::entry;
    use super::*;

    #[test]
    fn a_layer_that_takes_something_from_below_does_not_stand_alone() {
        let file = Kind::File { size_bytes: 1 };
        let link = |target: &str| Kind::Hardlink(LayerPath::clean(target.as_bytes()).unwrap());
        let folder = ("usr", Kind::Directory);
        let alone = |entries: &[(&str, Kind)]| {
            let mut apart = Apart::default();
            entries.iter().all(|(path, kind)| apart.admits(&entry(path, kind.clone())))
        };
        assert!(alone(&[]));
        assert!(alone(&[("file", file.clone()), ("gone", Kind::Whiteout)]));
        assert!(alone(&[folder.clone(), ("usr/a", file.clone()), ("usr/b", link("usr/a")), ("usr", Kind::Opaque)]));
        assert!(!alone(&[("usr/a", file.clone())]), "what is the folder like?");
        assert!(!alone(&[("usr/a", file.clone()), folder.clone()]), "it is said too late");
        assert!(!alone(&[("usr", Kind::Symlink(b"other".to_vec())), ("usr/a", file.clone())]), "a link is followed");
        assert!(!alone(&[folder.clone(), ("usr", file.clone())]));
        assert!(!alone(&[("b", link("a"))]), "the file is in another layer");
        assert!(!alone(&[("usr/a", Kind::Whiteout)]), "what is the folder like?");
    }
}
