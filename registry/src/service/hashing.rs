//! The hash of a body under way: in between, or beside the rest as long as there are processors that nobody needs.
//!
//! Hashing takes about as long as receiving and writing do together. With few bodies under way it is done by a thread of
//! its own, so that one push is not bound by what one processor does; with many, every processor has work, and handing
//! bytes from one to another only costs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::memory::{BodyMemory, Leave};
use crate::spec::Hasher;

/// How much is handed over at once: waking the other thread costs as much as hashing some KiB.
const HANDED_BYTES: usize = 512 * 1024;
/// The other bound of it, for frames of a few bytes.
const HANDED_FRAMES: usize = 64;
/// How many of those wait, besides the one being hashed and the one being gathered.
const WAITING_MAX: usize = 2;
/// All of them: lent from the pool.
const BESIDE_BYTES: u64 = (HANDED_BYTES * (WAITING_MAX + 2)) as u64;
/// After how many bytes it is looked again whether there are processors to spare.
const LOOK_BYTES: u64 = 16 * 1024 * 1024;

/// The processors, and how many long bodies are under way. Clones are the same one.
#[derive(Clone, Debug)]
pub(super) struct Processors {
    all: usize,
    bodies: Arc<AtomicUsize>,
}

/// A long body that is under way.
#[derive(Debug)]
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Processors {
    pub(super) fn new(all: usize) -> Self {
        Self { all, bodies: Arc::default() }
    }

    fn count(&self) -> Counted {
        self.bodies.fetch_add(1, Ordering::Relaxed);
        Counted(self.bodies.clone())
    }

    /// Whether every long body can have two.
    fn suffice(&self) -> bool {
        self.bodies.load(Ordering::Relaxed).saturating_mul(2) <= self.all
    }
}

/// A hash that takes the frames of a body in.
#[derive(Debug)]
pub(super) struct Hashing {
    processors: Processors,
    memory: BodyMemory,
    /// Once it is known to be long.
    counted: Option<Counted>,
    place: Place,
    /// What has come since it was looked whether there are processors to spare.
    since_bytes: u64,
}

#[derive(Debug)]
enum Place {
    Here(Hasher),
    Beside(Beside),
}

#[derive(Debug)]
struct Beside {
    to: mpsc::Sender<Vec<Bytes>>,
    back: JoinHandle<Hasher>,
    gathered: Vec<Bytes>,
    gathered_bytes: usize,
    _leave: Leave,
}

impl Hashing {
    pub(super) fn new(hasher: Hasher, processors: Processors, memory: BodyMemory) -> Self {
        Self { processors, memory, counted: None, place: Place::Here(hasher), since_bytes: LOOK_BYTES }
    }

    /// Takes a frame in; `long`: whether the body is worth another thread.
    pub(super) async fn update(&mut self, frame: &Bytes, long: bool) {
        if long && self.processors.all > 1 {
            self.since_bytes += frame.len() as u64;
            if self.since_bytes >= LOOK_BYTES {
                self.since_bytes = 0;
                self.look().await;
            }
        }
        match &mut self.place {
            Place::Here(hasher) => hasher.update(frame),
            Place::Beside(beside) => beside.update(frame).await,
        }
    }

    async fn look(&mut self) {
        if self.counted.is_none() {
            self.counted = Some(self.processors.count());
        }
        let suffice = self.processors.suffice();
        match &mut self.place {
            Place::Here(hasher) if suffice => {
                if let Some(leave) = self.memory.try_take_spare(BESIDE_BYTES) {
                    self.place = Place::Beside(Beside::begin(hasher.clone(), leave));
                }
            }
            Place::Beside(beside) if !suffice => self.place = Place::Here(beside.end().await),
            Place::Here(_) | Place::Beside(_) => {}
        }
    }

    /// The hash of all that came.
    pub(super) async fn end(self) -> Hasher {
        match self.place {
            Place::Here(hasher) => hasher,
            Place::Beside(mut beside) => beside.end().await,
        }
    }
}

impl Beside {
    fn begin(mut hasher: Hasher, leave: Leave) -> Self {
        let (to, mut from) = mpsc::channel::<Vec<Bytes>>(WAITING_MAX);
        let back = tokio::task::spawn_blocking(move || {
            while let Some(frames) = from.blocking_recv() {
                frames.iter().for_each(|frame| hasher.update(frame));
            }
            hasher
        });
        Self { to, back, gathered: Vec::new(), gathered_bytes: 0, _leave: leave }
    }

    async fn update(&mut self, frame: &Bytes) {
        self.gathered_bytes += frame.len();
        self.gathered.push(frame.clone());
        if self.gathered_bytes >= HANDED_BYTES || self.gathered.len() >= HANDED_FRAMES {
            self.hand_over().await;
        }
    }

    async fn hand_over(&mut self) {
        self.gathered_bytes = 0;
        // It fails when the thread broke off, which is seen at the end.
        let _ = self.to.send(std::mem::take(&mut self.gathered)).await;
    }

    async fn end(&mut self) -> Hasher {
        self.hand_over().await;
        // Not taken by anyone: it only ends what the thread waits for.
        (self.to, _) = mpsc::channel(1);
        match (&mut self.back).await {
            Ok(hasher) => hasher,
            Err(error) => match error.try_into_panic() {
                // As it would have gone here.
                Ok(panic) => std::panic::resume_unwind(panic),
                // The program ends, and this with it.
                Err(_) => std::future::pending().await,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::memory::SMALL_POOL_BYTES;
    use crate::spec::{Algorithm, Digest};

    /// Frames of many sizes, and what they hash to.
    fn frames(bytes: usize) -> (Vec<Bytes>, Digest) {
        let all: Vec<u8> = (0..bytes).map(|i| (i * i / 7) as u8).collect();
        let digest = Digest::of(Algorithm::Sha256, &all);
        let mut all = Bytes::from(all);
        let mut frames = Vec::new();
        for size in [1, 13, 70_000, 300_000, 1_500_000, 0].into_iter().cycle() {
            if all.is_empty() {
                return (frames, digest);
            }
            frames.push(all.split_to(size.min(all.len())));
        }
        unreachable!("the cycle has no end")
    }

    fn hashing(processors: &Processors, memory: &BodyMemory) -> Hashing {
        Hashing::new(Hasher::new(Algorithm::Sha256), processors.clone(), memory.clone())
    }

    async fn hash(mut hashing: Hashing, frames: &[Bytes]) -> Hashing {
        for frame in frames {
            hashing.update(frame, true).await;
        }
        hashing
    }

    #[tokio::test]
    async fn a_hash_is_the_same_wherever_it_is_made() {
        let (frames, digest) = frames(40_000_000);
        let memory = BodyMemory::new(SMALL_POOL_BYTES);
        for all in [1, 2, 64] {
            let processors = Processors::new(all);
            let hashed = hash(hashing(&processors, &memory), &frames).await;
            assert_eq!(matches!(hashed.place, Place::Beside(_)), all > 1);
            assert_eq!(hashed.end().await.finish(), digest);
            assert_eq!((memory.lent_bytes().0, processors.bodies.load(Ordering::Relaxed)), (0, 0));
        }
    }

    #[tokio::test]
    async fn a_second_body_takes_the_processor_back_and_its_end_gives_it_again() {
        let (frames, digest) = frames(20_000_000);
        let (processors, memory) = (Processors::new(2), BodyMemory::new(SMALL_POOL_BYTES));
        let first = hash(hashing(&processors, &memory), &frames).await;
        assert!(matches!(first.place, Place::Beside(_)));
        let second = hash(hashing(&processors, &memory), &frames).await;
        assert!(matches!(second.place, Place::Here(_)));
        let first = hash(first, &frames).await;
        assert!(matches!(first.place, Place::Here(_)));
        assert_eq!(second.end().await.finish(), digest);
        let first = hash(first, &frames).await;
        assert!(matches!(first.place, Place::Beside(_)));
        let all = [&frames[..], &frames, &frames].concat().concat();
        assert_eq!(first.end().await.finish(), Digest::of(Algorithm::Sha256, &all));
    }

    #[tokio::test]
    async fn without_memory_to_spare_it_stays_here() {
        let (frames, digest) = frames(20_000_000);
        let memory = BodyMemory::new(SMALL_POOL_BYTES);
        let _lent = memory.take(SMALL_POOL_BYTES / 2).await;
        let hashed = hash(hashing(&Processors::new(2), &memory), &frames).await;
        assert!(matches!(hashed.place, Place::Here(_)));
        assert_eq!(hashed.end().await.finish(), digest);
    }
}
