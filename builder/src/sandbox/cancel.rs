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

    /// Ends every run that was given this switch, and refuses later ones.
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

#[cfg(test)]
mod tests {
    use super::*;

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
