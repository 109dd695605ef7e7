//! Which ids a user namespace gets, and how its maps are written.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::process::{Pid, getegid, geteuid};
use rustix::thread::CapabilitySet;

use super::super::rung::Rung;
use super::super::trial::Refusal;
use super::words;

/// A run of ids that stand for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    inside: u64,
    outside: u64,
    count: u64,
}

impl Range {
    fn line(self) -> String {
        format!("{} {} {}\n", self.inside, self.outside, self.count)
    }
}

/// The maps of a new user namespace.
#[derive(Debug)]
pub(super) struct Maps {
    users: Vec<Range>,
    groups: Vec<Range>,
    by: By,
}

/// Who writes them.
#[derive(Debug, PartialEq, Eq)]
enum By {
    /// We: root, which may map all ids that it has.
    Root,
    /// We: one id is everyone's right, without groups.
    Anyone,
    /// The two programs that may, by what root wrote into `/etc/subuid`.
    Helpers,
}

impl Maps {
    /// Those of a rung here.
    pub(super) fn of(rung: Rung) -> Result<Self, Refusal> {
        let (user, group) = (geteuid().as_raw(), getegid().as_raw());
        if rung == Rung::SingleId {
            let one = |id: u32| vec![Range { inside: 0, outside: id.into(), count: 1 }];
            return Ok(Self { users: one(user), groups: one(group), by: By::Anyone });
        }
        if geteuid().is_root() {
            let needed = [
                (CapabilitySet::SETUID, "CAP_SETUID"),
                (CapabilitySet::SETGID, "CAP_SETGID"),
                (CapabilitySet::SETFCAP, "CAP_SETFCAP"),
            ];
            let lacking: Vec<&str> =
                needed.into_iter().filter(|(capability, _)| !super::holds(*capability)).map(|(_, name)| name).collect();
            if !lacking.is_empty() {
                return Err(words::lacks(&lacking));
            }
            return Ok(Self { users: own("uid_map")?, groups: own("gid_map")?, by: By::Root });
        }
        let name = name_of(user);
        let users = subordinate("/etc/subuid", user, name.as_deref());
        let groups = subordinate("/etc/subgid", user, name.as_deref());
        let shown = name.clone().unwrap_or_else(|| user.to_string());
        if users.is_empty() || groups.is_empty() {
            let file = if users.is_empty() { "/etc/subuid" } else { "/etc/subgid" };
            return Err(words::no_subordinate_ids(&shown, file, free_range()));
        }
        Ok(Self { users: above(user, &users), groups: above(group, &groups), by: By::Helpers })
    }

    /// Those of a namespace in which root is another user than this process, which has to be root here.
    pub(super) fn of_another(first: u32) -> Self {
        let range = || vec![Range { inside: 0, outside: first.into(), count: IDS_OF_ANOTHER }];
        Self { users: range(), groups: range(), by: By::Root }
    }

    /// Gives them to the new namespace of another process.
    pub(super) fn write(&self, pid: Pid) -> Result<(), Refusal> {
        let process = PathBuf::from(format!("/proc/{}", pid.as_raw_nonzero()));
        let put = |name: &str, text: &str| {
            // In one call: the kernel takes no second one.
            fs::write(process.join(name), text)
                .map_err(|error| words::failed(&format!("writing the {name} of a user namespace"), &error))
        };
        let text = |ranges: &[Range]| ranges.iter().map(|range| range.line()).collect::<String>();
        match &self.by {
            By::Helpers => {
                help("newuidmap", pid, &self.users)?;
                help("newgidmap", pid, &self.groups)
            }
            by => {
                if *by == By::Anyone {
                    put("setgroups", "deny")?;
                }
                put("uid_map", &text(&self.users))?;
                put("gid_map", &text(&self.groups))
            }
        }
    }
}

/// How many ids another user has: those of a system, `nobody` among them.
const IDS_OF_ANOTHER: u64 = 65_536;

/// An id that nobody has, with as many behind it; where there are not as many ids, the first that is not root's.
const UNUSED_ID: u64 = 0x7000_0000;

/// The first of the ids that another user gets here.
pub(super) fn first_of_another() -> Option<u32> {
    let has = |map: &str, first: u64| {
        let ranges = own(map).unwrap_or_default();
        // Whoever has several ranges, as a user with subordinate ids, has one behind the other.
        let end = ranges.iter().fold(0, |end, range| if range.inside == end { end + range.count } else { end });
        end >= first + IDS_OF_ANOTHER
    };
    let first = [UNUSED_ID, 1].into_iter().find(|first| has("uid_map", *first) && has("gid_map", *first))?;
    u32::try_from(first).ok()
}

/// Our own ids, each as itself.
fn own(map: &str) -> Result<Vec<Range>, Refusal> {
    let path = format!("/proc/self/{map}");
    let text = fs::read_to_string(&path).map_err(|error| words::failed(&format!("reading {path}"), &error))?;
    let range = |line: &str| {
        let mut numbers = line.split_whitespace().map(str::parse::<u64>);
        match (numbers.next(), numbers.next(), numbers.next()) {
            (Some(Ok(inside)), Some(Ok(_)), Some(Ok(count))) => Some(Range { inside, outside: inside, count }),
            _ => None,
        }
    };
    Ok(text.lines().filter_map(range).collect())
}

/// Root is ourselves, and the subordinate ids follow.
fn above(own: u32, subordinate: &[(u64, u64)]) -> Vec<Range> {
    let mut ranges = vec![Range { inside: 0, outside: own.into(), count: 1 }];
    let mut inside = 1;
    for (outside, count) in subordinate {
        ranges.push(Range { inside, outside: *outside, count: *count });
        inside += count;
    }
    ranges
}

/// The ranges that a file gives to a user: the first id and how many.
fn subordinate(path: &str, user: u32, name: Option<&str>) -> Vec<(u64, u64)> {
    let found = read_subordinate(&fs::read_to_string(path).unwrap_or_default(), user, name);
    if !found.is_empty() {
        return found;
    }
    // Where users are not in files, their ids are not either: ask those who know.
    let mut command = Command::new("getsubids");
    if path.ends_with("gid") {
        command.arg("-g");
    }
    command.arg(name.map_or_else(|| user.to_string(), str::to_owned));
    let Ok(output) = command.stderr(Stdio::null()).stdin(Stdio::null()).output() else { return Vec::new() };
    let line = |line: &str| {
        let mut words = line.split_whitespace().rev();
        let (count, first) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        Some((first, count))
    };
    String::from_utf8_lossy(&output.stdout).lines().filter_map(line).collect()
}

fn read_subordinate(text: &str, user: u32, name: Option<&str>) -> Vec<(u64, u64)> {
    let line = |line: &str| {
        let mut fields = line.trim().split(':');
        let (owner, first, count) = (fields.next()?, fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        let ours = name == Some(owner) || owner.parse() == Ok(user);
        (ours && count > 0).then_some((first, count))
    };
    text.lines().filter_map(line).collect()
}

/// The first id above all that are given away, as `useradd` chooses it.
fn free_range() -> u64 {
    let ends = ["/etc/subuid", "/etc/subgid"].into_iter().flat_map(|path| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let end = |line: &str| {
            let mut fields = line.trim().split(':').skip(1).map(str::parse::<u64>);
            Some(fields.next()?.ok()? + fields.next()?.ok()?)
        };
        text.lines().filter_map(end).collect::<Vec<_>>()
    });
    ends.max().unwrap_or(0).max(100_000)
}

/// The name of a user.
fn name_of(user: u32) -> Option<String> {
    let named = |text: &str| {
        text.lines().find_map(|line| {
            let mut fields = line.split(':');
            let (name, id) = (fields.next()?, fields.nth(1)?);
            (id.parse() == Ok(user)).then(|| name.to_owned())
        })
    };
    fs::read_to_string("/etc/passwd").ok().and_then(|text| named(&text)).or_else(|| {
        let output = Command::new("getent").args(["passwd", &user.to_string()]).stdin(Stdio::null()).output().ok()?;
        named(&String::from_utf8_lossy(&output.stdout))
    })
}

fn help(program: &str, pid: Pid, ranges: &[Range]) -> Result<(), Refusal> {
    let numbers = ranges.iter().flat_map(|range| [range.inside, range.outside, range.count]);
    let output = Command::new(program)
        .arg(pid.as_raw_nonzero().to_string())
        .args(numbers.map(|number| number.to_string()))
        .stdin(Stdio::null())
        .output()
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => words::no_helper(program),
            _ => words::failed(&format!("starting {program}"), &error),
        })?;
    if output.status.success() {
        return Ok(());
    }
    Err(words::helper_refused(program, String::from_utf8_lossy(&output.stderr).trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subordinate_ids_are_read_by_name_and_by_number() {
        let text = "anna:100000:65536\n# a note\nben:165536:65536\n1000:300000:10\nanna:500000:5\nanna:7:0\nanna:x:1\n";
        assert_eq!(read_subordinate(text, 1000, Some("anna")), [(100_000, 65536), (300_000, 10), (500_000, 5)]);
        assert_eq!(read_subordinate(text, 1001, Some("ben")), [(165_536, 65536)]);
        assert_eq!(read_subordinate(text, 1002, None), []);
    }

    #[test]
    fn root_is_ourselves_and_the_subordinate_ids_follow() {
        let text: String = above(1000, &[(100_000, 65536), (300_000, 10)]).into_iter().map(Range::line).collect();
        assert_eq!(text, "0 1000 1\n1 100000 65536\n65537 300000 10\n");
    }
}
