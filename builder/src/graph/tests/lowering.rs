//! Operations: what each instruction becomes.

use super::*;

#[test]
fn a_copy_onto_scratch() {
    insta::assert_snapshot!(outline("FROM scratch\nCOPY hello /\n"), @r#"
    #0 scratch + copy context ["hello"] -> / (directory) | [1/1] COPY hello / :2
    = #0 linux/amd64
    {"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],"WorkingDir":"/"}
    #0 COPY hello / # buildkit
    "#);
}

#[test]
fn a_base_image_is_asked_for_and_then_built_on() {
    let text = "FROM alpine AS build\nRUN make\nCOPY . /src/\n";
    insta::assert_snapshot!(outline(text), @"needs alpine for linux/amd64");
    let input = with_base(input(), "alpine", r#"{"Env":["A=1"],"Cmd":["sh"],"WorkingDir":"/w"}"#);
    insta::assert_snapshot!(outline_with(text, &input), @r#"
    #0 base alpine sha256:m | [1/3] FROM alpine :1
    #1 #0 + run ["/bin/sh", "-c", "make"] in /w env ["A=1"] | [2/3] RUN make :2
    #2 #1 + copy context [""] -> /src (directory) | [3/3] COPY . /src/ :3
    = #2 linux/amd64
    {"Env":["A=1","PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],"Cmd":["sh"],"WorkingDir":"/w"}
    (base) made the base
    #1 RUN /bin/sh -c make # buildkit
    #2 COPY . /src/ # buildkit
    "#);
}

#[test]
fn stages_that_the_target_does_not_need_are_not_asked_for() {
    let text = "FROM a AS one\nFROM b AS two\nFROM scratch\nCOPY --from=two /x /\n";
    insta::assert_snapshot!(outline(text), @"needs b for linux/amd64");
    insta::assert_snapshot!(outline_with(text, &target(input(), "one")), @"needs a for linux/amd64");
    let input = with_base(with_base(input(), "b", "{}"), "a", "{}");
    insta::assert_snapshot!(outline_with(text, &input), @r#"
    #0 base b sha256:m | [two 1/1] FROM b :2
    #1 scratch + copy #0 ["x"] -> / (directory) | [stage-2 1/1] COPY --from=two /x / :4
    = #1 linux/amd64
    {"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],"WorkingDir":"/"}
    #1 COPY /x / # buildkit
    "#);
}

#[test]
fn copy_from_a_number_a_name_and_an_image() {
    let text = "FROM scratch AS Base\nCOPY a /a\nFROM scratch\nCOPY --from=0 a b/\nCOPY --from=BASE a c\nCOPY --from=busybox:1 /bin/ /bin\n";
    insta::assert_snapshot!(outline(text), @r#"
    warning 1:17: Stage name 'Base' should be lowercase
    needs busybox:1 for linux/amd64
    "#);
    insta::assert_snapshot!(outline_with(text, &with_base(input(), "busybox:1", "{}")), @r#"
    warning 1:17: Stage name 'Base' should be lowercase
    #0 scratch + copy context ["a"] -> /a | [base 1/1] COPY a /a :2
    #1 scratch + copy #0 ["a"] -> /b (directory) | [stage-1 1/3] COPY --from=0 a b/ :4
    #2 #1 + copy #0 ["a"] -> /c | [stage-1 2/3] COPY --from=BASE a c :5
    #3 base busybox:1 sha256:m | [1/1] FROM busybox:1 :6
    #4 #2 + copy #3 ["bin"] -> /bin | [stage-1 3/3] COPY --from=busybox:1 /bin/ /bin :6
    = #4 linux/amd64
    {"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],"WorkingDir":"/"}
    #1 COPY a b/ # buildkit
    #2 COPY a c # buildkit
    #4 COPY /bin/ /bin # buildkit
    "#);
}

#[test]
fn every_option_of_a_copy() {
    let text = "FROM scratch\nWORKDIR /app\nARG WHO=bob\nCOPY --chown=$WHO:1 --chmod=0755 --exclude=*.log --parents ../a/./b c/* ./\nCOPY --link x y/.\nCOPY --link --chmod=u+x [\"a b\", \"c\"]\nADD t.tar /t\nADD --unpack=false t.tar .\n";
    insta::assert_snapshot!(outline(text), @r#"
    #0 scratch + copy nothing [] -> /app (directory) | [1/6] WORKDIR /app :2
    #1 #0 + copy context ["a/./b", "c/*"] -> /app (directory) chown bob:1 chmod Bits(493) parents exclude ["*.log"] | [2/6] COPY --chown=$WHO:1 --chmod=0755 --exclude=*.log --parents ../a/./b c/* ./ :4
    #2 #1 + copy context ["x"] -> /app/y (directory) link | [3/6] COPY --link x y/. :5
    #3 #2 + copy context ["a b"] -> /app/c chmod Symbolic("u+x") | [4/6] COPY --link --chmod=u+x ["a b", "c"] :6
    #4 #3 + copy context ["t.tar"] -> /t unpack | [5/6] ADD t.tar /t :7
    #5 #4 + copy context ["t.tar"] -> /app (directory) | [6/6] ADD --unpack=false t.tar . :8
    = #5 linux/amd64
    {"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],"WorkingDir":"/app"}
    #0 WORKDIR /app
    -- ARG WHO=bob
    #1 COPY --parents --chown=bob:1 --chmod=0755 ../a/./b c/* ./ # buildkit
    #2 COPY x y/. # buildkit
    #3 COPY --chmod=u+x a b c # buildkit
    #4 ADD t.tar /t # buildkit
    #5 ADD t.tar . # buildkit
    "#);
}

#[test]
fn workdir_makes_a_directory_for_the_user() {
    let text = "FROM scratch\nWORKDIR /\nUSER app\nWORKDIR a\nWORKDIR b/../c\nUSER\t0:0\nWORKDIR /d\n";
    insta::assert_snapshot!(outline(text), @r#"
    #0 scratch + copy nothing [] -> /a (directory) chown app | [1/3] WORKDIR a :4
    #1 #0 + copy nothing [] -> /a/c (directory) chown app | [2/3] WORKDIR b/../c :5
    #2 #1 + copy nothing [] -> /d (directory) chown 0:0 | [3/3] WORKDIR /d :7
    = #2 linux/amd64
    {"User":"0:0","Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],"WorkingDir":"/d"}
    -- WORKDIR /
    -- USER app
    #0 WORKDIR /a
    #1 WORKDIR /a/c
    -- USER 0:0
    #2 WORKDIR /d
    "#);
}

#[test]
fn run_takes_shell_environment_directory_and_user() {
    let text = "FROM base\nARG A=1\nENV B=2 C=\"$A $B\"\nARG B=3\nSHELL [\"/bin/bash\", \"-ec\"]\nUSER u:g\nWORKDIR /w\nRUN --network=none echo \\\n  # a comment\n  \"$A\"\nRUN [\"x\", \"$A\"]\n";
    insta::assert_snapshot!(outline_with(text, &with_base(input(), "base", "{}")), @r#"
    #0 base base sha256:m | [1/4] FROM base :1
    #1 #0 + copy nothing [] -> /w (directory) chown u:g | [2/4] WORKDIR /w :7
    #2 #1 + run ["/bin/bash", "-ec", "echo   \"$A\""] in /w env ["A=1", "C=1 ", "B=3"] as u:g network None | [3/4] RUN --network=none echo   "$A" :8-10
    #3 #2 + run ["x", "$A"] in /w env ["A=1", "C=1 ", "B=3"] as u:g | [4/4] RUN ["x", "$A"] :11
    = #3 linux/amd64
    {"User":"u:g","Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin","B=2","C=1 "],"WorkingDir":"/w","Shell":["/bin/bash","-ec"]}
    (base) made the base
    -- ARG A=1
    -- ENV B=2 C=1 
    -- ARG B=3
    -- SHELL [/bin/bash -ec]
    -- USER u:g
    #1 WORKDIR /w
    #2 RUN |2 A=1 B=3 /bin/bash -ec echo   "$A" # buildkit
    #3 RUN |2 A=1 B=3 x $A # buildkit
    warning 3:11: Usage of undefined variable '$B' (did you mean $A?)
    "#);
}

#[test]
fn heredocs_of_run() {
    let text = "FROM base\nRUN <<EOF\nset -e\n$X\nEOF\nRUN <<-'EOF'\n\techo a\n\t\techo b\n\tEOF\nRUN <<S\n#!/usr/bin/env python\nprint(1)\nS\nRUN cat <<A >x && cat <<-B\na\nA\n\tb\n\tB\n";
    insta::assert_snapshot!(outline_with(text, &with_base(input(), "base", "{}")), @r##"
    #0 base base sha256:m | [1/5] FROM base :1
    #1 #0 + run ["/bin/sh", "-c", "set -e\n$X\n"] in / env [] | [2/5] RUN <<EOF (set -e...) :2-5
    #2 #1 + run ["/bin/sh", "-c", "echo a\necho b\n"] in / env [] | [3/5] RUN <<-'EOF' (echo a...) :6-9
    #3 #2 + run ["/bin/sh", "-c", "/dev/pipes/S"] in / env [] script /dev/pipes/S "#!/usr/bin/env python\nprint(1)\n" | [4/5] RUN <<S (#!/usr/bin/env python...) :10-13
    #4 #3 + run ["/bin/sh", "-c", "cat <<A >x && cat <<-B\na\nA\n\tb\nB"] in / env [] | [5/5] RUN cat <<A >x && cat <<-B :14-18
    = #4 linux/amd64
    {"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]}
    (base) made the base
    #1 RUN /bin/sh -c set -e
    $X
     # buildkit
    #2 RUN /bin/sh -c echo a
    echo b
     # buildkit
    #3 RUN /bin/sh -c /dev/pipes/S # buildkit
    #4 RUN /bin/sh -c cat <<A >x && cat <<-B
    a
    A
    	b
    B # buildkit
    "##);
}

#[test]
fn heredocs_of_copy_and_add() {
    let text =
        "FROM scratch\nARG X=\"it's\"\nCOPY <<a <<'b' /dir/\n$X \"q\" \\$X\na\n$X\nb\nADD <<-c.txt /\n\tx\n\tc.txt\n";
    insta::assert_snapshot!(outline(text), @r#"
    #0 scratch + copy inline a="it's \"q\" $X\n" 644, b="$X\n" 644 [] -> /dir (directory) | [1/2] COPY <<a <<'b' /dir/ :3-7
    #1 #0 + copy inline c.txt="x\n" 644 [] -> / (directory) | [2/2] ADD <<-c.txt / :8-10
    = #1 linux/amd64
    {"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],"WorkingDir":"/"}
    -- ARG X=it's
    #0 COPY <<a <<b /dir/ # buildkit
    #1 ADD <<c.txt / # buildkit
    "#);
}

#[test]
fn a_stage_takes_over_what_its_base_has() {
    let text = "FROM scratch AS one\nARG A=1\nENV E=$A\nCOPY a /\nCMD [\"x\"]\nFROM one AS two\nRUN echo $A\nENTRYPOINT [\"y\"]\n";
    insta::assert_snapshot!(outline(text), @r#"
    #0 scratch + copy context ["a"] -> / (directory) | [one 1/1] COPY a / :4
    #1 #0 + run ["/bin/sh", "-c", "echo $A"] in / env ["A=1", "E=1"] | [two 1/1] RUN echo $A :7
    = #1 linux/amd64
    {"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin","E=1"],"Entrypoint":["y"],"ArgsEscaped":true,"WorkingDir":"/"}
    -- ARG A=1
    -- ENV E=1
    #0 COPY a / # buildkit
    -- CMD ["x"]
    #1 RUN |1 A=1 /bin/sh -c echo $A # buildkit
    -- ENTRYPOINT ["y"]
    "#);
}

#[test]
fn global_arguments_are_for_from_until_declared_again() {
    let text = "ARG V=3\nARG IMAGE=alpine:$V\nFROM ${IMAGE}\nRUN a\nARG V\nRUN b\nARG V=4\nRUN c\n";
    let with = |input| with_base(input, "alpine:3", "{}");
    insta::assert_snapshot!(outline_with(text, &with(input())), @r#"
    #0 base alpine:3 sha256:m | [1/4] FROM alpine:3 :3
    #1 #0 + run ["/bin/sh", "-c", "a"] in / env [] | [2/4] RUN a :4
    #2 #1 + run ["/bin/sh", "-c", "b"] in / env ["V=3"] | [3/4] RUN b :6
    #3 #2 + run ["/bin/sh", "-c", "c"] in / env ["V=4"] | [4/4] RUN c :8
    = #3 linux/amd64
    {"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]}
    (base) made the base
    #1 RUN /bin/sh -c a # buildkit
    -- ARG V=3
    #2 RUN |1 V=3 /bin/sh -c b # buildkit
    -- ARG V=4
    #3 RUN |1 V=4 /bin/sh -c c # buildkit
    "#);
    insta::assert_snapshot!(outline_with(text, &with_base(args(input(), &[("V", "9")]), "alpine:9", "{}")), @r#"
    #0 base alpine:9 sha256:m | [1/4] FROM alpine:9 :3
    #1 #0 + run ["/bin/sh", "-c", "a"] in / env [] | [2/4] RUN a :4
    #2 #1 + run ["/bin/sh", "-c", "b"] in / env ["V=9"] | [3/4] RUN b :6
    #3 #2 + run ["/bin/sh", "-c", "c"] in / env ["V=9"] | [4/4] RUN c :8
    = #3 linux/amd64
    {"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]}
    (base) made the base
    #1 RUN /bin/sh -c a # buildkit
    -- ARG V=9
    #2 RUN |1 V=9 /bin/sh -c b # buildkit
    -- ARG V=9
    #3 RUN |1 V=9 /bin/sh -c c # buildkit
    "#);
}

#[test]
fn platform_arguments_are_there_when_declared() {
    let text = "FROM --platform=$BUILDPLATFORM base\nARG TARGETPLATFORM TARGETARCH TARGETVARIANT TARGETSTAGE\nRUN a\n";
    let mut input = with_base(input(), "base", "{}");
    input.platform = Platform::new("linux", "arm", Some("v7"));
    insta::assert_snapshot!(outline_with(text, &input), @r#"
    #0 base base sha256:m | [1/2] FROM base :1
    #1 #0 + run ["/bin/sh", "-c", "a"] in / env ["TARGETPLATFORM=linux/arm/v7", "TARGETARCH=arm", "TARGETVARIANT=v7", "TARGETSTAGE=default"] | [2/2] RUN a :3
    = #1 linux/arm/v7
    {"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]}
    (base) made the base
    -- ARG TARGETPLATFORM=linux/arm/v7 TARGETARCH=arm TARGETVARIANT=v7 TARGETSTAGE=default
    #1 RUN |4 TARGETPLATFORM=linux/arm/v7 TARGETARCH=arm TARGETVARIANT=v7 TARGETSTAGE=default /bin/sh -c a # buildkit
    "#);
}

#[test]
fn proxies_are_in_the_environment_and_not_in_the_history() {
    let text = "FROM base\nRUN a\nARG HTTP_PROXY\nRUN b\n";
    let input = args(with_base(input(), "base", "{}"), &[("HTTP_PROXY", "http://p"), ("no_proxy", "x")]);
    insta::assert_snapshot!(outline_with(text, &input), @r#"
    #0 base base sha256:m | [1/3] FROM base :1
    #1 #0 + run ["/bin/sh", "-c", "a"] in / env [] proxies [("HTTP_PROXY", "http://p"), ("http_proxy", "http://p"), ("NO_PROXY", "x"), ("no_proxy", "x")] | [2/3] RUN a :2
    #2 #1 + run ["/bin/sh", "-c", "b"] in / env ["HTTP_PROXY=http://p"] proxies [("http_proxy", "http://p"), ("NO_PROXY", "x"), ("no_proxy", "x")] | [3/3] RUN b :4
    = #2 linux/amd64
    {"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]}
    (base) made the base
    #1 RUN /bin/sh -c a # buildkit
    -- ARG HTTP_PROXY=http://p
    #2 RUN |1 HTTP_PROXY=http://p /bin/sh -c b # buildkit
    "#);
}

#[test]
fn triggers_of_a_base_run_in_the_child_and_not_in_its_child() {
    let text = "FROM base AS child\nRUN a\nFROM child\nRUN b\n";
    let config = r#"{"OnBuild":["COPY --from=other /x /y","RUN make","ENV T=1"]}"#;
    let input = with_base(input(), "base", config);
    insta::assert_snapshot!(outline_with(text, &input), @"needs other for linux/amd64");
    insta::assert_snapshot!(outline_with(text, &with_base(input, "other", "{}")), @r#"
    #0 base base sha256:m | [child 1/4] FROM base :1
    #1 base other sha256:m | [1/1] FROM other :1
    #2 #0 + copy #1 ["x"] -> /y | [child 2/4] ONBUILD COPY --from=other /x /y :1
    #3 #2 + run ["/bin/sh", "-c", "make"] in / env [] | [child 3/4] ONBUILD RUN make :1
    #4 #3 + run ["/bin/sh", "-c", "a"] in / env ["T=1"] | [child 4/4] RUN a :2
    #5 #4 + run ["/bin/sh", "-c", "b"] in / env ["T=1"] | [stage-1 1/1] RUN b :4
    = #5 linux/amd64
    {"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin","T=1"]}
    (base) made the base
    #2 COPY /x /y # buildkit
    #3 RUN /bin/sh -c make # buildkit
    -- ENV T=1
    #4 RUN /bin/sh -c a # buildkit
    #5 RUN /bin/sh -c b # buildkit
    "#);
}

#[test]
fn triggers_of_a_stage_are_kept_in_its_image_and_run_in_the_next() {
    let text = "FROM scratch AS one\nONBUILD COPY <<f /\nhi\nf\nONBUILD LABEL a=b\nFROM one\nCOPY z /\n";
    insta::assert_snapshot!(outline(text), @r#"
    #0 scratch + copy inline f="hi\n" 644 [] -> / (directory) | [stage-1 1/2] ONBUILD COPY <<f / :6
    #1 #0 + copy context ["z"] -> / (directory) | [stage-1 2/2] COPY z / :7
    = #1 linux/amd64
    {"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],"WorkingDir":"/","Labels":{"a":"b"}}
    #0 COPY <<f / # buildkit
    -- LABEL a=b
    #1 COPY z / # buildkit
    "#);
    insta::assert_snapshot!(outline_with(text, &target(input(), "one")), @r#"
    = scratch linux/amd64
    {"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],"WorkingDir":"/","OnBuild":["COPY <<f /\nhi\nf","LABEL a=b"]}
    "#);
}

#[test]
fn one_base_for_several_stages_is_one_operation() {
    let text = "FROM base AS one\nRUN a\nFROM base\nCOPY --from=one /a /\n";
    insta::assert_snapshot!(outline_with(text, &with_base(input(), "base", "{}")), @r#"
    #0 base base sha256:m | [one 1/2] FROM base :1
    #1 #0 + run ["/bin/sh", "-c", "a"] in / env [] | [one 2/2] RUN a :2
    #2 #0 + copy #1 ["a"] -> / (directory) | [stage-1 1/1] COPY --from=one /a / :4
    = #2 linux/amd64
    {"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]}
    (base) made the base
    #2 COPY /a / # buildkit
    "#);
}

#[test]
fn escape_directive_rules_the_whole_file() {
    let text = "# escape=`\nFROM base\nENV A=C:\\x B=`$A\nRUN a `\n  b\n";
    insta::assert_snapshot!(outline_with(text, &with_base(input(), "base", "{}")), @r#"
    #0 base base sha256:m | [1/2] FROM base :2
    #1 #0 + run ["/bin/sh", "-c", "a   b"] in / env ["A=C:\\x", "B=$A"] | [2/2] RUN a   b :4-5
    = #1 linux/amd64
    {"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin","A=C:\\x","B=$A"]}
    (base) made the base
    -- ENV A=C:\x B=$A
    #1 RUN /bin/sh -c a   b # buildkit
    "#);
}

#[test]
fn what_is_not_said_of_a_stage() {
    let text = "FROM --platform=linux/arm64 scratch AS Last\nARG TARGETSTAGE\nEXPOSE 80 $UNSET\nCOPY --from= a /z\nONBUILD COPY a b  \n";
    let told = outline(text);
    let expected = [
        "ARG TARGETSTAGE=last",
        "EXPOSE [80/tcp]",
        "copy context [\"a\"] -> /z",
        "= #0 linux/amd64",
        r#""OnBuild":["COPY a b  "]"#,
    ];
    for expected in expected {
        assert!(told.contains(expected), "{expected}: {told}");
    }
    assert!(!told.contains("UNSET"), "{told}");
}

#[test]
fn an_image_is_asked_for_with_the_lines_that_name_it() {
    let text = "ARG N=app\nFROM scratch AS tools\nCOPY --from=app-tools /x /\nFROM $N\nCOPY --from=app\\\n-tools /x /\nCOPY --from=app /x /\n";
    let (file, _) = parse(text);
    let Ok(Lowered::Needs(images)) = lower(&file, &input()) else { panic!() };
    let told: Vec<String> = images.iter().map(|(image, lines)| format!("{} {lines}", image.reference)).collect();
    assert_eq!(told, ["app 4", "app-tools 5-6"]);
}
