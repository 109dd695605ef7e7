//! A blob that is read while it still arrives.
//!
//! The reader sees bytes that nobody checked yet, and the end only when the blob's digest was found right. What it makes of
//! them must stay unseen until then, or until another digest vouches for it, as a layer's diff id does for its files.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use oci_spec::image::Digest;

use super::Store;

/// How soon a reader notices that it is no more wanted.
const LOOK: Duration = Duration::from_millis(50);

/// The side that brings the blob. Dropping it without [`Arriving::whole`] tells the reader that nothing more comes.
#[derive(Debug)]
pub struct Arriving(Arc<Shared>);

/// The side that reads it: waits for bytes that are not here yet.
pub struct ArrivingBlob {
    shared: Arc<Shared>,
    store: Store,
    digest: Digest,
    file: Option<File>,
    position_bytes: u64,
}

/// How the arrival of a blob ended.
#[derive(Debug)]
pub struct Arrival(Arc<Shared>);

impl Arrival {
    /// Whether other bytes came than the blob's, or not all of them.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner).end == Some(End::Broken)
    }
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Where the bytes go; taken by the reader.
    file: Option<File>,
    here_bytes: u64,
    end: Option<End>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Whole,
    Broken,
}

impl Arriving {
    /// Both sides of a blob on its way into a store. The reader ends with an error soon after what stops the store has tripped.
    pub fn new(store: &Store, digest: &Digest) -> (Self, ArrivingBlob) {
        let shared = Arc::new(Shared::default());
        let blob = ArrivingBlob {
            shared: Arc::clone(&shared),
            store: store.clone(),
            digest: digest.clone(),
            file: None,
            position_bytes: 0,
        };
        (Self(shared), blob)
    }

    /// The bytes go to the end of this file from now on.
    ///
    /// # Errors
    /// When it cannot be opened for reading.
    pub fn begin(&self, path: &Path) -> io::Result<()> {
        let file = File::open(path)?;
        self.change(|state| state.file = Some(file));
        Ok(())
    }

    /// So many bytes are in the file.
    pub fn here(&self, bytes: u64) {
        self.change(|state| state.here_bytes = bytes);
    }

    /// All bytes are here, and their digest is the blob's. Without [`Arriving::begin`]: the store has it.
    pub fn whole(&self) {
        self.change(|state| state.end = state.end.or(Some(End::Whole)));
    }

    /// What is here is not the blob. Who reads it is told that it did not arrive, for good; the store may have it yet.
    pub fn spoil(&self) {
        self.change(|state| state.end = Some(End::Broken));
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.0.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.0.changed.notify_all();
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        self.change(|state| state.end = state.end.or(Some(End::Broken)));
    }
}

impl ArrivingBlob {
    /// Tells afterwards whether what was read here was the blob.
    #[must_use]
    pub fn arrival(&self) -> Arrival {
        Arrival(Arc::clone(&self.shared))
    }

    /// Waits until there is something to read, or the end: how many bytes there are.
    fn wait(&mut self) -> io::Result<u64> {
        let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            self.store.go_on()?;
            if let Some(file) = state.file.take() {
                self.file = Some(file);
            }
            match state.end {
                Some(End::Broken) => return Err(io::Error::other("the blob did not arrive whole")),
                Some(End::Whole) if self.file.is_none() => {
                    let file = self.store.open_blob(&self.digest).map_err(io::Error::other)?;
                    let here_bytes = file.metadata()?.len();
                    self.file = Some(file);
                    state.here_bytes = here_bytes;
                    return Ok(here_bytes);
                }
                Some(End::Whole) => return Ok(state.here_bytes),
                None if state.here_bytes > self.position_bytes => return Ok(state.here_bytes),
                None => {}
            }
            state = self.shared.changed.wait_timeout(state, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Read for ArrivingBlob {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.wait()?.saturating_sub(self.position_bytes);
        let Some(file) = &self.file else { return Ok(0) };
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let count = file.read_at(&mut buffer[..wanted], self.position_bytes)?;
        if count == 0 && wanted > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.position_bytes += count as u64;
        Ok(count)
    }
}

impl std::fmt::Debug for ArrivingBlob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { digest, position_bytes, .. } = self;
        f.debug_struct("ArrivingBlob")
            .field("digest", digest)
            .field("position_bytes", position_bytes)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::blob::{BlobWriter, sha256};
    use crate::stop::Cancel;

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        (folder, store)
    }

    /// `one two` on its way, of which the first word is here.
    fn begun(store: &Store) -> (Arriving, ArrivingBlob, BlobWriter) {
        let digest = sha256(b"one two");
        let (arriving, blob) = Arriving::new(store, &digest);
        let mut writer = store.writer_for(&digest).unwrap();
        arriving.begin(writer.path()).unwrap();
        writer.write_all(b"one").unwrap();
        arriving.here(writer.size_bytes());
        (arriving, blob, writer)
    }

    #[test]
    fn bytes_are_read_as_they_come_and_the_end_when_it_was_checked() {
        let (_folder, store) = store();
        let (arriving, mut blob, mut writer) = begun(&store);
        let mut start = [0; 8];
        assert_eq!(blob.read(&mut start).unwrap(), 3, "what is here is given at once");
        let rest = std::thread::spawn(move || {
            let mut rest = Vec::new();
            blob.read_to_end(&mut rest).map(|_| rest)
        });
        writer.write_all(b" two").unwrap();
        arriving.here(writer.size_bytes());
        writer.commit(Some(&sha256(b"one two"))).unwrap();
        assert!(!rest.is_finished(), "all bytes are read, and the end is not told");
        arriving.whole();
        assert_eq!(rest.join().unwrap().unwrap(), b" two");
    }

    #[test]
    fn a_blob_that_someone_else_brought_is_read_from_the_store() {
        let (_folder, store) = store();
        let digest = store.put(b"bytes").unwrap().digest;
        let (arriving, mut blob) = Arriving::new(&store, &digest);
        arriving.whole();
        drop(arriving);
        let mut bytes = Vec::new();
        blob.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, b"bytes");
    }

    #[test]
    fn a_transfer_that_breaks_and_a_build_that_is_stopped_end_the_reader() {
        let (_folder, store) = store();
        let (arriving, mut blob, _writer) = begun(&store);
        drop(arriving);
        let error = blob.read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.to_string(), "the blob did not arrive whole");

        // One that came another way after all is not what is read here.
        let (arriving, mut blob, _writer) = begun(&store);
        let arrival = blob.arrival();
        assert!(!arrival.is_broken());
        arriving.spoil();
        arriving.whole();
        assert!(blob.read_to_end(&mut Vec::new()).is_err() && arrival.is_broken());

        let cancel = Cancel::new();
        let (_arriving, mut blob) = Arriving::new(&store.until(&cancel), &sha256(b"one two"));
        let reader = std::thread::spawn(move || blob.read(&mut [0; 8]).map_err(|error| error.to_string()));
        cancel.cancel();
        assert_eq!(reader.join().unwrap(), Err("the build was stopped".to_owned()));
    }
}
