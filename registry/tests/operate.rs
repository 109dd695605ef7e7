//! Operators' commands as they are typed, beside a server that holds the folder and without one.

use std::path::Path;
use std::process::Output;

use crate::app::{digest, image};
use crate::binary::{Server, command};

/// Runs a command on the folder; its exit code, stdout and stderr.
fn run(store: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } =
        command().args(arguments).arg("--store").arg(store).stdin(std::process::Stdio::null()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

fn send(server: &Server, line: &str, content_type: &str, body: &str) -> String {
    let length = body.len();
    server.request(&format!(
        "{line} HTTP/1.1\r\nhost: x\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    ))
}

/// Pushes an image that differs by `mark`; its digest.
fn push(server: &Server, repo: &str, tag: &str, mark: &str) -> String {
    for blob in ["{}", "layer"] {
        let answer = send(server, &format!("POST /v2/{repo}/blobs/uploads/?digest={}", digest(blob)), "x/y", blob);
        assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    }
    let manifest = image(&[b"{}", b"layer"], &format!(r#","annotations":{{"mark":"{mark}"}}"#));
    let line = format!("PUT /v2/{repo}/manifests/{tag}");
    let answer = send(server, &line, "application/vnd.oci.image.manifest.v1+json", &manifest);
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    digest(manifest).to_string()
}

fn status(server: &Server, line: &str) -> String {
    let answer = send(server, line, "x/y", "");
    answer.split(' ').nth(1).unwrap().to_owned()
}

#[test]
fn looking_makes_no_folder_and_leaves_nothing_in_one() {
    let folder = tempfile::tempdir().unwrap();
    let absent = folder.path().join("absent");
    for arguments in [&["history", "a:v1"][..], &["fsck"]] {
        let (code, _, stderr) = run(&absent, arguments);
        assert!(code == Some(1) && stderr.contains("there is no folder") && stderr.contains("--store"), "{stderr}");
    }
    let check = |path: &Path| command().arg("check-store").arg(path).output().unwrap();
    let output = check(&absent);
    assert_eq!(output.status.code(), Some(1));
    assert!(!absent.exists());
    std::fs::create_dir(&absent).unwrap();
    let output = check(&absent);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
    assert_eq!(std::fs::read_dir(&absent).unwrap().count(), 0);
}

#[test]
fn a_history_is_read_beside_a_server_and_without_one() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &["--no-sync"]);
    let first = push(&server, "team/app", "v1", "one");
    let second = push(&server, "team/app", "v1", "two");
    let beside = run(folder.path(), &["history", "team/app:v1"]);
    let as_json = run(folder.path(), &["history", "team/app:v1", "--json"]);
    drop(server);
    assert_eq!(run(folder.path(), &["history", "team/app:v1"]), beside);
    let (code, stdout, stderr) = beside;
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    let lines: Vec<&str> = stdout.lines().collect();
    assert!(lines[0].starts_with("id  written"), "{stdout}");
    assert!(
        lines[1].starts_with("2 ") && lines[1].contains(&second[..19]) && lines[1].ends_with("current"),
        "{stdout}"
    );
    assert!(lines[2].starts_with("1 ") && lines[2].contains(&first[..19]) && lines[2].ends_with("then 2"), "{stdout}");
    let json: serde_json::Value = serde_json::from_str(&as_json.1).unwrap();
    assert_eq!(json["values"][1]["digest"], first);
    assert_eq!(json["values"][1]["ended"]["by_value"], "2");

    let (code, stdout, stderr) = run(folder.path(), &["history", "team/ap:v1"]);
    assert_eq!((code, stdout.as_str()), (Some(1), ""));
    assert!(stderr.contains("did you mean team/app?"), "{stderr}");
    assert_eq!(run(folder.path(), &["history", "team/app"]).0, Some(2));
    let empty = tempfile::tempdir().unwrap();
    let (code, _, stderr) = run(empty.path(), &["history", "a:b"]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("holds no store"), "{stderr}");
    assert_eq!(std::fs::read_dir(empty.path()).unwrap().count(), 0);
}

#[test]
fn what_ended_a_manifest_is_told_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &["--no-sync"]);
    let digest = push(&server, "a", "v1", "one");
    assert_eq!(status(&server, &format!("DELETE /v2/a/manifests/{digest}")), "202");
    let log = |name: &str, key: &str, why: &str| {
        let log = format!(
            r#"{{"run":"r","time":"2026-02-01T00:00:00Z","removed":[{{"key":"{key}","digest":"{digest}","repo":"a","why":"{why}","size_bytes":1}}]}}"#
        );
        std::fs::create_dir_all(folder.path().join("gc/log")).unwrap();
        std::fs::write(folder.path().join(format!("gc/log/{name}@")), log).unwrap();
    };
    let entry = format!("0000000000000001.aaaaaaaaaaaaaaaaaaaaaaaa.sha256.{}.aaaaaaaaaaaaaaaaaaaaaaaa", &digest[7..]);
    log("one", &format!("repos/a/_history/v1/{entry}"), "out-of-window");
    log("two", "something/else", "of-a-later-version");
    let (code, stdout, stderr) = run(folder.path(), &["explain", &format!("a@{digest}")]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    let lines: Vec<&str> = stdout.lines().collect();
    assert_eq!(lines[0], format!("a has neither a manifest nor a blob {digest}"));
    let removed = "the entry in the history of tag v1 of a was removed by the collector 2026-02-01T00:00:00Z: ";
    assert!(lines[1].starts_with(removed) && lines[1].ends_with("names nothing any more"), "{stdout}");
    assert_eq!(lines[2], "`something/else` of a: of-a-later-version 2026-02-01T00:00:00Z");
    assert!(lines[3].starts_with("the manifest of a was deleted 20"), "{stdout}");
    assert_eq!(lines.len(), 4, "{stdout}");
}

#[test]
fn a_repository_is_emptied_by_whoever_holds_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &["--no-sync"]);
    let first = push(&server, "a", "v1", "one");
    push(&server, "a", "v2", "two");
    push(&server, "b", "v1", "one");
    let (code, stdout, stderr) = run(folder.path(), &["delete-repository", "a"]);
    assert_eq!((code, stdout.as_str()), (Some(2), ""));
    assert!(stderr.contains("say that it is meant with --yes"), "{stderr}");
    assert_eq!(status(&server, "GET /v2/a/manifests/v1"), "200");
    let (code, stdout, stderr) = run(folder.path(), &["delete-repository", "a", "--yes"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(stdout, "a: ended 2 tags, removed 2 manifests, unlinked 2 blobs\n");
    for gone in ["manifests/v1".to_owned(), format!("manifests/{first}"), format!("blobs/{}", digest("layer"))] {
        assert_eq!(status(&server, &format!("GET /v2/a/{gone}")), "404", "{gone}");
    }
    assert_eq!(status(&server, "GET /v2/b/manifests/v1"), "200");
    assert_eq!(status(&server, &format!("GET /v2/b/blobs/{}", digest("layer"))), "200");
    // Once more, and it is pushed to again.
    let again = run(folder.path(), &["delete-repository", "a", "--yes", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&again.1).unwrap();
    assert_eq!((json["tags"].as_u64(), json["manifests"].as_u64()), (Some(0), Some(0)));
    push(&server, "a", "v1", "one");
    assert_eq!(status(&server, "GET /v2/a/manifests/v1"), "200");
    drop(server);
    let (code, stdout, _) = run(folder.path(), &["delete-repository", "b", "--yes"]);
    assert_eq!((code, stdout.as_str()), (Some(0), "b: ended 1 tags, removed 1 manifests, unlinked 2 blobs\n"));
    let server = Server::start(folder.path(), &["--no-sync"]);
    assert_eq!(status(&server, "GET /v2/b/manifests/v1"), "404");
    assert_eq!(status(&server, "GET /v2/a/manifests/v1"), "200");
}

#[test]
fn undo_is_done_by_whoever_holds_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &["--no-sync"]);
    let first = push(&server, "a", "t", "one");
    let second = push(&server, "a", "t", "two");
    let named = |server: &Server| {
        let answer = send(server, "HEAD /v2/a/manifests/t", "x/y", "");
        answer.split("docker-content-digest: ").nth(1).map(|rest| rest.lines().next().unwrap().to_owned())
    };
    let (code, stdout, stderr) = run(folder.path(), &["undo", "a:t"]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert_eq!(stdout, format!("a:t is {first} again (value 1; before: {second})\n"));
    assert_eq!(named(&server).as_deref(), Some(first.as_str()));
    let (code, stdout, stderr) = run(folder.path(), &["undo", "a:t", "--to", "7"]);
    assert_eq!((code, stdout.as_str()), (Some(1), ""));
    assert!(stderr.starts_with("error: a:t never had a value `7`"), "{stderr}");
    drop(server);

    let (code, stdout, _) = run(folder.path(), &["undo", "a:t", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, json["digest"].as_str()), (Some(0), Some(second.as_str())));
    let server = Server::start(folder.path(), &["--no-sync"]);
    assert_eq!(named(&server).as_deref(), Some(second.as_str()));
    let (_, stdout, _) = run(folder.path(), &["history", "a:t"]);
    assert!(stdout.lines().nth(1).unwrap().contains("operator"), "{stdout}");
}

#[test]
fn a_check_is_made_beside_a_server_and_a_repair_by_it() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &["--no-sync"]);
    push(&server, "a", "t", "one");
    let (code, stdout, stderr) = run(folder.path(), &["fsck", "--rehash"]);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    assert!(
        stdout.starts_with("looked at 1 repositories, 1 tags, 1 manifests, 0 referrers, 2 links, 2 data"),
        "{stdout}"
    );
    assert!(stdout.ends_with("0 findings left, 0 repaired\n"), "{stdout}");
    drop(server);
    std::fs::remove_dir_all(folder.path().join("catalog")).unwrap();
    let server = Server::start(folder.path(), &["--no-sync"]);
    let (code, stdout, _) = run(folder.path(), &["fsck"]);
    assert_eq!(code, Some(1));
    assert!(stdout.starts_with("found: a: it holds manifests, and the catalog does not list it\n"), "{stdout}");
    let catalog = "GET /v2/_catalog";
    assert!(send(&server, catalog, "x/y", "").ends_with(r#"{"repositories":[]}"#));
    let (code, stdout, stderr) = run(folder.path(), &["fsck", "--repair", "--json"]);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    let json: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(json["findings"][0]["kind"], "missing-catalog-entry");
    assert_eq!(json["repaired"], 1);
    assert!(send(&server, catalog, "x/y", "").ends_with(r#"{"repositories":["a"]}"#));
    assert_eq!(run(folder.path(), &["fsck"]).0, Some(0));
}

#[test]
fn immutable_tags_are_a_setting() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &["--no-sync", "--immutable-tags", "v*,release-*"]);
    push(&server, "a", "v1", "one");
    let manifest = image(&[b"{}", b"layer"], "");
    let answer = send(&server, "PUT /v2/a/manifests/v1", "application/vnd.oci.image.manifest.v1+json", &manifest);
    assert!(answer.starts_with("HTTP/1.1 409 Conflict"), "{answer}");
    let (code, _, stderr) = run(folder.path(), &["serve", "--immutable-tags", "v["]);
    assert_eq!(code, Some(2));
    assert!(stderr.contains("is not a pattern of tags"), "{stderr}");
}

/// What `gc --json` removed, or would.
fn removed(json: &str) -> Vec<String> {
    let report: serde_json::Value = serde_json::from_str(json).unwrap();
    let removed = report["removed"].as_array().unwrap().iter();
    removed.map(|removal| removal["key"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn gc_takes_its_flags_whoever_holds_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Some(Server::start(folder.path(), &["--no-sync"]));
    for beside in [true, false] {
        let up = server.take().unwrap_or_else(|| Server::start(folder.path(), &["--no-sync"]));
        let mark = format!("first {beside}");
        let first = push(&up, "a", "t", &mark);
        push(&up, "a", "t", &format!("second {beside}"));
        assert_eq!(status(&up, &format!("DELETE /v2/a/manifests/{first}")), "202");
        let other = digest(format!("other {beside}"));
        let line = format!("POST /v2/a/blobs/uploads/?digest={other}");
        assert!(send(&up, &line, "x/y", &format!("other {beside}")).starts_with("HTTP/1.1 201"));
        std::thread::sleep(std::time::Duration::from_millis(2100));
        if beside {
            server = Some(up);
        } else {
            drop(up);
        }

        // The usual grace time protects it.
        let (code, stdout, stderr) = run(folder.path(), &["gc", "--once", "--json"]);
        assert_eq!((code, removed(&stdout)), (Some(0), vec![]), "{stderr}");
        let (code, stdout, stderr) = run(folder.path(), &["gc", "--dry-run", "--json", "--grace", "1s"]);
        let would = removed(&stdout);
        assert_eq!(code, Some(0), "{stderr}");
        assert!(would.iter().any(|key| key.contains(other.hex())), "{would:?}");
        let (code, stdout, stderr) = run(folder.path(), &["gc", "--once", "--json", "--grace", "1s"]);
        let gone = removed(&stdout);
        assert_eq!(code, Some(0), "{stderr}");
        for kind in ["links/", "data/"] {
            assert!(gone.iter().any(|key| key.starts_with(kind) && key.contains(other.hex())), "{kind} {gone:?}");
        }
        // The window of 30 days protects what the tag was.
        assert!(!gone.iter().any(|key| key.contains("/_history/")), "{gone:?}");
        let (code, stdout, stderr) =
            run(folder.path(), &["gc", "--once", "--json", "--grace", "1s", "--history-days", "0"]);
        let gone = removed(&stdout);
        assert_eq!(code, Some(0), "{stderr}");
        assert!(gone.iter().any(|key| key.contains("/_history/t/") && key.contains(&first[7..])), "{gone:?}");
    }
}

#[test]
fn a_brake_that_holds_is_let_go() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &["--no-sync"]);
    for n in 0..1010 {
        let blob = format!("blob {n}");
        let line = format!("POST /v2/a/blobs/uploads/?digest={}", digest(&blob));
        assert!(send(&server, &line, "x/y", &blob).starts_with("HTTP/1.1 201"));
    }
    std::thread::sleep(std::time::Duration::from_millis(2100));
    // The links go first; the brake is about data.
    assert_eq!(run(folder.path(), &["gc", "--once", "--grace", "1s"]).0, Some(0));
    let (code, stdout, stderr) = run(folder.path(), &["gc", "--once", "--grace", "1s"]);
    assert_eq!(code, Some(1), "{stdout}{stderr}");
    assert!(stdout.contains("the brake holds"), "{stdout}");
    // What confirms collects nothing, so it takes no grace time.
    assert_eq!(run(folder.path(), &["gc", "--confirm", "--grace", "1s"]).0, Some(2));
    assert_eq!(run(folder.path(), &["gc"]).0, Some(2));
    let (code, stdout, _) = run(folder.path(), &["gc", "--confirm"]);
    assert_eq!(code, Some(0));
    assert!(stdout.starts_with("confirmed: for a week"), "{stdout}");
    let (code, stdout, stderr) = run(folder.path(), &["gc", "--once", "--grace", "1s", "--json"]);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    let data = removed(&stdout).iter().filter(|key| key.starts_with("data/")).count();
    assert!(data > 0, "{stdout}");
    let left = run(folder.path(), &["gc", "--dry-run", "--grace", "1s", "--json"]);
    assert!(!removed(&left.1).iter().any(|key| key.starts_with("data/")), "{}", left.1);
}
