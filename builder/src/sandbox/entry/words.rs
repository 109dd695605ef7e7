//! Words for what stands in the way of a user namespace, and what would help.

use std::io;

use rustix::io::Errno;

use super::super::error::Failure;
use super::super::trial::Refusal;
use super::number;

fn refusal(reason: impl Into<String>, fix: impl Into<String>) -> Refusal {
    Refusal { reason: reason.into(), fix: fix.into() }
}

pub(super) fn failed(what: &str, error: &io::Error) -> Refusal {
    match error.raw_os_error() {
        Some(errno) => refused(&Failure { what: what.to_owned(), errno, log: String::new() }),
        None => refusal(format!("{what} failed: {error}"), "look into the kernel's log for a process that was killed"),
    }
}

pub(super) fn lacks(capabilities: &[&str]) -> Refusal {
    let flags: Vec<String> =
        capabilities.iter().map(|name| format!("--cap-add {}", name.trim_start_matches("CAP_"))).collect();
    refusal(
        format!("this process is root without {}, and may not map ids", capabilities.join(", ")),
        format!("start the container with `{}`", flags.join(" ")),
    )
}

/// What stands in the way of many ids where not even one is allowed: each alone would not help.
pub(super) fn both(many: &Refusal, one: &Refusal) -> Refusal {
    if many.reason == one.reason {
        return many.clone();
    }
    refusal(format!("{}; and {}", many.reason, one.reason), format!("{}; and {}", one.fix, many.fix))
}

pub(super) fn no_subordinate_ids(user: &str, file: &str, free: u64) -> Refusal {
    let last = free + 65535;
    let fix = if user.bytes().all(|byte| byte.is_ascii_digit()) {
        // usermod knows no user without a name.
        format!("as root: add the line `{user}:{free}:65536` to /etc/subuid and to /etc/subgid")
    } else {
        format!("as root: `usermod --add-subuids {free}-{last} --add-subgids {free}-{last} {user}`")
    };
    refusal(format!("the user {user} has no subordinate ids in {file}"), fix)
}

pub(super) fn no_helper(name: &str) -> Refusal {
    refusal(
        format!("the program `{name}`, which maps subordinate ids, is not installed"),
        "install the package `uidmap` (Debian, Ubuntu), `shadow-utils` (Fedora) or `shadow-uidmap` (Alpine)",
    )
}

pub(super) fn helper_refused(program: &str, said: &str) -> Refusal {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let no_new_privileges =
        status.lines().any(|line| line.starts_with("NoNewPrivs:") && line.trim_end().ends_with('1'));
    let fix = if no_new_privileges {
        "this process may gain no privileges, so that a setuid program does not help: leave out `no-new-privileges`, or \
         set `allowPrivilegeEscalation: true`"
    } else {
        "see that the program is setuid root or has the file capability, and that /etc/subuid and /etc/subgid agree with it"
    };
    refusal(format!("`{program}` refused: {said}"), fix)
}

/// What a scout met. The kernel only says that it does not permit: its settings tell why.
pub(super) fn refused(failure: &Failure) -> Refusal {
    let errno = Errno::from_raw_os_error(failure.errno);
    let set = |path: &str, value: u64| number(path) == Some(value);
    let reason = format!("a trial of a user namespace failed: {failure}");
    if set("/proc/sys/user/max_user_namespaces", 0) {
        return refusal(reason, "as root: `sysctl -w user.max_user_namespaces=15000`");
    }
    if matches!(errno, Errno::NOSPC | Errno::USERS) {
        return refusal(reason, "raise the limits in /proc/sys/user/max_*_namespaces, or build in fewer namespaces");
    }
    if set("/proc/sys/kernel/unprivileged_userns_clone", 0) {
        return refusal(reason, "as root: `sysctl -w kernel.unprivileged_userns_clone=1`");
    }
    if set("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", 1) {
        return refusal(
            reason,
            "as root: install the AppArmor profile for fluyt (examples/), or `sysctl -w \
             kernel.apparmor_restrict_unprivileged_userns=0`",
        );
    }
    let fix = match errno {
        Errno::PERM | Errno::ACCESS | Errno::NOSYS => {
            "in a container: start it with `--security-opt seccomp=unconfined --security-opt apparmor=unconfined`, or under \
             podman; elsewhere: see that the kernel has user namespaces"
        }
        Errno::NODEV => "load the kernel module: `modprobe overlay`",
        Errno::INVAL => "use a kernel with user namespaces and overlays in them (Linux 5.11 or later)",
        _ => "build as root, or in a container that may mount",
    };
    refusal(reason, fix)
}
