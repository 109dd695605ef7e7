//! The small notations of Docker's command line and language: fields apart by commas, truth values, amounts; and which of
//! several words was meant by one that is none of them.

/// The fields of one line of CSV (RFC 4180), as Go's `encoding/csv` reads it.
///
/// # Errors
/// For quotes that do not belong where they are.
pub fn csv(text: &str) -> Result<Vec<String>, String> {
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let more = if let Some(mut after) = rest.strip_prefix('"') {
            let mut field = String::new();
            loop {
                let (part, behind) =
                    after.split_once('"').ok_or_else(|| format!("a quote in `{text}` does not end"))?;
                field.push_str(part);
                match behind.strip_prefix('"') {
                    Some(more) => {
                        field.push('"');
                        after = more;
                    }
                    None => {
                        after = behind;
                        break;
                    }
                }
            }
            fields.push(field);
            match after.strip_prefix(',') {
                None if !after.is_empty() => return Err(format!("text follows a closing quote in `{text}`")),
                more => more,
            }
        } else {
            let (field, more) = rest.split_once(',').map_or((rest, None), |(field, more)| (field, Some(more)));
            if field.contains('"') {
                return Err(format!("a bare quote in `{text}`; a field with a comma stands in quotes as a whole"));
            }
            fields.push(field.to_owned());
            more
        };
        match more {
            Some(more) => rest = more,
            None => return Ok(fields),
        }
    }
}

/// Fields that are all `key=value`, with their keys in small letters.
///
/// # Errors
/// For what is no CSV, and for a field that has no `=`.
pub fn pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    let pair = |field: String| match field.split_once('=') {
        Some((key, value)) => Ok((key.trim().to_ascii_lowercase(), value.to_owned())),
        None => Err(format!("`{field}` is no `key=value`")),
    };
    csv(text)?.into_iter().map(pair).collect()
}

/// Go's notion of a boolean.
#[must_use]
pub fn truth(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// The value of a key that may stand alone, which switches it on.
///
/// # Errors
/// For another value than a boolean.
pub fn switch(key: &str, value: Option<&str>) -> Result<bool, String> {
    value
        .map_or(Some(true), truth)
        .ok_or_else(|| format!("invalid value `{}` of `{key}`: expected `true` or `false`", value.unwrap_or_default()))
}

/// An amount of bytes as Docker reads it: `64m`, `1.5GiB`, `4096`. Units are powers of 1024, also without an `i`.
#[must_use]
pub fn bytes(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let end = text.find(|character: char| !character.is_ascii_digit() && character != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let shift = match unit.trim() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        "p" | "pb" | "pib" => 50,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole: u64 = if whole.is_empty() && !fraction.is_empty() { 0 } else { whole.parse().ok()? };
    let mut total = u128::from(whole) << shift;
    let mut scale = 1;
    for digit in fraction.bytes().take(15) {
        scale *= 10;
        total += (u128::from(digit.checked_sub(b'0').filter(|digit| *digit <= 9)?) << shift) / scale;
    }
    u64::try_from(total).ok()
}

/// The same for the command line.
///
/// # Errors
/// For what is no amount.
pub fn amount(text: &str) -> Result<u64, String> {
    bytes(text).ok_or_else(|| format!("expected an amount like `10GB`, `512MB` or a number of bytes, found `{text}`"))
}

/// Longest name, in bytes, that is compared with others: the work grows with the product of the lengths.
const COMPARED_MAX_BYTES: usize = 64;

/// The name nearest to `word`, if one is near enough to be a slip.
#[must_use]
pub fn nearest<'n>(word: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    if word.len() > COMPARED_MAX_BYTES {
        return None;
    }
    let word = word.to_lowercase();
    names
        .into_iter()
        .filter(|name| name.len() <= COMPARED_MAX_BYTES)
        .map(|name| (strsim::damerau_levenshtein(&word, &name.to_lowercase()), name))
        .filter(|(distance, name)| *distance <= name.len().max(word.len()).div_ceil(3).min(3) && *distance < name.len())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_those_of_csv() {
        for (text, expected) in [
            ("a,b", Some(&["a", "b"][..])),
            ("", Some(&[""])),
            ("a,,", Some(&["a", "", ""])),
            (r#""a,b",c"#, Some(&["a,b", "c"])),
            (r#"a,"b ""c""""#, Some(&["a", r#"b "c""#])),
            (r#""""#, Some(&[""])),
            (r#"a="b""#, None),
            (r#""a"b"#, None),
            (r#"a,"b"#, None),
        ] {
            assert_eq!(
                csv(text).ok().as_deref(),
                expected
                    .map(|fields| fields.to_vec())
                    .as_deref()
                    .map(|fields| fields.iter().map(ToString::to_string).collect::<Vec<_>>())
                    .as_deref(),
                "{text}"
            );
        }
        assert_eq!(
            pairs(r#"ID=x,"src=k,1""#).unwrap(),
            [("id".to_owned(), "x".to_owned()), ("src".into(), "k,1".into())]
        );
        assert_eq!(pairs("id=x,y").unwrap_err(), "`y` is no `key=value`");
    }

    #[test]
    fn amounts_are_read_as_docker_reads_them() {
        for (text, expected) in [
            ("0", Some(0)),
            ("1000", Some(1000)),
            ("512m", Some(512 << 20)),
            ("10GB", Some(10 << 30)),
            ("1.5gib", Some(3 << 29)),
            ("1.5k", Some(1536)),
            (".5k", Some(512)),
            ("2 TB", Some(2 << 40)),
            ("1p", Some(1 << 50)),
            ("", None),
            ("-1", None),
            ("10XB", None),
            ("10ibb", None),
            ("1.2.3", None),
            ("1e3", None),
            ("99999999999999999999t", None),
            ("20000p", None),
        ] {
            assert_eq!(bytes(text), expected, "{text}");
        }
    }

    #[test]
    fn a_near_name_is_found_and_a_far_one_is_not() {
        let names = ["RUN", "COPY", "ENTRYPOINT", "ENV"];
        assert_eq!(nearest("RUNN", names), Some("RUN"));
        assert_eq!(nearest("cpoy", names), Some("COPY"));
        assert_eq!(nearest("ENTRYPIONT", names), Some("ENTRYPOINT"));
        assert_eq!(nearest("xyzzy", names), None);
    }
}
