//! The system call filter of a RUN: Docker's default profile, as a BPF program of our own making.
//!
//! It is loaded without `no_new_privs`, so that `sudo` and `ping` work in a RUN as they do elsewhere; therefore it must
//! be loaded before the capabilities go.
//!
//! Docker ties some calls to capabilities, and so do we: `--cap-add SYS_ADMIN` lets a command mount, and `--cap-drop
//! SYS_CHROOT` takes `chroot` away.
//!
//! Where we differ from Docker: calls newer than the table fail with `ENOSYS` instead of `EPERM`, so that libraries fall
//! back; so does what lies in the gap that x32 has in its numbers.

pub(super) mod bpf;
mod rules;
mod table;
#[cfg(test)]
mod tests;

use rustix::thread::CapabilitySet;

use super::error::{During, Failure};
use super::system;
use rules::Architecture;

#[cfg(target_arch = "x86_64")]
const ARCHITECTURES: &[Architecture] = &[
    Architecture { audit: 0xc000_003e, columns: &[(table::X86_64, 0), (table::X32, rules::X32_BIT)] },
    Architecture { audit: 0x4000_0003, columns: &[(table::I386, 0)] },
];
#[cfg(target_arch = "aarch64")]
const ARCHITECTURES: &[Architecture] = &[
    Architecture { audit: 0xc000_00b7, columns: &[(table::AARCH64, 0)] },
    Architecture { audit: 0x4000_0028, columns: &[(table::ARM, 0)] },
];
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const ARCHITECTURES: &[Architecture] = &[];

/// Loads the filter for a command that will have these capabilities into the calling process, for itself and all that it
/// will start.
pub(super) fn load(held: CapabilitySet) -> Result<(), Failure> {
    if ARCHITECTURES.is_empty() {
        return Err(Failure::new("there is no system call filter for this processor; use x86_64 or aarch64"));
    }
    system::load_filter(&rules::program(ARCHITECTURES, held)).during(|| "loading the system call filter".to_owned())
}

/// The numbers of every call that the table knows: on x86_64, i386, x32, aarch64 and arm.
#[cfg(test)]
pub(super) fn numbers() -> impl Iterator<Item = [i32; 5]> {
    table::TABLE.iter().map(|row| row.numbers)
}
