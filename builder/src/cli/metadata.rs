//! `--iidfile`, `--digest-file` and `--metadata-file`: what was built, for the scripts around a build.

use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use fluyt_client::Reference;
use serde_json::{Value, json};

use super::args::BuildArguments;
use super::build::write_file;
use super::failure::{Blame, Failure};
use super::settings;
use crate::event::{Event, Events, Sink, short_text};
use crate::pipeline::Built;

/// Hears for another, and keeps the warnings.
pub(super) struct Warnings {
    inner: Events,
    told: Mutex<Told>,
}

#[derive(Default)]
struct Told {
    rows: Vec<Value>,
    /// The Dockerfile as it is shown with each of them.
    source: Option<Value>,
}

impl Warnings {
    pub(super) fn of(inner: Events) -> Arc<Self> {
        Arc::new(Self { inner, told: Mutex::default() })
    }

    /// As buildx writes them.
    fn rows(&self) -> Vec<Value> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).rows.clone()
    }
}

impl Sink for Warnings {
    fn hear(&self, event: Event) {
        {
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            match &event {
                Event::Dockerfile { name, text, .. } => {
                    told.source = Some(json!({ "filename": name, "data": base64(text), "language": "Dockerfile" }));
                }
                Event::Warning { text } => told.rows.push(row(text)),
                Event::Check { rule, text, detail, url, first_line, last_line, .. } => {
                    let mut row = row(&short_text(*rule, text, *first_line));
                    if !detail.is_empty() {
                        row["detail"] = json!([base64(detail)]);
                    }
                    row["url"] = json!(url);
                    if let Some(source) = told.source.as_ref().filter(|_| *first_line > 0) {
                        row["sourceInfo"] = source.clone();
                        row["range"] = json!([{ "start": { "line": first_line }, "end": { "line": last_line } }]);
                    }
                    told.rows.push(row);
                }
                _ => {}
            }
        }
        self.inner.hear(event);
    }
}

fn row(short: &str) -> Value {
    json!({ "vertex": "", "level": 1, "short": base64(short), "url": "" })
}

/// Texts are bytes there, and bytes are base64 in JSON.
fn base64(text: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(text)
}

/// Writes the files that were asked for, each whole or not at all.
pub(super) fn write(
    typed: &BuildArguments,
    built: &Built,
    tags: &[Reference],
    by_digest: bool,
    warnings: &Warnings,
) -> Result<(), Failure> {
    let digest = built.manifest.digest().to_string();
    if let Some(path) = &typed.iidfile {
        write_file(path, built.config_digest.to_string().as_bytes())?;
    }
    if let Some(path) = &typed.digest_file {
        write_file(path, digest.as_bytes())?;
    }
    let Some(path) = &typed.metadata_file else { return Ok(()) };
    let mut metadata = json!({
        "buildx.build.ref": format!("fluyt/fluyt/{}", build_name()?),
        "containerimage.config.digest": built.config_digest.to_string(),
        "containerimage.descriptor": built.manifest,
        "containerimage.digest": digest,
    });
    if !tags.is_empty() {
        let name = |name: &Reference| if by_digest { name.name() } else { name.to_string() };
        metadata["image.name"] = json!(tags.iter().map(name).collect::<Vec<_>>().join(","));
    }
    if settings::metadata_has_warnings() {
        metadata["buildx.build.warnings"] = Value::Array(warnings.rows());
    }
    let text = serde_json::to_vec_pretty(&metadata).map_err(|error| Failure::from_error(Blame::Environment, &error))?;
    write_file(path, &text)
}

/// A name for this one run: buildx gives 25 letters and digits behind its builder and node.
fn build_name() -> Result<String, Failure> {
    let mut bytes = [0; 25];
    getrandom::fill(&mut bytes).map_err(|error| Failure::from_error(Blame::Environment, &error))?;
    Ok(bytes.iter().map(|byte| char::from(b"abcdefghijklmnopqrstuvwxyz012345"[usize::from(byte % 32)])).collect())
}
