//! The binary: its first line, its flags, its exit codes, and how it ends.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::small_disk::SmallDisk;

pub(crate) fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fluyt-registry"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("FLUYT_REGISTRY_") {
            command.env_remove(name);
        }
    }
    command.env_remove("RUST_LOG");
    command
}

pub(crate) struct Server {
    child: Child,
    /// A file: a pipe that nobody reads fills, and the server waits.
    log: File,
    pub(crate) first_line: String,
    pub(crate) address: String,
}

impl Server {
    pub(crate) fn start(store: &Path, more: &[&str]) -> Self {
        let mut command = command();
        command.args(["serve", "--store"]).arg(store).args(more);
        if !more.contains(&"--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        let log = tempfile::tempfile().unwrap();
        let mut child = command.stdout(Stdio::piped()).stderr(log.try_clone().unwrap()).spawn().unwrap();
        let mut first_line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut first_line).unwrap();
        let address = first_line.split("://").nth(1).unwrap().split(',').next().unwrap().to_owned();
        Self { child, log, first_line, address }
    }

    pub(crate) fn request(&self, text: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    pub(crate) fn ended(mut self) -> (Option<i32>, String) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "it does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
        let mut log = String::new();
        self.log.rewind().unwrap();
        self.log.read_to_string(&mut log).unwrap();
        (self.child.wait().unwrap().code(), log)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_first_line_says_where_it_listens_and_stores() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("made/by/it");
    let server = Server::start(&store, &[]);
    let shown = store.canonicalize().unwrap();
    let expected =
        format!("fluyt-registry listening on http://{}, storing in file://{}\n", server.address, shown.display());
    assert_eq!(server.first_line, expected);
    let answer = server.request("GET /v2/ HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    server.signal("TERM");
    let (code, log) = take(server).ended();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("http.method=GET url.path=\"/v2/\" http.status=200"), "{log}");
}

/// An upload whose body comes slowly.
fn slow_upload(server: &Server) -> TcpStream {
    let mut stream = TcpStream::connect(&server.address).unwrap();
    let digest = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    let head = format!("POST /v2/a/blobs/uploads/?digest={digest} HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhe");
    stream.write_all(head.as_bytes()).unwrap();
    // Until the server has read it, it does not run.
    std::thread::sleep(Duration::from_millis(300));
    stream
}

#[test]
fn it_finishes_what_runs_and_takes_no_more() {
    for signal in ["TERM", "INT"] {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::start(folder.path(), &["--no-sync"]);
        let mut stream = slow_upload(&server);
        server.signal(signal);
        std::thread::sleep(Duration::from_millis(300));
        assert!(TcpStream::connect(&server.address).is_err());
        stream.write_all(b"llo").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
        let (code, log) = take(server).ended();
        assert_eq!(code, Some(0), "{log}");
    }
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &[]);
    let _stream = slow_upload(&server);
    server.signal("TERM");
    std::thread::sleep(Duration::from_millis(300));
    server.signal("TERM");
    let (code, log) = take(server).ended();
    assert_eq!(code, Some(130), "{log}");
}

#[test]
fn stopping_it_is_not_ready_and_waits_as_long_as_it_was_told() {
    let folder = tempfile::tempdir().unwrap();
    let watch = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let more = ["--no-sync", "--drain-seconds", "2", "--metrics-listen", &watch];
    let mut server = Server::start(folder.path(), &more);
    let readiness = |address: &str| {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.get(9..12).unwrap_or_default().to_owned()
    };
    assert_eq!((readiness(&watch), readiness(&server.address)), ("200".into(), "200".into()));
    let _stream = slow_upload(&server);
    server.signal("TERM");
    let began = Instant::now();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(readiness(&watch), "503");
    server = take(server);
    let (code, log) = server.ended();
    assert!((2..15).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    assert!(code == Some(0) && log.contains("cut off"), "{log}");
    let ready = log.lines().find(|line| line.contains("/readyz")).unwrap();
    assert!(!ready.contains("cut=true"), "{ready}");
}

pub(crate) fn take(mut server: Server) -> Server {
    let child = std::mem::replace(&mut server.child, Command::new("true").spawn().unwrap());
    Server { child, log: server.log.try_clone().unwrap(), first_line: String::new(), address: String::new() }
}

pub(crate) fn refused(arguments: &[&str]) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } = command().args(arguments).output().unwrap();
    assert_eq!(String::from_utf8(stdout).unwrap(), "");
    (status.code(), String::from_utf8(stderr).unwrap())
}

/// The value of a header of an answer.
fn header<'a>(answer: &'a str, name: &str) -> &'a str {
    let line = answer.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    line.unwrap_or_else(|| panic!("no {name} in {answer}"))
}

#[test]
fn a_registry_is_open_to_everybody_only_where_that_is_meant() {
    let folder = tempfile::tempdir().unwrap();
    let mut mistyped = command();
    mistyped
        .env("FLUYT_REGISTRY_HTPASWD", "x")
        .args(["serve", "--listen", "127.0.0.1:0", "--store"])
        .arg(folder.path());
    let Output { status, stderr, .. } = mistyped.output().unwrap();
    let expected = "error: the variable FLUYT_REGISTRY_HTPASWD is no setting: did you mean FLUYT_REGISTRY_HTPASSWD?\n";
    assert_eq!((status.code(), String::from_utf8(stderr).unwrap().as_str()), (Some(2), expected));
    for (address, open) in [("0.0.0.0:0", true), ("127.0.0.1:0", false)] {
        let server = Server::start(folder.path(), &["--listen", address]);
        server.signal("TERM");
        let (_, log) = take(server).ended();
        assert_eq!(log.matches("may pull, push and delete: --htpasswd").count(), usize::from(open), "{log}");
    }
}

#[test]
fn what_was_acknowledged_survives_a_kill_and_what_was_begun_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &[]);
    let send = |server: &Server, line: &str, body: &str| {
        let length = body.len();
        server.request(&format!(
            "{line} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
        ))
    };
    let digest = |text: &str| {
        use fluyt_registry::spec::{Algorithm, Digest};
        Digest::of(Algorithm::Sha256, text.as_bytes())
    };
    let kept = digest("kept");
    let answer = send(&server, &format!("POST /v2/a/blobs/uploads/?digest={kept}"), "kept");
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    let long = "x".repeat(5 * 1024 * 1024);
    let mut begun = Vec::new();
    for body in ["short", &long] {
        let answer = send(&server, "POST /v2/a/blobs/uploads/", "");
        let patched = send(&server, &format!("PATCH {}", header(&answer, "location")), body);
        begun.push((body, header(&patched, "location").to_owned()));
    }
    server.signal("KILL");
    assert_eq!(take(server).ended().0, None);

    let server = Server::start(folder.path(), &[]);
    let answer = send(&server, &format!("GET /v2/a/blobs/{kept}"), "");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\nkept"), "{answer}");
    for (body, location) in begun {
        let whole = format!("{body} and more");
        let answer = send(&server, &format!("PUT {location}&digest={}", digest(&whole)), " and more");
        assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    }
}

#[test]
fn a_folder_in_use_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &[]);
    let path = folder.path().to_str().unwrap();
    let (code, message) = refused(&["serve", "--listen", "127.0.0.1:0", "--store", path]);
    assert_eq!(code, Some(1));
    let expected = format!("is in use by another fluyt-registry (process {})", server.child.id());
    assert!(message.starts_with("error: ") && message.contains(&expected), "{message}");
}

/// A place that may not be written is another one's choice away; a full disk is not.
#[test]
fn a_folder_that_may_not_be_written_is_the_callers_to_mend() {
    let serve = |path: &str| {
        let (code, message) = refused(&["serve", "--listen", "127.0.0.1:0", "--store", path]);
        assert!(message.starts_with(&format!("error: cannot use the folder `{path}` as a store: ")), "{message}");
        (code, message)
    };
    for path in ["/proc/here", "/dev/null", "/dev/null/here"] {
        let (code, message) = serve(path);
        assert_eq!(code, Some(1), "{message}");
    }
    let Some(disk) = SmallDisk::mount(SmallDisk::FEW_INODES) else { return };
    disk.use_up_inodes();
    let (code, message) = serve(disk.path().join("store").to_str().unwrap());
    assert_eq!(code, Some(3), "{message}");
}

#[test]
fn the_manual_page_has_every_command() {
    let output = command().arg("man").output().unwrap();
    let page = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(page.contains(".TH fluyt-registry 1"), "{page}");
    for name in ["serve", "check\\-store", "explain", "delete\\-repository", "man"] {
        assert!(page.contains(&format!("fluyt\\-registry\\-{name}(1)")), "{name}: {page}");
    }
}

#[test]
fn a_port_in_use_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&folder.path().join("one"), &[]);
    let other = folder.path().join("two");
    let (code, message) = refused(&["serve", "--listen", &server.address, "--store", other.to_str().unwrap()]);
    assert_eq!(code, Some(1));
    assert!(message.contains("another program has it, choose another with --listen"), "{message}");
}

#[test]
fn a_newer_store_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let layout = r#"{"layout":9,"read":7,"write":8,"collect":9}"#;
    std::fs::write(folder.path().join("store.json.9.abc@"), layout).unwrap();
    let path = folder.path().to_str().unwrap();
    let (code, message) = refused(&["serve", "--listen", "127.0.0.1:0", "--store", path]);
    assert_eq!(code, Some(1));
    assert_eq!(
        message,
        "error: the store has layout 9, which needs layout 8 to be understood; this version understands layout 1: use a newer fluyt-registry, or another store\n"
    );
    std::fs::write(folder.path().join("store.json.9.abc@"), "not json").unwrap();
    let (code, message) = refused(&["serve", "--listen", "127.0.0.1:0", "--store", path]);
    assert_eq!(code, Some(1));
    assert!(message.contains("the store's `store.json.9.abc` is damaged"), "{message}");
}

#[test]
fn wrong_usage() {
    for (arguments, expected) in [
        (&["serve", "--store", "s3://Bucket/x"][..], "`Bucket` is not the name of a bucket"),
        (&["serve", "--listen", "nowhere"], "invalid value 'nowhere' for '--listen <ADDRESS:PORT>'"),
        (&["serve", "--redirect", "sometimes"], "invalid value 'sometimes' for '--redirect <WHEN>'"),
        (&["sevre"], "unrecognized subcommand 'sevre'"),
        (&[], "Usage:"),
    ] {
        let (code, message) = refused(arguments);
        assert_eq!(code, Some(2), "{arguments:?}");
        assert!(message.contains(expected), "{message}");
    }
    // It asks for nothing that the environment gives.
    let output = command().arg("history").env("FLUYT_REGISTRY_STORE", "memory:").output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("Usage: fluyt-registry history [OPTIONS] <REPO:TAG>\n"), "{message}");
}
