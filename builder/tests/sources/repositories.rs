//! Git repositories of a test's own, served over HTTP by real git.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::server::{Asked, Reply, Server};

/// Repositories below one folder.
pub(crate) struct Repositories {
    folder: tempfile::TempDir,
}

impl Repositories {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs git in a repository's working folder, which is made where it is not there.
    pub(crate) fn git(&self, name: &str, arguments: &[&str]) -> String {
        let folder = self.path(name);
        fs::create_dir_all(&folder).unwrap();
        let mut command = Command::new("git");
        command.args(["-c", "user.name=n", "-c", "user.email=e", "-c", "protocol.file.allow=always"]);
        command.args(["-c", "init.defaultBranch=main", "-C"]).arg(&folder).args(arguments);
        command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_COMMITTER_DATE", "1600000000 +0000");
        let output = command.output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Commits these files; gives the commit.
    pub(crate) fn commit(&self, name: &str, files: &[(&str, &str)]) -> String {
        if !self.path(name).join(".git").exists() {
            self.git(name, &["init", "-q"]);
        }
        for (path, content) in files {
            let path = self.path(name).join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        self.git(name, &["add", "-A"]);
        self.git(name, &["commit", "-q", "--allow-empty", "-m", "a commit"]);
        self.git(name, &["rev-parse", "HEAD"])
    }

    /// Serves all of them as `/NAME.git`, to those who show this header.
    pub(crate) fn serve(&self, authorization: Option<&'static str>) -> Server {
        let root = self.folder.path().to_owned();
        Server::start(move |asked| {
            if authorization.is_some() && asked.header("authorization") != authorization {
                return Reply::new(401, "").header("WWW-Authenticate", "Basic realm=\"x\"");
            }
            backend(&root, asked)
        })
    }
}

/// `git http-backend`, as a web server runs it.
pub(crate) fn backend(root: &Path, asked: &Asked) -> Reply {
    let (path, query) = asked.target.split_once('?').unwrap_or((&asked.target, ""));
    let Some((name, rest)) = path.trim_start_matches('/').split_once(".git/") else { return Reply::new(404, "") };
    let folder = root.join(name).join(".git");
    if !folder.exists() {
        return Reply::new(404, "");
    }
    let mut command = Command::new("git");
    command.arg("http-backend").env("GIT_HTTP_EXPORT_ALL", "1").env("PATH_TRANSLATED", folder.join(rest));
    command.env("REQUEST_METHOD", &asked.method).env("QUERY_STRING", query).env("PATH_INFO", path);
    command.env("CONTENT_TYPE", asked.header("content-type").unwrap_or_default());
    command.env("CONTENT_LENGTH", asked.body.len().to_string());
    command.env("GIT_PROTOCOL", asked.header("git-protocol").unwrap_or_default());
    if let Some(encoding) = asked.header("content-encoding") {
        command.env("HTTP_CONTENT_ENCODING", encoding);
    }
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    let body = asked.body.clone();
    let writer = std::thread::spawn(move || drop(pipe.write_all(&body)));
    let output = child.wait_with_output().unwrap().stdout;
    writer.join().unwrap();
    let end = output.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let mut reply = Reply::new(200, &output[end + 4..]);
    for line in String::from_utf8_lossy(&output[..end]).lines() {
        let (name, value) = line.split_once(": ").unwrap();
        match name {
            "Status" => reply.status = value.split(' ').next().unwrap().parse().unwrap(),
            _ => reply = reply.header(name, value),
        }
    }
    reply
}
