//! What the language refuses, with the place and the way out.

use proptest::prelude::*;

use super::*;

#[test]
fn nothing_to_build() {
    insta::assert_snapshot!(outline(""), @"error 1:1-1:1: file with no instructions (a Dockerfile begins with `FROM`)");
    insta::assert_snapshot!(outline("\n# only a comment\n\n"), @"error 4:1-4:1: file with no instructions (a Dockerfile begins with `FROM`)");
    insta::assert_snapshot!(outline("ARG A=1\n"), @r#"
    1 ARG "A"="1"
    error 2:1-2:1: dockerfile contains no stages to build (add a `FROM`)
    "#);
    insta::assert_snapshot!(outline("RUN x\nCOPY a b\n"), @"error 1:1-1:6: `RUN` stands before any `FROM` (only `ARG` may; a stage begins with `FROM IMAGE` or `FROM scratch`)");
}

#[test]
fn unknown_instructions() {
    insta::assert_snapshot!(outline("FROM a\nRUNN x\ncoyp a b\nENTRYPIONT x\n&& make\nxyzzy\nRUN\u{a0}x\n"), @r#"
    1 FROM "a"
    error 2:1-2:5: unknown instruction `RUNN` (did you mean `RUN`?)
    error 3:1-3:5: unknown instruction `coyp` (did you mean `COPY`?)
    error 4:1-4:11: unknown instruction `ENTRYPIONT` (did you mean `ENTRYPOINT`?)
    error 5:1-5:3: unknown instruction `&&` (a line that continues the one before it needs a `\` at the end of that one)
    error 6:1-6:6: unknown instruction `xyzzy` (a line that continues the one before it needs a `\` at the end of that one)
    error 7:1-7:6: unknown instruction `RUN x` (a blank in it is a no-break space or another special one: type a plain one)
    "#);
}

#[test]
fn missing_and_surplus_arguments() {
    let text = concat!(
        "FROM\nFROM a b\nFROM a AS\nFROM a AS 1x\nFROM a AS b c\n",
        "ADD\nADD x\nARG\nARG =x\nCMD\nCOPY\nCOPY x\nCOPY [\"x\"]\nCOPY []\nENTRYPOINT\nENV\nENV A\nENV A=1 B\nENV =x\nEXPOSE\n",
        "HEALTHCHECK\nHEALTHCHECK CMD\nHEALTHCHECK CMD []\nHEALTHCHECK NONE x\nHEALTHCHECK XMD y\nLABEL\nLABEL a\n",
        "MAINTAINER\nONBUILD\nONBUILD FROM a\nONBUILD ONBUILD RUN x\nONBUILD maintainer x\nONBUILD RUN\nRUN\nRUN []\n",
        "SHELL\nSHELL []\nSHELL /bin/bash -c\nSTOPSIGNAL\nUSER\nVOLUME\nVOLUME [\" \"]\nWORKDIR\n",
    );
    insta::assert_snapshot!(outline(text), @r#"
    1 FROM ""
    2 FROM "a"
    3 FROM "a"
    4 FROM "a" as 1x
    5 FROM "a"
    10 CMD ""
    15 ENTRYPOINT ""
    33 ONBUILD RUN "" stored "RUN"
    34 RUN ""
    error 1:1-1:5: `FROM` takes `IMAGE` or `IMAGE AS NAME`
    error 2:1-2:5: `FROM` takes `IMAGE` or `IMAGE AS NAME`
    error 3:1-3:5: `FROM` takes `IMAGE` or `IMAGE AS NAME`
    error 4:11-4:13: invalid name for a build stage: `1x` (a name starts with a letter and holds letters, digits, `-`, `_` and `.`)
    error 5:1-5:5: `FROM` takes `IMAGE` or `IMAGE AS NAME`
    error 6:1-6:4: `ADD` requires at least two arguments: sources and a destination
    error 7:5-7:6: `ADD` requires at least two arguments, but only one was provided: destination could not be determined
    error 8:1-8:4: `ARG` requires at least one argument
    error 9:5-9:7: `ARG` names can not be blank
    error 11:1-11:5: `COPY` requires at least two arguments: sources and a destination
    error 12:6-12:7: `COPY` requires at least two arguments, but only one was provided: destination could not be determined
    error 13:6-13:11: `COPY` requires at least two arguments, but only one was provided: destination could not be determined
    error 14:1-14:5: `COPY` requires at least two arguments: sources and a destination
    error 16:1-16:4: `ENV` requires at least one argument
    error 17:5-17:6: `ENV` must have two arguments (write `ENV KEY=VALUE`)
    error 18:9-18:10: can't find `=` in `B` (`ENV` takes `KEY=VALUE`; put a value with blanks in quotes)
    error 19:5-19:7: `ENV` names can not be blank
    error 20:1-20:7: `EXPOSE` requires at least one argument
    error 21:1-21:12: `HEALTHCHECK` requires at least one argument
    error 22:13-22:16: missing command after `HEALTHCHECK CMD`
    error 23:13-23:19: missing command after `HEALTHCHECK CMD`
    error 24:18-24:19: `HEALTHCHECK NONE` takes no arguments
    error 25:13-25:18: unknown type `XMD` in `HEALTHCHECK`: expected `CMD` or `NONE`
    error 26:1-26:6: `LABEL` requires at least one argument
    error 27:7-27:8: `LABEL` must have two arguments (write `LABEL KEY=VALUE`)
    error 28:1-28:11: `MAINTAINER` requires exactly one argument
    error 29:1-29:8: `ONBUILD` requires at least one argument
    error 30:9-30:13: `FROM` isn't allowed as an `ONBUILD` trigger
    error 31:9-31:16: `ONBUILD` cannot hold another `ONBUILD`
    error 32:9-32:19: `MAINTAINER` isn't allowed as an `ONBUILD` trigger
    error 35:1-35:4: `RUN` has no command
    error 36:1-36:6: `SHELL` requires at least one argument
    error 37:1-37:6: `SHELL` requires at least one argument
    error 38:7-38:19: `SHELL` requires its arguments as a JSON array of texts (for example `SHELL ["/bin/bash", "-c"]`)
    error 39:1-39:11: `STOPSIGNAL` requires exactly one argument
    error 40:1-40:5: `USER` requires exactly one argument
    error 41:1-41:7: `VOLUME` requires at least one argument
    error 42:8-42:13: `VOLUME` names an empty path
    error 43:1-43:8: `WORKDIR` requires exactly one argument
    "#);
    for name in ["ARG", "ENV", "LABEL"] {
        let problems = parse(&format!("FROM a\n{name} \\ \\")).1;
        assert_eq!(problems[0].message, format!("`{name}` requires at least one argument"));
    }
}

#[test]
fn json_of_something_else_than_texts() {
    insta::assert_snapshot!(outline("FROM a\nRUN [\"a\", 1]\nCOPY [1, 2]\nSHELL [null]\nCMD [[\"a\"]]\n"), @r#"
    1 FROM "a"
    error 2:5-2:13: when using JSON array syntax, arrays must be comprised of strings only
    error 3:6-3:12: when using JSON array syntax, arrays must be comprised of strings only
    error 4:7-4:13: `SHELL` requires its arguments as a JSON array of texts (for example `SHELL ["/bin/bash", "-c"]`)
    error 5:5-5:12: when using JSON array syntax, arrays must be comprised of strings only
    "#);
}

#[test]
fn flags_that_are_wrong() {
    let text = concat!(
        "FROM --platfrom=x a\nCOPY --form=a x y\nCOPY --chown x y\nCOPY --from=a --from=b x y\nCOPY --link=maybe x y\n",
        "ADD --from=a x y\nRUN --mnt=x y\nCMD --x y\nCOPY --checksum=x a b\nRUN --network y\n",
        "HEALTHCHECK --interval=5 --retries=-1 CMD x\nHEALTHCHECK --timeout=1us CMD x\nHEALTHCHECK --retries=x CMD x\n",
    );
    insta::assert_snapshot!(outline(text), @r#"
    1 FROM "a"
    2 COPY "x" -> "y"
    3 COPY "x" -> "y"
    4 COPY "x" -> "y" from="a"
    5 COPY "x" -> "y"
    6 ADD "x" -> "y"
    7 RUN "y"
    8 CMD "y"
    9 COPY "a" -> "b"
    10 RUN "y"
    error 1:6-1:18: unknown flag `--platfrom` of `FROM` (did you mean `--platform`?)
    error 2:6-2:14: unknown flag `--form` of `COPY` (did you mean `--from`?)
    error 3:6-3:13: flag `--chown` has no value (write `--chown=VALUE`)
    error 4:15-4:23: flag `--from` is given twice
    error 5:6-5:18: flag `--link` is `true` or `false`, not `maybe`
    error 6:5-6:13: unknown flag `--from` of `ADD` (`ADD` takes `--chown`, `--chmod`, `--link`, `--exclude`, `--checksum`, `--keep-git-dir`, `--unpack`)
    error 7:5-7:12: unknown flag `--mnt` of `RUN` (did you mean `--mount`?)
    error 8:5-8:8: unknown flag `--x` of `CMD` (`CMD` takes no flags)
    error 9:6-9:18: unknown flag `--checksum` of `COPY` (`COPY` takes `--chown`, `--chmod`, `--link`, `--exclude`, `--from`, `--parents`)
    error 10:5-10:14: flag `--network` has no value (write `--network=VALUE`)
    error 11:24-11:25: `--interval=5` is no duration (for example `30s`, `1m30s` or `500ms`)
    error 12:23-12:26: `--timeout=1us` cannot be less than 1ms
    error 13:23-13:24: `--retries=x` is no number of at least 0
    "#);
}

#[test]
fn heredocs_that_are_wrong() {
    insta::assert_snapshot!(outline("FROM a\nCOPY x <<E\nx\nE\nRUN <<E\nx\nEE\n"), @r#"
    1 FROM "a"
    5-7 RUN "<<E"
    error 2:8-2:11: `COPY` cannot accept a heredoc as a destination
    error 5:5-5:8: unterminated heredoc `E` (a line with nothing but `E` ends it)
    "#);
    insta::assert_snapshot!(outline("FROM a\nRUN a <<A <<B\nx\nA\n"), @r#"
    1 FROM "a"
    2-4 RUN "a <<A <<B" <<A "x\n"
    error 2:7-2:14: unterminated heredoc `B` (a line with nothing but `B` ends it)
    "#);
}

#[test]
fn directives_that_are_wrong() {
    insta::assert_snapshot!(outline("# escape=x\n# escape=`\n# syntax=a/b:1\nFROM a\n"), @r#"
    syntax "a/b:1"
    4 FROM "a"
    error 1:10-1:11: invalid escape character `x`: expected `\` or a backquote
    error 2:10-2:11: only one `escape` parser directive can be used
    error 3:10-3:15: the frontend `a/b:1` is not there: only `docker/dockerfile` is built in (if the file is an ordinary Dockerfile, remove the `# syntax=` line, or give `--build-arg BUILDKIT_SYNTAX=docker/dockerfile:1`)
    "#);
    insta::assert_snapshot!(outline("// syntax = tonistiigi/x\nFROM a\n"), @r#"
    syntax "tonistiigi/x"
    2 FROM "a"
    error 1:1-1:3: unknown instruction `//` (a line that continues the one before it needs a `\` at the end of that one)
    error 1:13-1:25: the frontend `tonistiigi/x` is not there: only `docker/dockerfile` is built in (if the file is an ordinary Dockerfile, remove the `# syntax=` line, or give `--build-arg BUILDKIT_SYNTAX=docker/dockerfile:1`)
    "#);
    insta::assert_snapshot!(outline("{\"syntax\": \"a/b\"}"), @r#"
    syntax "a/b"
    error 1:1-1:2: the frontend `a/b` is not there: only `docker/dockerfile` is built in (if the file is an ordinary Dockerfile, remove the `# syntax=` line, or give `--build-arg BUILDKIT_SYNTAX=docker/dockerfile:1`)
    error 1:1-1:11: unknown instruction `{"syntax":` (a line that continues the one before it needs a `\` at the end of that one)
    "#);
    insta::assert_snapshot!(outline("# syntax=docker/dockerfiles\nFROM a\n"), @r#"
    syntax "docker/dockerfiles"
    2 FROM "a"
    error 1:10-1:28: the frontend `docker/dockerfiles` is not there: only `docker/dockerfile` is built in (if the file is an ordinary Dockerfile, remove the `# syntax=` line, or give `--build-arg BUILDKIT_SYNTAX=docker/dockerfile:1`)
    "#);
}

#[test]
fn bytes_that_are_wrong() {
    insta::assert_snapshot!(outline("FROM a\nRUN <<E\nx\0y\nE\nRUN x\0y\n"), @r#"
    1 FROM "a"
    2-4 RUN "<<E" <<E "x\0y\n"
    5 RUN "x\0y"
    error 3:2-3:3: a NUL byte in the text (is this file text in UTF-8?)
    error 5:6-5:7: a NUL byte in the text (is this file text in UTF-8?)
    "#);
    let long = |length: usize| format!("FROM a\nRUN {}\nUSER u\n", "x".repeat(length - 4));
    assert_eq!(parse(&long(65_535)).1, []);
    insta::assert_snapshot!(outline(&long(65_536)), @r#"
    1 FROM "a"
    3 USER "u"
    error 2:1-2:2: dockerfile line greater than max allowed size of 65535: it has 65536 bytes
    "#);
}

#[test]
fn hostile_sizes_end_soon() {
    let name = "N".repeat(60_000);
    let text = format!("FROM a\n{name} x\nENV {name}=1 {}\nLABEL a=${name}x\n", "a=1 ".repeat(1_000));
    assert_eq!(parse(&text).1.len(), 1);
    let words = format!("FROM a\nEXPOSE {}\n", "é ".repeat(20_000));
    assert_eq!(parse(&words).1, []);
    let nested = format!("FROM a\nRUN {}\n", "[".repeat(60_000));
    assert_eq!(parse(&nested).1, []);
    let triggers = format!("FROM a\n{}RUN x\n", "ONBUILD ".repeat(8_000));
    assert_eq!(parse(&triggers).1.len(), 1);
}

#[test]
fn a_problem_shows_its_line() {
    let render = |text: &str| {
        let problems = parse(text).1;
        problems.iter().map(|problem| problem.render("Dockerfile", text)).collect::<String>()
    };
    insta::assert_snapshot!(render("FROM alpine\nRUNN make\n"), @"
    error: unknown instruction `RUNN`
     --> Dockerfile:2:1
      |
    2 | RUNN make
      | ^^^^
    hint: did you mean `RUN`?
    ");
    insta::assert_snapshot!(render("FROM alpine\n\tCOPY --form=é \\\n   --chwon=x a b\n"), @r#"
    error: unknown flag `--form` of `COPY`
     --> Dockerfile:2:7
      |
    2 |  COPY --form=é \
      |       ^^^^^^^^
    hint: did you mean `--from`?
    error: unknown flag `--chwon` of `COPY`
     --> Dockerfile:3:4
      |
    3 |    --chwon=x a b
      |    ^^^^^^^^^
    hint: did you mean `--chown`?
    "#);
    insta::assert_snapshot!(render(&format!("FROM alpine\nENV {} B\n", "A=1 ".repeat(60))), @"
    error: can't find `=` in `B`
     --> Dockerfile:2:246
      |
    2 | ...=1 A=1 A=1 A=1 A=1 A=1 A=1 A=1 A=1 A=1 A=1 A=1 A=1 A=1 A=1  B
      |                                                                ^
    hint: `ENV` takes `KEY=VALUE`; put a value with blanks in quotes
    ");
    insta::assert_snapshot!(render("FROM a\nX\u{1b}[31m y\n"), @r#"
    error: unknown instruction `X?[31m`
     --> Dockerfile:2:1
      |
    2 | X?[31m y
      | ^^^^^^
    hint: a line that continues the one before it needs a `\` at the end of that one
    "#);
    insta::assert_snapshot!(render("\u{feff}FRM a\r\n"), @"
    error: unknown instruction `FRM`
     --> Dockerfile:1:1
      |
    1 | FRM a
      | ^^^
    hint: did you mean `FROM`?
    ");
    insta::assert_snapshot!(render(""), @"
    error: file with no instructions
     --> Dockerfile:1:1
    hint: a Dockerfile begins with `FROM`
    ");
}

/// Texts that are likely to reach deep into the reader.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("FROM a\n".to_owned()),
        Just("RUN ".to_owned()),
        Just("COPY ".to_owned()),
        Just("ENV A=".to_owned()),
        Just("ONBUILD ".to_owned()),
        Just("HEALTHCHECK ".to_owned()),
        Just("<<E".to_owned()),
        Just("\nE\n".to_owned()),
        Just("--from=".to_owned()),
        Just("[\"a\"]".to_owned()),
        Just("# escape=`\n".to_owned()),
        Just("\\\n".to_owned()),
        Just("`\r\n".to_owned()),
        Just("${A:-".to_owned()),
        "[ \t\r\n\\\\`\"'#=<>\\-\\[\\]{}$]{0,4}",
        "\\PC{0,3}",
        any::<char>().prop_map(String::from),
    ];
    prop::collection::vec(piece, 0..30).prop_map(|pieces| pieces.concat())
}

fn is_within(position: Position, text: &str) -> bool {
    let last = text.matches('\n').count() + 1;
    let line = text.split('\n').nth(position.line.wrapping_sub(1)).unwrap_or_default();
    (1..=last).contains(&position.line) && (1..=line.chars().count() + 1).contains(&position.column)
}

proptest! {
    #[test]
    fn any_text_is_read_and_every_place_is_in_it(text in pieces()) {
        let (file, problems) = parse(&text);
        prop_assert!(!file.stages.is_empty() || problems.iter().any(Problem::is_error));
        for problem in &problems {
            prop_assert!(is_within(problem.span.start, &text), "{:?}", problem);
            prop_assert!(is_within(problem.span.end, &text), "{:?}", problem);
            prop_assert!(problem.span.start <= problem.span.end, "{:?}", problem);
            let shown = problem.render("f", &text);
            prop_assert!(!shown.contains(char::from(27)), "{}", shown);
        }
        let stages = file.stages.iter().flat_map(|stage| std::iter::once(&stage.from).chain(&stage.instructions));
        let mut last = 0;
        for instruction in file.global_args.iter().chain(stages) {
            let lines = instruction.lines();
            prop_assert!(last < lines.first && lines.first <= lines.last, "{:?}", instruction);
            prop_assert!(is_within(instruction.span.end, &text), "{:?}", instruction);
            last = lines.last;
        }
    }

    #[test]
    fn any_text_at_all_is_read(text in any::<String>()) {
        let _ = parse(&text);
        let _ = parse_trigger(&text, Span::default());
    }
}
