//! A registry on a folder that is killed (SIGKILL) again and again, in the middle of pushes, deletes, pulls and collection,
//! and started again: what it acknowledged is there, byte for byte, and what it deleted stays away.
//!
//! `FLUYT_KILLS` says how often (8 times without it), `FLUYT_KILL_SEED` repeats the choices of a run that failed.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::Method;
use serde_json::json;
use spec_tests::folder::TestDir;
use spec_tests::program;
use spec_tests::registry::Registry;
use spec_tests::samples::{self, CONFIG, LAYER, MANIFEST};
use spec_tests::target::{Access, Answer, Request, Target};

use crate::memory::say;

const PUSHERS: usize = 6;
const PULLERS: usize = 2;
/// As many requests at least are under way when the registry is killed.
const IN_FLIGHT: usize = 4;
/// How many images of one pusher stay; it deletes one when there are more.
const KEPT: usize = 8;
/// Longer than one part of an upload (4 MiB): an upload of several.
const LONG: usize = 5 << 20;
/// How often a push begins again because what it relied on was collected: the grace time is one second here.
const PUSHES_MAX: usize = 50;

/// Numbers that follow from a seed.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Its push has no answer yet.
    Asked,
    Acknowledged,
    /// Its deletion has no answer yet.
    Leaving,
    Deleted,
    /// Its push got no answer, and its tag does not name it.
    GivenUp,
}

/// An image: a configuration that no other has, and layers that others may have too.
struct Image {
    pusher: usize,
    repository: String,
    tag: String,
    manifest: Vec<u8>,
    digest: String,
    blobs: Vec<Arc<Vec<u8>>>,
    digests: Vec<String>,
    state: Mutex<State>,
}

impl Image {
    fn new(pusher: usize, number: u64, moving: bool, random: &mut Random, round: u64) -> Self {
        let unique = number * 1000 + 7;
        let config = json!({"architecture": "amd64", "os": "linux", "number": number}).to_string().into_bytes();
        let mut blobs = vec![Arc::new(config), Arc::new(samples::bytes(unique, 2000))];
        // What some images share, until nobody uses it any more and it is collected.
        let shared = 1_000_000_007 + (round / 3) * 10 + random.below(4);
        blobs.push(Arc::new(samples::bytes(shared, if shared % 10 == 7 { LONG + 1 } else { 100_000 })));
        if random.below(6) == 0 {
            blobs.push(Arc::new(samples::bytes(unique + 1, LONG)));
        }
        let digests: Vec<String> = blobs.iter().map(|blob| samples::digest(blob)).collect();
        let layers: Vec<_> = blobs[1..]
            .iter()
            .zip(&digests[1..])
            .map(|(blob, digest)| json!({"mediaType": LAYER, "digest": digest, "size": blob.len()}))
            .collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, "digest": digests[0], "size": blobs[0].len()},
            "layers": layers,
        });
        let manifest = manifest.to_string().into_bytes();
        Self {
            pusher,
            repository: format!("kill/r{}", random.below(3)),
            tag: if moving { format!("moving-{pusher}") } else { format!("v{number}") },
            digest: samples::digest(&manifest),
            manifest,
            blobs,
            digests,
            state: Mutex::new(State::Asked),
        }
    }

    fn state(&self) -> State {
        *self.state.lock().unwrap()
    }

    fn becomes(&self, state: State) {
        *self.state.lock().unwrap() = state;
    }

    fn by_digest(&self) -> String {
        format!("/v2/{}/manifests/{}", self.repository, self.digest)
    }

    fn by_tag(&self) -> String {
        format!("/v2/{}/manifests/{}", self.repository, self.tag)
    }

    fn moves(&self) -> bool {
        self.tag.starts_with("moving")
    }
}

/// What was asked of the registry and what it said, over all its lives.
#[derive(Default)]
struct Ledger {
    images: Mutex<Vec<Arc<Image>>>,
    number: AtomicU64,
    acknowledged: AtomicU64,
    deleted: AtomicU64,
    pulled_beside: AtomicU64,
    pushed_again: AtomicU64,
    collected: AtomicU64,
    pulled_after_restarts: AtomicU64,
    cut: AtomicU64,
}

impl Ledger {
    fn those(&self, which: impl Fn(&Image) -> bool) -> Vec<Arc<Image>> {
        self.images.lock().unwrap().iter().filter(|image| which(image)).cloned().collect()
    }
}

/// The registry was killed before it answered.
#[derive(Debug)]
struct Cut;

/// One life of the registry, as those at work see it.
struct Life<'a> {
    ledger: &'a Ledger,
    url: String,
    number: u64,
    in_flight: AtomicUsize,
    /// Set before the signal is sent.
    ends: AtomicBool,
}

impl Life<'_> {
    fn target(&self) -> Target {
        Target::new(&self.url, Access::default())
    }

    fn ask(&self, request: Request<'_>) -> Result<Answer, Cut> {
        self.in_flight.fetch_add(1, Ordering::SeqCst);
        let answer = request.try_send();
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
        match answer {
            Ok(answer) => Ok(answer),
            Err(_) if self.ends.load(Ordering::SeqCst) => {
                self.ledger.cut.fetch_add(1, Ordering::Relaxed);
                Err(Cut)
            }
            Err(error) => panic!("no answer, though nobody killed the registry: {error:?}"),
        }
    }

    fn push_blob(&self, target: &Target, image: &Image, n: usize, random: &mut Random) -> Result<(), Cut> {
        let (blob, digest, repository) = (&image.blobs[n], &image.digests[n], &image.repository);
        let head = target.request(Method::HEAD, &format!("/v2/{repository}/blobs/{digest}"));
        if self.ask(head)?.expect_one_of(&[200, 404]).status == 200 {
            return Ok(());
        }
        let begun = self.ask(target.request(Method::POST, &format!("/v2/{repository}/blobs/uploads/")))?;
        let mut location = begun.expect_status(202).location().to_owned();
        let mut sent = 0;
        if random.below(2) == 0 {
            // As docker does it, or in two chunks.
            let chunks = if random.below(2) == 0 { 1 } else { 2 };
            for chunk in blob.chunks(blob.len().div_ceil(chunks)) {
                let patch = target
                    .request(Method::PATCH, &location)
                    .header("content-range", format!("{sent}-{}", sent + chunk.len() - 1));
                location = self.ask(patch.body(chunk))?.expect_status(202).location().to_owned();
                sent += chunk.len();
            }
        }
        let put = target.request(Method::PUT, &samples::with_digest(&location, digest)).body(&blob[sent..]);
        let _ = self.ask(put)?.expect_status(201);
        Ok(())
    }

    fn push(&self, target: &Target, image: &Image, random: &mut Random) -> Result<(), Cut> {
        for _ in 0..PUSHES_MAX {
            for n in 0..image.blobs.len() {
                self.push_blob(target, image, n, random)?;
            }
            let put = target.request(Method::PUT, &image.by_tag()).header("content-type", MANIFEST);
            let answer = self.ask(put.body(&image.manifest[..]))?;
            if answer.status == 201 {
                image.becomes(State::Acknowledged);
                self.ledger.acknowledged.fetch_add(1, Ordering::Relaxed);
                return Ok(());
            }
            // The one thing that collection may do to a push that takes longer than the grace time.
            let _ = answer.expect_error(400, "MANIFEST_BLOB_UNKNOWN");
            self.ledger.pushed_again.fetch_add(1, Ordering::Relaxed);
        }
        panic!("{} was pushed {PUSHES_MAX} times, and each time something was collected", image.by_tag());
    }

    /// Pushes images, lets a tag of its own move from one to the next, and deletes what is too much.
    fn pusher(&self, pusher: usize, random: &mut Random) -> Result<(), Cut> {
        let target = self.target();
        loop {
            let number = self.ledger.number.fetch_add(1, Ordering::Relaxed);
            let image = Arc::new(Image::new(pusher, number, random.below(4) == 0, random, self.number));
            self.ledger.images.lock().unwrap().push(image.clone());
            self.push(&target, &image, random)?;

            let mine = self.ledger.those(|image| image.pusher == pusher && image.state() == State::Acknowledged);
            // What a moving tag names last would take the tag with it.
            let last = |image: &Image| {
                let same = |other: &&Arc<Image>| other.repository == image.repository && other.tag == image.tag;
                mine.iter().rfind(same).is_some_and(|other| other.digest == image.digest)
            };
            let can_go: Vec<_> = mine.iter().filter(|image| !image.moves() || !last(image)).collect();
            if mine.len() > KEPT && !can_go.is_empty() {
                let goes = can_go[usize::try_from(random.below(can_go.len() as u64)).unwrap()];
                goes.becomes(State::Leaving);
                let _ = self.ask(target.request(Method::DELETE, &goes.by_digest()))?.expect_status(202);
                goes.becomes(State::Deleted);
                self.ledger.deleted.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Pulls whatever is acknowledged, again and again.
    fn puller(&self, random: &mut Random) -> Result<(), Cut> {
        let target = self.target();
        loop {
            let there = self.ledger.those(|image| image.state() == State::Acknowledged);
            if there.is_empty() {
                let _ = self.ask(target.request(Method::GET, "/v2/"))?.expect_status(200);
                continue;
            }
            let image = &there[usize::try_from(random.below(there.len() as u64)).unwrap()];
            match self.pull(&target, image)? {
                Ok(()) => _ = self.ledger.pulled_beside.fetch_add(1, Ordering::Relaxed),
                Err(wrong) => assert!(image.state() != State::Acknowledged, "{wrong}"),
            }
        }
    }

    /// What is wrong with an image.
    fn pull(&self, target: &Target, image: &Image) -> Result<Result<(), String>, Cut> {
        let manifest = self.ask(target.request(Method::GET, &image.by_digest()))?;
        if manifest.status != 200 || manifest.body != image.manifest {
            return Ok(Err(format!("{} of {}: {}", image.by_digest(), image.tag, manifest.status)));
        }
        for (blob, digest) in image.blobs.iter().zip(&image.digests) {
            let path = format!("/v2/{}/blobs/{digest}", image.repository);
            let answer = self.ask(target.request(Method::GET, &path))?;
            if answer.status != 200 || answer.body != **blob {
                let (status, length) = (answer.status, answer.body.len());
                return Ok(Err(format!("{path} of {}: {status}, {length} of {} bytes", image.tag, blob.len())));
            }
        }
        Ok(Ok(()))
    }

    /// Collects all the time, in the registry's own process, with a short grace time.
    fn collector(&self, store: &str) {
        while !self.ends.load(Ordering::SeqCst) {
            self.collect(store);
        }
    }

    fn collect(&self, store: &str) {
        let collect = ["gc", "--once", "--json", "--grace", "1s", "--history-days", "0", "--store", store];
        let outcome = program::run(program::product("fluyt-registry"), collect);
        if outcome.code == Some(0) {
            let report: serde_json::Value = serde_json::from_str(&outcome.stdout).unwrap();
            let removed = report["removed"].as_array().expect("what was removed").len();
            self.ledger.collected.fetch_add(removed as u64, Ordering::Relaxed);
        } else {
            assert!(self.ends.load(Ordering::SeqCst), "{}", outcome.describe());
        }
    }
}

/// What a registry that was started again says of everything that was asked of the earlier ones. Images that were pulled whole.
fn check(life: &Life<'_>, seen_gone: &mut usize, all: bool) -> usize {
    let (ledger, target) = (life.ledger, life.target());
    let get = |path: &str| life.ask(target.request(Method::GET, path)).unwrap();
    for image in ledger.those(|image| image.state() == State::Leaving) {
        // Done, or not: whoever asks again gets it done.
        let again = life.ask(target.request(Method::DELETE, &image.by_digest())).unwrap();
        let _ = again.expect_one_of(&[202, 404]);
        image.becomes(State::Deleted);
    }
    for image in ledger.those(|image| image.state() == State::Asked) {
        // A tag names only what is whole; from now on it stays.
        let answer = get(&image.by_tag()).expect_one_of(&[200, 404]);
        let there = answer.status == 200 && answer.body == image.manifest;
        assert!(there || image.moves() || answer.status == 404, "{} names something else", image.by_tag());
        image.becomes(if there { State::Acknowledged } else { State::GivenUp });
    }
    let gone = ledger.those(|image| image.state() == State::Deleted);
    let first = if all { 0 } else { *seen_gone };
    for image in gone.iter().skip(first) {
        let _ = get(&image.by_digest()).expect_status(404);
        if !image.moves() {
            let _ = get(&image.by_tag()).expect_status(404);
        }
    }
    // The list keeps its order by push, not by deletion: a few are asked for again.
    *seen_gone = gone.len().saturating_sub(100);

    let there = ledger.those(|image| image.state() == State::Acknowledged);
    for (n, image) in there.iter().enumerate() {
        let newer = |other: &&Arc<Image>| other.repository == image.repository && other.tag == image.tag;
        if there[n + 1..].iter().any(|other| newer(&other)) {
            continue;
        }
        let answer = get(&image.by_tag()).expect_status(200);
        assert!(answer.body == image.manifest, "{} does not name what was acknowledged last", image.by_tag());
    }
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let target = life.target();
                while let Some(image) = there.get(next.fetch_add(1, Ordering::Relaxed)) {
                    life.pull(&target, image)
                        .unwrap()
                        .unwrap_or_else(|wrong| panic!("acknowledged, and lost: {wrong}"));
                    life.ledger.pulled_after_restarts.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    there.len()
}

#[test]
fn a_killed_registry_loses_nothing_that_it_acknowledged() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let kills = number("FLUYT_KILLS").unwrap_or(8);
    let seed = number("FLUYT_KILL_SEED").unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        u64::from(now.subsec_nanos()) ^ now.as_secs()
    });
    say(&format!("kill: {kills} kills, FLUYT_KILL_SEED={seed}"));
    let (folder, ledger) = (TestDir::new(), Ledger::default());
    let store = folder.join("store");
    let url = format!("file://{}", store.display());
    let flags = ["--history-days", "0", "--sparse", "refuse"];
    let (mut random, mut seen_gone, mut least) = (Random::new(seed), 0, usize::MAX);
    for round in 0..kills {
        // Without waiting for the disk more is under way; what was written outlives the process either way.
        let sync: &[&str] = if round % 2 == 0 { &[] } else { &["--no-sync"] };
        let registry = Registry::start_on_with(&store, &[&flags, sync].concat());
        let life = Life {
            ledger: &ledger,
            url: registry.url().to_owned(),
            number: round,
            in_flight: AtomicUsize::new(0),
            ends: AtomicBool::new(false),
        };
        check(&life, &mut seen_gone, false);
        let wait = Duration::from_millis(300 + random.below(4000));
        std::thread::scope(|scope| {
            let life = &life;
            for n in 0..PUSHERS + PULLERS {
                let mut random = Random::new(random.below(u64::MAX));
                scope.spawn(move || {
                    let Err(Cut) = (if n < PUSHERS { life.pusher(n, &mut random) } else { life.puller(&mut random) })
                    else {
                        return;
                    };
                });
            }
            scope.spawn(|| life.collector(&url));
            std::thread::sleep(wait);
            let start = Instant::now();
            let mut under_way = life.in_flight.load(Ordering::SeqCst);
            while under_way < IN_FLIGHT && start.elapsed() < Duration::from_secs(20) {
                std::thread::yield_now();
                under_way = life.in_flight.load(Ordering::SeqCst);
            }
            life.ends.store(true, Ordering::SeqCst);
            let log = registry.log();
            registry.kill();
            assert!(!log.contains("panicked"), "{log}");
            assert!(under_way >= IN_FLIGHT, "only {under_way} requests were under way");
            least = least.min(under_way);
        });
    }
    let registry = Registry::start_on_with(&store, &flags);
    let life = Life {
        ledger: &ledger,
        url: registry.url().to_owned(),
        number: kills,
        in_flight: AtomicUsize::new(0),
        ends: AtomicBool::new(false),
    };
    let whole = check(&life, &mut seen_gone, true);
    // And once more when everything that nobody needs is collected.
    std::thread::sleep(Duration::from_millis(2100));
    life.collect(&url);
    assert_eq!(check(&life, &mut seen_gone, true), whole);
    // And the store itself finds nothing wrong with what it holds.
    let fsck = program::run(program::product("fluyt-registry"), ["fsck", "--rehash", "--store", &url]);
    let _ = fsck.expect_success();
    let count = |number: &AtomicU64| number.load(Ordering::Relaxed);
    say(&format!(
        "kill: {kills} of {kills} kills met {IN_FLIGHT} or more requests under way (least {least}, {} got no answer); {} images acknowledged, {} deleted, \
         {whole} there and all {whole} pulled whole at the end, {} pulls after restarts and {} beside the pushes, all whole; {} pushes sent something again; {} objects collected",
        count(&ledger.cut),
        count(&ledger.acknowledged),
        count(&ledger.deleted),
        count(&ledger.pulled_after_restarts),
        count(&ledger.pulled_beside),
        count(&ledger.pushed_again),
        count(&ledger.collected),
    ));
    assert!(count(&ledger.acknowledged) > kills && whole > 0, "hardly anything was pushed");
    assert!(count(&ledger.collected) > 0, "nothing was collected");
}

/// The Locations that clients hold are good in the next life too: what was answered with 202 need not be sent again.
#[test]
fn an_upload_goes_on_after_a_kill() {
    let folder = TestDir::new();
    let store = folder.join("store");
    for (first, second) in [(1000, 500), (LONG, 700), (LONG, LONG)] {
        let blob = samples::bytes((first + second) as u64, first + second);
        let digest = samples::digest(&blob);
        let registry = Registry::start_on_with(&store, &[]);
        let target = registry.target();
        let path = |location: &str| location.trim_start_matches(registry.url()).to_owned();
        let location = samples::open_upload(&target, "kill/resumed");
        let patched = target.request(Method::PATCH, &location).body(&blob[..first]).send().expect_status(202);
        let location = path(patched.location());
        registry.kill();

        let registry = Registry::start_on_with(&store, &[]);
        let target = registry.target();
        let _ = target.get(&location).expect_status(204).expect_header("range", &format!("0-{}", first - 1));
        let put = target
            .request(Method::PUT, &samples::with_digest(&location, &digest))
            .header("content-range", format!("{first}-{}", first + second - 1));
        let _ = put.body(&blob[first..]).send().expect_status(201);
        registry.kill();

        let registry = Registry::start_on_with(&store, &[]);
        let found = registry.target().get(&format!("/v2/kill/resumed/blobs/{digest}")).expect_status(200);
        assert!(found.body == blob, "the blob came back changed");
    }
}
