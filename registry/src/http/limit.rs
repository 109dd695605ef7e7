//! How many requests one client may send: a bucket each, which fills again with time.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Seconds' worth of requests that may come at once: a pull is a burst, not a stream.
const BURST_SECONDS: f64 = 10.0;
/// Most clients that are told apart.
const CLIENTS_MAX: usize = 100_000;

/// Whose bucket it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Whose {
    /// A user, from wherever.
    User(String),
    /// An address; of IPv6 the first half, which is what one client has at its disposal.
    Address(IpAddr),
    /// Whoever has no address: in process.
    Nobody,
}

impl Whose {
    pub(super) fn of(user: Option<&str>, address: Option<IpAddr>) -> Self {
        match (user, address) {
            (Some(user), _) => Self::User(user.to_owned()),
            (None, Some(IpAddr::V6(v6))) => Self::Address(IpAddr::V6((v6.to_bits() & !0 << 64).into())),
            (None, Some(v4)) => Self::Address(v4),
            (None, None) => Self::Nobody,
        }
    }
}

#[derive(Debug)]
struct Bucket {
    left: f64,
    at: Instant,
}

/// Counts requests.
#[derive(Debug)]
pub(super) struct Limiter {
    per_second: f64,
    burst: f64,
    buckets: Mutex<HashMap<Whose, Bucket>>,
}

impl Limiter {
    pub(super) fn new(per_second: NonZeroU32) -> Self {
        let per_second = f64::from(per_second.get());
        Self { per_second, burst: per_second * BURST_SECONDS, buckets: Mutex::default() }
    }

    /// Takes one request; an error is the number of seconds until there is one again.
    pub(super) fn take(&self, whose: Whose, now: Instant) -> Result<(), u64> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let left = |bucket: &Bucket| {
            let since = now.saturating_duration_since(bucket.at).as_secs_f64();
            (bucket.left + since * self.per_second).min(self.burst)
        };
        if buckets.len() >= CLIENTS_MAX && !buckets.contains_key(&whose) {
            buckets.retain(|_, bucket| left(bucket) < self.burst);
            if buckets.len() >= CLIENTS_MAX {
                buckets.clear();
            }
        }
        let bucket = buckets.entry(whose).or_insert(Bucket { left: self.burst, at: now });
        bucket.left = left(bucket);
        bucket.at = now;
        if bucket.left < 1.0 {
            let seconds = ((1.0 - bucket.left) / self.per_second).ceil();
            // Between one and a few seconds, as `per_second` is a whole number.
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small positive number")]
            return Err((seconds as u64).max(1));
        }
        bucket.left -= 1.0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_and_then_a_rate_for_each_client() {
        let limiter = Limiter::new(NonZeroU32::new(2).unwrap());
        let address = |text: &str| Whose::of(None, Some(text.parse().unwrap()));
        let start = Instant::now();
        for _ in 0..20 {
            assert_eq!(limiter.take(address("192.0.2.1"), start), Ok(()));
        }
        assert_eq!(limiter.take(address("192.0.2.1"), start), Err(1));
        assert_eq!(limiter.take(address("192.0.2.2"), start), Ok(()));
        let later = start + Duration::from_millis(500);
        assert_eq!(limiter.take(address("192.0.2.1"), later), Ok(()));
        assert_eq!(limiter.take(address("192.0.2.1"), later), Err(1));
        let much_later = start + Duration::from_secs(3600);
        let taken = (0..100).filter(|_| limiter.take(address("192.0.2.1"), much_later).is_ok()).count();
        assert_eq!(taken, 20, "no more than a burst is saved up");
    }

    #[test]
    fn who_shares_a_bucket() {
        let of = |user: Option<&str>, address: &str| Whose::of(user, Some(address.parse().unwrap()));
        assert_eq!(of(Some("ann"), "192.0.2.1"), of(Some("ann"), "192.0.2.2"));
        assert_ne!(of(None, "192.0.2.1"), of(None, "192.0.2.2"));
        assert_eq!(of(None, "2001:db8::1"), of(None, "2001:db8::ffff:1"));
        assert_ne!(of(None, "2001:db8::1"), of(None, "2001:db8:0:1::1"));
    }

    #[test]
    fn memory_is_bounded() {
        let limiter = Limiter::new(NonZeroU32::new(1).unwrap());
        let now = Instant::now();
        for number in 0..CLIENTS_MAX + 10 {
            let _ = limiter.take(Whose::User(number.to_string()), now);
        }
        assert!(limiter.buckets.lock().unwrap().len() <= CLIENTS_MAX);
    }
}
