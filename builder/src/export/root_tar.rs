//! An image's root file system as one tar (`type=tar`).

use std::io::Write;

use oci_spec::image::Descriptor;

use super::ExportError;
use super::root::Root;
use crate::blob::Store;
use crate::layer::{TarWriter, Times};

/// Writes the root file system of `image`, which must be for one platform, into `sink`.
///
/// # Errors
/// [`ExportError::SeveralImages`].
pub fn root_tar(store: &Store, image: &Descriptor, times: Times, sink: &mut dyn Write) -> Result<(), ExportError> {
    let root = Root::open(store, image, "a tar of its files")?;
    let mut tar = TarWriter::new(sink);
    root.visit(times, &mut |entry, content| Ok(tar.append(entry, content)?))?;
    tar.finish()?.flush().map_err(ExportError::Write)
}
