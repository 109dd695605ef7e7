//! `undo`: a tag gets a value again that it had.

use std::process::ExitCode;

use fluyt_registry::admin::UndoTag;

use super::order::order;
use super::{Failure, print};
use crate::settings::Undo;

pub(crate) async fn run(settings: Undo) -> Result<ExitCode, Failure> {
    let asked =
        UndoTag { repo: settings.of.repo.to_string(), tag: settings.of.tag.to_string(), to: settings.to.clone() };
    let undone = order(&settings.store, &asked).await?;
    if settings.json {
        print::json(&undone)?;
        return Ok(ExitCode::SUCCESS);
    }
    let before = undone.before.map_or_else(|| "it was deleted".to_owned(), |before| format!("before: {before}"));
    print::lines([format!(
        "{}:{} is {} again (value {}; {before})",
        undone.repo, undone.tag, undone.digest, undone.to
    )]);
    Ok(ExitCode::SUCCESS)
}
