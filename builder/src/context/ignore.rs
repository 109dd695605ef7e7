//! `.dockerignore`: which files of the context a build does not see. Pure.
//!
//! One rule a line; `#` at the very start of a line makes it a comment. A rule is trimmed and cleaned (`a//b/../c` is
//! `a/c`), and a leading `/` goes. `!` takes back what an earlier rule hid. `*`, `?` and `[...]` never match a `/`, `**`
//! matches any number of folders. A rule that matches a folder matches all that is in it. The last rule that matches
//! decides.

use regex::Regex;

use super::pattern::{ANY_CHARACTER, ANY_TEXT, Pattern, push_literal, set};

/// The rules of one ignore file.
#[derive(Clone, Debug, Default)]
pub struct Ignore {
    file: String,
    /// Whether they come from a file: in `--exclude` the reference builder leaves a leading `/`, which matches nothing.
    is_file: bool,
    rules: Vec<Rule>,
}

/// One rule.
#[derive(Clone, Debug)]
pub struct Rule {
    /// As typed, without the blanks around it.
    pub text: String,
    /// Its line in the file, from 1.
    pub line: usize,
    takes_back: bool,
    /// Without `!`, cleaned.
    cleaned: String,
    matcher: Matcher,
}

#[derive(Clone, Debug)]
enum Matcher {
    Exact,
    /// `x/**`: what begins with this.
    Prefix(String),
    /// `**x`: what ends with this; `**/x` also when it is all.
    Suffix(String),
    Expression(Regex),
}

/// A rule that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: malformed rule `{rule}`: {reason}")]
pub struct IgnoreError {
    /// The ignore file.
    pub file: String,
    /// The rule's line, from 1.
    pub line: usize,
    /// The rule.
    pub rule: String,
    /// What is wrong with it.
    pub reason: String,
}

/// What the rules say about a path.
#[derive(Clone, Copy, Debug)]
pub struct Verdict<'i> {
    /// Whether the build does not see it.
    pub hidden: bool,
    /// The last rule that matched.
    pub rule: Option<&'i Rule>,
}

/// Which rules matched a folder; they match what is in it too.
#[derive(Clone, Debug, Default)]
pub(super) struct Matched(Vec<bool>);

impl Ignore {
    /// Reads an ignore file; `file` is its name for messages.
    ///
    /// # Errors
    ///
    /// When a rule is malformed: the first one.
    pub fn parse(text: &str, file: &str) -> Result<Self, IgnoreError> {
        let mut ignore = Self { file: file.to_owned(), is_file: true, rules: Vec::new() };
        for (index, line) in text.strip_prefix('\u{feff}').unwrap_or(text).lines().enumerate() {
            if !line.starts_with('#') {
                ignore.add(line, index + 1)?;
            }
        }
        Ok(ignore)
    }

    /// The rules of `--exclude`, in order; a rule's "line" is its number.
    ///
    /// # Errors
    ///
    /// When a rule is malformed: the first one.
    pub fn from_patterns<'p>(patterns: impl IntoIterator<Item = &'p str>) -> Result<Self, IgnoreError> {
        let mut ignore = Self { file: "--exclude".to_owned(), is_file: false, rules: Vec::new() };
        for (index, pattern) in patterns.into_iter().enumerate() {
            ignore.add(pattern, index + 1)?;
        }
        Ok(ignore)
    }

    /// Rules that hide all but what one pattern matches.
    pub(super) fn all_but(pattern: &str) -> Result<Self, IgnoreError> {
        let mut ignore = Self { file: "--parents".to_owned(), is_file: false, rules: Vec::new() };
        ignore.add("**", 1)?;
        ignore.push(pattern, true, pattern, 1)?;
        Ok(ignore)
    }

    fn add(&mut self, line: &str, number: usize) -> Result<(), IgnoreError> {
        let text = line.trim();
        if text.is_empty() {
            return Ok(());
        }
        let (takes_back, pattern) = text.strip_prefix('!').map_or((false, text), |rest| (true, rest.trim()));
        self.push(text, takes_back, pattern, number)
    }

    fn push(&mut self, text: &str, takes_back: bool, pattern: &str, number: usize) -> Result<(), IgnoreError> {
        let bad = |reason: String| IgnoreError { file: self.file.clone(), line: number, rule: text.to_owned(), reason };
        if pattern.is_empty() {
            return Err(bad("`!` alone takes nothing back".to_owned()));
        }
        let mut cleaned = clean(pattern);
        if takes_back && cleaned == "/" {
            return Err(bad("the context itself cannot be taken back".to_owned()));
        }
        if self.is_file && cleaned.len() > 1 && cleaned.starts_with('/') {
            cleaned.remove(0);
        }
        if let Err(error) = Pattern::parse(&cleaned) {
            return Err(bad(error.reason.to_owned()));
        }
        let matcher = compile(&cleaned).map_err(|reason| bad(reason.to_owned()))?;
        self.rules.push(Rule { text: text.to_owned(), line: number, takes_back, cleaned, matcher });
        Ok(())
    }

    /// The file's name for messages.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Whether there is no rule at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether a rule takes back what another one hid (`!`).
    #[must_use]
    pub fn takes_back(&self) -> bool {
        self.rules.iter().any(|rule| rule.takes_back)
    }

    /// Whether a rule hides everything.
    #[must_use]
    pub fn hides_all(&self) -> bool {
        self.rules.iter().any(|rule| !rule.takes_back && matches!(rule.cleaned.as_str(), "*" | "**" | "**/*"))
    }

    /// What the rules say about `path`, relative to the context, cleaned, without a leading `/`. The context itself (the
    /// empty path) is never hidden.
    #[must_use]
    pub fn matches(&self, path: &[u8]) -> Verdict<'_> {
        let (verdict, _) = self.check_from_the_root(path);
        verdict
    }

    /// The same, and what to give [`Ignore::check`] for what lies in it.
    pub(super) fn check_from_the_root(&self, path: &[u8]) -> (Verdict<'_>, Matched) {
        let mut result = (Verdict { hidden: false, rule: None }, Matched::default());
        if path.is_empty() {
            return result;
        }
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(index, _)| index);
        for end in ends.chain([path.len()]) {
            result = self.check(&path[..end], &result.1);
        }
        result
    }

    /// What the rules say about a path whose folder was checked with the result `above`.
    pub(super) fn check(&self, path: &[u8], above: &Matched) -> (Verdict<'_>, Matched) {
        let mut verdict = Verdict { hidden: false, rule: None };
        let mut matched = vec![false; self.rules.len()];
        for (index, rule) in self.rules.iter().enumerate() {
            let by_folder = above.0.get(index).copied().unwrap_or(false);
            // A rule that would change nothing is not asked.
            let matches = by_folder || (rule.takes_back == verdict.hidden && rule.matches(path));
            matched[index] = matches;
            if matches {
                verdict = Verdict { hidden: !rule.takes_back, rule: Some(rule) };
            }
        }
        (verdict, Matched(matched))
    }

    /// Whether what these rules matched is hidden.
    pub(super) fn hides(&self, matched: &Matched) -> bool {
        let last = matched.0.iter().rposition(|matched| *matched);
        last.and_then(|index| self.rules.get(index)).is_some_and(|rule| !rule.takes_back)
    }

    /// Whether a rule may take back something inside a hidden folder; without one nobody need look into it.
    pub(super) fn may_take_back_inside(&self, folder: &[u8]) -> bool {
        self.rules.iter().filter(|rule| rule.takes_back).any(|rule| {
            let literal = rule.cleaned.find(['*', '?', '[', '\\']).map_or(&rule.cleaned[..], |at| &rule.cleaned[..at]);
            let (literal, folder) = (literal.as_bytes(), [folder, b"/"].concat());
            let common = literal.len().min(folder.len());
            literal[..common] == folder[..common]
                && (literal.len() >= folder.len() || literal.len() < rule.cleaned.len())
        })
    }
}

impl Rule {
    fn matches(&self, path: &[u8]) -> bool {
        match &self.matcher {
            Matcher::Exact => path == self.cleaned.as_bytes(),
            Matcher::Prefix(prefix) => path.starts_with(prefix.as_bytes()),
            Matcher::Suffix(suffix) => {
                path.ends_with(suffix.as_bytes())
                    || suffix.strip_prefix('/').is_some_and(|rest| path == rest.as_bytes())
            }
            Matcher::Expression(expression) => expression.is_match(&String::from_utf8_lossy(path)),
        }
    }
}

fn compile(pattern: &str) -> Result<Matcher, &'static str> {
    /// What the pattern can be matched as, from what was seen so far.
    #[derive(PartialEq)]
    enum Shape {
        Exact,
        Prefix,
        Suffix,
        Expression,
    }
    let mut shape = Shape::Exact;
    let mut expression = String::from("(?s)^");
    let mut characters = pattern.chars().peekable();
    let mut first = true;
    while let Some(character) = characters.next() {
        match character {
            '*' if characters.next_if_eq(&'*').is_some() => {
                characters.next_if_eq(&'/');
                if characters.peek().is_some() {
                    expression.push_str("(.*/)?");
                    shape = Shape::Expression;
                } else if shape == Shape::Exact {
                    shape = Shape::Prefix;
                } else {
                    expression.push_str(".*");
                    shape = Shape::Expression;
                }
                if first {
                    shape = Shape::Suffix;
                }
            }
            '*' => {
                expression.push_str(ANY_TEXT);
                shape = Shape::Expression;
            }
            '?' => {
                expression.push_str(ANY_CHARACTER);
                shape = Shape::Expression;
            }
            '[' => {
                expression.push_str(&set(&mut characters)?);
                shape = Shape::Expression;
            }
            '\\' => {
                push_literal(&mut expression, characters.next().ok_or("a lone `\\` at its end")?);
                shape = Shape::Expression;
            }
            other => push_literal(&mut expression, other),
        }
        first = false;
    }
    Ok(match shape {
        Shape::Exact => Matcher::Exact,
        Shape::Prefix => Matcher::Prefix(pattern.trim_end_matches('*').to_owned()),
        Shape::Suffix => Matcher::Suffix(pattern[2..].to_owned()),
        Shape::Expression => {
            expression.push('$');
            Matcher::Expression(Regex::new(&expression).map_err(|_| "it is too long")?)
        }
    })
}

/// Go's `filepath.Clean`.
fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut kept: Vec<&str> = Vec::new();
    for component in path.split('/') {
        match component {
            "" | "." => {}
            ".." if kept.last().is_some_and(|last| *last != "..") => {
                kept.pop();
            }
            ".." if rooted => {}
            other => kept.push(other),
        }
    }
    let joined = kept.join("/");
    match (rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hidden(rules: &str, path: &str) -> bool {
        Ignore::parse(rules, ".dockerignore").unwrap().matches(path.as_bytes()).hidden
    }

    #[test]
    fn one_rule_on_one_path() {
        for (rule, path, expected) in [
            ("**", "file", true),
            ("**", "dir/file", true),
            ("**/", "file", true),
            ("**/", "dir/file", true),
            ("**/**", "dir/file", true),
            ("dir/**", "dir/file", true),
            ("dir/**", "dir/dir2/file", true),
            ("dir/**", "dir", false),
            ("dir/**", "direct", false),
            ("dir**", "direct/x", true),
            ("**/dir2/*", "dir/dir2/file", true),
            ("**/dir2/*", "dir/dir2/dir2/file", true),
            ("**/dir2/**", "dir/dir2/dir2/file", true),
            ("**file", "file", true),
            ("**file", "dir/file", true),
            ("**file", "dir/dir/barfile", true),
            ("**/file", "file", true),
            ("**/file", "dir/dir/file", true),
            ("**/file", "dir/barfile", false),
            ("**/file*", "dir/dir/file.txt", true),
            ("**/file*txt", "dir/dir/filetxt", true),
            ("**/file*.txt*", "dir/dir/file.txt", true),
            ("**/**/*.txt", "dir/dir/file.txt", true),
            ("**/**/*.txt2", "dir/dir/file.txt", false),
            ("**/*.txt", "file.txt", true),
            ("a**/*.txt", "a/file.txt", true),
            ("a**/*.txt", "a/dir/file.txt", true),
            ("a/*.txt", "a/dir/file.txt", false),
            ("a/*.txt**", "a/file.txt", true),
            ("a[b-d]e", "ae", false),
            ("a[b-d]e", "ace", true),
            ("a[^b-d]e", "aze", true),
            (".*", ".foo", true),
            (".*", "foo", false),
            ("abc.def", "abcdef", false),
            ("abc.def", "abcZdef", false),
            ("abc?def", "abcZdef", true),
            ("abc?def", "abcdef", false),
            ("a\\*b", "a*b", true),
            ("a\\*b", "axb", false),
            ("**/foo/bar", "foo/bar", true),
            ("**/foo/bar", "dir/dir2/foo/bar", true),
            ("abc/**", "abc/def/ghi", true),
            ("**/.foo", "bar.foo", false),
            ("a(b)c/def", "a(b)c/def", true),
            ("a(b)c/def", "a(b)c/xyz", false),
            ("a.|)$(}+{bc", "a.|)$(}+{bc", true),
            ("dist/*.whl", "dist/proxy.py-2.4.0rc3.dev36+g0d8d5b9-py3-none-any.whl", true),
            ("{a,b}", "a", false),
            ("a[!b]", "a!", true),
            ("node_modules", "node_modules/a/b/c", true),
            ("node_modules", "x/node_modules", false),
            ("*/temp*", "somedir/temporary.txt", true),
            ("*/temp*", "somedir/subdir/temporary.txt", false),
            ("*", "a/b", true),
            ("/a", "a", true),
            ("./a/", "a", true),
            ("a/../b", "b", true),
            ("../a", "a", false),
            (".", "a", false),
            ("/", "a", false),
            ("  a  ", "a", true),
            ("é?", "éx", true),
        ] {
            assert_eq!(hidden(rule, path), expected, "{rule:?} on {path:?}");
        }
    }

    #[test]
    fn the_last_rule_that_matches_decides() {
        for (rules, path, expected) in [
            ("*.md\n!README.md", "README.md", false),
            ("*.md\n!README.md", "x.md", true),
            ("*.md\n!README*.md\nREADME-secret.md", "README-secret.md", true),
            ("*.md\nREADME-secret.md\n!README*.md", "README-secret.md", false),
            ("docs\n!docs/README.md", "docs/README.md", false),
            ("docs\n!docs/README.md", "docs/other.md", true),
            ("docs\n!docs/README.md", "docs", true),
            ("!docs/README.md\ndocs", "docs/README.md", true),
            ("a\n!a/b\na/b/c", "a/b/c", true),
            ("a\n!a/b\na/b/c", "a/b/d", false),
            ("*\n!src", "src/main.rs", false),
            ("*\n!src\nsrc/*.log", "src/x.log", true),
            ("**\n!**/*.rs", "src/deep/main.rs", false),
            ("**\n!**/*.rs", "src/deep/main.c", true),
            ("# a\n#b\nc", "#b", false),
            (" #a", "#a", true),
            ("\n\n  \na\r\nb", "a", true),
            ("\u{feff}a", "a", true),
            ("! a\na", "a", true),
            ("a\n! a", "a", false),
        ] {
            assert_eq!(hidden(rules, path), expected, "{rules:?} on {path:?}");
        }
    }

    #[test]
    fn the_verdict_names_the_rule() {
        let ignore = Ignore::parse("# logs\n*.tmp\n  *.log \n!keep.log\n", ".dockerignore").unwrap();
        let rule = |path: &str| ignore.matches(path.as_bytes()).rule.map(|rule| (rule.text.clone(), rule.line));
        assert_eq!(rule("x.log"), Some(("*.log".to_owned(), 3)));
        assert_eq!(rule("x.log/inside"), Some(("*.log".to_owned(), 3)));
        assert_eq!(rule("keep.log"), Some(("!keep.log".to_owned(), 4)));
        assert_eq!(rule("x"), None);
        assert_eq!(rule(""), None);
    }

    #[test]
    fn malformed_rules_name_their_line() {
        let message = |text: &str| Ignore::parse(text, ".dockerignore").unwrap_err().to_string();
        assert_eq!(message("a\n!"), ".dockerignore:2: malformed rule `!`: `!` alone takes nothing back");
        assert_eq!(message("[a"), ".dockerignore:1: malformed rule `[a`: a `[` without its `]`");
        assert_eq!(message("a\\"), ".dockerignore:1: malformed rule `a\\`: a lone `\\` at its end");
    }

    #[test]
    fn a_hidden_folder_is_looked_into_only_where_something_may_be_taken_back() {
        let may = |rules: &str, folder: &str| Ignore::parse(rules, "").unwrap().may_take_back_inside(folder.as_bytes());
        assert!(!may("a", "a"));
        assert!(may("a\n!a/b", "a"));
        assert!(!may("a\n!a/b", "b"));
        assert!(!may("a\n!ab", "a"));
        assert!(may("a\n!**/x", "a"));
        assert!(may("a\n!a/*/x", "a/b"));
        assert!(!may("a\n!b/*/x", "a"));
        assert!(!may("a/b\n!a", "a/b"));
    }

    proptest::proptest! {
        // Compiling expressions takes long without optimisation; the fuzzer does the rest.
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

        #[test]
        fn what_lies_in_a_hidden_folder_is_hidden_unless_taken_back(
            rules in "[ab*?/.\\[\\]\\\\^ \n#-]{0,30}",
            path in "[ab.]{1,3}(/[ab.]{1,3}){0,3}",
        ) {
            // The rules hold no `!`.
            if let Ok(ignore) = Ignore::parse(&rules, ".dockerignore") {
                let verdict = ignore.matches(path.as_bytes());
                proptest::prop_assert_eq!(verdict.hidden, verdict.rule.is_some());
                if verdict.hidden {
                    let inside = format!("{path}/a");
                    proptest::prop_assert!(ignore.matches(inside.as_bytes()).hidden);
                }
            }
        }

        #[test]
        fn any_text_is_rules_or_an_error(text in "[ab*?/.\\[\\]\\\\^! \n#é-]{0,40}", path in "\\PC{0,12}") {
            if let Ok(ignore) = Ignore::parse(&text, ".dockerignore") {
                let _ = ignore.matches(path.as_bytes());
                let _ = ignore.may_take_back_inside(path.as_bytes());
            }
            if let Ok(pattern) = Pattern::parse(&text) {
                let _ = pattern.matches(path.as_bytes());
            }
        }
    }
}
