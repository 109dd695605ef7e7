//! Files with other times than their layers', in a folder that lies over these layers for one command.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags, XattrFlags};
use rustix::io::Errno;

use super::super::StepError;
use super::folder::{set_like, set_time};
use crate::cache_mount::Moment;
use crate::owners::{self, Owner};

const CAPABILITY: &str = "security.capability";

/// Largest `security.capability` attribute, in bytes; version 3 has 24.
const CAPABILITY_MAX_BYTES: usize = 64;

/// A file in one of the folders below.
pub(in crate::execute) struct Below {
    /// At its begin.
    pub(in crate::execute) file: File,
    pub(in crate::execute) metadata: Metadata,
    owner: Owner,
    /// Its time.
    pub(super) modified: Moment,
}

/// Opens the folders of a merged view.
pub(in crate::execute) fn open_all(lowers: &[PathBuf]) -> Vec<OwnedFd> {
    let open = |lower: &PathBuf| rustix::fs::open(lower, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok();
    lowers.iter().filter_map(open).collect()
}

/// What a merged view of `lowers` (topmost first) shows at `path`, when it is a regular file.
pub(in crate::execute) fn find_below(lowers: &[OwnedFd], path: &Path) -> Option<Below> {
    lowers.iter().find_map(|lower| {
        let file = File::from(open_in(lower, path, OFlags::RDONLY | OFlags::NONBLOCK).ok()?);
        let metadata = file.metadata().ok().filter(Metadata::is_file)?;
        let modified = Moment { seconds: metadata.mtime(), nanoseconds: metadata.mtime_nsec().try_into().unwrap_or(0) };
        let owner = owners::of_open(file.as_fd(), &metadata);
        Some(Below { file, metadata, owner, modified })
    })
}

/// Links are not followed: what a view shows has none on its way, and one in a lower layer leads elsewhere.
pub(in crate::execute) fn open_in(lower: &OwnedFd, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(lower, path, flags | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty(), resolve)
}

/// A cover while it is made.
pub(super) struct Cover<'a> {
    folder: PathBuf,
    /// The one before, whose files may be used again.
    before: Option<PathBuf>,
    lowers: &'a [OwnedFd],
    /// The folders made, with what they must look like in the end.
    folders: BTreeMap<PathBuf, Option<(Owner, Metadata)>>,
}

impl<'a> Cover<'a> {
    pub(super) fn create(folder: PathBuf, before: Option<PathBuf>, lowers: &'a [OwnedFd]) -> Result<Self, StepError> {
        // One that a killed build left under that name.
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).map_err(failed(&folder))?;
        let mut cover = Self { folder, before, lowers, folders: BTreeMap::new() };
        cover.add_folder(Path::new(""))?;
        Ok(cover)
    }

    /// Shows the file at `path` with that time. `is_known` says that the cover before has it with this content and time.
    pub(super) fn add(&mut self, path: &Path, shown: Moment, is_known: bool) -> Result<(), StepError> {
        // A file that is there by its index and not on the disk: the command would not see it either.
        let Some(below) = find_below(self.lowers, path) else { return Ok(()) };
        if let Some(parent) = path.parent() {
            self.add_folders(parent)?;
        }
        let target = self.folder.join(path);
        if is_known && self.link(path, &below, shown, &target) {
            return Ok(());
        }
        copy(&below, shown, &target).map_err(failed(&target))
    }

    /// Uses the file of the cover before, which spares the copy.
    fn link(&self, path: &Path, below: &Below, shown: Moment, target: &Path) -> bool {
        let Some(before) = &self.before else { return false };
        let file = before.join(path);
        let same = |metadata: &Metadata| {
            let id = |metadata: &Metadata| (metadata.mode(), metadata.len());
            id(metadata) == id(&below.metadata)
                && owners::of(&file, metadata) == below.owner
                && (metadata.mtime(), metadata.mtime_nsec()) == (shown.seconds, shown.nanoseconds.into())
        };
        fs::symlink_metadata(&file).is_ok_and(|metadata| same(&metadata)) && fs::hard_link(&file, target).is_ok()
    }

    fn add_folders(&mut self, path: &Path) -> Result<(), StepError> {
        let mut so_far = PathBuf::new();
        for name in path.components() {
            so_far.push(name);
            if !self.folders.contains_key(&so_far) {
                let target = self.folder.join(&so_far);
                fs::create_dir(&target).map_err(failed(&target))?;
                self.add_folder(&so_far)?;
            }
        }
        Ok(())
    }

    fn add_folder(&mut self, path: &Path) -> Result<(), StepError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let found = self.lowers.iter().find_map(|lower| {
            let folder = File::from(open_in(lower, path, flags).ok()?);
            let metadata = folder.metadata().ok()?;
            Some((owners::of_open(folder.as_fd(), &metadata), metadata))
        });
        self.folders.insert(path.to_owned(), found);
        Ok(())
    }

    /// Gives the folders what they show below, and says where the cover is.
    pub(super) fn finish(self) -> Result<PathBuf, StepError> {
        for (path, found) in self.folders.iter().rev() {
            let path = self.folder.join(path);
            if let Some((owner, metadata)) = found {
                set_like(&path, *owner, metadata).map_err(failed(&path))?;
            }
        }
        Ok(self.folder)
    }
}

fn copy(below: &Below, shown: Moment, target: &Path) -> io::Result<()> {
    let mut to = File::options().write(true).create_new(true).open(target)?;
    // The kernel shares the blocks where the file system can.
    io::copy(&mut &below.file, &mut to)?;
    set_like(target, below.owner, &below.metadata)?;
    let mut value = [0; CAPABILITY_MAX_BYTES];
    if let Ok(length) = rustix::fs::fgetxattr(&below.file, CAPABILITY, &mut value[..]) {
        rustix::fs::fsetxattr(&to, CAPABILITY, &value[..length], XattrFlags::empty())?;
    }
    set_time(target, shown.seconds, shown.nanoseconds.into())
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> StepError {
    let path = path.to_owned();
    move |source| StepError::Temporary { path, source }
}
