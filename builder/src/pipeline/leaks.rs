//! No configuration, history or manifest leaves that holds a secret of the build.
//!
//! What the Dockerfile puts there is known before any step runs, and is refused then, with its line. The documents are
//! searched once more as they are written: labels and annotations of the command line are in them too.

use serde_json::Value;

use super::source::Read;
use super::{BuildError, Request};
use crate::graph::{Graph, HistoryStep};
use crate::secrets::{Found, Search};

/// Refuses a graph whose image would hold a secret outside its layers.
pub(super) fn in_graph(search: &Search, graph: &Graph, read: &Read) -> Result<(), BuildError> {
    let result = &graph.result;
    for row in &result.history {
        match row {
            HistoryStep::Base(row) => {
                let text = row.created_by.as_deref().unwrap_or_default();
                refuse(search, text, || ("the history of the base image".to_owned(), None))?;
            }
            HistoryStep::Made { created_by, lines, .. } => refuse(search, created_by, || {
                let shown = read.place_of(*lines, Some(""));
                let step = format!("step `{created_by}` ({shown})");
                ("the image's configuration and history".to_owned(), Some((step, shown.excerpt().to_owned())))
            })?,
        }
    }
    if let Some(author) = &result.author {
        refuse(search, author, || ("the author in the image's configuration".to_owned(), None))?;
    }
    let config = serde_json::to_value(&result.config).unwrap_or_default();
    match in_value(search, &config, "config") {
        Some((path, found)) => Err(leak(format!("the image's configuration, in {path}"), None, found)),
        None => Ok(()),
    }
}

/// Refuses names under which the image would be sent.
pub(super) fn in_names(search: &Search, request: &Request) -> Result<(), BuildError> {
    request
        .tags
        .iter()
        .try_for_each(|name| refuse(search, &name.to_string(), || ("the name of the image".to_owned(), None)))
}

/// Refuses a document of the image.
pub(super) fn in_document(search: &Search, what: &str, bytes: &[u8]) -> Result<(), BuildError> {
    let value = serde_json::from_slice(bytes).unwrap_or_default();
    match in_value(search, &value, "") {
        Some((path, found)) => Err(leak(format!("{what}, in {path}"), None, found)),
        // Whatever it is as a value: these bytes leave.
        None => search.find(bytes).map_or(Ok(()), |found| Err(leak(what.to_owned(), None, found))),
    }
}

fn refuse(
    search: &Search,
    text: &str,
    place: impl FnOnce() -> (String, Option<(String, String)>),
) -> Result<(), BuildError> {
    match search.find(text.as_bytes()) {
        Some(found) => {
            let (place, step) = place();
            Err(leak(place, step, found))
        }
        None => Ok(()),
    }
}

fn leak(place: String, step: Option<(String, String)>, found: Found) -> BuildError {
    let (step, excerpt) = step.unzip();
    BuildError::Leak { place, step, excerpt: excerpt.unwrap_or_default(), found }
}

/// The first secret in a value, and where it is: `config.Env[2]`.
fn in_value(search: &Search, value: &Value, path: &str) -> Option<(String, Found)> {
    match value {
        Value::String(text) => search.find(text.as_bytes()).map(|found| (path.to_owned(), found)),
        Value::Array(values) => {
            values.iter().enumerate().find_map(|(number, value)| in_value(search, value, &format!("{path}[{number}]")))
        }
        Value::Object(members) => members.iter().find_map(|(name, value)| {
            let below = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            let of_name = search.find(name.as_bytes()).map(|found| (format!("a name in {path}"), found));
            of_name.or_else(|| in_value(search, value, &below))
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}
