//! Whether this machine lets RUN work, found out by trying.
//!
//! Version numbers, module lists and container detection all lie somewhere; a stage that does the same as a RUN does
//! not. It works on a memory file system of its own, so nothing is left behind and no earlier trial can be in the way.

use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, mkdir, open, statat};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;
use rustix::pipe::PipeFlags;
use rustix::process::geteuid;
use rustix::thread::CapabilitySet;

use super::error::{During, Failure, SandboxError};
use super::mounts::{attach, mount_root, new_mount};
use super::parent::converse;
use super::places::Places;
use super::rung::Rung;
use super::spec::{RootMount, RunSpec};
use super::wire::{self, Answer, Order};
use super::{entry, init, stage, system};
use crate::owners;
use crate::stop::Cancel;

/// Why RUN cannot work here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What stands in the way.
    pub reason: String,
    /// The shortest way around it.
    pub fix: String,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}; {}", self.reason, self.fix)
    }
}

/// Tries whether commands can run on a rung.
///
/// # Errors
///
/// What stands in the way, and what would help.
pub(super) fn of(rung: Rung, place: Option<&Path>) -> Result<(), Refusal> {
    match rung {
        Rung::Root => root(),
        Rung::Rootless | Rung::SingleId => inside(rung),
        Rung::Chroot => chroot(place),
        Rung::Traced => traced(place),
        Rung::Nothing => Ok(()),
    }
}

/// In a user namespace all was tried before this process went into it.
fn inside(rung: Rung) -> Result<(), Refusal> {
    if entry::entered() == Some(rung) {
        return Ok(());
    }
    Err(entry::refusal(rung).unwrap_or_else(|| {
        refusal(
            "this process did not try to enter a user namespace",
            "ask for it: `--isolation` with the name of this rung",
        )
    }))
}

/// Whether it is worth a trial to make namespaces as root.
pub(super) fn may_be_root() -> Result<(), Refusal> {
    if !geteuid().is_root() {
        return Err(refusal(
            format!("RUN needs root, and this is user {}", geteuid().as_raw()),
            "run as root or with sudo",
        ));
    }
    if !entry::holds(CapabilitySet::SYS_ADMIN) {
        return Err(refusal(
            "this process is root without the capability CAP_SYS_ADMIN, as in a container",
            "start the container with `docker run --privileged`, or with `--cap-add SYS_ADMIN --security-opt apparmor=unconfined`",
        ));
    }
    has_rights_of_root()
}

/// Root that may mount, and may not give files to others, makes no layers that are exact.
fn has_rights_of_root() -> Result<(), Refusal> {
    match owners::lacking() {
        None => Ok(()),
        Some(name) => Err(refusal(
            format!("this process is root without the capability {name}, as in a container"),
            "give the container its usual capabilities: `docker run` without `--cap-drop`, in Kubernetes without \
             `capabilities.drop`",
        )),
    }
}

/// Tries what a RUN needs: namespaces, an overlay that writes whiteouts, and all else that is mounted or given up for a
/// command.
fn root() -> Result<(), Refusal> {
    if let Some(refusal) = entry::refusal(Rung::Root) {
        return Err(refusal);
    }
    if entry::entered().is_some() {
        return Err(refusal("this process is root in a user namespace alone", "run as root or with sudo"));
    }
    may_be_root()?;
    if let Some(tried) = entry::as_root() {
        return tried;
    }
    let answer = converse(&Order::Try, None, &mut |_, _| {}, &Cancel::new()).map(|conversation| conversation.answer);
    match answer {
        Ok(Some(Answer::Works)) => Ok(()),
        Ok(Some(Answer::Failed(failure))) => Err(refused(&failure)),
        Ok(Some(Answer::Ended(_)) | None) => Err(refusal(
            "the stage of a trial ended without an answer",
            "look into the kernel's log for a process that was killed",
        )),
        Err(error) => Err(not_started(&error)),
    }
}

/// Tries what a RUN in a chroot needs: device nodes that can be used, other owners and users, and `chroot` itself.
fn chroot(place: Option<&Path>) -> Result<(), Refusal> {
    if !geteuid().is_root() {
        return Err(refusal(
            format!("`chroot` needs root, and this is user {}", geteuid().as_raw()),
            "run as root: in a container, without `--user` and `runAsUser`",
        ));
    }
    has_rights_of_root()?;
    let folder = fresh_folder(place)?;
    let order = Order::TryChroot(folder.as_os_str().as_bytes().to_vec());
    let answer = converse(&order, None, &mut |_, _| {}, &Cancel::new()).map(|conversation| conversation.answer);
    let _ = std::fs::remove_dir_all(&folder);
    match answer {
        Ok(Some(Answer::Works)) => Ok(()),
        Ok(Some(Answer::Failed(failure))) => Err(refusal(
            format!("this machine refused a trial of RUN in a chroot: {failure}"),
            "give the container its usual capabilities: `docker run` without `--cap-drop`, in Kubernetes without \
             `capabilities.drop`; and keep the store on a file system without `nodev` and `noexec`",
        )),
        Ok(Some(Answer::Ended(_)) | None) => Err(refusal(
            "the stage of a trial ended without an answer",
            "look into the kernel's log for a process that was killed",
        )),
        Err(error) => Err(not_started(&error)),
    }
}

/// Tries what a traced RUN needs: a tracer, a filter, memory that can be written, and attributes of files.
fn traced(place: Option<&Path>) -> Result<(), Refusal> {
    if cfg!(not(target_arch = "x86_64")) {
        return Err(refusal("commands are traced on x86_64 only", "use one of the other rungs"));
    }
    if geteuid().is_root() && owners::lacking().is_none() {
        return Err(refusal(
            "commands are traced for an ordinary user, or root without capabilities, and this is root with all rights over files",
            "use one of the other rungs; or run as a user: `docker run --user 1000`",
        ));
    }
    let folder = fresh_folder(place)?;
    let order = Order::TryTrace(folder.as_os_str().as_bytes().to_vec());
    let answer = converse(&order, None, &mut |_, _| {}, &Cancel::new()).map(|conversation| conversation.answer);
    let _ = std::fs::remove_dir_all(&folder);
    match answer {
        Ok(Some(Answer::Works | Answer::Ended(0))) => Ok(()),
        Ok(Some(Answer::Failed(failure))) => Err(refusal(
            format!("this machine refused a trial of a traced RUN: {failure}"),
            "let processes trace their children (`kernel.yama.ptrace_scope` at most 1, the call `ptrace` in the seccomp \
             profile), and keep the store on a file system with programs and user attributes",
        )),
        Ok(Some(Answer::Ended(status))) => Err(refusal(
            format!("the program of a trial ended with the raw status {status:#x} under the tracer"),
            "use Linux 4.8 or later, outside of sandboxes that emulate it",
        )),
        Ok(None) => Err(refusal(
            "the stage of a trial ended without an answer",
            "look into the kernel's log for a process that was killed",
        )),
        Err(error) => Err(not_started(&error)),
    }
}

/// A new folder where roots are, for a trial.
fn fresh_folder(place: Option<&Path>) -> Result<PathBuf, Refusal> {
    let place = place.map_or_else(std::env::temp_dir, Path::to_owned);
    let folder = (0..)
        .map(|number: u32| place.join(format!(".fluyt-trial-{}-{number}", std::process::id())))
        .find_map(|folder| match std::fs::create_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => None,
            made => Some(made.map(|()| folder)),
        })
        .unwrap_or_else(|| Err(io::ErrorKind::AlreadyExists.into()));
    folder.map_err(|error| {
        refusal(format!("a folder for a trial cannot be made in {}: {error}", place.display()), "make it writable")
    })
}

/// Folders that nearly every machine and container has, and a sandbox takes nothing from: one becomes the place of a trial.
const PLACES: [&str; 5] = ["/mnt", "/srv", "/tmp", "/var", "/etc"];

/// The stage's part of the trial, in its own namespaces: all of a RUN but the command, which is not there. `recorded` as in
/// [`RunSpec`].
pub(super) fn attempt(recorded: bool) -> Result<(), Failure> {
    // Hides it in this namespace alone.
    let base = PLACES.iter().map(Path::new).find(|place| place.is_dir());
    let base = base.ok_or_else(|| Failure::new(format!("there is none of the folders {}", PLACES.join(", "))))?;
    attach(new_mount("tmpfs", &[], MountAttrFlags::MOUNT_ATTR_NODEV)?, base)?;
    for folder in ["lower", "upper", "work", "lower/folder"] {
        mkdir(base.join(folder), Mode::RWXU).during(|| format!("making the folder {folder}"))?;
    }
    let upper = open(base.join("upper"), OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .during(|| "opening the upper folder".to_owned())?;
    let (lowers, upper_path, work) = (vec![base.join("lower")], base.join("upper"), base.join("work"));
    // No root has it: that it was not found tells that all before it worked.
    let spec = RunSpec::trial(RootMount::Overlay { lowers, upper: upper_path, work }, "/a-trial-of-fluyt", recorded);
    let root = mount_root(&spec.root)?;
    // The overlay hides its upper folder: look at it through a descriptor from before.
    rustix::fs::rmdir(root.join("folder")).during(|| "removing a folder in an overlay".to_owned())?;
    let left = statat(&upper, "folder", AtFlags::SYMLINK_NOFOLLOW)
        .during(|| "looking for the whiteout of a removed folder".to_owned())?;
    if FileType::from_raw_mode(left.st_mode) != FileType::CharacterDevice || left.st_rdev != 0 {
        return Err(Failure::new("the overlay did not record a removal by a whiteout"));
    }
    let _places = Places::make(&root, &[], false)?;
    let (ours, control) = UnixStream::pair().during(|| "making a socket pair".to_owned())?;
    // Its streams become the command's, and it says that this was not found.
    let (_reader, streams) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).during(|| "making a pipe".to_owned())?;
    for number in [1, 2] {
        system::set_stream(streams.as_fd(), number).during(|| "setting the standard streams".to_owned())?;
    }
    let status = stage::command(&spec, &root, &control, None)?;
    drop(control);
    if libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == init::NOT_FOUND {
        return Ok(());
    }
    let mut heard = Vec::new();
    let _ = (&ours).read_to_end(&mut heard);
    match wire::first_answer(&heard) {
        Some(Answer::Failed(failure)) => Err(failure),
        _ => Err(Failure::new(format!("the process of a trial ended with the raw status {status:#x}"))),
    }
}

/// Words for what a trial of root's met.
pub(super) fn refused(failure: &Failure) -> Refusal {
    let errno = Errno::from_raw_os_error(failure.errno);
    let fix = match errno {
        Errno::NODEV => "load the kernel module: `modprobe overlay`",
        Errno::PERM | Errno::ACCESS => {
            "lift the security profile of this container: `docker run --privileged`, or `--cap-add SYS_ADMIN \
             --security-opt seccomp=unconfined --security-opt apparmor=unconfined`"
        }
        Errno::NOSYS => "use Linux 5.3 or later",
        Errno::NOSPC | Errno::USERS => "raise the limits in /proc/sys/user/max_*_namespaces",
        _ => "run on a machine, or in a container, that may mount",
    };
    refusal(format!("this machine refused a trial of RUN: {failure}"), fix)
}

fn not_started(error: &SandboxError) -> Refusal {
    let cause = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
    let missing = matches!(error, SandboxError::Start { source, .. } if source.kind() == io::ErrorKind::NotFound);
    let fix = if missing { "mount /proc" } else { "free processes, descriptors or memory, and try again" };
    refusal(format!("a trial of RUN could not be started: {error}{cause}"), fix)
}

fn refusal(reason: impl Into<String>, fix: &str) -> Refusal {
    Refusal { reason: reason.into(), fix: fix.to_owned() }
}
