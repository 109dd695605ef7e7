//! The tags of a repository, page by page.

use http::Method;
use http::header::LINK;
use reqwest::Url;
use serde::Deserialize;

use super::Client;
use super::endpoint::Endpoint;
use super::exchange::Purpose;
use crate::challenge::ScopeSet;
use crate::error::{ClientError, Subject};
use crate::reference::Reference;
use crate::transport::{Request, host_of};

/// Tags asked for at once.
const PAGE: u32 = 1000;
/// Largest page that is accepted, in bytes.
const PAGE_MAX_BYTES: u64 = 8 * 1024 * 1024;

/// The pages of a list of tags.
#[derive(Debug)]
pub struct Tags {
    client: Client,
    reference: Reference,
    endpoint: Endpoint,
    next: Option<Url>,
}

#[derive(Deserialize)]
struct Page {
    // Some registries give `null` for a repository without tags.
    #[serde(default)]
    tags: Option<Vec<String>>,
}

impl Client {
    /// The tags of a reference's repository, as the registry itself (no mirror) has them.
    ///
    /// # Errors
    ///
    /// [`ClientError::Setting`] for a host that is none.
    pub fn tags(&self, reference: &Reference) -> Result<Tags, ClientError> {
        let endpoint = self.shared.endpoints.origin(reference, &self.shared.transport)?;
        let mut url = endpoint.url(&format!("{}/tags/list", reference.repository()));
        url.query_pairs_mut().append_pair("n", &PAGE.to_string());
        Ok(Tags { client: self.clone(), reference: reference.clone(), endpoint, next: Some(url) })
    }
}

impl Tags {
    /// The next page, which may be empty; `None` after the last.
    ///
    /// # Errors
    ///
    /// [`ClientError::Answer`] for a page that is none; those of every request.
    pub async fn next_page(&mut self) -> Result<Option<Vec<String>>, ClientError> {
        let Some(url) = self.next.take() else { return Ok(None) };
        let subject =
            Subject { registry: self.reference.host().to_owned(), what: format!("tags of {}", self.reference.name()) };
        let scopes = ScopeSet::pull(self.reference.repository());
        let purpose =
            Purpose { reference: &self.reference, scopes, subject: subject.clone(), also: &[], is_to_go_on: false };
        let shared = &self.client.shared;
        let response = shared.exchange(&self.endpoint, Request::new(Method::GET, url.clone()), &purpose).await?;
        let next = response
            .headers()
            .get_all(LINK)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .find_map(next_link)
            .map(str::to_owned);
        let bytes = shared.transport.bytes(response, PAGE_MAX_BYTES, &subject).await?;
        let page: Page = serde_json::from_slice(&bytes)
            .map_err(|error| subject.answer(format!("it is not a list of tags: {error}")))?;
        if let Some(next) = next {
            let next =
                url.join(&next).map_err(|error| subject.answer(format!("its next page is not a URL: {error}")))?;
            // The token goes with it.
            if next.scheme() != url.scheme() || host_of(&next) != host_of(&url) {
                return Err(subject.answer(format!("its next page is on another host, `{}`", host_of(&next))));
            }
            if next == url {
                return Err(subject.answer("its next page is the same page"));
            }
            self.next = Some(next);
        }
        Ok(Some(page.tags.unwrap_or_default()))
    }

    /// All tags in one list.
    ///
    /// # Errors
    ///
    /// As for [`Self::next_page`].
    pub async fn all(mut self) -> Result<Vec<String>, ClientError> {
        let mut all = Vec::new();
        while let Some(page) = self.next_page().await? {
            all.extend(page);
        }
        Ok(all)
    }
}

/// The target of `<...>; rel="next"` (RFC 8288).
fn next_link(value: &str) -> Option<&str> {
    let mut rest = value;
    loop {
        let (target, after) = rest[rest.find('<')? + 1..].split_once('>')?;
        let end = after.find(",").unwrap_or(after.len());
        let is_next = after[..end].split(';').any(|parameter| {
            let parameter = parameter.trim().to_ascii_lowercase();
            parameter == "rel=next" || parameter == "rel=\"next\""
        });
        if is_next {
            return Some(target);
        }
        rest = &after[end..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_link_is_found() {
        assert_eq!(next_link(r#"</v2/a/tags/list?n=1&last=x>; rel="next""#), Some("/v2/a/tags/list?n=1&last=x"));
        assert_eq!(next_link(r#"</p>; rel=prev, </n>; title="x" ; Rel="NEXT""#), Some("/n"));
        for none in ["", "<", "<a", "<a>", "<a>; rel=prev", "rel=next"] {
            assert_eq!(next_link(none), None, "{none}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_header_gives_an_answer(value in "[<>;=, a-z\"\\PC]{0,60}") {
            let _ = next_link(&value);
        }
    }
}
