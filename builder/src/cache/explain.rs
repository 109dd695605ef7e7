//! Why a step was not found: what its keys were made of, kept by name, and said in words when it differs.
//!
//! ```text
//! <store>/records/1/preimages-<place>.json    of one Dockerfile and context: what each step's keys were made of
//! ```
//!
//! Values stay on this machine. Of variables whose names are those of secrets not even the old and the new value are shown.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::key::{Key, Mode};
use crate::graph::{About, Chmod, CopyFrom, CopyOp, MountFrom, MountKind, Network, Op, RunOp, Security};

/// Most files of one step that are kept by name. A step that takes more says only that some of them changed.
const FILES_MAX: usize = 50_000;

/// Most names that are said of one kind of change.
const NAMES_MAX: usize = 5;

/// Parts of names whose values are not shown.
const SECRETS: [&str; 8] = ["token", "password", "passwd", "pword", "secret", "key", "credential", "auth"];

/// What the keys of one step were made of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preimage {
    /// The stage, for finding it again.
    pub stage: String,
    /// The instruction as typed, for finding it again.
    pub instruction: String,
    /// Which of the stage's steps it is, from 1, for finding it again.
    pub step: usize,
    /// The operation's own fields, by name.
    fields: BTreeMap<String, String>,
    /// Variables in scope, by name.
    variables: BTreeMap<String, String>,
    /// Files that it takes, by path: kind, mode and content.
    files: BTreeMap<String, String>,
    /// Hash of all files; for where there are too many to keep.
    all_files: Option<String>,
    /// Results that it stands on: what lies below, and what it copies or mounts from. By what they are called.
    results: BTreeMap<String, String>,
    /// What all the rest comes to, by what it is called where nothing else tells the difference.
    #[serde(default)]
    pub last_result: Option<(String, String)>,
    /// The results among them that were found in this build.
    #[serde(skip)]
    found: BTreeSet<String>,
}

impl Preimage {
    /// What an operation says of itself.
    #[must_use]
    pub fn of(op: &Op, about: &About) -> Self {
        let mut preimage = Self {
            stage: about.stage.clone().unwrap_or_default(),
            instruction: about.instruction.clone(),
            step: about.step,
            ..Self::default()
        };
        match op {
            Op::Base(base) => preimage.field("base image", &base.digest),
            Op::Copy(copy) => preimage.copy(copy),
            Op::Run(run) => preimage.run(run),
            Op::Fetch(_) => {}
        }
        preimage
    }

    fn field(&mut self, name: &str, value: &str) {
        self.fields.insert(name.to_owned(), value.to_owned());
    }

    fn copy(&mut self, op: &CopyOp) {
        self.field("sources", &op.sources.join(" "));
        for file in &op.inline {
            self.field(&format!("heredoc {}", file.name), crate::blob::sha256(&file.content).as_ref());
        }
        self.field("destination", &op.destination);
        self.field("--chown", op.chown.as_deref().unwrap_or_default());
        let chmod = match &op.chmod {
            None => String::new(),
            Some(Chmod::Bits(bits)) => format!("{bits:o}"),
            Some(Chmod::Symbolic(mode)) => mode.text().to_owned(),
        };
        self.field("--chmod", &chmod);
        self.field("--exclude", &op.exclude.join(" "));
        for (name, flag) in [("--link", op.link), ("--parents", op.parents), ("--unpack", op.unpack)] {
            self.field(name, &flag.to_string());
        }
        let from = match &op.from {
            CopyFrom::Context if op.sources.is_empty() => "the Dockerfile",
            CopyFrom::Context => "the context",
            CopyFrom::Folder(_) => "a named context",
            CopyFrom::Root(_) => "a stage or image",
            CopyFrom::Fetch(_) => "an address",
            CopyFrom::MakeDirectory => "",
        };
        self.field("where it copies from", from);
    }

    fn run(&mut self, op: &RunOp) {
        self.field("command", &op.argv.join(" "));
        self.field("working directory", &op.cwd);
        self.field("user", &op.user);
        self.field("platform", &op.platform.to_string());
        let network = match op.network {
            Network::Default => "default",
            Network::None => "none",
            Network::Host => "host",
            Network::Isolated => "isolated",
        };
        self.field("--network", network);
        let security = if op.security == Security::Sandbox { "sandbox" } else { "insecure" };
        self.field("--security", security);
        for (name, address) in &op.conditions.hosts {
            self.field(&format!("--add-host {name}"), address);
        }
        for limit in &op.conditions.limits {
            let shown = |value: Option<u64>| value.map_or_else(|| "unlimited".to_owned(), |value| value.to_string());
            self.field(&format!("--ulimit {}", limit.name), &format!("{}:{}", shown(limit.soft), shown(limit.hard)));
        }
        if let Some(size_bytes) = op.conditions.shm_size_bytes {
            self.field("--shm-size", &size_bytes.to_string());
        }
        for name in &op.conditions.added_capabilities {
            self.field("--cap-add", name);
        }
        for name in &op.conditions.dropped_capabilities {
            self.field("--cap-drop", name);
        }
        if let Some(name) = &op.conditions.host_name {
            self.field("BUILDKIT_SANDBOX_HOSTNAME", name);
        }
        if let Some(script) = &op.script {
            self.field("script", &String::from_utf8_lossy(&script.content));
        }
        for mount in &op.mounts {
            let kind = match &mount.kind {
                MountKind::Bind => "bind".to_owned(),
                MountKind::Cache { id, sharing, .. } => format!("cache {id} {sharing:?}"),
                MountKind::Tmpfs { size_bytes } => format!("tmpfs {size_bytes}"),
                MountKind::Secret { id, .. } => format!("secret {id}"),
                MountKind::Ssh { id, .. } => format!("ssh {id}"),
            };
            let from = match mount.from {
                MountFrom::Context => " of the context",
                MountFrom::Folder(_) => " of a named context",
                MountFrom::Root(_) | MountFrom::Nothing => "",
            };
            let access = if mount.read_only { ", read-only" } else { "" };
            self.field(&format!("mount {}", mount.target), &format!("{kind}{from} {}{access}", mount.source));
        }
        self.variables.extend(op.env.iter().cloned());
    }

    /// How the build treats times, and what differs with them.
    pub fn mode(&mut self, mode: Mode) {
        self.field("--reproducible", &mode.reproducible.to_string());
        // Only where it is asked for: earlier builds did not know of it.
        if mode.normalize {
            self.field("--normalize", "true");
        }
    }

    /// A file that the step takes.
    pub fn file(&mut self, path: String, what: String) {
        if self.files.len() <= FILES_MAX {
            self.files.insert(path, what);
        }
    }

    /// Hash of all files that the step takes. Too many of them are not kept by name.
    pub fn all_files(&mut self, key: Key) {
        if self.files.len() > FILES_MAX {
            self.files.clear();
        }
        self.all_files = Some(key.to_string());
    }

    /// A result that the step stands on.
    pub fn result(&mut self, name: String, content: String) {
        self.results.insert(name, content);
    }

    /// Says that a result was found: where it is not what it was, the step that it is of did not run again.
    pub fn was_found(&mut self, name: &str) {
        self.found.insert(name.to_owned());
    }

    /// Takes over what is known of an earlier build alone. What all the rest comes to is the same only where the rest is.
    pub fn complete_from(&mut self, earlier: &Self) {
        self.found.clear();
        for (name, content) in &earlier.results {
            self.results.entry(name.clone()).or_insert_with(|| content.clone());
        }
        if self.last_result.is_none() && self.since(earlier).is_empty() {
            self.last_result.clone_from(&earlier.last_result);
        }
    }

    /// How this differs from what an earlier build had at the same place, in words; empty where nothing does.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Vec<String> {
        let mut said = Vec::new();
        for (name, (before, now)) in changed(&earlier.fields, &self.fields) {
            said.push(match (before, now) {
                (None, Some(_)) => format!("{name} is new"),
                (Some(_), None) => format!("{name} is gone"),
                (Some(before), Some(now)) if is_short(before) && is_short(now) => {
                    format!("{name} changed from {} to {}", quoted(before), quoted(now))
                }
                _ => format!("{name} changed"),
            });
        }
        for (name, (before, now)) in changed(&earlier.variables, &self.variables) {
            let hidden = SECRETS.iter().any(|part| name.to_ascii_lowercase().contains(part));
            said.push(match (before, now) {
                (None, Some(_)) => format!("variable {name} is new"),
                (Some(_), None) => format!("variable {name} is gone"),
                (Some(before), Some(now)) if !hidden && is_short(before) && is_short(now) => {
                    format!("variable {name} changed from {} to {}", quoted(before), quoted(now))
                }
                _ => format!("variable {name} changed"),
            });
        }
        said.extend(self.files_since(earlier));
        for (name, (before, now)) in changed(&earlier.results, &self.results) {
            if before.is_some() && now.is_some() {
                let how = if self.found.contains(name) { "that of another build" } else { "not what it was" };
                said.push(format!("{name} is {how}"));
            }
        }
        if said.is_empty()
            && let (Some((_, before)), Some((name, now))) = (&earlier.last_result, &self.last_result)
            && before != now
        {
            said.push(format!("{name} is not what it was"));
        }
        said
    }

    fn files_since(&self, earlier: &Self) -> Vec<String> {
        let (mut other, mut modes, mut new, mut gone) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (path, (before, now)) in changed(&earlier.files, &self.files) {
            match (before, now) {
                (None, _) => new.push(path),
                (_, None) => gone.push(path),
                // The mode stands last.
                (Some(before), Some(now)) => match (before.rsplit_once(' '), now.rsplit_once(' ')) {
                    (Some((before, _)), Some((now, _))) if before == now => modes.push(path),
                    _ => other.push(path),
                },
            }
        }
        let kinds = [(other, "changed"), (modes, "changed mode"), (new, "new"), (gone, "gone")];
        let mut said: Vec<String> = kinds
            .into_iter()
            .filter(|(paths, _)| !paths.is_empty())
            .map(|(paths, what)| {
                let noun = if paths.len() == 1 { "file" } else { "files" };
                let names = paths[..paths.len().min(NAMES_MAX)].join(", ");
                let more = paths.len().saturating_sub(NAMES_MAX);
                let more = if more > 0 { format!(" and {more} more") } else { String::new() };
                format!("{what}: {noun} {names}{more}")
            })
            .collect();
        if said.is_empty()
            && self.all_files.is_some()
            && earlier.all_files.is_some()
            && self.all_files != earlier.all_files
        {
            said.push("some of the files that it takes changed".to_owned());
        }
        said
    }
}

/// What the steps of one Dockerfile and context were made of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preimages(pub Vec<Preimage>);

impl Preimages {
    /// The step at the same place: the same instruction of the same stage, or else the stage's step of the same number.
    #[must_use]
    pub fn nearest(&self, to: &Preimage) -> Option<&Preimage> {
        let stage = || self.0.iter().filter(|one| one.stage == to.stage);
        let same = stage().filter(|one| one.instruction == to.instruction);
        same.min_by_key(|one| one.step.abs_diff(to.step)).or_else(|| stage().find(|one| one.step == to.step))
    }
}

type Change<'a> = (Option<&'a String>, Option<&'a String>);

/// The names whose values differ, with both.
fn changed<'a>(before: &'a BTreeMap<String, String>, now: &'a BTreeMap<String, String>) -> Vec<(&'a str, Change<'a>)> {
    let names: BTreeSet<&String> = before.keys().chain(now.keys()).collect();
    let both = names.into_iter().map(|name| (name.as_str(), (before.get(name), now.get(name))));
    both.filter(|(_, (before, now))| before != now).collect()
}

fn is_short(value: &str) -> bool {
    value.len() <= 100 && !value.contains('\n')
}

fn quoted(value: &str) -> String {
    if value.is_empty() { "nothing".to_owned() } else { format!("`{value}`") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn preimage(fields: &[(&str, &str)], variables: &[(&str, &str)], files: &[(&str, &str)]) -> Preimage {
        let map = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        Preimage { fields: map(fields), variables: map(variables), files: map(files), ..Preimage::default() }
    }

    #[test]
    fn differences_are_said_in_words() {
        let before = preimage(
            &[("command", "make"), ("user", ""), ("mount /src", "bind of the context  ")],
            &[("V", "1"), ("API_TOKEN", "abc"), ("OLD", "x")],
            &[("a", "file aa 644"), ("b", "file bb 644"), ("c", "file cc 644")],
        );
        let mut now = preimage(
            &[("command", "make all"), ("user", "app")],
            &[("V", "2"), ("API_TOKEN", "def"), ("NEW", "x")],
            &[("a", "file aa 755"), ("b", "file b2 644"), ("d", "file dd 644")],
        );
        now.result("the result of `COPY . .` (line 3)".to_owned(), "2".to_owned());
        let mut before = before;
        before.result("the result of `COPY . .` (line 3)".to_owned(), "1".to_owned());
        assert_eq!(
            now.since(&before),
            [
                "command changed from `make` to `make all`",
                "mount /src is gone",
                "user changed from nothing to `app`",
                "variable API_TOKEN changed",
                "variable NEW is new",
                "variable OLD is gone",
                "variable V changed from `1` to `2`",
                "changed: file b",
                "changed mode: file a",
                "new: file d",
                "gone: file c",
                "the result of `COPY . .` (line 3) is not what it was",
            ]
        );
        assert_eq!(now.since(&now.clone()), Vec::<String>::new());
    }

    #[test]
    fn many_files_are_counted() {
        let names: Vec<String> = (0..9).map(|number| format!("f{number}")).collect();
        let files: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "file x 644")).collect();
        assert_eq!(
            preimage(&[], &[], &files).since(&Preimage::default()),
            ["new: files f0, f1, f2, f3, f4 and 4 more"]
        );
    }

    #[test]
    fn the_nearest_is_the_same_instruction_or_the_same_number() {
        let one = |stage: &str, instruction: &str, step| Preimage {
            stage: stage.to_owned(),
            instruction: instruction.to_owned(),
            step,
            ..Preimage::default()
        };
        let all =
            Preimages(vec![one("a", "RUN x", 1), one("a", "RUN y", 2), one("a", "RUN x", 7), one("b", "RUN x", 1)]);
        assert_eq!(all.nearest(&one("a", "RUN x", 6)), Some(&all.0[2]));
        assert_eq!(all.nearest(&one("a", "RUN z", 2)), Some(&all.0[1]));
        assert_eq!(all.nearest(&one("b", "RUN z", 2)), None);
    }
}
