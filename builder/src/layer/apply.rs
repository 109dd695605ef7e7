//! Unpacks a layer into a folder, so that nothing in the layer reaches anything outside of it.
//!
//! A layer comes from strangers. The folder that an entry goes into is opened by `openat2` with `RESOLVE_IN_ROOT`, and
//! the entry itself is made by its bare name in that folder, never through what stands there already. Symbolic links in
//! the place of a folder are followed inside the image only, as images have them (`lib -> usr/lib`); an entry that stands
//! where one stood before replaces it.
//!
//! In [`Form::Overlay`] the folder becomes a lower layer of an overlay mount: removals are kept as overlayfs keeps them,
//! and where the layer has no entry for a folder that it puts something into, the folder gets the owner, mode and time
//! that it has in the layers below, as the topmost layer's attributes are what a mount shows. In [`Form::Flat`] the
//! folder holds the whole image so far, and removals are done.

mod ahead;
mod attributes;
mod place;
mod removals;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use self::ahead::read_ahead;
use self::attributes::Attributes;
use self::place::Folder;
use super::lowers::MergedFolder;
use super::read::check_media_type;
use super::{Apart, Entry, IndexTap, Kind, LayerError, LayerIndex, LayerPath, Limits, Scan};
use crate::owners::{self, Paths};

/// Bytes of content that are written at a time.
const BUFFER_BYTES: usize = 256 * 1024;

/// How many notes about what was left out are kept.
const NOTES_MAX: usize = 1000;

/// How removals are kept.
#[derive(Clone, Copy, Debug)]
pub enum Form<'a> {
    /// As overlayfs keeps them; the folder holds this layer alone.
    Overlay {
        /// The unpacked layers below, topmost first.
        lowers: &'a [PathBuf],
    },
    /// They are done at once; the folder holds the layers below already.
    Flat,
    /// So too, and devices are left out: for a tree that commands see where nothing can be mounted without device nodes.
    FlatWithoutDevices,
}

/// What unpacking a layer came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// What the layer turned out to be. Compare its diff id before the folder is used.
    pub scan: Scan,
    /// What could not be unpacked and does not matter to most images: devices, owners that cannot be set. The first 1,000.
    pub left_out: Vec<LeftOut>,
    /// Whether other layers below could have given other files: a folder without an entry took its attributes from
    /// there, or a link there was followed.
    pub depends_on_lowers: bool,
    /// Whether the layer says what the root itself is like.
    pub has_root: bool,
    /// Owners that the tree cannot hold, for the table beside it; in the flat form with those that were there.
    pub owners: Paths,
}

/// Something in a layer that is not in the unpacked tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// The entry.
    pub path: LayerPath,
    /// What of it, and why.
    pub what: String,
}

/// Why a layer could not be unpacked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// The layer cannot be read.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// The disk or the user's quota is full.
    #[error("the disk is full while unpacking {path}; free space there, or choose another store with `--store`")]
    DiskFull {
        /// The entry.
        path: LayerPath,
        /// The system's words.
        #[source]
        source: io::Error,
    },
    /// The file system refused something.
    #[error("{during} {path} of the layer")]
    Io {
        /// What was being done.
        during: &'static str,
        /// The entry.
        path: LayerPath,
        /// The system's words.
        #[source]
        source: io::Error,
    },
    /// Something stands in what is no folder.
    #[error("the layer's entry {path} stands in {folder}, which is no folder in this image")]
    NoFolder {
        /// The entry.
        path: LayerPath,
        /// What should be a folder.
        folder: LayerPath,
    },
    /// The way to an entry leads through too many symbolic links.
    #[error("the layer's entry {path} is behind more than {limit} symbolic links")]
    TooManyLinks {
        /// The entry.
        path: LayerPath,
        /// How many are followed.
        limit: usize,
    },
    /// Asked for apart, the layer turned out to need those below.
    #[error("the layer's entry {path} takes something from the layers below")]
    ReachesBelow {
        /// The first entry that does.
        path: LayerPath,
    },
    /// A hard link to what is not there.
    #[error("the layer's entry {path} is a hard link to {target}, which {reason}")]
    HardlinkTarget {
        /// The entry.
        path: LayerPath,
        /// What it links to.
        target: LayerPath,
        /// What is wrong with that.
        reason: &'static str,
    },
}

impl ApplyError {
    fn at(during: &'static str, path: &LayerPath, source: impl Into<io::Error>) -> Self {
        let (path, source) = (path.clone(), source.into());
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { path, source },
            _ => Self::Io { during, path, source },
        }
    }
}

/// Unpacks the layer that `blob` holds, in any compression, into the folder `root`.
///
/// In [`Form::Overlay`] the folder must be empty. Nobody else may write below it meanwhile. After an error it is in no
/// particular state, and the caller removes it.
///
/// # Errors
/// What is wrong with the layer, or what the file system refused.
pub fn apply_layer(
    blob: impl Read + Send,
    media_type: &str,
    limits: &Limits,
    root: &Path,
    form: Form<'_>,
) -> Result<Applied, ApplyError> {
    apply_layer_with_times(blob, media_type, limits, root, form, None)
}

/// As [`apply_layer`], with the times of `index`, the layer's own: those that the layer carries may be cut or clamped.
///
/// # Errors
/// As [`apply_layer`].
pub fn apply_layer_with_times(
    blob: impl Read + Send,
    media_type: &str,
    limits: &Limits,
    root: &Path,
    form: Form<'_>,
    index: Option<&LayerIndex>,
) -> Result<Applied, ApplyError> {
    let mut applier = Applier::new(root, form)?;
    check_media_type(media_type)?;
    let mut rows = index.map(|index| index.entries.iter()).unwrap_or_default();
    let scan = read_ahead(blob, limits, &mut |entry, content| match rows.next() {
        Some(row) if row.entry.path == entry.path && row.entry.modified != entry.modified => {
            applier.entry(&Entry { modified: row.entry.modified, ..entry.clone() }, content)
        }
        _ => applier.entry(entry, content),
    })?;
    applier.finish(scan)
}

/// As [`apply_layer`] in [`Form::Overlay`] above nothing, and makes the layer's index in the same pass.
///
/// # Errors
/// As [`apply_layer`]; [`ApplyError::ReachesBelow`] at the first entry for which it matters what is below.
pub fn apply_layer_apart(
    blob: impl Read + Send,
    media_type: &str,
    limits: &Limits,
    root: &Path,
) -> Result<(Applied, LayerIndex), ApplyError> {
    let mut applier = Applier::new(root, Form::Overlay { lowers: &[] })?;
    check_media_type(media_type)?;
    let (mut tap, mut apart) = (IndexTap::default(), Apart::default());
    let scan = read_ahead(blob, limits, &mut |entry, content| {
        if !apart.admits(entry) {
            return Err(ApplyError::ReachesBelow { path: entry.path.clone() });
        }
        tap.pass::<ApplyError>(entry, content, &mut |entry, content| applier.entry(entry, content))
    })?;
    Ok((applier.finish(scan)?, tap.finish()))
}

struct Applier {
    makes_devices: bool,
    root: PathBuf,
    root_fd: OwnedFd,
    /// `None` in the flat form.
    lowers: Option<MergedFolder>,
    /// The folder that was used last, under the path that led there.
    last: Option<(LayerPath, Rc<Folder>)>,
    /// What folders get at the end, by where they really are: before it, unpacking into them may be forbidden, and
    /// changes their times.
    folders: BTreeMap<LayerPath, Attributes>,
    /// Folders of this layer that hide what is below. Paths are real ones, without links.
    opaque: HashSet<LayerPath>,
    /// All that this layer brought so far, in the flat form.
    brought: BTreeSet<LayerPath>,
    left_out: Vec<LeftOut>,
    depends_on_lowers: bool,
    has_root: bool,
    owners: Paths,
    buffer: Vec<u8>,
}

impl Applier {
    fn new(root: &Path, form: Form<'_>) -> Result<Self, ApplyError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root_fd = rustix::fs::open(root, flags, Mode::empty())
            .map_err(|error| ApplyError::at("opening", &LayerPath::root(), error))?;
        let lowers = match form {
            Form::Overlay { lowers } => Some(MergedFolder::root(lowers)),
            Form::Flat | Form::FlatWithoutDevices => None,
        };
        let owners = match form {
            Form::Flat | Form::FlatWithoutDevices if owners::are_recorded() => Paths::of_tree(root)
                .map_err(|error| ApplyError::at("reading the owners of", &LayerPath::root(), error))?,
            _ => Paths::default(),
        };
        let mut applier = Self {
            root: root.to_owned(),
            root_fd,
            lowers,
            last: None,
            folders: BTreeMap::new(),
            opaque: HashSet::new(),
            brought: BTreeSet::new(),
            left_out: Vec::new(),
            depends_on_lowers: false,
            has_root: false,
            owners,
            makes_devices: !matches!(form, Form::FlatWithoutDevices),
            buffer: vec![0; BUFFER_BYTES],
        };
        if applier.lowers.is_some() {
            applier.folders.insert(LayerPath::root(), Attributes::unknown_folder());
        } else {
            applier.keep_attributes(&LayerPath::root())?;
        }
        Ok(applier)
    }

    fn entry(&mut self, entry: &Entry, content: &mut dyn Read) -> Result<(), ApplyError> {
        match (&entry.kind, entry.path.parent(), entry.path.name()) {
            (Kind::Opaque, ..) => match self.folder_of_removal(&entry.path, &entry.path)? {
                Some(folder) => self.hide_below(&folder.path),
                None => Ok(()),
            },
            (Kind::Whiteout, Some(parent), Some(name)) => match self.folder_of_removal(&parent, &entry.path)? {
                Some(folder) => self.whiteout(&folder, name),
                None => Ok(()),
            },
            (Kind::Directory, None, _) => {
                self.has_root = true;
                self.folders.insert(LayerPath::root(), Attributes::of(entry));
                Ok(())
            }
            (_, Some(parent), Some(name)) => {
                let folder = self.folder(&parent, &entry.path)?;
                self.child(entry, &folder, name, content)
            }
            // The reader lets nothing else have the root's path.
            _ => Ok(()),
        }
    }

    fn child(&mut self, entry: &Entry, folder: &Folder, name: &[u8], content: &mut dyn Read) -> Result<(), ApplyError> {
        let at = folder.path.join(name);
        match &entry.kind {
            Kind::Directory => self.make_folder(folder, name, Attributes::of(entry))?,
            Kind::Hardlink(target) => self.hardlink(entry, folder, name, target)?,
            Kind::File { .. } => self.file(entry, folder, name, content)?,
            Kind::Symlink(target) => {
                self.last = None;
                self.replacing(folder, name, &mut || rustix::fs::symlinkat(&target[..], &folder.fd, name))?;
                self.set_attributes_of_name(entry, folder, name)?;
            }
            Kind::Fifo => self.node(entry, folder, name, FileType::Fifo, 0)?,
            Kind::CharDevice { major: 0, minor: 0 } => {
                self.note(&entry.path, "a character device 0:0, which overlayfs takes for a removed file");
                return Ok(());
            }
            Kind::CharDevice { major, minor } => {
                self.node(entry, folder, name, FileType::CharacterDevice, rustix::fs::makedev(*major, *minor))?;
            }
            Kind::BlockDevice { major, minor } => {
                self.node(entry, folder, name, FileType::BlockDevice, rustix::fs::makedev(*major, *minor))?;
            }
            // Not here: they bring nothing.
            Kind::Whiteout | Kind::Opaque => return Ok(()),
        }
        if self.lowers.is_none() {
            self.brought.insert(at);
        }
        Ok(())
    }

    fn file(&mut self, entry: &Entry, folder: &Folder, name: &[u8], content: &mut dyn Read) -> Result<(), ApplyError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd =
            self.replacing(folder, name, &mut || rustix::fs::openat(&folder.fd, name, flags, Mode::RUSR | Mode::WUSR))?;
        let mut file = fs::File::from(fd);
        loop {
            // The reader knows what is wrong with the layer, and says so in place of this.
            let count = match content.read(&mut self.buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(ApplyError::at("reading", &entry.path, error)),
            };
            file.write_all(&self.buffer[..count]).map_err(|error| ApplyError::at("writing", &entry.path, error))?;
        }
        self.set_attributes_of_file(entry, &folder.path.join(name), file.as_fd())
    }

    /// A device or a named pipe.
    fn node(
        &mut self,
        entry: &Entry,
        folder: &Folder,
        name: &[u8],
        kind: FileType,
        device: u64,
    ) -> Result<(), ApplyError> {
        let mode = Mode::RUSR | Mode::WUSR;
        let is_left_out = kind != FileType::Fifo && !self.makes_devices;
        let made = self.replacing(folder, name, &mut || match is_left_out {
            false => rustix::fs::mknodat(&folder.fd, name, kind, mode, device),
            // What was there goes all the same.
            true => match rustix::fs::statat(&folder.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(_) => Err(Errno::EXIST),
                Err(_) => Err(Errno::PERM),
            },
        });
        match made {
            Ok(()) => self.set_attributes_of_name(entry, folder, name),
            Err(ApplyError::Io { source, .. })
                if kind != FileType::Fifo && source.kind() == io::ErrorKind::PermissionDenied =>
            {
                self.note(&entry.path, "a device, which we may not make here");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn hardlink(&mut self, entry: &Entry, folder: &Folder, name: &[u8], target: &LayerPath) -> Result<(), ApplyError> {
        let bad = |reason| ApplyError::HardlinkTarget { path: entry.path.clone(), target: target.clone(), reason };
        let (Some(parent), Some(target_name)) = (target.parent(), target.name()) else {
            return Err(bad("is the root"));
        };
        let missing = "is not there: a link's first name comes before it in the same layer";
        let Some(target_folder) = self.copy_up(&parent, target_name, &entry.path)? else { return Err(bad(missing)) };
        let stat = match rustix::fs::statat(&target_folder.fd, target_name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Err(bad(missing)),
            Err(error) => return Err(ApplyError::at("looking at the target of", &entry.path, error)),
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => return Err(bad("is a folder")),
            FileType::CharacterDevice if stat.st_rdev == 0 => return Err(bad("this layer removes")),
            FileType::RegularFile if stat.st_size == 0 && self.is_removed(&target_folder.path.join(target_name)) => {
                return Err(bad("this layer removes"));
            }
            _ => {}
        }
        if target_folder.path == folder.path && target_name == name {
            return Ok(());
        }
        let link = &mut || rustix::fs::linkat(&target_folder.fd, target_name, &folder.fd, name, AtFlags::empty());
        self.replacing(folder, name, link)?;
        // One file, by both names.
        if let Some(owner) = self.owners.get(target_folder.path.join(target_name).as_bytes()) {
            self.owners.insert(folder.path.join(name).as_bytes(), owner);
        }
        Ok(())
    }

    /// Makes a folder, or takes the one that is there.
    fn make_folder(&mut self, folder: &Folder, name: &[u8], attributes: Attributes) -> Result<(), ApplyError> {
        let at = folder.path.join(name);
        self.last = None;
        let make = || rustix::fs::mkdirat(&folder.fd, name, Mode::RWXU);
        match make() {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                let stat = rustix::fs::statat(&folder.fd, name, AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(|error| ApplyError::at("looking at", &at, error))?;
                if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                    self.remove(&at)?;
                    make().map_err(|error| ApplyError::at("making", &at, error))?;
                    // What it replaces hid the folder that the layers below may have there.
                    if self.lowers.is_some() {
                        self.mark_opaque(&at)?;
                    }
                }
            }
            Err(error) => return Err(ApplyError::at("making", &at, error)),
        }
        self.folders.insert(at, attributes);
        Ok(())
    }

    fn finish(mut self, scan: Scan) -> Result<Applied, ApplyError> {
        self.hide_below_root()?;
        self.set_attributes_of_folders()?;
        Ok(Applied {
            scan,
            left_out: self.left_out,
            depends_on_lowers: self.depends_on_lowers,
            has_root: self.has_root,
            owners: self.owners,
        })
    }

    fn note(&mut self, path: &LayerPath, what: impl Into<String>) {
        if self.left_out.len() < NOTES_MAX {
            self.left_out.push(LeftOut { path: path.clone(), what: what.into() });
        }
    }
}

#[cfg(test)]
mod tests;
