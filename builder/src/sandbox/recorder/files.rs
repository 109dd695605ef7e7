//! Files as a command names them, and the owners that are recorded for them.
//!
//! A path is followed as the command itself would follow it: from its own folder or descriptor, by way of `/proc`, below
//! its own root, with no more rights than it has. Another of its threads may change a path, or what it leads to, while we
//! look; what it gains is what it may do anyway.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, StatxFlags, Uid, XattrFlags, openat, openat2, readlinkat,
    statx,
};
use rustix::io::Errno;
use rustix::process::{chroot, fchdir};

use super::process::Processes;
use crate::owners::{ATTRIBUTE, Inode, Inodes, Owner, Paths, TEXT_MAX_BYTES};

/// A file as a command named it.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// The path from where we stand, which is `/proc`.
    pub(super) path: CString,
    /// Whether a link at its end is followed.
    pub(super) follow: bool,
}

impl Place {
    pub(super) fn flags(&self) -> AtFlags {
        if self.follow { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW }
    }
}

/// Which folder a path starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum From {
    /// The thread's own.
    Own,
    /// An open one.
    Open(i32),
}

impl From {
    /// As a call has it.
    pub(super) fn argument(argument: u64) -> Self {
        // The kernel reads 32 bits.
        match argument as u32 as i32 {
            libc::AT_FDCWD => Self::Own,
            fd => Self::Open(fd),
        }
    }
}

/// Paths that mean the one who looks: the thread that called.
const SELF: [(&[u8], &str); 6] = [
    (b"/proc/self", ""),
    (b"/proc/thread-self", ""),
    (b"/dev/fd", "/fd"),
    (b"/dev/stdin", "/fd/0"),
    (b"/dev/stdout", "/fd/1"),
    (b"/dev/stderr", "/fd/2"),
];

/// The file at `path` for a thread.
pub(super) fn place(thread: u32, from: From, path: &CStr, follow: bool) -> Result<Place, Errno> {
    let bytes = path.to_bytes();
    let whole = |text: Vec<u8>, follow| CString::new(text).map(|path| Place { path, follow }).map_err(|_| Errno::INVAL);
    let own = match from {
        From::Own => format!("{thread}/cwd"),
        From::Open(fd) => format!("{thread}/fd/{fd}"),
    };
    if bytes.is_empty() {
        // The link in `/proc` leads to the file itself, also when that is a link.
        return whole(own.into_bytes(), true);
    }
    if !bytes.starts_with(b"/") {
        return whole([own.as_bytes(), b"/", bytes].concat(), follow);
    }
    for (prefix, instead) in SELF {
        if let Some(rest) = bytes.strip_prefix(prefix)
            && (rest.is_empty() || rest.starts_with(b"/"))
        {
            return whole([format!("{thread}{instead}").as_bytes(), rest].concat(), follow);
        }
    }
    whole(bytes.to_vec(), follow)
}

/// The owners of all files that a command can name.
#[derive(Debug)]
pub(super) struct Files {
    /// The tree that receives the changes, as it is without the overlay.
    tree: OwnedFd,
    /// Whether it is the whole root.
    is_whole: bool,
    /// The mount that is the root.
    mount: u64,
    /// Its root, and the one that we have now.
    base: OwnedFd,
    now: (u64, u64),
    /// The path of the one that we have now, from the base.
    prefix: Vec<u8>,
    /// Owners in the layers below, of what takes no attributes.
    below: Paths,
    /// Owners of the same in the tree.
    pub(super) run: Inodes,
    /// Owners of files elsewhere, or that take no attributes for other reasons: for the command to see, not for the layer.
    aside: Inodes,
    /// Whether a folder may be there that hands on a recorded group.
    pub(super) hands_on: bool,
    /// Whether a root may be another than the base.
    pub(super) has_roots: bool,
}

impl Files {
    /// To be called when the root is that of the command, and the folder `/proc`.
    pub(super) fn new(tree: OwnedFd, is_whole: bool, below: Paths) -> Result<Self, Errno> {
        let base = openat(CWD, "/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let now = identity(&base)?;
        // Such tables name folders for this alone.
        let hands_on = !below.is_empty();
        Ok(Self {
            tree,
            is_whole,
            mount: now.0,
            base,
            now,
            prefix: Vec::new(),
            below,
            run: Inodes::default(),
            aside: Inodes::default(),
            hands_on,
            has_roots: false,
        })
    }

    /// Takes the root of a thread for ours.
    pub(super) fn enter_root(&mut self, processes: &Processes, thread: u32) -> Result<(), Errno> {
        if !self.has_roots {
            return Ok(());
        }
        let path = format!("{thread}/root");
        let root =
            openat(processes.folder(), &path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let identity = identity(&root)?;
        if identity == self.now {
            return Ok(());
        }
        let enter = |root: &OwnedFd| fchdir(root).and_then(|()| chroot("."));
        enter(&self.base)?;
        let prefix = readlinkat(processes.folder(), &path, Vec::new())?.into_bytes();
        enter(&root)?;
        fchdir(processes.folder())?;
        (self.now, self.prefix) = (identity, prefix);
        Ok(())
    }

    /// The recorded owner of a file; none for one without, or that is not there.
    pub(super) fn recorded(&self, processes: &Processes, place: &Place) -> Option<Owner> {
        let mut text = [0; TEXT_MAX_BYTES];
        let outcome = if place.follow {
            rustix::fs::getxattr(&place.path, ATTRIBUTE, &mut text[..])
        } else {
            rustix::fs::lgetxattr(&place.path, ATTRIBUTE, &mut text[..])
        };
        match outcome {
            Ok(length) => Owner::parse(text.get(..length)?),
            Err(Errno::NODATA | Errno::OPNOTSUPP)
                if !(self.below.is_empty() && self.run.is_empty() && self.aside.is_empty()) =>
            {
                self.noted(processes, place)
            }
            Err(_) => None,
        }
    }

    fn noted(&self, processes: &Processes, place: &Place) -> Option<Owner> {
        match self.locate(processes, place).ok()? {
            Located::Changed(inode) => self.run.get(&inode),
            Located::Whole(inode, path) => self.run.get(&inode).or_else(|| self.below.get(&path)),
            Located::Below(path) => self.below.get(&path),
            Located::Aside(inode) => self.aside.get(&inode),
        }
    }

    /// Where a file is that takes no attributes.
    fn locate(&self, processes: &Processes, place: &Place) -> Result<Located, Errno> {
        let follow = if place.follow { OFlags::empty() } else { OFlags::NOFOLLOW };
        let file = openat(CWD, &place.path, OFlags::PATH | OFlags::CLOEXEC | follow, Mode::empty())?;
        let own = format!("self/fd/{}", file.as_raw_fd());
        let mount = identity(&file)?.0;
        let file = File::from(file);
        let metadata = file.metadata().map_err(|_| Errno::IO)?;
        let takes_attributes = metadata.is_file() || metadata.is_dir();
        if mount != self.mount || takes_attributes {
            return Ok(Located::Aside(Inode::of(&metadata)));
        }
        let path = readlinkat(processes.folder(), &own, Vec::new())?.into_bytes();
        let path = [&self.prefix[..], &path].concat();
        let path: Vec<u8> =
            path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).collect::<Vec<_>>().join(&b'/');
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match openat2(&self.tree, &path[..], flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS) {
            Ok(changed) => {
                let inode = Inode::of(&File::from(changed).metadata().map_err(|_| Errno::IO)?);
                Ok(if self.is_whole { Located::Whole(inode, path) } else { Located::Changed(inode) })
            }
            Err(_) => Ok(Located::Below(path)),
        }
    }

    /// Gives a file to an owner: really to us, which is what the kernel takes away of its mode and capabilities by, and
    /// what copies it out of the layers below; and by a record.
    pub(super) fn give(&mut self, processes: &Processes, place: &Place, owner: Owner) -> Result<(), Errno> {
        rustix::fs::chownat(CWD, &place.path, Some(Uid::ROOT), Some(Gid::ROOT), place.flags())?;
        self.record(processes, place, owner)
    }

    /// Records an owner, or that it is root.
    pub(super) fn record(&mut self, processes: &Processes, place: &Place, owner: Owner) -> Result<(), Errno> {
        let text = owner.text();
        let outcome = match (owner == Owner::ROOT, place.follow) {
            (true, true) => rustix::fs::removexattr(&place.path, ATTRIBUTE),
            (true, false) => rustix::fs::lremovexattr(&place.path, ATTRIBUTE),
            (false, true) => rustix::fs::setxattr(&place.path, ATTRIBUTE, text.as_bytes(), XattrFlags::empty()),
            (false, false) => rustix::fs::lsetxattr(&place.path, ATTRIBUTE, text.as_bytes(), XattrFlags::empty()),
        };
        match outcome {
            Ok(()) => {}
            Err(Errno::NODATA) => return Ok(()),
            Err(Errno::PERM | Errno::OPNOTSUPP) => return self.note(processes, place, owner),
            Err(errno) => return Err(errno),
        }
        if owner.gid != 0 && !self.hands_on {
            let stat = rustix::fs::statat(CWD, &place.path, place.flags())?;
            self.hands_on = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        }
        Ok(())
    }

    fn note(&mut self, processes: &Processes, place: &Place, owner: Owner) -> Result<(), Errno> {
        let is_known = !(self.below.is_empty() && self.run.is_empty() && self.aside.is_empty());
        if owner == Owner::ROOT && !is_known {
            return Ok(());
        }
        match self.locate(processes, place)? {
            Located::Changed(inode) | Located::Whole(inode, _) => self.run.insert(inode, owner),
            Located::Aside(inode) => self.aside.insert(inode, owner),
            // It was copied up, or is on its way.
            Located::Below(_) => {}
        }
        Ok(())
    }

    /// The group of what is made in a folder, when that hands its own on.
    pub(super) fn handed_on(&self, processes: &Processes, folder: &Place) -> Option<u32> {
        let stat = rustix::fs::statat(CWD, &folder.path, AtFlags::empty()).ok()?;
        let hands_on = stat.st_mode & libc::S_ISGID != 0;
        hands_on.then(|| self.recorded(processes, folder).map_or(0, |owner| owner.gid))
    }
}

enum Located {
    /// In the folder that receives changes.
    Changed(Inode),
    /// In a root that is changed in place, at that path.
    Whole(Inode, Vec<u8>),
    /// Only in the layers below, at that path.
    Below(Vec<u8>),
    /// Elsewhere.
    Aside(Inode),
}

/// The mount and the inode of an open file.
fn identity(file: &OwnedFd) -> Result<(u64, u64), Errno> {
    let found = statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::INO | StatxFlags::MNT_ID)?;
    Ok((found.stx_mnt_id, found.stx_ino))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_start_where_the_thread_does() {
        let shown = |from, path: &CStr, follow| {
            let place = place(7, from, path, follow).unwrap();
            format!("{} {}", place.path.to_str().unwrap(), place.follow)
        };
        assert_eq!(shown(From::Own, c"a/b", false), "7/cwd/a/b false");
        assert_eq!(shown(From::Open(3), c"a", true), "7/fd/3/a true");
        assert_eq!(shown(From::Open(3), c"", false), "7/fd/3 true");
        assert_eq!(shown(From::Open(3), c"/a", false), "/a false");
        assert_eq!(shown(From::Own, c"/dev/stdout", true), "7/fd/1 true");
        assert_eq!(shown(From::Own, c"/proc/self/fd/3", true), "7/fd/3 true");
        assert_eq!(shown(From::Own, c"/proc/selfish", true), "/proc/selfish true");
        assert_eq!(From::argument(0xffff_ffff_ffff_ff9c), From::Own);
        assert_eq!(From::argument(0xffff_ff9c), From::Own);
    }
}
