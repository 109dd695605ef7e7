//! The loop that runs a graph: plans, looks up, starts what can be started, and gathers what comes of it. When something
//! comes that was on its way, it plans and looks up what needed it; what runs meanwhile goes on.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use super::agree::{self, Found, taken_from};
use super::arrivals::{Coming, OnTheWay, Outcome, Told};
use super::leaving::Leaving;
use super::plan::{Plans, Sight, StepPlan};
use super::schedule::Work;
use super::{ExecuteError, Executor, RootState, States, StepError, StepFailure, budget, described};
use crate::cache::{Content, PlanRecord, PlannedLayer};
use crate::event::{Event, StepId};
use crate::fetch::FetchedFile;
use crate::graph::{FetchOp, Graph, Node, Op, OpId, Root};

/// How long what runs beside a step that failed may still come to an end of its own: two compilers that fail for the same slip
/// are both told, and nobody waits long for it.
const TOGETHER: Duration = Duration::from_millis(500);

/// One run of a graph.
struct Run<'a> {
    executor: &'a Executor,
    graph: &'a Graph,
    steps: Vec<StepId>,
    /// What is still on its way.
    pending: BTreeMap<FetchOp, Coming>,
    /// What was on its way when the run began: whoever brings it tells of it.
    brought: BTreeSet<OpId>,
    /// What cannot start before something comes, each with what that is.
    held: BTreeMap<OpId, BTreeSet<OpId>>,
    fetched: HashMap<FetchOp, FetchedFile>,
    plans: Plans<'a>,
    work: Work,
    states: States,
    /// What is in roots that were found as a part of another.
    contents: HashMap<OpId, Content>,
    failures: Vec<StepFailure>,
    /// Whether nothing is started any more.
    is_stopped: bool,
    /// Until when others may still come to an end of their own.
    patience: Option<Instant>,
    /// Steps that were said to have started, or to have been found.
    told: BTreeSet<OpId>,
    /// What a waiting step was last said to wait for.
    said: BTreeMap<OpId, BTreeSet<OpId>>,
    /// Whether there was something to do.
    explains: bool,
}

impl Executor {
    /// Runs what the graph's result needs. Blocks; call it from a thread that may.
    ///
    /// # Errors
    /// Every step that failed, with its instruction and lines. None is started after the first failure, and those that still
    /// run are stopped when they have had half a second to end. The same when something that is on its way does not come;
    /// who brings it knows why.
    pub fn run(&self, graph: &Graph, on_the_way: OnTheWay) -> Result<States, ExecuteError> {
        let OnTheWay { pending, sender, receiver } = on_the_way;
        let coming = |node: &Node| match &node.op {
            Op::Fetch(op) => pending.get(op).map(|coming| coming.step),
            _ => None,
        };
        let steps = graph.ops().map(|(_, node)| coming(node).unwrap_or_else(|| self.steps.next())).collect();
        let brought: BTreeSet<OpId> =
            graph.ops().filter(|(_, node)| coming(node).is_some()).map(|(id, _)| id).collect();
        let run = Run {
            executor: self,
            graph,
            steps,
            pending,
            told: brought.clone(),
            brought,
            held: BTreeMap::new(),
            fetched: self.fetched.clone(),
            plans: self.begin_plans(graph),
            work: Work::default(),
            states: States::default(),
            contents: HashMap::new(),
            failures: Vec::new(),
            is_stopped: false,
            patience: None,
            said: BTreeMap::new(),
            explains: false,
        };
        run.all(&sender, &receiver)
    }

    /// What an earlier build made for the same plan: the step's layer and all below it.
    fn planned(&self, step: StepId, graph: &Graph, id: OpId, plans: &Plans<'_>) -> Option<Found> {
        let plan = plans.of(id);
        let record = self.records.plan(plan.key.filter(|_| plan.reads_chain)?)?;
        let mut state = self.bottom(graph, id);
        let mut chain: Vec<OpId> = chain(graph, id).collect();
        if chain.len() != record.layers.len() {
            return None;
        }
        let (mut steps, mut taken) = (Vec::new(), Vec::new());
        for PlannedLayer { key, record, took } in record.layers {
            let id = chain.pop()?;
            let others = taken_from(graph, &graph.node(id).op);
            if others.len() != took.len() {
                return None;
            }
            let leaving = Leaving { leaves: plan.leaving.leaves, ..plans.of(id).leaving };
            // Whatever is wrong with a record, the step can be looked for by its result, or run.
            let (mut layer, content) = self.in_form(step, key, &record, leaving).ok()??;
            state.content = state.content.with(content);
            steps.push((id, state.content));
            taken.extend(others.into_iter().zip(took.iter().copied()));
            // Its record is that of its own form, which may be another one than was looked for.
            if let Some(planned) = &mut layer.planned {
                Arc::make_mut(planned).took = took;
            }
            state.layers.push(layer);
        }
        Some(Found { state, steps, took: taken })
    }

    /// What lies below all steps of an operation's chain.
    fn bottom(&self, graph: &Graph, id: OpId) -> RootState {
        let mut id = id;
        loop {
            match (graph.node(id).op.below(), &graph.node(id).op) {
                (Some(Root::Of(below)), _) => id = below,
                (None, Op::Base(op)) => return self.base(op),
                _ => return RootState { layers: Vec::new(), content: Content::empty() },
            }
        }
    }

    /// Keeps the chain of layers of a plan, unless that is what is kept already.
    fn keep_plan(&self, plan: &StepPlan, state: &RootState) -> Result<(), StepError> {
        let Some(key) = plan.key else { return Ok(()) };
        let layers = state.layers.iter().filter_map(|layer| layer.planned.as_deref().cloned()).collect();
        let record = PlanRecord { layers };
        if self.records.plan(key).as_ref() != Some(&record) {
            self.records.keep_plan(key, &record)?;
        }
        Ok(())
    }

    pub(super) fn operation(
        &self,
        step: StepId,
        node: &Node,
        plan: &StepPlan,
        states: &States,
    ) -> Result<RootState, StepError> {
        let mut state = match &node.op {
            Op::Base(op) => return Ok(self.base(op)),
            Op::Copy(op) => self.copy(step, op, plan, states),
            Op::Run(op) => self.run_command(step, op, plan, states),
            // Who takes it found it when the steps were planned.
            Op::Fetch(_) => return Ok(RootState::scratch()),
        }?;
        let took = plan.takes.iter().map(|id| states.of(Root::Of(*id)).content).collect();
        if let Some(planned) = state.layers.last_mut().and_then(|layer| layer.planned.as_mut()) {
            Arc::make_mut(planned).took = took;
        }
        self.keep_plan(plan, &state)?;
        Ok(state)
    }
}

/// The steps that a layer each of an operation's root comes from, topmost first.
pub(super) fn chain(graph: &Graph, id: OpId) -> impl Iterator<Item = OpId> {
    std::iter::successors(Some(id), |id| graph.node(*id).op.below().and_then(Root::op))
        .filter(|id| graph.node(*id).op.below().is_some())
}

/// A search for what earlier builds left.
struct LookUp<'l, 'a> {
    run: &'l Run<'a>,
    plans: &'l Plans<'l>,
    /// Steps whose chains do not stand.
    refused: &'l BTreeSet<OpId>,
    looked: &'l mut HashMap<OpId, Option<Found>>,
    /// Steps whose chains are taken.
    standing: BTreeSet<OpId>,
    found: BTreeMap<OpId, RootState>,
}

impl LookUp<'_, '_> {
    fn is_known(&mut self, id: OpId) -> bool {
        let Run { executor, graph, steps, states, .. } = self.run;
        if states.get(id).is_some() || self.found.contains_key(&id) {
            return true;
        }
        if matches!(graph.node(id).op, Op::Base(_)) {
            return false;
        }
        // A lower step of a chain is that chain's, where it was searched for secrets as its own plan asks.
        let leaves = |of: OpId| self.plans.of(of).leaving.leaves;
        let mut above = self.standing.iter().rev().filter(|of| leaves(**of) || !leaves(id));
        let part = above.find_map(|of| self.looked.get(of)?.as_ref()?.up_to(id));
        let state = part.or_else(|| {
            if self.refused.contains(&id) {
                return None;
            }
            let look = || executor.planned(steps[id.index()], graph, id, self.plans);
            let found = self.looked.entry(id).or_insert_with(look).as_ref()?;
            self.standing.insert(id);
            Some(found.state.clone())
        });
        let is_known = state.is_some();
        self.found.extend(state.map(|state| (id, state)));
        is_known
    }

    /// The chains that cannot stand in what is found. What one says of a step that late ones may still need has to be found
    /// too: it may not come out otherwise later.
    fn wrong(&mut self, work: &Work, late: &BTreeSet<OpId>) -> BTreeSet<OpId> {
        let mut open = BTreeSet::new();
        let mut next: Vec<OpId> = late.iter().copied().collect();
        while let Some(id) = next.pop() {
            next.extend(self.run.graph.node(id).op.inputs().into_iter().filter(|input| open.insert(*input)));
        }
        let mut wrong = BTreeSet::new();
        let mut asked = BTreeSet::new();
        while let Some(of) = self.standing.iter().copied().find(|of| !late.contains(of) && asked.insert(*of)) {
            let claims: Vec<OpId> =
                self.looked.get(&of).into_iter().flatten().flat_map(Found::claims).map(|(id, _)| id).collect();
            let is_open = |id: &OpId| open.contains(id) && !late.contains(id) && !work.has(*id);
            if !claims.into_iter().filter(is_open).all(|id| self.is_known(id)) {
                wrong.insert(of);
            }
        }
        let chains = self.standing.iter().filter_map(|of| Some((*of, self.looked.get(of)?.as_ref()?)));
        let content = |id: OpId| {
            let found = self.found.get(&id).map(|state| state.content);
            found.or_else(|| self.run.states.get(id).map(|state| state.content))
        };
        wrong.extend(agree::wrong(chains, |id| work.has(id), content));
        wrong
    }
}

impl<'a> Run<'a> {
    fn all(mut self, sender: &Sender<Told>, receiver: &Receiver<Told>) -> Result<States, ExecuteError> {
        self.announce();
        let slots = budget::slots();
        std::thread::scope(|scope| {
            self.go_on();
            loop {
                if self.executor.cancel.is_cancelled() && !self.is_done() {
                    self.stop();
                }
                while let Some(id) = self.work.start(slots) {
                    if self.told.insert(id) {
                        self.hear(id, |step, name| Event::Started { step, name });
                    }
                    let (executor, node, plan) = (self.executor, self.graph.node(id), self.plans.of(id).clone());
                    let (step, sender) = (self.steps[id.index()], sender.clone());
                    let states = self.states.only(&node.op.inputs());
                    scope.spawn(move || {
                        let work = || executor.attempt(step, node, &plan, &states);
                        let outcome = catch_unwind(AssertUnwindSafe(work));
                        // The other end outlives every thread.
                        let _ = sender.send(Told::Step(id, outcome));
                    });
                }
                self.say_who_waits();
                // Who brings what is on its way waits for no step: nothing is left to do for it when it is stopped.
                if self.is_done() {
                    break;
                }
                let told = match self.patience {
                    None => receiver.recv().map_err(RecvTimeoutError::from),
                    Some(end) => receiver.recv_timeout(end.saturating_duration_since(Instant::now())),
                };
                match told {
                    Ok(Told::Step(id, outcome)) => self.ended(id, outcome),
                    Ok(Told::Arrived(op, file)) => {
                        self.pending.remove(&op);
                        self.fetched.insert(op, file);
                        self.go_on();
                    }
                    Ok(Told::Over) if self.pending.is_empty() => {}
                    Ok(Told::Over) => self.fall_out(),
                    Err(RecvTimeoutError::Timeout) => {
                        self.patience = None;
                        self.executor.cancel.cancel();
                    }
                    Err(RecvTimeoutError::Disconnected) => break,
                }
            }
        });
        if !self.failures.is_empty() {
            // What else belongs to the build: pushes, fetches.
            self.executor.cancel.cancel();
        }
        if !self.explains && !self.is_stopped {
            self.executor.explain_found(self.graph, &self.plans);
        }
        let content = |id| self.states.get(id).map(|state| state.content).or_else(|| self.contents.get(&id).copied());
        self.executor.end_explaining(self.graph, &self.plans, content);
        if self.is_stopped {
            return Err(self.error());
        }
        self.fill_in();
        Ok(self.states)
    }

    /// Nothing is left to do. That includes what was stopped too late to miss anything.
    fn is_done(&self) -> bool {
        self.work.is_done() && (self.is_stopped || self.pending.is_empty())
    }

    /// A step's thread is over.
    fn ended(&mut self, id: OpId, outcome: Outcome) {
        match outcome {
            Ok(Ok(state)) => {
                if !self.brought.contains(&id) {
                    self.events(Event::Finished { step: self.steps[id.index()] });
                }
                self.keep(id, state);
                self.work.finish(id);
            }
            Ok(Err(error)) => {
                self.failed(id, error);
                self.work.stop(id);
                self.fall_out();
            }
            Err(panic) => {
                self.executor.cancel.cancel();
                resume_unwind(panic);
            }
        }
    }

    /// Nothing is started any more.
    fn stop(&mut self) {
        self.is_stopped = true;
        self.work.clear();
    }

    /// The build cannot end well any more: what runs may come to its end for a while.
    fn fall_out(&mut self) {
        self.stop();
        if !self.executor.cancel.is_cancelled() {
            self.patience.get_or_insert(Instant::now() + TOGETHER);
        }
    }

    /// Plans what can be planned by now, and finds what of it is to be done.
    fn go_on(&mut self) {
        if self.is_stopped {
            return;
        }
        let (executor, graph) = (self.executor, self.graph);
        self.held = graph.late(|op| self.pending.contains_key(op));
        let now = Sight { late: self.held.keys().copied().collect(), fetched: self.fetched.clone() };
        if let Err((id, error)) = executor.plan(graph, &mut self.plans, &now) {
            self.hold_all();
            // That something did not come would go before it.
            if self.pending.is_empty() || matches!(error, StepError::Cancelled) {
                self.hear(id, |step, name| Event::Started { step, name });
                self.failed(id, error);
                self.fall_out();
            }
            return;
        }
        let plans = match now.late.is_empty() {
            true => {
                executor.stats.save(&executor.store);
                self.plans.clone()
            }
            false => match self.guess() {
                Some(guess) => guess,
                None => {
                    self.hold_all();
                    return;
                }
            },
        };
        self.look_up(&plans, &now.late);
        self.plans.learn(plans);
        self.explains |= !self.work.is_done();
        if self.explains {
            executor.begin_to_explain(graph, &self.plans, &now.late);
        }
    }

    /// The plans as they would be if what is on its way were what it was last time; without those that need what was never
    /// here. `None` where that cannot be told: then nothing begins before it is there.
    fn guess(&self) -> Option<Plans<'a>> {
        let mut fetched = self.fetched.clone();
        fetched.extend(self.pending.iter().filter_map(|(op, coming)| Some((op.clone(), coming.last.clone()?))));
        let late =
            self.graph.late(|op| self.pending.contains_key(op) && !fetched.contains_key(op)).into_keys().collect();
        let mut plans = self.plans.clone();
        self.executor.plan(self.graph, &mut plans, &Sight { late, fetched }).ok()?;
        Some(plans)
    }

    /// Names every step before any starts, so that views can show what is to come.
    fn announce(&self) {
        for (id, node) in self.graph.ops().filter(|(id, _)| !self.brought.contains(id)) {
            let (name, origin) = described(&node.about);
            let needs = node.op.inputs().into_iter().map(|input| self.steps[input.index()]).collect();
            self.events(Event::Planned { step: self.steps[id.index()], name, origin, needs });
        }
    }

    /// Finds what earlier builds made for the same plans, from the target backwards, and with it what is left to do. What is
    /// found for a step that is late is a guess: it keeps what lies below from being done, and nothing is said of it.
    fn look_up(&mut self, plans: &Plans<'_>, late: &BTreeSet<OpId>) {
        let graph = self.graph;
        let mut work = std::mem::take(&mut self.work);
        // Looked for once: what is found may have to be compressed in another way.
        let mut looked = HashMap::new();
        let mut refused = BTreeSet::new();
        let (found, standing) = loop {
            let mut sight = LookUp {
                run: &*self,
                plans,
                refused: &refused,
                looked: &mut looked,
                standing: BTreeSet::new(),
                found: BTreeMap::new(),
            };
            let inputs = |id: OpId| graph.node(id).op.inputs();
            work.find(graph.result.root.op(), inputs, |id| sight.is_known(id), |id| late.contains(&id));
            let wrong = sight.wrong(&work, late);
            let LookUp { found, standing, .. } = sight;
            if wrong.is_empty() {
                break (found, standing);
            }
            refused.extend(wrong);
        };
        for (id, _) in graph.ops() {
            work.wait_for(id, &plans.of(id).after);
        }
        let chains = standing.iter().filter(|id| !late.contains(id)).filter_map(|id| looked.get(id)?.as_ref());
        self.contents.extend(chains.flat_map(Found::claims));
        for (id, state) in found.into_iter().filter(|(id, _)| !late.contains(id)) {
            self.keep(id, state);
        }
        // What nothing needs any more, since a step above it was found, was found with it. Who needs it is known at the end.
        let is_found = |id: OpId| self.states.get(id).is_some() || late.is_empty() && !work.has(id);
        let found: Vec<OpId> =
            graph.ops().map(|(id, _)| id).filter(|id| is_found(*id) && !self.told.contains(id)).collect();
        self.work = work;
        for id in found {
            self.hear(id, |step, name| Event::Started { step, name });
            self.hear(id, |step, _| Event::Cached { step });
            self.hear(id, |step, _| Event::Finished { step });
            self.told.insert(id);
        }
    }

    fn keep(&mut self, id: OpId, state: RootState) {
        let state = Arc::new(state);
        if let Some(watcher) = &self.executor.watcher {
            watcher.finished(id, &state);
        }
        self.states.insert(id, state);
    }

    fn failed(&mut self, id: OpId, error: StepError) {
        let step = self.steps[id.index()];
        match error {
            StepError::Cancelled => self.events(Event::Stopped { step }),
            source => {
                self.events(Event::Failed { step, error: source.to_string() });
                let about = Box::new(self.graph.node(id).about.clone());
                self.failures.push(StepFailure { about, source: Box::new(source) });
            }
        }
    }

    fn error(self) -> ExecuteError {
        match self.failures.is_empty() || self.executor.interrupt.is_cancelled() {
            true => ExecuteError::Cancelled,
            false => ExecuteError::Steps { failures: self.failures },
        }
    }

    /// Nothing more begins before all that is on its way is there.
    fn hold_all(&mut self) {
        let pending = |op: &Op| matches!(op, Op::Fetch(op) if self.pending.contains_key(op));
        let fetches: BTreeSet<OpId> =
            self.graph.ops().filter(|(_, node)| pending(&node.op)).map(|(id, _)| id).collect();
        for (id, _) in self.graph.ops() {
            self.held.entry(id).or_insert_with(|| fetches.clone());
        }
    }

    /// What a step waits for that cannot start before something comes: inputs, and what else holds it back.
    fn held_by(&self, id: OpId, fetches: &BTreeSet<OpId>) -> BTreeSet<OpId> {
        let is_open =
            |input: &OpId| self.work.has(*input) || self.held.contains_key(input) && self.states.get(*input).is_none();
        let mut on: BTreeSet<OpId> = self.graph.node(id).op.inputs().into_iter().filter(is_open).collect();
        let theirs: BTreeSet<OpId> = on.iter().filter_map(|input| self.held.get(input)).flatten().copied().collect();
        on.extend(fetches.difference(&theirs));
        on
    }

    fn say_who_waits(&mut self) {
        let mut waiting: BTreeMap<OpId, BTreeSet<OpId>> =
            self.work.waiting().map(|(id, inputs)| (id, inputs.clone())).collect();
        if !self.is_stopped {
            let held = self.held.iter().filter(|(id, _)| !self.told.contains(id) && !self.work.has(**id));
            waiting.extend(held.map(|(id, fetches)| (*id, self.held_by(*id, fetches))));
        }
        waiting.retain(|id, inputs| self.said.get(id) != Some(inputs));
        for (id, inputs) in waiting {
            let on = inputs.iter().map(|input| self.steps[input.index()]).collect();
            self.events(Event::Waiting { step: self.steps[id.index()], on });
            self.said.insert(id, inputs);
        }
    }

    /// Gives every step of the result its part of the result's own chain: its layer's time is told in the history.
    fn fill_in(&mut self) {
        let Some(target) = self.graph.result.root.op() else { return };
        let mut state = (*self.states.of(self.graph.result.root)).clone();
        for id in chain(self.graph, target) {
            self.states.insert(id, Arc::new(state.clone()));
            state.layers.pop();
        }
    }

    fn hear(&self, id: OpId, event: impl FnOnce(StepId, String) -> Event) {
        self.events(event(self.steps[id.index()], self.graph.node(id).about.title()));
    }

    fn events(&self, event: Event) {
        self.executor.events.hear(event);
    }
}
