//! A key -> the file that holds it, and back.
//!
//! Each component of a key becomes one component of the path; the last one, the file, gets an `@` at its end, so that
//! an object `a` and an object `a/b` can both be. A component with capital letters is written in small ones, followed by
//! `@` and a bit map in hex of which were capitals, so that names that differ only by case stay apart on a file system
//! that does not tell them apart. No key holds an `@`, hence what begins with one (temporary files, the lock, the
//! unfinished uploads) is none.
//!
//! What a CNCF distribution registry has put here (`docker/registry/`) keeps its names as they are.
//!
//! ```text
//! catalog/app!                     -> catalog/app!@
//! repos/app/_tags/RC1!/0001.ab.gone -> repos/app/_tags/rc1!@c/0001.ab.gone@
//! ```

use std::io;
use std::path::{Path, PathBuf};

/// Keys that another registry's files have, which keep their names: see `storage::adopted`.
const VERBATIM: &str = "docker/registry/";
/// Where a CNCF distribution registry keeps its things.
pub(super) const DISTRIBUTION: &str = "docker/registry/v2";
/// What begins the name of a file being written.
pub(super) const TEMPORARY: &str = "@new-";
/// The file that the process holds a lock on.
pub(super) const LOCK: &str = "@lock";
/// The folder of unfinished uploads.
pub(super) const PARTS: &str = "@parts";
/// The socket of the server that holds the lock.
pub(super) const CONTROL: &str = "@control";
/// What file systems allow for one component.
const COMPONENT_MAX_BYTES: usize = 255;

/// The file of a key.
pub(super) fn file(root: &Path, key: &str) -> io::Result<PathBuf> {
    if key.starts_with(VERBATIM) {
        return verbatim(root, key);
    }
    let mut path = root.to_owned();
    let mut components = key.split('/').peekable();
    while let Some(component) = components.next() {
        let mut name = encode(component)?;
        if components.peek().is_none() {
            name.push('@');
        }
        if name.len() > COMPONENT_MAX_BYTES {
            return Err(refused(component, "is too long for a file name"));
        }
        path.push(name);
    }
    Ok(path)
}

/// The folder of the keys that begin with `prefix`, which ends in `/` or is empty.
pub(super) fn folder(root: &Path, prefix: &str) -> io::Result<PathBuf> {
    if prefix.starts_with(VERBATIM) {
        return verbatim(root, prefix.trim_end_matches('/'));
    }
    let mut path = root.to_owned();
    for component in prefix.split_terminator('/') {
        path.push(encode(component)?);
    }
    Ok(path)
}

fn verbatim(root: &Path, key: &str) -> io::Result<PathBuf> {
    match key.split('/').find(|component| !is_plain(component)) {
        Some(component) => Err(refused(component, "cannot be part of a key in a folder")),
        None => Ok(root.join(key)),
    }
}

fn is_plain(component: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'!' | b'+' | b'=');
    !component.is_empty() && component != "." && component != ".." && component.bytes().all(allowed)
}

fn refused(component: &str, why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("`{component}` {why}"))
}

fn encode(component: &str) -> io::Result<String> {
    if !is_plain(component) {
        return Err(refused(component, "cannot be part of a key in a folder"));
    }
    let mut name = component.to_ascii_lowercase();
    if name != component {
        name.push('@');
        // The last hex digit says the four first characters, so that digits are few for a capital at the beginning.
        let bytes = component.as_bytes();
        let digits = bytes.chunks(4).map(|four| {
            four.iter().enumerate().fold(0u32, |digit, (bit, b)| digit | u32::from(b.is_ascii_uppercase()) << bit)
        });
        let digits: Vec<u32> = digits.collect();
        let last = digits.iter().rposition(|digit| *digit != 0).unwrap_or(0);
        name.extend(digits.iter().take(last + 1).rev().filter_map(|digit| char::from_digit(*digit, 16)));
    }
    Ok(name)
}

/// What a directory entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Entry {
    /// The last component of a key.
    Object(String),
    /// One before the last.
    Folder(String),
}

/// Reads the name of an entry of the directory of keys that begin with `start`; `None` for what is no part of any key.
pub(super) fn decode_in(start: &str, name: &str, is_folder: bool) -> Option<Entry> {
    if !start.starts_with(VERBATIM) {
        return decode(name, is_folder);
    }
    let name = is_plain(name).then(|| name.to_owned())?;
    Some(if is_folder { Entry::Folder(name) } else { Entry::Object(name) })
}

fn decode(name: &str, is_folder: bool) -> Option<Entry> {
    if name.starts_with('@') {
        return None;
    }
    let name = if is_folder { name } else { name.strip_suffix('@')? };
    let component = match name.split_once('@') {
        None => name.to_owned(),
        Some((lower, bits)) => {
            let mut bytes = lower.as_bytes().to_vec();
            for (four, digit) in bytes.chunks_mut(4).zip(bits.chars().rev()) {
                let digit = digit.to_digit(16)?;
                for (bit, byte) in four.iter_mut().enumerate() {
                    if digit & (1 << bit) != 0 {
                        byte.make_ascii_uppercase();
                    }
                }
            }
            String::from_utf8(bytes).ok()?
        }
    };
    // A file that somebody else put here is not to look like one of ours.
    if encode(&component).ok()? != name {
        return None;
    }
    Some(if is_folder { Entry::Folder(component) } else { Entry::Object(component) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn spelled() {
        let spelled = |key| file(Path::new("/s"), key).unwrap().display().to_string();
        assert_eq!(spelled("catalog/app!"), "/s/catalog/app!@");
        assert_eq!(spelled("repos/app/_tags/RC1!/0001.ab.gone"), "/s/repos/app/_tags/rc1!@3/0001.ab.gone@");
        assert_eq!(spelled("docker/registry/v2/A/data"), "/s/docker/registry/v2/A/data");
        assert!(file(Path::new("/s"), "docker/registry/../b").is_err());
        assert!(file(Path::new("/s"), "a/../b").is_err());
        assert!(file(Path::new("/s"), "a/@b").is_err());
        assert!(file(Path::new("/s"), &"a".repeat(255)).is_err());
    }

    #[test]
    fn the_longest_tag_fits() {
        assert!(file(Path::new("/s"), &format!("{}!/x", "T".repeat(128))).is_ok());
    }

    proptest! {
        #[test]
        fn names_read_back_and_no_two_agree_but_for_case(a in "[a-zA-Z0-9._!-]{1,40}", b in "[aAbB!]{1,6}", c in "[aAbB!]{1,6}") {
            for component in [&a, &b] {
                if let Ok(name) = encode(component) {
                    prop_assert_eq!(decode(&name, true), Some(Entry::Folder(component.clone())));
                    prop_assert_eq!(decode(&format!("{name}@"), false), Some(Entry::Object(component.clone())));
                }
            }
            if b != c {
                prop_assert_ne!(encode(&b).unwrap().to_lowercase(), encode(&c).unwrap().to_lowercase());
            }
        }

        #[test]
        fn decoding_never_panics(name: String, is_folder: bool) {
            let _ = decode(&name, is_folder);
        }
    }
}
