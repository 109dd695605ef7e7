//! Rows on stdout, messages on stderr.

use std::collections::BTreeMap;
use std::io::Write;

use serde_json::{Value, json};

use crate::measure::Programs;
use crate::server::Subject;

pub(crate) fn say(message: &str) {
    let _ = writeln!(std::io::stderr(), "{message}");
}

/// What was measured of one row.
pub(crate) struct Row<'a> {
    pub(crate) name: &'a str,
    pub(crate) unit: &'a str,
    pub(crate) flags: &'a str,
    /// Whether more is better.
    pub(crate) more: bool,
    /// Compared with whom.
    pub(crate) peer: Subject,
    pub(crate) goal: Option<f64>,
}

fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    Some(if sorted.len() % 2 == 1 { upper } else { (upper + sorted.get(middle - 1)?) / 2.0 })
}

fn rounded(value: Option<f64>) -> Value {
    match value {
        Some(value) if value.abs() < 10.0 => json!((value * 10_000.0).round() / 10_000.0),
        Some(value) => json!((value * 10.0).round() / 10.0),
        None => Value::Null,
    }
}

/// Prints a row for ours and one for the peer.
pub(crate) fn print(row: &Row<'_>, programs: &Programs, runs: &BTreeMap<Subject, Vec<f64>>) {
    let of = |subject: Subject| runs.get(&subject).map(Vec::as_slice).unwrap_or_default();
    let (ours, theirs) = (median(of(Subject::Ours)), median(of(row.peer)));
    let ratio = ours.zip(theirs).map(|(ours, theirs)| if row.more { ours / theirs } else { theirs / ours });
    let ratio = ratio.filter(|ratio| ratio.is_finite());
    let met = row.goal.zip(ratio).map(|(goal, ratio)| ratio >= goal);
    for subject in [Subject::Ours, row.peer] {
        let values = of(subject);
        let is_ours = subject == Subject::Ours;
        let mut object = json!({
            "row": row.name, "subject": subject.name(), "version": programs.version(subject), "flags": row.flags, "unit": row.unit,
            "runs": values.len(), "median": rounded(median(values)),
            "min": rounded(values.iter().copied().reduce(f64::min)), "max": rounded(values.iter().copied().reduce(f64::max)),
            "ratio": if is_ours { rounded(ratio) } else { Value::Null },
            "goal": if is_ours { rounded(row.goal) } else { Value::Null },
            "met": if is_ours { json!(met) } else { Value::Null },
        });
        if values.is_empty()
            && let Some(object) = object.as_object_mut()
        {
            let reason = if programs.get(subject).is_none() { "it is not installed" } else { "it was not measured" };
            object.insert("reason".into(), reason.into());
        }
        let _ = writeln!(std::io::stdout(), "{object}");
    }
}
