//! What the language allows.

use super::*;

#[test]
fn continued_lines_keep_both_line_numbers() {
    insta::assert_snapshot!(outline("FROM alpine\nRUN make \\\n  all\nUSER  a b \n"), @r#"
    1 FROM "alpine"
    2-3 RUN "make   all"
    4 USER "a b"
    "#);
}

#[test]
fn comments_and_empty_lines_inside_a_continuation_are_dropped() {
    insta::assert_snapshot!(outline("FROM a\nRUN x \\\n # no\n#no\\\n\n  \t\n y \\ \t\n z # yes\n# after\nRUN w\\\\\nCMD [\"a\"]\n"), @r#"
    1 FROM "a"
    2-8 RUN "x  y  z # yes"
    10 RUN "w\\\\"
    11 CMD ["a"]
    warning 8:9-8:9: Empty continuation line (remove it, or put a `#` on it)
    "#);
}

#[test]
fn a_continuation_at_the_end_of_the_file() {
    insta::assert_snapshot!(outline("FROM a\nRUN x \\\n"), @r#"
    1 FROM "a"
    2 RUN "x"
    "#);
    insta::assert_snapshot!(outline("FROM a\nRUN x \\"), @r#"
    1 FROM "a"
    2 RUN "x"
    "#);
    insta::assert_snapshot!(outline("FROM a\n\\\nRUN x"), @r#"
    1 FROM "a"
    2-3 RUN "x"
    "#);
}

#[test]
fn names_in_any_case_with_blanks_before() {
    insta::assert_snapshot!(outline("  from A As B\n\tRun x\n\u{a0}copy a b"), @r#"
    1 FROM "A" as b
    2 RUN "x"
    3 COPY "a" -> "b"
    warning 1:3-1:14: 'As' and 'from' keywords' casing do not match
    warning 1:13-1:14: Stage name 'B' should be lowercase
    warning 2:2-2:7: Command 'Run' should match the case of the command majority (lowercase)
    "#);
}

#[test]
fn byte_order_mark_and_carriage_returns() {
    insta::assert_snapshot!(outline("\u{feff}# escape=`\r\nFROM a\r\nRUN x `\r\n  y\r\nRUN <<E\r\nz\r\nE\r\n"), @r#"
    2 FROM "a"
    3-4 RUN "x   y"
    5-7 RUN "<<E" <<E "z\r\n"
    "#);
}

#[test]
fn directives_stand_at_the_top() {
    insta::assert_snapshot!(outline("# Syntax = docker/dockerfile:1.7-labs \n#escape=`\n# check=skip=all\nFROM a\n"), @r#"
    syntax "docker/dockerfile:1.7-labs"
    check "skip=all"
    4 FROM "a"
    "#);
    insta::assert_snapshot!(outline("#!/usr/bin/env x\n# syntax=docker.io/docker/dockerfile-upstream:master\n# escape=`\nFROM a\nRUN x\\\n y\n"), @r#"
    syntax "docker.io/docker/dockerfile-upstream:master"
    4 FROM "a"
    5-6 RUN "x y"
    "#);
    insta::assert_snapshot!(outline("# a comment\n# escape=`\nFROM a\nRUN x \\\n y\n"), @r#"
    3 FROM "a"
    4-5 RUN "x  y"
    "#);
    insta::assert_snapshot!(outline("\n# escape=`\nFROM a\nRUN x \\\n y\n"), @r#"
    3 FROM "a"
    4-5 RUN "x  y"
    "#);
    insta::assert_snapshot!(outline("# unknown=1\n# escape=`\nFROM a\nRUN x \\\n y\n"), @r#"
    3 FROM "a"
    4-5 RUN "x  y"
    "#);
}

#[test]
fn every_instruction() {
    let text = concat!(
        "ARG V=1 W\n",
        "FROM --platform=linux/amd64 image:$V AS Stage\n",
        "ADD --checksum=sha256:x --keep-git-dir --unpack=FALSE https://x /x\n",
        "ARG A B=\"x y\" C=\n",
        "CMD echo \"hi\"\n",
        "COPY --from=0 --chown=a:b --chmod=755 --link --parents --exclude=*.a --exclude=\"b c\" a b /c/\n",
        "ENTRYPOINT [\"a\", \"b c\"]\n",
        "ENV A=1 B=\"x y\" C=p\\ q D='$E'\n",
        "ENV OLD the rest  of it\n",
        "EXPOSE 80/tcp\t443\n",
        "HEALTHCHECK --interval=1m30s --timeout=500ms --retries=3 CMD curl x || exit 1\n",
        "HEALTHCHECK NONE\n",
        "LABEL a=b \"c d\"=e\n",
        "MAINTAINER A B <c@d>\n",
        "ONBUILD RUN --network=none x\n",
        "RUN --mount=type=cache,target=/c --mount=type=tmpfs,target=/t --network=host --security=sandbox make\n",
        "RUN [\"x\"]\n",
        "SHELL [\"/bin/bash\", \"-c\"]\n",
        "STOPSIGNAL SIGTERM\n",
        "USER a:b\n",
        "VOLUME /a /b\n",
        "VOLUME [\"/c d\"]\n",
        "WORKDIR /a b\n",
    );
    insta::assert_snapshot!(outline(text), @r#"
    1 ARG "V"="1" "W"
    2 FROM "image:$V" platform="linux/amd64" as stage
    3 ADD "https://x" -> "/x" checksum="sha256:x" keep-git-dir=true unpack=false
    4 ARG "A" "B"="\"x y\"" "C"=""
    5 CMD "echo \"hi\""
    6 COPY "a" "b" -> "/c/" from="0" chown="a:b" chmod="755" link parents exclude="*.a" "b c"
    7 ENTRYPOINT ["a", "b c"]
    8 ENV "A"="1" "B"="\"x y\"" "C"="p\\ q" "D"="'$E'"
    9 ENV "OLD"="the rest  of it"
    10 EXPOSE "80/tcp" "443"
    11 HEALTHCHECK "curl x || exit 1" interval=90000000000 timeout=500000000 retries=3
    12 HEALTHCHECK NONE
    13 LABEL "a"="b" "\"c d\""="e"
    14 MAINTAINER "A B <c@d>"
    15 ONBUILD RUN "x" network="none" stored "RUN --network=none x"
    16 RUN "make" mount="type=cache,target=/c" "type=tmpfs,target=/t" network="host" security="sandbox"
    17 RUN ["x"]
    18 SHELL ["/bin/bash", "-c"]
    19 STOPSIGNAL "SIGTERM"
    20 USER "a:b"
    21 VOLUME "/a" "/b"
    22 VOLUME "/c d"
    23 WORKDIR "/a b"
    warning 2:41-2:46: Stage name 'Stage' should be lowercase
    warning 14:1-14:21: Maintainer instruction is deprecated in favor of using label (use `LABEL org.opencontainers.image.authors=...`)
    "#);
}

#[test]
fn what_is_not_quite_json_is_the_shell_form() {
    insta::assert_snapshot!(outline("FROM a\nRUN ['a']\nCMD [ -f x ]\nCOPY [a b /c\nRUN [\"a\"] && x\nENTRYPOINT [\"a\\n\", \"\\u00e9\"]\n"), @r#"
    1 FROM "a"
    2 RUN "['a']"
    3 CMD "[ -f x ]"
    4 COPY "[a" "b" -> "/c"
    5 RUN "[\"a\"] && x"
    6 ENTRYPOINT ["a\n", "é"]
    "#);
}

#[test]
fn flags_end_at_the_first_other_word_or_a_bare_double_dash() {
    insta::assert_snapshot!(outline("FROM a\nRUN --network=none -- --x y\nRUN a --b\nCOPY --chown=\"a b\" -- --from x\n"), @r#"
    1 FROM "a"
    2 RUN "--x y" network="none"
    3 RUN "a --b"
    4 COPY "--from" -> "x" chown="a b"
    "#);
}

#[test]
fn heredocs_in_every_form() {
    let text = concat!(
        "FROM a\n",
        "RUN <<EOF\n\techo $X\n# no comment \\\n\nEOF\n",
        "RUN <<-'E' cat >x\n\ta\n\tE\n",
        "RUN 3<<A cat <<\"B\"\n1\nA\n2\nB\n",
        "COPY <<a.txt <<b.txt x /d/\nA\na.txt\nb.txt\n",
        "ADD --chmod=600 <<-f /f\nx\n\t\tf\n",
        "ONBUILD RUN <<E\nx\nE\n",
        "RUN echo '<<E'\n",
        "RUN [\"cat\", \"<<E\"]\n",
        "RUN cat <<E \\\n  && y\nbody\nE\n",
        "USER <<E\n",
    );
    insta::assert_snapshot!(outline(text), @r#"
    1 FROM "a"
    2-6 RUN "<<EOF" <<EOF "\techo $X\n# no comment \\\n\n"
    7-9 RUN "<<-'E' cat >x" <<E literal tabs "\ta\n"
    10-14 RUN "3<<A cat <<\"B\"" <<A "1\n" <<B literal "2\n"
    15-18 COPY "x" -> "/d/" <<a.txt "A\n" <<b.txt ""
    19-21 ADD  -> "/f" chmod="600" <<f tabs "x\n"
    22-24 ONBUILD RUN "<<E" <<E "x\n" stored "RUN <<E\nx\nE"
    25 RUN "echo '<<E'"
    26 RUN ["cat", "<<E"]
    27-30 RUN "cat <<E   && y" <<E "body\n"
    31 USER "<<E"
    "#);
}

#[test]
fn comments_before_an_instruction_are_kept() {
    let (file, _) = parse("# syntax=docker/dockerfile:1\n# gone\n#\n# first\n\n#second \nFROM a\n# third\nRUN x\n");
    assert_eq!(file.stages[0].from.comments, ["first", "second"]);
    assert_eq!(file.stages[0].instructions[0].comments, ["third"]);
}

#[test]
fn a_trigger_is_one_instruction() {
    let at = Span { start: Position { line: 7, column: 1 }, end: Position { line: 7, column: 9 } };
    let trigger = parse_trigger("COPY <<f x\n$A\nf", at).unwrap();
    assert_eq!(trigger.span, at);
    assert_eq!(arguments(&trigger.command), " -> \"x\" <<f \"$A\\n\"");
    for text in ["", "FROM a", "ONBUILD RUN x", "MAINTAINER x", "RUN a\nRUN b", "RUNN x", "USER"] {
        let problems = parse_trigger(text, at).unwrap_err();
        assert!(problems.iter().all(|problem| problem.span == at && problem.is_error()), "{text}: {problems:?}");
        assert!(!problems.is_empty(), "{text}");
    }
}

#[test]
fn the_own_frontend_is_that_of_a_mirror_too() {
    for (name, is_own) in [
        ("docker/dockerfile:1", true),
        ("index.docker.io/docker/dockerfile-upstream:master-labs", true),
        ("mirror.example.com/hub/docker/dockerfile:1@sha256:0", true),
        ("localhost/docker/dockerfile", true),
        ("127.0.0.1:5000/docker/dockerfile:1", true),
        ("mirror/docker/dockerfile:1", false),
        ("mirror.example.com/notdocker/dockerfile:1", false),
        ("mirror.example.com/docker/dockerfile/more", false),
        ("docker/dockerfile-other", false),
    ] {
        assert_eq!(crate::dockerfile::is_own_frontend(name), is_own, "{name}");
    }
}
