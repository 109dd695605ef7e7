//! A folder for one test: a store, a context, and what a build made of them.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A folder with a store and a context.
pub(crate) struct Place(tempfile::TempDir);

/// What a build said and made.
pub(crate) struct Built {
    /// Standard error.
    pub(crate) said: String,
    /// The result's files: `type mode uid:gid path content`, sorted, without times.
    pub(crate) files: Vec<String>,
}

impl Built {
    /// Whether the step of this instruction was found in the cache. That something was not fetched again is said of another
    /// step, and is no proof of it.
    pub(crate) fn found(&self, instruction: &str) -> bool {
        let titled = |line: &&str| line.contains(&format!("] {instruction}")) && !line.contains("[internal]");
        let title = self.said.lines().find(titled).unwrap_or_else(|| panic!("no step {instruction}:\n{}", self.said));
        let number = title.split(' ').next().unwrap_or_default();
        self.said.lines().any(|line| line == format!("{number} CACHED"))
    }
}

impl Place {
    pub(crate) fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        fs::create_dir(place.path("context")).unwrap();
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file, and the folders above it.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        self.command_showing("plain", arguments)
    }

    /// With this kind of progress.
    pub(crate) fn command_showing(&self, progress: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fluyt"));
        command.env("FLUYT_STORE", self.path("store")).env_remove("SOURCE_DATE_EPOCH");
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"] {
            command.env_remove(name).env_remove(name.to_lowercase());
        }
        command.args(["build", "--progress", progress]).args(arguments);
        command.current_dir(self.0.path()).stdin(Stdio::null());
        command
    }

    /// Builds with something on standard input.
    pub(crate) fn run(&self, arguments: &[&str], stdin: Option<&[u8]>) -> Output {
        let mut command = self.command(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let Some(stdin) = stdin else { return command.output().unwrap() };
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        let mut pipe = child.stdin.take().unwrap();
        let bytes = stdin.to_vec();
        let writer = std::thread::spawn(move || drop(pipe.write_all(&bytes)));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        output
    }

    /// Builds into a tar, which is read.
    pub(crate) fn build_with(&self, arguments: &[&str], stdin: Option<&[u8]>) -> Built {
        let output = self.run(&[arguments, &["-o", "type=tar,dest=result.tar"]].concat(), stdin);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        Built { said, files: listing(&fs::read(self.path("result.tar")).unwrap()) }
    }

    pub(crate) fn build(&self, arguments: &[&str]) -> Built {
        self.build_with(arguments, None)
    }

    /// A build that must fail with this code; gives what it said.
    pub(crate) fn fail(&self, code: i32, arguments: &[&str], stdin: Option<&[u8]>) -> String {
        let output = self.run(arguments, stdin);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{said}");
        said
    }
}

/// The entries of a tar, without times.
pub(crate) fn listing(tar: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(tar);
    let mut lines = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let header = entry.header().clone();
        let kind = match header.entry_type() {
            tar::EntryType::Directory => 'd',
            tar::EntryType::Symlink => 'l',
            tar::EntryType::Link => 'h',
            _ => 'f',
        };
        let path = entry.path().unwrap().display().to_string();
        let mut text = String::new();
        let _ = entry.read_to_string(&mut text);
        if let Ok(Some(target)) = entry.link_name() {
            text = format!("-> {}", target.display());
        }
        let (mode, uid, gid) = (header.mode().unwrap(), header.uid().unwrap(), header.gid().unwrap());
        lines.push(
            format!("{kind} {mode:o} {uid}:{gid} /{} {}", path.trim_matches('/'), text.trim_end())
                .trim_end()
                .to_owned(),
        );
    }
    lines.retain(|line| !(line.starts_with('d') && line.ends_with(" /")));
    lines.sort_by(|one, other| one.split(' ').nth(3).cmp(&other.split(' ').nth(3)));
    lines
}

/// A tar of these files: path, mode, owner, content.
pub(crate) fn tar_of(files: &[(&str, u32, u64, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, mode, uid, content) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(*mode);
        header.set_uid(*uid);
        header.set_gid(*uid);
        header.set_mtime(1_600_000_000);
        builder.append_data(&mut header, path, content.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

/// Compresses with a program, so that another implementation than ours wrote it.
pub(crate) fn compressed(program: &str, bytes: &[u8]) -> Vec<u8> {
    let mut child = Command::new(program)
        .arg("-c")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut pipe = child.stdin.take().unwrap();
    let copy = bytes.to_vec();
    let writer = std::thread::spawn(move || drop(pipe.write_all(&copy)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success(), "{program}");
    output.stdout
}

/// The blobs of a layout folder's only image are checked by whoever reads it; here only its place is needed.
pub(crate) fn text(path: &Path) -> String {
    path.display().to_string()
}
