//! The text of a password file -> users and their hashes. Pure.
//!
//! A line is `<user>:<hash>`; empty lines and lines that begin with `#` are left out. Only bcrypt is taken: what else
//! `htpasswd` can write is guessed in seconds by whoever gets hold of the file.

use std::collections::HashMap;

/// Lowest and highest cost taken: below, a hash is guessed too easily; above, one login takes a minute.
const COSTS: std::ops::RangeInclusive<u32> = 4..=16;
/// What to do about another kind of hash.
const ADVICE: &str = "make it with `htpasswd -B -C 10 FILE USER`";

/// Users and their bcrypt hashes.
#[derive(Default)]
pub struct Users {
    hashes: HashMap<String, String>,
    costliest: Option<String>,
}

impl std::fmt::Debug for Users {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Users({})", self.hashes.len())
    }
}

/// What is wrong with a password file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct HtpasswdError {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong, what was expected, what to do. Never holds a hash.
    pub problem: String,
}

impl Users {
    /// Reads a whole file.
    pub fn parse(text: &str) -> Result<Self, HtpasswdError> {
        let mut users = Self::default();
        let mut lines: HashMap<&str, usize> = HashMap::new();
        let mut highest = 0;
        for (index, raw) in text.lines().enumerate() {
            let line = index + 1;
            let wrong = |problem: String| HtpasswdError { line, problem };
            let text = raw.trim();
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let Some((user, hash)) = text.split_once(':') else {
                return Err(wrong(format!("it has no `:`: expected `USER:HASH`, {ADVICE}")));
            };
            if user.is_empty() || user.chars().any(|c| c.is_control() || c.is_whitespace()) {
                return Err(wrong("the user's name is empty or holds white space: expected `USER:HASH`".into()));
            }
            let cost = cost(hash).map_err(|found| {
                wrong(format!("user `{user}` has {found}: only bcrypt is taken (`$2y$...`): {ADVICE}"))
            })?;
            if !COSTS.contains(&cost) {
                let (least, most) = (COSTS.start(), COSTS.end());
                return Err(wrong(format!(
                    "user `{user}` has a bcrypt hash of cost {cost}, expected {least} to {most}: {ADVICE}"
                )));
            }
            if let Some(first) = lines.insert(user, line) {
                return Err(wrong(format!("user `{user}` is in line {first} already: remove one of the two")));
            }
            if cost > highest {
                highest = cost;
                users.costliest = Some(hash.to_owned());
            }
            users.hashes.insert(user.to_owned(), hash.to_owned());
        }
        Ok(users)
    }

    /// The hash of a user's password.
    pub(super) fn hash(&self, user: &str) -> Option<&str> {
        self.hashes.get(user).map(String::as_str)
    }

    /// A hash that takes as long to check as any user's.
    pub(super) fn costliest(&self) -> Option<&str> {
        self.costliest.as_deref()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.hashes.len()
    }
}

/// The cost of a bcrypt hash, or in words what it is instead.
fn cost(hash: &str) -> Result<u32, &'static str> {
    if !["$2a$", "$2b$", "$2y$"].iter().any(|kind| hash.starts_with(kind)) {
        return Err(match hash {
            "" => "no hash",
            _ if hash.starts_with("$apr1$") => "an MD5 hash (apr1)",
            _ if hash.starts_with("{SHA}") || hash.starts_with("{SSHA}") => "a SHA-1 hash",
            _ if hash.starts_with("$5$") || hash.starts_with("$6$") => "a SHA-2 crypt hash",
            _ if hash.starts_with("$2x$") => "a hash of a bcrypt with a known fault (`$2x$`)",
            _ if hash.starts_with("$argon2") => "an argon2 hash",
            _ => "a plain password, or a hash that is not known",
        });
    }
    let broken = "a bcrypt hash that is cut off or altered";
    let alphabet = |c: u8| c.is_ascii_alphanumeric() || c == b'.' || c == b'/';
    let (cost, rest) = hash[4..].split_once('$').ok_or(broken)?;
    if cost.len() != 2 || rest.len() != 53 || !rest.bytes().all(alphabet) {
        return Err(broken);
    }
    cost.parse().map_err(|_| broken)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "$2y$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";

    fn problem(text: &str) -> String {
        Users::parse(text).map(|users| users.count().to_string()).unwrap_or_else(|error| error.to_string())
    }

    #[test]
    fn users_are_read() {
        let users = Users::parse(&format!("# people\r\n\nann:{HASH}\r\nbob:{}\n", HASH.replace("05", "06")));
        let users = users.expect("a good file");
        assert_eq!(users.count(), 2);
        assert_eq!(users.hash("ann"), Some(HASH));
        assert!(users.costliest().is_some_and(|hash| hash.starts_with("$2y$06$")));
        assert_eq!(users.hash("carl"), None);
        assert_eq!(problem(""), "0");
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line_and_without_the_hash() {
        let line = |user_and_hash: &str| problem(&format!("ann:{HASH}\n{user_and_hash}\n"));
        assert_eq!(
            line("bob:$apr1$x$secret"),
            "line 2: user `bob` has an MD5 hash (apr1): only bcrypt is taken (`$2y$...`): make it with `htpasswd -B -C 10 FILE USER`"
        );
        for (given, expected) in [
            ("bob:{SHA}secret", "a SHA-1 hash"),
            ("bob:secret", "a plain password, or a hash that is not known"),
            ("bob:", "no hash"),
            ("bob:$2y$05$secret", "cut off or altered"),
            ("bob", "it has no `:`"),
            (":x", "the user's name is empty"),
            (&format!("b b:{HASH}"), "holds white space"),
            (&format!("ann:{HASH}"), "user `ann` is in line 1 already"),
            (&format!("bob:{}", HASH.replace("05", "31")), "of cost 31, expected 4 to 16"),
            (&format!("bob:{}", HASH.replace("05", "é")), "cut off or altered"),
        ] {
            let found = line(given);
            assert!(found.starts_with("line 2: ") && found.contains(expected), "{found}");
            assert!(!found.contains("secret"), "{found}");
        }
    }
}
