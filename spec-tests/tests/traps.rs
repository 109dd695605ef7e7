//! The traps of times: where a builder that treats them carelessly ships yesterday's binary, without a word. Each with the
//! real programs that fall into it, by default and with `--reproducible`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use spec_tests::client::Fluyt;
use spec_tests::folder::TestDir;
use spec_tests::program::{self, Outcome};

use crate::sample::shell_context;

/// How a build is asked for.
const MODES: [&[&str]; 2] = [&[], &["--reproducible"]];

/// The name of the image with the toolchains in the store of these tests.
const BASE: &str = "traps.invalid/toolchains:1";

/// A store with the base image in it, made of this machine's programs; kept from run to run as that takes a while.
fn store() -> Option<&'static Path> {
    static STORE: OnceLock<Option<PathBuf>> = OnceLock::new();
    STORE.get_or_init(make_store).as_deref()
}

fn make_store() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("traps");
    let (store, stamp) = (folder.join("store"), folder.join("stamp"));
    let script = program::repository().join("spec-tests/toolchain-root");
    let mut wanted = fs::read_to_string(&script).unwrap();
    for (name, argument) in [("gcc", "--version"), ("rustc", "-vV"), ("/usr/bin/python3", "--version")] {
        wanted.push_str(&program::run(name, [argument]).expect_success().stdout);
    }
    if fs::read_to_string(&stamp).ok().as_ref() != Some(&wanted) {
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        let context = TestDir::new();
        let root = context.join("root");
        let _ = program::run(script, [&root]).expect_success();
        context.write(
            "Dockerfile",
            "FROM scratch\nCOPY root /\nENV PATH=/opt/rust/bin:/usr/bin:/bin CARGO_NET_OFFLINE=true\n",
        );
        let mut build = fluyt_in(&store);
        build.args(["build", "--compression=uncompressed", "-t", BASE]).arg(context.path());
        let _ = program::finish(build).expect_success();
        fs::write(&stamp, &wanted).unwrap();
    }
    let _ = fs::remove_dir_all(store.join("cache-mounts"));
    Some(store)
}

fn fluyt_in(store: &Path) -> Command {
    let mut command = Fluyt::new().command();
    command.env("FLUYT_STORE", store).env("HOME", store);
    command
}

/// One test's context, in a store that has the toolchains.
struct Trap {
    store: &'static Path,
    context: TestDir,
    mode: &'static [&'static str],
    /// Makes the sources and the cache mount of this test others than those of all other tests.
    token: String,
}

impl Trap {
    /// In each mode; `None` where RUN cannot work.
    fn each(test: &str, check: impl Fn(&Self)) {
        let programs = ["gcc", "make", "cargo", "rustc"];
        if !program::is_root(test) || !program::all_installed(test, &programs) {
            return;
        }
        if !Path::new("/usr/bin/python3").exists() {
            return program::skip(test, "there is no /usr/bin/python3");
        }
        let Some(store) = store() else { return };
        for mode in MODES {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
            let token = format!("{test}-{}-{}", mode.len(), now.as_nanos());
            check(&Self { store, context: TestDir::new(), mode, token });
        }
    }

    /// Writes a file with a time; none is now.
    fn write(&self, name: &str, content: &str, modified: Option<SystemTime>) {
        let path = self.context.write(name, content);
        if let Some(modified) = modified {
            fs::File::options().write(true).open(path).unwrap().set_modified(modified).unwrap();
        }
    }

    /// A program in C that prints a word.
    fn c(&self, name: &str, word: &str, modified: Option<SystemTime>) {
        let token = &self.token;
        let text = format!("/* {token} */\n#include <stdio.h>\nint main(void) {{ puts(\"{word}\"); return 0; }}\n");
        self.write(name, &text, modified);
    }

    /// A package in Rust whose program prints a word.
    fn rust(&self, folder: &str, word: &str, modified: Option<SystemTime>) {
        let manifest = "[package]\nname = \"app\"\nversion = \"0.1.0\"\nedition = \"2021\"\n";
        self.write(&format!("{folder}/Cargo.toml"), manifest, Some(ago(40_000)));
        let text = format!("// {}\nfn main() {{ println!(\"{word}\"); }}\n", self.token);
        self.write(&format!("{folder}/src/main.rs"), &text, modified);
    }

    /// `MOUNT` stands for a cache mount at /o.
    fn dockerfile(&self, text: &str) {
        let mount = format!("--mount=type=cache,id={},target=/o", self.token);
        let text = text.replace("MOUNT", &mount).replace("BASE", BASE).replace("TOKEN", &self.token);
        self.write("Dockerfile", &text, None);
    }

    /// The content of the cache mount, once that is in it.
    fn mount_with(&self, name: &str) -> PathBuf {
        let begun = SystemTime::now();
        let mounts = self.store.join("cache-mounts");
        while begun.elapsed().unwrap() < Duration::from_secs(60) {
            for mount in fs::read_dir(&mounts).into_iter().flatten().flatten() {
                let about = fs::read_to_string(mount.path().join("about.json")).unwrap_or_default();
                let data = mount.path().join("1/data");
                if about.contains(&self.token) && data.join(name).exists() {
                    return data;
                }
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("`{name}` did not appear in the cache mount of {}", self.token);
    }

    fn run(&self, arguments: &[&str]) -> Outcome {
        let mut build = fluyt_in(self.store);
        build.arg("build").args(self.mode).args(arguments).arg(self.context.path());
        program::finish(build)
    }

    /// Builds, and gives the text of `/out` in the result.
    fn out(&self, arguments: &[&str]) -> String {
        let folder = TestDir::new();
        let output = format!("type=local,dest={}", folder.join("out").display());
        let _ = self.run(&[&["-o", &output], arguments].concat()).expect_success();
        fs::read_to_string(folder.join("out/out")).unwrap().trim().to_owned()
    }
}

fn ago(seconds: u64) -> SystemTime {
    SystemTime::now() - Duration::from_secs(seconds)
}

/// A Dockerfile whose second stage holds `/out` alone.
fn with_out(steps: &str) -> String {
    format!("FROM BASE AS build\nWORKDIR /src\n{steps}\nFROM scratch\nCOPY --from=build /out /out\n")
}

const MAKEFILE: &str = "/o/app: /o/main.o\n\tcc -o $@ $<\n/o/main.o: main.c\n\tcc -c -o $@ $<\n";

fn make_in_mount(trap: &Trap) {
    trap.write("Makefile", MAKEFILE, Some(ago(50_000)));
    trap.dockerfile(&with_out("COPY Makefile main.c ./\nRUN MOUNT make && /o/app > /out"));
}

const CARGO: &str = "COPY app ./\nRUN MOUNT CARGO_TARGET_DIR=/o cargo build -q && /o/debug/app > /out";

#[test]
fn make_builds_a_changed_source_of_the_same_size() {
    Trap::each("make_builds_a_changed_source_of_the_same_size", |trap| {
        make_in_mount(trap);
        trap.c("main.c", "one", None);
        assert_eq!(trap.out(&[]), "one");
        trap.c("main.c", "two", None);
        assert_eq!(trap.out(&[]), "two");
    });
}

#[test]
fn cargo_builds_a_changed_source_of_the_same_size() {
    Trap::each("cargo_builds_a_changed_source_of_the_same_size", |trap| {
        trap.dockerfile(&with_out(CARGO));
        trap.rust("app", "one", None);
        assert_eq!(trap.out(&[]), "one");
        trap.rust("app", "two", None);
        assert_eq!(trap.out(&[]), "two");
    });
}

#[test]
fn make_builds_a_changed_source_over_outputs_of_an_earlier_layer() {
    Trap::each("make_builds_a_changed_source_over_outputs_of_an_earlier_layer", |trap| {
        trap.write("Makefile", &MAKEFILE.replace("/o/", ""), Some(ago(50_000)));
        trap.c("stub/main.c", "non", Some(ago(40_000)));
        trap.dockerfile(
            &with_out(
                "COPY Makefile stub/main.c ./\nRUN make\nFROM build AS last\nCOPY main.c ./\nRUN make && ./app > /out",
            )
            .replace("--from=build", "--from=last"),
        );
        let _ = trap.run(&["--target", "build"]).expect_success();
        for word in ["one", "two"] {
            trap.c("main.c", word, None);
            assert_eq!(trap.out(&[]), word);
        }
    });
}

#[test]
fn cargo_builds_a_changed_source_over_outputs_of_an_earlier_layer() {
    Trap::each("cargo_builds_a_changed_source_over_outputs_of_an_earlier_layer", |trap| {
        trap.rust("stub", "non", Some(ago(40_000)));
        trap.dockerfile(&with_out(
            "COPY stub ./\nRUN cargo build -q\nFROM build AS last\nCOPY app ./\nRUN cargo build -q && target/debug/app > /out",
        )
        .replace("--from=build", "--from=last"));
        trap.rust("app", "one", None);
        let _ = trap.run(&["--target", "build"]).expect_success();
        for word in ["one", "two"] {
            trap.rust("app", word, None);
            assert_eq!(trap.out(&[]), word);
        }
    });
}

#[test]
fn a_source_that_went_and_came_back_is_built_again() {
    Trap::each("a_source_that_went_and_came_back_is_built_again", |trap| {
        make_in_mount(trap);
        let (first, second) = (ago(3_000), ago(2_000));
        trap.c("main.c", "one", Some(first));
        assert_eq!(trap.out(&[]), "one");
        trap.c("main.c", "two", Some(second));
        assert_eq!(trap.out(&[]), "two");
        // As a version control that keeps times has it.
        trap.c("main.c", "one", Some(first));
        assert_eq!(trap.out(&["--no-cache"]), "one");
        assert_eq!(trap.out(&[]), "one");
        trap.c("main.c", "two", Some(second));
        assert_eq!(trap.out(&["--no-cache"]), "two");
    });
}

#[test]
fn cargo_builds_a_source_that_went_and_came_back() {
    Trap::each("cargo_builds_a_source_that_went_and_came_back", |trap| {
        trap.dockerfile(&with_out(CARGO));
        for (word, modified) in [("one", ago(3_000)), ("two", ago(2_000)), ("one", ago(3_000))] {
            trap.rust("app", word, Some(modified));
            assert_eq!(trap.out(&["--no-cache"]), word);
        }
    });
}

#[test]
fn of_two_copies_one_is_reverted() {
    Trap::each("of_two_copies_one_is_reverted", |trap| {
        trap.write("first/Makefile", MAKEFILE, Some(ago(50_000)));
        trap.c("first/main.c", "one", Some(ago(5_000)));
        trap.c("second/main.c", "two", None);
        trap.dockerfile(&with_out("COPY first ./\nCOPY second ./\nRUN MOUNT make && /o/app > /out"));
        assert_eq!(trap.out(&[]), "two");
        fs::remove_file(trap.context.join("second/main.c")).unwrap();
        trap.write("second/other.c", "", None);
        assert_eq!(trap.out(&[]), "one");
    });
}

#[test]
fn an_old_checkout_beside_a_newer_mount_is_built() {
    Trap::each("an_old_checkout_beside_a_newer_mount_is_built", |trap| {
        make_in_mount(trap);
        trap.c("main.c", "one", None);
        assert_eq!(trap.out(&[]), "one");
        trap.c("main.c", "two", Some(ago(1_000_000)));
        assert_eq!(trap.out(&[]), "two");
    });
    Trap::each("an_old_checkout_beside_a_newer_mount_is_built_by_cargo", |trap| {
        trap.dockerfile(&with_out(CARGO));
        trap.rust("app", "one", None);
        assert_eq!(trap.out(&[]), "one");
        trap.rust("app", "two", Some(ago(1_000_000)));
        assert_eq!(trap.out(&[]), "two");
    });
}

#[test]
fn a_bound_source_that_is_old_is_built() {
    Trap::each("a_bound_source_that_is_old_is_built", |trap| {
        trap.write("Makefile", MAKEFILE, Some(ago(50_000)));
        trap.dockerfile(&with_out("RUN --mount=target=/src MOUNT make && /o/app > /out"));
        for (word, modified) in [("one", ago(3_000)), ("two", ago(2_000)), ("one", ago(3_000))] {
            trap.c("main.c", word, Some(modified));
            assert_eq!(trap.out(&["--no-cache"]), word);
        }
    });
}

#[test]
fn a_source_that_was_seen_and_not_built_is_built_later() {
    Trap::each("a_source_that_was_seen_and_not_built_is_built_later", |trap| {
        trap.write("Makefile", MAKEFILE, Some(ago(50_000)));
        let target = |target: &str| {
            trap.dockerfile(&with_out(&format!("COPY Makefile main.c ./\nRUN MOUNT make {target} && /o/app > /out")));
        };
        trap.c("main.c", "one", None);
        target("/o/app");
        assert_eq!(trap.out(&[]), "one");
        trap.c("main.c", "two", Some(ago(3_000)));
        target("Makefile");
        assert_eq!(trap.out(&[]), "one");
        target("/o/app");
        assert_eq!(trap.out(&[]), "two");
    });
}

#[test]
fn what_a_killed_build_made_beside_another_is_not_taken() {
    Trap::each("what_a_killed_build_made_beside_another_is_not_taken", |trap| {
        trap.write("Makefile", MAKEFILE, Some(ago(50_000)));
        let source = |word: &str, command: &str| {
            trap.dockerfile(&with_out(&format!("COPY Makefile main.c ./\nRUN MOUNT {command}")));
            trap.c("main.c", word, Some(ago(3_000)));
        };
        let begin = || {
            let mut build = fluyt_in(trap.store);
            build.args(["build", "--progress=plain"]).args(trap.mode).arg(trap.context.path());
            build.stdout(Stdio::null()).stderr(Stdio::null()).stdin(Stdio::null()).spawn().unwrap()
        };
        let wait = "until [ -e";
        // The one that is killed builds when the other has begun, and the other ends when it is dead.
        source("one", &format!("touch /o/a; {wait} /o/b ]; do sleep 0.1; done; make && touch /o/made; sleep 1000"));
        let mut killed = begin();
        let mount = trap.mount_with("a");
        source("two", &format!("touch /o/b; {wait} /o/killed ]; do sleep 0.1; done; touch /out"));
        let mut other = begin();
        assert_eq!(trap.mount_with("made"), mount);
        killed.kill().unwrap();
        let _ = killed.wait().unwrap();
        fs::write(mount.join("killed"), "").unwrap();
        assert!(other.wait().unwrap().success());
        source("two", "make && /o/app > /out");
        assert_eq!(trap.out(&[]), "two");
    });
}

#[test]
fn what_did_not_change_is_not_built_again() {
    Trap::each("what_did_not_change_is_not_built_again", |trap| {
        trap.write("Makefile", MAKEFILE, Some(ago(50_000)));
        trap.dockerfile(&with_out("COPY Makefile main.c ./\nARG N\nRUN MOUNT make > /out"));
        trap.c("main.c", "one", Some(ago(3_000)));
        let built = trap.out(&["--build-arg", "N=1"]);
        assert!(built.contains("cc -c"), "{built}");
        assert_eq!(trap.out(&["--build-arg", "N=2"]), "make: '/o/app' is up to date.");
        trap.c("main.c", "two", Some(ago(2_000)));
        assert!(trap.out(&["--build-arg", "N=3"]).contains("cc -c"));
        assert_eq!(trap.out(&["--build-arg", "N=4"]), "make: '/o/app' is up to date.");
    });
}

#[test]
fn what_a_mount_leaves_is_not_taken_from_a_run_with_another_mount() {
    Trap::each("what_a_mount_leaves_is_not_taken_from_a_run_with_another_mount", |trap| {
        for flag in ["1", "2", "1"] {
            trap.dockerfile(&with_out(&format!(
                "RUN MOUNT printf 'int main(void) {{ return {flag}; }}' > /tmp/a.c && cc -o /o/app /tmp/a.c && rm /tmp/a.c\n\
                 RUN MOUNT /o/app; echo $? > /out"
            )));
            assert_eq!(trap.out(&[]), flag);
        }
    });
}

#[test]
fn a_folder_of_the_base_that_became_a_link_stays_one() {
    Trap::each("a_folder_of_the_base_that_became_a_link_stays_one", |trap| {
        trap.write("file", &trap.token, None);
        for (make, expected) in [("mkdir /data", "directory"), ("mkdir /real && ln -s real /data", "symbolic link")] {
            trap.dockerfile(&with_out(&format!(
                "RUN {make}\nCOPY file /data/\nRUN cat /data/file && stat -c %F /data > /out"
            )));
            assert_eq!(trap.out(&[]), expected);
        }
    });
}

#[test]
fn byte_code_of_a_run_is_valid_in_the_image() {
    Trap::each("byte_code_of_a_run_is_valid_in_the_image", |trap| {
        trap.write("app/module.py", &format!("NAME = {:?}\n", trap.token), None);
        trap.dockerfile(
            "FROM BASE AS build\nCOPY app /app\nRUN python3 -m compileall -q /app\nFROM scratch\nCOPY --from=build /app /app\n",
        );
        let folder = TestDir::new();
        let tar = folder.join("image.tar");
        let _ = trap.run(&["-o", &format!("type=tar,dest={}", tar.display())]).expect_success();
        let _ =
            program::run("tar", ["-xf", tar.to_str().unwrap(), "-C", folder.path().to_str().unwrap()]).expect_success();
        let mut python = Command::new("/usr/bin/python3");
        python.args(["-v", "-c", "import module"]).env("PYTHONPATH", folder.join("app"));
        let said = program::finish(python).expect_success();
        let about: Vec<&str> = said.stderr.lines().filter(|line| line.contains("module.")).collect();
        let valid = about.iter().any(|line| line.contains("code object from") && line.contains("__pycache__/module."));
        assert!(valid && !about.iter().any(|line| line.contains("wrote")), "{about:#?}");
    });
}

#[test]
fn an_archive_made_in_a_run_is_whole_and_the_same_twice() {
    // As the `wheel` package dates the files in a wheel.
    const WHEEL: &str = "import os, time, zipfile\n\
        at = time.gmtime(max(int(os.environ.get('SOURCE_DATE_EPOCH', time.time())), 315532800))[:6]\n\
        with zipfile.ZipFile('/out', 'w') as z:\n    \
            z.writestr(zipfile.ZipInfo('module.py', at), open('/src/module.py').read())\n    \
            z.comment = os.environ.get('SOURCE_DATE_EPOCH', str(time.time_ns())).encode()\n";
    Trap::each("an_archive_made_in_a_run_is_whole_and_the_same_twice", |trap| {
        trap.write("wheel.py", WHEEL, None);
        trap.dockerfile(&with_out(
            "COPY . .\nRUN python3 wheel.py && python3 -m zipfile -t /out && python3 -m zipfile -c /tmp/z.zip module.py",
        ));
        let mut digests = Vec::new();
        for age in [1_000, 2_000_000] {
            for name in ["wheel.py", "Dockerfile"] {
                let file = fs::File::options().write(true).open(trap.context.join(name)).unwrap();
                file.set_modified(ago(age)).unwrap();
            }
            trap.write("module.py", &format!("NAME = {:?}\n", trap.token), Some(ago(age)));
            digests.push(trap.run(&["--no-cache", "-q"]).expect_success().text().to_owned());
        }
        if trap.mode.is_empty() {
            assert_ne!(digests[0], digests[1], "the times of these files are real");
        } else {
            assert_eq!(digests[0], digests[1]);
        }
    });
}

#[test]
fn a_build_with_an_epoch_takes_nothing_of_one_without() {
    if !program::is_root("a_build_with_an_epoch_takes_nothing_of_one_without") {
        return;
    }
    let context = shell_context("RUN busybox date > /date; busybox touch /made\nCOPY Dockerfile /d/\n");
    let build = |fluyt: &Fluyt, epoch: Option<&str>| {
        let mut command = fluyt.command();
        command.args(["build", "-q"]).arg(context.path());
        if let Some(epoch) = epoch {
            command.env("SOURCE_DATE_EPOCH", epoch);
        }
        program::finish(command).expect_success().text().to_owned()
    };
    let text = fs::read_to_string(context.join("Dockerfile")).unwrap().replace("busybox date > /date;", "");
    context.write("Dockerfile", text);
    let (used, fresh) = (Fluyt::new(), Fluyt::new());
    let real = build(&used, None);
    let clamped = build(&used, Some("1000000000"));
    assert_eq!(clamped, build(&fresh, Some("1000000000")));
    assert_ne!(real, clamped);
    assert_ne!(clamped, build(&used, Some("1000000001")));
    assert_eq!(build(&used, None), real);
    assert_eq!(build(&used, Some("1000000000")), clamped);
}
