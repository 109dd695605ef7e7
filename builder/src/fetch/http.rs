//! Files over HTTP: asked for in every build, brought only when they are other ones.
//!
//! What a server said of a file is kept beside its digest. The next build asks whether the file is still that one, by its
//! `ETag`: a time alone tells nothing, as a file that is put back to an older one is "not modified since" to most servers. Only
//! the server's own word that nothing has changed makes the copy in the store stand for it; what decides over steps is the
//! content in any case.

use std::io;

use fluyt_client::{Client, FileAbout, FileAnswer, FileError, FileRequest, without_password};
use oci_spec::image::Digest;

use super::record::Record;
use super::{FetchError, FetchedFile};
use crate::blob::{BlobWriter, Hasher, Store, StoreError, is_disk_full};
use crate::event::{Event, Events, StepId};
use crate::stop::Cancel;
use crate::task::blocking;

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub struct UrlRequest {
    /// Where it is.
    pub url: String,
    /// What it must be.
    pub checksum: Option<String>,
    /// The header `Authorization`.
    pub authorization: Option<Secret>,
    /// Whether an unreachable server is an error although there is a copy.
    pub must_ask: bool,
    /// Whether the file is brought although the server may say that it is the one that is there.
    pub anew: bool,
}

/// A text that is not shown.
#[derive(Clone)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Fetches a file. Whatever takes as long as the file is large is done until `cancel` trips at most, and in threads of its own:
/// who awaits this hears meanwhile.
///
/// # Errors
/// When the server refuses or breaks off, when the file is not what the checksum says, and when the store fails.
pub async fn url(
    client: &Client,
    store: &Store,
    request: &UrlRequest,
    events: &Events,
    step: StepId,
    cancel: &Cancel,
) -> Result<FetchedFile, FetchError> {
    let store = &store.until(cancel);
    let shown = without_password(&request.url);
    let known = Record::read(store, &request.url).filter(|known| known.is_there(store));
    if let (Some(known), Some(checksum)) = (&known, &request.checksum)
        && *checksum == known.digest
    {
        // Whatever the server has now: this is what was asked for.
        events.hear(Event::Cached { step });
        return known.file(store);
    }
    let mut asked = FileRequest {
        url: request.url.clone(),
        etag: known.as_ref().and_then(|known| known.etag.clone()).filter(|_| !request.anew),
        authorization: request.authorization.as_ref().map(|secret| secret.0.clone()),
    };
    let mut failed = None;
    let mut open = || {
        store.writer().map_err(|error| {
            failed = Some(error);
            io::Error::other("the store")
        })
    };
    let progress = |done_bytes, total_bytes| {
        events.hear(Event::Moved { step, what: shown.clone(), done_bytes, total_bytes });
    };
    let checked = |file: FetchedFile| {
        let (store, request, cancel) = (store.clone(), request.clone(), cancel.clone());
        blocking(move || check(&store, &file, &request, &cancel))
    };
    let mut answer = client.file::<BlobWriter>(&asked, &mut open, &progress).await;
    if let (Ok(FileAnswer::Unchanged), Some(known)) = (&answer, &known) {
        match checked(known.file(store)?).await {
            Err(FetchError::Checksum { .. }) => {
                // What is asked for may be there all the same, under the tag of another file.
                asked.etag = None;
                answer = client.file::<BlobWriter>(&asked, &mut open, &progress).await;
            }
            checked => checked?,
        }
    }
    match (answer, known) {
        (Ok(FileAnswer::Unchanged), Some(known)) => {
            let file = known.file(store)?;
            events.hear(Event::Cached { step });
            known.keep(store, &request.url)?;
            Ok(file)
        }
        (Ok(FileAnswer::Unchanged), None) => Err(FetchError::Unasked { url: shown }),
        (Ok(FileAnswer::File { sink, about }), _) => {
            let (store, request, cancel) = (store.clone(), request.clone(), cancel.clone());
            blocking(move || received(&store, sink, &about, &request, &cancel)).await
        }
        (Err(error), Some(known)) if error.is_unreachable() && !request.must_ask => {
            let file = known.file(store)?;
            checked(file.clone()).await?;
            let text = format!("{error}; {shown} is taken as it was last fetched, {}", file.digest);
            events.hear(Event::Warning { text });
            Ok(file)
        }
        (Err(FileError::Sink { url, source }), _) => match failed.take() {
            Some(error) => Err(error.into()),
            None if is_disk_full(&source) => Err(StoreError::io("writing a blob into", store.root(), source).into()),
            None => Err(FetchError::Http(Box::new(FileError::Sink { url, source }))),
        },
        (Err(error), _) => Err(FetchError::Http(Box::new(error))),
    }
}

/// What was fetched from an address last, where it is still there: nobody knows whether it is what the server has now.
#[must_use]
pub fn last_of_url(store: &Store, url: &str) -> Option<FetchedFile> {
    Record::read(store, url).filter(|known| known.is_there(store))?.file(store).ok()
}

fn record(digest: &Digest, store: &Store, about: &FileAbout) -> Result<Record, FetchError> {
    Ok(Record {
        url: String::new(),
        etag: about.etag.clone(),
        digest: digest.to_string(),
        size_bytes: store.size(digest)?.unwrap_or_default(),
        modified_seconds: about.modified_seconds.unwrap_or(0),
    })
}

/// Keeps a file that has come, if it is what was asked for.
fn received(
    store: &Store,
    sink: BlobWriter,
    about: &FileAbout,
    request: &UrlRequest,
    cancel: &Cancel,
) -> Result<FetchedFile, FetchError> {
    let shown = without_password(&request.url);
    let info = sink.commit(None)?;
    let digest = match about.encoding.as_deref() {
        None => info.digest,
        Some("gzip" | "x-gzip") => decoded(store, &info.digest, &shown)?,
        Some(encoding) => return Err(FetchError::Encoding { url: shown, encoding: encoding.to_owned() }),
    };
    let record = record(&digest, store, about)?;
    let file = record.file(store)?;
    check(store, &file, request, cancel)?;
    record.keep(store, &request.url)?;
    Ok(file)
}

/// What a server sent in gzip although nobody asked for it, as every client takes it.
fn decoded(store: &Store, digest: &Digest, url: &str) -> Result<Digest, FetchError> {
    let file = store.open_blob(digest)?;
    let mut decoder = flate2::read::MultiGzDecoder::new(io::BufReader::new(file));
    Ok(super::keep(store, &format!("the gzip that {url} was sent in"), &mut decoder)?.digest)
}

fn check(store: &Store, file: &FetchedFile, request: &UrlRequest, cancel: &Cancel) -> Result<(), FetchError> {
    let Some(checksum) = &request.checksum else { return Ok(()) };
    let url = without_password(&request.url);
    let mismatch = |found: &Digest| FetchError::Checksum {
        url: url.clone(),
        expected: checksum.clone(),
        found: found.to_string(),
    };
    if file.digest.to_string() == *checksum {
        return Ok(());
    }
    let expected: Digest = checksum.parse().map_err(|_| mismatch(&file.digest))?;
    let hasher = Hasher::for_digest(&expected).ok_or_else(|| mismatch(&file.digest))?;
    let mut reader = crate::blob::HashingReader::with(cancel.reader(store.open_blob(&file.digest)?), hasher);
    io::copy(&mut reader, &mut io::sink()).map_err(|source| FetchError::Read { what: url.clone(), source })?;
    let found = reader.finish().0;
    if found == expected { Ok(()) } else { Err(mismatch(&found)) }
}
