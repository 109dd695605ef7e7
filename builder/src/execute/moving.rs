//! Long work of a step tells how far it is, in bytes.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use super::{BuiltLayer, Executor};
use crate::event::{Event, Events, StepId};

/// How often it is told.
const TELL_EVERY: Duration = Duration::from_millis(100);

/// What is less than this is done in a moment, and not told.
const TOLD_MIN_BYTES: u64 = 10_000_000;

/// So many bytes that are done of so many.
pub(super) struct Moving {
    events: Events,
    step: StepId,
    what: String,
    done_bytes: u64,
    total_bytes: u64,
    told: Option<Instant>,
    is_over: bool,
}

impl Moving {
    /// Tells of the beginning, if of anything.
    pub(super) fn begin(events: &Events, step: StepId, what: String, total_bytes: u64) -> Self {
        let mut moving =
            Self { events: events.clone(), step, what, done_bytes: 0, total_bytes, told: None, is_over: false };
        moving.add(0);
        moving
    }

    /// So many more are done.
    pub(super) fn add(&mut self, bytes: u64) {
        self.done_bytes += bytes;
        if self.told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
            self.tell(self.done_bytes.min(self.total_bytes.saturating_sub(1)));
        }
    }

    /// All is done. Some readers come to an end several times.
    pub(super) fn end(&mut self) {
        if !std::mem::replace(&mut self.is_over, true) {
            self.tell(self.total_bytes);
        }
    }

    fn tell(&mut self, done_bytes: u64) {
        if self.total_bytes < TOLD_MIN_BYTES {
            return;
        }
        self.told = Some(Instant::now());
        let (step, what) = (self.step, self.what.clone());
        self.events.hear(Event::Moved { step, what, done_bytes, total_bytes: Some(self.total_bytes) });
    }
}

/// A reader that tells how much of it was read.
pub(super) struct Told<R> {
    inner: R,
    moving: Moving,
}

impl<R: Read> Told<R> {
    pub(super) fn new(inner: R, moving: Moving) -> Self {
        Self { inner, moving }
    }
}

impl<R: Read> Read for Told<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        match count {
            0 if !buffer.is_empty() => self.moving.end(),
            count => self.moving.add(count as u64),
        }
        Ok(count)
    }
}

impl Executor {
    /// A layer's blob that is read for `what`.
    pub(super) fn told<R: Read>(&self, step: StepId, what: &str, layer: &BuiltLayer, blob: R) -> Told<R> {
        let what = format!("{what} {}", layer.digest);
        Told::new(blob, Moving::begin(&self.events, step, what, layer.size_bytes))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::event::Sink;

    #[derive(Default)]
    struct Heard(Mutex<Vec<(u64, Option<u64>)>>);

    impl Sink for Heard {
        fn hear(&self, event: Event) {
            if let Event::Moved { done_bytes, total_bytes, .. } = event {
                self.0.lock().unwrap().push((done_bytes, total_bytes));
            }
        }
    }

    fn read(size_bytes: u64) -> Vec<(u64, Option<u64>)> {
        let heard = Arc::new(Heard::default());
        let events: Events = heard.clone();
        let moving = Moving::begin(&events, StepId(1), "unpacking a.tar".to_owned(), size_bytes);
        let mut reader = Told::new(io::repeat(7).take(size_bytes), moving);
        for _ in 0..2 {
            io::copy(&mut reader, &mut io::sink()).unwrap();
        }
        std::mem::take(&mut heard.0.lock().unwrap())
    }

    #[test]
    fn a_long_read_tells_of_its_begin_and_its_end_and_a_short_one_of_nothing() {
        let told = read(20_000_000);
        assert_eq!((told[0], told[told.len() - 1]), ((0, Some(20_000_000)), (20_000_000, Some(20_000_000))));
        assert_eq!(told.iter().filter(|(done_bytes, _)| *done_bytes == 20_000_000).count(), 1);
        assert!(read(1000).is_empty());
    }
}
