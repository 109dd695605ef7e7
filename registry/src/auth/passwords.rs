//! Checks passwords: bcrypt away from the threads that serve, few at a time, and each pair only once in a while.
//!
//! Whoever guesses is slowed down, and shuts out nobody: a wrong password counts once, however often a client with an old one
//! repeats it; and at the limit one login at a time waits until it may be checked, in place of being refused unseen.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::{AuthError, Users};

/// How long a pair that was right needs no second check. A change of its hash ends this at once.
const REMEMBERED: Duration = Duration::from_secs(15 * 60);
/// How long a pair that was wrong is wrong without a second check, and does not count again.
const REMEMBERED_WRONG: Duration = Duration::from_secs(10 * 60);
/// Most pairs remembered of either kind; forgetting one costs a check.
const REMEMBERED_MAX: usize = 10_000;
/// How long a login may wait for others' checks.
const PATIENCE: Duration = Duration::from_secs(10);
/// Different wrong passwords that one address may give for one user in a row, and how long it takes to be allowed one more.
const FAILURES_MAX: u32 = 10;
const FAILURE_FORGIVEN: Duration = Duration::from_secs(6);
/// Most pairs of address and user whose failures are kept.
const FAILURES_KEPT: usize = 100_000;
/// Checked for a user that is not there, when there is none at all to compare with: as `htpasswd -B -C 10` would make.
const NOBODY: &str = "$2y$10$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";

/// Users, and what is known of their passwords.
pub struct Passwords {
    users: RwLock<Arc<Users>>,
    right: Mutex<Pairs>,
    wrong: Mutex<Pairs>,
    failures: Mutex<HashMap<Culprit, Failures>>,
    /// Whose next login waits until it may be checked.
    waiting: Mutex<HashSet<Culprit>>,
    /// Makes what is remembered useless to whoever reads the memory later, and other names impossible to collide.
    key: [u8; 32],
    checks: Arc<Semaphore>,
}

/// Who guesses whose password: an address, and a hash of the user's name.
type Culprit = (Option<IpAddr>, [u8; 32]);

#[derive(Clone, Copy)]
struct Failures {
    count: u32,
    last: Instant,
}

impl Failures {
    /// How many count still.
    fn now(self) -> u32 {
        let forgiven = self.last.elapsed().as_secs() / FAILURE_FORGIVEN.as_secs();
        self.count.saturating_sub(u32::try_from(forgiven).unwrap_or(u32::MAX))
    }
}

const TOO_MANY: AuthError = AuthError::TooMany { retry_after_seconds: FAILURE_FORGIVEN.as_secs() };

/// Pairs of user and password that were checked, as MACs, and when.
struct Pairs {
    since: HashMap<[u8; 32], Instant>,
    kept: Duration,
}

impl Pairs {
    fn kept(kept: Duration) -> Self {
        Self { since: HashMap::new(), kept }
    }

    fn holds(&self, pair: &[u8; 32]) -> bool {
        self.since.get(pair).is_some_and(|since| since.elapsed() < self.kept)
    }

    /// Whether it was not known yet.
    fn remember(&mut self, pair: [u8; 32]) -> bool {
        let new = !self.holds(&pair);
        if self.since.len() >= REMEMBERED_MAX {
            self.since.retain(|_, since| since.elapsed() < self.kept);
        }
        if self.since.len() >= REMEMBERED_MAX {
            self.since.clear();
        }
        self.since.insert(pair, Instant::now());
        new
    }
}

/// A login that waits for its check or is checked, before all others of the same culprit.
struct Turn<'a> {
    passwords: &'a Passwords,
    culprit: Culprit,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        lock(&self.passwords.waiting).remove(&self.culprit);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl std::fmt::Debug for Passwords {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Passwords({:?})", self.users())
    }
}

impl Passwords {
    /// For these users; `key` is random and known to nobody else. At most `checks_at_once` passwords are checked at a
    /// time, each taking a whole processor.
    pub fn new(users: Users, key: [u8; 32], checks_at_once: usize) -> Self {
        Self {
            users: RwLock::new(Arc::new(users)),
            right: Mutex::new(Pairs::kept(REMEMBERED)),
            wrong: Mutex::new(Pairs::kept(REMEMBERED_WRONG)),
            failures: Mutex::default(),
            waiting: Mutex::default(),
            key,
            checks: Arc::new(Semaphore::new(checks_at_once.max(1))),
        }
    }

    /// From now on these users, with these passwords.
    pub fn replace(&self, users: Users) {
        *self.users.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(users);
        lock(&self.wrong).since.clear();
    }

    fn users(&self) -> Arc<Users> {
        self.users.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Something secret that changes whenever the user's password does, the same on every replica; `None` without such
    /// a user.
    pub(super) fn version(&self, user: &str) -> Option<Vec<u8>> {
        Some(self.users().hash(user)?.as_bytes().to_vec())
    }

    /// Is it the user's password? Takes as long for a user that is not there.
    pub(super) async fn check(&self, user: &str, password: &str, from: Option<IpAddr>) -> Result<(), AuthError> {
        let users = self.users();
        let hash = users.hash(user);
        let pair = self.mac(&[b"pair", user.as_bytes(), password.as_bytes(), hash.unwrap_or_default().as_bytes()]);
        // Before the limit: whoever guesses from the same address must not shut out who is right.
        if let Some(known) = self.remembered(&pair) {
            return known;
        }
        let culprit = (from, self.mac(&[b"user", user.as_bytes()]));
        let turn = self.turn(culprit).await?;
        let checks = tokio::time::timeout(PATIENCE, self.checks.clone().acquire_owned());
        let Ok(Ok(permit)) = checks.await else { return Err(AuthError::Busy) };
        // Clients open several connections at once: the first one's check does for all.
        if let Some(known) = self.remembered(&pair) {
            return known;
        }
        // Of many at once the first ones may have used it up.
        if turn.is_none() && self.wait_of(&culprit).is_some() {
            return Err(TOO_MANY);
        }
        let known = hash.is_some();
        let hash = hash.or(users.costliest()).unwrap_or(NOBODY).to_owned();
        let password = password.to_owned();
        let checked = tokio::task::spawn_blocking(move || {
            // Held here, so that a request given up does not let the next one begin before this check is over; and until it
            // is counted.
            (bcrypt::verify(password, &hash).unwrap_or(false), permit)
        });
        let checked = checked.await;
        let right = known && checked.as_ref().is_ok_and(|(right, _)| *right);
        if right {
            lock(&self.right).remember(pair);
            self.failures().remove(&culprit);
            return Ok(());
        }
        // What was not checked to its end is not known.
        if checked.is_ok() && lock(&self.wrong).remember(pair) {
            self.count_failure(culprit);
        }
        Err(AuthError::Wrong)
    }

    fn mac(&self, parts: &[&[u8]]) -> [u8; 32] {
        #[expect(clippy::expect_used, reason = "HMAC takes keys of every length")]
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("a key");
        for part in parts {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }

    fn remembered(&self, pair: &[u8; 32]) -> Option<Result<(), AuthError>> {
        if lock(&self.right).holds(pair) {
            return Some(Ok(()));
        }
        lock(&self.wrong).holds(pair).then_some(Err(AuthError::Wrong))
    }

    fn failures(&self) -> MutexGuard<'_, HashMap<Culprit, Failures>> {
        lock(&self.failures)
    }

    /// How long it takes until a login may be checked again; `None`: it may now.
    fn wait_of(&self, culprit: &Culprit) -> Option<Duration> {
        let failures = self.failures().get(culprit).copied().filter(|failures| failures.now() >= FAILURES_MAX)?;
        Some(FAILURE_FORGIVEN.saturating_sub(failures.last.elapsed()))
    }

    /// Nothing below the limit. At it, one login waits until it may be checked, and nobody comes before it.
    async fn turn(&self, culprit: Culprit) -> Result<Option<Turn<'_>>, AuthError> {
        let wait = {
            let mut waiting = lock(&self.waiting);
            if waiting.contains(&culprit) {
                return Err(TOO_MANY);
            }
            let Some(wait) = self.wait_of(&culprit) else { return Ok(None) };
            waiting.insert(culprit);
            wait
        };
        let turn = Turn { passwords: self, culprit };
        tokio::time::sleep(wait).await;
        Ok(Some(turn))
    }

    fn count_failure(&self, culprit: Culprit) {
        let mut failures = self.failures();
        if failures.len() >= FAILURES_KEPT {
            failures.retain(|_, failures| failures.now() > 0);
        }
        if failures.len() >= FAILURES_KEPT {
            // Somebody makes up names faster than they are forgiven: the limit is not what stops that.
            failures.clear();
        }
        let count = failures.get(&culprit).map_or(0, |failures| failures.now());
        failures.insert(culprit, Failures { count: count.saturating_add(1).min(FAILURES_MAX), last: Instant::now() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn many_at_once_use_up_no_more_than_one_after_the_other() {
        let passwords = passwords(&[("ann", "a")]);
        let address = Some("192.0.2.7".parse().unwrap());
        let guesses = (0..40).map(|guess| {
            let passwords = &passwords;
            async move { passwords.check("ann", &format!("wrong {guess}"), address).await }
        });
        let answers = futures_util::future::join_all(guesses).await;
        let wrong = answers.iter().filter(|answer| **answer == Err(AuthError::Wrong)).count();
        assert_eq!(wrong, FAILURES_MAX as usize, "{answers:?}");
        assert_eq!(answers.iter().filter(|answer| **answer == Err(TOO_MANY)).count(), 40 - wrong);
        let counted: Vec<u32> = passwords.failures().values().map(|failures| failures.count).collect();
        assert_eq!(counted, [FAILURES_MAX], "one is forgiven when Retry-After says so");
    }

    fn users(pairs: &[(&str, &str)]) -> Users {
        let lines: Vec<String> =
            pairs.iter().map(|(user, password)| format!("{user}:{}", bcrypt::hash(password, 4).unwrap())).collect();
        Users::parse(&lines.join("\n")).unwrap()
    }

    fn passwords(pairs: &[(&str, &str)]) -> Passwords {
        Passwords::new(users(pairs), [7; 32], 1)
    }

    #[tokio::test]
    async fn a_password_is_right_for_its_user_alone() {
        let passwords = passwords(&[("ann", "a"), ("bob", "b")]);
        for (user, password, expected) in [
            ("ann", "a", Ok(())),
            ("ann", "a", Ok(())),
            ("ann", "b", Err(AuthError::Wrong)),
            ("bob", "b", Ok(())),
            ("bob", "", Err(AuthError::Wrong)),
            ("carl", "a", Err(AuthError::Wrong)),
            ("", "", Err(AuthError::Wrong)),
            ("ann", "a\0", Err(AuthError::Wrong)),
        ] {
            assert_eq!(passwords.check(user, password, None).await, expected, "{user} {password}");
        }
    }

    #[tokio::test]
    async fn a_changed_file_counts_at_once() {
        let passwords = passwords(&[("ann", "a")]);
        assert_eq!(passwords.check("ann", "a", None).await, Ok(()));
        let before = passwords.version("ann");
        passwords.replace(users(&[("ann", "new")]));
        assert_eq!(passwords.check("ann", "a", None).await, Err(AuthError::Wrong));
        assert_eq!(passwords.check("ann", "new", None).await, Ok(()));
        assert_ne!(passwords.version("ann"), before);
        passwords.replace(users(&[]));
        assert_eq!(passwords.check("ann", "new", None).await, Err(AuthError::Wrong));
        assert_eq!(passwords.version("ann"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn guessing_is_limited_by_address_and_user_and_does_not_shut_out_who_is_right() {
        let passwords = passwords(&[("ann", "a"), ("bob", "b")]);
        let here = Some("192.0.2.1".parse().unwrap());
        let there = Some("192.0.2.2".parse().unwrap());
        assert_eq!(passwords.check("bob", "b", here).await, Ok(()));
        for guess in 0..FAILURES_MAX {
            assert_eq!(passwords.check("ann", &guess.to_string(), here).await, Err(AuthError::Wrong));
            assert_eq!(passwords.check("bob", &guess.to_string(), here).await, Err(AuthError::Wrong));
        }
        assert_eq!(
            passwords.check("ann", "a", there).await,
            Ok(()),
            "from elsewhere, and known to be right from here on"
        );
        assert_eq!(passwords.check("ann", "a", here).await, Ok(()));
        assert_eq!(passwords.check("bob", "b", here).await, Ok(()), "a pair that is known to be right");
        // Who is not known yet waits for their turn, and whoever else asks meanwhile is told to wait.
        passwords.replace(users(&[("ann", "new")]));
        let began = Instant::now();
        let (right, wrong) =
            tokio::join!(passwords.check("ann", "new", here), passwords.check("ann", "another guess", here));
        assert_eq!((right, wrong), (Ok(()), Err(TOO_MANY)));
        assert!(began.elapsed() <= FAILURE_FORGIVEN, "{:?}", began.elapsed());
    }

    #[tokio::test]
    async fn a_wrong_password_counts_once_and_is_checked_once() {
        let hash = bcrypt::hash("a", 9).unwrap();
        let passwords = Passwords::new(Users::parse(&format!("ann:{hash}")).unwrap(), [7; 32], 1);
        let began = Instant::now();
        assert_eq!(passwords.check("ann", "old", None).await, Err(AuthError::Wrong));
        let one = began.elapsed();
        let began = Instant::now();
        for _ in 0..3 * FAILURES_MAX {
            assert_eq!(passwords.check("ann", "old", None).await, Err(AuthError::Wrong));
        }
        assert!(began.elapsed() < one * 10, "30 checks took {:?}, one takes {one:?}", began.elapsed());
        assert_eq!(passwords.check("ann", "a", None).await, Ok(()), "nobody else is shut out");
        // Another file of users may make it right.
        passwords.replace(users(&[("ann", "old")]));
        assert_eq!(passwords.check("ann", "old", None).await, Ok(()));
    }

    #[tokio::test]
    async fn many_connections_of_one_client_cost_one_check() {
        let hash = bcrypt::hash("a", 9).unwrap();
        let passwords = Passwords::new(Users::parse(&format!("ann:{hash}")).unwrap(), [7; 32], 1);
        let began = Instant::now();
        assert_eq!(passwords.check("ann", "wrong", None).await, Err(AuthError::Wrong));
        let one = began.elapsed();
        let began = Instant::now();
        let all = futures_util::future::join_all((0..20).map(|_| passwords.check("ann", "a", None))).await;
        assert!(all.iter().all(Result::is_ok), "{all:?}");
        assert!(began.elapsed() < one * 10, "20 checks took {:?}, one takes {one:?}", began.elapsed());
    }

    #[tokio::test]
    async fn the_name_of_a_user_cannot_be_told_from_the_time_it_takes() {
        let hash = bcrypt::hash("a", 9).unwrap();
        let passwords = Passwords::new(Users::parse(&format!("ann:{hash}")).unwrap(), [7; 32], 1);
        let mut least = [Duration::MAX; 2];
        for round in 0..3 {
            for (index, user) in ["ann", "nobody"].into_iter().enumerate() {
                let began = Instant::now();
                assert_eq!(passwords.check(user, &format!("wrong {round}"), None).await, Err(AuthError::Wrong));
                least[index] = least[index].min(began.elapsed());
            }
        }
        let [known, unknown] = least.map(|least| least.as_secs_f64());
        assert!((0.5..2.0).contains(&(known / unknown)), "{known} s and {unknown} s");
    }
}
