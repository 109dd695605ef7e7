//! Owners that files cannot have here, recorded beside them.
//!
//! A process with one id cannot give a file to another: an ordinary user, root of a user namespace with a single id, or root
//! of a container without the rights of root.
//! What a layer or a command says about owners is then written down, and stands for the owner wherever a layer is made:
//!
//! | what | where | form |
//! |---|---|---|
//! | a file or folder | the extended attribute [`ATTRIBUTE`] | `33:33` |
//! | permission bits that would keep an ordinary user out | the extended attribute [`MODE`] | `444` |
//! | attributes that only root may set | an extended attribute of that name after [`OURS`] | as it is |
//! | a link, pipe or device of an unpacked layer | the file [`owners`](table()) beside its tree, by path: [`Paths`] | `33:33 var/link` and a zero byte, each |
//! | the same in the tree of a running command | the file [`run-owners`](run_table) beside its tree, by inode: [`Inodes`] | `33:33 device:inode:born.nanoseconds` and a zero byte, each |
//!
//! Only files and folders take attributes of the name space `user`, hence the tables. A run cannot go by path, as commands
//! give a link to its owner before they rename it; and a number of an inode is used again, hence the time of its birth.
//!
//! Without a record a file's owner is the one that it has, in which our own user and group stand for root: what an ordinary
//! user unpacks without a word is root's.
//!
//! The first table names folders too that are set-group-id and have a recorded group: what is made in them inherits it.

mod table;

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{AtFlags, CWD, Gid, Mode, Uid, XattrFlags};
use rustix::io::Errno;
use rustix::process::{getegid, geteuid};
use rustix::thread::CapabilitySet;

pub use self::table::{Inode, Inodes, Paths};

/// The extended attribute that holds the owner of a file or folder.
pub const ATTRIBUTE: &str = "user.fluyt.owner";

/// What the names of all our attributes begin with. After it comes the name of one that only root may set, such as
/// `security.capability`, where it is recorded.
pub const OURS: &str = "user.fluyt.";

/// The extended attribute that holds the permission bits of a file or folder, in octal, where they differ from those that
/// it has: an ordinary user who is to do what root could must keep himself in.
pub const MODE: &str = "user.fluyt.mode";

/// Where capabilities of a file are recorded.
pub const CAPABILITY: &str = "user.fluyt.security.capability";

/// The permission bits that an ordinary user keeps on what shall have `mode`.
#[must_use]
pub fn least_mode(is_folder: bool, mode: u32) -> u32 {
    if is_folder || mode & 0o111 != 0 { 0o700 } else { 0o600 }
}

/// Rights that root of a machine or container has, by name, in the order in which their lack is told.
const OF_ROOT: [(CapabilitySet, &str); 5] = [
    (CapabilitySet::CHOWN, "CAP_CHOWN"),
    (CapabilitySet::DAC_OVERRIDE, "CAP_DAC_OVERRIDE"),
    (CapabilitySet::FOWNER, "CAP_FOWNER"),
    (CapabilitySet::SETUID, "CAP_SETUID"),
    (CapabilitySet::SETGID, "CAP_SETGID"),
];

/// What root that may not mount needs besides, to run a command in a chroot that it cannot leave, and to end it.
const OF_CHROOT: [(CapabilitySet, &str); 4] = [
    (CapabilitySet::SYS_CHROOT, "CAP_SYS_CHROOT"),
    (CapabilitySet::MKNOD, "CAP_MKNOD"),
    (CapabilitySet::SETPCAP, "CAP_SETPCAP"),
    (CapabilitySet::KILL, "CAP_KILL"),
];

/// The first right that root has and this process has not, without which it runs commands as an ordinary user does.
#[must_use]
pub fn lacking() -> Option<&'static str> {
    // Without an answer, what is refused will tell.
    let held = rustix::thread::capabilities(None).ok()?.effective;
    let may_mount = held.contains(CapabilitySet::SYS_ADMIN);
    let others = OF_CHROOT.into_iter().filter(|_| !may_mount);
    OF_ROOT.into_iter().chain(others).find(|(right, _)| !held.contains(*right)).map(|(_, name)| name)
}

/// Whether files of others are out of our reach: for every user but root, and for root of a container that was started without
/// the rights that make root what it is. Not to be asked before this process has gone into a user namespace, where
/// root has them again; what a command gives up later does not matter.
fn is_ordinary() -> bool {
    static IS_POWERLESS: OnceLock<bool> = OnceLock::new();
    !geteuid().is_root() || *IS_POWERLESS.get_or_init(|| lacking().is_some())
}

/// Whether permission bits are recorded where they would keep us out: not for root, whom none do.
#[must_use]
pub fn are_modes_recorded() -> bool {
    is_ordinary()
}

/// Sets the permission bits of an open file or folder; such as would keep us out by a record.
///
/// # Errors
/// What the file system refused.
pub fn set_mode_open(fd: BorrowedFd<'_>, is_folder: bool, mode: u32) -> Result<(), Errno> {
    let mode = mode & 0o7777;
    if !are_modes_recorded() {
        return rustix::fs::fchmod(fd, Mode::from_raw_mode(mode));
    }
    let real = mode | least_mode(is_folder, mode);
    rustix::fs::fchmod(fd, Mode::from_raw_mode(real))?;
    let recorded = if real == mode {
        rustix::fs::fremovexattr(fd, MODE).or_else(absent)
    } else {
        rustix::fs::fsetxattr(fd, MODE, format!("{mode:o}").as_bytes(), XattrFlags::empty())
    };
    match recorded {
        // A file system without attributes: then it is as it is elsewhere.
        Err(Errno::OPNOTSUPP) => rustix::fs::fchmod(fd, Mode::from_raw_mode(mode)),
        other => other,
    }
}

/// The permission bits of what is at `path`, links not followed.
#[must_use]
pub fn mode_of(path: &Path, metadata: &Metadata) -> u32 {
    let mode = metadata.mode() & 0o7777;
    let least = least_mode(metadata.is_dir(), 0);
    if !are_modes_recorded() || !(metadata.is_dir() || metadata.is_file()) || mode & least != least {
        return mode;
    }
    let mut text = [0; TEXT_MAX_BYTES];
    let length = rustix::fs::lgetxattr(path, MODE, &mut text[..]).unwrap_or(0);
    parse_mode(&text[..length]).unwrap_or(mode)
}

/// Reads permission bits as they are recorded.
#[must_use]
pub fn parse_mode(text: &[u8]) -> Option<u32> {
    let mode = u32::from_str_radix(std::str::from_utf8(text).ok()?, 8).ok()?;
    (mode <= 0o7777).then_some(mode)
}

/// The longest text of an owner, in bytes: two numbers of ten digits, and what is between them.
pub const TEXT_MAX_BYTES: usize = 21;

/// The kernel's id for owners that it cannot tell (`/proc/sys/kernel/overflowuid`). To it, the largest number means "leave
/// it as it is": who asks for that one gets this one.
pub const OVERFLOW_ID: u32 = 65534;

/// A user and a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

impl Owner {
    /// Root.
    pub const ROOT: Self = Self { uid: 0, gid: 0 };

    /// `33:33`.
    #[must_use]
    pub fn text(self) -> String {
        format!("{}:{}", self.uid, self.gid)
    }

    /// Reads what [`Owner::text`] writes, and nothing else.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (uid, gid) = std::str::from_utf8(text).ok()?.split_once(':')?;
        let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
        Some(Self { uid: number(uid)?, gid: number(gid)? })
    }

    /// The owner that is not recorded for a file that has this one: our own ids stand for root's.
    #[must_use]
    pub fn standing(uid: u32, gid: u32) -> Self {
        let root = |id, own| if id == own { 0 } else { id };
        Self { uid: root(uid, geteuid().as_raw()), gid: root(gid, getegid().as_raw()) }
    }
}

/// What became of an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Given {
    /// The file has it.
    Really,
    /// It is recorded.
    Recorded,
    /// Neither is possible: the caller has to remember it.
    Not,
}

/// Whether owners are recorded where they cannot be given. Not so for root of the machine, or of a container: it can give
/// them all, and what stands in an attribute is none of our doing.
#[must_use]
pub fn are_recorded() -> bool {
    is_ordinary() || !maps_all_ids()
}

/// Whether this process is in the machine's first user namespace: only there can overlayfs's own attributes be set, and
/// elsewhere it takes those of the name space `user` for them. Not to be asked before this process has gone into another.
#[must_use]
pub fn in_first_namespace() -> bool {
    /// The number of the first, by the kernel's `PROC_USER_INIT_INO`.
    const FIRST: &str = "user:[4026531837]";
    static IS_FIRST: OnceLock<bool> = OnceLock::new();
    // Without /proc or without user namespaces there is no other.
    *IS_FIRST.get_or_init(|| std::fs::read_link("/proc/self/ns/user").map_or(true, |name| name == Path::new(FIRST)))
}

/// Whose ids files have that this process unpacks: none where they are the machine's own, and all can be given. Elsewhere
/// the same owner is another number for another process, or removals are marked otherwise, and what one unpacked must not be
/// taken by the other.
#[must_use]
pub fn ids() -> Option<String> {
    let map = |name: &str| {
        let text = std::fs::read_to_string(Path::new("/proc/self").join(name)).unwrap_or_default();
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    (are_recorded() || !in_first_namespace())
        .then(|| format!("{} {}, {}, {}", geteuid().as_raw(), getegid().as_raw(), map("uid_map"), map("gid_map")))
}

/// Whether every id of the machine has a meaning in this process's user namespace.
fn maps_all_ids() -> bool {
    static ALL: OnceLock<bool> = OnceLock::new();
    *ALL.get_or_init(|| {
        let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        let count = |line: &str| line.split_whitespace().nth(2).and_then(|count| count.parse::<u64>().ok());
        // Without /proc or without user namespaces there is nothing to lack.
        map.is_empty() || map.lines().filter_map(count).sum::<u64>() >= u64::from(u32::MAX)
    })
}

/// The owner of what is at `path`, links not followed, when the attribute can tell it. For links, pipes and devices, look
/// into the table first.
#[must_use]
pub fn of(path: &Path, metadata: &Metadata) -> Owner {
    if !are_recorded() {
        return Owner { uid: metadata.uid(), gid: metadata.gid() };
    }
    let has_attribute = metadata.is_file() || metadata.is_dir();
    let recorded = if has_attribute { recorded(path) } else { None };
    recorded.unwrap_or_else(|| Owner::standing(metadata.uid(), metadata.gid()))
}

/// As [`of`], for an open file or folder.
#[must_use]
pub fn of_open(fd: BorrowedFd<'_>, metadata: &Metadata) -> Owner {
    if !are_recorded() {
        return Owner { uid: metadata.uid(), gid: metadata.gid() };
    }
    let mut text = [0; TEXT_MAX_BYTES];
    let length = rustix::fs::fgetxattr(fd, ATTRIBUTE, &mut text[..]).unwrap_or(0);
    Owner::parse(&text[..length]).unwrap_or_else(|| Owner::standing(metadata.uid(), metadata.gid()))
}

/// What the attribute of a file or folder says, links not followed.
#[must_use]
pub fn recorded(path: &Path) -> Option<Owner> {
    let mut text = [0; TEXT_MAX_BYTES];
    let length = rustix::fs::lgetxattr(path, ATTRIBUTE, &mut text[..]).ok()?;
    Owner::parse(&text[..length])
}

/// Gives what is at `path` to `owner`, links not followed: really, or by a record.
///
/// # Errors
/// What the file system refused, other than for want of rights.
pub fn give(path: &Path, owner: Owner) -> Result<Given, Errno> {
    let chown = |uid, gid| rustix::fs::chownat(CWD, path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW);
    let set = |text: &[u8]| rustix::fs::lsetxattr(path, ATTRIBUTE, text, XattrFlags::empty());
    give_by(owner, &chown, &set, &|| rustix::fs::lremovexattr(path, ATTRIBUTE))
}

/// As [`give`], for an open file or folder.
///
/// # Errors
/// As [`give`].
pub fn give_open(fd: BorrowedFd<'_>, owner: Owner) -> Result<Given, Errno> {
    let chown = |uid, gid| rustix::fs::fchown(fd, Some(uid), Some(gid));
    let set = |text: &[u8]| rustix::fs::fsetxattr(fd.as_fd(), ATTRIBUTE, text, XattrFlags::empty());
    give_by(owner, &chown, &set, &|| rustix::fs::fremovexattr(fd, ATTRIBUTE))
}

fn give_by(
    owner: Owner,
    chown: &dyn Fn(Uid, Gid) -> Result<(), Errno>,
    set: &dyn Fn(&[u8]) -> Result<(), Errno>,
    remove: &dyn Fn() -> Result<(), Errno>,
) -> Result<Given, Errno> {
    let recorded = are_recorded();
    let known = |id| if id == u32::MAX { OVERFLOW_ID } else { id };
    // An ordinary user who gave a file to his own id would leave no trace of who should have it.
    let by_right = if recorded && is_ordinary() {
        Err(Errno::PERM)
    } else {
        chown(Uid::from_raw(known(owner.uid)), Gid::from_raw(known(owner.gid)))
    };
    match by_right {
        Ok(()) if recorded => match remove() {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::PERM | Errno::ACCESS) => Ok(Given::Really),
            Err(error) => Err(error),
        },
        Ok(()) => Ok(Given::Really),
        Err(Errno::PERM | Errno::INVAL) if recorded => {
            let outcome = if owner == Owner::ROOT { remove().or_else(absent) } else { set(owner.text().as_bytes()) };
            match outcome {
                Ok(()) => Ok(Given::Recorded),
                // Links, pipes and devices; file systems without attributes.
                Err(Errno::PERM | Errno::OPNOTSUPP | Errno::ACCESS) => Ok(Given::Not),
                Err(error) => Err(error),
            }
        }
        Err(Errno::PERM | Errno::INVAL) => Ok(Given::Not),
        Err(error) => Err(error),
    }
}

/// Links, pipes and devices, and files of some file systems, never have one.
fn absent(errno: Errno) -> Result<(), Errno> {
    if matches!(errno, Errno::NODATA | Errno::PERM | Errno::OPNOTSUPP) { Ok(()) } else { Err(errno) }
}

/// Where the table of a tree is: of an unpacked layer, or of a root that is changed in place.
#[must_use]
pub fn table(tree: &Path) -> PathBuf {
    tree.with_file_name("owners")
}

/// Where a run leaves the table of what it changed in a tree: the upper folder of an overlay, or a root.
#[must_use]
pub fn run_table(tree: &Path) -> PathBuf {
    tree.with_file_name("run-owners")
}

/// Gives what is at `path` to `owner`, where it matters only to a command that it does so: what neither can be given nor
/// recorded stays as it is.
///
/// # Errors
/// As [`give`].
pub fn give_if_possible(path: &Path, owner: Owner) -> io::Result<()> {
    give(path, owner).map(|_| ()).map_err(Into::into)
}

#[cfg(test)]
pub(crate) mod tests;
