//! What a view has to remember of a build: its steps, their times, and output cut into lines.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::text::clean;
use crate::event::{Event, Origin, StepId, Stream};

/// Last lines of a step that are kept for the case that it fails.
pub(super) const TAIL_LINES: usize = 20;

/// Longest piece of output without a line's end that is held back, in bytes; a longer one is shown in pieces. Lines of
/// programs are far shorter, and what a command prints must not fill the memory.
const PARTIAL_MAX_BYTES: usize = 64 * 1024;

/// How long output without a line's end is held back. A question that waits for its answer must be seen.
const PARTIAL_MAX_AGE: Duration = Duration::from_secs(3);

/// How a step stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stand {
    /// It will run.
    Planned,
    /// It runs.
    Running,
    /// It ended well.
    Done,
    /// It failed.
    Failed,
    /// It was stopped before its end.
    Stopped,
}

/// A transfer, or another thing that is counted in bytes.
#[derive(Clone, Debug)]
pub(super) struct Transfer {
    pub(super) what: String,
    pub(super) done_bytes: u64,
    pub(super) total_bytes: Option<u64>,
    pub(super) began: Duration,
    /// When it was last heard of.
    pub(super) last: Duration,
}

impl Transfer {
    pub(super) fn is_done(&self) -> bool {
        self.total_bytes.is_some_and(|total| self.done_bytes >= total)
    }
}

/// One step.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) name: String,
    pub(super) origin: Option<Origin>,
    pub(super) needs: Vec<StepId>,
    pub(super) waits_for: Option<Vec<StepId>>,
    pub(super) stand: Stand,
    pub(super) cached: bool,
    pub(super) error: Option<String>,
    /// When it was first heard of, since the build's start.
    pub(super) planned: Duration,
    /// When it began.
    pub(super) began: Duration,
    pub(super) ended: Option<Duration>,
    pub(super) transfers: Vec<Transfer>,
    /// Last lines, cleaned, each with the step's age.
    pub(super) tail: VecDeque<Line>,
    /// How many lines there were.
    pub(super) line_count: usize,
    partial: [Partial; 2],
    /// The output whose last piece, without a line's end, is the last line of the tail.
    piece: Option<usize>,
}

/// Output that does not end at a line's end yet.
#[derive(Clone, Debug, Default)]
struct Partial {
    bytes: Vec<u8>,
    since: Duration,
}

/// A whole line that a step printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// How long the step had run.
    pub(super) age: Duration,
    /// Its bytes as they came, without the line's end.
    pub(super) bytes: Vec<u8>,
}

impl Step {
    fn new(name: String, now: Duration) -> Self {
        Self {
            name,
            origin: None,
            needs: Vec::new(),
            waits_for: None,
            stand: Stand::Planned,
            cached: false,
            error: None,
            planned: now,
            began: now,
            ended: None,
            transfers: Vec::new(),
            tail: VecDeque::new(),
            line_count: 0,
            partial: [Partial::default(), Partial::default()],
            piece: None,
        }
    }

    /// How long it has run, or ran.
    pub(super) fn age(&self, now: Duration) -> Duration {
        self.ended.unwrap_or(now).saturating_sub(self.began)
    }

    /// The last lines, cleaned, with what does not end at a line's end yet: a progress bar, or a question.
    pub(super) fn last_lines(&self, count: usize) -> Vec<String> {
        let partial = self.partial.iter().enumerate().filter(|(_, partial)| !partial.bytes.is_empty());
        let partial = partial.max_by_key(|(_, partial)| partial.since);
        let mut lines: Vec<String> = self.tail.iter().rev().take(count).map(|line| clean(&line.bytes, false)).collect();
        lines.reverse();
        if let Some((which, partial)) = partial {
            if self.covers(which, &partial.bytes) {
                lines.pop();
            }
            let shown = clean(&partial.bytes, false);
            lines.extend((!shown.is_empty()).then_some(shown));
        }
        lines.split_off(lines.len().saturating_sub(count))
    }

    /// Whether what an output says now covers the last line of the tail, as a progress bar does.
    fn covers(&self, which: usize, bytes: &[u8]) -> bool {
        self.piece == Some(which) && bytes.contains(&b'\r')
    }

    fn line(&mut self, now: Duration, which: usize, bytes: &[u8], is_piece: bool) -> Line {
        let line = Line { age: now.saturating_sub(self.began), bytes: bytes.to_vec() };
        if self.covers(which, bytes) && self.tail.pop_back().is_some() {
            self.line_count -= 1;
        }
        self.piece = is_piece.then_some(which);
        self.line_count += 1;
        if self.tail.len() == TAIL_LINES {
            self.tail.pop_front();
        }
        self.tail.push_back(line.clone());
        line
    }

    fn output(&mut self, now: Duration, stream: Stream, bytes: &[u8]) -> Vec<Line> {
        let which = usize::from(stream == Stream::Stderr);
        let mut partial = std::mem::take(&mut self.partial[which]);
        if partial.bytes.is_empty() {
            partial.since = now;
        }
        let mut lines = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            partial.bytes.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                let end = partial.bytes.len() - 1;
                let end = if partial.bytes[..end].ends_with(b"\r") { end - 1 } else { end };
                lines.push(self.line(now, which, &partial.bytes[..end], false));
                partial = Partial { bytes: Vec::new(), since: now };
            } else if partial.bytes.len() >= PARTIAL_MAX_BYTES {
                lines.push(self.line(now, which, &std::mem::take(&mut partial.bytes), true));
            }
        }
        self.partial[which] = partial;
        lines
    }

    /// What is left without a line's end, where it is older than `than`.
    fn rest(&mut self, now: Duration, than: Duration) -> Vec<Line> {
        let mut lines = Vec::new();
        for which in 0..self.partial.len() {
            let partial = &mut self.partial[which];
            if !partial.bytes.is_empty() && now.saturating_sub(partial.since) >= than {
                let bytes = std::mem::take(&mut partial.bytes);
                lines.push(self.line(now, which, &bytes, true));
            }
        }
        lines
    }
}

/// The Dockerfile of the build.
#[derive(Clone, Debug, Default)]
pub(super) struct Source {
    pub(super) name: String,
    pub(super) text: String,
}

/// A build so far.
#[derive(Debug, Default)]
pub(super) struct Book {
    pub(super) steps: BTreeMap<StepId, Step>,
    pub(super) source: Source,
    /// Whether all lines are in a log that is there when the build has ended.
    pub(super) has_log: bool,
    checks: Vec<Check>,
}

/// A build check that is not passed.
#[derive(Debug)]
struct Check {
    title: String,
    hint: Option<String>,
    url: String,
    lines: (usize, usize),
}

impl Book {
    /// Takes note of what happened; gives the lines that are whole now, and the step that printed them.
    pub(super) fn hear(&mut self, now: Duration, event: &Event) -> Option<(StepId, Vec<Line>)> {
        match event {
            Event::Dockerfile { name, text, .. } => {
                self.source = Source { name: name.clone(), text: text.clone() };
            }
            Event::Planned { step, name, origin, needs } => {
                let known = self.steps.entry(*step).or_insert_with(|| Step::new(name.clone(), now));
                known.origin = Some(origin.clone());
                known.needs.clone_from(needs);
            }
            Event::Waiting { step, on } => {
                if let Some(known) = self.steps.get_mut(step) {
                    known.waits_for = Some(on.clone());
                }
            }
            Event::Started { step, name } => {
                let known = self.steps.entry(*step).or_insert_with(|| Step::new(name.clone(), now));
                known.name.clone_from(name);
                known.stand = Stand::Running;
                known.waits_for = None;
                known.began = now;
            }
            Event::Cached { step } => {
                if let Some(known) = self.steps.get_mut(step) {
                    known.cached = true;
                }
            }
            Event::Finished { step } => return self.end(*step, now, Stand::Done, None),
            Event::Stopped { step } => return self.end(*step, now, Stand::Stopped, None),
            Event::Failed { step, error } => return self.end(*step, now, Stand::Failed, Some(error.clone())),
            Event::Output { step, stream, bytes } => {
                return self.steps.get_mut(step).map(|known| (*step, known.output(now, *stream, bytes)));
            }
            Event::Moved { step, what, done_bytes, total_bytes } => {
                if let Some(known) = self.steps.get_mut(step) {
                    match known.transfers.iter_mut().find(|transfer| transfer.what == *what) {
                        Some(transfer) => {
                            transfer.done_bytes = *done_bytes;
                            transfer.total_bytes = *total_bytes;
                            transfer.last = now;
                        }
                        None => known.transfers.push(Transfer {
                            what: what.clone(),
                            done_bytes: *done_bytes,
                            total_bytes: *total_bytes,
                            began: now,
                            last: now,
                        }),
                    }
                }
            }
            Event::Check { rule: Some(rule), text, hint, url, first_line, last_line, .. } => self.checks.push(Check {
                title: format!("{rule}: {text}"),
                hint: hint.clone(),
                url: url.clone(),
                lines: (*first_line, *last_line),
            }),
            Event::Warning { .. } | Event::Check { .. } | Event::Refused { .. } | Event::Note { .. } => {}
        }
        None
    }

    fn end(&mut self, step: StepId, now: Duration, stand: Stand, error: Option<String>) -> Option<(StepId, Vec<Line>)> {
        let known = self.steps.get_mut(&step)?;
        let rest = known.rest(now, Duration::ZERO);
        known.stand = stand;
        known.error = error;
        known.ended = Some(now);
        known.waits_for = None;
        Some((step, rest))
    }

    /// Output that was held back too long.
    pub(super) fn overdue(&mut self, now: Duration) -> Vec<(StepId, Vec<Line>)> {
        let running = self.steps.iter_mut().filter(|(_, step)| step.stand == Stand::Running);
        running
            .map(|(id, step)| (*id, step.rest(now, PARTIAL_MAX_AGE)))
            .filter(|(_, lines)| !lines.is_empty())
            .collect()
    }

    /// The steps of the Dockerfile that failed.
    pub(super) fn failed(&self) -> impl Iterator<Item = &Step> {
        self.steps.values().filter(|step| step.stand == Stand::Failed && step.origin.is_some())
    }

    /// Why a step was stopped, where nobody but another step's failure did it.
    pub(super) fn why_stopped(&self) -> Option<&'static str> {
        let failed = self.steps.values().any(|step| step.stand == Stand::Failed);
        failed.then_some("another step failed")
    }

    /// What is shown at the end of each build check that is not passed: where it is explained, and the lines.
    pub(super) fn checks(&self) -> String {
        use std::fmt::Write as _;
        let mut text = match self.checks.len() {
            0 => return String::new(),
            1 => "1 build check is not passed:\n".to_owned(),
            many => format!("{many} build checks are not passed:\n"),
        };
        for check in &self.checks {
            let _ = writeln!(text, "\n - {}", super::text::one_line(&check.title));
            if let Some(hint) = &check.hint {
                let _ = writeln!(text, "   hint: {}", super::text::one_line(hint));
            }
            if !check.url.is_empty() {
                let _ = writeln!(text, "   {}", check.url);
            }
            text += &super::excerpt::excerpt(&self.source, check.lines.0, check.lines.1);
        }
        text
    }

    /// What is shown at the end of each step that failed: its last lines, and where in the Dockerfile it stands.
    pub(super) fn failures(&self, colour: bool) -> String {
        self.failed().map(|step| self.failure(step, colour)).collect()
    }

    fn failure(&self, step: &Step, colour: bool) -> String {
        use std::fmt::Write as _;
        let mut text = String::new();
        let _ = writeln!(text, "------\n > {}:", super::text::one_line(&step.name));
        let hidden = step.line_count - step.tail.len();
        if hidden > 0 {
            let place = if self.has_log { "in the log" } else { "not kept" };
            let _ = writeln!(text, "   ... {hidden} earlier lines are {place}");
        }
        for line in &step.tail {
            let _ = writeln!(text, "{:.3} {}", line.age.as_secs_f64(), clean(&line.bytes, colour));
        }
        let _ = writeln!(text, "------");
        if let Some(origin) = &step.origin {
            text += &super::excerpt::excerpt(&self.source, origin.first_line, origin.last_line);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn started() -> (Book, StepId) {
        let (mut book, step) = (Book::default(), StepId(1));
        book.hear(Duration::ZERO, &Event::Started { step, name: "n".to_owned() });
        (book, step)
    }

    fn said(book: &mut Book, now: u64, stream: Stream, text: &[u8]) -> Vec<String> {
        let event = Event::Output { step: StepId(1), stream, bytes: text.to_vec() };
        let lines = book.hear(Duration::from_secs(now), &event).map(|(_, lines)| lines).unwrap_or_default();
        lines.iter().map(|line| String::from_utf8(line.bytes.clone()).unwrap()).collect()
    }

    #[test]
    fn the_two_outputs_of_a_command_are_cut_into_lines_of_their_own() {
        let (mut book, step) = started();
        assert_eq!(said(&mut book, 1, Stream::Stdout, b"one\r\ntw"), ["one"]);
        assert_eq!(said(&mut book, 1, Stream::Stderr, b"error\nmore"), ["error"]);
        assert_eq!(said(&mut book, 1, Stream::Stdout, b"o\n\nre"), ["two", ""]);
        let (_, rest) = book.hear(Duration::from_secs(2), &Event::Finished { step }).unwrap();
        assert_eq!(rest.iter().map(|line| line.bytes.as_slice()).collect::<Vec<_>>(), [&b"re"[..], b"more"]);
    }

    #[test]
    fn a_question_without_a_lines_end_is_seen_after_a_while_and_once() {
        let (mut book, _) = started();
        assert_eq!(said(&mut book, 1, Stream::Stdout, b"go on? "), [""; 0]);
        assert!(book.overdue(Duration::from_secs(3)).is_empty());
        assert_eq!(book.overdue(Duration::from_secs(4))[0].1[0].bytes, b"go on? ");
        assert!(book.overdue(Duration::from_secs(9)).is_empty());
    }

    #[test]
    fn a_progress_bar_is_one_line_that_moves() {
        let (mut book, step) = started();
        let shown = |book: &Book| book.steps[&step].last_lines(3);
        said(&mut book, 1, Stream::Stdout, b"begin\n");
        said(&mut book, 1, Stream::Stderr, b"\r10%");
        assert_eq!(shown(&book), ["begin", "10%"]);
        for second in [2, 4, 5, 8, 9, 12] {
            said(&mut book, second, Stream::Stderr, format!("\r{second}0%").as_bytes());
            book.overdue(Duration::from_secs(second));
            assert_eq!(shown(&book), ["begin".to_owned(), format!("{second}0%")]);
        }
        said(&mut book, 13, Stream::Stderr, b"\r100%\n");
        said(&mut book, 13, Stream::Stderr, b"a\rb\n");
        assert_eq!(shown(&book), ["begin", "100%", "b"]);
        assert_eq!(book.steps[&step].line_count, 3);
    }

    #[test]
    fn output_without_any_line_ends_does_not_pile_up() {
        let (mut book, _) = started();
        let mut lines = Vec::new();
        for _ in 0..40 {
            lines.extend(said(&mut book, 1, Stream::Stdout, &[b'x'; 10_000]));
        }
        assert!(
            lines.len() >= 4 && lines.iter().all(|line| line.len() < PARTIAL_MAX_BYTES + 10_000),
            "{}",
            lines.len()
        );
    }
}
