//! Manifests and indexes: made from values, and read from anyone's bytes.

use std::collections::{BTreeMap, HashMap};

use oci_spec::image::{Descriptor, ImageIndex, ImageIndexBuilder, ImageManifest, ImageManifestBuilder, MediaType};
use serde_json::Value;

use super::document::{Document, exact};
use super::{Format, ImageConfig, ImageError, media_type};

/// Either kind of manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Manifest {
    /// One image.
    Image(Box<ImageManifest>),
    /// Images for several platforms.
    Index(Box<ImageIndex>),
}

/// Makes the manifest of an image from its configuration and layers, bottom first.
///
/// The layers' descriptors may be of either family (a base image's are as its registry had them); they are written in that of
/// `format`. Their other fields stay.
///
/// # Errors
/// [`ImageError::AnnotationsNeedOci`].
pub fn manifest(
    config: &Document,
    layers: &[Descriptor],
    annotations: &BTreeMap<String, String>,
    format: Format,
) -> Result<Document, ImageError> {
    let media_type = format.media_type(&MediaType::ImageManifest);
    let layers = layers.iter().map(|layer| {
        let mut layer = layer.clone();
        layer.set_media_type(format.media_type(layer.media_type()));
        layer
    });
    let mut manifest = ImageManifestBuilder::default()
        .schema_version(2_u32)
        .media_type(media_type.clone())
        .config(config.descriptor())
        .layers(layers.collect::<Vec<_>>())
        .build()
        .expect("all that a manifest needs is given");
    manifest.set_annotations(annotated(annotations, format)?);
    Ok(Document::new(exact(&manifest), media_type))
}

/// Makes an index. Each manifest's descriptor carries its platform.
///
/// # Errors
/// [`ImageError::AnnotationsNeedOci`].
pub fn index(
    manifests: &[Descriptor],
    annotations: &BTreeMap<String, String>,
    format: Format,
) -> Result<Document, ImageError> {
    let media_type = format.media_type(&MediaType::ImageIndex);
    let mut index = ImageIndexBuilder::default()
        .schema_version(2_u32)
        .media_type(media_type.clone())
        .manifests(manifests)
        .build()
        .expect("all that an index needs is given");
    index.set_annotations(annotated(annotations, format)?);
    Ok(Document::new(exact(&index), media_type))
}

/// Makes the configuration's bytes: one line, as every builder writes it.
#[must_use]
pub fn config(config: &ImageConfig, format: Format) -> Document {
    let bytes = serde_json::to_vec(config).expect("strings, numbers and maps with string keys have a JSON form");
    Document::new(bytes, format.media_type(&MediaType::ImageConfig))
}

/// Reads a configuration.
///
/// # Errors
/// [`ImageError::Unreadable`].
pub fn parse_config(bytes: &[u8]) -> Result<ImageConfig, ImageError> {
    let config = serde_json::from_slice(bytes).map(|mut value| {
        leave_out_nulls_of_config(&mut value);
        value
    });
    config.and_then(serde_json::from_value).map_err(|error| unreadable("configuration", &error))
}

/// Reads a manifest or an index of either family.
///
/// # Errors
/// Refuses what could be read as both, as two readers would then see two images under one digest.
pub fn parse(bytes: &[u8]) -> Result<Manifest, ImageError> {
    parse_value(serde_json::from_slice(bytes).map_err(|error| unreadable("manifest", &error))?)
}

/// As [`parse`], of bytes that were read as JSON.
///
/// # Errors
/// As [`parse`].
pub fn parse_value(mut value: Value) -> Result<Manifest, ImageError> {
    let has = |field: &str| value.get(field).is_some_and(|value| !value.is_null());
    let ambiguous = |reason: &str| Err(ImageError::Ambiguous { reason: reason.to_owned() });
    if value.get("schemaVersion").and_then(Value::as_u64) == Some(1) {
        return Err(ImageError::UnknownKind {
            found: "a manifest of schema 1, which registries no longer take".to_owned(),
        });
    }
    let declared = value.get("mediaType").and_then(Value::as_str).map(MediaType::from);
    let index = match &declared {
        Some(declared) if media_type::is_index(declared) => true,
        Some(declared) if media_type::is_manifest(declared) => false,
        Some(declared) => return Err(ImageError::UnknownKind { found: format!("{declared}") }),
        // Old OCI images leave it out.
        None if has("manifests") => true,
        None if has("layers") || has("config") => false,
        None => return Err(ImageError::UnknownKind { found: "neither layers nor manifests".to_owned() }),
    };
    if index {
        if has("layers") || has("config") {
            return ambiguous("it is an index, and has layers");
        }
        leave_out_nulls(&mut value, "manifests");
        let index = serde_json::from_value(value).map_err(|error| unreadable("index", &error))?;
        return Ok(Manifest::Index(Box::new(index)));
    }
    if has("manifests") {
        return ambiguous("it is an image's, and lists other manifests");
    }
    leave_out_nulls(&mut value, "layers");
    let manifest = serde_json::from_value(value).map_err(|error| unreadable("manifest", &error))?;
    Ok(Manifest::Image(Box::new(manifest)))
}

/// The layers of an image with their diff ids, bottom first.
///
/// # Errors
/// [`ImageError::LayerCount`] when manifest and configuration do not fit.
pub fn layers<'a>(
    manifest: &'a ImageManifest,
    config: &'a ImageConfig,
) -> Result<Vec<(&'a Descriptor, &'a str)>, ImageError> {
    let (layers, diff_ids) = (manifest.layers(), &config.rootfs.diff_ids);
    if layers.len() != diff_ids.len() {
        return Err(ImageError::LayerCount { layers: layers.len(), diff_ids: diff_ids.len() });
    }
    Ok(layers.iter().zip(diff_ids.iter().map(String::as_str)).collect())
}

fn annotated(
    annotations: &BTreeMap<String, String>,
    format: Format,
) -> Result<Option<HashMap<String, String>>, ImageError> {
    match (annotations.is_empty(), format) {
        (true, _) => Ok(None),
        (false, Format::Docker) => Err(ImageError::AnnotationsNeedOci),
        (false, Format::Oci) => Ok(Some(annotations.clone().into_iter().collect())),
    }
}

/// Takes the `null`s out of a manifest whose descriptors stand in `list`: a writer in Go, as BuildKit is, has them where a
/// list or map is empty, and a reader in Go takes them for that.
fn leave_out_nulls(manifest: &mut Value, list: &str) {
    let Value::Object(fields) = &mut *manifest else { return };
    fields.retain(|_, value| !value.is_null());
    let listed = fields.entry(list).or_insert_with(|| Value::Array(Vec::new()));
    for descriptor in listed.as_array_mut().into_iter().flatten() {
        leave_out_nulls_of(descriptor);
        let Some(platform) = descriptor.get_mut("platform") else { continue };
        leave_out_nulls_of(platform);
        // One that names none says nothing, and spoils no other row.
        let is_one = ["os", "architecture"].iter().all(|name| platform.get(name).is_some_and(Value::is_string));
        if !is_one {
            descriptor.as_object_mut().and_then(|fields| fields.remove("platform"));
        }
    }
    for name in ["config", "subject"] {
        manifest.get_mut(name).into_iter().for_each(leave_out_nulls_of);
    }
    manifest.get_mut("annotations").into_iter().for_each(fill_nulls);
}

fn leave_out_nulls_of_config(config: &mut Value) {
    leave_out_nulls_of(config);
    for row in config.get_mut("history").and_then(Value::as_array_mut).into_iter().flatten() {
        leave_out_nulls_of(row);
    }
    config.get_mut("rootfs").into_iter().for_each(leave_out_nulls_of);
    let Some(runtime) = config.get_mut("config") else { return };
    leave_out_nulls_of(runtime);
    runtime.get_mut("Healthcheck").into_iter().for_each(leave_out_nulls_of);
    runtime.get_mut("Labels").into_iter().for_each(fill_nulls);
}

fn leave_out_nulls_of(value: &mut Value) {
    if let Value::Object(fields) = value {
        fields.retain(|_, value| !value.is_null());
        fields.get_mut("annotations").into_iter().for_each(fill_nulls);
    }
}

/// Of a map of texts a key with `null` is one with an empty text.
fn fill_nulls(texts: &mut Value) {
    for text in texts.as_object_mut().into_iter().flat_map(|texts| texts.values_mut()) {
        if text.is_null() {
            *text = Value::String(String::new());
        }
    }
}

fn unreadable(what: &'static str, error: &serde_json::Error) -> ImageError {
    ImageError::Unreadable { what, reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn descriptor(media_type: &str) -> Descriptor {
        let digest: oci_spec::image::Digest =
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad".parse().unwrap();
        Descriptor::new(MediaType::from(media_type), 3, digest)
    }

    fn empty_config(format: Format) -> Document {
        config(
            &ImageConfig { architecture: "amd64".to_owned(), os: "linux".to_owned(), ..ImageConfig::default() },
            format,
        )
    }

    #[test]
    fn a_manifest_has_exact_bytes() {
        let layers = [descriptor("application/vnd.docker.image.rootfs.diff.tar.gzip")];
        let annotations = BTreeMap::from([
            ("z".to_owned(), "1".to_owned()),
            ("a".to_owned(), "2".to_owned()),
            ("m".to_owned(), "3".to_owned()),
        ]);
        let config = empty_config(Format::Oci);
        assert_eq!(
            String::from_utf8_lossy(&config.bytes),
            r#"{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":[]}}"#
        );
        let document = manifest(&config, &layers, &annotations, Format::Oci).unwrap();
        insta::assert_snapshot!(String::from_utf8_lossy(&document.bytes), @r#"
        {
          "schemaVersion": 2,
          "mediaType": "application/vnd.oci.image.manifest.v1+json",
          "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": "sha256:dc570f145a7f2862c9ef3c30b8d6ae2feaceb0d364e4b2e08e67ae18815427d9",
            "size": 90
          },
          "layers": [
            {
              "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
              "digest": "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
              "size": 3
            }
          ],
          "annotations": {
            "a": "2",
            "m": "3",
            "z": "1"
          }
        }
        "#);
        assert_eq!(document.descriptor().size(), document.bytes.len() as u64);
    }

    #[test]
    fn dockers_types_are_used_throughout() {
        let layers = [descriptor("application/vnd.oci.image.layer.v1.tar+gzip")];
        let document = manifest(&empty_config(Format::Docker), &layers, &BTreeMap::new(), Format::Docker).unwrap();
        let text = String::from_utf8(document.bytes.clone()).unwrap();
        assert!(!text.contains("vnd.oci") && text.contains("rootfs.diff.tar.gzip"), "{text}");
        assert!(matches!(parse(&document.bytes), Ok(Manifest::Image(_))));
        let annotations = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
        let error = manifest(&empty_config(Format::Docker), &[], &annotations, Format::Docker).unwrap_err();
        assert_eq!(error, ImageError::AnnotationsNeedOci);
    }

    #[test]
    fn an_index_keeps_platforms_and_annotations_in_order() {
        let mut one = descriptor("application/vnd.oci.image.manifest.v1+json");
        one.set_platform(Some(serde_json::from_str(r#"{"architecture":"arm","os":"linux","variant":"v7"}"#).unwrap()));
        one.set_annotations(Some((0..9).map(|number| (format!("k{number}"), String::new())).collect()));
        let document = index(&[one.clone()], &BTreeMap::new(), Format::Oci).unwrap();
        for _ in 0..5 {
            assert_eq!(index(&[one.clone()], &BTreeMap::new(), Format::Oci).unwrap(), document);
        }
        let Ok(Manifest::Index(read)) = parse(&document.bytes) else { panic!("no index") };
        assert_eq!(read.manifests()[..], [one]);
    }

    #[test]
    fn kinds_are_told_apart_and_what_is_both_is_refused() {
        let kind = |text: &str| match parse(text.as_bytes()) {
            Ok(Manifest::Image(_)) => "image".to_owned(),
            Ok(Manifest::Index(_)) => "index".to_owned(),
            Err(error) => error.to_string(),
        };
        let config = r#"{"mediaType":"x","digest":"sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad","size":3}"#;
        assert_eq!(kind(&format!(r#"{{"schemaVersion":2,"config":{config},"layers":[]}}"#)), "image");
        assert_eq!(kind(r#"{"schemaVersion":2,"manifests":[]}"#), "index");
        for (text, expected) in [
            (
                r#"{"schemaVersion":2,"manifests":[],"layers":[]}"#,
                "the manifest is ambiguous: it is an index, and has layers",
            ),
            (
                r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","manifests":[]}"#,
                "the manifest is ambiguous: it is an image's, and lists other manifests",
            ),
            (
                r#"{"schemaVersion":1}"#,
                "expected an image manifest or an image index, found a manifest of schema 1, which registries no longer take",
            ),
            (r#"{"mediaType":"a/b"}"#, "expected an image manifest or an image index, found a/b"),
            ("{}", "expected an image manifest or an image index, found neither layers nor manifests"),
            ("<html>", "the image's manifest cannot be read: expected value at line 1 column 1"),
            (r#"{"schemaVersion":2,"layers":[]}"#, "the image's manifest cannot be read: missing field `config`"),
        ] {
            assert_eq!(kind(text), expected);
        }
    }

    #[test]
    fn a_configuration_keeps_what_it_does_not_know() {
        let text = concat!(
            r#"{"architecture":"arm64","os":"linux","config":{"Env":["A=b"],"Cmd":["sh"],"Memory":7},"#,
            r#""rootfs":{"type":"layers","diff_ids":["sha256:aa"]},"history":[{"created_by":"x","empty_layer":true}],"#,
            r#""docker_version":"20"}"#
        );
        let read = parse_config(text.as_bytes()).unwrap();
        assert_eq!(String::from_utf8(config(&read, Format::Oci).bytes).unwrap(), text);
        let error = parse_config(b"[]").unwrap_err();
        assert!(error.to_string().starts_with("the image's configuration cannot be read: "), "{error}");
    }

    #[test]
    fn a_null_is_what_is_empty() {
        let digest = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let config = format!(r#"{{"mediaType":"x","digest":"{digest}","size":3,"annotations":{{"a":null}}}}"#);
        let text = format!(r#"{{"schemaVersion":2,"config":{config},"layers":null,"annotations":{{"k":null}}}}"#);
        let Ok(Manifest::Image(manifest)) = parse(text.as_bytes()) else { panic!("no image") };
        assert!(manifest.layers().is_empty());
        assert_eq!(manifest.annotations().as_ref().unwrap()["k"], "");
        let text = r#"{"mediaType":"application/vnd.oci.image.index.v1+json","schemaVersion":2,"manifests":null}"#;
        let Ok(Manifest::Index(index)) = parse(text.as_bytes()) else { panic!("no index") };
        assert!(index.manifests().is_empty());
        let row = config.replace(r#""x""#, r#""application/vnd.oci.image.manifest.v1+json""#);
        let rows = [r#"{}"#, r#"{"os":"linux"}"#, r#"{"os":"linux","architecture":"arm","variant":null}"#];
        let rows = rows.map(|platform| row.replacen('{', &format!(r#"{{"platform":{platform},"#), 1)).join(",");
        let text = format!(r#"{{"schemaVersion":2,"manifests":[{rows}]}}"#);
        let Ok(Manifest::Index(index)) = parse(text.as_bytes()) else { panic!("no index") };
        let platforms: Vec<_> = index.manifests().iter().map(|row| row.platform().is_some()).collect();
        assert_eq!(platforms, [false, false, true]);
        let text = concat!(
            r#"{"architecture":"amd64","os":"linux","created":null,"rootfs":{"type":"layers","diff_ids":null},"#,
            r#""history":null,"config":{"Healthcheck":{"Test":null,"Retries":2},"OnBuild":null,"Entrypoint":null,"#,
            r#""User":null,"WorkingDir":null,"Labels":{"a":null},"Volumes":{"/v":null}}}"#
        );
        let read = parse_config(text.as_bytes()).unwrap();
        assert_eq!(
            String::from_utf8(super::config(&read, Format::Oci).bytes).unwrap(),
            concat!(
                r#"{"architecture":"amd64","os":"linux","config":{"Healthcheck":{"Retries":2},"Volumes":{"/v":null},"#,
                r#""Labels":{"a":""}},"rootfs":{"type":"layers","diff_ids":[]}}"#
            )
        );
        for text in [r#"{"config":null}"#, r#"{"rootfs":null}"#, r#"{"history":[{"created_by":null}]}"#] {
            parse_config(text.as_bytes()).unwrap();
        }
    }

    #[test]
    fn layers_and_diff_ids_must_fit() {
        let document = manifest(&empty_config(Format::Oci), &[descriptor("x")], &BTreeMap::new(), Format::Oci).unwrap();
        let Ok(Manifest::Image(manifest)) = parse(&document.bytes) else { panic!("no image") };
        let error = layers(&manifest, &ImageConfig::default()).unwrap_err();
        assert_eq!(error.to_string(), "the image's manifest has 1 layers, and its configuration 0");
    }

    proptest! {
        #[test]
        fn any_text_is_a_manifest_or_an_error(text in r#"[{}\[\]":,a-z0-9 ]{0,80}"#) {
            let _ = parse(text.as_bytes());
            let _ = parse_config(text.as_bytes());
        }
    }
}
