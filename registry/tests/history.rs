//! Old values of tags: `history`, and names such as `TAG.at.20261101T100000Z`.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use axum::Router;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fluyt_registry::admin::{Admin, History, Progress, State};
use fluyt_registry::auth::{Accounts, Authorizer, Passwords, TokenKeys, Users};
use fluyt_registry::http::{App, router};
use fluyt_registry::service::{Registry, Surroundings};
use fluyt_registry::spec::Digest;
use fluyt_registry::storage::{Memory, Port, Storage};
use futures_util::TryStreamExt;
use insta::assert_snapshot;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::app::{Answer, MANIFEST, digest, image, send, surroundings};

/// 2026-01-01T00:00:00Z: long before the store, which has the real clock, gets anything.
const START: i64 = 1_767_225_600;

/// A registry whose clock a test sets, and its operator.
pub(crate) struct Operated {
    pub(crate) router: Router,
    pub(crate) admin: Admin,
    pub(crate) store: Memory,
    clock: Arc<AtomicI64>,
}

impl Operated {
    pub(crate) async fn new() -> Self {
        Self::on(Memory::default()).await
    }

    pub(crate) async fn on(store: Memory) -> Self {
        Self::through(store.clone(), store, |registry| registry).await
    }

    pub(crate) async fn with(settings: impl FnOnce(Registry) -> Registry) -> Self {
        let store = Memory::default();
        Self::through(store.clone(), store, settings).await
    }

    pub(crate) async fn through(port: impl Port, store: Memory, settings: impl FnOnce(Registry) -> Registry) -> Self {
        let clock = Arc::new(AtomicI64::new(START));
        let hand = clock.clone();
        let now = move || jiff::Timestamp::from_second(hand.load(Ordering::Relaxed)).unwrap().to_string();
        let surroundings = Surroundings { now: Arc::new(now), ..surroundings() };
        let storage = Storage::open(port, [7; 32]).await.unwrap();
        let registry = Arc::new(settings(Registry::new(storage, surroundings)));
        let admin = Admin::new(registry.clone());
        Self { router: router(App::new(registry, Authorizer::Everyone)), admin, store, clock }
    }

    /// So many minutes after the start.
    pub(crate) fn minute(&self, minute: i64) {
        self.clock.store(START + 60 * minute, Ordering::Relaxed);
    }

    pub(crate) async fn get(&self, line: &str) -> Answer {
        send(&self.router, line, &[], "").await
    }

    /// Pushes an image that differs by `mark`.
    pub(crate) async fn push(&self, repo: &str, reference: &str, mark: &str) -> Digest {
        let answer = self.try_push(repo, reference, mark).await;
        assert_eq!(answer.status, 201, "{}", answer.shown());
        marked(mark).1
    }

    pub(crate) async fn try_push(&self, repo: &str, reference: &str, mark: &str) -> Answer {
        for blob in [&b"{}"[..], b"layer"] {
            // As clients do.
            if self.get(&format!("HEAD /v2/{repo}/blobs/{}", digest(blob))).await.status == 200 {
                continue;
            }
            let line = format!("POST /v2/{repo}/blobs/uploads/?digest={}", digest(blob));
            assert_eq!(send(&self.router, &line, &[], blob.to_vec()).await.status, 201);
        }
        let line = format!("PUT /v2/{repo}/manifests/{reference}");
        send(&self.router, &line, &[("content-type", MANIFEST)], marked(mark).0).await
    }

    pub(crate) async fn history(&self, repo: &str, tag: &str) -> History {
        self.admin.history(&repo.parse().unwrap(), &tag.parse().unwrap()).await.unwrap()
    }

    /// The digest that a reference answers, or the status.
    pub(crate) async fn named(&self, repo: &str, reference: &str) -> String {
        let answer = self.get(&format!("GET /v2/{repo}/manifests/{reference}")).await;
        let head = self.get(&format!("HEAD /v2/{repo}/manifests/{reference}")).await;
        assert_eq!(
            (answer.status, answer.header("docker-content-digest")),
            (head.status, head.header("docker-content-digest"))
        );
        if answer.status == 200 { answer.header("docker-content-digest").to_owned() } else { answer.status.to_string() }
    }

    pub(crate) async fn keys(&self) -> Vec<String> {
        let keys = self.store.list(None).map_ok(|object| object.location.to_string());
        keys.try_collect().await.unwrap()
    }
}

/// An image, and its digest.
pub(crate) fn marked(mark: &str) -> (String, Digest) {
    let manifest = image(&[b"{}", b"layer"], &format!(r#","annotations":{{"mark":"{mark}"}}"#));
    let digest = digest(&manifest);
    (manifest, digest)
}

/// A history as lines; digests by the marks of [`marked`].
pub(crate) fn shown(history: &History) -> String {
    let mark = |digest: &str| {
        let mark = ["one", "two", "three", "four"].into_iter().find(|mark| marked(mark).1.to_string() == digest);
        mark.unwrap_or("?")
    };
    let line = |value: &fluyt_registry::admin::Value| {
        let there = if value.there { "there" } else { "gone" };
        let ended = value.ended.as_ref().map(|ended| match &ended.by_value {
            Some(by) => format!(" until {} by value {by}", ended.time),
            None => format!(" deleted {}", ended.time),
        });
        let name = value.name.as_ref().map(|name| format!(" {name}"));
        let (ended, name) = (ended.unwrap_or_default(), name.unwrap_or_default());
        format!("{} {} {} {there} {:?}{ended}{name}", value.id, value.time, mark(&value.digest), value.state)
    };
    history.values.iter().map(line).collect::<Vec<_>>().join("\n")
}

async fn three_values_then_deleted() -> Operated {
    let app = Operated::new().await;
    for (minute, mark) in [(0, "one"), (10, "two"), (20, "three")] {
        app.minute(minute);
        app.push("a", "t", mark).await;
    }
    app.minute(30);
    assert_eq!(app.get("DELETE /v2/a/manifests/t").await.status, 202);
    app.minute(40);
    app.push("a", "t", "four").await;
    app
}

#[tokio::test]
async fn a_history_tells_every_value_and_what_ended_it() {
    let app = three_values_then_deleted().await;
    assert_snapshot!(shown(&app.history("a", "t").await), @r#"
    4 2026-01-01T00:40:00Z four there Current t.at.20260101T004000Z
    3 2026-01-01T00:20:00Z three there Past deleted 2026-01-01T00:30:00Z t.at.20260101T002000Z
    2 2026-01-01T00:10:00Z two there Past until 2026-01-01T00:20:00Z by value 3 t.at.20260101T001000Z
    1 2026-01-01T00:00:00Z one there Past until 2026-01-01T00:10:00Z by value 2 t.at.20260101T000000Z
    "#);
}

#[tokio::test]
async fn a_name_of_an_old_value_answers_what_the_history_says() {
    let app = three_values_then_deleted().await;
    let [one, two, three, four] = ["one", "two", "three", "four"].map(|mark| marked(mark).1.to_string());
    let gone = "404 Not Found".to_owned();
    for (at, expected) in [
        ("20251231T235959Z", &gone),
        ("20260101T000000Z", &one),
        ("20260101T000959Z", &one),
        ("20260101T001000Z", &two),
        ("20260101T002959Z", &three),
        ("20260101T003000Z", &gone),
        ("20260101T003959Z", &gone),
        ("20260101T004000Z", &four),
        ("21000101T000000Z", &four),
        ("20261301T000000Z", &gone),
    ] {
        assert_eq!(app.named("a", &format!("t.at.{at}")).await, *expected, "{at}");
    }
    let history = app.history("a", "t").await;
    for value in &history.values {
        assert_eq!(app.named("a", value.name.as_deref().unwrap()).await, value.digest);
    }
    assert_eq!(app.get("GET /v2/a/tags/list").await.body, br#"{"name":"a","tags":["t"]}"#);
}

#[tokio::test]
async fn a_store_that_was_copied_keeps_its_times() {
    let app = three_values_then_deleted().await;
    let copy = Memory::default();
    for key in app.keys().await {
        let path = object_store::path::Path::parse(&key).unwrap();
        let bytes = app.store.get(&path).await.unwrap().bytes().await.unwrap();
        copy.put(&path, bytes.into()).await.unwrap();
    }
    let copied = Operated::on(copy).await;
    assert_eq!(copied.history("a", "t").await, app.history("a", "t").await);
    assert_eq!(copied.named("a", "t.at.20260101T001500Z").await, marked("two").1.to_string());
}

#[tokio::test]
async fn a_clock_that_runs_ahead_dates_nothing_into_the_future() {
    let app = Operated::new().await;
    app.minute(60 * 24 * 365 * 50);
    app.push("a", "t", "one").await;
    let now = jiff::Timestamp::now();
    let time: jiff::Timestamp = app.history("a", "t").await.values[0].time.parse().unwrap();
    assert!((now.as_second() - time.as_second()).abs() < 60, "{time}");
    let name = now.checked_add(jiff::SignedDuration::from_secs(60)).unwrap().strftime("%Y%m%dT%H%M%SZ").to_string();
    assert_eq!(app.named("a", &format!("t.at.{name}")).await, marked("one").1.to_string());
}

#[tokio::test]
async fn a_deleted_manifest_is_gone_from_the_past_too() {
    let app = Operated::new().await;
    for (minute, mark) in [(0, "one"), (10, "two"), (20, "three")] {
        app.minute(minute);
        app.push("a", "t", mark).await;
    }
    app.get(&format!("DELETE /v2/a/manifests/{}", marked("two").1)).await;
    assert_eq!(app.named("a", "t.at.20260101T001500Z").await, "404 Not Found");
    assert_eq!(app.named("a", "t.at.20260101T000500Z").await, marked("one").1.to_string());
    assert_snapshot!(shown(&app.history("a", "t").await), @r#"
    3 2026-01-01T00:20:00Z three there Current t.at.20260101T002000Z
    2 2026-01-01T00:10:00Z two gone Past until 2026-01-01T00:20:00Z by value 3
    1 2026-01-01T00:00:00Z one there Past until 2026-01-01T00:10:00Z by value 2 t.at.20260101T000000Z
    "#);
}

#[tokio::test]
async fn names_of_old_values_are_not_pushed_and_a_tag_of_that_name_wins() {
    let app = Operated::new().await;
    app.push("a", "t", "one").await;
    let refused = app.try_push("a", "t.at.20260101T000000Z", "two").await;
    assert_snapshot!(refused.shown(), @r#"
    400 Bad Request
    content-length: 170
    content-type: application/json

    {"errors":[{"code":"NAME_INVALID","message":"names that end in `.at.` and a time are those of old values: they are pulled, never pushed: push t, or choose another tag"}]}
    "#);
    let refused = app.try_push("a", &format!("{}?tag=x&tag=t.at.20260101T000000Z", marked("two").1), "two").await;
    assert_eq!(refused.status, 400, "{}", refused.shown());
    assert_eq!(app.get("DELETE /v2/a/manifests/t.at.20260101T000000Z").await.status, 404);
    // One that another version, or an adopted store, has.
    app.push("a", "u", "three").await;
    for key in app.keys().await.iter().filter(|key| key.contains("/_tags/u!/")) {
        let real = object_store::path::Path::parse(key.replace("/u!/", "/t.at.20260101T000000Z!/")).unwrap();
        app.store.put(&real, "{}".into()).await.unwrap();
    }
    assert_eq!(app.named("a", "t.at.20260101T000000Z").await, marked("three").1.to_string());
    assert_eq!(app.named("a", "t.at.20260101T000001Z").await, marked("one").1.to_string());
}

#[tokio::test]
async fn a_push_that_came_to_nothing_is_no_value() {
    let app = Operated::new().await;
    app.push("a", "t", "one").await;
    app.push("a", "u", "two").await;
    // What a push leaves that breaks off before it publishes: a history entry of the next order.
    let key = app.keys().await.into_iter().find(|key| key.contains("/_history/u/")).unwrap();
    let key = key.replace("/_history/u/0000000000000001", "/_history/t/0000000000000002");
    app.store.put(&object_store::path::Path::parse(key).unwrap(), "{}".into()).await.unwrap();
    let history = app.history("a", "t").await;
    assert_eq!(
        history.values.iter().map(|value| value.state).collect::<Vec<_>>(),
        [State::Unpublished, State::Current]
    );
    assert_eq!(app.named("a", "t.at.21000101T000000Z").await, marked("one").1.to_string());
}

#[tokio::test]
async fn what_has_no_history_is_told_with_names_like_it() {
    let app = Operated::new().await;
    app.push("team/app", "v1.0", "one").await;
    let error = async |repo: &str, tag: &str| {
        app.admin.history(&repo.parse().unwrap(), &tag.parse().unwrap()).await.unwrap_err().to_string()
    };
    assert_snapshot!(error("team/ap", "v1.0").await, @r#"there is no repository team/ap: nothing was ever pushed to it; did you mean team/app?"#);
    assert_snapshot!(error("other", "v1.0").await, @r#"there is no repository other: nothing was ever pushed to it"#);
    assert_snapshot!(error("team/app", "v1.1").await, @r#"repository team/app has no tag v1.1, and its history knows of none; did you mean v1.0?"#);
}

/// Whoever pushed and deleted stands in the history, and a deletion is told of by `explain` too.
#[tokio::test]
async fn a_history_tells_who_did_it() {
    let store = Memory::default();
    let users: String = ["ann", "bob"].map(|name| format!("{name}:{}\n", bcrypt::hash("secret", 4).unwrap())).concat();
    let storage = Storage::open(store.clone(), [7; 32]).await.unwrap();
    let token_keys = TokenKeys::new(storage.upload_keys());
    let passwords = Passwords::new(Users::parse(&users).unwrap(), [8; 32], 1);
    let registry = Arc::new(Registry::new(storage, surroundings()));
    let admin = Admin::new(registry.clone());
    let authorizer = Authorizer::Accounts(Arc::new(Accounts { passwords, anonymous_pull: false, token_keys }));
    let router = router(App::new(registry, authorizer));
    let ask = async |who: &str, line: &str, body: &[u8]| {
        let basic = format!("Basic {}", STANDARD.encode(format!("{who}:secret")));
        let answer = send(&router, line, &[("authorization", &basic), ("content-type", MANIFEST)], body.to_vec()).await;
        assert!(answer.status.is_success(), "{line}: {}", answer.shown());
    };
    for blob in [&b"{}"[..], b"layer"] {
        ask("ann", &format!("POST /v2/a/blobs/uploads/?digest={}", digest(blob)), blob).await;
    }
    for (who, mark) in [("ann", "one"), ("bob", "two")] {
        ask(who, "PUT /v2/a/manifests/t", marked(mark).0.as_bytes()).await;
    }
    ask("bob", "DELETE /v2/a/manifests/t", b"").await;
    ask("ann", "PUT /v2/a/manifests/t", marked("three").0.as_bytes()).await;
    ask("bob", &format!("DELETE /v2/a/manifests/{}", marked("three").1), b"").await;
    let history = admin.history(&"a".parse().unwrap(), &"t".parse().unwrap()).await.unwrap();
    let told: Vec<_> = history
        .values
        .iter()
        .map(|value| (value.by.clone().unwrap(), value.ended.as_ref().map(|ended| ended.by.clone().unwrap())))
        .collect();
    let expected = [("ann", Some("bob")), ("bob", Some("bob")), ("ann", Some("bob"))];
    assert_eq!(told, expected.map(|(by, ended)| (by.to_owned(), ended.map(str::to_owned))));
    let window = jiff::SignedDuration::from_hours(24);
    let found = admin.explain(&"a".parse().unwrap(), &marked("three").1, window).await.unwrap();
    assert_eq!((found.hints[0].why.as_str(), found.hints[0].by.as_deref()), ("deleted", Some("bob")));
}

/// What emptying a repository costs grows with what it holds, not with the square of that.
#[tokio::test]
async fn a_repository_is_emptied_in_as_many_requests_as_it_has_things() {
    let mut cost = Vec::new();
    for count in [20, 40, 80] {
        let store = Memory::default();
        let port = crate::watched::Watched::new(store.clone());
        let app = Operated::through(port.clone(), store, |registry| registry).await;
        for n in 0..count {
            app.push("a", &format!("t{n}"), &format!("image {n}")).await;
        }
        app.push("b", "t", "image 0").await;
        port.requests();
        let deleted = app.admin.delete_repository(&"a".parse().unwrap(), &Progress::none()).await.unwrap();
        assert_eq!((deleted.tags, deleted.manifests, deleted.blobs), (count, count, 2));
        cost.push(port.requests().len());
        for n in 0..count {
            for reference in [format!("t{n}"), marked(&format!("image {n}")).1.to_string()] {
                assert_eq!(app.named("a", &reference).await, "404 Not Found");
            }
        }
        assert_eq!(app.named("b", "t").await, marked("image 0").1.to_string());
        // The hint of it ends no push that comes afterwards.
        app.push("a", "t0", "image 0").await;
        assert_eq!(app.named("a", "t0").await, marked("image 0").1.to_string());
    }
    let (first, second) = (cost[1] - cost[0], cost[2] - cost[1]);
    assert!(cost[0] > 40 && second.abs_diff(2 * first) < 10, "{cost:?}");
}
