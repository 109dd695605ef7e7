//! `delete-repository`: takes everything out of a repository, once somebody has said that it is meant.

use std::io::{BufRead, IsTerminal, Write};
use std::process::ExitCode;

use fluyt_registry::admin::DeleteRepository;

use super::order::order;
use super::{Failure, print};
use crate::settings;

pub(crate) async fn run(settings: settings::DeleteRepository) -> Result<ExitCode, Failure> {
    let repo = settings.repo.to_string();
    if !settings.yes && !is_meant(&repo)? {
        return Err(Failure::User("nothing was deleted".into()));
    }
    let deleted = order(&settings.store, &DeleteRepository { repo }).await?;
    if settings.json {
        print::json(&deleted)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut lines = vec![format!(
        "{}: ended {} tags, removed {} manifests, unlinked {} blobs",
        deleted.repo, deleted.tags, deleted.manifests, deleted.blobs
    )];
    if deleted.pushed_meanwhile {
        lines.push("it holds manifests that were pushed meanwhile: stop the pushes, and repeat it".into());
    }
    print::lines(lines);
    Ok(ExitCode::SUCCESS)
}

/// Asks whoever sits at the terminal for the repository's name.
fn is_meant(repo: &str) -> Result<bool, Failure> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        let message = format!("deleting {repo} cannot be undone: say that it is meant with --yes");
        return Err(Failure::Usage(message.into()));
    }
    let mut stderr = std::io::stderr();
    let _ = write!(stderr, "All tags, manifests and blobs of {repo} go, and cannot come back. Type its name: ");
    let _ = stderr.flush();
    let mut typed = String::new();
    stdin.lock().read_line(&mut typed).map_err(|error| Failure::Environment(error.into()))?;
    Ok(typed.trim() == repo)
}
