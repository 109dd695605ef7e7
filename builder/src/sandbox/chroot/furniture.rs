//! What a RUN finds in its root: put in its place for the command, and taken out after it.
//!
//! What is there in the image is set aside meanwhile, beside the root. Everything is made there too, and comes into the root
//! by a rename; names in the root are looked up inside it before the command runs, and held by the descriptor of their
//! folder, so that no link that the command makes leads us elsewhere afterwards.
//!
//! A folder that outlives the command (a cache mount) is moved in and moved back; where that is not possible, because it is on
//! another file system, it is copied both ways. The rest is thrown away.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, FlockOperation, Gid, Mode, OFlags, RenameFlags, Stat, Uid, chownat, flock, fstat, mknodat,
    open, renameat, statat,
};
use rustix::io::Errno;

use super::super::error::{During, Failure};
use super::super::interior;
use super::super::places::{Kind, Place, Places, restore_times};
use super::super::spec::{MountSource, RootMount, RunMount, RunSpec};
use super::lent::{self, Lent};
use super::{copy, descendants};

/// The nodes that every RUN has, by their numbers in the kernel.
const DEVICES: [(&str, (u32, u32)); 6] =
    [("null", (1, 3)), ("zero", (1, 5)), ("full", (1, 7)), ("random", (1, 8)), ("urandom", (1, 9)), ("tty", (5, 0))];

/// What programs expect in `/dev` beside devices. They lead somewhere only where an image has a `/proc` of its own.
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// Folders in `/dev`, with their modes.
const FOLDERS: [(&str, u32); 3] = [("shm", 0o1777), ("mqueue", 0o1777), ("pts", 0o755)];

/// What was put into a root, until it is taken out.
pub(super) struct Furniture {
    root: OwnedFd,
    /// Beside the root, on its file system.
    aside: PathBuf,
    /// Held until all is done: whoever finds the folder waits for it, also when the builder is gone.
    _lock: OwnedFd,
    lent: Lent,
    count: usize,
    places: Places,
    placed: Vec<Placed>,
}

/// Something that is in its place.
struct Placed {
    /// Where, as the build calls it.
    target: String,
    place: Place,
    /// The same by its descriptor, wherever the command moves it.
    handle: OwnedFd,
    /// What was there before.
    original: PathBuf,
    after: After,
}

/// What becomes of it after the command.
#[derive(Debug, PartialEq, Eq)]
enum After {
    /// It goes; the command may have put something else there, which goes too.
    Replaceable,
    /// It goes. A command that moved it has taken what is not its own.
    Removed,
    /// The same for a file, whose content goes wherever it is.
    Emptied,
    /// It was moved in, and goes back there.
    MovedBack(PathBuf),
    /// It is a copy, and takes the place of what is there.
    CopiedBack(PathBuf),
}

fn aside(root: &Path) -> PathBuf {
    root.with_extension("aside")
}

fn lock(folder: &Path) -> Result<OwnedFd, Errno> {
    let folder = open(folder, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    flock(&folder, FlockOperation::LockExclusive)?;
    Ok(folder)
}

/// Ends what is left in a root of a stage that was killed: its command's processes go, and cache mounts come home. Waits
/// for a stage whose builder was killed and that does so itself.
///
/// Who calls this has the root for itself. What else is in the root may be anything.
pub(super) fn recover(root: &Path) -> Result<(), Failure> {
    let aside = aside(root);
    let _stage = match lock(&aside) {
        Err(Errno::NOENT) => return Ok(()),
        locked => locked.during(|| format!("waiting for who uses {}", aside.display()))?,
    };
    descendants::kill_within(root)?;
    lent::bring_home(root)?;
    match fs::remove_dir_all(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).during(|| format!("removing {}, which a killed build left", aside.display()))
        }
        _ => Ok(()),
    }
}

impl Furniture {
    /// Nothing yet, in that root.
    pub(super) fn new(root: &Path) -> Result<Self, Failure> {
        recover(root)?;
        let (aside, lent) = (aside(root), Lent::of(root));
        fs::create_dir(&aside).during(|| format!("making the folder {}", aside.display()))?;
        let lock = lock(&aside).during(|| format!("locking the folder {}", aside.display()))?;
        fs::set_permissions(&aside, fs::Permissions::from_mode(0o700))
            .during(|| format!("closing the folder {}", aside.display()))?;
        let root = open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .during(|| format!("opening the root {}", root.display()))?;
        Ok(Self { root, aside, _lock: lock, lent, count: 0, places: Places::default(), placed: Vec::new() })
    }

    /// Puts in what every RUN has, and the step's own mounts. What was put in before a failure is taken out like the rest.
    pub(super) fn put_in(&mut self, spec: &RunSpec) -> Result<(), Failure> {
        let hosts = interior::hosts(spec);
        for (target, content) in [("/etc/resolv.conf", &spec.resolv_conf), ("/etc/hosts", &hosts)] {
            let new = self.new_name();
            write_file(&new, content, 0o644, (0, 0)).during(|| format!("making {target} for the command"))?;
            self.put(target, Kind::File, &new, After::Replaceable)?;
        }
        for folder in ["dev", "proc", "sys"] {
            let already = self.places.count();
            self.places.ensure(&self.root, folder, Kind::Folder)?;
            // As on other rungs: an image that was run once has them, but where the step mounts something in them.
            let below = |mount: &RunMount| mount.target.trim_start_matches('/').starts_with(&format!("{folder}/"));
            let own_shm = spec.shm_size_bytes > 0 && folder == "dev";
            if !own_shm && !spec.mounts.iter().any(below) {
                self.places.keep_since(already);
            }
        }
        let devices = self.new_name();
        make_devices(&devices)?;
        self.put("/dev", Kind::Folder, &devices, After::Replaceable)?;
        for mount in &spec.mounts {
            self.mount(mount)?;
        }
        Ok(())
    }

    /// What another rung would mount.
    fn mount(&mut self, mount: &RunMount) -> Result<(), Failure> {
        let target = &mount.target;
        let what = || format!("making what is to be at {target}");
        let new = self.new_name();
        let (kind, after) = match &mount.source {
            MountSource::File { content, mode, uid, gid } => {
                write_file(&new, content, *mode, (*uid, *gid)).during(what)?;
                (Kind::File, After::Emptied)
            }
            MountSource::Memory { mode, .. } => {
                make_folder(&new, *mode).during(what)?;
                (Kind::Folder, After::Removed)
            }
            MountSource::Tree { root: RootMount::Overlay { lowers, .. }, path, is_folder } => {
                // Nothing in these hides what is below: they show a part of the context, and files with other times.
                for lower in lowers.iter().rev() {
                    let from = within(lower, path).during(what)?;
                    if fs::symlink_metadata(&from).is_ok() {
                        copy::copy_tree(&from, &new).during(what)?;
                    }
                }
                (kind_of(*is_folder), After::Removed)
            }
            MountSource::Tree { root: RootMount::Directory(folder), path, is_folder: true } => {
                let from = within(folder, path).during(what)?;
                (Kind::Folder, self.bring(&from, &new, mount)?)
            }
            MountSource::Tree { root: RootMount::Directory(folder), path, is_folder: false } => {
                let from = within(folder, path).during(what)?;
                if fs::symlink_metadata(&from).during(what)?.file_type().is_socket() {
                    // The listener goes with the file, whatever its name.
                    fs::hard_link(&from, &new).during(what)?;
                } else {
                    copy::copy_tree(&from, &new).during(what)?;
                }
                (Kind::File, After::Removed)
            }
        };
        if fs::symlink_metadata(&new).is_err() {
            return Err(Failure::new(format!("{}: there is nothing to show", what())));
        }
        let put = self.put(target, kind, &new, after);
        if put.is_err()
            && let MountSource::Tree { root: RootMount::Directory(folder), .. } = &mount.source
            && !folder.exists()
            && fs::rename(&new, folder).is_ok()
        {
            let _ = self.lent.remove(folder);
        }
        put
    }

    /// Brings a folder of the builder's.
    fn bring(&mut self, from: &Path, new: &Path, mount: &RunMount) -> Result<After, Failure> {
        let what = || format!("bringing {} to {}", from.display(), mount.target);
        let is_taken = |placed: &Placed| match &placed.after {
            After::MovedBack(home) | After::CopiedBack(home) => home == from,
            _ => false,
        };
        if let Some(other) = self.placed.iter().find(|placed| is_taken(placed)) {
            return Err(Failure::new(format!(
                "showing the same folder at {} and at {}: the rung r4 (root in a chroot) has no mounts and can show it at one \
                 place only; mount it once, or run the build where `fluyt doctor` names a better rung",
                other.target, mount.target
            )));
        }
        if mount.read_only {
            // A copy, for what is written to it is not to last.
            copy::copy_tree(from, new).during(what)?;
            return Ok(After::Removed);
        }
        self.lent.add(from).during(what)?;
        match rustix::fs::rename(from, new) {
            Ok(()) => Ok(After::MovedBack(from.to_owned())),
            Err(Errno::XDEV) => {
                self.lent.remove(from).during(what)?;
                copy::copy_tree(from, new).during(what)?;
                Ok(After::CopiedBack(from.to_owned()))
            }
            Err(errno) => Err(errno).during(what),
        }
    }

    /// Sets aside what is at a place in the root, and puts something of ours there.
    fn put(&mut self, target: &str, kind: Kind, new: &Path, after: After) -> Result<(), Failure> {
        let what = || format!("putting something at {target}");
        // Not for writing: a script that is open so cannot be executed.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let handle = open(new, flags, Mode::empty()).during(what)?;
        let Some(place) = self.places.ensure(&self.root, target.trim_start_matches('/'), kind)? else {
            return Err(Failure::new(format!("{}: links lead from there to a folder around it", what())));
        };
        let original = self.new_name();
        let before = stat_of(&place.parent).during(what)?;
        renameat(&place.parent, &place.name, CWD, &original).during(what)?;
        let put = renameat(CWD, new, &place.parent, &place.name);
        if put.is_err() {
            let _ = renameat(CWD, &original, &place.parent, &place.name);
        }
        let restored = restore_times(&place.parent, &before);
        put.during(what)?;
        self.placed.push(Placed { target: target.to_owned(), place, handle, original, after });
        restored.during(what)
    }

    /// Takes all of it out again, the last first. Goes on after a failure, and tells the first.
    pub(super) fn take_out(mut self) -> Result<(), Failure> {
        let mut first = Ok(());
        while let Some(placed) = self.placed.pop() {
            let trash = self.new_name();
            let done = placed.take_out(&trash, &mut self.lent);
            if first.is_ok() {
                first = done;
            }
        }
        let removed = std::mem::take(&mut self.places).remove();
        if first.is_ok() {
            first = removed;
        }
        // Last, as it may take long: the builder may lose patience with a stage that was cancelled. A folder that could not be
        // brought home is left for the next one to try.
        if self.lent.is_empty() {
            let _ = fs::remove_dir_all(&self.aside);
        }
        first
    }

    fn new_name(&mut self) -> PathBuf {
        self.count += 1;
        self.aside.join(self.count.to_string())
    }
}

impl Placed {
    fn take_out(self, trash: &Path, lent: &mut Lent) -> Result<(), Failure> {
        let what = || format!("taking out what was put at {}", self.target);
        let Place { parent, name } = &self.place;
        let ours = fstat(&self.handle).during(what)?;
        let mut moved = None;
        if self.after == After::Emptied {
            // Wherever it is now, and whatever its mode.
            let file = format!("/proc/self/fd/{}", self.handle.as_raw_fd());
            fs::File::options().write(true).truncate(true).open(file).during(what)?;
        }
        let before = stat_of(parent).during(what)?;
        let found = match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => None,
            found => Some(found.during(what)?),
        };
        let is_ours = found.is_some_and(|found| (found.st_dev, found.st_ino) == (ours.st_dev, ours.st_ino));
        if !is_ours && ours.st_nlink > 0 && self.after != After::Replaceable {
            moved = Some("moved");
        }
        if matches!(self.after, After::Emptied) && ours.st_nlink > 1 {
            moved = Some("made another name for");
        }
        if found.is_some() {
            renameat(parent, name, CWD, trash).during(what)?;
        }
        renameat(CWD, &self.original, parent, name).during(what)?;
        restore_times(parent, &before).during(what)?;
        if let After::MovedBack(home) | After::CopiedBack(home) = &self.after {
            let is_folder = fs::symlink_metadata(trash).is_ok_and(|metadata| metadata.is_dir());
            if !is_folder || moved.is_some() {
                // The command removed it: what is left is an empty one.
                let empty = trash.with_extension("empty");
                make_folder(&empty, ours.st_mode & 0o7777).during(what)?;
                let (uid, gid) = (Uid::from_raw(ours.st_uid), Gid::from_raw(ours.st_gid));
                chownat(CWD, &empty, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).during(what)?;
                bring_home(&empty, home).during(what)?;
            } else {
                copy::part_from_others(trash).during(what)?;
                bring_home(trash, home).during(what)?;
            }
            lent.remove(home).during(what)?;
        }
        match moved {
            None => Ok(()),
            Some(verb) => Err(Failure::new(format!(
                "the command {verb} what is mounted at {}; the rung r4 (root in a chroot) has no mounts that would keep it \
                 from doing so: let the command copy it instead",
                self.target
            ))),
        }
    }
}

/// Puts a folder where it belongs.
fn bring_home(folder: &Path, home: &Path) -> io::Result<()> {
    match fs::rename(folder, home) {
        Ok(()) => return Ok(()),
        // It was copied: the old one is still there, on another file system.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EXDEV | libc::ENOTEMPTY | libc::EEXIST)) => {}
        Err(error) => return Err(error),
    }
    let new = home.with_extension("new");
    if new.exists() {
        fs::remove_dir_all(&new)?;
    }
    copy::copy_tree(folder, &new)?;
    // In one step: at no moment is there none.
    rustix::fs::renameat_with(CWD, &new, CWD, home, RenameFlags::EXCHANGE)?;
    fs::remove_dir_all(&new)
}

/// Where a path leads below a folder that is the builder's own. Links in it are an image's or the context's: none is followed.
fn within(folder: &Path, path: &Path) -> io::Result<PathBuf> {
    let mut at = folder.to_owned();
    for part in path.components() {
        let Component::Normal(name) = part else { continue };
        if fs::symlink_metadata(&at)?.is_symlink() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        at.push(name);
    }
    Ok(at)
}

fn kind_of(is_folder: bool) -> Kind {
    if is_folder { Kind::Folder } else { Kind::File }
}

fn stat_of(folder: impl AsFd) -> Result<Stat, Errno> {
    statat(folder, "", AtFlags::EMPTY_PATH)
}

fn make_folder(path: &Path, mode: u32) -> io::Result<()> {
    fs::create_dir(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

fn write_file(path: &Path, content: &[u8], mode: u32, (uid, gid): (u32, u32)) -> io::Result<()> {
    fs::write(path, content)?;
    std::os::unix::fs::chown(path, Some(uid), Some(gid))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// A `/dev` as a container has it, as far as nodes go.
fn make_devices(folder: &Path) -> Result<(), Failure> {
    let what = || "making /dev for the command".to_owned();
    make_folder(folder, 0o755).during(what)?;
    for (name, numbers) in DEVICES {
        make_node(&folder.join(name), numbers)?;
    }
    for (name, target) in LINKS {
        symlink(target, folder.join(name)).during(what)?;
    }
    for (name, mode) in FOLDERS {
        make_folder(&folder.join(name), mode).during(what)?;
    }
    Ok(())
}

/// A character device that everyone may use.
pub(super) fn make_node(path: &Path, (major, minor): (u32, u32)) -> Result<(), Failure> {
    let device = rustix::fs::makedev(major, minor);
    mknodat(CWD, path, FileType::CharacterDevice, Mode::from_raw_mode(0o666), device)
        .during(|| format!("making the device node {} (CAP_MKNOD is needed)", path.display()))
}
