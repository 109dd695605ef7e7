//! Git repositories as contexts, as sources of `ADD` and as named contexts, over HTTP and ssh: real git at both ends.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::place::Place;
use super::repositories::{Repositories, backend};
use super::server::{Asked, Reply, Server};
use super::user::{self, User};

const FILES: [(&str, &str); 4] = [
    ("Dockerfile", "FROM scratch\nCOPY a run.sh /\n"),
    (".dockerignore", "a\n"),
    ("a", "one"),
    ("sub/Dockerfile", "FROM scratch\nCOPY . /\n"),
];

fn repository() -> Repositories {
    let repositories = Repositories::new();
    fs::create_dir(repositories.path("r")).unwrap();
    fs::write(repositories.path("r").join("run.sh"), "#!").unwrap();
    // A umask is no part of a commit.
    fs::set_permissions(repositories.path("r").join("run.sh"), fs::Permissions::from_mode(0o700)).unwrap();
    repositories.commit("r", &FILES);
    repositories
}

#[test]
fn a_repository_is_a_context() {
    let repositories = repository();
    let server = repositories.serve(None);
    let place = Place::new();
    let url = server.url("/r.git");
    let first = place.build(&[&url]);
    assert_eq!(first.files, ["f 644 0:0 /a one", "f 755 0:0 /run.sh #!"]);
    let again = place.build(&[&url]);
    assert!(again.found("COPY a run.sh"), "{}", again.said);
    assert_eq!(place.build(&[&format!("{url}#main:sub")]).files, ["f 644 0:0 /Dockerfile FROM scratch\nCOPY . /"]);
    assert_eq!(place.build(&[&format!("{url}?branch=main&subdir=sub")]).files.len(), 1);
    let built = place.build_with(&["-f", "-", &url], Some(b"FROM scratch\nCOPY a /stdin\n"));
    assert_eq!(built.files, ["f 644 0:0 /stdin one"]);
    let said = place.fail(1, &[&format!("{url}#main:absent")], None);
    assert!(said.contains("the repository has no folder `absent` at "), "{said}");
    let said = place.fail(1, &[&format!("{url}#mian")], None);
    assert!(said.contains("the repository has no branch, tag or commit `mian`; did you mean `main`?"), "{said}");
    let said = place.fail(1, &[&server.url("/absent.git")], None);
    assert!(said.contains("`git ls-remote` failed: fatal: repository") && said.contains("not found"), "{said}");
}

#[test]
fn a_repository_comes_over_tls_from_a_server_that_is_trusted() {
    let repositories = repository();
    let root = repositories.path("");
    let (server, certificate) = Server::start_tls(move |asked| match asked.target.as_str() {
        "/file" => Reply::new(200, "from https"),
        _ => backend(&root, asked),
    });
    let place = Place::new();
    place.write("ca.pem", certificate);
    place.write(
        "c/Dockerfile",
        format!("FROM scratch\nADD {} /\nADD {} /git/\n", server.url("/file"), server.url("/r.git")),
    );
    let build = |arguments: &[&str], trusted: bool| {
        let mut command = place.command(&[arguments, &["-o", "type=tar,dest=result.tar"]].concat());
        if trusted {
            command.env("SSL_CERT_FILE", place.path("ca.pem"));
        }
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let built = || super::place::listing(&fs::read(place.path("result.tar")).unwrap());
    let url = server.url("/r.git");
    let (code, said) = build(&[&url], true);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(built(), ["f 644 0:0 /a one", "f 755 0:0 /run.sh #!"]);
    let (code, said) = build(&["c"], true);
    assert_eq!(code, Some(0), "{said}");
    assert!(built().contains(&"f 600 0:0 /file from https".to_owned()), "{:?}", built());
    assert!(built().contains(&"f 644 0:0 /git/a one".to_owned()), "{:?}", built());
    let strangers = Place::new();
    let output = strangers.command(&["-o", "type=tar,dest=x", &url]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("certificate") && said.contains("hint: name a file of the certificates to trust"), "{said}");
}

#[test]
fn an_image_is_verified_against_the_commit_that_it_names() {
    let repositories = Repositories::new();
    let commit = repositories.commit("v", &[("Dockerfile", "FROM scratch\nCOPY a /\n"), ("a", "one")]);
    let server = repositories.serve(None);
    let place = Place::new();
    let labels = |source: &str| {
        [
            "--label".to_owned(),
            format!("org.opencontainers.image.source={source}"),
            "--label".to_owned(),
            format!("org.opencontainers.image.revision={commit}"),
        ]
    };
    let checkout = repositories.path("v").display().to_string();
    let build = |name: &str, more: &[String], epoch: Option<&str>, file: &str| {
        let labels = labels(server.url("/v").as_str());
        let mut words: Vec<&str> = vec!["-t", name, "-f", file];
        words.extend(labels.iter().chain(more).map(String::as_str));
        words.push(&checkout);
        let mut command = place.command(&words);
        if let Some(epoch) = epoch {
            command.env("SOURCE_DATE_EPOCH", epoch);
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let verify = |name: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fluyt"));
        command.env("FLUYT_STORE", place.path("store")).env_remove("SOURCE_DATE_EPOCH");
        let output = command.args(["verify", "--progress", "plain"]).args(name.split(' ')).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let own = format!("{checkout}/Dockerfile");
    // Another day's file, whose time no check-out gives again.
    let file = std::fs::File::options().write(true).open(repositories.path("v").join("a")).unwrap();
    let written = file.metadata().unwrap().modified().unwrap();
    file.set_modified(written - Duration::from_secs(100_000)).unwrap();
    build("v:times", &[], None, &own);
    file.set_modified(written).unwrap();
    let (code, listed, told) = verify("v:times");
    assert_eq!(code, Some(1), "{listed}{told}");
    assert!(listed.contains("differs: /a (time)") && told.contains("build it with `--reproducible`"), "{listed}{told}");
    assert!(told.contains("hint: first is the image docker.io/library/v:times, second what"), "{told}");
    build("v:reproducible", &["--reproducible".to_owned()], None, &own);
    build("v:epoch", &[], Some("1700000000"), &own);
    // Built elsewhere: what this machine makes of the commit is another image.
    build("v:other-machine", &["--platform=linux/s390x".to_owned()], Some("1700000000"), &own);
    let (code, listed, told) = verify("v:other-machine");
    assert!(code == Some(1) && told.contains("library/v:other-machine is for linux/s390x, and"), "{listed}{told}");
    assert!(told.contains("hint: name it: `--platform linux/s390x`"), "{told}");
    for name in ["v:reproducible", "v:epoch", "--platform=linux/s390x v:other-machine"] {
        let (code, listed, told) = verify(name);
        assert_eq!(code, Some(0), "{listed}{told}");
        assert!(listed.starts_with("same: sha256:"), "{listed}");
    }
    // Something else than what the commit holds was built.
    place.write("other", "FROM scratch\nCOPY a /\nCOPY a /extra\n");
    build("v:other", &[], Some("1700000000"), &place.path("other").display().to_string());
    let (code, listed, told) = verify("v:other");
    assert_eq!(code, Some(1), "{listed}{told}");
    assert!(listed.contains("differs:"), "{listed}");
    let output = place.command(&["-t", "v:mute", &checkout]).output().unwrap();
    assert!(output.status.success());
    let (code, _, told) = verify("v:mute");
    assert_eq!(code, Some(1), "{told}");
    assert!(
        told.contains("does not say what it was built from: it has no label org.opencontainers.image.source"),
        "{told}"
    );
}

#[test]
fn the_address_of_a_repository_is_verified_like_a_folder() {
    let repositories = repository();
    repositories.commit("r", &[("own/Dockerfile", "FROM scratch\nCOPY f /\n"), ("own/f", "f")]);
    let server = repositories.serve(None);
    let place = Place::new();
    let verify = |address: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fluyt"));
        command.env("FLUYT_STORE", place.path("store")).env_remove("SOURCE_DATE_EPOCH");
        let output = command.args(["verify", "--json", "--progress", "plain", address]).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{told}");
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["same"], true, "{told}");
        assert!(told.contains("second build: another time of the build, umask"), "{told}");
        report["first"].as_str().unwrap().to_owned()
    };
    // What is verified is what a build of the address gives.
    for address in [server.url("/r.git"), server.url("/r.git#main:own")] {
        let built = place.run(&["--reproducible", &address], None);
        assert_eq!(String::from_utf8_lossy(&built.stdout).trim(), verify(&address));
    }
}

#[test]
fn an_image_of_a_folder_of_a_repository_is_verified_by_the_folder_that_it_names() {
    let repositories = Repositories::new();
    let commit = repositories.commit("v", &[("service/Dockerfile", "FROM scratch\nCOPY a /\n"), ("service/a", "one")]);
    let server = repositories.serve(None);
    let place = Place::new();
    for (source, code, word) in [("/v.git#:service", 0, "same: sha256:"), ("/v.git", 1, "source=URL#:FOLDER`")] {
        let source = format!("org.opencontainers.image.source={}", server.url(source));
        let revision = format!("org.opencontainers.image.revision={commit}");
        let url = format!("{}#{commit}:service", server.url("/v.git"));
        let built = place.run(&["-t", "v", "--reproducible", "--label", &source, "--label", &revision, &url], None);
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        let mut command = Command::new(env!("CARGO_BIN_EXE_fluyt"));
        command.env("FLUYT_STORE", place.path("store")).env_remove("SOURCE_DATE_EPOCH");
        let output = command.args(["verify", "--progress", "plain", "v"]).output().unwrap();
        let told = [output.stdout, output.stderr].concat();
        let told = String::from_utf8_lossy(&told);
        assert_eq!(output.status.code(), Some(code), "{told}");
        assert!(told.contains(word), "{told}");
    }
}

#[test]
fn a_name_is_asked_for_in_each_build_and_a_commit_is_fetched_once() {
    let repositories = repository();
    let first = repositories.git("r", &["rev-parse", "HEAD"]);
    repositories.git("r", &["tag", "-a", "v1", "-m", "text"]);
    let server = repositories.serve(None);
    let place = Place::new();
    place.write("context/Dockerfile", format!("FROM scratch\nADD {} /r/\n", server.url("/r.git")));
    let content = |built: &super::place::Built| built.files.iter().find(|line| line.contains("/r/a ")).unwrap().clone();
    assert_eq!(content(&place.build(&["context"])), "f 644 0:0 /r/a one");
    let fetched = |asked: &Asked| asked.body.windows(5).any(|part| part == b"want ");
    assert!(server.asked().iter().any(fetched));
    let again = place.build(&["context"]);
    assert!(again.found("ADD"), "{}", again.said);
    let asked = server.asked();
    assert!(!asked.is_empty() && !asked.iter().any(fetched));
    repositories.commit("r", &[("a", "two")]);
    assert_eq!(content(&place.build(&["context"])), "f 644 0:0 /r/a two");
    for reference in ["v1", "refs/tags/v1", first.as_str()] {
        place.write("context/Dockerfile", format!("FROM scratch\nADD {}#{reference} /r/\n", server.url("/r.git")));
        assert_eq!(content(&place.build(&["context"])), "f 644 0:0 /r/a one", "{reference}");
    }
}

#[test]
fn a_checksum_is_the_commit_or_its_beginning() {
    let repositories = repository();
    let commit = repositories.git("r", &["rev-parse", "HEAD"]);
    let server = repositories.serve(None);
    let place = Place::new();
    let url = server.url("/r.git");
    for (line, expected) in [
        (format!("--checksum={commit} {url}#main"), None),
        (format!("--checksum={} {url}", &commit[..10]), None),
        (format!("{url}?checksum={commit}"), None),
        (
            format!("--checksum=0123456789 {url}#main"),
            Some(format!("`main` is the commit {commit}, and 0123456789 was")),
        ),
        (format!("--checksum={commit} {url}?checksum=0123456"), Some("name two commits".to_owned())),
        (format!("--checksum=sha256:12 {url}"), Some("is no commit".to_owned())),
    ] {
        place.write("context/Dockerfile", format!("FROM scratch\nADD {line} /r/\n"));
        match expected {
            None => assert_eq!(place.build(&["context"]).files.len(), 7, "{line}"),
            Some(expected) => {
                let said = place.fail(1, &["context"], None);
                assert!(said.contains(&expected), "{line}: {said}");
            }
        }
    }
}

#[test]
fn the_git_folder_stays_when_it_is_asked_for() {
    let repositories = repository();
    let server = repositories.serve(None);
    let place = Place::new();
    let has = |built: super::place::Built, path: &str| built.files.iter().any(|line| line.contains(path));
    for (line, kept) in [
        ("ADD URL /r", false),
        ("ADD --keep-git-dir=true URL /r", true),
        ("ADD URL?keep-git-dir=1 /r", true),
        ("ADD --keep-git-dir=true URL?keep-git-dir=0 /r", false),
    ] {
        place.write("context/Dockerfile", format!("FROM scratch\n{}\n", line.replace("URL", &server.url("/r.git"))));
        assert_eq!(has(place.build(&["context"]), " /r/.git/HEAD "), kept, "{line}");
    }
    let url = server.url("/r.git");
    repositories.commit("r", &[("Dockerfile", "FROM scratch\nCOPY . /\n")]);
    assert!(!has(place.build(&[&url]), " /.git/"));
    let kept = place.build(&["--build-arg", "BUILDKIT_CONTEXT_KEEP_GIT_DIR=1", &url]);
    assert!(has(kept, " /.git/HEAD "));
}

#[test]
fn submodules_come_along_unless_they_are_not_wanted() {
    let repositories = repository();
    repositories.commit("inner", &[("i", "inside")]);
    let server = repositories.serve(None);
    repositories.git("r", &["submodule", "add", "-q", "./../inner", "deep/inner"]);
    repositories.git("r", &["config", "-f", ".gitmodules", "submodule.deep/inner.url", "../inner.git"]);
    repositories.commit("r", &[]);
    let place = Place::new();
    for (query, count) in [("", 1), ("?submodules=true", 1), ("?submodules=false", 0)] {
        place.write("context/Dockerfile", format!("FROM scratch\nADD {}{query} /r\n", server.url("/r.git")));
        let built = place.build(&["context"]);
        let found = built.files.iter().filter(|line| *line == "f 644 0:0 /r/deep/inner/i inside").count();
        assert_eq!(found, count, "{query}: {:?}", built.files);
        assert!(!built.files.iter().any(|line| line.contains("/.git ")), "{:?}", built.files);
    }
}

/// An `ssh` that notes how it is run, and runs what it is asked for on this machine.
struct NotingSsh {
    notes: PathBuf,
    path: String,
}

impl NotingSsh {
    fn new(place: &Place) -> Self {
        let notes = place.path("notes");
        let script = format!(
            "#!/bin/sh\n{{ echo \"agent=$SSH_AUTH_SOCK\"; for word; do echo \"$word\"; done; }} >> '{}'\n\
             for last; do :; done\nexec sh -c \"$last\"\n",
            notes.display()
        );
        place.write("programs/ssh", script);
        fs::set_permissions(place.path("programs/ssh"), fs::Permissions::from_mode(0o755)).unwrap();
        let path = format!("{}:{}", place.path("programs").display(), std::env::var("PATH").unwrap());
        Self { notes, path }
    }

    /// A build by a user who has an agent, and what ssh was told since the last one.
    fn build(&self, place: &Place, arguments: &[&str]) -> (Option<i32>, String, Vec<String>) {
        let _ = fs::remove_file(&self.notes);
        let mut command = place.command(&[arguments, &["-o", "type=tar,dest=result.tar"]].concat());
        let output = command.env("PATH", &self.path).env("SSH_AUTH_SOCK", "/the/users").output().unwrap();
        let noted = fs::read_to_string(&self.notes).unwrap_or_default().lines().map(str::to_owned).collect();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned(), noted)
    }
}

/// It may be reached otherwise than what it is a part of.
#[test]
fn a_submodule_by_ssh_uses_nothing_that_the_build_was_not_given() {
    let repositories = repository();
    repositories.commit("inner", &[("i", "inside")]);
    let server = repositories.serve(None);
    repositories.git("r", &["submodule", "add", "-q", "./../inner", "deep/inner"]);
    let address = format!("ssh://git@127.0.0.1{}", repositories.path("inner").display());
    repositories.git("r", &["config", "-f", ".gitmodules", "submodule.deep/inner.url", &address]);
    repositories.commit("r", &[("Dockerfile", "FROM scratch\nCOPY deep /\n")]);
    let url = server.url("/r.git");
    let place = Place::new();
    let ssh = NotingSsh::new(&place);
    place.write("context/Dockerfile", format!("FROM scratch\nADD {url} /r\n"));
    let (code, said, noted) = ssh.build(&place, &["context"]);
    assert_eq!(code, Some(1), "{said}{noted:?}");
    let problem = format!("its submodule deep/inner is reached by ssh ({address}), and the build was given no agent");
    assert!(said.contains(&problem) && said.contains("hint: give the build an agent with `--ssh default`"), "{said}");
    assert_eq!(noted, [] as [String; 0]);

    let socket = place.path("given");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let (code, said, noted) = ssh.build(&place, &["--ssh", &format!("default={}", socket.display()), "context"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(noted[..3], [format!("agent={}", socket.display()), "-F".to_owned(), "/dev/null".to_owned()]);
    assert!(noted.contains(&"IdentityFile=none".to_owned()), "{noted:?}");

    // The user named the repository: what the user has does.
    let place = Place::new();
    let ssh = NotingSsh::new(&place);
    let (code, said, noted) = ssh.build(&place, &[&url]);
    assert_eq!(code, Some(0), "{said}");
    assert!(noted[0] == "agent=/the/users" && !noted.contains(&"-F".to_owned()), "{noted:?}");
}

/// What a repository says of itself may name files of this machine.
#[test]
fn a_submodule_of_this_machines_files_is_refused() {
    let repositories = repository();
    repositories.commit("inner", &[("i", "inside")]);
    let inner = super::place::text(&repositories.path("inner"));
    repositories.git("r", &["submodule", "add", "-q", &inner, "inner"]);
    repositories.commit("r", &[]);
    let server = repositories.serve(None);
    let place = Place::new();
    place.write("context/Dockerfile", format!("FROM scratch\nADD {} /r\n", server.url("/r.git")));
    let said = place.fail(1, &["context"], None);
    assert!(said.contains("transport 'file' not allowed"), "{said}");
}

#[test]
fn a_secret_opens_a_private_repository() {
    let repositories = repository();
    // x-access-token:abc
    let server = repositories.serve(Some("Basic eC1hY2Nlc3MtdG9rZW46YWJj"));
    let place = Place::new();
    let url = server.url("/r.git");
    let said = place.fail(1, &[&url], None);
    assert!(said.contains("hint: a private repository needs `--secret id=GIT_AUTH_TOKEN"), "{said}");
    let build = |secret: &str, value: &str, url: &str| {
        let mut command =
            place.command(&["--secret", &format!("id={secret},env=VALUE"), "-o", "type=tar,dest=t.tar", url]);
        let output = command.env("VALUE", value).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for (secret, value, good) in [
        ("GIT_AUTH_TOKEN", "abc", true),
        (format!("GIT_AUTH_TOKEN.{}", server.address).as_str(), "abc", true),
        ("GIT_AUTH_TOKEN.other.host", "abc", false),
        ("GIT_AUTH_HEADER", "Basic eC1hY2Nlc3MtdG9rZW46YWJj", true),
        ("GIT_AUTH_TOKEN", "wrong", false),
    ] {
        let (done, said) = build(secret, value, &url);
        assert_eq!(done, good, "{secret}: {said}");
        assert!(!said.contains(value) || value == "abc", "{said}");
    }
    let with_password = url.replace("http://", "http://x-access-token:abc@");
    let (done, said) = build("OTHER", "x", &with_password);
    assert!(done, "{said}");
    assert!(said.contains("http://...@") && !said.contains("abc@"), "{said}");
}

/// The user's `.netrc` is for what the user names.
#[test]
fn a_repository_that_a_dockerfile_names_is_told_no_password_of_the_users() {
    let repositories = repository();
    // u:p
    let server = repositories.serve(Some("Basic dTpw"));
    let place = Place::new();
    let url = server.url("/r.git");
    place.write("home/.netrc", "machine 127.0.0.1 login u password p\n");
    place.write("context/Dockerfile", format!("FROM scratch\nADD {url} /r\n"));
    for (context, expected) in [("context", Some(1)), (url.as_str(), Some(0))] {
        let output = place.command(&[context]).env("HOME", place.path("home")).output().unwrap();
        assert_eq!(output.status.code(), expected, "{context}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// Where a server asks who it is: a mere name keeps no public repository closed.
#[test]
fn a_token_alone_in_an_address_opens_a_repository_and_is_shown_nowhere() {
    let repositories = repository();
    repositories.commit("inner", &[("i", "inside")]);
    repositories.git("r", &["submodule", "add", "-q", "./../inner", "inner"]);
    repositories.git("r", &["config", "-f", ".gitmodules", "submodule.inner.url", "../inner.git"]);
    repositories.commit("r", &[]);
    // ghp_secret:
    let server = repositories.serve(Some("Basic Z2hwX3NlY3JldDo="));
    let with = |user: &str, server: &Server| server.url("/r.git").replace("http://", &format!("http://{user}@"));
    let place = Place::new();
    let secret = with("ghp_secret", &server);
    for operands in [format!("{secret} /r"), format!("[\"{secret}\",\"/r\"]")] {
        place.write("context/Dockerfile", format!("FROM scratch\nADD --keep-git-dir=true {operands}\n"));
        let built = place.build(&["context"]);
        assert!(built.files.contains(&"f 644 0:0 /r/inner/i inside".to_owned()), "{:?}", built.files);
        let config = built.files.iter().find(|line| line.contains(" /r/.git/config ")).unwrap();
        assert!(config.contains(&server.url("/r.git")), "{config}");
        assert!(built.said.contains("http://...@"), "{}", built.said);
        for text in built.files.iter().chain([&built.said]) {
            assert!(!text.contains("ghp_secret"), "{text}");
        }
    }
    let said = place.fail(1, &[&with("ghp_wrong", &server)], None);
    assert!(said.contains("failed: fatal: Authentication failed") && !said.contains("ghp_wrong"), "{said}");
    let public = repositories.serve(None);
    assert_eq!(Place::new().build(&[&with("somebody", &public)]).files.len(), 2);
    assert!(public.asked().iter().all(|asked| asked.header("authorization").is_none()));
}

#[test]
fn a_server_that_is_gone_leaves_the_last_commit() {
    let repositories = repository();
    let gone = Arc::new(AtomicBool::new(false));
    let (is_gone, root) = (Arc::clone(&gone), repositories.path(""));
    let server = Server::start(move |asked| match is_gone.load(Ordering::SeqCst) {
        true => Reply::new(503, ""),
        false => backend(&root, asked),
    });
    let place = Place::new();
    let url = server.url("/r.git");
    place.write("context/Dockerfile", format!("FROM scratch\nADD {url} /\n"));
    let first = place.build(&["context"]);
    place.build(&[&url]);
    gone.store(true, Ordering::SeqCst);
    let second = place.build(&["context"]);
    assert_eq!(first.files, second.files);
    assert!(second.said.contains("is taken as it last was, commit "), "{}", second.said);
    for arguments in [&["--pull", "context"][..], &[&url], &[&format!("{url}#v9")], &["git://127.0.0.1:9/r"]] {
        let said = place.fail(3, arguments, None);
        assert!(said.contains("`git ls-remote` failed") && !said.contains("GIT_AUTH_TOKEN"), "{said}");
    }
}

#[test]
fn a_named_context_and_several_addresses_at_once() {
    let repositories = repository();
    let server = repositories.serve(None);
    let place = Place::new();
    let url = server.url("/r.git");
    place.write("context/Dockerfile", "FROM src\nCOPY --from=src a /copy\n");
    let built = place.build(&["--build-context", &format!("src={url}#main"), "context"]);
    assert!(built.files.contains(&"f 755 0:0 /run.sh #!".to_owned()), "{:?}", built.files);
    assert!(built.files.contains(&"f 644 0:0 /copy one".to_owned()), "{:?}", built.files);
    let file = Server::start(|_| Reply::new(200, "file"));
    place.write("context/Dockerfile", format!("FROM scratch\nADD {url}#main:sub {} /all/\n", file.url("/f")));
    let built = place.build(&["context"]);
    let names: Vec<&str> = built.files.iter().map(|line| line.split(' ').nth(3).unwrap_or_default()).collect();
    assert_eq!(names, ["/all", "/all/Dockerfile", "/all/f"]);
}

#[test]
fn the_same_commit_makes_the_same_bytes_in_another_store() {
    let repositories = repository();
    let server = repositories.serve(None);
    let place = Place::new();
    let url = server.url("/r.git");
    let digest = || {
        let output = place.run(&["--reproducible", &url], None);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        fs::remove_dir_all(place.path("store")).unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let first = digest();
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert_eq!(first, digest());
}

#[test]
fn times_are_the_check_outs_or_the_commits() {
    let repositories = repository();
    let server = repositories.serve(None);
    for (query, is_commits) in [("", false), ("?mtime=checkout", false), ("?mtime=commit", true)] {
        // A store of its own: times are in no key, so the same content would keep the times that it first had.
        let place = Place::new();
        place.write("context/Dockerfile", format!("FROM scratch\nADD {}{query} /r\n", server.url("/r.git")));
        place.build(&["context"]);
        let tar = fs::read(place.path("result.tar")).unwrap();
        let mut archive = tar::Archive::new(&tar[..]);
        let file = archive.entries().unwrap().flatten().find(|entry| entry.path().unwrap().ends_with("a")).unwrap();
        assert_eq!(file.header().mtime().unwrap() == 1_600_000_000, is_commits, "{query}");
    }
    let (place, url) = (Place::new(), server.url("/r.git"));
    let output = place.run(&["--reproducible", "-o", "type=oci,tar=false,dest=layout", &url], None);
    assert!(output.status.success());
    let blobs = fs::read_dir(place.path("layout/blobs/sha256")).unwrap().flatten();
    let created = "\"created\":\"2020-09-13T12:26:40Z\"";
    let found = blobs.filter(|blob| String::from_utf8_lossy(&fs::read(blob.path()).unwrap()).contains(created)).count();
    assert_eq!(found, 1, "the image has the time of the commit");
}

/// An sshd of the test's own, with a key for the client and one for the host.
struct Ssh {
    folder: tempfile::TempDir,
    port: u16,
    children: Vec<std::process::Child>,
}

impl Drop for Ssh {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Ssh {
    /// `None`, with the reason told, where there is no sshd.
    fn start() -> Option<Self> {
        const SSHD: &str = "/usr/sbin/sshd";
        if !Path::new(SSHD).exists() || !rustix::process::geteuid().is_root() {
            println!("skipped: {SSHD} is not installed, or this is not root");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        for name in ["host", "client"] {
            let mut command = Command::new("ssh-keygen");
            command.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(folder.path().join(name));
            assert!(command.status().unwrap().success());
        }
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        fs::create_dir_all("/run/sshd").unwrap();
        let option = |name: &str, value: &Path| format!("{name}={}", value.display());
        let mut sshd = Command::new(SSHD);
        sshd.args(["-D", "-e", "-f", "/dev/null", "-o", "ListenAddress=127.0.0.1", "-o", "StrictModes=no"]);
        sshd.args(["-o", "UsePAM=no", "-o", "PasswordAuthentication=no", "-o", "PidFile=none"])
            .arg("-p")
            .arg(port.to_string());
        sshd.arg("-o").arg(option("HostKey", &folder.path().join("host")));
        sshd.arg("-o").arg(option("AuthorizedKeysFile", &folder.path().join("client.pub")));
        let sshd = sshd.stderr(Stdio::null()).spawn().unwrap();
        let mut agent = Command::new("ssh-agent");
        let agent = agent.arg("-D").arg("-a").arg(folder.path().join("agent")).stdout(Stdio::null()).spawn().unwrap();
        let ssh = Self { port, children: vec![sshd, agent], folder };
        for _ in 0..100 {
            let there = std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() && ssh.agent().exists();
            if there {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        let mut add = Command::new("ssh-add");
        add.arg(ssh.folder.path().join("client")).env("SSH_AUTH_SOCK", ssh.agent()).stderr(Stdio::null());
        assert!(add.status().unwrap().success());
        Some(ssh)
    }

    fn agent(&self) -> PathBuf {
        self.folder.path().join("agent")
    }
}

#[test]
fn ssh_takes_the_agent_that_the_build_is_given() {
    let Some(ssh) = Ssh::start() else { return };
    let repositories = repository();
    let place = Place::new();
    let url = format!("ssh://root@127.0.0.1:{}{}", ssh.port, repositories.path("r").display());
    place.write("context/Dockerfile", format!("FROM scratch\nADD {url} /r\n"));
    let said = place.fail(1, &["context"], None);
    assert!(said.contains("the repository is reached by ssh, and the build was given no agent"), "{said}");
    assert!(said.contains("hint: give the build an agent with `--ssh default`"), "{said}");
    let agent = format!("default={}", ssh.agent().display());
    let built = place.build(&["--ssh", &agent, "context"]);
    assert!(built.files.contains(&"f 644 0:0 /r/a one".to_owned()), "{:?}", built.files);
    // The user named the repository: the user's own agent does.
    let output =
        place.command(&["-o", "type=tar,dest=t.tar", &url]).env("SSH_AUTH_SOCK", ssh.agent()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// There the user is called root, whose hosts and keys are others'.
#[test]
fn ssh_knows_the_users_hosts_keys_and_configuration_in_a_user_namespace() {
    let Some(user) = User::new() else { return };
    let Some(ssh) = Ssh::start() else { return };
    let repositories = repository();
    let read = |name: &str| fs::read_to_string(ssh.folder.path().join(name)).unwrap();
    let home = user.path("home");
    fs::create_dir_all(home.join(".ssh")).unwrap();
    let write = |name: &str, text: &str| {
        let path = home.join(".ssh").join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let owner = fs::metadata(user.path("store")).unwrap().uid();
        std::os::unix::fs::chown(path, Some(owner), None).unwrap();
    };
    write("config", &format!("Host box\n  HostName 127.0.0.1\n  Port {}\n  User root\n", ssh.port));
    write("id_ed25519", &read("client"));
    let url = format!("ssh://box{}", repositories.path("r").display());
    let build = |known: &str| {
        write("known_hosts", &format!("[127.0.0.1]:{} {known}", ssh.port));
        let mut command = user.fluyt();
        let output = command.env("HOME", &home).args(["build", "--progress=plain", &url]).output().unwrap();
        (output.status.code(), user::text(&output))
    };
    let (code, said) = build(&read("client.pub"));
    assert!(code == Some(1) && said.contains("Host key verification failed"), "{said}");
    let (code, said) = build(&read("host.pub"));
    assert_eq!(code, Some(0), "{said}");
}
