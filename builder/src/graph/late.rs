//! What cannot be told of a graph before all that it fetches is there.

use std::collections::BTreeSet;

use super::{FetchOp, Graph, MountKind, Op, OpId};

impl Graph {
    /// The operations whose keys cannot be told before what is `pending` is there: these fetches, and all that needs them.
    ///
    /// With them go commands that see a cache mount which an earlier late one sees, for reading or for writing: the key of a
    /// command counts who may have written to its mounts before, and the late one has no key yet.
    #[must_use]
    pub fn late(&self, pending: impl Fn(&FetchOp) -> bool) -> BTreeSet<OpId> {
        let mut late = BTreeSet::new();
        let mut mounts: BTreeSet<&str> = BTreeSet::new();
        for (id, node) in self.ops() {
            let seen = seen_mounts(&node.op);
            let is_late = match &node.op {
                Op::Fetch(op) => pending(op),
                op => op.inputs().iter().any(|input| late.contains(input)) || seen.iter().any(|id| mounts.contains(id)),
            };
            if is_late {
                late.insert(id);
                mounts.extend(seen);
            }
        }
        late
    }
}

/// The ids of the cache mounts that an operation sees.
fn seen_mounts(op: &Op) -> Vec<&str> {
    let Op::Run(op) = op else { return Vec::new() };
    let mounts = op.mounts.iter().filter_map(|mount| match &mount.kind {
        MountKind::Cache { id, .. } => Some(id.as_str()),
        _ => None,
    });
    mounts.collect()
}
