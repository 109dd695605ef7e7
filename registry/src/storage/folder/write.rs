//! Writing and removing objects so that they are there whole or not at all, also after the power went.
//!
//! Every change of a folder (a name that comes or goes) is made while the folder is held in the index, and noted there at
//! once; which folders have to be synced for it is gathered in [`Touched`].

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Write};
use std::ops::Bound;
use std::path::{Path as FilePath, PathBuf};
use std::sync::{MutexGuard, PoisonError};

use object_store::path::Path;
use object_store::{PutPayload, Result};

use super::index::{Held, Stat};
use super::list::stat_of;
use super::{Inner, io_error, names};

/// What was made and may not be on the disk: objects and folders by their keys (a folder's ends in `/`), and when that was
/// noted, by the count of notes. A sync that failed leaves it here.
#[derive(Debug, Default)]
pub(super) struct Unsynced {
    made: BTreeMap<String, u64>,
    notes: u64,
}

impl Unsynced {
    fn note(&mut self, key: String) {
        self.notes += 1;
        self.made.insert(key, self.notes);
    }

    /// What begins with `prefix`.
    fn below(&self, prefix: &str) -> impl Iterator<Item = (&String, u64)> {
        let from = self.made.range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
        from.take_while(move |(key, _)| key.starts_with(prefix)).map(|(key, at)| (key, *at))
    }

    /// Adds the folders that hold the names of those on the way to `start`, as far as these may not be on the disk.
    fn way(&self, start: &str, touched: &mut Touched) {
        let mut next = Some(start);
        while let Some(start) = next {
            let over = above(start).map(|(over, _)| over);
            touched.extend(over.filter(|_| self.made.contains_key(start)).map(str::to_owned));
            next = over;
        }
    }

    /// A folder was synced after so many notes.
    fn synced(&mut self, start: &str, notes: u64) {
        let synced = self.below(start).filter(|(key, at)| *at <= notes && holder(key) == start);
        for key in synced.map(|(key, _)| key.clone()).collect::<Vec<_>>() {
            self.made.remove(&key);
        }
    }
}

/// The folders, by what their keys begin with, whose names have changed.
pub(super) type Touched = BTreeSet<String>;

/// A file that is written, under a name that no key can have. Dropped before it got its own, it is removed: it says nothing
/// to anyone, and on a full disk its space is missed.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) file: File,
    path: PathBuf,
    stat: Stat,
    stays: bool,
}

impl Drop for Written {
    fn drop(&mut self) {
        if !self.stays {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Written {
    /// Whether it has content that has to be on the disk before it gets its name. What is empty cannot be cut short.
    pub(super) fn has_content(&self) -> bool {
        self.stat.size > 0
    }
}

/// What its folder's keys begin with, and its name there.
pub(super) fn split(key: &str) -> (&str, &str) {
    key.rfind('/').map_or(("", key), |slash| key.split_at(slash + 1))
}

/// Above a folder: what the keys of the one above begin with, and the folder's name there, with its `/`.
fn above(start: &str) -> Option<(&str, &str)> {
    let folder = start.strip_suffix('/')?;
    let (start_above, _) = split(folder);
    start.get(start_above.len()..).map(|name| (start_above, name))
}

/// What the folder of an object or of a folder has its keys begin with.
fn holder(key: &str) -> &str {
    split(key.strip_suffix('/').unwrap_or(key)).0
}

impl Inner {
    fn hold<'a>(&'a self, start: &'a str) -> Option<Held<'a>> {
        self.index_of(start).map(|index| index.hold(start))
    }

    /// Writes a file beside the one that it is to become.
    pub(super) fn write(&self, key: &str, payload: &PutPayload) -> io::Result<Written> {
        let path = self.temporary(&names::file(&self.root, key)?);
        let written = self.in_folder(split(key).0, || {
            let mut file = File::options().write(true).create_new(true).open(&path)?;
            for piece in payload {
                file.write_all(piece)?;
            }
            let stat = stat_of(&file)?;
            Ok((file, stat))
        });
        match written {
            Ok((file, stat)) => Ok(Written { file, path, stat, stays: false }),
            Err(error) => {
                let _ = std::fs::remove_file(&path);
                Err(error)
            }
        }
    }

    /// Gives a file its name.
    pub(super) fn place(
        &self,
        key: &str,
        mut written: Written,
        replace: bool,
        touched: &mut Touched,
    ) -> io::Result<()> {
        let target = names::file(&self.root, key)?;
        let (start, name) = split(key);
        self.in_folder(start, || {
            let held = self.hold(start);
            if replace {
                std::fs::rename(&written.path, &target)?;
            } else {
                let here = rustix::fs::CWD;
                let flags = rustix::fs::RenameFlags::NOREPLACE;
                rustix::fs::renameat_with(here, &written.path, here, &target, flags)?;
            }
            // Before anyone sees it.
            self.remember_unsynced(key);
            if let Some(held) = held {
                held.added(name, written.stat);
            }
            Ok(())
        })?;
        written.stays = true;
        self.touch(start, touched);
        Ok(())
    }

    /// Runs `work`, which needs a folder; makes it when it is not there. A delete may take an empty folder away in
    /// between, hence the loop.
    fn in_folder<T>(&self, start: &str, mut work: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        const TRIES: usize = 20;
        for _ in 0..TRIES {
            match work() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => self.make_folder(start)?,
                done => return done,
            }
        }
        work()
    }

    /// Makes a folder and those above it. That the folders which hold the new names have to be synced is remembered until
    /// somebody does it ([`Inner::touch`]).
    fn make_folder(&self, start: &str) -> io::Result<()> {
        let Some((start_above, name)) = above(start) else {
            // The store's own folder is not there any more.
            return Err(io::ErrorKind::NotFound.into());
        };
        let path = names::folder(&self.root, start)?;
        let make = || {
            let held = self.hold(start_above);
            // Before: whoever finds the folder there must see that its name may not be on the disk. And after: a sync that
            // began in between does not hold it.
            self.remember_unsynced(start);
            std::fs::create_dir(&path)?;
            self.remember_unsynced(start);
            if let Some(held) = held {
                held.added(name, Stat::FOLDER);
            }
            Ok(())
        };
        let made = match make() {
            Err(error) if io::Error::kind(&error) == io::ErrorKind::NotFound => {
                self.make_folder(start_above)?;
                make()
            }
            made => made,
        };
        match made {
            // Somebody made it, or took the one above away again: whoever needs it tries again.
            Err(error) if matches!(error.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound) => Ok(()),
            made => made,
        }
    }

    fn unsynced(&self) -> MutexGuard<'_, Unsynced> {
        self.unsynced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember_unsynced(&self, key: &str) {
        if self.sync {
            self.unsynced().note(key.to_owned());
        }
    }

    /// Notes that a folder has to be synced before what happened in it may be acknowledged, and with it those above it in
    /// which a folder on the way was made that nobody has synced yet.
    fn touch(&self, start: &str, touched: &mut Touched) {
        if self.sync {
            touched.insert(start.to_owned());
            self.unsynced().way(start, touched);
        }
    }

    /// The folders that have to be synced before anything that begins with `prefix` may be relied on.
    pub(super) fn unsynced_of(&self, prefix: &str) -> Touched {
        let mut touched = Touched::new();
        let unsynced = self.unsynced();
        if !unsynced.made.is_empty() {
            touched.extend(unsynced.below(prefix).map(|(key, _)| holder(key).to_owned()));
            unsynced.way(split(prefix).0, &mut touched);
        }
        touched
    }

    /// Syncs folders. One that is gone was taken away together with everything in it: the one above has to tell of that.
    pub(super) fn sync_folders(&self, mut touched: Touched) -> io::Result<()> {
        // From the last: those above a folder come before it.
        while let Some(start) = touched.pop_last() {
            let notes = self.unsynced().notes;
            match File::open(names::folder(&self.root, &start)?) {
                Ok(folder) => self.sync_all(&folder, &start)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    touched.extend(above(&start).map(|(over, _)| over.to_owned()));
                }
                Err(error) => return Err(error),
            }
            // Until now others that need it synced it too. What was noted meanwhile stays.
            self.unsynced().synced(&start, notes);
        }
        Ok(())
    }

    /// Removes objects. One that is not there counts as removed.
    pub(super) fn remove(&self, keys: Vec<Result<Path>>, touched: &mut Touched) -> Vec<Result<Path>> {
        let mut folders = BTreeSet::new();
        let mut remove = |key: &Path| {
            let file = self.file(key)?;
            let (start, name) = split(key.as_ref());
            let held = self.hold(start);
            match std::fs::remove_file(&file) {
                Ok(()) => {
                    if let Some(held) = held {
                        held.removed(name);
                    }
                    folders.insert(start.to_owned());
                }
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
                Err(error) => return Err(io_error(key.as_ref(), error)),
            }
            // Also when it was gone: somebody else may have removed it just now.
            self.touch(start, touched);
            Ok(())
        };
        let results = keys.into_iter().map(|key| key.and_then(|key| remove(&key).map(|()| key))).collect();
        folders.iter().for_each(|start| self.remove_empty(start, touched));
        results
    }

    /// Takes away folders that have become empty. Not needed for anything but tidiness: errors end it.
    fn remove_empty(&self, start: &str, touched: &mut Touched) {
        let mut next = start;
        while let Some((start_above, name)) = above(next) {
            let Ok(path) = names::folder(&self.root, next) else { break };
            let held = self.hold(start_above);
            if std::fs::remove_dir(path).is_err() {
                break;
            }
            if let Some(held) = held {
                held.removed(name);
            }
            // Somebody may make it again before it is looked for.
            self.touch(start_above, touched);
            next = start_above;
        }
    }
}

impl Written {
    /// A file that was written elsewhere, and stays there when it does not get its name.
    pub(super) fn finished(path: &FilePath) -> io::Result<Self> {
        let file = File::open(path)?;
        let stat = stat_of(&file)?;
        Ok(Self { file, path: path.to_owned(), stat, stays: true })
    }
}
