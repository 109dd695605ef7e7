//! Asks a command to end before it is killed: `make`, compilers and package managers remove what they have half made.
//!
//! The processes of the command's own group get SIGTERM, as from a terminal. Its first process is mostly a shell that
//! catches nothing: as process 1 it is not reached by the signal, and it would go on with its next line once what it waits
//! for has ended. So it is stopped meanwhile, and killed when nobody else of its group is left.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// How long a command may take to end; shorter than the builder waits for the stage.
const GRACE: Duration = Duration::from_secs(2);

/// A command that was asked to end.
#[derive(Debug)]
pub(super) struct Asked {
    first: Pid,
    until: Instant,
    /// Whether the first process does something about it itself.
    catches: bool,
}

impl Asked {
    /// Asks the group of the command whose first process this is.
    pub(super) fn group(first: Pid) -> Self {
        let catches = catches(first);
        // Who is gone needs no signal.
        if !catches {
            let _ = kill_process(first, Signal::STOP);
        }
        let _ = kill_process_group(first, Signal::TERM);
        Self { first, until: Instant::now() + GRACE, catches }
    }

    /// Whether there is still something to wait for, and time.
    pub(super) fn may_go_on(&self) -> bool {
        Instant::now() < self.until && (self.catches || has_others(self.first))
    }
}

/// Whether a process has a handler for SIGTERM.
fn catches(process: Pid) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/status", process.as_raw_nonzero())).unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (Signal::TERM.as_raw() - 1) & 1 == 1
}

/// Whether processes of this group run beside its first.
fn has_others(first: Pid) -> bool {
    let first = first.as_raw_nonzero().get();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    numbers.any(|number| number != first && runs_in(number, first))
}

/// Whether a process belongs to a group, and has not ended.
fn runs_in(process: i32, group: i32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{process}/stat")) else { return false };
    // The name may hold anything: what follows its last bracket is the state, the parent and the group.
    let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let is_over = matches!(fields.next(), None | Some("Z" | "X"));
    !is_over && fields.nth(1).and_then(|text| text.parse().ok()) == Some(group)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt as _;
    use std::process::Command;

    use super::*;

    #[test]
    fn a_group_without_its_first_process_is_told_from_one_with_others() {
        let mut first = Command::new("sleep").arg("100").process_group(0).spawn().unwrap();
        let group = Pid::from_child(&first);
        assert!(!catches(group) && !has_others(group));
        let mut other = Command::new("sleep").arg("100").process_group(group.as_raw_nonzero().get()).spawn().unwrap();
        assert!(has_others(group));
        other.kill().unwrap();
        // Dead, and not yet waited for.
        while has_others(group) {
            std::thread::yield_now();
        }
        first.kill().unwrap();
        other.wait().unwrap();
        first.wait().unwrap();
    }
}
