//! What is otherwise in the second build.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, makedev, mknodat, utimensat};
use rustix::io::Errno;
use rustix::process::{Pid, umask};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::another::give;
use crate::cli::failure::{Blame, Failure};
use crate::pipeline::{FileKind, Seen, SourceEntry};

/// How much older the copy's files are, in seconds: an odd number, so that no unit of a day or a year hides it.
const OLDER_S: i64 = 34_567_891;

/// A context in another folder.
#[derive(Debug)]
pub(super) struct Copied {
    pub(super) path: PathBuf,
    /// Whether all of it is the user's that it was copied for.
    pub(super) is_given: bool,
}

/// Copies what a build sees of the context into another folder, for a user if there is one: its files are older. Modes are
/// those that a layer shows.
pub(super) fn copy_context(from: &Path, seen: &Seen, below: &Path, user: Option<u32>) -> Result<Copied, Failure> {
    // A path of another length too, which programs write into what they make.
    let to = below.join("verify").join("the same context in another folder");
    let mut copying = Copying { to: &to, links: HashMap::new(), user, is_given: user.is_some() };
    copying.all(from, seen).map_err(|(path, error)| {
        let full = error.kind() == io::ErrorKind::StorageFull;
        Failure::new(
            if full { Blame::Environment } else { Blame::User },
            format!("cannot copy the context for the second build: {}", path.display()),
        )
        .caused_by(&error)
    })?;
    let is_given = copying.is_given;
    Ok(Copied { path: to, is_given })
}

struct Copying<'c> {
    to: &'c Path,
    /// Where each file with several names was copied to first, by device and inode.
    links: HashMap<(u64, u64), PathBuf>,
    user: Option<u32>,
    is_given: bool,
}

impl Copying<'_> {
    fn all(&mut self, from: &Path, seen: &Seen) -> Result<(), (PathBuf, io::Error)> {
        let (folders, others): (Vec<_>, Vec<_>) =
            seen.entries.iter().partition(|entry| entry.kind == FileKind::Directory);
        fs::create_dir_all(self.to).map_err(|error| (self.to.to_owned(), error))?;
        for folder in folders.iter().filter(|folder| !folder.relative.is_empty()) {
            fs::create_dir(self.target(folder)).map_err(|error| (folder.absolute.clone(), error))?;
        }
        // Some file systems list a folder in the order in which it was filled.
        for entry in others.into_iter().rev() {
            self.one(entry).map_err(|error| (entry.absolute.clone(), error))?;
        }
        for input in &seen.inputs {
            self.input(from, input).map_err(|error| (from.join(input), error))?;
        }
        for folder in folders.into_iter().rev() {
            self.finish(folder).map_err(|error| (folder.absolute.clone(), error))?;
        }
        Ok(())
    }

    fn target(&self, entry: &SourceEntry) -> PathBuf {
        self.to.join(OsStr::from_bytes(&entry.relative))
    }

    fn one(&mut self, entry: &SourceEntry) -> io::Result<()> {
        let target = self.target(entry);
        match &entry.kind {
            FileKind::Directory => return Ok(()),
            FileKind::Symlink(to) => {
                symlink(OsStr::from_bytes(to), &target)?;
                self.give(&target);
                return older(&target, entry.modified_seconds);
            }
            FileKind::File => {
                if entry.links > 1 {
                    match self.links.entry((entry.device, entry.inode)) {
                        Entry::Occupied(first) => return fs::hard_link(first.get(), target),
                        Entry::Vacant(place) => drop(place.insert(target.clone())),
                    }
                }
                fs::copy(&entry.absolute, &target)?;
            }
            FileKind::Fifo => mknodat(CWD, &target, FileType::Fifo, Mode::empty(), 0)?,
            FileKind::CharDevice { major, minor } | FileKind::BlockDevice { major, minor } => {
                let is_char = matches!(entry.kind, FileKind::CharDevice { .. });
                let kind = if is_char { FileType::CharacterDevice } else { FileType::BlockDevice };
                match mknodat(CWD, &target, kind, Mode::empty(), makedev(*major, *minor)) {
                    // Only root can make one.
                    Err(Errno::PERM) => return Ok(()),
                    made => made?,
                }
            }
        }
        self.finish(entry)
    }

    /// What the build reads first, if rules hide it.
    fn input(&mut self, from: &Path, input: &Path) -> io::Result<()> {
        let target = self.to.join(input);
        if fs::symlink_metadata(&target).is_ok() {
            return Ok(());
        }
        for folder in input.ancestors().skip(1).map(|folder| self.to.join(folder)).collect::<Vec<_>>().iter().rev() {
            if !folder.exists() {
                fs::create_dir(folder)?;
                self.give(folder);
            }
        }
        fs::copy(from.join(input), &target)?;
        self.give(&target);
        Ok(())
    }

    /// Owner, mode and times, in the order in which none undoes another.
    fn finish(&mut self, entry: &SourceEntry) -> io::Result<()> {
        let target = self.target(entry);
        self.give(&target);
        fs::set_permissions(&target, fs::Permissions::from_mode(entry.mode))?;
        older(&target, entry.modified_seconds)
    }

    /// Before modes are set, as a file that changes hands loses some of them.
    fn give(&mut self, path: &Path) {
        self.is_given &= self.user.is_some_and(|user| give(path, user).is_ok());
    }
}

fn older(path: &Path, seconds: i64) -> io::Result<()> {
    let time = Timespec { tv_sec: seconds - OLDER_S, tv_nsec: 123_456_789 };
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;
    use std::sync::Arc;

    use clap::Parser as _;

    use super::super::image::Silent;
    use super::*;
    use crate::blob::Store;
    use crate::cli::args::{Arguments, Command};
    use crate::cli::build::request;
    use crate::event::Events;
    use crate::pipeline;

    #[test]
    fn a_copy_has_what_is_seen_older_and_elsewhere() {
        let folder = tempfile::tempdir().unwrap();
        let context = folder.path().join("context");
        for name in ["node_modules/deep", "kept", ".git", ".fluyt"] {
            fs::create_dir_all(context.join(name)).unwrap();
        }
        for (name, content) in [
            ("Dockerfile", "FROM scratch"),
            (".dockerignore", "node_modules\n.git\n.dockerignore\nDockerfile\n!**/taken\n"),
            ("node_modules/deep/f", "x"),
            ("node_modules/taken", "x"),
            (".git/config", "x"),
            ("kept/f", "x"),
        ] {
            fs::write(context.join(name), content).unwrap();
        }
        fs::hard_link(context.join("kept/f"), context.join("kept/g")).unwrap();
        symlink("f", context.join("kept/link")).unwrap();
        fs::set_permissions(context.join("kept/f"), fs::Permissions::from_mode(0o640)).unwrap();
        let store = Store::open(&context.join(".fluyt")).unwrap();
        let arguments = Arguments::try_parse_from(["fluyt", "verify", "--reproducible", context.to_str().unwrap()]);
        let Command::Verify(typed) = arguments.unwrap().command else { panic!("another command") };
        let request = request(&typed.build).unwrap().request;
        let seen = pipeline::seen(&context, &request, &store, &(Arc::new(Silent) as Events)).unwrap();
        let copied = copy_context(&context, &seen, folder.path(), None).unwrap();
        let mut found = Vec::new();
        let mut open = vec![copied.path.clone()];
        while let Some(folder) = open.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let entry = entry.unwrap();
                let path = entry.path();
                found.push(path.strip_prefix(&copied.path).unwrap().display().to_string());
                open.extend(entry.file_type().unwrap().is_dir().then_some(path));
            }
        }
        found.sort();
        let expected = [
            ".dockerignore",
            "Dockerfile",
            "kept",
            "kept/f",
            "kept/g",
            "kept/link",
            "node_modules",
            "node_modules/taken",
        ];
        assert_eq!(found, expected);
        for name in ["kept", "kept/f", "kept/link", "node_modules/taken"] {
            let of = |root: &Path| fs::symlink_metadata(root.join(name)).unwrap();
            let (one, two) = (of(&context), of(&copied.path));
            assert_eq!(two.mtime(), one.mtime() - OLDER_S, "{name}");
            assert_eq!((two.mode(), two.nlink()), (one.mode(), one.nlink()), "{name}");
        }
        assert_ne!(copied.path.as_os_str().len(), context.as_os_str().len());
    }
}
