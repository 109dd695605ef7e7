//! `explain`: what keeps a manifest or blob, or what ended it.

use std::process::ExitCode;

use fluyt_registry::admin::{Explanation, Reason, ReasonKind};
use fluyt_registry::collect::Why;
use fluyt_registry::storage::Removed;
use jiff::SignedDuration;

use super::open::open_to_read;
use super::{Failure, print};
use crate::settings::Explain;

pub(crate) async fn run(settings: Explain) -> Result<ExitCode, Failure> {
    let admin = open_to_read(&settings.store).await?;
    let window = SignedDuration::from_hours(24 * i64::from(settings.history_days));
    let found = admin.explain(&settings.of.repo, &settings.of.digest, window).await?;
    if settings.json {
        print::json(&found)?;
    } else {
        print::lines(lines(&found));
    }
    Ok(ExitCode::SUCCESS)
}

fn lines(found: &Explanation) -> Vec<String> {
    let Explanation { repo, digest, .. } = found;
    let mut lines = Vec::new();
    for (what, since) in [("manifest", &found.manifest_since), ("blob", &found.blob_since)] {
        if let Some(first) = since.iter().min() {
            lines.push(format!("{repo} has the {what} {digest}, since {first}"));
        }
    }
    let is_there = !lines.is_empty();
    if !is_there {
        lines.push(format!("{repo} has neither a manifest nor a blob {digest}"));
    }
    lines.extend(found.kept_by.iter().map(reason));
    if is_there && found.kept_by.is_empty() {
        lines.push(match found.manifest_since.is_empty() {
            true => "no manifest names it: the collector takes it when it is older than its grace time".to_owned(),
            false => {
                "no tag, history or index names it; it was acknowledged, and nothing acknowledged expires by itself"
                    .to_owned()
            }
        });
    }
    lines.extend(found.removed.iter().chain(&found.hints).map(ended));
    lines
}

/// What ended a thing, or was about to. Its key is in the JSON.
fn ended(removed: &Removed) -> String {
    let Removed { what, why, time, .. } = removed;
    let (repo, by) = (removed.repo.as_ref().map(|repo| format!(" of {repo}")).unwrap_or_default(), by(&removed.by));
    match serde_json::from_value::<Why>(why.as_str().into()) {
        Ok(Why::Deleted) => format!("{what}{repo} was deleted {time}{by}"),
        Ok(why) => format!("{what}{repo} was removed by the collector {time}: {}", why.words()),
        Err(_) => format!("{what}{repo}: {why} {time}{by}"),
    }
}

fn by(name: &Option<String>) -> String {
    name.as_ref().map(|name| format!(" by {name}")).unwrap_or_default()
}

fn reason(reason: &Reason) -> String {
    let what = match reason.kind {
        ReasonKind::Tag => "kept by tag",
        ReasonKind::History => "kept by the history of tag",
        ReasonKind::Index => "kept by index",
        ReasonKind::Subject => "kept by the manifest that it refers to,",
        ReasonKind::Manifest => "kept by manifest",
        ReasonKind::Repository => "its data is kept by repository",
    };
    let since = reason.since.as_ref().map(|since| format!(", set {since}")).unwrap_or_default();
    let until = reason.until.as_ref().map(|until| format!(", until {until}")).unwrap_or_default();
    format!("{what} {}{since}{until}", reason.name)
}
