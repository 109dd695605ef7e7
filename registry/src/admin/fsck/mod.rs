//! Checks a store: every link has its data, every manifest its blobs, every tag a manifest, every index its entries.
//!
//! It walks the keys page by page and works beside a server: what it finds amiss it looks at once more, and what was
//! deleted or finished meanwhile is no finding. Memory: the data keys of one of 256 slices, and at most
//! [`REMEMBERED_MAX`] names of what it has seen to be whole; what it has forgotten it asks for again.
//!
//! Cost: a list for each 1000 keys; a read for each manifest; a list for each blob of each repository; a look for each
//! tag whose manifest was not just read, for each link whose data was stored in parts, and for each subject. With
//! `rehash` each data object is read as well.

mod data;
mod finding;
mod links;
mod repair;
mod repository;

use std::collections::HashSet;
use std::hash::Hash;

pub use finding::{Checked, Finding, Kind, Noted, Report};

use super::Admin;
use super::control::Progress;
use super::error::AdminError;
use crate::protocol::{DataId, Link};

/// Most names that are remembered of each kind.
const REMEMBERED_MAX: usize = 100_000;
/// Most findings that are told one by one.
const FINDINGS_MAX: usize = 10_000;
/// How many requests are under way at once.
const SIDE_BY_SIDE: usize = 16;

/// What is to be done beyond looking at keys and manifests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FsckPlan {
    /// Read all data, and compare its digests.
    pub rehash: bool,
    /// Repair what can be repaired safely.
    pub repair: bool,
}

/// One run.
struct Run<'a> {
    admin: &'a Admin,
    plan: FsckPlan,
    progress: &'a Progress,
    report: Report,
    /// Data that does not have the digest it should have.
    damaged: HashSet<DataId>,
    /// Links without usable data.
    broken: HashSet<Link>,
    /// Whether one of these could not be remembered, so that links have to be looked at one by one.
    forgetful: bool,
}

impl Admin {
    /// Checks the store, and repairs it where the plan says so.
    pub async fn fsck(&self, plan: FsckPlan, progress: &Progress) -> Result<Report, AdminError> {
        let mut run = Run {
            admin: self,
            plan,
            progress,
            report: Report::default(),
            damaged: HashSet::new(),
            broken: HashSet::new(),
            forgetful: false,
        };
        if plan.rehash {
            run.hash_all().await?;
        }
        run.check_links().await?;
        run.check_repositories().await?;
        Ok(run.report)
    }
}

impl Run<'_> {
    fn find(&mut self, finding: Finding) {
        if finding.repaired {
            self.report.repaired += 1;
        } else {
            self.report.left += 1;
        }
        if self.report.findings.len() < FINDINGS_MAX {
            self.report.findings.push(finding);
        }
    }
}

/// Remembers, up to a bound; whether it could.
fn remember<T: Hash + Eq>(set: &mut HashSet<T>, item: T) -> bool {
    set.len() < REMEMBERED_MAX && {
        set.insert(item);
        true
    }
}
