//! The image configuration as Docker and the OCI image specification write it.
//!
//! `oci-spec`'s own type has no place for what Docker adds (`Healthcheck`, `OnBuild`, `Shell`, `ArgsEscaped`), and it
//! would drop them from a base image's configuration; so the type is ours, and keeps every field that it does not know.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::platform::Platform;

/// The configuration blob of an image.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// RFC 3339 time of creation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Who maintains it (`MAINTAINER`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// CPU architecture by Go's name (`amd64`).
    #[serde(default)]
    pub architecture: String,
    /// Variant of the architecture (`v7`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Operating system by Go's name (`linux`).
    #[serde(default)]
    pub os: String,
    /// What a container of the image runs, and how.
    #[serde(default)]
    pub config: RuntimeConfig,
    /// The layers.
    #[serde(default)]
    pub rootfs: RootFs,
    /// How each layer came to be; rows with `empty_layer` made none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<HistoryRow>,
    /// Fields that we do not know, kept as they came.
    #[serde(flatten)]
    pub others: BTreeMap<String, Value>,
}

/// What Docker keeps of the container that an image was made from; of no meaning for an image, and not passed on by BuildKit.
const OF_A_CONTAINER: [&str; 12] = [
    "AttachStderr",
    "AttachStdin",
    "AttachStdout",
    "Domainname",
    "Hostname",
    "Image",
    "MacAddress",
    "NetworkDisabled",
    "OpenStdin",
    "StdinOnce",
    "StopTimeout",
    "Tty",
];

impl ImageConfig {
    /// What an image that is built on this one has of its runtime configuration.
    #[must_use]
    pub fn inherited(&self) -> RuntimeConfig {
        let mut config = self.config.clone();
        config.others.retain(|name, _| !OF_A_CONTAINER.contains(&name.as_str()));
        config
    }

    /// What it has of the fields beside that: those of the platform that are no part of its name.
    #[must_use]
    pub fn inherited_others(&self) -> BTreeMap<String, Value> {
        let mut others = self.others.clone();
        others.retain(|name, _| matches!(name.as_str(), "os.version" | "os.features"));
        others
    }

    /// What the image runs on, where it says so; one that does not is for every platform.
    #[must_use]
    pub fn platform(&self) -> Option<Platform> {
        let says = !self.os.is_empty() && !self.architecture.is_empty();
        says.then(|| Platform::new(&self.os, &self.architecture, self.variant.as_deref()))
    }
}

/// The layers of an image, by diff id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Hash of each layer's uncompressed tar, bottom first.
    #[serde(default)]
    pub diff_ids: Vec<String>,
}

impl Default for RootFs {
    fn default() -> Self {
        Self { kind: "layers".to_owned(), diff_ids: Vec::new() }
    }
}

/// One row of an image's history.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryRow {
    /// RFC 3339 time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The instruction, in the reference's spelling, which other tools parse.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// Who made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// `buildkit.dockerfile.v0` for every row that a Dockerfile gave.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Whether the row made no layer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

/// The part of the configuration that `ENV`, `CMD`, `LABEL` and their like set. It travels with a stage.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RuntimeConfig {
    /// `USER`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// `EXPOSE`: port and protocol (`80/tcp`) to an empty object.
    #[serde(default, skip_serializing_if = "is_none_or_empty")]
    pub exposed_ports: Option<BTreeMap<String, Value>>,
    /// `ENV`: `NAME=value`, in the order of first setting.
    #[serde(default, skip_serializing_if = "is_none_or_empty_list")]
    pub env: Option<Vec<String>>,
    /// `ENTRYPOINT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// `CMD`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// `HEALTHCHECK`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// Set by `CMD` and `ENTRYPOINT` in shell form; meaningful on Windows, written by the reference everywhere.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub args_escaped: bool,
    /// `VOLUME`: path to an empty object.
    #[serde(default, skip_serializing_if = "is_none_or_empty")]
    pub volumes: Option<BTreeMap<String, Value>>,
    /// `WORKDIR`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// `ONBUILD` triggers, in order.
    #[serde(default, skip_serializing_if = "is_none_or_empty_list")]
    pub on_build: Option<Vec<String>>,
    /// `LABEL`.
    #[serde(default, skip_serializing_if = "is_none_or_empty_labels")]
    pub labels: Option<BTreeMap<String, String>>,
    /// `STOPSIGNAL`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// `SHELL`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shell: Option<Vec<String>>,
    /// Fields that we do not know, kept as they came.
    #[serde(flatten)]
    pub others: BTreeMap<String, Value>,
}

/// `HEALTHCHECK`, as Docker writes it. Times are in nanoseconds; 0 inherits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", ...]` or `["CMD-SHELL", command]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    /// Time between two checks.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub interval: i64,
    /// Time after which a check counts as failed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub timeout: i64,
    /// Time in which failures do not count.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub start_period: i64,
    /// Time between two checks during the start period.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    /// Failures in a row that make a container unhealthy.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retries: i64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(value: &i64) -> bool {
    *value == 0
}

fn is_none_or_empty(map: &Option<BTreeMap<String, Value>>) -> bool {
    map.as_ref().is_none_or(BTreeMap::is_empty)
}

fn is_none_or_empty_list(list: &Option<Vec<String>>) -> bool {
    list.as_ref().is_none_or(Vec::is_empty)
}

fn is_none_or_empty_labels(labels: &Option<BTreeMap<String, String>>) -> bool {
    labels.as_ref().is_none_or(BTreeMap::is_empty)
}
