//! The context on disk: what a source of a `COPY` selects, never anything outside the context's folder.
//!
//! Links in the path of a source are followed here, one component at a time, with the context as the root, so that an
//! absolute link or one full of `..` ends inside. Folders are then opened by paths without links, and the kernel is told
//! to refuse any (`openat2`; component by component where that call is missing), so that a link swapped in meanwhile
//! leads nowhere either. Below a source, links are entries and are not followed.

use std::collections::VecDeque;
use std::ffi::{CStr, OsStr};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::filter::{Filter, FilterState};
use super::ignore::{Ignore, Matched};
use super::listing::{FileKind, Selection, Source, SourceEntry};
use super::modes::Modes;
use super::nearest::nearest_file_name;
use super::pattern::{BadPattern, Pattern, split_at_wildcard};

/// Links followed for one source before it counts as a circle; the kernel's own limit.
const LINKS_MAX: usize = 40;

/// Longest path that can be opened, in bytes without the final NUL (`PATH_MAX`).
const PATH_MAX_BYTES: usize = 4095;

/// Why a source cannot be selected.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// The folder given as context is not one.
    #[error("the build context {} is not a directory", .0.display())]
    NotADirectory(PathBuf),
    /// Nothing is where the context should be.
    #[error("there is no folder {} to be the build context{}", .path.display(), nearest_hint(.nearest.as_deref()))]
    NotThere {
        /// The folder.
        path: PathBuf,
        /// The closest folder that is there.
        nearest: Option<String>,
    },
    /// A literal path that is not there.
    #[error("`{path}` is not in the build context{}", nearest_hint(.nearest.as_deref()))]
    Missing {
        /// The path as written, cleaned.
        path: String,
        /// The closest name that is there.
        nearest: Option<String>,
    },
    /// A literal path, where there is nothing at all.
    #[error("`{path}` is not in the build context, which is empty: all that came was the Dockerfile")]
    Empty {
        /// The path as written, cleaned.
        path: String,
    },
    /// A path that leads through a symbolic link to one that is not there.
    #[error("`{path}` leads through a symbolic link: `{target}` is not in the build context")]
    LeadsNowhere {
        /// The path as written, cleaned.
        path: String,
        /// What of where it leads is not there, from the context's root: links never leave it.
        target: String,
    },
    /// A literal path that an ignore rule hides.
    #[error("`{path}` is hidden by rule `{rule}` at {file}:{line}")]
    Hidden {
        /// The path as written, cleaned.
        path: String,
        /// The rule as written.
        rule: String,
        /// The ignore file.
        file: String,
        /// The rule's line in it.
        line: usize,
    },
    /// A path that is there, and that `--parents` does not take.
    #[error("`{0}` is left out by `--exclude`, or is behind a symbolic link, which `--parents` does not follow")]
    LeftOut(String),
    /// A path in the store, which no context holds.
    #[error(
        "`{0}` is in the folder where images and cached steps are kept (`--store`, FLUYT_STORE): no build takes that"
    )]
    InStore(String),
    /// A wildcard that cannot be read.
    #[error(transparent)]
    Pattern(#[from] BadPattern),
    /// Links that lead in a circle.
    #[error("`{0}` leads through more than {LINKS_MAX} symbolic links")]
    TooManyLinks(String),
    /// A tree deeper than a path can name.
    #[error("the path `{0}` is longer than {PATH_MAX_BYTES} bytes")]
    PathTooLong(String),
    /// The system said no.
    #[error("cannot read {} of the build context", .path.display())]
    Read {
        /// What was read.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

fn nearest_hint(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |near| format!("; did you mean `{near}`?"))
}

/// The folder that was meant by a path with nothing but its last name wrong.
fn nearest_folder(wanted: &Path) -> Option<String> {
    let above = wanted.parent()?;
    let beside = if above.as_os_str().is_empty() { Path::new(".") } else { above };
    let entries = beside.read_dir().ok()?.filter_map(|entry| Some(entry.ok()?.file_name()));
    let names: Vec<_> = entries.filter(|name| beside.join(name).is_dir()).collect();
    let nearest = nearest_file_name(wanted.file_name()?.as_bytes(), names.iter().map(|name| name.as_bytes()))?;
    Some(above.join(OsStr::from_bytes(nearest)).display().to_string())
}

/// A folder of files for a build.
#[derive(Debug)]
pub struct Context {
    root: PathBuf,
    folder: OwnedFd,
    ignore: Ignore,
    modes: Option<Modes>,
    /// The folders of stores, wherever they are met: by device and inode, as a mount may show one under another name.
    stores: Vec<(u64, u64)>,
    /// Where one was met.
    store_met: OnceLock<Vec<u8>>,
}

/// Where a path leads.
enum Found {
    /// To this path without links, and what it is.
    Entry(Vec<u8>, Box<Stat>),
    /// To nothing: this path, without links up to its last component, is not there.
    Nothing(Vec<u8>),
    /// To a link or an entry that a rule hides.
    Hidden(Vec<u8>),
    /// To the store, which is at this path, or into it.
    Store(Vec<u8>),
}

impl Context {
    /// Opens a folder.
    ///
    /// # Errors
    ///
    /// When it is no folder, or cannot be read.
    pub fn open(folder: &Path, ignore: Ignore) -> Result<Self, ContextError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::open(folder, flags, Mode::empty()).map_err(|error| match error {
            Errno::NOENT => ContextError::NotThere { path: folder.to_owned(), nearest: nearest_folder(folder) },
            Errno::NOTDIR => ContextError::NotADirectory(folder.to_owned()),
            other => ContextError::Read { path: folder.to_owned(), source: other.into() },
        })?;
        // Entries say where they are absolutely, whatever the working directory becomes.
        let root = folder.canonicalize().map_err(|source| ContextError::Read { path: folder.to_owned(), source })?;
        Ok(Self { root, folder: opened, ignore, modes: None, stores: Vec::new(), store_met: OnceLock::new() })
    }

    /// Without a store: what is written while it is read would be another thing in each build, and in the image too.
    #[must_use]
    pub fn without_store(mut self, folder: &Path) -> Self {
        self.stores.extend(rustix::fs::stat(folder).ok().map(|stat| identity(&stat)));
        self
    }

    /// Where in it a store was met and left out, relative to it.
    #[must_use]
    pub fn store_left_out(&self) -> Option<String> {
        self.store_met.get().map(|path| shown(path))
    }

    fn is_store(&self, stat: &Stat) -> bool {
        self.stores.contains(&identity(stat))
    }

    /// That a rule hides it too is no news.
    fn meet_store(&self, path: Vec<u8>) {
        if !self.ignore.matches(&path).hidden {
            self.store_met.get_or_init(|| path);
        }
    }

    /// With modes that do not depend on how the context was checked out.
    #[must_use]
    pub fn with_modes(mut self, modes: Modes) -> Self {
        self.modes = Some(modes);
        self
    }

    /// What gives its entries their modes, where that is not the file system.
    #[must_use]
    pub fn modes(&self) -> Option<&Modes> {
        self.modes.as_ref()
    }

    /// The folder, absolute.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The rules.
    #[must_use]
    pub fn ignore(&self) -> &Ignore {
        &self.ignore
    }

    /// What a source selects: `pattern` is relative to the context and cleaned, as lowering leaves it.
    ///
    /// # Errors
    ///
    /// When a path without wildcards is not there or hidden, and when something cannot be read. A wildcard that matches
    /// nothing selects nothing.
    pub fn select(&self, pattern: &str) -> Result<Selection, ContextError> {
        self.select_of(pattern, &Filter::default())
    }

    /// The same, and of each source only what `filter` takes.
    ///
    /// # Errors
    ///
    /// As [`Context::select`], and when the filter wants a path that is not there.
    pub fn select_of(&self, pattern: &str, filter: &Filter) -> Result<Selection, ContextError> {
        let (literal, wildcards) = split_at_wildcard(pattern)?;
        let mut selection = Selection::default();
        if wildcards.is_empty() {
            let source = self.source(literal.as_bytes(), filter, &mut selection.skipped_sockets)?;
            let Some(source) = source else { return Err(self.refusal(literal, filter)) };
            if filter.wants_a_path() && source.entries.len() <= 1 {
                return Err(self.refusal(literal, filter));
            }
            selection.sources.push(source);
            return Ok(selection);
        }
        let mut names = Vec::new();
        if let Found::Entry(folder, _) = self.find(literal.as_bytes())? {
            self.match_names(&folder, literal.as_bytes(), &wildcards, &mut names)?;
        }
        for name in names {
            match self.source(&name, filter, &mut selection.skipped_sockets)? {
                Some(source) => selection.sources.push(source),
                // A link that leads nowhere is what its name says, and is not there.
                None => match self.find(&name)? {
                    Found::Nothing(missing) => return Err(self.missing(&shown(&name), &missing)),
                    Found::Store(path) => self.meet_store(path),
                    Found::Entry(..) | Found::Hidden(_) => {}
                },
            }
        }
        Ok(selection)
    }

    fn unreadable(&self, path: &[u8], error: Errno) -> ContextError {
        ContextError::Read { path: self.absolute(path), source: error.into() }
    }

    fn absolute(&self, path: &[u8]) -> PathBuf {
        if path.is_empty() { self.root.clone() } else { self.root.join(OsStr::from_bytes(path)) }
    }

    /// Opens a path that has no links in it.
    fn open_beneath(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let path = if path.is_empty() { b"." } else { path };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        match rustix::fs::openat2(&self.folder, path, flags, Mode::empty(), resolve) {
            // Not there before Linux 5.6, and some sandboxes filter it.
            Err(Errno::NOSYS | Errno::PERM) => {}
            done => return done,
        }
        let mut folder: Option<OwnedFd> = None;
        let mut components = path.split(|byte| *byte == b'/').peekable();
        while let Some(component) = components.next() {
            let above = folder.as_ref().map_or(self.folder.as_fd(), AsFd::as_fd);
            let flags = if components.peek().is_none() {
                flags
            } else {
                OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
            };
            folder = Some(rustix::fs::openat(above, component, flags, Mode::empty())?);
        }
        folder.ok_or(Errno::NOENT)
    }

    /// Follows the links in `path`, with the context as the root.
    fn find(&self, path: &[u8]) -> Result<Found, ContextError> {
        let mut open: VecDeque<Vec<u8>> = components(path).map(<[u8]>::to_vec).collect();
        let mut found: Vec<u8> = Vec::new();
        let mut links = 0;
        let mut stat = rustix::fs::fstat(&self.folder).map_err(|error| self.unreadable(b"", error))?;
        while let Some(component) = open.pop_front() {
            if component == b".." {
                found.truncate(found.iter().rposition(|byte| *byte == b'/').unwrap_or(0));
                stat = self.stat(&found)?.unwrap_or(stat);
                continue;
            }
            let next = join(&found, &component);
            if next.len() > PATH_MAX_BYTES {
                return Err(ContextError::PathTooLong(shown(&next)));
            }
            let Some(entry) = self.stat(&next)? else { return Ok(Found::Nothing(next)) };
            if FileType::from_raw_mode(entry.st_mode) == FileType::Symlink {
                if self.ignore.matches(&next).hidden {
                    return Ok(Found::Hidden(next));
                }
                links += 1;
                if links > LINKS_MAX {
                    return Err(ContextError::TooManyLinks(shown(path)));
                }
                let target = self.read_link(&next)?;
                if target.starts_with(b"/") {
                    found.clear();
                }
                for component in components(&target).rev() {
                    open.push_front(component.to_vec());
                }
                continue;
            }
            if self.is_store(&entry) {
                return Ok(Found::Store(next));
            }
            found = next;
            stat = entry;
        }
        Ok(Found::Entry(found, Box::new(stat)))
    }

    /// What a path without links is; `None` when nothing is there.
    fn stat(&self, path: &[u8]) -> Result<Option<Stat>, ContextError> {
        let named = if path.is_empty() { b"." } else { path };
        match rustix::fs::statat(&self.folder, named, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG) => Ok(None),
            Err(error) => Err(self.unreadable(path, error)),
        }
    }

    fn read_link(&self, path: &[u8]) -> Result<Vec<u8>, ContextError> {
        let target = rustix::fs::readlinkat(&self.folder, path, Vec::new());
        Ok(target.map_err(|error| self.unreadable(path, error))?.into_bytes())
    }

    /// The names in a folder, sorted, and the folder.
    fn names(&self, folder: &[u8]) -> Result<(OwnedFd, Vec<Vec<u8>>), ContextError> {
        let read = || {
            let opened = self.open_beneath(folder, OFlags::RDONLY | OFlags::DIRECTORY)?;
            let mut names = Vec::new();
            for entry in Dir::read_from(&opened)? {
                let entry = entry?;
                let name: &CStr = entry.file_name();
                if name != c"." && name != c".." {
                    names.push(name.to_bytes().to_vec());
                }
            }
            names.sort_unstable();
            Ok((opened, names))
        };
        read().map_err(|error| self.unreadable(folder, error))
    }

    /// What is in a folder, the last name first. All is statted at once, so that no folder stays open.
    fn children(&self, folder: &[u8]) -> Result<Vec<(Vec<u8>, Stat)>, ContextError> {
        let (opened, names) = self.names(folder)?;
        let mut children = Vec::with_capacity(names.len());
        for name in names.into_iter().rev() {
            match rustix::fs::statat(&opened, &name[..], AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => children.push((name, stat)),
                // It went away since its folder was read.
                Err(Errno::NOENT) => {}
                Err(error) => return Err(self.unreadable(&join(folder, &name), error)),
            }
        }
        Ok(children)
    }

    /// Collects the paths below `folder` (which is called `name`) that the patterns match, component by component.
    fn match_names(
        &self,
        folder: &[u8],
        name: &[u8],
        patterns: &[Pattern],
        matched: &mut Vec<Vec<u8>>,
    ) -> Result<(), ContextError> {
        let Some((pattern, rest)) = patterns.split_first() else {
            matched.push(name.to_vec());
            return Ok(());
        };
        let is_folder =
            self.stat(folder)?.is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory);
        if !is_folder {
            return Ok(());
        }
        let (_, names) = self.names(folder)?;
        for child in names.iter().filter(|child| pattern.matches(child)) {
            self.match_names(&join(folder, child), &join(name, child), rest, matched)?;
        }
        Ok(())
    }

    /// The source of this name with all that is in it; `None` when it is not there or hidden.
    fn source(&self, name: &[u8], filter: &Filter, sockets: &mut Vec<Vec<u8>>) -> Result<Option<Source>, ContextError> {
        let Found::Entry(path, stat) = self.find(name)? else { return Ok(None) };
        let (verdict, matched) = self.ignore.check_from_the_root(&path);
        let mut entries = Vec::new();
        let is_folder = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if verdict.hidden && !is_folder {
            return Ok(None);
        }
        match self.entry(&path, Vec::new(), &stat)? {
            Some(entry) => entries.push(entry),
            None => sockets.push(path.clone()),
        }
        if is_folder {
            let mut listing = Listing { context: self, filter, entries, sockets };
            let any = listing.source(&path, matched)?;
            entries = listing.entries;
            if verdict.hidden && !any {
                return Ok(None);
            }
        }
        Ok(Some(Source { name: join_all(name), entries }))
    }

    /// An entry for the listing; `None` for a socket.
    fn entry(&self, path: &[u8], relative: Vec<u8>, stat: &Stat) -> Result<Option<SourceEntry>, ContextError> {
        let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => FileKind::File,
            FileType::Directory => FileKind::Directory,
            FileType::Symlink => FileKind::Symlink(self.read_link(path)?),
            FileType::Fifo => FileKind::Fifo,
            FileType::CharacterDevice => FileKind::CharDevice { major, minor },
            FileType::BlockDevice => FileKind::BlockDevice { major, minor },
            _ => return Ok(None),
        };
        let absolute = self.absolute(path);
        let mode = match &self.modes {
            Some(modes) if !matches!(kind, FileKind::Symlink(_)) => {
                modes.of(path, stat.st_mode & 0o7777, kind == FileKind::Directory)
            }
            _ => stat.st_mode & 0o7777,
        };
        let (device, inode) = identity(stat);
        #[expect(clippy::unnecessary_cast, reason = "the fields' types differ between architectures")]
        let entry = SourceEntry {
            relative,
            absolute,
            kind,
            mode,
            size_bytes: stat.st_size as u64,
            modified_seconds: stat.st_mtime as i64,
            modified_nanoseconds: stat.st_mtime_nsec as u32,
            changed_seconds: stat.st_ctime as i64,
            changed_nanoseconds: stat.st_ctime_nsec as u32,
            device,
            inode,
            links: stat.st_nlink as u64,
            is_way: false,
        };
        Ok(Some(entry))
    }

    /// Why a path without wildcards selects nothing.
    fn refusal(&self, literal: &str, filter: &Filter) -> ContextError {
        let path = &shown(&join(literal.as_bytes(), filter.wanted().unwrap_or_default().as_bytes()));
        let looked_at = match self.find(path.as_bytes()) {
            Ok(Found::Entry(found, _) | Found::Hidden(found)) => found,
            Ok(Found::Nothing(missing)) => return self.missing(path, &missing),
            Ok(Found::Store(_)) => return ContextError::InStore(path.to_owned()),
            Err(error) => return error,
        };
        match self.ignore.matches(&looked_at).rule {
            Some(rule) => ContextError::Hidden {
                path: path.to_owned(),
                rule: rule.text.clone(),
                file: self.ignore.file().to_owned(),
                line: rule.line,
            },
            None if filter.wants_a_path() => ContextError::LeftOut(path.to_owned()),
            None => ContextError::Missing { path: path.to_owned(), nearest: None },
        }
    }

    /// `missing` is what is not there, with nothing but its last component wrong. What a rule hides is not suggested.
    fn missing(&self, path: &str, missing: &[u8]) -> ContextError {
        // What is looked for below something that is not there begins with that; where a link led begins otherwise.
        if path.as_bytes().strip_prefix(missing).is_none_or(|rest| !rest.is_empty() && rest[0] != b'/') {
            return ContextError::LeadsNowhere { path: path.to_owned(), target: shown(missing) };
        }
        let cut = missing.iter().rposition(|byte| *byte == b'/');
        let (folder, name) = cut.map_or((&b""[..], missing), |at| (&missing[..at], &missing[at + 1..]));
        let names = self.names(folder).map_or_else(|_| Vec::new(), |(_, names)| names);
        let seen = names.iter().map(|name| &**name).filter(|name| !self.ignore.matches(&join(folder, name)).hidden);
        let nearest = nearest_file_name(name, seen).map(|name| shown(&join(folder, name)));
        ContextError::Missing { path: path.to_owned(), nearest }
    }
}

/// A walk through one source. It keeps its own stack: a tree may be deeper than the thread's.
struct Listing<'c> {
    context: &'c Context,
    filter: &'c Filter,
    entries: Vec<SourceEntry>,
    sockets: &'c mut Vec<Vec<u8>>,
}

/// A folder that is being listed.
struct Folder {
    path: Vec<u8>,
    relative: Vec<u8>,
    /// The rules that matched it.
    matched: Matched,
    left_out: FilterState,
    /// What is in it and still to be listed, the last name first.
    rest: Vec<(Vec<u8>, Stat)>,
    /// Whether it is there only for what is taken back in it.
    hidden: bool,
    /// Whether anything in it was listed.
    any: bool,
    /// Where its own entry stands in the listing.
    entry: usize,
}

impl Listing<'_> {
    /// Lists what is in the source's folder; says whether anything was.
    fn source(&mut self, path: &[u8], matched: Matched) -> Result<bool, ContextError> {
        let rest = self.context.children(path)?;
        let left_out = FilterState::default();
        let (path, relative) = (path.to_vec(), Vec::new());
        let mut open = vec![Folder { path, relative, matched, left_out, rest, hidden: false, any: false, entry: 0 }];
        loop {
            let Some(folder) = open.last_mut() else { return Ok(false) };
            if let Some((name, stat)) = folder.rest.pop() {
                if let Some(inner) = self.child(folder, &name, &stat)? {
                    open.push(inner);
                }
                continue;
            }
            let Some(done) = open.pop() else { return Ok(false) };
            let Some(above) = open.last_mut() else { return Ok(done.any) };
            if done.hidden && !done.any {
                self.entries.truncate(done.entry);
            } else {
                above.any = true;
            }
        }
    }

    /// Lists one entry of `folder`; returns it when it is a folder to go into.
    fn child(&mut self, folder: &mut Folder, name: &[u8], stat: &Stat) -> Result<Option<Folder>, ContextError> {
        let path = join(&folder.path, name);
        let relative = join(&folder.relative, name);
        if path.len() > PATH_MAX_BYTES {
            return Err(ContextError::PathTooLong(shown(&path)));
        }
        let (verdict, matched) = self.context.ignore.check(&path, &folder.matched);
        if self.context.is_store(stat) {
            self.context.meet_store(path);
            return Ok(None);
        }
        let (is_left_out, left_out) = self.filter.check(&relative, &folder.left_out);
        let is_folder = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let hidden = verdict.hidden || is_left_out;
        let worth_a_look = is_folder
            && (!verdict.hidden || self.context.ignore.may_take_back_inside(&path))
            && (!is_left_out || self.filter.may_take_inside(&relative, &left_out));
        if hidden && !worth_a_look {
            return Ok(None);
        }
        let Some(mut entry) = self.context.entry(&path, relative.clone(), stat)? else {
            self.sockets.push(path);
            return Ok(None);
        };
        entry.is_way = is_left_out;
        let place = self.entries.len();
        self.entries.push(entry);
        if !is_folder {
            folder.any = true;
            return Ok(None);
        }
        let rest = self.context.children(&path)?;
        Ok(Some(Folder { path, relative, matched, left_out, rest, hidden, any: false, entry: place }))
    }
}

/// Device and inode.
#[expect(clippy::unnecessary_cast, reason = "the fields' types differ between architectures")]
fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev as u64, stat.st_ino as u64)
}

fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|component| !component.is_empty() && *component != b".")
}

fn join(folder: &[u8], name: &[u8]) -> Vec<u8> {
    match (folder.is_empty(), name.is_empty()) {
        (true, _) => name.to_vec(),
        (_, true) => folder.to_vec(),
        (false, false) => [folder, b"/", name].concat(),
    }
}

/// A path without doubled and final slashes.
fn join_all(path: &[u8]) -> Vec<u8> {
    components(path).collect::<Vec<_>>().join(&b'/')
}

fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

#[cfg(test)]
mod tests;
