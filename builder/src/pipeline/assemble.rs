//! The finished image: configuration and manifest, in the store.

use jiff::Timestamp;
use oci_spec::image::{Descriptor, MediaType};

use super::places::unusable;
use super::{BuildError, Built, Request, leaks};
use crate::blob::Store;
use crate::execute::{EARLIEST_ZIP_TIME, RootState, States};
use crate::graph::{Graph, HistoryStep, OpId, StageResult};
use crate::image::{DOCUMENT_SIZE_MAX_BYTES, Document, HistoryRow, ImageConfig, RootFs, manifest};
use crate::secrets::Search;

/// Writes the image of a graph's result into the store and describes it. `committed_at` is the time of the commit that the
/// context is, where the result may depend on inputs alone: files get a constant time then, and people want to know the age.
pub(super) fn assemble(
    graph: &Graph,
    states: &States,
    root: &RootState,
    request: &Request,
    committed_at: Option<i64>,
    search: &Search,
    store: &Store,
) -> Result<Built, BuildError> {
    let result = &graph.result;
    let history = history(result, states, request);
    let config = ImageConfig {
        created: committed_at
            .filter(|_| request.epoch.is_none())
            .map(text)
            .or_else(|| history.iter().rev().find_map(|row| row.created.clone()))
            .or_else(|| Some(text(fallback(request)))),
        author: result.author.clone(),
        architecture: result.platform.architecture.clone(),
        variant: result.platform.variant.clone(),
        os: result.platform.os.clone(),
        config: result.config.clone(),
        rootfs: RootFs {
            diff_ids: root.layers.iter().map(|layer| layer.diff_id.to_string()).collect(),
            ..RootFs::default()
        },
        history,
        others: result.others.clone(),
    };
    let form = &request.form;
    let config = manifest::config(&config, form.format);
    leaks::in_document(search, "the image's configuration", &config.bytes)?;
    check_size("configuration", &config)?;
    store.put(&config.bytes)?;
    let layers: Vec<Descriptor> = root
        .layers
        .iter()
        .map(|layer| {
            Descriptor::new(MediaType::from(layer.media_type.as_str()), layer.size_bytes, layer.digest.clone())
        })
        .collect();
    let manifest = manifest::manifest(&config, &layers, &form.annotations, form.format)?;
    let annotations = serde_json::to_vec(&form.descriptor_annotations).unwrap_or_default();
    leaks::in_document(search, "the image's annotations", &annotations)?;
    leaks::in_document(search, "the image's manifest", &manifest.bytes)?;
    check_size("manifest", &manifest)?;
    store.put(&manifest.bytes)?;
    // Whoever is told of an image finds it, whatever becomes of the machine.
    store.settle()?;
    let mut descriptor = manifest.descriptor();
    if !form.descriptor_annotations.is_empty() {
        descriptor.set_annotations(Some(form.descriptor_annotations.clone().into_iter().collect()));
    }
    Ok(Built { manifest: descriptor, config_digest: config.digest, bases: Vec::new() })
}

/// Refuses a document that nobody would read again.
fn check_size(what: &str, document: &Document) -> Result<(), BuildError> {
    let size_bytes = document.bytes.len() as u64;
    if size_bytes <= DOCUMENT_SIZE_MAX_BYTES {
        return Ok(());
    }
    Err(unusable(
        format!("the image's {what} has {size_bytes} bytes, and at most {DOCUMENT_SIZE_MAX_BYTES} are read of one"),
        "labels, variables, annotations and the text of each instruction are in it: put what is large into a file",
    ))
}

/// The time of what no layer says the time of: the epoch where one is given, a fixed one where the result may depend on
/// inputs alone, else now. In seconds since 1970.
fn fallback(request: &Request) -> i64 {
    match (request.epoch, request.reproducible) {
        (Some(epoch), _) => epoch,
        (None, true) => EARLIEST_ZIP_TIME,
        (None, false) => request.now.as_second(),
    }
}

fn text(seconds: i64) -> String {
    Timestamp::from_second(seconds).unwrap_or(Timestamp::UNIX_EPOCH).to_string()
}

/// The rows. A row with a layer has the layer's time, also when it was found in the cache; one without has the time of
/// the row before it; so a build that finds everything gives the image that it gave before, to the byte.
fn history(result: &StageResult, states: &States, request: &Request) -> Vec<HistoryRow> {
    let made = |id: &OpId| states.get(*id).and_then(|state| state.layers.last()?.made_at);
    let first = result.history.iter().find_map(|step| match step {
        HistoryStep::Made { layer: Some(id), .. } => made(id),
        _ => None,
    });
    let mut last: Option<String> = None;
    let mut rows = Vec::new();
    for step in &result.history {
        let row = match step {
            HistoryStep::Base(row) => row.clone(),
            HistoryStep::Made { created_by, layer, .. } => {
                let own = layer.as_ref().and_then(made).map(text);
                let created =
                    own.or_else(|| last.clone()).unwrap_or_else(|| text(first.unwrap_or_else(|| fallback(request))));
                HistoryRow {
                    created: Some(created),
                    created_by: Some(created_by.clone()),
                    author: None,
                    comment: Some(HistoryStep::COMMENT.to_owned()),
                    empty_layer: layer.is_none(),
                }
            }
        };
        last = row.created.clone().or(last);
        rows.push(row);
    }
    rows
}
