//! Base images that lie in an OCI layout on this machine: `--build-context NAME=oci-layout://FOLDER[:TAG][@DIGEST]`.
//!
//! The image's blobs are taken into the store, each checked on the way, so that everything above sees an image like any
//! other.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use oci_spec::image::{Descriptor, Digest, ImageIndex};

use super::BuildError;
use super::places::unusable;
use crate::blob::Store;
use crate::execute::BaseImage;
use crate::image::manifest::{layers, parse, parse_config};
use crate::image::{DOCUMENT_SIZE_MAX_BYTES, ImageConfig, Manifest, Platform, select, without_platform};

/// How the address of a layout begins.
pub(super) const SCHEME: &str = "oci-layout://";

/// Annotation of a layout's index that holds an image's tag.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Indexes that an index may name before it is one too many.
const DEPTH_MAX: usize = 4;

/// What the address of a layout says.
#[derive(Debug, PartialEq, Eq)]
struct Address<'a> {
    folder: PathBuf,
    tag: Option<&'a str>,
    digest: Option<&'a str>,
}

impl<'a> Address<'a> {
    fn parse(text: &'a str) -> Self {
        let rest = text.strip_prefix(SCHEME).unwrap_or(text);
        let (rest, digest) = rest.split_once('@').map_or((rest, None), |(rest, digest)| (rest, Some(digest)));
        // A tag holds no slash, and a folder's name may hold a colon.
        let (folder, tag) = match rest.rsplit_once(':') {
            Some((folder, tag)) if !tag.contains('/') && !Path::new(rest).is_dir() => (folder, Some(tag)),
            _ => (rest, None),
        };
        Self { folder: PathBuf::from(folder), tag, digest }
    }
}

/// Brings the image into the store.
pub(super) fn resolve(address: &str, platform: &Platform, store: &Store) -> Result<BaseImage, BuildError> {
    let found = Address::parse(address);
    let layout = Layout { folder: &found.folder, address, store };
    let mut candidates = match found.digest {
        Some(digest) => {
            let digest = digest.parse().map_err(|_| layout.wrong(format!("`{digest}` is no digest")))?;
            vec![Candidate { digest, is_for_it: true, depth: 0 }]
        }
        None => layout.named(found.tag, platform)?,
    };
    while let Some(Candidate { digest, is_for_it, depth }) = candidates.pop() {
        let bytes = layout.document(&digest)?;
        match parse(&bytes).map_err(|error| layout.wrong(format!("{digest}: {error}")))? {
            Manifest::Index(_) if depth == DEPTH_MAX => {
                return Err(layout.wrong(format!("an index names an index, more than {DEPTH_MAX} deep")));
            }
            Manifest::Index(index) => candidates.extend(in_index(&index, platform, depth + 1)),
            Manifest::Image(manifest) => {
                let config = parse_config(&layout.document(manifest.config().digest())?);
                let fits = |config: &ImageConfig| config.platform().is_some_and(|it| platform.accepts(&it).is_some());
                // Other things than images stand in indexes too.
                if !is_for_it && !config.as_ref().is_ok_and(fits) {
                    continue;
                }
                let config = config.map_err(|error| layout.wrong(error.to_string()))?;
                layers(&manifest, &config).map_err(|error| layout.wrong(error.to_string()))?;
                for layer in manifest.layers() {
                    layout.take(layer.digest())?;
                }
                let layers = super::bases::layers(&manifest, &config, None);
                return Ok(BaseImage { reference: None, manifest_digest: digest, config, layers });
            }
        }
    }
    Err(layout.wrong(format!("its index has no image for {platform}")))
}

/// What may be the image.
struct Candidate {
    digest: Digest,
    /// Whether it is meant, or said to be for the platform; else its configuration tells.
    is_for_it: bool,
    /// How many indexes it is in.
    depth: usize,
}

/// What may be the image in an index, the first last.
fn in_index(index: &ImageIndex, platform: &Platform, depth: usize) -> Vec<Candidate> {
    let candidate = |is_for_it| move |row: &Descriptor| Candidate { digest: row.digest().clone(), is_for_it, depth };
    match select(index, platform) {
        Some(row) => vec![candidate(true)(row)],
        None => without_platform(index).into_iter().rev().map(candidate(false)).collect(),
    }
}

struct Layout<'a> {
    folder: &'a Path,
    address: &'a str,
    store: &'a Store,
}

impl Layout<'_> {
    fn wrong(&self, problem: String) -> BuildError {
        unusable(
            format!("cannot use `{}`: {problem}", self.address),
            "name a folder that is an OCI layout, as `fluyt build -o type=oci,tar=false,dest=FOLDER` writes it",
        )
    }

    /// The image of a tag; without one the image `latest`, or the only one.
    fn named(&self, tag: Option<&str>, platform: &Platform) -> Result<Vec<Candidate>, BuildError> {
        let path = self.folder.join("index.json");
        let file = File::open(&path).map_err(|error| self.wrong(format!("{}: {error}", path.display())))?;
        let mut bytes = Vec::new();
        io::copy(&mut io::Read::take(file, DOCUMENT_SIZE_MAX_BYTES), &mut bytes)
            .map_err(|error| self.wrong(format!("{}: {error}", path.display())))?;
        let index = parse(&bytes).map_err(|error| self.wrong(format!("{}: {error}", path.display())))?;
        let Manifest::Index(index) = index else { return Err(self.wrong(format!("{} is no index", path.display()))) };
        let name = |row: &Descriptor| row.annotations().as_ref().and_then(|all| all.get(REF_NAME)).cloned();
        let wanted = tag.unwrap_or("latest");
        let found = index.manifests().iter().find(|row| name(row).as_deref() == Some(wanted));
        match (found, tag, index.manifests().as_slice()) {
            (Some(row), _, _) | (None, None, [row]) => {
                Ok(vec![Candidate { digest: row.digest().clone(), is_for_it: true, depth: 0 }])
            }
            (None, None, rows) if !rows.is_empty() && rows.iter().all(|row| name(row).is_none()) => {
                Ok(in_index(&index, platform, 0))
            }
            (None, _, rows) => {
                let names: Vec<String> = rows.iter().filter_map(name).collect();
                Err(self.wrong(format!("it has no image `{wanted}`; it has {}", list(&names))))
            }
        }
    }

    fn document(&self, digest: &Digest) -> Result<Vec<u8>, BuildError> {
        self.take(digest)?;
        Ok(self.store.read(digest, DOCUMENT_SIZE_MAX_BYTES)?)
    }

    /// Brings a blob into the store.
    fn take(&self, digest: &Digest) -> Result<(), BuildError> {
        if self.store.contains(digest) {
            return Ok(());
        }
        let path = self.folder.join("blobs").join(digest.algorithm().to_string()).join(digest.digest());
        let mut file = File::open(&path).map_err(|error| self.wrong(format!("{}: {error}", path.display())))?;
        let mut writer = self.store.writer_for(digest)?;
        io::copy(&mut file, &mut writer).map_err(|error| writer.failure(error))?;
        writer.commit(Some(digest))?;
        Ok(())
    }
}

fn list(names: &[String]) -> String {
    match names {
        [] => "none with a name".to_owned(),
        names => format!("`{}`", names.join("`, `")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_folder_tag_and_digest() {
        for (text, folder, tag, digest) in [
            ("oci-layout:///a/b", "/a/b", None, None),
            ("oci-layout://a:v1", "a", Some("v1"), None),
            ("oci-layout://a@sha256:0", "a", None, Some("sha256:0")),
            ("oci-layout://a:v1@sha256:0", "a", Some("v1"), Some("sha256:0")),
            ("oci-layout://a:b/c", "a:b/c", None, None),
        ] {
            assert_eq!(Address::parse(text), Address { folder: PathBuf::from(folder), tag, digest }, "{text}");
        }
    }
}
