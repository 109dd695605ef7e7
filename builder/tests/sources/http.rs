//! `ADD URL`, contexts and Dockerfiles over HTTP.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::place::{Place, compressed, tar_of};
use super::server::{Reply, Server};

const MODIFIED: &str = "Sun, 13 Sep 2020 12:26:40 GMT";

#[test]
fn a_file_has_the_mode_time_and_names_of_the_reference() {
    let server = Server::start(|asked| Reply::new(200, asked.target.clone()).header("Last-Modified", MODIFIED));
    let place = Place::new();
    let dockerfile = "FROM scratch\n\
        ADD U/a/file /exact\n\
        ADD U/a/b%20c?x=y/z /folder/\n\
        ADD U/ /folder/\n\
        ADD --chmod=755 --chown=7:8 U/x /set/\n\
        ADD U/1 U/2 U/ /several/\n";
    place.write("context/Dockerfile", dockerfile.replace('U', &server.url("")));
    let built = place.build(&["context"]);
    assert_eq!(
        built.files,
        [
            "f 600 0:0 /exact /a/file",
            "d 755 0:0 /folder",
            "f 600 0:0 /folder/__unnamed__ /",
            "f 600 0:0 /folder/b c /a/b%20c?x=y/z",
            "d 755 7:8 /set",
            "f 755 7:8 /set/x /x",
            "d 755 0:0 /several",
            "f 600 0:0 /several/1 /1",
            "f 600 0:0 /several/2 /2",
            "f 600 0:0 /several/__unnamed__ /",
        ]
    );
    let tar = std::fs::read(place.path("result.tar")).unwrap();
    let mut archive = tar::Archive::new(&tar[..]);
    let time = archive.entries().unwrap().flatten().find(|entry| entry.path().unwrap().ends_with("exact")).unwrap();
    assert_eq!(time.header().mtime().unwrap(), 1_600_000_000);
}

#[test]
fn a_file_is_asked_for_in_each_build_and_brought_when_it_changed() {
    let version = Arc::new(AtomicUsize::new(1));
    let served = Arc::clone(&version);
    let server = Server::start(move |asked| {
        let tag = format!("\"{}\"", served.load(Ordering::SeqCst));
        match asked.header("if-none-match") {
            Some(known) if known == tag => Reply::new(304, ""),
            _ => Reply::new(200, format!("content {tag}")).header("ETag", &tag),
        }
    });
    let place = Place::new();
    place.write(
        "context/Dockerfile",
        format!("FROM scratch\nADD {} /\nADD {} /again\n", server.url("/f"), server.url("/f")),
    );
    let first = place.build(&["context"]);
    assert_eq!(first.files[0], "f 600 0:0 /again content \"1\"");
    assert_eq!(server.asked().len(), 1, "two instructions ask once");
    let second = place.build(&["context"]);
    assert_eq!(second.files, first.files);
    assert!(second.found("ADD"), "{}", second.said);
    let asked = server.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].header("if-none-match"), Some("\"1\""));
    version.store(2, Ordering::SeqCst);
    let changed = place.build(&["context"]);
    assert_eq!(changed.files[0], "f 600 0:0 /again content \"2\"");
    assert!(!changed.found("ADD"), "{}", changed.said);
    // Back to what was: the steps are found, as their keys are made of the content.
    version.store(1, Ordering::SeqCst);
    let back = place.build(&["context"]);
    assert_eq!(back.files, first.files);
    assert!(back.found("ADD"), "{}", back.said);
}

/// As the servers of Python and Go have it, what is not newer than a time is "not modified" since: also what was put back.
#[test]
fn a_time_says_nothing_of_a_file_that_was_put_back() {
    let is_back = Arc::new(AtomicUsize::new(0));
    let back = Arc::clone(&is_back);
    let server = Server::start(move |asked| {
        let (content, modified) = match back.load(Ordering::SeqCst) {
            0 => ("v2", "Wed, 01 May 2024 12:00:00 GMT"),
            _ => ("v1", "Mon, 01 Jan 2024 12:00:00 GMT"),
        };
        match asked.header("if-modified-since") {
            Some(_) => Reply::new(304, ""),
            None => Reply::new(200, content)
                .header("Last-Modified", modified)
                .header("Date", "Sat, 01 Jun 2024 12:00:00 GMT"),
        }
    });
    let place = Place::new();
    place.write("context/Dockerfile", format!("FROM scratch\nADD {} /\n", server.url("/f")));
    assert_eq!(place.build(&["context"]).files, ["f 600 0:0 /f v2"]);
    is_back.store(1, Ordering::SeqCst);
    assert_eq!(place.build(&["context"]).files, ["f 600 0:0 /f v1"]);
}

/// A tag that stays although the file changed is the server's word, which `--no-cache` does not ask for and a checksum overrules.
#[test]
fn a_tag_is_not_asked_by_where_it_cannot_be_true() {
    let count = Arc::new(AtomicUsize::new(0));
    let sent = Arc::clone(&count);
    let server = Server::start(move |asked| match asked.header("if-none-match") {
        Some(_) => Reply::new(304, ""),
        None => Reply::new(200, format!("{}", sent.fetch_add(1, Ordering::SeqCst))).header("ETag", "\"one\""),
    });
    let place = Place::new();
    place.write("context/Dockerfile", format!("FROM scratch\nADD {} /\n", server.url("/f")));
    assert_eq!(place.build(&["context"]).files, ["f 600 0:0 /f 0"]);
    assert_eq!(place.build(&["context"]).files, ["f 600 0:0 /f 0"]);
    assert_eq!(place.build(&["--no-cache", "context"]).files, ["f 600 0:0 /f 1"]);
    // Of `2`, which the server sends next.
    let checksum = "sha256:d4735e3a265e16eee03f59718b9b5d03019c07d8b6c51f90da3a666eec13ab35";
    place.write("context/Dockerfile", format!("FROM scratch\nADD --checksum={checksum} {} /\n", server.url("/f")));
    assert_eq!(place.build(&["context"]).files, ["f 600 0:0 /f 2"]);
}

#[test]
fn a_checksum_is_kept_and_asks_nobody_when_the_file_is_there() {
    let server = Server::start(|_| Reply::new(200, "hello\n"));
    let place = Place::new();
    let sha256 = "sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
    let sha512 = "sha512:e7c22b994c59d9cf2b48e549b1e24666636045930d3da7c1acb299d1c3b7f931f94aae41edda2c2b207a36e10f8bcb8\
                  d45223e54878f5b316e7ce3b6bc019629";
    let write = |checksum: &str| {
        place.write("context/Dockerfile", format!("FROM scratch\nADD --checksum={checksum} {} /\n", server.url("/f")));
    };
    write(sha256);
    assert_eq!(place.build(&["context"]).files, ["f 600 0:0 /f hello"]);
    assert_eq!(server.asked().len(), 1);
    place.build(&["context"]);
    assert_eq!(server.asked().len(), 0);
    write(sha512);
    place.build(&["context"]);
    for (checksum, code, expected) in [
        (sha256.replace("589", "689"), 1, "is not what `--checksum` says: expected sha256:689"),
        (sha512.replace("e7c", "f7c"), 1, "is not what `--checksum` says: expected sha512:f7c"),
        ("sha256:12".to_owned(), 1, "is no digest"),
    ] {
        write(&checksum);
        let said = place.fail(code, &["context"], None);
        assert!(said.contains(expected), "{said}");
    }
    place.write("context/Dockerfile", format!("FROM scratch\nADD --checksum={sha256} {0} {0} /\n", server.url("/f")));
    let said = place.fail(1, &["context"], None);
    assert!(said.contains("`--checksum` is for a single source"), "{said}");
}

#[test]
fn archives_are_unpacked_when_asked_for() {
    let tar = compressed("xz", &tar_of(&[("d/a", 0o640, 5, "x")]));
    let server = Server::start(move |_| Reply::new(200, tar.clone()));
    let place = Place::new();
    let url = server.url("/a.txz");
    place.write("context/Dockerfile", format!("FROM scratch\nADD --unpack=true {url} /t/\nADD {url} /packed\n"));
    let built = place.build(&["context"]);
    let lines: Vec<&str> = built.files.iter().map(|line| line.split(" /packed").next().unwrap()).collect();
    assert_eq!(lines, ["f 600 0:0", "d 755 0:0 /t", "d 755 0:0 /t/d", "f 640 5:5 /t/d/a x"]);
}

#[test]
fn a_cut_body_is_no_file() {
    let count = AtomicUsize::new(0);
    let server = Server::start(move |asked| {
        let mut reply = Reply::new(200, "whole content");
        if asked.target == "/once" && count.fetch_add(1, Ordering::SeqCst) > 0 {
            return reply;
        }
        reply.cut_after = Some(5);
        reply
    });
    let place = Place::new();
    place.write("context/Dockerfile", format!("FROM scratch\nADD {} /\n", server.url("/once")));
    assert_eq!(place.build(&["context"]).files, ["f 600 0:0 /once whole content"]);
    place.write("context/Dockerfile", format!("FROM scratch\n\nADD {} /\n", server.url("/always")));
    let said = place.fail(3, &["--retry", "2", "context"], None);
    assert!(said.contains("cannot fetch ") && said.contains("/always (Dockerfile:3)"), "{said}");
    assert!(said.contains("caused by: the connection to "), "{said}");
}

#[test]
fn redirects_are_followed_and_secrets_stay_with_their_host() {
    let target = Server::start(|asked| Reply::new(200, asked.header("authorization").unwrap_or("nothing").to_owned()));
    let elsewhere = target.url("/file");
    let server = Server::start(move |asked| match asked.target.as_str() {
        "/own" => Reply::new(307, "").header("Location", "/file"),
        "/far" => Reply::new(302, "").header("Location", &elsewhere),
        "/round" => Reply::new(302, "").header("Location", "/round"),
        _ => Reply::new(200, asked.header("authorization").unwrap_or("nothing").to_owned()),
    });
    let place = Place::new();
    place.write("context/Dockerfile", format!("FROM scratch\nADD {0}/own {0}/far /\n", server.url("")));
    place.write("token", "abc\n");
    let secret = ["--secret", "id=HTTP_AUTH_TOKEN_127.0.0.1,src=token"];
    let built = place.build(&[&secret[..], &["context"]].concat());
    assert_eq!(built.files, ["f 600 0:0 /far nothing", "f 600 0:0 /own Bearer abc"]);
    let header = ["--secret", "id=HTTP_AUTH_HEADER_127.0.0.1,env=AUTH"];
    place.write("context/Dockerfile", format!("FROM scratch\nADD {0}/own /\n", server.url("")));
    let mut command = place.command(&[&header[..], &["-o", "type=tar,dest=result.tar", "context"]].concat());
    assert!(command.env("AUTH", "Basic xyz").output().unwrap().status.success());
    let files = super::place::listing(&std::fs::read(place.path("result.tar")).unwrap());
    assert_eq!(files, ["f 600 0:0 /own Basic xyz"]);
    place.write("context/Dockerfile", format!("FROM scratch\nADD {0}/round /\n", server.url("")));
    let said = place.fail(1, &["context"], None);
    assert!(said.contains("it redirects more than 8 times"), "{said}");
}

#[test]
fn what_a_server_refuses_is_the_users_and_what_is_away_the_environments() {
    let server = Server::start(|asked| match asked.target.as_str() {
        "/absent" => Reply::new(404, "no"),
        "/empty" => Reply::new(204, ""),
        _ => Reply::new(200, "x"),
    });
    let place = Place::new();
    for (path, status) in [("/absent", 404), ("/empty", 204)] {
        place.write("context/Dockerfile", format!("FROM scratch\nADD {} /\n", server.url(path)));
        let said = place.fail(1, &["context"], None);
        assert!(said.contains(&format!("answers with status {status} to the request for")), "{said}");
    }
    place.write("context/Dockerfile", "FROM scratch\nADD http://127.0.0.1:9/x /\n");
    let said = place.fail(3, &["context"], None);
    assert!(said.contains("cannot connect to `127.0.0.1:9`"), "{said}");
}

#[test]
fn a_server_that_is_gone_leaves_what_was_fetched_unless_it_must_be_asked() {
    let is_gone = Arc::new(AtomicUsize::new(0));
    let gone = Arc::clone(&is_gone);
    let server = Server::start(move |_| match gone.load(Ordering::SeqCst) {
        0 => Reply::new(200, "x"),
        _ => Reply::new(501, "out of order").header("Retry-After", "900"),
    });
    let place = Place::new();
    place.write("context/Dockerfile", format!("FROM scratch\nADD {} /f\n", server.url("/f")));
    place.build(&["context"]);
    is_gone.store(1, Ordering::SeqCst);
    // "Not implemented" is an answer.
    let said = place.fail(1, &["context"], None);
    assert!(said.contains("answers with status 501"), "{said}");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let once = std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 4096]);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx").unwrap();
    });
    place.write("context/Dockerfile", format!("FROM scratch\nADD http://{address}/f /f\n"));
    place.build(&["context"]);
    once.join().unwrap();
    let built = place.build(&["context"]);
    assert_eq!(built.files, ["f 600 0:0 /f x"]);
    assert!(built.said.contains("is taken as it was last fetched"), "{}", built.said);
    let said = place.fail(3, &["--pull", "context"], None);
    assert!(said.contains("cannot connect"), "{said}");
}

/// What the user names is meant as it is today: the context, and a Dockerfile by `-f`.
#[test]
fn a_server_of_the_context_that_is_gone_is_an_error() {
    let is_gone = Arc::new(AtomicUsize::new(0));
    let gone = Arc::clone(&is_gone);
    let server = Server::start(move |_| match gone.load(Ordering::SeqCst) {
        0 => Reply::new(200, "FROM scratch\nCOPY . /\n"),
        _ => Reply::new(503, "out of order"),
    });
    let place = Place::new();
    place.write("context/a", "x");
    let (url, file) = (server.url("/context"), server.url("/Dockerfile"));
    place.build(&[&url]);
    place.build(&["-f", &file, "context"]);
    is_gone.store(1, Ordering::SeqCst);
    for arguments in [&[&*url][..], &["-f", &file, "context"]] {
        let said = place.fail(3, &[&["--retry", "0"], arguments].concat(), None);
        assert!(said.contains("answers with status 503"), "{said}");
    }
}

#[test]
fn a_context_is_an_archive_or_a_dockerfile() {
    let tar = compressed(
        "gzip",
        &tar_of(&[
            ("Dockerfile", 0o644, 0, "FROM scratch\nCOPY a /\n"),
            (".dockerignore", 0o644, 0, "a\n"),
            ("other", 0o644, 0, "FROM scratch\nCOPY a /other\n"),
            ("a", 0o640, 7, "x"),
        ]),
    );
    let server = Server::start(move |asked| match asked.target.as_str() {
        "/context.tgz" => Reply::new(200, tar.clone()),
        "/elsewhere" => Reply::new(200, "FROM scratch\nCOPY a /elsewhere\n"),
        _ => Reply::new(200, "FROM scratch\nCOPY context /itself\n"),
    });
    let place = Place::new();
    let archive = server.url("/context.tgz");
    assert_eq!(place.build(&[&archive]).files, ["f 640 7:7 /a x"]);
    assert_eq!(place.build(&["-f", "other", &archive]).files, ["f 640 7:7 /other x"]);
    let built = place.build_with(&["-f", "-", &archive], Some(b"FROM scratch\nCOPY a /stdin\n"));
    assert_eq!(built.files, ["f 640 7:7 /stdin x"]);
    assert_eq!(place.build(&["-f", &server.url("/elsewhere"), &archive]).files, ["f 640 7:7 /elsewhere x"]);
    let built = place.build(&[&server.url("/Dockerfile")]);
    assert_eq!(built.files, ["f 600 0:0 /itself FROM scratch\nCOPY context /itself"]);
    place.write("context/a", "y");
    let built = place.build(&["-f", &server.url("/elsewhere"), "context"]);
    assert_eq!(built.files, ["f 644 0:0 /elsewhere y"]);
}

#[test]
fn a_named_context_is_a_single_file() {
    let server = Server::start(|_| Reply::new(200, "x"));
    let place = Place::new();
    place.write("context/Dockerfile", "FROM base\nCOPY --from=base /context /copy\n");
    let built = place.build(&["--build-context", &format!("base={}", server.url("/f")), "context"]);
    assert_eq!(built.files, ["f 600 0:0 /context x", "f 600 0:0 /copy x"]);
}

#[test]
fn what_comes_in_gzip_unasked_is_what_it_holds() {
    let packed = compressed("gzip", b"text");
    let server = Server::start(move |asked| match asked.target.as_str() {
        "/gzip" => Reply::new(200, packed.clone()).header("Content-Encoding", "gzip"),
        _ => Reply::new(200, "text").header("Content-Encoding", "br"),
    });
    let place = Place::new();
    place.write("context/Dockerfile", format!("FROM scratch\nADD {} /\n", server.url("/gzip")));
    assert_eq!(place.build(&["context"]).files, ["f 600 0:0 /gzip text"]);
    place.write("context/Dockerfile", format!("FROM scratch\nADD {} /\n", server.url("/br")));
    let said = place.fail(1, &["context"], None);
    assert!(said.contains("the server sends the file as `br`"), "{said}");
}

#[test]
fn what_an_address_cannot_have_is_told() {
    let place = Place::new();
    for (line, expected) in [
        ("COPY http://h/x /", "`COPY` cannot take the URL `http://h/x`"),
        ("ADD --keep-git-dir=true http://h/x /", "`--keep-git-dir` is for a git repository"),
        ("ADD --checksum=sha256:0 file /", "`--checksum` is for a URL or a git repository"),
        ("ADD --checksum=sha256:0 http://h/x file /d/", "`--checksum` is for a single source"),
    ] {
        place.write("context/Dockerfile", format!("FROM scratch\n{line}\n"));
        let said = place.fail(1, &["context"], None);
        assert!(said.contains(expected), "{line}: {said}");
    }
}

#[test]
fn addresses_files_archives_and_heredocs_go_in_one_instruction() {
    let server = Server::start(|_| Reply::new(200, "far"));
    let place = Place::new();
    place.write("context/d/near", "near");
    place.write("context/d/left", "out");
    place.write("context/t.tar", tar_of(&[("packed", 0o640, 5, "p")]));
    let dockerfile = "FROM scratch\nADD --chown=7 --exclude=left U/far d t.tar <<here /all/\nx\nhere\n";
    place.write("context/Dockerfile", dockerfile.replace('U', &server.url("")));
    assert_eq!(
        place.build(&["context"]).files,
        [
            "d 755 7:7 /all",
            "f 600 7:7 /all/far far",
            "f 644 7:7 /all/here x",
            "f 644 7:7 /all/near near",
            "f 640 7:7 /all/packed p",
        ]
    );
    place.write("context/Dockerfile", format!("FROM scratch\nADD {} <<here /all/\nx\nhere\n", server.url("/far")));
    assert_eq!(place.build(&["context"]).files.len(), 3);
}

#[test]
fn an_interrupt_ends_a_transfer_that_takes_long() {
    let server = Server::start(|_| {
        std::thread::sleep(std::time::Duration::from_secs(30));
        Reply::new(200, "late")
    });
    let place = Place::new();
    place.write("context/Dockerfile", format!("FROM scratch\nADD {} /\n", server.url("/f")));
    let began = std::time::Instant::now();
    let mut child = place.command(&["context"]).stderr(std::process::Stdio::null()).spawn().unwrap();
    while server.asked().is_empty() {
        assert!(began.elapsed().as_secs() < 20, "nobody asks");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let id = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(began.elapsed().as_secs() < 25, "{:?}", began.elapsed());
}

#[test]
fn the_proxy_of_the_environment_is_asked() {
    let proxy = Server::start(|asked| Reply::new(200, asked.target.clone()));
    let place = Place::new();
    place.write("context/Dockerfile", "FROM scratch\nADD http://far.example/f /\n");
    let mut command = place.command(&["-o", "type=tar,dest=result.tar", "context"]);
    let output = command.env("http_proxy", proxy.url("")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let files = super::place::listing(&std::fs::read(place.path("result.tar")).unwrap());
    assert_eq!(files, ["f 600 0:0 /f http://far.example/f"]);
}
