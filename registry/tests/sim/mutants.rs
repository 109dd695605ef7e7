//! Steps of the protocol left out of the real service: the simulation shows the damage.
//!
//! That every step of the protocol is missed is the model's to show (`protocol::tests::mutations`). This says that the
//! simulation is not blind: the steps that collection, immutable tags and uploads rest on, it has to miss each within some
//! thousand seeds. The others need more seeds than this; that undo confirms was not missed in 10,000.
//!
//! `FLUYT_SIM_MUTANT_SEEDS=1000` counts in how many of these seeds each one shows; `FLUYT_SIM_MUTANT=NoMark` this one alone.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{MANY, each_seed, number, simulate};
use crate::protocol::{BREAKS, Mutation, with};

/// What shows, the most visible first.
const SHOWN: &[Mutation] = &[
    Mutation::BlobsNotSeen,
    Mutation::NoMark,
    Mutation::LookBeforeMark,
    Mutation::UnmarkBeforeDelete,
    Mutation::ListBeforeClaim,
    Mutation::ClaimNotVoided,
    Mutation::RivalsBeforeClaim,
];
/// The same, of what is the service's own and the model does not know.
const SERVICE: &[Mutation] = &[
    Mutation::CancelForgotten,
    Mutation::PlaceUnchecked,
    Mutation::DigestUnchecked,
    Mutation::StatusOfLocation,
    Mutation::ClaimKept,
];
/// Within so many seeds.
const SEEDS: u64 = 10_000;

fn shows(mutation: Mutation, seed: u64) -> bool {
    with(Some(mutation), || simulate(seed, &Arc::default(), false)).broken.is_some()
}

#[test]
fn steps_that_are_left_out_show() {
    let many = number("FLUYT_SIM_SEEDS").is_some_and(|seeds| seeds >= MANY);
    let looked_for = if many { [SHOWN, SERVICE].concat() } else { vec![SHOWN[0], SERVICE[0]] };
    for mutation in &looked_for {
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
    let breaks = BREAKS.iter().map(|(name, mutation, _)| (*name, *mutation));
    let all = breaks.chain(SERVICE.iter().map(|mutation| ("service", *mutation)));
    let one = std::env::var("FLUYT_SIM_MUTANT").ok();
    for (name, mutation) in all.filter(|(_, mutation)| one.as_ref().is_none_or(|one| *one == format!("{mutation:?}"))) {
        let found = AtomicU64::new(0);
        each_seed(0, seeds, |seed| {
            found.fetch_add(shows(mutation, seed).into(), Ordering::Relaxed);
            ControlFlow::Continue(())
        });
        println!("{:10}  of {seeds} seeds show {name} ({mutation:?})", found.into_inner());
    }
}
