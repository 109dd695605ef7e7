//! What a user is told of the way that commands run, once in a build, and what is not run there unasked.

use super::{Executor, Identity, StepError};
use crate::event::Event;
use crate::graph::{Network, RunOp};
use crate::sandbox::{Fidelity, Rung};

/// Capabilities over a network, of which there are none over the machine's own in a user namespace.
const OVER_A_NETWORK: [&str; 2] = ["NET_RAW", "NET_ADMIN"];

impl Executor {
    /// Warns of a rung that only records owners, or has no mounts; refuses a command of another user than root, unless the
    /// build was told that it may run, where it would be kept from nothing that root may do to files.
    pub(super) fn accept_rung(&self, rung: Rung, op: &RunOp, identity: &Identity) -> Result<(), StepError> {
        let warning = match rung.fidelity() {
            Some(Fidelity::Recorded) if rung == Rung::Traced => Some(
                "layers have the owners that commands ask for, but a tracer and not the kernel keeps commands in their root, \
                 and nothing bounds the sizes of `--mount=type=tmpfs` and of /dev/shm",
            ),
            Some(Fidelity::Recorded) => Some(
                "layers have the owners that commands ask for, but no user of a command is kept from what root may do",
            ),
            Some(Fidelity::Chroot) => {
                Some("there is no /proc, and nothing bounds the sizes of `--mount=type=tmpfs` and of /dev/shm")
            }
            Some(Fidelity::Exact) | None => None,
        };
        if let Some(warning) = warning
            && self.isolation.is_told_first("rung")
        {
            let text = format!(
                "commands run in {} ({rung}): {warning}; `fluyt doctor` tells what a better way would need",
                rung.title()
            );
            self.events.hear(Event::Warning { text });
        }
        if rung == Rung::SingleId && identity.uid != 0 && !self.allows_recorded_user {
            return Err(StepError::RecordedUser { user: op.user.clone(), rung });
        }
        self.note_rights(rung, op);
        Ok(())
    }

    /// The rights that a build gives to its commands may be over a network that is not theirs.
    fn note_rights(&self, rung: Rung, op: &RunOp) {
        let is_hosts = matches!(op.network, Network::Default | Network::Host);
        if !is_hosts || !matches!(rung, Rung::Rootless | Rung::SingleId) {
            return;
        }
        let bare = |name: &String| {
            let name = name.trim().to_ascii_uppercase();
            name.strip_prefix("CAP_").map_or(name.clone(), str::to_owned)
        };
        let asked: Vec<String> = op.conditions.added_capabilities.iter().map(bare).collect();
        let asked: Vec<&str> = OVER_A_NETWORK.into_iter().filter(|name| asked.iter().any(|one| one == name)).collect();
        if !asked.is_empty() && self.isolation.is_told_first("rights over a network") {
            let text = format!(
                "`--cap-add {}` has no effect on the network of this machine: commands run in a user namespace ({rung}), which \
                 has no rights over it; with `--network isolated` they get a network that is theirs",
                asked.join(",")
            );
            self.events.hear(Event::Note { text });
        }
    }
}
