//! Pushes of manifests against collectors of copies, and what indexes keep; sessions.

use super::{PUT, Scenario, expect, manifests_whole, old_copy, old_link, old_tag, put, put_tag, value_is};
use crate::protocol::tests::actors::{Kind, Op, When, client, collector, tagged};
use crate::protocol::tests::world::{Fact, World, digest, repo};

fn whole_and_tagged(world: &World) -> Result<(), &'static str> {
    manifests_whole(world)?;
    expect(world.value("t").is_some(), "T: the tag names nothing")
}

/// I: an index keeps the child that was there.
fn child_there(world: &World) -> Result<(), &'static str> {
    let acknowledged = world.facts.contains(&Fact::Manifest { repo: repo(PUT.to), digest: digest("index") });
    let promised = acknowledged && world.facts.contains(&Fact::ChildSeen);
    expect(!promised || !world.copies_of(&repo("a"), &digest("kid")).is_empty(), "I: a child is lost")
}

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "s04a a broken copy is pushed again, collectors of copies and links",
        build: |world| {
            old_copy(world, "m", "c0");
            vec![
                client("p", 3, vec![Op::Upload("a"), put("m")]),
                collector("r1", &[Kind::Copies], false),
                collector("r2", &[Kind::Links], false),
            ]
        },
        check: manifests_whole,
        alone: None,
    },
    Scenario {
        name: "s04b a push by digest of what retention lets go",
        build: |world| {
            old_link(world, "a");
            old_copy(world, "m", "ret0");
            vec![client("p", 1, vec![put("m")]), collector("r1", &[Kind::Copy("ret0")], false)]
        },
        check: manifests_whole,
        alone: None,
    },
    Scenario {
        name: "s04c a push by tag of what retention lets go",
        build: |world| {
            old_link(world, "a");
            old_copy(world, "m", "ret0");
            old_tag(world, "t", 1, "m0", "c1");
            vec![
                client("p", 1, vec![put_tag("m")]),
                collector("r1", &[Kind::Copy("ret0")], false),
                collector("r2", &[Kind::Links], false),
            ]
        },
        check: whole_and_tagged,
        alone: None,
    },
    Scenario {
        name: "s04d a push again after a delete",
        build: |world| {
            old_link(world, "a");
            old_copy(world, "m", "c0");
            vec![
                client("p", 1, vec![put_tag("m")]),
                client("d", 1, vec![Op::DeleteManifest("m")]),
                // Its entry has a lesser place than one of `p` of the same order.
                client("b", 1, vec![Op::After(When::Deleted("m")), put_tag("m")]),
            ]
        },
        check: |world| expect(!tagged(world, "b") || value_is(world, "m"), "T: a push begun after the DELETE is lost"),
        alone: None,
    },
    Scenario {
        name: "s08a an index, and retention of its child",
        build: |world| {
            old_link(world, "a");
            old_copy(world, "kid", "ret0");
            vec![
                client("p", 1, vec![put("index")]),
                collector("r1", &[Kind::Copies], true),
                collector("r2", &[Kind::Copy("ret0")], false),
            ]
        },
        check: child_there,
        alone: None,
    },
    Scenario {
        name: "s08b an index, and collection of its broken child",
        build: |world| {
            old_copy(world, "kid", "c0");
            vec![client("p", 1, vec![put("index")]), collector("r1", &[Kind::Copies], false)]
        },
        check: child_there,
        alone: None,
    },
    Scenario {
        name: "s10b a blob is deleted while a tag is pushed",
        build: |world| {
            old_link(world, "a");
            old_copy(world, "m", "c0");
            old_tag(world, "t", 1, "m0", "c1");
            vec![
                client("d", 1, vec![Op::DeleteBlob]),
                client("p", 1, vec![put_tag("m")]),
                collector("r1", &[Kind::Copies], false),
            ]
        },
        check: |world| expect(world.value("t").is_some(), "T: the tag names nothing, though nobody deleted it"),
        alone: None,
    },
    Scenario {
        name: "s14 PATCHes continue one session",
        build: |_| ["p", "q", "r"].map(|name| client(name, 1, vec![Op::Patch])).into(),
        check: |world| {
            let going = world.facts.iter().filter(|fact| matches!(fact, Fact::GoesOn { .. })).count();
            expect(going < 2, "U: two PATCHes go on")
        },
        alone: None,
    },
];
