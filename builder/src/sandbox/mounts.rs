//! Mounts the root of a RUN inside the stage's mount namespace.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, mount, mount_bind, mount_remount, move_mount,
};
use rustix::process::fchdir;

use super::error::{During, Failure};
use super::spec::RootMount;
use super::system;
use crate::owners;

/// The most lower folders that an overlay takes, by the kernel's `OVL_MAX_STACK`.
const LOWERS_MAX: usize = 500;

/// The longest value that `fsconfig` takes, in bytes.
const VALUE_MAX_BYTES: usize = 255;

/// What an overlay must not do for its upper folder to be read as a plain list of changes. A kernel that does not know
/// such an option does not have the feature.
const PLAIN_UPPER: [&str; 3] = ["redirect_dir", "index", "metacopy"];

/// In a user namespace the attributes of the machine's own overlays are out of reach, and what is off above is never on.
const IN_USER_NAMESPACE: &str = "userxattr";

/// Mounts the root, and says where. The place is hidden by the mount in this namespace only.
pub(super) fn mount_root(root: &RootMount) -> Result<PathBuf, Failure> {
    match root {
        // Without a lower folder the kernel takes no overlay; and there is nothing that one could hide or shadow.
        RootMount::Overlay { lowers, upper, .. } if lowers.is_empty() => bind(upper),
        RootMount::Directory(path) => bind(path),
        RootMount::Overlay { lowers, upper, work } => {
            if lowers.len() > LOWERS_MAX {
                return Err(Failure::new(format!(
                    "the image has {} layers with files, and the kernel's overlay takes {LOWERS_MAX}",
                    lowers.len()
                )));
            }
            let layers = Layers { lowers, upper, work };
            match layers.mount_by_descriptor() {
                Ok(()) => {}
                // `lowerdir+` came with Linux 6.5.
                Err(refused) => layers.mount_by_name().map_err(|failure| refused.unwrap_or(failure))?,
            }
            Ok(upper.clone())
        }
    }
}

/// Makes a folder a mount of its own, without device nodes.
fn bind(path: &Path) -> Result<PathBuf, Failure> {
    // Alone: what the host has mounted below might admit device nodes.
    mount_bind(path, path).during(|| format!("binding the root {}", path.display()))?;
    restrict(path, MountAttrFlags::MOUNT_ATTR_NODEV, Reach::Alone)
        .during(|| format!("mounting the root {} without device nodes", path.display()))?;
    Ok(path.to_owned())
}

struct Layers<'a> {
    lowers: &'a [PathBuf],
    upper: &'a Path,
    work: &'a Path,
}

impl Layers<'_> {
    /// One option per layer, so that neither their number nor the length of their names matters. `Err(None)` when this
    /// kernel has not the calls or the option for it.
    fn mount_by_descriptor(&self) -> Result<(), Option<Failure>> {
        let unknown = |errno: Errno| matches!(errno, Errno::NOSYS | Errno::INVAL | Errno::PERM);
        let overlay = match fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC) {
            Err(errno) if unknown(errno) => return Err(None),
            opened => opened.during(|| "opening the overlay file system".to_owned()).map_err(Some)?,
        };
        let _ = fsconfig_set_string(&overlay, "source", "overlay");
        for lower in self.lowers {
            match set_folder(&overlay, "lowerdir+", lower) {
                Err(Errno::INVAL) if log_of(&overlay).contains("Unknown parameter") => return Err(None),
                set => set.during(|| format!("adding the layer {}", lower.display())).map_err(with_log(&overlay))?,
            }
        }
        for (key, folder) in [("upperdir", self.upper), ("workdir", self.work)] {
            set_folder(&overlay, key, folder)
                .during(|| format!("setting the overlay's {key} to {}", folder.display()))
                .map_err(with_log(&overlay))?;
        }
        if owners::in_first_namespace() {
            for key in PLAIN_UPPER {
                let _ = fsconfig_set_string(&overlay, key, "off");
            }
        } else {
            fsconfig_set_flag(&overlay, IN_USER_NAMESPACE)
                .during(|| "asking for an overlay in a user namespace (Linux 5.11 is needed)".to_owned())
                .map_err(with_log(&overlay))?;
        }
        // Unpacked changes are worth nothing after a crash: the kernel need not sync them.
        let _ = fsconfig_set_flag(&overlay, "volatile");
        fsconfig_create(&overlay)
            .during(|| format!("making an overlay of {} layers over {}", self.lowers.len(), self.upper.display()))
            .map_err(with_log(&overlay))?;
        let mounted = fsmount(&overlay, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_NODEV)
            .during(|| "mounting the overlay".to_owned())
            .map_err(with_log(&overlay))?;
        attach(&mounted, self.upper).map_err(Some)
    }

    /// The older call takes one page of options: short names in a scratch folder stand for the layers.
    fn mount_by_name(&self) -> Result<(), Failure> {
        let names = scratch()?;
        let link = |target: &Path, name: &str| {
            rustix::fs::symlinkat(target, &names, name).during(|| format!("naming the layer {}", target.display()))
        };
        let mut options = String::from("lowerdir=");
        for (number, lower) in self.lowers.iter().enumerate() {
            let name = format!("{number:x}");
            link(lower, &name)?;
            options.push_str(if number == 0 { "" } else { ":" });
            options.push_str(&name);
        }
        link(self.upper, "u")?;
        link(self.work, "w")?;
        options.push_str(",upperdir=u,workdir=w");
        fchdir(&names).during(|| "entering the scratch folder".to_owned())?;
        let plain: String = PLAIN_UPPER.iter().map(|key| format!(",{key}=off")).collect();
        let mut refusal = Errno::INVAL;
        // The most exact wish first; older kernels refuse what they do not know.
        let wishes = if owners::in_first_namespace() {
            vec![format!("{plain},volatile"), plain, ",redirect_dir=off".to_owned(), String::new()]
        } else {
            vec![format!(",{IN_USER_NAMESPACE},volatile"), format!(",{IN_USER_NAMESPACE}")]
        };
        for extra in wishes {
            let data = std::ffi::CString::new(format!("{options}{extra}")).unwrap_or_default();
            match mount("overlay", self.upper, "overlay", MountFlags::NODEV, Some(data.as_c_str())) {
                Ok(()) => return leave(),
                Err(Errno::INVAL) => {}
                Err(errno) => refusal = errno,
            }
        }
        Err(refusal)
            .during(|| format!("making an overlay of {} layers over {}", self.lowers.len(), self.upper.display()))
    }
}

/// Sets an option whose value is a folder.
fn set_folder(overlay: &OwnedFd, key: &str, folder: &Path) -> Result<(), Errno> {
    let bytes = folder.as_os_str().as_bytes();
    // The kernel takes a backslash in some of these values for an escape.
    if bytes.len() <= VALUE_MAX_BYTES && !bytes.contains(&b'\\') {
        return fsconfig_set_string(overlay, key, folder);
    }
    rustix::process::chdir(folder)?;
    let set = fsconfig_set_string(overlay, key, ".");
    rustix::process::chdir("/")?;
    set
}

fn leave() -> Result<(), Failure> {
    rustix::process::chdir("/").during(|| "leaving the scratch folder".to_owned())
}

/// A memory file system that is attached nowhere, and gone with its descriptor.
fn scratch() -> Result<OwnedFd, Failure> {
    new_mount("tmpfs", &[("mode", "700")], MountAttrFlags::MOUNT_ATTR_NODEV)
}

/// A new file system with these options (an empty value makes it a flag), attached nowhere yet.
pub(super) fn new_mount(kind: &str, options: &[(&str, &str)], attributes: MountAttrFlags) -> Result<OwnedFd, Failure> {
    let what = || format!("making a {kind} file system");
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).during(what)?;
    let make = || {
        // What `df` and the like show for a device.
        fsconfig_set_string(&context, "source", kind)?;
        for (key, value) in options {
            match *value {
                "" => fsconfig_set_flag(&context, *key)?,
                value => fsconfig_set_string(&context, *key, value)?,
            }
        }
        fsconfig_create(&context)?;
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
    };
    make().during(what).map_err(|failure| Failure { log: log_of(&context), ..failure })
}

/// Attaches a mount at a place.
pub(super) fn attach(mounted: impl AsFd, target: &Path) -> Result<(), Failure> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_SYMLINKS;
    move_mount(mounted, "", CWD, target, flags).during(|| format!("attaching a mount at {}", target.display()))
}

/// Which mounts an attribute is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// The one at the place.
    Alone,
    /// That, and all that are mounted in it.
    Below,
}

/// Sets attributes (read-only, without devices ...) of the mount at a place.
///
/// Attributes that they have stay: in a user namespace nobody may take away what was set outside of it.
pub(super) fn restrict(target: &Path, attributes: MountAttrFlags, reach: Reach) -> Result<(), Errno> {
    let Ok(path) = std::ffi::CString::new(target.as_os_str().as_bytes()) else { return Err(Errno::INVAL) };
    match system::set_mount_attributes(&path, attributes.bits().into(), reach == Reach::Below) {
        Err(Errno::NOSYS) => restrict_each(target, attributes, reach),
        done => done,
    }
}

/// As [`restrict`], for Linux before 5.12: one mount after the other, as they are listed.
fn restrict_each(target: &Path, attributes: MountAttrFlags, reach: Reach) -> Result<(), Errno> {
    let mut flags = MountFlags::BIND;
    for (attribute, flag) in [
        (MountAttrFlags::MOUNT_ATTR_RDONLY, MountFlags::RDONLY),
        (MountAttrFlags::MOUNT_ATTR_NOSUID, MountFlags::NOSUID),
        (MountAttrFlags::MOUNT_ATTR_NODEV, MountFlags::NODEV),
        (MountAttrFlags::MOUNT_ATTR_NOEXEC, MountFlags::NOEXEC),
    ] {
        if attributes.contains(attribute) {
            flags |= flag;
        }
    }
    mount_remount(target, flags, "")?;
    if reach == Reach::Alone {
        return Ok(());
    }
    let listed = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    for line in listed.lines() {
        let mut fields = line.split(' ').skip(4);
        let (Some(place), Some(has)) = (fields.next(), fields.next()) else { continue };
        // Names with spaces and the like are written in octal; the kernel's own folders have none.
        if Path::new(place) == target || !Path::new(place).starts_with(target) {
            continue;
        }
        let mut flags = flags;
        for (word, flag) in [
            ("ro", MountFlags::RDONLY),
            ("nosuid", MountFlags::NOSUID),
            ("nodev", MountFlags::NODEV),
            ("noexec", MountFlags::NOEXEC),
            ("noatime", MountFlags::NOATIME),
        ] {
            if has.split(',').any(|name| name == word) {
                flags |= flag;
            }
        }
        mount_remount(place, flags, "")?;
    }
    Ok(())
}

fn with_log(context: &OwnedFd) -> impl Fn(Failure) -> Option<Failure> {
    move |failure| Some(Failure { log: log_of(context), ..failure })
}

/// What the kernel logged for this file system context: one message per read.
fn log_of(context: &OwnedFd) -> String {
    const MESSAGES_MAX: usize = 8;
    let Ok(context) = context.as_fd().try_clone_to_owned() else { return String::new() };
    let mut file = File::from(context);
    let mut messages = Vec::new();
    let mut buffer = [0; 1024];
    while messages.len() < MESSAGES_MAX {
        match file.read(&mut buffer) {
            Ok(count) if count > 0 => {
                messages.push(String::from_utf8_lossy(&buffer[..count]).trim().to_owned());
            }
            _ => break,
        }
    }
    messages.join("; ")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::FileTypeExt;

    use rustix::mount::{MountPropagationFlags, mount_change};
    use rustix::thread::UnshareFlags;

    use super::super::system;
    use super::*;

    /// Mounts 120 layers in a mount namespace of its own, by one of the two ways, and looks at the result.
    fn overlay(mount: impl FnOnce(&Layers<'_>) -> Result<(), Option<Failure>> + Send + 'static) {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        // Namespaces of the file system are a thread's own.
        let thread = std::thread::spawn(move || {
            let folder = tempfile::tempdir().unwrap();
            system::unshare(UnshareFlags::NEWNS | UnshareFlags::FS).unwrap();
            mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
            let path = |name: &str| folder.path().join(name);
            let lowers: Vec<PathBuf> = (0..120).map(|number| path(&format!("a:name,with\\marks-{number}"))).collect();
            let (upper, work) = (path("upper"), path("work"));
            for place in lowers.iter().chain([&upper, &work]) {
                fs::create_dir(place).unwrap();
            }
            for (number, lower) in lowers.iter().enumerate() {
                fs::write(lower.join("top"), number.to_string()).unwrap();
                fs::write(lower.join(number.to_string()), "").unwrap();
            }
            let below = rustix::fs::open(&upper, rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
            mount(&Layers { lowers: &lowers, upper: &upper, work: &work }).unwrap();
            assert_eq!(fs::read_to_string(upper.join("top")).unwrap(), "0");
            assert_eq!(fs::read_dir(&upper).unwrap().count(), 121);
            fs::remove_file(upper.join("7")).unwrap();
            rustix::process::fchdir(below).unwrap();
            assert!(fs::symlink_metadata("7").unwrap().file_type().is_char_device());
            rustix::process::chdir("/").unwrap();
            rustix::mount::unmount(&upper, rustix::mount::UnmountFlags::DETACH).unwrap();
        });
        thread.join().unwrap();
    }

    #[test]
    fn layers_are_mounted_by_descriptor() {
        // Kernels before 6.5 have only the other way.
        overlay(|layers| {
            layers.mount_by_descriptor().or_else(|refused| {
                refused.map_or_else(|| layers.mount_by_name().map_err(Some), |failure| Err(Some(failure)))
            })
        });
    }

    #[test]
    fn layers_are_mounted_by_name() {
        overlay(|layers| layers.mount_by_name().map_err(Some));
    }
}
