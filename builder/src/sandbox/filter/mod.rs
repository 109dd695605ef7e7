//! The system call filter of a RUN: Docker's default profile, as a BPF program of our own making.
//!
//! It is loaded without `no_new_privs`, so that `sudo` and `ping` work in a RUN as they do elsewhere; therefore it must
//! be loaded before the capabilities go.
//!
//! Where we differ from Docker: calls newer than the table fail with `ENOSYS` instead of `EPERM`, so that libraries fall
//! back; x32 programs, which hardly any kernel runs, get `ENOSYS`; there is no variant for extra capabilities, for a RUN
//! has none.

mod bpf;
mod rules;
mod table;
#[cfg(test)]
mod tests;

use super::error::{During, Failure};
use super::system;
use rules::Architecture;

#[cfg(target_arch = "x86_64")]
const ARCHITECTURES: &[Architecture] = &[
    Architecture { audit: 0xc000_003e, column: table::X86_64, x32: true },
    Architecture { audit: 0x4000_0003, column: table::I386, x32: false },
];
#[cfg(target_arch = "aarch64")]
const ARCHITECTURES: &[Architecture] = &[
    Architecture { audit: 0xc000_00b7, column: table::AARCH64, x32: false },
    Architecture { audit: 0x4000_0028, column: table::ARM, x32: false },
];
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const ARCHITECTURES: &[Architecture] = &[];

/// Loads the filter into the calling process, for itself and all that it will start.
pub(super) fn load() -> Result<(), Failure> {
    if ARCHITECTURES.is_empty() {
        return Err(Failure::new("there is no system call filter for this processor; use x86_64 or aarch64"));
    }
    system::load_filter(&rules::program(ARCHITECTURES)).during(|| "loading the system call filter".to_owned())
}
