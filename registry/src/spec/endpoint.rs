//! A request's path -> what it names.
//!
//! ```text
//! /v2/                                  base            end-1
//! /v2/_catalog                          catalog
//! /v2/<name>/blobs/<digest>             blob            end-2, 10
//! /v2/<name>/blobs/uploads/             uploads         end-4, 11
//! /v2/<name>/blobs/uploads/<id>         upload          end-5, 6, 13, 14
//! /v2/<name>/manifests/<reference>      manifest        end-3, 7, 9
//! /v2/<name>/tags/list                  tags            end-8
//! /v2/<name>/referrers/<digest>         referrers       end-12
//! ```
//! Names hold slashes, so a path is read from its tail; whatever is left in front of the tail is the name.

use std::fmt;
use std::str::FromStr;

use percent_encoding::percent_decode_str;

use super::digest::{Digest, DigestError};
use super::name::{NameError, Reference, RepoName};

/// What a path names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// `/v2/`
    Base,
    /// `/v2/_catalog`
    Catalog,
    /// One blob.
    Blob(RepoName, Digest),
    /// Where uploads begin.
    Uploads(RepoName),
    /// One upload.
    Upload(RepoName, UploadId),
    /// One manifest.
    Manifest(RepoName, Reference),
    /// The tags of a repository.
    Tags(RepoName),
    /// What refers to a manifest.
    Referrers(RepoName, Digest),
}

/// Why a path names nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// No endpoint has such a path.
    #[error("there is no such path")]
    Path,
    /// The repository's name is none, or the tag.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The digest is none.
    #[error(transparent)]
    Digest(#[from] DigestError),
    /// The upload's id is none.
    #[error("there is no such upload")]
    Upload,
}

/// Names one upload: 32 hex digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UploadId(Box<str>);

impl UploadId {
    /// An id made of these bits.
    pub fn from_bits(bits: u128) -> Self {
        Self(format!("{bits:032x}").into())
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for UploadId {
    type Err = EndpointError;
    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let fits = text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if fits { Ok(Self(text.into())) } else { Err(EndpointError::Upload) }
    }
}

impl fmt::Display for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Endpoint {
    /// Reads the path of a request's target, percent-encoded as it came.
    pub fn parse(path: &str) -> Result<Self, EndpointError> {
        let path = percent_decode_str(path).decode_utf8().map_err(|_| EndpointError::Path)?;
        let rest = match &*path {
            "/v2" | "/v2/" => return Ok(Self::Base),
            "/v2/_catalog" => return Ok(Self::Catalog),
            path => path.strip_prefix("/v2/").ok_or(EndpointError::Path)?,
        };
        let (front, last) = rest.rsplit_once('/').ok_or(EndpointError::Path)?;
        if let Some(name) = front.strip_suffix("/blobs/uploads") {
            let repo = name.parse()?;
            return Ok(if last.is_empty() { Self::Uploads(repo) } else { Self::Upload(repo, last.parse()?) });
        }
        let (name, kind) = front.rsplit_once('/').ok_or(EndpointError::Path)?;
        match (kind, last) {
            ("blobs", "uploads") => Ok(Self::Uploads(name.parse()?)),
            ("blobs", digest) => Ok(Self::Blob(name.parse()?, digest.parse()?)),
            ("manifests", reference) => Ok(Self::Manifest(name.parse()?, reference.parse()?)),
            ("tags", "list") => Ok(Self::Tags(name.parse()?)),
            ("referrers", digest) => Ok(Self::Referrers(name.parse()?, digest.parse()?)),
            _ => Err(EndpointError::Path),
        }
    }

    /// The repository that it belongs to.
    pub fn repo(&self) -> Option<&RepoName> {
        match self {
            Self::Base | Self::Catalog => None,
            Self::Blob(repo, _)
            | Self::Uploads(repo)
            | Self::Upload(repo, _)
            | Self::Manifest(repo, _)
            | Self::Tags(repo)
            | Self::Referrers(repo, _) => Some(repo),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Base => f.write_str("/v2/"),
            Self::Catalog => f.write_str("/v2/_catalog"),
            Self::Blob(repo, digest) => write!(f, "/v2/{repo}/blobs/{digest}"),
            Self::Uploads(repo) => write!(f, "/v2/{repo}/blobs/uploads/"),
            Self::Upload(repo, id) => write!(f, "/v2/{repo}/blobs/uploads/{id}"),
            Self::Manifest(repo, reference) => write!(f, "/v2/{repo}/manifests/{reference}"),
            Self::Tags(repo) => write!(f, "/v2/{repo}/tags/list"),
            Self::Referrers(repo, digest) => write!(f, "/v2/{repo}/referrers/{digest}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn repo() -> impl Strategy<Value = RepoName> {
        let word = prop_oneof![
            "[a-z0-9]{1,5}",
            "blobs|uploads|manifests|tags|list|referrers|v2",
            "[a-z](__|-{1,3}|[._])[0-9]"
        ];
        prop::collection::vec(word, 1..6).prop_map(|parts| parts.join("/").parse().unwrap())
    }

    fn digest() -> impl Strategy<Value = Digest> {
        prop_oneof!["sha256:[0-9a-f]{64}", "sha512:[0-9a-f]{128}"].prop_map(|text| text.parse().unwrap())
    }

    fn endpoint() -> impl Strategy<Value = Endpoint> {
        let tag = "[a-zA-Z0-9_][a-zA-Z0-9._-]{0,20}|list|uploads".prop_map(|text| text.parse::<Tag>().unwrap());
        prop_oneof![
            Just(Endpoint::Base),
            Just(Endpoint::Catalog),
            (repo(), digest()).prop_map(|(r, d)| Endpoint::Blob(r, d)),
            repo().prop_map(Endpoint::Uploads),
            (repo(), any::<u128>()).prop_map(|(r, id)| Endpoint::Upload(r, UploadId::from_bits(id))),
            (repo(), tag).prop_map(|(r, t)| Endpoint::Manifest(r, Reference::Tag(t))),
            (repo(), digest()).prop_map(|(r, d)| Endpoint::Manifest(r, Reference::Digest(d))),
            repo().prop_map(Endpoint::Tags),
            (repo(), digest()).prop_map(|(r, d)| Endpoint::Referrers(r, d)),
        ]
    }

    use super::super::name::Tag;

    proptest! {
        #[test]
        fn every_endpoint_reads_back(endpoint in endpoint()) {
            prop_assert_eq!(Endpoint::parse(&endpoint.to_string()), Ok(endpoint));
        }

        #[test]
        fn nothing_panics(path in "(/v2)?(/(blobs|uploads|manifests|tags|list|referrers|%[0-9a-f]{2}|.{0,8})){0,8}/?") {
            if let Ok(endpoint) = Endpoint::parse(&path) {
                prop_assert_eq!(Endpoint::parse(&endpoint.to_string()), Ok(endpoint));
            }
        }
    }

    #[test]
    fn paths_that_name_nothing() {
        for path in ["", "/", "/v1/", "/v2/a", "/v2/a/tags", "/v2//tags/list", "/v2/a/tags/lists", "/v2/%ff/tags/list"]
        {
            assert!(Endpoint::parse(path).is_err(), "{path}");
        }
        assert_eq!(Endpoint::parse("/v2/a/blobs/uploads/x"), Err(EndpointError::Upload));
    }
}
