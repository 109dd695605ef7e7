//! Keys of operations: pure functions of what an operation does and of the content it does it to.
//!
//! These are *result keys* (see the design of the cache): a step's inputs count by what is in them, never by how they
//! came to be, by their times or by how they were compressed. Two rules give the correct hits:
//!
//! - a `COPY` counts as the entries that it is about to write, the destination's folders above them included. That holds
//!   the content it selected, the owner it gives and everything it met at the destination, and nothing else: a base that
//!   changed elsewhere does not matter to it, a base whose `/lib` became a link does.
//! - a `RUN` may read anything, so it counts all that lies below it.
//!
//! Every field is preceded by its length and every key by a schema tag, so that no two meanings share bytes.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

use super::plan::PlanKey;
use super::record::Stamps;
use crate::blob::ContentHash;
use crate::graph::{Conditions, Mount, MountKind, Network, RunOp, Security, Sharing};
use crate::layer::{Entry, Kind};

/// A SHA-256 over a preimage that this file spells.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key([u8; 32]);

impl Key {
    pub(super) fn bytes(&self) -> [u8; 32] {
        self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut bytes = [0; 32];
        hex::decode_to_slice(&text, &mut bytes).map_err(serde::de::Error::custom)?;
        Ok(Self(bytes))
    }
}

/// Collects the fields of one key.
#[derive(Clone, Debug)]
pub(super) struct Fields(Sha256);

impl Fields {
    /// `schema` is raised whenever the meaning of a field changes.
    pub(super) fn new(schema: &str) -> Self {
        let mut fields = Self(Sha256::new());
        fields.bytes(schema.as_bytes());
        fields
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.number(bytes.len() as u64);
        self.0.update(bytes);
        self
    }

    pub(super) fn number(&mut self, number: u64) -> &mut Self {
        self.0.update(number.to_be_bytes());
        self
    }

    pub(super) fn list<T: AsRef<[u8]>>(&mut self, items: &[T]) -> &mut Self {
        self.number(items.len() as u64);
        for item in items {
            self.bytes(item.as_ref());
        }
        self
    }

    /// The content of what is a file.
    pub(super) fn content(&mut self, hash: Option<ContentHash>) -> &mut Self {
        self.bytes(hash.as_ref().map_or(&[], |hash| hash.as_bytes()))
    }

    pub(super) fn kind(&mut self, kind: &Kind) -> &mut Self {
        match kind {
            Kind::File { size_bytes } => self.bytes(b"file").number(*size_bytes),
            Kind::Directory => self.bytes(b"directory"),
            Kind::Symlink(target) => self.bytes(b"symlink").bytes(target),
            Kind::Hardlink(target) => self.bytes(b"hardlink").bytes(target.as_bytes()),
            Kind::CharDevice { major, minor } => self.bytes(b"char").number((*major).into()).number((*minor).into()),
            Kind::BlockDevice { major, minor } => self.bytes(b"block").number((*major).into()).number((*minor).into()),
            Kind::Fifo => self.bytes(b"fifo"),
            Kind::Whiteout => self.bytes(b"whiteout"),
            Kind::Opaque => self.bytes(b"opaque"),
        }
    }

    pub(super) fn finish(self) -> Key {
        Key(self.0.finalize().into())
    }
}

/// What is in a root file system, as far as a step above it can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Content(Key);

impl Content {
    /// Nothing (`FROM scratch`).
    #[must_use]
    pub fn empty() -> Self {
        Self(Fields::new("content/empty/1").finish())
    }

    /// A base image. Its layers count by diff id: nobody needs to have them to know this.
    #[must_use]
    pub fn of_base(diff_ids: &[String]) -> Self {
        let mut fields = Fields::new("content/base/1");
        fields.list(diff_ids);
        Self(fields.finish())
    }

    /// Its form as a plain key.
    #[must_use]
    pub fn key(self) -> Key {
        self.0
    }

    /// This with one more layer on top.
    #[must_use]
    pub fn with(self, layer: LayerContent) -> Self {
        let mut fields = Fields::new("content/layer/1");
        fields.bytes(&self.0.0).bytes(&layer.0.0);
        Self(fields.finish())
    }
}

/// What is in one layer: path, kind, mode, owner, link target, hard links, kept attributes and bytes; never times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LayerContent(Key);

impl LayerContent {
    /// Its form as a plain key.
    #[must_use]
    pub fn key(self) -> Key {
        self.0
    }
}

/// Collects the entries of a layer, in the layer's order.
#[derive(Clone, Debug)]
pub struct LayerContentHasher(Fields);

impl Default for LayerContentHasher {
    fn default() -> Self {
        Self(Fields::new("layer/2"))
    }
}

impl LayerContentHasher {
    /// One more entry. `content` is that of a file.
    pub fn entry(&mut self, entry: &Entry, content: Option<ContentHash>) {
        let fields = &mut self.0;
        fields.bytes(entry.path.as_bytes());
        fields.kind(&entry.kind);
        fields.number(entry.mode.into()).number(entry.uid.into()).number(entry.gid.into());
        fields.content(content);
        fields.number(entry.xattrs.len() as u64);
        for (name, value) in &entry.xattrs {
            fields.bytes(name).bytes(value);
        }
    }

    /// The layer's content.
    #[must_use]
    pub fn finish(self) -> LayerContent {
        LayerContent(self.0.finish())
    }
}

/// How the build treats times and what differs with them; part of every `RUN`'s key, because a command may see it, or
/// leave something else by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mode {
    /// Whether the result may depend on inputs alone (`--reproducible`, `SOURCE_DATE_EPOCH`).
    pub reproducible: bool,
    /// Whether known files are mended in what a command leaves (`--normalize`).
    pub normalize: bool,
}

/// Which files are mended, and how; raised whenever that changes, as an earlier layer was mended otherwise.
const NORMALIZED: &str = "normalize/2";

/// Key of a `COPY`, `ADD` or `WORKDIR` whose entries are known before any is written. Whose times they have counts, as the
/// same entries get other times from a context than from a stage.
#[must_use]
pub fn copy(about_to_write: LayerContent, stamps: Stamps) -> Key {
    let mut fields = Fields::new("copy/3");
    fields.bytes(&about_to_write.0.0).number(u64::from(stamps == Stamps::Context));
    fields.finish()
}

/// Key of an `ADD` that unpacks archives. What is in them is not listed to find this out, so all that lies below counts,
/// as do the archives by their bytes, each with how many of the
/// other sources stand before it. An independent layer (`is_link`) meets nothing of that.
#[must_use]
pub fn unpack(
    below: Content,
    is_link: bool,
    archives: &[String],
    beside: LayerContent,
    destination: &[u8],
    owner: Option<(u32, u32)>,
) -> Key {
    let mut fields = Fields::new("unpack/4");
    fields.bytes(&below.0.0).list(archives).bytes(&beside.0.0).number(u64::from(is_link));
    let (uid, gid) = owner.unwrap_or_default();
    fields.bytes(destination).number(u64::from(owner.is_some())).number(uid.into()).number(gid.into());
    fields.finish()
}

/// What a mount of a `RUN` shows, as far as it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MountContent {
    /// Nothing that counts.
    Nothing,
    /// Files of the context, or a part of a root file system.
    Files(LayerContent),
    /// A whole root file system.
    Root(Content),
}

/// Key of a `RUN`; `mounts` are the contents of its mounts, in their order, and `before` the plans of earlier steps that may
/// have left something in a cache mount which it sees too.
#[must_use]
pub fn run(below: Content, op: &RunOp, mounts: &[MountContent], before: &[PlanKey], mode: Mode) -> Key {
    let mut fields = Fields::new("run/3");
    fields.bytes(&below.0.0);
    run_fields(&mut fields, op, mode);
    fields.number(mounts.len() as u64);
    for content in mounts {
        match content {
            MountContent::Nothing => fields.bytes(b"nothing"),
            MountContent::Files(content) => fields.bytes(b"files").bytes(&content.0.0),
            MountContent::Root(content) => fields.bytes(b"root").bytes(&content.0.0),
        };
    }
    fields.number(before.len() as u64);
    for earlier in before {
        fields.bytes(&earlier.key().0);
    }
    fields.finish()
}

/// Key of what a command left: where an earlier run of the same command left the same, its layer stands for this one, times
/// included (early cut-off).
#[must_use]
pub fn left(op: &RunOp, content: LayerContent, mode: Mode) -> Key {
    let mut fields = Fields::new("left/1");
    run_fields(&mut fields, op, mode);
    fields.bytes(&content.0.0);
    fields.finish()
}

/// All of a command but what it runs on. Proxy variables that no `ARG` declares are left out, as the language says.
pub(super) fn run_fields(fields: &mut Fields, op: &RunOp, mode: Mode) {
    fields.list(&op.argv).number(op.env.len() as u64);
    for (name, value) in &op.env {
        fields.bytes(name.as_bytes()).bytes(value.as_bytes());
    }
    fields.bytes(op.cwd.as_bytes()).bytes(op.user.as_bytes()).bytes(op.platform.to_string().as_bytes());
    let network = match op.network {
        Network::Default => "default",
        Network::None => "none",
        Network::Host => "host",
        Network::Isolated => "isolated",
    };
    let security = match op.security {
        Security::Sandbox => "sandbox",
        Security::Insecure => "insecure",
    };
    fields.bytes(network.as_bytes()).bytes(security.as_bytes());
    match &op.script {
        None => fields.number(0),
        Some(script) => {
            fields.number(1).bytes(script.name.as_bytes()).bytes(&script.content).number(script.mode.into())
        }
    };
    fields.number(op.mounts.len() as u64);
    for mount in &op.mounts {
        mount_fields(fields, mount);
    }
    // A command without conditions keeps the key that it had before there were any.
    let conditions = &*op.conditions;
    let some = *conditions != Conditions::default();
    fields.number(u64::from(mode.reproducible) | u64::from(some) << 1 | u64::from(mode.normalize) << 2);
    if some {
        condition_fields(fields, conditions);
    }
    if mode.normalize {
        fields.bytes(NORMALIZED.as_bytes());
    }
}

fn condition_fields(fields: &mut Fields, conditions: &Conditions) {
    let optional = |fields: &mut Fields, value: Option<u64>| {
        fields.number(u64::from(value.is_some())).number(value.unwrap_or_default());
    };
    fields.number(conditions.hosts.len() as u64);
    for (name, address) in &conditions.hosts {
        fields.bytes(name.as_bytes()).bytes(address.as_bytes());
    }
    optional(fields, conditions.shm_size_bytes);
    fields.number(conditions.limits.len() as u64);
    for limit in &conditions.limits {
        fields.bytes(limit.name.as_bytes());
        optional(fields, limit.soft);
        optional(fields, limit.hard);
    }
    fields.number(u64::from(conditions.host_name.is_some()));
    fields.bytes(conditions.host_name.as_deref().unwrap_or_default().as_bytes());
    // Later than the others: where there are none, keys are what they were.
    if !conditions.added_capabilities.is_empty() || !conditions.dropped_capabilities.is_empty() {
        fields.bytes(b"capabilities").list(&conditions.added_capabilities).list(&conditions.dropped_capabilities);
    }
}

/// A mount by what it is: caches, secrets and agents by their names, never by what they hold.
fn mount_fields(fields: &mut Fields, mount: &Mount) {
    fields.bytes(mount.target.as_bytes()).bytes(mount.source.as_bytes()).number(u64::from(mount.read_only));
    match &mount.kind {
        MountKind::Bind => fields.bytes(b"bind"),
        MountKind::Cache { id, sharing, mode, uid, gid } => {
            let sharing: &[u8] = match sharing {
                Sharing::Shared => b"shared",
                Sharing::Private => b"private",
                Sharing::Locked => b"locked",
            };
            fields.bytes(b"cache").bytes(id.as_bytes()).bytes(sharing);
            fields.number((*mode).into()).number((*uid).into()).number((*gid).into())
        }
        MountKind::Tmpfs { size_bytes } => fields.bytes(b"tmpfs").number(*size_bytes),
        MountKind::Secret { id, env, required, mode, uid, gid } => {
            fields.bytes(b"secret").bytes(id.as_bytes()).bytes(env.as_deref().unwrap_or_default().as_bytes());
            fields.number(u64::from(env.is_some())).number(u64::from(*required));
            fields.number((*mode).into()).number((*uid).into()).number((*gid).into())
        }
        MountKind::Ssh { id, required, mode, uid, gid } => {
            fields.bytes(b"ssh").bytes(id.as_bytes()).number(u64::from(*required));
            fields.number((*mode).into()).number((*uid).into()).number((*gid).into())
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use crate::graph::{Limit, Root};
    use crate::image::Platform;
    use crate::layer::{FileTime, LayerPath};

    fn entry(path: &str, mode: u32, seconds: i64) -> Entry {
        Entry {
            path: LayerPath::clean(path.as_bytes()).unwrap(),
            kind: Kind::File { size_bytes: 1 },
            mode,
            uid: 0,
            gid: 0,
            modified: FileTime { seconds, nanoseconds: 0 },
            xattrs: std::collections::BTreeMap::new(),
        }
    }

    fn layer(entries: &[(Entry, &str)]) -> LayerContent {
        let mut hasher = LayerContentHasher::default();
        for (entry, content) in entries {
            hasher.entry(entry, Some(ContentHash::of(content.as_bytes())));
        }
        hasher.finish()
    }

    #[test]
    fn times_do_not_count_and_all_else_does() {
        let base = layer(&[(entry("a", 0o644, 1), "x")]);
        assert_eq!(base, layer(&[(entry("a", 0o644, 2), "x")]));
        assert_ne!(base, layer(&[(entry("a", 0o755, 1), "x")]));
        assert_ne!(base, layer(&[(entry("b", 0o644, 1), "x")]));
        assert_ne!(base, layer(&[(entry("a", 0o644, 1), "y")]));
        assert_ne!(base, layer(&[(entry("a", 0o644, 1), "x"), (entry("b", 0o644, 1), "")]));
    }

    fn run_op(argv: &[&str], env: &[(&str, &str)]) -> RunOp {
        RunOp {
            input: Root::Scratch,
            argv: argv.iter().map(ToString::to_string).collect(),
            env: env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            proxy_env: Vec::new(),
            cwd: "/".to_owned(),
            user: String::new(),
            mounts: Vec::new(),
            network: Network::Default,
            security: Security::Sandbox,
            conditions: Arc::default(),
            script: None,
            platform: Platform::new("linux", "amd64", None),
        }
    }

    #[test]
    fn fields_of_a_run_do_not_run_into_each_other() {
        let key = |op: &RunOp| run(Content::empty(), op, &[], &[], Mode::default());
        let base = key(&run_op(&["a", "b"], &[("x", "y")]));
        assert_ne!(base, key(&run_op(&["ab"], &[("x", "y")])));
        assert_ne!(base, key(&run_op(&["a", "b"], &[("xy", "")])));
        // What it was before `--normalize`: a key that changes has the commands of every store run again.
        assert_eq!(base.to_string(), "1fcbc9212bb9d2a83677a6dadeb36b421fbbfd04d14912836bd3e59de8d86676");
        let modes = [(true, false), (false, true), (true, true)].map(|(reproducible, normalize)| {
            let mode = Mode { reproducible, normalize };
            let op = run_op(&["a", "b"], &[("x", "y")]);
            let content = layer(&[(entry("a", 0o644, 1), "x")]);
            assert_ne!(left(&op, content, mode), left(&op, content, Mode::default()));
            run(Content::empty(), &op, &[], &[], mode)
        });
        assert!(modes[0] != modes[1] && modes[1] != modes[2] && modes[0] != modes[2]);
        assert!(!modes.contains(&base));
        let mut named = run_op(&["a", "b"], &[("x", "y")]);
        Arc::make_mut(&mut named.conditions).host_name = Some(String::new());
        assert_ne!(base, key(&named));
        let mut limited = run_op(&["a", "b"], &[("x", "y")]);
        let limits = &mut Arc::make_mut(&mut limited.conditions).limits;
        limits.push(Limit { name: "core".to_owned(), soft: None, hard: None });
        assert_ne!(key(&named), key(&limited));
        let mut able = run_op(&["a", "b"], &[("x", "y")]);
        Arc::make_mut(&mut able.conditions).added_capabilities = vec!["NET_ADMIN".to_owned()];
        let mut unable = run_op(&["a", "b"], &[("x", "y")]);
        Arc::make_mut(&mut unable.conditions).dropped_capabilities = vec!["NET_ADMIN".to_owned()];
        assert_ne!(base, key(&able));
        assert_ne!(key(&able), key(&unable));
        let mut proxied = run_op(&["a", "b"], &[("x", "y")]);
        proxied.proxy_env.push(("http_proxy".to_owned(), "http://proxy".to_owned()));
        assert_eq!(base, key(&proxied));
    }

    #[test]
    fn a_content_is_its_layers_in_order() {
        let (a, b) = (layer(&[(entry("a", 0o644, 1), "x")]), layer(&[(entry("b", 0o644, 1), "x")]));
        assert_ne!(Content::empty().with(a).with(b), Content::empty().with(b).with(a));
        assert_ne!(Content::of_base(&["ab".to_owned()]), Content::of_base(&["a".to_owned(), "b".to_owned()]));
    }
}
