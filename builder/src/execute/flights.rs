//! One at a time for what several steps want at the same time: a blob that is fetched, a layer that is unpacked.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use oci_spec::image::Digest;

/// A lock for each thing that is being made. Who comes second waits, and finds it made.
#[derive(Debug, Default)]
pub struct Flights {
    blobs: Mutex<HashMap<Digest, Arc<tokio::sync::Mutex<()>>>>,
    layers: Mutex<HashMap<Digest, Arc<Mutex<()>>>>,
    /// Unpacked layers that are known to have their steps' times.
    timed: Mutex<HashSet<Digest>>,
}

impl Flights {
    /// The lock of a blob that is fetched.
    pub(super) fn blob(&self, digest: &Digest) -> Arc<tokio::sync::Mutex<()>> {
        let mut blobs = self.blobs.lock().unwrap_or_else(PoisonError::into_inner);
        blobs.entry(digest.clone()).or_default().clone()
    }

    /// The lock of a layer that is unpacked.
    pub(super) fn layer(&self, diff_id: &Digest) -> Arc<Mutex<()>> {
        let mut layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        layers.entry(diff_id.clone()).or_default().clone()
    }

    /// Notes that an unpacked layer has its step's times: finding that out takes the layer's whole index.
    pub(super) fn timed(&self, diff_id: &Digest) {
        self.timed.lock().unwrap_or_else(PoisonError::into_inner).insert(diff_id.clone());
    }

    pub(super) fn is_timed(&self, diff_id: &Digest) -> bool {
        self.timed.lock().unwrap_or_else(PoisonError::into_inner).contains(diff_id)
    }
}
