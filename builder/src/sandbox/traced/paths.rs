//! Where a path of the command leads: inside its root, or to one of the places that are shown in it.
//!
//! A path is first given to `openat2`, which keeps it in the root; where that finds nothing, or the path may lead to
//! another place, it is walked name by name. What a walk has found is opened without following any link, so that one
//! which another process puts there meanwhile leads nowhere; and the command gets that open object, not the path again.

use std::collections::VecDeque;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::super::error::{During, Failure};
use super::system::Tid;

/// Where terminals are, those of others too.
const TERMINALS: &[u8] = b"/dev/pts";

/// Links followed in one path: as the kernel has it.
const LINKS_MAX: usize = 40;

/// Something of the machine that is shown in the root.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// Where the command sees it; no slash at the end.
    pub(super) seen: Vec<u8>,
    /// Where it is.
    pub(super) is: Vec<u8>,
    pub(super) read_only: bool,
}

/// A place, held open.
#[derive(Debug)]
struct Held {
    place: Place,
    /// None of `/proc`, which is another's for each process, and of what is not there.
    fd: Option<OwnedFd>,
}

/// The root of a command.
#[derive(Debug)]
pub(super) struct Root {
    fd: OwnedFd,
    /// Its real path.
    path: Vec<u8>,
    /// Inner places after those that they lie in.
    places: Vec<Held>,
    /// Some places lie where the root has something of its own.
    covers: bool,
    /// Some places may only be read.
    any_read_only: bool,
    /// Terminals that were there before the command: not its own.
    terminals: Vec<(Vec<u8>, (u64, i64, u64))>,
}

/// An object, held by a descriptor that only names it.
#[derive(Debug)]
pub(super) struct Found {
    fd: OwnedFd,
    /// Whether it may lie in a place.
    pub(super) outside: bool,
}

impl Found {
    /// What another's descriptor names, wherever that is.
    pub(super) fn somewhere(fd: OwnedFd) -> Self {
        Self { fd, outside: true }
    }

    /// A path to the object itself, good while this value lives.
    pub(super) fn name(&self) -> CString {
        CString::new(format!("/proc/self/fd/{}", self.fd.as_raw_fd())).unwrap_or_default()
    }

    /// The same for other processes.
    pub(super) fn shared_name(&self) -> Vec<u8> {
        format!("/proc/{}/fd/{}", std::process::id(), self.fd.as_raw_fd()).into_bytes()
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// What is at a name in this folder; a link itself.
    pub(super) fn within(&self, name: &CStr) -> Result<Self, Errno> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&self.fd, name, flags, Mode::empty()).map(Self::somewhere)
    }

    /// Its real path.
    pub(super) fn path(&self) -> Result<Vec<u8>, Errno> {
        Ok(rustix::fs::readlink(self.name().as_c_str(), Vec::new())?.into_bytes())
    }
}

/// A name in a folder: something that may not be there yet.
#[derive(Debug)]
pub(super) struct Spot {
    pub(super) folder: Found,
    pub(super) name: CString,
    /// It is a place, which can neither be moved nor taken away.
    pub(super) is_place: bool,
    /// The path ends with a slash: nothing but a folder is meant.
    pub(super) wants_folder: bool,
}

/// What a path leads to.
#[derive(Debug)]
pub(super) enum Target {
    There(Found),
    /// Nothing, in a folder that is there.
    Absent(Spot),
}

/// What must be known of the task that names a path.
pub(super) trait Namer {
    fn tid(&self) -> Tid;
    fn tgid(&self) -> Tid;
    /// Whether a process or task belongs to the sandbox.
    fn knows(&self, tid: Tid) -> bool;
    /// The program of a process of the sandbox, as the command sees it.
    fn program(&self, tgid: Tid) -> Option<Vec<u8>>;
}

pub(super) fn joined(folder: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = folder.to_vec();
    if path.last() != Some(&b'/') {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}

/// Whether a path has nothing in it but names.
fn is_plain(path: &[u8]) -> bool {
    path.strip_prefix(b"/")
        .is_some_and(|rest| rest.split(|byte| *byte == b'/').all(|name| !matches!(name, b".." | b"." | b"")))
}

/// The path without `.` and `..`, as if there were no links.
fn lexical(path: &[u8]) -> Vec<u8> {
    let mut stack = Vec::new();
    for name in names(path) {
        if name == b".." {
            let _ = stack.pop();
        } else {
            stack.push(name);
        }
    }
    [b"/", stack.join(&b'/').as_slice()].concat()
}

fn names(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".")
}

/// `path` without the names of `prefix`, if it starts with them; empty or starting with a slash.
fn below<'a>(path: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    path.strip_prefix(prefix).filter(|rest| rest.is_empty() || rest.starts_with(b"/") || prefix == b"/")
}

/// Where a walk has ended.
struct Walked {
    /// As the command sees it, without links.
    seen: Vec<u8>,
    /// The link of a descriptor in `/proc`, which the kernel follows.
    is_descriptor: bool,
}

/// What a name in `/proc` is.
enum InProc {
    /// A link with that target, as the command sees it.
    Link(Vec<u8>),
    /// A descriptor at the end of a path.
    Descriptor,
    Other,
}

impl Root {
    pub(super) fn open(path: &Path, mut places: Vec<Place>) -> Result<Self, Failure> {
        let what = || format!("opening the root {}", path.display());
        let real = path.canonicalize().during(what)?;
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let fd = rustix::fs::open(&real, flags | OFlags::DIRECTORY, Mode::empty()).during(what)?;
        places.sort_by_key(|place| place.seen.len());
        // The two files are written over what is there, and nobody links to them.
        let usual: [&[u8]; 5] = [b"/dev", b"/proc", b"/sys", b"/etc/hosts", b"/etc/resolv.conf"];
        let covers = places.iter().any(|place| !usual.iter().any(|usual| below(&place.seen, usual).is_some()));
        let any_read_only = places.iter().any(|place| place.read_only);
        let hold = |place: Place| {
            let is_process = below(&place.is, b"/proc").is_some();
            let fd = if is_process { None } else { rustix::fs::open(&*place.is, flags, Mode::empty()).ok() };
            Held { place, fd }
        };
        let places = places.into_iter().map(hold).collect();
        let names = std::fs::read_dir("/dev/pts").into_iter().flatten().flatten();
        let terminals = names.filter_map(|entry| {
            let name = entry.file_name().as_bytes().to_vec();
            let number = name.iter().all(u8::is_ascii_digit);
            number.then(|| Some((name, identity(&rustix::fs::stat(entry.path()).ok()?))))?
        });
        let terminals = terminals.collect();
        Ok(Self { fd, path: real.as_os_str().as_bytes().to_vec(), places, covers, any_read_only, terminals })
    }

    /// The path as the command would write it of something with that real path.
    pub(super) fn seen(&self, real: &[u8]) -> Vec<u8> {
        if let Some(rest) = below(real, &self.path) {
            return if rest.is_empty() { b"/".to_vec() } else { rest.to_vec() };
        }
        // The innermost place: later ones lie deeper.
        let place = self.places().rev().find_map(|place| Some((place, below(real, &place.is)?)));
        place.map_or_else(|| real.to_vec(), |(place, rest)| [&place.seen, rest].concat())
    }

    fn places(&self) -> impl DoubleEndedIterator<Item = &Place> {
        self.places.iter().map(|held| &held.place)
    }

    /// The place that a real path lies in; none in the root itself.
    fn place_around(&self, real: &[u8]) -> Option<&Place> {
        if below(real, &self.path).is_some() {
            return None;
        }
        self.places().rev().find(|place| below(real, &place.is).is_some())
    }

    /// Whether what is found may only be read.
    pub(super) fn is_read_only(&self, found: &Found) -> Result<bool, Errno> {
        Ok(self.any_read_only && self.place_around(&found.path()?).is_some_and(|place| place.read_only))
    }

    /// Whether two folders are as if on two file systems.
    pub(super) fn are_apart(&self, one: &Found, other: &Found) -> Result<bool, Errno> {
        if !self.covers {
            return Ok(false);
        }
        let (one, other) = (one.path()?, other.path()?);
        let seen = |path| self.place_around(path).map(|place| place.seen.as_slice());
        Ok(seen(&one) != seen(&other))
    }

    /// The innermost place that a path lies in, and the rest of the path.
    fn place_of<'a>(&self, seen: &'a [u8]) -> Option<(&Held, &'a [u8])> {
        self.places.iter().rev().find_map(|held| Some((held, below(seen, &held.place.seen)?)))
    }

    /// Whether something with this real path is covered by a place.
    fn is_covered(&self, real: &[u8]) -> bool {
        below(real, &self.path).is_some_and(|seen| self.place_of(seen).is_some())
    }

    /// Opens a path whose names are no links: one that is there nevertheless, as somebody has just put it there, is an
    /// error unless it is the last and not to be followed.
    fn open_seen(&self, namer: &impl Namer, seen: &[u8], is_descriptor: bool, flags: OFlags) -> Result<Found, Errno> {
        let flags = flags | OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let Some((held, rest)) = self.place_of(seen) else {
            return confined(&self.fd, seen, flags, ResolveFlags::NO_SYMLINKS).map(|fd| Found { fd, outside: false });
        };
        let fd = match &held.fd {
            Some(fd) if rest.is_empty() => rustix::io::fcntl_dupfd_cloexec(fd, 0)?,
            Some(fd) => confined(fd, rest, flags, ResolveFlags::NO_SYMLINKS)?,
            None => {
                let path = own(namer, &[&held.place.is, rest].concat());
                let flags = if is_descriptor { flags.difference(OFlags::NOFOLLOW) } else { flags };
                rustix::fs::open(&*path, flags, Mode::empty())?
            }
        };
        if held.place.seen == TERMINALS
            && self.terminals.iter().any(|(name, _)| names(rest).eq([name.as_slice()]))
            && let Ok(stat) = rustix::fs::fstat(&fd)
            && self.terminals.iter().any(|(_, known)| *known == identity(&stat))
        {
            return Err(Errno::NOENT);
        }
        Ok(Found { fd, outside: true })
    }

    /// What an absolute path leads to.
    pub(super) fn find(&self, namer: &impl Namer, path: &[u8], follow: bool) -> Result<Found, Errno> {
        match self.target(namer, path, follow)? {
            Target::There(found) => Ok(found),
            Target::Absent(_) => Err(Errno::NOENT),
        }
    }

    /// What an absolute path leads to, or where it would be.
    pub(super) fn target(&self, namer: &impl Namer, path: &[u8], follow: bool) -> Result<Target, Errno> {
        // A slash at the end follows, and wants a folder.
        let folder = path.len() > 1 && (path.ends_with(b"/") || path.ends_with(b"/."));
        let follow = follow || folder;
        let flags = if folder { OFlags::DIRECTORY } else { OFlags::empty() };
        let nofollow = if follow { OFlags::empty() } else { OFlags::NOFOLLOW };
        let usual = flags | nofollow | OFlags::PATH | OFlags::CLOEXEC;
        let there = |fd, outside| Ok(Target::There(Found { fd, outside }));
        match self.place_of(&lexical(path)) {
            // Mostly there is no link.
            Some((Held { fd: Some(fd), .. }, b"")) if is_plain(path) => {
                return there(rustix::io::fcntl_dupfd_cloexec(fd, 0)?, true);
            }
            Some((Held { fd: Some(fd), place }, rest)) if is_plain(path) && place.seen != TERMINALS => {
                if let Ok(fd) = confined(fd, rest, usual, ResolveFlags::NO_SYMLINKS) {
                    return there(fd, true);
                }
            }
            Some(_) => {}
            None => match confined(&self.fd, path, usual, ResolveFlags::NO_MAGICLINKS) {
                Ok(fd) => {
                    let found = Found { fd, outside: false };
                    if !self.covers || !self.is_covered(&found.path()?) {
                        return Ok(Target::There(found));
                    }
                }
                // Here it may be a link to a place; mostly it is not, and then the folder is there and the name is not.
                Err(Errno::NOENT) => {
                    if let Some(spot) = self.absent(path) {
                        return Ok(Target::Absent(spot));
                    }
                }
                Err(errno) => return Err(errno),
            },
        }
        let walked = self.walk(namer, path, follow)?;
        match self.open_seen(namer, &walked.seen, walked.is_descriptor, flags) {
            Ok(found) => Ok(Target::There(found)),
            Err(Errno::NOENT) => {
                let (parent, name) = split(&walked.seen);
                let is_place = self.places().any(|place| place.seen == walked.seen);
                if is_place || walked.is_descriptor {
                    return Err(Errno::NOENT);
                }
                let folder = self.open_seen(namer, parent, false, OFlags::DIRECTORY)?;
                let name = CString::new(name).map_err(|_| Errno::INVAL)?;
                Ok(Target::Absent(Spot { folder, name, is_place: false, wants_folder: false }))
            }
            Err(errno) => Err(errno),
        }
    }

    /// Where a path would be, if nothing is there at all, not even in a place.
    fn absent(&self, path: &[u8]) -> Option<Spot> {
        let (folder, name) = split(path);
        let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::DIRECTORY;
        let fd = confined(&self.fd, folder, flags, ResolveFlags::NO_MAGICLINKS).ok()?;
        let name = CString::new(name).ok()?;
        let is_absent = rustix::fs::readlinkat(&fd, &*name, Vec::new()).is_err_and(|errno| errno == Errno::NOENT);
        let folder = Found { fd, outside: false };
        let is_absent = is_absent && !self.is_covered(&joined(&folder.path().ok()?, name.to_bytes()));
        is_absent.then_some(Spot { folder, name, is_place: false, wants_folder: false })
    }

    /// The folder and the name that an absolute path ends with; what is there is not looked at.
    pub(super) fn spot(&self, namer: &impl Namer, path: &[u8]) -> Result<Spot, Errno> {
        let trimmed = path.iter().rposition(|byte| *byte != b'/').map_or(&path[..0], |last| &path[..=last]);
        if trimmed.is_empty() {
            // The root itself.
            let folder = self.find(namer, b"/", true)?;
            return Ok(Spot { folder, name: c".".to_owned(), is_place: true, wants_folder: false });
        }
        let (folder, name) = split(trimmed);
        if let Some(place) = self.places().find(|place| place.seen == trimmed) {
            let (folder, name) = split(&place.is);
            let fd = rustix::fs::open(folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
            let name = CString::new(name).map_err(|_| Errno::INVAL)?;
            return Ok(Spot { folder: Found { fd, outside: true }, name, is_place: true, wants_folder: false });
        }
        let folder = self.find(namer, &joined(folder, b""), true)?;
        let name = CString::new(name).map_err(|_| Errno::INVAL)?;
        Ok(Spot { folder, name, is_place: false, wants_folder: trimmed.len() < path.len() })
    }

    /// Follows the links of a path, name by name.
    fn walk(&self, namer: &impl Namer, path: &[u8], follow: bool) -> Result<Walked, Errno> {
        let mut links = 0;
        let mut left: VecDeque<Vec<u8>> = names(path).map(<[u8]>::to_vec).collect();
        let mut stack: Vec<Vec<u8>> = Vec::new();
        let mut is_descriptor = false;
        while let Some(name) = left.pop_front() {
            let seen = [b"/", stack.join(&b'/').as_slice()].concat();
            if name == b".." {
                let _ = self.open_seen(namer, &seen, false, OFlags::DIRECTORY)?;
                let _ = stack.pop();
                continue;
            }
            let seen = joined(&seen, &name);
            stack.push(name);
            let is_last = left.is_empty();
            let target = match self.place_of(&seen) {
                Some((Held { fd: None, place }, rest)) if below(&place.is, b"/proc").is_some() => {
                    let real = own(namer, &[&place.is, rest].concat());
                    match self.in_proc(namer, &real, is_last, is_last && !follow)? {
                        InProc::Link(target) => Some(target),
                        InProc::Descriptor => {
                            is_descriptor = true;
                            None
                        }
                        InProc::Other => None,
                    }
                }
                _ if is_last && !follow => None,
                Some((held, rest)) if !rest.is_empty() => link(held.fd.as_ref(), rest),
                Some(_) => None,
                None => link(Some(&self.fd), &seen),
            };
            let Some(target) = target else { continue };
            links += 1;
            if links > LINKS_MAX {
                return Err(Errno::LOOP);
            }
            stack.pop();
            if target.starts_with(b"/") {
                stack.clear();
            }
            for name in names(&target).collect::<Vec<_>>().into_iter().rev() {
                left.push_front(name.to_vec());
            }
        }
        Ok(Walked { seen: [b"/", stack.join(&b'/').as_slice()].concat(), is_descriptor })
    }

    /// In `/proc`: its own links lead to real paths, and `self` is the task's, not the tracer's.
    fn in_proc(&self, namer: &impl Namer, real: &[u8], is_last: bool, stays: bool) -> Result<InProc, Errno> {
        let parts: Vec<&[u8]> = names(real).skip(1).collect();
        let Some(process) = parts.first() else { return Ok(InProc::Other) };
        let Some(process) = std::str::from_utf8(process).ok().and_then(|text| text.parse::<Tid>().ok()) else {
            if stays {
                return Ok(InProc::Other);
            }
            let target = match *process {
                b"self" => Some(namer.tgid().to_string().into_bytes()),
                b"thread-self" => Some(format!("{}/task/{}", namer.tgid(), namer.tid()).into_bytes()),
                _ => rustix::fs::readlink(real, Vec::new()).ok().map(CString::into_bytes),
            };
            return Ok(target.map_or(InProc::Other, InProc::Link));
        };
        // The others are the builder's, and have secrets in their environment.
        if !namer.knows(process) {
            return Err(Errno::NOENT);
        }
        if stays {
            return Ok(InProc::Other);
        }
        let own = if parts.get(1) == Some(&b"task".as_slice()) { parts.get(3..) } else { parts.get(1..) };
        let read = || {
            let target = rustix::fs::readlink(real, Vec::new())?;
            if target.to_bytes().starts_with(b"/") { Ok(self.seen(target.to_bytes())) } else { Err(Errno::NOTDIR) }
        };
        Ok(match own.unwrap_or_default() {
            [b"root"] => InProc::Link(b"/".to_vec()),
            [b"cwd"] => InProc::Link(read()?),
            [b"exe"] => InProc::Link(namer.program(process).ok_or(Errno::NOENT)?),
            [b"fd", _] if is_last => InProc::Descriptor,
            [b"fd" | b"map_files", _] => InProc::Link(read()?),
            _ => InProc::Other,
        })
    }
}

/// Opens a path below a folder, and never out of it.
fn confined(folder: &OwnedFd, path: &[u8], flags: OFlags, resolve: ResolveFlags) -> Result<OwnedFd, Errno> {
    let relative = path.strip_prefix(b"/").filter(|path| !path.is_empty()).unwrap_or(b".");
    loop {
        match rustix::fs::openat2(folder, relative, flags, Mode::empty(), ResolveFlags::IN_ROOT | resolve) {
            // Something was renamed meanwhile.
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
}

/// What the link at a path below a folder says, if it is one; the names before are none.
fn link(folder: Option<&OwnedFd>, path: &[u8]) -> Option<Vec<u8>> {
    let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let found = confined(folder?, path, flags, ResolveFlags::NO_SYMLINKS).ok()?;
    rustix::fs::readlinkat(found, c"", Vec::new()).ok().map(CString::into_bytes)
}

/// What tells a terminal from a later one of the same number.
fn identity(stat: &rustix::fs::Stat) -> (u64, i64, u64) {
    (stat.st_ino, stat.st_ctime, stat.st_ctime_nsec)
}

/// `/proc/self` is that of the task.
fn own(namer: &impl Namer, real: &[u8]) -> Vec<u8> {
    for (word, own) in [
        (b"/proc/self".as_slice(), format!("/proc/{}", namer.tgid())),
        (b"/proc/thread-self", format!("/proc/{}/task/{}", namer.tgid(), namer.tid())),
    ] {
        if let Some(rest) = below(real, word)
            && !rest.is_empty()
        {
            return [own.as_bytes(), rest].concat();
        }
    }
    real.to_vec()
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash.max(1)], &path[slash + 1..]),
        None => (b".", path),
    }
}
