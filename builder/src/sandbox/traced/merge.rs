//! Trees that a command is shown, where they lie in layers or it may write to them: copies that go when it ends.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, Timespec, Timestamps, utimensat};

use crate::owners;

/// Where a path in a tree leads; its links are followed inside the tree only.
pub(super) fn within(tree: &Path, path: &Path) -> io::Result<PathBuf> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let folder = rustix::fs::open(tree, flags | OFlags::DIRECTORY, Mode::empty())?;
    let path = path.strip_prefix("/").unwrap_or(path);
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let found = rustix::fs::openat2(&folder, path, flags, Mode::empty(), ResolveFlags::IN_ROOT)?;
    fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&found)))
}

/// Copies what is at `from` over what is at `to`.
pub(super) fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let mut ahead = vec![(from.to_owned(), to.to_owned())];
    let mut folders = Vec::new();
    while let Some((from, to)) = ahead.pop() {
        let metadata = fs::symlink_metadata(&from)?;
        let there = fs::symlink_metadata(&to).ok();
        if metadata.is_dir() {
            if !there.is_some_and(|there| there.is_dir()) {
                fs::create_dir(&to)?;
            }
            for entry in fs::read_dir(&from)? {
                let entry = entry?;
                ahead.push((entry.path(), to.join(entry.file_name())));
            }
            // Last, as what is put into it changes its time.
            folders.push((from, to, metadata));
            continue;
        }
        if there.is_some() {
            fs::remove_file(&to)?;
        }
        if metadata.is_symlink() {
            symlink(fs::read_link(&from)?, &to)?;
        } else if metadata.is_file() {
            let _ = fs::copy(&from, &to)?;
            set_like(&from, &to, &metadata)?;
        }
        // Of the others none can be made here, and none is in a context.
    }
    for (from, to, metadata) in folders.into_iter().rev() {
        set_like(&from, &to, &metadata)?;
    }
    Ok(())
}

fn set_like(from: &Path, to: &Path, metadata: &Metadata) -> io::Result<()> {
    let opened = File::open(to)?;
    let _ = owners::give_open(opened.as_fd(), owners::of(from, metadata))?;
    owners::set_mode_open(opened.as_fd(), metadata.is_dir(), owners::mode_of(from, metadata))?;
    let time = Timespec { tv_sec: metadata.mtime(), tv_nsec: metadata.mtime_nsec() };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(utimensat(CWD, to, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}
