//! `/etc/shadow`: the day on which a password was changed last.

/// Seconds of a day.
const DAY_S: i64 = 24 * 60 * 60;

/// From so many days on, a password may stay as it is for good (shadow(5) and `login.defs`: 99999).
const FOR_GOOD: u32 = 99_999;

/// Which fields of a line these are, from 0 (shadow(5)).
const CHANGED: usize = 2;
const STAYS_AT_MOST: usize = 4;

/// The text `now` with the day of the epoch where a line has a later one. None where that changes nothing.
///
/// A line of `before`, the file before the command, is the base's and stays. So does one whose password must be changed
/// after some days: it would be out of date at once. Before the second day of 1970 the field is emptied, as `useradd` does it:
/// day 0 asks for a new password at the next login.
#[must_use]
pub fn with_day_of(epoch_seconds: i64, before: &[u8], now: &[u8]) -> Option<Vec<u8>> {
    let day = epoch_seconds.div_euclid(DAY_S);
    let written = if day > 0 { day.to_string() } else { String::new() };
    let before: Vec<&[u8]> = before.split(|byte| *byte == b'\n').collect();
    let mend = |line: &[u8]| -> Option<Vec<u8>> {
        let mut fields: Vec<&[u8]> = line.split(|byte| *byte == b':').collect();
        let stays = *fields.get(STAYS_AT_MOST)?;
        let is_later = number(fields[CHANGED]).is_some_and(|changed| i64::from(changed) > day);
        let for_good = stays.is_empty() || number(stays).is_some_and(|days| days >= FOR_GOOD);
        (is_later && for_good && !before.contains(&line)).then(|| {
            fields[CHANGED] = written.as_bytes();
            fields.join(&b':')
        })
    };
    let lines: Vec<Vec<u8>> =
        now.split(|byte| *byte == b'\n').map(|line| mend(line).unwrap_or_else(|| line.to_vec())).collect();
    let text = lines.join(&b'\n');
    (text != now).then_some(text)
}

fn number(digits: &[u8]) -> Option<u32> {
    let is_number = digits.iter().all(u8::is_ascii_digit);
    is_number.then(|| std::str::from_utf8(digits).ok()?.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_today_gets_the_day_of_the_epoch() {
        let before = b"root:*:20780:0:99999:7:::\nold:!:20780:0:99999:7:::\n";
        for (line, epoch_seconds, mended) in [
            ("app:!:20786:0:99999:7:::", 315_532_800, Some("app:!:3652:0:99999:7:::")),
            ("app:$6$x:20786::::::", 315_532_800, Some("app:$6$x:3652::::::")),
            ("app:!:20786:0:99999:7:::", 0, Some("app:!::0:99999:7:::")),
            // Those of the base, of the epoch and before, that must be changed now or after some days, and no such lines.
            ("old:!:20780:0:99999:7:::", 315_532_800, None),
            ("app:!:3652:0:99999:7:::", 315_532_800, None),
            ("app:!:0:0:99999:7:::", 315_532_800, None),
            ("app:!::0:99999:7:::", 315_532_800, None),
            ("app:!:20786:0:90:7:::", 315_532_800, None),
            ("app:!:99999999999:0:99999:7:::", 315_532_800, None),
            ("app:!:20786", 315_532_800, None),
            ("", 315_532_800, None),
        ] {
            let text = |line: &str| format!("root:*:20780:0:99999:7:::\n{line}\n").into_bytes();
            let found = with_day_of(epoch_seconds, before, &text(line));
            assert_eq!(found, mended.map(text), "{line} {epoch_seconds}");
        }
        assert_eq!(
            with_day_of(86_400, b"", b"a:!:2:0:99999:7:::").unwrap(),
            b"a:!:1:0:99999:7:::",
            "without a last line's end"
        );
    }
}
