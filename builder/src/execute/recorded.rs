//! What a user is told where owners are recorded, and what is not run there unasked.

use super::{Executor, Identity, StepError};
use crate::event::Event;
use crate::sandbox::{Fidelity, Rung};

impl Executor {
    /// Warns of a rung that only records owners, once in a build; refuses a command of another user than root, unless the
    /// build was told that it may run: it would be kept from nothing that root may do to files.
    pub(super) fn accept_rung(&self, rung: Rung, user: &str, identity: &Identity) -> Result<(), StepError> {
        if rung.fidelity() != Some(Fidelity::Recorded) {
            return Ok(());
        }
        if self.isolation.is_told_first() {
            self.events.hear(Event::Warning {
                text: format!(
                    "commands run in {} ({rung}): layers have the owners that commands ask for, but no user of a command is \
                     kept from what root may do; `fluyt doctor` tells what a better way would need",
                    rung.title()
                ),
            });
        }
        if rung == Rung::SingleId && identity.uid != 0 && !self.allows_recorded_user {
            return Err(StepError::RecordedUser { user: user.to_owned(), rung });
        }
        Ok(())
    }
}
