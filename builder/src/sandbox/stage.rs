//! The stage: this program started again, to hold the namespaces of one RUN.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use rustix::thread::{CapabilitySet, LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use super::ending::Asked;
use super::error::{During, Failure};
use super::network::Carrier;
use super::places::Places;
use super::recorder::Recorder;
use super::spec::{Network, RunSpec};
use super::system::{self, Fork};
use super::wire::{Answer, Order, receive_order, send};
use super::{chroot, entry, init, mounts, trial};
use crate::owners;

/// The stage's whole command line. Nothing secret stands there: the specification comes over the socket.
pub(super) const STAGE_NAME: &str = "fluyt-stage";

/// How often it is looked whether a command that was asked to end has ended.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };

/// Does the work of the stage if this process was started as one; `None` in every other case.
///
/// To be called first in `main`, while the process has one thread. The answer is the exit code of the process.
pub fn stage() -> Option<ExitCode> {
    let mut arguments = std::env::args_os();
    if arguments.next()? != STAGE_NAME || arguments.next().is_some() {
        return None;
    }
    // Somebody may have given the program this name; nobody gives it a socket by accident as well.
    let kind = rustix::fs::fstat(std::io::stdin()).map(|stat| FileType::from_raw_mode(stat.st_mode));
    if kind != Ok(FileType::Socket) {
        return None;
    }
    // An ignored SIGCHLD, from whoever started the builder, would take the command's status away.
    system::reset_signals();
    let stdin = system::take_stdin();
    // A second descriptor: process 1 gets another standard input before it is done with what can fail.
    let Ok(control) = rustix::io::fcntl_dupfd_cloexec(&stdin, 3).map(UnixStream::from) else {
        return Some(ExitCode::from(2));
    };
    let Ok(order) = receive_order(&control) else {
        return Some(ExitCode::from(2));
    };
    // Found out by /proc, which process 1 does without for a while.
    let _ = (owners::are_recorded(), owners::are_modes_recorded());
    let answer = match order {
        Order::Run(spec) => run(&spec, &control),
        Order::Chroot(spec) => chroot::run(&spec, &control),
        Order::TryChroot(folder) => chroot::attempt(&folder).map(|()| Answer::Works),
        #[cfg(target_arch = "x86_64")]
        Order::Trace(spec) => super::traced::run(&spec, &control),
        #[cfg(target_arch = "x86_64")]
        Order::TryTrace(folder) => super::traced::attempt(&folder, &control),
        #[cfg(not(target_arch = "x86_64"))]
        Order::Trace(_) | Order::TryTrace(_) => Err(Failure::new("commands are traced on x86_64 only")),
        Order::Try => unshare(Network::Host).and_then(|()| trial::attempt(false)).map(|()| Answer::Works),
    };
    let answer = answer.unwrap_or_else(Answer::Failed);
    // A builder that is gone wants no answer.
    Some(if send(&control, &answer).is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn run(spec: &RunSpec, control: &UnixStream) -> Result<Answer, Failure> {
    let carrier = if spec.network == Network::Isolated { Some(Carrier::wait_for_namespace()?) } else { None };
    let recorder = if spec.recorded { Some(Recorder::start(spec)?) } else { None };
    unshare(spec.network)?;
    if spec.network != Network::Host {
        system::loopback_up().during(|| "bringing the loopback device up (CAP_NET_ADMIN is needed)".to_owned())?;
    }
    let carrier = carrier.map(|mut carrier| carrier.connect().map(|()| carrier)).transpose()?;
    let target = mounts::mount_root(&spec.root)?;
    let places = Places::make(&target, &spec.mounts, spec.shm_size_bytes > 0)?;
    let ended = command(spec, &target, control, recorder.as_ref());
    if let Some(recorder) = recorder {
        recorder.finish()?;
    }
    drop(carrier);
    // In this namespace nothing is mounted over the places, and the command is gone.
    places.remove()?;
    ended.map(Answer::Ended)
}

/// Runs process 1 to its end. Returns the raw wait status.
pub(super) fn command(
    spec: &RunSpec,
    root: &Path,
    control: &UnixStream,
    recorder: Option<&Recorder>,
) -> Result<i32, Failure> {
    let (alive, ours) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).during(|| "making a pipe".to_owned())?;
    let pid = match system::fork().during(|| "starting process 1 of the sandbox".to_owned())? {
        Fork::Child => {
            drop(ours);
            let failure = init::become_command(spec, root, &alive, recorder.map(Recorder::socket));
            let _ = send(control, &Answer::Failed(failure));
            system::exit_now(125)
        }
        Fork::Parent(pid) => pid,
    };
    let process = pidfd_open(pid, PidfdFlags::empty()).during(|| "watching process 1".to_owned())?;
    wait(pid, &process, control.as_fd(), End::Asked)
}

/// Joins a new network namespace that we may set up without `CAP_NET_ADMIN`, as root in a container with `CAP_SYS_ADMIN`
/// alone: one that belongs to a user namespace of our own making.
fn another_network() -> Result<(), Failure> {
    let what = || "making a network namespace (without CAP_NET_ADMIN, a user namespace is needed for it)".to_owned();
    let (ready, is_ready) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).during(what)?;
    let (alive, ours) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).during(what)?;
    let pid = match system::fork().during(what)? {
        Fork::Child => {
            drop(ours);
            let made = system::unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNET);
            let errno = made.err().map_or(0, Errno::raw_os_error);
            let _ = rustix::io::write(&is_ready, &errno.to_ne_bytes());
            // Until we are there, or gone.
            let _ = rustix::io::read(&alive, &mut [0u8; 1]);
            system::exit_now(0)
        }
        Fork::Parent(pid) => pid,
    };
    drop((is_ready, alive));
    let join = || {
        let mut errno = [0; size_of::<i32>()];
        rustix::io::read(&ready, &mut errno)?;
        match i32::from_ne_bytes(errno) {
            0 => {}
            errno => return Err(Errno::from_raw_os_error(errno)),
        }
        let path = format!("/proc/{}/ns/net", pid.as_raw_nonzero());
        let namespace = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
    };
    let joined = join().during(what);
    drop(ours);
    let _ = system::wait_for(pid);
    joined
}

/// Leaves the namespaces of the builder.
pub(super) fn unshare(network: Network) -> Result<(), Failure> {
    let mut flags = UnshareFlags::NEWNS | UnshareFlags::NEWPID | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS;
    match network {
        Network::Host => {}
        Network::None if !entry::holds(CapabilitySet::NET_ADMIN) => another_network()?,
        _ => flags |= UnshareFlags::NEWNET,
    }
    // Kernels without control groups have no namespace for them either.
    system::unshare(flags | UnshareFlags::NEWCGROUP)
        .or_else(|_| system::unshare(flags))
        .during(|| "making namespaces (CAP_SYS_ADMIN is needed)".to_owned())?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .during(|| "making the mounts private to the sandbox".to_owned())
}

/// How a command is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It is asked first.
    Asked,
    /// At once.
    Killed,
}

/// Waits for the first process of a command, and ends it when the builder says so or is gone. Returns the raw wait status.
pub(super) fn wait(pid: Pid, process: &OwnedFd, control: BorrowedFd<'_>, end: End) -> Result<i32, Failure> {
    let mut asked: Option<Asked> = None;
    let mut killed = false;
    loop {
        // That the builder is gone is told whatever is watched.
        let watched = if asked.is_some() || killed { PollFlags::empty() } else { PollFlags::IN };
        let mut polled = [
            PollFd::from_borrowed_fd(process.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(if killed { process.as_fd() } else { control }, watched),
        ];
        match poll(&mut polled, asked.as_ref().filter(|_| !killed).map(|_| &LOOK)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno).during(|| "waiting for the command".to_owned()),
        }
        let [ended, told] = polled.map(|fd| fd.revents());
        if !ended.is_empty() {
            return system::wait_for(pid).during(|| "reading the command's status".to_owned());
        }
        // The builder sends nothing after the specification: whatever comes is its end, or its wish that we end. After a
        // second Ctrl-C it is gone, and waits for nobody.
        let is_gone = told.contains(PollFlags::HUP);
        let kills = match &asked {
            _ if killed => false,
            Some(asked) => is_gone || !asked.may_go_on(),
            None if told.is_empty() => false,
            None if end == End::Killed || is_gone => true,
            None => {
                asked = Some(Asked::group(pid));
                false
            }
        };
        if kills {
            pidfd_send_signal(process, Signal::KILL).during(|| "killing the command".to_owned())?;
            killed = true;
        }
    }
}
