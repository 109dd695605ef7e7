//! Registries that send anything: every operation ends with an error, soon, and without a panic.

use std::time::{Duration, Instant};

use fluyt_client::{Client, Credential, Reference, RetryPolicy, Settings};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::fixture::{blob_of, sample, settings};

/// Sends `head` and then `tail` again and again, up to so many times, on every connection.
async fn serve(head: Vec<u8>, tail: Vec<u8>, times: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (head, tail) = (head.clone(), tail.clone());
            tokio::spawn(async move {
                let mut request = vec![0; 64 * 1024];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(&head).await;
                for _ in 0..times {
                    if stream.write_all(&tail).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    address
}

async fn everything_fails_soon(name: &str, address: &str) {
    let retry = RetryPolicy { attempts: 2, ..settings().retry };
    let client = Client::new(Settings { idle_timeout: Duration::from_millis(300), retry, ..settings() }).unwrap();
    let reference = Reference::parse(&format!("{address}/a/b:1")).unwrap();
    let blob = blob_of(&sample(2_000_000, 1));
    let start = Instant::now();
    let mut sink = Vec::new();
    let source = |_| Ok(std::io::repeat(1));
    let login = Credential::Password { username: "me".to_owned(), password: "secret".to_owned() };
    let errors = [
        client.manifest(&reference, &[]).await.err().map(|error| error.to_string()),
        client.resolve(&reference).await.err().map(|error| error.to_string()),
        client.blob(&reference, &blob, &mut sink, &|_| ()).await.err().map(|error| error.to_string()),
        client.push_blob(&reference, &blob, &[], source, &|_| ()).await.err().map(|error| error.to_string()),
        client.tags(&reference).unwrap().all().await.err().map(|error| error.to_string()),
        client.check_login(address, &login).await.err().map(|error| error.to_string()),
    ];
    for error in errors.iter().flatten() {
        assert!(error.len() < 2000 && !error.chars().any(char::is_control), "{name}: {error:?}");
    }
    // `push_blob` and `check_login` may take an empty success for an answer; what is read is never right.
    for at in [0, 2, 4] {
        assert!(errors[at].is_some(), "{name}: {errors:?}");
    }
    assert!(sink.len() as u64 <= blob.size_bytes, "{name}");
    assert!(start.elapsed() < Duration::from_secs(20), "{name} took {:?}", start.elapsed());
}

#[tokio::test]
async fn nonsense_is_refused() {
    let long = "x".repeat(100_000);
    let cases: Vec<(&str, String)> = vec![
        ("nothing", String::new()),
        ("no HTTP", "\u{0}\u{1}\u{2}\u{1b}[31mhello\r\n\r\n".to_owned()),
        ("half a head", "HTTP/1.1 200 OK\r\ncontent-le".to_owned()),
        ("a wrong length", "HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\nabc".to_owned()),
        ("two lengths", "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd".to_owned()),
        ("a huge length", "HTTP/1.1 200 OK\r\ncontent-length: 18446744073709551615\r\n\r\nabc".to_owned()),
        ("a wrong chunk", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nabc".to_owned()),
        ("a long header", format!("HTTP/1.1 200 OK\r\nx: {long}{long}{long}{long}{long}\r\n\r\n")),
        ("a wrong redirect", "HTTP/1.1 302 Found\r\ncontent-length: 0\r\nlocation: \u{e9}\r\n\r\n".to_owned()),
        ("no place", "HTTP/1.1 307 No\r\ncontent-length: 0\r\n\r\n".to_owned()),
        ("an odd status", "HTTP/1.1 999 What\r\ncontent-length: 0\r\n\r\n".to_owned()),
        (
            "an odd challenge",
            format!(
                "HTTP/1.1 401 No\r\ncontent-length: 0\r\nwww-authenticate: Bearer realm=\"{}\"\r\n\r\n",
                &long[..9000]
            ),
        ),
        (
            "another realm",
            "HTTP/1.1 401 No\r\ncontent-length: 0\r\nwww-authenticate: Bearer realm=\"file:///etc/passwd\"\r\n\r\n"
                .to_owned(),
        ),
        (
            "a question without end",
            "HTTP/1.1 401 No\r\ncontent-length: 0\r\nwww-authenticate: Basic\r\n\r\n".to_owned(),
        ),
        ("an odd range", "HTTP/1.1 206 Part\r\ncontent-length: 3\r\ncontent-range: bytes x\r\n\r\nabc".to_owned()),
        (
            "an accepted nothing",
            "HTTP/1.1 202 Yes\r\ncontent-length: 0\r\nlocation: /v2/\r\nrange: 0-99999999999999999999\r\n\r\n"
                .to_owned(),
        ),
        ("a wait without end", "HTTP/1.1 503 No\r\ncontent-length: 0\r\nretry-after: 99999999999\r\n\r\n".to_owned()),
    ];
    for (name, text) in cases {
        let address = serve(text.into_bytes(), Vec::new(), 0).await;
        everything_fails_soon(name, &address).await;
    }
}

#[tokio::test]
async fn what_never_ends_is_ended() {
    let chunk = [b"10000\r\n".to_vec(), vec![b' '; 0x10000], b"\r\n".to_vec()].concat();
    for status in ["200 OK", "401 No", "404 No", "500 No"] {
        let head = format!(
            "HTTP/1.1 {status}\r\ntransfer-encoding: chunked\r\nwww-authenticate: Bearer realm=\"/token\"\r\n\r\n"
        );
        let address = serve(head.into_bytes(), chunk.clone(), 1000).await;
        everything_fails_soon(status, &address).await;
    }
    let address = serve(b"HTTP/1.1 200 OK\r\n".to_vec(), b"x-header: value\r\n".to_vec(), 1_000_000).await;
    everything_fails_soon("headers", &address).await;
}

#[tokio::test]
async fn random_bytes_are_refused() {
    for seed in 0..40 {
        let mut bytes = b"HTTP/1.1 200 OK\r\n".to_vec();
        bytes.truncate(usize::try_from(seed % 20).unwrap());
        bytes.extend(sample(300, seed));
        let address = serve(bytes, Vec::new(), 0).await;
        everything_fails_soon(&format!("seed {seed}"), &address).await;
    }
}
