//! Writing and removing objects so that they are there whole or not at all, also after the power went.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path as FilePath, PathBuf};

use object_store::path::Path;
use object_store::{PutPayload, Result};

use super::{Inner, io_error};

impl Inner {
    pub(super) fn put(&self, target: &FilePath, payload: &PutPayload, replace: bool) -> io::Result<()> {
        let temporary = self.temporary(target);
        let written = self.in_folder_of(target, || {
            let mut file = File::options().write(true).create_new(true).open(&temporary)?;
            for piece in payload {
                file.write_all(piece)?;
            }
            if self.sync { file.sync_all() } else { Ok(()) }
        });
        let placed = written.and_then(|()| self.place(&temporary, target, replace));
        if placed.is_err() {
            // It says nothing to anyone by its name; removing it only gives the space back.
            let _ = std::fs::remove_file(&temporary);
        }
        placed
    }

    /// Moves a finished file to its name.
    pub(super) fn place(&self, from: &FilePath, target: &FilePath, replace: bool) -> io::Result<()> {
        self.in_folder_of(target, || {
            if replace {
                std::fs::rename(from, target)
            } else {
                let here = rustix::fs::CWD;
                let flags = rustix::fs::RenameFlags::NOREPLACE;
                Ok(rustix::fs::renameat_with(here, from, here, target, flags)?)
            }
        })?;
        self.sync_folder_of(target)
    }

    /// Runs `work`, which needs the folder of `target`; makes it when it is not there. A delete may take an empty folder
    /// away in between, hence the loop.
    fn in_folder_of(&self, target: &FilePath, mut work: impl FnMut() -> io::Result<()>) -> io::Result<()> {
        const TRIES: usize = 20;
        for _ in 0..TRIES {
            match work() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.make_folder(target.parent().unwrap_or(&self.root))?;
                }
                done => return done,
            }
        }
        work()
    }

    /// Makes a folder and those above it; each new name is synced into the folder that holds it.
    fn make_folder(&self, folder: &FilePath) -> io::Result<()> {
        match std::fs::create_dir(folder) {
            Ok(()) => self.sync_folder_of(folder),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound && folder.starts_with(&self.root) => {
                let above = folder.parent().filter(|above| above.starts_with(&self.root)).ok_or(error)?;
                self.make_folder(above)?;
                match std::fs::create_dir(folder) {
                    Ok(()) => self.sync_folder_of(folder),
                    // Somebody made it, or took the one above away again: whoever needs it tries again.
                    Err(error) if matches!(error.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound) => {
                        Ok(())
                    }
                    Err(error) => Err(error),
                }
            }
            Err(error) => Err(error),
        }
    }

    fn sync_folder_of(&self, path: &FilePath) -> io::Result<()> {
        if !self.sync {
            return Ok(());
        }
        let Some(folder) = path.parent() else { return Ok(()) };
        match File::open(folder) {
            Ok(folder) => folder.sync_all(),
            // Taken away together with everything in it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Removes files; each folder is synced once.
    pub(super) fn remove(&self, keys: Vec<Result<Path>>) -> Vec<Result<Path>> {
        let mut folders: BTreeSet<PathBuf> = BTreeSet::new();
        let mut results: Vec<Result<Path>> = Vec::with_capacity(keys.len());
        for key in keys {
            results.push(key.and_then(|key| {
                let file = self.file(&key)?;
                match std::fs::remove_file(&file) {
                    Ok(()) => {
                        folders.insert(file);
                        Ok(key)
                    }
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(key),
                    Err(error) => Err(io_error(key.as_ref(), error)),
                }
            }));
        }
        // One file stands for its folder here.
        folders = folders.into_iter().fold(BTreeSet::new(), |mut one_each, file| {
            if !one_each.iter().any(|other: &PathBuf| other.parent() == file.parent()) {
                one_each.insert(file);
            }
            one_each
        });
        for file in folders {
            if let Err(error) = self.sync_folder_of(&file) {
                results.push(Err(io_error(&file.display().to_string(), error)));
            }
            self.remove_empty_above(&file);
        }
        results
    }

    /// Takes away folders that have become empty. Not needed for anything but tidiness: errors end it.
    fn remove_empty_above(&self, file: &FilePath) {
        for folder in file.ancestors().skip(1).take_while(|folder| *folder != self.root) {
            if std::fs::remove_dir(folder).is_err() {
                break;
            }
        }
    }
}
