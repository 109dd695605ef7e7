//! Two and three replicas on one bucket of a real S3 server: what one began the others go on with, and what one knows all
//! know.

use http::Method;
use spec_tests::registry::Registry;
use spec_tests::samples::{self, MANIFEST, Sample};
use spec_tests::stores::{Azurite, Seaweed, skipped};
use spec_tests::target::{Answer, Target};

const MIB: usize = 1024 * 1024;
/// What a part has at least on S3.
const PART: usize = 5 * MIB;

/// So many registries on one bucket.
fn replicas(test: &str, count: usize) -> Option<Vec<Registry>> {
    let Some(server) = Seaweed::shared() else {
        skipped(test, "SeaweedFS");
        return None;
    };
    let (url, variables) = (format!("s3://{}/images", server.bucket()), server.variables());
    Some((0..count).map(|_| Registry::start_at(&url, &[], &variables)).collect())
}

/// A `Location` says a path; whichever replica is asked understands it.
fn path(answer: &Answer) -> String {
    let location = answer.location();
    location.find("/v2/").map_or(location, |at| &location[at..]).to_owned()
}

fn patch(target: &Target, location: &str, from: usize, chunk: &[u8]) -> Answer {
    let range = format!("{from}-{}", from + chunk.len() - 1);
    target.request(Method::PATCH, location).header("content-range", range).body(chunk).send()
}

fn finish(target: &Target, location: &str, blob: &[u8]) -> Answer {
    target.request(Method::PUT, &samples::with_digest(location, &samples::digest(blob))).send()
}

fn has_bytes(answer: &Answer) -> usize {
    let range = answer.header("range").and_then(|range| range.strip_prefix("0-")).and_then(|end| end.parse().ok());
    range.map_or(0, |end: usize| end + 1)
}

fn expect_blob(target: &Target, repository: &str, blob: &[u8]) {
    let answer = target.get(&format!("/v2/{repository}/blobs/{}", samples::digest(blob))).expect_status(200);
    assert!(answer.body == blob, "the blob came back changed");
}

/// Begun on the first, gone on with on each in turn, finished on the last, pulled from the first.
fn goes_round(replicas: &[Registry], seed: u64, sizes: &[usize]) {
    let targets: Vec<Target> = replicas.iter().map(Registry::target).collect();
    let blob = samples::bytes(seed, sizes.iter().sum());
    let mut location = path(&targets[0].request(Method::POST, "/v2/a/b/blobs/uploads/").send().expect_status(202));
    let (mut at, mut turn) = (0, 0);
    for size in sizes {
        turn += 1;
        let answer = patch(&targets[turn % targets.len()], &location, at, &blob[at..at + size]).expect_status(202);
        at += size;
        location = path(&answer);
        // And whoever is asked says how far it is.
        for target in &targets {
            assert_eq!(has_bytes(&target.get(&location).expect_status(204)), at, "{sizes:?}");
        }
    }
    let _ = finish(&targets[(turn + 1) % targets.len()], &location, &blob).expect_status(201);
    expect_blob(&targets[0], "a/b", &blob);
    // The answer may have been lost: the same again from whichever replica.
    for target in &targets {
        let _ = finish(target, &location, &blob).expect_status(201);
        expect_blob(target, "a/b", &blob);
    }
}

#[test]
fn begun_on_one_finished_on_the_second() {
    let Some(replicas) = replicas("begun_on_one_finished_on_the_second", 2) else { return };
    for (seed, sizes) in [(301, &[1_000_000][..]), (302, &[PART, 7 * MIB, 3]), (303, &[PART + 1, PART])] {
        goes_round(&replicas, seed, sizes);
    }
}

#[test]
fn begun_on_one_continued_on_the_second_finished_on_the_third() {
    let Some(replicas) = replicas("begun_on_one_continued_on_the_second_finished_on_the_third", 3) else { return };
    for (seed, sizes) in [(311, &[3000][..]), (312, &[PART, 6 * MIB]), (313, &[1, PART]), (314, &[12 * MIB + 5, 1])] {
        goes_round(&replicas, seed, sizes);
    }
}

/// The connection is cut in the middle of a chunk, and the client's next request reaches another replica; the first is
/// gone by then.
#[test]
fn an_upload_goes_on_elsewhere_after_a_cut_connection() {
    let Some(mut replicas) = replicas("an_upload_goes_on_elsewhere_after_a_cut_connection", 3) else { return };
    let targets: Vec<Target> = replicas.iter().map(Registry::target).collect();
    let (blob, sent) = (samples::bytes(321, 14 * MIB), 13 * MIB);
    let location = path(&targets[0].request(Method::POST, "/v2/a/b/blobs/uploads/").send().expect_status(202));
    let pieces = blob[..sent].chunks(100_000).map(<[u8]>::to_vec).collect();
    let cut = targets[0].request(Method::PATCH, &location).broken_stream(pieces).try_send();
    assert!(cut.is_err(), "a request whose body broke off was answered: {cut:?}");
    // What came is being stored still; two whole parts are there at the end.
    let mut status = samples::patiently(|| {
        let answer = targets[1].get(&location).expect_status(204);
        (has_bytes(&answer) >= 2 * PART).then_some(answer)
    })
    .expect("what came before the cut is kept");
    replicas.remove(0).kill();
    let went_on = samples::patiently(|| {
        let has = has_bytes(&status);
        assert!(has <= sent, "the session has {has} bytes, but {sent} were sent");
        let answer = patch(&targets[1], &path(&status), has, &blob[has..]).expect_one_of(&[202, 416]);
        if answer.status == 202 {
            return Some(answer);
        }
        status = targets[1].get(&location).expect_status(204);
        None
    })
    .expect("the session goes on from where it says that it is");
    let _ = finish(&targets[2], &path(&went_on), &blob).expect_status(201);
    expect_blob(&targets[1], "a/b", &blob);
    expect_blob(&targets[2], "a/b", &blob);
}

/// Two clients go on with one session at once, each through its own replica: no blob mixes their bytes, though the parts of
/// both go to one upload of the store.
fn no_mixture(url: &str, variables: &[(&'static str, String)]) {
    let replicas = [0, 1].map(|_| Registry::start_at(url, &[], variables));
    for round in 0..4 {
        let begun = samples::bytes(400 + round, PART + 100);
        let ends = [410, 420].map(|seed| samples::bytes(seed + round, 2 * PART + 300));
        let target = replicas[0].target();
        let location = path(&target.request(Method::POST, "/v2/a/b/blobs/uploads/").send().expect_status(202));
        let location = path(&patch(&target, &location, 0, &begun).expect_status(202));
        let answers: Vec<Answer> = std::thread::scope(|scope| {
            let writers = ends.iter().zip(&replicas).map(|(end, registry)| {
                let (location, from) = (&location, begun.len());
                scope.spawn(move || patch(&registry.target(), location, from, end))
            });
            let writers: Vec<_> = writers.collect();
            writers.into_iter().map(|writer| writer.join().expect("a writer")).collect()
        });
        let mut finished = 0;
        for (end, answer) in ends.iter().zip(answers) {
            let answer = answer.expect_one_of(&[202, 404, 416]);
            if answer.status != 202 {
                continue;
            }
            let whole = [&begun[..], end].concat();
            let answer = finish(&replicas[1].target(), &path(&answer), &whole).expect_one_of(&[201, 404, 416]);
            if answer.status == 201 {
                finished += 1;
                expect_blob(&target, "a/b", &whole);
            }
        }
        assert!(finished < 2, "two that went on from one state both came to an end");
    }
}

#[test]
fn two_writers_of_one_session_make_no_mixture_on_s3() {
    let test = "two_writers_of_one_session_make_no_mixture_on_s3";
    let Some(server) = Seaweed::shared() else { return skipped(test, "SeaweedFS") };
    no_mixture(&format!("s3://{}/images", server.bucket()), &server.variables());
}

// Not on GCS: its emulator has none of the API that uploads in parts go through.

#[test]
fn two_writers_of_one_session_make_no_mixture_on_azure() {
    let test = "two_writers_of_one_session_make_no_mixture_on_azure";
    let Some(server) = Azurite::shared() else { return skipped(test, "azurite") };
    no_mixture(&format!("az://{}/images", server.container()), &server.variables());
}

/// What one replica acknowledged the next request to any other sees: pushes, tags that move, deletions.
#[test]
fn what_one_acknowledged_all_know() {
    let Some(replicas) = replicas("what_one_acknowledged_all_know", 3) else { return };
    let targets: Vec<Target> = replicas.iter().map(Registry::target).collect();
    let images: Vec<Sample> = (331..340).map(Sample::new).collect();
    let named = |tag: &str, image: Option<&Sample>| {
        for target in &targets {
            let answer = target.get(&format!("/v2/a/b/manifests/{tag}"));
            let expected = image.map_or(404, |_| 200);
            let answer = answer.expect_status(expected);
            assert!(image.is_none_or(|image| image.manifest == answer.body), "`{tag}` names something else");
        }
    };
    named("t", None);
    for (n, image) in images.iter().enumerate() {
        // Config, layer and manifest through three of them.
        samples::push_blob(&targets[n % 3], "a/b", &image.config);
        samples::push_blob(&targets[(n + 1) % 3], "a/b", &image.layer);
        let put = samples::put_manifest(&targets[(n + 2) % 3], "a/b", "t", MANIFEST, &image.manifest);
        let _ = put.expect_status(201);
        named("t", Some(image));
        let tags = targets[n % 3].get("/v2/a/b/tags/list").expect_status(200).json();
        assert_eq!(tags["tags"], serde_json::json!(["t"]));
    }
    let last = &images[8];
    let _ = targets[1].delete("/v2/a/b/manifests/t").expect_status(202);
    named("t", None);
    named(&last.digest(), Some(last));
    let _ = targets[2].delete(&format!("/v2/a/b/manifests/{}", last.digest())).expect_status(202);
    named(&last.digest(), None);
    let blob = format!("/v2/a/b/blobs/{}", samples::digest(&last.layer));
    let _ = targets[0].delete(&blob).expect_status(202);
    for target in &targets {
        let _ = target.get(&blob).expect_status(404);
        let _ = target.head(&blob).expect_status(404);
    }
    // And it comes back through any.
    last.push(&targets[1], "a/b", "t");
    named("t", Some(last));
    expect_blob(&targets[2], "a/b", &last.layer);
}

/// Everything at once through all of them: each push is acknowledged, and whole from each.
#[test]
fn many_push_the_same_through_all() {
    let Some(replicas) = replicas("many_push_the_same_through_all", 3) else { return };
    let image = Sample::of_layer(samples::bytes(341, 6 * MIB));
    std::thread::scope(|scope| {
        for n in 0..6 {
            let (registry, image) = (&replicas[n % 3], &image);
            scope.spawn(move || image.push(&registry.target(), "a/b", &format!("t{n}")));
        }
    });
    for registry in &replicas {
        let target = registry.target();
        expect_blob(&target, "a/b", &image.layer);
        for n in 0..6 {
            let answer = target.get(&format!("/v2/a/b/manifests/t{n}")).expect_status(200);
            assert!(answer.body == image.manifest, "t{n} names something else");
        }
    }
}
