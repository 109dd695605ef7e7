//! Writes items into an empty folder of ours, as they are.

use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Timespec, Timestamps, XattrFlags, mknodat, utimensat};

use super::super::StepError;
use super::super::extract::Spool;
use super::super::item::{Content, Item, Items};
use super::super::moving::Moving;
use crate::blob::ContentHash;
use crate::layer::{Entry, FileTime, Kind, LayerError, Source};
use crate::owners::{self, Owner};
use crate::stop::Cancel;

fn failed(path: &Path) -> impl Fn(io::Error) -> StepError {
    let path = path.to_owned();
    move |source| StepError::Temporary { path: path.clone(), source }
}

/// Makes a folder that every user may enter.
pub(super) fn make(folder: &Path) -> Result<(), StepError> {
    fs::create_dir(folder).map_err(failed(folder))?;
    open_up(folder)
}

pub(super) fn open_up(folder: &Path) -> Result<(), StepError> {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).map_err(failed(folder))
}

/// Makes a folder with owner, mode and time of another.
pub(super) fn make_like(folder: &Path, other: &Path) -> Result<(), StepError> {
    fs::create_dir(folder).map_err(failed(folder))?;
    let metadata = fs::metadata(other).map_err(failed(other))?;
    set_like(folder, owners::of(other, &metadata), &metadata).map_err(failed(folder))
}

/// Gives a file or folder an owner, and mode and time of another.
pub(super) fn set_like(path: &Path, owner: Owner, metadata: &Metadata) -> io::Result<()> {
    owners::give_if_possible(path, owner)?;
    fs::set_permissions(path, fs::Permissions::from_mode(metadata.mode() & 0o7777))?;
    set_time(path, metadata.mtime(), metadata.mtime_nsec())
}

pub(super) fn set_time(path: &Path, seconds: i64, nanoseconds: i64) -> io::Result<()> {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Writes all items into `folder`; `spool` has the contents that came out of layers. `moving` begins to tell how much of so
/// many bytes is written.
///
/// # Errors
/// When a file of the context is not what it was when it was hashed, when the file system refuses, and when the build is
/// stopped meanwhile.
pub(super) fn write(
    items: &Items,
    spool: Option<&Spool>,
    folder: &Path,
    cancel: &Cancel,
    moving: impl FnOnce(u64) -> Moving,
) -> Result<(), StepError> {
    let size = |item: &Item| if let Kind::File { size_bytes } = item.entry.kind { size_bytes } else { 0 };
    let mut moving = moving(items.iter().map(size).sum());
    let mut folders: Vec<(PathBuf, &Entry)> = Vec::new();
    for item in items.iter() {
        cancel.check()?;
        let entry = &item.entry;
        let path = folder.join(entry.path.as_path());
        if entry.kind == Kind::Directory {
            if !entry.path.is_root() {
                fs::create_dir(&path).map_err(failed(&path))?;
            }
            // Later, as what is put into it changes its time.
            folders.push((path, entry));
            continue;
        }
        write_one(item, spool, folder, &path, cancel)?;
        moving.add(size(item));
        if !matches!(entry.kind, Kind::Hardlink(_)) {
            set(&path, entry).map_err(failed(&path))?;
        }
    }
    for (path, entry) in folders.into_iter().rev() {
        set(&path, entry).map_err(failed(&path))?;
    }
    moving.end();
    Ok(())
}

fn write_one(item: &Item, spool: Option<&Spool>, folder: &Path, path: &Path, cancel: &Cancel) -> Result<(), StepError> {
    let make = || File::options().write(true).create_new(true).mode(0o600).open(path).map_err(failed(path));
    let node = |kind: FileType, device: u64| {
        mknodat(CWD, path, kind, Mode::from_raw_mode(0o600), device).map_err(|errno| failed(path)(errno.into()))
    };
    match (&item.entry.kind, &item.content) {
        (Kind::File { .. }, Content::Source(Source::File { path: from, .. })) => {
            copy_checked(from, item.digest, make()?, path, cancel)
        }
        (Kind::File { .. }, Content::Source(Source::Bytes(bytes))) => fs::write(path, bytes).map_err(failed(path)),
        (Kind::File { size_bytes }, Content::Spooled { offset_bytes }) => {
            let file = make()?;
            let Some(spool) = spool else { return Ok(()) };
            spool.copy(*offset_bytes, *size_bytes, &file, cancel).map_err(failed(path))
        }
        (Kind::File { .. }, _) => make().map(drop),
        (Kind::Symlink(target), _) => std::os::unix::fs::symlink(OsStr::from_bytes(target), path).map_err(failed(path)),
        (Kind::Hardlink(target), _) => fs::hard_link(folder.join(target.as_path()), path).map_err(failed(path)),
        (Kind::Fifo, _) => node(FileType::Fifo, 0),
        (Kind::CharDevice { major, minor }, _) => node(FileType::CharacterDevice, rustix::fs::makedev(*major, *minor)),
        (Kind::BlockDevice { major, minor }, _) => node(FileType::BlockDevice, rustix::fs::makedev(*major, *minor)),
        // Folders are made before; of removals there are none in what is shown.
        (Kind::Directory | Kind::Whiteout | Kind::Opaque, _) => Ok(()),
    }
}

/// The content must be what the key was made of.
fn copy_checked(
    from: &Path,
    expected: Option<ContentHash>,
    to: File,
    path: &Path,
    cancel: &Cancel,
) -> Result<(), StepError> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let unreadable = |source| StepError::Read { path: from.to_owned(), source };
    let file = File::options().read(true).custom_flags(flags).open(from).map_err(|error| {
        LayerError::change_by(from, expected, &error).map_or_else(|| unreadable(error), StepError::Layer)
    })?;
    let changed = |found: String| StepError::Layer(LayerError::Changed { path: from.to_owned(), expected, found });
    if !file.metadata().map_err(unreadable)?.is_file() {
        return Err(changed("no regular file".to_owned()));
    }
    let found = ContentHash::copy(cancel.reader(file), to).map_err(failed(path))?;
    match expected {
        Some(expected) if expected != found => Err(changed(found.to_string())),
        _ => Ok(()),
    }
}

fn set(path: &Path, entry: &Entry) -> io::Result<()> {
    owners::give_if_possible(path, Owner { uid: entry.uid, gid: entry.gid })?;
    if !matches!(entry.kind, Kind::Symlink(_)) {
        fs::set_permissions(path, fs::Permissions::from_mode(entry.mode))?;
        for (name, value) in &entry.xattrs {
            rustix::fs::lsetxattr(path, &name[..], value, XattrFlags::empty())?;
        }
    }
    let FileTime { seconds, nanoseconds } = entry.modified;
    set_time(path, seconds, nanoseconds.into())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::super::item::made_directory;
    use super::*;
    use crate::blob::Store;
    use crate::event::{Deaf, Events, StepId};
    use crate::layer::LayerPath;

    #[test]
    fn nothing_is_copied_once_the_build_is_stopped() {
        let place = tempfile::tempdir().unwrap();
        let source = place.path().join("source");
        fs::write(&source, b"bytes").unwrap();
        let mut spool = Spool::create(&Store::open(&place.path().join("store")).unwrap()).unwrap();
        let offset_bytes = spool.keep(&mut &b"bytes"[..]).unwrap();
        let of_context = Content::Source(Source::File { path: source, expected: None });
        for (number, content) in [of_context, Content::Spooled { offset_bytes }].into_iter().enumerate() {
            let owner = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
            let mut item = made_directory(LayerPath::clean(b"file").unwrap(), owner, FileTime::default());
            (item.entry.kind, item.content) = (Kind::File { size_bytes: 5 }, content);
            let mut items = Items::default();
            items.put(item.clone());
            let folder = place.path().join(number.to_string());
            fs::create_dir(&folder).unwrap();
            let cancel = Cancel::new();
            let events: Events = Arc::new(Deaf);
            let moving = |size_bytes| Moving::begin(&events, StepId(1), "copying".to_owned(), size_bytes);
            write(&items, Some(&spool), &folder, &cancel, moving).unwrap();
            let file = folder.join("file");
            assert_eq!(fs::read(&file).unwrap(), b"bytes");
            fs::remove_file(&file).unwrap();
            cancel.cancel();
            assert!(matches!(write(&items, Some(&spool), &folder, &cancel, moving), Err(StepError::Cancelled)));
            assert!(!file.exists());
            // In the middle of a file it is heard too.
            let outcome = write_one(&item, Some(&spool), &folder, &file, &cancel);
            assert!(outcome.is_err() && fs::read(&file).unwrap().is_empty());
        }
    }
}
