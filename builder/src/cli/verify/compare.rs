//! Two images, part by part: configuration, layers, entries, bytes.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read as _;

use oci_spec::image::{Descriptor, ImageManifest};
use serde_json::{Value, json};

use crate::blob::{Store, StoreError};
use crate::cli::failure::{Blame, Failure};
use crate::export::{ExportError, StoredImage, read_image};
use crate::image::DOCUMENT_SIZE_MAX_BYTES;
use crate::layer::{Entry, IndexEntry, Kind, LayerError, LayerIndex, LayerPath, Limits, index_layer, read_layer};
use crate::pipeline::Built;
use crate::suspects::{REORDERED, Suspect, suspect};

/// Most of a file's content that is compared byte by byte, to say where it differs.
const CONTENT_MAX_BYTES: u64 = 64 * 1024 * 1024;

/// Bytes shown of each side around the first difference.
const SHOWN_BYTES: usize = 48;

/// One thing that is not the same in both images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Difference {
    /// Which layer, from 1, and of how many; none for the configuration.
    layer: Option<(usize, usize)>,
    /// What made the layer.
    made_by: String,
    /// The file, or the field of the configuration.
    place: String,
    /// What of it.
    what: String,
    /// As it is in each build.
    values: Option<(String, String)>,
    suspect: Option<Suspect>,
}

impl Difference {
    /// `/etc/machine-id (content)`.
    pub(super) fn title(&self) -> String {
        format!("{} ({})", self.place, self.what)
    }

    /// Whether it is the time of a file alone.
    pub(super) fn is_time(&self) -> bool {
        self.what == "time"
    }

    /// What to do about it; `is_normalized` says that what could be mended was.
    pub(super) fn hint(&self, is_normalized: bool) -> Option<String> {
        let suspect = self.suspect?;
        let mended =
            if suspect.mend.is_some() && !is_normalized { "; or build with `--normalize`, which mends it" } else { "" };
        Some(format!("{} is {}: {}{mended}", self.place, suspect.what, suspect.advice))
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "layer": self.layer.map(|(layer, _)| layer), "created_by": self.made_by, "path": self.place, "what": self.what,
            "first": self.values.as_ref().map(|values| &values.0), "second": self.values.as_ref().map(|values| &values.1),
            "suspect": self.suspect.map(|suspect| suspect.what), "advice": self.suspect.map(|suspect| suspect.advice),
            "normalize": self.suspect.is_some_and(|suspect| suspect.mend.is_some())})
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "differs: {}", self.title())?;
        if let Some((layer, layers)) = self.layer {
            write!(f, ", layer {layer} of {layers}, made by `{}`", self.made_by)?;
        }
        if let Some((one, two)) = &self.values {
            write!(f, "\n  first:  {one}\n  second: {two}")?;
        }
        if let Some(suspect) = self.suspect {
            write!(f, "\n  this is {}", suspect.what)?;
        }
        Ok(())
    }
}

/// What is not the same in two images, the first in build order first; nothing when they are the same.
pub(super) fn images(store: &Store, one: &Built, two: &Built) -> Result<Vec<Difference>, Failure> {
    if one.manifest.digest() == two.manifest.digest() {
        return Ok(Vec::new());
    }
    let mut differences = Vec::new();
    let (first, second) = (Image::read(store, one)?, Image::read(store, two)?);
    let (ours, theirs) = (first.manifest.layers(), second.manifest.layers());
    if ours.len() != theirs.len() {
        differences.push(Difference {
            layer: None,
            made_by: String::new(),
            place: "the image".to_owned(),
            what: "number of layers".to_owned(),
            values: Some((ours.len().to_string(), theirs.len().to_string())),
            suspect: None,
        });
    }
    for (number, (a, b)) in ours.iter().zip(theirs).enumerate() {
        if a.digest() != b.digest() {
            let about = About { number: number + 1, count: ours.len(), made_by: first.made_by(number) };
            differences.extend(layers(store, a, b, &about)?);
        }
    }
    if differences.is_empty() {
        differences.extend(documents(&first.config, &second.config));
    }
    Ok(differences)
}

struct Image {
    manifest: ImageManifest,
    config: Value,
    history: Vec<String>,
}

impl Image {
    fn read(store: &Store, built: &Built) -> Result<Self, Failure> {
        let unreadable = |error: ExportError| Failure::from_error(Blame::Environment, &error);
        let broken = |error: serde_json::Error| Failure::from_error(Blame::Environment, &error);
        let StoredImage { manifest, config } = read_image(store, built.manifest.digest()).map_err(unreadable)?;
        // Once more as it stands there: a field that is null or unknown may differ too.
        let bytes = store.read(manifest.config().digest(), DOCUMENT_SIZE_MAX_BYTES).map_err(|error| failed(&error))?;
        let rows = config.history.into_iter().filter(|row| !row.empty_layer);
        let history = rows.map(|row| row.created_by.unwrap_or_default()).collect();
        Ok(Self { manifest, config: serde_json::from_slice(&bytes).map_err(broken)?, history })
    }

    fn made_by(&self, layer: usize) -> String {
        self.history.get(layer).map(|text| text.split_whitespace().collect::<Vec<_>>().join(" ")).unwrap_or_default()
    }
}

struct About {
    number: usize,
    count: usize,
    made_by: String,
}

fn layers(store: &Store, one: &Descriptor, two: &Descriptor, about: &About) -> Result<Vec<Difference>, Failure> {
    let (first, second) = (index(store, one)?, index(store, two)?);
    let by_path = |index: LayerIndex| -> BTreeMap<LayerPath, IndexEntry> {
        index.entries.into_iter().map(|entry| (entry.entry.path.clone(), entry)).collect()
    };
    let order = |index: &LayerIndex| index.entries.iter().map(|entry| entry.entry.path.clone()).collect::<Vec<_>>();
    let same_order = order(&first) == order(&second);
    let (first, second) = (by_path(first), by_path(second));
    let mut found = Vec::new();
    let mut paths: Vec<&LayerPath> = first.keys().chain(second.keys()).collect();
    paths.sort();
    paths.dedup();
    let says = |path: &LayerPath, what: &str, values: Option<(String, String)>| {
        let place = path.to_string();
        Difference {
            layer: Some((about.number, about.count)),
            made_by: about.made_by.clone(),
            what: what.to_owned(),
            values,
            suspect: suspect(&place),
            place,
        }
    };
    for path in paths {
        match (first.get(path), second.get(path)) {
            (Some(_), None) => found.push(says(path, "only in the first build", None)),
            (None, Some(_)) => found.push(says(path, "only in the second build", None)),
            (Some(a), Some(b)) if a != b => {
                if let Some((what, values)) = entries(a, b) {
                    found.push(says(path, what, values));
                }
            }
            _ => {}
        }
    }
    if found.is_empty() {
        let what = if same_order { "form of the layer" } else { "order of the layer's entries" };
        found.push(says(&LayerPath::root(), what, Some((one.digest().to_string(), two.digest().to_string()))));
    }
    // To read whole layers for each file would take long; the first tells the most.
    if let Some(first_content) = found.iter_mut().find(|difference| difference.what == "content") {
        let (values, is_reordered) = contents(store, one, two, &first_content.place)?;
        first_content.values = values;
        first_content.suspect = first_content.suspect.or(is_reordered.then_some(REORDERED));
    }
    Ok(found)
}

/// What of an entry differs first, and how.
fn entries(one: &IndexEntry, two: &IndexEntry) -> Option<(&'static str, Option<(String, String)>)> {
    let (a, b) = (&one.entry, &two.entry);
    let both = |a: String, b: String| Some((a, b));
    if std::mem::discriminant(&a.kind) != std::mem::discriminant(&b.kind) {
        return Some(("kind", both(kind(&a.kind).to_owned(), kind(&b.kind).to_owned())));
    }
    if one.content != two.content {
        return Some(("content", None));
    }
    if a.kind != b.kind {
        let target = |kind: &Kind| match kind {
            Kind::Symlink(target) => String::from_utf8_lossy(target).into_owned(),
            Kind::Hardlink(target) => target.to_string(),
            other => format!("{other:?}"),
        };
        return Some(("target", both(target(&a.kind), target(&b.kind))));
    }
    if a.mode != b.mode {
        return Some(("mode", both(format!("{:04o}", a.mode), format!("{:04o}", b.mode))));
    }
    if (a.uid, a.gid) != (b.uid, b.gid) {
        return Some(("owner", both(format!("{}:{}", a.uid, a.gid), format!("{}:{}", b.uid, b.gid))));
    }
    if a.modified != b.modified {
        let time = |entry: &Entry| {
            let time =
                jiff::Timestamp::new(entry.modified.seconds, i32::try_from(entry.modified.nanoseconds).unwrap_or(0));
            time.map_or_else(|_| entry.modified.seconds.to_string(), |time| time.to_string())
        };
        return Some(("time", both(time(a), time(b))));
    }
    if a.xattrs != b.xattrs {
        return Some(("extended attributes", both(attributes(a, b), attributes(b, a))));
    }
    None
}

/// The extended attributes of an entry that the other one has not, or has otherwise.
fn attributes(own: &Entry, other: &Entry) -> String {
    let differs = own.xattrs.iter().filter(|(name, value)| other.xattrs.get(*name) != Some(*value));
    let shown = differs.map(|(name, value)| {
        let others = other.xattrs.get(name).map_or(&[][..], Vec::as_slice);
        format!("{} has at {}", String::from_utf8_lossy(name), piece(value, common(value, others)))
    });
    let shown = shown.collect::<Vec<_>>().join(", ");
    if shown.is_empty() { "none of these".to_owned() } else { shown }
}

fn kind(kind: &Kind) -> &'static str {
    match kind {
        Kind::File { .. } => "a file",
        Kind::Directory => "a folder",
        Kind::Symlink(_) => "a symbolic link",
        Kind::Hardlink(_) => "a hard link",
        Kind::CharDevice { .. } | Kind::BlockDevice { .. } => "a device",
        Kind::Fifo => "a pipe",
        Kind::Whiteout | Kind::Opaque => "a removal",
    }
}

fn index(store: &Store, layer: &Descriptor) -> Result<LayerIndex, Failure> {
    let blob = store.open_blob(layer.digest()).map_err(|error| failed(&error))?;
    let (_, index) = index_layer(blob, "", &Limits::DEFAULT).map_err(|error| broken(layer, &error))?;
    Ok(index)
}

fn failed(error: &StoreError) -> Failure {
    Failure::from_error(Blame::Environment, error)
}

fn broken(layer: &Descriptor, error: &LayerError) -> Failure {
    Failure::new(Blame::Environment, format!("cannot read the layer {}", layer.digest())).caused_by(error)
}

/// Where a file's content differs first and what stands there; and whether both have the same lines.
fn contents(
    store: &Store,
    one: &Descriptor,
    two: &Descriptor,
    path: &str,
) -> Result<(Option<(String, String)>, bool), Failure> {
    let (a, b) = (content(store, one, path)?, content(store, two, path)?);
    if a == b {
        return Ok((None, false));
    }
    let common = common(&a, &b);
    let lines = |bytes: &[u8]| {
        let mut lines: Vec<Vec<u8>> = bytes.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        lines.sort();
        lines
    };
    Ok((Some((piece(&a, common), piece(&b, common))), lines(&a) == lines(&b)))
}

/// How many bytes both begin with.
fn common(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// What stands around the first byte that differs, which is the one at `at`.
fn piece(bytes: &[u8], at: usize) -> String {
    let from = at.saturating_sub(SHOWN_BYTES / 3);
    let to = bytes.len().min(from + SHOWN_BYTES);
    let shown = bytes.get(from.min(to)..to).unwrap_or_default().escape_ascii().to_string();
    format!("byte {at} of {}: \"{shown}\"", bytes.len())
}

fn content(store: &Store, layer: &Descriptor, path: &str) -> Result<Vec<u8>, Failure> {
    let blob = store.open_blob(layer.digest()).map_err(|error| failed(&error))?;
    let mut bytes = Vec::new();
    let visited = read_layer(blob, "", &Limits::DEFAULT, &mut |entry, content| {
        if matches!(entry.kind, Kind::File { .. }) && entry.path.to_string() == path {
            bytes.clear();
            content.take(CONTENT_MAX_BYTES).read_to_end(&mut bytes).map_err(LayerError::Read)?;
        }
        Ok::<_, LayerError>(())
    });
    visited.map_err(|error| broken(layer, &error))?;
    Ok(bytes)
}

/// Fields of two configurations that differ, by their path.
fn documents(one: &Value, two: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    compare("", one, two, &mut found);
    found
}

fn compare(place: &str, one: &Value, two: &Value, found: &mut Vec<Difference>) {
    match (one, two) {
        (Value::Object(a), Value::Object(b)) => {
            let mut names: Vec<&String> = a.keys().chain(b.keys()).collect();
            names.sort();
            names.dedup();
            for name in names {
                let of = |map: &serde_json::Map<String, Value>| map.get(name).cloned().unwrap_or(Value::Null);
                compare(&format!("{place}.{name}"), &of(a), &of(b), found);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (number, (a, b)) in a.iter().zip(b).enumerate() {
                compare(&format!("{place}[{number}]"), a, b, found);
            }
        }
        (a, b) if a != b => found.push(Difference {
            layer: None,
            made_by: String::new(),
            place: place.trim_start_matches('.').to_owned(),
            what: "the image's configuration".to_owned(),
            values: Some((a.to_string(), b.to_string())),
            suspect: None,
        }),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::FileTime;

    #[test]
    fn attributes_that_differ_are_shown_with_their_values() {
        let entry = |attributes: &[(&str, &[u8])]| IndexEntry {
            entry: Entry {
                path: LayerPath::root(),
                kind: Kind::Directory,
                mode: 0o755,
                uid: 0,
                gid: 0,
                modified: FileTime::default(),
                xattrs: attributes.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.to_vec())).collect(),
            },
            content: None,
        };
        let values = |one: &[(&str, &[u8])], two: &[(&str, &[u8])]| {
            let (what, values) = entries(&entry(one), &entry(two)).unwrap();
            assert_eq!(what, "extended attributes");
            values.unwrap()
        };
        let (long, longer) = ([b'x'; 100], [b'x'; 200]);
        let of = |one: &str, two: &str| (one.to_owned(), two.to_owned());
        assert_eq!(
            values(
                &[("user.a", b"same"), ("security.capability", b"\x01\0\x02")],
                &[("user.a", b"same"), ("security.capability", b"\x01\0\x03")]
            ),
            of(
                r#"security.capability has at byte 2 of 3: "\x01\x00\x02""#,
                r#"security.capability has at byte 2 of 3: "\x01\x00\x03""#
            )
        );
        assert_eq!(
            values(&[("user.a", b"one"), ("user.b", b"two")], &[]),
            of(r#"user.a has at byte 0 of 3: "one", user.b has at byte 0 of 3: "two""#, "none of these")
        );
        let (one, two) = values(&[("user.a", &long)], &[("user.a", &longer)]);
        assert_eq!(one, format!(r#"user.a has at byte 100 of 100: "{}""#, "x".repeat(16)));
        assert_eq!(two, format!(r#"user.a has at byte 100 of 200: "{}""#, "x".repeat(48)));
    }
}
