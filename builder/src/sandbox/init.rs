//! Process 1: from a fork of the stage to the command.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Gid, Mode, Uid};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, mount_move, unmount};
use rustix::process::{
    Rlimit, Signal, chdir, chroot, pivot_root, set_parent_process_death_signal, setrlimit, setsid, umask,
};
use rustix::thread::UnshareFlags;

use super::error::{During, Failure};
use super::interior::{self, FromHost};
use super::spec::RunSpec;
use super::{capabilities, extra, filter, recorder, system};
use crate::owners::{self, Owner};

/// The codes that shells and other builders use for a command that could not be executed.
pub(super) const NOT_FOUND: i32 = 127;
const NOT_EXECUTABLE: i32 = 126;

/// Where commands are looked for when the environment has no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// As much of a passwd file as is read, in bytes.
const PASSWD_MAX_BYTES: u64 = 1024 * 1024;

/// Sets up the rest of the sandbox and becomes the command. Returns only when the sandbox could not be set up.
///
/// `stage` is a pipe whose other end the stage alone holds.
pub(super) fn become_command(spec: &RunSpec, root: &Path, stage: &OwnedFd, recorder: Option<&UnixStream>) -> Failure {
    match set_up(spec, root, stage, recorder) {
        Ok(home) => execute(spec, home),
        Err(failure) => failure,
    }
}

/// The order matters: the filter needs CAP_SYS_ADMIN, the bounding set CAP_SETPCAP, and the ids CAP_SETUID and CAP_SETGID,
/// before they go. Returns the user's home folder.
fn set_up(spec: &RunSpec, root: &Path, stage: &OwnedFd, recorder: Option<&UnixStream>) -> Result<String, Failure> {
    system::close_on_exec().during(|| "closing descriptors".to_owned())?;
    setsid().during(|| "starting a session".to_owned())?;
    system::unshare(UnshareFlags::NEWNS).during(|| "making a mount namespace".to_owned())?;
    let host = FromHost::take(spec.insecure)?;
    let trees = extra::take(&spec.mounts)?;
    pivot(root)?;
    match system::set_host_name(&spec.hostname) {
        // podman's filter of system calls keeps this one from whoever has no CAP_SYS_ADMIN outside: the container's name stays.
        Err(Errno::PERM) => {}
        set => set.during(|| format!("setting the host name `{}`", spec.hostname))?,
    }
    let files = interior::furnish(spec, host)?;
    extra::furnish(&spec.mounts, trees, files)?;
    umask(Mode::from_raw_mode(0o022));
    streams(spec)?;
    enter(spec)?;
    let home = home(spec.uid);
    let kept = capabilities::of(spec);
    if !spec.insecure {
        capabilities::check(spec.capabilities)?;
        filter::load(kept)?;
    }
    if let Some(recorder) = recorder {
        recorder::load(recorder)?;
    }
    // Few descriptors or processes would be too few for all that stands above; and hard limits cannot be raised below.
    limits(spec)?;
    if spec.insecure {
        let all = capabilities::hold()?;
        drop_ids(spec)?;
        capabilities::keep(all)?;
    } else {
        capabilities::restrict(kept, || drop_ids(spec))?;
    }
    system::reset_signals();
    // Last, because a change of ids clears it.
    set_parent_process_death_signal(Some(Signal::KILL)).during(|| "tying the command to its stage".to_owned())?;
    let mut polled = [PollFd::new(stage, PollFlags::IN)];
    if poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0) {
        return Err(Failure::new("the stage is gone"));
    }
    Ok(home)
}

/// Nothing to read, and streams that the user may open again by name (`/dev/stdout`).
pub(super) fn streams(spec: &RunSpec) -> Result<(), Failure> {
    let null = File::open("/dev/null").during(|| "opening /dev/null".to_owned())?;
    system::set_stdin(null.as_fd()).during(|| "setting the standard input".to_owned())?;
    // Pipes have no owner that could be recorded, and who has one id may open his own.
    if spec.recorded {
        return Ok(());
    }
    let what = || "giving the output streams to the user".to_owned();
    rustix::fs::fchown(std::io::stdout(), Some(Uid::from_raw(spec.uid)), None).during(what)?;
    rustix::fs::fchown(std::io::stderr(), Some(Uid::from_raw(spec.uid)), None).during(what)
}

/// The home folder of a user by the root's `/etc/passwd`; `/` for a user that it does not name.
pub(super) fn home(uid: u32) -> String {
    let mut text = Vec::new();
    // A passwd file that is a device or endless is not worth waiting for.
    if std::fs::metadata("/etc/passwd").is_ok_and(|metadata| metadata.is_file())
        && let Ok(file) = File::open("/etc/passwd")
    {
        let _ = file.take(PASSWD_MAX_BYTES).read_to_end(&mut text);
    }
    let text = String::from_utf8_lossy(&text);
    let entry = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let mut homes = entry.filter_map(|fields| match fields[..] {
        [_, _, id, _, _, home, ..] if id.parse() == Ok(uid) && home.starts_with('/') => Some(home.to_owned()),
        _ => None,
    });
    homes.next().unwrap_or_else(|| "/".to_owned())
}

/// Makes `root` the root of this mount namespace, and forgets the old one.
fn pivot(root: &Path) -> Result<(), Failure> {
    let what = || format!("making {} the root", root.display());
    chdir(root).during(what)?;
    match pivot_root(".", ".") {
        // Both are now mounted at the same place, the old one on top.
        Ok(()) => {
            mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).during(what)?;
            unmount(".", UnmountFlags::DETACH).during(what)?;
        }
        // On the first root of a machine, and under some security modules.
        Err(Errno::INVAL | Errno::PERM | Errno::ACCESS) => {
            mount_move(".", "/").during(what)?;
            chroot(".").during(what)?;
        }
        Err(errno) => return Err(errno).during(what),
    }
    chdir("/").during(what)
}

/// Goes to the working folder; makes what is missing of it.
pub(super) fn enter(spec: &RunSpec) -> Result<(), Failure> {
    let what = || format!("entering the working folder {}", spec.cwd);
    let mut path = std::path::PathBuf::from("/");
    for name in Path::new(&spec.cwd).components().skip(1) {
        path.push(name);
        match rustix::fs::mkdir(&path, Mode::from_raw_mode(0o755)) {
            Ok(()) => {
                owners::give(&path, Owner { uid: spec.uid, gid: spec.gid }).during(what)?;
            }
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno).during(what),
        }
    }
    chdir(&path).during(what)
}

pub(super) fn limits(spec: &RunSpec) -> Result<(), Failure> {
    for limit in &spec.limits {
        let Some(resource) = limit.resource() else { continue };
        let shown = |value: Option<u64>| value.map_or_else(|| "unlimited".to_owned(), |value| value.to_string());
        setrlimit(resource, Rlimit { current: limit.soft, maximum: limit.hard }).during(|| {
            let (soft, hard) = (shown(limit.soft), shown(limit.hard));
            format!(
                "setting the limit {}={soft}:{hard} (above what the builder has, CAP_SYS_RESOURCE is needed)",
                limit.name
            )
        })?;
    }
    Ok(())
}

pub(super) fn drop_ids(spec: &RunSpec) -> Result<(), Failure> {
    // The supervisor knows who the command is.
    if spec.recorded {
        return Ok(());
    }
    let (uid, gid) = (Uid::from_raw(spec.uid), Gid::from_raw(spec.gid));
    let groups: Vec<Gid> = spec.groups.iter().map(|group| Gid::from_raw(*group)).collect();
    rustix::thread::set_thread_groups(&groups).during(|| "setting the supplementary groups".to_owned())?;
    rustix::thread::set_thread_res_gid(gid, gid, gid).during(|| format!("becoming group {}", spec.gid))?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).during(|| format!("becoming user {}", spec.uid))
}

/// Tries to become a program, again for a second where it is open for writing. A thread of ours that unpacked it has closed it
/// by now, but a process that another thread forked meanwhile may hold it still, until it executes its own program.
fn execute_when_written(program: &CStr, argv: &[CString], env: &[CString]) -> Errno {
    let mut tries = 0..100;
    loop {
        let Err(errno) = system::execve(program, argv, env);
        if errno != Errno::TXTBSY || tries.next().is_none() {
            return errno;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Becomes the command, or ends the process with the code of a command that could not be executed.
pub(super) fn execute(spec: &RunSpec, home: String) -> Failure {
    let zero = |_| Failure::new("the command or its environment holds a zero byte");
    let text = |word: &str| CString::new(word).map_err(zero);
    let lists = || -> Result<(Vec<CString>, Vec<CString>), Failure> {
        let argv = spec.argv.iter().map(|word| text(word)).collect::<Result<_, _>>()?;
        let home = Some(("HOME".to_owned(), home)).filter(|_| spec.env.iter().all(|(name, _)| name != "HOME"));
        let last =
            |(at, (name, _)): &(usize, &(String, String))| spec.env.iter().skip(at + 1).all(|(other, _)| other != name);
        let variables = spec.env.iter().enumerate().filter(last).map(|(_, variable)| variable);
        let env =
            variables.chain(&home).map(|(name, value)| text(&format!("{name}={value}"))).collect::<Result<_, _>>()?;
        Ok((argv, env))
    };
    let (argv, env) = match lists() {
        Ok(lists) => lists,
        Err(failure) => return failure,
    };
    let Some(name) = spec.argv.first() else { return Failure::new("there is no command") };
    let path = spec.env.iter().rev().find(|(key, _)| key == "PATH").map_or(DEFAULT_PATH, |(_, value)| value);
    let candidates: Vec<String> = if name.is_empty() {
        Vec::new()
    } else if name.contains('/') {
        vec![name.clone()]
    } else {
        path.split(':').map(|folder| format!("{}/{name}", if folder.is_empty() { "." } else { folder })).collect()
    };
    let mut refusal = Errno::NOENT;
    let mut refused = name.clone();
    for candidate in candidates {
        let Ok(program) = text(&candidate) else { continue };
        let errno = execute_when_written(&program, &argv, &env);
        // A file that may not be executed does not hide a later one that may.
        if !matches!(errno, Errno::NOENT | Errno::NOTDIR) {
            (refusal, refused) = (errno, candidate);
            if errno != Errno::ACCESS {
                break;
            }
        }
    }
    let (code, reason) = match refusal {
        Errno::NOENT if name.contains('/') && Path::new(name).exists() => {
            (NOT_FOUND, "the interpreter or loader that it asks for is not in the image".to_owned())
        }
        Errno::NOENT => (NOT_FOUND, "not found".to_owned()),
        errno => (NOT_EXECUTABLE, std::io::Error::from(errno).to_string()),
    };
    let _ = writeln!(std::io::stderr(), "fluyt: {refused}: {reason}");
    system::exit_now(code)
}
