//! What a step changed, as the entries of a layer: read from the upper folder of an overlay mount, or by comparing a tree
//! with its [`Manifest`] from before.
//!
//! The rules are BuildKit's, so that the same step gives the same layer: a removed name becomes a whiteout only when the
//! layers below have it; a folder that was removed and made again is written as one whiteout for each name that vanished;
//! what was copied up and not changed is left out; folders on the way to a change come with it; sockets are dropped; of
//! the extended attributes, `security.capability` is kept. Where BuildKit trusts equal sizes and times, the content is
//! compared as well.

mod compare;
mod manifest;
mod owned;

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use self::compare::is_unchanged;
pub use self::manifest::Manifest;
use self::owned::Owned;
pub use self::owned::note_owners;
use super::lowers::{Found, MergedFolder, is_opaque, is_whiteout, marks, opaque};
use super::{Change, Entry, FileTime, Kind, LayerPath, Source};
use crate::owners::{self, Inodes, Owner, Paths};

/// The one extended attribute that layers carry: what `setcap` sets.
const CAPABILITY: &str = "security.capability";

/// Attributes of overlayfs that send a reader elsewhere. We mount with them off, so that only an image could bring them.
const REDIRECTS: [&[u8]; 4] =
    [b"trusted.overlay.redirect", b"trusted.overlay.metacopy", b"user.overlay.redirect", b"user.overlay.metacopy"];

/// Why the changes of a step could not be told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChangesError {
    /// The file system refused something.
    #[error("{during} {} to find what the step changed", path.display())]
    Io {
        /// What was being done.
        during: &'static str,
        /// The file or folder on this machine.
        path: PathBuf,
        /// The system's words.
        #[source]
        source: io::Error,
    },
    /// A name that a layer cannot hold.
    #[error(
        "the step made {path}, and a layer cannot hold it: names that start with `.wh.` mean a removed file; remove it in the same step"
    )]
    ReservedName {
        /// The entry.
        path: LayerPath,
    },
    /// A file that is elsewhere, by an attribute that we do not follow.
    #[error(
        "{path} has the attribute {attribute}, which sends overlayfs to another file; expected none, as we mount without"
    )]
    Redirected {
        /// The entry.
        path: LayerPath,
        /// The attribute.
        attribute: String,
    },
}

impl ChangesError {
    fn at(during: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { during, path, source }
    }
}

/// What the upper folder of an overlay mount has changed over the unpacked layers in `lowers` (topmost first).
///
/// Sorted by path, each path once, a folder before what is in it. The root itself has no entry. Content is named by its
/// place in `upper`, which must stay until the layer is written.
///
/// # Errors
/// When something cannot be read or cannot be in a layer. The mount must be gone, or at rest.
pub fn overlay_changes(upper: &Path, lowers: &[PathBuf]) -> Result<Vec<Change>, ChangesError> {
    let mut walk = Walk::new(upper, lowers)?;
    walk.run(lowers)?;
    Ok(walk.changes.finished)
}

/// Takes out of an upper folder what its changes leave out: unchanged copies, sockets, marks of removal that remove
/// nothing, and overlayfs's notes to itself. Then it is what unpacking the layer gives (to the nanoseconds of times), whatever is below.
///
/// Where owners are recorded, its table is written and that of the run goes.
///
/// Returns whether it is so only over these `lowers`, as something in it hides more than the layer says.
pub fn tidy_upper(upper: &Path, lowers: &[PathBuf]) -> Result<bool, ChangesError> {
    let mut walk = Walk::new(upper, lowers)?;
    walk.run(lowers)?;
    if walk.changes.owned.are_recorded() {
        let mut table = Paths::default();
        note_owners(&mut table, &walk.changes.finished);
        let kept = table.write_for(upper).and_then(|()| Inodes::default().write_for_run(upper));
        kept.map_err(ChangesError::at("keeping the owners beside", upper))?;
    }
    // The layer has the folders' times as they were.
    let mut times = BTreeMap::new();
    for path in &walk.found.left_out {
        if let Some(folder) = path.parent()
            && !times.contains_key(folder)
        {
            let modified = fs::symlink_metadata(folder).and_then(|metadata| metadata.modified());
            times.insert(folder.to_owned(), modified.map_err(ChangesError::at("looking at", folder))?);
        }
        let metadata = fs::symlink_metadata(path).map_err(ChangesError::at("looking at", path))?;
        // An unchanged folder is last, after what was in it, and stays when something remains there.
        let removed = if metadata.is_dir() { fs::remove_dir(path) } else { fs::remove_file(path) };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::DirectoryNotEmpty => {
                return Err(ChangesError::at("removing the unchanged", path)(error));
            }
            _ => {}
        }
    }
    for (folder, modified) in times {
        let restored = fs::File::open(&folder).and_then(|folder| folder.set_modified(modified));
        match restored {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(ChangesError::at("setting the time of", &folder)(error));
            }
            _ => {}
        }
    }
    for (path, name) in &walk.found.of_the_mount {
        match rustix::fs::lremovexattr(path, &name[..]) {
            Ok(()) | Err(Errno::NODATA | Errno::NOENT) => {}
            Err(error) => return Err(ChangesError::at("changing the attributes of", path)(error.into())),
        }
    }
    Ok(walk.found.hides_all_below)
}

/// Changes in order, with the folders on the way to them.
#[derive(Default)]
struct Changes {
    finished: Vec<Change>,
    /// Unchanged folders on the way to where the walk is; they get entries when something below has changed.
    waiting: Vec<Change>,
    /// First names of files with several, by device and inode.
    first_names: HashMap<(u64, u64), LayerPath>,
    owned: Owned,
}

impl Changes {
    fn new(owned: Owned) -> Self {
        Self { owned, ..Self::default() }
    }

    fn push(&mut self, change: Change) {
        self.finished.append(&mut self.waiting);
        self.finished.push(change);
    }

    fn push_whiteout(&mut self, path: LayerPath) {
        let modified = FileTime::default();
        let entry = Entry { path, kind: Kind::Whiteout, mode: 0, uid: 0, gid: 0, modified, xattrs: BTreeMap::new() };
        self.push(Change { entry, source: Source::None });
    }

    /// Begins a folder: its own change, or a wait for one below it. The answer goes to [`Changes::leave`].
    fn enter(&mut self, change: Change, changed: bool) -> usize {
        let waiting = self.waiting.len();
        if changed {
            self.push(change);
            0
        } else {
            self.waiting.push(change);
            waiting
        }
    }

    fn leave(&mut self, waiting: usize) {
        self.waiting.truncate(waiting);
    }

    /// What is at `at` on this machine becomes an entry; `None` for a socket. `before` is what was there, or is below.
    fn describe(
        &mut self,
        path: LayerPath,
        at: &Path,
        metadata: &Metadata,
        before: Option<(&Path, &Metadata)>,
    ) -> Result<Option<Change>, ChangesError> {
        let kind = metadata.file_type();
        let device = metadata.rdev();
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        let mut source = Source::None;
        let kind = if kind.is_dir() {
            Kind::Directory
        } else if kind.is_symlink() {
            let target = fs::read_link(at).map_err(ChangesError::at("reading the link", at))?;
            Kind::Symlink(target.into_os_string().as_bytes().to_vec())
        } else if kind.is_file() {
            let first = if metadata.nlink() > 1 {
                // A name that was left out as unchanged is not among these: the next one is written in full.
                let first = self.first_names.entry((metadata.dev(), metadata.ino())).or_insert_with(|| path.clone());
                (*first != path).then(|| first.clone())
            } else {
                None
            };
            match first {
                Some(first) => Kind::Hardlink(first),
                None => {
                    if metadata.len() > 0 {
                        source = Source::File { path: at.to_owned(), expected: None };
                    }
                    Kind::File { size_bytes: metadata.len() }
                }
            }
        } else if kind.is_char_device() {
            Kind::CharDevice { major, minor }
        } else if kind.is_block_device() {
            Kind::BlockDevice { major, minor }
        } else if kind.is_fifo() {
            Kind::Fifo
        } else {
            return Ok(None);
        };
        let xattrs = capability(at)?.map(|value| (CAPABILITY.as_bytes().to_vec(), value)).into_iter().collect();
        let modified = time(metadata);
        let Owner { uid, gid } = self.owned.now(at, metadata, before);
        let entry = Entry { path, kind, mode: owners::mode_of(at, metadata), uid, gid, modified, xattrs };
        Ok(Some(Change { entry, source }))
    }
}

/// What the walk of an upper folder finds besides the changes.
#[derive(Default)]
struct UpperState {
    /// What has no entry; a folder comes after what is in it.
    left_out: Vec<PathBuf>,
    /// Attributes that mean something to the one mount only: which file below something was copied from, and that a new
    /// folder is opaque, as overlayfs marks it though nothing is below.
    of_the_mount: Vec<(PathBuf, Vec<u8>)>,
    hides_all_below: bool,
}

struct Walk<'a> {
    upper: &'a Path,
    changes: Changes,
    found: UpperState,
}

/// A folder that the walk is in.
struct Open {
    path: LayerPath,
    /// What it is merged with, when something is there.
    below: Option<MergedFolder>,
    /// Whether what is below is hidden: it is compared with, and not seen.
    opaque: bool,
    /// The names that are still to be looked at, the next one last; whether it is in the upper folder.
    names: Vec<(Vec<u8>, bool)>,
    /// Of a folder that has no change of its own.
    unchanged: Option<Unchanged>,
}

struct Unchanged {
    /// How many folders wait before it.
    waiting: usize,
    /// Whether it needs not be there when nothing in it changed.
    tidy: bool,
}

impl<'a> Walk<'a> {
    fn new(upper: &'a Path, lowers: &[PathBuf]) -> Result<Self, ChangesError> {
        let changes = Changes::new(Owned::around(upper, lowers)?);
        Ok(Self { upper, changes, found: UpperState::default() })
    }

    /// Walks the tree, without recursion: a step can make folders as deep as paths can be long.
    fn run(&mut self, lowers: &[PathBuf]) -> Result<(), ChangesError> {
        let root = LayerPath::root();
        let opaque = is_opaque_at(self.upper)?;
        let mut open = vec![self.open(root, Some(MergedFolder::root(lowers)), opaque, None)?];
        while let Some(folder) = open.last_mut() {
            let Some((name, in_upper)) = folder.names.pop() else {
                if let Some(Unchanged { waiting, tidy }) = folder.unchanged {
                    self.changes.leave(waiting);
                    if tidy {
                        self.found.left_out.push(self.path(&folder.path));
                    }
                }
                open.pop();
                continue;
            };
            let path = folder.path.join(&name);
            if !in_upper {
                self.changes.push_whiteout(path);
                continue;
            }
            let found = match &folder.below {
                Some(below) => below
                    .child(&name)
                    .map_err(|error| ChangesError::at("looking at what is below", &self.path(&path))(error))?,
                None => None,
            };
            let opaque = folder.opaque;
            open.extend(self.entry(path, found, opaque)?);
        }
        Ok(())
    }

    fn open(
        &mut self,
        path: LayerPath,
        below: Option<MergedFolder>,
        opaque: bool,
        unchanged: Option<Unchanged>,
    ) -> Result<Open, ChangesError> {
        let here = self.path(&path);
        let mut names: BTreeMap<Vec<u8>, bool> = BTreeMap::new();
        for entry in fs::read_dir(&here).map_err(ChangesError::at("listing", &here))? {
            let entry = entry.map_err(ChangesError::at("listing", &here))?;
            names.insert(entry.file_name().as_bytes().to_vec(), true);
        }
        if opaque && let Some(below) = &below {
            self.found.hides_all_below = true;
            for name in below.names().map_err(ChangesError::at("listing what is below", &here))? {
                names.entry(name).or_insert(false);
            }
        }
        Ok(Open { path, below, opaque, names: names.into_iter().rev().collect(), unchanged })
    }

    /// Looks at what is in the upper tree at `path`; the answer is the folder to go on in.
    fn entry(&mut self, path: LayerPath, below: Option<Found>, in_opaque: bool) -> Result<Option<Open>, ChangesError> {
        let at = self.path(&path);
        let metadata = fs::symlink_metadata(&at).map_err(ChangesError::at("looking at", &at))?;
        // Whiteouts are hard links of each other, so that this comes before all that looks at inodes.
        if is_whiteout(&at, &metadata) {
            match below {
                Some(_) => self.changes.push_whiteout(path),
                None => self.found.left_out.push(at),
            }
            return Ok(None);
        }
        check_name(&path)?;
        let names = attribute_names(&at)?;
        refuse_redirects(&path, &names)?;
        let own = |name: &Vec<u8>| name.starts_with(marks().as_bytes()) && name != opaque().as_bytes();
        self.found.of_the_mount.extend(names.into_iter().filter(own).map(|name| (at.clone(), name)));
        let unchanged = match &below {
            Some(below) => is_unchanged(&at, &metadata, &below.path, &below.metadata, &self.changes.owned)?,
            None => false,
        };
        if unchanged && !metadata.is_dir() {
            // In an opaque folder, nothing else shows it.
            if !in_opaque {
                self.found.left_out.push(at);
            }
            return Ok(None);
        }
        let before = below.as_ref().map(|below| (&*below.path, &below.metadata));
        let Some(change) = self.changes.describe(path.clone(), &at, &metadata, before)? else {
            // A socket. What it replaced is gone all the same.
            if below.is_some() {
                self.changes.push_whiteout(path);
                self.found.hides_all_below = true;
            } else {
                self.found.left_out.push(at);
            }
            return Ok(None);
        };
        if !metadata.is_dir() {
            self.changes.push(change);
            return Ok(None);
        }
        let marked = is_opaque_at(&at)?;
        let below = below.and_then(|found| found.folder);
        if marked && below.is_none() {
            self.found.of_the_mount.push((at, opaque().as_bytes().to_vec()));
        }
        let waiting = self.changes.enter(change, !unchanged);
        let opaque = in_opaque || marked;
        let unchanged = unchanged.then_some(Unchanged { waiting, tidy: !opaque });
        self.open(path, below, opaque, unchanged).map(Some)
    }

    fn path(&self, at: &LayerPath) -> PathBuf {
        self.upper.join(at.as_path())
    }
}

/// A reader of the layer would take it for the removal of another file.
fn check_name(path: &LayerPath) -> Result<(), ChangesError> {
    if path.name().is_some_and(|name| name.starts_with(b".wh.")) {
        return Err(ChangesError::ReservedName { path: path.clone() });
    }
    Ok(())
}

fn time(metadata: &Metadata) -> FileTime {
    FileTime { seconds: metadata.mtime(), nanoseconds: u32::try_from(metadata.mtime_nsec()).unwrap_or(0) }
}

fn is_opaque_at(path: &Path) -> Result<bool, ChangesError> {
    is_opaque(path).map_err(ChangesError::at("reading the attributes of", path))
}

fn refuse_redirects(path: &LayerPath, names: &[Vec<u8>]) -> Result<(), ChangesError> {
    match names.iter().find(|name| REDIRECTS.contains(&&name[..])) {
        Some(name) => {
            Err(ChangesError::Redirected { path: path.clone(), attribute: String::from_utf8_lossy(name).into_owned() })
        }
        None => Ok(()),
    }
}

/// The names of the extended attributes of what is at `at`.
fn attribute_names(at: &Path) -> Result<Vec<Vec<u8>>, ChangesError> {
    let failed = |error: Errno| ChangesError::at("listing the attributes of", at)(error.into());
    let mut short = [0; 1024];
    let mut long;
    let list = match rustix::fs::llistxattr(at, &mut short[..]) {
        Ok(length) => &short[..length],
        Err(Errno::RANGE) => {
            // The kernel holds at most 64 KiB of names (`XATTR_LIST_MAX`).
            long = vec![0; 65536];
            let length = rustix::fs::llistxattr(at, &mut long[..]).map_err(failed)?;
            &long[..length]
        }
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    Ok(list.split(|byte| *byte == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect())
}

/// The value of `security.capability`: 20 or 24 bytes (capabilities(7)). One that the kernel cannot read gives nothing.
fn capability(at: &Path) -> Result<Option<Vec<u8>>, ChangesError> {
    let mut value = [0; 64];
    let name = if owners::are_modes_recorded() { owners::CAPABILITY } else { CAPABILITY };
    match rustix::fs::lgetxattr(at, name, &mut value[..]) {
        Ok(length) => Ok(Some(value[..length].to_vec())),
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::INVAL) => Ok(None),
        Err(error) => Err(ChangesError::at("reading the capabilities of", at)(error.into())),
    }
}

#[cfg(test)]
mod tests;
