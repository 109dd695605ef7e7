//! Upload sessions beyond the straight path: other algorithms, cut connections, repetitions, several at once.

use std::thread;

use http::Method;

use crate::samples;
use crate::target::{Answer, Target};

fn path_of(repository: &str, digest: &str) -> String {
    format!("/v2/{repository}/blobs/{digest}")
}

fn patch(target: &Target, location: &str, range: Option<(usize, usize)>, chunk: &[u8]) -> Answer {
    let request = target.request(Method::PATCH, location).header("content-type", "application/octet-stream");
    let request = match range {
        Some((start, end)) => request.header("content-range", format!("{start}-{}", end - 1)),
        None => request,
    };
    request.body(chunk).send()
}

fn finish(target: &Target, location: &str, digest: &str) -> Answer {
    target.request(Method::PUT, &samples::with_digest(location, digest)).send()
}

/// How many bytes the session has, as its `Range` says it; one byte and none look the same.
fn has_bytes(answer: &Answer) -> usize {
    let range = answer.header("range").unwrap_or_else(|| panic!("`{}`: no Range in the answer", answer.request));
    let end = range.strip_prefix("0-").and_then(|end| end.parse::<usize>().ok());
    end.unwrap_or_else(|| panic!("`{}`: expected `Range: 0-<last byte>`, got `{range}`", answer.request)) + 1
}

/// A body of unknown length, as clients push that compress while they send.
pub(super) fn a_blob_of_unknown_length_is_pushed(target: &Target) {
    let (repository, blob) = (target.repository(), samples::bytes(71, 300_000));
    let location = samples::open_upload(target, &repository);
    let pieces = blob.chunks(70_000).map(<[u8]>::to_vec).collect();
    let answer = target.request(Method::PATCH, &location).stream(pieces).send().expect_status(202);
    assert_eq!(has_bytes(&answer), blob.len());
    let digest = samples::digest(&blob);
    let _ = finish(target, answer.location(), &digest).expect_status(201);
    assert!(target.get(&path_of(&repository, &digest)).expect_status(200).body == blob, "the blob came back changed");
}

/// A blob without a byte is a blob.
pub(super) fn an_empty_blob_is_pushed_and_pulled(target: &Target) {
    let (repository, digest) = (target.repository(), samples::digest(b""));
    samples::push_blob(target, &repository, b"");
    let path = path_of(&repository, &digest);
    let _ = target.head(&path).expect_status(200).expect_header("content-length", "0");
    assert!(target.get(&path).expect_status(200).body.is_empty());
}

/// "If the final chunk is uploaded out of order, the registry MUST respond with a 416": nothing is stored.
pub(super) fn a_last_chunk_out_of_order_is_refused(target: &Target) {
    let (repository, blob) = (target.repository(), samples::bytes(72, 3000));
    let (location, digest) = (samples::open_upload(target, &repository), samples::digest(&blob));
    let location = patch(target, &location, Some((0, 1000)), &blob[..1000]).expect_status(202).location().to_owned();
    let put = |range: &str, chunk: &[u8]| {
        let request = target.request(Method::PUT, &samples::with_digest(&location, &digest));
        request.header("content-range", range).body(chunk).send()
    };
    let _ = put("2000-2999", &blob[2000..]).expect_status(416);
    let _ = target.head(&path_of(&repository, &digest)).expect_status(404);
    // The session stands where it stood.
    let answer = target.get(&location).expect_status(204);
    assert_eq!(has_bytes(&answer), 1000);
    let _ = put("1000-2999", &blob[1000..]).expect_status(201);
    assert!(target.get(&path_of(&repository, &digest)).expect_status(200).body == blob, "the blob came back changed");
}

/// `end-13` after a 416: where to go on.
pub(super) fn a_refused_chunk_leaves_the_session_as_it_was(target: &Target) {
    let (repository, blob) = (target.repository(), samples::bytes(73, 2000));
    let location = samples::open_upload(target, &repository);
    let location = patch(target, &location, Some((0, 1000)), &blob[..1000]).expect_status(202).location().to_owned();
    for (start, end) in [(1001, 2000), (0, 1000), (999, 1999)] {
        let _ = patch(target, &location, Some((start, end)), &blob[start..end]).expect_status(416);
        let answer = target.get(&location).expect_status(204);
        assert_eq!(has_bytes(&answer), 1000, "after a chunk at byte {start}");
        assert!(!answer.location().is_empty());
    }
    let location = patch(target, &location, Some((1000, 2000)), &blob[1000..]).expect_status(202).location().to_owned();
    let _ = finish(target, &location, &samples::digest(&blob)).expect_status(201);
}

/// A refusal that comes before the body was read has to arrive all the same, through whatever stands in between.
pub(super) fn the_refusal_of_a_large_chunk_arrives(target: &Target) {
    let (repository, blob) = (target.repository(), samples::bytes(85, 12_000_000));
    let location = samples::open_upload(target, &repository);
    for _ in 0..4 {
        let _ = patch(target, &location, Some((1, blob.len())), &blob[1..]).expect_status(416);
    }
    let location = patch(target, &location, None, &blob).expect_status(202).location().to_owned();
    let _ = finish(target, &location, &samples::digest(&blob)).expect_status(201);
}

/// Whoever says which part of the blob comes has to send that much.
pub(super) fn a_chunk_of_another_length_is_refused(target: &Target) {
    let (repository, blob) = (target.repository(), samples::bytes(74, 1000));
    let location = samples::open_upload(target, &repository);
    let answer = patch(target, &location, Some((0, 1000)), &blob[..500]);
    assert!((400..500).contains(&answer.status), "got {}", answer.status);
}

/// The smallest chunk is said where there is one: "SHOULD include".
pub(super) fn a_least_chunk_is_a_number(target: &Target) {
    let repository = target.repository();
    let answer = target.request(Method::POST, &format!("/v2/{repository}/blobs/uploads/")).send().expect_status(202);
    if let Some(length) = answer.header("oci-chunk-min-length") {
        assert!(length.parse::<u64>().is_ok(), "`OCI-Chunk-Min-Length: {length}` is no number of bytes");
    }
}

/// `end-4c`: the hash is announced, so that chunks can be hashed as they come.
pub(super) fn a_blob_of_another_algorithm_is_pushed_in_chunks(target: &Target) {
    let (repository, blob) = (target.repository(), samples::bytes(75, 3000));
    let digest = samples::sha512(&blob);
    let path = format!("/v2/{repository}/blobs/uploads/?digest-algorithm=sha512");
    let answer = target.request(Method::POST, &path).send();
    if answer.status == 400 {
        target.unsupported("sha512");
        return;
    }
    let mut location = answer.expect_status(202).location().to_owned();
    for (start, end) in [(0, 1000), (1000, 3000)] {
        let answer = patch(target, &location, Some((start, end)), &blob[start..end]).expect_status(202);
        location = answer.location().to_owned();
    }
    let answer = finish(target, &location, &digest);
    if answer.status == 400 {
        target.unsupported("sha512");
        return;
    }
    let _ = answer.expect_status(201);
    let answer = target.get(&path_of(&repository, &digest)).expect_status(200);
    assert!(answer.body == blob, "the blob came back changed");
    let head = target.head(&path_of(&repository, &digest)).expect_status(200);
    // "The digest MAY differ" where the registry hashes by itself; then it says another algorithm.
    if head.header("docker-content-digest").is_some_and(|found| !found.starts_with("sha512:")) {
        target.unsupported("sha512 as the digest of a blob");
        return;
    }
    let _ = head.expect_digest(&digest);
}

/// A digest that nobody announced decides all the same.
pub(super) fn a_blob_of_another_algorithm_is_pushed_whole(target: &Target) {
    let (repository, blob) = (target.repository(), samples::bytes(76, 3000));
    let digest = samples::sha512(&blob);
    let location = samples::open_upload(target, &repository);
    let path = samples::with_digest(&location, &digest);
    let answer = target.request(Method::PUT, &path).body(&blob[..]).send().expect_one_of(&[201, 400]);
    if answer.status == 400 {
        target.unsupported("sha512");
        return;
    }
    assert!(target.get(&path_of(&repository, &digest)).expect_status(200).body == blob, "the blob came back changed");
    let wrong = samples::sha512(b"something else");
    let location = samples::open_upload(target, &repository);
    let path = samples::with_digest(&location, &wrong);
    let _ = target.request(Method::PUT, &path).body(&blob[..]).send().expect_error(400, "DIGEST_INVALID");
}

/// "The registry MAY treat the `from` parameter as optional".
pub(super) fn a_blob_is_mounted_without_a_source(target: &Target) {
    let (from, to, blob) = (target.repository(), target.repository(), samples::bytes(77, 4000));
    samples::push_blob(target, &from, &blob);
    let digest = samples::digest(&blob);
    let path = format!("/v2/{to}/blobs/uploads/?mount={digest}");
    let answer = target.request(Method::POST, &path).send().expect_one_of(&[201, 202]);
    if answer.status == 202 {
        target.unsupported("a mount without a source");
        return;
    }
    assert!(target.get(answer.location()).expect_status(200).body == blob, "the blob came back changed");
    assert!(target.get(&path_of(&to, &digest)).expect_status(200).body == blob, "the blob came back changed");
}

/// A mounted blob is its repository's own.
pub(super) fn a_mounted_blob_outlives_its_source(target: &Target) {
    let (from, to, blob) = (target.repository(), target.repository(), samples::bytes(78, 4000));
    samples::push_blob(target, &from, &blob);
    let digest = samples::digest(&blob);
    let path = format!("/v2/{to}/blobs/uploads/?mount={digest}&from={from}");
    if target.request(Method::POST, &path).send().expect_one_of(&[201, 202]).status == 202 {
        target.unsupported("mounts");
        return;
    }
    if !samples::is_deleted(target, &path_of(&from, &digest)) {
        return;
    }
    let _ = target.get(&path_of(&from, &digest)).expect_status(404);
    assert!(target.get(&path_of(&to, &digest)).expect_status(200).body == blob, "the blob came back changed");
}

/// "Resumable Push": what came before the connection was cut need not be sent again.
pub(super) fn an_upload_goes_on_after_a_cut_connection(target: &Target) {
    let (repository, blob) = (target.repository(), samples::bytes(79, 9_000_000));
    let first = samples::open_upload(target, &repository);
    let pieces = blob[..8_500_000].chunks(100_000).map(<[u8]>::to_vec).collect();
    let cut = target.request(Method::PATCH, &first).broken_stream(pieces).try_send();
    assert!(cut.is_err(), "a request whose body broke off was answered: {cut:?}");
    // The registry may still be storing what came.
    let answer = samples::patiently(|| {
        let answer = target.get(&first);
        (answer.status != 204 || has_bytes(&answer) > 1).then_some(answer)
    });
    let Some(answer) = answer else {
        // It kept nothing, and says so: the client begins again in the same session.
        target.unsupported("keeping what came before a connection was cut");
        let location = patch(target, &first, None, &blob).expect_status(202).location().to_owned();
        let _ = finish(target, &location, &samples::digest(&blob)).expect_status(201);
        return;
    };
    if answer.status == 404 {
        target.unsupported("going on with an upload after its connection was cut");
        return;
    }
    let mut answer = answer.expect_status(204);
    // As a client goes on: from where the session says that it is, and once more when it has moved meanwhile.
    let resumed = samples::patiently(|| {
        let has = has_bytes(&answer);
        assert!(has <= 8_500_000, "the session has {has} bytes, but 8500000 were sent");
        let went_on =
            patch(target, answer.location(), Some((has, blob.len())), &blob[has..]).expect_one_of(&[202, 416]);
        if went_on.status == 202 {
            return Some(went_on);
        }
        answer = target.get(&first).expect_status(204);
        None
    });
    let Some(answer) = resumed else { panic!("the session refuses to go on from where it says that it is") };
    let digest = samples::digest(&blob);
    let _ = finish(target, answer.location(), &digest).expect_status(201);
    assert!(target.get(&path_of(&repository, &digest)).expect_status(200).body == blob, "the blob came back changed");
}

/// The answer to the last PUT may be lost; whoever sends it again wants to hear the same.
pub(super) fn a_finishing_put_may_be_repeated(target: &Target) {
    let (repository, blob) = (target.repository(), samples::bytes(80, 5000));
    let (location, digest) = (samples::open_upload(target, &repository), samples::digest(&blob));
    let location = patch(target, &location, None, &blob).expect_status(202).location().to_owned();
    let _ = finish(target, &location, &digest).expect_status(201);
    let again = finish(target, &location, &digest);
    if again.status == 404 {
        target.unsupported("a finishing PUT that is repeated");
        return;
    }
    let again = again.expect_status(201);
    assert!(target.get(again.location()).expect_status(200).body == blob, "the blob came back changed");
}

/// "Registries MUST support concurrent uploads from one or more clients."
pub(super) fn uploads_go_on_side_by_side(target: &Target) {
    let repository = target.repository();
    let blobs: Vec<Vec<u8>> = (0..4).map(|seed| samples::bytes(810 + seed, 3000)).collect();
    let mut locations: Vec<String> = blobs.iter().map(|_| samples::open_upload(target, &repository)).collect();
    for (start, end) in [(0, 1000), (1000, 2000), (2000, 3000)] {
        for (blob, location) in blobs.iter().zip(&mut locations) {
            let answer = patch(target, location, Some((start, end)), &blob[start..end]).expect_status(202);
            *location = answer.location().to_owned();
        }
    }
    for (blob, location) in blobs.iter().zip(&locations) {
        let digest = samples::digest(blob);
        let _ = finish(target, location, &digest).expect_status(201);
        assert!(
            target.get(&path_of(&repository, &digest)).expect_status(200).body == *blob,
            "a blob came back changed"
        );
    }
}

/// Of two that write to one session at once at most one is right about where it stands, and no blob mixes both.
pub(super) fn two_writers_of_one_session_make_no_mixture(target: &Target) {
    let repository = target.repository();
    let blobs = [samples::bytes(82, 400_000), samples::bytes(83, 400_000)];
    let location = samples::open_upload(target, &repository);
    let answers: Vec<Answer> = thread::scope(|scope| {
        let writers: Vec<_> =
            blobs.iter().map(|blob| scope.spawn(|| patch(target, &location, Some((0, blob.len())), blob))).collect();
        writers.into_iter().map(|writer| writer.join().expect("a writer")).collect()
    });
    let mut accepted = 0;
    for (blob, answer) in blobs.iter().zip(answers) {
        let answer = answer.expect_one_of(&[202, 404, 409, 416]);
        if answer.status != 202 {
            continue;
        }
        accepted += 1;
        let digest = samples::digest(blob);
        let finished = finish(target, answer.location(), &digest);
        assert!(finished.status < 500, "got {}", finished.status);
        if finished.status == 201 {
            let came_back = target.get(&path_of(&repository, &digest)).expect_status(200).body;
            assert!(came_back == *blob, "the blob is a mixture of two writers");
        }
    }
    assert!(accepted > 0, "both writers were refused");
}

/// "If process A and B upload the same layer at the same time, both operations will proceed".
pub(super) fn two_writers_of_one_blob_both_succeed(target: &Target) {
    let (repository, blob) = (target.repository(), samples::bytes(84, 400_000));
    let digest = samples::digest(&blob);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| samples::push_blob(target, &repository, &blob));
        }
    });
    assert!(target.get(&path_of(&repository, &digest)).expect_status(200).body == blob, "the blob came back changed");
}
