//! Whole files lowered: operations, configuration and history as an outline.

use std::fmt::Write as _;

use super::*;
use crate::dockerfile::{Problem, parse};
use crate::image::{HistoryRow, ImageConfig, Platform};

fn platform() -> Platform {
    Platform::new("linux", "amd64", None)
}

fn input() -> LowerInput {
    LowerInput {
        build_args: [].into(),
        target: None,
        platform: platform(),
        build_platform: platform(),
        bases: [].into(),
        labels: [].into(),
        network: Network::Default,
        conditions: Conditions::default(),
        allowed: Allowed::default(),
        contexts: Contexts::default(),
        all_stages: false,
    }
}

/// An image with one layer and this configuration (JSON of the `config` part).
fn base(config: &str) -> ResolvedBase {
    let mut image = ImageConfig {
        architecture: "amd64".to_owned(),
        os: "linux".to_owned(),
        config: serde_json::from_str(config).unwrap(),
        ..ImageConfig::default()
    };
    image.rootfs.diff_ids = vec!["sha256:d".to_owned()];
    image.history = vec![HistoryRow { created_by: Some("made the base".to_owned()), ..HistoryRow::default() }];
    ResolvedBase { config: image, digest: "sha256:m".to_owned() }
}

fn with_base(mut input: LowerInput, reference: &str, config: &str) -> LowerInput {
    let request = ImageRequest { reference: reference.to_owned(), platform: platform() };
    input.bases.insert(request, base(config));
    input
}

fn args(mut input: LowerInput, pairs: &[(&str, &str)]) -> LowerInput {
    input.build_args = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    input
}

fn target(mut input: LowerInput, name: &str) -> LowerInput {
    input.target = Some(name.to_owned());
    input
}

fn root(root: Root) -> String {
    root.op().map_or_else(|| "scratch".to_owned(), |id| format!("#{}", id.index()))
}

fn show_copy(copy: &CopyOp) -> String {
    let from = match &copy.from {
        CopyFrom::Context => "context".to_owned(),
        CopyFrom::Folder(folder) => format!("folder {}", folder.0),
        CopyFrom::Root(from) => root(*from),
        CopyFrom::Fetch(id) => format!("fetch #{}", id.index()),
        CopyFrom::MakeDirectory => "nothing".to_owned(),
    };
    let files: Vec<String> = copy
        .inline
        .iter()
        .map(|file| format!("{}={:?} {:o}", file.name, String::from_utf8_lossy(&file.content), file.mode))
        .collect();
    let from = match (copy.sources.is_empty(), files.is_empty()) {
        (_, true) => from,
        (true, false) => format!("inline {}", files.join(", ")),
        (false, false) => format!("{from} and inline {}", files.join(", ")),
    };
    let mut text = format!("{} + copy {from} {:?} -> {}", root(copy.input), copy.sources, copy.destination);
    if copy.destination_is_directory {
        text.push_str(" (directory)");
    }
    if let Some(chown) = &copy.chown {
        let _ = write!(text, " chown {chown}");
    }
    if let Some(chmod) = &copy.chmod {
        let _ = write!(text, " chmod {chmod:?}");
    }
    for (set, name) in [(copy.link, "link"), (copy.parents, "parents"), (copy.unpack, "unpack")] {
        if set {
            let _ = write!(text, " {name}");
        }
    }
    if !copy.exclude.is_empty() {
        let _ = write!(text, " exclude {:?}", copy.exclude);
    }
    text
}

fn show_run(run: &RunOp) -> String {
    let env: Vec<String> = run.env.iter().filter(|(name, _)| name != "PATH").map(|(n, v)| format!("{n}={v}")).collect();
    let mut text = format!("{} + run {:?} in {} env {env:?}", root(run.input), run.argv, run.cwd);
    if !run.user.is_empty() {
        let _ = write!(text, " as {}", run.user);
    }
    if !run.proxy_env.is_empty() {
        let _ = write!(text, " proxies {:?}", run.proxy_env);
    }
    if run.network != Network::Default {
        let _ = write!(text, " network {:?}", run.network);
    }
    if let Some(script) = &run.script {
        let _ = write!(text, " script {} {:?}", script.name, String::from_utf8_lossy(&script.content));
    }
    text
}

fn show_problems(problems: &[Problem]) -> String {
    let mut text = String::new();
    for problem in problems {
        let kind = if problem.is_error() { "error" } else { "warning" };
        let _ = write!(text, "{kind} {}: {problem}", problem.span.start);
        if let Some(hint) = &problem.hint {
            let _ = write!(text, " ({hint})");
        }
        text.push('\n');
    }
    text
}

fn outline_with(text: &str, input: &LowerInput) -> String {
    let (file, problems) = parse(text);
    let mut out = show_problems(&problems);
    if problems.iter().any(Problem::is_error) {
        return out;
    }
    match lower(&file, input) {
        Err(problems) => out.push_str(&show_problems(&problems)),
        Ok(Lowered::Needs(images)) => {
            for (image, _) in images {
                let _ = writeln!(out, "needs {} for {}", image.reference, image.platform);
            }
        }
        Ok(Lowered::Done(graph)) => {
            for (id, node) in graph.ops() {
                let op = match &node.op {
                    Op::Base(base) => format!("base {} {}", base.request.reference, base.digest),
                    Op::Copy(copy) => show_copy(copy),
                    Op::Run(run) => show_run(run),
                    Op::Fetch(fetch) => format!("{fetch:?}"),
                };
                assert!(node.op.inputs().iter().all(|input| *input < id), "an input stands after its user");
                let _ = writeln!(out, "#{} {op} | {} :{}", id.index(), node.about.title(), node.about.lines);
            }
            let _ = writeln!(out, "= {} {}", root(graph.result.root), graph.result.platform);
            let _ = writeln!(out, "{}", serde_json::to_string(&graph.result.config).unwrap());
            if let Some(author) = &graph.result.author {
                let _ = writeln!(out, "by {author}");
            }
            for row in &graph.result.history {
                let _ = match row {
                    HistoryStep::Base(row) => writeln!(out, "(base) {}", row.created_by.as_deref().unwrap_or_default()),
                    HistoryStep::Made { created_by, layer: Some(id), .. } => {
                        writeln!(out, "#{} {created_by}", id.index())
                    }
                    HistoryStep::Made { created_by, layer: None, .. } => writeln!(out, "-- {created_by}"),
                };
            }
            out.push_str(&show_problems(&graph.warnings));
        }
    }
    out
}

fn outline(text: &str) -> String {
    outline_with(text, &input())
}

mod conditions;
mod configuration;
mod lowering;
mod problems;

/// Which instructions of a Dockerfile are late while its address is pending, by their first word that is no flag.
fn late_of(text: &str) -> Vec<String> {
    let (dockerfile, problems) = parse(text);
    assert!(problems.is_empty(), "{problems:?}");
    let Ok(Lowered::Done(graph)) = lower(&dockerfile, &input()) else { panic!("no graph") };
    let late = graph.late(|_| true);
    let name = |id: &OpId| graph.node(*id).about.instruction.rsplit(' ').next().unwrap_or_default().to_owned();
    late.keys().map(name).collect()
}

#[test]
fn what_sees_a_mount_that_a_late_command_sees_is_late() {
    // The commands `late` and `also` see a mount of a late one; `early` comes before it, and `other` sees another.
    let text = "FROM scratch AS early\nRUN --mount=type=cache,target=/m early\n\
        FROM scratch AS late\nADD http://h.example/f /f\nRUN --mount=type=cache,target=/m late\n\
        FROM scratch AS also\nRUN --mount=type=cache,target=/m,readonly --mount=type=cache,target=/n also\n\
        FROM scratch AS third\nRUN --mount=type=cache,target=/n,sharing=private third\n\
        FROM scratch AS other\nRUN --mount=type=cache,target=/o other\n\
        FROM scratch\nCOPY --from=early / /1\nCOPY --from=late / /2\nCOPY --from=also / /3\nCOPY --from=third / /4\n\
        COPY --from=other / /5\n";
    assert_eq!(late_of(text), ["http://h.example/f", "/f", "late", "also", "third", "/2", "/3", "/4", "/5"]);
}

#[test]
fn what_is_late_names_the_fetches_behind_it() {
    let text = "FROM scratch AS one\nADD http://h.example/f /f\nRUN --mount=type=cache,target=/m one\n\
        FROM scratch AS two\nADD http://h.example/g /g\nRUN --mount=type=cache,target=/m two\n\
        FROM scratch\nRUN --mount=type=cache,target=/m last\n";
    let text = format!("{text}COPY --from=one / /1\nCOPY --from=two / /2\n");
    let (dockerfile, _) = parse(&text);
    let Ok(Lowered::Done(graph)) = lower(&dockerfile, &input()) else { panic!("no graph") };
    let name = |id: &OpId| graph.node(*id).about.instruction.rsplit(['/', ' ']).next().unwrap_or_default().to_owned();
    let late = graph.late(|_| true);
    let told: Vec<String> = late
        .iter()
        .map(|(id, fetches)| format!("{}: {}", name(id), fetches.iter().map(name).collect::<Vec<_>>().join(" ")))
        .collect();
    assert_eq!(told, ["f: f", "f: f", "one: f", "g: g", "g: g", "two: f g", "last: f g", "1: f g", "2: f g"]);
    let one = graph.late(|op| op.what().ends_with('g'));
    assert_eq!(one.keys().map(name).collect::<Vec<_>>(), ["g", "g", "two", "last", "1", "2"]);
}

#[test]
fn a_password_of_an_address_is_in_no_title_and_no_history() {
    let (dockerfile, _) =
        parse("FROM scratch\nADD --link http://u:secret@h.example/f https://secret@h.example/g /d/\n");
    let Ok(Lowered::Done(graph)) = lower(&dockerfile, &input()) else { panic!("no graph") };
    let titles: Vec<String> = graph.ops().map(|(_, node)| node.about.title()).collect();
    assert!(titles.iter().any(|title| title.ends_with("http://...@h.example/f https://...@h.example/g /d/")));
    let told = format!("{titles:?} {:?} {:?}", graph.result.history, graph.result.config);
    assert!(!told.contains("secret") && told.contains("ADD http://...@h.example/f"), "{told}");
}
