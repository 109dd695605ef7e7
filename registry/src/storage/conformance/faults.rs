//! A store over HTTP that fails: what is repeated, what is gone on with, and what is said when nothing helps.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use object_store::ObjectStoreExt;
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::multipart::MultipartStore;

use super::suite::{path, read};
use crate::storage::{Cloud, CloudAddress, CloudSettings, StorageError, StorageErrorKind};

/// Answers each request by its number, from 0, and its head.
struct Scripted {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Scripted {
    fn new(answer: impl Fn(usize, &str) -> String + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let seen = heads.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let lines = BufReader::new(stream.try_clone().unwrap()).lines();
                let head: Vec<String> = lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
                let head = head.join("\n").to_ascii_lowercase();
                let number = {
                    let mut seen = seen.lock().unwrap();
                    seen.push(head.clone());
                    seen.len() - 1
                };
                // One request a connection, which breaks where the answer ends.
                let _ = stream.write_all(answer(number, &head).as_bytes());
            }
        });
        Self { address, heads }
    }

    async fn cloud(&self) -> Cloud {
        connect(self.address).await
    }

    fn requests(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

async fn connect(address: SocketAddr) -> Cloud {
    let variables = [
        ("AWS_ENDPOINT_URL", format!("http://{address}")),
        ("AWS_ACCESS_KEY_ID", "key".into()),
        ("AWS_SECRET_ACCESS_KEY", "secret".into()),
    ];
    let settings = CloudSettings {
        address: CloudAddress::parse("s3://bucket").unwrap().unwrap(),
        variables: variables.map(|(name, value)| (name.to_owned(), value)).into(),
        authorities: None,
        redirect_endpoint: None,
    };
    Cloud::connect(&settings).await.unwrap()
}

fn answer(status: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n{body}")
}

const SLOW_DOWN: &str = "<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>";
const EMPTY_LIST: &str = "<ListBucketResult><Name>bucket</Name><IsTruncated>false</IsTruncated></ListBucketResult>";
const META: &str = "ETag: \"1\"\r\nLast-Modified: Sat, 28 Nov 2026 04:00:00 GMT\r\n";

fn kind(error: object_store::Error) -> (StorageErrorKind, String) {
    let error = StorageError::new("trying", error);
    (error.kind(), error.to_string())
}

async fn list(cloud: &Cloud) -> object_store::Result<usize> {
    cloud.list_paginated(Some(""), PaginatedListOptions::default()).await.map(|page| page.result.objects.len())
}

#[tokio::test]
async fn a_passing_overload_is_waited_out() {
    for status in ["503 Slow Down", "500 Internal Server Error", "429 Too Many Requests"] {
        let server = Scripted::new(move |number, _| match number {
            0 | 1 => answer(status, "", SLOW_DOWN),
            _ => answer("200 OK", "", EMPTY_LIST),
        });
        assert_eq!(list(&server.cloud().await).await.unwrap(), 0);
        assert_eq!(server.requests().len(), 3, "{status}");
    }
}

#[tokio::test]
async fn writes_and_deletions_are_repeated_too() {
    let server = Scripted::new(|number, _| match number {
        0 => answer("503 Slow Down", "", SLOW_DOWN),
        // The connection ends without a word: whether it was done is not known.
        1 | 3 => String::new(),
        2 => answer("200 OK", META, ""),
        _ => answer("200 OK", "", "<DeleteResult><Deleted><Key>a</Key></Deleted></DeleteResult>"),
    });
    let cloud = server.cloud().await;
    cloud.put(&path("a"), "x".into()).await.unwrap();
    cloud.delete(&path("a")).await.unwrap();
    assert_eq!(server.requests().len(), 5);
}

#[tokio::test]
async fn an_overload_that_lasts_is_busy_and_says_what_the_store_said() {
    let server = Scripted::new(|_, _| answer("503 Slow Down", "", SLOW_DOWN));
    let cloud = server.cloud().await;
    let start = Instant::now();
    let (kind, message) = kind(list(&cloud).await.unwrap_err());
    assert_eq!(kind, StorageErrorKind::Busy, "{message}");
    assert!(message.contains("503") && message.contains("SlowDown"), "{message}");
    assert_eq!(server.requests().len(), 5);
    assert!(start.elapsed() < Duration::from_secs(25), "{:?}", start.elapsed());
}

#[tokio::test]
async fn nobody_there_is_busy_and_a_refusal_is_not() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (nobody, message) = kind(list(&connect(address).await).await.unwrap_err());
    assert_eq!(nobody, StorageErrorKind::Busy, "{message}");
    let denied = "<Error><Code>AccessDenied</Code></Error>";
    let server = Scripted::new(move |_, _| answer("403 Forbidden", "", denied));
    let (refused, message) = kind(server.cloud().await.put(&path("a"), "x".into()).await.unwrap_err());
    assert_eq!(refused, StorageErrorKind::Denied, "{message}");
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn a_refusal_is_one_whatever_was_asked() {
    const DENIED: &str = "<Error><Code>AccessDenied</Code><Message>Access Denied.</Message></Error>";
    for status in ["403 Forbidden", "401 Unauthorized"] {
        let server = Scripted::new(move |_, _| answer(status, "", DENIED));
        let cloud = server.cloud().await;
        let errors = [
            list(&cloud).await.unwrap_err(),
            cloud.get(&path("a")).await.unwrap_err(),
            cloud.put(&path("a"), "x".into()).await.unwrap_err(),
            cloud.delete(&path("a")).await.unwrap_err(),
            cloud.create_multipart(&path("a")).await.unwrap_err(),
        ];
        for error in errors {
            let (kind, message) = kind(error);
            assert_eq!(kind, StorageErrorKind::Denied, "{message}");
        }
        let error = cloud.reach().await.unwrap_err().to_string();
        assert!(error.contains("does not let") && error.contains("s3:ListBucket"), "{error}");
    }
    // Deleting many is answered with a status for each.
    let body = "<DeleteResult><Error><Key>a</Key><Code>AccessDenied</Code><Message>no</Message></Error></DeleteResult>";
    let server = Scripted::new(move |_, _| answer("200 OK", "", body));
    let (kind, message) = kind(server.cloud().await.delete(&path("a")).await.unwrap_err());
    assert_eq!(kind, StorageErrorKind::Denied, "{message}");
}

#[tokio::test]
async fn a_bucket_elsewhere_is_named() {
    let moved = |_: usize, _: &str| answer("301 Moved Permanently", "x-amz-bucket-region: eu-west-9\r\n", "");
    let server = Scripted::new(moved);
    let error = server.cloud().await.reach().await.unwrap_err().to_string();
    assert!(error.contains("set AWS_REGION=eu-west-9"), "{error}");
}

#[tokio::test]
async fn a_body_that_breaks_off_is_gone_on_with() {
    let content: String = (0..100).map(|i| char::from(b'a' + i % 26)).collect();
    let whole = content.clone();
    let server = Scripted::new(move |_, head| match head.contains("range: bytes=40-99") {
        true => {
            let headers = format!("{META}Content-Range: bytes 40-99/100\r\n");
            answer("206 Partial Content", &headers, &whole[40..])
        }
        false => answer("200 OK", META, &whole).trim_end_matches(&whole[40..]).to_owned(),
    });
    assert_eq!(read(&server.cloud().await, "a", None).await.unwrap(), content);
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn a_body_that_stays_broken_is_an_error_and_never_short() {
    let server = Scripted::new(|_, head| match head.contains("range: bytes=") {
        true => answer("503 Slow Down", "", SLOW_DOWN),
        false => format!("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n{META}\r\nonly this"),
    });
    let (kind, message) = kind(read(&server.cloud().await, "a", None).await.unwrap_err());
    assert_eq!(kind, StorageErrorKind::Busy, "{message}");
    assert!(server.requests().len() > 2);
}
