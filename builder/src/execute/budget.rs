//! How much of this machine a build may use, as its control group says.

use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use super::schedule;
use crate::sandbox::{Membership, memberships};

/// How many operations run at the same time here.
pub(super) fn slots() -> usize {
    // The standard library reads the processor quota of control groups, of both versions.
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    schedule::slots(cores, memory_limit_bytes())
}

/// How much memory this process and those that it starts may use, where its control group bounds it.
#[must_use]
pub fn memory_limit_bytes() -> Option<u64> {
    memory_bytes(Path::new("/sys/fs/cgroup"), &own_groups())
}

fn own_groups() -> String {
    fs::read_to_string("/proc/self/cgroup").unwrap_or_default()
}

/// The smallest memory limit of the groups that `groups` (of `/proc/self/cgroup`, cgroups(7)) names and of those above them.
fn memory_bytes(mount: &Path, groups: &str) -> Option<u64> {
    let mut least = None;
    for (folder, file) in places(mount, groups) {
        let mut folder = folder.as_path();
        loop {
            let limit = fs::read_to_string(folder.join(file)).ok().and_then(|text| limit(&text));
            least = [least, limit].into_iter().flatten().min();
            match folder.parent() {
                // A process in a container may see the path that its group has outside; then only the root is there.
                Some(parent) if folder != mount => folder = parent,
                _ => break,
            }
        }
    }
    least
}

/// Folders and the name of the limit in them: one hierarchy for all in version 2, one for memory in version 1.
fn places(mount: &Path, groups: &str) -> Vec<(PathBuf, &'static str)> {
    let place = |own: Membership<'_>| {
        let path = own.path.trim_start_matches('/');
        if own.is_of_second_version() {
            return Some((mount.join(path), "memory.max"));
        }
        own.has("memory").then(|| (mount.join("memory").join(path), "memory.limit_in_bytes"))
    };
    memberships(groups).filter_map(place).collect()
}

/// A limit in bytes; none for `max`, and for the number of version 1 that means the same.
fn limit(text: &str) -> Option<u64> {
    text.trim().parse().ok().filter(|bytes| *bytes < 1 << 62)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_limit_above_counts() {
        let mount = tempfile::tempdir().unwrap();
        let group = mount.path().join("a/b");
        fs::create_dir_all(&group).unwrap();
        fs::write(mount.path().join("a/memory.max"), "1000\n").unwrap();
        fs::write(group.join("memory.max"), "max\n").unwrap();
        assert_eq!(memory_bytes(mount.path(), "0::/a/b\n"), Some(1000));
        fs::write(group.join("memory.max"), "500\n").unwrap();
        assert_eq!(memory_bytes(mount.path(), "0::/a/b\n"), Some(500));
        assert_eq!(memory_bytes(mount.path(), "0::/elsewhere/outside\n"), None);
        assert_eq!(memory_bytes(mount.path(), "rubbish"), None);
    }

    #[test]
    fn version_1_has_a_hierarchy_of_its_own() {
        let mount = tempfile::tempdir().unwrap();
        let group = mount.path().join("memory/docker/x");
        fs::create_dir_all(&group).unwrap();
        fs::write(group.join("memory.limit_in_bytes"), "2000\n").unwrap();
        fs::write(mount.path().join("memory/memory.limit_in_bytes"), "9223372036854771712\n").unwrap();
        assert_eq!(memory_bytes(mount.path(), "5:cpu,cpuacct:/docker/x\n4:memory:/docker/x\n"), Some(2000));
    }
}
