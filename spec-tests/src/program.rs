//! Running a program and reading what it said.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// What a program that has ended left behind.
#[derive(Debug)]
pub struct Outcome {
    /// The command as a person would type it.
    pub command: String,
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output, lossily read as UTF-8.
    pub stdout: String,
    /// Standard error, lossily read as UTF-8.
    pub stderr: String,
    /// Standard output as it came.
    pub stdout_bytes: Vec<u8>,
}

impl Outcome {
    /// Standard output without the white space around it.
    #[must_use]
    pub fn text(&self) -> &str {
        self.stdout.trim()
    }

    /// Everything, for a message of a failing test.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut text = String::new();
        let _ = write!(
            text,
            "`{}` exited with {:?}\n--- stdout\n{}\n--- stderr\n{}",
            self.command, self.code, self.stdout, self.stderr
        );
        text
    }

    /// The same outcome, when the program exited with 0.
    ///
    /// # Panics
    /// When it did not.
    #[must_use]
    pub fn expect_success(self) -> Self {
        assert!(self.code == Some(0), "{}", self.describe());
        self
    }

    /// The same outcome, when the program exited with `code` and did not panic.
    ///
    /// # Panics
    /// When it did not, or when it panicked on the way.
    #[must_use]
    pub fn expect_code(self, code: i32) -> Self {
        assert!(self.code == Some(code), "expected exit code {code}: {}", self.describe());
        assert!(!self.stderr.contains("panicked at"), "it panicked: {}", self.describe());
        self
    }

    /// The same outcome, when standard error holds each of `parts`.
    ///
    /// # Panics
    /// When a part is absent.
    #[must_use]
    pub fn expect_message(self, parts: &[&str]) -> Self {
        for part in parts {
            assert!(self.stderr.contains(part), "the message lacks `{part}`: {}", self.describe());
        }
        self
    }
}

/// Runs `program` to its end, with no standard input.
///
/// # Panics
/// When it cannot be started.
pub fn run<I, S>(program: impl AsRef<OsStr>, arguments: I) -> Outcome
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let mut command = Command::new(program);
    command.args(arguments);
    finish(command)
}

/// Runs a prepared command to its end, with no standard input.
///
/// # Panics
/// When it cannot be started.
#[must_use]
pub fn finish(command: Command) -> Outcome {
    finish_with(command, Stdio::null())
}

/// Runs a prepared command to its end.
///
/// # Panics
/// When it cannot be started.
#[must_use]
pub fn finish_with(mut command: Command, stdin: Stdio) -> Outcome {
    let typed = typed(&command);
    let output = command.stdin(stdin).output().unwrap_or_else(|error| panic!("cannot start `{typed}`: {error}"));
    Outcome {
        command: typed,
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        stdout_bytes: output.stdout,
    }
}

fn typed(command: &Command) -> String {
    let mut words: Vec<OsString> = vec![command.get_program().to_owned()];
    words.extend(command.get_args().map(OsStr::to_owned));
    words.join(OsStr::new(" ")).to_string_lossy().into_owned()
}

/// The folder of this repository.
#[must_use]
pub fn repository() -> &'static Path {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    folder.parent().unwrap_or(folder)
}

/// The path of one of the two products' binaries, built first when it is not up to date. `FLUYT_SPEC_TESTS_BINARIES` names a
/// folder with other ones to test, such as the static ones.
///
/// # Panics
/// When it does not build.
pub fn product(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        if let Some(given) = std::env::var_os("FLUYT_SPEC_TESTS_BINARIES") {
            return given.into();
        }
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        build.args(["build", "--quiet", "--workspace", "--bins"]).current_dir(repository());
        let _ = finish(build).expect_success();
        // A test binary is <target>/debug/deps/<name>: the products stand one folder above it.
        let this = std::env::current_exe().expect("the path of this program");
        let folder = this.parent().expect("the folder of this program");
        if folder.ends_with("deps") {
            folder.parent().expect("the folder of the profile").to_owned()
        } else {
            folder.to_owned()
        }
    });
    folder.join(name)
}

/// Whether `program` can be found, on PATH or where Debian puts what only root needs.
#[must_use]
pub fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")])
        .any(|folder| folder.join(program).is_file())
}

/// Says that a test cannot run, and why. `spec-tests/run` counts it as skipped then, not as passed.
pub fn skip(test: &str, reason: &str) {
    if let Some(file) = std::env::var_os("FLUYT_SPEC_TESTS_SKIPS") {
        let mut file = OpenOptions::new().append(true).create(true).open(file).expect("the file of skips");
        writeln!(file, "{test}: {reason}").expect("the file of skips");
    } else {
        let _ = writeln!(std::io::stderr(), "skipped: {test}: {reason}");
    }
}

/// Whether all of `programs` are there; says that `test` is skipped when one is not.
#[must_use]
pub fn all_installed(test: &str, programs: &[&str]) -> bool {
    for program in programs {
        if !installed(program) {
            skip(test, &format!("{program} is not installed"));
            return false;
        }
    }
    true
}

/// Whether this process is root; says that `test` is skipped when it is not.
#[must_use]
pub fn is_root(test: &str) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let root = status.lines().any(|line| line.starts_with("Uid:") && line.split_whitespace().nth(2) == Some("0"));
    if !root {
        skip(test, "it needs root");
    }
    root
}
