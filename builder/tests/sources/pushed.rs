//! Builds for a registry that will not take the image.

use std::fs;
use std::net::TcpListener;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fluyt::blob::sha256;

use super::place::Place;
use super::server::{Reply, Server};

const BUSYBOX: &str = "/usr/bin/busybox";

/// A context whose command takes longer than a test may wait; nothing, said aloud, where no command can be run.
fn long_build(place: &Place) -> bool {
    if !rustix::process::geteuid().is_root() || !std::path::Path::new(BUSYBOX).exists() {
        println!("skipped: this test needs root and {BUSYBOX}");
        return false;
    }
    place.write("context/busybox", fs::read(BUSYBOX).unwrap());
    place.write(
        "context/Dockerfile",
        "FROM scratch AS tool\nCOPY --chmod=755 busybox /bin/\nFROM scratch\nCOPY --from=tool /bin /bin\nRUN [\"/bin/busybox\", \"sleep\", \"60\"]\n",
    );
    true
}

/// Builds; the push must fail with this code, long before the command would have ended.
fn refused(place: &Place, code: i32, name: &str, more: &[&str]) -> String {
    let begun = Instant::now();
    let said = place.fail(code, &[&["--push", "-t", name, "context"][..], more].concat(), None);
    assert!(begun.elapsed() < Duration::from_secs(40), "{said}");
    assert!(said.contains(&format!("error: cannot push {name}\n")), "{said}");
    assert_eq!(said.matches(" ERROR: ").count(), 1, "{said}");
    said
}

#[test]
fn a_push_that_cannot_work_ends_the_build() {
    let place = Place::new();
    if !long_build(&place) {
        return;
    }
    for (status, words) in [(401, "asks for credentials for"), (403, "denies access to")] {
        let server = Server::start(move |asked| match asked.method.as_str() {
            "HEAD" => Reply::new(404, ""),
            _ => Reply::new(status, "{}").header("WWW-Authenticate", "Basic realm=\"x\""),
        });
        let said = refused(&place, 1, &format!("{}/a:1", server.address), &[]);
        assert!(said.contains(words), "{said}");
    }
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let said = refused(&place, 3, &format!("{closed}/a:1"), &[]);
    assert!(said.contains("cannot connect to"), "{said}");
    let said = refused(&place, 3, "registry.invalid/a:1", &[]);
    assert!(said.contains("the name cannot be resolved"), "{said}");
    let (server, _) = Server::start_tls(|_| Reply::new(404, ""));
    let (_, other) = Server::start_tls(|_| Reply::new(404, ""));
    place.write("other.pem", other);
    let certificate = format!("{}=other.pem", server.address);
    let said = refused(&place, 3, &format!("{}/a:1", server.address), &["--registry-certificate", &certificate]);
    assert!(said.contains("no secure connection to"), "{said}");
}

#[test]
fn a_step_that_fails_says_why_and_the_push_nothing_of_its_own() {
    let place = Place::new();
    place.write("context/Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    let server = Server::start(|_| Reply::new(403, "{}"));
    let said = place.fail(1, &["--push", "-t", &format!("{}/a:1", server.address), "context"], None);
    assert_eq!(said.matches(" ERROR: ").count(), 1, "{said}");
    assert!(!said.contains("no image to push"), "{said}");
}

#[test]
fn what_was_not_pushed_is_kept_under_its_name() {
    let place = Place::new();
    place.write("context/Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    let is_open = Arc::new(AtomicBool::new(false));
    let opened = Arc::clone(&is_open);
    let server = Server::start(move |asked| match (opened.load(Ordering::SeqCst), asked.method.as_str()) {
        (false, _) => Reply::new(403, "{}"),
        (true, "PUT") => Reply::new(201, ""),
        (true, _) => Reply::new(200, ""),
    });
    let name = format!("{}/a:1", server.address);
    // Refused while the steps run or after them: all the same to who reads it.
    for flags in [&[][..], &["--no-cache"]] {
        let said = place.fail(1, &[&["--push", "-t", &name, "context"], flags].concat(), None);
        let hint = format!("hint: the image is in the store: `fluyt push {name}` tries again\n");
        assert!(said.contains(&hint), "{said}");
    }
    is_open.store(true, Ordering::SeqCst);
    let mut push = Command::new(env!("CARGO_BIN_EXE_fluyt"));
    let pushed = push.env("FLUYT_STORE", place.path("store")).args(["push", &name]).output().unwrap();
    assert!(pushed.status.success(), "{}", String::from_utf8_lossy(&pushed.stderr));
    assert!(server.asked().iter().any(|asked| asked.method == "PUT" && asked.target == "/v2/a/manifests/1"));
}

#[test]
fn a_certificate_that_is_not_there_is_told_of_at_once() {
    let place = Place::new();
    place.write("context/Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    let said = place.fail(2, &["--registry-certificate", "r.invalid=missing.pem", "context"], None);
    assert!(said.contains("`--registry-certificate r.invalid=missing.pem`"), "{said}");
    assert!(!said.contains("#1"), "{said}");
}

/// They stay where their urls say, early and at the end.
#[test]
fn layers_that_may_not_be_passed_on_are_not_pushed() {
    let types = [
        "application/vnd.oci.image.layer.v1.tar+gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    ];
    let arch = fluyt::pipeline::host_platform().architecture;
    let digests = types.map(|media_type| sha256(media_type.as_bytes()).to_string());
    let config = format!(
        r#"{{"architecture":"{arch}","os":"linux","config":{{}},"rootfs":{{"type":"layers","diff_ids":["{}"]}},"history":[]}}"#,
        digests.join("\",\"")
    );
    let layer = |(media_type, digest): (&&str, &String)| {
        format!(r#"{{"mediaType":"{media_type}","digest":"{digest}","size":40}}"#)
    };
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{}","size":{}}},"layers":[{}]}}"#,
        sha256(config.as_bytes()),
        config.len(),
        types.iter().zip(&digests).map(layer).collect::<Vec<_>>().join(",")
    );
    let server = Server::start(move |asked| match (asked.method.as_str(), asked.target.as_str()) {
        ("GET", target) if target.contains("/manifests/") => {
            Reply::new(200, manifest.clone()).header("Content-Type", "application/vnd.oci.image.manifest.v1+json")
        }
        ("GET", _) => Reply::new(200, config.clone()),
        ("HEAD", target) if target.contains("/manifests/") => Reply::new(405, ""),
        ("HEAD", _) => Reply::new(404, ""),
        // Mounts what it is asked to.
        ("POST", target) if target.contains("mount=") => Reply::new(201, ""),
        ("POST", _) => Reply::new(202, "").header("Location", "/v2/app/blobs/uploads/1"),
        _ => Reply::new(201, ""),
    });
    let place = Place::new();
    place.write("context/Dockerfile", format!("FROM {}/base\nLABEL a=b\n", server.address));
    let output = place.run(&["--push", "-t", &format!("{}/app:1", server.address), "context"], None);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let asked = server.asked();
    for (number, digest) in digests.iter().enumerate() {
        let names = |target: &str| target.replace("%3A", ":").contains(digest);
        let sent = asked.iter().any(|asked| asked.target.starts_with("/v2/app/") && names(&asked.target));
        assert_eq!(sent, number == 0, "{}: {asked:?}", types[number]);
    }
}
