//! When to try again, and how long to wait before: decisions only, the waiting is the caller's.
//!
//! Pure: clock and randomness are arguments.

use std::time::Duration;

/// How often and how patiently a failed request is tried again.
#[derive(Clone, Debug)]
pub struct RetryPolicy {
    /// Attempts in all without any progress between them; 1 means that nothing is tried again.
    pub attempts: u32,
    /// Attempts in all when no connection can be made to a host that never answered: a mistyped one should be told soon.
    pub connect_attempts: u32,
    /// How long a transfer that was under way is tried again at least, however many attempts that takes: so that a
    /// registry may start again, and a network come back, without the loss of what was sent or built.
    pub transfer_patience: Duration,
    /// The wait before the second attempt; it doubles from there.
    pub first_wait: Duration,
    /// The longest wait between two attempts that nobody asked for.
    pub longest_wait: Duration,
    /// The longest wait that a registry may ask for by `Retry-After`; a longer one ends the attempts.
    pub longest_asked_wait: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 5,
            connect_attempts: 3,
            transfer_patience: Duration::from_secs(30),
            first_wait: Duration::from_millis(250),
            longest_wait: Duration::from_secs(10),
            longest_asked_wait: Duration::from_secs(120),
        }
    }
}

/// What kind of failure it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// No connection could be made: nothing was sent.
    Connect,
    /// The connection broke, or nothing came for too long.
    Cut,
    /// What came is not what it should be, and may be the next time.
    Wrong,
    /// The registry answered with that status.
    Status { code: u16, asked: Option<Duration> },
}

impl Failure {
    /// Whether it is what is seen of a server that starts again, or of a network that is gone for a while. Other errors of
    /// a server tend to stay.
    fn may_be_an_outage(self) -> bool {
        match self {
            Self::Connect | Self::Cut => true,
            Self::Wrong => false,
            Self::Status { code, .. } => matches!(code, 408 | 425 | 429 | 502..=504),
        }
    }
}

impl RetryPolicy {
    /// The wait before the next attempt after `done` attempts that failed, or `None` to give up.
    ///
    /// `broken_for` is how long ago a transfer that was under way failed first; `None` for all else. `random` is a number
    /// from 0 to 1: of each wait, the second half is left to chance, so that many clients that failed together do not
    /// come back together.
    pub(crate) fn wait(
        &self,
        done: u32,
        broken_for: Option<Duration>,
        failure: Failure,
        random: f64,
    ) -> Option<Duration> {
        let most = match failure {
            Failure::Connect => self.connect_attempts.min(self.attempts),
            Failure::Cut | Failure::Wrong => self.attempts,
            Failure::Status { code, .. } if may_be_tried_again(code) => self.attempts,
            Failure::Status { .. } => 1,
        };
        let is_patient = self.attempts > 1 && failure.may_be_an_outage();
        if done >= most && !(is_patient && broken_for.is_some_and(|lasted| lasted < self.transfer_patience)) {
            return None;
        }
        let doubled = self.first_wait.saturating_mul(1_u32 << done.saturating_sub(1).min(20));
        let bound = doubled.min(self.longest_wait);
        let own = bound.mul_f64(0.5 + 0.5 * random.clamp(0.0, 1.0));
        match failure {
            Failure::Status { asked: Some(asked), .. } if asked > self.longest_asked_wait => None,
            // Never before the time asked for, and not all at that very moment.
            Failure::Status { asked: Some(asked), .. } => {
                Some(asked + own.min(Duration::from_secs(1)).mul_f64(random.clamp(0.0, 1.0)))
            }
            _ => Some(own),
        }
    }
}

/// Statuses that speak of the moment, not of the request: 408, 429 and the 5xx that are not a plain "no".
pub(crate) fn may_be_tried_again(code: u16) -> bool {
    matches!(code, 408 | 425 | 429) || (code >= 500 && !matches!(code, 501 | 505))
}

/// Reads `Retry-After`: seconds, or a date (RFC 9110, 10.2.3). Some registries send the moment in Unix seconds.
pub(crate) fn retry_after(value: &str, now_unix_seconds: u64) -> Option<Duration> {
    let value = value.trim();
    if let Ok(number) = value.parse::<u64>() {
        // No wait is 30 years long: such a number is a moment.
        let seconds = if number > 1_000_000_000 { number.saturating_sub(now_unix_seconds) } else { number };
        return Some(Duration::from_secs(seconds));
    }
    let moment = http_date(value)?;
    Some(Duration::from_secs(moment.saturating_sub(now_unix_seconds)))
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` as Unix seconds.
pub(crate) fn http_date(text: &str) -> Option<u64> {
    let (_, rest) = text.split_once(", ")?;
    let mut fields = rest.split(' ');
    let day: u64 = fields.next()?.parse().ok().filter(|day| (1..=31).contains(day))?;
    let month = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let name = fields.next()?;
    let month = month.iter().position(|known| *known == name)? as u64 + 1;
    let year: u64 = fields.next()?.parse().ok().filter(|year| (1970..=9999).contains(year))?;
    let mut clock = fields.next()?.split(':').map(|field| field.parse::<u64>().ok());
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    if fields.next()? != "GMT" || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    // Days since 1970-01-01 in the Gregorian calendar, counted in years that start in March.
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1;
    let days = days.checked_sub(719_468)?;
    Some(days * 86_400 + hour * 3_600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: u16) -> Failure {
        Failure::Status { code, asked: None }
    }

    #[test]
    fn waits_double_up_to_the_bound() {
        let policy = RetryPolicy { attempts: 20, ..RetryPolicy::default() };
        let waits: Vec<u128> =
            (1..9).map(|done| policy.wait(done, None, Failure::Cut, 1.0).unwrap().as_millis()).collect();
        assert_eq!(waits, [250, 500, 1000, 2000, 4000, 8000, 10_000, 10_000]);
        let least: Vec<u128> =
            (1..4).map(|done| policy.wait(done, None, Failure::Cut, 0.0).unwrap().as_millis()).collect();
        assert_eq!(least, [125, 250, 500]);
        assert!(policy.wait(19, None, Failure::Cut, 1.0).is_some());
        assert_eq!(policy.wait(20, None, Failure::Cut, 1.0), None);
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        let policy = RetryPolicy::default();
        for code in [408, 425, 429, 500, 502, 503, 504, 507] {
            assert!(policy.wait(1, None, status(code), 0.5).is_some(), "{code}");
        }
        for code in [400, 401, 403, 404, 405, 409, 416, 501, 505] {
            assert_eq!(policy.wait(1, None, status(code), 0.5), None, "{code}");
        }
        assert!(policy.wait(2, None, Failure::Connect, 0.5).is_some());
        assert_eq!(policy.wait(3, None, Failure::Connect, 0.5), None);
        let never = RetryPolicy { attempts: 1, ..RetryPolicy::default() };
        assert_eq!(never.wait(1, None, Failure::Connect, 0.5), None);
    }

    #[test]
    fn a_transfer_that_was_under_way_is_given_time_and_not_only_attempts() {
        let policy = RetryPolicy::default();
        let wait = |seconds, failure| policy.wait(99, Some(Duration::from_secs(seconds)), failure, 0.5);
        for failure in [Failure::Connect, Failure::Cut, status(502), status(503), status(429)] {
            assert!(wait(29, failure).is_some(), "{failure:?}");
            assert_eq!(wait(30, failure), None, "{failure:?}");
        }
        for failure in [Failure::Wrong, status(500), status(507), status(404)] {
            assert_eq!(wait(0, failure), None, "{failure:?}");
        }
        // Attempts that take long have not fewer of them.
        assert!(policy.wait(4, Some(Duration::from_secs(300)), Failure::Cut, 0.5).is_some());
        let never = RetryPolicy { attempts: 1, ..policy };
        assert_eq!(never.wait(1, Some(Duration::ZERO), Failure::Cut, 0.5), None);
    }

    #[test]
    fn the_time_asked_for_is_kept_within_the_bound() {
        let policy = RetryPolicy::default();
        let asked = |seconds| Failure::Status { code: 429, asked: Some(Duration::from_secs(seconds)) };
        let wait = policy.wait(1, None, asked(3), 1.0).unwrap();
        assert!(wait >= Duration::from_secs(3) && wait <= Duration::from_secs(4), "{wait:?}");
        assert_eq!(policy.wait(1, None, asked(121), 0.5), None);
    }

    #[test]
    fn retry_after_is_read_in_all_its_forms() {
        let seconds = |value, now| retry_after(value, now).map(|wait| wait.as_secs());
        assert_eq!(seconds("7", 0), Some(7));
        assert_eq!(seconds(" 0 ", 0), Some(0));
        assert_eq!(seconds("1700000060", 1_700_000_000), Some(60));
        assert_eq!(seconds("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_777 - 5), Some(5));
        assert_eq!(seconds("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_777 + 5), Some(0));
        assert_eq!(seconds("Thu, 29 Feb 2024 00:00:00 GMT", 1_709_164_800), Some(0));
        for bad in
            ["", "soon", "-1", "Sun, 99 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:37 CET", "Sun, 06 Nov", ", "]
        {
            assert_eq!(retry_after(bad, 0), None, "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_header_gives_an_answer(value in "\\PC{0,60}") {
            let _ = retry_after(&value, 1_700_000_000);
        }
    }
}
