//! `--timeline`: the build as Chrome's trace events, which trace viewers draw.

use std::time::Duration;

use serde_json::{Value, json};

use super::book::{Book, Stand, Step};

/// Each step is a row: its wait, its run, and what it moved.
pub(super) fn timeline(book: &Book, now: Duration) -> Vec<u8> {
    let mut events = vec![json!({"name": "process_name", "ph": "M", "pid": 1, "args": {"name": "fluyt build"}})];
    for (id, step) in &book.steps {
        let row = |mut value: Value| {
            value["pid"] = json!(1);
            value["tid"] = json!(id.0);
            value
        };
        events.push(row(json!({"name": "thread_name", "ph": "M", "args": {"name": format!("{id} {}", step.name)}})));
        let began = if step.stand == Stand::Planned { now } else { step.began };
        if began > step.planned {
            events.push(row(json!({
                "name": "waiting", "cat": "wait", "ph": "X", "ts": micros(step.planned),
                "dur": micros(began - step.planned)})));
        }
        if step.stand == Stand::Planned {
            continue;
        }
        let ended = step.ended.unwrap_or(now);
        events.push(row(json!({
            "name": step.name, "cat": "step", "ph": "X", "ts": micros(step.began),
            "dur": micros(ended.saturating_sub(step.began)), "args": arguments(step)})));
        for (number, transfer) in step.transfers.iter().enumerate() {
            // Transfers overlap, which slices of one row may not.
            let one = |ph: &str, at: Duration| {
                row(json!({
                    "name": transfer.what, "cat": "transfer", "ph": ph, "id": format!("{}.{number}", id.0),
                    "ts": micros(at), "args": {"bytes": transfer.done_bytes}}))
            };
            events.push(one("b", transfer.began));
            events.push(one("e", transfer.last));
        }
    }
    let mut text = json!({"displayTimeUnit": "ms", "traceEvents": events}).to_string().into_bytes();
    text.push(b'\n');
    text
}

fn arguments(step: &Step) -> Value {
    let needs: Vec<u32> = step.needs.iter().map(|step| step.0).collect();
    let mut value = json!({"cached": step.cached, "needs": needs});
    if let Some(origin) = &step.origin {
        value["instruction"] = json!(origin.instruction);
        value["lines"] = json!([origin.first_line, origin.last_line]);
    }
    if let Some(error) = &step.error {
        value["error"] = json!(error);
    }
    value
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
