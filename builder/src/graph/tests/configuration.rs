//! Configuration and history: what metadata instructions leave.

use super::*;

#[test]
fn every_metadata_instruction() {
    let text = concat!(
        "FROM scratch\n",
        "MAINTAINER A <$B>\n",
        "LABEL a=1 \"b c\"=\"d e\"\n",
        "ENV X=1 Y='$X'\n",
        "ENV Z $X and more\n",
        "EXPOSE 443 80/UDP 8000-8001\n",
        "VOLUME /b $X/a\n",
        "VOLUME [\"/c d\"]\n",
        "STOPSIGNAL SIGTERM\n",
        "USER u\n",
        "HEALTHCHECK --interval=30s --retries=3 CMD curl -f x || exit 1\n",
        "CMD echo hi\n",
    );
    insta::assert_snapshot!(outline(text), @r#"
    warning 2:1: Maintainer instruction is deprecated in favor of using label (use `LABEL org.opencontainers.image.authors=...`)
    = scratch linux/amd64
    {"User":"u","ExposedPorts":{"443/tcp":{},"80/udp":{},"8000/tcp":{},"8001/tcp":{}},"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin","X=1","Y=$X","Z=1 and more"],"Cmd":["/bin/sh","-c","echo hi"],"Healthcheck":{"Test":["CMD-SHELL","curl -f x || exit 1"],"Interval":30000000000,"Retries":3},"ArgsEscaped":true,"Volumes":{"/b":{},"/c d":{},"1/a":{}},"WorkingDir":"/","Labels":{"a":"1","b c":"d e"},"StopSignal":"SIGTERM"}
    by A <$B>
    -- MAINTAINER A <$B>
    -- LABEL a=1 b c=d e
    -- ENV X=1 Y=$X
    -- ENV Z=1 and more
    -- EXPOSE [443/tcp 80/udp 8000/tcp 8001/tcp]
    -- VOLUME [/b 1/a]
    -- VOLUME [/c d]
    -- STOPSIGNAL SIGTERM
    -- USER u
    -- HEALTHCHECK {Test:[CMD-SHELL curl -f x || exit 1] Interval:30s Timeout:0s StartPeriod:0s StartInterval:0s Retries:3}
    -- CMD ["/bin/sh" "-c" "echo hi"]
    warning 5:1: "ENV key=value" should be used instead of legacy "ENV key value" format
    warning 6:12: Defined protocol '80/UDP' in EXPOSE instruction should be lowercase
    warning 12:1: JSON arguments recommended for CMD to prevent unintended behavior related to OS signals
    "#);
}

#[test]
fn an_entrypoint_resets_the_cmd_of_the_base_and_not_its_own() {
    let config = r#"{"Cmd":["sh"],"Entrypoint":["old"]}"#;
    let with = || with_base(input(), "base", config);
    insta::assert_snapshot!(outline_with("FROM base\nENTRYPOINT [\"new\"]\n", &with()), @r#"
    #0 base base sha256:m | [1/1] FROM base :1
    = #0 linux/amd64
    {"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],"Entrypoint":["new"]}
    (base) made the base
    -- ENTRYPOINT ["new"]
    "#);
    insta::assert_snapshot!(outline_with("FROM base\nCMD [\"mine\"]\nENTRYPOINT new\n", &with()), @r#"
    #0 base base sha256:m | [1/1] FROM base :1
    = #0 linux/amd64
    {"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],"Entrypoint":["/bin/sh","-c","new"],"Cmd":["mine"],"ArgsEscaped":true}
    (base) made the base
    -- CMD ["mine"]
    -- ENTRYPOINT ["/bin/sh" "-c" "new"]
    warning 3:1: JSON arguments recommended for ENTRYPOINT to prevent unintended behavior related to OS signals
    "#);
    insta::assert_snapshot!(outline_with("FROM base\nENTRYPOINT []\nCMD []\n", &with()), @r#"
    #0 base base sha256:m | [1/1] FROM base :1
    = #0 linux/amd64
    {"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],"ArgsEscaped":true}
    (base) made the base
    -- ENTRYPOINT []
    -- CMD []
    "#);
}

#[test]
fn one_env_sees_the_environment_from_before_it() {
    insta::assert_snapshot!(outline("FROM scratch\nENV abc=hello\nENV abc=bye def=$abc\nENV ghi=$abc\n"), @r#"
    = scratch linux/amd64
    {"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin","abc=bye","def=hello","ghi=bye"],"WorkingDir":"/"}
    -- ENV abc=hello
    -- ENV abc=bye def=hello
    -- ENV ghi=bye
    "#);
}

#[test]
fn what_the_base_has_stays() {
    let config = r#"{"Env":["PATH=/x","A=1"],"Labels":{"a":"1"},"ExposedPorts":{"1/tcp":{}},"Volumes":{"/v":{}},
        "WorkingDir":"/w","User":"u","StopSignal":"SIGINT","Shell":["/s"],"Extra":"kept","OnBuild":["ENV B=2"]}"#;
    let text = "FROM base\nENV A=2 C=$B\nLABEL b=2\nEXPOSE 2\nVOLUME /w\nCMD a\n";
    insta::assert_snapshot!(outline_with(text, &with_base(input(), "base", config)), @r#"
    #0 base base sha256:m | [1/1] FROM base :1
    = #0 linux/amd64
    {"User":"u","ExposedPorts":{"1/tcp":{},"2/tcp":{}},"Env":["PATH=/x","A=2","B=2","C=2"],"Cmd":["/s","a"],"ArgsEscaped":true,"Volumes":{"/v":{},"/w":{}},"WorkingDir":"/w","Labels":{"a":"1","b":"2"},"StopSignal":"SIGINT","Shell":["/s"],"Extra":"kept"}
    (base) made the base
    -- ENV B=2
    -- ENV A=2 C=2
    -- LABEL b=2
    -- EXPOSE [2/tcp]
    -- VOLUME [/w]
    -- CMD ["/s" "a"]
    "#);
}

#[test]
fn labels_of_the_command_line_win() {
    let mut input = input();
    input.labels = [("a".to_owned(), "9".to_owned())].into();
    insta::assert_snapshot!(outline_with("FROM scratch\nLABEL a=1 b=2\n", &input), @r#"
    = scratch linux/amd64
    {"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],"WorkingDir":"/","Labels":{"a":"9","b":"2"}}
    -- LABEL a=1 b=2
    "#);
}

#[test]
fn later_of_env_and_arg_wins() {
    let text = "FROM base\nENV A=env\nARG A=arg\nRUN a\nENV A=again\nRUN b\n";
    insta::assert_snapshot!(outline_with(text, &with_base(input(), "base", "{}")), @r#"
    #0 base base sha256:m | [1/3] FROM base :1
    #1 #0 + run ["/bin/sh", "-c", "a"] in / env ["A=arg"] | [2/3] RUN a :4
    #2 #1 + run ["/bin/sh", "-c", "b"] in / env ["A=again"] | [3/3] RUN b :6
    = #2 linux/amd64
    {"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin","A=again"]}
    (base) made the base
    -- ENV A=env
    -- ARG A=arg
    #1 RUN |1 A=arg /bin/sh -c a # buildkit
    -- ENV A=again
    #2 RUN |1 A=again /bin/sh -c b # buildkit
    "#);
}
