//! `--iidfile`, `--digest-file` and `--metadata-file`: what was built, for the scripts around a build.

use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use fluyt_client::Reference;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::args::BuildArguments;
use super::build::write_file;
use super::failure::{Blame, Failure};
use super::settings;
use crate::event::{Event, Events, Sink, short_text};
use crate::pipeline::{Built, Destination, Platform, Request};

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

/// What the files tell of what was asked for.
pub(super) struct Wanted {
    tags: Vec<Reference>,
    by_digest: bool,
    platform: Platform,
    /// The time that the image's descriptor carries.
    created: Option<Timestamp>,
}

impl Wanted {
    pub(super) fn of(request: &Request) -> Self {
        let last = request.destinations.iter().rfind(|destination| destination.is_image());
        // BuildKit's exporters of archives put it there, and those of images do not; the last of several is told of.
        let has_time = last.is_some_and(|last| !matches!(last, Destination::Store | Destination::Registry));
        let time = request.epoch.and_then(|epoch| Timestamp::from_second(epoch).ok()).unwrap_or(request.now);
        Self {
            tags: request.tags.clone(),
            by_digest: request.form.by_digest,
            platform: request.platform.clone(),
            created: has_time.then_some(time),
        }
    }

    /// The manifest's descriptor as BuildKit tells it of an image for one platform.
    fn descriptor(&self, built: &Built) -> Value {
        let mut descriptor = json!(built.manifest);
        if let Some(time) = self.created
            && descriptor["annotations"].get(CREATED).is_none()
        {
            descriptor["annotations"][CREATED] = json!(time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
        }
        if let Some(annotations) = descriptor.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.sort_keys();
        }
        let Platform { os, architecture, variant, .. } = &self.platform;
        descriptor["platform"] = json!({ "architecture": architecture, "os": os });
        if let Some(variant) = variant {
            descriptor["platform"]["variant"] = json!(variant);
        }
        descriptor
    }
}

/// The annotation of the time at which an image was made (image specification, annotations.md).
const CREATED: &str = "org.opencontainers.image.created";

/// Writes the files that were asked for, each whole or not at all.
pub(super) fn write(
    typed: &BuildArguments,
    built: &Built,
    wanted: &Wanted,
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
        "containerimage.descriptor": wanted.descriptor(built),
        "containerimage.digest": digest,
    });
    if !wanted.tags.is_empty() {
        let name = |name: &Reference| if wanted.by_digest { name.name() } else { name.to_string() };
        metadata["image.name"] = json!(wanted.tags.iter().map(name).collect::<Vec<_>>().join(","));
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
