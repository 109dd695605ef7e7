//! Users, everybody's pulls and TLS, as docker, podman and skopeo see them.

use std::path::PathBuf;
use std::process::Command;

use spec_tests::client::Podman;
use spec_tests::docker::Dockerd;
use spec_tests::folder::TestDir;
use spec_tests::program::{self, Outcome};
use spec_tests::registry::Registry;

/// User `ann`, password `secret`, as `htpasswd -B -C 10` made it.
const HTPASSWD: &str = "ann:$2y$10$u.j3pFmG0ERPjqNrh1EJr.yd5r2gbbBlm7MuCD5IXh8w6LZy8u9Xa\n";

/// A registry with TLS and one user.
struct Guarded {
    registry: Registry,
    folder: TestDir,
}

impl Guarded {
    /// `None`, said as a skip of `test`, where no certificate can be made.
    fn start(test: &str, more: &[&str]) -> Option<Self> {
        if !program::all_installed(test, &["openssl"]) {
            return None;
        }
        let folder = TestDir::new();
        let path = |name: &str| folder.join(name).display().to_string();
        std::fs::create_dir(folder.join("certs")).unwrap();
        let (certificate, key) = (path("certs/ca.crt"), path("tls.key"));
        let names = "subjectAltName=DNS:localhost,IP:127.0.0.1";
        let arguments =
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost -addext";
        let arguments = arguments.split(' ').chain([names, "-keyout", &key, "-out", &certificate]);
        let _ = program::run("openssl", arguments).expect_success();
        std::fs::write(folder.join("htpasswd"), HTPASSWD).unwrap();
        let htpasswd = path("htpasswd");
        let mut flags = vec!["--tls-cert", &certificate, "--tls-key", &key, "--htpasswd", &htpasswd];
        flags.extend(more);
        Some(Self { registry: Registry::start_with(&flags), folder })
    }

    fn name(&self, rest: &str) -> String {
        format!("{}/{rest}", self.registry.host())
    }

    fn certs(&self) -> String {
        self.folder.join("certs").display().to_string()
    }
}

/// That it came out as expected.
fn expect(outcome: Outcome, good: bool) {
    assert_eq!(
        outcome.code == Some(0),
        good,
        "expected it to be {}: {}",
        if good { "allowed" } else { "refused" },
        outcome.describe()
    );
}

/// `docker`, logged in or not, against a daemon.
struct Docker<'a> {
    daemon: &'a Dockerd,
    config: PathBuf,
}

impl Docker<'_> {
    fn run(&self, arguments: &[&str]) -> Outcome {
        let mut command = Command::new("docker");
        command.env("DOCKER_HOST", self.daemon.host()).env("DOCKER_CONFIG", &self.config).args(arguments);
        program::finish(command)
    }

    fn login(&self, host: &str, password: &str) -> Outcome {
        self.run(&["login", "--username", "ann", "--password", password, host])
    }
}

fn docker_goes_through(test: &str, flags: &[&str], anybody_pulls: bool) {
    let Some(daemon) = Dockerd::shared(test) else { return };
    let Some(guarded) = Guarded::start(test, flags) else { return };
    let folder = TestDir::new();
    let docker = Docker { daemon: &daemon, config: folder.join("config") };
    std::fs::write(folder.join("file"), test).unwrap();
    let archive = folder.join("image.tar").display().to_string();
    let _ = program::run("tar", ["-C", &folder.path().display().to_string(), "-cf", &archive, "file"]).expect_success();
    let name = guarded.name(&format!("access/{test}:1"));
    expect(docker.run(&["import", &archive, &name]), true);

    expect(docker.run(&["push", &name]), false);
    expect(docker.login(guarded.registry.host(), "wrong"), false);
    expect(docker.login(guarded.registry.host(), "secret"), true);
    expect(docker.run(&["push", &name]), true);
    expect(docker.run(&["rmi", &name]), true);
    expect(docker.run(&["pull", &name]), true);
    expect(docker.run(&["logout", guarded.registry.host()]), true);
    expect(docker.run(&["rmi", &name]), true);
    expect(docker.run(&["pull", &name]), anybody_pulls);
    expect(docker.run(&["push", &name]), false);
    let _ = docker.run(&["rmi", &name]);
}

#[test]
fn docker_logs_in_over_tls() {
    docker_goes_through("docker_logs_in_over_tls", &[], false);
}

#[test]
fn docker_pulls_without_a_login_where_everybody_may() {
    docker_goes_through("docker_pulls_without_a_login_where_everybody_may", &["--anonymous-pull"], true);
}

fn podman_and_skopeo_go_through(test: &str, flags: &[&str], anybody_pulls: bool) {
    if !program::all_installed(test, &["skopeo"]) {
        return;
    }
    let Some(podman) = Podman::new(test) else { return };
    let Some(guarded) = Guarded::start(test, flags) else { return };
    let folder = TestDir::new();
    std::fs::write(folder.join("file"), test).unwrap();
    let archive = folder.join("image.tar").display().to_string();
    let _ = program::run("tar", ["-C", &folder.path().display().to_string(), "-cf", &archive, "file"]).expect_success();
    let (certs, name, second) = (guarded.certs(), guarded.name("access/podman:1"), guarded.name("access/skopeo:1"));
    let (remote, remote_second) = (format!("docker://{name}"), format!("docker://{second}"));
    let copy = folder.join("copy").display().to_string();
    let copy = format!("dir:{copy}");
    expect(podman.run(&["import", "--quiet", &archive, &name]), true);

    let login = |more: &[&str], command: &str| {
        let mut arguments = vec![command, "--cert-dir", &certs];
        arguments.extend(more);
        podman.run(&arguments)
    };
    expect(login(&["--creds", "ann:wrong", &name], "push"), false);
    expect(login(&[&name], "push"), false);
    expect(login(&["--creds", "ann:secret", &name], "push"), true);
    expect(podman.run(&["rmi", &name]), true);
    expect(login(&[&name], "pull"), anybody_pulls);
    expect(login(&["--creds", "ann:secret", &name], "pull"), true);

    let skopeo = |arguments: &[&str]| program::run("skopeo", arguments);
    expect(skopeo(&["inspect", "--cert-dir", &certs, &remote]), anybody_pulls);
    expect(skopeo(&["inspect", "--cert-dir", &certs, "--creds", "ann:wrong", &remote]), false);
    expect(skopeo(&["copy", "--src-cert-dir", &certs, "--src-creds", "ann:secret", &remote, &copy]), true);
    expect(skopeo(&["copy", "--dest-cert-dir", &certs, &copy, &remote_second]), false);
    expect(skopeo(&["copy", "--dest-cert-dir", &certs, "--dest-creds", "ann:secret", &copy, &remote_second]), true);
    expect(skopeo(&["delete", "--cert-dir", &certs, &remote_second]), false);
    expect(skopeo(&["delete", "--cert-dir", &certs, "--creds", "ann:secret", &remote_second]), true);
}

#[test]
fn podman_and_skopeo_show_credentials_over_tls() {
    podman_and_skopeo_go_through("podman_and_skopeo_show_credentials_over_tls", &[], false);
}

#[test]
fn podman_and_skopeo_pull_without_a_login_where_everybody_may() {
    let test = "podman_and_skopeo_pull_without_a_login_where_everybody_may";
    podman_and_skopeo_go_through(test, &["--anonymous-pull"], true);
}
