//! The parameters of a request's target.

use std::str::FromStr;

use percent_encoding::percent_decode_str;

use crate::service::RegistryError;
use crate::spec::{Algorithm, Digest};

/// Names and values, decoded, in their order. A `+` stays one: media types hold it, and no value here holds a space.
#[derive(Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn parse(text: &str) -> Self {
        let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        Self(
            pairs
                .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
                .map(|(n, v)| (decoded(n), decoded(v)))
                .collect(),
        )
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// `digest`, where it is given.
    pub(super) fn digest(&self) -> Result<Option<Digest>, RegistryError> {
        Ok(self.get("digest").map(Digest::from_str).transpose()?)
    }

    /// `digest-algorithm`, where it is given.
    pub(super) fn algorithm(&self) -> Result<Option<Algorithm>, RegistryError> {
        Ok(self.get("digest-algorithm").map(Algorithm::from_str).transpose()?)
    }

    /// `n`: how many entries at most.
    pub(super) fn count(&self, most: usize) -> Result<usize, RegistryError> {
        let Some(text) = self.get("n") else { return Ok(most) };
        let count: u64 = text.parse().map_err(|_| RegistryError::Parameter {
            name: "n",
            found: text.chars().take(50).collect(),
            expected: "a whole number, 0 or more",
        })?;
        Ok(usize::try_from(count).unwrap_or(most).min(most))
    }
}
