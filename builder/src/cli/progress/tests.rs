//! Each view on a recorded build: two stages at the same time, a cached step, transfers, a warning, and a step that fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;

use super::*;
use crate::event::{Origin, Stream};

const DOCKERFILE: &str = "FROM alpine AS tools\nRUN fetch tools\n\nFROM alpine AS build\nCOPY . /src\nRUN --mount=type=bind,from=tools make -C /src \\\n      all\n";

fn step(number: u32) -> StepId {
    StepId(number)
}

fn planned(number: u32, name: &str, lines: (usize, usize), needs: &[u32]) -> Event {
    let origin = Origin {
        instruction: name.split("] ").nth(1).unwrap_or(name).to_owned(),
        stage: None,
        first_line: lines.0,
        last_line: lines.1,
    };
    let needs = needs.iter().map(|number| step(*number)).collect();
    Event::Planned { step: step(number), name: name.to_owned(), origin, needs }
}

fn started(number: u32, name: &str) -> Event {
    Event::Started { step: step(number), name: name.to_owned() }
}

fn output(number: u32, text: &str) -> Event {
    Event::Output { step: step(number), stream: Stream::Stdout, bytes: text.as_bytes().to_vec() }
}

fn moved(number: u32, done_bytes: u64) -> Event {
    let what = "pulling sha256:1b2c3d4e5f60718293a4b5c6d7e8f9000102030405060708090a0b0c0d0e0f10".to_owned();
    Event::Moved { step: step(number), what, done_bytes, total_bytes: Some(40_000_000) }
}

/// Milliseconds, and what happened.
fn recorded() -> Vec<(u64, Event)> {
    let (load, tools, copy, make) = (
        "[internal] load the Dockerfile and the ignore rules",
        "[tools 2/2] RUN fetch tools",
        "[build 2/3] COPY . /src",
        "[build 3/3] RUN --mount=type=bind,from=tools make -C /src all",
    );
    vec![
        (0, started(1, load)),
        (
            4,
            Event::Dockerfile {
                name: "Dockerfile".to_owned(),
                path: "app/Dockerfile".to_owned(),
                text: DOCKERFILE.to_owned(),
            },
        ),
        (5, Event::Finished { step: step(1) }),
        (
            5,
            Event::Check {
                rule: Some("UndefinedVar"),
                text: "usage of an undefined variable `$FLAGS`".to_owned(),
                hint: Some("declare it with ARG".to_owned()),
                detail: "Variables should be defined before their use",
                url: "https://docs.docker.com/go/dockerfile/rule/undefined-var/".to_owned(),
                file: "Dockerfile".to_owned(),
                first_line: 6,
                last_line: 7,
            },
        ),
        (6, planned(2, tools, (2, 2), &[])),
        (6, planned(3, copy, (5, 5), &[])),
        (6, planned(4, make, (6, 7), &[2, 3])),
        (7, Event::Waiting { step: step(4), on: vec![step(2), step(3)] }),
        (8, started(2, tools)),
        (8, started(3, copy)),
        (9, Event::Cached { step: step(3) }),
        (9, Event::Finished { step: step(3) }),
        (10, Event::Waiting { step: step(4), on: vec![step(2)] }),
        (100, moved(2, 1_000_000)),
        (150, moved(2, 9_000_000)),
        (900, moved(2, 40_000_000)),
        (1000, output(2, "fetching\n10%\r50%\r100%\n\u{1b}[32mgreen\u{1b}[0m and wi")),
        (1200, output(2, "de: 汉字\nno end")),
        (1500, Event::Finished { step: step(2) }),
        (1501, started(4, make)),
        (1700, output(4, "cc -c a.c\n")),
        (1800, output(4, "a.c:1: error: expected `;`\nmake: *** [a.o] Error 1\n")),
        (1900, Event::Failed { step: step(4), error: "the command exited with status 2".to_owned() }),
    ]
}

/// Plays a record to a view, with ticks between, and gives what it wrote.
fn played(view: Box<dyn View>, record: &[(u64, Event)], until: Option<u64>) -> String {
    played_with(view, None, record, until)
}

fn played_with(mut view: Box<dyn View>, log: Option<Log>, record: &[(u64, Event)], until: Option<u64>) -> String {
    let text = Arc::new(Mutex::new(String::new()));
    let sink = text.clone();
    let mut now = 0;
    let view_end = until.is_none();
    let write = move |piece: &str| sink.lock().unwrap().push_str(piece);
    let mut state = State {
        book: Book::default(),
        view: std::mem::replace(&mut view, Box::new(quiet::Quiet::default())),
        log,
        write: Box::new(write),
        over: false,
    };
    let at = |ms: u64| Duration::from_millis(ms);
    for (ms, event) in record.iter().take_while(|(ms, _)| until.is_none_or(|until| *ms <= until)) {
        while now + 100 <= *ms {
            now += 100;
            state.tick(at(now));
        }
        state.hear(at(*ms), event);
    }
    if view_end {
        state.end(at(record.last().map_or(0, |(ms, _)| *ms)));
    } else {
        state.tick(at(until.unwrap_or_default()));
        text.lock().unwrap().clear();
        state.tick(at(until.unwrap_or_default()));
    }
    let text = text.lock().unwrap();
    text.clone()
}

/// Escape sequences made visible.
fn visible(text: &str) -> String {
    text.replace('\u{1b}', "␛").replace('\r', "␍")
}

#[test]
fn plain() {
    insta::assert_snapshot!(visible(&played(Box::new(plain::Plain::new(true)), &recorded(), None)));
}

#[test]
fn quiet() {
    insta::assert_snapshot!(played(Box::new(quiet::Quiet::default()), &recorded(), None));
    let mut good = recorded();
    good.pop();
    good.push((1900, Event::Finished { step: step(4) }));
    assert_eq!(played(Box::new(quiet::Quiet::default()), &good, None), "");
}

#[test]
fn rawjson() {
    let began = Timestamp::from_second(1_800_000_000).unwrap();
    let text = played(Box::new(rawjson::RawJson::new(began)), &recorded(), None);
    for line in text.lines() {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(value.as_object().unwrap().len(), 1, "{line}");
    }
    insta::assert_snapshot!(text);
}

#[test]
fn github() {
    let service = Service::GitHub { workspace: "/w".to_owned(), below: "sub".to_owned() };
    insta::assert_snapshot!(played(Box::new(Groups::new(service, false)), &recorded(), None));
}

#[test]
fn gitlab() {
    let service = Service::GitLab { began_s: 1_800_000_000 };
    insta::assert_snapshot!(visible(&played(Box::new(Groups::new(service, false)), &recorded(), None)));
}

fn terminal(columns: usize, rows: usize, colour: bool) -> Box<dyn View> {
    Box::new(tty::Terminal::new(colour, move || tty::Size { columns, rows }))
}

#[test]
fn a_terminal_in_the_middle_of_a_build() {
    insta::assert_snapshot!(visible(&played(terminal(80, 24, false), &recorded(), Some(150))));
}

#[test]
fn a_terminal_names_the_download_that_a_step_waits_for() {
    let (fetch, add) =
        ("[internal] fetch https://u:...@example.org/a/tool-1.2.3.tar.gz", "[late 1/2] ADD --unpack https://u:...@");
    let (run, other) = ("[late 2/2] RUN make", "[both 1/1] RUN --mount=type=cache,target=/c make");
    let moved = |number, what: &str, done_bytes, total_bytes| {
        (50, Event::Moved { step: step(number), what: what.to_owned(), done_bytes, total_bytes })
    };
    let record = vec![
        (0, started(1, fetch)),
        (0, started(2, "[internal] fetch https://example.org/b.git")),
        (1, planned(3, add, (2, 2), &[1])),
        (1, planned(4, run, (3, 3), &[3])),
        (1, planned(5, other, (5, 5), &[])),
        (1, planned(6, "[last 1/1] ADD https://example.org/b.git", (7, 7), &[2])),
        (2, Event::Waiting { step: step(3), on: vec![step(1)] }),
        (2, Event::Waiting { step: step(4), on: vec![step(3)] }),
        (2, Event::Waiting { step: step(5), on: vec![step(1), step(2)] }),
        (2, Event::Waiting { step: step(6), on: vec![step(2)] }),
        moved(1, "https://u:...@example.org/a/tool-1.2.3.tar.gz", 9_000_000, Some(40_000_000)),
    ];
    insta::assert_snapshot!(visible(&played(terminal(100, 24, false), &record, Some(150))));
}

#[test]
fn a_warning_that_the_end_does_not_repeat_says_its_hint() {
    let check = Event::Check {
        rule: None,
        text: "build argument `VERSON` is not used".to_owned(),
        hint: Some("did you mean `VERSION`?".to_owned()),
        detail: "",
        url: String::new(),
        file: "Dockerfile".to_owned(),
        first_line: 0,
        last_line: 0,
    };
    let service = Service::GitHub { workspace: String::new(), below: String::new() };
    let views: [Box<dyn View>; 3] =
        [Box::new(plain::Plain::new(false)), terminal(100, 24, false), Box::new(Groups::new(service, false))];
    for view in views {
        let said = played(view, &[(0, check.clone())], None);
        assert!(said.contains("build argument `VERSON` is not used; did you mean `VERSION`?"), "{said}");
    }
}

#[test]
fn what_waits_leaves_a_small_terminal_to_what_runs() {
    let mut record: Vec<_> =
        (2..12).map(|number| (0, planned(number, &format!("[b {number}/11] RUN x"), (3, 3), &[1]))).collect();
    record.push((1, started(1, "[b 1/11] RUN make")));
    record.push((2, output(1, "one\ntwo\nthree\nfour\nfive\nsix\nseven\n\r42%")));
    let said = played(terminal(60, 12, false), &record, Some(150));
    let frame = said.rsplit("\u{1b}[?2026h").next().unwrap_or_default();
    assert!(frame.contains("│ seven") && frame.contains("│ 42%") && frame.contains("│ four"), "{frame}");
    assert!(frame.contains("and 8 more that wait"), "{frame}");
}

#[test]
fn annotations_name_the_dockerfile_as_the_repository_does() {
    let said = |path: &str, event: Event| {
        let service = Service::GitHub { workspace: "/w".to_owned(), below: "sub".to_owned() };
        let file = Event::Dockerfile { name: "Dockerfile".to_owned(), path: path.to_owned(), text: String::new() };
        played(Box::new(Groups::new(service, false)), &[(0, file), (0, event)], None)
    };
    let refused = || Event::Refused { text: "unknown instruction `RUNN`".to_owned(), first_line: 2, last_line: 3 };
    for (path, named) in [
        ("../f/Dockerfile", " file=f/Dockerfile,line=2,endLine=3"),
        ("./Dockerfile", " file=sub/Dockerfile,line=2,endLine=3"),
        ("/w/a/../Dockerfile", " file=Dockerfile,line=2,endLine=3"),
        ("../../Dockerfile", ""),
        ("", ""),
    ] {
        assert_eq!(said(path, refused()), format!("::error{named}::unknown instruction `RUNN`\n"), "{path}");
    }
}

#[test]
fn a_terminal_in_colour_at_the_end() {
    let text = visible(&played(terminal(60, 24, true), &recorded(), None));
    insta::assert_snapshot!(text.rsplit("␛[?2026h").next().unwrap_or_default());
}

#[test]
fn lines_never_reach_the_terminals_width_nor_leave_its_height() {
    for columns in [1, 2, 8, 20, 80] {
        for rows in [1, 2, 3, 5, 24] {
            for until in [5, 8, 150, 1200, 1800] {
                let text = played(terminal(columns, rows, false), &recorded(), Some(until));
                let frame = text.rsplit("A\r").next().unwrap().replace("\u{1b}[K", "").replace("\u{1b}[J", "");
                let frame = frame.replace("\u{1b}[?2026l", "").replace("\u{1b}[?2026h", "");
                let lines: Vec<&str> = frame.lines().collect();
                assert!(lines.len() < rows.max(2), "{columns}x{rows} at {until}: {frame}");
                assert!(
                    lines.iter().all(|line| text::width(line) < columns.max(2)),
                    "{columns}x{rows} at {until}: {frame}"
                );
            }
        }
    }
}

#[test]
fn a_terminal_that_became_narrower_is_cleared_of_the_broken_lines() {
    let columns = Arc::new(AtomicUsize::new(80));
    let seen = columns.clone();
    let mut view = tty::Terminal::new(false, move || tty::Size { columns: seen.load(Ordering::Relaxed), rows: 24 });
    let mut book = Book::default();
    book.hear(Duration::ZERO, &started(1, "[1/1] RUN something"));
    view.tick(&book, Duration::ZERO);
    columns.store(40, Ordering::Relaxed);
    let text = view.tick(&book, Duration::ZERO);
    // Two lines of 79 columns, each now broken into two.
    assert!(
        text.starts_with("\u{1b}[?2026h\u{1b}[4A\r") && text.ends_with("\u{1b}[J\u{1b}[?2026l"),
        "{}",
        visible(&text)
    );
}

#[test]
fn the_timeline_has_a_row_a_step() {
    let mut book = Book::default();
    for (ms, event) in recorded() {
        book.hear(Duration::from_millis(ms), &event);
    }
    let text = String::from_utf8(timeline::timeline(&book, Duration::from_millis(1900))).unwrap();
    insta::assert_snapshot!(text.replace("},{", "},\n{"));
}

#[test]
fn a_log_is_named_only_where_there_is_one() {
    let lines: String = (0..book::TAIL_LINES + 7).map(|line| format!("line {line}\n")).collect();
    let record = [
        (0, planned(1, "[1/1] RUN something", (2, 2), &[])),
        (0, started(1, "[1/1] RUN something")),
        (100, output(1, &lines)),
        (200, Event::Failed { step: step(1), error: "it failed".to_owned() }),
    ];
    let folder = tempfile::tempdir().unwrap();
    let log = Log::begin(folder.path(), Timestamp::UNIX_EPOCH).unwrap();
    for (log, expected) in
        [(Some(log), "   ... 7 earlier lines are in the log\n"), (None, "   ... 7 earlier lines are not kept\n")]
    {
        let text = played_with(Box::new(quiet::Quiet::default()), log, &record, None);
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn several_failures_are_each_shown() {
    let mut record = recorded();
    record.retain(|(_, event)| *event != Event::Finished { step: step(2) });
    record.push((1950, Event::Failed { step: step(2), error: "no network".to_owned() }));
    let text = played(Box::new(plain::Plain::new(false)), &record, None);
    assert!(text.contains(" > [tools 2/2] RUN fetch tools:") && text.contains("   2 | >>> RUN fetch tools"), "{text}");
    assert!(text.contains(" > [build 3/3] RUN") && text.contains("   7 | >>>       all"), "{text}");
}

#[test]
fn a_step_that_is_stopped_says_that_another_one_failed() {
    let failed = Event::Failed { step: step(1), error: "exit 1".to_owned() };
    let mut record = vec![(0, started(1, "one")), (0, started(2, "two")), (10, failed)];
    record.push((510, Event::Stopped { step: step(2) }));
    let said = played(Box::new(plain::Plain::new(false)), &record, None);
    assert!(said.contains("#2 CANCELED: another step failed\n"), "{said}");
    let said = played(terminal(80, 24, false), &record, None);
    assert!(said.contains("stopped: another step failed"), "{said}");
    // The user stopped it.
    record.remove(2);
    let said = played(Box::new(plain::Plain::new(false)), &record, None);
    assert!(said.contains("#2 CANCELED\n"), "{said}");
}

#[test]
fn the_step_that_has_the_word_gives_it_up_when_silent_and_takes_it_again() {
    let record = vec![
        (0, started(1, "one")),
        (0, started(2, "two")),
        (10, output(1, "1a\n")),
        (20, output(2, "2a\n")),
        (30, output(1, "1b\n")),
        (6000, output(2, "2b\n")),
        (6100, output(1, "1c\n")),
        (6200, Event::Finished { step: step(2) }),
        (6300, Event::Finished { step: step(1) }),
    ];
    let service = Service::GitHub { workspace: String::new(), below: String::new() };
    insta::assert_snapshot!(played(Box::new(Groups::new(service, false)), &record, None), @r"
    ::group::#1 one
    #1 0.010 1a
    #1 0.030 1b
    ::endgroup::
    ::group::#2 two
    #2 0.020 2a
    #2 6.000 2b
    ::endgroup::
    #2 DONE 6.2s

    ::group::#1 one (continued)
    #1 6.100 1c
    ::endgroup::
    #1 DONE 6.3s
    ");
}

#[test]
fn a_program_in_a_group_cannot_speak_to_the_service() {
    let record = vec![
        (0, started(1, "::set-env name=A::b")),
        (10, output(1, "::error::x\n::endgroup::\n")),
        (20, Event::Warning { text: "50% of\nit".to_owned() }),
        (30, Event::Finished { step: step(1) }),
    ];
    let service = Service::GitHub { workspace: String::new(), below: String::new() };
    let text = played(Box::new(Groups::new(service, false)), &record, None);
    let commands: Vec<&str> = text.lines().filter(|line| line.starts_with("::")).collect();
    assert_eq!(commands, ["::group::#1 ::set-env name=A::b", "::endgroup::", "::warning::50%25 of%0Ait"]);
}

/// Threads that print at once, in pieces of any size.
#[test]
fn lines_of_steps_that_print_at_once_are_never_torn() {
    let views: [Box<dyn View>; 2] = [
        Box::new(plain::Plain::new(false)),
        Box::new(Groups::new(Service::GitHub { workspace: String::new(), below: String::new() }, false)),
    ];
    for view in views {
        let text = Arc::new(Mutex::new(String::new()));
        let sink = text.clone();
        let folder = tempfile::tempdir().unwrap();
        let log = Log::begin(folder.path(), Timestamp::UNIX_EPOCH).unwrap();
        let path = log.path().to_owned();
        let reporter = Arc::new(Reporter::new(view, Some(log), move |piece| sink.lock().unwrap().push_str(piece)));
        let threads: Vec<_> = (1..=4)
            .map(|number| {
                let reporter = reporter.clone();
                std::thread::spawn(move || {
                    reporter.hear(started(number, &format!("step {number}")));
                    let all: String = (0..300).map(|line| format!("<{number}:{line}>\n")).collect();
                    let mut rest = all.as_bytes();
                    let mut size = usize::try_from(number).unwrap();
                    while !rest.is_empty() {
                        size = size * 7 % 31 + 1;
                        let (piece, after) = rest.split_at(size.min(rest.len()));
                        rest = after;
                        reporter.hear(output(number, std::str::from_utf8(piece).unwrap()));
                    }
                    reporter.hear(Event::Finished { step: step(number) });
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        reporter.end();
        for said in [text.lock().unwrap().clone(), std::fs::read_to_string(path).unwrap()] {
            for number in 1..=4 {
                let found: Vec<String> = said
                    .lines()
                    .filter(|line| line.starts_with(&format!("#{number} ")))
                    .filter_map(|line| line.split(' ').nth(2).filter(|word| word.starts_with('<')).map(str::to_owned))
                    .collect();
                let expected: Vec<String> = (0..300).map(|line| format!("<{number}:{line}>")).collect();
                assert_eq!(found, expected);
            }
        }
    }
}

proptest! {
    /// However the output of two steps is cut into pieces and mixed, each line comes out whole, in order, with its step.
    #[test]
    fn mixed_pieces_give_whole_lines(pieces in proptest::collection::vec((1u32..3, "[a-z]{0,6}\n?[a-z]{0,3}"), 1..40)) {
        let mut record = vec![(0, started(1, "one")), (0, started(2, "two"))];
        record.extend(pieces.iter().map(|(number, text)| (1, output(*number, text))));
        record.extend([(2, Event::Finished { step: step(1) }), (2, Event::Finished { step: step(2) })]);
        for view in [Box::new(plain::Plain::new(false)) as Box<dyn View>, Box::new(Groups::new(Service::GitHub { workspace: String::new(), below: String::new() }, false))] {
            let said = played(view, &record, None);
            for number in 1u32..3 {
                let all: String = pieces.iter().filter(|(of, _)| *of == number).map(|(_, text)| text.as_str()).collect();
                let expected: Vec<&str> = all.lines().collect();
                let found: Vec<&str> = said
                    .lines()
                    .filter_map(|line| line.strip_prefix(&format!("#{number} 0.00")))
                    .map(|line| line.get(2..).unwrap_or_default())
                    .collect();
                prop_assert_eq!(found, expected);
            }
        }
    }
}
