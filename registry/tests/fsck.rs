//! `fsck`: what it finds in a store that something happened to, and what it repairs.

use std::time::{Duration, SystemTime};

use fluyt_registry::admin::{FsckPlan, Kind, Progress, Report};
use fluyt_registry::spec::RepoName;
use fluyt_registry::storage::Memory;
use object_store::ObjectStoreExt;
use object_store::path::Path;

use crate::app::{INDEX, MANIFEST, digest, image, send};
use crate::clocked::Clocked;
use crate::history::{Operated, marked};
use crate::watched::Watched;

const LOOK: FsckPlan = FsckPlan { rehash: false, repair: false };
const REHASH: FsckPlan = FsckPlan { rehash: true, repair: false };
const REPAIR: FsckPlan = FsckPlan { rehash: false, repair: true };
const REHASH_AND_REPAIR: FsckPlan = FsckPlan { rehash: true, repair: true };

impl Operated {
    async fn fsck(&self, plan: FsckPlan) -> Report {
        self.admin.fsck(plan, &Progress::none()).await.unwrap()
    }

    /// The keys that hold all of these parts.
    async fn keys_with(&self, parts: &[&str]) -> Vec<String> {
        let mut keys = self.keys().await;
        keys.retain(|key| parts.iter().all(|part| key.contains(part)));
        assert!(!keys.is_empty(), "{parts:?}");
        keys
    }

    async fn read(&self, key: &str) -> bytes::Bytes {
        self.store.get(&Path::parse(key).unwrap()).await.unwrap().bytes().await.unwrap()
    }

    async fn write(&self, key: &str, bytes: impl Into<bytes::Bytes>) {
        let bytes: bytes::Bytes = bytes.into();
        self.store.put(&Path::parse(key).unwrap(), bytes.into()).await.unwrap();
    }

    async fn lose(&self, parts: &[&str]) -> String {
        let keys = self.keys_with(parts).await;
        assert_eq!(keys.len(), 1, "{keys:?}");
        self.store.delete(&Path::parse(&keys[0]).unwrap()).await.unwrap();
        keys[0].clone()
    }
}

fn kinds(report: &Report) -> Vec<Kind> {
    let mut kinds: Vec<Kind> = report.findings.iter().map(|finding| finding.kind).collect();
    kinds.sort();
    kinds
}

fn layer_hex() -> String {
    digest(b"layer").hex().to_owned()
}

/// Two tags, an index, and a referrer.
async fn whole() -> Operated {
    fill(Operated::new().await).await
}

/// The same, written hours ago by the store's clock.
async fn whole_and_old() -> Operated {
    let store = Memory::default();
    let hours_ago = SystemTime::now() - Duration::from_secs(6 * 60 * 60);
    let clocked = Clocked::at(Watched::new(store.clone()), hours_ago);
    fill(Operated::through(clocked, store, |registry| registry).await).await
}

async fn fill(app: Operated) -> Operated {
    app.push("a", "t", "one").await;
    app.push("a", "u", "two").await;
    let index = format!(
        r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{{"mediaType":"{MANIFEST}","digest":"{}","size":1}}]}}"#,
        marked("one").1
    );
    let put = send(&app.router, "PUT /v2/a/manifests/index", &[("content-type", INDEX)], index).await;
    assert_eq!(put.status, 201, "{}", put.shown());
    let answer = put_referrer(&app).await;
    assert_eq!(answer.status, 201, "{}", answer.shown());
    app
}

fn referrer() -> String {
    let subject = format!(r#","subject":{{"mediaType":"{MANIFEST}","digest":"{}","size":1}}"#, marked("one").1);
    image(&[b"{}", b"layer"], &subject)
}

async fn put_referrer(app: &Operated) -> crate::app::Answer {
    let line = format!("PUT /v2/a/manifests/{}", digest(referrer()));
    send(&app.router, &line, &[("content-type", MANIFEST)], referrer()).await
}

#[tokio::test]
async fn a_whole_store_has_no_findings() {
    let app = whole().await;
    for plan in [LOOK, REHASH, REHASH_AND_REPAIR] {
        let before = app.keys().await;
        let report = app.fsck(plan).await;
        assert_eq!(kinds(&report), [], "{:?}", report.findings);
        let checked = &report.checked;
        assert_eq!((checked.repositories, checked.tags, checked.manifests, checked.referrers), (1, 3, 4, 1));
        assert_eq!((checked.links, checked.data), (2, 2));
        assert_eq!(checked.hashed_bytes, if plan.rehash { 7 } else { 0 });
        assert_eq!(app.keys().await, before);
    }
    // After deletions too.
    app.get("DELETE /v2/a/manifests/u").await;
    app.get(&format!("DELETE /v2/a/manifests/{}", marked("one").1)).await;
    let report = app.fsck(REHASH).await;
    assert_eq!(kinds(&report), [], "{:?}", report.findings);
    assert_eq!(report.noted.sparse_indexes, 1);
}

#[tokio::test]
async fn lost_data_is_found_where_it_is_missed() {
    let app = whole().await;
    app.lose(&["data/", &layer_hex()]).await;
    let report = app.fsck(LOOK).await;
    // Three images name the layer; a referrer of no tag is young enough to be what a refused push left.
    assert_eq!(kinds(&report), [Kind::BrokenLink, Kind::MissingBlob, Kind::MissingBlob]);
    assert_eq!(report.left, 3);
    assert_eq!(report.noted.refused, 1);
    assert!(report.findings[0].message.contains("its data is not there"), "{:?}", report.findings);
    // Nothing to repair it with.
    assert_eq!(app.fsck(REPAIR).await.left, 3);
    // A client uploads what is missing, and then all is well: that other links name what is lost harms nobody.
    app.push("a", "t", "one").await;
    let report = app.fsck(REHASH).await;
    assert_eq!(kinds(&report), [], "{:?}", report.findings);
    assert_eq!(report.noted.dangling_links, 2);
}

#[tokio::test]
async fn damaged_data_is_found_by_reading_it() {
    let app = whole().await;
    let key = app.keys_with(&["data/", &layer_hex()]).await.remove(0);
    app.write(&key, "LAYER").await;
    assert_eq!(kinds(&app.fsck(LOOK).await), []);
    let report = app.fsck(REHASH).await;
    assert_eq!(kinds(&report), [Kind::DamagedData, Kind::BrokenLink, Kind::MissingBlob, Kind::MissingBlob]);
    let damaged = &report.findings[0];
    assert_eq!(damaged.message, format!("expected bytes of {}, found bytes of {}", digest("layer"), digest("LAYER")));
    assert_eq!(damaged.key, key);
    app.write(&key, "longer than a layer").await;
    let report = app.fsck(LOOK).await;
    assert_eq!(report.findings[0].message, "expected data of 5 bytes, found 19");
}

/// Gives repository `b` data of its own of a blob that `a` has as well, as two uploads at once do.
async fn twin(app: &Operated, hex: &str) {
    let hash = fluyt_registry::protocol::RepoHash::of(&"b".parse::<RepoName>().unwrap());
    for link in app.keys_with(&["links/", hex, hash.as_str()]).await {
        let data = link.split('.').nth(1).unwrap();
        let (other, new) = (format!("data/{}/{data}", &hex[..2]), data.replace("0000", "ffff"));
        app.write(&format!("data/{}/{new}", &hex[..2]), app.read(&other).await).await;
        app.write(&link.replace(data, &new), "b").await;
        app.store.delete(&Path::parse(&link).unwrap()).await.unwrap();
    }
}

#[tokio::test]
async fn a_link_to_damaged_data_is_replaced_by_one_to_other_data() {
    let app = whole().await;
    app.push("b", "t", "one").await;
    let hex = layer_hex();
    twin(&app, &hex).await;
    assert_eq!(kinds(&app.fsck(REHASH).await), []);
    let hash = fluyt_registry::protocol::RepoHash::of(&"a".parse::<RepoName>().unwrap());
    let link = app.keys_with(&["links/", &hex, hash.as_str()]).await.remove(0);
    app.write(&format!("data/{}/{}", &hex[..2], link.split('.').nth(1).unwrap()), "LAYER").await;
    let layer = format!("GET /v2/a/blobs/{}", digest("layer"));
    assert_eq!(app.get(&layer).await.body, b"LAYER");

    let report = app.fsck(REHASH_AND_REPAIR).await;
    assert_eq!(kinds(&report), [Kind::DamagedData, Kind::BrokenLink], "{:?}", report.findings);
    assert_eq!((report.repaired, report.left), (1, 1));
    assert_eq!(app.get(&layer).await.body, b"layer");
    // The data itself is no more in use, and a collector's.
    assert_eq!(kinds(&app.fsck(REHASH).await), [Kind::DamagedData]);
    assert_eq!(app.named("a", "t").await, marked("one").1.to_string());
}

#[tokio::test]
async fn data_that_is_damaged_as_well_repairs_nothing() {
    let app = whole().await;
    app.push("b", "t", "one").await;
    let hex = layer_hex();
    twin(&app, &hex).await;
    for key in app.keys_with(&["data/", &hex]).await {
        app.write(&key, "LAYER").await;
    }
    app.lose(&["data/", &hex, "ffff"]).await;
    // Not hashed beforehand: the other data is read before it is linked.
    let report = app.fsck(REPAIR).await;
    assert_eq!(report.repaired, 0, "{:?}", report.findings);
    assert!(report.left > 0);
}

#[tokio::test]
async fn entries_that_are_missing_are_written_again() {
    let app = whole().await;
    let index = app.lose(&["/_blobs/", &layer_hex()]).await;
    let catalog = app.lose(&["catalog/"]).await;
    app.lose(&["/_referrers/"]).await;
    // A push that is under way has yet to write its referrer entry.
    assert_eq!(
        kinds(&app.fsck(LOOK).await),
        [Kind::MissingIndexEntry, Kind::MissingIndexEntry, Kind::MissingIndexEntry, Kind::MissingCatalogEntry]
    );
    let before = app.keys().await;
    assert!(!before.contains(&index) && !before.contains(&catalog));

    let report = app.fsck(REPAIR).await;
    assert_eq!(kinds(&report), [Kind::MissingIndexEntry, Kind::MissingCatalogEntry], "{:?}", report.findings);
    assert_eq!((report.repaired, report.left), (2, 0));
    assert!(app.keys().await.contains(&catalog));
    assert_eq!(kinds(&app.fsck(LOOK).await), []);
}

#[tokio::test]
async fn a_tag_and_a_referrer_without_a_manifest() {
    let app = whole().await;
    app.lose(&["/_manifests/", marked("two").1.hex()]).await;
    app.lose(&["/_manifests/", digest(referrer()).hex()]).await;
    let report = app.fsck(LOOK).await;
    assert_eq!(kinds(&report), [Kind::DeadReferrer, Kind::DeadTag], "{:?}", report.findings);
    assert!(report.findings[0].message.contains("tag u is listed"), "{:?}", report.findings);
    let report = app.fsck(REPAIR).await;
    assert_eq!((report.repaired, report.left), (1, 1));
    let hint = app.keys_with(&["gc/hints/"]).await.remove(0);
    assert_eq!(app.read(&hint).await, app.keys_with(&["/_referrers/"]).await[0]);
    // Ended, it is no tag any more.
    app.get("DELETE /v2/a/manifests/u").await;
    assert_eq!(kinds(&app.fsck(LOOK).await), [Kind::DeadReferrer]);
}

#[tokio::test]
async fn damaged_manifests() {
    let app = whole().await;
    let one = app.keys_with(&["/_manifests/", marked("one").1.hex()]).await.remove(0);
    let content = String::from_utf8(app.read(&one).await.to_vec()).unwrap();
    app.write(&one, content.replace("one", "eno")).await;
    let two = app.keys_with(&["/_manifests/", marked("two").1.hex()]).await.remove(0);
    app.write(&two, "no header").await;
    let report = app.fsck(LOOK).await;
    assert_eq!(kinds(&report), [Kind::DamagedManifest, Kind::DamagedManifest], "{:?}", report.findings);
    assert_eq!(report.left, 2);
}

#[tokio::test]
async fn what_was_accepted_sparse_is_no_finding() {
    let app = Operated::new().await;
    app.push("a", "t", "one").await;
    let sparse = image(&[b"{}", b"layer", b"never uploaded"], "");
    let put = send(&app.router, "PUT /v2/a/manifests/s", &[("content-type", MANIFEST)], sparse).await;
    assert_eq!(put.status, 201, "{}", put.shown());
    let report = app.fsck(LOOK).await;
    assert_eq!(kinds(&report), [], "{:?}", report.findings);
    assert_eq!(report.noted.sparse_images, 1);
}

#[tokio::test]
async fn lists_longer_than_a_page() {
    let app = Operated::new().await;
    app.push("a/b", "t", "one").await;
    let entry = app.keys_with(&["/_tags/t!/"]).await.remove(0);
    for n in 0..1200 {
        app.write(&entry.replace("/t!/", &format!("/t{n}!/")), "{}").await;
    }
    for repo in ["a", "a/b/c", "a/0", "a-b"] {
        app.push(repo, "t", "two").await;
    }
    let report = app.fsck(LOOK).await;
    assert_eq!(kinds(&report), [], "{:?}", report.findings);
    assert_eq!((report.checked.repositories, report.checked.tags), (5, 1205));
    // A list for each thousand keys, not for each key; no look, as all manifests were read.
    assert!(report.checked.lists < 3 * 256 + 60, "{:?}", report.checked);
    assert_eq!(report.checked.looks, 5, "{:?}", report.checked);
}

#[tokio::test]
async fn a_lost_entry_of_a_referrers_list_is_written_again() {
    // One that is young may be a push's that is under way.
    let young = whole().await;
    let entry = young.lose(&["repos/a/_referrers/"]).await;
    assert_eq!(kinds(&young.fsck(REPAIR).await), []);
    assert!(!young.keys().await.contains(&entry));
    let app = whole_and_old().await;
    let content = app.read(&app.keys_with(&["repos/a/_referrers/"]).await[0]).await;
    let key = app.lose(&["repos/a/_referrers/"]).await;
    let list = format!("GET /v2/a/referrers/{}", marked("one").1);
    let listed = async |app: &Operated| String::from_utf8(app.get(&list).await.body).unwrap();
    assert!(!listed(&app).await.contains(digest(referrer()).hex()));
    let report = app.fsck(LOOK).await;
    assert_eq!(kinds(&report), [Kind::MissingReferrer], "{:?}", report.findings);
    assert_eq!((report.findings[0].key.as_str(), report.left), (key.as_str(), 1));
    let report = app.fsck(REPAIR).await;
    assert_eq!((kinds(&report), report.left, report.repaired), (vec![Kind::MissingReferrer], 0, 1));
    assert!(listed(&app).await.contains(digest(referrer()).hex()));
    assert_eq!(app.read(&key).await, content);
    assert_eq!(kinds(&app.fsck(LOOK).await), []);
}
