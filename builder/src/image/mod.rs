//! Image configuration, manifest and index: values to exact bytes. Pure.

pub mod config;

pub use config::{Healthcheck, HistoryRow, ImageConfig, RootFs, RuntimeConfig};
