//! Which commands of different stages run one after the other, because they use the same cache mount.
//!
//! Stages do not wait for each other, and two commands that share a mount run at the same time: most mounts are caches,
//! whose content decides how long a command takes and not what it leaves. Two things are different.
//! - In a mount that earlier builds used lie their outputs. A command that runs beside one that is about to replace them
//!   might take yesterday's, and what it leaves would be found under today's keys from then on. So of the commands that
//!   have to run, those that see such a mount run in the order of the Dockerfile.
//! - A mount that is read-only has nothing but what others put in: whoever reads it so always waits for them.
//!
//! With `sharing=private` a command asks to be beside others, and may see a copy of its own: it waits for nobody.

use std::collections::{BTreeMap, BTreeSet};

use crate::blob::Store;
use crate::cache_mount::CacheMounts;
use crate::graph::{Graph, MountKind, Op, OpId, RunOp, Sharing};

/// Who waits for whom; asked for each command in the order of the Dockerfile.
#[derive(Debug)]
pub(super) struct CacheOrder<'g, F> {
    /// Commands that may write to a mount, by its id.
    writers: BTreeMap<&'g str, Vec<OpId>>,
    /// Whether an earlier build used a mount of that id.
    is_used: F,
    known: BTreeMap<&'g str, bool>,
}

/// In the mounts of a store.
pub(super) fn cache_order<'g>(store: &Store) -> CacheOrder<'g, impl FnMut(&str) -> bool + use<'g>> {
    let mounts = CacheMounts::new(store.clone());
    CacheOrder::new(move |id| mounts.is_used(id))
}

/// Sees that the mounts which a graph's commands may use stay as long as the build goes on, also when the disk is full.
pub(super) fn hold_caches(store: &Store, graph: &Graph) {
    let mounts = graph.ops().filter_map(|(_, node)| if let Op::Run(op) = &node.op { Some(&op.mounts) } else { None });
    let caches = mounts.flatten().filter_map(|mount| match &mount.kind {
        MountKind::Cache { id, .. } => Some(id.as_str()),
        _ => None,
    });
    if let Err(error) = CacheMounts::new(store.clone()).hold(&caches.collect()) {
        tracing::debug!(%error, "cache mounts are not held before they are used");
    }
}

impl<'g, F: FnMut(&str) -> bool> CacheOrder<'g, F> {
    fn new(is_used: F) -> Self {
        Self { writers: BTreeMap::new(), is_used, known: BTreeMap::new() }
    }

    /// The earlier commands that must be over before this one begins.
    pub(super) fn next(&mut self, id: OpId, op: &'g RunOp) -> Vec<OpId> {
        let mut after = BTreeSet::new();
        for mount in &op.mounts {
            let MountKind::Cache { id: cache, sharing, .. } = &mount.kind else { continue };
            let Some(writers) = self.writers.get(cache.as_str()).filter(|_| *sharing != Sharing::Private) else {
                continue;
            };
            if mount.read_only || *self.known.entry(cache).or_insert_with(|| (self.is_used)(cache)) {
                after.extend(writers);
            }
        }
        for mount in op.mounts.iter().filter(|mount| !mount.read_only) {
            if let MountKind::Cache { id: cache, .. } = &mount.kind {
                self.writers.entry(cache).or_default().push(id);
            }
        }
        // One command may have a mount twice.
        after.remove(&id);
        after.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::graph::{Mount, MountFrom, Network, Root, Security};
    use crate::image::Platform;

    /// A command with these mounts: id, how it is shared, whether it is read-only.
    fn command(mounts: &[(&str, Sharing, bool)]) -> RunOp {
        let mount = |(id, sharing, read_only): &(&str, Sharing, bool)| Mount {
            target: format!("/{id}"),
            source: String::new(),
            from: MountFrom::Nothing,
            read_only: *read_only,
            kind: MountKind::Cache { id: (*id).to_owned(), sharing: *sharing, mode: 0o755, uid: 0, gid: 0 },
        };
        RunOp {
            input: Root::Scratch,
            argv: Vec::new(),
            env: Vec::new(),
            proxy_env: Vec::new(),
            cwd: "/".to_owned(),
            user: String::new(),
            mounts: mounts.iter().map(mount).collect(),
            network: Network::Default,
            security: Security::Sandbox,
            conditions: Arc::default(),
            script: None,
            platform: Platform::new("linux", "amd64", None),
        }
    }

    fn waits(commands: &[&[(&str, Sharing, bool)]], used: &str) -> Vec<Vec<usize>> {
        let commands: Vec<RunOp> = commands.iter().map(|mounts| command(mounts)).collect();
        let mut order = CacheOrder::new(|id: &str| id == used);
        let next = |(number, op)| order.next(OpId::at(number), op).into_iter().map(OpId::index).collect();
        commands.iter().enumerate().map(next).collect()
    }

    #[test]
    fn commands_wait_where_they_could_find_what_is_old() {
        let (shared, locked) = (("c", Sharing::Shared, false), ("c", Sharing::Locked, false));
        let (private, reader) = (("c", Sharing::Private, false), ("c", Sharing::Shared, true));
        let other = ("d", Sharing::Shared, false);
        let none = Vec::<usize>::new;
        // A fresh mount: only readers wait.
        assert_eq!(waits(&[&[shared], &[locked], &[reader], &[reader]], ""), [none(), none(), vec![0, 1], vec![0, 1]]);
        // One with outputs of earlier builds.
        assert_eq!(
            waits(&[&[shared], &[other], &[locked], &[private], &[other], &[shared, other]], "c"),
            [none(), none(), vec![0], none(), none(), vec![0, 2, 3]]
        );
        // Nobody waits for a reader, nor for itself.
        assert_eq!(waits(&[&[reader], &[shared, reader], &[shared]], "c"), [none(), none(), vec![1]]);
    }
}
