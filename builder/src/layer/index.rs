//! What is in a layer, kept beside it, so that questions about it need not one byte of it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;

use oci_spec::image::Digest;
use serde::{Deserialize, Serialize, Serializer};

use super::{Entry, FileTime, Kind, LayerError, LayerPath};
use crate::blob::{ContentHash, Store};

/// The form of the JSON. Raise it when its meaning changes; an index of another version is made again, if need be by its step.
const VERSION: u32 = 3;

/// Where the times of an index are from.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum Origin {
    /// The step that made the layer: those that a command sees, whatever the blob was given.
    Step,
    /// The layer's blob.
    Blob,
}

/// Largest account file whose text is kept. The largest real ones have some thousand lines.
pub const ACCOUNTS_SIZE_MAX_BYTES: u64 = 1024 * 1024;

/// The entries of one layer, in the order of its tar, and the text of its account files.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LayerIndex {
    /// The entries.
    pub entries: Vec<IndexEntry>,
    /// Text of the account files in the layer, by path; see [`is_account_file`].
    pub accounts: BTreeMap<LayerPath, String>,
}

/// One entry of a layer and the hash of its content.
#[derive(Clone, Debug, PartialEq)]
pub struct IndexEntry {
    /// The entry.
    pub entry: Entry,
    /// Of regular files only.
    pub content: Option<ContentHash>,
}

/// Whether the text of the file at `path` is kept: `passwd` and `group` in a folder `etc` or `lib`.
///
/// Distributions that keep accounts elsewhere have `/etc/passwd` as a link to `/usr/lib/passwd` or the like.
#[must_use]
pub fn is_account_file(path: &LayerPath) -> bool {
    let mut last = path.components().rev();
    matches!(last.next(), Some(b"passwd" | b"group")) && matches!(last.next(), Some(b"etc" | b"lib"))
}

impl LayerIndex {
    /// Reads the index that is kept for the layer, and holds it; `None` when there is none of this version.
    ///
    /// # Errors
    /// [`LayerError::BadIndex`] when the file is not what we write; it is gone then.
    pub fn load(store: &Store, diff_id: &Digest) -> Result<Option<Self>, LayerError> {
        let place = place(diff_id);
        store.hold(&place, || Ok(Self::is_kept(store, diff_id).then_some(())))?;
        let Some(bytes) = store.read_entry(Path::new(&place))? else { return Ok(None) };
        store.entry_used(Path::new(&place));
        Self::from_json(&bytes).map_err(|reason| {
            // Else it would be found again by who only looks whether there is one.
            let _ = fs::remove_file(store.root().join(&place));
            LayerError::BadIndex { diff_id: diff_id.clone(), reason }
        })
    }

    /// As [`LayerIndex::load`], and `None` too when the index was made of the blob.
    ///
    /// # Errors
    /// Those of [`LayerIndex::load`].
    pub fn load_of_step(store: &Store, diff_id: &Digest) -> Result<Option<Self>, LayerError> {
        if Self::is_of_step(store, diff_id) { Self::load(store, diff_id) } else { Ok(None) }
    }

    /// Whether the index is there with the times that the layer's step gave it; then it is held. Read of it is its head alone.
    pub fn is_of_step(store: &Store, diff_id: &Digest) -> bool {
        let place = place(diff_id);
        let head = || {
            let mut head = [0; OF_STEP.len()];
            File::open(store.root().join(&place)).and_then(|mut file| file.read_exact(&mut head)).ok()?;
            (head == OF_STEP).then_some(())
        };
        matches!(store.hold(&place, || Ok(head())), Ok(Some(())))
    }

    /// Whether there is something at the place of a layer's index; [`LayerIndex::load`] finds it damaged, or an index.
    pub fn is_kept(store: &Store, diff_id: &Digest) -> bool {
        store.root().join(place(diff_id)).exists()
    }

    /// Keeps the index that a step made with its layer, and holds it: it may have times that the layer's blob has not, and is
    /// synced for that.
    pub fn save(&self, store: &Store, diff_id: &Digest) -> Result<(), LayerError> {
        let place = place(diff_id);
        // Held from before it is there: nobody prunes what has just been made.
        store.hold(&place, || Ok(Some(())))?;
        Ok(store.write_entry(Path::new(&place), &self.to_json())?)
    }

    /// The same for an index that reading the blob would give again: a machine that loses its power may lose it, or the end
    /// of it, and then it is made again. A step's own stays: layers of several steps may be the same, empty ones are.
    pub fn save_unsynced(&self, store: &Store, diff_id: &Digest) -> Result<(), LayerError> {
        if Self::is_of_step(store, diff_id) {
            return Ok(());
        }
        Ok(store.write_hint(Path::new(&place(diff_id)), &self.json(Origin::Blob))?)
    }

    /// The JSON form of a step's index; the same index gives the same bytes.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        self.json(Origin::Step)
    }

    fn json(&self, of: Origin) -> Vec<u8> {
        let accounts: BTreeMap<String, &String> =
            self.accounts.iter().map(|(path, text)| (escape(path.as_bytes()), text)).collect();
        let stored = Written { version: VERSION, of, entries: &self.entries, accounts };
        serde_json::to_vec(&stored).expect("strings, numbers and maps with string keys always have a JSON form")
    }

    /// Reads the JSON form; `None` for another version, the reason for anything that we do not write.
    pub fn from_json(bytes: &[u8]) -> Result<Option<Self>, String> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let head: Version = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if head.version != VERSION {
            return Ok(None);
        }
        let stored: Stored = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let entries = stored.entries.into_iter().map(IndexEntry::try_from).collect::<Result<_, _>>()?;
        let mut accounts = BTreeMap::new();
        for (path, text) in stored.accounts {
            accounts.insert(layer_path(&path)?, text);
        }
        Ok(Some(Self { entries, accounts }))
    }
}

/// Where an index is below the store, and the name under which it is held.
fn place(diff_id: &Digest) -> String {
    format!("indexes/{}.json", diff_id.digest())
}

#[derive(Deserialize)]
struct Stored {
    entries: Vec<Row>,
    #[serde(default)]
    accounts: BTreeMap<String, String>,
}

/// What the JSON of an index of [`Origin::Step`] begins with.
const OF_STEP: [u8; 25] = *br#"{"version":3,"of":"step","#;

/// The same while it is written, each row when its turn comes.
#[derive(Serialize)]
struct Written<'a> {
    version: u32,
    of: Origin,
    #[serde(serialize_with = "rows")]
    entries: &'a [IndexEntry],
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    accounts: BTreeMap<String, &'a String>,
}

fn rows<S: Serializer>(entries: &&[IndexEntry], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(entries.iter().map(Row::from))
}

/// One entry as JSON. Names are short as there may be a hundred thousand of them.
#[derive(Serialize, Deserialize)]
struct Row {
    /// Path, without a leading `/`.
    p: String,
    #[serde(flatten)]
    kind: RowKind,
    /// Mode.
    m: u32,
    #[serde(default, skip_serializing_if = "is_zero")]
    u: u32,
    #[serde(default, skip_serializing_if = "is_zero")]
    g: u32,
    /// Seconds.
    t: i64,
    /// Nanoseconds.
    #[serde(default, skip_serializing_if = "is_zero")]
    n: u32,
    /// Extended attributes; values in hexadecimal.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    x: BTreeMap<String, String>,
    /// Hash of the content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    h: Option<ContentHash>,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "k")]
enum RowKind {
    #[serde(rename = "f")]
    File { s: u64 },
    #[serde(rename = "d")]
    Directory,
    #[serde(rename = "l")]
    Symlink { to: String },
    #[serde(rename = "h")]
    Hardlink { to: String },
    #[serde(rename = "c")]
    CharDevice { a: u32, b: u32 },
    #[serde(rename = "b")]
    BlockDevice { a: u32, b: u32 },
    #[serde(rename = "p")]
    Fifo,
    #[serde(rename = "w")]
    Whiteout,
    #[serde(rename = "o")]
    Opaque,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(value: &u32) -> bool {
    *value == 0
}

impl From<&IndexEntry> for Row {
    fn from(index: &IndexEntry) -> Self {
        let entry = &index.entry;
        let kind = match &entry.kind {
            Kind::File { size_bytes } => RowKind::File { s: *size_bytes },
            Kind::Directory => RowKind::Directory,
            Kind::Symlink(target) => RowKind::Symlink { to: escape(target) },
            Kind::Hardlink(target) => RowKind::Hardlink { to: escape(target.as_bytes()) },
            Kind::CharDevice { major, minor } => RowKind::CharDevice { a: *major, b: *minor },
            Kind::BlockDevice { major, minor } => RowKind::BlockDevice { a: *major, b: *minor },
            Kind::Fifo => RowKind::Fifo,
            Kind::Whiteout => RowKind::Whiteout,
            Kind::Opaque => RowKind::Opaque,
        };
        Self {
            p: escape(entry.path.as_bytes()),
            kind,
            m: entry.mode,
            u: entry.uid,
            g: entry.gid,
            t: entry.modified.seconds,
            n: entry.modified.nanoseconds,
            x: entry.xattrs.iter().map(|(name, value)| (escape(name), hex::encode(value))).collect(),
            h: index.content,
        }
    }
}

impl TryFrom<Row> for IndexEntry {
    type Error = String;

    fn try_from(row: Row) -> Result<Self, String> {
        let kind = match row.kind {
            RowKind::File { s } => Kind::File { size_bytes: s },
            RowKind::Directory => Kind::Directory,
            RowKind::Symlink { to } => Kind::Symlink(unescape(&to)?),
            RowKind::Hardlink { to } => Kind::Hardlink(layer_path(&to)?),
            RowKind::CharDevice { a, b } => Kind::CharDevice { major: a, minor: b },
            RowKind::BlockDevice { a, b } => Kind::BlockDevice { major: a, minor: b },
            RowKind::Fifo => Kind::Fifo,
            RowKind::Whiteout => Kind::Whiteout,
            RowKind::Opaque => Kind::Opaque,
        };
        let mut xattrs = BTreeMap::new();
        for (name, value) in row.x {
            let value = hex::decode(&value).map_err(|error| format!("xattr {name} of {}: {error}", row.p))?;
            xattrs.insert(unescape(&name)?, value);
        }
        let entry = Entry {
            path: layer_path(&row.p)?,
            kind,
            mode: row.m,
            uid: row.u,
            gid: row.g,
            modified: FileTime { seconds: row.t, nanoseconds: row.n },
            xattrs,
        };
        Ok(Self { entry, content: row.h })
    }
}

fn layer_path(text: &str) -> Result<LayerPath, String> {
    LayerPath::clean(&unescape(text)?).ok_or_else(|| format!("{text:?} is no path inside a root"))
}

/// Bytes as text: valid UTF-8 stays, `%` and every byte that is not part of valid UTF-8 becomes `%XX`.
fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(&chunk.valid().replace('%', "%25"));
        for byte in chunk.invalid() {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        if *first != b'%' {
            bytes.push(*first);
            rest = tail;
            continue;
        }
        let digits = tail.get(..2).and_then(|two| hex::decode(two).ok());
        let Some(decoded) = digits else { return Err(format!("{text:?} has a bad escape")) };
        bytes.extend(decoded);
        rest = &tail[2..];
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_json_form_is_compact_and_stable() {
        let entry = |path: &str, kind| Entry {
            path: LayerPath::clean(path.as_bytes()).unwrap(),
            kind,
            mode: 0o755,
            uid: 0,
            gid: 5,
            modified: FileTime { seconds: -1, nanoseconds: 0 },
            xattrs: BTreeMap::new(),
        };
        let mut file = entry("bin/50%", Kind::File { size_bytes: 3 });
        file.xattrs.insert(b"security.capability".to_vec(), vec![1, 0xFF]);
        let mut link = entry("bin/l", Kind::Symlink(b"caf\xE9/\xC3\xA9".to_vec()));
        link.gid = 0;
        let index = LayerIndex {
            entries: vec![
                IndexEntry { entry: file, content: Some(ContentHash::of(b"abc")) },
                IndexEntry { entry: link, content: None },
            ],
            accounts: BTreeMap::from([(LayerPath::clean(b"etc/passwd").unwrap(), "root:x:0:0\n".to_owned())]),
        };
        let json = String::from_utf8(index.to_json()).unwrap();
        assert_eq!(
            json,
            concat!(
                r#"{"version":3,"of":"step","entries":[{"p":"bin/50%25","k":"f","s":3,"m":493,"g":5,"t":-1,"#,
                r#""x":{"security.capability":"01ff"},"#,
                r#""h":"6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85"},"#,
                r#"{"p":"bin/l","k":"l","to":"caf%E9/é","m":493,"t":-1}],"accounts":{"etc/passwd":"root:x:0:0\n"}}"#
            )
        );
        assert_eq!(LayerIndex::from_json(json.as_bytes()).unwrap(), Some(index));
        assert!(json.as_bytes().starts_with(&OF_STEP));
    }

    #[test]
    fn another_version_is_made_again_and_damage_is_an_error() {
        assert_eq!(LayerIndex::from_json(br#"{"version":1,"entries":[{"old":1}]}"#), Ok(None));
        assert!(LayerIndex::from_json(b"").is_err());
        let escaping = br#"{"version":3,"entries":[{"p":"../x","k":"d","m":0,"t":0}]}"#;
        assert!(LayerIndex::from_json(escaping).unwrap_err().contains("is no path inside a root"));
    }

    #[test]
    fn an_index_of_a_step_is_told_from_one_of_a_blob() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        let (diff_id, index) = (crate::blob::sha256(b"a layer"), LayerIndex::default());
        let of_step = || LayerIndex::load_of_step(&store, &diff_id).unwrap();
        assert!(!LayerIndex::is_of_step(&store, &diff_id));
        index.save_unsynced(&store, &diff_id).unwrap();
        assert!(!LayerIndex::is_of_step(&store, &diff_id) && of_step().is_none());
        assert_eq!(LayerIndex::load(&store, &diff_id).unwrap(), Some(index.clone()));
        index.save(&store, &diff_id).unwrap();
        assert!(LayerIndex::is_of_step(&store, &diff_id));
        assert_eq!(of_step(), Some(index));
        // What is damaged behind its head is found when it is read, and then it is there no more.
        fs::write(store.root().join(place(&diff_id)), OF_STEP).unwrap();
        assert!(LayerIndex::is_of_step(&store, &diff_id));
        assert!(matches!(LayerIndex::load(&store, &diff_id), Err(LayerError::BadIndex { .. })));
        assert!(!LayerIndex::is_of_step(&store, &diff_id) && LayerIndex::load(&store, &diff_id).unwrap().is_none());
    }

    #[test]
    fn account_files_are_known_by_name_and_folder() {
        let account = |path: &str| is_account_file(&LayerPath::clean(path.as_bytes()).unwrap());
        assert!(account("etc/passwd") && account("etc/group") && account("usr/lib/passwd"));
        assert!(!account("etc/passwd-") && !account("usr/bin/passwd") && !account("passwd"));
    }

    proptest! {
        #[test]
        fn any_bytes_survive_the_escape(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(unescape(&escape(&bytes)).unwrap(), bytes);
        }

        #[test]
        fn any_text_is_an_index_or_an_error(text in ".*") {
            let _ = LayerIndex::from_json(text.as_bytes());
            let _ = unescape(&text);
        }
    }
}
