//! `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix`.

use std::fmt;

/// Whose API a store speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provider {
    /// S3, Amazon's and all that speak like it.
    S3,
    /// Google Cloud Storage.
    Gcs,
    /// Azure blob storage.
    Azure,
}

impl Provider {
    fn scheme(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Gcs => "gs",
            Self::Azure => "az",
        }
    }

    /// What it calls the place of objects.
    pub(super) fn bucket(self) -> &'static str {
        match self {
            Self::S3 | Self::Gcs => "bucket",
            Self::Azure => "container",
        }
    }
}

/// Where a store is in the cloud: everything about it that is no secret and belongs to it alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloudAddress {
    /// Whose API.
    pub provider: Provider,
    /// The bucket or container.
    pub bucket: String,
    /// What all of its keys begin with; empty, or without a slash at either end.
    pub prefix: String,
}

impl CloudAddress {
    /// Reads a URL; `None` when its scheme is not one of a cloud.
    pub fn parse(url: &str) -> Option<Result<Self, String>> {
        let (scheme, rest) = url.split_once("://")?;
        let provider = match scheme {
            "s3" => Provider::S3,
            "gs" => Provider::Gcs,
            "az" => Provider::Azure,
            _ => return None,
        };
        Some(Self::of(provider, url, rest))
    }

    fn of(provider: Provider, url: &str, rest: &str) -> Result<Self, String> {
        let name = provider.bucket();
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let is_name = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.' | b'_' | b'$');
        if !(3..=222).contains(&bucket.len()) || !bucket.bytes().all(is_name) {
            return Err(format!(
                "`{url}`: `{bucket}` is not the name of a {name}: expected {}://{}/PREFIX, in lower case, with 3 characters or more",
                provider.scheme(),
                name.to_uppercase()
            ));
        }
        let prefix = prefix.trim_end_matches('/');
        let is_safe = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'/' | b'=');
        let is_segment = |segment: &str| !matches!(segment, "" | "." | "..");
        // Other characters are spelled in as many ways as there are clients; nobody needs them in a prefix.
        if !prefix.bytes().all(is_safe) || !(prefix.is_empty() || prefix.split('/').all(is_segment)) {
            return Err(format!(
                "`{url}`: the prefix `{prefix}` cannot be used: expected letters, digits, `-`, `_`, `.` and `=`, with single slashes between"
            ));
        }
        if prefix.len() > 200 {
            return Err(format!("`{url}`: the prefix has {} characters, expected at most 200", prefix.len()));
        }
        Ok(Self { provider, bucket: bucket.to_owned(), prefix: prefix.to_owned() })
    }
}

impl fmt::Display for CloudAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.provider.scheme(), self.bucket)?;
        if self.prefix.is_empty() { Ok(()) } else { write!(f, "/{}", self.prefix) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_back() {
        for (url, shown) in [
            ("s3://bucket", "s3://bucket"),
            ("s3://bucket/", "s3://bucket"),
            ("gs://my.bucket_1/a/b/", "gs://my.bucket_1/a/b"),
            ("az://container/a=1/B", "az://container/a=1/B"),
            ("az://$web/x", "az://$web/x"),
        ] {
            let address = CloudAddress::parse(url).unwrap().unwrap();
            assert_eq!(address.to_string(), shown);
            assert_eq!(CloudAddress::parse(shown).unwrap().unwrap(), address);
        }
        assert_eq!(CloudAddress::parse("file:///x"), None);
        assert_eq!(CloudAddress::parse("memory:"), None);
    }

    #[test]
    fn what_is_none_says_why() {
        for (url, part) in [
            ("s3://", "not the name of a bucket"),
            ("s3:///key", "not the name of a bucket"),
            ("s3://Bucket", "in lower case"),
            ("az://c@account/x", "not the name of a container"),
            ("s3://bucket//x", "single slashes"),
            ("s3://bucket/a//b", "single slashes"),
            ("s3://bucket/../b", "cannot be used"),
            ("s3://bucket/a b", "cannot be used"),
            ("s3://bucket/a%20b", "cannot be used"),
            ("s3://bucket/a?region=x", "cannot be used"),
        ] {
            let error = CloudAddress::parse(url).unwrap().unwrap_err();
            assert!(error.contains(part) && error.contains(url), "{url}: {error}");
        }
        assert!(CloudAddress::parse(&format!("s3://bucket/{}", "x".repeat(201))).unwrap().is_err());
    }
}
