//! Ctrl-C: the first stops the build and leaves nothing behind, the second ends the process at once.

use super::failure::Blame;
use super::output;
use crate::sandbox::Cancel;

/// A cancel that SIGINT or SIGTERM trips.
pub(super) fn cancel_on_signal() -> Cancel {
    let cancel = Cancel::new();
    let tripped = cancel.clone();
    tokio::spawn(async move {
        use tokio::signal::unix::{SignalKind, signal};
        let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
        else {
            return;
        };
        for again in [false, true] {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if again {
                end_now();
            }
            output::message("stopping; once more ends at once\n");
            tripped.cancel();
        }
    });
    cancel
}

/// What is half done lies in the store's `tmp`, and the next command that opens the store removes it.
#[expect(clippy::exit, reason = "the user asked twice; whatever still runs must not delay the end")]
fn end_now() -> ! {
    std::process::exit(i32::from(Blame::Interrupted.exit_code()))
}
