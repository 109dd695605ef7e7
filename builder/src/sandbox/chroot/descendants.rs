//! The processes that a command leaves: without a process namespace, each must be found and killed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, getpid, pidfd_open, pidfd_send_signal, set_child_subreaper, wait,
};

use super::super::error::{During, Failure};

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
    Err(Failure::new("killing what the command left running: new processes came faster than they could be killed"))
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
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        if let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok())
            && let Some(parent) = parent_of(pid)
        {
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
