//! `check-store`: whether a store is fit for the registry.

use std::process::ExitCode;

use fluyt_registry::protocol::Nonce;
use fluyt_registry::storage::{Outcome, check_cloud, check_folder, check_memory};

use super::{Failure, print};
use crate::settings::{CheckStore, Store};

pub(crate) async fn run(settings: CheckStore) -> Result<ExitCode, Failure> {
    let mut bits = [0; 12];
    getrandom::fill(&mut bits).map_err(|error| Failure::Environment(error.into()))?;
    let nonce = Nonce::from_bits(bits);
    let report = match &settings.store {
        Store::Cloud(address) => {
            check_cloud(&settings.reach.cloud(address), &nonce).await.map_err(|e| Failure::User(e.into()))?
        }
        Store::Folder(path) => check_folder(path, true, &nonce).await?,
        Store::Memory => check_memory(&nonce).await,
    };
    let (findings, warnings) = (report.count(Outcome::Finding), report.count(Outcome::Warning));
    if settings.json {
        print::json(&report)?;
    } else {
        let rows = report
            .checks
            .iter()
            .map(|check| vec![check.outcome.to_string(), check.name.to_owned(), check.detail.clone()]);
        print::table(&rows.collect::<Vec<_>>());
        let unknown = report.count(Outcome::Unknown);
        print::lines([format!("{}: {findings} findings, {warnings} warnings, {unknown} unknown", report.store)]);
    }
    Ok(if findings == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) })
}
