//! Uploads in parts. All parts of one upload are appended to one file; a part's id says where in it the part lies, so a
//! process that did not write them can go on. Completing renames the file: nothing is copied as long as the parts lie in
//! it in their order, which they do unless a write failed half way or two writers raced.
//!
//! Parts are not synced one by one; completing syncs them all. What was written before the machine last started may
//! therefore be lost in part without anyone noticing, so a part's id also names the boot that it was written in, and one
//! of another boot counts as gone: the client begins its upload again.

use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path as FilePath, PathBuf};
use std::sync::MutexGuard;

use object_store::PutPayload;
use object_store::multipart::PartId;
use object_store::path::Path;

use super::write::{Touched, Written};
use super::{Inner, Unfinished, names};

impl Inner {
    fn parts_file(&self, id: &str) -> io::Result<PathBuf> {
        // Ids come back in sealed Locations and session objects, but a path is made of them here.
        if id.len() != 32 || !id.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("`{id}` is no id of an upload in parts")));
        }
        Ok(self.root.join(names::PARTS).join(id))
    }

    pub(super) fn begin_parts(&self) -> io::Result<String> {
        let mut bits = [0; 16];
        getrandom::fill(&mut bits).map_err(io::Error::other)?;
        let id = hex::encode(bits);
        File::options().write(true).create_new(true).open(self.parts_file(&id)?)?;
        Ok(id)
    }

    pub(super) fn append_part(&self, id: &str, data: &PutPayload) -> io::Result<String> {
        let path = self.parts_file(id)?;
        let lock = self.appending(id);
        let mut file = File::options().append(true).open(path)?;
        let start = file.metadata()?.len();
        let written = write_all(&mut file, data);
        if let Err(error) = written {
            // So that the next try lies where this one should.
            let _ = file.set_len(start);
            return Err(error);
        }
        drop(lock);
        Ok(format!("{start}-{}-{}", data.content_length(), self.boot))
    }

    /// Sees that the parts are there, brings them in their order and onto the disk; returns how many bytes they have.
    pub(super) fn prepare_parts(&self, id: &str, parts: &[PartId]) -> io::Result<u64> {
        let path = self.parts_file(id)?;
        let file = File::options().read(true).write(true).open(&path)?;
        let places = parts.iter().map(|part| self.place_of(part)).collect::<io::Result<Vec<_>>>()?;
        let mut follow = 0;
        let in_order =
            places.iter().all(|(start, size)| std::mem::replace(&mut follow, start.saturating_add(*size)) == *start);
        let end = places.iter().fold(0u64, |sum, (_, size)| sum.saturating_add(*size));
        let length = file.metadata()?.len();
        if places.iter().any(|(start, size)| start.saturating_add(*size) > length) {
            return Err(lost("is shorter than its parts"));
        }
        if !in_order {
            self.reorder(&file, &path, &places)?;
        }
        self.sync_parts(&File::open(&path)?, &path)?;
        Ok(end)
    }

    /// Has the parts on the disk. Where that fails they go, and the client begins anew: the system tells of a write that
    /// failed once, and the next sync of the same file would succeed without it.
    fn sync_parts(&self, file: &File, path: &FilePath) -> io::Result<()> {
        if !self.sync {
            return Ok(());
        }
        self.sync_all(file, names::PARTS).inspect_err(|_| {
            let _ = std::fs::remove_file(path);
        })
    }

    /// Makes an object of prepared parts.
    pub(super) fn finish_parts(&self, key: &str, id: &str, end: u64, touched: &mut Touched) -> io::Result<()> {
        let path = self.parts_file(id)?;
        // Another request may be appending: nothing of that may come to lie in the object.
        let _lock = self.appending(id);
        let file = File::options().write(true).open(&path)?;
        if file.metadata()?.len() != end {
            file.set_len(end)?;
            self.sync_parts(&file, &path)?;
        }
        self.place(key, Written::finished(&path)?, true, touched)
    }

    fn appending(&self, id: &str) -> Option<MutexGuard<'_, ()>> {
        let slot = id.bytes().fold(0usize, |sum, b| sum.wrapping_mul(31).wrapping_add(usize::from(b)));
        self.appending.get(slot % self.appending.len().max(1))?.lock().ok()
    }

    /// Writes the parts in their order into a new file, which takes the old one's place.
    fn reorder(&self, file: &File, path: &FilePath, places: &[(u64, u64)]) -> io::Result<()> {
        let temporary = self.temporary(path);
        let mut ordered = File::options().write(true).create_new(true).open(&temporary)?;
        let mut buffer = vec![0; 256 * 1024];
        for (start, size) in places {
            let mut done = 0;
            while done < *size {
                let want = usize::try_from(size - done).unwrap_or(usize::MAX).min(buffer.len());
                let piece = buffer.get_mut(..want).unwrap_or_default();
                file.read_exact_at(piece, start + done)?;
                ordered.write_all(piece)?;
                done += want as u64;
            }
        }
        std::fs::rename(&temporary, path)
    }

    /// Two parts that lie one behind the other are one.
    pub(super) fn join_parts(&self, first: &str, second: &str) -> Option<String> {
        let place = |id: &str| self.place_of(&PartId { content_id: id.to_owned() }).ok();
        let ((start, size), (next, more)) = (place(first)?, place(second)?);
        (start + size == next).then(|| format!("{start}-{}-{}", size + more, self.boot))
    }

    fn place_of(&self, part: &PartId) -> io::Result<(u64, u64)> {
        let mut fields = part.content_id.splitn(3, '-');
        let mut number = || fields.next().and_then(|field| field.parse::<u64>().ok());
        let (Some(start), Some(size)) = (number(), number()) else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("`{}` is no part", part.content_id)));
        };
        if fields.next() != Some(&self.boot) {
            return Err(lost("was begun before the machine last started"));
        }
        Ok((start, size))
    }

    /// Every upload whose file is there. Which object it would become is not in it.
    pub(super) fn unfinished_parts(&self) -> io::Result<Vec<Unfinished>> {
        let mut found = Vec::new();
        let entries = match std::fs::read_dir(self.root.join(names::PARTS)) {
            // A copy of a store may come without empty folders.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let Ok(id) = entry.file_name().into_string() else { continue };
            match entry.metadata().and_then(|metadata| metadata.modified()) {
                // Not the temporary file of a reordering, which has another name.
                Ok(since) if self.parts_file(&id).is_ok() => {
                    found.push(Unfinished { path: Path::from("data/unknown"), id, since });
                }
                // Completed meanwhile.
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(found)
    }

    pub(super) fn abort_parts(&self, id: &str) -> io::Result<()> {
        match std::fs::remove_file(self.parts_file(id)?) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// Writes all pieces, as many at once as the system takes: a file system that keeps large pieces of a file together has
/// less to do for one long write than for many short ones.
fn write_all(file: &mut File, data: &PutPayload) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = data.iter().map(|piece| IoSlice::new(piece)).collect();
    let mut left = slices.as_mut_slice();
    // Empty ones in front.
    IoSlice::advance_slices(&mut left, 0);
    while !left.is_empty() {
        match file.write_vectored(left) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => IoSlice::advance_slices(&mut left, count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Counts as not there: what remains of it is of no use.
fn lost(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("the upload in parts {why}"))
}
