//! Who meets whom, and what must hold: the scenarios of the design's model, by the same numbers.

mod blobs;
mod manifests;
mod tags;

use super::actors::{Actor, Op, Put};
use super::world::{Fact, World, digest, nonce, repo, tag};
use crate::protocol::{Copy, DataId, Link, Object, RepoHash, TagEntry};

#[derive(Debug)]
pub(super) struct Scenario {
    pub(super) name: &'static str,
    pub(super) build: fn(&mut World) -> Vec<Actor>,
    pub(super) check: fn(&World) -> Result<(), &'static str>,
    /// A client that, alone, has to come to its end from every state.
    pub(super) alone: Option<fn() -> Actor>,
}

pub(super) fn all() -> impl Iterator<Item = &'static Scenario> {
    blobs::SCENARIOS.iter().chain(manifests::SCENARIOS).chain(tags::SCENARIOS)
}

/// What the protocol does not promise to survive.
pub(super) fn limits() -> impl Iterator<Item = &'static Scenario> {
    blobs::LIMITS.iter()
}

/// The blob's data, from long ago.
fn old_data(world: &mut World) -> DataId {
    let id = DataId::Known(digest("blob"), nonce("d0"));
    world.insert(Object::Data(id.clone()));
    id
}

fn old_link(world: &mut World, of: &str) -> Link {
    let data = old_data(world);
    let nonce = nonce(&format!("l{of}"));
    let link = Link { digest: digest("blob"), repo: RepoHash::of(&repo(of)), data, size_bytes: 1, nonce };
    world.insert(Object::Link(link.clone(), repo(of)));
    link
}

/// One whose nonce begins with `ret` is one that retention lets go.
fn old_copy(world: &mut World, manifest: &str, name: &str) -> Copy {
    let copy = Copy { repo: repo("a"), digest: digest(manifest), nonce: nonce(name) };
    world.insert(Object::Copy(copy.clone()));
    copy
}

fn entry(name: &str, order: u64, manifest: &str, copy: &str, of: &str) -> TagEntry {
    let (digest, copy) = (digest(manifest), nonce(copy));
    TagEntry { order, nonce: nonce(of), repo: repo("a"), tag: tag(name), digest, copy }
}

/// An entry of a tag, its history entry, and its copy, from long ago.
fn old_tag(world: &mut World, name: &str, order: u64, manifest: &str, copy: &str) {
    old_copy(world, manifest, copy);
    let entry = entry(name, order, manifest, copy, &format!("e{order}"));
    world.insert(Object::Tag(entry.clone()));
    world.insert(Object::History(entry));
}

const PUT: Put = Put { to: "a", manifest: "m", tag: None, immutable: false, cached: None };

fn put(manifest: &'static str) -> Op {
    Op::Put(Put { manifest, ..PUT })
}

fn put_tag(manifest: &'static str) -> Op {
    Op::Put(Put { manifest, tag: Some("t"), ..PUT })
}

fn put_immutable(manifest: &'static str) -> Op {
    Op::Put(Put { manifest, tag: Some("t"), immutable: true, ..PUT })
}

fn value_is(world: &World, manifest: &str) -> bool {
    world.value("t") == Some(digest(manifest))
}

fn expect(holds: bool, broken: &'static str) -> Result<(), &'static str> {
    if holds { Ok(()) } else { Err(broken) }
}

/// M: what was acknowledged, and no user deleted, is whole.
fn manifests_whole(world: &World) -> Result<(), &'static str> {
    if world.facts.contains(&Fact::BlobDeleted) {
        return Ok(());
    }
    acknowledged_whole(world)
}

fn acknowledged_whole(world: &World) -> Result<(), &'static str> {
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
            expect(!world.copies_of(&of, manifest).is_empty(), "M: an acknowledged manifest has no copy")?;
        }
    }
    Ok(())
}

/// One push of a new tag, with nobody else there.
pub(super) fn lone_push(world: &mut World) -> Vec<Actor> {
    old_link(world, "a");
    vec![super::actors::client("p", 1, vec![put_tag("m")])]
}
