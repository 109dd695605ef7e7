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
use crate::image::{DOCUMENT_SIZE_MAX_BYTES, Manifest, Platform, select};

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
    let mut digest = match found.digest {
        Some(digest) => digest.parse().map_err(|_| layout.wrong(format!("`{digest}` is no digest")))?,
        None => layout.named(found.tag, platform)?,
    };
    for _ in 0..DEPTH_MAX {
        let bytes = layout.document(&digest)?;
        match parse(&bytes).map_err(|error| layout.wrong(format!("{digest}: {error}")))? {
            Manifest::Index(index) => {
                digest = layout.chosen(&index, platform)?;
            }
            Manifest::Image(manifest) => {
                let config = layout.document(manifest.config().digest())?;
                let config = parse_config(&config).map_err(|error| layout.wrong(error.to_string()))?;
                layers(&manifest, &config).map_err(|error| layout.wrong(error.to_string()))?;
                for layer in manifest.layers() {
                    layout.take(layer.digest())?;
                }
                let layers = super::bases::layers(&manifest, &config, None);
                return Ok(BaseImage { reference: None, manifest_digest: digest, config, layers });
            }
        }
    }
    Err(layout.wrong(format!("an index names an index, more than {DEPTH_MAX} deep")))
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
    fn named(&self, tag: Option<&str>, platform: &Platform) -> Result<Digest, BuildError> {
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
            (Some(row), _, _) | (None, None, [row]) => Ok(row.digest().clone()),
            (None, None, rows) if !rows.is_empty() && rows.iter().all(|row| name(row).is_none()) => {
                self.chosen(&index, platform)
            }
            (None, _, rows) => {
                let names: Vec<String> = rows.iter().filter_map(name).collect();
                Err(self.wrong(format!("it has no image `{wanted}`; it has {}", list(&names))))
            }
        }
    }

    fn chosen(&self, index: &ImageIndex, platform: &Platform) -> Result<Digest, BuildError> {
        let chosen = select(index, platform);
        let chosen = chosen.ok_or_else(|| self.wrong(format!("its index has no image for {platform}")))?;
        Ok(chosen.digest().clone())
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
