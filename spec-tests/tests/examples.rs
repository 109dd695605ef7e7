//! Every folder of `examples/`: built, pushed, pulled by Docker and run, and its output compared.

use std::fs;
use std::path::PathBuf;

use spec_tests::client::Fluyt;
use spec_tests::docker::Dockerd;
use spec_tests::program;
use spec_tests::registry::Registry;

/// The context of an example as `examples/prepare` lays it out.
fn prepared(name: &str) -> PathBuf {
    let script = program::repository().join("examples/prepare");
    PathBuf::from(program::run(script, [name]).expect_success().text())
}

fn assert_prints_what_is_expected(name: &str, dockerd: &Dockerd, reference: &str) {
    let _ = dockerd.docker(["pull", "--quiet", reference]).expect_success();
    let ran = dockerd.docker(["run", "--rm", "--network", "none", reference]).expect_success();
    let _ = dockerd.docker(["rmi", "--force", reference]).expect_success();
    let expected = program::repository().join("examples").join(name).join("expected.txt");
    assert_eq!(ran.stdout, fs::read_to_string(expected).unwrap());
}

#[test]
fn hello() {
    let Some(dockerd) = Dockerd::shared("hello") else { return };
    let (fluyt, registry) = (Fluyt::new(), Registry::start());
    let reference = format!("{}/examples/hello:one", registry.host());
    let _ = fluyt.build(&prepared("hello"), &["--push", "-t", &reference]).expect_success();
    assert_prints_what_is_expected("hello", &dockerd, &reference);
}

#[test]
fn multi_stage() {
    let Some(dockerd) = Dockerd::shared("multi_stage") else { return };
    let (fluyt, registry) = (Fluyt::new(), Registry::start());
    let reference = format!("{}/examples/multi-stage:one", registry.host());
    let context = prepared("multi-stage");
    let _ = fluyt.build(&context, &["--push", "-t", &reference]).expect_success();
    assert_prints_what_is_expected("multi-stage", &dockerd, &reference);
    // Only what the last stage copied is in the image: not the compiler.
    let image = registry.image("examples/multi-stage", "one");
    assert_eq!(image.files().keys().collect::<Vec<_>>(), ["hello"]);
    // Nothing of the first stage runs again, and another ARG compiles again.
    let again = format!("{}/examples/multi-stage:again", registry.host());
    let _ = fluyt.build(&context, &["--push", "-t", &again]).expect_success();
    assert_eq!(registry.image("examples/multi-stage", "again").digest, image.digest);
    let other = fluyt.build(&context, &["--build-arg", "GREETING=Another"]).expect_success();
    assert_ne!(other.text(), image.digest);
}

#[test]
fn debian_base() {
    let Some(dockerd) = Dockerd::shared("debian_base") else { return };
    let (fluyt, registry) = (Fluyt::new(), Registry::start());
    let context = prepared("debian-base");
    let base = format!("{}/examples/debian:one", registry.host());
    let file = context.join("Dockerfile.base").to_string_lossy().into_owned();
    let _ = fluyt.build(&context, &["-f", &file, "--push", "-t", &base]).expect_success();
    let reference = format!("{}/examples/debian-base:one", registry.host());
    let argument = format!("BASE={base}");
    // Another store than the base was built in: the base comes from the registry.
    let other = Fluyt::new();
    let _ = other.build(&context, &["--build-arg", &argument, "--push", "-t", &reference]).expect_success();
    assert_prints_what_is_expected("debian-base", &dockerd, &reference);
}

#[test]
fn every_example_has_a_short_readme_and_says_what_to_expect() {
    for entry in fs::read_dir(program::repository().join("examples")).unwrap() {
        let folder = entry.unwrap().path();
        // Those of `ci` are for other people's machines.
        if !folder.is_dir() || folder.ends_with("ci") {
            continue;
        }
        for name in ["Dockerfile", "README.md", "expected.txt"] {
            assert!(folder.join(name).is_file(), "{} lacks {name}", folder.display());
        }
        let lines = fs::read_to_string(folder.join("README.md")).unwrap().lines().count();
        assert!(lines <= 6, "{}/README.md has {lines} lines", folder.display());
    }
}
