//! `check-store`: whether a store keeps the promises that the registry relies on, and what it is set to that would break
//! them later. Everything is written below one throw-away prefix, which goes at the end.
//!
//! `probes` asks any port; `cloud` and `folder` ask what only those can be asked.

mod cloud;
mod folder;
mod probes;

use std::fmt;
use std::path::Path as FilePath;

use serde::Serialize;

use super::{CloudError, CloudSettings, Folder, FolderError, Memory, keys};
use crate::protocol::Nonce;
use probes::Probes;

/// What came of one check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// As it has to be.
    Passed,
    /// It works, and something should be known of it.
    Warning,
    /// The registry must not be run on this.
    Finding,
    /// It could not be asked.
    Unknown,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Passed => "ok",
            Self::Warning => "warning",
            Self::Finding => "FINDING",
            Self::Unknown => "unknown",
        })
    }
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// What came of it.
    pub outcome: Outcome,
    /// What was seen, and what to do.
    pub detail: String,
}

/// What was found out about a store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StoreReport {
    /// Its URL.
    pub store: String,
    /// In the order in which they were made.
    pub checks: Vec<Check>,
}

impl StoreReport {
    fn new(store: String) -> Self {
        Self { store, checks: Vec::new() }
    }

    fn add(&mut self, name: &'static str, outcome: Outcome, detail: impl Into<String>) {
        self.checks.push(Check { name, outcome, detail: detail.into() });
    }

    /// How many checks ended so.
    pub fn count(&self, outcome: Outcome) -> usize {
        self.checks.iter().filter(|check| check.outcome == outcome).count()
    }
}

/// Checks a store in the cloud.
pub async fn check_cloud(settings: &CloudSettings, nonce: &Nonce) -> Result<StoreReport, CloudError> {
    let mut report = StoreReport::new(settings.address.to_string());
    cloud::check(settings, nonce, &mut report).await?;
    Ok(report)
}

/// Checks a folder, which no server may be using.
pub async fn check_folder(path: &FilePath, sync: bool, nonce: &Nonce) -> Result<StoreReport, FolderError> {
    // The trial is over before the lock goes: another process finds all or nothing.
    let (folder, _trial) = Folder::open_to_try(path, sync)?;
    let mut report = StoreReport::new(format!("file://{}", folder.root().display()));
    folder::check(&folder, &mut report);
    Probes::new(&folder, nonce, "").run(&mut report).await;
    Ok(report)
}

/// Checks the store in memory.
pub async fn check_memory(nonce: &Nonce) -> StoreReport {
    let mut report = StoreReport::new("memory:".to_owned());
    report.add("durability", Outcome::Warning, "everything is lost when the process ends: for trying things out only");
    Probes::new(&Memory::default(), nonce, "").run(&mut report).await;
    report
}

/// What everything that a check writes begins with.
fn below(nonce: &Nonce) -> String {
    format!("{}{nonce}/", keys::CHECK)
}
