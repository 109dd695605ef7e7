//! What a build shows on standard error, as its reader meets it: on a terminal, in a pipe, in a CI service's log.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::io::Write as _;
use std::process::{Command, Stdio};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use terminal::on_a_terminal;

#[path = "common/terminal.rs"]
mod terminal;

struct Place(tempfile::TempDir);

impl Place {
    fn new(dockerfile: &str) -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        let context = place.0.path().join("context");
        std::fs::create_dir(&context).unwrap();
        std::fs::write(context.join("Dockerfile"), dockerfile).unwrap();
        std::fs::write(context.join("program"), [0; 2000]).unwrap();
        place
    }

    fn build(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fluyt"));
        for name in ["SOURCE_DATE_EPOCH", "GITHUB_ACTIONS", "GITLAB_CI", "NO_COLOR", "BUILDKIT_PROGRESS"] {
            command.env_remove(name);
        }
        command.env("FLUYT_STORE", self.0.path().join("store")).env("TERM", "xterm-256color");
        command.arg("build").args(arguments).arg("context").current_dir(self.0.path()).stdin(Stdio::null());
        command
    }
}

#[test]
fn a_terminal_gets_a_drawing_and_a_pipe_gets_lines() {
    let place =
        Place::new("FROM scratch\nCOPY program /a/name/that/is/long/enough/to/be/cut/at/the/right/edge/of/it\n");
    let (code, stdout, drawn) = on_a_terminal(place.build(&[]), |_| {});
    assert_eq!((code, stdout.len()), (Some(0), 72));
    assert!(drawn.contains(" ✓ ") && drawn.contains('…') && drawn.contains("2 of 2 steps done"), "{drawn}");
    for line in drawn.lines() {
        let mut shown = String::new();
        let mut rest = line;
        while let Some(at) = rest.find('\u{1b}') {
            shown.push_str(&rest[..at]);
            rest = rest[at..].trim_start_matches(|c: char| !c.is_ascii_alphabetic());
            rest = rest.get(1..).unwrap_or_default();
        }
        shown.push_str(rest);
        // A drawing that replaces another begins at the left edge.
        let shown = shown.replace('\r', "");
        assert!(shown.chars().count() < 60 || shown.contains("the image is in the store"), "{shown:?}");
    }

    let (_, _, drawn) = {
        let mut command = place.build(&[]);
        command.env("NO_COLOR", "1");
        on_a_terminal(command, |_| {})
    };
    assert!(drawn.contains("cached") && !drawn.contains("\u{1b}[3") && !drawn.contains("\u{1b}[1m"), "{drawn:?}");

    let (_, _, drawn) = {
        let mut command = place.build(&[]);
        command.env("TERM", "dumb");
        on_a_terminal(command, |_| {})
    };
    assert!(drawn.contains("#2 CACHED") && !drawn.contains('\u{1b}'), "{drawn:?}");

    for progress in ["auto", "tty", "plain"] {
        let output = place.build(&["--progress", progress]).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(told.contains("\n#2 CACHED\n") && !told.contains('\u{1b}'), "{progress}: {told}");
    }
}

#[test]
fn raw_json_is_json_to_the_last_line() {
    let place = Place::new("FROM scratch\nCOPY program $NOWHERE/\n");
    let output = place.build(&["--progress", "rawjson"]).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    let objects: Vec<serde_json::Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let copy = objects.iter().filter_map(|object| object["vertexes"][0].as_object()).rfind(|vertex| {
        vertex["name"].as_str().is_some_and(|name| name.starts_with("[2/2] COPY") || name.starts_with("[1/1] COPY"))
    });
    assert!(copy.is_some_and(|copy| copy.contains_key("completed")), "{told}");
    assert!(objects.iter().any(|object| object["warnings"][0]["range"][0]["start"]["line"] == 2), "{told}");
}

#[test]
fn a_warning_stands_beside_its_file_on_github() {
    let place = Place::new("FROM scratch\nCOPY program $NOWHERE/\n");
    let absolute = place.0.path().join("context/Dockerfile").display().to_string();
    for file in ["context/Dockerfile", "./context/Dockerfile", &absolute] {
        let mut command = place.build(&["-f", file]);
        command.env("GITHUB_ACTIONS", "true").env("GITHUB_WORKSPACE", place.0.path());
        let told = String::from_utf8(command.output().unwrap().stderr).unwrap();
        assert!(told.contains("\n::warning file=context/Dockerfile,line=2,endLine=2,title=UndefinedVar::"), "{told}");
    }
}

#[test]
fn a_dockerfile_that_cannot_be_built_has_an_error_beside_it_on_github() {
    let place = Place::new("FROM scratch\nCOPY program /\nRUNN x\n");
    for (file, error) in [
        (
            "context/../context/Dockerfile",
            "\n::error file=context/Dockerfile,line=3,endLine=3::unknown instruction `RUNN`",
        ),
        ("-", "\n::error::unknown instruction `RUNN`"),
    ] {
        let mut command = place.build(&["-f", file]);
        command.env("GITHUB_ACTIONS", "true").env("GITHUB_WORKSPACE", place.0.path());
        command.stdin(std::fs::File::open(place.0.path().join("context/Dockerfile")).unwrap());
        let output = command.output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), told.matches("::error").count()), (Some(1), 1), "{told}");
        assert!(told.contains(error), "{told}");
    }
}

#[test]
fn a_build_that_fails_names_its_log_and_draws_its_time() {
    let place = Place::new("FROM scratch\nCOPY program /\nCOPY absent /\n");
    let output = place.build(&["--timeline", "time.json"]).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("Dockerfile:3\n") && told.contains("   3 | >>> COPY absent /\n"), "{told}");
    let log = told.lines().find_map(|line| line.strip_prefix("hint: the whole log is in ")).unwrap();
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("COPY program /\n") && log.contains(" ERROR: ") && log.contains(">>> COPY absent /"), "{log}");
    let timeline = std::fs::read(place.0.path().join("time.json")).unwrap();
    let timeline: serde_json::Value = serde_json::from_slice(&timeline).unwrap();
    let events = timeline["traceEvents"].as_array().unwrap();
    let failed = events.iter().find(|event| event["cat"] == "step" && event["args"]["error"].is_string()).unwrap();
    assert_eq!(failed["args"]["lines"], serde_json::json!([3, 3]));
}

#[test]
fn a_terminal_as_standard_input_is_told_what_is_waited_for() {
    let place = Place::new("FROM scratch\nCOPY absent /\n");
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let terminal = std::fs::OpenOptions::new().read(true).write(true).open(name.to_str().unwrap()).unwrap();
    let mut master = std::fs::File::from(master);
    master.write_all(b"FROM scratch\nCOPY program /\n\x04").unwrap();
    let output = place.build(&["-f", "-"]).stdin(terminal).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("note: reading the Dockerfile from standard input; Ctrl-D ends it"), "{said}");
}

#[test]
fn a_step_that_finds_the_store_damaged_has_an_end() {
    let place = Place::new("FROM 127.0.0.1:1/none\n");
    assert!(!place.build(&["--progress=plain"]).output().unwrap().status.success());
    std::fs::write(place.0.path().join("store/index.json"), "{").unwrap();
    let said = String::from_utf8(place.build(&["--progress=plain"]).output().unwrap().stderr).unwrap();
    assert!(said.contains("[internal] load metadata for 127.0.0.1:1/none"), "{said}");
    assert!(said.contains("\n#2 ERROR: "), "{said}");
}
