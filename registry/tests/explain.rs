//! `explain`: what keeps something, and what ended it.

use fluyt_registry::admin::{Explanation, ReasonKind};
use jiff::SignedDuration;
use object_store::ObjectStoreExt;
use object_store::path::Path;

use crate::app::digest;
use crate::history::{Operated, marked};

impl Operated {
    async fn explain(&self, repo: &str, of: impl std::fmt::Display) -> Result<Explanation, String> {
        let (repo, digest) = (repo.parse().unwrap(), of.to_string().parse().unwrap());
        let window = SignedDuration::from_hours(24 * 30);
        self.admin.explain(&repo, &digest, window).await.map_err(|error| error.to_string())
    }
}

fn reasons(found: &Explanation) -> Vec<(ReasonKind, String)> {
    found.kept_by.iter().map(|reason| (reason.kind, reason.name.clone())).collect()
}

#[tokio::test]
async fn what_keeps_manifests_and_blobs() {
    let app = Operated::new().await;
    app.push("a", "t", "one").await;
    app.push("a", "t", "two").await;
    app.push("a", "u", "two").await;
    app.push("b", "t", "one").await;
    let (one, two) = (marked("one").1, marked("two").1);

    let found = app.explain("a", &two).await.unwrap();
    assert_eq!(reasons(&found), [(ReasonKind::Tag, "t".into()), (ReasonKind::Tag, "u".into())]);
    assert_eq!((found.manifest_since.len(), found.blob_since.len()), (1, 0));
    // Replaced, it is kept as long as the window reaches.
    let found = app.explain("a", &one).await.unwrap();
    assert_eq!(reasons(&found), [(ReasonKind::History, "t".into())]);
    let until: jiff::Timestamp = found.kept_by[0].until.as_ref().unwrap().parse().unwrap();
    let days = (until.as_second() - jiff::Timestamp::now().as_second()) / (24 * 60 * 60);
    assert!((29..=30).contains(&days), "{until}");
    let found = app.explain("a", digest(b"layer")).await.unwrap();
    let mut expected = vec![(ReasonKind::Manifest, one.to_string()), (ReasonKind::Manifest, two.to_string())];
    expected.sort();
    expected.push((ReasonKind::Repository, "b".into()));
    assert_eq!(reasons(&found), expected);
    assert!(app.explain("a", digest(b"never")).await.unwrap_err().contains("has nothing by the digest"));
}

#[tokio::test]
async fn what_ended_it() {
    let app = Operated::new().await;
    app.push("a", "t", "one").await;
    let one = marked("one").1;
    assert_eq!(app.get(&format!("DELETE /v2/a/manifests/{one}")).await.status, 202);
    let found = app.explain("a", &one).await.unwrap();
    assert_eq!((found.manifest_since.len(), found.kept_by.len()), (0, 0));
    assert_eq!(found.hints.len(), 1, "{found:?}");
    assert!(found.hints[0].key.starts_with("repos/a/_manifests/"), "{found:?}");
    assert_eq!((found.hints[0].what.as_str(), found.hints[0].why.as_str()), ("the manifest", "deleted"));
    // What a collector writes when the window is over.
    let log = format!(
        r#"{{"run":"r","time":"2026-02-01T00:00:00Z","removed":[{{"key":"repos/a/_manifests/x","digest":"{one}","repo":"a","why":"expired","size_bytes":1}}]}}"#
    );
    app.store.put(&Path::parse("gc/log/abc").unwrap(), log.into()).await.unwrap();
    app.store.put(&Path::parse("gc/log/bad").unwrap(), "nonsense".into()).await.unwrap();
    let found = app.explain("a", &one).await.unwrap();
    assert_eq!(found.removed.len(), 1);
    assert_eq!((found.removed[0].why.as_str(), found.removed[0].time.as_str()), ("expired", "2026-02-01T00:00:00Z"));
}
