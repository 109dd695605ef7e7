//! Copies trees, with all that a layer would keep of them.

use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags, chownat, mknodat, utimensat,
};

const CAPABILITY: &str = "security.capability";

/// Longest value of it, in bytes; version 3 has 24.
const CAPABILITY_MAX_BYTES: usize = 64;

/// Copies what is at `from` to `to`. A folder may be there already: then what is copied comes over what it holds.
pub(super) fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    let mut names: HashMap<(u64, u64), PathBuf> = HashMap::new();
    let mut folders: Vec<(PathBuf, Metadata)> = Vec::new();
    let mut ahead = vec![(from.to_owned(), to.to_owned())];
    while let Some((from, to)) = ahead.pop() {
        let metadata = fs::symlink_metadata(&from)?;
        let kind = metadata.file_type();
        if kind.is_dir() {
            match fs::create_dir(&to) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && is_folder(&to) => {}
                made => made?,
            }
            for entry in fs::read_dir(&from)? {
                let entry = entry?;
                ahead.push((entry.path(), to.join(entry.file_name())));
            }
            // Last, as what is put into it changes its time.
            folders.push((to, metadata));
            continue;
        }
        match fs::remove_file(&to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        if metadata.nlink() > 1 {
            match names.get(&(metadata.dev(), metadata.ino())) {
                Some(first) => {
                    fs::hard_link(first, &to)?;
                    continue;
                }
                None => drop(names.insert((metadata.dev(), metadata.ino()), to.clone())),
            }
        }
        let node = |kind| mknodat(CWD, &to, kind, Mode::from_raw_mode(0o600), metadata.rdev()).map_err(io::Error::from);
        if kind.is_file() {
            copy_file(&from, &to)?;
            set_like(&to, &metadata)?;
            copy_capabilities(&from, &to)?;
            continue;
        } else if kind.is_symlink() {
            symlink(fs::read_link(&from)?, &to)?;
        } else if kind.is_fifo() {
            node(FileType::Fifo)?;
        } else if kind.is_char_device() {
            node(FileType::CharacterDevice)?;
        } else if kind.is_block_device() {
            node(FileType::BlockDevice)?;
        } else {
            // A socket of somebody who is not there.
            continue;
        }
        set_like(&to, &metadata)?;
    }
    for (folder, metadata) in folders.into_iter().rev() {
        set_like(&folder, &metadata)?;
    }
    Ok(())
}

fn is_folder(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir())
}

/// The kernel shares the blocks where the file system can.
fn copy_file(from: &Path, to: &Path) -> io::Result<()> {
    let mut source = File::open(from)?;
    let mut target = File::options().write(true).create_new(true).open(to)?;
    io::copy(&mut source, &mut target)?;
    Ok(())
}

/// Gives a copy the owner, mode, time and capabilities of its original.
fn set_like(path: &Path, metadata: &Metadata) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(metadata.uid()), Gid::from_raw(metadata.gid()));
    chownat(CWD, path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    if !metadata.is_symlink() {
        fs::set_permissions(path, fs::Permissions::from_mode(metadata.mode() & 0o7777))?;
    }
    let time = Timespec { tv_sec: metadata.mtime(), tv_nsec: metadata.mtime_nsec() };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Copies the capabilities of one file to another.
fn copy_capabilities(from: &Path, to: &Path) -> io::Result<()> {
    let mut value = [0; CAPABILITY_MAX_BYTES];
    if let Ok(length) = rustix::fs::lgetxattr(from, CAPABILITY, &mut value[..]) {
        rustix::fs::lsetxattr(to, CAPABILITY, &value[..length], XattrFlags::empty())?;
    }
    Ok(())
}

/// Ends the sharing of files between this tree and others by hard links: what is written to one must not change the other.
pub(super) fn part_from_others(tree: &Path) -> io::Result<()> {
    let mut shared: HashMap<(u64, u64), Vec<PathBuf>> = HashMap::new();
    let mut links: HashMap<(u64, u64), u64> = HashMap::new();
    let mut ahead = vec![tree.to_owned()];
    while let Some(folder) = ahead.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            let metadata = fs::symlink_metadata(&path)?;
            if metadata.is_dir() {
                ahead.push(path);
            } else if metadata.is_file() && metadata.nlink() > 1 {
                let inode = (metadata.dev(), metadata.ino());
                links.insert(inode, metadata.nlink());
                shared.entry(inode).or_default().push(path);
            }
        }
    }
    for (inode, names) in shared {
        if links.get(&inode).is_none_or(|links| *links <= names.len() as u64) {
            continue;
        }
        let Some((first, others)) = names.split_first() else { continue };
        let own = first.with_extension("fluyt-own");
        let metadata = fs::symlink_metadata(first)?;
        copy_file(first, &own)?;
        set_like(&own, &metadata)?;
        copy_capabilities(first, &own)?;
        for name in others {
            fs::remove_file(name)?;
            fs::hard_link(&own, name)?;
        }
        fs::rename(&own, first)?;
    }
    Ok(())
}
