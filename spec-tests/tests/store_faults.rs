//! A registry whose S3 store fails: what is repeated inside, what its clients are told, and that nothing acknowledged is
//! lost. The store is real (SeaweedFS for S3, azurite for Azure), the faults come from a proxy before it. The emulator of GCS
//! has none of the API that the registry writes with, so its faults are not here.

use std::time::{Duration, Instant};

use http::Method;
use spec_tests::proxy::{Fault, Proxy};
use spec_tests::registry::Registry;
use spec_tests::samples::{self, MANIFEST, Sample};
use spec_tests::stores::{Azurite, Seaweed, skipped};
use spec_tests::target::{Answer, Target};

/// Longer than one part of an upload.
const LONG: usize = 9 << 20;
const SLOW_DOWN: Fault = Fault::Refused(
    "503 Slow Down",
    "<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>",
);
const INTERNAL: Fault = Fault::Refused(
    "500 Internal Server Error",
    "<Error><Code>InternalError</Code><Message>We encountered an internal error.</Message></Error>",
);
const FORBIDDEN: Fault =
    Fault::Refused("403 Forbidden", "<Error><Code>AccessDenied</Code><Message>Access Denied.</Message></Error>");

/// How Azure says the same.
const SERVER_BUSY: Fault = Fault::Refused(
    "503 The server is busy.",
    "<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>ServerBusy</Code><Message>Egress is over the account limit.</Message></Error>",
);
const AZURE_INTERNAL: Fault = Fault::Refused(
    "500 The server encountered an internal error.",
    "<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>InternalError</Code><Message>Please retry.</Message></Error>",
);
const AZURE_FORBIDDEN: Fault = Fault::Refused(
    "403 This request is not authorized to perform this operation using this permission.",
    "<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>AuthorizationPermissionMismatch</Code><Message>This request is not authorized.</Message></Error>",
);

/// A bucket, and a registry that reaches it through a proxy.
struct Faulty {
    proxy: Proxy,
    url: String,
    variables: Vec<(&'static str, String)>,
    registry: Registry,
    /// Not now.
    busy: [Fault; 2],
    /// Never; and the word for it.
    forbidden: (Fault, &'static str),
}

impl Faulty {
    fn start(test: &str) -> Option<Self> {
        let Some(server) = Seaweed::shared() else {
            skipped(test, "SeaweedFS");
            return None;
        };
        let proxy = Proxy::before(&server.endpoint());
        let url = format!("s3://{}/images", server.bucket());
        let mut variables = server.variables();
        for (name, value) in &mut variables {
            if *name == "AWS_ENDPOINT_URL" {
                *value = proxy.endpoint();
            }
        }
        let registry = Registry::start_at(&url, &[], &variables);
        let (busy, forbidden) = ([SLOW_DOWN, INTERNAL], (FORBIDDEN, "AccessDenied"));
        Some(Self { proxy, url, variables, registry, busy, forbidden })
    }

    /// On Azure.
    fn start_on_azure(test: &str) -> Option<Self> {
        let Some(server) = Azurite::shared() else {
            skipped(test, "azurite");
            return None;
        };
        let mut variables = server.variables();
        let (_, connection) = variables.first_mut()?;
        let endpoint = connection.split("BlobEndpoint=").nth(1)?.split("/devstore").next()?.to_owned();
        let proxy = Proxy::before(&endpoint);
        *connection = connection.replace(&endpoint, &proxy.endpoint());
        let url = format!("az://{}/images", server.container());
        let registry = Registry::start_at(&url, &[], &variables);
        let (busy, forbidden) = ([SERVER_BUSY, AZURE_INTERNAL], (AZURE_FORBIDDEN, "AuthorizationPermissionMismatch"));
        Some(Self { proxy, url, variables, registry, busy, forbidden })
    }

    /// Another registry on the same bucket, which remembers nothing.
    fn replica(&self) -> Registry {
        Registry::start_at(&self.url, &[], &self.variables)
    }
}

fn is_write(method: &str) -> bool {
    matches!(method, "PUT" | "POST" | "DELETE")
}

fn image(seed: u64) -> Sample {
    Sample::of_layer(samples::bytes(seed, LONG))
}

/// That an image is there whole.
fn expect_whole(target: &Target, repository: &str, image: &Sample) {
    let manifest = target.get(&format!("/v2/{repository}/manifests/{}", image.digest())).expect_status(200);
    assert!(manifest.body == image.manifest, "the manifest came back changed");
    for blob in [&image.config, &image.layer] {
        let answer = target.get(&format!("/v2/{repository}/blobs/{}", samples::digest(blob))).expect_status(200);
        assert!(answer.body == *blob, "a blob came back changed");
    }
}

/// That an answer says: not now, but soon.
fn expect_busy(answer: Answer) {
    let head = answer.request.starts_with("HEAD");
    let answer = if head { answer.expect_status(503) } else { answer.expect_error(503, "UNAVAILABLE") };
    let wait = answer.header("retry-after").and_then(|seconds| seconds.parse::<u64>().ok());
    assert!(wait.is_some_and(|seconds| seconds > 0), "`{}`: no Retry-After", answer.request);
    if !head {
        let message = answer.json()["errors"][0]["message"].to_string();
        assert!(message.contains("try again"), "{message}");
    }
}

/// Everything that a client can ask of an image that is there, and of one that is not yet; the answer to each.
fn ask_everything(target: &Target, repository: &str, there: &Sample, mut see: impl FnMut(Answer)) {
    let (new, base) = (Sample::new(81), format!("/v2/{repository}"));
    let mut ask = |method: Method, path: &str, body: &[u8]| {
        let request = target.request(method, &format!("{base}/{path}")).header("content-type", MANIFEST);
        see(request.body(body).send());
    };
    ask(Method::GET, "manifests/one", b"");
    ask(Method::HEAD, "manifests/one", b"");
    ask(Method::GET, &format!("manifests/{}", there.digest()), b"");
    ask(Method::GET, &format!("blobs/{}", samples::digest(&there.config)), b"");
    ask(Method::HEAD, &format!("blobs/{}", samples::digest(&there.config)), b"");
    ask(Method::GET, "tags/list", b"");
    ask(Method::GET, &format!("referrers/{}", there.digest()), b"");
    ask(Method::POST, &format!("blobs/uploads/?digest={}", samples::digest(&new.layer)), &new.layer);
    ask(Method::PUT, "manifests/two", &there.manifest);
    ask(Method::DELETE, "manifests/one", b"");
    ask(Method::DELETE, &format!("manifests/{}", there.digest()), b"");
    // Opening an upload asks nothing of the store, so that bodies of either kind meet the fault.
    for blob in [&new.layer, &samples::bytes(82, LONG)] {
        let put = samples::with_digest(&samples::open_upload(target, repository), &samples::digest(blob));
        see(target.request(Method::PUT, &put).body(&blob[..]).send());
        let location = samples::open_upload(target, repository);
        see(target.request(Method::PATCH, &location).body(&blob[..]).send());
    }
}

#[test]
fn a_store_that_fails_now_and_then_is_asked_again() {
    if let Some(faulty) = Faulty::start("a_store_that_fails_now_and_then_is_asked_again") {
        fails_now_and_then(&faulty);
    }
}

#[test]
fn a_store_that_fails_now_and_then_is_asked_again_on_azure() {
    if let Some(faulty) = Faulty::start_on_azure("a_store_that_fails_now_and_then_is_asked_again_on_azure") {
        fails_now_and_then(&faulty);
    }
}

fn fails_now_and_then(faulty: &Faulty) {
    let target = faulty.registry.target();
    let (first, second) = (image(83), image(84));
    let [busy, internal] = faulty.busy.clone();
    faulty.proxy.set(move |_, _, number| match number % 6 {
        0 => busy.clone(),
        3 => internal.clone(),
        _ => Fault::None,
    });
    // Every answer is the one that a client gets without faults.
    for (image, tag) in [(&first, "one"), (&second, "two")] {
        image.push(&target, "a/b", tag);
    }
    expect_whole(&faulty.replica().target(), "a/b", &first);
    let _ = target.delete(&format!("/v2/a/b/manifests/{}", second.digest())).expect_status(202);
    let _ = target.get("/v2/a/b/manifests/two").expect_status(404);
    expect_whole(&target, "a/b", &first);
    let faults = faulty.proxy.clear();
    assert!(faults > 10, "only {faults} requests failed");
}

#[test]
fn a_store_that_stays_busy_or_forbids_is_told_to_the_client() {
    if let Some(faulty) = Faulty::start("a_store_that_stays_busy_or_forbids_is_told_to_the_client") {
        stays_busy_or_forbids(&faulty);
    }
}

#[test]
fn a_store_that_stays_busy_or_forbids_is_told_to_the_client_on_azure() {
    if let Some(faulty) = Faulty::start_on_azure("a_store_that_stays_busy_or_forbids_is_told_to_the_client_on_azure") {
        stays_busy_or_forbids(&faulty);
    }
}

fn stays_busy_or_forbids(faulty: &Faulty) {
    let (target, there) = (faulty.registry.target(), image(85));
    there.push(&target, "a/b", "one");
    for fault in faulty.busy.clone() {
        faulty.proxy.set(move |_, _, _| fault.clone());
        ask_everything(&target, "a/b", &there, expect_busy);
        assert!(faulty.proxy.clear() > 20, "the store was not asked again");
    }
    let (forbidden, word) = faulty.forbidden.clone();
    faulty.proxy.set(move |_, _, _| forbidden.clone());
    ask_everything(&target, "a/b", &there, |answer| {
        let head = answer.request.starts_with("HEAD");
        let answer = if head { answer.expect_status(500) } else { answer.expect_error(500, "UNKNOWN") };
        assert!(answer.header("retry-after").is_none(), "`{}`: it will not help to ask again", answer.request);
        let message = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(head || message.contains("not allowed to use its store"), "{message}");
    });
    let _ = faulty.proxy.clear();
    assert!(faulty.registry.log().contains(word), "{}", faulty.registry.log());
    assert!(!faulty.registry.log().contains("panicked"), "{}", faulty.registry.log());
    // Nothing of it was done by half.
    for replica in [&target, &faulty.replica().target()] {
        expect_whole(replica, "a/b", &there);
        let answer = replica.get("/v2/a/b/manifests/one").expect_status(200);
        assert!(answer.body == there.manifest, "the tag names something else");
        let _ = replica.get("/v2/a/b/manifests/two").expect_status(404);
    }
}

#[test]
fn answers_that_get_lost_lose_no_image() {
    if let Some(faulty) = Faulty::start("answers_that_get_lost_lose_no_image") {
        answers_get_lost(&faulty);
    }
}

#[test]
fn answers_that_get_lost_lose_no_image_on_azure() {
    if let Some(faulty) = Faulty::start_on_azure("answers_that_get_lost_lose_no_image_on_azure") {
        answers_get_lost(&faulty);
    }
}

fn answers_get_lost(faulty: &Faulty) {
    let target = faulty.registry.target();
    faulty.proxy.set(|method, _, number| match is_write(method) && number % 4 == 1 {
        true => Fault::Lost,
        false => Fault::None,
    });
    // What docker does after a 503: the same again, from the beginning of the blob or with the manifest.
    let patiently = |ask: &dyn Fn() -> Answer, good: u16| {
        for _ in 0..20 {
            let answer = ask();
            if answer.status == good {
                return;
            }
            expect_busy(answer);
        }
        panic!("20 attempts did not succeed");
    };
    let images: Vec<Sample> = (86..89).map(image).collect();
    for (n, image) in images.iter().enumerate() {
        for blob in [&image.config, &image.layer] {
            let again = || {
                let put = samples::with_digest(&samples::open_upload(&target, "a/b"), &samples::digest(blob));
                target.request(Method::PUT, &put).body(&blob[..]).send()
            };
            patiently(&again, 201);
        }
        patiently(&|| samples::put_manifest(&target, "a/b", &format!("t{n}"), MANIFEST, &image.manifest), 201);
    }
    let faults = faulty.proxy.clear();
    assert!(faults > 5, "only {faults} answers were lost");
    for replica in [&target, &faulty.replica().target()] {
        for (n, image) in images.iter().enumerate() {
            expect_whole(replica, "a/b", image);
            let answer = replica.get(&format!("/v2/a/b/manifests/t{n}")).expect_status(200);
            assert!(answer.body == image.manifest, "the tag names something else");
        }
    }
}

#[test]
fn a_store_that_is_silent_is_not_waited_for_long() {
    if let Some(faulty) = Faulty::start("a_store_that_is_silent_is_not_waited_for_long") {
        is_silent(&faulty);
    }
}

#[test]
fn a_store_that_is_silent_is_not_waited_for_long_on_azure() {
    if let Some(faulty) = Faulty::start_on_azure("a_store_that_is_silent_is_not_waited_for_long_on_azure") {
        is_silent(&faulty);
    }
}

fn is_silent(faulty: &Faulty) {
    let there = image(90);
    there.push(&faulty.registry.target(), "a/b", "one");
    faulty.proxy.set(|_, _, _| Fault::Silent(Duration::from_secs(50)));
    let start = Instant::now();
    std::thread::scope(|scope| {
        let (registry, there) = (&faulty.registry, &there);
        for (method, path) in [
            (Method::GET, "manifests/one".to_owned()),
            (Method::HEAD, format!("blobs/{}", samples::digest(&there.layer))),
            (Method::GET, format!("blobs/{}", samples::digest(&there.layer))),
            (Method::GET, "tags/list".to_owned()),
            (Method::PUT, "manifests/two".to_owned()),
        ] {
            scope.spawn(move || {
                let target = registry.target();
                let request = target.request(method, &format!("/v2/a/b/{path}")).header("content-type", MANIFEST);
                let body = if path == "manifests/two" { &there.manifest[..] } else { b"" };
                expect_busy(request.body(body).send());
            });
        }
    });
    let took = start.elapsed();
    assert!(took < Duration::from_secs(45), "clients waited for {took:?}");
    let _ = faulty.proxy.clear();
    expect_whole(&faulty.registry.target(), "a/b", &there);
}

#[test]
fn a_body_that_breaks_off_is_gone_on_with_or_cut() {
    if let Some(faulty) = Faulty::start("a_body_that_breaks_off_is_gone_on_with_or_cut") {
        body_breaks_off(&faulty);
    }
}

#[test]
fn a_body_that_breaks_off_is_gone_on_with_or_cut_on_azure() {
    if let Some(faulty) = Faulty::start_on_azure("a_body_that_breaks_off_is_gone_on_with_or_cut_on_azure") {
        body_breaks_off(&faulty);
    }
}

fn body_breaks_off(faulty: &Faulty) {
    let there = image(91);
    there.push(&faulty.registry.target(), "a/b", "one");
    let registry = faulty.replica();
    let target = registry.target();
    let blob = format!("/v2/a/b/blobs/{}", samples::digest(&there.layer));
    let manifest = format!("/v2/a/b/manifests/{}", there.digest());
    let is_content =
        |method: &str, path: &str| method == "GET" && (path.contains("/data/") || path.contains("_manifests/"));

    // For good: nobody may take a part of it for the whole.
    faulty.proxy.set(move |method, path, _| {
        match is_content(method, path) && !path.contains("list-type") && !path.contains("comp=list") {
            true => Fault::Cut(if path.contains("/data/") { 100_000 } else { 10 }),
            false => Fault::None,
        }
    });
    let answer = target.request(Method::GET, &blob).try_send();
    assert!(
        answer.is_err(),
        "a part of a blob looks whole: {:?}",
        answer.map(|answer| (answer.status, answer.body.len()))
    );
    let answer = target.request(Method::GET, &blob).header("range", "bytes=1000-8000000").try_send();
    assert!(
        answer.is_err(),
        "a part of a range looks whole: {:?}",
        answer.map(|answer| (answer.status, answer.body.len()))
    );
    expect_busy(target.get(&manifest));
    expect_busy(target.get("/v2/a/b/manifests/one"));
    assert!(faulty.proxy.clear() > 5, "the store was not asked to go on");

    // Once in a while: the client does not notice.
    faulty.proxy.set(move |method, path, number| match is_content(method, path) && number % 2 == 0 {
        true => Fault::Cut(100_000),
        false => Fault::None,
    });
    for _ in 0..3 {
        let answer = target.get(&blob).expect_status(200);
        assert!(answer.body == there.layer, "the blob came back changed");
    }
    let _ = faulty.proxy.clear();
    expect_whole(&target, "a/b", &there);
    assert!(!registry.log().contains("panicked"), "{}", registry.log());
}
