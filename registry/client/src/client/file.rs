//! A file by its address: what a Dockerfile's `ADD` asks for, which is no registry's. It takes the same connections,
//! certificates, proxies and patience as registries get, and none of their credentials.

use std::io::{self, Write};

use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, ETAG, HeaderName, HeaderValue, IF_NONE_MATCH, LAST_MODIFIED,
};
use http::{HeaderMap, Method};
use reqwest::{Response, Url};

use super::Client;
use super::exchange::Streak;
use crate::error::{ClientError, Subject};
use crate::retry::{Failure, http_date, may_be_tried_again};
use crate::transport::{Request, asked_wait, host_of};

/// What is asked for.
#[derive(Clone, Default)]
pub struct FileRequest {
    /// Where it is: `http://` or `https://`.
    pub url: String,
    /// `ETag` of what the caller has.
    pub etag: Option<String>,
    /// The header `Authorization`; it goes to this host alone.
    pub authorization: Option<String>,
}

impl std::fmt::Debug for FileRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileRequest").field("etag", &self.etag).finish_non_exhaustive()
    }
}

/// What came.
#[derive(Debug)]
pub enum FileAnswer<W> {
    /// What the caller has is what there is.
    Unchanged,
    /// The file.
    File {
        /// What took it.
        sink: W,
        /// What the server says of it.
        about: FileAbout,
    },
}

/// What a server says of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileAbout {
    /// `ETag`.
    pub etag: Option<String>,
    /// `Last-Modified`, in seconds since 1970.
    pub modified_seconds: Option<i64>,
    /// `Content-Encoding`, where it has one although none was asked for.
    pub encoding: Option<String>,
}

/// Why a file did not come.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The address is none.
    #[error("`{url}` is no address of a file: {problem}")]
    Address {
        /// As given, without a password.
        url: String,
        /// What is wrong.
        problem: String,
    },
    /// The server refuses.
    #[error("`{host}` answers with status {status} to the request for {url}")]
    Status {
        /// The server that said so, which may be where the first one led to.
        host: String,
        /// What was asked for.
        url: String,
        /// What it said.
        status: u16,
    },
    /// The answer cannot be used.
    #[error("the answer to the request for {url} cannot be used: {problem}")]
    Answer {
        /// What was asked for.
        url: String,
        /// What is wrong.
        problem: String,
    },
    /// The way to the server.
    #[error(transparent)]
    Way(Box<ClientError>),
    /// What came cannot be written.
    #[error("cannot write what came from {url}")]
    Sink {
        /// What was asked for.
        url: String,
        /// The writer's error.
        source: io::Error,
    },
}

impl FileError {
    /// Whether the server could not be asked, or did not answer usefully, so that a copy is the best there is.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::Way(error) => error.is_transient() || matches!(**error, ClientError::Tls { .. }),
            Self::Status { status, .. } => may_be_tried_again(*status),
            Self::Address { .. } | Self::Answer { .. } | Self::Sink { .. } => false,
        }
    }
}

/// An attempt that failed, and whether another may help.
type Attempt<T> = Result<T, (FileError, Option<Failure>)>;

impl Client {
    /// Fetches a file. `open` gives a fresh sink for each attempt; `progress` hears how many bytes there are of how many.
    ///
    /// A body that breaks off, or is shorter than was promised, is an error and never a file.
    ///
    /// # Errors
    /// See [`FileError`].
    pub async fn file<W: Write + Send>(
        &self,
        request: &FileRequest,
        open: &mut (dyn FnMut() -> io::Result<W> + Send),
        progress: &(dyn Fn(u64, Option<u64>) + Send + Sync),
    ) -> Result<FileAnswer<W>, FileError> {
        let shown = shown(&request.url);
        let wrong = |problem: &str| FileError::Address { url: shown.clone(), problem: problem.to_owned() };
        let mut url = Url::parse(&request.url).map_err(|error| wrong(&error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(wrong("expected http://HOST/PATH or https://HOST/PATH"));
        }
        url.set_fragment(None);
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let mut add = |name: HeaderName, value: &Option<String>| -> Result<(), FileError> {
            let Some(value) = value else { return Ok(()) };
            let mut value = HeaderValue::try_from(value)
                .map_err(|_| wrong(&format!("what is given for the header `{name}` cannot be in one")))?;
            value.set_sensitive(name == AUTHORIZATION);
            headers.insert(name, value);
            Ok(())
        };
        add(AUTHORIZATION, &request.authorization)?;
        add(IF_NONE_MATCH, &request.etag)?;
        let subject = Subject { registry: host_of(&url), what: shown.clone() };
        let request = Request { headers, ..Request::new(Method::GET, url) };
        let _place = self.download_place().await;
        let mut streak = Streak::default();
        loop {
            let (error, failure) = match self.file_once(&request, &subject, &mut streak, open, progress).await {
                Ok(answer) => return Ok(answer),
                Err(failed) => failed,
            };
            let Some(wait) = self.shared.wait(&mut streak, failure) else { return Err(error) };
            tracing::debug!(%error, ?wait, "trying again");
            tokio::time::sleep(wait).await;
        }
    }

    async fn file_once<W: Write + Send>(
        &self,
        request: &Request,
        subject: &Subject,
        streak: &mut Streak,
        open: &mut (dyn FnMut() -> io::Result<W> + Send),
        progress: &(dyn Fn(u64, Option<u64>) + Send + Sync),
    ) -> Attempt<FileAnswer<W>> {
        let url = &subject.what;
        let transport = &self.shared.transport;
        let way = |error: ClientError| {
            let failure = self.shared.failure(&error);
            (told(error, url), failure)
        };
        let mut response = transport.send(request, subject).await.map_err(way)?;
        match response.status().as_u16() {
            200 => streak.is_transfer = true,
            304 if request.headers.contains_key(IF_NONE_MATCH) => return Ok(FileAnswer::Unchanged),
            status => {
                let error = FileError::Status { host: host_of(response.url()), url: url.clone(), status };
                return Err((error, Some(Failure::Status { code: status, asked: asked_wait(response.headers()) })));
            }
        }
        let about = about(&response);
        let total = response.content_length();
        let sink_failed = |source| (FileError::Sink { url: url.clone(), source }, None);
        let mut sink = open().map_err(sink_failed)?;
        let mut done_bytes = 0;
        loop {
            let piece: Option<Bytes> = transport.chunk(&mut response, subject).await.map_err(way)?;
            let Some(piece) = piece else { break };
            sink.write_all(&piece).map_err(sink_failed)?;
            done_bytes += piece.len() as u64;
            progress(done_bytes, total);
        }
        if total.is_some_and(|total| total != done_bytes) {
            let problem = format!("its body has {done_bytes} bytes, and {} were promised", total.unwrap_or_default());
            return Err((FileError::Answer { url: url.clone(), problem }, Some(Failure::Cut)));
        }
        sink.flush().map_err(sink_failed)?;
        Ok(FileAnswer::File { sink, about })
    }
}

/// What is not about a registry is told in other words.
fn told(error: ClientError, url: &str) -> FileError {
    let url = url.to_owned();
    match error {
        ClientError::Redirect { host, problem, .. } => {
            FileError::Answer { url, problem: format!("it leads to `{host}`: {problem}") }
        }
        ClientError::Answer { problem, .. } => FileError::Answer { url, problem },
        other => FileError::Way(Box::new(other)),
    }
}

fn about(response: &Response) -> FileAbout {
    let headers = response.headers();
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    FileAbout {
        etag: text(ETAG).filter(|etag| !etag.is_empty()),
        modified_seconds: text(LAST_MODIFIED).and_then(|text| http_date(&text)?.try_into().ok()),
        encoding: text(CONTENT_ENCODING).filter(|encoding| !encoding.eq_ignore_ascii_case("identity")),
    }
}

/// An address for messages: without user and password, as a token stands for either, and without what follows `?`, which may be a signature.
fn shown(url: &str) -> String {
    let Ok(mut parsed) = Url::parse(url) else { return "the address".to_owned() };
    if !parsed.username().is_empty() || parsed.password().is_some() {
        // Cannot fail for an address that has a host.
        let _ = parsed.set_password(None);
        let _ = parsed.set_username("...");
    }
    let hidden = parsed.query().is_some();
    parsed.set_query(None);
    parsed.set_fragment(None);
    if hidden { format!("{parsed}?...") } else { parsed.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_is_in_no_message() {
        for (url, expected) in [
            ("https://me:secret@h/x", "https://...@h/x"),
            ("https://token@h/x?signature", "https://...@h/x?..."),
            ("https://h/x@y", "https://h/x@y"),
        ] {
            assert_eq!(shown(url), expected);
        }
    }
}
