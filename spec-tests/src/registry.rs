//! The real `fluyt-registry`, on a free port and a folder of its own.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::folder::TestDir;
use crate::image::Image;
use crate::program;
use crate::samples;
use crate::target::{Access, Target};

/// How long a registry may take to say that it listens, and to stop.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running registry. Dropping it stops it and removes its folder.
#[derive(Debug)]
pub struct Registry {
    child: Child,
    url: String,
    store: PathBuf,
    log: PathBuf,
    _folder: TestDir,
}

impl Registry {
    /// Starts one on a folder of its own.
    ///
    /// # Panics
    /// When it does not come up; the message holds what it logged.
    #[must_use]
    pub fn start() -> Self {
        let folder = TestDir::new();
        let store = folder.join("store");
        Self::start_in(folder, store, &[])
    }

    /// Starts one on a folder of its own, with more flags of `serve`.
    ///
    /// # Panics
    /// When it does not come up; the message holds what it logged.
    #[must_use]
    pub fn start_with(flags: &[&str]) -> Self {
        let folder = TestDir::new();
        let store = folder.join("store");
        Self::start_in(folder, store, flags)
    }

    /// Starts one on `store`, which the caller keeps.
    ///
    /// # Panics
    /// When it does not come up; the message holds what it logged.
    #[must_use]
    pub fn start_on(store: &Path) -> Self {
        Self::start_in(TestDir::new(), store.to_owned(), &[])
    }

    /// Starts one on `store`, which the caller keeps, with more flags of `serve`.
    ///
    /// # Panics
    /// When it does not come up; the message holds what it logged.
    #[must_use]
    pub fn start_on_with(store: &Path, flags: &[&str]) -> Self {
        Self::start_in(TestDir::new(), store.to_owned(), flags)
    }

    /// Kills it (SIGKILL), and waits until it is gone. Its folder stays where the caller keeps it.
    pub fn kill(self) {
        drop(self);
    }

    /// Starts one that stores at `url`, with further arguments and variables.
    ///
    /// # Panics
    /// When it does not come up; the message holds what it logged.
    #[must_use]
    pub fn start_at(url: &str, arguments: &[&str], variables: &[(&'static str, String)]) -> Self {
        let folder = TestDir::new();
        let store = folder.join("store");
        Self::spawn(folder, store, url, arguments, variables)
    }

    /// The most memory that it had at any time, in bytes.
    ///
    /// # Panics
    /// When the system does not tell.
    #[must_use]
    pub fn peak_memory_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("the state of its process");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("its peak memory");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number of KiB") * 1024
    }

    fn start_in(folder: TestDir, store: PathBuf, flags: &[&str]) -> Self {
        let url = format!("file://{}", store.display());
        Self::spawn(folder, store, &url, flags, &[])
    }

    fn spawn(
        folder: TestDir,
        store: PathBuf,
        url: &str,
        arguments: &[&str],
        variables: &[(&'static str, String)],
    ) -> Self {
        let log = folder.join("log");
        let errors = File::create(&log).expect("a file for the log");
        let mut child = Command::new(program::product("fluyt-registry"))
            .args(["serve", "--listen", "127.0.0.1:0", "--store", url])
            .args(arguments)
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .expect("fluyt-registry starts");
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line).expect("its first line");
        }
        let url = line
            .strip_prefix("fluyt-registry listening on ")
            .and_then(|rest| rest.split_once(", storing in "))
            .map(|(url, _)| url.to_owned())
            .unwrap_or_else(|| {
                let _ = child.kill();
                panic!(
                    "fluyt-registry did not say where it listens; its first line: `{line}`; its log:\n{}",
                    fs::read_to_string(&log).unwrap_or_default()
                )
            });
        Self { child, url, store, log, _folder: folder }
    }

    /// Its address with the scheme: `http://127.0.0.1:41234`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its address as references name it: `127.0.0.1:41234`.
    #[must_use]
    pub fn host(&self) -> &str {
        self.url.split_once("://").map_or(self.url.as_str(), |(_, host)| host)
    }

    /// The folder it stores in.
    #[must_use]
    pub fn store(&self) -> &Path {
        &self.store
    }

    /// What it logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// For asking it over HTTP.
    #[must_use]
    pub fn target(&self) -> Target {
        Target::new(&self.url, Access::default())
    }

    /// An image in it, read without any client.
    ///
    /// # Panics
    /// When a part of it cannot be had.
    #[must_use]
    pub fn image(&self, repository: &str, reference: &str) -> Image {
        let target = self.target();
        let answer = target.get(&format!("/v2/{repository}/manifests/{reference}")).expect_status(200);
        let digest = samples::digest(&answer.body);
        Image::read(digest, answer.body, |digest| {
            target.get(&format!("/v2/{repository}/blobs/{digest}")).expect_status(200).body
        })
    }

    /// Asks it to stop, as a service manager does, and waits: its exit code.
    ///
    /// # Panics
    /// When it goes on running.
    pub fn stop(&mut self) -> Option<i32> {
        let _ = program::run("kill", ["-TERM", &self.child.id().to_string()]);
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("its state") {
                return status.code();
            }
            assert!(start.elapsed() < PATIENCE, "fluyt-registry does not stop; its log:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // Killed rather than asked: what it wrote has to be whole at any moment.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
