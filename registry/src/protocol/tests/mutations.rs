//! Every step that the protocol's safety rests on, left out in turn: the model must show the damage.

use std::time::{Duration, Instant};

use super::model::Scene;
use super::scenarios;
use crate::protocol::mutation::Mutation;

/// The breaks of the design's model (`store_model.py --list`), what leaves the same step out here, and the scenario that
/// shows the damage.
pub(crate) const BREAKS: &[(&str, Mutation, &str)] = &[
    ("confirm", Mutation::NothingSeen, "s04c"),
    ("confirm", Mutation::BlobsNotSeen, "s01a"),
    ("order", Mutation::ThereBeforeMarks, "s04e"),
    ("mark", Mutation::NoMark, "s01a"),
    ("lookagain", Mutation::LookBeforeMark, "s01a"),
    ("unmarklast", Mutation::UnmarkBeforeDelete, "s01a"),
    ("tagconfirm", Mutation::TagNotConfirmed, "s04c"),
    ("publishlast", Mutation::PublishFirst, "s15a"),
    ("goneorder", Mutation::EndAtNextOrder, "s05a"),
    ("gonenonce", Mutation::EndWholeOrder, "s05b"),
    ("markedshare", Mutation::LinkMarkedData, "s12a"),
    ("knownlink", Mutation::RelyOnNewLink, "s01b"),
    ("childconfirm", Mutation::ChildrenNotConfirmed, "s08b"),
    ("parentlook", Mutation::ParentsIgnored, "s08b"),
    ("copyhead", Mutation::CopyNotConfirmed, "s04e"),
    ("freshcopy", Mutation::DigestTakesCopy, "s04b"),
    ("foreignmark", Mutation::MarkGoesEarly, "s13"),
    ("claim", Mutation::ListBeforeClaim, "s14"),
    ("reserve", Mutation::RivalsBeforeClaim, "s15a"),
    ("void", Mutation::ClaimNotVoided, "s15b"),
    ("undoconfirm", Mutation::UndoNotConfirmed, "s09"),
    ("skipdead", Mutation::DeadEntryHides, "s04d"),
    ("afterhead", Mutation::NoLookAfterPublishing, "s05c"),
    ("endfirst", Mutation::CopiesBeforeEnds, "s16"),
    ("endagain", Mutation::TagsOnce, "s05c"),
];

#[test]
fn every_step_that_is_left_out_is_missed() {
    let mut missed = Vec::new();
    for (name, mutation, number) in BREAKS {
        let begun = Instant::now();
        let scenario = scenarios::all().find(|scenario| scenario.name.split(' ').next() == Some(number)).unwrap();
        let seen = Scene::new(scenario, Some(*mutation)).explore(1_000_000, Duration::MAX);
        let Some(broken) = seen.broken else {
            missed.push((*name, *mutation));
            continue;
        };
        let promise = broken.lines().next().unwrap_or_default();
        let (states, seconds) = (seen.states, begun.elapsed().as_secs_f32());
        eprintln!("{name:12} {mutation:?}: {states} states, {seconds:.1} s, {}: {promise}", scenario.name);
    }
    assert!(missed.is_empty(), "nothing shows the damage of {missed:?}");
}
