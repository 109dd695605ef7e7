//! The binary's certificates, password file, configuration file and connections, over real sockets.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, crypto::aws_lc_rs};

use crate::binary::{Server, refused, take};

/// What the server may take to see a changed file.
const PATIENCE: Duration = Duration::from_secs(20);

/// A certificate for `localhost` and its key, in `folder`.
pub(crate) fn certificate(folder: &Path) -> String {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(folder.join("tls.crt"), made.cert.pem()).unwrap();
    std::fs::write(folder.join("tls.key"), made.signing_key.serialize_pem()).unwrap();
    made.cert.pem()
}

/// Talks to the server as a client that trusts `certificate`: a connection, or why there is none.
pub(crate) fn connect(
    address: &str,
    certificate: &str,
    protocols: &[&str],
) -> std::io::Result<StreamOwned<ClientConnection, TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    let name = ServerName::try_from("localhost").unwrap();
    let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = TcpStream::connect(address)?;
    connection.complete_io(&mut stream)?;
    Ok(StreamOwned::new(connection, stream))
}

fn get(stream: &mut (impl Read + Write), path: &str, headers: &str) -> String {
    write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\n{headers}connection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer
}

fn tls_server(folder: &TempDir, more: &[&str]) -> Server {
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (certificate, key) = (path("tls.crt"), path("tls.key"));
    let mut arguments = vec!["--no-sync", "--tls-cert", &certificate, "--tls-key", &key];
    arguments.extend(more);
    Server::start(&folder.path().join("store"), &arguments)
}

/// Asks until it is so, as long as the server may take to see a changed file.
fn becomes(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "{what} did not come to pass");
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn https_with_a_certificate_that_changes() {
    let folder = tempfile::tempdir().unwrap();
    let first = certificate(folder.path());
    let server = tls_server(&folder, &[]);
    assert!(server.first_line.starts_with(&format!("fluyt-registry listening on https://{}, ", server.address)));
    let mut stream = connect(&server.address, &first, &[]).unwrap();
    assert!(get(&mut stream, "/v2/", "").starts_with("HTTP/1.1 200"));
    for (protocols, expected) in [(&["h2", "http/1.1"][..], "h2"), (&["http/1.1"], "http/1.1")] {
        let stream = connect(&server.address, &first, protocols).unwrap();
        assert_eq!(stream.conn.alpn_protocol(), Some(expected.as_bytes()));
    }
    let told = server.request("GET /v2/ HTTP/1.1\r\nhost: x\r\n\r\n");
    assert!(told.starts_with("HTTP/1.0 400") && told.contains("this port speaks HTTPS"), "{told}");

    // A key alone does not fit: the old pair stays.
    let key = std::fs::read(folder.path().join("tls.key")).unwrap();
    let second = certificate(folder.path());
    let second_key = std::fs::read(folder.path().join("tls.key")).unwrap();
    std::fs::write(folder.path().join("tls.key"), key).unwrap();
    std::thread::sleep(Duration::from_secs(3));
    assert!(connect(&server.address, &first, &[]).is_ok());
    std::fs::write(folder.path().join("tls.key"), second_key).unwrap();
    becomes("the second certificate", || connect(&server.address, &second, &[]).is_ok());
    assert!(connect(&server.address, &first, &[]).is_err());
    server.signal("TERM");
    let (code, log) = take(server).ended();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("the certificate changed, but the old one stays in use"), "{log}");
    assert!(log.contains("the private key does not belong to the certificate"), "{log}");
    assert!(log.contains("the certificate changed and was taken up"), "{log}");
}

#[test]
fn a_slow_handshake_holds_up_nobody_and_no_end() {
    let folder = tempfile::tempdir().unwrap();
    let trusted = certificate(folder.path());
    let server = tls_server(&folder, &[]);
    let mut slow: Vec<TcpStream> = (0..50).map(|_| TcpStream::connect(&server.address).unwrap()).collect();
    // The begin of a handshake's record.
    slow.iter_mut().for_each(|stream| stream.write_all(b"\x16\x03\x01").unwrap());
    let began = Instant::now();
    let mut stream = connect(&server.address, &trusted, &[]).unwrap();
    assert!(get(&mut stream, "/v2/", "").starts_with("HTTP/1.1 200"));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    // Given up after 10 seconds.
    slow[0].set_read_timeout(Some(PATIENCE)).unwrap();
    let _ = slow[0].read_to_end(&mut Vec::new()).unwrap();
    let mut late = TcpStream::connect(&server.address).unwrap();
    late.write_all(b"\x16\x03\x01").unwrap();
    std::thread::sleep(Duration::from_millis(200));
    let began = Instant::now();
    server.signal("TERM");
    let (code, log) = take(server).ended();
    assert_eq!(code, Some(0), "{log}");
    assert!(began.elapsed() < Duration::from_secs(5), "the end took {:?}", began.elapsed());
}

#[test]
fn users_that_change() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("htpasswd");
    let line = |user: &str, password: &str| format!("{user}:{}\n", bcrypt::hash(password, 4).unwrap());
    std::fs::write(&file, line("ann", "a")).unwrap();
    let server = Server::start(&folder.path().join("store"), &["--no-sync", "--htpasswd", file.to_str().unwrap()]);
    let status = |user_and_password: &str| {
        use base64::Engine;
        let encoded = base64::engine::general_purpose::STANDARD.encode(user_and_password);
        let mut stream = TcpStream::connect(&server.address).unwrap();
        let answer = get(&mut stream, "/v2/", &format!("authorization: Basic {encoded}\r\n"));
        answer.split(' ').nth(1).unwrap_or_default().to_owned()
    };
    assert_eq!((status("ann:a").as_str(), status("bob:b").as_str()), ("200", "401"));
    std::fs::write(&file, "ann:plain\n").unwrap();
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(status("ann:a"), "200", "a broken file leaves the old one");
    std::fs::write(folder.path().join("new"), line("bob", "b")).unwrap();
    std::fs::rename(folder.path().join("new"), &file).unwrap();
    becomes("bob", || status("bob:b") == "200");
    assert_eq!(status("ann:a"), "401");
    server.signal("TERM");
    let (_, log) = take(server).ended();
    assert!(log.contains("line 1: user `ann` has a plain password, or a hash that is not known: only bcrypt"), "{log}");
    assert!(log.contains("user.name=\"bob\""), "{log}");
    assert!(!log.contains("$2b$") && !log.contains("YW5uOmE"), "{log}");
}

#[test]
fn what_is_wrong_with_a_file_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    };
    certificate(folder.path());
    let (good, key) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
    let (good, key) = (good.to_str().unwrap(), key.to_str().unwrap());
    let (md5, empty) = (file("md5", "# x\nann:$apr1$x$y\n"), file("empty", ""));
    let (unknown, wrong) = (file("unknown.toml", "\nlisten-on = 1\n"), file("wrong.toml", "listen = \"nowhere\"\n"));
    for (arguments, code, expected) in [
        (&["--htpasswd", &md5][..], 1, "md5: line 2: user `ann` has an MD5 hash (apr1): only bcrypt is taken"),
        (&["--htpasswd", "/nowhere"], 1, "cannot read the password file /nowhere: No such file"),
        (&["--anonymous-pull"], 1, "give the users with --htpasswd too"),
        (&["--tls-cert", good], 1, "--tls-cert needs its private key: give --tls-key too"),
        (&["--tls-cert", good, "--tls-key", "/nowhere"], 1, "cannot read the certificate or its key /nowhere: No such"),
        (&["--tls-cert", &empty, "--tls-key", key], 1, "the certificate cannot be read: it holds no certificate"),
        (&["--tls-cert", good, "--tls-key", good], 1, "the private key cannot be read: it holds none"),
        (&["--config", &unknown], 2, "unknown.toml:2: `listen-on` is no setting"),
        (&["--config", &wrong], 2, "wrong.toml:1: invalid value 'nowhere' for '--listen <ADDRESS:PORT>'"),
        (&["--trusted-proxy", "x"], 2, "`x` is no network: expected an address or a network, such as 10.0.0.0/8"),
    ] {
        let mut all = vec!["serve", "--store", "memory:"];
        if !arguments.contains(&"--config") {
            all.extend(["--listen", "127.0.0.1:0"]);
        }
        all.extend(arguments);
        let (found, message) = refused(&all);
        assert!(message.contains(expected), "{arguments:?}: {message}");
        assert_eq!(found, Some(code), "{arguments:?}: {message}");
    }
}

#[test]
fn a_configuration_file_serves() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("registry.toml");
    std::fs::write(&config, "log-format = \"json\"\nmetrics-listen = \"127.0.0.1:0\"\nno-sync = true\n").unwrap();
    let server = Server::start(&folder.path().join("store"), &["--config", config.to_str().unwrap()]);
    server.request("GET /v2/a/b/manifests/v1 HTTP/1.1\r\nhost: x\r\nuser-agent: me\r\nconnection: close\r\n\r\n");
    server.signal("TERM");
    let (code, log) = take(server).ended();
    assert_eq!(code, Some(0), "{log}");
    let line = log.lines().find(|line| line.contains("/v2/a/b/manifests/v1")).unwrap();
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    for (key, expected) in [
        ("http.method", "GET"),
        ("url.path", "/v2/a/b/manifests/v1"),
        ("client.agent", "me"),
        ("repo.name", "a/b"),
        ("tag", "v1"),
        ("client.address", "127.0.0.1"),
    ] {
        assert_eq!(line[key], expected, "{line}");
    }
    assert_eq!(line["http.status"], 404, "{line}");
    assert!(
        line["http.sent_bytes"].as_u64().unwrap() > 50 && line["request.id"].as_str().unwrap().len() == 16,
        "{line}"
    );
}

#[test]
fn connections_are_bounded_and_wait_their_turn() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &["--no-sync", "--max-connections", "2"]);
    let open = [TcpStream::connect(&server.address).unwrap(), TcpStream::connect(&server.address).unwrap()];
    let mut third = TcpStream::connect(&server.address).unwrap();
    third.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    third.write_all(b"GET /v2/ HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    assert!(third.read(&mut [0]).is_err(), "the third waits");
    drop(open);
    third.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answer = String::new();
    third.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn heads_have_a_bound() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &["--no-sync"]);
    let many: String = (0..200).map(|number| format!("x-{number}: y\r\n")).collect();
    let large = format!("x: {}\r\n", "y".repeat(1 << 20));
    for headers in [many, large] {
        let mut stream = TcpStream::connect(&server.address).unwrap();
        // The server may close before it read all of it.
        let _ = stream.write_all(format!("GET /v2/ HTTP/1.1\r\nhost: x\r\n{headers}\r\n").as_bytes());
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    }
    assert!(server.request("GET /v2/ HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").starts_with("HTTP/1.1 200"));
}
