//! PAX records (POSIX.1-2017, pax, "pax Extended Header"): `LENGTH KEY=VALUE\n`, where LENGTH counts the whole record.

use super::FileTime;

/// One record's key and value.
pub(super) type Record<'a> = (&'a [u8], &'a [u8]);

/// Splits the content of an extended header into its records.
///
/// # Errors
/// What is wrong, in words, when it is no sequence of well-formed records.
pub(super) fn parse(mut bytes: &[u8]) -> Result<Vec<Record<'_>>, String> {
    let mut records = Vec::new();
    // Some writers pad the content with NUL bytes up to the length in the header.
    while !bytes.is_empty() && bytes.iter().any(|byte| *byte != 0) {
        let space = bytes.iter().take(20).position(|byte| *byte == b' ').ok_or("a record has no length")?;
        let digits = &bytes[..space];
        let length = decimal(digits).and_then(|length| usize::try_from(length).ok());
        let length = length.ok_or_else(|| format!("a record has the length {:?}", String::from_utf8_lossy(digits)))?;
        if length <= space + 1 || length > bytes.len() {
            return Err(format!("a record has the length {length}, and {} bytes are left", bytes.len()));
        }
        let (record, rest) = bytes.split_at(length);
        let Some((b'\n', record)) = record[space + 1..].split_last() else {
            return Err("a record does not end with a line feed".to_owned());
        };
        let equals = record.iter().position(|byte| *byte == b'=').ok_or("a record has no `=`")?;
        if equals == 0 {
            return Err("a record has no key".to_owned());
        }
        records.push((&record[..equals], &record[equals + 1..]));
        bytes = rest;
    }
    Ok(records)
}

/// Appends one record.
pub(super) fn push(bytes: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    // The length counts its own digits: adding them may make it one digit longer.
    let mut length = rest + digits(rest);
    if rest + digits(length) != length {
        length = rest + digits(length);
    }
    bytes.extend_from_slice(length.to_string().as_bytes());
    bytes.push(b' ');
    bytes.extend_from_slice(key);
    bytes.push(b'=');
    bytes.extend_from_slice(value);
    bytes.push(b'\n');
}

fn digits(number: usize) -> usize {
    number.to_string().len()
}

/// A number of decimal digits and nothing else.
pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// A time as seconds with an optional fraction, perhaps negative; digits below a nanosecond are cut.
pub(super) fn time(value: &[u8]) -> Option<FileTime> {
    let (negative, value) = match value.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, value),
    };
    let (whole, fraction) = match value.iter().position(|byte| *byte == b'.') {
        Some(point) => (&value[..point], &value[point + 1..]),
        None => (value, &b""[..]),
    };
    let seconds = i64::try_from(decimal(whole)?).ok()?;
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let nanoseconds = (0..9).fold(0, |sum, at| sum * 10 + u32::from(fraction.get(at).map_or(0, |digit| digit - b'0')));
    Some(match (negative, nanoseconds) {
        (false, _) => FileTime { seconds, nanoseconds },
        (true, 0) => FileTime { seconds: -seconds, nanoseconds: 0 },
        (true, _) => FileTime { seconds: -seconds - 1, nanoseconds: 1_000_000_000 - nanoseconds },
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_record_counts_its_own_digits() {
        let mut bytes = Vec::new();
        push(&mut bytes, b"path", b"a");
        assert_eq!(bytes, b"9 path=a\n");
        // Nine bytes without the length; with one digit they are ten, which takes two.
        let mut bytes = Vec::new();
        push(&mut bytes, b"k", b"12345");
        assert_eq!(bytes, b"11 k=12345\n");
        let mut bytes = Vec::new();
        push(&mut bytes, b"k", &[b'x'; 93]);
        assert_eq!(&bytes[..4], b"99 k");
        let mut bytes = Vec::new();
        push(&mut bytes, b"k", &[b'x'; 94]);
        assert_eq!(&bytes[..5], b"101 k");
    }

    #[test]
    fn bad_records_are_refused_with_the_reason() {
        for (bytes, reason) in [
            (&b"x"[..], "a record has no length"),
            (b"-1 a=b\n", r#"a record has the length "-1""#),
            (b"99999999999999999 a=b\n", "a record has the length 99999999999999999, and 22 bytes are left"),
            (b"2 a=b\n", "a record has the length 2, and 6 bytes are left"),
            (b"6 a=bc\n", "a record does not end with a line feed"),
            (b"5 ab\n", "a record has no `=`"),
            (b"5 =b\n", "a record has no key"),
        ] {
            assert_eq!(parse(bytes).unwrap_err(), reason);
        }
    }

    #[test]
    fn times_round_down() {
        let at = |seconds, nanoseconds| Some(FileTime { seconds, nanoseconds });
        assert_eq!(time(b"12"), at(12, 0));
        assert_eq!(time(b"12.5"), at(12, 500_000_000));
        assert_eq!(time(b"0.0000000019"), at(0, 1));
        assert_eq!(time(b"-1.25"), at(-2, 750_000_000));
        assert_eq!(time(b"-3"), at(-3, 0));
        for bad in [&b""[..], b"-", b".5", b"1.x", b"1e3", b"99999999999999999999"] {
            assert_eq!(time(bad), None);
        }
    }

    proptest! {
        #[test]
        fn records_read_back(records in proptest::collection::vec(
            (proptest::collection::vec(any::<u8>().prop_filter("no =", |byte| *byte != b'='), 1..30),
             proptest::collection::vec(any::<u8>(), 0..200)), 0..8)
        ) {
            let mut bytes = Vec::new();
            for (key, value) in &records {
                push(&mut bytes, key, value);
            }
            let read: Vec<_> = parse(&bytes).unwrap().into_iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
            prop_assert_eq!(read, records);
        }

        #[test]
        fn any_bytes_are_records_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = parse(&bytes);
            let _ = time(&bytes);
        }
    }
}
