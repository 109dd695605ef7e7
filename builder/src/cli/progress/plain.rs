//! A line for each thing that happens, as `BuildKit`'s plain progress has them: each begins with its step's number, so that
//! the lines of steps that run at the same time can be told apart and searched for.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use super::View;
use super::book::{Book, Line};
use super::text::{clean, of_total, one_line};
use crate::event::{Event, StepId, check_text};

/// How long a step's transfer runs before its bytes are mentioned again.
const MENTION_EVERY: Duration = Duration::from_secs(5);

/// A transfer of so many bytes is mentioned when it begins.
const BEGIN_MIN_BYTES: u64 = 10_000_000;

/// The view.
#[derive(Debug, Default)]
pub(super) struct Plain {
    words: Words,
}

impl Plain {
    pub(super) fn new(colour: bool) -> Self {
        Self { words: Words::new(colour) }
    }
}

impl View for Plain {
    fn event(&mut self, book: &Book, now: Duration, event: &Event) -> String {
        match event {
            // The end shows it with its lines.
            Event::Check { rule: Some(_), .. } => String::new(),
            Event::Warning { .. } | Event::Check { .. } | Event::Note { .. } => remark(event),
            _ => self.words.event(book, now, event).map(|(_, text)| text).unwrap_or_default(),
        }
    }

    fn lines(&mut self, _book: &Book, _now: Duration, step: StepId, lines: &[Line]) -> String {
        self.words.lines(step, lines)
    }

    fn end(&mut self, book: &Book, _now: Duration) -> String {
        book.checks() + &book.failures(self.words.colour)
    }
}

/// What is said that is no step's.
pub(super) fn remark(event: &Event) -> String {
    match event {
        Event::Warning { text } => format!("warning: {}\n", one_line(text)),
        Event::Check { .. } => format!("warning: {}\n", one_line(&check_line(event))),
        Event::Note { text } => format!("{}\n", one_line(text)),
        _ => String::new(),
    }
}

/// A warning of the Dockerfile in one line. The end shows the hints of those that have a rule.
pub(super) fn check_line(event: &Event) -> String {
    let Event::Check { rule, text, hint, file, first_line, .. } = event else { return String::new() };
    let hint = hint.as_ref().filter(|_| rule.is_none()).map_or_else(String::new, |hint| format!("; {hint}"));
    check_text(*rule, text, file, *first_line) + &hint
}

/// What is said of steps.
#[derive(Debug, Default)]
pub(super) struct Words {
    pub(super) colour: bool,
    mentioned: BTreeMap<(StepId, String), Duration>,
}

impl Words {
    pub(super) fn new(colour: bool) -> Self {
        Self { colour, ..Self::default() }
    }

    /// What a step printed.
    pub(super) fn lines(&self, step: StepId, lines: &[Line]) -> String {
        let mut text = String::new();
        for line in lines {
            let shown = format!("{step} {:.3} {}", line.age.as_secs_f64(), clean(&line.bytes, self.colour));
            let _ = writeln!(text, "{}", shown.trim_end());
        }
        text
    }

    /// What happened to a step.
    pub(super) fn event(&mut self, book: &Book, now: Duration, event: &Event) -> Option<(StepId, String)> {
        let known = |step: &StepId| book.steps.get(step);
        Some(match event {
            Event::Started { step, name } => (*step, format!("{step} {}\n", one_line(name))),
            Event::Finished { step } => {
                let known = known(step)?;
                let text = match known.cached {
                    true => format!("{step} CACHED\n\n"),
                    false => format!("{step} DONE {:.1}s\n\n", known.age(now).as_secs_f64()),
                };
                (*step, text)
            }
            Event::Stopped { step } => {
                let why = book.why_stopped().map_or_else(String::new, |why| format!(": {why}"));
                (*step, format!("{step} CANCELED{why}\n\n"))
            }
            Event::Failed { step, error } => (*step, format!("{step} ERROR: {}\n\n", one_line(error))),
            Event::Moved { step, what, done_bytes, total_bytes } => {
                let known = known(step)?;
                let ended = *total_bytes == Some(*done_bytes) && *done_bytes > 0;
                let began = known.transfers.iter().find(|transfer| transfer.what == *what).map(|one| one.began);
                let key = (*step, what.clone());
                let last = self.mentioned.get(&key).copied().or(began).unwrap_or(now);
                let is_long = total_bytes.is_some_and(|total| total >= BEGIN_MIN_BYTES);
                let begins = !ended && is_long && !self.mentioned.contains_key(&key);
                if !begins && !ended && now.saturating_sub(last) < MENTION_EVERY {
                    return None;
                }
                self.mentioned.insert(key, now);
                let (age, bytes) = (known.age(now).as_secs_f64(), of_total(*done_bytes, *total_bytes));
                let done = if ended { " done" } else { "" };
                (*step, format!("{step} {age:.3} {} {bytes}{done}\n", one_line(what)))
            }
            _ => return None,
        })
    }
}
