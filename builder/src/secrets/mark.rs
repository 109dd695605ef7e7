//! Tells a new value of a secret from the old one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// What is kept of a value: one byte, by which 255 of 256 other values are known to be others.
///
/// It is the same byte wherever the value is marked, so that many stores and records tell no more of it than one does, and
/// so little that every guess at the value has as many others beside it as before, but for a factor of 256.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Mark(u8);

impl Mark {
    /// The mark of this value.
    #[must_use]
    pub fn of(value: &[u8]) -> Self {
        Self(Sha256::new().chain_update(b"mark of a secret/v1").chain_update(value).finalize()[0])
    }
}

/// Marks by the ids of secrets.
pub type Marks = BTreeMap<String, Mark>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_one_byte_that_tells_most_values_apart() {
        let marks: Vec<Mark> = (0..512).map(|number| Mark::of(format!("value {number}").as_bytes())).collect();
        assert_eq!(marks[7], Mark::of(b"value 7"));
        let same = (0..256).filter(|number| marks[*number] == marks[number + 256]).count();
        assert!(same < 8, "{same} of 256 pairs are alike, where one is expected");
        assert_eq!(serde_json::to_string(&Mark(7)).unwrap(), "7");
    }
}
