//! What any port has to do: the promises of storage, each tried once.

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use object_store::list::PaginatedListOptions;
use object_store::multipart::PartId;
use object_store::path::Path;
use object_store::{Error, GetOptions, GetRange, ObjectStoreExt};

use super::super::Port;
use super::super::cloud::chain;
use super::{Outcome, StoreReport, below};
use crate::protocol::Nonce;
use crate::storage::keys;

/// Asks a port.
pub(super) struct Probes<'a> {
    port: &'a dyn Port,
    prefix: String,
    /// What the identity needs, for messages.
    permissions: &'a str,
}

/// What is wrong.
type Wrong = String;

impl<'a> Probes<'a> {
    pub(super) fn new(port: &'a dyn Port, nonce: &Nonce, permissions: &'a str) -> Self {
        Self { port, prefix: below(nonce), permissions }
    }

    pub(super) async fn run(&self, report: &mut StoreReport) {
        let mut note = |name, result: Result<String, Wrong>| match result {
            Ok(detail) => report.add(name, Outcome::Passed, detail),
            Err(detail) => report.add(name, Outcome::Finding, detail),
        };
        let written = self.objects().await;
        let go_on = written.is_ok();
        note("objects", written);
        // Everything else would only say again that nothing can be written.
        if go_on {
            note("absent objects", self.absent().await);
            note("ranges", self.ranges().await);
            note("lists", self.lists().await);
            note("deletes", self.deletes().await);
            note("uploads in parts", self.parts().await);
            note("stale parts", self.stale_parts().await);
        }
        note("cleaning up", self.clean_up().await);
    }

    pub(super) fn path(&self, name: &str) -> Result<Path, Wrong> {
        keys::path(&format!("{}{name}", self.prefix)).map_err(|error| error.to_string())
    }

    /// What an error means.
    fn wrong(&self, doing: &str, error: &Error) -> Wrong {
        let advice = match error {
            Error::PermissionDenied { .. } | Error::Unauthenticated { .. } if !self.permissions.is_empty() => {
                format!("; this is not allowed: {}", self.permissions)
            }
            _ => String::new(),
        };
        format!("{doing}: {}{advice}", chain(error))
    }

    pub(super) async fn put(&self, name: &str, content: impl Into<Bytes>) -> Result<(), Wrong> {
        let put = self.port.put(&self.path(name)?, content.into().into()).await;
        put.map(drop).map_err(|error| self.wrong("writing an object", &error))
    }

    async fn read(&self, name: &str, range: Option<GetRange>) -> Result<Bytes, Wrong> {
        let wrong = |error: Error| self.wrong("reading an object", &error);
        let options = GetOptions { range, ..Default::default() };
        self.port.get_opts(&self.path(name)?, options).await.map_err(wrong)?.bytes().await.map_err(wrong)
    }

    async fn expect(&self, name: &str, range: Option<GetRange>, expected: &[u8]) -> Result<(), Wrong> {
        let found = self.read(name, range).await?;
        if found == expected {
            return Ok(());
        }
        let (found, expected) = (found.len(), expected.len());
        Err(format!("an object of {expected} bytes came back changed, as {found} bytes"))
    }

    /// Names of the objects below a prefix, after one of them, in the order that they came.
    pub(super) async fn page(
        &self,
        prefix: &str,
        after: Option<&str>,
        max: usize,
    ) -> Result<(Vec<String>, bool), Wrong> {
        let options = PaginatedListOptions {
            offset: after.map(|after| format!("{}{after}", self.prefix)),
            max_keys: Some(max),
            ..Default::default()
        };
        let prefix = format!("{}{prefix}", self.prefix);
        let page = self.port.list_paginated(Some(&prefix), options).await;
        let page = page.map_err(|error| self.wrong("listing objects", &error))?;
        let name = |key: &str| key.strip_prefix(&self.prefix).unwrap_or(key).to_owned();
        let names = page.result.objects.iter().map(|object| name(object.location.as_ref())).collect();
        Ok((names, page.page_token.is_some()))
    }

    async fn objects(&self) -> Result<String, Wrong> {
        self.put("object", "content").await?;
        self.expect("object", None, b"content").await?;
        self.put("empty", "").await?;
        self.expect("empty", None, b"").await?;
        let meta = self.port.head(&self.path("object")?).await;
        let meta = meta.map_err(|error| self.wrong("asking for an object's size", &error))?;
        if meta.size != 7 {
            return Err(format!("an object of 7 bytes is said to have {}", meta.size));
        }
        Ok("what was written is read at once, unchanged".into())
    }

    async fn absent(&self) -> Result<String, Wrong> {
        for (doing, found) in [
            ("reading", self.port.get(&self.path("never")?).await.map(drop)),
            ("asking for the size of", self.port.head(&self.path("never")?).await.map(drop)),
        ] {
            match found {
                Err(Error::NotFound { .. }) => {}
                Ok(()) => return Err(format!("{doing} an object that was never written succeeds")),
                Err(error) => return Err(self.wrong(&format!("{doing} an object that is not there"), &error)),
            }
        }
        Ok("what is not there is said not to be there".into())
    }

    async fn ranges(&self) -> Result<String, Wrong> {
        let content: Vec<u8> = (0..100_000u32).map(|i| (i % 251) as u8).collect();
        self.put("ranges", content.clone()).await?;
        for (from, to) in [(0, 1), (5, 10), (70_000, 99_999), (99_999, 100_000)] {
            let expected = content.get(from..to).unwrap_or_default();
            self.expect("ranges", Some(GetRange::Bounded(from as u64..to as u64)), expected).await?;
        }
        let expected = content.get(90_000..).unwrap_or_default();
        self.expect("ranges", Some(GetRange::Offset(90_000)), expected).await?;
        Ok("parts of an object are read as asked for".into())
    }

    async fn lists(&self) -> Result<String, Wrong> {
        let mut names = ["l/a!", "l/a", "l/a/b!", "l/a-b!", "l/a0", "l/ab/c", "l/b/d/e", "l/Z", "l/a/b/c", "l/b"];
        for name in names {
            self.put(name, "x").await?;
            let (found, _) = self.page("l/", None, 1000).await?;
            if !found.iter().any(|found| found == name) {
                return Err("an object is not in the list that follows its writing: lists are late".into());
            }
        }
        names.sort_unstable();
        let (found, _) = self.page("l/", None, 1000).await?;
        if found != names {
            return Err(format!("a list is not in the order of bytes: expected {names:?}, found {found:?}"));
        }
        let (found, _) = self.page("l/a/", None, 1000).await?;
        if found != ["l/a/b!", "l/a/b/c"] {
            return Err(format!("a list of what begins with `l/a/` holds {found:?}"));
        }
        let mut all: Vec<String> = Vec::new();
        loop {
            let (found, more) = self.page("l/", all.last().map(String::as_str), 3).await?;
            let empty = found.is_empty();
            all.extend(found);
            if !more || empty || all.len() > names.len() {
                break;
            }
        }
        if all != names {
            return Err(format!("pages that begin after a key do not add up: expected {names:?}, found {all:?}"));
        }
        Ok("lists show every write, in the order of bytes, from any key on".into())
    }

    async fn delete(&self, names: &[String]) -> Result<(), Wrong> {
        let paths = names.iter().map(|name| self.path(name).map(Ok)).collect::<Result<Vec<_>, Wrong>>()?;
        let mut results = self.port.delete_stream(stream::iter(paths).boxed());
        while let Some(result) = results.next().await {
            match result {
                Ok(_) | Err(Error::NotFound { .. }) => {}
                Err(error) => return Err(self.wrong("deleting objects", &error)),
            }
        }
        Ok(())
    }

    async fn deletes(&self) -> Result<String, Wrong> {
        self.put("d/gone", "x").await?;
        self.put("d/stays", "x").await?;
        self.delete(&["d/gone".to_owned(), "d/never".to_owned()]).await?;
        let (found, _) = self.page("d/", None, 10).await?;
        if found != ["d/stays"] {
            return Err(format!("after a deletion a list holds {found:?}, expected only `d/stays`"));
        }
        match self.port.get(&self.path("d/gone")?).await {
            Err(Error::NotFound { .. }) => {
                Ok("deletions show at once, and deleting what is not there is no error".into())
            }
            Ok(_) => Err("an object can still be read after its deletion".into()),
            Err(error) => Err(self.wrong("reading a deleted object", &error)),
        }
    }

    /// The least that a part may be.
    fn part(&self, seed: u8) -> Bytes {
        let size = usize::try_from(self.port.least_part_bytes()).unwrap_or_default().max(1000);
        (0..size).map(|i| (i % 251) as u8 ^ seed).collect::<Vec<_>>().into()
    }

    async fn parts(&self) -> Result<String, Wrong> {
        let wrong = |error: Error| self.wrong("uploading in parts", &error);
        let path = self.path("parts")?;
        let id = self.port.create_multipart(&path).await.map_err(wrong)?;
        let first = self.part(1);
        let last = self.port.put_part(&path, &id, 1, "last".into()).await.map_err(wrong)?;
        let one = self.port.put_part(&path, &id, 0, first.clone().into()).await.map_err(wrong)?;
        if self.port.head(&path).await.is_ok() {
            return Err("an upload in parts shows before it is completed".into());
        }
        self.port.complete_multipart(&path, &id, vec![one, last]).await.map_err(wrong)?;
        self.expect("parts", None, &[&first[..], b"last"].concat()).await?;
        Ok(format!("parts come together in their order; each needs {} bytes or more", self.port.least_part_bytes()))
    }

    async fn stale_parts(&self) -> Result<String, Wrong> {
        let wrong = |error: Error| self.wrong("uploading in parts", &error);
        let (path, ours) = (self.path("stale")?, self.part(2));
        let id = self.port.create_multipart(&path).await.map_err(wrong)?;
        let stale = self.port.put_part(&path, &id, 0, ours.clone().into()).await.map_err(wrong)?;
        self.port.put_part(&path, &id, 0, self.part(3).into()).await.map_err(wrong)?;
        let stale = PartId { content_id: stale.content_id };
        let completed = self.port.complete_multipart(&path, &id, vec![stale]).await;
        if completed.is_ok() {
            self.expect("stale", None, &ours).await.map_err(|_| {
                "a part that was replaced is taken for the one that an upload names: two clients that continue one upload would mix their bytes"
            })?;
            return Ok("an upload is completed from the parts that it names".into());
        }
        self.port.abort_multipart(&path, &id).await.map_err(|error| self.wrong("giving up an upload", &error))?;
        Ok("a part that was replaced is refused".into())
    }

    async fn clean_up(&self) -> Result<String, Wrong> {
        let mut removed = 0;
        loop {
            let (names, more) = self.page("", None, 1000).await?;
            self.delete(&names).await?;
            removed += names.len();
            if !more || names.is_empty() {
                return Ok(format!(
                    "removed the {removed} objects that were written for this, below `{}`",
                    self.prefix
                ));
            }
        }
    }
}
