//! The examples of whole programs, built as their README says from a registry that answers for Docker Hub, then pulled by
//! Docker and run. Their packages come from Debian and from the registries of their languages.

use std::fs;
use std::path::{Path, PathBuf};

use spec_tests::client::Fluyt;
use spec_tests::docker::Dockerd;
use spec_tests::program::{self, Outcome};
use spec_tests::registry::Registry;

/// The machine's certificates: behind a proxy with a CA of its own, what a RUN fetches is signed by that.
const BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";

fn folder(name: &str) -> PathBuf {
    program::repository().join("examples").join(name)
}

/// A registry that holds `debian:bookworm-slim`.
fn hub() -> Registry {
    let registry = Registry::start();
    let prepared = succeeded("debian-base", program::run(folder("prepare"), ["debian-base"]));
    let context = PathBuf::from(prepared.text());
    let file = context.join("Dockerfile.base").to_string_lossy().into_owned();
    let name = format!("{}/library/debian:bookworm-slim", registry.host());
    let _ = succeeded("debian-base", Fluyt::new().build(&context, &["-f", &file, "--push", "-t", &name]));
    registry
}

/// The outcome of a step of a test, when it succeeded. Otherwise all of it is kept in a file with what the machine had left
/// of memory and disk: it comes from minutes of work with servers far away, and may not come again.
fn succeeded(name: &str, outcome: Outcome) -> Outcome {
    if outcome.code == Some(0) {
        return outcome;
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let place = program::repository().join("target/spec-tests/failed");
    let file = place.join(format!("{name}-{}.log", now.as_secs()));
    let machine = program::run("sh", ["-c", "uptime; free -m; df -h . /tmp /var/lib; dmesg 2>/dev/null | tail -n 20"]);
    fs::create_dir_all(&place).unwrap();
    fs::write(&file, format!("{}\n--- the machine\n{}", outcome.describe(), machine.stdout)).unwrap();
    let last: Vec<&str> = outcome.stderr.lines().rev().take(80).collect();
    let last: Vec<&str> = last.into_iter().rev().collect();
    panic!(
        "`{}` exited with {:?} (all it said is in {}); at last:\n{}",
        outcome.command,
        outcome.code,
        file.display(),
        last.join("\n")
    );
}

/// Builds an example, and again, which finds every step; then Docker pulls and runs it.
fn builds_and_runs(name: &str, context: &Path, arguments: &[&str]) {
    let Some(dockerd) = Dockerd::shared(name) else { return };
    let registry = hub();
    let (fluyt, reference) = (Fluyt::new(), format!("{}/examples/{name}:one", registry.host()));
    let mirror = format!("docker.io=http://{}", registry.host());
    let secret = format!("id=ca,src={BUNDLE}");
    let mut all = vec!["--registry-mirror", &mirror, "--push", "-t", &reference];
    if Path::new(BUNDLE).exists() {
        all.extend(["--secret", &secret]);
    }
    all.extend(arguments);
    let first = succeeded(name, fluyt.build(context, &all));
    let again = succeeded(name, fluyt.build(context, &all));
    assert_eq!(first.text(), again.text(), "{}", again.describe());

    let _ = succeeded(name, dockerd.docker(["pull", "--quiet", &reference]));
    let command = fs::read_to_string(folder(name).join("command.txt")).ok();
    let mut run = vec!["run", "--rm", "--network", "none", &reference];
    if let Some(command) = &command {
        run.extend(["sh", "-c", command]);
    }
    let ran = succeeded(name, dockerd.docker(run));
    let _ = dockerd.docker(["rmi", "--force", &reference]).expect_success();
    assert_eq!(ran.stdout, fs::read_to_string(folder(name).join("expected.txt")).unwrap(), "{}", ran.describe());
}

macro_rules! programs {
    ($($test:ident: $name:literal),+ $(,)?) => {
        $(#[test]
        fn $test() {
            builds_and_runs($name, &folder($name), &[]);
        })+
    };
}

programs! {
    rust_service: "rust-service",
    node_service: "node-service",
    python_service: "python-service",
    go_static: "go-static",
    java_maven: "java-maven",
    static_site: "static-site",
    c_packages: "c-packages",
    multi_user: "multi-user",
    heredoc_scripts: "heredoc-scripts",
}

#[test]
fn monorepo() {
    let here = folder("monorepo");
    let argument = |name: &str, path: &str| format!("{name}{}", here.join(path).display());
    let (file, library, settings) =
        (argument("", "Dockerfile"), argument("library=", "library"), argument("settings=", "settings"));
    let flags = ["-f", &file, "--build-context", &library, "--build-context", &settings];
    builds_and_runs("monorepo", &here.join("service"), &flags);
}
