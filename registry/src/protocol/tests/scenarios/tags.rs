//! Tags: moved, deleted, undone, immutable, with entries of the past that come back.

use super::{Scenario, entry, expect, manifests_whole, old_copy, old_link, old_tag, put_immutable, put_tag, value_is};
use crate::protocol::Object;
use crate::protocol::tests::actors::{Actor, Kind, Op, When, client, collector, tagged};
use crate::protocol::tests::world::{Fact, World, digest, nonce, repo};

fn late(name: &'static str) -> Actor {
    client(name, 1, vec![Op::LateTag("t")])
}

fn deleted(world: &World, manifest: &str) -> bool {
    world.facts.contains(&Fact::Deleted(digest(manifest)))
}

fn failed(world: &World, who: &'static str) -> bool {
    world.facts.contains(&Fact::Failed { by: who })
}

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "s05a a tag moves while its old value is deleted",
        build: |world| {
            old_link(world, "a");
            old_tag(world, "t", 1, "m", "c1");
            vec![client("p", 1, vec![put_tag("m2")]), client("d", 1, vec![Op::DeleteManifest("m")]), late("late")]
        },
        check: |world| {
            expect(!tagged(world, "p") || value_is(world, "m2"), "T: the acknowledged new value is lost")?;
            expect(!deleted(world, "m") || !value_is(world, "m"), "T: a deleted manifest is back")
        },
        alone: None,
    },
    Scenario {
        name: "s05b two pushes of a tag and a delete of one value",
        build: |world| {
            old_link(world, "a");
            old_copy(world, "m", "c1");
            old_copy(world, "m2", "c2");
            vec![
                client("p", 1, vec![put_tag("m")]),
                client("q", 1, vec![put_tag("m2")]),
                client("r", 1, vec![Op::After(When::Sees("p", "q", "m2")), Op::Note]),
                client("d", 1, vec![Op::After(When::Tagged("p")), Op::DeleteManifest("m")]),
            ]
        },
        check: |world| {
            let seen = world.facts.contains(&Fact::Saw);
            expect(!seen || value_is(world, "m2"), "T: a value that was read went by a DELETE of another manifest")
        },
        alone: None,
    },
    Scenario {
        name: "s05c a push of a manifest that is being deleted",
        build: |world| {
            old_link(world, "a");
            old_tag(world, "t", 1, "m0", "c0");
            old_copy(world, "m", "c1");
            vec![client("p", 1, vec![put_tag("m")]), client("d", 1, vec![Op::DeleteManifest("m")]), late("late")]
        },
        check: |world| {
            let both = tagged(world, "p") && deleted(world, "m");
            expect(!both || !value_is(world, "m0"), "T: a superseded value is back")
        },
        alone: None,
    },
    Scenario {
        name: "s06a a push, then the tag is deleted",
        build: |world| {
            old_link(world, "a");
            old_tag(world, "t", 1, "m", "c1");
            old_copy(world, "m2", "c2");
            vec![client("p", 1, vec![put_tag("m2"), Op::DeleteTag]), late("late"), late("later")]
        },
        check: |world| {
            let untagged = world.facts.contains(&Fact::Untagged);
            expect(!untagged || world.value("t").is_none(), "T: a deleted tag is back")
        },
        alone: None,
    },
    Scenario {
        name: "s06b the tag is deleted, then pushed, while another push overlaps",
        build: |world| {
            old_link(world, "a");
            old_tag(world, "t", 1, "m", "c1");
            old_copy(world, "m2", "c2");
            old_copy(world, "m3", "c3");
            vec![client("p", 1, vec![put_tag("m2")]), client("q", 1, vec![Op::DeleteTag, put_tag("m3")]), late("late")]
        },
        check: |world| {
            let pushed = value_is(world, "m2") || value_is(world, "m3");
            expect(!tagged(world, "q") || pushed, "T: a push begun after the DELETE is lost")?;
            let untagged = world.facts.contains(&Fact::Untagged);
            expect(!untagged || !value_is(world, "m"), "T: a deleted value is back")
        },
        alone: None,
    },
    Scenario {
        name: "s07 two pushes of a tag overlap, then a third",
        build: |world| {
            old_link(world, "a");
            old_tag(world, "t", 1, "m", "c1");
            old_copy(world, "m2", "c2");
            old_copy(world, "m3", "c3");
            vec![
                client("p", 1, vec![put_tag("m2")]),
                client("q", 1, vec![put_tag("m")]),
                client("z", 1, vec![Op::After(When::BothTagged("p", "q")), put_tag("m3")]),
                late("late"),
            ]
        },
        check: |world| {
            expect(!tagged(world, "z") || value_is(world, "m3"), "T: the later push is lost")?;
            let any = tagged(world, "p") || tagged(world, "q");
            expect(!any || world.value("t").is_some(), "T: the tag names nothing")
        },
        alone: None,
    },
    Scenario {
        name: "s09 undo, and collectors of the copy",
        build: |world| {
            old_link(world, "a");
            old_copy(world, "m", "ret0");
            // Its history entry is past the window.
            let old = entry("t", 1, "m", "ret0", "exp");
            world.insert(Object::History(old.clone()));
            old_tag(world, "t", 2, "m2", "c2");
            vec![
                client("u", 1, vec![Op::Undo(old)]),
                collector("r1", &[Kind::Copy("ret0")], false),
                collector("r2", &[Kind::Copy("ret0")], true),
            ]
        },
        check: |world| {
            let new = value_is(world, "m");
            expect(new || !tagged(world, "u") && value_is(world, "m2"), "T: the tag does not name what it has to")
        },
        alone: None,
    },
    Scenario {
        name: "s09b undo, and a delete of the manifest",
        build: |world| {
            old_link(world, "a");
            old_copy(world, "m", "c1");
            let old = entry("t", 1, "m", "c1", "e1");
            world.insert(Object::History(old.clone()));
            old_tag(world, "t", 2, "m2", "c2");
            vec![client("u", 1, vec![Op::Undo(old)]), client("d", 1, vec![Op::DeleteManifest("m")]), late("late")]
        },
        check: |world| {
            let gone = deleted(world, "m");
            let back = gone && !world.copies_of(&repo("a"), &digest("m")).is_empty();
            expect(!(back || gone && value_is(world, "m")), "T: undo brings a deleted manifest back")
        },
        alone: None,
    },
    Scenario {
        name: "s15a an immutable tag, two pushers, and a third of the same value",
        build: |world| {
            old_link(world, "a");
            old_copy(world, "m", "c1");
            old_copy(world, "m2", "c2");
            vec![
                client("p", 1, vec![put_immutable("m")]),
                client("q", 1, vec![put_immutable("m2")]),
                client("r", 1, vec![put_immutable("m")]),
                late("late"),
            ]
        },
        check: |world| {
            let values = ["m", "m2"].map(|manifest| {
                let of = |fact: &Fact| matches!(fact, Fact::Tagged { digest: of, .. } if *of == digest(manifest));
                world.facts.iter().any(of).then_some(manifest)
            });
            let mut values = values.into_iter().flatten();
            let Some(value) = values.next() else { return Ok(()) };
            expect(values.next().is_none(), "U: an immutable tag was acknowledged with two values")?;
            expect(value_is(world, value), "U: an immutable tag has not the value that was acknowledged")
        },
        alone: None,
    },
    Scenario {
        name: "s15b an immutable tag refused to both of two, then pushed again",
        build: |world| {
            old_link(world, "a");
            old_copy(world, "m", "c1");
            old_copy(world, "m2", "c2");
            old_copy(world, "m3", "c3");
            let third = vec![Op::After(When::BothRefused("p", "q")), put_immutable("m3")];
            vec![
                client("p", 1, vec![put_immutable("m")]),
                client("q", 1, vec![put_immutable("m2")]),
                client("r", 1, third).that_must_succeed(),
            ]
        },
        check: |world| expect(!failed(world, "r"), "L: both were refused, and nobody can push any more"),
        alone: None,
    },
    Scenario {
        name: "s15c an immutable tag, deleted, then pushed with another value, twice",
        build: |world| {
            old_link(world, "a");
            old_tag(world, "t", 1, "m", "c1");
            old_copy(world, "m2", "c2");
            let again = vec![Op::After(When::Tagged("q")), put_immutable("m2")];
            vec![
                client("q", 1, vec![Op::DeleteTag, put_immutable("m2")]),
                client("r", 1, again).that_must_succeed(),
                late("late"),
            ]
        },
        check: |world| {
            expect(!failed(world, "r"), "L: a push of the tag's own value is refused")?;
            expect(!tagged(world, "q") || value_is(world, "m2"), "T: the value is lost")
        },
        alone: None,
    },
    Scenario {
        name: "s15d a dead push's claim to an immutable tag ends with a DELETE of the tag",
        build: |world| {
            old_link(world, "a");
            old_copy(world, "m", "c1");
            old_copy(world, "m2", "c2");
            world.insert(Object::History(entry("t", 1, "m", "c1", "e1")));
            let client = client("q", 1, vec![Op::DeleteTag, put_immutable("m2")]);
            vec![client.that_must_succeed(), late("late")]
        },
        check: |world| expect(!failed(world, "q"), "L: a claim that nobody came back to keeps everybody out"),
        alone: None,
    },
    Scenario {
        name: "s16 a manifest with two tags is deleted, with all collectors about",
        build: |world| {
            old_link(world, "a");
            old_tag(world, "t", 2, "m", "c1");
            old_tag(world, "u", 2, "m", "c1");
            old_tag(world, "u", 1, "m0", "c0");
            old_copy(world, "m2", "c2");
            world.facts.insert(Fact::Manifest { repo: repo("a"), digest: digest("m2") });
            vec![
                client("d", 1, vec![Op::DeleteManifest("m")]),
                collector("r1", &[Kind::Links, Kind::Copies], false),
                collector("r2", &[Kind::Data], false),
                client("late", 1, vec![Op::LateTag("u")]),
            ]
        },
        check: |world| {
            manifests_whole(world)?;
            for name in ["t", "u"] {
                let value = world.value(name);
                expect(value.is_none() || value == Some(digest("m")), "T: an old value shows in between")?;
                expect(!deleted(world, "m") || value.is_none(), "T: an old value is back")?;
            }
            Ok(())
        },
        alone: None,
    },
    Scenario {
        name: "s16b the tag moves while its value is deleted and collectors are about",
        build: |world| {
            old_link(world, "a");
            old_tag(world, "t", 2, "m", "c1");
            world.insert(Object::Tag(entry("t", 1, "m0", "c0", "e1")));
            world.insert(Object::Copy(entry("t", 1, "m0", "c0", "e1").named()));
            assert!(world.contains(&Object::Data(crate::protocol::DataId::Known(digest("blob"), nonce("d0")))));
            vec![
                client("p", 1, vec![put_tag("m2")]),
                client("d", 1, vec![Op::DeleteManifest("m")]),
                collector("r1", &[Kind::Copies], false),
            ]
        },
        check: |world| {
            manifests_whole(world)?;
            expect(!tagged(world, "p") || value_is(world, "m2"), "T: the acknowledged new value is lost")
        },
        alone: None,
    },
];
