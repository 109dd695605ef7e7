//! Uploads that take several requests: in chunks, gone on with after a lost answer, by two at once, cancelled.
//!
//! In a calm world (nothing goes wrong, nobody deletes) what a client does alone has to succeed, as long as it takes less
//! time than things are left alone. In any world what is told is so: an acknowledged byte is counted, of two that go on
//! with one state of a long upload one is refused, and what was cancelled stays away.

use std::time::Duration;

use axum::body::Body;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio::time::Instant;

use super::client::Client;
use super::images::{BLOBS, blob_digest};
use super::world::Answer;

/// How many requests a client tries for one upload.
const REQUESTS: usize = 12;
/// A body of so many bytes that pauses becomes a part, where a store takes parts of any size.
const PART: usize = 66_000;
/// How long an upload is kept that nobody goes on with.
const KEPT: Duration = Duration::from_secs(24 * 3600);

/// A state of an upload that a client knows.
#[derive(Clone, Debug)]
struct Known {
    location: String,
    offset: usize,
}

impl Known {
    fn of(answer: &Answer) -> Self {
        let offset = answer.offset().expect("an upload says where it is");
        Self { location: answer.location(), offset }
    }

    /// Whether it is an object in the store, which is looked for; otherwise the Location says it all.
    fn is_stored(&self) -> bool {
        let state = self.location.split_once("?state=").and_then(|(_, state)| state.split_once('.'));
        let state = URL_SAFE_NO_PAD.decode(state.expect("a Location has a state").0).expect("as it was made");
        let state: serde_json::Value = serde_json::from_slice(&state).expect("as it was made");
        state.get("s").is_some()
    }

    fn put(&self, blob: usize) -> String {
        format!("PUT {}&digest={}", self.location, blob_digest(blob))
    }

    fn patch(&self) -> String {
        format!("PATCH {}", self.location)
    }
}

fn status(answer: Option<&Answer>) -> u16 {
    answer.map_or(0, |answer| answer.status.as_u16())
}

/// A refusal that says that the upload is not there, or is somebody else's to go on with.
fn is_clear(status: u16) -> bool {
    matches!(status, 404 | 416)
}

impl Client {
    /// Whether what began then has to succeed: nothing goes wrong, and nothing is old enough to go.
    fn is_calm(&self, began: Instant) -> bool {
        self.world.kind.is_calm() && self.is_recent(began)
    }

    /// Whether nothing that was written since can have had its time.
    fn is_recent(&self, began: Instant) -> bool {
        began.elapsed() < self.world.kind.grace.min(KEPT) / 2
    }

    async fn begin(&mut self, repo: &str) -> Option<Known> {
        let begun = self.get(&format!("POST /v2/{repo}/blobs/uploads/")).await?;
        (begun.status == 202).then(|| Known::of(&begun))
    }

    /// How far the next chunk goes: often so far that it becomes a part. Not one byte, which looks like none.
    fn cut(&mut self, from: usize, end: usize) -> usize {
        let least = if end - from > PART { PART } else { 2.min(end - from) };
        from + least + self.chance.below((end - from - least + 1) as u64) as usize
    }

    /// What was acknowledged is there, byte for byte.
    async fn check_blob(&mut self, repo: &str, blob: usize, began: Instant) {
        let Some(answer) = self.get(&format!("GET /v2/{repo}/blobs/{}", blob_digest(blob))).await else { return };
        if answer.status == 200 {
            assert!(
                answer.body == BLOBS[blob].as_bytes(),
                "blob {blob} of {repo} has other bytes than its digest says"
            );
        } else {
            assert!(!self.is_calm(began), "blob {blob} was acknowledged, and {} says its GET", answer.status);
        }
    }

    /// Chunk by chunk. When an answer does not come, or is lost on its way, the client asks where the upload is.
    pub(super) async fn in_chunks(&mut self, repo: &str, blob: usize) -> bool {
        let (content, began) = (BLOBS[blob], Instant::now());
        let Some(mut known) = self.begin(repo).await else { return false };
        // Where the upload was last heard to be, which it cannot come to be before: as far as it is stored.
        let mut heard = 0;
        for _ in 0..REQUESTS {
            if known.offset == content.len() || self.chance.below(3) == 0 {
                break;
            }
            let end = self.cut(known.offset, content.len());
            let wrong = self.chance.below(8) == 0;
            let start = if wrong { known.offset + 1 } else { known.offset };
            let range =
                (wrong || self.chance.below(2) == 0).then(|| format!("{start}-{}", start + end - known.offset - 1));
            let body = self.body(&content[known.offset..end]);
            let header = range.as_deref().map(|range| ("content-range", range));
            let answer = self.ask(&known.patch(), header, body).await;
            match status(answer.as_ref()) {
                202 => {
                    assert!(!wrong, "a chunk was taken that does not follow");
                    let now = Known::of(answer.as_ref().unwrap());
                    assert_eq!(now.offset, end, "a chunk was acknowledged, and not counted");
                    if now.is_stored() {
                        heard = end;
                    }
                    if self.chance.below(4) > 0 {
                        self.world.counts.add("chunk acknowledged", 1);
                        known = now;
                        self.rests().await;
                        continue;
                    }
                    // That answer was lost.
                }
                416 if wrong => {
                    self.world.counts.add("chunk refused for its place", 1);
                    continue;
                }
                status => assert!(!self.is_calm(began), "a chunk was answered with {status}"),
            }
            self.rests().await;
            let answer = self.get(&format!("GET {}", known.location)).await;
            match status(answer.as_ref()) {
                204 => {
                    let now = Known::of(answer.as_ref().unwrap());
                    // What was swept for its age is begun again by a Location that does not know of it.
                    let least = if self.is_recent(began) { heard } else { 0 };
                    assert!(now.offset >= known.offset.max(least), "an acknowledged chunk is not counted any more");
                    self.world.counts.add("upload gone on with after a lost answer", 1);
                    known = now;
                }
                status if is_clear(status) => {
                    assert!(!self.is_calm(began), "an upload was gone when it was asked for: {status}");
                    self.world.counts.add("upload begun again after a lost answer", 1);
                    return false;
                }
                status => assert!(!self.is_calm(began), "where an upload is was answered with {status}"),
            }
        }
        for _ in 0..2 {
            let body = self.body(&content[known.offset..]);
            let answer = self.ask(&known.put(blob), None, body).await;
            match status(answer.as_ref()) {
                201 if self.chance.below(4) > 0 => {
                    self.world.counts.add("upload in chunks acknowledged", 1);
                    self.check_blob(repo, blob, began).await;
                    return true;
                }
                // That answer was lost, and the client asks again.
                201 => {}
                status => assert!(!self.is_calm(began), "the end of an upload was answered with {status}"),
            }
        }
        false
    }

    /// Two go on with one upload, at two replicas at once, with the same bytes or others.
    pub(super) async fn of_two(&mut self, repo: &str, blob: usize) -> bool {
        let (content, began) = (BLOBS[blob], Instant::now());
        let Some(mut known) = self.begin(repo).await else { return false };
        if content.len() > PART || content.len() > 2 && self.chance.below(2) == 0 {
            let cut = self.cut(0, content.len() - 1);
            let body = self.body(&content[..cut]);
            let Some(answer) = self.ask(&known.patch(), None, body).await else { return false };
            if answer.status != 202 {
                return false;
            }
            known = Known::of(&answer);
        }
        let rest = &content[known.offset..];
        let other =
            if self.chance.below(2) == 0 { rest } else { BLOBS[self.chance.below(BLOBS.len() as u64) as usize] };
        let (one, two) = (self.replica(), self.replica());
        let (mine, theirs) = (self.body(rest), self.body(other));
        let puts = self.chance.below(2) == 0;
        let their_line = if puts { known.put(blob) } else { known.patch() };
        let my_line = known.patch();
        let (mine, theirs) =
            tokio::join!(self.ask_of(one, &my_line, None, mine), self.ask_of(two, &their_line, None, theirs));
        let (my_status, their_status) = (status(mine.as_ref()), status(theirs.as_ref()));
        if their_status == 201 {
            self.world.counts.add("one of two ended an upload", 1);
            self.check_blob(repo, blob, began).await;
        }
        let stored = known.is_stored();
        if stored {
            let both = my_status == 202 && their_status == 202;
            assert!(!both, "two go on with one state of an upload");
            if is_clear(my_status) || is_clear(their_status) {
                self.world.counts.add("one of two was refused", 1);
            }
        }
        self.rests().await;
        if let Some(mine) = mine.filter(|mine| mine.status == 202) {
            let mine = Known::of(&mine);
            assert_eq!(mine.offset, content.len(), "a chunk was acknowledged, and not counted");
            let answer = self.get(&mine.put(blob)).await;
            let done = status(answer.as_ref());
            if done == 201 {
                self.world.counts.add("one of two was acknowledged", 1);
                self.check_blob(repo, blob, began).await;
                return true;
            }
            // Whoever ends a long upload, also with a wrong digest, ends it for all.
            assert!(stored && puts || !self.is_calm(began), "what one of two was acknowledged is gone: {done}");
            return their_status == 201;
        }
        if is_clear(my_status) && !puts && is_clear(their_status) {
            // Both lost, and the upload is where it was.
            self.world.counts.add("both of two were refused", 1);
            let body = self.body(rest);
            let answer = self.ask(&known.put(blob), None, body).await;
            let done = status(answer.as_ref());
            assert!(done == 201 || !self.is_calm(began), "an upload that nobody goes on with was answered with {done}");
            return done == 201;
        }
        their_status == 201
    }

    /// Begun, given up, and begun again.
    pub(super) async fn cancelled(&mut self, repo: &str, blob: usize) -> bool {
        let content = BLOBS[blob];
        let Some(begun) = self.begin(repo).await else { return false };
        let cut = self.cut(0, content.len());
        let body = self.body(&content[..cut]);
        let Some(answer) = self.ask(&begun.patch(), None, body).await.filter(|answer| answer.status == 202) else {
            return false;
        };
        let (known, since) = (Known::of(&answer), Instant::now());
        let line = format!("DELETE {}", if self.chance.below(2) == 0 { &begun.location } else { &known.location });
        // Sometimes somebody is just ending it, which may come first.
        let (one, two) = (self.replica(), self.replica());
        let end = known.put(blob);
        let ends = self.chance.below(3) == 0;
        let ending =
            async { if ends { self.ask_of(two, &end, None, Body::from(&content[cut..])).await } else { None } };
        let (answer, _) = tokio::join!(self.ask_of(one, &line, None, Body::empty()), ending);
        if status(answer.as_ref()) == 204 {
            self.world.counts.add("upload cancelled", 1);
            self.rests().await;
            let state = if self.chance.below(2) == 0 { &begun } else { &known };
            let line = match self.chance.below(3) {
                0 => format!("GET {}", state.location),
                // The first chunk of an upload may still be taken.
                1 => known.patch(),
                _ => state.put(blob),
            };
            let body = Body::from(if line.starts_with("GET") { "" } else { &content[..cut] });
            let answer = self.ask(&line, None, body).await;
            let taken = answer.is_some_and(|answer| answer.status.is_success());
            assert!(!taken || !self.is_recent(since), "a cancelled upload is back");
            if !taken {
                self.world.counts.add("cancelled upload refused", 1);
            }
        }
        let line = format!("POST /v2/{repo}/blobs/uploads/?digest={}", blob_digest(blob));
        let answer = self.ask(&line, None, Body::from(content)).await;
        status(answer.as_ref()) == 201
    }
}
