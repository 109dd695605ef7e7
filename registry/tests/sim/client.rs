//! A client that pushes as docker does, deletes, goes back to old values, and begins again when it is not told yes.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use crate::admin::AdminError;
use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use tokio::time::sleep;

use super::chance::Chance;
use super::facts::Asked;
use super::images::{BLOBS, IMAGES, blob_digest};
use super::world::{Answer, Header, World};

pub(crate) const REPOS: [&str; 2] = ["a", "b"];
/// The last keeps the value that it gets first.
pub(crate) const TAGS: [&str; 3] = ["t", "u", IMMUTABLE];
pub(crate) const IMMUTABLE: &str = "v";
/// How often a push is begun again.
const TRIES: usize = 4;

pub(crate) struct Client {
    pub(crate) name: usize,
    pub(crate) world: Arc<World>,
    pub(crate) chance: Chance,
    /// The longest that it rests between two requests.
    pub(crate) rest: Duration,
}

impl Client {
    pub(crate) async fn run(mut self) {
        let operations = 1 + self.chance.below(4);
        for _ in 0..operations {
            self.rests().await;
            let about = self.world.kind.about;
            let repo = about.map_or_else(|| *self.chance.pick(&REPOS), |_| REPOS[0]);
            let tag = about.unwrap_or_else(|| *self.chance.pick(&TAGS));
            let image = self.chance.below(IMAGES.len() as u64) as usize;
            let operation = match about {
                None => self.chance.below(if self.world.kind.deletes { 11 } else { 7 }),
                Some(IMMUTABLE) => 0,
                Some(_) => *self.chance.pick(&[0, 0, 6]),
            };
            match operation {
                0..5 => {
                    let tag = (about.is_some() || self.chance.below(3) > 0).then_some(tag);
                    self.push(repo, image, tag).await;
                }
                5 => self.pull(repo, tag).await,
                6 => self.undo(repo, tag, image).await,
                7 | 8 => {
                    let line = format!("DELETE /v2/{repo}/manifests/{tag}");
                    self.delete(Asked::DeleteTag { repo, tag }, &line).await;
                }
                9 => {
                    let line = format!("DELETE /v2/{repo}/manifests/{}", IMAGES[image].digest);
                    self.delete(Asked::DeleteManifest { repo, image }, &line).await;
                }
                _ => {
                    let blob = self.chance.below(BLOBS.len() as u64) as usize;
                    let line = format!("DELETE /v2/{repo}/blobs/{}", blob_digest(blob));
                    self.delete(Asked::DeleteBlob { repo, blob }, &line).await;
                }
            }
        }
    }

    pub(super) async fn rests(&mut self) {
        // Mostly briefly.
        let most = self.rest.as_millis() as u64;
        let most = if self.chance.below(3) == 0 { most } else { most / 100 };
        sleep(Duration::from_millis(self.chance.below(most))).await;
    }

    /// Any of the replicas.
    pub(super) fn replica(&mut self) -> usize {
        self.chance.below(self.world.replicas() as u64) as usize
    }

    pub(super) async fn ask(&mut self, line: &str, header: Header<'_>, body: Body) -> Option<Answer> {
        let replica = self.replica();
        self.ask_of(replica, line, header, body).await
    }

    pub(super) async fn ask_of(&self, replica: usize, line: &str, header: Header<'_>, body: Body) -> Option<Answer> {
        let answer = self.world.ask(replica, line, header, body).await;
        self.world.store.say(|| {
            let said = match &answer {
                None => "no answer".to_owned(),
                Some(answer) if answer.status.is_success() => match answer.headers.get("warning") {
                    Some(warning) => format!("{} {warning:?}", answer.status.as_u16()),
                    None => answer.status.as_u16().to_string(),
                },
                Some(answer) => format!("{} {}", answer.status.as_u16(), String::from_utf8_lossy(&answer.body)),
            };
            let line = line.split("?state=").next().unwrap_or(line);
            format!("client {}: {line} (replica {replica}): {said}", self.name)
        });
        answer
    }

    pub(super) async fn get(&mut self, line: &str) -> Option<Answer> {
        self.ask(line, None, Body::empty()).await
    }

    /// The blob's bytes, sometimes so slowly that they have to be stored in parts.
    pub(super) fn body(&mut self, content: &'static str) -> Body {
        // What is large comes slowly, so that parts are made often enough for something to go wrong with them.
        if content.len() < 1000 && self.chance.below(4) > 0 {
            return Body::from(content);
        }
        // Also after all of it: what comes to be a part does so when nothing more comes.
        let at = match self.chance.below(2) {
            0 => content.len(),
            _ => self.chance.below(content.len() as u64 + 1) as usize,
        };
        let (one, two) = content.split_at(at);
        let pieces = stream::unfold(0, move |piece| async move {
            if piece == 1 {
                sleep(Duration::from_secs(20)).await;
            }
            let bytes = Bytes::from_static([one, two].get(piece)?.as_bytes());
            Some((Ok::<_, Infallible>(bytes), piece + 1))
        });
        Body::from_stream(pieces)
    }

    async fn upload(&mut self, repo: &str, blob: usize) -> bool {
        let (content, digest) = (BLOBS[blob], blob_digest(blob));
        let uploads = format!("/v2/{repo}/blobs/uploads/");
        match self.chance.below(7) {
            0 => {
                let other = REPOS.iter().find(|other| **other != repo).unwrap();
                let from = if self.chance.below(2) == 0 { format!("&from={other}") } else { String::new() };
                let Some(answer) = self.get(&format!("POST {uploads}?mount={digest}{from}")).await else {
                    return false;
                };
                if answer.status == 201 {
                    return true;
                }
                if answer.status != 202 {
                    return false;
                }
                self.rests().await;
                self.finish(&answer.location(), blob).await
            }
            1 => {
                let body = self.body(content);
                let answer = self.ask(&format!("POST {uploads}?digest={digest}"), None, body).await;
                answer.is_some_and(|answer| answer.status == 201)
            }
            2 => {
                let Some(begun) = self.get(&format!("POST {uploads}")).await else { return false };
                self.finish(&begun.location(), blob).await
            }
            3 => self.in_chunks(repo, blob).await,
            4 => self.of_two(repo, blob).await,
            5 => self.cancelled(repo, blob).await,
            _ => {
                let Some(begun) = self.get(&format!("POST {uploads}")).await else { return false };
                let body = self.body(content);
                let Some(patched) = self.ask(&format!("PATCH {}", begun.location()), None, body).await else {
                    return false;
                };
                if patched.status != 202 {
                    return false;
                }
                self.rests().await;
                let line = format!("PUT {}&digest={digest}", patched.location());
                let mut finished = self.get(&line).await;
                if finished.is_none() {
                    // A finish may be repeated.
                    finished = self.get(&line).await;
                }
                finished.is_some_and(|answer| answer.status == 201)
            }
        }
    }

    async fn finish(&mut self, location: &str, blob: usize) -> bool {
        let body = self.body(BLOBS[blob]);
        let answer = self.ask(&format!("PUT {location}&digest={}", blob_digest(blob)), None, body).await;
        answer.is_some_and(|answer| answer.status == 201)
    }

    async fn push(&mut self, repo: &'static str, image: usize, tag: Option<&'static str>) {
        for child in IMAGES[image].children {
            Box::pin(self.push(repo, *child, None)).await;
        }
        for _ in 0..TRIES {
            if self.try_push(repo, image, tag).await {
                return;
            }
            self.rests().await;
        }
        self.world.counts.add("push given up", 1);
    }

    async fn try_push(&mut self, repo: &'static str, image: usize, tag: Option<&'static str>) -> bool {
        let Some(parts) = IMAGES.get(image) else { return false };
        for blob in parts.blobs {
            let there = self.get(&format!("HEAD /v2/{repo}/blobs/{}", blob_digest(*blob))).await;
            if there.is_some_and(|answer| answer.status == 200) {
                continue;
            }
            if !self.upload(repo, *blob).await {
                return false;
            }
            self.rests().await;
        }
        if self.chance.below(5) == 0 {
            // It goes away, and others rely on what it left.
            return true;
        }
        let reference = tag.map_or_else(|| parts.digest.to_string(), str::to_owned);
        let line = format!("PUT /v2/{repo}/manifests/{reference}");
        let fact = self.world.facts.begin(Asked::Put { repo, image, tag });
        let header = Some(("content-type", parts.media_type));
        let answer = self.ask(&line, header, Body::from(parts.manifest.clone())).await;
        match answer.map(|answer| answer.status.as_u16()) {
            Some(201) => {
                self.world.facts.done(fact);
                self.world.counts.add("manifest acknowledged", 1);
                if !self.world.kind.deletes && !self.world.kind.expires {
                    self.check_whole(repo, image).await;
                }
                if let Some(tag) = tag.filter(|tag| *tag == IMMUTABLE) {
                    self.world.counts.add("immutable tag acknowledged", 1);
                    self.pull(repo, tag).await;
                }
                true
            }
            Some(409) => {
                assert_eq!(tag, Some(IMMUTABLE), "refused for a value of the tag, which may have any");
                self.world.facts.answered(fact);
                self.world.counts.add("immutable tag refused", 1);
                true
            }
            // A refusal may leave a copy behind, which nothing names; it was never promised.
            _ => false,
        }
    }

    /// Without deletions, what was acknowledged is there at once, on any replica.
    async fn check_whole(&mut self, repo: &str, image: usize) {
        let parts = &IMAGES[image];
        let manifest = self.patient(&format!("GET /v2/{repo}/manifests/{}", parts.digest)).await;
        assert_eq!(String::from_utf8_lossy(&manifest.body), parts.manifest, "acknowledged, and not there at once");
        for blob in parts.blobs {
            let answer = self.patient(&format!("GET /v2/{repo}/blobs/{}", blob_digest(*blob))).await;
            assert_eq!(String::from_utf8_lossy(&answer.body), BLOBS[*blob], "acknowledged, and not whole at once");
        }
    }

    /// Until an answer comes that is not the network's.
    pub(super) async fn patient(&mut self, line: &str) -> Answer {
        loop {
            match self.get(line).await {
                Some(answer) if !answer.status.is_server_error() => return answer,
                _ => self.rests().await,
            }
        }
    }

    /// What a tag is: it has to be a value that it may have.
    async fn pull(&mut self, repo: &'static str, tag: &'static str) {
        let fact = self.world.facts.begin(Asked::Read { repo, tag, image: None });
        let Some(answer) = self.get(&format!("GET /v2/{repo}/manifests/{tag}")).await else { return };
        let image = match answer.status.as_u16() {
            200 => {
                let found = IMAGES.iter().position(|image| image.manifest.as_bytes() == answer.body);
                assert!(found.is_some(), "a pull gave what nobody pushed");
                found
            }
            404 => None,
            _ => return,
        };
        self.world.facts.turned_out(fact, Asked::Read { repo, tag, image });
    }

    /// Goes back with a tag: to the value before, or to this image. From then on it is that value.
    async fn undo(&mut self, repo: &'static str, tag: &'static str, image: usize) {
        let to = (self.chance.below(2) == 0).then(|| IMAGES[image].digest.to_string());
        let asked = Asked::Undo { repo, tag, image: to.is_some().then_some(image) };
        let (fact, replica) = (self.world.facts.begin(asked), self.replica());
        let answer = self.world.undo(replica, (repo, tag), to.as_deref()).await;
        self.world
            .store
            .say(|| format!("client {}: undo {repo}:{tag} to {to:?} (replica {replica}): {answer:?}", self.name));
        match answer {
            Some(Ok(undone)) => {
                let image = IMAGES.iter().position(|image| image.digest.to_string() == undone.digest);
                assert!(image.is_some(), "undone to what nobody pushed");
                assert_ne!(undone.before, Some(undone.digest), "undone to what it was");
                self.world.facts.turned_out(fact, Asked::Undo { repo, tag, image });
                self.world.counts.add("undo acknowledged", 1);
                self.pull(repo, tag).await;
            }
            Some(Err(
                AdminError::NoTag { .. }
                | AdminError::NoRepository { .. }
                | AdminError::NoValue { .. }
                | AdminError::NothingBefore { .. }
                | AdminError::AlreadySo { .. }
                | AdminError::ValueBroken { .. },
            )) => {
                self.world.facts.refused(fact);
                self.world.counts.add("undo refused", 1);
            }
            Some(Err(AdminError::ValueGone { .. })) => self.world.counts.add("undo came too late", 1),
            _ => {}
        }
    }

    async fn delete(&mut self, asked: Asked, line: &str) {
        let fact = self.world.facts.begin(asked);
        match self.get(line).await.map(|answer| answer.status.as_u16()) {
            Some(202) => {
                self.world.facts.done(fact);
                self.world.counts.add("delete acknowledged", 1);
            }
            Some(404) => self.world.facts.refused(fact),
            _ => {}
        }
    }
}
