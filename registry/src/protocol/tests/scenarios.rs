//! Who meets whom, and what must hold. Each is one of the scenarios that the design's model explores exhaustively.

use super::actors::{Actor, Kinds, Op, When, client, collector};
use super::world::{Fact, World, digest, nonce, repo, tag};
use crate::protocol::{Copy, DataId, Link, Object, RepoHash, TagEntry};

pub(super) struct Scenario {
    pub(super) name: &'static str,
    pub(super) build: fn(&mut World) -> Vec<Actor>,
    pub(super) check: fn(&World) -> Result<(), String>,
}

/// The blob's data, from long ago.
fn old_data(world: &mut World) -> DataId {
    let id = DataId::Unknown(nonce("d0"));
    world.objects.insert(Object::Data(id.clone()));
    id
}

fn old_link(world: &mut World, of: &str) {
    let data = old_data(world);
    let repo = repo(of);
    let link = Link {
        digest: digest("blob"),
        repo: RepoHash::of(&repo),
        data,
        size_bytes: 1,
        nonce: nonce(&format!("l{of}")),
    };
    world.objects.insert(Object::Link(link, repo));
}

fn old_copy(world: &mut World, manifest: &str, name: &str) {
    world.objects.insert(Object::Copy(Copy { repo: repo("a"), digest: digest(manifest), nonce: nonce(name) }));
}

fn old_tag(world: &mut World, order: u64, manifest: &str, copy: &str) {
    old_copy(world, manifest, copy);
    let entry = TagEntry {
        order,
        nonce: nonce(&format!("e{order}")),
        repo: repo("a"),
        tag: tag(),
        digest: digest(manifest),
        copy: nonce(copy),
    };
    world.objects.insert(Object::Tag(entry.clone()));
    world.objects.insert(Object::History(entry));
}

fn expired_copy(world: &mut World, manifest: &str, name: &str) {
    old_copy(world, manifest, name);
    world.expired.insert(nonce(name));
}

fn upload() -> Op {
    Op::Upload(repo("a"))
}

fn put(manifest: &'static str) -> Op {
    Op::Put { to: repo("a"), manifest, tag: false }
}

fn put_tag(manifest: &'static str) -> Op {
    Op::Put { to: repo("a"), manifest, tag: true }
}

fn tagged_by(world: &World, who: &str) -> bool {
    world.facts.iter().any(|fact| matches!(fact, Fact::Tagged { by, .. } if *by == who))
}

fn value_is(world: &World, manifest: &str) -> bool {
    world.value() == Some(digest(manifest))
}

fn expect(holds: bool, broken: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(broken.to_owned()) }
}

/// M: what was acknowledged, and no user deleted, is whole.
fn manifests_whole(world: &World) -> Result<(), String> {
    if world.facts.contains(&Fact::DeletingBlob) && world.facts.contains(&Fact::DeletedBlob) {
        return Ok(());
    }
    for fact in &world.facts {
        let (of, manifest) = match fact {
            Fact::Manifest { repo, digest } => (repo.clone(), digest),
            Fact::Tagged { digest, .. } => (repo("a"), digest),
            _ => continue,
        };
        if world.facts.contains(&Fact::Deleting(manifest.clone())) {
            continue;
        }
        expect(world.whole(&of, manifest), "M: an acknowledged manifest has no link with data")?;
        if matches!(fact, Fact::Manifest { .. }) {
            expect(!world.copies(&of, manifest).is_empty(), "M: an acknowledged manifest has no copy")?;
        }
    }
    Ok(())
}

fn whole_and_tagged(world: &World) -> Result<(), String> {
    manifests_whole(world)?;
    expect(world.value().is_some(), "T: the tag names nothing")
}

/// I: an index keeps the child that was there.
fn child_there(world: &World) -> Result<(), String> {
    let acknowledged = world.facts.contains(&Fact::Manifest { repo: repo("a"), digest: digest("index") });
    let promised = acknowledged && world.facts.contains(&Fact::ChildSeen);
    expect(!promised || !world.copies(&repo("a"), &digest("kid")).is_empty(), "I: a child is lost")
}

/// One push of a new tag, with nobody else there.
pub(super) fn lone_push(world: &mut World) -> Vec<Actor> {
    old_link(world, "a");
    vec![client("p", 1, vec![put_tag("m")])]
}

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "an upload and a push, collectors of links and data",
        build: |world| {
            old_link(world, "a");
            vec![
                client("p", 3, vec![upload(), put("m")]),
                collector("r1", Kinds::LinksOf("a"), false),
                collector("r2", Kinds::Data, false),
            ]
        },
        check: manifests_whole,
    },
    Scenario {
        name: "a push and a mount, collectors of links and data",
        build: |world| {
            old_link(world, "a");
            old_link(world, "b");
            vec![
                client("p", 1, vec![put("m")]),
                client("x", 1, vec![Op::Mount { from: repo("b"), to: repo("a") }]),
                collector("r1", Kinds::Links, false),
                collector("r2", Kinds::Data, false),
            ]
        },
        check: manifests_whole,
    },
    Scenario {
        name: "a mount and a push there, collectors of the source",
        build: |world| {
            old_link(world, "a");
            let push = Op::Put { to: repo("b"), manifest: "m", tag: false };
            vec![
                client("x", 1, vec![Op::Mount { from: repo("a"), to: repo("b") }, push]),
                collector("r1", Kinds::LinksOf("a"), false),
                collector("r2", Kinds::Data, true),
                collector("r3", Kinds::Data, false),
            ]
        },
        check: manifests_whole,
    },
    Scenario {
        name: "an upload that shares another repository's data, its collectors",
        build: |world| {
            old_link(world, "b");
            vec![
                client("p", 3, vec![upload(), put("m")]),
                collector("r1", Kinds::LinksOf("b"), false),
                collector("r2", Kinds::Data, true),
            ]
        },
        check: manifests_whole,
    },
    Scenario {
        name: "a broken copy is pushed again, collectors of copies and links",
        build: |world| {
            old_copy(world, "m", "c0");
            vec![
                client("p", 3, vec![upload(), put("m")]),
                collector("r1", Kinds::Copies, false),
                collector("r2", Kinds::Links, false),
            ]
        },
        check: manifests_whole,
    },
    Scenario {
        name: "a push by digest of what retention lets go",
        build: |world| {
            old_link(world, "a");
            expired_copy(world, "m", "c0");
            vec![client("p", 1, vec![put("m")]), collector("r1", Kinds::Copies, false)]
        },
        check: manifests_whole,
    },
    Scenario {
        name: "a push by tag of what retention lets go",
        build: |world| {
            old_link(world, "a");
            old_tag(world, 1, "m2", "c1");
            expired_copy(world, "m", "c0");
            vec![
                client("p", 1, vec![put_tag("m")]),
                collector("r1", Kinds::Copies, false),
                collector("r2", Kinds::Links, false),
            ]
        },
        check: whole_and_tagged,
    },
    Scenario {
        name: "a push again after a delete",
        build: |world| {
            old_link(world, "a");
            old_copy(world, "m", "c0");
            vec![
                client("p", 1, vec![put_tag("m")]),
                client("d", 1, vec![Op::DeleteManifest("m")]),
                client("q", 1, vec![Op::After(When::Deleted("m")), put_tag("m")]),
            ]
        },
        check: |world| {
            expect(!tagged_by(world, "q") || value_is(world, "m"), "T: a push begun after the DELETE is lost")
        },
    },
    Scenario {
        name: "a tag moves while its old value is deleted, and a request of the past",
        build: |world| {
            old_link(world, "a");
            old_tag(world, 1, "m", "c1");
            vec![
                client("p", 1, vec![put_tag("m2")]),
                client("d", 1, vec![Op::DeleteManifest("m")]),
                Actor::Zombie(1, None, false),
            ]
        },
        check: |world| {
            expect(!tagged_by(world, "p") || value_is(world, "m2"), "T: the acknowledged new value is lost")?;
            let deleted = world.facts.contains(&Fact::Deleted(digest("m")));
            expect(!deleted || !value_is(world, "m"), "T: a deleted manifest is back")
        },
    },
    Scenario {
        name: "a push of a manifest that is being deleted, and a request of the past",
        build: |world| {
            old_link(world, "a");
            old_tag(world, 1, "m2", "c0");
            old_copy(world, "m", "c1");
            vec![
                client("p", 1, vec![put_tag("m")]),
                client("d", 1, vec![Op::DeleteManifest("m")]),
                Actor::Zombie(1, None, false),
            ]
        },
        check: |world| {
            let both = tagged_by(world, "p") && world.facts.contains(&Fact::Deleted(digest("m")));
            expect(!both || !value_is(world, "m2"), "T: a superseded value is back")
        },
    },
    Scenario {
        name: "a push, then the tag is deleted, and requests of the past",
        build: |world| {
            old_link(world, "a");
            old_tag(world, 1, "m", "c1");
            vec![
                client("p", 1, vec![put_tag("m2"), Op::DeleteTag]),
                Actor::Zombie(1, None, false),
                Actor::Zombie(2, None, false),
            ]
        },
        check: |world| {
            let untagged = world.facts.contains(&Fact::Untagged);
            expect(!untagged || world.value().is_none(), "T: a deleted tag is back")
        },
    },
    Scenario {
        name: "the tag is deleted, then pushed, while another push overlaps",
        build: |world| {
            old_link(world, "a");
            old_tag(world, 1, "m", "c1");
            vec![
                client("p", 1, vec![put_tag("m2")]),
                client("q", 1, vec![Op::DeleteTag, put_tag("m3")]),
                Actor::Zombie(1, None, false),
            ]
        },
        check: |world| {
            let pushed = value_is(world, "m2") || value_is(world, "m3");
            expect(!tagged_by(world, "q") || pushed, "T: a push begun after the DELETE is lost")?;
            let untagged = world.facts.contains(&Fact::Untagged);
            expect(!untagged || !value_is(world, "m"), "T: a deleted value is back")
        },
    },
    Scenario {
        name: "two pushes of a tag overlap, then a third",
        build: |world| {
            old_link(world, "a");
            old_tag(world, 1, "m", "c1");
            vec![
                client("p", 1, vec![put_tag("m2")]),
                client("q", 1, vec![put_tag("m")]),
                client("z", 1, vec![Op::After(When::Tagged("p", "q")), put_tag("m3")]),
                Actor::Zombie(1, None, false),
            ]
        },
        check: |world| {
            expect(!tagged_by(world, "z") || value_is(world, "m3"), "T: the later push is lost")?;
            let any = tagged_by(world, "p") || tagged_by(world, "q");
            expect(!any || world.value().is_some(), "T: the tag names nothing")
        },
    },
    Scenario {
        name: "an index, and retention of its child",
        build: |world| {
            old_link(world, "a");
            expired_copy(world, "kid", "c0");
            vec![
                client("p", 1, vec![put("index")]),
                collector("r1", Kinds::Copies, true),
                collector("r2", Kinds::Copies, false),
            ]
        },
        check: child_there,
    },
    Scenario {
        name: "an index, and collection of its broken child",
        build: |world| {
            old_copy(world, "kid", "c0");
            vec![client("p", 1, vec![put("index")]), collector("r1", Kinds::Copies, false)]
        },
        check: child_there,
    },
    Scenario {
        name: "a blob is deleted while a tag is pushed",
        build: |world| {
            old_link(world, "a");
            old_tag(world, 1, "m2", "c1");
            old_copy(world, "m", "c0");
            vec![
                client("d", 1, vec![Op::DeleteBlob]),
                client("p", 1, vec![put_tag("m")]),
                collector("r1", Kinds::Copies, false),
            ]
        },
        check: |world| expect(world.value().is_some(), "T: the tag names nothing, though nobody deleted it"),
    },
    Scenario {
        name: "two collectors of the same, one slow, and a client",
        build: |world| {
            old_link(world, "a");
            old_link(world, "b");
            vec![
                client("p", 3, vec![upload(), put("m")]),
                collector("r1", Kinds::LinksAndData, true),
                collector("r2", Kinds::LinksAndData, false),
            ]
        },
        check: manifests_whole,
    },
    Scenario {
        name: "a manifest with a tag is deleted, with all collectors about",
        build: |world| {
            old_link(world, "a");
            old_tag(world, 1, "m2", "c0");
            old_tag(world, 2, "m", "c1");
            world.facts.insert(Fact::Manifest { repo: repo("a"), digest: digest("m2") });
            vec![
                client("d", 1, vec![Op::DeleteManifest("m")]),
                collector("r1", Kinds::Links, false),
                collector("r2", Kinds::Copies, false),
                collector("r3", Kinds::Data, false),
                Actor::Zombie(2, None, false),
            ]
        },
        check: |world| {
            manifests_whole(world)?;
            let deleted = world.facts.contains(&Fact::Deleted(digest("m")));
            expect(!deleted || world.value().is_none(), "T: an old value is back")?;
            expect(value_is(world, "m") || world.value().is_none(), "T: an old value shows in between")
        },
    },
    Scenario {
        name: "a push by digest and an upload, collectors of copies and of the old link",
        build: |world| {
            old_link(world, "a");
            vec![
                client("p", 1, vec![put("m")]),
                client("u", 1, vec![Op::UploadAnyway(repo("a"))]),
                collector("r1", Kinds::Link("la"), false),
                collector("r2", Kinds::Copies, false),
            ]
        },
        check: manifests_whole,
    },
    Scenario {
        name: "a mount from a to b, and a push to b by somebody else, collectors of links and data",
        build: |world| {
            old_link(world, "a");
            old_link(world, "b");
            vec![
                client("x", 1, vec![Op::Mount { from: repo("a"), to: repo("b") }]),
                client("p", 1, vec![Op::Put { to: repo("b"), manifest: "m", tag: false }]),
                collector("r1", Kinds::Links, false),
                collector("r2", Kinds::Data, false),
            ]
        },
        check: manifests_whole,
    },
    Scenario {
        name: "two pushes of a tag and a delete of one value",
        build: |world| {
            old_link(world, "a");
            old_copy(world, "m", "c1");
            old_copy(world, "m2", "c2");
            vec![
                client("p", 1, vec![put_tag("m")]),
                client("q", 1, vec![put_tag("m2")]),
                client("r", 1, vec![Op::After(When::Sees("p", "q", "m2")), Op::Note]),
                client("d", 1, vec![Op::After(When::Tagged("p", "p")), Op::DeleteManifest("m")]),
            ]
        },
        check: |world| {
            let seen = world.facts.contains(&Fact::Saw);
            expect(!seen || value_is(world, "m2"), "T: a value that was read went by a DELETE of another manifest")
        },
    },
];
