//! What `fluyt build` writes, against the image specification, and the promise that the same input gives the same bytes.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use spec_tests::client::Fluyt;
use spec_tests::folder::TestDir;
use spec_tests::image::{Image, Layout, violations};
use spec_tests::program;

use crate::sample::{odd_context, shell_context};

fn layout_of(fluyt: &Fluyt, context: &Path, arguments: &[&str]) -> (TestDir, Layout) {
    let folder = TestDir::new();
    let output = format!("type=oci,tar=false,dest={}", folder.join("layout").display());
    let mut all = vec!["-o", &output];
    all.extend(arguments);
    let _ = fluyt.build(context, &all).expect_success();
    let layout = Layout::open(&folder.join("layout"));
    (folder, layout)
}

fn built(context: &TestDir, arguments: &[&str]) -> Image {
    layout_of(&Fluyt::new(), context.path(), arguments).1.image(None)
}

#[test]
fn an_image_keeps_the_rules_of_the_specification() {
    let image = built(&odd_context(), &[]);
    assert_eq!(violations(&image), Vec::<String>::new());
    // ADD, two COPY and WORKDIR change files; the rest does not.
    assert_eq!(image.layers.len(), 4);
}

#[test]
fn a_layout_has_its_three_parts() {
    let (_folder, layout) = layout_of(&Fluyt::new(), odd_context().path(), &["-t", "example.org/odd:one"]);
    let index = layout.index();
    assert_eq!(index["schemaVersion"], 2);
    let entry = &index["manifests"][0];
    assert_eq!(entry["mediaType"], "application/vnd.oci.image.manifest.v1+json");
    assert_eq!(entry["annotations"]["org.opencontainers.image.ref.name"], "one");
    let image = layout.image(None);
    assert_eq!(entry["size"], image.manifest_bytes.len());
    // Nothing lies about that the index does not lead to.
    let mut named = vec![image.digest.clone(), image.manifest["config"]["digest"].as_str().unwrap().to_owned()];
    named.extend(image.layers.iter().map(|layer| layer.descriptor["digest"].as_str().unwrap().to_owned()));
    named.sort();
    named.dedup();
    let mut found: Vec<String> = fs::read_dir(layout.folder().join("blobs/sha256"))
        .unwrap()
        .map(|entry| format!("sha256:{}", entry.unwrap().file_name().to_string_lossy()))
        .collect();
    found.sort();
    assert_eq!(found, named);
}

#[test]
fn a_tar_of_a_layout_is_the_same_layout() {
    let (fluyt, context, folder) = (Fluyt::new(), odd_context(), TestDir::new());
    let tar = folder.join("image.tar");
    let _ = fluyt.build(context.path(), &["-o", &format!("type=oci,dest={}", tar.display())]).expect_success();
    let unpacked = Layout::unpack(&tar, &folder.folder("unpacked"));
    let (_folder, layout) = layout_of(&fluyt, context.path(), &[]);
    assert_eq!(unpacked.image(None).digest, layout.image(None).digest);
}

#[test]
fn the_configuration_says_what_the_dockerfile_says() {
    let image = built(&odd_context(), &["--label", "org.example.three=3"]);
    let runtime = image.runtime();
    assert_eq!(runtime["Env"], json!(["PATH=/bin", "GREETING=hello you"]));
    assert_eq!(runtime["Entrypoint"], json!(["/bin/busybox"]));
    assert_eq!(runtime["Cmd"], json!(["echo", "run"]));
    assert_eq!(runtime["User"], "1234:5678");
    assert_eq!(runtime["WorkingDir"], "/srv/work");
    assert_eq!(runtime["StopSignal"], "SIGINT");
    assert_eq!(runtime["ExposedPorts"], json!({"53/udp": {}, "8080/tcp": {}}));
    assert_eq!(runtime["Volumes"], json!({"/data": {}}));
    let labels = json!({"org.example.one": "1", "org.example.two": "two words", "org.example.three": "3"});
    assert_eq!(runtime["Labels"], labels);
    assert_eq!(runtime["Healthcheck"]["Test"], json!(["CMD", "/bin/busybox", "true"]));
    assert_eq!(runtime["Healthcheck"]["Interval"], 30_000_000_000_u64);
    assert_eq!(runtime["Healthcheck"]["Retries"], 2);
    assert_eq!(image.config["os"], "linux");
}

#[test]
fn files_keep_owners_modes_and_links() {
    let files = built(&odd_context(), &[]).files();
    let state = |path: &str| {
        let file = files.get(path).unwrap_or_else(|| panic!("no {path} in {:?}", files.keys()));
        (file.kind, file.mode, file.uid, file.gid)
    };
    assert_eq!(state("etc/secret"), ("file", 0o600, 1234, 5678));
    assert_eq!(state("etc/hard"), ("file", 0o600, 1234, 5678));
    assert_eq!(files["etc/hard"].content, files["etc/secret"].content);
    assert_eq!(state("bin/setuid"), ("file", 0o4755, 0, 0));
    assert_eq!(state("tmp"), ("folder", 0o1777, 0, 0));
    assert_eq!(state("home/user"), ("folder", 0o700, 1000, 1000));
    assert_eq!(state("etc/symlink").0, "symlink");
    assert_eq!(files["etc/symlink"].content, "../empty");
    assert_eq!(state("n\u{e4}me/\u{65e5}\u{672c}"), ("file", 0o640, 2_000_000, 2_000_000));
    assert_eq!(state("srv/tree/a/one"), ("file", 0o755, 12, 34));
    assert_eq!(files["etc/plain"].modified, 1_500_000_000, "ADD keeps the times of an archive");
    assert!(files.keys().any(|path| path.starts_with("long/") && path.len() > 240), "the long name is cut");
}

#[test]
fn run_leaves_only_what_it_changed() {
    if !program::is_root("run_leaves_only_what_it_changed") {
        return;
    }
    let context = shell_context(
        "RUN busybox mkdir -p /made/deep && echo one > /made/deep/one && busybox rm /bin/busybox.old 2>/dev/null; true\n\
         RUN busybox rm -r /made/deep && busybox touch /made/two\n",
    );
    let image = built(&context, &[]);
    assert_eq!(violations(&image), Vec::<String>::new());
    let files = image.files();
    assert!(files.contains_key("made/two"));
    assert!(!files.contains_key("made/deep"), "a removed folder is still there");
    // What the sandbox mounts is not the image's. The three folders that every system has stay, as with other builders, and
    // nothing is in them.
    for path in ["etc/resolv.conf", "etc/hosts", ".dockerenv"] {
        assert!(!files.contains_key(path), "the sandbox left {path} behind");
    }
    for folder in ["proc", "sys", "dev"] {
        assert_eq!((files[folder].kind, files[folder].mode), ("folder", 0o755), "{folder}");
        let below = format!("{folder}/");
        assert!(!files.keys().any(|path| path.starts_with(&below)), "the sandbox left something in {folder}");
    }
    let history = image.config["history"].as_array().cloned().unwrap_or_default();
    assert!(history.iter().any(|row| row["created_by"].as_str().is_some_and(|text| text.contains("RUN"))));
}

#[test]
fn the_second_build_does_nothing() {
    if !program::is_root("the_second_build_does_nothing") {
        return;
    }
    // Random content: only a step that does not run again gives the same digest again.
    let context = shell_context(
        "RUN busybox head -c 16 /dev/urandom > /random\nCOPY Dockerfile /copied\nRUN busybox head -c 16 /dev/urandom > /after\n",
    );
    let fluyt = Fluyt::new();
    let first = fluyt.build(context.path(), &[]).expect_success();
    let second = fluyt.build(context.path(), &[]).expect_success();
    assert_eq!(first.text(), second.text(), "a step ran again: {}", second.describe());
    let third = fluyt.build(context.path(), &["--no-cache"]).expect_success();
    assert_ne!(first.text(), third.text(), "--no-cache did not run the step again");
    // A changed file runs what depends on it, and nothing else.
    let layers = || {
        let (_folder, layout) = layout_of(&fluyt, context.path(), &[]);
        let image = layout.image(None);
        image.layers.iter().map(|layer| layer.descriptor["digest"].clone()).collect::<Vec<_>>()
    };
    let before = layers();
    context.write("Dockerfile", fs::read_to_string(context.join("Dockerfile")).unwrap() + "# changed\n");
    let after = layers();
    let same: Vec<bool> = before.iter().zip(&after).map(|(before, after)| before == after).collect();
    // Two COPYs of busybox, the RUN before the changed file, its COPY, and the RUN after it.
    assert_eq!((same, before.len(), after.len()), (vec![true, true, true, false, false], 5, 5));
    assert_eq!(after, layers());
}

#[test]
fn the_same_input_gives_the_same_digest_anywhere() {
    let build = || {
        let (fluyt, context) = (Fluyt::new(), odd_context());
        let mut command = fluyt.command();
        command
            .env("SOURCE_DATE_EPOCH", "1700000000")
            .arg("build")
            .args(["-o", &format!("type=oci,tar=false,dest={}", context.join("out").display())])
            .arg(context.path());
        // The output lies inside the context on purpose: its folder is not copied by any instruction.
        let outcome = program::finish(command).expect_success();
        let image = Layout::open(&context.join("out")).image(None);
        assert_eq!(outcome.text(), image.digest);
        image
    };
    let first = build();
    // Another second, another folder, another store.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let second = build();
    assert_eq!(first.config, second.config);
    assert_eq!(first.digest, second.digest);
    for (path, file) in first.files() {
        assert!(file.modified <= 1_700_000_000, "{path} is newer than SOURCE_DATE_EPOCH: {}", file.modified);
    }
    assert_eq!(first.config["created"], Value::from("2023-11-14T22:13:20Z"));
}

#[test]
fn run_is_reproducible_too() {
    if !program::is_root("run_is_reproducible_too") {
        return;
    }
    let build = || {
        let fluyt = Fluyt::new();
        let context =
            shell_context("RUN echo one > /one && busybox ln /one /two && busybox mkdir /three\nWORKDIR /four\n");
        let mut command = fluyt.command();
        command.env("SOURCE_DATE_EPOCH", "1700000000").arg("build").arg(context.path());
        program::finish(command).expect_success().text().to_owned()
    };
    let first = build();
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert_eq!(first, build());
}

#[test]
fn digests_are_written_where_they_are_asked_for() {
    let (fluyt, context, folder) = (Fluyt::new(), odd_context(), TestDir::new());
    let file = |name: &str| folder.join(name).to_string_lossy().into_owned();
    let (iid, digest, metadata) = (file("iid"), file("digest"), file("metadata.json"));
    let outcome = fluyt
        .build(
            context.path(),
            &["-t", "example.org/odd:one", "--iidfile", &iid, "--digest-file", &digest, "--metadata-file", &metadata],
        )
        .expect_success();
    let read = |path: &str| fs::read_to_string(path).unwrap().trim().to_owned();
    assert_eq!(read(&digest), outcome.text());
    let metadata: Value = serde_json::from_str(&read(&metadata)).unwrap();
    assert_eq!(metadata["containerimage.digest"], outcome.text());
    assert_eq!(metadata["containerimage.config.digest"], read(&iid).as_str());
    assert_eq!(metadata["image.name"], "example.org/odd:one");
}

#[test]
fn a_local_output_is_the_file_system() {
    if !program::is_root("a_local_output_is_the_file_system") {
        return;
    }
    let (fluyt, context, folder) = (Fluyt::new(), odd_context(), TestDir::new());
    let output = format!("type=local,dest={}", folder.join("root").display());
    let outcome = fluyt.build(context.path(), &["-o", &output]).expect_success();
    assert_eq!(outcome.text(), "", "with only type=local there is no image to name");
    assert_eq!(fs::read_to_string(folder.join("root/etc/plain")).unwrap(), "plain\n");
    assert_eq!(fs::read_to_string(folder.join("root/srv/tree/b/two")).unwrap(), "2\n");
}

#[test]
fn inspect_names_the_parts_of_an_image() {
    let (fluyt, context) = (Fluyt::new(), odd_context());
    let built = fluyt.build(context.path(), &["-t", "example.org/odd:one"]).expect_success();
    let shown = fluyt.run(["inspect", "--json", "example.org/odd:one"]).expect_success();
    let shown: Value = serde_json::from_str(&shown.stdout).unwrap();
    assert_eq!(shown["digest"], built.text());
    assert_eq!(shown["layers"].as_array().map(Vec::len), Some(4));
    for layer in shown["layers"].as_array().unwrap() {
        for key in ["digest", "diff_id", "media_type"] {
            assert!(layer[key].as_str().is_some_and(|text| !text.is_empty()), "{key} in {layer}");
        }
        assert!(layer["size_bytes"].as_u64().is_some(), "{layer}");
    }
    let words = fluyt.run(["inspect", "example.org/odd:one"]).expect_success();
    assert!(words.stdout.contains(built.text()), "{}", words.describe());
}
