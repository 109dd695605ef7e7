//! Removing: candidates by the protocol's run (mark, look again, delete, remove the mark), leftovers as they are. Both say what
//! they are about to remove in the log, before they do.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;

use super::log::{Removal, Written};
use super::pass::Pass;
use super::report::Kept;
use super::{BATCH_MAX, CollectError, Collector, Why};
use crate::metrics::RemovedKind;
use crate::protocol::{Collect, CollectPlan, Collected, Copy, Keeper, Link, Object, TagEntry};
use crate::spec::{Digest, RepoName};
use crate::storage::{Dated, StorageError, StorageErrorKind, StoreTime, Witness, spelled};

/// Something that nothing seems to need.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    object: Object,
    why: Why,
    written: StoreTime,
    size_bytes: u64,
    /// Of which blob it is, where its key does not say.
    digest: Option<Digest>,
}

impl Candidate {
    pub(super) fn new(object: Dated<Object>, why: Why) -> Self {
        Self { object: object.item, why, written: object.written, size_bytes: object.size_bytes, digest: None }
    }

    pub(super) fn known_as(self, digest: Option<Digest>) -> Self {
        Self { digest, ..self }
    }

    fn removal(&self) -> Removal {
        // What counts is the space of blobs: what links and copies hold is small change.
        let size_bytes = if matches!(self.object, Object::Data(_)) { self.size_bytes } else { 0 };
        let removal = Removal::of(&self.object, self.why, size_bytes);
        let digest = removal.digest.clone().or_else(|| self.digest.as_ref().map(Digest::to_string));
        Removal { digest, ..removal }
    }
}

/// What may go although it looks as if it were needed.
#[derive(Clone, Debug, Default)]
pub(super) struct Allowed {
    /// Copies that retention or a user's DELETE lets go although they are whole.
    pub(super) expired: BTreeSet<Copy>,
    /// Entries of histories that a user's DELETE made void.
    pub(super) disregarded: BTreeSet<TagEntry>,
}

impl Collector {
    /// Reads what the store says about who may collect.
    pub(super) async fn may_collect(&self) -> Result<(), CollectError> {
        if !self.storage.may_collect() {
            return Err(CollectError::Uncollectable);
        }
        match self.storage.collecting_needs().await? {
            Some(needed) => Err(CollectError::Newer { needed }),
            None => Ok(()),
        }
    }
}

impl Pass<'_> {
    /// Removes what of these a second look finds unneeded.
    pub(super) async fn batch(&mut self, candidates: Vec<Candidate>, allowed: Allowed) -> Result<(), CollectError> {
        if self.dry_run {
            self.report.removed.extend(candidates.iter().map(Candidate::removal));
            return Ok(());
        }
        for batch in candidates.chunks(BATCH_MAX) {
            self.collector.may_collect().await?;
            let collected = self.collect(batch, &allowed).await?;
            self.note(batch, collected);
        }
        Ok(())
    }

    async fn collect(&self, batch: &[Candidate], allowed: &Allowed) -> Result<Collected, StorageError> {
        let plan = CollectPlan {
            run: self.collector.nonce(),
            targets: batch.iter().map(|candidate| candidate.object.clone()).collect(),
            expired: allowed.expired.clone(),
            disregarded: allowed.disregarded.clone(),
        };
        self.collector.metrics.collector.marks.inc_by(batch.len() as i64);
        self.storage.set_history_since(Some(self.now.minus(self.settings.window()).into()));
        let telling = Telling { pass: self, candidates: by_object(batch) };
        let done = self.storage.run_collect(Collect::new(plan), &telling).await;
        self.collector.metrics.collector.marks.dec_by(batch.len() as i64);
        done
    }

    fn note(&mut self, batch: &[Candidate], collected: Collected) {
        let removals = by_object(batch);
        for object in &collected.removed {
            self.removed(removal_of(object, &removals));
        }
        for (object, keeper) in collected.kept {
            self.report.kept.push(Kept { key: spelled(&object), by: words(&keeper) });
        }
    }

    /// Removes what is not needed by its age alone.
    pub(super) async fn remove_leftovers(&mut self, leftovers: Vec<(Object, Why)>) -> Result<(), CollectError> {
        let removal = |(object, why): &(Object, Why)| Removal::of(object, *why, 0);
        if self.dry_run {
            self.report.removed.extend(leftovers.iter().map(removal));
            return Ok(());
        }
        for batch in leftovers.chunks(BATCH_MAX) {
            self.collector.may_collect().await?;
            let removals: Vec<_> = batch.iter().map(removal).collect();
            self.write_log(removals.clone()).await?;
            let objects: Vec<_> = batch.iter().map(|(object, _)| object.clone()).collect();
            self.storage.remove(&objects).await?;
            removals.into_iter().for_each(|removal| self.removed(removal));
        }
        Ok(())
    }

    /// Keeps in the log what a paper knew that is about to go.
    pub(super) async fn write_down(&self, known: Vec<Removal>) -> Result<(), CollectError> {
        if self.dry_run {
            return Ok(());
        }
        for known in known.chunks(BATCH_MAX) {
            self.write_log(known.to_vec()).await?;
        }
        Ok(())
    }

    /// Counts candidates that the brake holds.
    pub(super) fn keep_waiting(&mut self, candidates: &[Candidate]) {
        let oldest = candidates.iter().map(|candidate| self.now.since(candidate.written)).max();
        self.report.oldest_candidate = self.report.oldest_candidate.max(oldest);
    }

    pub(super) fn removed(&mut self, removal: Removal) {
        let metrics = &self.collector.metrics.collector;
        metrics.removed.get_or_create(&RemovedKind { kind: removal.kind() }).inc();
        metrics.removed_bytes.inc_by(removal.size_bytes);
        self.report.removed.push(removal);
    }

    /// Links are about to go. Their blobs' index entries follow much later, if no new link came: until then a client that
    /// relied on the blob is told that it went.
    async fn leave_index_hint(&self, going: &[Object]) -> Result<(), StorageError> {
        let blobs: BTreeSet<_> = going.iter().filter_map(link).map(|(link, repo)| (repo, &link.digest)).collect();
        let mut entries = Vec::new();
        for (repo, digest) in blobs {
            entries.extend(self.storage.index_entries(repo, digest).await?);
        }
        self.leave_trace_hint(entries).await
    }

    pub(super) async fn leave_trace_hint(&self, entries: Vec<Object>) -> Result<(), StorageError> {
        if self.dry_run || entries.is_empty() {
            return Ok(());
        }
        self.storage.leave(&Object::TraceHint(self.collector.nonce(), entries)).await
    }

    /// What is about to go. On a full disk it goes without being told.
    async fn write_log(&self, removed: Vec<Removal>) -> Result<(), StorageError> {
        // Papers of collection and values of tags that others replaced are no news to anyone.
        let removed: Vec<_> =
            removed.into_iter().filter(|removal| !matches!(removal.kind(), "paper" | "tag")).collect();
        if removed.is_empty() {
            return Ok(());
        }
        let time = (self.collector.surroundings.now)();
        let written = Written { run: self.run.to_string(), time, removed };
        let content = serde_json::to_vec(&written)
            .map_err(|error| StorageError::damaged("writing the log of removals", error))?;
        match self.storage.write_log(&self.collector.nonce(), content).await {
            Err(error) if error.kind() == StorageErrorKind::Full => Ok(()),
            done => done,
        }
    }

    /// Tells the metrics what a look at a part of the store came to. `since`: when that part was looked at last of which
    /// this is longest ago; `None` when that is not known.
    pub(super) fn tell_metrics(&self, since: Option<StoreTime>) {
        let metrics = &self.collector.metrics.collector;
        metrics.brake.set(i64::from(self.brake.is_on()));
        let oldest = self.report.oldest_candidate.unwrap_or_default().as_secs_f64();
        // What the brake holds in another part is still there.
        let before = if self.brake.is_on() { metrics.oldest_candidate_seconds.get() } else { 0.0 };
        metrics.oldest_candidate_seconds.set(oldest.max(before));
        if let Some(since) = since {
            #[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 fit a double")]
            metrics.last_audit_timestamp_seconds.set(since.0 as f64 / 1000.0);
        }
    }
}

/// Says what is about to go, before it does.
struct Telling<'a> {
    pass: &'a Pass<'a>,
    candidates: BTreeMap<&'a Object, &'a Candidate>,
}

#[async_trait]
impl Witness for Telling<'_> {
    async fn going(&self, objects: &[Object]) -> Result<(), StorageError> {
        self.pass.leave_index_hint(objects).await?;
        let removed = objects.iter().map(|object| removal_of(object, &self.candidates));
        self.pass.write_log(removed.collect()).await
    }
}

fn link(object: &Object) -> Option<(&Link, &RepoName)> {
    match object {
        Object::Link(link, repo) => Some((link, repo)),
        _ => None,
    }
}

fn by_object(batch: &[Candidate]) -> BTreeMap<&Object, &Candidate> {
    batch.iter().map(|candidate| (&candidate.object, candidate)).collect()
}

/// What goes with a candidate (a referrer's entry, the digest of data) goes because that goes.
fn removal_of(object: &Object, removals: &BTreeMap<&Object, &Candidate>) -> Removal {
    match removals.get(object) {
        Some(candidate) => candidate.removal(),
        None => Removal::of(object, Why::Orphaned, 0),
    }
}

fn words(keeper: &Keeper) -> String {
    match keeper {
        Keeper::Link(_) => "a link to it".into(),
        Keeper::Copy(_) => "a manifest that names it".into(),
        Keeper::Subject(_) => "the manifest that it refers to".into(),
        Keeper::Tag(entry) => format!("the tag {} of {}", entry.tag, entry.repo),
        Keeper::History(entry) => format!("the history of the tag {} of {}", entry.tag, entry.repo),
        Keeper::Whole => "it is whole, and nothing expires by itself".into(),
        Keeper::Unclear => "it is not known whether something names it".into(),
    }
}
