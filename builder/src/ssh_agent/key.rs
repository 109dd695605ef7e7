//! A key, and what it signs.

use std::fmt;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPairComponents, PublicKeyComponents};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA512, RsaEncoding, RsaKeyPair,
};

use super::wire::{integer, string};

/// Wishes of a client for signatures of an RSA key. Without either it wants SHA-1, which servers of today refuse.
const SHA_256: u32 = 2;
const SHA_512: u32 = 4;

/// A curve: its name in SSH, and the library's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Curve {
    pub(super) name: &'static str,
    pub(super) signing: &'static EcdsaSigningAlgorithm,
}

/// The curves that SSH has.
pub(super) const CURVES: [Curve; 3] = [
    Curve { name: "nistp256", signing: &ECDSA_P256_SHA256_FIXED_SIGNING },
    Curve { name: "nistp384", signing: &ECDSA_P384_SHA384_FIXED_SIGNING },
    Curve { name: "nistp521", signing: &ECDSA_P521_SHA512_FIXED_SIGNING },
];

/// The numbers of an RSA key, as OpenSSH writes them.
pub(super) struct RsaNumbers<'b> {
    pub(super) modulus: &'b [u8],
    pub(super) public: &'b [u8],
    pub(super) private: &'b [u8],
    pub(super) inverse: &'b [u8],
    pub(super) primes: [&'b [u8]; 2],
}

enum Pair {
    Ed25519(Ed25519KeyPair),
    Ecdsa(Curve, EcdsaKeyPair),
    Rsa(Box<RsaKeyPair>),
}

/// A private key with its public half as the protocol shows it.
pub(super) struct Key {
    pair: Pair,
    public: Vec<u8>,
    comment: String,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("comment", &self.comment).finish_non_exhaustive()
    }
}

impl Key {
    pub(super) fn ed25519(pair: Ed25519KeyPair, comment: String) -> Self {
        let mut public = Vec::new();
        string(&mut public, b"ssh-ed25519");
        string(&mut public, pair.public_key().as_ref());
        Self { pair: Pair::Ed25519(pair), public, comment }
    }

    pub(super) fn ecdsa(curve: Curve, pair: EcdsaKeyPair, comment: String) -> Self {
        let mut public = Vec::new();
        string(&mut public, format!("ecdsa-sha2-{}", curve.name).as_bytes());
        string(&mut public, curve.name.as_bytes());
        string(&mut public, pair.public_key().as_ref());
        Self { pair: Pair::Ecdsa(curve, pair), public, comment }
    }

    /// The library gives the public numbers as DER: a sequence (0x30) of two integers (0x02).
    pub(super) fn rsa(pair: RsaKeyPair, comment: String) -> Option<Self> {
        let (numbers, _) = element(pair.public_key().as_ref(), 0x30)?;
        let (modulus, rest) = element(numbers, 0x02)?;
        let (exponent, _) = element(rest, 0x02)?;
        let mut public = Vec::new();
        string(&mut public, b"ssh-rsa");
        integer(&mut public, exponent);
        integer(&mut public, modulus);
        Some(Self { pair: Pair::Rsa(Box::new(pair)), public, comment })
    }

    /// OpenSSH's files leave out two numbers that the library wants. It checks that all fit each other.
    pub(super) fn rsa_of(numbers: &RsaNumbers<'_>, comment: String) -> Option<Self> {
        let [p, q] = numbers.primes;
        let (for_p, for_q) = (remainder(numbers.private, &less_one(p)?)?, remainder(numbers.private, &less_one(q)?)?);
        let pair = RsaKeyPair::from_components(&KeyPairComponents {
            public_key: PublicKeyComponents { n: numbers.modulus, e: numbers.public },
            d: numbers.private,
            p,
            q,
            dP: &for_p,
            dQ: &for_q,
            qInv: numbers.inverse,
        });
        Self::rsa(pair.ok()?, comment)
    }

    pub(super) fn public(&self) -> &[u8] {
        &self.public
    }

    pub(super) fn comment(&self) -> &str {
        &self.comment
    }

    /// A signature as the protocol has it: its kind, and itself.
    pub(super) fn sign(&self, data: &[u8], flags: u32) -> Option<Vec<u8>> {
        let (kind, bytes) = match &self.pair {
            Pair::Ed25519(pair) => ("ssh-ed25519".to_owned(), pair.try_sign(data).ok()?.as_ref().to_vec()),
            Pair::Ecdsa(curve, pair) => {
                let signature = pair.sign(&SystemRandom::new(), data).ok()?;
                let (r, s) = signature.as_ref().split_at_checked(signature.as_ref().len() / 2)?;
                let mut both = Vec::new();
                integer(&mut both, r);
                integer(&mut both, s);
                (format!("ecdsa-sha2-{}", curve.name), both)
            }
            Pair::Rsa(pair) => {
                let (kind, encoding): (_, &'static dyn RsaEncoding) = match flags {
                    flags if flags & SHA_512 != 0 => ("rsa-sha2-512", &RSA_PKCS1_SHA512),
                    flags if flags & SHA_256 != 0 => ("rsa-sha2-256", &RSA_PKCS1_SHA256),
                    _ => return None,
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(encoding, &SystemRandom::new(), data, &mut signature).ok()?;
                (kind.to_owned(), signature)
            }
        };
        let mut signature = Vec::new();
        string(&mut signature, kind.as_bytes());
        string(&mut signature, &bytes);
        Some(signature)
    }
}

/// The first element of DER, which must have this tag, and what follows it.
fn element(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&first, rest) = bytes.split_first()?;
    let (&short, rest) = rest.split_first()?;
    if first != tag {
        return None;
    }
    // From 128 on, the lower bits say how many bytes the length has.
    let (length, rest) = match short {
        0..0x80 => (usize::from(short), rest),
        _ => {
            let (bytes, rest) = rest.split_at_checked(usize::from(short & 0x7f))?;
            let length =
                bytes.iter().try_fold(0_usize, |length, byte| length.checked_mul(256)?.checked_add((*byte).into()));
            (length?, rest)
        }
    };
    rest.split_at_checked(length)
}

/// An odd number less one.
fn less_one(number: &[u8]) -> Option<Vec<u8>> {
    let mut less = number.to_vec();
    let last = less.last_mut().filter(|last| **last & 1 == 1)?;
    *last -= 1;
    Some(less)
}

/// What is left of `number` when `divisor` is taken from it as often as possible: bit by bit, as on paper. Both are a few
/// hundred bytes at most, and this is done once a key.
fn remainder(number: &[u8], divisor: &[u8]) -> Option<Vec<u8>> {
    let width = divisor.len() + 1;
    let divisor: Vec<u8> = [0].iter().chain(divisor).copied().collect();
    if divisor.iter().all(|byte| *byte == 0) || number.len() > 2048 {
        return None;
    }
    let mut left = vec![0; width];
    for bit in number.iter().flat_map(|byte| (0..8).rev().map(move |at| (byte >> at) & 1)) {
        let mut carry = bit;
        for byte in left.iter_mut().rev() {
            let out = *byte >> 7;
            *byte = (*byte << 1) | carry;
            carry = out;
        }
        if left >= divisor {
            let mut borrow = 0;
            for (byte, other) in left.iter_mut().zip(&divisor).rev() {
                let (less, one) = byte.overflowing_sub(*other);
                let (less, two) = less.overflowing_sub(borrow);
                (*byte, borrow) = (less, u8::from(one || two));
            }
        }
    }
    Some(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remainders_are_those_of_the_machine() {
        for (number, divisor) in [(0_u64, 1), (5, 7), (7, 7), (1 << 63, 3), (u64::MAX, 65_537), (123_456_789, 1000)] {
            let left = remainder(&number.to_be_bytes(), &u64::to_be_bytes(divisor)).unwrap();
            assert_eq!(left[1..], (number % divisor).to_be_bytes(), "{number} {divisor}");
        }
        assert_eq!(remainder(&[1], &[0, 0]), None);
        assert_eq!(remainder(&[1], &[]), None);
    }

    #[test]
    fn elements_are_read_with_short_and_long_lengths() {
        let long = [&[0x02, 0x81, 0x80][..], &[7; 128], &[9]].concat();
        assert_eq!(element(&long, 0x02), Some((&[7; 128][..], &[9][..])));
        assert_eq!(element(&[0x30, 2, 1, 2, 3], 0x30), Some((&[1, 2][..], &[3][..])));
        for wrong in [&[][..], &[0x30], &[0x02, 1, 1], &[0x30, 3, 1, 2], &[0x30, 0x82, 1], &[0x30, 0xff, 1, 2]] {
            assert_eq!(element(wrong, 0x30), None, "{wrong:?}");
        }
    }
}
