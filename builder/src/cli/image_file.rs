//! An image that lies in a folder or an archive: an OCI image layout (image specification, image-layout.md), as `-o type=oci` and
//! `type=docker`, skopeo and `docker save` write them.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use oci_spec::image::{Descriptor, Digest};
use serde_json::Value;

use super::failure::{Blame, Failure};
use crate::blob::Hasher;
use crate::image::{DOCUMENT_SIZE_MAX_BYTES, Manifest, manifest};

/// Annotations of an index that hold an image's name: containerd's whole one, and the specification's.
const NAMES: [&str; 2] = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];

/// A folder or an archive with an image.
#[derive(Debug)]
pub(super) struct ImageFile {
    path: PathBuf,
    is_folder: bool,
}

impl ImageFile {
    /// What lies at a path, if that is a file, or a folder with an index.
    pub(super) fn at(path: &Path) -> Option<Self> {
        let is_folder = path.join("index.json").is_file();
        (is_folder || path.is_file()).then(|| Self { path: path.to_owned(), is_folder })
    }

    /// The image that is in it. An index of several platforms is one.
    pub(super) fn image(&self) -> Result<Descriptor, Failure> {
        let index = self.read("index.json")?.ok_or_else(|| {
            self.wrong("it has no `index.json`")
                .hint("`skopeo inspect docker-archive:FILE` looks into archives of Docker before version 25")
        })?;
        let index = match manifest::parse(&index).map_err(|error| self.wrong("`index.json`").caused_by(&error))? {
            Manifest::Index(index) => index,
            Manifest::Image(_) => return Err(self.wrong("`index.json` is no index")),
        };
        match index.manifests().as_slice() {
            [one] => Ok(one.clone()),
            several => {
                let names: Vec<&str> =
                    several.iter().map(|row| name(row).unwrap_or_else(|| row.digest().as_ref())).collect();
                Err(self
                    .wrong(&format!("it has {} images: {}", several.len(), names.join(", ")))
                    .hint("`skopeo inspect oci:FOLDER:NAME` and `oci-archive:FILE:NAME` look at one of several"))
            }
        }
    }

    /// A document, seen to be what its digest says.
    pub(super) fn json(&self, digest: &Digest) -> Result<Value, Failure> {
        let place = format!("blobs/{}/{}", digest.algorithm(), digest.digest());
        let bytes = self.read(&place)?.ok_or_else(|| self.wrong(&format!("it has no `{place}`")))?;
        let mut hasher =
            Hasher::for_digest(digest).ok_or_else(|| self.wrong(&format!("{digest} cannot be checked")))?;
        hasher.update(&bytes);
        let found = hasher.finish();
        if found != *digest {
            return Err(self.wrong(&format!("`{place}` is damaged: its bytes hash to {found}")));
        }
        serde_json::from_slice(&bytes).map_err(|error| self.wrong(&format!("`{place}` is no JSON")).caused_by(&error))
    }

    fn wrong(&self, problem: &str) -> Failure {
        Failure::new(Blame::User, format!("{} cannot be looked at as an image: {problem}", self.path.display()))
    }

    /// A file of the layout; `None` when there is none of that name.
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, Failure> {
        let failed = |error: io::Error| {
            let failure = self.wrong(&format!("reading `{name}`")).caused_by(&error);
            if self.is_folder { failure } else { failure.hint("an archive is a tar that is not compressed as a whole") }
        };
        if !self.is_folder {
            return self.in_archive(name).map_err(failed);
        }
        match File::open(self.path.join(name)) {
            Ok(file) => limited(file).map(Some).map_err(failed),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    fn in_archive(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let mut archive = tar::Archive::new(File::open(&self.path)?);
        for entry in archive.entries_with_seek()? {
            let entry = entry?;
            // Some begin each name with `./`.
            if entry.path()?.components().filter(|part| *part != Component::CurDir).eq(Path::new(name).components()) {
                return limited(entry).map(Some);
            }
        }
        Ok(None)
    }
}

/// The name of an image in an index, where it has one.
pub(super) fn name(row: &Descriptor) -> Option<&str> {
    let annotations = row.annotations().as_ref()?;
    NAMES.iter().find_map(|name| annotations.get(*name)).map(String::as_str)
}

fn limited(source: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(DOCUMENT_SIZE_MAX_BYTES + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > DOCUMENT_SIZE_MAX_BYTES {
        true => Err(io::Error::other(format!("it is larger than {DOCUMENT_SIZE_MAX_BYTES} bytes"))),
        false => Ok(bytes),
    }
}
