//! An image to a file, a folder or another program.
//!
//! What comes out is the image as it is in the store: manifest, configuration and layers keep their bytes. The image must be
//! whole there; a base that was only named must have been fetched before. Folders and files appear whole or not at all.

mod contents;
mod docker_archive;
mod error;
mod layout;
mod load;
mod local;
mod root;
mod root_tar;
mod whole;
mod writable;

pub use contents::{StoredImage, read_image};
pub use docker_archive::docker_archive;
pub use error::ExportError;
pub use layout::{layout_folder, layout_tar};
pub use load::{PROGRAMS, load};
pub use local::local;
pub use root_tar::root_tar;
pub use whole::{abandon, write_file};
pub use writable::{check_file, check_folder, check_layout};

#[cfg(test)]
mod tests;
