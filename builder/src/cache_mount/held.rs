//! A cache mount while a RUN uses it.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::CacheMountError;
use super::lock::Lock;
use super::memory::{LastUse, Memory, Moment, Seen};

/// Where systems have their own files, without the leading `/`: what one command misses there is another base's.
const OF_SYSTEMS: [&str; 12] =
    ["bin", "etc", "lib", "lib32", "lib64", "libx32", "sbin", "usr", "var/cache", "var/lib", "var/log", "var/spool"];

/// And where sources are nonetheless.
const SOURCES: &[u8] = b"usr/src/";

/// Whether a path, without the leading `/`, is a system's own: where it leads and what is gone there say nothing of sources.
#[must_use]
pub fn is_of_system(path: &[u8]) -> bool {
    let is_in = |folder: &&str| {
        path.strip_prefix(folder.as_bytes()).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
    };
    !path.starts_with(SOURCES) && OF_SYSTEMS.iter().any(is_in)
}

/// A mount that nobody removes, and that nobody else uses where it is not shared, while this lives.
#[derive(Debug)]
pub struct HeldMount {
    place: PathBuf,
    lock: Option<Lock>,
    begun: Option<Begun>,
}

/// What a run saw when it began.
#[derive(Debug)]
struct Begun {
    generation: u64,
    seen: Vec<(Vec<u8>, Seen)>,
}

/// The moment between reading a mount's memory and writing it: nobody else does either meanwhile.
#[derive(Debug)]
pub struct Turn {
    /// What is remembered.
    pub memory: Memory,
    _lock: Lock,
}

impl HeldMount {
    pub(super) fn new(place: PathBuf, lock: Lock) -> Self {
        Self { place, lock: Some(lock), begun: None }
    }

    /// Its content.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.place.join("data")
    }

    /// The folder that it is in, with its lock and its memory. Mounts in the order of these are taken without deadlock.
    #[must_use]
    pub fn place(&self) -> &Path {
        &self.place
    }

    /// Reads the memory.
    ///
    /// # Errors
    /// When the file system refuses. What is damaged counts as a mount that was just used and has seen nothing.
    pub fn turn(&self) -> Result<Turn, CacheMountError> {
        let lock = Lock::alone(&self.place.join("memory.lock"))?;
        let path = self.place.join("memory");
        let memory = match fs::read(&path) {
            Ok(bytes) => {
                Memory::from_bytes(&bytes).unwrap_or_else(|| Memory { last_use: LastUse::Running, ..Memory::default() })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Memory::default(),
            Err(error) => return Err(CacheMountError::at("reading", &path)(error)),
        };
        Ok(Turn { memory, _lock: lock })
    }

    /// Notes that a run begins that sees `seen`; `cover` is the folder with their times, if one is needed.
    ///
    /// # Errors
    /// When the memory cannot be written.
    pub fn begin(
        &mut self,
        turn: Turn,
        seen: Vec<(Vec<u8>, Seen)>,
        cover: Option<String>,
    ) -> Result<(), CacheMountError> {
        let Turn { mut memory, _lock } = turn;
        let is_beside = memory.last_use == LastUse::Running;
        memory.last_use = LastUse::Running;
        memory.generation += 1;
        memory.cover = cover;
        // What is long gone from every input must not pile up; forgetting is the careful side.
        if memory.seen.len() > 4 * seen.len() + 100_000 {
            memory.seen.clear();
        }
        forget_gone(&mut memory, &seen);
        for (path, now) in &seen {
            // Somebody who saw it otherwise has not come to an end: what he makes of it may be newer than what this run is
            // shown. He may also be killed and never say that he is done.
            let in_doubt = is_beside && memory.seen.get(path).is_some_and(|other| other.content != now.content);
            memory.seen.insert(path.clone(), if in_doubt { Seen::IN_DOUBT } else { *now });
        }
        self.write(&memory)?;
        self.begun = Some(Begun { generation: memory.generation, seen });
        Ok(())
    }

    /// Notes that the run has ended, however it did.
    ///
    /// # Errors
    /// When the memory cannot be read or written.
    pub fn end(mut self, now: Moment) -> Result<(), CacheMountError> {
        let Some(begun) = self.begun.take() else { return Ok(()) };
        let Turn { mut memory, _lock } = self.turn()?;
        if memory.generation != begun.generation {
            // Another run has used it at the same time and may have seen other files: what came of which is not known.
            for (path, seen) in begun.seen {
                if let Some(other) = memory.seen.get_mut(&path).filter(|other| other.content != seen.content) {
                    *other = Seen::IN_DOUBT;
                }
            }
        }
        // Whoever is last knows when the last use ended.
        self.lock = None;
        let path = self.place.join("lock");
        if let Some(lock) = Lock::try_alone(&path)? {
            memory.last_use = LastUse::At(now);
            self.write(&memory)?;
            self.remove_old_covers(memory.cover.as_deref());
            drop(lock);
            return Ok(());
        }
        // It may have been removed in this moment, with its memory.
        if path.exists() { self.write(&memory) } else { Ok(()) }
    }

    fn write(&self, memory: &Memory) -> Result<(), CacheMountError> {
        // Its content is as good as the mount's: both are worth nothing after a crash of the machine unless both are there,
        // and a memory that is not whole is taken for a fresh use.
        let (path, fresh) = (self.place.join("memory"), self.place.join("memory.new"));
        fs::write(&fresh, memory.to_bytes()).map_err(CacheMountError::at("writing", &fresh))?;
        fs::rename(&fresh, &path).map_err(CacheMountError::at("writing", &path))
    }

    fn remove_old_covers(&self, but: Option<&str>) {
        for entry in fs::read_dir(&self.place).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with("cover-") && Some(&*name) != but {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
}

/// Forgets the files that are gone from folders that a run sees: one that comes back was not there when what is in the mount
/// was made. What another command saw last is that one's, and so is a folder that this one sees nothing of.
fn forget_gone(memory: &mut Memory, seen: &[(Vec<u8>, Seen)]) {
    let there: HashSet<&[u8]> = seen.iter().map(|(path, _)| path.as_slice()).collect();
    let folders: HashSet<&[u8]> = there.iter().map(|path| folder(path)).collect();
    let Some(by) = seen.first().map(|(_, seen)| seen.by) else { return };
    memory.seen.retain(|path, seen| {
        seen.by != by || there.contains(path.as_slice()) || !folders.contains(folder(path)) || is_of_system(path)
    });
}

fn folder(path: &[u8]) -> &[u8] {
    &path[..path.iter().rposition(|byte| *byte == b'/').unwrap_or(0)]
}
