//! Every key that the registry writes, spelled here and nowhere else.
//!
//! ```text
//! data/<ab>/<id>                                       bytes of one blob
//! data/<ab>/<id>.of/<alg>/<hex>                        which digest they have, when <id> does not say it
//! links/<alg>/<ab>/<hex>/<repo hash>.<id>.<size>.<nonce>
//! repos/<repo>/_blobs/<alg>/<hex>/<nonce>
//! repos/<repo>/_manifests/<alg>/<hex>/<nonce>          one copy of a manifest
//! repos/<repo>/_tags/<tag>!/<order>.<nonce>.<alg>.<hex>.<copy nonce>
//! repos/<repo>/_tags/<tag>!/<order>.<nonce>.gone
//! repos/<repo>/_history/<tag>/<order>.<nonce>.<alg>.<hex>.<copy nonce>
//! repos/<repo>/_history/<tag>/<order>.<nonce>.<alg>.<hex>.<copy nonce>.void
//! repos/<repo>/_referrers/<alg>/<hex>/<alg>.<hex>.<copy nonce>
//! catalog/<repo>!
//! uploads/<id>/<seq>.<nonce>                           state of an upload after its PATCH number <seq>
//! uploads/<id>/<seq>.<nonce>.claim                     who is about to write that state
//! uploads/<id>/tail.<nonce>                            bytes of it that are no whole part yet
//! uploads/<id>/cancelled.<nonce>
//! gc/marks/<run>, gc/hints/<id>, gc/hints/<id>.deleted
//! gc/clock/<run>                                       written to see what time the store has
//! gc/audit/<slice>.<id>                                a slice of the keys is being looked at
//! gc/audit/<slice>.<id>.<seen>.<removed>.<held>        ... was, and how many data objects that were
//! gc/log/<id>                                          what a batch removed, and why
//! gc/confirm/<id>                                      an operator lets the brake go
//! gc/reserve, gc/reserve.<number>                      space, and inodes, to free first on a full disk
//! adopt/state.begun.<nonce>, adopt/state.finished.<nonce>, adopt/state.released.<nonce>
//! adopt/of/adopted-<alg>-<hex>/<alg>/<hex>             another digest by which links know adopted data
//! adopt/records/<repo>!/<number>.<nonce>               what was adopted from a repository
//! store.json.<version>.<nonce>, upload-key.<version>.<nonce>
//! order-probe/a!, order-probe/a/b                      to see how a server sorts its lists
//! check-store/<nonce>/...                              what `check-store` tries, until it has ended
//! docker/registry/v2/blobs/<alg>/<ab>/<hex>/data       data of an adopted store, written by the registry it was
//! ```
//! `<id>` of data is `<alg>-<hex>-<nonce>`, or `<nonce>` when the digest was not known before the first byte was stored;
//! a link to adopted data says `adopted-<alg>-<hex>`.
//! `<order>` is 16 hex digits, so that keys sort as orders do. `!` sorts before every character of a name or tag, so
//! that lists come in the order of names. No component exceeds 250 bytes.

use object_store::path::Path;

use super::collecting::{AuditCounts, AuditRecord};
use crate::protocol::{Copy, DataId, Link, Nonce, Object, RepoHash, TagEnd, TagEntry};
use crate::spec::{Algorithm, Digest, RepoName, Tag, UploadId};

pub(super) const MARKS: &str = "gc/marks/";
/// What the notes about adoption begin with: that it has begun, that it is finished.
pub(super) const ADOPTION: &str = "adopt/state.";
pub(super) const ADOPTION_FINISHED: &str = "adopt/state.finished.";
/// The adopted data is ours alone: what no link names may go.
pub(super) const ADOPTION_RELEASED: &str = "adopt/state.released.";
pub(super) const ADOPTION_RECORDS: &str = "adopt/records/";
const ADOPTED_OF: &str = "adopt/of/";
pub(super) const HINTS: &str = "gc/hints/";
pub(super) const AUDIT: &str = "gc/audit/";
pub(super) const LOG: &str = "gc/log/";
pub(super) const CLOCK: &str = "gc/clock/";
pub(super) const CONFIRM: &str = "gc/confirm/";
pub(super) const RESERVE: &str = "gc/reserve";
pub(super) const UPLOADS: &str = "uploads/";
pub(super) const DATA: &str = "data/";
pub(super) const CATALOG: &str = "catalog/";
pub(super) const STORE: &str = "store.json.";
pub(super) const UPLOAD_KEY: &str = "upload-key.";
pub(super) const ADOPTED_BLOBS: &str = "docker/registry/v2/blobs/";
pub(super) const ADOPTED_DATA: &str = "docker/registry/v2/blobs/sha256/";
/// Below this, `check-store` writes, and removes what it wrote.
pub(super) const CHECK: &str = "check-store/";
pub(super) const ORDER_PROBE: &str = "order-probe/";
/// In the order of bytes.
pub(super) const ORDER_PROBES: [&str; 2] = ["order-probe/a!", "order-probe/a/b"];
/// No algorithm of digests has this name.
const ADOPTED: &str = "adopted-";

/// A key as the port wants it. Ours are always valid; the check is the port's.
pub(super) fn path(key: &str) -> object_store::Result<Path> {
    Ok(Path::parse(key)?)
}

/// The key of an object of the protocol.
pub(super) fn object(object: &Object) -> String {
    match object {
        Object::Data(id) => data(id),
        Object::DataOf(id, digest) => format!("{}{}", data_of(id), digest_parts(digest)),
        Object::Link(link, _) => self::link(link),
        Object::BlobIndex(repo, digest, nonce) => format!("{}{nonce}", blob_index(repo, digest)),
        Object::Copy(copy) => self::copy(copy),
        Object::Tag(entry) => format!("{}{}", tag(&entry.repo, &entry.tag), entry_name(entry)),
        Object::History(entry) => format!("{}{}", history(&entry.repo, Some(&entry.tag)), entry_name(entry)),
        Object::Void(entry) => format!("{}{}.void", history(&entry.repo, Some(&entry.tag)), entry_name(entry)),
        Object::End(end) => format!("{}{:016x}.{}.gone", tag(&end.repo, &end.tag), end.order, end.nonce),
        Object::Referrer { subject, copy } => format!(
            "{}{}.{}.{}",
            referrers(&copy.repo, subject),
            copy.digest.algorithm(),
            copy.digest.hex(),
            copy.nonce
        ),
        Object::Catalog(repo) => format!("{CATALOG}{repo}!"),
        Object::UploadClaim(id, seq, nonce) => claim(id, *seq, nonce),
        Object::Hint(nonce, _) => format!("{HINTS}{nonce}"),
        Object::DeletedHint(nonce, _) => format!("{HINTS}{nonce}.deleted"),
        Object::TraceHint(nonce, _) => format!("{HINTS}{nonce}.traces"),
        Object::Mark(run, _) => format!("{MARKS}{run}"),
    }
}

pub(super) fn data(id: &DataId) -> String {
    let slice = match id {
        DataId::Known(digest, _) => digest.hex().get(..2),
        DataId::Unknown(nonce) => nonce.as_str().get(..2),
        DataId::Adopted(digest) => return adopted(digest),
    };
    format!("data/{}/{}", slice.unwrap_or("00"), data_id(id))
}

fn data_id(id: &DataId) -> String {
    match id {
        DataId::Known(digest, nonce) => format!("{}-{}-{nonce}", digest.algorithm(), digest.hex()),
        DataId::Unknown(nonce) => nonce.to_string(),
        DataId::Adopted(digest) => format!("{ADOPTED}{}-{}", digest.algorithm(), digest.hex()),
    }
}

/// Data in the layout of the CNCF distribution registry.
fn adopted(digest: &Digest) -> String {
    let hex = digest.hex();
    format!("{ADOPTED_BLOBS}{}/{}/{hex}/data", digest.algorithm(), hex.get(..2).unwrap_or("00"))
}

/// What the keys begin with that say which digests data has.
pub(super) fn data_of(id: &DataId) -> String {
    match id {
        // Nothing is written among what the other registry has.
        DataId::Adopted(_) => format!("{ADOPTED_OF}{}/", data_id(id)),
        _ => format!("{}.of/", data(id)),
    }
}

fn digest_parts(digest: &Digest) -> String {
    format!("{}/{}", digest.algorithm(), digest.hex())
}

pub(super) fn link(link: &Link) -> String {
    let (repo, data) = (link.repo.as_str(), data_id(&link.data));
    format!("{}{repo}.{data}.{}.{}", links(&link.digest), link.size_bytes, link.nonce)
}

/// What the keys of all links of a blob begin with.
pub(super) fn links(digest: &Digest) -> String {
    format!("links/{}/{}/{}/", digest.algorithm(), digest.hex().get(..2).unwrap_or("00"), digest.hex())
}

/// What the keys of one repository's links of a blob begin with.
pub(super) fn links_of(digest: &Digest, repo: &RepoName) -> String {
    format!("{}{}.", links(digest), RepoHash::of(repo).as_str())
}

/// What the keys of a blob's entries in a repository's own index begin with.
pub(super) fn blob_index(repo: &RepoName, digest: &Digest) -> String {
    format!("{}{}/", blob_indexes(repo), digest_parts(digest))
}

/// What the keys of a repository's own index of blobs begin with.
pub(super) fn blob_indexes(repo: &RepoName) -> String {
    format!("repos/{repo}/_blobs/")
}

/// What the keys of the history of one tag, or of all, begin with.
pub(super) fn history(repo: &RepoName, tag: Option<&Tag>) -> String {
    match tag {
        Some(tag) => format!("repos/{repo}/_history/{tag}/"),
        None => format!("repos/{repo}/_history/"),
    }
}

/// What the keys of all data of a slice begin with: by the first two hex digits of its id or digest.
pub(super) fn data_slice(slice: u8) -> String {
    format!("data/{slice:02x}/")
}

/// Which slice a key belongs to that begins with `prefix` and then the slice's digits; none where they are no digits.
pub(super) fn slice_after(prefix: &str, key: &str) -> Option<u8> {
    let (digits, rest) = key.strip_prefix(prefix)?.split_at_checked(2)?;
    let slice = u8::from_str_radix(digits, 16).ok()?;
    (rest.starts_with('/') && digits == format!("{slice:02x}")).then_some(slice)
}

/// What the keys of all links to blobs of an algorithm begin with.
pub(super) fn links_by(algorithm: Algorithm) -> String {
    format!("links/{algorithm}/")
}

/// What the keys of all adopted data of a slice begin with. The other registry knows its data by sha256 alone.
pub(super) fn adopted_slice(slice: u8) -> String {
    format!("{ADOPTED_DATA}{slice:02x}/")
}

/// What the keys of all links of a slice begin with, for each algorithm.
pub(super) fn links_slices(slice: u8) -> [String; 2] {
    [Algorithm::Sha256, Algorithm::Sha512].map(|algorithm| format!("{}{slice:02x}/", links_by(algorithm)))
}

/// What every key of a repository begins with, and no key of another one: no component of a name begins with `_`.
pub(super) fn repo(repo: &RepoName) -> String {
    format!("repos/{repo}/_")
}

pub(super) fn copies(repo: &RepoName, digest: &Digest) -> String {
    format!("repos/{repo}/_manifests/{}/", digest_parts(digest))
}

/// What the keys of all manifests of a repository begin with.
pub(super) fn manifests(repo: &RepoName) -> String {
    format!("repos/{repo}/_manifests/")
}

pub(super) fn copy(copy: &Copy) -> String {
    format!("{}{}", copies(&copy.repo, &copy.digest), copy.nonce)
}

pub(super) fn tags(repo: &RepoName) -> String {
    format!("repos/{repo}/_tags/")
}

pub(super) fn tag(repo: &RepoName, tag: &Tag) -> String {
    format!("{}{tag}!/", tags(repo))
}

/// Sorts after every key of the tag `last` and before every key of the next one. `0` follows `/`.
pub(super) fn after_tag(repo: &RepoName, last: &str) -> String {
    format!("{}{last}!0", tags(repo))
}

pub(super) fn after_repo(last: &str) -> String {
    format!("{CATALOG}{last}!")
}

pub(super) fn referrers(repo: &RepoName, subject: &Digest) -> String {
    format!("repos/{repo}/_referrers/{}/", digest_parts(subject))
}

/// What the keys of all referrer entries of a repository begin with.
pub(super) fn all_referrers(repo: &RepoName) -> String {
    format!("repos/{repo}/_referrers/")
}

/// Sorts after every referrer entry of this manifest. `/` follows `.`.
pub(super) fn after_referrer(repo: &RepoName, subject: &Digest, last: &Digest) -> String {
    format!("{}{}.{}/", referrers(repo, subject), last.algorithm(), last.hex())
}

fn entry_name(entry: &TagEntry) -> String {
    let (digest, copy) = (&entry.digest, &entry.copy);
    format!("{:016x}.{}.{}.{}.{copy}", entry.order, entry.nonce, digest.algorithm(), digest.hex())
}

pub(super) fn upload(id: &UploadId) -> String {
    format!("uploads/{id}/")
}

pub(super) fn session(id: &UploadId, seq: u32, nonce: &Nonce) -> String {
    format!("uploads/{id}/{seq:08}.{nonce}")
}

pub(super) fn claim(id: &UploadId, seq: u32, nonce: &Nonce) -> String {
    format!("{}.claim", session(id, seq, nonce))
}

pub(super) fn tail(id: &UploadId, nonce: &Nonce) -> String {
    format!("uploads/{id}/tail.{nonce}")
}

pub(super) fn cancelled(id: &UploadId, nonce: &Nonce) -> String {
    format!("uploads/{id}/cancelled.{nonce}")
}

/// `store.json.` or `upload-key.`, a version and a nonce.
pub(super) fn versioned(prefix: &str, version: u32, nonce: &Nonce) -> String {
    format!("{prefix}{version}.{nonce}")
}

pub(super) fn adoption(finished: bool, nonce: &Nonce) -> String {
    if finished { format!("{ADOPTION_FINISHED}{nonce}") } else { format!("{ADOPTION}begun.{nonce}") }
}

pub(super) fn adoption_released(nonce: &Nonce) -> String {
    format!("{ADOPTION_RELEASED}{nonce}")
}

/// What the keys of the records of what was adopted from a repository begin with.
pub(super) fn adoption_records(repo: &RepoName) -> String {
    format!("{ADOPTION_RECORDS}{repo}!/")
}

/// The repository of a key written by [`adoption_record`].
pub(super) fn parse_adopted_repository(key: &str) -> Option<RepoName> {
    key.strip_prefix(ADOPTION_RECORDS)?.rsplit_once("!/")?.0.parse().ok()
}

pub(super) fn adoption_record(repo: &RepoName, number: u32, nonce: &Nonce) -> String {
    format!("{}{number:08}.{nonce}", adoption_records(repo))
}

/// The number of a key written by [`adoption_record`].
pub(super) fn parse_adoption_record(key: &str) -> Option<u32> {
    let (_, name) = key.strip_prefix(ADOPTION_RECORDS)?.rsplit_once("!/")?;
    name.split('.').next()?.parse().ok()
}

/// The version of a key written by [`versioned`].
pub(super) fn parse_version(prefix: &str, key: &str) -> Option<u32> {
    let rest = key.strip_prefix(prefix)?;
    rest.split('.').next()?.parse().ok()
}

pub(super) fn parse_data(key: &str) -> Option<DataId> {
    if let Some(rest) = key.strip_prefix(ADOPTED_BLOBS) {
        let mut parts = rest.split('/');
        let (algorithm, _, hex) = (parts.next()?, parts.next()?, parts.next()?);
        let ends = parts.next() == Some("data") && parts.next().is_none();
        return if ends { Some(DataId::Adopted(parse_digest(algorithm, hex)?)) } else { None };
    }
    let (_, id) = key.strip_prefix("data/")?.split_once('/')?;
    parse_data_id(id)
}

fn parse_data_id(id: &str) -> Option<DataId> {
    if !id.contains('-') {
        return Some(DataId::Unknown(id.parse().ok()?));
    }
    if let Some(digest) = id.strip_prefix(ADOPTED) {
        let (algorithm, hex) = digest.split_once('-')?;
        return Some(DataId::Adopted(parse_digest(algorithm, hex)?));
    }
    let mut parts = id.splitn(3, '-');
    let digest = parse_digest(parts.next()?, parts.next()?)?;
    Some(DataId::Known(digest, parts.next()?.parse().ok()?))
}

fn parse_digest(algorithm: &str, hex: &str) -> Option<Digest> {
    format!("{algorithm}:{hex}").parse().ok()
}

/// Reads a key below [`data_of`]: whose digest, and which.
pub(super) fn parse_data_of(key: &str) -> Option<(DataId, Digest)> {
    if let Some(rest) = key.strip_prefix(ADOPTED_OF) {
        let (id, digest) = rest.split_once('/')?;
        let (algorithm, hex) = digest.split_once('/')?;
        return Some((parse_data_id(id)?, parse_digest(algorithm, hex)?));
    }
    let (data, digest) = key.split_once(".of/")?;
    let (algorithm, hex) = digest.split_once('/')?;
    Some((parse_data(data)?, parse_digest(algorithm, hex)?))
}

/// Reads the key of an entry of a repository's own index.
pub(super) fn parse_blob_index(key: &str) -> Option<(RepoName, Digest, Nonce)> {
    let (repo, rest) = key.strip_prefix("repos/")?.split_once("/_blobs/")?;
    let mut parts = rest.split('/');
    let digest = parse_digest(parts.next()?, parts.next()?)?;
    Some((repo.parse().ok()?, digest, parts.next()?.parse().ok()?))
}

/// One key below `_history/`: an entry, and whether the key is the one that voids it.
pub(super) fn parse_history(key: &str) -> Option<(TagEntry, bool)> {
    let (repo, rest) = key.strip_prefix("repos/")?.split_once("/_history/")?;
    let (tag, name) = rest.split_once('/')?;
    let (name, void) = name.strip_suffix(".void").map_or((name, false), |name| (name, true));
    let entry = parse_entry(repo.parse().ok()?, tag.parse().ok()?, name)?;
    Some((entry, void))
}

/// The run whose mark this is.
pub(super) fn parse_mark(key: &str) -> Option<Nonce> {
    key.strip_prefix(MARKS)?.parse().ok()
}

pub(super) fn parse_link(key: &str) -> Option<Link> {
    let mut parts = key.strip_prefix("links/")?.split('/');
    let (algorithm, _, hex, name) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let mut fields = name.split('.');
    Some(Link {
        digest: parse_digest(algorithm, hex)?,
        repo: fields.next()?.parse().ok()?,
        data: parse_data_id(fields.next()?)?,
        size_bytes: fields.next()?.parse().ok()?,
        nonce: fields.next()?.parse().ok()?,
    })
}

pub(super) fn parse_copy(key: &str) -> Option<Copy> {
    let (repo, rest) = key.strip_prefix("repos/")?.split_once("/_manifests/")?;
    let mut parts = rest.split('/');
    let digest = parse_digest(parts.next()?, parts.next()?)?;
    Some(Copy { repo: repo.parse().ok()?, digest, nonce: parts.next()?.parse().ok()? })
}

/// One key below `_tags/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TagItem {
    Entry(TagEntry),
    End(TagEnd),
}

impl TagItem {
    pub(super) fn tag(&self) -> &Tag {
        match self {
            Self::Entry(entry) => &entry.tag,
            Self::End(end) => &end.tag,
        }
    }
}

pub(super) fn parse_tag_item(key: &str) -> Option<TagItem> {
    let (repo, rest) = key.strip_prefix("repos/")?.split_once("/_tags/")?;
    let (tag, name) = rest.split_once("!/")?;
    let (repo, tag): (RepoName, Tag) = (repo.parse().ok()?, tag.parse().ok()?);
    let Some(name) = name.strip_suffix(".gone") else { return parse_entry(repo, tag, name).map(TagItem::Entry) };
    let (order, nonce) = name.split_once('.')?;
    let order = u64::from_str_radix(order, 16).ok()?;
    Some(TagItem::End(TagEnd { order, nonce: nonce.parse().ok()?, repo, tag }))
}

fn parse_entry(repo: RepoName, tag: Tag, name: &str) -> Option<TagEntry> {
    let mut fields = name.split('.');
    let order = u64::from_str_radix(fields.next()?, 16).ok()?;
    let nonce = fields.next()?.parse().ok()?;
    let digest = parse_digest(fields.next()?, fields.next()?)?;
    let copy = fields.next()?.parse().ok()?;
    Some(TagEntry { order, nonce, repo, tag, digest, copy })
}

/// Reads a key of the protocol's objects back. Not a link's: its key does not say the repository's name, only a hash of it.
pub(super) fn parse_object(key: &str) -> Option<Object> {
    if key.starts_with("data/") {
        let of = parse_data_of(key).map(|(id, digest)| Object::DataOf(id, digest));
        return of.or_else(|| parse_data(key).map(Object::Data));
    }
    if key.starts_with(CATALOG) {
        return parse_catalog(key).map(Object::Catalog);
    }
    // The first component that begins with `_` ends the repository's name.
    let (repo, rest) = key.strip_prefix("repos/")?.split_once("/_")?;
    let (kind, rest) = rest.split_once('/')?;
    match kind {
        "manifests" => parse_copy(key).map(Object::Copy),
        "tags" => parse_tag_item(key).map(|item| match item {
            TagItem::Entry(entry) => Object::Tag(entry),
            TagItem::End(end) => Object::End(end),
        }),
        "history" => {
            parse_history(key).map(|(entry, void)| if void { Object::Void(entry) } else { Object::History(entry) })
        }
        "blobs" => parse_blob_index(key).map(|(repo, digest, nonce)| Object::BlobIndex(repo, digest, nonce)),
        "referrers" => {
            let mut parts = rest.split('/');
            let subject = parse_digest(parts.next()?, parts.next()?)?;
            let (digest, nonce) = parse_referrer(key)?;
            Some(Object::Referrer { subject, copy: Copy { repo: repo.parse().ok()?, digest, nonce } })
        }
        _ => None,
    }
}

/// A hint, without what it names.
pub(super) fn parse_hint(key: &str) -> Option<Object> {
    let name = key.strip_prefix(HINTS)?;
    match name.split_once('.') {
        None => Some(Object::Hint(name.parse().ok()?, Vec::new())),
        Some((nonce, "deleted")) => Some(Object::DeletedHint(nonce.parse().ok()?, Vec::new())),
        Some((nonce, "traces")) => Some(Object::TraceHint(nonce.parse().ok()?, Vec::new())),
        Some(_) => None,
    }
}

/// A record of a slice that was, or is being, looked at.
pub(super) fn audit(record: &AuditRecord) -> String {
    let AuditRecord { slice, id, counts } = record;
    match counts {
        None => format!("{AUDIT}{slice:02x}.{id}"),
        Some(AuditCounts { seen, removed, held }) => format!("{AUDIT}{slice:02x}.{id}.{seen}.{removed}.{held}"),
    }
}

pub(super) fn parse_audit(key: &str) -> Option<AuditRecord> {
    let mut fields = key.strip_prefix(AUDIT)?.split('.');
    let slice = u8::from_str_radix(fields.next()?, 16).ok()?;
    let id = fields.next()?.parse().ok()?;
    let counts = match fields.next() {
        None => None,
        Some(seen) => Some(AuditCounts {
            seen: seen.parse().ok()?,
            removed: fields.next()?.parse().ok()?,
            held: fields.next()?.parse().ok()?,
        }),
    };
    Some(AuditRecord { slice, id, counts })
}

pub(super) fn parse_referrer(key: &str) -> Option<(Digest, Nonce)> {
    let (_, name) = key.rsplit_once('/')?;
    let mut fields = name.split('.');
    Some((parse_digest(fields.next()?, fields.next()?)?, fields.next()?.parse().ok()?))
}

/// The manifest that a referrer entry refers to.
pub(super) fn parse_subject(key: &str) -> Option<Digest> {
    let (_, rest) = key.split_once("/_referrers/")?;
    let mut parts = rest.split('/');
    parse_digest(parts.next()?, parts.next()?)
}

pub(super) fn parse_catalog(key: &str) -> Option<RepoName> {
    key.strip_prefix(CATALOG)?.strip_suffix('!')?.parse().ok()
}

/// The upload that a key below `uploads/` belongs to.
pub(super) fn parse_upload(key: &str) -> Option<UploadId> {
    key.strip_prefix(UPLOADS)?.split_once('/')?.0.parse().ok()
}

/// One key below `uploads/<id>/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum UploadItem {
    Cancelled,
    Session { seq: u32, nonce: Nonce },
    Claim { seq: u32, nonce: Nonce },
}

pub(super) fn parse_upload_item(key: &str) -> Option<UploadItem> {
    let (_, name) = key.strip_prefix("uploads/")?.split_once('/')?;
    let mut fields = name.split('.');
    let first = fields.next()?;
    let nonce: Nonce = fields.next()?.parse().ok()?;
    match (first, fields.next()) {
        ("cancelled", None) => Some(UploadItem::Cancelled),
        (seq, None) => Some(UploadItem::Session { seq: seq.parse().ok()?, nonce }),
        (seq, Some("claim")) => Some(UploadItem::Claim { seq: seq.parse().ok()?, nonce }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn nonce() -> impl Strategy<Value = Nonce> {
        "[0-9a-f]{24}(g[0-9]{1,3}){0,2}".prop_map(|text| text.parse().unwrap())
    }

    fn digest() -> impl Strategy<Value = Digest> {
        prop_oneof!["sha256:[0-9a-f]{64}", "sha512:[0-9a-f]{128}"].prop_map(|text| text.parse().unwrap())
    }

    /// Names made to be mistaken for parts of keys.
    fn repo() -> impl Strategy<Value = RepoName> {
        let part = prop_oneof!["[a-z0-9]{1,3}", "tags|manifests|blobs|repos|history|sha256"];
        prop::collection::vec(part, 1..4).prop_map(|parts| parts.join("/").parse().unwrap())
    }

    fn tag() -> impl Strategy<Value = Tag> {
        "[a-zA-Z0-9_][a-zA-Z0-9._-]{0,4}|gone|_tags".prop_map(|text| text.parse().unwrap())
    }

    fn data_id() -> impl Strategy<Value = DataId> {
        let nonce = || "[0-9a-f]{24}".prop_map(|text| text.parse::<Nonce>().unwrap());
        prop_oneof![
            (digest(), nonce()).prop_map(|(d, n)| DataId::Known(d, n)),
            nonce().prop_map(DataId::Unknown),
            digest().prop_map(DataId::Adopted),
        ]
    }

    fn entry() -> impl Strategy<Value = TagEntry> {
        (any::<u64>(), nonce(), repo(), tag(), digest(), nonce())
            .prop_map(|(order, nonce, repo, tag, digest, copy)| TagEntry { order, nonce, repo, tag, digest, copy })
    }

    fn an_object() -> impl Strategy<Value = Object> {
        let copy = || (repo(), digest(), nonce()).prop_map(|(repo, digest, nonce)| Copy { repo, digest, nonce });
        prop_oneof![
            data_id().prop_map(Object::Data),
            (data_id(), digest()).prop_map(|(id, digest)| Object::DataOf(id, digest)),
            (digest(), repo(), data_id(), any::<u64>(), nonce()).prop_map(|(digest, repo, data, size_bytes, nonce)| {
                Object::Link(Link { digest, repo: RepoHash::of(&repo), data, size_bytes, nonce }, repo)
            }),
            (repo(), digest(), nonce()).prop_map(|(repo, digest, nonce)| Object::BlobIndex(repo, digest, nonce)),
            copy().prop_map(Object::Copy),
            entry().prop_map(Object::Tag),
            entry().prop_map(Object::History),
            entry().prop_map(Object::Void),
            entry().prop_map(|entry| Object::End(entry.end())),
            (digest(), copy()).prop_map(|(subject, copy)| Object::Referrer { subject, copy }),
            repo().prop_map(Object::Catalog),
            nonce().prop_map(|nonce| Object::Hint(nonce, vec![])),
            nonce().prop_map(|nonce| Object::DeletedHint(nonce, vec![])),
            nonce().prop_map(|nonce| Object::TraceHint(nonce, vec![])),
            nonce().prop_map(|nonce| Object::Mark(nonce, vec![])),
            (any::<u128>(), any::<u32>(), nonce()).prop_map(|(id, seq, nonce)| Object::UploadClaim(
                UploadId::from_bits(id),
                seq,
                nonce
            )),
        ]
    }

    proptest! {
        #[test]
        fn no_two_things_share_a_key(one in an_object(), other in an_object()) {
            prop_assert_eq!(one == other, object(&one) == object(&other));
        }

        #[test]
        fn keys_read_back(this in an_object()) {
            let key = object(&this);
            match &this {
                Object::Data(id) => prop_assert_eq!(parse_data(&key), Some(id.clone())),
                Object::Link(link, _) => prop_assert_eq!(parse_link(&key), Some(link.clone())),
                Object::Copy(copy) => prop_assert_eq!(parse_copy(&key), Some(copy.clone())),
                Object::Tag(entry) => prop_assert_eq!(parse_tag_item(&key), Some(TagItem::Entry(entry.clone()))),
                Object::End(end) => prop_assert_eq!(parse_tag_item(&key), Some(TagItem::End(end.clone()))),
                Object::History(entry) => prop_assert_eq!(parse_history(&key), Some((entry.clone(), false))),
                Object::Void(entry) => prop_assert_eq!(parse_history(&key), Some((entry.clone(), true))),
                Object::UploadClaim(_, seq, nonce) => {
                    let claim = UploadItem::Claim { seq: *seq, nonce: nonce.clone() };
                    prop_assert_eq!(parse_upload_item(&key), Some(claim));
                }
                Object::Mark(run, _) => prop_assert_eq!(parse_mark(&key), Some(run.clone())),
                Object::DataOf(id, digest) => {
                    prop_assert_eq!(parse_data_of(&key), Some((id.clone(), digest.clone())));
                    prop_assert_eq!(parse_data(&key), None);
                }
                Object::BlobIndex(repo, digest, nonce) => {
                    prop_assert_eq!(parse_blob_index(&key), Some((repo.clone(), digest.clone(), nonce.clone())));
                }
                Object::Catalog(repo) => prop_assert_eq!(parse_catalog(&key), Some(repo.clone())),
                Object::Referrer { copy, .. } => {
                    prop_assert_eq!(parse_referrer(&key), Some((copy.digest.clone(), copy.nonce.clone())));
                }
                _ => {}
            }
            match &this {
                // Their keys do not say everything, or are read in their own place.
                Object::Link(..) | Object::Mark(..) | Object::UploadClaim(..) => {}
                Object::Data(DataId::Adopted(_)) | Object::DataOf(DataId::Adopted(_), _) => {}
                Object::Hint(..) | Object::DeletedHint(..) | Object::TraceHint(..) => prop_assert_eq!(parse_hint(&key), Some(this.clone())),
                _ => prop_assert_eq!(parse_object(&key), Some(this.clone())),
            }
        }

        #[test]
        fn every_key_fits_a_store_and_a_folder(this in an_object()) {
            let key = object(&this);
            prop_assert!(path(&key).is_ok());
            // 3 bytes are for the folder's own marks.
            prop_assert!(key.split('/').all(|part| part.len() <= 252), "{}", key);
        }

        #[test]
        fn orders_sort_as_keys_do(entry in entry(), other: u64) {
            let second = TagEntry { order: other, ..entry.clone() };
            let (a, b) = (object(&Object::Tag(entry.clone())), object(&Object::Tag(second.clone())));
            prop_assert_eq!(entry.order.cmp(&second.order), a.cmp(&b));
        }

        #[test]
        fn tags_and_repositories_list_in_the_order_of_names(repo in repo(), a in tag(), b in tag(), other in repo()) {
            let order = a.as_str().cmp(b.as_str());
            prop_assert_eq!(super::tag(&repo, &a).cmp(&super::tag(&repo, &b)), order);
            prop_assert_eq!(after_tag(&repo, a.as_str()) < super::tag(&repo, &b), order.is_lt());
            let (one, two) = (object(&Object::Catalog(repo.clone())), object(&Object::Catalog(other.clone())));
            prop_assert_eq!(one.cmp(&two), repo.as_str().cmp(other.as_str()));
        }

        #[test]
        fn one_repository_is_no_part_of_another(repo in repo(), below in repo(), digest in digest(), tag in tag(), copy in nonce()) {
            // `a` beside `a/b`, where `b` may be spelled like a folder of ours.
            let inner: RepoName = format!("{repo}/{below}").parse().unwrap();
            let copy = Copy { repo: inner.clone(), digest: digest.clone(), nonce: copy };
            let entry = TagEntry { order: 1, nonce: copy.nonce.clone(), repo: inner.clone(), tag, digest: digest.clone(), copy: copy.nonce.clone() };
            for object in [Object::Copy(copy), Object::Tag(entry.clone()), Object::End(entry.end()), Object::BlobIndex(inner, digest.clone(), entry.nonce.clone())] {
                let key = super::object(&object);
                for prefix in [manifests(&repo), copies(&repo, &digest), tags(&repo), super::tag(&repo, &entry.tag), referrers(&repo, &digest), blob_index(&repo, &digest)] {
                    prop_assert!(!key.starts_with(&prefix), "{} is below {}", key, prefix);
                }
            }
        }

        #[test]
        fn records_of_audits_read_back(slice: u8, id in nonce(), counts in any::<Option<(u64, u64, u64)>>()) {
            let counts = counts.map(|(seen, removed, held)| AuditCounts { seen, removed, held });
            let record = AuditRecord { slice, id, counts };
            prop_assert_eq!(parse_audit(&audit(&record)), Some(record));
        }

        #[test]
        fn every_object_is_in_one_slice(this in an_object()) {
            let key = object(&this);
            let within = |prefixes: Vec<String>| prefixes.iter().filter(|prefix| key.starts_with(*prefix)).count();
            match &this {
                Object::Data(DataId::Adopted(_)) => {}
                Object::Data(_) => prop_assert_eq!(within((0..=255).map(data_slice).collect()), 1),
                Object::Link(..) => prop_assert_eq!(within((0..=255).flat_map(links_slices).collect()), 1),
                _ => {}
            }
        }

        #[test]
        fn tags_that_differ_by_case_are_two(repo in repo(), tag in "[a-z][a-z0-9._-]{0,8}", entry in entry()) {
            let (lower, upper): (Tag, Tag) = (tag.parse().unwrap(), tag.to_uppercase().parse().unwrap());
            let with = |tag: &Tag| object(&Object::Tag(TagEntry { repo: repo.clone(), tag: tag.clone(), ..entry.clone() }));
            prop_assert!(with(&lower) != with(&upper));
            prop_assert!(!with(&upper).starts_with(&super::tag(&repo, &lower)));
            let read = |tag: &Tag| parse_tag_item(&with(tag)).map(|item| item.tag().clone());
            prop_assert_eq!((read(&lower), read(&upper)), (Some(lower), Some(upper)));
        }

        #[test]
        fn reading_never_panics(key: String, below in "(data|links|repos|uploads|gc/audit|docker/registry/v2/blobs)/[a-z0-9./!_-]{0,60}") {
            for key in [key, below] {
                let _ = (parse_data(&key), parse_link(&key), parse_copy(&key), parse_tag_item(&key));
                let _ = (parse_history(&key), parse_data_of(&key), parse_blob_index(&key), parse_mark(&key));
                let _ = (parse_object(&key), parse_audit(&key), parse_hint(&key), parse_upload(&key));
                let _ = (parse_referrer(&key), parse_catalog(&key), parse_upload_item(&key), parse_version(STORE, &key));
            }
        }
    }
}
