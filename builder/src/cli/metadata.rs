//! `--iidfile`, `--digest-file` and `--metadata-file`: what was built, for the scripts around a build.

use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use fluyt_client::Reference;
use serde_json::{Value, json};

use super::args::BuildArguments;
use super::build::write_file;
use super::failure::{Blame, Failure};
use super::settings;
use crate::event::{Event, Events, Sink, check_text};
use crate::pipeline::Built;

/// Hears for another, and keeps the warnings.
pub(super) struct Warnings {
    inner: Events,
    texts: Mutex<Vec<String>>,
}

impl Warnings {
    pub(super) fn of(inner: Events) -> Arc<Self> {
        Arc::new(Self { inner, texts: Mutex::default() })
    }

    /// As buildx writes them: texts are bytes there, so they are base64 in JSON. Warnings have no address to read on.
    fn rows(&self) -> Vec<Value> {
        let texts = self.texts.lock().unwrap_or_else(PoisonError::into_inner);
        let short = |text: &String| base64::engine::general_purpose::STANDARD.encode(text);
        texts.iter().map(|text| json!({ "vertex": "", "level": 1, "short": short(text), "url": "" })).collect()
    }
}

impl Sink for Warnings {
    fn hear(&self, event: Event) {
        let text = match &event {
            Event::Warning { text } => Some(text.clone()),
            Event::Check { rule, text, file, first_line, .. } => Some(check_text(*rule, text, file, *first_line)),
            _ => None,
        };
        if let Some(text) = text {
            self.texts.lock().unwrap_or_else(PoisonError::into_inner).push(text);
        }
        self.inner.hear(event);
    }
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
