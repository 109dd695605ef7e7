//! A manifest's bytes -> what the registry has to know of them. The bytes themselves are kept and served as received.
//!
//! Accepted are OCI image manifests and indexes, and Docker schema 2 manifests and lists. Only what decides something
//! here is read: media type, references, subject, and what a referrers list shows.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::digest::Digest;

/// Largest manifest accepted, in bytes.
///
/// The distribution spec expects at least 4 MiB ("Pushing Manifests"). A manifest is held in memory while its
/// references are checked, so this also bounds memory per push.
pub const MANIFEST_SIZE_MAX_BYTES: usize = 8 * 1024 * 1024;
/// Most references in one manifest. Each costs requests to the store; 128 layers is what clients can mount, artifacts
/// have been seen with some thousands.
pub const MANIFEST_REFERENCES_MAX: usize = 10_000;
/// The media type of a referrers list, and of every image index.
pub const EMPTY_INDEX_MEDIA_TYPE: &str = OCI_INDEX;

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_SCHEMA_1: &[&str] = &[
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
];

/// Why bytes are no manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Not JSON, or not of the shape.
    #[error("the manifest is not valid: {reason}")]
    Json {
        /// What the reader met, and where.
        reason: String,
    },
    /// `schemaVersion` is not 2.
    #[error("the manifest's schemaVersion is {found}, expected 2")]
    SchemaVersion {
        /// What it is.
        found: String,
    },
    /// The body says another type than the header.
    #[error("the manifest's mediaType is `{body}`, but its Content-Type is `{header}`: expected the same")]
    TypesDiffer {
        /// In the body.
        body: String,
        /// In the header.
        header: String,
    },
    /// A type that is not accepted.
    #[error(
        "manifests of type `{found}` are not accepted: expected an OCI image manifest or index, or a Docker schema 2 manifest or list"
    )]
    Type {
        /// What was named.
        found: String,
    },
    /// Docker schema 1.
    #[error("Docker schema 1 manifests are not accepted: push it again with a client of this decade")]
    SchemaOne,
    /// Neither header nor body nor content say what it is.
    #[error("the manifest has no media type: send a Content-Type, or a mediaType in the manifest")]
    NoType,
    /// A list of another kind of manifest.
    #[error("a manifest of type `{media_type}` must not have `{field}`")]
    Field {
        /// The manifest's type.
        media_type: String,
        /// What does not belong.
        field: &'static str,
    },
    /// Required by the type, and missing.
    #[error("a manifest of type `{media_type}` must have `{field}`")]
    Missing {
        /// The manifest's type.
        media_type: String,
        /// What is missing.
        field: &'static str,
    },
    /// Too many references.
    #[error("the manifest names {found} blobs and manifests, expected at most {MANIFEST_REFERENCES_MAX}")]
    References {
        /// How many it names.
        found: usize,
    },
}

/// What a manifest says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Its media type, which is served as `Content-Type`.
    pub media_type: String,
    /// Blobs that have to be in the repository: config and layers, without repetition. Layers that name a `urls` of
    /// their own are fetched from there, and need not be here.
    pub blobs: Vec<Digest>,
    /// The layers that name a `urls` of their own, as far as their digests are ones that can be here.
    pub elsewhere: Vec<Digest>,
    /// The config of an image, which is one of `blobs`.
    pub config: Option<Digest>,
    /// The layers of an image that have to be here, which are among `blobs`.
    pub layers: Vec<Digest>,
    /// Manifests that an index lists. They may be absent (sparse indexes).
    pub children: Vec<Digest>,
    /// What an index lists, by its media type, as something that is no manifest: caches of build tools list their layers
    /// so. They may be absent, like `children`, among which they are.
    pub listed: Vec<Digest>,
    /// The manifest that this one refers to. It may be absent.
    pub subject: Option<Digest>,
    artifact_type: Option<String>,
    annotations: Option<Map<String, Value>>,
}

/// An entry of a referrers list (image-spec, "Descriptor").
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// The manifest's media type.
    pub media_type: String,
    /// The manifest's digest.
    pub digest: String,
    /// Its size in bytes.
    pub size: u64,
    /// What kind of artifact it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The manifest's annotations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<Map<String, Value>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    #[serde(default)]
    schema_version: Value,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<Content>,
    #[serde(default, deserialize_with = "present")]
    layers: Option<Option<Vec<Content>>>,
    #[serde(default, deserialize_with = "present")]
    manifests: Option<Option<Vec<Content>>>,
    subject: Option<Content>,
    annotations: Option<Map<String, Value>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Content {
    #[serde(default, deserialize_with = "null_is_empty")]
    media_type: String,
    digest: String,
    #[serde(default, deserialize_with = "null_is_empty")]
    urls: Vec<String>,
}

/// Tells `null`, with which writers in Go, as BuildKit is, mean an empty list, from what is not there.
fn present<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Option<Vec<Content>>>, D::Error> {
    Deserialize::deserialize(value).map(Some)
}

fn null_is_empty<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(value: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(value)?.unwrap_or_default())
}

impl Content {
    /// Whether it says that it is something else than a manifest. One without a type says nothing.
    fn is_no_manifest(&self) -> bool {
        let manifests = [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST];
        let media_type = self.media_type.as_str();
        !media_type.is_empty() && !manifests.contains(&media_type) && !DOCKER_SCHEMA_1.contains(&media_type)
    }
}

impl Manifest {
    /// Reads a manifest; `content_type` is the header's value, with or without parameters.
    pub fn parse(bytes: &[u8], content_type: Option<&str>) -> Result<Self, ManifestError> {
        let header = content_type.map(|t| t.split(';').next().unwrap_or(t).trim()).filter(|t| !t.is_empty());
        if header.is_some_and(|t| DOCKER_SCHEMA_1.contains(&t)) {
            return Err(ManifestError::SchemaOne);
        }
        let body: Body =
            serde_json::from_slice(bytes).map_err(|error| ManifestError::Json { reason: error.to_string() })?;
        let media_type = match (&body.media_type, header) {
            (Some(body), Some(header)) if body != header => {
                return Err(ManifestError::TypesDiffer { body: body.clone(), header: header.into() });
            }
            (Some(media_type), _) => media_type.clone(),
            (None, Some(header)) => header.to_owned(),
            (None, None) if matches!(body.manifests, Some(Some(_))) => OCI_INDEX.to_owned(),
            (None, None) if body.config.is_some() => OCI_MANIFEST.to_owned(),
            (None, None) => return Err(ManifestError::NoType),
        };
        let is_index = match media_type.as_str() {
            OCI_MANIFEST | DOCKER_MANIFEST => false,
            OCI_INDEX | DOCKER_LIST => true,
            _ => return Err(ManifestError::Type { found: media_type }),
        };
        if body.schema_version != 2 {
            return Err(ManifestError::SchemaVersion { found: body.schema_version.to_string() });
        }
        check_fields(&body, &media_type, is_index)?;

        let body_layers = body.layers.flatten().unwrap_or_default();
        let manifests = body.manifests.flatten().unwrap_or_default();
        let count = body_layers.len() + manifests.len();
        if count > MANIFEST_REFERENCES_MAX {
            return Err(ManifestError::References { found: count });
        }
        let config_type = body.config.as_ref().map(|c| c.media_type.clone()).filter(|t| !t.is_empty());
        let config = digests(body.config)?.pop();
        let (local_layers, elsewhere): (Vec<_>, Vec<_>) =
            body_layers.into_iter().partition(|layer| layer.urls.is_empty());
        let layers = digests(local_layers)?;
        let beside_config = layers.iter().filter(|layer| Some(*layer) != config.as_ref());
        let listed = manifests.iter().filter(|content| content.is_no_manifest());
        let listed: Vec<Digest> = listed.filter_map(|content| content.digest.parse().ok()).collect();
        Ok(Self {
            listed,
            elsewhere: elsewhere.iter().filter_map(|layer| layer.digest.parse().ok()).collect(),
            blobs: config.iter().chain(beside_config).cloned().collect(),
            config,
            layers,
            children: digests(manifests)?,
            subject: digests(body.subject)?.pop(),
            artifact_type: body.artifact_type.filter(|t| !t.is_empty()).or(config_type),
            annotations: body.annotations,
            media_type,
        })
    }

    /// How a referrers list shows this manifest (distribution-spec, "Listing Referrers").
    pub fn descriptor(&self, digest: &Digest, size_bytes: usize) -> Descriptor {
        Descriptor {
            media_type: self.media_type.clone(),
            digest: digest.to_string(),
            size: size_bytes as u64,
            artifact_type: self.artifact_type.clone(),
            annotations: self.annotations.clone(),
        }
    }
}

/// A body that is a manifest for one reader and an index for another has misled clients before (CVE-2021-41190).
fn check_fields(body: &Body, media_type: &str, is_index: bool) -> Result<(), ManifestError> {
    let media_type = || media_type.to_owned();
    let field = |field| Err(ManifestError::Field { media_type: media_type(), field });
    let missing = |field| Err(ManifestError::Missing { media_type: media_type(), field });
    match is_index {
        true if body.config.is_some() => field("config"),
        true if matches!(body.layers, Some(Some(_))) => field("layers"),
        true if body.manifests.is_none() => missing("manifests"),
        false if matches!(body.manifests, Some(Some(_))) => field("manifests"),
        false if body.config.is_none() => missing("config"),
        false if body.layers.is_none() => missing("layers"),
        _ => Ok(()),
    }
}

fn digests(contents: impl IntoIterator<Item = Content>) -> Result<Vec<Digest>, ManifestError> {
    let mut seen = std::collections::HashSet::new();
    let mut digests = Vec::new();
    for content in contents {
        let digest: Digest = content
            .digest
            .parse()
            .map_err(|error: super::digest::DigestError| ManifestError::Json { reason: error.to_string() })?;
        if seen.insert(digest.clone()) {
            digests.push(digest);
        }
    }
    Ok(digests)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    fn parse(body: &str, content_type: Option<&str>) -> Result<Manifest, String> {
        Manifest::parse(body.replace("AAA", A).as_bytes(), content_type).map_err(|error| error.to_string())
    }

    #[test]
    fn an_image_without_a_media_type_is_told_by_its_config() {
        let manifest = parse(
            r#"{"schemaVersion":2,"config":{"mediaType":"x/y","digest":"AAA"},"layers":[{"digest":"AAA"}]}"#,
            None,
        )
        .unwrap();
        assert_eq!(manifest.media_type, OCI_MANIFEST);
        assert_eq!(manifest.blobs.len(), 1);
        let descriptor = manifest.descriptor(&A.parse().unwrap(), 7);
        assert_eq!(descriptor.artifact_type.as_deref(), Some("x/y"));
    }

    #[test]
    fn a_layer_that_lives_elsewhere_need_not_be_here() {
        let manifest = parse(
            r#"{"schemaVersion":2,"config":{"digest":"AAA"},"layers":[{"digest":"sha512:x","urls":["https://x"]}]}"#,
            Some(DOCKER_MANIFEST),
        );
        assert_eq!(manifest.unwrap().blobs.len(), 1);
    }

    #[test]
    fn null_is_an_empty_list() {
        let image = r#"{"schemaVersion":2,"config":{"mediaType":null,"digest":"AAA","urls":null},"layers":LAYERS}"#;
        let empty = parse(&image.replace("LAYERS", "null"), None).unwrap();
        assert_eq!((empty.layers.len(), empty.blobs.len()), (0, 1));
        let one = parse(&image.replace("LAYERS", r#"[{"digest":"AAA","urls":null}]"#), None).unwrap();
        assert_eq!(one.layers.len(), 1);
        let index = parse(r#"{"schemaVersion":2,"manifests":null,"layers":null}"#, Some(OCI_INDEX)).unwrap();
        assert_eq!(index.children, []);
        let absent = parse(r#"{"schemaVersion":2,"config":{"digest":"AAA"}}"#, None).unwrap_err();
        assert!(absent.ends_with("must have `layers`"), "{absent}");
    }

    #[test]
    fn refusals() {
        let message = |body: &str, header: Option<&str>| parse(body, header).unwrap_err();
        assert_eq!(message("{", None), "the manifest is not valid: EOF while parsing an object at line 1 column 1");
        assert_eq!(
            message(r#"{"schemaVersion":1,"config":{"digest":"AAA"},"layers":[]}"#, None),
            "the manifest's schemaVersion is 1, expected 2"
        );
        assert_eq!(
            message(&format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[]}}"#), Some(OCI_MANIFEST)),
            format!(
                "the manifest's mediaType is `{OCI_INDEX}`, but its Content-Type is `{OCI_MANIFEST}`: expected the same"
            )
        );
        assert_eq!(
            message(r#"{"schemaVersion":2,"config":{"digest":"AAA"},"layers":[],"manifests":[]}"#, Some(OCI_MANIFEST)),
            format!("a manifest of type `{OCI_MANIFEST}` must not have `manifests`")
        );
        assert_eq!(
            message(r#"{"schemaVersion":2,"config":{"digest":"zzz"},"layers":[]}"#, None),
            "the manifest is not valid: `zzz` is not a digest: expected `sha256:<64 hex digits>` or `sha512:<128 hex digits>`"
        );
        assert!(message("{}", None).starts_with("the manifest has no media type"));
        assert!(message("{}", Some("text/plain; charset=utf-8")).starts_with("manifests of type `text/plain` are"));
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes: Vec<u8>, header: Option<String>) {
            let _ = Manifest::parse(&bytes, header.as_deref());
        }
    }
}
