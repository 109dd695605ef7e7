//! Long copies end with the build: no large file is read or written to its end once the build is stopped.

use std::io::{self, Read};

use super::{Executor, StepError};
use crate::blob::Store;
use crate::sandbox::Cancel;

impl Executor {
    /// The store, of which no blob can be read or written once the build is stopped.
    pub(super) fn store_until_stopped(&self) -> Store {
        let cancel = self.cancel.clone();
        self.store.until(move || cancel.is_cancelled())
    }

    /// What came of a copy. Whatever its failure says, once the build is stopped that is the reason.
    pub(super) fn unless_stopped<T, E: Into<StepError>>(&self, result: Result<T, E>) -> Result<T, StepError> {
        unless(&self.cancel, result)
    }
}

/// The same for those who have no more of the executor than its switch.
pub(super) fn unless<T, E: Into<StepError>>(cancel: &Cancel, result: Result<T, E>) -> Result<T, StepError> {
    result.map_err(|error| if cancel.is_cancelled() { StepError::Cancelled } else { error.into() })
}

/// Reads until the build is stopped; after that every read fails.
#[derive(Debug)]
pub(super) struct UntilStopped<'a, R> {
    pub(super) inner: R,
    pub(super) cancel: &'a Cancel,
}

impl<R: Read> Read for UntilStopped<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.cancel.is_cancelled() {
            true => Err(io::Error::other("the build was stopped")),
            false => self.inner.read(buffer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blob::ContentHash;

    /// Has no end, and stops the build in its third read.
    struct Endless<'a> {
        reads: u32,
        cancel: &'a Cancel,
    }

    impl Read for Endless<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.reads += 1;
            if self.reads == 3 {
                self.cancel.cancel();
            }
            Ok(buffer.len())
        }
    }

    #[test]
    fn a_file_without_end_is_read_until_the_build_is_stopped() {
        let cancel = Cancel::new();
        let mut endless = Endless { reads: 0, cancel: &cancel };
        let read = ContentHash::read(UntilStopped { inner: &mut endless, cancel: &cancel });
        let failed = read.map_err(|source| StepError::Read { path: "endless".into(), source });
        assert!(matches!(unless(&cancel, failed), Err(StepError::Cancelled)));
        assert_eq!(endless.reads, 3);
    }
}
