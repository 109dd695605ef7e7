//! How many requests to the store an operation costs, as a table of the README. A number that changes is a decision, not an
//! accident: `FLUYT_WRITE_README=1 cargo test -p fluyt-registry --test main budget` writes it down.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use fluyt_registry::collect::Rhythm;
use fluyt_registry::service::Redirects;
use fluyt_registry::storage::Memory;

use crate::app::{MANIFEST, TestApp, digest, image};
use crate::collect::{DAY, HOUR, Place};
use crate::object_store::Strict;
use crate::watched::Watched;

const MIB: usize = 1024 * 1024;
/// Where the table is.
const BEGIN: &str = "<!-- budget: written by registry/tests/budget.rs -->\n";
const END: &str = "<!-- /budget -->\n";

/// A replica on an object store, and what counts its requests.
async fn replica(store: &Memory) -> (TestApp, Watched) {
    let mut strict = Strict::new(store.clone());
    strict.public = true;
    let port = Watched::new(strict);
    (TestApp::with_redirects(port.clone(), store.clone(), Redirects::default()).await, port)
}

/// Requests of an operation on a replica that has just started, and of its like (round 1) on the same one.
async fn cost(setup: impl AsyncFn(&TestApp), operation: impl AsyncFn(&TestApp, usize)) -> [Vec<String>; 2] {
    let store = Memory::default();
    let (other, _) = replica(&store).await;
    setup(&other).await;
    let (app, port) = replica(&store).await;
    port.requests();
    operation(&app, 0).await;
    let cold = port.requests();
    operation(&app, 1).await;
    [cold, port.requests()]
}

/// What clients do: HEAD, POST, PATCH, PUT.
async fn push(app: &TestApp, content: &[u8]) {
    let digest = digest(content);
    assert_eq!(app.get(&format!("HEAD /v2/a/blobs/{digest}")).await.status, 404);
    let begun = app.get("POST /v2/a/blobs/uploads/").await;
    let patched = app.send(&format!("PATCH {}", begun.header("location")), &[], content.to_vec()).await;
    assert_eq!(app.get(&format!("PUT {}&digest={digest}", patched.header("location"))).await.status, 201);
}

async fn expect(app: &TestApp, line: &str, status: u16) {
    assert_eq!(app.get(line).await.status, status, "{line}");
}

fn variant(round: usize) -> String {
    image(&[b"{}", b"one", b"two"], &format!(r#","annotations":{{"n":"{round}"}}"#))
}

async fn three_blobs(app: &TestApp) {
    for blob in ["{}", "one", "two"] {
        app.blob("a", blob.as_bytes()).await;
    }
}

async fn tagged(app: &TestApp) {
    three_blobs(app).await;
    for round in 0..2 {
        assert_eq!(app.put("a", &format!("t{round}"), MANIFEST, &variant(round)).await.status, 201);
    }
}

async fn blobs(app: &TestApp) {
    for round in 0..2 {
        app.blob("a", format!("small {round}").as_bytes()).await;
        app.blob("a", &vec![round as u8; 2 * MIB]).await;
    }
}

type Peers = [&'static str; 3];
/// What was not measured.
const UNKNOWN: Peers = ["", "", ""];

async fn rows() -> Vec<(&'static str, [Vec<String>; 2], Peers)> {
    let nothing = async |_: &TestApp| {};
    let mut rows = Vec::new();
    let seen = cost(nothing, async |app, n| push(app, format!("layer {n}").as_bytes()).await).await;
    rows.push((
        "push a layer up to one part (5 MiB): HEAD, POST, PATCH, PUT",
        seen,
        ["28", "33", "18 and a full re-read"],
    ));
    let seen = cost(nothing, async |app, n| push(app, &vec![n as u8; 12 * MIB]).await).await;
    rows.push(("push a layer of 12 MiB, three parts", seen, UNKNOWN));
    let seen = cost(three_blobs, async |app, n| {
        assert_eq!(app.put("a", &format!("new{n}"), MANIFEST, &variant(n)).await.status, 201);
    });
    rows.push(("PUT a manifest (config, 2 layers) by a new tag", seen.await, ["12", "26", "14"]));
    let seen = cost(tagged, async |app, n| {
        assert_eq!(app.put("a", &format!("t{n}"), MANIFEST, &variant(n + 5)).await.status, 201);
    });
    rows.push(("... by a tag that moves", seen.await, UNKNOWN));
    for (operation, method) in [("GET a manifest by tag", "GET"), ("HEAD a manifest by tag", "HEAD")] {
        let seen = cost(tagged, async |app, _| expect(app, &format!("{method} /v2/a/manifests/t0"), 200).await).await;
        rows.push((operation, seen, ["4", "2", "5"]));
    }
    let by_digest = format!("GET /v2/a/manifests/{}", digest(variant(0)));
    let seen = cost(tagged, async |app, _| expect(app, &by_digest, 200).await).await;
    rows.push(("GET a manifest by digest", seen, UNKNOWN));
    let small = format!("/v2/a/blobs/{}", digest("small 0"));
    let seen = cost(blobs, async |app, _| expect(app, &format!("HEAD {small}"), 200).await).await;
    rows.push(("HEAD a blob", seen, ["7", "2", "up to 2 per manifest of the repository"]));
    let large = format!("GET /v2/a/blobs/{}", digest(vec![0; 2 * MIB]));
    let seen = cost(blobs, async |app, _| expect(app, &large, 307).await).await;
    rows.push(("GET a blob by redirect", seen, ["7", "2", "up to 2 per manifest of the repository"]));
    let seen = cost(blobs, async |app, _| expect(app, &format!("GET {small}"), 200).await).await;
    rows.push(("GET a blob below the least size of redirects", seen, UNKNOWN));
    let seen = cost(blobs, async |app, n| {
        let digest = digest(format!("small {n}"));
        expect(app, &format!("POST /v2/b/blobs/uploads/?mount={digest}&from=a"), 201).await;
    });
    rows.push(("mount a blob", seen.await, UNKNOWN));
    let seen = cost(tagged, async |app, _| expect(app, "GET /v2/a/tags/list?n=100", 200).await).await;
    rows.push(("list a page of tags (for each 1,000 entries)", seen, ["2 or more keys a tag", "2", "whole index"]));
    let seen = cost(
        async |app| {
            three_blobs(app).await;
            for round in 0..2 {
                for tag in 0..31 {
                    app.put("a", &format!("t{round}-{tag}"), MANIFEST, &variant(round)).await;
                }
            }
        },
        async |app, n| expect(app, &format!("DELETE /v2/a/manifests/{}", digest(variant(n))), 202).await,
    );
    rows.push(("DELETE a manifest that has 31 tags", seen.await, ["98", "102", ""]));
    let seen = cost(nothing, async |app, _| expect(app, "GET /v2/", 200).await).await;
    rows.push(("GET /v2/, /healthz, POST of an upload", seen, UNKNOWN));
    rows
}

/// What a look at the whole store costs more with so many images, of ten blobs each, than with none.
async fn audit(images: usize) -> usize {
    let cost = async |images: usize| {
        let place = Place::new().await;
        for image_number in 0..images {
            let blobs: Vec<Vec<u8>> = (0..10).map(|n| format!("{image_number} {n}").into_bytes()).collect();
            for blob in &blobs {
                place.app.blob("a", blob).await;
            }
            let blobs: Vec<&[u8]> = blobs.iter().map(Vec::as_slice).collect();
            assert_eq!(place.app.put("a", &format!("t{image_number}"), MANIFEST, &image(&blobs, "")).await.status, 201);
        }
        place.store.pass_time(2 * DAY);
        place.watched.requests();
        assert_eq!(place.collect().await.removed_objects(), 0);
        // Its own papers are as many whatever the store holds.
        place.watched.requests().iter().filter(|request| !request.contains(" gc/")).count()
    };
    cost(images).await - cost(0).await
}

/// What a replica asks in an hour in which nobody asks it anything, of a store that holds little.
async fn idle() -> usize {
    const HOURS: usize = 240;
    let place = Place::new().await;
    tagged(&place.app).await;
    let collector = Arc::new(place.collector().await);
    place.watched.requests();
    tokio::time::pause();
    let ended = tokio::time::timeout(HOUR * HOURS as u32, collector.background(Rhythm::default())).await;
    tokio::time::resume();
    assert!(ended.is_err(), "collection goes on all the time");
    place.watched.requests().len().div_ceil(HOURS)
}

#[tokio::test]
async fn the_table_of_the_readme_is_what_operations_cost() {
    let rows = rows().await;
    let mut table = String::from(
        "| operation | replica just started | warm | distribution 3.1 | angos 1.6 | zot 2.1 |\n|---|---|---|---|---|---|\n",
    );
    for (operation, [cold, warm], [distribution, angos, zot]) in &rows {
        let (cold, warm) = (cold.len(), warm.len());
        let _ = writeln!(table, "| {operation} | {cold} | {warm} | {distribution} | {angos} | {zot} |");
    }
    // So many that lists have a second page.
    let images = 120;
    let looks = audit(images).await * 100_000 / images;
    let idle = idle().await;
    let _ = writeln!(table, "| idle, per hour | {idle} | {idle} | 0 | 14,400 |  |");
    let _ = writeln!(
        table,
        "| look at everything, which goes on all the time and takes a week: for each 10^6 blobs in 10^5 images | {looks} | {looks} |  |  |  |"
    );
    let copied = rows.iter().flat_map(|(_, seen, _)| seen.concat()).filter(|line| line.starts_with("copy ")).count();
    let _ = writeln!(table, "| copies of a blob inside the store | {copied} | {copied} | 1 | 1 to 2 | 1 |");

    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = readme.split_once(BEGIN).expect("the README has a place for the table");
    let (found, after) = rest.split_once(END).expect("the README says where the table ends");
    if std::env::var_os("FLUYT_WRITE_README").is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{table}{END}{after}")).unwrap();
        return;
    }
    let requests: Vec<String> = rows
        .iter()
        .map(|(operation, [cold, warm], _)| format!("{operation}\n  {}\n  {}", cold.join("\n  "), warm.join("\n  ")))
        .collect();
    assert_eq!(found, table, "README.md has other numbers; FLUYT_WRITE_README=1 writes these\n{}", requests.join("\n"));
}
