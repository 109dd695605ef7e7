// long because a row of the table of exit codes needs the same few helpers as every test of the command line
//! The command line as its user meets it: exit codes, what is on standard output, and what is on standard error.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new(dockerfile: &str) -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap() };
        std::fs::create_dir(place.context()).unwrap();
        std::fs::write(place.context().join("Dockerfile"), dockerfile).unwrap();
        place
    }

    fn context(&self) -> std::path::PathBuf {
        self.folder.path().join("context")
    }

    fn fluyt(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fluyt"));
        command.env("FLUYT_STORE", self.folder.path().join("store")).env_remove("SOURCE_DATE_EPOCH").args(arguments);
        command.current_dir(self.folder.path()).stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.fluyt(arguments).output().unwrap()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A build's digest, checked to be all that is on standard output.
fn digest(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let stdout = text(&output.stdout);
    assert!(stdout.starts_with("sha256:") && stdout.ends_with('\n') && stdout.lines().count() == 1, "{stdout}");
    stdout.trim().to_owned()
}

#[test]
fn a_build_prints_its_digest_and_a_second_one_finds_everything() {
    let place = Place::new("FROM scratch\nCOPY Dockerfile /a\nENV A=b\n");
    let first = place.run(&["build", "-t", "app", "context"]);
    let second = place.run(&["build", "-t", "app", "context"]);
    assert_eq!(digest(&first), digest(&second));
    assert!(text(&second.stderr).contains("CACHED"), "{}", text(&second.stderr));
    assert!(text(&first.stderr).contains("--push, --load or -o"), "{}", text(&first.stderr));
    let quiet = place.run(&["build", "-q", "context"]);
    assert_eq!((digest(&quiet), text(&quiet.stderr)), (digest(&first), String::new()));
}

#[test]
fn what_goes_to_standard_output_is_alone_there() {
    let place = Place::new("FROM scratch\nCOPY Dockerfile /a\n");
    let tar = place.run(&["build", "-o", "-", "context"]);
    assert_eq!(tar.status.code(), Some(0), "{}", text(&tar.stderr));
    let mut archive = tar::Archive::new(&tar.stdout[..]);
    let names: Vec<String> =
        archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string()).collect();
    assert_eq!(names, ["a"]);
    let files = place.run(&["build", "-o", "out", "context"]);
    assert_eq!((files.status.code(), files.stdout.len()), (Some(0), 0));
    assert!(place.folder.path().join("out/a").is_file());
}

#[test]
fn files_with_digests_appear() {
    let place = Place::new("FROM scratch\nCOPY Dockerfile /a\n");
    let outputs = ["--iidfile", "i", "--digest-file", "d", "--metadata-file", "m"];
    let built = place.run(&[&["build", "-t", "app:1"][..], &outputs, &["context"]].concat());
    let read = |name: &str| std::fs::read_to_string(place.folder.path().join(name)).unwrap();
    assert_eq!(read("d"), digest(&built));
    let metadata: serde_json::Value = serde_json::from_str(&read("m")).unwrap();
    assert_eq!(metadata["containerimage.digest"], digest(&built));
    assert_eq!(metadata["containerimage.config.digest"], read("i"));
    assert_eq!(metadata["image.name"], "docker.io/library/app:1");
    assert_eq!(metadata["containerimage.descriptor"]["digest"], digest(&built));
}

/// As with buildx: folders that are written make those above them, files do not.
#[test]
fn folders_of_an_output_are_made_with_those_above() {
    let place = Place::new("FROM scratch\nCOPY Dockerfile /a\n");
    let path = |name: &str| place.folder.path().join(name);
    for (output, made) in [
        ("out/bin", "out/bin/a"),
        ("type=local,dest=./far/away/", "far/away/a"),
        ("type=oci,tar=false,dest=layouts/one", "layouts/one/index.json"),
    ] {
        for _ in 0..2 {
            let built = place.run(&["build", "-o", output, "context"]);
            assert!(built.status.success(), "{output}: {}", text(&built.stderr));
            assert!(path(made).is_file(), "{output}");
        }
    }
    let built = place.run(&["build", "-o", "type=tar,dest=new/a.tar", "context"]);
    assert_eq!(built.status.code(), Some(1));
    assert!(text(&built.stderr).contains("there is no folder new; make it first"), "{}", text(&built.stderr));
    assert!(!path("new").exists());
    let built = place.run(&["build", "-o", "context/Dockerfile/below", "context"]);
    assert_eq!(built.status.code(), Some(1), "{}", text(&built.stderr));
    assert!(!text(&built.stderr).contains("COPY"), "{}", text(&built.stderr));
}

#[test]
fn images_are_named_and_unnamed() {
    let place = Place::new("FROM scratch\nCOPY Dockerfile /a\n");
    digest(&place.run(&["build", "-t", "one", "context"]));
    assert_eq!(place.run(&["tag", "one", "registry.example/two:x"]).status.code(), Some(0));
    let list = text(&place.run(&["images"]).stdout);
    assert!(list.contains("one:latest") && list.contains("registry.example/two:x"), "{list}");
    let row: serde_json::Value =
        serde_json::from_str(text(&place.run(&["images", "--json"]).stdout).lines().next().unwrap()).unwrap();
    assert_eq!(row["name"], "docker.io/library/one:latest");
    let removed = place.run(&["rmi", "absent", "one", "gone"]);
    assert_eq!(removed.status.code(), Some(1));
    let told = text(&removed.stderr);
    assert!(told.contains("library/absent:latest, ") && told.contains("library/gone:latest"), "{told}");
    assert!(!text(&place.run(&["images"]).stdout).contains("one:latest"));
    assert_eq!(place.run(&["inspect", "registry.example/two:x"]).status.code(), Some(0));
}

#[test]
fn a_digest_names_the_image_that_has_it() {
    let place = Place::new("FROM scratch\nCOPY Dockerfile /a\n");
    let whole = digest(&place.run(&["build", "context"]));
    let told = |arguments: &[&str], code: i32| {
        let output = place.run(arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", text(&output.stderr));
        text(&output.stderr) + &text(&output.stdout)
    };
    assert!(told(&["inspect", &whole], 0).contains(&whole));
    assert!(told(&["push", &whole], 1).contains(&format!("hint: `fluyt tag {whole} NAME` gives it one")));
    told(&["tag", &whole, "127.0.0.1:9/one"], 0);
    let short = &whole[..19];
    assert!(told(&["inspect", short], 0).contains("127.0.0.1:9/one:latest"));
    assert!(told(&["push", short], 3).contains("cannot push 127.0.0.1:9/one:latest"));
    told(&["tag", short, "two"], 0);
    let several = told(&["rmi", short], 1);
    assert!(several.contains("has several names: 127.0.0.1:9/one:latest, two:latest"), "{several}");
    told(&["rmi", "two"], 0);
    told(&["rmi", short], 0);
    assert_eq!(text(&place.run(&["images", "-q"]).stdout), "");
    assert!(told(&["inspect", "sha256:000000000000"], 1).contains("the store has no image sha256:000000000000"));
}

#[test]
fn usage_does_not_ask_for_what_the_environment_says() {
    let place = Place::new("FROM scratch\n");
    let mut command = place.fluyt(&["build"]);
    command.env("FLUYT_STORE_LIMIT", "1GB").env("BUILDKIT_PROGRESS", "plain");
    let told = text(&command.output().unwrap().stderr);
    assert!(told.contains("Usage: fluyt build [OPTIONS] <CONTEXT>\n") && told.contains("\n  <CONTEXT>\n"), "{told}");
}

#[test]
fn a_stage_that_comes_later_is_not_what_was_meant() {
    let place = Place::new("FROM a AS b\nFROM b AS a\n");
    let mut command = place.fluyt(&["build", "--retry", "0", "context"]);
    // Nobody is asked.
    let output = command.env("HTTPS_PROXY", "http://127.0.0.1:9").env("https_proxy", "http://127.0.0.1:9").output();
    let told = text(&output.unwrap().stderr);
    assert!(told.contains("hint: the stage `a` is no earlier one"), "{told}");
}

/// A machine that lost its power may have the indexes of layers empty, or cut.
#[test]
fn an_index_that_was_lost_is_made_again() {
    let dockerfile = |name: &str| format!("FROM scratch AS a\nCOPY x /a/\nFROM scratch\nCOPY --from=a /a/x /{name}\n");
    let place = Place::new(&dockerfile("first"));
    std::fs::write(place.context().join("x"), "content").unwrap();
    let build = |name: &str| {
        std::fs::write(place.context().join("Dockerfile"), dockerfile(name)).unwrap();
        let files = place.run(&["build", "-o", name, "context"]);
        assert_eq!(files.status.code(), Some(0), "{}", text(&files.stderr));
        assert_eq!(std::fs::read_to_string(place.folder.path().join(name).join(name)).unwrap(), "content");
        text(&files.stderr)
    };
    build("first");
    for (name, kept) in [("second", 0), ("third", 40)] {
        let mut cut = 0;
        for index in std::fs::read_dir(place.folder.path().join("store/indexes")).unwrap() {
            let path = index.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "json") {
                std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(kept).unwrap();
                cut += 1;
            }
        }
        assert!(cut >= 2, "{cut}");
        let told = build(name);
        assert!(told.contains("CACHED"), "{told}");
    }
}

#[test]
fn what_is_missing_of_an_image_is_made_again_by_a_build() {
    let place = Place::new("FROM scratch\nCOPY Dockerfile /a\n");
    let built = digest(&place.run(&["build", "-t", "127.0.0.1:9/one", "context"]));
    let blob = place.folder.path().join("store/blobs").join(built.replace(':', "/"));
    std::fs::remove_file(blob).unwrap();
    let pushed = place.run(&["push", "127.0.0.1:9/one"]);
    let told = text(&pushed.stderr);
    assert!(told.contains("the store does not have manifest sha256:"), "{told}");
    assert!(told.contains("hint: building the image again makes what is missing"), "{told}");
    assert_eq!(digest(&place.run(&["build", "-t", "127.0.0.1:9/one", "context"])), built);
}

#[test]
fn archives_and_layouts_are_looked_into() {
    let place = Place::new("FROM scratch\nCOPY Dockerfile /a\nCMD [\"/a\"]\n");
    let built = digest(&place.run(&["build", "context"]));
    let failed = |name: &str| {
        let told = place.run(&["inspect", name]);
        assert_eq!(told.status.code(), Some(1), "{}", text(&told.stdout));
        text(&told.stderr)
    };
    for (name, output) in [
        ("app.tar", "type=oci,dest=app.tar"),
        ("docker.tar", "type=docker,dest=docker.tar"),
        ("./layout", "type=oci,tar=false,dest=layout"),
    ] {
        assert_eq!(place.run(&["build", "-t", "app:1", "-o", output, "context"]).status.code(), Some(0));
        let told = place.run(&["inspect", "--json", name]);
        assert_eq!(told.status.code(), Some(0), "{}", text(&told.stderr));
        let shown: serde_json::Value = serde_json::from_slice(&told.stdout).unwrap();
        assert_eq!((&shown["digest"], &shown["ref"]), (&built.clone().into(), &"docker.io/library/app:1".into()));
        assert_eq!(
            (&shown["config"]["config"]["Cmd"][0], shown["layers"].as_array().unwrap().len()),
            (&"/a".into(), 1)
        );
    }
    let mut packed = Command::new("tar");
    packed.args(["cf", "dots.tar", "-C", "layout", "."]).current_dir(place.folder.path());
    assert!(packed.status().unwrap().success());
    assert_eq!(place.run(&["inspect", "./dots.tar"]).status.code(), Some(0));

    let manifest = place.folder.path().join("layout/blobs/sha256").join(&built[7..]);
    let mut bytes = std::fs::read(&manifest).unwrap();
    bytes.push(b' ');
    std::fs::remove_file(&manifest).unwrap();
    std::fs::write(&manifest, bytes).unwrap();
    assert!(failed("./layout").contains("is damaged: its bytes hash to sha256:"));
    std::fs::remove_file(&manifest).unwrap();
    assert!(failed("./layout").contains(&format!("it has no `blobs/sha256/{}`", &built[7..])));
    assert!(failed("context/Dockerfile").contains("context/Dockerfile cannot be looked at as an image: "));
    assert_eq!(
        place.run(&["build", "-o", "type=oci,tar=false,dest=two", "-t", "one", "context"]).status.code(),
        Some(0)
    );
    let more = ["build", "-o", "type=oci,tar=false,dest=two", "-t", "two", "--label", "a=b", "context"];
    assert_eq!(place.run(&more).status.code(), Some(0));
    assert!(failed("./two").contains("it has 2 images: docker.io/library/one:latest, docker.io/library/two:latest"));
}

#[test]
fn a_store_of_another_user_is_told_of_by_the_ids_that_are_seen() {
    let place = Place::new("FROM scratch\nCOPY Dockerfile /a\n");
    let store = place.folder.path().join("store");
    std::fs::create_dir(&store).unwrap();
    if std::os::unix::fs::chown(&store, Some(4321), None).is_err() {
        return;
    }
    let said = |arguments: &[&str]| text(&place.run(arguments).stderr);
    let told = said(&["images"]);
    assert!(told.contains("belongs to user 4321, and we run as user 0"), "{told}");
    assert_eq!(said(&["build", "--isolation", "r3", "context"]), told);
}

#[test]
fn exit_codes_say_whose_turn_it_is() {
    let place = Place::new("FROM scratch\nCOPY absent /\n");
    for (arguments, code, word) in [
        (&["build", "context"][..], 1, "absent"),
        (&["build", "--wat", "context"], 2, "--wat"),
        (&["build", "--isolation-min", "auto", "context"], 1, "absent"),
        (&["build", "-o", "type=zip,dest=x", "context"], 2, "zip"),
        (&["build", "--platform", "linux/a/b/c", "context"], 2, "linux/a/b/c"),
        (&["build", "--build-arg", "SOURCE_DATE_EPOCH=soon", "context"], 2, "soon"),
        (&["build", "-t", "a b", "context"], 2, "a b"),
        (&["build", "https://example.com/x.git?what=x"], 2, "x.git"),
        (&["build", "--iidfile", "no/such/file", "context"], 1, "no/such"),
        (&["build", "-o", "type=oci,dest=no/such.tar", "context"], 1, "there is no folder no"),
        (&["build", "file:///no/such/folder"], 1, "name the folder itself, without `file://`"),
        (&["push", "nothing"], 1, "nothing"),
        (&["--store", "context", "images"], 1, "no store"),
        (&["pull", "--authfile", "no.json", "127.0.0.1:9/x"], 1, "no.json"),
        (&["images", "--json", "-q"], 2, "--quiet"),
        (&["--store", "/proc/self/nope", "images"], 1, "with `--store DIR` or FLUYT_STORE"),
        (&["build", "-o", "type=oci,tar=false,dest=context", "context"], 1, "context holds other files"),
        (&["build", "-o", "type=tar,dest=context", "context"], 1, "context is a folder"),
        (&["build", "-o", "type=local,dest=context/Dockerfile", "context"], 1, "context/Dockerfile is a file"),
        (&["build", "--metadata-file", "context", "context"], 1, "context is a folder"),
        (&["pull", "-o", "context", "127.0.0.1:9/x"], 1, "context holds other files"),
        (&["push", "--digest-file", "no/such", "127.0.0.1:9/x"], 1, "there is no folder no"),
    ] {
        let output = place.run(arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", text(&output.stderr));
        assert!(text(&output.stderr).contains(word), "{arguments:?}: {}", text(&output.stderr));
        assert_eq!(text(&output.stdout), "", "{arguments:?}");
    }
}

#[test]
fn a_place_that_refuses_the_image_is_told_with_those_that_have_it() {
    let place = Place::new("FROM scratch\nCOPY Dockerfile /a\n");
    let docker = place.folder.path().join("docker");
    std::fs::write(&docker, "#!/bin/sh\necho Cannot connect to the Docker daemon >&2\nexit 1\n").unwrap();
    std::fs::set_permissions(&docker, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut build = place.fluyt(&["build", "-o", "type=oci,dest=a.tar", "--load", "context"]);
    let path = format!("{}:{}", place.folder.path().display(), std::env::var("PATH").unwrap_or_default());
    let output = build.env("PATH", path).output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("these have the image: a.tar\n") && said.contains("-o type=docker,dest=- ... | podman load"),
        "{said}"
    );
}

/// What cannot be written is told before the first step, and nothing is made or cut for the question.
#[test]
fn places_without_rights_are_told_before_the_build() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let place = Place::new("FROM scratch\nCOPY Dockerfile /a\n");
    let path = |name: &str| place.folder.path().join(name);
    std::fs::set_permissions(place.folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::write(path("there.tar"), "as it was").unwrap();
    for folder in ["store", "ours"] {
        std::fs::create_dir(path(folder)).unwrap();
        std::os::unix::fs::chown(path(folder), Some(65_534), Some(65_534)).unwrap();
    }
    let run = |arguments: &[&str]| {
        let mut command = place.fluyt(arguments);
        command.env("HOME", "/nonexistent").uid(65_534).gid(65_534);
        command.output().unwrap()
    };
    let listed = || std::fs::read_dir(place.folder.path()).unwrap().count();
    let before = listed();
    for flags in [
        &["-o", "type=tar,dest=there.tar"][..],
        &["-o", "type=oci,dest=new.tar"],
        &["-o", "type=oci,tar=false,dest=new"],
        &["-o", "new"],
        &["-o", "new/deep/down"],
        &["-o", "context"],
        &["--iidfile", "new"],
        &["--digest-file", "there.tar"],
        &["--metadata-file", "new"],
        &["--timeline", "new"],
    ] {
        let output = run(&[&["build"], flags, &["context"]].concat());
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{flags:?}: {told}");
        assert!(told.starts_with("error: cannot write ") && told.contains("Permission denied"), "{flags:?}: {told}");
        assert!(!told.contains("COPY"), "{flags:?}: {told}");
    }
    assert_eq!((listed(), std::fs::read_to_string(path("there.tar")).unwrap()), (before, "as it was".to_owned()));
    let output =
        run(&["build", "-o", "type=oci,dest=ours/a.tar", "--iidfile", "ours/i", "--timeline", "/dev/null", "context"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(path("ours/a.tar").is_file() && path("ours/i").is_file());
}

#[test]
fn a_folder_that_is_there_is_filled_and_filled_again() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let place = Place::new("FROM scratch\nCOPY --chmod=555 below /below\n");
    std::fs::create_dir_all(place.context().join("below/it")).unwrap();
    std::fs::write(place.context().join("below/it/file"), "x").unwrap();
    std::fs::set_permissions(place.folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = |name: &str| place.folder.path().join(name);
    for folder in ["store", "out", "layout"] {
        std::fs::create_dir(path(folder)).unwrap();
        std::os::unix::fs::chown(path(folder), Some(65_534), Some(65_534)).unwrap();
    }
    let inode = path("layout").metadata().unwrap().ino();
    let run = |arguments: &[&str], folder: &std::path::Path| {
        let mut command = place.fluyt(arguments);
        command.env("HOME", "/nonexistent").uid(65_534).gid(65_534).current_dir(folder);
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", text(&output.stderr));
    };
    let context = place.context();
    let context = context.to_str().unwrap();
    for _ in 0..2 {
        // A user who may nothing but what the modes say.
        run(&["build", "--isolation", "r5", "-o", "out", context], place.folder.path());
        run(&["build", "-t", "a:1", "-o", "type=oci,tar=false,dest=.", context], &path("layout"));
    }
    assert_eq!(path("out/below/it").metadata().unwrap().mode() & 0o777, 0o555);
    assert_eq!(path("layout").metadata().unwrap().ino(), inode, "the folder may be a file system of its own");
    let ours = |arguments: &[&str]| {
        let mut command = place.fluyt(arguments);
        command.env("FLUYT_STORE", path("roots"));
        command
    };
    let output = ours(&["inspect", "layout"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    // Names that come at the same time all stay.
    let builds: Vec<_> = (0..6)
        .map(|number| {
            let output = ["-t", &format!("b:{number}"), "-o", "type=oci,tar=false,dest=layout"].map(str::to_owned);
            let mut build = ours(&["build"]);
            build.args(output).arg(context).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for build in builds {
        let output = build.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    }
    let index = std::fs::read_to_string(path("layout/index.json")).unwrap();
    for number in 0..6 {
        assert!(index.contains(&format!("docker.io/library/b:{number}")), "{number}: {index}");
    }
}

#[test]
fn outputs_are_what_they_are_for_buildx() {
    let place = Place::new("FROM scratch\nCOPY Dockerfile /a\n");
    let said = |arguments: &[&str]| {
        let mut command = place.fluyt(&[&["build"], arguments, &["context"]].concat());
        // A variable without a value is none.
        let output = command.env("BUILDKIT_PROGRESS", "").env("FLUYT_STORE_LIMIT", "").output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", text(&output.stderr));
        (output.stdout, text(&output.stderr))
    };
    let is_there = |name: &str| place.run(&["inspect", name]).status.code() == Some(0);
    let (_, told) = said(&["-t", "kept", "-o", "type=cacheonly"]);
    assert!(told.contains("note: `-t` has no effect: ") && !is_there("kept"), "{told}");
    said(&["-t", "kept", "-o", "", "--annotation", "", "--progress", "none"]);
    assert!(is_there("kept"));
    let (archive, _) = said(&["-o", "type=oci"]);
    assert!(archive.windows(10).any(|bytes| bytes == b"oci-layout"), "no archive");
    let (_, told) = said(&["-t", "typed", "-o", "type=oci,dest=a.tar,name=other"]);
    assert!(told.contains("note: `name=other` of an output has no effect: `-t` names the image"), "{told}");
    assert_eq!((is_there("typed"), is_there("other")), (true, false));
}

#[test]
fn help_version_completions_and_manual_are_data() {
    let place = Place::new("");
    for (arguments, word) in [
        (&["--help"][..], "Exit codes"),
        (&["build", "--help"], "--build-arg"),
        (&["version"], "fluyt 0."),
        (&["--version"], "fluyt 0."),
        (&["version", "--json"], "\"version\""),
        (&["completion", "bash"], "_fluyt"),
        (&["man"], ".TH fluyt"),
    ] {
        let output = place.run(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(text(&output.stdout).contains(word), "{arguments:?}: {}", text(&output.stdout));
    }
}

#[test]
fn the_epoch_makes_the_same_bytes_in_another_folder_at_another_time() {
    let build = || {
        let place = Place::new("FROM scratch\nWORKDIR /made/here\nCOPY Dockerfile file ./\n");
        std::fs::write(place.context().join("file"), "content").unwrap();
        let mut command = place.fluyt(&["build", "context"]);
        digest(&command.env("SOURCE_DATE_EPOCH", "1700000000").output().unwrap())
    };
    let first = build();
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(first, build());
}

#[test]
fn an_interrupt_ends_a_run_and_leaves_nothing() {
    let busybox = Path::new("/bin/busybox");
    if !rustix::process::geteuid().is_root() || !busybox.is_file() {
        eprintln!("skipped: needs root and busybox-static");
        return;
    }
    let place = Place::new("FROM scratch\nCOPY busybox /bin/busybox\nRUN [\"/bin/busybox\", \"sleep\", \"4711\"]\n");
    std::fs::copy(busybox, place.context().join("busybox")).unwrap();
    let mut child =
        place.fluyt(&["build", "-t", "app", "context"]).stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let sleeping = || {
        let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
        processes
            .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
            .any(|line| line.ends_with(b"sleep\x004711\0"))
    };
    let wait = |wanted: bool| {
        let start = Instant::now();
        while sleeping() != wanted && start.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(sleeping(), wanted);
    };
    wait(true);
    let process = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(process, rustix::process::Signal::INT).unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(130));
    wait(false);
    assert!(!text(&place.run(&["images"]).stdout).contains("app"));
}

/// Sends SIGTERM as soon as that is listened to; gives the exit code and what was said.
fn terminated(mut command: Command) -> (Option<i32>, String) {
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let listens = || {
        let status = std::fs::read_to_string(&status).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
        u64::from_str_radix(caught.trim(), 16).unwrap() & (1 << 14) != 0
    };
    let start = Instant::now();
    while !listens() && start.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(20));
    }
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::TERM).unwrap();
    let output = child.wait_with_output().unwrap();
    (output.status.code(), text(&output.stderr))
}

#[test]
fn a_prune_hears_signals() {
    let place = Place::new("FROM scratch\nCOPY Dockerfile /a\n");
    digest(&place.run(&["build", "context"]));
    // Nobody writes what it reads.
    let records = std::fs::read_dir(place.folder.path().join("store/records")).unwrap();
    let pipe = records.map(|schema| schema.unwrap().path()).find(|path| path.is_dir()).unwrap().join("pipe.json");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    assert_eq!(terminated(place.fluyt(&["prune"])), (Some(130), "error: interrupted\n".to_owned()));
}

#[test]
fn a_dockerfile_that_nobody_writes_can_be_given_up() {
    let place = Place::new("FROM scratch\n");
    let pipe = place.folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let mut child = place.fluyt(&["build", "-f", "pipe", "context"]).stderr(Stdio::piped()).spawn().unwrap();
    // The line before the read says that signals are listened to by now.
    let mut line = [0; 4];
    std::io::Read::read_exact(child.stderr.as_mut().unwrap(), &mut line).unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    // One that somebody writes is a Dockerfile like any other.
    let writer = std::thread::spawn(move || std::fs::write(pipe, "FROM scratch\nCOPY Dockerfile /\n").unwrap());
    digest(&place.run(&["build", "-f", "pipe", "context"]));
    writer.join().unwrap();
}

#[test]
fn a_quiet_build_shows_what_a_failed_command_printed() {
    let busybox = Path::new("/bin/busybox");
    if !rustix::process::geteuid().is_root() || !busybox.is_file() {
        eprintln!("skipped: needs root and busybox-static");
        return;
    }
    let dockerfile = "FROM scratch\nCOPY busybox /bin/sh\nRUN true\nRUN echo fine\nRUN echo why >&2; exit 7\n";
    let place = Place::new(dockerfile);
    std::fs::copy(busybox, place.context().join("busybox")).unwrap();
    let failed = place.run(&["build", "-q", "context"]);
    assert_eq!(failed.status.code(), Some(1));
    let told = text(&failed.stderr);
    assert!(told.starts_with("------\n > [4/4] RUN echo why >&2; exit 7:\n") && told.contains(" why\n"), "{told}");
    assert!(told.contains("   5 | >>> RUN echo why >&2; exit 7\n") && told.contains("status 7"), "{told}");
}

#[test]
fn the_log_has_every_line_of_a_command_that_failed() {
    let busybox = Path::new("/bin/busybox");
    if !rustix::process::geteuid().is_root() || !busybox.is_file() {
        eprintln!("skipped: needs root and busybox-static");
        return;
    }
    // To both streams, and faster than anybody reads.
    let script = "i=0; while [ $i -lt 300 ]; do echo out $i; echo err $i >&2; i=$((i+1)); done; exit 7";
    let place = Place::new(&format!("FROM scratch\nCOPY busybox /bin/sh\nRUN {script}\n"));
    std::fs::copy(busybox, place.context().join("busybox")).unwrap();
    for flags in [&["-q"][..], &["--progress", "plain"]] {
        let failed = place.run(&[&["build"], flags, &["context"]].concat());
        assert_eq!(failed.status.code(), Some(1));
        let told = text(&failed.stderr);
        let end = &told[told.find("------\n > ").unwrap()..];
        assert!(end.contains("earlier lines are in the log\n"), "{told}");
        assert!(end.contains(" 299\n") && !end.contains(" out 200\n") && !end.contains(" err 200\n"), "{told}");
        let log = end.lines().find_map(|line| line.strip_prefix("hint: the whole log is in ")).unwrap();
        let log = std::fs::read_to_string(log).unwrap();
        for stream in ["out", "err"] {
            let lines = log.lines().filter_map(|line| line.split_once(&format!(" {stream} ")));
            // Those of the step itself, and not the end that is shown once more.
            let numbers: Vec<usize> = lines
                .filter(|(before, _)| before.starts_with('#'))
                .filter_map(|(_, number)| number.parse().ok())
                .collect();
            assert_eq!(numbers, (0..300).collect::<Vec<_>>(), "{stream}");
        }
    }
}

#[test]
fn what_has_no_effect_yet_is_said_once_and_what_cannot_be_is_refused() {
    let place = Place::new("FROM scratch\nCOPY Dockerfile /a\n");
    let plain = place.run(&["build", "context"]);
    let noted = ["build", "--provenance=mode=max", "--sbom=true", "--cache-to=type=gha", "--builder=b", "context"];
    let noted = place.run(&noted);
    assert_eq!(digest(&noted), digest(&plain));
    let said = text(&noted.stderr);
    for flag in ["`--provenance` has no effect yet", "`--sbom` has no effect yet", "`--cache-to` has no effect yet"] {
        assert_eq!(said.matches(flag).count(), 1, "{said}");
    }
    assert!(!said.contains("--builder"), "{said}");
    let refused = place.run(&["build", "--policy=filename=p.rego", "context"]);
    assert_eq!((refused.status.code(), text(&refused.stdout)), (Some(2), String::new()));
    let said = text(&refused.stderr);
    assert!(said.contains("error: `--policy` is not there yet\nhint: policies are not evaluated"), "{said}");
    // buildx takes these unasked.
    let variable = ("EXPERIMENTAL_BUILDKIT_SOURCE_POLICY", "p.json");
    let refused = place.fluyt(&["build", "context"]).env(variable.0, variable.1).output().unwrap();
    assert!(refused.status.code() == Some(2) && text(&refused.stderr).contains(variable.0));
    std::fs::write(place.context().join("Dockerfile.rego"), "package docker\n").unwrap();
    let refused = place.run(&["build", "context"]);
    let said = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(
        said.contains("context/Dockerfile.rego is a policy") && said.contains("policies are not evaluated"),
        "{said}"
    );
    let packed = place.folder.path().join("context.tar");
    let mut tar = tar::Builder::new(std::fs::File::create(&packed).unwrap());
    tar.append_dir_all(".", place.context()).unwrap();
    tar.finish().unwrap();
    let refused = place.fluyt(&["build", "-"]).stdin(std::fs::File::open(&packed).unwrap()).output().unwrap();
    assert!(refused.status.code() == Some(2) && text(&refused.stderr).contains("Dockerfile.rego is a policy"));
    let built =
        place.fluyt(&["build", "--policy=disabled=true", "context"]).env(variable.0, variable.1).output().unwrap();
    assert_eq!(digest(&built), digest(&plain));
}

#[test]
fn empty_values_are_none_as_with_buildx() {
    let place = Place::new("FROM scratch\nARG A=a\nCOPY Dockerfile /a\n");
    let plain = place.run(&["build", "context"]);
    let empty = ["secret", "attest", "ssh", "allow", "build-arg", "cache-from", "cache-to", "no-cache-filter"];
    let flags: Vec<String> = empty.iter().map(|flag| format!("--{flag}=")).collect();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let output = place.run(&[&["build", "--allow=buildx.local.delete"][..], &flags, &["context"]].concat());
    assert_eq!(digest(&output), digest(&plain));
    assert!(!text(&output.stderr).contains("no effect"), "{}", text(&output.stderr));
    let value = std::ffi::OsStr::from_bytes(b"\xFF");
    let refused = place.fluyt(&["build", "--build-arg", "A", "context"]).env("A", value).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("the value of the variable A is no UTF-8 text"));
}

#[test]
fn processors_that_are_not_there_are_refused_before_anything_is_built() {
    let place = Place::new("FROM scratch\nCOPY Dockerfile /a\n");
    let output = place.run(&["build", "--cpuset-cpus", "0-60000", "context"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("`--cpuset-cpus`: the processors `0-60000` cannot be used: expected numbers"), "{said}");
}

#[test]
fn dockers_variables_and_configuration_count() {
    let place = Place::new("FROM scratch\nARG http_proxy\nLABEL proxy=$http_proxy\nCOPY Dockerfile /a\n");
    let folder = place.folder.path().join("docker");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("config.json"), r#"{"proxies":{"default":{"httpProxy":"http://p:1"}}}"#).unwrap();
    let inspect = || text(&place.run(&["inspect", "--json", "app"]).stdout);
    let built = place.fluyt(&["build", "-t", "app", "context"]).env("DOCKER_CONFIG", &folder).output().unwrap();
    digest(&built);
    assert!(inspect().contains("http://p:1"), "{}", inspect());
    let arm = place.fluyt(&["build", "-t", "app", "context"]).env("DOCKER_DEFAULT_PLATFORM", "linux/arm64").output();
    digest(&arm.unwrap());
    let shown = text(&place.run(&["inspect", "--platform", "linux/arm64", "--json", "app"]).stdout);
    assert!(shown.contains("arm64"), "{shown}");
    std::fs::write(folder.join("config.json"), "{").unwrap();
    let broken = place.fluyt(&["build", "context"]).env("DOCKER_CONFIG", &folder).output().unwrap();
    assert_eq!(broken.status.code(), Some(1), "{}", text(&broken.stderr));
}

#[test]
fn an_image_of_the_store_is_a_base_for_machines_that_run_it() {
    let place = Place::new("FROM scratch\nCOPY Dockerfile /a\n");
    let build = |platform: &str, name: &str| place.run(&["build", "--platform", platform, "-t", name, "context"]);
    digest(&build("linux/arm/v7", "127.0.0.1:1/high:1"));
    digest(&build("linux/arm/v6", "127.0.0.1:1/low:1"));
    std::fs::write(place.context().join("Dockerfile"), "FROM 127.0.0.1:1/high:1\nCOPY Dockerfile /b\n").unwrap();
    let refused = build("linux/arm/v6", "top");
    let said = text(&refused.stderr);
    assert!(said.contains("high:1 in the store is for linux/arm/v7, not for linux/arm/v6"), "{said}");
    assert_eq!(refused.status.code(), Some(3), "{said}");
    digest(&build("linux/arm/v7", "top"));
    std::fs::write(place.context().join("Dockerfile"), "FROM 127.0.0.1:1/low:1\nCOPY Dockerfile /b\n").unwrap();
    digest(&build("linux/arm/v7", "top"));
    digest(&build("linux/arm/v8", "top"));
    // It would run there too, and is no image for 64 bits.
    assert_eq!(build("linux/arm64", "top").status.code(), Some(3));
}

#[test]
fn an_image_that_no_later_build_could_read_is_refused() {
    // A label is in the configuration and in its history.
    let label = |number| format!("LABEL a{number}={}\n", "x".repeat(60_000));
    let place = Place::new(&format!("FROM scratch\n{}", (0..75).map(label).collect::<String>()));
    let refused = place.run(&["build", "-t", "large", "context"]);
    let said = text(&refused.stderr);
    let end = &said[said.len().saturating_sub(500)..];
    assert_eq!(refused.status.code(), Some(1), "{end}");
    assert!(end.contains("the image's configuration has 9") && end.contains("at most 8388608"), "{end}");
}

#[test]
fn doctor_tells_how_commands_run_here() {
    let place = Place::new("FROM scratch\n");
    let told = place.run(&["doctor", "--json"]);
    assert_eq!((told.status.code(), text(&told.stderr)), (Some(0), String::new()));
    let report: serde_json::Value = serde_json::from_slice(&told.stdout).unwrap();
    let rung = report["rung"].as_str().unwrap().to_owned();
    assert_eq!(rung != "r5", report["fidelity"].is_string(), "{report}");
    let (snapshots, network) = match rung.as_str() {
        "r1" | "r2" | "r3" => ("overlay", "host"),
        "r4" | "r6" => ("mutable-root", "host"),
        _ => ("none", "none"),
    };
    assert_eq!((&report["snapshots"], &report["network"]), (&snapshots.into(), &network.into()), "{report}");
    for refused in report["refused"].as_array().unwrap() {
        assert!(refused["rung"].is_string() && !refused["fix"].as_str().unwrap().is_empty(), "{report}");
    }
    let words = place.run(&["doctor"]);
    assert!(text(&words.stdout).starts_with(&format!("RUN        {rung}: ")), "{}", text(&words.stdout));
    // A question for one way is answered by the exit code.
    let asked = place.run(&["doctor", "--isolation", "r5"]);
    assert_eq!(asked.status.code(), Some(0));
    let asked = place.run(&["doctor", "--isolation", &rung]);
    assert_eq!(asked.status.code(), Some(0), "{}", text(&asked.stdout));
}

#[test]
fn what_means_nothing_in_this_dockerfile_is_told() {
    let place =
        Place::new("# check=skip=StageNameCasing,SecretsUsedInArgOrEvn\nFROM scratch AS base\nARG X=known\nENV A=b\n");
    let contexts = ["--build-context", "other=context", "--build-context", "known=context"];
    let flags = [
        "--no-cache-filter",
        "Bse,base",
        "--cache-from",
        "a/b:c",
        "--cache-to",
        "type=gha",
        "--platform",
        "linux/amd46",
    ];
    let output = place.run(&[&["build"][..], &contexts, &flags, &["context"]].concat());
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    for told in [
        "there is no build check `SecretsUsedInArgOrEvn`; did you mean `SecretsUsedInArgOrEnv`?",
        "`--no-cache-filter bse` has no effect: the Dockerfile has no stage of that name; did you mean `base`?",
        "`--build-context other` has no effect: the Dockerfile does not name it",
        "the image is for `linux/amd46`, and no platform has the name `amd46`; did you mean `amd64`?",
        "note: `--cache-from` and `--cache-to` have no effect yet: ",
    ] {
        assert_eq!(said.matches(told).count(), 1, "{told}: {said}");
    }
    assert!(!said.contains("`StageNameCasing`") && !said.contains("`--build-context known`"), "{said}");
}

#[test]
fn messages_say_what_was_expected() {
    for (dockerfile, expected) in [
        ("FROM scratch\nEXPOSE 70000\n", "expected a number up to 65535, or a range such as `8000-8010`"),
        (
            "FROM scratch\nRUN --mount=type=tmpfs,target=/x,size=abc true\n",
            "invalid size `abc`: expected a number of bytes, or one with a unit such as `64m` or `1.5g`",
        ),
        ("FROM scratch\nENV A=x B=${A^^}\n", "expected `-`, `+` or `?`, each also behind `:`, or `#`"),
        ("FROM scratch\nCMD ['a', 'b']\n", "a JSON list has double quotes: `[\"a\", \"b\"]`"),
    ] {
        let said = text(&Place::new(dockerfile).run(&["build", "context"]).stderr);
        assert!(said.contains(expected), "{said}");
    }
    let place = Place::new("");
    for (bytes, expected) in [
        (&b"\xFF\xFEF\0R\0O\0M\0"[..], "is UTF-16 text, not UTF-8 text: byte 0 is wrong"),
        (b"\x7FELF\x02\x01\xFF\0", "is a program, not UTF-8 text: byte 6 is wrong"),
        (b"FROM a\nRUN \xE9t\xE9\n", "is text in another encoding, not UTF-8 text: byte 11 is wrong"),
    ] {
        std::fs::write(place.context().join("Dockerfile"), bytes).unwrap();
        let output = place.run(&["build", "context"]);
        let said = text(&output.stderr);
        assert!(output.status.code() == Some(1) && said.contains(expected) && said.contains("hint: "), "{said}");
    }
    let output = place.run(&["build", "https://127.0.0.1:9/a.git?reff=x"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
}
