//! Uploads, mounts and pushes against collectors of links and data.

use super::{PUT, Scenario, acknowledged_whole, manifests_whole, old_copy, old_link, put, put_tag};
use crate::protocol::tests::actors::{Actor, Kind, Op, Put, When, client, collector};
use crate::protocol::tests::world::{World, digest, nonce};
use crate::protocol::{DataId, Link, Object};

/// Pushes until acknowledged, at most three times, as docker does.
fn pushes(name: &'static str) -> Actor {
    client(name, 3, vec![Op::Upload("a"), put("m")])
}

fn starts_over() -> Actor {
    client("z", 3, vec![Op::Upload("a"), put("m")])
}

fn starts_over_with_a_tag() -> Actor {
    client("z", 3, vec![Op::Upload("a"), put_tag("m")])
}

fn put_b() -> Op {
    Op::Put(Put { to: "b", ..PUT })
}

const A_TO_B: Op = Op::Mount { from: "a", to: "b" };
const B_TO_A: Op = Op::Mount { from: "b", to: "a" };
const UPLOAD: Op = Op::UploadAnyway { to: "a", known: true };

fn mark(world: &mut World, run: &str, targets: Vec<Object>) {
    world.insert(Object::Mark(nonce(run), targets));
}

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "s01a an upload and a push, collectors of links and data",
        build: |world| {
            old_link(world, "a");
            vec![pushes("p"), collector("r1", &[Kind::LinksOf("a")], false), collector("r2", &[Kind::Data], false)]
        },
        check: manifests_whole,
        alone: None,
    },
    Scenario {
        name: "s01b a push and a mount, collectors of links and data",
        build: |world| {
            old_link(world, "a");
            old_link(world, "b");
            vec![
                client("p", 1, vec![put("m")]),
                client("x", 1, vec![B_TO_A]),
                collector("r1", &[Kind::Links], false),
                collector("r2", &[Kind::Data], false),
            ]
        },
        check: manifests_whole,
        alone: None,
    },
    Scenario {
        name: "s01c an upload whose digest comes last, a push, a collector of data",
        build: |world| {
            old_link(world, "a");
            vec![
                client("u", 1, vec![Op::UploadAnyway { to: "a", known: false }, put("m")]),
                collector("r1", &[Kind::LinksOf("a")], false),
                collector("r2", &[Kind::Data], true),
            ]
        },
        check: manifests_whole,
        alone: None,
    },
    Scenario {
        name: "s02 a mount and a push there, collectors of the source",
        build: |world| {
            old_link(world, "a");
            vec![
                client("x", 1, vec![A_TO_B, put_b()]),
                collector("r1", &[Kind::LinksOf("a")], false),
                collector("r2", &[Kind::Data], true),
                collector("r3", &[Kind::Data], false),
            ]
        },
        check: manifests_whole,
        alone: None,
    },
    Scenario {
        name: "s02b a mount, and a push there by somebody else, collectors of links and data",
        build: |world| {
            old_link(world, "a");
            old_link(world, "b");
            vec![
                client("x", 1, vec![A_TO_B]),
                client("p", 1, vec![put_b()]),
                collector("r1", &[Kind::Links], false),
                collector("r2", &[Kind::Data], false),
            ]
        },
        check: manifests_whole,
        alone: None,
    },
    Scenario {
        name: "s03 an upload that shares another repository's data, its collectors",
        build: |world| {
            old_link(world, "b");
            vec![pushes("p"), collector("r1", &[Kind::LinksOf("b")], false), collector("r2", &[Kind::Data], true)]
        },
        check: manifests_whole,
        alone: None,
    },
    Scenario {
        name: "s04e a push by digest and an upload, collectors of copies and of the old link",
        build: |world| {
            old_link(world, "a");
            vec![
                client("p", 1, vec![put("m")]),
                client("u", 1, vec![UPLOAD]),
                collector("r1", &[Kind::Link("la")], false),
                collector("r2", &[Kind::Copies], false),
            ]
        },
        check: manifests_whole,
        alone: None,
    },
    Scenario {
        name: "s10a a blob is deleted, then pushed by a replica that remembers its link",
        build: |world| {
            let cached = Some(vec![old_link(world, "a")]);
            vec![
                client("d", 1, vec![Op::DeleteBlob]),
                client("p", 1, vec![Op::After(When::BlobDeleted), Op::Put(Put { cached, ..PUT })]),
                collector("r1", &[Kind::Data], false),
            ]
        },
        check: acknowledged_whole,
        alone: None,
    },
    Scenario {
        name: "s11 two collectors of the same, one slow, and a client",
        build: |world| {
            old_link(world, "a");
            old_link(world, "b");
            vec![
                pushes("p"),
                collector("r1", &[Kind::Links, Kind::Data], true),
                collector("r2", &[Kind::Links, Kind::Data], false),
            ]
        },
        check: manifests_whole,
        alone: None,
    },
    Scenario {
        name: "s12a a run died, then a push",
        build: |world| {
            let link = old_link(world, "a");
            let copy = old_copy(world, "m", "c0");
            let of = crate::protocol::tests::world::repo("a");
            let data = Object::Data(link.data.clone());
            mark(world, "r0", vec![data, Object::Link(link, of), Object::Copy(copy)]);
            vec![
                client("p", 3, vec![Op::Upload("a"), put_tag("m")]),
                collector("r1", &[Kind::Links, Kind::Data], false),
            ]
        },
        check: manifests_whole,
        alone: Some(starts_over_with_a_tag),
    },
    Scenario {
        name: "s12b a mount, and collectors that may die",
        build: |world| {
            old_link(world, "a");
            old_link(world, "b");
            vec![
                client("x", 1, vec![B_TO_A]),
                collector("r1", &[Kind::Links], false),
                collector("r2", &[Kind::Data], false),
            ]
        },
        check: manifests_whole,
        alone: Some(starts_over),
    },
    Scenario {
        name: "s12c a run died that marked the one link whose data is there, then a push",
        build: |world| {
            let link = old_link(world, "a");
            let of = crate::protocol::tests::world::repo("a");
            mark(world, "r0", vec![Object::Link(link.clone(), of.clone())]);
            let (data, name) = (DataId::Known(digest("blob"), nonce("d1")), nonce("ld"));
            world.insert(Object::Link(Link { data, nonce: name, ..link }, of));
            vec![client("p", 3, vec![Op::Upload("a"), put_tag("m")]), collector("r1", &[Kind::Data], false)]
        },
        check: manifests_whole,
        alone: Some(starts_over_with_a_tag),
    },
    Scenario {
        name: "s13 the mark of a slow run is removed",
        build: |world| {
            old_link(world, "a");
            vec![
                collector("r1", &[Kind::Data], true),
                collector("r2", &[Kind::Links, Kind::Data], false),
                client("j", 1, vec![Op::Janitor]),
                client("x", 1, vec![A_TO_B, put_b()]),
            ]
        },
        check: manifests_whole,
        alone: None,
    },
];

/// Beyond what is promised: a PUT that arrives again after its object was collected, which takes longer than the grace
/// time (a day; stores refuse requests that were signed a quarter of an hour ago).
pub(super) const LIMITS: &[Scenario] = &[Scenario {
    name: "s17 a link that was collected comes back by a late request",
    build: |world| {
        old_link(world, "a");
        vec![
            client("p", 1, vec![put("m")]),
            collector("r1", &[Kind::Links], false),
            collector("r2", &[Kind::Data], false),
            client("late", 1, vec![Op::LateLink]),
        ]
    },
    check: manifests_whole,
    alone: None,
}];
