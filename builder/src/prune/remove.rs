//! Removing entries beside running builds.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::SystemTime;

use rustix::fs::FlockOperation;

use super::PruneError;
use super::choose::Policy;
use super::entry::{Entry, Kind};
use super::needed::{Documents, needed};
use super::survey::{Survey, survey};
use crate::blob::{Store, Trash, lock_leftover};

/// One entry, or one name, that was removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removed {
    /// An entry.
    Entry {
        /// What it was.
        kind: Kind,
        /// Its path below the store.
        name: String,
        /// What it took.
        size_bytes: u64,
    },
    /// The name of an image.
    Name(String),
}

/// What was removed, or would be.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// What, in order.
    pub removed: Vec<Removed>,
    /// What that took.
    pub freed_bytes: u64,
    /// What the store takes now.
    pub left_bytes: u64,
    /// Entries that could not be removed, and why.
    pub failed: Vec<(String, String)>,
}

/// Removes what the policy says, least recently used first.
///
/// # Errors
/// When the store cannot be looked at. An entry that cannot be removed is told in the outcome.
pub fn prune(store: &Store, policy: &Policy) -> Result<Outcome, PruneError> {
    // Their names first, so that one that is given in between is noticed.
    let names = Names::read(store)?;
    let outcome = prune_surveyed(store, policy, survey(store)?, Some(names))?;
    if !policy.dry_run {
        // Who asks for room waits for it, also for what others left.
        store.trash().empty();
    }
    Ok(outcome)
}

/// Removes of what was found. What takes long to take apart is in the trash then.
pub(super) fn prune_surveyed(
    store: &Store,
    policy: &Policy,
    survey: Survey,
    names: Option<Names>,
) -> Result<Outcome, PruneError> {
    let used_bytes = survey.size_bytes();
    let mut pruning = Pruning {
        store,
        policy,
        limit_bytes: policy.limit(used_bytes, survey.free_bytes),
        used_bytes,
        survey,
        gone: HashSet::new(),
        trash: store.trash(),
        outcome: Outcome::default(),
        names: names.unwrap_or_default(),
    };
    let asked_for = |entry: &Entry| {
        let asked = policy.all || policy.kinds.contains(&entry.kind);
        // Steps are not to go for the sake of what was said about them.
        entry.is_of_no_name() && (asked || (entry.kind == Kind::Log && policy.is_bound()))
    };
    pruning.survey.entries.iter_mut().filter(|entry| asked_for(entry)).for_each(|entry| entry.needed = false);
    pruning.entries();
    if policy.all {
        pruning.images()?;
    }
    pruning.records();
    let mut outcome = pruning.outcome;
    outcome.left_bytes = pruning.used_bytes;
    Ok(outcome)
}

/// What the names need, read again whenever `index.json` was written since.
#[derive(Default)]
pub(super) struct Names {
    needed: BTreeSet<String>,
    stamp: Option<(u64, i64, i64)>,
}

impl Names {
    fn read(store: &Store) -> Result<Self, PruneError> {
        // The stamp first: what is written in between is read twice, and never missed.
        let stamp = Self::stamp(store);
        Ok(Self { needed: needed(store)?, stamp })
    }

    fn stamp(store: &Store) -> Option<(u64, i64, i64)> {
        let metadata = fs::metadata(store.root().join("index.json")).ok()?;
        Some((metadata.ino(), metadata.ctime(), metadata.ctime_nsec()))
    }

    /// Whether the names need this digest now. When that cannot be told, they do.
    fn need(&mut self, store: &Store, digest: &str) -> bool {
        if Self::stamp(store) != self.stamp {
            match Self::read(store) {
                Ok(names) => *self = names,
                Err(_) => return true,
            }
        }
        self.needed.contains(digest)
    }
}

/// The images of the store's names, and what is free without them.
struct Images {
    /// Names that may go, the next at the end, each with what its image needs.
    names: Vec<(String, BTreeSet<String>)>,
    /// How many rows of `index.json` need a digest.
    uses: HashMap<String, usize>,
    /// What goes with a digest.
    bytes: HashMap<String, u64>,
}

impl Images {
    fn of(pruning: &Pruning<'_>) -> Result<Self, PruneError> {
        let Pruning { store, policy, survey, .. } = pruning;
        let (mut documents, mut uses, mut bytes) = (Documents::default(), HashMap::new(), HashMap::new());
        for root in store.roots()? {
            for digest in documents.needed_by(store, vec![root]) {
                *uses.entry(digest).or_insert(0) += 1;
            }
        }
        let mut blobs = HashMap::new();
        for entry in &survey.entries {
            let Some(digest) = entry.digest() else { continue };
            if !entry.held && policy.covers(entry) {
                *bytes.entry(digest.clone()).or_insert(0) += entry.size_bytes;
            }
            if entry.kind == Kind::Blob {
                blobs.insert(digest, entry);
            }
        }
        let mut names = Vec::new();
        for (name, descriptor) in store.tags()? {
            let entry = blobs.get(descriptor.digest().as_ref());
            let used = entry.map_or(SystemTime::UNIX_EPOCH, |entry| entry.used);
            if policy.until.is_none_or(|until| used < until) && entry.is_none_or(|entry| !entry.held) {
                let needs = documents.needed_by(store, vec![descriptor.digest().clone()]);
                names.push((used, name, needs));
            }
        }
        names.sort();
        let names = names.into_iter().rev().map(|(_, name, needs)| (name, needs)).collect();
        Ok(Self { names, uses, bytes })
    }

    /// The next names that take so much with them, or all that are left.
    fn choose(&mut self, wanted_bytes: u64) -> Vec<String> {
        let (mut chosen, mut freed_bytes) = (Vec::new(), 0);
        while freed_bytes < wanted_bytes
            && let Some((name, needs)) = self.names.pop()
        {
            for digest in needs {
                let uses = self.uses.entry(digest.clone()).or_insert(1);
                *uses = uses.saturating_sub(1);
                if *uses == 0 {
                    freed_bytes += self.bytes.get(&digest).copied().unwrap_or(0);
                }
            }
            chosen.push(name);
        }
        chosen
    }

    /// What is needed without the names that were chosen.
    fn needed(&self) -> BTreeSet<String> {
        self.uses.iter().filter(|(_, uses)| **uses > 0).map(|(digest, _)| digest.clone()).collect()
    }
}

struct Pruning<'a> {
    store: &'a Store,
    policy: &'a Policy,
    survey: Survey,
    /// The names of those of its entries that were removed.
    gone: HashSet<String>,
    used_bytes: u64,
    limit_bytes: u64,
    trash: Trash,
    outcome: Outcome,
    names: Names,
}

impl Pruning<'_> {
    fn done(&self) -> bool {
        self.used_bytes <= self.limit_bytes
    }

    /// Removes entries that no name needs, until the limit is met.
    fn entries(&mut self) {
        let order: Vec<Entry> = self.policy.order(&self.survey.entries).into_iter().cloned().collect();
        for entry in order {
            if self.done() {
                break;
            }
            if self.gone.contains(&entry.name) {
                continue;
            }
            // Those of a removed blob go at the end; alone they go only when they are asked for, or name nothing.
            if entry.kind != Kind::Record || entry.names.is_empty() || self.policy.kinds.contains(&Kind::Record) {
                self.remove(&entry);
            }
        }
    }

    fn remove(&mut self, entry: &Entry) {
        match self.take(entry) {
            Ok(true) => {
                self.used_bytes = self.used_bytes.saturating_sub(entry.size_bytes);
                self.outcome.freed_bytes += entry.size_bytes;
                let (kind, name, size_bytes) = (entry.kind, entry.name.clone(), entry.size_bytes);
                self.outcome.removed.push(Removed::Entry { kind, name, size_bytes });
                self.gone.insert(entry.name.clone());
            }
            Ok(false) => {}
            Err(error) => self.outcome.failed.push((entry.name.clone(), error.to_string())),
        }
    }

    /// Takes an entry away when nobody holds it and, still, no name needs it; says whether.
    fn take(&mut self, entry: &Entry) -> io::Result<bool> {
        let path = self.store.root().join(&entry.name);
        if self.policy.dry_run {
            return Ok(!is_held(self.store, entry.kind, &entry.name));
        }
        match entry.kind {
            Kind::Blob => {
                let (store, names) = (self.store, &mut self.names);
                // A build names its image before it lets go of what is in it.
                alone(store, entry, || match entry.digest() {
                    Some(digest) if names.need(store, &digest) => Ok(false),
                    _ => gone(fs::remove_file(&path)),
                })
            }
            // A build was killed while a command had a cache mount in the root; the next build brings it home.
            Kind::MutableRoot if path.join("root.lent").exists() => Ok(false),
            // An index may be the only one to have the times of a layer that a build found.
            Kind::Index => alone(self.store, entry, || gone(fs::remove_file(&path))),
            Kind::Layer | Kind::MutableRoot => alone(self.store, entry, || self.move_to_trash(&path)),
            Kind::CacheMount => alone(self.store, entry, || self.take_mount(&path)),
            Kind::Temporary => {
                let Some(_lock) = lock_leftover(&path) else { return Ok(false) };
                self.move_to_trash(&path)
            }
            Kind::Log => match lock_file(&path) {
                Some(_lock) => gone(fs::remove_file(&path)),
                None => Ok(false),
            },
            Kind::Record => gone(fs::remove_file(&path)),
        }
    }

    /// Renames something into the trash; says whether it was there.
    fn move_to_trash(&self, path: &Path) -> io::Result<bool> {
        let place = self.trash.place();
        let taken = gone(fs::rename(path, &place))?;
        if taken {
            self.trash.add(place);
        }
        Ok(taken)
    }

    /// A cache mount and its copies: a RUN holds the file `lock` of the copy that it uses, also when its build was killed.
    fn take_mount(&self, mount: &Path) -> io::Result<bool> {
        let mut locks = Vec::new();
        for copy in fs::read_dir(mount)? {
            let lock = copy?.path().join("lock");
            match File::open(&lock) {
                Ok(file) => match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                    Ok(()) => locks.push(file),
                    Err(_) => return Ok(false),
                },
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
                Err(error) => return Err(error),
            }
        }
        self.move_to_trash(mount)
    }

    /// Takes names away, that of the least recently used image first, and what then is needed no more.
    fn images(&mut self) -> Result<(), PruneError> {
        if !self.policy.kinds.is_empty() && !self.policy.kinds.contains(&Kind::Blob) {
            return Ok(());
        }
        let mut images = Images::of(self)?;
        while !self.done() {
            // Of an image that somebody has begun to use, not all goes that should: then it is the next one's turn.
            let names = images.choose(self.used_bytes - self.limit_bytes);
            if names.is_empty() {
                break;
            }
            if self.policy.dry_run {
                self.names.needed = images.needed();
            } else {
                self.store.untag_all(&names.iter().map(String::as_str).collect())?;
                self.names = Names::read(self.store)?;
            }
            self.outcome.removed.extend(names.into_iter().map(Removed::Name));
            for entry in &mut self.survey.entries {
                if let Some(digest) = entry.digest() {
                    entry.needed = self.names.needed.contains(&digest);
                }
            }
            self.entries();
        }
        Ok(())
    }

    /// Removes the records that name something which is gone, and those that name nothing that is here.
    fn records(&mut self) {
        let blobs =
            self.survey.entries.iter().filter(|entry| entry.kind == Kind::Blob && self.gone.contains(&entry.name));
        let gone: BTreeSet<String> = blobs.filter_map(Entry::digest).collect();
        if gone.is_empty() {
            return;
        }
        let names_one = |entry: &&Entry| {
            entry.kind == Kind::Record
                && !self.gone.contains(&entry.name)
                && entry.names.iter().any(|name| gone.contains(name))
        };
        let records: Vec<Entry> = self.survey.entries.iter().filter(names_one).cloned().collect();
        for record in records {
            // A build that made the step again since has written it anew.
            let path = self.store.root().join(&record.name);
            let written = fs::metadata(&path).and_then(|metadata| metadata.modified());
            if self.policy.dry_run || written.is_ok_and(|written| written <= record.used) {
                self.remove(&record);
            }
        }
    }
}

/// Removes an entry unless somebody holds it.
fn alone(store: &Store, entry: &Entry, remove: impl FnOnce() -> io::Result<bool>) -> io::Result<bool> {
    store.alone(&entry.name, remove).map_err(io::Error::other)?.unwrap_or(Ok(false))
}

/// Whether somebody uses an entry. What cannot be told counts as used.
pub(super) fn is_held(store: &Store, kind: Kind, name: &str) -> bool {
    let path = store.root().join(name);
    match kind {
        Kind::Blob | Kind::Index | Kind::Layer | Kind::CacheMount | Kind::MutableRoot => {
            !matches!(store.alone(name, || ()), Ok(Some(())))
        }
        Kind::Temporary => lock_leftover(&path).is_none(),
        Kind::Log => lock_file(&path).is_none(),
        Kind::Record => false,
    }
}

/// The lock on a log, when nobody writes it.
fn lock_file(path: &Path) -> Option<File> {
    let file = File::open(path).ok()?;
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).ok()?;
    Some(file)
}

/// Whether this call took something away: somebody else may have been first.
fn gone(result: io::Result<()>) -> io::Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
