//! A place of the Dockerfile as a message shows it: file and line, and the line itself with a caret.

use std::fmt;

use crate::dockerfile::{Lines, Position, Problem, Span};

/// A place of the Dockerfile. Its `Display` is file and line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    at: String,
    excerpt: String,
}

impl Shown {
    /// What is no place of the Dockerfile: a flag of the command line.
    pub(super) fn elsewhere(what: &str) -> Self {
        Self { at: what.to_owned(), excerpt: String::new() }
    }

    /// Where `word` stands in these lines; where it does not (a variable spells it), the first of the lines.
    pub(super) fn of(file: &str, text: &str, lines: Lines, word: &str) -> Self {
        let at = format!("{file}:{lines}");
        let source = |number: usize| number.checked_sub(1).and_then(|index| text.lines().nth(index));
        let found = (lines.first..=lines.last).find_map(|line| {
            let before = source(line)?.split_once(word)?.0;
            Some((line, before.chars().count() + 1, word.chars().count()))
        });
        let whole = || {
            let line = source(lines.first)?;
            let indent = line.chars().take_while(|character| character.is_whitespace()).count();
            Some((lines.first, indent + 1, line.trim().chars().count()))
        };
        let Some((line, column, length)) = found.filter(|_| !word.is_empty()).or_else(whole) else {
            return Self { at, excerpt: String::new() };
        };
        let (start, end) = (Position { line, column }, Position { line, column: column + length });
        let rendered = Problem::error(Span { start, end }, "").render(file, text);
        let excerpt = rendered.split_once('\n').map(|(_, excerpt)| format!("\n{}", excerpt.trim_end()));
        Self { at, excerpt: excerpt.unwrap_or_default() }
    }

    /// The line with a caret, on lines of its own; empty for what is elsewhere.
    pub(super) fn excerpt(&self) -> &str {
        &self.excerpt
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caret_stands_under_the_word_or_the_line() {
        let text = "FROM a\n  ADD \\\n  http://x/y /\n";
        let lines = Lines { first: 2, last: 3 };
        let shown = Shown::of("Dockerfile", text, lines, "http://x/y");
        assert_eq!(shown.to_string(), "Dockerfile:2-3");
        assert_eq!(shown.excerpt(), "\n --> Dockerfile:3:3\n  |\n3 |   http://x/y /\n  |   ^^^^^^^^^^");
        let whole = Shown::of("Dockerfile", text, lines, "spelt by a variable");
        assert_eq!(whole.excerpt(), "\n --> Dockerfile:2:3\n  |\n2 |   ADD \\\n  |   ^^^^^");
        assert_eq!(Shown::of("Dockerfile", text, Lines { first: 9, last: 9 }, "x").excerpt(), "");
        assert_eq!(Shown::of("Dockerfile", text, Lines::default(), "").excerpt(), "");
    }
}
