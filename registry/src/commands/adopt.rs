//! `adopt`: takes over what a CNCF distribution registry stored, in place.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::SystemTime;

use fluyt_registry::adopt::{AdoptError, Remark, Report, adopt};

use super::open::open_to_adopt;
use super::{Failure, harbor, print};
use crate::settings::Adopt;

pub(crate) async fn run(settings: Adopt) -> Result<ExitCode, Failure> {
    let storage = open_to_adopt(&settings.store).await?;
    let tags = match &settings.tags_from {
        Some(address) => Some(harbor::tags(address, &settings).await?),
        None => None,
    };
    let to_person = std::io::stderr().is_terminal();
    let progress = |done: u64, all: u64| {
        if to_person {
            let end = if done == all { "\n" } else { "" };
            let _ = write!(std::io::stderr(), "\r{done} of {all} repositories{end}");
        }
    };
    let report =
        adopt(&storage, settings.finish, tags.as_ref(), spell, progress).await.map_err(|error| match error {
            AdoptError::Storage(error) => Failure::Environment(error.into()),
            error => Failure::User(error.into()),
        })?;
    if settings.json {
        print::json(&report)?;
    } else {
        print::lines(words(&report));
    }
    Ok(if report.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn spell(moment: SystemTime) -> String {
    let moment = jiff::Timestamp::try_from(moment).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    moment.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn words(report: &Report) -> Vec<String> {
    let Report { repositories, blobs, blob_bytes, manifests, tags, known, kept, problems, finished, released } = report;
    let mut lines = vec![format!(
        "took over from {repositories} repositories: {manifests} manifests, {tags} tags, {blobs} blobs of {blob_bytes} bytes (in place, none copied)"
    )];
    if *known > 0 {
        lines.push(format!("{known} of what is there was taken over before"));
    }
    if !kept.is_empty() {
        lines.push("left as it is here:".into());
        lines.extend(kept.iter().map(remark));
    }
    if !problems.is_empty() {
        lines.push("not taken over, or not whole:".into());
        lines.extend(problems.iter().map(remark));
    }
    lines.push(match (finished, released) {
        (true, true) => "the adoption is finished: `docker/registry/v2/repositories/`, with the uploads that were never finished there, is no longer used and can be removed, and blobs below `docker/registry/v2/blobs/` that no image needs are collected from tomorrow on".into(),
        (true, false) => "the adoption is finished: as a repository could not be taken over, nothing below `docker/registry/v2/` is ever removed; uploads that were never finished there (`docker/registry/v2/repositories/*/_uploads/`) can be".into(),
        (false, _) => "repeat it to take over what the other registry gets meanwhile, and with --finish when that one is off; its own garbage collection must stay off until then".into(),
    });
    lines
}

fn remark(remark: &Remark) -> String {
    let what = remark.what.as_ref().map(|what| format!(" {what}")).unwrap_or_default();
    format!("  {}{what}: {}", remark.repository, remark.why)
}
