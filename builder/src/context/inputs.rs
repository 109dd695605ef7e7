//! Which Dockerfile and which ignore file a build reads.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::ignore::{Ignore, IgnoreError};

/// Largest Dockerfile or ignore file read, in bytes. Real ones have kilobytes; this keeps a wrong path (an archive, a
/// device) from filling memory.
const INPUT_MAX_BYTES: u64 = 16 * 1024 * 1024;

/// Names looked for when none is given, in order. The first is the reference's, and so is its fall-back; the third is
/// what podman and buildah call theirs.
const NAMES: [&str; 3] = ["Dockerfile", "dockerfile", "Containerfile"];

/// Why an input cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// No file of the usual names.
    #[error("no Dockerfile in {}: looked for {}", .0.display(), NAMES.join(", "))]
    NoDockerfile(PathBuf),
    /// The file that was named is not there.
    #[error("the Dockerfile {} does not exist", .0.display())]
    Missing(PathBuf),
    /// It is no text.
    #[error("{} is {found}, not UTF-8 text: byte {at} is wrong", .path.display())]
    NotText {
        /// The file.
        path: PathBuf,
        /// Offset of the first wrong byte, from 0.
        at: usize,
        /// What its first bytes say it is.
        found: &'static str,
    },
    /// It is far too large.
    #[error("{} is larger than {INPUT_MAX_BYTES} bytes", .0.display())]
    TooLarge(PathBuf),
    /// A rule of the ignore file is malformed.
    #[error(transparent)]
    Ignore(#[from] IgnoreError),
    /// The system said no.
    #[error("cannot read {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A Dockerfile's text and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DockerfileText {
    /// The file.
    pub path: PathBuf,
    /// What is in it.
    pub text: String,
}

/// Reads the Dockerfile: `file` if one is named (as given; the caller joins nothing), else the first of the usual names
/// in `context`.
///
/// # Errors
///
/// When there is none, or it is no text.
pub fn read_dockerfile(context: &Path, file: Option<&Path>) -> Result<DockerfileText, InputError> {
    if let Some(path) = file {
        let text = read_text(path)?.ok_or_else(|| InputError::Missing(path.to_owned()))?;
        return Ok(DockerfileText { path: path.to_owned(), text });
    }
    for name in NAMES {
        let path = context.join(name);
        if let Some(text) = read_text(&path)? {
            return Ok(DockerfileText { path, text });
        }
    }
    Err(InputError::NoDockerfile(context.to_owned()))
}

/// Reads the ignore rules: `<Dockerfile>.dockerignore` beside the Dockerfile, else `.dockerignore` at the top of the
/// context; no rules when neither is there.
///
/// # Errors
///
/// When it cannot be read, or a rule is malformed.
pub fn read_ignore(context: &Path, dockerfile: Option<&Path>) -> Result<Ignore, InputError> {
    let own = dockerfile.map(|path| {
        let mut name = path.as_os_str().to_owned();
        name.push(".dockerignore");
        PathBuf::from(name)
    });
    for path in own.into_iter().chain([context.join(".dockerignore")]) {
        if let Some(text) = read_text(&path)? {
            let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
            return Ok(Ignore::parse(&text, &name)?);
        }
    }
    Ok(Ignore::default())
}

/// The first of the usual names of a Dockerfile that `has` knows.
pub fn usual_name(has: impl Fn(&str) -> bool) -> Option<&'static str> {
    NAMES.into_iter().find(|name| has(name))
}

/// Reads a Dockerfile from wherever it comes; `name` is what messages call it.
///
/// # Errors
///
/// When it cannot be read, or is no text.
pub fn read_dockerfile_from(stream: &mut dyn io::Read, name: &Path) -> Result<String, InputError> {
    text(stream, name)
}

/// The text of a file; `None` when there is no such file.
fn read_text(path: &Path) -> Result<Option<String>, InputError> {
    let failed = |source| InputError::Read { path: path.to_owned(), source };
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(failed(error)),
    };
    text(&mut &file, path).map(Some)
}

fn text(stream: &mut dyn io::Read, path: &Path) -> Result<String, InputError> {
    let mut bytes = Vec::new();
    let read = stream.take(INPUT_MAX_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(|source| InputError::Read { path: path.to_owned(), source })?;
    if bytes.len() as u64 > INPUT_MAX_BYTES {
        return Err(InputError::TooLarge(path.to_owned()));
    }
    String::from_utf8(bytes).or_else(|error| {
        let (at, found) = (error.utf8_error().valid_up_to(), kind(error.as_bytes()));
        let readable = (found == OTHER_ENCODING).then(|| with_comments_of_any_encoding(error.as_bytes())).flatten();
        readable.ok_or_else(|| InputError::NotText { path: path.to_owned(), at, found })
    })
}

/// The text of a file in which comments alone are no UTF-8: names of their writers, in older encodings. Below a heredoc
/// what begins with `#` may be content, which is never changed.
fn with_comments_of_any_encoding(bytes: &[u8]) -> Option<String> {
    let (mut text, mut may_be_content) = (String::new(), false);
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        match std::str::from_utf8(line) {
            Ok(line) => text.push_str(line),
            Err(_) if !may_be_content && line.trim_ascii_start().starts_with(b"#") => {
                text.push_str(&String::from_utf8_lossy(line));
            }
            Err(_) => return None,
        }
        may_be_content |= line.windows(2).any(|pair| pair == b"<<");
    }
    Some(text)
}

const OTHER_ENCODING: &str = "text in another encoding";

/// What bytes are that are no text.
fn kind(bytes: &[u8]) -> &'static str {
    match bytes {
        [0xFF, 0xFE, ..] | [0xFE, 0xFF, ..] => "UTF-16 text",
        [0x1F, 0x8B, ..] => "a gzip file",
        [0x28, 0xB5, 0x2F, 0xFD, ..] => "a zstd file",
        [b'P', b'K', 3, 4, ..] => "a zip archive",
        [0x7F, b'E', b'L', b'F', ..] => "a program",
        bytes if bytes.get(257..262) == Some(b"ustar") => "a tar archive",
        bytes if bytes.contains(&0) => "binary data",
        _ => OTHER_ENCODING,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_usual_names_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let found = || read_dockerfile(folder.path(), None).map(|found| found.text);
        let message = found().unwrap_err().to_string();
        assert!(message.ends_with("looked for Dockerfile, dockerfile, Containerfile"), "{message}");
        for name in ["Containerfile", "dockerfile", "Dockerfile"] {
            fs::write(folder.path().join(name), name).unwrap();
            assert_eq!(found().unwrap(), name);
        }
        let named = folder.path().join("other");
        assert!(matches!(read_dockerfile(folder.path(), Some(&named)), Err(InputError::Missing(_))));
        fs::write(&named, b"ab\xff").unwrap();
        assert!(matches!(read_dockerfile(folder.path(), Some(&named)), Err(InputError::NotText { at: 2, .. })));
        assert!(matches!(read_dockerfile(folder.path(), Some(folder.path())), Err(InputError::Read { .. })));
    }

    #[test]
    fn comments_may_be_of_another_encoding() {
        let read = |bytes: &[u8]| read_dockerfile_from(&mut &bytes[..], Path::new("f")).ok();
        assert_eq!(
            read(b"# J\xfcrgen\nFROM a\nRUN b \\\n  # \xe9\n  c").unwrap(),
            "# J\u{fffd}rgen\nFROM a\nRUN b \\\n  # \u{fffd}\n  c"
        );
        for wrong in [&b"FROM a # \xe9\n"[..], b"RUN <<E\n# \xe9\nE\n", b"#\xff\0\nFROM a\n"] {
            assert_eq!(read(wrong), None);
        }
    }

    #[test]
    fn the_dockerfiles_own_rules_replace_the_contexts() {
        let folder = tempfile::tempdir().unwrap();
        let dockerfile = folder.path().join("app.Dockerfile");
        let hides = |path: &[u8]| {
            let ignore = read_ignore(folder.path(), Some(&dockerfile)).unwrap();
            (ignore.matches(path).hidden, ignore.file().to_owned())
        };
        assert_eq!(hides(b"a"), (false, String::new()));
        fs::write(folder.path().join(".dockerignore"), "a").unwrap();
        assert_eq!(hides(b"a"), (true, ".dockerignore".to_owned()));
        fs::write(folder.path().join("app.Dockerfile.dockerignore"), "b").unwrap();
        assert_eq!(hides(b"a"), (false, "app.Dockerfile.dockerignore".to_owned()));
    }
}
