//! An image's root file system as files in a folder (`type=local`).
//!
//! Everything is first written to a folder of our own, where no one else's links can be met, and then moved into place.
//! A new destination appears whole. Into one that exists, entries are moved one by one, over what has their names; all else
//! there stays, as with buildx. No link in the destination is followed, but for the destination itself.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use oci_spec::image::Descriptor;
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid};

use super::ExportError;
use super::root::Root;
use super::whole::Neighbour;
use super::writable::{is_folder, make_above};
use crate::blob::Store;
use crate::layer::{Entry, FileTime, Kind, LayerPath, Times};

/// Writes the root file system of `image`, which must be for one platform, into the folder `path`.
///
/// Everything belongs to who runs this process, root or not, as with buildx: they are files of this machine, whose users are
/// not the image's. Gives the device files that were left out, which only root can make.
///
/// # Errors
/// [`ExportError::SeveralImages`].
pub fn local(store: &Store, image: &Descriptor, times: Times, path: &Path) -> Result<Vec<LayerPath>, ExportError> {
    let root = Root::open(store, image, "a folder of its files")?;
    let exists = is_folder(path)?;
    // Inside a folder that exists, as that may be a file system of its own.
    let staging = if exists {
        Neighbour::of(&path.join("fluyt"))?
    } else {
        make_above(path)?;
        Neighbour::of(path)?
    };
    fs::create_dir(&staging.path).map_err(ExportError::at("creating", &staging.path))?;
    let mut files = Files {
        root: staging.path.clone(),
        owner: (rustix::process::getuid(), rustix::process::getgid()),
        folders: Vec::new(),
        left_out: Vec::new(),
    };
    root.visit(times, &mut |entry, content| files.write(entry, content))?;
    let place = if exists {
        merge(&staging.path, path)?;
        path
    } else {
        files.finish_folders(&staging.path)?;
        return rename(&staging.path, path).map(|()| files.left_out);
    };
    files.finish_folders(place)?;
    Ok(files.left_out)
}

fn rename(from: &Path, to: &Path) -> Result<(), ExportError> {
    fs::rename(from, to).map_err(ExportError::at("renaming the finished folder to", to))
}

/// Makes entries in a folder that is ours alone.
struct Files {
    root: PathBuf,
    owner: (Uid, Gid),
    /// Folders get their mode and time last: a mode may forbid to write in them, and writing in them moves the time.
    folders: Vec<Entry>,
    left_out: Vec<LayerPath>,
}

impl Files {
    fn write(&mut self, entry: &Entry, content: &mut dyn Read) -> Result<(), ExportError> {
        let path = self.root.join(entry.path.as_path());
        match &entry.kind {
            Kind::Directory => {
                fs::create_dir(&path).map_err(ExportError::at("creating", &path))?;
                self.folders.push(entry.clone());
                return Ok(());
            }
            Kind::File { .. } => return self.file(entry, content, &path),
            Kind::Hardlink(first) => {
                let first = self.root.join(first.as_path());
                return fs::hard_link(first, &path).map_err(ExportError::at("creating the hard link", &path));
            }
            Kind::Symlink(target) => {
                std::os::unix::fs::symlink(OsStr::from_bytes(target), &path)
                    .map_err(ExportError::at("creating the symbolic link", &path))?;
                self.own(CWD, &path, &path, AtFlags::SYMLINK_NOFOLLOW)?;
            }
            Kind::Fifo | Kind::CharDevice { .. } | Kind::BlockDevice { .. } => {
                if !self.special(entry, &path)? {
                    return Ok(());
                }
                self.own(CWD, &path, &path, AtFlags::SYMLINK_NOFOLLOW)?;
                let mode = Mode::from_raw_mode(entry.mode);
                rustix::fs::chmod(&path, mode).map_err(ExportError::errno("setting the mode of", &path))?;
            }
            Kind::Whiteout | Kind::Opaque => return Ok(()),
        }
        rustix::fs::utimensat(CWD, &path, &stamps(entry.modified), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(ExportError::errno("setting the time of", &path))
    }

    fn file(&self, entry: &Entry, content: &mut dyn Read, path: &Path) -> Result<(), ExportError> {
        let mut file = File::create_new(path).map_err(ExportError::at("creating", path))?;
        copy(content, &mut file, path)?;
        self.finish(&file, entry, path)
    }

    /// Makes a pipe or device; `false` when we may not.
    fn special(&mut self, entry: &Entry, path: &Path) -> Result<bool, ExportError> {
        let (kind, device) = match entry.kind {
            Kind::CharDevice { major, minor } => (FileType::CharacterDevice, rustix::fs::makedev(major, minor)),
            Kind::BlockDevice { major, minor } => (FileType::BlockDevice, rustix::fs::makedev(major, minor)),
            _ => (FileType::Fifo, 0),
        };
        match rustix::fs::mknodat(CWD, path, kind, Mode::from_raw_mode(0o600), device) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::PERM) if kind != FileType::Fifo => {
                self.left_out.push(entry.path.clone());
                Ok(false)
            }
            Err(error) => Err(ExportError::io("creating", path, error.into())),
        }
    }

    /// Gives a file its owner, where it has another: in a folder that hands its group on, or when it was there before.
    fn own(&self, folder: impl AsFd, name: &Path, path: &Path, flags: AtFlags) -> Result<(), ExportError> {
        let (owner, group) = self.owner;
        let there = rustix::fs::statat(&folder, name, flags).map_err(ExportError::errno("looking at", path))?;
        if (there.st_uid, there.st_gid) == (owner.as_raw(), group.as_raw()) {
            return Ok(());
        }
        match rustix::fs::chownat(folder, name, Some(owner), Some(group), flags) {
            // Some file systems say themselves whose their files are.
            Ok(()) | Err(rustix::io::Errno::PERM) => Ok(()),
            Err(error) => Err(ExportError::io("setting the owner of", path, error.into())),
        }
    }

    /// Owner first: a change of owner takes setuid bits away.
    fn finish(&self, file: impl AsFd, entry: &Entry, path: &Path) -> Result<(), ExportError> {
        let errno = |during| ExportError::errno(during, path);
        self.own(&file, Path::new(""), path, AtFlags::EMPTY_PATH)?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(entry.mode)).map_err(errno("setting the mode of"))?;
        rustix::fs::futimens(&file, &stamps(entry.modified)).map_err(errno("setting the time of"))
    }

    /// Gives the folders, which are now below `place`, their owner, mode and time; inner ones first.
    fn finish_folders(&self, place: &Path) -> Result<(), ExportError> {
        let top = open_folder(CWD, place.as_os_str(), OFlags::empty(), place)?;
        for entry in self.folders.iter().rev() {
            let path = place.join(entry.path.as_path());
            // The folder that was made or met here before; another may have been put in its place since.
            let mut folder = top.try_clone().map_err(ExportError::at("opening", place))?;
            for component in entry.path.components() {
                folder = open_folder(folder, OsStr::from_bytes(component), OFlags::NOFOLLOW, &path)?;
            }
            self.finish(&folder, entry, &path)?;
        }
        Ok(())
    }
}

/// Copies with the two sides' failures told apart.
fn copy(content: &mut dyn Read, file: &mut File, path: &Path) -> Result<(), ExportError> {
    let mut failure = None;
    let mut tapped = Tapped { content, failure: &mut failure };
    let copied = io::copy(&mut tapped, file);
    match (failure, copied) {
        (Some(error), _) => Err(crate::layer::LayerError::Read(error).into()),
        (None, Err(error)) => Err(ExportError::io("writing", path, error)),
        (None, Ok(_)) => Ok(()),
    }
}

struct Tapped<'a> {
    content: &'a mut dyn Read,
    failure: &'a mut Option<io::Error>,
}

impl Read for Tapped<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.content.read(buffer).map_err(|error| {
            let kind = error.kind();
            *self.failure = Some(error);
            kind.into()
        })
    }
}

/// Moves what is in `from` into `to`, over what has the same names.
fn merge(from: &Path, to: &Path) -> Result<(), ExportError> {
    let source = open_folder(CWD, from.as_os_str(), OFlags::NOFOLLOW, from)?;
    let target = open_folder(CWD, to.as_os_str(), OFlags::empty(), to)?;
    merge_folder(&source, from, &target, to)
}

fn merge_folder(source: &File, from: &Path, target: &File, to: &Path) -> Result<(), ExportError> {
    for entry in fs::read_dir(from).map_err(ExportError::at("listing", from))? {
        let entry = entry.map_err(ExportError::at("listing", from))?;
        let name = entry.file_name();
        let path = to.join(&name);
        let folder = entry.file_type().map_err(ExportError::at("looking at", &entry.path()))?.is_dir();
        let there = match rustix::fs::statat(target, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(there) => Some(FileType::from_raw_mode(there.st_mode)),
            Err(rustix::io::Errno::NOENT) => None,
            Err(error) => return Err(ExportError::io("looking at", &path, error.into())),
        };
        match there {
            Some(FileType::Directory) if folder => {
                let source = open_folder(source, &name, OFlags::NOFOLLOW, &entry.path())?;
                let target = open_folder(target, &name, OFlags::NOFOLLOW, &path)?;
                open_up(&target);
                merge_folder(&source, &entry.path(), &target, &path)?;
                continue;
            }
            Some(FileType::Directory) => fs::remove_dir_all(&path).map_err(ExportError::at("removing", &path))?,
            Some(_) if folder => {
                rustix::fs::unlinkat(target, &name, AtFlags::empty()).map_err(ExportError::errno("removing", &path))?;
            }
            _ => {}
        }
        rustix::fs::renameat(source, &name, target, &name)
            .map_err(ExportError::errno("renaming a finished file to", &path))?;
    }
    Ok(())
}

/// Lets us write in a folder that an earlier export made with the image's mode, which it gets at the end. Where that is not
/// allowed, what is to be moved there says so.
fn open_up(folder: &File) {
    if let Ok(there) = rustix::fs::fstat(folder)
        && let mode = Mode::from_raw_mode(there.st_mode)
        && !mode.contains(Mode::RWXU)
    {
        let _ = rustix::fs::fchmod(folder, mode | Mode::RWXU);
    }
}

fn open_folder(folder: impl AsFd, name: &OsStr, flags: OFlags, path: &Path) -> Result<File, ExportError> {
    let flags = flags | OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(folder, name, flags, Mode::empty());
    opened.map(File::from).map_err(ExportError::errno("opening", path))
}

fn stamps(time: FileTime) -> Timestamps {
    let modified = Timespec { tv_sec: time.seconds, tv_nsec: i64::from(time.nanoseconds) };
    Timestamps { last_access: modified, last_modification: modified }
}
