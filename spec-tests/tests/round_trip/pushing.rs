//! How a push goes: early, from registry to registry, under many names or none, and not at all when the build fails.

use std::path::Path;

use serde_json::Value;
use spec_tests::client::{Fluyt, Podman, skopeo_copy};
use spec_tests::docker::Dockerd;
use spec_tests::folder::TestDir;
use spec_tests::image::{Image, LayerBlob, Layout, violations};
use spec_tests::program;
use spec_tests::registry::Registry;
use spec_tests::samples;

use crate::sample::{busybox, odd_context, shell_context};

fn in_store(fluyt: &Fluyt, digest: &Value) -> bool {
    let hex = digest.as_str().unwrap().trim_start_matches("sha256:");
    fluyt.store().join("blobs/sha256").join(hex).exists()
}

/// The digest of the first layer of what `dockerfile` gives, without a push.
fn first_layer(context: &TestDir, epoch: &str) -> String {
    let (fluyt, folder) = (Fluyt::new(), TestDir::new());
    let layout = folder.join("layout");
    let mut command = fluyt.command();
    let output = format!("type=oci,tar=false,dest={}", layout.display());
    command.env("SOURCE_DATE_EPOCH", epoch).args(["build", "-o", &output]).arg(context.path());
    let _ = program::finish(command).expect_success();
    Layout::open(&layout).image(None).layers[0].descriptor["digest"].as_str().unwrap().to_owned()
}

/// A step that only succeeds when the layer below it is in the registry already.
fn waits_for_its_layer(registry: &Registry, then: &str) -> TestDir {
    let context = shell_context("");
    let digest = first_layer(&context, "1000000000");
    let url = format!("{}/v2/early/app/blobs/{digest}", registry.url());
    let rest = format!(
        "RUN i=0; until busybox wget -q -O /dev/null {url}; do i=$((i+1)); [ $i -lt 300 ] || exit 7; busybox sleep 0.1; done; {then}\n"
    );
    let dockerfile = std::fs::read_to_string(context.join("Dockerfile")).unwrap();
    context.write("Dockerfile", format!("{dockerfile}{rest}"));
    context
}

#[test]
fn layers_go_while_later_steps_run() {
    if !program::is_root("layers_go_while_later_steps_run") {
        return;
    }
    let (registry, fluyt) = (Registry::start(), Fluyt::new());
    let context = waits_for_its_layer(&registry, "echo done >/done");
    let reference = format!("{}/early/app:one", registry.host());
    let mut command = fluyt.command();
    command.env("SOURCE_DATE_EPOCH", "1000000000").args(["build", "--push", "-t", &reference]).arg(context.path());
    let built = program::finish(command).expect_success();
    let image = registry.image("early/app", "one");
    assert_eq!(image.digest, built.text());
    assert_eq!(violations(&image), Vec::<String>::new());
}

#[test]
fn a_build_that_fails_leaves_no_manifest() {
    if !program::is_root("a_build_that_fails_leaves_no_manifest") {
        return;
    }
    let (registry, fluyt) = (Registry::start(), Fluyt::new());
    // Its first layer is there when it fails.
    let context = waits_for_its_layer(&registry, "exit 9");
    let reference = format!("{}/early/app:one", registry.host());
    let mut command = fluyt.command();
    command.env("SOURCE_DATE_EPOCH", "1000000000").args(["build", "--push", "-t", &reference]).arg(context.path());
    let _ = program::finish(command).expect_code(1).expect_message(&["status 9"]);
    let pulled = Fluyt::new().run(["pull", &reference]);
    let _ = pulled.expect_code(1);
    let manifests =
        walk(registry.store()).into_iter().filter(|path| path.contains("manifest") && path.contains("early"));
    assert_eq!(manifests.collect::<Vec<_>>(), Vec::<String>::new());
}

#[test]
fn a_layer_with_a_secret_never_goes() {
    if !program::is_root("a_layer_with_a_secret_never_goes") {
        return;
    }
    const TOKEN: &str = "tok_4f9A-2x_Zq0Lw7";
    let (registry, fluyt) = (Registry::start(), Fluyt::new());
    let context = shell_context("COPY .env /app/\nRUN busybox sleep 1\n");
    context.write(".env", format!("TOKEN={TOKEN}\n"));
    let reference = format!("{}/early/app:one", registry.host());
    let flags = ["--compression", "uncompressed", "-t", &reference];
    // An earlier build that knew of no secret made the layer: it is in the store, and would go at once.
    let _ = fluyt.build(context.path(), &flags).expect_success();
    let mut command = fluyt.command();
    command
        .args(["build", "--push", "--secret", "id=npm,env=TOKEN"])
        .args(flags)
        .arg(context.path())
        .env("TOKEN", TOKEN);
    let outcome = program::finish(command).expect_code(1);
    assert!(outcome.stderr.contains("/app/.env holds the secret `npm`"), "{}", outcome.stderr);
    assert!(!outcome.stderr.contains(TOKEN), "{}", outcome.stderr);
    let holds = |path: &String| {
        let bytes = std::fs::read(path).unwrap_or_default();
        bytes.windows(TOKEN.len()).any(|window| window == TOKEN.as_bytes())
    };
    assert_eq!(walk(registry.store()).into_iter().filter(holds).collect::<Vec<_>>(), Vec::<String>::new());
}

/// All files below a folder.
fn walk(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(walk(&path));
        } else {
            found.push(path.display().to_string());
        }
    }
    found
}

/// A base of two layers in `registry`.
fn base_in(registry: &Registry, name: &str) -> String {
    let context = TestDir::new();
    std::fs::copy(busybox(), context.join("busybox")).unwrap();
    context.write("Dockerfile", "FROM scratch\nCOPY busybox /bin/busybox\nCOPY busybox /bin/sh\n");
    let reference = format!("{}/{name}", registry.host());
    let _ = Fluyt::new().build(context.path(), &["--push", "-t", &reference]).expect_success();
    reference
}

#[test]
fn layers_of_a_base_pass_from_registry_to_registry() {
    let (from, to, fluyt, context) = (Registry::start(), Registry::start(), Fluyt::new(), TestDir::new());
    let base = base_in(&from, "team/base:one");
    context.write("file", "content\n");
    context.write("Dockerfile", format!("FROM {base}\nCOPY --link file /file\n"));
    let reference = format!("{}/app:one", to.host());
    let _ = fluyt.build(context.path(), &["--push", "-t", &reference]).expect_success();
    let image = to.image("app", "one");
    assert_eq!(violations(&image), Vec::<String>::new());
    assert_eq!(image.layers.len(), 3);
    for layer in &image.layers[..2] {
        assert!(!in_store(&fluyt, &layer.descriptor["digest"]), "a layer of the base was kept on disk");
    }
    // The base's registry has them for another repository too, without their passing by.
    let reference = format!("{}/other/app:one", from.host());
    let _ = fluyt.build(context.path(), &["--push", "-t", &reference]).expect_success();
    assert_eq!(from.image("other/app", "one").digest, image.digest);
    assert!(!in_store(&fluyt, &image.layers[0].descriptor["digest"]));
}

/// The store has only part of what a push put in the place of an image that it has whole.
#[test]
fn a_name_means_no_image_that_a_push_replaced() {
    let (registry, fluyt, context) = (Registry::start(), Fluyt::new(), TestDir::new());
    let name = |rest: &str| format!("{}/{rest}", registry.host());
    let (upstream, base) = (name("up/stream:1"), name("team/base:1"));
    let upstream_is = |content: &str| {
        let context = TestDir::new();
        context.write("release", content);
        context.write("Dockerfile", "FROM scratch\nCOPY release /release\n");
        let _ = Fluyt::new().build(context.path(), &["--push", "-t", &upstream]).expect_success();
    };
    context.write("Dockerfile", format!("FROM {upstream}\nCOPY --link Dockerfile /\n"));
    upstream_is("first");
    // Nobody is there.
    let lost = "127.0.0.1:1/base:1";
    let old = fluyt.build(context.path(), &["-t", &base, "-t", lost]).expect_success();
    upstream_is("second");
    // What was not pushed replaces nothing.
    let _ = fluyt.build(context.path(), &["-t", lost, "--push"]).expect_code(3);
    let inspected = fluyt.run(["inspect", "--json", lost]).expect_success();
    assert_eq!(serde_json::from_str::<Value>(&inspected.stdout).unwrap()["digest"], old.text());
    let new = fluyt.build(context.path(), &["-t", &base, "--push"]).expect_success();
    assert_ne!(old.text(), new.text());
    let pushed = registry.image("team/base", "1");
    assert_eq!(pushed.digest, new.text());
    assert!(!in_store(&fluyt, &pushed.layers[0].descriptor["digest"]), "this is about an image that is not whole here");

    let other = TestDir::new();
    other.write("Dockerfile", format!("FROM {base}\nCOPY Dockerfile /other\n"));
    let _ = fluyt.build(other.path(), &["-t", &name("app:1"), "--push"]).expect_success();
    let files = registry.image("app", "1").files();
    assert_eq!(files["release"].content, samples::digest(b"second"));
    let inspected = fluyt.run(["inspect", "--json", &base]).expect_success();
    assert_eq!(serde_json::from_str::<Value>(&inspected.stdout).unwrap()["digest"], new.text());
    let _ = fluyt.run(["push", &base]).expect_code(1).expect_message(&["the store has no image"]);
    assert_eq!(registry.image("team/base", "1").digest, new.text());
    // What the note says brings it back.
    assert!(new.stderr.contains(&format!("`fluyt pull {base}`")), "{}", new.stderr);
    let _ = fluyt.run(["pull", &base]).expect_success();
    let _ = fluyt.run(["push", &base]).expect_success();
}

/// The base's layers are in its registry alone: they have to come here to be compressed again.
#[test]
fn a_base_that_is_elsewhere_is_compressed_as_forced() {
    let (registry, other, fluyt, context) = (Registry::start(), Registry::start(), Fluyt::new(), TestDir::new());
    let base = base_in(&registry, "team/base:one");
    context.write("file", "content\n");
    context.write("Dockerfile", format!("FROM {base}\nCOPY --link file /file\n"));
    let types = |image: &Image| -> Vec<String> {
        let name =
            |layer: &LayerBlob| layer.descriptor["mediaType"].as_str().unwrap().rsplit('.').next().unwrap().to_owned();
        image.layers.iter().map(name).collect()
    };
    let plain = ["-t", &format!("{}/app:plain", registry.host()), "--push", "--compression", "zstd"].map(str::to_owned);
    let plain: Vec<&str> = plain.iter().map(String::as_str).collect();
    let _ = fluyt.build(context.path(), &plain).expect_success();
    let plain = registry.image("app", "plain");
    assert_eq!(types(&plain), ["tar+gzip", "tar+gzip", "tar+zstd"]);
    assert!(!in_store(&fluyt, &plain.layers[0].descriptor["digest"]), "this is about a base that is not here");
    for to in [&registry, &other] {
        let name = format!("{}/app:forced", to.host());
        let flags = ["-t", &name, "--push", "--compression", "zstd", "--force-compression"];
        let built = fluyt.build(context.path(), &flags).expect_success();
        let forced = to.image("app", "forced");
        assert_eq!((types(&forced), &forced.digest[..]), (vec!["tar+zstd".to_owned(); 3], built.text()));
        assert_eq!(violations(&forced), Vec::<String>::new());
        assert!(forced.files() == plain.files());
        assert_eq!(forced.config["rootfs"], plain.config["rootfs"]);
    }
}

#[test]
fn layers_that_a_registry_got_before_are_mounted_into_its_other_repositories() {
    let (registry, fluyt) = (Registry::start(), Fluyt::new());
    let names = ["first/app", "second/app", "third/app"].map(|name| format!("{}/{name}:one", registry.host()));
    let context = shell_context("");
    let _ = fluyt.build(context.path(), &["--push", "-t", &names[0]]).expect_success();
    let _ = fluyt.run(["tag", &names[0], &names[1]]).expect_success();
    let _ = fluyt.run(["push", &names[1]]).expect_success();
    // Who pulled it knows as much as who pushed it.
    let other = Fluyt::new();
    let _ = other.run(["pull", &names[0]]).expect_success();
    let _ = other.run(["tag", &names[0], &names[2]]).expect_success();
    let _ = other.run(["push", &names[2]]).expect_success();
    let log = registry.log();
    for repository in ["second/app", "third/app"] {
        let mounts = log.lines().filter(|line| {
            line.contains("http.method=POST")
                && line.contains(&format!("/v2/{repository}/blobs/uploads/"))
                && line.contains("http.status=201")
        });
        // The configuration is too small to be worth it.
        assert_eq!(mounts.count(), registry.image("first/app", "one").layers.len(), "{repository}: {log}");
    }
}

#[test]
fn many_names_one_image_and_none_by_digest() {
    let (registry, fluyt, context) = (Registry::start(), Fluyt::new(), TestDir::new());
    context.write("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    let name = |rest: &str| format!("{}/{rest}", registry.host());
    let names = [name("a:1"), name("a:2"), name("b:1")];
    let mut arguments = vec!["--push"];
    names.iter().for_each(|name| arguments.extend(["-t", name]));
    let built = fluyt.build(context.path(), &arguments).expect_success();
    for (repository, tag) in [("a", "1"), ("a", "2"), ("b", "1")] {
        assert_eq!(registry.image(repository, tag).digest, built.text());
    }
    let folder = TestDir::new();
    let metadata = folder.join("metadata").display().to_string();
    let output = format!("type=image,name={},push=true,push-by-digest=true,name-canonical=true", name("c"));
    let arguments = ["-o", &output, "--metadata-file", &metadata, "--annotation", "only=here"];
    let built = fluyt.build(context.path(), &arguments).expect_success();
    assert_eq!(registry.image("c", built.text()).digest, built.text());
    let _ = Fluyt::new().run(["pull", &name("c:latest")]).expect_code(1);
    let metadata: Value = serde_json::from_slice(&std::fs::read(&metadata).unwrap()).unwrap();
    assert_eq!(metadata["image.name"], name("c").as_str());
    assert_eq!(metadata["containerimage.digest"], built.text());
    let tagged = fluyt.build(context.path(), &["-o", &output, "-t", &name("c:1")]);
    let _ = tagged.expect_code(2).expect_message(&["push-by-digest", "has a tag"]);
    // In the store it is known by its digest alone.
    let images = fluyt.run(["images"]).expect_success();
    assert!(images.stdout.contains(&format!("{}@{}", name("c"), built.text())), "{}", images.stdout);
}

/// Every compression and both families of media types, as the tools that people have read them.
#[test]
fn the_forms_of_an_image_are_read_by_those_who_read_images() {
    let test = "the_forms_of_an_image_are_read_by_those_who_read_images";
    let (registry, fluyt, context) = (Registry::start(), Fluyt::new(), odd_context());
    let (docker, podman) = (Dockerd::shared(test), Podman::new(test));
    let skopeo = program::all_installed(test, &["skopeo"]);
    let mut files = None;
    for (number, form) in [
        "compression=gzip",
        "compression=gzip-members,compression-level=6",
        "compression=zstd,compression-level=9",
        "compression=uncompressed",
        "compression=gzip,oci-mediatypes=false",
        "compression=uncompressed,oci-mediatypes=false",
    ]
    .into_iter()
    .enumerate()
    {
        let reference = format!("{}/forms:{number}", registry.host());
        let output = format!("type=registry,{form}");
        let _ = fluyt.build(context.path(), &["-o", &output, "-t", &reference]).expect_success();
        let image = registry.image("forms", &number.to_string());
        if !form.contains("oci-mediatypes=false") {
            assert_eq!(violations(&image), Vec::<String>::new(), "{form}");
        }
        let expected = files.get_or_insert_with(|| image.files());
        assert!(image.files() == *expected, "{form}: other files");
        if let Some(dockerd) = &docker {
            let _ = dockerd.docker(["pull", "--quiet", &reference]).expect_success();
            let run = dockerd.docker(["run", "--rm", "--network", "none", &reference, "id", "-u"]).expect_success();
            assert_eq!(run.text(), "1234", "{form}");
        }
        if let Some(podman) = &podman {
            let _ = podman.run(&["pull", "--quiet", "--tls-verify=false", &reference]).expect_success();
        }
        if skopeo {
            let folder = TestDir::new();
            let layout = format!("oci:{}:x", folder.join("layout").display());
            let _ = skopeo_copy(&format!("docker://{reference}"), &layout).expect_success();
        }
    }
}
