//! `--check` and `--call`: what a Dockerfile says, printed as buildx prints it.

use std::fmt::Write as _;

use base64::Engine as _;
use serde_json::{Map, Value, json};

use super::failure::{Blame, Failure};
use super::output;
use crate::pipeline::{Answer, Found, Needed, Question, Report};

/// What `--call` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// None is the build itself.
    pub question: Option<Question>,
    json: bool,
    /// Exit with 0, whatever the checks found.
    ignore_status: bool,
}

impl Call {
    /// The build itself.
    pub const BUILD: Self = Self { question: None, json: false, ignore_status: false };
    /// `--check`.
    pub const CHECK: Self = Self { question: Some(Question::Check), json: false, ignore_status: false };

    /// Reads `check,format=json`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut call = Self::BUILD;
        for (index, field) in text.split(',').enumerate() {
            match (field.trim().split_once('='), index) {
                (None, 0) => {
                    call.question = match field.trim().to_ascii_lowercase().as_str() {
                        "build" | "" => None,
                        "check" | "lint" => Some(Question::Check),
                        "outline" => Some(Question::Outline),
                        "targets" => Some(Question::Targets),
                        other => {
                            return Err(format!("`{other}` is none of `build`, `check`, `outline` and `targets`"));
                        }
                    }
                }
                (Some(("format", "json")), _) => call.json = true,
                (Some(("format", "text" | "")), _) => call.json = false,
                (Some(("format", other)), _) => return Err(format!("format `{other}` is neither `json` nor `text`")),
                (Some(("ignorestatus", value)), _) => {
                    call.ignore_status = value.parse().map_err(|_| format!("`{value}` is neither true nor false"))?;
                }
                _ => return Err(format!("`{field}` is none of `format=json` and `ignorestatus=true`")),
            }
        }
        Ok(call)
    }

    /// Prints a report, and fails where the file did not pass.
    pub(super) fn print(self, report: &Report) -> Result<(), Failure> {
        let text = match self.json {
            true => serde_json::to_string_pretty(&as_json(report)).unwrap_or_default() + "\n",
            false => as_text(report),
        };
        super::print(text.as_bytes())?;
        let Answer::Check { found, errors } = &report.answer else { return Ok(()) };
        let mut failures = errors.iter().map(|error| {
            let excerpt = excerpt(report, error.lines.first, error.lines.last);
            Failure::new(Blame::User, format!("{}\n{excerpt}", error.message).trim_end().to_owned())
        });
        match failures.next() {
            Some(first) => Err(first.beside(failures)),
            // What was found stands on standard output already.
            None if !found.is_empty() && !self.ignore_status => Err(Failure::new(Blame::User, "")),
            None => Ok(()),
        }
    }
}

fn as_text(report: &Report) -> String {
    match &report.answer {
        Answer::Check { found, errors } => checks(report, found, !errors.is_empty()),
        Answer::Outline { name, description, outline } => {
            let mut text = String::new();
            if !name.is_empty() || !description.is_empty() {
                let shown = if name.is_empty() { "(default)" } else { name };
                let mut rows = vec![vec!["TARGET:".to_owned(), shown.to_owned()]];
                if !description.is_empty() {
                    rows.push(vec!["DESCRIPTION:".to_owned(), description.clone()]);
                }
                text += &(table(&rows, 1) + "\n");
            }
            if !outline.arguments.is_empty() {
                let mut rows = vec![["BUILD ARG", "VALUE", "DESCRIPTION"].map(str::to_owned).to_vec()];
                let mut arguments: Vec<_> = outline.arguments.iter().collect();
                arguments.sort_by_key(|(_, argument)| argument.lines);
                rows.extend(
                    arguments.into_iter().map(|(name, argument)| {
                        vec![name.clone(), argument.value.clone(), argument.description.clone()]
                    }),
                );
                text += &(table(&rows, 3) + "\n");
            }
            for (title, needed) in [("SECRET", &outline.secrets), ("SSH", &outline.agents)] {
                if needed.is_empty() {
                    continue;
                }
                let mut rows = vec![vec![title.to_owned(), "REQUIRED".to_owned()]];
                rows.extend(
                    in_order(needed)
                        .into_iter()
                        .map(|(id, needed)| vec![id.clone(), if needed.required { "true" } else { "" }.to_owned()]),
                );
                text += &(table(&rows, 3) + "\n");
            }
            text
        }
        Answer::Targets(targets) => {
            let mut rows = vec![vec!["TARGET".to_owned(), "DESCRIPTION".to_owned()]];
            rows.extend(targets.iter().map(|target| {
                let name = match (target.name.as_str(), target.is_default) {
                    ("", true) => "(default)".to_owned(),
                    (name, true) => format!("{name} (default)"),
                    (name, false) => name.to_owned(),
                };
                vec![name, target.description.clone()]
            }));
            table(&rows, 1)
        }
    }
}

fn in_order(needed: &std::collections::BTreeMap<String, Needed>) -> Vec<(&String, &Needed)> {
    let mut rows: Vec<_> = needed.iter().collect();
    rows.sort_by_key(|(_, needed)| needed.lines);
    rows
}

/// Columns as wide as their widest cell, but for the last one.
fn table(rows: &[Vec<String>], padding: usize) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..count).map(|column| width(column).unwrap_or_default() + padding).collect();
    let mut text = String::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            let cell = output::one_line(cell);
            match (column + 1 == row.len(), widths.get(column)) {
                (false, Some(width)) => {
                    let _ = write!(text, "{cell:<width$}");
                }
                _ => text += &cell,
            }
        }
        text.push('\n');
    }
    text
}

fn checks(report: &Report, found: &[Found], is_refused: bool) -> String {
    let mut text = match (found.len(), is_refused) {
        (0, false) => return "Check complete, no warnings found.\n".to_owned(),
        (0, true) => return String::new(),
        (1, _) => "Check complete, 1 warning has been found!\n".to_owned(),
        (many, _) => format!("Check complete, {many} warnings have been found!\n"),
    };
    let mut found: Vec<&Found> = found.iter().collect();
    found.sort_by_key(|found| found.lines.first);
    for Found { rule, text: what, lines } in found {
        let url = rule.url();
        let dash = if url.is_empty() { "" } else { " - " };
        let _ = write!(text, "\nWARNING: {}{dash}{url}\n{what}\n", rule.name());
        text += &excerpt(report, lines.first, lines.last);
    }
    text
}

/// The lines of the Dockerfile, and those around.
fn excerpt(report: &Report, first: usize, last: usize) -> String {
    let lines: Vec<&str> = report.text.split('\n').collect();
    if first == 0 || first > lines.len() {
        return String::new();
    }
    let last = last.clamp(first, lines.len());
    let around = if first == last { 4 } else { 2 };
    let (mut from, mut to, mut added) = (first, last, 0);
    // Lines before and after in turn; where one side has none, the other has no more for it.
    while added < around {
        if from > 1 {
            from -= 1;
            added += 1;
        }
        if to != lines.len() {
            to += 1;
            added += 1;
        }
        added += 1;
    }
    let mut text = format!("{}:{first}\n--------------------\n", report.file);
    for (index, line) in lines.iter().enumerate().take(to).skip(from - 1) {
        let number = index + 1;
        let mark = if (first..=last).contains(&number) { ">>>" } else { "   " };
        let _ = writeln!(text, " {number:>3} | {mark} {}", output::one_line(line.trim_end_matches('\r')));
    }
    text += "--------------------\n";
    text
}

fn as_json(report: &Report) -> Value {
    let data = base64::engine::general_purpose::STANDARD.encode(&report.text);
    match &report.answer {
        Answer::Check { found, errors } => {
            let rows: Vec<Value> = found
                .iter()
                .map(|found| {
                    let mut row = json!({ "ruleName": found.rule.name(), "description": found.rule.description() });
                    let url = found.rule.url();
                    if !url.is_empty() {
                        row["url"] = json!(url);
                    }
                    row["detail"] = json!(found.text);
                    row["location"] = location(found.lines.first, found.lines.last);
                    row
                })
                .collect();
            // No warnings are none there, rather than an empty list.
            let rows = if rows.is_empty() { Value::Null } else { Value::Array(rows) };
            let source = json!({ "filename": report.file, "language": "Dockerfile", "data": data });
            let mut value = json!({ "warnings": rows, "sources": [source] });
            // The reference has one, its first.
            if let Some(error) = errors.first() {
                let place = location(error.lines.first, error.lines.last);
                value["buildError"] = json!({ "message": error.message, "location": place });
            }
            value
        }
        Answer::Outline { name, description, outline } => {
            let mut value = Map::new();
            let texts = |value: &mut Map<String, Value>, fields: &[(&str, &str)]| {
                for (key, text) in fields.iter().filter(|(_, text)| !text.is_empty()) {
                    value.insert((*key).to_owned(), json!(text));
                }
            };
            texts(&mut value, &[("name", name), ("description", description)]);
            let mut arguments: Vec<_> = outline.arguments.iter().collect();
            arguments.sort_by_key(|(_, argument)| argument.lines);
            let arguments: Vec<Value> = arguments
                .into_iter()
                .map(|(name, argument)| {
                    let mut row = Map::new();
                    row.insert("name".to_owned(), json!(name));
                    texts(&mut row, &[("description", &argument.description), ("value", &argument.value)]);
                    row.insert("location".to_owned(), location(argument.lines.first, argument.lines.last));
                    Value::Object(row)
                })
                .collect();
            let needed = |needed| -> Vec<Value> {
                let rows = in_order(needed).into_iter().map(|(id, needed)| {
                    let mut row = json!({ "name": id });
                    if needed.required {
                        row["required"] = json!(true);
                    }
                    row["location"] = location(needed.lines.first, needed.lines.last);
                    row
                });
                rows.collect()
            };
            for (key, rows) in
                [("args", arguments), ("secrets", needed(&outline.secrets)), ("ssh", needed(&outline.agents))]
            {
                if !rows.is_empty() {
                    value.insert(key.to_owned(), Value::Array(rows));
                }
            }
            value.insert("sources".to_owned(), json!([data]));
            Value::Object(value)
        }
        Answer::Targets(targets) => {
            let rows: Vec<Value> = targets
                .iter()
                .map(|target| {
                    let mut row = Map::new();
                    let fields = [
                        ("name", json!(target.name)),
                        ("default", json!(target.is_default)),
                        ("description", json!(target.description)),
                        ("base", json!(target.base)),
                        ("platform", json!(target.platform)),
                    ];
                    for (key, value) in
                        fields.into_iter().filter(|(_, value)| *value != json!("") && *value != json!(false))
                    {
                        row.insert(key.to_owned(), value);
                    }
                    row.insert("location".to_owned(), location(target.lines.first, target.lines.last));
                    Value::Object(row)
                })
                .collect();
            json!({ "targets": rows, "sources": [data] })
        }
    }
}

/// A range for each line; none where it is about none.
fn location(first: usize, last: usize) -> Value {
    if first == 0 {
        return json!({});
    }
    let ranges: Vec<Value> =
        (first..=last.max(first)).map(|line| json!({ "start": { "line": line }, "end": { "line": line } })).collect();
    json!({ "ranges": ranges })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_names_its_question_and_format() {
        let call = |text: &str| Call::parse(text).map(|call| (call.question, call.json, call.ignore_status));
        assert_eq!(call("build"), Ok((None, false, false)));
        assert_eq!(call("check"), Ok((Some(Question::Check), false, false)));
        assert_eq!(call("lint,format=json,ignorestatus=true"), Ok((Some(Question::Check), true, true)));
        assert_eq!(call("Outline,format=text"), Ok((Some(Question::Outline), false, false)));
        assert_eq!(call("targets,format=json"), Ok((Some(Question::Targets), true, false)));
        for text in ["x", "check,outline", "check,format=xml", "check,a=b", "check,ignorestatus=x"] {
            assert!(Call::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [vec!["A".to_owned(), "BB".to_owned()], vec!["ccc".to_owned(), "d".to_owned()]];
        assert_eq!(table(&rows, 3), "A     BB\nccc   d\n");
    }
}
