//! The machines over a store in memory, with every request of several operations and collectors interleaved at random.
//!
//! What is checked after every single request is what clients were told: an acknowledged manifest has a copy and its
//! blobs (M), an index keeps the children that it found (I), a tag has the value that acknowledged operations allow (T).
//! A crash is an operation that is never scheduled again, so a check that holds after every request covers crashes.
//! That the checks can fail is itself a test: leave out reading the marks, or the look afterwards, and they do.

mod scenarios;
mod world;

use scenarios::{SCENARIOS, Scenario};
use world::{Fault, Run, World};

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
