//! How a client sends: whether it pauses, and whether it is fast enough to be lent memory that others wait for.

use std::pin::Pin;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::{Instant, Sleep, sleep};

/// A client that sends nothing for this long gives its memory back when it is short.
const PAUSE: Duration = Duration::from_millis(100);
/// By so much of a body it is judged: more than lies in a socket and in a connection's buffers, which comes at once however
/// slow the client is.
const JUDGED_BYTES: usize = 256 * 1024;
/// The longest that a client may take to send that much. A thousand of this rate are more than a line of 2 Gbit/s carries.
const JUDGED: Duration = Duration::from_secs(1);

/// What is known of a client's rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rate {
    /// Nothing yet, or not since it paused.
    Unknown,
    Fast,
    Slow,
}

/// A client's rate, seen over the last [`JUDGED_BYTES`].
#[derive(Debug)]
pub(super) struct Pace {
    rate: Rate,
    since: Instant,
    /// For how long since then the client waited for us.
    kept: Duration,
    bytes: usize,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self { rate: Rate::Unknown, since: Instant::now(), kept: Duration::ZERO, bytes: 0 }
    }

    pub(super) fn rate(&self) -> Rate {
        self.rate
    }

    /// So many bytes came.
    pub(super) fn came(&mut self, bytes: usize) {
        self.bytes += bytes;
        let took = self.since.elapsed();
        if took.saturating_sub(self.kept) > JUDGED {
            self.judge(Rate::Slow);
        } else if self.bytes >= JUDGED_BYTES {
            // What came while the client waited for us came from buffers, as it does from a slow one: it neither speaks for
            // the client nor against it.
            self.judge(if took <= JUDGED { Rate::Fast } else { self.rate });
        }
    }

    /// Nothing came for a while. A client that was fast has to show it again.
    pub(super) fn paused(&mut self) {
        if self.rate == Rate::Fast {
            self.rate = Rate::Unknown;
        }
    }

    /// The client waited for us so long.
    pub(super) fn kept(&mut self, time: Duration) {
        self.kept += time;
    }

    fn judge(&mut self, rate: Rate) {
        *self = Self { rate, ..Self::new() };
    }
}

/// Sees when nothing comes for [`PAUSE`]. Its timer is set when it runs off and not for each frame: most frames are waited
/// for, and setting one wakes the thread that keeps the timers.
#[derive(Debug)]
pub(super) struct Pause {
    timer: Pin<Box<Sleep>>,
}

impl Pause {
    pub(super) fn new() -> Self {
        Self { timer: Box::pin(sleep(PAUSE)) }
    }

    /// What comes; `None` when nothing does.
    pub(super) async fn before<T>(&mut self, what: impl Future<Output = T>) -> Option<T> {
        let mut what = std::pin::pin!(what);
        if let Some(came) = what.as_mut().now_or_never() {
            return Some(came);
        }
        let end = Instant::now() + PAUSE;
        loop {
            tokio::select! {
                biased;
                came = &mut what => return Some(came),
                () = &mut self.timer => {}
            }
            let now = Instant::now();
            self.timer.as_mut().reset(if now < end { end } else { now + PAUSE });
            if now >= end {
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn send(pace: &mut Pace, frames: usize, frame_bytes: usize, between_ms: u64) {
        for _ in 0..frames {
            sleep(Duration::from_millis(between_ms)).await;
            pace.came(frame_bytes);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_is_fast_or_slow_by_what_it_sends_and_not_by_how_long_it_waits_for_us() {
        const FRAME: usize = 16 * 1024;
        let mut pace = Pace::new();
        send(&mut pace, 15, FRAME, 50).await;
        assert_eq!(pace.rate(), Rate::Unknown);
        send(&mut pace, 1, FRAME, 50).await;
        assert_eq!(pace.rate(), Rate::Fast);
        // It waits for memory, and for the store.
        for _ in 0..3 {
            sleep(JUDGED * 5).await;
            pace.kept(JUDGED * 5);
            send(&mut pace, 16, FRAME, 0).await;
            assert_eq!(pace.rate(), Rate::Fast);
        }
        pace.paused();
        assert_eq!(pace.rate(), Rate::Unknown);
        // Steady, but slow; known before it has sent much.
        send(&mut pace, 11, 1024, 100).await;
        assert_eq!(pace.rate(), Rate::Slow);
        // As slow, in bursts.
        pace = Pace::new();
        for _ in 0..4 {
            pace.paused();
            send(&mut pace, 1, FRAME, 300).await;
        }
        assert_eq!(pace.rate(), Rate::Slow);
        pace.paused();
        assert_eq!(pace.rate(), Rate::Slow);
        // What lay in buffers while it waited for us proves nothing.
        for _ in 0..3 {
            sleep(JUDGED * 5).await;
            pace.kept(JUDGED * 5);
            send(&mut pace, 16, FRAME, 0).await;
            assert_eq!(pace.rate(), Rate::Slow);
        }
        send(&mut pace, 16, FRAME, 10).await;
        assert_eq!(pace.rate(), Rate::Fast);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_is_seen_whenever_it_begins() {
        let mut pause = Pause::new();
        for wait in [0, 60, 99, 30, 5, 99] {
            let frame = async {
                sleep(Duration::from_millis(wait)).await;
                wait
            };
            assert_eq!(pause.before(frame).await, Some(wait));
        }
        for _ in 0..2 {
            let began = Instant::now();
            assert_eq!(pause.before(std::future::pending::<()>()).await, None);
            assert_eq!(began.elapsed().as_millis(), PAUSE.as_millis());
            sleep(PAUSE * 3).await;
        }
        assert_eq!(pause.before(sleep(PAUSE / 2)).await, Some(()));
    }
}
