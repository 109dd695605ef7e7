//! An upload's Location: the state that the client carries for us, under a MAC.
//!
//! The seal covers the repository and the upload's id too, so that a state cannot be moved to another upload; the key is
//! kept in the store, so that any replica can go on. Changing anything gives an unknown upload.

use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::protocol::{DataId, Nonce};
use crate::spec::{Algorithm, Digest, RepoName, UploadId};
use crate::storage::SessionName;

/// The state of an upload between two requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    pub(super) id: UploadId,
    /// The hash that the client announced, or sha256.
    pub(super) algorithm: Algorithm,
    /// How many bytes have come.
    pub(super) offset_bytes: u64,
    pub(super) held: Held,
    /// Whether it came in a Location: only then can somebody go on with the upload.
    pub(super) known_to_client: bool,
}

/// Where the bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Held {
    /// There are none yet.
    Nothing,
    /// They fit one part, which is a data object of its own.
    Data { digest: Digest, nonce: Nonce },
    /// In a multipart upload, whose state is an object.
    Session(SessionName),
}

#[derive(Serialize, Deserialize)]
struct Written {
    #[serde(rename = "o")]
    offset_bytes: u64,
    #[serde(rename = "a")]
    algorithm: String,
    #[serde(rename = "d", default, skip_serializing_if = "Option::is_none")]
    data: Option<(String, String)>,
    #[serde(rename = "s", default, skip_serializing_if = "Option::is_none")]
    session: Option<(u32, String)>,
}

impl Ticket {
    /// The upload's id.
    pub fn id(&self) -> &UploadId {
        &self.id
    }

    /// How many bytes the upload has.
    pub fn offset_bytes(&self) -> u64 {
        self.offset_bytes
    }

    /// The data object that holds the bytes, where they are in one.
    pub(super) fn data(&self) -> Option<DataId> {
        match &self.held {
            Held::Data { digest, nonce } => Some(DataId::Known(digest.clone(), nonce.clone())),
            Held::Nothing | Held::Session(_) => None,
        }
    }

    /// As the value of a parameter of the Location.
    pub(super) fn seal(&self, repo: &RepoName, key: &[u8]) -> String {
        let (data, session) = match &self.held {
            Held::Nothing => (None, None),
            Held::Data { digest, nonce } => (Some((digest.to_string(), nonce.to_string())), None),
            Held::Session(name) => (None, Some((name.seq, name.nonce.to_string()))),
        };
        let algorithm = self.algorithm.name().to_owned();
        let written = Written { offset_bytes: self.offset_bytes, algorithm, data, session };
        // Numbers and strings always become JSON.
        let state = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&written).unwrap_or_default());
        let seal = mac(key, repo, &self.id, &state).map(|mac| URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()));
        format!("{state}.{}", seal.unwrap_or_default())
    }

    /// Reads what [`Ticket::seal`] wrote with one of these keys; `None` when anything was changed.
    pub(super) fn open(sealed: &str, repo: &RepoName, id: &UploadId, keys: &[Vec<u8>]) -> Option<Self> {
        let (state, seal) = sealed.split_once('.')?;
        let seal = URL_SAFE_NO_PAD.decode(seal).ok()?;
        let fits = |key: &Vec<u8>| mac(key, repo, id, state).is_some_and(|mac| mac.verify_slice(&seal).is_ok());
        if !keys.iter().any(fits) {
            return None;
        }
        Self::parse(state, id)
    }

    /// Reads a state whose seal was looked at; `None` when it is none.
    pub fn parse(state: &str, id: &UploadId) -> Option<Self> {
        let written: Written = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(state).ok()?).ok()?;
        let held = match (written.data, written.session) {
            (None, None) => Held::Nothing,
            (Some((digest, nonce)), None) => Held::Data { digest: digest.parse().ok()?, nonce: nonce.parse().ok()? },
            (None, Some((seq, nonce))) => Held::Session(SessionName { seq, nonce: nonce.parse().ok()? }),
            (Some(_), Some(_)) => return None,
        };
        let algorithm = Algorithm::from_str(&written.algorithm).ok()?;
        let offset_bytes = written.offset_bytes;
        Some(Self { id: id.clone(), algorithm, offset_bytes, held, known_to_client: true })
    }
}

/// `None` never happens: this MAC takes keys of any length.
fn mac(key: &[u8], repo: &RepoName, id: &UploadId, state: &str) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
    // None of the parts can hold the byte between them.
    for part in ["fluyt upload 1", repo.as_str(), id.as_str(), state] {
        mac.update(part.as_bytes());
        mac.update(&[0]);
    }
    Some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn held() -> impl Strategy<Value = Held> {
        let nonce = "[0-9a-f]{24}".prop_map(|text| text.parse::<Nonce>().unwrap());
        prop_oneof![
            Just(Held::Nothing),
            ("sha256:[0-9a-f]{64}", nonce.clone())
                .prop_map(|(digest, nonce)| Held::Data { digest: digest.parse().unwrap(), nonce }),
            (any::<u32>(), nonce).prop_map(|(seq, nonce)| Held::Session(SessionName { seq, nonce })),
        ]
    }

    proptest! {
        #[test]
        fn only_what_was_sealed_opens(held in held(), offset_bytes: u64, id: u128, at: prop::sample::Index, bit in 0u8..7) {
            let repo: RepoName = "a/b".parse().unwrap();
            let ticket = Ticket { id: UploadId::from_bits(id), algorithm: Algorithm::Sha256, offset_bytes, held, known_to_client: true };
            let keys = [vec![1; 32], vec![2; 32]];
            let sealed = ticket.seal(&repo, &keys[1]);
            prop_assert_eq!(Ticket::open(&sealed, &repo, &ticket.id, &keys), Some(ticket.clone()));
            prop_assert_eq!(Ticket::open(&sealed, &"a/c".parse().unwrap(), &ticket.id, &keys), None);
            prop_assert_eq!(Ticket::open(&sealed, &repo, &UploadId::from_bits(!id), &keys), None);
            prop_assert_eq!(Ticket::open(&sealed, &repo, &ticket.id, &keys[..1]), None);
            let mut bytes = sealed.clone().into_bytes();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            if let Ok(changed) = String::from_utf8(bytes) {
                prop_assert_eq!(Ticket::open(&changed, &repo, &ticket.id, &keys), None);
            }
        }
    }
}
