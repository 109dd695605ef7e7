//! The machines over a store in memory: every state that several operations, collectors and late requests can come to.
//!
//! Each request is one step, in any order; what is checked in every state is what clients were told: an acknowledged
//! manifest has a copy and its blobs (M), an index keeps the children that it found (I), a tag has the value that
//! acknowledged operations allow (T), a session and an immutable tag go to one (U), and whoever starts over is
//! acknowledged (L). A crash is an operation that is never scheduled again, so what holds in every state covers crashes.
//! That the checks can fail is shown by leaving out each step in turn (`mutations`).

mod actors;
mod model;
mod mutations;
mod scenarios;
mod world;

use std::time::{Duration, Instant};

use model::Scene;
pub(crate) use mutations::BREAKS;

/// How thoroughly to look: `FLUYT_MODEL` says `full` (all there is) or `ci` (some minutes; `spec-tests/run model` builds
/// with optimisation for both). Otherwise enough to notice a slip.
fn effort() -> (usize, u64) {
    match std::env::var("FLUYT_MODEL").as_deref() {
        Ok("full") => (usize::MAX, 10_000),
        Ok("ci") => (1_000_000, 1_000),
        _ => (2_000, 50),
    }
}

#[test]
fn every_promise_holds() {
    let start = Instant::now();
    let mut total = 0;
    for scenario in scenarios::all() {
        let begun = Instant::now();
        let seen = Scene::new(scenario, None).explore(effort().0, Duration::MAX);
        if let Some(broken) = seen.broken {
            panic!("{}: {broken}", scenario.name);
        }
        total += seen.states;
        let all = if seen.complete { "all" } else { "the nearest" };
        eprintln!("{:9} states ({all}), {:5.1} s: {}", seen.states, begun.elapsed().as_secs_f32(), scenario.name);
    }
    eprintln!("{total} states in {:.0} s", start.elapsed().as_secs_f32());
}

/// Known, and written down where the promise is: whoever closes such a hole moves the scenario to the others.
#[test]
fn limits_are_where_they_are_said_to_be() {
    for scenario in scenarios::limits() {
        let seen = Scene::new(scenario, None).explore(1_000_000, Duration::MAX);
        assert!(seen.broken.is_some(), "{} holds in all {} states", scenario.name, seen.states);
    }
}

#[test]
fn every_promise_holds_on_long_walks() {
    for scenario in scenarios::all() {
        if let Some(broken) = Scene::new(scenario, None).walk(effort().1) {
            panic!("{}: {broken}", scenario.name);
        }
    }
}

#[test]
fn operations_do_nothing_twice_when_alone() {
    // Alone, a push of a new tag asks the store for exactly what the design budgets (one blob): links 1, copies 1, copy 1,
    // marks 1, links 1, data 1, then the tag's six.
    let mut world = world::World::default();
    let mut actor = scenarios::lone_push(&mut world).remove(0);
    actor.prepare(&mut world);
    let mut history = Vec::new();
    while actor.choices(&world) > 0 {
        history.push(actor.act(0, &mut world));
    }
    assert!(actor.succeeded());
    assert_eq!(history.len(), 12, "{history:#?}");
}
