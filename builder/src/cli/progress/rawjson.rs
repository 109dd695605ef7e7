//! `BuildKit`'s `rawjson`: one object a line with `vertexes`, `statuses`, `logs` or `warnings`.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::View;
use super::book::{Book, Line};
use crate::event::{Event, PULLING, StepId, Stream, short_text};

/// How often the bytes of one transfer are told.
const TELL_EVERY: Duration = Duration::from_millis(100);

/// The view.
#[derive(Debug)]
pub(super) struct RawJson {
    began: Timestamp,
    /// A warning belongs to the vertex that read the Dockerfile, which is the first.
    first: Option<StepId>,
    told: BTreeMap<(StepId, String), Duration>,
}

impl RawJson {
    pub(super) fn new(began: Timestamp) -> Self {
        Self { began, first: None, told: BTreeMap::new() }
    }

    fn time(&self, at: Duration) -> String {
        let time = SignedDuration::try_from(at).ok().and_then(|at| self.began.checked_add(at).ok());
        time.unwrap_or(self.began).to_string()
    }

    fn vertex(&self, book: &Book, step: StepId) -> Option<Value> {
        let known = book.steps.get(&step)?;
        let mut value = json!({ "digest": name(book, step) });
        if !known.needs.is_empty() {
            value["inputs"] = known.needs.iter().map(|step| json!(name(book, *step))).collect();
        }
        value["name"] = json!(known.name);
        Some(value)
    }

    fn started(&self, book: &Book, step: StepId) -> Option<Value> {
        let mut value = self.vertex(book, step)?;
        value["started"] = json!(self.time(book.steps.get(&step)?.began));
        Some(value)
    }

    fn ended(&self, book: &Book, step: StepId, now: Duration, error: Option<&str>) -> Option<Value> {
        let mut value = self.started(book, step)?;
        value["completed"] = json!(self.time(now));
        if book.steps.get(&step)?.cached {
            value["cached"] = json!(true);
        }
        if let Some(error) = error {
            value["error"] = json!(error);
        }
        Some(value)
    }

    fn value(&mut self, book: &Book, now: Duration, event: &Event) -> Option<Value> {
        let vertexes = |value: Value| json!({ "vertexes": [value] });
        Some(match event {
            Event::Planned { step, .. } => vertexes(self.vertex(book, *step)?),
            Event::Started { step, .. } => {
                self.first.get_or_insert(*step);
                vertexes(self.started(book, *step)?)
            }
            Event::Finished { step } => vertexes(self.ended(book, *step, now, None)?),
            Event::Failed { step, error } => vertexes(self.ended(book, *step, now, Some(error))?),
            Event::Stopped { step } => vertexes(self.ended(book, *step, now, Some("context canceled"))?),
            Event::Output { step, stream, bytes } => {
                let stream = match stream {
                    Stream::Stdout => 1,
                    Stream::Stderr => 2,
                };
                let (vertex, time) = (name(book, *step), self.time(now));
                json!({"logs": [{"vertex": vertex, "stream": stream, "data": base64(bytes), "timestamp": time}]})
            }
            Event::Moved { step, what, done_bytes, total_bytes } => {
                let known = book.steps.get(step)?.transfers.iter().find(|transfer| transfer.what == *what)?;
                let key = (*step, what.clone());
                let recent = self.told.get(&key).is_some_and(|told| now.saturating_sub(*told) < TELL_EVERY);
                if recent && !known.is_done() {
                    return None;
                }
                self.told.insert(key, now);
                let mut value = json!({"id": what.strip_prefix(PULLING).unwrap_or(what), "vertex": name(book, *step)});
                if let Some(total) = total_bytes {
                    value["total"] = json!(total);
                }
                value["current"] = json!(done_bytes);
                value["timestamp"] = json!(self.time(now));
                value["started"] = json!(self.time(known.began));
                if known.is_done() {
                    value["completed"] = json!(self.time(now));
                }
                json!({ "statuses": [value] })
            }
            Event::Warning { text } => json!({"warnings": [self.warning(book, text)]}),
            Event::Check { rule, text, detail, url, file, first_line, last_line, .. } => {
                let short = short_text(*rule, text, *first_line);
                let mut value = self.warning(book, &short);
                if !detail.is_empty() {
                    value["detail"] = json!([base64(detail.as_bytes())]);
                }
                if !url.is_empty() {
                    value["url"] = json!(url);
                }
                if *first_line > 0 {
                    let data = base64(book.source.text.as_bytes());
                    value["sourceInfo"] = json!({"filename": file, "data": data, "language": "Dockerfile"});
                    value["range"] = json!([{"start": {"line": first_line}, "end": {"line": last_line}}]);
                }
                json!({ "warnings": [value] })
            }
            Event::Dockerfile { .. }
            | Event::Waiting { .. }
            | Event::Cached { .. }
            | Event::Refused { .. }
            | Event::Note { .. } => return None,
        })
    }

    fn warning(&self, book: &Book, short: &str) -> Value {
        let mut value = json!({});
        if let Some(first) = self.first {
            value["vertex"] = json!(name(book, first));
        }
        value["level"] = json!(1);
        value["short"] = json!(base64(short.as_bytes()));
        value
    }
}

impl View for RawJson {
    fn event(&mut self, book: &Book, now: Duration, event: &Event) -> String {
        self.value(book, now, event).map(|value| format!("{value}\n")).unwrap_or_default()
    }

    fn lines(&mut self, _book: &Book, _now: Duration, _step: StepId, _lines: &[Line]) -> String {
        // The bytes went out as they came, with the event.
        String::new()
    }
}

/// A vertex is named by a digest there; a step's number and name make ours.
fn name(book: &Book, step: StepId) -> String {
    let name = book.steps.get(&step).map(|step| step.name.as_str()).unwrap_or_default();
    format!("sha256:{}", hex::encode(Sha256::digest(format!("{step} {name}"))))
}

/// Go's JSON writes bytes as base64.
fn base64(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}
