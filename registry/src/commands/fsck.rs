//! `fsck`: is the store whole?

use std::process::ExitCode;

use fluyt_registry::admin::{self, FsckPlan, Report};

use super::open::open_to_read;
use super::order::{on_stderr, order};
use super::{Failure, print};
use crate::settings::Fsck;

pub(crate) async fn run(settings: Fsck) -> Result<ExitCode, Failure> {
    let report = if settings.repair {
        order(&settings.store, &admin::Fsck { rehash: settings.rehash }).await?
    } else {
        let plan = FsckPlan { rehash: settings.rehash, repair: false };
        open_to_read(&settings.store).await?.fsck(plan, &on_stderr()).await?
    };
    if settings.json {
        print::json(&report)?;
    } else {
        print::lines(lines(&report));
    }
    Ok(if report.left == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn lines(report: &Report) -> Vec<String> {
    let mut lines = Vec::new();
    for finding in &report.findings {
        let state = if finding.repaired { "repaired" } else { "found" };
        let repo = finding.repo.as_ref().map(|repo| format!("{repo} ")).unwrap_or_default();
        let digest = finding.digest.clone().unwrap_or_default();
        lines.push(format!("{state}: {}: {}", format!("{repo}{digest}").trim_end(), finding.message));
        lines.push(format!("  at {}", finding.key));
        lines.push(format!("  {}", finding.advice));
    }
    let told = report.findings.len() as u64;
    let all = report.left + report.repaired;
    if all > told {
        lines.push(format!("and {} more", all - told));
    }
    let checked = &report.checked;
    lines.push(format!(
        "looked at {} repositories, {} tags, {} manifests, {} referrers, {} links, {} data objects ({} bytes read)",
        checked.repositories,
        checked.tags,
        checked.manifests,
        checked.referrers,
        checked.links,
        checked.data,
        checked.hashed_bytes
    ));
    lines.push(format!("by {} lists, {} looks and {} reads", checked.lists, checked.looks, checked.reads));
    let noted = &report.noted;
    for (count, what) in [
        (noted.sparse_images, "images were accepted without some of their blobs"),
        (noted.sparse_indexes, "indexes list manifests that are not here"),
        (noted.refused, "manifests are left of pushes that were refused: the collector's"),
        (noted.stale_index_entries, "index entries are left of blobs that are gone: the collector's"),
        (noted.dangling_links, "links name data that is gone; their blobs are there by other links"),
        (noted.digest_unknown, "data objects say no digest, and were not compared"),
        (noted.foreign_keys, "keys below data/ are none of this layout"),
    ] {
        if count > 0 {
            lines.push(format!("note: {count} {what}"));
        }
    }
    lines.push(format!("{} findings left, {} repaired", report.left, report.repaired));
    lines
}
