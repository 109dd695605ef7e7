//! Where an entry goes: folders opened inside the root, links followed inside the image, and room made for a name.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::rc::Rc;

use rustix::fd::OwnedFd;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::attributes::Attributes;
use super::{Applier, ApplyError};
use crate::layer::LayerPath;

/// How many symbolic links are followed on the way to one entry; the kernel's own limit (path_resolution(7)).
const LINKS_MAX: usize = 40;

/// An open folder of the tree that is unpacked into.
pub(super) struct Folder {
    /// Where it really is: no component is a link.
    pub(super) path: LayerPath,
    pub(super) fd: OwnedFd,
}

/// What stands at a path of the image so far.
enum Seen {
    Folder,
    Link(Vec<u8>),
    Other,
    /// Nothing, or a mark that it was removed.
    Nothing,
}

impl Applier {
    /// The folder at `path`, links followed; made where it is missing. `entry` is what it is for.
    pub(super) fn folder(&mut self, path: &LayerPath, entry: &LayerPath) -> Result<Rc<Folder>, ApplyError> {
        if let Some((cached, folder)) = &self.last
            && cached == path
        {
            return Ok(Rc::clone(folder));
        }
        let folder = match self.existing_folder(path, entry)? {
            Some(folder) => folder,
            None => {
                let real = self.resolve(path, entry)?;
                self.make_missing(&real)?;
                let fd = self.open(&real).map_err(|error| ApplyError::at("opening", &real, error))?;
                Folder { path: real, fd }
            }
        };
        self.keep_attributes(&folder.path)?;
        let folder = Rc::new(folder);
        self.last = Some((path.clone(), Rc::clone(&folder)));
        Ok(folder)
    }

    /// The folder at `path`, links followed, when it is there in this tree.
    pub(super) fn existing_folder(
        &mut self,
        path: &LayerPath,
        entry: &LayerPath,
    ) -> Result<Option<Folder>, ApplyError> {
        match self.open(path) {
            Ok(fd) => return Ok(Some(Folder { path: path.clone(), fd })),
            Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => {}
            Err(error) => return Err(ApplyError::at("opening the folder of", entry, error)),
        }
        let real = self.resolve(path, entry)?;
        match self.open(&real) {
            Ok(fd) => Ok(Some(Folder { path: real, fd })),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(ApplyError::at("opening the folder of", entry, error)),
        }
    }

    /// The folder of a hard link's target. When only the layers below have the target, it is copied into this layer, as
    /// the kernel does when a name is linked on a mount: some builders write such links without their first name.
    pub(super) fn copy_up(
        &mut self,
        parent: &LayerPath,
        name: &[u8],
        entry: &LayerPath,
    ) -> Result<Option<Rc<Folder>>, ApplyError> {
        let real = match self.existing_folder(parent, entry)? {
            Some(folder) => {
                if fs::symlink_metadata(self.path(&folder.path.join(name))).is_ok() {
                    return Ok(Some(Rc::new(folder)));
                }
                folder.path
            }
            None => self.resolve(parent, entry)?,
        };
        let at = real.join(name);
        let Some(found) = self.below(&at)?.filter(|found| found.metadata.is_file()) else { return Ok(None) };
        self.depends_on_lowers = true;
        let folder = self.folder(&real, entry)?;
        let copy = || -> io::Result<()> {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = rustix::fs::openat(&folder.fd, name, flags, Mode::RUSR | Mode::WUSR)?;
            io::copy(&mut fs::File::open(&found.path)?, &mut fs::File::from(fd))?;
            Ok(())
        };
        copy().map_err(|error| ApplyError::at("copying from below", &at, error))?;
        self.copy_attributes(&at, &found)?;
        Ok(Some(folder))
    }

    /// Opens a real folder: no component may be a link.
    pub(super) fn open(&self, path: &LayerPath) -> Result<OwnedFd, Errno> {
        self.open_at(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW)
    }

    fn open_at(&self, path: &LayerPath, flags: OFlags) -> Result<OwnedFd, Errno> {
        let bytes = if path.is_root() { b"." } else { path.as_bytes() };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS;
        match rustix::fs::openat2(&self.root_fd, bytes, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            // Kernels before 5.6, and older seccomp filters of containers.
            Err(Errno::NOSYS | Errno::PERM) => self.open_by_steps(path, flags),
            outcome => outcome,
        }
    }

    /// Does the same name by name.
    pub(super) fn open_by_steps(&self, path: &LayerPath, flags: OFlags) -> Result<OwnedFd, Errno> {
        let always = OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = OFlags::PATH | OFlags::DIRECTORY;
        let open = |at: &OwnedFd, name: &[u8], flags| rustix::fs::openat(at, name, flags | always, Mode::empty());
        let Some((parent, name)) = path.parent().zip(path.name()) else { return open(&self.root_fd, b".", flags) };
        let mut at = open(&self.root_fd, b".", folder)?;
        for component in parent.components() {
            at = open(&at, component, folder)?;
        }
        open(&at, name, flags)
    }

    /// Where a path leads in the image so far: this layer over those below. What is missing is taken for a folder.
    pub(super) fn resolve(&mut self, path: &LayerPath, entry: &LayerPath) -> Result<LayerPath, ApplyError> {
        let mut at = LayerPath::root();
        let mut ahead: Vec<Vec<u8>> = path.components().rev().map(<[u8]>::to_vec).collect();
        let mut links = 0;
        while let Some(name) = ahead.pop() {
            match &name[..] {
                b"" | b"." => continue,
                // As in a root directory, `..` of the root is the root.
                b".." => {
                    at = at.parent().unwrap_or_default();
                    continue;
                }
                _ => {}
            }
            let next = at.join(&name);
            match self.see(&next)? {
                Seen::Folder | Seen::Nothing => at = next,
                Seen::Other => return Err(ApplyError::NoFolder { path: entry.clone(), folder: next }),
                Seen::Link(target) => {
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(ApplyError::TooManyLinks { path: entry.clone(), limit: LINKS_MAX });
                    }
                    if target.starts_with(b"/") {
                        at = LayerPath::root();
                    }
                    ahead.extend(target.split(|byte| *byte == b'/').rev().map(<[u8]>::to_vec));
                }
            }
        }
        Ok(at)
    }

    /// Looks at a path whose folder is real or missing.
    fn see(&mut self, path: &LayerPath) -> Result<Seen, ApplyError> {
        let failed = |error: io::Error| ApplyError::at("looking at", path, error);
        match self.open_at(path, OFlags::PATH | OFlags::NOFOLLOW) {
            Ok(fd) => {
                let stat = rustix::fs::fstat(&fd).map_err(|error| failed(error.into()))?;
                return Ok(match FileType::from_raw_mode(stat.st_mode) {
                    FileType::Directory => Seen::Folder,
                    FileType::Symlink => {
                        let target = rustix::fs::readlinkat(&fd, "", Vec::new());
                        Seen::Link(target.map_err(|error| failed(error.into()))?.into_bytes())
                    }
                    FileType::CharacterDevice if stat.st_rdev == 0 => Seen::Nothing,
                    FileType::RegularFile if stat.st_size == 0 && self.is_removed(path) => Seen::Nothing,
                    _ => Seen::Other,
                });
            }
            Err(Errno::NOENT) => {}
            // Its folder is marked as removed, with all that was in it.
            Err(Errno::NOTDIR) => return Ok(Seen::Nothing),
            Err(error) => return Err(failed(error.into())),
        }
        let Some(found) = self.below(path)? else { return Ok(Seen::Nothing) };
        if found.folder.is_some() {
            return Ok(Seen::Folder);
        }
        // Another image may have a folder where this one has something else.
        self.depends_on_lowers = true;
        if found.metadata.is_symlink() {
            let target = fs::read_link(&found.path).map_err(failed)?;
            return Ok(Seen::Link(target.into_os_string().as_bytes().to_vec()));
        }
        Ok(Seen::Other)
    }

    /// What the layers below show at a real path, unless this layer hides it.
    pub(super) fn below(&self, path: &LayerPath) -> Result<Option<crate::layer::lowers::Found>, ApplyError> {
        let Some(lowers) = &self.lowers else { return Ok(None) };
        let mut folder = path.parent();
        while let Some(at) = folder {
            if self.opaque.contains(&at) {
                return Ok(None);
            }
            folder = at.parent();
        }
        lowers.find(path).map_err(|error| ApplyError::at("looking below", path, error))
    }

    /// Makes the folders of a real path that the layer has no entry for.
    fn make_missing(&mut self, path: &LayerPath) -> Result<(), ApplyError> {
        let mut at = LayerPath::root();
        let mut parent: Option<OwnedFd> = None;
        for name in path.components() {
            let next = at.join(name);
            match self.open(&next) {
                Ok(fd) => parent = Some(fd),
                Err(Errno::NOENT | Errno::NOTDIR) => {
                    self.keep_attributes(&at)?;
                    let fd = match parent.take() {
                        Some(fd) => fd,
                        None => self.open(&at).map_err(|error| ApplyError::at("opening", &at, error))?,
                    };
                    // A removed name hides what is below it.
                    let removed = fs::symlink_metadata(self.path(&next)).is_ok();
                    let below = if removed { None } else { self.below(&next)? };
                    let attributes = match below {
                        Some(found) if found.folder.is_some() => Attributes::of_place(&found.path, &found.metadata),
                        _ => Attributes::unknown_folder(),
                    };
                    self.make_folder(&Folder { path: at, fd }, name, attributes)?;
                }
                Err(error) => return Err(ApplyError::at("opening", &next, error)),
            }
            at = next;
        }
        Ok(())
    }

    /// Does `make`, which must fail when the name is taken; then removes what has it, and does it again.
    pub(super) fn replacing<T>(
        &mut self,
        folder: &Folder,
        name: &[u8],
        make: &mut dyn FnMut() -> Result<T, Errno>,
    ) -> Result<T, ApplyError> {
        let at = folder.path.join(name);
        match make() {
            Err(Errno::EXIST) => {
                self.remove(&at)?;
                make()
            }
            other => other,
        }
        .map_err(|error| ApplyError::at("making", &at, error))
    }

    /// Removes what is at a real path, with all below it.
    pub(super) fn remove(&mut self, at: &LayerPath) -> Result<(), ApplyError> {
        self.last = None;
        let path = self.path(at);
        let removed = match fs::symlink_metadata(&path) {
            // Every component is a real folder, and nobody else writes here.
            Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(&path),
            Ok(_) => fs::remove_file(&path),
            Err(error) => Err(error),
        };
        removed.map_err(|error| ApplyError::at("removing", at, error))?;
        self.forget(at);
        Ok(())
    }

    /// Forgets what was known about a real path and all below it, as it is gone.
    pub(super) fn forget(&mut self, at: &LayerPath) {
        while let Some(path) = self.folders.range(at.clone()..).next().map(|(path, _)| path.clone()) {
            if !path.starts_with(at) {
                break;
            }
            self.folders.remove(&path);
            self.opaque.remove(&path);
        }
        if !self.owners.is_empty() {
            self.owners.forget(at.as_bytes());
        }
        while let Some(path) = self.brought.range(at.clone()..).next().cloned() {
            if !path.starts_with(at) {
                break;
            }
            self.brought.remove(&path);
        }
    }

    /// Whether this layer brought what is at a real path, or something below it (flat form).
    pub(super) fn brought_below(&self, at: &LayerPath) -> bool {
        self.brought.range(at.clone()..).next().is_some_and(|path| path.starts_with(at))
    }

    /// A real path of the tree, on this machine.
    pub(super) fn path(&self, at: &LayerPath) -> PathBuf {
        self.root.join(at.as_path())
    }
}
