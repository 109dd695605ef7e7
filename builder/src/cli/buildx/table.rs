//! The table itself.

use std::fmt::Write as _;

use crate::pipeline::NO_POLICIES;

/// What a flag, a build argument or a variable does here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// What it does with buildx.
    Same,
    /// That, but for what the text says.
    Differs(&'static str),
    /// Nothing, and there is nothing that it could change; the text says why.
    Nothing(&'static str),
    /// Nothing yet, and a note says so with this text.
    Noted(&'static str),
    /// It is refused, with this text as what to do instead.
    Refused(&'static str),
}

/// A row of a table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    /// The name, without `--`.
    pub(super) name: &'static str,
    /// One way to give it, for the test; the words of a command line, or a value.
    #[cfg_attr(not(test), expect(dead_code, reason = "the test alone gives it"))]
    pub(super) sample: &'static str,
    pub(super) effect: Effect,
}

const fn row(name: &'static str, sample: &'static str, effect: Effect) -> Row {
    Row { name, sample, effect }
}

use Effect::{Differs, Noted, Nothing, Refused, Same};

const LIMIT: &str = "commands have the limits of the builder: start it with the ones you want, as with `systemd-run --scope -p MemoryMax=4G -p CPUQuota=200% fluyt build`";
const GROUP: &str = "each command has a control group of its own for it, not all together one; where none can be made (in most containers, and for users without delegation) a note says so";
const CACHE: &str = "steps are looked for in the store on this machine and kept there; where it does not last, keep the folder that `--store` names";

/// The flags of `docker buildx build`, as its help lists them; last the hidden ones of the classic builder.
pub(super) const FLAGS: &[Row] = &[
    row(
        "add-host",
        "--add-host a:1.2.3.4",
        Differs("`host-gateway` is 127.0.0.1, for commands are on this machine's network"),
    ),
    row(
        "allow",
        "--allow network.host",
        Differs("there is no daemon that has to allow it too; `device` and `fs` allow nothing more"),
    ),
    row("annotation", "--annotation a=b", Differs("`index` annotations need an index, which is not there yet")),
    row("attest", "--attest type=sbom,disabled=true", Differs("as `--provenance` and `--sbom`")),
    row("build-arg", "--build-arg A=1", Same),
    row("build-context", "--build-context a=.", Same),
    row("builder", "--builder x", Nothing("this process is the builder")),
    row("cache-from", "--cache-from a/b:cache", Noted(CACHE)),
    row("cache-to", "--cache-to type=gha", Noted(CACHE)),
    row("call", "--call build", Same),
    row(
        "cgroup-parent",
        "--cgroup-parent x",
        Noted(
            "commands run in the control group of the builder: start it in the one you want, as with `systemd-run --slice=NAME --scope fluyt build`",
        ),
    ),
    row("check", "--check", Same),
    row("debug", "-D", Differs("traces on standard error; `FLUYT_LOG=fluyt=trace` chooses what")),
    row("file", "-f D", Same),
    row("iidfile", "--iidfile x", Same),
    row("label", "--label a=b", Same),
    row("load", "--load", Differs("podman is handed the image where there is no Docker")),
    row("metadata-file", "--metadata-file x", Differs("there is no `buildx.build.provenance` in it")),
    row(
        "network",
        "--network none",
        Differs("`default` is this machine's network; `isolated` is one of their own that leads to other machines"),
    ),
    row("no-cache", "--no-cache", Same),
    row("no-cache-filter", "--no-cache-filter a,b", Same),
    row(
        "output",
        "-o out",
        Differs(
            "all outputs of a build have one form (compression, media types, annotations); `type=local` takes `mode=copy` alone; \
             `registry.insecure=true` is plain HTTP, and `--skip-tls-verify-registry HOST` leaves out the checks of TLS",
        ),
    ),
    row("platform", "--platform linux/amd64", Differs("one platform a build")),
    row("policy", "--policy filename=x.rego", Refused(NO_POLICIES)),
    row("progress", "--progress plain", Same),
    row(
        "provenance",
        "--provenance mode=max",
        Noted("no provenance is attached to the image; `--provenance=false` takes this note away"),
    ),
    row(
        "pull",
        "--pull",
        Differs(
            "base images, and what `ADD` and named contexts take from elsewhere, are asked for in every build; with it, a server that cannot be reached is an error",
        ),
    ),
    row("push", "--push", Same),
    row(
        "quiet",
        "-q",
        Differs(
            "what is printed is the digest of the manifest, as without it; `--iidfile` has that of the configuration",
        ),
    ),
    row("resource", "--resource memory=1g", Noted(LIMIT)),
    row(
        "sbom",
        "--sbom true",
        Noted("no list of packages is attached to the image; `--sbom=false` takes this note away"),
    ),
    row("secret", "--secret id=a,src=/dev/null", Same),
    row("shm-size", "--shm-size 128m", Same),
    row("ssh", "--ssh default", Differs("an RSA key in a file gives no SHA-1 signatures")),
    row("tag", "-t a", Same),
    row("target", "--target a", Same),
    row("ulimit", "--ulimit nofile=10:20", Same),
    row("compress", "--compress", Nothing("no context is sent anywhere")),
    row("cpu-period", "--cpu-period 1000", Differs(GROUP)),
    row("cpu-quota", "--cpu-quota 5000", Differs(GROUP)),
    row("cpu-shares", "-c 2", Differs(GROUP)),
    row("cpuset-cpus", "--cpuset-cpus 0", Differs(GROUP)),
    row("cpuset-mems", "--cpuset-mems 0", Differs(GROUP)),
    row("force-rm", "--force-rm", Nothing("nothing is left of a command in any case")),
    row("memory", "-m 1g", Differs(GROUP)),
    row("memory-swap", "--memory-swap 1g", Differs(GROUP)),
    row("rm", "--rm=false", Nothing("nothing is left of a command in any case")),
    row(
        "security-opt",
        "--security-opt seccomp=x",
        Noted("commands have the usual filter; `RUN --security=insecure` with `--allow security.insecure` has none"),
    ),
    row(
        "squash",
        "--squash",
        Refused("copy the files of the last stage into one `FROM scratch`: `COPY --from=STAGE / /` makes one layer"),
    ),
];

/// Build arguments that steer the builder.
pub(super) const ARGUMENTS: &[Row] = &[
    row("BUILDKIT_BUILD_NAME", "x", Nothing("a build has no name here")),
    row("BUILDKIT_CACHE_MOUNT_NS", "x", Same),
    row("BUILDKIT_CONTEXT_KEEP_GIT_DIR", "1", Same),
    row("BUILDKIT_DOCKERFILE_CHECK", "skip=all", Same),
    row(
        "BUILDKIT_INLINE_CACHE",
        "1",
        Noted("the image says nothing of how it was made; steps are looked for in the store on this machine"),
    ),
    row("BUILDKIT_MULTI_PLATFORM", "1", Noted("the result is a manifest, not an index")),
    row("BUILDKIT_SANDBOX_HOSTNAME", "x", Same),
    row("BUILDKIT_SBOM_SCAN_CONTEXT", "true", Nothing("nothing is scanned, see `--sbom`")),
    row("BUILDKIT_SBOM_SCAN_STAGE", "true", Nothing("nothing is scanned, see `--sbom`")),
    row(
        "BUILDKIT_SYNTAX",
        "docker/dockerfile:1",
        Differs("the built-in language stands for `docker/dockerfile`; another frontend is refused"),
    ),
    row("SOURCE_DATE_EPOCH", "1", Differs("it implies `--reproducible`")),
];

/// Variables of buildx and of Docker's client.
pub(super) const VARIABLES: &[Row] = &[
    row("BUILDKIT_COLORS", "run=green", Nothing("the colours of the progress view are fixed")),
    row("BUILDKIT_HOST", "tcp://x", Nothing("this process is the builder")),
    row("BUILDKIT_PROGRESS", "plain", Same),
    row(
        "BUILDKIT_TTY_LOG_LINES",
        "6",
        Nothing("up to six lines of each step that runs are shown, as far as the terminal has room"),
    ),
    row("BUILDX_BUILDER", "x", Nothing("this process is the builder")),
    row("BUILDX_CONFIG", "x", Nothing("there are no builders to configure")),
    row(
        "BUILDX_DEFAULT_POLICY",
        "1",
        Noted(
            "the signatures of Docker's own images (`docker/dockerfile` and others that buildx starts) are not verified; none is started here",
        ),
    ),
    row("BUILDX_EXPERIMENTAL", "1", Nothing("no feature waits for it")),
    row("BUILDX_GIT_CHECK_DIRTY", "1", Nothing("it is for provenance, see `--provenance`")),
    row("BUILDX_GIT_INFO", "1", Nothing("it is for provenance, see `--provenance`")),
    row(
        "BUILDX_GIT_LABELS",
        "1",
        Noted("`--label org.opencontainers.image.revision=$(git rev-parse HEAD)` gives the label"),
    ),
    row("BUILDX_METADATA_PROVENANCE", "max", Nothing("there is no provenance, see `--provenance`")),
    row("BUILDX_METADATA_WARNINGS", "1", Same),
    row("BUILDX_NO_DEFAULT_ATTESTATIONS", "1", Nothing("there are none by default")),
    row("DOCKER_BUILDKIT", "1", Nothing("there is no other builder")),
    row("DOCKER_CONFIG", "x", Same),
    row("DOCKER_DEFAULT_PLATFORM", "linux/amd64", Same),
    row("EXPERIMENTAL_BUILDKIT_SOURCE_POLICY", "policy.json", Refused(NO_POLICIES)),
    row("NO_COLOR", "1", Same),
    row("SOURCE_DATE_EPOCH", "1", Differs("it implies `--reproducible`")),
];

impl Effect {
    /// In words, for a reader.
    fn words(self) -> String {
        match self {
            Same => "the same".to_owned(),
            Differs(text) => format!("the same, but: {text}"),
            Nothing(text) => format!("taken, and without effect: {text}"),
            Noted(text) => format!("taken, and a note says that it has no effect yet: {text}"),
            Refused(text) => format!("refused: {text}"),
        }
    }
}

/// The end of `fluyt build --help`: what is not as with buildx.
pub(in crate::cli) fn help() -> String {
    let mut text = String::from("Flags of `docker buildx build` that differ:\n");
    let mut told: Vec<Effect> = vec![Same];
    for row in FLAGS {
        if told.contains(&row.effect) {
            continue;
        }
        let alike: Vec<String> =
            FLAGS.iter().filter(|other| other.effect == row.effect).map(|other| format!("--{}", other.name)).collect();
        let _ = writeln!(text, "  {}: {}", alike.join(", "), row.effect.words());
        told.push(row.effect);
    }
    text.push_str("All others do what they do there. Switches take `=true` and `=false` too.");
    text
}

/// The tables for the docs, as Markdown.
#[cfg(test)]
pub(super) fn markdown() -> String {
    let mut text = String::new();
    for (title, prefix, rows) in [("flag", "--", FLAGS), ("build argument", "", ARGUMENTS), ("variable", "", VARIABLES)]
    {
        let _ = writeln!(text, "| {title} | what it does here |\n|---|---|");
        for row in rows {
            let _ = writeln!(text, "| `{prefix}{}` | {} |", row.name, row.effect.words().replace('|', "\\|"));
        }
        text.push('\n');
    }
    text.truncate(text.trim_end().len() + 1);
    text
}
