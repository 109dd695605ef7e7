//! `fluyt build --normalize`: what is known to differ from build to build, in commands of busybox that draw it at random.
//!
//! Needs root and a static busybox, and says `skipped` without them.
#![expect(clippy::print_stderr, reason = "a skipped test says so")]
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const BUSYBOX: &str = "/usr/bin/busybox";

const TOOLS: &str =
    "FROM scratch\nCOPY busybox /bin/busybox\nRUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\nCOPY base /\n";

/// Writes each kind of file that is mended, with chance in it. What is not mended is the same each time.
const CHANCE: &str = r#"RUN set -e; \
    chance() { head -c 9 /dev/urandom | od -An -tx1 | tr -d ' \n'; }; number() { echo $((0x$(chance | head -c 6))); }; \
    mkdir -p /var/log/apt /var/cache/ldconfig /var/cache/apt /var/lib/systemd /var/lib/dbus /opt/app/__pycache__; \
    chance > /etc/machine-id; chance > /var/lib/dbus/machine-id; chance > /var/lib/systemd/random-seed; \
    chance >> /var/log/dpkg.log; chmod 600 /var/log/dpkg.log; chown 7:8 /var/log/dpkg.log; chance > /var/log/apt/history.log; \
    rm -r /var/log/zypp; mkdir /var/log/zypp; chance > /var/log/zypp/history; rm /var/log/yum.log; \
    chance > /var/cache/ldconfig/aux-cache; chance > /var/cache/apt/pkgcache.bin; chance > /etc/passwd-; chance > /etc/group-; \
    echo "app:!:$((19000 + $(number) % 1000)):0:99999:7:::" >> /etc/shadow; \
    compile() { cd $1; { printf '\247\015\r\n\0\0\0\0'; for at in 0 8 16 24; do printf "\\$(printf %o $((($(stat -c %Y $2.py) >> at) & 255)))"; \
      done; printf "\\$(printf %o $(stat -c %s $2.py))\0\0\0code"; } > __pycache__/$2.cpython-311.pyc; }; \
    printf 'print(1)\n' > /opt/app/new.py; touch -d @$((1700000000 + $(number))) /opt/app/new.py; compile /opt/app new; \
    compile /opt/app old; chmod 444 /opt/app/__pycache__/new* /opt/app/__pycache__/old*; ln -s /outside /var/log/alternatives.log; echo same > /same
"#;

/// What the image has of them, as a later command sees it.
const LOOK: &str = "RUN find /etc /opt /var -type f ! -name hosts ! -name resolv.conf | sort | xargs md5sum > /tmp/seen; \
                    ls -la /var/log/dpkg.log >> /same\n";

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    /// `None`, said aloud, where no command can be run.
    fn new(steps: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() || !Path::new(BUSYBOX).exists() {
            eprintln!("skipped: this test needs root and {BUSYBOX}");
            return None;
        }
        let place = Self { folder: tempfile::tempdir().unwrap() };
        fs::set_permissions(place.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for (path, text) in [
            ("var/log/dpkg.log", "base\n"),
            ("var/log/zypp/history", "base\n"),
            ("var/log/yum.log", "base\n"),
            ("var/log/pacman.log", "left alone\n"),
            ("etc/passwd-", "base\n"),
            ("etc/shadow", "root:*:20000:0:99999:7:::\n"),
            ("opt/app/old.py", "print(1)\n"),
            ("opt/app/__pycache__/left.cpython-311.pyc", "left alone"),
            ("tmp/.keep", ""),
        ] {
            let path = place.path("context/base").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        fs::copy(BUSYBOX, place.path("context/busybox")).unwrap();
        fs::copy(env!("CARGO_BIN_EXE_fluyt"), place.path("fluyt")).unwrap();
        fs::write(place.path("context/Dockerfile"), format!("{TOOLS}{steps}")).unwrap();
        Some(place)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `fluyt` on a rung, with a store for each user.
    fn fluyt(&self, rung: &str) -> Command {
        let is_ordinary = matches!(rung, "r3" | "r6");
        let store = self.path(if is_ordinary { "store-ordinary" } else { "store" });
        let mut command = Command::new(if is_ordinary { "setpriv".into() } else { self.path("fluyt") });
        if is_ordinary {
            fs::create_dir_all(&store).unwrap();
            std::os::unix::fs::chown(&store, Some(4711), Some(4712)).unwrap();
            command.args(["--reuid=4711", "--regid=4712", "--clear-groups"]).arg(self.path("fluyt"));
        }
        command.arg("--store").arg(store).current_dir(self.folder.path()).env("HOME", "/nonexistent");
        command.env_remove("SOURCE_DATE_EPOCH");
        command
    }

    fn build(&self, rung: &str, flags: &[&str]) -> Output {
        let mut command = self.fluyt(rung);
        command.args(["build", "--progress=plain", "--isolation", rung]).args(flags).arg("context");
        command.output().unwrap()
    }
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn digest(output: &Output) -> String {
    assert!(output.status.success(), "{}", text(output));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// The regular files of a folder, with a start of their content.
fn files(folder: &Path, below: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut ahead = vec![folder.join(below)];
    while let Some(path) = ahead.pop() {
        for entry in fs::read_dir(&path).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            if metadata.is_dir() {
                ahead.push(path);
            } else if metadata.is_file() {
                let content = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
                found.insert(path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned(), content);
            }
        }
    }
    found
}

#[test]
fn chance_gives_one_digest_on_every_rung() {
    let Some(place) = Place::new(&format!("{CHANCE}{LOOK}")) else { return };
    let flags = ["--reproducible", "--normalize", "--no-cache"];
    let first = place.build("r1", &flags);
    let expected = digest(&first);
    let note = "normalized 13 files: /etc/group-, /etc/machine-id, /etc/passwd- and 10 more\n";
    assert!(text(&first).contains(note), "{}", text(&first));
    for rung in ["r1", "r2", "r4"] {
        let built = place.build(rung, &flags);
        assert_eq!(digest(&built), expected, "{rung}: {}", text(&built));
    }
    if Path::new("/usr/bin/setpriv").exists() {
        for rung in ["r3", "r6"] {
            let built = place.build(rung, &flags);
            // What a machine does not let a user do is told by other tests.
            if text(&built).contains("RUN is not possible here") {
                eprintln!("skipped: {rung}: {}", text(&built));
                continue;
            }
            assert_eq!(digest(&built), expected, "{rung}: {}", text(&built));
        }
    }
    let without = || digest(&place.build("r1", &["--reproducible", "--no-cache"]));
    assert_ne!(without(), without(), "there is no chance in it");
}

#[test]
fn the_image_has_what_later_commands_see() {
    let Some(place) = Place::new(&format!("{CHANCE}{LOOK}")) else { return };
    for rung in ["r1", "r4"] {
        let out = place.path(&format!("out-{rung}"));
        let output = format!("type=local,dest={}", out.display());
        let built = place.build(rung, &["--normalize", "-o", &output]);
        assert!(built.status.success(), "{rung}: {}", text(&built));
        let script = "find etc opt var -type f | sort | xargs md5sum | sed 's,  ,  /,'";
        let sums = Command::new("sh").args(["-c", script]).current_dir(&out).env("LC_ALL", "C").output().unwrap();
        let seen = fs::read_to_string(out.join("tmp/seen")).unwrap();
        assert_eq!(seen, String::from_utf8(sums.stdout).unwrap(), "{rung}");

        let files: BTreeMap<String, String> =
            ["etc", "opt", "var"].iter().flat_map(|below| files(&out, below)).collect();
        let is = |path: &str, content: Option<&str>| {
            assert_eq!(files.get(path).map(String::as_str), content, "{rung}: {path}");
        };
        for (path, content) in [
            ("var/log/dpkg.log", Some("base\n")),
            ("var/log/zypp/history", Some("base\n")),
            ("var/log/pacman.log", Some("left alone\n")),
            ("etc/passwd-", Some("base\n")),
            ("etc/machine-id", Some("")),
            ("etc/shadow", Some("root:*:20000:0:99999:7:::\napp:!:3652:0:99999:7:::\n")),
            ("opt/app/__pycache__/left.cpython-311.pyc", Some("left alone")),
            // The command removed it.
            ("var/log/yum.log", None),
            ("var/log/apt/history.log", None),
            ("var/lib/dbus/machine-id", None),
            ("var/lib/systemd/random-seed", None),
            ("var/cache/ldconfig/aux-cache", None),
            ("var/cache/apt/pkgcache.bin", None),
            ("etc/group-", None),
        ] {
            is(path, content);
        }
        for name in ["new", "old"] {
            let code = fs::read(out.join(format!("opt/app/__pycache__/{name}.cpython-311.pyc"))).unwrap();
            // As Python 3.11 hashes `print(1)`.
            assert_eq!(code, b"\xa7\x0d\r\n\x03\0\0\0\xda\x81\x2d\x7f\x40\x7a\x30\x59code", "{rung}: {name}");
        }
        let log = fs::symlink_metadata(out.join("var/log/dpkg.log")).unwrap();
        assert_eq!((log.mode() & 0o7777, log.uid(), log.gid()), (0o644, 0, 0), "{rung}");
        assert!(out.join("var/log/apt").is_dir(), "{rung}: what a program expects to be there stays");
    }
}

/// What stands outside of the root at the end of a link, and what is mounted for a command, is not the command's to leave.
#[test]
fn nothing_outside_of_the_root_is_mended() {
    let Some(place) = Place::new("") else { return };
    let outside = place.path("outside");
    fs::create_dir(&outside).unwrap();
    for name in ["history.log", "random-seed", "machine-id"] {
        fs::write(outside.join(name), "the machine's").unwrap();
    }
    let at = outside.display();
    let steps = format!(
        "RUN mkdir -p {at} /var/log/apt && echo x > /var/log/apt/history.log\n\
         RUN rm -r /var/log/apt && ln -s {at} /var/log/apt && echo x > /var/log/apt/history.log && \
         ln -s {at} /var/lib/urandom && echo x > /var/lib/urandom/random-seed && \
         ln -sf {at}/machine-id /etc/machine-id && echo x > /etc/machine-id\n\
         RUN --mount=type=cache,target=/var/log/zypp --mount=type=bind,target=/var/cache/ldconfig,rw \
         echo kept > /var/log/zypp/history && echo x > /var/cache/ldconfig/aux-cache\n\
         RUN --mount=type=cache,target=/var/log/zypp grep -q kept /var/log/zypp/history\n\
         RUN grep -q base /var/log/zypp/history && grep -q x {at}/history.log && test ! -e /var/cache/ldconfig/aux-cache\n"
    );
    fs::create_dir_all(place.path("context/base/var/lib")).unwrap();
    fs::write(place.path("context/Dockerfile"), format!("{TOOLS}{steps}")).unwrap();
    for rung in ["r1", "r4"] {
        digest(&place.build(rung, &["--normalize", "--no-cache"]));
        for name in ["history.log", "random-seed", "machine-id"] {
            assert_eq!(fs::read_to_string(outside.join(name)).unwrap(), "the machine's", "{rung}: {name}");
        }
    }
}

/// Which way a command was taken is part of what it is found by, and is told.
#[test]
fn the_flag_counts_and_is_told() {
    let Some(place) = Place::new("RUN echo x > /etc/machine-id\n") else { return };
    let first = place.build("r1", &["--reproducible"]);
    let normalized = place.build("r1", &["--reproducible", "--normalize", "--explain"]);
    assert_ne!(digest(&first), digest(&normalized));
    assert!(text(&normalized).contains("`RUN echo x > /etc/machine-id`: --normalize is new"), "{}", text(&normalized));
    assert!(text(&normalized).contains("normalized 1 file: /etc/machine-id\n"), "{}", text(&normalized));
    let again = place.build("r1", &["--reproducible", "--normalize"]);
    assert_eq!(digest(&again), digest(&normalized));
    assert!(!text(&again).contains("normalized"), "{}", text(&again));
    let back = place.build("r1", &["--reproducible", "--explain"]);
    assert_eq!(digest(&back), digest(&first));
    assert!(!text(&back).contains("runs again"), "{}", text(&back));
}

/// A source that a cache mount knew with other content is shown with the time of the run, which no image has: byte code that
/// names this time is mended too.
#[test]
fn byte_code_of_a_source_with_another_time_is_mended() {
    let steps = "COPY a.py /opt/app/a.py\nRUN --mount=type=cache,target=/c cd /opt/app; t=$(stat -c %Y a.py); \
                 { printf '\\247\\015\\r\\n\\0\\0\\0\\0'; for at in 0 8 16 24; do printf \"\\\\$(printf %o $(((t >> at) & 255)))\"; done; \
                 printf '\\011\\0\\0\\0code'; } > __pycache__/a.cpython-311.pyc; touch /c/used; echo $t > /tmp/time\n";
    let Some(place) = Place::new(steps) else { return };
    let source = place.path("context/a.py");
    for rung in ["r1", "r4"] {
        let out = place.path(&format!("out-{rung}"));
        let output = format!("type=local,dest={}", out.display());
        let mut shown = String::new();
        for (number, text) in ["print(2)\n", "print(1)\n"].into_iter().enumerate() {
            fs::write(&source, text).unwrap();
            let old = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
            fs::File::options().write(true).open(&source).unwrap().set_modified(old).unwrap();
            let built = place.build(rung, &["--normalize", "--no-cache", "-o", &output]);
            assert!(built.status.success(), "{rung}: {}", self::text(&built));
            shown = fs::read_to_string(out.join("tmp/time")).unwrap();
            let code = fs::read(out.join("opt/app/__pycache__/a.cpython-311.pyc")).unwrap();
            assert_eq!(code[4], 3, "{rung} {number}: {code:?}");
        }
        assert_ne!(shown, "1700000000\n", "{rung}: it was shown with its own time");
    }
}
