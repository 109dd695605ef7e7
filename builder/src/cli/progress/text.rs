//! Text for people: sizes, durations, and what a command printed without what would steer the terminal.

use std::time::Duration;

use unicode_width::UnicodeWidthChar as _;

use crate::event::size;

/// `12.3 MB / 40.0 MB`, or only the first where the whole is not known.
pub(super) fn of_total(done_bytes: u64, total_bytes: Option<u64>) -> String {
    match total_bytes {
        Some(total) => format!("{} / {}", size(done_bytes), size(total)),
        None => size(done_bytes),
    }
}

/// A digest is shown by its first characters where room is scarce.
pub(super) fn short_digests(text: &str) -> String {
    const SHOWN: usize = 12;
    let mut shown = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("sha256:") {
        let (before, digest) = rest.split_at(at + "sha256:".len());
        let end = digest.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(digest.len());
        shown.push_str(before);
        shown.push_str(&digest[..end.min(SHOWN)]);
        rest = &digest[end..];
    }
    shown.push_str(rest);
    shown
}

/// `0.4s`, `12.3s`, `4m05s`, `1h02m`.
pub(super) fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{:.1}s", time.as_secs_f64()),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
    }
}

/// A name that may have line ends in it, on one line.
pub(super) fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A line of a command as it may be shown: what a carriage return wrote over is gone, and so is all that moves the cursor,
/// names the window or rings the bell. Colours stay where `colour` says so, and end with the line.
pub(super) fn clean(bytes: &[u8], colour: bool) -> String {
    let text = String::from_utf8_lossy(bytes);
    // As a terminal shows it: what comes after a carriage return covers what was there.
    let text = text.trim_end_matches('\r').rsplit('\r').find(|part| !part.is_empty()).unwrap_or_default();
    let mut shown = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    let mut coloured = false;
    while let Some(c) = characters.next() {
        match c {
            '\u{1b}' => match characters.next() {
                Some('[') => {
                    let mut sequence = String::new();
                    // Parameters and intermediates, then one final character.
                    while let Some(next) = characters.next_if(|c| ('\u{20}'..='\u{3f}').contains(c)) {
                        sequence.push(next);
                    }
                    let last = characters.next_if(|c| ('\u{40}'..='\u{7e}').contains(c));
                    if colour && last == Some('m') && sequence.chars().all(|c| c.is_ascii_digit() || ";:".contains(c)) {
                        shown.push_str("\u{1b}[");
                        shown.push_str(&sequence);
                        shown.push('m');
                        coloured = true;
                    }
                }
                // Operating system commands and other strings go on to a bell or to `ESC \`.
                Some(']' | 'P' | '^' | '_' | 'X') => {
                    while let Some(next) = characters.next() {
                        if next == '\u{7}' || (next == '\u{1b}' && characters.next_if_eq(&'\\').is_some()) {
                            break;
                        }
                    }
                }
                // Two- and three-character sequences.
                Some('\u{20}'..='\u{2f}') => {
                    characters.next();
                }
                _ => {}
            },
            '\t' => shown.push('\t'),
            c if c.is_control() => {}
            c => shown.push(c),
        }
    }
    if coloured {
        shown.push_str("\u{1b}[0m");
    }
    shown
}

/// How many columns a character takes; a tab, which a view writes as blanks, takes four.
fn columns(c: char) -> usize {
    if c == '\t' { 4 } else { c.width().unwrap_or(0) }
}

/// How many columns a text without escape sequences takes.
pub(super) fn width(text: &str) -> usize {
    text.chars().map(columns).sum()
}

/// The first columns of a text without escape sequences; what is cut off is marked.
pub(super) fn cut(text: &str, columns_max: usize) -> String {
    let text = text.replace('\t', "    ");
    if width(&text) <= columns_max {
        return text;
    }
    let mut shown = String::new();
    let mut taken = 0;
    for c in text.chars() {
        if taken + columns(c) + 1 > columns_max {
            break;
        }
        taken += columns(c);
        shown.push(c);
    }
    if columns_max > 0 {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_and_durations_read_well() {
        let sizes: Vec<String> =
            [0, 999, 1000, 999_949, 999_950, 12_345_678].iter().map(|bytes| size(*bytes)).collect();
        assert_eq!(sizes, ["0 B", "999 B", "1.0 kB", "999.9 kB", "1.0 MB", "12.3 MB"]);
        let times: Vec<String> =
            [450, 59_900, 65_000, 3_720_000].iter().map(|ms| duration(Duration::from_millis(*ms))).collect();
        assert_eq!(times, ["0.5s", "59.9s", "1m05s", "1h02m"]);
    }

    #[test]
    fn a_command_cannot_steer_the_terminal() {
        let shown = |text: &str| clean(text.as_bytes(), false);
        assert_eq!(shown("10%\r50%\r100%\r"), "100%");
        assert_eq!(shown("\u{1b}[2J\u{1b}[1;31mred\u{1b}[0m"), "red");
        assert_eq!(shown("\u{1b}]0;title\u{7}a\u{1b}]8;;http://x\u{1b}\\b\u{7}\u{8}"), "ab");
        assert_eq!(shown("\u{1b}(Ba\u{9b}31m"), "a31m");
        assert_eq!(clean(b"\x1b[1;31mred\x1b[2Kx", true), "\u{1b}[1;31mredx\u{1b}[0m");
        assert_eq!(clean(b"\xff\xfe", true), "\u{fffd}\u{fffd}");
    }

    #[test]
    fn what_is_cut_fits_and_shows_that_it_was_cut() {
        assert_eq!(cut("abcdef", 6), "abcdef");
        assert_eq!(cut("abcdefg", 6), "abcde…");
        assert_eq!(cut("汉字汉字", 6), "汉字…");
        assert_eq!(cut("abc", 0), "");
        assert_eq!(short_digests("pushing sha256:0123456789abcdef0123 now"), "pushing sha256:0123456789ab now");
    }

    proptest! {
        #[test]
        fn a_cleaned_line_is_one_line_without_control(bytes in proptest::collection::vec(any::<u8>(), 0..200), width_max in 0usize..100) {
            let shown = clean(&bytes, false);
            prop_assert!(shown.chars().all(|c| c == '\t' || !c.is_control()), "{shown:?}");
            prop_assert!(width(&cut(&shown, width_max)) <= width_max);
        }
    }
}
