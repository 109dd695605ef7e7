//! Images on their way: built by `fluyt`, through `fluyt-registry`, to the clients that people use, and back.

mod pushing;

use std::path::Path;

use serde_json::Value;
use spec_tests::client::{Fluyt, Podman, skopeo_copy};
use spec_tests::docker::Dockerd;
use spec_tests::folder::TestDir;
use spec_tests::image::{Files, Image, Layout, differences, files_of_tar, violations};
use spec_tests::program::{self, Outcome};
use spec_tests::registry::Registry;
use spec_tests::stores::{Seaweed, skipped};

use crate::sample::{busybox, odd_context};

/// What container engines lay over an image's own files.
fn engines_own(path: &str) -> bool {
    let own = [".dockerenv", "etc/hosts", "etc/hostname", "etc/resolv.conf", "etc/mtab", "run/.containerenv"];
    let below = ["dev", "proc", "sys", "run"];
    own.contains(&path) || below.iter().any(|top| path == *top || path.starts_with(&format!("{top}/")))
}

/// Builds the odd context and pushes it: its repository, and the image as the registry has it.
fn pushed(registry: &Registry) -> (String, Image) {
    let (fluyt, context) = (Fluyt::new(), odd_context());
    let reference = format!("{}/round/trip:one", registry.host());
    let outcome = fluyt.build(context.path(), &["--push", "-t", &reference]).expect_success();
    let image = registry.image("round/trip", "one");
    assert_eq!(outcome.text(), image.digest, "stdout of a build is the digest and nothing else");
    (reference, image)
}

fn assert_same_files(image: &Image, exported: &Files) {
    // Engines make files of theirs in `/etc`, and the mount point of `VOLUME /data`: that moves the time of `/etc`.
    let without_time = |files: &Files| {
        let mut files = files.clone();
        files.entry("etc".to_owned()).and_modify(|folder| folder.modified = 0);
        files
    };
    let found =
        differences(&without_time(&image.files()), &without_time(exported), |path| engines_own(path) || path == "data");
    assert!(found.is_empty(), "{found:#?}");
}

/// The part of an engine's `inspect` that has to be what the configuration says.
fn assert_same_config(image: &Image, inspected: &Value) {
    for key in ["Env", "Entrypoint", "Cmd", "User", "WorkingDir", "Labels", "ExposedPorts", "Volumes", "StopSignal"] {
        assert_eq!(inspected[key], image.runtime()[key], "{key}");
    }
}

fn inspect(outcome: &Outcome) -> Value {
    let list: Value = serde_json::from_str(&outcome.stdout).expect("`inspect` prints JSON");
    list[0].clone()
}

/// A registry on a real S3 server that sends clients there for every blob, however small.
fn redirecting(test: &str) -> Option<Registry> {
    let Some(server) = Seaweed::shared() else {
        skipped(test, "SeaweedFS");
        return None;
    };
    let url = format!("s3://{}/images", server.bucket());
    let registry =
        Registry::start_at(&url, &["--redirect", "always", "--redirect-min-bytes", "0"], &server.variables());
    Some(registry)
}

/// That the client got its blobs from the store: the registry redirected for each, and sent none itself.
fn assert_redirected(registry: &Registry, image: &Image) {
    let log = registry.log();
    let layers = image.layers.iter().map(|layer| &layer.descriptor);
    for descriptor in layers.chain([&image.manifest["config"]]) {
        let digest = descriptor["digest"].as_str().unwrap();
        let path = format!("/v2/round/trip/blobs/{digest}");
        let asked = |line: &&str| line.contains("http.method=GET") && line.contains(&path);
        let asked: Vec<&str> = log.lines().filter(asked).collect();
        // Once by this test itself, and by the client.
        let sent_on = asked.iter().filter(|line| line.contains("http.status=307")).count();
        assert!(sent_on > 1, "the client did not ask for {digest}:\n{log}");
        assert!(!asked.iter().any(|line| line.contains("http.status=200")), "{digest} was sent:\n{asked:#?}");
    }
}

#[test]
fn docker_pulls_what_was_built() {
    let Some(dockerd) = Dockerd::shared("docker_pulls_what_was_built") else { return };
    let registry = Registry::start();
    let _ = docker_pulls(&dockerd, &registry);
}

#[test]
fn docker_pulls_where_everything_is_redirected() {
    let test = "docker_pulls_where_everything_is_redirected";
    let (Some(dockerd), Some(registry)) = (Dockerd::shared(test), redirecting(test)) else { return };
    let image = docker_pulls(&dockerd, &registry);
    assert_redirected(&registry, &image);
}

fn docker_pulls(dockerd: &Dockerd, registry: &Registry) -> Image {
    let (reference, image) = pushed(registry);
    assert_eq!(violations(&image), Vec::<String>::new());

    let _ = dockerd.docker(["pull", "--quiet", &reference]).expect_success();
    let inspected = inspect(&dockerd.docker(["image", "inspect", &reference]).expect_success());
    assert_eq!(inspected["Id"], image.manifest["config"]["digest"]);
    assert_eq!(inspected["RootFS"]["Layers"], image.config["rootfs"]["diff_ids"]);
    assert_same_config(&image, &inspected["Config"]);

    let container = dockerd.docker(["create", "--network", "none", &reference]).expect_success();
    let exported = dockerd.docker(["export", container.text()]).expect_success();
    let _ = dockerd.docker(["rm", container.text()]).expect_success();
    assert_same_files(&image, &files_of_tar(&exported.stdout_bytes));
    image
}

#[test]
fn docker_runs_what_was_built() {
    let Some(dockerd) = Dockerd::shared("docker_runs_what_was_built") else { return };
    let registry = Registry::start();
    let (reference, _) = pushed(&registry);
    let _ = dockerd.docker(["pull", "--quiet", &reference]).expect_success();
    let run = |arguments: &[&str]| {
        let mut all = vec!["run", "--rm", "--network", "none", &reference];
        all.extend(arguments);
        dockerd.docker(all).expect_success().stdout
    };
    assert_eq!(run(&[]), "run\n");
    assert_eq!(run(&["pwd"]), "/srv/work\n");
    assert_eq!(run(&["sh", "-c", "busybox echo $GREETING; busybox id -u; busybox id -g"]), "hello you\n1234\n5678\n");
    assert_eq!(run(&["stat", "-c", "%u:%g %a", "/srv/tree/a/one", "/etc/hard"]), "12:34 755\n1234:5678 600\n");
}

#[test]
fn podman_pulls_what_was_built() {
    let Some(podman) = Podman::new("podman_pulls_what_was_built") else { return };
    let registry = Registry::start();
    let _ = podman_pulls(&podman, &registry);
}

#[test]
fn podman_pulls_where_everything_is_redirected() {
    let test = "podman_pulls_where_everything_is_redirected";
    let (Some(podman), Some(registry)) = (Podman::new(test), redirecting(test)) else { return };
    let image = podman_pulls(&podman, &registry);
    assert_redirected(&registry, &image);
}

fn podman_pulls(podman: &Podman, registry: &Registry) -> Image {
    let (reference, image) = pushed(registry);
    let _ = podman.run(&["pull", "--quiet", "--tls-verify=false", &reference]).expect_success();
    let inspected = inspect(&podman.run(&["image", "inspect", &reference]).expect_success());
    let id = inspected["Id"].as_str().unwrap_or_default();
    assert_eq!(image.manifest["config"]["digest"], format!("sha256:{id}"));
    assert_eq!(inspected["Digest"], image.digest.as_str());
    assert_eq!(inspected["RootFS"]["Layers"], image.config["rootfs"]["diff_ids"]);
    let container = podman.run(&["create", "--network=none", &reference]).expect_success();
    let exported = podman.run(&["export", container.text()]).expect_success();
    assert_same_files(&image, &files_of_tar(&exported.stdout_bytes));
    image
}

#[test]
fn skopeo_copies_what_was_built() {
    if !program::all_installed("skopeo_copies_what_was_built", &["skopeo"]) {
        return;
    }
    let registry = Registry::start();
    let _ = skopeo_copies(&registry);
}

#[test]
fn skopeo_copies_where_everything_is_redirected() {
    let test = "skopeo_copies_where_everything_is_redirected";
    if !program::all_installed(test, &["skopeo"]) {
        return;
    }
    let Some(registry) = redirecting(test) else { return };
    let image = skopeo_copies(&registry);
    assert_redirected(&registry, &image);
}

fn skopeo_copies(registry: &Registry) -> Image {
    let (reference, image) = pushed(registry);
    let folder = TestDir::new();
    let layout = folder.join("layout");
    let _ = skopeo_copy(&format!("docker://{reference}"), &format!("oci:{}:one", layout.display())).expect_success();
    let copied = Layout::open(&layout).image(Some("one"));
    assert_eq!(copied.digest, image.digest);
    assert_eq!(copied.manifest_bytes, image.manifest_bytes);
    // And back under another name: nothing has to be sent, nothing changes.
    let again = format!("docker://{}/round/again:two", registry.host());
    let _ = skopeo_copy(&format!("oci:{}:one", layout.display()), &again).expect_success();
    assert_eq!(registry.image("round/again", "two").digest, image.digest);
    image
}

#[test]
fn fluyt_pulls_what_it_built() {
    let registry = Registry::start();
    let (reference, image) = pushed(&registry);
    assert_pulled_by_fluyt(&reference, &image);
}

#[test]
fn fluyt_pulls_where_everything_is_redirected() {
    let Some(registry) = redirecting("fluyt_pulls_where_everything_is_redirected") else { return };
    let (reference, image) = pushed(&registry);
    assert_pulled_by_fluyt(&reference, &image);
    assert_redirected(&registry, &image);
}

/// `fluyt pull` gives the image as it is in the registry, with another store than it was built in.
fn assert_pulled_by_fluyt(reference: &str, image: &Image) {
    let (fluyt, folder) = (Fluyt::new(), TestDir::new());
    let layout = folder.join("layout");
    let output = layout.to_string_lossy().into_owned();
    let _ = fluyt.run(["pull", "--output", &output, reference]).expect_success();
    let pulled = Layout::open(&layout).image(None);
    assert_eq!(pulled.digest, image.digest);
    assert_eq!(pulled.manifest_bytes, image.manifest_bytes);
    assert_eq!(pulled.config_bytes, image.config_bytes);
    for (left, right) in pulled.layers.iter().zip(&image.layers) {
        assert!(left.bytes == right.bytes, "a layer came back changed");
    }
}

/// A root with busybox as a tar, for clients that import one.
fn busybox_tar(folder: &TestDir) -> std::path::PathBuf {
    let mut tar = tar::Builder::new(Vec::new());
    tar.append_path_with_name(busybox(), "bin/busybox").unwrap();
    let mut header = tar::Header::new_gnu();
    header.set_size(5);
    header.set_mode(0o604);
    header.set_uid(42);
    header.set_gid(43);
    header.set_mtime(1_400_000_000);
    tar.append_data(&mut header, "etc/owned", &b"owned"[..]).unwrap();
    folder.write("root.tar", tar.into_inner().unwrap())
}

/// What every client was given: the same file, with its owner and mode.
fn assert_has_the_file(image: &Image) {
    let files = image.files();
    let file = files.get("etc/owned").expect("the file that was imported");
    assert_eq!((file.mode, file.uid, file.gid), (0o604, 42, 43));
}

fn assert_builds_on_it(reference: &str, base: &Image) {
    let (fluyt, context, folder) = (Fluyt::new(), TestDir::new(), TestDir::new());
    context.write("added", "added\n");
    context.write("Dockerfile", format!("FROM {reference}\nCOPY added /added\n"));
    let layout = folder.join("layout");
    let output = format!("type=oci,tar=false,dest={}", layout.display());
    let _ = fluyt.build(context.path(), &["-o", &output]).expect_success();
    let built = Layout::open(&layout).image(None);
    assert_eq!(violations(&built), Vec::<String>::new());
    assert_eq!(built.layers.len(), base.layers.len() + 1);
    let mut files = built.files();
    let added = files.remove("added").expect("the file that was copied");
    assert_eq!((added.mode, added.uid, added.gid), (0o644, 0, 0));
    assert_eq!(differences(&base.files(), &files, |_| false), vec![]);
}

#[test]
fn fluyt_pulls_what_docker_pushed() {
    let Some(dockerd) = Dockerd::shared("fluyt_pulls_what_docker_pushed") else { return };
    let (registry, folder) = (Registry::start(), TestDir::new());
    let reference = format!("{}/from/docker:one", registry.host());
    let tar = busybox_tar(&folder);
    let arguments = ["import", "--change", "ENV A=b", "--change", "CMD [\"/bin/busybox\", \"true\"]"];
    let id = dockerd
        .docker(arguments.iter().map(|word| (*word).to_owned()).chain([tar.display().to_string(), reference.clone()]))
        .expect_success();
    let pushed = dockerd.docker(["push", &reference]).expect_success();
    let image = registry.image("from/docker", "one");
    assert!(pushed.stdout.contains(&image.digest), "Docker pushed another digest: {}", pushed.describe());
    assert_eq!(image.manifest["config"]["digest"], id.text());
    assert_eq!(image.runtime()["Env"], serde_json::json!(["A=b"]));
    assert_has_the_file(&image);
    assert_pulled_by_fluyt(&reference, &image);
    assert_builds_on_it(&reference, &image);
}

#[test]
fn fluyt_pulls_what_podman_pushed() {
    let Some(podman) = Podman::new("fluyt_pulls_what_podman_pushed") else { return };
    let (registry, folder) = (Registry::start(), TestDir::new());
    let reference = format!("{}/from/podman:one", registry.host());
    let tar = busybox_tar(&folder);
    let tar = tar.to_string_lossy().into_owned();
    let _ = podman.run(&["import", "--quiet", "--change", "ENV A=b", &tar, &reference]).expect_success();
    let _ = podman.run(&["push", "--tls-verify=false", &reference]).expect_success();
    let image = registry.image("from/podman", "one");
    assert_has_the_file(&image);
    assert_pulled_by_fluyt(&reference, &image);
    assert_builds_on_it(&reference, &image);
}

#[test]
fn fluyt_pulls_what_skopeo_pushed() {
    let test = "fluyt_pulls_what_skopeo_pushed";
    let Some(podman) = Podman::new(test) else { return };
    if !program::all_installed(test, &["skopeo"]) {
        return;
    }
    let (registry, folder) = (Registry::start(), TestDir::new());
    let tar = busybox_tar(&folder).to_string_lossy().into_owned();
    let layout = folder.join("layout");
    let from = format!("oci:{}:made", layout.display());
    let _ = podman.run(&["import", "--quiet", &tar, "localhost/made:one"]).expect_success();
    let _ = podman.run(&["push", "localhost/made:one", &from]).expect_success();
    let reference = format!("{}/from/skopeo:one", registry.host());
    let _ = skopeo_copy(&from, &format!("docker://{reference}")).expect_success();
    let image = registry.image("from/skopeo", "one");
    assert_eq!(image.digest, Layout::open(&layout).image(Some("made")).digest);
    assert_has_the_file(&image);
    assert_pulled_by_fluyt(&reference, &image);
    assert_builds_on_it(&reference, &image);
}

#[test]
fn docker_loads_an_archive() {
    let Some(dockerd) = Dockerd::shared("docker_loads_an_archive") else { return };
    let (fluyt, context, folder) = (Fluyt::new(), odd_context(), TestDir::new());
    let archive = folder.join("image.tar");
    let output = format!("type=docker,dest={}", archive.display());
    let config = folder.join("config");
    let built =
        fluyt.build(context.path(), &["-t", "archived:one", "-o", &output, "--iidfile", &config.to_string_lossy()]);
    let _ = built.expect_success();
    let _ = dockerd.docker(["load", "--input", &archive.to_string_lossy()]).expect_success();
    let inspected = inspect(&dockerd.docker(["image", "inspect", "archived:one"]).expect_success());
    assert_eq!(inspected["Id"].as_str(), Some(read(&config).trim()));
}

#[test]
fn docker_takes_what_is_loaded() {
    let Some(dockerd) = Dockerd::shared("docker_takes_what_is_loaded") else { return };
    let (fluyt, context, folder) = (Fluyt::new(), odd_context(), TestDir::new());
    let config = folder.join("config");
    let mut command = fluyt.command();
    command
        .env("DOCKER_HOST", dockerd.host())
        .args(["build", "--load", "-t", "loaded:one", "--iidfile"])
        .args([&config, &context.path().to_owned()]);
    let _ = program::finish(command).expect_success();
    let inspected = inspect(&dockerd.docker(["image", "inspect", "loaded:one"]).expect_success());
    assert_eq!(inspected["Id"].as_str(), Some(read(&config).trim()));
}

#[test]
fn podman_takes_what_is_loaded() {
    let Some(podman) = Podman::new("podman_takes_what_is_loaded") else { return };
    let (fluyt, context, folder) = (Fluyt::new(), odd_context(), TestDir::new());
    let config = folder.join("config");
    let mut command = fluyt.command();
    // Without docker there, podman is who takes images.
    command.env("PATH", podman.alone_in_path().unwrap());
    command.args(["build", "--load", "-t", "loaded:one", "--iidfile"]).args([&config, &context.path().to_owned()]);
    let _ = program::finish(command).expect_success();
    let inspected = inspect(&podman.run(&["image", "inspect", "loaded:one"]).expect_success());
    let id = inspected["Id"].as_str().unwrap_or_default();
    assert_eq!(format!("sha256:{id}"), read(&config).trim());
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn a_stopped_registry_serves_the_same_again() {
    let store = TestDir::new();
    let mut registry = Registry::start_on(&store.join("store"));
    let (_, image) = pushed(&registry);
    assert_eq!(registry.stop(), Some(0), "{}", registry.log());
    let registry = Registry::start_on(&store.join("store"));
    assert_eq!(registry.image("round/trip", "one").digest, image.digest);
}

#[test]
fn a_build_goes_on_when_the_registry_is_gone() {
    let (registry, fluyt, context) = (Registry::start(), Fluyt::new(), TestDir::new());
    let base = format!("{}/team/base:one", registry.host());
    context.write("file", "content\n");
    context.write("Dockerfile", "FROM scratch\nCOPY file /\n");
    let _ = Fluyt::new().build(context.path(), &["--push", "-t", &base]).expect_success();
    context.write("Dockerfile", format!("FROM {base}\nCOPY file /again\n"));
    let first = fluyt.build(context.path(), &[]).expect_success();
    drop(registry);
    let second = fluyt.build(context.path(), &[]).expect_success().expect_message(&["warning", &base]);
    assert_eq!(first.text(), second.text());
    let refused = fluyt.build(context.path(), &["--pull"]);
    assert!(matches!(refused.code, Some(1 | 3)), "{}", refused.describe());
    let _ = refused.expect_message(&["error:", &base]);
}
