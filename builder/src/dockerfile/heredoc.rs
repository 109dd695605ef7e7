//! Finds `<<NAME` in a line.

use super::expand::Expander;

/// What a heredoc word says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HeredocWord {
    pub(super) name: String,
    pub(super) descriptor: u32,
    pub(super) expand: bool,
    pub(super) strip_tabs: bool,
}

/// The shell's rules, whatever the file's escape character is.
fn lexer() -> Expander {
    Expander { keep_unset: true, ..Expander::new('\\') }
}

/// Reads one word (or all of a command line): `[digits]<<[-]NAME`, nothing else; quotes in the name switch expansion off.
pub(super) fn parse_heredoc(word: &str) -> Option<HeredocWord> {
    let digits = word.len() - word.trim_start_matches(|character: char| character.is_ascii_digit()).len();
    let rest = word[digits..].strip_prefix("<<")?;
    let (strip_tabs, rest) = rest.strip_prefix('-').map_or((false, rest), |rest| (true, rest));
    let rest = rest.trim_start();
    if rest.is_empty() || rest.contains('<') {
        return None;
    }
    let unset = |_: &str| None;
    let plain = lexer().expand(rest, &unset).ok()?;
    let raw = Expander { keep_quotes: true, ..lexer() }.expand(rest, &unset).ok()?;
    let ([name], [raw_name]) = (&plain.words[..], &raw.words[..]) else { return None };
    let quotes = |text: &str| text.chars().filter(|character| matches!(character, '\'' | '"')).count();
    Some(HeredocWord {
        name: name.clone(),
        descriptor: word[..digits].parse().unwrap_or(0),
        expand: quotes(name) == quotes(raw_name),
        strip_tabs,
    })
}

/// All heredocs of a line, in order. A line whose quotes do not close has none.
pub(super) fn heredocs_of(line: &str) -> Vec<HeredocWord> {
    if !line.contains("<<") {
        return Vec::new();
    }
    let words = Expander { keep_quotes: true, keep_escapes: true, ..lexer() }.expand(line, &|_| None);
    words.map_or_else(|_| Vec::new(), |found| found.words.iter().filter_map(|word| parse_heredoc(word)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_of_a_heredoc_word() {
        let show = |word: &str| {
            parse_heredoc(word).map(|found| {
                format!(
                    "{} fd={} {}{}",
                    found.name,
                    found.descriptor,
                    if found.expand { "expand" } else { "literal" },
                    if found.strip_tabs { " tabs" } else { "" }
                )
            })
        };
        for (word, expected) in [
            ("<<EOF", Some("EOF fd=0 expand")),
            ("<<-EOF", Some("EOF fd=0 expand tabs")),
            ("<<'EOF'", Some("EOF fd=0 literal")),
            ("<<\"EOF\"", Some("EOF fd=0 literal")),
            ("<<E'O'F", Some("EOF fd=0 literal")),
            ("3<<EOF", Some("EOF fd=3 expand")),
            ("<< EOF", Some("EOF fd=0 expand")),
            ("<<-'a b'", Some("a b fd=0 literal tabs")),
            ("<<$NAME", Some("$NAME fd=0 expand")),
            ("<<", None),
            ("<<<EOF", None),
            ("<EOF", None),
            ("x<<EOF", None),
            ("<<EOF x", None),
            ("<<EOF<x", None),
            ("<<'EOF", None),
        ] {
            assert_eq!(show(word).as_deref(), expected, "{word}");
        }
    }

    #[test]
    fn a_line_may_name_several_and_quotes_hide_them() {
        let names = |line: &str| heredocs_of(line).into_iter().map(|found| found.name).collect::<Vec<_>>();
        assert_eq!(names("RUN cat <<A 3<<-B >x"), ["A", "B"]);
        assert_eq!(names("RUN echo '<<A' \"<<B\""), Vec::<String>::new());
        assert_eq!(names("RUN echo \\<<A"), Vec::<String>::new());
        assert_eq!(names("RUN echo it's <<A"), Vec::<String>::new());
        assert_eq!(names("RUN cat <<<A"), Vec::<String>::new());
    }
}
