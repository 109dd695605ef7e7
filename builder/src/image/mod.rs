//! Image configuration, manifest and index: values to exact bytes. Pure.

pub mod config;
mod document;
mod error;
pub mod manifest;
pub mod media_type;
mod platform;

pub use config::{Healthcheck, HistoryRow, ImageConfig, RootFs, RuntimeConfig};
pub use document::{DOCUMENT_SIZE_MAX_BYTES, Document};
pub use error::ImageError;
pub use manifest::Manifest;
pub use media_type::Format;
pub use platform::{ARCHITECTURES, Platform, PlatformError, select, without_platform};
