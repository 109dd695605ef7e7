//! Secrets cannot leave: what a build does with one in a layer, in the image's documents, in its log.
//!
//! Commands need root and a static busybox; the tests of them say `skipped` without.

#![expect(clippy::print_stderr, reason = "a skipped test says so")]
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const BUSYBOX: &str = "/usr/bin/busybox";

/// What the tests hide.
const TOKEN: &str = "tok_4f9A/2+x=Zq0Lw";

/// The lines that every Dockerfile of a command begins with: a shell, and its tools as words of it.
const SHELL: &str = "FROM scratch\nCOPY busybox /bin/busybox\nSHELL [\"/bin/busybox\", \"sh\", \"-c\"]\n";

const MOUNT: &str = "RUN --mount=type=secret,id=npm";

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap() };
        std::fs::create_dir(place.context()).unwrap();
        std::fs::write(place.folder.path().join("token"), format!("{TOKEN}\n")).unwrap();
        place
    }

    /// `None`, said aloud, where no command can run.
    fn with_commands() -> Option<Self> {
        if !rustix::process::geteuid().is_root() || !Path::new(BUSYBOX).exists() {
            eprintln!("skipped: this test needs root and {BUSYBOX}");
            return None;
        }
        let place = Self::new();
        std::fs::copy(BUSYBOX, place.context().join("busybox")).unwrap();
        Some(place)
    }

    fn context(&self) -> PathBuf {
        self.folder.path().join("context")
    }

    fn fluyt(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fluyt"));
        command.env("FLUYT_STORE", self.folder.path().join("store")).env_remove("SOURCE_DATE_EPOCH").args(arguments);
        command.env("NPM_TOKEN", TOKEN).current_dir(self.folder.path()).stdin(Stdio::null()).output().unwrap()
    }

    /// Builds a Dockerfile with the secret `npm`.
    fn build(&self, dockerfile: &str, more: &[&str]) -> Output {
        std::fs::write(self.context().join("Dockerfile"), dockerfile).unwrap();
        self.fluyt(&[&["build", "--secret", "id=npm,src=token", "context"], more].concat())
    }

    /// Whether a file of the store has these bytes, in its name or in it.
    fn store_holds(&self, bytes: &[u8]) -> bool {
        let mut folders = vec![self.folder.path().join("store")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
                if entry.file_type().unwrap().is_dir() {
                    folders.push(entry.path());
                } else if entry.file_type().unwrap().is_file() {
                    let content = std::fs::read(entry.path()).unwrap();
                    if content.windows(bytes.len()).any(|window| window == bytes) {
                        return true;
                    }
                }
            }
        }
        false
    }

    /// Builds what must fail for the secret; gives what is said, which never is the secret.
    fn refused(&self, dockerfile: &str) -> String {
        let output = self.build(dockerfile, &[]);
        let said = said(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(!said.contains(TOKEN) && output.stdout.is_empty(), "{said}");
        said
    }
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn a_command_that_leaves_a_secret_in_its_layer_fails_the_build() {
    let Some(place) = Place::with_commands() else { return };
    let busybox = "/bin/busybox";
    for (command, expected) in [
        ("{b} cat /run/secrets/npm > /app/npmrc", "/app/npmrc holds the secret `npm`"),
        ("{b} base64 /run/secrets/npm > /b", "/b holds the secret `npm`, in base64"),
        ("{b} ln -s \"$({b} cat /run/secrets/npm)\" /link", "the target of the link /link holds the secret `npm`"),
        ("{b} mkdir -p \"/a/$({b} cat /run/secrets/npm)\"", "the name of /a/"),
        ("{b} gzip -c /run/secrets/npm > /x.gz", "/x.gz (unpacked) holds the secret `npm`"),
        (
            "{b} mkdir -p /p/q; {b} cp /run/secrets/npm /p/q/r; {b} tar -cf - -C /p q | {b} gzip > /x.tgz; {b} rm -r /p",
            "/x.tgz (in it q/r) holds the secret `npm`",
        ),
        (
            "( {b} seq 20; {b} cat /run/secrets/npm; {b} seq 20 ) | {b} base64 > /lines",
            "/lines holds the secret `npm`, in base64",
        ),
    ] {
        let command = command.replace("{b}", busybox);
        let said = place.refused(&format!("{SHELL}RUN {busybox} mkdir /app\n{MOUNT} {command}\n"));
        assert!(said.contains("(Dockerfile:5)") && said.contains(expected), "{said}");
        assert!(said.contains("hint: if the image may hold it: `--secret id=npm,...,scan=off`"), "{said}");
    }
    let uses = format!("{SHELL}{MOUNT} {busybox} wc -c /run/secrets/npm > /count\n");
    assert_eq!(place.build(&uses, &[]).status.code(), Some(0));
}

#[test]
fn a_file_of_the_context_with_a_secret_fails_the_build_unless_it_may_be_there() {
    let place = Place::new();
    std::fs::write(place.context().join(".env"), format!("A=1\nTOKEN={TOKEN}\n")).unwrap();
    let said = place.refused("FROM scratch\nCOPY .env /app/\n");
    assert!(said.contains("step `COPY .env /app/` failed (Dockerfile:2)"), "{said}");
    assert!(said.contains("/app/.env holds the secret `npm`"), "{said}");
    let output = place.fluyt(&["build", "--secret", "id=npm,env=NPM_TOKEN,scan=off", "context"]);
    assert_eq!(output.status.code(), Some(0), "{}", self::said(&output));
}

#[test]
fn what_a_command_prints_is_shown_and_logged_without_the_secret() {
    let Some(place) = Place::with_commands() else { return };
    // In two halves, a while apart, and in base64.
    let halves = "B=/bin/busybox; T=$($B cat /run/secrets/npm); $B printf \"is: ${T%????????}\"; $B sleep 0.3; \
                  $B echo \"${T#??????????} end\"; $B base64 /run/secrets/npm >&2";
    let output = place.build(&format!("{SHELL}{MOUNT} {halves}\n"), &["--progress", "plain"]);
    let shown = said(&output);
    assert_eq!(output.status.code(), Some(0), "{shown}");
    assert!(shown.contains("is: *** end"), "{shown}");
    let logs = std::fs::read_dir(place.folder.path().join("store/logs")).unwrap();
    let logged: String = logs.map(|log| std::fs::read_to_string(log.unwrap().path()).unwrap()).collect();
    assert!(logged.contains("is: *** end"), "{logged}");
    for text in [shown, logged] {
        assert!(!text.contains(TOKEN) && !text.contains("dG9rXzRmOUEv") && text.contains("***"), "{text}");
    }
}

#[test]
fn a_secret_that_is_too_short_to_search_for_is_named_once() {
    let place = Place::new();
    std::fs::write(place.context().join("Dockerfile"), "FROM scratch\nCOPY Dockerfile /\n").unwrap();
    std::fs::write(place.folder.path().join("pin"), "123456\n").unwrap();
    let output = place.fluyt(&["build", "--secret", "id=pin,src=pin", "--secret", "id=no,env=UNSET", "context"]);
    let said = said(&output);
    assert!(said.contains("the secret `no` is empty: the variable UNSET is not set"), "{said}");
    let text = "the secret `pin` has fewer than 12 bytes: the image is not searched for so short a value";
    assert_eq!((output.status.code(), said.matches(text).count()), (Some(0), 1), "{said}");
}

#[test]
fn a_secret_that_a_command_requires_must_be_in_its_variable() {
    let Some(place) = Place::with_commands() else { return };
    let build = |mount: &str| {
        let dockerfile =
            format!("{SHELL}RUN --mount=type=secret,id=no{mount} /bin/busybox test ! -s /run/secrets/no\n");
        std::fs::write(place.context().join("Dockerfile"), dockerfile).unwrap();
        let output = place.fluyt(&["build", "--secret", "id=no,env=UNSET", "context"]);
        (output.status.code(), said(&output))
    };
    let (code, said) = build("");
    assert_eq!(code, Some(0), "as with other builders it is empty: {said}");
    let (code, said) = build(",required");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("needs the secret `no`, and the variable UNSET that it is in is not set"), "{said}");
    assert!(said.contains("hint: set UNSET, or leave `required` away in the `--mount` of `no`"), "{said}");
}

#[test]
fn a_repository_of_git_and_archives_are_looked_into() {
    let Some(place) = Place::with_commands() else { return };
    if Command::new("git").arg("--version").output().is_err() {
        eprintln!("skipped: this test needs git");
        return;
    }
    let folder = place.context().join("r");
    std::fs::create_dir(&folder).unwrap();
    let git = |arguments: &[&str]| {
        let mut command = Command::new("git");
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).current_dir(&folder);
        command.args(["-c", "user.name=a", "-c", "user.email=a@b.example", "-c", "init.defaultBranch=main"]);
        let output = command.args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
    };
    // Two versions, of which git keeps one as its difference to the other, the secret in neither of the differences whole.
    let lines = |number: u32, token: &str| {
        let all = (0..200).map(|line| format!("line {line} of the settings, {}\n", line * 77_773 % 1009));
        format!("{}token: {token}\nversion {number}\n", all.collect::<String>())
    };
    let (begin, _) = TOKEN.split_at(9);
    git(&["init", "-q"]);
    for (number, token) in
        [(1, format!("{begin}an-older-one")), (2, TOKEN.to_owned()), (3, format!("{begin}a-newer-one"))]
    {
        std::fs::write(folder.join("settings"), lines(number, &token)).unwrap();
        git(&["add", "settings"]);
        git(&["commit", "-q", "-m", &format!("version {number}")]);
    }
    let dockerfile = format!("{SHELL}{MOUNT} --mount=type=bind,target=/c /bin/busybox cp -r /c/r /repository\n");
    let objects = place.refused(&dockerfile);
    assert!(
        objects.contains("/repository/.git/objects/") && objects.contains("(unpacked) holds the secret"),
        "{objects}"
    );
    git(&["gc", "-q", "--aggressive", "--prune=now"]);
    let packed = place.refused(&dockerfile);
    assert!(packed.contains(".pack (in it the object at ") && packed.contains("holds the secret `npm`"), "{packed}");

    let busybox = "/bin/busybox";
    let archive =
        "{b} gzip -c /run/secrets/npm > /p/z.gz; cd /p; echo z.gz | {b} cpio -o -H newc > /x.cpio; {b} rm -r /p";
    let archive = archive.replace("{b}", busybox);
    let said = place.refused(&format!("{SHELL}RUN {busybox} mkdir /p\n{MOUNT} {archive}\n"));
    assert!(said.contains("/x.cpio (in it z.gz) holds the secret `npm`"), "{said}");
    let hidden = format!("{SHELL}{MOUNT} {busybox} printf '7z\\274\\257\\047\\034' > /x.7z\n");
    let output = place.build(&hidden, &[]);
    let said = self::said(&output);
    let told = "warning: /x.7z is packed by 7z: no secrets were looked for in it";
    assert!(output.status.success() && said.contains(told), "{said}");
}

#[test]
fn what_a_command_packed_that_saw_a_secret_is_looked_into_wherever_it_comes_to() {
    let Some(place) = Place::with_commands() else { return };
    let work = SHELL.replace("FROM scratch", "FROM scratch AS work");
    let tool = SHELL.replace("FROM scratch", "FROM scratch AS tool");
    let busybox = "/bin/busybox";
    let packs = "{b} mkdir /w; {b} cp /run/secrets/npm /w/.npmrc; {b} tar -cf - -C /w .npmrc | {b} gzip > /app.tgz; \
                 ( {b} seq 20; {b} cat /run/secrets/npm; {b} seq 20 ) | {b} base64 > /lines";
    let bare = work.clone();
    let work = format!("{work}{MOUNT} {}\n", packs.replace("{b}", busybox));
    let later = format!("RUN {busybox} tar -cf - -C /w .npmrc | {busybox} gzip > /later.tgz\n");
    let last = "FROM scratch\nCOPY --from=";
    for (dockerfile, expected) in [
        (format!("{work}{last}work /app.tgz /\n"), "(Dockerfile:6)|/app.tgz (in it .npmrc) holds the secret `npm`"),
        // The stage is found in the store.
        (format!("{work}{last}work /app.tgz /b/\n"), "(Dockerfile:6)|/b/app.tgz (in it .npmrc) holds the secret `npm`"),
        (format!("{work}{last}work /lines /\n"), "(Dockerfile:6)|/lines holds the secret `npm`, in base64"),
        // Packed by a command that has no such mount, in what one left that had it.
        (format!("{work}{later}{last}work /later.tgz /\n"), "(Dockerfile:7)|/later.tgz (in it .npmrc) holds"),
        (
            format!("{work}FROM scratch AS between\nCOPY --from=work /app.tgz /a\n{last}between /a /\n"),
            "(Dockerfile:8)|/a (in it .npmrc) holds",
        ),
        (
            format!("{work}{tool}RUN --mount=type=bind,from=work,target=/m {busybox} cp /m/app.tgz /taken\n"),
            "(Dockerfile:8)|/taken (in it .npmrc) holds",
        ),
        // By way of a cache mount alone.
        (
            format!(
                "{bare}{MOUNT} --mount=type=cache,target=/c {busybox} gzip -c /run/secrets/npm > /c/part && \
                 {busybox} mv /c/part /c/x.gz\n{tool}RUN --mount=type=cache,target=/c until {busybox} test -e /c/x.gz; do \
                 {busybox} sleep 0.1; done; {busybox} cp /c/x.gz /taken\n{last}work /bin/busybox /\nCOPY --from=tool /taken /\n"
            ),
            "(Dockerfile:11)|/taken (unpacked) holds the secret `npm`",
        ),
    ] {
        let said = place.refused(&dockerfile);
        assert!(expected.split('|').all(|part| said.contains(part)), "{expected}: {said}");
    }
    // What was copied into such a stage is none of its commands'.
    let held = "warning: /x.7z is packed by 7z";
    std::fs::write(place.context().join("x.7z"), b"7z\xBC\xAF\x27\x1C").unwrap();
    let mount = format!("{SHELL}{MOUNT} {busybox} wc -c /run/secrets/npm > /count\n");
    let output = place.build(&format!("{mount}COPY x.7z /\n"), &[]);
    assert!(output.status.success() && !said(&output).contains(held), "{}", said(&output));
    let output = place.build(&format!("{mount}COPY x.7z /\nRUN {busybox} cp /x.7z /y.7z\n"), &[]);
    assert!(output.status.success() && said(&output).contains(&held.replace("/x", "/y")), "{}", said(&output));
}

#[test]
fn a_layer_that_was_searched_plainly_is_looked_into_once_a_secret_may_be_packed_in_it() {
    let Some(place) = Place::with_commands() else { return };
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut writer, TOKEN.as_bytes()).unwrap();
    std::fs::write(place.context().join("x.gz"), writer.finish().unwrap()).unwrap();
    let work = SHELL.replace("FROM scratch", "FROM scratch AS work");
    let by = |run: &str| {
        format!(
            "{work}{run} --mount=type=bind,target=/c /bin/busybox cp /c/x.gz /\nFROM scratch\nCOPY --from=work /x.gz /\n"
        )
    };
    // Nobody saw the secret, who could have packed it.
    let output = place.build(&by("RUN"), &[]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let said = place.refused(&by(MOUNT));
    assert!(said.contains("(Dockerfile:6)") && said.contains("/x.gz (unpacked) holds the secret `npm`"), "{said}");
    // A layer that is clean all through is looked into once.
    let clean = format!("{work}{MOUNT} /bin/busybox touch /out\nFROM scratch\nCOPY --from=work /out /else\n");
    for _ in 0..2 {
        assert_eq!(place.build(&clean, &[]).status.code(), Some(0));
    }
    let records = std::fs::read_dir(place.folder.path().join("store/records/1")).unwrap().map(Result::unwrap);
    let marked = records.filter(|record| record.file_name().to_string_lossy().starts_with("searched-"));
    let packed =
        marked.filter(|record| std::fs::read_to_string(record.path()).unwrap().contains("\"packed\":{\"npm\":"));
    assert_eq!(packed.count(), 2, "the command's layer and the last");
}

#[test]
fn a_part_of_a_long_secret_fails_the_build() {
    let place = Place::new();
    let value: Vec<String> =
        (0..3000).map(|number| format!("key{number}: {:x}", (number + 3) * 7_919_993_u64)).collect();
    std::fs::write(place.folder.path().join("token"), value.join("\n")).unwrap();
    std::fs::write(place.context().join("half"), value[1200..].join("\n")).unwrap();
    std::fs::write(place.context().join("little"), value[20..90].join("\n")).unwrap();
    std::fs::write(place.context().join("Dockerfile"), "FROM scratch\nCOPY little /\n").unwrap();
    assert_eq!(
        place.build("FROM scratch\nCOPY little /\n", &[]).status.code(),
        Some(0),
        "a small part is not searched for"
    );
    let said = place.refused("FROM scratch\nCOPY half /\n");
    assert!(said.contains("/half holds the secret `npm`"), "{said}");
}

#[test]
fn the_image_says_the_secret_nowhere() {
    let place = Place::new();
    let argument = format!("TOKEN={TOKEN}");
    let refused = |dockerfile: &str, more: &[&str], expected: &str| {
        let output = place.build(dockerfile, more);
        let said = said(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(expected) && !said.contains(TOKEN), "{expected}: {said}");
    };
    let with_argument = ["--build-arg", &argument];
    let literal = format!("FROM scratch\nENV A=1 \\\n  TOKEN={TOKEN}\n");
    let expected = "error: step `ENV A=1 TOKEN=***` (Dockerfile:2-3) would put the secret `npm` into the image's \
                    configuration and history\n --> Dockerfile:2:1\n";
    refused(&literal, &[], expected);
    let expected = "step `ARG TOKEN=***` (Dockerfile:2) would put the secret `npm` into";
    refused("FROM scratch\nARG TOKEN\nRUN true\n", &with_argument, expected);
    let expected = "step `LABEL a=***` (Dockerfile:3) would put the secret `npm` into";
    refused(&format!("FROM scratch\nUSER 7\nLABEL a=\"{TOKEN}\"\n"), &[], expected);
    let label = format!("a={TOKEN}");
    let expected = "this build would put the secret `npm` into the image's configuration, in config.Labels.a";
    refused("FROM scratch\nENV A=1\n", &["--label", &label], expected);
    let expected = "into the image's manifest, in annotations.a";
    refused("FROM scratch\nENV A=1\n", &["--annotation", &label], expected);
    // What is only an argument of a stage that is not in the image stays here.
    let dockerfile = "FROM scratch AS other\nARG TOKEN\nLABEL a=$TOKEN\nFROM scratch\nCOPY --from=other / /\nENV A=1\n";
    assert_eq!(place.build(dockerfile, &with_argument).status.code(), Some(0));
    assert!(!place.store_holds(TOKEN.as_bytes()));
}

#[test]
fn a_layer_of_an_earlier_build_is_searched_once_before_it_is_taken() {
    let place = Place::new();
    std::fs::write(place.context().join(".env"), format!("TOKEN={TOKEN}\n")).unwrap();
    std::fs::write(place.context().join("clean"), "nothing\n").unwrap();
    std::fs::write(place.context().join("Dockerfile"), "FROM scratch\nCOPY clean .env /app/\nCOPY clean /\n").unwrap();
    assert_eq!(place.fluyt(&["build", "context"]).status.code(), Some(0));
    let said = place.refused("FROM scratch\nCOPY clean .env /app/\nCOPY clean /\n");
    assert!(said.contains("(Dockerfile:2)") && said.contains("/app/.env holds the secret `npm`"), "{said}");
    // Its own layer is clean, and is not read again.
    assert_eq!(place.build("FROM scratch\nCOPY clean /\n", &[]).status.code(), Some(0));
    let searched = || {
        let records = std::fs::read_dir(place.folder.path().join("store/records/1")).unwrap();
        records.filter(|file| file.as_ref().unwrap().file_name().to_string_lossy().starts_with("searched-")).count()
    };
    assert_eq!(searched(), 1);
    let output = place.build("FROM scratch\nCOPY clean /\n", &[]);
    assert!(self::said(&output).contains("CACHED") && searched() == 1);
}

#[test]
fn a_new_value_under_a_known_id_is_searched_for_in_earlier_layers() {
    let place = Place::new();
    std::fs::write(place.context().join(".env"), format!("TOKEN={TOKEN}\n")).unwrap();
    let dockerfile = "FROM scratch\nCOPY .env /app/\n";
    std::fs::write(place.folder.path().join("token"), "the value of yesterday").unwrap();
    assert_eq!(place.build(dockerfile, &[]).status.code(), Some(0));
    assert!(said(&place.build(dockerfile, &[])).contains("CACHED"));
    std::fs::write(place.folder.path().join("token"), TOKEN).unwrap();
    let said = place.refused(dockerfile);
    assert!(said.contains("/app/.env holds the secret `npm`"), "{said}");
}

#[test]
fn a_secret_in_a_stage_that_is_not_in_the_image_is_told_and_does_not_come_along() {
    let Some(place) = Place::with_commands() else { return };
    let stage = SHELL.replace("FROM scratch", "FROM scratch AS work");
    let leaves =
        format!("{MOUNT} /bin/busybox mkdir /w; /bin/busybox cp /run/secrets/npm /w/rc; /bin/busybox touch /w/out");
    let output = place.build(&format!("{stage}{leaves}\nFROM scratch\nCOPY --from=work /w/out /\n"), &[]);
    let said = said(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let told = "/w/rc holds the secret `npm`; its stage is no part of the image";
    assert_eq!(said.matches(told).count(), 1, "{said}");
    let said = place.refused(&format!("{stage}{leaves}\nFROM scratch\nCOPY --from=work /w /\n"));
    assert!(said.contains("(Dockerfile:6)") && said.contains("/rc holds the secret `npm`"), "{said}");
    // The stage itself is in the store, and leaves no more for that.
    let said = place.refused(&format!("{stage}{leaves}\n"));
    assert!(said.contains("(Dockerfile:4)") && said.contains("/w/rc holds the secret `npm`"), "{said}");
}
