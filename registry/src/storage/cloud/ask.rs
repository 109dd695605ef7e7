//! What object_store has no call for: lists of unfinished uploads, and what a bucket is set to. Asked by an address that the
//! driver signs, on S3 and on GCS, whose older API is the same.

use std::time::{Duration, SystemTime};

use http::{Method, Request};
use object_store::client::{HttpClient, HttpError, HttpErrorKind, HttpRequestBody};
use object_store::path::Path;
use object_store::signer::SignedUrlOptions;
use object_store::{Error, Result};
use serde::Deserialize;

use super::super::Unfinished;
use super::settings::Driver;

const STORE: &str = "cloud";

/// The answer to a question about the bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::storage) struct Answer {
    pub(in crate::storage) status: u16,
    pub(in crate::storage) body: String,
}

pub(super) async fn ask(driver: &dyn Driver, http: &HttpClient, query: &[(&str, &str)]) -> Result<Answer> {
    let options = SignedUrlOptions::new().with_query(query.iter().copied());
    let url = driver.signed_url_opts(Method::GET, &Path::default(), Duration::from_secs(300), &options).await?;
    let failed = |source: HttpError| Error::Generic { store: STORE, source: source.into() };
    let request = Request::get(url.as_str()).body(HttpRequestBody::empty());
    let request = request.map_err(|error| failed(HttpError::new(HttpErrorKind::Unknown, error)))?;
    let response = http.execute(request).await.map_err(failed)?;
    let status = response.status().as_u16();
    let body = response.into_body().bytes().await.map_err(failed)?;
    Ok(Answer { status, body: String::from_utf8_lossy(&body).into_owned() })
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Uploads {
    #[serde(default)]
    upload: Vec<Upload>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Upload {
    key: String,
    upload_id: String,
    initiated: String,
}

/// A page of unfinished uploads; their keys are the store's, with its prefix.
pub(super) async fn uploads(
    driver: &dyn Driver,
    http: &HttpClient,
    prefix: &str,
    after: Option<(&str, &str)>,
) -> Result<Vec<Unfinished>> {
    let mut query = vec![("uploads", ""), ("prefix", prefix)];
    if let Some((key, id)) = after {
        query.extend([("key-marker", key), ("upload-id-marker", id)]);
    }
    let answer = ask(driver, http, &query).await?;
    let failed = |what: String| {
        let source = format!("listing unfinished uploads: the store answers {}: {what}", answer.status).into();
        match answer.status {
            403 => Error::PermissionDenied { path: prefix.to_owned(), source },
            _ => Error::Generic { store: STORE, source },
        }
    };
    if answer.status != 200 {
        return Err(failed(answer.body.chars().take(500).collect()));
    }
    let uploads: Uploads = quick_xml::de::from_str(&answer.body).map_err(|error| failed(error.to_string()))?;
    let uploads = uploads.upload.into_iter().map(|upload| {
        let since: jiff::Timestamp = upload.initiated.parse().map_err(|_| failed(upload.initiated.clone()))?;
        let since = SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_second().try_into().unwrap_or_default());
        Ok(Unfinished { path: Path::parse(upload.key)?, id: upload.upload_id, since })
    });
    uploads.collect()
}
