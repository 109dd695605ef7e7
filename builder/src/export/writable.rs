//! What can be known of a destination before there is anything to write: nothing is made, opened or changed for it.

use std::fs;
use std::io;
use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD, accessat};

use super::ExportError;

/// Whether [`super::write_file`] can be expected to write this file.
///
/// # Errors
/// When it is a folder, when there is no folder to hold it, and when that may not be written.
pub fn check_file(path: &Path) -> Result<(), ExportError> {
    match fs::metadata(path) {
        Ok(there) if there.is_dir() => {
            Err(ExportError::WrongKind { path: path.to_owned(), expected: "a file", found: "a folder" })
        }
        // A pipe or a device is written to as it is.
        Ok(there) if !there.is_file() => may_write(path, Access::WRITE_OK),
        // The target of a link is replaced, not the link.
        Ok(_) => check_beside(&fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())),
        Err(_) => check_beside(path),
    }
}

/// Whether [`super::local()`] can be expected to write into this folder, or to make it.
///
/// # Errors
/// When it is a file, and when it, or the folder that it is to be made in, may not be written.
pub fn check_folder(path: &Path) -> Result<(), ExportError> {
    // Folders above that are not there are made too.
    let above = path.ancestors().map(|folder| if folder.as_os_str().is_empty() { Path::new(".") } else { folder });
    for folder in above {
        if is_folder(folder)? {
            return may_write(folder, Access::WRITE_OK | Access::EXEC_OK);
        }
    }
    Ok(())
}

/// Whether [`super::layout_folder`] can be expected to write into this folder, or to make it.
///
/// # Errors
/// Those of [`check_folder`], and [`ExportError::NotALayout`].
pub fn check_layout(path: &Path) -> Result<(), ExportError> {
    is_layout(path)?;
    check_folder(path)
}

/// Whether there is a layout to add to; none in a folder that is empty or not there.
pub(super) fn is_layout(path: &Path) -> Result<bool, ExportError> {
    if !is_folder(path)? {
        return Ok(false);
    }
    let is_empty = fs::read_dir(path).map_err(ExportError::at("listing", path))?.next().is_none();
    match is_empty || path.join("oci-layout").is_file() {
        true => Ok(!is_empty),
        false => Err(ExportError::NotALayout { path: path.to_owned() }),
    }
}

/// Whether the folder is there.
pub(super) fn is_folder(path: &Path) -> Result<bool, ExportError> {
    match fs::metadata(path) {
        Ok(there) if there.is_dir() => Ok(true),
        Ok(_) => Err(ExportError::WrongKind { path: path.to_owned(), expected: "a folder", found: "a file" }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(ExportError::io("looking at", path, error)),
    }
}

/// Makes the folders above one that is to be made.
pub(super) fn make_above(path: &Path) -> Result<(), ExportError> {
    let Some(above) = path.parent() else { return Ok(()) };
    fs::create_dir_all(above).map_err(ExportError::at("creating", above))
}

/// Whether something new can stand at a path.
fn check_beside(path: &Path) -> Result<(), ExportError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match folder.is_dir() {
        true => may_write(folder, Access::WRITE_OK | Access::EXEC_OK),
        false => Err(ExportError::NoFolder { path: folder.to_owned() }),
    }
}

fn may_write(path: &Path, access: Access) -> Result<(), ExportError> {
    accessat(CWD, path, access, AtFlags::EACCESS).map_err(ExportError::errno("writing to", path))
}
