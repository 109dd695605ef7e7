//! The build checks: what is no error and still likely wrong.
//!
//! [`Rule`] names all of them. Those that need nothing but the text are made here, the others where a stage is lowered. A
//! check that was made is a [`Problem`](super::Problem) with its rule; [`CheckOptions`] says which of them anybody wants to see.

mod file;
mod options;
mod rules;

pub(super) use file::check_file;
pub use options::CheckOptions;
pub use rules::Rule;

/// Farther than this is no slip, for a check's "did you mean".
const SUGGESTED_WITHIN: usize = 3;

/// Longest name, in bytes, that is compared with others: the work grows with the product of the lengths.
const COMPARED_MAX_BYTES: usize = 64;

/// ` (did you mean X?)` with `prefix` before the name that is nearest, as checks say it; nothing when none is near, and
/// when the name is one of them.
#[must_use]
pub fn did_you_mean<'n>(name: &str, names: impl IntoIterator<Item = &'n str>, prefix: &str) -> String {
    let mut best = None;
    for other in names.into_iter().filter(|other| name.len().max(other.len()) <= COMPARED_MAX_BYTES) {
        if other == name {
            return String::new();
        }
        let distance = strsim::levenshtein(name, other);
        if best.is_none_or(|(least, _)| distance < least) && distance < SUGGESTED_WITHIN {
            best = Some((distance, other));
        }
    }
    best.map(|(_, other)| format!(" (did you mean {prefix}{other}?)")).unwrap_or_default()
}
