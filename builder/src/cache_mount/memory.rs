//! What a cache mount remembers: for every input file the content that a RUN last saw there, and the time it was shown with.
//!
//! ```text
//! fluyt-cache-mount-memory/2\n
//! <last use: `never`, `running`, or seconds.nanoseconds> <generation> <name of the cover, or `-`>\n
//! <32 hex digits of the content's hash> <seconds>.<nanoseconds> <16 hex digits for the command> <path>\0      one for each file
//! ```
//!
//! A file that is not remembered was never seen, which is the careful side: so is all of a memory that cannot be read.

use std::collections::BTreeMap;

use crate::blob::ContentHash;

const HEAD: &[u8] = b"fluyt-cache-mount-memory/2\n";

/// A moment as file systems note it: seconds since 1970, and nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    /// Seconds since 1970.
    pub seconds: i64,
    /// Nanoseconds after them.
    pub nanoseconds: u32,
}

impl Moment {
    /// Before every other.
    pub const EARLIEST: Self = Self { seconds: i64::MIN, nanoseconds: 0 };
}

/// What is in a file, as far as it is told apart: the first half of its content's hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 16]);

impl Fingerprint {
    /// Of the hash of its content.
    #[must_use]
    pub fn of(content: ContentHash) -> Self {
        let mut first = [0; 16];
        first.copy_from_slice(&content.as_bytes()[..16]);
        Self(first)
    }
}

/// When RUNs last used a mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LastUse {
    /// Nothing has used it.
    #[default]
    Never,
    /// The last one ended then.
    At(Moment),
    /// One is using it now, or was killed.
    Running,
}

/// One input file as it was last seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// What was in it.
    pub content: Fingerprint,
    /// The time that it was shown with. [`Moment::EARLIEST`] when the mount has known no other content of it since it was
    /// new: whatever was made of it then is right, and its time does not matter.
    pub shown: Moment,
    /// Which command saw it: a part of its hash.
    pub by: u64,
}

impl Seen {
    /// Two runs at the same time saw it with two contents: what is in the mount may have been made of either. No content has
    /// this fingerprint, so whoever comes next sees a file that is new.
    pub const IN_DOUBT: Self = Self { content: Fingerprint([0; 16]), shown: Moment::EARLIEST, by: 0 };
}

/// What a mount remembers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// When it was last used.
    pub last_use: LastUse,
    /// Raised by every RUN that begins.
    pub generation: u64,
    /// The folder of files with other times than their layers', if there is one.
    pub cover: Option<String>,
    /// The files, and links with what stands for their targets, by absolute path without the leading `/`.
    pub seen: BTreeMap<Vec<u8>, Seen>,
}

impl Memory {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let last_use = match self.last_use {
            LastUse::Never => "never".to_owned(),
            LastUse::Running => "running".to_owned(),
            LastUse::At(moment) => text(moment),
        };
        let mut bytes = HEAD.to_vec();
        let cover = self.cover.as_deref().unwrap_or("-");
        bytes.extend(format!("{last_use} {} {cover}\n", self.generation).into_bytes());
        for (path, seen) in &self.seen {
            bytes
                .extend(format!("{} {} {:016x} ", hex::encode(seen.content.0), text(seen.shown), seen.by).into_bytes());
            bytes.extend(path);
            bytes.push(0);
        }
        bytes
    }

    /// `None` for what we do not write.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(HEAD)?;
        let end = rest.iter().position(|byte| *byte == b'\n')?;
        let (line, mut rest) = (std::str::from_utf8(&rest[..end]).ok()?, &rest[end + 1..]);
        let mut words = line.split(' ');
        let last_use = match words.next()? {
            "never" => LastUse::Never,
            "running" => LastUse::Running,
            other => LastUse::At(moment(other)?),
        };
        let generation = words.next()?.parse().ok()?;
        let cover = Some(words.next()?).filter(|name| *name != "-").map(str::to_owned);
        if cover.as_ref().is_some_and(|name| !name.starts_with("cover-") || name.contains('/')) {
            return None;
        }
        let mut seen = BTreeMap::new();
        while !rest.is_empty() {
            let end = rest.iter().position(|byte| *byte == 0)?;
            let mut fields = rest[..end].splitn(4, |byte| *byte == b' ');
            let mut content = [0; 16];
            hex::decode_to_slice(fields.next()?, &mut content).ok()?;
            let shown = moment(std::str::from_utf8(fields.next()?).ok()?)?;
            let by = u64::from_str_radix(std::str::from_utf8(fields.next()?).ok()?, 16).ok()?;
            seen.insert(fields.next()?.to_vec(), Seen { content: Fingerprint(content), shown, by });
            rest = &rest[end + 1..];
        }
        Some(Self { last_use, generation, cover, seen })
    }
}

fn text(moment: Moment) -> String {
    format!("{}.{}", moment.seconds, moment.nanoseconds)
}

fn moment(text: &str) -> Option<Moment> {
    let (seconds, nanoseconds) = text.split_once('.')?;
    let nanoseconds = nanoseconds.parse().ok().filter(|nanoseconds| *nanoseconds < 1_000_000_000)?;
    Some(Moment { seconds: seconds.parse().ok()?, nanoseconds })
}
