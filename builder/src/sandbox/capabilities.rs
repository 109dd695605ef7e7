//! What root may do in a RUN: Docker's fourteen capabilities, of which the host's network takes one away; or all, where
//! the build was allowed to be insecure.

use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set, configure_capability_in_ambient_set,
    remove_capability_from_bounding_set, set_capabilities, set_keep_capabilities,
};

use super::error::{During, Failure};
use super::spec::Network;

/// The set for a network.
fn kept(network: Network) -> CapabilitySet {
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
        Network::None => kept | CapabilitySet::NET_RAW,
    }
}

/// Gives up, for good, every capability that a RUN must not have.
pub(super) fn restrict(network: Network) -> Result<(), Failure> {
    let kept = kept(network);
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
    // In a container we may hold less than what is kept.
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
