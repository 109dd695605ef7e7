//! A switch that ends a RUN from another thread.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rustix::event::{EventfdFlags, eventfd};

/// Asks running commands to end, once and for good. Clones are the same switch.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    cancelled: AtomicBool,
    /// The event descriptors of the runs that listen.
    listeners: Mutex<Vec<Weak<OwnedFd>>>,
}

impl Cancel {
    /// A switch that is off.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends every run that was given this switch, and refuses later ones.
    pub fn cancel(&self) {
        self.0.cancelled.store(true, Ordering::SeqCst);
        for listener in self.listeners().iter().filter_map(Weak::upgrade) {
            // The only refusal possible is a full counter, and then the listener is awake already.
            let _ = rustix::io::write(listener.as_fd(), &1u64.to_ne_bytes());
        }
    }

    /// Whether [`Cancel::cancel`] was called.
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::SeqCst)
    }

    /// A descriptor that becomes readable on cancel.
    pub(super) fn listen(&self) -> rustix::io::Result<Listener> {
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
pub(super) struct Listener(Arc<OwnedFd>);

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
