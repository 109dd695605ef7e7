//! Proxies by the usual variables.

use std::sync::{Arc, Mutex};

use fluyt_client::{Client, ClientError, Environment, Settings};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;

use crate::fixture::{Options, Registry, settings};

/// Notes the first line of each connection, and answers with an empty success.
async fn proxy() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let lines = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&lines);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut stream = BufReader::new(stream);
            let mut head = Vec::new();
            loop {
                let mut line = String::new();
                if stream.read_line(&mut line).await.unwrap_or(0) == 0 || line.trim().is_empty() {
                    break;
                }
                head.push(line.trim().to_owned());
            }
            let authorized = head.iter().any(|line| line.to_ascii_lowercase().starts_with("proxy-authorization"));
            noted.lock().unwrap().push(format!("{}{}", head[0], if authorized { " [authorized]" } else { "" }));
            let status = if head[0].starts_with("CONNECT") { "403 Forbidden" } else { "200 OK" };
            let reply = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            let _ = stream.get_mut().write_all(reply.as_bytes()).await;
        }
    });
    (address, lines)
}

fn client(environment: Environment) -> Client {
    let insecure = vec!["plain.example.invalid".to_owned(), "plain.example.invalid:81".to_owned()];
    Client::new(Settings { insecure, environment, ..settings() }).unwrap()
}

#[tokio::test]
async fn requests_go_through_the_proxy_and_this_machine_is_reached_directly() {
    let (address, lines) = proxy().await;
    let registry = Registry::start(Options::default()).await;
    let environment = Environment {
        http_proxy: Some(format!("http://user:pass@{address}")),
        https_proxy: Some(address.clone()),
        no_proxy: Some("plain.example.invalid:81, .direct.invalid".to_owned()),
        ..Environment::default()
    };
    let shown = format!("{environment:?}");
    assert!(!shown.contains("pass"), "{shown}");
    let client = client(environment);
    client.ping("plain.example.invalid").await.unwrap();
    client.ping(&registry.host()).await.unwrap();
    assert!(matches!(client.ping("secure.example.invalid").await, Err(ClientError::Connect { .. })));
    // Not through the proxy: the names do not exist.
    assert!(matches!(client.ping("plain.example.invalid:81").await, Err(ClientError::Connect { .. })));
    assert!(matches!(client.ping("x.direct.invalid").await, Err(ClientError::Connect { .. })));
    let mut lines = lines.lock().unwrap().clone();
    lines.dedup();
    assert_eq!(
        lines,
        ["GET http://plain.example.invalid/v2/ HTTP/1.1 [authorized]", "CONNECT secure.example.invalid:443 HTTP/1.1"]
    );
}

#[tokio::test]
async fn one_variable_serves_for_both() {
    let (address, lines) = proxy().await;
    let client = client(Environment { all_proxy: Some(format!("http://{address}")), ..Environment::default() });
    client.ping("plain.example.invalid").await.unwrap();
    assert_eq!(lines.lock().unwrap().len(), 1);
}

#[test]
fn a_proxy_that_is_none_is_told_without_its_password() {
    let environment =
        Environment { https_proxy: Some("gopher://me:secret@proxy.example.org".to_owned()), ..Environment::default() };
    let error = Client::new(Settings { environment, ..settings() }).unwrap_err();
    assert_eq!(
        error.to_string(),
        "HTTPS_PROXY `gopher://...@proxy.example.org`: not the address of a proxy; expected http://HOST:PORT or https://HOST:PORT"
    );
}

#[tokio::test]
async fn a_proxy_for_all_programs_that_is_of_another_kind_is_told_of_when_it_is_missed() {
    let registry = Registry::start(Options::default()).await;
    for scheme in ["socks5", "socks", "SOCKS5H"] {
        let address = format!("{scheme}://me:secret@proxy.example.org:1080");
        let client = client(Environment { all_proxy: Some(address), ..Environment::default() });
        let told = Arc::new(Mutex::new(Vec::new()));
        let hears = Arc::clone(&told);
        client.tell_of_warnings(move |text| hears.lock().unwrap().push(text.replace(scheme, "SCHEME")));
        client.ping(&registry.host()).await.unwrap();
        assert_eq!(told.lock().unwrap().len(), 0);
        for _ in 0..2 {
            assert!(matches!(client.ping("plain.example.invalid").await, Err(ClientError::Connect { .. })));
        }
        insta::allow_duplicates! {
            insta::assert_snapshot!(
                told.lock().unwrap().join("\n"),
                @"the proxy of ALL_PROXY, `SCHEME://...@proxy.example.org:1080`, is of a kind that is not supported, and plain.example.invalid is reached without it; one that speaks HTTP is named by HTTP_PROXY=http://HOST:PORT"
            );
        }
    }
}

#[tokio::test]
async fn a_proxy_that_is_named_for_us_goes_before_one_for_all() {
    let (address, lines) = proxy().await;
    let environment = Environment {
        http_proxy: Some(address),
        all_proxy: Some("socks5://proxy.example.org".to_owned()),
        ..Environment::default()
    };
    let client = client(environment);
    client.tell_of_warnings(|text| panic!("{text}"));
    client.ping("plain.example.invalid").await.unwrap();
    assert_eq!(lines.lock().unwrap().len(), 1);
}

#[test]
fn a_wrong_proxy_is_told_by_the_name_of_its_variable() {
    let wrong = |environment| Client::new(Settings { environment, ..settings() }).unwrap_err().to_string();
    let text = || Some("socks5://proxy.example.org".to_owned());
    let error = wrong(Environment { http_proxy: text(), ..Environment::default() });
    assert!(error.starts_with("HTTP_PROXY `socks5://"), "{error}");
    let error = wrong(Environment { https_proxy: text(), all_proxy: text(), ..Environment::default() });
    assert!(error.starts_with("HTTPS_PROXY `socks5://"), "{error}");
    let error = wrong(Environment { all_proxy: Some("http://[".to_owned()), ..Environment::default() });
    assert!(error.starts_with("ALL_PROXY `http://["), "{error}");
}
