//! Physical lines to logical ones: directives, comments, continuations and heredoc bodies.

use super::checks::Rule;
use super::instruction::{Directives, Word};
use super::position::Span;
use super::problem::Problem;
use super::source::Source;

/// Longest physical line, in bytes: the limit of the reference's line scanner.
pub(super) const LINE_MAX_BYTES: usize = 65_535;

/// One instruction's line: physical lines joined at their continuation characters.
#[derive(Debug)]
pub(super) struct LogicalLine {
    pub(super) text: String,
    /// Where each joined piece starts: offset in `text`, offset in the source. In order; never empty.
    pieces: Vec<(usize, usize)>,
    /// Source offset of its first character.
    pub(super) start: usize,
    /// Source offset one past its last physical line, without the line end.
    pub(super) end: usize,
    pub(super) comments: Vec<String>,
}

impl LogicalLine {
    /// Source offset of an offset in `text`.
    pub(super) fn source_offset(&self, offset: usize) -> usize {
        let index = self.pieces.partition_point(|(at, _)| *at <= offset).max(1) - 1;
        let (at, source) = self.pieces[index];
        source + (offset - at)
    }

    /// Where `start..end` of `text` stands in the source.
    pub(super) fn span(&self, source: &Source<'_>, start: usize, end: usize) -> Span {
        // The end belongs to the piece of the last character, not to the piece that begins there.
        let last = if end > start { self.source_offset(end - 1) + 1 } else { self.source_offset(start) };
        source.span(self.source_offset(start), last)
    }
}

/// Hands out logical lines.
#[derive(Debug)]
pub(super) struct Lines<'s, 'a> {
    source: &'s Source<'a>,
    /// The physical line that comes next, from 0.
    next: usize,
    escape: char,
}

impl<'s, 'a> Lines<'s, 'a> {
    pub(super) fn new(source: &'s Source<'a>, escape: char) -> Self {
        Self { source, next: 0, escape }
    }

    /// The lines below the directives.
    pub(super) fn behind_directives(source: &'s Source<'a>, directives: &Directives) -> Self {
        Self { source, next: directives.lines, escape: directives.escape }
    }

    /// A physical line, without line end and (on the first) byte-order mark, and its offset. Problems that belong to a
    /// line as such are reported here.
    fn take(&mut self, problems: &mut Vec<Problem>) -> Option<(&'a str, usize)> {
        if self.next >= self.source.line_count() {
            return None;
        }
        let index = self.next;
        self.next += 1;
        let (mut line, mut start) = (self.source.line(index), self.source.line_start(index));
        if let Some(rest) = line.strip_prefix('\u{feff}').filter(|_| index == 0) {
            start += line.len() - rest.len();
            line = rest;
        }
        if line.len() > LINE_MAX_BYTES {
            problems.push(Problem::error(
                self.source.span(start, start + 1),
                format!(
                    "dockerfile line greater than max allowed size of {LINE_MAX_BYTES}: it has {} bytes",
                    line.len()
                ),
            ));
            return Some(("", start));
        }
        self.refuse_nul(line, start, problems);
        Some((line, start))
    }

    /// No argument, variable or path can hold one.
    fn refuse_nul(&self, line: &str, start: usize, problems: &mut Vec<Problem>) {
        if let Some(at) = line.find('\0') {
            problems.push(
                Problem::error(self.source.span(start + at, start + at + 1), "a NUL byte in the text")
                    .hint("is this file text in UTF-8?"),
            );
        }
    }

    /// The next logical line that is not empty.
    pub(super) fn next_line(&mut self, problems: &mut Vec<Problem>) -> Option<LogicalLine> {
        let mut comments = Vec::new();
        loop {
            let (raw, start) = self.take(problems)?;
            let line = raw.trim_start();
            let start = start + (raw.len() - line.len());
            if line.starts_with('#') {
                // The reference drops one character for the `#`, be it a blank before it.
                match raw.get(1..).unwrap_or_default().trim() {
                    "" => comments.clear(),
                    comment => comments.push(comment.to_owned()),
                }
                continue;
            }
            let (content, mut continued) = self.cut_continuation(line);
            if !continued && content.is_empty() {
                continue;
            }
            let mut logical = LogicalLine {
                text: content.to_owned(),
                pieces: vec![(0, start)],
                start,
                end: start + line.len(),
                comments: std::mem::take(&mut comments),
            };
            let mut has_empty_line = false;
            while continued {
                let Some((raw, start)) = self.take(problems) else { break };
                let trimmed = raw.trim_start();
                if trimmed.starts_with('#') {
                    continue;
                }
                if trimmed.is_empty() {
                    has_empty_line = true;
                    continue;
                }
                let (content, more) = self.cut_continuation(raw);
                logical.pieces.push((logical.text.len(), start));
                logical.text.push_str(content);
                logical.end = start + raw.len();
                continued = more;
            }
            // As the reference has it, the place is where the instruction ends.
            if has_empty_line {
                problems.push(
                    Problem::warning(
                        self.source.span(logical.end, logical.end),
                        Rule::NoEmptyContinuation,
                        "Empty continuation line",
                    )
                    .hint("remove it, or put a `#` on it"),
                );
            }
            if logical.text.trim().is_empty() {
                comments = logical.comments;
                continue;
            }
            return Some(logical);
        }
    }

    /// `line` without its continuation character, and whether it had one. A doubled escape character continues nothing.
    fn cut_continuation<'l>(&self, line: &'l str) -> (&'l str, bool) {
        let trimmed = line.trim_end_matches([' ', '\t']);
        match trimmed.strip_suffix(self.escape) {
            Some(before) if !before.ends_with(self.escape) => (before, true),
            _ => (line, false),
        }
    }

    /// The lines up to the one that is `name`, with their line ends, and the offset behind the terminator; `None` when
    /// it never comes (all the rest is consumed then).
    pub(super) fn heredoc_body(
        &mut self,
        name: &str,
        strip_tabs: bool,
        problems: &mut Vec<Problem>,
    ) -> Option<(String, usize)> {
        let mut body = String::new();
        while self.next < self.source.line_count() {
            let index = self.next;
            self.next += 1;
            let line = self.source.line(index);
            let candidate = if strip_tabs { line.trim_start_matches('\t') } else { line };
            if candidate == name {
                return Some((body, self.source.line_start(index) + line.len()));
            }
            self.refuse_nul(line, self.source.line_start(index), problems);
            body.push_str(self.source.raw_line(index));
        }
        None
    }
}

/// The key and value of a directive, without the mark of a comment; none when it is an ordinary comment.
pub(super) fn as_directive(comment: &str) -> Option<(&'static str, &str)> {
    let (key, value) = comment.split_once('=')?;
    let (key, value) = (key.trim(), value.trim());
    let known = ["syntax", "escape", "check"].into_iter().find(|known| key.eq_ignore_ascii_case(known))?;
    (!value.is_empty()).then_some((known, value))
}

/// Reads the `# key=value` lines at the top.
pub(super) fn read_directives(source: &Source<'_>, problems: &mut Vec<Problem>) -> Directives {
    let mut directives = Directives::default();
    let mut seen: Vec<&'static str> = Vec::new();
    let mut after_shebang = false;
    let mut marker = None;
    for index in 0..source.line_count() {
        let mut line = source.line(index);
        if index == 0 {
            line = line.trim_start_matches('\u{feff}');
            if line.starts_with("#!") {
                after_shebang = true;
                continue;
            }
            if index == 0 && line.trim_start().starts_with('{') {
                directives.syntax = json_syntax(source);
                break;
            }
        }
        let trimmed = line.trim_start();
        let Some(found) = ["#", "//"].into_iter().find(|prefix| trimmed.starts_with(*prefix)) else { break };
        if *marker.get_or_insert(found) != found {
            break;
        }
        let Some((key, value)) = as_directive(&trimmed[found.len()..]) else { break };
        if found == "#" {
            directives.lines = index + 1;
        }
        let at = source.line_start(index) + (value.as_ptr() as usize - source.raw_line(index).as_ptr() as usize);
        let word = Word { text: value.to_owned(), span: source.span(at, at + value.len()) };
        if seen.contains(&key) {
            problems.push(Problem::error(word.span, format!("only one `{key}` parser directive can be used")));
            continue;
        }
        seen.push(key);
        match key {
            "syntax" => directives.syntax = Some(word),
            "check" if found == "#" => directives.check = Some(word),
            "escape" if found == "#" && !after_shebang => match value {
                "\\" => directives.escape = '\\',
                "`" => directives.escape = '`',
                other => problems.push(Problem::error(
                    word.span,
                    format!("invalid escape character `{other}`: expected `\\` or a backquote"),
                )),
            },
            _ => {}
        }
    }
    directives
}

/// A file of another frontend may be JSON with a `syntax` key.
fn json_syntax(source: &Source<'_>) -> Option<Word> {
    let value: serde_json::Value = serde_json::from_str(source.text.trim_start_matches('\u{feff}')).ok()?;
    let text = value.get("syntax")?.as_str()?.to_owned();
    Some(Word { text, span: source.span(0, 1) })
}
