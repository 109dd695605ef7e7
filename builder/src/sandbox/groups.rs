//! Limits of memory and processors for one command: a control group of its own, where the machine lets us make one.
//!
//! Nothing else of the sandbox needs control groups. In version 1 each controller has a tree of its own, and a group with
//! processes may have groups below it: ours is one of those. In version 2 a group with processes gives no controllers to those
//! below: ours stands beside that of the builder, but only where the builder's group sets no limit itself, which ours would escape.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::id;
use std::sync::atomic::{AtomicU32, Ordering};

use serde::{Deserialize, Serialize};

use super::memory;

/// The most that a command may use of the machine; none is no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
    /// Memory and swap together, in bytes; [`u64::MAX`] is no limit. When it is not given: twice the memory.
    pub memory_and_swap_bytes: Option<u64>,
    /// Weight beside other groups when processors are scarce; 1024 is usual.
    pub cpu_shares: Option<u64>,
    /// Processor time in each period, in microseconds.
    pub cpu_quota_us: Option<u64>,
    /// That period, in microseconds; 100000 when it is not given.
    pub cpu_period_us: Option<u64>,
    /// Processors, as `0-3,5`.
    pub processors: Option<String>,
    /// Memory nodes, in the same way.
    pub memory_nodes: Option<String>,
}

/// The kernel's own period, in microseconds.
const PERIOD_US: u64 = 100_000;

/// How often a group's folder is tried to be removed: a process that is dead may still be counted for an instant.
const REMOVALS_MAX: u32 = 50;

impl Resources {
    /// Whether nothing is limited.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a group with these limits can be made here, found out by making one.
    ///
    /// # Errors
    /// Why not, in a few words.
    pub fn check(&self) -> Result<(), String> {
        Group::make(self).map(drop)
    }

    /// Whether all values are ones that this machine can have.
    ///
    /// # Errors
    /// A sentence about the first that is not.
    pub fn values_are_possible(&self) -> Result<(), String> {
        for (asked, there, what) in [
            (&self.processors, "/sys/devices/system/cpu/online", "processors"),
            (&self.memory_nodes, "/sys/devices/system/node/online", "memory nodes"),
        ] {
            let Some(asked) = asked else { continue };
            let there = read(Path::new(there)).unwrap_or_default();
            // A machine that does not tell has whatever the kernel takes.
            let is_there = |number: u32| there.is_empty() || numbers(&there).is_some_and(|all| all.contains(&number));
            if !numbers(asked).is_some_and(|asked| asked.into_iter().all(is_there)) {
                let all = if there.is_empty() { String::new() } else { format!(", and of {there}, which are here") };
                return Err(format!(
                    "the {what} `{asked}` cannot be used: expected numbers and ranges as in `0-3,5`{all}"
                ));
            }
        }
        Ok(())
    }

    fn controllers(&self) -> Vec<&'static str> {
        let cpu = self.cpu_shares.is_some() || self.cpu_quota_us.is_some() || self.cpu_period_us.is_some();
        let memory = self.memory_bytes.is_some() || self.memory_and_swap_bytes.is_some();
        let sets = self.processors.is_some() || self.memory_nodes.is_some();
        [("memory", memory), ("cpu", cpu), ("cpuset", sets)]
            .into_iter()
            .filter(|(_, asked)| *asked)
            .map(|(name, _)| name)
            .collect()
    }

    /// The most memory and swap together.
    fn together(&self) -> Option<u64> {
        self.memory_and_swap_bytes.or_else(|| self.memory_bytes.map(|bytes| bytes.saturating_mul(2)))
    }
}

/// The numbers that a list such as `0-3,5` names; none for what is no such list.
fn numbers(list: &str) -> Option<std::collections::BTreeSet<u32>> {
    /// More than the kernel can be built for.
    const NUMBER_MAX: u32 = 1 << 16;
    let mut all = std::collections::BTreeSet::new();
    for range in list.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u32, u32) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last > NUMBER_MAX {
            return None;
        }
        all.extend(first..=last);
    }
    Some(all)
}

/// A control group, gone when this is dropped.
#[derive(Debug)]
pub(super) struct Group {
    folders: Vec<PathBuf>,
}

impl Group {
    /// Makes one.
    pub(super) fn make(resources: &Resources) -> Result<Self, String> {
        let read = |path: &str| {
            fs::read_to_string(path)
                .map_err(|error| format!("the kernel does not tell of control groups ({path}: {error})"))
        };
        let layout = Layout { own: read("/proc/self/cgroup")?, mounts: read("/proc/self/mountinfo")? };
        Self::make_in(&layout, resources)
    }

    fn make_in(layout: &Layout, resources: &Resources) -> Result<Self, String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("fluyt-{}-{}", id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let mut group = Self { folders: Vec::new() };
        let mut later = Vec::new();
        for controller in resources.controllers() {
            match layout.first_version(controller) {
                Some(own) => {
                    let folder = own.join(&name);
                    group.add(&folder)?;
                    set_first_version(&own, &folder, controller, resources)?;
                }
                None => later.push(controller),
            }
        }
        if !later.is_empty() {
            let (own, top) = layout
                .second_version()
                .ok_or_else(|| format!("this machine shows no control groups for {}", later.join(" and ")))?;
            let folder = parent_for(&own, &top, &later)?.join(&name);
            group.add(&folder)?;
            set_second_version(&folder, &later, resources)?;
        }
        Ok(group)
    }

    fn add(&mut self, folder: &Path) -> Result<(), String> {
        fs::create_dir(folder).map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => "this user may not make control groups".to_owned(),
            io::ErrorKind::ReadOnlyFilesystem => "control groups are read-only here, as in most containers".to_owned(),
            _ => format!("a control group cannot be made ({}: {error})", folder.display()),
        })?;
        self.folders.push(folder.to_owned());
        Ok(())
    }

    /// Puts a process in, and so all that it will start.
    pub(super) fn take(&self, process: u32) -> io::Result<()> {
        self.folders.iter().try_for_each(|folder| fs::write(folder.join("cgroup.procs"), process.to_string()))
    }

    /// How often the kernel killed one of its processes for want of memory; none when it does not count that.
    pub(super) fn kills(&self) -> Option<u64> {
        let files =
            self.folders.iter().flat_map(|folder| [folder.join("memory.events"), folder.join("memory.oom_control")]);
        files.into_iter().find_map(|file| memory::counter(&file))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for folder in &self.folders {
            for _ in 0..REMOVALS_MAX {
                match fs::remove_dir(folder) {
                    Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                        std::thread::sleep(std::time::Duration::from_millis(2));
                    }
                    _ => break,
                }
            }
        }
    }
}

/// A group that a process is in: a line of `/proc/PID/cgroup` (cgroups(7)).
#[derive(Clone, Copy, Debug)]
pub struct Membership<'a> {
    /// Names joined by commas; none in version 2.
    controllers: &'a str,
    /// The group's path in its tree, as the reader of the file sees it.
    pub path: &'a str,
}

impl Membership<'_> {
    /// Whether it is of the one tree of version 2.
    #[must_use]
    pub fn is_of_second_version(&self) -> bool {
        self.controllers.is_empty()
    }

    /// Whether it is of this controller's tree in version 1.
    #[must_use]
    pub fn has(&self, controller: &str) -> bool {
        self.controllers.split(',').any(|name| name == controller)
    }
}

/// The groups that `cgroup`, the content of a `/proc/PID/cgroup`, names.
pub fn memberships(cgroup: &str) -> impl Iterator<Item = Membership<'_>> {
    cgroup.lines().filter_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        Some(Membership { controllers, path })
    })
}

/// Where control groups are, in the kernel's words.
#[derive(Debug)]
struct Layout {
    /// `/proc/self/cgroup`.
    own: String,
    /// `/proc/self/mountinfo`.
    mounts: String,
}

impl Layout {
    /// Our group's folder in the tree of this controller, in version 1.
    fn first_version(&self, controller: &str) -> Option<PathBuf> {
        let has = |list: &str| list.split(',').any(|name| name == controller);
        let own = memberships(&self.own).find(|own| own.has(controller))?.path;
        let (root, place) =
            self.mounts("cgroup").find(|(_, _, options)| has(options)).map(|(root, place, _)| (root, place))?;
        Some(inside(root, place, own))
    }

    /// Our group's folder in the one tree of version 2, and the top of what is shown of it.
    fn second_version(&self) -> Option<(PathBuf, PathBuf)> {
        let own = memberships(&self.own).find(Membership::is_of_second_version)?.path;
        let (root, place, _) = self.mounts("cgroup2").next()?;
        Some((inside(root, place, own), place.into()))
    }

    /// Of the mounts of a kind: root, place and options.
    fn mounts(&self, kind: &str) -> impl Iterator<Item = (&str, &str, &str)> {
        self.mounts.lines().filter_map(move |line| {
            let (before, after) = line.split_once(" - ")?;
            let mut after = after.split(' ');
            let options = (after.next() == Some(kind)).then(|| after.nth(1))??;
            let mut before = before.split(' ').skip(3);
            Some((before.next()?, before.next()?, options))
        })
    }
}

/// A group's folder. A container shows its own group as the top, and the kernel may call it by its whole path.
fn inside(root: &str, place: &str, group: &str) -> PathBuf {
    let below = Path::new(group).strip_prefix(root).unwrap_or(Path::new(""));
    Path::new(place).join(below)
}

fn read(file: &Path) -> Option<String> {
    fs::read_to_string(file).ok().map(|text| text.trim().to_owned())
}

fn write(file: &Path, value: &str) -> Result<(), String> {
    let name = file.file_name().unwrap_or_default().display();
    fs::write(file, value).map_err(|error| format!("the kernel refused the limit `{name}` of {value}: {error}"))
}

fn set_first_version(own: &Path, folder: &Path, controller: &str, resources: &Resources) -> Result<(), String> {
    let set = |name: &str, value: Option<u64>| match value {
        Some(value) => write(&folder.join(name), &value.to_string()),
        None => Ok(()),
    };
    match controller {
        "memory" => {
            set("memory.limit_in_bytes", resources.memory_bytes)?;
            let both = folder.join("memory.memsw.limit_in_bytes");
            match resources.together() {
                // Kernels may not count swap; who did not ask for a limit of it does not miss it.
                Some(_) if resources.memory_and_swap_bytes.is_none() && !both.exists() => Ok(()),
                Some(u64::MAX) => write(&both, "-1"),
                Some(bytes) => write(&both, &bytes.to_string()),
                None => Ok(()),
            }
        }
        "cpu" => {
            set("cpu.shares", resources.cpu_shares)?;
            set("cpu.cfs_period_us", resources.cpu_period_us)?;
            set("cpu.cfs_quota_us", resources.cpu_quota_us)
        }
        _ => {
            // Both must be there before a process is.
            for (name, asked) in [("cpuset.cpus", &resources.processors), ("cpuset.mems", &resources.memory_nodes)] {
                let value = asked.clone().or_else(|| read(&own.join(name))).unwrap_or_default();
                write(&folder.join(name), &value)?;
            }
            Ok(())
        }
    }
}

fn set_second_version(folder: &Path, controllers: &[&str], resources: &Resources) -> Result<(), String> {
    let set = |name: &str, value: Option<String>| value.map_or(Ok(()), |value| write(&folder.join(name), &value));
    if controllers.contains(&"memory") {
        set("memory.max", resources.memory_bytes.map(|bytes| bytes.to_string()))?;
        let swap = match (resources.together(), resources.memory_bytes) {
            (Some(u64::MAX), _) => Some("max".to_owned()),
            (Some(both), memory) => Some(both.saturating_sub(memory.unwrap_or(0)).to_string()),
            (None, _) => None,
        };
        let file = folder.join("memory.swap.max");
        if resources.memory_and_swap_bytes.is_some() || file.exists() {
            set("memory.swap.max", swap)?;
        }
    }
    if controllers.contains(&"cpu") {
        // From 2..=262144 to 1..=10000, as the runtimes of containers do.
        let weight = resources.cpu_shares.map(|shares| 1 + (shares.clamp(2, 262_144) - 2) * 9_999 / 262_142);
        set("cpu.weight", weight.map(|weight| weight.to_string()))?;
        if resources.cpu_quota_us.is_some() || resources.cpu_period_us.is_some() {
            let quota = resources.cpu_quota_us.map_or_else(|| "max".to_owned(), |quota| quota.to_string());
            let period = resources.cpu_period_us.unwrap_or(PERIOD_US);
            set("cpu.max", Some(format!("{quota} {period}")))?;
        }
    }
    if controllers.contains(&"cpuset") {
        set("cpuset.cpus", resources.processors.clone())?;
        set("cpuset.mems", resources.memory_nodes.clone())?;
    }
    Ok(())
}

/// The group of version 2 in which one with these controllers can be made: ours, or the nearest above that gives them.
fn parent_for(own: &Path, top: &Path, controllers: &[&str]) -> Result<PathBuf, String> {
    let mut reason =
        format!("the builder's control group gives no limits for {} to groups below it", controllers.join(" and "));
    for folder in own.ancestors().take_while(|folder| folder.starts_with(top)) {
        let lists = |file: &str| {
            let text = read(&folder.join(file)).unwrap_or_default();
            controllers.iter().all(|wanted| text.split(' ').any(|name| name == *wanted))
        };
        if lists("cgroup.subtree_control") {
            return Ok(folder.to_owned());
        }
        if folder == own && lists("cgroup.controllers") {
            let wish: Vec<String> = controllers.iter().map(|name| format!("+{name}")).collect();
            if fs::write(folder.join("cgroup.subtree_control"), wish.join(" ")).is_ok() {
                return Ok(folder.to_owned());
            }
        }
        // A group further up is not under the limits of this one.
        let unlimited =
            |file: &str| read(&folder.join(file)).is_none_or(|text| text.is_empty() || text.starts_with("max"));
        if !["memory.max", "memory.swap.max", "cpu.max", "cpuset.cpus", "cpuset.mems"]
            .iter()
            .all(|file| unlimited(file))
        {
            reason = "the builder's control group has limits itself, and a group for commands would not be under them"
                .to_owned();
            break;
        }
    }
    Err(reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS_OF_BOTH: &str = "32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct\n\
        35 31 0:32 /docker/abc /sys/fs/cgroup/memory ro,relatime - cgroup cgroup rw,memory\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";

    #[test]
    fn groups_are_found_in_both_versions() {
        let layout = Layout {
            own: "4:memory:/docker/abc/one\n1:cpu,cpuacct:/a/b\n0::/user.slice\n".to_owned(),
            mounts: MOUNTS_OF_BOTH.to_owned(),
        };
        assert_eq!(layout.first_version("memory"), Some("/sys/fs/cgroup/memory/one".into()));
        assert_eq!(layout.first_version("cpu"), Some("/sys/fs/cgroup/cpu/a/b".into()));
        assert_eq!(layout.first_version("cpuset"), None);
        let top = Path::new("/sys/fs/cgroup/unified");
        assert_eq!(layout.second_version(), Some((top.join("user.slice"), top.to_owned())));
    }

    #[test]
    fn processors_are_those_of_the_machine() {
        let check = |list: &str| {
            let resources = Resources { processors: Some(list.to_owned()), ..Resources::default() };
            resources.values_are_possible().map_err(|error| error.split(':').next().unwrap_or_default().to_owned())
        };
        assert_eq!(check("0"), Ok(()));
        for wrong in ["60000", "0-60000", "x", "", "0,", "1-0", "-1", "0-4294967295"] {
            assert_eq!(check(wrong), Err(format!("the processors `{wrong}` cannot be used")));
        }
    }

    /// A tree of version 2 in plain files: what is written, and where.
    #[test]
    fn limits_of_the_second_version_are_written_beside_the_builders_group() {
        let folder = tempfile::tempdir().unwrap();
        let top = folder.path();
        let own = top.join("user.slice/session");
        fs::create_dir_all(&own).unwrap();
        fs::write(top.join("user.slice/cgroup.subtree_control"), "cpu memory pids\n").unwrap();
        fs::write(own.join("cgroup.subtree_control"), "\n").unwrap();
        fs::write(own.join("memory.max"), "max\n").unwrap();
        let mounts = format!("41 31 0:38 / {} rw,relatime - cgroup2 cgroup2 rw\n", top.display());
        let layout = Layout { own: "0::/user.slice/session\n".to_owned(), mounts };
        let resources = Resources {
            memory_bytes: Some(64 << 20),
            cpu_quota_us: Some(50_000),
            cpu_shares: Some(1024),
            ..Resources::default()
        };
        let mut group = Group::make_in(&layout, &resources).unwrap();
        let made = std::mem::take(&mut group.folders);
        assert_eq!(made.len(), 1);
        assert_eq!(made[0].parent(), Some(top.join("user.slice").as_path()));
        for (file, expected) in [("memory.max", "67108864"), ("cpu.max", "50000 100000"), ("cpu.weight", "39")] {
            assert_eq!(fs::read_to_string(made[0].join(file)).unwrap(), expected, "{file}");
        }
        fs::write(own.join("memory.max"), "1000000\n").unwrap();
        let refused = Group::make_in(&layout, &resources).unwrap_err();
        assert!(refused.contains("has limits itself"), "{refused}");
        let sets = Resources { processors: Some("0".to_owned()), ..Resources::default() };
        fs::write(own.join("memory.max"), "max\n").unwrap();
        let refused = Group::make_in(&layout, &sets).unwrap_err();
        assert!(refused.contains("gives no limits for cpuset"), "{refused}");
    }
}
