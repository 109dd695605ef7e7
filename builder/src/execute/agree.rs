//! Which chains of earlier builds may stand beside each other in this one.
//!
//! A plan says what a step does, not what came of it: two runs of one command leave two different files. A chain of layers
//! that one build left is whole in itself, but it may hold files of another stage (`COPY --from`, a bind mount), and this
//! build may have that stage of another run: a program of Monday beside the library of Tuesday. So a chain is kept with what
//! was in the other roots that its steps took from, and stands only where nothing in this build says otherwise. A step whose
//! chain does not stand is looked for by its result, which is found where nothing that it takes has changed.

use std::collections::{BTreeMap, BTreeSet};

use super::RootState;
use crate::cache::Content;
use crate::graph::{CopyFrom, Graph, MountFrom, Op, OpId, Root};

/// The chain of layers that an earlier build left for a step.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) state: RootState,
    /// The steps of the chain with what was in the root then, bottom first.
    pub(super) steps: Vec<(OpId, Content)>,
    /// What was in the other roots that they took from.
    pub(super) took: Vec<(OpId, Content)>,
}

impl Found {
    /// The part of the chain up to one of its lower steps.
    pub(super) fn up_to(&self, id: OpId) -> Option<RootState> {
        let place = self.steps.iter().position(|(step, _)| *step == id)?;
        let above = self.steps.len() - 1 - place;
        let layers = self.state.layers[..self.state.layers.len() - above].to_vec();
        Some(RootState { layers, content: self.steps[place].1 })
    }

    /// What the chain says of steps.
    pub(super) fn claims(&self) -> impl Iterator<Item = (OpId, Content)> {
        self.steps.iter().chain(&self.took).copied()
    }
}

/// The other steps whose roots an operation takes files of or mounts, in its own order: whichever graph it stands in.
pub(super) fn taken_from(graph: &Graph, op: &Op) -> Vec<OpId> {
    let roots: Vec<Root> = match op {
        Op::Copy(op) => match op.from {
            CopyFrom::Root(root) => vec![root],
            _ => Vec::new(),
        },
        Op::Run(op) => {
            let root = |from: &MountFrom| match from {
                MountFrom::Root(root) => Some(*root),
                _ => None,
            };
            op.mounts.iter().filter_map(|mount| root(&mount.from)).collect()
        }
        Op::Base(_) | Op::Fetch(_) => Vec::new(),
    };
    // A base image is what its plan says. What stands below is the chain's own.
    let is_step = |id: &OpId| graph.node(*id).op.below().is_some();
    let below = op.below().and_then(Root::op);
    roots.into_iter().filter_map(Root::op).filter(|id| is_step(id) && Some(*id) != below).collect()
}

/// The chains that cannot stand: those that say of a step what is not so, or that is still to be done, and of two that say
/// different things of one that nobody else needs, the lower one.
pub(super) fn wrong<'f>(
    chains: impl DoubleEndedIterator<Item = (OpId, &'f Found)> + Clone,
    is_to_be_done: impl Fn(OpId) -> bool,
    content: impl Fn(OpId) -> Option<Content>,
) -> BTreeSet<OpId> {
    let fits = |(id, said): (OpId, Content)| !is_to_be_done(id) && content(id).is_none_or(|content| content == said);
    let wrong: BTreeSet<OpId> =
        chains.clone().filter(|(_, found)| !found.claims().all(fits)).map(|(id, _)| id).collect();
    if !wrong.is_empty() {
        return wrong;
    }
    let mut said: BTreeMap<OpId, Content> = BTreeMap::new();
    let agrees = |found: &Found, said: &mut BTreeMap<OpId, Content>| {
        found.claims().all(|(id, content)| *said.entry(id).or_insert(content) == content)
    };
    chains.rev().filter(|(_, found)| !agrees(found, &mut said)).map(|(id, _)| id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> OpId {
        OpId::at(number)
    }

    fn content(text: &str) -> Content {
        Content::of_base(&[text.to_owned()])
    }

    /// A chain of one step that took this of that root.
    fn chain(step: usize, of: usize, text: &str) -> Found {
        let own = content("own");
        let state = RootState { layers: Vec::new(), content: own };
        Found { state, steps: vec![(id(step), own)], took: vec![(id(of), content(text))] }
    }

    #[test]
    fn chains_of_different_runs_do_not_stand_together() {
        let wrong = |chains: &[(usize, &Found)], to_be_done: &[usize], known: &[(usize, &str)]| {
            let chains = chains.iter().map(|(number, found)| (id(*number), *found));
            let known = |of: OpId| known.iter().find(|(number, _)| id(*number) == of).map(|(_, text)| content(text));
            let wrong = wrong(chains, |of| to_be_done.iter().any(|number| id(*number) == of), known);
            wrong.into_iter().map(OpId::index).collect::<Vec<_>>()
        };
        let (monday, tuesday) = (chain(5, 1, "monday"), chain(6, 1, "tuesday"));
        assert_eq!(wrong(&[(5, &monday)], &[], &[]), [0; 0]);
        assert_eq!(wrong(&[(5, &monday)], &[1], &[]), [5], "it runs again");
        assert_eq!(wrong(&[(5, &monday), (6, &tuesday)], &[], &[(1, "tuesday")]), [5]);
        assert_eq!(wrong(&[(5, &monday), (6, &tuesday)], &[], &[]), [5], "the one that stands for more stays");
        assert_eq!(wrong(&[(5, &monday), (6, &chain(6, 1, "monday"))], &[], &[(1, "monday")]), [0; 0]);
        // A lower step of its own chain is no other one than the chain's.
        assert_eq!(wrong(&[(5, &monday)], &[], &[(5, "other run")]), [5]);
    }
}
