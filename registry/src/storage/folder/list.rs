//! Sorted lists of keys: a walk that enters only folders that can hold a wanted key, and stops when the page is full. What
//! is known of a folder is taken from memory (`index`); other folders are read.

use std::fs::{self, File};
use std::io;
use std::path::Path as FilePath;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use object_store::list::PaginatedListResult;
use object_store::path::Path;
use object_store::{ListResult, ObjectMeta};

use super::Inner;
use super::index::{Child, Stat};
use super::names::{self, Entry};
use super::read::meta;

/// A folder whose directory is no larger may be read on the thread that asks: it is one block.
const SMALL_DIRECTORY_BYTES: u64 = 4096;

/// What is listed.
#[derive(Debug)]
pub(super) struct Want {
    /// Raw: need not end at a `/`.
    pub(super) prefix: String,
    /// Keys up to and including this one are left out.
    pub(super) after: Option<String>,
    pub(super) max: usize,
}

impl Want {
    /// Of the children of a folder, in order: those that are wanted, or may hold what is, after the child `from`, at most
    /// `max`.
    fn select(&self, start: &str, children: &[Child], from: Option<&str>, max: usize) -> Vec<Child> {
        // The folder's keys all begin with `start`, and its children's names hold no `/` but at their end.
        let prefix = self.prefix.strip_prefix(start).unwrap_or_default();
        let after = match self.after.as_deref() {
            None => "",
            Some(after) => match after.strip_prefix(start) {
                Some(rest) => rest,
                None if after < start => "",
                None => return Vec::new(),
            },
        };
        let mut first = children.partition_point(|child| *child.name < *prefix || *child.name <= *after);
        // A folder on the way to `after` sorts before it, and everything between the two is in that folder.
        if let Some(before) = first.checked_sub(1).and_then(|before| children.get(before))
            && before.name.ends_with('/')
            && after.starts_with(&*before.name)
            && before.name.starts_with(prefix)
        {
            first -= 1;
        }
        if let Some(from) = from {
            first = first.max(children.partition_point(|child| *child.name <= *from));
        }
        let rest = children.get(first..).unwrap_or_default();
        rest.iter().take_while(|child| child.name.starts_with(prefix)).take(max).cloned().collect()
    }
}

impl Inner {
    /// A page. `None` when that takes long and `may_wait` is not set.
    pub(super) fn list(&self, want: &Want, may_wait: bool) -> io::Result<Option<PaginatedListResult>> {
        let start = want.prefix.rfind('/').map_or("", |end| want.prefix.get(..=end).unwrap_or_default());
        let mut objects = Vec::new();
        if !self.walk(start, want, may_wait, &mut objects)? {
            return Ok(None);
        }
        let more = objects.len() > want.max;
        objects.truncate(want.max);
        let page_token = objects.last().filter(|_| more).map(|last: &ObjectMeta| last.location.to_string());
        let result = ListResult { common_prefixes: Vec::new(), objects, extensions: Default::default() };
        Ok(Some(PaginatedListResult { result, page_token }))
    }

    /// Adds the wanted keys below a folder, in order, until there is one more than the page takes. False: it takes long.
    fn walk(&self, start: &str, want: &Want, may_wait: bool, found: &mut Vec<ObjectMeta>) -> io::Result<bool> {
        let mut from: Option<Box<str>> = None;
        while found.len() <= want.max {
            let most = want.max + 1 - found.len();
            let goes_on = from.is_some() || want.after.as_deref().is_some_and(|after| after.starts_with(start));
            let show = |all: &[Child]| want.select(start, all, from.as_deref(), most);
            let selected = self.children(start, (may_wait, goes_on), show)?;
            let Some(selected) = selected else { return Ok(false) };
            let whole = selected.len() < most;
            for Child { name, stat } in selected {
                let key = format!("{start}{name}");
                if key.ends_with('/') {
                    if !self.walk(&key, want, may_wait, found)? {
                        return Ok(false);
                    }
                } else if let Ok(location) = Path::parse(&key) {
                    found.push(meta(stat, location));
                }
                from = Some(name);
                if found.len() > want.max {
                    break;
                }
            }
            if whole {
                break;
            }
        }
        Ok(true)
    }

    /// Looks an object up. `None` when its folder would have to be read first, and may be large.
    pub(super) fn look(&self, start: &str, name: &str) -> io::Result<Option<Option<Stat>>> {
        if self.index_of(start).is_none() {
            return Ok(None);
        }
        self.children(start, (false, false), |children| {
            let at = children.binary_search_by(|child| (*child.name).cmp(name)).ok()?;
            children.get(at).map(|child| child.stat)
        })
    }

    /// Shows the children of a folder. `None` when it has to be read, may be large, and `may_wait` is not set. `goes_on`: for
    /// a list that came into this folder before.
    fn children<T>(
        &self,
        start: &str,
        (may_wait, goes_on): (bool, bool),
        show: impl Fn(&[Child]) -> T,
    ) -> io::Result<Option<T>> {
        let path = || names::folder(&self.root, start);
        let Some(index) = self.index_of(start) else {
            if let Some(shown) = self.last_read.with(start, goes_on, &show) {
                return Ok(Some(shown));
            }
            let at = Instant::now();
            let mut children = read(&path()?, start)?;
            children.sort_unstable_by(|one, other| one.name.cmp(&other.name));
            let shown = show(&children);
            // A server that adopts would hold it for as long as it runs.
            if self.lock.is_none() {
                self.last_read.keep(start, at, children);
            }
            return Ok(Some(shown));
        };
        if let Some(shown) = index.with(start, &show) {
            return Ok(Some(shown));
        }
        let path = path()?;
        if !may_wait && fs::metadata(&path).is_ok_and(|metadata| metadata.len() > SMALL_DIRECTORY_BYTES) {
            return Ok(None);
        }
        let held = index.hold(start);
        // Somebody else may have read it meanwhile.
        if let Some(shown) = index.with(start, &show) {
            return Ok(Some(shown));
        }
        let mut children = read(&path, start)?;
        children.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        let shown = show(&children);
        held.learn(children);
        Ok(Some(shown))
    }
}

/// A large folder that was read without an index, for the further pages of the list that read it: each would read it again.
#[derive(Debug, Default)]
pub(super) struct LastRead(Mutex<Option<ReadFolder>>);

#[derive(Debug)]
struct ReadFolder {
    start: Box<str>,
    at: Instant,
    children: Vec<Child>,
}

impl LastRead {
    /// Smaller ones are read again, and leave this one here: it may hold them.
    const LEAST: usize = 1000;
    /// How old what a page says may be: somebody else may change the folder meanwhile.
    const KEPT: Duration = Duration::from_secs(10);

    fn with<T>(&self, start: &str, goes_on: bool, show: impl Fn(&[Child]) -> T) -> Option<T> {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let read = last.as_ref().filter(|read| goes_on && *read.start == *start && read.at.elapsed() < Self::KEPT)?;
        Some(show(&read.children))
    }

    fn keep(&self, start: &str, at: Instant, children: Vec<Child>) {
        if children.len() >= Self::LEAST {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) =
                Some(ReadFolder { start: start.into(), at, children });
        }
    }
}

/// Reads a folder. One that is not there is empty.
fn read(folder: &FilePath, start: &str) -> io::Result<Vec<Child>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        // Never there, or gone since it was seen.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(error),
    };
    let mut children = Vec::new();
    for entry in entries {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        match names::decode_in(start, &name, entry.file_type()?.is_dir()) {
            Some(Entry::Object(component)) => match entry.metadata() {
                Ok(metadata) => children.push(Child { name: component.into(), stat: stat(&metadata)? }),
                // Gone meanwhile: only without the lock on the folder, which a reading command does not take.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            },
            Some(Entry::Folder(component)) => {
                children.push(Child { name: format!("{component}/").into(), stat: Stat::FOLDER });
            }
            None => {}
        }
    }
    Ok(children)
}

pub(super) fn stat(metadata: &fs::Metadata) -> io::Result<Stat> {
    Ok(Stat { size: metadata.len(), modified: metadata.modified()? })
}

/// The stat of an open file.
pub(super) fn stat_of(file: &File) -> io::Result<Stat> {
    stat(&file.metadata()?)
}
