//! Texts of history rows, in the spelling of the reference, which other tools read: lists and texts as Go prints them.

use crate::image::Healthcheck;

/// Go's `%q` of a text.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            control if u32::from(control) < 0x20 || control == '\u{7f}' => {
                out.push_str(&format!("\\x{:02x}", u32::from(control)));
            }
            other if is_shown(other) => out.push(other),
            hidden if u32::from(hidden) > 0xffff => out.push_str(&format!("\\U{:08x}", u32::from(hidden))),
            hidden => out.push_str(&format!("\\u{:04x}", u32::from(hidden))),
        }
    }
    out.push('"');
    out
}

/// Whether a character is printed as it is: blanks but the plain one, control and format characters, and what stands for
/// nothing are not. The standard library's rule is that of Go; behind another character marks are shown too.
fn is_shown(character: char) -> bool {
    let text = ['a', character].iter().collect::<String>();
    character.is_ascii_graphic() || character == ' ' || text.escape_debug().nth(1) == Some(character)
}

/// Go's `%q` of a list.
pub(super) fn quoted_list(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
    format!("[{}]", words.join(" "))
}

/// Go's `%v` of a list.
pub(super) fn plain_list(words: &[String]) -> String {
    format!("[{}]", words.join(" "))
}

/// Go's `%+v` of a health check.
pub(super) fn healthcheck(check: &Healthcheck) -> String {
    format!(
        "{{Test:{} Interval:{} Timeout:{} StartPeriod:{} StartInterval:{} Retries:{}}}",
        plain_list(&check.test),
        duration(check.interval),
        duration(check.timeout),
        duration(check.start_period),
        duration(check.start_interval),
        check.retries,
    )
}

/// A duration in nanoseconds (not negative) as Go prints it: `1m30s`, `500ms`.
fn duration(nanoseconds: i64) -> String {
    let with_fraction = |unit: i64, name: &str| {
        let mut text = (nanoseconds / unit).to_string();
        let rest = nanoseconds % unit;
        if rest > 0 {
            let digits = unit.ilog10() as usize;
            let fraction = format!("{rest:0digits$}");
            text.push('.');
            text.push_str(fraction.trim_end_matches('0'));
        }
        text + name
    };
    match nanoseconds {
        ..=0 => "0s".to_owned(),
        1..=999 => format!("{nanoseconds}ns"),
        1_000..=999_999 => with_fraction(1_000, "µs"),
        1_000_000..=999_999_999 => with_fraction(1_000_000, "ms"),
        _ => {
            let seconds = nanoseconds / 1_000_000_000;
            let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
            let rest = nanoseconds % 60_000_000_000;
            let mut text = String::new();
            if hours > 0 {
                text.push_str(&format!("{hours}h"));
            }
            if hours > 0 || minutes > 0 {
                text.push_str(&format!("{minutes}m"));
            }
            let fraction = format!("{:09}", rest % 1_000_000_000);
            let fraction = fraction.trim_end_matches('0');
            let dot = if fraction.is_empty() { "" } else { "." };
            text + &format!("{}{dot}{fraction}s", rest / 1_000_000_000)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_as_go_prints_them() {
        assert_eq!(quoted("a \"b\" \\ \n\u{1}é\u{a0}"), "\"a \\\"b\\\" \\\\ \\n\\x01é\\u00a0\"");
        assert_eq!(
            quoted("\u{feff}\u{200b}\u{ad}\u{301}\u{e0001}\u{e000}😀\u{3000} '"),
            "\"\\ufeff\\u200b\\u00ad\u{301}\\U000e0001\\ue000😀\\u3000 '\""
        );
        assert_eq!(quoted_list(&["a".to_owned(), "b c".to_owned()]), r#"["a" "b c"]"#);
        assert_eq!(quoted_list(&[]), "[]");
        for (nanoseconds, expected) in [
            (0, "0s"),
            (500, "500ns"),
            (1_500, "1.5µs"),
            (100_000_000, "100ms"),
            (1_500_000_000, "1.5s"),
            (30_000_000_000, "30s"),
            (90_000_000_000, "1m30s"),
            (3_600_000_000_000, "1h0m0s"),
        ] {
            assert_eq!(duration(nanoseconds), expected);
        }
        let check = Healthcheck {
            test: vec!["CMD-SHELL".to_owned(), "curl -f x".to_owned()],
            interval: 30_000_000_000,
            retries: 3,
            ..Healthcheck::default()
        };
        assert_eq!(
            healthcheck(&check),
            "{Test:[CMD-SHELL curl -f x] Interval:30s Timeout:0s StartPeriod:0s StartInterval:0s Retries:3}"
        );
    }
}
