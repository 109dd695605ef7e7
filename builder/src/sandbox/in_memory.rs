//! A place for the changes of a command where the store's own file system takes none.
//!
//! The kernel lets no overlay lie in another: the upper folder of a mount cannot be in a container's root file system. The
//! layers below can. So the changes are kept in memory until they are a layer.

use std::path::{Path, PathBuf};

use rustix::fs::statfs;
use rustix::mount::{MountAttrFlags, UnmountFlags, mount_bind, unmount};

use super::entry;
use super::error::{During as _, Failure, SandboxError};
use super::mounts::{attach, new_mount};

/// The overlay file system, by its number in the kernel.
const OVERLAY_MAGIC: rustix::fs::FsWord = 0x794C_7630;

/// A memory file system in a folder, seen by this process and those that it starts. It goes when this is dropped, with all
/// that is in it.
#[derive(Debug)]
pub struct InMemory(PathBuf);

impl InMemory {
    /// Over an empty folder, where it is needed and possible.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn over(folder: &Path) -> Result<Option<Self>, SandboxError> {
        if is_needed(folder) { Self::mounted(folder, &[], MountAttrFlags::MOUNT_ATTR_NODEV) } else { Ok(None) }
    }

    /// Over an empty folder, of this size at most, where it is possible. It may hold a whole store: on r4, commands use the
    /// devices that are in their root.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn of(folder: &Path, size_bytes: u64) -> Result<Option<Self>, SandboxError> {
        Self::mounted(folder, &[("size", &size_bytes.to_string())], MountAttrFlags::empty())
    }

    fn mounted(
        folder: &Path,
        options: &[(&str, &str)],
        attributes: MountAttrFlags,
    ) -> Result<Option<Self>, SandboxError> {
        if !entry::has_own_mounts() {
            return Ok(None);
        }
        let options = [&[("mode", "755")], options].concat();
        let mount = || -> Result<(), Failure> { attach(new_mount("tmpfs", &options, attributes)?, folder) };
        mount().map_err(SandboxError::Setup)?;
        Ok(Some(Self(folder.to_owned())))
    }
}

impl Drop for InMemory {
    fn drop(&mut self) {
        let_go(&self.0);
    }
}

/// A folder that is shown in another place too, to this process and those that it starts, until this is dropped.
#[derive(Debug)]
pub struct Shown(PathBuf);

impl Shown {
    /// Shows `folder` at `place`, an empty folder; `None` where this process may not mount.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn at(folder: &Path, place: &Path) -> Result<Option<Self>, SandboxError> {
        if !entry::has_own_mounts() {
            return Ok(None);
        }
        let mounted = mount_bind(folder, place).during(|| format!("showing {} elsewhere", folder.display()));
        mounted.map_err(SandboxError::Setup)?;
        Ok(Some(Self(place.to_owned())))
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        let_go(&self.0);
    }
}

fn let_go(place: &Path) {
    if let Err(error) = unmount(place, UnmountFlags::DETACH) {
        tracing::debug!(path = %place.display(), %error, "could not be unmounted");
    }
}

/// Whether a folder, or where it will be made, lies on an overlay.
pub(super) fn is_needed(folder: &Path) -> bool {
    let Ok(folder) = std::path::absolute(folder) else { return false };
    folder.ancestors().find_map(|folder| statfs(folder).ok()).is_some_and(|found| found.f_type == OVERLAY_MAGIC)
}
