//! What root may do in a RUN: Docker's fourteen capabilities, of which the host's network takes one away, and what the build
//! adds to them or takes from them; or all, where the build was allowed to be insecure.

use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set, configure_capability_in_ambient_set,
    remove_capability_from_bounding_set, set_capabilities, set_keep_capabilities,
};
use serde::{Deserialize, Serialize};

use super::error::{During, Failure};
use super::spec::{Network, RunSpec};

/// A change to the capabilities of a command, by numbers of the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapabilityChange {
    /// One bit for each that is added.
    pub add: u64,
    /// One bit for each that is taken away.
    pub drop: u64,
}

/// Every capability by its number, without `CAP_`.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

impl CapabilityChange {
    /// Reads lists of names, in any case and with or without `CAP_`. `ALL` stands for all that the builder has; what the other
    /// list names is an exception from it.
    ///
    /// # Errors
    /// A sentence, when a name is unknown or both lists want the same.
    pub fn read(add: &[String], drop: &[String]) -> Result<Self, String> {
        let (all_added, added) = masks(add)?;
        let (all_dropped, dropped) = masks(drop)?;
        if all_added && all_dropped {
            return Err("all capabilities are to be added and to be dropped".to_owned());
        }
        if let Some(number) = (0..u64::BITS).find(|number| added & dropped & (1 << number) != 0) {
            let name = NAMES.get(number as usize).copied().unwrap_or_default();
            return Err(format!("{name} is to be added and to be dropped"));
        }
        Ok(Self { add: if all_added { !dropped } else { added }, drop: if all_dropped { !added } else { dropped } })
    }
}

/// Whether `ALL` is in a list, and the bits of the others.
fn masks(names: &[String]) -> Result<(bool, u64), String> {
    let (mut all, mut mask) = (false, 0);
    for name in names {
        let upper = name.trim().to_ascii_uppercase();
        let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
        match NAMES.iter().position(|known| *known == bare) {
            _ if upper == "ALL" => all = true,
            Some(number) => mask |= 1 << number,
            None => return Err(format!("`{name}` is no capability; they are CAP_{}", NAMES.join(", CAP_"))),
        }
    }
    Ok((all, mask))
}

/// The usual set for a network.
pub(super) fn usual(network: Network) -> CapabilitySet {
    let kept = CapabilitySet::CHOWN
        | CapabilitySet::DAC_OVERRIDE
        | CapabilitySet::FSETID
        | CapabilitySet::FOWNER
        | CapabilitySet::MKNOD
        | CapabilitySet::SETGID
        | CapabilitySet::SETUID
        | CapabilitySet::SETFCAP
        | CapabilitySet::SETPCAP
        | CapabilitySet::NET_BIND_SERVICE
        | CapabilitySet::SYS_CHROOT
        | CapabilitySet::KILL
        | CapabilitySet::AUDIT_WRITE;
    match network {
        // Raw packets on the host's own network would reach what other programs send and receive there.
        Network::Host => kept,
        Network::None | Network::Isolated => kept | CapabilitySet::NET_RAW,
    }
}

/// What a command may have: the usual set and the build's change to it.
pub(super) fn of(spec: &RunSpec) -> CapabilitySet {
    let CapabilityChange { add, drop } = spec.capabilities;
    usual(spec.network).union(CapabilitySet::from_bits_retain(add)).difference(CapabilitySet::from_bits_retain(drop))
}

/// Refuses a build that asks by name for a capability that the builder itself has not.
pub(super) fn check(change: CapabilityChange) -> Result<(), Failure> {
    // `ALL` means what there is: it sets bits that stand for nothing yet.
    if change.add >> (u64::BITS - 1) == 1 {
        return Ok(());
    }
    let held = capabilities(None).during(|| "reading our capabilities".to_owned())?.permitted;
    let lacking = CapabilitySet::from_bits_retain(change.add).difference(held).bits();
    let names: Vec<String> = NAMES
        .iter()
        .enumerate()
        .filter(|(number, _)| lacking & (1 << number) != 0)
        .map(|(_, name)| format!("CAP_{name}"))
        .collect();
    if names.is_empty() {
        return Ok(());
    }
    Err(Failure::new(format!(
        "giving the command {}: the builder itself has not got it here; start the builder with it, or leave `--cap-add` out",
        names.join(", ")
    )))
}

/// Gives up, for good, every capability but these; and between, while there still are those that it needs, becomes another
/// user by `drop_ids`.
pub(super) fn restrict(kept: CapabilitySet, drop_ids: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
    for bit in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        if kept.contains(capability) {
            continue;
        }
        match remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // Past the last capability that this kernel knows.
            Err(Errno::INVAL) => break,
            Err(errno) => return Err(errno).during(|| format!("giving up the capability {bit} for good")),
        }
    }
    // Kernels before 4.3 have no ambient set to clear.
    let _ = clear_ambient_capability_set();
    set_keep_capabilities(true).during(|| "keeping capabilities for another user".to_owned())?;
    drop_ids()?;
    set_keep_capabilities(false).during(|| "keeping capabilities for nobody else".to_owned())?;
    // In a container we may hold less than what is kept. Of another user than root, `execve` takes these too.
    let held = capabilities(None).during(|| "reading our capabilities".to_owned())?.permitted & kept;
    let sets = CapabilitySets { effective: held, permitted: held, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets).during(|| "giving up capabilities".to_owned())
}

/// What an insecure command keeps: all that we hold. A change of the user id takes away none of it that is in a set that
/// [`keep`] can restore.
pub(super) fn hold() -> Result<CapabilitySet, Failure> {
    let held = capabilities(None).during(|| "reading our capabilities".to_owned())?.permitted;
    set_keep_capabilities(true).during(|| "keeping capabilities for another user".to_owned())?;
    Ok(held)
}

/// Gives `all` to this process and what it executes, whichever user it is.
pub(super) fn keep(all: CapabilitySet) -> Result<(), Failure> {
    let sets = CapabilitySets { effective: all, permitted: all, inheritable: all };
    set_capabilities(None, sets).during(|| "keeping capabilities".to_owned())?;
    for bit in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        if all.contains(capability) {
            // Kernels before 4.3 have no ambient set: there, only root has what it holds.
            let _ = configure_capability_in_ambient_set(capability, true);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(add: &[&str], drop: &[&str]) -> Result<(u64, u64), String> {
        let owned = |names: &[&str]| -> Vec<String> { names.iter().map(|name| (*name).to_owned()).collect() };
        CapabilityChange::read(&owned(add), &owned(drop)).map(|change| (change.add, change.drop))
    }

    #[test]
    fn names_are_read_as_podman_reads_them() {
        assert_eq!(read(&["CAP_NET_ADMIN", "sys_ptrace"], &["chown"]), Ok((1 << 12 | 1 << 19, 1)));
        assert_eq!(read(&["all"], &[]), Ok((u64::MAX, 0)));
        assert_eq!(read(&["ALL"], &["SYS_ADMIN"]), Ok((!(1 << 21), 1 << 21)));
        assert_eq!(read(&["CHOWN"], &["ALL"]), Ok((1, !1)));
        assert_eq!(read(&["CHOWN"], &["cap_chown"]), Err("CHOWN is to be added and to be dropped".to_owned()));
        assert!(read(&["ALL"], &["ALL"]).is_err());
        assert!(read(&["CAP_ALL"], &[]).is_err());
        assert!(read(&["NET_ADMINISTRATION"], &[]).unwrap_err().contains("CAP_NET_ADMIN,"));
    }

    #[test]
    fn names_stand_at_the_kernels_numbers() {
        for (name, capability) in [
            ("CHOWN", CapabilitySet::CHOWN),
            ("SETPCAP", CapabilitySet::SETPCAP),
            ("NET_RAW", CapabilitySet::NET_RAW),
            ("SYS_ADMIN", CapabilitySet::SYS_ADMIN),
            ("MKNOD", CapabilitySet::MKNOD),
            ("SETFCAP", CapabilitySet::SETFCAP),
            ("SYSLOG", CapabilitySet::SYSLOG),
            ("BPF", CapabilitySet::BPF),
            ("CHECKPOINT_RESTORE", CapabilitySet::CHECKPOINT_RESTORE),
        ] {
            assert_eq!(read(&[name], &[]), Ok((capability.bits(), 0)));
        }
    }
}
