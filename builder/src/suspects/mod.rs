//! Files that are known to differ from build to build: why, what helps, and how `--normalize` mends them.
//!
//! One table for `fluyt verify`, which names them, and `fluyt build --normalize`, which mends those of them that an image
//! does without, or that are worth the same in another form. Pure: the files are opened by who runs commands.
//!
//! What is named and not mended has a reason:
//!
//! | what | why not |
//! |---|---|
//! | other logs, caches, temporary files | they are the command's own; an application may look for them |
//! | fontconfig's and the manual's caches | a program that may not write them would make them at each start |
//! | package lists of apt, the databases of rpm and dnf | package managers need them; they differ with the archive |
//! | gzip files | a package manager may know them by a checksum |
//! | zip, jar and tar archives, static libraries | so may signatures; the tools that make them can do without times |
//! | keys of ssh, key stores of Java | a server does not start without them |
//! | byte code that was unpacked and not compiled | rpm and apk know it by a checksum, and it has the package's time |

mod byte_code;
mod days;

pub use byte_code::{HEADER_BYTES, source_of, with_hash};
pub use days::with_day_of;

/// Why a file differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suspect {
    /// What it is.
    pub what: &'static str,
    /// What to do about it.
    pub advice: &'static str,
    /// How it is mended, where it is.
    pub mend: Option<Mend>,
}

/// How a file is mended that a command made or changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mend {
    /// As if the command had left it alone: a new one is removed, one that was there before is what it was.
    Undo,
    /// A machine's id becomes empty, if [it is one](is_drawn), which has a system draw another at its start (machine-id(5)).
    Empty,
    /// By [`with_day_of`].
    Days,
    /// By [`with_hash`].
    ByteCode,
}

/// Whether a machine's id was drawn already. Until then the file is empty, or says so.
#[must_use]
pub fn is_drawn(id: &[u8]) -> bool {
    !matches!(id.trim_ascii(), b"" | b"uninitialized")
}

/// What has the same lines both times.
pub const REORDERED: Suspect = Suspect {
    what: "the same lines in another order, mostly that in which a folder lists its files",
    advice: "sort what is listed: `find ... | LC_ALL=C sort`",
    mend: None,
};

const REMOVE: &str = "remove it at the end of the same RUN";
const BACKUP: &str = "a backup that a package manager leaves";
const BYTE_CODE: &str = "Python's byte code, which holds its source's time, or that was compiled in another order";
const NO_BYTE_CODE: &str = "declare `ARG SOURCE_DATE_EPOCH`, or set PYTHONDONTWRITEBYTECODE=1";

/// Patterns of paths without their leading `/`: `*` stands for any characters but `/`, `**` for any. The first that fits
/// counts. Where a mend is added or changed, the version of mends in the keys of steps is raised (`cache::key`).
const KNOWN: &[(&[&str], &str, &str, Option<Mend>)] = &[
    (
        &[
            "var/log/apt/**",
            "var/log/dpkg.log",
            "var/log/alternatives.log",
            "var/log/bootstrap.log",
            // By a script of Debian's package.
            "var/log/fontconfig.log",
        ],
        "a package manager's log",
        "remove /var/log/apt, /var/log/dpkg.log and /var/log/alternatives.log at the end of the same RUN",
        Some(Mend::Undo),
    ),
    (
        &[
            "var/log/aptitude",
            "var/log/dnf*",
            "var/log/tdnf*",
            "var/log/yum.log",
            "var/log/hawkey.log",
            "var/log/zypp/**",
            "var/log/zypper.log",
            "var/log/pacman.log",
            "var/log/apk.log",
            "**/.npm/_logs/**",
        ],
        "a package manager's log",
        REMOVE,
        Some(Mend::Undo),
    ),
    (&["var/log/**"], "a log", REMOVE, None),
    (
        &["var/cache/ldconfig/aux-cache"],
        "ldconfig's auxiliary cache, which holds inode numbers and times",
        "remove /var/cache/ldconfig/aux-cache at the end of the same RUN",
        Some(Mend::Undo),
    ),
    (
        &["etc/machine-id"],
        "the machine's id, which is drawn at random",
        "empty /etc/machine-id at the end of the same RUN; it is drawn anew when a system starts",
        Some(Mend::Empty),
    ),
    // An empty one is an error to D-Bus, which takes the other id where there is none.
    (&["var/lib/dbus/machine-id"], "the machine's id, which is drawn at random", REMOVE, Some(Mend::Undo)),
    (
        &["var/lib/systemd/random-seed", "var/lib/urandom/random-seed"],
        "a seed for random numbers",
        REMOVE,
        Some(Mend::Undo),
    ),
    (
        &["var/cache/apt/*.bin"],
        "apt's cache, which holds times",
        "run `apt-get clean` and remove /var/cache/apt/*.bin at the end of the same RUN",
        Some(Mend::Undo),
    ),
    (
        &["var/lib/apt/lists/**"],
        "apt's package lists, which the archive changes",
        "remove /var/lib/apt/lists/* at the end of the same RUN",
        None,
    ),
    (
        &[
            "etc/passwd-",
            "etc/group-",
            "etc/shadow-",
            "etc/gshadow-",
            "etc/subuid-",
            "etc/subgid-",
            "var/lib/dpkg/status-old",
            "var/lib/dpkg/available-old",
            "var/lib/dpkg/diversions-old",
            "var/lib/dpkg/statoverride-old",
            "var/cache/debconf/*.dat-old",
        ],
        BACKUP,
        REMOVE,
        Some(Mend::Undo),
    ),
    (&["var/cache/debconf/**", "var/lib/dpkg/*-old", "etc/*-"], BACKUP, REMOVE, None),
    (
        &["etc/shadow"],
        "passwords, each with the day of its last change",
        "create accounts with a fixed day: `chage -d 0 NAME`, or `useradd` with SOURCE_DATE_EPOCH declared by ARG",
        Some(Mend::Days),
    ),
    (&["etc/gshadow"], "passwords of groups, each with a random salt", "create groups without a password", None),
    (&["**/__pycache__/*.pyc"], BYTE_CODE, NO_BYTE_CODE, Some(Mend::ByteCode)),
    (&["**/*.pyc"], BYTE_CODE, NO_BYTE_CODE, None),
    (
        &["var/lib/rpm/**", "usr/lib/sysimage/rpm/**"],
        "rpm's database, which holds the time of each installation",
        "declare `ARG SOURCE_DATE_EPOCH` and set rpm's macro `_use_source_date_epoch`",
        None,
    ),
    (
        &["lib/apk/db/scripts.tar*", "usr/lib/apk/db/scripts.tar*"],
        "apk's archive of scripts, which holds times",
        "use apk-tools of version 2.14 or later",
        None,
    ),
    (
        &["var/cache/fontconfig/**"],
        "fontconfig's cache, which holds times",
        "remove /var/cache/fontconfig at the end of the same RUN",
        None,
    ),
    (&["var/cache/man/**"], "the manual's index", "remove /var/cache/man at the end of the same RUN", None),
    (
        &["root/.cache/**", "home/*/.cache/**", "root/.npm/**", "home/*/.npm/**", "var/cache/**"],
        "a cache",
        "keep it out of the layer with `RUN --mount=type=cache,target=...`, or remove it at the end of the same RUN",
        None,
    ),
    (&["tmp/**", "var/tmp/**", "run/**"], "a temporary file", REMOVE, None),
    (&["usr/share/info/dir"], "the index of info pages, whose order is that of installation", REMOVE, None),
    (
        &["**/*.a"],
        "a static library, which holds the times and owners of its members",
        "make it with `ar D` (binutils' option --enable-deterministic-archives)",
        None,
    ),
    (
        &["**/*.jar", "**/*.war", "**/*.zip", "**/*.whl"],
        "a zip archive, which holds its members' times and order",
        "declare `ARG SOURCE_DATE_EPOCH` if the tool knows it, or pack with `zip -X` from a sorted list of files with fixed times",
        None,
    ),
    (&["**/*.gz", "**/*.tgz"], "a gzip file, whose head holds its source's time", "compress with `gzip -n`", None),
    (
        &["**/*.tar"],
        "a tar archive, which holds its members' times and order",
        "pack with `tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner`",
        None,
    ),
    (
        &["**/.git/**"],
        "git's own files, which hold times and inode numbers",
        "leave .git out with .dockerignore, or remove it in the same RUN",
        None,
    ),
    (
        &["**/target/*/.fingerprint/**", "**/target/*/incremental/**", "**/target/*/build/**"],
        "cargo's working files, which hold times and paths",
        "copy only the finished program into the last stage",
        None,
    ),
    (
        &["etc/ssl/certs/java/cacerts", "etc/pki/java/cacerts"],
        "Java's key store, which holds times",
        "generate it once and COPY it",
        None,
    ),
    (
        &["etc/ssh/ssh_host_*"],
        "a host key of ssh, which is drawn at random and secret",
        "remove /etc/ssh/ssh_host_* at the end of the same RUN: everybody who has the image has this key",
        None,
    ),
];

/// The suspect at this path, if it is one.
#[must_use]
pub fn suspect(path: &str) -> Option<Suspect> {
    let path = path.trim_start_matches('/');
    let known = KNOWN.iter().find(|(patterns, ..)| patterns.iter().any(|pattern| matches(pattern, path)));
    known.map(|&(_, what, advice, mend)| Suspect { what, advice, mend })
}

fn matches(pattern: &str, path: &str) -> bool {
    if let Some(rest) = pattern.strip_prefix("**/") {
        // Also no folder at all.
        return matches(rest, path) || path.char_indices().any(|(at, c)| c == '/' && matches(rest, &path[at + 1..]));
    }
    match pattern.chars().next() {
        None => path.is_empty(),
        Some('*') if pattern.starts_with("**") => true,
        Some('*') => {
            let rest = &pattern[1..];
            let end = path.find('/').unwrap_or(path.len());
            (0..=end).any(|at| path.is_char_boundary(at) && matches(rest, &path[at..]))
        }
        Some(c) => path.strip_prefix(c).is_some_and(|path| matches(&pattern[c.len_utf8()..], path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One for each pattern, in their order.
    const EXAMPLES: &[&str] = &[
        "var/log/apt/history.log",
        "var/log/dpkg.log",
        "var/log/alternatives.log",
        "var/log/bootstrap.log",
        "var/log/fontconfig.log",
        "var/log/aptitude",
        "var/log/dnf.rpm.log",
        "var/log/tdnf.log",
        "var/log/yum.log",
        "var/log/hawkey.log",
        "var/log/zypp/history",
        "var/log/zypper.log",
        "var/log/pacman.log",
        "var/log/apk.log",
        "root/.npm/_logs/2026-11-29T17_00_00_000Z-debug-0.log",
        "var/log/faillog",
        "var/cache/ldconfig/aux-cache",
        "etc/machine-id",
        "var/lib/dbus/machine-id",
        "var/lib/systemd/random-seed",
        "var/lib/urandom/random-seed",
        "var/cache/apt/pkgcache.bin",
        "var/lib/apt/lists/deb.debian.org_debian_dists_trixie_InRelease",
        "etc/passwd-",
        "etc/group-",
        "etc/shadow-",
        "etc/gshadow-",
        "etc/subuid-",
        "etc/subgid-",
        "var/lib/dpkg/status-old",
        "var/lib/dpkg/available-old",
        "var/lib/dpkg/diversions-old",
        "var/lib/dpkg/statoverride-old",
        "var/cache/debconf/config.dat-old",
        "var/cache/debconf/config.dat",
        "var/lib/dpkg/triggers-old",
        "etc/app.conf-",
        "etc/shadow",
        "etc/gshadow",
        "usr/lib/python3/dist-packages/__pycache__/six.cpython-313.pyc",
        "usr/lib/python2.7/six.pyc",
        "var/lib/rpm/rpmdb.sqlite",
        "usr/lib/sysimage/rpm/rpmdb.sqlite",
        "lib/apk/db/scripts.tar",
        "usr/lib/apk/db/scripts.tar.gz",
        "var/cache/fontconfig/CACHEDIR.TAG",
        "var/cache/man/index.db",
        "root/.cache/pip/selfcheck.json",
        "home/app/.cache/go-build/trim.txt",
        "root/.npm/_cacache/index-v5/00/11",
        "home/app/.npm/_update-notifier-last-checked",
        "var/cache/dnf/fedora.solv",
        "tmp/build-1",
        "var/tmp/build-1",
        "run/lock/apache2",
        "usr/share/info/dir",
        "usr/local/lib/libapp.a",
        "app/app.jar",
        "app/app.war",
        "app/app.zip",
        "app/app-1.0-py3-none-any.whl",
        "usr/share/man/man1/app.1.gz",
        "app/app-1.0.tgz",
        "app/app-1.0.tar",
        "src/.git/index",
        "app/target/release/.fingerprint/app-1/lib-app",
        "app/target/debug/incremental/app-1/dep-graph.bin",
        "app/target/release/build/app-1/output",
        "etc/ssl/certs/java/cacerts",
        "etc/pki/java/cacerts",
        "etc/ssh/ssh_host_ed25519_key",
    ];

    #[test]
    fn every_pattern_finds_what_no_other_row_takes() {
        let rows = KNOWN.iter().enumerate();
        let patterns: Vec<_> =
            rows.flat_map(|(row, known)| known.0.iter().map(move |pattern| (row, *pattern))).collect();
        assert_eq!(patterns.len(), EXAMPLES.len(), "a pattern without an example, or an example without one");
        for ((row, pattern), path) in patterns.into_iter().zip(EXAMPLES) {
            let fits = |patterns: &[&str]| patterns.iter().any(|pattern| matches(pattern, path));
            assert_eq!(KNOWN.iter().position(|known| fits(known.0)), Some(row), "{path}");
            assert!(matches(pattern, path), "{pattern}: {path}");
            let others: Vec<&str> = KNOWN[row].0.iter().copied().filter(|other| *other != pattern).collect();
            assert!(!fits(&others), "{pattern} is not needed for {path}");
        }
    }

    #[test]
    fn other_files_are_no_suspects() {
        for path in
            ["/usr/bin/app", "/etc/passwd", "/etc/default/x-", "/var/logs/x", "/etc/machine-id/x", "/x/tmp/a", "/a.a.b"]
        {
            assert_eq!(suspect(path), None, "{path}");
        }
        assert!(suspect("/lib.a").is_some(), "at the top too");
    }

    #[test]
    fn what_is_mended_is_what_an_image_does_without() {
        for (path, mend) in [
            ("/var/log/apt/history.log", Some(Mend::Undo)),
            ("/var/log/dpkg.log", Some(Mend::Undo)),
            ("/var/log/dnf.rpm.log", Some(Mend::Undo)),
            ("/var/log/app.log", None),
            ("/root/.npm/_logs/2026-11-29T17_00_00_000Z-debug-0.log", Some(Mend::Undo)),
            ("/root/.npm/_cacache/x", None),
            ("/var/cache/ldconfig/aux-cache", Some(Mend::Undo)),
            ("/var/cache/apt/pkgcache.bin", Some(Mend::Undo)),
            ("/var/cache/apt/archives/x.deb", None),
            ("/var/cache/fontconfig/x.cache-7", None),
            ("/etc/machine-id", Some(Mend::Empty)),
            ("/var/lib/dbus/machine-id", Some(Mend::Undo)),
            ("/var/lib/systemd/random-seed", Some(Mend::Undo)),
            ("/etc/passwd", None),
            ("/etc/passwd-", Some(Mend::Undo)),
            ("/etc/app.conf-", None),
            ("/var/lib/dpkg/status", None),
            ("/var/lib/dpkg/status-old", Some(Mend::Undo)),
            ("/var/cache/debconf/config.dat", None),
            ("/var/cache/debconf/config.dat-old", Some(Mend::Undo)),
            ("/etc/shadow", Some(Mend::Days)),
            ("/etc/gshadow", None),
            ("/opt/a/__pycache__/b.cpython-311.pyc", Some(Mend::ByteCode)),
            ("/opt/a/b.pyc", None),
            ("/usr/share/doc/x/changelog.gz", None),
            ("/etc/ssh/ssh_host_rsa_key", None),
        ] {
            assert_eq!(suspect(path).and_then(|suspect| suspect.mend), mend, "{path}");
        }
    }

    #[test]
    fn an_id_is_drawn_once() {
        for (id, drawn) in
            [("", false), ("\n", false), ("uninitialized\n", false), ("b0c1d2\n", true), ("uninit", true)]
        {
            assert_eq!(is_drawn(id.as_bytes()), drawn, "{id:?}");
        }
    }

    #[test]
    fn patterns_end_where_the_path_does() {
        assert!(matches("a/*.bin", "a/x.bin") && !matches("a/*.bin", "a/b/x.bin") && !matches("a/*.bin", "a/x.bin2"));
        assert!(matches("**/x/**", "x/y") && matches("**/x/**", "a/b/x/y/z") && !matches("**/x/**", "a/xy/z"));
    }
}
