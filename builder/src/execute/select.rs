//! What a `COPY` takes, from the context or from a root file system, in one form.

use std::collections::BTreeMap;

use oci_spec::image::Digest;

use super::item::Content;
use super::placing::CAPABILITY;
use crate::blob::ContentHash;
use crate::context::{self, BadPattern, FileKind, Filter, FilterState, Pattern, SourceEntry, nearest_file_name};
use crate::layer::{FileTime, Kind, LayerPath, Source, Tree, TreeError};

/// One selected source.
#[derive(Clone, Debug)]
pub(super) struct Selected {
    /// Path as matched; its last component is the name in a destination folder.
    pub(super) name: Vec<u8>,
    /// The source itself first, with an empty relative path, then all below it, sorted.
    pub(super) entries: Vec<SelectedEntry>,
}

/// One entry of a source.
#[derive(Clone, Debug)]
pub(super) struct SelectedEntry {
    pub(super) relative: Vec<u8>,
    pub(super) kind: Kind,
    pub(super) mode: u32,
    pub(super) owner: (u32, u32),
    pub(super) modified: FileTime,
    pub(super) capability: Option<Vec<u8>>,
    pub(super) content: Content,
    pub(super) digest: Option<ContentHash>,
    pub(super) same_file: Option<(u64, u64)>,
    /// A folder that is not selected itself, and is there for what is selected in it.
    pub(super) is_way: bool,
}

impl Selected {
    pub(super) fn is_directory(&self) -> bool {
        self.entries.first().is_some_and(|entry| entry.kind == Kind::Directory)
    }
}

/// A source in a root file system that cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum SelectError {
    /// A literal path that is not there.
    #[error("`{pattern}` is not in {place}{}", nearest.as_deref().map_or_else(String::new, |near| format!("; did you mean `{near}`?")))]
    Missing {
        /// As written.
        pattern: String,
        /// Where it was looked for.
        place: String,
        /// A path that is there and may have been meant.
        nearest: Option<String>,
    },
    /// A path that leads nowhere.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// A pattern that cannot be read.
    #[error(transparent)]
    Pattern(#[from] BadPattern),
}

/// A source of the context. Its files belong to root, whoever has them on this machine.
pub(super) fn from_context(source: context::Source) -> Selected {
    Selected { name: source.name, entries: source.entries.into_iter().map(context_entry).collect() }
}

fn context_entry(entry: SourceEntry) -> SelectedEntry {
    let is_file = entry.kind == FileKind::File;
    let kind = match entry.kind {
        FileKind::File => Kind::File { size_bytes: entry.size_bytes },
        FileKind::Directory => Kind::Directory,
        FileKind::Symlink(target) => Kind::Symlink(target),
        FileKind::Fifo => Kind::Fifo,
        FileKind::CharDevice { major, minor } => Kind::CharDevice { major, minor },
        FileKind::BlockDevice { major, minor } => Kind::BlockDevice { major, minor },
    };
    let content = match is_file {
        true => Content::Source(Source::File { path: entry.absolute, expected: None }),
        false => Content::None,
    };
    SelectedEntry {
        relative: entry.relative,
        kind,
        mode: entry.mode,
        owner: (0, 0),
        modified: FileTime { seconds: entry.modified_seconds, nanoseconds: entry.modified_nanoseconds },
        capability: None,
        content,
        digest: None,
        same_file: (is_file && entry.links > 1).then_some((entry.device, entry.inode)),
        is_way: entry.is_way,
    }
}

/// The sources that `pattern` selects in a root file system, and of each what `filter` takes. `diff_ids` are its layers',
/// bottom first.
///
/// # Errors
/// When a path without wildcards is not there.
pub(super) fn from_tree(
    tree: &Tree,
    diff_ids: &[Digest],
    pattern: &str,
    filter: &Filter,
    place: &str,
    files: &mut Files,
) -> Result<Vec<Selected>, SelectError> {
    let missing = || missing(tree, pattern, place);
    let mut found = vec![LayerPath::root()];
    let wild = context::has_wildcards(pattern);
    for component in pattern.split('/').filter(|component| !component.is_empty()) {
        let matcher = context::has_wildcards(component).then(|| Pattern::parse(component)).transpose()?;
        let mut next = Vec::new();
        for path in &found {
            let folder = tree.resolve(path, true)?;
            match &matcher {
                Some(matcher) => {
                    let names = tree.children(&folder).map(|(name, _)| name).filter(|name| matcher.matches(name));
                    next.extend(names.map(|name| path.join(name)));
                }
                None if tree.get(&folder.join(component.as_bytes())).is_some() => {
                    next.push(path.join(component.as_bytes()))
                }
                None => {}
            }
        }
        found = next;
    }
    if found.is_empty() && !wild {
        return Err(missing());
    }
    let mut selected = Vec::new();
    for path in found {
        let base = tree.resolve(&path, true)?;
        let mut entries = Vec::new();
        let mut listing = Listing { tree, diff_ids, base: &base, filter, files, entries: &mut entries };
        listing.collect(&base, &FilterState::default());
        if entries.is_empty() || (!wild && filter.wants_a_path() && entries.len() == 1) {
            return Err(missing());
        }
        selected.push(Selected { name: path.as_bytes().to_vec(), entries });
    }
    Ok(selected)
}

/// That `pattern`, a path without wildcards, is not in `place`, and what may have been meant: with nothing but the first
/// component that is not there wrong.
pub(super) fn missing(tree: &Tree, pattern: &str, place: &str) -> SelectError {
    let mut folder = LayerPath::root();
    let mut nearest = None;
    for component in pattern.split('/').filter(|component| !component.is_empty()) {
        let Ok(resolved) = tree.resolve(&folder, true) else { break };
        folder = resolved.join(component.as_bytes());
        if tree.get(&folder).is_none() {
            let names = tree.children(&resolved).map(|(name, _)| name);
            nearest = nearest_file_name(component.as_bytes(), names).map(|name| resolved.join(name).to_string());
            break;
        }
    }
    SelectError::Missing { pattern: pattern.to_owned(), place: place.to_owned(), nearest }
}

/// `path`, which has no links in it, and all below it.
pub(super) fn all_below(tree: &Tree, diff_ids: &[Digest], path: &LayerPath) -> Vec<SelectedEntry> {
    let mut entries = Vec::new();
    let (filter, files) = (&Filter::default(), &mut Files::default());
    let mut listing = Listing { tree, diff_ids, base: path, filter, files, entries: &mut entries };
    listing.collect(path, &FilterState::default());
    entries
}

/// Numbers for the files that one step takes from a root file system: names of one file get the same.
#[derive(Debug, Default)]
pub(super) struct Files(BTreeMap<(usize, LayerPath), u64>);

impl Files {
    fn number(&mut self, layer: usize, path: &LayerPath) -> (u64, u64) {
        let next = self.0.len() as u64;
        // No device of this machine has that number.
        (u64::MAX, *self.0.entry((layer, path.clone())).or_insert(next))
    }
}

/// A walk through one source.
struct Listing<'l> {
    tree: &'l Tree,
    diff_ids: &'l [Digest],
    base: &'l LayerPath,
    filter: &'l Filter,
    files: &'l mut Files,
    entries: &'l mut Vec<SelectedEntry>,
}

impl Listing<'_> {
    /// `path` and all below it that the filter takes; says whether it took anything below. Depth is bounded by the longest
    /// path that a layer may have.
    fn collect(&mut self, path: &LayerPath, above: &FilterState) -> bool {
        let below = &path.as_bytes()[self.base.as_bytes().len()..];
        let relative = below.strip_prefix(b"/").unwrap_or(below).to_vec();
        let Some(entry) = self.entry(path, relative.clone()) else { return false };
        let is_folder = entry.kind == Kind::Directory;
        let (left_out, state) = match relative.is_empty() {
            true => (false, FilterState::default()),
            false => self.filter.check(&relative, above),
        };
        if left_out && !(is_folder && self.filter.may_take_inside(&relative, &state)) {
            return false;
        }
        let place = self.entries.len();
        self.entries.push(entry);
        let tree = self.tree;
        let mut any = false;
        if is_folder {
            for (name, _) in tree.children(path) {
                any |= self.collect(&path.join(name), &state);
            }
        }
        match self.entries.get_mut(place) {
            _ if left_out && !any => self.entries.truncate(place),
            Some(entry) => entry.is_way = left_out,
            None => {}
        }
        any || !left_out
    }

    fn entry(&mut self, path: &LayerPath, relative: Vec<u8>) -> Option<SelectedEntry> {
        match self.tree.get(path) {
            Some(node) => {
                let origin = node.origin.as_ref();
                let content = origin.and_then(|origin| {
                    let diff_id = self.diff_ids.get(origin.layer)?.clone();
                    Some(Content::Layer { diff_id, path: origin.path.clone() })
                });
                Some(SelectedEntry {
                    relative,
                    kind: node.entry.kind.clone(),
                    mode: node.entry.mode,
                    owner: (node.entry.uid, node.entry.gid),
                    modified: node.entry.modified,
                    capability: node.entry.xattrs.get(CAPABILITY).cloned(),
                    content: content.unwrap_or(Content::None),
                    digest: node.content,
                    same_file: origin.map(|origin| self.files.number(origin.layer, &origin.path)),
                    is_way: false,
                })
            }
            // The root of a tree has no entry.
            None if path.is_root() => Some(SelectedEntry {
                relative,
                kind: Kind::Directory,
                mode: 0o755,
                owner: (0, 0),
                modified: FileTime::default(),
                capability: None,
                content: Content::None,
                digest: None,
                same_file: None,
                is_way: false,
            }),
            None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::{Entry, IndexEntry, LayerIndex};

    #[test]
    fn names_of_one_file_are_one_and_other_files_are_not() {
        let file = |path: &str, kind: Kind| IndexEntry {
            entry: Entry {
                path: LayerPath::clean(path.as_bytes()).unwrap(),
                kind,
                mode: 0o644,
                uid: 0,
                gid: 0,
                modified: FileTime::default(),
                xattrs: BTreeMap::new(),
            },
            content: None,
        };
        let regular = || Kind::File { size_bytes: 1 };
        let link = Kind::Hardlink(LayerPath::clean(b"a/one").unwrap());
        let entries = vec![file("a/one", regular()), file("a/two", link), file("b/three", regular())];
        let mut tree = Tree::new();
        tree.push(&LayerIndex { entries, ..LayerIndex::default() }, 0);
        let diff_ids = [crate::blob::sha256(b"layer")];
        // Two patterns of one step: their files must not be taken for one another.
        let mut files = Files::default();
        let mut numbers = Vec::new();
        let all = Filter::default();
        for pattern in ["a/*", "b/three"] {
            for source in from_tree(&tree, &diff_ids, pattern, &all, "a stage", &mut files).unwrap() {
                numbers.extend(source.entries.iter().filter_map(|entry| entry.same_file));
            }
        }
        assert_eq!(numbers.len(), 3);
        assert_eq!(numbers[0], numbers[1]);
        assert_ne!(numbers[0], numbers[2]);
        let absent = |pattern| {
            from_tree(&tree, &diff_ids, pattern, &all, "a stage", &mut Files::default()).unwrap_err().to_string()
        };
        assert_eq!(absent("a/absent"), "`a/absent` is not in a stage");
        assert_eq!(absent("/b/tree"), "`/b/tree` is not in a stage; did you mean `/b/three`?");
        assert_eq!(absent("/B/three"), "`/B/three` is not in a stage; did you mean `/b`?");
        assert!(from_tree(&tree, &diff_ids, "x/*", &all, "a stage", &mut files).unwrap().is_empty());
    }
}
