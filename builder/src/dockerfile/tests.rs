//! Whole files read: an outline of the tree, then the problems.

use std::fmt::Write as _;

use super::*;

fn word(word: &Word) -> String {
    format!("{:?}", word.text)
}

fn words(list: &[Word]) -> String {
    list.iter().map(word).collect::<Vec<_>>().join(" ")
}

fn command_line(command: &CommandLine) -> String {
    match command {
        CommandLine::Shell(line) => word(line),
        CommandLine::Exec(words) => format!("{words:?}"),
    }
}

fn documents(list: &[Heredoc]) -> String {
    let show = |one: &Heredoc| {
        let marks = match (one.expand, one.strip_tabs) {
            (true, false) => "",
            (true, true) => " tabs",
            (false, false) => " literal",
            (false, true) => " literal tabs",
        };
        format!(" <<{}{marks} {:?}", one.name.text, one.body)
    };
    list.iter().map(show).collect()
}

fn arguments(command: &Command) -> String {
    match command {
        Command::Add(transfer) | Command::Copy(transfer) => {
            let mut text = format!("{} -> {}", words(&transfer.sources), word(&transfer.destination));
            let options = [
                ("from", transfer.from.as_ref()),
                ("chown", transfer.chown.as_ref()),
                ("chmod", transfer.chmod.as_ref()),
                ("checksum", transfer.checksum.as_ref()),
            ];
            for (name, value) in options {
                if let Some(value) = value {
                    let _ = write!(text, " {name}={}", word(value));
                }
            }
            if transfer.link {
                text.push_str(" link");
            }
            if transfer.parents {
                text.push_str(" parents");
            }
            if !transfer.exclude.is_empty() {
                let _ = write!(text, " exclude={}", words(&transfer.exclude));
            }
            for (name, value) in [("keep-git-dir", transfer.keep_git_dir), ("unpack", transfer.unpack)] {
                if let Some(value) = value {
                    let _ = write!(text, " {name}={value}");
                }
            }
            text + &documents(&transfer.documents)
        }
        Command::Arg(declarations) => {
            let show = |one: &Declaration| match &one.default {
                Some(default) => format!("{}={}", word(&one.name), word(default)),
                None => word(&one.name),
            };
            declarations.iter().map(show).collect::<Vec<_>>().join(" ")
        }
        Command::Env(pairs) | Command::Label(pairs) => {
            let show = |pair: &Pair| format!("{}={}", word(&pair.key), word(&pair.value));
            pairs.iter().map(show).collect::<Vec<_>>().join(" ")
        }
        Command::Cmd(command) | Command::Entrypoint(command) => command_line(command),
        Command::Run(run) => {
            let mut text = command_line(&run.command);
            if !run.mounts.is_empty() {
                let _ = write!(text, " mount={}", words(&run.mounts));
            }
            for (name, value) in [("network", &run.network), ("security", &run.security)] {
                if let Some(value) = value {
                    let _ = write!(text, " {name}={}", word(value));
                }
            }
            text + &documents(&run.documents)
        }
        Command::Expose(list) | Command::Volume(list) => words(list),
        Command::From => String::new(),
        Command::Healthcheck(HealthcheckSyntax::None) => "NONE".to_owned(),
        Command::Healthcheck(HealthcheckSyntax::Check { command, interval, timeout, retries, .. }) => {
            format!("{} interval={interval} timeout={timeout} retries={retries}", command_line(command))
        }
        Command::Maintainer(one) | Command::Stopsignal(one) | Command::User(one) | Command::Workdir(one) => word(one),
        Command::Onbuild { trigger, text } => {
            format!("{} {} stored {text:?}", trigger.command.name(), arguments(&trigger.command))
        }
        Command::Shell(list) => format!("{list:?}"),
    }
}

fn outline(text: &str) -> String {
    let (file, problems) = parse(text);
    let mut out = String::new();
    if let Some(syntax) = &file.directives.syntax {
        let _ = writeln!(out, "syntax {}", word(syntax));
    }
    if let Some(check) = &file.directives.check {
        let _ = writeln!(out, "check {}", word(check));
    }
    let mut line = |instruction: &Instruction, rest: String| {
        let _ = writeln!(out, "{} {} {rest}", instruction.lines(), instruction.command.name());
    };
    for instruction in &file.global_args {
        line(instruction, arguments(&instruction.command));
    }
    for stage in &file.stages {
        let mut rest = word(&stage.image);
        if let Some(platform) = &stage.platform {
            let _ = write!(rest, " platform={}", word(platform));
        }
        if let Some(name) = &stage.name {
            let _ = write!(rest, " as {}", name.text);
        }
        line(&stage.from, rest);
        for instruction in &stage.instructions {
            line(instruction, arguments(&instruction.command));
        }
    }
    for problem in &problems {
        let kind = if problem.is_error() { "error" } else { "warning" };
        let _ = write!(out, "{kind} {}-{}: {problem}", problem.span.start, problem.span.end);
        if let Some(hint) = &problem.hint {
            let _ = write!(out, " ({hint})");
        }
        out.push('\n');
    }
    out
}

mod accepted;
mod refused;
