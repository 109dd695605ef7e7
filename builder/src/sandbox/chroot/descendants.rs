//! The processes that a command leaves: without a process namespace, each must be found and killed.
//!
//! The stage is the parent of all that lose theirs, so they are all below it. A stage that was killed is nobody's parent any
//! more; then they are told by the root that they have, which they cannot leave.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, getpid, pidfd_open, pidfd_send_signal, set_child_subreaper, wait,
};

use super::super::error::{During, Failure};
use super::super::system;

/// How long processes may take to die before they are looked for again.
const PAUSE: Duration = Duration::from_micros(500);

/// How many times they are looked for. A fork bomb that was measured was gone in 4 rounds.
const ROUNDS_MAX: usize = 20_000;

/// Makes this process the parent of those below it that lose theirs: none can hide by forking twice.
pub(super) fn adopt() -> Result<(), Failure> {
    set_child_subreaper(Some(getpid())).during(|| "becoming the parent of lost processes".to_owned())
}

/// Kills all processes below this one, and returns when there are none.
pub(super) fn kill_all() -> Result<(), Failure> {
    for _ in 0..ROUNDS_MAX {
        // Whoever loses its parent becomes our child before that one can be waited for: without children we are alone.
        if reap()? {
            return Ok(());
        }
        for pid in below(getpid()) {
            kill(pid);
        }
        std::thread::sleep(PAUSE);
    }
    Err(too_fast())
}

/// Kills all processes that have this folder, or one in it, as their root, and returns when there are none.
pub(super) fn kill_within(root: &Path) -> Result<(), Failure> {
    let root = match fs::canonicalize(root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found.during(|| format!("looking at {}", root.display()))?,
    };
    let is_within = |pid: &Pid| root_of(*pid).is_some_and(|at| at.starts_with(&root));
    for _ in 0..ROUNDS_MAX {
        let found: Vec<Pid> = processes().filter_map(Pid::from_raw).filter(is_within).collect();
        if found.is_empty() {
            return Ok(());
        }
        for pid in found {
            if let Ok(process) = pidfd_open(pid, PidfdFlags::empty())
                && is_within(&pid)
            {
                let _ = pidfd_send_signal(process, Signal::KILL);
            }
        }
        std::thread::sleep(PAUSE);
    }
    Err(too_fast())
}

fn too_fast() -> Failure {
    Failure::new("killing what the command left running: new processes came faster than they could be killed")
}

/// The root folder of a process. `None` for one that is dead, and for one that nobody may look at without
/// `CAP_SYS_PTRACE`, as it has changed its user and executed nothing since.
fn root_of(pid: Pid) -> Option<PathBuf> {
    let link = format!("/proc/{}/root", pid.as_raw_nonzero());
    match fs::read_link(&link) {
        Ok(root) => Some(root),
        // Another user's. Whoever may become that user may look.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).ok()?;
            let id = |name: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(name))?;
                line.split_whitespace().next()?.parse::<u32>().ok()
            };
            system::with_file_ids(id("Uid:")?, id("Gid:")?, || fs::read_link(&link)).ok()
        }
        Err(_) => None,
    }
}

fn processes() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Takes the status of every child that is dead; says whether there is no child left.
fn reap() -> Result<bool, Failure> {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) => return Ok(false),
            Err(Errno::CHILD) => return Ok(true),
            Err(errno) => return Err(errno).during(|| "waiting for what the command left running".to_owned()),
        }
    }
}

/// Kills a process if it still is one of ours: the number may be another's by now.
fn kill(pid: Pid) {
    let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { return };
    if is_below(pid, getpid()) {
        let _ = pidfd_send_signal(process, Signal::KILL);
    }
}

fn is_below(pid: Pid, top: Pid) -> bool {
    const DEPTH_MAX: usize = 1 << 16;
    let mut at = pid.as_raw_nonzero().get();
    for _ in 0..DEPTH_MAX {
        match parent_of(at) {
            Some(parent) if parent == top.as_raw_nonzero().get() => return true,
            Some(parent) if parent > 1 => at = parent,
            _ => return false,
        }
    }
    false
}

/// All processes below that one, as they are listed now.
fn below(top: Pid) -> Vec<Pid> {
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for pid in processes() {
        if let Some(parent) = parent_of(pid) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = BTreeSet::new();
    let mut ahead = vec![top.as_raw_nonzero().get()];
    while let Some(pid) = ahead.pop() {
        for child in children.get(&pid).into_iter().flatten() {
            if found.insert(*child) {
                ahead.push(*child);
            }
        }
    }
    found.into_iter().filter_map(Pid::from_raw).collect()
}

/// The fourth field of `/proc/<pid>/stat`. The second is a name that may hold anything, in parentheses.
fn parent_of(pid: i32) -> Option<i32> {
    let bytes = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    text.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_parent_is_found() {
        let ours = rustix::process::getppid().unwrap();
        assert_eq!(parent_of(getpid().as_raw_nonzero().get()), Some(ours.as_raw_nonzero().get()));
        assert!(is_below(getpid(), ours) && !is_below(ours, getpid()));
        assert!(below(ours).contains(&getpid()));
        assert_eq!(parent_of(i32::MAX), None);
    }
}
