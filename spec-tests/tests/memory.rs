//! How much memory the registry takes, whoever pushes what: the real program, and what the system says of its process.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use spec_tests::folder::TestDir;
use spec_tests::program;
use spec_tests::registry::Registry;
use spec_tests::samples;
use spec_tests::stores::{Seaweed, skipped};

const MIB: u64 = 1024 * 1024;
/// How long a request may take while everything else goes on.
const PATIENCE: Duration = Duration::from_secs(300);

/// Figures for whoever looks (`--nocapture`).
pub(crate) fn say(figures: &str) {
    let _ = writeln!(std::io::stdout(), "{figures}");
}

/// One connection, over which bodies are sent without saying how long they are.
struct Connection {
    host: String,
    stream: BufReader<TcpStream>,
}

impl Connection {
    fn open(registry: &Registry) -> Self {
        let host = registry.host().to_owned();
        let stream = TcpStream::connect(&host).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { host, stream: BufReader::new(stream) }
    }

    fn head(&mut self, line: &str, more: &str) {
        let head = format!("{line} HTTP/1.1\r\nhost: {}\r\n{more}\r\n", self.host);
        self.stream.get_mut().write_all(head.as_bytes()).unwrap();
    }

    fn chunk(&mut self, bytes: &[u8]) {
        let head = format!("{:x}\r\n", bytes.len());
        self.stream.get_mut().write_all(&[head.as_bytes(), bytes, b"\r\n"].concat()).unwrap();
    }

    /// Status and Location.
    fn answer(&mut self) -> (u16, String) {
        let (mut status, mut location, mut length) = (0, String::new(), 0);
        for n in 0.. {
            let mut line = String::new();
            self.stream.read_line(&mut line).unwrap();
            let line = line.trim_end();
            if line.is_empty() {
                break;
            }
            if n == 0 {
                status = line.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
            } else if let Some((name, value)) = line.split_once(": ") {
                match name {
                    "location" => location = value.to_owned(),
                    "content-length" => length = value.parse().unwrap(),
                    _ => {}
                }
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).unwrap();
        assert!(status < 300, "{status}: {}", String::from_utf8_lossy(&body));
        (status, location)
    }

    /// Begins an upload and its PATCH.
    fn begin(&mut self, repository: &str) {
        self.head(&format!("POST /v2/{repository}/blobs/uploads/"), "content-length: 0\r\n");
        let location = self.answer().1;
        self.head(&format!("PATCH {location}"), "transfer-encoding: chunked\r\n");
    }

    /// Ends the PATCH and makes the upload a blob.
    fn finish(&mut self, digest: &str) {
        self.stream.get_mut().write_all(b"0\r\n\r\n").unwrap();
        let location = self.answer().1;
        self.head(&format!("PUT {location}&digest={digest}"), "content-length: 0\r\n");
        assert_eq!(self.answer().0, 201);
    }

    fn push(&mut self, repository: &str, content: &[u8], digest: &str) {
        self.begin(repository);
        content.chunks(64 * 1024).for_each(|chunk| self.chunk(chunk));
        self.finish(digest);
    }
}

/// Pushes 100 MiB over each of 64 connections at once; the most memory that the registry had.
fn sixty_four_pushes(registry: &Registry) -> u64 {
    let content = samples::bytes(7, 100 * MIB as usize);
    let digest = samples::digest(&content);
    std::thread::scope(|scope| {
        for n in 0..64 {
            let (content, digest) = (&content, &digest);
            scope.spawn(move || Connection::open(registry).push(&format!("many/{n}"), content, digest));
        }
    });
    registry.peak_memory_bytes()
}

/// What a fast client sees while a thousand slow ones are at work, that send next to nothing after a good beginning; and
/// among such that never pause, of which a debug build on a machine that has more to do bears a hundred.
fn a_thousand_slow_ones(start: impl Fn() -> Registry) {
    among_slow_ones(&start(), 1000, b"a little more", Duration::from_millis(500));
    among_slow_ones(&start(), 100, &[7; 800], Duration::from_millis(80));
}

/// `more` is what each slow client sends each time, after so long.
fn among_slow_ones(registry: &Registry, count: usize, more: &[u8], between: Duration) {
    let content = samples::bytes(7, 20 * MIB as usize);
    let digest = samples::digest(&content);
    let start = Instant::now();
    Connection::open(registry).push("alone", &content, &digest);
    let alone = start.elapsed();

    let mut slow: Vec<Connection> = (0..count).map(|_| Connection::open(registry)).collect();
    // Enough at once for each to want memory for a part, and then next to nothing.
    let first = samples::bytes(8, 100 * 1024);
    for connection in &mut slow {
        connection.begin("slow");
        connection.chunk(&first);
    }
    let done = AtomicBool::new(false);
    let (rounds, among) = std::thread::scope(|scope| {
        let trickle = scope.spawn(|| {
            let mut rounds = 0;
            while !done.load(Ordering::Relaxed) {
                let next = Instant::now() + between;
                slow.iter_mut().for_each(|connection| connection.chunk(more));
                rounds += 1;
                std::thread::sleep(next.saturating_duration_since(Instant::now()));
            }
            rounds
        });
        let start = Instant::now();
        Connection::open(registry).push("fast", &content, &digest);
        let among = start.elapsed();
        done.store(true, Ordering::Relaxed);
        (trickle.join().unwrap(), among)
    });
    let kind = format!("{count} uploads of {} bytes each {between:?}", more.len());
    say(&format!("20 MiB alone: {alone:?}; among {kind}: {among:?}"));
    // Where each of them had its turn for a part, it was 31 and 69 s where 20 MiB alone took 1.3.
    assert!(among < alone * 5 + Duration::from_secs(5), "alone {alone:?}, among {kind}: {among:?}");
    let whole = [&first[..], &more.repeat(rounds)].concat();
    let whole = samples::digest(&whole);
    // They were slow, not stopped.
    slow.iter_mut().step_by(count / 10).for_each(|connection| connection.finish(&whole));
    let peak = registry.peak_memory_bytes();
    say(&format!("peak with {count} slow uploads: {} MiB", peak / MIB));
    // 64 KiB each, the pool, and what a connection takes.
    assert!(peak < 200 * MIB, "{peak}");
}

fn expect_at_most(what: &str, peak: u64, most: u64) {
    say(&format!("{what}: {:.1} MiB", peak as f64 / MIB as f64));
    assert!(peak < most * MIB, "{what}: {} KiB, expected less than {most} MiB", peak / 1024);
}

/// A debug build's code alone takes more than the bounds leave. `./spec-tests/run memory` names a release build.
fn is_release(test: &str) -> bool {
    let given = std::env::var_os("FLUYT_SPEC_TESTS_BINARIES").is_some();
    if !given {
        program::skip(test, "its bounds are those of a release build (`./spec-tests/run memory` makes one)");
    }
    given
}

#[test]
fn many_pushes_to_a_folder_at_once() {
    if !is_release("many_pushes_to_a_folder_at_once") {
        return;
    }
    let folder = TestDir::new();
    let registry = Registry::start_at(&format!("file://{}", folder.join("store").display()), &["--no-sync"], &[]);
    expect_at_most("idle on a folder", registry.peak_memory_bytes(), 16);
    let start = Instant::now();
    let peak = sixty_four_pushes(&registry);
    say(&format!("64 pushes of 100 MiB: {:?}", start.elapsed()));
    expect_at_most("64 pushes of 100 MiB to a folder", peak, 40);
}

#[test]
fn a_thousand_slow_uploads_to_a_folder_do_not_stop_a_fast_one() {
    let folder = TestDir::new();
    let store = format!("file://{}", folder.join("store").display());
    a_thousand_slow_ones(|| Registry::start_at(&store, &["--no-sync"], &[]));
}

#[test]
fn many_pushes_to_an_object_store_at_once() {
    let test = "many_pushes_to_an_object_store_at_once";
    if !is_release(test) {
        return;
    }
    let Some(server) = Seaweed::shared() else { return skipped(test, "SeaweedFS") };
    let registry = Registry::start_at(&format!("s3://{}/m", server.bucket()), &[], &server.variables());
    expect_at_most("idle on S3", registry.peak_memory_bytes(), 16);
    let start = Instant::now();
    let peak = sixty_four_pushes(&registry);
    say(&format!("64 pushes of 100 MiB: {:?}", start.elapsed()));
    expect_at_most("64 pushes of 100 MiB to S3", peak, 96);
}

#[test]
fn a_thousand_slow_uploads_to_an_object_store_do_not_stop_a_fast_one() {
    let test = "a_thousand_slow_uploads_to_an_object_store_do_not_stop_a_fast_one";
    let Some(server) = Seaweed::shared() else { return skipped(test, "SeaweedFS") };
    let store = format!("s3://{}/s", server.bucket());
    a_thousand_slow_ones(|| Registry::start_at(&store, &[], &server.variables()));
}
