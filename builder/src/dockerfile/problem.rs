//! What is wrong with a Dockerfile, said in words and shown in the source.

use std::fmt;
use std::fmt::Write as _;

use super::checks::Rule;
use super::instruction::Word;
use super::position::{Position, Span};

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The build goes on.
    Warning,
    /// The build cannot go on.
    Error,
}

/// Something wrong at one place of the text.
///
/// Its `Display` is the message alone; [`Problem::render`] adds the place and the lines of the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Whether the build can go on.
    pub severity: Severity,
    /// The build check that found it, when one did.
    pub check: Option<Rule>,
    /// What is wrong: lower case, no full stop, names of instructions and values in backquotes.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// Where; line 0 when it is about no place of the file (a flag of the command line).
    pub span: Span,
    /// The line of the instruction whose comments may skip the check; that of `span`, where nothing else is said.
    pub judged_at: usize,
}

impl Problem {
    /// A problem that stops the build.
    #[must_use]
    pub fn error(span: Span, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, None, span, &message.into())
    }

    /// A build check that is not passed.
    #[must_use]
    pub fn warning(span: Span, check: Rule, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, Some(check), span, &message.into())
    }

    /// A problem that the build survives, and that is none of the build checks.
    #[must_use]
    pub fn remark(span: Span, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, None, span, &message.into())
    }

    fn new(severity: Severity, check: Option<Rule>, span: Span, message: &str) -> Self {
        Self { severity, check, message: printable(message), hint: None, span, judged_at: span.start.line }
    }

    /// The same problem, which comments before another instruction may skip.
    #[must_use]
    pub fn judged_at(mut self, line: usize) -> Self {
        self.judged_at = line;
        self
    }

    /// The same problem at the part of `word` that the message quotes first, where the word stands in the text as it is.
    #[must_use]
    pub fn within(mut self, word: &Word) -> Self {
        let Span { start, end } = word.span;
        let as_typed =
            start.line == end.line && end.column.checked_sub(start.column) == Some(word.text.chars().count());
        let mut quoted = self.message.split('`').skip(1).step_by(2).filter(|text| !text.is_empty());
        if as_typed && let Some((before, part)) = quoted.find_map(|part| Some((word.text.split_once(part)?.0, part))) {
            let column = start.column + before.chars().count();
            let at = |column| Position { line: start.line, column };
            self.span = Span { start: at(column), end: at(column + part.chars().count()) };
        }
        self
    }

    /// The same problem with advice.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(printable(&hint.into()));
        self
    }

    /// Adds what to do, where there is something.
    #[must_use]
    pub fn hints(self, hint: Option<&str>) -> Self {
        match hint {
            Some(hint) => self.hint(hint),
            None => self,
        }
    }

    /// Whether it stops the build.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// The whole message: what, where (`file` is the name to show), the line with a caret below it, and the advice.
    ///
    /// Control characters of the source are shown as `?` here and in messages, so that a hostile file cannot steer the
    /// terminal.
    #[must_use]
    pub fn render(&self, file: &str, text: &str) -> String {
        let kind = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let Position { line, column } = self.span.start;
        let mut shown = format!("{kind}: {}\n", self.message);
        if line > 0 {
            let _ = writeln!(shown, " --> {file}:{line}:{column}");
        }
        if let Some(source) = line.checked_sub(1).and_then(|index| text.lines().nth(index)) {
            let (excerpt, caret_at, caret_count) = self.excerpt(source);
            let number = line.to_string();
            let gutter = " ".repeat(number.len());
            let _ = writeln!(shown, "{gutter} |\n{number} | {excerpt}");
            let _ = writeln!(shown, "{gutter} | {}{}", " ".repeat(caret_at), "^".repeat(caret_count));
        }
        if let Some(hint) = &self.hint {
            let _ = writeln!(shown, "hint: {hint}");
        }
        shown
    }

    /// A window of the line around the place, where the caret goes in it, and how long it is.
    fn excerpt(&self, source: &str) -> (String, usize, usize) {
        /// Characters of a line that are shown; longer lines are cut around the place.
        const WINDOW: usize = 120;
        let source = source.trim_start_matches('\u{feff}');
        let visible: Vec<char> = source.chars().map(visible).collect();
        let column = (self.span.start.column.max(1) - 1).min(visible.len());
        let from = if visible.len() > WINDOW { column.saturating_sub(WINDOW / 2) } else { 0 };
        let to = (from + WINDOW).min(visible.len());
        let end = if self.span.end.line == self.span.start.line {
            (self.span.end.column.max(1) - 1).clamp(column, to.max(column))
        } else {
            to.max(column)
        };
        let mut excerpt: String = visible[from..to].iter().collect();
        let mut caret_at = column - from;
        if from > 0 {
            excerpt.insert_str(0, "...");
            caret_at += 3;
        }
        if to < visible.len() {
            excerpt.push_str("...");
        }
        (excerpt, caret_at, (end - column).max(1))
    }
}

/// A tab is a blank, any other control character a `?`.
fn visible(character: char) -> char {
    match character {
        '\t' => ' ',
        other if other.is_control() => '?',
        other => other,
    }
}

fn printable(text: &str) -> String {
    text.chars().map(visible).collect()
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Problem {}
