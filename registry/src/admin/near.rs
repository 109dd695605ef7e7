//! Names like one that was mistyped.

/// At most three of `names` that `wanted` may have been meant to be, the likeliest first.
pub(super) fn near<'n>(wanted: &str, names: impl Iterator<Item = &'n str>) -> Vec<String> {
    let most = (wanted.len() / 3).clamp(1, 3);
    let mut found: Vec<(usize, &str)> = names
        .filter(|name| name.len().abs_diff(wanted.len()) <= most)
        .map(|name| (distance(wanted, name), name))
        .filter(|(distance, _)| (1..=most).contains(distance))
        .collect();
    found.sort();
    found.into_iter().take(3).map(|(_, name)| name.to_owned()).collect()
}

/// How many characters have to be put in, left out or changed.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (number, from) in one.chars().enumerate() {
        let mut before = number;
        let mut left = number + 1;
        for (cell, to) in row.iter_mut().skip(1).zip(&other) {
            let changed = before + usize::from(from != *to);
            before = *cell;
            *cell = changed.min(before + 1).min(left + 1);
            left = *cell;
        }
        if let Some(first) = row.first_mut() {
            *first = number + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (one, other, expected) in
            [("", "", 0), ("a", "", 1), ("", "ab", 2), ("kitten", "sitting", 3), ("ab", "ba", 2)]
        {
            assert_eq!(distance(one, other), expected, "{one} {other}");
        }
    }

    #[test]
    fn near_names() {
        let names = ["team/app", "team/apps", "team/web", "other"];
        assert_eq!(near("team/ap", names.into_iter()), ["team/app", "team/apps"]);
        assert_eq!(near("team/app", names.into_iter()), ["team/apps"]);
        assert_eq!(near("x", names.into_iter()), Vec::<String>::new());
    }
}
