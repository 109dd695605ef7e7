//! `fluyt login` and `fluyt logout` where a variable has credentials already.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

/// A registry that lets everybody in; its host.
fn registry() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming().map(Result::unwrap) {
            let head = BufReader::new(&stream).lines().map_while(Result::ok);
            head.take_while(|line| !line.is_empty()).for_each(drop);
            let _ = (&stream).write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}");
        }
    });
    host
}

/// What is said on standard error.
fn said(home: &Path, variable: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fluyt"));
    command.env_clear().env("HOME", home).env("DOCKER_AUTH_CONFIG", variable).args(arguments).stdin(Stdio::null());
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    said
}

#[test]
fn a_variable_that_goes_before_what_is_stored_is_told() {
    let home = tempfile::tempdir().unwrap();
    let host = registry();
    let variable = format!(r#"{{"auths":{{"{host}":{{"auth":"YW5uOng="}}}}}}"#);
    let warning =
        format!("warning: the variable DOCKER_AUTH_CONFIG has credentials for {host}, which go before those stored\n");
    let file = home.path().join("auth.json");
    let file = file.to_str().unwrap();
    for typed in [&["login", "--insecure-registry", &host, "-u", "ann", "-p", "y", &host][..], &["logout", &host]] {
        let told = said(home.path(), &variable, typed);
        assert!(told.ends_with(&warning), "{told}");
        for (variable, more) in [("", &[][..]), (&*variable, &["--authfile", file])] {
            let told = said(home.path(), variable, &[typed, more].concat());
            assert!(!told.contains("DOCKER_AUTH_CONFIG"), "{told}");
        }
    }
}
