//! Which file was meant by a name that is not there.

/// Longer names are compared with none: the work grows with the product of the lengths.
const COMPARED_MAX_BYTES: usize = 255;

/// The one of `names` that is `wanted` but for a slip: up to three letters, and no more than a third of the name. Upper and
/// lower case do not differ.
pub fn nearest_file_name<'n>(wanted: &[u8], names: impl IntoIterator<Item = &'n [u8]>) -> Option<&'n [u8]> {
    if wanted.len() > COMPARED_MAX_BYTES {
        return None;
    }
    let text = String::from_utf8_lossy(wanted).to_lowercase();
    names
        .into_iter()
        .filter(|name| name.len().abs_diff(wanted.len()) <= 3)
        .map(|name| (strsim::damerau_levenshtein(&text, &String::from_utf8_lossy(name).to_lowercase()), name))
        .filter(|(distance, name)| *distance <= text.len().max(name.len()).div_ceil(3).min(3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}
