//! The form of an image as its attributes and flags spell it: compression, media types, annotations.

use std::collections::BTreeMap;

use super::failure::Failure;
use crate::image::Format;
use crate::layer::Compression;
use crate::pipeline::ImageForm;

/// What one output, or the flags, say of the form; what they leave open is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wishes {
    /// `gzip`, `zstd`...
    pub(super) compression: Option<String>,
    /// The level, not yet held against the kind.
    pub(super) level: Option<i32>,
    pub(super) force_compression: Option<bool>,
    pub(super) oci_mediatypes: Option<bool>,
    pub(super) by_digest: Option<bool>,
    pub(super) canonical_name: Option<bool>,
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) descriptor_annotations: BTreeMap<String, String>,
}

impl Wishes {
    /// What is left open here is as `others` say.
    pub(super) fn or(mut self, others: &Self) -> Self {
        if self.compression.is_none() {
            self.compression.clone_from(&others.compression);
            self.level = self.level.or(others.level);
        }
        self.force_compression = self.force_compression.or(others.force_compression);
        self.oci_mediatypes = self.oci_mediatypes.or(others.oci_mediatypes);
        self.by_digest = self.by_digest.or(others.by_digest);
        self.canonical_name = self.canonical_name.or(others.canonical_name);
        for (mine, theirs) in [
            (&mut self.annotations, &others.annotations),
            (&mut self.descriptor_annotations, &others.descriptor_annotations),
        ] {
            for (key, value) in theirs {
                mine.entry(key.clone()).or_insert_with(|| value.clone());
            }
        }
        self
    }

    /// The form that these wishes give.
    ///
    /// # Errors
    /// For what cannot be, with the words that wished for it.
    pub(super) fn form(&self) -> Result<ImageForm, Failure> {
        let format = if self.oci_mediatypes == Some(false) { Format::Docker } else { Format::Oci };
        if format == Format::Docker && !self.annotations.is_empty() {
            return Err(Failure::usage("`oci-mediatypes=false`: Docker's manifests cannot carry annotations")
                .hint("leave out `oci-mediatypes=false`, or the annotations"));
        }
        Ok(ImageForm {
            compression: compression(self.compression.as_deref(), self.level)?,
            force_compression: self.force_compression.unwrap_or(false),
            format,
            annotations: self.annotations.clone(),
            descriptor_annotations: self.descriptor_annotations.clone(),
            by_digest: self.by_digest.unwrap_or(false),
            canonical_name: self.canonical_name.unwrap_or(false),
        })
    }
}

/// The kinds that can be written.
pub(super) const KINDS: &[&str] = &["gzip", "gzip-members", "zstd", "uncompressed"];

/// A kind of compression and a level as the user wrote them.
fn compression(kind: Option<&str>, level: Option<i32>) -> Result<Compression, Failure> {
    let kind = kind.unwrap_or("gzip");
    let known = || format!("the kinds are {}", KINDS.join(", "));
    let within = |least: i32, most: i32| match level {
        Some(level) if !(least..=most).contains(&level) => {
            Err(Failure::usage(format!("compression level {level}: {kind} has the levels {least} to {most}")))
        }
        level => Ok(level),
    };
    let deflate = |default: u32| Ok::<u32, Failure>(within(0, 9)?.map_or(default, i32::unsigned_abs));
    Ok(match kind {
        "gzip" => Compression::Gzip { level: deflate(Compression::GZIP_LEVEL)? },
        "gzip-members" => Compression::GzipMembers { level: deflate(Compression::GZIP_LEVEL)? },
        // 0 is zstd's own word for its default.
        "zstd" => {
            Compression::Zstd { level: within(0, 22)?.filter(|level| *level != 0).unwrap_or(Compression::ZSTD_LEVEL) }
        }
        "uncompressed" => match level {
            None => Compression::Uncompressed,
            Some(level) => {
                return Err(Failure::usage(format!("compression level {level}: what is uncompressed has no level"))
                    .hint("leave the level out"));
            }
        },
        "estargz" => {
            return Err(Failure::usage("compression `estargz` is not written by fluyt").hint(format!(
                "take `gzip`, which every reader takes, or `zstd`, which is smaller and faster; {}",
                known()
            )));
        }
        other => {
            let failure = Failure::usage(format!("there is no compression `{other}`"));
            return Err(match crate::notation::nearest(other, KINDS.iter().copied()) {
                Some(near) => failure.hint(format!("did you mean `{near}`? {}", known())),
                None => failure.hint(known()),
            });
        }
    })
}

/// Which document an annotation goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Manifest,
    Descriptor,
}

/// Reads the document's name before an annotation: `manifest`, `manifest-descriptor`, each perhaps with `[os/arch]`.
///
/// # Errors
/// For an index, as an image for one platform has none, and for what is no document.
pub(super) fn target(text: &str, platform: &str, what: &str) -> Result<Option<Target>, Failure> {
    let (name, only) = match text.strip_suffix(']').and_then(|text| text.split_once('[')) {
        Some((name, only)) => (name, Some(only)),
        None => (text, None),
    };
    let target = match name {
        "manifest" => Target::Manifest,
        "manifest-descriptor" => Target::Descriptor,
        "index" | "index-descriptor" => {
            return Err(Failure::usage(format!("`{what}`: an image for one platform has no index to annotate"))
                .hint("annotate the `manifest` or the `manifest-descriptor`"));
        }
        other => {
            return Err(Failure::usage(format!("`{what}`: `{other}` is nothing that can be annotated")).hint(
                "write `manifest:KEY=VALUE` or `manifest-descriptor:KEY=VALUE`; without a word it is the manifest",
            ));
        }
    };
    // An annotation for another platform is one for an image that is not built here.
    Ok(only.is_none_or(|only| only == platform).then_some(target))
}

/// Adds a typed `--annotation [TYPE[PLATFORM],...:]KEY=VALUE` to `wishes`.
///
/// # Errors
/// For a key or a value that is missing, and those of [`target`].
pub(super) fn annotate(text: &str, platform: &str, wishes: &mut Wishes) -> Result<(), Failure> {
    let what = format!("--annotation {text}");
    let wrong = || Failure::usage(format!("`{what}` is no annotation")).hint("write `--annotation KEY=VALUE`");
    let (left, value) = text.split_once('=').ok_or_else(wrong)?;
    let (targets, key) = match left.split_once(':') {
        Some((targets, key)) => (targets.split(',').collect(), key),
        None => (vec!["manifest"], left),
    };
    if key.is_empty() {
        return Err(wrong());
    }
    for one in targets {
        match target(one.trim(), platform, &what)? {
            Some(Target::Manifest) => drop(wishes.annotations.insert(key.to_owned(), value.to_owned())),
            Some(Target::Descriptor) => drop(wishes.descriptor_annotations.insert(key.to_owned(), value.to_owned())),
            None => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(kind: &str, level: Option<i32>) -> String {
        match compression(Some(kind), level) {
            Ok(found) => format!("{found:?}"),
            Err(failure) => format!("{} | {}", failure.message, failure.hints.join(" ")),
        }
    }

    #[test]
    fn kinds_and_levels() {
        assert_eq!(kind("gzip", None), "Gzip { level: 2 }");
        assert_eq!(kind("gzip", Some(0)), "Gzip { level: 0 }");
        assert_eq!(kind("gzip-members", Some(9)), "GzipMembers { level: 9 }");
        assert_eq!(kind("zstd", Some(0)), "Zstd { level: 3 }");
        assert_eq!(kind("zstd", Some(22)), "Zstd { level: 22 }");
        assert_eq!(kind("uncompressed", None), "Uncompressed");
        assert_eq!(kind("gzip", Some(10)), "compression level 10: gzip has the levels 0 to 9 | ");
        assert_eq!(kind("zstd", Some(-1)), "compression level -1: zstd has the levels 0 to 22 | ");
        assert!(kind("uncompressed", Some(1)).contains("has no level"));
        assert!(kind("estargz", None).starts_with("compression `estargz` is not written by fluyt | take `gzip`"));
        assert!(
            kind("zst", None).contains("did you mean `zstd`? the kinds are gzip, gzip-members, zstd, uncompressed")
        );
    }

    #[test]
    fn annotations_go_where_they_say() {
        let annotated = |text: &str| {
            let mut wishes = Wishes::default();
            match annotate(text, "linux/amd64", &mut wishes) {
                Ok(()) => format!("{:?} {:?}", wishes.annotations, wishes.descriptor_annotations),
                Err(failure) => failure.message,
            }
        };
        for (text, expected) in [
            ("a.b=c=d", r#"{"a.b": "c=d"} {}"#),
            ("manifest:a=b:c", r#"{"a": "b:c"} {}"#),
            ("a=b:c", r#"{"a": "b:c"} {}"#),
            ("manifest,manifest-descriptor[linux/amd64]:a=b", r#"{"a": "b"} {"a": "b"}"#),
            ("manifest[linux/arm64]:a=b", "{} {}"),
            ("index:a=b", "`--annotation index:a=b`: an image for one platform has no index to annotate"),
            ("image:a=b", "`--annotation image:a=b`: `image` is nothing that can be annotated"),
            ("a", "`--annotation a` is no annotation"),
            ("=b", "`--annotation =b` is no annotation"),
        ] {
            assert_eq!(annotated(text), expected, "{text}");
        }
    }

    #[test]
    fn dockers_documents_take_no_annotations() {
        let wishes = Wishes {
            oci_mediatypes: Some(false),
            annotations: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
            ..Wishes::default()
        };
        assert!(wishes.form().unwrap_err().message.contains("cannot carry annotations"));
    }

    #[test]
    fn a_level_goes_with_its_kind() {
        let flags = Wishes { compression: Some("zstd".to_owned()), level: Some(19), ..Wishes::default() };
        let gzip = Wishes { compression: Some("gzip".to_owned()), ..Wishes::default() };
        assert_eq!(gzip.or(&flags).form().unwrap().compression, Compression::Gzip { level: 2 });
        assert_eq!(Wishes::default().or(&flags).form().unwrap().compression, Compression::Zstd { level: 19 });
    }
}
