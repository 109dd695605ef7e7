//! Files that are known to differ from build to build, why, and what helps.

/// Why a file differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Suspect {
    /// What it is.
    pub(super) what: &'static str,
    /// What to do about it.
    pub(super) advice: &'static str,
}

/// What has the same lines both times.
pub(super) const REORDERED: Suspect = Suspect {
    what: "the same lines in another order, mostly that in which a folder lists its files",
    advice: "sort what is listed: `find ... | LC_ALL=C sort`",
};

const REMOVE: &str = "remove it at the end of the same RUN";

/// Patterns of paths without their leading `/`: `*` stands for any characters but `/`, `**` for any.
const KNOWN: &[(&[&str], &str, &str)] = &[
    (
        &["var/log/apt/**", "var/log/dpkg.log", "var/log/alternatives.log", "var/log/bootstrap.log"],
        "a package manager's log",
        "remove /var/log/apt, /var/log/dpkg.log and /var/log/alternatives.log at the end of the same RUN",
    ),
    (
        &[
            "var/log/dnf*",
            "var/log/yum.log",
            "var/log/hawkey.log",
            "var/log/zypp/**",
            "var/log/pacman.log",
            "var/log/apk.log",
        ],
        "a package manager's log",
        REMOVE,
    ),
    (&["var/log/**"], "a log", REMOVE),
    (
        &["var/cache/ldconfig/aux-cache"],
        "ldconfig's auxiliary cache, which holds inode numbers and times",
        "remove /var/cache/ldconfig/aux-cache at the end of the same RUN",
    ),
    (
        &["etc/machine-id", "var/lib/dbus/machine-id"],
        "the machine's id, which is drawn at random",
        "empty /etc/machine-id at the end of the same RUN; it is drawn anew when a system starts",
    ),
    (&["var/lib/systemd/random-seed", "var/lib/urandom/random-seed"], "a seed for random numbers", REMOVE),
    (
        &["var/cache/apt/*.bin"],
        "apt's cache, which holds times",
        "run `apt-get clean` and remove /var/cache/apt/*.bin at the end of the same RUN",
    ),
    (
        &["var/lib/apt/lists/**"],
        "apt's package lists, which the archive changes",
        "remove /var/lib/apt/lists/* at the end of the same RUN",
    ),
    (&["var/cache/debconf/**", "var/lib/dpkg/*-old", "etc/*-"], "a backup that a package manager leaves", REMOVE),
    (
        &["etc/shadow", "etc/gshadow"],
        "passwords, each with the day of its last change",
        "create accounts with a fixed day: `chage -d 0 NAME`, or `useradd` with SOURCE_DATE_EPOCH declared by ARG",
    ),
    (
        &["**/__pycache__/*.pyc", "**/*.pyc"],
        "Python's byte code, which holds its source's time, or that was compiled in another order",
        "declare `ARG SOURCE_DATE_EPOCH`, or set PYTHONDONTWRITEBYTECODE=1",
    ),
    (
        &["var/lib/rpm/**", "usr/lib/sysimage/rpm/**"],
        "rpm's database, which holds the time of each installation",
        "declare `ARG SOURCE_DATE_EPOCH` and set rpm's macro `_use_source_date_epoch`",
    ),
    (
        &["lib/apk/db/scripts.tar*", "usr/lib/apk/db/scripts.tar*"],
        "apk's archive of scripts, which holds times",
        "use apk-tools of version 2.14 or later",
    ),
    (
        &["var/cache/fontconfig/**"],
        "fontconfig's cache, which holds times",
        "remove /var/cache/fontconfig at the end of the same RUN",
    ),
    (&["var/cache/man/**"], "the manual's index", "remove /var/cache/man at the end of the same RUN"),
    (
        &["root/.cache/**", "home/*/.cache/**", "root/.npm/**", "home/*/.npm/**", "var/cache/**"],
        "a cache",
        "keep it out of the layer with `RUN --mount=type=cache,target=...`, or remove it at the end of the same RUN",
    ),
    (&["tmp/**", "var/tmp/**", "run/**"], "a temporary file", REMOVE),
    (&["usr/share/info/dir"], "the index of info pages, whose order is that of installation", REMOVE),
    (
        &["**/*.a"],
        "a static library, which holds the times and owners of its members",
        "make it with `ar D` (binutils' option --enable-deterministic-archives)",
    ),
    (
        &["**/*.jar", "**/*.war", "**/*.zip", "**/*.whl"],
        "a zip archive, which holds its members' times and order",
        "declare `ARG SOURCE_DATE_EPOCH` if the tool knows it, or pack with `zip -X` from a sorted list of files with fixed times",
    ),
    (&["**/*.gz", "**/*.tgz"], "a gzip file, whose head holds its source's time", "compress with `gzip -n`"),
    (
        &["**/*.tar"],
        "a tar archive, which holds its members' times and order",
        "pack with `tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner`",
    ),
    (
        &["**/.git/**"],
        "git's own files, which hold times and inode numbers",
        "leave .git out with .dockerignore, or remove it in the same RUN",
    ),
    (
        &["**/target/*/.fingerprint/**", "**/target/*/incremental/**", "**/target/*/build/**"],
        "cargo's working files, which hold times and paths",
        "copy only the finished program into the last stage",
    ),
    (
        &["etc/ssl/certs/java/cacerts", "etc/pki/java/cacerts"],
        "Java's key store, which holds times",
        "generate it once and COPY it",
    ),
    (
        &["etc/ssh/ssh_host_*"],
        "a host key of ssh, which is drawn at random and secret",
        "remove /etc/ssh/ssh_host_* at the end of the same RUN: everybody who has the image has this key",
    ),
];

/// The suspect at this path, if it is one.
pub(super) fn suspect(path: &str) -> Option<Suspect> {
    let path = path.trim_start_matches('/');
    let known = KNOWN.iter().find(|(patterns, ..)| patterns.iter().any(|pattern| matches(pattern, path)));
    known.map(|(_, what, advice)| Suspect { what, advice })
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

    #[test]
    fn known_files_are_found_and_others_not() {
        for (path, word) in [
            ("/var/log/apt/history.log", "package manager's log"),
            ("/var/log/other.log", "a log"),
            ("/var/cache/ldconfig/aux-cache", "ldconfig"),
            ("/etc/machine-id", "machine's id"),
            ("/usr/lib/python3/x/__pycache__/a.cpython-311.pyc", "byte code"),
            ("/etc/passwd-", "backup"),
            ("/root/.cache/pip/x", "a cache"),
            ("/app/target/release/build/x/output", "cargo"),
            ("/lib.a", "static library"),
        ] {
            let found = suspect(path).map(|suspect| suspect.what).unwrap_or_default();
            assert!(found.contains(word), "{path}: {found}");
        }
        for path in ["/usr/bin/app", "/etc/passwd", "/etc/default/x-", "/var/logs/x"] {
            assert_eq!(suspect(path), None, "{path}");
        }
    }

    #[test]
    fn patterns_end_where_the_path_does() {
        assert!(matches("a/*.bin", "a/x.bin") && !matches("a/*.bin", "a/b/x.bin") && !matches("a/*.bin", "a/x.bin2"));
        assert!(matches("**/x/**", "x/y") && matches("**/x/**", "a/b/x/y/z") && !matches("**/x/**", "a/xy/z"));
    }
}
