//! Bad input over a real connection, and a store that fails.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use fluyt_registry::http::{ServeSettings, serve};
use fluyt_registry::storage::Folder;
use futures_util::stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::app::{MANIFEST, digest, image, router_on, send};
use crate::small_disk::SmallDisk;

/// A registry on a folder with a socket; it ends with the test's runtime.
async fn listening(folder: &Path) -> std::net::SocketAddr {
    let router = router_on(Folder::open(folder, false).unwrap()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(listener, router, ServeSettings::default(), std::future::pending(), std::future::pending()));
    address
}

/// Sends these bytes, closes the sending half if `cut`, and reads to the end.
async fn talk(address: std::net::SocketAddr, bytes: &[u8], cut: bool) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    if cut {
        stream.shutdown().await.unwrap();
    }
    let mut answer = Vec::new();
    // A server that is done with a broken connection may also reset it.
    let reading = stream.read_to_end(&mut answer);
    let _ = tokio::time::timeout(Duration::from_secs(10), reading).await.expect("the server keeps a dead connection");
    String::from_utf8_lossy(&answer).into_owned()
}

fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { open.push(path) } else { found.push(path.display().to_string()) }
        }
    }
    found.sort();
    found
}

/// Waits until nothing of the request is left to run: its files have gone.
async fn settled(folder: &Path, expected: &[String]) {
    for _ in 0..100 {
        if files(folder) == expected {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(files(folder), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_cut_off_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let address = listening(folder.path()).await;
    let before = files(folder.path());
    let declared = digest("whatever");
    // Announces 6 MiB, sends a little, or more than fits one part.
    for sent in [1000, 5 * 1024 * 1024] {
        let mut request = format!(
            "POST /v2/a/blobs/uploads/?digest={declared} HTTP/1.1\r\nhost: x\r\ncontent-length: 6291456\r\nconnection: close\r\n\r\n"
        )
        .into_bytes();
        request.extend(std::iter::repeat_n(b'x', sent));
        talk(address, &request, true).await;
        settled(folder.path(), &before).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_chunk_cut_off_can_be_gone_on_with() {
    let folder = tempfile::tempdir().unwrap();
    let address = listening(folder.path()).await;
    let begun =
        talk(address, b"POST /v2/a/blobs/uploads/ HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", false).await;
    let location = begun.lines().find_map(|line| line.strip_prefix("location: ")).unwrap().to_owned();
    let head = |method: &str, length: usize| {
        format!("{method} {location} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n")
    };
    let content = vec![b'x'; 9 * 1024 * 1024];
    let mut request = head("PATCH", content.len()).into_bytes();
    request.extend(&content[..6 * 1024 * 1024]);
    talk(address, &request, true).await;
    let mut status = String::new();
    for _ in 0..100 {
        status = talk(address, head("GET", 0).as_bytes(), false).await;
        if !status.contains("range: 0-0") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let header = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
    let come: usize = header("range: 0-").parse::<usize>().unwrap() + 1;
    assert!(come > 4 * 1024 * 1024 && come <= 6 * 1024 * 1024, "{come}");
    // The last chunk is cut off too, and sent again.
    let finish = |location: &str, rest: &[u8]| {
        let head = format!(
            "PUT {location}&digest={} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            digest(&content),
            rest.len()
        );
        [head.as_bytes(), rest].concat()
    };
    let request = finish(&header("location: "), &content[come..]);
    talk(address, &request[..request.len() - 1_000_000], true).await;
    let location = header("location: ");
    let question = format!("GET {location} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    let mut later = String::new();
    for _ in 0..100 {
        later = talk(address, question.as_bytes(), false).await;
        if !later.contains(&format!("range: 0-{}\r", come - 1)) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let header = |name: &str| later.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
    let more: usize = header("range: 0-").parse::<usize>().unwrap() + 1;
    assert!(more > come && more < content.len(), "{more}");
    let answer = talk(address, &finish(&header("location: "), &content[more..]), false).await;
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_gets_an_answer_or_an_end() {
    let folder = tempfile::tempdir().unwrap();
    let address = listening(folder.path()).await;
    for (bytes, expected) in [
        (&b"\0\0\0\0\r\n\r\n"[..], "HTTP/1.1 400"),
        (b"GET /v2/ HTTP/9.9\r\n\r\n", ""),
        (b"GET /v2/%00/tags/list HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", "HTTP/1.1 400"),
        (b"GET /v2/a/manifests/..%2f..%2fetc HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", "HTTP/1.1 4"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nnonsense-nonsense-nonsense", ""),
    ] {
        let answer = talk(address, bytes, true).await;
        assert!(answer.starts_with(expected) || expected.is_empty(), "{answer}");
    }
    let answer = talk(address, b"GET /v2/ HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", false).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_content_has_no_length() {
    let folder = tempfile::tempdir().unwrap();
    let address = listening(folder.path()).await;
    let begun =
        talk(address, b"POST /v2/a/blobs/uploads/ HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", false).await;
    let location = begun.lines().find_map(|line| line.strip_prefix("location: ")).unwrap();
    let request = format!("GET {location} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    let answer = talk(address, request.as_bytes(), false).await;
    assert!(answer.starts_with("HTTP/1.1 204") && !answer.contains("content-length"), "{answer}");
}

#[tokio::test]
async fn data_that_was_cut_short_breaks_off_instead_of_ending() {
    let folder = tempfile::tempdir().unwrap();
    let router = router_on(Folder::open(folder.path(), false).unwrap()).await;
    let content = vec![b'x'; 200_000];
    let line = format!("POST /v2/a/blobs/uploads/?digest={}", digest(&content));
    assert_eq!(send(&router, &line, &[], content.clone()).await.status, 201);
    let data = files(folder.path()).into_iter().find(|file| file.contains("/data/")).unwrap();
    let file = std::fs::File::options().write(true).open(data).unwrap();
    let request = http::Request::get(format!("/v2/a/blobs/{}", digest(&content))).body(axum::body::Body::empty());
    let response = tower::ServiceExt::oneshot(router.clone(), request.unwrap()).await.unwrap();
    assert_eq!(response.status(), 200);
    file.set_len(100_000).unwrap();
    let error = http_body_util::BodyExt::collect(response.into_body()).await.unwrap_err();
    assert!(error.to_string().contains("before its end"), "{error}");
}

#[tokio::test]
async fn a_full_disk_says_so_and_keeps_what_it_has() {
    let Some(disk) = SmallDisk::mount(SmallDisk::LITTLE_ROOM) else {
        eprintln!("skipped: this process may not mount a small file system");
        return;
    };
    let router = router_on(Folder::open(disk.path(), true).unwrap()).await;
    let kept = digest("kept");
    assert_eq!(send(&router, &format!("POST /v2/a/blobs/uploads/?digest={kept}"), &[], "kept").await.status, 201);
    let filler = disk.path().join("@new-filler");
    std::fs::write(&filler, vec![0; 3 * 1024 * 1024]).unwrap();
    let before = files(disk.path());
    // One PUT of its own, and an upload in parts.
    for size in [2 * 1024 * 1024, 6 * 1024 * 1024] {
        let content = vec![b'x'; size];
        let line = format!("POST /v2/a/blobs/uploads/?digest={}", digest(&content));
        let pieces: Vec<Result<Bytes, std::io::Error>> =
            content.chunks(100_000).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        let answer = send(&router, &line, &[], axum::body::Body::from_stream(stream::iter(pieces))).await;
        insta::allow_duplicates! {
            insta::assert_snapshot!(answer.shown(), @r#"
            507 Insufficient Storage
            content-length: 128
            content-type: application/json

            {"errors":[{"code":"UNAVAILABLE","message":"the registry's store is full: nothing was stored; its operator has to make space"}]}
            "#);
        }
        assert_eq!(files(disk.path()), before);
        let begun = send(&router, "POST /v2/a/blobs/uploads/", &[], "").await;
        let answer = send(&router, &format!("PATCH {}", begun.header("location")), &[], content).await;
        assert_eq!((answer.status.as_u16(), files(disk.path())), (507, before.clone()));
    }
    assert_eq!(send(&router, &format!("GET /v2/a/blobs/{kept}"), &[], "").await.body, b"kept");
    // With room again, it takes what comes.
    std::fs::remove_file(&filler).unwrap();
    let manifest = image(&[b"kept"], "");
    let answer = send(&router, "PUT /v2/a/manifests/t", &[("content-type", MANIFEST)], manifest).await;
    assert_eq!(answer.status, 201, "{}", answer.shown());
}

#[tokio::test]
async fn a_disk_that_may_not_be_written_says_so_and_still_serves() {
    let Some(disk) = SmallDisk::mount(SmallDisk::LITTLE_ROOM) else {
        eprintln!("skipped: this process may not mount a small file system");
        return;
    };
    let router = router_on(Folder::open(disk.path(), true).unwrap()).await;
    let kept = digest("kept");
    assert_eq!(send(&router, &format!("POST /v2/a/blobs/uploads/?digest={kept}"), &[], "kept").await.status, 201);
    // The lock is held open for writing, so the whole file system cannot be made read-only; a view of a folder can.
    let data = disk.path().join("data");
    let read_only = [["--bind"].as_slice(), &["-o", "remount,bind,ro"]].into_iter().all(|options| {
        let mut mount = std::process::Command::new("mount");
        mount.args(options).args([&data, &data]).status().is_ok_and(|status| status.success())
    });
    assert!(read_only);
    let other = digest("other");
    let answer = send(&router, &format!("POST /v2/a/blobs/uploads/?digest={other}"), &[], "other").await;
    std::process::Command::new("umount").arg("-l").arg(&data).status().unwrap();
    insta::assert_snapshot!(answer.shown(), @r#"
    500 Internal Server Error
    content-length: 129
    content-type: application/json

    {"errors":[{"code":"UNKNOWN","message":"the registry is not allowed to use its store: its operator finds the cause in the log"}]}
    "#);
    assert_eq!(send(&router, &format!("GET /v2/a/blobs/{kept}"), &[], "").await.body, b"kept");
}
