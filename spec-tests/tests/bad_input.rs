//! Bad input, each with a clear error, the right exit code or status, and nothing half-visible afterwards.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;

use http::Method;
use spec_tests::client::Fluyt;
use spec_tests::folder::{ReadOnly, SmallDisk, TestDir};
use spec_tests::program::{self, Outcome};
use spec_tests::registry::Registry;
use spec_tests::samples::{self, Sample};

use crate::sample::shell_context;

/// A failed build prints no digest, and leaves no image in the store.
fn assert_nothing_built(fluyt: &Fluyt, outcome: &Outcome) {
    assert_eq!(outcome.stdout, "", "{}", outcome.describe());
    let images = fluyt.run(["images"]).expect_success();
    assert!(!images.stdout.contains("sha256:"), "a failed build left an image: {}", images.stdout);
}

fn build_error(dockerfile: &str, arguments: &[&str], code: i32, message: &[&str]) -> Outcome {
    let (fluyt, context) = (Fluyt::new(), TestDir::new());
    context.write("Dockerfile", dockerfile);
    let outcome = fluyt.build(context.path(), arguments).expect_code(code).expect_message(message);
    if code != 2 {
        assert_nothing_built(&fluyt, &outcome);
    }
    outcome
}

#[test]
fn a_missing_dockerfile() {
    let (fluyt, context) = (Fluyt::new(), TestDir::new());
    let folder = context.path().to_string_lossy().into_owned();
    let outcome = fluyt.build(context.path(), &[]).expect_code(1);
    let outcome = outcome.expect_message(&["error:", "Dockerfile", &folder]);
    assert_nothing_built(&fluyt, &outcome);
    let _ =
        fluyt.build(context.path(), &["-f", "other.dockerfile"]).expect_code(1).expect_message(&["other.dockerfile"]);
}

#[test]
fn a_missing_context() {
    let fluyt = Fluyt::new();
    let _ =
        fluyt.build(Path::new("/nonexistent/context"), &[]).expect_code(1).expect_message(&["/nonexistent/context"]);
}

#[test]
fn an_empty_dockerfile() {
    let _ = build_error("# nothing but a comment\n", &[], 1, &["error:", "Dockerfile"]);
}

#[test]
fn an_unknown_instruction() {
    let _ = build_error("FROM scratch\nCOPPY a b\n", &[], 1, &["error:", "COPPY", "COPY", "Dockerfile:2"]);
}

#[test]
fn an_unknown_flag_of_an_instruction() {
    let _ = build_error("FROM scratch\nCOPY --form=x a b\n", &[], 1, &["--form", "--from", "Dockerfile:2"]);
}

#[test]
fn a_dockerfile_that_does_not_start_with_from() {
    let _ = build_error("RUN true\n", &[], 1, &["FROM", "Dockerfile:1"]);
}

#[test]
fn an_unknown_stage() {
    let _ = build_error("FROM scratch AS builder\nENV A=b\n", &["--target", "bulder"], 1, &["bulder", "builder"]);
}

#[test]
fn an_unknown_flag() {
    let fluyt = Fluyt::new();
    let _ = fluyt.run(["build", "--pusj", "."]).expect_code(2).expect_message(&["--pusj", "--push"]);
    let _ = fluyt.run(["bild", "."]).expect_code(2).expect_message(&["bild", "build"]);
    let _ = fluyt.run(["build"]).expect_code(2).expect_message(&["CONTEXT"]);
}

#[test]
fn a_copy_of_a_missing_file() {
    let _ =
        build_error("FROM scratch\nENV A=b\nCOPY absent.txt /\n", &[], 1, &["error:", "absent.txt", "Dockerfile:3"]);
}

#[test]
fn a_copy_of_an_ignored_file() {
    let (fluyt, context) = (Fluyt::new(), TestDir::new());
    context.write("Dockerfile", "FROM scratch\nCOPY secret/key.txt /\n");
    context.write(".dockerignore", "*.md\nsecret\n");
    context.write("secret/key.txt", "key\n");
    let outcome = fluyt.build(context.path(), &[]).expect_code(1).expect_message(&[
        "secret/key.txt",
        "Dockerfile:2",
        ".dockerignore",
        "`secret`",
    ]);
    assert_nothing_built(&fluyt, &outcome);
}

#[test]
fn a_run_that_fails() {
    if !program::is_root("a_run_that_fails") {
        return;
    }
    let (fluyt, context) =
        (Fluyt::new(), shell_context("RUN echo before; \\\n  echo to-stderr >&2; exit 7\nRUN echo never\n"));
    let outcome = fluyt.build(context.path(), &["-t", "failed:one"]).expect_code(1);
    // The instruction, its lines, its status, and what it printed.
    let outcome = outcome.expect_message(&["RUN echo before", "Dockerfile:5-6", "7", "to-stderr"]);
    // The excerpt of the Dockerfile may show it; no line of a step may.
    let went_on = outcome.stderr.lines().any(|line| line.starts_with('#') && line.contains("never"));
    assert!(!went_on, "the build went on: {}", outcome.describe());
    assert_nothing_built(&fluyt, &outcome);
    // The next build starts from what was made before the failing step, and fails the same way.
    let _ = fluyt.build(context.path(), &[]).expect_code(1).expect_message(&["Dockerfile:5-6"]);
}

#[test]
fn a_run_of_a_missing_program() {
    if !program::is_root("a_run_of_a_missing_program") {
        return;
    }
    let (fluyt, context) = (Fluyt::new(), shell_context("RUN [\"/bin/absent\", \"x\"]\n"));
    let _ = fluyt.build(context.path(), &[]).expect_code(1).expect_message(&["/bin/absent", "Dockerfile:5"]);
}

#[test]
fn an_unknown_base_image() {
    let registry = Registry::start();
    let base = format!("{}/no/such:tag", registry.host());
    let _ = build_error(&format!("FROM {base}\n"), &[], 1, &["error:", &base, "Dockerfile:1"]);
}

#[test]
fn a_base_image_from_a_registry_that_is_not_there() {
    // A port that was free a moment ago: nobody answers.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let base = format!("127.0.0.1:{port}/no/such:tag");
    let (fluyt, context) = (Fluyt::new(), TestDir::new());
    context.write("Dockerfile", format!("FROM {base}\n"));
    let outcome = fluyt.build(context.path(), &[]);
    assert!(matches!(outcome.code, Some(1 | 3)), "{}", outcome.describe());
    let outcome = outcome.expect_message(&["error:", &format!("127.0.0.1:{port}")]);
    assert_nothing_built(&fluyt, &outcome);
}

/// A registry that has nothing, and answers all that is more than a question with 403 and says why.
fn refusing_registry() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut request = Vec::new();
            let mut buffer = [0; 4096];
            while !request.windows(4).any(|window| window == b"\r\n\r\n") {
                match stream.read(&mut buffer) {
                    Ok(0) | Err(_) => break,
                    Ok(length) => request.extend_from_slice(&buffer[..length]),
                }
            }
            let body = r#"{"errors":[{"code":"DENIED","message":"this repository is frozen until monday"}]}"#;
            let (status, body) =
                if request.starts_with(b"HEAD") { ("404 Not Found", "") } else { ("403 Forbidden", body) };
            let _ = write!(
                stream,
                "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.shutdown(Shutdown::Both);
        }
    });
    host
}

#[test]
fn a_registry_that_refuses() {
    let reference = format!("{}/team/app:one", refusing_registry());
    let (fluyt, context) = (Fluyt::new(), TestDir::new());
    context.write("file", "content\n");
    context.write("Dockerfile", "FROM scratch\nCOPY file /\n");
    let _ = fluyt.build(context.path(), &["--push", "-t", &reference]).expect_code(1).expect_message(&[
        "error:",
        &reference,
        "frozen until monday",
    ]);
    let _ =
        fluyt.run(["pull", &reference]).expect_code(1).expect_message(&["error:", &reference, "frozen until monday"]);
}

#[test]
fn invalid_names() {
    let (fluyt, context) = (Fluyt::new(), TestDir::new());
    context.write("file", "content\n");
    context.write("Dockerfile", "FROM scratch\nCOPY file /\n");
    for name in ["team/UPPER", "a//b", "a:b:c", "-dash", "name:.tag", "name@sha256:short", ""] {
        let outcome = fluyt.build(context.path(), &["-t", name]);
        assert!(matches!(outcome.code, Some(1 | 2)), "{name:?}: {}", outcome.describe());
        assert!(outcome.stderr.contains(name), "{name:?} is not named: {}", outcome.describe());
        assert_eq!(outcome.stdout, "", "{name:?} was built");
    }
    let _ = build_error("FROM team/UPPER\n", &[], 1, &["team/UPPER", "Dockerfile:1"]);
}

#[test]
fn a_push_of_what_is_not_there() {
    let fluyt = Fluyt::new();
    for command in ["push", "rmi"] {
        let _ = fluyt
            .run([command, "127.0.0.1:9/no/such:one"])
            .expect_code(1)
            .expect_message(&["error:", "127.0.0.1:9/no/such:one"]);
    }
}

/// Sends the head of a request and a part of its body, then hangs up.
fn send_half(registry: &Registry, method: &str, path: &str, promised: usize, sent: &[u8]) {
    let mut stream = TcpStream::connect(registry.host()).unwrap();
    let path = path.trim_start_matches(registry.url());
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/octet-stream\r\nContent-Length: {promised}\r\n\r\n",
        registry.host()
    )
    .unwrap();
    stream.write_all(sent).unwrap();
    stream.flush().unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    // Until the registry has seen the end: it closes, with or without an answer.
    let _ = stream.read_to_end(&mut Vec::new());
}

#[test]
fn a_truncated_upload() {
    let registry = Registry::start();
    let target = registry.target();
    let (repository, blob) = (target.repository(), samples::bytes(71, 200_000));
    let (half, digest) = (&blob[..100_000], samples::digest(&blob));
    let nothing_visible = || {
        for content in [&blob[..], half] {
            let path = format!("/v2/{repository}/blobs/{}", samples::digest(content));
            let _ = target.head(&path).expect_status(404);
        }
    };
    let put = samples::with_digest(&samples::open_upload(&target, &repository), &digest);
    send_half(&registry, "PUT", &put, blob.len(), half);
    nothing_visible();
    let post = samples::with_digest(&format!("/v2/{repository}/blobs/uploads/"), &digest);
    send_half(&registry, "POST", &post, blob.len(), half);
    nothing_visible();
    let location = samples::open_upload(&target, &repository);
    send_half(&registry, "PATCH", &location, blob.len(), half);
    nothing_visible();
    // The session tells how far it came, and goes on from there.
    let status = target.get(&location).expect_status(204);
    let came = status
        .header("range")
        .and_then(|range| range.strip_prefix("0-"))
        .map(|last| last.parse::<usize>().unwrap() + 1);
    let start = came.filter(|length| *length > 1).unwrap_or(0);
    assert!(start <= half.len(), "the session says it has {start} bytes, {} were sent", half.len());
    let location = status.header("location").unwrap_or(&location).to_owned();
    let _ = target
        .request(Method::PUT, &samples::with_digest(&location, &digest))
        .header("content-range", format!("{start}-{}", blob.len() - 1))
        .body(&blob[start..])
        .send()
        .expect_status(201);
    let found = target.get(&format!("/v2/{repository}/blobs/{digest}")).expect_status(200);
    assert!(found.body == blob, "the blob came back changed");
}

#[test]
fn a_request_that_is_no_http() {
    let registry = Registry::start();
    for garbage in
        [&b"\x16\x03\x01\x02\x00\x01\x00"[..], b"GET\r\n\r\n", b"GET /v2/ HTTP/9.9\r\n\r\n", &[0xff; 100_000]]
    {
        let mut stream = TcpStream::connect(registry.host()).unwrap();
        let _ = stream.write_all(garbage);
        let _ = stream.shutdown(Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
    }
    let _ = registry.target().get("/v2/").expect_status(200);
}

/// Runs `fluyt-registry` with a folder as its store, for 20 s at most.
fn registry_command(arguments: &[&str], store: &Path) -> Outcome {
    let (program, store) = (program::product("fluyt-registry"), format!("file://{}", store.display()));
    let program = program.to_string_lossy().into_owned();
    program::run("timeout", [&["20", &program], arguments, &["--store", &store]].concat())
}

/// That an image is there whole.
fn expect_whole(registry: &Registry, repository: &str, image: &Sample) {
    let target = registry.target();
    let manifest = target.get(&format!("/v2/{repository}/manifests/{}", image.digest())).expect_status(200);
    assert!(manifest.body == image.manifest, "the manifest came back changed");
    for blob in [&image.config, &image.layer] {
        let answer = target.get(&format!("/v2/{repository}/blobs/{}", samples::digest(blob))).expect_status(200);
        assert!(answer.body == *blob, "a blob came back changed");
    }
}

/// That nothing of a push is taken, each time with a status and words that help.
fn expect_no_push(registry: &Registry, repository: &str, there: &Sample, status: u16, code: &str, words: &str) {
    let (target, new) = (registry.target(), Sample::new(74));
    let (long, digest) = (samples::bytes(75, 9 << 20), samples::digest(&new.layer));
    let refused = |answer: spec_tests::target::Answer| {
        let answer = answer.expect_error(status, code);
        let message = answer.json()["errors"][0]["message"].to_string();
        assert!(message.contains(words), "expected `{words}` in {message}");
    };
    let uploads = format!("/v2/{repository}/blobs/uploads/");
    for (blob, digest) in [(&new.layer, digest.clone()), (&long, samples::digest(&long))] {
        let put = samples::with_digest(&samples::open_upload(&target, repository), &digest);
        refused(target.request(Method::PUT, &put).body(&blob[..]).send());
        let location = samples::open_upload(&target, repository);
        refused(target.request(Method::PATCH, &location).body(&blob[..]).send());
        refused(target.request(Method::POST, &samples::with_digest(&uploads, &digest)).body(&blob[..]).send());
        let _ = target.head(&format!("/v2/{repository}/blobs/{digest}")).expect_status(404);
    }
    // Another manifest, of blobs that are there.
    let manifest = [&there.manifest[..], b"\n"].concat();
    refused(samples::put_manifest(&target, repository, "new", samples::MANIFEST, &manifest));
    let _ = target.get(&format!("/v2/{repository}/manifests/new")).expect_status(404);
}

#[test]
fn a_full_disk_of_the_registry() {
    // Pushes stop when 256 MiB are left.
    let Some(disk) = SmallDisk::new("a_full_disk_of_the_registry", 320) else { return };
    let store = disk.path().join("store");
    let registry = Registry::start_on(&store);
    let target = registry.target();
    let (repository, before, other) = (target.repository(), Sample::new(72), Sample::new(73));
    before.push(&target, &repository, "before");
    other.push(&target, &repository, "other");
    let large = Sample::of_layer(samples::bytes(76, 40 << 20));
    large.push(&target, &repository, "large");

    // A push that comes to that in its middle, by either way, gives back what it took.
    let free = disk.free();
    let long = samples::bytes(81, 60 << 20);
    for method in [Method::PUT, Method::PATCH] {
        let mut location = samples::open_upload(&target, &repository);
        if method == Method::PUT {
            location = samples::with_digest(&location, &samples::digest(&long));
        }
        let _ = target.request(method, &location).body(&long[..]).send().expect_error(507, "UNAVAILABLE");
    }
    let taken = free.saturating_sub(disk.free());
    assert!(taken < 1 << 20, "pushes that were refused keep {taken} bytes");

    disk.fill_to(250);
    expect_no_push(&registry, &repository, &before, 507, "UNAVAILABLE", "the registry's store is full");
    for image in [&before, &other, &large] {
        expect_whole(&registry, &repository, image);
    }
    // What nobody needs goes, and there is room again.
    let _ = target.delete(&format!("/v2/{repository}/manifests/{}", large.digest())).expect_status(202);
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let _ = registry_command(&["gc", "--once", "--grace", "1s"], &store).expect_success();
    let after = Sample::new(77);
    after.push(&target, &repository, "after");
    let _ = target.get(&format!("/v2/{repository}/manifests/after")).expect_status(200);

    // Not a byte is left.
    disk.fill();
    expect_no_push(&registry, &repository, &before, 507, "UNAVAILABLE", "the registry's store is full");
    for image in [&before, &other, &after] {
        expect_whole(&registry, &repository, image);
    }
    let gone = format!("/v2/{repository}/manifests/{}", other.digest());
    let deleted = target.delete(&gone).expect_one_of(&[202, 507]);
    if deleted.status == 507 {
        let deleted = deleted.expect_error(507, "UNAVAILABLE");
        assert!(deleted.json()["errors"][0]["message"].to_string().contains("full"), "{:?}", deleted.json());
    }
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let _ = registry_command(&["gc", "--once", "--grace", "1s"], &store).expect_success();
    let _ = target.delete(&gone).expect_one_of(&[202, 404]);
    let _ = target.get(&gone).expect_status(404);
    let _ = target.get(&format!("/v2/{repository}/manifests/other")).expect_status(404);

    disk.empty();
    Sample::new(74).push(&target, &repository, "with-space");
    for image in [&before, &after, &Sample::new(74)] {
        expect_whole(&registry, &repository, image);
    }
    assert!(!registry.log().contains("panicked"), "{}", registry.log());
}

#[test]
fn a_registry_starts_on_a_full_disk() {
    let Some(disk) = SmallDisk::new("a_registry_starts_on_a_full_disk", 280) else { return };
    let store = disk.path().join("store");
    let registry = Registry::start_on(&store);
    let image = Sample::new(78);
    image.push(&registry.target(), "a/b", "one");
    registry.kill();
    disk.fill();
    let registry = Registry::start_on(&store);
    expect_whole(&registry, "a/b", &image);
    let _ = registry.target().get("/v2/a/b/manifests/one").expect_status(200);
    expect_no_push(&registry, "a/b", &image, 507, "UNAVAILABLE", "the registry's store is full");
}

#[test]
fn a_folder_of_the_registry_that_becomes_read_only() {
    let test = "a_folder_of_the_registry_that_becomes_read_only";
    let registry = Registry::start();
    let target = registry.target();
    let (repository, before) = (target.repository(), Sample::new(79));
    before.push(&target, &repository, "before");
    let Some(read_only) = ReadOnly::new(test, registry.store()) else { return };
    expect_no_push(&registry, &repository, &before, 500, "UNKNOWN", "not allowed to use its store");
    expect_whole(&registry, &repository, &before);
    let path = format!("/v2/{repository}/manifests/{}", before.digest());
    let _ = target.delete(&path).expect_error(500, "UNKNOWN");
    let _ = target.get(&format!("/v2/{repository}/manifests/before")).expect_status(200);
    // The operator finds out why.
    assert!(registry.log().contains("Read-only file system"), "{}", registry.log());
    assert!(!registry.log().contains("panicked"), "{}", registry.log());
    drop(read_only);
    expect_whole(&registry, &repository, &before);
    let _ = target.get(&format!("/v2/{repository}/manifests/before")).expect_status(200);
    Sample::new(74).push(&target, &repository, "new");
    expect_whole(&registry, &repository, &Sample::new(74));
}

#[test]
fn a_folder_of_the_registry_that_is_read_only_at_the_start() {
    let (test, folder) = ("a_folder_of_the_registry_that_is_read_only_at_the_start", TestDir::new());
    let store = folder.folder("there");
    let registry = Registry::start_on(&store);
    Sample::new(80).push(&registry.target(), "a/b", "one");
    registry.kill();
    let Some(_read_only) = ReadOnly::new(test, folder.path()) else { return };
    for name in ["there", "new"] {
        let store = folder.join(name);
        let outcome = registry_command(&["serve", "--listen", "127.0.0.1:0"], &store).expect_code(1);
        let _ = outcome.expect_message(&["error:", &store.to_string_lossy(), "Read-only file system"]);
    }
}

#[test]
fn a_full_disk_of_the_builder() {
    let Some(disk) = SmallDisk::new("a_full_disk_of_the_builder", 8) else { return };
    let (fluyt, context) = (Fluyt::new(), TestDir::new());
    let store = disk.path().join("store");
    context.write("large", samples::bytes(75, 16 << 20));
    context.write("small", "small\n");
    context.write("Dockerfile", "FROM scratch\nCOPY small /\nCOPY large /\n");
    let build = |arguments: &[&str]| {
        let mut command = fluyt.command();
        command.env("FLUYT_STORE", &store).arg("build").args(arguments).arg(context.path());
        program::finish(command)
    };
    let outcome = build(&["-t", "large:one"]).expect_code(3).expect_message(&["error:", "space"]);
    assert_eq!(outcome.stdout, "");
    let images = fluyt.run(["--store", &store.to_string_lossy(), "images"]).expect_success();
    assert!(!images.stdout.contains("sha256:"), "a failed build left an image: {}", images.stdout);
    // What the failed build had half written is gone, so that a smaller one fits.
    context.write("Dockerfile", "FROM scratch\nCOPY small /\n");
    let _ = build(&["-t", "small:one"]).expect_success();
    let half_written: u64 =
        fs::read_dir(store.join("blobs/sha256")).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
    assert!(half_written < 1 << 20, "{half_written} bytes stayed in the store");
}

#[test]
fn a_builders_store_of_a_newer_version() {
    let (fluyt, context) = (Fluyt::new(), TestDir::new());
    context.write("file", "content\n");
    context.write("Dockerfile", "FROM scratch\nCOPY file /\n");
    let _ = fluyt.build(context.path(), &[]).expect_success();
    fs::write(fluyt.store().join("format"), "999\n").unwrap();
    let outcome = fluyt.build(context.path(), &[]);
    assert!(matches!(outcome.code, Some(1 | 3)), "{}", outcome.describe());
    let _ = outcome.expect_message(&["999", &fluyt.store().to_string_lossy()]);
}

#[test]
fn a_registrys_store_of_a_newer_version() {
    let folder = TestDir::new();
    let store = folder.join("store");
    drop(Registry::start_on(&store));
    // The marker is `store.json.<version>`: each of its versions becomes one that nobody knows yet.
    let marker = fs::read_dir(&store)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.file_name().unwrap().to_string_lossy().starts_with("store.json"))
        .expect("a store says its layout");
    let text = fs::read_to_string(&marker).unwrap();
    let mut newer: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text).unwrap();
    newer.values_mut().filter(|value| value.is_number()).for_each(|value| *value = 999.into());
    fs::write(&marker, serde_json::Value::from(newer).to_string()).unwrap();
    let store = format!("file://{}", store.display());
    let serve = ["serve", "--listen", "127.0.0.1:0", "--store", &store];
    let outcome = program::run(program::product("fluyt-registry"), serve);
    assert!(matches!(outcome.code, Some(1 | 3)), "{}", outcome.describe());
    let _ = outcome.expect_message(&["error:", "999"]);
}

#[test]
fn a_store_that_another_registry_has() {
    let folder = TestDir::new();
    let registry = Registry::start_on(&folder.join("store"));
    let store = format!("file://{}", folder.join("store").display());
    let serve = ["serve", "--listen", "127.0.0.1:0", "--store", &store];
    let outcome = program::run(program::product("fluyt-registry"), serve);
    assert!(matches!(outcome.code, Some(1 | 3)), "{}", outcome.describe());
    let _ = outcome.expect_message(&["error:", &folder.join("store").to_string_lossy()]);
    let _ = registry.target().get("/v2/").expect_status(200);
}

#[test]
fn a_damaged_blob_is_not_pushed() {
    let registry = Registry::start();
    let (fluyt, context) = (Fluyt::new(), TestDir::new());
    context.write("file", samples::bytes(76, 3 << 20));
    context.write("Dockerfile", "FROM scratch\nCOPY file /\n");
    let reference = format!("{}/damaged/one:1", registry.host());
    let _ = fluyt.build(context.path(), &["-t", &reference]).expect_success();
    let blobs = fluyt.store().join("blobs/sha256");
    let largest = fs::read_dir(&blobs)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .max_by_key(|path| path.metadata().unwrap().len());
    let largest = largest.unwrap();
    let mut bytes = fs::read(&largest).unwrap();
    bytes[1 << 20] ^= 1;
    fs::remove_file(&largest).unwrap();
    fs::write(&largest, bytes).unwrap();
    let name = largest.file_name().unwrap().to_string_lossy().into_owned();
    let _ = fluyt.run(["push", &reference]).expect_code(3).expect_message(&["error:", &name, "removed"]);
    assert!(!largest.exists(), "the damaged blob is still there");
    // The same build makes it again, and then it can be pushed.
    let _ = fluyt.build(context.path(), &["--push", "-t", &reference]).expect_success();
}
