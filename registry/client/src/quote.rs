//! Texts of others, made fit to stand in a message of ours.

/// Most characters of a text that are kept.
const MAX_CHARS: usize = 400;

/// One line, without what would steer a terminal, and not too long.
pub(crate) fn clean(text: &str) -> String {
    let text = text.trim();
    let mut kept: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_CHARS).collect();
    if text.chars().nth(MAX_CHARS).is_some() {
        kept.push('…');
    }
    kept
}

/// A text without the passwords of the addresses in it. Over HTTP a user's name is hidden too: it may be a token
/// (`https://TOKEN@host`).
#[must_use]
pub fn without_password(text: &str) -> String {
    let (mut shown, mut rest) = (String::new(), text);
    while let Some((scheme, after)) = rest.split_once("://") {
        shown.push_str(scheme);
        let is_http = ends_with(&shown, "http") || ends_with(&shown, "https");
        shown.push_str("://");
        let end = after.find(|c: char| matches!(c, '/' | '?' | '#') || c.is_whitespace()).unwrap_or(after.len());
        // A text may go on with another address, whose scheme ends here.
        let end = after.find("://").map_or(end, |next| next.min(end));
        let (authority, path) = after.split_at(end);
        match authority.rsplit_once('@') {
            Some((_, host)) if is_http => shown.extend(["...@", host]),
            Some((user, host)) if user.contains(':') => {
                shown.extend([user.split(':').next().unwrap_or_default(), ":...@", host]);
            }
            _ => shown.push_str(authority),
        }
        rest = path;
    }
    shown.push_str(rest);
    shown
}

fn ends_with(text: &str, end: &str) -> bool {
    text.len().checked_sub(end.len()).and_then(|at| text.get(at..)).is_some_and(|last| last.eq_ignore_ascii_case(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_not_shown() {
        for (text, expected) in [
            ("https://u:p@h/x", "https://...@h/x"),
            ("https://token@h/x", "https://...@h/x"),
            ("HTTP://a@b:c@h", "HTTP://...@h"),
            ("https://h/x@y:z", "https://h/x@y:z"),
            ("ssh://git@h/x", "ssh://git@h/x"),
            ("ssh://git:p@h/x", "ssh://git:...@h/x"),
            ("git@h:x", "git@h:x"),
            ("clone of 'https://t@h/x' from 'https://t@h'", "clone of 'https://...@h/x' from 'https://...@h'"),
            ("[\"https://h\",\"https://t@h/x\"]", "[\"https://h\",\"https://...@h/x\"]"),
            ("ADD\thttps://t@h\t/x", "ADD\thttps://...@h\t/x"),
            ("://", "://"),
        ] {
            assert_eq!(without_password(text), expected);
        }
    }
}
