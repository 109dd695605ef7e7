//! The kernel's count of processes killed for want of memory.

use std::fs;
use std::path::Path;

use super::groups::memberships;

/// Kills so far: those of our own control group, to which every command belongs, or where the kernel does not show these,
/// those of the whole machine. Only a difference of two readings says something.
pub(super) fn kills() -> u64 {
    own_kills().or_else(|| counter("/proc/vmstat")).unwrap_or(0)
}

/// Kills so far of our own control group, where the kernel shows them.
pub(super) fn own_kills() -> Option<u64> {
    own_groups().iter().find_map(counter)
}

/// The files that may hold the count of our own control group, best first.
fn own_groups() -> Vec<String> {
    let mut files = Vec::new();
    for own in memberships(&fs::read_to_string("/proc/self/cgroup").unwrap_or_default()) {
        if own.is_of_second_version() {
            files.push(format!("/sys/fs/cgroup{}/memory.events", own.path));
        } else if own.has("memory") {
            files.push(format!("/sys/fs/cgroup/memory{}/memory.oom_control", own.path));
        }
    }
    // A container sees its own group as the top of the tree, by whatever name the host knows it.
    files.push("/sys/fs/cgroup/memory/memory.oom_control".to_owned());
    files.push("/sys/fs/cgroup/memory.events".to_owned());
    files
}

/// The count in a file of a control group or of the machine.
pub(super) fn counter(file: impl AsRef<Path>) -> Option<u64> {
    fs::read_to_string(file).ok()?.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}
