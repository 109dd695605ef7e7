//! The builder's side of a RUN: starts the stage, streams both outputs, hears the result.

use std::io::{self, PipeReader, Read};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, fstat, stat};
use rustix::mount::{MountAttrFlags, OpenTreeFlags, open_tree};

use super::error::SandboxError;
use super::groups::Group;
use super::mounts::{Reach, restrict};
use super::rung::Rung;
use super::spec::{Exit, RootMount, RunSpec, Stream};
use super::stage::STAGE_NAME;
use super::wire::{Answer, Order, first_answer, send_order};
use super::{chroot, memory};
use crate::stop::{Cancel, Listener};

/// How long a cancelled stage may take to end by itself; then it is killed, and its command with it.
const CANCEL_GRACE: Duration = Duration::from_secs(5);

/// Bytes read at once from a stream.
const READ_BYTES: usize = 64 * 1024;

/// The signal by which the kernel ends a process for want of memory.
const KILL: i32 = 9;

static PROGRAM: OnceLock<PathBuf> = OnceLock::new();

/// Names the program whose `main` calls [`stage`](super::stage()) first, for a process whose own `main` does not: a test
/// harness, or another program that uses this library. The default is the running program. Only the first call counts.
pub fn set_program(path: PathBuf) {
    let _ = PROGRAM.set(path);
}

/// Runs a command to its end, in namespaces of its own. Blocks; `output` hears both streams as they arrive.
///
/// # Errors
///
/// When the sandbox could not be set up, or its result was lost. A command that fails is an [`Exit`].
pub fn run(spec: &RunSpec, output: &mut dyn FnMut(Stream, &[u8]), cancel: &Cancel) -> Result<Exit, SandboxError> {
    run_on(Rung::Root, spec, output, cancel)
}

/// As [`run`], on a rung of the ladder.
///
/// # Errors
///
/// As [`run`]; also for a rung on which no command runs.
pub fn run_on(
    rung: Rung,
    spec: &RunSpec,
    output: &mut dyn FnMut(Stream, &[u8]),
    cancel: &Cancel,
) -> Result<Exit, SandboxError> {
    check(spec)?;
    if cancel.is_cancelled() {
        return Ok(Exit::Cancelled);
    }
    let told = Box::new(spec.clone());
    let order = match rung {
        Rung::Root | Rung::Rootless | Rung::SingleId => Order::Run(told),
        Rung::Chroot => Order::Chroot(told),
        Rung::Traced => Order::Trace(told),
        Rung::Nothing => {
            let reason = format!("the rung {rung} ({}) runs no commands", rung.title());
            return Err(SandboxError::Specification { reason });
        }
    };
    let group = Some(&spec.resources).filter(|resources| !resources.is_empty()).map(Group::make).transpose();
    let group = group.map_err(|reason| SandboxError::Specification { reason })?;
    let ours = || group.as_ref().and_then(Group::kills).or_else(memory::own_kills);
    let (before, ours_before) = (ours().unwrap_or_else(memory::kills), ours());
    let conversation = converse(&order, group.as_ref(), output, cancel)?;
    if let (None, Rung::Chroot, RootMount::Directory(root)) = (&conversation.answer, rung, &spec.root) {
        chroot::recover(root).map_err(SandboxError::Setup)?;
        chroot::clear(root);
    }
    let ran_out_of_memory = || ours().unwrap_or_else(memory::kills) > before;
    match conversation.answer {
        _ if conversation.cancelled => Ok(Exit::Cancelled),
        Some(Answer::Ended(status)) => {
            let exit = exit(status, ran_out_of_memory);
            // A build tool may go on and fail for what one of its many processes did not do. What the machine as a whole
            // counts may be others'.
            let silent = matches!(exit, Exit::Code(0) | Exit::Signal { out_of_memory: true, .. });
            if !silent && ours() > ours_before {
                output(Stream::Stderr, b"fluyt: the kernel ended a process of this command for want of memory\n");
            }
            Ok(exit)
        }
        // The stage is in the group too.
        None if group.is_some() && ran_out_of_memory() => Ok(Exit::Signal { signal: KILL, out_of_memory: true }),
        Some(Answer::Failed(failure)) => Err(SandboxError::Setup(failure)),
        Some(Answer::Works) | None => Err(SandboxError::Lost { status: conversation.status }),
    }
}

/// What came of one stage.
pub(super) struct Conversation {
    pub(super) answer: Option<Answer>,
    pub(super) cancelled: bool,
    /// How the stage itself ended, in words.
    pub(super) status: String,
}

/// Starts a stage, gives it its order, and hears it out.
pub(super) fn converse(
    order: &Order,
    group: Option<&Group>,
    output: &mut dyn FnMut(Stream, &[u8]),
    cancel: &Cancel,
) -> Result<Conversation, SandboxError> {
    let listener = cancel.listen().map_err(|errno| start("making an event descriptor", errno.into()))?;
    let (control, theirs) = UnixStream::pair().map_err(|source| start("making a socket pair", source))?;
    let (stdout, stdout_end) = io::pipe().map_err(|source| start("making a pipe", source))?;
    let (stderr, stderr_end) = io::pipe().map_err(|source| start("making a pipe", source))?;
    for pipe in [&stdout, &stderr] {
        rustix::io::ioctl_fionbio(pipe, true).map_err(|errno| start("making a pipe non-blocking", errno.into()))?;
    }
    let program = program();
    // A process group of its own: Ctrl-C is for the builder, which then ends the stage in order.
    let stage = Command::new(program)
        .arg0(STAGE_NAME)
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(stdout_end)
        .stderr(stderr_end)
        .process_group(0)
        .spawn()
        .map_err(|source| start("executing the program itself again", source))?;
    let mut stage = Stage(stage);
    if let Some(group) = group {
        group.take(stage.0.id()).map_err(|source| start("putting the stage into its control group", source))?;
    }
    // A stage that is gone already says why on the socket or in its status: go on and hear it.
    let sent = send_order(&control, order);
    let (heard, cancelled) = listen(&mut stage.0, &control, [stdout, stderr], &listener, output)?;
    let status = stage.0.wait().map_err(|source| start("waiting for the stage", source))?;
    let answer = first_answer(&heard);
    match sent {
        Err(source) if answer.is_none() && !cancelled => Err(start("giving the stage its specification", source)),
        _ => Ok(Conversation { answer, cancelled, status: status.to_string() }),
    }
}

/// The program that becomes the stage: this one, on a mount that nobody can write to.
///
/// Process 1 of a sandbox is still this program when the kernel opens the command; an image can have that kept open, and wait
/// for the builder to end to write to it. Where we may not mount, a command finds no `/proc` to do so.
fn program() -> PathBuf {
    static READ_ONLY: OnceLock<Option<OwnedFd>> = OnceLock::new();
    let named = PROGRAM.get().cloned();
    let plain = || named.clone().unwrap_or_else(|| "/proc/self/exe".into());
    let copy = || {
        let path = named.clone().or_else(|| std::fs::read_link("/proc/self/exe").ok())?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let copy = open_tree(CWD, path, flags).ok()?;
        restrict(&descriptor(&copy), MountAttrFlags::MOUNT_ATTR_RDONLY, Reach::Alone).ok()?;
        // The file may have been replaced since we were started.
        let (ours, theirs) = (stat(plain()).ok()?, fstat(&copy).ok()?);
        ((ours.st_dev, ours.st_ino) == (theirs.st_dev, theirs.st_ino)).then_some(copy)
    };
    READ_ONLY.get_or_init(copy).as_ref().map_or_else(plain, descriptor)
}

fn descriptor(fd: &OwnedFd) -> PathBuf {
    format!("/proc/self/fd/{}", fd.as_raw_fd()).into()
}

/// Kills and reaps a stage that an early return leaves behind.
struct Stage(Child);

impl Drop for Stage {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

/// Streams until the stage closes its end of the socket; returns what it said there, and whether it was cancelled.
///
/// The stage closes it last: by then the command and all it started are dead, and what they wrote is in the pipes.
fn listen(
    stage: &mut Child,
    control: &UnixStream,
    pipes: [PipeReader; 2],
    listener: &Listener,
    output: &mut dyn FnMut(Stream, &[u8]),
) -> Result<(Vec<u8>, bool), SandboxError> {
    let [stdout, stderr] = pipes;
    let mut streams = [(Stream::Stdout, Some(stdout)), (Stream::Stderr, Some(stderr))];
    let mut heard = Vec::new();
    let mut deadline: Option<Instant> = None;
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let ready = wait(control, listener, &streams, deadline)?;
        if ready.control {
            let mut control = control;
            match control.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => heard.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A stage that died with unread bytes in its socket.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => break,
                Err(source) => return Err(start("listening to the stage", source)),
            }
        }
        for ((stream, pipe), ready) in streams.iter_mut().zip(ready.streams) {
            if ready && forward(pipe.as_mut(), *stream, &mut buffer, output)? == Flow::Ended {
                *pipe = None;
            }
        }
        match deadline {
            None if ready.cancel => {
                // The stage takes the end of our writes for its order to stop.
                let _ = control.shutdown(std::net::Shutdown::Write);
                deadline = Some(Instant::now() + CANCEL_GRACE);
            }
            Some(deadline) if Instant::now() >= deadline => {
                let _ = stage.kill();
                break;
            }
            _ => {}
        }
    }
    for (stream, pipe) in &mut streams {
        while forward(pipe.as_mut(), *stream, &mut buffer, output)? == Flow::More {}
    }
    Ok((heard, deadline.is_some()))
}

/// What is ready to be read.
struct Ready {
    control: bool,
    cancel: bool,
    streams: [bool; 2],
}

fn wait(
    control: &UnixStream,
    listener: &Listener,
    streams: &[(Stream, Option<PipeReader>); 2],
    deadline: Option<Instant>,
) -> Result<Ready, SandboxError> {
    let timeout = deadline.map(|deadline| {
        let left = deadline.saturating_duration_since(Instant::now());
        Timespec { tv_sec: left.as_secs().try_into().unwrap_or(0), tv_nsec: left.subsec_nanos().into() }
    });
    let idle = PollFlags::empty();
    // A closed pipe stays in the list as a second look at the socket that asks for nothing.
    let watch = |pipe: &Option<PipeReader>| if pipe.is_some() { PollFlags::IN } else { idle };
    let mut polled = [
        PollFd::from_borrowed_fd(control.as_fd(), PollFlags::IN),
        PollFd::from_borrowed_fd(listener.as_fd(), if deadline.is_none() { PollFlags::IN } else { idle }),
        PollFd::from_borrowed_fd(streams[0].1.as_ref().map_or(listener.as_fd(), AsFd::as_fd), watch(&streams[0].1)),
        PollFd::from_borrowed_fd(streams[1].1.as_ref().map_or(listener.as_fd(), AsFd::as_fd), watch(&streams[1].1)),
    ];
    match poll(&mut polled, timeout.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(errno) => return Err(start("waiting for the stage", errno.into())),
    }
    let [control, cancel, stdout, stderr] = polled.map(|fd| !fd.revents().is_empty());
    Ok(Ready {
        control,
        cancel: cancel && deadline.is_none(),
        streams: [stdout && streams[0].1.is_some(), stderr && streams[1].1.is_some()],
    })
}

#[derive(PartialEq, Eq)]
enum Flow {
    More,
    Empty,
    Ended,
}

/// Passes on what a stream holds now, at most one buffer.
fn forward(
    pipe: Option<&mut PipeReader>,
    stream: Stream,
    buffer: &mut [u8],
    output: &mut dyn FnMut(Stream, &[u8]),
) -> Result<Flow, SandboxError> {
    let Some(pipe) = pipe else { return Ok(Flow::Ended) };
    match pipe.read(buffer) {
        Ok(0) => Ok(Flow::Ended),
        Ok(count) => {
            output(stream, &buffer[..count]);
            Ok(Flow::More)
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Flow::Empty),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Flow::More),
        Err(source) => Err(start("reading the command's output", source)),
    }
}

/// Reads a raw wait status.
fn exit(status: i32, ran_out_of_memory: impl Fn() -> bool) -> Exit {
    if libc::WIFSIGNALED(status) {
        let signal = libc::WTERMSIG(status);
        return Exit::Signal { signal, out_of_memory: signal == KILL && ran_out_of_memory() };
    }
    let code = libc::WEXITSTATUS(status).try_into().unwrap_or(u8::MAX);
    if code == 137 && ran_out_of_memory() {
        return Exit::Signal { signal: KILL, out_of_memory: true };
    }
    Exit::Code(code)
}

/// Refuses what the kernel could only refuse with a number.
fn check(spec: &RunSpec) -> Result<(), SandboxError> {
    let refuse = |reason: &str| Err(SandboxError::Specification { reason: reason.to_owned() });
    if spec.argv.is_empty() {
        return refuse("it has no command");
    }
    let nul = |text: &str| text.contains('\0');
    if spec.argv.iter().any(|word| nul(word)) {
        return refuse("an argument of the command holds a zero byte");
    }
    if spec.env.iter().any(|(name, value)| nul(name) || nul(value)) {
        return refuse("a variable holds a zero byte");
    }
    // To the kernel this number means "leave it as it is", and it is root's.
    if [spec.uid, spec.gid].iter().chain(&spec.groups).any(|id| *id == u32::MAX) {
        return refuse("4294967295 is no user or group id");
    }
    if nul(&spec.cwd) || !spec.cwd.starts_with('/') {
        return refuse("the working folder is not an absolute path");
    }
    for mount in &spec.mounts {
        let names = mount.target.split('/').filter(|name| !name.is_empty());
        if nul(&mount.target) || !mount.target.starts_with('/') || names.clone().any(|name| name == "..") {
            return refuse("the target of a mount is not an absolute path without `..`");
        }
        if names.count() == 0 {
            return refuse("a mount would cover the root");
        }
    }
    if let Some(limit) = spec.limits.iter().find(|limit| limit.resource().is_none()) {
        return refuse(&format!("`{}` is no resource that can be limited", limit.name));
    }
    if nul(&spec.hostname) || spec.hostname.len() > 64 {
        return refuse("the host name is longer than the 64 bytes that Linux allows, or holds a zero byte");
    }
    Ok(())
}

fn start(during: &'static str, source: io::Error) -> SandboxError {
    SandboxError::Start { during, source }
}
