//! Where a path of the command leads: inside its root, or to one of the places that are shown in it.
//!
//! A path is first given to `openat2`, which keeps it in the root; where that finds nothing, or the path may lead to
//! another place, it is walked name by name.

use std::collections::VecDeque;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::super::error::{During, Failure};
use super::system::Tid;

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

/// The root of a command.
#[derive(Debug)]
pub(super) struct Root {
    fd: OwnedFd,
    /// Its real path.
    path: Vec<u8>,
    /// Inner places after those that they lie in.
    places: Vec<Place>,
    /// Some places lie where the root has something of its own.
    covers: bool,
}

/// An object, held by a descriptor that only names it.
#[derive(Debug)]
pub(super) struct Found(pub(super) OwnedFd);

impl Found {
    /// A path to the object itself, good while this value lives.
    pub(super) fn name(&self) -> CString {
        CString::new(format!("/proc/self/fd/{}", self.0.as_raw_fd())).unwrap_or_default()
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
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
}

impl Spot {
    /// Its real path.
    pub(super) fn path(&self) -> Result<Vec<u8>, Errno> {
        Ok(joined(&self.folder.path()?, self.name.to_bytes()))
    }
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

fn names(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".")
}

/// `path` without the names of `prefix`, if it starts with them; empty or starting with a slash.
fn below<'a>(path: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    path.strip_prefix(prefix).filter(|rest| rest.is_empty() || rest.starts_with(b"/") || prefix == b"/")
}

fn open_name(path: &[u8], follow: bool) -> Result<Found, Errno> {
    let flags = if follow { OFlags::empty() } else { OFlags::NOFOLLOW };
    rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC | flags, Mode::empty()).map(Found)
}

/// Where a walk has ended.
struct Walked {
    /// The real path.
    path: Vec<u8>,
    /// Outside of the root, where the kernel may follow what is left to follow.
    outside: bool,
}

impl Root {
    pub(super) fn open(path: &Path, mut places: Vec<Place>) -> Result<Self, Failure> {
        let what = || format!("opening the root {}", path.display());
        let real = path.canonicalize().during(what)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(&real, flags, Mode::empty()).during(what)?;
        places.sort_by_key(|place| place.seen.len());
        // The two files are written over what is there, and nobody links to them.
        let usual: [&[u8]; 5] = [b"/dev", b"/proc", b"/sys", b"/etc/hosts", b"/etc/resolv.conf"];
        let covers = places.iter().any(|place| !usual.iter().any(|usual| below(&place.seen, usual).is_some()));
        Ok(Self { fd, path: real.as_os_str().as_bytes().to_vec(), places, covers })
    }

    /// The path as the command would write it of something with that real path.
    pub(super) fn seen(&self, real: &[u8]) -> Vec<u8> {
        if let Some(rest) = below(real, &self.path) {
            return if rest.is_empty() { b"/".to_vec() } else { rest.to_vec() };
        }
        // The innermost place: later ones lie deeper.
        let place = self.places.iter().rev().find_map(|place| Some((place, below(real, &place.is)?)));
        place.map_or_else(|| real.to_vec(), |(place, rest)| [&place.seen, rest].concat())
    }

    /// Whether a real path may be written to.
    pub(super) fn is_read_only(&self, real: &[u8]) -> bool {
        let place = self.places.iter().rev().find(|place| below(real, &place.is).is_some());
        place.is_some_and(|place| place.read_only) && below(real, &self.path).is_none()
    }

    fn place_of(&self, seen: &[u8]) -> Option<(&Place, Vec<u8>)> {
        let place = self.places.iter().rev().find_map(|place| Some((place, below(seen, &place.seen)?)))?;
        Some((place.0, [&place.0.is, place.1].concat()))
    }

    fn real(&self, seen: &[u8]) -> (Vec<u8>, bool) {
        match self.place_of(seen) {
            Some((_, real)) => (real, true),
            None => ([self.path.as_slice(), seen].concat(), false),
        }
    }

    /// Whether something with this real path is covered by a place.
    fn is_covered(&self, real: &[u8]) -> bool {
        below(real, &self.path).is_some_and(|seen| self.place_of(seen).is_some())
    }

    /// Whether the kernel alone may look for a path.
    fn is_plain(&self, path: &[u8]) -> bool {
        let Some(rest) = path.strip_prefix(b"/") else { return false };
        if rest.split(|byte| *byte == b'/').any(|name| name == b".." || name == b".")
            || path.windows(2).any(|two| two == b"//")
        {
            return false;
        }
        self.places.iter().all(|place| below(path, &place.seen).is_none())
    }

    fn openat2(&self, path: &[u8], flags: OFlags) -> Result<Found, Errno> {
        let relative = path.strip_prefix(b"/").filter(|path| !path.is_empty()).unwrap_or(b".");
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        loop {
            match rustix::fs::openat2(
                &self.fd,
                relative,
                OFlags::PATH | OFlags::CLOEXEC | flags,
                Mode::empty(),
                resolve,
            ) {
                // Something was renamed meanwhile.
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return other.map(Found),
            }
        }
    }

    /// What an absolute path leads to.
    pub(super) fn find(&self, namer: &impl Namer, path: &[u8], follow: bool) -> Result<Found, Errno> {
        // A slash at the end follows, and wants a folder.
        let folder = path.len() > 1 && (path.ends_with(b"/") || path.ends_with(b"/."));
        let follow = follow || folder;
        let flags = if follow { OFlags::empty() } else { OFlags::NOFOLLOW };
        let flags = if folder { flags | OFlags::DIRECTORY } else { flags };
        if self.is_plain(path) {
            match self.openat2(path, flags) {
                Ok(found) if !self.covers || !self.is_covered(&found.path()?) => return Ok(found),
                // Here it may be a link to a place; mostly it is not, and then the folder is there and the name is not.
                Err(Errno::NOENT) if self.is_surely_absent(path) => return Err(Errno::NOENT),
                Ok(_) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno),
            }
        }
        let walked = self.walk(namer, path, follow, 0)?;
        let found = open_name(&walked.path, walked.outside && follow)?;
        if folder && !is_folder(&found)? {
            return Err(Errno::NOTDIR);
        }
        Ok(found)
    }

    /// The real path that an absolute path leads to, for the kernel to look at in the command's own name. Its folder may
    /// not be there.
    pub(super) fn real_path(&self, namer: &impl Namer, path: &[u8], follow: bool) -> Result<Vec<u8>, Errno> {
        let folder = path.len() > 1 && (path.ends_with(b"/") || path.ends_with(b"/."));
        let follow = follow || folder;
        let mut real = None;
        if self.is_plain(path) {
            let flags = if follow { OFlags::empty() } else { OFlags::NOFOLLOW };
            match self.openat2(path, flags) {
                Ok(found) => real = Some(found.path()?).filter(|path| !self.covers || !self.is_covered(path)),
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno),
            }
        }
        let mut real = match real {
            Some(real) => real,
            None => self.walk(namer, path, follow, 0)?.path,
        };
        if folder {
            real.push(b'/');
        }
        Ok(real)
    }

    fn is_surely_absent(&self, path: &[u8]) -> bool {
        let Some(slash) = path.iter().rposition(|byte| *byte == b'/') else { return false };
        let (folder, name) = (&path[..slash.max(1)], &path[slash + 1..]);
        if name.is_empty() {
            return false;
        }
        let Ok(folder) = self.openat2(folder, OFlags::DIRECTORY) else { return false };
        !self.covers && rustix::fs::readlinkat(folder.fd(), name, Vec::new()).is_err_and(|errno| errno == Errno::NOENT)
    }

    /// The folder and the name that an absolute path ends with; what is there is not looked at.
    pub(super) fn spot(&self, namer: &impl Namer, path: &[u8]) -> Result<Spot, Errno> {
        let trimmed = path.iter().rposition(|byte| *byte != b'/').map_or(&path[..0], |last| &path[..=last]);
        let slash = trimmed.iter().rposition(|byte| *byte == b'/');
        let Some(slash) = slash else {
            // The root itself.
            return Ok(Spot { folder: self.openat2(b"/", OFlags::DIRECTORY)?, name: c".".to_owned() });
        };
        let (folder, name) = (&trimmed[..slash.max(1)], &trimmed[slash + 1..]);
        // A place cannot be taken away or made.
        if let Some(place) = self.places.iter().find(|place| place.seen == trimmed) {
            let (folder, name) = split(&place.is);
            return Ok(Spot { folder: open_name(folder, true)?, name: CString::new(name).map_err(|_| Errno::INVAL)? });
        }
        let folder = self.find(namer, folder, true)?;
        if !is_folder(&folder)? {
            return Err(Errno::NOTDIR);
        }
        Ok(Spot { folder, name: CString::new(name).map_err(|_| Errno::INVAL)? })
    }

    fn walk(&self, namer: &impl Namer, path: &[u8], follow: bool, depth: usize) -> Result<Walked, Errno> {
        if depth > LINKS_MAX {
            return Err(Errno::LOOP);
        }
        let mut links = 0;
        let mut left: VecDeque<Vec<u8>> = names(path).map(<[u8]>::to_vec).collect();
        let mut stack: Vec<Vec<u8>> = Vec::new();
        while let Some(name) = left.pop_front() {
            if name == b".." {
                stack.pop();
                continue;
            }
            stack.push(name);
            let seen = [b"/", stack.join(&b'/').as_slice()].concat();
            let (real, outside) = self.real(&seen);
            if left.is_empty() && !follow {
                return Ok(Walked { path: own(namer, &real), outside });
            }
            if outside && let Some(rest) = below(&real, b"/proc") {
                let left = left.make_contiguous().join(&b'/');
                let rest = if left.is_empty() { rest.to_vec() } else { joined(rest, &left) };
                return self.walk_processes(namer, &rest, follow, depth);
            }
            let Ok(target) = rustix::fs::readlink(real.as_slice(), Vec::new()) else { continue };
            if outside && self.places.iter().any(|place| place.seen == seen) {
                continue;
            }
            links += 1;
            if links > LINKS_MAX {
                return Err(Errno::LOOP);
            }
            stack.pop();
            if target.to_bytes().starts_with(b"/") {
                stack.clear();
            }
            for name in names(target.to_bytes()).collect::<Vec<_>>().into_iter().rev() {
                left.push_front(name.to_vec());
            }
        }
        let (path, outside) = self.real(&[b"/", stack.join(&b'/').as_slice()].concat());
        Ok(Walked {
            path: if path.ends_with(b"/") && path.len() > 1 { path[..path.len() - 1].to_vec() } else { path },
            outside,
        })
    }

    /// In `/proc`: its own links lead to real paths, and `self` is the task's, not the tracer's.
    fn walk_processes(&self, namer: &impl Namer, rest: &[u8], follow: bool, depth: usize) -> Result<Walked, Errno> {
        let path = own(namer, &[b"/proc", rest].concat());
        let parts: Vec<&[u8]> = names(&path).collect();
        let whole = Walked { path: path.clone(), outside: true };
        let (Some(process), at) = (parts.get(1), if parts.get(2) == Some(&b"task".as_slice()) { 4 } else { 2 }) else {
            return Ok(whole);
        };
        let Some(process) = std::str::from_utf8(process).ok().and_then(|text| text.parse::<Tid>().ok()) else {
            return Ok(whole);
        };
        // The others are the builder's, and have secrets in their environment.
        if !namer.knows(process) {
            return Err(Errno::NOENT);
        }
        let (Some(kind), left) = (parts.get(at), parts.get(at + 1..).unwrap_or_default()) else { return Ok(whole) };
        if left.is_empty() && !follow {
            return Ok(whole);
        }
        let link = [b"/", parts[..=at].join(&b'/').as_slice()].concat();
        let target = match *kind {
            b"root" => b"/".to_vec(),
            b"cwd" => self.seen(rustix::fs::readlink(link.as_slice(), Vec::new())?.to_bytes()),
            b"exe" => namer.program(process).ok_or(Errno::NOENT)?,
            b"fd" if left.len() > 1 => {
                let link = joined(&link, left[0]);
                let seen = self.seen(rustix::fs::readlink(link.as_slice(), Vec::new())?.to_bytes());
                return self.walk(namer, &joined(&seen, &left[1..].join(&b'/')), follow, depth + 1);
            }
            _ => return Ok(whole),
        };
        self.walk(namer, &joined(&target, &left.join(&b'/')), follow, depth + 1)
    }
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

fn is_folder(found: &Found) -> Result<bool, Errno> {
    Ok(rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(found.fd())?.st_mode) == rustix::fs::FileType::Directory)
}
