//! Events to a view: plain lines, a terminal that is redrawn, or `BuildKit`'s JSON lines.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::io::IsTerminal;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::args::Progress;
use super::output;
use crate::event::{Event, Events, Sink, StepId, Stream, check_text};

/// The sink that shows what the user asked for. `Auto` is the redrawn view on a terminal, plain lines elsewhere.
#[must_use]
pub fn sink(kind: Progress) -> Events {
    match kind {
        Progress::Quiet => Arc::new(Quiet::default()),
        Progress::Plain => Arc::new(Plain::default()),
        Progress::Rawjson => Arc::new(RawJson::default()),
        Progress::Tty => Arc::new(Terminal::default()),
        Progress::Auto if std::io::stderr().is_terminal() => Arc::new(Terminal::default()),
        Progress::Auto => Arc::new(Plain::default()),
    }
}

/// Shows what a failed command had printed, and nothing else: the error itself comes at the end.
#[derive(Debug, Default)]
struct Quiet {
    printed: Mutex<BTreeMap<StepId, VecDeque<u8>>>,
}

/// Most of a command's output that is kept for the case that it fails, in bytes.
const KEPT_MAX_BYTES: usize = 64 * 1024;

impl Sink for Quiet {
    fn hear(&self, event: Event) {
        let mut printed = self.printed.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Output { step, bytes, .. } => {
                let kept = printed.entry(step).or_default();
                kept.extend(bytes);
                let surplus = kept.len().saturating_sub(KEPT_MAX_BYTES);
                kept.drain(..surplus);
            }
            Event::Failed { step, .. } => {
                let kept = printed.remove(&step).unwrap_or_default();
                output::message(&String::from_utf8_lossy(&Vec::from(kept)));
            }
            Event::Finished { step } => {
                printed.remove(&step);
            }
            _ => {}
        }
    }
}

/// One step as far as a view needs to remember it.
#[derive(Debug)]
struct Step {
    name: String,
    started: Instant,
    /// Output that does not end at a line's end yet.
    partial: Vec<u8>,
    cached: bool,
    /// When bytes that moved were last mentioned.
    mentioned: Instant,
}

impl Step {
    fn new(name: String) -> Self {
        let now = Instant::now();
        Self { name, started: now, partial: Vec::new(), cached: false, mentioned: now }
    }

    fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// Takes output and gives the lines that are whole now. Bytes that are not UTF-8 are replaced.
    fn lines(&mut self, bytes: &[u8]) -> Vec<String> {
        self.partial.extend_from_slice(bytes);
        let Some(end) = self.partial.iter().rposition(|byte| *byte == b'\n') else { return Vec::new() };
        let rest = self.partial.split_off(end + 1);
        let whole = std::mem::replace(&mut self.partial, rest);
        let text = String::from_utf8_lossy(&whole[..end]);
        text.split('\n').map(|line| line.trim_end_matches('\r').to_owned()).collect()
    }

    fn rest(&mut self) -> Option<String> {
        let rest = std::mem::take(&mut self.partial);
        (!rest.is_empty()).then(|| String::from_utf8_lossy(&rest).into_owned())
    }
}

/// How long a step's transfer runs before its bytes are mentioned again in plain text.
const MENTION_EVERY: Duration = Duration::from_secs(5);

/// A line for each thing that happens, as `BuildKit`'s plain progress has them.
#[derive(Debug, Default)]
struct Plain {
    steps: Mutex<BTreeMap<StepId, Step>>,
}

impl Sink for Plain {
    fn hear(&self, event: Event) {
        // Held while printing, so that lines of two steps do not mix.
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        output::message(&plain_text(&mut steps, event));
    }
}

fn plain_text(steps: &mut BTreeMap<StepId, Step>, event: Event) -> String {
    let mut text = String::new();
    match event {
        Event::Started { step, name } => {
            let _ = writeln!(text, "{step} {name}");
            steps.insert(step, Step::new(name));
        }
        Event::Cached { step } => {
            if let Some(known) = steps.get_mut(&step) {
                known.cached = true;
            }
        }
        Event::Finished { step } => {
            if let Some(mut known) = steps.remove(&step) {
                if let Some(rest) = known.rest() {
                    let _ = writeln!(text, "{step} {:.3} {rest}", known.seconds());
                }
                let _ = match known.cached {
                    true => writeln!(text, "{step} CACHED\n"),
                    false => writeln!(text, "{step} DONE {:.1}s\n", known.seconds()),
                };
            }
        }
        Event::Failed { step, error } => {
            if let Some(mut known) = steps.remove(&step)
                && let Some(rest) = known.rest()
            {
                let _ = writeln!(text, "{step} {:.3} {rest}", known.seconds());
            }
            let _ = writeln!(text, "{step} ERROR: {error}\n");
        }
        Event::Output { step, bytes, .. } => {
            if let Some(known) = steps.get_mut(&step) {
                let seconds = known.seconds();
                for line in known.lines(&bytes) {
                    let _ = writeln!(text, "{step} {seconds:.3} {line}");
                }
            }
        }
        Event::Moved { step, what, done_bytes, total_bytes } => {
            if let Some(known) = steps.get_mut(&step) {
                let ended = total_bytes == Some(done_bytes);
                if (ended && done_bytes > 0) || known.mentioned.elapsed() >= MENTION_EVERY {
                    known.mentioned = Instant::now();
                    let _ =
                        writeln!(text, "{step} {:.3} {what} {}", known.seconds(), of_total(done_bytes, total_bytes));
                }
            }
        }
        Event::Warning { text: warning } => {
            let _ = writeln!(text, "warning: {warning}");
        }
        Event::Check { rule, text: warning, file, first_line, .. } => {
            let _ = writeln!(text, "warning: {}", check_text(rule, &warning, &file, first_line));
        }
        Event::Dockerfile { .. } | Event::Planned { .. } | Event::Waiting { .. } => {}
        Event::Note { text: note } => {
            let _ = writeln!(text, "{note}");
        }
    }
    text
}

/// `12.3 MB / 40.0 MB`, or only the first where the whole is not known.
fn of_total(done_bytes: u64, total_bytes: Option<u64>) -> String {
    match total_bytes {
        Some(total) => format!("{} / {}", size(done_bytes), size(total)),
        None => size(done_bytes),
    }
}

/// A size for people: `512 B`, `1.5 kB`, `12.3 MB`, in powers of 1000.
#[must_use]
pub fn size(bytes: u64) -> String {
    const UNITS: &[&str] = &["kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    #[expect(clippy::cast_precision_loss, reason = "a rounded figure for people")]
    let mut value = bytes as f64;
    let mut unit = 0;
    value /= 1000.0;
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A step's name in a view of one line a step; long commands are cut.
fn shortened(name: &str) -> String {
    const CHARACTERS_MAX: usize = 72;
    match name.char_indices().nth(CHARACTERS_MAX) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_owned(),
    }
}

/// A view that is redrawn: a line for each running step with its last output, finished steps above.
#[derive(Debug)]
struct Terminal {
    view: MultiProgress,
    steps: Mutex<BTreeMap<StepId, (Step, ProgressBar)>>,
}

impl Default for Terminal {
    fn default() -> Self {
        Self { view: MultiProgress::new(), steps: Mutex::default() }
    }
}

impl Terminal {
    /// A line that stays, above the ones that are redrawn.
    fn line(&self, text: &str) {
        let _ = self.view.println(text);
    }
}

impl Sink for Terminal {
    fn hear(&self, event: Event) {
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Started { step, name } => {
                let style = ProgressStyle::with_template("   {prefix:.bold} {elapsed:>4} {wide_msg:.dim}")
                    .unwrap_or_else(|_| ProgressStyle::default_spinner());
                let bar = self.view.add(ProgressBar::new_spinner().with_style(style).with_prefix(shortened(&name)));
                bar.enable_steady_tick(Duration::from_millis(250));
                steps.insert(step, (Step::new(name), bar));
            }
            Event::Cached { step } => {
                if let Some((known, _)) = steps.get_mut(&step) {
                    known.cached = true;
                }
            }
            Event::Finished { step } => {
                if let Some((known, bar)) = steps.remove(&step) {
                    bar.finish_and_clear();
                    let end = if known.cached { "cached".to_owned() } else { format!("{:.1}s", known.seconds()) };
                    self.line(&format!(" ✓ {} {end}", shortened(&known.name)));
                }
            }
            Event::Failed { step, error } => {
                if let Some((mut known, bar)) = steps.remove(&step) {
                    bar.finish_and_clear();
                    if let Some(rest) = known.rest() {
                        self.line(&format!("   {rest}"));
                    }
                    self.line(&format!(" ✗ {}: {error}", shortened(&known.name)));
                }
            }
            Event::Output { step, bytes, .. } => {
                if let Some((known, bar)) = steps.get_mut(&step) {
                    for line in known.lines(&bytes) {
                        self.line(&format!("   {line}"));
                        bar.set_message(line);
                    }
                }
            }
            Event::Moved { step, what, done_bytes, total_bytes } => {
                if let Some((_, bar)) = steps.get(&step) {
                    bar.set_message(format!("{what} {}", of_total(done_bytes, total_bytes)));
                }
            }
            Event::Warning { text } => self.line(&format!("warning: {text}")),
            Event::Check { rule, text, file, first_line, .. } => {
                self.line(&format!("warning: {}", check_text(rule, &text, &file, first_line)));
            }
            Event::Dockerfile { .. } | Event::Planned { .. } | Event::Waiting { .. } => {}
            Event::Note { text } => self.line(&text),
        }
    }
}

/// `BuildKit`'s `rawjson`: one object a line with `vertexes`, `statuses`, `logs` or `warnings`.
#[derive(Debug, Default)]
struct RawJson {
    steps: Mutex<BTreeMap<StepId, (String, String)>>,
}

impl Sink for RawJson {
    fn hear(&self, event: Event) {
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = raw_json(&mut steps, event, &Timestamp::now().to_string()) {
            output::message(&format!("{value}\n"));
        }
    }
}

fn raw_json(steps: &mut BTreeMap<StepId, (String, String)>, event: Event, now: &str) -> Option<Value> {
    // A vertex is named by a digest there; ours are numbers, and equal numbers are equal strings.
    let vertex = |step: StepId| format!("step:{}", step.0);
    let described = |steps: &BTreeMap<StepId, (String, String)>, step: StepId| {
        let (name, started) = steps.get(&step).cloned().unwrap_or_default();
        json!({"digest": vertex(step), "name": name, "started": started})
    };
    Some(match event {
        Event::Started { step, name } => {
            steps.insert(step, (name, now.to_owned()));
            json!({"vertexes": [described(steps, step)]})
        }
        Event::Cached { step } => {
            let mut value = described(steps, step);
            value["cached"] = json!(true);
            json!({"vertexes": [value]})
        }
        Event::Finished { step } => {
            let mut value = described(steps, step);
            value["completed"] = json!(now);
            json!({"vertexes": [value]})
        }
        Event::Failed { step, error } => {
            let mut value = described(steps, step);
            value["completed"] = json!(now);
            value["error"] = json!(error);
            json!({"vertexes": [value]})
        }
        Event::Output { step, stream, bytes } => {
            let stream = match stream {
                Stream::Stdout => 1,
                Stream::Stderr => 2,
            };
            json!({"logs": [{"vertex": vertex(step), "stream": stream, "data": base64(&bytes), "timestamp": now}]})
        }
        Event::Moved { step, what, done_bytes, total_bytes } => json!({"statuses": [{
            "id": what, "vertex": vertex(step), "current": done_bytes, "total": total_bytes, "timestamp": now}]}),
        Event::Warning { text } => json!({"warnings": [{"level": 1, "short": base64(text.as_bytes())}]}),
        Event::Check { rule, text, file, first_line, .. } => {
            let short = check_text(rule, &text, &file, first_line);
            json!({"warnings": [{"level": 1, "short": base64(short.as_bytes())}]})
        }
        Event::Dockerfile { .. } | Event::Planned { .. } | Event::Waiting { .. } | Event::Note { .. } => return None,
    })
}

/// Go's JSON writes bytes as base64.
fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(event: Event) -> Event {
        event
    }

    #[test]
    fn plain_lines_are_whole_and_carry_the_step() {
        let mut steps = BTreeMap::new();
        let step = StepId(3);
        let mut text = plain_text(&mut steps, said(Event::Started { step, name: "[2/3] RUN make".to_owned() }));
        let half = |bytes: &[u8]| Event::Output { step, stream: Stream::Stdout, bytes: bytes.to_vec() };
        text += &plain_text(&mut steps, half(b"one\r\ntw"));
        text += &plain_text(&mut steps, half(b"o\nrest"));
        text += &plain_text(&mut steps, Event::Finished { step });
        let words: Vec<&str> = text.lines().map(|line| line.split(' ').next_back().unwrap_or_default()).collect();
        assert_eq!(words, ["make", "one", "two", "rest", "0.0s", ""]);
    }

    #[test]
    fn raw_json_has_buildkits_keys() {
        let mut steps = BTreeMap::new();
        let step = StepId(1);
        raw_json(&mut steps, Event::Started { step, name: "n".to_owned() }, "t0");
        let done = raw_json(&mut steps, Event::Finished { step }, "t1").unwrap();
        assert_eq!(
            done.to_string(),
            r#"{"vertexes":[{"digest":"step:1","name":"n","started":"t0","completed":"t1"}]}"#
        );
        let log =
            raw_json(&mut steps, Event::Output { step, stream: Stream::Stderr, bytes: b"hi".to_vec() }, "t2").unwrap();
        assert_eq!(log.to_string(), r#"{"logs":[{"vertex":"step:1","stream":2,"data":"aGk=","timestamp":"t2"}]}"#);
    }

    #[test]
    fn sizes_read_well() {
        let sizes: Vec<String> =
            [0, 999, 1000, 999_949, 999_950, 12_345_678].iter().map(|bytes| size(*bytes)).collect();
        assert_eq!(sizes, ["0 B", "999 B", "1.0 kB", "999.9 kB", "1.0 MB", "12.3 MB"]);
    }
}
