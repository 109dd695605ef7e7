//! How long a connection may take to send a request's head, and how long it may rest before one.
//!
//! Over HTTP/1 hyper has one clock for both. This is it: it sees whether anything came since the last request, and whether
//! places for connections are short. Over HTTP/2 it has none: there, what is under way is counted.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant as StdInstant};

use axum::body::{Body, Bytes};
use http_body::{Frame, SizeHint};
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
    busy: Busy,
}

impl Clock {
    /// `begun` is set by whoever reads from the connection. `busy`: the same connection's.
    pub(super) fn new(begun: Arc<AtomicBool>, places: Places, busy: Busy) -> Self {
        Self { begun, first: AtomicBool::new(true), places, busy }
    }
}

impl Timer for Clock {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(StdInstant::now() + duration)
    }

    /// Asked for when the connection is ready for a request.
    fn sleep_until(&self, deadline: StdInstant) -> Pin<Box<dyn Sleep>> {
        if self.first.swap(false, Ordering::Relaxed) {
            self.busy.now().has_clock = true;
        } else {
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
            ready!(this.clock.as_mut().poll(cx));
            let now = Instant::now();
            if this.in_head || now >= this.rests_until || this.places.are_short() {
                return Poll::Ready(());
            }
            this.clock.as_mut().reset(this.rests_until.min(now + HEAD_TIMEOUT));
        }
    }
}

impl Sleep for Wait {}

/// What one connection is busy with.
#[derive(Clone, Debug)]
pub(super) struct Busy(Arc<Mutex<Now>>);

#[derive(Debug)]
struct Now {
    /// hyper asks [`Clock`], as it does over HTTP/1 alone.
    has_clock: bool,
    /// Requests that have no reply yet.
    requests: usize,
    /// Replies that are not sent whole.
    replies: usize,
    /// When something was last done for one of them.
    since: Instant,
}

impl Busy {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Now { has_clock: false, requests: 0, replies: 0, since: Instant::now() })))
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request came.
    pub(super) fn begin(&self) -> Working {
        self.now().requests += 1;
        Working(self.clone())
    }

    /// Ready when a connection of HTTP/2 has rested for too long. One whose client takes no more of a reply, and answers pings,
    /// rests too, but may do so for longer: that may be a slow one.
    pub(super) async fn rested(&self, places: &Places) {
        loop {
            let next = {
                let now = self.now();
                let rested = now.since.elapsed();
                let mut next = Instant::now() + HEAD_TIMEOUT;
                if !now.has_clock && now.requests == 0 {
                    if rested >= IDLE_TIMEOUT || (now.replies == 0 && rested >= HEAD_TIMEOUT && places.are_short()) {
                        return;
                    }
                    let bound = if rested < HEAD_TIMEOUT { HEAD_TIMEOUT } else { IDLE_TIMEOUT };
                    next = next.min(now.since + bound);
                }
                next
            };
            tokio::time::sleep_until(next).await;
        }
    }

    /// Whether nothing is done here, and was not for a while.
    pub(super) fn is_stuck(&self) -> bool {
        let now = self.now();
        now.requests == 0 && now.since.elapsed() >= HEAD_TIMEOUT
    }
}

/// A request that has no reply yet.
#[derive(Debug)]
pub(super) struct Working(Busy);

impl Working {
    /// Its reply's body: until it is sent whole, the connection is busy with that.
    pub(super) fn reply(self, body: Body) -> Body {
        if self.0.now().has_clock {
            return body;
        }
        self.0.now().replies += 1;
        Body::new(Reply { body, busy: self.0.clone() })
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        let mut now = self.0.now();
        now.requests -= 1;
        now.since = Instant::now();
    }
}

struct Reply {
    body: Body,
    busy: Busy,
}

impl http_body::Body for Reply {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        self.busy.now().since = Instant::now();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        let mut now = self.busy.now();
        now.replies -= 1;
        now.since = Instant::now();
    }
}
