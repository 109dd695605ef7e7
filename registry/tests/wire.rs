//! Large blobs over every kind of connection: a client gets their bytes, whatever other clients and replies do beside it, or is told.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::binary::{Server, take};
use crate::tls::{certificate, connect};

/// More than is sent at a time, and no whole number of pieces.
const BLOB_BYTES: usize = 5 * 1024 * 1024 + 12_345;

/// Not one byte is zero, as those of an empty buffer are.
fn content(seed: u32) -> Vec<u8> {
    let mut state = seed;
    let next = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8 | 1
    };
    std::iter::repeat_with(next).take(BLOB_BYTES).collect()
}

/// Puts a blob there and gives its path.
fn push(server: &Server, content: &[u8]) -> String {
    let digest = format!("sha256:{}", hex::encode(Sha256::digest(content)));
    let mut stream = TcpStream::connect(&server.address).unwrap();
    let length = content.len();
    write!(stream, "POST /v2/a/blobs/uploads/?digest={digest} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n")
        .unwrap();
    stream.write_all(content).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    format!("/v2/a/blobs/{digest}")
}

/// The next reply of a connection: its head, and so many bytes of its body as it says.
fn reply(stream: &mut impl Read) -> (String, Vec<u8>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        assert_eq!(stream.read(&mut byte).unwrap(), 1, "{}", String::from_utf8_lossy(&head));
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
    let mut body = Vec::new();
    stream.take(length).read_to_end(&mut body).unwrap();
    (head, body)
}

fn ask(stream: &mut impl Write, method: &str, path: &str, header: &str) {
    write!(stream, "{method} {path} HTTP/1.1\r\nhost: x\r\n{header}\r\n").unwrap();
}

/// The largest file below a folder.
fn largest(folder: &Path) -> PathBuf {
    let mut found = (0, PathBuf::new());
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let (path, metadata) = entry.map(|entry| (entry.path(), entry.metadata().unwrap())).unwrap();
            match metadata.is_dir() {
                true => folders.push(path),
                false => found = found.max((metadata.len(), path)),
            }
        }
    }
    found.1
}

#[test]
fn replies_follow_each_other_on_one_connection() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &["--no-sync"]);
    let (one, other) = (content(1), content(2));
    let (at_one, at_other) = (push(&server, &one), push(&server, &other));
    let mut stream = TcpStream::connect(&server.address).unwrap();
    // All are asked for before the first reply is read.
    ask(&mut stream, "GET", &at_one, "");
    ask(&mut stream, "HEAD", &at_one, "");
    ask(&mut stream, "GET", &at_other, "range: bytes=1048570-3145730\r\n");
    ask(&mut stream, "GET", "/v2/a/blobs/sha256:00", "");
    ask(&mut stream, "GET", &at_other, "");
    ask(&mut stream, "GET", &at_one, "range: bytes=-70000\r\n");
    let (head, body) = reply(&mut stream);
    assert!(head.starts_with("http/1.1 200") && body == one, "{head}");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 200"));
    let (head, body) = reply(&mut stream);
    assert!(head.starts_with("http/1.1 206") && body == other[1_048_570..=3_145_730], "{head}");
    let (head, _) = reply(&mut stream);
    assert!(head.starts_with("http/1.1 400"), "{head}");
    let (head, body) = reply(&mut stream);
    assert!(head.starts_with("http/1.1 200") && body == other, "{head}");
    let (head, body) = reply(&mut stream);
    assert!(head.starts_with("http/1.1 206") && body == one[BLOB_BYTES - 70_000..], "{head}");
    drop(stream);
    server.signal("TERM");
    let (_, log) = take(server).ended();
    assert_eq!(log.matches(&format!("http.sent_bytes={BLOB_BYTES}")).count(), 2, "{log}");
    assert_eq!(log.matches("http.sent_bytes=70000").count(), 1, "{log}");
}

#[test]
fn a_client_that_goes_or_is_slow_changes_nothing_for_others() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &["--no-sync"]);
    let blob = content(3);
    let path = push(&server, &blob);
    let mut slow = TcpStream::connect(&server.address).unwrap();
    ask(&mut slow, "GET", &path, "");
    for _ in 0..3 {
        let mut gone = TcpStream::connect(&server.address).unwrap();
        ask(&mut gone, "GET", &path, "");
        let mut some = vec![0; 100_000];
        gone.read_exact(&mut some).unwrap();
        gone.shutdown(Shutdown::Both).unwrap();
        let mut stream = TcpStream::connect(&server.address).unwrap();
        ask(&mut stream, "GET", &path, "");
        assert!(reply(&mut stream).1 == blob);
    }
    // It took nothing until now.
    assert!(reply(&mut slow).1 == blob);
}

#[test]
fn a_file_that_became_shorter_ends_the_connection() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &["--no-sync"]);
    // Much more than sockets hold.
    let blob = content(4).repeat(8);
    let path = push(&server, &blob);
    let file = largest(folder.path());
    assert_eq!(std::fs::metadata(&file).unwrap().len(), blob.len() as u64);
    let mut stream = TcpStream::connect(&server.address).unwrap();
    ask(&mut stream, "GET", &path, "");
    let mut first = [0; 20];
    stream.read_exact(&mut first).unwrap();
    // The socket holds some of it already; what is not sent yet is gone.
    std::fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(blob.len() as u64 - 7).unwrap();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    let body = rest.windows(4).position(|four| four == b"\r\n\r\n").map(|at| &rest[at + 4..]).unwrap();
    assert!(body.len() < blob.len() && *body == blob[..body.len()], "{} of {} bytes", body.len(), blob.len());
    server.signal("TERM");
    let (_, log) = take(server).ended();
    assert!(log.contains("broke off while it was sent"), "{log}");
}

#[test]
fn the_same_over_tls() {
    let folder = tempfile::tempdir().unwrap();
    let certificate = certificate(folder.path());
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (cert, key) = (path("tls.crt"), path("tls.key"));
    let store = folder.path().join("store");
    let plain = Server::start(&store, &["--no-sync"]);
    let blob = content(5);
    let at = push(&plain, &blob);
    drop(plain);
    let server = Server::start(&store, &["--no-sync", "--tls-cert", &cert, "--tls-key", &key]);
    let mut stream = connect(&server.address, &certificate, &["http/1.1"]).unwrap();
    ask(&mut stream, "GET", &at, "range: bytes=65530-\r\n");
    ask(&mut stream, "GET", &at, "");
    assert!(reply(&mut stream).1 == blob[65_530..]);
    assert!(reply(&mut stream).1 == blob);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_over_http_2() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &["--no-sync"]);
    let blob = content(6);
    let path = push(&server, &blob);
    let client = reqwest::Client::builder().http2_prior_knowledge().timeout(Duration::from_secs(60)).build().unwrap();
    let answer = client.get(format!("http://{}{path}", server.address)).send().await.unwrap();
    assert_eq!(answer.version(), reqwest::Version::HTTP_2);
    assert!(answer.bytes().await.unwrap() == blob);
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_one_tls_connection_share_it() {
    let folder = tempfile::tempdir().unwrap();
    let trusted = reqwest::Certificate::from_pem(certificate(folder.path()).as_bytes()).unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (cert, key) = (path("tls.crt"), path("tls.key"));
    let store = folder.path().join("store");
    let plain = Server::start(&store, &["--no-sync"]);
    let blobs = [content(7), content(8)];
    let [one, other] = [0, 1].map(|number: usize| push(&plain, &blobs[number]));
    drop(plain);
    // A second connection would wait for the end of the first one.
    let arguments = ["--no-sync", "--max-connections", "1", "--tls-cert", &cert, "--tls-key", &key];
    let server = Server::start(&store, &arguments);
    let address: std::net::SocketAddr = server.address.parse().unwrap();
    let client = reqwest::Client::builder().tls_certs_only([trusted]).resolve("localhost", address).no_proxy();
    let client = client.timeout(Duration::from_secs(60)).build().unwrap();
    let get = |path: &str, range: &str| {
        let request = client.get(format!("https://localhost:{}{path}", address.port()));
        if range.is_empty() { request.send() } else { request.header("range", range).send() }
    };
    assert_eq!(get("/v2/", "").await.unwrap().version(), reqwest::Version::HTTP_2);
    // All are under way before any of a body is read: none fits into what a stream may send unread.
    let (first, second) = (get(&one, "").await.unwrap(), get(&other, "").await.unwrap());
    let (ranged, mut reset) = (get(&other, "bytes=65530-").await.unwrap(), get(&one, "").await.unwrap());
    assert_eq!(ranged.status(), 206);
    let reset = async move {
        let mut come = Vec::new();
        while come.len() < BLOB_BYTES / 2 {
            come.extend(reset.chunk().await.unwrap().unwrap());
        }
        come
    };
    let (first, second, ranged, come) = tokio::join!(first.bytes(), second.bytes(), ranged.bytes(), reset);
    assert!(first.unwrap() == blobs[0] && second.unwrap() == blobs[1] && ranged.unwrap() == blobs[1][65_530..]);
    assert!(come.len() < BLOB_BYTES && come == blobs[0][..come.len()]);
    assert!(get(&one, "").await.unwrap().bytes().await.unwrap() == blobs[0]);
    drop(client);
    server.signal("TERM");
    let (_, log) = take(server).ended();
    assert_eq!(log.matches(&format!("http.sent_bytes={BLOB_BYTES}")).count(), 3, "{log}");
    assert_eq!(log.matches("cut=true").count(), 1, "{log}");
}
