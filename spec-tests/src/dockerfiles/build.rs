//! Building a case with `fluyt`, and comparing what came of it with what is expected.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use super::case::Case;
use super::listing::{Description, describe};
use super::rig::Rig;
use crate::folder::TestDir;
use crate::grounds::Ground;
use crate::image::Layout;
use crate::program;

/// What came of a build.
#[derive(Debug, Clone)]
pub struct Built {
    /// The exit code.
    pub code: i32,
    /// The image, where there is one.
    pub image: Option<Description>,
    /// The image's text, or the report.
    pub text: String,
    /// Standard error.
    pub stderr: String,
}

impl Case {
    /// The case's context with what git cannot hold, in a folder of its own.
    ///
    /// # Panics
    /// When `context.sh` fails.
    #[must_use]
    pub fn lay_out(&self) -> TestDir {
        let folder = TestDir::new();
        self.lay_out_in(&folder);
        folder
    }

    fn lay_out_in(&self, folder: &TestDir) {
        let context = folder.folder("context");
        let source = self.folder.join("context");
        if source.is_dir() {
            let _ = program::run("cp", [OsStr::new("-R"), source.join(".").as_os_str(), context.as_os_str()])
                .expect_success();
        }
        let script = self.folder.join("context.sh");
        if script.is_file() {
            let mut command = Command::new("sh");
            command.arg("-eu").arg(script).current_dir(&context);
            let _ = program::finish(command).expect_success();
        }
    }

    /// The same case from a copy of its folder, which others than its owner can read too.
    fn copied_to(&self, folder: &TestDir) -> Self {
        let copy = folder.join("case");
        let _ = program::run("cp", [OsStr::new("-R"), self.folder.as_os_str(), copy.as_os_str()]).expect_success();
        Self { folder: copy, ..self.clone() }
    }

    /// An argument with its placeholders filled in.
    #[must_use]
    pub fn filled(&self, argument: &str, context: &Path, rig: &Rig) -> String {
        argument
            .replace("{case}", &self.folder.to_string_lossy())
            .replace("{context}", &context.to_string_lossy())
            .replace("{registry}", &rig.host())
    }

    pub(super) fn names_a_file(&self) -> bool {
        self.flags
            .iter()
            .any(|flag| flag == "-f" || flag.starts_with("--file") || (flag.starts_with("-f") && flag.len() > 2))
            || self.context.is_some()
    }
}

/// Builds a case with `fluyt`, in a store of its own, as root on this machine.
#[must_use]
pub fn fluyt(case: &Case, rig: &Rig) -> Built {
    fluyt_on(case, rig, &Ground::root())
}

/// Builds a case with `fluyt` on a ground, in a store of its own.
///
/// # Panics
/// When the case cannot be laid out, and when the image that was built cannot be read.
#[must_use]
pub fn fluyt_on(case: &Case, rig: &Rig, ground: &Ground) -> Built {
    let folder = ground.new_folder();
    case.lay_out_in(&folder);
    let copied;
    let case = if ground.is_root() {
        case
    } else {
        copied = case.copied_to(&folder);
        &copied
    };
    ground.give(folder.path());
    let context = folder.join("context");
    // In memory where that is possible: hundreds of stores are synced otherwise.
    let store = ground.store(&case.name);
    let layout = folder.join("layout");

    let mut command = Command::new(ground.fluyt());
    for name in [
        "SOURCE_DATE_EPOCH",
        "DOCKER_CONFIG",
        "DOCKER_AUTH_CONFIG",
        "REGISTRY_AUTH_FILE",
        "BUILDKIT_PROGRESS",
        "SSH_AUTH_SOCK",
    ] {
        command.env_remove(name);
    }
    command.env("FLUYT_STORE", &store).env("HOME", folder.path()).env("NO_COLOR", "1").current_dir(folder.path());
    command.envs(case.variables.iter().map(|(name, value)| (name, case.filled(value, &context, rig))));
    command.args(["build", "--progress", "plain", "--registry-mirror", &rig.mirror()]);
    if !case.names_a_file() {
        command.arg("-f").arg(case.folder.join("Dockerfile"));
    }
    let has_image = !case.is_report() && !case.has_output();
    if has_image {
        command.arg("-o").arg(format!("type=oci,tar=false,dest={}", layout.display()));
    }
    command.args(case.flags.iter().map(|flag| case.filled(flag, &context, rig)));
    match &case.context {
        Some(given) => command.arg(case.filled(given, &context, rig)),
        None => command.arg(&context),
    };
    let outcome = match &case.stdin {
        None => program::finish(ground.command(command)),
        Some(name) => {
            let path =
                [case.folder.join(name), context.join(name), folder.join(name)].into_iter().find(|path| path.is_file());
            let file = fs::File::open(path.unwrap_or_else(|| panic!("{}: no file `{name}` for stdin", case.name)));
            program::finish_with(ground.command(command), Stdio::from(file.expect("the file for standard input")))
        }
    };
    ground.remove(&store);
    let built = has_image && outcome.code == Some(0);
    let image = built.then(|| describe(&Layout::open(&layout).image(None), &rig.bases));
    let text = image.as_ref().map_or(outcome.stdout, Description::text);
    Built { code: outcome.code.unwrap_or(-1), image, text, stderr: outcome.stderr }
}

/// What is wrong with what came of a case, if anything is.
#[must_use]
pub fn check(case: &Case, built: &Built) -> Option<String> {
    if built.stderr.contains("panicked at") {
        return Some(format!("it panicked:\n{}", built.stderr));
    }
    if let Some(expected) = case.expectation("expected-error.txt") {
        let mut lines = expected.lines();
        let code = lines.next().and_then(|line| line.strip_prefix("exit ")?.trim().parse::<i32>().ok());
        let Some(code) = code else { return Some("expected-error.txt does not begin with `exit N`".to_owned()) };
        if built.code != code {
            return Some(format!("expected exit {code}, found {}:\n{}", built.code, built.stderr));
        }
        let absent: Vec<&str> = lines.filter(|line| !line.is_empty() && !built.stderr.contains(line)).collect();
        return (!absent.is_empty()).then(|| format!("the message lacks {absent:?}:\n{}", built.stderr));
    }
    let Some(expected) = case.expectation("expected.txt") else {
        return Some("it has no expectation: write one with FLUYT_BLESS=1, and look at it".to_owned());
    };
    if built.code != 0 {
        return Some(format!("exit {}:\n{}", built.code, built.stderr));
    }
    (expected != built.text).then(|| differing(&expected, &built.text))
}

/// The lines that two texts do not share.
#[must_use]
pub fn differing(expected: &str, found: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (expected.lines().collect(), found.lines().collect());
    let head = old.iter().zip(&new).take_while(|(one, other)| one == other).count();
    let tail = old[head..].iter().rev().zip(new[head..].iter().rev()).take_while(|(one, other)| one == other).count();
    let lines = |sign: char, lines: &[&str]| lines.iter().map(|line| format!("  {sign} {line}\n")).collect::<String>();
    let before = lines(' ', &old[head.saturating_sub(2)..head]);
    before + &lines('-', &old[head..old.len() - tail]) + &lines('+', &new[head..new.len() - tail])
}

/// Writes what came of a case as what is expected of it.
///
/// # Panics
/// When it cannot be written.
pub fn bless(case: &Case, built: &Built) {
    let (name, text) = match built.code {
        0 => ("expected.txt", built.text.clone()),
        code => {
            let said =
                built.stderr.lines().filter(|line| line.starts_with("error: ") || line.starts_with("caused by: "));
            // Where the case lies is another place elsewhere.
            let folder = format!("({}", case.folder.display());
            let said: String = said
                .map(|line| format!("{}\n", line.split_once(&folder).map_or(line, |(before, _)| before.trim_end())))
                .collect();
            ("expected-error.txt", format!("exit {code}\n{said}"))
        }
    };
    let other = if built.code == 0 { "expected-error.txt" } else { "expected.txt" };
    let _ = fs::remove_file(case.folder.join(other));
    fs::write(case.folder.join(name), text).expect("the expectation");
}
