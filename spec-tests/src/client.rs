//! The clients that images go through: `fluyt` itself, podman and skopeo, each with a store of its own.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::folder::TestDir;
use crate::program::{self, Outcome};

/// `fluyt` with a store that only this test uses.
#[derive(Debug)]
pub struct Fluyt {
    folder: TestDir,
}

impl Fluyt {
    /// With an empty store.
    #[must_use]
    pub fn new() -> Self {
        Self { folder: TestDir::new() }
    }

    /// Its store.
    #[must_use]
    pub fn store(&self) -> std::path::PathBuf {
        self.folder.join("store")
    }

    /// A command to add environment or a working folder to.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Command::new(program::product("fluyt"));
        // Nothing of the person who runs the tests may decide them.
        for name in
            ["SOURCE_DATE_EPOCH", "DOCKER_CONFIG", "DOCKER_AUTH_CONFIG", "REGISTRY_AUTH_FILE", "BUILDKIT_PROGRESS"]
        {
            command.env_remove(name);
        }
        command.env("FLUYT_STORE", self.store()).env("HOME", self.folder.path()).env("NO_COLOR", "1");
        command
    }

    /// Runs it with `arguments`.
    pub fn run<I, S>(&self, arguments: I) -> Outcome
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let mut command = self.command();
        command.args(arguments);
        program::finish(command)
    }

    /// `fluyt build ARGUMENTS CONTEXT`.
    pub fn build(&self, context: &Path, arguments: &[&str]) -> Outcome {
        let mut command = self.command();
        command.arg("build").args(arguments).arg(context);
        program::finish(command)
    }
}

impl Default for Fluyt {
    fn default() -> Self {
        Self::new()
    }
}

/// podman with a store of its own, with plain copies of layers: the one driver that works on any machine.
#[derive(Debug)]
pub struct Podman {
    folder: TestDir,
}

impl Podman {
    /// With an empty store; `None`, said as a skip of `test`, where it cannot run.
    #[must_use]
    pub fn new(test: &str) -> Option<Self> {
        if !program::all_installed(test, &["podman"]) || !program::is_root(test) {
            return None;
        }
        Some(Self { folder: TestDir::new() })
    }

    /// Runs it with `arguments`.
    pub fn run(&self, arguments: &[&str]) -> Outcome {
        let mut command = Command::new("podman");
        command
            .arg("--root")
            .arg(self.folder.join("root"))
            .arg("--runroot")
            .arg(self.folder.join("run"))
            .arg("--storage-driver=vfs")
            .args(arguments);
        program::finish(command)
    }

    /// A folder for `PATH` in which `podman` is this one, with its store, and nothing else is.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn alone_in_path(&self) -> std::io::Result<PathBuf> {
        let (bin, path) = (self.folder.join("bin"), std::env::var("PATH").unwrap_or_default());
        let (root, run) = (self.folder.join("root"), self.folder.join("run"));
        let script = format!(
            "#!/bin/sh\nPATH='{path}' exec podman --root '{}' --runroot '{}' --storage-driver=vfs \"$@\"\n",
            root.display(),
            run.display()
        );
        std::fs::create_dir_all(&bin)?;
        std::fs::write(bin.join("podman"), script)?;
        std::fs::set_permissions(bin.join("podman"), std::fs::Permissions::from_mode(0o755))?;
        Ok(bin)
    }
}

/// Runs `skopeo copy`, over plain HTTP where a side is a registry.
#[must_use]
pub fn skopeo_copy(from: &str, to: &str) -> Outcome {
    program::run("skopeo", ["copy", "--quiet", "--src-tls-verify=false", "--dest-tls-verify=false", from, to])
}
