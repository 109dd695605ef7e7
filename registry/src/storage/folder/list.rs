//! Sorted lists of keys: a walk that enters only folders that can hold a wanted key, and stops when the page is full.

use std::fs;
use std::io;
use std::path::{Path as FilePath, PathBuf};

use object_store::list::PaginatedListResult;
use object_store::path::Path;
use object_store::{ListResult, ObjectMeta};

use super::Inner;
use super::names::{self, Entry};
use super::read::meta;

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
    /// Whether a folder, whose keys all begin with `start` (ending in `/`), can hold a wanted key.
    fn may_be_below(&self, start: &str) -> bool {
        let below_prefix = start.starts_with(&self.prefix) || self.prefix.starts_with(start);
        below_prefix && self.after.as_deref().is_none_or(|after| start > after || after.starts_with(start))
    }

    fn is(&self, key: &str) -> bool {
        key.starts_with(&self.prefix) && self.after.as_deref().is_none_or(|after| key > after)
    }
}

impl Inner {
    pub(super) fn list(&self, want: &Want) -> io::Result<PaginatedListResult> {
        let start = want.prefix.rfind('/').map_or("", |end| want.prefix.get(..=end).unwrap_or_default());
        let mut objects = Vec::new();
        walk(&names::folder(&self.root, start)?, start, want, &mut objects)?;
        let more = objects.len() > want.max;
        objects.truncate(want.max);
        let page_token = objects.last().filter(|_| more).map(|last: &ObjectMeta| last.location.to_string());
        let result = ListResult { common_prefixes: Vec::new(), objects, extensions: Default::default() };
        Ok(PaginatedListResult { result, page_token })
    }
}

/// Adds the wanted keys below a folder, in order, until there is one more than the page takes.
fn walk(folder: &FilePath, start: &str, want: &Want, found: &mut Vec<ObjectMeta>) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        // Never there, or gone since it was seen.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(()),
        Err(error) => return Err(error),
    };
    // Keys sort by their bytes, so a folder sorts as its name and a `/`.
    let mut children: Vec<(String, PathBuf)> = Vec::new();
    for entry in entries {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        match names::decode(&name, entry.file_type()?.is_dir()) {
            Some(Entry::Object(component)) => {
                let key = format!("{start}{component}");
                if want.is(&key) {
                    children.push((key, entry.path()));
                }
            }
            Some(Entry::Folder(component)) => {
                let below = format!("{start}{component}/");
                if want.may_be_below(&below) {
                    children.push((below, entry.path()));
                }
            }
            None => {}
        }
    }
    children.sort();
    for (key, path) in children {
        if found.len() > want.max {
            break;
        }
        if key.ends_with('/') {
            walk(&path, &key, want, found)?;
        } else if let Ok(location) = Path::parse(&key) {
            match fs::metadata(&path) {
                Ok(metadata) => found.push(meta(&metadata, location)?),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}
