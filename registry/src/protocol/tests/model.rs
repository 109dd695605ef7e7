//! A scenario as a model of stateright.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use stateright::{Checker, Model, Property};

use super::actors::Actor;
use super::scenarios::Scenario;
use super::world::World;
use crate::protocol::mutation::{Mutation, with};

/// A scenario, with a step left out or none.
#[derive(Clone, Debug)]
pub(super) struct Scene {
    scenario: &'static Scenario,
    mutation: Option<Mutation>,
}

/// A part of a state with its hash, which is made once.
#[derive(Clone, Debug)]
pub(super) struct Kept<T>(u64, Arc<T>);

impl<T: Hash> Kept<T> {
    fn new(value: T) -> Self {
        let mut hasher = DefaultHasher::new();
        value.hash(&mut hasher);
        Self(hasher.finish(), Arc::new(value))
    }
}

impl<T> Hash for Kept<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl<T: PartialEq> PartialEq for Kept<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0 && self.1 == other.1
    }
}

#[derive(Clone, Debug, PartialEq, Hash)]
pub(super) struct State {
    world: Kept<World>,
    actors: Vec<Kept<Actor>>,
}

/// Which actor goes on, and which of its requests is answered next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Step {
    actor: usize,
    choice: usize,
}

/// What an exploration came to.
pub(super) struct Seen {
    pub(super) states: usize,
    pub(super) complete: bool,
    /// Which promise, and the shortest history that breaks it.
    pub(super) broken: Option<String>,
}

impl Model for Scene {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        with(self.mutation, || {
            let mut world = World::default();
            let mut actors = (self.scenario.build)(&mut world);
            actors.iter_mut().for_each(|actor| actor.prepare(&mut world));
            vec![State { world: Kept::new(world), actors: actors.into_iter().map(Kept::new).collect() }]
        })
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        with(self.mutation, || {
            for (actor, who) in state.actors.iter().enumerate() {
                steps.extend((0..who.1.choices(&state.world.1)).map(|choice| Step { actor, choice }));
            }
        });
    }

    fn next_state(&self, state: &State, step: Step) -> Option<State> {
        Some(self.after(state, step).0)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![Property::always("promises", |scene, state| scene.check(state).is_ok())]
    }
}

impl Scene {
    pub(super) fn new(scenario: &'static Scenario, mutation: Option<Mutation>) -> Self {
        Self { scenario, mutation }
    }

    fn after(&self, state: &State, step: Step) -> (State, String) {
        with(self.mutation, || {
            let mut actor = (*state.actors[step.actor].1).clone();
            let mut world = (*state.world.1).clone();
            let text = actor.act(step.choice, &mut world);
            let mut next = state.clone();
            if world != *state.world.1 {
                next.world = Kept::new(world);
            }
            next.actors[step.actor] = Kept::new(actor);
            (next, text)
        })
    }

    fn check(&self, state: &State) -> Result<(), &'static str> {
        with(self.mutation, || {
            (self.scenario.check)(&state.world.1)?;
            let Some(alone) = self.scenario.alone else { return Ok(()) };
            let (mut actor, mut world) = (alone(), (*state.world.1).clone());
            actor.prepare(&mut world);
            while actor.choices(&world) > 0 {
                actor.act(0, &mut world);
            }
            if actor.succeeded() { Ok(()) } else { Err("L: who starts over, alone, is not acknowledged") }
        })
    }

    /// Every state, nearest first, until there are `limit` of them or time is up.
    pub(super) fn explore(&self, limit: usize, time: Duration) -> Seen {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let mut checker = self.clone().checker().threads(threads);
        if limit < usize::MAX {
            checker = checker.target_state_count(limit);
        }
        if time < Duration::MAX {
            checker = checker.timeout(time);
        }
        let checker = checker.spawn_bfs().join();
        let broken = checker.discovery("promises").map(|path| {
            let steps = path.into_actions();
            self.replay(steps)
        });
        let complete = broken.is_none() && checker.is_done() && checker.state_count() < limit;
        Seen { states: checker.unique_state_count(), complete, broken }
    }

    fn replay(&self, steps: impl IntoIterator<Item = Step>) -> String {
        let mut state = self.init_states().remove(0);
        let mut history = String::new();
        for step in steps {
            let (next, text) = self.after(&state, step);
            history.push_str(&text);
            history.push('\n');
            state = next;
        }
        format!("{}, after\n{history}", self.check(&state).err().unwrap_or("nothing is broken"))
    }

    /// Walks from the start to the end, as often as that, going on with one actor for a while: long gaps come up as well
    /// as short ones, which the nearest states do not show.
    pub(super) fn walk(&self, walks: u64) -> Option<String> {
        (0..walks).find_map(|seed| {
            let mut random = Random::new(seed);
            let mut state = self.init_states().remove(0);
            let (mut steps, mut taken, mut burst) = (Vec::new(), Vec::new(), (0, 0));
            loop {
                steps.clear();
                self.actions(&state, &mut steps);
                if steps.is_empty() {
                    return None;
                }
                if burst.1 == 0 || steps.iter().all(|step| step.actor != burst.0) {
                    burst = (steps[random.below(steps.len())].actor, 1 + random.below(8));
                }
                burst.1 -= 1;
                steps.retain(|step| step.actor == burst.0);
                let step = steps[random.below(steps.len())];
                taken.push(step);
                state = self.after(&state, step).0;
                if self.check(&state).is_err() {
                    return Some(format!("walk {seed}: {}", self.replay(taken)));
                }
            }
        })
    }
}

/// xorshift: the same walks on every machine.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678_9abc_def1)
    }

    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from((self.0 >> 16) % limit as u64).unwrap()
    }
}
