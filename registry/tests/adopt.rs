//! Taking over what another registry stored: a layout made by hand here, real registries in `spec-tests`.

use std::sync::Arc;

use fluyt_registry::adopt::{AdoptError, Report, adopt};
use fluyt_registry::collect::Mode;
use fluyt_registry::spec::{Algorithm, Digest};
use fluyt_registry::storage::{Memory, Storage};
use object_store::ObjectStoreExt;
use object_store::path::Path;

use crate::app::{INDEX, MANIFEST, TestApp, digest, image};
use crate::collect::{DAY, HOUR, Place};
use crate::watched::{Failing, Watched};

const ROOT: &str = "docker/registry/v2";

/// The other registry, as far as its store shows.
struct Other(Memory);

impl Other {
    async fn write(&self, key: &str, content: impl Into<String>) {
        self.0.put(&Path::parse(format!("{ROOT}/{key}")).unwrap(), content.into().into()).await.unwrap();
    }

    async fn data(&self, content: &str) -> String {
        let digest = digest(content);
        self.write(&format!("blobs/sha256/{}/{}/data", &digest.hex()[..2], digest.hex()), content).await;
        digest.to_string()
    }

    async fn blob(&self, repo: &str, content: &str) {
        let digest = self.data(content).await;
        let hex = digest.strip_prefix("sha256:").unwrap();
        self.write(&format!("repositories/{repo}/_layers/sha256/{hex}/link"), &*digest).await;
    }

    async fn manifest(&self, repo: &str, content: &str) -> String {
        let digest = self.data(content).await;
        let hex = digest.strip_prefix("sha256:").unwrap();
        self.write(&format!("repositories/{repo}/_manifests/revisions/sha256/{hex}/link"), &*digest).await;
        digest
    }

    async fn tag(&self, repo: &str, tag: &str, digest: &str) {
        self.write(&format!("repositories/{repo}/_manifests/tags/{tag}/current/link"), digest).await;
        let hex = digest.strip_prefix("sha256:").unwrap();
        self.write(&format!("repositories/{repo}/_manifests/tags/{tag}/index/sha256/{hex}/link"), digest).await;
    }

    async fn image(&self, repo: &str, tag: &str, layer: &str) -> (String, String) {
        self.blob(repo, "{}").await;
        self.blob(repo, layer).await;
        let manifest = image(&[b"{}", layer.as_bytes()], "");
        let digest = self.manifest(repo, &manifest).await;
        self.tag(repo, tag, &digest).await;
        (manifest, digest)
    }
}

async fn other() -> (Other, Memory) {
    let store = Memory::default();
    (Other(store.clone()), store)
}

async fn run(store: &Memory) -> Result<Report, AdoptError> {
    let storage = Storage::open(store.clone(), [7; 32]).await.unwrap();
    adopt(&storage, false, None, |_| "2026-01-01T00:00:00Z".into(), |_, _| {}).await
}

async fn served(store: &Memory) -> TestApp {
    TestApp::on(store.clone(), store.clone()).await
}

async fn tag_is(app: &TestApp, repo: &str, tag: &str, manifest: Option<&str>) {
    let answer = app.get(&format!("GET /v2/{repo}/manifests/{tag}")).await;
    match manifest {
        Some(manifest) => assert_eq!(String::from_utf8(answer.body).unwrap(), manifest, "{repo}:{tag}"),
        None => assert_eq!(answer.status, 404, "{repo}:{tag}"),
    }
}

#[tokio::test]
async fn everything_is_served_and_no_byte_is_copied() {
    let (other, store) = other().await;
    let (one, _) = other.image("a", "v1", "layer one").await;
    let (two, two_digest) = other.image("a/b", "V2", "layer two").await;
    other.tag("a/b", "latest", &two_digest).await;
    let index = format!(
        r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{{"mediaType":"{MANIFEST}","digest":"{two_digest}","size":{}}}]}}"#,
        two.len()
    );
    let index_digest = other.manifest("a/b", &index).await;
    other.tag("a/b", "multi", &index_digest).await;
    let report = run(&store).await.unwrap();
    assert_eq!((report.repositories, report.blobs, report.manifests, report.tags), (2, 4, 3, 4), "{report:?}");
    assert_eq!(report.problems, []);
    let app = served(&store).await;
    tag_is(&app, "a", "v1", Some(&one)).await;
    tag_is(&app, "a/b", "V2", Some(&two)).await;
    tag_is(&app, "a/b", "latest", Some(&two)).await;
    tag_is(&app, "a/b", "multi", Some(&index)).await;
    let layer = digest("layer two");
    assert_eq!(app.get(&format!("GET /v2/a/b/blobs/{layer}")).await.body, b"layer two");
    assert_eq!(app.get(&format!("HEAD /v2/a/blobs/{layer}")).await.status, 404);
    assert!(!app.keys().await.iter().any(|key| key.starts_with("data/")));
}

#[tokio::test]
async fn an_image_without_layers_as_buildkit_writes_it() {
    let (other, store) = other().await;
    other.blob("a", "{}").await;
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{{"mediaType":"a/b","digest":"{}","size":2}},"layers":null}}"#,
        digest("{}")
    );
    let name = other.manifest("a", &manifest).await;
    other.tag("a", "v1", &name).await;
    assert_eq!(run(&store).await.unwrap().problems, []);
    let app = served(&store).await;
    tag_is(&app, "a", "v1", Some(&manifest)).await;
    assert_eq!(app.put("a", "v2", MANIFEST, &manifest).await.status, 201);
    tag_is(&app, "a", "v2", Some(&manifest)).await;
}

#[tokio::test]
async fn a_repetition_brings_what_is_new_and_reverts_nothing() {
    let (other, store) = other().await;
    let (old, old_digest) = other.image("a", "moved-here", "one").await;
    for tag in ["moved-there", "deleted-here", "moved-on-both"] {
        other.tag("a", tag, &old_digest).await;
    }
    let (_, secret) = other.image("a", "secret", "two").await;
    run(&store).await.unwrap();

    let app = served(&store).await;
    let ours = image(&[b"{}", b"one"], r#","annotations":{"by":"us"}"#);
    for tag in ["moved-here", "moved-on-both"] {
        assert_eq!(app.put("a", tag, MANIFEST, &ours).await.status, 201);
    }
    assert_eq!(app.get("DELETE /v2/a/manifests/deleted-here").await.status, 202);
    assert_eq!(app.get(&format!("DELETE /v2/a/manifests/{secret}")).await.status, 202);
    let (new, new_digest) = other.image("a", "moved-there", "three").await;
    other.tag("a", "moved-on-both", &new_digest).await;
    other.tag("a", "new", &new_digest).await;
    other.tag("a", "new-name-of-old", &old_digest).await;

    for repeated in [false, true] {
        let report = run(&store).await.unwrap();
        assert_eq!((report.tags, report.manifests), if repeated { (0, 0) } else { (3, 1) }, "{report:?}");
        assert_eq!(report.problems, []);
        assert_eq!(report.kept.len(), 1, "{report:?}");
        tag_is(&app, "a", "moved-here", Some(&ours)).await;
        tag_is(&app, "a", "moved-on-both", Some(&ours)).await;
        tag_is(&app, "a", "deleted-here", None).await;
        tag_is(&app, "a", "secret", None).await;
        tag_is(&app, "a", &secret, None).await;
        tag_is(&app, "a", "moved-there", Some(&new)).await;
        tag_is(&app, "a", "new", Some(&new)).await;
        tag_is(&app, "a", "new-name-of-old", Some(&old)).await;
    }
}

#[tokio::test]
async fn what_cannot_be_taken_over_is_said() {
    let (other, store) = other().await;
    let schema_one = r#"{"schemaVersion":1,"name":"old","tag":"t","fsLayers":[],"history":[]}"#;
    let schema_one = other.manifest("old", schema_one).await;
    other.tag("old", "t", &schema_one).await;
    other.blob("torn", "{}").await;
    let torn = image(&[b"{}", b"was never there"], "");
    let torn_digest = other.manifest("torn", &torn).await;
    other.tag("torn", "t", &torn_digest).await;
    other.tag("torn", "dangling", &digest("nothing").to_string()).await;
    let report = run(&store).await.unwrap();
    let said: Vec<String> = report.problems.iter().map(|problem| problem.why.clone()).collect();
    assert!(said.iter().any(|why| why.contains("schema 1")), "{said:?}");
    assert!(said.iter().any(|why| why.contains("was not whole there either")), "{said:?}");
    assert!(said.iter().any(|why| why.contains("which its repository does not have")), "{said:?}");
    tag_is(&served(&store).await, "torn", "t", Some(&torn)).await;
}

#[tokio::test]
async fn stopped_anywhere_it_can_be_repeated() {
    for failing in [Failing::Before, Failing::After] {
        for nth in 0.. {
            let (other, store) = other().await;
            let (one, _) = other.image("a", "v1", "one").await;
            let (two, _) = other.image("b", "v1", "two").await;
            let port = Watched::new(store.clone());
            let storage = Arc::new(Storage::open(port.clone(), [7; 32]).await.unwrap());
            port.fail(Some((nth, failing)));
            let first = adopt(&storage, false, None, |_| String::new(), |_, _| {}).await;
            port.fail(None);
            run(&store).await.unwrap();
            let app = served(&store).await;
            tag_is(&app, "a", "v1", Some(&one)).await;
            tag_is(&app, "b", "v1", Some(&two)).await;
            // Each once, however often it was written.
            let keys = app.keys().await;
            for (part, expected) in [("/_tags/", 2), ("/_manifests/sha256/", 2)] {
                let ours = keys.iter().filter(|key| key.starts_with("repos/") && key.contains(part));
                assert_eq!(ours.count(), expected, "request {nth} {failing:?}: {keys:#?}");
            }
            if first.is_ok() {
                assert!(nth > 20, "only {nth} requests were made to fail");
                break;
            }
        }
    }
}

#[tokio::test]
async fn what_is_no_such_store_is_refused() {
    let (other, store) = other().await;
    assert!(matches!(run(&store).await, Err(AdoptError::Nothing)));
    other.image("a", "v1", "one").await;
    let lock = Path::parse("docker/registry/lockfiles/database-in-use").unwrap();
    store.put(&lock, "".into()).await.unwrap();
    assert!(matches!(run(&store).await, Err(AdoptError::Database)));
}

/// A place with two images, of which `gone` was deleted here since they were taken over.
async fn with_one_deleted() -> (Other, Place, String) {
    let place = Place::new().await;
    let other = Other(place.app.store().clone());
    other.image("a", "kept", "in both").await;
    other.image("b/c", "kept", "in another").await;
    other.blob("a", "of one alone").await;
    let gone = image(&[b"{}", b"in both", b"of one alone"], "");
    let gone = other.manifest("a", &gone).await;
    other.tag("a", "gone", &gone).await;
    // What was never of a repository, and what one has that cannot be served.
    other.data("of nobody").await;
    assert_eq!(place.adopt(false).await.problems, []);
    assert_eq!(place.app.get(&format!("DELETE /v2/a/manifests/{gone}")).await.status, 202);
    (other, place, gone)
}

impl Place {
    async fn adopt(&self, finish: bool) -> Report {
        let storage = Storage::open(self.store.clone(), [7; 32]).await.unwrap();
        adopt(&storage, finish, None, |_| "2026-01-01T00:00:00Z".into(), |_, _| {}).await.unwrap()
    }

    async fn has_old(&self, content: &str) -> bool {
        !self.keys_with(&format!("{ROOT}/blobs/sha256/{0:.2}/{0}/data", digest(content).hex())).await.is_empty()
    }
}

#[tokio::test]
async fn until_it_is_finished_nothing_goes_and_then_what_nobody_needs() {
    let (_, place, gone) = with_one_deleted().await;
    place.collect_all().await;
    assert!(place.has_old("of one alone").await, "the other registry may still need it");
    let report = place.adopt(true).await;
    assert!(report.finished && report.released, "{report:?}");
    // Not at once either.
    place.collect().await;
    assert!(place.has_old("of one alone").await);
    // Whoever takes it into use meanwhile keeps it.
    let mount = format!("POST /v2/d/blobs/uploads/?mount={}&from=b/c", digest("in another"));
    assert_eq!(place.app.get(&mount).await.status, 201);
    let manifest = image(&[b"{}", b"in another"], "");
    place.app.blob("d", b"{}").await;
    assert_eq!(place.app.put("d", "t", MANIFEST, &manifest).await.status, 201);
    assert_eq!(place.app.get("DELETE /v2/b/c/manifests/kept").await.status, 202);
    place.collect_all().await;
    assert!(!place.has_old("of one alone").await, "{:#?}", place.keys().await);
    for content in ["{}", "in both", "in another", "of nobody"] {
        assert!(place.has_old(content).await, "{content} went");
    }
    // Manifests are served from copies, and the old ones are small.
    assert!(!place.keys_with(gone.strip_prefix("sha256:").unwrap()).await.is_empty());
    assert_eq!(place.app.get(&format!("GET /v2/a/blobs/{}", digest("in both"))).await.body, b"in both");
    assert_eq!(place.app.get(&format!("GET /v2/d/blobs/{}", digest("in another"))).await.body, b"in another");
    assert_eq!(place.collect().await.held, 0);
}

#[tokio::test]
async fn a_slice_at_a_time_it_goes_as_well() {
    let (_, place, _) = with_one_deleted().await;
    place.adopt(true).await;
    place.store.pass_time(DAY + HOUR);
    let collector = place.collector().await;
    for _ in 0..2 {
        for _ in 0..256 {
            collector.run_once(Mode::Slice).await.unwrap();
        }
        place.store.pass_time(DAY + HOUR);
    }
    assert!(!place.has_old("of one alone").await);
    assert!(place.has_old("in both").await && place.has_old("of nobody").await);
}

#[tokio::test]
async fn what_cannot_be_served_here_keeps_its_data() {
    let (other, place, _) = with_one_deleted().await;
    // Of a schema that is not served: what it names is not known, so all that its repository has stays.
    let schema_one = r#"{"schemaVersion":1,"name":"a","tag":"t","fsLayers":[],"history":[]}"#;
    let schema_one = other.manifest("old", schema_one).await;
    other.tag("old", "t", &schema_one).await;
    other.blob("old", "of one alone").await;
    other.blob("old", "of an old image").await;
    assert!(place.adopt(true).await.released);
    place.collect_all().await;
    for content in ["of one alone", "of an old image"] {
        assert!(place.has_old(content).await, "{content} went");
    }
}

#[tokio::test]
async fn where_a_repository_cannot_be_read_nothing_goes() {
    let (other, place, _) = with_one_deleted().await;
    other.blob("Not_a_NAME", "of one alone").await;
    let report = place.adopt(true).await;
    assert!(report.finished && !report.released, "{report:?}");
    place.collect_all().await;
    assert!(place.has_old("of one alone").await);
}

#[tokio::test]
async fn data_that_links_know_by_another_hash_stays() {
    let place = Place::new().await;
    let other = Other(place.app.store().clone());
    let config = other.data("{}").await;
    let wide = |content: &str| Digest::of(Algorithm::Sha512, content.as_bytes());
    for (content, data) in
        [("{}", config), ("layer", other.data("layer").await), ("unused", other.data("unused").await)]
    {
        other.write(&format!("repositories/a/_layers/sha512/{}/link", wide(content).hex()), &*data).await;
    }
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{}","size":2}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{}","size":5}}]}}"#,
        wide("{}"),
        wide("layer")
    );
    let digest = other.manifest("a", &manifest).await;
    other.tag("a", "t", &digest).await;
    let report = place.adopt(true).await;
    assert_eq!((report.blobs, &report.problems[..]), (3, &[][..]));
    place.collect_all().await;
    assert_eq!(place.app.get(&format!("GET /v2/a/blobs/{}", wide("layer"))).await.body, b"layer");
    assert!(place.has_old("{}").await && !place.has_old("unused").await, "{:#?}", place.keys().await);
}
