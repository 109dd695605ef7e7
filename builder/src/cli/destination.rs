//! `-o` / `--output`, as buildx spells it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use fluyt_client::Reference;

use super::failure::Failure;
use super::form::{self, Target, Wishes};
use super::settings;
use crate::notation::{self, truth as truth_of};
use crate::pipeline::Destination;

/// One `-o`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Output {
    /// As it was typed.
    pub(super) text: String,
    /// Where it goes.
    pub(super) destination: Destination,
    /// Names that it gives to the image.
    pub(super) names: Vec<String>,
    /// What it says of the image's form.
    pub(super) wishes: Wishes,
    /// `source-date-epoch`.
    pub(super) epoch: Option<i64>,
    /// `rewrite-timestamp`.
    pub(super) rewrite_timestamp: Option<bool>,
    /// `registry.insecure`.
    pub(super) insecure: bool,
    /// `type=cacheonly`: steps are run and kept, and no name is given.
    pub(super) is_cache_only: bool,
}

/// Attributes of every output that is an image.
const OF_IMAGES: &[&str] = &[
    "name",
    "compression",
    "compression-level",
    "force-compression",
    "oci-mediatypes",
    "rewrite-timestamp",
    "source-date-epoch",
    "annotation",
    "annotation-manifest",
    "annotation-manifest-descriptor",
];

/// Attributes of buildx that are known here and do nothing: with the one value that is taken, and why not another.
const WITHOUT_MEANING: &[(&str, &str, &str)] = &[
    ("unpack", "false", "the image is not unpacked beside the store; take it to an engine with `--load`"),
    ("store", "true", "what is built stays in the store; `fluyt rmi` takes its name away"),
    ("prefer-nondist-layers", "false", "layers are written with the types that every registry takes"),
    ("attestation-inline", "false", "the image carries no attestations"),
    ("oci-artifact", "false", "the image carries no attestations, whose form this sets"),
    ("platform-split", "false", "a build is for one platform"),
    ("mode", "copy", "nothing is deleted from a folder that holds other files; empty it first"),
];

/// The attributes of a type, beside `type`.
fn attributes(kind: &str) -> Vec<&'static str> {
    let (own, is_image): (&[&str], bool) = match kind {
        "local" => (&["dest", "mode", "platform-split"], false),
        "tar" => (&["dest", "platform-split"], false),
        "oci" | "docker" => (&["dest", "tar", "attestation-inline", "oci-artifact"], true),
        "cacheonly" => (&[], false),
        _ => (
            &[
                "push",
                "push-by-digest",
                "name-canonical",
                "registry.insecure",
                "unpack",
                "store",
                "prefer-nondist-layers",
                "attestation-inline",
                "oci-artifact",
            ],
            true,
        ),
    };
    let images = if is_image { OF_IMAGES } else { &[] };
    own.iter().chain(images).copied().collect()
}

/// The types.
const TYPES: &[&str] = &["local", "tar", "oci", "docker", "image", "registry", "cacheonly"];

/// Reads one `-o` for an image for `platform`; with `pushes` (`--push`), `type=image` is pushed.
///
/// # Errors
/// For a type or attribute that is not known, with the ones that are; and for a destination that is missing.
pub(super) fn parse(text: &str, platform: &str, pushes: bool) -> Result<Output, Failure> {
    let wrong = |problem: String| Failure::usage(format!("`--output {text}`: {problem}"));
    let usage = |problem: String| {
        wrong(problem).hint("write `type=oci|docker|tar|local,dest=PATH`, `type=registry`, or a folder")
    };
    let output = |destination| Output {
        text: text.to_owned(),
        destination,
        names: Vec::new(),
        wishes: Wishes::default(),
        epoch: None,
        rewrite_timestamp: None,
        insecure: false,
        is_cache_only: false,
    };
    // A word without keys is a folder, or `-` for a tar on standard output.
    if !text.contains('=') {
        return Ok(match text {
            "" => return Err(usage("there is no destination".to_owned())),
            "-" => output(Destination::Tar(None)),
            folder => output(Destination::Local(PathBuf::from(folder))),
        });
    }
    let typed = notation::csv(text).map_err(wrong)?;
    let mut fields: BTreeMap<&str, &str> = BTreeMap::new();
    for field in &typed {
        let (key, value) = field.split_once('=').ok_or_else(|| usage(format!("`{field}` is no `key=value`")))?;
        if fields.insert(key.trim(), value).is_some() {
            return Err(wrong(format!("`{key}` is given twice")));
        }
    }
    let kind = fields.remove("type").ok_or_else(|| usage("it has no `type`".to_owned()))?;
    if !TYPES.contains(&kind) {
        let failure = wrong(format!("there is no type `{kind}`"));
        let known = format!("the types are {}", TYPES.join(", "));
        return Err(match notation::nearest(kind, TYPES.iter().copied()) {
            Some(near) => failure.hint(format!("did you mean `{near}`? {known}")),
            None => failure.hint(known),
        });
    }
    let known = attributes(kind);
    for key in fields.keys() {
        if !known.contains(key) && !is_annotation(key, &known) {
            return Err(unknown(&wrong, key, kind, &known));
        }
    }
    // Named alone, an attribute is meant.
    let truth = |key: &str, value: Option<&str>| match value {
        None => Ok(None),
        Some("") => Ok(Some(true)),
        Some(text) => match truth_of(text) {
            Some(truth) => Ok(Some(truth)),
            None => Err(wrong(format!("`{key}={text}`: expected `true` or `false`"))),
        },
    };
    for (key, taken, reason) in WITHOUT_MEANING {
        let same = |value: &str| value == *taken || truth_of(value).is_some_and(|truth| truth.to_string() == *taken);
        if let Some(value) = fields.remove(key).filter(|value| !same(value)) {
            return Err(wrong(format!("`{key}={value}`: {reason}"))
                .hint(format!("leave `{key}` out, or write `{key}={taken}`")));
        }
    }
    let dest = fields.remove("dest").filter(|dest| !dest.is_empty());
    // An archive without a place goes to standard output, as one for `-` does.
    let file = || dest.filter(|dest| *dest != "-").map(PathBuf::from);
    let folder = || match dest {
        Some("-") => Err(usage("a folder cannot go to standard output; use `type=tar`".to_owned())),
        Some(path) => Ok(PathBuf::from(path)),
        None => Err(usage(format!("`type={kind}` needs `dest=PATH`"))),
    };
    let as_tar = truth("tar", fields.remove("tar"))?.unwrap_or(true);
    let push = truth("push", fields.remove("push"))?;
    let mut found = output(match kind {
        "registry" if push == Some(false) => {
            return Err(wrong("`push=false`: a registry is pushed to".to_owned())
                .hint("`type=image` keeps the image in the store"));
        }
        "registry" => Destination::Registry,
        "image" if push.unwrap_or(pushes) => Destination::Registry,
        "image" | "cacheonly" => Destination::Store,
        "oci" if as_tar => Destination::OciTar(file()),
        "oci" => Destination::OciFolder(folder()?),
        "docker" if !as_tar => {
            return Err(wrong("`tar=false`: Docker reads archives".to_owned())
                .hint("`type=oci,tar=false` writes a folder that other tools read"));
        }
        // Without a destination buildx hands it to the daemon.
        "docker" if dest.is_none() => Destination::Load,
        "docker" => Destination::DockerTar(file()),
        "tar" => Destination::Tar(file()),
        _ => Destination::Local(folder()?),
    });
    found.is_cache_only = kind == "cacheonly";
    if let Some(list) = fields.remove("name") {
        found.names = list.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
    }
    found.insecure = truth("registry.insecure", fields.remove("registry.insecure"))?.unwrap_or(false);
    found.rewrite_timestamp = truth("rewrite-timestamp", fields.remove("rewrite-timestamp"))?;
    found.epoch = fields.remove("source-date-epoch").map(settings::seconds).transpose()?;
    found.wishes.compression = fields.remove("compression").map(str::to_owned);
    found.wishes.level = fields
        .remove("compression-level")
        .map(|level| level.parse().map_err(|_| wrong(format!("`compression-level={level}`: expected a number"))))
        .transpose()?;
    for (key, wish) in [
        ("force-compression", &mut found.wishes.force_compression),
        ("oci-mediatypes", &mut found.wishes.oci_mediatypes),
        ("push-by-digest", &mut found.wishes.by_digest),
        ("name-canonical", &mut found.wishes.canonical_name),
    ] {
        *wish = truth(key, fields.remove(key))?;
    }
    if found.wishes.by_digest == Some(true) && found.destination != Destination::Registry {
        return Err(wrong("`push-by-digest=true`: nothing is pushed".to_owned()).hint("add `push=true`"));
    }
    for (key, value) in fields {
        let what = format!("--output {text}");
        // What is left are annotations: `annotation[-DOCUMENT][[PLATFORM]].KEY`.
        let Some((document, name)) = key.split_once('.').filter(|(_, name)| !name.is_empty()) else {
            return Err(wrong(format!("`{key}` names no annotation")).hint(format!("write `{key}.KEY=VALUE`")));
        };
        let document = document.strip_prefix("annotation").unwrap_or(document);
        let document = match document.strip_prefix('-') {
            Some(document) => document.to_owned(),
            None => format!("manifest{document}"),
        };
        match form::target(&document, platform, &what)? {
            Some(Target::Manifest) => drop(found.wishes.annotations.insert(name.to_owned(), value.to_owned())),
            Some(Target::Descriptor) => {
                found.wishes.descriptor_annotations.insert(name.to_owned(), value.to_owned());
            }
            None => {}
        }
    }
    // Before the build, rather than after it.
    found.wishes.form()?;
    Ok(found)
}

fn is_annotation(key: &str, known: &[&str]) -> bool {
    let document = key.split(['.', '[']).next().unwrap_or_default();
    known.contains(&"annotation")
        && (known.contains(&document) || ["annotation-index", "annotation-index-descriptor"].contains(&document))
}

fn unknown(wrong: &dyn Fn(String) -> Failure, key: &str, kind: &str, known: &[&'static str]) -> Failure {
    let failure = match key {
        "dangling-name-prefix" => wrong(format!("`{key}`: an image without a name stays without one")),
        "context" => wrong(format!("`{key}`: docker's contexts are not read"))
            .hint("set DOCKER_HOST or DOCKER_CONTEXT, which the `docker` program reads"),
        _ => wrong(format!("`{key}` is no attribute of `type={kind}`")),
    };
    let list = format!("the attributes of `type={kind}` are {}", known.join(", "));
    match notation::nearest(key, known.iter().copied()) {
        Some(near) => failure.hint(format!("did you mean `{near}`? {list}")),
        None => failure.hint(list),
    }
}

/// The names as references; a name to push by digest must have no tag.
///
/// # Errors
/// For a name that is none, or that has what it must not have.
pub(super) fn names(texts: &[String], by_digest: bool) -> Result<Vec<Reference>, Failure> {
    let mut names: Vec<Reference> = Vec::new();
    for text in texts {
        let reference = settings::reference(text)?;
        if reference.digest().is_some() {
            return Err(Failure::usage(format!("`{text}` has a digest, which a build cannot choose"))
                .hint("name the image with a tag"));
        }
        let has_tag = text.rsplit('/').next().is_some_and(|last| last.contains(':'));
        if by_digest && has_tag {
            return Err(Failure::usage(format!("`push-by-digest=true`: `{text}` has a tag"))
                .hint(format!("write `{}`, or leave out `push-by-digest`", reference.name())));
        }
        if !names.contains(&reference) {
            names.push(reference);
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        match parse(text, "linux/amd64", false) {
            Ok(found) => format!("{:?} {}", found.destination, found.names.join(" ")).trim_end().to_owned(),
            Err(failure) => failure.message,
        }
    }

    #[test]
    fn outputs_as_buildx_writes_them() {
        for (text, expected) in [
            ("out", r#"Local("out")"#),
            ("-", "Tar(None)"),
            ("type=local,dest=out", r#"Local("out")"#),
            ("type=tar,dest=-", "Tar(None)"),
            ("type=oci,dest=a.tar", r#"OciTar(Some("a.tar"))"#),
            ("type=oci,dest=a,tar=false", r#"OciFolder("a")"#),
            ("type=oci,dest=a,tar=F", r#"OciFolder("a")"#),
            ("type=image,push=True", "Registry"),
            ("type=docker,dest=a.tar", r#"DockerTar(Some("a.tar"))"#),
            ("type=docker", "Load"),
            ("type=registry", "Registry"),
            ("type=image,push=true", "Registry"),
            (r#"type=image,"name=a:1,b""#, "Store a:1 b"),
            ("type=image,push=true,name=a,push-by-digest=true,name-canonical=true,unpack=false", "Registry a"),
            ("type=oci", "OciTar(None)"),
            ("type=tar,dest=", "Tar(None)"),
            ("type=oci,tar=false", "`--output type=oci,tar=false`: `type=oci` needs `dest=PATH`"),
            ("type=local", "`--output type=local`: `type=local` needs `dest=PATH`"),
            (
                "type=local,dest=-",
                "`--output type=local,dest=-`: a folder cannot go to standard output; use `type=tar`",
            ),
            ("type=cacheonly", "Store"),
            ("type=image,push=T,unpack=0", "Registry"),
            ("type=image,push=", "Registry"),
            ("type=zip,dest=a", "`--output type=zip,dest=a`: there is no type `zip`"),
            ("type=oci,dest=a,wat=1", "`--output type=oci,dest=a,wat=1`: `wat` is no attribute of `type=oci`"),
            (
                "type=tar,dest=a,compression=zstd",
                "`--output type=tar,dest=a,compression=zstd`: `compression` is no attribute of `type=tar`",
            ),
            ("dest=a", "`--output dest=a`: it has no `type`"),
            ("type=image,push=maybe", "`--output type=image,push=maybe`: `push=maybe`: expected `true` or `false`"),
            ("type=registry,push=false", "`--output type=registry,push=false`: `push=false`: a registry is pushed to"),
            (
                "type=image,push-by-digest=true",
                "`--output type=image,push-by-digest=true`: `push-by-digest=true`: nothing is pushed",
            ),
            ("type=registry,compression=estargz", "compression `estargz` is not written by fluyt"),
            (
                "type=registry,compression-level=x",
                "`--output type=registry,compression-level=x`: `compression-level=x`: expected a number",
            ),
            (
                "type=registry,annotation-index.a=b",
                "`--output type=registry,annotation-index.a=b`: an image for one platform has no index to annotate",
            ),
            ("type=registry,annotation=b", "`--output type=registry,annotation=b`: `annotation` names no annotation"),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_described_is_pushed() {
        let pushed = |text: &str| parse(text, "linux/amd64", true).unwrap().destination;
        assert_eq!(pushed("type=image,name=a,push-by-digest=true"), Destination::Registry);
        assert_eq!(pushed("type=image,push=false"), Destination::Store);
        assert_eq!(pushed("type=oci,dest=a"), Destination::OciTar(Some("a".into())));
    }

    #[test]
    fn what_is_misspelt_is_told_with_what_is_meant() {
        let hint = |text: &str| parse(text, "linux/amd64", false).unwrap_err().hints.join(" ");
        assert!(hint("type=registry,compresion=zstd").starts_with("did you mean `compression`? the attributes of"));
        assert!(hint("type=regsitry").starts_with("did you mean `registry`? the types are local, tar"));
        assert!(hint("type=local,dest=a,mode=delete").contains("mode=copy"));
        assert!(hint("type=image,unpack=true").contains("unpack=false"));
    }

    #[test]
    fn the_form_is_read() {
        let text = "type=registry,compression=zstd,compression-level=7,force-compression=true,oci-mediatypes=true,\
                    annotation.a.b=c,annotation-manifest[linux/amd64].d=e,annotation[linux/arm64].no=x,\
                    annotation-manifest-descriptor.f=g,source-date-epoch=5,rewrite-timestamp=true,registry.insecure=true";
        let found = parse(text, "linux/amd64", false).unwrap();
        assert_eq!(found.wishes.compression.as_deref(), Some("zstd"));
        assert_eq!((found.wishes.level, found.wishes.force_compression), (Some(7), Some(true)));
        assert_eq!((found.epoch, found.rewrite_timestamp, found.insecure), (Some(5), Some(true), true));
        let shown = format!("{:?} {:?}", found.wishes.annotations, found.wishes.descriptor_annotations);
        assert_eq!(shown, r#"{"a.b": "c", "d": "e"} {"f": "g"}"#);
    }

    #[test]
    fn a_name_to_push_by_digest_has_no_tag() {
        let text = |texts: &[&str], by_digest| {
            let texts: Vec<String> = texts.iter().map(ToString::to_string).collect();
            names(&texts, by_digest).map(|names| names.len()).map_err(|failure| failure.message)
        };
        assert_eq!(text(&["localhost:5000/a", "localhost:5000/a"], true), Ok(1));
        assert_eq!(text(&["a:1", "a:2"], false), Ok(2));
        assert_eq!(text(&["h:1/a:1"], true), Err("`push-by-digest=true`: `h:1/a:1` has a tag".to_owned()));
    }
}
