//! What operators do besides serving: look at a tag's history and go back in it, find out what keeps something, check a
//! store, empty a repository, and reach the server that holds a folder.
//!
//! Each returns what it found as a value that is JSON as well; the commands of the binary put it into words.

mod control;
mod delete;
mod error;
mod explain;
mod fsck;
mod gc;
mod history;
mod near;
mod orders;
mod undo;

use std::sync::Arc;

pub use control::{Command, Commands, Mend, Order, Progress, Refusal, call};
pub use delete::Deleted;
pub use error::AdminError;
pub use explain::{Explanation, Reason, ReasonKind};
pub use fsck::{Checked, Finding, FsckPlan, Kind, Noted, Report};
pub use gc::{Collecting, Gc};
pub use history::{Ended, History, State, Value};
pub use orders::{DeleteRepository, Fsck, Orderable, UndoTag};
pub use undo::Undone;

use crate::protocol::Nonces;
use crate::service::Registry;
use crate::storage::Storage;

/// Operators' orders, on an opened store.
#[derive(Clone, Debug)]
pub struct Admin {
    registry: Arc<Registry>,
}

impl Admin {
    /// On the store of this registry.
    pub fn new(registry: Arc<Registry>) -> Self {
        Self { registry }
    }

    fn registry(&self) -> &Registry {
        &self.registry
    }

    fn storage(&self) -> &Storage {
        self.registry.storage()
    }

    fn nonces(&self) -> Nonces {
        self.registry.nonces()
    }
}
