//! Runs a command where nothing but `chroot` is allowed: as root in a container with the usual capabilities.
//!
//! ```text
//! stage    takes in the processes that lose their parent, puts what a RUN needs into the root, waits
//!   |      PDEATHSIG: the stage's death is the command's
//!   child  enters the root, drops what it may not keep, and becomes the command by `execve`
//! ```
//!
//! There are no mounts, so what other rungs mount is put in its place in the root for the command and taken out after it
//! ([`Furniture`]); there is no process namespace, so what the command leaves running is found and killed one by one
//! ([`descendants`]). Then the answer is given, and the tree is what the command left, without a trace of us. What a stage
//! that is killed could not do, the builder does, or the next one that comes to the root ([`recover`]).
//!
//! What a command does not see here: `/proc`, `/sys`, terminals, and the host name that it would have elsewhere. It sees the
//! builder's own processes (to signal them, not to look into them) and, as everywhere on the host's network, its
//! loopback services. It cannot leave the root: it has neither `CAP_SYS_CHROOT` nor `CAP_MKNOD`, and no descriptor of
//! ours.

mod copy;
mod descendants;
mod furniture;
mod lent;

use std::ffi::OsString;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, StatVfsMountFlags, Uid, chownat, open, openat, statvfs};
use rustix::pipe::PipeFlags;
use rustix::process::{
    PidfdFlags, Signal, chdir, chroot, fchdir, pidfd_open, set_parent_process_death_signal, setsid, umask,
};
use rustix::thread::{CapabilitySet, UnshareFlags, capabilities as held_capabilities};

use self::furniture::Furniture;
use super::error::{During, Failure};
use super::spec::{Network, RootMount, RunSpec};
use super::stage::End;
use super::system::{self, Fork};
use super::wire::{Answer, send};
use super::{capabilities, filter, init};

/// The stage's part: everything but the command itself.
pub(super) fn run(spec: &RunSpec, control: &UnixStream) -> Result<Answer, Failure> {
    let RootMount::Directory(root) = &spec.root else {
        return Err(Failure::new("a chroot needs its root as one folder, and this is a stack of layers"));
    };
    if spec.network == Network::Isolated {
        return Err(Failure::new(
            "running in an isolated network: the rung r4 (root in a chroot) cannot make a network of its own; leave \
             `--network isolated` out, or run the build where `fluyt doctor` names a better rung",
        ));
    }
    if spec.network == Network::None {
        // The one namespace that a build can ask for. Where it is refused, the network would be there.
        system::unshare(UnshareFlags::NEWNET).during(|| {
            "running without a network: the rung r4 (root in a chroot) cannot make a network of its own; leave \
             `--network=none` out, or run the build where `fluyt doctor` names a better rung"
                .to_owned()
        })?;
        system::loopback_up().during(|| "bringing the loopback device up".to_owned())?;
    }
    descendants::adopt()?;
    // Modes are what they are said to be.
    umask(Mode::empty());
    let mut furniture = Furniture::new(root)?;
    let ended = furniture.put_in(spec).and_then(|()| command(spec, root, control));
    // Whatever happened: the command's processes end, and what was put in comes out.
    let killed = descendants::kill_all();
    let taken_out = furniture.take_out();
    let status = ended?;
    killed?;
    taken_out?;
    Ok(Answer::Ended(status))
}

/// Runs the command to its end. Returns the raw wait status.
fn command(spec: &RunSpec, root: &Path, control: &UnixStream) -> Result<i32, Failure> {
    let (alive, ours) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).during(|| "making a pipe".to_owned())?;
    let pid = match system::fork().during(|| "starting the command's process".to_owned())? {
        Fork::Child => {
            drop(ours);
            let failure = match set_up(spec, root, &alive) {
                Ok(home) => init::execute(spec, home),
                Err(failure) => failure,
            };
            let _ = send(control, &Answer::Failed(failure));
            system::exit_now(125)
        }
        Fork::Parent(pid) => pid,
    };
    let process = pidfd_open(pid, PidfdFlags::empty()).during(|| "watching the command".to_owned())?;
    super::stage::wait(pid, &process, control.as_fd(), End::Asked)
}

/// Ends what a stage that was killed left in a root: its command's processes are killed, and folders that outlive commands
/// (cache mounts) come home. Does nothing where none was killed. Who calls this has the root for itself, and
/// may find anything in it afterwards.
///
/// # Errors
/// When that cannot be done; the root must then be left alone.
pub fn recover(root: &Path) -> Result<(), Failure> {
    furniture::recover(root)
}

/// Empties a root in which a stage was killed, whose folders are all home: secrets are still in their places.
pub(super) fn clear(root: &Path) {
    for entry in std::fs::read_dir(root).into_iter().flatten().flatten() {
        let path = entry.path();
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        // Whoever prepares the root next empties it whatever is in it.
        let _ = if is_folder { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    }
}

/// Enters the root and gives up what the command may not have, while there still are the capabilities that each of it needs.
/// Returns the user's home folder.
fn set_up(spec: &RunSpec, root: &Path, stage: &OwnedFd) -> Result<String, Failure> {
    system::close_on_exec().during(|| "closing descriptors".to_owned())?;
    setsid().during(|| "starting a session".to_owned())?;
    enter_root(root)?;
    umask(Mode::from_raw_mode(0o022));
    init::streams(spec)?;
    init::enter(spec)?;
    let home = init::home(spec.uid);
    if spec.insecure {
        init::limits(spec)?;
        let all = capabilities::hold()?;
        init::drop_ids(spec)?;
        capabilities::keep(all)?;
    } else {
        capabilities::check(spec.capabilities)?;
        let kept = kept(spec);
        // Usually the container around us has a filter, and we may not load one: a command could get no new rights under it,
        // and `sudo` would fail.
        if has(CapabilitySet::SYS_ADMIN) {
            filter::load(kept)?;
        }
        init::limits(spec)?;
        capabilities::restrict(kept, || init::drop_ids(spec))?;
    }
    system::reset_signals();
    // Last, because a change of ids clears it.
    set_parent_process_death_signal(Some(Signal::KILL)).during(|| "tying the command to its stage".to_owned())?;
    let mut polled = [PollFd::new(stage, PollFlags::IN)];
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    if poll(&mut polled, Some(&now)).is_ok_and(|ready| ready > 0) {
        return Err(Failure::new("the stage is gone"));
    }
    Ok(home)
}

/// What a command may do here: not what leads out of a chroot, unless the build asks for that by name.
fn kept(spec: &RunSpec) -> CapabilitySet {
    let leads_out = CapabilitySet::SYS_CHROOT | CapabilitySet::MKNOD;
    let asked = CapabilitySet::from_bits_retain(spec.capabilities.add);
    capabilities::of(spec).difference(leads_out.difference(asked))
}

fn has(capability: CapabilitySet) -> bool {
    held_capabilities(None).is_ok_and(|sets| sets.effective.contains(capability))
}

fn enter_root(root: &Path) -> Result<(), Failure> {
    let what = || format!("making {} the root", root.display());
    let folder = open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).during(what)?;
    fchdir(&folder).during(what)?;
    chroot(".").during(|| format!("{} (CAP_SYS_CHROOT is needed)", what()))?;
    chdir("/").during(what)
}

/// The stage's part of a trial, in an empty folder that is the builder's to remove.
pub(super) fn attempt(folder: &[u8]) -> Result<(), Failure> {
    let folder = PathBuf::from(OsString::from_vec(folder.to_vec()));
    let what = |doing: &str| format!("{doing} {}", folder.display());
    let flags = statvfs(&folder).during(|| what("looking at"))?.f_flag;
    if flags.contains(StatVfsMountFlags::NOEXEC) {
        return Err(Failure::new(format!("{} is on a file system without programs (noexec)", folder.display())));
    }
    umask(Mode::empty());
    furniture::make_node(&folder.join("null"), (1, 3))?;
    let root =
        open(&folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).during(|| what("opening"))?;
    let null = openat(&root, "null", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
        .during(|| what("using a device node in (a file system with `nodev`?)"))?;
    std::fs::File::from(null).write_all(b"0").during(|| what("writing to a device node in"))?;
    let (user, group) = (Uid::from_raw(1), Gid::from_raw(1));
    chownat(CWD, folder.join("null"), Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)
        .during(|| what("giving another user a file in"))?;
    enter_root(&folder)?;
    let kept = capabilities::usual(Network::Host).difference(CapabilitySet::SYS_CHROOT | CapabilitySet::MKNOD);
    capabilities::restrict(kept, || {
        rustix::thread::set_thread_groups(&[]).during(|| "setting the supplementary groups".to_owned())?;
        rustix::thread::set_thread_res_gid(group, group, group).during(|| "becoming another group".to_owned())?;
        rustix::thread::set_thread_res_uid(user, user, user).during(|| "becoming another user".to_owned())
    })?;
    let found = rustix::fs::statat(CWD, "/null", AtFlags::SYMLINK_NOFOLLOW).during(|| "looking around".to_owned())?;
    match FileType::from_raw_mode(found.st_mode) {
        FileType::CharacterDevice => Ok(()),
        _ => Err(Failure::new("the chroot did not lead into its folder")),
    }
}
