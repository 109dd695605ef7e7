//! `fluyt doctor`: how commands run here, what that protects, and what would be needed for a better way.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use super::args::DoctorArguments;
use super::failure::{Blame, Failure};
use super::place::Place;
use super::settings::store_folder;
use crate::sandbox::{Choice, Fidelity, Isolation, Refused, Rung, Wish};

pub(super) fn run(store: Option<&Path>, typed: &DoctorArguments) -> Result<(), Failure> {
    let wish = Wish {
        only: typed.isolation.and_then(|wanted| wanted.0),
        least: typed.isolation_min.and_then(|wanted| wanted.0),
    };
    let mut isolation = Isolation::new(wish);
    // What works on one file system need not on another. A store that is not there yet will be below this folder.
    if let Ok(folder) = store_folder(store)
        && let Some(place) = folder.ancestors().find(|folder| folder.is_dir())
    {
        isolation = isolation.at(place);
    }
    let report = Report { choice: isolation.choice(), place: &Place::here(), only: wish.only };
    let text = match typed.json {
        true => report.as_json().to_string() + "\n",
        false => report.words(),
    };
    super::print(text.as_bytes())?;
    // A question for a certain way has an answer that scripts can use; the bare report is always one.
    let asked = wish.only.or(wish.least).filter(|rung| *rung != Rung::Nothing);
    match asked {
        Some(rung) if report.choice.rung == Rung::Nothing => {
            Err(Failure::new(Blame::User, format!("RUN is not possible here on {rung}, or better")))
        }
        _ => Ok(()),
    }
}

struct Report<'a> {
    choice: &'a Choice,
    place: &'a Place,
    /// The one rung that was asked for: in words, nothing need be said of the others.
    only: Option<Rung>,
}

impl Report<'_> {
    fn as_json(&self) -> Value {
        let refused: Vec<Value> = self
            .choice
            .refused
            .iter()
            .map(|refused| {
                json!({"rung": refused.rung.name(), "reason": refused.reason, "fix": self.place.fix(refused)})
            })
            .collect();
        json!({
            "rung": self.choice.rung.name(),
            "fidelity": self.choice.rung.fidelity().map(Fidelity::name),
            "refused": refused,
            "snapshots": snapshots(self.choice.rung).0,
            "network": network(self.choice.rung).0,
            "place": self.place.name(),
        })
    }

    fn words(&self) -> String {
        let rung = self.choice.rung;
        let mut text = String::new();
        let mut row = |name: &str, words: &str| {
            let _ = writeln!(text, "{name:<10} {}", wrapped(words, 11));
        };
        row("RUN", &format!("{}: {}", rung.name(), rung.title()));
        row("layers", layers(rung));
        row("protects", protects(rung));
        let (name, words) = snapshots(rung);
        row("snapshots", &format!("{name}: {words}"));
        let (name, words) = network(rung);
        row("network", &format!("{name}: {words}"));
        row("here", &self.place.words());
        let asked = |refused: &&Refused| self.only.is_none_or(|only| only == refused.rung);
        let refused: Vec<&Refused> = self.choice.refused.iter().filter(asked).collect();
        if refused.is_empty() {
            return text;
        }
        let _ = write!(text, "\nNot taken{}\n", if rung == Rung::Nothing { "" } else { ", though better" });
        for refused in refused {
            let _ = writeln!(text, "  {}  {}", refused.rung, wrapped(refused.rung.title(), 6));
            let _ = writeln!(text, "      why: {}", wrapped(&refused.reason, 11));
            let _ = writeln!(text, "      do:  {}", wrapped(&self.place.fix(refused), 11));
        }
        text
    }
}

/// What the layers of a command are worth.
fn layers(rung: Rung) -> &'static str {
    match rung.fidelity() {
        Some(Fidelity::Exact) => "exact: owners, modes and attributes are those that a container of Docker's leaves",
        Some(Fidelity::Recorded) => {
            "recorded: files have the owners that commands ask for, and commands see them, but no user of a command is kept \
             from what root may do. Other builds take these layers from the cache only where they are recorded too"
        }
        Some(Fidelity::Chroot) => {
            "chroot: owners and modes are right, but commands see no /proc. Other builds take these layers from the cache \
             only where they are made in a chroot too"
        }
        None => "none: FROM, COPY, ADD, ENV and all else but RUN build as ever",
    }
}

fn protects(rung: Rung) -> &'static str {
    match rung {
        Rung::Root => {
            "files, processes and memory of this machine, by namespaces, Docker's capabilities and Docker's filter of system \
             calls. Root inside is root outside: a hole in the kernel is one in the machine"
        }
        Rung::Rootless => {
            "files, processes and memory of this machine, by namespaces, Docker's capabilities and Docker's filter of system \
             calls. Root inside has rights over nothing outside: there it is the user that started the build"
        }
        Rung::SingleId => {
            "files, processes and memory of this machine, by namespaces and Docker's filter of system calls. Root inside is \
             this user outside, and so is everybody else inside"
        }
        Rung::Chroot => {
            "files of this container from mistakes, not from malice: a command shares processes and network with the \
             container, and what holds it is the container's own walls. Build only what may do all that the container may"
        }
        Rung::Traced => {
            "files outside the root, and this user's other processes, by a tracer that answers the command's calls and by \
             Docker's filter of system calls. It is a program and no wall of the kernel's: a mistake in it lets a command do \
             all that this user may"
        }
        Rung::Nothing => "everything: no command runs",
    }
}

/// How root file systems are kept: a name, and what it means.
fn snapshots(rung: Rung) -> (&'static str, &'static str) {
    match rung {
        Rung::Root | Rung::Rootless | Rung::SingleId => {
            ("overlay", "layers are unpacked once, and a command's changes are what the kernel wrote apart")
        }
        Rung::Chroot | Rung::Traced => (
            "mutable-root",
            "one root file system a stage, unpacked again where a stage begins elsewhere; changes are found by comparing",
        ),
        Rung::Nothing => ("none", "layers are written without unpacking what they stand on"),
    }
}

/// Which network commands have where a build says nothing else.
fn network(rung: Rung) -> (&'static str, &'static str) {
    match rung {
        Rung::Root | Rung::Rootless | Rung::SingleId => (
            "host",
            "commands share this machine's network: they reach services on its loopback address and abstract sockets. \
             `--network none` cuts them off",
        ),
        Rung::Chroot | Rung::Traced => (
            "host",
            "commands share the network of this machine or container, its loopback address and its abstract sockets. They are \
             cut off by `--network none` only where a network namespace can be made, and refused where not",
        ),
        Rung::Nothing => ("none", "no command runs; the builder itself asks registries as ever"),
    }
}

/// Lines of at most 100 characters, all but the first indented.
fn wrapped(words: &str, indent: usize) -> String {
    let mut text = String::new();
    let mut width = indent;
    for word in words.split_whitespace() {
        let length = word.chars().count();
        if width > indent && width + 1 + length > 100 {
            let _ = write!(text, "\n{:indent$}", "");
            width = indent;
        } else if width > indent {
            text.push(' ');
            width += 1;
        }
        text.push_str(word);
        width += length;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::Refused;

    #[test]
    fn the_report_has_the_fields_that_scripts_read() {
        let refused = Refused { rung: Rung::Root, reason: "this is user 1000".to_owned(), fix: "sudo".to_owned() };
        let choice = Choice { rung: Rung::Rootless, refused: vec![refused] };
        let report = Report { choice: &choice, place: &Place::default(), only: None }.as_json();
        assert_eq!(
            report,
            json!({
                "rung": "r2", "fidelity": "exact", "snapshots": "overlay", "network": "host", "place": "machine",
                "refused": [{"rung": "r1", "reason": "this is user 1000", "fix": "sudo"}],
            })
        );
        let choice = Choice { rung: Rung::Nothing, refused: Vec::new() };
        let report = Report { choice: &choice, place: &Place::default(), only: None }.as_json();
        assert_eq!((&report["rung"], &report["fidelity"]), (&json!("r5"), &Value::Null));
    }

    #[test]
    fn words_say_what_is_missing_and_what_to_do() {
        let refused = Refused { rung: Rung::Root, reason: "this is user 1000".to_owned(), fix: "use sudo".to_owned() };
        for rung in Rung::LADDER {
            let choice = Choice { rung, refused: vec![refused.clone()] };
            let words = Report { choice: &choice, place: &Place::default(), only: None }.words();
            assert!(words.contains("why: this is user 1000\n      do:  use sudo\n"), "{words}");
            assert!(words.lines().all(|line| line.chars().count() <= 100), "{words}");
        }
    }
}
