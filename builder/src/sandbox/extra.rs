//! The mounts that a step itself asks for: trees of this machine, files in memory, and memory.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::mount::{MountAttrFlags, OpenTreeFlags, open_tree};

use super::error::{During, Failure};
use super::mounts::{Reach, attach, mount_root, new_mount, restrict};
use super::spec::{MountSource, RunMount};

/// Takes the trees, while the host's root is still ours: each as a mount that is attached nowhere.
pub(super) fn take(mounts: &[RunMount]) -> Result<Vec<OwnedFd>, Failure> {
    let mut trees = Vec::new();
    for mount in mounts {
        let MountSource::Tree { root, path, .. } = &mount.source else { continue };
        let what = || format!("opening {} for the mount at {}", path.display(), mount.target);
        let top = mount_root(root)?;
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let top = rustix::fs::open(&top, flags, Mode::empty()).during(what)?;
        let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let found = openat2(&top, path, flags, Mode::empty(), inside).during(what)?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
        trees.push(open_tree(&found, "", flags).during(what)?);
    }
    Ok(trees)
}

/// Attaches everything; to be called when the root was changed and is furnished. `trees` and `files` are in the order of
/// the mounts.
pub(super) fn furnish(mounts: &[RunMount], trees: Vec<OwnedFd>, files: Vec<OwnedFd>) -> Result<(), Failure> {
    let (mut trees, mut files) = (trees.into_iter(), files.into_iter());
    for mount in mounts {
        let target = Path::new(&mount.target);
        let missing = || Failure::new(format!("there is nothing to mount at {}", mount.target));
        let mounted = match &mount.source {
            MountSource::Tree { .. } => trees.next().ok_or_else(missing)?,
            MountSource::File { .. } => files.next().ok_or_else(missing)?,
            MountSource::Memory { size_bytes, mode } => {
                let (size, mode) = (size_bytes.to_string(), format!("{mode:o}"));
                let options = [("mode", mode.as_str()), ("size", size.as_str())];
                let options = if *size_bytes == 0 { &options[..1] } else { &options[..] };
                let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
                new_mount("tmpfs", options, attributes)?
            }
        };
        make_place(target, mount.source.is_folder())?;
        attach(mounted, target)?;
    }
    // Only now: an outer mount may have got a place for an inner one.
    for mount in mounts.iter().filter(|mount| mount.read_only) {
        let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NODEV;
        restrict(Path::new(&mount.target), attributes, Reach::Alone)
            .during(|| format!("making {} read-only", mount.target))?;
    }
    Ok(())
}

/// The root has its places already; what is missing here is inside another mount.
fn make_place(target: &Path, is_folder: bool) -> Result<(), Failure> {
    if fs::metadata(target).is_ok() {
        return Ok(());
    }
    let what = || format!("making a place for the mount at {}", target.display());
    if is_folder {
        return fs::create_dir_all(target).during(what);
    }
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent).during(what)?;
    }
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, target, flags, Mode::from_raw_mode(0o644)).map(drop).during(what)
}
