//! Tokens that say who asks, for clients that ask without a password or want to send one only once.
//!
//! `docker pull` sends credentials only in the way that `GET /v2/` asked for, and for `Basic` it must have some: a
//! registry that lets everybody pull and some push can be used by it with tokens alone. A token names the caller and
//! nothing else: what the caller may do is decided at each request. It is sealed with a key that the store keeps, so
//! that every replica takes it, and dies with its user's password.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

/// Long enough for a push over a slow line, whose client cannot go back to the begin of a body to send it again.
pub(super) const LIFETIME_SECONDS: u64 = 60 * 60;

/// What a token holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Claim {
    /// `None`: anybody.
    #[serde(rename = "u", default, skip_serializing_if = "Option::is_none")]
    pub(super) user: Option<String>,
    /// Seconds since 1970.
    #[serde(rename = "e")]
    pub(super) expires: u64,
}

/// A sealed claim. `version` changes with the user's password.
pub(super) fn seal(claim: &Claim, key: &[u8], version: &[u8]) -> String {
    // A name and a number always serialise.
    let text = serde_json::to_vec(claim).unwrap_or_default();
    let mac = URL_SAFE_NO_PAD.encode(mac(&text, key, version).finalize().into_bytes());
    format!("{}.{mac}", URL_SAFE_NO_PAD.encode(text))
}

/// The claim of a token as it was made, if `version_of` its user is still what it was. Its time is not looked at.
pub(super) fn open(token: &str, key: &[u8], version_of: impl FnOnce(Option<&str>) -> Option<Vec<u8>>) -> Option<Claim> {
    let (text, seal) = token.split_once('.')?;
    let text = URL_SAFE_NO_PAD.decode(text).ok()?;
    let seal = URL_SAFE_NO_PAD.decode(seal).ok()?;
    let claim: Claim = serde_json::from_slice(&text).ok()?;
    let version = version_of(claim.user.as_deref())?;
    mac(&text, key, &version).verify_slice(&seal).ok()?;
    Some(claim)
}

fn mac(text: &[u8], key: &[u8], version: &[u8]) -> Hmac<Sha256> {
    // Any length of key will do for HMAC.
    #[expect(clippy::expect_used, reason = "HMAC takes keys of every length")]
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key");
    // The same key seals uploads: neither may pass for the other.
    for part in [b"fluyt token v1".as_slice(), version, text] {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part);
    }
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_holds_only_as_it_was_made() {
        let claim = Claim { user: Some("ann".into()), expires: 5 };
        let token = seal(&claim, b"key", b"1");
        let open = |token: &str, key: &[u8], version: &[u8]| super::open(token, key, |_| Some(version.to_vec()));
        assert_eq!(open(&token, b"key", b"1"), Some(claim));
        assert_eq!(open(&token, b"other", b"1"), None);
        assert_eq!(open(&token, b"key", b"2"), None, "another password");
        assert_eq!(super::open(&token, b"key", |_| None), None, "no such user");
        let other = seal(&Claim { user: Some("bob".into()), expires: 5 }, b"key", b"1");
        let (text, _) = other.split_once('.').unwrap_or_default();
        let (_, seal) = token.split_once('.').unwrap_or_default();
        assert_eq!(open(&format!("{text}.{seal}"), b"key", b"1"), None);
        for broken in ["", ".", "a.b", "é.é", &token[..token.len() - 1]] {
            assert_eq!(open(broken, b"key", b"1"), None, "{broken}");
        }
    }
}
