//! The end of a build from another thread: of its commands, of its reading and writing, of what it waits for.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};

/// How soon a wait ends. Nobody notices, and the switch needs no descriptor.
const LOOK: Duration = Duration::from_millis(50);

/// The build was stopped: why something has no end.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the build was stopped")]
pub struct Stopped;

impl From<Stopped> for io::Error {
    fn from(stopped: Stopped) -> Self {
        Self::other(stopped)
    }
}

/// Asks all that runs for a build to end, once and for good. Clones are the same switch.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    cancelled: AtomicBool,
    /// The event descriptors of the runs that listen.
    listeners: Mutex<Vec<Weak<OwnedFd>>>,
    /// Switches that this one trips too.
    children: Mutex<Vec<Weak<Shared>>>,
}

impl Cancel {
    /// A switch that is off.
    pub fn new() -> Self {
        Self::default()
    }

    /// A switch that trips when this one does, and can be tripped without it: for a part of the work.
    #[must_use]
    pub fn child(&self) -> Self {
        let child = Self::new();
        let mut children = self.0.children.lock().unwrap_or_else(PoisonError::into_inner);
        children.retain(|child| child.strong_count() > 0);
        children.push(Arc::downgrade(&child.0));
        drop(children);
        // A cancel before the push has tripped no child.
        if self.is_cancelled() {
            child.cancel();
        }
        child
    }

    /// Ends all that was given this switch, and refuses what comes later.
    pub fn cancel(&self) {
        self.0.cancelled.store(true, Ordering::SeqCst);
        for listener in self.listeners().iter().filter_map(Weak::upgrade) {
            // The only refusal possible is a full counter, and then the listener is awake already.
            let _ = rustix::io::write(listener.as_fd(), &1u64.to_ne_bytes());
        }
        let children = std::mem::take(&mut *self.0.children.lock().unwrap_or_else(PoisonError::into_inner));
        for child in children.iter().filter_map(Weak::upgrade) {
            Self(child).cancel();
        }
    }

    /// Whether [`Cancel::cancel`] was called.
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::SeqCst)
    }

    /// An error as soon as [`Cancel::cancel`] was called.
    pub fn check(&self) -> Result<(), Stopped> {
        if self.is_cancelled() { Err(Stopped) } else { Ok(()) }
    }

    /// What came of something. Whatever its failure says, once this has tripped that is the reason.
    pub fn overrides<T, E: From<Stopped>>(&self, result: Result<T, E>) -> Result<T, E> {
        result.map_err(|error| if self.is_cancelled() { Stopped.into() } else { error })
    }

    /// Reads until this trips; after that every read fails.
    pub fn reader<R: Read>(&self, inner: R) -> UntilStopped<R> {
        UntilStopped { inner, cancel: self.clone() }
    }

    /// Waits for something until this trips. It must yield: what keeps its thread hears nothing.
    pub async fn until<T, E: From<Stopped>>(&self, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        tokio::pin!(work);
        loop {
            self.check()?;
            if let Ok(done) = tokio::time::timeout(LOOK, &mut work).await {
                return self.overrides(done);
            }
        }
    }

    /// A descriptor that becomes readable on cancel.
    pub(crate) fn listen(&self) -> rustix::io::Result<Listener> {
        let event = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let mut listeners = self.listeners();
        listeners.retain(|listener| listener.strong_count() > 0);
        listeners.push(Arc::downgrade(&event));
        drop(listeners);
        // A cancel before the push has written to nobody.
        if self.is_cancelled() {
            rustix::io::write(event.as_fd(), &1u64.to_ne_bytes())?;
        }
        Ok(Listener(event))
    }

    fn listeners(&self) -> std::sync::MutexGuard<'_, Vec<Weak<OwnedFd>>> {
        self.0.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One run's ear on a [`Cancel`].
#[derive(Debug)]
pub(crate) struct Listener(Arc<OwnedFd>);

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// See [`Cancel::reader`].
#[derive(Debug)]
pub struct UntilStopped<R> {
    inner: R,
    cancel: Cancel,
}

impl<R: Read> Read for UntilStopped<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.cancel.check()?;
        self.inner.read(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Has no end, and stops the build in its third read.
    struct Endless<'a> {
        reads: u32,
        cancel: &'a Cancel,
    }

    impl Read for Endless<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.reads += 1;
            if self.reads == 3 {
                self.cancel.cancel();
            }
            Ok(buffer.len())
        }
    }

    #[test]
    fn a_file_without_end_is_read_until_the_build_is_stopped() {
        let cancel = Cancel::new();
        let mut endless = Endless { reads: 0, cancel: &cancel };
        let read = io::copy(&mut cancel.reader(&mut endless), &mut io::sink());
        assert_eq!(read.unwrap_err().to_string(), "the build was stopped");
        assert_eq!(endless.reads, 3);
    }

    #[test]
    fn a_child_trips_with_its_parent_and_not_the_other_way() {
        let parent = Cancel::new();
        let (one, two) = (parent.child(), parent.child());
        one.cancel();
        assert!(one.is_cancelled() && !two.is_cancelled() && !parent.is_cancelled());
        let grandchild = two.child();
        parent.cancel();
        assert!(two.is_cancelled() && grandchild.is_cancelled() && parent.child().is_cancelled());
    }
}
