//! Steps of the protocol left out of the real service: the simulation shows the damage.
//!
//! That every step is missed is the model's to show (`protocol::tests::mutations`). This says that the simulation is not
//! blind: of the steps that collection rests on, it has to miss each within some hundred seeds. The others need what its
//! clients do not do (undo, immutable tags, two PATCHes at once), or more seeds than this.
//!
//! `FLUYT_SIM_MUTANT_SEEDS=1000` counts in how many of these seeds each one shows.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{MANY, each_seed, number, simulate};
use crate::protocol::{BREAKS, Mutation, with};

/// What shows, the most visible first.
const SHOWN: &[Mutation] =
    &[Mutation::BlobsNotSeen, Mutation::NoMark, Mutation::LookBeforeMark, Mutation::UnmarkBeforeDelete];
/// Within so many seeds.
const SEEDS: u64 = 3000;

fn shows(mutation: Mutation, seed: u64) -> bool {
    with(Some(mutation), || simulate(seed, &Arc::default(), false)).broken.is_some()
}

#[test]
fn steps_that_are_left_out_show() {
    let many = number("FLUYT_SIM_SEEDS").is_some_and(|seeds| seeds >= MANY);
    let looked_for = if many { SHOWN } else { &SHOWN[..1] };
    for mutation in looked_for {
        let (found, tried) = (AtomicU64::new(u64::MAX), AtomicU64::new(0));
        each_seed(0, SEEDS, |seed| {
            tried.fetch_add(1, Ordering::Relaxed);
            if !shows(*mutation, seed) {
                return ControlFlow::Continue(());
            }
            found.fetch_min(seed, Ordering::Relaxed);
            ControlFlow::Break(())
        });
        let (found, tried) = (found.into_inner(), tried.into_inner());
        assert!(found < SEEDS, "{mutation:?} shows in none of {tried} seeds");
        println!("{found:10}  is the seed that shows {mutation:?}");
    }
}

#[test]
fn counts_of_what_shows() {
    let Some(seeds) = number("FLUYT_SIM_MUTANT_SEEDS") else { return };
    for (name, mutation, _) in BREAKS {
        let found = AtomicU64::new(0);
        each_seed(0, seeds, |seed| {
            found.fetch_add(shows(*mutation, seed).into(), Ordering::Relaxed);
            ControlFlow::Continue(())
        });
        println!("{:10}  of {seeds} seeds show {name} ({mutation:?})", found.into_inner());
    }
}
