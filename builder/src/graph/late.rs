//! What cannot be told of a graph before all that it fetches is there.

use std::collections::{BTreeMap, BTreeSet};

use super::{FetchOp, Graph, MountKind, Op, OpId};

impl Graph {
    /// The operations whose keys cannot be told before what is `pending` is there, each with the fetches that it is late for:
    /// these fetches, and all that needs them.
    ///
    /// With them go commands that see a cache mount which an earlier late one sees, for reading or for writing: the key of a
    /// command counts who may have written to its mounts before, and the late one has no key yet.
    #[must_use]
    pub fn late(&self, pending: impl Fn(&FetchOp) -> bool) -> BTreeMap<OpId, BTreeSet<OpId>> {
        let mut late: BTreeMap<OpId, BTreeSet<OpId>> = BTreeMap::new();
        let mut mounts: BTreeMap<&str, BTreeSet<OpId>> = BTreeMap::new();
        for (id, node) in self.ops() {
            let seen = seen_mounts(&node.op);
            let fetches: BTreeSet<OpId> = match &node.op {
                Op::Fetch(op) => pending(op).then_some(id).into_iter().collect(),
                op => {
                    let of_inputs = op.inputs().into_iter().filter_map(|input| late.get(&input)).flatten();
                    of_inputs.chain(seen.iter().filter_map(|mount| mounts.get(mount)).flatten()).copied().collect()
                }
            };
            if !fetches.is_empty() {
                for mount in seen {
                    mounts.entry(mount).or_default().extend(&fetches);
                }
                late.insert(id, fetches);
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
