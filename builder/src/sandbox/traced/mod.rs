//! RUN for an ordinary user with nothing at all: no namespace, no mount, no capability.
//!
//! The command is traced. A filter lets most of its system calls run at full speed; those that name files, ids or
//! processes stop it, and the tracer answers them as a root in a root file system of its own would see them answered.
//!
//! ```text
//! stage      holds the conversation with the builder; kills the tracer when the builder is gone
//!   tracer   answers calls; the kernel kills all that it traces when it dies
//!     command and all that it starts
//! ```
//!
//! - Most calls the tracer makes itself, on descriptors that it has found by the command's paths (`paths`), and the
//!   command's own call is left out: its answer comes as a notification's, or on older kernels at a stop (`filter`).
//!   `open`, `chdir` and `execve` must happen in the command: it makes them with a path by way of the tracer's descriptor
//!   in place of its own, and gets its registers back afterwards: two stops.
//! - Ids are what a process believes to have (`ids`, `task`); owners and modes that the builder cannot set are recorded on
//!   the files (`owners`).
//! - Programs are loaded with the root's loader, not the machine's (`program`).
//!
//! This keeps a command to its root by decisions of a program and not by a wall: `TRACED.md` says what that protects.

mod attributes;
mod files;
mod filter;
mod ids;
mod memory;
mod merge;
mod owners;
mod paths;
mod program;
mod scratch;
mod sockets;
mod system;
mod task;
mod tracer;
mod world;

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::Mode;
use rustix::pipe::PipeFlags;
use rustix::process::{
    PidfdFlags, Signal, WaitOptions, chdir, getpid, pidfd_open, set_child_subreaper, set_parent_process_death_signal,
    setsid, umask,
};
use rustix::thread::set_no_new_privs;

use super::error::{During, Failure};
use super::places::Places;
use super::spec::{MountSource, Network, RootMount, RunSpec};
use super::stage::End;
use super::system::Fork;
use super::wire::{Answer, send};
use super::{init, interior, recorder, system as stage_system};
use owners::Owners;
use paths::{Place, Root};
use scratch::Scratch;
use system::InTurn;
use task::Credentials;
use tracer::Tracer;
use world::World;

use crate::owners::{self as owned, Owner};

/// A program that does nothing but end: an ELF header, one segment, `exit(0)`.
#[rustfmt::skip]
const NOTHING: [u8; 129] = [
    0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    2, 0, 62, 0, 1, 0, 0, 0, 0x78, 0, 0x40, 0, 0, 0, 0, 0,
    64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 0, 0, 0, 0, 0, 0,
    1, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0x40, 0, 0, 0, 0, 0, 0, 0, 0x40, 0, 0, 0, 0, 0,
    129, 0, 0, 0, 0, 0, 0, 0, 129, 0, 0, 0, 0, 0, 0, 0,
    0, 0x10, 0, 0, 0, 0, 0, 0,
    0xb8, 60, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05,
];

/// The stage's part: takes in what the command leaves behind, starts the tracer and waits for it.
pub(super) fn run(spec: &RunSpec, control: &UnixStream) -> Result<Answer, Failure> {
    let shm = Path::new("/dev/shm");
    let can_write = rustix::fs::access(shm, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK).is_ok();
    let base = if can_write { shm.to_owned() } else { std::env::temp_dir() };
    let RootMount::Directory(root) = &spec.root else {
        return Err(Failure::new("a traced command needs a folder as its root, not an overlay"));
    };
    // In a container the memory is little, and no program runs from it: there is what must not reach a disk, and what is
    // small. What commands fill lies where their root does.
    let root = root.canonicalize().during(|| format!("looking for the root {}", root.display()))?;
    let beside = root.parent().unwrap_or(&root);
    let aside = Aside { memory: Scratch::make(&base)?, disk: Scratch::make(beside)? };
    in_places(spec, &aside, control).map(Answer::Ended)
}

/// Where things are that are shown in the root.
#[derive(Debug)]
struct Aside {
    memory: Scratch,
    disk: Scratch,
}

/// Nothing is mounted, yet commands list the folders that things seem to be mounted in: their names are made as elsewhere.
fn in_places(spec: &RunSpec, aside: &Aside, control: &UnixStream) -> Result<i32, Failure> {
    let RootMount::Directory(root) = &spec.root else {
        return Err(Failure::new("a traced command needs a folder as its root, not an overlay"));
    };
    let places = Places::make(root, &spec.mounts, spec.shm_size_bytes > 0)?;
    let ended = command(spec, aside, control);
    places.remove()?;
    ended
}

fn command(spec: &RunSpec, aside: &Aside, control: &UnixStream) -> Result<i32, Failure> {
    set_child_subreaper(Some(getpid())).during(|| "becoming the parent of lost processes".to_owned())?;
    let tracer = match stage_system::fork().during(|| "starting the tracer".to_owned())? {
        Fork::Child => {
            let _ = set_parent_process_death_signal(Some(Signal::KILL));
            let answer = trace(spec, aside).map_or_else(Answer::Failed, Answer::Ended);
            let _ = send(control, &answer);
            stage_system::exit_now(0)
        }
        Fork::Parent(pid) => pid,
    };
    let process = pidfd_open(tracer, PidfdFlags::empty()).during(|| "watching the tracer".to_owned())?;
    let status = super::stage::wait(tracer, &process, control.as_fd(), End::Killed)?;
    // The kernel kills all that it traced.
    while rustix::process::wait(WaitOptions::empty()).is_ok() {}
    // The tracer has told how the command ended; if not, it was killed.
    if libc::WIFEXITED(status) { Err(Failure::new("the tracer said nothing")) } else { Ok(status) }
}

/// The stage's part of a trial, in an empty folder that is the builder's to remove.
pub(super) fn attempt(folder: &[u8], control: &UnixStream) -> Result<Answer, Failure> {
    let folder = Path::new(OsStr::from_bytes(folder));
    let file = File::options().write(true).create_new(true).mode(0o700).open(folder.join("nothing"));
    let what = || format!("writing a program in {}", folder.display());
    let mut file = file.during(what)?;
    file.write_all(&NOTHING).during(what)?;
    let owner = owned::give_open(file.as_fd(), Owner { uid: 33, gid: 33 });
    if owner.during(|| "recording an owner".to_owned())? != owned::Given::Recorded {
        return Err(Failure::new(format!(
            "files in {} cannot have attributes of the name space `user`",
            folder.display()
        )));
    }
    drop(file);
    let spec = RunSpec::trial(RootMount::Directory(folder.to_owned()), "/nothing", true);
    run(&spec, control)
}

/// Runs the command under a tracer, this process; its raw wait status. What it traces dies with it.
fn trace(spec: &RunSpec, aside: &Aside) -> Result<i32, Failure> {
    let RootMount::Directory(folder) = &spec.root else {
        return Err(Failure::new("a traced command needs a folder as its root, not an overlay"));
    };
    if spec.network != Network::Host {
        return Err(Failure::new(
            "running on another network than the builder's: the rung r6 (a traced process) cannot make a network of its \
             own; leave `--network` out, or run the build where `fluyt doctor` names a better rung",
        ));
    }
    if spec.insecure {
        return Err(Failure::new("`RUN --security=insecure` needs rights that a traced command has not"));
    }
    let root = Root::open(folder, places(spec, aside)?)?;
    // Modes are those that were asked for: what a process masks of them is known.
    umask(Mode::empty());
    let (ready, go) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).during(|| "making a pipe".to_owned())?;
    let (failed, failing) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).during(|| "making a pipe".to_owned())?;
    let (asks, asking) = UnixStream::pair().during(|| "making a pair of sockets".to_owned())?;
    let child = match stage_system::fork().during(|| "starting the command's process".to_owned())? {
        Fork::Child => {
            drop((go, failed, asks));
            let failure = become_command(spec, folder, &ready, &asking);
            let _ = File::from(failing).write_all(&serde_json::to_vec(&failure).unwrap_or_default());
            stage_system::exit_now(125)
        }
        Fork::Parent(child) => child.as_raw_nonzero().get(),
    };
    drop((ready, failing, asking));
    let world = World {
        root,
        owners: Owners::of(folder)?,
        hostname: spec.hostname.clone(),
        first: child,
        processes: RefCell::new(HashMap::new()),
        with_sockets: RefCell::default(),
    };
    let tracer = Tracer::seize(world, child, Credentials::new(0, 0, Vec::new()))?;
    drop(go);
    let tracer = Arc::new(InTurn::new(tracer));
    let status = tracer::run(&tracer, asks)?;
    tracer.lock().world.owners.keep(folder)?;
    match serde_json::from_reader::<_, Failure>(File::from(failed)) {
        Ok(failure) => Err(failure),
        Err(_) => Ok(status),
    }
}

fn become_command(spec: &RunSpec, root: &Path, ready: &impl AsFd, asking: &UnixStream) -> Failure {
    let prepared = || -> Result<String, Failure> {
        set_parent_process_death_signal(Some(Signal::KILL)).during(|| "tying the command to its tracer".to_owned())?;
        // Until the tracer is there.
        let _ = rustix::io::read(ready, &mut [0; 1]);
        stage_system::close_on_exec().during(|| "closing descriptors".to_owned())?;
        setsid().during(|| "starting a session".to_owned())?;
        umask(Mode::from_raw_mode(0o022));
        let null = File::open("/dev/null").during(|| "opening /dev/null".to_owned())?;
        stage_system::set_stdin(null.as_fd()).during(|| "setting the standard input".to_owned())?;
        chdir(root).during(|| format!("entering the root {}", root.display()))?;
        init::limits(spec)?;
        stage_system::reset_signals();
        // What Docker refuses is refused here too; what the tracer answers stops before.
        set_no_new_privs(true).during(|| "giving up new privileges".to_owned())?;
        super::filter::load(super::capabilities::of(spec))?;
        match recorder::system::load_killable_filter(&filter::program(true)) {
            Ok(listener) => {
                recorder::send(asking, &[listener.as_fd()])
                    .during(|| "handing over the filter's listener".to_owned())?;
            }
            // An older kernel, or something around the builder listens already.
            Err(_) => stage_system::load_filter(&filter::program(false))
                .during(|| "loading the filter of a traced command".to_owned())?,
        }
        // From here on every path is one in the root.
        init::enter(spec)?;
        let home = init::home(spec.uid);
        // Played by the tracer: until here this was root, who makes a working folder that is missing.
        init::drop_ids(spec)?;
        Ok(home)
    };
    match prepared() {
        Ok(home) => init::execute(spec, home),
        Err(failure) => failure,
    }
}

/// What is shown in the root besides what is there.
fn places(spec: &RunSpec, aside: &Aside) -> Result<Vec<Place>, Failure> {
    let place = |seen: &str, is: &Path, read_only| Place {
        seen: seen.as_bytes().to_vec(),
        is: is.as_os_str().as_bytes().to_vec(),
        read_only,
    };
    let (scratch, disk) = (aside.memory.path(), aside.disk.path());
    let make_folder_in = |parent: &Path, name: &str, mode: u32| -> Result<PathBuf, Failure> {
        let path = parent.join(name);
        let what = || format!("making the folder {}", path.display());
        std::fs::create_dir(&path).during(what)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).during(what)?;
        Ok(path)
    };
    let make_folder = |name: &str, mode: u32| make_folder_in(scratch, name, mode);
    let make_file = |name: &str, content: &[u8], mode: u32| -> Result<PathBuf, Failure> {
        let path = scratch.join(name);
        let file = File::options().write(true).create_new(true).mode(mode | 0o600).open(&path);
        file.and_then(|mut file| file.write_all(content)).during(|| format!("writing {}", path.display()))?;
        Ok(path)
    };
    let mut places = Vec::new();
    for name in ["/proc", "/sys"] {
        places.push(place(name, Path::new(name), false));
    }
    // A folder with the names that there are elsewhere; each device is the machine's.
    let devices = make_folder("dev", 0o755)?;
    places.push(place("/dev", &devices, false));
    for (name, mode) in [("dev/shm", 0o1777), ("dev/mqueue", 0o1777), ("dev/pts", 0o755)] {
        let _ = make_folder(name, mode)?;
    }
    for (link, target) in interior::LINKS {
        let link = scratch.join(link.trim_start_matches('/'));
        std::os::unix::fs::symlink(target, &link).during(|| format!("making the link {}", link.display()))?;
    }
    for name in interior::DEVICES {
        let _ = make_file(&format!("dev/{name}"), b"", 0o666)?;
        let name = format!("/dev/{name}");
        places.push(place(&name, Path::new(&name), false));
    }
    places.push(place("/dev/shm", &make_folder_in(disk, "shm", 0o1777)?, false));
    places.push(place("/dev/pts", Path::new("/dev/pts"), false));
    // In it there may be one for nobody.
    places.push(place("/dev/pts/ptmx", Path::new("/dev/ptmx"), false));
    let (nothing, empty) = (make_folder("nothing", 0o555)?, make_file("empty", b"", 0o444)?);
    for path in interior::MASKED {
        if let Ok(metadata) = std::fs::metadata(path) {
            let instead = if metadata.is_dir() { &nothing } else { &empty };
            places.push(place(path, instead, true));
        }
    }
    places.push(place("/etc/hosts", &make_file("hosts", &spec.hosts, 0o644)?, false));
    places.push(place("/etc/resolv.conf", &make_file("resolv.conf", &spec.resolv_conf, 0o644)?, false));
    for (number, mount) in spec.mounts.iter().enumerate() {
        let is = match &mount.source {
            MountSource::Tree { root: RootMount::Directory(folder), path, .. } => {
                merge::within(folder, path).during(|| format!("looking for what is shown at {}", mount.target))?
            }
            MountSource::Tree { root: RootMount::Overlay { lowers, .. }, path, .. } => {
                let what = || format!("bringing together what is shown at {}", mount.target);
                // Nothing in these hides what is below: they show a part of the context, and files with other times.
                let found: Vec<PathBuf> = lowers.iter().filter_map(|lower| merge::within(lower, path).ok()).collect();
                match &found[..] {
                    [] => return Err(Failure::new(format!("what is to be shown at {} is not there", mount.target))),
                    [one] if mount.read_only => one.clone(),
                    _ => {
                        let copy = disk.join(format!("tree{number}"));
                        for one in found.iter().rev() {
                            merge::copy(one, &copy).during(what)?;
                        }
                        copy
                    }
                }
            }
            MountSource::File { content, mode, uid, gid } => {
                let path = make_file(&format!("file{number}"), content, 0o600)?;
                let file = File::open(&path).during(|| format!("opening {}", path.display()))?;
                let what = || format!("setting owner and mode of what is shown at {}", mount.target);
                owned::set_mode_open(file.as_fd(), false, *mode).during(what)?;
                owned::give_open(file.as_fd(), Owner { uid: *uid, gid: *gid }).during(what)?;
                path
            }
            MountSource::Memory { mode, .. } => {
                let path = make_folder_in(disk, &format!("memory{number}"), 0o700)?;
                let folder = File::open(&path).during(|| format!("opening {}", path.display()))?;
                // It may be that of a folder in which nobody but root may write.
                owned::set_mode_open(folder.as_fd(), true, *mode)
                    .during(|| format!("setting the mode of what is shown at {}", mount.target))?;
                path
            }
        };
        let is = is.canonicalize().during(|| format!("looking for what is shown at {}", mount.target))?;
        places.push(place(mount.target.trim_end_matches('/'), &is, mount.read_only));
    }
    Ok(places)
}
