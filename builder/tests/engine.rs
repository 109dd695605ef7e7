//! How steps are found again, cut off, run beside each other and stopped: real builds with RUNs in busybox.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![expect(clippy::print_stdout, reason = "a test that is skipped says so")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, SystemTime};

/// What every Dockerfile here begins with.
const BUSYBOX: &str = "FROM scratch AS busybox\n\
    COPY busybox /bin/busybox\n\
    RUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n";

/// A context and a store.
struct Place(tempfile::TempDir);

impl Place {
    /// `None`, with the reason told, where RUN is not possible.
    fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() || !Path::new("/bin/busybox").exists() {
            println!("skipped: RUN needs root and /bin/busybox here");
            return None;
        }
        let place = Self(tempfile::tempdir().unwrap());
        fs::create_dir(place.path("context")).unwrap();
        fs::copy("/bin/busybox", place.path("context/busybox")).unwrap();
        Some(place)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn dockerfile(&self, text: &str) {
        fs::write(self.path("context/Dockerfile"), format!("{BUSYBOX}{text}")).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fluyt"));
        command.env("FLUYT_STORE", self.path("store")).env_remove("SOURCE_DATE_EPOCH");
        command.args(["build", "--progress", "plain"]).args(arguments).arg("context");
        command.current_dir(self.0.path()).stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Builds; gives the digest and what was said.
    fn build(&self, arguments: &[&str]) -> (String, String) {
        let built = self.run(arguments);
        let said = String::from_utf8_lossy(&built.stderr).into_owned();
        assert!(built.status.success(), "{said}");
        (String::from_utf8_lossy(&built.stdout).trim().to_owned(), said)
    }

    /// The files of the result, in a fresh folder.
    fn files(&self, arguments: &[&str]) -> PathBuf {
        let folder = tempfile::tempdir_in(self.0.path()).unwrap().keep();
        self.build(&[arguments, &["-o", folder.to_str().unwrap()]].concat());
        folder
    }
}

/// Removes what is not needed, all or of one type.
fn prune(place: &Place, arguments: &[&str]) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fluyt"));
    command.args(["--store", place.path("store").to_str().unwrap(), "prune"]).args(arguments);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The step of a build's progress that this instruction is, with what became of it.
fn fate<'a>(said: &'a str, instruction: &str) -> &'a str {
    let title =
        said.lines().find(|line| line.ends_with(instruction)).unwrap_or_else(|| panic!("{instruction}: {said}"));
    let number = title.split(' ').next().unwrap();
    let ends = |line: &&str| {
        line.strip_prefix(number)
            .is_some_and(|rest| [" CACHED", " DONE", " ERROR"].iter().any(|end| rest.starts_with(end)))
    };
    let fate = said.lines().find(ends).unwrap_or_else(|| panic!("{instruction} has no end: {said}"));
    fate[number.len() + 1..].split(' ').next().unwrap()
}

#[test]
fn independent_stages_run_at_the_same_time() {
    let Some(place) = Place::new() else { return };
    // Each waits for the other in a cache mount that both see: run one after the other, the first would give up.
    let meet = |own: &str, other: &str| {
        format!(
            "FROM busybox AS {own}\nRUN --mount=type=cache,target=/meet touch /meet/{own} && for i in $(seq 300); do \
             [ -e /meet/{other} ] && echo met > /{own} && exit 0; sleep 0.2; done; exit 1\n"
        )
    };
    let last = "FROM busybox\nCOPY --from=one /one /\nCOPY --from=two /two /\n";
    place.dockerfile(&format!("{}{}{last}", meet("one", "two"), meet("two", "one")));
    let files = place.files(&[]);
    for name in ["one", "two"] {
        assert_eq!(fs::read_to_string(files.join(name)).unwrap(), "met\n");
    }
}

#[test]
fn a_command_takes_no_outputs_of_yesterday_from_a_cache_mount_of_another_stage() {
    let Some(place) = Place::new() else { return };
    let text = |from: &str| {
        format!(
            "FROM busybox AS make\nARG F\nRUN --mount=type=cache,id=o,target=/o sleep 1; echo $F > /o/app\n\
             FROM busybox AS take\nRUN --mount=type=cache,id=o,target=/o{from} cat /o/app > /out; true\n\
             FROM busybox\nCOPY --from=make /bin/busybox /x\nCOPY --from=take /out /\n"
        )
    };
    let out = |flag: &str| {
        let files = place.files(&["--build-arg", &format!("F={flag}")]);
        fs::read_to_string(files.join("out")).unwrap().trim().to_owned()
    };
    place.dockerfile(&text(""));
    // In a fresh mount there is nothing that is old; whoever comes first, comes first.
    let first = out("1");
    assert!(first.is_empty() || first == "1", "{first}");
    assert_eq!(out("2"), "2");
    assert_eq!(out("3"), "3");
    assert_eq!(out("2"), "2");
    let (_, said) = place.build(&["--build-arg", "F=3"]);
    assert_eq!(fate(&said, "cat /o/app > /out; true"), "CACHED", "{said}");
    assert_eq!(out("3"), "3");
    // A mount that can only be read is read for what others leave, in the first build too.
    place.dockerfile(&text(",readonly").replace("id=o", "id=other"));
    assert_eq!(out("1"), "1");
}

/// As make has it: what is in the mount is made again when a source is newer.
#[test]
fn a_source_that_comes_back_and_what_a_link_leads_to_are_newer_than_the_mount() {
    let Some(place) = Place::new() else { return };
    let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_600_000_000);
    let write = |name: &str, text: &str| {
        let path = place.path("context/src").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::File::options().write(true).open(&path).unwrap().set_modified(old).unwrap();
    };
    let link = |target: &str| {
        let path = place.path("context/src/cur");
        let _ = fs::remove_file(&path);
        std::os::unix::fs::symlink(target, &path).unwrap();
    };
    // A bind and a copy.
    for (copy, bind) in [("COPY src /src\n", ""), ("", "--mount=type=bind,source=src,target=/src ")] {
        let _ = fs::remove_dir_all(place.path("context/src"));
        let id = copy.len();
        place.dockerfile(&format!(
            "FROM busybox\n{copy}RUN {bind}--mount=type=cache,id={id},target=/o for i in util cur; do \
             for f in /src/$i.* /src/$i/a; do [ ! -e $f ] || [ /o/$i -nt $f ] || cp $f /o/$i; done; done; cp -r /o /out\n"
        ));
        let made = || {
            let files = place.files(&[]);
            ["util", "cur"].map(|name| fs::read_to_string(files.join("out").join(name)).unwrap())
        };
        write("Makefile", "");
        write("util.c", "c");
        write("v1/a", "1");
        write("v2/a", "2");
        link("v1");
        assert_eq!(made(), ["c", "1"], "{bind}");
        fs::remove_file(place.path("context/src/util.c")).unwrap();
        write("util.cpp", "cpp");
        link("v2");
        assert_eq!(made(), ["cpp", "2"], "{bind}");
        fs::remove_file(place.path("context/src/util.cpp")).unwrap();
        write("util.c", "c");
        link("v1");
        // Another build than the first.
        write("README", "");
        assert_eq!(made(), ["c", "1"], "{bind}");
    }
}

#[test]
fn a_folder_in_memory_has_the_mode_of_the_one_it_covers() {
    let Some(place) = Place::new() else { return };
    place.dockerfile(
        "FROM busybox\nRUN mkdir -m 700 /own && mkdir -m 2775 /group && ln -s own /link\n\
         RUN --mount=type=tmpfs,target=/own --mount=type=tmpfs,target=/group --mount=type=tmpfs,target=/new/one \
         stat -c '%a %n' /own /group /new/one > /modes\n\
         RUN --mount=type=tmpfs,target=/link stat -c '%a %n' /own >> /modes\n",
    );
    let modes = fs::read_to_string(place.files(&[]).join("modes")).unwrap();
    assert_eq!(modes.lines().collect::<Vec<_>>(), ["700 /own", "2775 /group", "1777 /new/one", "700 /own"]);
}

#[test]
fn a_failure_stops_what_runs_and_names_itself_alone() {
    let Some(place) = Place::new() else { return };
    place.dockerfile(
        "FROM busybox AS slow\nRUN sleep 1000\n\
         FROM busybox AS bad\nRUN sleep 1; exit 7\n\
         FROM busybox\nCOPY --from=slow /bin/busybox /a\nCOPY --from=bad /bin/busybox /b\n",
    );
    let built = place.run(&[]);
    let said = String::from_utf8_lossy(&built.stderr);
    assert_eq!(built.status.code(), Some(1), "{said}");
    assert!(said.contains("step `RUN sleep 1; exit 7` failed in stage `bad` (Dockerfile:7)"), "{said}");
    assert!(said.contains("the command exited with status 7"), "{said}");
    assert!(!said.contains("step `RUN sleep 1000` failed"), "{said}");
    assert!(fs::read_dir(place.path("store/tmp")).unwrap().next().is_none(), "something is left in tmp");
}

#[test]
fn what_fails_together_is_told_together() {
    let Some(place) = Place::new() else { return };
    // Nothing is started any more, though there is room for it.
    place.dockerfile(
        "FROM busybox AS late\nRUN sleep 0.2; exit 4\nFROM busybox AS bad\nRUN exit 7\n\
         FROM busybox AS good\nRUN sleep 0.1\nRUN touch /never\n\
         FROM busybox\nCOPY --from=late /bin/busybox /a\nCOPY --from=bad /bin/busybox /b\nCOPY --from=good /never /\n",
    );
    let built = place.run(&[]);
    let said = String::from_utf8_lossy(&built.stderr);
    assert_eq!(built.status.code(), Some(1), "{said}");
    for step in ["step `RUN exit 7` failed in stage `bad`", "step `RUN sleep 0.2; exit 4` failed in stage `late`"] {
        assert!(said.contains(step), "{said}");
    }
    assert!(said.lines().any(|line| line.starts_with('#') && line.ends_with("RUN exit 7")), "{said}");
    assert!(!said.lines().any(|line| line.starts_with('#') && line.ends_with("RUN touch /never")), "{said}");
}

#[test]
fn a_rebuild_finds_all_and_gives_the_same_image() {
    let Some(place) = Place::new() else { return };
    place.dockerfile(
        "FROM busybox AS one\nRUN date +%N > /one\nFROM busybox\nCOPY --from=one /one /\nRUN cat /one > /two\n",
    );
    let (first, _) = place.build(&[]);
    let (second, said) = place.build(&[]);
    assert_eq!(first, second);
    for instruction in ["RUN date +%N > /one", "COPY --from=one /one /", "RUN cat /one > /two"] {
        assert_eq!(fate(&said, instruction), "CACHED", "{said}");
    }
}

#[test]
fn a_stage_can_be_run_again_alone() {
    let Some(place) = Place::new() else { return };
    place.dockerfile(
        "FROM busybox AS one\nRUN cat /proc/sys/kernel/random/uuid > /one\n\
         FROM busybox AS two\nRUN cat /proc/sys/kernel/random/uuid > /two\n\
         FROM busybox\nCOPY --from=one /one /\nCOPY --from=two /two /\n",
    );
    let read = |files: &Path, name: &str| fs::read_to_string(files.join(name)).unwrap();
    let before = place.files(&[]);
    let after = place.files(&["--no-cache-filter", "One"]);
    assert_ne!(read(&before, "one"), read(&after, "one"));
    assert_eq!(read(&before, "two"), read(&after, "two"));
    // What ran again replaced what was there.
    let later = place.files(&[]);
    assert_eq!(read(&after, "one"), read(&later, "one"));
}

#[test]
fn a_step_that_leaves_what_it_left_keeps_its_earlier_layer() {
    let Some(place) = Place::new() else { return };
    place.dockerfile(
        "FROM busybox AS build\nCOPY source /source\nRUN head -n 1 /source > /first\n\
         FROM busybox\nCOPY --from=build /first /first\nRUN cat /first > /second\n",
    );
    fs::write(place.path("context/source"), "same\none\n").unwrap();
    let (first, _) = place.build(&[]);
    // File times have whole seconds in a layer.
    std::thread::sleep(Duration::from_millis(1100));
    fs::write(place.path("context/source"), "same\ntwo\n").unwrap();
    let (second, said) = place.build(&[]);
    assert_eq!(fate(&said, "RUN head -n 1 /source > /first"), "DONE", "{said}");
    assert_eq!(fate(&said, "COPY --from=build /first /first"), "CACHED", "{said}");
    assert_eq!(fate(&said, "RUN cat /first > /second"), "CACHED", "{said}");
    assert_eq!(first, second);
}

#[test]
fn a_layer_that_is_kept_keeps_its_times() {
    let Some(place) = Place::new() else { return };
    // What the command reads is no part of the image: all that could differ are the times of what it leaves.
    place.dockerfile(
        "RUN --mount=type=bind,source=source,target=/source head -n 1 /source > /first\nRUN cat /first > /second\n",
    );
    let command = "head -n 1 /source > /first";
    fs::write(place.path("context/source"), "same\none\n").unwrap();
    let (first, _) = place.build(&[]);
    // File times have whole seconds in a layer.
    std::thread::sleep(Duration::from_millis(1100));
    fs::write(place.path("context/source"), "same\ntwo\n").unwrap();
    let (second, said) = place.build(&[]);
    assert_eq!(fate(&said, command), "DONE", "{said}");
    assert_eq!(fate(&said, "RUN cat /first > /second"), "CACHED", "{said}");
    assert_eq!(first, second, "the image of the earlier layer");
    // Something else is something else, and what was there before is found again.
    fs::write(place.path("context/source"), "other\n").unwrap();
    let (third, _) = place.build(&[]);
    assert_ne!(first, third);
    fs::write(place.path("context/source"), "same\none\n").unwrap();
    let (fourth, said) = place.build(&[]);
    assert_eq!(fate(&said, command), "CACHED", "{said}");
    assert_eq!(first, fourth);
}

#[test]
fn a_bind_of_a_stage_counts_by_what_it_shows() {
    let Some(place) = Place::new() else { return };
    let bound = |source: &str| {
        place.dockerfile(&format!(
            "FROM busybox AS made\nCOPY part /data/part\nCOPY other /other\nRUN ln -s data/part /alias\n\
             FROM busybox\nCOPY own /other\n\
             RUN --mount=type=bind,from=made,source={source},target=/m cat /m/file /m/out/word > /seen || cat /m > /seen\n"
        ));
    };
    let command = "/m/out/word > /seen || cat /m > /seen";
    for folder in ["part", "other", "own"] {
        fs::create_dir_all(place.path("context").join(folder)).unwrap();
    }
    let write = |name: &str, text: &str| fs::write(place.path("context").join(name), text).unwrap();
    let seen = || fs::read_to_string(place.files(&[]).join("seen")).unwrap();
    let fate_now = || fate(&place.build(&[]).1, command).to_owned();
    write("part/file", "one ");
    write("other/word", "theirs");
    write("own/word", "own");
    // A link that leaves what is bound leads into the command's own root.
    std::os::unix::fs::symlink("/other", place.path("context/part/out")).unwrap();
    for source in ["/data/part", "/alias"] {
        bound(source);
        write("part/file", "one ");
        assert_eq!(seen(), "one own");
        write("other/word", &format!("changed for {source}"));
        assert_eq!(fate_now(), "CACHED", "{source}: what is elsewhere in the stage");
        assert_eq!(seen(), "one own");
        write("part/file", "two ");
        assert_eq!((fate_now(), seen()), ("DONE".to_owned(), "two own".to_owned()), "{source}");
    }
    // Where the link leads counts, as does a mode that the command can see.
    fs::remove_file(place.path("context/part/out")).unwrap();
    std::os::unix::fs::symlink("/other/.", place.path("context/part/out")).unwrap();
    assert_eq!(fate_now(), "DONE");
    let mode = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o700);
    fs::set_permissions(place.path("context/part/file"), mode).unwrap();
    assert_eq!(fate_now(), "DONE");
    bound("/data/part/file");
    assert_eq!(seen(), "two ");
    write("other/word", "changed beside a file");
    assert_eq!(fate_now(), "CACHED");
    // Of the whole root, all counts.
    bound("/");
    place.run(&[]);
    let (all, wanted) = (place.path("context/Dockerfile"), "cat /m/file /m/out/word > /seen || cat /m > /seen");
    fs::write(&all, fs::read_to_string(&all).unwrap().replace(wanted, "cat /m/other/word > /seen")).unwrap();
    assert_eq!(seen(), "changed beside a file");
    write("other/word", "all counts");
    assert_eq!(seen(), "all counts");
}

#[test]
fn what_a_copy_meets_counts() {
    let Some(place) = Place::new() else { return };
    place.dockerfile("COPY base/ /\nCOPY thing /lib/\n");
    fs::write(place.path("context/thing"), "thing").unwrap();
    fs::create_dir_all(place.path("context/base/usr/lib")).unwrap();
    fs::create_dir_all(place.path("context/base/lib")).unwrap();
    let files = place.files(&[]);
    assert!(files.join("lib/thing").is_file() && !files.join("usr/lib/thing").exists());
    fs::remove_dir(place.path("context/base/lib")).unwrap();
    std::os::unix::fs::symlink("usr/lib", place.path("context/base/lib")).unwrap();
    let files = place.files(&[]);
    assert!(files.join("lib").is_symlink() && files.join("usr/lib/thing").is_file());
}

#[test]
fn builds_that_miss_together_are_never_mixed() {
    let Some(place) = Place::new() else { return };
    for mode in [&[][..], &["--reproducible"]] {
        for round in 0..2 {
            // Neither ends before both have begun: each waits for the other's id in a mount that both see.
            let text = format!(
                "FROM busybox\nRUN --mount=type=cache,id={}{round},target=/meet cat /proc/sys/kernel/random/uuid > /id && \
                 touch /meet/$(cat /id) && for i in $(seq 300); do [ $(ls /meet | wc -l) = 2 ] && exit 0; sleep 0.2; done; \
                 exit 1\nRUN cp /id /copy\n",
                mode.len()
            );
            place.dockerfile(&text);
            let command = || place.command(mode).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            for mut build in [command(), command()] {
                assert!(build.wait().unwrap().success(), "{mode:?}: they did not meet");
            }
            place.dockerfile(&format!("{text}RUN cp /copy /third\n"));
            let folder = tempfile::tempdir_in(place.path("")).unwrap().keep();
            let (_, said) = place.build(&[mode, &["-o", folder.to_str().unwrap()]].concat());
            for found in ["RUN cp /id /copy", "exit 1"] {
                assert_eq!(fate(&said, found), "CACHED", "{said}");
            }
            let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
            assert_eq!((read("copy"), read("third")), (read("id"), read("id")), "{mode:?}, round {round}");
        }
    }
}

/// A stage that leaves something else each time it runs, twice.
const TWICE: &str =
    "FROM busybox AS made\nRUN cat /proc/sys/kernel/random/uuid > /id; cp /id /copy\nFROM busybox AS last\n";

#[test]
fn files_of_two_runs_of_a_stage_are_never_mixed() {
    // What the last step takes, and how the stage comes to be run once more.
    let takes = [
        ("COPY --from=made /id /id\n", "COPY --from=made /copy /copy\n"),
        (
            "RUN --mount=from=made,target=/m cp /m/id /id\n",
            "RUN --mount=from=made,target=/m,source=/copy cp /m /copy\n",
        ),
        ("COPY --from=made /id /id\n", "FROM made AS other\nRUN true\nFROM last\nCOPY --from=other /copy /copy\n"),
    ];
    for (number, (first, then)) in takes.into_iter().enumerate() {
        for again in if number == 0 { &["prune", "--target", "--no-cache-filter"][..] } else { &["prune"] } {
            let Some(place) = Place::new() else { return };
            place.dockerfile(&format!("{TWICE}{first}"));
            place.build(&["-t", "app"]);
            match *again {
                // The stage goes, and what an image with a name needs stays.
                "prune" => {
                    let mut prune = Command::new(env!("CARGO_BIN_EXE_fluyt"));
                    prune.args(["prune", "--force", "--store"]).arg(place.path("store"));
                    assert!(prune.output().unwrap().status.success());
                }
                "--target" => drop(place.build(&["--no-cache", "--target", "made"])),
                _ => drop(place.build(&["--no-cache-filter", "made", "--target", "made"])),
            }
            place.dockerfile(&format!("{TWICE}{first}{then}"));
            let files = place.files(&[]);
            let read = |name: &str| fs::read_to_string(files.join(name)).unwrap();
            assert_eq!(read("id"), read("copy"), "{again}: {first}{then}");
            // What that build had is found as a whole.
            let (_, said) = place.build(&[]);
            assert_eq!(
                fate(
                    &said,
                    then.lines().last().unwrap().trim_start_matches("RUN --mount=from=made,target=/m,source=/copy ")
                ),
                "CACHED",
                "{said}"
            );
        }
    }
}

#[test]
fn a_file_that_the_dockerfile_holds_counts_beside_a_stage() {
    let Some(place) = Place::new() else { return };
    let port = |number: u32| {
        place
            .dockerfile(&format!("FROM scratch\nCOPY --from=busybox /bin/busybox <<conf /app/\nport={number}\nconf\n"));
        fs::read_to_string(place.files(&[]).join("app/conf")).unwrap()
    };
    assert_eq!(port(80), "port=80\n");
    assert_eq!(port(81), "port=81\n", "of the same size");
    assert_eq!(port(80), "port=80\n");
}

#[test]
fn what_a_stage_leaves_anew_in_a_cache_mount_is_taken() {
    let Some(place) = Place::new() else { return };
    place.dockerfile(
        "FROM busybox AS make\nRUN --mount=type=cache,id=o,target=/o cat /proc/sys/kernel/random/uuid > /o/app; cp /o/app /app\n\
         FROM busybox AS take\nRUN --mount=type=cache,id=o,target=/o,readonly cp /o/app /taken\n\
         FROM busybox\nCOPY --from=make /app /\nCOPY --from=take /taken /\n",
    );
    let same = |flags: &[&str]| {
        let files = place.files(flags);
        let read = |name: &str| fs::read_to_string(files.join(name)).unwrap();
        assert_eq!(read("app"), read("taken"), "{flags:?}");
        read("app")
    };
    let first = same(&[]);
    assert_ne!(same(&["--no-cache-filter", "make"]), first);
}

#[test]
fn builds_of_both_modes_take_turns_in_one_store() {
    let Some(place) = Place::new() else { return };
    let text = "COPY source /source\nRUN head -n 1 /source > /first\n";
    fs::write(place.path("context/source"), "one\n").unwrap();
    place.dockerfile(text);
    place.build(&["--reproducible"]);
    place.build(&[]);
    place.dockerfile("COPY source /source\nRUN true\n");
    place.build(&["--no-cache"]);
    // What is unpacked goes.
    prune(&place, &["--filter", "type=layer"]);
    place.dockerfile(&format!("{text}RUN stat -c %Y /source > /seen\n"));
    let seen = fs::read_to_string(place.files(&[]).join("seen")).unwrap();
    assert_ne!(seen.trim(), "315532800", "the constant time");
    // Layers that hold nothing are all the same.
    place.dockerfile("RUN true\nRUN cat /proc/sys/kernel/random/uuid > /id\n");
    let (first, _) = place.build(&["--reproducible"]);
    place.dockerfile("RUN true && true\n");
    place.build(&[]);
    place.dockerfile("RUN true\nRUN cat /proc/sys/kernel/random/uuid > /id\n");
    let (again, said) = place.build(&["--reproducible"]);
    assert_eq!((again, fate(&said, "RUN true")), (first, "CACHED"), "{said}");
}

#[test]
fn one_of_two_copies_can_be_taken_back() {
    let Some(place) = Place::new() else { return };
    place.dockerfile("COPY a /a\nCOPY b /b\nRUN cat /a /b > /both\n");
    let write = |name: &str, text: &str| fs::write(place.path("context").join(name), text).unwrap();
    let both = || fs::read_to_string(place.files(&[]).join("both")).unwrap();
    write("a", "a1 ");
    write("b", "b1");
    assert_eq!(both(), "a1 b1");
    write("a", "a2 ");
    write("b", "b2");
    assert_eq!(both(), "a2 b2");
    write("a", "a1 ");
    assert_eq!(both(), "a1 b2");
    write("b", "b1");
    let (_, said) = place.build(&[]);
    assert_eq!(fate(&said, "RUN cat /a /b > /both"), "CACHED", "{said}");
    assert_eq!(both(), "a1 b1");
}

#[test]
fn a_copy_of_yesterday_is_not_older_than_what_was_made_since() {
    const MADE: &str = "WORKDIR /s\nRUN echo old";
    const REST: &str = "COPY app.c .\nRUN [ ! app.c -nt app ] || cp app.c app\n";
    for mode in [&[][..], &["--reproducible"]] {
        for is_base in [false, true] {
            let Some(place) = Place::new() else { return };
            let made = |what: &str| match is_base {
                false => place.dockerfile(&format!("FROM busybox\n{MADE} {what} >app\n{REST}")),
                true => {
                    place.dockerfile(&format!("FROM busybox\n{MADE} {what} >app\n"));
                    place.build(&["-t", "base"]);
                    fs::write(place.path("context/Dockerfile"), format!("FROM base\n{REST}")).unwrap();
                }
            };
            let write = |text: &str| {
                // Whole seconds are what busybox compares.
                std::thread::sleep(Duration::from_millis(1_100));
                fs::write(place.path("context/app.c"), text).unwrap();
            };
            let app = || fs::read_to_string(place.files(mode).join("s/app")).unwrap();
            write("XX");
            made("a");
            place.build(mode);
            write("NE");
            assert_eq!(app(), "NE");
            write("XX");
            made("b");
            place.build(mode);
            write("NE");
            let (_, said) = place.build(&[mode, &["--explain"]].concat());
            assert!(said.contains("its files would seem older than that"), "{said}");
            assert_eq!(app(), "NE", "{mode:?}, a base: {is_base}");
            // And then all is found.
            let (_, said) = place.build(mode);
            assert_eq!(fate(&said, "COPY app.c ."), "CACHED", "{said}");
        }
    }
}

#[test]
fn a_step_forced_to_run_again_and_back() {
    let Some(place) = Place::new() else { return };
    place.dockerfile(
        "FROM busybox AS made\nCOPY source /source\nRUN cp /source /out\nFROM busybox\nCOPY --from=made /out /out\n",
    );
    for (text, arguments) in
        [("A1", &[][..]), ("B2", &[]), ("A1", &["--no-cache-filter", "made"]), ("B2", &["--no-cache"])]
    {
        fs::write(place.path("context/source"), text).unwrap();
        assert_eq!(fs::read_to_string(place.files(arguments).join("out")).unwrap(), text);
    }
}

#[test]
fn why_a_step_was_missed_is_said_in_words() {
    let Some(place) = Place::new() else { return };
    let text = "ARG LEVEL=1\nCOPY --chmod=644 source /source\nRUN cat /source\nRUN echo $LEVEL > /level\n";
    place.dockerfile(text);
    fs::write(place.path("context/source"), "one").unwrap();
    fs::write(place.path("context/other"), "other").unwrap();
    let explained = |arguments: &[&str]| {
        let (_, said) = place.build(&[&["--explain"], arguments].concat());
        said.lines().filter(|line| line.contains(" runs again: ")).map(str::to_owned).collect::<Vec<_>>()
    };
    let first = explained(&[]);
    assert_eq!(first.len(), 5, "{first:?}");
    assert!(first.iter().all(|line| line.ends_with("no earlier build of this Dockerfile here had such a step")));
    assert_eq!(explained(&[]), Vec::<String>::new());

    fs::write(place.path("context/source"), "two").unwrap();
    let changed = explained(&[]);
    assert_eq!(changed.len(), 3, "{changed:?}");
    assert!(changed[0].ends_with("`COPY --chmod=644 source /source`: changed: file source"), "{changed:?}");
    let stands_on = "`RUN cat /source`: the result of `COPY --chmod=644 source /source` (line 5) is not what it was";
    assert!(changed[1].ends_with(stands_on), "{changed:?}");

    let argument = explained(&["--build-arg", "LEVEL=2"]);
    assert!(argument[0].ends_with("`RUN cat /source`: variable LEVEL changed from `1` to `2`"), "{argument:?}");
    place.dockerfile(&text.replace("644", "600"));
    let mode = explained(&[]);
    assert!(mode[0].ends_with("--chmod changed from `644` to `600`"), "{mode:?}");
    let told = explained(&["--no-cache"]);
    assert!(told.iter().all(|line| line.ends_with("it was told to run again (--no-cache)")), "{told:?}");
}

#[test]
fn a_build_that_found_all_is_the_last_one_too() {
    let Some(place) = Place::new() else { return };
    place.dockerfile("COPY a /a\nCOPY b /b\nRUN cat /a /b > /both\n");
    let built = |a: &str, b: &str| {
        fs::write(place.path("context/a"), a).unwrap();
        fs::write(place.path("context/b"), b).unwrap();
        let (_, said) = place.build(&["--explain"]);
        let lines = said.lines().filter_map(|line| line.split_once(" runs again: ").map(|(_, why)| why.to_owned()));
        lines.collect::<Vec<_>>()
    };
    built("1", "1");
    built("1", "2");
    built("7", "2");
    assert_eq!(built("1", "2"), Vec::<String>::new());
    let last = built("1", "3");
    let result = "the result of `COPY b /b` (line 5) is not what it was";
    assert_eq!(last, ["`COPY b /b`: changed: file b".to_owned(), format!("`RUN cat /a /b > /both`: {result}")]);
    // What is found and stood in no such build is told so.
    built("9", "3");
    let found = built("1", "4");
    let of_another = "`COPY b /b`: changed: file b; the result of `COPY a /a` (line 4) is that of another build";
    assert_eq!(found[0], of_another, "{found:?}");
}

/// The layers of a reproducible build carry constant times; those that a command sees stand in their indexes alone.
#[test]
fn a_command_never_sees_the_times_that_a_layer_was_given() {
    never_sees_the_times_that_a_layer_was_given("auto");
}

#[test]
fn nor_does_one_in_a_root_that_is_written_in_place() {
    never_sees_the_times_that_a_layer_was_given("r4");
}

fn never_sees_the_times_that_a_layer_was_given(isolation: &str) {
    let Some(place) = Place::new() else { return };
    fs::write(place.path("context/old"), "old\n").unwrap();
    fs::write(place.path("context/new"), "new\n").unwrap();
    // What was edited after something was made of what it was before.
    let edited = fs::File::options().write(true).open(place.path("context/new")).unwrap();
    edited.set_modified(SystemTime::now() + Duration::from_secs(3600)).unwrap();
    let build = |slow: &str, last: &str, arguments: &[&str]| {
        place.dockerfile(&format!(
            "FROM busybox AS slow\nRUN {slow}; touch /slow\n\
             FROM busybox\nCOPY old /source\nRUN cp /source /made\nCOPY new /source\nCOPY --from=slow /slow /slow\n\
             RUN {last}; [ /source -nt /made ] && cp /source /made; true\n"
        ));
        fs::read_to_string(
            place.files(&[&["--reproducible", "--isolation", isolation], arguments].concat()).join("made"),
        )
        .unwrap()
    };
    let layout = ["-o", "type=oci,tar=false,dest=layout"];
    assert_eq!(build("true", "echo 1", &layout), "new\n");
    // Only the indexes go, so that the blobs are still found, and nothing that was unpacked of them.
    prune(&place, &["--filter", "type=layer"]);
    prune(&place, &["--filter", "type=index"]);
    assert_eq!(build("true", "echo 2", &[]), "new\n");
    // All goes that the build does not hold, between finding the layers and unpacking them.
    prune(&place, &["--filter", "type=layer"]);
    let made = std::thread::scope(|scope| {
        let building = scope.spawn(|| build("sleep 2", "echo 3", &[]));
        while !building.is_finished() {
            std::thread::sleep(Duration::from_millis(500));
            prune(&place, &[]);
        }
        building.join().unwrap()
    });
    assert_eq!(made, "new\n");
    // Another machine begins with the image, whose layers have no other times there, and then builds what is in it.
    fs::remove_dir_all(place.path("store")).unwrap();
    place.dockerfile("FROM app\nRUN [ ! /source -nt /made ]\n");
    place.build(&["--build-context", "app=oci-layout://layout", "--isolation", isolation]);
    assert_eq!(build("true", "echo 1", &[]), "new\n");
}

/// Flips a bit of the largest blob below a size, and lets go of what was unpacked of it.
fn damage(place: &Place, at_most_bytes: u64) {
    let blobs = fs::read_dir(place.path("store/blobs/sha256")).unwrap().map(|blob| blob.unwrap().path());
    let size = |path: &PathBuf| fs::metadata(path).unwrap().len();
    let blob = blobs.filter(|blob| size(blob) < at_most_bytes).max_by_key(size).unwrap();
    let mut bytes = fs::read(&blob).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    fs::write(&blob, bytes).unwrap();
    prune(place, &["--filter", "type=layer"]);
}

#[test]
fn a_damaged_layer_fails_one_build_and_is_made_again_by_the_next() {
    let numbers: String = (0..60_000_u32).map(|number| format!("{number}\n")).collect();
    for compression in ["gzip", "zstd"] {
        let Some(place) = Place::new() else { return };
        fs::write(place.path("context/numbers"), &numbers).unwrap();
        let below_busybox = fs::metadata("/bin/busybox").unwrap().len() / 3;
        let arguments = ["--compression", compression, "-t", "app"];
        let dockerfile = |last: &str| place.dockerfile(&format!("FROM busybox\nCOPY numbers /numbers\nRUN {last}\n"));
        dockerfile("true");
        place.build(&arguments);
        damage(&place, below_busybox);
        dockerfile("wc -l /numbers");
        let refused = place.run(&arguments);
        let said = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(3), "{said}");
        assert!(
            said.contains("was damaged on disk") && said.contains("has been removed; run the command again"),
            "{said}"
        );
        let (_, said) = place.build(&arguments);
        assert!(said.contains("60000 /numbers"), "{said}");
    }
}

#[test]
fn a_command_that_fails_is_told_whatever_its_mounts_do() {
    let Some(place) = Place::new() else { return };
    place.dockerfile("FROM busybox\nRUN --mount=type=cache,target=/a --mount=type=cache,target=/b sleep 2; exit 7\n");
    let mounts = place.path("store/cache-mounts");
    let memories = || -> Vec<PathBuf> {
        let mounts = fs::read_dir(&mounts).into_iter().flatten().map(|mount| mount.unwrap().path().join("1/memory"));
        let mut memories: Vec<PathBuf> = mounts.filter(|memory| memory.exists()).collect();
        memories.sort();
        memories
    };
    let failed = std::thread::scope(|scope| {
        let building = scope.spawn(|| place.run(&[]));
        while memories().len() < 2 {
            assert!(!building.is_finished());
            std::thread::sleep(Duration::from_millis(20));
        }
        // What the build would write of the first when the command has ended cannot be written.
        fs::create_dir(memories()[0].with_file_name("memory.new")).unwrap();
        building.join().unwrap()
    });
    let said = String::from_utf8_lossy(&failed.stderr);
    assert_eq!(failed.status.code(), Some(1), "{said}");
    assert!(said.contains("the command exited with status 7"), "{said}");
    let is_running = |memory: &PathBuf| fs::read_to_string(memory).unwrap().contains("\nrunning ");
    assert_eq!(memories().iter().map(is_running).collect::<Vec<_>>(), [true, false]);
}
