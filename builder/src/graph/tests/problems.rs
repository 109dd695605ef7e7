//! What lowering refuses, and what it warns of.

use proptest::prelude::*;

use super::*;

#[test]
fn unknown_target() {
    let text = "FROM scratch AS build\nFROM scratch AS final\n";
    insta::assert_snapshot!(outline_with(text, &target(input(), "biuld")), @"error 0:0: target stage `biuld` could not be found (did you mean `build`?)");
    insta::assert_snapshot!(outline_with(text, &target(input(), "xyzzy")), @"error 0:0: target stage `xyzzy` could not be found (the stages are `build`, `final`)");
    insta::assert_snapshot!(outline_with("FROM scratch\n", &target(input(), "build")), @"error 0:0: target stage `build` could not be found (no stage of the file has a name (`FROM image AS name`))");
}

#[test]
fn circles_and_stages_that_come_later() {
    let text = "FROM scratch AS a\nCOPY --from=b /x /\nFROM scratch AS b\nCOPY --from=c /x /\nFROM scratch AS c\nCOPY --from=a /x /\n";
    insta::assert_snapshot!(outline(text), @"error 6:1: circular dependency between stages: a -> b -> c -> a (a stage can copy only from stages above it)");
    insta::assert_snapshot!(outline("FROM scratch AS a\nCOPY --from=a /x /\n"), @"error 2:1: circular dependency between stages: a -> a (a stage can copy only from stages above it)");
    insta::assert_snapshot!(outline("FROM scratch\nCOPY --from=0 /x /\n"), @"error 2:1: circular dependency between stages: stage-0 -> stage-0 (a stage can copy only from stages above it)");
    let text = "FROM scratch AS a\nCOPY --from=b /x /\nFROM scratch AS b\nFROM a\n";
    insta::assert_snapshot!(outline(text), @"error 2:13: cannot copy from stage `b`: it needs to be defined before stage `a`");
    insta::assert_snapshot!(outline("FROM scratch\nCOPY --from=7 /x /\n"), @"error 2:13: invalid stage index 7: the file has 1 stages");
}

#[test]
fn a_variable_in_from_of_a_copy() {
    insta::assert_snapshot!(outline("FROM scratch\nCOPY --from=$x /x /\n"), @"error 2:13: variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope as a workaround");
}

#[test]
fn names_that_expand_to_nothing() {
    insta::assert_snapshot!(outline("FROM $IMAGE\n"), @r#"
    warning 1:6: Default value for ARG $IMAGE results in empty or invalid base image name
    warning 1:6: FROM argument 'IMAGE' is not declared (put `ARG IMAGE=VALUE` before the first `FROM`, or declare it there and give `--build-arg IMAGE=VALUE`)
    error 1:6: base name (`$IMAGE`) should not be blank (an `ARG` for a `FROM` stands before the first `FROM`, with a default)
    "#);
    insta::assert_snapshot!(outline("ARG P\nFROM --platform=$P x\n"), @r#"
    error 2:17: empty platform value from expression `$P`
    "#);
    insta::assert_snapshot!(outline("FROM --platform=linus x\n"), @"error 1:17: `linus` is no platform: expected `os/architecture[/variant]`, such as `linux/arm64`");
    insta::assert_snapshot!(outline("FROM scratch\nWORKDIR $X\nENV $Y=1\nVOLUME $Z\n"), @r#"
    warning 2:9: Usage of undefined variable '$X'
    warning 2:9: Relative workdir "" can have unexpected results if the base image changes
    warning 3:5: Usage of undefined variable '$Y'
    warning 4:8: Usage of undefined variable '$Z'
    error 4:8: `VOLUME $Z` expands to nothing
    "#);
}

#[test]
fn what_is_not_there_yet_names_its_line() {
    let text = concat!(
        "FROM base\n",
        "RUN make\n",
        "RUN make a\n",
        "RUN make b\n",
        "ADD https://x/y /\n",
        "ADD https://github.com/a/b.git /\n",
        "COPY https://x/y /\n",
        "ADD --checksum=sha256:x a /\n",
    );
    insta::assert_snapshot!(outline_with(text, &with_base(input(), "base", "{}")), @"
    error 7:6: `COPY` cannot take the URL `https://x/y` (`ADD` fetches URLs and git repositories)
    error 8:16: `--checksum` is for a URL or a git repository
    ");
}

#[test]
fn values_that_an_instruction_refuses() {
    let text = concat!(
        "FROM base\n",
        "RUN --network=nome a\n",
        "RUN --security=x a\n",
        "RUN --mount=type=cahce,target=/c a\n",
        "EXPOSE 80/xyz\n",
        "STOPSIGNAL SIGFOO\n",
        "COPY --chmod=999 a b\n",
        "ENV A=${B\n",
        "ENV A=\"${B:?give me B}\"\n",
        "LABEL a=\"x${y^}\"\n",
    );
    insta::assert_snapshot!(outline_with(text, &with_base(input(), "base", "{}")), @"
    error 2:15: invalid `--network=nome`: expected `default`, `none` or `host`
    error 3:16: invalid `--security=x`: expected `sandbox` or `insecure`
    error 4:18: unsupported mount type `cahce`, did you mean `cache`?
    error 5:11: invalid protocol `xyz` in `80/xyz`: expected `tcp`, `udp` or `sctp`
    error 6:12: invalid signal `SIGFOO` (for example `SIGTERM`, `SIGRTMIN+3` or `9`)
    error 7:14: invalid `--chmod=999`: an octal number must be between 0 and 07777
    error 8:7: missing `}` after `${`
    error 9:7: B: give me B
    error 10:14: unsupported modifier `^` in `${y^...}` (expected `-`, `+` or `?`, each also behind `:`, or `#`, `##`, `%`, `%%`, `/` or `//`)
    ");
}

#[test]
fn warnings_do_not_stop_the_build() {
    let text = concat!(
        "FROM scratch AS a\n",
        "FROM scratch AS a\n",
        "FROM scratch AS context\n",
        "WORKDIR app\n",
        "COPY $UNKNOWN/x $HOEM /\n",
        "ENV HOME=/x\n",
        "LABEL b=$HOEM\n",
    );
    insta::assert_snapshot!(outline_with(text, &args(input(), &[("NOBODY", "1"), ("BUILDKIT_INLINE_CACHE", "1")])), @r#"
    warning 2:17: Duplicate stage name "a", stage names should be unique (`COPY --from` takes the last of them)
    warning 3:17: Stage name should not use the same name as reserved stage "context"
    #0 scratch + copy nothing [] -> /app (directory) | [context 1/2] WORKDIR app :4
    #1 #0 + copy context ["x", ""] -> / (directory) | [context 2/2] COPY $UNKNOWN/x $HOEM / :5
    = #1 linux/amd64
    {"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin","HOME=/x"],"WorkingDir":"/app","Labels":{"b":""}}
    #0 WORKDIR /app
    #1 COPY /x  / # buildkit
    -- ENV HOME=/x
    -- LABEL b=
    warning 4:9: Relative workdir "app" can have unexpected results if the base image changes
    warning 5:6: Usage of undefined variable '$UNKNOWN'
    warning 5:17: Usage of undefined variable '$HOEM'
    warning 7:9: Usage of undefined variable '$HOEM' (did you mean $HOME?)
    warning 0:0: build argument `NOBODY` is not used: no `ARG` of the file declares it
    "#);
}

#[test]
fn an_argument_that_only_a_trigger_declares_is_used() {
    let input = with_base(args(input(), &[("A", "1")]), "base", r#"{"OnBuild":["ARG A"]}"#);
    assert!(!outline_with("FROM base\n", &input).contains("not used"));
}

#[test]
fn a_base_for_another_platform_is_a_warning() {
    let mut input = with_base(input(), "base", "{}");
    for image in input.bases.values_mut() {
        image.config.architecture = "arm64".to_owned();
        image.config.variant = Some("v8".to_owned());
    }
    insta::assert_snapshot!(outline_with("FROM base\n", &input), @r#"
    #0 base base sha256:m | [1/1] FROM base :1
    = #0 linux/arm64/v8
    {"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]}
    (base) made the base
    warning 1:1: Base image base was pulled with platform "linux/arm64", expected "linux/amd64" for current build
    "#);
}

#[test]
fn a_base_for_a_higher_variant_is_a_warning_too() {
    let with = |variant: &str| {
        let mut input = with_base(input(), "base", "{}");
        input.bases.values_mut().for_each(|image| image.config.variant = Some(variant.to_owned()));
        outline_with("FROM base\n", &input)
    };
    let told = with("v3");
    assert!(told.contains("pulled with platform \"linux/amd64/v3\", expected \"linux/amd64\""), "{told}");
    assert!(!with("v1").contains("warning"), "{}", with("v1"));
}

#[test]
fn a_broken_trigger_is_shown_at_the_from() {
    let input = with_base(input(), "base", r#"{"OnBuild":["RUNN x","FROM y"]}"#);
    insta::assert_snapshot!(outline_with("\nFROM base\n", &input), @"
    error 2:1: the base image has an `ONBUILD` trigger that cannot be read: `RUNN x`
    error 2:1: unknown instruction `RUNN` (did you mean `RUN`?)
    error 2:1: the base image has an `ONBUILD` trigger that may not be one: `FROM y`
    ");
}

#[test]
fn another_frontend_by_build_argument() {
    let with = |name: &str| args(input(), &[("BUILDKIT_SYNTAX", name)]);
    insta::assert_snapshot!(outline_with("FROM scratch\n", &with("a/b:1")), @"error 0:0: the frontend `a/b:1` of build argument `BUILDKIT_SYNTAX` is not there (only `docker/dockerfile` is built in)");
    assert!(outline_with("FROM scratch\n", &with("docker/dockerfile:1")).starts_with("= scratch"));
}

/// Lines that are likely to be lowered.
fn line() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        Just("a"),
        Just("$A"),
        Just("${B:-/c}"),
        Just("/d/"),
        Just("."),
        Just("A=$B"),
        Just("C='x y'"),
        Just("80/udp"),
        Just("--from=one"),
        Just("--from=1"),
        Just("--chmod=u+x"),
        Just("--mount=type=bind,from=one,target=/x"),
        Just("[\"x\"]"),
        Just("<<E"),
        Just("NONE"),
    ];
    let name = prop_oneof![
        Just("FROM base AS one"),
        Just("FROM one AS two"),
        Just("FROM scratch"),
        Just("RUN"),
        Just("COPY"),
        Just("ADD"),
        Just("ENV"),
        Just("ARG"),
        Just("LABEL"),
        Just("CMD"),
        Just("ENTRYPOINT"),
        Just("EXPOSE"),
        Just("VOLUME"),
        Just("USER"),
        Just("WORKDIR"),
        Just("HEALTHCHECK"),
        Just("ONBUILD COPY"),
        Just("ONBUILD ENV"),
    ];
    (name, prop::collection::vec(word, 0..4)).prop_map(|(name, words)| {
        let end = if words.contains(&"<<E") { "\nbody $A\nE\n" } else { "\n" };
        let words = if name.starts_with("FROM") { Vec::new() } else { words };
        format!("{name} {}{}", words.join(" "), if words.is_empty() { "\n" } else { end })
    })
}

proptest! {
    #[test]
    fn any_file_is_lowered_or_refused(lines in prop::collection::vec(line(), 1..4)) {
        let text = format!("FROM base\n{}", lines.concat());
        let config = r#"{"OnBuild":["COPY --from=other a b","ENV T=$A"]}"#;
        let input = with_base(with_base(input(), "base", config), "other", "{}");
        // The outline checks that inputs stand before their users.
        let _ = outline_with(&text, &input);
    }
}
