//! Owners on a rung with one id: what a command asks for is recorded, and it is shown what was recorded.
//!
//! ```text
//! stage       forks the supervisor before it makes namespaces, and hears at the end how it fared
//!   |- pid 1         loads a filter that tells of some calls, hands the listener to the supervisor, and becomes the command
//!   |- supervisor    enters the command's mounts, keeps what rights the command has, and answers
//! ```
//!
//! | the command | what happens |
//! |---|---|
//! | gives a file to somebody | it stays ours, and [`crate::owners`] records it |
//! | looks at a file | it is shown the recorded owner |
//! | becomes another user, as `su` and package managers do | it is taken for that one from then on: in what it asks about itself, may give away, and makes |
//! | executes a set-user-id program as another user | it is taken for the program's owner |
//! | makes something in a set-group-id folder | it has the folder's recorded group |
//!
//! What differs from a container with many ids: another user than root is refused nothing that root of the build may do to
//! files; `/proc` shows all processes as root's; access control lists cannot name others than root; programs of 32 bits see
//! no recorded owners unless they use `statx`.
//!
//! The supervisor is not among the command's processes, which can neither see nor stop it. It works with the rights that
//! the command has on files, and one more: to look into the command's processes.

mod calls;
mod files;
mod ids;
mod process;
mod supervisor;
pub(super) mod system;

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use rustix::process::{Pid, Signal, fchdir, set_parent_process_death_signal, umask};
use rustix::thread::{
    CapabilitySet, CapabilitySets, LinkNameSpaceType, capabilities, move_into_link_name_space, set_capabilities,
};

use self::files::Files;
use self::ids::{Ids, Threads};
use self::process::Processes;
use self::supervisor::Supervisor;
use super::error::{During, Failure};
use super::spec::{RootMount, RunSpec};
use super::system::{Fork, exit_now, fork, wait_for};
use crate::owners::{self, Inodes, Paths};

/// The supervisor, as its stage sees it.
#[derive(Debug)]
pub(super) struct Recorder {
    pid: Pid,
    /// Where the listener goes.
    socket: UnixStream,
    /// What the supervisor died of.
    complaint: UnixStream,
}

impl Recorder {
    /// Starts it. To be called before any namespace is made and the root is mounted.
    pub(super) fn start(spec: &RunSpec) -> Result<Self, Failure> {
        let what = || "starting the supervisor that records owners".to_owned();
        let (tree, below) = match &spec.root {
            RootMount::Overlay { lowers, upper, .. } => (upper.clone(), lowers.clone()),
            RootMount::Directory(tree) => (tree.clone(), vec![tree.clone()]),
        };
        let (socket, theirs) = UnixStream::pair().during(what)?;
        let (complaint, complaint_end) = UnixStream::pair().during(what)?;
        match fork().during(what)? {
            Fork::Parent(pid) => Ok(Self { pid, socket: theirs, complaint }),
            Fork::Child => {
                drop((theirs, complaint));
                let outcome = supervise(spec, &tree, &below, &socket);
                if let Err(failure) = &outcome {
                    let _ = super::wire::send(&complaint_end, failure);
                }
                exit_now(i32::from(outcome.is_err()))
            }
        }
    }

    /// For process 1.
    pub(super) fn socket(&self) -> &UnixStream {
        &self.socket
    }

    /// Waits for the supervisor to write down what it knows, once the command is gone.
    pub(super) fn finish(self) -> Result<(), Failure> {
        let Self { pid, socket, complaint } = self;
        // A command that never came this far left nobody else to close it.
        drop(socket);
        let said = super::wire::receive::<Failure>(&complaint);
        let status = wait_for(pid).during(|| "waiting for the supervisor that records owners".to_owned())?;
        match (status, said) {
            (0, _) => Ok(()),
            (_, Ok(failure)) => Err(failure),
            (status, Err(_)) => {
                Err(Failure::new(format!("the supervisor that records owners ended with the raw status {status}")))
            }
        }
    }
}

/// Loads the filter into the calling process, and hands over what hears of its calls and the mounts that they are about.
/// From here on, the supervisor answers.
pub(super) fn load(socket: &UnixStream) -> Result<(), Failure> {
    let what = || "loading the filter that tells of owners".to_owned();
    let mounts = openat(CWD, "/proc/self/ns/mnt", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).during(what)?;
    let listener = system::load_listening_filter(&calls::program()).during(what)?;
    send(socket, &[listener.as_fd(), mounts.as_fd()]).during(what)
}

/// Whether this kernel has what is needed: for a trial, by a process with one thread.
pub(super) fn attempt() -> Result<(), Failure> {
    open_proc()?;
    let what = || {
        "loading a filter that tells of calls (another supervisor around this process would be in the way)".to_owned()
    };
    // In another process: nobody would answer its calls.
    match fork().during(what)? {
        Fork::Child => {
            let loaded = system::load_listening_filter(&calls::program());
            exit_now(loaded.map_or_else(|errno| errno.raw_os_error().clamp(1, 255), |_| 0))
        }
        Fork::Parent(pid) => match wait_for(pid).during(what)? {
            0 => Ok(()),
            status => Err(Errno::from_raw_os_error(libc::WEXITSTATUS(status))).during(what),
        },
    }
}

/// `/proc`, which must show this process by the number that the kernel tells us.
fn open_proc() -> Result<OwnedFd, Failure> {
    let proc = openat(CWD, "/proc", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .during(|| "opening /proc".to_owned())?;
    let shown = rustix::fs::readlinkat(&proc, "self", Vec::new()).during(|| "reading /proc/self".to_owned())?;
    let own = rustix::process::getpid().as_raw_nonzero().to_string();
    if shown.as_bytes() != own.as_bytes() {
        return Err(Failure::new(format!(
            "/proc shows another process for this one: expected {own}, found {}; mount a /proc of this pid namespace",
            shown.to_string_lossy()
        )));
    }
    Ok(proc)
}

fn supervise(spec: &RunSpec, tree: &Path, lowers: &[PathBuf], socket: &UnixStream) -> Result<(), Failure> {
    set_parent_process_death_signal(Some(Signal::KILL)).during(|| "tying the supervisor to its stage".to_owned())?;
    let proc = open_proc()?;
    let open = |path: &Path| {
        openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .during(|| format!("opening {}", path.display()))
    };
    let tree_fd = open(tree)?;
    let table = owners::run_table(tree);
    let (Some(folder), Some(name)) = (table.parent(), table.file_name()) else {
        return Err(Failure::new(format!("{} has no folder beside it", tree.display())));
    };
    let folder = open(folder)?;
    let mut below = Paths::default();
    // What is higher counts.
    for lower in lowers.iter().rev() {
        let table = Paths::of_tree(lower).during(|| format!("reading the owners beside {}", lower.display()))?;
        for (path, owner) in table.iter() {
            below.insert(path, owner);
        }
    }
    let earlier = Inodes::of_run(tree).during(|| format!("reading the owners beside {}", tree.display()))?;
    // A command that could not be started.
    let mut fds = receive(socket).during(|| "waiting for the command's filter".to_owned())?.into_iter();
    let (Some(listener), Some(mounts)) = (fds.next(), fds.next()) else { return Ok(()) };
    move_into_link_name_space(mounts.as_fd(), Some(LinkNameSpaceType::Mount))
        .during(|| "entering the command's mounts".to_owned())?;
    fchdir(&proc).during(|| "entering /proc".to_owned())?;
    restrict()?;
    umask(Mode::empty());
    let is_whole = matches!(spec.root, RootMount::Directory(_));
    let mut files = Files::new(tree_fd, is_whole, below).during(|| "looking at the command's root".to_owned())?;
    files.run = earlier;
    let command = Ids::new(spec.uid, spec.gid, spec.groups.clone());
    let mut supervisor =
        Supervisor { listener, processes: Processes::new(proc), threads: Threads::new(command), files };
    supervisor.run().during(|| "answering the command's calls".to_owned())?;
    let bytes = supervisor.files.run.bytes();
    if bytes.is_empty() {
        return Ok(());
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(&folder, name, flags, Mode::from_raw_mode(0o600)).during(|| "writing the owners".to_owned())?;
    std::io::Write::write_all(&mut std::fs::File::from(file), &bytes).during(|| "writing the owners".to_owned())
}

/// What of the rights of root in a user namespace the supervisor keeps.
fn restrict() -> Result<(), Failure> {
    let kept = CapabilitySet::CHOWN
        | CapabilitySet::DAC_OVERRIDE
        | CapabilitySet::DAC_READ_SEARCH
        | CapabilitySet::FOWNER
        | CapabilitySet::FSETID
        | CapabilitySet::SYS_CHROOT
        | CapabilitySet::SYS_PTRACE;
    let held = capabilities(None).during(|| "reading the supervisor's capabilities".to_owned())?.permitted & kept;
    let sets = CapabilitySets { effective: held, permitted: held, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets).during(|| "giving up the supervisor's capabilities".to_owned())
}

pub(super) fn send(socket: &UnixStream, fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::NOBUFS);
    }
    sendmsg(socket, &[IoSlice::new(b"!")], &mut ancillary, SendFlags::NOSIGNAL).map(|_| ())
}

/// The descriptors, one or two; none when the other end is closed.
pub(super) fn receive(socket: &UnixStream) -> Result<Vec<OwnedFd>, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let got = loop {
        match recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            got => break got?,
        }
    };
    if got.bytes == 0 {
        return Ok(Vec::new());
    }
    let mut fds = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    Ok(fds)
}
