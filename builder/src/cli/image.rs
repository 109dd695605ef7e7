//! `fluyt images`, `tag`, `rmi` and `inspect`.

use std::fmt::Write as _;
use std::path::Path;

use fluyt_client::Reference;
use oci_spec::image::{Descriptor, Digest, MediaType};
use serde_json::{Value, json};

use super::args::{ImagesArguments, InspectArguments, RmiArguments, TagArguments};
use super::build::open_store;
use super::failure::{Blame, Failure};
use super::image_file::{self, ImageFile};
use super::progress::size;
use super::{output, settings, transfer};
use crate::blob::Store;
use crate::event::{Event, Sink};
use crate::export::read_image;
use crate::image::{DOCUMENT_SIZE_MAX_BYTES, Manifest, Platform, manifest, select};
use crate::remote::Remote;

fn store_failed(error: &crate::blob::StoreError) -> Failure {
    Failure::from_error(Blame::Environment, error)
}

/// A descriptor of a manifest.
pub(super) fn descriptor(media_type: &str, size_bytes: u64, digest: Digest) -> Descriptor {
    Descriptor::new(MediaType::from(media_type), size_bytes, digest)
}

/// The image of this name in the store, by tag or by the digest of one that has a name.
pub(super) fn in_store(store: &Store, reference: &Reference) -> Result<Descriptor, Failure> {
    find(store, reference)?.ok_or_else(|| {
        Failure::new(Blame::User, format!("the store has no image {reference}"))
            .hint("`fluyt images` lists what it has; `fluyt build -t NAME` and `fluyt pull NAME` bring images into it")
    })
}

pub(super) fn find(store: &Store, reference: &Reference) -> Result<Option<Descriptor>, Failure> {
    if let Some(digest) = reference.digest() {
        let tags = store.tags().map_err(|error| store_failed(&error))?;
        return Ok(tags.into_iter().map(|(_, descriptor)| descriptor).find(|descriptor| descriptor.digest() == digest));
    }
    store.resolve(&reference.to_string()).map_err(|error| store_failed(&error))
}

/// What a digest names that stands alone: all of it, or its beginning of [`DIGITS_MIN`] digits at least. Its image and the
/// names of that; nothing for other text.
fn by_digest(store: &Store, text: &str) -> Result<Option<(Descriptor, Vec<Reference>)>, Failure> {
    let Some(digits) = text.strip_prefix("sha256:").filter(|digits| is_hex(digits)) else { return Ok(None) };
    let mut found: Vec<(Descriptor, Vec<Reference>)> = Vec::new();
    for (name, descriptor) in store.tags().map_err(|error| store_failed(&error))? {
        if !descriptor.digest().digest().starts_with(digits) {
            continue;
        }
        let name = settings::reference(&name)?;
        match found.iter_mut().find(|(known, _)| known.digest() == descriptor.digest()) {
            Some((_, names)) => names.push(name),
            None => found.push((descriptor, vec![name])),
        }
    }
    // An image without a name is there as long as there is room for it.
    if found.is_empty()
        && let Ok(digest) = text.parse::<Digest>()
        && store.contains(&digest)
    {
        let manifest = json_of(store, &digest)?;
        if let (Some(media_type), Ok(Some(size_bytes))) = (manifest["mediaType"].as_str(), store.size(&digest)) {
            found.push((descriptor(media_type, size_bytes, digest), Vec::new()));
        }
    }
    match found.len() {
        1 => Ok(found.pop()),
        0 => Err(Failure::new(Blame::User, format!("the store has no image {text}"))
            .hint("`fluyt images --json` lists the digests of those that have names")),
        count => Err(Failure::new(Blame::User, format!("{text} is the beginning of {count} images' digests"))
            .hint("give more of it")),
    }
}

/// Fewest digits of a digest that name an image: so many are shown.
const DIGITS_MIN: usize = 12;

fn is_hex(digits: &str) -> bool {
    let hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    (DIGITS_MIN..=64).contains(&digits.len()) && digits.bytes().all(hex)
}

/// The image that a name or a digest means in the store, and the name that it has.
pub(super) fn asked(store: &Store, text: &str) -> Result<(Reference, Descriptor), Failure> {
    let Some((descriptor, mut names)) = by_digest(store, text)? else {
        let reference = settings::reference(text)?;
        let descriptor = in_store(store, &reference)?;
        return Ok((reference, descriptor));
    };
    let name = one_name(text, &mut names)?;
    Ok((name, descriptor))
}

/// The only name of an image that its digest was given of.
fn one_name(text: &str, names: &mut Vec<Reference>) -> Result<Reference, Failure> {
    let listed: Vec<String> = names.iter().map(Reference::familiar).collect();
    match (names.pop(), listed.len()) {
        (Some(name), 1) => Ok(name),
        (None, _) => Err(Failure::new(Blame::User, format!("the image {text} has no name"))
            .hint(format!("`fluyt tag {text} NAME` gives it one"))),
        _ => Err(Failure::new(Blame::User, format!("the image {text} has several names: {}", listed.join(", ")))
            .hint("say which")),
    }
}

fn familiar(name: &str) -> String {
    Reference::parse(name).map_or_else(|_| name.to_owned(), |reference| reference.familiar())
}

pub(super) fn list(store: Option<&Path>, typed: &ImagesArguments) -> Result<(), Failure> {
    let store = open_store(store)?;
    let mut tags = store.tags().map_err(|error| store_failed(&error))?;
    tags.sort_by(|a, b| a.0.cmp(&b.0));
    let mut rows = Vec::new();
    for (name, descriptor) in tags {
        let (created, size_bytes) = about(&store, &descriptor);
        rows.push((name, descriptor.digest().to_string(), created, size_bytes));
    }
    let mut text = String::new();
    if typed.quiet {
        rows.iter().for_each(|(_, digest, ..)| text.push_str(&format!("{digest}\n")));
    } else if typed.json {
        for (name, digest, created, size_bytes) in &rows {
            let row = json!({"name": name, "digest": digest, "created": created, "size_bytes": size_bytes});
            let _ = writeln!(text, "{row}");
        }
    } else {
        let names: Vec<String> = rows.iter().map(|(name, ..)| familiar(name)).collect();
        let width = names.iter().map(String::len).max().unwrap_or(0).max(4);
        let _ = writeln!(text, "{:width$}  {:19}  {:20}  SIZE", "NAME", "DIGEST", "CREATED");
        for (name, (_, digest, created, size_bytes)) in names.iter().zip(&rows) {
            let short = digest.get(..19).unwrap_or(digest);
            let created = created.as_deref().unwrap_or("-");
            let created = created.get(..19).map_or_else(|| created.to_owned(), |time| format!("{time}Z"));
            let _ =
                writeln!(text, "{name:width$}  {short:19}  {created:20}  {}", size_bytes.map_or("-".to_owned(), size));
        }
    }
    super::print(text.as_bytes())
}

/// When an image was made, and what its layers weigh; nothing for what cannot be read.
fn about(store: &Store, descriptor: &Descriptor) -> (Option<String>, Option<u64>) {
    let Ok(image) = read_image(store, descriptor.digest()) else { return (None, None) };
    (image.config.created, Some(image.manifest.layers().iter().map(Descriptor::size).sum()))
}

pub(super) fn tag(store: Option<&Path>, typed: &TagArguments) -> Result<(), Failure> {
    let target = settings::reference(&typed.target)?;
    if target.digest().is_some() {
        return Err(Failure::usage(format!("`{}` has a digest, and cannot be given as a name", typed.target)));
    }
    let store = open_store(store)?;
    let mut descriptor = match by_digest(&store, &typed.source)? {
        Some((descriptor, _)) => descriptor,
        None => in_store(&store, &settings::reference(&typed.source)?)?,
    };
    // Marks belong to the name that has them: that the source was pulled says nothing of this name.
    descriptor.set_annotations(None);
    store.tag(&target.to_string(), descriptor).map_err(|error| store_failed(&error))
}

pub(super) fn untag(store: Option<&Path>, typed: &RmiArguments) -> Result<(), Failure> {
    let store = open_store(store)?;
    let reference = |text: &String| match by_digest(&store, text)? {
        Some((_, mut names)) => one_name(text, &mut names),
        None => settings::reference(text),
    };
    let references = typed.references.iter().map(reference).collect::<Result<Vec<_>, _>>()?;
    let mut absent = Vec::new();
    for reference in &references {
        if !store.untag(&reference.to_string()).map_err(|error| store_failed(&error))? {
            absent.push(reference.to_string());
        }
    }
    match absent.is_empty() {
        true => Ok(()),
        false => Err(Failure::new(Blame::User, format!("the store has no image {}", absent.join(", ")))
            .hint("`fluyt images` lists what it has; the other names are gone")),
    }
}

pub(super) async fn inspect(store: Option<&Path>, typed: InspectArguments) -> Result<(), Failure> {
    let platform = transfer::platform(typed.platform.as_deref())?;
    let store = open_store(store)?;
    let file = ImageFile::at(Path::new(&typed.reference));
    let (mut name, found) = match by_digest(&store, &typed.reference)? {
        Some((descriptor, names)) => {
            (names.first().map_or_else(|| typed.reference.clone(), Reference::to_string), Some(descriptor))
        }
        None => match settings::reference(&typed.reference) {
            Ok(reference) => (reference.to_string(), find(&store, &reference)?),
            Err(_) if file.is_some() => (typed.reference.clone(), None),
            Err(failure) => return Err(failure),
        },
    };
    let found = match (found, file) {
        (Some(descriptor), _) => resolve(&|digest| json_of(&store, digest), &name, descriptor, &platform)?,
        (None, Some(file)) => {
            let image = file.image()?;
            if let Some(named) = image_file::name(&image) {
                named.clone_into(&mut name);
            }
            resolve(&|digest| file.json(digest), &name, image, &platform)?
        }
        (None, None) => {
            let reference = settings::reference(&typed.reference)?;
            let remote = Remote::new(transfer::client(&typed.registries)?, store.clone(), std::sync::Arc::new(Notes));
            let image = remote.image(&reference, &platform).await.map_err(|error| {
                transfer::failure(format!("cannot inspect {reference}"), &error).hint(
                    "the store has no image of that name, so its registry was asked; `fluyt images` lists the store's",
                )
            })?;
            let descriptor = descriptor(&image.media_type, image.size_bytes, image.digest);
            resolve(&|digest| json_of(&store, digest), &name, descriptor, &platform)?
        }
    };
    let shown = shown(&name, &found);
    let text = match typed.json {
        true => {
            serde_json::to_string_pretty(&shown).map_err(|error| Failure::from_error(Blame::Environment, &error))?
                + "\n"
        }
        false => words(&shown),
    };
    super::print(text.as_bytes())
}

/// Hears what people should know while they wait.
struct Notes;

impl Sink for Notes {
    fn hear(&self, event: Event) {
        match event {
            Event::Note { text } => output::message(&format!("{}\n", output::one_line(&text))),
            Event::Warning { text } => output::message(&format!("warning: {}\n", output::one_line(&text))),
            _ => {}
        }
    }
}

fn json_of(store: &Store, digest: &Digest) -> Result<Value, Failure> {
    let bytes = store.read(digest, DOCUMENT_SIZE_MAX_BYTES).map_err(|error| store_failed(&error))?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Failure::new(Blame::Environment, format!("{digest} is no JSON")).caused_by(&error))
}

/// An image's documents as they are, and its layers.
struct Found {
    descriptor: Descriptor,
    manifest: Value,
    config: Value,
    layers: Vec<Descriptor>,
}

/// An image whose documents are read in this way; of an index, the entry for the platform.
fn resolve(
    json_of: &dyn Fn(&Digest) -> Result<Value, Failure>,
    reference: &str,
    mut descriptor: Descriptor,
    platform: &Platform,
) -> Result<Found, Failure> {
    // An index may name an index; digests form no circle.
    loop {
        let document = json_of(descriptor.digest())?;
        let parsed = manifest::parse_value(document.clone())
            .map_err(|error| Failure::new(Blame::Environment, format!("cannot inspect {reference}: {error}")))?;
        match parsed {
            Manifest::Index(index) => {
                descriptor = select(&index, platform).cloned().ok_or_else(|| {
                    Failure::new(Blame::User, format!("image {reference} has no variant for {platform}"))
                        .hint("choose one with --platform")
                })?;
            }
            Manifest::Image(image) => {
                let config = json_of(image.config().digest())?;
                return Ok(Found { descriptor, manifest: document, config, layers: image.layers().clone() });
            }
        }
    }
}

/// The JSON form: `{ref, digest, media_type, size_bytes, manifest, config, layers}`.
fn shown(reference: &str, found: &Found) -> Value {
    let Found { descriptor, manifest, config, layers } = found;
    let diff_ids = config["rootfs"]["diff_ids"].as_array().cloned().unwrap_or_default();
    let layers: Vec<Value> = layers
        .iter()
        .enumerate()
        .map(|(number, layer)| {
            json!({
                "digest": layer.digest().to_string(),
                "diff_id": diff_ids.get(number),
                "media_type": layer.media_type().to_string(),
                "size_bytes": layer.size(),
            })
        })
        .collect();
    json!({
        "ref": reference,
        "digest": descriptor.digest().to_string(),
        "media_type": descriptor.media_type().to_string(),
        "size_bytes": descriptor.size(),
        "manifest": manifest,
        "config": config,
        "layers": layers,
    })
}

fn words(shown: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let config = &shown["config"];
    let mut out = String::new();
    let mut line = |name: &str, value: String| {
        if !value.is_empty() {
            let _ = writeln!(out, "{name:<12}{value}");
        }
    };
    line("image", text(&shown["ref"]));
    line("digest", text(&shown["digest"]));
    line("media type", text(&shown["media_type"]));
    line("platform", format!("{}/{}", text(&config["os"]), text(&config["architecture"])));
    line("created", text(&config["created"]));
    let runtime = &config["config"];
    let list = |value: &Value| {
        if value.as_array().is_some_and(|list| !list.is_empty()) { value.to_string() } else { String::new() }
    };
    line("entrypoint", list(&runtime["Entrypoint"]));
    line("command", list(&runtime["Cmd"]));
    line("user", text(&runtime["User"]));
    line("folder", text(&runtime["WorkingDir"]));
    let names = |value: &Value| {
        let mut names: Vec<_> = value.as_object().into_iter().flat_map(|names| names.keys().cloned()).collect();
        names.sort();
        names.join(", ")
    };
    line("ports", names(&runtime["ExposedPorts"]));
    line("volumes", names(&runtime["Volumes"]));
    line("stop signal", text(&runtime["StopSignal"]));
    line("health", list(&runtime["Healthcheck"]["Test"]));
    for variable in runtime["Env"].as_array().into_iter().flatten() {
        line("env", text(variable));
    }
    if let Some(labels) = runtime["Labels"].as_object() {
        labels.iter().for_each(|(name, value)| line("label", format!("{name}={}", text(value))));
    }
    let layers = shown["layers"].as_array().map(Vec::as_slice).unwrap_or_default();
    let total: u64 = layers.iter().filter_map(|layer| layer["size_bytes"].as_u64()).sum();
    line("layers", format!("{}, {} in all", layers.len(), size(total)));
    for layer in layers {
        let bytes = layer["size_bytes"].as_u64().unwrap_or_default();
        line("", format!("{:>10}  {}", size(bytes), text(&layer["digest"])));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_name_what_someone_runs_an_image_for() {
        let image = json!({
            "ref": "a/b:1",
            "config": {
                "os": "linux",
                "architecture": "amd64",
                "config": {
                    "ExposedPorts": {"80/tcp": {}, "443/tcp": {}},
                    "Volumes": {"/data": {}},
                    "StopSignal": "SIGINT",
                    "Healthcheck": {"Test": ["CMD", "true"]},
                },
            },
            "layers": [{"digest": "sha256:aa", "size_bytes": 2048}],
        });
        let text = words(&image);
        for line in [
            "image       a/b:1",
            "ports       443/tcp, 80/tcp",
            "volumes     /data",
            "stop signal SIGINT",
            "health      [\"CMD\",\"true\"]",
            "layers      1, 2.0 kB in all",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("user"), "{text}");
    }
}
