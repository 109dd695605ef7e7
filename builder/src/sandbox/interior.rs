//! What a RUN finds mounted in its root: `/proc`, `/dev`, `/sys`, and the two generated files in `/etc`.
//!
//! Everything is looked up after the root was changed, so no link of an image leads out of it; what comes from the host
//! is taken as a descriptor before.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, statfs};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, OpenTreeFlags, UnmountFlags, mount_bind_recursive, open_tree, unmount};

use super::error::{During, Failure};
use super::mounts::{Reach, attach, new_mount, restrict};
use super::spec::{MountSource, RunSpec, SHM_BYTES};
use super::system;
use crate::owners::{self, Owner};

/// The host's device nodes that a RUN gets; no others, and it cannot use any that it makes itself.
pub(super) const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Folders of the host's `/dev` that hold no device nodes for others.
const OWN_FOLDERS: [&str; 5] = ["pts", "shm", "fd", "mqueue", "char"];

/// How deep below `/dev` nodes are looked for: `/dev/bus/usb/001` is the deepest that is usual.
const FOLDERS_MAX: usize = 4;

/// What programs expect in `/dev` beside devices.
pub(super) const LINKS: [(&str, &str); 5] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/ptmx", "pts/ptmx"),
];

/// Hidden, because they tell or change things of the host.
pub(super) const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

/// Read-only, because they change things of the host.
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Where control groups are shown.
const GROUPS: &str = "/sys/fs/cgroup";

/// The file system of the second version of control groups, by its number in the kernel.
const CGROUP2_MAGIC: rustix::fs::FsWord = 0x6367_7270;

const NO_SUID: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID;
const NO_EXEC: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOEXEC;
const NO_DEVICES: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NODEV;
const READ_ONLY_ATTRIBUTE: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_RDONLY;
const DATA_ONLY: MountAttrFlags = NO_SUID.union(NO_EXEC).union(NO_DEVICES);

/// What a RUN needs of the host.
#[derive(Debug)]
pub(super) struct FromHost {
    /// Each with its path below `/dev`.
    devices: Vec<(PathBuf, OwnedFd)>,
    /// A `proc` of our own processes, or the host's where that is refused.
    processes: OwnedFd,
    /// A new `sysfs`, or the host's.
    system: OwnedFd,
    system_is_hosts: bool,
    /// Whether the host shows its control groups as one tree.
    has_one_group_tree: bool,
}

impl FromHost {
    /// To be called while the host's root is still ours, by process 1: in a user namespace the kernel makes a new `proc` or
    /// `sysfs` only for who can see another one whole.
    pub(super) fn take(insecure: bool) -> Result<Self, Failure> {
        let mut devices = Vec::new();
        for name in DEVICES {
            match copy(&format!("/dev/{name}"), false) {
                Ok(device) => devices.push((PathBuf::from(name), device)),
                // A builder in a container may itself have no terminal device.
                Err(Errno::NOENT) if name == "tty" => {}
                Err(errno) => return Err(errno).during(|| format!("taking the host's /dev/{name}")),
            }
        }
        if insecure {
            more_devices(Path::new(""), 0, &mut devices);
        }
        let has_one_group_tree = statfs(GROUPS).is_ok_and(|found| found.f_type == CGROUP2_MAGIC);
        let (processes, _) = new_or_hosts("proc", "/proc", DATA_ONLY)?;
        let access = if insecure { MountAttrFlags::empty() } else { READ_ONLY_ATTRIBUTE };
        let (system, system_is_hosts) = new_or_hosts("sysfs", "/sys", DATA_ONLY | access)?;
        Ok(Self { devices, processes, system, system_is_hosts, has_one_group_tree })
    }
}

/// A new file system of a kind, or the host's with all that is mounted in it; whether it is that.
///
/// A container hides parts of its own `/proc`, and then the kernel refuses a whole one. The host's network namespace is
/// not ours to show in a new `/sys`. The host's `/proc` has our processes too, under other numbers than ours.
fn new_or_hosts(kind: &str, path: &str, attributes: MountAttrFlags) -> Result<(OwnedFd, bool), Failure> {
    match new_mount(kind, &[], attributes) {
        Ok(mounted) => Ok((mounted, false)),
        Err(failure) => copy(path, true).map(|copied| (copied, true)).map_err(|_| failure),
    }
}

/// Takes every other device node of the host. One that goes away meanwhile is not missed.
fn more_devices(folder: &Path, depth: usize, devices: &mut Vec<(PathBuf, OwnedFd)>) {
    let Ok(entries) = fs::read_dir(Path::new("/dev").join(folder)) else { return };
    for entry in entries.flatten() {
        let (name, Ok(kind)) = (entry.file_name(), entry.file_type()) else { continue };
        let path = folder.join(&name);
        if kind.is_dir() && depth < FOLDERS_MAX && !OWN_FOLDERS.iter().any(|own| name == *own) {
            more_devices(&path, depth + 1, devices);
        }
        let is_device = kind.is_char_device() || kind.is_block_device();
        // The console and the multiplexer of terminals are the sandbox's own matter.
        let own = name == "console" || name == "ptmx";
        if is_device
            && !own
            && !DEVICES.iter().any(|known| path == Path::new(known))
            && let Some(text) = entry.path().to_str()
            && let Ok(device) = copy(text, false)
        {
            devices.push((path, device));
        }
    }
}

/// Mounts everything; to be called when the root was changed. Returns the files of the step's own mounts, mounted
/// nowhere yet, in the order of the mounts.
pub(super) fn furnish(spec: &RunSpec, host: FromHost) -> Result<Vec<OwnedFd>, Failure> {
    let files = generated_files(spec)?;
    attach(host.processes, Path::new("/proc"))?;
    devices(host.devices, spec.shm_size_bytes)?;
    let groups = host.has_one_group_tree;
    attach(host.system, Path::new("/sys"))?;
    if host.system_is_hosts {
        let access = if spec.insecure { MountAttrFlags::empty() } else { READ_ONLY_ATTRIBUTE };
        // It has others mounted in it: control groups, tracing, BPF.
        restrict(Path::new("/sys"), DATA_ONLY | access, Reach::Below)
            .during(|| "closing the host's /sys to writes".to_owned())?;
        if !groups && !spec.insecure {
            mask(GROUPS)?;
        }
    }
    if groups {
        control_groups(spec.insecure)?;
    }
    if !spec.insecure {
        for path in MASKED {
            mask(path)?;
        }
        for path in READ_ONLY {
            read_only(path)?;
        }
        throttles()?;
    }
    Ok(files)
}

/// `/etc/hosts`, also for the name that the command has where it cannot have its own: programs look for themselves.
pub(super) fn hosts(spec: &RunSpec) -> Vec<u8> {
    let name = system::host_name().unwrap_or_default();
    let known = name == spec.hostname.as_bytes() || spec.hosts.split(u8::is_ascii_whitespace).any(|word| word == name);
    if name.is_empty() || known {
        return spec.hosts.clone();
    }
    [&spec.hosts, b"127.0.0.1\t".as_slice(), &name, b"\n"].concat()
}

/// `/etc/resolv.conf` and `/etc/hosts`: files of a memory file system. Read-only, because what a RUN would write there is no
/// part of the image: better it hears that now. The
/// files of the step's own mounts are made in the same way, and returned.
fn generated_files(spec: &RunSpec) -> Result<Vec<OwnedFd>, Failure> {
    let scratch = Path::new("/dev");
    let bytes = spec.mounts.iter().map(|mount| match &mount.source {
        MountSource::File { content, .. } => content.len(),
        _ => 0,
    });
    // A page for the end of each file, and room for the two.
    let size_bytes = bytes.map(|length| length + 8192).sum::<usize>() + 4 * 1024 * 1024;
    let size = size_bytes.to_string();
    // Executable, for scripts.
    attach(new_mount("tmpfs", &[("mode", "755"), ("size", &size)], NO_SUID | NO_DEVICES)?, scratch)?;
    let file = |name: &str, content: &[u8], mode: u32, uid: u32, gid: u32| {
        let path = scratch.join(name);
        let make = || {
            fs::write(&path, content)?;
            owners::give(&path, Owner { uid, gid })?;
            fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
            Ok(open_tree(CWD, &path, clone_flags())?)
        };
        let made: std::io::Result<OwnedFd> = make();
        made.during(|| format!("making the file {name} for the command"))
    };
    let resolv_conf = file("resolv.conf", &spec.resolv_conf, 0o644, 0, 0)?;
    let hosts = file("hosts", &hosts(spec), 0o644, 0, 0)?;
    let mut files = Vec::new();
    for mount in &spec.mounts {
        if let MountSource::File { content, mode, uid, gid } = &mount.source {
            files.push(file(&format!("mount-{}", files.len()), content, *mode, *uid, *gid)?);
        }
    }
    unmount(scratch, UnmountFlags::DETACH).during(|| "leaving the scratch file system".to_owned())?;
    for (file, path) in [(resolv_conf, "/etc/resolv.conf"), (hosts, "/etc/hosts")] {
        attach(file, Path::new(path))?;
        restrict(Path::new(path), DATA_ONLY | READ_ONLY_ATTRIBUTE, Reach::Below)
            .during(|| format!("making {path} read-only"))?;
    }
    Ok(files)
}

fn devices(devices: Vec<(PathBuf, OwnedFd)>, shm_size_bytes: u64) -> Result<(), Failure> {
    let folder = Path::new("/dev");
    attach(new_mount("tmpfs", &[("mode", "755"), ("size", "64m")], NO_SUID | NO_DEVICES)?, folder)?;
    for (name, device) in devices {
        let path = folder.join(name);
        let place = || path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(&path, b""));
        place().during(|| format!("making a place for {}", path.display()))?;
        attach(device, &path)?;
    }
    for (link, target) in LINKS {
        symlink(target, link).during(|| format!("making the link {link}"))?;
    }
    let mount_new = |name: &str, mounted: OwnedFd| {
        let path = folder.join(name);
        fs::create_dir(&path).during(|| format!("making the folder /dev/{name}"))?;
        attach(mounted, &path)
    };
    let terminals = |extra: &[(&str, &str)]| {
        let options = [&[("newinstance", ""), ("ptmxmode", "0666"), ("mode", "0620")], extra].concat();
        new_mount("devpts", &options, NO_SUID | NO_EXEC)
    };
    // Group 5 is `tty` nearly everywhere, but does not exist where only one id is mapped.
    mount_new("pts", terminals(&[("gid", "5")]).or_else(|_| terminals(&[]))?)?;
    let size = if shm_size_bytes == 0 { SHM_BYTES } else { shm_size_bytes }.to_string();
    mount_new("shm", new_mount("tmpfs", &[("mode", "1777"), ("size", &size)], DATA_ONLY)?)?;
    // Kernels may be built without message queues.
    match new_mount("mqueue", &[], DATA_ONLY) {
        Ok(queues) => mount_new("mqueue", queues),
        Err(_) => Ok(()),
    }
}

/// The command's own control group and what is below it: programs that size themselves by its limits (a Java machine, Go)
/// find there what the builder itself may use. Not every sandbox around ours allows it, and then they see the machine's size.
fn control_groups(writable: bool) -> Result<(), Failure> {
    let folder = Path::new(GROUPS);
    let access = if writable { MountAttrFlags::empty() } else { MountAttrFlags::MOUNT_ATTR_RDONLY };
    match new_mount("cgroup2", &[], DATA_ONLY | access) {
        Ok(mounted) if folder.is_dir() => attach(mounted, folder),
        _ => Ok(()),
    }
}

/// Lays nothing over a path: an empty folder, or the null device.
fn mask(path: &str) -> Result<(), Failure> {
    let target = Path::new(path);
    let Ok(metadata) = fs::metadata(target) else { return Ok(()) };
    if metadata.is_dir() {
        return attach(new_mount("tmpfs", &[("mode", "755")], DATA_ONLY | MountAttrFlags::MOUNT_ATTR_RDONLY)?, target);
    }
    attach(copy("/dev/null", false).during(|| format!("hiding {path}"))?, target)
}

/// What the processors tell of their heat, by which others' work could be guessed: a folder in each.
fn throttles() -> Result<(), Failure> {
    let Ok(entries) = fs::read_dir("/sys/devices/system/cpu") else { return Ok(()) };
    for entry in entries.flatten() {
        let path = entry.path().join("thermal_throttle");
        let name = entry.file_name();
        let digits = name.to_str().and_then(|name| name.strip_prefix("cpu")).unwrap_or_default();
        if digits.starts_with(|first: char| first.is_ascii_digit())
            && path.is_dir()
            && let Some(path) = path.to_str()
        {
            mask(path)?;
        }
    }
    Ok(())
}

fn read_only(path: &str) -> Result<(), Failure> {
    if fs::symlink_metadata(path).is_err() {
        return Ok(());
    }
    let what = || format!("making {path} read-only");
    mount_bind_recursive(path, path).during(what)?;
    restrict(Path::new(path), DATA_ONLY | READ_ONLY_ATTRIBUTE, Reach::Below).during(what)
}

fn clone_flags() -> OpenTreeFlags {
    OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC
}

/// A copy of the mount at a path, attached nowhere.
fn copy(path: &str, recursive: bool) -> Result<OwnedFd, Errno> {
    let all = if recursive { OpenTreeFlags::AT_RECURSIVE } else { OpenTreeFlags::empty() };
    open_tree(CWD, path, clone_flags() | all)
}
