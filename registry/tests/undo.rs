//! Going back to a value that a tag had, and tags that keep theirs.

use fluyt_registry::service::Registry;
use insta::assert_snapshot;

use crate::history::{Operated, marked, shown};

impl Operated {
    async fn undo(&self, tag: &str, to: Option<&str>) -> Result<String, String> {
        let undone = self.admin.undo(&"a".parse().unwrap(), &tag.parse().unwrap(), to).await;
        undone.map(|undone| undone.to).map_err(|error| error.to_string())
    }
}

/// What `a:t` was, and is `three`.
async fn three() -> Operated {
    let app = Operated::new().await;
    for (minute, mark) in [(0, "one"), (10, "two"), (20, "three")] {
        app.minute(minute);
        app.push("a", "t", mark).await;
    }
    app.minute(30);
    app
}

fn digest(mark: &str) -> String {
    marked(mark).1.to_string()
}

#[tokio::test]
async fn undone_twice_it_is_done_again() {
    let app = three().await;
    assert_eq!(app.undo("t", None).await.as_deref(), Ok("2"));
    assert_eq!(app.named("a", "t").await, digest("two"));
    app.minute(40);
    assert_eq!(app.undo("t", None).await.as_deref(), Ok("3"));
    assert_eq!(app.named("a", "t").await, digest("three"));
    app.minute(50);
    assert_eq!(app.undo("t", Some("1")).await.as_deref(), Ok("1"));
    assert_eq!(app.named("a", "t").await, digest("one"));
    assert_snapshot!(shown(&app.history("a", "t").await), @r#"
    6 2026-01-01T00:50:00Z one there Current t.at.20260101T005000Z
    5 2026-01-01T00:40:00Z three there Past until 2026-01-01T00:50:00Z by value 6 t.at.20260101T004000Z
    4 2026-01-01T00:30:00Z two there Past until 2026-01-01T00:40:00Z by value 5 t.at.20260101T003000Z
    3 2026-01-01T00:20:00Z three there Past until 2026-01-01T00:30:00Z by value 4 t.at.20260101T002000Z
    2 2026-01-01T00:10:00Z two there Past until 2026-01-01T00:20:00Z by value 3 t.at.20260101T001000Z
    1 2026-01-01T00:00:00Z one there Past until 2026-01-01T00:10:00Z by value 2 t.at.20260101T000000Z
    "#);
    assert_eq!(app.history("a", "t").await.values[0].by.as_deref(), Some("operator"));
    // What was published in between is its past too.
    assert_eq!(app.named("a", "t.at.20260101T004500Z").await, digest("three"));
    // One entry of the tag is left.
    let keys = app.keys().await;
    assert_eq!(keys.iter().filter(|key| key.contains("/_tags/t!/")).count(), 1, "{keys:?}");
}

#[tokio::test]
async fn a_deleted_tag_comes_back_and_a_deleted_manifest_does_not() {
    let app = three().await;
    assert_eq!(app.get("DELETE /v2/a/manifests/t").await.status, 202);
    assert_eq!(app.undo("t", None).await.as_deref(), Ok("3"));
    assert_eq!(app.named("a", "t").await, digest("three"));
    assert_eq!(app.get(&format!("DELETE /v2/a/manifests/{}", digest("three"))).await.status, 202);
    assert_eq!(app.named("a", "t").await, "404 Not Found");
    assert_snapshot!(app.undo("t", None).await.unwrap_err(), @r#"value 4 of a:t cannot come back: its manifest sha256:9bddd48256aee3ad52cb362549e33259d28d8d1d26f53f6a2ff03528ec5a1201 was deleted; still there: 1, 2 (choose one with --to)"#);
    assert_snapshot!(app.undo("t", Some(&digest("three"))).await.unwrap_err(), @r#"value 4 of a:t cannot come back: its manifest sha256:9bddd48256aee3ad52cb362549e33259d28d8d1d26f53f6a2ff03528ec5a1201 was deleted; still there: 1, 2 (choose one with --to)"#);
    assert_eq!(app.named("a", "t").await, "404 Not Found");
    assert_eq!(app.undo("t", Some("2")).await.as_deref(), Ok("2"));
    assert_eq!(app.named("a", "t").await, digest("two"));
    for mark in ["one", "two"] {
        app.get(&format!("DELETE /v2/a/manifests/{}", digest(mark))).await;
    }
    assert_snapshot!(app.undo("t", Some("1")).await.unwrap_err(), @r#"value 1 of a:t cannot come back: its manifest sha256:61584620b0c0607c2c2b110c398b45638791e9adcbce4d7d54979d44ace0b1b3 was deleted, and no other value of it is left: push a:t again"#);
}

#[tokio::test]
async fn what_undo_is_told_and_cannot_do() {
    let app = three().await;
    app.push("a", "u", "one").await;
    let error = async |tag: &str, to: Option<&str>| app.undo(tag, to).await.unwrap_err();
    assert_snapshot!(error("u", None).await, @r#"a:u has no earlier value to go back to: sha256:61584620b0c0607c2c2b110c398b45638791e9adcbce4d7d54979d44ace0b1b3 is the only one that its history knows"#);
    assert_snapshot!(error("t", Some("3")).await, @r#"a:t is sha256:9bddd48256aee3ad52cb362549e33259d28d8d1d26f53f6a2ff03528ec5a1201 already: nothing was changed"#);
    assert_snapshot!(error("t", Some("9")).await, @r#"a:t never had a value `9`: `history a:t` shows its values and their ids"#);
    assert_snapshot!(error("t", Some("sha256:ffffff")).await, @r#"a:t never had a value `sha256:ffffff`: `history a:t` shows its values and their ids"#);
    assert_snapshot!(error("x", None).await, @r#"repository a has no tag x, and its history knows of none; did you mean t or u?"#);
    assert_eq!(app.named("a", "t").await, digest("three"));
    // The beginning of a digest will do.
    assert_eq!(app.undo("t", Some(&digest("one")[7..15])).await.as_deref(), Ok("1"));
}

#[tokio::test]
async fn a_value_whose_layer_was_deleted_does_not_come_back() {
    let app = three().await;
    let layer = crate::app::digest(b"layer");
    assert_eq!(app.get(&format!("DELETE /v2/a/blobs/{layer}")).await.status, 202);
    assert_snapshot!(app.undo("t", None).await.unwrap_err(), @r#"value 2 of a:t cannot come back: its manifest sha256:5f6b9e504d719d0a0e245533c6ca954c87237c0c70cc39a9a0a67dfa36973de0 is there, and sha256:dac1d7cfa95021764849fd102524e141488c5e3a90f861dbb5a12d9ac8584f85 is not: push a:t again"#);
    assert_eq!(app.named("a", "t").await, digest("three"));
}

async fn immutable(patterns: &[&str]) -> Operated {
    let patterns: Vec<_> = patterns.iter().map(|pattern| pattern.parse().unwrap()).collect();
    Operated::with(|registry: Registry| registry.with_immutable_tags(patterns)).await
}

#[tokio::test]
async fn an_immutable_tag_keeps_its_first_value() {
    let app = immutable(&["v*"]).await;
    app.push("a", "v1", "one").await;
    assert_snapshot!(app.try_push("a", "v1", "two").await.shown(), @r#"
    409 Conflict
    content-length: 148
    content-type: application/json

    {"errors":[{"code":"DENIED","message":"tag v1 of repository a is immutable, and has another value or is just getting one: push under another tag"}]}
    "#);
    assert_eq!(app.named("a", "v1").await, digest("one"));
    app.push("a", "v1", "one").await;
    // Another is none of them; and in one push each tag counts for itself.
    app.push("a", "latest", "one").await;
    app.push("a", &format!("{}?tag=latest&tag=v2", digest("two")), "two").await;
    let refused = app.try_push("a", &format!("{}?tag=latest&tag=v2", digest("three")), "three").await;
    assert_eq!(refused.status, 409, "{}", refused.shown());
    assert_eq!(app.named("a", "v2").await, digest("two"));
    // Deleted, it is free; and whoever may undo may move it.
    assert_eq!(app.get("DELETE /v2/a/manifests/v1").await.status, 202);
    app.push("a", "v1", "two").await;
    assert_eq!(app.undo("v1", None).await.map(drop), Ok(()));
    assert_eq!(app.named("a", "v1").await, digest("one"));
    assert_eq!(app.try_push("a", "v1", "three").await.status, 409);
}

#[tokio::test]
async fn immutable_in_some_repositories_only() {
    let app = immutable(&["team/*:*"]).await;
    app.push("team/a", "x", "one").await;
    app.push("a", "x", "one").await;
    app.push("a", "x", "two").await;
    assert_eq!(app.try_push("team/a", "x", "two").await.status, 409);
}
