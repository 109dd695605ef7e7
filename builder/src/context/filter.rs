//! What a copy takes of a source: `--exclude`, and the pattern that `--parents` selects with. Pure.

use super::ignore::{Ignore, IgnoreError, Matched};
use super::pattern::has_wildcards;

/// What of a source is taken.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    only: Option<Only>,
    exclude: Ignore,
}

#[derive(Clone, Debug)]
struct Only {
    pattern: String,
    rules: Ignore,
}

/// What matched a folder; it counts for what is in the folder too.
#[derive(Clone, Debug, Default)]
pub struct FilterState {
    only: Matched,
    exclude: Matched,
}

/// How much of a source is written as a path, and what is taken of it: the pivot of `--parents` stands between the two.
/// Without it all of the pattern is for the second part.
#[must_use]
pub fn split_at_pivot(pattern: &str) -> (&str, &str) {
    pattern.split_once("/./").unwrap_or(("", pattern))
}

impl Filter {
    /// All but what `--exclude` names; its patterns are relative to the source.
    ///
    /// # Errors
    ///
    /// When a pattern is malformed: the first one.
    pub fn without<'p>(exclude: impl IntoIterator<Item = &'p str>) -> Result<Self, IgnoreError> {
        Ok(Self { only: None, exclude: Ignore::from_patterns(exclude)? })
    }

    /// Of that only what `pattern` matches, relative to the source, with the folders above it. No pattern is all.
    ///
    /// # Errors
    ///
    /// When the pattern is malformed.
    pub fn only(&self, pattern: &str) -> Result<Self, IgnoreError> {
        let only = match pattern {
            "" | "." => None,
            _ => Some(Only { pattern: pattern.to_owned(), rules: Ignore::all_but(pattern)? }),
        };
        Ok(Self { only, exclude: self.exclude.clone() })
    }

    /// The path that must be there, where one is asked for rather than a pattern.
    pub(super) fn wanted(&self) -> Option<&str> {
        self.only.as_ref().map(|only| only.pattern.as_str()).filter(|pattern| !has_wildcards(pattern))
    }

    /// Whether a path that must be there was asked for, which is an error when nothing is taken.
    #[must_use]
    pub fn wants_a_path(&self) -> bool {
        self.wanted().is_some()
    }

    /// Whether a path is left out whose folder was checked with the result `above`.
    #[must_use]
    pub fn check(&self, path: &[u8], above: &FilterState) -> (bool, FilterState) {
        let (exclusion, exclude) = self.exclude.check(path, &above.exclude);
        let Some(only) = &self.only else {
            return (exclusion.hidden, FilterState { only: Matched::default(), exclude });
        };
        let (verdict, only) = only.rules.check(path, &above.only);
        (exclusion.hidden || verdict.hidden, FilterState { only, exclude })
    }

    /// Whether something may be taken of a folder that is left out itself. `state` is what its check gave.
    #[must_use]
    pub fn may_take_inside(&self, folder: &[u8], state: &FilterState) -> bool {
        let may = |rules: &Ignore, matched: &Matched| !rules.hides(matched) || rules.may_take_back_inside(folder);
        may(&self.exclude, &state.exclude) && self.only.as_ref().is_none_or(|only| may(&only.rules, &state.only))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(filter: &Filter, path: &str) -> bool {
        let mut state = FilterState::default();
        let mut left_out = false;
        for end in path.match_indices('/').map(|(at, _)| at).chain([path.len()]) {
            (left_out, state) = filter.check(&path.as_bytes()[..end], &state);
        }
        !left_out
    }

    #[test]
    fn only_what_matches_is_taken_and_nothing_that_is_excluded() {
        for (only, exclude, path, expected) in [
            ("a/b", &[][..], "a/b", true),
            ("a/b", &[], "a/b/c/d", true),
            ("a/b", &[], "a", false),
            ("a/b", &[], "a/c", false),
            ("**/f", &[], "x/y/f", true),
            ("**/f", &[], "f/inside", true),
            ("*/f", &[], "x/y/f", false),
            ("a/**/f", &[], "a/f", true),
            (".", &[], "anything", true),
            ("", &["*.log"], "x.log", false),
            ("**/f", &["x"], "x/f", false),
            ("**/f", &["x", "!x/f"], "x/f", true),
            ("**/f", &["x", "!x/g"], "x/g", false),
            ("a", &["/a"], "a", true),
        ] {
            let filter = Filter::without(exclude.iter().copied()).unwrap().only(only).unwrap();
            assert_eq!(taken(&filter, path), expected, "{only} without {exclude:?}: {path}");
        }
    }

    #[test]
    fn folders_are_looked_into_for_what_may_be_taken() {
        let filter = Filter::without(["b", "!b/keep"]).unwrap().only("*/keep").unwrap();
        let may = |folder: &str| {
            let (_, state) = filter.check(folder.as_bytes(), &FilterState::default());
            filter.may_take_inside(folder.as_bytes(), &state)
        };
        assert!(may("a"));
        assert!(may("b"));
        let filter = Filter::without(["b"]).unwrap().only("b/keep").unwrap();
        let (_, state) = filter.check(b"b", &FilterState::default());
        assert!(!filter.may_take_inside(b"b", &state));
        let (_, state) = filter.check(b"c", &FilterState::default());
        assert!(!filter.may_take_inside(b"c", &state));
    }

    #[test]
    fn a_pivot_cuts_once() {
        for (pattern, expected) in [
            ("a/b", ("", "a/b")),
            ("a/./b", ("a", "b")),
            ("a/./b/./c", ("a", "b/./c")),
            ("/./b", ("", "b")),
            ("a/./", ("a", "")),
        ] {
            assert_eq!(split_at_pivot(pattern), expected, "{pattern}");
        }
    }
}
