//! Steps do not wait for downloads that they do not need; a download that is late changes nothing but the order.
//!
//! What comes first is told by what a server was asked: commands ask it too.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use super::place::Place;
use super::repositories::{Repositories, backend};
use super::server::{Asked, Reply, Server};
use super::terminal::on_a_terminal;

/// How long an answer waits for what must come before it. Where that never comes, the build fails, and so the test.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long an answer gives something that must not come the time to come.
const CHANCE: Duration = Duration::from_secs(3);

/// What happened, in order.
#[derive(Clone, Default)]
struct Log(Arc<(Mutex<Vec<String>>, Condvar)>);

impl Log {
    fn add(&self, what: &str) {
        self.0.0.lock().unwrap().push(what.to_owned());
        self.0.1.notify_all();
    }

    /// Waits for something to happen; says whether it did.
    fn waits_for(&self, what: &str, patience: Duration) -> bool {
        let log = self.0.0.lock().unwrap();
        let lacks = |log: &mut Vec<String>| !log.iter().any(|one| one == what);
        !self.0.1.wait_timeout_while(log, patience, lacks).unwrap().1.timed_out()
    }

    fn has(&self, what: &str) -> bool {
        self.waits_for(what, Duration::ZERO)
    }

    /// What happened since the last look.
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.0.lock().unwrap())
    }
}

/// A server whose files have a tag of their own, so that they are fetched once. `gate` is asked first, with the path; what it
/// gives is the answer.
fn server(log: &Log, gate: impl Fn(&Log, &str) -> Option<Reply> + Send + Sync + 'static) -> Server {
    let log = log.clone();
    Server::start(move |asked| {
        log.add(&asked.target);
        let reply = gate(&log, &asked.target).unwrap_or_else(|| file(asked));
        log.add(&format!("{} {}", asked.target, reply.status));
        reply
    })
}

/// A file that says its name.
fn file(asked: &Asked) -> Reply {
    let tag = format!("\"{}\"", asked.target);
    let status = if asked.header("if-none-match") == Some(&tag) { 304 } else { 200 };
    Reply::new(status, if status == 304 { "" } else { &asked.target }).header("ETag", &tag)
}

/// Holds the answer to `path` until `before` was asked for.
fn after(log: &Log, asked: &str, path: &str, before: &str) -> Option<Reply> {
    (asked == path && !log.waits_for(before, PATIENCE)).then(|| Reply::new(404, format!("nobody asked for {before}")))
}

/// A place with busybox in its context; `None`, with the reason told, where RUN is not possible.
fn place() -> Option<Place> {
    if !rustix::process::geteuid().is_root() || !Path::new("/bin/busybox").exists() {
        println!("skipped: RUN needs root and /bin/busybox here");
        return None;
    }
    let place = Place::new();
    place.write("context/busybox", std::fs::read("/bin/busybox").unwrap());
    Some(place)
}

/// Writes a Dockerfile of stages on busybox. In it `$ASK` is a command that asks the server for what follows, and `$U` is the
/// server.
fn dockerfile(place: &Place, server: &Server, text: &str) {
    let tools =
        "FROM scratch AS tools\nCOPY --chmod=755 busybox /bin/busybox\nSHELL [\"/bin/busybox\", \"sh\", \"-c\"]\n";
    let text = text.replace("$ASK ", "/bin/busybox wget -q -O - $U").replace("$U", &server.url(""));
    place.write("context/Dockerfile", format!("{tools}{text}"));
}

/// A stage that asks for `/ran`, and a result that takes from it and adds `/big`.
const BESIDE: &str =
    "FROM tools AS other\nRUN $ASK /ran > /ran\nFROM scratch\nADD $U/big /\nCOPY --from=other /ran /\n";

const BESIDE_FILES: [&str; 2] = ["f 600 0:0 /big /big", "f 644 0:0 /ran /ran"];

/// The names of all records but those that are only for people.
fn records(store: &Path) -> BTreeSet<String> {
    let names = std::fs::read_dir(store.join("records/1")).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| !name.starts_with("preimages-")).collect()
}

fn all_found(said: &str) -> bool {
    let steps =
        said.lines().filter(|line| line.starts_with('#') && line.contains("] ") && !line.contains("[internal]"));
    steps.filter_map(|title| title.split(' ').next()).all(|number| said.contains(&format!("\n{number} CACHED\n")))
}

#[test]
fn a_step_runs_while_what_it_does_not_need_is_on_its_way() {
    let Some(place) = place() else { return };
    let log = Log::default();
    let server = server(&log, |log, asked| after(log, asked, "/big", "/ran"));
    dockerfile(&place, &server, BESIDE);
    let built = place.build(&["context"]);
    assert_eq!(built.files, BESIDE_FILES, "{}", built.said);
    assert_eq!(log.take().iter().filter(|one| *one == "/big").count(), 1);
    log.add("/ran");
    let again = place.build(&["context"]);
    assert!(all_found(&again.said), "{}", again.said);
    assert_eq!((again.files, log.take()), (built.files, ["/ran", "/big", "/big 304"].map(str::to_owned).to_vec()));
    // All runs again, and need not wait for the file, which is brought again.
    let anew = place.build(&["--no-cache", "context"]);
    assert!(!anew.found("RUN") && log.take().contains(&"/big 200".to_owned()), "{}", anew.said);
}

#[test]
fn a_step_runs_while_a_repository_is_on_its_way() {
    let Some(place) = place() else { return };
    let (log, repositories) = (Log::default(), Repositories::new());
    repositories.commit("r", &[("tracked", "git")]);
    let (waiting, root) = (log.clone(), repositories.path(""));
    let server = Server::start(move |asked| {
        waiting.add(&asked.target);
        match asked.target.contains(".git") {
            true if !waiting.waits_for("/ran", PATIENCE) => Reply::new(404, "nobody ran"),
            true => backend(&root, asked),
            false => file(asked),
        }
    });
    dockerfile(&place, &server, &BESIDE.replace("/big", "/r.git"));
    let built = place.build(&["context"]);
    assert_eq!(built.files, ["f 644 0:0 /ran /ran", "f 644 0:0 /tracked git"], "{}", built.said);
    let again = place.build(&["context"]);
    assert!(all_found(&again.said), "{}", again.said);
}

#[test]
fn a_step_that_needs_one_file_does_not_wait_for_another() {
    let Some(place) = place() else { return };
    let log = Log::default();
    let server = server(&log, |log, asked| after(log, asked, "/slow", "/ran"));
    let text = "FROM tools AS one\nADD $U/fast /\nRUN $ASK /ran > /ran; /bin/busybox cat /fast >> /ran\n\
        FROM scratch\nADD $U/slow /\nCOPY --from=one /ran /\n";
    dockerfile(&place, &server, text);
    let built = place.build(&["context"]);
    assert_eq!(built.files, ["f 644 0:0 /ran /ran/fast", "f 600 0:0 /slow /slow"], "{}", built.said);
    assert!(all_found(&place.build(&["context"]).said));
}

#[test]
fn a_slow_answer_that_nothing_changed_starts_nothing() {
    let Some(place) = place() else { return };
    let log = Log::default();
    let is_slow = Arc::new(Mutex::new(false));
    let slow = is_slow.clone();
    let server = server(&log, move |log, asked| {
        if asked == "/big" && *slow.lock().unwrap() {
            log.waits_for("/ran", CHANCE);
        }
        None
    });
    dockerfile(&place, &server, BESIDE);
    let blobs = || -> BTreeSet<_> {
        let blobs = std::fs::read_dir(place.path("store/blobs/sha256")).unwrap();
        blobs.map(|entry| entry.unwrap().path()).collect()
    };
    place.build(&["--target", "tools", "context"]);
    let before = blobs();
    place.build(&["--target", "other", "context"]);
    let of_other: Vec<_> = blobs().difference(&before).cloned().collect();
    let built = place.build(&["context"]);
    // The command's layer is gone. Nothing needs it, as the result is known.
    for blob in of_other {
        std::fs::remove_file(blob).unwrap();
    }
    *is_slow.lock().unwrap() = true;
    log.take();
    let again = place.build(&["context"]);
    assert!(all_found(&again.said), "{}", again.said);
    assert_eq!((again.files, log.take()), (built.files, vec!["/big".to_owned(), "/big 304".to_owned()]));
}

#[test]
fn keys_do_not_tell_what_was_late() {
    let (Some(place), Some(other)) = (place(), place()) else { return };
    let log = Log::default();
    let is_slow = Arc::new(Mutex::new(true));
    let slow = is_slow.clone();
    let server = server(&log, move |log, asked| {
        if asked != "/big" || !*slow.lock().unwrap() {
            return None;
        }
        let reply = after(log, asked, "/big", "/first");
        // What sees a mount that a late command sees has no key yet.
        log.waits_for("/ran", CHANCE);
        reply
    });
    let text = "FROM tools AS first\nRUN --mount=type=cache,id=before,target=/c $ASK /first > /first; echo 1 > /c/f\n\
        FROM tools AS late\nADD $U/big /\nCOPY f /f\nRUN --mount=type=cache,id=c,target=/c --mount=target=/m \
        /bin/busybox cp /big /c/big; /bin/busybox cat /big /f /m/f > /all\n\
        FROM tools AS reader\nRUN --mount=type=cache,id=c,target=/c,readonly $ASK /ran > /ran; /bin/busybox cat /c/big >> /ran\n\
        FROM tools AS own\nRUN --mount=type=cache,id=c,target=/c,sharing=private \
        --mount=type=cache,id=before,target=/d,readonly /bin/busybox cat /d/f > /own\n\
        FROM scratch\nCOPY --from=first /first /\nCOPY --from=late /all /\nCOPY --from=reader /ran /\nCOPY --from=own /own /\n";
    let files = ["f 644 0:0 /all /bigff", "f 644 0:0 /first /first", "f 644 0:0 /own 1", "f 644 0:0 /ran /ran/big"];
    for place in [&place, &other] {
        place.write("context/f", "f");
        dockerfile(place, &server, text);
    }
    let late = place.build(&["context"]);
    let happened = log.take();
    let when = |what: &str| happened.iter().position(|one| one == what).unwrap();
    assert!(when("/first") < when("/big 200") && when("/big 200") < when("/ran"), "{happened:?}");
    *is_slow.lock().unwrap() = false;
    let fast = other.build(&["context"]);
    assert_eq!((&late.files[..], &fast.files[..]), (&files.map(str::to_owned)[..], &files.map(str::to_owned)[..]));
    assert_eq!(records(&place.path("store")), records(&other.path("store")));
    let again = place.build(&["context"]);
    assert!(all_found(&again.said), "{}", again.said);
}

#[test]
fn why_a_step_runs_again_is_told_of_late_ones_too() {
    let Some(place) = place() else { return };
    let log = Log::default();
    let server = server(&log, |log, asked| after(log, asked, "/big", "/ran"));
    let text = BESIDE.replace("ADD $U/big /\n", "ADD $U/big /\nCOPY f /\n");
    place.write("context/f", "1");
    dockerfile(&place, &server, &text);
    place.build(&["context"]);
    place.write("context/f", "2");
    dockerfile(&place, &server, &text.replace("> /ran", ">> /ran"));
    let said = place.build(&["--explain", "context"]).said;
    for why in ["`RUN /bin/busybox wget", "`COPY f /`: changed: file f", "command changed from"] {
        assert!(said.lines().any(|line| line.contains("runs again: ") && line.contains(why)), "{why}: {said}");
    }
    // A build that ends before it knows what late steps are made of keeps what was known of them.
    log.take();
    dockerfile(&place, &server, &text.replace("$ASK /ran > /ran", "$ASK /ran > /ran; exit 7"));
    place.fail(1, &["context"], None);
    dockerfile(&place, &server, &text.replace("> /ran", ">> /ran"));
    place.write("context/f", "3");
    let said = place.build(&["--explain", "context"]).said;
    assert!(said.contains("runs again: `COPY f /`: changed: file f"), "{said}");
}

#[test]
fn what_does_not_come_ends_the_build_while_a_step_runs() {
    let Some(place) = place() else { return };
    let log = Log::default();
    let server = server(&log, |log, asked| match asked {
        "/big" => Some(after(log, asked, "/big", "/ran").unwrap_or_else(|| Reply::new(404, ""))),
        _ => None,
    });
    dockerfile(&place, &server, &BESIDE.replace("> /ran", "> /ran; /bin/busybox sleep 1000"));
    let said = place.fail(1, &["context"], None);
    let errors: Vec<&str> = said.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(errors, [format!("error: cannot fetch {} (Dockerfile:7)", server.url("/big"))], "{said}");
    assert!(log.has("/ran"), "the command did not run beside it");
    // When both fail, both are told: the download first.
    log.take();
    dockerfile(&place, &server, &BESIDE.replace("> /ran", "> /ran; exit 7"));
    let said = place.fail(1, &["context"], None);
    let errors: Vec<&str> = said.lines().filter(|line| line.starts_with("error: ")).collect();
    assert!((1..=2).contains(&errors.len()) && !said.contains("interrupted"), "{said}");
    // And what cannot be planned does not hide it.
    dockerfile(&place, &server, "FROM scratch\nADD $U/big /\nCOPY absent /\n");
    let said = place.fail(1, &["context"], None);
    assert!(said.contains("error: cannot fetch ") && !said.contains("absent`"), "{said}");
    dockerfile(&place, &server, "FROM scratch\nADD $U/small /\nCOPY absent /\n");
    let said = place.fail(1, &["context"], None);
    assert!(said.contains("error: step `COPY absent /` failed"), "{said}");
}

#[test]
fn a_step_that_fails_ends_the_downloads() {
    let Some(place) = place() else { return };
    let log = Log::default();
    let server = server(&log, |log, asked| match asked {
        "/big" => {
            log.waits_for("the build is over", PATIENCE);
            None
        }
        _ => after(log, asked, "/ran", "/big"),
    });
    dockerfile(&place, &server, &BESIDE.replace("> /ran", "> /ran; exit 7"));
    let said = place.fail(1, &["context"], None);
    assert!(!log.has("/big 304"), "the build waited for what it did not need any more");
    log.add("the build is over");
    let errors: Vec<&str> = said.lines().filter(|line| line.starts_with("error: ")).collect();
    assert!(matches!(&errors[..], [one] if one.contains("exit 7` failed in stage `other` (Dockerfile:5)")), "{said}");
    assert!(said.contains("exited with status 7"), "{said}");
}

#[test]
fn a_registry_that_takes_no_image_ends_the_downloads() {
    let log = Log::default();
    let server = server(&log, |log, _| {
        log.waits_for("the build is over", PATIENCE);
        None
    });
    let registry = Server::start(|_| Reply::new(403, "{}"));
    let place = Place::new();
    place.write("context/Dockerfile", format!("FROM scratch\nADD {} /\n", server.url("/big")));
    let name = format!("{}/a:1", registry.address);
    let said = place.fail(1, &["--push", "-t", &name, "context"], None);
    assert!(!log.has("/big 304"), "{said}");
    log.add("the build is over");
    let errors: Vec<&str> = said.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(errors, [format!("error: cannot push {name}")], "{said}");
}

#[test]
fn an_interrupt_during_both_leaves_nothing() {
    let Some(place) = place() else { return };
    let log = Log::default();
    let server = server(&log, |log, asked| {
        if asked == "/big" && !log.has("again") {
            log.waits_for("the build is over", PATIENCE);
        }
        None
    });
    dockerfile(&place, &server, &BESIDE.replace("> /ran", "> /ran; test -e /again || /bin/busybox sleep 4712"));
    let mut child: Child = place.command(&["context"]).stderr(Stdio::null()).spawn().unwrap();
    assert!(log.waits_for("/big", PATIENCE) && log.waits_for("/ran 200", PATIENCE));
    let id = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(!log.has("/big 304"));
    log.add("the build is over");
    let sleeps = |entry: std::fs::DirEntry| {
        std::fs::read(entry.path().join("cmdline")).is_ok_and(|line| line.ends_with(b"sleep\x004712\0"))
    };
    assert!(!std::fs::read_dir("/proc").unwrap().flatten().any(sleeps));
    let left: Vec<_> =
        std::fs::read_dir(place.path("store/tmp")).unwrap().flatten().map(|entry| entry.path()).collect();
    assert!(left.is_empty(), "{left:?}");
}

/// Builds on a terminal, where the download of `/big` is answered once each of these was seen.
fn seen_while_late(place: &Place, log: &Log, server: &Server, expected: &[&str]) -> (Option<i32>, String) {
    let expected: Vec<String> =
        expected.iter().map(|text| text.replace("$BIG", &server.url("/big").replace("//", "//...@"))).collect();
    let (log, mut is_seen) = (log.clone(), false);
    let seen = move |text: &str| {
        if !is_seen && expected.iter().all(|one| text.contains(one)) {
            is_seen = true;
            log.add("seen");
        }
    };
    let mut command = place.command_showing("tty", &["context"]);
    command.env("TERM", "xterm-256color").env("NO_COLOR", "1");
    let (code, _, drawn) = on_a_terminal(command, seen);
    assert!(!drawn.contains("secret") && !drawn.contains("[address"), "{drawn}");
    (code, drawn)
}

#[test]
fn a_terminal_names_the_download_that_steps_wait_for() {
    let Some(place) = place() else { return };
    let log = Log::default();
    let server = server(&log, |log, asked| after(log, asked, "/big", "seen"));
    let add = |text: &str| text.replace("$BIG", &server.url("/big").replace("//", "//u:secret@"));
    // `sharer` needs nothing of the download, and sees the mount of a command that does.
    let text = "FROM tools AS late\nADD $BIG /big\nRUN --mount=type=cache,id=c,target=/c /bin/busybox true\n\
        FROM tools AS sharer\nRUN --mount=type=cache,id=c,target=/c /bin/busybox true > /s\n\
        FROM scratch\nCOPY --from=late /big /\nCOPY --from=sharer /s /\n";
    dockerfile(&place, &server, &add(text));
    let expected = [
        "[late 1/2] waits for $BIG",
        "[late 2/2] waits for [late 1/2]",
        "[sharer 1/1] waits for $BIG",
        "[stage-3 1/2] waits for [late 2/2]",
        "[stage-3 2/2] waits for [sharer 1/1], [stage-3 1/2]",
    ];
    let (code, drawn) = seen_while_late(&place, &log, &server, &expected);
    assert_eq!(code, Some(0), "{drawn}");
    // All is found then, if the file is still that one.
    log.take();
    let (code, drawn) = seen_while_late(&place, &log, &server, &expected);
    assert_eq!(code, Some(0), "{drawn}");
    // A step that cannot be planned holds back all others while it is not known whether the download fails too.
    log.take();
    dockerfile(&place, &server, &add("FROM scratch\nCOPY f /\nCOPY absent /\nADD $BIG /big\n"));
    place.write("context/f", "f");
    let expected = ["[stage-1 1/3] waits for $BIG", "[stage-1 2/3] waits for [stage-1 1/3]"];
    let (code, drawn) = seen_while_late(&place, &log, &server, &expected);
    assert!(code == Some(1) && log.has("/big 304") && drawn.contains("`COPY absent /` failed"), "{code:?} {drawn}");
}

#[test]
fn a_file_that_is_changed_during_a_download_fails_the_step_that_takes_it() {
    let Some(place) = place() else { return };
    let log = Log::default();
    let server = server(&log, |log, asked| after(log, asked, "/big", "changed"));
    let take = ["COPY f /f", "ADD f /f/", "RUN --mount=target=/m /bin/busybox cp /m/f /f"];
    let archive = {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(3);
        tar.append_data(&mut header, "in", &b"old"[..]).unwrap();
        tar.into_inner().unwrap()
    };
    for (take, mode) in take.iter().flat_map(|take| [(take, &[][..]), (take, &["--reproducible"])]) {
        let file = place.path("context/f");
        let changes: [(&str, &dyn Fn()); 4] = [
            ("found no file", &|| std::fs::remove_file(&file).unwrap()),
            ("found no regular file", &|| {
                std::fs::remove_file(&file).unwrap();
                std::fs::create_dir(&file).unwrap();
            }),
            ("found blake3:", &|| {
                let mut bytes = archive.clone();
                bytes[512] = b'n';
                std::fs::write(&file, bytes).unwrap();
            }),
            ("", &|| {}),
        ];
        for (found, change) in changes {
            let _ = std::fs::remove_dir(&file);
            place.write("context/f", &archive);
            // A command runs once all is planned.
            let text = "FROM tools AS other\nRUN $ASK /ran > /ran\nFROM tools\nADD $U/big /\n$TAKE\nCOPY --from=other /ran /\n";
            dockerfile(&place, &server, &text.replace("$TAKE", take));
            log.take();
            let said = std::thread::scope(|scope| {
                let build = scope.spawn(|| place.run(&[&["--no-cache", "context"], mode].concat(), None));
                assert!(log.waits_for("/ran", PATIENCE));
                change();
                log.add("changed");
                let output = build.join().unwrap();
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                assert_eq!(
                    output.status.code(),
                    Some(i32::from(!found.is_empty())),
                    "{take}, {mode:?}, {found}: {said}"
                );
                said
            });
            let told = said.lines().find(|line| line.starts_with("caused by: ")).unwrap_or_default();
            let expected = format!("caused by: {} changed while the image was built: ", file.display());
            let is_told =
                told.starts_with(&expected) && told.contains(found) && told.ends_with("; run the build again");
            assert!(
                found.is_empty() || is_told && said.contains("(Dockerfile:8)"),
                "{take}, {mode:?}, {found}: {said}"
            );
        }
    }
}
