//! The lines of the Dockerfile around a step that failed.

use std::fmt::Write as _;

use super::book::Source;
use super::text::{clean, cut};

/// Lines shown before and after the instruction.
const AROUND: usize = 3;

/// Most lines of the instruction itself that are shown; a heredoc can have hundreds.
const OWN_LINES_MAX: usize = 20;

/// Most columns of a line that are shown.
const COLUMNS_MAX: usize = 160;

/// `Dockerfile:5` and the lines around, those of the step marked.
pub(super) fn excerpt(source: &Source, first_line: usize, last_line: usize) -> String {
    let lines: Vec<&str> = source.text.lines().collect();
    if first_line == 0 || first_line > lines.len() {
        return String::new();
    }
    let last_line = last_line.clamp(first_line, lines.len());
    let shown_last = last_line.min(first_line + OWN_LINES_MAX - 1);
    let place = if first_line == last_line { first_line.to_string() } else { format!("{first_line}-{last_line}") };
    let mut text = format!("{}:{place}\n--------------------\n", source.name);
    let from = first_line.saturating_sub(AROUND).max(1);
    let to = if shown_last < last_line { shown_last } else { (last_line + AROUND).min(lines.len()) };
    for number in from..=to {
        let mark = if (first_line..=last_line).contains(&number) { ">>>" } else { "   " };
        let line = cut(&clean(lines[number - 1].as_bytes(), false), COLUMNS_MAX);
        let _ = writeln!(text, "{}", format!("{number:>4} | {mark} {line}").trim_end());
    }
    if shown_last < last_line {
        let _ = writeln!(text, " ... | >>> {} more lines", last_line - shown_last);
    }
    text += "--------------------\n";
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_marks_the_lines_of_the_step() {
        let text = "FROM a\nENV b=c\n\nCOPY . .\nRUN one && \\\n    two\nCMD x\n".to_owned();
        let source = Source { name: "Dockerfile".to_owned(), text };
        insta::assert_snapshot!(excerpt(&source, 5, 6), @r"
        Dockerfile:5-6
        --------------------
           2 |     ENV b=c
           3 |
           4 |     COPY . .
           5 | >>> RUN one && \
           6 | >>>     two
           7 |     CMD x
        --------------------
        ");
        assert_eq!(excerpt(&source, 0, 0), "");
        assert_eq!(excerpt(&source, 99, 99), "");
        assert!(excerpt(&source, 7, 99).contains("   7 | >>> CMD x\n"));
    }

    #[test]
    fn a_long_script_is_shown_by_its_beginning() {
        let text = "RUN <<EOF\n".to_owned() + &"line\n".repeat(200) + "EOF\n";
        let shown = excerpt(&Source { name: "D".to_owned(), text }, 1, 202);
        assert!(shown.starts_with("D:1-202\n") && shown.ends_with(" ... | >>> 182 more lines\n--------------------\n"));
    }
}
