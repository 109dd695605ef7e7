//! The text with its lines: turns offsets into positions.

use super::position::{Position, Span};

/// A text and where its lines begin, or a piece of text that stands for one fixed place (an `ONBUILD` trigger of a base
/// image, whose problems are shown at the `FROM`).
#[derive(Debug)]
pub(super) struct Source<'a> {
    pub(super) text: &'a str,
    /// Offset of each line's first byte. There is at least one.
    line_starts: Vec<usize>,
    fixed: Option<Span>,
}

impl<'a> Source<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let mut line_starts = vec![0];
        line_starts.extend(text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(index, _)| index + 1));
        Self { text, line_starts, fixed: None }
    }

    pub(super) fn at(text: &'a str, span: Span) -> Self {
        Self { fixed: Some(span), ..Self::new(text) }
    }

    /// How many physical lines there are; the empty rest behind a final line end is none.
    pub(super) fn line_count(&self) -> usize {
        if self.text.ends_with('\n') || self.text.is_empty() {
            self.line_starts.len() - 1
        } else {
            self.line_starts.len()
        }
    }

    /// A physical line (from 0) without its line end.
    pub(super) fn line(&self, index: usize) -> &'a str {
        self.raw_line(index).trim_end_matches(['\r', '\n'])
    }

    /// A physical line (from 0) with its line end.
    pub(super) fn raw_line(&self, index: usize) -> &'a str {
        let start = self.line_start(index);
        &self.text[start..self.line_start(index + 1)]
    }

    pub(super) fn line_start(&self, index: usize) -> usize {
        self.line_starts.get(index).copied().unwrap_or(self.text.len())
    }

    /// Where the byte at `offset` stands.
    pub(super) fn position(&self, offset: usize) -> Position {
        let offset = offset.min(self.text.len());
        let line = self.line_starts.partition_point(|start| *start <= offset).max(1) - 1;
        // The standard library counts characters many at a time; a line may hold thousands of words to place.
        let before = &self.text[self.line_start(line)..self.text.floor_char_boundary(offset)];
        // A byte-order mark is no character of the first line: editors do not show it.
        let before = before.strip_prefix('\u{feff}').filter(|_| line == 0).unwrap_or(before);
        let column = before.chars().count() + 1;
        Position { line: line + 1, column }
    }

    pub(super) fn span(&self, start: usize, end: usize) -> Span {
        self.fixed.unwrap_or_else(|| Span { start: self.position(start), end: self.position(end.max(start)) })
    }
}
