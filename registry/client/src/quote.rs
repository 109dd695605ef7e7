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
