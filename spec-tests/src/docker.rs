//! A Docker daemon of the tests' own, and `docker` against it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::folder::TestDir;
use crate::program::{self, Outcome};

/// How long the daemon may take until it answers.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running daemon, on its own socket and folder. It ends when the last test that holds it does.
#[derive(Debug)]
pub struct Dockerd {
    child: Child,
    socket: PathBuf,
    folder: TestDir,
}

impl Dockerd {
    /// The daemon that the tests share, started when none holds it; `None`, said as a skip of `test`, where it cannot run.
    ///
    /// # Panics
    /// When a daemon that is installed does not come up.
    pub fn shared(test: &str) -> Option<Arc<Self>> {
        static SHARED: Mutex<Weak<Dockerd>> = Mutex::new(Weak::new());
        if !program::all_installed(test, &["dockerd", "docker"]) || !program::is_root(test) {
            return None;
        }
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = shared.upgrade() {
            return Some(running);
        }
        let started = Arc::new(Self::start());
        *shared = Arc::downgrade(&started);
        Some(started)
    }

    fn start() -> Self {
        let folder = TestDir::new();
        let socket = folder.join("docker.sock");
        let log = File::create(folder.join("log")).expect("a file for the log");
        let child = Command::new(program::repository().join("spec-tests/dockerd"))
            .arg(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the script that runs dockerd");
        let daemon = Self { child, socket, folder };
        let start = Instant::now();
        while daemon.docker(["version"]).code != Some(0) {
            assert!(
                start.elapsed() < PATIENCE,
                "dockerd does not answer; its log:\n{}",
                fs::read_to_string(daemon.folder.join("log")).unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
        daemon
    }

    /// What `DOCKER_HOST` has to be for a client of this daemon.
    #[must_use]
    pub fn host(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// Runs `docker` against it.
    pub fn docker<I, S>(&self, arguments: I) -> Outcome
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let mut command = Command::new("docker");
        command.env("DOCKER_HOST", self.host()).env_remove("DOCKER_CONTEXT").args(arguments);
        program::finish(command)
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        // The script stops the daemon when its standard input ends, and ends after it.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
