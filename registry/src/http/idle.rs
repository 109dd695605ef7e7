//! How long a connection may take to send a request's head, and how long it may rest before one.
//!
//! hyper has one clock for both. This is it: it sees whether anything came since the last request, and whether places for
//! connections are short.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant as StdInstant};

use hyper::rt::{Sleep, Timer};
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// How long a head may take from its first byte.
pub(super) const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
/// How long a connection may rest. Load balancers keep theirs for a minute (AWS, nginx), two (Traefik, Caddy) or ten (Google): if
/// we end one first, a push that they send on it at that moment is lost. As long as many are open, [`HEAD_TIMEOUT`] has to do.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(620);
/// So many connections are many. One that rests costs some 25 KiB.
const MANY: usize = 1000;

/// Places for connections.
#[derive(Clone, Debug)]
pub(super) struct Places {
    /// Those that are free.
    pub(super) free: Arc<Semaphore>,
    /// So few free ones are few.
    few: usize,
}

impl Places {
    pub(super) fn new(all: usize) -> Self {
        let all = all.clamp(1, Semaphore::MAX_PERMITS);
        Self { free: Arc::new(Semaphore::new(all)), few: all.saturating_sub(MANY) }
    }

    fn are_short(&self) -> bool {
        self.free.available_permits() <= self.few
    }
}

/// The clock of one connection.
#[derive(Debug)]
pub(super) struct Clock {
    /// Whether bytes came since the last request.
    begun: Arc<AtomicBool>,
    /// No request was seen yet. What came until now begins the first.
    first: AtomicBool,
    places: Places,
}

impl Clock {
    /// `begun` is set by whoever reads from the connection.
    pub(super) fn new(begun: Arc<AtomicBool>, places: Places) -> Self {
        Self { begun, first: AtomicBool::new(true), places }
    }
}

impl Timer for Clock {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(StdInstant::now() + duration)
    }

    /// Asked for when the connection is ready for a request.
    fn sleep_until(&self, deadline: StdInstant) -> Pin<Box<dyn Sleep>> {
        if !self.first.swap(false, Ordering::Relaxed) {
            self.begun.store(false, Ordering::Relaxed);
        }
        Box::pin(Wait {
            begun: self.begun.clone(),
            places: self.places.clone(),
            rests_until: deadline.into(),
            in_head: false,
            clock: Box::pin(tokio::time::sleep(HEAD_TIMEOUT)),
        })
    }

    fn now(&self) -> StdInstant {
        Instant::now().into()
    }
}

/// Waits for one request's head.
struct Wait {
    begun: Arc<AtomicBool>,
    places: Places,
    rests_until: Instant,
    in_head: bool,
    clock: Pin<Box<tokio::time::Sleep>>,
}

impl Future for Wait {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        // hyper asks each time that something came and is no whole head.
        if !this.in_head && this.begun.load(Ordering::Relaxed) {
            this.in_head = true;
            this.clock.as_mut().reset(Instant::now() + HEAD_TIMEOUT);
        }
        loop {
            std::task::ready!(this.clock.as_mut().poll(cx));
            let now = Instant::now();
            if this.in_head || now >= this.rests_until || this.places.are_short() {
                return Poll::Ready(());
            }
            this.clock.as_mut().reset(this.rests_until.min(now + HEAD_TIMEOUT));
        }
    }
}

impl Sleep for Wait {}
