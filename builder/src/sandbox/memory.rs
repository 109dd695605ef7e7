//! The kernel's count of processes killed for want of memory.

use std::fs;

/// Kills so far, as far as the kernel lets us see: those of our own control group, and those of the whole machine.
/// Only a difference of two readings says something.
pub(super) fn kills() -> u64 {
    let own = own_groups().into_iter().filter_map(|file| counter(&file)).max();
    own.unwrap_or(0).saturating_add(counter("/proc/vmstat").unwrap_or(0))
}

/// The files that may hold the count of our own control group: version 1 and 2, as the host and as a container see it.
fn own_groups() -> Vec<String> {
    let mut files =
        vec!["/sys/fs/cgroup/memory/memory.oom_control".to_owned(), "/sys/fs/cgroup/memory.events".to_owned()];
    for line in fs::read_to_string("/proc/self/cgroup").unwrap_or_default().lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        match (fields.next(), fields.next()) {
            (Some(""), Some(path)) => files.push(format!("/sys/fs/cgroup{path}/memory.events")),
            (Some(controllers), Some(path)) if controllers.split(',').any(|name| name == "memory") => {
                files.push(format!("/sys/fs/cgroup/memory{path}/memory.oom_control"));
            }
            _ => {}
        }
    }
    files
}

fn counter(file: &str) -> Option<u64> {
    fs::read_to_string(file).ok()?.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}
