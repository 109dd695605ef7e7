//! Who wants to know of layers while later steps run.

use std::sync::Arc;

use super::RootState;
use crate::graph::OpId;

/// Hears of each operation as soon as its final layers are known, found or made.
pub trait Watcher: Send + Sync {
    /// The operation left `state`. Must not block: the steps behind it wait.
    fn finished(&self, id: OpId, state: &Arc<RootState>);
}
