//! Plain lines in the foldable groups of a CI service's log.
//!
//! Groups there can neither overlap nor stand in each other, and steps run at the same time: so one step has the word, and
//! what the others say is kept until it is done or silent, or until they have waited long. A step that loses the word
//! goes on in a further group of its own.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use super::View;
use super::book::{Book, Line};
use super::plain::{Words, check_line, remark};
use super::text::{clean, one_line};
use crate::event::{Event, StepId};

/// How long the step that has the word may be silent while others wait.
const SILENT_MAX: Duration = Duration::from_secs(5);

/// How long a step may be kept waiting.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// How long a step's title waits for what follows it.
const TITLE_MAX: Duration = Duration::from_secs(1);

/// How much is kept of a step that waits, in bytes; a build's output must not fill the memory.
const KEPT_MAX_BYTES: usize = 1024 * 1024;

/// Whose log it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Service {
    /// GitHub Actions, where files are named from the workspace's top.
    GitHub {
        /// The workspace's folder.
        workspace: String,
        /// From there to where the build runs.
        below: String,
    },
    /// GitLab CI, whose sections carry the time: the build's start, in seconds since 1970.
    GitLab {
        /// When the build began.
        began_s: i64,
    },
}

/// What a step said and nobody has read yet.
#[derive(Debug, Default)]
struct Kept {
    text: String,
    /// How it ended.
    result: String,
    since: Duration,
    /// Whether it is worth a group: it printed something.
    has_lines: bool,
    groups: usize,
}

impl Kept {
    fn is_empty(&self) -> bool {
        self.text.is_empty() && self.result.is_empty()
    }

    /// A title alone waits a little for the first line or the result.
    fn is_due(&self, now: Duration) -> bool {
        let ripe = self.has_lines || !self.result.is_empty() || now.saturating_sub(self.since) >= TITLE_MAX;
        !self.is_empty() && ripe
    }
}

/// The view.
#[derive(Debug)]
pub(super) struct Groups {
    service: Service,
    words: Words,
    kept: BTreeMap<StepId, Kept>,
    /// The step whose group is open, and when it last said something.
    open: Option<(StepId, Duration)>,
    /// The Dockerfile, as seen from where the build runs.
    path: String,
}

impl Groups {
    pub(super) fn new(service: Service, colour: bool) -> Self {
        Self { service, words: Words::new(colour), kept: BTreeMap::new(), open: None, path: String::new() }
    }

    fn begin(&self, step: StepId, title: &str, now: Duration) -> String {
        match &self.service {
            Service::GitHub { .. } => format!("::group::{}\n", data(title)),
            Service::GitLab { began_s } => {
                let at = began_s.saturating_add_unsigned(now.as_secs());
                let count = self.kept.get(&step).map_or(0, |kept| kept.groups);
                format!("\u{1b}[0Ksection_start:{at}:step_{}_{count}\r\u{1b}[0K{title}\n", step.0)
            }
        }
    }

    fn finish(&self, step: StepId, now: Duration) -> String {
        match &self.service {
            Service::GitHub { .. } => "::endgroup::\n".to_owned(),
            Service::GitLab { began_s } => {
                let at = began_s.saturating_add_unsigned(now.as_secs());
                let count = self.kept.get(&step).map_or(0, |kept| kept.groups);
                format!("\u{1b}[0Ksection_end:{at}:step_{}_{count}\r\u{1b}[0K", step.0)
            }
        }
    }

    fn close(&mut self, now: Duration) -> String {
        self.open.take().map(|(step, _)| self.finish(step, now)).unwrap_or_default()
    }

    /// Says what a step said, in a group where it printed something. The group stays open while the step runs; the result
    /// stands behind it, so that a folded log shows it.
    fn release(&mut self, book: &Book, now: Duration, step: StepId) -> String {
        let Some(kept) = self.kept.get_mut(&step) else { return String::new() };
        let said = std::mem::take(&mut kept.text);
        let result = std::mem::take(&mut kept.result);
        let has_lines = std::mem::take(&mut kept.has_lines);
        let mut text = String::new();
        if self.open.is_some_and(|(open, _)| open == step) {
            self.open = Some((step, now));
            text += &said;
        } else {
            text += &self.close(now);
            if has_lines {
                text += &self.open(book, now, step);
            }
            // The title is the group's, and need not stand in it once more.
            let title = if has_lines { self.title(book, step) + "\n" } else { String::new() };
            text += said.strip_prefix(title.as_str()).unwrap_or(&said);
        }
        if !result.is_empty() {
            text += &self.close(now);
            text += &result;
        }
        text
    }

    fn title(&self, book: &Book, step: StepId) -> String {
        let name = book.steps.get(&step).map(|step| one_line(&step.name)).unwrap_or_default();
        format!("{step} {name}")
    }

    fn open(&mut self, book: &Book, now: Duration, step: StepId) -> String {
        let kept = self.kept.entry(step).or_default();
        kept.groups += 1;
        let more = if kept.groups > 1 { " (continued)" } else { "" };
        self.open = Some((step, now));
        self.begin(step, &(self.title(book, step) + more), now)
    }

    /// Lets those speak whose turn it is.
    fn turn(&mut self, book: &Book, now: Duration) -> String {
        let mut text = String::new();
        while let Some(step) = self.next(now) {
            text += &self.release(book, now, step);
        }
        text
    }

    fn next(&self, now: Duration) -> Option<StepId> {
        let waiting = || self.kept.iter().filter(|(_, kept)| kept.is_due(now));
        let (first, since) = waiting().map(|(id, kept)| (*id, kept.since)).min_by_key(|(_, since)| *since)?;
        let Some((open, spoke)) = self.open else { return Some(first) };
        if waiting().any(|(id, _)| *id == open) {
            return Some(open);
        }
        if let Some((large, _)) = waiting().find(|(_, kept)| kept.text.len() > KEPT_MAX_BYTES) {
            return Some(*large);
        }
        let overdue = now.saturating_sub(since) >= WAIT_MAX || now.saturating_sub(spoke) >= SILENT_MAX;
        overdue.then_some(first)
    }

    fn keep(&mut self, step: StepId, now: Duration) -> &mut Kept {
        let kept = self.kept.entry(step).or_default();
        if kept.is_empty() {
            kept.since = now;
        }
        kept
    }

    /// A message that the service shows beside the file.
    fn annotation(&self, kind: &str, title: &str, lines: Option<(usize, usize)>, text: &str) -> String {
        let Service::GitHub { workspace, below } = &self.service else { return format!("{kind}: {text}\n") };
        let mut properties = Vec::new();
        if let Some((first, last)) = lines {
            let inside = Path::new(&self.path).strip_prefix(workspace).ok().filter(|_| !workspace.is_empty());
            let path = inside.map_or_else(|| Path::new(below).join(&self.path), Path::to_path_buf);
            // One from standard input, or from outside of the workspace, is none that could be shown.
            if let Some(path) = by_words(&path).filter(|_| !self.path.is_empty()) {
                properties.push(format!("file={},line={first},endLine={last}", property(&path.to_string_lossy())));
            }
        }
        if !title.is_empty() {
            properties.push(format!("title={}", property(title)));
        }
        let blank = if properties.is_empty() { "" } else { " " };
        format!("::{kind}{blank}{}::{}\n", properties.join(","), data(text))
    }
}

impl View for Groups {
    fn event(&mut self, book: &Book, now: Duration, event: &Event) -> String {
        match event {
            Event::Dockerfile { path, .. } => {
                self.path.clone_from(path);
                String::new()
            }
            Event::Check { rule, first_line, last_line, .. } => {
                let lines = (*first_line > 0).then_some((*first_line, *last_line));
                self.close(now) + &self.annotation("warning", rule.unwrap_or_default(), lines, &check_line(event))
            }
            Event::Refused { text, first_line, last_line } if matches!(self.service, Service::GitHub { .. }) => {
                self.close(now) + &self.annotation("error", "", Some((*first_line, *last_line)), text)
            }
            Event::Warning { text } => self.close(now) + &self.annotation("warning", "", None, text),
            Event::Note { .. } => self.close(now) + &remark(event),
            _ => {
                let Some((step, text)) = self.words.event(book, now, event) else { return String::new() };
                let kept = self.keep(step, now);
                match event {
                    Event::Started { .. } => kept.text += &text,
                    Event::Moved { .. } => {
                        kept.text += &text;
                        kept.has_lines = true;
                    }
                    _ => kept.result += &text,
                }
                self.turn(book, now)
            }
        }
    }

    fn lines(&mut self, book: &Book, now: Duration, step: StepId, lines: &[Line]) -> String {
        if lines.is_empty() {
            return String::new();
        }
        let text = self.words.lines(step, lines);
        let kept = self.keep(step, now);
        kept.text += &text;
        kept.has_lines = true;
        self.turn(book, now)
    }

    fn say(&mut self, _book: &Book, now: Duration, text: &str) -> String {
        format!("{}{text}\n", self.close(now))
    }

    fn tick(&mut self, book: &Book, now: Duration) -> String {
        self.turn(book, now)
    }

    fn end(&mut self, book: &Book, now: Duration) -> String {
        let mut text = String::new();
        while let Some(step) = self.kept.iter().find(|(_, kept)| !kept.is_empty()).map(|(step, _)| *step) {
            text += &self.release(book, now, step);
        }
        text += &self.close(now);
        text += &book.checks();
        text += &book.failures(self.words.colour);
        if matches!(self.service, Service::GitLab { .. }) {
            return text;
        }
        for step in book.failed() {
            let Some(origin) = &step.origin else { continue };
            let error = step.error.clone().unwrap_or_default();
            let mut said = format!("`{}` failed: {error}", one_line(&origin.instruction));
            for line in step.tail.iter().rev().take(5).rev() {
                let _ = write!(said, "\n{}", clean(&line.bytes, false));
            }
            text += &self.annotation("error", "", Some((origin.first_line, origin.last_line)), &said);
        }
        text
    }
}

/// A path as the service names it: without `.` and `..`; `None` when it leads out.
fn by_words(path: &Path) -> Option<PathBuf> {
    let mut found = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => found.pop().then_some(())?,
            part => found.push(part),
        }
    }
    Some(found)
}

/// What stands behind the last colons of a command of GitHub's.
fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// What stands as a property's value there.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}
