//! What must hold when everything has come to rest.

use std::collections::BTreeSet;

use crate::spec::Digest;
use axum::body::Body;

use super::client::{IMMUTABLE, REPOS, TAGS};
use super::facts::{Asked, Fact, OPEN, Set};
use super::images::{BLOBS, IMAGES, blob_digest};
use super::world::{Answer, World};

impl World {
    async fn look(&self, line: &str) -> Answer {
        self.ask(0, line, None, Body::empty()).await.expect("nothing goes wrong any more")
    }

    /// The first broken promise.
    pub(crate) async fn check(&self) -> Result<(), String> {
        let facts = self.facts.all();
        for repo in REPOS {
            for image in 0..IMAGES.len() {
                self.check_image(&facts, repo, image).await?;
            }
            for tag in TAGS {
                self.check_tag(&facts, repo, tag).await?;
            }
        }
        self.check_garbage()
    }

    async fn check_image(&self, facts: &[Fact], of: &str, image: usize) -> Result<(), String> {
        let parts = &IMAGES[image];
        let puts = || {
            facts.iter().filter(|fact| match &fact.asked {
                Asked::Put { repo, image: put, .. } => *repo == of && *put == image,
                _ => false,
            })
        };
        let deletes = |fact: &&Fact| match &fact.asked {
            Asked::DeleteManifest { repo, image: deleted } => *repo == of && *deleted == image,
            _ => false,
        };
        let takes_blob = |fact: &&Fact| match &fact.asked {
            Asked::DeleteBlob { repo, blob } => *repo == of && parts.blobs.contains(blob),
            _ => false,
        };
        let answer = self.look(&format!("GET /v2/{of}/manifests/{}", parts.digest)).await;
        // Where values expire, what a tag names is looked at with the tag.
        let safe = !self.kind.expires
            && puts()
                .filter(|put| put.is_acknowledged())
                .any(|put| !facts.iter().filter(|f| deletes(f) || takes_blob(f)).any(|delete| delete.may_follow(put)));
        if safe {
            if answer.body != parts.manifest.as_bytes() {
                return Err(format!("{of}: image {image} was acknowledged, and its manifest is not there"));
            }
            for blob in parts.blobs {
                let blob_answer = self.look(&format!("GET /v2/{of}/blobs/{}", blob_digest(*blob))).await;
                if blob_answer.body != BLOBS[*blob].as_bytes() {
                    return Err(format!("{of}: image {image} was acknowledged, and its blob {blob} is not there"));
                }
            }
        }
        let gone = facts.iter().filter(deletes).filter(|delete| delete.is_acknowledged());
        for delete in gone {
            if !puts().any(|put| put.may_follow(delete)) && answer.status != 404 {
                return Err(format!("{of}: image {image} was deleted, and is back"));
            }
        }
        Ok(())
    }

    async fn check_tag(&self, facts: &[Fact], of: &'static str, name: &'static str) -> Result<(), String> {
        for read in facts.iter().filter(|fact| fact.is_acknowledged()) {
            if let Asked::Read { repo, tag, image } = read.asked
                && repo == of
                && tag == name
            {
                check_value(facts, of, name, image, (read.begun, read.done))
                    .map_err(|broken| format!("{broken}, when it was read at {}", read.begun))?;
            }
        }
        let answer = self.look(&format!("GET /v2/{of}/manifests/{name}")).await;
        let value = match answer.status == 200 {
            true => Some(
                IMAGES
                    .iter()
                    .position(|image| image.manifest.as_bytes() == answer.body)
                    .ok_or_else(|| format!("{of}:{name} has a value that nobody pushed"))?,
            ),
            false => None,
        };
        check_value(facts, of, name, value, (OPEN, OPEN))?;
        if let Some(value) = value {
            self.check_named(facts, of, value)
                .await
                .map_err(|lacks| format!("{of}:{name} is image {value}, {lacks}"))?;
        }
        if name != IMMUTABLE {
            return Ok(());
        }
        check_kept(facts, of, name)?;
        self.check_immutable(facts, of, value).await
    }

    /// What a tag names is whole, but for what users took away.
    async fn check_named(&self, facts: &[Fact], of: &str, image: usize) -> Result<(), String> {
        let parts = &IMAGES[image];
        for blob in parts.blobs {
            let taken = |fact: &Fact| matches!(fact.asked, Asked::DeleteBlob { repo, blob: taken } if repo == of && taken == *blob);
            if facts.iter().any(taken) {
                continue;
            }
            let answer = self.look(&format!("GET /v2/{of}/blobs/{}", blob_digest(*blob))).await;
            if answer.body != BLOBS[*blob].as_bytes() {
                return Err(format!("whose blob {blob} is not there"));
            }
        }
        Ok(())
    }

    /// An immutable tag takes no other value; and where none has it, the next one may.
    async fn check_immutable(&self, facts: &[Fact], of: &'static str, value: Option<usize>) -> Result<(), String> {
        // What did not come to its end may have left a claim.
        if !facts.iter().filter(|fact| fact.sets(of, IMMUTABLE).is_some()).all(|fact| fact.answered) {
            return Ok(());
        }
        for (image, parts) in IMAGES.iter().enumerate() {
            if self.look(&format!("GET /v2/{of}/manifests/{}", parts.digest)).await.status != 200 {
                continue;
            }
            let mut whole = true;
            for blob in parts.blobs {
                let head = self.look(&format!("HEAD /v2/{of}/blobs/{}", blob_digest(*blob))).await;
                whole &= head.status == 200;
            }
            if !whole {
                continue;
            }
            let line = format!("PUT /v2/{of}/manifests/{IMMUTABLE}");
            let header = Some(("content-type", parts.media_type));
            let answer = self.ask(0, &line, header, Body::from(parts.manifest.clone())).await;
            let answer = answer.expect("nothing goes wrong any more");
            let taken = value.is_some_and(|value| value != image);
            let said = answer.status.as_u16();
            self.store
                .say(|| format!("{of}:{IMMUTABLE} to image {image}: {said} {}", String::from_utf8_lossy(&answer.body)));
            if taken && said == 201 || !taken && said == 409 {
                return Err(format!(
                    "{of}:{IMMUTABLE} is image {value:?}, and a push of image {image} is answered with {said}"
                ));
            }
            if said != 201 && said != 409 {
                self.counts.add("immutable tag not pushed afterwards", 1);
                continue;
            }
            self.counts.add("immutable tag pushed afterwards", 1);
            if value.is_none() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// After its collectors the store holds nothing that nothing needs.
    fn check_garbage(&self) -> Result<(), String> {
        let keys = self.store.keys();
        let linked: BTreeSet<&str> = keys.iter().filter(|key| key.starts_with("links/")).map(String::as_str).collect();
        for key in keys.iter().filter(|key| key.starts_with("data/") && !key.contains(".of/")) {
            let id = key.rsplit('/').next().unwrap_or_default();
            if !linked.iter().any(|link| link.contains(&format!(".{id}."))) {
                return Err(format!("`{key}` is needed by nothing, and stays"));
            }
        }
        for link in linked {
            let named = link.split('/').nth(3).unwrap_or_default();
            let digest: Digest = format!("sha256:{named}").parse().map_err(|_| format!("`{link}` is no link"))?;
            let needed = keys.iter().filter(|key| key.contains("/_manifests/")).any(|key| {
                let manifest = key.rsplit('/').nth(1).unwrap_or_default();
                let image = IMAGES.iter().find(|image| image.digest.hex() == manifest);
                image.is_some_and(|image| image.blobs.iter().any(|blob| *blob_digest(*blob) == digest))
            });
            if !needed {
                return Err(format!("`{link}` is needed by nothing, and stays"));
            }
        }
        if let Some(mark) = keys.iter().find(|key| key.starts_with("gc/marks/")) {
            self.counts.add("mark left", 1);
            self.store.say(|| format!("left: {mark}"));
        }
        Ok(())
    }
}

/// Whether a tag may be this, told between these two times.
fn check_value(
    facts: &[Fact],
    of: &str,
    name: &str,
    value: Option<usize>,
    (begun, done): (u64, u64),
) -> Result<(), String> {
    let sets: Vec<Set<'_>> = facts.iter().filter_map(|fact| fact.sets(of, name)).collect();
    let Some(value) = value else {
        for put in sets.iter().filter(|put| put.fact.done < begun) {
            // What ended this value, or one that came after it.
            let lost = facts.iter().any(|fact| {
                let of_this =
                    sets.iter().any(|later| later.fact.may_follow(put.fact) && fact.ends(of, name, later.image));
                (of_this || fact.ends(of, name, put.image)) && fact.may_follow(put.fact) && fact.begun < done
            });
            if !lost {
                return Err(format!("{of}:{name} was acknowledged, and has no value"));
            }
        }
        return Ok(());
    };
    let allowed = sets.iter().filter(|set| set.may_be(value) && set.fact.begun < done).any(|set| {
        let superseded = sets.iter().any(|other| {
            other.image.is_some_and(|image| image != value) && other.fact.follows(set.fact) && other.fact.done < begun
        });
        let ended =
            facts.iter().any(|fact| fact.ends(of, name, Some(value)) && fact.follows(set.fact) && fact.done < begun);
        !superseded && !ended
    });
    if allowed { Ok(()) } else { Err(format!("{of}:{name} is image {value}, which was replaced or deleted")) }
}

/// An immutable tag was not seen with two values, unless somebody ended the first or went back with it.
fn check_kept(facts: &[Fact], of: &str, name: &str) -> Result<(), String> {
    let seen: Vec<(&Fact, usize)> = facts
        .iter()
        .filter(|fact| fact.is_acknowledged())
        .filter_map(|fact| match fact.asked {
            Asked::Put { repo, tag: Some(tag), image } if repo == of && tag == name => Some((fact, image)),
            Asked::Read { repo, tag, image: Some(image) } if repo == of && tag == name => Some((fact, image)),
            _ => None,
        })
        .collect();
    let changes = |fact: &&Fact| match fact.asked {
        Asked::Undo { repo, tag, .. } => repo == of && tag == name,
        _ => fact.ends(of, name, None),
    };
    for (one, image) in &seen {
        for (two, other) in seen.iter().filter(|(_, other)| other > image) {
            let between = |fact: &Fact| {
                fact.may_follow(one) && two.may_follow(fact) || fact.may_follow(two) && one.may_follow(fact)
            };
            if !facts.iter().filter(changes).any(between) {
                return Err(format!("{of}:{name} is immutable, and was image {image} and image {other}"));
            }
        }
    }
    Ok(())
}
