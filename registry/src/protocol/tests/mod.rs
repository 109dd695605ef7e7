//! The machines over a store in memory, with every request of several operations and collectors interleaved at random.
//!
//! What is checked after every single request is what clients were told: an acknowledged manifest has a copy and its
//! blobs (M), an index keeps the children that it found (I), a tag has the value that acknowledged operations allow (T).
//! A crash is an operation that is never scheduled again, so a check that holds after every request covers crashes.
//! That the checks can fail is itself a test: leave out reading the marks, or the look afterwards, and they do.

mod actors;
mod scenarios;
mod world;

use std::collections::{HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use super::mutation::{Mutation, with};
use actors::{Actor, Run};
use scenarios::{SCENARIOS, Scenario};
use world::{Fault, World};

const SEEDS: u64 = 1000;

/// Runs a scenario with schedules made of these seeds; the first broken promise, if any.
fn explore(scenario: &Scenario, seeds: u64, fault: Fault) -> Option<String> {
    (0..seeds).find_map(|seed| {
        let mut world = World::new(fault);
        let mut actors = (scenario.build)(&mut world);
        let mut run = Run::new(seed);
        while let Some(done) = run.one(&mut actors, &mut world) {
            if let Err(broken) = (scenario.check)(&world) {
                return Some(format!("{} seed {seed}: {broken}, after {done}\n{}", scenario.name, run.history()));
            }
        }
        None
    })
}

/// Every state that a scenario can come to, nearest first, until there are `limit` of them.
fn exhaust(scenario: &Scenario, limit: usize) -> (usize, Option<String>) {
    let mut world = World::new(Fault::None);
    let mut actors = (scenario.build)(&mut world);
    actors.iter_mut().for_each(|actor| _ = actor.choices(&mut world));
    let mut seen = HashSet::from([fingerprint(&actors, &world)]);
    let mut open = VecDeque::from([(actors, world, Vec::new())]);
    while let Some((mut actors, mut world, path)) = open.pop_front() {
        for index in 0..actors.len() {
            for choice in 0..actors[index].choices(&mut world) {
                let (mut actors, mut world, mut path) = (actors.clone(), world.clone(), path.clone());
                let done = actors[index].act(choice, &mut world);
                actors.iter_mut().for_each(|actor| _ = actor.choices(&mut world));
                path.push((index, choice));
                if let Err(broken) = (scenario.check)(&world) {
                    let history = replay(scenario, &path);
                    return (seen.len(), Some(format!("{}: {broken}, after {done}\n{history}", scenario.name)));
                }
                if seen.insert(fingerprint(&actors, &world)) {
                    open.push_back((actors, world, path));
                }
            }
        }
        if seen.len() >= limit {
            break;
        }
    }
    (seen.len(), None)
}

/// Two hashes of 64 bits: states are told apart by them alone.
fn fingerprint(actors: &[Actor], world: &World) -> (u64, u64) {
    let hash = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (salt, actors, world).hash(&mut hasher);
        hasher.finish()
    };
    (hash(0), hash(1))
}

fn replay(scenario: &Scenario, path: &[(usize, usize)]) -> String {
    let mut world = World::new(Fault::None);
    let mut actors = (scenario.build)(&mut world);
    let mut lines = Vec::new();
    for (index, choice) in path {
        actors.iter_mut().for_each(|actor| _ = actor.choices(&mut world));
        lines.push(actors[*index].act(*choice, &mut world));
    }
    lines.join("\n")
}

#[test]
fn every_promise_holds_in_the_nearest_states() {
    for scenario in SCENARIOS {
        if let (_, Some(broken)) = exhaust(scenario, 2_000) {
            panic!("{broken}");
        }
    }
}

#[test]
#[ignore = "takes minutes: for whoever changes a machine; best with --release"]
fn every_promise_holds_in_every_state() {
    for scenario in SCENARIOS {
        let (states, broken) = exhaust(scenario, 3_000_000);
        if let Some(broken) = broken {
            panic!("{broken}");
        }
        eprintln!("{states:8} states: {}", scenario.name);
    }
}

#[test]
fn every_promise_holds_whatever_comes_between() {
    for scenario in SCENARIOS {
        if let Some(broken) = explore(scenario, SEEDS, Fault::None) {
            panic!("{broken}");
        }
    }
}

#[test]
fn a_store_that_hides_its_marks_is_caught() {
    assert!(SCENARIOS.iter().any(|scenario| explore(scenario, SEEDS, Fault::NoMarks).is_some()));
}

#[test]
fn a_store_that_says_everything_is_there_is_caught() {
    assert!(SCENARIOS.iter().any(|scenario| explore(scenario, SEEDS, Fault::AlwaysThere).is_some()));
}

#[test]
fn a_collector_that_does_not_look_after_marking_is_caught() {
    assert!(SCENARIOS.iter().any(|scenario| explore(scenario, SEEDS, Fault::LooksBeforeMarking).is_some()));
}

#[test]
fn a_delete_that_ends_no_tags_is_caught() {
    assert!(SCENARIOS.iter().any(|scenario| explore(scenario, SEEDS, Fault::EndsAreLost).is_some()));
}

#[test]
fn a_step_left_out_is_caught() {
    for mutation in [Mutation::NothingSeen, Mutation::CopiesBeforeEnds] {
        let caught =
            with(Some(mutation), || SCENARIOS.iter().any(|scenario| explore(scenario, SEEDS, Fault::None).is_some()));
        assert!(caught, "{mutation:?} is not caught");
    }
}

#[test]
fn operations_do_nothing_twice_when_alone() {
    // Alone, a push of a new tag asks the store for exactly what the design budgets (one blob): links 1, copies 1, copy 1,
    // catalog 1 (first push only), marks 1, links 1, data 1, then the tag's six.
    let mut world = World::new(Fault::None);
    let mut actors = scenarios::lone_push(&mut world);
    let mut run = Run::new(0);
    let mut requests = 0;
    while run.one(&mut actors, &mut world).is_some() {
        requests += 1;
    }
    assert_eq!(requests, 13, "{}", run.history());
}
