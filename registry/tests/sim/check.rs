//! What must hold when everything has come to rest.

use std::collections::BTreeSet;

use crate::spec::Digest;
use axum::body::Body;

use super::client::{REPOS, TAGS};
use super::facts::{Asked, Fact};
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
        let safe = puts()
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

    async fn check_tag(&self, facts: &[Fact], of: &str, name: &str) -> Result<(), String> {
        let puts: Vec<(&Fact, usize)> = facts
            .iter()
            .filter_map(|fact| match &fact.asked {
                Asked::Put { repo, image, tag: Some(tag) } if *repo == of && *tag == name => Some((fact, *image)),
                _ => None,
            })
            .collect();
        let ends = |fact: &Fact, value: usize| match &fact.asked {
            Asked::DeleteTag { repo, tag } => *repo == of && *tag == name,
            Asked::DeleteManifest { repo, image } => *repo == of && *image == value,
            _ => false,
        };
        let answer = self.look(&format!("GET /v2/{of}/manifests/{name}")).await;
        if answer.status == 200 {
            let value = IMAGES.iter().position(|image| image.manifest.as_bytes() == answer.body);
            let value = value.ok_or_else(|| format!("{of}:{name} has a value that nobody pushed"))?;
            let allowed = puts.iter().filter(|(_, image)| *image == value).any(|(put, _)| {
                let superseded =
                    puts.iter().any(|(other, image)| *image != value && other.is_acknowledged() && other.follows(put));
                let ended = facts.iter().any(|fact| ends(fact, value) && fact.is_acknowledged() && fact.follows(put));
                !superseded && !ended
            });
            if !allowed {
                return Err(format!("{of}:{name} is image {value}, which was replaced or deleted"));
            }
            return Ok(());
        }
        for (put, _) in puts.iter().filter(|(put, _)| put.is_acknowledged()) {
            // What ended this value, or one that came after it.
            let lost = facts.iter().any(|fact| {
                let of_this = puts.iter().any(|(later, image)| later.may_follow(put) && ends(fact, *image));
                let of_put = puts.iter().any(|(this, image)| std::ptr::eq(*this, *put) && ends(fact, *image));
                (of_this || of_put) && fact.may_follow(put)
            });
            if !lost {
                return Err(format!("{of}:{name} was acknowledged, and has no value ({})", answer.status));
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
