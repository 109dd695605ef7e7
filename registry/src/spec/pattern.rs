//! Patterns of tags: `v*`, or `team/*:v?.*` for the tags of some repositories only.
//!
//! ```text
//! pattern = [ repository ":" ] tag
//! ```
//! In both parts `*` stands for any characters (also none, and also `/`), `?` for one, and everything else for itself.

use std::fmt;
use std::str::FromStr;

use super::name::{RepoName, Tag};

/// Why a text is no pattern of tags.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{found}` is not a pattern of tags: expected a tag, or REPOSITORY:TAG, in which `*` stands for any characters and `?` for one, such as `v*` or `team/*:v*`"
)]
pub struct PatternError {
    found: String,
}

/// Some tags, of some repositories.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagPattern {
    repo: Option<Box<str>>,
    tag: Box<str>,
}

impl TagPattern {
    /// Whether this tag of this repository is one of them.
    pub fn fits(&self, repo: &RepoName, tag: &Tag) -> bool {
        matches(&self.tag, tag.as_str()) && self.repo.as_ref().is_none_or(|pattern| matches(pattern, repo.as_str()))
    }
}

impl FromStr for TagPattern {
    type Err = PatternError;
    fn from_str(text: &str) -> Result<Self, PatternError> {
        let (repo, tag) = match text.split_once(':') {
            Some((repo, tag)) => (Some(repo), tag),
            None => (None, text),
        };
        let may = |text: &str, more: &str| {
            let fits = |c: char| c.is_ascii_alphanumeric() || "*?._-".contains(c) || more.contains(c);
            !text.is_empty() && text.chars().all(fits)
        };
        if may(tag, "") && repo.is_none_or(|repo| may(repo, "/")) {
            Ok(Self { repo: repo.map(Into::into), tag: tag.into() })
        } else {
            Err(PatternError { found: text.chars().take(150).collect() })
        }
    }
}

impl fmt::Display for TagPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.repo {
            Some(repo) => write!(f, "{repo}:{}", self.tag),
            None => f.write_str(&self.tag),
        }
    }
}

/// Goes on where it is, and back to the last `*` when that fails: no pattern makes it take longer than the product of
/// both lengths.
fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(byte) if *byte == b'?' || text.get(t) == Some(byte) => {
                p += 1;
                t += 1;
            }
            _ => match &mut star {
                Some((at, from)) => {
                    *from += 1;
                    (p, t) = (*at + 1, *from);
                }
                None => return false,
            },
        }
    }
    pattern.get(p..).is_some_and(|rest| rest.iter().all(|byte| *byte == b'*'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fits(pattern: &str, repo: &str, tag: &str) -> bool {
        pattern.parse::<TagPattern>().unwrap().fits(&repo.parse().unwrap(), &tag.parse().unwrap())
    }

    #[test]
    fn patterns() {
        for (pattern, repo, tag, expected) in [
            ("v*", "a", "v1.2", true),
            ("v*", "a", "V1.2", false),
            ("v*", "a", "rv1", false),
            ("*", "a", "x", true),
            ("v?.?", "a", "v1.2", true),
            ("v?.?", "a", "v1.23", false),
            ("*-rc*1", "a", "2-rc-rc.1", true),
            ("team/*:v*", "team/a/b", "v1", true),
            ("team/*:v*", "other/team/a", "v1", false),
            ("team/*:v*", "team/a", "latest", false),
        ] {
            assert_eq!(fits(pattern, repo, tag), expected, "{pattern} {repo} {tag}");
        }
        for bad in ["", ":", "a:", ":v", "v[12]", "a:b:c", "v 1"] {
            assert!(bad.parse::<TagPattern>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_a_star_replaces_does_not_matter(before in "[a-z0-9]{0,5}", between in "[a-z0-9]{0,5}", after in "[a-z0-9]{1,5}") {
            let whole = format!("{before}{between}{after}");
            let pattern = format!("{before}*{after}");
            prop_assert!(fits(&pattern, "a", &whole));
            prop_assert!(fits(&whole, "a", &whole));
        }
    }
}
