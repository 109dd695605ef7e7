//! The places in a root where things get mounted: those that an image lacks are made for the RUN, and removed after it.
//!
//! They must never reach a layer, so the times of the folders around them stay what they were. `/dev`, `/proc` and `/sys` alone
//! stay, as with the runtimes of other builders: an image that was run once has them. The root is an image's
//! and may hold any link: names are followed one by one, and never out of it.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, Stat, Timespec, Timestamps, chmodat, mkdirat, openat, readlinkat, statat,
    unlinkat, utimensat,
};
use rustix::io::{Errno, dup};

use super::error::{During, Failure};
use super::spec::RunMount;

/// What a run mounts, and on what kind of place.
const PLACES: [(&str, Kind); 5] = [
    ("dev", Kind::Folder),
    ("proc", Kind::Folder),
    ("sys", Kind::Folder),
    ("etc/resolv.conf", Kind::File),
    ("etc/hosts", Kind::File),
];

/// The places that stay.
const KEPT: [&str; 3] = ["dev", "proc", "sys"];

/// As the kernel's own limit for a path.
const LINKS_MAX: usize = 40;

/// What a place is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Folder,
    File,
}

/// A name in a folder, whatever links lead there.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) parent: OwnedFd,
    pub(super) name: OsString,
}

/// What was made; to be removed by [`Places::remove`].
#[derive(Debug, Default)]
pub(super) struct Places {
    made: Vec<Made>,
}

#[derive(Debug)]
struct Made {
    parent: OwnedFd,
    name: OsString,
    kind: Kind,
}

impl Places {
    /// Makes what is missing below `root`, for what every RUN has mounted and for `mounts`. `own_shm`: the build has a
    /// `/dev/shm` of its own, which is another mount then.
    pub(super) fn make(root: &Path, mounts: &[RunMount], own_shm: bool) -> Result<Self, Failure> {
        let root = openat(CWD, root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .during(|| format!("opening the root {}", root.display()))?;
        let mut places = Self::default();
        // What is in a mount of the sandbox's own is made there.
        let within = |mount: &&RunMount| {
            let mut names = mount.target.split('/').filter(|name| !name.is_empty());
            !matches!((names.next(), names.next()), (Some("dev" | "proc" | "sys"), Some(_)))
        };
        let kind = |mount: &RunMount| if mount.source.is_folder() { Kind::Folder } else { Kind::File };
        let more = mounts.iter().filter(within).map(|mount| (mount.target.trim_start_matches('/'), kind(mount)));
        for (path, kind) in PLACES.into_iter().chain(more) {
            let already = places.made.len();
            if let Err(failure) = places.ensure(&root, path, kind) {
                let _ = places.remove();
                return Err(failure);
            }
            // Where the step mounts something below it, the reference takes it for a place of that mount.
            let below = |mount: &RunMount| mount.target.trim_start_matches('/').starts_with(&format!("{path}/"));
            if KEPT.contains(&path) && !mounts.iter().any(below) && !(own_shm && path == "dev") {
                places.keep_since(already);
            }
        }
        Ok(places)
    }

    /// Finds a place, and makes what is missing of it. None for the root itself, or for a link to what a folder is in.
    pub(super) fn ensure(&mut self, root: &OwnedFd, path: &str, kind: Kind) -> Result<Option<Place>, Failure> {
        let mut place = None;
        let what = || format!("finding or making a place for /{path} in the image");
        let mut folders = vec![dup(root).during(what)?];
        let mut names = split(path.as_bytes());
        let mut links = 0;
        while let Some(name) = names.pop_front() {
            let Some(folder) = folders.last() else { break };
            place = None;
            if name == ".." {
                if folders.len() > 1 {
                    folders.pop();
                }
                continue;
            }
            let wanted = if names.is_empty() { kind } else { Kind::Folder };
            let found = match openat(folder, &name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) {
                Err(Errno::NOENT) => {
                    let made = self.make_one(folder, &name, wanted).during(what)?;
                    place = Some(Place { parent: dup(folder).during(what)?, name });
                    folders.push(made);
                    continue;
                }
                found => found.during(what)?,
            };
            match (FileType::from_raw_mode(statat(&found, "", AtFlags::EMPTY_PATH).during(what)?.st_mode), wanted) {
                (FileType::Symlink, _) => {
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(Failure::new(format!("{}: its symbolic links go in a circle", what())));
                    }
                    let target = readlinkat(&found, "", Vec::new()).during(what)?.into_bytes();
                    if target.starts_with(b"/") {
                        folders.truncate(1);
                    }
                    let mut target = split(&target);
                    target.append(&mut names);
                    names = target;
                }
                (FileType::Directory, Kind::Folder) => {
                    place = Some(Place { parent: dup(folder).during(what)?, name });
                    folders.push(found);
                }
                (FileType::Directory, Kind::File) => {
                    return Err(Failure::new(format!("{}: it is a folder there", what())));
                }
                (_, Kind::File) => place = Some(Place { parent: dup(folder).during(what)?, name }),
                (_, Kind::Folder) => {
                    return Err(Failure::new(format!("{}: {} is no folder there", what(), Path::new(&name).display())));
                }
            }
        }
        Ok(place)
    }

    /// Lets what was made since there were `already` places stay.
    pub(super) fn keep_since(&mut self, already: usize) {
        self.made.truncate(already);
    }

    /// How many places were made.
    pub(super) fn count(&self) -> usize {
        self.made.len()
    }

    fn make_one(&mut self, parent: &OwnedFd, name: &OsString, kind: Kind) -> Result<OwnedFd, Errno> {
        let before = statat(parent, "", AtFlags::EMPTY_PATH)?;
        match kind {
            Kind::Folder => {
                mkdirat(parent, name, Mode::from_raw_mode(0o755))?;
                // It may stay, and then it is nobody's business which umask the builder had.
                chmodat(parent, name, Mode::from_raw_mode(0o755), AtFlags::empty())?;
            }
            Kind::File => {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                drop(openat(parent, name, flags, Mode::from_raw_mode(0o644))?);
            }
        }
        self.made.push(Made { parent: dup(parent)?, name: name.clone(), kind });
        restore_times(parent, &before)?;
        openat(parent, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
    }

    /// Removes what was made and is still empty.
    pub(super) fn remove(self) -> Result<(), Failure> {
        for Made { parent, name, kind } in self.made.into_iter().rev() {
            remove_one(&parent, &name, kind)
                .during(|| format!("removing the empty {} after the command", Path::new(&name).display()))?;
        }
        Ok(())
    }
}

fn remove_one(parent: &OwnedFd, name: &OsString, kind: Kind) -> Result<(), Errno> {
    let before = statat(parent, "", AtFlags::EMPTY_PATH)?;
    let removed = match kind {
        Kind::Folder => unlinkat(parent, name, AtFlags::REMOVEDIR),
        Kind::File => match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            // What the command put there in its place, it keeps.
            Ok(stat) if stat.st_size > 0 || FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile => {
                return Ok(());
            }
            Ok(_) => unlinkat(parent, name, AtFlags::empty()),
            Err(errno) => Err(errno),
        },
    };
    match removed {
        Ok(()) => restore_times(parent, &before),
        Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => Ok(()),
        Err(errno) => Err(errno),
    }
}

pub(super) fn restore_times(folder: &OwnedFd, stat: &Stat) -> Result<(), Errno> {
    // The kernel's own numbers: nanoseconds are below a thousand million.
    let time = |seconds, nanoseconds| Timespec { tv_sec: seconds, tv_nsec: nanoseconds as _ };
    let times = Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    };
    utimensat(folder, ".", &times, AtFlags::empty())
}

/// The names of a path, without empty ones and `.`.
fn split(path: &[u8]) -> VecDeque<OsString> {
    path.split(|byte| *byte == b'/')
        .filter(|name| !name.is_empty() && *name != b".")
        .map(|name| OsString::from_vec(name.to_vec()))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    use proptest::prelude::*;

    use super::*;

    /// What may stand at a path of a hostile image.
    #[derive(Clone, Debug)]
    enum Thing {
        Nothing,
        Folder,
        File,
        Link(String),
    }

    fn thing() -> impl Strategy<Value = Thing> {
        let name = prop::sample::select(vec!["..", ".", "a", "etc", "run", "dev", "hosts", "outside"]);
        let target = (any::<bool>(), prop::collection::vec(name, 1..5))
            .prop_map(|(absolute, names)| (if absolute { "/" } else { "" }).to_owned() + &names.join("/"));
        prop_oneof![
            2 => Just(Thing::Nothing),
            2 => Just(Thing::Folder),
            1 => Just(Thing::File),
            4 => target.prop_map(Thing::Link),
        ]
    }

    /// Every path with its kind, link target and time.
    fn picture(folder: &Path) -> BTreeMap<String, (u32, Option<String>, i64, i64)> {
        let mut found = BTreeMap::new();
        let mut waiting = vec![folder.to_owned()];
        while let Some(path) = waiting.pop() {
            let metadata = fs::symlink_metadata(&path).unwrap();
            let target = fs::read_link(&path).ok().map(|target| target.display().to_string());
            found
                .insert(path.display().to_string(), (metadata.mode(), target, metadata.mtime(), metadata.mtime_nsec()));
            if metadata.is_dir() {
                waiting.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            }
        }
        found
    }

    proptest! {
        #[test]
        fn what_is_made_for_a_run_is_gone_after_it_but_for_three_folders(things in prop::collection::vec(thing(), 8)) {
            let folder = tempfile::tempdir().unwrap();
            let root = folder.path().join("root");
            fs::create_dir_all(folder.path().join("outside")).unwrap();
            fs::create_dir(&root).unwrap();
            for (path, thing) in ["a", "run", "dev", "proc", "sys", "etc", "etc/hosts", "etc/resolv.conf"].iter().zip(&things) {
                let path = root.join(path);
                // Below something that is no folder there can be nothing.
                if path.parent().unwrap() != root && !root.join("etc").symlink_metadata().is_ok_and(|etc| etc.is_dir()) {
                    continue;
                }
                match thing {
                    Thing::Nothing => {}
                    Thing::Folder => fs::create_dir(&path).unwrap(),
                    Thing::File => fs::write(&path, "content").unwrap(),
                    Thing::Link(target) => symlink(target, &path).unwrap(),
                }
            }
            let before = picture(folder.path());
            match Places::make(&root, &[], false) {
                Ok(places) => {
                    let made = picture(folder.path());
                    let inside = |path: &&String| path.starts_with(root.to_str().unwrap());
                    prop_assert!(made.keys().filter(|path| !before.contains_key(*path)).all(|path| inside(&path)));
                    places.remove().unwrap();
                }
                Err(failure) => prop_assert!(failure.what.starts_with("finding or making a place for /"), "{failure}"),
            }
            let mut after = picture(folder.path());
            let inside = root.to_str().unwrap();
            let new: Vec<String> = after.keys().filter(|path| !before.contains_key(*path)).cloned().collect();
            for path in new {
                let (mode, ..) = after.remove(&path).unwrap();
                prop_assert!(path.starts_with(inside) && mode == 0o40755, "{path} {mode:o}");
            }
            prop_assert_eq!(after, before);
        }
    }
}
