//! The entry into a user namespace: for a process that may not mount, and is root in a namespace of its own that may.
//!
//! ```text
//! this process            fork: a scout
//!                         unshare(CLONE_NEWUSER), but for the one that looks whether root can do without
//! writes the scout's maps  (newuidmap and newgidmap, or directly)
//!                         tries all that a RUN needs: mounts, an overlay that leaves a whiteout, the filter
//! opens the scout's namespace, and once the scout is content, joins it
//! ```
//!
//! A process cannot leave a user namespace again. So a scout goes first, and where it fails nothing has happened. After the
//! entry this is the same process as before, with the same number, terminal and parent: signals and the exit code need
//! nobody to pass them on.
//!
//! Everything that meets files of other ids (unpacked layers, what a killed build left) runs inside, removal too: from outside,
//! a file of a subordinate id cannot even be removed.
//!
//! What commands find there is what root finds, but for two things of the kernel's: a setuid file that is written to loses
//! that bit though `CAP_FSETID` is held, and device nodes cannot be made (those of an image are left out where it is
//! unpacked; its layers stay as they are).

mod ids;
mod words;

use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, OnceLock};

use rustix::fs::{Mode, OFlags, open};
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::process::{
    DumpableBehavior, Pid, Signal, geteuid, kill_process, set_dumpable_behavior, set_parent_process_death_signal,
};
use rustix::thread::{CapabilitySet, LinkNameSpaceType, UnshareFlags, capabilities as held, move_into_link_name_space};

use self::ids::Maps;
use super::error::{During, Failure};
use super::rung::{Rung, Wish};
use super::spec::Network;
use super::system::{self, Fork};
use super::trial::{self, Refusal};
use super::{capabilities, in_memory, recorder, stage, wire};

/// What came of the entry.
#[derive(Debug, Default)]
struct Entry {
    entered: Option<Rung>,
    /// Whether root can run commands where it is, for who waits to hear it.
    as_root: Option<Awaited>,
    /// This process has a mount namespace of its own.
    own_mounts: bool,
    /// Why a rung was not taken, for those that were looked at.
    refused: Vec<(Rung, Refusal)>,
}

/// What a scout says, when somebody asks.
type Awaited = LazyLock<Result<(), Refusal>, Box<dyn FnOnce() -> Result<(), Refusal> + Send>>;

static ENTRY: OnceLock<Entry> = OnceLock::new();

/// Goes into a user namespace where that is the best way to run commands, and `wish` allows it. To be called once, by a
/// process with one thread, before it opens anything.
///
/// Root that can run commands where it is stays there; with all of the usual capabilities it does not wait to find out, as
/// nothing would be better elsewhere. Where the store lies on an overlay, as in a container without a
/// volume, the process gets a mount namespace of its own too, for [`InMemory`](super::InMemory); and where the command
/// `mounts` itself.
pub fn enter(wish: Wish, store: Option<&Path>, mounts: bool) {
    ENTRY.get_or_init(|| {
        let mut entry = attempt(wish);
        let may_mount = entry.entered.is_some() || holds(CapabilitySet::SYS_ADMIN);
        if may_mount && (mounts || store.is_some_and(in_memory::is_needed)) {
            entry.own_mounts = system::unshare(UnshareFlags::NEWNS).is_ok()
                && mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC).is_ok();
        }
        entry
    });
}

/// The user that [`enter_as_another`] makes of this process, by its number here; none where this process may not give
/// others' ids away.
#[must_use]
pub fn another_user() -> Option<u32> {
    let may = geteuid().is_root() && holds(CapabilitySet::SETUID | CapabilitySet::SETGID);
    if may { ids::first_of_another() } else { None }
}

/// Goes into a user namespace in which root is that other user, with as many ids as a user with subordinate ids has: all is as
/// on [`Rung::Rootless`], for somebody else. To be called instead of [`enter`].
///
/// # Errors
/// What stands in the way.
pub fn enter_as_another() -> Result<(), Refusal> {
    let refusal = |reason: &str| Refusal { reason: reason.to_owned(), fix: "run as root".to_owned() };
    let first = another_user().ok_or_else(|| refusal("this process may not become another user"))?;
    go(Rung::Rootless, &Maps::of_another(first))?;
    become_root().map_err(|failure| words::refused(&failure))?;
    let entry = Entry { entered: Some(Rung::Rootless), ..Entry::default() };
    ENTRY.set(entry).map_err(|_| refusal("this process has entered a user namespace before"))
}

/// Takes the ids of the root of a user namespace that this process has not got one of.
fn become_root() -> Result<(), Failure> {
    if geteuid().is_root() {
        return Ok(());
    }
    let (user, group) = (rustix::process::Uid::ROOT, rustix::process::Gid::ROOT);
    rustix::thread::set_thread_groups(&[]).during(|| "setting the supplementary groups".to_owned())?;
    rustix::thread::set_thread_res_gid(group, group, group).during(|| "becoming another group".to_owned())?;
    rustix::thread::set_thread_res_uid(user, user, user).during(|| "becoming another user".to_owned())?;
    // Else what the kernel shows of this process would belong to a root that is not in the namespace.
    set_dumpable_behavior(DumpableBehavior::Dumpable).during(|| "showing this process to itself".to_owned())
}

/// Whether what this process mounts is nobody else's business, and gone with it.
pub(super) fn has_own_mounts() -> bool {
    ENTRY.get().is_some_and(|entry| entry.own_mounts)
}

/// The rung of the user namespace that this process has entered; none where it is in the one that it was started in.
#[must_use]
pub fn entered() -> Option<Rung> {
    ENTRY.get().and_then(|entry| entry.entered)
}

/// Whether root can run commands where it is; `None` when the entry did not look.
pub(super) fn as_root() -> Option<Result<(), Refusal>> {
    Some(LazyLock::force(ENTRY.get()?.as_root.as_ref()?).clone())
}

/// What the entry found about a rung: `None` when it did not look.
pub(super) fn refusal(rung: Rung) -> Option<Refusal> {
    ENTRY.get()?.refused.iter().find(|(refused, _)| *refused == rung).map(|(_, refusal)| refusal.clone())
}

fn attempt(wish: Wish) -> Entry {
    let mut entry = Entry::default();
    match wish.against(Rung::Root) {
        Some(_) => {}
        None => match trial::may_be_root().and_then(|()| look_as_root()) {
            Ok(tried) => match if has_usual_rights() { Ok(()) } else { LazyLock::force(&tried).clone() } {
                Ok(()) => {
                    entry.as_root = Some(tried);
                    return entry;
                }
                Err(refusal) => entry.refused.push((Rung::Root, refusal)),
            },
            Err(refusal) => entry.refused.push((Rung::Root, refusal)),
        },
    }
    for rung in [Rung::Rootless, Rung::SingleId] {
        if wish.against(rung).is_some() {
            continue;
        }
        match Maps::of(rung).and_then(|maps| go(rung, &maps)) {
            Ok(()) => {
                entry.entered = Some(rung);
                break;
            }
            Err(refusal) => entry.refused.push((rung, refusal)),
        }
    }
    if let [.., (Rung::Rootless, many), (Rung::SingleId, one)] = &mut entry.refused[..] {
        *many = words::both(many, one);
    }
    entry
}

/// Sends a scout that goes nowhere: it tries what root would do.
fn look_as_root() -> Result<Awaited, Refusal> {
    let (scout, socket) = Scout::send(|socket| {
        let tried = stage::unshare(Network::Host).and_then(|()| trial::attempt(false));
        let _ = wire::send(socket, &tried);
    })?;
    Ok(LazyLock::new(Box::new(move || {
        let heard = hear(&socket, trial::refused);
        drop(scout);
        heard
    })))
}

/// Whether this process has what commands may have elsewhere. A user namespace would give it no more.
fn has_usual_rights() -> bool {
    holds(capabilities::usual(Network::None))
}

/// Sends a scout, and follows it.
fn go(rung: Rung, maps: &Maps) -> Result<(), Refusal> {
    let (scout, ours) = Scout::send(|socket| look(rung, socket))?;
    let hear = |socket| hear(socket, words::refused);
    hear(&ours)?;
    let namespace = open_namespace(scout.0)
        .map_err(|failure| words::failed("opening the user namespace of another process", &failure.into()))?;
    maps.write(scout.0)?;
    // A scout that is gone is heard of next.
    let _ = (&ours).write_all(&[0]);
    hear(&ours)?;
    match move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::User)) {
        Ok(()) => Ok(()),
        Err(errno) => Err(words::refused(&Failure {
            what: "joining a user namespace".to_owned(),
            errno: errno.raw_os_error(),
            log: String::new(),
        })),
    }
}

fn open_namespace(pid: Pid) -> Result<OwnedFd, rustix::io::Errno> {
    let path = PathBuf::from(format!("/proc/{}/ns/user", pid.as_raw_nonzero()));
    open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

/// The process that goes first; gone when this is dropped.
struct Scout(Pid);

impl Scout {
    /// With its end of a socket; ours comes back.
    fn send(work: impl FnOnce(&UnixStream)) -> Result<(Self, UnixStream), Refusal> {
        let (ours, theirs) = UnixStream::pair().map_err(|error| words::failed("making a socket pair", &error))?;
        match system::fork().map_err(|errno| words::failed("starting a process", &errno.into()))? {
            Fork::Child => {
                drop(ours);
                let _ = set_parent_process_death_signal(Some(Signal::KILL));
                work(&theirs);
                system::exit_now(0)
            }
            Fork::Parent(pid) => Ok((Self(pid), ours)),
        }
    }
}

impl Drop for Scout {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::KILL);
        let _ = system::wait_for(self.0);
    }
}

/// What the scout says next: that all is well, or what was refused.
fn hear(socket: &UnixStream, in_words: impl FnOnce(&Failure) -> Refusal) -> Result<(), Refusal> {
    match wire::receive::<Result<(), Failure>>(socket) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(failure)) => Err(in_words(&failure)),
        Err(error) => Err(words::failed("hearing from the process of a trial", &error)),
    }
}

fn look(rung: Rung, socket: &UnixStream) {
    let made = system::unshare(UnshareFlags::NEWUSER).during(|| "making a user namespace".to_owned());
    let goes_on = made.is_ok();
    if wire::send(socket, &made).is_err() || !goes_on {
        return;
    }
    let mut mapped = [0];
    let mut reader = socket;
    if reader.read_exact(&mut mapped).is_err() {
        return;
    }
    if let Err(failure) = become_root() {
        let _ = wire::send(socket, &Err::<(), _>(failure));
        return;
    }
    let supervised = if rung == Rung::SingleId { recorder::attempt() } else { Ok(()) };
    let tried =
        supervised.and_then(|()| stage::unshare(Network::Host)).and_then(|()| trial::attempt(rung == Rung::SingleId));
    let _ = wire::send(socket, &tried);
}

/// Whether this process has all that its user namespace can give it.
pub(super) fn holds(wanted: CapabilitySet) -> bool {
    held(None).is_ok_and(|sets| sets.effective.contains(wanted))
}

/// A number in a file of the kernel's.
fn number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}
