//! What of a graph has to be done, and in which order: pure, so that it is tested without running anything.
//!
//! Work is found from the target backwards: an operation whose result is known needs none of its inputs. What is left is
//! started as soon as all its inputs are there, as many at a time as there are slots. When more becomes known, work is found
//! again: what is still on its way (a download) holds back what needs it, and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use crate::graph::OpId;

/// The part of a graph that has to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Work {
    /// Each operation with those of its inputs that are not there yet.
    waiting: BTreeMap<OpId, BTreeSet<OpId>>,
    /// Who waits for an operation.
    users: BTreeMap<OpId, Vec<OpId>>,
    running: BTreeSet<OpId>,
}

impl Work {
    /// Finds all that `target` needs, in place of what was found before. `known` is asked once for each operation that is
    /// needed, users before their inputs; inputs of one whose result is known are not needed for it. What runs goes on, needed
    /// or not. What is `held`, with all that needs it, is not started: it is found when it is held no more.
    pub(super) fn find(
        &mut self,
        target: Option<OpId>,
        inputs: impl Fn(OpId) -> Vec<OpId>,
        mut known: impl FnMut(OpId) -> bool,
        held: impl Fn(OpId) -> bool,
    ) {
        self.waiting.clear();
        self.users.clear();
        let mut done = BTreeSet::new();
        // Inputs stand before their users, so the highest number left is nobody's input that is still to be asked.
        let mut needed: BTreeSet<OpId> = target.into_iter().collect();
        while let Some(id) = needed.pop_last() {
            if self.running.contains(&id) {
                // It has its inputs.
                continue;
            }
            if known(id) {
                done.insert(id);
                continue;
            }
            let inputs: BTreeSet<OpId> = inputs(id).into_iter().collect();
            needed.extend(&inputs);
            self.waiting.insert(id, inputs);
        }
        self.waiting.retain(|id, _| !held(*id));
        for (id, inputs) in &mut self.waiting {
            inputs.retain(|input| !done.contains(input));
            for input in inputs.iter() {
                self.users.entry(*input).or_default().push(*id);
            }
        }
    }

    /// Lets an operation wait for others that are to be done as well, though it needs nothing of what they leave. Those must
    /// be earlier ones.
    pub(super) fn wait_for(&mut self, id: OpId, others: &[OpId]) {
        let others: Vec<OpId> = others.iter().filter(|other| self.has(**other)).copied().collect();
        let Some(inputs) = self.waiting.get_mut(&id) else { return };
        for other in others {
            debug_assert!(other < id);
            if inputs.insert(other) {
                self.users.entry(other).or_default().push(id);
            }
        }
    }

    /// Whether nothing is left, neither to start nor running.
    pub(super) fn is_done(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }

    /// Whether the operation is, or was, part of the work.
    pub(super) fn has(&self, id: OpId) -> bool {
        self.waiting.contains_key(&id) || self.running.contains(&id)
    }

    /// The operations that wait, each with what it waits for; with nothing, it waits for its turn.
    pub(super) fn waiting(&self) -> impl Iterator<Item = (OpId, &BTreeSet<OpId>)> {
        self.waiting.iter().map(|(id, inputs)| (*id, inputs))
    }

    /// Takes the next operation that can be started while fewer than `slots` run: the first of the Dockerfile.
    pub(super) fn start(&mut self, slots: usize) -> Option<OpId> {
        if self.running.len() >= slots {
            return None;
        }
        let id = self.waiting.iter().find(|(_, inputs)| inputs.is_empty()).map(|(id, _)| *id)?;
        self.waiting.remove(&id);
        self.running.insert(id);
        Some(id)
    }

    /// An operation is done: those that waited for it may start.
    pub(super) fn finish(&mut self, id: OpId) {
        self.running.remove(&id);
        for user in self.users.remove(&id).unwrap_or_default() {
            if let Some(inputs) = self.waiting.get_mut(&user) {
                inputs.remove(&id);
            }
        }
    }

    /// An operation did not come to its end; nothing is started any more.
    pub(super) fn stop(&mut self, id: OpId) {
        self.running.remove(&id);
        self.clear();
    }

    /// Nothing is started any more.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
    }
}

/// How many operations run at the same time on so many cores and with so much memory.
///
/// Steps wait for networks and disks as much as for cores, so there are two for each core; a command that has less than
/// 256 MiB is more likely to be killed than to be quicker.
pub(super) fn slots(cores: usize, memory_bytes: Option<u64>) -> usize {
    const STEP_BYTES: u64 = 256 * 1024 * 1024;
    let by_memory = memory_bytes.map_or(usize::MAX, |bytes| usize::try_from(bytes / STEP_BYTES).unwrap_or(usize::MAX));
    (2 * cores.max(1)).min(by_memory).max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(number: usize) -> OpId {
        OpId::at(number)
    }

    /// Work of which nothing is held.
    fn found(target: Option<OpId>, inputs: impl Fn(OpId) -> Vec<OpId>, known: impl FnMut(OpId) -> bool) -> Work {
        let mut work = Work::default();
        work.find(target, inputs, known, |_| false);
        work
    }

    #[test]
    fn what_is_known_needs_no_inputs() {
        // 0 <- 1 <- 2, 3 <- 4; 4 takes from 2 and 3.
        let inputs = |of: OpId| match of.index() {
            1 => vec![id(0)],
            2 => vec![id(1)],
            4 => vec![id(2), id(3)],
            _ => vec![],
        };
        let mut asked = Vec::new();
        let mut work = found(Some(id(4)), inputs, |of| {
            asked.push(of.index());
            of.index() == 2
        });
        assert_eq!(asked, [4, 3, 2]);
        assert_eq!(work.start(9), Some(id(3)));
        assert_eq!(work.start(9), None);
        assert_eq!(work.waiting().collect::<Vec<_>>(), [(id(4), &BTreeSet::from([id(3)]))]);
        work.finish(id(3));
        assert_eq!(work.start(9), Some(id(4)));
        work.finish(id(4));
        assert!(work.is_done());
        assert!(found(None, |_| vec![], |_| false).is_done());
    }

    #[test]
    fn what_is_waited_for_is_not_needed() {
        // 1 and 2 stand on 0; 4 takes from 2 and 3; 3 waits for 1 and 2, of which 1 is not part of the work.
        let inputs = |of: OpId| match of.index() {
            1 | 2 => vec![id(0)],
            4 => vec![id(2), id(3)],
            _ => vec![],
        };
        let mut work = found(Some(id(4)), inputs, |of| of.index() == 0);
        work.wait_for(id(3), &[id(1), id(2)]);
        work.wait_for(id(1), &[id(0)]);
        assert_eq!((work.start(9), work.start(9)), (Some(id(2)), None));
        work.finish(id(2));
        assert_eq!((work.start(9), work.start(9)), (Some(id(3)), None));
        work.finish(id(3));
        assert_eq!(work.start(9), Some(id(4)));
    }

    #[test]
    fn after_a_failure_nothing_starts() {
        let mut work = found(Some(id(2)), |of| if of == id(2) { vec![id(0), id(1)] } else { vec![] }, |_| false);
        assert_eq!((work.start(1), work.start(1)), (Some(id(0)), None));
        assert_eq!(work.start(2), Some(id(1)));
        work.stop(id(0));
        assert!(!work.is_done());
        work.finish(id(1));
        assert_eq!(work.start(2), None);
        assert!(work.is_done());
    }

    #[test]
    fn what_is_held_holds_back_only_what_needs_it() {
        // 0 is on its way; 1 stands on it; 2 stands on nothing; 3 takes from 1 and 2.
        let inputs = |of: OpId| match of.index() {
            1 => vec![id(0)],
            3 => vec![id(1), id(2)],
            _ => vec![],
        };
        let mut work = Work::default();
        let mut asked = Vec::new();
        let mut ask = |of: OpId| {
            asked.push(of.index());
            false
        };
        work.find(Some(id(3)), inputs, &mut ask, |of| [0, 1, 3].contains(&of.index()));
        assert_eq!((work.start(9), work.start(9)), (Some(id(2)), None));
        // It came: what runs is not asked for again, and is waited for.
        work.find(Some(id(3)), inputs, &mut ask, |_| false);
        assert_eq!(asked, [3, 2, 1, 0, 3, 1, 0]);
        work.wait_for(id(3), &[id(2)]);
        assert_eq!((work.start(9), work.start(9)), (Some(id(0)), None));
        work.finish(id(0));
        assert_eq!((work.start(9), work.start(9)), (Some(id(1)), None));
        work.finish(id(1));
        assert_eq!(work.start(9), None);
        work.finish(id(2));
        assert_eq!(work.start(9), Some(id(3)));
    }

    #[test]
    fn one_waits_for_an_earlier_one_that_runs_already() {
        let inputs = |of: OpId| if of == id(2) { vec![id(0), id(1)] } else { vec![] };
        let mut work = Work::default();
        work.find(Some(id(2)), inputs, |_| false, |of| of != id(0));
        assert_eq!((work.start(9), work.start(9)), (Some(id(0)), None));
        work.find(Some(id(2)), inputs, |_| false, |_| false);
        work.wait_for(id(1), &[id(0)]);
        assert_eq!(work.start(9), None);
        work.finish(id(0));
        assert_eq!(work.start(9), Some(id(1)));
    }

    #[test]
    fn slots_follow_cores_and_memory() {
        let mib = |mib: u64| Some(mib * 1024 * 1024);
        assert_eq!(slots(1, None), 2);
        assert_eq!(slots(4, mib(16_384)), 8);
        assert_eq!(slots(4, mib(600)), 2);
        assert_eq!(slots(4, mib(100)), 1);
        assert_eq!(slots(0, None), 2);
    }

    proptest! {
        /// Any graph, any set of known results, any number of slots and any order of finishing.
        #[test]
        fn each_needed_operation_runs_once_and_after_its_inputs(
            edges in proptest::collection::vec(proptest::collection::vec(any::<prop::sample::Index>(), 0..4), 1..25),
            known in proptest::collection::vec(any::<bool>(), 25),
            slots in 1_usize..5,
            picks in proptest::collection::vec(any::<prop::sample::Index>(), 60),
        ) {
            let inputs = |of: OpId| -> Vec<OpId> {
                let number = of.index();
                edges[number].iter().filter(|_| number > 0).map(|edge| id(edge.index(number))).collect()
            };
            let target = id(edges.len() - 1);
            let mut work = found(Some(target), inputs, |of| known[of.index()]);
            let mut needed = BTreeSet::new();
            let mut open = vec![target];
            while let Some(of) = open.pop() {
                if !known[of.index()] && needed.insert(of) {
                    open.extend(inputs(of));
                }
            }
            let (mut running, mut done) = (Vec::new(), BTreeSet::new());
            let mut picks = picks.iter().cycle();
            while !work.is_done() {
                while let Some(started) = work.start(slots) {
                    prop_assert!(needed.contains(&started));
                    prop_assert!(inputs(started).iter().all(|input| done.contains(input) || known[input.index()]));
                    running.push(started);
                }
                prop_assert!(!running.is_empty() && running.len() <= slots);
                let finished = running.swap_remove(picks.next().unwrap().index(running.len()));
                prop_assert!(done.insert(finished));
                work.finish(finished);
            }
            prop_assert_eq!(done, needed);
        }

        /// As above, where some operations are on their way and come at any time. Until then it is guessed whether what needs
        /// them is known: where all guesses are right, what is done is what would be done had they been there from the start.
        #[test]
        fn what_comes_late_changes_nothing_but_the_order(
            edges in proptest::collection::vec(proptest::collection::vec(any::<prop::sample::Index>(), 0..4), 1..25),
            known in proptest::collection::vec(any::<bool>(), 25),
            guesses in proptest::option::of(proptest::collection::vec(any::<bool>(), 25)),
            pending in proptest::collection::vec(proptest::bool::weighted(0.2), 25),
            slots in 1_usize..5,
            picks in proptest::collection::vec(any::<prop::sample::Index>(), 120),
        ) {
            let inputs = |of: OpId| -> Vec<OpId> {
                let number = of.index();
                edges[number].iter().filter(|_| number > 0).map(|edge| id(edge.index(number))).collect()
            };
            let target = id(edges.len() - 1);
            let needed_of = |done: &BTreeSet<OpId>| {
                let (mut needed, mut open) = (BTreeSet::new(), vec![target]);
                while let Some(of) = open.pop() {
                    if !known[of.index()] && !done.contains(&of) && needed.insert(of) {
                        open.extend(inputs(of));
                    }
                }
                needed
            };
            let mut pending: Vec<OpId> = (0..edges.len()).filter(|number| pending[*number]).map(id).collect();
            let (mut work, mut running, mut done) = (Work::default(), Vec::new(), BTreeSet::new());
            let mut picks = picks.iter().cycle();
            let mut look = true;
            while look || !work.is_done() || !pending.is_empty() {
                let mut held = BTreeSet::new();
                for of in (0..edges.len()).map(id) {
                    if pending.contains(&of) || inputs(of).iter().any(|input| held.contains(input)) {
                        held.insert(of);
                    }
                }
                let is_known = |of: OpId| {
                    let guessed = guesses.as_ref().filter(|_| held.contains(&of)).map(|guesses| guesses[of.index()]);
                    done.contains(&of) || guessed.unwrap_or(known[of.index()])
                };
                if std::mem::take(&mut look) {
                    work.find(Some(target), inputs, is_known, |of| held.contains(&of));
                }
                while let Some(started) = work.start(slots) {
                    prop_assert!(!held.contains(&started) && !done.contains(&started) && !running.contains(&started));
                    prop_assert!(inputs(started).iter().all(|input| done.contains(input) || known[input.index()]));
                    running.push(started);
                }
                prop_assert!(running.len() <= slots && !(running.is_empty() && pending.is_empty() && !work.is_done()));
                let pick = picks.next().unwrap();
                match pick.index(running.len() + pending.len() + 1) {
                    number if number < running.len() => {
                        let finished = running.swap_remove(number);
                        prop_assert!(done.insert(finished));
                        work.finish(finished);
                    }
                    number if number < running.len() + pending.len() => {
                        pending.swap_remove(number - running.len());
                        look = true;
                    }
                    _ => {}
                }
            }
            prop_assert_eq!(needed_of(&done), BTreeSet::new());
            if guesses.is_none() {
                prop_assert_eq!(done, needed_of(&BTreeSet::new()));
            }
        }
    }
}
