//! Uploads that go through several replicas on one object store: begun on one, gone on with on another, finished on a third.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use fluyt_registry::spec::{Algorithm, Digest};
use fluyt_registry::storage::Memory;
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::app::{Answer, MANIFEST, digest, image, router_on, send};
use crate::object_store::{LEAST_PART_BYTES, Strict};

const MIB: usize = 1024 * 1024;

/// Three replicas on one store.
struct Replicas {
    port: Strict,
    routers: Vec<Router>,
}

impl Replicas {
    async fn new() -> Self {
        let port = Strict::new(Memory::default());
        let mut routers = Vec::new();
        for _ in 0..3 {
            routers.push(router_on(port.clone()).await);
        }
        Self { port, routers }
    }

    async fn send(&self, replica: usize, line: &str, body: impl Into<Body>) -> Answer {
        send(&self.routers[replica % 3], line, &[], body).await
    }

    async fn get(&self, replica: usize, line: &str) -> Answer {
        self.send(replica, line, Body::empty()).await
    }

    async fn begun(&self) -> String {
        let answer = self.get(0, "POST /v2/a/blobs/uploads/").await;
        assert_eq!(answer.header("oci-chunk-min-length"), LEAST_PART_BYTES.to_string());
        answer.header("location").to_owned()
    }

    /// Adds a chunk; the new Location.
    async fn patched(&self, replica: usize, location: &str, body: impl Into<Body>) -> String {
        let answer = self.send(replica, &format!("PATCH {location}"), body).await;
        assert_eq!(answer.status, 202, "{}", answer.shown());
        answer.header("location").to_owned()
    }

    async fn keys(&self, prefix: &str) -> Vec<String> {
        let all: Vec<_> =
            self.port.list(None).map_ok(|object| object.location.to_string()).try_collect().await.unwrap();
        all.into_iter().filter(|key| key.starts_with(prefix)).collect()
    }

    async fn remove(&self, prefix: &str) {
        for key in self.keys(prefix).await {
            self.port.delete(&Path::parse(key).unwrap()).await.unwrap();
        }
    }

    async fn pulled(&self, replica: usize, digest: &Digest) -> Vec<u8> {
        self.get(replica, &format!("GET /v2/a/blobs/{digest}")).await.body
    }
}

fn content(size_bytes: usize) -> Vec<u8> {
    (0..size_bytes).map(|i| (i / 7 % 251) as u8).collect()
}

fn finish(location: &str, digest: &Digest) -> String {
    format!("PUT {location}&digest={digest}")
}

/// A body in frames as a connection has them.
fn frames(content: &[u8]) -> impl futures_util::Stream<Item = std::io::Result<Bytes>> + use<> {
    let frames: Vec<_> = content.chunks(48 * 1024).map(|frame| Ok(Bytes::copy_from_slice(frame))).collect();
    stream::iter(frames)
}

#[tokio::test]
async fn begun_on_one_continued_on_the_second_finished_on_the_third_pulled_from_the_first() {
    // Chunks that end before, at and behind borders of parts, and in the middle.
    for sizes in [
        &[3 * MIB, 4 * MIB, 1, 9 * MIB][..],
        &[LEAST_PART_BYTES, LEAST_PART_BYTES, LEAST_PART_BYTES],
        &[LEAST_PART_BYTES + 1, LEAST_PART_BYTES - 1, 7],
        &[1, 2, 3],
        &[12 * MIB + 5],
    ] {
        for last_in_put in [false, true] {
            let replicas = Replicas::new().await;
            let whole = content(sizes.iter().sum());
            let mut location = replicas.begun().await;
            let mut at = 0;
            for (n, size) in sizes.iter().enumerate() {
                let chunk = whole[at..at + size].to_vec();
                at += size;
                if last_in_put && n + 1 == sizes.len() {
                    let line = finish(&location, &digest(&whole));
                    let answer = replicas.send(n + 1, &line, Body::from_stream(frames(&chunk))).await;
                    assert_eq!(answer.status, 201, "{sizes:?}: {}", answer.shown());
                } else {
                    location = replicas.patched(n + 1, &location, Body::from_stream(frames(&chunk))).await;
                    let status = replicas.get(n + 2, &format!("GET {location}")).await;
                    assert_eq!(status.header("range"), format!("0-{}", at - 1));
                }
            }
            if !last_in_put {
                let answer = replicas.get(2, &finish(&location, &digest(&whole))).await;
                assert_eq!(answer.status, 201, "{sizes:?}: {}", answer.shown());
            }
            assert!(replicas.pulled(0, &digest(&whole)).await == whole, "{sizes:?}");
            assert_eq!(replicas.port.unfinished(), 0);
        }
    }
}

/// As when both set the store up at once: the first has listed the keys when the second writes its own, which lies before it.
#[tokio::test]
async fn an_upload_begun_on_a_replica_that_started_at_the_same_time_is_gone_on_with() {
    let port = Strict::new(Memory::default());
    let first = router_on(port.clone()).await;
    let key = Path::parse("upload-key.1.000000000000000000000000").unwrap();
    port.put(&key, "07".repeat(32).into()).await.unwrap();
    let second = router_on(port).await;
    let begun = send(&second, "POST /v2/a/blobs/uploads/", &[], Body::empty()).await;
    let patched = send(&first, &format!("PATCH {}", begun.header("location")), &[], "content").await;
    assert_eq!(patched.status, 202, "{}", patched.shown());
    let put = finish(patched.header("location"), &digest("content"));
    assert_eq!(send(&second, &put, &[], Body::empty()).await.status, 201);
}

#[tokio::test(start_paused = true)]
async fn a_slow_body_writes_no_short_part() {
    for size in [3 * MIB, 12 * MIB] {
        let replicas = Replicas::new().await;
        let whole = content(size);
        // Pauses that are long enough for what has come to be put aside.
        let body = frames(&whole).enumerate().then(|(n, frame)| async move {
            if n % 20 == 19 {
                tokio::time::sleep(Duration::from_secs(8)).await;
            }
            frame
        });
        let location = replicas.begun().await;
        let location = replicas.patched(1, &location, Body::from_stream(body)).await;
        assert!(!replicas.keys("uploads/").await.iter().all(|key| !key.contains("/tail.")), "nothing was put aside");
        // What fits one part is one object all the same.
        assert_eq!(replicas.port.unfinished(), usize::from(size > LEAST_PART_BYTES));
        assert_eq!(replicas.get(2, &finish(&location, &digest(&whole))).await.status, 201);
        assert!(replicas.pulled(0, &digest(&whole)).await == whole);
    }
}

#[tokio::test]
async fn of_two_that_go_on_with_one_upload_exactly_one_does() {
    for round in 0..20 {
        let replicas = Replicas::new().await;
        let first = content(6 * MIB);
        let location = replicas.begun().await;
        let location = replicas.patched(0, &location, first.clone()).await;
        let line = format!("PATCH {location}");
        let (one, two) = tokio::join!(replicas.send(1, &line, "one"), replicas.send(2, &line, "two"));
        let mut statuses = [one.status.as_u16(), two.status.as_u16()];
        statuses.sort_unstable();
        assert_eq!(statuses, [202, 416], "round {round}\n{}\n{}", one.shown(), two.shown());
        let (winner, bytes) = if one.status == 202 { (one, "one") } else { (two, "two") };
        let whole = [&first[..], bytes.as_bytes()].concat();
        assert_eq!(replicas.get(0, &finish(winner.header("location"), &digest(&whole))).await.status, 201);
    }
}

#[tokio::test]
async fn a_cut_connection_is_gone_on_with_on_another_replica() {
    let replicas = Replicas::new().await;
    let whole = content(20 * MIB);
    let begun = replicas.begun().await;
    let mut location = begun.clone();
    let mut at = 0;
    for (replica, until) in [(1, 7 * MIB), (2, 8 * MIB + 3)] {
        let broken = frames(&whole[at..until]).chain(stream::iter([Err(std::io::Error::other("cut"))]));
        let answer = replicas.send(replica, &format!("PATCH {location}"), Body::from_stream(broken)).await;
        assert_eq!(answer.status, 400, "{}", answer.shown());
        // The client knows no Location but the last that it was told.
        let status = replicas.get(replica + 1, &format!("GET {location}")).await;
        assert_eq!(status.header("range"), format!("0-{}", until - 1));
        location = status.header("location").to_owned();
        at = until;
    }
    let line = finish(&location, &digest(&whole));
    assert_eq!(replicas.send(1, &line, whole[at..].to_vec()).await.status, 201);
    assert!(replicas.pulled(0, &digest(&whole)).await == whole);
}

#[tokio::test]
async fn finishing_again_says_the_same_again_wherever_and_whenever() {
    for size in [0, 100, 12 * MIB] {
        for body_in_put in [false, true] {
            let replicas = Replicas::new().await;
            let whole = content(size);
            let mut location = replicas.begun().await;
            let mut rest = whole.clone();
            if size > 0 {
                let last = rest.split_off(if body_in_put { size / 2 } else { size });
                location = replicas.patched(1, &location, rest).await;
                rest = last;
            }
            let line = finish(&location, &digest(&whole));
            for replica in 0..3 {
                let answer = replicas.send(replica, &line, rest.clone()).await;
                assert_eq!(answer.status, 201, "{size} {body_in_put} {replica}: {}", answer.shown());
                assert_eq!(answer.header("docker-content-digest"), digest(&whole).to_string());
            }
            replicas.remove("uploads/").await;
            for replica in 0..3 {
                let answer = replicas.send(replica, &line, rest.clone()).await;
                assert_eq!(answer.status, 201, "{size} {body_in_put} {replica}, swept: {}", answer.shown());
            }
            assert!(replicas.pulled(0, &digest(&whole)).await == whole);
        }
    }
}

#[tokio::test]
async fn an_upload_that_was_completed_without_a_link_is_looked_at_before_it_is_linked() {
    let replicas = Replicas::new().await;
    let whole = content(12 * MIB);
    let location = replicas.begun().await;
    let location = replicas.patched(1, &location, whole.clone()).await;
    let line = finish(&location, &digest(&whole));
    assert_eq!(replicas.get(0, &line).await.status, 201);
    // As if the replica had died between completing the data and linking it.
    replicas.remove("links/").await;
    assert_eq!(replicas.get(1, &line).await.status, 201);
    assert!(replicas.pulled(2, &digest(&whole)).await == whole);
    // As if another request had completed it with other bytes.
    replicas.remove("links/").await;
    let data = replicas.keys("data/").await.into_iter().find(|key| !key.contains(".of/")).unwrap();
    let mut other = whole.clone();
    other[0] ^= 1;
    replicas.port.store.put(&Path::parse(data).unwrap(), other.into()).await.unwrap();
    assert_eq!(replicas.get(1, &line).await.status, 400);
    assert_eq!(replicas.get(2, &format!("HEAD /v2/a/blobs/{}", digest(&whole))).await.status, 404);
}

#[tokio::test]
async fn a_claim_of_a_replica_that_died_ends_the_upload_and_says_so() {
    let replicas = Replicas::new().await;
    let location = replicas.begun().await;
    let location = replicas.patched(1, &location, content(6 * MIB)).await;
    let id = location.rsplit('/').next().unwrap().split('?').next().unwrap();
    let claim = Path::parse(format!("uploads/{id}/00000002.dead.claim")).unwrap();
    replicas.port.put(&claim, "".into()).await.unwrap();
    let refused = replicas.send(2, &format!("PATCH {location}"), "more").await;
    assert_eq!(refused.status, 416);
    assert!(refused.shown().contains("begin a new upload"), "{}", refused.shown());
    let status = replicas.get(0, &format!("GET {location}")).await;
    assert_eq!(status.header("range"), format!("0-{}", 6 * MIB - 1));
    let finished = replicas.get(0, &finish(&location, &digest(content(6 * MIB)))).await;
    assert_eq!(finished.status, 416, "{}", finished.shown());
}

#[tokio::test]
async fn a_request_that_was_refused_does_not_end_the_upload() {
    let replicas = Replicas::new().await;
    let first = content(6 * MIB);
    let location = replicas.begun().await;
    let location = replicas.patched(0, &location, first.clone()).await;
    let line = format!("PATCH {location}");
    let range = format!("{}-{}", first.len(), first.len() + 9);
    let refused = send(&replicas.routers[1], &line, &[("content-range", &range)], "more").await;
    assert_eq!(refused.status, 400, "{}", refused.shown());
    let location = replicas.patched(2, &location, "more").await;
    let whole = [&first[..], b"more"].concat();
    assert_eq!(replicas.get(1, &finish(&location, &digest(&whole))).await.status, 201);
    assert!(replicas.pulled(0, &digest(&whole)).await == whole);
}

#[tokio::test]
async fn a_cancelled_long_upload_is_unknown_everywhere() {
    let replicas = Replicas::new().await;
    let location = replicas.begun().await;
    let location = replicas.patched(1, &location, content(6 * MIB)).await;
    assert_eq!(replicas.get(2, &format!("DELETE {location}")).await.status, 204);
    for replica in 0..3 {
        for line in [format!("GET {location}"), format!("PATCH {location}"), format!("DELETE {location}")] {
            assert_eq!(replicas.get(replica, &line).await.status, 404, "{line}");
        }
        let line = finish(&location, &digest(content(6 * MIB)));
        assert_eq!(replicas.get(replica, &line).await.status, 404);
    }
}

#[tokio::test]
async fn sha512_of_a_long_blob() {
    let replicas = Replicas::new().await;
    let whole = content(12 * MIB);
    let wide = Digest::of(Algorithm::Sha512, &whole);
    for begin in ["POST /v2/a/blobs/uploads/?digest-algorithm=sha512", "POST /v2/a/blobs/uploads/"] {
        let location = replicas.get(0, begin).await.header("location").to_owned();
        let location = replicas.patched(1, &location, whole.clone()).await;
        let answer = replicas.get(2, &finish(&location, &wide)).await;
        assert_eq!(answer.status, 201, "{}", answer.shown());
        assert!(replicas.pulled(0, &wide).await == whole);
        assert_eq!(replicas.get(1, &format!("DELETE /v2/a/blobs/{wide}")).await.status, 202);
    }
}

/// A body that is said to be as long as that.
struct Announced(u64);

impl http_body::Body for Announced {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<std::io::Result<http_body::Frame<Bytes>>>> {
        std::task::Poll::Ready(Some(Ok(http_body::Frame::data("x".into()))))
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.0)
    }
}

#[tokio::test]
async fn a_blob_that_the_store_cannot_hold_is_refused_before_it_is_sent() {
    let replicas = Replicas::new().await;
    let location = replicas.begun().await;
    let answer = replicas.send(1, &format!("PATCH {location}"), Body::new(Announced(200 << 30))).await;
    assert_eq!(answer.status, 413);
    assert!(answer.shown().contains("this store takes at most 196"), "{}", answer.shown());
    assert_eq!(replicas.keys("uploads/").await, [""; 0]);
}

/// A replica that has met a blob begins with what it knows of it, and has to see that another one took it away.
#[tokio::test]
async fn a_blob_that_another_replica_deleted_is_not_relied_on() {
    let replicas = Replicas::new().await;
    let digest = digest("layer");
    let push = async |replica: usize| {
        let line = format!("POST /v2/a/blobs/uploads/?digest={digest}");
        assert_eq!(replicas.send(replica, &line, "layer").await.status, 201);
    };
    let put = async |replica: usize, tag: &str| {
        let line = format!("PUT /v2/a/manifests/{tag}");
        send(&replicas.routers[replica], &line, &[("content-type", MANIFEST)], image(&[b"layer"], "")).await
    };
    push(0).await;
    assert_eq!(replicas.get(1, &format!("DELETE /v2/a/blobs/{digest}")).await.status, 202);
    let refused = put(0, "t").await;
    assert_eq!(refused.status, 400, "{}", refused.shown());
    assert!(refused.shown().contains("MANIFEST_BLOB_UNKNOWN"), "{}", refused.shown());
    // Nor does what it knew stand in the way of what came back.
    push(2).await;
    assert_eq!(put(0, "t").await.status, 201);
    assert_eq!(replicas.get(1, "GET /v2/a/manifests/t").await.status, 200);
}
