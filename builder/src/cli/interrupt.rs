//! Ctrl-C, SIGTERM, and a terminal that is closed: the first stops the build and leaves nothing behind, the second ends the process at once.

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;

use super::failure::Blame;
use crate::export;
use crate::stop::{Cancel, Stopped};

/// How long a stopped build may take to tidy up. A transfer that hangs must not hold the user longer.
const TIDY_UP: Duration = Duration::from_secs(5);

/// How long it takes at most to remove what exports have not finished. A file is gone at once; a folder may hold many.
const ABANDON: Duration = Duration::from_secs(2);

/// Hears SIGINT, SIGTERM and SIGHUP.
#[derive(Debug)]
pub(super) struct Interrupt {
    /// Trips at the first signal.
    pub(super) cancel: Cancel,
    heard: Arc<Notify>,
}

impl Interrupt {
    /// Begins to listen. Must be called inside the runtime.
    pub(super) fn listen(say: impl Fn(&str) + Send + Sync + 'static) -> Self {
        let interrupt = Self { cancel: Cancel::new(), heard: Arc::new(Notify::new()) };
        let (cancel, heard) = (interrupt.cancel.clone(), interrupt.heard.clone());
        // Before the task runs, so that no signal of the first moments is missed.
        // `nohup` wants the end of the terminal to be nobody's business.
        let mut hangup = if is_ignored(HANGUP) { None } else { signal(SignalKind::hangup()).ok() };
        let signals = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
        tokio::spawn(async move {
            let (Ok(mut interrupt), Ok(mut terminate)) = signals else { return };
            for again in [false, true] {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    () = closed(&mut hangup) => {}
                }
                if again {
                    end_now();
                }
                say("stopping; once more ends at once");
                cancel.cancel();
                heard.notify_one();
            }
        });
        interrupt
    }

    /// Waits for the first signal.
    pub(super) async fn heard(&self) {
        self.heard.notified().await;
    }

    /// Waits for a build, and after a signal only as long as it may take to tidy up.
    pub(super) async fn guard<T, E: From<Stopped>>(&self, build: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        tokio::pin!(build);
        let result = tokio::select! {
            result = &mut build => result,
            () = self.heard.notified() => tokio::time::timeout(TIDY_UP, build).await.unwrap_or_else(|_| {
                export::abandon(ABANDON);
                Err(Stopped.into())
            }),
        };
        // Who was told that it stops is not told that all is well.
        if self.cancel.is_cancelled() { result.and(Err(Stopped.into())) } else { result }
    }
}

/// What else is half done lies in the store's `tmp`, and the next command that opens the store removes it.
#[expect(clippy::exit, reason = "the user asked twice; whatever still runs must not delay the end")]
fn end_now() -> ! {
    export::abandon(ABANDON);
    std::process::exit(i32::from(Blame::Interrupted.exit_code()))
}

/// Waits for the end of the terminal.
async fn closed(hangup: &mut Option<Signal>) {
    match hangup {
        Some(hangup) => drop(hangup.recv().await),
        None => std::future::pending().await,
    }
}

/// The number of SIGHUP.
const HANGUP: u32 = 1;

/// Whether whoever started this process wanted a signal to be ignored.
fn is_ignored(number: u32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask >> (number - 1) & 1 == 1)
}
