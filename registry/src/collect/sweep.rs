//! What is swept by age alone: uploads that nobody went on with, marks and clocks of dead runs, old logs and confirmations.

use std::collections::BTreeSet;

use super::brake::Brake;
use super::log::Removal;
use super::pass::Pass;
use super::{CollectError, LOG_KEPT, UPLOAD_KEPT, Why};
use crate::protocol::RemoveMark;
use crate::storage::Attachments;

/// Sweeps everything that has had its time.
pub(super) async fn pass(pass: &mut Pass<'_>) -> Result<(), CollectError> {
    uploads(pass).await?;
    if pass.dry_run {
        return Ok(());
    }
    marks(pass).await?;
    papers(pass).await
}

/// Uploads a day after their last write, and the store's unfinished multipart uploads of ours that belong to none.
async fn uploads(pass: &mut Pass<'_>) -> Result<(), CollectError> {
    let stale = pass.now.minus(UPLOAD_KEPT);
    let mut going_on = BTreeSet::new();
    for (id, upload) in pass.storage.uploads().await? {
        pass.report.looked_at("uploads", 1);
        if upload.written >= stale {
            for name in &upload.sessions {
                going_on.extend(pass.storage.multipart_of(&id, name).await?);
            }
            continue;
        }
        let removal = Removal::paper(format!("uploads/{id}"), Why::Stale, 0);
        if pass.dry_run {
            pass.report.removed.push(removal);
        } else {
            pass.storage.remove_upload(&upload).await?;
            pass.removed(removal);
        }
    }
    let swept = pass.storage.sweep_unfinished(stale, &going_on, pass.dry_run).await;
    // A store may keep us from these alone, and for good: everything else has to be looked at all the same.
    for error in swept.failures {
        pass.failed(format!("uploads that were not finished: {}", CollectError::from(error)));
    }
    for key in swept.removed {
        let removal = Removal::paper(key, Why::Stale, 0);
        if pass.dry_run {
            pass.report.removed.push(removal);
        } else {
            pass.removed(removal);
        }
    }
    Ok(())
}

/// Marks of runs that seem to have died, where nothing that they name is there any more.
async fn marks(pass: &mut Pass<'_>) -> Result<(), CollectError> {
    let old = pass.now.minus(pass.settings.grace);
    let mut left = 0;
    for mark in pass.storage.mark_objects().await? {
        if mark.written >= old {
            continue;
        }
        let targets = pass.storage.marked_by(&mark.item).await?;
        let count = targets.data.len() + targets.links.len() + targets.copies.len();
        let gone = pass.storage.run(RemoveMark::new(mark.item.clone(), targets), &Attachments::default()).await?;
        if gone {
            pass.removed(Removal::paper(format!("gc/marks/{}", mark.item), Why::Done, 0));
        } else {
            left += count;
        }
    }
    pass.collector.metrics.collector.set_left_marks(left);
    Ok(())
}

/// Papers of collection itself.
async fn papers(pass: &mut Pass<'_>) -> Result<(), CollectError> {
    let now = pass.now;
    let logs = pass.storage.logs().await?;
    let logs: Vec<_> = logs.into_iter().filter(|log| now.since(log.written) > LOG_KEPT).map(|log| log.item).collect();
    pass.storage.remove_logs(&logs).await?;
    let confirmations = pass.storage.confirmations().await?;
    let over: Vec<_> = confirmations.into_iter().filter(|c| Brake::is_over(c.written, now)).map(|c| c.item).collect();
    pass.storage.remove_confirmations(&over).await?;
    for clock in pass.storage.run_clocks().await? {
        if clock.written < now.minus(pass.settings.grace) {
            pass.storage.end_run(&clock.item).await?;
        }
    }
    Ok(())
}
