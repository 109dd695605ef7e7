//! The loop that runs a graph: plans, looks up, starts what can be started, and gathers what comes of it.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::leaving::Leaving;
use super::plan::{Plans, StepPlan};
use super::schedule::Work;
use super::{ExecuteError, Executor, RootState, States, StepError, StepFailure, budget, described};
use crate::cache::{Content, PlanRecord, PlannedLayer};
use crate::event::{Event, StepId};
use crate::graph::{Graph, Node, Op, OpId, Root};

/// How long what runs beside a step that failed may still come to an end of its own: two compilers that fail for the same slip
/// are both told, and nobody waits long for it.
const TOGETHER: Duration = Duration::from_millis(500);

/// What a thread says when its step is over.
type Outcome = Result<Result<RootState, StepError>, Box<dyn Any + Send>>;

/// One run of a graph.
struct Run<'a> {
    executor: &'a Executor,
    graph: &'a Graph,
    steps: Vec<StepId>,
    states: States,
    failures: Vec<StepFailure>,
    /// What a waiting step was last said to wait for.
    said: BTreeMap<OpId, BTreeSet<OpId>>,
}

impl Executor {
    /// Runs what the graph's result needs. Blocks; call it from a thread that may.
    ///
    /// # Errors
    /// Every step that failed, with its instruction and lines. None is started after the first failure, and those that still
    /// run are stopped when they have had half a second to end.
    pub fn run(&self, graph: &Graph) -> Result<States, ExecuteError> {
        let steps = graph.ops().map(|_| self.steps.next()).collect();
        let said = BTreeMap::new();
        let run = Run { executor: self, graph, steps, states: States::default(), failures: Vec::new(), said };
        run.all()
    }

    /// What an earlier build made for the same plan: the step's layer and all below it.
    fn planned(&self, step: StepId, graph: &Graph, id: OpId, plan: &StepPlan) -> Option<RootState> {
        let record = self.records.plan(plan.key.filter(|_| plan.reads_chain)?)?;
        let mut state = self.bottom(graph, id);
        let mut steps: Vec<OpId> = chain(graph, id).collect();
        if steps.len() != record.layers.len() {
            return None;
        }
        for PlannedLayer { key, record } in &record.layers {
            let leaving = Leaving::of(&graph.node(steps.pop()?).op, plan.leaving.leaves);
            // Whatever is wrong with a record, the step can be looked for by its result, or run.
            let (layer, content) = self.in_form(step, *key, record, leaving).ok()??;
            state.content = state.content.with(content);
            state.layers.push(layer);
        }
        Some(state)
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
        let state = match &node.op {
            Op::Base(op) => return Ok(self.base(op)),
            Op::Copy(op) => self.copy(step, op, plan, states),
            Op::Run(op) => self.run_command(step, op, plan, states),
            // Who takes it found it when the steps were planned.
            Op::Fetch(_) => return Ok(RootState::scratch()),
        }?;
        self.keep_plan(plan, &state)?;
        Ok(state)
    }
}

/// The steps that a layer each of an operation's root comes from, topmost first.
pub(super) fn chain(graph: &Graph, id: OpId) -> impl Iterator<Item = OpId> {
    std::iter::successors(Some(id), |id| graph.node(*id).op.below().and_then(Root::op))
        .filter(|id| graph.node(*id).op.below().is_some())
}

impl Run<'_> {
    fn all(mut self) -> Result<States, ExecuteError> {
        self.announce();
        let plans = match self.executor.plan(self.graph) {
            Ok(plans) => plans,
            Err((id, error)) => {
                self.hear(id, |step, name| Event::Started { step, name });
                self.failed(id, error);
                return Err(self.error());
            }
        };
        let mut work = self.look_up(&plans);
        if !work.is_done() {
            self.executor.begin_to_explain(self.graph, &plans);
        }
        let slots = budget::slots();
        let (sender, receiver) = mpsc::channel::<(OpId, Outcome)>();
        std::thread::scope(|scope| {
            let mut patience: Option<Instant> = None;
            while !work.is_done() {
                if self.executor.cancel.is_cancelled() {
                    work.clear();
                }
                while let Some(id) = work.start(slots) {
                    self.hear(id, |step, name| Event::Started { step, name });
                    let (executor, node, plan) = (self.executor, self.graph.node(id), plans.of(id));
                    let (step, sender) = (self.steps[id.index()], sender.clone());
                    let states = self.states.only(&node.op.inputs());
                    scope.spawn(move || {
                        let work = || executor.attempt(step, node, plan, &states);
                        let outcome = catch_unwind(AssertUnwindSafe(work));
                        // The other end outlives every thread.
                        let _ = sender.send((id, outcome));
                    });
                }
                self.say_who_waits(&work);
                if work.is_done() {
                    break;
                }
                let told = match patience {
                    None => receiver.recv().map_err(RecvTimeoutError::from),
                    Some(end) => receiver.recv_timeout(end.saturating_duration_since(Instant::now())),
                };
                let (id, outcome) = match told {
                    Ok(told) => told,
                    Err(RecvTimeoutError::Timeout) => {
                        patience = None;
                        self.executor.cancel.cancel();
                        continue;
                    }
                    Err(RecvTimeoutError::Disconnected) => break,
                };
                match outcome {
                    Ok(Ok(state)) => {
                        self.events(Event::Finished { step: self.steps[id.index()] });
                        self.keep(id, state);
                        work.finish(id);
                    }
                    Ok(Err(error)) => {
                        self.failed(id, error);
                        work.stop(id);
                        if !self.executor.cancel.is_cancelled() {
                            patience.get_or_insert(Instant::now() + TOGETHER);
                        }
                    }
                    Err(panic) => {
                        self.executor.cancel.cancel();
                        resume_unwind(panic);
                    }
                }
            }
        });
        if !self.failures.is_empty() {
            // What else belongs to the build: pushes, fetches.
            self.executor.cancel.cancel();
        }
        self.executor.end_explaining(&self.states);
        if !self.failures.is_empty() || self.executor.cancel.is_cancelled() {
            return Err(self.error());
        }
        self.fill_in();
        Ok(self.states)
    }

    /// Names every step before any starts, so that views can show what is to come.
    fn announce(&self) {
        for (id, node) in self.graph.ops() {
            let (name, origin) = described(&node.about);
            let needs = node.op.inputs().into_iter().map(|input| self.steps[input.index()]).collect();
            self.events(Event::Planned { step: self.steps[id.index()], name, origin, needs });
        }
    }

    /// Finds what earlier builds made for the same plans, from the target backwards; gives what is left to do.
    fn look_up(&mut self, plans: &Plans) -> Work {
        let graph = self.graph;
        let mut found = Vec::new();
        let mut work = Work::find(
            graph.result.root.op(),
            |id| graph.node(id).op.inputs(),
            |id| {
                let state = match &graph.node(id).op {
                    Op::Base(_) => None,
                    _ => self.executor.planned(self.steps[id.index()], graph, id, plans.of(id)),
                };
                let known = state.is_some();
                found.extend(state.map(|state| (id, state)));
                known
            },
        );
        for (id, _) in graph.ops() {
            work.wait_for(id, &plans.of(id).after);
        }
        for (id, state) in found {
            self.keep(id, state);
        }
        // What nothing needs any more, since a step above it was found, was found with it.
        for (id, _) in graph.ops().filter(|(id, _)| !work.has(*id)) {
            self.hear(id, |step, name| Event::Started { step, name });
            self.hear(id, |step, _| Event::Cached { step });
            self.hear(id, |step, _| Event::Finished { step });
        }
        work
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

    fn say_who_waits(&mut self, work: &Work) {
        for (id, inputs) in work.waiting() {
            if self.said.get(&id) == Some(inputs) {
                continue;
            }
            let on = inputs.iter().map(|input| self.steps[input.index()]).collect();
            self.events(Event::Waiting { step: self.steps[id.index()], on });
            self.said.insert(id, inputs.clone());
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
