//! References to images: `host/repository:tag@digest`, as the distribution specification and Docker spell them.
//!
//! Pure. The grammar (distribution-spec "Pulling manifests", and Docker's rules for what may be left out):
//!
//! ```text
//! reference  = [host "/"] path [":" tag] ["@" digest]
//! host       = (name *("." name) | "[" ipv6 "]") [":" port]    ; holds `.` or `:`, or is `localhost`, or has an upper case letter
//! path       = part *("/" part)
//! part       = alnum *(("." | "_" | "__" | 1*"-") alnum)        ; lower case only
//! tag        = (letter | digit | "_") *127(letter | digit | "_" | "." | "-")
//! digest     = algorithm ":" hex
//! ```
//!
//! Without a host the registry is Docker Hub; there a path of one part stands below `library/`. Without tag and
//! digest the tag is `latest`.

mod grammar;

use std::fmt;
use std::str::FromStr;

use oci_spec::image::Digest;

pub use grammar::ReferenceError;

/// The registry that is meant when a reference names none.
pub(crate) const DEFAULT_HOST: &str = "docker.io";
/// Where Docker Hub answers the distribution API.
pub(crate) const DEFAULT_WIRE_HOST: &str = "registry-1.docker.io";

/// A parsed and completed reference: it always has a host, a repository, and a tag or a digest (or both).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    host: String,
    repository: String,
    tag: Option<String>,
    // Kept beside the text, because `Digest` has no order.
    digest: Option<OrderedDigest>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct OrderedDigest(Digest);

impl PartialOrd for OrderedDigest {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for OrderedDigest {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.as_ref().cmp(other.0.as_ref())
    }
}

impl Reference {
    /// Reads what a user typed and completes it: `alpine` is `docker.io/library/alpine:latest`.
    ///
    /// # Errors
    ///
    /// Says which part is wrong and what that part may hold.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        let parts = grammar::split(text)?;
        let tag = match (parts.tag, &parts.digest) {
            (None, None) => Some("latest".to_owned()),
            (tag, _) => tag.map(str::to_owned),
        };
        Ok(Self { host: parts.host, repository: parts.repository, tag, digest: parts.digest.map(OrderedDigest) })
    }

    /// The registry as it is named, with its port if one was given; `docker.io` for Docker Hub.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The registry as it is connected to: [`Self::host`], but `registry-1.docker.io` for Docker Hub.
    #[must_use]
    pub fn wire_host(&self) -> &str {
        wire_host(&self.host)
    }

    /// The repository within the registry, such as `library/alpine`.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag, if there is one.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if there is one; it wins over the tag wherever content is asked for.
    #[must_use]
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref().map(|digest| &digest.0)
    }

    /// What stands after `/manifests/` in a request: the digest, or else the tag.
    #[must_use]
    pub fn manifest_key(&self) -> &str {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.0.as_ref(),
            (None, Some(tag)) => tag,
            (None, None) => "latest",
        }
    }

    /// The same repository under another tag, without a digest.
    ///
    /// # Errors
    ///
    /// When `tag` is not one by the specification.
    pub fn with_tag(&self, tag: &str) -> Result<Self, ReferenceError> {
        grammar::check_tag(tag)?;
        Ok(Self { tag: Some(tag.to_owned()), digest: None, ..self.clone() })
    }

    /// The same repository at `digest`, without a tag.
    #[must_use]
    pub fn with_digest(&self, digest: &Digest) -> Self {
        Self { tag: None, digest: Some(OrderedDigest(digest.clone())), ..self.clone() }
    }

    /// `host/repository`, without tag and digest.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.host, self.repository)
    }

    /// The shortest form that parses to the same reference, as Docker prints it: `alpine:latest`.
    #[must_use]
    pub fn familiar(&self) -> String {
        if self.host == DEFAULT_HOST {
            let short = self.repository.strip_prefix("library/").filter(|rest| !rest.contains('/'));
            let mut text = short.unwrap_or(&self.repository).to_owned();
            self.push_version(&mut text);
            // `docker.io/a.b/c` would be taken for a repository of the host `a.b`.
            if Self::parse(&text).as_ref() == Ok(self) {
                return text;
            }
        }
        self.to_string()
    }

    fn push_version(&self, text: &mut String) {
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(digest.0.as_ref());
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.name();
        self.push_version(&mut text);
        f.write_str(&text)
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        Self::parse(text)
    }
}

/// A registry's name as it is stored and compared: without scheme and path, Docker Hub's other names folded into `docker.io`.
#[must_use]
pub fn normal_host(text: &str) -> &str {
    let text = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or(text);
    let host = text.split('/').next().unwrap_or(text);
    match host {
        "index.docker.io" | DEFAULT_WIRE_HOST => DEFAULT_HOST,
        host => host,
    }
}

/// Where the registry of that name answers.
#[must_use]
pub(crate) fn wire_host(host: &str) -> &str {
    if host == DEFAULT_HOST { DEFAULT_WIRE_HOST } else { host }
}

/// Whether that host (with or without a port) is this machine: `localhost`, `127.0.0.0/8`, `::1`.
#[must_use]
pub fn is_loopback(host: &str) -> bool {
    let bare = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None if host.matches(':').count() > 1 => host,
        None => host.split(':').next().unwrap_or(host),
    };
    if bare.eq_ignore_ascii_case("localhost") {
        return true;
    }
    bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEX: &str = "6c3c624b58dbbcd3c0dd82b4c53f04194d1247c6eebdaab7c610cf7d66709b3b";

    fn full(text: &str) -> String {
        match Reference::parse(text) {
            Ok(reference) => format!("{reference} | {}", reference.familiar()),
            Err(error) => format!("error: {error}"),
        }
    }

    #[test]
    fn what_is_left_out_is_completed() {
        let table = [
            ("alpine", "docker.io/library/alpine:latest | alpine:latest"),
            ("alpine:3.20", "docker.io/library/alpine:3.20 | alpine:3.20"),
            ("bitnami/redis", "docker.io/bitnami/redis:latest | bitnami/redis:latest"),
            ("library/alpine", "docker.io/library/alpine:latest | alpine:latest"),
            ("docker.io/alpine", "docker.io/library/alpine:latest | alpine:latest"),
            ("index.docker.io/a/b:c", "docker.io/a/b:c | a/b:c"),
            ("registry-1.docker.io/library/alpine", "docker.io/library/alpine:latest | alpine:latest"),
            ("docker.io/library/a/b", "docker.io/library/a/b:latest | library/a/b:latest"),
            ("localhost/x", "localhost/x:latest | localhost/x:latest"),
            ("localhost:5000/x:1", "localhost:5000/x:1 | localhost:5000/x:1"),
            ("ghcr.io/a/b/c/d", "ghcr.io/a/b/c/d:latest | ghcr.io/a/b/c/d:latest"),
            ("[::1]:5000/x", "[::1]:5000/x:latest | [::1]:5000/x:latest"),
            ("Build/x", "Build/x:latest | Build/x:latest"),
            ("a__b/c.d-e--f", "docker.io/a__b/c.d-e--f:latest | a__b/c.d-e--f:latest"),
        ];
        for (text, expected) in table {
            assert_eq!(full(text), expected, "{text}");
        }
        let pinned = format!("alpine@sha256:{HEX}");
        assert_eq!(full(&pinned), format!("docker.io/library/alpine@sha256:{HEX} | {pinned}"));
        let both = format!("quay.io/x/y:1@sha256:{HEX}");
        assert_eq!(full(&both), format!("{both} | {both}"));
        assert_eq!(Reference::parse(&both).unwrap().manifest_key(), format!("sha256:{HEX}"));
    }

    #[test]
    fn errors_say_what_is_wrong() {
        let long_name = format!("x/{}", "a".repeat(260));
        let long_tag = format!("x:{}", "t".repeat(129));
        let table = [
            ("", "it is empty"),
            ("Alpine", "a repository is written in lower case, and `Alpine` has `A`"),
            ("a/B:c", "a repository is written in lower case, and `B` has `B`"),
            ("a//b", "the repository has an empty part: look for a `/` too many"),
            ("/a", "the repository has an empty part: look for a `/` too many"),
            ("a/", "the repository has an empty part: look for a `/` too many"),
            ("quay.io/", "the repository is missing"),
            ("a..b", "`..` in `a..b` is not allowed: parts are joined by `.`, `_`, `__` or any number of `-`"),
            ("-a", "`-a` may not start or end with `.`, `_` or `-`"),
            ("a_", "`a_` may not start or end with `.`, `_` or `-`"),
            ("a:", "the tag after `:` is empty"),
            ("a:b:c", "the tag may not hold `:`: only letters, digits, `_`, `.` and `-`"),
            ("a:-b", "the tag may not start with `.` or `-`"),
            ("a: b", "the tag may not hold ` `: only letters, digits, `_`, `.` and `-`"),
            ("a:\u{1b}[31m", "the tag may not hold `\\u{1b}`: only letters, digits, `_`, `.` and `-`"),
            ("a@", "after `@` stands a digest, `sha256:` and 64 hexadecimal digits"),
            ("a@sha256:abc", "a sha256 digest has 64 hexadecimal digits in lower case, and this one has `abc`"),
            ("a@md5:d41d8c", "digests of the algorithm `md5` are not known; sha256, sha384 and sha512 are"),
            (
                "https://docker.io/a",
                "leave out `https://`; a reference starts with the registry's host or the repository",
            ),
            ("host:port/x", "`port` is not a port, which is a number up to 65535"),
            ("host:99999/x", "`99999` is not a port, which is a number up to 65535"),
            ("ho_st.io/x", "`ho_st.io` is not a host: between its dots stand letters, digits and inner `-`"),
            ("[::g]/x", "the host `[::g]` holds no IPv6 address between `[` and `]`"),
            (HEX, "64 hexadecimal digits are an image ID, not a name; a digest is written `NAME@sha256:...`"),
            (&long_name, "host and repository are longer than 255 bytes"),
            (&long_tag, "the tag has 129 bytes, and 128 is the most"),
            ("a b", "a repository may not hold ` `: only `a-z`, `0-9`, `.`, `_`, `-` and `/`"),
            ("é", "a repository may not hold `é`: only `a-z`, `0-9`, `.`, `_`, `-` and `/`"),
        ];
        for (text, problem) in table {
            let error = Reference::parse(text).unwrap_err().to_string();
            assert_eq!(
                error.split_once("is not an image reference: ").map(|(_, problem)| problem),
                Some(problem),
                "{error}"
            );
            assert!(!error.contains('\u{1b}'), "{error:?}");
        }
        // A host without a repository is a repository with a tag, as Docker reads it.
        assert_eq!(full("localhost:5000"), "docker.io/library/localhost:5000 | localhost:5000");
    }

    #[test]
    fn hosts_of_this_machine() {
        for host in ["localhost", "localhost:5000", "127.0.0.1", "127.9.8.7:80", "[::1]:5000", "[::1]", "LOCALHOST"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["localhost.example.org", "128.0.0.1", "docker.io", "[::2]:5000", "10.0.0.1:5000", ""] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn tags_and_digests_can_be_exchanged() {
        let reference = Reference::parse("quay.io/a/b:1").unwrap();
        let digest = Digest::from_str(&format!("sha256:{HEX}")).unwrap();
        assert_eq!(reference.with_digest(&digest).to_string(), format!("quay.io/a/b@sha256:{HEX}"));
        assert_eq!(reference.with_digest(&digest).with_tag("2").unwrap().to_string(), "quay.io/a/b:2");
        assert!(reference.with_tag("-x").is_err());
    }

    proptest! {
        #[test]
        fn a_reference_reads_back_as_printed(
            host in prop_oneof![Just(String::new()), "[a-z]{1,8}\\.[a-z]{2,4}(:[1-9][0-9]{0,3})?/".prop_map(|h| h), Just("localhost:5000/".to_owned())],
            path in "[a-z0-9]{1,6}((_|__|-{1,3})[a-z0-9]{1,6}){0,2}(/[a-z0-9]{1,6}([._][a-z0-9]{1,6}){0,2}){0,3}",
            tag in prop_oneof![Just(String::new()), ":[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}".prop_map(|t| t)],
            digest in prop_oneof![Just(String::new()), "@sha256:[a-f0-9]{64}".prop_map(|d| d)],
        ) {
            let text = format!("{host}{path}{tag}{digest}");
            let reference = Reference::parse(&text).unwrap();
            prop_assert_eq!(&Reference::parse(&reference.to_string()).unwrap(), &reference);
            prop_assert_eq!(&Reference::parse(&reference.familiar()).unwrap(), &reference);
        }

        #[test]
        fn any_text_gives_an_answer(text in "\\PC{0,300}") {
            if let Ok(reference) = Reference::parse(&text) {
                prop_assert_eq!(&Reference::parse(&reference.to_string()).unwrap(), &reference);
                prop_assert_eq!(&Reference::parse(&reference.familiar()).unwrap(), &reference);
            }
        }

        #[test]
        fn near_misses_give_an_answer(text in "[a-zA-Z0-9./:@_\\[\\]-]{0,80}") {
            if let Ok(reference) = Reference::parse(&text) {
                prop_assert_eq!(&Reference::parse(&reference.to_string()).unwrap(), &reference);
                prop_assert_eq!(&Reference::parse(&reference.familiar()).unwrap(), &reference);
            }
        }
    }
}
