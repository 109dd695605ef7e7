//! What is otherwise in the second build.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, Timespec, Timestamps, XattrFlags, lgetxattr, lsetxattr, utimensat};
use rustix::process::{Pid, umask};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::another::give;
use crate::cli::failure::{Blame, Failure};

/// How much older the copy's files are, in seconds: an odd number, so that no unit of a day or a year hides it.
const OLDER_S: i64 = 34_567_891;

/// Largest value of an extended attribute that the kernel knows, in bytes.
const XATTR_MAX_BYTES: usize = 64 * 1024;

/// A context in another folder.
#[derive(Debug)]
pub(super) struct Copied {
    pub(super) path: PathBuf,
    /// Whether all of it is the user's that it was copied for, and means to that user what the original means to us.
    pub(super) is_given: bool,
}

/// Copies a context into another folder, for a user if there is one: its files are older. Modes stay, because a layer shows
/// them.
pub(super) fn copy_context(from: &Path, below: &Path, user: Option<u32>) -> Result<Copied, Failure> {
    // A path of another length too, which programs write into what they make.
    let to = below.join("verify").join("the same context in another folder");
    let failed = |(path, error): (PathBuf, io::Error)| {
        let full = error.kind() == io::ErrorKind::StorageFull;
        let failure = Failure::new(
            if full { Blame::Environment } else { Blame::User },
            format!("cannot copy the context for the second build: {}", path.display()),
        );
        failure.caused_by(&error)
    };
    fs::create_dir_all(&to).map_err(|error| failed((to.clone(), error)))?;
    let mut copying = Copying { links: HashMap::new(), user, is_given: user.is_some() };
    copy_folder(from, &to, &mut copying).map_err(failed)?;
    Ok(Copied { path: to, is_given: copying.is_given })
}

struct Copying {
    /// Where each file with several names was copied to first, by device and inode.
    links: HashMap<(u64, u64), PathBuf>,
    user: Option<u32>,
    is_given: bool,
}

impl Copying {
    /// Before modes are set, as a file that changes hands loses some of them.
    fn give(&mut self, path: &Path) {
        self.is_given &= self.user.is_some_and(|user| give(path, user).is_ok());
    }
}

fn copy_folder(from: &Path, to: &Path, copying: &mut Copying) -> Result<(), (PathBuf, io::Error)> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |error: io::Error| (path, error)
    };
    let mut names = Vec::new();
    for entry in fs::read_dir(from).map_err(at(from))? {
        names.push(entry.map_err(at(from))?.file_name());
    }
    // Some file systems list a folder in the order in which it was filled.
    names.reverse();
    for name in names {
        let (source, target) = (from.join(&name), to.join(&name));
        copy_entry(&source, &target, copying)?;
    }
    let metadata = fs::metadata(from).map_err(at(from))?;
    finish(from, to, &metadata, copying).map_err(at(from))
}

fn copy_entry(source: &Path, target: &Path, copying: &mut Copying) -> Result<(), (PathBuf, io::Error)> {
    let at = |error: io::Error| (source.to_owned(), error);
    let metadata = fs::symlink_metadata(source).map_err(at)?;
    let kind = metadata.file_type();
    if kind.is_dir() {
        fs::create_dir(target).map_err(at)?;
        return copy_folder(source, target, copying);
    }
    if kind.is_symlink() {
        symlink(fs::read_link(source).map_err(at)?, target).map_err(at)?;
        copying.give(target);
        return older(target, &metadata).map_err(at);
    }
    if !kind.is_file() {
        // Sockets, pipes and devices: a build that copies one says so in the first build.
        debug_assert!(kind.is_socket() || kind.is_fifo() || kind.is_block_device() || kind.is_char_device());
        return Ok(());
    }
    let key = (metadata.dev(), metadata.ino());
    if metadata.nlink() > 1
        && let Some(first) = copying.links.get(&key)
    {
        return fs::hard_link(first, target).map_err(at);
    }
    fs::copy(source, target).map_err(at)?;
    if metadata.nlink() > 1 {
        copying.links.insert(key, target.to_owned());
    }
    finish(source, target, &metadata, copying).map_err(at)
}

/// Attributes, mode and times, in the order in which none undoes another.
fn finish(source: &Path, target: &Path, metadata: &fs::Metadata, copying: &mut Copying) -> io::Result<()> {
    const CAPABILITY: &str = "security.capability";
    copying.give(target);
    let mut value = vec![0; XATTR_MAX_BYTES];
    // Most files have none, and not every file system knows of it.
    if let Ok(length) = lgetxattr(source, CAPABILITY, &mut value[..]) {
        lsetxattr(target, CAPABILITY, &value[..length], XattrFlags::empty())?;
        // They are those of a root that another user's namespace does not have.
        copying.is_given = false;
    }
    fs::set_permissions(target, fs::Permissions::from_mode(metadata.mode() & 0o7777))?;
    older(target, metadata)
}

fn older(path: &Path, metadata: &fs::Metadata) -> io::Result<()> {
    let time = Timespec { tv_sec: metadata.mtime() - OLDER_S, tv_nsec: 123_456_789 };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Holds all threads of this process, and what they start, on one processor; lets them go when dropped.
#[derive(Debug)]
pub(super) struct OneProcessor {
    before: CpuSet,
}

impl OneProcessor {
    /// `None` where there is one only, or the kernel does not let us.
    pub(super) fn take() -> Option<Self> {
        let before = sched_getaffinity(None).ok()?;
        if before.count() < 2 {
            return None;
        }
        let first = (0..CpuSet::MAX_CPU).find(|processor| before.is_set(*processor))?;
        let mut one = CpuSet::new();
        one.set(first);
        set_for_all(&one).then_some(Self { before })
    }
}

impl Drop for OneProcessor {
    fn drop(&mut self) {
        set_for_all(&self.before);
    }
}

/// Another umask than the usual, for this process and what it starts; the old one when dropped.
#[derive(Debug)]
pub(super) struct OtherUmask {
    before: Mode,
}

impl OtherUmask {
    /// One that leaves others nothing; whoever has that has the usual one in the second build.
    pub(super) fn take() -> Self {
        let (strict, usual) = (Mode::from_raw_mode(0o077), Mode::from_raw_mode(0o022));
        let before = umask(strict);
        if before == strict {
            umask(usual);
        }
        Self { before }
    }
}

impl Drop for OtherUmask {
    fn drop(&mut self) {
        umask(self.before);
    }
}

/// Threads that exist have to be told one by one; new ones and new processes inherit.
fn set_for_all(set: &CpuSet) -> bool {
    let Ok(tasks) = fs::read_dir("/proc/self/task") else { return false };
    let ids = tasks.filter_map(|task| task.ok()?.file_name().to_str()?.parse().ok());
    // A thread that has ended meanwhile needs nothing.
    ids.filter_map(Pid::from_raw).map(|id| sched_setaffinity(Some(id), set)).filter(Result::is_ok).count() > 0
}
