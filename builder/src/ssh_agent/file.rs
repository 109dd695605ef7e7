//! Keys as files hold them: OpenSSH's own form, and the three of PEM.

use aws_lc_rs::signature::{EcdsaKeyPair, Ed25519KeyPair, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::key::{CURVES, Key, RsaNumbers};
use super::wire::Reader;

const LOCKED: &str =
    "is locked by a passphrase: unlock it with `ssh-add`, and give its agent with `--ssh NAME=$SSH_AUTH_SOCK`";
const DAMAGED: &str = "is a damaged key, or of a kind that is not known";
const NO_KEY: &str = "is no private key (`-----BEGIN ... PRIVATE KEY-----`)";

/// What OpenSSH's form begins with.
const MAGIC: &[u8] = b"openssh-key-v1\0";

/// The key in a file's text. `name` is its comment where it has none of its own.
pub(super) fn parse(text: &str, name: &str) -> Result<Key, &'static str> {
    let (label, lines) = block(text).ok_or(NO_KEY)?;
    if label == "ENCRYPTED PRIVATE KEY"
        || lines.iter().any(|line| line.starts_with("Proc-Type:") && line.contains("ENCRYPTED"))
    {
        return Err(LOCKED);
    }
    let bytes = STANDARD.decode(lines.concat()).map_err(|_| DAMAGED)?;
    let key = match label {
        "OPENSSH PRIVATE KEY" => return openssh(&bytes, name),
        "RSA PRIVATE KEY" => RsaKeyPair::from_der(&bytes).ok().and_then(|pair| Key::rsa(pair, name.to_owned())),
        "EC PRIVATE KEY" => CURVES.into_iter().find_map(|curve| {
            let pair = EcdsaKeyPair::from_private_key_der(curve.signing, &bytes).ok()?;
            Some(Key::ecdsa(curve, pair, name.to_owned()))
        }),
        "PRIVATE KEY" => pkcs8(&bytes, name),
        _ => return Err(NO_KEY),
    };
    key.ok_or(DAMAGED)
}

/// The label and the lines of the first PEM block.
fn block(text: &str) -> Option<(&str, Vec<&str>)> {
    let mut lines = text.lines().map(str::trim);
    let label = lines.find_map(|line| line.strip_prefix("-----BEGIN ")?.strip_suffix("-----"))?;
    let end = format!("-----END {label}-----");
    let mut inside = Vec::new();
    for line in lines {
        if line == end {
            return Some((label, inside));
        }
        inside.push(line);
    }
    None
}

fn pkcs8(bytes: &[u8], name: &str) -> Option<Key> {
    if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(bytes) {
        return Some(Key::ed25519(pair, name.to_owned()));
    }
    if let Ok(pair) = RsaKeyPair::from_pkcs8(bytes) {
        return Key::rsa(pair, name.to_owned());
    }
    CURVES.into_iter().find_map(|curve| {
        let pair = EcdsaKeyPair::from_pkcs8(curve.signing, bytes).ok()?;
        Some(Key::ecdsa(curve, pair, name.to_owned()))
    })
}

fn openssh(bytes: &[u8], name: &str) -> Result<Key, &'static str> {
    let mut outer = Reader::new(bytes.strip_prefix(MAGIC).ok_or(DAMAGED)?);
    if outer.string().ok_or(DAMAGED)? != b"none" {
        return Err(LOCKED);
    }
    private(&mut outer, name).ok_or(DAMAGED)
}

/// The rest of such a file: how the passphrase is used, which is not, then the number of keys, the public key and the
/// private one, of which the latter holds both.
fn private(outer: &mut Reader<'_>, name: &str) -> Option<Key> {
    outer.string()?;
    outer.string()?;
    if outer.number()? != 1 {
        return None;
    }
    outer.string()?;
    let mut fields = Reader::new(outer.string()?);
    // Twice the same number: without a passphrase, a mere check.
    if fields.number()? != fields.number()? {
        return None;
    }
    let comment = |fields: &mut Reader<'_>| -> Option<String> {
        let own = String::from_utf8_lossy(fields.string()?).into_owned();
        Some(if own.is_empty() { name.to_owned() } else { own })
    };
    match fields.string()? {
        b"ssh-ed25519" => {
            let (public, private) = (fields.string()?, fields.string()?);
            let pair = Ed25519KeyPair::from_seed_and_public_key(private.get(..32)?, public).ok()?;
            Some(Key::ed25519(pair, comment(&mut fields)?))
        }
        b"ssh-rsa" => {
            let (modulus, public, private) = (fields.integer()?, fields.integer()?, fields.integer()?);
            let (inverse, p, q) = (fields.integer()?, fields.integer()?, fields.integer()?);
            let numbers = RsaNumbers { modulus, public, private, inverse, primes: [p, q] };
            Key::rsa_of(&numbers, comment(&mut fields)?)
        }
        kind if kind.starts_with(b"ecdsa-sha2-") => {
            let (curve, public, private) = (fields.string()?, fields.string()?, fields.integer()?);
            let curve = CURVES.into_iter().find(|known| known.name.as_bytes() == curve)?;
            let pair = EcdsaKeyPair::from_private_key_and_public_key(curve.signing, private, public).ok()?;
            Some(Key::ecdsa(curve, pair, comment(&mut fields)?))
        }
        _ => None,
    }
}
